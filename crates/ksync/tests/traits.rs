//! Which types may go to another thread, and which may be shared with one.
//!
//! The bounds are part of the interface: one that is too weak is unsound, one that is too strong keeps correct drivers from compiling.

use core::cell::Cell;
use core::marker::PhantomPinned;
use ksync::device::{Device, DeviceObject, Dispatch, Irp, IrpQueue, OpenDevice, PendingIrp};
use ksync::dpc::{Dpc, Importance, NotQueued, PinnedDpc, Processor, ThreadedDpc};
use ksync::driver::DriverObject;
use ksync::event::{Event, EventProperty, PinnedEvent};
use ksync::handle::ObjectHandle;
use ksync::object::{EventObject, MutantObject, ProcessId, ProcessObject, SemaphoreObject, ThreadId, ThreadObject, TimerObject};
use ksync::pool::KArc;
use ksync::remove_lock::{PinnedRemoveLock, RemoveGuard, RemoveLock};
use ksync::semaphore::{PinnedSemaphore, Semaphore};
use ksync::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle, SpawnError};
use ksync::time::{InterruptTime, SystemTime, Timeout};
use ksync::timer::{HrTimer, PinnedTimer, Resolution, Timer, TimerKind, TimerResolution};
use ksync::wait::{Dispatchable, WaitOptions, WaitResult};
use ksync::work_item::WorkItem;
use static_assertions::{assert_impl_all, assert_not_impl_any, assert_obj_safe};
use std::rc::Rc;

/// A device that answers nothing.
struct Silent;
impl Dispatch for Silent {}

// Boxed objects go anywhere, and move.
assert_impl_all!(Event: Send, Sync, Unpin, Dispatchable);
assert_impl_all!(Semaphore: Send, Sync, Unpin, Dispatchable);
assert_impl_all!(Timer: Send, Sync, Unpin, Dispatchable);
assert_impl_all!(HrTimer: Send, Sync, Unpin, Dispatchable);
assert_impl_all!(Dpc: Send, Sync, Unpin);
assert_impl_all!(ThreadedDpc: Send, Sync, Unpin);
assert_impl_all!(ThreadObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(ProcessObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(EventObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(SemaphoreObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(MutantObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(TimerObject: Send, Sync, Unpin, Clone, Eq, Dispatchable);
assert_impl_all!(ObjectHandle: Send, Sync, Unpin);

// A handle is closed once, and an event is not two events.
assert_not_impl_any!(ObjectHandle: Clone, Copy);
assert_not_impl_any!(Event: Clone);
assert_not_impl_any!(Dpc: Clone);
assert_not_impl_any!(Timer: Clone);
assert_not_impl_any!(HrTimer: Clone);

// A resolution is the system's, and is taken back once.
assert_impl_all!(TimerResolution: Send, Sync);
assert_not_impl_any!(TimerResolution: Clone);

// Objects in place do not move once they are pinned.
assert_impl_all!(PinnedEvent: Send, Sync, Dispatchable);
assert_impl_all!(PinnedSemaphore: Send, Sync, Dispatchable);
assert_impl_all!(PinnedTimer: Send, Sync, Dispatchable);
assert_not_impl_any!(PinnedEvent: Unpin);
assert_not_impl_any!(PinnedSemaphore: Unpin);
assert_not_impl_any!(PinnedTimer: Unpin);
assert_not_impl_any!(PhantomPinned: Unpin);
assert_impl_all!(PinnedDpc: Send, Sync);

// A device goes with its state, which is shared by its routines; a request belongs to its thread until it is pending.
assert_impl_all!(WorkItem: Send, Sync, Unpin);
assert_not_impl_any!(WorkItem: Clone, Dispatchable);
assert_impl_all!(RemoveLock: Send, Sync, Unpin);
assert_impl_all!(PinnedRemoveLock: Send, Sync);
assert_not_impl_any!(PinnedRemoveLock: Unpin);
assert_impl_all!(RemoveGuard<'static>: Send, Sync);
assert_not_impl_any!(RemoveGuard<'static>: Clone);
assert_impl_all!(Device<Silent>: Send, Sync, Unpin);
assert_not_impl_any!(Device<Silent>: Clone);
assert_impl_all!(OpenDevice: Send, Sync);
assert_not_impl_any!(OpenDevice: Clone);
assert_impl_all!(DeviceObject: Sync);
assert_impl_all!(IrpQueue: Send, Sync);
assert_impl_all!(PendingIrp: Send, Sync);
assert_not_impl_any!(PendingIrp: Clone);
assert_not_impl_any!(Irp<'static>: Send, Sync, Clone);

// A DPC cannot be waited on.
assert_not_impl_any!(Dpc: Dispatchable);

// A thread's handle carries the thread's result, so it goes where the result may go.
assert_impl_all!(JoinHandle<u32>: Send, Sync, Dispatchable);
assert_impl_all!(JoinHandle<Cell<u32>>: Send, Sync);
assert_not_impl_any!(JoinHandle<Rc<u32>>: Send, Sync);
assert_not_impl_any!(JoinHandle<u32>: Clone);
assert_impl_all!(ScopedJoinHandle<'static, Cell<u32>>: Send, Sync, Dispatchable);
assert_not_impl_any!(ScopedJoinHandle<'static, Rc<u32>>: Send, Sync);
assert_impl_all!(Scope<'static, 'static>: Send, Sync);
assert_impl_all!(SpawnError<u32>: Send, Sync, Copy);
assert_not_impl_any!(SpawnError<Rc<u32>>: Send);
assert_impl_all!(NotQueued<u32>: Send, Sync, Copy);
assert_not_impl_any!(NotQueued<Rc<u32>>: Send);

assert_impl_all!(DriverObject: Sync);
assert_obj_safe!(Dispatchable);

// Several owners share a value, and any of them drops it.
assert_impl_all!(KArc<u32>: Send, Sync, Unpin, Clone);
assert_not_impl_any!(KArc<Cell<u32>>: Send, Sync);
assert_not_impl_any!(KArc<Rc<u32>>: Send, Sync);

// Plain values.
assert_impl_all!(Timeout: Send, Sync, Copy, Default);
assert_impl_all!(SystemTime: Send, Sync, Copy, Ord);
assert_impl_all!(InterruptTime: Send, Sync, Copy, Ord);
assert_impl_all!(WaitOptions: Send, Sync, Copy, Default);
assert_impl_all!(WaitResult: Send, Sync, Copy);
assert_impl_all!(EventProperty: Send, Sync, Copy);
assert_impl_all!(TimerKind: Send, Sync, Copy);
assert_impl_all!(Resolution: Send, Sync, Copy);
assert_impl_all!(ThreadId: Send, Sync, Copy, Ord);
assert_impl_all!(ProcessId: Send, Sync, Copy, Ord);
assert_not_impl_any!(ThreadId: PartialEq<ProcessId>, From<ProcessId>);
assert_impl_all!(Importance: Send, Sync, Copy);
assert_impl_all!(Processor: Send, Sync, Copy, Ord);
assert_impl_all!(Builder<'_>: Send, Sync, Copy);
