//! The debugger.

use crate::*;

routines! {
    /// Breaks into the debugger; without one, stops the machine.
    ///
    /// # IRQL
    /// Any level.
    fn DbgBreakPoint();
}

variadic_routines! {
    /// Prints to the debugger, with the default component and level.
    ///
    /// # IRQL
    /// `<= DIRQL`; `PASSIVE_LEVEL` for wide strings.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprint)
    fn DbgPrint(Format: *const CHAR, ...) -> ULONG;

    /// Prints to the debugger if the component's mask admits the level.
    ///
    /// # IRQL
    /// `<= DIRQL`; `PASSIVE_LEVEL` for wide strings.
    ///
    /// [DDI](https://learn.microsoft.com/windows-hardware/drivers/ddi/wdm/nf-wdm-dbgprintex)
    fn DbgPrintEx(ComponentId: ULONG, Level: ULONG, Format: *const CHAR, ...) -> ULONG;
}
