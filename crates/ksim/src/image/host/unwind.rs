//! Unwinding of driver frames by the function table, as 64-bit Windows lays it down.
//!
//! Everything here comes from the image and from the driver's stack, either of which may be damaged: what cannot be read ends the walk.

use super::State;
use super::context::{Context, RSP};
use super::guarded::{self, BadAddress};
use super::mapping::Mapping;
use crate::image::Place;
use crate::image::file::RuntimeFunction;

/// Flags of unwind information, and the types of handler.
pub(super) const EXCEPTION_HANDLER: u32 = 1;
pub(super) const UNWIND_HANDLER: u32 = 2;
const CHAINED: u32 = 4;

/// More frames, and more links of a chain, than code has.
const MOST_FRAMES: usize = 4096;
const MOST_CHAINED: usize = 32;

/// Operations of unwind codes.
mod operation {
    pub(super) const PUSH: u8 = 0;
    pub(super) const ALLOCATE_LARGE: u8 = 1;
    pub(super) const ALLOCATE_SMALL: u8 = 2;
    pub(super) const SET_FRAME: u8 = 3;
    pub(super) const SAVE: u8 = 4;
    pub(super) const SAVE_FAR: u8 = 5;
    pub(super) const EPILOG: u8 = 6;
    pub(super) const SPARE: u8 = 7;
    pub(super) const SAVE_XMM: u8 = 8;
    pub(super) const SAVE_XMM_FAR: u8 = 9;
    pub(super) const MACHINE_FRAME: u8 = 10;
}

/// Why a frame cannot be unwound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// The unwind information is damaged.
    Information,
    /// The stack is.
    Stack,
}

impl From<BadAddress> for Broken {
    fn from(_: BadAddress) -> Self {
        Self::Stack
    }
}

/// What is known of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// The stack pointer, or what the frame pointer says it was, when the function had its frame.
    pub(super) establisher: u64,
    /// The handler that was asked for, and its data, relative to the image.
    pub(super) handler: Option<(u32, u32)>,
    pub(super) function: Option<RuntimeFunction>,
}

/// One block of unwind information.
struct Information {
    flags: u32,
    prolog: u32,
    frame_register: usize,
    frame_offset: u64,
    /// The first code, relative to the image, and how many there are.
    codes: u32,
    count: u32,
}

impl Information {
    fn read(mapping: &Mapping, at: u32) -> Result<Self, Broken> {
        let word = mapping.file.word(at).ok_or(Broken::Information)?;
        let version = word & 7;
        if version != 1 && version != 2 {
            return Err(Broken::Information);
        }
        Ok(Self {
            flags: word >> 3 & 0x1f,
            prolog: word >> 8 & 0xff,
            count: word >> 16 & 0xff,
            frame_register: (word >> 24 & 0xf) as usize,
            frame_offset: u64::from(word >> 28) * 16,
            codes: at + 4,
        })
    }

