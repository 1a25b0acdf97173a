//! Lists of one type.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::pin::Pin;

use super::{LookasideAlloc, LookasideBox, LookasideError, Statistics};
use crate::alloc::raw::NATURAL_ALIGN;
use crate::alloc::{NonPaged, PoolAllocator};
use crate::error::{NtError, Result};
use crate::init::{InPlaceWrite, PinInit};
use crate::pool::NotAllocated;

/// A lookaside list for values of one type, in boxes that return to the list when they are dropped.
///
/// The pool and the tag are part of the type: see [`NonPaged`] and [`Paged`](crate::alloc::Paged). `T` must not be aligned to more than 16 bytes, as a larger alignment does not compile.
///
/// # IRQL
/// Allocates and frees at `<= DISPATCH_LEVEL` from nonpaged pool, at `<= APC_LEVEL` from paged pool. Dropped at the same; above it the list is leaked.
///
/// # Examples
/// ```
/// use ksync::alloc::{NonPaged, tag};
/// use ksync::lookaside::Lookaside;
///
/// struct Request {
///     number: u32,
/// }
///
/// # ksim::Machine::new().run(|| {
/// let requests = Lookaside::<Request, NonPaged<{ tag(b"Rqst") }>>::new().unwrap();
/// let mut request = requests.alloc(Request { number: 1 }).unwrap();
/// request.number += 1;
/// assert_eq!(requests.entries(), 1);
/// drop(request);
/// assert_eq!(requests.entries(), 0);
/// # }).expect_clean();
/// ```
///
/// A box does not outlive its list:
/// ```compile_fail,E0505
/// # use ksync::lookaside::Lookaside;
/// let numbers = Lookaside::<u32>::new().unwrap();
/// let number = numbers.alloc(1).unwrap();
/// drop(numbers);
/// assert_eq!(*number, 1);
/// ```
///
/// Wraps [`ExInitializeLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializelookasidelistex).
#[doc(alias = "LOOKASIDE_LIST_EX")]
pub struct Lookaside<T, P: PoolAllocator = NonPaged> {
    list: LookasideAlloc,
    /// The list makes and takes values, and holds none: entries that it keeps are mere memory.
    _values: PhantomData<fn(T) -> T>,
    _pool: PhantomData<fn() -> P>,
}

impl<T, P: PoolAllocator> Lookaside<T, P> {
    /// Makes a list.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// Those of [`init`](Self::init).
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// assert_eq!(*numbers.alloc(1).unwrap(), 1);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExInitializeLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializelookasidelistex).
    #[doc(alias = "ExInitializeLookasideListEx")]
    pub fn new() -> Result<Self, LookasideError> {
        let this = Self::const_new();
        this.init()?;
        Ok(this)
    }

    /// A list for a static. It allocates nothing until [`init`](Self::init), and is freed by [`destroy`](Self::destroy), because statics are not dropped.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// static NUMBERS: Lookaside<u64> = Lookaside::const_new();
    ///
    /// # ksim::Machine::new().run(|| {
    /// NUMBERS.init().unwrap();
    /// assert_eq!(*NUMBERS.alloc(7).unwrap(), 7);
    /// NUMBERS.destroy().unwrap();
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub const fn const_new() -> Self {
        const { assert!(align_of::<T>() <= NATURAL_ALIGN, "entries of a lookaside list are aligned to 16 bytes") };
        const { assert!(crate::alloc::is_valid_tag(P::TAG), "the pool takes no such tag") };
        Self { list: LookasideAlloc::default(), _values: PhantomData, _pool: PhantomData }
    }

    /// Initialises a list of [`const_new`](Self::const_new), or one that was destroyed.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL`.
    ///
    /// # Errors
    /// - [`LookasideError::AlreadyInitialized`], or [`LookasideError::Busy`] if it is being initialised or destroyed just now.
    /// - [`LookasideError::NoMemory`] if there is no pool for the list.
    /// - [`LookasideError::IrqlTooHigh`] above `DISPATCH_LEVEL`.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideError};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::const_new();
    /// assert_eq!(numbers.init(), Ok(()));
    /// assert_eq!(numbers.init(), Err(LookasideError::AlreadyInitialized));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExInitializeLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exinitializelookasidelistex).
    #[doc(alias = "ExInitializeLookasideListEx")]
    pub fn init(&self) -> Result<(), LookasideError> {
        self.list.init(size_of::<T>(), P::POOL, Some(P::TAG), None, None, None)
    }

