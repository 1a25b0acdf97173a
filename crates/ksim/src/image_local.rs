//! Statics of which each driver of each machine has its own: the hosted half of `ksync_sys::ImageLocal`.
//!
//! On Windows each image has its own data section. Hosted, all drivers are linked into one process, so what is per image there is kept here.

use crate::machine::{Call, current};
use rustc_hash::FxHashMap;
use std::ffi::c_void;

/// A machine's copies of such variables, by the variable's address and the driver.
#[derive(Debug, Default)]
pub(crate) struct ImageLocals {
    copies: FxHashMap<(usize, Option<u16>), Box<[u128]>>,
}

impl ImageLocals {
    /// True when it is as a new machine's.
    pub(crate) fn is_unused(&self) -> bool {
        self.copies.is_empty()
    }
}

/// Finds, or makes from the initial value, the copy of a variable that belongs to the driver that runs.
///
/// # Safety
/// `Initial` is the address of `Size` initialised bytes, which never change.
#[unsafe(no_mangle)]
#[expect(non_snake_case, reason = "it stands beside NT's routines")]
unsafe extern "system-unwind" fn KsimImageLocal(Initial: *const c_void, Size: usize) -> *mut c_void {
    let call = Call { cell: current("ImageLocal::get"), export: None };
    call.read(|kernel| {
        let driver = kernel.current_driver();
        let copy = kernel.image_locals.copies.entry((Initial.addr(), driver)).or_insert_with(|| {
            let mut copy = vec![0u128; Size.div_ceil(size_of::<u128>())].into_boxed_slice();
            // SAFETY: by this function's contract the bytes are there, and the copy has room for them.
            unsafe { copy.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(Initial.cast(), Size) };
            copy
        });
        copy.as_mut_ptr().cast()
    })
}
