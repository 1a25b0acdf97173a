//! The programs, over NT's routines. `peers` has the same over the peers' types.

use crate::nt::{Lock, Mutex, Semaphore, threads};
use std::cell::Cell;

/// Threads that count under a lock.
pub(crate) fn counter<L: Lock>(number: usize, turns: usize, lock: &L) {
    let count = Cell::new(0);
    lock.initialize();
    let code = || {
        for _ in 0..turns {
            lock.with(|| count.set(count.get() + 1));
        }
    };
    threads(&vec![code; number]);
    assert_eq!(count.get(), number * turns);
}

/// Two threads that wake each other by semaphores.
pub(crate) fn ping_pong(rounds: usize) {
    let (ping, pong) = (Semaphore::zeroed(), Semaphore::zeroed());
    ping.start(0);
    pong.start(0);
    let first = || {
        for _ in 0..rounds {
            ping.release();
            pong.acquire();
        }
    };
    let second = || {
        for _ in 0..rounds {
            ping.acquire();
            pong.release();
        }
    };
    let code: [&dyn Fn(); 2] = [&first, &second];
    threads(&code);
}

/// Philosophers who take the left fork, then the right, once.
pub(crate) fn philosophers(number: usize) {
    let forks: Vec<_> = (0..number).map(|_| Mutex::zeroed()).collect();
    forks.iter().for_each(Lock::initialize);
    let forks = &forks;
    let code: Vec<_> = (0..number).map(|index| move || forks[index].with(|| forks[(index + 1) % number].with(|| ()))).collect();
    threads(&code);
}

/// Two threads that take two locks in opposite orders, each behind so many turns with a lock of its own.
pub(crate) fn opposite_orders(noise: usize) {
    let locks: [Mutex; 4] = std::array::from_fn(|_| Mutex::zeroed());
    locks.iter().for_each(Lock::initialize);
    let [a, b, own_a, own_b] = &locks;
    let nest = |own: &Mutex, first: &Mutex, second: &Mutex| {
        for _ in 0..noise {
            own.with(|| ());
        }
        first.with(|| second.with(|| ()));
    };
    let (one, two) = (|| nest(own_a, a, b), || nest(own_b, b, a));
    let code: [&dyn Fn(); 2] = [&one, &two];
    threads(&code);
}

/// A thread that uses, behind so many turns with a lock of its own, what another prepares at once: wrong if the other comes later still.
pub(crate) fn order_violation(noise: usize) {
    let (own, shared, ready) = (Mutex::zeroed(), Mutex::zeroed(), Cell::new(false));
    own.initialize();
    shared.initialize();
    let user = || {
        for _ in 0..noise {
            own.with(|| ());
        }
        shared.with(|| assert!(ready.get(), "used before it was ready"));
    };
    let maker = || shared.with(|| ready.set(true));
    let code: [&dyn Fn(); 2] = [&maker, &user];
    threads(&code);
}
