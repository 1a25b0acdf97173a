//! Handles to kernel objects.
//!
//! An [`ObjectHandle`] is an open *kernel* handle: it is good in every process, no user can use or close it, and it is closed exactly once, when the value is
//! dropped. Handles that come from elsewhere, a user's for instance, are not this library's to close; turn them into
//! [objects](crate::object) at once.

pub(crate) mod late;

use core::fmt;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::ptr;

use ksync_sys as sys;

use crate::driver::UnicodeStr;
use crate::driver::image::Image;
use crate::error::{Result, check};
use crate::event::EventProperty;
use crate::irql::{self, Irql};
use crate::object::{KernelObject, ObjectType, ProcessObject, ThreadObject};

/// An open kernel handle, which is closed when this is dropped.
///
/// # Invariants
/// The handle is open, a kernel handle, and nobody else closes it.
///
/// # IRQL
/// Dropped at `PASSIVE_LEVEL`. Above it a handle cannot be closed: a line to the debugger says so, and it is closed when the next handle is opened or dropped at `PASSIVE_LEVEL`, or
/// when the driver is unloaded. Above `DISPATCH_LEVEL`, or without memory to note it down, it is leaked.
///
/// # Examples
/// ```
/// use ksync::handle::ObjectHandle;
/// use ksync::object::ProcessObject;
/// use ksync::sys::GENERIC_ALL;
///
/// # ksim::Machine::new().run(|| {
/// let process = ProcessObject::current();
/// if let Ok(handle) = ObjectHandle::from_process(process, GENERIC_ALL) {
///     // ... do something with `handle.as_raw()`
///     assert_eq!(handle.to_process().unwrap().id(), 4);
/// } // the handle is closed here
/// # }).expect_clean();
/// ```
#[doc(alias = "HANDLE")]
pub struct ObjectHandle(sys::HANDLE);

// SAFETY: a kernel handle is a number that means the same in every thread.
unsafe impl Send for ObjectHandle {}
// SAFETY: as above; shared, it is only read.
unsafe impl Sync for ObjectHandle {}

impl ObjectHandle {
    /// Takes a raw handle over.
    ///
    /// # Safety
    /// The handle is open, a kernel handle, and the caller gives up the right to close it.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let raw = ThreadObject::current().open(GENERIC_ALL).unwrap().into_raw();
    /// // SAFETY: the handle is the one that was given up just now.
    /// let handle = unsafe { ObjectHandle::from_raw(raw) };
    /// assert!(handle.to_thread().is_ok());
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const unsafe fn from_raw(handle: sys::HANDLE) -> Self {
        // INVARIANT: the caller vouches for it.
        Self(handle)
    }

    /// Gives the handle up; whoever gets it closes it.
    #[must_use = "the handle is leaked unless somebody closes it"]
    pub fn into_raw(self) -> sys::HANDLE {
        ManuallyDrop::new(self).0
    }

    /// The raw handle, for routines that this library does not wrap. It stays this value's to close.
    #[must_use]
    pub const fn as_raw(&self) -> sys::HANDLE {
        self.0
    }

    /// Opens a kernel handle to an object.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`KernelObject::open`].
    ///
    /// # Examples
    /// ```
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::from_object(ThreadObject::current(), GENERIC_ALL).unwrap();
    /// assert_eq!(handle.to_thread(), Ok(ThreadObject::current()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObOpenObjectByPointer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obopenobjectbypointer).
    #[doc(alias = "ObOpenObjectByPointer")]
    pub fn from_object<T: ObjectType>(
        object: impl core::borrow::Borrow<KernelObject<T>>,
        access: sys::ACCESS_MASK,
    ) -> Result<Self> {
        object.borrow().open(access)
    }

    /// Opens a kernel handle to a process, given by value or by reference.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`KernelObject::open`].
    ///
    /// # Examples
    /// ```
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::ProcessObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::from_process(ProcessObject::current(), GENERIC_ALL).unwrap();
    /// assert_eq!(handle.to_process(), Ok(ProcessObject::current()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObOpenObjectByPointer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obopenobjectbypointer).
    #[doc(alias = "ObOpenObjectByPointer")]
    pub fn from_process(process: impl core::borrow::Borrow<ProcessObject>, access: sys::ACCESS_MASK) -> Result<Self> {
        process.borrow().open(access)
    }

