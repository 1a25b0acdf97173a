//! KQUEUE: rule 20.

use ksim::Machine;
use ksync_sys::*;
use std::cell::Cell;
use test_support::*;

#[test]
fn rule_20_remove_returns_an_entry_or_a_status() {
    explore(|| {
        let queue = Queue::new(0);
        let status = |entry: *mut LIST_ENTRY| entry as usize as i32;
        assert_eq!(status(queue.remove_within(0)), STATUS_TIMEOUT);
        let start = now();
        assert_eq!(status(queue.remove_within(3 * MS)), STATUS_TIMEOUT);
        assert_eq!(now() - start, 3 * MS);
        let (one, two) = (Place::zeroed(), Place::zeroed());
        assert_eq!(queue.insert(&one), 0);
        assert_eq!(raw!(KeInsertHeadQueue(queue.ptr(), two.ptr())), 1);
        assert_eq!(raw!(KeReadStateQueue(queue.ptr())), 2);
        assert_eq!(queue.remove_within(0), two.ptr());
        assert_eq!(queue.remove(), one.ptr());
        assert_eq!(raw!(KeReadStateQueue(queue.ptr())), 0);
    });
}

#[test]
fn rule_20_at_most_so_many_threads_are_active() {
    explore_on(&[4], || {
        let (queue, busy, log) = (Queue::new(2), Event::notification(), Log::default());
        let entries: Vec<Place<LIST_ENTRY>> = (0..4).map(|_| Place::zeroed()).collect();
        for entry in &entries {
            queue.insert(entry);
        }
        let active = Cell::new(0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                spawn(|| {
                    queue.remove();
                    active.set(active.get() + 1);
                    assert!(active.get() <= 2);
                    for _ in 0..20 {
                        raw!(KeStallExecutionProcessor(1));
                    }
                    active.set(active.get() - 1);
                    log.push("served");
                    // A thread that blocks elsewhere lets another in.
                    wait(busy.object());
                })
            })
            .collect();
        sleep(SECOND);
        assert_eq!(log.len(), 4);
        busy.set();
        join_all(threads);
    });
}

#[test]
fn rule_20_zero_is_the_number_of_processors() {
    for processors in [1, 4] {
        Machine::new()
            .processors(processors)
            .run(|| assert_eq!(Queue::new(0).read().MaximumCount, u32::from(processors)))
            .expect_clean();
    }
}

#[test]
fn rule_20_rundown_abandons_waits_and_returns_the_entries() {
    explore(|| {
        let queue = Queue::new(4);
        let threads: Vec<_> = (0..3).map(|_| spawn(|| assert_eq!(queue.remove() as usize as i32, STATUS_ABANDONED))).collect();
        settle();
        assert!(raw!(KeRundownQueue(queue.ptr())).is_null());
        join_all(threads);
        let queue = Queue::new(4);
        let (one, two) = (Place::zeroed(), Place::zeroed());
        queue.insert(&one);
        queue.insert(&two);
        let first = raw!(KeRundownQueue(queue.ptr()));
        assert_eq!(first, one.ptr());
        assert_eq!(raw!((*first).Flink), two.ptr());
        assert_eq!(two.read().Flink, one.ptr());
    });
}

#[test]
fn rule_20_kernel_apc_interrupts_a_remove() {
    explore(|| {
        let (queue, entry, inner) = (Queue::new(1), Place::zeroed(), Event::notification());
        let thread = spawn(|| assert_eq!(queue.remove(), entry.ptr()));
        settle();
        let apc = Apc::special(thread.object(), || assert_eq!(wait_until(inner.object(), -MS), STATUS_TIMEOUT));
        apc.insert();
        sleep(2 * MS);
        queue.insert(&entry);
        thread.join();
    });
}

#[test]
fn rule_20_entry_inserted_twice_is_a_bug_check() {
    let entry = Place::<LIST_ENTRY>::zeroed();
    let stop = crash(0x96, || {
        let queue = Queue::new(1);
        queue.insert(&entry);
        queue.insert(&entry);
    });
    assert_eq!(stop.parameters[1], entry.object() as u64);
}
