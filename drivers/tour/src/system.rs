//! What the running system has.

use ksync::sys::{MmGetSystemRoutineAddress, UNICODE_STRING};

/// The longest name asked for.
const LONGEST: usize = 64;

/// True when the kernel exports a routine. A driver may import what the system lacks only if it never calls it there, and on
/// Windows not even then.
pub(crate) fn exports(routine: &str) -> bool {
    let mut units = [0_u16; LONGEST];
    if routine.len() > LONGEST {
        return false;
    }
    for (unit, byte) in units.iter_mut().zip(routine.bytes()) {
        *unit = u16::from(byte);
    }
    let bytes = (routine.len() * 2) as u16;
    let mut name = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_mut_ptr() };
    // SAFETY: the string is valid, and the tour runs at PASSIVE_LEVEL.
    !unsafe { MmGetSystemRoutineAddress(&raw mut name) }.is_null()
}
