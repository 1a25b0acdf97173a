//! Levels, and regions that keep APCs out.

use crate::Step;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::region::{self, CriticalRegion, GuardedRegion};

pub(crate) const STEPS: &[Step] = &[
    // Wine's level never changes, and it has no such routine.
    Step { name: "levels", needs: &["KeGetCurrentIrql"], run: levels },
    Step { name: "regions", needs: &["KeGetCurrentIrql", "KeAreAllApcsDisabled"], run: regions },
];

fn levels() -> Result {
    irql::with_raised(Irql::APC, || {
        ksync::println!("raised to {}", irql::current());
        irql::with_raised(Irql::DISPATCH, || ksync::println!("raised to {}", irql::current()))
    })??;
    ksync::println!("back at {}", irql::current());
    Ok(())
}

fn regions() -> Result {
    let critical = CriticalRegion::enter()?;
    ksync::println!(
        "critical: normal kernel APCs are off: {}, all are: {}",
        region::apcs_disabled(),
        region::all_apcs_disabled()
    );
    let guarded = GuardedRegion::enter()?;
    ksync::println!("guarded: normal kernel APCs are off: {}, all are: {}", region::apcs_disabled(), region::all_apcs_disabled());
    drop(guarded);
    drop(critical);
    ksync::println!("left: all APCs are off: {}", region::all_apcs_disabled());
    Ok(())
}
