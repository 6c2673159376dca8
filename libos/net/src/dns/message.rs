//! Queries and answers (RFC 1035, section 4).

use super::name::Name;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Length of a message's head.
const HEAD: usize = 12;
/// The type of an IPv4 address, of an alias, and the Internet's class (RFC 1035, section 3.2).
const A: u16 = 1;
const CNAME: u16 = 5;
const IN: u16 = 1;

/// Aliases that are followed within one answer.
const ALIASES_MAX: usize = 16;

/// The meaning of a server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, and not for long")]
pub enum Reply {
    /// The name has these addresses; there is one at least.
    Addresses(Vec<Ipv4Addr>),
    /// The name is an alias of this one, of which the answer says nothing more.
    Alias(Name),
    /// The name exists and has no IPv4 address.
    NoAddress,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// The answer does not fit into a datagram.
    Truncated,
    /// The server cannot or does not want to answer, or its answer is malformed.
    Failed,
}

/// A recursive query for the IPv4 addresses of `name`.
pub fn query(id: u16, name: &Name) -> Vec<u8> {
    const RECURSION_DESIRED: u8 = 1;
    let mut octets = Vec::with_capacity(HEAD + name.octets().len() + 4);
    octets.extend_from_slice(&id.to_be_bytes());
    octets.extend_from_slice(&[RECURSION_DESIRED, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    octets.extend_from_slice(name.octets());
    octets.extend_from_slice(&A.to_be_bytes());
    octets.extend_from_slice(&IN.to_be_bytes());
    octets
}

/// Reads an answer. `None`: it is no answer to the query with this id for this name, perhaps a
/// forged one, and to be ignored (RFC 5452, section 9.1).
///
/// The order of the records means nothing (RFC 1034, section 3.6): an alias may stand behind the
/// address that it leads to.
pub fn read(message: &[u8], id: u16, name: &Name) -> Option<Reply> {
    let (head, _) = message.split_first_chunk::<HEAD>()?;
    let field = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let is_response = head[2] & 0x80 != 0;
    let opcode = head[2] >> 3 & 15;
    let truncated = head[2] & 2 != 0;
    let status = head[3] & 15;
    if field(0) != id || !is_response || opcode != 0 {
        return None;
    }
    let mut at = HEAD;
    match field(4) {
        1 => {
            let (asked, after) = Name::at(message, at)?;
            if asked != *name || u16_at(message, after)? != A || u16_at(message, after + 2)? != IN {
                return None;
            }
            at = after + 4;
        }
        // Some servers repeat no question when they refuse.
        0 if status != 0 => {}
        _ => return None,
    }
    Some(match status {
        0 if truncated => Reply::Truncated,
        0 => follow(message, at, field(6), *name).unwrap_or(Reply::Failed),
        3 => Reply::NoSuchName,
        _ => Reply::Failed,
    })
}

/// Follows `name` through the `count` records at `at`. `None`: they are malformed.
fn follow(message: &[u8], at: usize, count: u16, name: Name) -> Option<Reply> {
    let mut current = name;
    for _ in 0..=ALIASES_MAX {
        let mut addresses = Vec::new();
        let mut alias = None;
        let mut next = at;
        for _ in 0..count {
            let record = Record::at(message, next)?;
            next = record.end;
            if record.owner != current || record.class != IN {
                continue;
            }
            match record.kind {
                A => {
                    let octets: [u8; 4] = message.get(record.data..record.end)?.try_into().ok()?;
                    addresses.push(octets.into());
                }
                CNAME => alias = Some(Name::at(message, record.data)?.0),
                _ => {}
            }
        }
        current = match alias {
            _ if !addresses.is_empty() => return Some(Reply::Addresses(addresses)),
            Some(alias) => alias,
            None if current == name => return Some(Reply::NoAddress),
            None => return Some(Reply::Alias(current)),
        };
    }
    // The aliases lead in a circle, or nowhere.
    None
}

/// A resource record (RFC 1035, section 4.1.3).
struct Record {
    owner: Name,
    kind: u16,
    class: u16,
    /// Offsets of the data's start and end.
    data: usize,
    end: usize,
}

impl Record {
    fn at(message: &[u8], at: usize) -> Option<Self> {
        let (owner, after) = Name::at(message, at)?;
        let data = after + 10;
        let end = data + usize::from(u16_at(message, after + 8)?);
        (end <= message.len()).then_some(())?;
        Some(Self { owner, kind: u16_at(message, after)?, class: u16_at(message, after + 2)?, data, end })
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    message.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;
    const OK: [u8; 2] = [0x81, 0x80];

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    /// An answer to the query for `asked`, with these records.
    fn answer(asked: &str, flags: [u8; 2], records: &[Vec<u8>]) -> Vec<u8> {
        let mut octets = query(ID, &name("x"));
        octets.truncate(HEAD);
        octets[2..4].copy_from_slice(&flags);
        octets[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        octets.extend(wire(asked));
        octets.extend([0, 1, 0, 1]);
        records.iter().for_each(|record| octets.extend(record));
        octets
    }

    /// A name without compression, in its own letters.
    fn wire(text: &str) -> Vec<u8> {
        let labels = text.split('.').flat_map(|label| core::iter::once(label.len() as u8).chain(label.bytes()));
        labels.chain([0]).collect()
    }

    fn record(owner: &str, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut octets = wire(owner);
        octets.extend(kind.to_be_bytes());
        octets.extend([0, 1, 0, 0, 0, 60]);
        octets.extend((data.len() as u16).to_be_bytes());
        octets.extend(data);
        octets
    }

    fn a(owner: &str, last: u8) -> Vec<u8> {
        record(owner, A, &[10, 0, 0, last])
    }

    fn alias(owner: &str, target: &str) -> Vec<u8> {
        record(owner, CNAME, &wire(target))
    }

    fn found(last: &[u8]) -> Option<Reply> {
        Some(Reply::Addresses(last.iter().map(|&last| Ipv4Addr::new(10, 0, 0, last)).collect()))
    }

    #[test]
    fn a_query_is_one_question_with_recursion() {
        // As dig(1) prints it: id 1234, flags rd, one question, A IN.
        let octets = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x01\0\x01";
        assert_eq!(query(ID, &name("www.example")), octets);
    }

    #[test]
    fn the_order_of_records_makes_no_difference() {
        let chain = [alias("a.test", "b.test"), alias("b.test", "c.test"), a("c.test", 1), a("c.test", 2)];
        let orders = [[0, 1, 2, 3], [2, 3, 1, 0], [1, 2, 0, 3], [2, 1, 0, 3]];
        for order in orders {
            let records = order.map(|index| chain[index].clone());
            assert_eq!(read(&answer("a.test", OK, &records), ID, &name("a.test")), found(&[1, 2]), "{order:?}");
        }
    }

    #[test]
    fn the_case_of_letters_makes_no_difference() {
        for (asked, owner) in [("HOST.test", "HOST.test"), ("host.test", "hOsT.TEST"), ("HOST.TEST", "host.test")] {
            assert_eq!(read(&answer(asked, OK, &[a(owner, 1)]), ID, &name("host.Test")), found(&[1]));
            let aliased = [a("Other.Test", 2), alias(owner, "oTHER.tEST")];
            assert_eq!(read(&answer(asked, OK, &aliased), ID, &name("host.test")), found(&[2]));
        }
    }

    #[test]
    fn records_of_others_are_passed_over() {
        let records = [
            a("other.test", 9),
            record("host.test", 28, &[0; 16]),
            record("host.test", 46, b"signature"),
            // The class is Chaos.
            [wire("host.test"), b"\0\x01\0\x03\0\0\0\x3c\0\x04\x0a\0\0\x09".to_vec()].concat(),
            a("host.test", 1),
        ];
        assert_eq!(read(&answer("host.test", OK, &records), ID, &name("host.test")), found(&[1]));
        assert_eq!(read(&answer("host.test", OK, &records[..4]), ID, &name("host.test")), Some(Reply::NoAddress));
        let dangling = [alias("host.test", "far.test"), a("other.test", 9)];
        assert_eq!(
            read(&answer("host.test", OK, &dangling), ID, &name("host.test")),
            Some(Reply::Alias(name("far.test")))
        );
    }

    #[test]
    fn each_status_keeps_its_meaning() {
        let host = name("host.test");
        let status = |flags| read(&answer("host.test", flags, &[]), ID, &host);
        assert_eq!(status(OK), Some(Reply::NoAddress));
        assert_eq!(status([0x83, 0x80]), Some(Reply::Truncated));
        assert_eq!(status([0x81, 0x83]), Some(Reply::NoSuchName));
        for failure in [1, 2, 4, 5, 9, 15] {
            assert_eq!(status([0x81, 0x80 | failure]), Some(Reply::Failed));
        }
        // A refusal may leave the question out; an answer may not.
        let mut bare = answer("host.test", [0x81, 0x85], &[]);
        bare.truncate(HEAD);
        bare[5] = 0;
        assert_eq!(read(&bare, ID, &host), Some(Reply::Failed));
        bare[3] = 0x80;
        assert_eq!(read(&bare, ID, &host), None);
    }

    #[test]
    fn an_answer_to_another_query_is_none() {
        let host = name("host.test");
        let good = answer("host.test", OK, &[a("host.test", 1)]);
        assert_eq!(read(&good, ID + 1, &host), None, "id");
        assert_eq!(read(&good, ID, &name("host.tess")), None, "question");
        for (at, octet) in [(2, 0x01), (2, 0x89), (5, 2), (5, 0)] {
            let mut other = good.clone();
            other[at] = octet;
            assert_eq!(read(&other, ID, &host), None, "octet {at}");
        }
        let question_end = HEAD + host.octets().len() + 4;
        for (at, what) in [(question_end - 3, "type"), (question_end - 1, "class")] {
            let mut other = good.clone();
            other[at] = 2;
            assert_eq!(read(&other, ID, &host), None, "{what}");
        }
    }

    #[test]
    fn broken_answers_are_failures_wherever_they_break() {
        let host = name("host.test");
        let records = [alias("host.test", "far.test"), a("far.test", 1)];
        let good = answer("host.test", OK, &records);
        for length in HEAD + host.octets().len() + 4..good.len() {
            assert_eq!(read(&good[..length], ID, &host), Some(Reply::Failed), "{length}");
        }
        for length in 0..HEAD + host.octets().len() + 4 {
            assert_eq!(read(&good[..length], ID, &host), None, "{length}");
        }
        let circle = [alias("host.test", "far.test"), alias("far.test", "host.test")];
        assert_eq!(read(&answer("host.test", OK, &circle), ID, &host), Some(Reply::Failed));
        for data in [&[10, 0, 0][..], &[10, 0, 0, 1, 0], &[]] {
            let short = [record("host.test", A, data)];
            assert_eq!(read(&answer("host.test", OK, &short), ID, &host), Some(Reply::Failed));
        }
        let mut state = 7u32;
        for _ in 0..50_000 {
            let mut octets = good.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let at = (state >> 8) as usize % octets.len();
                octets[at] = (state >> 24) as u8;
            }
            let _ = read(&octets, ID, &host);
        }
    }
}
