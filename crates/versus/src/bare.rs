//! What a scheduler costs that does nothing but schedule: coroutines on pooled stacks, a choice before each operation, and those that wait left out of it. Stacks are switched only where another is
//! chosen. There is no kernel in it, no check and no record, so that it bounds what a simulator can reach.

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

type Task = Coroutine<(), (), (), DefaultStack>;

thread_local! {
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// How a task is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// At random.
    Random,
    /// The one that acted last, as long as it can act: hardly any switches, as in the depth-first searches of the peers, and in PCT.
    Last,
}

/// What tasks share: counts that they take from, and who waits for each.
struct State {
    by: By,
    random: Cell<u64>,
    counts: [Cell<u32>; 2],
    waiting: [Cell<u32>; 2],
    ready: Cell<u32>,
    running: Cell<u32>,
}

impl State {
    fn new(by: By, tasks: usize, seed: u64) -> Self {
        let random = Cell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (counts, waiting) = Default::default();
        Self { by, random, counts, waiting, ready: Cell::new((1 << tasks) - 1), running: Cell::new(0) }
    }

    /// The task that is to act, of those that can.
    fn choose(&self) -> u32 {
        let mut ready = self.ready.get();
        match self.by {
            By::Last if ready & (1 << self.running.get()) != 0 => return self.running.get(),
            By::Last => {}
            By::Random => {
                let random = self.random.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                self.random.set(random);
                for _ in 0..((random >> 32) * u64::from(ready.count_ones())) >> 32 {
                    ready &= ready - 1;
                }
            }
        }
        ready.trailing_zeros()
    }

    /// The task that runs is about to perform an operation: others may act first.
    fn point(&self, yielder: &Yielder<(), ()>) {
        let (this, chosen) = (self.running.get(), self.choose());
        if chosen != this {
            self.running.set(chosen);
            yielder.suspend(());
        }
    }

    fn acquire(&self, yielder: &Yielder<(), ()>, index: usize) {
        self.point(yielder);
        while self.counts[index].get() == 0 {
            let bit = 1 << self.running.get();
            self.waiting[index].set(self.waiting[index].get() | bit);
            self.ready.set(self.ready.get() & !bit);
            self.running.set(self.choose());
            yielder.suspend(());
        }
        self.counts[index].set(self.counts[index].get() - 1);
    }

    fn release(&self, yielder: &Yielder<(), ()>, index: usize) {
        self.point(yielder);
        self.counts[index].set(self.counts[index].get() + 1);
        self.ready.set(self.ready.get() | self.waiting[index].take());
    }
}

/// Runs tasks to their end.
fn run(state: &State, mut tasks: Vec<Task>) {
    state.running.set(state.choose());
    while state.ready.get() != 0 {
        let task = state.running.get();
        if let CoroutineResult::Return(()) = tasks[task as usize].resume(()) {
            state.ready.set(state.ready.get() & !(1 << task));
            state.running.set(state.choose());
        }
    }
    STACKS.with_borrow_mut(|stacks| stacks.extend(tasks.into_iter().map(Task::into_stack)));
}

fn task(body: impl FnOnce(&Yielder<(), ()>) + 'static) -> Task {
    let pooled = STACKS.with_borrow_mut(Vec::pop);
    let stack = pooled.unwrap_or_else(|| DefaultStack::new(64 * 1024).expect("memory for a stack"));
    Coroutine::with_stack(stack, move |yielder, ()| body(yielder))
}

/// `programs::counter`.
pub(crate) fn counter(by: By, threads: usize, turns: usize, seed: u64) {
    let (state, count) = (Rc::new(State::new(by, threads, seed)), Rc::new(Cell::new(0)));
    state.counts[0].set(1);
    let tasks = (0..threads)
        .map(|_| {
            let (state, count) = (Rc::clone(&state), Rc::clone(&count));
            task(move |yielder| {
                for _ in 0..turns {
                    state.acquire(yielder, 0);
                    count.set(count.get() + 1);
                    state.release(yielder, 0);
                }
            })
        })
        .collect();
    run(&state, tasks);
    assert_eq!(count.get(), threads * turns);
}

/// `programs::ping_pong`.
pub(crate) fn ping_pong(by: By, rounds: usize, seed: u64) {
    let state = Rc::new(State::new(by, 2, seed));
    let (first, second) = (Rc::clone(&state), Rc::clone(&state));
    let tasks = vec![
        task(move |yielder| {
            for _ in 0..rounds {
                first.release(yielder, 0);
                first.acquire(yielder, 1);
            }
        }),
        task(move |yielder| {
            for _ in 0..rounds {
                second.acquire(yielder, 0);
                second.release(yielder, 1);
            }
        }),
    ];
    run(&state, tasks);
}
