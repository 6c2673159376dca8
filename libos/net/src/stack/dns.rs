//! Name queries: the questions of [`crate::dns`] over UDP sockets, and over TCP where an answer is
//! too long for a datagram.

use super::table::sooner;
use super::{Stack, TcpSocket, UdpSocket};
use crate::dns::{Lookup, Name, Reply, Step, query, read};
use crate::error::Error;
use crate::platform::{Platform, Xenstore};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, SocketAddrV4};
use core::task::Waker;
use smoltcp::time::{Duration, Instant};

/// The port of name servers (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// Datagrams that a question's socket holds, and its room for them in octets. Without an extension
/// an answer has 512 octets at most (RFC 1035, section 2.3.4); some servers send more.
const DATAGRAMS: usize = 4;
const ROOM: usize = 2 << 10;
/// The time for an answer over TCP, from the start of the connection.
const TCP_PATIENCE: Duration = Duration::from_secs(5);

/// A query under way. The caller takes its answer or cancels it.
#[must_use = "a query occupies memory until its answer is taken or it is cancelled"]
#[derive(Debug)]
pub struct NameQuery(u32);

/// The queries under way. Each has a number that no other query of this stack, or of the stack
/// before a fork, has.
#[derive(Default)]
pub(super) struct Queries {
    made: u32,
    by_number: BTreeMap<u32, Query>,
}

#[derive(Debug)]
struct Query {
    lookup: Lookup,
    /// The questions for the present name that may still be answered; the last one is the present
    /// one.
    questions: Vec<Question>,
    stream: Option<Stream>,
    /// The end of the present server's time; `None` before the first question.
    deadline: Option<Instant>,
    result: Option<Result<Vec<Ipv4Addr>, Error>>,
    waker: Option<Waker>,
}

/// A question to a server. Its id and its port are random (RFC 5452, section 9.2).
#[derive(Clone, Copy, Debug)]
struct Question {
    server: Ipv4Addr,
    id: u16,
    socket: UdpSocket,
}

/// The same question over TCP.
#[derive(Debug)]
struct Stream {
    socket: TcpSocket,
    question: Question,
    /// The rest of the query, with its length before it (RFC 1035, section 4.2.2).
    output: Vec<u8>,
    input: Vec<u8>,
}

impl fmt::Debug for Queries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_number.keys()).finish()
    }
}

impl Queries {
    /// True if a query has not asked anything yet.
    pub(super) fn has_new(&self) -> bool {
        self.by_number.values().any(|query| query.deadline.is_none() && query.result.is_none())
    }

    /// The time at which a server's time is over.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.by_number.values().filter(|query| query.result.is_none());
        waiting.fold(None, |earliest, query| sooner(earliest, query.deadline))
    }
}

impl<P: Platform + Xenstore> Stack<P> {
    /// Asks the name servers for the IPv4 addresses of `name`, and of the names that the search
    /// list makes of it. The query leaves with the next packets.
    ///
    /// # Errors
    /// `InvalidInput`: no valid name, or no name server is known.
    pub fn resolve(&mut self, name: &str) -> Result<NameQuery, Error> {
        let own = self.address.ok_or(Error::InvalidInput)?;
        let servers: Vec<Ipv4Addr> = own.dns.iter().collect();
        let lookup = Lookup::new(name, &own.search, &servers)?;
        let number = self.queries.made;
        self.queries.made = number.wrapping_add(1);
        let query = Query { lookup, questions: Vec::new(), stream: None, deadline: None, result: None, waker: None };
        self.queries.by_number.insert(number, query);
        Ok(NameQuery(number))
    }

