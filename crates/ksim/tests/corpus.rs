//! Classic mistakes, each in a small driver: the check that must catch it, in how many schedules at most, and the driver without the mistake, which
//! must pass the same search. `docs/corpus.md` is made from this.

#[path = "corpus/dpcs.rs"]
mod dpcs;
#[path = "corpus/locks.rs"]
mod locks;
#[path = "corpus/memory.rs"]
mod memory;
#[path = "corpus/objects.rs"]
mod objects;
#[path = "corpus/requests.rs"]
mod requests;
#[path = "corpus/waits.rs"]
mod waits;

use ksim::explore::{Exploration, Explore};
use ksim::{End, FaultKind, Machine, Outcome, RuleId, WhenOff, explore};

/// What catches a mistake.
#[derive(Clone, Copy, Debug)]
enum Caught {
    /// The rule of this name.
    By(&'static str),
    Deadlock,
    /// What is left behind.
    Left,
    /// A panic of the driver, which the search led it to.
    Panic,
}

/// One mistake.
struct Case {
    name: &'static str,
    mistake: &'static str,
    /// The driver, with the mistake or without.
    code: fn(bool),
    caught: Caught,
    /// In how many schedules at most.
    within: u64,
    processors: u8,
    machine: fn(Machine) -> Machine,
    faults: &'static [FaultKind],
    /// What catches it is there on hosts where accesses are caught.
    by_access: bool,
}

/// A mistake that the first run shows, on one processor.
const fn always(name: &'static str, mistake: &'static str, caught: Caught, code: fn(bool)) -> Case {
    Case { name, mistake, code, caught, within: 1, processors: 1, machine: |machine| machine, faults: &[], by_access: false }
}

/// A mistake that some schedules show.
const fn sometimes(name: &'static str, mistake: &'static str, caught: Caught, within: u64, code: fn(bool)) -> Case {
    Case { within, processors: 2, ..always(name, mistake, caught, code) }
}

/// The same, on a machine with other settings.
const fn with(machine: fn(Machine) -> Machine, case: Case) -> Case {
    Case { machine, ..case }
}

/// The same, where something fails that hardly ever does.
const fn under(faults: &'static [FaultKind], case: Case) -> Case {
    Case { faults, ..case }
}

/// The same, where it is an access that is caught.
const fn by_access(case: Case) -> Case {
    Case { by_access: true, ..case }
}

const AREAS: [(&str, &[Case]); 6] = [
    ("Locks", locks::CASES),
    ("Waits", waits::CASES),
    ("DPCs, timers, unload", dpcs::CASES),
    ("Memory", memory::CASES),
    ("Objects, handles, references", objects::CASES),
    ("Requests, timers and interrupts of devices", requests::CASES),
];

/// How many schedules of a driver without its mistake are run at least.
const CLEAN: u64 = 100;

impl Case {
    fn search(&self) -> Explore {
        let machine = (self.machine)(Machine::new().processors(self.processors));
        explore().machine(machine).faults(self.faults.iter().copied()).progress(false)
    }

    fn is_for_this_host(&self) -> bool {
        !self.by_access || cfg!(all(target_os = "linux", target_arch = "x86_64"))
    }

    fn caught(&self, outcome: &Outcome) -> bool {
        match (self.caught, outcome.end()) {
            (Caught::By(rule), End::BugCheck(stop)) => stop.rule().is_some_and(|found| found.name == rule),
            (Caught::Deadlock, End::Deadlock(_)) | (Caught::Panic, End::Panic(_)) => true,
            (Caught::Left, End::Completed) => !outcome.left().is_empty(),
            _ => false,
        }
    }

