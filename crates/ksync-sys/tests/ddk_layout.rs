//! Compares layouts and constants with the mingw-w64 DDK headers.
//!
//! `ddk_layout.expected.txt` holds what the headers say, so that the comparison needs no C compiler. Where the compiler of mingw-w64 is
//! installed, a second test makes the file anew from the headers and compares. `KSYNC_REQUIRE_DDK=1` makes the compiler's absence a failure,
//! `KSYNC_BLESS=1` writes the file.

use ksync_sys::*;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::mem::{MaybeUninit, align_of, offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const EXPECTED: &str = include_str!("ddk_layout.expected.txt");
const COMPILER: &str = "x86_64-w64-mingw32-gcc";

/// Where the headers are wrong or older than this crate: the row, what they say, and why.
const KNOWN: &[(&str, u64, &str)] = &[
    ("KTIMER.Processor size", 0x4, "before Windows 8 the field was a ULONG; `Processor` and `TimerType` share it now"),
    ("KWAIT_BLOCK.WaitType offset", 0x2a, "the order of Windows Server 2003; windows-sys has the present one"),
    ("KWAIT_BLOCK.BlockState offset", 0x2b, "the order of Windows Server 2003; windows-sys has the present one"),
    ("KWAIT_BLOCK.WaitKey offset", 0x28, "the order of Windows Server 2003; windows-sys has the present one"),
    ("KWAIT_BLOCK.SpareLong offset", 0x2c, "the order of Windows Server 2003; windows-sys has the present one"),
    ("KWAIT_BLOCK.Thread offset", 0x10, "the order of Windows Server 2003; windows-sys has the present one"),
    ("KWAIT_BLOCK.Object offset", 0x18, "the order of Windows Server 2003; windows-sys has the present one"),
    (
        "KDPC.DpcListEntry size",
        0x10,
        "a LIST_ENTRY before Windows 8; a SINGLE_LIST_ENTRY and `ProcessorHistory` share its place now",
    ),
    ("DEVICE_OBJECT size", 0x148, "the headers lack the alignment of pool allocations"),
    ("DEVICE_OBJECT align", 0x8, "as above"),
];

/// Types that ARM64 lays out differently; the headers are compiled for x86-64.
const X64_ONLY: &[&str] = &["GENERAL_LOOKASIDE", "NPAGED_LOOKASIDE_LIST", "PAGED_LOOKASIDE_LIST"];

/// Which headers know a fact.
#[derive(Clone, Copy, PartialEq)]
enum Headers {
    Kernel,
    User,
}

/// One fact: its name in the file, how C computes it, and its value in Rust.
struct Row {
    headers: Headers,
    name: String,
    c: String,
    rust: u64,
}

fn size_of_pointee<T>(_: *const T) -> usize {
    size_of::<T>()
}

macro_rules! types {
    ($rows:ident; $($type:ident { $($field:ident $(as $c_field:ident)?),* $(,)? })*) => {$(
        let name = stringify!($type);
        $rows.push(Row { headers: Headers::Kernel, name: format!("{name} size"), c: format!("sizeof({name})"), rust: size_of::<$type>() as u64 });
        $rows.push(Row { headers: Headers::Kernel, name: format!("{name} align"), c: format!("_Alignof({name})"), rust: align_of::<$type>() as u64 });
        $(
            // C's name, where it differs.
            let [field, ..] = [$(stringify!($c_field),)? stringify!($field)];
            $rows.push(Row {
                headers: Headers::Kernel,
                name: format!("{name}.{} offset", stringify!($field)),
                c: format!("offsetof({name}, {field})"),
                rust: offset_of!($type, $field) as u64,
            });
            let value = MaybeUninit::<$type>::uninit();
            // SAFETY: the field lies in `value`; nothing is read.
            let pointer = unsafe { &raw const (*value.as_ptr()).$field };
            $rows.push(Row {
                headers: Headers::Kernel,
                name: format!("{name}.{} size", stringify!($field)),
                c: format!("sizeof((({name} *)0)->{field})"),
                rust: size_of_pointee(pointer) as u64,
            });
        )*
    )*};
}

/// Offsets of fields within fields, unions included.
macro_rules! nested {
    ($rows:ident; $($type:ident { $($first:ident $(. $rest:ident)* as $c_first:ident $(. $c_rest:ident)*),* $(,)? })*) => {$($(
        $rows.push(Row {
            headers: Headers::Kernel,
            name: format!("{}.{} offset", stringify!($type), concat!(stringify!($first) $(, ".", stringify!($rest))*)),
            c: format!("offsetof({}, {})", stringify!($type), concat!(stringify!($c_first) $(, ".", stringify!($c_rest))*)),
            rust: offset_of!($type, $first $(. $rest)*) as u64,
        });
    )*)*};
}

macro_rules! constants {
    ($rows:ident, $headers:expr; $($name:ident)*) => {$(
        // CAST: sign extension, as in C.
        $rows.push(Row { headers: $headers, name: stringify!($name).into(), c: stringify!($name).into(), rust: $name as i64 as u64 });
    )*};
}

/// Everything that is compared.
fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    types! { rows;
        LIST_ENTRY { Flink, Blink }
        SINGLE_LIST_ENTRY { Next }
        SLIST_ENTRY { Next }
        SLIST_HEADER { Alignment, Region }
        UNICODE_STRING { Length, MaximumLength, Buffer }
        OBJECT_ATTRIBUTES { Length, RootDirectory, ObjectName, Attributes, SecurityDescriptor, SecurityQualityOfService }
        OBJECT_HANDLE_INFORMATION { HandleAttributes, GrantedAccess }
        CLIENT_ID { UniqueProcess, UniqueThread }
        PROCESSOR_NUMBER { Group, Number, Reserved }
        GROUP_AFFINITY { Mask, Group, Reserved }
        RTL_OSVERSIONINFOW { dwOSVersionInfoSize, dwMajorVersion, dwMinorVersion, dwBuildNumber, dwPlatformId, szCSDVersion }
        DISPATCHER_HEADER { Type, Signalling, Size, Inserted as TimerMiscFlags, SignalState, WaitListHead }
        KEVENT { Header }
        KGATE { Header }
        KSEMAPHORE { Header, Limit }
        KMUTANT { Header, MutantListEntry, OwnerThread, Abandoned, ApcDisable }
        KTIMER { Header, DueTime, TimerListEntry, Dpc, Processor, Period }
        KWAIT_BLOCK { WaitListEntry, WaitType, BlockState, WaitKey, SpareLong, Thread, Object }
        KQUEUE { Header, EntryListHead, CurrentCount, MaximumCount, ThreadListHead }
        KDEVICE_QUEUE { Type, Size, DeviceListHead, Lock, Busy }
        KDEVICE_QUEUE_ENTRY { DeviceListEntry, SortKey, Inserted }
        KDPC { Type, Importance, Number, DpcListEntry, DeferredRoutine, DeferredContext, SystemArgument1, SystemArgument2, DpcData }
        KAPC {
            Type, AllFlags as SpareByte0, Size, SpareByte1, SpareLong0, Thread, ApcListEntry, KernelRoutine, RundownRoutine,
            NormalRoutine, NormalContext, SystemArgument1, SystemArgument2, ApcStateIndex, ApcMode, Inserted,
        }
        KSPIN_LOCK {}
        KSPIN_LOCK_QUEUE { Next, Lock }
        KLOCK_QUEUE_HANDLE { LockQueue, OldIrql }
        FAST_MUTEX { Count, Owner, Contention, Event, OldIrql }
        KGUARDED_MUTEX { Count, Owner, Contention, Event as Gate, OldIrql as CombinedApcDisable }
        EX_PUSH_LOCK {}
        ERESOURCE_THREAD {}
        OWNER_ENTRY { OwnerThread, OwnerCount as TableSize }
        ERESOURCE {
            SystemResourcesList, OwnerTable, ActiveCount, Flag, SharedWaiters, ExclusiveWaiters, OwnerEntry, ActiveEntries,
            ContentionCount, NumberOfSharedWaiters, NumberOfExclusiveWaiters, Reserved2, Address, SpinLock,
        }
        EX_RUNDOWN_REF { Count }
        IO_REMOVE_LOCK_COMMON_BLOCK { Removed, Reserved, IoCount, RemoveEvent }
        IO_REMOVE_LOCK_DBG_BLOCK {
            Signature, HighWatermark, MaxLockedTicks, AllocateTag, LockList, Spin, LowMemoryCount, Reserved1, Reserved2, Blocks,
        }
        IO_REMOVE_LOCK { Common }
        RTL_RUN_ONCE { Ptr }
        GENERAL_LOOKASIDE_POOL {
            ListHead, Depth, MaximumDepth, TotalAllocates, AllocateMisses, TotalFrees, FreeMisses, Type, Tag, Size,
            Allocate as AllocateEx, Free as FreeEx, ListEntry, LastTotalAllocates, LastAllocateMisses, Future,
        }
        GENERAL_LOOKASIDE {}
        LOOKASIDE_LIST_EX { L }
        NPAGED_LOOKASIDE_LIST { L }
        PAGED_LOOKASIDE_LIST { L }
        DRIVER_EXTENSION { DriverObject, AddDevice, Count, ServiceKeyName }
        DRIVER_OBJECT {
            Type, Size, DeviceObject, Flags, DriverStart, DriverSize, DriverSection, DriverExtension, DriverName,
            HardwareDatabase, FastIoDispatch, DriverInit, DriverStartIo, DriverUnload, MajorFunction,
        }
        WAIT_CONTEXT_BLOCK {
            WaitQueueEntry, DeviceRoutine, DeviceContext, NumberOfMapRegisters, DeviceObject, CurrentIrp, BufferChainingDpc,
        }
        DEVICE_OBJECT {
            Type, Size, ReferenceCount, DriverObject, NextDevice, AttachedDevice, CurrentIrp, Timer, Flags, Characteristics,
            Vpb, DeviceExtension, DeviceType, StackSize, Queue, AlignmentRequirement, DeviceQueue, Dpc, ActiveThreadCount,
            SecurityDescriptor, DeviceLock, SectorSize, Spare1, DeviceObjectExtension, Reserved,
        }
        WORK_QUEUE_ITEM { List, WorkerRoutine, Parameter }
        IO_STATUS_BLOCK { Information }
        MDL { Next, Size, MdlFlags, Process, MappedSystemVa, StartVa, ByteCount, ByteOffset }
        IRP {
            Type, Size, MdlAddress, Flags, AssociatedIrp, ThreadListEntry, IoStatus, RequestorMode, PendingReturned, StackCount,
            CurrentLocation, Cancel, CancelIrql, ApcEnvironment, AllocationFlags, UserIosb, UserEvent, Overlay, CancelRoutine,
            UserBuffer, Tail,
        }
        IO_SECURITY_CONTEXT { SecurityQos, AccessState, DesiredAccess, FullCreateOptions }
        IO_STACK_LOCATION {
            MajorFunction, MinorFunction, Flags, Control, Parameters, DeviceObject, FileObject, CompletionRoutine, Context,
        }
        IO_COMPLETION_CONTEXT { Port, Key }
        FILE_OBJECT {
            Type, Size, DeviceObject, Vpb, FsContext, FsContext2, SectionObjectPointer, PrivateCacheMap, FinalStatus,
            RelatedFileObject, LockOperation, DeletePending, ReadAccess, WriteAccess, DeleteAccess, SharedRead, SharedWrite,
            SharedDelete, Flags, FileName, CurrentByteOffset, Waiters, Busy, LastLock, Lock, Event, CompletionContext,
            IrpListLock, IrpList, FileObjectExtension,
        }
        IO_CSQ {
            Type, CsqInsertIrp, CsqRemoveIrp, CsqPeekNextIrp, CsqAcquireLock, CsqReleaseLock, CsqCompleteCanceledIrp,
            ReservePointer,
        }
        IO_CSQ_IRP_CONTEXT { Type, Irp, Csq }
        TIMER_SET_COALESCABLE_TIMER_INFO {
            DueTime, TimerApcRoutine, TimerContext, WakeContext, Period, TolerableDelay, PreviousState,
        }
    }
    nested! { rows;
        IO_STATUS_BLOCK { u.Status as Status, u.Pointer as Pointer }
        IRP {
            Overlay.AsynchronousParameters.UserApcRoutine as Overlay.AsynchronousParameters.UserApcRoutine,
            Overlay.AsynchronousParameters.UserApcContext as Overlay.AsynchronousParameters.UserApcContext,
            Tail.Overlay.Context.DeviceQueueEntry as Tail.Overlay.DeviceQueueEntry,
            Tail.Overlay.Context.DriverContext as Tail.Overlay.DriverContext,
            Tail.Overlay.Thread as Tail.Overlay.Thread,
            Tail.Overlay.AuxiliaryBuffer as Tail.Overlay.AuxiliaryBuffer,
            Tail.Overlay.ListEntry as Tail.Overlay.ListEntry,
            Tail.Overlay.CurrentStackLocation as Tail.Overlay.CurrentStackLocation,
            Tail.Overlay.OriginalFileObject as Tail.Overlay.OriginalFileObject,
            Tail.Apc as Tail.Apc,
        }
        IO_STACK_LOCATION {
            Parameters.Create.SecurityContext as Parameters.Create.SecurityContext,
            Parameters.Create.Options as Parameters.Create.Options,
            Parameters.Create.FileAttributes as Parameters.Create.FileAttributes,
            Parameters.Create.ShareAccess as Parameters.Create.ShareAccess,
            Parameters.Create.EaLength as Parameters.Create.EaLength,
            Parameters.Read.Length as Parameters.Read.Length,
            Parameters.Read.Key as Parameters.Read.Key,
            Parameters.Read.Flags as Parameters.Read.Flags,
            Parameters.Read.ByteOffset as Parameters.Read.ByteOffset,
            Parameters.Write.Length as Parameters.Write.Length,
            Parameters.Write.Key as Parameters.Write.Key,
            Parameters.Write.ByteOffset as Parameters.Write.ByteOffset,
            Parameters.DeviceIoControl.OutputBufferLength as Parameters.DeviceIoControl.OutputBufferLength,
            Parameters.DeviceIoControl.InputBufferLength as Parameters.DeviceIoControl.InputBufferLength,
            Parameters.DeviceIoControl.IoControlCode as Parameters.DeviceIoControl.IoControlCode,
            Parameters.DeviceIoControl.Type3InputBuffer as Parameters.DeviceIoControl.Type3InputBuffer,
            Parameters.Others as Parameters.Others.Argument1,
        }
    }
    constants! { rows, Headers::Kernel;
        PASSIVE_LEVEL LOW_LEVEL APC_LEVEL DISPATCH_LEVEL CLOCK_LEVEL IPI_LEVEL DRS_LEVEL POWER_LEVEL PROFILE_LEVEL HIGH_LEVEL CMCI_LEVEL
        KernelMode UserMode MAXIMUM_WAIT_OBJECTS THREAD_WAIT_OBJECTS MAXIMUM_SUSPEND_COUNT
        LOW_PRIORITY LOW_REALTIME_PRIORITY HIGH_PRIORITY MAXIMUM_PRIORITY
        EVENT_INCREMENT IO_NO_INCREMENT SEMAPHORE_INCREMENT
        Executive FreePage PageIn PoolAllocation DelayExecution Suspended UserRequest WrExecutive WrQueue WrTerminated WrResource
        WrPushLock WrMutex WrYieldExecution WrFastMutex WrGuardedMutex WrRundown
        WaitAll WaitAny NotificationEvent SynchronizationEvent NotificationTimer SynchronizationTimer
        ALL_PROCESSOR_GROUPS
        NonPagedPool NonPagedPoolExecute PagedPool NonPagedPoolCacheAligned PagedPoolCacheAligned NonPagedPoolNx
        NonPagedPoolNxCacheAligned POOL_RAISE_IF_ALLOCATION_FAILURE
        DELETE READ_CONTROL WRITE_DAC WRITE_OWNER SYNCHRONIZE STANDARD_RIGHTS_REQUIRED STANDARD_RIGHTS_ALL SPECIFIC_RIGHTS_ALL
        MAXIMUM_ALLOWED GENERIC_ALL GENERIC_EXECUTE GENERIC_WRITE GENERIC_READ
        EVENT_QUERY_STATE EVENT_MODIFY_STATE EVENT_ALL_ACCESS SEMAPHORE_QUERY_STATE SEMAPHORE_MODIFY_STATE SEMAPHORE_ALL_ACCESS
        THREAD_TERMINATE THREAD_SUSPEND_RESUME THREAD_ALERT THREAD_GET_CONTEXT THREAD_SET_CONTEXT THREAD_SET_INFORMATION
        THREAD_ALL_ACCESS PROCESS_DUP_HANDLE PROCESS_ALL_ACCESS
        OBJ_INHERIT OBJ_PERMANENT OBJ_EXCLUSIVE OBJ_CASE_INSENSITIVE OBJ_OPENIF OBJ_OPENLINK OBJ_KERNEL_HANDLE
        OBJ_FORCE_ACCESS_CHECK OBJ_VALID_ATTRIBUTES
        TimerSetCoalescableTimer LevelSensitive Latched
        LowImportance MediumImportance HighImportance MediumHighImportance
        ResourceNeverExclusive ResourceReleaseByOtherThread ResourceOwnedExclusive EX_RUNDOWN_ACTIVE EX_RUNDOWN_COUNT_INC
        RTL_RUN_ONCE_CHECK_ONLY RTL_RUN_ONCE_ASYNC RTL_RUN_ONCE_INIT_FAILED RTL_RUN_ONCE_CTX_RESERVED_BITS
        EX_LOOKASIDE_LIST_EX_FLAGS_RAISE_ON_FAIL EX_LOOKASIDE_LIST_EX_FLAGS_FAIL_NO_RAISE
        IRP_MJ_CREATE IRP_MJ_CREATE_NAMED_PIPE IRP_MJ_CLOSE IRP_MJ_READ IRP_MJ_WRITE IRP_MJ_QUERY_INFORMATION
        IRP_MJ_SET_INFORMATION IRP_MJ_FLUSH_BUFFERS IRP_MJ_FILE_SYSTEM_CONTROL IRP_MJ_DEVICE_CONTROL
        IRP_MJ_INTERNAL_DEVICE_CONTROL IRP_MJ_SHUTDOWN IRP_MJ_CLEANUP IRP_MJ_POWER IRP_MJ_SYSTEM_CONTROL IRP_MJ_PNP
        IO_TYPE_IRP IO_TYPE_FILE
        IRP_SYNCHRONOUS_API IRP_BUFFERED_IO IRP_DEALLOCATE_BUFFER IRP_INPUT_OPERATION IRP_CREATE_OPERATION IRP_READ_OPERATION
        IRP_WRITE_OPERATION IRP_CLOSE_OPERATION IRP_DEFER_IO_COMPLETION
        SL_PENDING_RETURNED SL_ERROR_RETURNED SL_INVOKE_ON_CANCEL SL_INVOKE_ON_SUCCESS SL_INVOKE_ON_ERROR
        DO_BUFFERED_IO DO_EXCLUSIVE DO_DIRECT_IO
        FO_FILE_OPEN FO_SYNCHRONOUS_IO FO_DIRECT_DEVICE_OPEN FO_CLEANUP_COMPLETE FO_HANDLE_CREATED
        METHOD_BUFFERED METHOD_IN_DIRECT METHOD_OUT_DIRECT METHOD_NEITHER
        FILE_ANY_ACCESS FILE_READ_DATA FILE_WRITE_DATA FILE_READ_ATTRIBUTES
        MDL_MAPPED_TO_SYSTEM_VA MDL_PAGES_LOCKED MDL_SOURCE_IS_NONPAGED_POOL STATUS_CONTINUE_COMPLETION
        IRP_MJ_MAXIMUM_FUNCTION DO_DEVICE_INITIALIZING FILE_DEVICE_UNKNOWN FILE_DEVICE_SECURE_OPEN
        CriticalWorkQueue DelayedWorkQueue HyperCriticalWorkQueue NormalWorkQueue BackgroundWorkQueue RealTimeWorkQueue
        SuperCriticalWorkQueue
        STATUS_SUCCESS STATUS_WAIT_1 STATUS_WAIT_2 STATUS_WAIT_3 STATUS_WAIT_63 STATUS_ABANDONED_WAIT_0
        STATUS_ABANDONED_WAIT_63 STATUS_USER_APC STATUS_KERNEL_APC STATUS_ALERTED STATUS_TIMEOUT STATUS_PENDING
        STATUS_REPARSE STATUS_MORE_ENTRIES STATUS_NOT_ALL_ASSIGNED STATUS_SOME_NOT_MAPPED STATUS_OBJECT_NAME_EXISTS
        STATUS_THREAD_WAS_SUSPENDED STATUS_EVENT_DONE STATUS_EVENT_PENDING STATUS_FATAL_APP_EXIT
        STATUS_NO_YIELD_PERFORMED STATUS_TIMER_RESUME_IGNORED STATUS_GUARD_PAGE_VIOLATION STATUS_DATATYPE_MISALIGNMENT
        STATUS_BREAKPOINT STATUS_SINGLE_STEP STATUS_BUFFER_OVERFLOW STATUS_NO_MORE_FILES STATUS_HANDLES_CLOSED
        STATUS_DEVICE_BUSY STATUS_NO_MORE_ENTRIES STATUS_UNSUCCESSFUL STATUS_NOT_IMPLEMENTED STATUS_INVALID_INFO_CLASS
        STATUS_INFO_LENGTH_MISMATCH STATUS_ACCESS_VIOLATION STATUS_IN_PAGE_ERROR STATUS_PAGEFILE_QUOTA
        STATUS_INVALID_HANDLE STATUS_BAD_INITIAL_STACK STATUS_INVALID_CID STATUS_TIMER_NOT_CANCELED
        STATUS_INVALID_PARAMETER STATUS_NO_SUCH_DEVICE STATUS_NO_SUCH_FILE STATUS_INVALID_DEVICE_REQUEST
        STATUS_END_OF_FILE STATUS_MORE_PROCESSING_REQUIRED STATUS_NO_MEMORY STATUS_CONFLICTING_ADDRESSES
        STATUS_UNABLE_TO_FREE_VM STATUS_INVALID_SYSTEM_SERVICE STATUS_ILLEGAL_INSTRUCTION STATUS_INVALID_LOCK_SEQUENCE
        STATUS_ACCESS_DENIED STATUS_BUFFER_TOO_SMALL STATUS_OBJECT_TYPE_MISMATCH STATUS_NONCONTINUABLE_EXCEPTION
        STATUS_INVALID_DISPOSITION STATUS_UNWIND STATUS_BAD_STACK STATUS_INVALID_UNWIND_TARGET STATUS_NOT_LOCKED
        STATUS_NOT_COMMITTED STATUS_INVALID_PARAMETER_MIX STATUS_INVALID_QUOTA_LOWER STATUS_OBJECT_NAME_INVALID
        STATUS_OBJECT_NAME_NOT_FOUND STATUS_OBJECT_NAME_COLLISION STATUS_PORT_DISCONNECTED STATUS_OBJECT_PATH_INVALID
        STATUS_OBJECT_PATH_NOT_FOUND STATUS_OBJECT_PATH_SYNTAX_BAD STATUS_DATA_OVERRUN STATUS_DATA_ERROR
        STATUS_SHARING_VIOLATION STATUS_QUOTA_EXCEEDED STATUS_MUTANT_NOT_OWNED STATUS_SEMAPHORE_LIMIT_EXCEEDED
        STATUS_THREAD_IS_TERMINATING STATUS_FILE_LOCK_CONFLICT STATUS_LOCK_NOT_GRANTED STATUS_DELETE_PENDING
        STATUS_REVISION_MISMATCH STATUS_INVALID_OWNER STATUS_PRIVILEGE_NOT_HELD STATUS_PROCEDURE_NOT_FOUND
        STATUS_INVALID_IMAGE_FORMAT STATUS_RANGE_NOT_LOCKED STATUS_INTEGER_DIVIDE_BY_ZERO STATUS_INTEGER_OVERFLOW
        STATUS_PRIVILEGED_INSTRUCTION STATUS_INSUFFICIENT_RESOURCES STATUS_DEVICE_NOT_CONNECTED
        STATUS_DEVICE_POWER_FAILURE STATUS_WORKING_SET_QUOTA STATUS_DEVICE_NOT_READY STATUS_INSTANCE_NOT_AVAILABLE
        STATUS_IO_TIMEOUT STATUS_NOT_SUPPORTED STATUS_DEVICE_DOES_NOT_EXIST STATUS_INTERNAL_ERROR
        STATUS_INVALID_PARAMETER_1 STATUS_INVALID_PARAMETER_2 STATUS_INVALID_PARAMETER_3 STATUS_INVALID_PARAMETER_4
        STATUS_INVALID_PARAMETER_5 STATUS_STACK_OVERFLOW STATUS_NOT_A_DIRECTORY STATUS_PROCESS_IS_TERMINATING
        STATUS_IMAGE_ALREADY_LOADED STATUS_CANCELLED STATUS_TOO_MANY_THREADS STATUS_THREAD_NOT_IN_PROCESS
        STATUS_COMMITMENT_LIMIT STATUS_SYNCHRONIZATION_REQUIRED STATUS_ENTRYPOINT_NOT_FOUND STATUS_INVALID_ADDRESS
        STATUS_UNHANDLED_EXCEPTION STATUS_DRIVER_INTERNAL_ERROR STATUS_INVALID_DEVICE_STATE STATUS_TOO_LATE
        STATUS_MUTANT_LIMIT_EXCEEDED STATUS_POSSIBLE_DEADLOCK STATUS_INVALID_BUFFER_SIZE STATUS_NOT_FOUND STATUS_RETRY
        STATUS_HANDLE_NOT_CLOSABLE STATUS_ADDRESS_NOT_ASSOCIATED STATUS_DRIVER_ENTRYPOINT_NOT_FOUND
        STATUS_RESOURCE_NOT_OWNED STATUS_DRIVER_UNABLE_TO_LOAD STATUS_DEVICE_REMOVED STATUS_MULTIPLE_FAULT_VIOLATION
        STATUS_SYSTEM_SHUTDOWN STATUS_DRIVER_BLOCKED STATUS_STACK_BUFFER_OVERRUN STATUS_ASSERTION_FAILURE
        STATUS_CALLBACK_POP_STACK STATUS_FAIL_FAST_EXCEPTION STATUS_RESOURCE_IN_USE
        STATUS_APC_RETURNED_WHILE_IMPERSONATING STATUS_ALREADY_REGISTERED STATUS_INVALID_THREAD STATUS_WAIT_0
        STATUS_ABANDONED
    }
    // The DDK headers of mingw-w64 lack these, and cannot be included beside those for user mode.
    constants! { rows, Headers::User;
        MUTANT_QUERY_STATE MUTANT_ALL_ACCESS TIMER_QUERY_STATE TIMER_MODIFY_STATE TIMER_ALL_ACCESS
        THREAD_QUERY_INFORMATION PROCESS_TERMINATE PROCESS_QUERY_INFORMATION
    }
    rows
}

