//! Seed 002, the page of wdk-mutex' `KMutex`: all of its examples, run.
//!
//! What is changed throughout, and why:
//! - `println!` is `ksync::println!`, which prints to the debugger, where the test reads it.
//! - `DriverMutexError` is `NtError`.

use core::ffi::c_void;
use core::ptr::null_mut;

use ksim::Machine;
use ksync::grt::Grt;
use ksync::mutex::KMutex;
use ksync::object::ThreadObject;
use ksync::pool::KBox;
use ksync::println;
use ksync::sys::{DRIVER_OBJECT, NTSTATUS, PsCreateSystemThread, STATUS_SUCCESS, STATUS_UNSUCCESSFUL, UNICODE_STRING, ZwClose};
use ksync::wait::Dispatchable;

/// "Locally scoped mutex".
#[test]
fn locally_scoped() {
    let outcome = Machine::new()
        .run(|| {
            {
                let mtx = KMutex::new(0u32).unwrap();
                let lock = mtx.lock().unwrap();
                // If T implements display, you do not need to dereference the lock to print.
                println!("The value is: {}", lock);
            } // Mutex will become unlocked as it is managed via RAII
        })
        .expect_clean();
    assert_eq!(outcome.debug_output(), ["The value is: 0"]);
}

/// "Global scope via the `Grt` module".
mod global {
    use ksync::println;

    use super::*;

    // Initialise the mutex on DriverEntry
    // `#[export_name = "DriverEntry"]` is left out: the hosted kernel is given the function, and a symbol of this name would meet those of other tests.
    // The driver object is a raw pointer, because the unload routine is set through it and the system uses it too; the ABI is `system-unwind`, so that a failing
    // assertion reaches the test.
    unsafe extern "system-unwind" fn driver_entry(driver: *mut DRIVER_OBJECT, _registry_path: *mut UNICODE_STRING) -> NTSTATUS {
        if let Err(e) = Grt::init() {
            println!("Error creating Grt!: {:?}", e);
            return STATUS_UNSUCCESSFUL;
        }
        // ...
        my_function();

        // What the seed leaves out: the unload routine is set, four threads run, and a status is returned.
        // SAFETY: the system passes the driver's own object.
        unsafe { (*driver).DriverUnload = Some(driver_exit) };
        let threads: Vec<ThreadObject> = (0..4).map(|_| start_thread()).collect();
        for thread in threads {
            assert!(thread.wait().success());
        }
        STATUS_SUCCESS
    }

    /// A thread of the function below, by the system's own routine, as a caller of a function with this ABI has it.
    fn start_thread() -> ThreadObject {
        let mut handle = null_mut();
        // SAFETY: the handle is written to a local variable, and the function makes nothing of its argument.
        let status = unsafe {
            PsCreateSystemThread(&raw mut handle, 0, null_mut(), null_mut(), null_mut(), Some(my_thread_fn_pointer), null_mut())
        };
        assert_eq!(status, STATUS_SUCCESS);
        let thread = ThreadObject::from_thread_handle(handle).unwrap();
        // SAFETY: the handle was opened just now, and is used no more.
        assert_eq!(unsafe { ZwClose(handle) }, STATUS_SUCCESS);
        thread
    }

    // Register a new Mutex in the `Grt` of value 0u32:
    fn my_function() {
        // The seed drops the result, which is an error if there is no memory.
        Grt::register_kmutex("my_test_mutex", 0u32).unwrap();
    }

    unsafe extern "system-unwind" fn my_thread_fn_pointer(_: *mut c_void) {
        let my_mutex = Grt::get_kmutex::<u32>("my_test_mutex");
        if let Err(e) = my_mutex {
            println!("Error in thread: {:?}", e);
            return;
        }
        let mut lock = my_mutex.unwrap().lock().unwrap();
        *lock += 1;
    }

    // Destroy the Grt to prevent memory leak on DriverExit
    unsafe extern "system-unwind" fn driver_exit(_driver: *mut DRIVER_OBJECT) {
        // Not in the seed: what the threads have counted.
        println!("The value is: {}", Grt::get_kmutex::<u32>("my_test_mutex").unwrap().lock().unwrap());

        // It is not `unsafe`: it waits for whoever has a mutex, and nobody gets one afterwards (defect 8). It is an error if the Grt was never made.
        Grt::destroy().unwrap();

        // SAFETY: it asks for nothing.
        unsafe { my_thread_fn_pointer(null_mut()) };
    }

    #[test]
    fn a_driver_loads_runs_and_unloads() {
        for seed in 0..20 {
            let outcome = Machine::new()
                .processors(4)
                .seed(seed)
                .run(|| {
                    let driver = ksim::load_driver("grt", driver_entry).unwrap();
                    driver.unload();
                })
                .expect_clean();
            assert_eq!(
                outcome.debug_output(),
                ["The value is: 4", "Error in thread: NTSTATUS(0xC0000184 STATUS_INVALID_DEVICE_STATE)"]
            );
        }
    }
}

/// `KMutex::lock`.
#[test]
fn lock() {
    Machine::new()
        .run(|| {
            let mtx = KMutex::new(0u32).unwrap();
            let lock = mtx.lock().unwrap();
            // Not in the seed.
            assert_eq!(*lock, 0);
        })
        .expect_clean();
}

/// `KMutex::to_owned`. It is not `unsafe`: it takes the mutex itself, so that no reference to it is left.
#[test]
fn to_owned() {
    // The seed's `T` is any type.
    type T = String;
    Machine::new()
        .run(|| {
            let mutex = KMutex::new(T::from("data")).unwrap();
            let owned_data: T = mutex.to_owned();
            // Use `owned_data` safely here
            assert_eq!(owned_data, "data");
        })
        .expect_clean();
}

/// `KMutex::to_owned_box`. Not `unsafe` for the same reason. The box is this library's, of nonpaged pool; and where there is no memory for it the mutex comes back
/// with the error, its data unharmed (defect 13).
#[test]
fn to_owned_box() {
    type T = [u64; 512];
    Machine::new()
        .run(|| {
            let mutex = KMutex::new([7; 512]).unwrap();
            let boxed_data: KBox<T> = mutex.to_owned_box().unwrap();
            // Use `boxed_data` safely here
            assert_eq!(*boxed_data, [7; 512]);
        })
        .expect_clean();
}
