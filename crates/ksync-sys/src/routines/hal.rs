//! The routines of the hardware abstraction layer that begin with `Ke`.

use crate::*;

routines! {
    mod hal = "hal.dll";

    /// Keeps the processor busy for some microseconds, 50 at the most.
    ///
    /// Imported from `hal.dll`, which every Windows has; `ntoskrnl.exe` exports it since Windows 10 2004 only.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kestallexecutionprocessor)
    fn KeStallExecutionProcessor(MicroSeconds: ULONG);

    /// Returns the performance counter, and its frequency in Hz if asked.
    ///
    /// Imported from `hal.dll`, which every Windows has; `ntoskrnl.exe` exports it since Windows 10 2004 only.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryperformancecounter)
    fn KeQueryPerformanceCounter(PerformanceFrequency: *mut LARGE_INTEGER) -> LARGE_INTEGER;
}