/// The C file whose assembly shows the facts that some headers know.
fn c_source(rows: &[Row], headers: Headers) -> String {
    let mut source = String::from("#define NTDDI_VERSION 0x0A000000\n#define _WIN32_WINNT 0x0A00\n#include <stddef.h>\n");
    source += match headers {
        Headers::Kernel => "#include <ntstatus.h>\n#include <ntifs.h>\n",
        Headers::User => "#include <windows.h>\n",
    };
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.headers == headers) {
        writeln!(source, "const unsigned long long ksync_{index} = (unsigned long long)({});", row.c).unwrap();
    }
    source
}

/// The values of the facts that some headers know, by index.
fn compile(rows: &[Row], headers: Headers, include: &Path) -> BTreeMap<usize, u64> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = if headers == Headers::Kernel { "ddk_layout_kernel" } else { "ddk_layout_user" };
    let source = directory.join(name).with_extension("c");
    let assembly = directory.join(name).with_extension("s");
    std::fs::write(&source, c_source(rows, headers)).unwrap();
    let mut command = Command::new(COMPILER);
    command.args(["-S", "-O0", "-w", "-I"]).arg(include).arg("-o").arg(&assembly).arg(&source);
    let output = command.output().unwrap_or_else(|error| panic!("{COMPILER}: {error}"));
    assert!(output.status.success(), "{COMPILER}: {}", String::from_utf8_lossy(&output.stderr));
    values(&std::fs::read_to_string(&assembly).unwrap())
}