    /// A 2-byte slot.
    fn slot(&self, mapping: &Mapping, index: u32) -> Result<u16, Broken> {
        if index >= self.count {
            return Err(Broken::Information);
        }
        let bytes = mapping.file.slice(self.codes + index * 2, 2).ok_or(Broken::Information)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// What follows the codes.
    fn tail(&self) -> u32 {
        self.codes + self.count.next_multiple_of(2) * 2
    }
}

/// Unwinds the frame whose registers are in `context` to its caller.
pub(super) fn unwind(mapping: &Mapping, context: &mut Context, wanted: u32) -> Result<Frame, Broken> {
    let rva = mapping.rva(context.rip);
    let Some(function) = mapping.file.function_at(rva) else {
        // A function without an entry changes nothing but the stack pointer by its call.
        let establisher = context.rsp();
        pop_return(context)?;
        return Ok(Frame { establisher, handler: None, function: None });
    };
    let mut information = Information::read(mapping, function.unwind)?;
    let offset = rva - function.start;
    let in_prolog = offset < information.prolog;
    let establisher = establisher(mapping, &information, context, offset)?;
    let wanted_here = information.flags & CHAINED == 0 && information.flags & wanted != 0 && !in_prolog;
    let handler = if wanted_here {
        let at = information.tail();
        let handler = mapping.file.word(at).filter(|&handler| mapping.file.is_code(handler)).ok_or(Broken::Information)?;
        Some((handler, at + 4))
    } else {
        None
    };
    let mut done = in_prolog.then_some(offset);
    for _ in 0..MOST_CHAINED {
        if undo(mapping, &information, context, done)? {
            // A machine frame has all that is left.
            return Ok(Frame { establisher, handler, function: Some(function) });
        }
        if information.flags & CHAINED == 0 {
            pop_return(context)?;
            return Ok(Frame { establisher, handler, function: Some(function) });
        }
        let parent = mapping.file.word(information.tail() + 8).ok_or(Broken::Information)?;
        information = Information::read(mapping, parent)?;
        done = None;
    }
    Err(Broken::Information)
}

fn pop_return(context: &mut Context) -> Result<(), Broken> {
    context.rip = guarded::quad(context.rsp())?;
    context.gpr[RSP] = context.rsp().wrapping_add(8);
    Ok(())
}

fn establisher(mapping: &Mapping, information: &Information, context: &Context, offset: u32) -> Result<u64, Broken> {
    if information.frame_register == 0 {
        return Ok(context.rsp());
    }
    let mut set = offset >= information.prolog || information.flags & CHAINED != 0;
    let mut index = 0;
    while !set && index < information.count {
        let code = information.slot(mapping, index)?;
        let (at, what) = (u32::from(code as u8), (code >> 8) as u8);
        set = what & 0xf == operation::SET_FRAME && at <= offset;
        index += slots(what)?;
    }
    Ok(if set { context.gpr[information.frame_register].wrapping_sub(information.frame_offset) } else { context.rsp() })
}

/// How many slots a code takes.
fn slots(what: u8) -> Result<u32, Broken> {
    use operation::{
        ALLOCATE_LARGE, ALLOCATE_SMALL, EPILOG, MACHINE_FRAME, PUSH, SAVE, SAVE_FAR, SAVE_XMM, SAVE_XMM_FAR, SET_FRAME, SPARE,
    };
    Ok(match what & 0xf {
        PUSH | ALLOCATE_SMALL | SET_FRAME | MACHINE_FRAME | EPILOG => 1,
        ALLOCATE_LARGE if what >> 4 == 0 => 2,
        ALLOCATE_LARGE => 3,
        SAVE | SAVE_XMM => 2,
        SAVE_FAR | SAVE_XMM_FAR | SPARE => 3,
        _ => return Err(Broken::Information),
    })
}

/// Undoes what the prolog did, up to an offset in it. True when a machine frame was the last.
fn undo(mapping: &Mapping, information: &Information, context: &mut Context, done: Option<u32>) -> Result<bool, Broken> {
    let mut index = 0;
    while index < information.count {
        let code = information.slot(mapping, index)?;
        let (at, what) = (u32::from(code as u8), (code >> 8) as u8);
        let size = slots(what)?;
        let register = usize::from(what >> 4);
        let skipped = done.is_some_and(|done| at > done);
        if !skipped {
            let near = |scale: u64| Ok::<u64, Broken>(u64::from(information.slot(mapping, index + 1)?) * scale);
            let far = || {
                let low = u64::from(information.slot(mapping, index + 1)?);
                Ok::<u64, Broken>(low | u64::from(information.slot(mapping, index + 2)?) << 16)
            };
            let frame = if information.frame_register == 0 {
                context.rsp()
            } else {
                context.gpr[information.frame_register].wrapping_sub(information.frame_offset)
            };
            match what & 0xf {
                operation::PUSH => {
                    context.gpr[register] = guarded::quad(context.rsp())?;
                    context.gpr[RSP] = context.rsp().wrapping_add(8);
                }
                operation::ALLOCATE_LARGE => {
                    let bytes = if size == 2 { near(8)? } else { far()? };
                    context.gpr[RSP] = context.rsp().wrapping_add(bytes);
                }
                operation::ALLOCATE_SMALL => context.gpr[RSP] = context.rsp().wrapping_add(register as u64 * 8 + 8),
                operation::SET_FRAME => context.gpr[RSP] = frame,
                operation::SAVE => context.gpr[register] = guarded::quad(frame.wrapping_add(near(8)?))?,
                operation::SAVE_FAR => context.gpr[register] = guarded::quad(frame.wrapping_add(far()?))?,
                operation::SAVE_XMM => context.xmm[register] = guarded::octa(frame.wrapping_add(near(16)?))?,
                operation::SAVE_XMM_FAR => context.xmm[register] = guarded::octa(frame.wrapping_add(far()?))?,
                operation::MACHINE_FRAME => {
                    let at = context.rsp().wrapping_add(if register == 0 { 0 } else { 8 });
                    context.rip = guarded::quad(at)?;
                    context.gpr[RSP] = guarded::quad(at.wrapping_add(24))?;
                    return Ok(true);
                }
                _ => {}
            }
        }
        index += size;
    }
    Ok(false)
}

/// The places of driver code from a set of registers outward, innermost first, up to where the kernel called the driver.
pub(super) fn places(state: &State, context: &Context, after_call: bool) -> Vec<Place> {
    const MOST_PLACES: usize = 64;
    let mut context = *context;
    let mut after_call = after_call;
    let mut places = Vec::new();
    if state.mapping_at(context.rip).is_none() {
        // A jump to nowhere: the caller is the place.
        if pop_return(&mut context).is_err() {
            return places;
        }
        after_call = true;
    }
    while let Some(mapping) = state.mapping_at(context.rip) {
        // The return address of a call that does not return may belong to the next function.
        places.push(mapping.place(context.rip - u64::from(after_call)));
        let before = context.rsp();
        if places.len() == MOST_PLACES || unwind(mapping, &mut context, 0).is_err() || context.rsp() <= before {
            break;
        }
        after_call = true;
    }
    places
}

/// More frames than a walk takes.
pub(super) const fn most_frames() -> usize {
    MOST_FRAMES
}
