//! References to events, semaphores, mutants and timers, and to all kinds at all levels, on the hosted kernel.

use core::ptr;
use core::time::Duration;

use ksim::Machine;
use ksync::NtError;
use ksync::driver::UnicodeStr;
use ksync::error::Result;
use ksync::event::EventProperty;
use ksync::handle::ObjectHandle;
use ksync::irql::{self, Irql};
use ksync::object::{
    Event, EventObject, KernelObject, Mutant, MutantObject, ObjectType, Process, ProcessObject, Semaphore, SemaphoreObject,
    Thread, ThreadObject, Timer, TimerObject,
};
use ksync::sys::{self, HANDLE, SYNCHRONIZE};
use ksync::thread;
use ksync::time::Timeout;
use ksync::wait::{Dispatchable, WaitOptions, WaitResult, wait_all, wait_any};

/// Under many schedules on few and many processors.
fn explore(code: impl Fn() -> Result) {
    for processors in [1, 2, 4, 64] {
        for seed in 0..15 {
            Machine::new().processors(processors).seed(seed).run(|| code().unwrap()).expect_clean();
        }
    }
}

/// A user's handles, one of each kind.
struct Users {
    event: HANDLE,
    semaphore: HANDLE,
    mutant: HANDLE,
    timer: HANDLE,
}

impl Users {
    /// Opens them in the table of the process that the running thread is in.
    fn open() -> Self {
        let (mut event, mut timer) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is a local variable, and attributes may be null.
        let status =
            unsafe { sys::ZwCreateEvent(&raw mut event, sys::EVENT_ALL_ACCESS, ptr::null(), sys::NotificationEvent, sys::FALSE) };
        assert_eq!(status, 0);
        // SAFETY: as above.
        let status = unsafe { sys::ZwCreateTimer(&raw mut timer, sys::TIMER_ALL_ACCESS, ptr::null(), sys::SynchronizationTimer) };
        assert_eq!(status, 0);
        let (semaphore, mutant) = (ksim::create_semaphore(2, 4).unwrap(), ksim::create_mutant(false).unwrap());
        Self { event, semaphore: semaphore as HANDLE, mutant: mutant as HANDLE, timer }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        for handle in [self.event, self.semaphore, self.mutant, self.timer] {
            // SAFETY: the handle was opened by `open`, and is closed once.
            assert_eq!(unsafe { sys::ZwClose(handle) }, 0);
        }
    }
}

/// With a user's handles, in its process.
fn with_users(code: impl FnOnce(&Users) -> Result) -> Result {
    ksim::in_process(ksim::create_process(), || code(&Users::open()))
}

fn referenced<T: ObjectType>(handle: HANDLE) -> Result<KernelObject<T>> {
    KernelObject::from_handle(handle, SYNCHRONIZE)
}

#[test]
fn ksync_19_each_type_is_told_from_each_other() {
    fn accepted(handle: HANDLE) -> [bool; 6] {
        [
            referenced::<Thread>(handle).is_ok(),
            referenced::<Process>(handle).is_ok(),
            referenced::<Event>(handle).is_ok(),
            referenced::<Semaphore>(handle).is_ok(),
            referenced::<Mutant>(handle).is_ok(),
            referenced::<Timer>(handle).is_ok(),
        ]
    }
    Machine::new()
        .run(|| {
            let thread = ThreadObject::current().open(sys::GENERIC_ALL).unwrap();
            let process = ProcessObject::current().open(sys::GENERIC_ALL).unwrap();
            for (index, handle) in [thread.as_raw(), process.as_raw()].into_iter().enumerate() {
                assert_eq!(accepted(handle), core::array::from_fn(|kind| kind == index));
            }
            with_users(|users| {
                let handles = [users.event, users.semaphore, users.mutant, users.timer];
                for (index, handle) in handles.into_iter().enumerate() {
                    assert_eq!(accepted(handle), core::array::from_fn(|kind| kind == index + 2));
                    assert_eq!(referenced::<Thread>(handle), Err(NtError::OBJECT_TYPE_MISMATCH));
                    let wanted = if index == 2 { referenced::<Timer>(handle).err() } else { referenced::<Mutant>(handle).err() };
                    assert_eq!(wanted, Some(NtError::OBJECT_TYPE_MISMATCH));
                }
                Ok(())
            })
            .unwrap();
        })
        .expect_clean();
}

