//! The trace-event file: a run in the format that Perfetto and Chrome's tracing read.
//!
//! The format is [Trace Event Format](https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU), as JSON objects. Its times are microseconds, and its spans
//! must have a length to be seen, while virtual time stands still when code runs: so each step takes a nanosecond of its own, in addition to the virtual time that passes.

use super::timeline::{Owner, Spans, What};
use super::trace::{Actor, Event};
use super::{End, Outcome};
use crate::irql::irql_name;
use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

/// The processes of the file: what its tracks are grouped by.
const PROCESSORS: u32 = 1;
const THREADS: u32 = 2;
const CLOCK: u32 = 3;

/// How much a step adds to the time, in microseconds.
const STEP: f64 = 0.001;

impl Outcome {
    /// The run as a trace-event file, which <https://ui.perfetto.dev> and `chrome://tracing` open: JSON, with a track for each processor and each thread. A step takes a
    /// nanosecond there, in addition to the virtual time that passes.
    ///
    /// It holds what the trace holds: nothing of a run with [`Machine::record_trace`](crate::Machine::record_trace) off, and source lines of one with
    /// [`Machine::record_sites`](crate::Machine::record_sites) on.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Example
    /// ```
    /// # fn main() -> std::io::Result<()> {
    /// use ksim::Machine;
    ///
    /// let outcome = Machine::new().processors(2).run(|| { /* driver code */ });
    /// let path = std::env::temp_dir().join(format!("trace-{}.json", std::process::id()));
    /// outcome.write_trace_events(&path)?;
    /// # std::fs::remove_file(path)
    /// # }
    /// ```
    pub fn write_trace_events(&self, path: impl AsRef<Path>) -> std::io::Result<()> {
        let mut file = BufWriter::new(std::fs::File::create(path)?);
        write_events(self, &mut file)?;
        file.flush()
    }
}

/// The times of the steps of a run, in microseconds.
struct Clock(Vec<f64>);

impl Clock {
    fn new(outcome: &Outcome) -> Self {
        let mut times: Vec<_> = outcome.events().zip(0_u32..).map(|(event, step)| at(event.time, step)).collect();
        let end = outcome.statistics().virtual_time.as_nanos() as u64 / 100;
        let last = outcome.events().next_back().map_or(0, |event| event.time);
        times.push(at(end.max(last), times.len() as u32));
        times.push(at(end.max(last), times.len() as u32));
        Self(times)
    }

    fn of(&self, step: u32) -> f64 {
        self.0[(step as usize).min(self.0.len() - 1)]
    }
}

/// A time in 100 ns units, and a step, in microseconds.
fn at(time: u64, step: u32) -> f64 {
    // Whole nanoseconds, so that the text is short.
    (time * 100 + u64::from(step)) as f64 * STEP
}

/// The track of an owner: process and thread of the file. Thread 0 has a meaning of its own there.
fn track(owner: Owner) -> (u32, u32) {
    match owner {
        Owner::Processor(cpu) => (PROCESSORS, u32::from(cpu) + 1),
        Owner::Thread(thread) => (THREADS, thread + 1),
        Owner::Clock => (CLOCK, 1),
    }
}

