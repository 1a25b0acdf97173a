//! Whose turn it is: the points where others may act, and the decisions which context acts next.

use super::context::Context;
use super::kernel::{Executing, Kernel, Stop};
use super::processor::Cpu;
use super::thread::{State, Tid};
use crate::explore::token::Choice;
use crate::schedule::{Actor, Contexts, Decision, Footprint, Progress, nth_set_bit};
use std::ptr::NonNull;

impl Kernel {
    /// True when the clock may move although something else can act.
    #[inline]
    fn clock_may_move(&self) -> bool {
        self.early_left > 0 && !self.timers.is_empty()
    }

    #[inline]
    pub(crate) fn progress(&mut self) -> &mut Progress {
        match self.executing {
            Executing::Thread(tid) => &mut self.threads[tid as usize].progress,
            _ => &mut self.processors[self.cpu as usize].dpc_progress,
        }
    }

    /// True when nobody else can act before the context that runs, or the policy has said that it would choose the same again: that has performed its operation then. What most
    /// points of most policies are.
    #[inline(always)]
    pub(crate) fn goes_on(&mut self, footprint: Footprint) -> bool {
        let alone = self.runnable & !(1 << self.cpu) == 0;
        // What was chosen may first run an APC: then it has not acted yet.
        let repeats = self.repeats.left != 0 && self.cpu == self.acting;
        if !(alone || repeats)
            || !self.plain
            || !self.ready.is_empty()
            || self.steps >= self.config.step_limit
            || footprint.lets_time_pass()
        {
            return false;
        }
        let Executing::Thread(tid) = self.executing else { return false };
        self.steps += 1;
        if !alone {
            self.repeats.left -= 1;
            self.repeats.passed += 1;
        }
        let thread = &mut *self.threads[tid as usize];
        let (number, watches) = (thread.progress.advance(), !thread.watch.is_empty());
        self.performs(footprint, Actor::thread(tid), number, watches);
        true
    }

    /// The context that runs is about to perform a visible operation: others may first have to act.
    #[inline]
    pub(crate) fn scheduling_point(&mut self, footprint: Footprint) -> Point {
        self.steps += 1;
        if !self.plain || !self.ready.is_empty() || self.steps > self.config.step_limit || footprint.lets_time_pass() {
            return self.any_scheduling_point(footprint);
        }
        let bit = 1 << self.cpu;
        let others = self.runnable & !bit;
        if others == 0 {
            self.perform(footprint);
            return Point::Performs;
        }
        let silent = others & !self.announced;
        let cpu = if silent != 0 { silent.trailing_zeros() as Cpu } else { self.decide_plainly(footprint) };
        if cpu == self.cpu {
            self.perform(footprint);
            return Point::Performs;
        }
        self.announced |= bit;
        self.progress().pending = Some(footprint);
        self.hand_over(cpu)
    }

    /// [`decide`](Self::decide), where it is only about who acts. `footprint` is what the context that runs would do.
    #[inline]
    fn decide_plainly(&mut self, footprint: Footprint) -> Cpu {
        let runnable = self.runnable;
        let continues = runnable & (1 << self.acting) != 0 && !self.gives_way();
        let first = if continues { self.acting } else { self.next_after_acting(runnable) };
        let others = runnable & !(1 << first);
        // Most often there is one other.
        let count = 1 + if others & others.wrapping_sub(1) == 0 { u32::from(others != 0) } else { several(others) };
        let choice = if self.looks {
            self.progress().pending = Some(footprint);
            let options = Options { first, continues, others, rotation: None, clock: None };
            self.choose_context(options, count)
        } else if count == 1 {
            0
        } else {
            self.policy.choose(&Decision::of(count))
        };
        check_choice(choice, count);
        if choice == 0 { first } else { nth_set_bit(others, choice - 1) }
    }

