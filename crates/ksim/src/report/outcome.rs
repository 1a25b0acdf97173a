//! The outcome of a run.

use super::bug_check::{BugCheck, CallSite};
use super::sites::{SiteId, Sites};
use super::state::{ProcessorState, Snapshot, ThreadState};
use super::text::Report;
use super::trace::{Event, Trace};
use super::wait_graph::WaitGraph;
use crate::check::rules::{Rule, RuleId, RuleSet};
use crate::explore::tell;
use std::fmt;
use std::time::Duration;

/// A Rust panic in hosted driver code. A driver is built with `panic = "abort"`, so that on Windows it is a bug check.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct DriverPanic {
    /// The panic's message.
    pub message: String,
    /// `file:line:column`.
    pub location: Option<String>,
    /// The number of the thread, or of the thread that the panicking DPC interrupted.
    pub thread: Option<u32>,
    /// The processor.
    pub processor: u8,
    /// A DPC routine ran.
    pub in_dpc: bool,
}

impl fmt::Display for DriverPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver panic: {}", self.message)?;
        if let Some(location) = &self.location {
            write!(f, "\n    at {location}")?;
        }
        write!(f, "\n    on processor {}", self.processor)?;
        match self.thread {
            Some(thread) if self.in_dpc => write!(f, ", in a DPC that interrupted thread #{thread}"),
            Some(thread) => write!(f, ", in thread #{thread}"),
            None => write!(f, ", in a DPC"),
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum End {
    /// All threads have ended and all DPCs have run.
    Completed,
    /// A rule was broken, or the driver asked for it.
    BugCheck(BugCheck),
    /// Hosted code panicked.
    Panic(DriverPanic),
    /// Threads are left that nothing can ever wake.
    Deadlock(WaitGraph),
    /// So many scheduling points were passed, which is the limit.
    StepLimit(u64),
    /// A rule was broken that is [off](crate::Machine::check_rule), and the kernel cannot go on from there: the run ended early. That is no failure, and says nothing of what
    /// would have come behind.
    #[non_exhaustive]
    Allowed {
        /// The rule.
        rule: &'static Rule,
        /// How the run would have ended where the rule is on.
        breach: Box<End>,
    },
}

impl End {
    /// The rule that a run broke which ended so, if it is one of [those that are published](crate::rules). What is left behind is not looked at, nor whether the rule is on.
    #[must_use]
    pub fn rule(&self) -> Option<&'static Rule> {
        match self {
            Self::BugCheck(bug_check) => bug_check.rule(),
            Self::Deadlock(_) => Some(Rule::with(RuleId::Deadlock)),
            Self::Allowed { rule, .. } => Some(rule),
            Self::Completed | Self::Panic(_) | Self::StepLimit(_) => None,
        }
    }

    /// The end of a run that only these rules count in.
    pub(crate) fn under(self, rules: RuleSet) -> Self {
        match self.rule() {
            Some(rule) if !rules.has(rule.id) => Self::Allowed { rule, breach: Box::new(self) },
            _ => self,
        }
    }
}

/// What is said of a run that ended early at a breach of a rule that is off.
pub(super) fn said_of_allowed(rule: &Rule) -> String {
    format!("ended early, at a breach of rule {}, which is off: what comes behind it was not run", rule.name)
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => write!(f, "completed"),
            Self::BugCheck(bug_check) => bug_check.fmt(f),
            Self::Panic(panic) => panic.fmt(f),
            Self::Deadlock(graph) => graph.fmt(f),
            Self::Allowed { rule, breach } => write!(f, "{}\n{breach}", said_of_allowed(rule)),
            Self::StepLimit(limit) => write!(f, "the limit of {limit} scheduling points was reached: a loop that never waits?"),
        }
    }
}

/// Pool that was never freed.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PoolLeft {
    /// The tag's four characters.
    pub tag: String,
    /// Bytes asked for.
    pub size: usize,
    /// Its place among all allocations of the run, from 1: what `Machine::fail_allocation` takes.
    pub order: u64,
    /// Where it was allocated, innermost first; empty where that was not recorded ([`Machine::record_sites`](crate::Machine::record_sites)).
    pub allocated_at: Vec<CallSite>,
}

/// A system object whose handles were not all closed, or references not all dropped.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ObjectLeft {
    /// What it is: an event, a thread and so on.
    pub kind: &'static str,
    /// Its number in reports and traces.
    pub number: u32,
    /// Its name, while it has one: an object loses its name with its last handle.
    pub name: Option<String>,
    /// Handles that were not closed.
    pub handles: usize,
    /// References beside those of handles that were not dropped.
    pub references: usize,
}