#[test]
fn rule_12_each_kind_is_waited_for() {
    explore(|| {
        with_users(|users| {
            let event: EventObject = referenced(users.event)?;
            let semaphore: SemaphoreObject = referenced(users.semaphore)?;
            let mutant: MutantObject = referenced(users.mutant)?;
            let timer: TimerObject = referenced(users.timer)?;
            assert!(event.wait_for(Duration::from_millis(1), false).timed_out());
            event.set()?;
            assert_eq!((event.wait(), event.is_signaled()), (WaitResult::Signaled(0), Ok(true)));
            assert!(event.reset()?);
            // Each wait counts down by one.
            assert!(semaphore.wait().success() && semaphore.wait().success());
            assert_eq!((semaphore.count(), semaphore.wait_with(Timeout::POLL.into())), (Ok(0), WaitResult::TimedOut));
            ksim::release_semaphore(users.semaphore as usize, 2).unwrap();
            assert_eq!(semaphore.count(), Ok(2));
            // An owner may wait again.
            assert!(mutant.wait().success() && mutant.wait().success());
            assert_eq!(mutant.is_free(), Ok(false));
            assert_eq!((mutant.release(), mutant.release()), (Ok(()), Ok(())));
            assert_eq!((mutant.release(), mutant.is_free()), (Err(NtError::MUTANT_NOT_OWNED), Ok(true)));
            // SAFETY: the object is a referenced timer, and no DPC is named.
            assert_eq!(unsafe { sys::KeSetTimer(timer.as_raw(), -50_000, ptr::null_mut()) }, sys::FALSE);
            assert_eq!((timer.is_signaled(), timer.wait()), (Ok(false), WaitResult::Signaled(0)));
            assert_eq!(timer.is_signaled(), Ok(false)); // the wait took it
            Ok(())
        })
    });
}

#[test]
fn rule_11_the_index_of_an_abandoned_mutant_is_told() {
    explore(|| {
        with_users(|users| {
            let (event, mutant): (EventObject, MutantObject) = (referenced(users.event)?, referenced(users.mutant)?);
            let taken = mutant.clone();
            thread::spawn(move || assert!(taken.wait().success()))?.join()?;
            assert_eq!(mutant.release(), Err(NtError::MUTANT_NOT_OWNED));
            assert_eq!(wait_any(&[&event, &mutant], WaitOptions::new()), WaitResult::Abandoned(1));
            mutant.release()?;
            assert_eq!(wait_any(&[&event, &mutant], WaitOptions::new()), WaitResult::Signaled(1)); // it is told once
            mutant.release()?;
            let taken = mutant.clone();
            thread::spawn(move || assert!(taken.wait().success()))?.join()?;
            event.set()?;
            assert_eq!(wait_all(&[&event, &mutant], WaitOptions::new()), WaitResult::Abandoned(0));
            mutant.release()
        })
    });
}

#[test]
fn rule_9_a_mutant_is_not_taken_where_it_could_not_be_released() {
    explore(|| {
        with_users(|users| {
            let (event, mutant): (EventObject, MutantObject) = (referenced(users.event)?, referenced(users.mutant)?);
            let poll = WaitOptions::from(Timeout::POLL);
            irql::with_raised(Irql::DISPATCH, || {
                let too_high = WaitResult::Failed(NtError::IRQL_TOO_HIGH);
                assert_eq!(mutant.wait_with(poll), too_high);
                assert_eq!(wait_any(&[&event, &mutant], poll), too_high);
                assert!(event.wait_with(poll).timed_out());
                assert_eq!((mutant.is_free(), mutant.release()), (Ok(true), Err(NtError::IRQL_TOO_HIGH)));
            })?;
            irql::with_raised(Irql::APC, || assert!(mutant.wait_with(poll).success()))?;
            mutant.release()
        })
    });
}

