//! Devices, their names and their stacks.

use super::file;
use super::timer::between_routines;
use crate::engine::io::device::NewDevice;
use crate::engine::io::names::{Link, Named};
use crate::engine::kernel::Kernel;
use crate::exports::rtl::text_of;
use crate::exports::{BLOCKING, IO_DISPATCH, PASSIVE, exports};
use crate::faults::FaultKind;
use ksync_sys::{
    ACCESS_MASK, BOOLEAN, DEVICE_OBJECT, DRIVER_OBJECT, FILE_OBJECT, NTSTATUS, STATUS_NO_SUCH_DEVICE,
    STATUS_OBJECT_NAME_COLLISION, STATUS_OBJECT_NAME_NOT_FOUND, STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS, ULONG,
    UNICODE_STRING,
};

exports! {
    [BLOCKING] visible fn IoCreateDevice(
        call; DriverObject: *mut DRIVER_OBJECT, DeviceExtensionSize: ULONG, DeviceName: *mut UNICODE_STRING, DeviceType: ULONG,
        DeviceCharacteristics: ULONG, Exclusive: BOOLEAN, DeviceObject: *mut *mut DEVICE_OBJECT
    ) -> NTSTATUS {
        // SAFETY: the caller passes null or a valid counted string.
        let name = (!DeviceName.is_null()).then(|| unsafe { text_of(DeviceName) });
        let request = NewDevice {
            extension: DeviceExtensionSize,
            name,
            device_type: DeviceType,
            characteristics: DeviceCharacteristics,
            exclusive: Exclusive != 0,
        };
        match call.operate(|kernel| kernel.create_device(DriverObject, request)) {
            Ok(device) => {
                // SAFETY: the caller passes a valid pointer.
                unsafe { DeviceObject.write(device) };
                STATUS_SUCCESS
            }
            Err(status) => status,
        }
    }

    [BLOCKING] visible fn IoDeleteDevice(call; DeviceObject: *mut DEVICE_OBJECT) {
        let has_timer = call.operate(|kernel| {
            let id = kernel.device_at(DeviceObject)?;
            Ok(kernel.has_io_timer(id))
        });
        let delete = |kernel: &mut Kernel| {
            let id = kernel.device_at(DeviceObject)?;
            kernel.delete_io_timer(id)?;
            kernel.delete_device(id)
        };
        // A timer's routine may be running.
        if has_timer { between_routines(call, "IoDeleteDevice", delete) } else { call.operate(delete) }
    }

    [PASSIVE] visible fn IoCreateSymbolicLink(
        call; SymbolicLinkName: *mut UNICODE_STRING, DeviceName: *mut UNICODE_STRING
    ) -> NTSTATUS {
        // SAFETY: the caller passes valid counted strings.
        let written = unsafe { text_of(SymbolicLinkName) };
        // SAFETY: as above.
        let target = unsafe { text_of(DeviceName) };
        call.operate(|kernel| {
            match kernel.io.names.look_up(&written) {
                Err(status) => return Ok(status),
                Ok(Some(_)) => return Ok(STATUS_OBJECT_NAME_COLLISION),
                Ok(None) => {}
            }
            if kernel.fails_allocation() || kernel.fails_to_create(FaultKind::Object) {
                return Ok(ksync_sys::STATUS_INSUFFICIENT_RESOURCES);
            }
            let driver = kernel.current_driver();
            let name = written.clone();
            let created = kernel.site();
            kernel.io.names.insert(&name, Named::Link(Link { target, driver, created, written }));
            Ok(STATUS_SUCCESS)
        })
    }

    [PASSIVE] visible fn IoDeleteSymbolicLink(call; SymbolicLinkName: *mut UNICODE_STRING) -> NTSTATUS {
        // SAFETY: the caller passes a valid counted string.
        let name = unsafe { text_of(SymbolicLinkName) };
        call.operate(|kernel| {
            Ok(match kernel.io.names.look_up(&name) {
                Err(status) => status,
                Ok(Some(Named::Link(_))) => {
                    kernel.io.names.remove(&name);
                    STATUS_SUCCESS
                }
                Ok(Some(_)) => STATUS_OBJECT_TYPE_MISMATCH,
                Ok(None) => STATUS_OBJECT_NAME_NOT_FOUND,
            })
        })
    }

    [PASSIVE] visible fn IoGetDeviceObjectPointer(
        call; ObjectName: *mut UNICODE_STRING, DesiredAccess: ACCESS_MASK, FileObject: *mut *mut FILE_OBJECT,
        DeviceObject: *mut *mut DEVICE_OBJECT
    ) -> NTSTATUS {
        // SAFETY: the caller passes a valid counted string.
        let name = unsafe { text_of(ObjectName) };
        let opened = match file::open(call, &name, DesiredAccess, false) {
            Ok(file) => file,
            Err(status) => return status,
        };
        let (file_object, top) = call.operate(|kernel| {
            let device = kernel.device_memory(kernel.file_state(opened).device);
            let top = kernel.top_of_stack(device)?;
            // The reference that the caller gets, beside the handle's.
            kernel.reference_object(opened, 1)?;
            Ok((kernel.file_memory(opened), top))
        });
        // The routine closes the handle that it has opened: the driver sees IRP_MJ_CLEANUP now and IRP_MJ_CLOSE with the last reference.
        file::close_handle(call, opened);
        // SAFETY: the caller passes valid pointers.
        unsafe { FileObject.write(file_object) };
        // SAFETY: as above.
        unsafe { DeviceObject.write(top) };
        STATUS_SUCCESS
    }

    [IO_DISPATCH] visible fn IoAttachDeviceToDeviceStack(
        call; SourceDevice: *mut DEVICE_OBJECT, TargetDevice: *mut DEVICE_OBJECT
    ) -> *mut DEVICE_OBJECT {
        call.operate(|kernel| kernel.attach_device(SourceDevice, TargetDevice, std::ptr::null_mut()))
    }

    [IO_DISPATCH] visible fn IoAttachDeviceToDeviceStackSafe(
        call; SourceDevice: *mut DEVICE_OBJECT, TargetDevice: *mut DEVICE_OBJECT, AttachedToDeviceObject: *mut *mut DEVICE_OBJECT
    ) -> NTSTATUS {
        let attached = call.operate(|kernel| kernel.attach_device(SourceDevice, TargetDevice, AttachedToDeviceObject));
        if attached.is_null() { STATUS_NO_SUCH_DEVICE } else { STATUS_SUCCESS }
    }

    [IO_DISPATCH] visible fn IoDetachDevice(call; TargetDevice: *mut DEVICE_OBJECT) {
        call.operate(|kernel| kernel.detach_device(TargetDevice));
    }

    [IO_DISPATCH] visible fn IoGetAttachedDevice(call; DeviceObject: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT {
        call.operate(|kernel| kernel.top_of_stack(DeviceObject))
    }

    [IO_DISPATCH] visible fn IoGetAttachedDeviceReference(call; DeviceObject: *mut DEVICE_OBJECT) -> *mut DEVICE_OBJECT {
        call.operate(|kernel| {
            let top = kernel.top_of_stack(DeviceObject)?;
            let id = kernel.device_at(top)?;
            kernel.reference_object(id, 1)?;
            Ok(top)
        })
    }

    [IO_DISPATCH] visible fn IoGetRelatedDeviceObject(call; FileObject: *mut FILE_OBJECT) -> *mut DEVICE_OBJECT {
        call.operate(|kernel| {
            let id = kernel.file_at(FileObject)?;
            let device = kernel.device_memory(kernel.file_state(id).device);
            kernel.top_of_stack(device)
        })
    }
}
