//! The settings of a machine, before it is run.

use super::Machine;
use crate::check::lock_order::Strictness;
use crate::check::rules::RuleId;
use crate::config::{ClockMode, OsProfile, SpecialPool};
use crate::engine::groups::Groups;
use crate::faults::FaultKind;
use std::time::Duration;

impl Machine {
    /// A machine with one processor, seed 0, an exact clock, and Windows 11's behaviour.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many processors, 1 to 64, in one group.
    ///
    /// # Panics
    /// If the number is 0 or above 64.
    #[track_caller]
    pub fn processors(self, processors: u8) -> Self {
        assert!((1..=64).contains(&processors), "a machine has 1 to 64 processors, not {processors}");
        self.groups(&[processors])
    }

    /// Processors in several groups: how many each has. A group may have any number of them, from 1 on; in all there are at most 64.
    ///
    /// # Panics
    /// If there is no group, an empty one, or if there are more than 64 processors.
    ///
    /// # Examples
    /// ```
    /// use ksim::Machine;
    /// use ksync_sys::{ALL_PROCESSOR_GROUPS, KeQueryActiveGroupCount, KeQueryActiveProcessorCountEx};
    ///
    /// Machine::new().groups(&[2, 1]).run(|| {
    ///     // SAFETY: these routines may be called anywhere.
    ///     assert_eq!(unsafe { KeQueryActiveGroupCount() }, 2);
    ///     // SAFETY: as above.
    ///     assert_eq!(unsafe { KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS) }, 3);
    /// }).expect_clean();
    /// ```
    #[track_caller]
    pub fn groups(mut self, sizes: &[u8]) -> Self {
        self.config.groups = Groups::new(sizes);
        self.config.processors = self.config.groups.processors();
        self
    }

    /// What decides everything that NT leaves open. The same seed gives the same run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// The system time at boot: 100 ns units since 1601-01-01 UTC, at least 0. The default is 2026-01-01.
    pub fn system_time(mut self, time: i64) -> Self {
        self.config.system_time = time.max(0);
        self
    }

    /// How the clock reads and when timers expire.
    pub fn clock(mut self, clock: ClockMode) -> Self {
        self.config.clock = clock;
        self
    }

    /// The Windows whose behaviour it shows.
    pub fn profile(mut self, profile: OsProfile) -> Self {
        self.config.profile = profile;
        self
    }

    /// How many bytes of pool there are. The default is 1 GiB.
    pub fn pool_limit(mut self, bytes: usize) -> Self {
        self.config.pool_limit = bytes;
        self
    }

    /// Makes the `n`th pool allocation fail, counted from 1.
    pub fn fail_allocation(mut self, n: u64) -> Self {
        self.config.failing_allocation = Some(n);
        self
    }

    /// Makes one [fault](crate::Fault) happen.
    pub fn fault(mut self, fault: crate::Fault) -> Self {
        match fault.kind {
            FaultKind::Allocation => self.config.failing_allocation = Some(fault.n),
            _ => self.config.failing = Some(fault),
        }
        self
    }

    /// For the runs of a search behind the first: keeps other machines from statics from the beginning on, rather than from their first use.
    pub(crate) fn claim_statics(mut self, claim: bool) -> Self {
        self.config.statics = claim;
        self.config.is_later = true;
        self
    }

    /// After how many scheduling points a run is given up. The default is 2 million.
    pub fn step_limit(mut self, steps: u64) -> Self {
        self.config.step_limit = steps;
        self
    }

    /// How often in a run, at most, the clock may move to the next expiry of a timer or timeout while something else could act. What runs takes time, so that on Windows a
    /// timeout can end between any two operations of another thread; when it does is a choice of the schedule. The default is 0: the clock moves when nothing can act.
    ///
    /// # Examples
    /// ```
    /// use ksim::{Machine, explore};
    /// use ksync_sys::{KTIMER, KeCancelTimer, KeInitializeTimer, KeReadStateTimer, KeSetTimer};
    /// use std::ptr::null_mut;
    ///
    /// let exploration = explore().machine(Machine::new().early_expiries(1)).check(|| {
    ///     // SAFETY: the structure is plain data, for which zero is valid.
    ///     let mut timer: Box<KTIMER> = Box::new(unsafe { std::mem::zeroed() });
    ///     // SAFETY: the timer's memory is the box's, which outlives its use, here and below.
    ///     unsafe { KeInitializeTimer(&raw mut *timer) };
    ///     // SAFETY: as above.
    ///     unsafe { KeSetTimer(&raw mut *timer, -10_000_000, null_mut()) };
    ///     // SAFETY: as above.
    ///     let signaled = unsafe { KeReadStateTimer(&raw const *timer) };
    ///     assert_eq!(signaled, 0, "a second is long, but is it long enough?");
    ///     // SAFETY: as above.
    ///     unsafe { KeCancelTimer(&raw mut *timer) };
    /// });
    /// assert!(exploration.expect_failure().outcome.panic().is_some());
    /// ```
    pub fn early_expiries(mut self, most: u32) -> Self {
        self.config.early_expiries = most;
        self
    }

