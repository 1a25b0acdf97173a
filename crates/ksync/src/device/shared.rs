//! What a device and its routines share, and the way of requests to it.

use core::cell::Cell;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
use core::time::Duration;

use ksync_sys as sys;

use super::irp::{self, Disposition, Irp};
use super::{DeviceObject, Dispatch, Name};
use crate::driver::DriverObject;
use crate::driver::image::{Image, Running};
use crate::driver::list::{Locked, Node};
use crate::error::{NtError, NtStatus, Result, check};
use crate::pool::KBox;
use crate::thread::this_thread;

/// The part that does not depend on the state's type.
///
/// # Invariants
/// - `users` counts the [`SharedRef`]s, of which the list of devices has one while the node is in it.
/// - `device` is written before the node is in the list, and not afterwards.
/// - `attached`, if it is not null, is a device with a reference that is dropped with this.
#[repr(C)]
struct Head {
    node: Node,
    image: &'static Image,
    device: Cell<*mut sys::DEVICE_OBJECT>,
    users: AtomicUsize,
    link: Option<KBox<Name>>,
    linked: AtomicBool,
    /// The device below, while this one is attached to it.
    lower: AtomicPtr<sys::DEVICE_OBJECT>,
    /// The same, for its reference.
    attached: AtomicPtr<sys::DEVICE_OBJECT>,
    dispatch: for<'i> unsafe fn(NonNull<Head>, Irp<'i>) -> Disposition<'i>,
    free: unsafe fn(NonNull<Head>),
}

/// A head and a state, as they are allocated.
#[repr(C)]
pub(super) struct Shared<T> {
    head: Head,
    state: T,
}

/// One use of a state.
///
/// # Invariants
/// The head is alive, and this is one of its users.
pub(super) struct SharedRef(NonNull<Head>);

// SAFETY: the state is `Send` and `Sync`, as `Dispatch` asks, and the rest is atomic or does not change.
unsafe impl Send for SharedRef {}
// SAFETY: as above.
unsafe impl Sync for SharedRef {}

impl<T: Dispatch> Shared<T> {
    /// Makes a state.
    #[expect(clippy::new_ret_no_self, reason = "it is only ever had through its references")]
    pub(super) fn new(state: T, link: Option<KBox<Name>>) -> Result<SharedRef> {
        let shared = KBox::new(Self {
            head: Head {
                node: Node::new(),
                image: Image::this(),
                device: Cell::new(ptr::null_mut()),
                users: AtomicUsize::new(1),
                link,
                linked: AtomicBool::new(false),
                lower: AtomicPtr::new(ptr::null_mut()),
                attached: AtomicPtr::new(ptr::null_mut()),
                dispatch: dispatch::<T>,
                free: free::<T>,
            },
            state,
        })?;
        // SAFETY: pointers of boxes are never null.
        Ok(SharedRef(unsafe { NonNull::new_unchecked(KBox::into_raw(shared).cast()) }))
    }
}

impl SharedRef {
    fn head(&self) -> &Head {
        // SAFETY: by the type's invariant.
        unsafe { self.0.as_ref() }
    }

    /// The state.
    ///
    /// # Safety
    /// It is a `T`.
    pub(super) unsafe fn state<T>(&self) -> &T {
        // SAFETY: by this function's contract the head is the first part of a `Shared<T>`, which is alive.
        unsafe { &(*self.0.cast::<Shared<T>>().as_ptr()).state }
    }

    /// The name of the link that the device is to have.
    pub(super) fn link(&self) -> Option<&Name> {
        self.head().link.as_deref()
    }

    /// The link has been created.
    pub(super) fn set_linked(&self) {
        self.head().linked.store(true, Ordering::Relaxed);
    }

    /// The link, if it was created and has not been deleted: the caller deletes it.
    pub(super) fn take_link(&self) -> Option<&Name> {
        self.link().filter(|_| self.head().linked.swap(false, Ordering::Relaxed))
    }

