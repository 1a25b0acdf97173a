//! `cargo ksim explore`.

use super::run::print_outcome;
use super::write_files;
use crate::arguments::ExploreArguments;
use crate::output::{Exit, Failure, print};
use crate::program::Program;
use anyhow::anyhow;
use ksim::Rule;
use ksim::explore;
use ksim::explore::Exploration;
use serde_json::json;
use std::collections::BTreeMap;

pub(crate) fn run(arguments: &ExploreArguments) -> Result<Exit, Failure> {
    let program = Program::open(&arguments.program, true)?;
    let machine = arguments.machine.machine();
    let search = &arguments.search;
    // A driver that does not even load needs no search.
    let first = machine.clone().record_trace(false).run(|| program.run());
    if first.is_completed()
        && let Some(refusal) = program.refused()
    {
        return Err(Failure::not_loadable(anyhow!("{refusal}")));
    }
    let mut explore = explore()
        .machine(machine)
        .program_name(program.name())
        .strategy(search.strategy())
        .keep_going(search.keep_going)
        .seed(search.seed)
        .faults(search.faults.iter().map(|&kind| kind.into()))
        .progress(!search.quiet && !arguments.output.json);
    if let Some(schedules) = search.schedules {
        explore = explore.schedules(schedules);
    }
    if let Some(time) = search.time {
        explore = explore.time(time);
    }
    if let Some(jobs) = search.jobs {
        explore = explore.jobs(jobs);
    }
    if let Some((index, count)) = search.shard {
        explore = explore.shard(index, count);
    }
    let exploration = explore.check(|| program.run());
    let Some(failure) = exploration.failure() else {
        if arguments.output.json {
            print(&format_args!("{:#}", summary_json(&exploration)));
        } else {
            print(&summary(&exploration));
        }
        return Ok(Exit::Clean);
    };
    let command = replay_command(arguments, &failure.token);
    write_files(&arguments.output, &failure.outcome)?;
    if arguments.output.json {
        let mut report = summary_json(&exploration);
        report["failure"] = failure.outcome.report().to_json();
        report["failure"]["schedule"] = json!(failure.schedule);
        report["failure"]["token"] = json!(failure.token);
        report["failure"]["replay"] = json!(command);
        print(&format_args!("{report:#}"));
    } else {
        print(&summary(&exploration));
        print_outcome(&failure.outcome);
        print(&format_args!("\nTo repeat it:\n  {command}"));
    }
    Ok(Exit::Found)
}

fn summary_json(exploration: &Exploration) -> serde_json::Value {
    json!({
        "schedules": exploration.executions(),
        "distinct": exploration.distinct(),
        "failures": exploration.failures(),
        "allowed": exploration.allowed().map(|(rule, schedules)| (rule.name, schedules)).collect::<BTreeMap<_, _>>(),
        "exhausted": exploration.is_exhausted(),
        "seconds": exploration.elapsed().as_secs_f64(),
    })
}

/// What a search came to, in a line.
fn summary(exploration: &Exploration) -> String {
    let seconds = exploration.elapsed().as_secs_f64();
    let rate = exploration.executions() as f64 / seconds.max(1e-6);
    let failed = match exploration.failures() {
        0 => "none failed".to_owned(),
        failures => format!("{failures} failed"),
    };
    let exhausted = if exploration.is_exhausted() { "; no others are left" } else { "" };
    format!(
        "{} schedules in {seconds:.2} s ({rate:.0} a second), {} of them different: {failed}{exhausted}{}",
        exploration.executions(),
        exploration.distinct(),
        ended_early(exploration)
    )
}

/// What rules that are off have kept from being searched, in a line for each.
fn ended_early(exploration: &Exploration) -> String {
    let line = |(rule, schedules): (&Rule, u64)| {
        let name = rule.name;
        format!(
            "\nincomplete: {schedules} ended early, at a breach of rule {name}, which is off: what comes behind it was not run"
        )
    };
    exploration.allowed().map(line).collect()
}

/// The command that repeats a failure.
fn replay_command(arguments: &ExploreArguments, token: &str) -> String {
    let words = ["cargo", "ksim", "replay", token].map(str::to_owned).into_iter();
    let words = words.chain(arguments.program.words()).chain(arguments.machine.words());
    shell_words::join(words)
}
