//! Routines that not every system exports.
//!
//! An import that the running system does not export keeps the whole driver from loading. What is younger than the oldest Windows that this library is for is therefore
//! looked up by name.

use core::marker::PhantomData;
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

use ksync_sys as sys;

use crate::error::{NtError, Result};
use crate::irql::{self, Irql};

/// Nobody asked yet.
const UNASKED: usize = 0;
/// The system does not have it.
const ABSENT: usize = 1;
/// The longest name.
const CAPACITY: usize = 40;

/// A routine of the kernel's that may not be there. `F` is its function pointer type.
pub(crate) struct Routine<F> {
    name: &'static str,
    /// The address, or one of the two above.
    found: sys::ImageLocal<AtomicUsize>,
    _routine: PhantomData<F>,
}

impl<F: Copy> Routine<F> {
    /// Names a routine.
    ///
    /// # Safety
    /// The exported routine of this name has the type `F`, which is a function pointer.
    pub(crate) const unsafe fn new(name: &'static str) -> Self {
        assert!(size_of::<F>() == size_of::<usize>() && name.len() <= CAPACITY);
        // SAFETY: the value is an integer that owns nothing and that may be used from everywhere.
        let found = unsafe { sys::ImageLocal::new(AtomicUsize::new(UNASKED)) };
        Self { name, found, _routine: PhantomData }
    }

    /// The routine, if the running system has it and it was found at `PASSIVE_LEVEL`, now or before.
    pub(crate) fn get(&'static self) -> Option<F> {
        // SAFETY: the variable is there as long as the image whose code this is.
        let found = unsafe { &*self.found.get() };
        let mut address = found.load(Ordering::Relaxed);
        if address == UNASKED {
            if irql::current() > Irql::PASSIVE {
                return None;
            }
            address = find(self.name).unwrap_or(ABSENT);
            found.store(address, Ordering::Relaxed);
        }
        if address == ABSENT {
            return None;
        }
        let routine = ptr::with_exposed_provenance::<()>(address);
        // SAFETY: the constructor's caller vouches that the routine of this name is an `F`, which has a pointer's size. Exports are not unmapped.
        Some(unsafe { mem::transmute_copy::<*const (), F>(&routine) })
    }
}

impl<F: Copy> Routine<F> {
    /// [`get`](Self::get), or why there is none.
    ///
    /// # Errors
    /// - [`NtError::NOT_SUPPORTED`] if the system does not export it.
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`, if nobody asked at `PASSIVE_LEVEL` before.
    pub(crate) fn require(&'static self) -> Result<F> {
        if let Some(routine) = self.get() {
            return Ok(routine);
        }
        // SAFETY: as in `get`.
        let found = unsafe { &*self.found.get() };
        let asked = found.load(Ordering::Relaxed) != UNASKED;
        Err(if asked { NtError::NOT_SUPPORTED } else { NtError::IRQL_TOO_HIGH })
    }
}

/// Asks the system for the address of a routine. The caller is at `PASSIVE_LEVEL`.
fn find(name: &str) -> Option<usize> {
    let mut buffer = [0_u16; CAPACITY];
    let mut length = 0;
    for (unit, byte) in buffer.iter_mut().zip(name.bytes()) {
        *unit = byte.into();
        length += 2;
    }
    let name = sys::UNICODE_STRING { Length: length, MaximumLength: length, Buffer: buffer.as_mut_ptr() };
    // SAFETY: the string is valid for the call, which only reads it. IRQL: the caller's.
    let address = unsafe { sys::MmGetSystemRoutineAddress(&raw const name) };
    (!address.is_null()).then(|| address.expose_provenance())
}
