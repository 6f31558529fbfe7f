//! Waiting times that differ from run to run, so that nothing is tuned to one number.

use std::{env, ops::Range, time::Duration};

/// Draws from a seed that is printed, and taken from `GOPULSE_SEED` to repeat a run.
pub struct Draw(fastrand::Rng);

impl Draw {
    /// A seed for one scenario.
    pub fn new(scenario: &str) -> Self {
        let seed = env::var("GOPULSE_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| fastrand::u64(..1_000_000));
        eprintln!("{scenario}: GOPULSE_SEED={seed}");
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A time in whole milliseconds.
    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(self.0.u64(range))
    }

    /// A number.
    pub fn number(&mut self, range: Range<u64>) -> u64 {
        self.0.u64(range)
    }
}
