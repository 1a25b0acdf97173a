//! The rules that every run is checked against: the published table, and which of them are on.
//!
//! A rule has the name that Driver Verifier, Static Driver Verifier or NT's bug check gives it; where none of them has it, a name of ours.

use crate::report::bug_check::codes::{self, verifier};
use std::fmt;

/// Where the documentation of a rule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Page {
    /// A page of the driver documentation, by its path.
    At(&'static str),
    /// The page of the rule's bug check.
    BugCheck,
    /// A place in this project's own documentation, where there is no other.
    Here(&'static str),
}

/// What becomes of a breach of a rule that is off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WhenOff {
    /// The run goes on. (Where the processor itself stops, at memory that is not there, it ends as with [`EndsRun`](Self::EndsRun).)
    GoesOn,
    /// The run ends there, and is no failure: [`End::Allowed`](crate::End::Allowed). A rule that is not kept leaves the hosted kernel, like NT itself, with nothing sensible to go on with.
    EndsRun,
}

/// One rule.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// What [`Machine::check_rule`](crate::Machine::check_rule) takes.
    pub id: RuleId,
    /// The name.
    pub name: &'static str,
    /// The bug check that a breach is; none where a run that breaks it is reported otherwise.
    pub code: Option<u32>,
    /// The first parameter of that bug check, where it says more than an address.
    pub first_parameter: Option<u64>,
    /// What it says.
    pub says: &'static str,
    /// Whether it is checked where nothing else is said.
    pub on_by_default: bool,
    /// What becomes of a breach where it is off.
    pub when_off: WhenOff,
    page: Page,
}

impl Rule {
    /// The address of the page that documents it.
    #[must_use]
    pub fn page(&self) -> String {
        const BASE: &str = "https://learn.microsoft.com/windows-hardware/drivers/";
        match self.page {
            Page::At(path) => format!("{BASE}{path}"),
            Page::BugCheck => {
                let code = self.code.expect("a rule whose page is that of its bug check has one");
                let name = codes::name(code).to_ascii_lowercase().replace('_', "-");
                format!("{BASE}debugger/bug-check-0x{code:x}--{name}")
            }
            Page::Here(path) => format!("{}/blob/main/docs/{path}", env!("CARGO_PKG_REPOSITORY")),
        }
    }

    /// The number that Driver Verifier's DDI compliance checking has for the rule, if it is one of those. Where another check sees the breach first, bug checks have the
    /// number of that one.
    #[must_use]
    pub fn compliance(&self) -> Option<u64> {
        const FIRST: [u64; 2] = [0x2_0000, 0x4_0000];
        match self.id {
            RuleId::SpinLock => Some(0x4_0009),
            RuleId::IrqlExAllocatePool => Some(0x2_0004),
            _ => self.first_parameter.filter(|number| self.code == Some(VERIFIER) && FIRST.contains(&(number & !0xff))),
        }
    }

    /// The rule that a bug check is a breach of.
    pub(crate) fn of(code: u32, parameters: &[u64; 4]) -> Option<&'static Self> {
        let code = match code {
            codes::KMODE_EXCEPTION_NOT_HANDLED | codes::SYSTEM_SERVICE_EXCEPTION => codes::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED,
            codes::PAGE_FAULT_IN_FREED_SPECIAL_POOL => codes::DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL,
            codes::PAGE_FAULT_BEYOND_END_OF_ALLOCATION => codes::DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION,
            code => code,
        };
        let exact = RULES.iter().find(|rule| rule.code == Some(code) && rule.first_parameter == Some(parameters[0]));
        exact.or_else(|| RULES.iter().find(|rule| rule.code == Some(code) && rule.first_parameter.is_none()))
    }

    /// The rule with an id.
    pub(crate) fn with(id: RuleId) -> &'static Self {
        &RULES[id as usize]
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(code) = self.code {
            write!(f, " ({code:#x}")?;
            if let Some(parameter) = self.first_parameter {
                write!(f, ", {parameter:#x}")?;
            }
            f.write_str(")")?;
        }
        write!(f, ": {}", self.says)
    }
}

/// Whether a rule is on where nothing is said, and what becomes of a breach where it is off.
const ON: (bool, WhenOff) = (true, WhenOff::GoesOn);
const OFF: (bool, WhenOff) = (false, WhenOff::GoesOn);
const ENDS: (bool, WhenOff) = (true, WhenOff::EndsRun);

