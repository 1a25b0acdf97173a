//! Memory that drivers share without a routine of NT: the hosted half of `ksync_sys::atomic`.

use crate::machine::{Call, current, is_running};
use crate::schedule::Footprint;
use std::ffi::c_void;
use std::panic::Location;

/// The machine that runs, unless a panic unwinds.
fn call(what: &str) -> Option<Call> {
    if !is_running() {
        return None;
    }
    let call = Call { cell: current(what), export: None };
    if call.is_dying() { None } else { Some(call) }
}

/// An operation on an atomic is about to happen: others may act first.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
extern "system-unwind" fn KsimBeforeAtomic(Address: usize, Writes: bool) {
    let Some(call) = call("an atomic operation") else { return };
    call.read(|kernel| kernel.objects.claim(Address));
    let object: *const u8 = std::ptr::without_provenance(Address);
    let footprint = if Writes { Footprint::access(object) } else { Footprint::read(object) };
    call.read(|kernel| {
        if kernel.config.sites {
            kernel.record_site();
        }
    });
    call.again(footprint.unsynchronized());
}

/// It has happened. `Acquires` and `Releases` say how it is ordered.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
extern "system-unwind" fn KsimAfterAtomic(Address: usize, Wrote: bool, Acquires: bool, Releases: bool, Site: *const c_void) {
    let Some(call) = call("an atomic operation") else { return };
    call.operate(|kernel| {
        if kernel.races.enabled
            && let Some(actor) = kernel.actor()
        {
            kernel.races.atomic(actor, Address, Acquires, Releases);
        }
        kernel.note_atomic(Address, Wrote);
        if Wrote {
            kernel.has_written(Address);
        } else {
            kernel.has_read(Address, Site.addr());
        }
        Ok(())
    });
}

/// Checks a plain access to `Bytes` from `Address` on. Where it races with another, that one's place, and otherwise null.
///
/// # Safety
/// `Site` is a `&'static Location<'static>`.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
unsafe extern "system-unwind" fn KsimPlainAccess(
    Address: usize,
    Bytes: usize,
    Writes: bool,
    Site: *const c_void,
) -> *const c_void {
    let Some(call) = call("an access to a cell").filter(|_| Bytes != 0) else { return std::ptr::null() };
    // SAFETY: by this function's contract.
    let site = unsafe { &*Site.cast::<Location<'static>>() };
    let other = call.read(|kernel| kernel.access_cell(Address, Writes, site));
    other.map_or(std::ptr::null(), |other| std::ptr::from_ref(other).cast())
}
