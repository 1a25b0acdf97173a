//! Locks that several may share, those that are given up for good, and the other ways to have a lock for oneself.

use crate::{SMALL, Seen, Words, compare, compare_if_small, few, perform};
use ksync_sys::*;
use proptest::prelude::*;
use std::ptr::null_mut;
use test_support::*;

/// Steps with a number read one of two words under the lock, or change it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Load(usize),
    Store(usize),
    /// The ERESOURCE.
    Own(usize),
    Share(usize),
    /// It is shared, and a word is changed.
    ShareStore(usize),
    StarveExclusive(usize),
    WaitForExclusive(usize),
    /// It is changed, and then shared while another is read.
    Convert(usize),
    /// Acquired once more while it is owned, and shared.
    OwnTwice(usize),
    TryOwn(usize),
    TryShare(usize),
    TryStarveExclusive(usize),
    Waiters,
    /// The EX_SPIN_LOCK.
    SpinOwn(usize),
    SpinShare(usize),
    SpinShareStore(usize),
    SpinTryOwn(usize),
    SpinTryShare(usize),
    SpinUpgrade(usize),
    /// A spin lock with a queue, and one without.
    Queued(usize),
    Plain(usize),
    TryPlain(usize),
    TestPlain,
    Guarded(usize),
    TryGuarded(usize),
    Protect(usize),
    Rundown,
    Reinitialize,
    Remove,
    Use(usize),
}

fn resource_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        which().prop_map(Step::Own),
        which().prop_map(Step::Share),
        which().prop_map(Step::ShareStore),
        which().prop_map(Step::StarveExclusive),
        which().prop_map(Step::WaitForExclusive),
        which().prop_map(Step::Convert),
        which().prop_map(Step::OwnTwice),
        which().prop_map(Step::TryOwn),
        which().prop_map(Step::TryShare),
        which().prop_map(Step::TryStarveExclusive),
        Just(Step::Waiters),
    ]
}

fn spin_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        which().prop_map(Step::SpinOwn),
        which().prop_map(Step::SpinShare),
        which().prop_map(Step::SpinShareStore),
        which().prop_map(Step::SpinTryOwn),
        which().prop_map(Step::SpinTryShare),
        which().prop_map(Step::SpinUpgrade),
    ]
}

fn single_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        which().prop_map(Step::Queued),
        which().prop_map(Step::Plain),
        which().prop_map(Step::TryPlain),
        Just(Step::TestPlain),
        which().prop_map(Step::Guarded),
        which().prop_map(Step::TryGuarded),
    ]
}

fn ending_step() -> impl Strategy<Value = Step> {
    let which = || 0..2_usize;
    prop_oneof![
        which().prop_map(Step::Protect),
        Just(Step::Rundown),
        Just(Step::Reinitialize),
        Just(Step::Remove),
        which().prop_map(Step::Use),
    ]
}

fn word_step() -> impl Strategy<Value = Step> {
    prop_oneof![(0..2_usize).prop_map(Step::Load), (0..2_usize).prop_map(Step::Store)]
}

type Program = Vec<Vec<Step>>;

fn of<S: Strategy<Value = Step> + Clone>(step: S) -> impl Strategy<Value = Program> {
    let step = prop_oneof![1 => word_step(), 3 => step];
    prop_oneof![
        3 => prop::collection::vec(prop::collection::vec(step.clone(), 1..=3), 2),
        2 => prop::collection::vec(prop::collection::vec(step.clone(), 1..=1), 3),
        1 => prop::collection::vec(prop::collection::vec(step, 1..=2), 3),
    ]
}

struct Shared {
    words: Words,
    resource: Place<ERESOURCE>,
    lock: Place<EX_SPIN_LOCK>,
    spin: SpinLock,
    queued: SpinLock,
    guarded: GuardedMutex,
    rundown: Place<EX_RUNDOWN_REF>,
    remove: Place<IO_REMOVE_LOCK>,
}

impl Shared {
    fn new() -> Self {
        let (resource, rundown, remove) = (Place::zeroed(), Place::zeroed(), Place::zeroed());
        raw!(ExInitializeResourceLite(resource.ptr()));
        raw!(ExInitializeRundownProtection(rundown.ptr()));
        raw!(IoInitializeRemoveLock(remove.ptr(), TAG, 0, 0));
        Self {
            words: Words::default(),
            resource,
            lock: Place::zeroed(),
            spin: SpinLock::new(),
            queued: SpinLock::new(),
            guarded: GuardedMutex::new(),
            rundown,
            remove,
        }
    }

