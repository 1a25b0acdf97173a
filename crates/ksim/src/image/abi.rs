//! Calls of driver code: the one place that knows by which calling convention a routine is called.
//!
//! Hosted driver code has the host's convention, and code of a loaded image has that of 64-bit Windows. Which of the two a pointer is
//! is told by where it points.

/// A routine of a driver, with its arguments as a tuple.
pub(crate) trait Routine<Arguments> {
    /// What it returns.
    type Output;

    /// Calls it.
    ///
    /// # Safety
    /// The routine may be called with these arguments, now.
    unsafe fn invoke(self, arguments: Arguments) -> Self::Output;
}

/// Calls a driver's routine.
///
/// # Safety
/// The routine may be called with these arguments, now.
#[inline]
pub(crate) unsafe fn call<Arguments, R: Routine<Arguments>>(routine: R, arguments: Arguments) -> R::Output {
    // SAFETY: by this function's contract.
    unsafe { routine.invoke(arguments) }
}

/// Calls a driver's routine where NT's own frame has no handler: what the routine raises passes to the driver that called the kernel, if an image did. Then `left` is done instead of
/// what comes after the call.
///
/// # Safety
/// The routine may be called with these arguments, now.
#[inline]
pub(crate) unsafe fn call_through<Arguments, R: Routine<Arguments>>(
    routine: R,
    arguments: Arguments,
    left: impl FnOnce(),
) -> R::Output {
    // SAFETY: by this function's contract.
    super::host::through(|| unsafe { routine.invoke(arguments) }, left)
}

macro_rules! routines {
    ($(($($argument:ident: $type:ident),*))*) => {$(
        impl<Output $(, $type)*> Routine<($($type,)*)> for unsafe extern "system-unwind" fn($($type),*) -> Output {
            type Output = Output;

            #[inline]
            unsafe fn invoke(self, ($($argument,)*): ($($type,)*)) -> Output {
                #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
                if super::host::arena::contains(self as usize) {
                    super::host::before_routine();
                    // SAFETY: code of an image has this convention, which passes the same arguments.
                    let routine: unsafe extern "win64" fn($($type),*) -> Output = unsafe { std::mem::transmute(self) };
                    // SAFETY: by the trait's contract.
                    return unsafe { routine($($argument),*) };
                }
                #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
                super::host::check_routine(self as usize);
                // SAFETY: by the trait's contract.
                unsafe { self($($argument),*) }
            }
        }
    )*};
}

routines! {
    ()
    (a: A)
    (a: A, b: B)
    (a: A, b: B, c: C)
    (a: A, b: B, c: C, d: D)
    (a: A, b: B, c: C, d: D, e: E)
    (a: A, b: B, c: C, d: D, e: E, f: F)
    (a: A, b: B, c: C, d: D, e: E, f: F, g: G)
    (a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H)
}
