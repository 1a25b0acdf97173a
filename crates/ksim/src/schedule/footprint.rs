//! What a visible operation touches.
//!
//! Two operations are *independent* if their order can be seen neither in what they return nor in what they leave behind. Footprints say so conservatively: an export
//! that states none depends on everything. One that touches a single object states it in `exports!`, behind `visible`:
//!
//! - `visible(access Object)`: it reads and changes the object, and depends on whatever else touches it. This is right for any operation on one object.
//! - `visible(among_waiters Object)`: as `access`, where those that wait already make a difference, such as to a pulse.
//! - `visible(queue_dpc Object)`: it queues a DPC, which interrupts whatever its processor does.
//! - `visible(remove_dpc Object)`: it takes one off its queue.
//! - `visible(read Object)`: it changes nothing, so that two of them are independent.
//! - `visible(acquire Object)`: it waits for ever for something that only one can have, such as a mutex; while another has it, it does nothing but wait.
//! - `visible(release Object)`: its owner gives that up.
//! - `visible(wait Object, ..)`: it waits for a dispatcher object; with a timeout, it depends on the clock too.
//! - `visible(acquire_if Object, Wait)`, `visible(share_if Object, Wait)`: it does so if `Wait` is not 0, and says at once that it cannot otherwise.
//! - `visible(share Object)`: it becomes one of several that share a lock, for which it waits while one has it for itself.
//! - `visible(unshare Object)`: it gives up a lock that it shares or has for itself.
//! - `visible(leave Object)`: likewise one that it shares, and that those who wait for it keep others out of even while nobody has it.
//!
//! An operation may touch a second object, such as the moment that a timer expires at, or a handle beside what that leads to. One that touches more states nothing.

use crate::engine::spinning::CLOCK;

/// How an operation uses its object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// Not known: it may depend on everything.
    Unknown,
    /// It reads and changes the object.
    Access,
    /// It only reads the object.
    Read,
    /// It takes the object, and does nothing but wait while it cannot.
    Acquire,
    /// It waits until the object is signaled, and takes nothing.
    Await,
    /// It gives up what its context has acquired.
    Release,
    /// As `Access`, and what it arms expires if nothing else comes before.
    Arm,
    /// As `Access`, and it matters who waits for the object already: it waits behind them, wakes them, or counts them.
    AmongWaiters,
    /// It becomes one of several that share the object, and does nothing but wait while one has it for itself.
    Share,
    /// It gives up an object that its context shares. The order of those that share it matters only while somebody waits to have it for himself.
    Unshare,
    /// As `Unshare`, and it matters who waits for the object already.
    Leave,
    /// It arms what expires at a moment, which is the object: it has a place among all that expires then, and depends on what moves the clock.
    Due,
}

/// Tells moments from addresses. A handle that is taken for a moment only makes more depend on each other.
const MOMENT: usize = 1 << 63;

/// Tells what belongs to one context from addresses.
const PRIVATE: usize = 1 << 62;

/// In place of a processor.
const NONE: u8 = 0xff;

/// In place of the processor that a DPC is queued to, or taken from, where that is not resolved.
const QUEUES: u8 = 0xfe;
const REMOVES: u8 = 0xfd;

/// More than one processor.
const SEVERAL: u8 = 0xfc;

/// What an operation does beside what it does to objects: bits.
mod also {
    /// It creates a thread, which gets the next processor as its ideal one.
    pub(super) const CREATES: u16 = 1;
    /// That processor was the ideal one of a thread that has ended.
    pub(super) const REUSES: u16 = 1 << 1;
    /// It ends its thread.
    pub(super) const ENDS: u16 = 1 << 2;
    /// It may change priorities: it wakes threads.
    pub(super) const BOOSTS: u16 = 1 << 3;
    /// It returns a priority.
    pub(super) const READS_PRIORITY: u16 = 1 << 4;
    /// It sets one. Two that do so to the same thread touch the same object.
    pub(super) const SETS_PRIORITY: u16 = 1 << 5;
    /// It waits, and is boosted when it is woken.
    pub(super) const IS_BOOSTED: u16 = 1 << 6;
    /// It touches what lies in a block of pool.
    pub(super) const USES_POOL: u16 = 1 << 7;
    /// It frees a block of pool.
    pub(super) const FREES_POOL: u16 = 1 << 8;
    /// It touches an object that somebody waits for among several, or has waited for: what is done to one of those may end the wait, or be what it still lacks.
    pub(super) const OF_SEVERAL: u16 = 1 << 9;
    /// It depends on what moves the clock.
    pub(super) const TIMED: u16 = 1 << 10;
    /// What is only known once an operation is performed, and may be.
    pub(super) const UNSURE: u16 = CREATES | REUSES | USES_POOL | FREES_POOL;

