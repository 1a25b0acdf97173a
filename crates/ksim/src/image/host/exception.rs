//! Structured exceptions: the search for a handler among a driver's frames, and the transfer to it.
//!
//! A search covers the frames from the exception up to where the kernel called the driver, and if that was in a call by a driver whose NT routine has no handler of its own, the frames
//! beyond (see [`through`](super::through)). What no handler there takes is a bug check. The kernel's frames in between are unwound as by a panic: the unwinding lets the
//! driver's routine return, and what called it goes on with the unwinding.
//!
//! Handlers may raise exceptions, too. What a filter raises is searched for among the filter's frames, and then from the first exception on, by `EXCEPTION_NESTED_CALL` up to the frame
//! that the filter was called for (NT's ExceptionNestedException). What a termination handler raises goes on where the unwinding stands that has called it, past what has run of
//! that frame (ExceptionCollidedUnwind).

use super::context::{
    Context, DispatcherContext, EXCEPTION_COLLIDED_UNWIND, EXCEPTION_EXIT_UNWIND, EXCEPTION_NESTED_CALL,
    EXCEPTION_NONCONTINUABLE, EXCEPTION_TARGET_UNWIND, EXCEPTION_UNWINDING, ExceptionPointers, ExceptionRecord, RAX,
};
use super::entry::{CallFrame, Crossing, resume, through};
use super::unwind::{Broken, EXCEPTION_HANDLER, Frame, UNWIND_HANDLER, most_frames, unwind};
use super::{Activity, State};
use crate::machine::{Call, current};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::NTSTATUS;

/// The direction, trap and alignment check flags, which are off where Rust code runs.
const ODD_FLAGS: u32 = 0x4_0500;

/// Answers of a handler.
const CONTINUE_EXECUTION: i32 = 0;
pub(crate) const CONTINUE_SEARCH: i32 = 1;

const STATUS_NONCONTINUABLE_EXCEPTION: NTSTATUS = 0xc000_0025_u32 as i32;
const STATUS_INVALID_DISPOSITION: NTSTATUS = 0xc000_0026_u32 as i32;
const STATUS_BAD_FUNCTION_TABLE: NTSTATUS = 0xc000_00ff_u32 as i32;
const STATUS_BAD_STACK: NTSTATUS = 0xc000_0028_u32 as i32;
const STATUS_INVALID_UNWIND_TARGET: NTSTATUS = 0xc000_0029_u32 as i32;

/// An exception, with what it is in words.
#[derive(Clone, Debug)]
pub(crate) struct Exception {
    pub(crate) record: ExceptionRecord,
    pub(crate) meaning: String,
}

// SAFETY: the record's pointer is null: exceptions that nest are linked by the search for their handlers, which has its own records.
unsafe impl Send for Exception {}

impl Exception {
    pub(crate) fn new(record: ExceptionRecord, meaning: impl Into<String>) -> Self {
        Self { record, meaning: meaning.into() }
    }

    /// One that a kernel routine raises: it cannot be continued. Where it is from is known when it gets to the driver.
    pub(crate) fn raised(status: NTSTATUS, meaning: impl Into<String>) -> Self {
        let mut record = ExceptionRecord::new(status, 0, &[]);
        record.flags = EXCEPTION_NONCONTINUABLE;
        Self::new(record, meaning)
    }

    /// What it is when no handler takes it.
    fn violation(record: &ExceptionRecord, meaning: String) -> Violation {
        let parameters = [u64::from(record.code), record.address, record.information[0], record.information[1]];
        *Violation::boxed_owned(codes::KMODE_EXCEPTION_NOT_HANDLED, parameters, meaning)
    }
}

/// The words for an exception that no handler took.
pub(crate) fn not_handled(status: NTSTATUS, meaning: &str) -> String {
    let name = ksync_sys::status_name(status).unwrap_or("an exception");
    format!("{name} ({status:#010x}) was raised and not handled: {meaning}")
}