impl fmt::Display for ObjectLeft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [(self.handles, "handle"), (self.references, "reference")];
        for (index, (count, what)) in counts.into_iter().filter(|(count, _)| *count > 0).enumerate() {
            let and = if index > 0 { " and " } else { "" };
            match count {
                1 => write!(f, "{and}a {what}")?,
                _ => write!(f, "{and}{count} {what}s")?,
            }
        }
        write!(f, " to {} #{}", self.kind, self.number)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

/// A rundown reference or a remove lock that was not released as often as it was acquired.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UsesLeft {
    /// What it is.
    pub kind: &'static str,
    /// Its number in reports and traces.
    pub number: u32,
    /// How many releases are missing.
    pub uses: u64,
}

/// What a run left behind, as far as the [rules](crate::rules) about that are on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Left {
    /// Pool, in order of allocation.
    pub pool: Vec<PoolLeft>,
    /// Timers that are still armed, by number.
    pub timers: Vec<u32>,
    /// System objects that handles or references were left to, by number.
    pub objects: Vec<ObjectLeft>,
    /// Handles that were not closed.
    pub handles: usize,
    /// References to system objects that were not dropped.
    pub references: usize,
    /// Requests for a shorter clock tick that were not taken back.
    pub tick_requests: usize,
    /// Rundown references and remove locks that were not released, by number.
    pub uses: Vec<UsesLeft>,
}

impl Left {
    /// True when nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { pool, timers, handles, references, tick_requests, uses, .. } = self;
        pool.is_empty()
            && timers.is_empty()
            && uses.is_empty()
            && [handles, references, tick_requests].iter().all(|left| **left == 0)
    }

    /// Bytes of pool.
    #[must_use]
    pub fn pool_bytes(&self) -> usize {
        self.pool.iter().map(|block| block.size).sum()
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "left behind: {} bytes of pool, {} armed timers, {} handles, {} references",
            self.pool_bytes(),
            self.timers.len(),
            self.handles,
            self.references
        )?;
        if self.tick_requests > 0 {
            write!(f, ", {} requests for a shorter clock tick", self.tick_requests)?;
        }
        for block in &self.pool {
            write!(f, "\n    pool '{}': {} bytes (allocation {})", block.tag, block.size, block.order)?;
            if let Some(site) = block.allocated_at.first() {
                write!(f, ", allocated at {site}")?;
            }
        }
        for timer in &self.timers {
            write!(f, "\n    timer #{timer} is armed")?;
        }
        for object in &self.objects {
            write!(f, "\n    {object}")?;
        }
        for UsesLeft { kind, number, uses } in &self.uses {
            write!(f, "\n    {kind} #{number} is acquired, {uses} times")?;
        }
        Ok(())
    }
}

/// Figures of a run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Statistics {
    /// Virtual time that passed.
    pub virtual_time: Duration,
    /// Times that a processor got another thread.
    pub switches: u64,
    /// Scheduling points.
    pub scheduling_points: u64,
    /// DPC routines run.
    pub dpcs: u64,
    /// Pool allocations asked for.
    pub allocations: u64,
    /// Threads created, the first included.
    pub threads: u64,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub(crate) end: End,
    pub(crate) left: Left,
    pub(crate) statistics: Statistics,
    pub(crate) debug_output: Vec<String>,
    pub(crate) trace: Trace,
    pub(crate) sites: Sites,
    pub(crate) state: Snapshot,
    pub(crate) fault: bool,
    pub(crate) seed: u64,
    pub(crate) processors: u8,
}

impl Outcome {
    /// How the run ended.
    #[must_use]
    pub fn end(&self) -> &End {
        &self.end
    }

    /// What it left behind, as far as the rules about that are on (PoolLeft and those after it). Only a completed run is expected to clean up.
    #[must_use]
    pub fn left(&self) -> &Left {
        &self.left
    }

    /// Its figures.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The lines that `DbgPrint` and `DbgPrintEx` printed.
    #[must_use]
    pub fn debug_output(&self) -> &[String] {
        &self.debug_output
    }

    /// Every visible operation, one a line. The same driver, configuration and seed give the same bytes on every host.
    #[must_use]
    pub fn trace(&self) -> Vec<u8> {
        self.trace.render()
    }

    /// Every visible operation, in order, as values.
    ///
    /// # Example
    /// ```
    /// use ksim::{Machine, trace::Operation};
    /// use ksync_sys::{KEVENT, KeInitializeEvent, KeSetEvent, NotificationEvent};
    ///
    /// let outcome = Machine::new().record_sites(true).run(|| {
    ///     let mut event = std::mem::MaybeUninit::<KEVENT>::uninit();
    ///     // SAFETY: the event is initialised and does not move.
    ///     unsafe { KeInitializeEvent(event.as_mut_ptr(), NotificationEvent, 0) };
    ///     // SAFETY: as above.
    ///     unsafe { KeSetEvent(event.as_mut_ptr(), 0, 0) };
    /// });
    /// let set = outcome.events().find(|event| event.operation == Operation::SetEvent).expect("it was set");
    /// assert_eq!((set.object_kind, set.irql, set.processor), ("event", 0, 0));
    /// assert!(!outcome.call_sites(set.site.expect("sites were recorded")).is_empty());
    /// ```
    pub fn events(&self) -> impl DoubleEndedIterator<Item = Event> + ExactSizeIterator {
        self.trace.events()
    }

