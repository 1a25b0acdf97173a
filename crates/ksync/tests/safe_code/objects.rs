//! Waits, threads that are no objects, and drivers that drain themselves.

use core::cell::Cell;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use std::sync::{Arc, Mutex};

use super::{MS, explore, with_driver};
use ksync::NtError;
use ksync::dpc::{self, Processor};
use ksync::driver;
use ksync::error::Result;
use ksync::event::{EventProperty, PinnedEvent};
use ksync::grt::Registry;
use ksync::init::stack_try_pin_init;
use ksync::irql::{self, Irql, RaisedIrql};
use ksync::mutex::{Condvar, FastLocked, KMutex, ReentrantKMutex};
use ksync::object::{KernelObject, MutantObject, ProcessId, ProcessObject, ThreadId, ThreadObject};
use ksync::sys;
use ksync::thread::{self, this_thread};
use ksync::time::Timeout;
use ksync::timer::{self, PinnedTimer, Timer, TimerKind};
use ksync::wait::{Dispatchable, WaitMode, WaitOptions, WaitResult, wait_any};
use ksync::work_item::{self, WorkItem};

/// In a user-mode wait NT may page the stack out, on which what is waited for and the wait blocks may lie: the library keeps it in memory.
#[test]
fn a_user_mode_wait_may_name_what_lies_on_the_stack() {
    explore(|| {
        stack_try_pin_init!(let event = PinnedEvent::pin_init(EventProperty::Notification, false));
        let event = event?.into_ref().get_ref();
        stack_try_pin_init!(let timer = PinnedTimer::pin_init(TimerKind::Notification));
        let timer = timer?.into_ref().get_ref();
        let user = WaitOptions::new().mode(WaitMode::User).alertable(true);
        assert!(event.wait_with(user.timeout(Timeout::after(MS))).timed_out());
        timer.start(MS, Duration::ZERO)?;
        assert!(timer.wait_with(user).success());
        timer.start(MS, Duration::ZERO)?;
        assert_eq!(wait_any(&[event, timer], user), WaitResult::Signaled(1));
        timer.start(MS, Duration::ZERO)?;
        assert_eq!(wait_any(&[event, event, event, event, timer], user), WaitResult::Signaled(4));
        thread::scope(|scope| {
            let thread = scope.spawn(|| event.set())?;
            assert!(event.wait_with(user).success());
            thread.join()?.map(drop)
        })?;
        // The stack may go again as before, whoever had kept it.
        // SAFETY: what is on this stack is in no use by others.
        assert_eq!(unsafe { sys::KeSetKernelStackSwapEnable(sys::FALSE) }, sys::TRUE);
        assert!(event.wait_with(user).success());
        // SAFETY: as above.
        assert_eq!(unsafe { sys::KeSetKernelStackSwapEnable(sys::TRUE) }, sys::FALSE);
        Ok(())
    });
}

/// The wait that takes a mutant once more than it can count raises an exception, which stops the system.
#[test]
fn a_mutant_is_not_taken_more_often_than_it_can_count() {
    explore(|| {
        let user = ksim::create_mutant(false).unwrap() as sys::HANDLE;
        let mutant: MutantObject = KernelObject::from_handle(user, sys::SYNCHRONIZE)?;
        assert!(mutant.wait().success() && mutant.wait().success());
        // SAFETY: the mutant is alive, and only its owner, which is this thread, uses it.
        let state = unsafe { &raw mut (*mutant.as_raw()).Header.SignalState };
        // SAFETY: as above. It makes as if the mutant had been taken so often.
        unsafe { state.write(i32::MIN + 1) };
        assert!(mutant.wait().success());
        let refused = WaitResult::Failed(NtError::MUTANT_LIMIT_EXCEEDED);
        assert_eq!(mutant.wait(), refused);
        assert_eq!(mutant.wait_with(Timeout::POLL.into()), refused);
        assert_eq!(wait_any(&[&mutant], WaitOptions::new()), refused);
        mutant.release()?;
        // SAFETY: as above.
        unsafe { state.write(-1) };
        mutant.release()?;
        mutant.release()?;
        assert_eq!(mutant.is_free(), Ok(true));
        // SAFETY: the handle was opened above.
        assert_eq!(unsafe { sys::ZwClose(user) }, 0);
        Ok(())
    });
}