    /// The answer to a query, which ends with it.
    ///
    /// # Errors
    /// The query comes back with `WouldBlock` while it is under way. `NameNotFound`: there is no
    /// such name. `NameHasNoAddress`: it has no IPv4 address. `NameServerFailed`: no server could
    /// say. `NameServerSilent`: no server answered. `NameAnswerTruncated`: the answer needs TCP, and
    /// no server answered there. `OutOfMemory`: the heap has no room for a question. `NotConnected`: it
    /// is the parent's query, in the child of a fork.
    pub fn resolved(&mut self, query: NameQuery) -> Result<Vec<Ipv4Addr>, (Error, Option<NameQuery>)> {
        let Some(under_way) = self.queries.by_number.get_mut(&query.0) else {
            return Err((Error::NotConnected, None));
        };
        match under_way.result.take() {
            None => Err((Error::WouldBlock, Some(query))),
            Some(result) => {
                self.queries.by_number.remove(&query.0);
                result.map_err(|error| (error, None))
            }
        }
    }

    /// Wakes `waker` when the query's answer is there.
    pub fn wake_on_resolved(&mut self, query: &NameQuery, waker: &Waker) {
        if let Some(under_way) = self.queries.by_number.get_mut(&query.0) {
            under_way.waker = Some(waker.clone());
        }
    }

    /// Cancels a query.
    pub fn cancel_resolve(&mut self, query: NameQuery) {
        if let Some(mut under_way) = self.queries.by_number.remove(&query.0) {
            self.close_query(&mut under_way);
        }
    }

    /// Ends all queries, which are those of a fork's parent, and wakes the threads that wait for
    /// them.
    pub(super) fn forget_queries(&mut self) {
        for (_, mut query) in core::mem::take(&mut self.queries.by_number) {
            self.close_query(&mut query);
            if let Some(waker) = query.waker {
                waker.wake();
            }
        }
    }

    /// Takes in answers, and asks the next questions.
    pub(super) fn serve_queries(&mut self, now: Instant) {
        if self.queries.by_number.is_empty() {
            return;
        }
        // The queries are taken out while they use the sockets.
        let mut queries = core::mem::take(&mut self.queries.by_number);
        for query in queries.values_mut().filter(|query| query.result.is_none()) {
            self.serve_query(query, now);
        }
        self.queries.by_number = queries;
    }

    fn serve_query(&mut self, query: &mut Query, now: Instant) {
        let mut step = match query.deadline {
            None => Some(query.lookup.next()),
            Some(_) => self.listen(query, now),
        };
        while let Some(next) = step {
            step = match next {
                Step::Ask(server, patience) => {
                    self.close_stream(query);
                    if query.lookup.is_first_question() {
                        // Those that are left were about another name.
                        self.close_questions(query);
                    }
                    query.deadline = Some(now + patience);
                    match self.ask(query, server) {
                        Ok(()) => None,
                        Err(error @ Error::OutOfMemory) => Some(Step::Done(Err(error))),
                        Err(_) => Some(query.lookup.next()),
                    }
                }
                Step::AskByTcp => match self.ask_by_tcp(query) {
                    Ok(()) => {
                        query.deadline = Some(now + TCP_PATIENCE);
                        None
                    }
                    Err(_) => Some(query.lookup.tcp_failed()),
                },
                Step::Done(result) => {
                    query.result = Some(result);
                    self.close_query(query);
                    if let Some(waker) = query.waker.take() {
                        waker.wake();
                    }
                    return;
                }
            }
        }
    }

    /// Sends the present question to `server`.
    fn ask(&mut self, query: &mut Query, server: Ipv4Addr) -> Result<(), Error> {
        let name = query.lookup.name().ok_or(Error::InvalidInput)?;
        let socket = self.udp_bind_with(0, DATAGRAMS, ROOM)?;
        let question = Question { server, id: self.random.next() as u16, socket };
        let message = self::query(question.id, name);
        let sent = self.udp_send(socket, &message, SocketAddrV4::new(server, PORT));
        match sent {
            Ok(()) => query.questions.push(question),
            Err(_) => self.udp_close(socket),
        }
        sent
    }

    /// Begins to ask the last question again, over TCP.
    fn ask_by_tcp(&mut self, query: &mut Query) -> Result<(), Error> {
        let question = *query.questions.last().ok_or(Error::NotConnected)?;
        let name = query.lookup.name().ok_or(Error::NotConnected)?;
        let message = self::query(question.id, name);
        let mut output = Vec::from((message.len() as u16).to_be_bytes());
        output.extend_from_slice(&message);
        let socket = self.tcp_connect(SocketAddrV4::new(question.server, PORT))?;
        query.stream = Some(Stream { socket, question, output, input: Vec::new() });
        Ok(())
    }

