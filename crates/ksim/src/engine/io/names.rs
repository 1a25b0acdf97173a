//! The names of devices, and the symbolic links to them.

use crate::engine::object::ObjId;
use crate::report::sites::SiteId;
use ksync_sys::{NTSTATUS, STATUS_OBJECT_NAME_NOT_FOUND, STATUS_OBJECT_PATH_NOT_FOUND, STATUS_OBJECT_PATH_SYNTAX_BAD};
use std::collections::BTreeMap;

/// The directories that there are. The first names of each are other names of the last.
const DIRECTORIES: &[&str] = &[r"\", r"\DEVICE", r"\GLOBAL??", r"\BASENAMEDOBJECTS", r"\KERNELOBJECTS", r"\DRIVER"];

/// How many links a name may lead through.
const LINKS: usize = 32;

/// What a name means.
#[derive(Clone, Debug)]
pub(crate) enum Named {
    Device(ObjId),
    Link(Link),
}

/// A symbolic link.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) target: String,
    pub(crate) driver: Option<u16>,
    /// Where it was created.
    pub(crate) created: Option<SiteId>,
    /// What was asked for, as it was written.
    pub(crate) written: String,
}

/// Names compare without regard to case.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_name: BTreeMap<String, Named>,
}

impl Names {
    /// True when it is as a new machine's.
    pub(super) fn is_unused(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// A name as it is kept: in upper case, and with one name for each directory that has several.
fn canonical(name: &str) -> String {
    let upper = name.to_uppercase();
    for alias in [r"\DOSDEVICES\", r"\??\", r"\DOSDEVICES\GLOBAL\", r"\??\GLOBAL\"].into_iter().rev() {
        if let Some(rest) = upper.strip_prefix(alias) {
            return format!(r"\GLOBAL??\{rest}");
        }
    }
    upper
}

/// Checks that a name can be that of a new object.
fn check(canonical: &str) -> Result<(), NTSTATUS> {
    let Some(position) = canonical.rfind('\\').filter(|_| canonical.starts_with('\\')) else {
        return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
    };
    if position + 1 == canonical.len() {
        return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
    }
    let directory = if position == 0 { r"\" } else { &canonical[..position] };
    if DIRECTORIES.contains(&directory) { Ok(()) } else { Err(STATUS_OBJECT_PATH_NOT_FOUND) }
}

impl Names {
    /// Checks that a new object may have a name. `Ok(Some(_))` is what has it already.
    pub(crate) fn look_up(&self, name: &str) -> Result<Option<&Named>, NTSTATUS> {
        let name = canonical(name);
        check(&name)?;
        Ok(self.by_name.get(&name))
    }

    /// Gives an object a name that is free.
    pub(crate) fn insert(&mut self, name: &str, named: Named) {
        self.by_name.insert(canonical(name), named);
    }

    /// Takes a name away.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Named> {
        self.by_name.remove(&canonical(name))
    }

    /// The links that a driver has created, in order of their names.
    pub(crate) fn links_of(&self, driver: u16) -> impl Iterator<Item = &Link> {
        self.by_name.values().filter_map(move |named| match named {
            Named::Link(link) if link.driver == Some(driver) => Some(link),
            _ => None,
        })
    }

    /// The device that a name leads to, with the rest of the name, which is for the device's driver.
    pub(crate) fn device(&self, name: &str) -> Result<(ObjId, String), NTSTATUS> {
        let mut name = name.to_owned();
        for _ in 0..LINKS {
            if !name.starts_with('\\') {
                return Err(STATUS_OBJECT_PATH_SYNTAX_BAD);
            }
            let (found, rest) = self.longest(&name).ok_or(STATUS_OBJECT_NAME_NOT_FOUND)?;
            match found {
                Named::Device(id) => return Ok((*id, rest)),
                Named::Link(link) => name = format!("{}{rest}", link.target),
            }
        }
        Err(STATUS_OBJECT_NAME_NOT_FOUND)
    }

    /// The object whose name is the beginning of this one, up to a separator, and the rest.
    fn longest(&self, name: &str) -> Option<(&Named, String)> {
        let mut ends: Vec<usize> = name.match_indices('\\').map(|(index, _)| index).filter(|&index| index > 0).collect();
        ends.push(name.len());
        ends.iter().rev().find_map(|&end| {
            let (beginning, rest) = name.split_at(end);
            Some((self.by_name.get(&canonical(beginning))?, rest.to_owned()))
        })
    }
}
