//! Callback objects, as their pages have them.

use ksim::Machine;
use ksync_sys::*;
use std::cell::RefCell;
use std::ptr::{null, null_mut};
use test_support::*;

/// A callback object, dereferenced at the end of its life.
struct Callback(*mut CALLBACK_OBJECT);

impl Callback {
    fn new(multiple: bool) -> Self {
        let mut object = null_mut();
        assert_eq!(raw!(ExCreateCallback(&mut object, null(), TRUE, multiple.into())), STATUS_SUCCESS);
        Self(object)
    }

    fn register(&self, routine: CALLBACK_FUNCTION, context: PVOID) -> PVOID {
        raw!(ExRegisterCallback(self.0, routine, context))
    }

    fn notify(&self, one: usize, other: usize) {
        raw!(ExNotifyCallback(self.0, one as PVOID, other as PVOID));
    }
}

impl Drop for Callback {
    fn drop(&mut self) {
        raw!(ObfDereferenceObject(self.0.cast()));
    }
}

type Calls = RefCell<Vec<(char, usize, usize)>>;

unsafe extern "system-unwind" fn first(context: PVOID, one: PVOID, other: PVOID) {
    // SAFETY: the tests register it with their list.
    unsafe { &*context.cast::<Calls>() }.borrow_mut().push(('a', one as usize, other as usize));
}

unsafe extern "system-unwind" fn second(context: PVOID, one: PVOID, other: PVOID) {
    // SAFETY: as above.
    unsafe { &*context.cast::<Calls>() }.borrow_mut().push(('b', one as usize, other as usize));
}

#[test]
fn routines_are_called_in_the_order_of_their_registration_at_the_callers_level() {
    run(|| {
        let calls = Calls::default();
        let context = (&raw const calls).cast_mut().cast();
        let callback = Callback::new(true);
        callback.notify(0, 0);
        let registrations = [callback.register(second, context), callback.register(first, context)];
        callback.notify(1, 2);
        let old = raw!(KfRaiseIrql(DISPATCH_LEVEL));
        callback.notify(3, 4);
        raw!(KeLowerIrql(old));
        raw!(ExUnregisterCallback(registrations[0]));
        callback.notify(5, 6);
        raw!(ExUnregisterCallback(registrations[1]));
        callback.notify(7, 8);
        assert_eq!(*calls.borrow(), [('b', 1, 2), ('a', 1, 2), ('b', 3, 4), ('a', 3, 4), ('a', 5, 6)]);
    });
}

#[test]
fn an_object_for_one_routine_takes_no_other() {
    run(|| {
        let calls = Calls::default();
        let context = (&raw const calls).cast_mut().cast();
        let callback = Callback::new(false);
        let registration = callback.register(first, context);
        assert!(!registration.is_null());
        assert!(callback.register(second, context).is_null());
        raw!(ExUnregisterCallback(registration));
        let registration = callback.register(second, context);
        assert!(!registration.is_null());
        raw!(ExUnregisterCallback(registration));
    });
}

#[test]
fn objects_have_names() {
    run(|| {
        let name: Vec<u16> = "\\Callback\\Test".encode_utf16().collect();
        let bytes = (name.len() * 2) as u16;
        let mut name = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: name.as_ptr().cast_mut() };
        let attributes = OBJECT_ATTRIBUTES {
            Length: size_of::<OBJECT_ATTRIBUTES>() as u32,
            RootDirectory: null_mut(),
            ObjectName: &raw mut name,
            // The handle that makes the object is closed at once, and a temporary object's name goes with its last handle.
            Attributes: OBJ_CASE_INSENSITIVE | OBJ_PERMANENT,
            SecurityDescriptor: null_mut(),
            SecurityQualityOfService: null_mut(),
        };
        let mut object = null_mut();
        assert_eq!(raw!(ExCreateCallback(&mut object, &attributes, FALSE, TRUE)), STATUS_OBJECT_NAME_NOT_FOUND);
        assert_eq!(raw!(ExCreateCallback(&mut object, &attributes, TRUE, TRUE)), STATUS_SUCCESS);
        let mut again = null_mut();
        assert_eq!(raw!(ExCreateCallback(&mut again, &attributes, FALSE, FALSE)), STATUS_SUCCESS);
        assert_eq!(object, again);
        let (one, other) = (Callback(object), Callback(again));
        drop(one);
        let calls = Calls::default();
        let registration = other.register(first, (&raw const calls).cast_mut().cast());
        other.notify(1, 1);
        raw!(ExUnregisterCallback(registration));
        assert_eq!(calls.borrow().len(), 1);
        drop(other);
        assert_eq!(raw!(ExCreateCallback(&mut object, &attributes, FALSE, FALSE)), STATUS_SUCCESS);
        drop(Callback(object));
    });
}

unsafe extern "system-unwind" fn slow(context: PVOID, _one: PVOID, _other: PVOID) {
    sleep(SECOND);
    // SAFETY: the test registers it with its list.
    unsafe { &*context.cast::<Calls>() }.borrow_mut().push(('c', 0, 0));
}

#[test]
fn unregistering_waits_for_calls_and_prevents_new_ones() {
    explore(|| {
        let calls = Calls::default();
        let callback = Callback::new(true);
        let registration = callback.register(slow, (&raw const calls).cast_mut().cast());
        let notifier = spawn(|| callback.notify(0, 0));
        raw!(ExUnregisterCallback(registration));
        let seen = calls.borrow().len();
        notifier.join();
        // Either the call was over, or it never began.
        assert_eq!(calls.borrow().len(), seen);
    });
}

#[test]
fn a_stale_registration_and_a_lost_object_are_reported() {
    let stale = crash(0xc4, || {
        let calls = Calls::default();
        let callback = Callback::new(true);
        let registration = callback.register(first, (&raw const calls).cast_mut().cast());
        raw!(ExUnregisterCallback(registration));
        raw!(ExUnregisterCallback(registration));
    });
    assert_eq!(stale.routine, Some("ExUnregisterCallback"));
    let outcome = Machine::new().run(|| {
        let mut object = null_mut();
        raw!(ExCreateCallback(&mut object, null(), TRUE, TRUE));
    });
    assert_eq!(outcome.left().references, 1);
}
