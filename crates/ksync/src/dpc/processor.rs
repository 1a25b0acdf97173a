//! Processors, by name.

use ksync_sys as sys;

use crate::error::check;

/// A processor, by its group and its number in the group.
///
/// # Examples
/// ```
/// use ksync::dpc::Processor;
///
/// # ksim::Machine::new().processors(2).run(|| {
/// assert_eq!(Processor::from_index(1), Some(Processor { group: 0, number: 1 }));
/// assert_eq!(Processor::from_index(2), None);
/// assert!(Processor::current().number < 2);
/// # }).expect_clean();
/// ```
#[doc(alias = "PROCESSOR_NUMBER")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Processor {
    /// The group.
    pub group: u16,
    /// The number in the group, from 0 to 63.
    pub number: u8,
}

impl Processor {
    /// The processor that runs this, which below `DISPATCH_LEVEL` may change at any time.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Processor::current(), Processor { group: 0, number: 0 });
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetCurrentProcessorNumberEx`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetcurrentprocessornumberex).
    #[doc(alias = "KeGetCurrentProcessorNumberEx")]
    #[must_use]
    pub fn current() -> Self {
        let mut number = sys::PROCESSOR_NUMBER::default();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        unsafe { sys::KeGetCurrentProcessorNumberEx(&raw mut number) };
        Self { group: number.Group, number: number.Number }
    }

    /// The processor with an index, which counts through all groups.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().run(|| {
    /// assert_eq!(Processor::from_index(0), Some(Processor { group: 0, number: 0 }));
    /// assert_eq!(Processor::from_index(1), None);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetProcessorNumberFromIndex`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessornumberfromindex).
    #[doc(alias = "KeGetProcessorNumberFromIndex")]
    #[must_use]
    pub fn from_index(index: u32) -> Option<Self> {
        let mut number = sys::PROCESSOR_NUMBER::default();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        let status = unsafe { sys::KeGetProcessorNumberFromIndex(index, &raw mut number) };
        check(status).ok().map(|_| Self { group: number.Group, number: number.Number })
    }

    /// The processor's index, which counts through all groups; `None` if there is no such processor.
    ///
    /// # IRQL
    /// Any level.
    ///
    /// # Examples
    /// ```
    /// use ksync::dpc::Processor;
    ///
    /// # ksim::Machine::new().groups(&[2, 2]).run(|| {
    /// assert_eq!(Processor { group: 1, number: 0 }.index(), Some(2));
    /// assert_eq!(Processor { group: 0, number: 2 }.index(), None);
    /// # }).expect_clean();
    /// ```
    ///
    /// Wraps [`KeGetProcessorIndexFromNumber`](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-kegetprocessorindexfromnumber). First
    /// Windows: 7.
    #[doc(alias = "KeGetProcessorIndexFromNumber")]
    #[must_use]
    pub fn index(self) -> Option<u32> {
        let number = self.raw();
        // SAFETY: the number is a local variable, and the routine may be called anywhere.
        let index = unsafe { sys::KeGetProcessorIndexFromNumber(&raw const number) };
        (index != sys::INVALID_PROCESSOR_INDEX).then_some(index)
    }

    /// NT's form.
    pub(crate) const fn raw(self) -> sys::PROCESSOR_NUMBER {
        sys::PROCESSOR_NUMBER { Group: self.group, Number: self.number, Reserved: 0 }
    }
}
