//! Bug checks as values.

use super::sites::SiteId;
use crate::irql::irql_name;
use ksync_sys::NTSTATUS;
use std::borrow::Cow;
use std::fmt;

/// The bug check codes that the hosted kernel raises, and the first parameters of those that Driver Verifier's has many of.
pub mod codes {
    macro_rules! codes {
        ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
            $($(#[$doc])* pub const $name: u32 = $value;)*

            /// The name of a bug check code.
            #[must_use]
            pub fn name(code: u32) -> &'static str {
                match code {
                    $($value => stringify!($name),)*
                    _ => "unknown bug check code",
                }
            }
        };
    }

    // `tests/bug_check_codes.rs` compares the numbers with those of windows-sys, which has them from Microsoft's headers.
    codes! {
        /// The APC disable counters are wrong at the return from a system call or worker.
        APC_INDEX_MISMATCH = 0x1;
        /// A routine was called at too low an IRQL.
        IRQL_NOT_GREATER_OR_EQUAL = 0x9;
        /// A routine was called at too high an IRQL, or with an address that cannot be used there.
        IRQL_NOT_LESS_OR_EQUAL = 0xa;
        /// A wait named too many objects.
        MAXIMUM_WAIT_OBJECTS_EXCEEDED = 0xc;
        /// Recursive acquisition of a spin lock.
        SPIN_LOCK_ALREADY_OWNED = 0xf;
        /// Release of a spin lock that is not held.
        SPIN_LOCK_NOT_OWNED = 0x10;
        /// The reference count of an object is wrong for its state.
        REFERENCE_BY_POINTER = 0x18;
        /// An exception in a DPC that no handler took.
        KMODE_EXCEPTION_NOT_HANDLED = 0x1e;
        /// A thread ended with APCs disabled, or at a raised IRQL.
        KERNEL_APC_PENDING_DURING_EXIT = 0x20;
        /// An exception in a system call that no handler took.
        SYSTEM_SERVICE_EXCEPTION = 0x3b;
        /// An exception in a system thread that no handler took.
        SYSTEM_THREAD_EXCEPTION_NOT_HANDLED = 0x7e;
        /// A system call returned to user mode above PASSIVE_LEVEL.
        IRQL_GT_ZERO_AT_SYSTEM_SERVICE = 0x4a;
        /// A driver sent a request to a driver that it has no stack location for.
        NO_MORE_IRP_STACK_LOCATIONS = 0x35;
        /// A request was completed twice.
        MULTIPLE_IRP_COMPLETE_REQUESTS = 0x44;
        /// A request was completed, or cancelled, while its cancel routine was set and must not be.
        CANCEL_STATE_IN_COMPLETED_IRP = 0x48;
        /// A queue entry was inserted twice or has null links.
        INVALID_WORK_QUEUE_ITEM = 0x96;
        /// A handle was closed that is not open.
        INVALID_KERNEL_HANDLE = 0x93;
        /// A wait, or a thread switch, in a DPC.
        ATTEMPTED_SWITCH_FROM_DPC = 0xb8;
        /// A bad pool request.
        BAD_POOL_CALLER = 0xc2;
        /// What Driver Verifier reports; the first parameter says what.
        DRIVER_VERIFIER_DETECTED_VIOLATION = 0xc4;
        /// A timer or DPC object that must not be where or what it is.
        TIMER_OR_DPC_INVALID = 0xc7;
        /// An IRQL was changed by a routine that must not change it.
        IRQL_UNEXPECTED_VALUE = 0xc8;
        /// What Driver Verifier's I/O verification reports; the first parameter says what.
        DRIVER_VERIFIER_IOMANAGER_VIOLATION = 0xc9;
        /// Bytes in front of a block of special pool, or behind it, were found written when it was freed.
        SPECIAL_POOL_DETECTED_MEMORY_CORRUPTION = 0xc1;
        /// The kernel touched a block of special pool that was freed, on a driver's behalf.
        PAGE_FAULT_IN_FREED_SPECIAL_POOL = 0xcc;
        /// The kernel touched what is behind a block of special pool, on a driver's behalf.
        PAGE_FAULT_BEYOND_END_OF_ALLOCATION = 0xcd;
        /// A driver touched a block of special pool that was freed.
        DRIVER_PAGE_FAULT_IN_FREED_SPECIAL_POOL = 0xd5;
        /// A driver touched what is behind a block of special pool.
        DRIVER_PAGE_FAULT_BEYOND_END_OF_ALLOCATION = 0xd6;
        /// A driver was unloaded with operations pending.
        DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS = 0xce;
        /// Pool was written after it was freed.
        DRIVER_CAUGHT_MODIFYING_FREED_POOL = 0xc6;
        /// A processor stayed at DISPATCH_LEVEL for too long.
        DPC_WATCHDOG_VIOLATION = 0x133;
        /// A pageable or bad address was used at a raised IRQL by a driver.
        DRIVER_IRQL_NOT_LESS_OR_EQUAL = 0xd1;
        /// A worker routine returned at a raised IRQL.
        WORKER_THREAD_RETURNED_AT_BAD_IRQL = 0xe1;
        /// A work item was queued, freed or initialised while it was queued; the first parameter says which.
        WORKER_INVALID = 0xe4;
        /// Memory was touched that is not there.
        PAGE_FAULT_IN_NONPAGED_AREA = 0x50;
        /// An exception of the processor that the kernel does not handle.
        UNEXPECTED_KERNEL_MODE_TRAP = 0x7f;
        /// A driver found its own data damaged, and stopped itself.
        KERNEL_SECURITY_CHECK_FAILURE = 0x139;
        /// A driver called a routine that the kernel does not have.
        DRIVER_ENTRYPOINT_NOT_FOUND = 0xc000_0263;
        /// A driver asked for it.
        MANUALLY_INITIATED_CRASH = 0xe2;
        /// Release of a resource that is not owned.
        RESOURCE_NOT_OWNED = 0xe3;
        /// A push lock routine was called with flags that do not exist.
        INVALID_PUSH_LOCK_FLAGS = 0x152;
        /// A thread ended while it held a push lock.
        KERNEL_LOCK_ENTRY_LEAKED_ON_THREAD_TERMINATION = 0x153;
        /// A lock was released by a thread that does not hold it.
        KERNEL_AUTO_BOOST_INVALID_LOCK_RELEASE = 0x162;
        /// A resource was released for a thread that does not own it.
        ERESOURCE_INVALID_RELEASE = 0x16e;
        /// A thread ended while it held a KMUTEX.
        THREAD_TERMINATE_HELD_MUTEX = 0x4000_008a;
    }

