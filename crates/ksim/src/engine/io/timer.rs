//! Device timers: one timer and one DPC of the system's call the routines of all devices whose timers are started, once a second.
//!
//! The routines run under a spin lock of the system's. That is why a stop, which takes it too, is over only when no routine runs, and why a routine must not
//! stop a timer.

use crate::engine::dpc::DpcState;
use crate::engine::kernel::{Check, Kernel};
use crate::engine::layout;
use crate::engine::object::{Kind, ObjId};
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{
    DEVICE_OBJECT, IO_TIMER_ROUTINE, KDPC, KSPIN_LOCK, KTIMER, MediumImportance, NTSTATUS, PKDEFERRED_ROUTINE, PVOID,
    STATUS_INSUFFICIENT_RESOURCES, STATUS_SUCCESS,
};
use std::ptr::null_mut;

/// The tag of timers, as in NT.
const TAG: u32 = u32::from_le_bytes(*b"IoTi");
/// What an IO_TIMER takes in NT. Drivers only see that there is one.
const BYTES: usize = 48;
/// Milliseconds between two calls.
const PERIOD: u32 = 1_000;
/// The same, as the clocks count.
const PERIOD_UNITS: u64 = PERIOD as u64 * 10_000;

/// One device's timer.
#[derive(Debug)]
struct IoTimer {
    device: ObjId,
    /// The order of creation.
    order: u64,
    routine: IO_TIMER_ROUTINE,
    context: PVOID,
    started: bool,
}

/// The system's own timer and its DPC, which do not move.
struct Ticker {
    timer: KTIMER,
    dpc: KDPC,
}

/// All device timers.
#[derive(Default)]
pub(crate) struct IoTimers {
    timers: Vec<IoTimer>,
    created: u64,
    ticker: Option<Box<Ticker>>,
    lock: Box<KSPIN_LOCK>,
}

/// A routine to call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) order: u64,
    pub(crate) device: *mut DEVICE_OBJECT,
    pub(crate) driver: u16,
    pub(crate) routine: IO_TIMER_ROUTINE,
    pub(crate) context: PVOID,
}

impl IoTimers {
    /// Forgets all, and keeps the lock's memory.
    pub(super) fn clear(&mut self) {
        let Self { timers, created, ticker, lock } = self;
        timers.clear();
        *created = 0;
        *ticker = None;
        **lock = 0;
    }

    /// The lock that the routines run under.
    pub(crate) fn lock(&mut self) -> *mut KSPIN_LOCK {
        &raw mut *self.lock
    }

    fn find(&mut self, device: ObjId) -> Option<&mut IoTimer> {
        self.timers.iter_mut().find(|timer| timer.device == device)
    }
}

impl Kernel {
    /// Gives a device a timer, or the one that it has another routine.
    pub(crate) fn initialize_io_timer(&mut self, device: ObjId, routine: IO_TIMER_ROUTINE, context: PVOID) -> Check<NTSTATUS> {
        if let Some(timer) = self.io.timers.find(device) {
            if timer.started {
                let address = self.objects[device].address as u64;
                return Err(Violation::boxed(
                    codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                    [codes::verifier::REINITIALIZED_OBJECT, address, 0, 0],
                    "a device's timer was initialised again while it was started",
                ));
            }
            (timer.routine, timer.context) = (routine, context);
            return Ok(STATUS_SUCCESS);
        }
        let driver = self.device_state(device).driver;
        let memory = self.allocate_system(BYTES, TAG, Some(driver));
        if memory.is_null() {
            return Ok(STATUS_INSUFFICIENT_RESOURCES);
        }
        let object = self.device_memory(device);
        // SAFETY: a registered device's memory is valid.
        unsafe { (*object).Timer = memory.cast() };
        self.io.timers.created += 1;
        let order = self.io.timers.created;
        self.io.timers.timers.push(IoTimer { device, order, routine, context, started: false });
        Ok(STATUS_SUCCESS)
    }

