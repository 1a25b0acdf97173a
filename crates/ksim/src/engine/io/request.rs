//! The I/O manager's own requests: what those who use a device through an open file cause.

use super::irp::{BUFFER_TAG, Origin};
use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::engine::object::{ObjId, SYSTEM};
use crate::engine::thread::Tid;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DIRECT_IO, IO_PARAMETERS, IO_PARAMETERS_CREATE, IO_PARAMETERS_DEVICE_IO_CONTROL,
    IO_PARAMETERS_READ_WRITE, IO_SECURITY_CONTEXT, IRP, IRP_BUFFERED_IO, IRP_CLOSE_OPERATION, IRP_CREATE_OPERATION,
    IRP_DEALLOCATE_BUFFER, IRP_DEFER_IO_COMPLETION, IRP_INPUT_OPERATION, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE,
    IRP_MJ_DEVICE_CONTROL, IRP_MJ_READ, IRP_MJ_WRITE, IRP_READ_OPERATION, IRP_SYNCHRONOUS_API, IRP_WRITE_OPERATION, KernelMode,
    METHOD_BUFFERED, METHOD_FROM_CTL_CODE, METHOD_NEITHER, NTSTATUS, STATUS_INSUFFICIENT_RESOURCES, STATUS_PENDING, UserMode,
};
use std::collections::BTreeMap;
use std::ptr::null_mut;

/// An error, as `NT_ERROR` has it: neither success nor information nor a warning.
fn is_error(status: NTSTATUS) -> bool {
    status as u32 >> 30 == 3
}

/// What is asked of a device.
#[derive(Debug)]
pub(crate) enum Operation {
    Create { access: u32 },
    Cleanup,
    Close,
    Read { length: usize },
    Write { data: Vec<u8> },
    DeviceControl { code: u32, input: Vec<u8>, output_length: usize },
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(crate) struct Completed {
    pub(crate) status: NTSTATUS,
    pub(crate) information: usize,
    pub(crate) output: Vec<u8>,
}

/// A request that the I/O manager has made.
#[derive(Debug)]
struct SystemRequest {
    irp: usize,
    file: ObjId,
    /// It holds a reference to the file.
    references_file: bool,
    /// The user's buffers.
    input: Box<[u8]>,
    output: Box<[u8]>,
    system_buffer: usize,
    /// The output is copied from the system buffer at the end.
    copies_output: bool,
    mdl: usize,
    security: Box<IO_SECURITY_CONTEXT>,
    completed: Option<Completed>,
    /// Whether it had been marked pending when it was completed.
    marked_pending: bool,
    waiting: Vec<Tid>,
    /// Nobody will ask how it ended.
    abandoned: bool,
}

/// The requests that are on their way, or whose end nobody has taken note of.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    by_id: BTreeMap<u32, SystemRequest>,
    last: u32,
}

impl Requests {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        self.by_id.is_empty() && self.last == 0
    }
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewRequest {
    pub(crate) id: u32,
    pub(crate) device: *mut DEVICE_OBJECT,
    pub(crate) irp: *mut IRP,
}

/// The parts of a request that depend on the operation.
struct Parts {
    major: u8,
    flags: u32,
    parameters: IO_PARAMETERS,
    input: Vec<u8>,
    output: usize,
    /// The size of the system buffer, 0 for none, and whether it begins as a copy of the input.
    buffer: usize,
    copies_input: bool,
    copies_output: bool,
    /// Which of the user's buffers the memory descriptor list is for.
    mdl: Option<Direct>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direct {
    Input,
    Output,
}

impl Parts {
    fn new(major: u8, flags: u32) -> Self {
        let parameters = IO_PARAMETERS { Others: [null_mut(); 4] };
        Self {
            major,
            flags,
            parameters,
            input: Vec::new(),
            output: 0,
            buffer: 0,
            copies_input: false,
            copies_output: false,
            mdl: None,
        }
    }

