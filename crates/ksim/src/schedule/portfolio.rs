//! Several policies in turn, as none is best for all bugs.
//!
//! URW is best for deadlocks and narrow windows, PCT of depth 2 for violations of an order, POS is never bad.

use super::Strategy;

/// What is used in turn.
const TURNS: [Strategy; 4] = [Strategy::Urw, Strategy::Pos, Strategy::Pct { depth: 2 }, Strategy::Pct { depth: 3 }];

/// The strategy of one schedule.
pub(super) fn turn(schedule: u64) -> Strategy {
    TURNS[(schedule % TURNS.len() as u64) as usize]
}
