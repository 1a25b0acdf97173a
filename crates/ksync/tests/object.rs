//! References to objects, and handles, on the hosted kernel.

use core::time::Duration;
use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::handle::ObjectHandle;
use ksync::irql::{self, Irql};
use ksync::object::{ProcessId, ProcessObject, ThreadObject};
use ksync::sys;
use ksync::thread::this_thread;
use ksync::wait::Dispatchable;

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().processors(2).run(|| code().unwrap()).expect_clean();
}

#[test]
fn ksync_17_references_are_counted() {
    // The machine reports references that are left, and a bug check for one too few.
    on_machine(|| {
        let process = ProcessObject::from_process_id(4)?;
        let copies: Vec<_> = (0..5).map(|_| process.clone()).collect();
        assert!(copies.iter().all(|copy| *copy == process));
        // SAFETY: the reference is the one that was given up.
        let back = unsafe { ProcessObject::from_raw(process.into_raw()) };
        assert_eq!(back, ProcessObject::current());
        irql::with_raised(Irql::DISPATCH, || {
            let copy = back.clone();
            drop(copy);
            drop(copies);
        })
    });
}

#[test]
fn ksync_16_a_handle_is_closed_once() {
    on_machine(|| {
        let thread = ThreadObject::current();
        drop(ObjectHandle::from_thread(&thread, sys::GENERIC_ALL)?);
        ObjectHandle::from_thread(thread, sys::GENERIC_ALL)?.close()?;
        let handle = ObjectHandle::from_process(ProcessObject::current(), sys::GENERIC_ALL)?;
        // SAFETY: the handle is the one that was given up.
        drop(unsafe { ObjectHandle::from_raw(handle.into_raw()) });
        Ok(())
    });
}

#[test]
fn ksync_19_types_are_checked() {
    on_machine(|| {
        let thread = ObjectHandle::from_thread(ThreadObject::current(), sys::THREAD_ALL_ACCESS)?;
        let process = ObjectHandle::from_process(ProcessObject::current(), sys::PROCESS_ALL_ACCESS)?;
        let mismatch = NtError::OBJECT_TYPE_MISMATCH;
        assert_eq!(thread.to_process().unwrap_err(), mismatch);
        assert_eq!(process.to_thread().unwrap_err(), mismatch);
        assert_eq!(ProcessObject::from_process_handle(thread.as_raw()).unwrap_err(), mismatch);
        assert_eq!(ThreadObject::from_thread_handle(process.as_raw()).unwrap_err(), mismatch);
        assert_eq!(ThreadObject::from_thread_handle(sys::NtCurrentProcess()).unwrap_err(), mismatch);
        assert_eq!(ThreadObject::from_thread_handle(sys::NtCurrentThread())?, ThreadObject::current());
        assert_eq!(ThreadObject::try_from(&thread)?, ThreadObject::current());
        assert_eq!(ObjectHandle::try_from(&ProcessObject::current())?.to_process()?.id(), 4);
        Ok(())
    });
}

