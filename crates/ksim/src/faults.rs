//! Faults: what can fail at any time, and in tests hardly ever does.
//!
//! A fault is the n-th of its kind. [`Machine::fault`] makes one happen, [`Machine::run_with_faults`] one after the other until the program has no more of them, and
//! [`Explore::faults`](crate::explore::Explore::faults) does that with a whole search for each.

use crate::Outcome;
use crate::explore::{Allowed, tell};
use crate::machine::Machine;
use std::fmt;
use std::str::FromStr;

/// What fails.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum FaultKind {
    /// An allocation: of pool, or of what the system allocates for an object, a thread's stack or a timer.
    Allocation,
    /// The creation of a thread, with STATUS_INSUFFICIENT_RESOURCES.
    Thread,
    /// The creation of another object, of a name or of a handle, with STATUS_INSUFFICIENT_RESOURCES.
    Object,
    /// A wait with a timeout: it ends with STATUS_TIMEOUT where it would have blocked.
    Timeout,
    /// An alertable wait: it ends with STATUS_ALERTED where it would have blocked.
    Alert,
    /// A user-mode wait: it ends with STATUS_USER_APC where it would have blocked, as when its thread is terminated.
    UserApc,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Allocation, Self::Thread, Self::Object, Self::Timeout, Self::Alert, Self::UserApc];

    fn name(self) -> &'static str {
        match self {
            Self::Allocation => "allocation",
            Self::Thread => "thread",
            Self::Object => "object",
            Self::Timeout => "timeout",
            Self::Alert => "alert",
            Self::UserApc => "user-apc",
        }
    }
}

/// One fault: the `n`th of its kind, counted from 1, in order of what happens in a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fault {
    /// What fails.
    pub kind: FaultKind,
    /// Which one.
    pub n: u64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind.name(), self.n)
    }
}

impl FromStr for Fault {
    type Err = ();

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (name, n) = text.rsplit_once('-').ok_or(())?;
        let kind = FaultKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(())?;
        Ok(Self { kind, n: n.parse().map_err(drop)? })
    }
}

/// So many faults of a kind are tried at most: a program that has more waits or allocates in a loop.
pub(crate) const MOST_FAULTS: u64 = 10_000;

impl Machine {
    /// Runs a program without faults, and then once for each fault of these kinds that it comes to: the first, the second and so on. Stops at the first run that is not clean, and
    /// returns it with its fault. Without one it returns the number of runs; how many of them ended early at a breach of a rule that is [off](Self::check_rule), standard error says.
    ///
    /// # Errors
    /// The outcome that is not clean.
    ///
    /// # Panics
    /// If called from code that runs on a machine already.
    ///
    /// # Example
    /// ```
    /// use ksim::{FaultKind, Machine};
    /// use ksync_sys::{ExAllocatePool2, ExFreePool, POOL_FLAG_NON_PAGED};
    ///
    /// let tag = u32::from_le_bytes(*b"Demo");
    /// // SAFETY: the routine may be called here.
    /// let allocate = || unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, 64, tag) };
    /// let leaks = || {
    ///     let first = allocate();
    ///     if first.is_null() {
    ///         return;
    ///     }
    ///     let second = allocate();
    ///     if second.is_null() {
    ///         return;
    ///     }
    ///     for memory in [first, second] {
    ///         // SAFETY: the block is allocated.
    ///         unsafe { ExFreePool(memory) };
    ///     }
    /// };
    /// let (fault, outcome) = *Machine::new().run_with_faults(&[FaultKind::Allocation], leaks).unwrap_err();
    /// assert_eq!(fault.unwrap().n, 2);
    /// assert_eq!(outcome.left().pool_bytes(), 64);
    /// ```
    pub fn run_with_faults(&self, kinds: &[FaultKind], program: impl Fn()) -> Result<u64, Box<(Option<Fault>, Outcome)>> {
        let mut allowed = Allowed::default();
        let outcome = self.run(&program);
        if outcome.is_failure() {
            return Err(Box::new((None, outcome)));
        }
        allowed.record(&outcome);
        let mut runs = 1;
        for &kind in kinds {
            for n in 1..=MOST_FAULTS {
                let fault = Fault { kind, n };
                let outcome = self.clone().fault(fault).run(&program);
                if outcome.is_failure() {
                    return Err(Box::new((Some(fault), outcome)));
                }
                if !outcome.has_fault() {
                    break;
                }
                allowed.record(&outcome);
                runs += 1;
            }
        }
        if !allowed.is_empty() {
            tell(&format!("of {runs} runs, {allowed}"));
        }
        Ok(runs)
    }
}
