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
//! - `visible(acquire_if Object, Wait)`, `visible(share_if Object, Wait)`: it does so if `Wait` is not 0, and says at once that it cannot otherwise.
//! - `visible(share Object)`: it becomes one of several that share a lock, for which it waits while one has it for itself.
//! - `visible(unshare Object)`: it gives up a lock that it shares or has for itself.
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
    /// As `Access`, and what it arms expires if nothing else comes before.
    Arm,
    /// It becomes one of several that share the object, and does nothing but wait while one has it for itself.
    Share,
    /// It gives up an object that its context shares. The order of those that share it matters only while somebody waits to have it for himself.
    Unshare,
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

    /// A worker thread takes an item off the system's queues. No address and no handle is so small and odd, and no processor's number leads to it.
    pub(crate) const WORK: Self = Self { effect: Effect::Access, object: 0xfff1, synchronizes: true };

    /// Likewise for what is queued for a thread that runs threaded DPCs.
    pub(crate) const THREADED_DPCS: Self = Self { effect: Effect::Access, object: 0xfff3, synchronizes: true };

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

    /// An acquisition that waits only if `wait` is not 0.
    #[inline]
    pub(crate) fn acquire_if<T>(object: *const T, wait: u8) -> Self {
        if wait == 0 { Self::access(object) } else { Self::acquire(object) }
    }

    #[inline]
    pub(crate) fn share<T>(object: *const T) -> Self {
        Self { effect: Effect::Share, object: object.addr(), synchronizes: true }
    }

    /// A shared acquisition that waits only if `wait` is not 0.
    #[inline]
    pub(crate) fn share_if<T>(object: *const T, wait: u8) -> Self {
        if wait == 0 { Self::access(object) } else { Self::share(object) }
    }

    #[inline]
    pub(crate) fn unshare<T>(object: *const T) -> Self {
        Self { effect: Effect::Unshare, object: object.addr(), synchronizes: true }
    }

    /// A delay: one that is a pause only gives up the processor, and the others depend on the clock.
    pub(crate) fn delay(is_pause: bool) -> Self {
        if is_pause { Self::level(crate::machine::acting_processor()) } else { Self::UNKNOWN }
    }

    /// A change of the level of a processor: only that processor's interrupts see it.
    pub(crate) fn level(cpu: u8) -> Self {
        Self { effect: Effect::Access, ..Self::interrupt(cpu) }
    }

    #[inline]
    pub(crate) fn release<T>(object: *const T) -> Self {
        Self { effect: Effect::Release, object: object.addr(), synchronizes: true }
    }

    /// A wait for one object: with a timeout, it may also do something else than wait.
    #[inline]
    pub(crate) fn wait<T, U>(object: *const T, timeout: *const U) -> Self {
        let effect = if timeout.is_null() { Effect::Acquire } else { Effect::Arm };
        Self { effect, object: object.addr(), synchronizes: true }
    }

    /// True for a stall: its context does nothing but let time pass.
    #[inline]
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

    /// True for what does nothing but wait while it cannot have its object.
    #[inline]
    pub(crate) fn waits(self) -> bool {
        matches!(self.effect, Effect::Acquire | Effect::Await | Effect::Share)
    }

    /// True when the order of the two may matter.
    #[inline]
    #[must_use]
    pub fn depends_on(self, other: Self) -> bool {
        use Effect::{Await, Read, Share, Unknown, Unshare};
        if self.effect == Unknown || other.effect == Unknown {
            return true;
        }
        let commute = matches!((self.effect, other.effect), (Read | Await, Read | Await) | (Share | Unshare, Share | Unshare));
        self.object == other.object && !commute
    }
}