/// Writes the file, event by event.
fn write_events(outcome: &Outcome, out: &mut impl Write) -> std::io::Result<()> {
    let spans = Spans::of(outcome.events(), outcome.processors);
    let clock = Clock::new(outcome);
    let number = |thread: u32| spans.threads.get(thread as usize).map_or(0, |thread| thread.number);
    let object = |object: u32| match spans.kinds.get(&object) {
        Some(kind) => format!("{kind} #{object}"),
        None => String::new(),
    };
    out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n")?;
    for (process, name) in [(PROCESSORS, "processors"), (THREADS, "threads"), (CLOCK, "clock")] {
        write_one(out, &metadata("process_name", process, 0, name))?;
    }
    for lane in &spans.lanes {
        let (process, thread) = track(lane.owner);
        let name = match lane.owner {
            Owner::Processor(cpu) => format!("processor {cpu}"),
            Owner::Thread(thread) => format!("thread #{}", number(thread)),
            Owner::Clock => "clock".to_owned(),
        };
        write_one(out, &metadata("thread_name", process, thread, &name))?;
        for span in &lane.spans {
            let (begin, end) = (clock.of(span.begin), clock.of(span.end));
            let (name, category) = match (span.what, lane.owner) {
                (What::Run, Owner::Processor(_)) => (format!("thread #{}", number(span.object)), "run"),
                (What::Run, _) => (format!("on processor {}", span.object), "run"),
                (What::Spin, _) => ("turns on a lock".to_owned(), "spin"),
                (What::Dpc, _) => (object(span.object), "dpc"),
                (What::Ready, _) => ("ready".to_owned(), "ready"),
                (What::Interrupted, _) => (format!("interrupted by {}", object(span.object)), "interrupted"),
                (What::Wait, _) if span.object == 0 => ("waits".to_owned(), "wait"),
                (What::Wait, _) => (format!("waits for {}", object(span.object)), "wait"),
                (What::Hold | What::HoldShared, _) => (object(span.object), "lock"),
                (What::Armed, _) => (object(span.object), "timer"),
            };
            let arguments = json!({ "irql": irql_name(span.irql), "steps": span.end - span.begin });
            if span.row == 0 {
                let mut event = event("X", &name, category, begin, process, thread);
                event.insert("dur".to_owned(), json!(end - begin));
                event.insert("args".to_owned(), arguments);
                write_one(out, &Value::Object(event))?;
            } else {
                // What is held need not nest in what its owner does: it has tracks of its own, one for each object and owner.
                let id = format!("{process}.{thread}.{}.{}", span.object, span.begin);
                for (phase, time) in [("b", begin), ("e", end)] {
                    let mut event = event(phase, &name, category, time, process, thread);
                    event.insert("id".to_owned(), json!(id));
                    event.insert("args".to_owned(), arguments.clone());
                    write_one(out, &Value::Object(event))?;
                }
            }
        }
    }
    let mut places = FxHashMap::default();
    for (step, event) in (0..).zip(outcome.events()) {
        let place = event.site.and_then(|site| {
            // Names are looked up once: that costs more than everything else here.
            places.entry(site).or_insert_with(|| outcome.call_sites(site).first().map(ToString::to_string)).clone()
        });
        write_one(
            out,
            &instant(&event, clock.of(step), &object(event.object), place.as_deref(), outcome.printed(step as usize)),
        )?;
    }
    let last = failure(outcome, &spans, clock.of(outcome.trace_len() as u32));
    writeln!(out, "{last}")?;
    let end = json!({ "seed": outcome.seed().to_string(), "end": outcome.end().to_string() });
    write!(out, "],\"otherData\":{end}}}")
}

fn write_one(out: &mut impl Write, event: &Value) -> std::io::Result<()> {
    writeln!(out, "{event},")
}

fn metadata(what: &str, process: u32, thread: u32, name: &str) -> Value {
    json!({ "ph": "M", "name": what, "pid": process, "tid": thread, "args": { "name": name } })
}

fn event(phase: &str, name: &str, category: &str, time: f64, process: u32, thread: u32) -> Map<String, Value> {
    let Value::Object(event) = json!({ "ph": phase, "name": name, "cat": category, "ts": time, "pid": process, "tid": thread })
    else {
        unreachable!("json! of braces is an object")
    };
    event
}

/// An operation, as an instant on the track of who made it.
fn instant(event: &Event, time: f64, object: &str, place: Option<&str>, printed: Option<&str>) -> Value {
    let owner = match event.actor {
        Actor::Thread(thread) => Owner::Thread(thread),
        Actor::Dpc => Owner::Processor(event.processor),
        Actor::Clock => Owner::Clock,
    };
    let (process, thread) = track(owner);
    let name = event.operation.name();
    let argument = format!("{:#x}", event.argument);
    let mut arguments = json!({ "processor": event.processor, "irql": irql_name(event.irql), "argument": argument });
    if !object.is_empty() {
        arguments["object"] = json!(object);
    }
    if let Some(place) = place {
        arguments["site"] = json!(place);
    }
    if let Some(text) = printed {
        arguments["text"] = json!(text);
    }
    let mut event = self::event("i", name, "operation", time, process, thread);
    event.insert("s".to_owned(), json!("t"));
    event.insert("args".to_owned(), arguments);
    Value::Object(event)
}

/// The end of the run, as the last instant: on the track of who failed, or for all.
fn failure(outcome: &Outcome, spans: &Spans, time: f64) -> Value {
    let breach = match outcome.end() {
        End::Allowed { breach, .. } => breach,
        end => end,
    };
    let thread = match breach {
        End::BugCheck(stop) => stop.thread,
        End::Panic(panic) => panic.thread,
        _ => None,
    };
    let place = thread.and_then(|number| spans.threads.iter().position(|thread| thread.number == number));
    let ((process, thread), scope) = match place {
        Some(place) => (track(Owner::Thread(place as u32)), "t"),
        None => (track(Owner::Clock), "g"),
    };
    let name = match outcome.end() {
        End::Completed => "end".to_owned(),
        end => end.to_string().lines().next().unwrap_or_default().to_owned(),
    };
    let mut event = event("i", &name, "end", time, process, thread);
    event.insert("s".to_owned(), json!(scope));
    event.insert("args".to_owned(), json!({ "report": outcome.to_string() }));
    Value::Object(event)
}
