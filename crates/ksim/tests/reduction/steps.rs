//! Atomics, events, semaphores, locks that one has at a time, what expires, handles, KQUEUEs, DPCs and APCs.

use crate::{MOST, Seen, compare, compare_if_small, config};
use ksync_sys::atomic::{AtomicU32, Ordering};
use ksync_sys::*;
use proptest::prelude::*;
use std::cell::RefCell;
use test_support::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// On one of two atomics.
    Load(usize),
    Store(usize, u32),
    Add(usize),
    /// From one value to another.
    Exchange(usize, u32, u32),
    Set(usize),
    Reset(usize),
    Pulse(usize),
    State(usize),
    Poll(usize),
    Wait(usize),
    Release,
    PollSemaphore,
    /// With one of the two atomics changed under the lock.
    Mutex(usize),
    /// The mutex, with the fast mutex acquired and released meanwhile.
    Nested,
    Fast(usize),
    /// With the other atomic changed to one more than this one, under the fast mutex.
    Move(usize),
    TryFast(usize),
    Spin(usize),
    /// With one of the two atomics read under the lock.
    Share(usize),
    Own(usize),
    TryOwn,
    /// For so many milliseconds.
    SetTimer(usize, i64),
    CancelTimer(usize),
    TimerState(usize),
    WaitForTimer(usize),
    /// For one of the events or one of the timers, and no longer than so many milliseconds.
    WaitWithin(usize, i64),
    WaitForTimerWithin(usize, i64),
    Sleep(i64),
    /// For a millisecond, which moves the clock.
    Stall,
    /// On the second event, by one of two handles.
    SetByHandle(usize),
    ResetByHandle(usize),
    Close(usize),
    /// On one of two KQUEUEs, of which the second has a limit: the entry of the thread's own.
    Insert(usize),
    Remove(usize),
    RemoveWithin(usize, i64),
    QueueState(usize),
    /// One of the DPCs.
    QueueDpc(usize),
    RemoveDpc(usize),
    /// One of two words is changed at DISPATCH_LEVEL.
    Raised(usize),
    /// The spin lock, with a DPC queued while it is held.
    SpinQueue(usize),
    /// One of the timers, with one of the DPCs.
    SetTimerWithDpc(usize, usize, i64),
    /// A special APC of one of the first two threads, or a normal one.
    SpecialApc(usize),
    NormalApc(usize),
    /// One of two words is changed with normal APCs held back, or with all.
    Critical(usize),
    Guarded(usize),
    /// For one of the events; an alert ends it.
    WaitAlertable(usize),
    Alert(usize),
}

/// How many DPCs there are: see [`Dpcs`].
const DPCS: usize = 6;

/// What is done with DPCs.
fn dpc_step() -> impl Strategy<Value = Step> {
    let which = 0..2_usize;
    let dpc = 0..DPCS;
    prop_oneof![
        6 => dpc.clone().prop_map(Step::QueueDpc),
        1 => dpc.clone().prop_map(Step::RemoveDpc),
        1 => which.clone().prop_map(Step::Raised),
        1 => dpc.clone().prop_map(Step::SpinQueue),
        1 => (which, dpc, 1..3_i64).prop_map(|(which, dpc, time)| Step::SetTimerWithDpc(which, dpc, time)),
    ]
}

/// What is done with APCs and alerts.
fn apc_step() -> impl Strategy<Value = Step> {
    let which = 0..2_usize;
    prop_oneof![
        3 => which.clone().prop_map(Step::SpecialApc),
        3 => which.clone().prop_map(Step::NormalApc),
        2 => which.clone().prop_map(Step::Critical),
        1 => which.clone().prop_map(Step::Guarded),
        1 => which.clone().prop_map(Step::WaitAlertable),
        1 => which.prop_map(Step::Alert),
    ]
}

/// What is done by handle, and with KQUEUEs.
fn other_step() -> impl Strategy<Value = Step> {
    let which = 0..2_usize;
    prop_oneof![
        2 => which.clone().prop_map(Step::SetByHandle),
        2 => which.clone().prop_map(Step::ResetByHandle),
        2 => which.clone().prop_map(Step::Close),
        4 => which.clone().prop_map(Step::Insert),
        2 => which.clone().prop_map(Step::Remove),
        1 => (which.clone(), 1..3_i64).prop_map(|(which, time)| Step::RemoveWithin(which, time)),
        1 => which.prop_map(Step::QueueState),
    ]
}

