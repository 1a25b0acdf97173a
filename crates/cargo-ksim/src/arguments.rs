//! The command line.

use crate::program::Ioctl;
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ksim::schedule::Strategy;
use ksim::{ClockMode, Fault, FaultKind, Machine, OsProfile};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  cargo ksim run mydriver.sys --processors 4 --report run.html
        Loads and unloads the driver, and writes the run as a timeline.
  cargo ksim explore mydriver.sys --time 1m
        Searches schedules for a minute, and prints a token for one that fails.
  cargo ksim replay TOKEN mydriver.sys --report failure.html
        Repeats that failure, and shows it.
  cargo ksim imports mydriver.sys --missing
        Lists what the driver imports that this kernel lacks.

Exit codes: 0 nothing was found; 1 something was found; 2 the command line is wrong; 3 the driver cannot be loaded.";

const RUN_EXAMPLES: &str = "\
Examples:
  cargo ksim run mydriver.sys
  cargo ksim run mydriver.sys --device '\\\\.\\MyDevice' --ioctl 0x222000:01000000 --ioctl 0x222004
  cargo ksim run mydriver.sys --fault allocation-3 --trace run.json";

const EXPLORE_EXAMPLES: &str = "\
Examples:
  cargo ksim explore mydriver.sys --processors 2 --schedules 10000
  cargo ksim explore mydriver.sys --strategy pct --depth 3 --time 10m --jobs 8
  cargo ksim explore mydriver.sys --shard 0/4    (and 1/4, 2/4, 3/4 on other machines)

The environment's KSIM_SEED, KSIM_SCHEDULES and KSIM_SHARD override the options.";

/// Runs Windows drivers on a hosted, deterministic NT kernel that checks every rule.
///
/// The very .sys file that ships is loaded into this process and run on virtual processors with a virtual clock. What on Windows would be a blue screen, a deadlock or a leak is
/// reported with the place in the driver that it came from. The same seed gives the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo ksim", bin_name = "cargo ksim", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Load a driver, use it, unload it, and report what went wrong.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArguments),
    /// Run a driver under many schedules, until one fails.
    #[command(after_help = EXPLORE_EXAMPLES)]
    Explore(ExploreArguments),
    /// Repeat a failure that `explore` found.
    Replay(ReplayArguments),
    /// List what a driver imports, and whether this kernel has it.
    Imports(ImportsArguments),
    /// List the rules that every run is checked against.
    Rules(RulesArguments),
    /// Print a script that completes this command line in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) program: ProgramArguments,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
    /// What decides everything that NT leaves open. The same seed gives the same run.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Unload the driver at the end. It is, unless `--no-unload` says otherwise.
    #[arg(long, overrides_with = "no_unload")]
    pub(crate) unload: bool,
    /// Leave the driver loaded, as at a system shutdown, instead of unloading it. What it has left behind then is no failure.
    #[arg(long, overrides_with = "unload")]
    pub(crate) no_unload: bool,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ExploreArguments {
    #[command(flatten)]
    pub(crate) program: ProgramArguments,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
    #[command(flatten)]
    pub(crate) search: SearchArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// What `explore` printed for the failure.
    pub(crate) token: String,
    #[command(flatten)]
    pub(crate) program: ProgramArguments,
    #[command(flatten)]
    pub(crate) machine: MachineArguments,
    #[command(flatten)]
    pub(crate) output: OutputArguments,
}

/// What is run.
#[derive(Debug, Args)]
pub(crate) struct ProgramArguments {
    /// The driver's image: a .sys file for 64-bit Windows on x86-64.
    #[arg(value_name = "DRIVER.sys")]
    pub(crate) driver: PathBuf,
    /// A device that the driver creates, or a symbolic link to it, such as '\\.\MyDevice' or '\Device\MyDevice'. It is opened when the driver is loaded, and closed
    /// before it is unloaded.
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// A control request that is sent to the device: its code, its input in hexadecimal digits, and the size of the output buffer in bytes (4096 where nothing is said). Can be
    /// repeated.
    #[arg(long, value_name = "CODE[:HEX[:SIZE]]", requires = "device")]
    pub(crate) ioctl: Vec<Ioctl>,
}

