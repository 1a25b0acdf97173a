//! Threads that serve KQUEUEs with a limit on active threads, and wait for other things meanwhile.

use crate::{LONG_RUNS, MOST, SMALL, Search, Seen, Words, compare, compare_if_small, few, perform, search};
use ksync_sys::*;
use proptest::prelude::*;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// The step's own entry.
    Insert(usize),
    Remove(usize),
    RemoveWithin(usize, i64),
    State(usize),
    Set(usize),
    Reset(usize),
    Wait(usize),
    WaitWithin(usize, i64),
    Release,
    WaitForSemaphore,
    Fast(usize),
    Mutex(usize),
    Sleep(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        1 => which().prop_map(Step::Load),
        1 => which().prop_map(Step::Store),
        4 => which().prop_map(Step::Insert),
        4 => which().prop_map(Step::Remove),
        1 => (which(), 1..3_i64).prop_map(|(which, time)| Step::RemoveWithin(which, time)),
        1 => which().prop_map(Step::State),
        3 => which().prop_map(Step::Set),
        1 => which().prop_map(Step::Reset),
        3 => which().prop_map(Step::Wait),
        1 => (which(), 1..3_i64).prop_map(|(which, time)| Step::WaitWithin(which, time)),
        1 => Just(Step::Release),
        1 => Just(Step::WaitForSemaphore),
        1 => which().prop_map(Step::Fast),
        1 => which().prop_map(Step::Mutex),
        1 => (1..3_i64).prop_map(Step::Sleep),
    ]
}

type Program = Vec<Vec<Step>>;

fn program() -> impl Strategy<Value = Program> {
    prop_oneof![
        2 => prop::collection::vec(prop::collection::vec(step(), 2..=3), 2),
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 3),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 4),
    ]
}

/// Threads that serve the queue for one, and do something else meanwhile, and one that gives them what they do.
fn served() -> impl Strategy<Value = Program> {
    let which = || 0..2_usize;
    let wait = || prop_oneof![which().prop_map(Step::Wait), Just(Step::WaitForSemaphore), which().prop_map(Step::Fast)];
    let word = || prop_oneof![which().prop_map(Step::Load), which().prop_map(Step::Store)];
    let server = (prop_oneof![3 => wait(), 2 => word(), 1 => Just(Step::Remove(0)), 1 => which().prop_map(Step::State)])
        .prop_map(|step| vec![Step::Remove(0), step]);
    let wake = || prop_oneof![3 => which().prop_map(Step::Set), 1 => Just(Step::Release)];
    let client = prop::collection::vec(
        prop_oneof![2 => wake(), 2 => word(), 1 => which().prop_map(Step::Fast), 1 => Just(Step::State(0))],
        1..=3,
    );
    let client = (1..=3_usize, client).prop_map(|(entries, steps)| [vec![Step::Insert(0); entries], steps].concat());
    (prop::collection::vec(server, 2..=3), client).prop_map(|(mut servers, client)| {
        servers.push(client);
        servers
    })
}

struct Shared {
    words: Words,
    queues: [Queue; 2],
    entries: Vec<Place<LIST_ENTRY>>,
    events: [Event; 2],
    semaphore: Semaphore,
    fast: FastMutex,
    mutex: Mutex,
}

impl Shared {
    fn new() -> Self {
        Self {
            words: Words::default(),
            // One for one active thread, and one for two.
            queues: [Queue::new(1), Queue::new(2)],
            entries: (0..40).map(|_| Place::zeroed()).collect(),
            events: [Event::synchronization(), Event::notification()],
            semaphore: Semaphore::new(0, 8),
            fast: FastMutex::new(),
            mutex: Mutex::new(),
        }
    }

    fn entry(&self, entry: *mut LIST_ENTRY) -> i64 {
        self.entries.iter().position(|known| known.ptr() == entry).map_or(entry.addr() as i64, |place| place as i64 - 100)
    }

