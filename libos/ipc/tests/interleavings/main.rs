//! The waiting and waking of IpC, and its ends, over all interleavings of two and three members:
//! see [`world`].

mod world;

use std::cell::RefCell;
use std::mem::forget;
use std::rc::Rc;

use world::{Body, Deed, End, Program, Scenario, Sim, explore, peek, poke};
use zooid_ipc::layout::{BODY, DETAILS, FIELDS, KIND, LOCKS, MEMBERS, OFFER, PARTS, POINTS};
use zooid_ipc::memory::SharedMemory;
use zooid_ipc::pipe::{self, PipeReader, PipeWriter};
use zooid_ipc::poll::{Events, PollEntry, poll, poll_within};
use zooid_ipc::queue::{Attributes, MessageQueue};
use zooid_ipc::semaphore::Semaphore;
use zooid_ipc::shared::{Condvar, Mutex};
use zooid_ipc::{Error, How, Patience};

/// The values that members tell the test.
type Said<T> = Rc<RefCell<Vec<T>>>;

fn program(setup: impl FnOnce() -> Vec<Body> + 'static) -> Program {
    Box::new(setup)
}

/// A member of one thread, which does `body` with what `setup` gives it, and keeps that.
fn keeper<T: 'static>(setup: impl FnOnce() -> T + 'static, body: impl FnOnce(&T) + 'static) -> Program {
    member(setup, |things| {
        body(&things);
        forget(things);
    })
}

/// A member of one thread, which does `body` with what `setup` gives it.
fn member<T: 'static>(setup: impl FnOnce() -> T + 'static, body: impl FnOnce(T) + 'static) -> Program {
    program(move || {
        let things = setup();
        vec![Box::new(move || body(things))]
    })
}

fn reader() -> PipeReader<Sim> {
    pipe::pipe().expect("it can be made").0
}

fn writer() -> PipeWriter<Sim> {
    pipe::pipe().expect("it can be made").1
}

/// Says all that is read until the end.
fn read_all(reader: &PipeReader<Sim>, said: &Said<u8>) {
    let mut octet = [0];
    while reader.read(&mut octet).expect("nobody writes nonsense") == 1 {
        said.borrow_mut().push(octet[0]);
    }
}

fn nobody_waits(end: &End) {
    assert!(end.waiting.is_empty(), "members {:?} wait for ever", end.waiting);
}

/// A reader gets each octet in order and then the end, however the writer goes on.
#[test]
fn a_pipe_gives_every_octet_and_then_its_end() {
    explore("pipe", || {
        let said = Said::default();
        let heard = said.clone();
        let read = keeper(reader, move |reader| read_all(reader, &said));
        let write = member(writer, |writer| writer.write_all(&[1]).unwrap());
        let judge = Box::new(move |end: &End| {
            nobody_waits(end);
            assert_eq!(*heard.borrow(), [1]);
        });
        Scenario { judge, ..Scenario::new(vec![(0, read), (1, write)]) }
    });
}

/// A writer that waits for room gets it.
#[test]
fn a_full_pipe_takes_more_as_soon_as_somebody_has_read() {
    explore("full pipe", || {
        let write = member(
            || {
                let writer = writer();
                poke(0, FIELDS[0], 4, pipe::CAPACITY as u64);
                writer
            },
            |writer| {
                writer.write_all(&[1]).unwrap();
                forget(writer);
            },
        );
        let read = member(reader, |reader| {
            assert_eq!(reader.read(&mut [0]), Ok(1));
            forget(reader);
        });
        Scenario::new(vec![(0, write), (1, read)])
    });
}

/// No look at the indices while others move them is taken for nonsense, by two readers of what a
/// third one writes.
#[test]
fn a_pipe_with_two_readers_is_not_broken_by_their_looks() {
    explore("two readers", || {
        let look = || {
            let setup = || {
                let reader = reader();
                poke(0, FIELDS[0], 4, 1);
                reader
            };
            keeper(setup, |reader| {
                let mut entries = [PollEntry::new(reader, Events::READABLE)];
                poll_within::<Sim>(&mut entries, Patience::None);
                assert!(!entries[0].ready.contains(Events::ERROR));
                assert!(matches!(reader.try_read(&mut [0]), Ok(1) | Err(Error::WouldBlock)));
            })
        };
        let write = keeper(writer, |writer| assert!(matches!(writer.try_write(&[1]), Ok(1) | Err(Error::WouldBlock))));
        Scenario::new(vec![(0, look()), (1, look()), (2, write)])
    });
}

