//! What only images import: the C runtime's part of the kernel, exceptions, and routines that hosted drivers have from elsewhere.
#![expect(non_snake_case, clippy::too_many_arguments, reason = "routines and their parameters are NT's")]

mod bitmap;
mod conversion;
mod counted;
mod exception;
mod executive;
mod format;
mod jump;
mod library;
mod locks;
mod lookaside;
mod memory;
mod objects;
mod pool;
mod runtime;
mod scan;
mod services;
mod strings;
mod system;
mod waiting;

use crate::exports::Table;

/// The exports.
pub(crate) fn tables() -> Vec<&'static Table> {
    vec![
        &bitmap::TABLE,
        &conversion::TABLE,
        &counted::TABLE,
        &exception::TABLE,
        &executive::TABLE,
        &format::TABLE,
        &jump::TABLE,
        &library::TABLE,
        &locks::TABLE,
        &lookaside::TABLE,
        &memory::TABLE,
        &objects::TABLE,
        &pool::TABLE,
        &runtime::TABLE,
        &runtime::NARROW,
        &runtime::WIDE,
        &scan::TABLE,
        &services::TABLE,
        &strings::NARROW,
        &strings::WIDE,
        &system::TABLE,
        &waiting::TABLE,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What an image gets for a name that hosted drivers have too must be the same, but for these.
    #[test]
    fn routines_of_images_are_no_second_versions() {
        let of_images = ["DbgPrint", "DbgPrintEx", "MmGetSystemRoutineAddress"];
        let hosted: BTreeSet<_> = crate::exports::table().map(|export| export.name).collect();
        let mut seen = BTreeSet::new();
        for export in tables().into_iter().flat_map(|table| table.exports) {
            assert!(seen.insert(export.name), "{} is there twice", export.name);
            assert!(!hosted.contains(export.name) || of_images.contains(&export.name), "{} is also hosted", export.name);
        }
    }

    /// Hosts that cannot run images tell from a list what an image may import.
    #[test]
    fn the_list_of_names_is_whole() {
        let routines = tables().into_iter().flat_map(|table| table.exports).map(|export| export.name);
        let variables = crate::image::host::variable_names().chain(crate::exports::variable_names());
        let names: BTreeSet<_> = routines.chain(variables).collect();
        let listed: BTreeSet<_> = include_str!("names.txt").lines().collect();
        let missing: Vec<_> = names.difference(&listed).collect();
        let gone: Vec<_> = listed.difference(&names).collect();
        assert!(missing.is_empty() && gone.is_empty(), "image/names.txt lacks {missing:#?}, and has in vain {gone:#?}");
    }

    #[test]
    fn every_routine_has_an_adapter() {
        let names: BTreeSet<_> = crate::exports::all_adapters().map(|(name, _)| name).collect();
        for export in crate::exports::table().chain(tables().into_iter().flat_map(|table| table.exports)) {
            assert!(names.contains(export.name), "{} cannot be imported", export.name);
        }
    }
}
