//! Running images, on the host whose machine code they have.

pub(crate) mod arena;
pub(crate) mod context;
pub(crate) mod entry;
pub(crate) mod exception;
mod fault;
pub(crate) mod guarded;
mod level;
mod mapping;
mod paging;
mod patch;
mod processor;
mod shared_data;
mod signal;
mod time_stamp;
mod unwind;
mod variables;

pub(crate) use entry::{Adapter, Arguments, CallFrame, boundary, returned, through};
pub(crate) use exception::not_handled;
pub(crate) use fault::refused;
pub(crate) use mapping::stub_of;
pub(crate) use shared_data::FEATURES;
pub(crate) use signal::{emergency_stack, prepare as prepare_signals};
pub(crate) use variables::{CANCEL_LOCK, QUEUED_LOCKS};

use super::{Image, Module, Place};
use crate::access::Access;
use crate::engine::Kernel;
use crate::irql::DISPATCH_LEVEL;
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};
use exception::{Dispatch, Exception};
use ksync_sys::STATUS_ACCESS_VIOLATION;
use mapping::Mapping;
use processor::Processors;
use shared_data::SharedData;
use std::cell::{Cell, Ref, RefCell, RefMut};
use std::convert::Infallible;
use std::io;
use std::panic::resume_unwind;
use std::ptr::null_mut;
use std::sync::Arc;
use variables::Variables;

/// What a context has under way in images, which is its own: it is kept when it suspends.
#[derive(Clone, Copy)]
pub(crate) struct Activity {
    frame: *mut CallFrame,
    dispatch: *const Dispatch,
}

impl Activity {
    /// What a fresh context has.
    pub(crate) const NONE: Self = Self { frame: null_mut(), dispatch: std::ptr::null() };
}

/// The images of one machine.
#[derive(Default)]
pub(crate) struct MachineImages {
    /// The innermost call of an import that the running context has under way.
    pub(crate) frame: Cell<*mut CallFrame>,
    /// The innermost search for a handler that the running context has under way.
    pub(crate) dispatch: Cell<*const Dispatch>,
    /// An image has pageable code, so that calls from it are looked at.
    pub(crate) checks_paging: Cell<bool>,
    /// Pageable sections and paged pool are taken away at raised levels.
    pub(crate) forces_paging: Cell<bool>,
    loaded: Cell<bool>,
    /// One of these two: what is to be done before a context runs.
    enters: Cell<bool>,
    /// How far down the running stack an image may call the kernel.
    pub(crate) stack_floor: Cell<usize>,
    /// An unwinding that has left a routine of a driver, and is to pass what called that.
    crossing: Cell<Option<Box<entry::Crossing>>>,
    /// The state of `rand`, once `srand` or `rand` was called.
    pub(crate) random: Cell<Option<u32>>,
    /// The words for the exception whose handler is searched for.
    meaning: RefCell<String>,
    state: RefCell<Option<State>>,
}

/// True for a variable that the kernel exports.
pub(crate) fn is_variable(name: &str) -> bool {
    Variables::NAMES.contains(&name) || crate::exports::variable(name).is_some()
}

/// The names of the variables that are a machine's own.
#[cfg(test)]
pub(crate) fn variable_names() -> impl Iterator<Item = &'static str> {
    Variables::NAMES.into_iter()
}

/// What there is once an image is loaded.
pub(crate) struct State {
    /// By load order. An unloaded image stays, inaccessible, so that late calls are known for what they are.
    pub(crate) mappings: Vec<Mapping>,
    pub(crate) processors: Processors,
    pub(crate) shared_data: SharedData,
    /// The driver reads virtual time where it reads the time stamp counter.
    time_stamps: Option<time_stamp::Trap>,
    /// The pageable sections and paged pool are not there.
    pub(super) paged_out: bool,
    pub(crate) variables: Box<Variables>,
}

/// An image that is loaded, by its number.
pub(crate) type MappingId = usize;

