//! Closures that run once after a delay.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;

use ksync_sys as sys;

use crate::dpc::{self, NotQueued};
use crate::driver::image::Image;
use crate::driver::list::{Locked, Node};
use crate::error::{NtError, Result};
use crate::pool::{KBox, NotAllocated};
use crate::time::{FAR, Timeout};

/// The part of a block that does not depend on the closure's type.
///
/// # Invariants
/// - The block is in its image's list of delayed closures. Who takes it out frees it: the routine, or a drain that cancelled the timer before that queued the DPC.
/// - Timer and DPC are initialised.
#[repr(C)]
struct Header {
    node: Node,
    timer: UnsafeCell<MaybeUninit<sys::KTIMER>>,
    dpc: UnsafeCell<MaybeUninit<sys::KDPC>>,
    free: unsafe fn(NonNull<Header>),
}

/// A block as it is allocated.
#[repr(C)]
struct Block<F> {
    header: Header,
    closure: F,
}

impl Header {
    fn timer(&self) -> *mut sys::KTIMER {
        self.timer.get().cast()
    }

    fn dpc(&self) -> *mut sys::KDPC {
        self.dpc.get().cast()
    }
}

/// Runs a closure once, at `DISPATCH_LEVEL`, after a delay.
///
/// The closure and its timer are freed once: when the closure has run, or when the driver is unloaded before that, which drops the closure without running it. A delay that must
/// be broken off is a [`Timer`](super::Timer).
///
/// # IRQL
/// `<= DISPATCH_LEVEL`.
///
/// # Errors
/// The closure comes back with
/// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no pool;
/// - [`NtError::DELETE_PENDING`] while the driver is being unloaded;
/// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::this_thread;
/// use ksync::timer::delay_run;
///
/// # let outcome = ksim::Machine::new().run(|| {
/// let text = String::from("five seconds later");
/// delay_run(Duration::from_secs(5), move || ksync::println!("{text}")).unwrap();
/// this_thread::sleep(Duration::from_secs(6)).unwrap();
/// # });
/// # assert_eq!(outcome.debug_output(), ["five seconds later"]);
/// # outcome.expect_clean();
/// ```
///
/// Wraps [`KeSetTimer`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kesettimer).
#[doc(alias = "KeSetTimer")]
pub fn delay_run<F>(delay: Duration, closure: F) -> Result<(), NotQueued<F>>
where
    F: FnOnce() + Send + 'static,
{
    let image = Image::this();
    let header = Header {
        node: Node::new(),
        timer: UnsafeCell::new(MaybeUninit::uninit()),
        dpc: UnsafeCell::new(MaybeUninit::uninit()),
        free: free::<F>,
    };
    let block = match KBox::try_new_with(Block { header, closure }) {
        Ok(block) => block,
        Err(NotAllocated { value, error }) => return Err(NotQueued { error, closure: value.closure }),
    };
    let block = KBox::into_raw(block);
    // SAFETY: the block was allocated just now, and is not used otherwise yet.
    let header = unsafe { &(*block).header };
    let (timer, dpc) = (header.timer(), header.dpc());
    // SAFETY: the timer lies in nonpaged pool, in which it stays. The level is `<= DISPATCH_LEVEL`, or there would be no block.
    unsafe { sys::KeInitializeTimer(timer) };
    // SAFETY: as above.
    unsafe { sys::KeInitializeDpc(dpc, Some(routine::<F>), block.cast()) };
    // The list is locked until the timer is set, so that a drain finds either nothing or a timer that is set.
    let opened = image.delayed.lock().ok_or(NtError::IRQL_TOO_HIGH).and_then(|list| image.check_open().map(|()| list));
    let mut list: Locked<'_> = match opened {
        Ok(list) => list,
        Err(error) => {
            // SAFETY: the block came from `into_raw`, and neither its timer was set nor its DPC queued.
            let block = unsafe { KBox::from_raw(block) };
            return Err(NotQueued { error, closure: block.into_inner().closure });
        }
    };
    // SAFETY: the node is new, and stays in its place until it is taken out.
    unsafe { list.insert(block.cast()) };
    let due = Timeout::after(delay).to_raw().unwrap_or(-FAR);
    // IRQL: under the lock, so at `DISPATCH_LEVEL`.
    // SAFETY: timer and DPC are initialised and stay in their place until the block is freed. That needs the list's lock, which is held.
    unsafe { sys::KeSetTimer(timer, due, dpc) };
    drop(list);
    Ok(())
}

/// Frees a block without running its closure.
///
/// # Safety
/// The header is that of a `Block<F>` that is in no list. Its timer is not armed, its DPC neither queued nor running.
unsafe fn free<F>(header: NonNull<Header>) {
    // SAFETY: by this function's contract; the block was given up for this pointer when it was made.
    drop(unsafe { KBox::from_raw(header.cast::<Block<F>>().as_ptr()) });
}

/// The kernel's way into a delayed closure.
///
/// # Safety
/// The context is a `Block<F>` that is in its image's list, and whose timer has expired once.
unsafe extern "system-unwind" fn routine<F: FnOnce()>(
    _dpc: *mut sys::KDPC,
    context: *mut c_void,
    _argument1: *mut c_void,
    _argument2: *mut c_void,
) {
    // A DPC's level admits the lock.
    let Some(mut list) = Image::this().delayed.lock() else { return };
    // SAFETY: by this function's contract the block is in the list.
    unsafe { list.remove(context.cast()) };
    drop(list);
    // SAFETY: the block was given up for this pointer when it was made. Its timer has expired and its DPC is taken off its queue, and it is in no list any more, so that nobody
    // else uses it.
    let block = unsafe { KBox::from_raw(context.cast::<Block<F>>()) };
    (block.into_inner().closure)();
}

/// Drops the closures that still wait for their delay, and waits until none runs.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(super) fn drain(image: &'static Image) {
    loop {
        let Some(mut list) = image.delayed.lock() else { return };
        let cancelled = list.nodes().find(|node| {
            // SAFETY: the nodes of this list are the first fields of headers of blocks that are alive while they are in it. The list is locked.
            let header = unsafe { &*node.cast::<Header>() };
            // SAFETY: by the type's invariant the timer is initialised; the lock's level admits this.
            unsafe { sys::KeCancelTimer(header.timer()) != 0 }
        });
        // What could not be cancelled has its DPC queued or running.
        let Some(node) = cancelled else { break };
        // SAFETY: the node was found in this list.
        unsafe { list.remove(node) };
        drop(list);
        // SAFETY: nodes are not null.
        let header = unsafe { NonNull::new_unchecked(node.cast::<Header>()) };
        // SAFETY: the block was in the list until now, and so alive.
        let free = unsafe { header.as_ref().free };
        // SAFETY: the function is the one for this block. Its timer was armed and is cancelled, so that its DPC is not queued and never was.
        unsafe { free(header) };
    }
    dpc::flush_all();
}
