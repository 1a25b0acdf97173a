//! Interrupt request levels of x86-64.

/// Threads.
pub(crate) const PASSIVE_LEVEL: u8 = 0;
/// APCs held back.
pub(crate) const APC_LEVEL: u8 = 1;
/// Dispatcher and DPCs held back.
pub(crate) const DISPATCH_LEVEL: u8 = 2;
/// What the scheduler of a multiprocessor is synchronised at.
pub(crate) const SYNCH_LEVEL: u8 = 12;
/// What other processors ask of one.
pub(crate) const IPI_LEVEL: u8 = 14;
/// Everything held back.
pub(crate) const HIGH_LEVEL: u8 = 15;

/// The name of a level, for reports.
#[must_use]
pub fn irql_name(irql: u8) -> &'static str {
    match irql {
        PASSIVE_LEVEL => "PASSIVE_LEVEL",
        APC_LEVEL => "APC_LEVEL",
        DISPATCH_LEVEL => "DISPATCH_LEVEL",
        13 => "CLOCK_LEVEL",
        IPI_LEVEL => "IPI_LEVEL",
        HIGH_LEVEL => "HIGH_LEVEL",
        3..=12 => "a device level",
        _ => "no IRQL",
    }
}