/// What it is run on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArguments {
    /// How many processors the machine has, 1 to 64.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) processors: u8,
    /// The Windows whose behaviour it shows.
    #[arg(long, value_enum, value_name = "WINDOWS", default_value_t = Profile::Windows11)]
    pub(crate) profile: Profile,
    /// When timers expire: exactly when they are due, or at ticks of 15.625 ms.
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Clock::Exact)]
    pub(crate) clock: Clock,
    /// How often, at most, a timer or timeout may expire while something else could act.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) early_expiries: u32,
    /// How many bytes of pool there are.
    #[arg(long, value_name = "BYTES")]
    pub(crate) pool_limit: Option<usize>,
    /// Make one thing fail: an allocation, or a wait that ends early, by its number in the run, counted from 1. Kinds are allocation, timeout, alert and user-apc. Can be repeated.
    #[arg(long, value_name = "KIND-NUMBER", value_parser = fault)]
    pub(crate) fault: Vec<Fault>,
    /// Run threaded DPCs like ordinary ones, as where an administrator has disabled them.
    #[arg(long)]
    pub(crate) no_threaded_dpcs: bool,
    /// Take the driver's pageable sections and paged pool away at DISPATCH_LEVEL and above, as Driver Verifier does to force IRQL checking.
    #[arg(long)]
    pub(crate) force_irql_checking: bool,
    /// Which runs have special pool, pages for each block, so that what touches a freed block, or what is behind one, is stopped where it does: of those of a search, `some` is all if it is exhaustive or
    /// bounded, and else one in sixteen.
    #[arg(long, value_enum, value_name = "RUNS", default_value_t = SpecialPool::Some)]
    pub(crate) special_pool: SpecialPool,
    /// Turn a rule off, by its name in `cargo ksim rules`: where it is broken, the run goes on, or ends as no failure. Can be repeated.
    #[arg(long, value_name = "RULE", value_parser = PossibleValuesParser::new(names_of_rules()), hide_possible_values = true)]
    pub(crate) allow: Vec<String>,
    /// After how many scheduling points a run is given up.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) step_limit: Option<u64>,
}

/// Which schedules are run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Search")]
pub(crate) struct SearchArguments {
    /// How many schedules to run: 1,000 where neither this nor a time is given.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) schedules: Option<u64>,
    /// For how long to run schedules, such as 30s, 5m or 1h.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) time: Option<Duration>,
    /// How the schedules are chosen.
    #[arg(long, value_enum, value_name = "STRATEGY", default_value_t = Chosen::Portfolio)]
    pub(crate) strategy: Chosen,
    /// For `pct`: how many ordering constraints make up the bugs that are looked for.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) depth: u32,
    /// For `bounded`: how often a schedule may take the turn from a context that could go on.
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub(crate) preemptions: u32,
    /// Also search with each fault of these kinds that the driver comes to, one after the other, each with all schedules.
    #[arg(long, value_enum, value_name = "KIND,...", value_delimiter = ',')]
    pub(crate) faults: Vec<Faults>,
    /// What the random choices come from.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// On how many of the host's threads to search: all its processors where nothing is said.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// One part of a search that is spread over several machines, counted from 0.
    #[arg(long, value_name = "INDEX/COUNT", value_parser = shard)]
    pub(crate) shard: Option<(u64, u64)>,
    /// Go on after a failure, and count the schedules that fail.
    #[arg(long)]
    pub(crate) keep_going: bool,
    /// Show no progress.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// What is written.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// Write the run as a timeline: one HTML file for a browser.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Write the run as a trace-event file, for Perfetto (ui.perfetto.dev) or chrome://tracing.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) trace: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportsArguments {
    /// The driver's image: a .sys file for 64-bit Windows on x86-64.
    #[arg(value_name = "DRIVER.sys")]
    pub(crate) driver: PathBuf,
    /// List only what this kernel lacks.
    #[arg(long)]
    pub(crate) missing: bool,
    /// Print the list as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RulesArguments {
    /// List only the rules whose name or text has this in it, in any case.
    pub(crate) search: Option<String>,
    /// Print the table as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The Windows whose behaviour a machine shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Profile {
    #[value(name = "windows7")]
    Windows7,
    #[value(name = "windows8")]
    Windows8,
    #[value(name = "windows10")]
    Windows10,
    #[value(name = "windows10-2004")]
    Windows10_2004,
    #[value(name = "windows11")]
    Windows11,
}

impl From<Profile> for OsProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Windows7 => Self::Windows7,
            Profile::Windows8 => Self::Windows8,
            Profile::Windows10 => Self::Windows10,
            Profile::Windows10_2004 => Self::Windows10_2004,
            Profile::Windows11 => Self::Windows11,
        }
    }
}

/// Which runs have special pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum SpecialPool {
    Some,
    All,
    None,
}

/// When timers expire.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Clock {
    Exact,
    Tick,
}

/// How the schedules are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Chosen {
    /// `urw`, `pos` and `pct` in turn
    Portfolio,
    /// A random walk
    Random,
    /// A random walk that weighs contexts by what is left to them
    Urw,
    /// Operations have random priorities
    Pos,
    /// Contexts have random priorities that change a few times
    Pct,
    /// Turns of one operation, then of two, and so on
    RoundRobin,
    /// All schedules that differ in what matters, each once; for small drivers
    Exhaustive,
    /// All schedules with few preemptions
    Bounded,
}

impl SearchArguments {
    /// The strategy with its parameter.
    pub(crate) fn strategy(&self) -> Strategy {
        match self.strategy {
            Chosen::Portfolio => Strategy::Portfolio,
            Chosen::Random => Strategy::Random,
            Chosen::Urw => Strategy::Urw,
            Chosen::Pos => Strategy::Pos,
            Chosen::Pct => Strategy::Pct { depth: self.depth },
            Chosen::RoundRobin => Strategy::RoundRobin,
            Chosen::Exhaustive => Strategy::Exhaustive,
            Chosen::Bounded => Strategy::Bounded { preemptions: self.preemptions },
        }
    }
}