    /// The policy's choice of a context.
    #[inline(always)]
    fn choose_context(&mut self, options: Options, count: u32) -> u32 {
        if count == 1 {
            return 0;
        }
        if self.observed {
            self.note_interrupts();
        }
        let Options { first, continues, others, rotation, clock } = options;
        let may_repeat = self.plain && rotation.is_none() && clock.is_none();
        let Self { processors, threads, objects, timers, clock: time, pool, policy, choices, repeats, .. } = self;
        let contexts = Contexts { processors, threads, objects, timers, time, pool, first, continues, others, rotation, clock };
        let decision = Decision { contexts: Some(contexts), passed: repeats.passed, ..Decision::of(count) };
        let choice = policy.choose(&decision);
        check_choice(choice, count);
        if let Some(choices) = choices {
            record_choice(choices, choice, &decision);
        }
        *repeats = Repeats { left: if may_repeat { decision.repeats.get() } else { 0 }, passed: 0 };
        choice
    }

    /// The same in any run.
    #[inline(never)]
    fn any_scheduling_point(&mut self, footprint: Footprint) -> Point {
        if self.steps > self.config.step_limit {
            self.stop = Some(Stop::StepLimit(self.config.step_limit));
            return Point::Waits;
        }
        if self.is_broadcasting() {
            // A part of the operation that the call is.
            return Point::Performs;
        }
        let bit = 1 << self.cpu;
        let others = self.runnable & !bit;
        let rotatable = !self.ready.is_empty() && self.quantum_can_end();
        if others == 0 && !rotatable && !self.clock_may_move() {
            self.perform(footprint);
            return Point::Performs;
        }
        self.progress().pending = Some(footprint);
        self.announced |= bit;
        self.stalls |= footprint.lets_time_pass();
        self.plain &= !self.stalls;
        let silent = others & !self.announced;
        if silent != 0 {
            // Those that have not said what they would do go on until they have.
            return self.hand_over(silent.trailing_zeros() as Cpu);
        }
        if rotatable && self.quantum_has_to_end(footprint) {
            self.end_quantum();
            self.chosen = Some(self.cpu);
            return Point::Waits;
        }
        let rotation = if rotatable { self.after_quantum() } else { None };
        match self.decide(rotation) {
            Next::Acts(cpu) if cpu == self.cpu => {
                self.perform(footprint);
                Point::Performs
            }
            Next::Acts(cpu) => self.hand_over(cpu),
            Next::Rotated | Next::ClockMoves | Next::Nobody => Point::Waits,
        }
    }

    /// The acting context gives way to that of another processor.
    #[inline]
    fn hand_over(&mut self, cpu: Cpu) -> Point {
        match self.let_go_on(cpu) {
            Some(next) => Point::GivesWay(next),
            None => {
                self.chosen = Some(cpu);
                Point::Waits
            }
        }
    }

    /// The running thread has begun to wait: the context that acts next, if it can be resumed as it is.
    pub(crate) fn after_wait_began(&mut self) -> Option<Resumption> {
        let Executing::Thread(tid) = self.executing else { return None };
        if self.stop.is_some() || self.machine_waits() || self.threads[tid as usize].state != State::Waiting {
            return None;
        }
        let cpu = self.pick_processor()?;
        let next = self.let_go_on(cpu);
        if next.is_none() {
            self.chosen = Some(cpu);
        }
        next
    }

    /// True when the machine's loop has contexts to create before anything acts.
    #[inline]
    fn machine_waits(&self) -> bool {
        !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0
    }

    /// Lets the thread of a processor go on, if nothing comes first (see [`is_settled`](Self::is_settled)): what it has announced, if anything, it performs right now. Its
    /// context is to be resumed.
    #[inline]
    pub(crate) fn let_go_on(&mut self, cpu: Cpu) -> Option<Resumption> {
        let processor = &self.processors[cpu as usize];
        let tid = processor.current?;
        if processor.in_dpc || processor.spinning || !processor.dpcs.is_empty() || !self.ready.is_empty() || self.machine_waits()
        {
            return None;
        }
        let thread = &mut *self.threads[tid as usize];
        if thread.watch.waiting || !thread.apc.kernel.is_empty() {
            return None;
        }
        let context = NonNull::from(&mut **thread.context.as_mut()?);
        self.cpu = cpu;
        self.executing = Executing::Thread(tid);
        let going = match thread.progress.pending {
            Some(footprint) => {
                let (number, watches) = (thread.progress.advance(), !thread.watch.is_empty());
                self.performs(footprint, Actor::thread(tid), number, watches);
                Going::Performs
            }
            None => {
                self.attention = false;
                Going::Settled
            }
        };
        Some(Resumption { context, going })
    }

