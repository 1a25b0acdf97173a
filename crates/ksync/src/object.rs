//! References to threads and processes.
//!
//! The kernel counts references to its objects, and an object lives as long as one is left. A [`KernelObject`] is one such reference: cloning it makes
//! another, dropping it gives it back, and it never hands out a Rust reference to the object's contents, which belong to the kernel.
//!
//! A [handle](crate::handle) is something else: a number in a table that stands for an object. The two can be made from each other.

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};

use ksync_sys as sys;

use crate::error::{NtError, NtStatus, Result, check};
use crate::handle::ObjectHandle;
use crate::irql::{self, Irql};
use crate::time::Timeout;
use crate::wait::{Dispatchable, sealed as wait_sealed};

mod sealed {
    pub trait Sealed {}
}

/// A type of kernel object that a [`KernelObject`] can refer to. Sealed: [`Thread`] and [`Process`].
///
/// # Safety
/// `object_type` is the object type of what `Raw` stands for, and such objects begin with a dispatcher header.
pub unsafe trait ObjectType: sealed::Sealed + 'static {
    /// The raw ABI's name for such an object.
    type Raw;

    /// The kernel's type object.
    #[doc(hidden)]
    fn object_type() -> *mut sys::OBJECT_TYPE;
}

/// The type of thread objects, in [`ThreadObject`].
#[derive(Debug)]
pub enum Thread {}

impl sealed::Sealed for Thread {}

// SAFETY: the type object is the one for threads, and a thread begins with its `KTHREAD`, which begins with a dispatcher header.
unsafe impl ObjectType for Thread {
    type Raw = sys::ETHREAD;

    fn object_type() -> *mut sys::OBJECT_TYPE {
        // SAFETY: the kernel sets the variable before it loads a driver, and never again.
        unsafe { sys::PsThreadType }
    }
}

/// The type of process objects, in [`ProcessObject`].
#[derive(Debug)]
pub enum Process {}

impl sealed::Sealed for Process {}

// SAFETY: the type object is the one for processes, and a process begins with its `KPROCESS`, which begins with a dispatcher header.
unsafe impl ObjectType for Process {
    type Raw = sys::EPROCESS;

    fn object_type() -> *mut sys::OBJECT_TYPE {
        // SAFETY: the kernel sets the variable before it loads a driver, and never again.
        unsafe { sys::PsProcessType }
    }
}

/// A counted reference to a thread.
pub type ThreadObject = KernelObject<Thread>;

/// A counted reference to a process.
pub type ProcessObject = KernelObject<Process>;

/// A counted reference to a kernel object.
///
/// Threads and processes are [`Dispatchable`]: waiting for one is waiting for its end.
///
/// # Invariants
/// The pointer is to an object of type `T`, and one of the object's references is this value's.
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

    /// References an object that is known to be alive.
    ///
    /// # Safety
    /// The pointer is to an object of type `T`, which cannot go away during the call.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    unsafe fn reference(object: NonNull<T::Raw>) -> Self {
        // SAFETY: by this function's contract the object is alive.
        unsafe { sys::ObfReferenceObject(object.as_ptr().cast()) };
        // INVARIANT: the reference was taken just now.
        Self { object, _type: PhantomData }
    }

    /// The object of type `T` that a handle stands for.
    ///
    /// A handle of a user process is looked up in the current process as the user's own, with the access checks that are made for a user. A kernel handle is
    /// looked up as the kernel's.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_HANDLE`] for a null handle, or a user's handle that is not open.
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
        if handle.is_null() {
            return Err(NtError::INVALID_HANDLE);
        }
        // CAST: a handle is a number; kernel handles have its highest bit set, and so have the pseudo handles, which mean the same to everyone.
        let mode = if (handle.addr() as isize) < 0 { sys::KernelMode } else { sys::UserMode };
        Self::look_up(handle, access, mode)
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
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as a handle: the kernel looks it up.
        let status =
            unsafe { sys::ObReferenceObjectByHandle(handle, access, T::object_type(), mode, &raw mut object, ptr::null_mut()) };
        check(status)?;
        let object = NonNull::new(object.cast()).ok_or(NtError::INVALID_HANDLE)?;
        // SAFETY: the routine succeeded: it checked that the object is of type `T`, and gave us a reference.
        Ok(unsafe { Self::from_raw(object) })
    }

    /// Opens a kernel handle to the object, with any access that is asked for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no room in the handle table.
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
        let mut handle = ptr::null_mut();
        // SAFETY: by the type's invariant the object is alive and of type `T`. The handle is written to a local variable, and the level was checked.
        let status = unsafe {
            sys::ObOpenObjectByPointer(
                self.as_object(),
                sys::OBJ_KERNEL_HANDLE,
                ptr::null_mut(),
                access,
                T::object_type(),
                sys::KernelMode,
                &raw mut handle,
            )
        };
        check(status)?;
        // SAFETY: the routine succeeded, so the handle is open, a kernel handle, and nobody else's.
        Ok(unsafe { ObjectHandle::from_raw(handle) })
    }

    /// Tells whether the thread or process has ended.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().is_terminated(), Ok(false));
    /// # }).expect_clean();
    /// ```
    pub fn is_terminated(&self) -> Result<bool> {
        match self.wait_with(Timeout::POLL.into()) {
            crate::wait::WaitResult::Failed(error) => Err(error),
            result => Ok(result.success()),
        }
    }
}

