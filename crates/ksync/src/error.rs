//! Status codes and errors.
//!
//! The kernel answers with an `NTSTATUS`: negative for errors and warnings, otherwise success. [`NtStatus`] is any of them. [`NtError`]
//! is one that is known to be negative, so that `Result<(), NtError>` takes four bytes and converts to an `NTSTATUS` without a branch table.
//!
//! Waits do not go through [`NtError`]: timeouts, alerts and abandoned mutexes are *success* codes of the kernel's, and have
//! their own types where they can occur.

use core::convert::Infallible;
use core::fmt;
use core::num::NonZeroI32;

use ksync_sys as sys;

/// What an operation of this library returns.
pub type Result<T = (), E = NtError> = core::result::Result<T, E>;

const _: () = assert!(size_of::<Result>() == 4, "a Result<()> must be as small as an NTSTATUS");

/// The codes that errors are named by.
mod codes {
    pub(super) use ksync_sys::*;

    /// `ntstatus.h`: "The parameter specified in the request is not valid", for levels.
    pub(super) const STATUS_INVALID_LEVEL: NTSTATUS = 0xC000_0148_u32.cast_signed();
    /// `ntstatus.h`: "An operation was attempted out of sequence".
    pub(super) const STATUS_REQUEST_OUT_OF_SEQUENCE: NTSTATUS = 0xC000_042A_u32.cast_signed();
}

/// Any status code, success or not.
///
/// # Examples
/// ```
/// use ksync::error::NtStatus;
///
/// assert!(NtStatus(0x102).is_success()); // STATUS_TIMEOUT
/// assert_eq!(NtStatus(0x102).name(), Some("STATUS_TIMEOUT"));
/// assert_eq!(format!("{:?}", NtStatus(0)), "NTSTATUS(0x00000000 STATUS_SUCCESS)");
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "NTSTATUS")]
pub struct NtStatus(pub i32);

impl NtStatus {
    /// `STATUS_SUCCESS`.
    pub const SUCCESS: Self = Self(sys::STATUS_SUCCESS);

    /// Tells whether the code means success or information, which is what C's `NT_SUCCESS` tells.
    #[doc(alias = "NT_SUCCESS")]
    #[must_use]
    #[inline]
    pub const fn is_success(self) -> bool {
        self.0 >= 0
    }

    /// NT's name for the code, where it is known.
    ///
    /// Success codes share numbers: `0` is both `STATUS_SUCCESS` and `STATUS_WAIT_0`, and the first name is given.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self.0 {
            codes::STATUS_INVALID_LEVEL => Some("STATUS_INVALID_LEVEL"),
            codes::STATUS_REQUEST_OUT_OF_SEQUENCE => Some("STATUS_REQUEST_OUT_OF_SEQUENCE"),
            status => sys::status_name(status),
        }
    }

    /// Splits success from failure.
    ///
    /// # Errors
    /// The code itself, if it is an error or a warning.
    #[inline]
    pub const fn ok(self) -> Result<Self> {
        match NtError::from_status(self.0) {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "NTSTATUS({:#010X} {name})", self.0),
            None => write!(f, "NTSTATUS({:#010X})", self.0),
        }
    }
}

impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "NTSTATUS {:#010X}", self.0),
        }
    }
}

impl From<NtError> for NtStatus {
    #[inline]
    fn from(error: NtError) -> Self {
        error.status()
    }
}

/// A status code that is an error or a warning.
///
/// # Invariants
/// The code is negative.
///
/// # Examples
/// ```
/// use ksync::error::NtError;
///
/// let error = NtError::INSUFFICIENT_RESOURCES;
/// assert_eq!(format!("{error:?}"), "NTSTATUS(0xC000009A STATUS_INSUFFICIENT_RESOURCES)");
/// assert_eq!(error.status().0, 0xC000_009A_u32 as i32);
/// assert_eq!(NtError::from_status(0), None);
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[doc(alias = "NTSTATUS")]
pub struct NtError(NonZeroI32);

