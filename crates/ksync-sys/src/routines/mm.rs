//! The memory manager.

use crate::*;

routines! {
    /// Returns the address of a routine that the kernel or the HAL exports, or null.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-mmgetsystemroutineaddress)
    fn MmGetSystemRoutineAddress(SystemRoutineName: *const UNICODE_STRING) -> PVOID;

    /// Tells whether the page at an address is present right now.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntddk/nf-ntddk-mmisaddressvalid)
    fn MmIsAddressValid(VirtualAddress: PVOID) -> BOOLEAN;
}
