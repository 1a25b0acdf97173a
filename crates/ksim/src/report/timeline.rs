//! The timeline: a run as one HTML file to look at, which needs nothing else and asks no network for anything.
//!
//! What it shows is data in the page ([`document`]); how, is in `timeline/`, as the browser reads it.

mod spans;

pub(crate) use spans::{Lane, Owner, Spans, What};

use super::sites::{SiteId, roots};
use super::trace::{Actor, Event, Operation};
use super::{CallSite, End, Outcome};
use crate::irql::irql_name;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TEMPLATE: &str = include_str!("timeline/timeline.html");
const STYLE: &str = include_str!("timeline/timeline.css");
const SCRIPTS: [&str; 4] = [
    include_str!("timeline/model.js"),
    include_str!("timeline/draw.js"),
    include_str!("timeline/panels.js"),
    include_str!("timeline/main.js"),
];

/// How many lines of source are shown before and after the one that a step comes from.
const CONTEXT_LINES: usize = 3;

/// Numbers up to this are exact in JavaScript.
const EXACT: u64 = (1 << 53) - 1;

impl Outcome {
    /// The run as a timeline: one HTML file that needs nothing else. It has a lane for each processor and each thread, coloured by IRQL and state, with waits,
    /// held locks, DPCs and timers; it marks the failure, and a click on a step shows it with its source line.
    ///
    /// It shows what the trace holds: nothing of a run with [`Machine::record_trace`](crate::Machine::record_trace) off, and source lines of one with
    /// [`Machine::record_sites`](crate::Machine::record_sites) on.
    ///
    /// # Example
    /// ```
    /// use ksim::Machine;
    ///
    /// let outcome = Machine::new().processors(2).record_sites(true).run(|| {
    ///     // Driver code.
    /// });
    /// assert!(outcome.timeline().starts_with("<!DOCTYPE html>"));
    /// ```
    #[must_use]
    pub fn timeline(&self) -> String {
        // `<` appears in strings only, and a string that reads `</script>` must not end the element.
        let data = document(self).to_string().replace('<', "\\u003c");
        let mut html = String::with_capacity(data.len() + TEMPLATE.len() + 64 * 1024);
        let mut rest = TEMPLATE;
        for (mark, content) in [("/*STYLE*/", STYLE), ("/*DATA*/", data.as_str()), ("/*SCRIPT*/", &SCRIPTS.concat())] {
            let (before, after) = rest.split_once(mark).expect("the template has all marks, in order");
            html.push_str(before);
            html.push_str(content);
            rest = after;
        }
        html.push_str(rest);
        html
    }

    /// Writes the [timeline](Self::timeline) to a file, so that a test's failure can be looked at in a browser.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Example
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use ksim::Machine;
    ///
    /// let outcome = Machine::new().processors(2).record_sites(true).run(|| { /* driver code */ });
    /// let path = std::env::temp_dir().join(format!("timeline-{}.html", std::process::id()));
    /// outcome.write_timeline(&path)?;
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn write_timeline(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        std::fs::write(path, self.timeline())
    }
}

/// Everything that the page shows.
fn document(outcome: &Outcome) -> Value {
    let spans = Spans::of(outcome.events(), outcome.processors);
    let names = Names::new(&spans);
    let lanes: Vec<_> = spans.lanes.iter().map(|lane| lane_data(lane, &names)).collect();
    let threads: Vec<_> = spans
        .threads
        .iter()
        .map(|thread| json!({ "number": thread.number, "created": thread.created, "ended": thread.ended }))
        .collect();
    let kinds: BTreeMap<_, _> = spans.kinds.iter().map(|(number, kind)| (number.to_string(), *kind)).collect();
    let statistics = outcome.statistics();
    let mut sources = Sources::default();
    let (failure, sites) = (failure(outcome, outcome.end(), &names, &mut sources), sites(outcome, &mut sources));
    json!({
        "version": 1,
        "end": end(outcome),
        "failure": failure,
        "seed": outcome.seed().to_string(),
        "processors": outcome.processors,
        "virtualTime": statistics.virtual_time.as_nanos() as u64 / 100,
        "schedulingPoints": statistics.scheduling_points,
        "levels": (0..=15).map(irql_name).collect::<Vec<_>>(),
        "threads": threads,
        "kinds": kinds,
        "lanes": lanes,
        "events": event_data(outcome),
        "sites": sites,
        "sources": sources.excerpts,
        "output": outcome.debug_output(),
    })
}

