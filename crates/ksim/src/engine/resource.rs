//! ERESOURCE: executive resources (rule 29).
//!
//! A release hands the resource over: there is no barging.

use super::kernel::{Check, Kernel};
use super::object::{Kind, ObjId};
use super::thread::Tid;
use crate::check::lock_order::Wanted;
use crate::report::bug_check::{Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{ERESOURCE, OWNER_ENTRY, ResourceOwnedExclusive};
use std::collections::VecDeque;

/// One owner: a thread's address, or an owner pointer with both low bits set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Owner {
    key: usize,
    count: u32,
}

/// A thread that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Waiting {
    thread: Tid,
    key: usize,
}

/// A resource's state beside its structure.
#[derive(Debug, Default)]
pub(crate) struct ResourceState {
    exclusive: bool,
    owners: Vec<Owner>,
    waiting_shared: VecDeque<Waiting>,
    waiting_exclusive: VecDeque<Waiting>,
}

/// Which shared acquisition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Acquire {
    Exclusive,
    Shared,
    /// Passes waiting exclusive ones.
    SharedStarveExclusive,
    /// Waits for waiting exclusive ones, even if it is an owner already.
    SharedWaitForExclusive,
}

impl ResourceState {
    fn owner(&mut self, key: usize) -> Option<&mut Owner> {
        self.owners.iter_mut().find(|owner| owner.key == key)
    }

    /// No other thread owns it or waits for it. Owner pointers may be anybody's.
    pub(super) fn leave_to(&mut self, key: usize) {
        self.owners.retain(|owner| owner.key == key || owner.key & 3 != 0);
        self.exclusive &= !self.owners.is_empty();
        self.waiting_shared.clear();
        self.waiting_exclusive.clear();
    }

    /// True when somebody owns it or waits for it.
    pub(crate) fn is_in_use(&self) -> bool {
        !self.owners.is_empty() || !self.waiting_shared.is_empty() || !self.waiting_exclusive.is_empty()
    }

    /// True when its owner does not share it.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// True when somebody waits to have it for himself.
    pub(crate) fn is_contended(&self) -> bool {
        !self.waiting_exclusive.is_empty()
    }

    /// The threads that own it, by address.
    pub(crate) fn owner_keys(&self) -> impl Iterator<Item = usize> {
        self.owners.iter().map(|owner| owner.key)
    }

    /// True when the acquisition needs no wait.
    fn grants(&mut self, how: Acquire, key: usize) -> bool {
        let owner = self.owner(key).is_some();
        let free = self.owners.is_empty();
        let contended = !self.waiting_exclusive.is_empty();
        match how {
            Acquire::Exclusive => free || (self.exclusive && owner),
            _ if self.exclusive => owner,
            Acquire::Shared => free || owner || !contended,
            Acquire::SharedStarveExclusive => true,
            Acquire::SharedWaitForExclusive => free || !contended,
        }
    }

    fn grant(&mut self, exclusive: bool, key: usize) {
        if self.owners.is_empty() {
            self.exclusive = exclusive;
        }
        match self.owner(key) {
            Some(owner) => owner.count += 1,
            None => self.owners.push(Owner { key, count: 1 }),
        }
    }

    fn is_waiting(&self, tid: Tid) -> bool {
        self.waiting_shared.iter().chain(&self.waiting_exclusive).any(|waiting| waiting.thread == tid)
    }
}

impl Kernel {
    /// The resource at `pointer`.
    pub(crate) fn resource_at(&mut self, pointer: *const ERESOURCE) -> Check<ObjId> {
        self.object_of_kind(pointer, "resource", |kind| matches!(kind, Kind::Resource(_)))
    }

    fn resource_state(&mut self, id: ObjId) -> &mut ResourceState {
        match &mut self.objects[id].kind {
            Kind::Resource(state) => state,
            _ => unreachable!("the caller found a resource here"),
        }
    }

    /// The key that the running thread owns resources by.
    pub(crate) fn resource_key(&self) -> usize {
        self.current_thread().map_or(0, |tid| self.threads[tid as usize].address())
    }

