//! What NT makes of an access to an address where nothing is: of an image's code and of hosted code alike.

use crate::irql::DISPATCH_LEVEL;
use crate::report::bug_check::{Violation, codes};
use ksync_sys::{NTSTATUS, STATUS_ACCESS_VIOLATION};

/// Bits of a page fault's error code.
const WRITE: u64 = 0x2;
const FETCH: u64 = 0x10;
/// Where the kernel's half of the address space begins.
const SYSTEM_RANGE: u64 = 0xffff_8000_0000_0000;

/// What was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    Execute,
}

impl Access {
    /// Of a page fault's error code.
    pub(crate) fn of(error: u64) -> Self {
        if error & FETCH != 0 {
            Self::Execute
        } else if error & WRITE != 0 {
            Self::Write
        } else {
            Self::Read
        }
    }

    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "wrote",
            Self::Execute => "jumped to",
        }
    }

    /// As NT has it in the parameters of exceptions and bug checks.
    pub(crate) fn operation(self) -> u64 {
        match self {
            Self::Read => 0,
            Self::Write => 1,
            Self::Execute => 8,
        }
    }
}

/// What comes of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An exception with these parameters, which the code may handle.
    Exception { status: NTSTATUS, information: [u64; 2] },
    /// The machine stops.
    BugCheck(Box<Violation>),
}

/// A page fault at an address, by the instruction at `rip`.
pub(crate) fn page_fault(address: u64, access: Access, irql: u8, rip: u64, meaning: &str) -> Answer {
    let operation = access.operation();
    let (code, parameters) = if irql >= DISPATCH_LEVEL {
        (codes::DRIVER_IRQL_NOT_LESS_OR_EQUAL, [address, u64::from(irql), operation, rip])
    } else if address >= SYSTEM_RANGE {
        (codes::PAGE_FAULT_IN_NONPAGED_AREA, [address, operation, rip, 0])
    } else {
        return Answer::Exception { status: STATUS_ACCESS_VIOLATION, information: [operation, address] };
    };
    Answer::BugCheck(Violation::boxed_owned(code, parameters, meaning.to_owned()))
}

/// A bad address that a routine was passed, which the hosted kernel touched on its caller's behalf.
pub(crate) fn bad_argument(address: u64, access: Access, irql: u8, rip: u64, meaning: String) -> Box<Violation> {
    let operation = access.operation();
    if irql >= DISPATCH_LEVEL {
        let parameters = [address, u64::from(irql), operation, rip];
        return Violation::boxed_owned(codes::IRQL_NOT_LESS_OR_EQUAL, parameters, meaning);
    }
    let code = u64::from(STATUS_ACCESS_VIOLATION as u32);
    Violation::boxed_owned(codes::KMODE_EXCEPTION_NOT_HANDLED, [code, rip, operation, address], meaning)
}
