//! What the kernel exports as data.

use crate::engine::Kernel;
use ksync_sys::KSPIN_LOCK;

/// KSYSTEM_TIME.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SystemTime {
    low: u32,
    high: i32,
    high_again: i32,
}

impl SystemTime {
    pub(crate) fn new(value: i64) -> Self {
        let high = (value >> 32) as i32;
        Self { low: value as u32, high, high_again: high }
    }
}

/// How many queued spin locks the system has, by their numbers (KSPIN_LOCK_QUEUE_NUMBER).
pub(crate) const QUEUED_LOCKS: usize = 17;
/// The number of the cancel lock (LockQueueIoCancelLock).
pub(crate) const CANCEL_LOCK: usize = 7;

/// The variables of one machine. Drivers read them directly.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Variables {
    tick_count: SystemTime,
    build_number: u32,
    initial_system_process: usize,
    user_probe_address: u64,
    highest_user_address: u64,
    system_range_start: u64,
    debugger_enabled: u8,
    debugger_not_present: u8,
    number_processors: u8,
    safe_boot_mode: u32,
    global_flag: u32,
    queued_locks: [KSPIN_LOCK; QUEUED_LOCKS],
}

impl Variables {
    pub(super) fn new(kernel: &mut Kernel) -> Self {
        // A release build, as the top bits of the exported number say.
        const FREE_BUILD: u32 = 0xf000_0000;
        let (_, _, build) = kernel.config.profile.version();
        let mut variables = Self {
            tick_count: SystemTime::default(),
            build_number: FREE_BUILD | build,
            initial_system_process: kernel.process_address(Kernel::SYSTEM_PROCESS),
            user_probe_address: 0x7fff_ffff_0000,
            highest_user_address: 0x7fff_fffe_ffff,
            system_range_start: 0xffff_8000_0000_0000,
            debugger_enabled: 0,
            debugger_not_present: 1,
            number_processors: kernel.config.processors,
            safe_boot_mode: 0,
            global_flag: 0,
            queued_locks: [0; QUEUED_LOCKS],
        };
        variables.update(kernel);
        variables
    }

    /// Brings up to date what changes.
    pub(super) fn update(&mut self, kernel: &Kernel) {
        self.tick_count = SystemTime::new(kernel.clock.tick_count() as i64);
    }

    /// The address of a variable.
    pub(crate) fn address(&self, name: &str) -> Option<usize> {
        let address = match name {
            "KeTickCount" => (&raw const self.tick_count).addr(),
            "NtBuildNumber" => (&raw const self.build_number).addr(),
            "PsInitialSystemProcess" => (&raw const self.initial_system_process).addr(),
            "MmUserProbeAddress" => (&raw const self.user_probe_address).addr(),
            "MmHighestUserAddress" => (&raw const self.highest_user_address).addr(),
            "MmSystemRangeStart" => (&raw const self.system_range_start).addr(),
            "KdDebuggerEnabled" => (&raw const self.debugger_enabled).addr(),
            "KdDebuggerNotPresent" => (&raw const self.debugger_not_present).addr(),
            "KeNumberProcessors" => (&raw const self.number_processors).addr(),
            "InitSafeBootMode" => (&raw const self.safe_boot_mode).addr(),
            "NtGlobalFlag" => (&raw const self.global_flag).addr(),
            _ => return crate::exports::variable(name),
        };
        Some(address)
    }

    /// One of the system's queued spin locks.
    pub(super) fn queued_lock(&mut self, number: usize) -> *mut KSPIN_LOCK {
        &raw mut self.queued_locks[number]
    }

    /// The names of the variables here.
    pub(crate) const NAMES: [&str; 11] = [
        "KeTickCount",
        "NtBuildNumber",
        "PsInitialSystemProcess",
        "MmUserProbeAddress",
        "MmHighestUserAddress",
        "MmSystemRangeStart",
        "KdDebuggerEnabled",
        "KdDebuggerNotPresent",
        "KeNumberProcessors",
        "InitSafeBootMode",
        "NtGlobalFlag",
    ];
}