    /// Looks for an answer, or the end of the time for it.
    fn listen(&mut self, query: &mut Query, now: Instant) -> Option<Step> {
        let step = match &query.stream {
            Some(_) => self.listen_to_stream(query),
            None => self.listen_to_datagrams(query),
        };
        let is_over = query.deadline.is_some_and(|deadline| deadline <= now);
        match step {
            None if is_over && query.stream.is_some() => Some(query.lookup.tcp_failed()),
            None if is_over => Some(query.lookup.next()),
            step => step,
        }
    }

    fn listen_to_datagrams(&mut self, query: &mut Query) -> Option<Step> {
        let mut index = 0;
        while let Some(&question) = query.questions.get(index) {
            index += 1;
            let Some(reply) = self.reply_to(&question, query.lookup.name()?) else { continue };
            let is_present = index == query.questions.len();
            match reply {
                // A server whose time was over has failed; the present one still has time.
                Reply::Failed if !is_present => {
                    query.lookup.failed_late();
                    index -= 1;
                    query.questions.remove(index);
                    self.udp_close(question.socket);
                    continue;
                }
                // The present question is the one that is asked by TCP.
                Reply::Truncated => {
                    query.questions.remove(index - 1);
                    query.questions.push(question);
                }
                Reply::Failed => {
                    query.questions.pop();
                    self.udp_close(question.socket);
                }
                _ => {}
            }
            return Some(query.lookup.heard(reply, false));
        }
        None
    }

    /// The server's answer to a question about `name`, if it has come.
    fn reply_to(&mut self, question: &Question, name: &Name) -> Option<Reply> {
        let mut buffer = [0; ROOM];
        while let Ok((length, from)) = self.udp_receive(question.socket, &mut buffer) {
            if from == SocketAddrV4::new(question.server, PORT)
                && let Some(reply) = read(&buffer[..length], question.id, name)
            {
                return Some(reply);
            }
            log::debug!("net: a datagram from {from} answers no name query");
        }
        None
    }

    fn listen_to_stream(&mut self, query: &mut Query) -> Option<Step> {
        let stream = query.stream.as_mut()?;
        match self.stream_answer(stream) {
            Err(Error::WouldBlock) => None,
            Ok(message) => {
                let reply = read(&message, stream.question.id, query.lookup.name()?).unwrap_or(Reply::Failed);
                self.close_stream(query);
                Some(query.lookup.heard(reply, true))
            }
            Err(_) => {
                self.close_stream(query);
                Some(query.lookup.tcp_failed())
            }
        }
    }

    /// Moves the query and its answer along. Returns the whole answer.
    fn stream_answer(&mut self, stream: &mut Stream) -> Result<Vec<u8>, Error> {
        self.tcp_connected(stream.socket)?;
        if !stream.output.is_empty() {
            match self.tcp_send(stream.socket, &stream.output) {
                Ok(sent) => drop(stream.output.drain(..sent)),
                Err(Error::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        let mut buffer = [0; 1024];
        loop {
            if let Some((length, rest)) = stream.input.split_first_chunk::<2>()
                && let Some(message) = rest.get(..u16::from_be_bytes(*length).into())
            {
                return Ok(message.to_vec());
            }
            match self.tcp_receive(stream.socket, &mut buffer)? {
                0 => return Err(Error::ConnectionReset),
                count => stream.input.extend_from_slice(&buffer[..count]),
            }
        }
    }

    fn close_stream(&mut self, query: &mut Query) {
        if let Some(stream) = query.stream.take() {
            self.tcp_close(stream.socket);
        }
    }

    fn close_questions(&mut self, query: &mut Query) {
        for question in query.questions.drain(..) {
            self.udp_close(question.socket);
        }
    }

    fn close_query(&mut self, query: &mut Query) {
        self.close_stream(query);
        self.close_questions(query);
    }
}
