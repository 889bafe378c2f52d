//! A shard among its relatives: what it owns, whom it descends from, where it ends.

use crate::hash_key::HashKeyRange;
use crate::position::{SequenceNumber, ShardId};

/// What a stream knows of one of its shards.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::ShardId;
///
/// let [_, high] = stream.split_mid(ShardId::new(0))?;
/// for shard in stream.shards() {
///     println!("{}: {} open: {}", shard.id, shard.hash_key_range, shard.is_open());
/// }
/// let child = stream.shards().into_iter().find(|shard| shard.id == high).expect("it was made");
/// assert_eq!(child.parents().collect::<Vec<_>>(), [ShardId::new(0)]);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ShardInfo {
    /// The shard's identity.
    pub id: ShardId,
    /// The hash keys whose records go (or, if the shard is closed, went) to it.
    pub hash_key_range: HashKeyRange,
    /// The shard it came from by a split or merge; of a merge, the one with the lower range.
    pub parent: Option<ShardId>,
    /// The other parent, if it came from a merge.
    pub adjacent_parent: Option<ShardId>,
    /// Every number in the shard is at least this one.
    pub starting_sequence_number: SequenceNumber,
    /// If the shard is closed: every number in it is at most this one.
    pub ending_sequence_number: Option<SequenceNumber>,
    /// When the shard was made, in milliseconds since 1970 by the stream's clock, but never before
    /// any older shard; 0 if that is not known.
    pub opened_ms: u64,
    /// If the shard is closed: when its children took over, which is when they were made.
    pub closed_ms: Option<u64>,
}

impl ShardInfo {
    /// Whether records can still be put to the shard: it was neither split nor merged.
    pub fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }

    /// Whether a record with this number can be in the shard.
    pub(crate) fn may_have(&self, number: SequenceNumber) -> bool {
        self.starting_sequence_number <= number
            && self.ending_sequence_number.is_none_or(|end| number <= end)
    }

    /// The shards it came from: none, one (split) or two (merge).
    pub fn parents(&self) -> impl Iterator<Item = ShardId> {
        [self.parent, self.adjacent_parent].into_iter().flatten()
    }
}

/// Which shards to list, with the six meanings that ListShards has in Kinesis; see
/// [`Stream::shards_with`](crate::Stream::shards_with).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{ShardFilter, ShardId};
///
/// stream.split_mid(ShardId::new(0))?;
/// assert_eq!(stream.shards().len(), 3);
/// assert_eq!(stream.shards_with(ShardFilter::AtLatest).len(), 2);
/// assert_eq!(stream.shards_with(ShardFilter::AfterShardId(ShardId::new(1))).len(), 1);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ShardFilter {
    /// AT_LATEST: the open shards.
    AtLatest,
    /// AT_TRIM_HORIZON: those that were open when the oldest records were put.
    AtTrimHorizon,
    /// FROM_TRIM_HORIZON: all of which there are records, and all open ones.
    FromTrimHorizon,
    /// AT_TIMESTAMP: those that were open at this time, in milliseconds since 1970; before the
    /// stream was created, those that it was created with. Their ranges are the whole ring.
    AtTimestampMs(u64),
    /// FROM_TIMESTAMP: those that were open at this time or later.
    FromTimestampMs(u64),
    /// AFTER_SHARD_ID: those with a higher id.
    AfterShardId(ShardId),
}

impl ShardFilter {
    /// The shards that it lets through, of all there are by rising id.
    pub(crate) fn select(self, mut shards: Vec<ShardInfo>) -> Vec<ShardInfo> {
        let ids: Vec<_> = shards.iter().map(|shard| shard.id).collect();
        let created_ms = shards.iter().map(|shard| shard.opened_ms).min().unwrap_or(0);
        shards.retain(|shard| match self {
            Self::AtLatest => shard.is_open(),
            Self::AtTrimHorizon => {
                !shard.parents().any(|parent| ids.binary_search(&parent).is_ok())
            }
            Self::FromTrimHorizon => true,
            Self::AtTimestampMs(ms) => {
                let ms = ms.max(created_ms);
                shard.opened_ms <= ms && shard.closed_ms.is_none_or(|closed| ms < closed)
            }
            Self::FromTimestampMs(ms) => shard.closed_ms.is_none_or(|closed| ms <= closed),
            Self::AfterShardId(id) => shard.id > id,
        });
        shards
    }
}