    /// What is wrong about the checks, if anything.
    fn problem(&self) -> Option<String> {
        if !self.is_for_this_host() {
            return None;
        }
        let code = self.code;
        let exploration = self.search().schedules(self.within).check(move || code(true));
        let Some(failure) = exploration.failure() else {
            return Some(format!("{}: not caught in {} schedules", self.name, self.within));
        };
        if !self.caught(&failure.outcome) {
            return Some(format!("{}: expected {:?}, but: {failure}", self.name, self.caught));
        }
        let fixed = self.search().schedules(self.within.max(CLEAN)).check(move || code(false));
        fixed.failure().map(|failure| format!("{}, without the mistake: {failure}", self.name))
    }
}

#[track_caller]
fn check(area: &str) {
    let (_, cases) = AREAS.into_iter().find(|(name, _)| *name == area).expect("an area");
    let problems: Vec<_> = cases.iter().filter_map(Case::problem).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

#[test]
fn mistakes_with_locks() {
    check("Locks");
}

#[test]
fn mistakes_with_waits() {
    check("Waits");
}

#[test]
fn mistakes_with_dpcs_and_timers() {
    check("DPCs, timers, unload");
}

#[test]
fn mistakes_with_memory() {
    check("Memory");
}

#[test]
fn mistakes_with_objects() {
    check("Objects, handles, references");
}

#[test]
fn mistakes_with_requests() {
    check("Requests, timers and interrupts of devices");
}

#[test]
fn rules_and_names_exist_once() {
    let cases = || AREAS.iter().flat_map(|(_, cases)| *cases);
    for case in cases() {
        if let Caught::By(rule) = case.caught {
            assert!(ksim::rules().any(|known| known.name == rule), "{}: there is no rule {rule}", case.name);
        }
        assert_eq!(cases().filter(|other| other.name == case.name).count(), 1, "{}", case.name);
    }
    assert!(cases().count() >= 40);
}

/// The document, from the cases.
fn document() -> String {
    let mut text = String::from(
        "# The corpus of mistakes\n\n\
         Small drivers with one classic mistake each, from `crates/ksim/tests/corpus/`: what catches it, and in how many schedules of a search at most. A mistake that is\n\
         caught in 1 needs no search. The same driver without the mistake passes the same search, of 100 schedules at least.\n\n\
         This file is made from the tests (`KSIM_UPDATE=1 cargo test -p ksim --test corpus`), and a test keeps it so.\n",
    );
    for (area, cases) in AREAS {
        text += &format!("\n## {area}\n\n| Case | Mistake | Caught by | Schedules |\n|---|---|---|---|\n");
        for case in cases {
            let caught = match case.caught {
                Caught::By(name) => {
                    let rule = ksim::rules().find(|rule| rule.name == name).expect("checked by another test");
                    let code = rule.code.expect("what is left and deadlocks have kinds of their own");
                    match rule.first_parameter {
                        Some(parameter) => format!("[{name}]({}) ({code:#x}, {parameter:#x})", rule.page()),
                        None => format!("[{name}]({}) ({code:#x})", rule.page()),
                    }
                }
                Caught::Deadlock => "deadlock, with its wait graph".to_owned(),
                Caught::Left => "what is left behind".to_owned(),
                Caught::Panic => "a panic of the driver".to_owned(),
            };
            let faults = if case.faults.is_empty() { "" } else { " for each fault" };
            text += &format!("| `{}` | {} | {caught} | {}{faults} |\n", case.name, case.mistake, case.within);
        }
    }
    let count: usize = AREAS.iter().map(|(_, cases)| cases.len()).sum();
    text + &format!("\n{count} mistakes.\n")
}

/// The table of rules, from the rules.
fn table_of_rules() -> String {
    let mut text = String::from(
        "# The rules that every run is checked against\n\n\
         `ksim::rules()` is this table; `Machine::check_rule` turns each on and off. Where one is off, a run that breaks it goes on, or ends there as no failure: the last column says which, and\n\
         [Rules that are off](simulator.md#rules-that-are-off) what that means. Names and codes are those of Driver Verifier, Static Driver Verifier and NT's bug\n\
         checks; what has no code is not reported as a bug check. A first parameter from 0x6b730001 up is not NT's but this kernel's own. \"DDI compliance\" is the number of Driver Verifier's DDI compliance checking, which is\n\
         the parameter 1 unless another check sees the breach first. The order of locks has a [setting](../crates/ksim/src/check/lock_order.rs) of its own,\n\
         `Machine::check_lock_order`; by default it does not follow spin locks and push locks that are only zeroed, and lie neither in pool nor in a static.\n\n\
         This file is made from the rules (`KSIM_UPDATE=1 cargo test -p ksim --test corpus`), and a test keeps it so.\n\n\
         | Rule | Bug check | Parameter 1 | DDI compliance | Says | By default | When off, a run |\n|---|---|---|---|---|---|---|\n",
    );
    for rule in ksim::rules() {
        let hex = |number: Option<u64>| number.map_or(String::new(), |number| format!("{number:#x}"));
        let (parameter, compliance) = (hex(rule.first_parameter), hex(rule.compliance()));
        text += &format!(
            "| [{}]({}) | {} | {parameter} | {compliance} | {} | {} | {} |\n",
            rule.name,
            rule.page(),
            hex(rule.code.map(u64::from)),
            rule.says,
            if rule.on_by_default { "on" } else { "off" },
            if rule.when_off == ksim::WhenOff::GoesOn { "goes on" } else { "ends" }
        );
    }
    text += "\n## Rules that are not in the table by their names\n\n| Rule | Here |\n|---|---|\n";
    for (name, here) in ELSEWHERE {
        text += &format!("| {name} | {here} |\n");
    }
    text
}

#[test]
fn the_documents_are_current() {
    for (name, document) in [("corpus.md", document()), ("checks.md", table_of_rules())] {
        let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("KSIM_UPDATE").is_some() {
            std::fs::write(&path, &document).unwrap();
        }
        let current = std::fs::read_to_string(&path).unwrap_or_default() == document;
        assert!(current, "docs/{name} is not current: run with KSIM_UPDATE=1");
    }
}

/// The rules of Driver Verifier's DDI compliance checking, and of Static Driver Verifier, that are about synchronization, levels and requests, with the numbers that
/// the former has for them.
const LISTED: &[(&str, Option<u64>)] = &[
    ("IrqlApcLte", Some(0x2_0002)),
    ("IrqlDispatch", Some(0x2_0003)),
    ("IrqlExAllocatePool", Some(0x2_0004)),
    ("IrqlExApcLte1", Some(0x2_0005)),
    ("IrqlExApcLte2", Some(0x2_0006)),
    ("IrqlExApcLte3", Some(0x2_0007)),
    ("IrqlExPassive", Some(0x2_0008)),
    ("IrqlKeApcLte1", Some(0x2_000f)),
    ("IrqlKeApcLte2", Some(0x2_0010)),
    ("IrqlKeDispatchLte", Some(0x2_0011)),
    ("IrqlKeReleaseSpinLock", Some(0x2_0015)),
    ("IrqlKeSetEvent", Some(0x2_0016)),
    ("IrqlObPassive", Some(0x2_001b)),
    ("IrqlPsPassive", Some(0x2_001c)),
    ("IrqlZwPassive", Some(0x2_001f)),
    ("IrqlReturn", Some(0x2_001d)),
    ("IrqlRtlPassive", Some(0x2_001e)),
    ("IrqlIoDispatch", Some(0x2_0022)),
    ("IrqlIoRtlZwPassive", Some(0x2_0023)),
    ("IrqlNtifsApcPassive", Some(0x2_0024)),
    ("CriticalRegions", Some(0x4_0003)),
    ("QueuedSpinLock", Some(0x4_0006)),
    ("QueuedSpinLockRelease", Some(0x4_0007)),
    ("SpinLock", Some(0x4_0009)),
    ("SpinlockRelease", Some(0x4_000a)),
    ("GuardedRegions", Some(0x4_000e)),
    ("IrqlKeRaiseLower", None),
    ("IrqlKeRaiseLower2", None),
    ("IrqlKeWaitForMultipleObjects", None),
    ("IrqlKeWaitForMutexObject", None),
    ("IrqlExFree1", None),
    ("IrqlExFree2", None),
    ("IrqlExFree3", None),
    ("SpinLockDpc", None),
    ("SpinLockSafe", None),
    ("ExclusiveResourceAccess", None),
    ("WithinCriticalRegion", None),
    ("CancelSpinLock", None),
    ("CancelSpinlockRelease", None),
    ("RemoveLock", None),
    ("ForwardedAtBadIrql", None),
];

/// Those that have other names here, or are not here, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    ("IrqlKeWaitForMultipleObjects", "IrqlKeWaitAbove, IrqlKeWaitForever, IrqlKeWaitTimed: NT has a number for each"),
    ("IrqlKeWaitForMutexObject", "the same"),
    ("IrqlExFree1", "IrqlExFree"),
    ("IrqlExFree2", "IrqlExFree"),
    ("IrqlExFree3", "IrqlExFree"),
    ("IrqlApcLte", "none: its routines, of security descriptors, are not here"),
    ("IrqlRtlPassive", "none: its routines, of the registry, are not here"),
    ("ForwardedAtBadIrql", "IrqlIoDispatch: IofCallDriver is for IRQL <= DISPATCH_LEVEL"),
];

#[test]
fn rules_of_the_verifiers_are_here_or_accounted_for() {
    for (name, _) in LISTED {
        let here = ksim::rules().any(|rule| rule.name == *name);
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == name);
        assert!(here != elsewhere, "{name}: in the table, or in the list of the others, and not in both");
    }
    for (name, _) in ELSEWHERE {
        assert!(LISTED.iter().any(|(listed, _)| listed == name), "{name} is in no list of the verifiers'");
    }
}