impl MachineImages {
    /// Maps an image and binds its imports.
    pub(crate) fn map(&self, call: Call, image: &Image, name: &str) -> io::Result<MappingId> {
        signal::prepare_for_images()?;
        let mut state = self.state.borrow_mut();
        if state.is_none() {
            let variables = call.read(|kernel| Box::new(Variables::new(kernel)));
            let shared_data = SharedData::new()?;
            let processors = call.read(Processors::new)?;
            *state =
                Some(State { mappings: Vec::new(), processors, shared_data, time_stamps: None, paged_out: false, variables });
            self.loaded.set(true);
            self.enters.set(true);
        }
        let state = state.as_mut().expect("it was made above");
        let module = Arc::new(Module { name: name.to_owned(), file: image.file.clone() });
        let mapping = Mapping::new(module, &state.variables)?;
        if mapping.file.sections.iter().any(|section| section.pageable && section.executable) {
            self.checks_paging.set(true);
        }
        if state.time_stamps.is_none()
            && mapping.file.reads_time_stamps.get_or_init(|| time_stamp::occurs(&mapping.file)) == &true
        {
            state.time_stamps = time_stamp::Trap::set();
        }
        state.mappings.push(mapping);
        let id = state.mappings.len() - 1;
        call.read(|kernel| {
            state.enter(kernel);
            self.stack_floor.set(kernel.driver_stack().start);
        });
        Ok(id)
    }

    /// A context of the machine is about to run: the processor block is that of its processor.
    #[inline]
    pub(crate) fn enter(&self, kernel: &RefCell<Box<Kernel>>) {
        if self.enters.get() {
            self.prepare(kernel);
        }
    }

    #[inline(never)]
    fn prepare(&self, kernel: &RefCell<Box<Kernel>>) {
        let mut kernel = kernel.borrow_mut();
        let mut state = self.state.borrow_mut();
        if let Some(state) = state.as_mut() {
            state.enter(&mut kernel);
            self.stack_floor.set(kernel.driver_stack().start);
        }
        if self.forces_paging.get() {
            // What the context does within the kernel, too, is at the level of its processor.
            paging::settle_for(state.as_mut(), &mut kernel);
        }
    }

    /// From now on, what is pageable is taken away at raised levels.
    pub(crate) fn force_paging(&self) {
        self.forces_paging.set(true);
        self.enters.set(true);
    }

    /// What the running context has under way.
    #[inline]
    pub(crate) fn activity(&self) -> Activity {
        Activity { frame: self.frame.get(), dispatch: self.dispatch.get() }
    }

    /// The running context goes on with this.
    #[inline]
    pub(crate) fn set_activity(&self, activity: Activity) {
        self.frame.set(activity.frame);
        self.dispatch.set(activity.dispatch);
    }

    /// True when an import of an image is what the running context executes.
    pub(crate) fn in_call(&self) -> bool {
        !self.frame.get().is_null()
    }

    /// One of the system's queued spin locks, which only images use.
    pub(crate) fn queued_lock(&self, number: usize) -> *mut ksync_sys::KSPIN_LOCK {
        self.state_mut().expect("an image calls, so that one is loaded").variables.queued_lock(number)
    }

    /// The state, once an image is loaded.
    pub(crate) fn state(&self) -> Option<Ref<'_, State>> {
        Ref::filter_map(self.state.borrow(), Option::as_ref).ok()
    }

    pub(crate) fn state_mut(&self) -> Option<RefMut<'_, State>> {
        RefMut::filter_map(self.state.borrow_mut(), Option::as_mut).ok()
    }

    /// `DriverEntry` has returned: what is for it alone goes away.
    pub(crate) fn discard_init(&self, id: MappingId) {
        if let Some(mut state) = self.state_mut() {
            state.mappings[id].discard_init();
        }
    }

    /// The driver was unloaded.
    pub(crate) fn unload(&self, id: MappingId) {
        if let Some(mut state) = self.state_mut() {
            state.mappings[id].unload();
        }
    }

    /// Where an image is, and its size and entry point.
    pub(crate) fn place(&self, id: MappingId) -> (usize, u32, usize) {
        let state = self.state().expect("an image is loaded");
        let mapping = &state.mappings[id];
        (mapping.base(), mapping.file.layout.len() as u32, mapping.base() + mapping.file.entry as usize)
    }

    /// The places of driver code at the innermost call of an import, innermost first.
    pub(crate) fn places(&self) -> Vec<Place> {
        let frame = self.frame.get();
        if frame.is_null() {
            return Vec::new();
        }
        // SAFETY: a frame is valid while its call is under way.
        let context = unsafe { &*frame }.context();
        self.places_from(&context, true)
    }

    /// The places of driver code from a set of registers outward.
    pub(crate) fn places_from(&self, context: &context::Context, after_call: bool) -> Vec<Place> {
        // Within a change of the state there is no driver code to name.
        let Ok(state) = self.state.try_borrow() else { return Vec::new() };
        state.as_ref().map(|state| unwind::places(state, context, after_call)).unwrap_or_default()
    }

    /// The address of a place.
    pub(crate) fn address_of(&self, place: &Place) -> u64 {
        let state = self.state();
        let mapping = state.as_ref().and_then(|state| state.mappings.iter().find(|mapping| mapping.is(&place.module)));
        mapping.map_or(0, |mapping| mapping.base() as u64 + u64::from(place.rva))
    }

    /// A routine raises an exception: an image that called it may handle it.
    pub(crate) fn raise(&self, fault: Violation) -> Result<Infallible, Violation> {
        match fault.raised {
            Some(status) if self.in_call() => {
                // Unwinds the routine's own frames, up to where the image called.
                resume_unwind(Box::new(entry::Raise(Exception::raised(status, fault.meaning.into_owned()))))
            }
            _ => Err(fault),
        }
    }
}