    /// First parameters of DRIVER_VERIFIER_DETECTED_VIOLATION, and of DRIVER_VERIFIER_IOMANAGER_VIOLATION (`IO_...`).
    ///
    /// No header has them. They are those of the pages on bug checks 0xC4 and 0xC9, and of the pages on rules in `devtest/ddi-compliance-checking`, of Microsoft's documentation;
    /// [`rules`](crate::rules) links each to its page. Those that begin with `0x6b73` are none of NT's.
    pub mod verifier {
        /// IoFreeIrp for a request that belongs to a thread.
        pub const IO_FREE_THREADED: u64 = 0x2;
        /// A request was completed with the status STATUS_PENDING or -1.
        pub const IO_COMPLETED_PENDING: u64 = 0x6;
        /// Whatever else is wrong about a request.
        pub const IO_OTHER: u64 = 0x200;
        /// A dispatch routine changed the APC disable count.
        pub const DISPATCH_APC_COUNT: u64 = 0xc5;
        /// A completion routine returned at another IRQL.
        pub const COMPLETION_IRQL: u64 = 0xfa;
        /// A completion routine changed the APC disable count.
        pub const COMPLETION_APC_COUNT: u64 = 0xfb;
        /// An interrupt service routine returned at another IRQL.
        pub const SERVICE_IRQL: u64 = 0x111;
        /// DDI compliance rule IrqlReturn: a dispatch or cancel routine returned at another IRQL.
        pub const RULE_IRQL_RETURN: u64 = 0x2_001d;
        /// Freed pool holds an armed timer.
        pub const FREED_ACTIVE_TIMER: u64 = 0x15;
        /// KeRaiseIrql to a lower level.
        pub const RAISE_TO_LOWER: u64 = 0x30;
        /// KeLowerIrql to a higher level, or not to that of the last raise.
        pub const LOWER_TO_HIGHER: u64 = 0x31;
        /// A spin lock was released below DISPATCH_LEVEL.
        pub const SPIN_RELEASE_IRQL: u64 = 0x32;
        /// A bad handle was referenced in kernel mode.
        pub const BAD_HANDLE: u64 = 0x3c;
        /// A critical or guarded region was left too often.
        pub const REGION_LEFT_TOO_OFTEN: u64 = 0x3e;
        /// An object was referenced whose count is 0.
        pub const REFERENCE_FROM_ZERO: u64 = 0x3f;
        /// A spin lock was acquired at DPC level below DISPATCH_LEVEL.
        pub const AT_DPC_LEVEL_TOO_LOW: u64 = 0x40;
        /// Memory in front of a pool block, or behind it, was written.
        pub const POOL_OVERRUN: u64 = 0x51;
        /// A driver was unloaded without freeing its pool.
        pub const POOL_LEFT_AT_UNLOAD: u64 = 0x62;
        /// A resource was initialised again.
        pub const RESOURCE_REINITIALIZED: u64 = 0xd0;
        /// A resource was used or deleted that is not initialised.
        pub const RESOURCE_UNINITIALIZED: u64 = 0xd1;
        /// Freed pool holds a resource that was not deleted.
        pub const FREED_ACTIVE_RESOURCE: u64 = 0xd2;
        /// A lookaside list was initialised again.
        pub const LOOKASIDE_REINITIALIZED: u64 = 0xca;
        /// A lookaside list was deleted that is not initialised.
        pub const LOOKASIDE_UNINITIALIZED: u64 = 0xcb;
        /// Freed pool holds a lookaside list that was not deleted.
        pub const FREED_ACTIVE_LOOKASIDE: u64 = 0xcc;
        /// A lookaside list was initialised with a block size that is too small.
        pub const LOOKASIDE_BLOCK_TOO_SMALL: u64 = 0xcd;
        /// A null handle was referenced.
        pub const NULL_HANDLE: u64 = 0xf5;
        /// A user handle was referenced in kernel mode.
        pub const USER_HANDLE_AS_KERNEL: u64 = 0xf6;
        /// A kernel handle was referenced in user mode.
        pub const KERNEL_HANDLE_AS_USER: u64 = 0xf7;
        /// KeEnterCriticalRegion above APC_LEVEL.
        pub const ENTER_CRITICAL_REGION: u64 = 0x11a;
        /// KeLeaveCriticalRegion above APC_LEVEL.
        pub const LEAVE_CRITICAL_REGION: u64 = 0x11b;
        /// A wait above DISPATCH_LEVEL.
        pub const WAIT_ABOVE_DISPATCH: u64 = 0x120;
        /// A wait at DISPATCH_LEVEL without a timeout.
        pub const WAIT_AT_DISPATCH_FOREVER: u64 = 0x121;
        /// A wait at DISPATCH_LEVEL with a timeout that is not 0.
        pub const WAIT_AT_DISPATCH_TIMED: u64 = 0x122;
        /// A user-mode wait on an object that lies on the stack.
        pub const USER_WAIT_ON_STACK: u64 = 0x123;
        /// A lock was acquired by the thread that holds it and must not.
        pub const SELF_DEADLOCK: u64 = 0x1000;
        /// Locks were taken in orders that form a cycle.
        pub const LOCK_HIERARCHY: u64 = 0x1001;
        /// An object was used that was never initialised there.
        pub const UNINITIALIZED_OBJECT: u64 = 0x1002;
        /// A lock was released by a thread that does not hold it.
        pub const WRONG_THREAD: u64 = 0x1004;
        /// An object was initialised again while it was in use.
        pub const REINITIALIZED_OBJECT: u64 = 0x1005;
        /// A lock was released that was not acquired.
        pub const NOT_ACQUIRED: u64 = 0x1007;
        /// A lock was acquired by the routine of another kind of lock.
        pub const WRONG_ACQUIRE_API: u64 = 0x1008;
        /// A lock was released by the routine of another kind of lock.
        pub const WRONG_RELEASE_API: u64 = 0x1009;
        /// A thread ended while it held a lock.
        pub const THREAD_ENDED_OWNING: u64 = 0x100a;
        /// A lock was deleted or freed while it was held.
        pub const DELETED_WHILE_OWNED: u64 = 0x100b;
        /// A fast mutex was acquired by its unsafe routine with APCs enabled.
        pub const FAST_MUTEX_ACQUIRED_WITH_APCS: u64 = 0x39;
        /// A fast mutex was released by its unsafe routine with APCs enabled.
        pub const FAST_MUTEX_RELEASED_WITH_APCS: u64 = 0x3a;
        /// A resource was acquired with normal kernel APCs enabled.
        pub const RESOURCE_ACQUIRED_WITH_APCS: u64 = 0x37;
        /// A resource was released with normal kernel APCs enabled.
        pub const RESOURCE_RELEASED_WITH_APCS: u64 = 0x38;
        /// A push lock was acquired with normal kernel APCs enabled.
        pub const PUSH_LOCK_ACQUIRED_WITH_APCS: u64 = 0xea;
        /// A push lock was released with normal kernel APCs enabled.
        pub const PUSH_LOCK_RELEASED_WITH_APCS: u64 = 0xeb;
        /// Not NT's: a thread waited while it held a spin lock.
        pub const WAIT_WITH_SPIN_LOCK: u64 = 0x6b73_0001;
        /// Not NT's: a thread released what it had waited for in vain.
        pub const WAIT_STATUS_IGNORED: u64 = 0x6b73_0002;
        /// Not NT's: a thread ended, or a routine of a driver returned, while it owned a resource.
        pub const RESOURCE_HELD_AT_RETURN: u64 = 0x6b73_0003;
        /// Not NT's: a thread ended while an object on its stack was in use.
        pub const STACK_OBJECT_IN_USE: u64 = 0x6b73_0004;
        /// Not NT's: an argument that the routine's page does not allow. NT ignores it or goes wrong later, and the verifier has no number for it.
        pub const BAD_ARGUMENT: u64 = 0x6b73_0005;
        /// Not NT's: a remove lock was released that was not acquired, or not with this tag. Static Driver Verifier's rule has no number.
        pub const REMOVE_LOCK: u64 = 0x6b73_0006;
        /// Not NT's: the cancel spin lock was acquired by its owner, or released by another. Static Driver Verifier's rule has no number.
        pub const CANCEL_SPIN_LOCK: u64 = 0x6b73_0007;
        /// Not NT's: a routine of a driver returned while it held the cancel spin lock. Static Driver Verifier's rule has no number.
        pub const CANCEL_SPIN_LOCK_HELD_AT_RETURN: u64 = 0x6b73_0008;
        /// Not NT's: a request was completed, or the next one started, under a spin lock. Static Driver Verifier's rule has no number.
        pub const SPIN_LOCK_SAFE: u64 = 0x6b73_0009;
        /// DDI compliance rule CriticalRegions.
        pub const CRITICAL_REGIONS: u64 = 0x4_0003;
        /// DDI compliance rule QueuedSpinLock.
        pub const QUEUED_SPIN_LOCK: u64 = 0x4_0006;
        /// DDI compliance rule QueuedSpinLockRelease.
        pub const QUEUED_SPIN_LOCK_HELD_AT_RETURN: u64 = 0x4_0007;
        /// DDI compliance rule GuardedRegions.
        pub const GUARDED_REGIONS: u64 = 0x4_000e;
        /// DDI compliance rule IrqlKeReleaseSpinLock.
        pub const RULE_IRQL_KE_RELEASE_SPIN_LOCK: u64 = 0x2_0015;
        /// DDI compliance rule SpinlockRelease.
        pub const SPIN_LOCK_HELD_AT_RETURN: u64 = 0x4_000a;
    }
}

