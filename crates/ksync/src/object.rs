//! References to kernel objects: threads, processes, open files, and events, semaphores, mutants and timers that others made.
//!
//! The kernel counts references to its objects, and an object lives as long as one is left. A [`KernelObject`] is one such reference: cloning it makes
//! another, dropping it gives it back, and it never hands out a Rust reference to the object's contents, which belong to the kernel.
//!
//! A [handle](crate::handle) is something else: a number in a table that stands for an object. The two can be made from each other.
//!
//! # Handles of users
//! A user program can pass any number as a handle. [`KernelObject::from_handle`] looks it up as the user's own: with the rights that the user has, and never in the kernel's table.
//! The object's type is always checked. A file object is no dispatcher object, and is referenced but not waited for.

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::error::{NtError, Result, check};
use crate::handle::{ObjectHandle, late};
use crate::irql::{self, Irql};
use crate::time::Timeout;
use crate::wait::{Dispatchable, WaitResult, sealed as wait_sealed};

mod dispatcher;
mod id;
mod kind;
mod process;
mod thread;

pub use id::{ProcessId, ThreadId};
pub use kind::{Event, File, Mutant, ObjectType, Process, Semaphore, Thread, Timer, WaitableType};

/// A counted reference to a thread.
pub type ThreadObject = KernelObject<Thread>;

/// A counted reference to a process.
pub type ProcessObject = KernelObject<Process>;

/// A counted reference to an event object. An event of the driver's own is an [`Event`](crate::event::Event).
pub type EventObject = KernelObject<Event>;

/// A counted reference to a semaphore object. A semaphore of the driver's own is a [`Semaphore`](crate::semaphore::Semaphore).
pub type SemaphoreObject = KernelObject<Semaphore>;

/// A counted reference to a mutant object. A mutex of the driver's own is a [`KMutex`](crate::mutex::KMutex).
pub type MutantObject = KernelObject<Mutant>;

/// A counted reference to a timer object. A timer of the driver's own is a [`Timer`](crate::timer::Timer).
pub type TimerObject = KernelObject<Timer>;

/// A counted reference to a file object: a file, or a device, that is open. It is not waited for: whoever sends a request waits for the request.
///
/// The reference keeps the file's device, and with it the driver. It does not keep the file open: that is what handles do, and the driver has seen `IRP_MJ_CLEANUP` when the last
/// of them is closed. A handle that is opened [from the object](KernelObject::open) later is such a handle too, and its close another cleanup.
///
/// # Examples
/// ```
/// use ksync::object::FileObject;
/// use ksync::sys::FILE_READ_DATA;
/// use ksync::error::Result;
/// use ksync::sys::HANDLE;
///
/// /// Keeps the device that a user has open under a handle.
/// fn keep(handle: HANDLE) -> Result<FileObject> {
///     FileObject::from_handle(handle, FILE_READ_DATA)
/// }
/// # ksim::Machine::new().run(|| assert_eq!(keep(core::ptr::null_mut()), Err(ksync::NtError::INVALID_HANDLE))).expect_clean();
/// ```
#[doc(alias = "FILE_OBJECT")]
pub type FileObject = KernelObject<File>;

