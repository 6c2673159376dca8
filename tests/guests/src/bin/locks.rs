//! Mutex and condition variable: exclusion, hand-over, time limits, no lost wake-up.

#![no_std]
#![no_main]

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use test_guests::{check, check_eq, success};
use zooid::sync::{Arc, Condvar, Mutex};
use zooid::thread;
use zooid::time::{Duration, Instant};

zooid::main!(main, mode = kernel);

fn main() {
    exclusion();
    hand_over();
    time_limits();
    notify();
    queue();
    success();
}

/// A read, a pause and a write under the lock are one step.
fn exclusion() {
    let total = Arc::new(Mutex::new(0u64));
    let threads: Vec<_> = (0..8)
        .map(|index| {
            let total = total.clone();
            thread::spawn(move || {
                for round in 0..500 {
                    let mut total = total.lock();
                    let before = *total;
                    if (round + index) % 7 == 0 {
                        thread::yield_now();
                    }
                    *total = before + 1;
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join());
    check_eq!(*total.lock(), 8 * 500);
}

fn hand_over() {
    let lock = Mutex::new(1);
    let held = lock.lock();
    check!(lock.try_lock().is_none());
    drop(held);
    check!(lock.try_lock().is_some_and(|value| *value == 1));
    check_eq!(lock.into_inner(), 1);

    // Two threads take turns, 10,000 times.
    let shared = Arc::new((Mutex::new(0u32), Condvar::new()));
    let other = shared.clone();
    let play = |shared: &(Mutex<u32>, Condvar), odd: u32| {
        for _ in 0..10_000 {
            let mut turn = shared.1.wait_while(shared.0.lock(), |turn| *turn % 2 != odd);
            *turn += 1;
            shared.1.notify_one();
        }
    };
    let partner = thread::spawn(move || play(&other, 1));
    play(&shared, 0);
    partner.join();
    check_eq!(*shared.0.lock(), 20_000);
}

fn time_limits() {
    let (lock, condition) = (Mutex::new(()), Condvar::new());
    let start = Instant::now();
    let limit = Duration::from_millis(30);
    let (guard, result) = condition.wait_timeout(lock.lock(), limit);
    check!(result.timed_out() && start.elapsed() >= limit);
    // The lock is held again.
    check!(lock.try_lock().is_none());
    let (guard, result) = condition.wait_timeout_while(guard, Duration::ZERO, |()| true);
    check!(result.timed_out());
    let (guard, result) = condition.wait_timeout_while(guard, Duration::MAX, |()| false);
    check!(!result.timed_out());
    drop(guard);

    // A notification before the limit.
    let shared = Arc::new((Mutex::new(false), Condvar::new()));
    let other = shared.clone();
    let notifier = thread::spawn(move || {
        *other.0.lock() = true;
        other.1.notify_all();
    });
    let (done, result) = shared.1.wait_timeout_while(shared.0.lock(), Duration::from_secs(60), |done| !*done);
    check!(*done && !result.timed_out());
    drop(done);
    notifier.join();
}

/// Notifying wakes one, or all; and nobody who comes later.
fn notify() {
    let shared = Arc::new((Mutex::new((0, 0)), Condvar::new()));
    let threads: Vec<_> = (0..10)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut counts = shared.0.lock();
                counts.0 += 1;
                counts = shared.1.wait(counts);
                counts.1 += 1;
            })
        })
        .collect();
    while shared.0.lock().0 < 10 {
        thread::yield_now();
    }
    shared.1.notify_one();
    while shared.0.lock().1 < 1 {
        thread::yield_now();
    }
    thread::yield_now();
    check_eq!(shared.0.lock().1, 1);
    shared.1.notify_all();
    threads.into_iter().for_each(|thread| thread.join());
    check_eq!(shared.0.lock().1, 10);
    shared.1.notify_all();
    let (_, result) = shared.1.wait_timeout(shared.0.lock(), Duration::from_millis(1));
    check!(result.timed_out());
}

/// A bounded queue between producers and consumers, with time limits that often run out just when a wake-up comes.
fn queue() {
    const LENGTH: usize = 3;
    const ITEMS: u64 = 2_000;
    let shared = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
    let limit = Duration::from_micros(200);
    let producers: Vec<_> = (0..3)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                for item in 1..=ITEMS {
                    let mut queue = shared.0.lock();
                    while queue.len() == LENGTH {
                        queue = shared.1.wait_timeout(queue, limit).0;
                    }
                    queue.push_back(item);
                    shared.1.notify_all();
                }
            })
        })
        .collect();
    let consumers: Vec<_> = (0..3)
        .map(|_| {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut sum = 0;
                for _ in 0..ITEMS {
                    let mut queue = shared.0.lock();
                    while queue.is_empty() {
                        queue = shared.1.wait(queue);
                    }
                    sum += queue.pop_front().unwrap_or(0);
                    shared.1.notify_all();
                }
                sum
            })
        })
        .collect();
    producers.into_iter().for_each(|thread| thread.join());
    let sum: u64 = consumers.into_iter().map(|thread| thread.join()).sum();
    check_eq!(sum, 3 * ITEMS * (ITEMS + 1) / 2);
}
