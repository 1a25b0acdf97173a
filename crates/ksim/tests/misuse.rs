//! Wrong use, through raw calls: each kind must stop the machine with NT's bug check code and parameters, and say where.

#[path = "misuse/apcs.rs"]
mod apcs;
#[path = "misuse/dpcs.rs"]
mod dpcs;
#[path = "misuse/ex_timers.rs"]
mod ex_timers;
#[path = "misuse/io.rs"]
mod io;
#[path = "misuse/locks.rs"]
mod locks;
#[path = "misuse/objects.rs"]
mod objects;
#[path = "misuse/pool.rs"]
mod pool;
#[path = "misuse/unload.rs"]
mod unload;
#[path = "misuse/waits.rs"]
mod waits;

use ksim::{BugCheck, Machine, WhenOff};

/// What a wrong use must end in.
struct Expected {
    /// Part of the path of the function that is wrong: the call site.
    test: &'static str,
    code: u32,
    /// The parameters; `None` for what is an address or not ours to say.
    parameters: [Option<u64>; 4],
    routine: Option<&'static str>,
    irql: u8,
    in_dpc: bool,
}

/// The innermost function of the test: what `stringify!` and closures make of it.
macro_rules! expected {
    ($test:ident, $code:literal, [$($parameter:expr),*], $routine:expr, $irql:expr) => {
        crate::Expected {
            test: stringify!($test),
            code: $code,
            parameters: crate::pad(&[$($parameter),*]),
            routine: Some($routine),
            irql: $irql,
            in_dpc: false,
        }
    };
}
use expected;

/// The parameters from the first on; the others are not looked at.
fn pad(parameters: &[Option<u64>]) -> [Option<u64>; 4] {
    let mut all = [None; 4];
    all[..parameters.len()].copy_from_slice(parameters);
    all
}

/// Runs wrong code on one and on several processors, and compares.
#[track_caller]
fn misuse(expected: &Expected, wrong: impl Fn()) -> BugCheck {
    misuse_on(&Machine::new(), expected, wrong)
}

/// The same, on machines with other settings.
#[track_caller]
fn misuse_on(machine: &Machine, expected: &Expected, wrong: impl Fn()) -> BugCheck {
    let mut last = None;
    for (processors, seed) in [(1, 0), (2, 1), (4, 2)] {
        let outcome = machine.clone().processors(processors).seed(seed).run(&wrong);
        let report = outcome.to_string();
        let stop = outcome.expect_bug_check(expected.code);
        for (found, wanted) in stop.parameters.iter().zip(expected.parameters) {
            assert!(wanted.is_none_or(|wanted| wanted == *found), "{:#x?} expected: {report}", expected.parameters);
        }
        assert_eq!(stop.routine, expected.routine, "{report}");
        assert_eq!(stop.irql, expected.irql, "{report}");
        assert_eq!(stop.in_dpc, expected.in_dpc, "{report}");
        assert!(stop.processor < processors, "{report}");
        assert!(stop.thread.is_some() || stop.in_dpc, "{report}");
        assert_ne!(stop.name, "unknown bug check code", "{report}");
        assert!(!stop.meaning.is_empty() && report.contains(&stop.meaning), "{report}");
        // Release builds inline and merge frames.
        if cfg!(debug_assertions) && stop.routine.is_some() {
            let site = stop.call_site().expect("a call site");
            // Of a closure that was inlined, line tables give the name alone.
            let found = site.function.contains(expected.test) || site.function.starts_with("{closure");
            assert!(found, "the call site is not in {}: {report}", expected.test);
            assert!(site.file.as_ref().is_some_and(|file| file.contains("misuse")), "{report}");
        }
        last = Some(stop);
    }
    let stop = last.expect("three runs");
    when_off(machine, &stop, wrong);
    stop
}

/// Where the rule is off, what is wrong is not reported under it: the run goes on or ends early, as the table of rules says.
#[track_caller]
fn when_off(machine: &Machine, stop: &BugCheck, wrong: impl Fn()) {
    let Some(rule) = stop.rule() else {
        let own = ["KeBugCheck", "KeBugCheckEx"];
        assert!(stop.routine.is_some_and(|routine| own.contains(&routine)), "a bug check without a rule: {stop}");
        return;
    };
    let outcome = machine.clone().step_limit(20_000).check_rule(rule.id, false).run(wrong);
    assert_ne!(outcome.bug_check().and_then(BugCheck::rule).map(|rule| rule.id), Some(rule.id), "{outcome}");
    if rule.when_off == WhenOff::EndsRun {
        assert!(outcome.allowed().is_some_and(|allowed| allowed.id == rule.id) && !outcome.is_failure(), "{outcome}");
    } else {
        assert!(outcome.allowed().is_none(), "{outcome}");
    }
}

/// The address of an object as a parameter.
fn address<T>(pointer: *const T) -> Option<u64> {
    Some(pointer as u64)
}
