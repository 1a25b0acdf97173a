//! A queue of threads that wait to be woken: what [`Condvar`](super::Condvar) and [`Barrier`](super::Barrier) are made of.
//!
//! Each waiter has a node in its own stack frame, with an event in it. The nodes form a list, which a spin lock guards. A node leaves the list before it is woken, and
//! under that lock; and a waiter that gives up takes itself out under it. So after either nobody knows of the node.

use core::cell::{Cell, UnsafeCell};
use core::marker::PhantomPinned;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::pin::{Pin, pin};
use core::ptr;

use ksync_sys as sys;

use super::locked::PinnedLocked;
use super::spin::Spin;
use crate::error::{NtError, Result};
use crate::time::Timeout;

/// A queue of waiters, with what its user keeps beside it.
///
/// # Invariants
/// Each node in the list is pinned in the frame of a [`wait`](Self::wait) that has not returned.
#[derive(Debug)]
pub(super) struct WaitQueue<T> {
    list: PinnedLocked<List<T>, Spin>,
}

/// The list, and what is beside it.
#[derive(Debug)]
struct List<T> {
    first: *const Node,
    last: *const Node,
    beside: T,
}

// SAFETY: the pointers are to nodes that stay where they are as long as they are in the list, and are used under the list's lock only.
unsafe impl<T: Send> Send for List<T> {}

/// A waiter.
///
/// All fields but the event are used under the queue's lock only.
#[derive(Debug)]
struct Node {
    event: UnsafeCell<MaybeUninit<sys::KEVENT>>,
    next: Cell<*const Node>,
    previous: Cell<*const Node>,
    queued: Cell<bool>,
    _pinned: PhantomPinned,
}

/// A turn with the queue.
pub(super) struct Turn<'a, T> {
    list: &'a mut List<T>,
}

impl<T> Turn<'_, T> {
    /// What is kept beside the queue.
    pub(super) fn beside(&mut self) -> &mut T {
        &mut self.list.beside
    }

    /// Wakes the waiter that came first. Returns whether there was one.
    pub(super) fn wake_one(&mut self) -> bool {
        let first = self.list.first;
        // SAFETY: by the queue's invariant the node is there while it is in the list, whose lock is held.
        let Some(node) = (unsafe { first.as_ref() }) else { return false };
        self.list.remove(node);
        // The waiter cannot return before it has had a turn itself, so that the event outlives the call.
        // SAFETY: the event is initialised and stays where it is. IRQL: `DISPATCH_LEVEL`, and the call does not wait.
        unsafe { sys::KeSetEvent(node.event(), sys::EVENT_INCREMENT, sys::FALSE) };
        true
    }

    /// Wakes all.
    pub(super) fn wake_all(&mut self) {
        while self.wake_one() {}
    }
}

impl<T> List<T> {
    /// Puts a node at the end.
    fn append(&mut self, node: &Node) {
        node.next.set(ptr::null());
        node.previous.set(self.last);
        node.queued.set(true);
        // SAFETY: by the queue's invariant the node is there while it is in the list, whose lock is held.
        match unsafe { self.last.as_ref() } {
            Some(last) => last.next.set(node),
            None => self.first = node,
        }
        self.last = node;
    }

    /// Takes a node out.
    fn remove(&mut self, node: &Node) {
        let (next, previous) = (node.next.get(), node.previous.get());
        // SAFETY: by the queue's invariant the neighbours are there while they are in the list, whose lock is held.
        match unsafe { next.as_ref() } {
            Some(next) => next.previous.set(previous),
            None => self.last = previous,
        }
        // SAFETY: as above.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.first = next,
        }
        node.queued.set(false);
    }
}

impl Node {
    /// The event.
    fn event(&self) -> *mut sys::KEVENT {
        self.event.get().cast()
    }
}

impl<T> WaitQueue<T> {
    /// Makes an empty queue.
    pub(super) const fn new(beside: T) -> Self {
        Self { list: PinnedLocked::const_new(List { first: ptr::null(), last: ptr::null(), beside }) }
    }

    /// Has a turn with the queue.
    ///
    /// # Errors
    /// [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    pub(super) fn turn<R>(&self, run: impl FnOnce(&mut Turn<'_, T>) -> R) -> Result<R> {
        self.list.with(|list| run(&mut Turn { list }))
    }

    /// Has a turn, and if it says so stands in line, does something, and waits.
    ///
    /// Returns what the turn returned if it did not say so.
    ///
    /// The caller is at `<= APC_LEVEL`.
    ///
    /// # Errors
    /// - [`NtError::TIMEOUT`] if nobody woke the caller in time.
    /// - [`NtError::IRQL_TOO_HIGH`] above `DISPATCH_LEVEL`.
    pub(super) fn wait<R>(
        &self,
        first: impl FnOnce(&mut Turn<'_, T>) -> Option<R>,
        then: impl FnOnce(),
        timeout: Timeout,
    ) -> Result<Option<R>> {
        let node = pin!(Node {
            event: UnsafeCell::new(MaybeUninit::uninit()),
            next: Cell::new(ptr::null()),
            previous: Cell::new(ptr::null()),
            queued: Cell::new(false),
            _pinned: PhantomPinned,
        });
        let node = node.into_ref();
        // SAFETY: the memory is valid for writes, lies in a kernel stack that is not paged out during a kernel-mode wait, and stays where it is.
        unsafe { sys::KeInitializeEvent(node.event(), sys::SynchronizationEvent, sys::FALSE) };
        let done = self.list.with(|list| {
            let done = first(&mut Turn { list });
            if done.is_none() {
                // INVARIANT: the node is pinned, and `Standing` takes it out before this function returns.
                list.append(&node);
            }
            done
        })?;
        if done.is_some() {
            return Ok(done);
        }
        let standing = Standing { queue: self, node };
        then();
        let timeout = timeout.to_raw();
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: the event is initialised and outlives the wait; the timeout is null or a local variable. IRQL: the caller's.
        unsafe { sys::KeWaitForSingleObject(node.event().cast(), sys::Executive, sys::KernelMode, sys::FALSE, timeout) };
        if standing.leave() { Err(NtError::TIMEOUT) } else { Ok(None) }
    }
}

/// A node's stay in the list. It ends when this is dropped, also by the unwinding of a thread that a stopping machine ends.
struct Standing<'a, T> {
    queue: &'a WaitQueue<T>,
    node: Pin<&'a Node>,
}

impl<T> Standing<'_, T> {
    /// Ends the stay. Returns whether the node was still in the list, so that nobody woke it.
    fn leave(self) -> bool {
        ManuallyDrop::new(self).take_out()
    }

    /// Takes the node out of the list if it is still there, and waits for whoever took it out to be done with it.
    fn take_out(&self) -> bool {
        let was_queued = self.queue.list.with(|list| {
            let queued = self.node.queued.get();
            if queued {
                list.remove(&self.node);
            }
            queued
        });
        // The level is that at which the list was locked before.
        was_queued.unwrap_or(false)
    }
}

impl<T> Drop for Standing<'_, T> {
    fn drop(&mut self) {
        self.take_out();
    }
}
