//! The report for people.

use super::bug_check::{BugCheck, CallSite, RelatedSite};
use super::outcome::{End, Outcome, said_of_allowed};
use super::sites::SiteId;
use super::state::ThreadState;
use super::trace::{Actor, Event, Operation};
use crate::check::rules::Rule;
use crate::irql::irql_name;
use anstyle::{AnsiColor, Style};
use std::fmt;

/// How many frames of a stack are told where it is not the point.
const FRAMES: usize = 3;

/// How many of these may be of one call of `ksync`, or at one place that uses an atomic.
const STEPS_OF_CALL: usize = 2;

/// How many of the threads that have ended it tells of.
const ENDED: usize = 4;

/// How many of its last operations a report tells of each thread.
const LAST_STEPS: usize = 5;

/// What a run came to, at length: what happened, which rule that breaks, who was where, and what everyone did last.
///
/// [`Display`](fmt::Display) gives plain text, or with [`colored`](Self::colored) text for a terminal. [`to_json`](Self::to_json) gives the same for tools.
///
/// # Example
/// ```
/// use ksim::Machine;
/// use ksync_sys::KeLowerIrql;
///
/// // SAFETY: none is needed: the call is wrong, and stops the machine.
/// let outcome = Machine::new().run(|| unsafe { KeLowerIrql(1) });
/// let report = outcome.report().to_string();
/// assert!(report.contains("rule IrqlKeRaiseLower2"), "{report}");
/// assert_eq!(outcome.report().to_json()["bug_check"]["code"], 0xc4);
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "a report does nothing until it is shown"]
pub struct Report<'a> {
    pub(super) outcome: &'a Outcome,
    colored: bool,
    pub(super) replay: Option<&'a str>,
}

impl<'a> Report<'a> {
    pub(super) fn new(outcome: &'a Outcome) -> Self {
        Self { outcome, colored: false, replay: None }
    }

    /// With colours, as a terminal shows them.
    pub fn colored(mut self, colored: bool) -> Self {
        self.colored = colored;
        self
    }

