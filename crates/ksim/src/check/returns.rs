//! What a routine of a driver, or a thread, must not leave behind when it returns.

use super::rules::RuleId;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::{Kind, Tid};
use crate::report::bug_check::{Violation, codes};

/// What a routine of a driver must come back to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    irql: u8,
    kernel_disable: i16,
    special_disable: i16,
    spin_locks: usize,
    resources: usize,
}

impl Kernel {
    /// A routine of a driver is about to be called in the running thread.
    pub(crate) fn enter_routine(&self) -> Entry {
        let thread = &self.threads[self.this_thread() as usize];
        Entry {
            irql: self.irql(),
            kernel_disable: thread.apc.kernel_disable,
            special_disable: thread.apc.special_disable,
            spin_locks: thread.spin_locks.len(),
            resources: thread.resources.len(),
        }
    }

    /// It has returned: at the same IRQL, with the same regions, and without locks.
    pub(crate) fn check_return(&self, entry: Entry, routine: &str, address: u64) -> Check<()> {
        let now = self.enter_routine();
        let thread = &self.threads[self.this_thread() as usize];
        if now.spin_locks > entry.spin_locks {
            let lock = thread.spin_locks[now.spin_locks - 1];
            return Err(self.spin_lock_held_at_return(lock, routine, address));
        }
        if now.irql != entry.irql {
            return Err(Violation::boxed_owned(
                codes::IRQL_UNEXPECTED_VALUE,
                [u64::from(now.irql) << 16 | u64::from(entry.irql) << 8, address, 0, 0],
                format!("{routine} returned at another IRQL than it was called at"),
            ));
        }
        if now.resources > entry.resources && self.config.rules.has(RuleId::ExclusiveResourceAccess) {
            return self.resource_held(thread.resources[now.resources - 1], &format!("{routine} returned"));
        }
        if (now.kernel_disable, now.special_disable) != (entry.kernel_disable, entry.special_disable) {
            let (kernel, special) = (now.kernel_disable as u16 as u64, now.special_disable as u16 as u64);
            return Err(Violation::boxed_owned(
                codes::APC_INDEX_MISMATCH,
                [address, 0, special << 16 | kernel, 1],
                format!("{routine} returned inside a critical or guarded region that it entered, or left one too often"),
            ));
        }
        Ok(())
    }

    fn resource_held(&self, id: u32, what: &str) -> Check<()> {
        let object = &self.objects[id];
        Err(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::RESOURCE_HELD_AT_RETURN, object.address as u64, 0, 0],
            format!("{what} while it owned resource #{}", object.number),
        ))
    }

    /// A thread ends: it owns no resource. (Its other locks are NT's to check.)
    pub(crate) fn check_resources_at_exit(&self, tid: Tid) -> Check<()> {
        match self.threads[tid as usize].resources.first() {
            Some(&id) if self.config.rules.has(RuleId::ExclusiveResourceAccess) => self.resource_held(id, "a thread ended"),
            _ => Ok(()),
        }
    }

    /// A thread ends, and its stack with it: nothing there may be in use, and nothing there is an object any more.
    pub(crate) fn check_stack_at_exit(&mut self, tid: Tid) -> Check<()> {
        let stack = self.threads[tid as usize].stack.clone();
        for id in self.objects.take_on_stack(&stack) {
            let Some((_, _, problem)) = self.problem_of_freeing(id) else {
                if matches!(self.objects[id].kind, Kind::Queue(_)) {
                    self.forget_queue(id);
                }
                self.objects.remove(id);
                continue;
            };
            if self.config.rules.has(RuleId::StackObjectInUse) {
                let object = &self.objects[id];
                return Err(Violation::boxed_owned(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::STACK_OBJECT_IN_USE, object.address as u64, self.threads[tid as usize].address() as u64, 0],
                    format!("a thread ended with {} #{} on its stack, which {problem}", object.kind.name(), object.number),
                ));
            }
        }
        Ok(())
    }
}
