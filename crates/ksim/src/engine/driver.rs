//! Drivers: what each of them created, so that its unload can be checked (rule 62).

use super::kernel::{Check, Kernel};
use super::layout;
use super::ob::Type;
use super::object::Kind;
use super::object::SYSTEM;
use super::thread::State;
use super::thread::Tid;
use crate::check::rules::RuleId;
use crate::report::bug_check::{Related, Violation, codes};
use crate::report::trace::Operation;
use ksync_sys::{DRIVER_DISPATCH, DRIVER_EXTENSION, DRIVER_OBJECT, IRP_MJ_MAXIMUM_FUNCTION, KDPC, UNICODE_STRING};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::Arc;

/// The drivers of a machine, by load order.
#[derive(Default)]
pub(crate) struct Drivers {
    entries: Vec<DriverEntry>,
    /// Threads that wait for a driver to be out of use.
    pub(crate) unloading: Vec<Tid>,
}

impl Drivers {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        self.entries.is_empty() && self.unloading.is_empty()
    }
}

/// One driver.
pub(crate) struct DriverEntry {
    pub(crate) name: String,
    pub(crate) memory: Arc<DriverMemory>,
    /// What keeps its image: its devices, and the work items that are queued or run for its object.
    pub(crate) references: usize,
    /// What IoAllocateDriverObjectExtension allocated: names and memory.
    extensions: Vec<(usize, *mut c_void)>,
    /// It is being unloaded: its devices cannot be opened.
    unloading: bool,
}

/// The memory that a driver sees as its driver object, with what that points to. It does not move.
pub(crate) struct DriverMemory {
    object: UnsafeCell<DRIVER_OBJECT>,
    extension: UnsafeCell<DRIVER_EXTENSION>,
    _names: [Vec<u16>; 2],
}

// SAFETY: the memory is that of one machine, whose code all runs on one thread of the host; what it points to stays with it.
unsafe impl Send for DriverMemory {}
// SAFETY: as above.
unsafe impl Sync for DriverMemory {}

impl DriverMemory {
    /// A driver object with a routine for all major functions.
    fn new(name: &str, routine: DRIVER_DISPATCH) -> Arc<Self> {
        let names = [format!(r"\Driver\{name}"), name.to_owned()].map(|name| name.encode_utf16().collect::<Vec<_>>());
        let strings = names.each_ref().map(|units| {
            let bytes = u16::try_from(units.len() * 2).unwrap_or(u16::MAX - 1);
            UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: units.as_ptr().cast_mut() }
        });
        let mut object = layout::driver_object();
        object.DriverName = strings[0];
        object.MajorFunction = [Some(routine); IRP_MJ_MAXIMUM_FUNCTION + 1];
        let extension = DRIVER_EXTENSION { DriverObject: null_mut(), AddDevice: None, Count: 0, ServiceKeyName: strings[1] };
        let memory = Arc::new(Self { object: UnsafeCell::new(object), extension: UnsafeCell::new(extension), _names: names });
        // SAFETY: nobody else has the memory yet.
        unsafe { (*memory.object.get()).DriverExtension = memory.extension.get() };
        // SAFETY: as above.
        unsafe { (*memory.extension.get()).DriverObject = memory.object.get() };
        memory
    }

    /// The driver object.
    pub(crate) fn object(&self) -> *mut DRIVER_OBJECT {
        self.object.get()
    }
}

impl DriverEntry {
    /// The address that drivers know the driver by.
    pub(crate) fn object_address(&self) -> usize {
        self.memory.object() as usize
    }
}

impl Drivers {
    /// A driver.
    pub(crate) fn entry(&mut self, driver: u16) -> &mut DriverEntry {
        &mut self.entries[driver as usize]
    }

    /// True when a driver is being unloaded.
    pub(crate) fn is_unloading(&self, driver: u16) -> bool {
        self.entries[driver as usize].unloading
    }
}

/// The routine of a DPC.
///
/// The DPC is registered.
fn routine_of(dpc: usize) -> u64 {
    // SAFETY: a registered DPC's memory is valid.
    unsafe { (*(dpc as *const KDPC)).DeferredRoutine }.map_or(0, |routine| routine as usize as u64)
}

