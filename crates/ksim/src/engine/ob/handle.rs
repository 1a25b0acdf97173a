//! Handles: the kernel's table and those of the processes.

use super::Type;
use crate::check::rules::RuleId;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::ObjId;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    ACCESS_MASK, DUPLICATE_CLOSE_SOURCE, DUPLICATE_SAME_ACCESS, DUPLICATE_SAME_ATTRIBUTES, NTSTATUS, OBJ_KERNEL_HANDLE,
    STATUS_ACCESS_DENIED, STATUS_INVALID_HANDLE, STATUS_OBJECT_TYPE_MISMATCH,
};

/// The bit that tells kernel handles from those of a process.
const KERNEL_HANDLE: usize = 0xffff_ffff_8000_0000;

/// True for a value of the kernel's table.
pub(crate) fn is_kernel_handle(handle: usize) -> bool {
    handle & KERNEL_HANDLE == KERNEL_HANDLE
}

/// A handle table's entry.
#[derive(Clone, Copy, Debug)]
struct Handle {
    object: ObjId,
    access: ACCESS_MASK,
    /// `OBJ_...` flags.
    attributes: u32,
}

/// A table, which is a process', or none for the kernel's; and a value in it.
type Key = (Option<u32>, usize);

/// All handle tables. A value is used once in a run, so that a handle that was closed means nothing ever after.
#[derive(Debug, Default)]
pub(super) struct Handles {
    /// By a quarter of the value: the handle, and the table that it is in. There is no value 0.
    values: Vec<Option<(Option<u32>, Handle)>>,
}

impl Handles {
    /// Closes all, and forgets them.
    pub(super) fn clear(&mut self) {
        self.values.clear();
    }

    fn insert(&mut self, process: Option<u32>, handle: Handle) -> usize {
        if self.values.is_empty() {
            self.values.push(None);
        }
        let value = 4 * self.values.len();
        self.values.push(Some((process, handle)));
        if process.is_none() { value | KERNEL_HANDLE } else { value }
    }

    fn entry(&mut self, key: Key) -> Option<&mut Option<(Option<u32>, Handle)>> {
        let value = if key.0.is_none() { key.1 & !KERNEL_HANDLE } else { key.1 };
        self.values
            .get_mut(value / 4)
            .filter(|entry| value.is_multiple_of(4) && entry.is_some_and(|(process, _)| process == key.0))
    }

    fn get(&mut self, key: Key) -> Option<Handle> {
        self.entry(key)?.map(|(_, handle)| handle)
    }

    fn remove(&mut self, key: Key) -> Option<Handle> {
        let (_, handle) = self.entry(key)?.take()?;
        Some(handle)
    }
}

/// Where a handle is looked up, and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandleUse {
    pub(crate) handle: usize,
    pub(crate) user_mode: bool,
    pub(crate) access: ACCESS_MASK,
    pub(crate) object_type: Option<Type>,
}

/// What is known of a handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct HandleFacts {
    pub(crate) object: ObjId,
    pub(crate) access: ACCESS_MASK,
    pub(crate) attributes: u32,
}

/// A call of ZwDuplicateObject.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Duplication {
    /// The process that the handle is a handle of, and the one that the new one will be.
    pub(crate) processes: [u32; 2],
    pub(crate) handle: usize,
    pub(crate) user_mode: bool,
    pub(crate) access: ACCESS_MASK,
    pub(crate) attributes: u32,
    pub(crate) options: u32,
}

impl Kernel {
    /// Opens a handle to an object, in the kernel's table or in that of the running thread's process.
    pub(crate) fn open_handle(&mut self, id: ObjId, access: ACCESS_MASK, kernel: bool) -> Check<usize> {
        let attributes = if kernel { OBJ_KERNEL_HANDLE } else { 0 };
        self.open_handle_in(self.current_process(), id, access, attributes)
    }

    /// Opens a handle to an object in a process' table, or in the kernel's if the attributes say so.
    pub(super) fn open_handle_in(&mut self, process: u32, id: ObjId, access: ACCESS_MASK, attributes: u32) -> Check<usize> {
        self.reference_object(id, 1)?;
        let access = match self.ob.bodies.get_mut(id) {
            Some(body) => {
                body.handles += 1;
                body.object_type.granted(access)
            }
            None => access,
        };
        let kernel = attributes & OBJ_KERNEL_HANDLE != 0;
        let process = if kernel { None } else { Some(process) };
        Ok(self.ob.handles.insert(process, Handle { object: id, access, attributes }))
    }

    /// The process of the running thread.
    pub(crate) fn current_process(&self) -> u32 {
        self.current_thread().map_or(Self::SYSTEM_PROCESS, |tid| self.threads[tid as usize].process)
    }

    /// The table entry of a handle of a process, or of the kernel's.
    fn handle_key(process: u32, handle: usize) -> Key {
        if handle & KERNEL_HANDLE == KERNEL_HANDLE { (None, handle) } else { (Some(process), handle & !3) }
    }

    /// The object that a handle of the running thread's process, or of the kernel's, means now.
    pub(crate) fn object_of_handle(&mut self, handle: usize) -> Option<ObjId> {
        let key = Self::handle_key(self.current_process(), handle);
        self.pseudo_handle(handle).or_else(|| self.ob.handles.get(key).map(|entry| entry.object))
    }

