//! The places of connections: a limit that nobody can use to keep others out.
//!
//! A connection is **idle** until a whole request has come, **asks** until it is answered, and
//! **waits** while its request waits for something that guests do, perhaps for ever. Idle and asking
//! connections share one number of places, waiting ones have others. If all places are taken, the
//! connection that has been idle for the longest time gives way. Some places are root's alone. A
//! connection that has waited needs one of the first kind again, and takes it as a new one does: so
//! neither number is ever exceeded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Connections at a time that are idle or ask.
pub const ASKING: usize = 64;
/// Connections at a time that wait.
pub const WAITING: usize = 512;
/// The part of each number that is kept for root.
pub const KEPT: usize = 16;

/// A connection's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No whole request has come since this moment.
    Idle(Instant),
    /// A request is being carried out.
    Asking,
    /// A request waits for guests.
    Waiting,
}

#[derive(Debug)]
struct Entry<T> {
    is_root: bool,
    stage: Stage,
    connection: T,
}

/// All places are taken, and nobody gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The outcome of [`Place::begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The request may be carried out.
    Go,
    /// Too many connections wait already.
    Full,
    /// The connection gave way to another before its request came.
    Gone,
}

/// The places, shared by the thread that accepts connections and those of the connections.
#[derive(Debug)]
pub struct Places<T>(Arc<Mutex<Table<T>>>);

/// A connection's place. It is free again when the value is dropped.
#[derive(Debug)]
pub struct Place<T> {
    places: Places<T>,
    number: u64,
}

#[derive(Debug)]
struct Table<T> {
    /// By the order in which they came.
    entries: BTreeMap<u64, Entry<T>>,
    next: u64,
}

impl<T> Places<T> {
    /// All free.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Table { entries: BTreeMap::new(), next: 0 })))
    }

    /// A place for a new connection, and the connection that has given way to it, which is to be
    /// told and closed.
    ///
    /// # Errors
    /// There is none.
    pub fn enter(&self, is_root: bool, now: Instant, connection: T) -> Result<(Place<T>, Option<T>), Full> {
        let mut table = self.lock();
        let gone = table.make_room(is_root)?;
        let number = table.next;
        table.next += 1;
        table.entries.insert(number, Entry { is_root, stage: Stage::Idle(now), connection });
        drop(table);
        Ok((Place { places: Self(self.0.clone()), number }, gone))
    }

    /// Locks the table. No code panics while it holds the lock; if it did, the table would still be
    /// consistent.
    fn lock(&self) -> MutexGuard<'_, Table<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Table<T> {
    /// True if one more connection of this user fits into `limit`.
    fn has_room(&self, is_root: bool, limit: usize, counts: impl Fn(Stage) -> bool) -> bool {
        let (mut all, mut others) = (0, 0);
        for entry in self.entries.values().filter(|entry| counts(entry.stage)) {
            all += 1;
            others += usize::from(!entry.is_root);
        }
        all < limit && (is_root || others < limit - KEPT)
    }

    /// Makes room for one more connection that does not wait. Returns the one that has given way.
    fn make_room(&mut self, is_root: bool) -> Result<Option<T>, Full> {
        if self.has_room(is_root, ASKING, |stage| stage != Stage::Waiting) {
            return Ok(None);
        }
        let longest = self.longest_idle(is_root).ok_or(Full)?;
        Ok(self.entries.remove(&longest).map(|entry| entry.connection))
    }

    fn set(&mut self, number: u64, stage: Stage) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.stage = stage;
        }
    }

    /// The connection that has been idle for the longest time. Root's gives way to root only.
    fn longest_idle(&self, is_root: bool) -> Option<u64> {
        let idle = self.entries.iter().filter_map(|(number, entry)| match entry.stage {
            Stage::Idle(since) if is_root || !entry.is_root => Some((since, *number)),
            _ => None,
        });
        idle.min().map(|(_, number)| number)
    }
}

impl<T> Place<T> {
    /// A whole request has come; it may have to wait for guests.
    pub fn begin(&self, waits: bool) -> Begun {
        let mut table = self.places.lock();
        let Some(is_root) = table.entries.get(&self.number).map(|entry| entry.is_root) else { return Begun::Gone };
        if waits && !table.has_room(is_root, WAITING, |stage| stage == Stage::Waiting) {
            return Begun::Full;
        }
        table.set(self.number, if waits { Stage::Waiting } else { Stage::Asking });
        Begun::Go
    }

    /// The answer has been written. Returns the connection that has given way to this one after a
    /// wait, as for [`Places::enter`].
    ///
    /// # Errors
    /// There is no place for it after its wait: it is to be closed.
    pub fn end(&self, now: Instant) -> Result<Option<T>, Full> {
        let mut table = self.places.lock();
        let gone = match table.entries.get(&self.number) {
            Some(Entry { stage: Stage::Waiting, is_root, .. }) => {
                let is_root = *is_root;
                table.make_room(is_root)?
            }
            _ => None,
        };
        table.set(self.number, Stage::Idle(now));
        Ok(gone)
    }
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        self.places.lock().entries.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const ROOT: bool = true;
    const OTHER: bool = false;

