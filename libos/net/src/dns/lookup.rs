//! The order in which names are asked for, and servers asked.

use super::message::Reply;
use super::name::{Name, SearchList};
use crate::error::Error;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::time::Duration;

/// The time that a server has for its answer, in the first round of all servers and in the second
/// (RFC 1035, section 4.2.1: two to five seconds).
const ROUNDS: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(4)];

/// Aliases that are asked for, one after the other, because an answer ended with them.
const ALIASES_MAX: u8 = 8;

/// One look-up of a name: the names that it may stand for, and the servers that know them.
#[derive(Debug)]
pub struct Lookup {
    /// The names still to be asked for, the last one first. The last one is being asked for.
    names: Vec<Name>,
    servers: Vec<Ipv4Addr>,
    /// Questions asked for the present name.
    asked: usize,
    aliases: u8,
    /// The best reason so far for which the present name is not known.
    obstacle: Obstacle,
    /// The reason for which names before it were not found.
    outcome: Error,
}

/// The reason for which no server has answered the present question; a later one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    Silent,
    Failed,
    Truncated,
}

/// The next step of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask this server for [`Lookup::name`], and wait for that time.
    Ask(Ipv4Addr, Duration),
    /// Ask the same server over TCP (RFC 7766, section 5).
    AskByTcp,
    /// The look-up has ended.
    Done(Result<Vec<Ipv4Addr>, Error>),
}

impl Lookup {
    /// A look-up of `text` at `servers`, in this order.
    ///
    /// # Errors
    /// `InvalidInput`: `text` is no host name, or there is no server.
    pub fn new(text: &str, search: &SearchList, servers: &[Ipv4Addr]) -> Result<Self, Error> {
        let name = Name::from_text(text).ok_or(Error::InvalidInput)?;
        if servers.is_empty() {
            return Err(Error::InvalidInput);
        }
        let mut names = Vec::new();
        if !text.ends_with('.') {
            names.extend(search.domains().filter_map(|domain| name.below(domain)));
        }
        let dots = text.bytes().filter(|octet| *octet == b'.').count();
        match dots >= search.ndots.into() {
            true => names.insert(0, name),
            false => names.push(name),
        }
        names.reverse();
        let servers = servers.to_vec();
        Ok(Self { names, servers, asked: 0, aliases: 0, obstacle: Obstacle::Silent, outcome: Error::NameNotFound })
    }

    /// The name that is being asked for.
    pub fn name(&self) -> Option<&Name> {
        self.names.last()
    }

    /// True after [`Step::Ask`] for the first question about a name.
    pub fn is_first_question(&self) -> bool {
        self.asked == 1
    }

    /// The next question, at first or after the last one's time is over.
    pub fn next(&mut self) -> Step {
        let (round, server) = (self.asked / self.servers.len(), self.asked % self.servers.len());
        match ROUNDS.get(round) {
            Some(patience) => {
                self.asked += 1;
                Step::Ask(self.servers[server], *patience)
            }
            None => self.give_up(),
        }
    }

    /// The step after an answer; `by_tcp` says how it came.
    pub fn heard(&mut self, reply: Reply, by_tcp: bool) -> Step {
        match reply {
            Reply::Addresses(addresses) => Step::Done(Ok(addresses)),
            Reply::Alias(name) if self.aliases < ALIASES_MAX => {
                self.aliases += 1;
                self.names.pop();
                self.names.push(name);
                self.ask_anew()
            }
            Reply::NoAddress => self.next_name(Error::NameHasNoAddress),
            Reply::NoSuchName => self.next_name(Error::NameNotFound),
            Reply::Truncated if !by_tcp => Step::AskByTcp,
            Reply::Truncated | Reply::Failed | Reply::Alias(_) => {
                self.failed_late();
                self.next()
            }
        }
    }

    /// The step after a server did not answer over TCP.
    pub fn tcp_failed(&mut self) -> Step {
        self.obstacle = Obstacle::Truncated;
        self.next()
    }

    /// Notes the failure of a server that is not waited for any more.
    pub fn failed_late(&mut self) {
        self.obstacle = self.obstacle.max(Obstacle::Failed);
    }

    /// No server has an answer for the present name.
    fn give_up(&mut self) -> Step {
        match self.obstacle {
            // The other names would not be answered either.
            Obstacle::Silent => Step::Done(Err(Error::NameServerSilent)),
            Obstacle::Failed => self.next_name(Error::NameServerFailed),
            Obstacle::Truncated => self.next_name(Error::NameAnswerTruncated),
        }
    }

    /// Goes on with the next name, after the present one was not found for the reason `error`.
    fn next_name(&mut self, error: Error) -> Step {
        // A server's failure says that the name may exist after all.
        let weight = |error: Error| match error {
            Error::NameNotFound => 0,
            Error::NameHasNoAddress => 1,
            _ => 2,
        };
        if weight(error) > weight(self.outcome) {
            self.outcome = error;
        }
        self.names.pop();
        match self.names.is_empty() {
            true => Step::Done(Err(self.outcome)),
            false => self.ask_anew(),
        }
    }

