//! Mutants and semaphores by handle.
//!
//! They are system services like those of events and timers. The import libraries of kits do not list them all, so that only images can have them.

use crate::engine::Fault;
use crate::engine::ob::Type;
use crate::exports::zw::{Mode, Use, ZW_PASSIVE, create, give, open};
use crate::exports::{PASSIVE, image_exports};
use crate::machine::Call;
use ksync_sys::{
    ACCESS_MASK, BOOLEAN, HANDLE, KMUTANT, KSEMAPHORE, LONG, MUTANT_INCREMENT, NTSTATUS, OBJECT_ATTRIBUTES, PVOID,
    SEMAPHORE_INCREMENT, SEMAPHORE_MODIFY_STATE, STATUS_INVALID_PARAMETER, STATUS_SUCCESS,
};

/// A service reports as a status what the routine beneath it raises.
fn caught(result: Result<LONG, Fault>) -> Result<Result<LONG, NTSTATUS>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(fault) => match fault.raised {
            Some(status) => Ok(Err(status)),
            None => Err(fault),
        },
    }
}

fn finish(previous: *mut LONG, result: Result<Result<LONG, NTSTATUS>, NTSTATUS>) -> NTSTATUS {
    match result {
        Ok(Ok(state)) => {
            give(previous, state);
            STATUS_SUCCESS
        }
        Ok(Err(status)) | Err(status) => status,
    }
}

fn release_mutant(call: Call, handle: HANDLE, previous: *mut LONG) -> NTSTATUS {
    // Any handle will do: who owns the mutant may release it.
    let mutant = Use::new(Mode::Kernel, handle, 0, Type::Mutant);
    finish(previous, mutant.operate(call, |kernel, id| caught(kernel.release_mutant(id, MUTANT_INCREMENT))))
}

image_exports! {
    [ZW_PASSIVE] visible fn ZwCreateMutant(
        call; MutantHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        InitialOwner: BOOLEAN
    ) -> NTSTATUS {
        create(call, Type::Mutant, (MutantHandle, DesiredAccess, ObjectAttributes), |kernel, mutant: *mut KMUTANT| {
            // SAFETY: the memory is fresh, and a KMUTANT's.
            unsafe { kernel.initialize_mutant(mutant, false, InitialOwner != 0) }
        })
    }

    [ZW_PASSIVE] visible fn ZwOpenMutant(
        call; MutantHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES
    ) -> NTSTATUS {
        open(call, Type::Mutant, (MutantHandle, DesiredAccess, ObjectAttributes))
    }

    [PASSIVE] visible fn ObMakeTemporaryObject(call; Object: PVOID) {
        call.operate(|kernel| {
            let id = kernel.referenced_object(Object as usize)?;
            kernel.make_temporary(id)
        });
    }

    [ZW_PASSIVE] visible fn ZwMakeTemporaryObject(call; Handle: HANDLE) -> NTSTATUS {
        let object = Use::new(Mode::Kernel, Handle, 0, None);
        object.operate(call, |kernel, id| kernel.make_temporary(id)).map_or_else(|status| status, |()| STATUS_SUCCESS)
    }

    [ZW_PASSIVE] visible fn ZwReleaseMutant(call; MutantHandle: HANDLE, PreviousCount: *mut LONG) -> NTSTATUS {
        release_mutant(call, MutantHandle, PreviousCount)
    }

    [ZW_PASSIVE] visible fn ZwCreateSemaphore(
        call; SemaphoreHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES,
        InitialCount: LONG, MaximumCount: LONG
    ) -> NTSTATUS {
        if MaximumCount <= 0 || !(0..=MaximumCount).contains(&InitialCount) {
            return STATUS_INVALID_PARAMETER;
        }
        let what = (SemaphoreHandle, DesiredAccess, ObjectAttributes);
        create(call, Type::Semaphore, what, |kernel, semaphore: *mut KSEMAPHORE| {
            // SAFETY: the memory is fresh, and a KSEMAPHORE's.
            unsafe { kernel.initialize_semaphore(semaphore, InitialCount, MaximumCount) }
        })
    }

    [ZW_PASSIVE] visible fn ZwOpenSemaphore(
        call; SemaphoreHandle: *mut HANDLE, DesiredAccess: ACCESS_MASK, ObjectAttributes: *const OBJECT_ATTRIBUTES
    ) -> NTSTATUS {
        open(call, Type::Semaphore, (SemaphoreHandle, DesiredAccess, ObjectAttributes))
    }

    [ZW_PASSIVE] visible fn ZwReleaseSemaphore(
        call; SemaphoreHandle: HANDLE, ReleaseCount: LONG, PreviousCount: *mut LONG
    ) -> NTSTATUS {
        if ReleaseCount <= 0 {
            return STATUS_INVALID_PARAMETER;
        }
        let semaphore = Use::new(Mode::Kernel, SemaphoreHandle, SEMAPHORE_MODIFY_STATE, Type::Semaphore);
        let release = |kernel: &mut crate::engine::Kernel, id| {
            caught(kernel.release_semaphore(id, SEMAPHORE_INCREMENT, ReleaseCount))
        };
        finish(PreviousCount, semaphore.operate(call, release))
    }
}