    /// Places, and the moment of each arrival.
    struct World {
        places: Places<u32>,
        began: Instant,
        came: u32,
    }

    impl World {
        fn new() -> Self {
            Self { places: Places::new(), began: Instant::now(), came: 0 }
        }

        fn now(&self) -> Instant {
            self.began + Duration::from_secs(self.came.into())
        }

        /// The next connection, whose number counts from 1; the one that gave way.
        fn come(&mut self, is_root: bool) -> Result<(Place<u32>, Option<u32>), Full> {
            self.came += 1;
            self.places.enter(is_root, self.now(), self.came)
        }

        fn fill(&mut self, is_root: bool, count: usize) -> Vec<Place<u32>> {
            (0..count)
                .map(|_| {
                    let (place, gone) = self.come(is_root).unwrap();
                    assert_eq!(gone, None);
                    place
                })
                .collect()
        }
    }

    #[test]
    fn the_longest_idle_connection_gives_way() {
        let mut world = World::new();
        let places = world.fill(ROOT, ASKING);
        assert_eq!(places[0].begin(false), Begun::Go);
        let (_new, gone) = world.come(ROOT).unwrap();
        assert_eq!(gone, Some(2), "the first one asks");
        assert_eq!(places[1].begin(false), Begun::Gone);
        assert_eq!(places[0].end(world.now()), Ok(None));
        let (_new, gone) = world.come(ROOT).unwrap();
        assert_eq!(gone, Some(3), "the first one has just asked");
    }

    #[test]
    fn who_asks_gives_way_to_nobody() {
        let mut world = World::new();
        let places = world.fill(ROOT, ASKING);
        assert!(places.iter().all(|place| place.begin(false) == Begun::Go));
        assert_eq!(world.come(ROOT).map(drop), Err(Full));
        drop(places);
        assert!(world.come(ROOT).is_ok());
    }

    #[test]
    fn places_are_kept_for_root() {
        let mut world = World::new();
        let others = world.fill(OTHER, ASKING - KEPT);
        assert!(others.iter().all(|place| place.begin(false) == Begun::Go));
        assert_eq!(world.come(OTHER).map(drop), Err(Full));
        let roots = world.fill(ROOT, KEPT);
        assert_eq!(others[5].end(world.now()), Ok(None));
        let (_other, gone) = world.come(OTHER).unwrap();
        assert_eq!(gone, Some(6), "root's idle ones do not give way to others");
        assert_eq!(roots[0].begin(false), Begun::Go);
        assert_eq!(world.come(ROOT).unwrap().1, Some(ASKING as u32 - KEPT as u32 + 3), "root's own gives way to root");
    }

    #[test]
    fn who_waits_takes_no_place_of_those_who_ask() {
        let mut world = World::new();
        let mut waiting = Vec::new();
        for _ in 0..WAITING - KEPT {
            let place = world.come(OTHER).unwrap().0;
            assert_eq!(place.begin(true), Begun::Go);
            waiting.push(place);
        }
        let late = world.come(OTHER).unwrap().0;
        assert_eq!(late.begin(true), Begun::Full);
        assert_eq!(late.begin(false), Begun::Go, "it may ask");
        let root = world.come(ROOT).unwrap().0;
        assert_eq!(root.begin(true), Begun::Go);
        drop((waiting, late, root));
        assert!(world.places.lock().entries.is_empty());
    }

    #[test]
    fn who_has_waited_needs_a_place_again() {
        let mut world = World::new();
        let waiting: Vec<_> = (0..WAITING - KEPT)
            .map(|_| {
                let place = world.come(OTHER).unwrap().0;
                assert_eq!(place.begin(true), Begun::Go);
                place
            })
            .collect();
        // All of their waits end at once, and each asks for something that takes long.
        let fit = ASKING - KEPT;
        assert!(waiting[..fit].iter().all(|place| place.end(world.now()) == Ok(None)));
        let gone = waiting[fit].end(world.now());
        assert_eq!(gone, Ok(Some(1)), "the longest idle one gives way");
        assert_eq!(waiting[0].begin(false), Begun::Gone);
        assert!(waiting[1..=fit].iter().all(|place| place.begin(false) == Begun::Go));
        assert!(waiting[fit + 1..].iter().all(|place| place.end(world.now()) == Err(Full)));
        let roots = world.fill(ROOT, KEPT);
        assert!(roots.iter().all(|place| place.begin(false) == Begun::Go), "root's places are root's");
    }
}
