//! The side table: what the hosted kernel knows of each kernel object, by address.
//!
//! State that drivers' inlined header code reads lives in the true structures (`SignalState`, a spin lock's word ...).
//! Everything that the engine relies on lives here, so that a driver that overwrites, moves or frees an object is
//! reported rather than obeyed.

use super::addresses::AddressTable;
use super::callback::{CallbackState, Registration};
use super::context::STACK_BYTES;
use super::dpc::DpcState;
use super::ex_timer::ExTimerState;
use super::fast_mutex::FastMutexState;
use super::io::device::DeviceState;
use super::io::device_queue::DeviceQueueState;
use super::io::file::FileState;
use super::io::interrupt::InterruptState;
use super::io::irp::IrpState;
use super::io::remove_lock::RemoveLockState;
use super::io::work::IoWorkState;
use super::kernel::{Check, Kernel};
use super::layout;
use super::liveness::StackOf;
use super::mutant::MutantState;
use super::push_lock::PushState;
use super::queue::QueueState;
use super::resource::ResourceState;
use super::rundown::RundownState;
use super::spin::SpinState;
use super::spin_rw::SpinRwState;
use super::thread::Tid;
use super::timer::TimerState;
use crate::check::rules::RuleId;
use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{DISPATCHER_HEADER, LIST_ENTRY};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::MutexGuard;

/// The index of an object in the side table.
pub(crate) type ObjId = u32;

/// Stands for the system itself where an object would be: what threads in KeFlushQueuedDpcs and KeGenericCallDpc are parked on.
pub(crate) const SYSTEM: ObjId = ObjId::MAX;

/// One entry of an object's wait list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Waiter {
    pub(crate) thread: Tid,
    /// Which of the thread's wait blocks.
    pub(crate) slot: u16,
}

/// What an object is, with the state that belongs to its kind.
#[derive(Debug)]
pub(crate) enum Kind {
    /// KEVENT.
    Event { notification: bool },
    /// KSEMAPHORE.
    Semaphore,
    /// KMUTANT, KMUTEX.
    Mutant(MutantState),
    /// KTIMER.
    Timer(TimerState),
    /// EX_TIMER.
    ExTimer(Box<ExTimerState>),
    /// ETHREAD.
    Thread(Tid),
    /// EPROCESS.
    Process(u32),
    /// KQUEUE.
    Queue(Box<QueueState>),
    /// KDPC.
    Dpc(DpcState),
    /// KSPIN_LOCK, in either form of use.
    SpinLock(Box<SpinState>),
    /// FAST_MUTEX, KGUARDED_MUTEX.
    FastMutex(FastMutexState),
    /// ERESOURCE.
    Resource(Box<ResourceState>),
    /// EX_PUSH_LOCK.
    PushLock(Box<PushState>),
    /// EX_SPIN_LOCK.
    SpinRw(Box<SpinRwState>),
    /// EX_RUNDOWN_REF.
    Rundown(Box<RundownState>),
    /// A lookaside list, of either kind.
    Lookaside,
    /// DRIVER_OBJECT.
    Driver(u16),
    /// DEVICE_OBJECT.
    Device(Box<DeviceState>),
    /// FILE_OBJECT.
    File(Box<FileState>),
    /// IRP.
    Irp(Box<IrpState>),
    /// WORK_QUEUE_ITEM, while it is queued.
    WorkItem,
    /// IO_WORKITEM.
    IoWorkItem(Box<IoWorkState>),
    /// IO_REMOVE_LOCK.
    RemoveLock(Box<RemoveLockState>),
    /// KDEVICE_QUEUE.
    DeviceQueue(Box<DeviceQueueState>),
    /// CALLBACK_OBJECT.
    Callback(Box<CallbackState>),
    /// KINTERRUPT.
    Interrupt(Box<InterruptState>),
    /// What ExRegisterCallback returns.
    Registration(Box<Registration>),
    /// A registration of KeRegisterProcessorChangeCallback. No processor is ever added, so that its routine is not kept.
    ProcessorRegistration,
    /// A slot whose object is gone.
    Free,
}