    /// Attaches the device to the stack of another. The level was checked.
    pub(super) fn attach(&self, device: *mut sys::DEVICE_OBJECT, target: *mut sys::DEVICE_OBJECT) -> Result {
        let head = self.head();
        // The place is taken first, so that two do not attach.
        let free = head.attached.compare_exchange(ptr::null_mut(), target, Ordering::Relaxed, Ordering::Relaxed);
        if free.is_err() {
            return Err(NtError::INVALID_DEVICE_STATE);
        }
        // SAFETY: the target is open, and so valid.
        unsafe { sys::ObfReferenceObject(target.cast()) };
        let mut lower = ptr::null_mut();
        let attach = |lower: *mut *mut sys::DEVICE_OBJECT| {
            // Under the lock two of the driver's devices are not attached to each other at the same time.
            let _list = head.image.devices.lock().ok_or(NtError::IRQL_TOO_HIGH)?;
            // The I/O manager does not look for rings: it would follow one for ever, under its own lock.
            if top_of(device) == top_of(target) {
                return Err(NtError::INVALID_PARAMETER);
            }
            // SAFETY: both devices are valid, and the result is a local variable of the caller's.
            check(unsafe { sys::IoAttachDeviceToDeviceStackSafe(device, target, lower) })
        };
        if let Err(error) = attach(&raw mut lower) {
            // SAFETY: the reference was taken above.
            unsafe { sys::ObfDereferenceObject(target.cast()) };
            head.attached.store(ptr::null_mut(), Ordering::Relaxed);
            return Err(error);
        }
        // The top of the stack, which may be another device than the target.
        // SAFETY: the device that this one is attached to is not freed while it is.
        unsafe { sys::ObfReferenceObject(lower.cast()) };
        // SAFETY: the reference was taken above.
        unsafe { sys::ObfDereferenceObject(target.cast()) };
        // Requests come as the top of the stack asks, and must come as the devices below expect them. So do those of power management, at the level that the last two say.
        const DO_POWER_PAGABLE: u32 = 0x2000;
        const DO_POWER_INRUSH: u32 = 0x4000;
        const METHODS: u32 = sys::DO_BUFFERED_IO | sys::DO_DIRECT_IO | DO_POWER_PAGABLE | DO_POWER_INRUSH;
        // SAFETY: the lower device is referenced; its driver sets these flags before it can be attached to.
        let methods = unsafe { (*lower).Flags } & METHODS;
        // SAFETY: the device is valid; the field is only pointed to.
        let flags = unsafe { &raw mut (*device).Flags };
        // SAFETY: the device is this driver's, which alone changes these flags, here, and once, because it attaches once.
        let own = unsafe { flags.read() };
        // SAFETY: as above.
        unsafe { flags.write(own & !METHODS | methods) };
        head.attached.store(lower, Ordering::Relaxed);
        head.lower.store(lower, Ordering::Release);
        Ok(())
    }

