//! The NT routines that the hosted kernel exports, one file per prefix (`ke` by object).
//!
//! Each export states its IRQL range once, in the [`exports!`] macro: the check at every call and the published table
//! ([`table`]) come from there. The macro pins the signature to the declaration in `ksync-sys` at compile time.
#![expect(non_snake_case, reason = "routines and their parameters have NT's names")]

use crate::image::Adapter;
use crate::irql::{APC_LEVEL, DISPATCH_LEVEL, HIGH_LEVEL, PASSIVE_LEVEL};
use crate::report::bug_check::{Violation, codes};
use std::ffi::c_void;
use std::fmt;

pub(crate) mod dbg;
pub(crate) mod ex;
pub(crate) mod io;
pub(crate) mod ke;
pub(crate) mod mm;
pub(crate) mod ob;
pub(crate) mod ps;
pub(crate) mod rtl;
pub(crate) mod zw;

/// The IRQLs that a routine may be called at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IrqlRange {
    /// The lowest.
    pub lowest: u8,
    /// The highest.
    pub highest: u8,
    /// The first parameter of the Driver Verifier bug check that a breach is, or 0 for bug check 0xA or 0x9.
    pub verifier: u64,
}

/// Up to `highest`.
pub(crate) const fn at_most(highest: u8) -> IrqlRange {
    IrqlRange { lowest: PASSIVE_LEVEL, highest, verifier: 0 }
}

/// From `lowest` up.
pub(crate) const fn at_least(lowest: u8) -> IrqlRange {
    IrqlRange { lowest, highest: HIGH_LEVEL, verifier: 0 }
}

/// Exactly `irql`.
pub(crate) const fn exactly(irql: u8) -> IrqlRange {
    IrqlRange { lowest: irql, highest: irql, verifier: 0 }
}

/// Any IRQL.
pub(crate) const ANY: IrqlRange = at_most(HIGH_LEVEL);

impl IrqlRange {
    /// The Driver Verifier rule that a breach of this range is.
    pub(crate) const fn rule(self, verifier: u64) -> Self {
        Self { verifier, ..self }
    }

    #[inline]
    pub(crate) fn contains(&self, irql: u8) -> bool {
        self.lowest <= irql && irql <= self.highest
    }

    /// The breach of this range by a call of `routine`.
    #[cold]
    pub(crate) fn violation(&self, routine: &str, irql: u8) -> Box<Violation> {
        let meaning = format!("{routine} is for {self}, and was called at IRQL {irql} ({})", crate::irql::irql_name(irql));
        if self.verifier != 0 {
            let parameters = [self.verifier, u64::from(irql), u64::from(self.highest), 0];
            return Violation::boxed_owned(codes::DRIVER_VERIFIER_DETECTED_VIOLATION, parameters, meaning);
        }
        if irql > self.highest {
            Violation::boxed_owned(codes::IRQL_NOT_LESS_OR_EQUAL, [0, u64::from(irql), 8, 0], meaning)
        } else {
            Violation::boxed_owned(codes::IRQL_NOT_GREATER_OR_EQUAL, [0, u64::from(irql), 8, 0], meaning)
        }
    }
}

impl fmt::Display for IrqlRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = crate::irql::irql_name;
        match (self.lowest, self.highest) {
            (PASSIVE_LEVEL, HIGH_LEVEL) => write!(f, "any IRQL"),
            (lowest, highest) if lowest == highest => write!(f, "IRQL = {}", name(lowest)),
            (PASSIVE_LEVEL, highest) => write!(f, "IRQL <= {}", name(highest)),
            (lowest, HIGH_LEVEL) => write!(f, "IRQL >= {}", name(lowest)),
            (lowest, highest) => write!(f, "IRQL from {} to {}", name(lowest), name(highest)),
        }
    }
}

/// One export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Export {
    /// NT's name.
    pub name: &'static str,
    /// Where it may be called.
    pub irql: IrqlRange,
    /// A scheduling point: it touches what others can see.
    pub visible: bool,
}