/// A search or an unwinding that has called a handler of the driver.
pub(crate) struct Dispatch {
    /// What is under way once it is gone.
    activity: Activity,
    pass: Pass,
}

/// What an exception in a handler needs of what has called that.
#[derive(Clone, Copy)]
enum Pass {
    /// A search: the registers at the exception, and the frame that the handler is of.
    Search { context: *const Context, establisher: u64 },
    /// An unwinding: the frame that the handler is of, and its caller's registers.
    Unwinding { step: Step, caller: *const Context, dispatcher: *const DispatcherContext },
}

/// The routine that a driver's function names in its unwind information.
type LanguageHandler = unsafe extern "win64" fn(*mut ExceptionRecord, u64, *mut Context, *mut DispatcherContext) -> i32;

/// An exception that a call of an import raised.
///
/// # Safety
/// `frame` is the frame of that call, nothing of which is left to be done.
#[cold]
pub(super) unsafe fn raise_from_call(frame: *mut CallFrame, mut exception: Exception) -> ! {
    // SAFETY: by this function's contract.
    let frame = unsafe { &*frame };
    let context = frame.context();
    if exception.record.address == 0 {
        exception.record.address = frame.return_address();
    }
    let images = &current("an image").images;
    let activity = Activity { frame: frame.previous(), dispatch: images.dispatch.get() };
    // SAFETY: by this function's contract.
    unsafe { dispatch(&context, exception, activity) }
}

/// Searches for a handler and goes on there, or stops the machine. `activity` is what is under way once the frames below the
/// exception are gone.
///
/// # Safety
/// The registers are those of driver code on the running stack, below which nothing is left to be done.
pub(super) unsafe fn dispatch(context: &Context, mut exception: Exception, activity: Activity) -> ! {
    let call = Call { cell: current("an image"), export: None };
    let images = &call.cell.images;
    // Nothing that would have to be dropped may be left here when a handler takes over.
    images.meaning.replace(std::mem::take(&mut exception.meaning));
    // The handlers run at the level that the exception was raised at.
    if images.forces_paging.get() {
        super::paging::settle();
    }
    let mut changed = *context;
    let found = call_handlers(call, context, &mut changed, &mut exception.record, activity);
    images.dispatch.set(activity.dispatch);
    match found {
        Ok(()) if exception.record.flags & EXCEPTION_NONCONTINUABLE == 0 => {
            images.set_activity(activity);
            // SAFETY: a filter has looked at the registers, and wants the driver to go on with them.
            unsafe { resume(&raw const changed) }
        }
        Ok(()) => fail_search(call, &mut exception.record, STATUS_NONCONTINUABLE_EXCEPTION),
        Err(None) => {}
        Err(Some(status)) => fail_search(call, &mut exception.record, status),
    }
    let meaning = images.meaning.take();
    let after_call = exception.record.address == context.rip && exception.record.flags & EXCEPTION_NONCONTINUABLE != 0;
    let places = images.places_from(context, after_call);
    call.cell.stop_at(Exception::violation(&exception.record, meaning), places)
}

/// What is beyond the driver's frames.
enum Beyond {
    /// A call of an import that exceptions pass.
    Call(*mut CallFrame),
    /// What has called a handler.
    Handler(*const Dispatch),
}

/// What has called the driver's outermost frame, if exceptions pass that.
fn beyond(activity: Activity) -> Option<Beyond> {
    // Both are on the running stack, which grows down: the lower one is the inner one.
    let is_handler =
        !activity.dispatch.is_null() && (activity.frame.is_null() || activity.dispatch.addr() < activity.frame.addr());
    if is_handler {
        return Some(Beyond::Handler(activity.dispatch));
    }
    // SAFETY: a frame is valid while its call is under way.
    unsafe { activity.frame.as_ref() }.filter(|frame| frame.is_passable()).map(|_| Beyond::Call(activity.frame))
}

/// The search itself went wrong.
fn fail_search(call: Call, record: &mut ExceptionRecord, status: NTSTATUS) {
    record.code = status as u32;
    let name = ksync_sys::status_name(status).unwrap_or("the search for its handler failed");
    call.cell.images.meaning.borrow_mut().push_str(&format!("; then {name} ({status:#010x})"));
}