/// A counted reference to a kernel object.
///
/// All but files are [`Dispatchable`]. Waiting for a thread or process is waiting for its end.
///
/// # Invariants
/// The pointer is to an object of type `T`, and one of the object's references is this value's, if the object has a count of them.
///
/// # IRQL
/// Cloned and dropped at `<= DISPATCH_LEVEL`. A reference that is dropped above `PASSIVE_LEVEL` leaves the deletion of the object, if it was the
/// last one, to a system thread. Above `DISPATCH_LEVEL` it is leaked, and a line to the debugger says so.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::object::{ProcessObject, ThreadObject};
/// use ksync::thread::this_thread;
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().run(|| {
/// let this = ThreadObject::from_thread_id(this_thread::id()).unwrap();
/// assert!(!this.wait_for(Duration::ZERO, false).success()); // it has not ended
///
/// if let Ok(process) = ProcessObject::from_process_id(0x1024) {
///     panic!("there is no such process, but here is {process:?}");
/// }
/// # }).expect_clean();
/// ```
pub struct KernelObject<T: ObjectType> {
    object: NonNull<T::Raw>,
    _type: PhantomData<T>,
}

// SAFETY: references are counted atomically and belong to no thread; nothing here gives access to the object's contents.
unsafe impl<T: ObjectType> Send for KernelObject<T> {}
// SAFETY: as above.
unsafe impl<T: ObjectType> Sync for KernelObject<T> {}

impl<T: ObjectType> KernelObject<T> {
    /// Takes a raw reference over.
    ///
    /// # Safety
    /// The pointer is to an object of type `T`, and the caller gives up one of the references to it.
    #[must_use]
    pub const unsafe fn from_raw(object: NonNull<T::Raw>) -> Self {
        // INVARIANT: the caller vouches for it.
        Self { object, _type: PhantomData }
    }

    /// Gives the reference up for a raw one. [`from_raw`](Self::from_raw) takes it back.
    #[must_use = "the object is leaked unless the reference is given back"]
    pub fn into_raw(self) -> NonNull<T::Raw> {
        ManuallyDrop::new(self).object
    }

    /// The object's address, for routines that this library does not wrap.
    #[must_use]
    pub const fn as_raw(&self) -> *mut T::Raw {
        self.object.as_ptr()
    }

    /// The object as routines on any type of object take it.
    const fn as_object(&self) -> *mut c_void {
        self.object.as_ptr().cast()
    }

    /// Tells whether the object has a count of references. See [`ObjectType::is_counted`].
    fn is_counted(&self) -> bool {
        // SAFETY: by the type's invariant the object is alive.
        unsafe { T::is_counted(self.object) }
    }

    /// References an object that is known to be alive.
    ///
    /// # Safety
    /// The pointer is to an object of type `T`, which cannot go away during the call.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    unsafe fn reference(object: NonNull<T::Raw>) -> Self {
        // SAFETY: by this function's contract the object is alive.
        if unsafe { T::is_counted(object) } {
            // SAFETY: as above.
            unsafe { sys::ObfReferenceObject(object.as_ptr().cast()) };
        }
        // INVARIANT: the reference was taken just now.
        Self { object, _type: PhantomData }
    }

    /// The object of type `T` that a handle stands for.
    ///
    /// A handle of a user process is looked up in the current process as the user's own, with the access checks that are made for a user. A kernel handle is
    /// looked up as the kernel's, but only in a thread that does not act for a user: a user's request may hold any number.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_HANDLE`] for a null handle, a user's handle that is not open, or a kernel handle in a user's request.
    /// - [`NtError::OBJECT_TYPE_MISMATCH`] for a handle of an object of another type.
    /// - [`NtError::ACCESS_DENIED`] for a user's handle that does not grant the access.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// # Bug checks
    /// A *kernel* handle that is not open is a mistake of kernel code. It is an error too, [`NtError::INVALID_HANDLE`], except that Driver Verifier stops the
    /// system with 0xC4 (0x3C).
    ///
    /// # Examples
    /// ```
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::{ProcessObject, ThreadObject};
    /// use ksync::sys::{SYNCHRONIZE, THREAD_ALL_ACCESS};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::from_thread(ThreadObject::current(), THREAD_ALL_ACCESS).unwrap();
    /// let thread = ThreadObject::from_handle(handle.as_raw(), SYNCHRONIZE).unwrap();
    /// assert_eq!(thread, ThreadObject::current());
    /// let mistake = ProcessObject::from_handle(handle.as_raw(), SYNCHRONIZE);
    /// assert_eq!(mistake.unwrap_err(), NtError::OBJECT_TYPE_MISMATCH);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObReferenceObjectByHandle`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectbyhandle).
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_handle(handle: sys::HANDLE, access: sys::ACCESS_MASK) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        if is_pseudo(handle) {
            // Those mean the same to everyone: the current process, and the current thread.
            return Self::look_up(handle, access, sys::KernelMode);
        }
        // SAFETY: the level was checked.
        if is_kernel(handle) && unsafe { sys::ExGetPreviousMode() } == sys::KernelMode {
            return Self::look_up(handle, access, sys::KernelMode);
        }
        Self::from_user_handle(handle, access)
    }

    /// [`from_handle`](Self::from_handle) for a handle that a user passed: it is the user's whoever asks, and a number of the kernel's table is none.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`from_handle`](Self::from_handle).
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::{GENERIC_ALL, SYNCHRONIZE};
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let kernel = ThreadObject::current().open(GENERIC_ALL).unwrap();
    /// let guessed = ThreadObject::from_user_handle(kernel.as_raw(), SYNCHRONIZE);
    /// assert_eq!(guessed, Err(NtError::INVALID_HANDLE));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObReferenceObjectByHandle`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectbyhandle).
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_user_handle(handle: sys::HANDLE, access: sys::ACCESS_MASK) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        if handle.is_null() || (is_kernel(handle) && !is_pseudo(handle)) {
            return Err(NtError::INVALID_HANDLE);
        }
        Self::look_up(handle, access, sys::UserMode)
    }

    /// [`from_handle`](Self::from_handle) for a handle that this driver opened as a kernel handle: its access is the kernel's, whatever the number looks like.
    /// (Under Wine it does not look like a kernel handle.)
    pub(crate) fn from_kernel_handle(handle: sys::HANDLE, access: sys::ACCESS_MASK) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        Self::look_up(handle, access, sys::KernelMode)
    }

    /// The object of type `T` that a handle stands for to a user or to the kernel.
    ///
    /// IRQL: the callers check for `PASSIVE_LEVEL`.
    fn look_up(handle: sys::HANDLE, access: sys::ACCESS_MASK, mode: sys::KPROCESSOR_MODE) -> Result<Self> {
        let mut object = ptr::null_mut();
        let type_object = T::type_object();
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as a handle: the kernel looks it up.
        let status =
            unsafe { sys::ObReferenceObjectByHandle(handle, access, type_object, mode, &raw mut object, ptr::null_mut()) };
        check(status)?;
        let object = NonNull::new(object).ok_or(NtError::INVALID_HANDLE)?;
        let reference = Reference(object);
        if type_object.is_null() {
            // SAFETY: the reference keeps the object. The level was checked.
            unsafe { kind::check_name(object.as_ptr(), T::NAME) }?;
        }
        core::mem::forget(reference);
        // SAFETY: the routine succeeded and gave us a reference. It checked that the object is of type `T`, or that was done above.
        Ok(unsafe { Self::from_raw(object.cast()) })
    }

    /// Opens a kernel handle to the object, with any access that is asked for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no room in the handle table.
    /// - [`NtError::INVALID_CID`] for the thread of an idle processor, and the idle process.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    /// - Those of `ObOpenObjectByPointer`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ProcessObject::current().open(GENERIC_ALL).unwrap();
    /// assert_eq!(handle.to_process().unwrap(), ProcessObject::current());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObOpenObjectByPointer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obopenobjectbypointer).
    #[doc(alias = "ObOpenObjectByPointer")]
    pub fn open(&self, access: sys::ACCESS_MASK) -> Result<ObjectHandle> {
        irql::require_at_most(Irql::PASSIVE)?;
        if !self.is_counted() {
            return Err(NtError::INVALID_CID);
        }
        late::close_all(Image::this());
        let mut handle = ptr::null_mut();
        // SAFETY: by the type's invariant the object is alive and of type `T`. The handle is written to a local variable, and the level was checked.
        let status = unsafe {
            sys::ObOpenObjectByPointer(
                self.as_object(),
                sys::OBJ_KERNEL_HANDLE,
                ptr::null_mut(),
                access,
                T::type_object(),
                sys::KernelMode,
                &raw mut handle,
            )
        };
        check(status)?;
        // SAFETY: the routine succeeded, so the handle is open, a kernel handle, and nobody else's.
        Ok(unsafe { ObjectHandle::from_raw(handle) })
    }
}

