//! A driver whose requests are done by worker threads.
//!
//! A device control request with numbers is put into a bounded queue, where it is pending; a worker thread takes it out, adds the numbers up and completes it. Requests can be cancelled while they wait, and
//! closing a handle cancels what waits for it. The unload stops the intake first, then the workers.
//!
//! The same source runs hosted (`cargo test -p workers`) and as a native `.sys` (`cargo xtask driver workers`).
#![no_std]

extern crate alloc;

mod queue;

use alloc::sync::Arc;
use core::time::Duration;

use ksync::device::{Device, DeviceBuilder, Dispatch, Disposition, Irp};
use ksync::driver::{DriverObject, UnicodeStr};
use ksync::error::{NtError, NtStatus, Result};
use ksync::sys;
use ksync::thread::{self, JoinHandle};
use ksync::work_item::WorkItem;

use queue::{Queue, Statistics};

/// The device's name.
pub const NAME: &str = r"\Device\Workers";
/// The link to it: `\\.\Workers` in a process.
pub const LINK: &str = r"\??\Workers";

/// Adds up the numbers of the input, 32-bit little-endian each. The output is the sum, 64-bit little-endian.
pub const ADD: u32 = sys::CTL_CODE(sys::FILE_DEVICE_UNKNOWN, 0x800, sys::METHOD_BUFFERED, sys::FILE_ANY_ACCESS);
/// How many requests were completed, cancelled and refused: 32-bit little-endian each. It does not wait.
pub const STATISTICS: u32 = sys::CTL_CODE(sys::FILE_DEVICE_UNKNOWN, 0x801, sys::METHOD_BUFFERED, sys::FILE_ANY_ACCESS);

/// How many requests may wait.
pub const CAPACITY: u32 = 8;
/// How many threads work.
pub const WORKERS: usize = 3;

/// How long a worker works on a request, for tests to have something to wait for.
const WORK: Duration = Duration::from_millis(1);

/// The device's part: it takes requests in.
struct Front {
    queue: Arc<Queue>,
}

impl Dispatch for Front {
    fn device_control<'i>(&self, mut irp: Irp<'i>) -> Disposition<'i> {
        match irp.control_code() {
            Some(ADD) => self.queue.submit(irp),
            Some(STATISTICS) => {
                let written = self.queue.statistics().and_then(|statistics| irp.write_output(&statistics.to_bytes()));
                irp.complete_with(written)
            }
            _ => irp.complete(NtStatus(sys::STATUS_INVALID_DEVICE_REQUEST), 0),
        }
    }

    fn cleanup<'i>(&self, irp: Irp<'i>) -> Disposition<'i> {
        self.queue.cancel_for_file(irp.file());
        irp.complete(NtStatus::SUCCESS, 0)
    }
}

/// What the driver keeps until it is unloaded. The fields are dropped in this order: the device first, so that nothing comes in any more.
pub struct Workers {
    _device: Device<Front>,
    _workers: Stop,
}

impl core::fmt::Debug for Workers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Workers").finish_non_exhaustive()
    }
}

/// The worker threads. Dropping it lets them finish what waits, and joins them.
struct Stop {
    queue: Arc<Queue>,
    threads: [Option<JoinHandle<u32>>; WORKERS],
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.queue.stop(WORKERS);
        let mut done = 0;
        for thread in self.threads.iter_mut().filter_map(Option::take) {
            done += thread.join().unwrap_or(0);
        }
        ksync::println!("[step] stop");
        ksync::println!("# requests done: {done}");
        ksync::println!("{WORKERS} workers have ended");
    }
}

/// Adds up the numbers of a request.
fn add(input: &[u8]) -> Result<u64> {
    let (numbers, []) = input.as_chunks::<4>() else { return Err(NtError::INVALID_PARAMETER) };
    Ok(numbers.iter().map(|&number| u64::from(u32::from_le_bytes(number))).sum())
}

/// What a worker thread does. Returns how many requests it has done.
fn work(queue: &Queue) -> u32 {
    let mut done = 0;
    while let Some(mut irp) = queue.next() {
        let _ = thread::this_thread::sleep(WORK);
        let written = add(irp.input()).and_then(|sum| irp.write_output(&sum.to_le_bytes()));
        queue.count(|statistics: &mut Statistics| statistics.completed += 1);
        irp.complete_with(written);
        done += 1;
    }
    done
}

/// Starts the workers, and creates the device.
///
/// # Errors
/// Whatever there was no memory for. What was started is stopped again.
pub fn entry(driver: &DriverObject, _registry_path: &UnicodeStr<'_>) -> Result<Workers> {
    let queue = Arc::new(Queue::new(CAPACITY, WORKERS)?);
    let mut workers = Stop { queue: queue.clone(), threads: [const { None }; WORKERS] };
    for thread in &mut workers.threads {
        let queue = queue.clone();
        *thread = Some(thread::spawn(move || work(&queue)).map_err(|refused| refused.error)?);
    }
    ksync::println!("[step] start");
    ksync::println!("{WORKERS} workers, {CAPACITY} requests may wait");
    let device = DeviceBuilder::new().name(NAME).link(LINK).create(driver, Front { queue })?;
    // What one of the system's own threads does, which keeps the device until then.
    let item = WorkItem::new(&device, || {
        ksync::println!("[step] work item");
        ksync::println!("a work item has run");
    })?;
    item.enqueue()?;
    item.flush()?;
    Ok(Workers { _device: device, _workers: workers })
}

ksync::driver_entry!(entry);

/// Hosted, the process' own allocator serves Rust's `alloc`.
#[cfg(all(windows, panic = "abort"))]
#[global_allocator]
static ALLOCATOR: ksync::alloc::PoolAlloc = ksync::alloc::PoolAlloc::new();