    /// What the driver printed in the event with this place among the [`events`](Self::events), if that is what it did there.
    #[must_use]
    pub fn printed(&self, event: usize) -> Option<&str> {
        self.trace.printed(event)
    }

    /// The driver code at a site of this run, innermost first.
    #[must_use]
    pub fn call_sites(&self, site: SiteId) -> Vec<CallSite> {
        self.sites.resolve(site)
    }

    /// The threads that were alive when the run stopped, in order of creation; none if it completed or its trace was not recorded.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadState> {
        self.state.threads(&self.sites)
    }

    /// The processors when the run stopped; none if it completed or its trace was not recorded.
    #[must_use]
    pub fn processors(&self) -> &[ProcessorState] {
        &self.state.processors
    }

    /// True when the run came to the fault that was asked for.
    #[must_use]
    pub fn has_fault(&self) -> bool {
        self.fault
    }

    /// The report at length: for people, and for tools.
    pub fn report(&self) -> Report<'_> {
        Report::new(self)
    }

    /// How many operations the trace holds.
    #[must_use]
    pub fn trace_len(&self) -> usize {
        self.trace.len()
    }

    /// The seed that the run was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// True when all threads ended by themselves.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self.end, End::Completed)
    }

    /// The bug check, if the run ended in one.
    #[must_use]
    pub fn bug_check(&self) -> Option<&BugCheck> {
        match &self.end {
            End::BugCheck(bug_check) => Some(bug_check),
            _ => None,
        }
    }

    /// The panic, if the run ended in one.
    #[must_use]
    pub fn panic(&self) -> Option<&DriverPanic> {
        match &self.end {
            End::Panic(panic) => Some(panic),
            _ => None,
        }
    }

    /// The wait graph, if the run ended in a deadlock.
    #[must_use]
    pub fn deadlock(&self) -> Option<&WaitGraph> {
        match &self.end {
            End::Deadlock(graph) => Some(graph),
            _ => None,
        }
    }

    /// The rule that is off and whose breach ended the run early, if one did: what would have come behind was not run. [`end`](Self::end) has the breach.
    #[must_use]
    pub fn allowed(&self) -> Option<&'static Rule> {
        match self.end {
            End::Allowed { rule, .. } => Some(rule),
            _ => None,
        }
    }

    /// True for what a search reports: the run ended in a bug check, a panic, a deadlock or at the limit on steps, or it completed and left something behind. One that ended early at a breach of a rule that is
    /// [off](Self::allowed) is no failure, whatever it left.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self.end {
            End::Completed => !self.left.is_empty(),
            End::Allowed { .. } => false,
            _ => true,
        }
    }

    /// Passes a clean run on: completed, with nothing left behind. So is one that ended early at a breach of a rule that is [off](Self::allowed), as whoever turns a rule off wants no test to fail for it; but standard error
    /// says so, since nothing behind the breach was run. [`expect_completed`](Self::expect_completed) is for a test that must come to its end.
    ///
    /// # Panics
    /// If it is anything else, with the whole report.
    #[track_caller]
    pub fn expect_clean(self) -> Self {
        assert!(!self.is_failure(), "{}", self.report().colored_for_terminal());
        if let Some(rule) = self.allowed() {
            tell(&format!("a run {}", said_of_allowed(rule)));
        }
        self
    }

    /// Passes a completed run on, whatever it left behind. One that ended early has not completed.
    ///
    /// # Panics
    /// If it is anything else, with the whole report.
    #[track_caller]
    pub fn expect_completed(self) -> Self {
        assert!(self.is_completed(), "{}", self.report().colored_for_terminal());
        self
    }

    /// The bug check that the run ended in.
    ///
    /// # Panics
    /// If it ended otherwise, or with another code, with the whole report.
    #[track_caller]
    pub fn expect_bug_check(self, code: u32) -> BugCheck {
        match &self.end {
            End::BugCheck(bug_check) if bug_check.code == code => bug_check.clone(),
            _ => panic!("expected bug check {code:#x}, but: {}", self.report().colored_for_terminal()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (seed {})", self.end, self.seed)?;
        if !self.left.is_empty() && self.allowed().is_none() {
            write!(f, "\n{}", self.left)?;
        }
        Ok(())
    }
}
