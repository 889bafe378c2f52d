//! A shard among its relatives: what it owns, whom it descends from, where it ends.

use crate::hash_key::HashKeyRange;
use crate::position::{SequenceNumber, ShardId};

/// What a stream knows of one of its shards.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
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
}

impl ShardInfo {
    /// Whether records can still be put to the shard: it was neither split nor merged.
    pub fn is_open(&self) -> bool {
        self.ending_sequence_number.is_none()
    }

    /// The shards it came from: none, one (split) or two (merge).
    pub fn parents(&self) -> impl Iterator<Item = ShardId> {
        [self.parent, self.adjacent_parent].into_iter().flatten()
    }
}
