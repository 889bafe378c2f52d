//! How readers wait.

/// How to wait for records: the sooner they are seen, the more the waiting costs.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::{ShardId, StartingPosition, WaitStrategy};
///
/// let newest = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
/// let is_something_there =
///     stream.wait_with(&newest, Duration::from_micros(100), WaitStrategy::Spin)?;
/// assert!(!is_something_there);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Sleeps until woken by the put, some 10 microseconds late, if there are no news in the first
    /// 20; costs nothing while it sleeps.
    #[default]
    Park,
    /// Looks again and again, and lets other threads run in between.
    Yield,
    /// Looks again and again: well below a microsecond late, takes a whole core.
    Spin,
}