    /// Opens a kernel handle to a thread, given by value or by reference.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`KernelObject::open`].
    ///
    /// # Examples
    /// ```
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::THREAD_ALL_ACCESS;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = ThreadObject::current();
    /// let handle = ObjectHandle::from_thread(&thread, THREAD_ALL_ACCESS).unwrap();
    /// assert_eq!(handle.to_thread().unwrap(), thread);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObOpenObjectByPointer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-obopenobjectbypointer).
    #[doc(alias = "ObOpenObjectByPointer")]
    pub fn from_thread(thread: impl core::borrow::Borrow<ThreadObject>, access: sys::ACCESS_MASK) -> Result<Self> {
        thread.borrow().open(access)
    }

    /// Makes an event object, and opens a handle with all access to it. A user can be given another by `ZwDuplicateObject`; the driver itself uses the
    /// [object](Self::to_object).
    ///
    /// With a name, such as `\BaseNamedObjects\Ready`, others can find it as long as a handle is open. An event that has the name already is opened as it is.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`INSUFFICIENT_RESOURCES`](crate::NtError::INSUFFICIENT_RESOURCES) if there is no memory.
    /// - [`OBJECT_TYPE_MISMATCH`](crate::NtError::OBJECT_TYPE_MISMATCH) if something else has the name.
    /// - [`IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `PASSIVE_LEVEL`.
    /// - Others of `ZwCreateEvent` for a name that is none.
    ///
    /// # Examples
    /// ```
    /// use ksync::event::EventProperty;
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::EventObject;
    /// use ksync::wait::Dispatchable;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ObjectHandle::create_event(None, EventProperty::Synchronization, true).unwrap();
    /// let event: EventObject = handle.to_object().unwrap();
    /// assert!(event.wait().success());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ZwCreateEvent`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwcreateevent).
    #[doc(alias = "ZwCreateEvent")]
    #[doc(alias = "IoCreateNotificationEvent")]
    #[doc(alias = "IoCreateSynchronizationEvent")]
    pub fn create_event(name: Option<UnicodeStr<'_>>, property: EventProperty, signaled: bool) -> Result<Self> {
        Self::with_attributes(name, sys::OBJ_OPENIF, |handle, attributes| {
            // SAFETY: handle and attributes are local variables of the caller's, the latter initialised. The level was checked.
            unsafe { sys::ZwCreateEvent(handle, sys::EVENT_ALL_ACCESS, attributes, property.raw(), signaled.into()) }
        })
    }

    /// Opens a handle to the event object with a name.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - The error `STATUS_OBJECT_NAME_NOT_FOUND` if nothing has the name.
    /// - [`OBJECT_TYPE_MISMATCH`](crate::NtError::OBJECT_TYPE_MISMATCH) if something else has it.
    /// - [`IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::driver::UnicodeStr;
    /// use ksync::event::EventProperty;
    /// use ksync::handle::ObjectHandle;
    /// use ksync::object::EventObject;
    /// use ksync::sys::EVENT_ALL_ACCESS;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let name: Vec<u16> = "\\BaseNamedObjects\\Ready".encode_utf16().collect();
    /// let name = UnicodeStr::new(&name).unwrap();
    /// let made = ObjectHandle::create_event(Some(name), EventProperty::Notification, false).unwrap();
    /// let found = ObjectHandle::open_event(name, EVENT_ALL_ACCESS).unwrap();
    /// assert_eq!(made.to_object::<ksync::object::Event>(), found.to_object());
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps `ZwOpenEvent`.
    #[doc(alias = "ZwOpenEvent")]
    pub fn open_event(name: UnicodeStr<'_>, access: sys::ACCESS_MASK) -> Result<Self> {
        Self::with_attributes(Some(name), 0, |handle, attributes| {
            // SAFETY: handle and attributes are local variables of the caller's, the latter initialised. The level was checked.
            unsafe { sys::ZwOpenEvent(handle, access, attributes) }
        })
    }

