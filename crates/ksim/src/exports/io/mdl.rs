//! Memory descriptor lists.

use crate::exports::{IO_DISPATCH, TO_DISPATCH, exports};
use ksync_sys::{BOOLEAN, IRP, KPROCESSOR_MODE, LONG, MDL, MDL_MAPPED_TO_SYSTEM_VA, MDL_SOURCE_IS_NONPAGED_POOL, PVOID, ULONG};

/// Where the buffer of a list begins.
///
/// # Safety
/// The list is valid.
unsafe fn start(mdl: *mut MDL) -> PVOID {
    // SAFETY: by this function's contract.
    let value = unsafe { mdl.read() };
    value.StartVa.wrapping_byte_add(value.ByteOffset as usize)
}

exports! {
    [IO_DISPATCH] silent fn IoAllocateMdl(
        call; VirtualAddress: PVOID, Length: ULONG, SecondaryBuffer: BOOLEAN, _ChargeQuota: BOOLEAN, Irp: *mut IRP
    ) -> *mut MDL {
        let mdl = call.operate(|kernel| Ok(kernel.allocate_mdl(VirtualAddress as usize, Length as usize)));
        if mdl.is_null() || Irp.is_null() {
            return mdl;
        }
        // SAFETY: the caller passes a valid request.
        let mut link = unsafe { &raw mut (*Irp).MdlAddress };
        if SecondaryBuffer != 0 {
            // SAFETY: the links of a request's lists are fields of valid lists.
            let mut next = unsafe { link.read() };
            while !next.is_null() {
                // SAFETY: as above.
                link = unsafe { &raw mut (*next).Next };
                // SAFETY: as above.
                next = unsafe { link.read() };
            }
        }
        // SAFETY: as above.
        unsafe { link.write(mdl) };
        mdl
    }

    [IO_DISPATCH] silent fn IoFreeMdl(call; Mdl: *mut MDL) {
        call.operate(|kernel| kernel.free_mdl(Mdl));
    }

    [TO_DISPATCH] silent fn MmBuildMdlForNonPagedPool(call; MemoryDescriptorList: *mut MDL) {
        call.operate(|kernel| kernel.check_allocated(MemoryDescriptorList as usize));
        // SAFETY: the list is allocated.
        let address = unsafe { start(MemoryDescriptorList) };
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MappedSystemVa = address };
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MdlFlags |= MDL_SOURCE_IS_NONPAGED_POOL };
    }

    [TO_DISPATCH] silent fn MmMapLockedPagesSpecifyCache(
        call; MemoryDescriptorList: *mut MDL, _AccessMode: KPROCESSOR_MODE, _CacheType: LONG, _RequestedAddress: PVOID,
        _BugCheckOnFailure: ULONG, _Priority: ULONG
    ) -> PVOID {
        call.operate(|kernel| kernel.check_allocated(MemoryDescriptorList as usize));
        // SAFETY: the list is allocated.
        let address = unsafe { start(MemoryDescriptorList) };
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MappedSystemVa = address };
        // SAFETY: as above.
        unsafe { (*MemoryDescriptorList).MdlFlags |= MDL_MAPPED_TO_SYSTEM_VA };
        address
    }
}
