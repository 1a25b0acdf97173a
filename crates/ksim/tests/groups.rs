//! Processor groups: numbers, counts, affinity and DPCs where there is more than one.

use ksim::{Machine, OsProfile};
use ksync_sys::*;
use std::cell::{Cell, RefCell};
use std::ptr::null_mut;
use test_support::*;

/// Groups of all kinds of sizes, up to 64 processors in all.
const MACHINES: &[&[u8]] = &[&[1], &[1, 1], &[2, 1], &[1, 3, 2], &[4, 4], &[64], &[1, 63], &[20, 24, 20], &[1; 64]];

fn on_groups(code: impl Fn(&[u8])) {
    for &groups in MACHINES {
        for seed in 0..4 {
            Machine::new().groups(groups).seed(seed).run(|| code(groups)).expect_clean();
        }
    }
}

fn number(group: usize, number: u8) -> PROCESSOR_NUMBER {
    PROCESSOR_NUMBER { Group: group as u16, Number: number, Reserved: 0 }
}

fn current() -> PROCESSOR_NUMBER {
    let mut number = PROCESSOR_NUMBER::default();
    raw!(KeGetCurrentProcessorNumberEx(&mut number));
    number
}

/// Confines the thread to one processor. Returns the confinement before.
fn confine(to: PROCESSOR_NUMBER) -> GROUP_AFFINITY {
    let affinity = GROUP_AFFINITY { Mask: 1 << to.Number, Group: to.Group, Reserved: [0; 3] };
    let mut before = GROUP_AFFINITY { Mask: 0x55, Group: 0x55, Reserved: [0x55; 3] };
    raw!(KeSetSystemGroupAffinityThread(&affinity, &mut before));
    before
}

/// All processors, in order of their index.
fn all(groups: &[u8]) -> Vec<PROCESSOR_NUMBER> {
    groups.iter().enumerate().flat_map(|(group, &size)| (0..size).map(move |index| number(group, index))).collect()
}

#[test]
fn processors_are_counted_through_all_groups_and_by_group() {
    on_groups(|groups| {
        let processors = all(groups);
        assert_eq!(raw!(KeQueryActiveGroupCount()) as usize, groups.len());
        assert_eq!(raw!(KeQueryMaximumGroupCount()) as usize, groups.len());
        assert_eq!(raw!(KeQueryActiveProcessorCountEx(ALL_PROCESSOR_GROUPS)) as usize, processors.len());
        assert_eq!(raw!(KeQueryMaximumProcessorCountEx(ALL_PROCESSOR_GROUPS)) as usize, processors.len());
        for (group, &size) in groups.iter().enumerate() {
            assert_eq!(raw!(KeQueryActiveProcessorCountEx(group as u16)), u32::from(size));
            assert_eq!(raw!(KeQueryGroupAffinity(group as u16)).count_ones(), u32::from(size));
            assert_eq!(raw!(KeQueryGroupAffinity(group as u16)).trailing_ones(), u32::from(size));
        }
        let beyond = groups.len() as u16;
        assert_eq!(raw!(KeQueryActiveProcessorCountEx(beyond)), 0);
        assert_eq!(raw!(KeQueryGroupAffinity(beyond)), 0);
        // The routines that know no group are for group 0.
        let mut mask = 0;
        assert_eq!(raw!(KeQueryActiveProcessorCount(&mut mask)), u32::from(groups[0]));
        assert_eq!(mask, raw!(KeQueryGroupAffinity(0)));
        assert_eq!(raw!(KeQueryActiveProcessors()), mask);
        for (index, &processor) in processors.iter().enumerate() {
            let mut found = PROCESSOR_NUMBER::default();
            assert_eq!(raw!(KeGetProcessorNumberFromIndex(index as u32, &mut found)), STATUS_SUCCESS);
            assert_eq!(found, processor);
            assert_eq!(raw!(KeGetProcessorIndexFromNumber(&processor)), index as u32);
        }
        let mut untouched = number(7, 7);
        assert_eq!(raw!(KeGetProcessorNumberFromIndex(processors.len() as u32, &mut untouched)), STATUS_INVALID_PARAMETER);
        assert_eq!(untouched, number(7, 7));
        for wrong in [number(groups.len(), 0), number(0, groups[0]), PROCESSOR_NUMBER { Group: 0, Number: 0, Reserved: 1 }] {
            assert_eq!(raw!(KeGetProcessorIndexFromNumber(&wrong)), INVALID_PROCESSOR_INDEX);
        }
    });
}