    /// Does something with the resource that `acquire` may get.
    fn with_resource(&self, acquire: impl FnOnce(*mut ERESOURCE) -> BOOLEAN, code: impl FnOnce() -> i64) -> i64 {
        raw!(KeEnterCriticalRegion());
        let result = if acquire(self.resource.ptr()) != 0 {
            let result = code();
            raw!(ExReleaseResourceLite(self.resource.ptr()));
            result
        } else {
            -1
        };
        raw!(KeLeaveCriticalRegion());
        result
    }

    fn perform(&self, step: Step) -> i64 {
        let (words, lock) = (&self.words, self.lock.ptr());
        match step {
            Step::Load(which) => words.load(which),
            Step::Store(which) => words.store(which),
            Step::Own(which) => {
                self.with_resource(|resource| raw!(ExAcquireResourceExclusiveLite(resource, TRUE)), || words.double(which))
            }
            Step::Share(which) => {
                self.with_resource(|resource| raw!(ExAcquireResourceSharedLite(resource, TRUE)), || words.load(which))
            }
            Step::ShareStore(which) => {
                self.with_resource(|resource| raw!(ExAcquireResourceSharedLite(resource, TRUE)), || words.store(which))
            }
            Step::StarveExclusive(which) => {
                self.with_resource(|resource| raw!(ExAcquireSharedStarveExclusive(resource, TRUE)), || words.load(which))
            }
            Step::WaitForExclusive(which) => {
                self.with_resource(|resource| raw!(ExAcquireSharedWaitForExclusive(resource, TRUE)), || words.load(which))
            }
            Step::Convert(which) => self.with_resource(
                |resource| raw!(ExAcquireResourceExclusiveLite(resource, TRUE)),
                || {
                    let value = words.double(which);
                    raw!(ExConvertExclusiveToSharedLite(self.resource.ptr()));
                    10 * value + words.load(1 - which)
                },
            ),
            Step::OwnTwice(which) => self.with_resource(
                |resource| raw!(ExAcquireResourceExclusiveLite(resource, TRUE)),
                || self.with_resource(|resource| raw!(ExAcquireResourceSharedLite(resource, TRUE)), || words.double(which)),
            ),
            Step::TryOwn(which) => {
                self.with_resource(|resource| raw!(ExAcquireResourceExclusiveLite(resource, FALSE)), || words.double(which))
            }
            Step::TryShare(which) => {
                self.with_resource(|resource| raw!(ExAcquireResourceSharedLite(resource, FALSE)), || words.load(which))
            }
            Step::TryStarveExclusive(which) => {
                self.with_resource(|resource| raw!(ExAcquireSharedStarveExclusive(resource, FALSE)), || words.load(which))
            }
            Step::Waiters => {
                let [exclusive, shared] =
                    [raw!(ExGetExclusiveWaiterCount(self.resource.ptr())), raw!(ExGetSharedWaiterCount(self.resource.ptr()))];
                (10 * exclusive + shared).into()
            }
            Step::SpinOwn(which) => {
                let old = raw!(ExAcquireSpinLockExclusive(lock));
                let value = words.double(which);
                raw!(ExReleaseSpinLockExclusive(lock, old));
                value
            }
            Step::SpinShare(which) => {
                let old = raw!(ExAcquireSpinLockShared(lock));
                let value = words.load(which);
                raw!(ExReleaseSpinLockShared(lock, old));
                value
            }
            Step::SpinShareStore(which) => {
                let old = raw!(ExAcquireSpinLockShared(lock));
                words.store(which);
                raw!(ExReleaseSpinLockShared(lock, old));
                0
            }
            Step::SpinTryOwn(which) => at(DISPATCH_LEVEL, || {
                if raw!(ExTryAcquireSpinLockExclusiveAtDpcLevel(lock)) == 0 {
                    return -1;
                }
                let value = words.double(which);
                raw!(ExReleaseSpinLockExclusiveFromDpcLevel(lock));
                value
            }),
            Step::SpinTryShare(which) => at(DISPATCH_LEVEL, || {
                if raw!(ExTryAcquireSpinLockSharedAtDpcLevel(lock)) == 0 {
                    return -1;
                }
                let value = words.load(which);
                raw!(ExReleaseSpinLockSharedFromDpcLevel(lock));
                value
            }),
            Step::SpinUpgrade(which) => {
                let old = raw!(ExAcquireSpinLockShared(lock));
                if raw!(ExTryConvertSharedSpinLockExclusive(lock)) == 0 {
                    let value = words.load(which);
                    raw!(ExReleaseSpinLockShared(lock, old));
                    return -value - 1;
                }
                let value = words.double(which);
                raw!(ExReleaseSpinLockExclusive(lock, old));
                value
            }
            Step::Queued(which) => {
                let handle = QueueHandle::new();
                handle.acquire(&self.queued);
                let value = words.double(which);
                handle.release();
                value
            }
            Step::Plain(which) => self.spin.with(|| words.double(which)),
            Step::TryPlain(which) => at(DISPATCH_LEVEL, || {
                if raw!(KeTryToAcquireSpinLockAtDpcLevel(self.spin.ptr())) == 0 {
                    return -1;
                }
                let value = words.double(which);
                raw!(KeReleaseSpinLockFromDpcLevel(self.spin.ptr()));
                value
            }),
            Step::TestPlain => raw!(KeTestSpinLock(self.spin.ptr())).into(),
            Step::Guarded(which) => {
                self.guarded.acquire();
                let value = words.double(which);
                self.guarded.release();
                value
            }
            Step::TryGuarded(which) => {
                if raw!(KeTryToAcquireGuardedMutex(self.guarded.ptr())) == 0 {
                    return -1;
                }
                let value = words.double(which);
                self.guarded.release();
                value
            }
            Step::Protect(which) => {
                if raw!(ExAcquireRundownProtection(self.rundown.ptr())) == 0 {
                    return -1;
                }
                let value = words.double(which);
                raw!(ExReleaseRundownProtection(self.rundown.ptr()));
                value
            }
            Step::Rundown => {
                raw!(ExWaitForRundownProtectionRelease(self.rundown.ptr()));
                words.double(0)
            }
            Step::Reinitialize => {
                raw!(ExWaitForRundownProtectionRelease(self.rundown.ptr()));
                raw!(ExReInitializeRundownProtection(self.rundown.ptr()));
                0
            }
            Step::Remove => {
                let status = raw!(IoAcquireRemoveLock(self.remove.ptr(), null_mut()));
                if status == STATUS_SUCCESS {
                    raw!(IoReleaseRemoveLockAndWait(self.remove.ptr(), null_mut()));
                    return words.double(0);
                }
                status.into()
            }
            Step::Use(which) => {
                let status = raw!(IoAcquireRemoveLock(self.remove.ptr(), null_mut()));
                if status == STATUS_SUCCESS {
                    let value = words.double(which);
                    raw!(IoReleaseRemoveLock(self.remove.ptr(), null_mut()));
                    return value;
                }
                status.into()
            }
        }
    }
}