/// The image's part in a frame, copied out: handlers run while nothing is borrowed.
#[derive(Clone, Copy)]
struct Step {
    frame: Frame,
    base: u64,
    pc: u64,
}

fn step(state: &State, context: &mut Context, wanted: u32) -> Option<Result<Step, Broken>> {
    let pc = context.rip;
    let mapping = state.mapping_at(pc)?;
    let base = mapping.base() as u64;
    Some(unwind(mapping, context, wanted).map(|frame| Step { frame, base, pc }))
}

fn status_of(broken: Broken) -> NTSTATUS {
    match broken {
        Broken::Information => STATUS_BAD_FUNCTION_TABLE,
        Broken::Stack => STATUS_BAD_STACK,
    }
}

/// RtlRestoreContext: goes on with other registers, in a frame of the driver that is still there.
pub(crate) fn restore(call: Call, context: &Context) -> ! {
    let images = &call.cell.images;
    let frame = images.frame.get();
    // SAFETY: a frame is valid while its call is under way.
    let called_from = unsafe { frame.as_ref() }.map_or(0, |frame| frame.context().rsp());
    if context.rsp() < called_from {
        let meaning = "a driver restored registers whose frame is gone, or not on this stack";
        call.fail(Violation::boxed(
            codes::KMODE_EXCEPTION_NOT_HANDLED,
            [u64::from(STATUS_BAD_STACK as u32), context.rip, 0, 0],
            meaning,
        ));
    }
    let mut activity = images.activity();
    loop {
        let (frame, dispatch) = (activity.frame, activity.dispatch);
        if !dispatch.is_null() && (dispatch.addr() as u64) < context.rsp() {
            // SAFETY: it has called what runs, so that it is still there.
            activity = unsafe { (*dispatch).activity };
        } else if !frame.is_null() && (frame.addr() as u64) < context.rsp() {
            // SAFETY: a frame is valid while its call is under way.
            activity.frame = unsafe { (*frame).previous() };
        } else {
            break;
        }
    }
    images.set_activity(activity);
    // SAFETY: the driver vouches for the registers, whose frame is above everything that runs.
    unsafe { resume(std::ptr::from_ref(context)) }
}

/// The first pass. A handler that takes the exception does not return here. `Ok` when one wants the driver to go on, `Err(None)` when none
/// wants anything.
fn call_handlers(
    call: Call,
    start: &Context,
    changed: &mut Context,
    record: &mut ExceptionRecord,
    mut activity: Activity,
) -> Result<(), Option<NTSTATUS>> {
    let images = &call.cell.images;
    let mut search = Dispatch { activity, pass: Pass::Search { context: start, establisher: 0 } };
    let mut frame_context = *start;
    let mut lowest = 0;
    // The outermost frame that an earlier search is at which this one is nested in.
    let mut nested = 0;
    for _ in 0..most_frames() {
        let mut scope_index = 0;
        let step = loop {
            let found = images.state().and_then(|state| step(&state, &mut frame_context, EXCEPTION_HANDLER));
            match found {
                Some(Ok(step)) => break step,
                Some(Err(broken)) => return Err(Some(status_of(broken))),
                None => {}
            }
            match beyond(activity).ok_or(None)? {
                Beyond::Call(frame) => {
                    // SAFETY: a frame is valid while its call is under way.
                    let frame = unsafe { &*frame };
                    activity.frame = frame.previous();
                    frame_context = frame.context();
                }
                Beyond::Handler(dispatch) => {
                    // SAFETY: it has called the handler, so that it is still there; here and below.
                    let dispatch = unsafe { &*dispatch };
                    activity = dispatch.activity;
                    match dispatch.pass {
                        Pass::Search { context, establisher } => {
                            // SAFETY: as above.
                            frame_context = unsafe { *context };
                            record.flags |= EXCEPTION_NESTED_CALL;
                            nested = nested.max(establisher);
                        }
                        Pass::Unwinding { step, caller, dispatcher } => {
                            // SAFETY: as above.
                            frame_context = unsafe { *caller };
                            // SAFETY: as above.
                            scope_index = unsafe { (*dispatcher).scope_index };
                            break step;
                        }
                    }
                }
            }
        };
        if frame_context.rsp() <= lowest {
            return Err(Some(STATUS_BAD_STACK));
        }
        lowest = frame_context.rsp();
        if step.frame.handler.is_none() {
            continue;
        }
        let establisher = step.frame.establisher;
        search.pass = Pass::Search { context: start, establisher };
        images.dispatch.set(&raw const search);
        let mut dispatcher = dispatcher_context(&step, &raw mut *changed, 0);
        dispatcher.scope_index = scope_index;
        let disposition = call_handler(&step, record, &raw mut *changed, &raw mut dispatcher);
        if nested == establisher {
            record.flags &= !EXCEPTION_NESTED_CALL;
            nested = 0;
        }
        match disposition {
            CONTINUE_EXECUTION => return Ok(()),
            CONTINUE_SEARCH => {}
            _ => return Err(Some(STATUS_INVALID_DISPOSITION)),
        }
    }
    Err(Some(STATUS_BAD_STACK))
}

