//! What can go wrong with a lookaside list.

use core::alloc::Layout;
use core::fmt;

use crate::alloc::TagText;
use crate::error::NtError;

/// Why an operation on a lookaside list was refused. It did nothing.
///
/// # Examples
/// ```
/// use ksync::NtError;
/// use ksync::lookaside::{LookasideAlloc, LookasideError};
///
/// # ksim::Machine::new().run(|| {
/// let list = LookasideAlloc::default();
/// let error = list.flush().unwrap_err();
/// assert_eq!(error, LookasideError::Uninitialized);
/// assert_eq!(error.to_string(), "the lookaside list is not initialised");
/// assert_eq!(NtError::from(error), NtError::INVALID_DEVICE_STATE);
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LookasideError {
    /// The list is not initialised.
    Uninitialized,
    /// The list is initialised already.
    AlreadyInitialized,
    /// Another call is in progress that excludes this one: the list is being initialised, destroyed, flushed or looked at. It may succeed a moment later.
    Busy,
    /// So many entries were not given back.
    EntriesOut(u32),
    /// The layout is larger than an entry, or aligned to more than 16 bytes.
    DoesNotFit(Layout),
    /// The size does not fit into 32 bits.
    InvalidSize(usize),
    /// The pool takes no such tag.
    InvalidTag(u32),
    /// The kernel knows no such flags.
    InvalidFlags(u32),
    /// The flag `EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL`: a failed allocation would raise an exception, which nothing in Rust can catch.
    RaiseOnFail,
    /// There is no memory.
    NoMemory,
    /// The caller's IRQL is too high for the operation.
    IrqlTooHigh,
    /// The kernel refused for another reason.
    Refused(NtError),
}

impl fmt::Display for LookasideError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Uninitialized => f.write_str("the lookaside list is not initialised"),
            Self::AlreadyInitialized => f.write_str("the lookaside list is initialised already"),
            Self::Busy => f.write_str("the lookaside list is in use by a call that excludes this one"),
            Self::EntriesOut(1) => f.write_str("1 entry of the lookaside list was not given back"),
            Self::EntriesOut(entries) => write!(f, "{entries} entries of the lookaside list were not given back"),
            Self::DoesNotFit(layout) => {
                write!(f, "{} bytes aligned to {} do not fit into an entry of the lookaside list", layout.size(), layout.align())
            }
            Self::InvalidSize(size) => write!(f, "a lookaside list cannot have entries of {size} bytes"),
            Self::InvalidTag(tag) => write!(f, "the pool takes no tag {tag:#x} {}", TagText(tag)),
            Self::InvalidFlags(flags) => write!(f, "lookaside lists know no flags {flags:#x}"),
            Self::RaiseOnFail => f.write_str("a lookaside list must not raise an exception when an allocation fails"),
            Self::NoMemory => f.write_str("there is no pool"),
            Self::IrqlTooHigh => f.write_str("the IRQL is too high"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for LookasideError {}

impl From<NtError> for LookasideError {
    fn from(error: NtError) -> Self {
        match error {
            NtError::INSUFFICIENT_RESOURCES => Self::NoMemory,
            NtError::IRQL_TOO_HIGH => Self::IrqlTooHigh,
            error => Self::Refused(error),
        }
    }
}

impl From<LookasideError> for NtError {
    fn from(error: LookasideError) -> Self {
        match error {
            LookasideError::Uninitialized
            | LookasideError::AlreadyInitialized
            | LookasideError::Busy
            | LookasideError::EntriesOut(_) => Self::INVALID_DEVICE_STATE,
            LookasideError::DoesNotFit(_)
            | LookasideError::InvalidSize(_)
            | LookasideError::InvalidTag(_)
            | LookasideError::InvalidFlags(_)
            | LookasideError::RaiseOnFail => Self::INVALID_PARAMETER,
            LookasideError::NoMemory => Self::INSUFFICIENT_RESOURCES,
            LookasideError::IrqlTooHigh => Self::IRQL_TOO_HIGH,
            LookasideError::Refused(error) => error,
        }
    }
}