    /// Whether the trace is recorded. It is by default.
    pub fn record_trace(mut self, record: bool) -> Self {
        self.config.trace = record;
        self
    }

    /// Whether each operation of the trace says where driver code called from. Off by default: it costs microseconds a call.
    pub fn record_sites(mut self, record: bool) -> Self {
        self.config.sites = record;
        self
    }

    /// Whether threaded DPCs run in threads at PASSIVE_LEVEL, as they do by default, or like ordinary ones at DISPATCH_LEVEL, as they do
    /// where an administrator has disabled them. A driver must be right under both (rule 47).
    pub fn threaded_dpcs(mut self, enabled: bool) -> Self {
        self.config.threaded_dpcs = enabled;
        self
    }

    /// Whether KeFlushQueuedDpcs waits for threaded DPCs too, as it does by default. No page says so: a driver should be right under both.
    pub fn flushes_threaded_dpcs(mut self, flushes: bool) -> Self {
        self.config.flushes_threaded_dpcs = flushes;
        self
    }

    /// How the order of locks is checked. Two orders that form a cycle are bug check 0xC4 (0x1001), whether the run came to a deadlock or not.
    ///
    /// By default, what is reported is what can come to a deadlock: the orders are different threads', and nothing keeps these apart. `true` asks for more, as Driver Verifier does: the orders of
    /// one thread count too, locks that were created at one place stand for each other, and so do locks of one word that were one after the other in memory of the host. `false` turns the
    /// check off.
    pub fn check_lock_order(mut self, strict: bool) -> Self {
        self.config.rules.set(RuleId::LockOrder, strict);
        self.config.lock_order = if strict { Strictness::Strict } else { Strictness::Off };
        self
    }

    /// Whether a [rule](crate::rules) is checked: for a bug that is known already, and in the way of others.
    ///
    /// Where a rule is off, a run that breaks it goes on if it can. Where the kernel, as NT itself, cannot go on ([`Rule::when_off`](crate::Rule::when_off)), the run ends there, as no failure:
    /// [`Outcome::allowed`](crate::Outcome::allowed). What would have come behind is not run, and a search counts such runs: [`Exploration::allowed`](crate::explore::Exploration::allowed).
    /// What is no rule cannot be off: panics, the [limit on steps](Self::step_limit), bug checks that the driver asks for.
    ///
    /// # Example
    /// ```
    /// use ksim::{Machine, RuleId};
    /// use ksync_sys::{KeAcquireSpinLockRaiseToDpc, KeInitializeSpinLock};
    ///
    /// let twice = || {
    ///     let mut lock = Box::new(0);
    ///     // SAFETY: the lock's memory is the box's, here and below.
    ///     unsafe { KeInitializeSpinLock(&raw mut *lock) };
    ///     for _ in 0..2 {
    ///         // SAFETY: wrong the second time, and reported.
    ///         unsafe { KeAcquireSpinLockRaiseToDpc(&raw mut *lock) };
    ///     }
    /// };
    /// assert!(Machine::new().run(twice).is_failure());
    /// let outcome = Machine::new().check_rule(RuleId::SpinLock, false).run(twice);
    /// assert!(!outcome.is_failure() && !outcome.is_completed());
    /// assert_eq!(outcome.allowed().map(|rule| rule.id), Some(RuleId::SpinLock));
    /// ```
    pub fn check_rule(mut self, rule: RuleId, check: bool) -> Self {
        self.config.rules.set(rule, check);
        if rule == RuleId::LockOrder {
            self.config.lock_order = if check { Strictness::Certain } else { Strictness::Off };
        }
        self
    }

