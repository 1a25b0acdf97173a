//! Requests that the I/O manager builds.

use crate::engine::io::build::{BuildControl, BuildTransfer};
use crate::exports::{BLOCKING, IrqlRange, exports};
use crate::irql::PASSIVE_LEVEL;
use crate::machine::Call;
use ksync_sys::{BOOLEAN, DEVICE_OBJECT, IO_STATUS_BLOCK, IRP, KEVENT, LARGE_INTEGER, PVOID, ULONG};

/// DDI compliance rule IrqlIoRtlZwPassive.
const IO_PASSIVE: IrqlRange = IrqlRange { lowest: PASSIVE_LEVEL, highest: PASSIVE_LEVEL, verifier: 0x2_0023 };

exports! {
    [IO_PASSIVE] silent fn IoBuildDeviceIoControlRequest(
        call; IoControlCode: ULONG, DeviceObject: *mut DEVICE_OBJECT, InputBuffer: PVOID, InputBufferLength: ULONG,
        OutputBuffer: PVOID, OutputBufferLength: ULONG, InternalDeviceIoControl: BOOLEAN, Event: *mut KEVENT,
        IoStatusBlock: *mut IO_STATUS_BLOCK
    ) -> *mut IRP {
        let build = BuildControl {
            code: IoControlCode,
            internal: InternalDeviceIoControl != 0,
            input: (InputBuffer as usize, InputBufferLength as usize),
            output: (OutputBuffer as usize, OutputBufferLength as usize),
        };
        call.operate(|kernel| {
            kernel.device_at(DeviceObject)?;
            kernel.build_control(DeviceObject, build, Event, IoStatusBlock)
        })
    }

    [IO_PASSIVE] silent fn IoBuildSynchronousFsdRequest(
        call; MajorFunction: ULONG, DeviceObject: *mut DEVICE_OBJECT, Buffer: PVOID, Length: ULONG,
        StartingOffset: *mut LARGE_INTEGER, Event: *mut KEVENT, IoStatusBlock: *mut IO_STATUS_BLOCK
    ) -> *mut IRP {
        let build = transfer(MajorFunction, Buffer, Length, StartingOffset, true);
        build_transfer(call, DeviceObject, build, Event, IoStatusBlock)
    }

    [BLOCKING] silent fn IoBuildAsynchronousFsdRequest(
        call; MajorFunction: ULONG, DeviceObject: *mut DEVICE_OBJECT, Buffer: PVOID, Length: ULONG,
        StartingOffset: *mut LARGE_INTEGER, IoStatusBlock: *mut IO_STATUS_BLOCK
    ) -> *mut IRP {
        let build = transfer(MajorFunction, Buffer, Length, StartingOffset, false);
        build_transfer(call, DeviceObject, build, std::ptr::null_mut(), IoStatusBlock)
    }
}

fn transfer(major: ULONG, buffer: PVOID, length: ULONG, offset: *const LARGE_INTEGER, threaded: bool) -> BuildTransfer {
    // SAFETY: the caller passes null or a valid pointer.
    let offset = unsafe { offset.as_ref() }.copied().unwrap_or(0);
    BuildTransfer { major: major as u8, buffer: (buffer as usize, length as usize), offset, threaded }
}

fn build_transfer(
    call: Call,
    device: *mut DEVICE_OBJECT,
    build: BuildTransfer,
    event: *mut KEVENT,
    iosb: *mut IO_STATUS_BLOCK,
) -> *mut IRP {
    call.operate(|kernel| kernel.build_transfer(device, build, event, iosb))
}
