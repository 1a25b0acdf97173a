//! Reports show an author's own lines, not those of the library. Release builds merge frames, so that they say less.
#![cfg(debug_assertions)]

use ksim::explore::{Explore, Strategy};
use ksim::{Machine, explore};
use ksync::event::{Event, EventProperty};
use ksync::mutex::FastLocked;
use ksync::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use ksync::sys::{ExAllocatePool2, ExFreePool, POOL_FLAG_NON_PAGED};
use ksync::thread;
use ksync::wait::Dispatchable;

const HERE: &str = "crates/ksync/tests/report_lines.rs";

/// The place of the line of this file that ends with this comment.
fn line(comment: &str) -> String {
    let marker = format!("// {comment}");
    let at = include_str!("report_lines.rs").lines().position(|line| line.ends_with(&marker)).expect("the comment is there");
    format!("{HERE}:{}", at + 1)
}

fn report(explore: Explore, program: impl Fn() + Sync) -> String {
    let report = explore.check(program).expect_failure().to_string();
    println!("{report}");
    assert!(!report.contains("crates/ksync/src"), "the library's lines are shown:\n{report}");
    report
}

fn contains(report: &str, text: &str) {
    assert!(report.contains(text), "{text:?} is not in:\n{report}");
}

#[test]
fn who_waits_for_ever_is_shown_with_his_own_line() {
    let report = report(explore().processors(3), || {
        let event = Event::new(EventProperty::Notification, false).unwrap();
        let lock = FastLocked::new(0).unwrap();
        thread::scope(|scope| {
            let wait = || {
                *lock.lock().unwrap() += 1; // locks
                assert!(event.wait().success()); // waits
            };
            scope.spawn(wait).unwrap();
        });
    });
    contains(&report, &format!("({}), in Dispatchable::wait", line("waits")));
    contains(&report, &format!("acquire fast mutex #8 ({}", line("locks")));
}

#[test]
fn threads_that_have_ended_are_told_of() {
    let report = report(explore().processors(3).strategy(Strategy::Exhaustive), || {
        let value = AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                let add = || {
                    let seen = value.load(Ordering::SeqCst); // loads
                    value.store(seen + 1, Ordering::SeqCst); // stores
                };
                scope.spawn(add).unwrap();
            }
        });
        assert_eq!(value.load(Ordering::SeqCst), 2); // looks
    });
    assert_eq!(report.matches(") ended").count(), 2, "{report}");
    assert_eq!(report.matches(&format!("read atomic a1 ({}", line("loads"))).count(), 2, "{report}");
    assert_eq!(report.matches(&format!("write atomic a1 ({}", line("stores"))).count(), 2, "{report}");
    contains(&report, &format!("read atomic a1 ({}", line("looks")));
}

#[test]
fn who_spins_is_told() {
    let report = report(explore().processors(2).schedules(5), || {
        let flag = AtomicBool::new(false);
        while !flag.load(Ordering::Acquire) {} // spins
    });
    contains(&report, "spins: it reads atomic a1 again and again");
    contains(&report, "(t0) spinning on processor 0 at PASSIVE_LEVEL, for atomic a1");
    contains(&report, &format!("({})", line("spins")));
}

#[test]
fn a_lock_that_a_panic_releases_is_not_released_where_it_was_acquired() {
    let report = report(explore().processors(2), || {
        let lock = FastLocked::new(0).unwrap();
        let fails = || {
            let _guard = lock.lock().unwrap(); // acquires
            panic!("with the lock");
        }; // unwinds
        fails();
    });
    let release = report.lines().find(|line| line.contains("release fast mutex")).expect(&report);
    assert!(!release.contains(&line("acquires")), "{report}");
}

#[test]
fn what_leads_to_the_driver_is_not_shown() {
    // What is found when the run is over is found by nobody's call.
    let report = report(explore().machine(Machine::new().special_pool(false)), || {
        // SAFETY: the routine may be called here.
        let block = unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, 8, u32::from_le_bytes(*b"Test")) };
        // SAFETY: the block is allocated.
        unsafe { ExFreePool(block) };
        // SAFETY: the block is freed, which is what the run is to find. The hosted pool keeps its memory.
        unsafe { block.cast::<u64>().write(2) };
    });
    assert!(!report.contains("called from"), "{report}");
    assert!(!report.contains("start_thread") && !report.contains("clone"), "{report}");
}