    /// What depends on each.
    const DEPENDENT: [(u16, u16); 6] = [
        (CREATES, CREATES),
        (REUSES, ENDS),
        (ENDS, REUSES),
        (BOOSTS, READS_PRIORITY | SETS_PRIORITY),
        (READS_PRIORITY, BOOSTS),
        (SETS_PRIORITY, BOOSTS),
    ];

    /// True when the order of the two may matter. What is done to pool is another matter.
    pub(super) fn depend(one: u16, other: u16) -> bool {
        DEPENDENT.iter().any(|(bit, others)| one & bit != 0 && other & others != 0)
    }
}

/// More than one block of pool, or any.
const BLOCKS: u16 = u16::MAX;

/// What an operation touches.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Footprint {
    /// Stands for the object, within one run: an address or a handle. 0 where there is none.
    pub(crate) object: usize,
    /// Likewise for a second object.
    pub(crate) second: usize,
    pub(crate) effect: Effect,
    pub(crate) second_effect: Effect,
    /// The processor that it is performed on, where that is resolved.
    pub(crate) processor: u8,
    /// The processor that it makes DPCs interrupt, so that it depends on whatever is performed there.
    pub(crate) interrupts: u8,
    /// Another processor that it depends on likewise: a DPC may still be in its queue.
    pub(crate) leaves: u8,
    /// The processor of which it matters whether it has a thread.
    pub(crate) idles: u8,
    /// The processor that it has given a thread, which is known once it is performed.
    pub(crate) occupies: u8,
    /// What it does beside that: see [`also`].
    pub(crate) also: u16,
    /// The block of pool that its objects lie in, or that it has made a DPC run of; and the one that it has freed.
    pub(crate) uses: u16,
    pub(crate) frees: u16,
    /// Whether those that perform it on the same object are ordered by it. An atomic says that by itself.
    pub(crate) synchronizes: bool,
}

impl Footprint {
    /// Touches what is not known.
    pub(crate) const UNKNOWN: Self = Self::one(Effect::Unknown, 0);

    /// A worker thread takes an item off the system's queues. No address and no handle is so small and odd, and no processor's number leads to it.
    pub(crate) const WORK: Self = Self::one(Effect::Access, 0xfff1);

    /// Likewise for what is queued for a thread that runs threaded DPCs.
    pub(crate) const THREADED_DPCS: Self = Self::one(Effect::Access, 0xfff3);

    #[inline]
    const fn one(effect: Effect, object: usize) -> Self {
        Self {
            object,
            second: 0,
            effect,
            second_effect: Effect::Read,
            processor: NONE,
            interrupts: NONE,
            leaves: NONE,
            idles: NONE,
            occupies: NONE,
            also: 0,
            uses: 0,
            frees: 0,
            synchronizes: true,
        }
    }

    /// The same operation, which touches a second object too. One that [waits](Self::waits) waits for the first.
    #[inline]
    pub(crate) const fn and(self, second_effect: Effect, second: usize) -> Self {
        Self { second, second_effect, ..self }
    }

    #[inline]
    pub(crate) fn access<T>(object: *const T) -> Self {
        Self::one(Effect::Access, object.addr())
    }

    #[inline]
    pub(crate) fn read<T>(object: *const T) -> Self {
        Self::one(Effect::Read, object.addr())
    }

    #[inline]
    pub(crate) fn among_waiters<T>(object: *const T) -> Self {
        Self::one(Effect::AmongWaiters, object.addr())
    }

    /// Queues a DPC, to a processor that its state tells.
    #[inline]
    pub(crate) fn queue_dpc<T>(dpc: *const T) -> Self {
        Self { interrupts: QUEUES, ..Self::access(dpc) }
    }

    /// Takes a DPC off its queue.
    #[inline]
    pub(crate) fn remove_dpc<T>(dpc: *const T) -> Self {
        Self { interrupts: REMOVES, ..Self::access(dpc) }
    }

    /// True for what queues a DPC, until it is resolved.
    pub(crate) fn queues_dpc(self) -> bool {
        self.interrupts == QUEUES
    }

    /// Likewise for what takes one off its queue.
    pub(crate) fn removes_dpc(self) -> bool {
        self.interrupts == REMOVES
    }

