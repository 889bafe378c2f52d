//! How a pool has left its shards.

use std::sync::Arc;

use crate::position::ShardId;

/// How one shard of a stream was left; see [`WorkerPool::shutdown`](crate::WorkerPool::shutdown).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{ShardOutcome, WorkerPool};
///
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// for ShardOutcome { stream, shard, outcome, .. } in pool.shutdown(Duration::from_secs(10)) {
///     println!("{stream} {shard}: {outcome:?}");
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ShardOutcome {
    /// The directory of the stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: ShardId,
    /// How it was left.
    pub outcome: Outcome,
}

/// How one shard was left.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{Outcome, WorkerPool};
///
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// for shard in pool.shutdown(Duration::from_secs(10)) {
///     match shard.outcome {
///         Outcome::Failed { attempts, error } => eprintln!("{attempts} times: {error}"),
///         other => println!("{}: {other:?}", shard.shard),
///     }
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Outcome {
    /// It stopped between two batches, or had not begun: what was processed is checkpointed, as the
    /// policy has it.
    Stopped,
    /// The shard is processed to its end.
    Ended,
    /// Another pool of the application has the shard, or is about to have it.
    Elsewhere,
    /// A callback was running at the deadline, of this shard or of others that kept all threads
    /// busy. If a batch is processed successfully after all, it is checkpointed still; no other
    /// callback is called.
    NotFinished,
    /// Its last attempt had failed, and the next one had got nowhere yet or was not to come; or its
    /// processor failed when it was told of the shutdown. Nothing that failed is checkpointed.
    Failed {
        /// How many attempts had failed since the worker last got on.
        attempts: u32,
        /// The last failure.
        error: String,
    },
}

impl Outcome {
    /// Of the outcomes of several lanes, the one with the highest is the shard's.
    pub(super) fn concern(&self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::Stopped => 1,
            Self::Elsewhere => 2,
            Self::Failed { .. } => 3,
            Self::NotFinished => 4,
        }
    }
}