/// The exports of one file.
pub(crate) struct Table {
    pub(crate) exports: &'static [Export],
    /// The address of an export by name.
    pub(crate) address: fn(&str) -> Option<*mut c_void>,
    /// How images call an export.
    pub(crate) adapter: fn(&str) -> Option<Adapter>,
}

/// Defines exports. For each: `[IRQL range] visible|silent fn Name(call; parameters) -> type { body }`. Behind `visible` stands what the operation touches, such as
/// `visible(access Object)`: see `schedule/footprint.rs`. Without that it is taken to depend on all others.
macro_rules! exports {
    (@visible visible) => { true };
    (@visible silent) => { false };
    (@footprint silent) => { None };
    (@footprint visible) => { Some($crate::schedule::Footprint::UNKNOWN) };
    (@footprint visible $effect:ident $($object:expr),+) => { Some($crate::schedule::Footprint::$effect($($object),+)) };
    ($(
        $(#[$attribute:meta])*
        [$irql:expr] $visible:ident $(($effect:ident $($object:expr),+))? fn $name:ident($call:ident $(; $($argument:ident: $type:ty),* $(,)?)?) $(-> $return:ty)? $body:block
    )*) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            unsafe extern "system-unwind" fn $name($($($argument: $type),*)?) $(-> $return)? {
                static EXPORT: $crate::exports::Export = $crate::exports::Export {
                    name: stringify!($name),
                    irql: $irql,
                    visible: $crate::exports::exports!(@visible $visible),
                };
                let footprint = $crate::exports::exports!(@footprint $visible $($effect $($object),+)?);
                let $call = $crate::machine::Call::enter(&EXPORT, footprint);
                $body
            }
            const _: ksync_sys::$name = $name;
        )*

        $crate::exports::adapters! { $(fn $name($($($argument: $type),*)?) $(-> $return)?;)* }

        /// The exports of this file.
        pub(crate) static TABLE: $crate::exports::Table = $crate::exports::Table {
            exports: &[
                $($crate::exports::Export {
                    name: stringify!($name),
                    irql: $irql,
                    visible: $crate::exports::exports!(@visible $visible),
                }),*
            ],
            address: |name| match name {
                $(stringify!($name) => Some($name as *mut std::ffi::c_void),)*
                _ => None,
            },
            adapter: find_adapter,
        };
    };
}
pub(crate) use exports;

/// Defines exports that only images have: what a hosted driver gets from the host, or from the headers. As [`exports!`], without a symbol.
macro_rules! image_exports {
    ($(
        [$irql:expr] $visible:ident fn $name:ident($call:ident $(; $($argument:ident: $type:ty),* $(,)?)?) $(-> $return:ty)? $body:block
    )*) => {
        $(
            unsafe fn $name($($($argument: $type),*)?) $(-> $return)? {
                static EXPORT: $crate::exports::Export = $crate::exports::Export {
                    name: stringify!($name),
                    irql: $irql,
                    visible: $crate::exports::exports!(@visible $visible),
                };
                let $call = $crate::machine::Call::enter(&EXPORT, $crate::exports::exports!(@footprint $visible));
                $body
            }
        )*

        $crate::exports::adapters! { $(fn $name($($($argument: $type),*)?) $(-> $return)?;)* }

        /// The exports of this file.
        pub(crate) static TABLE: $crate::exports::Table = $crate::exports::Table {
            exports: &[
                $($crate::exports::Export {
                    name: stringify!($name),
                    irql: $irql,
                    visible: $crate::exports::exports!(@visible $visible),
                }),*
            ],
            address: |_| None,
            adapter: find_adapter,
        };
    };
}
pub(crate) use image_exports;

