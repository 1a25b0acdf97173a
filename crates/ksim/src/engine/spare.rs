//! The memory of machines: one that is over leaves its own to the next on the same OS thread.
//!
//! A search runs very many short machines. What each of them allocates and frees would take longer than what it does.

use super::addresses::AddressTable;
use super::clock::Clock;
use super::kernel::{Executing, Kernel, Stop};
use super::ob::ObjectManager;
use super::object::ObjectTable;
use super::pool::Pool;
use super::processor::Processors;
use super::turns::Repeats;
use crate::config::Config;
use crate::report::trace::Trace;
use crate::schedule::{Decision, Policy};
use rustc_hash::FxHashMap;
use std::cell::Cell;

/// How many threads' memory is kept.
const SPARE_THREADS: usize = 64;

/// Above so many objects a machine's table is not kept.
const SPARE_OBJECTS: usize = 4096;

thread_local! {
    static SPARE: Cell<Option<Box<Kernel>>> = const { Cell::new(None) };
}

/// Most machines leave most parts as they were: what those have, which is nothing, need not be given back.
#[inline]
fn renew_unless<T: Default>(is_unused: bool, part: &mut T) {
    if !is_unused {
        *part = T::default();
    }
}

/// The policy of no machine.
#[derive(Debug)]
struct NoPolicy;

impl Policy for NoPolicy {
    fn choose(&mut self, _decision: &Decision<'_>) -> u32 {
        0
    }
}

impl Kernel {
    /// A machine before its first thread.
    pub(crate) fn boot(config: &Config, policy: Box<dyn Policy>) -> Box<Self> {
        let mut kernel = SPARE.take().unwrap_or_else(|| Box::new(Self::empty()));
        kernel.processors.set_count(usize::from(config.processors));
        kernel.clock = Clock::new(config.system_time, config.clock);
        kernel.trace = Trace::new(config.trace);
        kernel.records = config.trace || config.sites;
        if config.trace {
            kernel.objects.keep_kinds();
        }
        kernel.pool.set_up(config);
        kernel.observed = policy.observes();
        kernel.looks = policy.looks();
        kernel.plain = !kernel.observed && config.early_expiries == 0;
        kernel.policy = policy;
        if config.statics {
            kernel.objects.claim_all();
        }
        kernel.early_left = config.early_expiries;
        kernel.config.clone_from(config);
        kernel.boot_object_manager();
        kernel
    }

    /// A machine without anything in it.
    fn empty() -> Self {
        let config = Config::default();
        Self {
            policy: Box::new(NoPolicy),
            observed: false,
            looks: false,
            repeats: Repeats::default(),
            plain: false,
            choices: None,
            classifies: false,
            class: 0,
            last_unknown: 0,
            first_operations: AddressTable::default(),
            processors: Processors::default(),
            cpu: 0,
            executing: Executing::Machine,
            runnable: 0,
            announced: 0,
            chosen: None,
            acting: 0,
            early_left: 0,
            clock_due: false,
            expiring: false,
            stalls: false,
            clock_moves: 0,
            in_a_row: (0, 0),
            attention: false,
            threads: Vec::new(),
            spare_threads: Vec::new(),
            live_threads: 0,
            ideal_seed: 0,
            ready: Default::default(),
            objects: ObjectTable::default(),
            timers: Default::default(),
            timer_apcs: Default::default(),
            dpcs: Default::default(),
            wanted_dpc_threads: Vec::new(),
            generic: Default::default(),
            run_once: Default::default(),
            clock: Clock::new(config.system_time, config.clock),
            pool: Pool::new(),
            ob: ObjectManager::default(),
            drivers: Default::default(),
            io: Default::default(),
            image_locals: Default::default(),
            lock_order: Default::default(),
            uses: 0,
            semaphore_locks: FxHashMap::default(),
            trace: Trace::new(false),
            records: false,
            sites: Default::default(),
            acquired: FxHashMap::default(),
            debug_output: Vec::new(),
            debug_partial: String::new(),
            races: Default::default(),
            polled: false,
            vain_rounds: 0,
            stop: None,
            failing: 0,
            steps: 0,
            switches: 0,
            dpcs_run: 0,
            config,
        }
    }

    /// The machine is over: it becomes empty, and its memory is kept for the next.
    pub(crate) fn recycle(mut self: Box<Self>) {
        // Each field is named, so that none is forgotten. What comes with a new machine's settings is left to `boot`.
        let Self {
            config: _,
            policy,
            observed: _,
            looks: _,
            repeats,
            plain: _,
            choices,
            classifies,
            class,
            last_unknown,
            first_operations,
            processors,
            cpu,
            executing,
            runnable,
            announced,
            chosen,
            acting,
            early_left,
            clock_due,
            expiring,
            stalls,
            clock_moves,
            in_a_row,
            attention,
            threads,
            spare_threads,
            live_threads,
            ideal_seed,
            ready,
            objects,
            timers,
            timer_apcs,
            dpcs,
            wanted_dpc_threads,
            generic,
            run_once,
            clock: _,
            pool,
            ob,
            drivers,
            io,
            image_locals,
            lock_order,
            uses,
            semaphore_locks,
            trace,
            records: _,
            sites,
            acquired,
            debug_output,
            debug_partial,
            races,
            polled,
            vain_rounds,
            stop,
            failing,
            steps,
            switches,
            dpcs_run,
        } = &mut *self;
        if objects.uses_statics() {
            objects.free_statics();
            if !matches!(stop, Some(Stop::Completed)) {
                // What it has left in other statics may name its threads, and no thread of another machine is to be taken for one of them.
                std::mem::forget(std::mem::take(threads));
            }
        }
        *policy = Box::new(NoPolicy);
        *choices = None;
        (*classifies, *class, *last_unknown) = (false, 0, 0);
        first_operations.clear();
        processors.recycle();
        (*cpu, *executing, *runnable, *announced, *chosen) = (0, Executing::Machine, 0, 0, None);
        (*early_left, *clock_due, *expiring, *stalls, *clock_moves) = (0, false, false, false, 0);
        (*acting, *in_a_row, *repeats, *attention) = (0, (0, 0), Repeats::default(), false);
        threads.truncate(SPARE_THREADS.saturating_sub(spare_threads.len()));
        threads.iter_mut().for_each(|thread| thread.recycle());
        spare_threads.append(threads);
        (*live_threads, *ideal_seed) = (0, 0);
        ready.clear();
        if objects.len() > SPARE_OBJECTS {
            *objects = ObjectTable::default();
        } else {
            objects.clear();
        }
        renew_unless(timers.is_unused(), timers);
        renew_unless(timer_apcs.is_unused(), timer_apcs);
        renew_unless(dpcs.inserted == 0 && dpcs.flushing.is_empty(), dpcs);
        wanted_dpc_threads.clear();
        generic.clear();
        renew_unless(run_once.is_unused(), run_once);
        pool.clear();
        ob.clear();
        renew_unless(drivers.is_unused(), drivers);
        io.clear();
        renew_unless(image_locals.is_unused(), image_locals);
        renew_unless(lock_order.is_unused(), lock_order);
        *uses = 0;
        semaphore_locks.clear();
        *trace = Trace::new(false);
        renew_unless(sites.is_empty(), sites);
        acquired.clear();
        debug_output.clear();
        debug_partial.clear();
        renew_unless(races.is_unused(), races);
        (*polled, *vain_rounds, *stop, *failing) = (false, 0, None, 0);
        (*steps, *switches, *dpcs_run) = (0, 0, 0);
        SPARE.set(Some(self));
    }
}
