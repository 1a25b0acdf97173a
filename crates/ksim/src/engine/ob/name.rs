//! Objects that the object manager makes itself, with or without a name.

use super::Type;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::object::{Kind, ObjId};
use crate::faults::FaultKind;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    ACCESS_MASK, NTSTATUS, OBJ_CASE_INSENSITIVE, OBJ_KERNEL_HANDLE, OBJ_OPENIF, OBJ_PERMANENT, STATUS_INSUFFICIENT_RESOURCES,
    STATUS_OBJECT_NAME_COLLISION, STATUS_OBJECT_NAME_EXISTS, STATUS_OBJECT_NAME_INVALID, STATUS_OBJECT_NAME_NOT_FOUND,
    STATUS_OBJECT_PATH_NOT_FOUND, STATUS_OBJECT_PATH_SYNTAX_BAD, STATUS_OBJECT_TYPE_MISMATCH, STATUS_SUCCESS,
};

/// The directories that there are. Objects can be put into each of them.
const DIRECTORIES: [&str; 7] = ["", "\\BaseNamedObjects", "\\KernelObjects", "\\Callback", "\\Device", "\\Driver", "\\GLOBAL??"];

/// What is said of an object that is to be made or opened: OBJECT_ATTRIBUTES, read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) name: Option<Vec<u16>>,
    /// `OBJ_...` flags.
    pub(crate) flags: u32,
}

/// An object that is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) object_type: Type,
    pub(crate) bytes: usize,
    pub(crate) access: ACCESS_MASK,
    pub(crate) attributes: Attributes,
}

const BACKSLASH: u16 = b'\\' as u16;

fn lower(name: &[u16]) -> String {
    String::from_utf16_lossy(name).to_lowercase()
}

/// Checks a full name.
fn check_name(name: &[u16]) -> Result<(), NTSTATUS> {
    if name.first() != Some(&BACKSLASH) {
        return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
    }
    let (directory, last) = match name.iter().rposition(|&unit| unit == BACKSLASH) {
        Some(position) => (&name[..position], &name[position + 1..]),
        None => return Err(STATUS_OBJECT_PATH_SYNTAX_BAD),
    };
    if last.is_empty() {
        return Err(STATUS_OBJECT_NAME_INVALID);
    }
    let directory = lower(directory);
    if DIRECTORIES.iter().any(|known| known.to_lowercase() == directory) { Ok(()) } else { Err(STATUS_OBJECT_PATH_NOT_FOUND) }
}

impl Kernel {
    /// The object with a name.
    fn by_name(&self, name: &[u16], flags: u32) -> Option<ObjId> {
        if flags & OBJ_CASE_INSENSITIVE == 0 {
            return self.ob.names.get(name).copied();
        }
        let wanted = lower(name);
        self.ob.names.iter().find(|(known, _)| lower(known) == wanted).map(|(_, &id)| id)
    }

    /// The object loses its name.
    pub(super) fn drop_name(&mut self, id: ObjId) {
        if let Some(name) = self.ob.bodies.get_mut(id).and_then(|body| body.name.take()) {
            self.ob.names.remove(&name);
        }
    }