impl Kernel {
    /// Enters a driver, whose object has `routine` for all major functions.
    pub(crate) fn add_driver(&mut self, name: &str, routine: DRIVER_DISPATCH) -> (u16, Arc<DriverMemory>) {
        let memory = DriverMemory::new(name, routine);
        let driver = self.drivers.entries.len() as u16;
        let id = self.objects.register(memory.object() as usize, Kind::Driver(driver));
        self.ob.add_object(id, Type::Driver);
        let entry = DriverEntry {
            name: name.to_owned(),
            memory: memory.clone(),
            references: 0,
            extensions: Vec::new(),
            unloading: false,
        };
        self.drivers.entries.push(entry);
        self.record(Operation::LoadDriver, u32::from(driver), 0);
        (driver, memory)
    }

    /// Allocates zeroed memory that goes with a driver's object. Null when there is none.
    pub(crate) fn allocate_driver_extension(&mut self, driver: u16, name: usize, bytes: usize) -> *mut c_void {
        /// As in NT.
        const TAG: u32 = u32::from_le_bytes(*b"Driv");
        let memory = self.allocate_system(bytes.max(1), TAG, Some(driver)).cast::<c_void>();
        if !memory.is_null() {
            self.drivers.entry(driver).extensions.push((name, memory));
        }
        memory
    }

    /// The memory of that name.
    pub(crate) fn driver_extension(&mut self, driver: u16, name: usize) -> Option<*mut c_void> {
        self.drivers.entry(driver).extensions.iter().find(|(known, _)| *known == name).map(|(_, memory)| *memory)
    }

    /// The driver is to be unloaded: its devices cannot be opened any more. True when none is open; otherwise the running thread waits, and looks again.
    pub(crate) fn begin_unload(&mut self, driver: u16) -> Check<bool> {
        self.drivers.entry(driver).unloading = true;
        if !self.has_open_devices(driver) {
            return Ok(true);
        }
        self.wait_for_driver("the last close of a driver's devices")?;
        Ok(false)
    }

    /// The driver's unload routine has returned. True when nothing keeps its image that will go by itself; otherwise the running thread waits, and looks again.
    pub(crate) fn image_is_free(&mut self, driver: u16) -> Check<bool> {
        let devices = self.devices_of(driver);
        // What has not been deleted will not go.
        let left = devices.iter().filter(|&&id| !self.device_state(id).deleted).count();
        if left > 0 || self.drivers.entry(driver).references == 0 {
            return Ok(true);
        }
        // A device that another is attached to stays until that is detached.
        let attached = devices.iter().any(|&id| self.has_attached(id));
        self.wait_for_driver(if attached { "the detaching from a driver's device" } else { "the end of a driver's work items" })?;
        Ok(false)
    }

    fn wait_for_driver(&mut self, reason: &'static str) -> Check<()> {
        let tid = self.this_thread();
        if !self.drivers.unloading.contains(&tid) {
            self.drivers.unloading.push(tid);
        }
        self.park(SYSTEM, reason)
    }

    /// The running thread acts for a driver, or for none. Returns whom it acted for.
    pub(crate) fn act_for(&mut self, driver: Option<u16>) -> Option<u16> {
        let tid = self.this_thread();
        std::mem::replace(&mut self.thread(tid).driver, driver)
    }

    /// The timers that are armed, by number.
    pub(crate) fn armed_timers(&self) -> Vec<u32> {
        if !self.timers.has_been_used() {
            return Vec::new();
        }
        let mut armed: Vec<u32> = self
            .objects
            .iter()
            .filter(|(_, object)| match &object.kind {
                Kind::Timer(timer) => timer.armed.is_some(),
                Kind::ExTimer(timer) => timer.is_armed(),
                _ => false,
            })
            .map(|(_, object)| object.number)
            .collect();
        armed.sort_unstable();
        armed
    }

