//! What a scheduler costs that does nothing but schedule: coroutines on pooled stacks, a random choice before each operation, and those that wait left out of it. There is
//! no kernel in it, no check and no record, so that it bounds what a simulator can reach.

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

type Task = Coroutine<(), (), (), DefaultStack>;

thread_local! {
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// What tasks share: counts that they take from, and who waits for each.
#[derive(Default)]
struct State {
    counts: [Cell<u32>; 2],
    waiting: [Cell<u32>; 2],
    ready: Cell<u32>,
    running: Cell<u32>,
}

impl State {
    fn acquire(&self, yielder: &Yielder<(), ()>, index: usize) {
        yielder.suspend(());
        while self.counts[index].get() == 0 {
            let bit = 1 << self.running.get();
            self.waiting[index].set(self.waiting[index].get() | bit);
            self.ready.set(self.ready.get() & !bit);
            yielder.suspend(());
        }
        self.counts[index].set(self.counts[index].get() - 1);
    }

    fn release(&self, yielder: &Yielder<(), ()>, index: usize) {
        yielder.suspend(());
        self.counts[index].set(self.counts[index].get() + 1);
        self.ready.set(self.ready.get() | self.waiting[index].take());
    }
}

/// Runs tasks to their end, in an order that the seed tells.
fn run(state: &State, mut tasks: Vec<Task>, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    state.ready.set((1 << tasks.len()) - 1);
    while state.ready.get() != 0 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut ready = state.ready.get();
        let nth = ((random >> 32) * u64::from(ready.count_ones())) >> 32;
        for _ in 0..nth {
            ready &= ready - 1;
        }
        let task = ready.trailing_zeros();
        state.running.set(task);
        if let CoroutineResult::Return(()) = tasks[task as usize].resume(()) {
            state.ready.set(state.ready.get() & !(1 << task));
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
pub(crate) fn counter(threads: usize, turns: usize, seed: u64) {
    let (state, count) = (Rc::new(State::default()), Rc::new(Cell::new(0)));
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
    run(&state, tasks, seed);
    assert_eq!(count.get(), threads * turns);
}

/// `programs::ping_pong`.
pub(crate) fn ping_pong(rounds: usize, seed: u64) {
    let state = Rc::new(State::default());
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
    run(&state, tasks, seed);
}