impl State {
    /// The image that an address is in.
    pub(crate) fn mapping_at(&self, address: u64) -> Option<&Mapping> {
        self.mappings.iter().find(|mapping| mapping.contains(address))
    }

    fn enter(&mut self, kernel: &mut Kernel) {
        self.processors.enter(kernel);
        self.variables.update(kernel);
    }
}

/// True for an address in the code of an image.
pub(crate) fn is_in_image(address: u64) -> bool {
    arena::contains(address as usize)
}

/// Raises an exception in the driver that has called.
pub(crate) fn raise(exception: Exception) -> ! {
    resume_unwind(Box::new(entry::Raise(exception)))
}

/// A routine that a driver called met a bad address: an access violation there, or a bug check where those are not handled.
#[cold]
pub(crate) fn raise_bad_address(call: Call, bad: guarded::BadAddress) -> ! {
    let irql = call.read(|kernel| kernel.irql());
    let write = u64::from(bad.write);
    let access = if bad.write { Access::Write } else { Access::Read };
    if let Some(violation) = fault::passed_pool(call, bad.address, access, 0) {
        call.fail(violation);
    }
    let meaning = fault::passed(call, bad.address, bad.write);
    if irql >= DISPATCH_LEVEL {
        let parameters = [bad.address, u64::from(irql), write, 0];
        call.fail(Violation::boxed_owned(codes::IRQL_NOT_LESS_OR_EQUAL, parameters, meaning));
    }
    let record = context::ExceptionRecord::new(STATUS_ACCESS_VIOLATION, 0, &[write, bad.address]);
    raise(Exception::new(record, exception::not_handled(STATUS_ACCESS_VIOLATION, &meaning)))
}

/// Unwinds one frame for a driver that does so itself. Returns the establisher frame, the handler's data, and the handler.
pub(crate) fn unwind_frame(call: Call, context: &mut context::Context, wanted: u32, base: u64) -> (u64, u64, u64) {
    let Some(state) = call.cell.images.state() else { return (0, 0, 0) };
    let Some(mapping) = state.mapping_at(context.rip).filter(|mapping| mapping.base() as u64 == base) else { return (0, 0, 0) };
    match unwind::unwind(mapping, context, wanted) {
        Ok(frame) => {
            let (handler, data) =
                frame.handler.map_or((0, 0), |(handler, data)| (base + u64::from(handler), base + u64::from(data)));
            (frame.establisher, data, handler)
        }
        Err(_) => {
            context.rip = 0;
            (0, 0, 0)
        }
    }
}

/// A routine of an image is about to be called.
#[inline]
pub(crate) fn before_routine() {
    if current("an image").images.forces_paging.get() {
        paging::settle();
    }
}

/// A routine that a driver named must be where code can be.
#[inline]
pub(crate) fn check_routine(address: usize) {
    const USER_BITS: u32 = 47;
    if address >> USER_BITS != 0 {
        bad_routine(address);
    }
}

#[cold]
fn bad_routine(address: usize) -> ! {
    let call = Call { cell: crate::machine::current("a driver's routine"), export: None };
    let status = u64::from(STATUS_ACCESS_VIOLATION as u32);
    call.fail(Violation::boxed_owned(
        codes::KMODE_EXCEPTION_NOT_HANDLED,
        [status, address as u64, 8, address as u64],
        format!("a driver named a routine at {address:#x}, where no code can be"),
    ))
}
