//! A lookaside list, as an allocator and with boxes of its own.

use crate::Step;
use ksync::NtError;
use ksync::alloc::Pool;
use ksync::alloc::boxed::Box;
use ksync::error::Result;
use ksync::lookaside::{Lookaside, LookasideAlloc};

pub(crate) const STEPS: &[Step] = &[Step { name: "lookaside list", needs: &["ExInitializeLookasideListEx"], run: lookaside }];

fn lookaside() -> Result {
    let allocator = LookasideAlloc::default();
    // Holds a u32, as in the allocator's documentation.
    allocator.init(size_of::<u32>(), Pool::NonPaged, None, None, None, None)?;
    {
        let Ok(context) = Box::try_new_in(10_u32, &allocator) else { return Err(NtError::INSUFFICIENT_RESOURCES) };
        ksync::println!("a box from the list holds {context}");
        ksync::println!("what does not fit is refused: {}", Box::try_new_in([0_u64; 4], &allocator).is_err());
        ksync::println!("a list with a box out is not destroyed: {}", allocator.destroy().is_err());
    }
    allocator.destroy()?;
    ksync::println!("nothing comes from a list that is gone: {}", Box::try_new_in(10_u32, &allocator).is_err());

    let list = Lookaside::<[u8; 100]>::new()?;
    for _ in 0..3 {
        drop(list.alloc([7; 100]).map_err(|_| NtError::INSUFFICIENT_RESOURCES)?);
    }
    let statistics = list.statistics()?;
    ksync::println!("three boxes, one after another: {} from the pool", statistics.allocate_misses);
    Ok(())
}
