//! One test or more for each rule of NT that the hosted kernel honours, named after the rule's number in the project's list.
//!
//! Where sources disagree the DDI page wins, and the disagreement is a comment in the test.

#[path = "conformance/objects.rs"]
mod a_objects;
#[path = "conformance/queues.rs"]
mod a_queues;
#[path = "conformance/waits.rs"]
mod a_waits;
#[path = "conformance/apcs.rs"]
mod b_apcs;
#[path = "conformance/system_calls.rs"]
mod b_system_calls;
#[path = "conformance/locks.rs"]
mod c_locks;
#[path = "conformance/spin.rs"]
mod d_spin;
#[path = "conformance/dpcs.rs"]
mod e_dpcs;
#[path = "conformance/ex_timers.rs"]
mod f_ex_timers;
#[path = "conformance/timers.rs"]
mod f_timers;
#[path = "conformance/cancel_safe.rs"]
mod g_cancel_safe;
#[path = "conformance/device_timers.rs"]
mod g_device_timers;
#[path = "conformance/interrupts.rs"]
mod g_interrupts;
#[path = "conformance/io.rs"]
mod g_io;
#[path = "conformance/irql.rs"]
mod g_irql;
#[path = "conformance/start_io.rs"]
mod g_start_io;
#[path = "conformance/unload.rs"]
mod g_unload;
#[path = "conformance/work.rs"]
mod g_work;
#[path = "conformance/handles.rs"]
mod h_handles;
#[path = "conformance/pool.rs"]
mod h_pool;
#[path = "conformance/callbacks.rs"]
mod i_callbacks;
#[path = "conformance/executive.rs"]
mod i_executive;
#[path = "conformance/processors.rs"]
mod i_processors;
