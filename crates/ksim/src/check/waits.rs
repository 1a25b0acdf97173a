//! Rules about waiting, and about keeping others waiting.

use super::rules::RuleId;
use crate::engine::Tid;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::ObjId;
use crate::exports::Export;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{NTSTATUS, STATUS_ABANDONED_WAIT_0, STATUS_ALERTED, STATUS_TIMEOUT, STATUS_USER_APC};

impl Kernel {
    /// A thread is about to block: not while it holds a spin lock, wherever it has lowered the IRQL to.
    #[inline]
    pub(crate) fn check_blocking(&self, tid: Tid) -> Check<()> {
        match self.threads[tid as usize].spin_locks.first() {
            Some(&lock) => self.waits_with_spin_lock(tid, lock),
            None => Ok(()),
        }
    }

    #[cold]
    fn waits_with_spin_lock(&self, tid: Tid, lock: ObjId) -> Check<()> {
        if !self.config.rules.has(RuleId::SpinLockHeldInWait) {
            return Ok(());
        }
        Err(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [
                codes::verifier::WAIT_WITH_SPIN_LOCK,
                self.objects[lock].address as u64,
                self.threads[tid as usize].address() as u64,
                0,
            ],
            format!("a thread waited while it held {} #{}", self.objects[lock].kind.name(), self.objects[lock].number),
        ))
    }

    /// A user-mode wait lets the stack be paged out, so that what it waits for does not lie there, nor its wait blocks.
    pub(crate) fn check_user_wait(&self, tid: Tid, object: usize) -> Check<()> {
        let thread = &self.threads[tid as usize];
        if !thread.stack_swap || !thread.stack.contains(&object) || !self.config.rules.has(RuleId::UserWaitOnStack) {
            return Ok(());
        }
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::USER_WAIT_ON_STACK, object as u64, 0, 0],
            "a user-mode wait names an object on the stack, which may be paged out meanwhile",
        ))
    }

    /// A wait for these objects has ended, which may have been in vain. Otherwise it has brought one of them, or `all`.
    #[inline]
    pub(crate) fn note_wait(&mut self, objects: impl Iterator<Item = usize>, status: NTSTATUS, all: bool) {
        let Some(tid) = self.current_thread() else { return };
        let in_vain = matches!(status, STATUS_TIMEOUT | STATUS_ALERTED | STATUS_USER_APC);
        if in_vain {
            self.threads[tid as usize].waited_in_vain.clear();
        } else if self.threads[tid as usize].waited_in_vain.is_empty() {
            return;
        }
        for (index, address) in objects.enumerate() {
            let Some(id) = self.objects.find(address) else { continue };
            let number = self.objects[id].number;
            let waited = &mut self.threads[tid as usize].waited_in_vain;
            if in_vain {
                waited.push((number, status));
            } else if all || i32::try_from(index).is_ok_and(|index| status & !STATUS_ABANDONED_WAIT_0 == index) {
                waited.retain(|(other, _)| *other != number);
            }
        }
    }

    /// How the last wait of what acts for an object ended, if it was in vain.
    pub(crate) fn waited_in_vain(&self, id: ObjId) -> Option<&'static str> {
        let tid = self.current_thread()?;
        let waited = &self.threads[tid as usize].waited_in_vain;
        let (_, status) = waited.iter().find(|(number, _)| *number == self.objects[id].number)?;
        Some(ksync_sys::status_name(*status).unwrap_or("a status that is no success"))
    }

    /// A semaphore is initialised. One that is full may be a lock.
    pub(crate) fn note_semaphore(&mut self, id: ObjId, full: bool) {
        if full && self.config.rules.has(RuleId::WaitStatus) {
            let number = self.objects[id].number;
            self.semaphore_locks.insert(number, Vec::new());
        }
    }

    /// A wait for a semaphore was satisfied.
    #[inline]
    pub(crate) fn note_semaphore_taken(&mut self, id: ObjId, tid: Tid) {
        if self.config.rules.has(RuleId::WaitStatus)
            && let Some(holders) = self.semaphore_locks.get_mut(&self.objects[id].number)
        {
            holders.push(tid);
        }
    }

    /// A semaphore is released: not by who waited for it in vain and took that for success (rule 19). What code has compared is not seen; but who releases a
    /// lock has it. So this is for semaphores that are locks: that were full at first, and that only those have released who had taken them.
    pub(crate) fn check_release_after_wait(&mut self, id: ObjId, adjustment: i32) -> Check<()> {
        if !self.config.rules.has(RuleId::WaitStatus) {
            return Ok(());
        }
        let (tid, number) = (self.current_thread(), self.objects[id].number);
        let Some(holders) = self.semaphore_locks.get_mut(&number) else { return Ok(()) };
        let mut missing = adjustment;
        holders.retain(|holder| {
            let released = Some(*holder) == tid && missing > 0;
            missing -= i32::from(released);
            !released
        });
        if missing == 0 {
            return Ok(());
        }
        let Some(status) = self.waited_in_vain(id) else {
            // A signal, then, and no lock.
            self.semaphore_locks.remove(&number);
            return Ok(());
        };
        let object = &self.objects[id];
        Err(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::WAIT_STATUS_IGNORED, object.address as u64, 0, 0],
            format!(
                "{} #{} was released by a thread whose wait for it had ended with {status}, which NT_SUCCESS takes for success",
                object.kind.name(),
                object.number
            ),
        ))
    }

    /// The processor that acts calls an export, where there is something to check or to record: the level, the place, and at DISPATCH_LEVEL or above one call more
    /// without a break.
    #[inline(never)]
    pub(crate) fn check_entry(&mut self, export: &'static Export) -> Check<()> {
        let irql = self.irql();
        if !export.irql.contains(irql) && self.config.rules.has_level(export.irql.verifier) {
            return Err(export.irql.violation(export.name, irql));
        }
        if self.config.sites {
            self.record_site();
        }
        if irql < DISPATCH_LEVEL {
            return Ok(());
        }
        let processor = self.processor();
        processor.dispatch_calls += 1;
        if processor.dispatch_calls <= self.config.dispatch_call_limit { Ok(()) } else { self.too_many_dispatch_calls() }
    }

    #[cold]
    fn too_many_dispatch_calls(&mut self) -> Check<()> {
        let calls = self.processor().dispatch_calls;
        if !self.config.rules.has(RuleId::DispatchTooLong) {
            return Ok(());
        }
        let limit = self.config.dispatch_call_limit;
        Err(Violation::boxed_owned(
            codes::DPC_WATCHDOG_VIOLATION,
            // As NT's watchdog has it: not one DPC alone, but all that has kept the processor there.
            [1, calls, limit, 0],
            format!(
                "a processor has called the kernel {calls} times at DISPATCH_LEVEL or above without a break, where {limit} times are the limit: \
                 until it comes below, no thread runs there"
            ),
        ))
    }

    /// The processor that acts stalls for so many 100 ns units.
    pub(crate) fn check_dispatch_time(&mut self, stalled: u64) -> Check<()> {
        let (limit, in_dpc) = (self.config.dispatch_limit, self.in_dpc());
        let processor = self.processor();
        if processor.irql < DISPATCH_LEVEL {
            return Ok(());
        }
        processor.dispatch_time = processor.dispatch_time.saturating_add(stalled);
        let spent = processor.dispatch_time;
        if spent <= limit || !self.config.rules.has(RuleId::DispatchTooLong) {
            return Ok(());
        }
        Err(Violation::boxed_owned(
            codes::DPC_WATCHDOG_VIOLATION,
            [u64::from(!in_dpc), spent, limit, 0],
            format!(
                "{} {} us, where {} us are the limit",
                if in_dpc { "a DPC routine has run for" } else { "a processor has been at DISPATCH_LEVEL or above for" },
                spent / 10,
                limit / 10
            ),
        ))
    }
}
