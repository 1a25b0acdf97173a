//! Timers and the queue of everything that waits for a moment in time.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use super::processor::Cpu;
use super::thread::Tid;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{KDPC, KTIMER};
use std::collections::BTreeMap;

/// A moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// On the interrupt clock, which nothing changes.
    Interrupt(u64),
    /// On the system clock, which may be set (rule 15).
    System(i64),
    /// On the interrupt clock, to the 100 ns rather than at a tick.
    Precise(u64),
}

/// A place in the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Expiry {
    due: Due,
    order: u64,
}

/// What happens at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A thread's wait times out.
    Wait(Tid),
    /// A timer expires, a KTIMER or an EX_TIMER.
    Timer(ObjId),
}

/// What is pending, in order of time, then of insertion.
#[derive(Debug, Default)]
pub(crate) struct TimerQueue {
    relative: BTreeMap<(u64, u64), (Target, Cpu)>,
    absolute: BTreeMap<(i64, u64), (Target, Cpu)>,
    /// High-resolution timers.
    precise: BTreeMap<(u64, u64), (Target, Cpu)>,
    /// Expired while their processor was at DISPATCH_LEVEL or above, where timer expiration cannot run.
    deferred: Vec<(Target, Cpu)>,
    ever_deferred: bool,
    inserted: u64,
}

/// A KTIMER's state beside its header.
#[derive(Debug)]
pub(crate) struct TimerState {
    pub(crate) notification: bool,
    pub(crate) armed: Option<Expiry>,
    /// Milliseconds; 0 is one-shot.
    pub(crate) period: u32,
    /// How many milliseconds late each expiry may be, and the interrupt time that the pending one was for before that was added.
    pub(crate) tolerance: u32,
    pub(crate) nominal: u64,
    /// The DPC to queue at expiry, and its address: the entry may since have become another object's.
    pub(crate) dpc: Option<(ObjId, usize)>,
    /// The driver that armed it.
    pub(crate) driver: Option<u16>,
}

impl TimerQueue {
    pub(super) fn insert(&mut self, due: Due, target: Target, cpu: Cpu) -> Expiry {
        self.inserted += 1;
        let order = self.inserted;
        match due {
            Due::Interrupt(time) => self.relative.insert((time, order), (target, cpu)),
            Due::System(time) => self.absolute.insert((time, order), (target, cpu)),
            Due::Precise(time) => self.precise.insert((time, order), (target, cpu)),
        };
        Expiry { due, order }
    }

    /// Enters the timeout of a wait.
    pub(crate) fn insert_wait(&mut self, due: Due, tid: Tid, cpu: Cpu) -> Expiry {
        self.insert(due, Target::Wait(tid), cpu)
    }

    /// Takes an entry out before its time.
    pub(crate) fn remove(&mut self, expiry: Expiry, target: Target) {
        let removed = match expiry.due {
            Due::Interrupt(time) => self.relative.remove(&(time, expiry.order)),
            Due::System(time) => self.absolute.remove(&(time, expiry.order)),
            Due::Precise(time) => self.precise.remove(&(time, expiry.order)),
        };
        if removed.is_none() {
            // It has expired, but its processor could not look yet.
            self.remove_deferred(target);
        }
    }

    fn remove_deferred(&mut self, target: Target) {
        self.deferred.retain(|(deferred, _)| *deferred != target);
    }
}

impl TimerQueue {
    /// The timers that are to expire, but for those of high resolution, which are the system's.
    pub(super) fn armed(&self) -> impl Iterator<Item = ObjId> {
        let targets = self.relative.values().chain(self.absolute.values()).chain(&self.deferred);
        targets.filter_map(|(target, _)| match target {
            Target::Timer(id) => Some(*id),
            Target::Wait(_) => None,
        })
    }

    /// True when no timer or timeout is to come.
    pub(crate) fn is_empty(&self) -> bool {
        self.relative.is_empty() && self.absolute.is_empty() && self.precise.is_empty()
    }

    /// True when timer expiration is held back anywhere.
    #[inline]
    pub(crate) fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// True when anything has been armed in this run, whether it still is or not.
    pub(crate) fn has_been_used(&self) -> bool {
        self.inserted > 0
    }

    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        !self.has_been_used() && self.deferred.is_empty() && !self.ever_deferred
    }

    /// True when timer expiration has been held back in this run, whether it still is or not.
    pub(crate) fn has_deferred_before(&self) -> bool {
        self.ever_deferred
    }
}