    /// The parts of an operation on a device with these flags.
    fn of(operation: Operation, device_flags: u32) -> Self {
        match operation {
            Operation::Create { .. } => Self::new(IRP_MJ_CREATE, IRP_CREATE_OPERATION | IRP_SYNCHRONOUS_API),
            Operation::Cleanup => Self::new(IRP_MJ_CLEANUP, IRP_CLOSE_OPERATION | IRP_SYNCHRONOUS_API),
            Operation::Close => Self::new(IRP_MJ_CLOSE, IRP_CLOSE_OPERATION | IRP_SYNCHRONOUS_API),
            Operation::Read { length } => {
                let mut parts = Self::new(IRP_MJ_READ, IRP_READ_OPERATION | IRP_DEFER_IO_COMPLETION);
                parts.output = length;
                parts.transfer(device_flags, length, Direct::Output);
                parts.parameters.Read = read_write(length);
                parts
            }
            Operation::Write { data } => {
                let mut parts = Self::new(IRP_MJ_WRITE, IRP_WRITE_OPERATION | IRP_DEFER_IO_COMPLETION);
                let length = data.len();
                parts.input = data;
                parts.transfer(device_flags, length, Direct::Input);
                parts.parameters.Write = read_write(length);
                parts
            }
            Operation::DeviceControl { code, input, output_length } => {
                let mut parts = Self::new(IRP_MJ_DEVICE_CONTROL, IRP_DEFER_IO_COMPLETION);
                parts.parameters.DeviceIoControl = IO_PARAMETERS_DEVICE_IO_CONTROL {
                    OutputBufferLength: output_length as u32,
                    Padding1: 0,
                    InputBufferLength: input.len() as u32,
                    Padding2: 0,
                    IoControlCode: code,
                    Padding3: 0,
                    Type3InputBuffer: null_mut(),
                };
                match METHOD_FROM_CTL_CODE(code) {
                    METHOD_NEITHER => {}
                    METHOD_BUFFERED => {
                        parts.buffer = input.len().max(output_length);
                        parts.copies_input = true;
                        parts.copies_output = output_length > 0;
                    }
                    _ => {
                        parts.buffer = input.len();
                        parts.copies_input = true;
                        parts.mdl = (output_length > 0).then_some(Direct::Output);
                    }
                }
                parts.input = input;
                parts.output = output_length;
                parts
            }
        }
    }

    /// The buffers of a read or write, as the device wants them.
    fn transfer(&mut self, device_flags: u32, length: usize, direction: Direct) {
        if device_flags & DO_BUFFERED_IO != 0 {
            self.buffer = length;
            self.copies_input = direction == Direct::Input;
            self.copies_output = direction == Direct::Output && length > 0;
        } else if device_flags & DO_DIRECT_IO != 0 && length > 0 {
            self.mdl = Some(direction);
        }
    }
}

fn read_write(length: usize) -> IO_PARAMETERS_READ_WRITE {
    IO_PARAMETERS_READ_WRITE { Length: length as u32, Padding1: 0, Key: 0, Flags: 0, ByteOffset: 0 }
}

impl Kernel {
    /// Makes a request for the device of a file, ready to be sent to the top of its stack.
    pub(crate) fn new_request(&mut self, file: ObjId, operation: Operation) -> Check<Result<NewRequest, NTSTATUS>> {
        let references_file = !matches!(operation, Operation::Create { .. } | Operation::Cleanup | Operation::Close);
        let access = match operation {
            Operation::Create { access } => access,
            _ => 0,
        };
        let user_mode = self.file_state(file).user_mode;
        let opened = self.device_memory(self.file_state(file).device);
        let device = self.top_of_stack(opened)?;
        // SAFETY: a registered device's memory is valid.
        let value = unsafe { device.read() };
        let parts = Parts::of(operation, value.Flags);
        self.io.requests.last += 1;
        let id = self.io.requests.last;
        let irp = self.allocate_irp(value.StackSize, Origin::System(id));
        if irp.is_null() {
            return Ok(Err(STATUS_INSUFFICIENT_RESOURCES));
        }
        let mut request = SystemRequest {
            irp: irp as usize,
            file,
            references_file,
            input: parts.input.clone().into_boxed_slice(),
            output: vec![0; parts.output].into_boxed_slice(),
            system_buffer: 0,
            copies_output: parts.copies_output,
            mdl: 0,
            security: Box::new(IO_SECURITY_CONTEXT {
                SecurityQos: null_mut(),
                AccessState: null_mut(),
                DesiredAccess: access,
                FullCreateOptions: 0,
            }),
            completed: None,
            marked_pending: false,
            waiting: Vec::new(),
            abandoned: false,
        };
        if !self.attach_buffers(&mut request, &parts) {
            let irp_id = self.irp_at(irp)?;
            self.discard_irp(irp_id)?;
            self.release_buffers(&request)?;
            return Ok(Err(STATUS_INSUFFICIENT_RESOURCES));
        }
        if references_file {
            self.reference_object(file, 1)?;
        }
        let mut parameters = parts.parameters;
        if parts.major == IRP_MJ_CREATE {
            parameters.Create = IO_PARAMETERS_CREATE {
                SecurityContext: &raw mut *request.security,
                // FILE_OPEN.
                Options: 1 << 24,
                Padding1: 0,
                FileAttributes: 0,
                ShareAccess: 7,
                Padding2: 0,
                EaLength: 0,
                Padding3: 0,
            };
        }
        if parts.major == IRP_MJ_DEVICE_CONTROL && parts.buffer == 0 && parts.mdl.is_none() {
            // SAFETY: these are the parameters of a device control request.
            let control = unsafe { &mut parameters.DeviceIoControl };
            if METHOD_FROM_CTL_CODE(control.IoControlCode) == METHOD_NEITHER && !request.input.is_empty() {
                control.Type3InputBuffer = request.input.as_mut_ptr().cast();
            }
        }
        let mut flags = parts.flags;
        if request.system_buffer != 0 {
            flags |= IRP_BUFFERED_IO | IRP_DEALLOCATE_BUFFER;
        }
        if parts.copies_output {
            flags |= IRP_INPUT_OPERATION;
        }
        let user_buffer = if request.output.is_empty() { request.input.as_mut_ptr() } else { request.output.as_mut_ptr() };
        let has_user_buffer = !request.output.is_empty() || parts.major == IRP_MJ_WRITE;
        let fields = layout::IrpFields {
            flags,
            mode: if user_mode { UserMode } else { KernelMode },
            system_buffer: request.system_buffer,
            mdl: request.mdl,
            user_buffer: if has_user_buffer { user_buffer as usize } else { 0 },
            thread: self.current_thread().map_or(0, |tid| self.threads[tid as usize].address()),
            file: self.file_memory(file),
            major: parts.major,
            parameters,
        };
        // SAFETY: the request was allocated just now, with a stack location for each device.
        unsafe { layout::fill_irp(irp, &fields) };
        self.io.requests.by_id.insert(id, request);
        Ok(Ok(NewRequest { id, device, irp }))
    }