    /// Makes an object, or opens one that has its name, and opens a handle to it. `init` makes the memory into the object.
    ///
    /// Returns the handle and how it went, or the status that says why there is none.
    pub(crate) fn create_object(
        &mut self,
        creation: Creation,
        init: impl FnOnce(&mut Self, usize) -> Check<()>,
    ) -> Check<Result<(usize, NTSTATUS), NTSTATUS>> {
        let Creation { object_type, bytes, access, attributes } = creation;
        let flags = attributes.flags;
        if let Some(name) = &attributes.name {
            if let Err(status) = check_name(name) {
                return Ok(Err(status));
            }
            if let Some(id) = self.by_name(name, flags) {
                if flags & OBJ_OPENIF == 0 {
                    return Ok(Err(STATUS_OBJECT_NAME_COLLISION));
                }
                if self.type_of(id) != Some(object_type) {
                    return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
                }
                let handle = self.open_handle(id, access, flags & OBJ_KERNEL_HANDLE != 0)?;
                return Ok(Ok((handle, STATUS_OBJECT_NAME_EXISTS)));
            }
        }
        if self.fails_to_create(FaultKind::Object) {
            return Ok(Err(STATUS_INSUFFICIENT_RESOURCES));
        }
        let Some(memory) = self.pool.allocate_for_system(bytes, object_type.name()) else {
            return Ok(Err(STATUS_INSUFFICIENT_RESOURCES));
        };
        init(self, memory)?;
        let id = self.object_at(memory as *const u8)?;
        self.ob.add_made(id, object_type, memory);
        let handle = self.open_handle(id, access, flags & OBJ_KERNEL_HANDLE != 0)?;
        if let Some(body) = self.ob.bodies.get_mut(id) {
            body.permanent = flags & OBJ_PERMANENT != 0;
            if body.permanent {
                // The directory's own, which nobody gives back.
                body.references += 1;
                body.own += 1;
            }
            body.name.clone_from(&attributes.name);
        }
        if let Some(name) = attributes.name {
            self.ob.names.insert(name, id);
        }
        // The maker's reference; the handle has its own.
        self.dereference_object(id, 1)?;
        Ok(Ok((handle, STATUS_SUCCESS)))
    }

    /// An object that was made to stay goes when its last handle is closed, or now if there is none.
    pub(crate) fn make_temporary(&mut self, id: ObjId) -> Check<()> {
        let Some(body) = self.ob.bodies.get_mut(id) else { return Ok(()) };
        if !std::mem::replace(&mut body.permanent, false) {
            return Ok(());
        }
        body.own -= 1;
        if body.handles == 0 {
            self.drop_name(id);
        }
        self.dereference_object(id, 1)?;
        Ok(())
    }

    /// Opens a handle to the object with a name.
    pub(crate) fn open_by_name(
        &mut self,
        object_type: Type,
        access: ACCESS_MASK,
        attributes: &Attributes,
    ) -> Check<Result<usize, NTSTATUS>> {
        let name = attributes.name.as_deref().unwrap_or_default();
        if let Err(status) = check_name(name) {
            return Ok(Err(status));
        }
        let Some(id) = self.by_name(name, attributes.flags) else { return Ok(Err(STATUS_OBJECT_NAME_NOT_FOUND)) };
        if self.type_of(id) != Some(object_type) {
            return Ok(Err(STATUS_OBJECT_TYPE_MISMATCH));
        }
        self.open_handle(id, access, attributes.flags & OBJ_KERNEL_HANDLE != 0).map(Ok)
    }

    /// The last reference is gone: so is the object, if the object manager made it. Above PASSIVE_LEVEL NT leaves that to a system thread.
    pub(super) fn delete_object(&mut self, id: ObjId) -> Check<()> {
        let Some(body) = self.ob.bodies.get(id) else { return Ok(()) };
        let (object_type, Some(memory)) = (body.object_type, body.memory) else { return Ok(()) };
        self.drop_name(id);
        self.ob.bodies.remove(id);
        match &self.objects[id].kind {
            Kind::Timer(_) => self.cancel_timer_of_handle(id)?,
            Kind::Mutant(state) if state.owner.is_some() => {
                self.abandon_mutant(id, 0)?;
            }
            _ => {}
        }
        if !self.objects[id].waiters.is_empty() {
            let address = self.objects[id].address as u64;
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::DELETED_WHILE_OWNED, address, memory as u64, 0],
                format!("{} was deleted while threads wait on it: who waits keeps a reference", object_type.name()),
            ));
        }
        self.objects.remove(id);
        self.pool.free_for_system(memory);
        Ok(())
    }
}