    /// The same operation, which changes what interrupts that processor, and what may be left in another's queue.
    pub(crate) fn with_dpcs_of(self, processor: Option<u8>, leaving: Option<u8>) -> Self {
        Self { interrupts: processor.unwrap_or(NONE), leaves: leaving.unwrap_or(NONE), ..self }
    }

    /// The same operation, of which it matters whether that processor has a thread.
    pub(crate) fn idling(self, processor: u8) -> Self {
        Self { idles: processor, ..self }
    }

    /// True if it matters whether a processor has a thread.
    pub(crate) fn is_idling(self) -> bool {
        self.idles != NONE
    }

    /// The same operation, which has given that processor a thread.
    pub(crate) fn occupying(self, processor: u8) -> Self {
        Self { occupies: if [NONE, processor].contains(&self.occupies) { processor } else { SEVERAL }, ..self }
    }

    /// The same operation, which has created a thread. `reuses` says whether that has the ideal processor of one that has ended.
    pub(crate) fn creating(self, reuses: bool) -> Self {
        Self { also: self.also | also::CREATES | if reuses { also::REUSES } else { 0 }, ..self }
    }

    /// True if it has created a thread.
    pub(crate) fn creates_thread(self) -> bool {
        self.also & also::CREATES != 0
    }

    /// The end of a thread.
    pub(crate) fn end_thread<T>(thread: *const T) -> Self {
        Self { also: also::ENDS, ..Self::access(thread) }
    }

    /// True for the end of a thread.
    pub(crate) fn ends_thread(self) -> bool {
        self.also & also::ENDS != 0
    }

    /// What stands for the priority of a thread.
    fn priority<T>(effect: Effect, thread: *const T) -> Self {
        // The thread itself must still be there.
        Self::one(effect, thread.addr() | 2).and(Effect::Read, thread.addr())
    }

    /// Returns the priority of a thread.
    pub(crate) fn query_priority<T>(thread: *const T) -> Self {
        Self { also: also::READS_PRIORITY, ..Self::priority(Effect::Read, thread) }
    }

    /// Sets the priority of a thread, and returns what it was.
    pub(crate) fn set_priority<T>(thread: *const T) -> Self {
        Self { also: also::SETS_PRIORITY, ..Self::priority(Effect::Access, thread) }
    }

    /// True when it returns a priority.
    pub(crate) fn sees_priority(self) -> bool {
        self.also & (also::READS_PRIORITY | also::SETS_PRIORITY) != 0
    }

    /// The same operation, which may change the priorities of threads.
    pub(crate) fn boosting(self) -> Self {
        Self { also: self.also | also::BOOSTS, ..self }
    }

    /// The same wait, of which a priority tells whether the thread had to wait.
    pub(crate) fn boosted(self) -> Self {
        Self { also: self.also | also::IS_BOOSTED, ..self }
    }

    /// True for a wait of which a priority tells whether the thread had to wait.
    pub(crate) fn is_boosted(self) -> bool {
        self.also & also::IS_BOOSTED != 0
    }

    /// One more among some blocks.
    fn with_block(blocks: u16, block: u16) -> u16 {
        if [0, block].contains(&blocks) { block } else { BLOCKS }
    }

    /// The same operation, which touches what lies in a block of pool.
    pub(crate) fn using_pool(self, block: u16) -> Self {
        Self { also: self.also | also::USES_POOL, uses: Self::with_block(self.uses, block), ..self }
    }

    /// The same operation, which has freed a block of pool.
    pub(crate) fn freeing_pool(self, block: u16) -> Self {
        Self { also: self.also | also::FREES_POOL, frees: Self::with_block(self.frees, block), ..self }
    }

    /// The same operation, which has not been performed, so that some of what it does is not known: of that, what may be.
    pub(crate) fn unsure(self, may_be: u16) -> Self {
        let blocks = |bit: u16, known: u16| if may_be & bit != 0 { BLOCKS } else { known };
        let (uses, frees) = (blocks(also::USES_POOL, self.uses), blocks(also::FREES_POOL, self.frees));
        Self { also: self.also | may_be, uses, frees, ..self }
    }

    /// What a DPC interrupt may turn out to do.
    pub(crate) const OF_INTERRUPT: u16 = also::USES_POOL | also::FREES_POOL;

    /// What it does of that which is only known once an operation is performed. To create threads does not matter while nobody else does.
    pub(crate) fn turned_out(self, others_create: bool) -> u16 {
        self.also & if others_create { also::UNSURE } else { also::USES_POOL | also::FREES_POOL }
    }

