//! How long to wait after a failure.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Longer than anybody waits, and short enough to be added to any time.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How long to wait after a failure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryDelay {
    first: Duration,
    max: Duration,
    /// Whether it is shortened by chance.
    is_varied: bool,
}

impl RetryDelay {
    pub(crate) const fn varied(first: Duration, max: Duration) -> Self {
        Self { first, max, is_varied: true }
    }

    /// One that tells the same at every time.
    #[cfg(test)]
    pub(super) const fn exactly(first: Duration, max: Duration) -> Self {
        Self { first, max, is_varied: false }
    }

    /// The delay after this many failures in a row.
    pub(crate) fn after(self, failures: u32) -> Duration {
        // Hashers of the standard library are seeded randomly.
        let random = || RandomState::new().hash_one(failures);
        self.shortened(failures, if self.is_varied { random() } else { 0 })
    }

    fn shortened(self, failures: u32, random: u64) -> Duration {
        let factor = 1u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let delay = self.first.saturating_mul(factor).min(self.max).min(LONGEST_DELAY);
        delay.mul_f64(1.0 - random as f64 / u64::MAX as f64 / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retry_delay_doubles_up_to_the_maximum_less_up_to_a_half() {
        let delay = RetryDelay::varied(Duration::from_secs(1), Duration::from_secs(10));
        for (failures, seconds) in [(1, 1), (2, 2), (4, 8), (5, 10), (33, 10), (u32::MAX, 10)] {
            let whole = Duration::from_secs(seconds);
            assert_eq!(delay.shortened(failures, 0), whole);
            assert_eq!(delay.shortened(failures, u64::MAX), whole / 2);
            assert!((whole / 2..=whole).contains(&delay.after(failures)));
        }
    }

    #[test]
    fn the_longest_delay_is_no_panic() {
        let delay = RetryDelay::varied(Duration::MAX, Duration::MAX);
        assert_eq!(delay.shortened(7, 0), LONGEST_DELAY);
    }
}