    /// The device below, if this one is attached: the caller detaches it.
    pub(super) fn detach(&self) -> Option<NonNull<sys::DEVICE_OBJECT>> {
        NonNull::new(self.head().lower.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Tells whether whoever has requests for the device has it open, and so keeps it and its driver: it is attached to no other.
    fn is_kept_by_files(&self) -> bool {
        self.head().attached.load(Ordering::Relaxed).is_null()
    }

    /// The pointer, which is a use of its own.
    fn into_raw(self) -> *mut Head {
        core::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Clone for SharedRef {
    fn clone(&self) -> Self {
        // The count cannot overflow: each use belongs to a call, or is one of a few.
        self.head().users.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl Drop for SharedRef {
    fn drop(&mut self) {
        if self.head().users.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            let free = self.head().free;
            // SAFETY: this was the last use, and the function is the one for this state.
            unsafe { free(self.0) };
        }
    }
}

/// The device at the top of the stack that a device is in. It is only compared.
///
/// The device is valid, and the level `<= DISPATCH_LEVEL`.
fn top_of(device: *mut sys::DEVICE_OBJECT) -> *mut sys::DEVICE_OBJECT {
    // SAFETY: by this function's contract.
    let top = unsafe { sys::IoGetAttachedDeviceReference(device) };
    // SAFETY: the routine has referenced it. At this level the deletion of one that was the last to be used is left to a system thread.
    unsafe { sys::ObDereferenceObjectDeferDelete(top.cast()) };
    top
}

/// Frees a state.
///
/// # Safety
/// The head is the first part of a `Shared<T>`, and nobody uses it any more.
unsafe fn free<T>(head: NonNull<Head>) {
    // SAFETY: by this function's contract; the block was given up for this pointer when it was made.
    let shared = unsafe { KBox::from_raw(head.cast::<Shared<T>>().as_ptr()) };
    let attached = shared.head.attached.load(Ordering::Relaxed);
    drop(shared);
    if !attached.is_null() {
        // SAFETY: by the type's invariant there is a reference, which goes with the state.
        unsafe { sys::ObfDereferenceObject(attached.cast()) };
    }
}

/// Calls the routine for a request.
///
/// # Safety
/// The head is the first part of a `Shared<T>`, which stays alive during the call.
unsafe fn dispatch<'i, T: Dispatch>(head: NonNull<Head>, irp: Irp<'i>) -> Disposition<'i> {
    // SAFETY: by this function's contract.
    let state = unsafe { &(*head.cast::<Shared<T>>().as_ptr()).state };
    match irp.major_function() {
        sys::IRP_MJ_CREATE => state.create(irp),
        sys::IRP_MJ_CLEANUP => state.cleanup(irp),
        sys::IRP_MJ_CLOSE => state.close(irp),
        sys::IRP_MJ_READ => state.read(irp),
        sys::IRP_MJ_WRITE => state.write(irp),
        sys::IRP_MJ_DEVICE_CONTROL => state.device_control(irp),
        _ => state.other(irp),
    }
}

/// Makes a device findable: from now on its requests find the state. The level is `DISPATCH_LEVEL` or below.
///
/// A device's extension would be found faster, but nothing tells whether a device of the driver that was made otherwise has one that could be read.
pub(super) fn register(device: *mut sys::DEVICE_OBJECT, shared: SharedRef) {
    shared.head().device.set(device);
    let Some(mut list) = shared.head().image.devices.lock() else { return };
    // SAFETY: the node is in no list, as a state belongs to one device. It is the head's first field, and stays valid with the use that is given up here.
    unsafe { list.insert(shared.into_raw().cast()) };
}

/// The head of a device in the list.
fn find(list: &Locked<'_>, device: *mut sys::DEVICE_OBJECT) -> Option<NonNull<Head>> {
    let mut heads = list.nodes().map(|node| node.cast::<Head>());
    // SAFETY: the nodes of this list are the first fields of heads, which are alive while they are in it.
    heads.find(|&head| unsafe { (*head).device.get() } == device).and_then(NonNull::new)
}

/// Takes a device out: its requests find no state any more. The level is `DISPATCH_LEVEL` or below.
pub(super) fn unregister(shared: &SharedRef) -> Option<SharedRef> {
    let mut list = shared.head().image.devices.lock()?;
    let head = find(&list, shared.head().device.get())?;
    // SAFETY: the node is in this list.
    unsafe { list.remove(head.as_ptr().cast()) };
    // The use that was given up at the registration.
    Some(SharedRef(head))
}

/// A use of a device's state, unless the device is going or is none of this library's. As long as the device cannot be deleted, `found` is told whether those who have it open keep it.
fn enter(device: *mut sys::DEVICE_OBJECT, found: impl FnOnce(bool)) -> Option<SharedRef> {
    let list = Image::this().devices.lock()?;
    let registered = core::mem::ManuallyDrop::new(SharedRef(find(&list, device)?));
    found(registered.is_kept_by_files());
    Some((*registered).clone())
}

/// The device that a device of this library is attached to, or null. It is referenced while a dispatch routine of the device runs.
pub(super) fn lower_of(device: &DeviceObject) -> *mut sys::DEVICE_OBJECT {
    enter(device.as_raw(), |_| ()).map_or(ptr::null_mut(), |shared| shared.head().lower.load(Ordering::Acquire))
}

/// Routes all requests for a driver's devices here.
pub(super) fn route(driver: &DriverObject) {
    let table: *mut sys::PDRIVER_DISPATCH =
        driver.as_raw().wrapping_byte_add(core::mem::offset_of!(sys::DRIVER_OBJECT, MajorFunction)).cast();
    for major in 0..=sys::IRP_MJ_MAXIMUM_FUNCTION {
        let entry = table.wrapping_add(major).cast::<*mut ()>();
        // SAFETY: the entry is in the driver's object, which is valid while it is borrowed. The I/O manager may read it at the same time.
        let entry = unsafe { AtomicPtr::from_ptr(entry) };
        entry.store(dispatch_routine as *mut (), Ordering::Relaxed);
    }
}

/// The kernel's way to all devices of the driver.
///
/// # Safety
/// It is called by the I/O manager, with a device of the driver and a request that it gives up.
unsafe extern "system-unwind" fn dispatch_routine(device: *mut sys::DEVICE_OBJECT, irp: *mut sys::IRP) -> sys::NTSTATUS {
    // SAFETY: the driver owns the request, and this part of it.
    unsafe { irp::cleared(irp).write(ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { irp::reference(irp).write(ptr::null_mut()) };
    // The device is not touched: it may be gone when the request has been completed.
    let shared = enter(device, |is_kept| {
        if !is_kept {
            // SAFETY: a device that is in the list is not deleted before it has been taken out.
            unsafe { sys::ObfReferenceObject(device.cast()) };
            // SAFETY: as above. The reference is given up when the request is.
            unsafe { irp::reference(irp).write(device) };
        }
    });
    // SAFETY: the I/O manager gives the request up. The lifetime is that of this call.
    let irp = unsafe { Irp::from_raw(irp) };
    let Some(shared) = shared else {
        // Who has it open may still close it.
        let status = match irp.major_function() {
            sys::IRP_MJ_CLEANUP | sys::IRP_MJ_CLOSE => NtStatus::SUCCESS,
            _ => NtError::DELETE_PENDING.status(),
        };
        return irp.complete(status, 0).status().0;
    };
    let head = shared.head();
    let (image, this, dispatch) = (head.image, shared.0, head.dispatch);
    let is_kept = shared.is_kept_by_files();
    let run = move || {
        // SAFETY: the function is the one for this state, which is kept until it has returned.
        let disposition = unsafe { dispatch(this, irp) };
        // This may drop the state, which is the driver's code too.
        drop(shared);
        disposition.status().0
    };
    if is_kept { run() } else { Running::run(&image.requests, this.as_ptr().cast_const().cast(), run) }
}

/// Waits until no routine of the image runs for a device that is gone, but in the current thread. (While a device is there the driver is not unloaded.)
///
/// # IRQL
/// `PASSIVE_LEVEL`.
pub(crate) fn drain(image: &Image) {
    let is_there =
        |head: *const ()| image.devices.lock().is_some_and(|list| list.nodes().any(|node| node.cast_const().cast() == head));
    while image.requests.was_used() && Running::any(&image.requests, |is_here, of| !is_here && !is_there(of)) {
        let _ = this_thread::sleep(Duration::from_millis(1));
    }
}
