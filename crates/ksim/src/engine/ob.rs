//! The object manager: references, types, client IDs, processes (rule 65). Handles and names are in files of their own.

use super::kernel::{Check, Kernel};
use super::layout;
use super::object::{Kind, ObjId};
use crate::report::ObjectLeft;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{ACCESS_MASK, DISPATCHER_HEADER};
use std::collections::BTreeMap;

mod handle;
mod name;

pub(crate) use handle::{Duplication, HandleUse, is_kernel_handle};
pub(crate) use name::{Attributes, Creation};

/// The types of objects that the object manager keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    Thread,
    Process,
    Event,
    Semaphore,
    Mutant,
    Timer,
    Driver,
    Device,
    File,
    Callback,
}

impl Type {
    /// The name of the type's object.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Thread => "Thread",
            Self::Process => "Process",
            Self::Event => "Event",
            Self::Semaphore => "Semaphore",
            Self::Mutant => "Mutant",
            Self::Timer => "Timer",
            Self::Driver => "Driver",
            Self::Device => "Device",
            Self::File => "File",
            Self::Callback => "Callback",
        }
    }

    /// The rights that the type maps "read", "write", "execute" and "all" to.
    const fn generic_mapping(self) -> [ACCESS_MASK; 4] {
        use ksync_sys as sys;
        const READ: ACCESS_MASK = sys::READ_CONTROL;
        match self {
            Self::Thread => [
                READ | sys::THREAD_QUERY_INFORMATION | sys::THREAD_GET_CONTEXT,
                READ | sys::THREAD_SET_INFORMATION | sys::THREAD_SET_CONTEXT | sys::THREAD_TERMINATE | sys::THREAD_ALERT,
                READ | sys::SYNCHRONIZE,
                sys::THREAD_ALL_ACCESS,
            ],
            Self::Process => [
                READ | sys::PROCESS_QUERY_INFORMATION,
                READ | sys::PROCESS_DUP_HANDLE,
                READ | sys::SYNCHRONIZE | sys::PROCESS_TERMINATE,
                sys::PROCESS_ALL_ACCESS,
            ],
            Self::Event => {
                [READ | sys::EVENT_QUERY_STATE, READ | sys::EVENT_MODIFY_STATE, READ | sys::SYNCHRONIZE, sys::EVENT_ALL_ACCESS]
            }
            Self::Semaphore => [
                READ | sys::SEMAPHORE_QUERY_STATE,
                READ | sys::SEMAPHORE_MODIFY_STATE,
                READ | sys::SYNCHRONIZE,
                sys::SEMAPHORE_ALL_ACCESS,
            ],
            Self::Driver | Self::Device | Self::File => [
                READ | sys::SYNCHRONIZE | sys::FILE_READ_DATA | sys::FILE_READ_ATTRIBUTES,
                READ | sys::SYNCHRONIZE | sys::FILE_WRITE_DATA,
                READ | sys::SYNCHRONIZE | sys::FILE_READ_ATTRIBUTES,
                sys::STANDARD_RIGHTS_REQUIRED | sys::SYNCHRONIZE | 0x1ff,
            ],
            Self::Callback => [READ, READ | 1, READ | sys::SYNCHRONIZE, sys::CALLBACK_ALL_ACCESS],
            Self::Mutant => [READ | sys::MUTANT_QUERY_STATE, READ, READ | sys::SYNCHRONIZE, sys::MUTANT_ALL_ACCESS],
            Self::Timer => {
                [READ | sys::TIMER_QUERY_STATE, READ | sys::TIMER_MODIFY_STATE, READ | sys::SYNCHRONIZE, sys::TIMER_ALL_ACCESS]
            }
        }
    }

    /// What a handle grants that is opened for `desired`. Who opens one here may do everything.
    fn granted(self, desired: ACCESS_MASK) -> ACCESS_MASK {
        use ksync_sys::{GENERIC_ALL, GENERIC_EXECUTE, GENERIC_READ, GENERIC_WRITE, MAXIMUM_ALLOWED};
        let mapping = self.generic_mapping();
        let generic = [GENERIC_READ, GENERIC_WRITE, GENERIC_EXECUTE, GENERIC_ALL];
        let mut granted = desired & !(generic.iter().fold(MAXIMUM_ALLOWED, |all, one| all | one));
        for (bit, rights) in generic.into_iter().zip(mapping) {
            if desired & bit != 0 {
                granted |= rights;
            }
        }
        if desired & MAXIMUM_ALLOWED != 0 { granted | mapping[3] } else { granted }
    }
}

