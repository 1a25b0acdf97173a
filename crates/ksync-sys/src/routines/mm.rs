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

    /// Fills in a memory descriptor list for a buffer in nonpaged memory.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-mmbuildmdlfornonpagedpool)
    fn MmBuildMdlForNonPagedPool(MemoryDescriptorList: *mut MDL);

    /// Maps the locked pages of a memory descriptor list; null if that fails and `BugCheckOnFailure` is 0.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-mmmaplockedpagesspecifycache)
    fn MmMapLockedPagesSpecifyCache(MemoryDescriptorList: *mut MDL, AccessMode: KPROCESSOR_MODE, CacheType: LONG, RequestedAddress: PVOID, BugCheckOnFailure: ULONG, Priority: ULONG) -> PVOID;
}
