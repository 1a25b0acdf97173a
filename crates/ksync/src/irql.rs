//! The interrupt request level (IRQL) of the current processor.
//!
//! A processor's level says what can interrupt it. At `PASSIVE_LEVEL` threads run and may wait; at `APC_LEVEL` asynchronous procedure
//! calls are held back; at `DISPATCH_LEVEL` no other thread gets the processor, so that nothing there may wait or touch paged memory;
//! above that device interrupts are held back, level by level.
//!
//! Every operation of this library states the levels at which it may be called under *IRQL* in its docs. Called above, it returns
//! [`NtError::IRQL_TOO_HIGH`] and does nothing.
//!
//! # Dropping out of order
//! A level is one number per processor, so what raises it has to lower it in the reverse order. Guards (a [`RaisedIrql`], the guard of a spin lock) are values that can be
//! dropped in any order. Dropping one never lowers the level below what it was before the *first* of them, never raises it, and never leaves a lock unreleased. In
//! the reverse order, levels go as one expects. In another order:
//! - of guards at `DISPATCH_LEVEL`, the last that is dropped returns to the level before the first, whichever that is;
//! - a guard of a lower level that is dropped under one of a higher level leaves the level alone; the lower level is what remains in the end, for the thread's lifetime.
//!
//! The second is a mistake, though not an unsound one. Closures ([`with_raised`], `with` of the spin locks) and the level tokens exclude them.

use core::fmt;
use core::marker::PhantomData;

use ksync_sys as sys;

use crate::error::{NtError, Result};

mod nesting;
mod token;

pub(crate) use nesting::First;
pub use nesting::Raised;

pub use token::{Apc, AtMost, Dispatch, Dynamic, Level, Passive, StaticLevel};

/// An interrupt request level: a number, or a token that stands for a level.
///
/// Plain `Irql` is a number. `Irql<Passive>`, `Irql<Apc>` and `Irql<Dispatch>` are [tokens](#impl-Irql<L>): who has one runs at that level, as far as the compiler can tell.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
///
/// # ksim::Machine::new().run(|| {
/// assert_eq!(irql::current(), Irql::PASSIVE);
/// assert!(Irql::PASSIVE < Irql::DISPATCH);
/// assert_eq!(Irql::DISPATCH.to_string(), "DISPATCH_LEVEL");
/// # }).expect_clean();
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(alias = "KIRQL")]
pub struct Irql<L: Level = Dynamic>(L::Value);

impl Irql {
    /// `PASSIVE_LEVEL`: threads run, nothing is held back.
    pub const PASSIVE: Self = Self(sys::PASSIVE_LEVEL);
    /// `APC_LEVEL`: asynchronous procedure calls are held back.
    pub const APC: Self = Self(sys::APC_LEVEL);
    /// `DISPATCH_LEVEL`: the processor stays with what it runs; nothing may wait.
    pub const DISPATCH: Self = Self(sys::DISPATCH_LEVEL);
    /// `HIGH_LEVEL`: everything is held back.
    pub const HIGH: Self = Self(sys::HIGH_LEVEL);

    /// The level of this number.
    #[must_use]
    #[inline]
    pub const fn new(level: u8) -> Self {
        Self(level)
    }

    /// The level's number.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Irql({self})")
    }
}

impl<L: StaticLevel> fmt::Debug for Irql<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.level(), f)
    }
}

impl fmt::Display for Irql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PASSIVE => f.pad("PASSIVE_LEVEL"),
            Self::APC => f.pad("APC_LEVEL"),
            Self::DISPATCH => f.pad("DISPATCH_LEVEL"),
            Self::HIGH => f.pad("HIGH_LEVEL"),
            Self(level) => write!(f, "IRQL {level}"),
        }
    }
}

/// The current processor's level.
///
/// # IRQL
/// Any.
///
/// Wraps [`KeGetCurrentIrql`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetcurrentirql).
#[doc(alias = "KeGetCurrentIrql")]
#[must_use]
#[inline]
pub fn current() -> Irql {
    // SAFETY: the routine reads the processor's level; it asks nothing of its caller.
    Irql(unsafe { sys::KeGetCurrentIrql() })
}

/// Checks that the current level is `highest` or lower.
///
/// # Errors
/// [`NtError::IRQL_TOO_HIGH`] if it is above.
#[inline]
pub(crate) fn require_at_most(highest: Irql) -> Result {
    if current() <= highest { Ok(()) } else { Err(NtError::IRQL_TOO_HIGH) }
}