/// What fails in a search with faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Faults {
    /// Allocations
    Allocation,
    /// Creations of threads
    Thread,
    /// Creations of other objects, names and handles
    Object,
    /// Waits with a timeout, which they end with
    Timeout,
    /// Alertable waits, which an alert ends
    Alert,
    /// User-mode waits, which an APC ends
    UserApc,
}

impl From<Faults> for FaultKind {
    fn from(faults: Faults) -> Self {
        match faults {
            Faults::Allocation => Self::Allocation,
            Faults::Thread => Self::Thread,
            Faults::Object => Self::Object,
            Faults::Timeout => Self::Timeout,
            Faults::Alert => Self::Alert,
            Faults::UserApc => Self::UserApc,
        }
    }
}

impl MachineArguments {
    /// The machine.
    pub(crate) fn machine(&self) -> Machine {
        let clock = match self.clock {
            Clock::Exact => ClockMode::Exact,
            Clock::Tick => ClockMode::DEFAULT_TICK,
        };
        let mut machine = Machine::new()
            .processors(self.processors)
            .profile(self.profile.into())
            .clock(clock)
            .early_expiries(self.early_expiries)
            .threaded_dpcs(!self.no_threaded_dpcs)
            .force_irql_checking(self.force_irql_checking);
        match self.special_pool {
            SpecialPool::Some => {}
            SpecialPool::All => machine = machine.special_pool(true),
            SpecialPool::None => machine = machine.special_pool(false),
        }
        if let Some(bytes) = self.pool_limit {
            machine = machine.pool_limit(bytes);
        }
        for &fault in &self.fault {
            machine = machine.fault(fault);
        }
        if let Some(limit) = self.step_limit {
            machine = machine.step_limit(limit);
        }
        for rule in ksim::rules().filter(|rule| self.allow.iter().any(|name| name == rule.name)) {
            machine = machine.check_rule(rule.id, false);
        }
        machine
    }

    /// The options that say the same, for a command that repeats a run.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut option = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        option("processors", self.processors.to_string());
        if self.profile != Profile::Windows11 {
            option("profile", name_of(self.profile));
        }
        if self.clock != Clock::Exact {
            option("clock", name_of(self.clock));
        }
        if self.early_expiries != 0 {
            option("early-expiries", self.early_expiries.to_string());
        }
        if self.special_pool != SpecialPool::Some {
            option("special-pool", name_of(self.special_pool));
        }
        if let Some(bytes) = self.pool_limit {
            option("pool-limit", bytes.to_string());
        }
        for fault in &self.fault {
            option("fault", fault.to_string());
        }
        if let Some(limit) = self.step_limit {
            option("step-limit", limit.to_string());
        }
        for rule in &self.allow {
            option("allow", rule.clone());
        }
        if self.no_threaded_dpcs {
            words.push("--no-threaded-dpcs".to_owned());
        }
        if self.force_irql_checking {
            words.push("--force-irql-checking".to_owned());
        }
        words
    }
}

impl ProgramArguments {
    /// The words that say the same, for a command that repeats a run.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![self.driver.display().to_string()];
        if let Some(device) = &self.device {
            words.extend(["--device".to_owned(), device.clone()]);
        }
        for ioctl in &self.ioctl {
            words.extend(["--ioctl".to_owned(), ioctl.to_string()]);
        }
        words
    }
}

fn name_of(value: impl ValueEnum) -> String {
    value.to_possible_value().expect("no value is hidden").get_name().to_owned()
}

fn names_of_rules() -> impl Iterator<Item = &'static str> {
    ksim::rules().map(|rule| rule.name)
}

/// A time: a number with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("`{text}` is not a time such as 30s, 5m or 1h");
    let split = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| expected())
}

/// A fault: its kind and its number.
fn fault(text: &str) -> Result<Fault, String> {
    let fault = text.parse().ok().filter(|fault: &Fault| fault.n > 0);
    fault.ok_or_else(|| format!("`{text}` is not a fault such as allocation-3, timeout-1, alert-1 or user-apc-1"))
}

/// A part of a search: `index/count`.
fn shard(text: &str) -> Result<(u64, u64), String> {
    let parts = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    parts.filter(|(index, count)| index < count).ok_or_else(|| format!("`{text}` is not a part such as 0/4, counted from 0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_faults_and_parts() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "5", "s", "5 s", "-1s", "1.2.3s", "5d", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert_eq!(fault("user-apc-2"), Ok(Fault { kind: FaultKind::UserApc, n: 2 }));
        for wrong in ["", "allocation", "allocation-", "allocation-0", "luck-1", "3"] {
            assert!(fault(wrong).is_err(), "{wrong}");
        }
        assert_eq!(shard("1/4"), Ok((1, 4)));
        for wrong in ["", "4/4", "1", "1/0", "-1/4", "a/b"] {
            assert!(shard(wrong).is_err(), "{wrong}");
        }
    }
}
