//! The search of `ksim` beside those of shuttle and loom, on like programs, in one process: `cargo xtask bench versus`.
//!
//! It prints tables for people, and lines `RESULT name value` for machines. Rates are of one OS thread, medians of trials that take turns; ksim's checks are all on.
//!
//! Arguments name the parts to be measured, such as `counter2 pingpong`; without any, all are.

mod bare;
mod measure;
mod nt;
mod peers;
mod programs;

use ksim::explore::{Exploration, Strategy};
use ksim::{Machine, explore};
use measure::{counted, median, time, until_failure};
use nt::{FastMutex, Mutex, SpinLock};
use peers::{loom, shuttle};
use std::num::NonZeroUsize;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How many trials each rate is the median of.
const TRIALS: usize = 5;
/// How many seeds each number of schedules to a bug is the median of.
const SEEDS: u64 = 101;
/// After how many schedules a bug counts as not found.
const CAP: usize = 5_000;

const STRATEGIES: [(&str, Strategy); 6] = [
    ("ksim portfolio", Strategy::Portfolio),
    ("ksim random", Strategy::Random),
    ("ksim URW", Strategy::Urw),
    ("ksim POS", Strategy::Pos),
    ("ksim PCT d=2", Strategy::Pct { depth: 2 }),
    ("ksim PCT d=3", Strategy::Pct { depth: 3 }),
];

/// Has no seed: it begins with the same schedules each time, as the depth-first searches of the peers do.
const BOUNDED: (&str, Strategy) = ("ksim bounded to 2", Strategy::Bounded { preemptions: 2 });

/// Runs schedules of a program on ksim.
fn run_ksim(strategy: Strategy, seed: u64, schedules: u64, jobs: usize, program: impl Fn() + Sync) -> Exploration {
    let jobs = NonZeroUsize::new(jobs).expect("at least one job");
    explore().processors(8).strategy(strategy).seed(seed).schedules(schedules).jobs(jobs).progress(false).check(program)
}

/// One thing that is measured beside others.
struct Contender<'a> {
    name: String,
    schedules: u64,
    run: Box<dyn Fn(u64) + 'a>,
}

/// What is no contender, but the bound of what a simulator can reach.
const BARE: [(&str, bare::By); 2] = [("(bare, random)", bare::By::Random), ("(bare, hardly switching)", bare::By::Last)];

