//! System threads.
//!
//! [`spawn`] starts a thread, and the [`JoinHandle`] that it returns waits for the thread's end and takes what it returned. [`scope`] starts threads that borrow
//! from the caller. [`this_thread`] is about the thread that asks.
//!
//! # The image must outlive its threads
//! The code of a thread lies in the driver's image, and an image that is unloaded under a running thread is a bug check. So
//! - dropping a [`JoinHandle`] waits for the thread;
//! - to *join* means to wait for the thread object itself: a thread that has merely said that it is done still runs code of the image;
//! - a thread that was [detached](JoinHandle::detach), or whose handle was forgotten or dropped where nothing can wait, is waited for when the driver is
//!   unloaded, by [`driver_entry!`](crate::driver_entry)'s unload routine or by [`driver::drain`](crate::driver::drain).
//!
//! # What a thread starts with
//! Threads belong to the system process, whoever starts them, unless [another](Builder::process) is named, and start at `PASSIVE_LEVEL` *inside a critical region*: normal kernel APCs and
//! user APCs never reach them. All that a thread owns has been dropped when it ends.
//!
//! # Examples
//! ```
//! use ksync::thread;
//!
//! # ksim::Machine::new().run(|| {
//! let thread = thread::spawn(|| 6 * 7).unwrap();
//! assert_eq!(thread.join(), Ok(42));
//! # }).expect_clean();
//! ```

mod packet;
mod scoped;
pub mod this_thread;

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::num::NonZero;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use ksync_sys as sys;

use crate::driver::image::Image;
use crate::error::{NtError, Result};
use crate::irql::{self, Irql, Passive};
use crate::object::{ProcessObject, ThreadId, ThreadObject};
use crate::wait::{Dispatchable, sealed};

use packet::{Own, Packet, Settings};
pub use scoped::{Scope, ScopedJoinHandle, scope};

/// Why a thread was not started, with the closure that it would have run.
///
/// # Examples
/// ```
/// use ksync::irql::{self, Irql};
/// use ksync::{NtError, thread};
///
/// # ksim::Machine::new().run(|| {
/// let kept = irql::with_raised(Irql::DISPATCH, || thread::spawn(|| 1).unwrap_err()).unwrap();
/// assert_eq!(kept.error, NtError::IRQL_TOO_HIGH);
/// assert_eq!((kept.closure)(), 1);
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpawnError<F> {
    /// The reason.
    pub error: NtError,
    /// The closure.
    pub closure: F,
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

impl<F> core::error::Error for SpawnError<F> {}

impl<F> From<SpawnError<F>> for NtError {
    fn from(failure: SpawnError<F>) -> Self {
        failure.error
    }
}

/// Starts a system thread, with the settings of [`Builder::new`].
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// Those of [`Builder::spawn`]. The closure comes back with them.
///
/// # Examples
/// ```
/// use ksync::thread;
///
/// # ksim::Machine::new().run(|| {
/// let text = String::from("moved");
/// let thread = thread::spawn(move || text.len()).unwrap();
/// assert_eq!(thread.join(), Ok(5));
/// # }).expect_clean();
/// ```
///
/// Wraps [`PsCreateSystemThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread).
#[doc(alias = "PsCreateSystemThread")]
pub fn spawn<F, T>(closure: F) -> Result<JoinHandle<T>, SpawnError<F>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Builder::new().spawn(closure)
}

/// [`spawn`] for a closure that is given the token of a thread's level, so that what it locks is checked at compile time.
///
/// # IRQL
/// `PASSIVE_LEVEL`.
///
/// # Errors
/// Those of [`spawn`]. The closure does not come back.
///
/// # Examples
/// ```
/// use ksync::mutex::{LockAt, SpinLocked};
/// use ksync::thread;
///
/// # ksim::Machine::new().run(|| {
/// static COUNT: SpinLocked<u32> = SpinLocked::const_new(0);
/// # *COUNT.lock().unwrap() = 0;
/// let thread = thread::spawn_with_irql(|passive| *COUNT.lock_at(passive) += 1).unwrap();
/// thread.join().unwrap();
/// assert_eq!(*COUNT.lock().unwrap(), 1);
/// # }).expect_clean();
/// ```
///
/// Wraps [`PsCreateSystemThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread).
#[doc(alias = "PsCreateSystemThread")]
pub fn spawn_with_irql<F, T>(closure: F) -> Result<JoinHandle<T>>
where
    F: FnOnce(&mut Irql<Passive>) -> T + Send + 'static,
    T: Send + 'static,
{
    // IRQL: a thread starts at `PASSIVE_LEVEL`.
    spawn(move || closure(&mut Irql::made())).map_err(|refused| refused.error)
}

