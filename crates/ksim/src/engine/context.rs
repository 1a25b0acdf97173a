//! Stackful execution contexts: the coroutines that threads and DPC queues run on.
//!
//! A context is a `corosensei` coroutine on a pooled stack. It runs on the OS thread of its machine only, is resumed by
//! the machine's loop (`machine.rs`) and gives control back by [`suspend`](ContextHandle::suspend) at a scheduling point.
//! A fresh stack costs some 10 us of `mmap`, a pooled one some 30 ns, so stacks are kept per OS thread from run to run.

use corosensei::stack::{DefaultStack, Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::cell::{Cell, RefCell};
use std::ops::Range;

/// Bytes of a stack that are the driver's. NT gives a kernel thread 24 KiB; hosted code formats, panics and walks its own stack, in debug
/// builds too. Only touched pages cost memory.
const DRIVER_STACK_BYTES: usize = 256 * 1024;

/// Bytes of a stack that the kernel needs for a call of a driver, whose own calls stay above them. It must not fault: it
/// may be in the middle of an allocation, and whoever reports the fault needs memory too.
pub(crate) const KERNEL_STACK_BYTES: usize = 64 * 1024;

/// Bytes below both, which are not there until they are touched: see [`overflow`](crate::overflow).
pub(crate) const MARGIN_BYTES: usize = if cfg!(all(target_os = "linux", target_arch = "x86_64")) { 64 * 1024 } else { 0 };

/// Bytes of a stack.
pub(crate) const STACK_BYTES: usize = DRIVER_STACK_BYTES + KERNEL_STACK_BYTES + MARGIN_BYTES;

/// How many idle stacks an OS thread keeps.
const POOLED_STACKS: usize = 16 * 1024;

/// Stacks are page-aligned, so that the hot frames of all threads would fall into the same few cache sets. Each stack
/// therefore starts a little lower than the last one, in steps of a cache line, cyclically within so many bytes.
const COLORS: usize = 16 * 1024;

/// A stack whose base is shifted by its color.
struct ColoredStack {
    stack: DefaultStack,
    base: StackPointer,
}

impl ColoredStack {
    fn new(index: usize) -> std::io::Result<Self> {
        let stack = DefaultStack::new(STACK_BYTES)?;
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        protect_margin(stack.base().get() - STACK_BYTES, libc::PROT_NONE)?;
        // 832 is 13 cache lines: neighbours differ by more than a frame, and all lines of the range are used in turn.
        let color = index.wrapping_mul(832) % COLORS;
        let base = StackPointer::new(stack.base().get() - color).expect("a stack is not at address 0");
        Ok(Self { stack, base })
    }
}

/// Takes the margin that begins there away, or makes it memory.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn protect_margin(start: usize, protection: i32) -> std::io::Result<()> {
    let memory = std::ptr::with_exposed_provenance_mut(start);
    // SAFETY: the margin is the lowest part of a stack, where nothing is while it is not there: it is taken away from a fresh stack
    // only.
    if unsafe { libc::mprotect(memory, MARGIN_BYTES, protection) } == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

// SAFETY: the memory is that of the inner stack, of which this is the lower part: its guard pages are the same, and the base is
// 16-aligned, as the color is a multiple of 64.
unsafe impl Stack for ColoredStack {
    fn base(&self) -> StackPointer {
        self.base
    }

    fn limit(&self) -> StackPointer {
        self.stack.limit()
    }

    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.stack.teb_fields()
    }

    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        self.stack.update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

thread_local! {
    static CREATED: Cell<usize> = const { Cell::new(0) };
    #[expect(clippy::vec_box, reason = "a context does not move while it is resumed, and its memory is used again as it is")]
    static IDLE: RefCell<Vec<Box<Context>>> = const { RefCell::new(Vec::new()) };
    /// Where the part of the running context's stack begins that calls of the kernel may come from, or 0.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    /// The frame of the running context's last call of the kernel, or 0.
    static CALL: Cell<usize> = const { Cell::new(0) };
    /// The margin of a stack of this run has become memory.
    static OPENED: Cell<bool> = const { Cell::new(false) };
}

/// A call of the kernel begins. True when the running context has so little stack left that it might not get through.
#[inline]
pub(crate) fn begin_call() -> bool {
    let pointer = stack_pointer();
    CALL.set(pointer);
    pointer < FLOOR.get()
}

/// The stack pointer. Nothing of the caller's is below it, nor of a driver's function into which the call was inlined.
#[inline(always)]
fn stack_pointer() -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        let pointer;
        // SAFETY: a register is read.
        unsafe { std::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
        pointer
    }
    #[cfg(target_arch = "aarch64")]
    {
        let pointer;
        // SAFETY: a register is read.
        unsafe { std::arch::asm!("mov {}, sp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
        pointer
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let here = 0_u8;
        (&raw const here).addr()
    }
}

/// A call begins from where nobody looks at the stack.
#[inline]
pub(crate) fn forget_call() {
    CALL.set(0);
}

/// The frame of the last call of the running context: what lies below it on the stack is in frames that are the kernel's or gone. 0 if that is not known.
#[inline]
pub(crate) fn last_call() -> usize {
    CALL.get()
}

/// A new run begins: what stacks there are have their margin.
pub(crate) fn begin_run() {
    OPENED.set(false);
}

/// The stack of the running context, without its margin.
pub(crate) fn running_stack() -> Option<Range<usize>> {
    let start = FLOOR.get().checked_sub(KERNEL_STACK_BYTES)?;
    Some(start..start + DRIVER_STACK_BYTES + KERNEL_STACK_BYTES)
}

/// Makes the margin of the running context's stack memory, for the rest of the run. A handler of signals may call this.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn open_margin() -> bool {
    let Some(stack) = running_stack() else { return false };
    OPENED.set(true);
    protect_margin(stack.start - MARGIN_BYTES, libc::PROT_READ | libc::PROT_WRITE).is_ok()
}

/// A coroutine between two resumptions.
pub(crate) struct Context {
    state: State,
    stack: Range<usize>,
    /// The frame of its last call of the kernel before it gave control back, or 0.
    call: Cell<usize>,
}

type Stackful = Coroutine<(), (), (), ColoredStack>;

/// What a context's memory has.
enum State {
    /// A coroutine that can be resumed.
    Live(Stackful),
    /// A stack that waits for the next.
    Idle(ColoredStack),
    /// Nothing, while it changes.
    Changing,
}

/// How a resumed context gave control back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumed {
    /// It suspended and can be resumed.
    Suspended,
    /// Its body returned.
    Finished,
}