fn dispatcher_context(step: &Step, context: *mut Context, target_ip: u64) -> DispatcherContext {
    let (handler, data) = step.frame.handler.unwrap_or_default();
    DispatcherContext {
        control_pc: step.pc,
        image_base: step.base,
        function_entry: step.frame.function.map_or(0, |function| step.base + u64::from(function.entry)),
        establisher_frame: step.frame.establisher,
        target_ip,
        context,
        language_handler: step.base + u64::from(handler),
        handler_data: step.base + u64::from(data),
        history: 0,
        scope_index: 0,
        fill: 0,
    }
}

/// Calls the handler of a frame that has one.
fn call_handler(step: &Step, record: &mut ExceptionRecord, context: *mut Context, dispatcher: *mut DispatcherContext) -> i32 {
    let handler = step.frame.handler.map_or(0, |(handler, _)| step.base + u64::from(handler));
    let address = handler as *const ();
    // SAFETY: the image names a routine of this type there. If that is no code, the call is a fault like any of the driver's.
    let handler: LanguageHandler = unsafe { std::mem::transmute(address) };
    // SAFETY: as above; what is passed outlives the call.
    unsafe { handler(&raw mut *record, step.frame.establisher, context, dispatcher) }
}

/// Where an unwinding goes to.
#[derive(Clone, Copy, Debug)]
enum Target<'a> {
    /// A frame, and the place in its function where it goes on; a place of 0 is where it called. No frame is left to find for frame 0.
    Frame { frame: u64, ip: u64, value: u64 },
    /// The frame that these registers are of, which goes on with them: `longjmp`.
    Jump(&'a Context),
}

/// The same, for when the frame that keeps the registers goes away.
#[derive(Debug)]
pub(crate) enum OwnedTarget {
    Frame { frame: u64, ip: u64, value: u64 },
    Jump(Box<Context>),
}

impl Target<'_> {
    fn ip(&self) -> u64 {
        match self {
            Self::Frame { ip, .. } => *ip,
            Self::Jump(context) => context.rip,
        }
    }

    fn value(&self) -> u64 {
        match self {
            Self::Frame { value, .. } => *value,
            Self::Jump(context) => context.gpr[RAX],
        }
    }

    /// Whether a frame is the target. `Err` when that lies further down.
    fn is(&self, establisher: u64, caller: &Context) -> Result<bool, ()> {
        match self {
            Self::Frame { frame: 0, .. } => Ok(false),
            Self::Frame { frame, .. } if establisher > *frame => Err(()),
            Self::Frame { frame, .. } => Ok(establisher == *frame),
            // The stack pointer after the call of `setjmp` is within the frame that called it.
            Self::Jump(context) => Ok(caller.rsp() > context.rsp()),
        }
    }

    /// The registers that the target goes on with.
    fn registers(&self, unwound: &Context) -> Context {
        match self {
            Self::Frame { ip, value, .. } => {
                let mut context = *unwound;
                context.gpr[RAX] = *value;
                if *ip != 0 {
                    context.rip = *ip;
                }
                context
            }
            Self::Jump(context) => **context,
        }
    }

    fn owned(&self) -> OwnedTarget {
        match *self {
            Self::Frame { frame, ip, value } => OwnedTarget::Frame { frame, ip, value },
            Self::Jump(context) => OwnedTarget::Jump(Box::new(*context)),
        }
    }
}

