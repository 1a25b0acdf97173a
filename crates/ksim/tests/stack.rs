//! Hosted code that uses up its stack, on the host where that is caught.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use ksim::{BugCheck, Machine, Outcome, explore};
use ksync_sys::*;
use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write as _;
use test_support::*;

/// Checks that the run ended as a double fault does in NT, and where.
#[track_caller]
fn used_up<'a>(outcome: &'a Outcome, function: &str) -> &'a BugCheck {
    let stop = outcome.bug_check().unwrap_or_else(|| panic!("no bug check: {outcome}"));
    assert_eq!((stop.code, stop.name, stop.parameters[0]), (0x7f, "UNEXPECTED_KERNEL_MODE_TRAP", 8), "{outcome}");
    assert!(stop.meaning.contains("ran out of stack"), "{outcome}");
    assert!(outcome.report().to_string().contains("UNEXPECTED_KERNEL_MODE_TRAP"));
    assert!(stop.call_sites.iter().any(|site| site.function.contains(function)), "{outcome}");
    stop
}

/// The process is fit for another machine, and for all else.
fn check_that_all_is_well() {
    let outcome = Machine::new().processors(2).run(|| {
        let event = Event::synchronization();
        let threads: Vec<_> = (0..8).map(|_| spawn(|| event.set_and_wait())).collect();
        threads.into_iter().for_each(Thread::join);
    });
    outcome.expect_clean();
    let text: String = (0..10_000).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
    assert_eq!(text.len(), 10_000);
    std::thread::spawn(move || drop(text)).join().expect("a thread of the host runs");
}

trait SetAndWait {
    fn set_and_wait(&self);
}

impl SetAndWait for Event {
    fn set_and_wait(&self) {
        self.set();
        wait(self.object());
    }
}

/// Deeper than any stack.
const BOTTOM: u64 = 1 << 40;

fn depth_of_calls(depth: u64) -> u64 {
    if depth == BOTTOM {
        return 0;
    }
    let space = black_box([depth; 4]);
    // SAFETY: the routine takes nothing.
    let level = unsafe { KeGetCurrentIrql() };
    depth_of_calls(depth + 1) + space[3] + u64::from(level)
}

fn plain_depth(depth: u64) -> u64 {
    if depth == BOTTOM {
        return 0;
    }
    let space = black_box([depth; 5]);
    plain_depth(black_box(depth + 1)) + space[2]
}

fn depth_of_allocations(depth: u64) -> usize {
    if depth == BOTTOM {
        return 0;
    }
    let mut text = String::new();
    write!(text, "{depth} {:?}", black_box(vec![depth; 7])).expect("text grows");
    depth_of_allocations(depth + 1) + text.len()
}

fn depth_of_locks(depth: u64) -> usize {
    if depth == BOTTOM {
        return 0;
    }
    // A lock of the language's library, which it takes and gives back.
    let flushed = std::io::stdout().flush();
    depth_of_locks(depth + 1) + usize::from(flushed.is_ok())
}

#[inline(never)]
fn large_frame() -> u8 {
    let space = black_box([1_u8; 4 << 20]);
    space[black_box(17)]
}

#[test]
fn calls_of_the_kernel() {
    let ended = Cell::new(false);
    struct Guard<'a>(&'a Cell<bool>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let outcome = Machine::new().run(|| {
        let _guard = Guard(&ended);
        black_box(depth_of_calls(0));
    });
    let stop = used_up(&outcome, "depth_of_calls");
    assert_eq!((stop.routine, stop.thread, stop.in_dpc), (Some("KeGetCurrentIrql"), Some(2), false), "{outcome}");
    assert!(stop.meaning.contains("it called KeGetCurrentIrql with"), "{outcome}");
    // Both ends of the stack are there.
    let last = stop.call_sites.last().expect("call sites");
    assert!(last.function.contains("calls_of_the_kernel"), "{outcome}");
    assert!(!ended.get(), "nothing runs after a bug check");
    check_that_all_is_well();
}

#[test]
fn code_that_calls_nothing() {
    for seed in 0..20 {
        let outcome = Machine::new().processors(2).seed(seed).record_sites(true).run(|| {
            let thread = spawn(|| {
                black_box(plain_depth(0));
            });
            thread.join();
        });
        let stop = used_up(&outcome, "plain_depth");
        assert_eq!((stop.routine, stop.in_dpc), (None, false), "{outcome}");
        assert_ne!(stop.thread, Some(2), "{outcome}");
    }
    check_that_all_is_well();
}

