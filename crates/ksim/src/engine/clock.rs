//! The virtual clock: interrupt time and system time (rule 57).
//!
//! The clock stands still while anything runs and jumps to the next expiry when all processors are idle. Only
//! `KeStallExecutionProcessor`, and a thread that does nothing but look at the time, move it otherwise.

use super::timer::Due;
use crate::config::ClockMode;
use crate::report::sites::SiteId;

/// Interrupt time and system time of a machine, in 100 ns units.
#[derive(Debug)]
pub(crate) struct Clock {
    mode: ClockMode,
    /// Since boot.
    now: u64,
    /// System time at interrupt time 0.
    system_base: i64,
    /// The tick at present, and the interrupt time from which on ticks have been so long.
    tick: u32,
    tick_since: u64,
    /// Requests for a shorter tick that have not been taken back, oldest first.
    requests: Vec<TickRequest>,
}

/// A request for a shorter tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TickRequest {
    /// The driver that asked.
    pub(crate) driver: Option<u16>,
    pub(crate) site: Option<SiteId>,
}

/// The shortest tick that can be asked for: half a millisecond.
const SHORTEST_TICK: u32 = 5_000;

/// The longest tick, in a machine whose clock is exact: Windows' default, 15.625 ms.
const DEFAULT_TICK: u32 = 156_250;

impl Clock {
    pub(crate) fn new(system_time: i64, mode: ClockMode) -> Self {
        let tick = match mode {
            ClockMode::Exact => DEFAULT_TICK,
            ClockMode::Tick(tick) => tick.max(1),
        };
        Self { mode, now: 0, system_base: system_time, tick, tick_since: 0, requests: Vec::new() }
    }

    /// The interrupt time that software reads.
    #[inline]
    pub(crate) fn interrupt_time(&self) -> u64 {
        match self.mode {
            ClockMode::Exact => self.now,
            ClockMode::Tick(_) => self.now - (self.now - self.tick_since) % u64::from(self.tick),
        }
    }

    /// The interrupt time to the 100 ns, which the `...Precise` routines read.
    pub(crate) fn precise_interrupt_time(&self) -> u64 {
        self.now
    }

    /// The interrupt time, if it is the same by all routines.
    #[inline]
    pub(crate) fn exact(&self) -> Option<u64> {
        matches!(self.mode, ClockMode::Exact).then_some(self.now)
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

    /// The clock interval in 100 ns units: the longest, whatever it is at present.
    pub(crate) fn increment(&self) -> u32 {
        match self.mode {
            ClockMode::Exact => DEFAULT_TICK,
            ClockMode::Tick(tick) => tick.max(1),
        }
    }

    /// The shortest tick that can be asked for.
    pub(crate) fn shortest_tick(&self) -> u32 {
        SHORTEST_TICK.min(self.increment())
    }

    /// The tick at present.
    pub(crate) fn tick(&self) -> u32 {
        self.tick
    }

    /// Asks for a tick. The shortest that anyone asked for holds until all requests have been taken back.
    pub(crate) fn request_tick(&mut self, tick: u32, request: TickRequest) {
        self.requests.push(request);
        let tick = tick.clamp(self.shortest_tick(), self.increment());
        if tick < self.tick {
            self.change_tick(tick);
        }
    }

    /// The oldest request of a driver, or of none, that was not taken back.
    pub(crate) fn tick_request(&self, driver: Option<u16>) -> Option<TickRequest> {
        self.requests.iter().find(|request| request.driver == driver).copied()
    }

    /// How many requests for a tick were not taken back.
    pub(crate) fn tick_requests(&self) -> usize {
        self.requests.len()
    }

    /// Takes a request for a tick back: one of the driver's, if it has made any.
    pub(crate) fn release_tick(&mut self, driver: Option<u16>) {
        // NT has a count and no more: it does not matter whose it was.
        let own = self.requests.iter().position(|request| request.driver == driver);
        if !self.requests.is_empty() {
            self.requests.remove(own.unwrap_or(0));
        }
        if self.requests.is_empty() {
            self.change_tick(self.increment());
        }
    }

    /// Ticks are of another length from the last one on, so that the time that software reads does not go back.
    fn change_tick(&mut self, tick: u32) {
        self.tick_since = self.now - (self.now - self.tick_since) % u64::from(self.tick);
        self.tick = tick;
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
            Due::Precise(time) => time <= self.now,
        }
    }

    /// The interrupt time at which the clock interrupt sees the moment as past.
    pub(crate) fn expiry_time(&self, due: Due) -> u64 {
        let time = match due {
            Due::Interrupt(time) => time,
            Due::System(time) => u64::try_from(time.saturating_sub(self.system_base)).unwrap_or(0),
            Due::Precise(time) => return time,
        };
        match self.mode {
            ClockMode::Exact => time,
            ClockMode::Tick(_) => {
                let since = time.saturating_sub(self.tick_since);
                let ticks = since.checked_next_multiple_of(u64::from(self.tick));
                ticks.and_then(|ticks| self.tick_since.checked_add(ticks)).unwrap_or(u64::MAX)
            }
        }
    }

    /// The interrupt time of a moment, as things are.
    pub(crate) fn interrupt_time_of(&self, due: Due) -> u64 {
        match due {
            Due::Interrupt(time) | Due::Precise(time) => time,
            Due::System(_) => self.expiry_time(due),
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
