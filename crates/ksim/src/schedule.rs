//! Who acts next: one search policy per file.
//!
//! Everything in a run that NT leaves open is one call of [`Policy::choose`]: which processor performs the next visible
//! operation, whether a quantum ends here, by how much a timer is late. A policy and its seed therefore determine a run completely.
//!
//! # Points
//! A context (a thread, or the DPC queue of a processor) runs undisturbed up to its next *visible operation*, one that touches what others can see. There it announces what
//! it is about to do, a [`Footprint`], and waits to be chosen. So whenever there is a choice, every context that could act has said what it would do.

mod bounded;
mod decision;
mod exhaustive;
mod footprint;
mod guided;
mod pct;
mod portfolio;
mod pos;
mod random;
mod replay;
mod round_robin;
mod strategy;
mod urw;

pub(crate) use bounded::{Bounded, BoundedSearch};
pub use decision::{Actor, Candidate, Decision};
pub(crate) use decision::{Contexts, Progress, Resolver, nth_set_bit};
pub(crate) use exhaustive::{Exhaustive, Next as NextRun, Search as ExhaustiveSearch};
pub use footprint::{Effect, Footprint};
pub(crate) use guided::Guided;
pub use pct::Pct;
pub use pos::Pos;
pub use random::Random;
pub(crate) use replay::Replay;
pub use round_robin::RoundRobin;
pub use strategy::Strategy;
pub(crate) use strategy::{Estimate, Planned};
pub use urw::Urw;

/// What a run of a search in which each is planned by those before it came to.
pub(crate) struct Finished {
    /// The run repeats none that has been, or will be made.
    pub(crate) counts: bool,
    /// More are to be made.
    pub(crate) more: bool,
}

/// At how many places a search that becomes parts is divided.
pub(crate) const DIVIDED: usize = 3;

/// Decides what NT leaves open.
pub trait Policy: std::fmt::Debug {
    /// Picks one of the [options](Decision::len), of which there are at least 2, by its number.
    ///
    /// Option 0 is the uneventful one: the context that acted last goes on, unless it stalls or has gone on for very long, or a timer is punctual.
    fn choose(&mut self, decision: &Decision<'_>) -> u32;

    /// Whether it looks at more of a decision than how many options there are. One that does not may find nothing else in it. Asked once, before the run.
    fn looks(&self) -> bool {
        true
    }

    /// Whether [`observe`](Self::observe) is to be called. Asked once, before the run.
    fn observes(&self) -> bool {
        false
    }

    /// Learns what happens, whether there was a choice or not.
    fn observe(&mut self, event: Event) {
        let _ = event;
    }
}

/// What a policy can observe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A context performs its operation.
    Performs {
        /// Which.
        actor: Actor,
        /// What.
        operation: Footprint,
        /// Whether another than the object's owner could have acquired the object at this moment.
        available: bool,
    },
    /// Whatever `actor` does from now on comes after what `after` has done: it was created, woken or held back by it.
    Follows {
        /// The later.
        actor: Actor,
        /// The earlier.
        after: Actor,
    },
    /// What has happened last has given this processor a thread.
    Occupies {
        /// Which.
        processor: u8,
    },
    /// What has happened last, after which `actor` acts, creates a thread.
    Creates {
        /// Who creates it.
        actor: Actor,
        /// Whether its ideal processor was that of a thread that has ended.
        reuses: bool,
    },
    /// Likewise, it frees a block of pool.
    Frees {
        /// Who frees it.
        actor: Actor,
        /// Stands for the block: two that have the same number may be the same one.
        block: u16,
    },
    /// Likewise, it lets a DPC run that lies in a block of pool.
    Uses {
        /// The DPCs of a processor.
        actor: Actor,
        /// As in `Frees`.
        block: u16,
    },
    /// What has happened last queues a DPC.
    Queues {
        /// Stands for it within the run.
        dpc: usize,
    },
    /// A DPC leaves its queue and runs: whatever `actor` does from now on comes after what has queued it.
    Starts {
        /// The DPCs of a processor, or the thread that runs its threaded DPCs.
        actor: Actor,
        /// As in `Queues`.
        dpc: usize,
    },
    /// What has happened last makes these DPCs interrupt their processor.
    Interrupts {
        /// The DPCs of a processor.
        dpcs: Actor,
    },
    /// The DPCs of a processor are over, and what `actor` does next comes after them, as it runs there. It could as well have come before what made them interrupt it.
    Resumes {
        /// The thread.
        actor: Actor,
        /// The DPCs.
        after: Actor,
    },
    /// What has happened last takes away the DPCs that would have interrupted a processor, so that `actor` goes on there.
    Spares {
        /// The thread.
        actor: Actor,
        /// The DPCs.
        dpcs: Actor,
    },
    /// Nothing could act, and the clock moved, or contexts that waited for a write go on without one: whatever comes now comes after all there was.
    ClockMoves,
    /// The run is over, and `actor` would have performed this next.
    Unperformed {
        /// Which.
        actor: Actor,
        /// What.
        operation: Footprint,
        /// As in `Performs`.
        available: bool,
    },
}
