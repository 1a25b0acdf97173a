//! The object manager: references, handles, client IDs, processes (rule 65).

use super::kernel::{Check, Kernel};
use super::layout;
use super::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{ACCESS_MASK, DISPATCHER_HEADER, NTSTATUS};
use ksync_sys::{STATUS_ACCESS_DENIED, STATUS_INVALID_HANDLE, STATUS_OBJECT_TYPE_MISMATCH};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;

/// The types of objects that the object manager keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Thread,
    Process,
    Event,
}

/// References to an object.
#[derive(Clone, Copy, Debug)]
struct Body {
    object_type: Type,
    /// Pointer references, handles included.
    references: i64,
    /// References that the system itself holds: a live thread's or process' own.
    own: i64,
    /// The process or thread ID, if it has one.
    client_id: Option<u32>,
}

/// A handle table's entry.
#[derive(Clone, Copy, Debug)]
struct Handle {
    object: ObjId,
    access: ACCESS_MASK,
}

/// A process.
pub(crate) struct Process {
    memory: Box<ProcessObject>,
    pub(crate) object: ObjId,
    pub(crate) client_id: u32,
}

/// The memory that a driver sees as the EPROCESS.
#[repr(C)]
struct ProcessObject {
    header: DISPATCHER_HEADER,
    opaque: [u64; 13],
}

/// The bit that tells kernel handles from those of a process.
const KERNEL_HANDLE: usize = 0xffff_ffff_8000_0000;

/// Objects with references, and the handles to them.
#[derive(Default)]
pub(crate) struct ObjectManager {
    bodies: FxHashMap<ObjId, Body>,
    client_ids: BTreeMap<u32, ObjId>,
    last_client_id: u32,
    /// By table (a process, or none for kernel handles), then by value.
    handles: BTreeMap<(Option<u32>, usize), Handle>,
    last_handle: usize,
    pub(crate) processes: Vec<Process>,
}

/// Where a handle is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandleUse {
    pub(crate) handle: usize,
    pub(crate) user_mode: bool,
    pub(crate) access: ACCESS_MASK,
    pub(crate) object_type: Option<Type>,
}

impl ObjectManager {
    /// Enters an object with the one reference that its life itself is.
    pub(crate) fn add_object(&mut self, object: ObjId, object_type: Type) {
        self.bodies.insert(object, Body { object_type, references: 1, own: 1, client_id: None });
    }

    /// A fresh process or thread ID: a multiple of 4.
    pub(crate) fn new_client_id(&mut self, object: ObjId) -> u32 {
        self.last_client_id += 4;
        if let Some(body) = self.bodies.get_mut(&object) {
            body.client_id = Some(self.last_client_id);
        }
        self.client_ids.insert(self.last_client_id, object);
        self.last_client_id
    }

    /// The object with a process or thread ID.
    pub(crate) fn by_client_id(&self, id: u32) -> Option<ObjId> {
        self.client_ids.get(&id).copied()
    }

    /// Handles that are open, and references that nobody dropped, at the end of a run.
    pub(crate) fn left(&self) -> (usize, usize) {
        let by_handles = self.handles.len();
        let references: i64 = self.bodies.values().map(|body| (body.references - body.own).max(0)).sum();
        (by_handles, usize::try_from(references).unwrap_or(0).saturating_sub(by_handles))
    }
}

impl Kernel {
    /// The index of the system process.
    pub(crate) const SYSTEM_PROCESS: u32 = 0;

    /// Creates the system process, whose ID is 4.
    pub(crate) fn boot_object_manager(&mut self) {
        let system = self.create_process();
        debug_assert_eq!(system, Self::SYSTEM_PROCESS);
    }

    /// Creates a process. Returns its index.
    pub(crate) fn create_process(&mut self) -> u32 {
        let index = self.ob.processes.len() as u32;
        let mut memory = Box::new(ProcessObject { header: layout::header(0, 0, 0, std::ptr::null_mut()), opaque: [0; 13] });
        let header = &raw mut memory.header;
        // SAFETY: the box is fresh memory of the right size.
        let object = unsafe {
            self.initialize_dispatcher(header, ksync_sys::ProcessObject, size_of::<ProcessObject>(), 0, Kind::Process(index))
        }
        .expect("ksim: a fresh allocation is not in use");
        self.ob.add_object(object, Type::Process);
        let client_id = self.ob.new_client_id(object);
        self.ob.processes.push(Process { memory, object, client_id });
        index
    }

    /// The address that drivers know a process by.
    pub(crate) fn process_address(&self, process: u32) -> usize {
        (&raw const *self.ob.processes[process as usize].memory) as usize
    }

    /// The process whose EPROCESS is at `pointer`.
    pub(crate) fn process_at<T>(&mut self, pointer: *const T) -> Check<u32> {
        let id = self.object_of_kind(pointer, "process", |kind| matches!(kind, Kind::Process(_)))?;
        match self.objects[id].kind {
            Kind::Process(process) => Ok(process),
            _ => unreachable!("object_of_kind checked the kind"),
        }
    }

    /// The object manager's type of an object, if it is one of its.
    pub(crate) fn type_of(&self, id: ObjId) -> Option<Type> {
        self.ob.bodies.get(&id).map(|body| body.object_type)
    }