/// A rule that was broken, before it is known where.
#[derive(Debug)]
pub(crate) struct Violation {
    pub(crate) code: u32,
    pub(crate) parameters: [u64; 4],
    pub(crate) meaning: Cow<'static, str>,
    /// Other places that have to do with it.
    pub(crate) related: Vec<Related>,
    /// The status of an exception, which a driver may handle.
    pub(crate) raised: Option<NTSTATUS>,
}

/// What else happened that a violation has to do with, and where.
#[derive(Debug)]
pub(crate) struct Related {
    pub(crate) what: String,
    pub(crate) site: Option<SiteId>,
}

impl Violation {
    #[cold]
    pub(crate) fn boxed(code: u32, parameters: [u64; 4], meaning: &'static str) -> Box<Self> {
        Box::new(Self { code, parameters, meaning: Cow::Borrowed(meaning), related: Vec::new(), raised: None })
    }

    #[cold]
    pub(crate) fn boxed_owned(code: u32, parameters: [u64; 4], meaning: String) -> Box<Self> {
        Box::new(Self { code, parameters, meaning: Cow::Owned(meaning), related: Vec::new(), raised: None })
    }

    /// An exception: hosted code cannot catch one, so that it is a bug check there, as it is in a driver without a handler.
    #[cold]
    pub(crate) fn raised(status: NTSTATUS, meaning: String) -> Box<Self> {
        let name = ksync_sys::status_name(status).unwrap_or("an unnamed status");
        let mut violation = Self::boxed_owned(
            codes::KMODE_EXCEPTION_NOT_HANDLED,
            [u64::from(status as u32), 0, 0, 0],
            format!("{name} ({status:#010x}) was raised and not handled: {meaning}"),
        );
        violation.raised = Some(status);
        violation
    }
}

