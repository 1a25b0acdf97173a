//! Rules that are off: a run that breaks one goes on, or ends early as no failure.

use ksim::explore::{Exploration, Explore, Strategy, TokenError};
use ksim::{End, FaultKind, Machine, RuleId, WhenOff, explore};
use ksync_sys::*;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use test_support::*;

fn off(rule: RuleId) -> Machine {
    Machine::new().check_rule(rule, false)
}

fn jobs(jobs: usize) -> NonZeroUsize {
    NonZeroUsize::new(jobs).unwrap()
}

/// How many schedules ended early, by the names of the rules.
fn allowed(search: &Exploration) -> Vec<(&'static str, u64)> {
    search.allowed().map(|(rule, schedules)| (rule.name, schedules)).collect()
}

/// A spin lock is acquired by who holds it, from which nothing can go on.
fn recursion() {
    let lock = SpinLock::new();
    lock.acquire();
    lock.acquire();
}

/// A drop that must not happen where a machine is abandoned.
struct Loud;

impl Drop for Loud {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[test]
fn each_rule_can_be_off_and_all_at_once() {
    for rule in ksim::rules() {
        off(rule.id).run(|| {}).expect_completed().expect_clean();
    }
    let none = ksim::rules().fold(Machine::new(), |machine, rule| machine.check_rule(rule.id, false));
    none.run(|| join_all([spawn(|| {}), spawn(|| {})])).expect_completed().expect_clean();
    assert_eq!(none.run(recursion).allowed().map(|rule| rule.id), Some(RuleId::SpinLock));
    // And on again.
    assert!(none.check_rule(RuleId::SpinLock, true).run(recursion).is_failure());
}

#[test]
fn a_run_that_ends_early_is_no_failure_and_not_complete() {
    let program = || {
        let _loud = Loud;
        allocate(24);
        let timer = Timer::notification();
        timer.set(-MS);
        let event = Event::notification();
        let _thread = spawn(|| {
            wait(event.object());
        });
        recursion();
    };
    assert!(Machine::new().run(program).is_failure());
    let outcome = off(RuleId::SpinLock).run(program);
    assert!(!outcome.is_failure() && !outcome.is_completed(), "{outcome}");
    assert_eq!(outcome.allowed().map(|rule| (rule.name, rule.when_off)), Some(("SpinLock", WhenOff::EndsRun)));
    // It is not found where failures are looked for, and is there for who looks.
    assert!(outcome.bug_check().is_none() && outcome.panic().is_none() && outcome.deadlock().is_none());
    let End::Allowed { breach, .. } = outcome.end() else { panic!("{outcome}") };
    let End::BugCheck(stop) = &**breach else { panic!("{outcome}") };
    assert_eq!((stop.code, stop.routine), (0xf, Some("KeAcquireSpinLockRaiseToDpc")), "{outcome}");
    assert!(stop.call_sites.iter().any(|site| site.function.contains("recursion")), "{outcome}");

    let report = outcome.report().to_string();
    let first = "ended early, at a breach of rule SpinLock, which is off: what comes behind it was not run\n*** STOP 0xf ";
    assert!(report.starts_with(first) && !report.contains("left behind"), "{report}");
    assert!(outcome.to_string().starts_with(first), "{outcome}");
    let json = outcome.report().to_json();
    assert_eq!((&json["end"], &json["bug_check"], &json["deadlock"]), (&"allowed".into(), &().into(), &().into()));
    assert_eq!(json["allowed"]["rule"]["name"], "SpinLock");
    assert_eq!((&json["allowed"]["end"], &json["allowed"]["bug_check"]["code"]), (&"bug_check".into(), &0xf.into()));

    let outcome = outcome.expect_clean();
    let incomplete = catch_unwind(AssertUnwindSafe(|| outcome.expect_completed()));
    assert!(incomplete.is_err(), "a run that ended early has not completed");
}

#[test]
fn a_deadlock_can_be_allowed() {
    let program = || {
        wait(Event::notification().object());
    };
    let End::Allowed { rule, breach, .. } = off(RuleId::Deadlock).run(program).expect_clean().end().clone() else {
        panic!("it waits for ever")
    };
    let End::Deadlock(graph) = *breach else { panic!("{breach}") };
    assert_eq!((rule.name, graph.threads.len()), ("Deadlock", 1));
    assert!(off(RuleId::SelfDeadlock).run(program).is_failure());
}

#[test]
fn what_is_left_is_of_five_rules() {
    use RuleId::{ObjectsLeft, PoolLeft, TickRequestsLeft, TimersLeft, UsesLeft};
    let program = || {
        allocate(24);
        let timer = allocate(size_of::<KTIMER>()).cast();
        raw!(KeInitializeTimer(timer));
        raw!(KeSetTimer(timer, -1_000_000_000, null_mut()));
        let mut handle = null_mut();
        raw!(ZwCreateEvent(&mut handle, 0x1f_0003, null(), NotificationEvent, 0));
        raw!(ExSetTimerResolution(10_000, 1));
        let rundown = allocate(size_of::<EX_RUNDOWN_REF>()).cast();
        raw!(ExInitializeRundownProtection(rundown));
        raw!(ExAcquireRundownProtection(rundown));
    };
    let left = |machine: Machine| {
        let outcome = machine.run(program).expect_completed();
        let left = outcome.left();
        assert_eq!(left.is_empty(), !outcome.is_failure());
        [left.pool.len(), left.timers.len(), left.objects.len() + left.handles, left.tick_requests, left.uses.len()]
            .map(|n| n > 0)
    };
    assert_eq!(left(Machine::new()), [true; 5]);
    let rules = [PoolLeft, TimersLeft, ObjectsLeft, TickRequestsLeft, UsesLeft];
    for (place, rule) in rules.into_iter().enumerate() {
        assert_eq!(left(off(rule)), std::array::from_fn(|part| part != place), "{rule:?}");
    }
    assert_eq!(left(rules.into_iter().fold(Machine::new(), |machine, rule| machine.check_rule(rule, false))), [false; 5]);
}

#[test]
fn bad_handles_have_a_status() {
    let reference = |handle: HANDLE, mode: KPROCESSOR_MODE| {
        let mut object = null_mut();
        let status = raw!(ObReferenceObjectByHandle(handle, 0, null_mut(), mode, &mut object, null_mut()));
        if status == STATUS_SUCCESS {
            raw!(ObfDereferenceObject(object));
        }
        status
    };
    off(RuleId::BadHandle)
        .run(|| assert_eq!(reference(0x1234 as HANDLE, KernelMode), STATUS_INVALID_HANDLE))
        .expect_completed()
        .expect_clean();
    off(RuleId::NullHandle)
        .run(|| assert_eq!(reference(null_mut(), KernelMode), STATUS_INVALID_HANDLE))
        .expect_completed()
        .expect_clean();
    let open = |flags: u32| {
        let mut handle = null_mut();
        let thread = current_thread();
        raw!(ObOpenObjectByPointer(thread, flags, null_mut(), 0, null_mut(), KernelMode, &mut handle));
        handle
    };
    off(RuleId::UserHandle)
        .run(|| {
            let process = ksim::create_process();
            ksim::in_process(process, || {
                let handle = open(0);
                assert_eq!(reference(handle, KernelMode), STATUS_SUCCESS);
                raw!(ZwClose(handle));
            });
        })
        .expect_completed()
        .expect_clean();
    off(RuleId::KernelHandle)
        .run(|| {
            let handle = open(OBJ_KERNEL_HANDLE);
            assert_eq!(reference(handle, UserMode), STATUS_INVALID_HANDLE);
            raw!(ZwClose(handle));
        })
        .expect_completed()
        .expect_clean();
}

/// What is no rule of the kernel's stays a failure, whatever is off.
#[test]
fn what_is_no_rule_cannot_be_allowed() {
    let none = ksim::rules().fold(Machine::new(), |machine, rule| machine.check_rule(rule.id, false)).step_limit(1_000);
    assert!(none.run(|| panic!("on purpose")).is_failure());
    // Also with the number of a rule, and of one that is off by default.
    assert!(none.run(|| raw!(KeBugCheck(0xf))).is_failure());
    let outcome = Machine::new().run(|| raw!(KeBugCheckEx(0x93, 1, 2, 3, 4)));
    assert!(outcome.is_failure() && outcome.expect_bug_check(0x93).rule().is_none());
    let endless = none.run(|| {
        let (one, two) = (Event::notification(), Event::notification());
        join_all([&one, &two].map(|event| {
            spawn(|| {
                loop {
                    event.set();
                }
            })
        }));
    });
    assert!(matches!(endless.end(), End::StepLimit(1_000)) && endless.is_failure(), "{endless}");
}

/// Does something else in each run.
fn unsteady() -> impl Fn() + Sync {
    let runs = AtomicU32::new(0);
    move || raw!(KeStallExecutionProcessor(1 + runs.fetch_add(1, Ordering::Relaxed)))
}

#[test]
fn repetition_is_a_rule() {
    let panics = |code: &dyn Fn()| catch_unwind(AssertUnwindSafe(code)).is_err();
    let search = || explore().schedules(20).progress(false);
    for strategy in [Strategy::Portfolio, Strategy::Exhaustive, Strategy::Bounded { preemptions: 1 }] {
        assert!(panics(&|| drop(search().strategy(strategy).check(unsteady()))), "{strategy:?}");
        search().strategy(strategy).machine(off(RuleId::Repetition)).check(unsteady()).expect_clean();
    }
    assert!(panics(&|| drop(Machine::new().run_twice(unsteady()))));
    off(RuleId::Repetition).run_twice(unsteady()).expect_completed().expect_clean();
}

/// A run that ends early is compared with its repetition as others are, but for the addresses of its breach.
#[test]
fn a_run_that_ends_early_is_repeated() {
    let machine = || off(RuleId::SpinLock);
    let unsteady = unsteady();
    let wrong = || {
        unsteady();
        recursion();
    };
    let refused = catch_unwind(AssertUnwindSafe(|| drop(explore().machine(machine()).progress(false).check(wrong))));
    let message = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("not deterministic"), "{message}");
    // Another address each time.
    let kept = std::sync::Mutex::new(Vec::new());
    let moving = || {
        let lock = Box::new(std::cell::UnsafeCell::new(0));
        raw!(KeInitializeSpinLock(lock.get()));
        raw!(KeAcquireSpinLockRaiseToDpc(lock.get()));
        let again = lock.get();
        kept.lock().unwrap().push(again as usize);
        raw!(KeAcquireSpinLockRaiseToDpc(again));
        drop(lock);
    };
    assert_eq!(machine().run_twice(moving).allowed().map(|rule| rule.id), Some(RuleId::SpinLock));
    let addresses = kept.lock().unwrap().clone();
    assert_ne!(addresses[0], addresses[1], "what a run that ended early had is not freed");
}

