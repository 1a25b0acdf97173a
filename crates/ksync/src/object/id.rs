//! Identifiers of threads and processes.

use core::fmt;

use ksync_sys as sys;

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(usize);

        impl $name {
            /// The identifier with a number.
            #[must_use]
            pub const fn new(number: usize) -> Self {
                Self(number)
            }

            /// Its number.
            #[must_use]
            pub const fn get(self) -> usize {
                self.0
            }

            /// NT's form of it, which looks like a handle and is none.
            pub(crate) const fn raw(self) -> sys::HANDLE {
                core::ptr::without_provenance_mut(self.0)
            }

            /// The identifier in NT's form.
            pub(crate) fn from_raw(id: sys::HANDLE) -> Self {
                Self(id.addr())
            }
        }

        impl From<usize> for $name {
            fn from(number: usize) -> Self {
                Self(number)
            }
        }

        impl From<$name> for usize {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl PartialEq<usize> for $name {
            fn eq(&self, number: &usize) -> bool {
                self.0 == *number
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.0).finish()
            }
        }
    };
}

id! {
    /// A thread's identifier. NT passes it as a `HANDLE`, which it is not: it opens nothing, and is not closed.
    ///
    /// A number may become another thread's when the thread is gone.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ThreadId;
    ///
    /// let id = ThreadId::from(0x1024);
    /// assert_eq!((id.get(), format!("{id}")), (0x1024, "4132".to_owned()));
    /// assert!(id == 0x1024);
    /// ```
    #[doc(alias = "CLIENT_ID")]
    ThreadId
}

id! {
    /// A process' identifier. NT passes it as a `HANDLE`, which it is not: it opens nothing, and is not closed.
    ///
    /// A number may become another process' when the process is gone.
    ///
    /// # Examples
    /// ```
    /// use ksync::object::ProcessId;
    ///
    /// let id = ProcessId::from(0x1024);
    /// assert_eq!((id.get(), format!("{id:?}")), (0x1024, "ProcessId(4132)".to_owned()));
    /// ```
    #[doc(alias = "CLIENT_ID")]
    ProcessId
}