    /// The DPC interrupt of a processor, which touches nothing else.
    pub(crate) fn interrupt(cpu: u8) -> Self {
        // No address and no handle is so small and odd.
        Self::one(Effect::Read, 2 * usize::from(cpu) + 3)
    }

    #[inline]
    pub(crate) fn acquire<T>(object: *const T) -> Self {
        Self::one(Effect::Acquire, object.addr())
    }

    /// An acquisition that waits only if `wait` is not 0.
    #[inline]
    pub(crate) fn acquire_if<T>(object: *const T, wait: u8) -> Self {
        if wait == 0 { Self::access(object) } else { Self::acquire(object) }
    }

    #[inline]
    pub(crate) fn share<T>(object: *const T) -> Self {
        Self::one(Effect::Share, object.addr())
    }

    /// A shared acquisition that waits only if `wait` is not 0: otherwise it fails where somebody waits to have the lock for himself.
    #[inline]
    pub(crate) fn share_if<T>(object: *const T, wait: u8) -> Self {
        if wait == 0 { Self::among_waiters(object) } else { Self::share(object) }
    }

    #[inline]
    pub(crate) fn unshare<T>(object: *const T) -> Self {
        Self::one(Effect::Unshare, object.addr())
    }

    #[inline]
    pub(crate) fn leave<T>(object: *const T) -> Self {
        Self::one(Effect::Leave, object.addr())
    }

    /// A wait for several objects. More than two cannot be stated.
    pub(crate) fn wait_for_several(objects: &[usize], timeout: Option<i64>, is_ended_by_others: bool) -> Self {
        let object = |address: usize| std::ptr::without_provenance::<u8>(address);
        match *objects {
            _ if is_ended_by_others => Self::UNKNOWN,
            [one] => Self::wait(object(one), timeout, false),
            [first, second] => {
                let both = Self::among_waiters(object(first)).and(Effect::AmongWaiters, second);
                match timeout {
                    None | Some(0) => both,
                    Some(_) => Self { effect: Effect::Arm, also: also::TIMED, ..both },
                }
            }
            _ => Self::UNKNOWN,
        }
    }

    /// The same operation, if it touches an object that somebody waits for among several: it may end that wait, so that nothing of it is left to what its effect says.
    pub(crate) fn on_one_of_several(self) -> Self {
        let effect = match self.effect {
            Effect::Read | Effect::Arm | Effect::Unknown => self.effect,
            _ => Effect::AmongWaiters,
        };
        Self { also: self.also | also::OF_SEVERAL, effect, ..self }
    }

    /// A delay: one that is a pause only gives up the processor. Others see of it only what the clock lets go on.
    pub(crate) fn delay(interval: i64, is_ended_by_others: bool) -> Self {
        match interval {
            _ if is_ended_by_others => Self::UNKNOWN,
            0 => Self::yields(crate::machine::acting_processor()),
            _ => Self::one(Effect::Arm, PRIVATE | crate::machine::acting_context()).and(Effect::Read, CLOCK),
        }
    }

    /// Sets a timer: it has a place among all that expires at the same moment. What is past expires at once, which may let anything happen; and a moment of system time is another one when that is set.
    #[inline]
    pub(crate) fn set_timer<T>(timer: *const T, due: i64) -> Self {
        if due < 0 { Self::access(timer).and(Effect::Due, due.unsigned_abs() as usize) } else { Self::UNKNOWN }
    }

    /// Sets a timer whose expiry may be late, by a choice that comes after: its moment is not known before.
    #[inline]
    pub(crate) fn set_timer_within<T>(timer: *const T, due: i64, tolerance: u32) -> Self {
        if tolerance == 0 { Self::set_timer(timer, due) } else { Self::UNKNOWN }
    }

    /// Gives others the processor, which may take away a boost.
    pub(crate) fn yields(cpu: u8) -> Self {
        Self::level(cpu).boosting()
    }

    /// A change of the level of a processor: only that processor's interrupts see it.
    pub(crate) fn level(cpu: u8) -> Self {
        Self { effect: Effect::Access, ..Self::interrupt(cpu) }
    }

    #[inline]
    pub(crate) fn release<T>(object: *const T) -> Self {
        Self::one(Effect::Release, object.addr())
    }

