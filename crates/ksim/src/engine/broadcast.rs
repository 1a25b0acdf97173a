//! KeIpiGenericCall: a routine on all processors, at IPI_LEVEL, while none of them does anything else.
//!
//! On Windows the processors run it at the same time. Here the context that calls runs it on each in turn, as that processor: what it was doing is held meanwhile, so that the whole is one operation of
//! the caller's, and in which order is a choice. A routine whose calls wait for each other does not come to an end.

use super::kernel::{Check, Executing, Kernel};
use super::processor::Cpu;
use crate::irql::IPI_LEVEL;
use crate::schedule::Actor;

/// The call that is under way.
#[derive(Default)]
pub(crate) struct Broadcast {
    /// One bit for each processor that is held.
    pub(crate) held: u64,
    /// Those that have not run the routine yet.
    left: u64,
    /// The levels that the processors were at.
    levels: Vec<u8>,
    caller: Cpu,
    /// Whether the run was plain.
    plain: bool,
    /// The processor that acts turned on a lock when it was interrupted.
    turned: bool,
}

impl Broadcast {
    /// Forgets a call that did not come to an end.
    pub(super) fn clear(&mut self) {
        (self.held, self.left, self.plain, self.turned) = (0, 0, false, false);
    }
}

impl Kernel {
    /// What runs on a processor, as the check for data races knows it.
    fn actor_on(&self, cpu: Cpu) -> Actor {
        let processor = &self.processors[cpu as usize];
        match processor.current {
            Some(tid) if !processor.in_dpc => Actor::thread(tid),
            _ => Actor::dpcs(cpu),
        }
    }

    /// All processors are interrupted.
    pub(crate) fn begin_broadcast(&mut self) -> Check<()> {
        let all = u64::MAX >> (64 - u32::from(self.config.processors));
        let caller = self.cpu;
        let levels = self.processors.iter().map(|processor| processor.irql).collect();
        self.generic.broadcast = Broadcast { held: all, left: all, levels, caller, plain: self.plain, turned: false };
        self.plain = false;
        for cpu in 0..self.config.processors {
            // What the routine does comes after all that was done on any processor.
            if cpu != caller
                && self.races.enabled
                && let Some(actor) = self.actor()
            {
                let before = self.actor_on(cpu);
                self.races.follows(actor, before);
            }
            self.cpu = cpu;
            self.change_level(IPI_LEVEL);
            self.update_runnable(cpu);
        }
        self.cpu = caller;
        Ok(())
    }

    /// The next processor to run the routine is the one that acts now: true if it is the caller's. None if all have.
    pub(crate) fn next_of_broadcast(&mut self) -> Check<Option<bool>> {
        if self.generic.broadcast.turned {
            self.processor().spinning = true;
        }
        let left = self.generic.broadcast.left;
        if left == 0 {
            return Ok(None);
        }
        let mut rest = left;
        for _ in 0..self.choose(left.count_ones() as usize) {
            rest &= rest - 1;
        }
        let cpu = rest.trailing_zeros() as Cpu;
        self.generic.broadcast.left &= !(1 << cpu);
        self.cpu = cpu;
        self.generic.broadcast.turned = std::mem::take(&mut self.processor().spinning);
        Ok(Some(cpu == self.generic.broadcast.caller))
    }

    /// All have: the processors go on with what they did.
    pub(crate) fn end_broadcast(&mut self) -> Check<()> {
        let Broadcast { levels, caller, plain, .. } = std::mem::take(&mut self.generic.broadcast);
        self.plain = plain && !self.stalls && !self.polled && !self.races.enabled;
        for (cpu, &level) in (0..).zip(&levels).filter(|&(cpu, _)| cpu != caller) {
            self.cpu = cpu;
            self.change_level(level);
            self.update_runnable(cpu);
        }
        self.cpu = caller;
        for cpu in (0..self.config.processors).filter(|&cpu| cpu != caller) {
            self.note_processor_follows(cpu);
        }
        self.update_runnable(caller);
        self.set_irql(levels[caller as usize])
    }

    /// True for a context that runs a routine of KeIpiGenericCall, and does not turn on what it cannot get.
    #[inline]
    pub(crate) fn is_broadcasting(&self) -> bool {
        self.generic.broadcast.held != 0 && !self.processors[self.cpu as usize].spinning && self.executing != Executing::Machine
    }
}
