/*
 * What remains of the C runtime in a driver.
 *
 * `core` and `alloc` as rustup ships them for x86_64-pc-windows-gnu are compiled with unwinding. A driver aborts
 * instead, so nothing below is reached by a panic; but the unwind tables name the personality routine, and the
 * system calls it when a hardware exception passes a frame that has one.
 */

/* EXCEPTION_DISPOSITION ExceptionContinueSearch: this frame handles nothing. */
int rust_eh_personality(void)
{
    return 1;
}

/* The end of a landing pad. No landing pad runs. */
void _Unwind_Resume(void)
{
    __builtin_trap();
}
