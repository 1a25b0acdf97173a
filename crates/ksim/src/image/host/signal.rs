//! Faults of images arrive as signals, and so does hosted code that uses up its stack.
//!
//! The handler does next to nothing: it writes the registers below the driver's stack pointer, and lets the interrupted context go on in
//! [`fault::on_fault`](super::fault::on_fault), as an ordinary function on an ordinary stack. That may suspend, stop the
//! machine, or resume the driver. Signals that have nothing to do with an image go to the handler that was there before.

use super::context::{Context, RAX, RCX, RDX};
use super::{arena, entry, fault, guarded, level, time_stamp};
use crate::machine::images_of_this_thread;
use crate::overflow;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::{Mutex, OnceLock, PoisonError};

const SIGNALS: [i32; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP];
/// What `on_fault` and what it calls need of a stack.
const ROOM: u64 = 96 * 1024;
const PAGE: u64 = 4096;
/// The vectors of a general protection fault, and of a page fault.
const PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
/// The vector of what comes after a single step.
const DEBUG: u64 = 1;
/// Bytes of a stack for faults that came of having none left, and of one for the handler itself.
const STACK: usize = 512 * 1024;
/// What the handler needs at the least.
const HANDLER_STACK: usize = 64 * 1024;

/// A fault, and the registers at it.
#[repr(C, align(16))]
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) context: Context,
    /// The processor's exception vector, and its error code.
    pub(super) vector: u64,
    pub(super) error: u64,
    /// The address that was touched, for a page fault.
    pub(super) address: u64,
    /// There is no room left on the driver's stack.
    pub(super) stack_overflow: bool,
}

/// Memory for a stack.
struct Stack(usize);

impl Stack {
    fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping touches nothing that exists.
        let memory = unsafe { libc::mmap(null_mut(), STACK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if memory == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(memory as usize)) }
    }
}

/// The stacks of an OS thread, which go with it.
#[derive(Default)]
struct Stacks {
    emergency: Option<Stack>,
    handler: Option<Stack>,
}

impl Drop for Stacks {
    fn drop(&mut self) {
        EMERGENCY_STACK.set(0);
        if let Some(Stack(ours)) = self.handler {
            // SAFETY: zero is valid for all of the structure.
            let mut current: libc::stack_t = unsafe { std::mem::zeroed() };
            // SAFETY: the call writes the structure.
            unsafe { libc::sigaltstack(std::ptr::null(), &raw mut current) };
            if current.ss_sp as usize == ours {
                current.ss_flags = libc::SS_DISABLE;
                // SAFETY: the thread ends, and has no use for it.
                unsafe { libc::sigaltstack(&raw const current, null_mut()) };
            }
        }
        for Stack(memory) in self.emergency.take().into_iter().chain(self.handler.take()) {
            // SAFETY: the memory is this stack's, on which nothing runs any more.
            unsafe { libc::munmap(memory as *mut c_void, STACK) };
        }
    }
}

