//! Requests that the I/O manager builds for drivers, and memory descriptor lists.

use super::irp::{BUFFER_TAG, Origin};
use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DIRECT_IO, IO_PARAMETERS, IO_PARAMETERS_DEVICE_IO_CONTROL, IO_PARAMETERS_READ_WRITE,
    IO_STATUS_BLOCK, IRP, IRP_BUFFERED_IO, IRP_DEALLOCATE_BUFFER, IRP_INPUT_OPERATION, IRP_MJ_DEVICE_CONTROL,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_READ, IRP_MJ_WRITE, IRP_SYNCHRONOUS_API, KEVENT, KernelMode, MDL,
    MDL_MAPPED_TO_SYSTEM_VA, MDL_PAGES_LOCKED, METHOD_BUFFERED, METHOD_FROM_CTL_CODE, METHOD_NEITHER,
};
use std::ptr::null_mut;

/// The tag of memory descriptor lists.
const MDL_TAG: u32 = u32::from_le_bytes(*b"Mdl ");
const PAGE: usize = 4096;

/// A device control request to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuildControl {
    pub(crate) code: u32,
    pub(crate) internal: bool,
    pub(crate) input: (usize, usize),
    pub(crate) output: (usize, usize),
}

/// A read, write, flush or the like to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuildTransfer {
    pub(crate) major: u8,
    pub(crate) buffer: (usize, usize),
    pub(crate) offset: i64,
    /// The I/O manager ends it in its thread.
    pub(crate) threaded: bool,
}

/// Buffers of a request under way to be built.
#[derive(Clone, Copy, Debug, Default)]
struct Buffers {
    system: usize,
    mdl: usize,
}

impl Kernel {
    /// A memory descriptor list for memory that is mapped and locked. Null if there is no memory.
    pub(crate) fn new_mdl(&mut self, address: usize, length: usize) -> *mut MDL {
        let mdl = self.allocate_mdl(address, length);
        if !mdl.is_null() {
            // SAFETY: the list is fresh.
            unsafe { (*mdl).MdlFlags = MDL_MAPPED_TO_SYSTEM_VA | MDL_PAGES_LOCKED };
            // SAFETY: as above.
            unsafe { (*mdl).MappedSystemVa = address as *mut _ };
        }
        mdl
    }

    /// A memory descriptor list that is neither mapped nor locked. Null if there is no memory.
    pub(crate) fn allocate_mdl(&mut self, address: usize, length: usize) -> *mut MDL {
        let pages = (address % PAGE + length).div_ceil(PAGE);
        let bytes = size_of::<MDL>() + pages * size_of::<usize>();
        let driver = self.current_driver();
        let mdl: *mut MDL = self.allocate_system(bytes, MDL_TAG, driver).cast();
        if mdl.is_null() {
            return mdl;
        }
        let value = MDL {
            Next: null_mut(),
            Size: bytes.min(i16::MAX as usize) as i16,
            MdlFlags: 0,
            Process: null_mut(),
            MappedSystemVa: null_mut(),
            StartVa: (address & !(PAGE - 1)) as *mut _,
            ByteCount: length as u32,
            ByteOffset: (address % PAGE) as u32,
        };
        // SAFETY: the block is fresh and large enough.
        unsafe { mdl.write(value) };
        mdl
    }

    /// Frees a memory descriptor list.
    pub(crate) fn free_mdl(&mut self, mdl: *mut MDL) -> Check<()> {
        self.check_allocated(mdl as usize)?;
        if self.pool.tag_of(mdl as usize) != Some(MDL_TAG) {
            return Err(Violation::boxed(
                codes::BAD_POOL_CALLER,
                [0x46, mdl as u64, 0, 0],
                "IoFreeMdl was called for what is no memory descriptor list",
            ));
        }
        self.release_system(mdl as usize)
    }

