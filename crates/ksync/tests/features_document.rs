//! `docs/features.md` says what became of each item of the documents that this project starts from. This keeps it true.

use test_support::documents::{document, links, rows, wrong_links};

/// The parts of the document, and how many rows each has at least.
const PARTS: [(&str, usize); 4] =
    [("ksync 0.1.4", 55), ("wdk-mutex 1.3.2", 17), ("win-lookaside 0.1.0", 13), ("The WDM chapter", 40)];

#[test]
fn every_named_test_exists() {
    let (path, text) = document("features.md");
    let wrong = wrong_links(&path, &text);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_row_is_filled_in() {
    let (_, text) = document("features.md");
    for (name, at_least) in PARTS {
        let (_, part) = text.split_once(&format!("\n## {name}\n")).unwrap();
        let part = part.split("\n## ").next().unwrap();
        let rows: Vec<_> = rows(part).collect();
        assert!(rows.len() >= at_least, "{name}: {} rows", rows.len());
        for row in rows {
            assert_eq!(row.len(), 3, "{row:?}");
            assert!(row.iter().all(|cell| !cell.is_empty()), "{name} {row:?}");
            assert!(links(row[2]).next().is_some() || row[2].starts_with("not offered yet ("), "{name} {row:?}");
        }
    }
}

/// The items that the seeds show by name: each of them has a row.
#[test]
fn every_name_of_the_seeds_has_a_row() {
    const NAMES: [&str; 75] = [
        "KernelObject<T>",
        "ProcessObject::from_process_id",
        "ThreadObject::from_thread_handle",
        "Dispatchable",
        "wait_for",
        "ObjectHandle::from_process",
        "thread::spawn",
        "this_thread::sleep",
        "this_thread::id",
        "this_thread::pause",
        "available_parallelism",
        "LazyCell",
        "LazyLock",
        "OnceCell",
        "OnceLock",
        "GuardLocked",
        "FastLocked",
        "ResouceLocked",
        "SpinLocked",
        "InStackQueueLocked",
        "LockedQuueHandle",
        "Event",
        "Semaphore",
        "Dpc",
        "ThreadedDpc",
        "run_once_per_core",
        "Timer::new",
        "JoinHandle",
        "HRTimer",
        "println!",
        "KMutex::new",
        "KMutex::lock",
        "to_owned",
        "to_owned_box",
        "KMutexGuard",
        "DriverMutexError",
        "Grt::init",
        "register_kmutex",
        "get_kmutex",
        "destroy",
        "LookasideAlloc::default",
        "LookasideAlloc::init",
        "LookasideAlloc::destroy",
        "Box::try_new_in",
        "from_raw_in",
        "Allocator",
        "KeInitializeMutex",
        "KeReadStateMutex",
        "KeReleaseMutex",
        "KeWaitForMutexObject",
        "KeWaitForSingleObject",
        "KeWaitForMultipleObjects",
        "KeCancelTimer",
        "KeInitializeTimer",
        "KeInitializeTimerEx",
        "KeReadStateTimer",
        "KeSetTimer",
        "KeSetTimerEx",
        "KeInitializeDpc",
        "KeRemoveQueueDpc",
        "KeDelayExecutionThread",
        "KeStallExecutionProcessor",
        "PsCreateSystemThread",
        "PsTerminateSystemThread",
        "KeGetCurrentThread",
        "ObReferenceObjectByHandle",
        "ObDereferenceObject",
        "ZwClose",
        "NtAlertThread",
        "QueueUserAPC",
        "STATUS_ALERTED",
        "STATUS_USER_APC",
        "IoCompleteRequest",
        "ExGetPreviousMode",
        "CCriticalSection",
    ];
    let (_, text) = document("features.md");
    let items: Vec<_> = rows(&text).map(|row| row[0].to_owned()).collect();
    for name in NAMES {
        assert!(items.iter().any(|item| item.contains(name)), "{name}");
    }
}