/// RtlUnwindEx: the second pass. Calls the handlers of all frames below the target, and goes on in the target.
///
/// # Safety
/// The driver may be unwound so far: it was a handler of a frame at or above the target that asked for it, on the running stack. Nothing of
/// the caller's own frames is left to be done.
pub(crate) unsafe fn unwind_to(
    call: Call,
    target_frame: u64,
    target_ip: u64,
    record: Option<ExceptionRecord>,
    return_value: u64,
    start: Context,
) -> ! {
    let record = record.unwrap_or_else(|| ExceptionRecord::new(0xc000_0027_u32 as i32, start.rip, &[]));
    let target = Target::Frame { frame: target_frame, ip: target_ip, value: return_value };
    // SAFETY: by this function's contract.
    unsafe { unwind_frames(call, &target, record, start, at_call(call)) }
}

/// `longjmp`: as [`unwind_to`], to the frame of a set of registers.
///
/// # Safety
/// As for [`unwind_to`].
pub(crate) unsafe fn jump_to(call: Call, to: Context, record: ExceptionRecord, start: Context) -> ! {
    if to.rsp() < start.rsp() {
        // The frame is gone, or belongs to another stack.
        restore(call, &to);
    }
    // SAFETY: by this function's contract.
    unsafe { unwind_frames(call, &Target::Jump(&to), record, start, at_call(call)) }
}

/// An unwinding that has passed a call of an import goes on with the frames that made the call.
///
/// # Safety
/// `frame` is the frame of that call, nothing of which is left to be done.
#[cold]
pub(super) unsafe fn cross_call(frame: *mut CallFrame, crossing: Crossing) -> ! {
    let call = Call { cell: current("an image"), export: None };
    // SAFETY: by this function's contract.
    let frame = unsafe { &*frame };
    let activity = Activity { frame: frame.previous(), dispatch: call.cell.images.dispatch.get() };
    let Crossing { target, record } = crossing;
    match target {
        OwnedTarget::Frame { frame: wanted, ip, value } => {
            let target = Target::Frame { frame: wanted, ip, value };
            // SAFETY: by this function's contract.
            unsafe { unwind_frames(call, &target, record, frame.context(), activity) }
        }
        OwnedTarget::Jump(registers) => {
            // Nothing that would have to be dropped may be left.
            let copy = *registers;
            drop(registers);
            // SAFETY: as above.
            unsafe { unwind_frames(call, &Target::Jump(&copy), record, frame.context(), activity) }
        }
    }
}

/// What is under way where a driver asks for an unwinding, once its call is gone.
fn at_call(call: Call) -> Activity {
    let images = &call.cell.images;
    // SAFETY: a frame is valid while its call is under way.
    let previous = unsafe { images.frame.get().as_ref() }.map_or(std::ptr::null_mut(), CallFrame::previous);
    Activity { frame: previous, dispatch: images.dispatch.get() }
}

