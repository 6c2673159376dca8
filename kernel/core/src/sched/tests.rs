use super::*;
use crate::testing::Random;
use std::collections::VecDeque;

const SLICE: u64 = 1000;

fn with_threads<const N: usize>() -> (Scheduler, [ThreadId; N]) {
    let mut sched = Scheduler::new(SLICE);
    let ids = core::array::from_fn(|_| sched.spawn().unwrap());
    (sched, ids)
}

#[test]
fn threads_take_turns() {
    let (mut sched, [a, b, c]) = with_threads();
    for expected in [a, b, c, a, b, c] {
        assert_eq!(sched.pick(), Some(expected));
        assert_eq!(sched.state(expected), Some(State::Running));
        sched.preempt();
        assert_eq!(sched.state(expected), Some(State::Ready));
    }
}

#[test]
fn idle_when_nothing_is_ready() {
    let (mut sched, [a]) = with_threads();
    sched.pick();
    sched.block(None);
    assert_eq!(sched.pick(), None);
    assert_eq!(sched.next_timer(), None);
    assert!(sched.wake(a));
    assert_eq!(sched.pick(), Some(a));
    assert_eq!(sched.wake_reason(), WakeReason::Woken);
}

#[test]
fn a_thread_is_preempted_after_a_whole_slice_and_only_while_another_waits() {
    let (mut sched, [a]) = with_threads();
    assert_eq!(sched.pick(), Some(a));
    assert!(!sched.wants_slice());
    assert_eq!(sched.next_timer(), None, "no timer while one thread runs");
    let b = sched.spawn().unwrap();
    assert!(sched.wants_slice());
    assert_eq!(sched.begin_slice(5), 5 + SLICE);
    assert!(!sched.wants_slice());
    assert_eq!(sched.next_timer(), Some(5 + SLICE));
    sched.timer_fired(4 + SLICE);
    assert_eq!(sched.next_timer(), Some(5 + SLICE), "too early");
    sched.timer_fired(5 + SLICE);
    assert!(!sched.slice_is_over(), "it may have begun in the middle of the slice");
    let end = sched.begin_slice(5 + SLICE);
    sched.timer_fired(end);
    assert!(sched.slice_is_over());
    sched.preempt();
    assert_eq!(sched.pick(), Some(b));
    assert!(!sched.slice_is_over());
}

#[test]
fn a_slice_that_ends_when_nobody_waits_preempts_nobody() {
    let (mut sched, [a, b]) = with_threads();
    sched.pick();
    sched.begin_slice(0);
    sched.timer_fired(SLICE);
    sched.begin_slice(SLICE);
    sched.block(None);
    assert_eq!(sched.pick(), Some(b));
    sched.timer_fired(2 * SLICE);
    assert!(!sched.slice_is_over());
    assert_eq!(sched.next_timer(), None);
    assert!(sched.wake(a));
    assert!(sched.wants_slice());
}

#[test]
fn sleepers_wake_in_order_of_their_deadlines() {
    let (mut sched, [a, b, c]) = with_threads();
    for deadline in [300, 100, 200] {
        sched.pick();
        sched.block(Some(deadline));
    }
    assert_eq!(sched.next_timer(), Some(100));
    sched.timer_fired(99);
    assert_eq!(sched.ready_count(), 0);
    sched.timer_fired(250);
    assert_eq!(sched.ready_count(), 2);
    assert_eq!(sched.next_timer(), Some(300));
    assert_eq!(sched.pick(), Some(b));
    assert_eq!(sched.wake_reason(), WakeReason::TimedOut);
    sched.block(None);
    assert_eq!(sched.pick(), Some(c));
    assert_eq!(sched.state(a), Some(State::Blocked));
}

