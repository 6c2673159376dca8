use super::*;
use crate::testing::Random;
use std::string::ToString;
use std::vec;
use xen_abi::{DomId, Mfn, Port};

/// A message as `struct xsd_sockmsg` (`public/io/xs_wire.h`) lays it out.
fn message(kind: u32, id: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        [kind, id, transaction, payload.len() as u32].into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(payload);
    bytes
}

fn encode(client: &mut Client, command: Command<'_>) -> (u32, Vec<u8>) {
    client.encode(&command.into()).unwrap()
}

/// A client that waits for the reply to a READ, which has the number 1.
fn reading() -> Client {
    let mut client = Client::new();
    assert_eq!(encode(&mut client, Command::Read("name")).0, 1);
    client
}

#[test]
fn requests_are_written_as_the_protocol_says() {
    let permissions = [
        Permission { domain: DomId(3), access: Access::None },
        Permission { domain: DomId(0), access: Access::ReadWrite },
    ];
    let cases: [(Command, u32, &[u8]); 16] = [
        (Command::Directory("device"), 1, b"device\0"),
        (Command::DirectoryPart { path: "device", offset: 4087 }, 22, b"device\x004087\0"),
        (Command::Read("/vm"), 2, b"/vm\0"),
        (Command::Write("data/x", b"a\0b"), 11, b"data/x\0a\0b"),
        (Command::Mkdir("a"), 12, b"a\0"),
        (Command::Remove("a"), 13, b"a\0"),
        (Command::GetPermissions("a"), 3, b"a\0"),
        (Command::SetPermissions("a", &permissions), 14, b"a\0n3\0b0\0"),
        (Command::Watch { path: "a", token: "t" }, 4, b"a\0t\0"),
        (Command::Unwatch { path: "a", token: "t" }, 5, b"a\0t\0"),
        (Command::StartTransaction, 6, b"\0"),
        (Command::EndTransaction { commit: true }, 7, b"T\0"),
        (Command::EndTransaction { commit: false }, 7, b"F\0"),
        (
            Command::Introduce { domain: DomId(7), ring: Mfn(0x1_0000_0000), port: Port(3) },
            8,
            b"7\x004294967296\x003\0",
        ),
        (Command::Release(DomId(7)), 9, b"7\0"),
        (Command::IsDomainIntroduced(DomId(7)), 17, b"7\0"),
    ];
    let mut client = Client::new();
    for (index, (command, kind, payload)) in cases.into_iter().enumerate() {
        let id = index as u32 + 1;
        let request = Request { transaction: TransactionId(9), command };
        assert_eq!(client.encode(&request), Ok((id, message(kind, id, 9, payload))), "{command:?}");
    }
}

#[test]
fn requests_that_cannot_be_sent_are_refused() {
    let mut client = Client::new();
    let mut error = |command: Command<'_>| client.encode(&command.into()).unwrap_err();
    assert_eq!(error(Command::Read("a\0b")), Error::EmbeddedNul);
    assert_eq!(error(Command::Watch { path: "a", token: "\0" }), Error::EmbeddedNul);
    assert_eq!(error(Command::Read(&"a".repeat(2049))), Error::TooLong);
    assert_eq!(error(Command::Read(&"/a".repeat(1537))), Error::TooLong);
    assert_eq!(error(Command::Write("a", &[0; 4095])), Error::TooLong);
    assert_eq!(encode(&mut client, Command::Write("a", &[0; 4094])).0, 1);
}

#[test]
fn replies_are_matched_to_requests() {
    let mut client = reading();
    assert_eq!(encode(&mut client, Command::Mkdir("a")).0, 2);
    client.feed(&message(12, 2, 0, b"OK\0"));
    client.feed(&message(2, 1, 0, b"guest"));
    let reply = |request_id, payload: &[u8]| Incoming::Reply { request_id, result: Ok(payload.to_vec()) };
    assert_eq!(client.receive(), Ok(Some(reply(2, b"OK\0"))));
    assert_eq!(client.receive(), Ok(Some(reply(1, b"guest"))));
    assert_eq!(client.receive(), Ok(None));
}

#[test]
fn refusals_keep_their_names() {
    for (name, error) in [
        ("ENOENT", Error::NotFound),
        ("EACCES", Error::AccessDenied),
        ("EAGAIN", Error::Again),
        ("EINVAL", Error::Invalid),
        ("EEXIST", Error::Exists),
        ("ENOSPC", Error::NoSpace),
        ("EROFS", Error::Other("EROFS".into())),
    ] {
        let mut client = reading();
        client.feed(&message(16, 1, 0, &[name.as_bytes(), b"\0"].concat()));
        assert_eq!(client.receive(), Ok(Some(Incoming::Reply { request_id: 1, result: Err(error) })));
    }
}

#[test]
fn watch_events_come_between_replies() {
    let mut client = reading();
    client.feed(&message(15, 0, 0, b"control/shutdown\0token\0"));
    let watch = Incoming::Watch { path: "control/shutdown".into(), token: "token".into() };
    assert_eq!(client.receive(), Ok(Some(watch)));
    assert_eq!(client.pending.len(), 1);
    // The number in an event has no meaning, and more may stand behind the token.
    client.feed(&message(15, 1, 0, b"a\0b\0more\0"));
    assert_eq!(client.receive(), Ok(Some(Incoming::Watch { path: "a".into(), token: "b".into() })));
    assert_eq!(client.pending.len(), 1);
}