impl KernelObject<Thread> {
    /// The current thread.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current(), ThreadObject::current());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps `KeGetCurrentThread`.
    #[doc(alias = "KeGetCurrentThread")]
    #[doc(alias = "PsGetCurrentThread")]
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: the routine may be called anywhere.
        let thread = unsafe { sys::KeGetCurrentThread() };
        // SAFETY: there always is a current thread.
        let thread = unsafe { NonNull::new_unchecked(thread.cast()) };
        // SAFETY: the current thread is a thread, and alive while it runs this.
        unsafe { Self::reference(thread) }
    }

    /// The thread with an identifier, such as that of [`this_thread::id`](crate::thread::this_thread::id).
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - The status of `PsLookupThreadByThreadId`, `STATUS_INVALID_PARAMETER` as a rule, if there is no such thread.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::thread::this_thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::from_thread_id(this_thread::id()).unwrap().id(), this_thread::id());
    /// assert!(ThreadObject::from_thread_id(0x7FFF_FFF0).is_err());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsLookupThreadByThreadId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupthreadbythreadid).
    #[doc(alias = "PsLookupThreadByThreadId")]
    pub fn from_thread_id(id: usize) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        let mut thread = ptr::null_mut();
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as an identifier.
        let status = unsafe { sys::PsLookupThreadByThreadId(ptr::without_provenance_mut(id), &raw mut thread) };
        check(status)?;
        let thread = NonNull::new(thread).ok_or(NtError::INVALID_CID)?;
        // SAFETY: the routine succeeded: it found a thread, and gave us a reference.
        Ok(unsafe { Self::from_raw(thread) })
    }

    /// The thread that a handle stands for. See [`from_handle`](Self::from_handle); a user's handle must grant `SYNCHRONIZE`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`from_handle`](Self::from_handle).
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::HANDLE;
    /// use ksync::wait::Dispatchable;
    /// use ksync::NtError;
    ///
    /// fn is_thread_exited(h_thread: HANDLE) -> Result<bool, NtError> {
    ///     match ThreadObject::from_thread_handle(h_thread) {
    ///         Ok(thread) => Ok(thread.wait_for(Duration::ZERO, false).success()),
    ///         Err(e) => Err(e),
    ///     }
    /// }
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(is_thread_exited(0x1024 as HANDLE), Err(NtError::INVALID_HANDLE));
    /// assert_eq!(is_thread_exited(ksync::sys::NtCurrentThread()), Ok(false));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_thread_handle(handle: sys::HANDLE) -> Result<Self> {
        Self::from_handle(handle, sys::SYNCHRONIZE)
    }

    /// The thread's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::thread::this_thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().id(), this_thread::id());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetThreadId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadid).
    #[doc(alias = "PsGetThreadId")]
    #[must_use]
    pub fn id(&self) -> usize {
        // SAFETY: by the type's invariant the object is a live thread.
        unsafe { sys::PsGetThreadId(self.as_raw()) }.addr()
    }

    /// The status that the thread ended with, or `None` if it has not ended.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ThreadObject::current().exit_status(), Ok(None));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetThreadExitStatus`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetthreadexitstatus).
    #[doc(alias = "PsGetThreadExitStatus")]
    pub fn exit_status(&self) -> Result<Option<NtStatus>> {
        irql::require_at_most(Irql::APC)?;
        if !self.is_terminated()? {
            return Ok(None);
        }
        // SAFETY: by the type's invariant the object is a thread with a reference, and the level was checked.
        Ok(Some(NtStatus(unsafe { sys::PsGetThreadExitStatus(self.as_raw()) })))
    }

    /// The thread's current priority, from 0 to 31.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = ThreadObject::current();
    /// thread.set_priority(16).unwrap();
    /// assert_eq!(thread.priority(), Ok(16));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeQueryPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryprioritythread).
    #[doc(alias = "KeQueryPriorityThread")]
    pub fn priority(&self) -> Result<i32> {
        irql::require_at_most(Irql::DISPATCH)?;
        // SAFETY: by the type's invariant the object is a live thread, and the level was checked.
        Ok(unsafe { sys::KeQueryPriorityThread(self.as_raw().cast()) })
    }

    /// Sets the thread's base priority, from 1 to 31, and tells the one before. From 16 on priorities are real-time.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::INVALID_PARAMETER`] for a priority out of range.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = ThreadObject::current();
    /// let before = thread.set_priority(16).unwrap();
    /// assert_eq!(thread.set_priority(before), Ok(16));
    /// assert_eq!(thread.set_priority(32), Err(NtError::INVALID_PARAMETER));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeSetPriorityThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesetprioritythread).
    #[doc(alias = "KeSetPriorityThread")]
    pub fn set_priority(&self, priority: i32) -> Result<i32> {
        irql::require_at_most(Irql::PASSIVE)?;
        if !(1..=sys::HIGH_PRIORITY).contains(&priority) {
            return Err(NtError::INVALID_PARAMETER);
        }
        // SAFETY: by the type's invariant the object is a live thread. The level and the priority were checked.
        Ok(unsafe { sys::KeSetPriorityThread(self.as_raw().cast(), priority) })
    }
}