/// Takes the values from the assembly: a label, then a `.quad`.
fn values(assembly: &str) -> BTreeMap<usize, u64> {
    let mut label = None;
    let mut values = BTreeMap::new();
    for line in assembly.lines().map(str::trim) {
        if let Some(index) = line.strip_prefix("ksync_").and_then(|rest| rest.strip_suffix(':')) {
            label = index.parse().ok();
        } else if let Some(index) = label {
            // The assembler's way to write eight zero bytes, or a number.
            let value = match line.strip_prefix(".quad") {
                Some(number) => number.trim().parse::<i128>().expect("a number follows .quad"),
                None if matches!(line.split_whitespace().collect::<Vec<_>>()[..], [".space" | ".zero", "8"]) => 0,
                None => continue,
            };
            // CAST: negative numbers are written as such; their bits are wanted.
            values.insert(index, value as u64);
            label = None;
        }
    }
    values
}

/// The directory of the DDK headers among those that the compiler searches; none if the compiler is not installed.
fn ddk_headers() -> Option<PathBuf> {
    let result = Command::new(COMPILER).args(["-xc", "-E", "-v", "-"]).stdin(Stdio::null()).output();
    let output = match result {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{COMPILER}: {error}"),
    };
    let log = String::from_utf8_lossy(&output.stderr);
    let found = log.lines().map(|line| Path::new(line.trim()).join("ddk")).find(|path| path.join("ntifs.h").exists());
    Some(found.unwrap_or_else(|| panic!("{COMPILER} has no DDK headers:\n{log}")))
}

