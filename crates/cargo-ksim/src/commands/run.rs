//! `cargo ksim run`.

use super::{shows_sites, write_files};
use crate::arguments::RunArguments;
use crate::output::{Exit, Failure, print, wants_color};
use crate::program::{Hex, Ioctl, Program, Status};
use anyhow::anyhow;
use ksim::{IoResult, Outcome};
use serde_json::{Value, json};

pub(crate) fn run(arguments: &RunArguments) -> Result<Exit, Failure> {
    let unload = arguments.unload || !arguments.no_unload;
    let program = Program::open(&arguments.program, unload)?.keeping_answers();
    let machine = arguments.machine.machine().seed(arguments.seed);
    let outcome = machine.record_sites(shows_sites(&arguments.output)).echo(!arguments.output.json).run(|| program.run());
    write_files(&arguments.output, &outcome)?;
    let answers = program.take_answers();
    if arguments.output.json {
        let mut report = outcome.report().to_json();
        report["requests"] = answers.iter().map(answer_json).collect();
        print(&format_args!("{report:#}"));
    } else {
        answers.iter().for_each(print_answer);
        print_outcome(&outcome);
    }
    if outcome.is_completed()
        && let Some(refusal) = program.refused()
    {
        return Err(Failure::not_loadable(anyhow!("{refusal}")));
    }
    // What a driver that stays has is not left behind.
    let found = outcome.is_failure() && (unload || !outcome.is_completed());
    Ok(if found { Exit::Found } else { Exit::Clean })
}

fn print_answer((ioctl, result): &(Ioctl, IoResult)) {
    let status = Status(result.status);
    if result.output.is_empty() {
        print(&format_args!("request {:#x}: {status}, information {}", ioctl.code, result.information));
    } else {
        let output = Hex(&result.output);
        print(&format_args!("request {:#x}: {status}, information {}, output {output}", ioctl.code, result.information));
    }
}

fn answer_json((ioctl, result): &(Ioctl, IoResult)) -> Value {
    json!({
        "code": ioctl.code,
        "status": result.status as u32,
        "status_name": ksim::status_name(result.status),
        "information": result.information,
        "output": Hex(&result.output).to_string(),
    })
}

/// The report of a run, with its figures.
pub(crate) fn print_outcome(outcome: &Outcome) {
    print(&outcome.report().colored(wants_color(&std::io::stdout())));
    let statistics = outcome.statistics();
    print(&format_args!(
        "threads {}, DPCs {}, switches {}, scheduling points {}, pool allocations {}, virtual time {:?}",
        statistics.threads,
        statistics.dpcs,
        statistics.switches,
        statistics.scheduling_points,
        statistics.allocations,
        statistics.virtual_time,
    ));
}