/// The data of a writer that was killed is read, and then the end.
#[test]
fn a_killed_writer_is_the_end_after_what_it_has_written() {
    explore("killed writer", || {
        let said = Said::default();
        let heard = said.clone();
        let read = keeper(reader, move |reader| said.borrow_mut().push(reader.read(&mut [0])));
        let write = keeper(writer, |writer| _ = writer.try_write(&[1]));
        let judge = Box::new(move |end: &End| {
            nobody_waits(end);
            let is_written = peek(0, FIELDS[0]) == 1;
            assert_eq!(*heard.borrow(), [Ok(usize::from(is_written))]);
        });
        Scenario { judge, mortal: vec![1], ..Scenario::new(vec![(0, read), (1, write)]) }
    });
}

/// A semaphore whose value is as high as there are takers refuses none of them.
#[test]
fn a_semaphore_refuses_nobody_while_its_value_is_above_0() {
    explore("takers", || {
        let take =
            || keeper(|| Semaphore::<Sim>::new(2).unwrap(), |semaphore| assert_eq!(semaphore.try_wait(), Ok(())));
        Scenario::new(vec![(0, take()), (1, take())])
    });
}

/// A post lets one go on: who waits, or a third member that takes at that moment.
#[test]
fn a_post_wakes_who_waits_unless_a_third_one_is_faster() {
    explore("posts", || {
        let semaphore = || Semaphore::<Sim>::new(0).unwrap();
        let taken = Rc::new(RefCell::new(false));
        let is_taken = taken.clone();
        let wait = keeper(semaphore, |semaphore| semaphore.wait().unwrap());
        let post = keeper(semaphore, |semaphore| semaphore.post().unwrap());
        let take = keeper(semaphore, move |semaphore| *taken.borrow_mut() = semaphore.try_wait().is_ok());
        let judge = Box::new(move |end: &End| assert_eq!(!end.waiting.is_empty(), *is_taken.borrow()));
        Scenario { judge, ..Scenario::new(vec![(0, wait), (1, post), (2, take)]) }
    });
}

/// A wake-up that needs pvmd, which is away, comes when it is back.
#[test]
fn a_relay_that_no_daemon_takes_is_made_when_there_is_one() {
    explore("relays", || {
        let wait = keeper(|| Semaphore::<Sim>::new(0).unwrap(), |semaphore| semaphore.wait().unwrap());
        // The waiter does not know of it, and has offered it no port.
        let post = keeper(
            || (),
            |()| {
                let semaphore = Semaphore::<Sim>::new(0).unwrap();
                semaphore.post().unwrap();
                forget(semaphore);
            },
        );
        Scenario { absences: 2, ..Scenario::new(vec![(0, wait), (1, post)]) }
    });
}

/// A member that is killed at any step of a post has posted or not: nobody waits for a value that
/// is there.
#[test]
fn nobody_waits_for_what_a_killed_member_has_posted() {
    explore("killed poster", || {
        let semaphore = || Semaphore::<Sim>::new(0).unwrap();
        let posted = Said::default();
        let told = posted.clone();
        let wait = keeper(semaphore, |semaphore| semaphore.wait().unwrap());
        let post = keeper(semaphore, move |semaphore| {
            semaphore.post().unwrap();
            posted.borrow_mut().push(0);
        });
        let judge = Box::new(move |end: &End| {
            assert!(end.waiting.is_empty() || (told.borrow().is_empty() && end.killed == [1]), "{:?}", end.waiting);
            let value = peek(0, FIELDS[1]);
            assert!(end.waiting.is_empty() || value == 0, "somebody waits for what is there");
        });
        Scenario { judge, mortal: vec![1], absences: 1, ..Scenario::new(vec![(0, wait), (1, post)]) }
    });
}