/// What lanes and threads are called.
struct Names {
    /// The numbers of the threads, by place.
    numbers: Vec<u32>,
}

impl Names {
    fn new(spans: &Spans) -> Self {
        Self { numbers: spans.threads.iter().map(|thread| thread.number).collect() }
    }

    fn lane(&self, owner: Owner) -> String {
        match owner {
            Owner::Clock => "clock".to_owned(),
            Owner::Processor(cpu) => format!("processor {cpu}"),
            Owner::Thread(thread) => format!("thread #{}", self.numbers.get(thread as usize).copied().unwrap_or(0)),
        }
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.numbers.iter().position(|&known| known == number)
    }
}

fn lane_data(lane: &Lane, names: &Names) -> Value {
    let (kind, id) = match lane.owner {
        Owner::Clock => ("clock", 0),
        Owner::Processor(cpu) => ("processor", u32::from(cpu)),
        Owner::Thread(thread) => ("thread", thread),
    };
    let column = |value: fn(&spans::Span) -> u32| lane.spans.iter().map(value).collect::<Vec<_>>();
    json!({
        "kind": kind,
        "id": id,
        "name": names.lane(lane.owner),
        "rows": lane.rows(),
        "begin": column(|span| span.begin),
        "end": column(|span| span.end),
        "what": column(|span| span.what as u32),
        "irql": column(|span| span.irql.into()),
        "row": column(|span| span.row.into()),
        "object": column(|span| span.object),
    })
}

/// The events, a column for each of their parts. Times are differences.
fn event_data(outcome: &Outcome) -> Value {
    let mut operations: Vec<&'static str> = Vec::new();
    let mut statuses = BTreeMap::new();
    let mut printed = BTreeMap::new();
    let length = outcome.trace_len();
    let mut columns: [Vec<i64>; 7] = std::array::from_fn(|_| Vec::with_capacity(length));
    let mut arguments = Vec::with_capacity(length);
    let mut sites = Vec::with_capacity(length);
    let mut last = 0;
    for (step, event) in outcome.events().enumerate() {
        if let Some(text) = outcome.printed(step) {
            printed.insert(step.to_string(), text);
        }
        let name = event.operation.name();
        let operation = operations.iter().position(|known| *known == name).unwrap_or_else(|| {
            operations.push(name);
            operations.len() - 1
        });
        let actor = match event.actor {
            Actor::Thread(thread) => i64::from(thread),
            Actor::Dpc => -1,
            Actor::Clock => -2,
        };
        let time = event.time as i64 - last;
        last = event.time as i64;
        let values = [
            time,
            event.processor.into(),
            event.irql.into(),
            event.irql_after.into(),
            actor,
            operation as i64,
            event.object.into(),
        ];
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
        if event.operation == Operation::EndWait
            && let Some(name) = ksync_sys::status_name(event.argument as u32 as i32)
        {
            statuses.insert(event.argument.to_string(), name);
        }
        arguments.push(if event.argument <= EXACT { json!(event.argument) } else { json!(event.argument.to_string()) });
        sites.push(event.site.map_or(0, SiteId::number));
    }
    let [time, processor, irql, after, actor, operation, object] = columns;
    json!({
        "operations": operations,
        "statuses": statuses,
        "printed": printed,
        "time": time,
        "processor": processor,
        "irql": irql,
        "after": after,
        "actor": actor,
        "operation": operation,
        "object": object,
        "argument": arguments,
        "site": sites,
    })
}

/// How the run ended, in a word, a headline and the whole report.
fn end(outcome: &Outcome) -> Value {
    let (kind, headline, summary) = words(outcome, outcome.end());
    json!({ "kind": kind, "headline": headline, "summary": summary, "report": outcome.to_string() })
}

fn words(outcome: &Outcome, end: &End) -> (&'static str, String, String) {
    match end {
        End::Completed if outcome.left().is_empty() => ("clean", "Completed".to_owned(), "Nothing was left behind.".to_owned()),
        End::Completed => {
            let left = outcome.left().to_string();
            ("left", "Completed, with something left behind".to_owned(), left.lines().next().unwrap_or_default().to_owned())
        }
        End::BugCheck(stop) => ("failed", format!("STOP {:#x} {}", stop.code, stop.name), stop.meaning.clone()),
        End::Panic(panic) => ("failed", "Driver panic".to_owned(), panic.message.clone()),
        End::Deadlock(_) => ("failed", "Deadlock".to_owned(), "No thread can go on, and nothing is due.".to_owned()),
        End::StepLimit(limit) => {
            ("failed", "Step limit".to_owned(), format!("The limit of {limit} scheduling points was reached."))
        }
        End::Allowed { rule, breach } => {
            let (_, headline, summary) = words(outcome, breach);
            ("allowed", format!("{headline} (rule {} is off)", rule.name), summary)
        }
    }
}

