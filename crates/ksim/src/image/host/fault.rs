//! What a fault of an image means: an instruction to emulate, an exception, or a bug check.

use super::context::{Context, ExceptionRecord, RAX, RCX, RDX};
use super::entry::CallFrame;
use super::exception::{self, Exception, not_handled};
use super::mapping::Gone;
use super::patch::Level;
use super::signal::Fault;
use super::{Activity, State, arena, entry, guarded, shared_data};
use crate::access::{self, Access};
use crate::engine::pool::Toucher;
use crate::irql::DISPATCH_LEVEL;
use crate::machine::{Call, current, panicked_in_image};
use crate::report::bug_check::{Violation, codes};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use ksync_sys::{
    NTSTATUS, STATUS_ACCESS_VIOLATION, STATUS_DATATYPE_MISALIGNMENT, STATUS_ILLEGAL_INSTRUCTION, STATUS_INTEGER_DIVIDE_BY_ZERO,
    STATUS_PRIVILEGED_INSTRUCTION,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

const STATUS_BREAKPOINT: NTSTATUS = 0x8000_0003_u32 as i32;
const STATUS_SINGLE_STEP: NTSTATUS = 0x8000_0004_u32 as i32;
const STATUS_ASSERTION_FAILURE: NTSTATUS = 0xc000_0420_u32 as i32;
const STATUS_FLOAT_MULTIPLE_TRAPS: NTSTATUS = 0xc000_02b5_u32 as i32;

/// The longest instruction.
const LONGEST: u64 = 15;

/// The processor's vectors.
mod vector {
    pub(super) const DIVIDE: u64 = 0;
    pub(super) const DEBUG: u64 = 1;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    /// An address of neither half, by way of the stack pointer or rbp.
    pub(super) const STACK: u64 = 12;
    pub(super) const PROTECTION: u64 = 13;
    pub(super) const PAGE: u64 = 14;
    pub(super) const ALIGNMENT: u64 = 17;
}

/// What comes of a fault.
enum Answer {
    /// Nothing happened: the driver goes on with these registers.
    Resume,
    /// An exception.
    Raise(Exception),
    /// The machine stops.
    Stop(Box<Violation>),
}

/// A fault of an image, on the stack that it happened on. When it returns, the driver goes on with the registers in the record.
pub(super) extern "C" fn on_fault(fault: *mut Fault) {
    // SAFETY: the handler has written it, below everything else on this stack.
    let fault = unsafe { &mut *fault };
    let call = Call { cell: current("an image"), export: None };
    let images = &call.cell.images;
    let activity = images.activity();
    if in_driver(fault) {
        // What the emulation of an instruction lets run is no part of what was under way.
        images.set_activity(Activity::NONE);
    }
    let answer = catch_unwind(AssertUnwindSafe(|| answer(call, fault)));
    images.set_activity(activity);
    match answer {
        Ok(Answer::Resume) => {
            if images.forces_paging.get() {
                super::paging::settle();
            }
        }
        Ok(Answer::Raise(exception)) => {
            // SAFETY: these are the registers of driver code on this stack, and nothing of ours lies between.
            unsafe { exception::dispatch(&fault.context, exception, activity) }
        }
        Ok(Answer::Stop(violation)) => {
            let places = match images.frame.get() {
                _ if (fault.stack_overflow || entry::contains(fault.context.rip)) && !in_driver(fault) => {
                    let call = CallFrame::find(fault.context.rsp());
                    call.map_or_else(Vec::new, |context| images.places_from(&context, true))
                }
                frame if in_driver(fault) || frame.is_null() => images.places_from(&fault.context, false),
                _ => images.places(),
            };
            call.cell.stop_at(*violation, places)
        }
        Err(payload) => match payload.downcast::<entry::Raise>() {
            // SAFETY: as above.
            Ok(raise) => unsafe { exception::dispatch(&fault.context, raise.0, activity) },
            Err(_) => panicked_in_image(),
        },
    }
}

/// True for a jump to where no code is.
pub(super) fn is_jump(vector: u64, error: u64, address: u64, rip: u64) -> bool {
    vector == vector::PAGE && Access::of(error) == Access::Execute && address == rip
}

/// True for a fault in an image's code, or of a jump to where none is.
fn in_driver(fault: &Fault) -> bool {
    let rip = fault.context.rip;
    arena::contains(rip as usize) || is_jump(fault.vector, fault.error, fault.address, rip)
}

fn answer(call: Call, fault: &mut Fault) -> Answer {
    let rip = fault.context.rip;
    if fault.stack_overflow {
        return Answer::Stop(Violation::boxed_owned(
            codes::UNEXPECTED_KERNEL_MODE_TRAP,
            [8, fault.address, rip, 0],
            "a driver ran out of kernel stack, or lost its stack pointer".to_owned(),
        ));
    }
    if entry::contains(rip) && fault.vector == vector::PROTECTION {
        return Answer::Stop(Violation::boxed_owned(
            codes::KMODE_EXCEPTION_NOT_HANDLED,
            [u64::from(STATUS_ACCESS_VIOLATION as u32), rip, 0, u64::MAX],
            "a driver called the kernel with a stack pointer that is not aligned to 16 bytes".to_owned(),
        ));
    }
    if !in_driver(fault) {
        return Answer::Stop(in_kernel(call, fault));
    }
    match fault.vector {
        vector::PROTECTION | vector::STACK => protection(call, fault),
        vector::PAGE => page(call, fault),
        vector::DIVIDE => raise(STATUS_INTEGER_DIVIDE_BY_ZERO, rip, &[], "an integer division by zero, or one that overflowed"),
        vector::INVALID_OPCODE => raise(STATUS_ILLEGAL_INSTRUCTION, rip, &[], "an instruction that the processor does not have"),
        vector::BREAKPOINT => {
            // The exception is reported at the instruction.
            fault.context.rip = rip - 1;
            raise(STATUS_BREAKPOINT, rip - 1, &[], "a breakpoint, without a debugger")
        }
        vector::DEBUG => raise(STATUS_SINGLE_STEP, rip, &[], "a single step, without a debugger"),
        vector::ALIGNMENT => raise(STATUS_DATATYPE_MISALIGNMENT, rip, &[], "an access that is not aligned"),
        _ => raise(STATUS_FLOAT_MULTIPLE_TRAPS, rip, &[], "a floating-point exception"),
    }
}

fn raise(status: NTSTATUS, address: u64, information: &[u64], meaning: impl Into<String>) -> Answer {
    let mut exception = Exception::new(ExceptionRecord::new(status, address, information), "");
    exception.meaning = not_handled(status, &meaning.into());
    Answer::Raise(exception)
}

/// The words for a bad address that a driver has passed to the routine that it called.
pub(super) fn passed(call: Call, address: u64, write: bool) -> String {
    let routine = routine(call);
    let verb = if write { "wrote" } else { "read" };
    let pageable = call.cell.images.state().filter(|state| state.paged_out).and_then(|state| {
        let section = state.mapping_at(address)?.pageable_at(address)?;
        Some(format!(", in the pageable section {}", section.name))
    });
    let pageable = pageable.unwrap_or_default();
    format!("{routine} was passed a bad pointer: it {verb} address {address:#x}{pageable}")
}

/// The same for an address in pool that is not there.
pub(super) fn passed_pool(call: Call, address: u64, access: Access, rip: u64) -> Option<Box<Violation>> {
    let by = format!("{} was passed a bad pointer: it {}", routine(call), access.verb());
    call.read(|kernel| kernel.touched_pool(address, access, rip, Toucher::Kernel, &by))
}

/// The routine that a driver has called.
fn routine(call: Call) -> &'static str {
    let frame = call.cell.images.frame.get();
    // SAFETY: a frame is valid while its call is under way.
    let entry = unsafe { frame.as_ref() }.and_then(CallFrame::entry);
    entry.map_or("a routine", |entry| &entry.name)
}