    /// A wait for one object, with its timeout if it has one. With one that is not 0, it may also do something else than wait, at a moment that depends on the clock.
    /// What others can end by an alert or an APC depends on all that they do.
    #[inline]
    pub(crate) fn wait<T>(object: *const T, timeout: Option<i64>, is_ended_by_others: bool) -> Self {
        match timeout {
            _ if is_ended_by_others => Self::UNKNOWN,
            None => Self::acquire(object),
            Some(0) => Self::access(object),
            Some(_) => Self::one(Effect::Arm, object.addr()).and(Effect::Read, CLOCK),
        }
    }

    /// KeRemoveQueue, whose waits are served last come, first served. What others can end depends on all that they do.
    #[inline]
    pub(crate) fn remove_queue<T>(queue: *const T, timeout: Option<i64>, is_ended_by_others: bool) -> Self {
        match timeout {
            _ if is_ended_by_others => Self::UNKNOWN,
            None | Some(0) => Self::among_waiters(queue),
            Some(_) => Self::one(Effect::Arm, queue.addr()).and(Effect::Read, CLOCK),
        }
    }

    /// What stands for the number of references to an object.
    fn references<T>(object: *const T) -> usize {
        object.addr() | 1
    }

    /// References an object, or gives a reference back: the last deletes it.
    #[inline]
    pub(crate) fn reference<T>(object: *const T) -> Self {
        Self::access(object).and(Effect::Access, Self::references(object))
    }

    /// What stands for a handle. Its lowest bits mean nothing.
    fn of_handle<T>(handle: *const T) -> usize {
        handle.addr() & !3
    }

    /// References the object of a handle.
    pub(crate) fn reference_by_handle<T>(handle: *const T) -> Self {
        match crate::machine::object_of_handle(handle.addr()) {
            Some((object, _)) => Self::one(Effect::Read, Self::of_handle(handle)).and(Effect::Access, object | 1),
            None => Self::UNKNOWN,
        }
    }

    /// Closes a handle, which may delete its object. That of a thread or a process is there as long as those are.
    pub(crate) fn close<T>(handle: *const T) -> Self {
        let closes = Self::one(Effect::Access, Self::of_handle(handle));
        match crate::machine::object_of_handle(handle.addr()) {
            Some((object, is_running)) => closes.and(Effect::Access, if is_running { object | 1 } else { object }),
            None => closes,
        }
    }

    /// Does to the object of a handle what `access` says. The object comes first, as others know it by its address.
    pub(crate) fn access_by_handle<T>(handle: *const T) -> Self {
        match crate::machine::object_of_handle(handle.addr()) {
            Some((object, _)) => Self::one(Effect::Access, object).and(Effect::Read, Self::of_handle(handle)),
            None => Self::UNKNOWN,
        }
    }

    /// A wait for the object of a handle. One that ends at a time touches more than can be stated.
    pub(crate) fn wait_by_handle<T>(handle: *const T, timeout: Option<i64>, is_ended_by_others: bool) -> Self {
        let object = crate::machine::object_of_handle(handle.addr()).filter(|_| !is_ended_by_others);
        let effect = match timeout {
            None => Effect::Acquire,
            Some(0) => Effect::Access,
            Some(_) => return Self::UNKNOWN,
        };
        object.map_or(Self::UNKNOWN, |(object, _)| Self::one(effect, object).and(Effect::Read, Self::of_handle(handle)))
    }

    /// The same, where those that wait already make a difference.
    pub(crate) fn among_waiters_by_handle<T>(handle: *const T) -> Self {
        let access = Self::access_by_handle(handle);
        if access.effect == Effect::Access { Self { effect: Effect::AmongWaiters, ..access } } else { access }
    }

    /// True for a stall: its context does nothing but let time pass.
    #[inline(always)]
    pub(crate) fn lets_time_pass(self) -> bool {
        self.effect == Effect::Access && self.object == CLOCK
    }

    /// False for what comes behind its acquisition in any case, so that it adds nothing to the class of a run.
    #[inline(always)]
    pub(crate) fn is_classified(self) -> bool {
        !matches!(self.effect, Effect::Release | Effect::Await | Effect::Unshare | Effect::Leave)
    }

    /// The same operation, which by itself orders nothing.
    pub(crate) fn unsynchronized(self) -> Self {
        Self { synchronizes: false, ..self }
    }

    /// How it uses its object.
    #[must_use]
    pub fn effect(self) -> Effect {
        self.effect
    }

    /// What stands for the object, within one run. 0 where there is none.
    #[must_use]
    pub fn object(self) -> usize {
        self.object
    }