    fn perform(&self, step: Step, place: usize) -> i64 {
        let words = &self.words;
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Insert(which) => self.queues[which].insert(&self.entries[place]).into(),
            Step::Remove(which) => self.entry(self.queues[which].remove()),
            Step::RemoveWithin(which, time) => self.entry(self.queues[which].remove_within(time * MS)),
            Step::State(which) => raw!(KeReadStateQueue(self.queues[which].ptr())).into(),
            Step::Set(which) => self.events[which].set().into(),
            Step::Reset(which) => self.events[which].reset().into(),
            Step::Wait(which) => wait(self.events[which].object()).into(),
            Step::WaitWithin(which, time) => wait_until(self.events[which].object(), -time * MS).into(),
            Step::Release => self.semaphore.release(1).into(),
            Step::WaitForSemaphore => wait(self.semaphore.object()).into(),
            Step::Fast(which) => {
                self.fast.acquire();
                let value = words.double(which);
                self.fast.release();
                value
            }
            Step::Mutex(which) => {
                wait(self.mutex.object());
                let value = words.double(which);
                self.mutex.release();
                value
            }
            Step::Sleep(time) => sleep(time * MS).into(),
        }
    }
}

/// With so many entries that are there from the beginning.
fn run(program: &Program, entries: usize) -> Seen {
    let shared = Shared::new();
    for entry in &shared.entries[6 * program.len()..][..entries] {
        shared.queues[0].insert(entry);
    }
    let results = perform(program, |step, thread, place| shared.perform(step, 6 * thread + place));
    for queue in &shared.queues {
        raw!(KeRundownQueue(queue.ptr()));
    }
    let states = [shared.events[0].state(), shared.events[1].state(), shared.semaphore.state()].map(i64::from);
    (results, shared.words.both().into_iter().chain(states).collect())
}

fn check(program: &Program) {
    compare_if_small(program.len(), SMALL, || run(program, 0));
}

fn check_all(program: &Program, entries: usize) {
    compare(program.len(), || run(program, entries));
}

/// A thread that serves a queue hands its place to another where it waits.
#[test]
fn to_wait_for_something_else_lets_another_be_served() {
    let servers = || [vec![Step::Remove(0), Step::Wait(0)], vec![Step::Remove(0), Step::Store(0)]];
    check_all(&[&servers()[..], &[vec![Step::Load(0), Step::Set(0)]]].concat(), 2);
    check_all(&[&servers()[..], &[vec![Step::Insert(0), Step::Insert(0), Step::Load(0), Step::Set(0)]]].concat(), 0);
}

/// Who is woken takes its place back, and does not give it to what is inserted then: the second thread is served only where the first has begun to wait.
#[test]
fn who_is_woken_takes_its_place_back() {
    let program = vec![
        vec![Step::Remove(0), Step::Wait(1)],
        vec![Step::Remove(0), Step::Store(1)],
        vec![Step::Load(1), Step::Insert(0), Step::State(0)],
        vec![Step::Set(1)],
    ];
    check_all(&program, 2);
}

/// What touches neither the queue, nor what those wait for that serve it, does not depend on them. When operations on a limited queue depended on everything, the first took 12,340 executions, and
/// the second more than 50,000.
#[test]
fn limited_queues_need_few_executions() {
    let servers = || [vec![Step::Remove(0), Step::Wait(0)], vec![Step::Remove(0), Step::Store(0)]];
    let executions = |client: Vec<Step>, entries| {
        let program = [&servers()[..], &[client]].concat();
        search(3, &|| run(&program, entries), Search::Exhaustive, MOST, 1).0.executions()
    };
    assert!(executions(vec![Step::Load(0), Step::Set(0)], 2) <= 25);
    assert!(executions(vec![Step::Insert(0), Step::Insert(0), Step::Load(0), Step::Set(0)], 0) <= 168);
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_limited_queues(program in program()) {
        check(&program);
    }

    #[test]
    fn nothing_is_missed_of_who_serves_a_queue(program in served()) {
        compare_if_small(program.len(), LONG_RUNS, || run(&program, 0));
    }
}