    /// Opens a kernel handle by a service that is given a place for it and object attributes.
    fn with_attributes(
        name: Option<UnicodeStr<'_>>,
        flags: sys::ULONG,
        open: impl FnOnce(*mut sys::HANDLE, *const sys::OBJECT_ATTRIBUTES) -> sys::NTSTATUS,
    ) -> Result<Self> {
        irql::require_at_most(Irql::PASSIVE)?;
        late::close_all(Image::this());
        let mut name = name.map(|name| name.to_raw());
        let name = name.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
        let flags = flags | sys::OBJ_KERNEL_HANDLE | sys::OBJ_CASE_INSENSITIVE;
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: the attributes are a local variable. The name is null, or a local variable whose text outlives this function.
        unsafe { sys::InitializeObjectAttributes(attributes.as_mut_ptr(), name, flags, ptr::null_mut(), ptr::null_mut()) };
        let mut handle = ptr::null_mut();
        check(open(&raw mut handle, attributes.as_ptr()))?;
        // SAFETY: the service succeeded, so the handle is open, a kernel handle, and nobody else's.
        Ok(unsafe { Self::from_raw(handle) })
    }

    /// The object that the handle stands for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`OBJECT_TYPE_MISMATCH`](crate::NtError::OBJECT_TYPE_MISMATCH) if the object is not of type `T`.
    /// - [`IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `PASSIVE_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::{Process, Thread, ThreadObject};
    /// use ksync::sys::GENERIC_ALL;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ThreadObject::current().open(GENERIC_ALL).unwrap();
    /// assert!(handle.to_object::<Thread>().is_ok());
    /// assert_eq!(handle.to_object::<Process>(), Err(NtError::OBJECT_TYPE_MISMATCH));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ObReferenceObjectByHandle`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-obreferenceobjectbyhandle).
    #[doc(alias = "ObReferenceObjectByHandle")]
    pub fn to_object<T: ObjectType>(&self) -> Result<KernelObject<T>> {
        KernelObject::from_kernel_handle(self.0, 0)
    }

    /// The process that the handle stands for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`to_object`](Self::to_object).
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ProcessObject::current().open(GENERIC_ALL).unwrap();
    /// assert_eq!(handle.to_process(), Ok(ProcessObject::current()));
    /// # }).expect_clean();
    /// ```
    pub fn to_process(&self) -> Result<ProcessObject> {
        self.to_object()
    }

    /// The thread that the handle stands for.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// Those of [`to_object`](Self::to_object).
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ThreadObject::current().open(GENERIC_ALL).unwrap();
    /// assert_eq!(handle.to_thread(), Ok(ThreadObject::current()));
    /// # }).expect_clean();
    /// ```
    pub fn to_thread(&self) -> Result<ThreadObject> {
        self.to_object()
    }

    /// Closes the handle now.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// - [`IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `PASSIVE_LEVEL`; the handle is then left as by a drop.
    /// - Those of `ZwClose`.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadObject;
    /// use ksync::sys::GENERIC_ALL;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let handle = ThreadObject::current().open(GENERIC_ALL).unwrap();
    /// assert_eq!(handle.close(), Ok(()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ZwClose`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-ntclose).
    #[doc(alias = "ZwClose")]
    pub fn close(self) -> Result {
        irql::require_at_most(Irql::PASSIVE)?;
        let handle = self.into_raw();
        // SAFETY: by the type's invariant the handle is open and ours to close. That is done once, because `into_raw` consumed the value. The level was checked.
        check(unsafe { sys::ZwClose(handle) }).map(drop)
    }
}

impl<T: ObjectType> TryFrom<&KernelObject<T>> for ObjectHandle {
    type Error = crate::NtError;

    /// Opens a handle with `GENERIC_ALL`. See [`KernelObject::open`].
    fn try_from(object: &KernelObject<T>) -> Result<Self> {
        object.open(sys::GENERIC_ALL)
    }
}

impl<T: ObjectType> TryFrom<&ObjectHandle> for KernelObject<T> {
    type Error = crate::NtError;

    /// See [`ObjectHandle::to_object`].
    fn try_from(handle: &ObjectHandle) -> Result<Self> {
        handle.to_object()
    }
}

impl fmt::Debug for ObjectHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ObjectHandle").field(&self.0).finish()
    }
}

impl Drop for ObjectHandle {
    fn drop(&mut self) {
        if irql::current() > Irql::PASSIVE {
            // SAFETY: by the type's invariant the handle is open and ours to close, which this value gives up.
            if unsafe { late::defer(self.0) } {
                crate::println!("ksync: a handle was dropped above PASSIVE_LEVEL; it is closed later");
            } else {
                crate::println!("ksync: a handle was dropped above PASSIVE_LEVEL and is leaked");
            }
            return;
        }
        late::close_all(Image::this());
        // SAFETY: by the type's invariant the handle is open and ours to close, and it is closed once, here. The level was checked.
        let _ = unsafe { sys::ZwClose(self.0) };
    }
}