    /// Closes a handle.
    pub(crate) fn close_handle(&mut self, handle: usize, user_mode: bool) -> Check<NTSTATUS> {
        let key = Self::handle_key(self.current_process(), handle);
        if user_mode && key.0.is_none() {
            return Ok(STATUS_INVALID_HANDLE);
        }
        self.close_entry(key)
    }

    fn close_entry(&mut self, key: Key) -> Check<NTSTATUS> {
        let Some(entry) = self.ob.handles.remove(key) else { return Ok(STATUS_INVALID_HANDLE) };
        if let Some(body) = self.ob.bodies.get_mut(entry.object) {
            body.handles -= 1;
            if body.handles == 0 && !body.permanent {
                self.drop_name(entry.object);
            }
        }
        self.dereference_object(entry.object, 1)?;
        Ok(0)
    }

    /// The object that a handle means to its user, with a reference; or the status that says why not.
    pub(crate) fn reference_handle(&mut self, request: HandleUse) -> Check<Result<ObjId, NTSTATUS>> {
        Ok(self.reference_handle_in(self.current_process(), request)?.map(|facts| facts.object))
    }

    /// [`reference_handle`](Self::reference_handle), with what else the handle's table tells.
    pub(crate) fn reference_handle_facts(&mut self, request: HandleUse) -> Check<Result<HandleFacts, NTSTATUS>> {
        self.reference_handle_in(self.current_process(), request)
    }

    fn reference_handle_in(&mut self, process: u32, request: HandleUse) -> Check<Result<HandleFacts, NTSTATUS>> {
        let HandleUse { handle, user_mode, access, object_type } = request;
        if let Some(id) = self.pseudo_handle(handle) {
            let found = self.type_of(id);
            if object_type.is_some() && object_type != found {
                return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
            }
            self.reference_object(id, 1)?;
            let access = found.map_or(0, |found| found.generic_mapping()[3]);
            return Ok(Ok(HandleFacts { object: id, access, attributes: 0 }));
        }
        let kernel_handle = handle & KERNEL_HANDLE == KERNEL_HANDLE;
        let rules = self.config.rules;
        let violation = |sub_code: u64, meaning: &'static str| {
            Violation::boxed(codes::DRIVER_VERIFIER_DETECTED_VIOLATION, [sub_code, handle as u64, 0, 0], meaning)
        };
        if user_mode {
            if kernel_handle {
                if !rules.has(RuleId::KernelHandle) {
                    return Ok(Err(STATUS_INVALID_HANDLE));
                }
                return Err(violation(
                    codes::verifier::KERNEL_HANDLE_AS_USER,
                    "a kernel handle was referenced with the user's access mode",
                ));
            }
        } else if handle == 0 {
            if !rules.has(RuleId::NullHandle) {
                return Ok(Err(STATUS_INVALID_HANDLE));
            }
            return Err(violation(codes::verifier::NULL_HANDLE, "a null handle was referenced in kernel mode"));
        } else if !kernel_handle && process != Self::SYSTEM_PROCESS && rules.has(RuleId::UserHandle) {
            return Err(violation(
                codes::verifier::USER_HANDLE_AS_KERNEL,
                "a handle of a user process was referenced in kernel mode, without its access checks",
            ));
        }
        let Some(entry) = self.ob.handles.get(Self::handle_key(process, handle)) else {
            if user_mode || !rules.has(RuleId::BadHandle) {
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
        Ok(Ok(HandleFacts { object: entry.object, access: entry.access, attributes: entry.attributes }))
    }

    /// NtCurrentProcess() and NtCurrentThread().
    fn pseudo_handle(&self, handle: usize) -> Option<ObjId> {
        match handle as isize {
            -1 => Some(self.ob.processes[self.current_process() as usize].object),
            -2 => self.current_thread().map(|tid| self.threads[tid as usize].object),
            _ => None,
        }
    }

    /// Makes another handle to the object of a handle. Returns the new one, or the status that says why there is none.
    pub(crate) fn duplicate_handle(&mut self, request: Duplication) -> Check<Result<usize, NTSTATUS>> {
        let [from, to] = request.processes;
        // Which handle it is, is said by its process: a user's handle may be duplicated by the kernel.
        let looked_up = HandleUse { handle: request.handle, user_mode: request.user_mode, access: 0, object_type: None };
        let known =
            self.pseudo_handle(request.handle).is_some() || self.ob.handles.get(Self::handle_key(from, request.handle)).is_some();
        let found = if known {
            let user_handle = request.handle & KERNEL_HANDLE != KERNEL_HANDLE;
            self.reference_handle_in(from, HandleUse { user_mode: request.user_mode || user_handle, ..looked_up })?
        } else {
            Err(STATUS_INVALID_HANDLE)
        };
        let result = match found {
            Ok(facts) => {
                let same_access = request.options & DUPLICATE_SAME_ACCESS != 0;
                let same_attributes = request.options & DUPLICATE_SAME_ATTRIBUTES != 0;
                let access = if same_access { facts.access } else { request.access };
                let attributes = if same_attributes { facts.attributes } else { request.attributes };
                let opened = self.open_handle_in(to, facts.object, access, attributes)?;
                self.dereference_object(facts.object, 1)?;
                Ok(opened)
            }
            Err(status) => Err(status),
        };
        if request.options & DUPLICATE_CLOSE_SOURCE != 0 && known {
            self.close_entry(Self::handle_key(from, request.handle))?;
        }
        Ok(result)
    }
}
