//! Searching the schedules of a program: many runs, each of which decides otherwise what NT leaves open.
//!
//! ```
//! use ksim::explore;
//! use std::sync::atomic::{AtomicU32, Ordering};
//!
//! let exploration = explore().processors(2).schedules(100).check(|| {
//!     // Driver code, as in Machine::run. It runs once for each schedule, on several OS threads at a time, so that what it captures is shared.
//! });
//! exploration.expect_clean();
//! assert_eq!(exploration.executions(), 100);
//! ```
//!
//! A run fails if it ends in anything but completion (a bug check, a panic, a deadlock, the limit on steps) or leaves something behind; not if it ends early at a breach of a rule that is
//! [off](Machine::check_rule), which is counted. The search stops at the
//! first failure, the one of the lowest number however many OS threads search, makes its schedule smaller, and gives it back with a [token](Failure::token) that repeats it.

mod allowed;
mod environment;
mod exploration;
mod faults;
mod made;
mod progress;
mod shrink;
mod stealing;
mod systematic;
pub(crate) mod token;
pub(crate) mod watchdog;
mod workers;

pub(crate) use allowed::Allowed;
pub use environment::{EARLY_EXPIRIES, REPLAY, SCHEDULES, SEED, SHARD};
pub use exploration::{Exploration, Failure};
pub use token::TokenError;

use crate::Machine;
use crate::check::rules::RuleId;
use crate::faults::{Fault, FaultKind};
pub use crate::schedule::Strategy;
use environment::Environment;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// How many schedules are run where nothing else is said.
const DEFAULT_SCHEDULES: u64 = 1_000;

/// One part of a search that is spread over several machines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) index: u64,
    pub(crate) count: u64,
}

impl Shard {
    const WHOLE: Self = Self { index: 0, count: 1 };
}

/// A search of schedules, before it is made. See [`explore`].
#[derive(Clone, Debug)]
#[must_use = "a search does nothing until `check` is called"]
pub struct Explore {
    machine: Machine,
    strategy: Strategy,
    seed: u64,
    schedules: Option<u64>,
    time: Option<Duration>,
    jobs: Option<NonZeroUsize>,
    shard: Shard,
    keep_going: bool,
    shrinks: bool,
    repeats: bool,
    progress: bool,
    faults: Vec<FaultKind>,
    /// What the environment says of early expiries.
    early_by_environment: Option<u32>,
    /// The fault that all runs have.
    fault: Option<Fault>,
    /// What the program is called, and what stands for it in tokens.
    name: Option<String>,
    program: token::ProgramId,
}

/// Says something on standard error, where those who run tests see it although the test passes.
pub(crate) fn tell(message: &str) {
    use std::io::Write;
    // Who has closed it does not want to be told.
    let _ = writeln!(std::io::stderr().lock(), "ksim: {message}");
}

/// A search of schedules: [`Explore::check`] makes it.
///
/// Without further settings: 1,000 schedules of the seed 0 on a machine with one processor, on as many OS threads as the host has processors.
pub fn explore() -> Explore {
    Explore {
        machine: Machine::new(),
        strategy: Strategy::default(),
        seed: 0,
        schedules: None,
        time: None,
        jobs: None,
        shard: Shard::WHOLE,
        keep_going: false,
        shrinks: true,
        repeats: true,
        progress: true,
        faults: Vec::new(),
        early_by_environment: None,
        fault: None,
        name: None,
        program: [0; 2],
    }
}

impl Explore {
    /// How many processors the machine has, 1 to 64. What threads do at the same time needs a processor for each.
    ///
    /// # Panics
    /// If the number is 0 or above 64.
    #[track_caller]
    pub fn processors(mut self, processors: u8) -> Self {
        self.machine = self.machine.processors(processors);
        self
    }

    /// The machine that each schedule runs on. Its seed and whether it records a trace do not matter.
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// How often in a run, at most, a timer or timeout may expire while something else could act: see [`Machine::early_expiries`]. `KSIM_EARLY_EXPIRIES` overrides it.
    pub fn early_expiries(mut self, most: u32) -> Self {
        self.machine = self.machine.early_expiries(most);
        self
    }

    /// How schedules are chosen.
    ///
    /// # Panics
    /// If it is `Pct` of depth 0.
    #[track_caller]
    pub fn strategy(mut self, strategy: Strategy) -> Self {
        assert!(strategy != Strategy::Pct { depth: 0 }, "the depth of PCT is at least 1");
        self.strategy = strategy;
        self
    }