/// What is done with what expires.
fn timed_step() -> impl Strategy<Value = Step> {
    let which = 0..2_usize;
    let time = 1..3_i64;
    prop_oneof![
        4 => (which.clone(), time.clone()).prop_map(|(which, time)| Step::SetTimer(which, time)),
        2 => which.clone().prop_map(Step::CancelTimer),
        2 => which.clone().prop_map(Step::TimerState),
        2 => which.clone().prop_map(Step::WaitForTimer),
        2 => (which.clone(), time.clone()).prop_map(|(which, time)| Step::WaitWithin(which, time)),
        2 => (which, time.clone()).prop_map(|(which, time)| Step::WaitForTimerWithin(which, time)),
        2 => time.prop_map(Step::Sleep),
        2 => Just(Step::Stall),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..2_usize;
    prop_oneof![
        3 => which.clone().prop_map(Step::Load),
        3 => (which.clone(), 1..3_u32).prop_map(|(which, value)| Step::Store(which, value)),
        2 => which.clone().prop_map(Step::Add),
        2 => (which.clone(), 0..2_u32, 1..3_u32).prop_map(|(which, old, new)| Step::Exchange(which, old, new)),
        2 => which.clone().prop_map(Step::Set),
        1 => which.clone().prop_map(Step::Reset),
        1 => which.clone().prop_map(Step::Pulse),
        1 => which.clone().prop_map(Step::State),
        2 => which.clone().prop_map(Step::Poll),
        1 => which.clone().prop_map(Step::Wait),
        1 => Just(Step::Release),
        1 => Just(Step::PollSemaphore),
        2 => which.clone().prop_map(Step::Mutex),
        1 => which.clone().prop_map(Step::Fast),
        1 => which.clone().prop_map(Step::TryFast),
        1 => which.clone().prop_map(Step::Spin),
        1 => which.clone().prop_map(Step::Share),
        1 => which.prop_map(Step::Own),
        1 => Just(Step::TryOwn),
    ]
}

/// What the threads do.
type Program = Vec<Vec<Step>>;

/// With DPCs, which interrupt threads.
fn interrupted() -> impl Strategy<Value = Program> {
    let other = || prop_oneof![2 => dpc_step(), 1 => timed_step(), 1 => other_step()];
    let step = || prop_oneof![1 => step(), 1 => dpc_step()];
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step(), 1..=2), 2),
        2 => prop::collection::vec(prop::collection::vec(other(), 1..=2), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=1), 3),
    ]
}

/// With APCs and alerts.
fn alerted() -> impl Strategy<Value = Program> {
    let step = || prop_oneof![1 => step(), 2 => apc_step()];
    prop::collection::vec(prop::collection::vec(step(), 1..=2), 2)
}

