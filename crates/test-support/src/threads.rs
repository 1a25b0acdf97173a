//! Threads for the tests of locks, by raw calls, so that these tests stand on nothing but the locks and the kernel.

use core::ffi::c_void;
use core::ptr::{null, null_mut};
use ksync::sys;

/// What a thread runs.
type Body<'a> = Box<dyn FnOnce() + 'a>;

unsafe extern "system-unwind" fn start(context: *mut c_void) {
    // SAFETY: the context is a box that `threads` gave up for this thread.
    let body = unsafe { Box::from_raw(context.cast::<Body<'_>>()) };
    body();
    // SAFETY: this is a system thread, and it is at PASSIVE_LEVEL unless the body left it elsewhere, which the kernel reports.
    unsafe { sys::PsTerminateSystemThread(0) };
}

/// Runs several system threads and waits for all of them.
pub fn threads<'a>(bodies: impl IntoIterator<Item = Body<'a>>) {
    let mut objects = Vec::new();
    for body in bodies {
        let context = Box::into_raw(Box::new(body));
        let mut handle = null_mut();
        // SAFETY: the routine takes the context back; all that the body borrows outlives the waits below.
        let status = unsafe {
            sys::PsCreateSystemThread(&raw mut handle, 0x1F_FFFF, null(), null_mut(), null_mut(), Some(start), context.cast())
        };
        assert_eq!(status, 0);
        let mut object = null_mut();
        // SAFETY: the handle is the thread's.
        let status = unsafe {
            sys::ObReferenceObjectByHandle(handle, 0x1F_FFFF, null_mut(), sys::KernelMode, &raw mut object, null_mut())
        };
        assert_eq!(status, 0);
        // SAFETY: the handle is this function's own.
        unsafe { sys::ZwClose(handle) };
        objects.push(object);
    }
    for object in objects {
        // SAFETY: the object is referenced.
        unsafe { sys::KeWaitForSingleObject(object, sys::Executive, sys::KernelMode, 0, null()) };
        // SAFETY: the reference is this function's own.
        unsafe { sys::ObfDereferenceObject(object) };
    }
}

/// Runs one body in several threads.
pub fn crowd<'a>(count: usize, body: impl Fn(usize) + Copy + 'a) {
    threads((0..count).map(|i| Box::new(move || body(i)) as Body<'a>));
}

/// Lets other threads run.
pub fn sleep(milliseconds: i64) {
    let interval = -milliseconds * 10_000;
    // SAFETY: the interval is valid for the call; the callers are at PASSIVE_LEVEL.
    unsafe { sys::KeDelayExecutionThread(sys::KernelMode, 0, &raw const interval) };
}

/// Lets the kernel run another thread here, if the schedule wants so, at any level.
pub fn scheduling_point() {
    let word = 0;
    // SAFETY: the word is a spin lock that is free.
    unsafe { sys::KeTestSpinLock(&raw const word) };
}