    /// The thread that runs begins.
    pub(crate) fn begin_thread(&mut self) {
        if let Some(footprint) = self.progress().pending {
            self.perform(footprint);
        }
    }

    /// The context that runs has been chosen after it had suspended at a scheduling point. True when it performs its operation now, and
    /// false when it has done something else meanwhile (an APC was delivered) and must announce it again.
    pub(crate) fn resume_point(&mut self, footprint: Footprint) -> bool {
        if self.progress().pending.is_none() {
            return false;
        }
        self.perform(footprint);
        true
    }

    /// True when the context that acted last is not the first to act again: it stalls, or has gone on for so long that it may wait in a loop for another.
    #[inline]
    fn gives_way(&mut self) -> bool {
        if self.in_a_row.0 == self.acting {
            self.in_a_row.1 += 1;
        } else {
            self.in_a_row = (self.acting, 1);
        }
        if self.in_a_row.1 > LONGEST_ROW {
            self.in_a_row.1 = 0;
            return true;
        }
        self.stalls && self.acting_stalls()
    }

    /// True when the context that acted last would do no more than let time pass.
    #[cold]
    fn acting_stalls(&self) -> bool {
        let processor = &self.processors[self.acting as usize];
        let pending = match processor.current {
            Some(tid) if !processor.in_dpc => self.threads[tid as usize].progress.pending,
            _ => processor.dpc_progress.pending,
        };
        pending.is_some_and(Footprint::lets_time_pass)
    }

    /// The next of these processors, cyclically.
    fn next_after_acting(&self, runnable: u64) -> Cpu {
        let behind = runnable & (u64::MAX << self.acting << 1);
        (if behind != 0 { behind } else { runnable }).trailing_zeros() as Cpu
    }

    /// Decides which processor acts next, of those that can. `rotation` is the thread that would get the acting processor if the quantum there
    /// ended here.
    #[inline(always)]
    fn decide(&mut self, rotation: Option<Tid>) -> Next {
        let runnable = self.runnable;
        let clock = self.clock_may_move();
        if runnable == 0 {
            return Next::Nobody;
        }
        let continues = runnable & (1 << self.acting) != 0 && !self.gives_way();
        let first = if continues { self.acting } else { self.next_after_acting(runnable) };
        let others = runnable & !(1 << first);
        if others == 0 && rotation.is_none() && !clock {
            return Next::Acts(first);
        }
        let rotation = rotation.map(|tid| (self.cpu, tid));
        let clock = clock.then_some(self.clock_moves);
        // Most often there is one other.
        let others_count = if others & others.wrapping_sub(1) == 0 { u32::from(others != 0) } else { several(others) };
        let count = 1 + others_count + u32::from(rotation.is_some()) + u32::from(clock.is_some());
        let choice = self.choose_context(Options { first, continues, others, rotation, clock }, count);
        if choice == 0 {
            return Next::Acts(first);
        }
        if choice <= others_count {
            return Next::Acts(nth_set_bit(others, choice - 1));
        }
        if clock.is_some() && choice == count - 1 {
            self.clock_due = true;
            return Next::ClockMoves;
        }
        self.end_quantum();
        self.chosen = rotation.map(|(cpu, _)| cpu);
        Next::Rotated
    }

    /// Which processor acts next, for the machine's loop. `None` when none can.
    #[inline]
    pub(crate) fn pick_processor(&mut self) -> Option<Cpu> {
        if self.clock_due {
            return None;
        }
        if let Some(cpu) = self.chosen.take()
            && self.runnable & (1 << cpu) != 0
        {
            return Some(cpu);
        }
        let silent = self.runnable & !self.announced;
        if silent != 0 {
            return Some(silent.trailing_zeros() as Cpu);
        }
        match self.decide(None) {
            Next::Acts(cpu) => Some(cpu),
            Next::Rotated | Next::ClockMoves | Next::Nobody => None,
        }
    }