/// The running context's own end of the switch. Valid only on the stack that it was handed out on.
#[derive(Clone, Copy)]
pub(crate) struct ContextHandle(*const End);

/// What it has there, at the base of its stack.
struct End {
    yielder: *const Yielder<(), ()>,
    /// [`Context::call`].
    call: *const Cell<usize>,
}

impl ContextHandle {
    /// A handle that belongs to no context.
    pub(crate) const NONE: Self = Self(std::ptr::null());

    /// Gives control back to the machine's loop, until it resumes this context.
    ///
    /// # Safety
    /// The caller runs on the context that this handle was handed to, and that context is the innermost running one.
    #[inline]
    pub(crate) unsafe fn suspend(self) {
        // SAFETY: by the contract this is at the base of the stack that we are running on.
        let end = unsafe { &*self.0 };
        let call = CALL.get();
        // SAFETY: the context is there as long as its stack is in use.
        unsafe { &*end.call }.set(call);
        // SAFETY: as for the end.
        let yielder = unsafe { &*end.yielder };
        yielder.suspend(());
        CALL.set(call);
    }

    /// True when the handle belongs to a context.
    pub(crate) fn is_some(self) -> bool {
        !self.0.is_null()
    }
}

impl Context {
    /// A context that will run `body` when first resumed.
    ///
    /// # Safety
    /// Everything that `body` borrows outlives the context: it is resumed, reset or dropped before those borrows end.
    pub(crate) unsafe fn new<F: FnOnce(ContextHandle)>(body: F) -> std::io::Result<Box<Self>> {
        let pooled = IDLE.with(|idle| idle.borrow_mut().pop());
        let mut context = match pooled {
            Some(context) => context,
            None => {
                let stack = ColoredStack::new(CREATED.replace(CREATED.get().wrapping_add(1)))?;
                let memory = stack.stack.base().get() - DRIVER_STACK_BYTES - KERNEL_STACK_BYTES..stack.base().get();
                Box::new(Self { state: State::Idle(stack), stack: memory, call: Cell::new(0) })
            }
        };
        let State::Idle(stack) = std::mem::replace(&mut context.state, State::Changing) else {
            unreachable!("what is pooled is idle")
        };
        context.call.set(0);
        let call = &raw const context.call;
        // SAFETY: the borrows of `body` outlive the coroutine by this function's contract.
        let coroutine = unsafe {
            Coroutine::with_stack_unchecked(stack, move |yielder: &Yielder<(), ()>, ()| {
                let end = End { yielder, call };
                CALL.set(0);
                body(ContextHandle(&raw const end));
            })
        };
        context.state = State::Live(coroutine);
        Ok(context)
    }

    /// The addresses of its stack, without its margin.
    pub(crate) fn stack(&self) -> Range<usize> {
        self.stack.clone()
    }

    /// The frame of its last call of the kernel before it gave control back. 0 if that is not known.
    pub(crate) fn last_call(&self) -> usize {
        self.call.get()
    }

    /// True once it has been resumed.
    pub(crate) fn has_started(&self) -> bool {
        matches!(&self.state, State::Live(coroutine) if coroutine.started())
    }

    /// Runs the context until it suspends or finishes.
    #[inline]
    pub(crate) fn resume(&mut self) -> Resumed {
        let State::Live(coroutine) = &mut self.state else { unreachable!("a context is live until it is discarded") };
        FLOOR.set(self.stack.start + KERNEL_STACK_BYTES);
        let result = coroutine.resume(());
        FLOOR.set(0);
        match result {
            CoroutineResult::Yield(()) => Resumed::Suspended,
            CoroutineResult::Return(()) => Resumed::Finished,
        }
    }

    /// Takes the stack back without running anything more on it: what NT does with the kernel stack of a terminated thread,
    /// and what a stopped machine does with all of them. Values on the stack are leaked, not dropped.
    pub(crate) fn discard(mut self: Box<Self>) {
        if let State::Live(mut coroutine) = std::mem::replace(&mut self.state, State::Changing) {
            // SAFETY: nothing will run on this stack again, and nothing outside refers into it: a thread's stack dies with
            // the thread in NT too, and after a machine has stopped no driver code runs.
            unsafe { coroutine.force_reset() };
            self.state = State::Idle(coroutine.into_stack());
        }
        if OPENED.get() {
            // Which one it was is not kept, as this is rare. Those that go back have their margin.
            return;
        }
        IDLE.with(|idle| {
            let mut idle = idle.borrow_mut();
            if idle.len() < POOLED_STACKS {
                idle.push(self);
            }
        });
    }
}