/// # Safety
/// As for [`unwind_to`]. `context` has the registers of the innermost frame of the driver, and `activity` is what is under way once the frames up to the next call are gone.
unsafe fn unwind_frames(
    call: Call,
    target: &Target<'_>,
    mut record: ExceptionRecord,
    mut context: Context,
    mut activity: Activity,
) -> ! {
    let images = &call.cell.images;
    record.flags |= EXCEPTION_UNWINDING;
    if matches!(target, Target::Frame { frame: 0, .. }) {
        record.flags |= EXCEPTION_EXIT_UNWIND;
    }
    let failure = loop {
        let mut caller = context;
        let mut scope_index = 0;
        let found = images.state().and_then(|state| step(&state, &mut caller, UNWIND_HANDLER));
        let step = match found {
            Some(Ok(step)) => step,
            Some(Err(broken)) => break status_of(broken),
            None => match beyond(activity) {
                None => break STATUS_INVALID_UNWIND_TARGET,
                Some(Beyond::Call(_)) => {
                    images.crossing.set(Some(Box::new(Crossing { target: target.owned(), record })));
                    images.set_activity(activity);
                    context.eflags &= !ODD_FLAGS;
                    // SAFETY: the registers are those that the routine returns with, and where it returns to looks at what is to be done.
                    unsafe { resume(&raw const context) }
                }
                Some(Beyond::Handler(dispatch)) => {
                    // SAFETY: it has called the handler, so that it is still there; here and below.
                    let dispatch = unsafe { &*dispatch };
                    activity = dispatch.activity;
                    match dispatch.pass {
                        Pass::Search { context: start, .. } => {
                            // SAFETY: as above.
                            context = unsafe { *start };
                            continue;
                        }
                        Pass::Unwinding { step, caller: beyond, dispatcher } => {
                            // SAFETY: as above.
                            caller = unsafe { *beyond };
                            // SAFETY: as above.
                            let dispatcher = unsafe { *dispatcher };
                            // SAFETY: as above.
                            context = unsafe { *dispatcher.context };
                            scope_index = dispatcher.scope_index;
                            record.flags |= EXCEPTION_COLLIDED_UNWIND;
                            step
                        }
                    }
                }
            },
        };
        let is_target = match target.is(step.frame.establisher, &caller) {
            Ok(is_target) if caller.rsp() > context.rsp() => is_target,
            _ => break STATUS_INVALID_UNWIND_TARGET,
        };
        if step.frame.handler.is_some() {
            if is_target {
                record.flags |= EXCEPTION_TARGET_UNWIND;
            }
            context.gpr[RAX] = target.value();
            let mut dispatcher = dispatcher_context(&step, &raw mut context, target.ip());
            dispatcher.scope_index = scope_index;
            let dispatcher = &raw mut dispatcher;
            let unwinding = Dispatch { activity, pass: Pass::Unwinding { step, caller: &raw const caller, dispatcher } };
            images.dispatch.set(&raw const unwinding);
            let disposition = call_handler(&step, &mut record, &raw mut context, dispatcher);
            record.flags &= !(EXCEPTION_TARGET_UNWIND | EXCEPTION_COLLIDED_UNWIND);
            if disposition != CONTINUE_SEARCH {
                break STATUS_INVALID_DISPOSITION;
            }
        }
        if is_target {
            let registers = target.registers(&context);
            images.set_activity(activity);
            // SAFETY: by this function's contract, and all handlers on the way have run.
            unsafe { resume(&raw const registers) }
        }
        context = caller;
    };
    record.code = failure as u32;
    let meaning = not_handled(failure, "a driver unwound its stack to where there is no such frame");
    call.fail(Box::new(Exception::violation(&record, meaning)))
}

/// One range of code with a handler: an entry of the table that `__C_specific_handler` is given.
#[derive(Clone, Copy, Debug)]
struct Scope {
    begin: u32,
    end: u32,
    /// The filter, 1 for "always", or the termination handler.
    handler: u32,
    /// The code of the `__except` block, or 0 for `__finally`.
    target: u32,
}