/// A fault in the hosted kernel, on behalf of a driver that passed a bad pointer.
fn in_kernel(call: Call, fault: &Fault) -> Box<Violation> {
    call.cell.abandon_operation();
    let irql = call.read(|kernel| kernel.irql());
    let access = Access::of(fault.error);
    if let Some(violation) = passed_pool(call, fault.address, access, fault.context.rip) {
        return violation;
    }
    let meaning = passed(call, fault.address, access == Access::Write);
    access::bad_argument(fault.address, access, irql, fault.context.rip, meaning)
}

/// The instruction at an address.
fn instruction(rip: u64) -> Option<Instruction> {
    let mut bytes = [0; LONGEST as usize];
    // An instruction at the end of a section has nothing behind it.
    let length = (1..=LONGEST as usize).rev().find(|&length| {
        // SAFETY: what is written is this function's own.
        unsafe { guarded::copy(bytes.as_mut_ptr(), rip as *const u8, length) }.is_ok()
    })?;
    let mut decoder = Decoder::with_ip(64, &bytes[..length], rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

/// Patches a read or write of CR8. Afterwards what stands there now is executed: what stood behind it may not be there any more.
fn patch(call: Call, instruction: &Instruction, level: Level) -> bool {
    let mut state = call.cell.images.state_mut();
    let mapping = state.as_mut().and_then(|state| state.mappings.iter_mut().find(|mapping| mapping.contains(instruction.ip())));
    mapping.is_some_and(|mapping| mapping.patch_level(instruction, level))
}

/// A general protection fault: a privileged instruction, or an address of neither half.
fn protection(call: Call, fault: &mut Fault) -> Answer {
    let rip = fault.context.rip;
    let Some(instruction) = instruction(rip) else {
        let information = [8, rip];
        return raise(STATUS_ACCESS_VIOLATION, rip, &information, format!("a jump to address {rip:#x}"));
    };
    let general = |register: Register| register.number();
    match (instruction.code(), instruction.mnemonic()) {
        (Code::Mov_r64_cr, _) if instruction.op1_register() == Register::CR8 => {
            let register = general(instruction.op0_register());
            if patch(call, &instruction, Level::Read(register as u8)) {
                return Answer::Resume;
            }
            fault.context.gpr[register] = call.read(|kernel| u64::from(kernel.irql()));
            fault.context.rip = instruction.next_ip();
            Answer::Resume
        }
        (Code::Mov_cr_r64, _) if instruction.op0_register() == Register::CR8 => {
            let register = general(instruction.op1_register());
            if patch(call, &instruction, Level::Write(register as u8)) {
                return Answer::Resume;
            }
            let context = &mut fault.context;
            let frame = CallFrame::of_instruction(&context.gpr, &context.xmm, instruction.next_ip());
            match super::level::set(context.gpr[register], rip, frame) {
                Ok(()) => {
                    context.rip = instruction.next_ip();
                    Answer::Resume
                }
                Err(exception) => Answer::Raise(*exception),
            }
        }
        (_, mnemonic @ (Mnemonic::Rdtsc | Mnemonic::Rdtscp)) => {
            let counter = super::time_stamp::virtual_counter();
            fault.context.gpr[RAX] = counter & 0xffff_ffff;
            fault.context.gpr[RDX] = counter >> 32;
            if mnemonic == Mnemonic::Rdtscp {
                fault.context.gpr[RCX] = call.read(|kernel| u64::from(kernel.cpu));
            }
            fault.context.rip = instruction.next_ip();
            Answer::Resume
        }
        // Nothing interrupts a driver between two of its calls, whatever the flag says.
        (_, Mnemonic::Cli | Mnemonic::Sti) => {
            fault.context.rip = instruction.next_ip();
            Answer::Resume
        }
        (Code::Int_imm8, _) if instruction.immediate8() == 0x29 => {
            let reason = fault.context.gpr[RCX];
            Answer::Stop(Violation::boxed_owned(
                codes::KERNEL_SECURITY_CHECK_FAILURE,
                [reason, 0, 0, 0],
                format!("the driver stopped itself by __fastfail({reason})"),
            ))
        }
        (Code::Int_imm8, _) if instruction.immediate8() == 0x2c => {
            raise(STATUS_ASSERTION_FAILURE, rip, &[], "an assertion failed")
        }
        _ => {
            let (status, information, meaning) = refused_instruction(&instruction, &fault.context);
            raise(status, rip, information, meaning)
        }
    }
}

/// The exception of what the processor does not execute.
fn refused_instruction(instruction: &Instruction, context: &Context) -> (NTSTATUS, &'static [u64], String) {
    if is_privileged(instruction.code(), instruction.mnemonic()) {
        let name = format!("{:?}", instruction.mnemonic()).to_lowercase();
        return (STATUS_PRIVILEGED_INSTRUCTION, &[], format!("this kernel does not emulate the instruction `{name}`"));
    }
    let address = effective_address(instruction, context).unwrap_or(u64::MAX);
    // The processor does not say which it was, and NT reports a read of all ones.
    let meaning = format!("an access to address {address:#x}, which belongs to neither half of the address space");
    (STATUS_ACCESS_VIOLATION, &[0, u64::MAX], meaning)
}

/// The same for hosted code, whose instruction is the next of these registers.
pub(crate) fn refused(context: &Context) -> (NTSTATUS, &'static [u64], String) {
    match instruction(context.rip) {
        Some(instruction) => refused_instruction(&instruction, context),
        None => (STATUS_ACCESS_VIOLATION, &[0, u64::MAX], "a jump to where no instruction is".to_owned()),
    }
}

fn is_privileged(code: Code, mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Hlt, In, Insb, Insd, Insw, Int, Invd, Invlpg, Iretq, Lgdt, Lidt, Lldt, Lmsw, Ltr, Out, Outsb, Outsd, Outsw, Rdmsr, Rdpmc,
        Swapgs, Sysexit, Sysret, Wbinvd, Wrmsr, Xsetbv,
    };
    matches!(code, Code::Mov_r64_cr | Code::Mov_cr_r64 | Code::Mov_r64_dr | Code::Mov_dr_r64)
        || matches!(
            mnemonic,
            Hlt | In
                | Insb
                | Insd
                | Insw
                | Int
                | Invd
                | Invlpg
                | Iretq
                | Lgdt
                | Lidt
                | Lldt
                | Lmsw
                | Ltr
                | Out
                | Outsb
                | Outsd
                | Outsw
                | Rdmsr
                | Rdpmc
                | Swapgs
                | Sysexit
                | Sysret
                | Wbinvd
                | Wrmsr
                | Xsetbv
        )
}

/// The value of a register that an address is made of.
fn value_of(context: &Context, register: Register) -> Option<u64> {
    match register {
        Register::ES | Register::CS | Register::SS | Register::DS => Some(0),
        register if register.is_gpr64() => Some(context.gpr[register.number()]),
        register if register.is_gpr32() => Some(context.gpr[register.number()] & 0xffff_ffff),
        _ => None,
    }
}

/// The address of an instruction's memory operand.
fn effective_address(instruction: &Instruction, context: &Context) -> Option<u64> {
    let operand = (0..instruction.op_count()).find(|&operand| instruction.op_kind(operand) == iced_x86::OpKind::Memory)?;
    instruction.virtual_address(operand, 0, |register, _, _| value_of(context, register))
}

/// A page fault.
fn page(call: Call, fault: &mut Fault) -> Answer {
    let (rip, address) = (fault.context.rip, fault.address);
    let access = Access::of(fault.error);
    if shared_data::contains(address) && access == Access::Read {
        match read_shared_data(call, fault) {
            Some(()) => return Answer::Resume,
            None => {
                let meaning = "this kernel does not emulate the instruction that read KUSER_SHARED_DATA";
                return raise(STATUS_ACCESS_VIOLATION, rip, &[0, address], meaning);
            }
        }
    }
    let irql = call.read(|kernel| kernel.irql());
    let verb = access.verb();
    if let Some(stop) = call.cell.images.state().and_then(|state| gone(&state, fault, irql, verb)) {
        return Answer::Stop(stop);
    }
    if let Some(stop) = call.cell.images.state().and_then(|state| paged_out(&state, fault, irql, verb)) {
        return Answer::Stop(stop);
    }
    let by = describe(call, rip);
    let touched = format!("{by} {verb}");
    if let Some(stop) = call.read(|kernel| kernel.touched_pool(address, access, rip, Toucher::Driver, &touched)) {
        return Answer::Stop(stop);
    }
    let freed = call.read(|kernel| kernel.pool.describe_freed(address as usize));
    let freed = freed.map_or_else(String::new, |freed| format!(", in freed pool: {freed}"));
    let meaning = format!("{by} {verb} address {address:#x}{freed}");
    match access::page_fault(address, access, irql, rip, &meaning) {
        access::Answer::Exception { status, information } => raise(status, rip, &information, meaning),
        access::Answer::BugCheck(stop) => Answer::Stop(stop),
    }
}

/// A touch of what may be paged out.
fn paged_out(state: &State, fault: &Fault, irql: u8, verb: &str) -> Option<Box<Violation>> {
    let (rip, address) = (fault.context.rip, fault.address);
    if !state.paged_out {
        return None;
    }
    let mapping = state.mapping_at(address)?;
    let section = mapping.pageable_at(address)?;
    let what = format!("pageable {} at IRQL {irql}, in section {}", mapping.describe(address), section.name);
    let by = state.mapping_at(rip).map_or_else(|| "the driver".to_owned(), |mapping| mapping.describe(rip));
    let operation = Access::of(fault.error).operation();
    Some(Violation::boxed_owned(
        codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL,
        [address, u64::from(irql), operation, rip],
        format!("{by} {verb} {what}"),
    ))
}

/// A touch of what is not there any more.
fn gone(state: &State, fault: &Fault, irql: u8, verb: &str) -> Option<Box<Violation>> {
    let (rip, address) = (fault.context.rip, fault.address);
    let mapping = state.mapping_at(address)?;
    let place = mapping.describe(address);
    let (code, why) = match mapping.gone(address)? {
        Gone::Unloaded => {
            (codes::DRIVER_UNLOADED_WITHOUT_CANCELLING_PENDING_OPERATIONS, "of a driver that was unloaded".to_owned())
        }
        Gone::Discarded => {
            let section = mapping.file.section_at(mapping.rva(address)).map_or("", |section| &section.name);
            let code =
                if irql >= DISPATCH_LEVEL { codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL } else { codes::PAGE_FAULT_IN_NONPAGED_AREA };
            (code, format!("in section {section}, which was discarded when DriverEntry returned"))
        }
    };
    let parameters = match code {
        codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL => [address, u64::from(irql), 8, rip],
        codes::PAGE_FAULT_IN_NONPAGED_AREA => [address, 8, rip, 0],
        _ => [address, 8, rip, 0],
    };
    Some(Violation::boxed_owned(code, parameters, format!("the driver {verb} {place} {why}")))
}

/// The name of a place in an image.
fn describe(call: Call, rip: u64) -> String {
    let state = call.cell.images.state();
    let place = state.as_ref().and_then(|state| state.mapping_at(rip)).map(|mapping| mapping.describe(rip));
    place.unwrap_or_else(|| "the driver".to_owned())
}

/// Reads of the page that Windows shares with programs: time, version, processor features.
fn read_shared_data(call: Call, fault: &mut Fault) -> Option<()> {
    let instruction = instruction(fault.context.rip)?;
    let address = effective_address(&instruction, &fault.context).filter(|&address| shared_data::contains(address))?;
    // A loop that waits for the time to pass must see it pass.
    let time = {
        // SAFETY: the routine takes nothing.
        unsafe { ksync_sys::KeQueryInterruptTime() }
    };
    let mut state = call.cell.images.state_mut()?;
    call.read(|kernel| state.shared_data.update(kernel, time));
    let place = state.shared_data.place(address);
    let mapping = state.mappings.iter_mut().find(|mapping| mapping.contains(fault.context.rip))?;
    fault.context.rip = mapping.elsewhere(&instruction, place)?;
    Some(())
}
