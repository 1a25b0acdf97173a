//! The library's primitives under searches of schedules: exhaustively in small programs, and by the portfolio in larger ones.
//!
//! The portfolio runs few schedules, or as many as `KSIM_SCHEDULES` says.

#[path = "search/atomics.rs"]
mod atomics;
#[path = "search/cells.rs"]
mod cells;
#[path = "search/driver.rs"]
mod driver;
#[path = "search/later.rs"]
mod later;
#[path = "search/locks.rs"]
mod locks;
#[path = "search/memory.rs"]
mod memory;
#[path = "search/signals.rs"]
mod signals;

use ksim::explore;
use ksim::explore::{Exploration, Strategy};

/// How many schedules the portfolio runs, where the environment does not say.
const SCHEDULES: u64 = 40;

/// Runs all schedules that differ. Each thread, the first included, needs one of the processors.
#[track_caller]
fn exhaust(processors: u8, program: impl Fn() + Sync) -> Exploration {
    let exploration = explore().processors(processors).strategy(Strategy::Exhaustive).check(program);
    exploration.expect_clean();
    exploration
}

/// Runs schedules of the portfolio.
#[track_caller]
fn sample(processors: u8, program: impl Fn() + Sync) {
    explore().processors(processors).schedules(SCHEDULES).check(program).expect_clean();
}