/// The rates of contenders, who take turns. Prints the best of ksim's against the best of the peers'.
fn rates(program: &str, title: &str, contenders: &[Contender<'_>]) {
    println!("\n{title}: schedules per second");
    let mut seconds = vec![Vec::new(); contenders.len()];
    for trial in 0..TRIALS {
        for (contender, seconds) in contenders.iter().zip(&mut seconds) {
            seconds.push(time(|| (contender.run)(trial as u64)).as_secs_f64());
        }
    }
    let (mut ours, mut theirs, mut bare, mut random) = (0.0_f64, 0.0_f64, [0.0; 2], [0.0; 2]);
    for (contender, seconds) in contenders.iter().zip(seconds) {
        let rate = contender.schedules as f64 / median(seconds);
        println!("    {:<28} {rate:>10.0}", contender.name);
        match &*contender.name {
            name if name == BARE[0].0 => bare[0] = rate,
            name if name == BARE[1].0 => bare[1] = rate,
            name if name.starts_with("ksim") => ours = ours.max(rate),
            _ => theirs = theirs.max(rate),
        }
        match &*contender.name {
            "ksim random" => random[0] = rate,
            "shuttle Random" => random[1] = rate,
            _ => {}
        }
    }
    let [our_walk, their_walk] = random;
    println!(
        "    ksim's best : the best of the peers = {:.2}; random walk : random walk = {:.2}",
        ours / theirs,
        our_walk / their_walk
    );
    let [walk, straight] = bare.map(|rate| rate / theirs);
    println!("    a bare scheduler : the best of the peers = {walk:.2} at random, {straight:.2} hardly switching");
    println!("RESULT versus.{program}.rate_ratio {:.2}", ours / theirs);
    println!("RESULT versus.{program}.random_ratio {:.2}", our_walk / their_walk);
    println!("RESULT versus.{program}.bare_ratio {walk:.2}");
    println!("RESULT versus.{program}.bare_straight_ratio {straight:.2}");
    println!("RESULT versus.{program}.rate {ours:.0}");
}

fn counter_rates(threads: usize) {
    const TURNS: usize = 10;
    let (ours, theirs) = (20_000_u64, 4_000);
    let mut contenders = Vec::new();
    for (name, strategy) in STRATEGIES.into_iter().chain([BOUNDED]) {
        let run = move |seed| {
            run_ksim(strategy, seed, ours, 1, || programs::counter(threads, TURNS, &Mutex::zeroed())).expect_clean();
        };
        contenders.push(Contender { name: name.to_owned(), schedules: ours, run: Box::new(run) });
    }
    type WithThreads = fn(usize);
    let locks: [(&str, WithThreads); 2] = [
        ("ksim random, fast mutex", |threads| programs::counter(threads, TURNS, &FastMutex::zeroed())),
        ("ksim random, spin lock", |threads| programs::counter(threads, TURNS, &SpinLock::zeroed())),
    ];
    for (name, program) in locks {
        let run = move |seed| {
            run_ksim(Strategy::Random, seed, ours, 1, || program(threads)).expect_clean();
        };
        contenders.push(Contender { name: name.to_owned(), schedules: ours, run: Box::new(run) });
    }
    for by in shuttle::ALL {
        let run = move |seed| shuttle::run(by, seed, theirs as usize, move || shuttle::counter(threads, TURNS));
        contenders.push(Contender { name: format!("shuttle {by:?}"), schedules: theirs, run: Box::new(run) });
    }
    let run = move |_| loom::run(theirs as usize, None, move || loom::counter(threads, TURNS));
    contenders.push(Contender { name: "loom".to_owned(), schedules: theirs, run: Box::new(run) });
    for (name, by) in BARE {
        let run = move |seed: u64| (0..ours).for_each(|schedule| bare::counter(by, threads, TURNS, seed << 32 | schedule));
        contenders.push(Contender { name: name.to_owned(), schedules: ours, run: Box::new(run) });
    }
    rates(&format!("counter{threads}"), &format!("(a) {threads} threads, {TURNS} times lock, increment, unlock"), &contenders);
}

fn ping_pong_rates() {
    const ROUNDS: usize = 100;
    let (ours, theirs) = (4_000_u64, 1_000);
    let mut contenders = Vec::new();
    for (name, strategy) in STRATEGIES.into_iter().chain([BOUNDED]) {
        let run = move |seed| {
            run_ksim(strategy, seed, ours, 1, || programs::ping_pong(ROUNDS)).expect_clean();
        };
        contenders.push(Contender { name: name.to_owned(), schedules: ours, run: Box::new(run) });
    }
    for by in shuttle::ALL {
        let run = move |seed| shuttle::run(by, seed, theirs as usize, || shuttle::ping_pong(ROUNDS));
        contenders.push(Contender { name: format!("shuttle {by:?}"), schedules: theirs, run: Box::new(run) });
    }
    for (name, by) in BARE {
        let run = move |seed: u64| (0..ours).for_each(|schedule| bare::ping_pong(by, ROUNDS, seed << 32 | schedule));
        contenders.push(Contender { name: name.to_owned(), schedules: ours, run: Box::new(run) });
    }
    rates("pingpong", &format!("(b) ping-pong by semaphores, {ROUNDS} rounds (loom has none)"), &contenders);
}

type Program = fn();

/// Schedules and time to a bug, for each strategy: the median over the seeds.
fn bugs(title: &str, result: Option<&str>, ksim: Program, shuttle: Program, loom: Option<Program>) {
    println!("\n{title}: schedules to the bug, and time until it is reported");
    let show = |name: &str, found: Vec<Option<(u64, Duration)>>| {
        let misses = found.iter().filter(|found| found.is_none()).count();
        let schedules = median(found.iter().map(|found| found.map_or(u64::MAX, |(schedules, _)| schedules)).collect());
        let time = median(found.iter().map(|found| found.map_or(Duration::MAX, |(_, time)| time)).collect());
        match schedules {
            u64::MAX => println!("    {name:<28} not in {CAP} (missed by {misses} of {} seeds)", found.len()),
            _ => println!("    {name:<28} {schedules:>8} {time:>12.1?} (missed by {misses} of {} seeds)", found.len()),
        }
        schedules
    };
    for (name, strategy) in STRATEGIES {
        let search = |seed: u64, shrink: bool| {
            let begin = Instant::now();
            // Without the check of the order of locks, which finds the deadlocks in the first schedule.
            let machine = Machine::new().processors(8).check_lock_order(false);
            let search = explore().machine(machine).strategy(strategy).seed(seed).schedules(CAP as u64).shrink(shrink);
            let exploration = search.jobs(NonZeroUsize::MIN).progress(false).check(ksim);
            exploration.failure().map(|failure| (failure.schedule + 1, begin.elapsed()))
        };
        // The peers make no schedule smaller.
        let found = (0..SEEDS).map(|seed| search(seed, false));
        let schedules = show(name, found.collect());
        if strategy == Strategy::Portfolio && schedules != u64::MAX {
            let times = (0..SEEDS).filter_map(|seed| search(seed, true)).map(|(_, time)| time);
            println!("    {:<28} {:>8} {:>12.1?}", "the same, made smaller", "", median(times.collect()));
        }
        if let Some(result) = result.filter(|_| strategy == Strategy::Portfolio) {
            println!("RESULT versus.{result}.schedules_to_bug {schedules}");
        }
    }
    let begin = Instant::now();
    if let Some(failure) = run_ksim(Strategy::Portfolio, 0, CAP as u64, 1, ksim).failure() {
        let (schedules, elapsed) = (failure.schedule + 1, begin.elapsed());
        println!("    {:<28} {schedules:>8} {elapsed:>12.1?}", "ksim, lock order checked");
        if let Some(result) = result {
            println!("RESULT versus.{result}.lock_order_checked {schedules}");
        }
    }
    for by in shuttle::ALL.into_iter().filter(|&by| by != shuttle::By::Dfs) {
        let seeds = if matches!(by, shuttle::By::Random) && result == Some("order100") { 5 } else { SEEDS };
        let found = (0..seeds).map(|seed| until_failure(shuttle, |program| shuttle::run(by, seed, CAP, program)));
        show(&format!("shuttle {by:?}"), found.collect());
    }
    // It has no seeds.
    let Some(loom) = loom else { return };
    let limit = Duration::from_secs(2);
    match until_failure(loom, |program| loom::run(usize::MAX, Some(limit), program)) {
        Some((schedules, time)) => println!("    {:<28} {schedules:>8} {time:>12.1?}", "loom"),
        None => println!("    {:<28} not in {limit:?}", "loom"),
    }
}

fn exhaust_ksim(program: impl Fn() + Sync) -> Exploration {
    let machine = Machine::new().processors(8).check_lock_order(false);
    let search = explore().machine(machine).strategy(Strategy::Exhaustive).keep_going(true).progress(false);
    let exploration = search.check(program);
    assert!(exploration.is_exhausted(), "{exploration}");
    exploration
}

/// Executions until nothing is left.
fn exhausting() {
    println!("\nexecutions to exhaust (one for each class, at best), and time");
    let peer = |executions: u64, elapsed: Duration, cap: u64| match executions {
        executions if executions >= cap => format!("> {cap} in {elapsed:.1?}"),
        executions => format!("{executions} in {elapsed:.1?}"),
    };
    for (threads, turns, result) in
        [(2, 1, None), (2, 2, None), (2, 3, None), (2, 4, None), (2, 5, Some("2x5")), (3, 1, None), (3, 2, Some("3x2"))]
    {
        for (name, exploration) in [
            ("mutex", exhaust_ksim(|| programs::counter(threads, turns, &Mutex::zeroed()))),
            ("fast mutex", exhaust_ksim(|| programs::counter(threads, turns, &FastMutex::zeroed()))),
            ("spin lock", exhaust_ksim(|| programs::counter(threads, turns, &SpinLock::zeroed()))),
        ] {
            let (executions, elapsed) = (exploration.executions(), exploration.elapsed());
            println!("    {threads} x {turns}  ksim, {name:<12} {executions} in {elapsed:.1?}");
            if let Some(result) = result.filter(|_| name == "mutex") {
                println!("RESULT versus.exhaust.{result} {executions}");
            }
        }
        const LOOM_CAP: u64 = 10_000;
        let (runs, program) = counted(move || loom::counter(threads, turns));
        let elapsed = time(|| loom::run(LOOM_CAP as usize, None, program));
        println!("    {threads} x {turns}  loom               {}", peer(runs.load(Ordering::Relaxed), elapsed, LOOM_CAP));
        const DFS_CAP: u64 = 120_000;
        let (runs, program) = counted(move || shuttle::counter(threads, turns));
        let elapsed = time(|| shuttle::run(shuttle::By::Dfs, 0, DFS_CAP as usize, program));
        println!("    {threads} x {turns}  shuttle DFS        {}", peer(runs.load(Ordering::Relaxed), elapsed, DFS_CAP));
    }
    for number in [3, 4] {
        let exploration = exhaust_ksim(|| programs::philosophers(number));
        let (executions, elapsed) = (exploration.executions(), exploration.elapsed());
        println!("    {number} philosophers  ksim    {executions} in {elapsed:.1?}");
        if number == 4 {
            println!("RESULT versus.philosophers4.exhaust {executions}");
        }
        let limit = Duration::from_secs(2);
        let (runs, program) = counted(move || loom::philosophers(number));
        let found = until_failure(program, |program| loom::run(usize::MAX, Some(limit), program));
        let executions = runs.load(Ordering::Relaxed);
        let what = if found.is_some() { "to the deadlock, where it stops" } else { "without the deadlock, given up" };
        println!("    {number} philosophers  loom    {executions} {what}");
    }
}

/// What all cores give, beside what they give a loop that does nothing but arithmetic.
fn two_cores() {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let arithmetic = |threads: usize| {
        let spin = || {
            let mut state = std::hint::black_box(1_u64);
            for _ in 0..200_000_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            std::hint::black_box(state);
        };
        let elapsed = time(|| {
            std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(spin)));
        });
        threads as f64 / elapsed.as_secs_f64()
    };
    let search = |jobs: usize| {
        let schedules = 60_000 * jobs as u64;
        let program = || programs::counter(2, 10, &Mutex::zeroed());
        let elapsed = time(|| _ = run_ksim(Strategy::Portfolio, 0, schedules, jobs, program).expect_clean());
        schedules as f64 / elapsed.as_secs_f64()
    };
    let speed_up = |rate: &dyn Fn(usize) -> f64| {
        let pairs: Vec<f64> = (0..TRIALS).map(|_| rate(cores) / rate(1)).collect();
        median(pairs)
    };
    let (loops, searches) = (speed_up(&arithmetic), speed_up(&search));
    println!("\n{cores} cores: a search is {searches:.2} times as fast as on one, a loop of arithmetic {loops:.2} times");
    println!("RESULT versus.two_cores.efficiency {:.2}", searches / loops);
}