#[test]
fn a_broken_stream_stays_broken() {
    let too_long = [16u32, 1, 0, 4097].into_iter().flat_map(u32::to_le_bytes).collect();
    for (bytes, error) in [
        (too_long, StreamError::TooLong(4097)),
        (message(2, 7, 0, b"x"), StreamError::UnknownRequest(7)),
        (message(11, 1, 0, b"x"), StreamError::WrongType { expected: XsType::READ, found: XsType::WRITE }),
        (message(15, 0, 0, b"no token\0"), StreamError::BadPayload),
        (message(15, 0, 0, b"\xff\0t\0"), StreamError::BadPayload),
    ] {
        let mut client = reading();
        client.feed(&bytes);
        assert_eq!(client.receive(), Err(Error::Broken(error)));
        client.feed(&message(2, 1, 0, b"x"));
        assert_eq!(client.receive(), Err(Error::Broken(error)));
    }
    let mut client = reading();
    client.feed(&[message(2, 1, 0, b"x"), message(2, 1, 0, b"x")].concat());
    assert!(client.receive().is_ok());
    assert_eq!(client.receive(), Err(StreamError::UnknownRequest(1).into()), "answered twice");
}

#[test]
fn numbers_skip_zero_and_pending_requests() {
    let mut client = reading();
    client.last_id = u32::MAX;
    assert_eq!(encode(&mut client, Command::Read("a")).0, 2);
}

#[test]
fn payloads_are_read() {
    assert_eq!(names(b"").unwrap(), Vec::<String>::new());
    assert_eq!(names(b"vif\0vbd\0").unwrap(), ["vif", "vbd"]);
    assert_eq!(names(b"\xff\0"), Err(StreamError::BadPayload));
    let list = permissions(b"n0\0r12\0w5\0b32752\0").unwrap();
    let shown: Vec<String> = list.iter().map(|permission| permission.to_string()).collect();
    assert_eq!(shown, ["n0", "r12", "w5", "b32752"]);
    for bad in [&b"x1\0"[..], b"r\0", b"\0", b"r-1\0", b"r65536\0", b"\xc3\xa91\0"] {
        assert_eq!(permissions(bad), Err(StreamError::BadPayload), "{bad:?}");
    }
    assert_eq!(transaction(b"4294967295\0"), Ok(TransactionId(u32::MAX)));
    assert_eq!((introduced(b"T\0"), introduced(b"F\0")), (Ok(true), Ok(false)));
    assert_eq!(introduced(b"T"), Err(StreamError::BadPayload));
    for bad in [&b""[..], b"\0", b"0\0", b"x\0", b"4294967296\0"] {
        assert_eq!(transaction(bad), Err(StreamError::BadPayload), "{bad:?}");
    }
}

#[test]
fn long_lists_are_collected() {
    let mut list = NameList::default();
    assert_eq!(list.add(b"7\0a\0bc\0"), Ok(false));
    assert_eq!(list.offset(), 5);
    assert_eq!(list.add(b"7\0d\0\0"), Ok(true));
    assert_eq!(list.names().unwrap(), ["a", "bc", "d"]);

    let mut list = NameList::default();
    assert_eq!(list.add(b"7\0a\0bc\0"), Ok(false));
    assert_eq!(list.add(b"8\0d\0\0"), Ok(false), "the node has changed");
    assert_eq!(list.offset(), 0);
    assert_eq!(list.add(b"8\0a\0"), Ok(false));
    assert_eq!(list.add(b"8\0\0"), Ok(true), "nothing was left");
    assert_eq!(list.names().unwrap(), ["a"]);

    assert_eq!(NameList::default().add(b"7\0\0"), Ok(true));
    for bad in [&b""[..], b"7", b"7\0", b"7\0a"] {
        assert_eq!(NameList::default().add(bad), Err(StreamError::BadPayload), "{bad:?}");
    }
}

#[test]
fn messages_arrive_in_any_pieces() {
    let mut random = Random::new(10);
    for _ in 0..200 {
        let mut client = Client::new();
        let mut stream = Vec::new();
        let mut expected = Vec::new();
        for index in 0..random.below(20) as usize {
            if random.chance(3) {
                stream.extend(message(15, 0, 0, b"path\0token\0"));
                expected.push(Incoming::Watch { path: "path".into(), token: "token".into() });
            } else {
                let (request_id, _) = encode(&mut client, Command::Read("a"));
                let payload = vec![index as u8; random.below(4097) as usize];
                stream.extend(message(2, request_id, 0, &payload));
                expected.push(Incoming::Reply { request_id, result: Ok(payload) });
            }
        }
        let mut received = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(1 + random.below(3000) as usize));
            client.feed(piece);
            rest = behind;
            while let Some(incoming) = client.receive().unwrap() {
                received.push(incoming);
            }
        }
        assert_eq!(received, expected);
        assert!(client.received.is_empty() && client.pending.is_empty());
    }
}

#[test]
fn garbage_never_panics() {
    let mut random = Random::new(11);
    for _ in 0..500 {
        let mut client = reading();
        for _ in 0..random.below(40) {
            // Small words, so that headers are often plausible.
            let word = if random.chance(3) { random.next_u64() as u32 } else { random.below(17) as u32 };
            client.feed(&word.to_le_bytes());
        }
        while let Ok(Some(_)) = client.receive() {}
    }
}