/// Raises the current processor's level until the guard is dropped.
///
/// Closures are less trouble where they fit: see [`with_raised`].
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// - [`NtError::IRQL_TOO_HIGH`] if the present level is above the one that is asked for, or above `DISPATCH_LEVEL`. A raise never lowers.
/// - [`NtError::INVALID_PARAMETER`] if a level above `DISPATCH_LEVEL` is asked for. Those levels belong to interrupts.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
///
/// # ksim::Machine::new().run(|| {
/// let raised = irql::raise(Irql::DISPATCH).unwrap();
/// assert_eq!(irql::current(), Irql::DISPATCH);
/// drop(raised);
/// assert_eq!(irql::current(), Irql::PASSIVE);
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeRaiseIrql`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keraiseirql).
#[doc(alias = "KeRaiseIrql")]
#[doc(alias = "KfRaiseIrql")]
pub fn raise(level: Irql) -> Result<RaisedIrql> {
    if level > Irql::DISPATCH {
        return Err(NtError::INVALID_PARAMETER);
    }
    let old = current();
    if old > level {
        return Err(NtError::IRQL_TOO_HIGH);
    }
    if old < level {
        // SAFETY: the new level is above the present one.
        unsafe { sys::KfRaiseIrql(level.0) };
    }
    let among = (level == Irql::DISPATCH).then(|| {
        // SAFETY: the routine reads a word of the processor's; it asks nothing of its caller.
        let thread = unsafe { sys::KeGetCurrentThread() };
        if old < level { Raised::Apart(First::new(old, thread)) } else { Raised::inside(thread) }
    });
    Ok(RaisedIrql { level, old, among, _not_send: PhantomData })
}

/// Runs a closure at a raised level and returns to the level before.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// As [`raise`]; the closure has not run then.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
///
/// # ksim::Machine::new().run(|| {
/// let level = irql::with_raised(Irql::APC, irql::current).unwrap();
/// assert_eq!(level, Irql::APC);
/// # }).expect_clean();
/// ```
#[doc(alias = "KeRaiseIrql")]
pub fn with_raised<R>(level: Irql, run: impl FnOnce() -> R) -> Result<R> {
    let _raised = raise(level)?;
    Ok(run())
}

/// A raised level, from [`raise`]. Dropping it returns to the level before.
///
/// It cannot leave its thread: a level belongs to a processor and to what runs there.
///
/// # Order
/// See [the module](self#dropping-out-of-order).
#[derive(Debug)]
#[must_use = "the level is lowered again as soon as the guard is dropped"]
pub struct RaisedIrql {
    /// The level that the guard stands for.
    level: Irql,
    /// The level before.
    old: Irql,
    /// How the guard stands to others at `DISPATCH_LEVEL`, if it is at that level and not for this library's own use.
    among: Option<Raised>,
    _not_send: PhantomData<*mut ()>,
}

impl RaisedIrql {
    /// The level that the guard raised to.
    #[must_use]
    pub fn level(&self) -> Irql {
        self.level
    }

    /// The level that dropping the guard returns to.
    #[must_use]
    pub fn previous(&self) -> Irql {
        self.old
    }
}

impl Drop for RaisedIrql {
    fn drop(&mut self) {
        match self.among {
            Some(among) => among.release(|_| (), || ()),
            None => restore(self.level, self.old),
        }
    }
}

/// Returns from a level to the one before it, as far as guards that are dropped out of order allow.
#[inline]
pub(crate) fn restore(level: Irql, old: Irql) {
    if old < level && current() == level {
        // SAFETY: the present level is the one that the caller's guard raised to and above the one it returns to. IRQL: no higher guard is
        // alive, or the present level would be its own.
        unsafe { sys::KeLowerIrql(old.0) };
    }
}

/// Makes sure that the level is at least the one given until the guard is dropped.
///
/// For releases, whose level a guard that was dropped out of order may have taken away.
#[inline]
pub(crate) fn raise_again(level: Irql) -> Option<RaisedIrql> {
    (current() < level).then(|| raise_below(level))
}

/// Raises the level from one below.
#[cold]
fn raise_below(level: Irql) -> RaisedIrql {
    // SAFETY: the caller found the present level to be below.
    let old = unsafe { sys::KfRaiseIrql(level.0) };
    RaisedIrql { level, old: Irql(old), among: None, _not_send: PhantomData }
}

/// Checks that the current level is `DISPATCH_LEVEL`.
///
/// # Errors
/// [`NtError::IRQL_TOO_LOW`] if it is below, [`NtError::IRQL_TOO_HIGH`] if it is above.
#[inline]
pub(crate) fn require_dispatch() -> Result {
    match current() {
        Irql::DISPATCH => Ok(()),
        level if level < Irql::DISPATCH => Err(NtError::IRQL_TOO_LOW),
        _ => Err(NtError::IRQL_TOO_HIGH),
    }
}
