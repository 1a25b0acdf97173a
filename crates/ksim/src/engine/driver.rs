//! Drivers: what each of them created, so that its unload can be checked (rule 62).

use super::kernel::{Check, Kernel};
use super::object::Kind;
use super::thread::State;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;

/// The drivers of a machine, by load order.
#[derive(Debug, Default)]
pub(crate) struct Drivers {
    names: Vec<String>,
}

impl Kernel {
    /// Enters a driver. The running thread acts for it until [`leave_driver`](Self::leave_driver).
    pub(crate) fn add_driver(&mut self, name: &str) -> u16 {
        self.drivers.names.push(name.to_owned());
        let driver = (self.drivers.names.len() - 1) as u16;
        self.record(Operation::LoadDriver, u32::from(driver), 0);
        driver
    }

    /// The running thread acts for a driver, or for none. Returns whom it acted for.
    pub(crate) fn act_for(&mut self, driver: Option<u16>) -> Option<u16> {
        let tid = self.this_thread();
        std::mem::replace(&mut self.thread(tid).driver, driver)
    }

    /// The timers that are armed, by number.
    pub(crate) fn armed_timers(&self) -> Vec<u32> {
        let mut armed: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, object)| match &object.kind {
                Kind::Timer(timer) => timer.armed.is_some(),
                Kind::ExTimer(timer) => timer.is_armed(),
                _ => false,
            })
            .map(|(_, object)| object.number)
            .collect();
        armed.sort_unstable();
        armed
    }

    /// What is checked when a driver's image is about to go: nothing of it may be running, queued, armed or allocated.
    pub(crate) fn check_unload(&mut self, driver: u16) -> Check<()> {
        self.record(Operation::UnloadDriver, u32::from(driver), 0);
        let name = self.drivers.names[driver as usize].clone();
        for (_, object) in self.objects.iter() {
            let (object_type, problem) = match &object.kind {
                Kind::Timer(timer) if timer.armed.is_some() && timer.driver == Some(driver) => (0, "armed"),
                Kind::ExTimer(timer) if timer.is_in_use() && timer.driver == Some(driver) => (0, "armed, or its callback is due"),
                Kind::Dpc(dpc) if dpc.queued_on.is_some() && dpc.driver == Some(driver) => (1, "queued"),
                _ => continue,
            };
            return Err(Violation::boxed_owned(
                codes::TIMER_OR_DPC_INVALID,
                [object_type, object.address as u64, 0, 0],
                format!("driver {name} was unloaded while its {} #{} is {problem}", object.kind.name(), object.number),
            ));
        }
        let running = self.processors.iter().any(|processor| processor.running_driver == Some(driver));
        let this = self.this_thread();
        let thread = self
            .threads
            .iter()
            .enumerate()
            .find(|(tid, thread)| *tid != this as usize && thread.driver == Some(driver) && thread.state != State::Terminated)
            .map(|(_, thread)| thread.object);
        if running || thread.is_some() {
            let address = thread.map_or(0, |object| self.objects[object].address as u64);
            let what = match thread {
                Some(object) => format!("thread #{} has not ended", self.objects[object].number),
                None => "a DPC routine runs".to_owned(),
            };
            return Err(Violation::boxed_owned(
                codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS,
                [address, 0, 0, 0],
                format!("driver {name} was unloaded while its {what}"),
            ));
        }
        let left: Vec<_> = self.pool.outstanding().into_iter().filter(|block| block.driver == Some(driver)).collect();
        if let Some(first) = left.first() {
            let bytes: usize = left.iter().map(|block| block.size).sum();
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::POOL_LEFT_AT_UNLOAD, u64::from(driver), left.len() as u64, bytes as u64],
                format!(
                    "driver {name} was unloaded with {} pool blocks ({bytes} bytes) left, the first with tag '{}'",
                    left.len(),
                    first.tag_text()
                ),
            ));
        }
        Ok(())
    }
}
