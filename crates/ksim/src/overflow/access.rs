//! Hosted code that touches an address where nothing is.

use super::catch::{REGISTERS, RSP, Stopped, export_around, give_up, go_on_stopped, register};
use crate::access::{self, Access, Answer};
use crate::engine::context::running_stack;
use crate::engine::pool::{Toucher, special};
use crate::image::{Registers, not_handled, refused};
use crate::machine::{Call, MachineCell, current, machine_of_this_thread};
use crate::report::bug_check::{Violation, codes};

/// The vectors of a stack segment fault, of a general protection fault, and of a page fault. The first two are of addresses that belong to neither half of the
/// address space, or of instructions that are the host's alone.
const STACK: u64 = 12;
const PROTECTION: u64 = 13;
const PAGE: u64 = 14;

/// What such code has done, for a message.
pub(super) const TOUCHED: &str = "touched an address where nothing is";

/// What the processor says of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    vector: u64,
    error: u64,
    address: u64,
    /// The instruction that did it. Behind a jump to nowhere that is not where the stack is walked from.
    instruction: u64,
}

impl Touch {
    fn access(&self) -> Access {
        Access::of(self.error)
    }
}

/// The handler: a fault of neither an image nor a stack that is used up. True if hosted code did it, and the machine is about to stop for it.
pub(crate) fn faulted(context: &mut libc::ucontext_t, vector: u64, error: u64, address: u64) -> bool {
    let (Some(stack), Some(cell)) = (running_stack(), machine_of_this_thread()) else { return false };
    if !matches!(vector, STACK | PROTECTION | PAGE) {
        return false;
    }
    let mut registers = REGISTERS.map(|number| *register(context, number) as u64);
    let mut instruction = *register(context, libc::REG_RIP) as u64;
    let touch = Touch { vector, error, address, instruction };
    if (Call { cell, export: None }).is_dying() {
        // What a drop does wrong after a panic is not what ended the run.
        if vector == PAGE
            && touch.access() != Access::Execute
            && cell.has_pool_at(address as usize)
            && special::open(address as usize)
        {
            return true;
        }
        give_up(TOUCHED, instruction, "where it cannot be stopped");
    }
    // Also where the code that stops the machine touches something itself, which runs on another stack.
    if !stack.contains(&(registers[RSP] as usize)) {
        give_up(TOUCHED, instruction, "with its stack pointer elsewhere");
    }
    if vector == PAGE && touch.access() == Access::Execute && address == instruction {
        // The last thing that the caller did was to push where it wants to go on.
        // SAFETY: the address lies in the stack that runs, which is there above its margin.
        instruction = unsafe { (registers[RSP] as *const u64).read_unaligned() }.wrapping_sub(1);
        registers[RSP] += 8;
    }
    go_on_stopped(context, Stopped { registers, instruction, touch: Some(touch) });
    true
}

/// On the emergency stack, as an ordinary function: the machine stops.
pub(super) fn stop(stopped: &Stopped, touch: &Touch) -> ! {
    let cell = current("hosted code");
    let in_kernel = !cell.may_stop();
    cell.abandon_operation();
    let violation = violation(cell, stopped, touch, in_kernel);
    cell.stop_interrupted(*violation, None, stopped.instruction as usize)
}

fn violation(cell: &'static MachineCell, stopped: &Stopped, touch: &Touch, in_kernel: bool) -> Box<Violation> {
    let rip = touch.instruction;
    if touch.vector != PAGE {
        let (status, information, meaning) = refused(&registers(stopped));
        let parameter = |index: usize| information.get(index).copied().unwrap_or(0);
        return exception(status, rip, [parameter(0), parameter(1)], &format!("hosted code: {meaning}"));
    }
    let (address, access) = (touch.address, touch.access());
    let call = Call { cell, export: None };
    let irql = call.read(|kernel| kernel.irql());
    let verb = access.verb();
    let routine = export_around(stopped.instruction).or(in_kernel.then_some("the kernel"));
    let (toucher, by) = match routine {
        Some(routine) => (Toucher::Kernel, format!("{routine} was passed a bad pointer: it {verb}")),
        None => (Toucher::Driver, format!("hosted code {verb}")),
    };
    if let Some(violation) = call.read(|kernel| kernel.touched_pool(address, access, rip, toucher, &by)) {
        return violation;
    }
    let freed = call.read(|kernel| kernel.pool.describe_freed(address as usize));
    let freed = freed.map_or_else(String::new, |freed| format!(", in freed pool: {freed}"));
    let meaning = format!("{by} address {address:#x}{freed}");
    if routine.is_some() {
        return access::bad_argument(address, access, irql, rip, meaning);
    }
    match access::page_fault(address, access, irql, rip, &meaning) {
        Answer::Exception { status, information } => exception(status, rip, information, &meaning),
        Answer::BugCheck(violation) => violation,
    }
}

/// What becomes of an exception in hosted code, which has no handlers.
fn exception(status: i32, rip: u64, [first, second]: [u64; 2], meaning: &str) -> Box<Violation> {
    let parameters = [u64::from(status as u32), rip, first, second];
    Violation::boxed_owned(codes::KMODE_EXCEPTION_NOT_HANDLED, parameters, not_handled(status, meaning))
}

/// The registers in the order of their numbers.
fn registers(stopped: &Stopped) -> Registers {
    // Debug information has rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp, and then r8 and those behind it.
    const ORDER: [usize; 8] = [0, 2, 1, 3, 7, 6, 4, 5];
    let mut registers = Registers::new();
    registers.gpr = stopped.registers;
    for (register, place) in registers.gpr.iter_mut().zip(ORDER) {
        *register = stopped.registers[place];
    }
    registers.rip = stopped.instruction;
    registers
}
