//! The executive: `Ex...`.

mod callback;
pub(crate) mod fast_mutex;
pub(crate) mod lookaside;
mod pool;
mod previous_mode;
mod push_lock;
mod raise;
mod resource;
mod rundown;
mod slist;
mod spin_rw;
mod timer;
mod work;

use super::Table;

pub(super) fn tables() -> Vec<&'static Table> {
    vec![
        &callback::TABLE,
        &fast_mutex::TABLE,
        &lookaside::TABLE,
        &pool::TABLE,
        &previous_mode::TABLE,
        &push_lock::TABLE,
        &raise::TABLE,
        &resource::TABLE,
        &rundown::TABLE,
        &slist::TABLE,
        &spin_rw::TABLE,
        &timer::TABLE,
        &work::TABLE,
    ]
}
