//! The word that says whether there is a list, and counts who needs it.

use core::fmt;
use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};

use super::LookasideError;

/// There is no list.
const ABSENT: u64 = 0;
/// Someone makes a list, or does away with it, and has it alone.
const CHANGING: u64 = 1;
/// There is a list.
const READY: u64 = 2;
/// The bits of these.
const PHASE: u64 = 3;
/// One call in progress that takes or returns no entry.
const VISITOR: u64 = 1 << 2;
/// One entry that is out, or about to be.
const ENTRY: u64 = 1 << 32;
/// The bits of visitors.
const VISITORS: u64 = ENTRY - VISITOR;
/// The bits of entries.
const ENTRIES: u64 = !(ENTRY - 1);

/// What is counted.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    /// A call that takes or returns no entry.
    Visitor,
    /// An entry.
    Entry,
}

impl Unit {
    /// The step by which it counts.
    const fn step(self) -> u64 {
        match self {
            Self::Visitor => VISITOR,
            Self::Entry => ENTRY,
        }
    }

    /// The bits that it counts in.
    const fn bits(self) -> u64 {
        match self {
            Self::Visitor => VISITORS,
            Self::Entry => ENTRIES,
        }
    }
}

/// The word.
///
/// # Invariants
/// - Something is counted only while the phase is [`READY`], and the phase leaves [`READY`] only where nothing is counted.
/// - Only who made the phase [`CHANGING`] changes it then.
pub(super) struct State(AtomicU64);

impl State {
    /// No list, and nothing counted.
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(ABSENT))
    }

    /// How many entries are counted.
    pub(super) fn entries(&self) -> u32 {
        // CAST: the bits above 32 of 64.
        (self.0.load(Ordering::Relaxed) >> 32) as u32
    }

    /// Begins to make a list.
    pub(super) fn open(&self) -> Result<Change<'_>, LookasideError> {
        // Acquire: what the one before did to the list comes first.
        match self.0.compare_exchange(ABSENT, CHANGING, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Change(self)),
            Err(word) if word & PHASE == CHANGING => Err(LookasideError::Busy),
            Err(_) => Err(LookasideError::AlreadyInitialized),
        }
    }

    /// Begins to do away with the list, if nothing is counted.
    pub(super) fn close(&self) -> Result<Close<'_>, LookasideError> {
        // Acquire: what was done under all holds comes first; they were released one after the other by changes of this word.
        match self.0.compare_exchange(READY, CHANGING, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(Close::Closing(Change(self))),
            Err(word) => match word & PHASE {
                ABSENT => Ok(Close::Absent),
                READY if word & ENTRIES != 0 => Err(LookasideError::EntriesOut((word >> 32) as u32)),
                _ => Err(LookasideError::Busy),
            },
        }
    }

    /// Counts one more, which keeps the list.
    #[inline]
    pub(super) fn enter(&self, unit: Unit) -> Result<Hold<'_>, LookasideError> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            match word & PHASE {
                READY => {}
                ABSENT => return Err(LookasideError::Uninitialized),
                _ => return Err(LookasideError::Busy),
            }
            if word & unit.bits() == unit.bits() {
                return Err(LookasideError::Busy);
            }
            // Acquire: the making of the list comes first.
            match self.0.compare_exchange_weak(word, word + unit.step(), Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Hold { state: self, unit }),
                Err(now) => word = now,
            }
        }
    }

    /// Takes up the hold of something that is counted already.
    ///
    /// # Safety
    /// It is counted, by a hold that was [kept](Hold::keep), and is taken up once.
    pub(super) unsafe fn resume(&self, unit: Unit) -> Hold<'_> {
        Hold { state: self, unit }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("State").field(&self.0).finish()
    }
}

/// Something that is counted, so that the list stays. Dropping it counts down.
pub(super) struct Hold<'a> {
    state: &'a State,
    unit: Unit,
}

impl Hold<'_> {
    /// Leaves it counted.
    pub(super) fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Hold<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: what was done under the hold comes before the end of the list.
        self.state.0.fetch_sub(self.unit.step(), Ordering::Release);
    }
}

/// What [`State::close`] found.
pub(super) enum Close<'a> {
    /// There is no list.
    Absent,
    /// There is one, and the caller has it alone.
    Closing(Change<'a>),
}

/// The right to make a list or do away with it. Dropping it says that there is none.
pub(super) struct Change<'a>(&'a State);

impl Change<'_> {
    /// Says that there is a list.
    pub(super) fn into_ready(self) {
        // Release: the making of the list comes before its use.
        self.0.0.store(READY, Ordering::Release);
        mem::forget(self);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        // Release: the end of the list comes before the making of the next.
        self.0.0.store(ABSENT, Ordering::Release);
    }
}
