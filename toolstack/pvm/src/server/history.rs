//! The events that the daemon remembers, and the followers of new ones.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::Event;

/// Events that are remembered.
const REMEMBERED: usize = 1000;
/// Events that a follower may be behind.
const BEHIND: usize = 1024;

/// The history, shared by the thread that takes the engine's events and those of the connections.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    past: VecDeque<Event>,
    followers: Vec<SyncSender<Event>>,
}

impl History {
    /// Takes events until their channel ends. Events may be missing after that, so no follower gets
    /// later ones.
    pub fn record(&self, events: &Receiver<Event>) {
        for event in events {
            self.add(event);
        }
        self.lock().followers.clear();
    }

    fn add(&self, event: Event) {
        let mut inner = self.lock();
        inner.followers.retain(|follower| match follower.try_send(event.clone()) {
            Ok(()) => true,
            // The follower is too slow, or gone. Its end of the channel shows that.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        });
        if inner.past.len() == REMEMBERED {
            inner.past.pop_front();
        }
        inner.past.push_back(event);
    }

    /// The remembered events, oldest first.
    pub fn past(&self) -> Vec<Event> {
        self.lock().past.iter().cloned().collect()
    }

    /// The remembered events, and all later ones without a gap. The channel ends when its reader is
    /// too slow.
    pub fn follow(&self) -> (Vec<Event>, Receiver<Event>) {
        let (sender, receiver) = sync_channel(BEHIND);
        let mut inner = self.lock();
        inner.followers.push(sender);
        (inner.past.iter().cloned().collect(), receiver)
    }

    /// Locks the inner state. No code panics while it holds the lock; if it did, the state would
    /// still be consistent.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EventKind;

    fn event(id: u32) -> Event {
        Event { at_us: 1, id, domid: 1, name: "x".into(), kind: EventKind::Trouble { message: "y".into() } }
    }

    #[test]
    fn the_last_ones_are_remembered() {
        let history = History::default();
        for id in 0..REMEMBERED as u32 + 3 {
            history.add(event(id));
        }
        let past = history.past();
        assert_eq!((past.len(), past[0].id, past[REMEMBERED - 1].id), (REMEMBERED, 3, REMEMBERED as u32 + 2));
    }

    #[test]
    fn a_follower_misses_nothing_or_is_dropped() {
        let history = History::default();
        history.add(event(1));
        let (past, future) = history.follow();
        assert_eq!(past, [event(1)]);
        for id in 0..=BEHIND as u32 {
            history.add(event(id));
        }
        assert_eq!(future.iter().count(), BEHIND);
        assert!(history.lock().followers.is_empty());
    }
}