    /// With colours if standard error is a terminal, and `NO_COLOR` is not set.
    pub fn colored_for_terminal(self) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        self.colored(wanted && std::io::IsTerminal::is_terminal(&std::io::stderr()))
    }

    /// With the line that repeats the run.
    pub(crate) fn replay(mut self, line: Option<&'a str>) -> Self {
        self.replay = line;
        self
    }

    fn style(&self, color: AnsiColor) -> Style {
        if self.colored { color.on_default() } else { Style::new() }
    }

    fn heading(&self) -> Style {
        if self.colored { Style::new().bold() } else { Style::new() }
    }

    fn end(&self, f: &mut fmt::Formatter<'_>, end: &End) -> fmt::Result {
        let [red, green, yellow] = [AnsiColor::Red, AnsiColor::Green, AnsiColor::Yellow].map(|color| self.style(color));
        match end {
            End::BugCheck(bug_check) => self.bug_check(f, bug_check),
            End::Completed => writeln!(f, "{green}completed{green:#}"),
            // The threads, with all that is known of them, come below.
            End::Deadlock(graph) => writeln!(f, "{red}{}{red:#}", graph.summary()),
            End::Allowed { rule, breach } => {
                writeln!(f, "{yellow}{}{yellow:#}", said_of_allowed(rule))?;
                self.end(f, breach)
            }
            end => writeln!(f, "{red}{end}{red:#}"),
        }
    }

    fn bug_check(&self, f: &mut fmt::Formatter<'_>, bug_check: &BugCheck) -> fmt::Result {
        let (red, dim) = (self.style(AnsiColor::Red), self.style(AnsiColor::BrightBlack));
        let [p1, p2, p3, p4] = bug_check.parameters;
        writeln!(f, "{red}*** STOP {:#x} {} ({p1:#x}, {p2:#x}, {p3:#x}, {p4:#x}){red:#}", bug_check.code, bug_check.name)?;
        writeln!(f, "    {}", bug_check.meaning)?;
        if let Some(rule) = bug_check.rule() {
            writeln!(f, "    rule {}: {}", rule.name, rule.says)?;
            writeln!(f, "    {dim}{}{dim:#}", rule.page())?;
        }
        write!(f, "    on processor {} at {}", bug_check.processor, irql_name(bug_check.irql))?;
        match bug_check.thread {
            Some(thread) if bug_check.in_dpc => write!(f, ", in a DPC that interrupted thread #{thread}")?,
            Some(thread) => write!(f, ", in thread #{thread}")?,
            None if bug_check.in_dpc => write!(f, ", in a DPC")?,
            None => {}
        }
        if let Some(routine) = bug_check.routine {
            write!(f, ", in {routine}")?;
        }
        writeln!(f)?;
        for (depth, site) in bug_check.call_sites.iter().enumerate() {
            let word = if depth == 0 { "called from" } else { "         by" };
            writeln!(f, "    {word} {}", self.place(site))?;
        }
        for RelatedSite { what, call_sites } in &bug_check.related {
            writeln!(f, "    {what}")?;
            if let Some(site) = call_sites.first() {
                writeln!(f, "        at {}", self.place(site))?;
            }
            for site in call_sites.iter().skip(1).take(FRAMES - 1) {
                writeln!(f, "        by {}", self.place(site))?;
            }
        }
        Ok(())
    }

    fn place(&self, site: &CallSite) -> String {
        let cyan = self.style(AnsiColor::Cyan);
        match (&site.file, site.line) {
            (Some(file), Some(line)) => {
                let library = site.library.as_ref().map(|routine| format!(", in {routine}")).unwrap_or_default();
                format!("{} ({cyan}{file}:{line}{cyan:#}){library}", site.function)
            }
            _ => site.to_string(),
        }
    }

    fn thread(&self, f: &mut fmt::Formatter<'_>, thread: &ThreadState) -> fmt::Result {
        let yellow = self.style(AnsiColor::Yellow);
        write!(f, "  {yellow}thread #{}{yellow:#} (t{}) {}", thread.thread, thread.index, thread.state)?;
        if let Some(processor) = thread.processor {
            write!(f, " on processor {processor}")?;
        }
        write!(f, " at {}", irql_name(thread.irql))?;
        if let Some(reason) = thread.reason {
            write!(f, " in {reason}")?;
        }
        if !thread.waits_for.is_empty() {
            write!(f, ", for {}", thread.waits_for.join(", "))?;
        }
        // Who waits for a thread need not be told that the thread has itself.
        let others = thread.owners.iter().filter(|owner| !thread.waits_for.contains(&format!("thread #{owner}")));
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            let owners: Vec<_> = others.iter().map(|owner| format!("thread #{owner}")).collect();
            write!(f, ", which {} has", owners.join(" and "))?;
        }
        writeln!(f)?;
        for (depth, site) in thread.call_sites.iter().take(FRAMES).enumerate() {
            writeln!(f, "    {} {}", if depth == 0 { "at" } else { "by" }, self.place(site))?;
        }
        for held in &thread.holds {
            writeln!(f, "    holds {}", held.lock)?;
            for (depth, site) in held.acquired_at.iter().take(FRAMES).enumerate() {
                writeln!(f, "        {} {}", if depth == 0 { "acquired at" } else { "         by" }, self.place(site))?;
            }
        }
        self.last_steps(f, Actor::Thread(thread.index))
    }

    /// True for a place that `ksync` came to by itself, such as the start of its threads.
    fn is_of_library(&self, site: SiteId) -> bool {
        self.outcome.call_sites(site).first().is_some_and(|site| site.of_library)
    }

    /// The place in driver code of a step that is one of a call of `ksync`, or an operation on an atomic.
    fn repeated_call(&self, site: SiteId, event: &Event) -> Option<CallSite> {
        self.outcome.call_sites(site).into_iter().next().filter(|site| site.library.is_some() || is_of_atomic(event))
    }

    /// The threads that ended last, the earliest first: by number, and place among the threads.
    fn ended(&self) -> Vec<(u32, u32)> {
        let ends = self.outcome.events().rev().filter_map(|event| match (event.operation, event.actor) {
            (Operation::TerminateThread, Actor::Thread(index)) => Some((event.object, index)),
            _ => None,
        });
        let mut ended: Vec<_> = ends.take(ENDED).collect();
        ended.reverse();
        ended
    }

    fn last_steps(&self, f: &mut fmt::Formatter<'_>, actor: Actor) -> fmt::Result {
        let own = |(_, event): &(usize, Event)| event.actor == actor && is_step(event);
        let by_driver = |(_, event): &(usize, Event)| !event.site.is_some_and(|site| self.is_of_library(site));
        let all = || self.outcome.events().enumerate().rev().filter(own);
        // One call of the library may be many steps, and so may one loop over an atomic: they are not to hide what was done before.
        let (mut call, mut steps_of_call) = (None, 0);
        let few_of_call = |(_, event): &(usize, Event)| {
            let this = event.site.and_then(|site| self.repeated_call(site, event));
            steps_of_call = if this.is_some() && this == call { steps_of_call + 1 } else { 1 };
            call = this;
            steps_of_call <= STEPS_OF_CALL
        };
        let mut steps: Vec<(usize, Event)> = all().filter(by_driver).filter(few_of_call).take(LAST_STEPS).collect();
        if steps.is_empty() {
            steps = all().take(LAST_STEPS).collect();
        }
        if steps.is_empty() {
            return Ok(());
        }
        steps.reverse();
        writeln!(f, "    last steps")?;
        let dim = self.style(AnsiColor::BrightBlack);
        for (step, event) in steps {
            let (seconds, rest) = (event.time / 10_000_000, event.time % 10_000_000);
            write!(f, "      {dim}{seconds}.{rest:07}{dim:#} p{} {}", event.processor, event.operation.name())?;
            if event.object != 0 && !event.operation.name().contains(event.object_kind) {
                write!(f, " {}", event.object_kind)?;
            }
            if event.object != 0 {
                write!(f, " #{}", event.object)?;
            }
            if is_of_atomic(&event) {
                write!(f, " a{}", event.argument)?;
            }
            if let Some(text) = self.outcome.printed(step) {
                write!(f, " \"{text}\"")?;
            }
            let sites = event.site.map(|site| self.outcome.call_sites(site)).unwrap_or_default();
            let places: Vec<_> =
                sites.iter().take(2).filter_map(|site| Some(format!("{}:{}", site.file.as_ref()?, site.line?))).collect();
            if !places.is_empty() {
                write!(f, " {dim}({}){dim:#}", places.join(" by "))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn is_of_atomic(event: &Event) -> bool {
    matches!(event.operation, Operation::ReadAtomic | Operation::WriteAtomic)
}

/// False for what the dispatcher does to a thread, and for its end, of which the report tells by itself.
fn is_step(event: &Event) -> bool {
    !matches!(event.operation, Operation::DispatchThread | Operation::LeaveThread | Operation::TerminateThread)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bold, red) = (self.heading(), self.style(AnsiColor::Red));
        self.end(f, &self.outcome.end)?;
        let threads = self.outcome.threads();
        if !threads.is_empty() {
            writeln!(f, "{bold}threads{bold:#}")?;
            for thread in &threads {
                self.thread(f, thread)?;
            }
            let yellow = self.style(AnsiColor::Yellow);
            for (number, index) in self.ended() {
                writeln!(f, "  {yellow}thread #{number}{yellow:#} (t{index}) ended")?;
                self.last_steps(f, Actor::Thread(index))?;
            }
            writeln!(f, "{bold}processors{bold:#}")?;
            for processor in self.outcome.processors() {
                write!(f, "  {} at {}: ", processor.processor, irql_name(processor.irql))?;
                match processor.thread {
                    Some(thread) => write!(f, "thread #{thread}")?,
                    None => write!(f, "idle")?,
                }
                if processor.in_dpc {
                    write!(f, ", in a DPC")?;
                }
                if processor.spinning {
                    write!(f, ", turning on a spin lock")?;
                }
                writeln!(f)?;
            }
        }
        if !self.outcome.left.is_empty() && self.outcome.is_completed() {
            writeln!(f, "{red}{}{red:#}", self.outcome.left)?;
        }
        match self.replay {
            Some(line) => write!(f, "{bold}to repeat it{bold:#}: {line}"),
            None => write!(f, "seed {}", self.outcome.seed),
        }
    }
}

impl BugCheck {
    /// The rule that it is a breach of, if it is one of [those that are published](crate::rules). One that the driver asked for is none, whatever its code.
    #[must_use]
    pub fn rule(&self) -> Option<&'static Rule> {
        if self.routine.is_some_and(|routine| ["KeBugCheck", "KeBugCheckEx"].contains(&routine)) {
            return None;
        }
        Rule::of(self.code, &self.parameters)
    }
}