/// A processor that is idle is in a thread which the object manager knows nothing of: to count a reference to it is to write to memory that is not its own.
#[test]
fn the_thread_of_an_idle_processor_is_no_object() {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    explore(|| {
        let last = Processor::from_index(u32::try_from(thread::available_parallelism().get() - 1).unwrap()).unwrap();
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        let look = move || {
            let (thread, process) = (ThreadObject::current(), ProcessObject::current());
            assert_eq!((thread.id(), &thread), (this_thread::id(), &thread.clone()));
            assert_eq!((thread.is_terminated(), process.is_terminated()), (Ok(false), Ok(false)));
            assert_eq!((this_thread::is_terminating(), this_thread::priority()), (Ok(false), thread.priority()));
            *keep.lock().unwrap() = Some((thread, process));
        };
        dpc::run_once_on(last, look).map_err(|refused| refused.error)?;
        driver::drain()?;
        let (thread, _process) = kept.lock().unwrap().take().unwrap();
        if thread.id().get() == 0 {
            SEEN.fetch_add(1, Ordering::Relaxed);
            assert_eq!(thread.open(sys::GENERIC_ALL).map(drop), Err(NtError::INVALID_CID));
            assert_eq!(thread.set_priority(8), Err(NtError::INVALID_CID));
            assert_eq!(thread.priority(), Ok(0));
            assert_eq!(thread.exit_status(), Ok(None));
            assert_eq!(thread.wait(), WaitResult::Failed(NtError::INVALID_CID));
            assert_eq!(wait_any(&[&thread], WaitOptions::new()), WaitResult::Failed(NtError::INVALID_CID));
            let again = thread.into_raw();
            // SAFETY: the reference was given up just now.
            drop(unsafe { ThreadObject::from_raw(again) });
        }
        Ok(())
    });
    assert!(SEEN.load(Ordering::Relaxed) > 0);
}

#[test]
fn draining_in_a_work_item_is_an_error() {
    with_driver(|driver| {
        let refused = Arc::new(AtomicU32::new(0));
        let counter = refused.clone();
        let item = WorkItem::new(driver, move || {
            assert_eq!(driver::drain(), Err(NtError::WOULD_DEADLOCK));
            counter.fetch_add(1, Ordering::Relaxed);
        })?;
        item.enqueue()?;
        item.flush()?;
        assert_eq!(refused.load(Ordering::Relaxed), 1);
        let counter = refused.clone();
        work_item::post(driver, move || {
            assert_eq!(driver::drain(), Err(NtError::WOULD_DEADLOCK));
            counter.fetch_add(1, Ordering::Relaxed);
        })?;
        driver::drain()?;
        assert_eq!(refused.load(Ordering::Relaxed), 2);
        Ok(())
    });
}

/// A destructor that runs in a drain may drain, too. That is no reason to admit what the first one has stopped.
#[test]
fn what_a_drain_refuses_a_drain_within_it_does_not_admit() {
    struct Drains(Arc<Timer>, Arc<AtomicU32>);
    impl Drop for Drains {
        fn drop(&mut self) {
            assert_eq!(driver::drain(), Ok(()));
            assert_eq!(self.0.start(MS, Duration::ZERO), Err(NtError::DELETE_PENDING));
            assert!(timer::delay_run(MS, || ()).is_err_and(|refused| refused.error == NtError::DELETE_PENDING));
            self.1.fetch_add(1, Ordering::Relaxed);
        }
    }
    with_driver(|_| {
        let (timer, ended) = (Arc::new(Timer::new(|| (), false)?), Arc::new(AtomicU32::new(0)));
        let drains = Drains(timer.clone(), ended.clone());
        timer::delay_run(1000 * MS, move || drop(drains)).map_err(|refused| refused.error)?;
        driver::drain()?;
        assert_eq!(ended.load(Ordering::Relaxed), 1);
        // The image stays.
        assert_eq!(timer.start(MS, Duration::ZERO), Ok(false));
        Ok(())
    });
}

/// Raises the level where it is converted, and keeps it so.
struct Raises<'a>(&'a Cell<Option<RaisedIrql>>);

impl Raises<'_> {
    fn raise(self) {
        self.0.set(irql::raise(Irql::DISPATCH).ok());
    }
}

impl From<Raises<'_>> for ProcessId {
    fn from(raises: Raises<'_>) -> Self {
        raises.raise();
        Self::new(4)
    }
}

impl From<Raises<'_>> for ThreadId {
    fn from(raises: Raises<'_>) -> Self {
        raises.raise();
        Self::new(4)
    }
}

impl From<Raises<'_>> for Timeout {
    fn from(raises: Raises<'_>) -> Self {
        raises.raise();
        Self::after(MS)
    }
}

/// What is passed may be converted by code that raises the level: it is looked at after that.
#[test]
fn a_conversion_may_raise_the_level() {
    explore(|| {
        let raised = Cell::new(None);
        // At which level a lock is dropped does not matter here, so they are made before.
        let (lock, kmutex, reentrant) = (FastLocked::new(())?, KMutex::new(())?, ReentrantKMutex::new(())?);
        let (condvar, registry) = (Condvar::new(), Registry::new());
        let mut guard = lock.lock()?;
        let refused = |result: Result| {
            assert_eq!(result, Err(NtError::IRQL_TOO_HIGH));
            assert!(raised.take().is_some());
        };
        refused(ProcessObject::from_process_id(Raises(&raised)).map(drop));
        refused(ThreadObject::from_thread_id(Raises(&raised)).map(drop));
        refused(condvar.wait_for(&mut guard, Raises(&raised)));
        refused(condvar.wait_while_for(&mut guard, Raises(&raised), |()| true));
        refused(kmutex.lock_for(Raises(&raised)).map(drop));
        refused(kmutex.lock_alertable(Raises(&raised)).map(drop));
        refused(reentrant.lock_for(Raises(&raised)).map(drop));
        refused(registry.destroy_within(Raises(&raised)));
        drop(guard);
        registry.destroy()
    });
}