    /// Gives a request its system buffer and memory descriptor list. False if there is no memory.
    fn attach_buffers(&mut self, request: &mut SystemRequest, parts: &Parts) -> bool {
        if parts.buffer > 0 {
            let buffer = self.allocate_system(parts.buffer, BUFFER_TAG, None);
            if buffer.is_null() {
                return false;
            }
            // Like the system, which does not clear it: a driver that says it has written more than it has gives this away.
            // SAFETY: the block is fresh and so large.
            unsafe { buffer.write_bytes(0xcd, parts.buffer) };
            if parts.copies_input {
                // SAFETY: the buffer is at least as large as the input.
                unsafe { buffer.copy_from_nonoverlapping(request.input.as_ptr(), request.input.len()) };
            }
            request.system_buffer = buffer as usize;
        }
        let Some(direction) = parts.mdl else { return true };
        let buffer = if direction == Direct::Input { &mut request.input } else { &mut request.output };
        let mdl = self.new_mdl(buffer.as_mut_ptr() as usize, buffer.len());
        request.mdl = mdl as usize;
        !mdl.is_null()
    }

    fn release_buffers(&mut self, request: &SystemRequest) -> Check<()> {
        for block in [request.system_buffer, request.mdl] {
            if block != 0 {
                self.release_system(block)?;
            }
        }
        Ok(())
    }

    fn request(&mut self, id: u32) -> &mut SystemRequest {
        self.io.requests.by_id.get_mut(&id).expect("ksim: a request is kept until its result is taken")
    }

