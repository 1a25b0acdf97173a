//! Status codes and their names.

use crate::NTSTATUS;

macro_rules! declare_status {
    ($($(#[$meta:meta])* $name:ident = $value:literal;)*) => {
        $(
            $(#[$meta])*
            pub const $name: NTSTATUS = {
                let bits: u32 = $value;
                bits.cast_signed()
            };
        )*

        /// The name of a status code, if this crate declares it.
        ///
        /// Where two names share a code, such as `STATUS_SUCCESS` and `STATUS_WAIT_0`, this is the first of them in the sources.
        ///
        /// # Examples
        /// ```
        /// use ksync_sys::{STATUS_INSUFFICIENT_RESOURCES, status_name};
        /// assert_eq!(status_name(STATUS_INSUFFICIENT_RESOURCES), Some("STATUS_INSUFFICIENT_RESOURCES"));
        /// assert_eq!(status_name(0x1234_5678), None);
        /// ```
        #[must_use]
        pub const fn status_name(status: NTSTATUS) -> Option<&'static str> {
            Some(match status {
                $($name => stringify!($name),)*
                _ => return None,
            })
        }

        /// All codes with their names, in the order of the sources.
        #[cfg(test)]
        const ALL: &[(&str, NTSTATUS)] = &[$((stringify!($name), $name)),*];
    };
}

declare_status! {
    // Success.
    /// The call succeeded; the first object of a wait was signaled.
    STATUS_SUCCESS = 0x0000_0000;
    /// The second object of a wait was signaled; further objects follow, up to `STATUS_WAIT_63`.
    STATUS_WAIT_1 = 0x0000_0001;
    /// The third object of a wait was signaled.
    STATUS_WAIT_2 = 0x0000_0002;
    /// The fourth object of a wait was signaled.
    STATUS_WAIT_3 = 0x0000_0003;
    /// The 64th object of a wait was signaled.
    STATUS_WAIT_63 = 0x0000_003F;
    /// The first object of a wait was a mutant whose owner ended without releasing it.
    STATUS_ABANDONED_WAIT_0 = 0x0000_0080;
    /// The 64th object of a wait was an abandoned mutant.
    STATUS_ABANDONED_WAIT_63 = 0x0000_00BF;
    /// The wait ended for a user APC.
    STATUS_USER_APC = 0x0000_00C0;
    /// The wait was interrupted for a kernel APC; drivers never see it.
    STATUS_KERNEL_APC = 0x0000_0100;
    /// The wait ended because the thread was alerted.
    STATUS_ALERTED = 0x0000_0101;
    /// The time is over.
    STATUS_TIMEOUT = 0x0000_0102;
    /// The operation goes on.
    STATUS_PENDING = 0x0000_0103;
    /// The name must be parsed again.
    STATUS_REPARSE = 0x0000_0104;
    /// There is more to enumerate.
    STATUS_MORE_ENTRIES = 0x0000_0105;
    /// Not all privileges are held.
    STATUS_NOT_ALL_ASSIGNED = 0x0000_0106;
    /// Some of the names were not translated.
    STATUS_SOME_NOT_MAPPED = 0x0000_0107;
    // Information.
    /// The name was taken and the object has been opened.
    STATUS_OBJECT_NAME_EXISTS = 0x4000_0000;
    /// The thread was suspended already.
    STATUS_THREAD_WAS_SUSPENDED = 0x4000_0001;
    /// The event was signaled.
    STATUS_EVENT_DONE = 0x4000_0012;
    /// The event is not signaled yet.
    STATUS_EVENT_PENDING = 0x4000_0013;
    /// A fatal error ended the program.
    STATUS_FATAL_APP_EXIT = 0x4000_0015;
    /// No other thread was ready, so none ran.
    STATUS_NO_YIELD_PERFORMED = 0x4000_0024;
    /// The timer cannot wake the machine.
    STATUS_TIMER_RESUME_IGNORED = 0x4000_0025;
    // Warning.
    /// A guard page was touched.
    STATUS_GUARD_PAGE_VIOLATION = 0x8000_0001;
    /// A pointer is not aligned.
    STATUS_DATATYPE_MISALIGNMENT = 0x8000_0002;
    /// A breakpoint was met.
    STATUS_BREAKPOINT = 0x8000_0003;
    /// One instruction was executed.
    STATUS_SINGLE_STEP = 0x8000_0004;
    /// The buffer was too small; what fits was returned.
    STATUS_BUFFER_OVERFLOW = 0x8000_0005;
    /// There are no more files.
    STATUS_NO_MORE_FILES = 0x8000_0006;
    /// Handles were closed on behalf of the caller.
    STATUS_HANDLES_CLOSED = 0x8000_000A;
    /// The device is busy.
    STATUS_DEVICE_BUSY = 0x8000_0011;
    /// There is nothing more to enumerate.
    STATUS_NO_MORE_ENTRIES = 0x8000_001A;
    // Error.
    /// The operation failed.
    STATUS_UNSUCCESSFUL = 0xC000_0001;
    /// The operation is not implemented.
    STATUS_NOT_IMPLEMENTED = 0xC000_0002;
    /// The information class is not valid.
    STATUS_INVALID_INFO_CLASS = 0xC000_0003;
    /// The length does not match the information class.
    STATUS_INFO_LENGTH_MISMATCH = 0xC000_0004;
    /// Memory was touched that may not be.
    STATUS_ACCESS_VIOLATION = 0xC000_0005;
    /// A page could not be read in.
    STATUS_IN_PAGE_ERROR = 0xC000_0006;
    /// The page file quota is used up.
    STATUS_PAGEFILE_QUOTA = 0xC000_0007;
    /// The handle is not valid.
    STATUS_INVALID_HANDLE = 0xC000_0008;
    /// The initial stack is not valid.
    STATUS_BAD_INITIAL_STACK = 0xC000_0009;
    /// The process or thread identifier is not valid.
    STATUS_INVALID_CID = 0xC000_000B;
    /// The timer belongs to another thread.
    STATUS_TIMER_NOT_CANCELED = 0xC000_000C;
    /// A parameter is not valid.
    STATUS_INVALID_PARAMETER = 0xC000_000D;
    /// There is no such device.
    STATUS_NO_SUCH_DEVICE = 0xC000_000E;
    /// There is no such file.
    STATUS_NO_SUCH_FILE = 0xC000_000F;
    /// The device does not take that request.
    STATUS_INVALID_DEVICE_REQUEST = 0xC000_0010;
    /// The end of the file was reached.
    STATUS_END_OF_FILE = 0xC000_0011;
    /// The request is not complete yet.
    STATUS_MORE_PROCESSING_REQUIRED = 0xC000_0016;
    /// There is not enough virtual memory.
    STATUS_NO_MEMORY = 0xC000_0017;
    /// The address range is in use.
    STATUS_CONFLICTING_ADDRESSES = 0xC000_0018;
    /// The memory could not be freed.
    STATUS_UNABLE_TO_FREE_VM = 0xC000_001A;
    /// There is no such system service.
    STATUS_INVALID_SYSTEM_SERVICE = 0xC000_001C;
    /// The instruction is not valid.
    STATUS_ILLEGAL_INSTRUCTION = 0xC000_001D;
    /// The lock cannot be used in that order.
    STATUS_INVALID_LOCK_SEQUENCE = 0xC000_001E;
    /// The caller may not do that.
    STATUS_ACCESS_DENIED = 0xC000_0022;
    /// The buffer is too small; nothing was returned.
    STATUS_BUFFER_TOO_SMALL = 0xC000_0023;
    /// The object is of another type.
    STATUS_OBJECT_TYPE_MISMATCH = 0xC000_0024;
    /// The exception cannot be continued from.
    STATUS_NONCONTINUABLE_EXCEPTION = 0xC000_0025;
    /// An exception handler returned nonsense.
    STATUS_INVALID_DISPOSITION = 0xC000_0026;
    /// The stack is being unwound.
    STATUS_UNWIND = 0xC000_0027;
    /// The stack is not valid or not aligned.
    STATUS_BAD_STACK = 0xC000_0028;
    /// The unwind target is not valid.
    STATUS_INVALID_UNWIND_TARGET = 0xC000_0029;
    /// The pages are not locked.
    STATUS_NOT_LOCKED = 0xC000_002A;
    /// The memory is not committed.
    STATUS_NOT_COMMITTED = 0xC000_002D;
    /// The parameters do not go together.
    STATUS_INVALID_PARAMETER_MIX = 0xC000_0030;
    /// The quota cannot be lowered so far.
    STATUS_INVALID_QUOTA_LOWER = 0xC000_0031;
    /// The name is not valid.
    STATUS_OBJECT_NAME_INVALID = 0xC000_0033;
    /// There is no object of that name.
    STATUS_OBJECT_NAME_NOT_FOUND = 0xC000_0034;
    /// There is an object of that name.
    STATUS_OBJECT_NAME_COLLISION = 0xC000_0035;
    /// The other side of the port is gone.
    STATUS_PORT_DISCONNECTED = 0xC000_0037;
    /// The path does not lead to a directory.
    STATUS_OBJECT_PATH_INVALID = 0xC000_0039;
    /// A directory of the path does not exist.
    STATUS_OBJECT_PATH_NOT_FOUND = 0xC000_003A;
    /// The path is not a path.
    STATUS_OBJECT_PATH_SYNTAX_BAD = 0xC000_003B;
    /// Data was lost.
    STATUS_DATA_OVERRUN = 0xC000_003C;
    /// Data is damaged.
    STATUS_DATA_ERROR = 0xC000_003E;
    /// The file is open in a way that excludes this one.
    STATUS_SHARING_VIOLATION = 0xC000_0043;
    /// The quota is used up.
    STATUS_QUOTA_EXCEEDED = 0xC000_0044;
    /// The caller does not own the mutant.
    STATUS_MUTANT_NOT_OWNED = 0xC000_0046;
    /// The release would take the count past its limit.
    STATUS_SEMAPHORE_LIMIT_EXCEEDED = 0xC000_0047;
    /// The thread is ending.
    STATUS_THREAD_IS_TERMINATING = 0xC000_004B;
    /// Another lock covers the range.
    STATUS_FILE_LOCK_CONFLICT = 0xC000_0054;
    /// The lock could not be had.
    STATUS_LOCK_NOT_GRANTED = 0xC000_0055;
    /// The object is being deleted.
    STATUS_DELETE_PENDING = 0xC000_0056;
    /// The revisions do not match.
    STATUS_REVISION_MISMATCH = 0xC000_0059;
    /// That cannot be an owner.
    STATUS_INVALID_OWNER = 0xC000_005A;
    /// A privilege is missing.
    STATUS_PRIVILEGE_NOT_HELD = 0xC000_0061;
    /// There is no procedure of that name.
    STATUS_PROCEDURE_NOT_FOUND = 0xC000_007A;
    /// The file is not an image.
    STATUS_INVALID_IMAGE_FORMAT = 0xC000_007B;
    /// The range is not locked.
    STATUS_RANGE_NOT_LOCKED = 0xC000_007E;
    /// An integer was divided by zero.
    STATUS_INTEGER_DIVIDE_BY_ZERO = 0xC000_0094;
    /// An integer overflowed.
    STATUS_INTEGER_OVERFLOW = 0xC000_0095;
    /// The instruction is not for user mode.
    STATUS_PRIVILEGED_INSTRUCTION = 0xC000_0096;
    /// The system lacks the resources, mostly pool.
    STATUS_INSUFFICIENT_RESOURCES = 0xC000_009A;
    /// The device is not connected.
    STATUS_DEVICE_NOT_CONNECTED = 0xC000_009D;
    /// The device has no power.
    STATUS_DEVICE_POWER_FAILURE = 0xC000_009E;
    /// The working set quota is used up.
    STATUS_WORKING_SET_QUOTA = 0xC000_00A1;
    /// The device is not ready.
    STATUS_DEVICE_NOT_READY = 0xC000_00A3;
    /// All instances are busy.
    STATUS_INSTANCE_NOT_AVAILABLE = 0xC000_00AB;
    /// The operation took too long.
    STATUS_IO_TIMEOUT = 0xC000_00B5;
    /// The operation is not supported.
    STATUS_NOT_SUPPORTED = 0xC000_00BB;
    /// The device does not exist.
    STATUS_DEVICE_DOES_NOT_EXIST = 0xC000_00C0;
    /// Something went wrong inside.
    STATUS_INTERNAL_ERROR = 0xC000_00E5;
    /// The first parameter is not valid.
    STATUS_INVALID_PARAMETER_1 = 0xC000_00EF;
    /// The second parameter is not valid.
    STATUS_INVALID_PARAMETER_2 = 0xC000_00F0;
    /// The third parameter is not valid.
    STATUS_INVALID_PARAMETER_3 = 0xC000_00F1;
    /// The fourth parameter is not valid.
    STATUS_INVALID_PARAMETER_4 = 0xC000_00F2;
    /// The fifth parameter is not valid.
    STATUS_INVALID_PARAMETER_5 = 0xC000_00F3;
    /// The sixth parameter is not valid.
    STATUS_INVALID_PARAMETER_6 = 0xC000_00F4;
    /// The stack is used up.
    STATUS_STACK_OVERFLOW = 0xC000_00FD;
    /// The file is not a directory.
    STATUS_NOT_A_DIRECTORY = 0xC000_0103;
    /// The process is ending.
    STATUS_PROCESS_IS_TERMINATING = 0xC000_010A;
    /// The image is loaded already.
    STATUS_IMAGE_ALREADY_LOADED = 0xC000_010E;
    /// The request was cancelled.
    STATUS_CANCELLED = 0xC000_0120;
    /// There are too many threads.
    STATUS_TOO_MANY_THREADS = 0xC000_0129;
    /// The thread is not in that process.
    STATUS_THREAD_NOT_IN_PROCESS = 0xC000_012A;
    /// The commit limit is reached.
    STATUS_COMMITMENT_LIMIT = 0xC000_012D;
    /// The caller must wait on the object.
    STATUS_SYNCHRONIZATION_REQUIRED = 0xC000_0134;
    /// An image lacks an export.
    STATUS_ENTRYPOINT_NOT_FOUND = 0xC000_0139;
    /// The address is not valid.
    STATUS_INVALID_ADDRESS = 0xC000_0141;
    /// Nobody handled an exception.
    STATUS_UNHANDLED_EXCEPTION = 0xC000_0144;
    /// The driver failed.
    STATUS_DRIVER_INTERNAL_ERROR = 0xC000_0183;
    /// The device is not in a state for that.
    STATUS_INVALID_DEVICE_STATE = 0xC000_0184;
    /// It is too late for that.
    STATUS_TOO_LATE = 0xC000_0189;
    /// The mutant was acquired too often.
    STATUS_MUTANT_LIMIT_EXCEEDED = 0xC000_0191;
    /// The operation would deadlock.
    STATUS_POSSIBLE_DEADLOCK = 0xC000_0194;
    /// The buffer's size is not valid.
    STATUS_INVALID_BUFFER_SIZE = 0xC000_0206;
    /// It was not found.
    STATUS_NOT_FOUND = 0xC000_0225;
    /// Try again.
    STATUS_RETRY = 0xC000_022D;
    /// The handle is protected.
    STATUS_HANDLE_NOT_CLOSABLE = 0xC000_0235;
    /// Nothing is at that address.
    STATUS_ADDRESS_NOT_ASSOCIATED = 0xC000_0239;
    /// The kernel lacks a routine that the driver imports.
    STATUS_DRIVER_ENTRYPOINT_NOT_FOUND = 0xC000_0263;
    /// The caller does not own the resource.
    STATUS_RESOURCE_NOT_OWNED = 0xC000_0264;
    /// The driver could not be loaded.
    STATUS_DRIVER_UNABLE_TO_LOAD = 0xC000_026C;
    /// The device is gone.
    STATUS_DEVICE_REMOVED = 0xC000_02B6;
    /// One fault led to another.
    STATUS_MULTIPLE_FAULT_VIOLATION = 0xC000_02E8;
    /// The system is shutting down.
    STATUS_SYSTEM_SHUTDOWN = 0xC000_02EB;
    /// The driver is on the list of those not to load.
    STATUS_DRIVER_BLOCKED = 0xC000_036C;
    /// A stack buffer was overrun, or a program asked to be ended at once.
    STATUS_STACK_BUFFER_OVERRUN = 0xC000_0409;
    /// An assertion failed.
    STATUS_ASSERTION_FAILURE = 0xC000_0420;
    /// A callback ends by unwinding.
    STATUS_CALLBACK_POP_STACK = 0xC000_0423;
    /// A program asked to be ended at once.
    STATUS_FAIL_FAST_EXCEPTION = 0xC000_0602;
    /// The resource is in use.
    STATUS_RESOURCE_IN_USE = 0xC000_0708;
    /// An APC returned while it impersonated.
    STATUS_APC_RETURNED_WHILE_IMPERSONATING = 0xC000_0711;
    /// It is registered already.
    STATUS_ALREADY_REGISTERED = 0xC000_0718;
    /// The thread is not valid for that.
    STATUS_INVALID_THREAD = 0xC000_071C;
}

/// The first object of a wait was signaled: [`STATUS_SUCCESS`].
pub const STATUS_WAIT_0: NTSTATUS = STATUS_SUCCESS;
/// A mutant was abandoned: [`STATUS_ABANDONED_WAIT_0`].
pub const STATUS_ABANDONED: NTSTATUS = STATUS_ABANDONED_WAIT_0;

/// True for success and information: `NT_SUCCESS` in C.
///
/// A wait that timed out or was broken off is a success in this sense too.
#[must_use]
pub const fn nt_success(status: NTSTATUS) -> bool {
    status >= 0
}

/// True for information: `NT_INFORMATION` in C.
#[must_use]
pub const fn nt_information(status: NTSTATUS) -> bool {
    status.cast_unsigned() >> 30 == 1
}

/// True for a warning: `NT_WARNING` in C.
#[must_use]
pub const fn nt_warning(status: NTSTATUS) -> bool {
    status.cast_unsigned() >> 30 == 2
}

/// True for an error: `NT_ERROR` in C.
#[must_use]
pub const fn nt_error(status: NTSTATUS) -> bool {
    status.cast_unsigned() >> 30 == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name() {
        for &(name, status) in ALL {
            assert_eq!(status_name(status), Some(name));
        }
    }

    #[test]
    fn there_are_enough_of_them() {
        assert!(ALL.len() >= 80, "{}", ALL.len());
    }

    #[test]
    fn names_of_aliases_are_the_first_ones() {
        assert_eq!(status_name(STATUS_WAIT_0), Some("STATUS_SUCCESS"));
        assert_eq!(status_name(STATUS_ABANDONED), Some("STATUS_ABANDONED_WAIT_0"));
        assert_eq!(status_name(0x0BAD_C0DE), None);
    }

    #[test]
    fn severities_partition_the_codes() {
        for &(name, status) in ALL {
            let kinds = [nt_information(status), nt_warning(status), nt_error(status)];
            assert!(kinds.iter().filter(|&&kind| kind).count() <= 1, "{name}");
            assert_eq!(nt_success(status), !nt_warning(status) && !nt_error(status), "{name}");
        }
        assert!(nt_success(STATUS_TIMEOUT));
        assert!(nt_information(STATUS_OBJECT_NAME_EXISTS));
        assert!(nt_warning(STATUS_BUFFER_OVERFLOW));
        assert!(nt_error(STATUS_ACCESS_DENIED));
    }
}