/// Starts threads with settings of their own.
///
/// # Examples
/// ```
/// use ksync::object::ThreadObject;
/// use ksync::thread::Builder;
///
/// # ksim::Machine::new().run(|| {
/// let thread = Builder::new().priority(20).spawn(|| ThreadObject::current().priority()).unwrap();
/// assert_eq!(thread.join(), Ok(Ok(20)));
/// # }).expect_clean();
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a builder starts nothing until `spawn` is called"]
pub struct Builder<'a> {
    settings: Settings<'a>,
}

impl<'a> Builder<'a> {
    /// The default settings: no name, the system process, priority 8, all processors.
    pub const fn new() -> Self {
        Self { settings: Settings { own: Own { priority: None, affinity: None }, name: None, process: None } }
    }

    /// The thread's name, for debuggers. At most 64 UTF-16 code units.
    ///
    /// Systems before Windows 10 version 1607 know no names; the thread has none there.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::Builder;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// Builder::new().name("poller").spawn(|| ()).unwrap().join().unwrap();
    /// let long = "n".repeat(65);
    /// assert_eq!(Builder::new().name(&long).spawn(|| ()).unwrap_err().error, NtError::INVALID_PARAMETER);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ZwSetInformationThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/ntifs/nf-ntifs-zwsetinformationthread).
    #[doc(alias = "ZwSetInformationThread")]
    #[doc(alias = "SetThreadDescription")]
    pub const fn name(self, name: &'a str) -> Self {
        Self { settings: Settings { name: Some(name), ..self.settings } }
    }

    /// The process that the thread belongs to, in whose address space it runs. It is still a thread of the driver's: it runs in the kernel only, and the
    /// process cannot end it.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessObject;
    /// use ksync::thread::Builder;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let process = ProcessObject::from_process_id(ksim::create_process()).unwrap();
    /// let thread = Builder::new().process(&process).spawn(|| ProcessObject::current().id()).unwrap();
    /// assert_eq!(thread.join(), Ok(process.id()));
    /// # }).expect_clean();
    /// ```
    pub const fn process(self, process: &'a ProcessObject) -> Self {
        Self { settings: Settings { process: Some(process), ..self.settings } }
    }

