//! Pool (rule 63).

use crate::engine::pool::PoolRequest;
use crate::exports::{ANY, exports};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    POOL_FLAG_NON_PAGED, POOL_FLAG_NON_PAGED_EXECUTE, POOL_FLAG_PAGED, POOL_FLAG_RAISE_ON_FAILURE, POOL_FLAG_UNINITIALIZED,
    POOL_FLAGS, POOL_TYPE, PVOID, SIZE_T, STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER, ULONG,
};

/// The bit of a POOL_TYPE that makes it paged.
const PAGED_BIT: i32 = 1;
/// The bit of a POOL_TYPE for pool that must not run out, of which there is none any more.
const MUST_SUCCEED_BIT: i32 = 2;
/// The flags of which an allocation has exactly one.
const POOLS: POOL_FLAGS = POOL_FLAG_NON_PAGED | POOL_FLAG_NON_PAGED_EXECUTE | POOL_FLAG_PAGED;
/// The bit of a POOL_TYPE that makes a failure raise.
const RAISE_BIT: i32 = 16;

exports! {
    [ANY] silent fn ExAllocatePool2(call; Flags: POOL_FLAGS, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID {
        let request = PoolRequest {
            size: NumberOfBytes,
            tag: Tag,
            paged: Flags & POOL_FLAG_PAGED != 0,
            zeroed: Flags & POOL_FLAG_UNINITIALIZED == 0,
        };
        let raises = Flags & POOL_FLAG_RAISE_ON_FAILURE != 0;
        if !(Flags & POOLS).is_power_of_two() {
            if raises {
                call.fail(Violation::raised(STATUS_INVALID_PARAMETER, format!("pool flags {Flags:#x} do not name one pool")));
            }
            return std::ptr::null_mut();
        }
        allocate(call, request, raises)
    }

    [ANY] silent fn ExAllocatePoolWithTag(call; PoolType: POOL_TYPE, NumberOfBytes: SIZE_T, Tag: ULONG) -> PVOID {
        if PoolType & MUST_SUCCEED_BIT != 0 {
            call.fail(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x9a, u64::from(PoolType as u32), NumberOfBytes as u64, u64::from(Tag)],
                "must-succeed pool was asked for",
            ));
        }
        let request = PoolRequest { size: NumberOfBytes, tag: Tag, paged: PoolType & PAGED_BIT != 0, zeroed: false };
        allocate(call, request, PoolType & RAISE_BIT != 0)
    }

    [ANY] silent fn ExFreePool(call; P: PVOID) {
        call.operate(|kernel| kernel.free_pool(P as usize, 0));
    }

    [ANY] silent fn ExFreePoolWithTag(call; P: PVOID, Tag: ULONG) {
        call.operate(|kernel| kernel.free_pool(P as usize, Tag));
    }
}

fn allocate(call: crate::machine::Call, request: PoolRequest, raises: bool) -> PVOID {
    call.operate(|kernel| {
        let memory = kernel.allocate_pool(request)?;
        if memory.is_null() && raises {
            return Err(Violation::raised(
                STATUS_INSUFFICIENT_RESOURCES,
                format!("{} bytes of pool were asked for with an exception at failure", request.size),
            ));
        }
        Ok(memory.cast())
    })
}