    /// Destroys the list, and frees the entries that it keeps. A list that is not initialised stays so.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// Those of [`LookasideAlloc::destroy`]. Boxes that were forgotten count as entries that are out.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideError};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// let number = numbers.alloc(1).unwrap();
    /// assert_eq!(numbers.destroy(), Err(LookasideError::EntriesOut(1)));
    /// drop(number);
    /// assert_eq!(numbers.destroy(), Ok(()));
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExDeleteLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exdeletelookasidelistex).
    #[doc(alias = "ExDeleteLookasideListEx")]
    pub fn destroy(&self) -> Result<(), LookasideError> {
        self.list.destroy()
    }

    /// Moves a value into an entry, or gives it back.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// The value, with
    /// - [`NtError::INSUFFICIENT_RESOURCES`] if there is no memory;
    /// - [`NtError::INVALID_DEVICE_STATE`] if the list is not initialised;
    /// - [`NtError::IRQL_TOO_HIGH`] above these levels.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let names = Lookaside::<&str>::new().unwrap();
    /// assert_eq!(*names.alloc("disk").unwrap(), "disk");
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateFromLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatefromlookasidelistex).
    #[doc(alias = "ExAllocateFromLookasideListEx")]
    pub fn alloc(&self, value: T) -> Result<LookasideBox<'_, T>, NotAllocated<T>> {
        match self.entry() {
            Ok(memory) => Ok(memory.write(value)),
            Err(error) => Err(NotAllocated { value, error }),
        }
    }

    /// Moves a value into an entry and pins it there, or gives it back.
    ///
    /// # IRQL
    /// As [`alloc`](Self::alloc).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc).
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// let mut number = numbers.alloc_pin(1).unwrap();
    /// number.set(2);
    /// assert_eq!(*number, 2);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateFromLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatefromlookasidelistex).
    #[doc(alias = "ExAllocateFromLookasideListEx")]
    pub fn alloc_pin(&self, value: T) -> Result<Pin<LookasideBox<'_, T>>, NotAllocated<T>> {
        Ok(LookasideBox::into_pin(self.alloc(value)?))
    }

    /// Takes an entry for a value that is written later.
    fn entry(&self) -> Result<LookasideBox<'_, MaybeUninit<T>>> {
        let entry = self.list.alloc()?;
        // SAFETY: the entry is of this list, and nobody else has it. It has room for a `T`, whose size the list was initialised with, and whose alignment `const_new` compared. What
        // may be uninitialised need not be written.
        Ok(unsafe { LookasideBox::from_entry(entry.cast(), &self.list) })
    }

    /// Takes a pointer of [`LookasideBox::into_raw`] or [`LookasideBox::leak`] back.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Safety
    /// The pointer came from `into_raw` or `leak` of a box of this very list, is taken back once, and nobody else uses the value.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::{Lookaside, LookasideBox};
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// let pointer = LookasideBox::into_raw(numbers.alloc(1).unwrap());
    /// // SAFETY: the pointer is that of a box of this list, and is taken back once.
    /// drop(unsafe { numbers.from_raw(pointer) });
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub unsafe fn from_raw(&self, pointer: *mut T) -> LookasideBox<'_, T> {
        // SAFETY: such pointers are never null.
        let entry = unsafe { core::ptr::NonNull::new_unchecked(pointer) };
        // SAFETY: by the caller's contract the pointer is to a value in an entry of this list that is out, and nobody else has it.
        unsafe { LookasideBox::from_entry(entry, &self.list) }
    }

    /// Frees the entries that the list keeps.
    ///
    /// # IRQL
    /// `<= DISPATCH_LEVEL` for nonpaged entries, `<= APC_LEVEL` for paged ones.
    ///
    /// # Errors
    /// Those of [`LookasideAlloc::flush`].
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// drop(numbers.alloc(1).unwrap());
    /// numbers.flush().unwrap();
    /// assert_eq!(numbers.statistics().unwrap().kept, 0);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExFlushLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exflushlookasidelistex).
    #[doc(alias = "ExFlushLookasideListEx")]
    pub fn flush(&self) -> Result<(), LookasideError> {
        self.list.flush()
    }

    /// The list's figures. Other processors may have changed them when the caller looks.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Errors
    /// Those of [`LookasideAlloc::statistics`].
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// drop(numbers.alloc(1).unwrap());
    /// drop(numbers.alloc(2).unwrap());
    /// let figures = numbers.statistics().unwrap();
    /// assert_eq!((figures.allocate_misses, figures.allocate_hits(), figures.kept), (1, 1, 1));
    /// # }).expect_clean();
    /// ```
    pub fn statistics(&self) -> Result<Statistics, LookasideError> {
        self.list.statistics()
    }

    /// How many boxes are out, those included that are being made just now.
    ///
    /// # IRQL
    /// Any.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// let _number = numbers.alloc(1).unwrap();
    /// assert_eq!(numbers.entries(), 1);
    /// # }).expect_clean();
    /// ```
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.list.entries()
    }
}

/// What makes a value in its place is for nonpaged entries: the kernel's objects, which are made so, must not be paged out.
impl<T, const TAG: u32> Lookaside<T, NonPaged<TAG>> {
    /// Takes an entry for a value that is written later.
    ///
    /// # IRQL
    /// As [`alloc`](Self::alloc).
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), without a value.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let numbers = Lookaside::<u64>::new().unwrap();
    /// let memory = numbers.alloc_uninit().unwrap();
    /// assert_eq!(*memory.write(3), 3);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateFromLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatefromlookasidelistex).
    #[doc(alias = "ExAllocateFromLookasideListEx")]
    pub fn alloc_uninit(&self) -> Result<LookasideBox<'_, MaybeUninit<T>>> {
        self.entry()
    }

    /// Makes a value in an entry, at its final address.
    ///
    /// # IRQL
    /// As [`alloc`](Self::alloc), and what the initialiser asks for.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc), and those of the initialiser. The entry has gone back then.
    ///
    /// # Examples
    /// ```
    /// use ksync::lookaside::Lookaside;
    /// use ksync::mutex::PinnedFastLocked;
    ///
    /// # ksim::Machine::new().run(|| {
    /// let counters = Lookaside::<PinnedFastLocked<u32>>::new().unwrap();
    /// let counter = counters.pin_init(PinnedFastLocked::pin_init(1)).unwrap();
    /// *counter.lock().unwrap() += 1;
    /// assert_eq!(*counter.lock().unwrap(), 2);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`ExAllocateFromLookasideListEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-exallocatefromlookasidelistex).
    #[doc(alias = "ExAllocateFromLookasideListEx")]
    pub fn pin_init<E>(&self, init: impl PinInit<T, E>) -> Result<Pin<LookasideBox<'_, T>>>
    where
        NtError: From<E>,
    {
        self.alloc_uninit()?.write_pin_init(init).map_err(NtError::from)
    }
}

impl<T, P: PoolAllocator> fmt::Debug for Lookaside<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookaside").field("list", &self.list).finish()
    }
}