    /// The buffers of a request: a system buffer of so many bytes with a copy of the input, and a list for other memory. None if there is no memory.
    fn build_buffers(&mut self, bytes: usize, input: (usize, usize), mdl: Option<(usize, usize)>) -> Check<Option<Buffers>> {
        let mut buffers = Buffers::default();
        if bytes > 0 {
            let driver = self.current_driver();
            let buffer = self.allocate_system(bytes, BUFFER_TAG, driver);
            if buffer.is_null() {
                return Ok(None);
            }
            if input.1 > 0 {
                // SAFETY: the buffer is at least as large as the input, which the caller of the export vouches for.
                unsafe { buffer.copy_from_nonoverlapping(input.0 as *const u8, input.1) };
            }
            buffers.system = buffer as usize;
        }
        if let Some((address, length)) = mdl.filter(|(_, length)| *length > 0) {
            buffers.mdl = self.new_mdl(address, length) as usize;
            if buffers.mdl == 0 {
                if buffers.system != 0 {
                    self.release_system(buffers.system)?;
                }
                return Ok(None);
            }
        }
        Ok(Some(buffers))
    }

    /// IoBuildDeviceIoControlRequest. Null if there is no memory.
    pub(crate) fn build_control(
        &mut self,
        device: *mut DEVICE_OBJECT,
        build: BuildControl,
        event: *mut KEVENT,
        iosb: *mut IO_STATUS_BLOCK,
    ) -> Check<*mut IRP> {
        let (input, output) = (build.input, build.output);
        let method = METHOD_FROM_CTL_CODE(build.code);
        let buffers = match method {
            METHOD_BUFFERED => self.build_buffers(input.1.max(output.1), input, None)?,
            METHOD_NEITHER => Some(Buffers::default()),
            _ => self.build_buffers(input.1, input, Some(output))?,
        };
        let Some(buffers) = buffers else { return Ok(null_mut()) };
        let mut flags = IRP_SYNCHRONOUS_API;
        if buffers.system != 0 {
            flags |= IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER;
        }
        if method == METHOD_BUFFERED && output.1 > 0 {
            flags |= IRP_INPUT_OPERATION;
        }
        let control = IO_PARAMETERS_DEVICE_IO_CONTROL {
            OutputBufferLength: output.1 as u32,
            Padding1: 0,
            InputBufferLength: input.1 as u32,
            Padding2: 0,
            IoControlCode: build.code,
            Padding3: 0,
            Type3InputBuffer: if method == METHOD_NEITHER { input.0 as *mut _ } else { null_mut() },
        };
        let major = if build.internal { IRP_MJ_INTERNAL_DEVICE_CONTROL } else { IRP_MJ_DEVICE_CONTROL };
        let parts = Built {
            flags,
            buffers,
            user_buffer: output.0,
            output: output.1,
            major,
            parameters: IO_PARAMETERS { DeviceIoControl: control },
            threaded: true,
        };
        self.build(device, parts, event, iosb)
    }

    /// IoBuildSynchronousFsdRequest and IoBuildAsynchronousFsdRequest. Null if there is no memory.
    pub(crate) fn build_transfer(
        &mut self,
        device: *mut DEVICE_OBJECT,
        build: BuildTransfer,
        event: *mut KEVENT,
        iosb: *mut IO_STATUS_BLOCK,
    ) -> Check<*mut IRP> {
        self.device_at(device)?;
        // SAFETY: it is registered.
        let device_flags = unsafe { (*device).Flags };
        let (read, write) = (build.major == IRP_MJ_READ, build.major == IRP_MJ_WRITE);
        let length = if read || write { build.buffer.1 } else { 0 };
        let buffers = if device_flags & DO_BUFFERED_IO != 0 {
            self.build_buffers(length, if write { build.buffer } else { (0, 0) }, None)?
        } else if device_flags & DO_DIRECT_IO != 0 {
            self.build_buffers(0, (0, 0), Some((build.buffer.0, length)))?
        } else {
            Some(Buffers::default())
        };
        let Some(buffers) = buffers else { return Ok(null_mut()) };
        let mut flags = if build.threaded { IRP_SYNCHRONOUS_API } else { 0 };
        if buffers.system != 0 {
            flags |= IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER;
            if read {
                flags |= IRP_INPUT_OPERATION;
            }
        }
        let transfer =
            IO_PARAMETERS_READ_WRITE { Length: length as u32, Padding1: 0, Key: 0, Flags: 0, ByteOffset: build.offset };
        let parts = Built {
            flags,
            buffers,
            user_buffer: if read || write { build.buffer.0 } else { 0 },
            output: if read { length } else { 0 },
            major: build.major,
            parameters: IO_PARAMETERS { Read: transfer },
            threaded: build.threaded,
        };
        self.build(device, parts, event, iosb)
    }