/// Two threads that set events of their own, so that there are six orders. In some the main thread comes to a breach, in others to a panic, if asked for.
fn orders(panics: bool) {
    let (one, two, after) = (Event::notification(), Event::notification(), Event::notification());
    let threads = [
        spawn(|| {
            one.set();
            if two.state() == 0 {
                recursion();
            }
        }),
        spawn(|| {
            two.set();
            assert!(!panics || one.state() != 0, "another bug");
            after.set();
        }),
    ];
    join_all(threads);
}

fn search(strategy: Strategy) -> Explore {
    let search = explore().machine(off(RuleId::SpinLock).processors(3)).strategy(strategy).progress(false);
    // The others come to an end by themselves.
    if matches!(strategy, Strategy::Exhaustive | Strategy::Bounded { .. }) { search } else { search.schedules(600) }
}

const STRATEGIES: [Strategy; 5] = [
    Strategy::Portfolio,
    Strategy::Random,
    Strategy::Exhaustive,
    Strategy::Bounded { preemptions: 1 },
    Strategy::Pct { depth: 3 },
];

#[test]
fn a_search_counts_what_ended_early_and_is_not_complete() {
    for strategy in STRATEGIES {
        let one = search(strategy).jobs(jobs(1)).check(|| orders(false));
        let [(name, early)] = allowed(one.expect_clean())[..] else { panic!("{strategy:?}: {one}") };
        assert!(name == "SpinLock" && 0 < early && early < one.executions(), "{strategy:?}: {one}");
        assert!(!one.is_exhausted(), "{strategy:?}: {one}");
        let text = one.to_string();
        let said = format!("\nincomplete: {early} ended early, at breaches of rules that are off (SpinLock {early})");
        assert!(text.contains(&said) && !text.contains("all there are"), "{text}");
        for more in [2, 3] {
            let all = search(strategy).jobs(jobs(more)).check(|| orders(false));
            let told = |search: &Exploration| (search.executions(), search.distinct(), allowed(search));
            assert_eq!(told(&all), told(&one), "{strategy:?} on {more} OS threads");
        }
        let parts = [0, 1, 2].map(|part| search(strategy).shard(part, 3).check(|| orders(false)));
        let sum: u64 = parts.iter().flat_map(allowed).map(|(_, schedules)| schedules).sum();
        assert_eq!(sum, early, "{strategy:?} in three parts");
    }
    // Nothing ends early where the rule is on, or nothing breaks it.
    let rule_on = explore().processors(3).strategy(Strategy::Exhaustive).progress(false);
    assert!(rule_on.clone().check(|| orders(false)).failure().is_some());
    let whole = search(Strategy::Exhaustive).check(|| join_all([spawn(|| {}), spawn(|| {})]));
    assert!(whole.is_exhausted() && allowed(&whole).is_empty(), "{whole}");
}

