//! The virtual clock: interrupt time and system time (rule 57).
//!
//! The clock stands still while anything runs and jumps to the next expiry when all processors are idle. Only
//! `KeStallExecutionProcessor`, and a thread that does nothing but look at the time, move it otherwise.

use super::timer::Due;
use crate::config::ClockMode;

/// Interrupt time and system time of a machine, in 100 ns units.
#[derive(Debug)]
pub(crate) struct Clock {
    mode: ClockMode,
    /// Since boot.
    now: u64,
    /// System time at interrupt time 0.
    system_base: i64,
}

impl Clock {
    pub(crate) fn new(system_time: i64, mode: ClockMode) -> Self {
        Self { mode, now: 0, system_base: system_time }
    }

    /// The interrupt time that software reads.
    #[inline]
    pub(crate) fn interrupt_time(&self) -> u64 {
        match self.mode {
            ClockMode::Exact => self.now,
            ClockMode::Tick(tick) => self.now - self.now % u64::from(tick.max(1)),
        }
    }

    /// The interrupt time to the 100 ns, which the `...Precise` routines read.
    pub(crate) fn precise_interrupt_time(&self) -> u64 {
        self.now
    }

    /// The system time that software reads: 100 ns units since 1601.
    pub(crate) fn system_time(&self) -> i64 {
        self.system_base.saturating_add_unsigned(self.interrupt_time())
    }

    /// The system time to the 100 ns.
    pub(crate) fn precise_system_time(&self) -> i64 {
        self.system_base.saturating_add_unsigned(self.now)
    }

    /// Sets the system time. Interrupt time goes on as it was.
    pub(crate) fn set_system_time(&mut self, time: i64) {
        self.system_base = time.saturating_sub_unsigned(self.now);
    }

    /// The clock interval in 100 ns units.
    pub(crate) fn increment(&self) -> u32 {
        match self.mode {
            ClockMode::Exact => 156_250,
            ClockMode::Tick(tick) => tick.max(1),
        }
    }

    /// Clock ticks since boot.
    pub(crate) fn tick_count(&self) -> u64 {
        self.now / u64::from(self.increment())
    }

    /// The moment that a driver's LARGE_INTEGER means: negative is relative, else absolute system time.
    pub(crate) fn due(&self, time: i64) -> Due {
        if time < 0 { Due::Interrupt(self.interrupt_time().saturating_add(time.unsigned_abs())) } else { Due::System(time) }
    }

    /// True when the moment has come.
    #[inline]
    pub(crate) fn is_past(&self, due: Due) -> bool {
        match due {
            Due::Interrupt(time) => time <= self.interrupt_time(),
            Due::System(time) => time <= self.system_time(),
        }
    }

    /// The interrupt time at which the clock interrupt sees the moment as past.
    pub(crate) fn expiry_time(&self, due: Due) -> u64 {
        let time = match due {
            Due::Interrupt(time) => time,
            Due::System(time) => u64::try_from(time.saturating_sub(self.system_base)).unwrap_or(0),
        };
        match self.mode {
            ClockMode::Exact => time,
            ClockMode::Tick(tick) => time.checked_next_multiple_of(u64::from(tick.max(1))).unwrap_or(u64::MAX),
        }
    }

    /// Moves the clock forward to `time`, if that is later.
    pub(crate) fn advance_to(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// Moves the clock forward by some 100 ns units.
    pub(crate) fn advance_by(&mut self, units: u64) {
        self.now = self.now.saturating_add(units);
    }
}