    /// The request has gone all the way up: its result is taken over, and its memory freed. Returns the file when its last reference went with the
    /// request, for its driver to be told.
    pub(crate) fn finish_request(&mut self, id: u32) -> Check<Option<ObjId>> {
        let irp = self.request(id).irp as *mut IRP;
        // SAFETY: a request that is not finished is registered, and its memory valid.
        let value = unsafe { irp.read() };
        // SAFETY: the status is an integer, whatever was written.
        let status = unsafe { value.IoStatus.u.Status };
        let information = value.IoStatus.Information;
        let request = self.request(id);
        request.marked_pending = value.PendingReturned != 0;
        let mut output = std::mem::take(&mut request.output);
        if request.copies_output && !is_error(status) {
            if information > output.len() {
                let length = output.len();
                return Err(Violation::boxed_owned(
                    codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
                    [codes::verifier::IO_OTHER, irp as u64, information as u64, length as u64],
                    format!(
                        "a request was completed with IoStatus.Information {information}, which is more than its output buffer of {length} \
                         bytes: the I/O manager copies so many bytes to the user"
                    ),
                ));
            }
            let source = request.system_buffer as *const u8;
            // SAFETY: the system buffer is at least as large as the output buffer, which holds so many bytes.
            unsafe { output.as_mut_ptr().copy_from_nonoverlapping(source, information) };
        }
        let mut output = output.into_vec();
        if request.copies_output {
            output.truncate(if is_error(status) { 0 } else { information });
        }
        request.completed = Some(Completed { status, information, output });
        let (file, references) = (request.file, request.references_file);
        let waiting = std::mem::take(&mut request.waiting);
        let buffers = [std::mem::take(&mut request.system_buffer), std::mem::take(&mut request.mdl)];
        for block in buffers.into_iter().filter(|&block| block != 0) {
            self.release_system(block)?;
        }
        let irp_id = self.irp_at(irp)?;
        self.discard_irp(irp_id)?;
        for tid in waiting {
            self.unpark(tid, SYSTEM);
        }
        if self.request(id).abandoned {
            self.io.requests.by_id.remove(&id);
        }
        if references && self.dereference_file(file)? {
            return Ok(Some(file));
        }
        Ok(None)
    }

    /// What is checked when the top dispatch routine has returned: its status must fit what it did with the request.
    pub(crate) fn request_sent(&mut self, id: u32, status: NTSTATUS) -> Check<()> {
        let Some(request) = self.io.requests.by_id.get(&id) else { return Ok(()) };
        let (irp, marked) = (request.irp, request.marked_pending);
        let Some(completed) = &request.completed else {
            // What is on its way has been marked pending: the end of the dispatch routine is where that is checked.
            return Ok(());
        };
        let problem = if status == STATUS_PENDING && !marked {
            "returned STATUS_PENDING for a request that was not marked pending"
        } else if status != STATUS_PENDING && marked {
            "returned another status than STATUS_PENDING for a request that was marked pending"
        } else if status != STATUS_PENDING && status != completed.status {
            "returned another status than the request was completed with"
        } else {
            return Ok(());
        };
        Err(Violation::boxed_owned(
            codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION,
            [codes::verifier::IO_OTHER, irp as u64, status as u32 as u64, completed.status as u32 as u64],
            format!("a dispatch routine {problem} (returned {status:#010x}, completed with {:#010x})", completed.status),
        ))
    }

    /// True when a request has ended.
    pub(crate) fn request_is_done(&self, id: u32) -> bool {
        self.io.requests.by_id.get(&id).is_none_or(|request| request.completed.is_some())
    }

    /// The result of a request, if it has ended; otherwise the running thread waits for it, and looks again.
    pub(crate) fn take_request(&mut self, id: u32) -> Check<Option<Completed>> {
        if let Some(completed) = self.request(id).completed.take() {
            self.io.requests.by_id.remove(&id);
            return Ok(Some(completed));
        }
        let tid = self.this_thread();
        let waiting = &mut self.request(id).waiting;
        if !waiting.contains(&tid) {
            waiting.push(tid);
        }
        self.park(SYSTEM, "a device's request")?;
        Ok(None)
    }

    /// Nobody will ask how a request ended.
    pub(crate) fn abandon_request(&mut self, id: u32) {
        if let Some(request) = self.io.requests.by_id.get_mut(&id) {
            request.abandoned = true;
            if request.completed.is_some() {
                self.io.requests.by_id.remove(&id);
            }
        }
    }

    /// The IRP of a request that is on its way.
    pub(crate) fn irp_of_request(&mut self, id: u32) -> Option<*mut IRP> {
        let request = self.io.requests.by_id.get(&id)?;
        request.completed.is_none().then_some(request.irp as *mut IRP)
    }
}
