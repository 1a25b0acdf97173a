//! What is registered: a name, a type, a count and a value in one block of nonpaged pool.

use core::any::TypeId;
use core::cell::Cell;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::error::{NtError, Result};
use crate::pool::KBox;

/// The greatest length of a name, in bytes of UTF-8.
pub const MAX_NAME: usize = 127;

/// A name.
///
/// It is kept by value, because names are compared under a spin lock, where a caller's string might be in memory that is paged out.
///
/// # Invariants
/// The first `length` bytes are UTF-8.
#[derive(Clone, Copy)]
pub(super) struct Name {
    length: u8,
    bytes: [u8; MAX_NAME],
}

impl Name {
    /// Copies a name.
    ///
    /// # Errors
    /// [`NtError::INVALID_PARAMETER`] if it is too long.
    pub(super) fn new(name: &str) -> Result<Self> {
        let mut bytes = [0; MAX_NAME];
        let slot = bytes.get_mut(..name.len()).ok_or(NtError::INVALID_PARAMETER)?;
        slot.copy_from_slice(name.as_bytes());
        // CAST: at most `MAX_NAME`.
        Ok(Self { length: name.len() as u8, bytes })
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        // The second case does not arise, by the type's invariant.
        self.bytes.get(..usize::from(self.length)).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        // What is beyond the length is zero.
        self.length == other.length && self.bytes == other.bytes
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// How many users an entry has.
///
/// A count that would overflow sticks instead: the entry is then never freed.
pub(super) struct Users(AtomicUsize);

impl Users {
    /// From here on the count sticks. So many handles fit into no memory, but they can be forgotten.
    const MANY: usize = isize::MAX.unsigned_abs();
    /// Where it sticks: as far as can be from either end, so that what others add and take meanwhile makes no difference.
    const STUCK: usize = Self::MANY + Self::MANY / 2;

    /// One user.
    pub(super) const fn one() -> Self {
        Self(AtomicUsize::new(1))
    }

    /// Adds a user. The caller has one already.
    pub(super) fn add(&self) {
        // The new user got here by way of one whose use is ordered already.
        if self.0.fetch_add(1, Ordering::Relaxed) >= Self::MANY {
            self.0.store(Self::STUCK, Ordering::Relaxed);
        }
    }

    /// Takes the caller as a user away. Returns whether he was the last.
    pub(super) fn remove(&self) -> bool {
        match self.0.fetch_sub(1, Ordering::Release) {
            1 => {
                // What all others did comes before what the last one will.
                fence(Ordering::Acquire);
                true
            }
            count => {
                if count >= Self::MANY {
                    self.0.store(Self::STUCK, Ordering::Relaxed);
                }
                false
            }
        }
    }
}

/// All of an entry but its value.
#[repr(C)]
pub(super) struct Header {
    pub(super) name: Name,
    pub(super) type_id: TypeId,
    pub(super) users: Users,
    /// The next in the registry's list, under its lock.
    pub(super) next: Cell<*mut Header>,
    /// Frees an entry of this type.
    free: unsafe fn(NonNull<Header>),
}

/// A registered value.
#[repr(C)]
pub(super) struct Entry<T> {
    header: Header,
    pub(super) value: T,
}

impl<T: 'static> Entry<T> {
    /// Makes an entry with one user.
    ///
    /// # Errors
    /// - [`NtError::INVALID_PARAMETER`] if the name is too long.
    /// - Those of [`KBox::new`].
    pub(super) fn allocate(name: Name, value: T) -> Result<NonNull<Header>> {
        let header =
            Header { name, type_id: TypeId::of::<T>(), users: Users::one(), next: Cell::new(ptr::null_mut()), free: Self::free };
        let entry = KBox::into_raw(KBox::new(Self { header, value })?);
        // SAFETY: pointers of boxes are never null.
        Ok(unsafe { NonNull::new_unchecked(entry.cast()) })
    }

    /// Frees an entry of this type.
    ///
    /// # Safety
    /// The header is the beginning of such an entry, which nobody uses any more. The level is at most `DISPATCH_LEVEL`.
    unsafe fn free(header: NonNull<Header>) {
        // SAFETY: entries are made by `allocate` only, out of a box.
        drop(unsafe { KBox::from_raw(header.cast::<Self>().as_ptr()) });
    }
}

impl Header {
    /// Drops an entry's value and frees its memory.
    ///
    /// # Safety
    /// It is an entry's header, and nobody uses the entry any more. The level is at most `DISPATCH_LEVEL`.
    pub(super) unsafe fn free(header: NonNull<Self>) {
        // SAFETY: by this function's contract the header is valid.
        let free = unsafe { header.as_ref() }.free;
        // SAFETY: by this function's contract; the routine is the one for this type, by `Entry::allocate`.
        unsafe { free(header) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_overflows_sticks() {
        let users = Users(AtomicUsize::new(Users::MANY - 1));
        users.add();
        users.add();
        assert_eq!(users.0.load(Ordering::Relaxed), Users::STUCK);
        for _ in 0..10 {
            users.add();
            assert!(!users.remove());
            assert!(!users.remove());
            assert_eq!(users.0.load(Ordering::Relaxed), Users::STUCK);
        }
        let users = Users::one();
        users.add();
        assert!(!users.remove());
        assert!(users.remove());
    }

    #[test]
    fn names_are_compared_whole() -> Result {
        assert_eq!(Name::new("")?.as_str(), "");
        assert_eq!(Name::new("é")?, Name::new("é")?);
        assert_ne!(Name::new("a")?, Name::new("a\0")?);
        let longest = [b'x'; MAX_NAME];
        let longest = core::str::from_utf8(&longest).unwrap_or_default();
        assert_eq!(Name::new(longest)?.as_str(), longest);
        let too_long = [b'x'; MAX_NAME + 1];
        assert_eq!(Name::new(core::str::from_utf8(&too_long).unwrap_or_default()).err(), Some(NtError::INVALID_PARAMETER));
        Ok(())
    }
}