/// A place in driver code.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CallSite {
    /// The function, demangled.
    pub function: String,
    /// The source file, when the build has line tables.
    pub file: Option<String>,
    /// The line.
    pub line: Option<u32>,
    /// The routine of `ksync` that it called, where it did so.
    pub library: Option<String>,
    /// It is a place in `ksync` itself: no driver code called there.
    pub(crate) of_library: bool,
}

impl fmt::Display for CallSite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.function)?;
        if let Some(file) = &self.file {
            write!(f, " ({file}")?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            write!(f, ")")?;
        }
        self.library.as_ref().map_or(Ok(()), |routine| write!(f, ", in {routine}"))
    }
}

/// What else happened that a bug check has to do with.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RelatedSite {
    /// Who did what.
    pub what: String,
    /// Where, innermost first; empty where that was not recorded.
    pub call_sites: Vec<CallSite>,
}

/// A bug check: what on Windows would be a blue screen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BugCheck {
    /// NT's code.
    pub code: u32,
    /// NT's name of the code.
    pub name: &'static str,
    /// The four parameters, as the page of the code describes them.
    pub parameters: [u64; 4],
    /// What happened, in words.
    pub meaning: String,
    /// The number of the thread that did it; none for a DPC on an idle processor.
    pub thread: Option<u32>,
    /// The processor.
    pub processor: u8,
    /// Its IRQL.
    pub irql: u8,
    /// A DPC routine ran.
    pub in_dpc: bool,
    /// The NT routine that was called.
    pub routine: Option<&'static str>,
    /// Who called it: the innermost frame that is not the hosted kernel's, first, then its callers.
    pub call_sites: Vec<CallSite>,
    /// What else it has to do with, such as the acquisitions of all locks of a cycle.
    pub related: Vec<RelatedSite>,
}

