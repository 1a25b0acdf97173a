//! The library's primitives under searches of schedules: exhaustively in small programs, and by the portfolio in larger ones.
//!
//! The portfolio runs few schedules, or as many as `KSIM_SCHEDULES` says.

#[path = "search/atomics.rs"]
mod atomics;
#[path = "search/cells.rs"]
mod cells;
#[path = "search/driver.rs"]
mod driver;
#[path = "search/later.rs"]
mod later;
#[path = "search/locks.rs"]
mod locks;
#[path = "search/memory.rs"]
mod memory;
#[path = "search/signals.rs"]
mod signals;

use ksim::explore;
use ksim::explore::{Exploration, Strategy};

/// How many schedules the portfolio runs, where the environment does not say.
const SCHEDULES: u64 = 40;

/// Runs all schedules that differ. Each thread, the first included, needs one of the processors.
#[track_caller]
fn exhaust(processors: u8, program: impl Fn() + Sync) -> Exploration {
    let exploration = explore().processors(processors).strategy(Strategy::Exhaustive).check(program);
    exploration.expect_clean();
    exploration
}

/// Runs schedules of the portfolio.
#[track_caller]
fn sample(processors: u8, program: impl Fn() + Sync) {
    explore().processors(processors).schedules(SCHEDULES).check(program).expect_clean();
}

/// The modules of the library whose order of events matters, and the tests of them: each stands for `.._exhaustively` and `.._portfolio`, or for a module with the two.
const TESTED: &[(&str, &[&str])] = &[
    ("device/queue", &["queued_requests"]),
    ("dpc", &["dpc", "threaded_dpc"]),
    ("dpc/once", &["closures_that_run_once"]),
    ("dpc/per_core", &["closures_that_run_once"]),
    ("event", &["event", "synchronization_event"]),
    ("grt/registry", &["registry", "one_name"]),
    ("handle", &["objects_by_handle"]),
    ("lazy/lazy_lock", &["lazy_lock"]),
    ("lazy/once", &["once_lock", "lazy_lock"]),
    ("lazy/once_lock", &["once_lock"]),
    ("lookaside", &["lookaside", "lookaside_s_ends"]),
    ("mutex/at", &["locks_at_levels"]),
    ("mutex/barrier", &["barrier"]),
    ("mutex/condvar", &["condvar"]),
    ("mutex/fast", &["mod fast", "mod tries_fast"]),
    ("mutex/guarded", &["mod guarded", "mod tries_guarded"]),
    ("mutex/kmutex", &["mod kmutex", "mod tries_kmutex", "timed_kmutex"]),
    ("mutex/locked_by", &["locked_by"]),
    ("mutex/push", &["mod push", "mod readers_of_push"]),
    ("mutex/queued", &["queued"]),
    ("mutex/reentrant", &["reentrant_kmutex"]),
    ("mutex/resource", &["mod resource", "mod readers_of_resource"]),
    ("mutex/rundown", &["rundown", "cache_aware_rundown"]),
    ("mutex/spin", &["mod spin", "mod tries_spin"]),
    ("mutex/spin_rw", &["mod spin_rw", "mod readers_of_spin_rw"]),
    ("mutex/wait_queue", &["condvar", "barrier"]),
    ("object", &["objects_by_handle"]),
    ("pool/arc", &["shared_boxes"]),
    ("remove_lock", &["remove_lock"]),
    ("semaphore", &["semaphore"]),
    ("sync", &["counters", "published_values", "first_one_wins"]),
    ("sync/race_cell", &["flag_lock", "peterson"]),
    ("thread", &["threads"]),
    ("thread/scoped", &["threads", "dpc"]),
    ("timer", &["timer", "waitable_timer"]),
    ("timer/delay", &["delays"]),
    ("timer/high_resolution", &["high_resolution_timer", "waitable_high_resolution_timer"]),
    ("timer/resolution", &["timer_resolution"]),
    ("wait", &["waits_for_several"]),
    ("work_item", &["work_item"]),
];

/// The others, by why there is nothing to search.
const UNTESTED: &[(&str, &[&str])] = &[
    (
        "what one thread has for itself, or what only describes something",
        &[
            "device/irp",
            "dpc/processor",
            "driver",
            "driver/image",
            "driver/list",
            "error",
            "init",
            "irql",
            "irql/nesting",
            "irql/token",
            "lazy/lazy_cell",
            "lazy/once_cell",
            "lookaside/error",
            "lookaside/routines",
            "object/id",
            "object/kind",
            "pool",
            "print",
            "region",
            "thread/this_thread",
            "time",
        ],
    ),
    (
        "a part of another module, which is tested through it",
        &[
            "device",
            "device/shared",
            "dpc/pinned",
            "grt",
            "grt/entry",
            "grt/handle",
            "handle/late",
            "lazy",
            "lookaside/boxed",
            "lookaside/list",
            "lookaside/state",
            "lookaside/typed",
            "mutex",
            "mutex/backend",
            "mutex/guard",
            "mutex/locked",
            "mutex/placement",
            "mutex/report",
            "object/dispatcher",
            "object/process",
            "object/thread",
            "routine",
            "thread/packet",
            "timer/block",
            "timer/high_resolution/block",
        ],
    ),
    (
        "one call of the kernel each, which keeps the order",
        &["alloc", "alloc/forward", "alloc/memory", "alloc/raw", "alloc/report", "device/open"],
    ),
];

/// The modules of a directory, by their paths without the ending.
fn modules(directory: &std::path::Path, above: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{above}{}", path.file_stem().unwrap().to_str().unwrap());
        if path.is_dir() {
            modules(&path, &format!("{name}/"), found);
        } else if name != "lib" {
            found.push(name);
        }
    }
}

/// Whatever is new is searched, or is said to need no search.
#[test]
fn every_module_is_searched() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    modules(&root.join("src"), "", &mut found);
    found.sort();
    let untested = UNTESTED.iter().flat_map(|(_, modules)| modules.iter().copied());
    let mut listed: Vec<&str> = TESTED.iter().map(|(module, _)| *module).chain(untested).collect();
    listed.sort_unstable();
    assert_eq!(found, listed, "a module that is in no list, in two, or gone");

    let sources = [
        include_str!("search/atomics.rs"),
        include_str!("search/cells.rs"),
        include_str!("search/driver.rs"),
        include_str!("search/later.rs"),
        include_str!("search/locks.rs"),
        include_str!("search/memory.rs"),
        include_str!("search/signals.rs"),
    ];
    let exists = |text: &str| sources.iter().any(|source| source.contains(text));
    for (module, tests) in TESTED {
        for test in *tests {
            let there = match test.strip_prefix("mod ") {
                Some(generated) => exists(&format!("    {generated}: ")),
                None => ["exhaustively", "portfolio"].iter().all(|kind| exists(&format!("fn {test}_{kind}()"))),
            };
            assert!(there, "{module}: there is no search {test}");
        }
    }
}