/// A message is received, whole, by one of those that wait.
#[test]
fn a_message_is_received_by_who_waits_for_it() {
    explore("queue", || {
        let queue = || MessageQueue::<Sim>::new(Attributes { messages: 1, size: 2 }).unwrap();
        let receive = keeper(queue, move |queue| {
            let mut buffer = [0; 2];
            assert_eq!(queue.receive(&mut buffer), Ok((2, 7)));
            assert_eq!(buffer, [1, 2]);
        });
        let send = keeper(queue, |queue| queue.send(&[1, 2], 7).unwrap());
        Scenario::new(vec![(0, receive), (1, send)])
    });
}

/// Two members are never inside at once; the mutex of one that was killed goes to the other, who is
/// told so, once the first has stopped.
#[test]
fn a_mutex_is_held_by_one_and_inherited_from_the_dead() {
    explore("mutex", || {
        let memory = || SharedMemory::<Sim>::new(64).unwrap();
        // The number of the member that is inside.
        let inside = Rc::new(RefCell::new(None));
        let user = |number: u8| {
            let inside = inside.clone();
            keeper(memory, move |memory| {
                let mutex = Mutex::at(memory, 0).unwrap();
                let guard = mutex.lock().unwrap();
                let before = inside.replace(Some(number));
                assert!(before.is_none() || guard.owner_died(), "member {number} finds {before:?} inside");
                inside.replace(None);
                drop(guard);
            })
        };
        Scenario { mortal: vec![0], ..Scenario::new(vec![(0, user(0)), (1, user(1))]) }
    });
}

/// A notification that is given with the mutex reaches who has looked before.
#[test]
fn a_condition_variable_loses_no_notification() {
    explore("condvar", || {
        let memory = || SharedMemory::<Sim>::new(64).unwrap();
        let parts = |memory: &SharedMemory<Sim>| (Mutex::at(memory, 0).unwrap(), Condvar::at(memory, 8).unwrap());
        let flag = Rc::new(RefCell::new(false));
        let (set, seen) = (flag.clone(), flag);
        let wait = keeper(memory, move |memory| {
            let (mutex, changed) = parts(memory);
            let mut guard = mutex.lock().unwrap();
            while !*seen.borrow() {
                guard = changed.wait(guard).unwrap();
            }
        });
        let notify = keeper(memory, move |memory| {
            let (mutex, changed) = parts(memory);
            let guard = mutex.lock().unwrap();
            *set.borrow_mut() = true;
            drop(guard);
            changed.notify_all();
        });
        Scenario::new(vec![(0, wait), (1, notify)])
    });
}

/// A poll sees what becomes ready while it begins to wait, and wakes no other.
#[test]
fn a_poll_of_two_things_is_woken_by_either() {
    explore("poll", || {
        let semaphore = || Semaphore::<Sim>::new(0).unwrap();
        let both = keeper(
            move || (semaphore(), reader()),
            |(semaphore, reader)| {
                let mut entries =
                    [PollEntry::new(semaphore, Events::READABLE), PollEntry::new(reader, Events::READABLE)];
                assert_eq!(poll::<Sim>(&mut entries, None), 1);
            },
        );
        let other = keeper(move || (semaphore(), writer()), |(semaphore, _)| semaphore.post().unwrap());
        Scenario::new(vec![(0, both), (1, other)])
    });
}

/// Two threads that open one name have one object: the one that closes it does not close it for the
/// other.
#[test]
fn threads_that_open_a_name_at_once_share_its_parts() {
    explore("open", || {
        let open = || Semaphore::<Sim>::open("name", How { create: true, exclusive: false }, 1).unwrap();
        let pvm = program(move || {
            let first = open();
            drop(first);
            vec![
                Box::new(move || drop(open())),
                Box::new(move || {
                    forget(open());
                }),
            ]
        });
        let judge = Box::new(|end: &End| {
            nobody_waits(end);
            assert_eq!(peek(0, PARTS) & 3, 1, "the pVM has the object, and its part does not say so");
        });
        Scenario { judge, ..Scenario::new(vec![(0, pvm)]) }
    });
}

