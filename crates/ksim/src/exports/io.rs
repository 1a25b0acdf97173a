//! The I/O manager: `Io...`.

mod build;
pub(crate) mod cancel;
mod csq;
mod device;
mod driver;
mod event;
pub(crate) mod file;
pub(crate) mod interrupt;
pub(crate) mod irp;
mod mdl;
mod packet;
mod remove_lock;
mod timer;
pub(crate) mod work_item;

use super::Table;

pub(super) fn tables() -> Vec<&'static Table> {
    vec![
        &build::TABLE,
        &cancel::TABLE,
        &csq::TABLE,
        &device::TABLE,
        &driver::TABLE,
        &event::TABLE,
        &interrupt::TABLE,
        &irp::TABLE,
        &mdl::TABLE,
        &packet::TABLE,
        &remove_lock::TABLE,
        &timer::TABLE,
        &work_item::TABLE,
    ]
}