impl Kernel {
    /// The interrupt time of the next expiry.
    pub(crate) fn next_expiry(&self) -> Option<u64> {
        let relative = self.timers.relative.keys().next().map(|&(time, _)| self.clock.expiry_time(Due::Interrupt(time)));
        let absolute = self.timers.absolute.keys().next().map(|&(time, _)| self.clock.expiry_time(Due::System(time)));
        let precise = self.timers.precise.keys().next().map(|&(time, _)| time);
        [relative, absolute, precise].into_iter().flatten().min()
    }

    /// Takes the first entry whose time has come.
    fn pop_expired(&mut self) -> Option<(Target, Cpu)> {
        let now = self.clock.interrupt_time();
        let relative = self.timers.relative.first_key_value().map(|(&(time, order), _)| (time, order));
        let absolute =
            self.timers.absolute.first_key_value().map(|(&(time, order), _)| (self.clock.expiry_time(Due::System(time)), order));
        let relative_first = match (relative, absolute) {
            (Some(relative), Some(absolute)) => relative <= absolute,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let at_tick = if relative_first { relative } else { absolute }.filter(|&(time, _)| time <= now);
        if !self.timers.precise.is_empty()
            && let Some(entry) = self.pop_precise(at_tick)
        {
            return Some(entry);
        }
        at_tick?;
        let entry = if relative_first { self.timers.relative.pop_first()?.1 } else { self.timers.absolute.pop_first()?.1 };
        Some(entry)
    }

    /// Takes the first high-resolution timer whose time has come, if it comes before `other`.
    fn pop_precise(&mut self, other: Option<(u64, u64)>) -> Option<(Target, Cpu)> {
        let first = self.timers.precise.first_entry()?;
        let &(time, order) = first.key();
        let is_first = time <= self.clock.precise_interrupt_time() && other.is_none_or(|other| (time, order) < other);
        is_first.then(|| first.remove())
    }

    /// The clock interrupt: everything whose time has come expires, on the processor that set it.
    pub(crate) fn expire(&mut self) -> Check<()> {
        while let Some((target, cpu)) = self.pop_expired() {
            if self.processors[cpu as usize].irql >= DISPATCH_LEVEL {
                self.timers.deferred.push((target, cpu));
                self.timers.ever_deferred = true;
            } else {
                self.expire_one(target, cpu)?;
            }
        }
        Ok(())
    }

    /// Timer expiration that was held back by the acting processor's IRQL.
    pub(crate) fn expire_deferred(&mut self) -> Check<()> {
        while let Some(position) = self.timers.deferred.iter().position(|(_, cpu)| *cpu == self.cpu) {
            let (target, cpu) = self.timers.deferred.remove(position);
            self.expire_one(target, cpu)?;
        }
        Ok(())
    }

    /// Asks the host's caches for what the next expiries will touch: with many timers, each of them is otherwise a row of cache misses.
    pub(crate) fn prefetch_expiries(&self) {
        /// So few timers are in the caches anyway.
        const FEW: usize = 1_000;
        if self.timers.relative.len() < FEW {
            return;
        }
        for (distance, (target, _)) in self.timers.relative.values().take(6).enumerate() {
            let Target::Timer(id) = *target else { continue };
            if distance >= 4 {
                self.objects.prefetch(id);
                continue;
            }
            let object = &self.objects[id];
            prefetch(object.address);
            if let Kind::Timer(TimerState { dpc: Some((dpc, address)), .. }) = &object.kind {
                self.objects.prefetch(*dpc);
                prefetch(*address);
            }
        }
    }

    fn expire_one(&mut self, target: Target, cpu: Cpu) -> Check<()> {
        match target {
            Target::Wait(tid) => self.wait_expired(tid),
            Target::Timer(id) => self.timer_expired(id, cpu),
        }
    }

    /// A timer becomes signaled: it re-arms if periodic, its DPC is queued, and waits are satisfied.
    fn timer_expired(&mut self, id: ObjId, cpu: Cpu) -> Check<()> {
        let number = self.objects[id].number;
        let periodic = match &self.objects[id].kind {
            Kind::Timer(timer) => timer.period != 0,
            Kind::ExTimer(timer) => timer.rearms(),
            _ => false,
        };
        self.record(Operation::TimerExpired, number, u64::from(periodic));
        if self.polled {
            self.let_all_look();
        }
        if matches!(self.objects[id].kind, Kind::ExTimer(_)) {
            return self.ex_timer_expired(id, cpu);
        }
        self.check_intact(id)?;
        let Kind::Timer(timer) = &mut self.objects[id].kind else {
            return Err(Violation::boxed(
                codes::TIMER_OR_DPC_INVALID,
                [0, self.objects[id].address as u64, 0, 0],
                "an armed timer's memory now holds another object",
            ));
        };
        timer.armed = None;
        let (period, dpc, tolerance) = (timer.period, timer.dpc, timer.tolerance);
        if period != 0 {
            // An expiry that was late within its tolerance does not move those after it.
            let now = self.clock.interrupt_time();
            let base = if tolerance == 0 { now } else { timer.nominal };
            let nominal = base.saturating_add(u64::from(period) * 10_000).max(now.saturating_add(1));
            self.arm_within(id, Due::Interrupt(nominal), tolerance, cpu);
        } else {
            self.write_inserted(id, false);
        }
        self.objects[id].set_signal_state(1);
        self.satisfy_waiters(id, 0)?;
        self.timer_apc_expired(id)?;
        if let Some((dpc, address)) = dpc {
            let object = &self.objects[dpc];
            let unchanged = object.address == address && matches!(object.kind, Kind::Dpc(_));
            // What is there now, if anything, is for the check of the address to say.
            let dpc = if unchanged { dpc } else { self.dpc_at(address as *const KDPC)? };
            let time = self.clock.system_time() as u64;
            // The DPC's arguments are the system time's words (rule 50).
            let low = (time & 0xffff_ffff) as usize as *mut _;
            let high = (time >> 32) as usize as *mut _;
            self.check_live(dpc)?;
            self.order_forwarded(id, dpc);
            if self.races.enabled {
                self.races.forwards(self.objects[id].address, self.objects[dpc].address);
            }
            if self.insert_dpc_from(dpc, low, high, cpu)? {
                self.dpc_state(dpc).by_timer = true;
            }
        }
        Ok(())
    }

    /// Arms a timer for one of the moments that its tolerance admits (rule 54).
    fn arm_within(&mut self, id: ObjId, nominal: Due, tolerance: u32, cpu: Cpu) {
        let time = self.clock.interrupt_time_of(nominal);
        if let Kind::Timer(timer) = &mut self.objects[id].kind {
            timer.nominal = time;
        }
        let delay = self.choose_delay(u64::from(tolerance) * 10_000);
        let due = match nominal {
            Due::Interrupt(time) => Due::Interrupt(time.saturating_add(delay)),
            Due::System(time) => Due::System(time.saturating_add_unsigned(delay)),
            Due::Precise(time) => Due::Precise(time.saturating_add(delay)),
        };
        self.arm(id, due, cpu);
    }

    fn arm(&mut self, id: ObjId, due: Due, cpu: Cpu) {
        let expiry = self.timers.insert(due, Target::Timer(id), cpu);
        if let Kind::Timer(timer) = &mut self.objects[id].kind {
            timer.armed = Some(expiry);
        }
        self.write_inserted(id, true);
        let time = match due {
            Due::Interrupt(time) | Due::Precise(time) => time,
            Due::System(time) => time as u64,
        };
        let timer = self.objects[id].address as *mut KTIMER;
        // SAFETY: a registered timer's memory is valid.
        unsafe { (*timer).DueTime = time };
    }

    fn write_inserted(&mut self, id: ObjId, inserted: bool) {
        let header = self.objects[id].header();
        // SAFETY: a registered timer's header is valid.
        unsafe { (*header).Inserted = u8::from(inserted) };
    }

    fn disarm(&mut self, id: ObjId) -> bool {
        let Kind::Timer(timer) = &mut self.objects[id].kind else { return false };
        let Some(expiry) = timer.armed.take() else { return false };
        self.timers.remove(expiry, Target::Timer(id));
        self.write_inserted(id, false);
        true
    }

    /// Registers a timer. One that is armed at the same address stays armed: on Windows it still expires (rule 55).
    ///
    /// # Safety
    /// `timer` points to writable memory of a KTIMER.
    pub(crate) unsafe fn initialize_timer(&mut self, timer: *mut KTIMER, notification: bool) -> Check<()> {
        let object_type = if notification { ksync_sys::TimerNotificationObject } else { ksync_sys::TimerSynchronizationObject };
        let state = match self.objects.find(timer as usize).map(|id| &self.objects[id].kind) {
            Some(Kind::Timer(state)) if state.armed.is_some() => TimerState { notification, ..*state },
            _ => TimerState { notification, armed: None, period: 0, tolerance: 0, nominal: 0, dpc: None, driver: None },
        };
        // SAFETY: by the caller's contract.
        unsafe {
            self.initialize_dispatcher(timer.cast(), object_type, size_of::<KTIMER>(), 0, Kind::Timer(state))?;
        }
        // Where other objects have their size, a timer has since Windows 7 the list that it is armed in.
        // SAFETY: the memory is a KTIMER's by the caller's contract.
        unsafe { (*timer).Header.Size = 0 };
        if let Some(id) = self.objects.find(timer as usize) {
            self.objects.note_beginning(id);
        }
        // SAFETY: as above.
        unsafe { (*timer).Dpc = std::ptr::null_mut() };
        // SAFETY: as above.
        unsafe { (*timer).Period = 0 };
        // SAFETY: as above.
        unsafe { (*timer).DueTime = 0 };
        Ok(())
    }

    /// The timer at `pointer`.
    pub(crate) fn timer_at(&mut self, pointer: *const KTIMER) -> Check<ObjId> {
        self.object_of_kind(pointer, "timer", |kind| matches!(kind, Kind::Timer(_)))
    }

    /// Sets a timer: cancels what it was set to, and arms it, or expires it at once (rule 50).
    ///
    /// The expiry, and those after it, may come so many milliseconds later as `tolerance` says.
    pub(crate) fn set_timer(&mut self, id: ObjId, due: i64, period: u32, tolerance: u32, dpc: *mut KDPC) -> Check<bool> {
        let queued_at_expiry = if dpc.is_null() { None } else { Some((self.dpc_at(dpc)?, dpc as usize)) };
        let was_armed = self.disarm(id);
        self.order_published(id);
        let driver = self.current_driver();
        if let Kind::Timer(timer) = &mut self.objects[id].kind {
            timer.period = period;
            timer.tolerance = tolerance;
            timer.nominal = 0;
            timer.dpc = queued_at_expiry;
            timer.driver = driver;
        }
        let memory = self.objects[id].address as *mut KTIMER;
        // SAFETY: a registered timer's memory is valid.
        unsafe { (*memory).Dpc = dpc };
        // SAFETY: as above.
        unsafe { (*memory).Period = period };
        self.objects[id].set_signal_state(0);
        let number = self.objects[id].number;
        self.record(Operation::SetTimer, number, due as u64);
        let due = self.clock.due(due);
        let cpu = self.cpu;
        if self.clock.is_past(due) {
            let now = self.clock.interrupt_time();
            if let Kind::Timer(timer) = &mut self.objects[id].kind {
                timer.nominal = now;
            }
            self.timer_expired(id, cpu)?;
        } else {
            self.arm_within(id, due, tolerance, cpu);
        }
        Ok(was_armed)
    }

    /// Cancels a timer. True when it was in the queue (rule 51).
    pub(crate) fn cancel_timer(&mut self, id: ObjId) -> bool {
        let number = self.objects[id].number;
        let was_armed = self.disarm(id);
        self.record(Operation::CancelTimer, number, u64::from(was_armed));
        was_armed
    }

    /// By how much a timer is late that may be late by `tolerable`, in 100 ns units: one of the expiries that NT may choose (rule 54).
    pub(super) fn choose_delay(&mut self, tolerable: u64) -> u64 {
        if tolerable == 0 {
            return 0;
        }
        const STEPS: u64 = 4;
        let step = self.choose(STEPS as usize + 1) as u64;
        tolerable / STEPS * step + tolerable % STEPS * step / STEPS
    }
}

/// Asks the host's caches for a line of memory.
#[inline]
pub(crate) fn prefetch(address: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address as *const i8);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
