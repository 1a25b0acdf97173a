//! A host that cannot run images.

use super::{Image, Place};
use crate::engine::Kernel;
use crate::machine::Call;
use crate::report::bug_check::Violation;
use std::cell::RefCell;
use std::convert::Infallible;
use std::io;

/// A driver's registers at a call: there is no such call.
pub(crate) enum CallFrame {}

/// How an image would call a routine.
pub(crate) type Adapter = unsafe extern "C" fn(frame: *mut CallFrame, arguments: *const u64) -> u64;

/// What a context has under way in images: nothing.
#[derive(Clone, Copy)]
pub(crate) struct Activity;

impl Activity {
    /// What a fresh context has.
    pub(crate) const NONE: Self = Self;
}

/// The images of one machine: none.
#[derive(Default)]
pub(crate) struct MachineImages;

/// An image that is loaded, by its number.
pub(crate) type MappingId = Infallible;

impl MachineImages {
    pub(crate) fn map(&self, _call: Call, _image: &Image, _name: &str) -> io::Result<MappingId> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }

    pub(crate) fn enter(&self, _kernel: &RefCell<Box<Kernel>>) {}

    pub(crate) fn force_paging(&self) {}

    pub(crate) fn in_call(&self) -> bool {
        false
    }

    pub(crate) fn activity(&self) -> Activity {
        Activity
    }

    pub(crate) fn set_activity(&self, _activity: Activity) {}

    pub(crate) fn places(&self) -> Vec<Place> {
        Vec::new()
    }

    pub(crate) fn raise(&self, fault: Violation) -> Result<Infallible, Violation> {
        Err(fault)
    }

    pub(crate) fn discard_init(&self, id: MappingId) {
        match id {}
    }

    pub(crate) fn unload(&self, id: MappingId) {
        match id {}
    }

    pub(crate) fn place(&self, id: MappingId) -> (usize, u32, usize) {
        match id {}
    }
}

/// Calls a routine, which no image is there to raise exceptions in.
pub(crate) fn through<R>(routine: impl FnOnce() -> R, _left: impl FnOnce()) -> R {
    routine()
}

/// The routines and variables that only images have, one a line, as a host that runs images lists them.
const NAMES: &str = include_str!("names.txt");

/// True for a routine or variable that images have where they run.
pub(crate) fn is_variable(name: &str) -> bool {
    NAMES.lines().any(|known| known == name)
}

/// The address that images know a routine by: there is none.
pub(crate) fn stub_of(_name: &str) -> Option<usize> {
    None
}