#[test]
fn rules_have_the_numbers_of_the_verifier() {
    for rule in ksim::rules() {
        let listed = LISTED.iter().find(|(name, _)| *name == rule.name);
        assert_eq!(rule.compliance(), listed.and_then(|(_, number)| *number), "{}", rule.name);
        // Where it is a number of DDI compliance checking, its page is the rule's.
        if rule.compliance().is_some() {
            let page = format!("/devtest/wdm-{}", rule.name.to_ascii_lowercase());
            assert!(rule.page().ends_with(&page), "{}: {}", rule.name, rule.page());
        }
    }
}

/// What a call at a wrong level is reported as has a name, and can be looked up.
#[test]
fn the_rules_of_all_routines_are_in_the_table() {
    for export in ksim::exports().filter(|export| export.irql.verifier != 0) {
        let known = ksim::rules().any(|rule| rule.code == Some(0xc4) && rule.first_parameter == Some(export.irql.verifier));
        assert!(known, "{}: no rule has the number {:#x}", export.name, export.irql.verifier);
    }
}

#[test]
fn no_two_rules_are_one() {
    let key = |rule: &ksim::Rule| rule.code.map(|code| (code, rule.first_parameter));
    for rule in ksim::rules() {
        assert_eq!(ksim::rules().filter(|other| other.name == rule.name).count(), 1, "{rule}");
        if key(rule).is_some() {
            assert_eq!(ksim::rules().filter(|other| key(other) == key(rule)).count(), 1, "{rule}");
        }
    }
}