impl Kind {
    /// The NT name of the type.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Event { .. } => "event",
            Self::Semaphore => "semaphore",
            Self::Interrupt(_) => "interrupt",
            Self::Mutant(_) => "mutex",
            Self::Timer(_) => "timer",
            Self::ExTimer(_) => "EX_TIMER",
            Self::Thread(_) => "thread",
            Self::Process(_) => "process",
            Self::Queue(_) => "queue",
            Self::Dpc(_) => "DPC",
            Self::SpinLock(_) => "spin lock",
            Self::FastMutex(_) => "fast mutex",
            Self::Resource(_) => "resource",
            Self::PushLock(_) => "push lock",
            Self::SpinRw(_) => "reader-writer spin lock",
            Self::Rundown(_) => "rundown protection",
            Self::Lookaside => "lookaside list",
            Self::Driver(_) => "driver",
            Self::Device(_) => "device",
            Self::File(_) => "file",
            Self::Irp(_) => "request (IRP)",
            Self::WorkItem => "work item",
            Self::IoWorkItem(_) => "I/O work item",
            Self::RemoveLock(_) => "remove lock",
            Self::DeviceQueue(_) => "device queue",
            Self::Callback(_) => "callback object",
            Self::Registration(_) => "callback registration",
            Self::ProcessorRegistration => "registration for processors",
            Self::Free => "freed object",
        }
    }

    /// True for objects that threads can wait on.
    pub(crate) fn is_waitable(&self) -> bool {
        matches!(
            self,
            Self::Event { .. }
                | Self::Semaphore
                | Self::Mutant(_)
                | Self::Timer(_)
                | Self::ExTimer(_)
                | Self::Thread(_)
                | Self::Process(_)
                | Self::Queue(_)
        )
    }
}

/// One object.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) address: usize,
    /// The object's number in reports and traces: addresses differ from run to run, numbers do not.
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) waiters: VecDeque<Waiter>,
    pub(crate) identity: Identity,
    /// A thread waits for it among several, or has.
    pub(crate) of_several: bool,
    /// The last operation on it, for the class of the run.
    pub(crate) last_operation: u64,
    /// What the true structure begins with as long as it is there, or 0 for those that are not looked at: see [`liveness`](super::liveness).
    pub(crate) beginning: u32,
    /// The thread on whose stack it lies.
    pub(crate) stack_of: StackOf,
}

/// Whether an object is known to be the same one as long as it has its number: the memory of a lock that is a word may become another lock's without a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Identity {
    /// Nobody has asked.
    Unasked,
    Known,
    Unknown,
}

impl Object {
    /// The dispatcher header of the object, which must be waitable.
    #[inline]
    pub(crate) fn header(&self) -> *mut DISPATCHER_HEADER {
        self.address as *mut DISPATCHER_HEADER
    }

    /// Reads the signal state.
    #[inline]
    pub(crate) fn signal_state(&self) -> i32 {
        // SAFETY: dispatcher objects are registered by their initialisation with a pointer that its caller vouched for,
        // and leave the table when their memory is freed.
        unsafe { (*self.header()).SignalState }
    }

    /// Writes the signal state.
    #[inline]
    pub(crate) fn set_signal_state(&self, state: i32) {
        // SAFETY: as in `signal_state`.
        unsafe { (*self.header()).SignalState = state }
    }

    /// The head of the wait list in the true structure.
    #[inline]
    pub(crate) fn wait_list_head(&self) -> *mut LIST_ENTRY {
        // SAFETY: a field address within an object that is registered and so valid.
        unsafe { &raw mut (*self.header()).WaitListHead }
    }
}

/// All objects of a machine.
#[derive(Debug, Default)]
pub(crate) struct ObjectTable {
    slots: Vec<Object>,
    /// How many entries are in use, or were. Those behind are of machines before this, and free.
    used: usize,
    free: Vec<ObjId>,
    by_address: AddressTable<ObjId>,
    last_number: u32,
    /// Objects that may lie on the stack of a thread.
    on_stack: Vec<ObjId>,
    /// Keeps other machines from the statics of the program.
    statics: Option<MutexGuard<'static, ()>>,
    /// What each object was, by its number, if that is kept. There is no number 0.
    kinds: Vec<&'static str>,
    keeps_kinds: bool,
}

impl std::ops::Index<ObjId> for ObjectTable {
    type Output = Object;
    #[inline]
    fn index(&self, id: ObjId) -> &Object {
        &self.slots[id as usize]
    }
}

impl std::ops::IndexMut<ObjId> for ObjectTable {
    #[inline]
    fn index_mut(&mut self, id: ObjId) -> &mut Object {
        &mut self.slots[id as usize]
    }
}

impl ObjectTable {
    /// The object at `address`.
    #[inline]
    pub(crate) fn find(&self, address: usize) -> Option<ObjId> {
        self.by_address.get(address)
    }