/// References to an object.
#[derive(Clone, Debug)]
struct Body {
    object_type: Type,
    /// Pointer references, handles included.
    references: i64,
    /// References that the system itself holds: a live thread's or process' own.
    own: i64,
    /// How many handles are open.
    handles: u32,
    /// The process or thread ID, if it has one.
    client_id: Option<u32>,
    /// The full name, if it has one.
    name: Option<Vec<u16>>,
    /// It keeps its name, and itself, when the last handle is closed.
    permanent: bool,
    /// Pool that the object is in, if the object manager made it.
    memory: Option<usize>,
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

/// What has references, by the index of its object.
#[derive(Default)]
struct Bodies(Vec<Option<Body>>);

impl Bodies {
    fn get(&self, object: ObjId) -> Option<&Body> {
        self.0.get(object as usize)?.as_ref()
    }

    fn get_mut(&mut self, object: ObjId) -> Option<&mut Body> {
        self.0.get_mut(object as usize)?.as_mut()
    }

    fn insert(&mut self, object: ObjId, body: Body) {
        let index = object as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        self.0[index] = Some(body);
    }

    fn remove(&mut self, object: ObjId) {
        if let Some(body) = self.0.get_mut(object as usize) {
            *body = None;
        }
    }
}

/// Objects with references, and the handles and names of them.
#[derive(Default)]
pub(crate) struct ObjectManager {
    bodies: Bodies,
    /// The objects with process and thread IDs, by a quarter of the ID.
    client_ids: Vec<Option<ObjId>>,
    handles: handle::Handles,
    names: BTreeMap<Vec<u16>, ObjId>,
    pub(crate) processes: Vec<Process>,
    /// The memory of a process of a machine before this.
    spare_process: Option<Box<ProcessObject>>,
}

impl ObjectManager {
    /// Forgets all objects.
    pub(crate) fn clear(&mut self) {
        let Self { bodies, client_ids, handles, names, processes, spare_process } = self;
        bodies.0.clear();
        client_ids.clear();
        handles.clear();
        if !names.is_empty() {
            names.clear();
        }
        *spare_process = processes.drain(..).next().map(|process| process.memory);
    }

    /// Enters an object with the one reference that its life itself is.
    pub(crate) fn add_object(&mut self, object: ObjId, object_type: Type) {
        let body =
            Body { object_type, references: 1, own: 1, handles: 0, client_id: None, name: None, permanent: false, memory: None };
        self.bodies.insert(object, body);
    }

    /// Enters an object that the object manager made, with one reference, which is its maker's.
    fn add_made(&mut self, object: ObjId, object_type: Type, memory: usize) {
        self.add_object(object, object_type);
        if let Some(body) = self.bodies.get_mut(object) {
            body.own = 0;
            body.memory = Some(memory);
        }
    }

    /// The object's life is over: only others' references are left. False if it was over before.
    pub(crate) fn drop_own(&mut self, object: ObjId) -> bool {
        self.bodies.get_mut(object).is_some_and(|body| std::mem::replace(&mut body.own, 0) > 0)
    }

    /// Removes an object that nobody references.
    pub(crate) fn remove_object(&mut self, object: ObjId) {
        self.bodies.remove(object);
    }

