//! Pool by its older and newer names.

use crate::exports::{ANY, image_exports};
use ksync_sys::{
    ExAllocatePool2, ExAllocatePoolWithTag, ExFreePool, NTSTATUS, POOL_FLAGS, POOL_TYPE, PVOID, SIZE_T, STATUS_INVALID_PARAMETER,
    ULONG,
};
use std::ptr::null_mut;

/// The tag of what was allocated without one: `None`.
const NO_TAG: ULONG = u32::from_le_bytes(*b"None");
/// The bit of a POOL_TYPE that makes a failure an exception. A charge to a quota has that by default.
const RAISE: POOL_TYPE = 16;
/// The bit of a POOL_TYPE that undoes that.
const QUOTA_FAILS_BY_NULL: POOL_TYPE = 8;
/// A parameter of ExAllocatePool3 that may be ignored by a system that does not know it.
const OPTIONAL: u64 = 1 << 8;

/// POOL_EXTENDED_PARAMETER.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct ExtendedParameter {
    /// The type in the low byte, then whether it is optional.
    kind: u64,
    value: u64,
}

/// The types of parameters: a quota's process, and what is only a wish.
const PRIORITY: u64 = 1;
const NUMA_NODE: u64 = 4;

fn with_quota(pool: POOL_TYPE, bytes: SIZE_T, tag: ULONG) -> PVOID {
    let raises = if pool & QUOTA_FAILS_BY_NULL == 0 { RAISE } else { 0 };
    // SAFETY: the routine may be called by anybody. Quotas are not limited here.
    unsafe { ExAllocatePoolWithTag(pool & !QUOTA_FAILS_BY_NULL | raises, bytes, tag) }
}

image_exports! {
    [ANY] silent fn ExAllocatePool(_call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T) -> PVOID {
        // SAFETY: the same routine with a tag; here and below.
        unsafe { ExAllocatePoolWithTag(PoolType, NumberOfBytes, NO_TAG) }
    }

    [ANY] silent fn ExAllocatePoolWithTagPriority(
        _call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG, _Priority: i32
    ) -> PVOID {
        // SAFETY: as above. Which request fails when pool is scarce is said by the settings of the run, not by a priority.
        unsafe { ExAllocatePoolWithTag(PoolType, NumberOfBytes, Tag) }
    }

    [ANY] silent fn ExAllocatePoolWithQuota(_call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T) -> PVOID {
        with_quota(PoolType, NumberOfBytes, NO_TAG)
    }

    [ANY] silent fn ExAllocatePoolWithQuotaTag(_call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID {
        with_quota(PoolType, NumberOfBytes, Tag)
    }

    [ANY] silent fn ExAllocatePool3(
        _call; Flags: POOL_FLAGS, NumberOfBytes: SIZE_T, Tag: ULONG, ExtendedParameters: *const ExtendedParameter, Count: ULONG
    ) -> PVOID {
        for index in 0..Count as usize {
            // SAFETY: the driver passes an array of so many.
            let parameter = unsafe { ExtendedParameters.wrapping_add(index).read() };
            if !matches!(parameter.kind & 0xff, PRIORITY | NUMA_NODE) && parameter.kind & OPTIONAL == 0 {
                return null_mut();
            }
        }
        // SAFETY: as above.
        unsafe { ExAllocatePool2(Flags, NumberOfBytes, Tag) }
    }

    [ANY] silent fn ExFreePool2(
        _call; P: PVOID, Tag: ULONG, _ExtendedParameters: *const ExtendedParameter, _Count: ULONG
    ) -> NTSTATUS {
        if P.is_null() {
            return STATUS_INVALID_PARAMETER;
        }
        if Tag == 0 {
            // SAFETY: as above.
            unsafe { ExFreePool(P) };
        } else {
            // SAFETY: as above.
            unsafe { ksync_sys::ExFreePoolWithTag(P, Tag) };
        }
        ksync_sys::STATUS_SUCCESS
    }
}