fn program() -> impl Strategy<Value = Program> {
    let other = || prop_oneof![2 => step(), 1 => timed_step(), 3 => other_step()];
    let timed = || prop_oneof![1 => step(), 2 => timed_step()];
    prop_oneof![
        4 => prop::collection::vec(prop::collection::vec(step(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(step(), 1..=1), 3),
        3 => prop::collection::vec(prop::collection::vec(timed(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(timed(), 1..=2), 3),
        3 => prop::collection::vec(prop::collection::vec(other(), 1..=3), 2),
        1 => prop::collection::vec(prop::collection::vec(other(), 1..=1), 3),
    ]
}

/// Longer programs, of fewer kinds of steps: what one context does changes what has happened before others' operations, and not what they are.
fn locks_and_words() -> impl Strategy<Value = Program> {
    let which = 0..2_usize;
    let step = prop_oneof![
        which.clone().prop_map(Step::Load),
        which.clone().prop_map(|which| Step::Store(which, 1)),
        which.clone().prop_map(Step::Fast),
        which.prop_map(Step::Move),
        Just(Step::Nested),
    ];
    prop::collection::vec(prop::collection::vec(step, 2..=3), 3)
}

/// A new event with two handles.
fn event_with_two_handles() -> [HANDLE; 2] {
    let mut handles = [std::ptr::null_mut(); 2];
    let attributes = attributes(OBJ_KERNEL_HANDLE);
    let [first, second] = &mut handles;
    assert_eq!(raw!(ZwCreateEvent(first, EVENT_ALL_ACCESS, &attributes, NotificationEvent, FALSE)), STATUS_SUCCESS);
    let process = -1_isize as HANDLE;
    let same = DUPLICATE_SAME_ACCESS | DUPLICATE_SAME_ATTRIBUTES;
    assert_eq!(raw!(ZwDuplicateObject(process, *first, process, second, 0, 0, same)), STATUS_SUCCESS);
    handles
}

struct Shared {
    words: [AtomicU32; 2],
    /// A synchronization event, and a notification event.
    events: [Event; 2],
    semaphore: Semaphore,
    mutex: Mutex,
    fast: FastMutex,
    spin: SpinLock,
    push: Place<EX_PUSH_LOCK>,
    /// A synchronization timer, and a notification timer.
    timers: [Timer; 2],
    /// Two handles of an event that both mean.
    handles: [HANDLE; 2],
    queues: [Queue; 2],
    entries: Vec<Place<LIST_ENTRY>>,
    all_there: Event,
}

/// A thread, with an APC of each kind.
struct Target<'a> {
    thread: PVOID,
    special: Apc<'a>,
    normal: Apc<'a>,
}

impl<'a> Target<'a> {
    fn new(thread: &Thread, shared: &'a Shared, log: &'a RefCell<Vec<i64>>) -> Self {
        let routine = |which: usize| {
            move || {
                let result = shared.double(which);
                log.borrow_mut().push(100 * which as i64 + result);
            }
        };
        let thread = thread.object();
        Self { thread, special: Apc::special(thread, routine(0)), normal: Apc::normal(thread, routine(1)) }
    }
}

/// What runs by itself.
struct Routines<'a> {
    dpcs: Vec<Dpc<'a>>,
    /// Once all are there.
    targets: RefCell<Vec<Target<'a>>>,
}

impl Shared {
    fn new() -> Self {
        let push = Place::zeroed();
        raw!(ExInitializePushLock(push.ptr()));
        Self {
            words: [AtomicU32::new(0), AtomicU32::new(0)],
            events: [Event::synchronization(), Event::notification()],
            semaphore: Semaphore::new(1, 8),
            mutex: Mutex::new(),
            fast: FastMutex::new(),
            spin: SpinLock::new(),
            push,
            timers: [Timer::synchronization(), Timer::notification()],
            handles: event_with_two_handles(),
            queues: [Queue::new(0), Queue::new(1)],
            entries: (0..12).map(|_| Place::zeroed()).collect(),
            all_there: Event::notification(),
        }
    }

    fn word(&self, which: usize) -> i64 {
        i64::from(self.words[which].load(Ordering::SeqCst))
    }

    fn double(&self, which: usize) -> i64 {
        let value = self.words[which].load(Ordering::SeqCst);
        self.words[which].store(2 * value + 1, Ordering::SeqCst);
        i64::from(value)
    }

    /// Which entry a queue gave.
    fn entry(&self, entry: *mut LIST_ENTRY) -> i64 {
        self.entries.iter().position(|known| known.ptr() == entry).map_or(entry.addr() as i64, |place| place as i64 - 100)
    }

    fn perform(&self, step: Step, place: usize, routines: &Routines<'_>) -> i64 {
        let Routines { dpcs, targets } = routines;
        let targets = targets.borrow();
        match step {
            Step::Load(which) => self.word(which),
            Step::Store(which, value) => {
                self.words[which].store(value, Ordering::SeqCst);
                0
            }
            Step::Add(which) => i64::from(self.words[which].fetch_add(1, Ordering::SeqCst)),
            Step::Exchange(which, old, new) => {
                let result = self.words[which].compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst);
                i64::from(result.unwrap_or_else(|seen| seen + 100))
            }
            Step::Set(which) => self.events[which].set().into(),
            Step::Reset(which) => self.events[which].reset().into(),
            Step::Pulse(which) => self.events[which].pulse().into(),
            Step::State(which) => self.events[which].state().into(),
            Step::Poll(which) => poll(self.events[which].object()).into(),
            Step::Wait(which) => wait(self.events[which].object()).into(),
            Step::Release => self.semaphore.release(1).into(),
            Step::PollSemaphore => poll(self.semaphore.object()).into(),
            Step::Mutex(which) => {
                wait(self.mutex.object());
                let value = self.double(which);
                self.mutex.release();
                value
            }
            Step::Nested => {
                wait(self.mutex.object());
                self.fast.acquire();
                self.fast.release();
                self.mutex.release();
                0
            }
            Step::Fast(which) => {
                self.fast.acquire();
                let value = self.double(which);
                self.fast.release();
                value
            }
            Step::Move(which) => {
                self.fast.acquire();
                let value = self.words[which].load(Ordering::SeqCst);
                self.words[1 - which].store(value + 1, Ordering::SeqCst);
                self.fast.release();
                value.into()
            }
            Step::TryFast(which) => {
                if !self.fast.try_acquire() {
                    return -1;
                }
                let value = self.word(which);
                self.fast.release();
                value
            }
            Step::Spin(which) => self.spin.with(|| self.word(which)),
            Step::Share(which) => {
                raw!(KeEnterCriticalRegion());
                raw!(ExAcquirePushLockSharedEx(self.push.ptr(), 0));
                let value = self.word(which);
                raw!(ExReleasePushLockSharedEx(self.push.ptr(), 0));
                raw!(KeLeaveCriticalRegion());
                value
            }
            Step::Own(which) => {
                raw!(KeEnterCriticalRegion());
                raw!(ExAcquirePushLockExclusiveEx(self.push.ptr(), 0));
                let value = self.double(which);
                raw!(ExReleasePushLockExclusiveEx(self.push.ptr(), 0));
                raw!(KeLeaveCriticalRegion());
                value
            }
            Step::TryOwn => {
                raw!(KeEnterCriticalRegion());
                let got = raw!(ExTryAcquirePushLockExclusiveEx(self.push.ptr(), 0)) != 0;
                if got {
                    raw!(ExReleasePushLockExclusiveEx(self.push.ptr(), 0));
                }
                raw!(KeLeaveCriticalRegion());
                got.into()
            }
            Step::SetTimer(which, time) => self.timers[which].set(-time * MS).into(),
            Step::CancelTimer(which) => self.timers[which].cancel().into(),
            Step::TimerState(which) => self.timers[which].state().into(),
            Step::WaitForTimer(which) => wait(self.timers[which].object()).into(),
            Step::WaitWithin(which, time) => wait_until(self.events[which].object(), -time * MS).into(),
            Step::WaitForTimerWithin(which, time) => wait_until(self.timers[which].object(), -time * MS).into(),
            Step::Sleep(time) => sleep(time * MS).into(),
            Step::Stall => {
                raw!(KeStallExecutionProcessor(1_000));
                0
            }
            Step::SetByHandle(which) => {
                let mut state = 0;
                let status = raw!(ZwSetEvent(self.handles[which], &mut state));
                i64::from(status) << 32 | i64::from(state)
            }
            Step::ResetByHandle(which) => {
                let mut state = 0;
                let status = raw!(ZwResetEvent(self.handles[which], &mut state));
                i64::from(status) << 32 | i64::from(state)
            }
            Step::Close(which) => raw!(ZwClose(self.handles[which])).into(),
            Step::Insert(which) => self.queues[which].insert(&self.entries[place]).into(),
            Step::Remove(which) => self.entry(self.queues[which].remove()),
            Step::RemoveWithin(which, time) => self.entry(self.queues[which].remove_within(time * MS)),
            Step::QueueState(which) => raw!(KeReadStateQueue(self.queues[which].ptr())).into(),
            Step::QueueDpc(which) => dpcs[which].queue().into(),
            Step::RemoveDpc(which) => dpcs[which].remove().into(),
            Step::SetTimerWithDpc(which, dpc, time) => self.timers[which].set_with(-time * MS, 0, dpcs[dpc].ptr()).into(),
            Step::SpecialApc(which) => targets[which].special.insert().into(),
            Step::NormalApc(which) => targets[which].normal.insert().into(),
            Step::Critical(which) => {
                raw!(KeEnterCriticalRegion());
                let value = self.double(which);
                raw!(KeLeaveCriticalRegion());
                value
            }
            Step::Guarded(which) => {
                raw!(KeEnterGuardedRegion());
                let value = self.double(which);
                raw!(KeLeaveGuardedRegion());
                value
            }
            Step::WaitAlertable(which) => {
                let event = self.events[which].object();
                raw!(KeWaitForSingleObject(event, Executive, KernelMode, TRUE, std::ptr::null_mut())).into()
            }
            Step::Alert(which) => raw!(KeAlertThread(targets[which].thread.cast(), KernelMode)).into(),
            Step::Raised(which) => at(DISPATCH_LEVEL, || self.double(which)),
            Step::SpinQueue(which) => self.spin.with(|| dpcs[which].queue()).into(),
        }
    }
}

/// The DPCs, and what those of each processor saw: processor 1 is the first thread's, 2 the second's.
fn dpcs<'a>(shared: &'a Shared, logs: &'a [RefCell<Vec<i64>>; 4]) -> Vec<Dpc<'a>> {
    let dpc = |number: i64, routine: fn(&Shared) -> i64| {
        Dpc::new(move || {
            let result = routine(shared);
            logs[raw!(KeGetCurrentProcessorNumberEx(std::ptr::null_mut())) as usize].borrow_mut().push(1000 * number + result);
        })
    };
    vec![
        dpc(1, |shared| shared.double(0)),
        dpc(2, |shared| shared.double(0)).importance(HighImportance).on(1),
        dpc(3, |shared| shared.double(1)).on(2),
        dpc(4, |shared| shared.word(0)).importance(LowImportance),
        dpc(5, |shared| shared.events[1].set().into()).on(1),
        dpc(6, |shared| shared.spin.with(|| shared.double(1))).importance(MediumHighImportance).on(2),
    ]
}

fn run(program: &Program) -> Seen {
    let shared = Shared::new();
    let logs = Default::default();
    let apc_logs: [RefCell<Vec<i64>>; 3] = Default::default();
    let routines = Routines { dpcs: dpcs(&shared, &logs), targets: RefCell::default() };
    let uses_dpcs =
        program.iter().flatten().any(|step| matches!(step, Step::QueueDpc(_) | Step::SpinQueue(_) | Step::SetTimerWithDpc(..)));
    let uses_apcs =
        program.iter().flatten().any(|step| matches!(step, Step::SpecialApc(_) | Step::NormalApc(_) | Step::Alert(_)));
    let results: Vec<RefCell<Vec<i64>>> = program.iter().map(|_| RefCell::default()).collect();
    let threads: Vec<_> = program
        .iter()
        .zip(&results)
        .enumerate()
        .map(|(thread, (steps, results))| {
            let (shared, routines) = (&shared, &routines);
            spawn(move || {
                if uses_apcs {
                    leave_start_region();
                    wait(shared.all_there.object());
                }
                for (place, &step) in steps.iter().enumerate() {
                    let result = shared.perform(step, 3 * thread + place, routines);
                    results.borrow_mut().push(result);
                }
                if uses_apcs {
                    enter_start_region();
                }
            })
        })
        .collect();
    if uses_apcs {
        *routines.targets.borrow_mut() =
            threads.iter().zip(&apc_logs).map(|(thread, log)| Target::new(thread, &shared, log)).collect();
        shared.all_there.set();
    }
    join_all(threads);
    let timers = shared.timers.each_ref().map(|timer| [timer.state(), timer.cancel()]);
    if uses_dpcs {
        flush_dpcs();
    }
    drop(routines);
    let states = [shared.events[0].state(), shared.events[1].state(), shared.semaphore.state()].map(i64::from);
    let states = states.into_iter().chain(timers.into_iter().flatten().map(i64::from));
    for queue in &shared.queues {
        raw!(KeRundownQueue(queue.ptr()));
    }
    let end = [shared.word(0), shared.word(1)]
        .into_iter()
        .chain(states)
        .chain(logs.into_iter().chain(apc_logs).flat_map(RefCell::into_inner))
        .collect();
    (results.into_iter().map(RefCell::into_inner).collect(), end)
}

proptest! {
    #![proptest_config(config())]
    #[test]
    fn nothing_is_missed(program in program()) {
        compare(program.len(), || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_dpcs(program in interrupted()) {
        compare_if_small(program.len(), MOST, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_apcs(program in alerted()) {
        compare(program.len(), || run(&program));
    }

    #[test]
    fn nothing_is_missed_in_longer_programs(program in locks_and_words()) {
        compare(program.len(), || run(&program));
    }
}

fn check(program: &Program) {
    compare(program.len(), || run(program));
}

/// The fast mutex is acquired after different things have happened before, and is the same one.
#[test]
fn an_object_is_the_same_whatever_has_happened_before() {
    check(&vec![
        vec![Step::Store(0, 1), Step::Nested],
        vec![Step::Store(0, 2), Step::Move(1), Step::Store(1, 2)],
        vec![Step::Load(1), Step::Nested],
    ]);
    check(&vec![
        vec![Step::Load(1), Step::Fast(0)],
        vec![Step::Load(0), Step::Load(0)],
        vec![Step::Load(0), Step::Store(1, 1), Step::Fast(0)],
    ]);
}

/// While all others wait, who waits for a write goes on, and what comes then is looked at.
#[test]
fn who_waits_for_a_write_is_not_stuck() {
    check(&vec![vec![Step::Load(0), Step::Load(0), Step::Set(0), Step::Load(1)], vec![Step::Wait(0), Step::Store(1, 1)]]);
}

/// The processor that a timer expires on is the one that it was set on, whichever acted last.
#[test]
fn a_timer_expires_on_its_processor() {
    check(&vec![vec![Step::SetTimerWithDpc(0, 2, 2), Step::Stall], vec![Step::WaitForTimerWithin(0, 1), Step::Raised(1)]]);
}