    /// The object at `address`, for who only looks.
    #[inline]
    pub(crate) fn peek(&self, address: usize) -> Option<&Object> {
        self.find(address).map(|id| &self.slots[id as usize])
    }

    /// Asks the host's caches for an entry.
    #[inline]
    pub(crate) fn prefetch(&self, id: ObjId) {
        let entry = (&raw const self.slots[id as usize]).addr();
        super::timer::prefetch(entry);
        super::timer::prefetch(entry + 64);
    }

    /// What is at `address` is about to be looked at for the first time: if it is a static, other machines have to be done with it.
    pub(crate) fn claim(&mut self, address: usize) {
        if self.statics.is_none() && crate::host::is_in_program(address) {
            self.claim_all();
        }
    }

    /// Statics are, or will be, used: other machines have to be done with them.
    pub(crate) fn claim_all(&mut self) {
        self.statics = Some(crate::host::claim_statics());
    }

    /// True when the machine has used statics.
    pub(crate) fn uses_statics(&self) -> bool {
        self.statics.is_some()
    }

    /// Frees the locks in statics, which the machine leaves as it ends: the next one finds them as the first did.
    pub(crate) fn free_statics(&mut self) {
        for object in &self.slots[..self.used] {
            if !crate::host::is_in_program(object.address) {
                continue;
            }
            // Only what is held: what is not may have become something else, which nobody says of a lock that is a word.
            let is_word = match &object.kind {
                Kind::SpinLock(lock) => lock.owner.is_some(),
                Kind::PushLock(lock) => lock.is_in_use(),
                Kind::Rundown(_) => true,
                Kind::SpinRw(lock) if lock.is_held() => {
                    // SAFETY: the word of a lock that is held is valid, and statics are there for ever. It is half as large as the others.
                    unsafe { (object.address as *mut ksync_sys::EX_SPIN_LOCK).write(0) };
                    false
                }
                _ => false,
            };
            if is_word {
                // SAFETY: as above.
                unsafe { (object.address as *mut usize).write(0) };
            }
        }
    }

    /// Enters an object. One that stood at the same address before is replaced and keeps its index, not its number.
    pub(crate) fn register(&mut self, address: usize, kind: Kind) -> ObjId {
        self.last_number += 1;
        let number = self.last_number;
        if self.keeps_kinds {
            self.kinds.push(kind.name());
        }
        // What a thread initialises on its own stack is not far above the frame of this function. Which stack it is, if any, is looked at when the object is used, or the
        // thread ends.
        let here = (&raw const number).addr();
        let may_be_on_stack = address.wrapping_sub(here) < STACK_BYTES;
        let stack_of = if may_be_on_stack { StackOf::Unasked } else { StackOf::Nobody };
        if let Some(id) = self.find(address) {
            let object = &mut self.slots[id as usize];
            object.number = number;
            object.kind = kind;
            (object.identity, object.of_several) = (Identity::Unasked, false);
            object.waiters.clear();
            object.last_operation = 0;
            object.beginning = 0;
            object.stack_of = stack_of;
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            (self.used - 1) as ObjId
        });
        match self.slots.get_mut(id as usize) {
            Some(object) => {
                object.address = address;
                object.number = number;
                object.kind = kind;
                (object.identity, object.of_several) = (Identity::Unasked, false);
                object.last_operation = 0;
                object.beginning = 0;
                object.stack_of = stack_of;
            }
            None => {
                let (waiters, identity) = (VecDeque::new(), Identity::Unasked);
                let (last_operation, beginning) = (0, 0);
                self.slots.push(Object {
                    address,
                    number,
                    kind,
                    waiters,
                    identity,
                    of_several: false,
                    last_operation,
                    beginning,
                    stack_of,
                });
            }
        }
        self.by_address.insert(address, id);
        if may_be_on_stack {
            self.on_stack.push(id);
        } else {
            self.claim(address);
        }
        id
    }

    /// Takes the objects that lie on a stack off the list of those that may.
    pub(crate) fn take_on_stack(&mut self, stack: &Range<usize>) -> SmallVec<[ObjId; 8]> {
        let mut taken = SmallVec::new();
        let slots = &self.slots;
        self.on_stack.retain(|&id| {
            let object = &slots[id as usize];
            let is_there = stack.contains(&object.address);
            if is_there {
                taken.push(id);
            }
            !is_there && !matches!(object.kind, Kind::Free)
        });
        if taken.len() > 1 {
            // An index that was used again is there twice.
            taken.sort_unstable();
            taken.dedup();
        }
        taken
    }

    /// Removes an object whose memory goes away.
    pub(crate) fn remove(&mut self, id: ObjId) {
        let object = &mut self.slots[id as usize];
        let address = object.address;
        object.kind = Kind::Free;
        object.waiters.clear();
        object.address = 0;
        if self.on_stack.last() == Some(&id) {
            self.on_stack.pop();
        }
        self.by_address.remove(address);
        self.free.push(id);
    }

    /// How many entries the table has, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Removes everything, and forgets that it was there.
    pub(crate) fn clear(&mut self) {
        let Self { slots, used, free, by_address, last_number, on_stack, statics, kinds, keeps_kinds } = self;
        by_address.clear();
        for object in &mut slots[..*used] {
            object.address = 0;
            object.kind = Kind::Free;
            object.waiters.clear();
        }
        *used = 0;
        free.clear();
        *last_number = 0;
        on_stack.clear();
        *statics = None;
        kinds.clear();
        *keeps_kinds = false;
    }

    /// The objects that lie in a range of memory, lowest address first.
    pub(crate) fn in_range(&self, start: usize, bytes: usize) -> Vec<ObjId> {
        let mut found = Vec::new();
        if bytes / 4 < self.by_address.len() {
            // The smallest object is a 4-byte EX_SPIN_LOCK.
            for address in (start..start + bytes).step_by(4) {
                found.extend(self.by_address.get(address));
            }
        } else {
            let range = start..start + bytes;
            found.extend(self.iter().filter(|(_, object)| range.contains(&object.address)).map(|(id, _)| id));
            found.sort_by_key(|id| self.slots[*id as usize].address);
        }
        found
    }

    /// Keeps from now on what each object is, of a table that has none yet.
    pub(crate) fn keep_kinds(&mut self) {
        self.keeps_kinds = true;
        self.kinds.push("");
    }

    /// What each object that there ever was is, by its number.
    pub(crate) fn take_kinds(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.kinds)
    }

    /// All objects, in index order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ObjId, &Object)> {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, object)| !matches!(object.kind, Kind::Free))
            .map(|(index, object)| (index as ObjId, object))
    }
}