    /// A fresh process or thread ID: a multiple of 4.
    pub(crate) fn new_client_id(&mut self, object: ObjId) -> u32 {
        if self.client_ids.is_empty() {
            // 0 is nobody's.
            self.client_ids.push(None);
        }
        let id = 4 * self.client_ids.len() as u32;
        self.client_ids.push(Some(object));
        if let Some(body) = self.bodies.get_mut(object) {
            body.client_id = Some(id);
        }
        id
    }

    /// The object with a process or thread ID.
    pub(crate) fn by_client_id(&self, id: u32) -> Option<ObjId> {
        if id.is_multiple_of(4) { self.client_ids.get(id as usize / 4).copied().flatten() } else { None }
    }

    /// Objects with handles that are open, or references that nobody dropped, at the end of a run: the object, and how many of each.
    fn left(&self) -> impl Iterator<Item = (ObjId, &Body, usize, usize)> {
        self.bodies.0.iter().enumerate().filter_map(|(index, body)| {
            let body = body.as_ref()?;
            let handles = body.handles as usize;
            let references = usize::try_from(body.references - body.own).unwrap_or(0).saturating_sub(handles);
            (handles + references > 0).then_some((index as ObjId, body, handles, references))
        })
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
        let mut memory = self.ob.spare_process.take().unwrap_or_else(|| {
            Box::new(ProcessObject { header: layout::header(0, 0, 0, std::ptr::null_mut()), opaque: [0; 13] })
        });
        let header = &raw mut memory.header;
        // SAFETY: the box is memory of the right size, and of no process.
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

    /// What is left of objects at the end of a run, by number.
    pub(crate) fn objects_left(&self) -> Vec<ObjectLeft> {
        if self.ob.left().next().is_none() {
            return Vec::new();
        }
        let left = self.ob.left().map(|(id, body, handles, references)| {
            let object = &self.objects[id];
            let name = body.name.as_ref().map(|name| String::from_utf16_lossy(name));
            ObjectLeft { kind: object.kind.name(), number: object.number, name, handles, references }
        });
        let mut left: Vec<_> = left.collect();
        left.sort_by_key(|object| object.number);
        left
    }

    /// The object manager's type of an object, if it is one of its.
    pub(crate) fn type_of(&self, id: ObjId) -> Option<Type> {
        self.ob.bodies.get(id).map(|body| body.object_type)
    }

    /// The object that a driver references by pointer.
    pub(crate) fn referenced_object(&mut self, pointer: usize) -> Check<ObjId> {
        if self.objects.find(pointer).is_none() && self.pool.is_freed_for_system(pointer) {
            return Err(Violation::boxed(
                codes::REFERENCE_BY_POINTER,
                [0, pointer as u64, 0, 0],
                "an object was referenced or dereferenced that has been deleted: its last reference was given back",
            ));
        }
        let id = self.object_at(pointer as *const u8)?;
        if self.ob.bodies.get(id).is_some() {
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
        let Some(body) = self.ob.bodies.get_mut(id) else { return Ok(0) };
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
        let Some(body) = self.ob.bodies.get_mut(id) else { return Ok(0) };
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
        if references == 0 {
            if let Some(client_id) = body.client_id.take() {
                self.ob.client_ids[client_id as usize / 4] = None;
            }
            self.delete_object(id)?;
        }
        if references == 0 && matches!(self.objects[id].kind, Kind::Device(_)) {
            self.free_device(id)?;
        }
        Ok(references)
    }

    /// Adds a reference unless the object is being deleted already. False then.
    pub(crate) fn reference_if_alive(&mut self, id: ObjId) -> bool {
        match self.ob.bodies.get_mut(id) {
            Some(body) if body.references > 0 => {
                body.references += 1;
                true
            }
            _ => false,
        }
    }

    /// How many handles and references an object has.
    pub(crate) fn counts_of(&self, id: ObjId) -> (u32, i64) {
        self.ob.bodies.get(id).map_or((0, 0), |body| (body.handles, body.references))
    }
}
