//! The allocator traits: `allocator_api2`'s, and the unstable one in `core` that it mirrors.

/// Implements the allocator traits for a type that is [`Memory`](crate::alloc::memory::Memory). It is a macro because there are two traits of one shape.
macro_rules! implement_allocator {
    ([$($parameters:tt)*] $type:ty) => {
        $crate::alloc::forward::implement_allocator! { @in allocator_api2::alloc, [$($parameters)*] $type }
        #[cfg(feature = "nightly")]
        $crate::alloc::forward::implement_allocator! { @in core::alloc, [$($parameters)*] $type }
    };
    (@in $($module:ident)::+, [$($parameters:tt)*] $type:ty) => {
        // SAFETY: what `Memory` promises is what the trait asks for, and each method does what its name says by those of `Memory`.
        unsafe impl<$($parameters)*> $($module)::+::Allocator for $type {
            fn allocate(&self, layout: core::alloc::Layout) -> Result<core::ptr::NonNull<[u8]>, $($module)::+::AllocError> {
                let memory = $crate::alloc::memory::Memory::obtain(self, layout, false).ok_or($($module)::+::AllocError)?;
                Ok(core::ptr::NonNull::slice_from_raw_parts(memory, layout.size()))
            }

            fn allocate_zeroed(&self, layout: core::alloc::Layout) -> Result<core::ptr::NonNull<[u8]>, $($module)::+::AllocError> {
                let memory = $crate::alloc::memory::Memory::obtain(self, layout, true).ok_or($($module)::+::AllocError)?;
                Ok(core::ptr::NonNull::slice_from_raw_parts(memory, layout.size()))
            }

            unsafe fn deallocate(&self, memory: core::ptr::NonNull<u8>, layout: core::alloc::Layout) {
                // SAFETY: by the caller's contract.
                unsafe { $crate::alloc::memory::Memory::give_back(self, memory, layout) };
            }

            unsafe fn grow(
                &self,
                memory: core::ptr::NonNull<u8>,
                old: core::alloc::Layout,
                new: core::alloc::Layout,
            ) -> Result<core::ptr::NonNull<[u8]>, $($module)::+::AllocError> {
                // SAFETY: by the caller's contract.
                let memory = unsafe { $crate::alloc::memory::resize(self, memory, old, new, false) };
                Ok(core::ptr::NonNull::slice_from_raw_parts(memory.ok_or($($module)::+::AllocError)?, new.size()))
            }

            unsafe fn grow_zeroed(
                &self,
                memory: core::ptr::NonNull<u8>,
                old: core::alloc::Layout,
                new: core::alloc::Layout,
            ) -> Result<core::ptr::NonNull<[u8]>, $($module)::+::AllocError> {
                // SAFETY: by the caller's contract.
                let memory = unsafe { $crate::alloc::memory::resize(self, memory, old, new, true) };
                Ok(core::ptr::NonNull::slice_from_raw_parts(memory.ok_or($($module)::+::AllocError)?, new.size()))
            }

            unsafe fn shrink(
                &self,
                memory: core::ptr::NonNull<u8>,
                old: core::alloc::Layout,
                new: core::alloc::Layout,
            ) -> Result<core::ptr::NonNull<[u8]>, $($module)::+::AllocError> {
                // SAFETY: by the caller's contract.
                let memory = unsafe { $crate::alloc::memory::resize(self, memory, old, new, false) };
                Ok(core::ptr::NonNull::slice_from_raw_parts(memory.ok_or($($module)::+::AllocError)?, new.size()))
            }
        }
    };
}
pub(crate) use implement_allocator;
