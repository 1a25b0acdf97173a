//! The report for tools. `docs/report.md` has the schema, whose number changes with every change that is not an addition.

use super::bug_check::{BugCheck, CallSite};
use super::outcome::{DriverPanic, End, Left, ObjectLeft, UsesLeft};
use super::text::Report;
use super::trace::Event;
use super::wait_graph::WaitGraph;
use crate::check::rules::Rule;
use serde_json::{Value, json};

/// The number of the schema.
const SCHEMA: u32 = 1;

impl Report<'_> {
    /// The report as JSON. `docs/report.md` describes it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let outcome = self.outcome;
        let (end, what) = of_end(&outcome.end);
        // Of how it can end, that which it is.
        let one = |kind| if end == kind { what.clone() } else { Value::Null };
        let threads: Vec<_> = outcome
            .threads()
            .iter()
            .map(|thread| {
                let holds: Vec<_> = thread
                    .holds
                    .iter()
                    .map(|held| json!({ "lock": held.lock, "acquired_at": of_sites(&held.acquired_at) }))
                    .collect();
                json!({
                    "thread": thread.thread,
                    "index": thread.index,
                    "state": thread.state,
                    "processor": thread.processor,
                    "irql": thread.irql,
                    "reason": thread.reason,
                    "waits_for": thread.waits_for,
                    "owners": thread.owners,
                    "holds": holds,
                    "call_sites": of_sites(&thread.call_sites),
                })
            })
            .collect();
        let processors: Vec<_> = outcome
            .processors()
            .iter()
            .map(|processor| {
                json!({
                    "processor": processor.processor,
                    "irql": processor.irql,
                    "thread": processor.thread,
                    "in_dpc": processor.in_dpc,
                    "spinning": processor.spinning,
                })
            })
            .collect();
        let events: Vec<_> = outcome.events().map(|event| self.of_event(event)).collect();
        json!({
            "schema": SCHEMA,
            "end": end,
            "bug_check": one("bug_check"),
            "panic": one("panic"),
            "deadlock": one("deadlock"),
            "step_limit": one("step_limit"),
            "allowed": one("allowed"),
            "left": of_left(&outcome.left),
            "threads": threads,
            "processors": processors,
            "events": events,
            "debug_output": outcome.debug_output,
            "seed": outcome.seed,
            "replay": self.replay,
        })
    }

    fn of_event(&self, event: Event) -> Value {
        json!({
            "time": event.time,
            "processor": event.processor,
            "irql": event.irql,
            "actor": event.actor.to_string(),
            "operation": event.operation.name(),
            "object": event.object,
            "object_kind": event.object_kind,
            "argument": event.argument,
            "site": event.site.and_then(|site| self.outcome.call_sites(site).first().map(of_site)),
        })
    }
}

fn of_site(site: &CallSite) -> Value {
    json!({ "function": site.function, "file": site.file, "line": site.line, "library": site.library })
}

fn of_sites(sites: &[CallSite]) -> Value {
    sites.iter().map(of_site).collect()
}

/// How a run ended: in a word, and at length.
fn of_end(end: &End) -> (&'static str, Value) {
    match end {
        End::Completed => ("completed", Value::Null),
        End::BugCheck(stop) => ("bug_check", of_bug_check(stop)),
        End::Panic(panic) => ("panic", of_panic(panic)),
        End::Deadlock(graph) => ("deadlock", of_graph(graph)),
        End::StepLimit(limit) => ("step_limit", json!(limit)),
        End::Allowed { rule, breach } => {
            let (end, what) = of_end(breach);
            ("allowed", json!({ "rule": of_rule(rule), "end": end, end: what }))
        }
    }
}

fn of_rule(rule: &Rule) -> Value {
    json!({ "name": rule.name, "says": rule.says, "page": rule.page() })
}

fn of_bug_check(stop: &BugCheck) -> Value {
    let related: Vec<_> =
        stop.related.iter().map(|related| json!({ "what": related.what, "call_sites": of_sites(&related.call_sites) })).collect();
    let rule = stop.rule().map(of_rule);
    json!({
        "code": stop.code,
        "name": stop.name,
        "parameters": stop.parameters,
        "meaning": stop.meaning,
        "rule": rule,
        "thread": stop.thread,
        "processor": stop.processor,
        "irql": stop.irql,
        "in_dpc": stop.in_dpc,
        "routine": stop.routine,
        "call_sites": of_sites(&stop.call_sites),
        "related": related,
    })
}

fn of_panic(panic: &DriverPanic) -> Value {
    json!({
        "message": panic.message,
        "location": panic.location,
        "thread": panic.thread,
        "processor": panic.processor,
        "in_dpc": panic.in_dpc,
    })
}

fn of_graph(graph: &WaitGraph) -> Value {
    json!({ "cycle": graph.cycle })
}

fn of_left(left: &Left) -> Value {
    let pool: Vec<_> = left
        .pool
        .iter()
        .map(|block| {
            json!({ "tag": block.tag, "size": block.size, "order": block.order, "allocated_at": of_sites(&block.allocated_at) })
        })
        .collect();
    let objects: Vec<_> = left
        .objects
        .iter()
        .map(|object| {
            let ObjectLeft { kind, number, name, handles, references } = object;
            json!({ "kind": kind, "number": number, "name": name, "handles": handles, "references": references })
        })
        .collect();
    let uses: Vec<_> =
        left.uses.iter().map(|UsesLeft { kind, number, uses }| json!({ "kind": kind, "number": number, "uses": uses })).collect();
    json!({
        "pool": pool,
        "timers": left.timers,
        "objects": objects,
        "handles": left.handles,
        "references": left.references,
        "tick_requests": left.tick_requests,
        "uses": uses,
    })
}
