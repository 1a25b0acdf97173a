//! Callback objects: who wants to know of something registers a routine, and who knows calls them all (ExCreateCallback).
//!
//! A registration keeps a reference to its object, and is an object of the side table itself, so that a stale one is known for what it is.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use super::thread::Tid;
use ksync_sys::{CALLBACK_FUNCTION, CALLBACK_OBJECT, PVOID};

/// Bytes of a registration's memory, which is only there to have an address of its own.
const REGISTRATION_BYTES: usize = 32;

/// A callback object's state.
#[derive(Debug)]
pub(crate) struct CallbackState {
    /// More than one routine can be registered.
    multiple: bool,
    /// In the order in which they are called.
    registrations: Vec<ObjId>,
}

/// A routine that is registered.
#[derive(Debug)]
pub(crate) struct Registration {
    object: ObjId,
    routine: CALLBACK_FUNCTION,
    context: usize,
    /// How many calls of the routine are under way.
    calls: u32,
    /// Threads that wait in ExUnregisterCallback until it is 0. The routine is not called any more.
    waiting: Vec<Tid>,
}

/// A routine that is to be called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallbackCall {
    registration: ObjId,
    pub(crate) routine: CALLBACK_FUNCTION,
    pub(crate) context: PVOID,
}

impl Kernel {
    /// Makes fresh memory into a callback object.
    pub(crate) fn initialize_callback(&mut self, memory: *mut CALLBACK_OBJECT, multiple: bool) {
        let state = CallbackState { multiple, registrations: Vec::new() };
        self.objects.register(memory as usize, Kind::Callback(Box::new(state)));
    }

    /// The callback object at `pointer`.
    fn callback_at(&mut self, pointer: *mut CALLBACK_OBJECT) -> Check<ObjId> {
        self.object_of_kind(pointer, "callback object", |kind| matches!(kind, Kind::Callback(_)))
    }

    fn callback_state(&mut self, id: ObjId) -> &mut CallbackState {
        match &mut self.objects[id].kind {
            Kind::Callback(state) => state,
            _ => unreachable!("the caller found a callback object here"),
        }
    }

    fn registration(&mut self, id: ObjId) -> &mut Registration {
        match &mut self.objects[id].kind {
            Kind::Registration(registration) => registration,
            _ => unreachable!("a registration stays while it is called, waited for, or in its object's list"),
        }
    }

    /// Registers a routine. Returns the registration's address; 0 if the object has a routine and takes no other, or without memory.
    pub(crate) fn register_callback(
        &mut self,
        pointer: *mut CALLBACK_OBJECT,
        routine: CALLBACK_FUNCTION,
        context: PVOID,
    ) -> Check<usize> {
        let object = self.callback_at(pointer)?;
        let state = self.callback_state(object);
        if !state.multiple && !state.registrations.is_empty() {
            return Ok(0);
        }
        let Some(memory) = self.pool.allocate_for_system(REGISTRATION_BYTES, "CbRg") else { return Ok(0) };
        let registration = Registration { object, routine, context: context as usize, calls: 0, waiting: Vec::new() };
        let id = self.objects.register(memory, Kind::Registration(Box::new(registration)));
        self.reference_object(object, 1)?;
        self.callback_state(object).registrations.push(id);
        Ok(memory)
    }

    /// The next routine to call, behind the one that has returned. Routines that are registered meanwhile come last, and so are called too.
    pub(crate) fn next_callback(
        &mut self,
        pointer: *mut CALLBACK_OBJECT,
        returned: Option<CallbackCall>,
    ) -> Check<Option<CallbackCall>> {
        let object = self.callback_at(pointer)?;
        let all = self.callback_state(object).registrations.clone();
        let begin = match returned {
            // A registration stays in the list while its routine is called.
            Some(call) => all.iter().position(|&id| id == call.registration).map_or(all.len(), |at| at + 1),
            None => 0,
        };
        // Who waits for a routine to return would wait for this call as well.
        let next = all[begin..].iter().copied().find(|&id| self.registration(id).waiting.is_empty());
        let next = next.map(|id| {
            let registration = self.registration(id);
            registration.calls += 1;
            CallbackCall { registration: id, routine: registration.routine, context: registration.context as PVOID }
        });
        if let Some(call) = returned {
            let registration = self.registration(call.registration);
            registration.calls -= 1;
            let waiting = if registration.calls == 0 { std::mem::take(&mut registration.waiting) } else { Vec::new() };
            for tid in waiting {
                self.unpark(tid, call.registration);
            }
        }
        Ok(next)
    }

    /// Takes a registration back. False while its routine is called: the running thread then waits, and is to try again.
    pub(crate) fn unregister_callback(&mut self, pointer: PVOID) -> Check<bool> {
        let id = self.object_of_kind(pointer, "callback registration", |kind| matches!(kind, Kind::Registration(_)))?;
        let registration = self.registration(id);
        let object = registration.object;
        if registration.calls != 0 {
            let tid = self.this_thread();
            self.registration(id).waiting.push(tid);
            self.park(id, "a callback routine")?;
            return Ok(false);
        }
        self.callback_state(object).registrations.retain(|&other| other != id);
        self.objects.remove(id);
        self.pool.free_for_system(pointer as usize);
        self.dereference_object(object, 1)?;
        Ok(true)
    }

    /// Registers for processors that are added. Returns the registration's address; 0 without memory.
    pub(crate) fn register_processor_callback(&mut self) -> usize {
        let Some(memory) = self.pool.allocate_for_system(REGISTRATION_BYTES, "PrCb") else { return 0 };
        self.objects.register(memory, Kind::ProcessorRegistration);
        memory
    }

    /// Takes that back.
    pub(crate) fn deregister_processor_callback(&mut self, pointer: PVOID) -> Check<()> {
        let id =
            self.object_of_kind(pointer, "registration for processors", |kind| matches!(kind, Kind::ProcessorRegistration))?;
        self.objects.remove(id);
        self.pool.free_for_system(pointer as usize);
        Ok(())
    }
}