    /// The thread's base priority, from 1 to 31. From 16 on priorities are real-time.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::Builder;
    /// use ksync::NtError;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Builder::new().priority(32).spawn(|| ()).unwrap_err().error, NtError::INVALID_PARAMETER);
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "KeSetPriorityThread")]
    pub const fn priority(self, priority: i32) -> Self {
        let own = Own { priority: Some(priority), ..self.settings.own };
        Self { settings: Settings { own, ..self.settings } }
    }

    /// The processors of the first group that the thread may run on, one bit each.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::Builder;
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().processors(2).run(|| {
    /// let thread = Builder::new().affinity(0b10).spawn(|| Processor::current().number).unwrap();
    /// assert_eq!(thread.join(), Ok(1));
    /// # }).expect_clean();
    /// ```
    #[doc(alias = "KeSetSystemAffinityThreadEx")]
    pub const fn affinity(self, processors: usize) -> Self {
        self.group_affinity(0, processors)
    }

    /// The processors of one group that the thread may run on, one bit each.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::Builder;
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().groups(&[1, 2]).run(|| {
    /// let thread = Builder::new().group_affinity(1, 0b10).spawn(Processor::current).unwrap();
    /// assert_eq!(thread.join(), Ok(Processor { group: 1, number: 1 }));
    /// # }).expect_clean();
    /// ```
    ///
    /// First Windows: 7.
    #[doc(alias = "KeSetSystemGroupAffinityThread")]
    pub const fn group_affinity(self, group: u16, processors: usize) -> Self {
        let own = Own { affinity: Some((group, processors)), ..self.settings.own };
        Self { settings: Settings { own, ..self.settings } }
    }

    /// Starts a system thread.
    ///
    /// # IRQL
    /// `PASSIVE_LEVEL`.
    ///
    /// # Errors
    /// The closure comes back with
    /// - [`NtError::INVALID_PARAMETER`] for a priority out of range, an affinity that names no active processor, or a name that is too long;
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory for the thread;
    /// - [`NtError::IRQL_TOO_HIGH`] above `PASSIVE_LEVEL`;
    /// - other errors of `PsCreateSystemThread`.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::Builder;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = Builder::new().priority(12).spawn(|| 5).unwrap();
    /// assert_eq!(thread.join(), Ok(5));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`PsCreateSystemThread`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-pscreatesystemthread).
    #[doc(alias = "PsCreateSystemThread")]
    pub fn spawn<F, T>(self, closure: F) -> Result<JoinHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let image = Image::this();
        image.started.fetch_add(1, Ordering::SeqCst);
        packet::sweep(&image.threads);
        // SAFETY: closure and result are `'static`. The image's list is drained before the image goes.
        let packet = unsafe { packet::spawn(self.settings, closure, &image.threads) }?;
        Ok(JoinHandle { packet, _result: PhantomData })
    }
}

/// The right to wait for a thread and to take what it returned.
///
/// Waiting on it as a [`Dispatchable`] waits for the thread's end and leaves the result there.
///
/// # Invariants
/// The packet is alive, and nobody else frees it.
///
/// # IRQL
/// Dropping it waits for the thread, at `<= APC_LEVEL`. Where that is impossible, at a higher level or in the very thread that it is for, the
/// thread is [detached](Self::detach) instead, which in the first case a line to the debugger reports.
///
/// # Examples
/// ```
/// use core::time::Duration;
/// use ksync::thread::{self, this_thread};
/// use ksync::wait::Dispatchable;
///
/// # ksim::Machine::new().run(|| {
/// let thread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1)).unwrap()).unwrap();
/// assert!(thread.wait_for(Duration::from_millis(10), false).timed_out());
/// assert_eq!(thread.is_finished(), Ok(false));
/// drop(thread); // waits
/// # }).expect_clean();
/// ```
#[must_use = "the thread is waited for as soon as the handle is dropped; `detach` lets it run"]
pub struct JoinHandle<T = ()> {
    packet: NonNull<Packet<T>>,
    _result: PhantomData<T>,
}

// SAFETY: the handle is a right to the result, which is `Send`, and belongs to no thread.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: a shared handle gives access to the thread object only.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// The thread.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::{self, this_thread};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = thread::spawn(this_thread::id).unwrap();
    /// let object = thread.thread().clone();
    /// assert_eq!(thread.join(), Ok(object.id()));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn thread(&self) -> &ThreadObject {
        // SAFETY: by the type's invariant the packet is alive while `self` is.
        unsafe { packet::thread(self.packet.cast()) }
    }

    /// The thread's identifier.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread::{self, this_thread};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = thread::spawn(this_thread::id).unwrap();
    /// let id = thread.id();
    /// assert_eq!(thread.join(), Ok(id));
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn id(&self) -> ThreadId {
        self.thread().id()
    }

    /// Tells whether the thread has ended: not only the closure, but the thread.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use core::time::Duration;
    /// use ksync::thread::{self, this_thread};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let thread = thread::spawn(|| this_thread::sleep(Duration::from_secs(1))).unwrap();
    /// assert_eq!(thread.is_finished(), Ok(false));
    /// this_thread::sleep(Duration::from_secs(2)).unwrap();
    /// assert_eq!(thread.is_finished(), Ok(true));
    /// # }).expect_clean();
    /// ```
    pub fn is_finished(&self) -> Result<bool> {
        self.thread().is_terminated()
    }

    /// Waits for the thread's end and takes what it returned.
    ///
    /// # IRQL
    /// `<= APC_LEVEL`.
    ///
    /// # Errors
    /// The thread is then left as by a drop of the handle.
    /// - [`NtError::WOULD_DEADLOCK`] in the very thread that the handle is for.
    /// - [`NtError::IRQL_TOO_HIGH`] above `APC_LEVEL`.
    /// - [`NtError::UNSUCCESSFUL`] if the thread ended without a result, because its closure ended the thread itself.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(thread::spawn(|| "done").unwrap().join(), Ok("done"));
    /// # }).expect_clean();
    /// ```
    pub fn join(self) -> Result<T> {
        // SAFETY: by the type's invariant the packet is alive.
        unsafe { packet::check_join(self.packet.cast()) }?;
        let this = ManuallyDrop::new(self);
        // SAFETY: the packet was this handle's, which is not used any more. Whether it may be waited for was checked.
        unsafe { packet::join(this.packet) }
    }

    /// Lets the thread run by itself. It is waited for when the driver is unloaded, and what it returns is dropped then, or when another thread is started.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::thread;
    ///
    /// # ksim::Machine::new().run(|| {
    /// thread::spawn(|| ()).unwrap().detach();
    /// ksync::driver::drain().unwrap(); // what the unload routine does
    /// # }).expect_clean();
    /// ```
    pub fn detach(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the packet was this handle's, which is not used any more.
        unsafe { packet::abandon(this.packet.cast()) };
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        // SAFETY: by the type's invariant the packet is alive.
        match unsafe { packet::check_join(self.packet.cast()) } {
            Ok(()) => {
                // SAFETY: the packet is this handle's, which is going away. Whether it may be waited for was checked.
                drop(unsafe { packet::join(self.packet) });
            }
            Err(error) => {
                if error == NtError::IRQL_TOO_HIGH {
                    crate::println!("ksync: a JoinHandle was dropped above APC_LEVEL; its thread is waited for at unload");
                }
                // SAFETY: the packet is this handle's, which is going away.
                unsafe { packet::abandon(self.packet.cast()) };
            }
        }
    }
}