    /// True for what does nothing but wait while it cannot have its object.
    #[inline]
    pub(crate) fn waits(self) -> bool {
        matches!(self.effect, Effect::Acquire | Effect::Await | Effect::Share)
    }

    /// What stands for a second object, within one run. 0 where there is none.
    #[must_use]
    pub fn second_object(self) -> usize {
        self.second
    }

    /// How it uses its second object, if it has one.
    #[must_use]
    pub fn second_effect(self) -> Option<Effect> {
        (self.second != 0).then_some(self.second_effect)
    }

    /// The same operation at a time: what it arms has a moment. Where that cannot be told, all moments are one.
    #[inline]
    pub(crate) fn at(self, now: Option<u64>) -> Self {
        match now {
            _ if !self.is_due() => self,
            Some(now) => Self { second: self.second.wrapping_add(now as usize) | MOMENT, ..self },
            None => Self { second: MOMENT, ..self },
        }
    }

    /// True for what arms something that expires at a moment.
    #[inline]
    pub(crate) fn is_due(self) -> bool {
        self.second != 0 && self.second_effect == Effect::Due
    }

    /// Its objects, and how it uses them.
    pub(crate) fn objects(self) -> impl Iterator<Item = (Effect, usize)> {
        let second = (self.second != 0).then_some((self.second_effect, self.second));
        [(self.effect, self.object)].into_iter().chain(second)
    }

    /// True when the order of the two may matter.
    #[inline]
    #[must_use]
    pub fn depends_on(self, other: Self) -> bool {
        use Effect::Unknown;
        if self.effect == Unknown || other.effect == Unknown {
            return true;
        }
        let does_more = self.second | other.second != 0 || self.also != 0 && other.also != 0;
        if does_more || self.interrupts & other.interrupts & self.idles & other.idles != NONE {
            return self.depends_by_any(other);
        }
        self.object == other.object && !self.effect.commutes_with(other.effect)
    }

    #[inline(never)]
    fn depends_by_any(self, other: Self) -> bool {
        let depend = |mine: usize, how: Effect, other: usize, theirs: Effect| mine == other && !how.commutes_with(theirs);
        // No second object is 0, and only read.
        depend(self.object, self.effect, other.object, other.effect)
            || depend(self.second, self.second_effect, other.object, other.effect)
            || depend(self.object, self.effect, other.second, other.second_effect)
            || depend(self.second, self.second_effect, other.second, other.second_effect)
            || self.is_due() && other.moves_clock()
            || other.is_due() && self.moves_clock()
            || self.interrupts(other)
            || other.interrupts(self)
            || self.idles(other)
            || other.idles(self)
            || also::depend(self.also, other.also)
            || self.also & other.also & also::OF_SEVERAL != 0 && !(self.only_reads() && other.only_reads())
            || self.also & also::TIMED != 0 && other.moves_clock()
            || other.also & also::TIMED != 0 && self.moves_clock()
            || self.frees(other)
            || other.frees(self)
    }

    fn only_reads(self) -> bool {
        self.effect == Effect::Read && self.second_effect == Effect::Read
    }

    /// True when it frees pool that the other touches or frees.
    pub(crate) fn frees(self, other: Self) -> bool {
        let among = |theirs: u16| theirs != 0 && (theirs == self.frees || theirs == BLOCKS || self.frees == BLOCKS);
        self.frees != 0 && (among(other.uses) || among(other.frees))
    }

    /// True for what makes DPCs interrupt the processor that the other is performed on, or interrupt it too.
    fn interrupts(self, other: Self) -> bool {
        match self.interrupts {
            NONE => false,
            QUEUES | REMOVES => true,
            processor => {
                [other.processor, other.interrupts].contains(&processor)
                    || [self.interrupts, self.leaves].contains(&other.processor)
                    || other.processor == NONE
            }
        }
    }

    /// True when it matters to it that the other gives, or has given, a processor a thread.
    fn idles(self, other: Self) -> bool {
        self.idles != NONE && ([other.occupies, other.processor].contains(&self.idles) || other.occupies == SEVERAL)
    }

    fn moves_clock(self) -> bool {
        self.object == CLOCK && self.effect == Effect::Access
    }
}

impl Effect {
    /// True when the order of two uses of an object cannot be seen.
    #[inline]
    pub(crate) fn commutes_with(self, other: Self) -> bool {
        use Effect::{Await, Leave, Read, Share, Unshare};
        matches!((self, other), (Read | Await, Read | Await) | (Share | Unshare | Leave, Share | Unshare | Leave))
    }
}