impl Kernel {
    /// The object at `pointer`, which a driver passed.
    #[inline]
    pub(crate) fn object_at<T>(&mut self, pointer: *const T) -> Check<ObjId> {
        match self.objects.find(pointer as usize) {
            Some(id) => Ok(id),
            None => Err(self.unknown_object(pointer as usize)),
        }
    }

    /// Says why an address is not an object: null, moved there, or never initialised.
    #[cold]
    fn unknown_object(&mut self, address: usize) -> super::Fault {
        if address < 0x1_0000 {
            return Violation::boxed(
                codes::IRQL_NOT_LESS_OR_EQUAL,
                [address as u64, u64::from(self.irql()), 0, 0],
                "a null or near-null pointer was passed as a kernel object",
            );
        }
        let meaning = match self.pool.describe_freed(address) {
            Some(freed) => format!("a kernel object in freed pool was used: {freed}"),
            None => "a kernel object was used that was never initialised at this address (a self-linked object must not be \
                     moved after its initialisation)"
                .to_owned(),
        };
        Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::UNINITIALIZED_OBJECT, address as u64, 0, 0],
            meaning,
        )
    }

    /// The object at `pointer`, which must be of the kind that `is` accepts.
    #[inline(always)]
    pub(crate) fn object_of_kind<T>(&mut self, pointer: *const T, expected: &str, is: impl Fn(&Kind) -> bool) -> Check<ObjId> {
        let id = self.object_at(pointer)?;
        if is(&self.objects[id].kind) {
            self.check_live(id)?;
            return Ok(id);
        }
        Err(self.wrong_kind(id, expected))
    }

    /// The object whose state is a word that is 0 when it is free and initialised: the first use enters it into the table, where
    /// any other object that stood there is gone, or the word would not be 0.
    pub(crate) fn word_object<W: Word>(
        &mut self,
        pointer: *const W,
        expected: &str,
        is: impl Fn(&Kind) -> bool,
        make: impl FnOnce() -> Kind,
    ) -> Check<ObjId> {
        if let Some(id) = self.objects.find(pointer as usize)
            && is(&self.objects[id].kind)
        {
            return Ok(id);
        }
        if (pointer as usize) < 0x1_0000 || self.pool.describe_freed(pointer as usize).is_some() {
            return Err(self.unknown_object(pointer as usize));
        }
        self.objects.claim(pointer as usize);
        // SAFETY: the caller of the export vouches for the pointer.
        let word = unsafe { pointer.read() }.bits();
        if word != 0 {
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, pointer as u64, word, 0],
                format!("a {expected} was used whose word is not 0 and that nobody holds: it was never initialised"),
            ));
        }
        let kind = make();
        // Push locks and rundown references may be paged, where their users stay below DISPATCH_LEVEL.
        if matches!(kind, Kind::SpinRw(_)) || self.irql() >= DISPATCH_LEVEL {
            self.check_resident(pointer as usize, &kind)?;
        }
        Ok(self.objects.register(pointer as usize, kind))
    }

    #[cold]
    fn wrong_kind(&self, id: ObjId, expected: &str) -> super::Fault {
        let object = &self.objects[id];
        Violation::boxed_owned(
            codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [codes::verifier::UNINITIALIZED_OBJECT, object.address as u64, 0, 0],
            format!("expected an initialised {expected}, found {} #{}", object.kind.name(), object.number),
        )
    }

    /// Enters a dispatcher object that a driver initialises, and writes its header.
    ///
    /// # Safety
    /// `header` points to writable memory of the object's size.
    pub(crate) unsafe fn initialize_dispatcher(
        &mut self,
        header: *mut DISPATCHER_HEADER,
        object_type: i32,
        size_bytes: usize,
        signal_state: i32,
        kind: Kind,
    ) -> Check<ObjId> {
        if (header as usize) < 0x1_0000 {
            return Err(self.unknown_object(header as usize));
        }
        if let Some(id) = self.objects.find(header as usize) {
            self.check_replaceable(id)?;
        }
        self.check_resident(header as usize, &kind)?;
        let id = self.objects.register(header as usize, kind);
        let head = self.objects[id].wait_list_head();
        // SAFETY: the caller vouches for the memory; every field is written.
        unsafe {
            header.write(layout::header(object_type, size_bytes, signal_state, head));
        }
        self.objects.note_beginning(id);
        Ok(id)
    }

    /// Kernel objects are touched at DISPATCH_LEVEL, where paged memory cannot be.
    pub(crate) fn check_resident(&self, address: usize, kind: &Kind) -> Check<()> {
        if !self.pool.is_paged(address) || !self.config.rules.has(RuleId::PagedObject) {
            return Ok(());
        }
        Err(Violation::boxed_owned(
            codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL,
            [address as u64, u64::from(DISPATCH_LEVEL), 1, 0],
            format!(
                "{} {} lies in paged pool: it is touched at DISPATCH_LEVEL, where it may be paged out",
                article(kind.name()),
                kind.name()
            ),
        ))
    }

    /// Initialising what is in use would strand whoever uses it.
    pub(crate) fn check_replaceable(&self, id: ObjId) -> Check<()> {
        let object = &self.objects[id];
        let problem = if !object.waiters.is_empty() {
            Some("threads wait on it")
        } else {
            match &object.kind {
                Kind::Mutant(state) if state.owner.is_some() => Some("a thread owns it"),
                Kind::FastMutex(state) if state.owner.is_some() => Some("a thread owns it"),
                Kind::SpinLock(state) if state.owner.is_some() => Some("it is held"),
                Kind::Dpc(state) if state.queued_on.is_some() => Some("it is queued"),
                Kind::Resource(state) if state.is_in_use() => Some("it is owned or waited for"),
                Kind::PushLock(state) if state.is_in_use() => Some("it is in use"),
                Kind::SpinRw(state) if state.is_held() => Some("it is held"),
                Kind::Lookaside | Kind::ExTimer(_) => Some("it has not been deleted"),
                Kind::Thread(_) | Kind::Process(_) => Some("it belongs to the system"),
                _ => None,
            }
        };
        match problem {
            None => Ok(()),
            Some(problem) => Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::REINITIALIZED_OBJECT, object.address as u64, 0, 0],
                format!("{} #{} was initialised again while {problem}", object.kind.name(), object.number),
            )),
        }
    }
}

/// The article of a kind's name.
fn article(name: &str) -> &'static str {
    if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

/// The word of a lock.
pub(crate) trait Word: Copy {
    /// Its bits.
    fn bits(self) -> u64;
}

impl Word for usize {
    fn bits(self) -> u64 {
        self as u64
    }
}

impl Word for i32 {
    fn bits(self) -> u64 {
        u64::from(self as u32)
    }
}
