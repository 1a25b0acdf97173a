//! Destructors that run while a panic unwinds, where the hosted kernel lets nobody wait any more: what the thread itself holds, it must not get once more.

use core::cell::Cell;

use ksim::{Machine, load_driver};
use ksync::device::{DeviceBuilder, Dispatch, Disposition, Irp, OpenDevice};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::Result;
use ksync::event::{Event, EventProperty};
use ksync::mutex::{FastLocked, GuardLocked, KMutex, PushLocked, ResourceLocked, Rundown, SpinLocked, SpinRwLocked};
use ksync::thread;
use ksync::wait::Dispatchable;

/// Calls what it has when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Runs code that panics. True if it has set the flag.
fn is_set(code: impl Fn(&Cell<bool>)) -> bool {
    let flag = Cell::new(false);
    let outcome = Machine::new().run(|| code(&flag));
    assert!(outcome.to_string().contains("as expected"), "{outcome}");
    flag.get()
}

/// Whether a destructor gets a lock in one way while its own thread holds it in another.
macro_rules! gets {
    ($lock:ident.$take:ident while $hold:ident) => {
        is_set(|got| {
            let lock = $lock::new(0).unwrap();
            let _held = lock.$hold().unwrap();
            let _drops = OnDrop(|| got.set(lock.$take().is_ok()));
            panic!("as expected");
        })
    };
}

#[test]
fn what_a_thread_holds_its_destructors_do_not_get_once_more() {
    assert!(!gets!(PushLocked.lock while lock_shared));
    assert!(!gets!(PushLocked.lock while lock));
    assert!(!gets!(PushLocked.lock_shared while lock));
    assert!(!gets!(ResourceLocked.lock while lock_shared));
    assert!(!gets!(ResourceLocked.lock while lock));
    assert!(!gets!(ResourceLocked.lock_shared while lock));
    assert!(!gets!(SpinRwLocked.lock while lock_shared));
    assert!(!gets!(SpinRwLocked.lock while lock));
    assert!(!gets!(SpinRwLocked.lock_shared while lock));
    assert!(!gets!(FastLocked.lock while lock));
    assert!(!gets!(GuardLocked.lock while lock));
    assert!(!gets!(SpinLocked.lock while lock));
    assert!(!gets!(KMutex.lock while lock));
}

/// What nobody holds any more they do get, as long as they want.
#[test]
fn destructors_get_what_is_free() {
    macro_rules! gets_behind {
        ($lock:ident.$take:ident behind $hold:ident) => {
            is_set(|got| {
                let lock = $lock::new(0).unwrap();
                let _drops = OnDrop(|| got.set((0..3).all(|_| lock.$take().is_ok())));
                let _held = lock.$hold().unwrap();
                panic!("as expected");
            })
        };
    }
    assert!(gets_behind!(PushLocked.lock behind lock_shared));
    assert!(gets_behind!(PushLocked.lock_shared behind lock));
    assert!(gets_behind!(ResourceLocked.lock behind lock_shared));
    assert!(gets_behind!(SpinRwLocked.lock behind lock_shared));
    assert!(gets_behind!(FastLocked.lock behind lock));
    assert!(gets_behind!(GuardLocked.lock behind lock));
    assert!(gets_behind!(SpinLocked.lock behind lock));
    assert!(gets_behind!(KMutex.lock behind lock));
}

/// What another thread holds, which never runs again, a destructor gets once.
#[test]
fn what_others_hold_is_free_once() {
    macro_rules! gets_twice {
        ($lock:ident: $first:ident, then $second:ident) => {{
            let (first, second) = (Cell::new(false), Cell::new(false));
            let outcome = Machine::new().run(|| {
                let lock = $lock::new(0).unwrap();
                let (held, never) = (
                    Event::new(EventProperty::Notification, false).unwrap(),
                    Event::new(EventProperty::Notification, false).unwrap(),
                );
                thread::scope(|scope| {
                    let holds = || {
                        let _guard = lock.lock().unwrap();
                        held.set().unwrap();
                        assert!(never.wait().success());
                    };
                    scope.spawn(holds).unwrap();
                    assert!(held.wait().success());
                    let _drops = OnDrop(|| {
                        let one = lock.$first();
                        first.set(one.is_ok());
                        let two = lock.$second();
                        second.set(two.is_ok());
                    });
                    panic!("as expected");
                });
            });
            assert!(outcome.to_string().contains("as expected"), "{outcome}");
            assert!(first.get(), "{}", stringify!($lock));
            second.get()
        }};
    }
    assert!(!gets_twice!(PushLocked: lock, then lock));
    assert!(!gets_twice!(PushLocked: lock_shared, then lock));
    assert!(!gets_twice!(ResourceLocked: lock, then lock));
    assert!(!gets_twice!(ResourceLocked: lock_shared, then lock));
    assert!(!gets_twice!(FastLocked: lock, then lock));
    assert!(!gets_twice!(GuardLocked: lock, then lock));
    assert!(!gets_twice!(KMutex: lock, then lock));
}

/// Keeps all requests for ever.
struct Keeps;

impl Dispatch for Keeps {
    fn device_control<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        let (pending, disposition) = irp.pend();
        core::mem::forget(pending);
        disposition
    }
}

fn keeps(driver: &DriverObject, _path: &UnicodeStr<'_>) -> Result<impl Sized + use<>> {
    DeviceBuilder::new().name(r"\Device\Keeps").create(driver, Keeps)
}

mod keeps_entry {
    ksync::driver_entry!(super::keeps);
}

/// A request that has not ended keeps what it would write to.
#[test]
fn a_destructor_does_not_leave_a_request_behind() {
    let is_over = is_set(|over| {
        let _driver = load_driver("keeps", keeps_entry::DriverEntry).unwrap();
        let device = OpenDevice::open(r"\Device\Keeps", ksync::sys::FILE_READ_ATTRIBUTES).unwrap();
        let _drops = OnDrop(|| {
            let ended = device.device_control(0x0022_2000, b"", &mut [0; 4]);
            over.set(ended.is_ok() || ended.is_err());
        });
        panic!("as expected");
    });
    assert!(!is_over);
}

/// Protection that the thread holds is not run down.
#[test]
fn a_rundown_is_not_over_for_a_destructor_while_its_thread_is_protected() {
    let is_over = is_set(|over| {
        let rundown = Rundown::new();
        let _protected = rundown.acquire().unwrap();
        let _drops = OnDrop(|| over.set(rundown.wait().is_ok()));
        panic!("as expected");
    });
    assert!(!is_over);
    let is_over = is_set(|over| {
        let rundown = Rundown::new();
        let _drops = OnDrop(|| over.set(rundown.wait().is_ok()));
        let _protected = rundown.acquire().unwrap();
        panic!("as expected");
    });
    assert!(is_over);
}
