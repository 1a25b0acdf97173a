//! Rules that span more than one object, one a file.

pub(crate) mod lock_order;
pub(crate) mod returns;
pub(crate) mod rules;
pub(crate) mod waits;