/// Makes the text of the expected file from the headers; none if the compiler is not installed.
fn regenerate(rows: &[Row]) -> Option<String> {
    let headers = ddk_headers()?;
    let mut values = compile(rows, Headers::Kernel, &headers);
    values.extend(compile(rows, Headers::User, &headers));
    let mut text =
        String::from("# What the mingw-w64 DDK headers say on x86-64. Made by tests/ddk_layout.rs with KSYNC_BLESS=1.\n");
    for (index, row) in rows.iter().enumerate() {
        let value = values.get(&index).unwrap_or_else(|| panic!("no value of {}", row.name));
        writeln!(text, "{} = {value:#x}", row.name).unwrap();
    }
    Some(text)
}

fn parse(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.split_once(" = 0x").expect("name = 0xvalue");
            (name, u64::from_str_radix(value, 16).expect("a hexadecimal number"))
        })
        .collect()
}

#[test]
fn types_and_constants_are_those_of_the_headers() {
    let expected = parse(EXPECTED);
    let rows = rows();
    let known: BTreeMap<_, _> = KNOWN.iter().map(|&(name, value, _)| (name, value)).collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let type_name = row.name.split([' ', '.']).next().unwrap();
        if cfg!(target_arch = "aarch64") && X64_ONLY.contains(&type_name) {
            continue;
        }
        let Some(&header) = expected.get(row.name.as_str()) else {
            wrong.push(format!("{}: not in the file", row.name));
            continue;
        };
        match known.get(row.name.as_str()) {
            None if header == row.rust => {}
            Some(&value) if header == value && header != row.rust => {}
            Some(_) => wrong.push(format!("{}: no longer as KNOWN says: header {header:#x}, here {:#x}", row.name, row.rust)),
            None => wrong.push(format!("{}: header {header:#x}, here {:#x}", row.name, row.rust)),
        }
    }
    for name in known.keys() {
        if !rows.iter().any(|row| row.name == *name) {
            wrong.push(format!("{name}: in KNOWN, but nothing compares it"));
        }
    }
    assert_eq!(expected.len(), rows.len(), "rows of the file that nothing compares");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_expected_file_is_current() {
    let flag = |name| std::env::var_os(name).is_some_and(|value| value == "1");
    match regenerate(&rows()) {
        Some(text) if flag("KSYNC_BLESS") => {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ddk_layout.expected.txt");
            std::fs::write(path, text).unwrap();
        }
        Some(text) => assert!(text == EXPECTED, "tests/ddk_layout.expected.txt is stale; run with KSYNC_BLESS=1"),
        None => {
            assert!(!flag("KSYNC_REQUIRE_DDK"), "{COMPILER} is not installed");
            eprintln!("{COMPILER} is not installed: the expected file was not made anew");
        }
    }
}
