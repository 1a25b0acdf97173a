//! ERESOURCE (rule 29).

use crate::bug_check::verifier;
use crate::engine::resource::Acquire;
use crate::exports::{IrqlRange, at_most, exports};
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL};
use crate::machine::Call;
use ksync_sys::{BOOLEAN, ERESOURCE, ERESOURCE_THREAD, NTSTATUS, PVOID, STATUS_SUCCESS, ULONG};

const ACQUIRE: IrqlRange = at_most(APC_LEVEL).rule(0x2_0007);
const RELEASE: IrqlRange = at_most(DISPATCH_LEVEL);
/// Verifier's sub-codes for a region that is missing.
const ACQUIRED_WITH_APCS: u64 = verifier::RESOURCE_ACQUIRED_WITH_APCS;
const RELEASED_WITH_APCS: u64 = verifier::RESOURCE_RELEASED_WITH_APCS;

fn acquire(call: Call, resource: *mut ERESOURCE, how: Acquire, wait: bool) -> BOOLEAN {
    let result = call.operate(|kernel| {
        let id = kernel.resource_at(resource)?;
        kernel.check_resource_region(id, ACQUIRED_WITH_APCS)?;
        kernel.acquire_resource(id, how, wait && !call.is_dying())
    });
    if let Some(granted) = result {
        if !granted && wait && call.is_dying() {
            // The thread holds it itself.
            call.end_unwinding();
        }
        return BOOLEAN::from(granted);
    }
    while !call.operate(|kernel| {
        let id = kernel.resource_at(resource)?;
        kernel.resource_granted(id)
    }) {}
    1
}

fn release(call: Call, resource: *mut ERESOURCE) {
    call.operate(|kernel| {
        let id = kernel.resource_at(resource)?;
        kernel.check_resource_region(id, RELEASED_WITH_APCS)?;
        let key = kernel.resource_key();
        kernel.release_resource(id, key, false)
    });
}

/// What the routines return that enter a critical region: the thread's Win32 data in Windows, which system threads have none of.
const NO_WIN32_THREAD: PVOID = std::ptr::null_mut();

fn enter_and_acquire(call: Call, resource: *mut ERESOURCE, how: Acquire) -> PVOID {
    call.operate(|kernel| kernel.enter_critical_region());
    acquire(call, resource, how, true);
    NO_WIN32_THREAD
}

exports! {
    [ACQUIRE] silent fn ExInitializeResourceLite(call; Resource: *mut ERESOURCE) -> NTSTATUS {
        // SAFETY: the caller passes memory for an ERESOURCE.
        call.operate(|kernel| unsafe { kernel.initialize_resource(Resource) });
        STATUS_SUCCESS
    }

    [ACQUIRE] visible(access Resource) fn ExReinitializeResourceLite(call; Resource: *mut ERESOURCE) -> NTSTATUS {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            kernel.reinitialize_resource(id)
        });
        STATUS_SUCCESS
    }

    [ACQUIRE] visible(access Resource) fn ExDeleteResourceLite(call; Resource: *mut ERESOURCE) -> NTSTATUS {
        call.operate(|kernel| kernel.delete_resource(Resource));
        STATUS_SUCCESS
    }

    [ACQUIRE] visible(acquire_if Resource, Wait) fn ExAcquireResourceExclusiveLite(call; Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN {
        acquire(call, Resource, Acquire::Exclusive, Wait != 0)
    }

    [ACQUIRE] visible(share_if Resource, Wait) fn ExAcquireResourceSharedLite(call; Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN {
        acquire(call, Resource, Acquire::Shared, Wait != 0)
    }

    [ACQUIRE] visible(among_waiters Resource) fn ExAcquireSharedStarveExclusive(call; Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN {
        acquire(call, Resource, Acquire::SharedStarveExclusive, Wait != 0)
    }

    [ACQUIRE] visible(among_waiters Resource) fn ExAcquireSharedWaitForExclusive(call; Resource: *mut ERESOURCE, Wait: BOOLEAN) -> BOOLEAN {
        acquire(call, Resource, Acquire::SharedWaitForExclusive, Wait != 0)
    }

    [ACQUIRE] visible(access Resource) fn ExConvertExclusiveToSharedLite(call; Resource: *mut ERESOURCE) {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            kernel.convert_resource(id)
        });
    }

    [RELEASE] visible(unshare Resource) fn ExReleaseResourceLite(call; Resource: *mut ERESOURCE) {
        release(call, Resource);
    }

    [RELEASE] visible(access Resource) fn ExReleaseResourceForThreadLite(
        call; Resource: *mut ERESOURCE, ResourceThreadId: ERESOURCE_THREAD
    ) {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            kernel.release_resource(id, ResourceThreadId, true)
        });
    }

    [RELEASE] visible(read Resource) fn ExIsResourceAcquiredExclusiveLite(call; Resource: *mut ERESOURCE) -> BOOLEAN {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            Ok(BOOLEAN::from(kernel.resource_ownership(id).1))
        })
    }

    [RELEASE] visible(read Resource) fn ExIsResourceAcquiredSharedLite(call; Resource: *mut ERESOURCE) -> ULONG {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            Ok(kernel.resource_ownership(id).0)
        })
    }

    [RELEASE] visible(among_waiters Resource) fn ExGetExclusiveWaiterCount(call; Resource: *mut ERESOURCE) -> ULONG {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            Ok(kernel.resource_waiters(id).0)
        })
    }

    [RELEASE] visible(among_waiters Resource) fn ExGetSharedWaiterCount(call; Resource: *mut ERESOURCE) -> ULONG {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            Ok(kernel.resource_waiters(id).1)
        })
    }

    [RELEASE] visible(access Resource) fn ExSetResourceOwnerPointer(call; Resource: *mut ERESOURCE, OwnerPointer: PVOID) {
        call.operate(|kernel| {
            let id = kernel.resource_at(Resource)?;
            kernel.set_resource_owner(id, OwnerPointer as usize)
        });
    }

    [RELEASE] silent fn ExDisableResourceBoostLite(call; Resource: *mut ERESOURCE) {
        // Resources of the hosted kernel boost nobody.
        call.operate(|kernel| kernel.resource_at(Resource).map(drop));
    }

    [ACQUIRE] visible(acquire Resource) fn ExEnterCriticalRegionAndAcquireResourceExclusive(call; Resource: *mut ERESOURCE) -> PVOID {
        enter_and_acquire(call, Resource, Acquire::Exclusive)
    }

    [ACQUIRE] visible(share Resource) fn ExEnterCriticalRegionAndAcquireResourceShared(call; Resource: *mut ERESOURCE) -> PVOID {
        enter_and_acquire(call, Resource, Acquire::Shared)
    }

    [ACQUIRE] visible(among_waiters Resource) fn ExEnterCriticalRegionAndAcquireSharedWaitForExclusive(call; Resource: *mut ERESOURCE) -> PVOID {
        enter_and_acquire(call, Resource, Acquire::SharedWaitForExclusive)
    }

    [ACQUIRE] visible(unshare Resource) fn ExReleaseResourceAndLeaveCriticalRegion(call; Resource: *mut ERESOURCE) {
        release(call, Resource);
        call.operate(|kernel| kernel.leave_critical_region());
    }
}
