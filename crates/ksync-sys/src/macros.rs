//! The macros that declare routines, data exports, opaque types and layouts.

/// Declares routines that the kernel exports.
///
/// An optional leading `mod name = "library.dll";` names another image than `ntoskrnl.exe`. Each declaration becomes a foreign
/// function and a function pointer type of the same name.
macro_rules! routines {
    (mod $module:ident = $library:literal; $(
        $(#[$meta:meta])*
        fn $name:ident($($parameter:ident: $type:ty),* $(,)?) $(-> $result:ty)?;
    )*) => {
        #[cfg(all(windows, not(feature = "hosted")))]
        mod $module {
            #![expect(missing_docs, reason = "`link!` takes no attributes; the docs stand on the hosted declarations")]
            use crate::*;
            // Not all modules need a type.
            const _: Option<NTSTATUS> = None;
            $(windows_link::link!($library "system" fn $name($($parameter: $type),*) $(-> $result)?);)*
        }
        #[cfg(all(windows, not(feature = "hosted")))]
        pub use $module::*;

        #[cfg(not(all(windows, not(feature = "hosted"))))]
        unsafe extern "system-unwind" {
            $(
                $(#[$meta])*
                pub fn $name($($parameter: $type),*) $(-> $result)?;
            )*
        }
        $(
            #[cfg(not(all(windows, not(feature = "hosted"))))]
            #[doc = concat!("The type of the routine `", stringify!($name), "`.")]
            pub type $name = unsafe extern "system-unwind" fn($($parameter: $type),*) $(-> $result)?;
        )*
    };
    ($($tokens:tt)*) => { routines! { mod ntoskrnl = "ntoskrnl.exe"; $($tokens)* } };
}

/// Declares C-variadic routines of `ntoskrnl.exe`.
macro_rules! variadic_routines {
    ($(
        $(#[$meta:meta])*
        fn $name:ident($($parameter:ident: $type:ty),+, ...) $(-> $result:ty)?;
    )*) => {
        #[cfg(all(windows, not(feature = "hosted")))]
        #[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
        unsafe extern "C" {
            $(
                $(#[$meta])*
                pub fn $name($($parameter: $type),+, ...) $(-> $result)?;
            )*
        }
        #[cfg(not(all(windows, not(feature = "hosted"))))]
        unsafe extern "C-unwind" {
            $(
                $(#[$meta])*
                pub fn $name($($parameter: $type),+, ...) $(-> $result)?;
            )*
        }
        $(
            #[cfg(all(windows, not(feature = "hosted")))]
            #[doc = concat!("The type of the routine `", stringify!($name), "`.")]
            pub type $name = unsafe extern "C" fn($($parameter: $type),+, ...) $(-> $result)?;
            #[cfg(not(all(windows, not(feature = "hosted"))))]
            #[doc = concat!("The type of the routine `", stringify!($name), "`.")]
            pub type $name = unsafe extern "C-unwind" fn($($parameter: $type),+, ...) $(-> $result)?;
        )*
    };
}

/// Declares variables that `ntoskrnl.exe` exports.
macro_rules! data_exports {
    ($($(#[$meta:meta])* static $name:ident: $type:ty;)*) => {
        #[cfg_attr(
            all(windows, not(feature = "hosted")),
            link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")
        )]
        unsafe extern "C" {
            $($(#[$meta])* pub static $name: $type;)*
        }
    };
}

/// Declares types whose contents are the kernel's own business. They are used behind raw pointers only.
macro_rules! opaque {
    ($($(#[$meta:meta])* struct $name:ident;)*) => {$(
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug)]
        pub struct $name {
            _opaque: [u8; 0],
            _pin: core::marker::PhantomData<(*mut u8, core::marker::PhantomPinned)>,
        }
    )*};
}

/// Asserts a type's size and the offsets of fields at compile time.
macro_rules! layout {
    ($($type:ty: $size:literal $(, $field:ident @ $offset:literal)*;)*) => {
        const _: () = {
            $(
                assert!(size_of::<$type>() == $size, concat!("the size of ", stringify!($type)));
                $(assert!(
                    core::mem::offset_of!($type, $field) == $offset,
                    concat!("the offset of ", stringify!($type), ".", stringify!($field))
                );)*
            )*
        };
    };
}

/// Formats as the name alone: which member of a union is the valid one is not known here.
macro_rules! opaque_debug {
    ($($type:ident)*) => {$(
        impl core::fmt::Debug for $type {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    )*};
}