    /// For how long a processor may stay at DISPATCH_LEVEL or above by the virtual clock, which stalls alone let pass there: then bug check 0x133 follows. The default is that of Windows, 20 s.
    /// The documentation's advice for DPC routines is 100 us, and 25 us for spin locks.
    pub fn dispatch_limit(mut self, limit: Duration) -> Self {
        self.config.dispatch_limit = u64::try_from(limit.as_nanos() / 100).unwrap_or(u64::MAX);
        self
    }

    /// How many calls of the kernel a processor may make at DISPATCH_LEVEL or above without a break: then bug check 0x133 follows. Virtual time stands still there, so that a loop which polls, or a DPC
    /// that queues itself again and again, spends none; but no thread of that processor runs before it ends. The default, a million, takes Windows a tenth of a second or more, a thousand times what the
    /// documentation advises.
    pub fn dispatch_call_limit(mut self, calls: u64) -> Self {
        self.config.dispatch_call_limit = calls;
        self
    }

    /// Whether `DbgPrint` also goes to standard output.
    pub fn echo(mut self, echo: bool) -> Self {
        self.config.echo = echo;
        self
    }

    /// Whether blocks of pool are of special pool, as with Driver Verifier's option of that name: each has pages of its own and ends where they do, with a page behind it that is not there; and its pages
    /// are not there any more once it is freed. What touches them is stopped where it does, by reading too: bug checks 0xD5 (freed) and 0xD6 (behind the end), or 0xCC and 0xCD where the
    /// kernel does so on a driver's behalf. Bytes in these pages that are not the block's are looked at when it is freed (0xC1): up to 15 behind it, as blocks are aligned, and up to a
    /// page in front; for blocks of more than a page, which begin one, what is left of the last.
    ///
    /// By default single runs have it, and so have all schedules of an exhaustive or bounded search, and one in sixteen of other searches, by their numbers: a block costs 4 us more, twice that where several OS
    /// threads search. A schedule that fails without it is repeated without it. `true` is for all schedules, `false` for none. Blocks of more than 256 KiB, and those above 4,096 at a time, are ordinary ones in any case; so are
    /// all on hosts other than x86-64 Linux, and where one of the rules PoolOverrun, PoolWrittenAfterFree, FreedPoolTouched and BeyondPoolTouched is not [checked](Self::check_rule). Those are seen to be written when they are looked at,
    /// and not to be read.
    ///
    /// # Example
    /// ```
    /// # #[cfg(all(target_os = "linux", target_arch = "x86_64"))] {
    /// use ksim::Machine;
    /// use ksync_sys::{ExAllocatePool2, ExFreePool, POOL_FLAG_NON_PAGED};
    ///
    /// let outcome = Machine::new().special_pool(true).run(|| {
    ///     // SAFETY: the routine may be called here.
    ///     let memory = unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, 8, u32::from_le_bytes(*b"Demo")) };
    ///     // SAFETY: the block is allocated.
    ///     unsafe { ExFreePool(memory) };
    ///     // SAFETY: it is not, which is what is to be found.
    ///     let _ = unsafe { memory.cast::<u64>().read_volatile() };
    /// });
    /// assert!(outcome.expect_bug_check(0xd5).meaning.contains("byte 0 of a block of 8 bytes with tag 'Demo' that has been freed"));
    /// # }
    /// ```
    pub fn special_pool(mut self, special: bool) -> Self {
        self.config.special_pool = if special { SpecialPool::All } else { SpecialPool::Never };
        self
    }

    /// Becomes what a schedule of a search runs on.
    pub(crate) fn set_schedule(&mut self, number: u64) {
        self.config.set_schedule(number);
    }

    /// The same without special pool, if some schedules of a search run on that.
    pub(crate) fn without_special_pool(mut self) -> Option<Self> {
        self.config.is_sample = false;
        (self.config.special_pool == SpecialPool::Some).then_some(self)
    }

    /// Takes paged pool and the pageable sections of images (`PAGE...`, code and data) away while the processor that acts is at DISPATCH_LEVEL or above, as Driver Verifier's option "force IRQL
    /// checking" does: what touches them there is bug check 0xD1 (0xA where the kernel does on a driver's behalf), whether it calls the kernel or not. Otherwise only kernel objects in paged pool, and
    /// pageable code that calls the kernel, are seen. Each change of the level costs microseconds for each section and block, and nothing where there are none. It is off by default, and on
    /// x86-64 Linux only, and not for pool where the rule PagedObject is off. A section that the driver has locked (`MmLockPagableDataSection`) stays.
    pub fn force_irql_checking(mut self, force: bool) -> Self {
        self.config.force_irql_checking = force;
        self
    }
}
