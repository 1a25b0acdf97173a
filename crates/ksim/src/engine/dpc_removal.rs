//! KeRemoveQueueDpcEx: a DPC that is taken back, and does not run any more.

use super::kernel::{Check, Executing, Kernel};
use super::object::{ObjId, SYSTEM};
use crate::irql::DISPATCH_LEVEL;

impl Kernel {
    /// True when the routine of a DPC does not run. Otherwise who asks waits, and is to ask again: a thread below DISPATCH_LEVEL for others, and a processor at that level
    /// by turning.
    pub(crate) fn dpc_has_returned(&mut self, id: ObjId) -> Check<bool> {
        let runs = self
            .processors
            .iter()
            .flat_map(|processor| [processor.running_dpc, processor.running_threaded])
            .flatten()
            .any(|(running, _)| running == id);
        match self.executing {
            Executing::Thread(tid) if !runs => {
                self.order_end_seen(tid);
                Ok(true)
            }
            _ if !runs => Ok(true),
            Executing::Thread(tid) if self.irql() < DISPATCH_LEVEL => {
                // A kernel APC may have broken an earlier turn of the same wait.
                self.generic.removing.0.retain(|&removing| removing != tid);
                self.generic.removing.0.push(tid);
                self.park(SYSTEM, "KeRemoveQueueDpcEx")?;
                Ok(false)
            }
            _ => {
                let cpu = self.cpu;
                self.processor().spinning = true;
                self.generic.removing.1.push(cpu);
                self.update_runnable(cpu);
                self.attention = true;
                Ok(false)
            }
        }
    }

    /// A DPC routine has returned: who waits for one looks again.
    pub(super) fn wake_removing(&mut self) {
        for tid in std::mem::take(&mut self.generic.removing.0) {
            self.unpark(tid, SYSTEM);
        }
        for cpu in std::mem::take(&mut self.generic.removing.1) {
            self.note_processor_follows(cpu);
            self.processors[cpu as usize].spinning = false;
            self.update_runnable(cpu);
        }
    }
}