    /// What the random choices of all schedules come from. The default is 0; `KSIM_SEED` overrides it.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// How many schedules to run. The default is 1,000, or no limit where a [time](Self::time) is given; `KSIM_SCHEDULES` overrides it.
    ///
    /// # Panics
    /// If the number is 0: such a search would find nothing, whatever the program is.
    #[track_caller]
    pub fn schedules(mut self, schedules: u64) -> Self {
        assert!(schedules > 0, "a search of 0 schedules finds nothing: leave out what is not to be searched");
        self.schedules = Some(schedules);
        self
    }

    /// For how long to run schedules, by the host's clock. Of two limits, the first that is reached counts.
    ///
    /// At least one schedule is run, one that has begun is finished, and what fails is made smaller after that, which takes longer. With [faults](Self::faults) it is the time for all of
    /// them: each search has an equal part of what is left, and those that the time is up for are not made.
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// On how many OS threads. The default is one for each processor of the host. What is found does not depend on it.
    pub fn jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.jobs = Some(jobs);
        self
    }

    /// Runs part `index` of `count` only, counted from 0. All parts together are the whole search: schedule number `n` is in part `n % count`. `KSIM_SHARD=index/count`
    /// overrides it.
    ///
    /// The parts of a systematic search begin with some thousands of the same schedules, as all others come from these; each counts in one part. A part numbers its schedules by itself.
    ///
    /// # Panics
    /// If `index` is not below `count`.
    #[track_caller]
    pub fn shard(mut self, index: u64, count: u64) -> Self {
        assert!(index < count, "there is no part {index} of {count}: parts are counted from 0");
        self.shard = Shard { index, count };
        self
    }

    /// Also searches with each [fault](crate::Fault) of these kinds that the program comes to: the first of a kind, the second and so on, each with all schedules.
    ///
    /// # Example
    /// ```should_panic
    /// use ksim::{FaultKind, explore};
    /// use ksync_sys::{ExAllocatePool2, ExFreePool, POOL_FLAG_NON_PAGED};
    ///
    /// let exploration = explore().schedules(10).faults([FaultKind::Allocation]).check(|| {
    ///     // SAFETY: the routine may be called here.
    ///     let memory = unsafe { ExAllocatePool2(POOL_FLAG_NON_PAGED, 8, u32::from_le_bytes(*b"Demo")) };
    ///     assert!(!memory.is_null(), "this allocation never fails, or does it?");
    ///     // SAFETY: the block is allocated.
    ///     unsafe { ExFreePool(memory) };
    /// });
    /// exploration.expect_clean();
    /// ```
    pub fn faults(mut self, kinds: impl IntoIterator<Item = FaultKind>) -> Self {
        self.faults = kinds.into_iter().collect();
        self
    }

    /// Whether the search goes on after a failure. It does not by default. The first failure is reported in any case.
    pub fn keep_going(mut self, keep_going: bool) -> Self {
        self.keep_going = keep_going;
        self
    }

    /// Whether a failing schedule is made smaller before it is reported, which takes up to 3,000 runs. It is by default.
    pub fn shrink(mut self, shrink: bool) -> Self {
        self.shrinks = shrink;
        self
    }

    /// Whether the first schedule is run a second time, to see that the program does the same things each time: what decides by the host's clock, by addresses, by a `HashMap` or by a
    /// static is neither searched to the end nor repeated by a token. It is by default, unless rule Repetition is off.
    ///
    /// # Example
    /// ```should_panic
    /// use ksim::explore;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// static RUNS: AtomicU32 = AtomicU32::new(0);
    /// let _ = explore().check(|| {
    ///     // SAFETY: the call may be made anywhere.
    ///     unsafe { ksync_sys::KeStallExecutionProcessor(1 + RUNS.fetch_add(1, Ordering::Relaxed)) };
    /// });
    /// ```
    pub fn check_repetition(mut self, check: bool) -> Self {
        self.repeats = check;
        self
    }

    /// Whether progress is shown, where standard error is a terminal. It is by default.
    pub fn progress(mut self, progress: bool) -> Self {
        self.progress = progress;
        self
    }

    /// What the program is called. A [token](Failure::token) of a program of another name that this one does not fail by is an [error](TokenError::Program). The default is the type of
    /// the program, which the function that it is written in gives its name.
    pub fn program_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Notes what stands for the program in tokens.
    fn of_program<P>(mut self, _: &P) -> Self {
        self.program = token::program_id(self.name.as_deref().unwrap_or(std::any::type_name::<P>()));
        self
    }

    /// Runs `program` under one schedule after another, until one fails or the limit is reached.
    ///
    /// The program runs on several OS threads at once, each with a machine of its own: what it captures is shared by all of these runs, so that what a run
    /// changes belongs inside the program. It must decide nothing by anything but the machine's answers (no clock of the host, no addresses, no `HashMap`).
    ///
    /// With `KSIM_REPLAY=token` in the environment it runs the one schedule that the token stands for.
    ///
    /// # Panics
    /// - If the program does not do the same things each time: the message says where two runs differ.
    /// - If a variable of the environment is not what it should be, or the token does not belong to this program: the message says where they part.
    /// - If called from code that runs on a machine already.
    #[track_caller]
    #[must_use = "what was found is in the exploration and nowhere else: `expect_clean` panics for a failure"]
    pub fn check(mut self, program: impl Fn() + Sync) -> Exploration {
        let environment = match Environment::read() {
            Ok(environment) => environment,
            Err(error) => panic!("ksim: {error}"),
        };
        self = self.of_program(&program);
        if let Some(seed) = environment.seed {
            self.seed = seed;
        }
        if let Some(schedules) = environment.schedules {
            self.schedules = Some(schedules);
            self.time = None;
        }
        if let Some(shard) = environment.shard {
            self.shard = shard;
        }
        if let Some(most) = environment.early_expiries {
            self = self.early_expiries(most);
            self.early_by_environment = Some(most);
        }
        match environment.replay {
            Some(token) => match self.replay(&token, program) {
                Ok(exploration) => {
                    if exploration.failure.is_none() {
                        let early = match exploration.allowed().next() {
                            Some((rule, _)) => format!(": it ends early, at a breach of rule {}, which is off", rule.name),
                            None => String::new(),
                        };
                        tell(&format!("the schedule of {REPLAY} does not fail any more{early}"));
                    }
                    exploration
                }
                Err(error) => panic!("ksim: {REPLAY}: {error}"),
            },
            None => {
                let _watched = watchdog::watch();
                let exploration = faults::search(&self, &program);
                if exploration.executions == 0 {
                    let Shard { index, count } = self.shard;
                    tell(&format!("no schedule was run: none was left for part {index} of {count} of this search"));
                }
                exploration
            }
        }
    }

    /// Runs the one schedule that a [token](Failure::token) stands for, whether it fails again or not.
    ///
    /// # Errors
    /// If the token is damaged, was made with other settings of the machine, or the program no longer makes the choices that it was made for; or if it was made for another program,
    /// and this one does not fail by it.
    ///
    /// # Panics
    /// If called from code that runs on a machine already.
    #[track_caller]
    pub fn replay(&self, token: &str, program: impl Fn()) -> Result<Exploration, TokenError> {
        let (token, fault) = faults::parse(token)?;
        let explore = Self { fault, ..self.clone() }.of_program(&program);
        let _watched = watchdog::watch();
        workers::replay(&explore, token, &program)
    }

    /// Whether the first run is compared with its repetition.
    fn checks_repetition(&self) -> bool {
        self.repeats && self.machine.config().rules.has(RuleId::Repetition)
    }

    /// The same search, of a program that is known to use statics or not.
    fn of_statics(&self, uses: bool) -> Self {
        Self { machine: self.machine.clone().claim_statics(uses), ..self.clone() }
    }

    /// The machine that each schedule runs on.
    fn faulty_machine(&self) -> Machine {
        match self.fault {
            Some(fault) => self.machine.clone().fault(fault),
            None => self.machine.clone(),
        }
    }

    /// The same search, whose machine is that of a schedule of this number.
    fn of_schedule(&self, number: u64) -> Self {
        let mut explore = self.clone();
        explore.machine.set_schedule(number);
        explore
    }

    /// When the host's time is up for a search that begins now.
    fn deadline(&self) -> Option<Instant> {
        self.time.and_then(|time| Instant::now().checked_add(time))
    }

    fn limit(&self) -> u64 {
        match (self.schedules, self.time) {
            (Some(schedules), _) => schedules,
            (None, Some(_)) => u64::MAX,
            (None, None) if self.strategy.is_systematic() => u64::MAX,
            (None, None) => DEFAULT_SCHEDULES,
        }
    }
}
