//! The executive: `Ex...`.

pub(crate) mod fast_mutex;
mod pool;
mod raise;

use super::Table;

pub(super) fn tables() -> Vec<&'static Table> {
    vec![&fast_mutex::TABLE, &pool::TABLE, &raise::TABLE]
}