#[test]
fn group_affinity_moves_a_thread_and_comes_back() {
    on_groups(|groups| {
        let processors = all(groups);
        assert_eq!(confine(processors[0]), GROUP_AFFINITY::default(), "no confinement was in force");
        for (index, pair) in processors.windows(2).enumerate() {
            let before = confine(pair[1]);
            assert_eq!(before, GROUP_AFFINITY { Mask: 1 << pair[0].Number, Group: pair[0].Group, Reserved: [0; 3] });
            assert_eq!(current(), pair[1]);
            assert_eq!(raw!(KeGetCurrentProcessorNumberEx(null_mut())) as usize, index + 1);
            raw!(KeRevertToUserGroupAffinityThread(&before));
            assert_eq!(current(), pair[0]);
            confine(pair[1]);
        }
        // What names no processor changes nothing, and says so with zeros.
        let here = current();
        assert_eq!(confine(number(groups.len(), 0)), GROUP_AFFINITY::default());
        if groups[0] < 64 {
            assert_eq!(confine(number(0, groups[0])), GROUP_AFFINITY::default());
        }
        assert_eq!(current(), here);
        raw!(KeRevertToUserGroupAffinityThread(&GROUP_AFFINITY::default()));
    });
}

#[test]
fn affinity_without_a_group_is_for_group_0() {
    Machine::new()
        .groups(&[2, 3])
        .run(|| {
            confine(number(1, 2));
            assert_eq!(raw!(KeSetSystemAffinityThreadEx(0b10)), 0, "what was before is not of group 0");
            assert_eq!(current(), number(0, 1));
            assert_eq!(raw!(KeSetSystemAffinityThreadEx(0b100)), 0, "group 0 has two processors");
            assert_eq!(current(), number(0, 1));
            raw!(KeRevertToUserAffinityThreadEx(0));
        })
        .expect_clean();
}

#[test]
fn threads_use_all_groups_from_windows_11_on() {
    for (profile, several) in [(OsProfile::Windows10_2004, false), (OsProfile::Windows11, true)] {
        let used = RefCell::new([0; 2]);
        for seed in 0..10 {
            Machine::new()
                .groups(&[2, 2])
                .profile(profile)
                .seed(seed)
                .run(|| {
                    let event = Event::notification();
                    let threads: Vec<_> = (0..4)
                        .map(|_| {
                            spawn(|| {
                                wait(event.object());
                                used.borrow_mut()[usize::from(current().Group)] += 1;
                                raw!(KeStallExecutionProcessor(1));
                            })
                        })
                        .collect();
                    settle();
                    event.set();
                    join_all(threads);
                })
                .expect_clean();
        }
        let used = used.borrow();
        assert!(used[0] > 0, "{used:?}");
        assert_eq!(used[1] > 0, several, "{used:?}");
    }
}

#[test]
fn before_windows_11_a_thread_belongs_to_its_creators_group() {
    Machine::new()
        .groups(&[1, 2])
        .profile(OsProfile::Windows10)
        .run(|| {
            confine(number(1, 1));
            let group = Cell::new(9);
            spawn(|| group.set(current().Group)).join();
            assert_eq!(group.get(), 1);
            raw!(KeRevertToUserGroupAffinityThread(&GROUP_AFFINITY::default()));
            assert_eq!(current().Group, 0);
        })
        .expect_clean();
}

