//! How readers wait.

/// How to wait for records: the sooner they are seen, the more the waiting costs.
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
