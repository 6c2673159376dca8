//! The socket server against an engine that the tests play.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::places::{ASKING, KEPT};
use super::*;
use crate::engine::{Command, EndStatus, Ended, Error, Event, EventKind, Inbox, Reply, Stats, Target, pair};
use crate::protocol::MAX_LINE;
use crate::testing::TemporaryDirectory;

/// A client's end.
struct Client {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl Client {
    fn send(&mut self, line: &str) {
        // A server that turns a client away closes before it reads; its line says why.
        let _ = writeln!(self.output, "{line}");
    }

    /// The next line; empty at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.input.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(&format!(r#"{{"version":1,"request":{request}}}"#));
        self.line()
    }
}

/// A server whose engine is `play`, which gets each command.
struct Bench {
    _directory: TemporaryDirectory,
    path: std::path::PathBuf,
    history: History,
    events: Sender<Event>,
}

impl Bench {
    fn new(name: &str, play: impl FnMut(Command) + Send + 'static) -> Self {
        Self::within(LIMITS, name, play)
    }

    fn within(limits: Limits, name: &str, mut play: impl FnMut(Command) + Send + 'static) -> Self {
        let directory = TemporaryDirectory::new(name);
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let (handle, inbox) = pair().unwrap();
        thread::spawn(move || {
            loop {
                play(next_command(&inbox));
            }
        });
        let history = History::default();
        let (events, receiver) = channel();
        let (recorder, server) = (history.clone(), history.clone());
        thread::spawn(move || recorder.record(&receiver));
        thread::spawn(move || serve_within(limits, &listener, &handle, &server));
        Self { _directory: directory, path, history, events }
    }

    fn connect(&self) -> Client {
        let stream = UnixStream::connect(&self.path).unwrap();
        Client { input: BufReader::new(stream.try_clone().unwrap()), output: stream }
    }
}

fn next_command(inbox: &Inbox) -> Command {
    loop {
        if let Some(command) = inbox.take() {
            return command;
        }
        poll(&mut [PollFd::new(inbox.wake(), PollFlags::IN)], None).unwrap();
        inbox.clear();
    }
}

fn event(id: u32) -> Event {
    Event { at_us: 1, id, domid: 1, name: "x".into(), kind: EventKind::Trouble { message: "y".into() } }
}