impl<T: WaitableType> KernelObject<T> {
    /// Tells whether the object is signaled now, which for a thread or process means that it has ended.
    fn poll(&self) -> Result<bool> {
        if !self.is_counted() {
            irql::require_at_most(Irql::DISPATCH)?;
            return Ok(false);
        }
        match self.wait_with(Timeout::POLL.into()) {
            WaitResult::Failed(error) => Err(error),
            result => Ok(result.success()),
        }
    }
}

/// A reference to an object whose type is not known yet, at `PASSIVE_LEVEL`.
struct Reference(NonNull<c_void>);

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: the reference is this value's. IRQL: such values live within a function at `PASSIVE_LEVEL`.
        unsafe { sys::ObfDereferenceObject(self.0.as_ptr()) };
    }
}

/// Tells whether a number is that of a kernel handle, or a pseudo handle.
fn is_kernel(handle: sys::HANDLE) -> bool {
    // CAST: a handle is a number, and those have its highest bit set.
    (handle.addr() as isize) < 0
}

/// Tells whether a handle stands for the current process or thread.
fn is_pseudo(handle: sys::HANDLE) -> bool {
    handle == sys::NtCurrentProcess() || handle == sys::NtCurrentThread()
}

impl<T: ObjectType> Clone for KernelObject<T> {
    /// Takes another reference.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    fn clone(&self) -> Self {
        // SAFETY: by the type's invariant the object is of type `T`, and alive because `self` is.
        unsafe { Self::reference(self.object) }
    }
}

