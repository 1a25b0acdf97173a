//! Objects, handles, and back.

use crate::Step;
use core::time::Duration;
use ksync::driver::UnicodeStr;
use ksync::error::Result;
use ksync::event::EventProperty;
use ksync::handle::ObjectHandle;
use ksync::object::{EventObject, ProcessObject, ThreadObject};
use ksync::sys::{EVENT_ALL_ACCESS, PROCESS_ALL_ACCESS, THREAD_ALL_ACCESS};
use ksync::thread::{Builder, this_thread};
use ksync::time::Timeout;
use ksync::wait::{Dispatchable, WaitOptions, WaitResult};

pub(crate) const STEPS: &[Step] = &[
    Step { name: "process object and handle", needs: &[], run: process },
    Step { name: "thread object and handle", needs: &[], run: thread },
    Step { name: "event object", needs: &["ZwCreateEvent"], run: event },
    Step { name: "named event", needs: &["ZwCreateEvent", "ZwOpenEvent"], run: named_event },
    Step { name: "named thread", needs: &["ZwSetInformationThread"], run: named_thread },
    Step { name: "sleep that could be broken off", needs: &[], run: alertable_sleep },
];

fn process() -> Result {
    let process = ProcessObject::current();
    let handle = ObjectHandle::from_process(process.clone(), PROCESS_ALL_ACCESS)?;
    let back = handle.to_process()?;
    ksync::println!("the same process: {}", back.as_raw() == process.as_raw());
    ksync::println!("a process' handle is no thread's: {}", handle.to_thread().is_err());
    handle.close()
}

fn thread() -> Result {
    let thread = ThreadObject::current();
    let handle = ObjectHandle::from_thread(thread.clone(), THREAD_ALL_ACCESS)?;
    let back = handle.to_thread()?;
    ksync::println!("the same thread: {}", back.as_raw() == thread.as_raw());
    let found = ThreadObject::from_thread_id(thread.id())?;
    ksync::println!("found by its ID: {}", found.as_raw() == thread.as_raw());
    handle.close()
}

/// An event that lives in the object manager, by its handle and by a reference.
fn event() -> Result {
    let handle = ObjectHandle::create_event(None, EventProperty::Synchronization, true)?;
    let event: EventObject = handle.to_object()?;
    ksync::println!("signaled when it was made: {}", event.wait_for(Duration::ZERO, false).success());
    ksync::println!("and taken by that wait: {}", event.wait_for(Duration::ZERO, false).timed_out());
    event.set()?;
    drop(handle);
    ksync::println!("it lives without its handle: {}", event.wait().success());
    Ok(())
}

/// The same event under its name.
fn named_event() -> Result {
    let mut units = [0; 32];
    let mut length = 0;
    for (place, unit) in units.iter_mut().zip("\\BaseNamedObjects\\KsyncTour".encode_utf16()) {
        *place = unit;
        length += 1;
    }
    let name = UnicodeStr::new(&units[..length])?;
    let made = ObjectHandle::create_event(Some(name), EventProperty::Notification, false)?;
    let found = ObjectHandle::open_event(name, EVENT_ALL_ACCESS)?;
    made.to_object::<ksync::object::Event>()?.set()?;
    let seen = found.to_object::<ksync::object::Event>()?.wait_for(Duration::ZERO, false);
    ksync::println!("set by one handle, seen by the other: {}", seen.success());
    Ok(())
}

/// A debugger shows the name.
fn named_thread() -> Result {
    let thread = Builder::new().name("tour").spawn(this_thread::id)?;
    let id = thread.id();
    ksync::println!("the thread knows itself: {}", thread.join()? == id);
    Ok(())
}

fn alertable_sleep() -> Result {
    let options = WaitOptions::from(Timeout::after(Duration::from_millis(20))).alertable(true);
    ksync::println!("nobody broke it off: {}", this_thread::sleep_with(options) == WaitResult::TimedOut);
    Ok(())
}