    /// The thread that an owner is, for the trace. None for an owner pointer.
    fn thread_of_key(&self, key: usize) -> Option<Tid> {
        let current = self.current_thread().filter(|&tid| self.threads[tid as usize].address() == key);
        if current.is_some() || !self.trace.is_enabled() {
            return current;
        }
        self.threads.iter().position(|thread| thread.address() == key).map(|index| index as Tid)
    }

    /// Registers a resource.
    ///
    /// # Safety
    /// `resource` points to writable memory of an ERESOURCE.
    pub(crate) unsafe fn initialize_resource(&mut self, resource: *mut ERESOURCE) -> Check<()> {
        let known = self.objects.find(resource as usize);
        if let Some(id) = known
            && matches!(self.objects[id].kind, Kind::Resource(_))
        {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::RESOURCE_REINITIALIZED, resource as u64, 0, 0],
                "a resource was initialised again that has not been deleted",
            ));
        }
        if (resource as usize) < 0x1_0000 {
            return self.object_at(resource).map(drop);
        }
        let kind = Kind::Resource(Box::default());
        self.check_resident(resource as usize, &kind)?;
        // SAFETY: by the caller's contract; the structure is plain data, for which zero is valid.
        unsafe { resource.write_bytes(0, 1) };
        let id = self.objects.register(resource as usize, kind);
        self.write_resource(id);
        Ok(())
    }

    /// Removes a resource that nobody uses.
    pub(crate) fn delete_resource(&mut self, resource: *mut ERESOURCE) -> Check<()> {
        let id = match self.objects.find(resource as usize) {
            Some(id) if matches!(self.objects[id].kind, Kind::Resource(_)) => id,
            _ => {
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::RESOURCE_UNINITIALIZED, resource as u64, 0, 0],
                    "a resource was deleted that is not initialised",
                ));
            }
        };
        if self.resource_state(id).is_in_use() {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::DELETED_WHILE_OWNED, resource as u64, 0, 0],
                "a resource was deleted that is owned or waited for",
            ));
        }
        self.objects.remove(id);
        Ok(())
    }

    /// Makes a resource free again, whoever owned it.
    pub(crate) fn reinitialize_resource(&mut self, id: ObjId) -> Check<()> {
        let waiting = !self.resource_state(id).waiting_shared.is_empty() || !self.resource_state(id).waiting_exclusive.is_empty();
        if waiting {
            let address = self.objects[id].address as u64;
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REINITIALIZED_OBJECT, address, 0, 0],
                "a resource was re-initialised that threads wait for",
            ));
        }
        for thread in &mut self.threads {
            thread.resources.retain(|&owned| owned != id);
        }
        *self.resource_state(id) = ResourceState::default();
        self.write_resource(id);
        Ok(())
    }

    /// Mirrors the state into the true structure, which drivers' debug code reads.
    pub(super) fn write_resource(&mut self, id: ObjId) {
        let memory = self.objects[id].address as *mut ERESOURCE;
        let state = self.resource_state(id);
        let first = state.owners.first().copied().unwrap_or(Owner { key: 0, count: 0 });
        let active = state.owners.len();
        let flag = if state.exclusive && active > 0 { ResourceOwnedExclusive } else { 0 };
        let (shared, exclusive) = (state.waiting_shared.len(), state.waiting_exclusive.len());
        // SAFETY: the resource is registered, so that its memory is valid.
        unsafe { (*memory).ActiveCount = active as i16 };
        // SAFETY: as above.
        unsafe { (*memory).Flag = flag };
        // SAFETY: as above.
        unsafe { (*memory).ActiveEntries = active as u32 };
        // SAFETY: as above.
        unsafe { (*memory).OwnerEntry = OWNER_ENTRY { OwnerThread: first.key, OwnerCount: first.count } };
        // SAFETY: as above.
        unsafe { (*memory).NumberOfSharedWaiters = shared as u32 };
        // SAFETY: as above.
        unsafe { (*memory).NumberOfExclusiveWaiters = exclusive as u32 };
    }

    /// Acquires a resource, or queues for it when `wait`. None: it must wait; see
    /// [`resource_granted`](Self::resource_granted).
    pub(crate) fn acquire_resource(&mut self, id: ObjId, how: Acquire, wait: bool) -> Check<Option<bool>> {
        if wait {
            let wanted =
                if how == Acquire::SharedStarveExclusive { Wanted::SharedAhead } else { Wanted::of(how == Acquire::Exclusive) };
            self.check_lock_order(id, wanted)?;
        }
        let key = self.resource_key();
        let address = self.objects[id].address as u64;
        let number = self.objects[id].number;
        let state = self.resource_state(id);
        if state.grants(how, key) {
            state.grant(how == Acquire::Exclusive, key);
            self.note_resource(id, key, true);
            self.write_resource(id);
            self.record(Operation::AcquireResource, number, how as u64);
            return Ok(Some(true));
        }
        if !wait {
            return Ok(Some(false));
        }
        if how == Acquire::Exclusive && state.owner(key).is_some() {
            return Err(Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::SELF_DEADLOCK, address, 0, 0],
                "a shared owner of a resource waited to own it exclusively: it would wait for itself for ever",
            ));
        }
        let waiting = Waiting { thread: self.this_thread(), key };
        let state = self.resource_state(id);
        if how == Acquire::Exclusive {
            state.waiting_exclusive.push_back(waiting);
        } else {
            state.waiting_shared.push_back(waiting);
        }
        // SAFETY: the resource is registered, so that its memory is valid.
        let contention = unsafe { &raw mut (*(address as *mut ERESOURCE)).ContentionCount };
        // SAFETY: as above.
        let count = unsafe { contention.read() };
        // SAFETY: as above.
        unsafe { contention.write(count.wrapping_add(1)) };
        self.write_resource(id);
        Ok(None)
    }

    /// True when the queued acquisition of the running thread has been granted. Otherwise the thread waits.
    pub(crate) fn resource_granted(&mut self, id: ObjId) -> Check<bool> {
        let tid = self.this_thread();
        if !self.resource_state(id).is_waiting(tid) {
            return Ok(true);
        }
        self.park(id, "resource")?;
        Ok(false)
    }

    /// Drops one acquisition of the owner `key`, and hands the resource on with the last one.
    pub(crate) fn release_resource(&mut self, id: ObjId, key: usize, for_thread: bool) -> Check<()> {
        let (address, number) = (self.objects[id].address as u64, self.objects[id].number);
        let state = self.resource_state(id);
        let Some(position) = state.owners.iter().position(|owner| owner.key == key) else {
            if for_thread {
                return Err(Violation::boxed(
                    codes::ERESOURCE_INVALID_RELEASE,
                    [address, key as u64, 0, 0],
                    "ExReleaseResourceForThreadLite was called for a thread that does not own the resource",
                ));
            }
            return Err(Violation::boxed(
                codes::RESOURCE_NOT_OWNED,
                [address, key as u64, 0, 0],
                "a resource was released by a thread that does not own it",
            ));
        };
        state.owners[position].count -= 1;
        let last = state.owners[position].count == 0;
        if last {
            state.owners.remove(position);
        }
        let granted = if last && state.owners.is_empty() { hand_over(state) } else { Vec::new() };
        if last {
            self.note_resource(id, key, false);
        }
        self.write_resource(id);
        let owner = self.thread_of_key(key);
        self.record(Operation::ReleaseResource, number, owner.map_or(u64::MAX, u64::from));
        let how = if self.resource_state(id).exclusive { Acquire::Exclusive } else { Acquire::Shared };
        for tid in granted {
            self.threads[tid as usize].resources.push(id);
            self.record_for(tid, Operation::AcquireResource, number, how as u64);
            self.unpark(tid, id);
        }
        Ok(())
    }

    /// The exclusive owner becomes a shared one, with all who wait to share. Its count stays.
    pub(crate) fn convert_resource(&mut self, id: ObjId) -> Check<()> {
        let key = self.resource_key();
        let address = self.objects[id].address as u64;
        let state = self.resource_state(id);
        if !state.exclusive || state.owner(key).is_none() {
            return Err(Violation::boxed(
                codes::RESOURCE_NOT_OWNED,
                [address, key as u64, 0, 0],
                "a resource was converted from exclusive to shared by a thread that does not own it exclusively",
            ));
        }
        state.exclusive = false;
        let admitted: Vec<Waiting> = state.waiting_shared.drain(..).collect();
        for waiting in &admitted {
            state.grant(false, waiting.key);
        }
        self.write_resource(id);
        let number = self.objects[id].number;
        self.record(Operation::ConvertResource, number, 0);
        for waiting in admitted {
            self.threads[waiting.thread as usize].resources.push(id);
            self.record_for(waiting.thread, Operation::AcquireResource, number, Acquire::Shared as u64);
            self.unpark(waiting.thread, id);
        }
        Ok(())
    }

    /// The running thread's one ownership becomes that of an owner pointer.
    pub(crate) fn set_resource_owner(&mut self, id: ObjId, pointer: usize) -> Check<()> {
        let key = self.resource_key();
        let address = self.objects[id].address as u64;
        let state = self.resource_state(id);
        if pointer & 3 != 3 || state.owner(key).is_none() {
            return Err(Violation::boxed(
                codes::RESOURCE_NOT_OWNED,
                [address, pointer as u64, 0, 1],
                "an owner pointer has both low bits set, and is set by an owner of the resource",
            ));
        }
        if let Some(owner) = state.owner(key) {
            owner.key = pointer;
        }
        self.note_resource(id, key, false);
        self.write_resource(id);
        Ok(())
    }

    /// A thread, known by its address, has become an owner or is none any more. An owner pointer is no thread.
    fn note_resource(&mut self, id: ObjId, key: usize, owns: bool) {
        let Some(object) = self.objects.find(key) else { return };
        let Kind::Thread(tid) = self.objects[object].kind else { return };
        let resources = &mut self.threads[tid as usize].resources;
        match resources.iter().position(|&owned| owned == id) {
            Some(position) if !owns => {
                resources.swap_remove(position);
            }
            None if owns => resources.push(id),
            _ => {}
        }
    }

    /// How often the running thread owns the resource; and whether exclusively.
    pub(crate) fn resource_ownership(&mut self, id: ObjId) -> (u32, bool) {
        let key = self.resource_key();
        let state = self.resource_state(id);
        let count = state.owner(key).map_or(0, |owner| owner.count);
        (count, state.exclusive && count > 0)
    }

    /// How many threads wait: exclusively, to share.
    pub(crate) fn resource_waiters(&mut self, id: ObjId) -> (u32, u32) {
        let state = self.resource_state(id);
        (state.waiting_exclusive.len() as u32, state.waiting_shared.len() as u32)
    }

    /// Acquisition and release are for where normal kernel APCs are held back.
    pub(crate) fn check_resource_region(&mut self, id: ObjId, sub_code: u64) -> Check<()> {
        let off = self.irql() >= crate::irql::APC_LEVEL
            || self.current_thread().is_some_and(|tid| self.threads[tid as usize].apc.normal_disabled());
        if off || !self.config.rules.has_level(sub_code) {
            return Ok(());
        }
        let address = self.objects[id].address as u64;
        Err(Violation::boxed(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [sub_code, 0, address, 0],
            "a resource was acquired or released with normal kernel APCs enabled",
        ))
    }
}

/// After the last release: all who wait to share after an exclusive owner, or else one exclusive, or else the sharing ones.
/// Returns who was granted.
fn hand_over(state: &mut ResourceState) -> Vec<Tid> {
    let was_exclusive = std::mem::take(&mut state.exclusive);
    if (!was_exclusive || state.waiting_shared.is_empty())
        && let Some(next) = state.waiting_exclusive.pop_front()
    {
        state.grant(true, next.key);
        return vec![next.thread];
    }
    let admitted: Vec<Waiting> = state.waiting_shared.drain(..).collect();
    for waiting in &admitted {
        state.grant(false, waiting.key);
    }
    admitted.into_iter().map(|waiting| waiting.thread).collect()
}
