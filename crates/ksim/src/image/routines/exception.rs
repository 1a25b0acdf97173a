//! Structured exceptions: raising them, and what compilers need to handle them.

use crate::exports::{ANY, at_most, image_exports};
use crate::image::host::context::{Context, DispatcherContext, ExceptionRecord, RAX};
use crate::image::host::{exception, guarded, raise, raise_bad_address, unwind_frame};
use crate::irql::APC_LEVEL;
use crate::machine::Call;
use ksync_sys::{NTSTATUS, PVOID, SIZE_T, STATUS_ACCESS_VIOLATION, STATUS_DATATYPE_MISALIGNMENT, ULONG, USHORT};
use std::ptr::null_mut;

/// The first address that programs do not have.
const USER_PROBE_ADDRESS: usize = 0x7fff_ffff_0000;
const PAGE: usize = 4096;

/// The registers of the driver at the call that is under way.
pub(super) fn registers(call: Call) -> Context {
    let frame = call.cell.images.frame.get();
    // SAFETY: an adapter calls here, so that a call is under way.
    unsafe { &*frame }.context()
}

/// A user buffer must lie in the programs' half, be aligned, and, to be written, be writable.
fn probe(call: Call, address: PVOID, length: SIZE_T, alignment: ULONG, write: bool) {
    if length == 0 {
        return;
    }
    let start = address as usize;
    if !start.is_multiple_of((alignment as usize).max(1)) {
        raise(exception::Exception::raised(STATUS_DATATYPE_MISALIGNMENT, "a probed buffer is not aligned"));
    }
    let last = start.wrapping_add(length - 1);
    if last < start || last >= USER_PROBE_ADDRESS {
        raise_bad_address(call, guarded::BadAddress { address: USER_PROBE_ADDRESS as u64, write });
    }
    if !write {
        return;
    }
    let mut at = start;
    while at <= last {
        let mut byte = 0_u8;
        // SAFETY: what is read goes to this function's own memory.
        let read = unsafe { guarded::copy(&raw mut byte, at as *const u8, 1) };
        // SAFETY: the byte is written as it was.
        if let Err(bad) = read.and_then(|()| unsafe { guarded::copy(at as *mut u8, &raw const byte, 1) }) {
            raise_bad_address(call, bad);
        }
        at = (at & !(PAGE - 1)) + PAGE;
    }
}

/// A breakpoint that a driver calls: nobody debugs it.
fn breakpoint() -> exception::Exception {
    const STATUS_BREAKPOINT: NTSTATUS = 0x8000_0003_u32 as NTSTATUS;
    let record = ExceptionRecord::new(STATUS_BREAKPOINT, 0, &[]);
    exception::Exception::new(record, exception::not_handled(STATUS_BREAKPOINT, "a breakpoint was called, without a debugger"))
}