/// The other bug is found, is not made smaller into what is allowed, and its token repeats it.
#[test]
fn another_bug_is_found() {
    for strategy in STRATEGIES {
        let found = [1, 2].map(|number| search(strategy).jobs(jobs(number)).check(|| orders(true)));
        let [one, two] = found.each_ref().map(Exploration::expect_failure);
        assert!(one.outcome.panic().is_some_and(|panic| panic.message.contains("another bug")), "{one}");
        assert_eq!(one.token, two.token, "{strategy:?}");
        let again = search(strategy).replay(&one.token, || orders(true)).unwrap();
        assert_eq!(again.expect_failure().outcome.trace(), one.outcome.trace());
        assert!(allowed(&again).is_empty());
    }
}

/// A token that stands for a breach which is allowed now.
#[test]
fn a_token_leads_to_what_is_allowed() {
    let on = || explore().processors(3).progress(false);
    let found = on().check(|| orders(false));
    let token = &found.expect_failure().token;
    let program = || orders(false);
    let replayed = on().machine(off(RuleId::SpinLock).processors(3)).program_name("orders").replay(token, program);
    // By another name that would be an error, as it does not fail.
    assert!(matches!(replayed, Err(TokenError::Program { .. })), "{replayed:?}");
    let named = || on().program_name("orders");
    let token = named().check(program).expect_failure().token.clone();
    let again = named().machine(off(RuleId::SpinLock).processors(3)).replay(&token, program).unwrap();
    assert_eq!((again.failures(), allowed(&again)), (0, vec![("SpinLock", 1)]));
}

