//! What a visible operation touches.
//!
//! Two operations are *independent* if their order can be seen neither in what they return nor in what they leave behind. Footprints say so conservatively: an export
//! that states none depends on everything. One that touches a single object states it in `exports!`, behind `visible`:
//!
//! - `visible(access Object)`: it reads and changes the object, and depends on whatever else touches it. This is right for any operation on one object.
//! - `visible(read Object)`: it changes nothing, so that two of them are independent.
//! - `visible(acquire Object)`: it waits for ever for something that only one can have, such as a mutex; while another has it, it does nothing but wait.
//! - `visible(release Object)`: its owner gives that up.
//! - `visible(wait Object, Timeout)`: it waits for a dispatcher object.
//!
//! An operation that touches two objects, or one and the clock, states nothing.

use crate::engine::spinning::CLOCK;

/// How an operation uses its object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Not known: it may depend on everything.
    Unknown,
    /// It reads and changes the object.
    Access,
    /// It only reads the object.
    Read,
    /// It takes the object, and does nothing but wait while it cannot.
    Acquire,
    /// It waits until the object is signaled, and takes nothing.
    Await,
    /// It gives up what its context has acquired.
    Release,
}

/// What an operation touches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Footprint {
    pub(crate) effect: Effect,
    /// Stands for the object, within one run: an address or a handle. 0 where there is none.
    pub(crate) object: usize,
    /// Whether those that perform it on the same object are ordered by it. An atomic says that by itself.
    pub(crate) synchronizes: bool,
}

impl Footprint {
    /// Touches what is not known.
    pub(crate) const UNKNOWN: Self = Self { effect: Effect::Unknown, object: 0, synchronizes: true };

    #[inline]
    pub(crate) fn access<T>(object: *const T) -> Self {
        Self { effect: Effect::Access, object: object.addr(), synchronizes: true }
    }

    #[inline]
    pub(crate) fn read<T>(object: *const T) -> Self {
        Self { effect: Effect::Read, object: object.addr(), synchronizes: true }
    }

    /// The DPC interrupt of a processor, which touches nothing else.
    pub(crate) fn interrupt(cpu: u8) -> Self {
        // No address and no handle is so small and odd.
        Self { effect: Effect::Read, object: 2 * usize::from(cpu) + 3, synchronizes: true }
    }

    #[inline]
    pub(crate) fn acquire<T>(object: *const T) -> Self {
        Self { effect: Effect::Acquire, object: object.addr(), synchronizes: true }
    }

    #[inline]
    pub(crate) fn release<T>(object: *const T) -> Self {
        Self { effect: Effect::Release, object: object.addr(), synchronizes: true }
    }

    /// A wait for one object: with a timeout, it may also do something else than wait.
    #[inline]
    pub(crate) fn wait<T, U>(object: *const T, timeout: *const U) -> Self {
        if timeout.is_null() { Self::acquire(object) } else { Self::access(object) }
    }

    /// True for a stall: its context does nothing but let time pass.
    pub(crate) fn lets_time_pass(self) -> bool {
        self.effect == Effect::Access && self.object == CLOCK
    }

    /// The same operation, which by itself orders nothing.
    pub(crate) fn unsynchronized(self) -> Self {
        Self { synchronizes: false, ..self }
    }

    /// How it uses its object.
    #[must_use]
    pub fn effect(self) -> Effect {
        self.effect
    }

    /// What stands for the object, within one run. 0 where there is none.
    #[must_use]
    pub fn object(self) -> usize {
        self.object
    }

    /// True when the order of the two may matter.
    #[inline]
    #[must_use]
    pub fn depends_on(self, other: Self) -> bool {
        use Effect::{Await, Read, Unknown};
        if self.effect == Unknown || other.effect == Unknown {
            return true;
        }
        self.object == other.object && !matches!((self.effect, other.effect), (Read | Await, Read | Await))
    }
}
