//! Time enters here, so that a test can decide what time it is.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(test)]
use parking_lot::Mutex;

/// Where a stream takes its time from.
///
/// ```
/// use millstream::Clock;
///
/// /// Always the same moment.
/// struct Stopped;
///
/// impl Clock for Stopped {
///     fn now_ms(&self) -> u64 {
///         1_000_000_000_000
///     }
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// let stream = millstream::Stream::builder(dir.path()).clock(Stopped).open()?;
/// assert_eq!(stream.put("key", "data")?.arrival_ms, 1_000_000_000_000);
/// # Ok::<(), millstream::Error>(())
/// ```
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970; may step back, as clocks do.
    fn now_ms(&self) -> u64;
}

/// The clock of a stream: the system's unless another one was given.
#[derive(Clone, Default)]
pub(crate) enum Time {
    #[default]
    System,
    Given(Arc<dyn Clock>),
}

impl Time {
    /// Milliseconds since 1970. The system's coarse clock is read without a system call and is
    /// up to 4 ms late.
    pub(crate) fn now_ms(&self) -> u64 {
        match self {
            Self::System => {
                let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
                now.tv_sec.cast_unsigned() * 1000 + now.tv_nsec.cast_unsigned() / 1_000_000
            }
            Self::Given(clock) => clock.now_ms(),
        }
    }
}

/// Time that only goes forward, for what is to happen later.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ticker {
    #[default]
    System,
    /// It begins at some moment, and goes on when a test says so.
    #[cfg(test)]
    Given(Instant, Arc<Mutex<Duration>>),
}

impl Ticker {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            #[cfg(test)]
            Self::Given(start, elapsed) => *start + *elapsed.lock(),
        }
    }

    /// Lets time pass.
    pub(crate) fn sleep(&self, time: Duration) {
        match self {
            Self::System => std::thread::sleep(time),
            #[cfg(test)]
            Self::Given(..) => self.advance(time),
        }
    }

    #[cfg(test)]
    pub(crate) fn given() -> Self {
        Self::Given(Instant::now(), Arc::default())
    }

    #[cfg(test)]
    pub(crate) fn advance(&self, by: Duration) {
        match self {
            Self::System => panic!("the system's time cannot be set"),
            Self::Given(_, elapsed) => *elapsed.lock() += by,
        }
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Given(_) => "Given",
        })
    }
}
