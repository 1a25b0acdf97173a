//! What a driver keeps with its driver object.

use crate::exports::{BLOCKING, IO_DISPATCH, exports};
use ksync_sys::{
    DRIVER_OBJECT, NTSTATUS, PVOID, STATUS_INSUFFICIENT_RESOURCES, STATUS_OBJECT_NAME_COLLISION, STATUS_SUCCESS, ULONG,
};

exports! {
    [BLOCKING] visible fn IoAllocateDriverObjectExtension(
        call; DriverObject: *mut DRIVER_OBJECT, ClientIdentificationAddress: PVOID, DriverObjectExtensionSize: ULONG,
        DriverObjectExtension: *mut PVOID
    ) -> NTSTATUS {
        call.check_pointer(DriverObjectExtension);
        let (memory, status) = call.operate(|kernel| {
            let driver = kernel.driver_at(DriverObject)?;
            let name = ClientIdentificationAddress as usize;
            if kernel.driver_extension(driver, name).is_some() {
                return Ok((std::ptr::null_mut(), STATUS_OBJECT_NAME_COLLISION));
            }
            let memory = kernel.allocate_driver_extension(driver, name, DriverObjectExtensionSize as usize);
            Ok((memory, if memory.is_null() { STATUS_INSUFFICIENT_RESOURCES } else { STATUS_SUCCESS }))
        });
        // SAFETY: the caller passes a valid pointer.
        unsafe { DriverObjectExtension.write(memory) };
        status
    }

    [IO_DISPATCH] visible fn IoGetDriverObjectExtension(
        call; DriverObject: *mut DRIVER_OBJECT, ClientIdentificationAddress: PVOID
    ) -> PVOID {
        call.operate(|kernel| {
            let driver = kernel.driver_at(DriverObject)?;
            Ok(kernel.driver_extension(driver, ClientIdentificationAddress as usize).unwrap_or(std::ptr::null_mut()))
        })
    }
}
