//! Updates that dom0 asks for (`pvm lib update`), by two keys in xenstore. pvmd writes the request
//! below this domain's home, where this pVM can only read. This pVM writes its answer below `data`
//! (docs/protocols/libraries.md).

use alloc::format;
use alloc::string::{String, ToString};
use core::fmt::Display;
use core::time::Duration;

use zooid_kernel::{thread, xenstore};

use crate::{Error, live, rules};

/// `NUMBER LIMIT NAME`, and the version, if one is asked for. The limit is in milliseconds.
const REQUEST: &str = "update";
/// `NUMBER updated FROM TO`, `NUMBER not-open`, or `NUMBER kept REASON`; at first `ready`.
const ANSWER: &str = "data/update";
/// Longest reason, in octets.
const MAX_REASON: usize = 512;
const STACK_SIZE: usize = 128 << 10;

/// Starts to obey, in an image that has replaceable libraries.
pub fn start() {
    if !rules::has_live() {
        return;
    }
    let room = thread::MODE.get().map_or(0, |mode| mode.room);
    if let Err(error) = thread::spawn_service("updates", STACK_SIZE + room, serve) {
        will_not_obey(&error);
    }
}

fn will_not_obey(error: &dyn Display) {
    log::warn!("pvm lib update will have no effect: {error}");
}

fn serve() {
    let mut watch = match xenstore::watch(REQUEST) {
        Ok(watch) => watch,
        Err(error) => return will_not_obey(&error),
    };
    let mut last = None;
    // The first event comes at once, also in a child, which has a home of its own.
    while watch.wait(None).is_some() {
        if xenstore::read(ANSWER).is_err()
            && let Err(error) = xenstore::write(ANSWER, "ready")
        {
            will_not_obey(&error);
        }
        let Ok(text) = xenstore::read(REQUEST) else { continue };
        let Some(request) = UpdateRequest::read(&text) else { continue };
        if last != Some(request.number) {
            last = Some(request.number);
            let mut answer = String::new();
            // The new version's constructors are the application's code.
            thread::run_application(&mut || answer = request.obey());
            match xenstore::write(ANSWER, &answer) {
                Ok(()) => zooid_fork::libraries::answered(),
                Err(error) => log::warn!("pvmd does not hear of an update: {error}"),
            }
        }
    }
}

struct UpdateRequest<'a> {
    number: u64,
    limit: Duration,
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> UpdateRequest<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut words = text.split(' ');
        let number = words.next()?.parse().ok()?;
        let limit = Duration::from_millis(words.next()?.parse().ok()?);
        Some(Self { number, limit, name: words.next()?, version: words.next() })
    }

    fn obey(&self) -> String {
        let number = self.number;
        match live::update(self.name, self.version, self.limit) {
            Ok((from, to)) => format!("{number} updated {from} {to}"),
            Err(Error::NotOpen) => format!("{number} not-open"),
            Err(error) => {
                let reason: String = error.to_string().chars().take(MAX_REASON).collect();
                format!("{number} kept {reason}")
            }
        }
    }
}
