//! Reports, word for word. Release builds merge frames, so that they say less.
#![cfg(debug_assertions)]

use ksim::{Machine, explore};
use ksync_sys::*;
use test_support::*;

/// Compares a report with the file of that name. `KSIM_UPDATE=1` writes the file.
#[track_caller]
fn expect(name: &str, report: &str) {
    let report = with_own_numbers(&without_addresses(report));
    let path = format!("{}/tests/report/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("KSIM_UPDATE").is_some() {
        std::fs::write(&path, &report).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == report, "{path} differs; run with KSIM_UPDATE=1 if the new one is right:\n{report}");
}

/// NT's parameters hold addresses, as do tokens: neither is the same for every build.
fn without_addresses(report: &str) -> String {
    let mut text = String::new();
    for line in report.lines() {
        let words: Vec<_> = line
            .split(' ')
            .map(|word| {
                let digits = word.trim_start_matches('(').trim_end_matches([',', ')']);
                let is_address = digits.strip_prefix("0x").is_some_and(|digits| digits.len() >= 9);
                if is_address { word.replace(digits, "<address>") } else { word.to_owned() }
            })
            .collect();
        let line = words.join(" ");
        let line = line.split_once("KSIM_REPLAY=").map_or(line.clone(), |(before, _)| format!("{before}KSIM_REPLAY=<token>"));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// Numbers of objects, and lines of the tests' helpers, that do not depend on anything but the report: objects count from 1 as they appear in it.
fn with_own_numbers(report: &str) -> String {
    const HELPERS: &str = "crates/test-support/src/lib.rs:";
    let mut numbers = Vec::new();
    let mut text = String::new();
    let mut rest = report;
    while let Some(at) = rest.find(['#', 'c']) {
        let marker = if rest[at..].starts_with(HELPERS) { HELPERS } else { &rest[at..=at] };
        let (before, after) = rest.split_at(at + marker.len());
        text += before;
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = after.split_at(digits);
        match marker {
            HELPERS => text += "<line>",
            "#" if digits > 0 => {
                let place = numbers.iter().position(|seen| *seen == number).unwrap_or(numbers.len());
                if place == numbers.len() {
                    numbers.push(number);
                }
                text += &(place + 1).to_string();
            }
            _ => text += number,
        }
        rest = behind;
    }
    text + rest
}

/// Takes two locks, one of them before a delay: so the order of what happens does not depend on what is chosen.
fn take_both(first: &Mutex, second: &FastMutex, first_first: bool) {
    if first_first {
        wait(first.object());
        sleep(2 * MS);
        second.acquire();
        second.release();
        raw!(KeReleaseMutex(first.ptr(), FALSE));
    } else {
        sleep(MS);
        second.acquire();
        sleep(2 * MS);
        wait(first.object());
        raw!(KeReleaseMutex(first.ptr(), FALSE));
        second.release();
    }
}

fn opposite_orders() {
    let (a, b) = (Mutex::new(), FastMutex::new());
    let threads = [spawn(|| take_both(&a, &b, true)), spawn(|| take_both(&a, &b, false))];
    join_all(threads);
}

#[test]
fn of_a_bug_check() {
    let outcome = Machine::new().record_sites(true).run(|| {
        let event = Event::notification();
        event.set();
        raise(5);
        event.reset();
    });
    expect("bug_check.txt", &outcome.report().to_string());
}

#[test]
fn of_a_deadlock() {
    let outcome = Machine::new().record_sites(true).check_lock_order(false).run(opposite_orders);
    expect("deadlock.txt", &outcome.report().to_string());
}

#[test]
fn of_a_search_with_the_line_that_repeats_it() {
    let machine = Machine::new().processors(2).check_lock_order(false);
    let exploration = explore().machine(machine).check(opposite_orders);
    let failure = exploration.expect_failure();
    let report = failure.to_string();
    assert!(report.contains(&format!("to repeat it: {}", failure.replay_line())), "{report}");
    // The repetition that the report is of knows where each lock was acquired.
    assert!(report.contains("acquired at test_support::FastMutex::acquire"), "{report}");
    let json = failure.to_json();
    assert_eq!(json["schema"], 1);
    assert_eq!(json["end"], "deadlock");
    assert_eq!(json["threads"].as_array().unwrap().len(), 3);
    assert_eq!(json["replay"], failure.replay_line());
}

#[test]
fn of_an_order_of_locks() {
    let outcome = Machine::new().record_sites(true).run(opposite_orders);
    expect("lock_order.txt", &outcome.report().to_string());
}

#[test]
fn of_a_leak() {
    let outcome = Machine::new().record_sites(true).run(|| _ = allocate(24));
    expect("leak.txt", &outcome.report().to_string());
    let json = outcome.report().to_json();
    assert_eq!(json["left"]["pool"][0]["size"], 24);
    assert_eq!(json["left"]["pool"][0]["allocated_at"][0]["file"], "crates/test-support/src/lib.rs");
}

#[test]
fn of_a_panic() {
    let outcome = Machine::new().run(|| panic!("the driver gave up"));
    expect("panic.txt", &outcome.report().to_string());
}

#[test]
fn of_pool_freed_twice() {
    let outcome = Machine::new().record_sites(true).run(|| {
        let memory = allocate(40);
        free(memory);
        free(memory);
    });
    expect("freed_twice.txt", &outcome.report().to_string());
}

#[test]
fn colours_are_all_that_a_terminal_has_more() {
    let outcome = Machine::new().processors(2).record_sites(true).run(opposite_orders);
    let (plain, colored) = (outcome.report().to_string(), outcome.report().colored(true).to_string());
    assert!(!plain.contains('\u{1b}') && colored.contains('\u{1b}'));
    let mut stripped = String::new();
    let mut parts = colored.split('\u{1b}');
    stripped += parts.next().unwrap();
    for part in parts {
        stripped += part.split_once('m').unwrap().1;
    }
    assert_eq!(stripped, plain);
}

#[test]
fn the_same_run_gives_the_same_report() {
    let report = || {
        let outcome = Machine::new().processors(2).record_sites(true).run(opposite_orders);
        without_addresses(&outcome.report().to_string())
    };
    assert_eq!(report(), report());
}

#[test]
fn json_holds_the_bug_check_and_the_events() {
    let outcome = Machine::new().record_sites(true).run(|| {
        let event = Event::notification();
        event.set();
        lower(2);
    });
    let json = outcome.report().to_json();
    assert_eq!(json["bug_check"]["name"], "DRIVER_VERIFIER_DETECTED_VIOLATION");
    assert_eq!(json["bug_check"]["parameters"][0], 0x31);
    assert_eq!(json["bug_check"]["rule"]["name"], "IrqlKeRaiseLower2");
    let events = json["events"].as_array().unwrap();
    let set = events.iter().find(|event| event["operation"] == "set event").unwrap();
    assert_eq!(set["object_kind"], "event");
    assert_eq!(set["site"]["file"], "crates/test-support/src/lib.rs");
    assert_eq!(json["processors"][0]["irql"], 0);
}