    /// The object that a driver references by pointer.
    pub(crate) fn referenced_object(&mut self, pointer: usize) -> Check<ObjId> {
        let id = self.object_at(pointer as *const u8)?;
        if self.ob.bodies.contains_key(&id) {
            return Ok(id);
        }
        Err(Violation::boxed(
            codes::REFERENCE_BY_POINTER,
            [0, pointer as u64, 0, 0],
            "a pointer was referenced or dereferenced that is not an object manager's object",
        ))
    }

    /// Adds references. Returns the new count.
    pub(crate) fn reference_object(&mut self, id: ObjId, count: i64) -> Check<i64> {
        let address = self.objects[id].address as u64;
        let Some(body) = self.ob.bodies.get_mut(&id) else { return Ok(0) };
        if body.references == 0 {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REFERENCE_FROM_ZERO, address, 0, 0],
                "an object was referenced that nobody holds a reference to",
            ));
        }
        body.references += count;
        Ok(body.references)
    }

    /// Drops references. Returns the new count.
    pub(crate) fn dereference_object(&mut self, id: ObjId, count: i64) -> Check<i64> {
        let address = self.objects[id].address as u64;
        let terminated = match self.objects[id].kind {
            Kind::Thread(tid) => self.threads[tid as usize].state == super::thread::State::Terminated,
            _ => false,
        };
        let Some(body) = self.ob.bodies.get_mut(&id) else { return Ok(0) };
        let own = if terminated { 0 } else { body.own };
        if body.references - count < own {
            return Err(Violation::boxed(
                codes::REFERENCE_BY_POINTER,
                [0, address, (body.references - count) as u64, 0],
                "an object was dereferenced more often than it was referenced",
            ));
        }
        body.references -= count;
        body.own = own;
        let references = body.references;
        if references == 0
            && let Some(client_id) = body.client_id.take()
        {
            self.ob.client_ids.remove(&client_id);
        }
        Ok(references)
    }

    /// Opens a handle to an object, in the kernel's table or in that of the running thread's process.
    pub(crate) fn open_handle(&mut self, id: ObjId, access: ACCESS_MASK, kernel: bool) -> Check<usize> {
        self.reference_object(id, 1)?;
        self.ob.last_handle += 4;
        let value = self.ob.last_handle;
        let (table, value) = if kernel { (None, value | KERNEL_HANDLE) } else { (Some(self.current_process()), value) };
        self.ob.handles.insert((table, value), Handle { object: id, access });
        Ok(value)
    }

    /// The process of the running thread.
    pub(crate) fn current_process(&self) -> u32 {
        self.current_thread().map_or(Self::SYSTEM_PROCESS, |tid| self.threads[tid as usize].process)
    }

    /// The table entry of a handle.
    fn handle_key(&self, handle: usize) -> (Option<u32>, usize) {
        if handle & KERNEL_HANDLE == KERNEL_HANDLE { (None, handle) } else { (Some(self.current_process()), handle & !3) }
    }

    /// Closes a handle.
    pub(crate) fn close_handle(&mut self, handle: usize) -> Check<NTSTATUS> {
        let key = self.handle_key(handle);
        let Some(entry) = self.ob.handles.remove(&key) else { return Ok(STATUS_INVALID_HANDLE) };
        self.dereference_object(entry.object, 1)?;
        Ok(0)
    }

    /// The object that a handle means to its user, with a reference; or the status that says why not.
    pub(crate) fn reference_handle(&mut self, request: HandleUse) -> Check<Result<ObjId, NTSTATUS>> {
        let HandleUse { handle, user_mode, access, object_type } = request;
        if let Some(id) = self.pseudo_handle(handle) {
            if object_type.is_some() && object_type != self.type_of(id) {
                return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
            }
            self.reference_object(id, 1)?;
            return Ok(Ok(id));
        }
        let kernel_handle = handle & KERNEL_HANDLE == KERNEL_HANDLE;
        let violation = |sub_code: u64, meaning: &'static str| {
            Violation::boxed(codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [sub_code, handle as u64, 0, 0], meaning)
        };
        if user_mode {
            if kernel_handle {
                return Err(violation(
                    codes::verifier::KERNEL_HANDLE_AS_USER,
                    "a kernel handle was referenced with the user's access mode",
                ));
            }
        } else if handle == 0 {
            return Err(violation(codes::verifier::NULL_HANDLE, "a null handle was referenced in kernel mode"));
        } else if !kernel_handle && self.current_process() != Self::SYSTEM_PROCESS {
            return Err(violation(
                codes::verifier::USER_HANDLE_AS_KERNEL,
                "a handle of a user process was referenced in kernel mode, without its access checks",
            ));
        }
        let Some(entry) = self.ob.handles.get(&self.handle_key(handle)).copied() else {
            if user_mode {
                return Ok(Err(STATUS_INVALID_HANDLE));
            }
            return Err(violation(codes::verifier::BAD_HANDLE, "a handle was referenced in kernel mode that is not open"));
        };
        if object_type.is_some() && object_type != self.type_of(entry.object) {
            return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
        }
        if user_mode && access & !entry.access != 0 {
            return Ok(Err(STATUS_ACCESS_DENIED));
        }
        self.reference_object(entry.object, 1)?;
        Ok(Ok(entry.object))
    }

    /// NtCurrentProcess() and NtCurrentThread().
    fn pseudo_handle(&self, handle: usize) -> Option<ObjId> {
        match handle as isize {
            -1 => Some(self.ob.processes[self.current_process() as usize].object),
            -2 => self.current_thread().map(|tid| self.threads[tid as usize].object),
            _ => None,
        }
    }
}
