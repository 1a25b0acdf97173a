//! The programs' view of NT: raw routines, thinly wrapped, as the peers' programs use their own types without a layer between.
//!
//! Everything lives until the threads that use it have been joined.

use ksync_sys::{
    FAST_MUTEX, KMUTANT, KSEMAPHORE, KSPIN_LOCK, KeAcquireSpinLockRaiseToDpc, KeInitializeMutex, KeInitializeSemaphore,
    KeReleaseMutex, KeReleaseSemaphore, KeReleaseSpinLock, KeWaitForSingleObject, ObReferenceObjectByHandle,
    ObfDereferenceObject, PVOID, PsCreateSystemThread, ZwClose,
};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

/// Memory of an object, which does not move while it is borrowed.
#[derive(Debug)]
pub(crate) struct Place<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: the programs reach the contents through NT's routines only, and run on one OS thread.
unsafe impl<T> Sync for Place<T> {}

impl<T> Place<T> {
    pub(crate) const fn zeroed() -> Self {
        Self(UnsafeCell::new(MaybeUninit::zeroed()))
    }

    pub(crate) fn ptr(&self) -> *mut T {
        self.0.get().cast()
    }
}

/// A lock.
pub(crate) trait Lock {
    fn initialize(&self);
    fn with(&self, code: impl FnOnce());
}

pub(crate) type Mutex = Place<KMUTANT>;
pub(crate) type FastMutex = Place<FAST_MUTEX>;
pub(crate) type SpinLock = Place<KSPIN_LOCK>;
pub(crate) type Semaphore = Place<KSEMAPHORE>;

impl Lock for Mutex {
    fn initialize(&self) {
        // SAFETY: the place is memory for it.
        unsafe { KeInitializeMutex(self.ptr(), 0) };
    }

    fn with(&self, code: impl FnOnce()) {
        wait(self.ptr().cast());
        code();
        // SAFETY: the thread owns it.
        unsafe { KeReleaseMutex(self.ptr(), 0) };
    }
}

impl Lock for FastMutex {
    fn initialize(&self) {
        // SAFETY: the place is memory for it.
        unsafe { ksync_sys::ExInitializeFastMutex(self.ptr()) };
    }

    fn with(&self, code: impl FnOnce()) {
        // SAFETY: it is initialised.
        unsafe { ksync_sys::ExAcquireFastMutex(self.ptr()) };
        code();
        // SAFETY: the thread owns it.
        unsafe { ksync_sys::ExReleaseFastMutex(self.ptr()) };
    }
}

impl Lock for SpinLock {
    fn initialize(&self) {
        // SAFETY: the place is memory for it.
        unsafe { self.ptr().write(0) };
    }

    fn with(&self, code: impl FnOnce()) {
        // SAFETY: it is initialised.
        let old = unsafe { KeAcquireSpinLockRaiseToDpc(self.ptr()) };
        code();
        // SAFETY: the processor owns it.
        unsafe { KeReleaseSpinLock(self.ptr(), old) };
    }
}

impl Semaphore {
    pub(crate) fn start(&self, count: i32) {
        // SAFETY: the place is memory for it.
        unsafe { KeInitializeSemaphore(self.ptr(), count, i32::MAX) };
    }

    pub(crate) fn acquire(&self) {
        wait(self.ptr().cast());
    }

    pub(crate) fn release(&self) {
        // SAFETY: it is initialised.
        unsafe { KeReleaseSemaphore(self.ptr(), 0, 1, 0) };
    }
}

/// Waits for ever.
pub(crate) fn wait(object: PVOID) {
    // SAFETY: the callers pass initialised dispatcher objects.
    unsafe { KeWaitForSingleObject(object, 0, 0, 0, null()) };
}

unsafe extern "system-unwind" fn routine<F: Fn()>(context: PVOID) {
    // SAFETY: `scope` passes a closure that it outlives.
    let code = unsafe { &*context.cast::<F>() };
    code();
}

/// Starts a thread for each index, and joins them all.
pub(crate) fn threads<F: Fn()>(code: &[F]) {
    let mut objects = [null_mut(); 16];
    for (code, object) in code.iter().zip(&mut objects) {
        *object = start(code);
    }
    for object in objects.into_iter().take(code.len()) {
        wait(object);
        // SAFETY: `start` took the reference.
        unsafe { ObfDereferenceObject(object) };
    }
}

fn start<F: Fn()>(code: &F) -> PVOID {
    let mut handle = null_mut();
    let context = (&raw const *code).cast_mut().cast();
    // SAFETY: the closure outlives the thread, which `threads` joins.
    let status = unsafe { PsCreateSystemThread(&mut handle, 0, null(), null_mut(), null_mut(), Some(routine::<F>), context) };
    assert_eq!(status, 0);
    let mut object = null_mut();
    // SAFETY: the handle is open.
    assert_eq!(unsafe { ObReferenceObjectByHandle(handle, 0, null_mut(), 0, &mut object, null_mut()) }, 0);
    // SAFETY: as above.
    unsafe { ZwClose(handle) };
    object
}
