//! The I/O manager: `Io...`.

mod build;
pub(crate) mod cancel;
mod csq;
mod device;
mod event;
pub(crate) mod file;
pub(crate) mod irp;
mod mdl;
mod packet;
mod remove_lock;
pub(crate) mod work_item;

use super::Table;

pub(super) fn tables() -> Vec<&'static Table> {
    vec![
        &build::TABLE,
        &cancel::TABLE,
        &csq::TABLE,
        &device::TABLE,
        &event::TABLE,
        &irp::TABLE,
        &mdl::TABLE,
        &packet::TABLE,
        &remove_lock::TABLE,
        &work_item::TABLE,
    ]
}