#[test]
fn references_and_handles_of_each_kind_are_dropped_at_each_level() {
    /// An object whose last reference and whose last handle go at a level, in either order.
    fn drop_at<T: ObjectType>(object: &KernelObject<T>, level: Irql) -> Result {
        let (first, second) = (object.clone(), object.clone());
        let handles = [object.open(sys::GENERIC_ALL)?, first.open(SYNCHRONIZE)?];
        assert_eq!(handles[0].to_object::<T>().as_ref(), Ok(object));
        let [handle, other] = handles;
        irql::with_raised(level, || drop((first, handle)))?;
        irql::with_raised(level, || drop((other, second)))
    }
    explore(|| {
        for level in [Irql::PASSIVE, Irql::APC, Irql::DISPATCH] {
            drop_at(&ThreadObject::current(), level)?;
            drop_at(&ProcessObject::current(), level)?;
            let ended = thread::spawn(|| ())?;
            let object = ended.thread().clone();
            ended.join()?;
            drop_at(&object, level)?;
            irql::with_raised(level, || drop(object))?;
            let handle = ObjectHandle::create_event(None, EventProperty::Notification, false)?;
            let event: EventObject = handle.to_object()?;
            drop(handle);
            drop_at(&event, level)?;
            irql::with_raised(level, || drop(event))?;
            with_users(|users| {
                let semaphore: SemaphoreObject = referenced(users.semaphore)?;
                let mutant: MutantObject = referenced(users.mutant)?;
                let timer: TimerObject = referenced(users.timer)?;
                drop_at(&semaphore, level)?;
                drop_at(&mutant, level)?;
                drop_at(&timer, level)?;
                irql::with_raised(level, || drop((semaphore, mutant, timer)))
            })?;
        }
        ksync::driver::drain()
    });
}

#[test]
fn every_create_may_fail() {
    // Handles, events and references, each of which may find no memory: the error says so, and nothing is left.
    let mut failed = 0;
    for failing in 1.. {
        let outcome = Machine::new().fail_allocation(failing).run(|| {
            let result = (|| -> Result {
                let process = ProcessObject::current().open(sys::GENERIC_ALL)?;
                let event = ObjectHandle::create_event(None, EventProperty::Notification, false)?;
                let object: EventObject = event.to_object()?;
                let other = object.open(SYNCHRONIZE)?;
                ObjectHandle::try_from(&object)?.close()?;
                drop((process, other));
                Ok(())
            })();
            if result.is_err() {
                assert_eq!(result, Err(NtError::INSUFFICIENT_RESOURCES));
                failed += 1;
            }
        });
        outcome.expect_clean();
        if failed < failing {
            break;
        }
    }
    assert!(failed >= 4, "{failed}");
}

#[test]
fn a_type_without_a_type_object_may_find_no_memory() {
    for failing in 1..10 {
        Machine::new()
            .fail_allocation(failing)
            .run(|| {
                ksim::in_process(ksim::create_process(), || {
                    let Ok(handle) = ksim::create_mutant(false) else { return };
                    let handle = handle as HANDLE;
                    match MutantObject::from_handle(handle, SYNCHRONIZE) {
                        Ok(mutant) => assert_eq!(mutant.is_free(), Ok(true)),
                        Err(error) => assert_eq!(error, NtError::INSUFFICIENT_RESOURCES),
                    }
                    // SAFETY: the handle was opened above, and is closed once.
                    assert_eq!(unsafe { sys::ZwClose(handle) }, 0);
                });
            })
            .expect_clean();
    }
}

#[test]
fn events_have_names() {
    explore(|| {
        let units: Vec<u16> = "\\BaseNamedObjects\\Ready".encode_utf16().collect();
        let name = UnicodeStr::new(&units)?;
        assert!(ObjectHandle::open_event(name, SYNCHRONIZE).is_err());
        let made = ObjectHandle::create_event(Some(name), EventProperty::Synchronization, true)?;
        let event: EventObject = ObjectHandle::open_event(name, SYNCHRONIZE)?.to_object()?;
        // One that is there already is opened as it is.
        let again = ObjectHandle::create_event(Some(name), EventProperty::Notification, false)?;
        assert_eq!(again.to_object::<Event>()?, event);
        assert!(event.wait().success() && !event.is_signaled()?);
        drop((made, again));
        // The name went with the last handle.
        assert!(ObjectHandle::open_event(name, SYNCHRONIZE).is_err());
        let nowhere: Vec<u16> = "nowhere".encode_utf16().collect();
        assert!(ObjectHandle::create_event(Some(UnicodeStr::new(&nowhere)?), EventProperty::Notification, false).is_err());
        irql::with_raised(Irql::APC, || {
            let made = ObjectHandle::create_event(None, EventProperty::Notification, false);
            assert_eq!(made.unwrap_err(), NtError::IRQL_TOO_HIGH);
            assert_eq!(ObjectHandle::open_event(name, SYNCHRONIZE).unwrap_err(), NtError::IRQL_TOO_HIGH);
        })
    });
}
