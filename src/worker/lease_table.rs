//! What a pool needs of the place where an application's leases are kept: rows that are replaced
//! only as they were seen, and word of who is there. The files beside a stream are one; a table in
//! a database with conditional updates is another.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::format::control_row::{ControlRow, MemberId};
use crate::position::ShardId;

/// The pools of an application that are there, and whether each still takes shards.
pub(crate) type Members = BTreeMap<MemberId, bool>;

/// The rows to be made, given the shards that have one.
pub(crate) type Missing<'a> = &'a dyn Fn(&BTreeSet<ShardId>) -> Result<Vec<(ShardId, ControlRow)>>;

/// The leases of one application, as one of its pools sees them.
///
/// A pool that is not among the members any more, as it died or was not heard of for too long, may
/// lose its leases to others at any moment; whatever it writes to their rows then is refused.
pub(crate) trait LeaseTable: Send + Sync {
    /// Who this pool is.
    fn me(&self) -> MemberId;
    /// Says that this pool is there still, and returns all that are.
    fn attend(&self) -> Result<Members>;
    /// This pool takes no more shards; what it has it keeps until it releases it.
    fn leave(&self) -> Result<()>;
    /// Makes rows, in the order given; nobody else makes any in between.
    fn make_rows(&self, missing: Missing<'_>) -> Result<()>;
    /// Removes the row of a shard; one that is not there any more is no error.
    fn remove(&self, shard: ShardId) -> Result<()>;
    /// What the row of a shard says, [`Error::ShardNotFound`] if it has none; perhaps not the very
    /// newest.
    fn read(&self, shard: ShardId) -> Result<ControlRow>;
    /// Replaces the row of a shard if its generation is the one before this; false, and nothing is
    /// changed, if it is not.
    fn replace(&self, shard: ShardId, row: &ControlRow) -> Result<bool>;
}