thread_local! {
    static STACKS: RefCell<Stacks> = RefCell::default();
    static EMERGENCY_STACK: Cell<usize> = const { Cell::new(0) };
    /// The part of a stack that was last seen to be writable.
    static WRITABLE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// What handled each of the signals before, once that is ours.
static PREVIOUS: [OnceLock<libc::sigaction>; SIGNALS.len()] = [const { OnceLock::new() }; SIGNALS.len()];
static INSTALLING: Mutex<()> = Mutex::new(());

/// The running OS thread is about to run a machine: hosted code that uses up its stack, or touches what is not there, is caught.
#[inline]
pub(crate) fn prepare() -> io::Result<()> {
    if EMERGENCY_STACK.get() != 0 {
        return Ok(());
    }
    install(&[libc::SIGSEGV, libc::SIGBUS, libc::SIGTRAP])?;
    prepare_thread()
}

/// An image is about to be loaded: its faults are caught.
pub(super) fn prepare_for_images() -> io::Result<()> {
    // Stacks of earlier machines may be gone.
    WRITABLE.set((0, 0));
    prepare()?;
    level::prepare();
    install(&SIGNALS)
}

/// Installs the handler for signals that it is not installed for yet.
fn install(signals: &[i32]) -> io::Result<()> {
    let _installing = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    for (signal, previous) in SIGNALS.into_iter().zip(&PREVIOUS) {
        if !signals.contains(&signal) || previous.get().is_some() {
            continue;
        }
        let mut action = MaybeUninit::uninit();
        // SAFETY: the call writes the structure.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // The handler looks there as soon as it is installed.
        // SAFETY: the call has written it.
        previous.get_or_init(|| unsafe { action.assume_init() });
        // SAFETY: zero is valid for all of the structure.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        // Not deferred: a guarded read may fault within the handler.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the structure is filled, and the handler is one for it.
        if unsafe { libc::sigaction(signal, &raw const action, null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Gives the OS thread its stacks.
fn prepare_thread() -> io::Result<()> {
    // SAFETY: zero is valid for all of the structure.
    let mut old: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes the structure.
    if unsafe { libc::sigaltstack(std::ptr::null(), &raw mut old) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The language's own stack for handlers is too small for a signal within one.
    if old.ss_flags & libc::SS_DISABLE != 0 || old.ss_size < HANDLER_STACK {
        let memory = Stack::new()?;
        let stack = libc::stack_t { ss_sp: memory.0 as *mut c_void, ss_flags: 0, ss_size: STACK };
        STACKS.with(|stacks| stacks.borrow_mut().handler = Some(memory));
        // SAFETY: the stack is fresh memory, which stays as long as the thread.
        if unsafe { libc::sigaltstack(&raw const stack, null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    let emergency = Stack::new()?;
    EMERGENCY_STACK.set(emergency.0);
    STACKS.with(|stacks| stacks.borrow_mut().emergency = Some(emergency));
    Ok(())
}

/// Where the OS thread's stack begins for those that have none left. What looks above what is on it finds memory of its own.
pub(crate) fn emergency_stack() -> u64 {
    (EMERGENCY_STACK.get() + STACK) as u64 - 2 * PAGE
}

/// The register of the interrupted context with that number of Linux.
fn register(context: &mut libc::ucontext_t, number: i32) -> &mut i64 {
    &mut context.uc_mcontext.gregs[number as usize]
}

/// Linux' numbers of the registers, in the order of the processor's.
const REGISTERS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// True when a page may be written. The kernel is asked, so that the answer is no signal.
fn is_writable(page: u64) -> bool {
    // The call stores the signal mask there. What was there comes back: nothing of the driver's may change.
    let word = page as *mut u64;
    let Ok(kept) = guarded::quad(page) else { return false };
    let size = size_of::<u64>();
    // SAFETY: a bad address is an error of the call.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, null_mut::<u64>(), word, size) };
    if result != 0 {
        return false;
    }
    // SAFETY: the call has just written there.
    unsafe { word.write(kept) };
    true
}

/// True when `on_fault` can run below an address on a stack whose pointer is there: no page is missing in between, as what is below a stack may be another one.
fn has_room(pointer: u64, below: u64) -> bool {
    let (high, low) = (pointer & !(PAGE - 1), (below & !(PAGE - 1)).saturating_sub(ROOM));
    let (seen_low, seen_high) = WRITABLE.get();
    if seen_low <= low && high <= seen_high {
        return true;
    }
    let room = low != 0 && (low..=high).step_by(PAGE as usize).all(is_writable);
    if room {
        WRITABLE.set((low, high));
    }
    room
}

/// The handler.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes both, valid until the handler returns.
    let interrupted = unsafe { &mut *context.cast::<libc::ucontext_t>() };
    // SAFETY: as above.
    let code = unsafe { (*info).si_code };
    // What another process sends is no fault.
    if code <= 0 || !take(interrupted, info) {
        chain(signal, info, context);
    }
}

/// Lets the interrupted context go on in `on_fault`, if the fault is an image's, or elsewhere if it is hosted code's.
fn take(interrupted: &mut libc::ucontext_t, info: *mut libc::siginfo_t) -> bool {
    let rip = *register(interrupted, libc::REG_RIP) as u64;
    let rsp = *register(interrupted, libc::REG_RSP) as u64;
    let error = *register(interrupted, libc::REG_ERR) as u64;
    let vector = *register(interrupted, libc::REG_TRAPNO) as u64;
    // SAFETY: the kernel passes it, valid until the handler returns.
    let info = unsafe { &*info };
    // SAFETY: the signals that get here carry an address.
    let address = unsafe { info.si_addr() } as u64;
    if let Some(continuation) = guarded::continuation(rip) {
        *register(interrupted, REGISTERS[RAX]) = 1 | (error & 2) as i64;
        *register(interrupted, REGISTERS[RDX]) = address as i64;
        *register(interrupted, libc::REG_RIP) = continuation as i64;
        return true;
    }
    if vector == PROTECTION
        && !arena::contains(rip as usize)
        && let Some((counter, processor, length)) = time_stamp::for_host(rip)
    {
        *register(interrupted, REGISTERS[RAX]) = (counter & 0xffff_ffff) as i64;
        *register(interrupted, REGISTERS[RDX]) = (counter >> 32) as i64;
        if let Some(processor) = processor {
            *register(interrupted, REGISTERS[RCX]) = i64::from(processor);
        }
        *register(interrupted, libc::REG_RIP) = (rip + length) as i64;
        return true;
    }
    if vector == DEBUG && overflow::steps() {
        overflow::step(interrupted);
        return true;
    }
    let Some(images) = images_of_this_thread() else { return false };
    let is_code = arena::contains(rip as usize) || entry::contains(rip) || fault::is_jump(vector, error, address, rip);
    // Hosted code, which an image may have called.
    if !(images.loaded.get() && is_code) && vector == PAGE_FAULT && overflow::touched(interrupted, address) {
        return true;
    }
    if !images.loaded.get() {
        return overflow::faulted(interrupted, vector, error, address);
    }
    // Code of an image, what an image called or is about to, where nothing is, what touches an image, or what has found no stack left.
    let is_images = is_code || images.in_call() || vector == PAGE_FAULT && arena::contains(address as usize);
    // 128 bytes below the stack pointer may be in use where the fault is not the driver's.
    let below = rsp.wrapping_sub(256 + size_of::<Fault>() as u64) & !15;
    let has_room = has_room(rsp, below);
    let overflowed = !has_room && vector == PAGE_FAULT && address.wrapping_sub(rsp.wrapping_sub(ROOM)) < 2 * ROOM;
    if !is_images && !overflowed {
        return overflow::faulted(interrupted, vector, error, address);
    }
    let place = if has_room { below } else { emergency_stack() };
    let record = place as *mut Fault;
    let mut registers = Context::new();
    for (value, number) in registers.gpr.iter_mut().zip(REGISTERS) {
        *value = *register(interrupted, number) as u64;
    }
    registers.rip = rip;
    registers.eflags = *register(interrupted, libc::REG_EFL) as u32;
    let float = interrupted.uc_mcontext.fpregs;
    if !float.is_null() {
        // SAFETY: the kernel has saved the registers there.
        registers.mxcsr = unsafe { (*float).mxcsr };
        // SAFETY: as above.
        let xmm = unsafe { &raw const (*float)._xmm };
        // SAFETY: 16 registers of 16 bytes.
        registers.xmm = unsafe { xmm.cast::<[u128; 16]>().read_unaligned() };
    }
    let fault = Fault { context: registers, vector, error, address, stack_overflow: !has_room };
    // SAFETY: the place is writable: it was looked at, or it is the stack for this case.
    unsafe { record.write(fault) };
    // A return address, which is nowhere.
    let top = (place - 8) as *mut u64;
    // SAFETY: as above.
    unsafe { top.write(0) };
    *register(interrupted, libc::REG_RSP) = top as i64;
    *register(interrupted, libc::REG_RDI) = record as i64;
    *register(interrupted, libc::REG_RIP) = level::ksim_image_fault as *const () as i64;
    // Direction, trap and alignment check flags are off where Rust code runs.
    *register(interrupted, libc::REG_EFL) &= !0x4_0500;
    true
}

/// The fault is not an image's: whoever was there before has it.
fn chain(signal: i32, info: *mut libc::siginfo_t, context: *mut c_void) {
    let previous = SIGNALS.iter().position(|&number| number == signal).and_then(|index| PREVIOUS[index].get());
    let Some(action) = previous else { return };
    match action.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The fault happens again when this returns, and then ends the process as it would have.
            // SAFETY: the action is one that was in force.
            unsafe { libc::sigaction(signal, &raw const *action, null_mut()) };
            if signal == libc::SIGTRAP {
                // What a breakpoint interrupts goes on behind it.
                // SAFETY: the process has a signal to itself.
                unsafe { libc::raise(signal) };
            }
        }
        handler if action.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: the flag says what the handler takes.
            let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) = unsafe { std::mem::transmute(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: as above.
            let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(handler) };
            handler(signal);
        }
    }
}
