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

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use core::cell::UnsafeCell;
    use core::sync::atomic::{AtomicBool, AtomicU32};
    use std::thread;

    /// What the state guards, in place of a list.
    struct Guarded {
        state: State,
        /// All the same: zero where there is no list, and otherwise the number of the making.
        list: UnsafeCell<[u64; 8]>,
    }

    // SAFETY: the cell is touched under holds and changes only, which is what is tested.
    unsafe impl Sync for Guarded {}

    impl Guarded {
        const fn new() -> Self {
            Self { state: State::new(), list: UnsafeCell::new([0; 8]) }
        }

        /// Writes what is there, word by word, to be seen half-way.
        fn write(&self, _change: &Change<'_>, value: u64) {
            for i in 0..8 {
                let word = self.list.get().cast::<u64>().wrapping_add(i);
                // SAFETY: the word lies in the array; who changes the state has it alone.
                unsafe { word.write_volatile(value) };
            }
        }

        /// Reads what is there, and checks that it is whole.
        fn read(&self, _hold: &Hold<'_>) -> u64 {
            // SAFETY: under a hold nobody writes.
            let words = unsafe { self.list.get().read_volatile() };
            assert!(words.iter().all(|&word| word == words[0]) && words[0] != 0, "{words:?}");
            words[0]
        }
    }

    #[test]
    fn the_phases() {
        let state = State::new();
        assert!(matches!(state.close(), Ok(Close::Absent)));
        assert!(matches!(state.enter(Unit::Entry), Err(LookasideError::Uninitialized)));

        let opening = state.open().unwrap();
        assert!(matches!(state.open(), Err(LookasideError::Busy)));
        assert!(matches!(state.close(), Err(LookasideError::Busy)));
        assert!(matches!(state.enter(Unit::Visitor), Err(LookasideError::Busy)));
        // A making that fails leaves nothing.
        drop(opening);
        assert!(matches!(state.close(), Ok(Close::Absent)));

        state.open().unwrap().into_ready();
        assert!(matches!(state.open(), Err(LookasideError::AlreadyInitialized)));
        let visitor = state.enter(Unit::Visitor).unwrap();
        assert!(matches!(state.close(), Err(LookasideError::Busy)));
        state.enter(Unit::Entry).unwrap().keep();
        assert!(matches!(state.close(), Err(LookasideError::EntriesOut(1))));
        drop(visitor);
        assert_eq!(state.entries(), 1);
        // SAFETY: the entry was kept above.
        drop(unsafe { state.resume(Unit::Entry) });
        assert!(matches!(state.close(), Ok(Close::Closing(_))));
        assert!(matches!(state.close(), Ok(Close::Absent)));
    }

    /// A count that is full does not run over into the next.
    #[test]
    fn full_counts_are_refused() {
        let state = State(AtomicU64::new(READY | VISITORS));
        assert!(matches!(state.enter(Unit::Visitor), Err(LookasideError::Busy)));
        drop(state.enter(Unit::Entry).unwrap());
        let state = State(AtomicU64::new(READY | ENTRIES));
        assert!(matches!(state.enter(Unit::Entry), Err(LookasideError::Busy)));
        drop(state.enter(Unit::Visitor).unwrap());
        assert_eq!(state.entries(), u32::MAX);
    }

    /// On the host's own processors: nobody sees a list half-made, or uses one that goes away.
    #[test]
    fn holds_and_changes_exclude_each_other() {
        const TURNS: u32 = if cfg!(miri) { 50 } else { 20_000 };
        static GUARDED: Guarded = Guarded::new();
        static STOP: AtomicBool = AtomicBool::new(false);
        let [made, unmade, held] = [const { AtomicU32::new(0) }; 3];
        thread::scope(|scope| {
            for id in 0..2_u64 {
                let (made, unmade) = (&made, &unmade);
                scope.spawn(move || {
                    for turn in 0..TURNS {
                        if let Ok(change) = GUARDED.state.open() {
                            GUARDED.write(&change, (u64::from(turn) << 1 | id) + 1);
                            change.into_ready();
                            made.fetch_add(1, Ordering::Relaxed);
                        }
                        thread::yield_now();
                        if let Ok(Close::Closing(change)) = GUARDED.state.close() {
                            GUARDED.write(&change, 0);
                            unmade.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    STOP.store(true, Ordering::Relaxed);
                });
            }
            for unit in [Unit::Visitor, Unit::Entry] {
                let held = &held;
                scope.spawn(move || {
                    while !STOP.load(Ordering::Relaxed) {
                        if let Ok(hold) = GUARDED.state.enter(unit) {
                            let first = GUARDED.read(&hold);
                            held.fetch_add(1, Ordering::Relaxed);
                            hold.keep();
                            // SAFETY: it was kept just now.
                            let hold = unsafe { GUARDED.state.resume(unit) };
                            assert_eq!(GUARDED.read(&hold), first);
                        }
                    }
                });
            }
        });
        let [made, unmade, held] = [made, unmade, held].map(AtomicU32::into_inner);
        assert!(made > 0 && held > 0 && (made == unmade || made == unmade + 1), "{made} {unmade} {held}");
        assert_eq!(GUARDED.state.0.load(Ordering::Relaxed) & !PHASE, 0);
    }
}