/// Breaches that a fault leads to are counted over all searches.
#[test]
fn faults_may_lead_to_what_is_allowed() {
    let program = || {
        for _ in 0..3 {
            let memory = allocate(8);
            if memory.is_null() {
                recursion();
            }
            free(memory);
        }
    };
    let search = explore().machine(off(RuleId::SpinLock)).schedules(5).faults([FaultKind::Allocation]).progress(false);
    let search = search.check(program);
    // Without a fault, and with each of the three.
    assert_eq!((search.expect_clean().executions(), allowed(&search)), (20, vec![("SpinLock", 15)]));
    assert_eq!(off(RuleId::SpinLock).run_with_faults(&[FaultKind::Allocation], program).unwrap(), 4);
    assert!(Machine::new().run_with_faults(&[FaultKind::Allocation], program).is_err());
}

/// What holds a global lock where its run ends early leaves it free for the next.
#[test]
fn statics_are_free_again() {
    struct Word(std::cell::UnsafeCell<usize>);
    // SAFETY: it is used by the kernel's routines only, of one machine at a time.
    unsafe impl Sync for Word {}
    static LOCK: Word = Word(std::cell::UnsafeCell::new(0));
    let search = search(Strategy::Random).jobs(jobs(2)).schedules(50).check(|| {
        raw!(KeAcquireSpinLockRaiseToDpc(LOCK.0.get()));
        recursion();
    });
    assert_eq!(allowed(&search), [("SpinLock", 50)]);
}

