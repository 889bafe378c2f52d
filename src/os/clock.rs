//! Time enters here, so that a test can decide what time it is.

use std::fmt;
use std::sync::Arc;

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

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Given(_) => "Given",
        })
    }
}
