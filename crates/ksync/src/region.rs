//! Regions of code in which APCs are held back.
//!
//! A kernel APC can interrupt a thread anywhere at `PASSIVE_LEVEL` and suspend or delay it there. Code that others wait for (the holder
//! of a lock) therefore runs in a *critical region*, where normal kernel APCs and user APCs are held back, or in a *guarded region*, where special kernel APCs are
//! too. Both are counters of the thread, so regions nest and end in any order. Outside of the last one, pending APCs are delivered at once.
//!
//! The locks of [`mutex`](crate::mutex) enter what they need by themselves.

use core::marker::PhantomData;

use ksync_sys as sys;

use crate::error::Result;
use crate::irql::{self, Irql};

/// A critical region: the thread takes no normal kernel APCs and no user APCs until this is dropped.
///
/// It cannot leave its thread, whose counter it stands for. Forgetting it leaves the thread in the region for ever.
///
/// # Examples
/// ```
/// use ksync::region::{self, CriticalRegion};
///
/// # ksim::Machine::new().run(|| {
/// let before = CriticalRegion::enter().unwrap();
/// let after = CriticalRegion::enter().unwrap();
/// drop(before); // Any order will do.
/// assert!(region::apcs_disabled());
/// drop(after);
/// # }).expect_clean();
/// ```
#[derive(Debug)]
#[must_use = "the region ends as soon as the value is dropped"]
pub struct CriticalRegion {
    _not_send: PhantomData<*mut ()>,
}

impl CriticalRegion {
    /// Enters a critical region.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`.
    ///
    /// # Examples
    /// See [the type](Self).
    ///
    /// Wraps [`KeEnterCriticalRegion`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keentercriticalregion).
    #[doc(alias = "KeEnterCriticalRegion")]
    pub fn enter() -> Result<Self> {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the level was checked; dropping the value leaves the region, on this thread because it is not `Send`.
        unsafe { sys::KeEnterCriticalRegion() };
        Ok(Self { _not_send: PhantomData })
    }
}

impl Drop for CriticalRegion {
    /// Leaves the region. Above `APC_LEVEL`, where that is not allowed, the thread stays in it.
    ///
    /// Wraps [`KeLeaveCriticalRegion`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keleavecriticalregion).
    fn drop(&mut self) {
        if irql::require_at_most(Irql::APC).is_ok() {
            // SAFETY: the value stands for one entry of this thread, which is left once. IRQL: checked.
            unsafe { sys::KeLeaveCriticalRegion() };
        }
    }
}

/// A guarded region: the thread takes no APCs at all until this is dropped.
///
/// It cannot leave its thread, whose counter it stands for. Forgetting it leaves the thread in the region for ever.
///
/// # Examples
/// ```
/// use ksync::region::{self, GuardedRegion};
///
/// # ksim::Machine::new().run(|| {
/// let region = GuardedRegion::enter().unwrap();
/// assert!(region::all_apcs_disabled());
/// drop(region);
/// assert!(!region::all_apcs_disabled());
/// # }).expect_clean();
/// ```
#[derive(Debug)]
#[must_use = "the region ends as soon as the value is dropped"]
pub struct GuardedRegion {
    _not_send: PhantomData<*mut ()>,
}

impl GuardedRegion {
    /// Enters a guarded region.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`](crate::NtError::IRQL_TOO_HIGH) above `APC_LEVEL`.
    ///
    /// # Examples
    /// See [the type](Self).
    ///
    /// Wraps [`KeEnterGuardedRegion`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keenterguardedregion).
    #[doc(alias = "KeEnterGuardedRegion")]
    pub fn enter() -> Result<Self> {
        irql::require_at_most(Irql::APC)?;
        // SAFETY: the level was checked; dropping the value leaves the region, on this thread because it is not `Send`.
        unsafe { sys::KeEnterGuardedRegion() };
        Ok(Self { _not_send: PhantomData })
    }
}

impl Drop for GuardedRegion {
    /// Leaves the region. Above `APC_LEVEL`, where that is not allowed, the thread stays in it.
    ///
    /// Wraps [`KeLeaveGuardedRegion`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keleaveguardedregion).
    fn drop(&mut self) {
        if irql::require_at_most(Irql::APC).is_ok() {
            // SAFETY: the value stands for one entry of this thread, which is left once. IRQL: checked.
            unsafe { sys::KeLeaveGuardedRegion() };
        }
    }
}

/// Tells whether normal kernel APCs are held back by a region. The level is not looked at.
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// Wraps [`KeAreApcsDisabled`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keareapcsdisabled).
#[doc(alias = "KeAreApcsDisabled")]
#[must_use]
pub fn apcs_disabled() -> bool {
    // Above DISPATCH_LEVEL the routine may not be asked, and there is no APC there either.
    // SAFETY: the routine reads a counter of the current thread. IRQL: checked first.
    irql::require_at_most(Irql::DISPATCH).is_err() || unsafe { sys::KeAreApcsDisabled() } != sys::FALSE
}

/// Tells whether all APCs are held back, by a guarded region or by the level.
///
/// # IRQL
/// Any.
///
/// Wraps [`KeAreAllApcsDisabled`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-keareallapcsdisabled).
#[doc(alias = "KeAreAllApcsDisabled")]
#[must_use]
pub fn all_apcs_disabled() -> bool {
    // SAFETY: the routine reads a counter of the current thread and the level. IRQL: checked first.
    irql::require_at_most(Irql::DISPATCH).is_err() || unsafe { sys::KeAreAllApcsDisabled() } != sys::FALSE
}
