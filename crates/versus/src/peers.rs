//! The programs over the peers' types. Both peers have the API of `std`, so that one macro writes them.

/// The programs with the types of a crate.
macro_rules! programs {
    ($name:ident) => {
        use std::sync::Arc as StdArc;
        use $name::sync::Mutex;
        use $name::thread;

        fn join(threads: Vec<thread::JoinHandle<()>>) {
            for thread in threads {
                thread.join().expect("the thread ends");
            }
        }

        /// Threads that count under a lock.
        pub(crate) fn counter(number: usize, turns: usize) {
            let count = StdArc::new(Mutex::new(0));
            let threads = (0..number)
                .map(|_| {
                    let count = StdArc::clone(&count);
                    thread::spawn(move || (0..turns).for_each(|_| *count.lock().expect("no thread panics") += 1))
                })
                .collect();
            join(threads);
            assert_eq!(*count.lock().expect("no thread panics"), number * turns);
        }

        /// Philosophers who take the left fork, then the right, once.
        pub(crate) fn philosophers(number: usize) {
            let forks: StdArc<[Mutex<()>]> = (0..number).map(|_| Mutex::new(())).collect();
            let threads = (0..number)
                .map(|index| {
                    let forks = StdArc::clone(&forks);
                    thread::spawn(move || {
                        let _left = forks[index].lock();
                        let _right = forks[(index + 1) % number].lock();
                    })
                })
                .collect();
            join(threads);
        }

        /// Two threads that take two locks in opposite orders, each behind so many turns with a lock of its own.
        pub(crate) fn opposite_orders(noise: usize) {
            let locks: StdArc<[Mutex<()>; 4]> = StdArc::new(std::array::from_fn(|_| Mutex::new(())));
            let nest = |own: usize, first: usize, second: usize| {
                let locks = StdArc::clone(&locks);
                thread::spawn(move || {
                    for _ in 0..noise {
                        drop(locks[own].lock());
                    }
                    let _first = locks[first].lock();
                    let _second = locks[second].lock();
                })
            };
            join(vec![nest(2, 0, 1), nest(3, 1, 0)]);
        }

        /// A thread that uses, behind so many turns with a lock of its own, what another prepares at once.
        pub(crate) fn order_violation(noise: usize) {
            let (own, ready) = (Mutex::new(()), StdArc::new(Mutex::new(false)));
            let made = StdArc::clone(&ready);
            let maker = thread::spawn(move || *made.lock().expect("no thread panics") = true);
            let user = thread::spawn(move || {
                for _ in 0..noise {
                    drop(own.lock());
                }
                assert!(*ready.lock().expect("no thread panics"), "used before it was ready");
            });
            join(vec![maker, user]);
        }
    };
}

pub(crate) mod shuttle {
    //! shuttle.

    use ::shuttle::future::batch_semaphore::{BatchSemaphore, Fairness};
    use ::shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler, Scheduler, UrwRandomScheduler};
    use ::shuttle::{Config, FailurePersistence, Runner};

    programs!(shuttle);

    /// Two threads that wake each other by semaphores.
    pub(crate) fn ping_pong(rounds: usize) {
        let semaphores: [StdArc<BatchSemaphore>; 2] =
            std::array::from_fn(|_| StdArc::new(BatchSemaphore::new(0, Fairness::StrictlyFair)));
        let [ping, pong] = semaphores.clone();
        let first = thread::spawn(move || {
            for _ in 0..rounds {
                ping.release(1);
                pong.acquire_blocking(1).expect("it is not closed");
            }
        });
        let [ping, pong] = semaphores;
        let second = thread::spawn(move || {
            for _ in 0..rounds {
                ping.acquire_blocking(1).expect("it is not closed");
                pong.release(1);
            }
        });
        join(vec![first, second]);
    }

    /// Its schedulers.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum By {
        Random,
        Pct(usize),
        Urw,
        Dfs,
    }

    pub(crate) const ALL: [By; 5] = [By::Random, By::Pct(2), By::Pct(3), By::Urw, By::Dfs];

    /// Runs so many schedules.
    pub(crate) fn run(by: By, seed: u64, schedules: usize, program: impl Fn() + Send + Sync + 'static) {
        fn run<S: Scheduler + 'static>(scheduler: S, program: impl Fn() + Send + Sync + 'static) {
            let mut config = Config::new();
            config.failure_persistence = FailurePersistence::None;
            Runner::new(scheduler, config).run(program);
        }
        match by {
            By::Random => run(RandomScheduler::new_from_seed(seed, schedules), program),
            By::Pct(depth) => run(PctScheduler::new_from_seed(seed, depth, schedules), program),
            By::Urw => run(UrwRandomScheduler::new_from_seed(seed, schedules), program),
            By::Dfs => run(DfsScheduler::new(Some(schedules), false), program),
        }
    }
}

pub(crate) mod loom {
    //! loom.

    use std::time::Duration;

    programs!(loom);

    /// Runs until nothing is left, or so many executions or so much time has passed.
    pub(crate) fn run(executions: usize, time: Option<Duration>, program: impl Fn() + Send + Sync + 'static) {
        let mut builder = ::loom::model::Builder::new();
        builder.max_branches = 1_000_000;
        builder.max_permutations = Some(executions);
        builder.max_duration = time;
        // It looks at its limits so often.
        builder.checkpoint_interval = if time.is_some() { 100 } else { executions };
        builder.check(program);
    }
}