/// Declares the named errors.
macro_rules! errors {
    ($($(#[$meta:meta])* $name:ident = $status:ident;)*) => {
        impl NtError {$(
            $(#[$meta])*
            ///
            #[doc = concat!("This is `", stringify!($status), "`.")]
            pub const $name: Self = Self::named(codes::$status);
        )*}
    };
}

errors! {
    /// Something failed, and no code says what.
    UNSUCCESSFUL = STATUS_UNSUCCESSFUL;
    /// The operation is not offered here.
    NOT_SUPPORTED = STATUS_NOT_SUPPORTED;
    /// An argument is out of range or contradicts another.
    INVALID_PARAMETER = STATUS_INVALID_PARAMETER;
    /// The object is in a state in which the operation makes no sense.
    INVALID_DEVICE_STATE = STATUS_INVALID_DEVICE_STATE;
    /// Pool ran out.
    INSUFFICIENT_RESOURCES = STATUS_INSUFFICIENT_RESOURCES;
    /// The caller's IRQL is too high for the operation, which did nothing.
    ///
    /// NT has no code for this (its own routines bug check), so the nearest is taken: the level that the call came with is not valid for it.
    IRQL_TOO_HIGH = STATUS_INVALID_LEVEL;
    /// The caller's IRQL is too low for the operation, which did nothing: the level has to be raised first.
    ///
    /// NT has no code for this, so the nearest is taken: the operation came before what must precede it.
    IRQL_TOO_LOW = STATUS_REQUEST_OUT_OF_SEQUENCE;
    /// The caller already holds the lock that it asks for, and would wait for itself.
    WOULD_DEADLOCK = STATUS_POSSIBLE_DEADLOCK;
    /// The lock is held by someone else, and the caller asked not to wait.
    LOCK_NOT_GRANTED = STATUS_LOCK_NOT_GRANTED;
    /// The time ran out.
    ///
    /// The kernel's own `STATUS_TIMEOUT` is a success code and so cannot be an error; this one can.
    TIMEOUT = STATUS_IO_TIMEOUT;
    /// The wait was broken off, by an alert or a user APC.
    CANCELLED = STATUS_CANCELLED;
    /// A count would exceed the semaphore's limit.
    SEMAPHORE_LIMIT_EXCEEDED = STATUS_SEMAPHORE_LIMIT_EXCEEDED;
    /// The mutex was taken too often by its owner.
    MUTANT_LIMIT_EXCEEDED = STATUS_MUTANT_LIMIT_EXCEEDED;
    /// The caller does not own the mutex.
    MUTANT_NOT_OWNED = STATUS_MUTANT_NOT_OWNED;
    /// The object is going away and takes no new users.
    DELETE_PENDING = STATUS_DELETE_PENDING;
    /// The buffer is too short for the answer.
    BUFFER_TOO_SMALL = STATUS_BUFFER_TOO_SMALL;
    /// The handle names nothing.
    INVALID_HANDLE = STATUS_INVALID_HANDLE;
    /// The handle or object is of another type.
    OBJECT_TYPE_MISMATCH = STATUS_OBJECT_TYPE_MISMATCH;
    /// The handle does not grant what was asked.
    ACCESS_DENIED = STATUS_ACCESS_DENIED;
    /// No process or thread has this identifier.
    INVALID_CID = STATUS_INVALID_CID;
    /// Nothing is found under this name or key.
    NOT_FOUND = STATUS_NOT_FOUND;
    /// The name is taken.
    OBJECT_NAME_COLLISION = STATUS_OBJECT_NAME_COLLISION;
    /// A sum or product does not fit.
    INTEGER_OVERFLOW = STATUS_INTEGER_OVERFLOW;
}

impl NtError {
    /// Wraps a named status. Evaluated at compile time only.
    const fn named(status: i32) -> Self {
        match Self::from_status(status) {
            Some(error) => error,
            None => panic!("a named error must be negative"),
        }
    }

    /// Wraps a status code if it is an error or a warning.
    #[must_use]
    #[inline]
    pub const fn from_status(status: i32) -> Option<Self> {
        match NonZeroI32::new(status) {
            // INVARIANT: the guard admits negative codes only.
            Some(code) if status < 0 => Some(Self(code)),
            _ => None,
        }
    }

    /// The status code.
    #[must_use]
    #[inline]
    pub const fn status(self) -> NtStatus {
        NtStatus(self.0.get())
    }

    /// NT's name for the code, where it is known.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        self.status().name()
    }
}

impl fmt::Debug for NtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.status(), f)
    }
}

impl fmt::Display for NtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.status(), f)
    }
}

impl core::error::Error for NtError {}

impl From<Infallible> for NtError {
    #[inline]
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Splits a raw status code into success and failure.
#[inline]
pub(crate) const fn check(status: sys::NTSTATUS) -> Result<NtStatus> {
    NtStatus(status).ok()
}