impl Scope {
    fn contains(&self, at: u32) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

/// The scopes of a frame, innermost first, up to one that is damaged.
fn scopes(call: Call, dispatcher: &DispatcherContext) -> Vec<Scope> {
    let Some(state) = call.cell.images.state() else { return Vec::new() };
    let Some(mapping) = state.mapping_at(dispatcher.handler_data) else { return Vec::new() };
    let at = mapping.rva(dispatcher.handler_data);
    let count = mapping.file.word(at).unwrap_or(0).min(4096);
    let scope = |index: u32| {
        let at = at + 4 + index * 16;
        let word = |offset: u32| mapping.file.word(at + offset);
        let scope = Scope { begin: word(0)?, end: word(4)?, handler: word(8)?, target: word(12)? };
        let is_code = |at: u32| mapping.file.is_code(at);
        let has_handler = is_code(scope.handler) || scope.target != 0 && scope.handler == 1;
        (has_handler && (scope.target == 0 || is_code(scope.target))).then_some(scope)
    };
    (0..count).map_while(scope).collect()
}

/// `__C_specific_handler`: what `__try` with `__except` and `__finally` compile to.
///
/// # Safety
/// It is called as a language handler, with what a search or an unwinding passes one.
pub(crate) unsafe fn c_specific_handler(
    call: Call,
    record: *mut ExceptionRecord,
    frame: u64,
    context: *mut Context,
    dispatcher: *mut DispatcherContext,
) -> i32 {
    // SAFETY: by this function's contract. It is not borrowed: what a handler raises looks at it.
    let dispatch = unsafe { *dispatcher };
    // SAFETY: as above.
    let flags = unsafe { (*record).flags };
    let relative = |address: u64| address.wrapping_sub(dispatch.image_base) as u32;
    let (at, target_ip) = (relative(dispatch.control_pc), relative(dispatch.target_ip));
    let base = dispatch.image_base;
    let unwinding = flags & (EXCEPTION_UNWINDING | EXCEPTION_EXIT_UNWIND) != 0;
    let all = scopes(call, &dispatch);
    let count = all.len();
    for index in dispatch.scope_index as usize..count {
        let scope = all[index];
        if !scope.contains(at) {
            continue;
        }
        if !unwinding {
            if scope.target == 0 {
                continue;
            }
            let answer = if scope.handler == 1 {
                1
            } else {
                let mut pointers = ExceptionPointers { record, context };
                let address = (base + u64::from(scope.handler)) as *const ();
                // SAFETY: the image has a filter there; if it is no code, the call is a fault like any of the driver's.
                let filter: unsafe extern "win64" fn(*mut ExceptionPointers, u64) -> i32 =
                    unsafe { std::mem::transmute(address) };
                // SAFETY: as above.
                through(|| unsafe { filter(&raw mut pointers, frame) }, || {})
            };
            match answer {
                ..0 => return CONTINUE_EXECUTION,
                0 => {}
                1.. => {
                    drop(all);
                    // SAFETY: by this function's contract.
                    let value = unsafe { *record };
                    let target = base + u64::from(scope.target);
                    // SAFETY: the routine is called as an import, so that a call is under way.
                    let start = unsafe { &*call.cell.images.frame.get() }.context();
                    // SAFETY: this frame's handler asks for it, and nothing is left to be done here.
                    unsafe { unwind_to(call, frame, target, Some(value), u64::from(value.code), start) }
                }
            }
            continue;
        }
        if flags & EXCEPTION_TARGET_UNWIND != 0 {
            // The target is in the same `__try` block: the block is not left.
            let same =
                |other: &Scope| other.contains(target_ip) && other.handler == scope.handler && other.target == scope.target;
            if all.iter().any(same) {
                return CONTINUE_SEARCH;
            }
        }
        if scope.target != 0 {
            if flags & EXCEPTION_TARGET_UNWIND != 0 && target_ip == scope.target {
                return CONTINUE_SEARCH;
            }
            continue;
        }
        // SAFETY: as above.
        unsafe { (*dispatcher).scope_index = index as u32 + 1 };
        let address = (base + u64::from(scope.handler)) as *const ();
        // SAFETY: the image has a termination handler there, as above.
        let finally: unsafe extern "win64" fn(u8, u64) = unsafe { std::mem::transmute(address) };
        // SAFETY: as above.
        through(|| unsafe { finally(1, frame) }, || {});
    }
    CONTINUE_SEARCH
}