impl Case {
    /// The rules that the mistake is a breach of; none for a panic, which is no breach of a rule.
    fn rules(&self) -> Vec<RuleId> {
        use RuleId::{Deadlock, ObjectsLeft, PoolLeft, TickRequestsLeft, TimersLeft, UsesLeft};
        match self.caught {
            Caught::By(name) => ksim::rules().filter(|rule| rule.name == name).map(|rule| rule.id).collect(),
            Caught::Deadlock => vec![Deadlock],
            Caught::Left => vec![PoolLeft, TimersLeft, ObjectsLeft, TickRequestsLeft, UsesLeft],
            Caught::Panic => Vec::new(),
        }
    }

    /// What is wrong about a search where the rule of the mistake is off, if anything.
    fn problem_when_off(&self) -> Option<String> {
        let (name, code, rules) = (self.name, self.code, self.rules());
        if rules.is_empty() || !self.is_for_this_host() {
            return None;
        }
        let off = |machine, &rule: &RuleId| Machine::check_rule(machine, rule, false);
        let machine = (self.machine)(Machine::new().processors(self.processors)).step_limit(20_000);
        let machine = rules.iter().fold(machine, off);
        let search = |jobs| {
            let jobs = std::num::NonZeroUsize::new(jobs).expect("it is not 0");
            let search = explore().machine(machine.clone()).faults(self.faults.iter().copied());
            search.progress(false).jobs(jobs).schedules(self.within).check(move || code(true))
        };
        let [one, two] = [1, 2].map(search);
        let then = one.failure().map(|failure| match failure.outcome.end() {
            End::Panic(_) => "a panic",
            End::Completed => "something left",
            End::StepLimit(_) => "the limit on steps",
            end => end.rule().map_or("no rule", |rule| rule.name),
        });
        let expected = THEN.iter().find(|(case, _)| *case == name).map(|(_, then)| *then);
        if then != expected {
            return Some(format!("{name}, with its rule off: expected {expected:?}, but: {one}"));
        }
        let allowed = |search: &Exploration| search.allowed().map(|(rule, runs)| (rule.id, runs)).collect::<Vec<_>>();
        if allowed(&one).iter().any(|(rule, _)| !rules.contains(rule)) {
            return Some(format!("{name}: a run ended early for a rule that is on: {one}"));
        }
        let ends_run = |rule: &RuleId| ksim::rules().any(|known| known.id == *rule && known.when_off == WhenOff::EndsRun);
        let ends = rules.iter().any(ends_run);
        if !ends && !allowed(&one).is_empty() {
            return Some(format!("{name}: a run ended early that was to go on: {one}"));
        }
        if then.is_none() {
            // Nothing stops the search, so that both have made the same runs.
            let told = |search: &Exploration| (search.executions(), search.distinct(), allowed(search));
            if told(&one) != told(&two) {
                return Some(format!("{name}: {one} on one OS thread, {two} on two"));
            }
            if ends && allowed(&one).is_empty() {
                return Some(format!("{name}: no run ended early: {one}"));
            }
        }
        let token = |search: &Exploration| search.failure().map(|failure| failure.token.clone());
        (token(&one) != token(&two)).then(|| format!("{name}: another failure on two OS threads: {one}, {two}"))
    }
}

