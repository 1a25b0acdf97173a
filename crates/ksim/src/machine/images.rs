//! Settings that only images heed.

use super::Machine;

impl Machine {
    /// Takes the pageable sections of images away (`PAGE...`, code and data) while the processor that acts is at DISPATCH_LEVEL or above, as Driver Verifier's option "force IRQL
    /// checking" does: what touches them there is bug check 0xD1, whether it calls the kernel or not. Otherwise only pageable code that calls the kernel is seen. Each change of the
    /// level costs microseconds. A section that the driver has locked (`MmLockPagableDataSection`) stays.
    pub fn force_irql_checking(mut self, force: bool) -> Self {
        self.config.force_irql_checking = force;
        self
    }
}
