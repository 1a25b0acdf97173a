//! Levels that are known at compile time.

use core::marker::PhantomData;

use ksync_sys as sys;

use super::{Irql, current, restore};
use crate::error::{NtError, Result};

mod sealed {
    /// Keeps [`Level`](super::Level) to the four that there are.
    pub trait Sealed {}
    impl Sealed for super::Dynamic {}
    impl Sealed for super::Passive {}
    impl Sealed for super::Apc {}
    impl Sealed for super::Dispatch {}
}

/// What an [`Irql`] knows of its level: its number ([`Dynamic`]), or the level itself at compile time ([`StaticLevel`]).
pub trait Level: sealed::Sealed {
    /// What the value consists of.
    #[doc(hidden)]
    type Value;
}

/// A level that is known at compile time: [`Passive`], [`Apc`] or [`Dispatch`].
pub trait StaticLevel: Level<Value = Proof> {
    /// The level's number.
    const LEVEL: Irql;
}

/// In [`Irql`]: the level is a number, known at run time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dynamic {}

/// In [`Irql`]: the level is `PASSIVE_LEVEL`.
#[derive(Debug)]
pub enum Passive {}

/// In [`Irql`]: the level is `APC_LEVEL`.
#[derive(Debug)]
pub enum Apc {}

/// In [`Irql`]: the level is `DISPATCH_LEVEL`.
#[derive(Debug)]
pub enum Dispatch {}

/// What a token consists of: nothing, and it stays on its thread.
#[doc(hidden)]
#[derive(Debug)]
pub struct Proof(PhantomData<*mut ()>);

impl Level for Dynamic {
    type Value = u8;
}

impl Level for Passive {
    type Value = Proof;
}

impl Level for Apc {
    type Value = Proof;
}

impl Level for Dispatch {
    type Value = Proof;
}

impl StaticLevel for Passive {
    const LEVEL: Irql = Irql::PASSIVE;
}

impl StaticLevel for Apc {
    const LEVEL: Irql = Irql::APC;
}

impl StaticLevel for Dispatch {
    const LEVEL: Irql = Irql::DISPATCH;
}

/// A level that is not above another.
#[diagnostic::on_unimplemented(
    message = "this is for `{Max}` level or below, and the level here is `{Self}`",
    label = "the level here is `{Self}`",
    note = "a lock that waits cannot be taken under a spin lock or in a DPC, which hold the processor at `Dispatch` level"
)]
pub trait AtMost<Max: StaticLevel>: StaticLevel {}

impl AtMost<Passive> for Passive {}
impl AtMost<Apc> for Passive {}
impl AtMost<Apc> for Apc {}
impl AtMost<Dispatch> for Passive {}
impl AtMost<Dispatch> for Apc {}
impl AtMost<Dispatch> for Dispatch {}

/// Level tokens.
///
/// An `Irql<Passive>`, `Irql<Apc>` or `Irql<Dispatch>` is a value without size that says at compile time which level the code that has it runs at. Operations that
/// take one by `&mut` check the level at compile time and not at run time, and what raises the level borrows the token of the level before until it is lowered again, so that a release out of
/// order does not compile.
///
/// A token is a lint: it can be had twice, and what it says can be undone by raw calls. What goes wrong then is a hang or a bug check, never memory.
impl<L: StaticLevel> Irql<L> {
    /// Checks the present level once and returns the token that says so.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] or [`NtError::IRQL_TOO_LOW`], if the level is another.
    ///
    /// # Examples
    /// ```
    /// use ksync::irql::{Dispatch, Irql, Passive};
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert!(Irql::<Passive>::claim().is_ok());
    /// assert!(Irql::<Dispatch>::claim().is_err());
    /// # }).expect_clean();
    /// ```
    pub fn claim() -> Result<Self> {
        let level = current();
        if level == L::LEVEL {
            Ok(Self(Proof(PhantomData)))
        } else {
            Err(if level > L::LEVEL { NtError::IRQL_TOO_HIGH } else { NtError::IRQL_TOO_LOW })
        }
    }

    /// Returns the token without a check, for the entry points that the kernel calls at a level it promises.
    ///
    /// # Safety
    /// The level is what the token says, for as long as the token is used. Otherwise the system hangs or stops.
    #[must_use]
    #[inline]
    pub const unsafe fn assume() -> Self {
        Self(Proof(PhantomData))
    }

    /// The token of a level that this library itself has just made sure of.
    #[inline]
    pub(crate) const fn made() -> Self {
        Self(Proof(PhantomData))
    }

    /// The level as a number.
    #[must_use]
    #[inline]
    pub const fn level(&self) -> Irql {
        L::LEVEL
    }

    /// Runs a closure at a higher level, or at the same, with the token of that level.
    ///
    /// # IRQL
    /// That of the token.
    ///
    /// # Examples
    /// ```
    /// use ksync::irql::{self, Dispatch, Irql, Passive};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let mut passive = Irql::<Passive>::claim().unwrap();
    /// let level = passive.raised::<Dispatch, _>(|dispatch| {
    ///     assert_eq!(dispatch.level(), Irql::DISPATCH);
    ///     irql::current()
    /// });
    /// assert_eq!((level, irql::current()), (Irql::DISPATCH, Irql::PASSIVE));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeRaiseIrql`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-keraiseirql).
    #[doc(alias = "KeRaiseIrql")]
    pub fn raised<To: StaticLevel, R>(&mut self, run: impl FnOnce(&mut Irql<To>) -> R) -> R
    where
        L: AtMost<To>,
    {
        /// Lowers the level again, also when the closure unwinds, which it can do hosted.
        struct Lower(Irql, Irql);
        impl Drop for Lower {
            fn drop(&mut self) {
                restore(self.0, self.1);
            }
        }
        if L::LEVEL == To::LEVEL {
            return run(&mut Irql::made());
        }
        // SAFETY: the new level is above the one that the token says is the present one; that it does say so is for the lint's user to see to.
        let old = unsafe { sys::KfRaiseIrql(To::LEVEL.get()) };
        let _lower = Lower(To::LEVEL, Irql::new(old));
        run(&mut Irql::made())
    }
}