    /// True when nothing has come up that the thread which runs has to let happen before it goes on. In doubt it is false.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        let Executing::Thread(tid) = self.executing else { return false };
        self.has_its_turn(tid) || self.is_broadcasting()
    }

    /// The same where no processor is held.
    #[inline(always)]
    fn has_its_turn(&self, tid: Tid) -> bool {
        let processor = &self.processors[self.cpu as usize];
        if processor.current != Some(tid) || processor.spinning || !processor.dpcs.is_empty() || !self.ready.is_empty() {
            return false;
        }
        let thread = &self.threads[tid as usize];
        if thread.watch.waiting || !thread.apc.kernel.is_empty() {
            return false;
        }
        self.stop.is_none() && !self.machine_waits()
    }

    /// False when the thread that runs has lost its processor in the operation that it just performed.
    #[inline]
    pub(crate) fn has_processor(&self) -> bool {
        match self.executing {
            Executing::Thread(tid) => self.processors[self.cpu as usize].current == Some(tid),
            Executing::Dpcs | Executing::Machine => true,
        }
    }

    /// True when the context that just performed an operation may simply go on.
    pub(crate) fn may_continue(&self) -> bool {
        if self.stop.is_some() || !self.wanted_dpc_threads.is_empty() || self.io.work.wanted > 0 {
            return false;
        }
        let processor = &self.processors[self.cpu as usize];
        if processor.spinning || self.watches(self.cpu) {
            return false;
        }
        match self.executing {
            Executing::Thread(tid) => processor.current == Some(tid) && !processor.dpc_deliverable(),
            Executing::Dpcs => true,
            Executing::Machine => true,
        }
    }
}

/// After so many choices in a row, going on is no longer the uneventful option.
const LONGEST_ROW: u32 = 10_000;

/// Choices that the policy is not asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repeats {
    /// How many it would make as the last one, while the contexts that can act stay the same.
    left: u64,
    /// How many it has not been told of.
    passed: u64,
}

impl Repeats {
    /// Other contexts can act than before.
    #[inline]
    pub(super) fn end(&mut self) {
        self.left = 0;
    }
}

/// What can come next.
struct Options {
    first: Cpu,
    continues: bool,
    others: u64,
    rotation: Option<(Cpu, Tid)>,
    clock: Option<u32>,
}

/// How the context that runs goes on from a scheduling point.
pub(crate) enum Point {
    /// It performs its operation now.
    Performs,
    /// It gives control to this context.
    GivesWay(Resumption),
    /// It gives control to the machine's loop.
    Waits,
}

/// A context that is to be resumed, for which its processor is the acting one already.
pub(crate) struct Resumption {
    pub(crate) context: NonNull<Context>,
    pub(crate) going: Going,
}

/// What a context that is resumed has to do first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Going {
    /// It looks at what has come up meanwhile.
    #[default]
    Looks,
    /// Nothing has come up.
    Settled,
    /// Nothing has come up, and it performs what it has announced.
    Performs,
}

/// What was decided.
enum Next {
    /// This processor's context acts next.
    Acts(Cpu),
    /// A quantum ended, and another thread has the processor.
    Rotated,
    /// The clock moves, although something could act.
    ClockMoves,
    /// No processor can act.
    Nobody,
}

/// How many bits are set. Out of the way of the usual case, as it takes a host without an instruction for it some time.
#[inline(never)]
fn several(mask: u64) -> u32 {
    mask.count_ones()
}

/// Checks a choice.
#[inline]
pub(super) fn check_choice(choice: u32, options: u32) {
    if choice >= options {
        invalid_choice(choice, options);
    }
}

#[cold]
fn invalid_choice(choice: u32, options: u32) -> ! {
    panic!("ksim: a policy chose {choice} of {options} options");
}

/// Records a choice.
#[cold]
pub(super) fn record_choice(choices: &mut Vec<Choice>, choice: u32, decision: &Decision<'_>) {
    let actor = decision.candidate(choice).map(|candidate| candidate.actor.index());
    choices.push(match choice {
        0 => Choice { actor, ..Choice::UNEVENTFUL },
        _ => Choice { value: choice, point: decision.point(), preempts: decision.preempts(choice), actor },
    });
}