#[test]
fn code_that_allocates() {
    for _ in 0..5 {
        let outcome = Machine::new().run(|| {
            black_box(depth_of_allocations(0));
        });
        used_up(&outcome, "depth_of_allocations");
        check_that_all_is_well();
    }
}

#[test]
fn code_that_takes_locks_of_the_host() {
    for _ in 0..5 {
        let outcome = Machine::new().run(|| {
            black_box(depth_of_locks(0));
        });
        used_up(&outcome, "depth_of_locks");
        // Where it is held, it is for ever.
        std::thread::spawn(|| std::io::stdout().flush()).join().expect("a thread of the host runs").expect("the lock is free");
    }
}

#[test]
fn a_large_frame() {
    let outcome = Machine::new().run(|| {
        black_box(large_frame());
    });
    used_up(&outcome, "large_frame");
    check_that_all_is_well();
}

#[test]
fn in_a_dpc() {
    let outcome = Machine::new().run(|| {
        let dpc = Dpc::new(|| {
            black_box(plain_depth(0));
        });
        dpc.queue();
        sleep(MS);
    });
    let stop = used_up(&outcome, "plain_depth");
    assert!(stop.in_dpc && stop.irql == 2, "{outcome}");
    assert!(outcome.to_string().contains("in a DPC"), "{outcome}");
    check_that_all_is_well();
}

#[test]
fn a_search_goes_on() {
    let program = || {
        let event = Event::notification();
        let thread = spawn(|| {
            event.set();
        });
        let late = event.state() == 0;
        thread.join();
        if !late {
            black_box(plain_depth(0));
        }
    };
    // Most schedules have the bug, so that the search shrinks one of them by running others.
    let found = explore().processors(2).schedules(100).check(program);
    let failure = found.expect_failure();
    used_up(&failure.outcome, "plain_depth");
    let again = explore().processors(2).replay(&failure.token, program).expect("the token is of this program");
    used_up(&again.expect_failure().outcome, "plain_depth");
    check_that_all_is_well();
}

#[test]
fn on_several_threads_of_the_host_at_once() {
    std::thread::scope(|scope| {
        for index in 0..8 {
            scope.spawn(move || {
                for _ in 0..10 {
                    let outcome = Machine::new().run(|| match index % 3 {
                        0 => {
                            black_box(plain_depth(0));
                        }
                        1 => {
                            black_box(depth_of_calls(0));
                        }
                        _ => {
                            black_box(depth_of_allocations(0));
                        }
                    });
                    used_up(&outcome, "depth");
                }
            });
        }
    });
}

const SIGABRT: i32 = 6;

struct Node {
    _next: Option<Box<Node>>,
}

impl Node {
    fn list(length: usize) -> Self {
        (0..length).fold(Self { _next: None }, |rest, _| Self { _next: Some(Box::new(rest)) })
    }
}

#[test]
fn drops_of_the_language_alone_end_the_process() {
    let Some((message, signal)) = alone("drops_of_the_language_alone_end_the_process") else {
        let outcome = Machine::new().run(|| drop(Node::list(1_000_000)));
        panic!("it goes on: {outcome}");
    };
    assert_eq!(signal, Some(SIGABRT), "{message}");
    let expected = "ksim: hosted code used up its stack in thread #2 on processor 0, where it cannot be stopped: in ";
    assert!(message.contains(expected), "{message}");
}

#[test]
fn a_panic_that_unwinds_ends_the_process() {
    struct Deep;
    impl Drop for Deep {
        fn drop(&mut self) {
            black_box(plain_depth(0));
        }
    }
    let Some((message, signal)) = alone("a_panic_that_unwinds_ends_the_process") else {
        let outcome = Machine::new().run(|| {
            let _deep = Deep;
            panic!("once");
        });
        panic!("it goes on: {outcome}");
    };
    assert_eq!(signal, Some(SIGABRT), "{message}");
    assert!(message.contains("where it cannot be stopped: in stack::plain_depth"), "{message}");
}

#[test]
fn threads_of_the_host_are_left_to_it() {
    let Some((message, signal)) = alone("threads_of_the_host_are_left_to_it") else {
        Machine::new().run(|| ()).expect_clean();
        let depth = std::thread::Builder::new().name("deep".to_owned()).spawn(|| plain_depth(0)).expect("a thread starts").join();
        panic!("it goes on: {depth:?}");
    };
    assert_eq!(signal, Some(SIGABRT), "{message}");
    assert!(message.contains("thread 'deep'") && message.contains("has overflowed its stack"), "{message}");
    assert!(!message.contains("ksim:"), "{message}");
}
