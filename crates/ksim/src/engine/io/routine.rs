//! Calls of a driver's routines: whose code it is, and what the routine must leave as it found it (rule 61).

use crate::engine::kernel::{Check, Executing, Kernel};
use crate::engine::thread::Tid;
use crate::report::bug_check::{Violation, codes};

/// Which routine is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Routine {
    Dispatch,
    Completion,
    Cancel,
    StartIo,
    Worker,
    Timer,
    Service,
    Synchronize,
    Broadcast,
}

impl Routine {
    fn name(self) -> &'static str {
        match self {
            Self::Dispatch => "a dispatch routine",
            Self::Completion => "a completion routine",
            Self::Cancel => "a cancel routine",
            Self::StartIo => "a StartIo routine",
            Self::Worker => "a worker routine",
            Self::Timer => "a device's timer routine",
            Self::Service => "an interrupt service routine",
            Self::Synchronize => "a routine of KeSynchronizeExecution",
            Self::Broadcast => "a routine of KeIpiGenericCall",
        }
    }
}

/// A routine under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running {
    pub(crate) kind: Routine,
    pub(crate) address: u64,
    irql: u8,
    counters: Option<(Tid, i16, i16)>,
    driver: Option<u16>,
    spin_locks: usize,
}

impl Kernel {
    /// A routine of a driver is about to be called.
    pub(crate) fn enter_driver_routine(&mut self, kind: Routine, address: usize, driver: Option<u16>) -> Running {
        let counters = self.current_thread().map(|tid| {
            let apc = &self.threads[tid as usize].apc;
            (tid, apc.kernel_disable, apc.special_disable)
        });
        Running {
            kind,
            address: address as u64,
            irql: self.irql(),
            counters,
            driver: self.switch_driver(driver),
            spin_locks: self.held_spin_locks().len(),
        }
    }

    /// An exception has left the routine: nothing is checked but by who handles it.
    pub(crate) fn abandon_routine(&mut self, running: Running) {
        self.switch_driver(running.driver);
    }

    /// The code that runs is that of another driver from now on. Returns whose it was.
    fn switch_driver(&mut self, driver: Option<u16>) -> Option<u16> {
        match self.executing {
            Executing::Thread(tid) => std::mem::replace(&mut self.thread(tid).driver, driver),
            Executing::Dpcs => std::mem::replace(&mut self.processor().running_driver, driver),
            Executing::Machine => None,
        }
    }

    /// The spin locks that the code that runs has taken, oldest first.
    pub(crate) fn held_spin_locks(&self) -> &[u32] {
        match self.executing {
            Executing::Thread(tid) => &self.threads[tid as usize].spin_locks,
            _ => &self.processors[self.cpu as usize].dpc_spin_locks,
        }
    }

    /// The spin lock that the driver's code took last of those that it holds: a timer routine runs under one of the system's.
    pub(crate) fn drivers_spin_lock(&self) -> Option<u32> {
        self.held_spin_locks().iter().rev().copied().find(|&lock| !self.is_io_timer_lock(lock))
    }

    /// What is checked when the routine has returned. `expected` is the level that it must return at, if not that of its call.
    pub(crate) fn leave_routine(&mut self, running: Running, expected: Option<u8>) -> Check<()> {
        self.switch_driver(running.driver);
        let Running { kind, address, .. } = running;
        let held = self.held_spin_locks();
        if kind != Routine::Cancel && held.len() > running.spin_locks {
            return Err(self.spin_lock_held_at_return(held[held.len() - 1], kind.name(), address));
        }
        let (irql, before) = (self.irql(), expected.unwrap_or(running.irql));
        if irql != before {
            let levels = [u64::from(irql), u64::from(before)];
            let (code, parameters) = match kind {
                Routine::Worker => (codes::WORKER_THREAD_RETURNED_AT_BAD_IRQL, [address, levels[0], 0, 0]),
                Routine::Completion => {
                    (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [codes::verifier::COMPLETION_IRQL, address, levels[0], levels[1]])
                }
                Routine::Service => {
                    (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [codes::verifier::SERVICE_IRQL, address, levels[1], levels[0]])
                }
                _ => (
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::RULE_IRQL_RETURN, address, levels[0], levels[1]],
                ),
            };
            return Err(Violation::boxed_owned(
                code,
                parameters,
                format!("{} returned at another IRQL ({irql}) than it was called at, or must return at ({before})", kind.name()),
            ));
        }
        self.check_counters(running)
    }

    fn check_counters(&mut self, running: Running) -> Check<()> {
        let Running { kind, address, .. } = running;
        let Some((tid, kernel, special)) = running.counters else { return Ok(()) };
        let apc = &self.threads[tid as usize].apc;
        if (apc.kernel_disable, apc.special_disable) == (kernel, special) {
            return Ok(());
        }
        let combined = |special: i16, kernel: i16| u64::from(special as u16) << 16 | u64::from(kernel as u16);
        let (after, before) = (combined(apc.special_disable, apc.kernel_disable), combined(special, kernel));
        let (code, parameters) = match kind {
            // The fourth parameter: a worker, not a system call.
            Routine::Worker => (codes::APC_INDEX_MISMATCH, [address, 0, after, 1]),
            Routine::Completion => {
                (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [codes::verifier::COMPLETION_APC_COUNT, address, after, before])
            }
            _ => (codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [codes::verifier::DISPATCH_APC_COUNT, address, after, before]),
        };
        Err(Violation::boxed_owned(
            code,
            parameters,
            format!("{} changed the APC disable count of its thread: a region was entered or left one-sidedly", kind.name()),
        ))
    }
}