/// A number that is given out again is another member's: who hears of the end late takes nothing
/// away from it.
#[test]
fn a_late_look_at_an_end_leaves_the_next_member_of_that_number_alone() {
    explore("numbers", || {
        let watcher = keeper(reader, |_| ());
        let ends = member(writer, |writer| writer.write_all(&[]).unwrap());
        let next = member(|| (), |()| forget(writer()));
        let judge = Box::new(|end: &End| {
            if end.killed == [1] {
                assert_eq!(peek(0, PARTS + 2) & 3, 2, "the next writer is not seen");
            }
        });
        let members = vec![(0, watcher), (1, ends)];
        Scenario { judge, later: vec![(1, next)], mortal: vec![1], ..Scenario::new(members) }
    });
}

/// Values that a hostile member writes over whatever lies in an object.
fn nonsense(object: usize) -> Vec<Deed> {
    let lock = (5 << 32) | 3;
    let places = [
        (MEMBERS, 4),
        (KIND, 4),
        (DETAILS[0], 4),
        (POINTS[0], 4),
        (POINTS[0] + 8, 8),
        (POINTS[1], 4),
        (POINTS[2] + 8, 8),
        (LOCKS[0], 8),
        (LOCKS[1], 8),
        (FIELDS[0], 4),
        (FIELDS[1], 4),
        (FIELDS[2], 8),
        (PARTS, 2),
        (PARTS + 2, 2),
        (OFFER, 8),
    ];
    let write = |(offset, octets): (usize, usize)| {
        [0, u64::MAX, lock].map(|value| Deed::Write { object, offset, octets, value })
    };
    places.into_iter().flat_map(write).collect()
}

/// Offers of ports that nobody has, in anybody's name.
fn offers(object: usize) -> Vec<Deed> {
    let offer = |from: u64, to: u64, port: u64| Deed::Write {
        object,
        offset: OFFER,
        octets: 8,
        value: (from + 1) | to << 16 | port << 32,
    };
    vec![offer(0, 1, 1), offer(1, 0, 1), offer(2, 0, 1), offer(2, 1, 77), offer(0xfffe, 0, 1), offer(0, 0, 1)]
}

/// Whatever is written into one object, and whatever is offered there, the other one serves its
/// members.
#[test]
fn nonsense_in_one_object_harms_no_other() {
    explore("hostile neighbour", || {
        // The first object is the hostile member's, too.
        let both = || [0, 0].map(|value| Semaphore::<Sim>::new(value).unwrap());
        let wait = keeper(both, |[shared, own]| {
            let mut entries = [PollEntry::new(shared, Events::READABLE), PollEntry::new(own, Events::READABLE)];
            assert_eq!(poll::<Sim>(&mut entries, None), 1);
            assert_eq!(own.try_wait(), Ok(()));
        });
        let post = keeper(both, |[_, own]| own.post().unwrap());
        let hostile = keeper(both, |_| ());
        let mut deeds = offers(0);
        deeds.push(Deed::Ring { member: 0 });
        Scenario { hostile: (deeds, 1), ..Scenario::new(vec![(0, wait), (1, post), (2, hostile)]) }
    });
}

/// Whatever is written into a pipe, its users get octets, an end or an error, and no panic.
#[test]
fn nonsense_in_a_pipe_is_an_error_for_its_users() {
    explore("hostile pipe", || {
        let write = keeper(writer, |writer| _ = writer.try_write(&[1, 2]));
        let read = keeper(reader, |reader| _ = reader.try_read(&mut [0; 2]));
        Scenario { hostile: (nonsense(0), 1), ..Scenario::new(vec![(0, write), (1, read)]) }
    });
}

/// As for a pipe.
#[test]
fn nonsense_in_a_queue_is_an_error_for_its_users() {
    explore("hostile queue", || {
        let queue = || MessageQueue::<Sim>::new(Attributes { messages: 2, size: 2 }).unwrap();
        let send = keeper(queue, |queue| _ = queue.try_send(&[1, 2], 7));
        let receive = keeper(queue, |queue| _ = queue.try_receive(&mut [0; 2]));
        let mut deeds = nonsense(0);
        deeds.push(Deed::Write { object: 0, offset: BODY + 12, octets: 4, value: 3 });
        Scenario { hostile: (deeds, 1), ..Scenario::new(vec![(0, send), (1, receive)]) }
    });
}
