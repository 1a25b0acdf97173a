//! KeIpiGenericCall: a routine on every processor at once, at IPI_LEVEL.

use crate::engine::io::routine::Routine;
use crate::exports::{at_most, exports};
use crate::irql::IPI_LEVEL;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{PKIPI_BROADCAST_WORKER, ULONG_PTR};

exports! {
    [at_most(IPI_LEVEL - 1)] visible fn KeIpiGenericCall(
        call; BroadcastFunction: PKIPI_BROADCAST_WORKER, Context: ULONG_PTR
    ) -> ULONG_PTR {
        let Some(routine) = BroadcastFunction else {
            let meaning = "KeIpiGenericCall was passed no routine: NT calls address 0";
            call.fail(Violation::boxed(codes::IRQL_NOT_LESS_OR_EQUAL, [0, u64::from(IPI_LEVEL), 8, 0], meaning));
        };
        if call.is_dying() {
            return 0;
        }
        call.operate(|kernel| kernel.begin_broadcast());
        let mut result = 0;
        while let Some(is_callers) = call.operate(|kernel| kernel.next_of_broadcast()) {
            call.processor_changed();
            let running = call.operate(|kernel| {
                let driver = kernel.current_driver();
                Ok(kernel.enter_driver_routine(Routine::Broadcast, routine as usize, driver))
            });
            // SAFETY: the driver vouches for its routine.
            let value = unsafe { crate::image::call(routine, (Context,)) };
            call.operate(|kernel| kernel.leave_routine(running, None));
            if is_callers {
                result = value;
            }
        }
        call.operate(|kernel| kernel.end_broadcast());
        call.processor_changed();
        result
    }
}