#[test]
fn each_request_is_one_command() {
    let bench = Bench::new("requests", |command| match command {
        Command::List { ended: true, reply } => reply.send(Ok(Vec::new())).unwrap(),
        Command::Inspect { target, reply } => {
            reply.send(Err(Error::NoSuchPvm { target: target.to_string() })).unwrap();
        }
        Command::Kill { target: Target::Id(7), signal: 15, family: true, reply } => reply.send(Ok(vec![7, 8])).unwrap(),
        Command::Stop { target: Target::Name(name), reply } => {
            assert_eq!(name, "web");
            reply.send(Ok(())).unwrap();
        }
        Command::Fork { target: Target::Id(7), count: 2, application, reply } if application.is_empty() => {
            reply.send(Err(Error::Errno { errno: 11, what: "too many".into() })).unwrap();
        }
        Command::Wait { reply, .. } => {
            let ended = Ended { id: 7, status: EndStatus::Exit { code: 3 }, exit_code: 3, at_us: 5 };
            reply.send(Ok(ended)).unwrap();
        }
        Command::Pool { reply } => reply.send(Ok(Vec::new())).unwrap(),
        other => panic!("{other:?}"),
    });
    let mut client = bench.connect();
    assert!(client.ask("\"version\"").starts_with("{\"answer\":{"));
    assert_eq!(client.ask(r#"{"list":{"all":true}}"#), r#"{"answer":[]}"#);
    assert_eq!(
        client.ask(r#"{"inspect":{"pvm":"web"}}"#),
        r#"{"error":{"kind":"no-such-pvm","message":"there is no pVM web"}}"#
    );
    assert_eq!(client.ask(r#"{"kill":{"pvm":7,"signal":15,"family":true}}"#), r#"{"answer":[7,8]}"#);
    assert_eq!(client.ask(r#"{"stop":{"pvm":"web"}}"#), r#"{"answer":null}"#);
    assert_eq!(
        client.ask(r#"{"fork":{"pvm":7,"count":2}}"#),
        r#"{"error":{"kind":"refused","message":"too many (EAGAIN)","errno":11}}"#
    );
    assert_eq!(
        client.ask(r#"{"wait":{"pvm":7}}"#),
        r#"{"answer":{"at_us":5,"exit_code":3,"id":7,"status":{"code":3,"kind":"exit"}}}"#
    );
    assert_eq!(client.ask("\"pool\""), r#"{"answer":[]}"#);
}

#[test]
fn bad_lines_are_answered_and_the_connection_goes_on() {
    let bench = Bench::new("bad", |command| panic!("{command:?}"));
    let mut client = bench.connect();
    for line in ["", "{", "null", "\u{7f}", r#"{"version":1}"#, r#"{"version":1,"request":"dance"}"#] {
        client.send(line);
        let answer = client.line();
        assert!(answer.starts_with(r#"{"error":{"kind":"malformed","message":"not a request: "#), "{answer}");
    }
    client.send(r#"{"version":2,"request":{"dance":{}}}"#);
    let answer = client.line();
    assert!(answer.starts_with(r#"{"error":{"kind":"version","message":"this pvmd speaks version 1 "#), "{answer}");
    client.output.write_all(b"\xff\xfe\n").unwrap();
    assert!(client.line().contains("malformed"));
    assert!(client.ask("\"version\"").contains("answer"));

    client.output.write_all(&vec![b' '; MAX_LINE + 1]).unwrap();
    assert!(client.line().contains("at most 65536 octets"));
    assert_eq!(client.line(), "");
}

#[test]
fn events_are_remembered_and_followed() {
    let bench = Bench::new("events", |command| panic!("{command:?}"));
    bench.events.send(event(1)).unwrap();
    while bench.history.past().is_empty() {
        thread::yield_now();
    }
    let mut client = bench.connect();
    let first = client.ask(r#"{"events":{"follow":false}}"#);
    assert!(first.starts_with(r#"{"event":{"at_us":1,"id":1,"#), "{first}");
    assert_eq!(client.line(), r#"{"answer":null}"#);

    assert_eq!(client.ask(r#"{"events":{"follow":true}}"#), first);
    bench.events.send(event(2)).unwrap();
    assert!(client.line().contains(r#""id":2"#));
}

/// Limits that no test reaches. Clients are looked after all the time.
const PATIENT: Limits =
    Limits { idle: Duration::from_secs(3600), line: Duration::from_secs(3600), look: Duration::from_millis(1) };

/// An engine that does not answer; what asks for an end, and what for counters.
fn never(name: &str, limits: Limits) -> (Bench, Receiver<Reply<Ended>>, Receiver<Reply<Stats>>) {
    let (wait, waits) = channel();
    let (stat, stats) = channel();
    let bench = Bench::within(limits, name, move |command| match command {
        Command::Wait { reply, .. } => wait.send(reply).unwrap(),
        Command::Stats { reply } => stat.send(reply).unwrap(),
        other => panic!("{other:?}"),
    });
    (bench, waits, stats)
}

/// Places of those who ask that the user of the tests may take.
fn room() -> usize {
    if rustix::process::geteuid().is_root() { ASKING } else { ASKING - KEPT }
}

const WAIT: &str = r#"{"version":1,"request":{"wait":{"pvm":7}}}"#;

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let (bench, waits, _) = never("leave", PATIENT);
    let mut client = bench.connect();
    client.send(WAIT);
    let reply = waits.recv().unwrap();
    drop(client);
    let ended = Ended { id: 7, status: EndStatus::Crash, exit_code: 139, at_us: 5 };
    while reply.send(Ok(ended)).is_ok() {
        thread::yield_now();
    }
}

#[test]
fn a_client_that_says_no_more_still_gets_its_answers() {
    let (bench, waits, _) = never("half", PATIENT);
    let mut client = bench.connect();
    client.send(WAIT);
    client.send(r#"{"version":1,"request":"version"}"#);
    client.output.write_all(b"{\"version\"").unwrap();
    client.output.shutdown(Shutdown::Write).unwrap();
    let reply = waits.recv().unwrap();
    // The server looks after its clients meanwhile.
    thread::sleep(Duration::from_millis(50));
    let ended = Ended { id: 7, status: EndStatus::Crash, exit_code: 139, at_us: 5 };
    reply.send(Ok(ended)).unwrap();
    assert!(client.line().contains(r#""exit_code":139"#));
    assert!(client.line().contains("pvmd"));
    assert!(client.line().contains("a line ends with a line feed"));
    assert_eq!(client.line(), "");
}

#[test]
fn idle_clients_keep_nobody_out() {
    let (bench, _, _) = never("idle", PATIENT);
    let mut clients: Vec<Client> = (0..room()).map(|_| bench.connect()).collect();
    // One has said half a line.
    clients[0].output.write_all(b"{").unwrap();
    let mut late = bench.connect();
    assert!(late.ask("\"version\"").contains("answer"));
    assert!(clients[0].line().contains(r#""kind":"idle""#));
    assert_eq!(clients[0].line(), "");
    assert!(clients.last_mut().unwrap().ask("\"version\"").contains("answer"), "the others are as before");
}

#[test]
fn there_is_an_end_to_requests_at_a_time() {
    let (bench, waits, stats) = never("many", PATIENT);
    // Those who wait take no place of those who ask.
    let (mut waiting, mut replies) = (Vec::new(), Vec::new());
    for _ in 0..room() + 3 {
        let mut client = bench.connect();
        client.send(WAIT);
        replies.push(waits.recv().unwrap());
        waiting.push(client);
    }
    let mut clients: Vec<Client> = (0..room()).map(|_| bench.connect()).collect();
    let mut asked = Vec::new();
    for client in &mut clients {
        client.send(r#"{"version":1,"request":"stats"}"#);
        asked.push(stats.recv().unwrap());
    }
    assert!(bench.connect().line().contains(r#""kind":"busy""#));
    clients.pop();
    // The server sees the end of that connection when it next looks after it.
    while !bench.connect().ask("\"version\"").contains("answer") {}
}

#[test]
fn who_asks_nothing_or_half_a_line_is_left_after_a_while() {
    let limits = Limits { idle: Duration::from_millis(20), ..PATIENT };
    let bench = Bench::within(limits, "silent", |command| panic!("{command:?}"));
    let mut silent = bench.connect();
    assert!(silent.line().contains(r#""kind":"idle","message":"nothing was asked for too long""#));
    assert_eq!(silent.line(), "");

    let limits = Limits { line: Duration::from_millis(20), ..PATIENT };
    let bench = Bench::within(limits, "slow", |command| panic!("{command:?}"));
    let mut slow = bench.connect();
    slow.output.write_all(b"{\"vers").unwrap();
    assert!(slow.line().contains(r#""kind":"idle","message":"a request took too long to come""#));
    assert_eq!(slow.line(), "");
}

#[test]
fn who_waits_is_not_idle() {
    let (wait, waits) = channel();
    let bench = Bench::within(Limits { idle: Duration::from_millis(20), ..PATIENT }, "waits", move |command| {
        if let Command::Wait { target, reply, .. } = command {
            wait.send((target, reply)).unwrap();
        }
    });
    // Some client asks before its limit is over.
    let (mut client, reply) = (1..)
        .find_map(|number| {
            let mut client = bench.connect();
            client.send(&format!(r#"{{"version":1,"request":{{"wait":{{"pvm":{number}}}}}}}"#));
            let (target, reply): (_, Reply<Ended>) = waits.recv_timeout(Duration::from_secs(1)).ok()?;
            (target == Target::Id(number)).then_some((client, reply))
        })
        .unwrap();
    // Longer than an idle client has.
    thread::sleep(Duration::from_millis(50));
    let ended = Ended { id: 7, status: EndStatus::Crash, exit_code: 139, at_us: 5 };
    reply.send(Ok(ended)).unwrap();
    assert!(client.line().contains(r#""exit_code":139"#));
}

#[test]
fn without_an_engine_the_client_is_told() {
    let bench = Bench::new("closed", drop);
    assert!(bench.connect().ask("\"stats\"").contains(r#""kind":"stopping""#));
}