/// What is measured, by name.
const PARTS: [(&str, fn()); 9] = [
    ("counter2", || counter_rates(2)),
    ("counter3", || counter_rates(3)),
    ("pingpong", ping_pong_rates),
    ("exhaust", exhausting),
    ("philosophers4", || {
        bugs(
            "(c) 4 philosophers",
            Some("philosophers4"),
            || programs::philosophers(4),
            || shuttle::philosophers(4),
            Some(|| loom::philosophers(4)),
        );
    }),
    // loom has 5 threads at most.
    ("philosophers6", || bugs("(c) 6 philosophers", None, || programs::philosophers(6), || shuttle::philosophers(6), None)),
    ("abba100", || {
        bugs(
            "(d) AB-BA behind 100",
            Some("abba100"),
            || programs::opposite_orders(100),
            || shuttle::opposite_orders(100),
            Some(|| loom::opposite_orders(100)),
        );
    }),
    ("order100", || {
        bugs(
            "(e) an order behind 100",
            Some("order100"),
            || programs::order_violation(100),
            || shuttle::order_violation(100),
            Some(|| loom::order_violation(100)),
        );
    }),
    ("two_cores", two_cores),
];

fn main() {
    // The failures that are looked for are no news. What ends the bench is.
    let verbose = std::panic::take_hook();
    let looking = std::env::args().any(|argument| argument == "--verbose");
    if !looking {
        std::panic::set_hook(Box::new(|_| ()));
    }
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| !PARTS.iter().any(|(part, _)| part == name)) {
        let parts: Vec<_> = PARTS.iter().map(|(part, _)| *part).collect();
        eprintln!("there is no part `{unknown}`; there are: {}", parts.join(" "));
        std::process::exit(2);
    }
    let ended = std::panic::catch_unwind(|| {
        let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
        PARTS.iter().filter(|(part, _)| wanted(part)).for_each(|(_, measure)| measure());
    });
    std::panic::set_hook(verbose);
    if let Err(payload) = ended {
        std::panic::resume_unwind(payload);
    }
}