fn run(program: &Program) -> Seen {
    let shared = Shared::new();
    let results = perform(program, |step, _, _| shared.perform(step));
    raw!(ExDeleteResourceLite(shared.resource.ptr()));
    (results, shared.words.both())
}

fn check(program: &Program) {
    compare(program.len(), || run(program));
}

proptest! {
    #![proptest_config(few())]
    #[test]
    fn nothing_is_missed_of_resources(program in of(resource_step().boxed())) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_shared_spin_locks(program in of(spin_step().boxed())) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_queued_spin_locks_and_guarded_mutexes(program in of(single_step().boxed())) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }

    #[test]
    fn nothing_is_missed_of_rundown_and_removal(program in of(ending_step().boxed())) {
        compare_if_small(program.len(), SMALL, || run(&program));
    }
}

/// A reader does not become the writer while another writer turns, which is then let try again by one release, and not by the next.
#[test]
fn who_turns_matters_to_who_shares() {
    check(&vec![vec![Step::SpinUpgrade(1), Step::SpinOwn(0)], vec![Step::SpinOwn(0), Step::Load(0)]]);
    check(&vec![vec![Step::SpinOwn(1)], vec![Step::SpinUpgrade(0), Step::SpinTryShare(0), Step::SpinTryOwn(1)]]);
    check(&vec![vec![Step::SpinOwn(1)], vec![Step::SpinShare(0), Step::SpinTryShare(0), Step::SpinTryOwn(1)]]);
    check(&vec![vec![Step::SpinShareStore(1)], vec![Step::SpinOwn(0)], vec![Step::SpinTryShare(0), Step::Load(1)]]);
    check(&vec![vec![Step::ShareStore(1)], vec![Step::Own(0)], vec![Step::TryShare(0), Step::Load(1)]]);
}
