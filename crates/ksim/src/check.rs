//! Rules that span more than one object, one a file.

pub(crate) mod lock_order;