/// Where a failed run failed, or one ended early: it is shown as one step behind the last event.
fn failure(outcome: &Outcome, end: &End, names: &Names, sources: &mut Sources) -> Value {
    let one = |thread: Option<u32>| thread.and_then(|number| names.place(number)).into_iter().collect::<Vec<_>>();
    let (threads, processor, frames) = match end {
        End::Completed => return Value::Null,
        End::Allowed { breach, .. } => return failure(outcome, breach, names, sources),
        End::BugCheck(stop) => (one(stop.thread), Some(stop.processor), sources.frames(&stop.call_sites)),
        End::Panic(panic) => {
            let place = panic.location.as_deref().map(|location| sources.location(location));
            (one(panic.thread), Some(panic.processor), place.into_iter().collect())
        }
        End::Deadlock(graph) => {
            (graph.threads.iter().filter_map(|waiting| names.place(waiting.thread)).collect(), None, Vec::new())
        }
        End::StepLimit(_) => {
            let last = outcome.events().next_back();
            let thread = last.and_then(|event| match event.actor {
                Actor::Thread(thread) => Some(thread as usize),
                _ => None,
            });
            (thread.into_iter().collect(), last.map(|event| event.processor), Vec::new())
        }
    };
    json!({ "threads": threads, "processor": processor, "frames": frames })
}

/// The places that events were made at: by number, all frames.
fn sites(outcome: &Outcome, sources: &mut Sources) -> Value {
    let used: BTreeSet<_> = outcome.events().filter_map(|event: Event| event.site).collect();
    let resolved = used.into_iter().map(|site| (site.number().to_string(), sources.frames(&outcome.call_sites(site))));
    json!(resolved.collect::<BTreeMap<_, _>>())
}

/// The text of a source file. A path that is not absolute is one of the workspace that the program runs in.
fn read_source(file: &str) -> Option<String> {
    let current = std::env::current_dir().ok();
    let above = current.iter().flat_map(|current| current.ancestors());
    let folders = above.chain(roots().iter().map(PathBuf::as_path));
    folders.into_iter().find_map(|folder| std::fs::read_to_string(folder.join(file)).ok())
}

/// The source lines that the page shows, each once.
#[derive(Default)]
struct Sources {
    /// The files' text, none where a file is not on this host.
    files: BTreeMap<String, Option<String>>,
    /// By `file:line`: the number of the first line, and the lines.
    excerpts: BTreeMap<String, Value>,
}

impl Sources {
    fn frames(&mut self, sites: &[CallSite]) -> Vec<Value> {
        sites.iter().map(|site| self.frame(&site.function, site.file.as_deref(), site.line)).collect()
    }

    fn frame(&mut self, function: &str, file: Option<&str>, line: Option<u32>) -> Value {
        if let Some((file, line)) = file.zip(line) {
            self.excerpt(file, line as usize);
        }
        json!({ "function": function, "file": file, "line": line })
    }

    /// The frame of a panic's `file:line:column`.
    fn location(&mut self, location: &str) -> Value {
        let mut parts = location.rsplitn(3, ':');
        let line = parts.nth(1).and_then(|line| line.parse().ok());
        self.frame("panic", parts.next(), line)
    }

    fn excerpt(&mut self, file: &str, line: usize) {
        let key = format!("{file}:{line}");
        if self.excerpts.contains_key(&key) {
            return;
        }
        let text = self.files.entry(file.to_owned()).or_insert_with(|| read_source(file));
        let Some(text) = text else { return };
        let first = line.saturating_sub(CONTEXT_LINES).max(1);
        let lines: Vec<_> = text.lines().skip(first - 1).take(line + CONTEXT_LINES + 1 - first).collect();
        if first + lines.len() > line {
            self.excerpts.insert(key, json!({ "first": first, "lines": lines }));
        }
    }
}
