//! The kernel's core: `Ke...`.

pub(crate) mod apc;
mod broadcast;
mod bug_check;
mod clock;
pub(crate) mod device_queue;
mod dpc;
mod event;
mod generic_dpc;
mod guarded_mutex;
mod irql;
mod mutex;
mod processor;
pub(crate) mod queue;
pub(crate) mod queued_spin_lock;
mod region;
mod semaphore;
pub(crate) mod spin_lock;
mod thread;
mod timer;
pub(crate) mod wait;

use super::Table;

pub(super) fn tables() -> Vec<&'static Table> {
    vec![
        &apc::TABLE,
        &broadcast::TABLE,
        &bug_check::TABLE,
        &clock::TABLE,
        &device_queue::TABLE,
        &dpc::TABLE,
        &event::TABLE,
        &generic_dpc::TABLE,
        &guarded_mutex::TABLE,
        &irql::TABLE,
        &mutex::TABLE,
        &processor::TABLE,
        &queue::TABLE,
        &queued_spin_lock::TABLE,
        &region::TABLE,
        &semaphore::TABLE,
        &spin_lock::TABLE,
        &thread::TABLE,
        &timer::TABLE,
        &wait::TABLE,
    ]
}