image_exports! {
    [ANY] silent fn __C_specific_handler(
        call; Record: *mut ExceptionRecord, EstablisherFrame: u64, ContextRecord: *mut Context,
        Dispatcher: *mut DispatcherContext
    ) -> i32 {
        call.check_pointer(Dispatcher);
        // SAFETY: the search or the unwinding that runs has passed these.
        unsafe { exception::c_specific_handler(call, Record, EstablisherFrame, ContextRecord, Dispatcher) }
    }

    [ANY] silent fn RtlUnwindEx(
        call; TargetFrame: u64, TargetIp: u64, Record: *mut ExceptionRecord, ReturnValue: u64, _OriginalContext: *mut Context,
        _HistoryTable: PVOID
    ) {
        // SAFETY: the driver passes null or a valid record.
        let record = unsafe { Record.as_ref() }.copied();
        // SAFETY: the driver asks to leave these frames, and nothing is left to be done here.
        unsafe { exception::unwind_to(call, TargetFrame, TargetIp, record, ReturnValue, registers(call)) }
    }

    [ANY] silent fn RtlUnwind(call; TargetFrame: u64, TargetIp: u64, Record: *mut ExceptionRecord, ReturnValue: u64) {
        // SAFETY: as above.
        let record = unsafe { Record.as_ref() }.copied();
        // SAFETY: as above.
        unsafe { exception::unwind_to(call, TargetFrame, TargetIp, record, ReturnValue, registers(call)) }
    }

    [ANY] silent fn RtlVirtualUnwind(
        call; HandlerType: ULONG, ImageBase: u64, ControlPc: u64, _FunctionEntry: PVOID, ContextRecord: *mut Context,
        HandlerData: *mut u64, EstablisherFrame: *mut u64, _ContextPointers: PVOID
    ) -> u64 {
        call.check_pointer(ContextRecord);
        // SAFETY: the driver passes a valid context.
        let context = unsafe { &mut *ContextRecord };
        context.rip = ControlPc;
        let (frame, data, handler) = unwind_frame(call, context, HandlerType, ImageBase);
        // SAFETY: the driver passes valid pointers.
        unsafe { EstablisherFrame.write(frame) };
        // SAFETY: as above.
        unsafe { HandlerData.write(data) };
        handler
    }

    [ANY] silent fn RtlLookupFunctionEntry(call; ControlPc: u64, ImageBase: *mut u64, _HistoryTable: PVOID) -> u64 {
        let Some(state) = call.cell.images.state() else { return 0 };
        let Some(mapping) = state.mapping_at(ControlPc) else { return 0 };
        // SAFETY: the driver passes a valid pointer.
        unsafe { ImageBase.write(mapping.base() as u64) };
        let function = mapping.file.function_at(mapping.rva(ControlPc));
        function.map_or(0, |function| mapping.base() as u64 + u64::from(function.entry))
    }

    [ANY] silent fn RtlPcToFileHeader(call; PcValue: u64, BaseOfImage: *mut u64) -> u64 {
        let base = call.cell.images.state().and_then(|state| state.mapping_at(PcValue).map(|mapping| mapping.base() as u64));
        let base = base.unwrap_or(0);
        // SAFETY: the driver passes a valid pointer.
        unsafe { BaseOfImage.write(base) };
        base
    }

    [ANY] silent fn RtlCaptureContext(call; ContextRecord: *mut Context) {
        call.check_pointer(ContextRecord);
        let mut context = registers(call);
        context.gpr[1] = ContextRecord as u64;
        // SAFETY: the driver passes memory for a context.
        unsafe { ContextRecord.write_unaligned(context) };
    }

    [ANY] silent fn RtlRestoreContext(call; ContextRecord: *const Context, _Record: *mut ExceptionRecord) {
        call.check_pointer(ContextRecord);
        // SAFETY: the driver passes a valid context.
        let context = unsafe { ContextRecord.read_unaligned() };
        exception::restore(call, &context)
    }

    [ANY] silent fn RtlCaptureStackBackTrace(
        call; FramesToSkip: ULONG, FramesToCapture: ULONG, BackTrace: *mut u64, BackTraceHash: *mut ULONG
    ) -> USHORT {
        let images = &call.cell.images;
        let places = images.places_from(&registers(call), false);
        let mut hash: ULONG = 0;
        let mut count: USHORT = 0;
        for place in places.iter().skip(FramesToSkip as usize).take((FramesToCapture as usize).min(62)) {
            let address = images.address_of(place);
            hash = hash.wrapping_add(address as ULONG);
            // SAFETY: the driver passes memory for so many addresses.
            unsafe { BackTrace.wrapping_add(usize::from(count)).write(address) };
            count += 1;
        }
        if !BackTraceHash.is_null() {
            // SAFETY: the driver passes null or a valid pointer.
            unsafe { BackTraceHash.write(hash) };
        }
        count
    }

    [ANY] silent fn RtlRaiseException(call; Record: *mut ExceptionRecord) {
        call.check_pointer(Record);
        // SAFETY: the driver passes a valid record.
        let mut record = unsafe { *Record };
        record.address = 0;
        record.record = null_mut();
        let code = record.code as NTSTATUS;
        let meaning = exception::not_handled(code, "RtlRaiseException was called");
        raise(exception::Exception::new(record, meaning))
    }

    [ANY] silent fn DbgBreakPoint(_call) {
        raise(breakpoint());
    }

    [ANY] silent fn DbgBreakPointWithStatus(_call; _Status: ULONG) {
        raise(breakpoint());
    }

    [at_most(APC_LEVEL).rule(0x2_0008)] silent fn RtlRaiseStatus(_call; Status: NTSTATUS) {
        raise(exception::Exception::raised(Status, exception::not_handled(Status, "RtlRaiseStatus was called")))
    }

    [at_most(APC_LEVEL).rule(0x2_0008)] silent fn ExRaiseAccessViolation(_call) {
        let status = STATUS_ACCESS_VIOLATION;
        raise(exception::Exception::raised(status, exception::not_handled(status, "ExRaiseAccessViolation was called")))
    }

    [at_most(APC_LEVEL).rule(0x2_0008)] silent fn ExRaiseDatatypeMisalignment(_call) {
        let status = STATUS_DATATYPE_MISALIGNMENT;
        raise(exception::Exception::raised(status, exception::not_handled(status, "ExRaiseDatatypeMisalignment was called")))
    }

    [at_most(APC_LEVEL)] silent fn ProbeForRead(call; Address: PVOID, Length: SIZE_T, Alignment: ULONG) {
        probe(call, Address, Length, Alignment, false);
    }

    [at_most(APC_LEVEL)] silent fn ProbeForWrite(call; Address: PVOID, Length: SIZE_T, Alignment: ULONG) {
        probe(call, Address, Length, Alignment, true);
    }

    [ANY] silent fn _local_unwind(call; TargetFrame: u64, TargetIp: u64) {
        let mut start = registers(call);
        start.gpr[RAX] = 0;
        // SAFETY: the driver's own frame is the target, and nothing is left to be done here.
        unsafe { exception::unwind_to(call, TargetFrame, TargetIp, None, 0, start) }
    }
}