/// Defines how images call routines: the arguments are read from the row that the driver's call leaves on its stack.
macro_rules! adapters {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $return:ty)?;)*) => {
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        fn find_adapter(name: &str) -> Option<$crate::image::Adapter> {
            match name {
                $(stringify!($name) => {
                    unsafe extern "C" fn adapter(frame: *mut $crate::image::CallFrame, arguments: *const u64) -> u64 {
                        // SAFETY: the driver's call has put its arguments there. (Not every routine has some.)
                        let _row = unsafe { $crate::image::Arguments::new(arguments) };
                        // SAFETY: the driver vouches for the call.
                        let body = || $crate::image::returned(|| unsafe { $name($(_row.next::<$type>()),*) });
                        // SAFETY: the stub of an import has made the frame.
                        unsafe { $crate::image::boundary(frame, body) }
                    }
                    Some(adapter)
                })*
                _ => None,
            }
        }

        #[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
        fn find_adapter(_name: &str) -> Option<$crate::image::Adapter> {
            None
        }
    };
}
pub(crate) use adapters;

fn tables() -> impl Iterator<Item = &'static Table> {
    let others = [&dbg::TABLE, &mm::TABLE, &ob::TABLE, &ps::TABLE, &rtl::TABLE];
    ke::tables().into_iter().chain(ex::tables()).chain(io::tables()).chain(zw::tables()).chain(others)
}

/// Every export of the hosted kernel, with the IRQL range that is checked at each call.
pub fn table() -> impl Iterator<Item = &'static Export> {
    tables().flat_map(|table| table.exports)
}

/// The address of an export, or null.
pub(crate) fn address_of(name: &str) -> *mut c_void {
    tables().find_map(|table| (table.address)(name)).unwrap_or(std::ptr::null_mut())
}

/// How images call each export.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub(crate) fn all_adapters() -> impl Iterator<Item = (&'static str, Adapter)> {
    let adapter =
        |table: &'static Table| table.exports.iter().filter_map(|export| Some((export.name, (table.adapter)(export.name)?)));
    tables().chain(crate::image::tables()).flat_map(adapter)
}

/// The variables that hosted drivers have too.
fn variables() -> [(&'static str, usize); 7] {
    [
        ("PsThreadType", (&raw const ob::PsThreadType).addr()),
        ("PsProcessType", (&raw const ob::PsProcessType).addr()),
        ("ExEventObjectType", (&raw const ob::ExEventObjectType).addr()),
        ("ExSemaphoreObjectType", (&raw const ob::ExSemaphoreObjectType).addr()),
        ("IoDriverObjectType", (&raw const ob::IoDriverObjectType).addr()),
        ("IoDeviceObjectType", (&raw const ob::IoDeviceObjectType).addr()),
        ("IoFileObjectType", (&raw const ob::IoFileObjectType).addr()),
    ]
}

/// The address of a variable that the kernel exports, for images.
pub(crate) fn variable(name: &str) -> Option<usize> {
    variables().iter().find(|(known, _)| *known == name).map(|(_, address)| *address).or_else(|| ob::other_type(name))
}

/// The names of those.
#[cfg(test)]
pub(crate) fn variable_names() -> impl Iterator<Item = &'static str> {
    variables().into_iter().map(|(name, _)| name).chain(ob::other_types())
}

/// True for the name of an export, as a symbol.
pub(crate) fn is_export(function: &str) -> bool {
    table().any(|export| export.name == function) || function.starts_with("DbgPrint")
}

/// Up to DISPATCH_LEVEL, by no rule of its own.
pub(crate) const TO_DISPATCH: IrqlRange = at_most(DISPATCH_LEVEL);
/// The level that requests, and what belongs to them, may be used at.
pub(crate) const IO_DISPATCH: IrqlRange = TO_DISPATCH.rule(0x2_0022);
/// The level that dispatcher objects may be changed at.
pub(crate) const DISPATCHER: IrqlRange = TO_DISPATCH.rule(0x2_0011);
/// The level of what may wait.
pub(crate) const BLOCKING: IrqlRange = at_most(APC_LEVEL);
/// The level of most of Ob, Ps and Zw.
pub(crate) const PASSIVE: IrqlRange = exactly(PASSIVE_LEVEL);