macro_rules! rules {
    ($($id:ident: $code:expr, $first:expr, $page:expr, $switch:ident, $says:literal;)*) => {
        /// Which rule.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[non_exhaustive]
        pub enum RuleId {
            $(#[doc = $says] $id,)*
        }

        /// All rules.
        static RULES: &[Rule] = &[$(Rule {
            id: RuleId::$id,
            name: stringify!($id),
            code: if $code == NO_BUG_CHECK { None } else { Some($code) },
            first_parameter: $first,
            says: $says,
            on_by_default: $switch.0,
            when_off: $switch.1,
            page: $page,
        },)*];
    };
}

/// NT has no bug check of this number.
const NO_BUG_CHECK: u32 = 0;
const VERIFIER: u32 = codes::DRIVER_VERIFIER_DETECTED_VIOLATION;
const DEADLOCK_DETECTION: Page = Page::At("devtest/deadlock-detection");
const AUTOMATIC_CHECKS: Page = Page::At("devtest/automatic-checks");

rules! {
    IrqlDispatch: VERIFIER, Some(0x2_0003), Page::At("devtest/wdm-irqldispatch"), ON,
        "Some routines are for IRQL = DISPATCH_LEVEL.";
    IrqlExApcLte1: VERIFIER, Some(0x2_0005), Page::At("devtest/wdm-irqlexapclte1"), ON,
        "Fast mutexes are for IRQL <= APC_LEVEL.";
    IrqlExApcLte2: VERIFIER, Some(0x2_0006), Page::At("devtest/wdm-irqlexapclte2"), ON,
        "Paged lookaside lists and some other Ex routines are for IRQL <= APC_LEVEL.";
    IrqlExApcLte3: VERIFIER, Some(0x2_0007), Page::At("devtest/wdm-irqlexapclte3"), ON,
        "Resources are acquired, converted and deleted at IRQL <= APC_LEVEL.";
    IrqlExPassive: VERIFIER, Some(0x2_0008), Page::At("devtest/wdm-irqlexpassive"), ON,
        "ExRaiseStatus and some other Ex routines are for low levels.";
    IrqlKeApcLte1: VERIFIER, Some(0x2_000f), Page::At("devtest/wdm-irqlkeapclte1"), ON,
        "Guarded mutexes and KeDelayExecutionThread are for IRQL <= APC_LEVEL.";
    IrqlKeApcLte2: VERIFIER, Some(0x2_0010), Page::At("devtest/wdm-irqlkeapclte2"), ON,
        "Critical and guarded regions are for IRQL <= APC_LEVEL.";
    IrqlKeDispatchLte: VERIFIER, Some(0x2_0011), Page::At("devtest/wdm-irqlkedispatchlte"), ON,
        "Dispatcher objects are changed, and spin locks acquired, at IRQL <= DISPATCH_LEVEL; with Wait = TRUE at the levels that the routine's page names.";
    IrqlKeReleaseSpinLock: VERIFIER, Some(verifier::RULE_IRQL_KE_RELEASE_SPIN_LOCK), Page::At("devtest/wdm-irqlkereleasespinlock"), ENDS,
        "A spin lock is released to the IRQL that its acquisition returned.";
    IrqlKeSetEvent: VERIFIER, Some(0x2_0016), Page::At("devtest/wdm-irqlkesetevent"), ON,
        "KeSetEvent is for IRQL <= DISPATCH_LEVEL, with Wait = TRUE for IRQL <= APC_LEVEL.";
    IrqlObPassive: VERIFIER, Some(0x2_001b), Page::At("devtest/wdm-irqlobpassive"), ON,
        "Object handles are opened and referenced at PASSIVE_LEVEL.";
    IrqlPsPassive: VERIFIER, Some(0x2_001c), Page::At("devtest/wdm-irqlpspassive"), ON,
        "System threads are created and ended at PASSIVE_LEVEL.";
    IrqlReturn: VERIFIER, Some(0x2_001d), Page::At("devtest/wdm-irqlreturn"), ENDS,
        "A dispatch routine returns at the IRQL that it was called at.";
    IrqlZwPassive: VERIFIER, Some(0x2_001f), Page::At("devtest/wdm-irqlzwpassive"), ON,
        "Zw routines are for PASSIVE_LEVEL.";
    IrqlIoDispatch: VERIFIER, Some(0x2_0022), Page::At("devtest/wdm-irqliodispatch"), ON,
        "Requests and what belongs to them (MDLs, work items, remove locks, the cancel spin lock) are used at IRQL <= DISPATCH_LEVEL.";
    IrqlNtifsApcPassive: VERIFIER, Some(0x2_0024), Page::At("devtest/wdm-irqlntifsapcpassive"), ON,
        "Routines of ntifs.h are called at the levels that their pages name: threads and processes are looked up by their ids at IRQL <= APC_LEVEL.";
    IrqlIoRtlZwPassive: VERIFIER, Some(0x2_0023), Page::At("devtest/wdm-irqliortlzwpassive"), ON,
        "Requests that the I/O manager completes by an APC are built at PASSIVE_LEVEL.";
    IrqlTooHigh: codes::IRQL_NOT_LESS_OR_EQUAL, None, Page::BugCheck, ENDS,
        "A routine is called at the IRQLs that its page names, and with an address that can be used there.";
    IrqlTooLow: codes::IRQL_NOT_GREATER_OR_EQUAL, None, Page::BugCheck, ENDS,
        "A routine is called at the IRQLs that its page names.";
    IrqlKeRaiseLower: VERIFIER, Some(verifier::RAISE_TO_LOWER), Page::At("devtest/wdm-irqlkeraiselower"), ENDS,
        "KeRaiseIrql does not lower the IRQL.";
    IrqlKeRaiseLower2: VERIFIER, Some(verifier::LOWER_TO_HIGHER), Page::At("devtest/wdm-irqlkeraiselower2"), ENDS,
        "KeLowerIrql does not raise the IRQL, and restores what the last KeRaiseIrql returned.";
    IrqlOfServiceRoutine: VERIFIER, Some(verifier::SERVICE_IRQL), AUTOMATIC_CHECKS, ENDS,
        "An interrupt service routine returns at the IRQL that it was called at.";
    IrqlOfCompletionRoutine: VERIFIER, Some(verifier::COMPLETION_IRQL), AUTOMATIC_CHECKS, ENDS,
        "A completion routine returns at the IRQL that it was called at.";
    IrqlUnexpected: codes::IRQL_UNEXPECTED_VALUE, None, Page::BugCheck, ENDS,
        "A routine of a driver returns at the IRQL that it was called at.";
    IrqlKeWaitAbove: VERIFIER, Some(verifier::WAIT_ABOVE_DISPATCH), Page::At("devtest/wdm-irqlkewaitformultipleobjects"), ENDS,
        "There is no wait above DISPATCH_LEVEL.";
    IrqlKeWaitForever: VERIFIER, Some(verifier::WAIT_AT_DISPATCH_FOREVER), Page::At("devtest/wdm-irqlkewaitformutexobject"), ENDS,
        "A wait at DISPATCH_LEVEL has a timeout.";
    IrqlKeWaitTimed: VERIFIER, Some(verifier::WAIT_AT_DISPATCH_TIMED), Page::At("devtest/wdm-irqlkewaitformultipleobjects"), ENDS,
        "A wait at DISPATCH_LEVEL has the timeout zero.";
    DispatchTooLong: codes::DPC_WATCHDOG_VIOLATION, None, Page::BugCheck, ON,
        "A processor does not stay at DISPATCH_LEVEL or above for longer than the limit: in time, which stalls take, or in calls of the kernel.";

    SpinLock: codes::SPIN_LOCK_ALREADY_OWNED, None, Page::At("devtest/wdm-spinlock"), ENDS,
        "Who holds a spin lock does not acquire it again.";
    SpinLockNotOwned: codes::SPIN_LOCK_NOT_OWNED, None, Page::At("devtest/wdm-spinlock"), ENDS,
        "A spin lock is released by who holds it.";
    SpinLockDpc: VERIFIER, Some(verifier::AT_DPC_LEVEL_TOO_LOW), Page::At("devtest/wdm-spinlockdpc"), ON,
        "The ...AtDpcLevel routines are for DISPATCH_LEVEL or above.";
    SpinLockReleaseIrql: VERIFIER, Some(verifier::SPIN_RELEASE_IRQL), AUTOMATIC_CHECKS, ENDS,
        "A spin lock is released at DISPATCH_LEVEL or above.";
    SpinlockRelease: VERIFIER, Some(verifier::SPIN_LOCK_HELD_AT_RETURN), Page::At("devtest/wdm-spinlockrelease"), ENDS,
        "A routine of a driver does not return with a spin lock held.";
    CancelSpinLock: VERIFIER, Some(verifier::CANCEL_SPIN_LOCK), Page::At("devtest/wdm-cancelspinlock"), ON,
        "The cancel spin lock is acquired by who does not hold it, and released by who does. Where this is off, it is as other spin locks (SpinLock, SpinLockNotOwned).";
    CancelSpinlockRelease: VERIFIER, Some(verifier::CANCEL_SPIN_LOCK_HELD_AT_RETURN), Page::At("devtest/wdm-cancelspinlockrelease"), ON,
        "A routine of a driver does not return with the cancel spin lock held. Where this is off, it is as other spin locks (SpinlockRelease).";
    SpinLockSafe: VERIFIER, Some(verifier::SPIN_LOCK_SAFE), Page::At("devtest/wdm-spinlocksafe"), ON,
        "A request is not completed, and the next one not started, with a spin lock held.";
    SpinLockHeldInWait: VERIFIER, Some(verifier::WAIT_WITH_SPIN_LOCK), Page::At("devtest/wdm-spinlocksafe"), ON,
        "A thread does not wait while it holds a spin lock, even if it has lowered the IRQL.";
    QueuedSpinLock: VERIFIER, Some(verifier::QUEUED_SPIN_LOCK), Page::At("devtest/wdm-queuedspinlock"), ENDS,
        "Acquisitions and releases with one queue handle alternate. (Who holds the lock, and acquires it with another handle: SpinLock.)";
    QueuedSpinLockRelease: VERIFIER, Some(verifier::QUEUED_SPIN_LOCK_HELD_AT_RETURN), Page::At("devtest/wdm-queuedspinlockrelease"), ENDS,
        "A routine of a driver does not return with a queued spin lock held.";
    OneKindOfSpinLock: VERIFIER, Some(verifier::WRONG_ACQUIRE_API), DEADLOCK_DETECTION, ENDS,
        "A spin lock is acquired either as an ordinary or as a queued one.";
    OneKindOfSpinLockRelease: VERIFIER, Some(verifier::WRONG_RELEASE_API), DEADLOCK_DETECTION, ENDS,
        "A spin lock is released as it was acquired, ordinary or queued.";
    SelfDeadlock: VERIFIER, Some(verifier::SELF_DEADLOCK), DEADLOCK_DETECTION, ENDS,
        "A lock that does not recurse is not acquired by its owner.";
    Deadlock: NO_BUG_CHECK, None, DEADLOCK_DETECTION, ENDS,
        "Some thread can go on, or something is due, until all threads have ended.";
    LockOrder: VERIFIER, Some(verifier::LOCK_HIERARCHY), DEADLOCK_DETECTION, ON,
        "Locks are taken in one order.";
    WrongThread: VERIFIER, Some(verifier::WRONG_THREAD), DEADLOCK_DETECTION, ENDS,
        "A lock is released by the thread that acquired it.";
    NotAcquired: VERIFIER, Some(verifier::NOT_ACQUIRED), DEADLOCK_DETECTION, ENDS,
        "What is released was acquired.";
    ThreadEndedOwning: VERIFIER, Some(verifier::THREAD_ENDED_OWNING), DEADLOCK_DETECTION, ENDS,
        "A thread does not end while it holds a lock.";
    DeletedWhileOwned: VERIFIER, Some(verifier::DELETED_WHILE_OWNED), DEADLOCK_DETECTION, ENDS,
        "What is held, acquired or waited for, and a queue with entries, is not freed.";
    MutexHeldAtExit: codes::THREAD_TERMINATE_HELD_MUTEX, None, Page::BugCheck, ENDS,
        "A thread does not end while it owns a KMUTEX.";
    PushLockHeldAtExit: codes::KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION, None, Page::BugCheck, ENDS,
        "A thread does not end while it holds a push lock.";
    PushLockRelease: codes::KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE, None, Page::BugCheck, ENDS,
        "A push lock is released by who holds it, and as it was acquired.";
    PushLockFlags: codes::INVALID_PUSH_LOCK_FLAGS, None, Page::BugCheck, ENDS,
        "Push lock routines take the flags that exist.";
    ResourceNotOwned: codes::RESOURCE_NOT_OWNED, None, Page::BugCheck, ENDS,
        "A resource is released by who owns it.";
    ResourceReleasedForThread: codes::ERESOURCE_INVALID_RELEASE, None, Page::BugCheck, ENDS,
        "ExReleaseResourceForThreadLite names an owner of the resource.";
    ExclusiveResourceAccess: VERIFIER, Some(verifier::RESOURCE_HELD_AT_RETURN), Page::At("devtest/wdm-exclusiveresourceaccess"), ON,
        "A thread, and a routine of a driver, releases the resources that it acquired.";
    WithinCriticalRegion: VERIFIER, Some(verifier::RESOURCE_ACQUIRED_WITH_APCS), Page::At("devtest/wdm-withincriticalregion"), ON,
        "A resource is acquired with normal kernel APCs disabled.";
    WithinCriticalRegionRelease: VERIFIER, Some(verifier::RESOURCE_RELEASED_WITH_APCS), Page::At("devtest/wdm-withincriticalregion"), ON,
        "A resource is released with normal kernel APCs disabled.";
    FastMutexWithinRegion: VERIFIER, Some(verifier::FAST_MUTEX_ACQUIRED_WITH_APCS), AUTOMATIC_CHECKS, ON,
        "ExAcquireFastMutexUnsafe is called with normal kernel APCs disabled.";
    FastMutexWithinRegionRelease: VERIFIER, Some(verifier::FAST_MUTEX_RELEASED_WITH_APCS), AUTOMATIC_CHECKS, ON,
        "ExReleaseFastMutexUnsafe is called with normal kernel APCs disabled.";
    FastMutexReleaseIrql: VERIFIER, Some(0x34), AUTOMATIC_CHECKS, ENDS,
        "A fast mutex is released at APC_LEVEL.";
    PushLockWithinRegion: VERIFIER, Some(verifier::PUSH_LOCK_ACQUIRED_WITH_APCS), AUTOMATIC_CHECKS, ON,
        "A push lock is acquired with normal kernel APCs disabled.";
    PushLockWithinRegionRelease: VERIFIER, Some(verifier::PUSH_LOCK_RELEASED_WITH_APCS), AUTOMATIC_CHECKS, ON,
        "A push lock is released with normal kernel APCs disabled.";

    CriticalRegionEnter: VERIFIER, Some(verifier::ENTER_CRITICAL_REGION), Page::At("devtest/wdm-irqlkeapclte2"), ON,
        "KeEnterCriticalRegion is for IRQL <= APC_LEVEL.";
    CriticalRegionLeave: VERIFIER, Some(verifier::LEAVE_CRITICAL_REGION), Page::At("devtest/wdm-irqlkeapclte2"), ON,
        "KeLeaveCriticalRegion is for IRQL <= APC_LEVEL.";
    RegionLeft: VERIFIER, Some(verifier::REGION_LEFT_TOO_OFTEN), AUTOMATIC_CHECKS, ENDS,
        "A critical or guarded region is not left more often than it was entered.";
    CriticalRegions: VERIFIER, Some(verifier::CRITICAL_REGIONS), Page::At("devtest/wdm-criticalregions"), OFF,
        "A thread leaves the critical regions that it has entered itself, and not the one that it was started in, or that a mutex keeps it in. (NT has one counter for all.)";
    GuardedRegions: VERIFIER, Some(verifier::GUARDED_REGIONS), Page::At("devtest/wdm-guardedregions"), OFF,
        "Guarded regions are entered and left in alternation. (They do nest, which drivers above each other rely on: this is for one that does not mean to.)";
    RegionsAtReturn: codes::APC_INDEX_MISMATCH, None, Page::BugCheck, ENDS,
        "A routine of a driver leaves the regions that it enters.";
    RegionsOfDispatchRoutine: VERIFIER, Some(verifier::DISPATCH_APC_COUNT), AUTOMATIC_CHECKS, ENDS,
        "A dispatch routine leaves the regions that it enters.";
    RegionsOfCompletionRoutine: VERIFIER, Some(verifier::COMPLETION_APC_COUNT), AUTOMATIC_CHECKS, ENDS,
        "A completion routine leaves the regions that it enters.";
    IrqlAtSystemCall: codes::IRQL_GT_ZERO_AT_SYSTEM_SERVICE, None, Page::BugCheck, ENDS,
        "A system call returns to user mode at PASSIVE_LEVEL.";
    RegionsAtExit: codes::KERNEL_APC_PENDING_DURING_EXIT, None, Page::BugCheck, ENDS,
        "A thread ends at PASSIVE_LEVEL, out of all regions that it entered.";

    Arguments: VERIFIER, Some(verifier::BAD_ARGUMENT), Page::At("devtest/ddi-compliance-checking"), ENDS,
        "Arguments are what a routine's page allows: a priority of 1 to 31, attributes that there are, parameters that were initialised.";

    WaitInDpc: codes::ATTEMPTED_SWITCH_FROM_DPC, None, Page::BugCheck, ENDS,
        "A DPC routine does not wait.";
    WaitObjects: codes::MAXIMUM_WAIT_OBJECTS_EXCEEDED, None, Page::BugCheck, ENDS,
        "A wait names 1 to 64 objects, and at most 3 without wait blocks of its own.";
    UserWaitOnStack: VERIFIER, Some(verifier::USER_WAIT_ON_STACK), AUTOMATIC_CHECKS, ON,
        "A user-mode wait names no object on the stack, and no wait blocks there, unless KeSetKernelStackSwapEnable keeps the stack in memory.";
    WaitStatus: VERIFIER, Some(verifier::WAIT_STATUS_IGNORED), Page::At("ddi/wdm/nf-wdm-kewaitforsingleobject"), OFF,
        "Who waited in vain (STATUS_TIMEOUT, STATUS_ALERTED, STATUS_USER_APC, all of which are NT_SUCCESS) does not release what the wait should have given: a semaphore that is used as a lock, which is full at first, and released only by those who have taken it. (For mutexes: Exception.)";
    Exception: codes::SYSTEM_THREAD_EXCEPTION_NOT_HANDLED, None, Page::BugCheck, ENDS,
        "What a routine raises is handled. A semaphore is not released past its limit, a mutex not by another thread. In a DPC this is bug check 0x1E, in a system call 0x3B.";

    Uninitialized: VERIFIER, Some(verifier::UNINITIALIZED_OBJECT), DEADLOCK_DETECTION, ENDS,
        "An object is initialised where it is used, and is not moved.";
    Reinitialized: VERIFIER, Some(verifier::REINITIALIZED_OBJECT), DEADLOCK_DETECTION, ENDS,
        "An object in use is not initialised again.";
    StackObjectInUse: VERIFIER, Some(verifier::STACK_OBJECT_IN_USE), AUTOMATIC_CHECKS, ON,
        "An object on a stack is not armed, queued, waited for or used by others once its function has returned or its thread has ended.";
    PagedObject: codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL, None, Page::BugCheck, ON,
        "What DISPATCH_LEVEL touches is there and not pageable: kernel objects do not lie in paged pool.";
    PageFault: codes::PAGE_FAULT_IN_NONPAGED_AREA, None, Page::BugCheck, ENDS,
        "What is touched below DISPATCH_LEVEL is there.";
    KernelStack: codes::UNEXPECTED_KERNEL_MODE_TRAP, None, Page::BugCheck, ENDS,
        "A kernel stack is not used up.";
    TimerOrDpc: codes::TIMER_OR_DPC_INVALID, None, Page::BugCheck, ENDS,
        "A timer that is armed, and a DPC that is queued, stays where it is until it has run or was cancelled.";
    RegionsOfDpc: codes::TIMER_OR_DPC_INVALID, Some(4), Page::BugCheck, ENDS,
        "A DPC routine leaves the regions that it enters.";
    RegionsOfTimerDpc: codes::TIMER_OR_DPC_INVALID, Some(5), Page::BugCheck, ENDS,
        "The DPC routine of a timer leaves the regions that it enters.";
    FreedTimer: VERIFIER, Some(verifier::FREED_ACTIVE_TIMER), AUTOMATIC_CHECKS, ENDS,
        "Memory that holds an armed timer is not freed.";
    FreedResource: VERIFIER, Some(verifier::FREED_ACTIVE_RESOURCE), AUTOMATIC_CHECKS, ENDS,
        "A resource is deleted before its memory is freed.";
    ReinitializedResource: VERIFIER, Some(verifier::RESOURCE_REINITIALIZED), AUTOMATIC_CHECKS, ENDS,
        "A resource is initialised once.";
    UninitializedResource: VERIFIER, Some(verifier::RESOURCE_UNINITIALIZED), AUTOMATIC_CHECKS, ENDS,
        "A resource that is deleted was initialised.";
    FreedLookaside: VERIFIER, Some(verifier::FREED_ACTIVE_LOOKASIDE), AUTOMATIC_CHECKS, ENDS,
        "A lookaside list is deleted before its memory is freed.";
    ReinitializedLookaside: VERIFIER, Some(verifier::LOOKASIDE_REINITIALIZED), AUTOMATIC_CHECKS, ENDS,
        "A lookaside list is initialised once.";
    UninitializedLookaside: VERIFIER, Some(verifier::LOOKASIDE_UNINITIALIZED), AUTOMATIC_CHECKS, ENDS,
        "A lookaside list that is used or deleted was initialised.";
    LookasideBlock: VERIFIER, Some(verifier::LOOKASIDE_BLOCK_TOO_SMALL), AUTOMATIC_CHECKS, ENDS,
        "A lookaside list's blocks are large enough for its links.";
    QueueEntry: codes::INVALID_WORK_QUEUE_ITEM, None, Page::BugCheck, ENDS,
        "An entry is in one queue, once.";
    WorkItem: codes::WORKER_INVALID, None, Page::BugCheck, ENDS,
        "A work item that is queued is not queued again, freed, or initialised.";
    WorkItemIrql: codes::WORKER_THREAD_RETURNED_AT_BAD_IRQL, None, Page::BugCheck, ENDS,
        "The routine of a work item returns at PASSIVE_LEVEL.";
    Reference: codes::REFERENCE_BY_POINTER, None, Page::BugCheck, ENDS,
        "A reference that is dropped was taken.";
    ReferenceFromZero: VERIFIER, Some(verifier::REFERENCE_FROM_ZERO), AUTOMATIC_CHECKS, ENDS,
        "An object without references is gone.";
    BadHandle: VERIFIER, Some(verifier::BAD_HANDLE), AUTOMATIC_CHECKS, ON,
        "A handle that is used is open.";
    ClosedHandle: codes::INVALID_KERNEL_HANDLE, None, Page::BugCheck, OFF,
        "A handle is closed once. (ZwClose returns STATUS_INVALID_HANDLE otherwise, which hardly anybody looks at.)";
    NullHandle: VERIFIER, Some(verifier::NULL_HANDLE), AUTOMATIC_CHECKS, ON,
        "A null handle is not used.";
    UserHandle: VERIFIER, Some(verifier::USER_HANDLE_AS_KERNEL), AUTOMATIC_CHECKS, ON,
        "A user handle is not referenced in kernel mode.";
    KernelHandle: VERIFIER, Some(verifier::KERNEL_HANDLE_AS_USER), AUTOMATIC_CHECKS, ON,
        "A kernel handle is not referenced in user mode.";

    BadPoolCaller: codes::BAD_POOL_CALLER, None, Page::BugCheck, ENDS,
        "Pool is allocated and freed once, with its tag and at the right IRQL.";
    IrqlExAllocatePool: codes::BAD_POOL_CALLER, Some(0x8), Page::At("devtest/wdm-irqlexallocatepool"), ON,
        "Pool is allocated at IRQL <= DISPATCH_LEVEL, paged pool at IRQL <= APC_LEVEL.";
    IrqlExFree: codes::BAD_POOL_CALLER, Some(0x9), Page::At("devtest/wdm-irqlexfree1"), ON,
        "Pool is freed at IRQL <= DISPATCH_LEVEL, paged pool at IRQL <= APC_LEVEL.";
    PoolOverrun: VERIFIER, Some(verifier::POOL_OVERRUN), AUTOMATIC_CHECKS, ON,
        "Memory in front of a pool block, and behind it, is not written. (Of special pool: SpecialPoolCorruption, BeyondPoolTouched.)";
    PoolWrittenAfterFree: codes::DRIVER_CAUGHT_MODIFYING_FREED_POOL, None, Page::BugCheck, ON,
        "Pool is not written after it was freed. (Of special pool: FreedPoolTouched.)";
    SpecialPoolCorruption: codes::SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION, None, Page::BugCheck, ON,
        "Memory next to a block of special pool, in the pages of the block, is not written.";
    FreedPoolTouched: codes::DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL, None, Page::BugCheck, ON,
        "Pool is neither read nor written after it was freed. (There is special pool where this rule, the next and the two of pool that is written are on.) A routine that is passed such pool touches it by bug check 0xCC.";
    BeyondPoolTouched: codes::DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION, None, Page::BugCheck, ON,
        "Memory behind a pool block is neither read nor written. A routine that is passed such memory touches it by bug check 0xCD.";

    RemoveLock: VERIFIER, Some(verifier::REMOVE_LOCK), Page::At("devtest/wdm-removelock"), ENDS,
        "A remove lock is released as often as it was acquired, with the same tags.";
    DoubleCompletion: codes::MULTIPLE_IRP_COMPLETE_REQUESTS, None, Page::At("devtest/wdm-doublecompletion"), ENDS,
        "A request is completed once, by who has it.";
    CancelRoutineInCompletion: codes::CANCEL_STATE_IN_COMPLETED_IRP, None, Page::BugCheck, ENDS,
        "A request is completed without a cancel routine.";
    StackLocations: codes::NO_MORE_IRP_STACK_LOCATIONS, None, Page::BugCheck, ENDS,
        "A request has a stack location for each driver that it is sent to.";
    CompletedPending: codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION, Some(verifier::IO_COMPLETED_PENDING), Page::BugCheck, ENDS,
        "A request is not completed with STATUS_PENDING.";
    Requests: codes::DRIVER_VERIFIER_IOMANAGER_VIOLATION, None, Page::BugCheck, ENDS,
        "Requests are made, passed on, completed and freed as their routines' pages say, and routines return as they were called.";

    UnloadedWithPool: VERIFIER, Some(verifier::POOL_LEFT_AT_UNLOAD), AUTOMATIC_CHECKS, ON,
        "A driver frees its pool before it is unloaded.";
    UnloadedWithThreads: codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS, None, Page::BugCheck, ENDS,
        "A driver's threads, DPCs and other operations are over before it is unloaded.";

    PoolLeft: NO_BUG_CHECK, None, Page::At("devtest/pool-tracking"), ON,
        "Pool is freed by the end of a run.";
    TimersLeft: NO_BUG_CHECK, None, Page::At("ddi/wdm/nf-wdm-kecanceltimer"), ON,
        "No timer is armed at the end of a run.";
    ObjectsLeft: NO_BUG_CHECK, None, Page::At("ddi/wdm/nf-wdm-zwclose"), ON,
        "Handles are closed, and references to system objects dropped, by the end of a run.";
    TickRequestsLeft: NO_BUG_CHECK, None, Page::At("ddi/wdm/nf-wdm-exsettimerresolution"), ON,
        "Requests for a shorter clock tick are taken back by the end of a run.";
    UsesLeft: NO_BUG_CHECK, None, Page::At("ddi/wdm/nf-wdm-exreleaserundownprotection"), ON,
        "Rundown references and remove locks are released as often as they were acquired by the end of a run.";
    Repetition: NO_BUG_CHECK, None, Page::Here("simulator.md#what-a-schedule-is"), ON,
        "A program decides nothing by itself: a search makes its first run twice, and so does Machine::run_twice, and both do the same.";
}

/// Every rule that runs are checked against.
///
/// # Example
/// ```
/// let rule = ksim::rules().find(|rule| rule.name == "IrqlKeSetEvent").expect("it is one of them");
/// assert_eq!((rule.code, rule.first_parameter), (Some(0xc4), Some(0x2_0016)));
/// assert!(rule.page().ends_with("/devtest/wdm-irqlkesetevent"));
/// ```
pub fn rules() -> impl ExactSizeIterator<Item = &'static Rule> {
    RULES.iter()
}

/// The rules that are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RuleSet(u128);

const _: () = assert!(RULES.len() <= 128, "the set of rules has one bit for each");

impl Default for RuleSet {
    fn default() -> Self {
        let mut set = Self(0);
        for rule in RULES {
            set.set(rule.id, rule.on_by_default);
        }
        set
    }
}

impl RuleSet {
    #[inline]
    pub(crate) fn has(self, id: RuleId) -> bool {
        self.0 & (1 << id as u32) != 0
    }

    /// Turns a rule on or off.
    pub(crate) fn set(&mut self, id: RuleId, on: bool) {
        if on {
            self.0 |= 1 << id as u32;
        } else {
            self.0 &= !(1 << id as u32);
        }
    }

    /// Whether a breach of a level is to be reported: `verifier` is the first parameter of its bug check, or 0 for the general one.
    #[cold]
    pub(crate) fn has_level(self, verifier: u64) -> bool {
        verifier == 0 || Rule::of(VERIFIER, &[verifier, 0, 0, 0]).is_none_or(|rule| self.has(rule.id))
    }
}