    /// What is checked when a driver's image is about to go: nothing of it may be running, queued, armed or allocated.
    pub(crate) fn check_unload(&mut self, driver: u16) -> Check<()> {
        self.record(Operation::UnloadDriver, u32::from(driver), 0);
        let name = self.drivers.entry(driver).name.clone();
        for (_, object) in self.objects.iter() {
            let address = object.address as u64;
            let (first, second, problem) = match &object.kind {
                Kind::Timer(timer) if timer.armed.is_some() && timer.driver == Some(driver) => (0, address, "armed"),
                Kind::ExTimer(timer) if timer.is_in_use() && timer.driver == Some(driver) => {
                    (0, address, "armed, or its callback is due")
                }
                // Here it is not the DPC that goes, but its routine, with the image.
                Kind::Dpc(dpc) if dpc.queued_on.is_some() && dpc.driver == Some(driver) => {
                    (2, routine_of(object.address), "queued")
                }
                _ => continue,
            };
            return Err(Violation::boxed_owned(
                codes::TIMER_OR_DPC_INVALID,
                [first, second, 0, 0],
                format!("driver {name} was unloaded while its {} #{} is {problem}", object.kind.name(), object.number),
            ));
        }
        let running = self.processors.iter().any(|processor| processor.running_driver == Some(driver));
        let this = self.this_thread();
        let thread = self
            .threads
            .iter()
            .enumerate()
            .find(|(tid, thread)| *tid != this as usize && thread.driver == Some(driver) && thread.state != State::Terminated)
            .map(|(_, thread)| thread.object);
        if running || thread.is_some() {
            let address = thread.map_or(0, |object| self.objects[object].address as u64);
            let what = match thread {
                Some(object) => format!("thread #{} has not ended", self.objects[object].number),
                None => "a DPC routine runs".to_owned(),
            };
            return Err(Violation::boxed_owned(
                codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS,
                [address, 0, 0, 0],
                format!("driver {name} was unloaded while its {what}"),
            ));
        }
        self.check_unloaded_io(driver, &name)?;
        if let Some(request) = self.clock.tick_request(Some(driver)) {
            // NT says nothing, and the tick stays short, at the cost of power.
            let mut fault = Violation::boxed_owned(
                codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS,
                [0, 0, 0, 0],
                format!("driver {name} was unloaded with a request for a shorter clock tick left, which nobody can take back"),
            );
            fault.related = vec![Related { what: "ExSetTimerResolution".to_owned(), site: request.site }];
            return Err(fault);
        }
        // They go with the driver object, which nothing keeps any more.
        for (_, memory) in std::mem::take(&mut self.drivers.entry(driver).extensions) {
            self.release_system(memory as usize)?;
        }
        if !self.config.rules.has(RuleId::UnloadedWithPool) {
            return Ok(());
        }
        let left: Vec<_> = self.pool.outstanding().into_iter().filter(|block| block.driver == Some(driver)).collect();
        if let Some(first) = left.first() {
            let bytes: usize = left.iter().map(|block| block.size).sum();
            return Err(Violation::boxed_owned(
                codes::DRIVER_VERIFIER_DETECTED_VIOLATION,
                [codes::verifier::POOL_LEFT_AT_UNLOAD, u64::from(driver), left.len() as u64, bytes as u64],
                format!(
                    "driver {name} was unloaded with {} pool blocks ({bytes} bytes) left, the first with tag '{}'",
                    left.len(),
                    first.tag_text()
                ),
            ));
        }
        Ok(())
    }

    /// What the I/O manager has of a driver that goes: work items, devices and links.
    fn check_unloaded_io(&mut self, driver: u16, name: &str) -> Check<()> {
        let pending = |address: usize, what: String, related: Vec<Related>| {
            let mut fault = Violation::boxed_owned(
                codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS,
                [address as u64, 0, 0, 0],
                format!("driver {name} was unloaded {what}"),
            );
            fault.related = related;
            Err(fault)
        };
        match self.io.work.of_driver(driver) {
            Some(Some((item, site))) => {
                let number = self.objects.find(item).map_or(0, |id| self.objects[id].number);
                let related = vec![Related { what: "it was queued".to_owned(), site }];
                return pending(item, format!("while its work item #{number} is queued"), related);
            }
            Some(None) => return pending(0, "while the routine of a work item of its own runs".to_owned(), Vec::new()),
            None => {}
        }
        if let Some((address, number, uses)) = self.rundown_of_driver(driver) {
            let what = format!("while its rundown reference #{number} is acquired, {uses} times");
            return pending(address, what, Vec::new());
        }
        if let Some((interrupt, vector)) = self.interrupt_of(driver) {
            let what = format!("with its interrupt {vector:#x} connected, whose service routine goes with the image");
            return pending(interrupt, what, self.allocation_of(interrupt));
        }
        if let Some(&device) = self.devices_of(driver).first() {
            let address = self.objects[device].address;
            let what = format!(
                "without deleting {}: requests to it would find no routine, and the driver could not be loaded again",
                self.describe_device(device)
            );
            return pending(address, what, self.allocation_of(address));
        }
        if let Some(link) = self.io.names.links_of(driver).next() {
            let what = format!("without deleting the symbolic link {} to {}", link.written, link.target);
            return pending(
                0,
                what,
                link.created.map(|site| Related { what: "it was created".to_owned(), site: Some(site) }).into_iter().collect(),
            );
        }
        Ok(())
    }
}