    fn build(
        &mut self,
        device: *mut DEVICE_OBJECT,
        parts: Built,
        event: *mut KEVENT,
        iosb: *mut IO_STATUS_BLOCK,
    ) -> Check<*mut IRP> {
        self.device_at(device)?;
        // SAFETY: it is registered.
        let locations = unsafe { (*device).StackSize };
        let tid = self.this_thread();
        let origin = if parts.threaded { Origin::Threaded(tid) } else { Origin::Allocated };
        let irp = self.allocate_irp(locations, origin);
        if irp.is_null() {
            for block in [parts.buffers.system, parts.buffers.mdl].into_iter().filter(|&block| block != 0) {
                self.release_system(block)?;
            }
            return Ok(irp);
        }
        let fields = layout::IrpFields {
            flags: parts.flags,
            mode: KernelMode,
            system_buffer: parts.buffers.system,
            mdl: parts.buffers.mdl,
            user_buffer: parts.user_buffer,
            thread: self.threads[tid as usize].address(),
            file: null_mut(),
            major: parts.major,
            parameters: parts.parameters,
        };
        // SAFETY: the request was allocated just now.
        unsafe { layout::fill_irp(irp, &fields) };
        // SAFETY: as above.
        unsafe { (*irp).UserEvent = event };
        // SAFETY: as above.
        unsafe { (*irp).UserIosb = iosb };
        let id = self.irp_at(irp)?;
        self.irp_state(id).output = parts.output;
        Ok(irp)
    }

    /// Ends a thread's request, in that thread: its buffers go, its status is written, its event is set, and it is freed.
    pub(crate) fn finish_threaded_irp(&mut self, irp: *mut IRP) -> Check<()> {
        let id = self.irp_at(irp)?;
        let room = self.irp_state(id).output;
        // SAFETY: a registered request's memory is valid.
        let value = unsafe { irp.read() };
        // SAFETY: the status is an integer, whatever was written.
        let status = unsafe { value.IoStatus.u.Status };
        let is_error = status as u32 >> 30 == 3;
        // SAFETY: a request with buffered I/O has a system buffer, or null.
        let system_buffer = unsafe { value.AssociatedIrp.SystemBuffer } as usize;
        if value.Flags & IRP_INPUT_OPERATION != 0 && !is_error {
            let information = value.IoStatus.Information;
            if information > room {
                return Err(Violation::boxed_owned(
                    codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
                    [codes::verifier::IO_OTHER, irp as u64, information as u64, room as u64],
                    format!(
                        "a request was completed with IoStatus.Information {information}, which is more than its output buffer of {room} bytes"
                    ),
                ));
            }
            // SAFETY: both buffers are so large: the output is, by the contract of the routine that built the request.
            unsafe { value.UserBuffer.cast::<u8>().copy_from_nonoverlapping(system_buffer as *const u8, information) };
        }
        if value.Flags & IRP_DEALLOCATE_BUFFER != 0 && system_buffer != 0 {
            self.release_system(system_buffer)?;
        }
        let mut mdl = value.MdlAddress;
        while !mdl.is_null() {
            // SAFETY: the lists of a request are valid.
            let next = unsafe { (*mdl).Next };
            self.free_mdl(mdl)?;
            mdl = next;
        }
        // Who gets an error from IoCallDriver itself does not wait, and is not told again.
        if !is_error || value.PendingReturned != 0 {
            if !value.UserIosb.is_null() {
                // SAFETY: the caller of the routine that built the request vouched for the status block.
                unsafe { value.UserIosb.write(value.IoStatus) };
            }
            if !value.UserEvent.is_null() {
                let event = self.event_at(value.UserEvent)?;
                self.set_event(event, 0)?;
            }
        }
        self.discard_irp(id)
    }
}

/// What a request is built of.
struct Built {
    flags: u32,
    buffers: Buffers,
    user_buffer: usize,
    /// How many bytes the user's output buffer has.
    output: usize,
    major: u8,
    parameters: IO_PARAMETERS,
    threaded: bool,
}