/// Mistakes that are found by something else where their own rule is off, and by what.
const THEN: &[(&str, &str)] = &[
    ("exit_with_a_resource", "DeletedWhileOwned"),
    ("resource_outside_a_region", "WithinCriticalRegionRelease"),
    ("push_lock_outside_a_region", "PushLockWithinRegionRelease"),
    ("at_dpc_level_in_a_threaded_dpc", "SpinLockReleaseIrql"),
    ("passive_routine_under_a_spin_lock", "IrqlObPassive"),
    ("sleep_under_a_spin_lock", "SpinLockHeldInWait"),
    ("alert_taken_for_success", "Exception"),
    ("timeout_of_several_taken_for_success", "Exception"),
    ("event_on_the_stack_of_a_thread_that_ended", "Deadlock"),
    ("missing_flush", "Uninitialized"),
    ("dpc_enters_a_region", "RegionsOfDpc"),
    ("event_polled_under_a_spin_lock", "the limit on steps"),
    ("timer_on_the_stack_of_a_thread_that_ended", "FreedTimer"),
    ("pool_left_at_unload", "something left"),
    ("pool_overrun_of_what_is_never_freed", "something left"),
    ("special_pool_write_after_free", "PoolWrittenAfterFree"),
    ("paged_pool_at_dispatch_level", "IrqlExFree"),
    ("cancel_spin_lock_recursion", "SpinLock"),
    ("cancel_spin_lock_released_twice", "SpinLockNotOwned"),
    ("cancel_routine_that_keeps_the_cancel_spin_lock", "SpinlockRelease"),
    ("dispatch_routine_that_keeps_the_cancel_spin_lock", "SpinlockRelease"),
];

/// Where the rule of a mistake is off, the mistake is not reported under it.
#[test]
fn each_rule_can_be_off() {
    let problems: Vec<_> = AREAS.iter().flat_map(|(_, cases)| *cases).filter_map(Case::problem_when_off).collect();
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    for (name, _) in THEN {
        assert!(AREAS.iter().flat_map(|(_, cases)| *cases).any(|case| case.name == *name), "there is no mistake {name}");
    }
}

#[test]
fn what_is_off_is_not_reported() {
    let wrong = || {
        test_support::leave_start_region();
        let lock = test_support::Place::<ksync_sys::EX_PUSH_LOCK>::zeroed();
        test_support::raw!(ksync_sys::ExAcquirePushLockSharedEx(lock.ptr(), 0));
        test_support::raw!(ksync_sys::ExReleasePushLockSharedEx(lock.ptr(), 0));
        test_support::enter_start_region();
    };
    let stop = Machine::new().run(wrong).expect_bug_check(0xc4);
    assert_eq!(stop.rule().map(|rule| rule.id), Some(ksim::RuleId::PushLockWithinRegion));
    let tolerant = Machine::new()
        .check_rule(ksim::RuleId::PushLockWithinRegion, false)
        .check_rule(ksim::RuleId::PushLockWithinRegionRelease, false);
    tolerant.run(wrong).expect_clean();
}

