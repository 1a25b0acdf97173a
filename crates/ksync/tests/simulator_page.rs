//! The page on the simulator shows what its program prints. Release builds merge frames, so that they say less.
#![cfg(debug_assertions)]

use ksim::explore;

const PAGE: &str = include_str!("../../../docs/simulator.md");

/// The program of the page, in lines that are as long as there.
#[rustfmt::skip]
mod search {
use ksync::event::{Event, EventProperty};
use ksync::mutex::FastLocked;
use ksync::thread;
use ksync::wait::Dispatchable;

pub(super) fn program() {
    let queue = FastLocked::new(Vec::new()).unwrap();
    let added = Event::new(EventProperty::Notification, false).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut done = 0;
            while done < 2 {
                while queue.lock().unwrap().pop().is_some() {
                    done += 1;
                }
                added.reset().unwrap();
                if done < 2 {
                    assert!(added.wait().success());
                }
            }
        }).unwrap();
        for item in 0..2 {
            queue.lock().unwrap().push(item);
            added.set().unwrap();
        }
    });
}
}

/// The block that follows `before` and begins with this word.
fn block(before: &str, word: &str) -> &'static str {
    let after = &PAGE[PAGE.find(before).expect(before)..];
    let fence = format!("```{word}\n");
    let block = &after[after.find(&fence).unwrap() + fence.len()..];
    &block[..block.find("```").unwrap()]
}

/// With the line numbers of the page's program, which begins at line 7 of `tests/search.rs`.
fn as_on_the_page(report: &str) -> String {
    const HERE: &str = "crates/ksync/tests/simulator_page.rs:";
    let own = include_str!("simulator_page.rs");
    let first = 1 + own.lines().position(|line| line.contains("fn program()")).unwrap();
    let mut text = String::new();
    let mut rest = report;
    while let Some(at) = rest.find(HERE) {
        let behind = &rest[at + HERE.len()..];
        let digits = behind.find(|character: char| !character.is_ascii_digit()).unwrap_or(behind.len());
        let line: usize = behind[..digits].parse().unwrap();
        text += &format!("{}tests/search.rs:{}", &rest[..at], line + 7 - first);
        rest = &behind[digits..];
    }
    text += rest;
    text.replace("simulator_page::search::", "search::")
}

/// Tokens hold the settings of the machine and the name of the program.
fn without_token(report: &str) -> String {
    let (before, after) = report.split_once("KSIM_REPLAY=").unwrap();
    let (_, after) = after.split_once('\n').unwrap();
    format!("{before}KSIM_REPLAY=...\n{after}")
}

#[test]
fn the_page_shows_the_report_of_its_program() {
    let program = block("## A bug", "rust");
    let (uses, search) = program.split_once("\n\n").unwrap();
    let own = include_str!("simulator_page.rs").replace("pub(super) fn program", "fn program");
    assert!(own.contains(uses.strip_prefix("use ksim::explore;\n").unwrap()), "{uses}");
    let (function, _) = search.split_once("\n\n").unwrap();
    assert!(own.contains(function), "{function}");
    assert_eq!(1 + program.lines().position(|line| line == "fn program() {").unwrap(), 7);

    let exploration = explore().processors(2).check(search::program);
    let report = without_token(&as_on_the_page(&exploration.expect_failure().to_string()));
    let shown = without_token(block("exploration.expect_clean()`, which panics", "text"));
    assert!(report.trim_end() == shown.trim_end(), "the page is to show:\n{report}");
}