impl KernelObject<Process> {
    /// The process of the current thread, or the one that it is attached to.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ProcessObject::current().id(), 4); // a system thread
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`IoGetCurrentProcess`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-iogetcurrentprocess).
    #[doc(alias = "PsGetCurrentProcess")]
    #[doc(alias = "IoGetCurrentProcess")]
    #[must_use]
    pub fn current() -> Self {
        // SAFETY: the routine may be called anywhere.
        let process = unsafe { sys::PsGetCurrentProcess() };
        // SAFETY: there always is a current process.
        let process = unsafe { NonNull::new_unchecked(process) };
        // SAFETY: the current process is a process, and alive while one of its threads, or one attached to it, runs this.
        unsafe { Self::reference(process) }
    }

    /// The process with an identifier.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - The status of `PsLookupProcessByProcessId`, `STATUS_INVALID_PARAMETER` as a rule, if there is no such process.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// if let Ok(process) = ProcessObject::from_process_id(0x1024) {
    ///     // ...
    /// #   panic!("{process:?}");
    /// } // the reference is given back here
    /// let system = ProcessObject::from_process_id(4).unwrap();
    /// assert_eq!(system.id(), 4);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsLookupProcessByProcessId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-pslookupprocessbyprocessid).
    #[doc(alias = "PsLookupProcessByProcessId")]
    pub fn from_process_id(id: usize) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        let mut process = ptr::null_mut();
        // SAFETY: the object is written to a local variable, and the level was checked. Any number may be passed as an identifier.
        let status = unsafe { sys::PsLookupProcessByProcessId(ptr::without_provenance_mut(id), &raw mut process) };
        check(status)?;
        let process = NonNull::new(process).ok_or(NtError::INVALID_CID)?;
        // SAFETY: the routine succeeded: it found a process, and gave us a reference.
        Ok(unsafe { Self::from_raw(process) })
    }

    /// The process that a handle stands for. See [`from_handle`](Self::from_handle); a user's handle must grant `SYNCHRONIZE`.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`from_handle`](Self::from_handle).
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let process = ProcessObject::from_process_handle(ksync::sys::NtCurrentProcess());
    /// assert_eq!(process, Ok(ProcessObject::current()));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn from_process_handle(handle: sys::HANDLE) -> Result<Self> {
        Self::from_handle(handle, sys::SYNCHRONIZE)
    }

    /// The process' identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(ProcessObject::current().id(), 4);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsGetProcessId`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-psgetprocessid).
    #[doc(alias = "PsGetProcessId")]
    #[must_use]
    pub fn id(&self) -> usize {
        // SAFETY: by the type's invariant the object is a live process.
        unsafe { sys::PsGetProcessId(self.as_raw()) }.addr()
    }
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
        f.debug_tuple("KernelObject").field(&self.object).finish()
    }
}

impl<T: ObjectType> Drop for KernelObject<T> {
    fn drop(&mut self) {
        let level = irql::current();
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

impl<T: ObjectType> wait_sealed::Sealed for KernelObject<T> {
    fn dispatcher_object(&self) -> *mut c_void {
        self.as_object()
    }
}

// SAFETY: by the type's invariant the object is alive while the reference is, and by `ObjectType`'s contract it begins with a dispatcher header. A wait on a thread
// or process changes nothing in it.
unsafe impl<T: ObjectType> Dispatchable for KernelObject<T> {}
