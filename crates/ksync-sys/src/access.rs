//! Access rights and object attributes.

use crate::{ACCESS_MASK, ULONG};

/// The right to delete the object.
pub const DELETE: ACCESS_MASK = 0x0001_0000;
/// The right to read the security descriptor.
pub const READ_CONTROL: ACCESS_MASK = 0x0002_0000;
/// The right to change the access control list.
pub const WRITE_DAC: ACCESS_MASK = 0x0004_0000;
/// The right to change the owner.
pub const WRITE_OWNER: ACCESS_MASK = 0x0008_0000;
/// The right to wait on the object.
pub const SYNCHRONIZE: ACCESS_MASK = 0x0010_0000;
/// All standard rights but [`SYNCHRONIZE`].
pub const STANDARD_RIGHTS_REQUIRED: ACCESS_MASK = 0x000F_0000;
/// All standard rights.
pub const STANDARD_RIGHTS_ALL: ACCESS_MASK = 0x001F_0000;
/// All rights that are particular to a type.
pub const SPECIFIC_RIGHTS_ALL: ACCESS_MASK = 0x0000_FFFF;
/// As many rights as the caller may have.
pub const MAXIMUM_ALLOWED: ACCESS_MASK = 0x0200_0000;
/// Whatever the type maps to "all".
pub const GENERIC_ALL: ACCESS_MASK = 0x1000_0000;
/// Whatever the type maps to "execute".
pub const GENERIC_EXECUTE: ACCESS_MASK = 0x2000_0000;
/// Whatever the type maps to "write".
pub const GENERIC_WRITE: ACCESS_MASK = 0x4000_0000;
/// Whatever the type maps to "read".
pub const GENERIC_READ: ACCESS_MASK = 0x8000_0000;

/// The right to query an event's state.
pub const EVENT_QUERY_STATE: ACCESS_MASK = 0x0001;
/// The right to set and clear an event.
pub const EVENT_MODIFY_STATE: ACCESS_MASK = 0x0002;
/// All rights to an event.
pub const EVENT_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0x3;
/// The right to query a semaphore's state.
pub const SEMAPHORE_QUERY_STATE: ACCESS_MASK = 0x0001;
/// The right to release a semaphore.
pub const SEMAPHORE_MODIFY_STATE: ACCESS_MASK = 0x0002;
/// All rights to a semaphore.
pub const SEMAPHORE_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0x3;
/// The right to query a mutant's state.
pub const MUTANT_QUERY_STATE: ACCESS_MASK = 0x0001;
/// All rights to a mutant.
pub const MUTANT_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | MUTANT_QUERY_STATE;
/// All rights to a callback object.
pub const CALLBACK_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0x1;
/// The right to query a timer's state.
pub const TIMER_QUERY_STATE: ACCESS_MASK = 0x0001;
/// The right to set and cancel a timer.
pub const TIMER_MODIFY_STATE: ACCESS_MASK = 0x0002;
/// All rights to a timer.
pub const TIMER_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0x3;

/// The right to terminate a thread.
pub const THREAD_TERMINATE: ACCESS_MASK = 0x0001;
/// The right to suspend and resume a thread.
pub const THREAD_SUSPEND_RESUME: ACCESS_MASK = 0x0002;
/// The right to alert a thread.
pub const THREAD_ALERT: ACCESS_MASK = 0x0004;
/// The right to read a thread's registers.
pub const THREAD_GET_CONTEXT: ACCESS_MASK = 0x0008;
/// The right to write a thread's registers.
pub const THREAD_SET_CONTEXT: ACCESS_MASK = 0x0010;
/// The right to change facts about a thread.
pub const THREAD_SET_INFORMATION: ACCESS_MASK = 0x0020;
/// The right to query facts about a thread.
pub const THREAD_QUERY_INFORMATION: ACCESS_MASK = 0x0040;
/// All rights to a thread.
pub const THREAD_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0xFFFF;
/// The right to terminate a process.
pub const PROCESS_TERMINATE: ACCESS_MASK = 0x0001;
/// The right to duplicate a process's handles.
pub const PROCESS_DUP_HANDLE: ACCESS_MASK = 0x0040;
/// The right to query facts about a process.
pub const PROCESS_QUERY_INFORMATION: ACCESS_MASK = 0x0400;
/// All rights to a process.
pub const PROCESS_ALL_ACCESS: ACCESS_MASK = STANDARD_RIGHTS_REQUIRED | SYNCHRONIZE | 0xFFFF;

/// Child processes inherit the handle.
pub const OBJ_INHERIT: ULONG = 0x0002;
/// The object outlives its last handle.
pub const OBJ_PERMANENT: ULONG = 0x0010;
/// Only one handle may be open.
pub const OBJ_EXCLUSIVE: ULONG = 0x0020;
/// The name is compared without regard to case.
pub const OBJ_CASE_INSENSITIVE: ULONG = 0x0040;
/// Open the object if the name is taken.
pub const OBJ_OPENIF: ULONG = 0x0080;
/// Open a link, not its target.
pub const OBJ_OPENLINK: ULONG = 0x0100;
/// The handle belongs to the system and only kernel mode can use it.
pub const OBJ_KERNEL_HANDLE: ULONG = 0x0200;
/// Check access even though the caller is in kernel mode.
pub const OBJ_FORCE_ACCESS_CHECK: ULONG = 0x0400;
/// All attributes that exist.
pub const OBJ_VALID_ATTRIBUTES: ULONG = 0x1FF2;