    fn ask_anew(&mut self) -> Step {
        self.asked = 0;
        self.obstacle = Obstacle::Silent;
        self.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::String;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn lookup(text: &str, servers: &[Ipv4Addr]) -> Lookup {
        Lookup::new(text, &SearchList::NONE, servers).unwrap()
    }

    /// The servers that are asked in turn, until the end, when each answer is `reply`.
    fn run(lookup: &mut Lookup, reply: Option<Reply>) -> (Vec<Ipv4Addr>, Result<Vec<Ipv4Addr>, Error>) {
        let mut asked = Vec::new();
        let mut step = lookup.next();
        loop {
            step = match step {
                Step::Ask(server, _) => {
                    asked.push(server);
                    match &reply {
                        Some(reply) => lookup.heard(reply.clone(), false),
                        None => lookup.next(),
                    }
                }
                Step::AskByTcp => lookup.tcp_failed(),
                Step::Done(result) => return (asked, result),
            }
        }
    }

    #[test]
    fn all_servers_are_asked_twice_and_each_failure_keeps_its_cause() {
        for (reply, error) in [
            (None, Error::NameServerSilent),
            (Some(Reply::Failed), Error::NameServerFailed),
            (Some(Reply::Truncated), Error::NameAnswerTruncated),
        ] {
            let (asked, result) = run(&mut lookup("a", &[ONE, TWO]), reply);
            assert_eq!((asked, result), ([ONE, TWO, ONE, TWO].into(), Err(error)));
        }
        for (reply, error) in [(Reply::NoSuchName, Error::NameNotFound), (Reply::NoAddress, Error::NameHasNoAddress)] {
            assert_eq!(run(&mut lookup("a", &[ONE, TWO]), Some(reply)), ([ONE].into(), Err(error)));
        }
    }

    #[test]
    fn one_servers_failure_is_said_even_if_the_other_is_silent() {
        let mut lookup = lookup("a", &[ONE, TWO]);
        lookup.next();
        lookup.heard(Reply::Failed, false);
        lookup.next();
        lookup.next();
        assert_eq!(lookup.next(), Step::Done(Err(Error::NameServerFailed)));
    }

    #[test]
    fn an_alias_is_asked_for_but_not_in_a_circle() {
        let mut lookup = lookup("a", &[ONE]);
        let other = Name::from_text("b").unwrap();
        lookup.next();
        assert_eq!(lookup.heard(Reply::Alias(other), false), Step::Ask(ONE, ROUNDS[0]));
        assert_eq!(lookup.name(), Some(&other));
        assert_eq!(run(&mut lookup, Some(Reply::Alias(other))).1, Err(Error::NameServerFailed));
    }

    #[test]
    fn short_names_are_looked_for_in_the_domains_first() {
        let mut search = SearchList::NONE;
        search.push(&Name::from_text("x.test").unwrap()).unwrap();
        search.push(&Name::from_text("y.test").unwrap()).unwrap();
        let names = |text: &str, ndots: u8| -> Vec<String> {
            let mut search = search;
            search.ndots = ndots;
            let lookup = Lookup::new(text, &search, &[ONE]).unwrap();
            lookup.names.iter().rev().map(|name| format!("{name:?}")).collect()
        };
        assert_eq!(names("host", 1), ["host.x.test.", "host.y.test.", "host."]);
        assert_eq!(names("host", 0), ["host.", "host.x.test.", "host.y.test."]);
        assert_eq!(names("a.b", 1), ["a.b.", "a.b.x.test.", "a.b.y.test."]);
        assert_eq!(names("a.b", 2), ["a.b.x.test.", "a.b.y.test.", "a.b."]);
        assert_eq!(names("host.", 5), ["host."]);
    }

    #[test]
    fn the_end_of_a_search_says_the_most_that_is_known() {
        let mut search = SearchList::NONE;
        search.push(&Name::from_text("test").unwrap()).unwrap();
        let end = |first: Reply, second: Reply| {
            let mut lookup = Lookup::new("host", &search, &[ONE]).unwrap();
            lookup.next();
            let mut step = lookup.heard(first, false);
            while let Step::Ask(..) = step {
                step = lookup.heard(second.clone(), false);
            }
            step
        };
        let found = Reply::Addresses([TWO].into());
        assert_eq!(end(Reply::NoSuchName, found), Step::Done(Ok([TWO].into())));
        assert_eq!(end(Reply::NoSuchName, Reply::NoSuchName), Step::Done(Err(Error::NameNotFound)));
        assert_eq!(end(Reply::NoAddress, Reply::NoSuchName), Step::Done(Err(Error::NameHasNoAddress)));
        assert_eq!(end(Reply::NoSuchName, Reply::Failed), Step::Done(Err(Error::NameServerFailed)));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", ".", "a..b"] {
            assert_eq!(Lookup::new(bad, &SearchList::NONE, &[ONE]).err(), Some(Error::InvalidInput));
        }
        assert_eq!(Lookup::new("a", &SearchList::NONE, &[]).err(), Some(Error::InvalidInput));
    }
}