#[test]
fn a_wake_cancels_the_deadline() {
    let (mut sched, [a]) = with_threads();
    sched.pick();
    sched.block(Some(50));
    assert!(sched.wake(a));
    assert!(!sched.wake(a), "ready already");
    assert_eq!(sched.next_timer(), None);
    sched.timer_fired(1000);
    assert_eq!(sched.ready_count(), 1, "not made ready twice");
    assert_eq!(sched.pick(), Some(a));
    assert!(!sched.wake(a), "runs");
}

#[test]
fn slots_are_reused_under_a_new_generation() {
    let (mut sched, [a]) = with_threads();
    sched.pick();
    assert!(!sched.reap(a), "still runs");
    assert_eq!(sched.exit(), a);
    assert_eq!(sched.state(a), Some(State::Exited));
    assert_eq!(sched.thread_count(), 1);
    assert!(!sched.wake(a));
    assert!(sched.reap(a));
    assert!(!sched.reap(a));
    assert_eq!(sched.thread_count(), 0);
    assert_eq!(sched.state(a), None);
    let b = sched.spawn().unwrap();
    assert_eq!((b.slot(), b.generation()), (a.slot(), a.generation() + 1));
    assert!(!sched.wake(a));
    assert_eq!(sched.state(a), None);
}

#[test]
#[should_panic(expected = "pick while")]
fn pick_while_a_thread_runs_is_a_bug() {
    let (mut sched, [_, _]) = with_threads();
    sched.pick();
    sched.pick();
}

/// A straightforward scheduler of the same rules.
#[derive(Default)]
struct Model {
    ready: VecDeque<ThreadId>,
    blocked: Vec<(ThreadId, Option<u64>)>,
    running: Option<ThreadId>,
}

#[test]
fn behaves_like_the_model_and_never_allocates_after_spawn() {
    let mut random = Random::new(6);
    let mut sched = Scheduler::new(SLICE);
    let mut model = Model::default();
    let mut now = 0;
    for _ in 0..20_000 {
        now += random.below(50);
        let capacities = (sched.ready.capacity(), sched.free.capacity());
        let step = random.below(8);
        match step {
            0 if sched.thread_count() < 50 => model.ready.push_back(sched.spawn().unwrap()),
            1 if model.running.is_some() => {
                let deadline = random.chance(2).then(|| now + random.below(500));
                sched.block(deadline);
                model.blocked.push((model.running.take().unwrap(), deadline));
            }
            2 if model.running.is_some() => {
                sched.preempt();
                model.ready.extend(model.running.take());
            }
            3 if model.running.is_some() && random.chance(4) => {
                let id = sched.exit();
                assert_eq!(Some(id), model.running.take());
                assert!(sched.reap(id));
            }
            4 if !model.blocked.is_empty() => {
                let (id, _) = model.blocked.remove(random.below(model.blocked.len() as u64) as usize);
                assert!(sched.wake(id));
                model.ready.push_back(id);
            }
            5 => {
                let before = sched.ready_count();
                sched.timer_fired(now);
                let due = model.blocked.extract_if(.., |(_, d)| d.is_some_and(|d| d <= now));
                let mut due: Vec<_> = due.map(|(id, _)| id).collect();
                assert_eq!(due.len(), sched.ready_count() - before);
                // Equal deadlines wake in any order, so the scheduler's order is taken over.
                let woken = sched.ready.iter().skip(model.ready.len()).copied();
                due.sort_by_key(|id| woken.clone().position(|slot| slot as usize == id.slot()));
                model.ready.extend(due);
            }
            _ if model.running.is_none() => {
                model.running = model.ready.pop_front();
                assert_eq!(sched.pick(), model.running);
            }
            _ => {}
        }
        assert_eq!(sched.running(), model.running);
        assert_eq!(sched.ready_count(), model.ready.len());
        let deadline = model.blocked.iter().filter_map(|(_, d)| *d).min();
        assert_eq!(sched.next_timer(), deadline, "no slice was begun");
        assert_eq!(sched.wants_slice(), model.running.is_some() && !model.ready.is_empty());
        if step != 0 {
            assert_eq!(capacities, (sched.ready.capacity(), sched.free.capacity()));
        }
    }
}
