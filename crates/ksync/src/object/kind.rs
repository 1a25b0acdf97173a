//! The types of objects.

use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};

use ksync_sys as sys;

use crate::error::{NtError, Result, check};

pub(super) mod sealed {
    /// Keeps [`ObjectType`](super::ObjectType) to this crate.
    pub trait Sealed {}
}

/// A type of kernel object that a [`KernelObject`](super::KernelObject) can refer to. Sealed: [`Thread`], [`Process`], [`Event`], [`Semaphore`], [`Mutant`], [`Timer`] and [`File`].
///
/// # Safety
/// `type_object` is the object type of what `Raw` stands for, or null; `NAME` is that type's name. What `is_counted` denies stays for ever.
pub unsafe trait ObjectType: sealed::Sealed + 'static {
    /// The raw ABI's name for such an object.
    type Raw;

    /// The name of the type.
    const NAME: &'static str;

    /// A wait makes the thread the object's owner, who must release it at the kind of level that it took it at.
    #[doc(hidden)]
    const HAS_OWNER: bool = false;

    /// Tells whether the system counts references to the object. It does not for the thread that a processor is in when it is idle, and the process of that: these look like others, but are no
    /// objects of the object manager, which would write its count to memory that is not theirs. They stay for ever.
    ///
    /// # Safety
    /// The object is alive.
    #[doc(hidden)]
    unsafe fn is_counted(object: NonNull<Self::Raw>) -> bool {
        let _ = object;
        true
    }

    /// The kernel's type object, or null where the kernel exports none.
    #[doc(hidden)]
    fn type_object() -> *mut sys::OBJECT_TYPE;
}

/// A type of kernel object that can be waited for: all but [`File`].
///
/// # Safety
/// Such objects begin with a dispatcher header.
pub unsafe trait WaitableType: ObjectType {}

macro_rules! type_object {
    (none) => {
        ptr::null_mut()
    };
    ($variable:path) => {
        // SAFETY: the kernel sets the variable before it loads a driver, and never again.
        unsafe { $variable }
    };
}

macro_rules! object_types {
    ($($(#[$meta:meta])* $name:ident = $raw:ty, $text:literal, [$($exported:tt)*] $(, owner $owner:literal)? $(, id $id:path)?;)*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        pub enum $name {}

        impl sealed::Sealed for $name {}

        // SAFETY: the type object is the one for these, or null, and the name is that of the type.
        unsafe impl ObjectType for $name {
            type Raw = $raw;

            const NAME: &'static str = $text;
            $(const HAS_OWNER: bool = $owner;)?

            $(unsafe fn is_counted(object: NonNull<$raw>) -> bool {
                // Those that are not counted have no number.
                // SAFETY: by this function's contract.
                !unsafe { $id(object.as_ptr()) }.is_null()
            })?

            fn type_object() -> *mut sys::OBJECT_TYPE {
                type_object!($($exported)*)
            }
        }
    )*};
}

object_types! {
    /// The type of thread objects, in [`ThreadObject`](super::ThreadObject).
    Thread = sys::ETHREAD, "Thread", [sys::PsThreadType], id sys::PsGetThreadId;
    /// The type of process objects, in [`ProcessObject`](super::ProcessObject).
    Process = sys::EPROCESS, "Process", [sys::PsProcessType], id sys::PsGetProcessId;
    /// The type of event objects, in [`EventObject`](super::EventObject).
    Event = sys::KEVENT, "Event", [sys::ExEventObjectType];
    /// The type of semaphore objects, in [`SemaphoreObject`](super::SemaphoreObject).
    Semaphore = sys::KSEMAPHORE, "Semaphore", [sys::ExSemaphoreObjectType];
    /// The type of mutant objects, in [`MutantObject`](super::MutantObject): what user programs call a mutex.
    Mutant = sys::KMUTANT, "Mutant", [none], owner true;
    /// The type of timer objects, in [`TimerObject`](super::TimerObject).
    Timer = sys::KTIMER, "Timer", [none];
    /// The type of file objects, in [`FileObject`](super::FileObject): files and devices that someone has open.
    File = sys::FILE_OBJECT, "File", [sys::IoFileObjectType];
}

macro_rules! waitable_types {
    ($($name:ident)*) => {$(
        // SAFETY: these are dispatcher objects.
        unsafe impl WaitableType for $name {}
    )*};
}

waitable_types! { Thread Process Event Semaphore Mutant Timer }

/// Checks that an object is of the type with a name, for types whose object the kernel does not export.
///
/// The system tells the type of a *handle*, and a user's own handle may stand for something else a moment later. So the question is asked through a kernel handle to the very object.
///
/// # Errors
/// - [`NtError::OBJECT_TYPE_MISMATCH`] if it is of another type.
/// - Those of `ObOpenObjectByPointer`.
///
/// # Safety
/// The object is referenced during the call, and the level is `PASSIVE_LEVEL`.
pub(super) unsafe fn check_name(object: sys::PVOID, name: &str) -> Result {
    /// Long enough for the names that are looked for.
    const WORDS: usize = 32;
    let mut handle = ptr::null_mut();
    // SAFETY: by this function's contract. No type is named, which the routine allows in kernel mode. The handle is written to a local variable.
    let status = unsafe {
        sys::ObOpenObjectByPointer(
            object,
            sys::OBJ_KERNEL_HANDLE,
            ptr::null_mut(),
            0,
            ptr::null_mut(),
            sys::KernelMode,
            &raw mut handle,
        )
    };
    check(status)?;
    let mut words = [MaybeUninit::<u64>::zeroed(); WORDS];
    // CAST: 256.
    let bytes = size_of_val(&words) as u32;
    let place: *mut u64 = words.as_mut_ptr().cast();
    // SAFETY: the handle was opened just now. The place is so large. No length is asked for.
    let status = unsafe { sys::ZwQueryObject(handle, sys::ObjectTypeInformation, place.cast(), bytes, ptr::null_mut()) };
    // SAFETY: the handle is ours, and is closed once, here.
    let _ = unsafe { sys::ZwClose(handle) };
    // A name that does not fit is none of those looked for.
    check(status).map_err(|_| NtError::OBJECT_TYPE_MISMATCH)?;
    // SAFETY: the routine succeeded and wrote the structure to the place, which is aligned for it.
    let found = unsafe { &(*place.cast::<sys::PUBLIC_OBJECT_TYPE_INFORMATION>()).TypeName };
    // SAFETY: the name's text lies in the place, behind the structure.
    let found = unsafe { crate::driver::UnicodeStr::from_raw(found) };
    if found.units().iter().copied().eq(name.encode_utf16()) { Ok(()) } else { Err(NtError::OBJECT_TYPE_MISMATCH) }
}