    fn io_timer(&mut self, device: ObjId) -> Check<&mut IoTimer> {
        let address = self.objects[device].address as u64;
        self.io.timers.find(device).ok_or_else(|| {
            Violation::boxed(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::UNINITIALIZED_OBJECT, address, 0, 0],
                "the timer of a device was started or stopped that IoInitializeTimer has given none: NT follows a null pointer there",
            )
        })
    }

    /// Starts a device's timer. `routine` is the system's DPC routine for all of them.
    pub(crate) fn start_io_timer(&mut self, device: ObjId, routine: PKDEFERRED_ROUTINE) -> Check<()> {
        self.io_timer(device)?;
        // One that is being deleted stays stopped.
        let deleted = self.device_state(device).deleted;
        let timer = self.io_timer(device)?;
        if timer.started || deleted {
            return Ok(());
        }
        timer.started = true;
        let first = self.io.timers.timers.iter().filter(|timer| timer.started).count() == 1;
        if first { self.start_ticker(routine) } else { Ok(()) }
    }

    /// Stops a device's timer. The caller has the lock, so that no routine runs.
    pub(crate) fn stop_io_timer(&mut self, device: ObjId) -> Check<()> {
        self.io_timer(device)?.started = false;
        self.stop_ticker_if_idle()
    }

    /// A device is deleted: so is its timer, if it has one. The caller has the lock.
    pub(crate) fn delete_io_timer(&mut self, device: ObjId) -> Check<()> {
        if self.io.timers.find(device).is_none() {
            return Ok(());
        }
        self.io.timers.timers.retain(|timer| timer.device != device);
        let object = self.device_memory(device);
        // SAFETY: a registered device's memory is valid.
        let timer = unsafe { &raw mut (*object).Timer };
        // SAFETY: as above.
        let memory = unsafe { timer.replace(null_mut()) };
        self.release_system(memory as usize)?;
        self.stop_ticker_if_idle()
    }

    /// True for a device that has a timer.
    pub(crate) fn has_io_timer(&mut self, device: ObjId) -> bool {
        self.io.timers.find(device).is_some()
    }

    /// The routine after that of `order` whose device's timer is started.
    pub(crate) fn next_io_timer(&mut self, order: u64) -> Option<Due> {
        let timer = self.io.timers.timers.iter().find(|timer| timer.order > order && timer.started)?;
        let state = self.device_state(timer.device);
        Some(Due {
            order: timer.order,
            device: self.device_memory(timer.device),
            driver: state.driver,
            routine: timer.routine,
            context: timer.context,
        })
    }

    /// What holds a spin lock here is the system's call of a timer routine, and not the driver.
    pub(crate) fn is_io_timer_lock(&self, lock: ObjId) -> bool {
        self.objects[lock].address == (&raw const *self.io.timers.lock) as usize
    }

    /// The routines are called at whole seconds of the interrupt time: a driver cannot tell how soon the first call comes.
    fn start_ticker(&mut self, routine: PKDEFERRED_ROUTINE) -> Check<()> {
        let fresh = self.io.timers.ticker.is_none();
        let ticker = self.io.timers.ticker.get_or_insert_with(|| {
            // SAFETY: the structure is plain data, for all of which zero is valid.
            let timer = unsafe { std::mem::zeroed() };
            Box::new(Ticker { timer, dpc: layout::dpc(routine, null_mut(), false) })
        });
        let (timer, dpc) = (&raw mut ticker.timer, &raw mut ticker.dpc);
        if fresh {
            let state = DpcState {
                importance: MediumImportance,
                target: None,
                threaded: false,
                queued_on: None,
                last_queued_on: None,
                order: 0,
                driver: None,
                by_timer: false,
            };
            self.objects.register(dpc as usize, Kind::Dpc(state));
            // SAFETY: the memory is that of the ticker, which stays while the machine runs.
            unsafe { self.initialize_timer(timer, true)? };
        }
        let id = self.timer_at(timer)?;
        let left = PERIOD_UNITS - self.clock.interrupt_time() % PERIOD_UNITS;
        self.set_timer(id, -(left as i64), PERIOD, 0, dpc)?;
        // It is the system's: a driver may be unloaded while it is armed for others.
        if let Kind::Timer(state) = &mut self.objects[id].kind {
            state.driver = None;
        }
        Ok(())
    }

    fn stop_ticker_if_idle(&mut self) -> Check<()> {
        if self.io.timers.timers.iter().any(|timer| timer.started) {
            return Ok(());
        }
        if let Some(ticker) = &mut self.io.timers.ticker {
            let timer = &raw mut ticker.timer;
            let id = self.timer_at(timer)?;
            self.cancel_timer(id);
        }
        Ok(())
    }
}
