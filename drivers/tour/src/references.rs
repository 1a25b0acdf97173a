//! Objects, handles, and back.

use crate::Step;
use ksync::error::Result;
use ksync::handle::ObjectHandle;
use ksync::object::{ProcessObject, ThreadObject};
use ksync::sys::{PROCESS_ALL_ACCESS, THREAD_ALL_ACCESS};

pub(crate) const STEPS: &[Step] = &[
    Step { name: "process object and handle", needs: &[], run: process },
    Step { name: "thread object and handle", needs: &[], run: thread },
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
