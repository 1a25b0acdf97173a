//! System services: `Zw...`.

use crate::exports::{IrqlRange, exports};
use crate::irql::PASSIVE_LEVEL;
use ksync_sys::{HANDLE, NTSTATUS};

const ZW_PASSIVE: IrqlRange = IrqlRange { lowest: PASSIVE_LEVEL, highest: PASSIVE_LEVEL, verifier: 0x2_001f };

exports! {
    [ZW_PASSIVE] visible fn ZwClose(call; Handle: HANDLE) -> NTSTATUS {
        call.operate(|kernel| kernel.close_handle(Handle as usize))
    }
}