#[test]
fn ksync_41_users_handles_are_referenced_as_the_users_own() {
    on_machine(|| {
        let user = ksim::create_process();
        ksim::in_process(user, || {
            let thread = ThreadObject::current();
            let open = |access| {
                let mut handle = core::ptr::null_mut();
                // SAFETY: the object is referenced, and the handle is a local variable.
                let status = unsafe {
                    sys::ObOpenObjectByPointer(
                        thread.as_raw().cast(),
                        0,
                        core::ptr::null_mut(),
                        access,
                        sys::PsThreadType,
                        sys::KernelMode,
                        &raw mut handle,
                    )
                };
                assert_eq!(status, 0);
                handle
            };
            let (good, weak) = (open(sys::SYNCHRONIZE), open(sys::THREAD_TERMINATE));
            assert_eq!(ThreadObject::from_thread_handle(good), Ok(thread.clone()));
            assert_eq!(ThreadObject::from_thread_handle(weak), Err(NtError::ACCESS_DENIED));
            assert_eq!(ProcessObject::from_process_handle(good).unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
            for handle in [good, weak] {
                // SAFETY: the handle was opened above and is closed once.
                assert_eq!(unsafe { sys::ZwClose(handle) }, 0);
                assert_eq!(ThreadObject::from_thread_handle(handle), Err(NtError::INVALID_HANDLE));
            }
        });
        Ok(())
    });
}

#[test]
fn ksync_41_a_users_request_reaches_no_kernel_handle() {
    on_machine(|| {
        // Whatever a user passes, the driver looks it up; here it has guessed a kernel handle.
        let guessed = ThreadObject::current().open(sys::GENERIC_ALL)?;
        let raw = guessed.as_raw();
        ksim::system_call(|| {
            assert_eq!(ThreadObject::from_thread_handle(raw), Err(NtError::INVALID_HANDLE));
            assert_eq!(ThreadObject::from_handle(raw, 0), Err(NtError::INVALID_HANDLE));
            // The driver's own use of its own handle is another thing.
            assert_eq!(guessed.to_thread(), Ok(ThreadObject::current()));
            // So are the numbers that stand for the current thread and process.
            assert_eq!(ThreadObject::from_thread_handle(sys::NtCurrentThread()), Ok(ThreadObject::current()));
        });
        assert_eq!(ThreadObject::from_user_handle(raw, 0), Err(NtError::INVALID_HANDLE));
        assert_eq!(ThreadObject::from_user_handle(core::ptr::null_mut(), 0), Err(NtError::INVALID_HANDLE));
        Ok(())
    });
}

#[test]
fn identifiers_are_numbers_of_their_own() {
    on_machine(|| {
        let (process, thread) = (ProcessId::new(4), this_thread::id());
        assert_eq!(ProcessObject::from_process_id(process)?.id(), process);
        assert_eq!(ProcessObject::from_process_id(process.get())?.id(), 4);
        assert_eq!(ThreadObject::from_thread_id(thread)?.id(), thread);
        assert_eq!(ThreadObject::from_thread_id(usize::from(thread))?.id(), thread.get());
        assert_eq!((format!("{process}"), format!("{process:?}")), ("4".to_owned(), "ProcessId(4)".to_owned()));
        Ok(())
    });
}

#[test]
fn nothing_is_an_error() {
    on_machine(|| {
        let invalid = Err(NtError::INVALID_HANDLE);
        assert_eq!(ThreadObject::from_thread_handle(core::ptr::null_mut()), invalid);
        assert_eq!(ThreadObject::from_thread_handle(0x1024 as sys::HANDLE), invalid);
        assert!(ProcessObject::from_process_id(0x1024).is_err());
        assert!(ThreadObject::from_thread_id(usize::MAX).is_err());
        assert!(ProcessObject::from_process_id(0).is_err());
        Ok(())
    });
}

#[test]
fn levels_are_checked() {
    on_machine(|| {
        let thread = ThreadObject::current();
        let handle = thread.open(sys::GENERIC_ALL)?;
        irql::with_raised(Irql::APC, || {
            let too_high = NtError::IRQL_TOO_HIGH;
            assert_eq!(ThreadObject::from_thread_id(this_thread::id()), Ok(thread.clone()));
            assert!(ProcessObject::from_process_id(4).is_ok());
            assert_eq!(ThreadObject::from_thread_handle(handle.as_raw()).unwrap_err(), too_high);
            assert_eq!(handle.to_thread().unwrap_err(), too_high);
            assert_eq!(thread.open(0).unwrap_err(), too_high);
            assert_eq!(thread.set_priority(9).unwrap_err(), too_high);
            assert_eq!(thread.exit_status(), Ok(None));
        })?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(ThreadObject::from_thread_id(this_thread::id()), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(ProcessObject::from_process_id(4), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(thread.exit_status(), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(thread.is_terminated(), Ok(false));
            assert!(thread.priority().is_ok());
            assert!(thread.wait_for(Duration::ZERO, false).timed_out());
        })
    });
}

#[test]
fn a_handle_dropped_above_passive_level_is_closed_later_and_reported() {
    for (level, by_drain) in [(Irql::APC, true), (Irql::DISPATCH, true), (Irql::DISPATCH, false)] {
        let outcome = Machine::new().run(|| {
            let handles: Vec<_> = (0..3).map(|_| ThreadObject::current().open(sys::GENERIC_ALL).unwrap()).collect();
            irql::with_raised(level, || drop(handles)).unwrap();
            if by_drain {
                ksync::driver::drain().unwrap();
            } else {
                drop(ThreadObject::current().open(sys::GENERIC_ALL));
            }
        });
        assert_eq!(outcome.debug_output(), ["ksync: a handle was dropped above PASSIVE_LEVEL; it is closed later"; 3]);
        outcome.expect_clean();
    }
}

#[test]
fn a_handle_that_nothing_can_close_is_leaked_and_reported() {
    let handle_at = |level: sys::KIRQL, failing: u64| {
        Machine::new().fail_allocation(failing).run(move || {
            let handle = ThreadObject::current().open(sys::GENERIC_ALL).unwrap();
            // SAFETY: the level is restored below, and in between only a drop runs that checks it.
            let old = unsafe { sys::KfRaiseIrql(level) };
            drop(handle);
            // SAFETY: the level was raised above from this one.
            unsafe { sys::KeLowerIrql(old) };
            ksync::driver::drain().unwrap();
        })
    };
    // Above the level at which there is memory; and without any.
    for outcome in [handle_at(5, u64::MAX), handle_at(1, 2)] {
        assert!(outcome.is_completed());
        assert_eq!(outcome.left().handles, 1);
        assert_eq!(outcome.debug_output(), ["ksync: a handle was dropped above PASSIVE_LEVEL and is leaked"]);
    }
}

#[test]
fn a_close_above_passive_level_is_an_error_and_loses_nothing() {
    on_machine(|| {
        let handle = ThreadObject::current().open(sys::GENERIC_ALL)?;
        irql::with_raised(Irql::DISPATCH, || assert_eq!(handle.close(), Err(NtError::IRQL_TOO_HIGH)))?;
        ksync::driver::drain()
    });
}

#[test]
fn a_reference_dropped_above_dispatch_level_is_leaked_and_reported() {
    let outcome = Machine::new().run(|| {
        let thread = ThreadObject::current();
        // SAFETY: the level is restored below, and in between only a drop runs that checks it.
        let old = unsafe { sys::KfRaiseIrql(5) };
        drop(thread);
        // SAFETY: the level was raised above from this one.
        unsafe { sys::KeLowerIrql(old) };
    });
    assert!(outcome.is_completed());
    assert_eq!(outcome.left().references, 1);
    assert!(outcome.debug_output()[0].contains("leaked"));
}

#[test]
fn the_last_reference_may_be_dropped_at_dispatch_level() {
    on_machine(|| {
        let thread = ksync::thread::spawn(|| ())?;
        let object = thread.thread().clone();
        thread.join()?;
        irql::with_raised(Irql::DISPATCH, || drop(object))
    });
}

#[test]
fn a_priority_out_of_range_is_an_error() {
    on_machine(|| {
        let thread = ThreadObject::current();
        assert_eq!(thread.set_priority(0), Err(NtError::INVALID_PARAMETER));
        assert_eq!(thread.set_priority(32), Err(NtError::INVALID_PARAMETER));
        let before = thread.set_priority(31)?;
        assert_eq!(thread.set_priority(before)?, 31);
        Ok(())
    });
}