/// Without rules of its own, the cancel spin lock is a spin lock as others are.
#[test]
fn the_cancel_spin_lock_has_switches_of_its_own() {
    use ksim::RuleId::{CancelSpinLock, CancelSpinlockRelease};
    let machine = Machine::new().check_rule(CancelSpinLock, false).check_rule(CancelSpinlockRelease, false);
    let rule = |code: fn(bool), stop: u32| machine.run(|| code(true)).expect_bug_check(stop).rule().map(|rule| rule.name);
    assert_eq!(rule(requests::cancel_spin_lock_recursion, 0xf), Some("SpinLock"));
    assert_eq!(rule(requests::cancel_spin_lock_released_twice, 0x10), Some("SpinLockNotOwned"));
    assert_eq!(rule(requests::dispatch_routine_that_keeps_the_cancel_spin_lock, 0xc4), Some("SpinlockRelease"));
}

#[test]
fn a_fault_is_in_the_line_that_repeats_it() {
    let program = || {
        for _ in 0..3 {
            let memory = test_support::allocate(8);
            assert!(!memory.is_null(), "no memory");
            test_support::free(memory);
        }
    };
    let search = || explore().schedules(5).progress(false);
    search().check(program).expect_clean();
    let exploration = search().faults([FaultKind::Allocation]).check(program);
    let failure = exploration.expect_failure();
    assert!(failure.token.ends_with(".allocation-1"), "{failure}");
    let again = search().replay(&failure.token, program).unwrap();
    assert!(again.expect_failure().outcome.panic().is_some());
    assert_eq!(again.expect_failure().token, failure.token);
    let patient = || {
        for _ in 0..3 {
            let memory = test_support::allocate(8);
            if !memory.is_null() {
                test_support::free(memory);
            }
        }
    };
    // Without a fault, and with each of the three.
    let exploration = search().faults([FaultKind::Allocation]).check(patient);
    assert_eq!(exploration.expect_clean().executions(), 20);
    assert_eq!(Machine::new().run_with_faults(&FaultKind::ALL, patient).unwrap(), 4);
}

/// Each creation of a kind fails in turn, and nothing of another kind does.
#[test]
fn threads_and_objects_fail_one_after_the_other() {
    use ksync_sys::{HANDLE, PsCreateSystemThread, STATUS_INSUFFICIENT_RESOURCES, SynchronizationEvent, ZwClose, ZwCreateEvent};
    use std::ptr::{null, null_mut};
    unsafe extern "system-unwind" fn start(_context: *mut std::ffi::c_void) {}
    let (threads, events) = (std::cell::RefCell::new(Vec::new()), std::cell::RefCell::new(Vec::new()));
    let program = || {
        let attributes = test_support::attributes(ksync_sys::OBJ_KERNEL_HANDLE);
        let made = |status: i32, handle: HANDLE| match status {
            0 => {
                test_support::raw!(ZwClose(handle));
                'o'
            }
            STATUS_INSUFFICIENT_RESOURCES => 'x',
            status => panic!("{status:#x}"),
        };
        let thread = |_| {
            let mut handle = null_mut();
            let context = null_mut();
            made(
                test_support::raw!(PsCreateSystemThread(
                    &mut handle,
                    0,
                    &attributes,
                    null_mut(),
                    null_mut(),
                    Some(start),
                    context
                )),
                handle,
            )
        };
        let event = |_| {
            let mut handle = null_mut();
            made(test_support::raw!(ZwCreateEvent(&mut handle, 0x1f_0003, null(), SynchronizationEvent, 0)), handle)
        };
        threads.borrow_mut().push((0..2).map(thread).collect::<String>());
        events.borrow_mut().push((0..2).map(event).collect::<String>());
    };
    assert_eq!(Machine::new().run_with_faults(&[FaultKind::Thread], program).unwrap(), 3);
    // The last run is the one that comes to no third.
    assert_eq!(threads.take(), ["oo", "xo", "ox", "oo"]);
    assert_eq!(events.take(), ["oo"; 4]);
    assert_eq!(Machine::new().run_with_faults(&[FaultKind::Object], program).unwrap(), 3);
    assert_eq!(threads.take(), ["oo"; 4]);
    assert_eq!(events.take(), ["oo", "xo", "ox", "oo"]);
}
