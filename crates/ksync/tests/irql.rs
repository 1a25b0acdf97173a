//! Levels and regions.

use ksim::Machine;
use ksync::NtError;
use ksync::error::Result;
use ksync::irql::{self, Irql};
use ksync::region::{self, CriticalRegion, GuardedRegion};

fn on_machine(code: impl FnOnce() -> Result) {
    Machine::new().run(|| code().unwrap()).expect_clean();
}

#[test]
fn levels_are_raised_and_come_back() {
    on_machine(|| {
        let outer = irql::raise(Irql::APC)?;
        let inner = irql::raise(Irql::DISPATCH)?;
        assert_eq!((inner.previous(), inner.level()), (Irql::APC, Irql::DISPATCH));
        let same = irql::raise(Irql::DISPATCH)?;
        drop(same);
        assert_eq!(irql::current(), Irql::DISPATCH);
        drop(inner);
        assert_eq!(irql::current(), Irql::APC);
        drop(outer);
        assert_eq!(irql::current(), Irql::PASSIVE);
        Ok(())
    });
}

/// Rule 58: a raise that would lower is an error, and levels of interrupts are not offered.
#[test]
fn rule_58_a_raise_never_lowers() {
    on_machine(|| {
        let raised = irql::raise(Irql::DISPATCH)?;
        assert_eq!(irql::raise(Irql::APC).map(drop), Err(NtError::IRQL_TOO_HIGH));
        assert_eq!(irql::raise(Irql::PASSIVE).map(drop), Err(NtError::IRQL_TOO_HIGH));
        drop(raised);
        assert_eq!(irql::raise(Irql::new(3)).map(drop), Err(NtError::INVALID_PARAMETER));
        assert_eq!(irql::raise(Irql::HIGH).map(drop), Err(NtError::INVALID_PARAMETER));
        assert_eq!(irql::with_raised(Irql::HIGH, || ()), Err(NtError::INVALID_PARAMETER));
        Ok(())
    });
}

/// Guards of one level in the wrong order: the level comes back, and no lower is ever "restored" to a higher one.
#[test]
fn guards_of_one_level_go_in_any_order() {
    on_machine(|| {
        let first = irql::raise(Irql::DISPATCH)?;
        let second = irql::raise(Irql::DISPATCH)?;
        drop(first);
        drop(second);
        assert_eq!(irql::current(), Irql::PASSIVE);
        Ok(())
    });
}

#[test]
fn regions_nest_and_end_in_any_order() {
    on_machine(|| {
        let (a, b) = (GuardedRegion::enter()?, GuardedRegion::enter()?);
        let c = CriticalRegion::enter()?;
        drop(a);
        assert!(region::all_apcs_disabled());
        drop(b);
        assert!(!region::all_apcs_disabled());
        assert!(region::apcs_disabled());
        drop(c);
        irql::with_raised(Irql::APC, || {
            assert!(region::all_apcs_disabled());
            drop(GuardedRegion::enter().unwrap());
            drop(CriticalRegion::enter().unwrap());
        })?;
        irql::with_raised(Irql::DISPATCH, || {
            assert_eq!(GuardedRegion::enter().map(drop), Err(NtError::IRQL_TOO_HIGH));
            assert_eq!(CriticalRegion::enter().map(drop), Err(NtError::IRQL_TOO_HIGH));
        })?;
        Ok(())
    });
}

#[test]
fn names_of_levels() {
    let names = [Irql::PASSIVE, Irql::APC, Irql::DISPATCH, Irql::new(5), Irql::HIGH].map(|level| level.to_string());
    assert_eq!(names, ["PASSIVE_LEVEL", "APC_LEVEL", "DISPATCH_LEVEL", "IRQL 5", "HIGH_LEVEL"]);
    assert_eq!(format!("{:?}", Irql::APC), "Irql(APC_LEVEL)");
}
