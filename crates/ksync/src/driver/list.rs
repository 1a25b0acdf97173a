//! A list of things that are outstanding, under a spin lock.

use core::cell::{Cell, UnsafeCell};
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use ksync_sys as sys;

use crate::irql::{self, Irql};

/// What links a thing into a [`List`]. It is the first field of the thing, so that a pointer to one is a pointer to the other.
///
/// # Invariants
/// While it is in a list, it is touched only under that list's lock, and does not move.
#[derive(Debug)]
pub(crate) struct Node {
    next: Cell<*mut Node>,
    previous: Cell<*mut Node>,
}

impl Node {
    /// A node that is in no list.
    pub(crate) const fn new() -> Self {
        Self { next: Cell::new(ptr::null_mut()), previous: Cell::new(ptr::null_mut()) }
    }
}

/// A doubly linked list of nodes under a spin lock.
///
/// # Invariants
/// The nodes in it are valid for as long as they are in it.
#[derive(Debug)]
pub(crate) struct List {
    lock: UnsafeCell<sys::KSPIN_LOCK>,
    first: Cell<*mut Node>,
    /// Something has been in the list.
    used: AtomicBool,
}

// SAFETY: the list's cells are touched only by the holder of its lock.
unsafe impl Sync for List {}
// SAFETY: a list belongs to no thread.
unsafe impl Send for List {}

impl List {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self { lock: UnsafeCell::new(0), first: Cell::new(ptr::null_mut()), used: AtomicBool::new(false) }
    }

    /// Tells whether anything has ever been in the list, without locking it.
    pub(crate) fn was_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// Locks the list. `None` above `DISPATCH_LEVEL`, where nothing can be locked.
    ///
    /// The level is `DISPATCH_LEVEL` until the guard is dropped. Guards are dropped in the reverse order, and no list is locked twice.
    pub(crate) fn lock(&self) -> Option<Locked<'_>> {
        if irql::current() > Irql::DISPATCH {
            return None;
        }
        // SAFETY: the word is a spin lock for as long as the list lives, and the level was checked. By this function's contract no thread acquires it twice.
        let level = unsafe { sys::KeAcquireSpinLockRaiseToDpc(self.lock.get()) };
        Some(Locked { list: self, level })
    }
}

/// A [`List`] whose lock is held.
#[derive(Debug)]
pub(crate) struct Locked<'a> {
    list: &'a List,
    level: sys::KIRQL,
}

impl Locked<'_> {
    /// Puts a node in.
    ///
    /// # Safety
    /// The node is in no list, and stays valid and in its place until it is taken out of this one. The pointer is one to all of the thing whose first field the node is: it is what finders of the node are
    /// given.
    pub(crate) unsafe fn insert(&mut self, node: *mut Node) {
        let first = self.list.first.get();
        // SAFETY: by this function's contract the node is valid.
        let this = unsafe { &*node };
        this.next.set(first);
        this.previous.set(ptr::null_mut());
        // SAFETY: by the list's invariant the first node, if there is one, is valid.
        if let Some(first) = unsafe { first.as_ref() } {
            first.previous.set(node);
        }
        self.list.first.set(node);
        self.list.used.store(true, Ordering::Release);
    }

    /// Takes a node out.
    ///
    /// # Safety
    /// The node is in this list.
    pub(crate) unsafe fn remove(&mut self, node: *mut Node) {
        // SAFETY: by this function's contract the node is in the list, and so valid.
        let this = unsafe { &*node };
        let (next, previous) = (this.next.get(), this.previous.get());
        // SAFETY: by the list's invariant the neighbour, if there is one, is valid.
        if let Some(next) = unsafe { next.as_ref() } {
            next.previous.set(previous);
        }
        // SAFETY: as above.
        match unsafe { previous.as_ref() } {
            Some(previous) => previous.next.set(next),
            None => self.list.first.set(next),
        }
    }

    /// The nodes, the last inserted first.
    pub(crate) fn nodes(&self) -> Nodes<'_> {
        Nodes { next: self.list.first.get(), _locked: core::marker::PhantomData }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // SAFETY: the guard was made when the lock was acquired, at `level`; guards are dropped in the reverse order.
        unsafe { sys::KeReleaseSpinLock(self.list.lock.get(), self.level) };
    }
}

/// The nodes of a locked list.
#[derive(Debug)]
pub(crate) struct Nodes<'a> {
    next: *mut Node,
    _locked: core::marker::PhantomData<&'a Node>,
}

impl Iterator for Nodes<'_> {
    type Item = *mut Node;

    fn next(&mut self) -> Option<*mut Node> {
        let node = self.next;
        // SAFETY: by the list's invariant the node, if there is one, is valid; the list is locked while this is alive.
        let this = unsafe { node.as_ref() }?;
        // Read now, so that the caller may take the node out.
        self.next = this.next.get();
        Some(node)
    }
}