/// The runs of an exhaustive search that OS threads share, some of which end early, are those of one.
#[test]
fn an_exhaustive_search_counts_the_same_on_all_os_threads() {
    let program = || {
        let (lock, turns, first) = (FastMutex::new(), Cell::new(0), Cell::new(0));
        let count = |number: u32| {
            for _ in 0..4 {
                lock.acquire();
                if turns.get() == 0 {
                    first.set(number);
                }
                turns.set(turns.get() + 1);
                // In some orders, who has the fifth turn had the first.
                let breaks = turns.get() == 5 && first.get() == number;
                lock.release();
                if breaks {
                    recursion();
                }
            }
        };
        join_all([spawn(|| count(1)), spawn(|| count(2))]);
    };
    let one = search(Strategy::Exhaustive).jobs(jobs(1)).check(program);
    let early = one.expect_clean().allowed().map(|(_, schedules)| schedules).sum::<u64>();
    assert!(one.executions() > 40 && 0 < early && early < one.executions() && !one.is_exhausted(), "{one}");
    for more in [2, 4] {
        let all = search(Strategy::Exhaustive).jobs(jobs(more)).check(program);
        assert_eq!((all.executions(), all.distinct(), allowed(&all)), (one.executions(), one.distinct(), allowed(&one)));
    }
    // A limit counts those below it.
    let few = search(Strategy::Exhaustive).schedules(one.executions() / 2).check(program);
    let some: u64 = few.allowed().map(|(_, schedules)| schedules).sum();
    assert!(few.executions() == one.executions() / 2 && some < early, "{few}");
}

/// The order of locks has two switches, of which the last that is set counts.
#[test]
fn the_last_word_on_the_order_of_locks_counts() {
    let opposite = || {
        let (one, two) = (FastMutex::new(), FastMutex::new());
        for locks in [[&one, &two], [&two, &one]] {
            spawn(|| {
                locks.iter().for_each(|lock| lock.acquire());
                locks.iter().rev().for_each(|lock| lock.release());
            })
            .join();
        }
    };
    let breach = |machine: Machine| machine.run(opposite).bug_check().and_then(|stop| stop.rule()).map(|rule| rule.name);
    assert_eq!(breach(off(RuleId::LockOrder).check_lock_order(true)), Some("LockOrder"));
    let last_off = Machine::new().check_lock_order(true).check_rule(RuleId::LockOrder, false);
    last_off.run(opposite).expect_completed().expect_clean();
}