impl<T: ObjectType> PartialEq for KernelObject<T> {
    /// True for references to one object.
    fn eq(&self, other: &Self) -> bool {
        self.object == other.object
    }
}

impl<T: ObjectType> Eq for KernelObject<T> {}

impl<T: ObjectType> fmt::Debug for KernelObject<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(T::NAME).field(&self.object).finish()
    }
}

impl<T: ObjectType> Drop for KernelObject<T> {
    fn drop(&mut self) {
        let level = irql::current();
        if !self.is_counted() {
            return;
        }
        if level == Irql::PASSIVE {
            // SAFETY: by the type's invariant the reference is ours, and it is given back once, here. At this level the object may be deleted.
            unsafe { sys::ObfDereferenceObject(self.as_object()) };
        } else if level <= Irql::DISPATCH {
            // SAFETY: as above. The object's deletion is left to a system thread.
            unsafe { sys::ObDereferenceObjectDeferDelete(self.as_object()) };
        } else {
            crate::println!("ksync: a reference to an object was dropped above DISPATCH_LEVEL and is leaked");
        }
    }
}

impl<T: WaitableType> wait_sealed::Sealed for KernelObject<T> {
    fn dispatcher_object(&self) -> *mut c_void {
        self.as_object()
    }

    fn has_owner(&self) -> bool {
        T::HAS_OWNER
    }

    fn check_count(&self) -> Result {
        if !T::HAS_OWNER {
            return if self.is_counted() { Ok(()) } else { Err(NtError::INVALID_CID) };
        }
        // SAFETY: by the type's invariant the object is alive, and of the objects here mutants alone have owners.
        unsafe { dispatcher::check_count(self.object.as_ptr().cast()) }
    }
}

// SAFETY: by the type's invariant the object is alive while the reference is, and by `WaitableType`'s contract it begins with a dispatcher header. A wait on a thread
// or process changes nothing in it; what it takes of the others may be taken in any thread.
unsafe impl<T: WaitableType> Dispatchable for KernelObject<T> {}
