//! Waiting for several things at once (POSIX `poll`).

use alloc::sync::Arc;
use core::time::Duration;

use bitflags::bitflags;

use crate::platform::{AnyEvent, Platform};
use crate::wait::Patience;

bitflags! {
    /// The operations that something is ready for; the values are those of Linux's `poll`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Events: u16 {
        /// A read, receive, accept or wait gets something at once.
        const READABLE = 0x01;
        /// A write or send has room.
        const WRITABLE = 0x04;
        /// A call would fail: nobody reads from the pipe that is written to, or the object is
        /// broken. Always reported.
        const ERROR = 0x08;
        /// Nobody writes any more: a read returns 0 as soon as all was read. Always
        /// reported.
        const HANGUP = 0x10;
    }
}

/// A source of events that can be waited for together with others.
pub trait Pollable {
    /// The events that it is ready for, of those wanted and of those that are always reported.
    fn ready(&self, wanted: Events) -> Events;

    /// Registers `event`, to be signalled when the source may have become ready for `wanted`. The
    /// caller calls [`ready`](Self::ready) once more after this.
    fn watch(&self, wanted: Events, event: &AnyEvent);

    /// Takes the registration of [`watch`](Self::watch) back.
    fn unwatch(&self, event: &AnyEvent);
}

/// One of the things that [`poll`] waits for.
pub struct PollEntry<'a> {
    /// `None`: the entry is passed over.
    source: Option<&'a dyn Pollable>,
    wanted: Events,
    /// The events that it was ready for when [`poll`] returned.
    pub ready: Events,
}

impl<'a> PollEntry<'a> {
    /// An entry that waits until `source` is ready for one of `wanted`.
    pub fn new(source: &'a dyn Pollable, wanted: Events) -> Self {
        Self { source: Some(source), wanted, ready: Events::empty() }
    }

    /// An entry that is passed over, and may already have a result.
    pub fn none(ready: Events) -> Self {
        Self { source: None, wanted: Events::empty(), ready }
    }
}

/// Waits until one of the entries is ready, `limit` at most, and for ever without one. Returns the
/// number of ready entries.
pub fn poll<P: Platform>(entries: &mut [PollEntry<'_>], limit: Option<Duration>) -> usize {
    poll_within::<P>(entries, limit.map_or(Patience::Forever, Patience::within::<P>))
}

/// As [`poll`], with a `patience`.
pub fn poll_within<P: Platform>(entries: &mut [PollEntry<'_>], patience: Patience) -> usize {
    let deadline = match patience {
        Patience::None => return look(entries),
        Patience::Until(deadline) => Some(deadline),
        Patience::Forever => None,
    };
    let event = Arc::new(P::event());
    let any: AnyEvent = event.clone();
    loop {
        let count = look(entries);
        if count > 0 {
            return count;
        }
        let sources = || entries.iter().filter_map(|entry| entry.source.map(|source| (source, entry.wanted)));
        sources().for_each(|(source, wanted)| source.watch(wanted, &any));
        // An event before they were watched woke nobody.
        let is_ready = sources().any(|(source, wanted)| !source.ready(wanted).is_empty());
        let woken = is_ready || P::wait(&event, deadline);
        sources().for_each(|(source, _)| source.unwatch(&any));
        if !woken {
            return look(entries);
        }
    }
}

fn look(entries: &mut [PollEntry<'_>]) -> usize {
    for entry in &mut *entries {
        if let Some(source) = entry.source {
            entry.ready = source.ready(entry.wanted);
        }
    }
    entries.iter().filter(|entry| !entry.ready.is_empty()).count()
}