impl BugCheck {
    /// The innermost place in driver code.
    #[must_use]
    pub fn call_site(&self) -> Option<&CallSite> {
        self.call_sites.first()
    }
}

impl fmt::Display for BugCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p1, p2, p3, p4] = self.parameters;
        writeln!(f, "*** STOP {:#x} {} ({p1:#x}, {p2:#x}, {p3:#x}, {p4:#x})", self.code, self.name)?;
        writeln!(f, "    {}", self.meaning)?;
        write!(f, "    on processor {} at {}", self.processor, irql_name(self.irql))?;
        match self.thread {
            Some(thread) if self.in_dpc => write!(f, ", in a DPC that interrupted thread #{thread}")?,
            Some(thread) => write!(f, ", in thread #{thread}")?,
            None if self.in_dpc => write!(f, ", in a DPC")?,
            None => {}
        }
        if let Some(routine) = self.routine {
            write!(f, ", in {routine}")?;
        }
        for (depth, site) in self.call_sites.iter().enumerate() {
            let word = if depth == 0 { "called from" } else { "         by" };
            write!(f, "\n    {word} {site}")?;
        }
        for RelatedSite { what, call_sites } in &self.related {
            write!(f, "\n    {what}")?;
            if let Some(site) = call_sites.first() {
                write!(f, "\n        at {site}")?;
            }
        }
        Ok(())
    }
}
