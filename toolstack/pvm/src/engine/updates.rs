//! Live updates of libraries in pVMs. pvmd writes the request to xenstore, and the pVM answers
//! there (docs/protocols/libraries.md).

use std::time::{Duration, Instant};

use xenctl::{Hypervisor, xenstore};
use zooid_fork_plan::id::PvmId;
use zooid_manifest::{Version, is_name};

use super::api::{Error, EventKind, Reply, Target, Update};
use super::core::{Host, Timer};
use super::{home, introduction};

/// Time that a pVM may take to see a request and to answer, on top of its limit.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest limit.
const MAX_LIMIT: Duration = Duration::from_secs(600);
/// Most octets of an answer that are read.
const MAX_ANSWER: usize = 1024;

/// An update that a pVM has been asked for.
#[derive(Debug)]
pub struct UpdateRequest {
    id: PvmId,
    number: u64,
    library: String,
    until: Instant,
    reply: Reply<Update>,
}

/// The path of a request, below the pVM's home, where it can only read.
fn request_path(id: PvmId) -> String {
    format!("{}/update", home::path(id.domain()))
}

fn answer_path(id: PvmId) -> String {
    format!("{}/data/update", home::path(id.domain()))
}

impl<H: Hypervisor> Host<H> {
    /// Asks a pVM to replace a library.
    pub(super) fn update_library(
        &mut self,
        target: &Target,
        library: &str,
        version: Option<&Version>,
        limit: Duration,
        reply: Reply<Update>,
    ) {
        if let Err(error) = self.request_update(target, library, version, limit, &reply) {
            let _ = reply.send(Err(error));
        }
    }

    fn request_update(
        &mut self,
        target: &Target,
        library: &str,
        version: Option<&Version>,
        limit: Duration,
        reply: &Reply<Update>,
    ) -> Result<(), Error> {
        let refused = |what: String| Error::Refused { what };
        let id = self.resolve(target)?;
        if !is_name(library) || limit > MAX_LIMIT {
            return Err(refused(format!(
                "a library has a name without blanks, and an update {} s at most",
                MAX_LIMIT.as_secs()
            )));
        }
        if self.updates.iter().any(|request| request.id == id) {
            return Err(refused(format!("a library of pVM {id} is being updated already")));
        }
        // Only its presence counts here. A guest's text is taken as an answer only with the number
        // of this request.
        // A child that was just forked has said nothing yet.
        let is_new = self.books.get(id).is_some_and(|pvm| pvm.rings.is_some());
        if is_new {
            self.introduce(id, introduction::AGAIN);
        } else if self.store.read(&answer_path(id)).is_err() {
            return Err(refused(format!("pVM {id} replaces no libraries: its image names none with dl::live!")));
        }
        // A number that no earlier daemon has used.
        let number = self.clock.now_us();
        let version = version.map(|version| format!(" {version}")).unwrap_or_default();
        let text = format!("{number} {} {library}{version}", limit.as_millis());
        self.store.write(&request_path(id), &text).map_err(|error| refused(format!("xenstore: {error}")))?;
        let until = self.after(limit + PATIENCE, Timer::Update);
        self.updates.push(UpdateRequest { id, number, library: library.to_owned(), until, reply: reply.clone() });
        Ok(())
    }

    /// Looks whether a pVM has answered.
    pub(super) fn look_at_update(&mut self, id: PvmId) {
        let Some(place) = self.updates.iter().position(|request| request.id == id) else { return };
        let Ok(answer) = self.store.read(&answer_path(id)) else { return };
        let Some(result) = self.updates.get(place).and_then(|request| understand(&answer, request.number)) else {
            return;
        };
        let request = self.updates.swap_remove(place);
        self.end_request(request, Ok(result));
    }

    /// Gives up updates whose time is over, and those of pVMs that have ended.
    pub(super) fn check_updates(&mut self, now: Instant) {
        let over: Vec<PvmId> =
            self.updates.iter().filter(|request| request.until <= now).map(|request| request.id).collect();
        for id in over {
            // It may have answered by now.
            self.look_at_update(id);
            if let Some(place) = self.updates.iter().position(|request| request.id == id) {
                let request = self.updates.swap_remove(place);
                self.end_request(request, Err(Error::NoSafePoint { id: id.raw() }));
            }
        }
    }

    /// Answers the requests for updates of a pVM that has ended.
    pub(super) fn forget_updates(&mut self, id: PvmId) {
        let Some(place) = self.updates.iter().position(|request| request.id == id) else { return };
        let request = self.updates.swap_remove(place);
        let _ = request.reply.send(Err(Error::HasEnded { id: request.id.raw() }));
    }

    fn end_request(&mut self, request: UpdateRequest, result: Result<Update, Error>) {
        if let Err(error) = self.store.remove(&request_path(request.id))
            && error != xenstore::Error::NotFound
        {
            log::debug!("the request for an update of {}: {error}", request.id);
        }
        let name = self.books.get(request.id).map(|pvm| pvm.name.clone()).unwrap_or_default();
        let library = request.library;
        match &result {
            Ok(Update::Updated { from, to }) if from != to => {
                self.tell(request.id, &name, EventKind::LibraryUpdated { library, from: from.clone(), to: to.clone() });
            }
            Ok(Update::Kept { reason }) => {
                self.tell(request.id, &name, EventKind::LibraryKept { library, reason: reason.clone() });
            }
            Ok(Update::Updated { .. } | Update::NotOpen) | Err(_) => {}
        }
        let _ = request.reply.send(result);
    }
}

/// A guest's answer to the request with this number; none if it is no such answer.
fn understand(text: &str, number: u64) -> Option<Update> {
    let text = text.get(..MAX_ANSWER.min(text.len()))?;
    let rest = text.strip_prefix(&format!("{number} "))?;
    let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match word {
        "updated" => {
            let (from, to) = rest.split_once(' ')?;
            Some(Update::Updated {
                from: Version::parse(from).ok()?.to_string(),
                to: Version::parse(to).ok()?.to_string(),
            })
        }
        "not-open" => Some(Update::NotOpen),
        "kept" => {
            let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
            Some(Update::Kept { reason: rest.chars().map(plain).collect() })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_strictly() {
        let updated = Update::Updated { from: "1.0.0".into(), to: "2.0.0".into() };
        assert_eq!(understand("7 updated 1.0.0 2.0.0", 7), Some(updated));
        assert_eq!(understand("7 not-open", 7), Some(Update::NotOpen));
        assert_eq!(understand("7 kept a\u{1b}[2Jb\n", 7), Some(Update::Kept { reason: "a?[2Jb?".into() }));
        for text in ["", "ready", "6 not-open", "7", "7 updated 1.0.0", "7 updated x y", "7 gone", "77 not-open"] {
            assert_eq!(understand(text, 7), None, "{text}");
        }
        let long = format!("7 kept {}", "\u{e9}".repeat(2000));
        assert!(understand(&long, 7).is_none_or(|update| format!("{update:?}").len() < 2 * MAX_ANSWER));
    }
}