#[test]
fn rule_44_a_dpc_is_sent_to_each_processor_of_each_group() {
    on_groups(|groups| {
        let ran_on = Cell::new(None);
        let dpc = Dpc::new(|| ran_on.set(Some(current())));
        for mut processor in all(groups) {
            assert_eq!(raw!(KeSetTargetProcessorDpcEx(dpc.ptr(), &mut processor)), STATUS_SUCCESS);
            dpc.queue();
            flush_dpcs();
            assert_eq!(ran_on.take(), Some(processor));
        }
        for mut wrong in [number(groups.len(), 0), number(0, groups[0])] {
            assert_eq!(raw!(KeSetTargetProcessorDpcEx(dpc.ptr(), &mut wrong)), STATUS_INVALID_PARAMETER);
        }
        dpc.queue();
        flush_dpcs();
        assert_eq!(ran_on.take(), all(groups).last().copied(), "a refused target changes nothing");
    });
}

#[test]
fn rule_44_the_form_without_a_group_is_for_group_0() {
    for seed in 0..10 {
        Machine::new()
            .groups(&[2, 2])
            .seed(seed)
            .run(|| {
                let ran_on = Cell::new(None);
                let dpc = Dpc::new(|| ran_on.set(Some(current()))).on(1);
                confine(number(1, 0));
                dpc.queue();
                flush_dpcs();
                assert_eq!(ran_on.take(), Some(number(0, 1)));
                raw!(KeRevertToUserGroupAffinityThread(&GROUP_AFFINITY::default()));
            })
            .expect_clean();
    }
    // The page of KeSetTargetProcessorDpc says that a number beyond group 0 leaves the target as it was; the page of bug check 0xC7 has a parameter for a wrong
    // number. What a driver must not do is reported here, rather than passed over.
    let outcome = Machine::new().groups(&[2, 2]).run(|| {
        Dpc::new(|| {}).on(3).queue();
    });
    let stop = outcome.expect_bug_check(0xc7);
    assert_eq!((stop.parameters[0], stop.parameters[2], stop.parameters[3]), (3, 3, 2));
}

#[test]
fn rule_48_a_generic_call_runs_in_all_groups() {
    unsafe extern "system-unwind" fn routine(_dpc: *mut KDPC, context: PVOID, argument1: PVOID, argument2: PVOID) {
        // SAFETY: the context is the test's list, which lives until all processors are done.
        unsafe { &*context.cast::<RefCell<Vec<PROCESSOR_NUMBER>>>() }.borrow_mut().push(current());
        raw!(KeSignalCallDpcSynchronize(argument2));
        raw!(KeSignalCallDpcDone(argument1));
    }
    on_groups(|groups| {
        let ran_on = RefCell::new(Vec::<PROCESSOR_NUMBER>::new());
        raw!(KeGenericCallDpc(Some(routine), (&raw const ran_on).cast_mut().cast()));
        let mut ran_on = ran_on.into_inner();
        ran_on.sort_by_key(|number| (number.Group, number.Number));
        assert_eq!(ran_on, all(groups));
    });
}

#[test]
fn rule_46_a_flush_is_for_all_groups() {
    on_groups(|groups| {
        let ran = Cell::new(0);
        let dpcs: Vec<_> = all(groups)
            .into_iter()
            .map(|mut processor| {
                let dpc = Dpc::new(|| ran.set(ran.get() + 1)).importance(LowImportance);
                raw!(KeSetTargetProcessorDpcEx(dpc.ptr(), &mut processor));
                dpc.queue();
                dpc
            })
            .collect();
        flush_dpcs();
        assert_eq!(ran.get(), dpcs.len());
    });
}

#[test]
fn groups_are_checked() {
    for wrong in [&[][..], &[0], &[1, 0], &[64, 1], &[65], &[255, 255]] {
        assert!(std::panic::catch_unwind(|| Machine::new().groups(wrong)).is_err(), "{wrong:?}");
    }
}