impl<T> sealed::Sealed for JoinHandle<T> {
    fn dispatcher_object(&self) -> *mut c_void {
        self.thread().as_raw().cast()
    }
}

// SAFETY: the thread object is referenced for as long as the handle lives. A wait on a thread changes nothing in it.
unsafe impl<T> Dispatchable for JoinHandle<T> {}

/// How many processors are active, in all groups.
///
/// # IRQL
/// Any level.
///
/// # Examples
/// ```
/// # ksim::Machine::new().processors(4).run(|| {
/// assert_eq!(ksync::thread::available_parallelism().get(), 4);
/// # }).expect_clean();
/// ```
///
/// Wraps [`KeQueryActiveProcessorCountEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kequeryactiveprocessorcountex).
#[doc(alias = "KeQueryActiveProcessorCountEx")]
#[must_use]
pub fn available_parallelism() -> NonZero<usize> {
    // SAFETY: the routine may be called anywhere.
    let count = unsafe { sys::KeQueryActiveProcessorCountEx(sys::ALL_PROCESSOR_GROUPS) };
    // CAST: from 32 to 64 bits. The processor that runs this is active, so the count is not zero.
    NonZero::new(count as usize).unwrap_or(NonZero::<usize>::MIN)
}

/// Waits until all threads of the image that are not a scope's have ended, and frees those that nobody will join.
pub(crate) fn drain(image: &Image) {
    loop {
        packet::wait_for_all(&image.threads);
        // A result that is dropped here may start a thread in its destructor.
        if !packet::sweep(&image.threads) {
            return;
        }
    }
}

/// Checks that the caller may start a thread.
fn check_level() -> Result {
    irql::require_at_most(Irql::PASSIVE)
}
