//! The right to consume a shard: how an application comes by it, when it may be used, how it is
//! lost.
//!
//! **Where an application begins.** Its starting position holds for the shards that it finds when
//! it is new, whether they are open or closed; of those that are closed, the ones without a record
//! at or behind the position are noted as ended. A shard that descends from one the application
//! knew is read from its first record, always: records went to the child because they did not go
//! to the parent any more. So no reshard, at whatever moment, makes an application skip a record.
//!
//! **When a child begins.** When each of its parents is at SHARD_END or is not there any more.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::lineage::ShardInfo;
use crate::position::{ShardId, StartingPosition};
use crate::worker::checkpoint::Checkpoint;
use crate::worker::control_table::{ControlTable, RowFile};
use crate::worker::source::Source;

/// The right to process a shard and to move its checkpoint, until another one takes it.
#[derive(Debug)]
pub(super) struct Lease {
    row: RowFile,
    epoch: u64,
    checkpoint: Checkpoint,
    is_lost: bool,
    has_failed: bool,
}

impl Lease {
    /// Takes the lease, from whoever had it; there is none of a shard at SHARD_END.
    pub(super) fn take(row: RowFile) -> Result<Option<Self>> {
        let last = row.read()?;
        let (epoch, checkpoint) = (last.epoch + 1, Checkpoint::at(last.checkpoint));
        if checkpoint == Checkpoint::ShardEnd {
            return Ok(None);
        }
        row.write_after(&last, epoch, checkpoint)?;
        Ok(Some(Self { row, epoch, checkpoint, is_lost: false, has_failed: false }))
    }

    pub(super) fn shard(&self) -> ShardId {
        self.row.shard()
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// Whether a checkpoint was refused because another one has the lease.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Whether a checkpoint could not be stored since this was asked last.
    pub(super) fn take_failure(&mut self) -> bool {
        std::mem::take(&mut self.has_failed)
    }

    /// Stores a checkpoint; after an error the last one holds.
    pub(super) fn store(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.try_store(checkpoint).inspect_err(|_| self.has_failed = true)
    }

    fn try_store(&mut self, checkpoint: Checkpoint) -> Result<()> {
        if checkpoint == self.checkpoint {
            return Ok(());
        }
        // The file decides: it is where another owner leaves its epoch.
        let last = self.row.read()?;
        if last.epoch != self.epoch && cfg!(not(millstream_bug = "epoch_not_checked")) {
            self.is_lost = true;
            return Err(Error::LeaseLost { shard: self.shard() });
        }
        self.row.write_after(&last, self.epoch, checkpoint)?;
        self.checkpoint = checkpoint;
        Ok(())
    }
}

/// Makes a row for each of these shards that has none.
pub(super) fn make_rows<S: Source>(
    table: &ControlTable,
    source: &S,
    shards: &[ShardInfo],
    start: StartingPosition,
) -> Result<()> {
    let known = table.shards()?;
    let mut rows = BTreeMap::new();
    let mut descendants = known.clone();
    // Ids rise from parent to child.
    let by_id: BTreeMap<_, _> = shards.iter().map(|shard| (shard.id, shard)).collect();
    for (&id, shard) in by_id.iter().filter(|(id, _)| !known.contains(id)) {
        let checkpoint = if shard.parents().any(|parent| descendants.contains(&parent)) {
            descendants.insert(id);
            Checkpoint::TrimHorizon
        } else {
            first_checkpoint(source, shard, start)?
        };
        rows.insert(id, checkpoint);
    }
    // Children first: if this is cut short, what is missing does not descend from what is there,
    // and the application is still new to it.
    rows.into_iter().rev().try_for_each(|(id, checkpoint)| table.create(id, checkpoint))
}

/// Where an application that is new to a shard begins.
fn first_checkpoint<S: Source>(
    source: &S,
    shard: &ShardInfo,
    start: StartingPosition,
) -> Result<Checkpoint> {
    if start == StartingPosition::TrimHorizon {
        return Ok(Checkpoint::TrimHorizon);
    }
    let cursor = source.cursor(shard.id, start)?;
    let is_over = !shard.is_open() && source.lag(&cursor)?.records == 0;
    Ok(Checkpoint::at((!is_over).then(|| source.position(&cursor))))
}

/// Whether the shard may be consumed, given the shards there are and those at SHARD_END.
pub(super) fn may_begin(
    shard: &ShardInfo,
    shards: &BTreeSet<ShardId>,
    ended: &BTreeSet<ShardId>,
) -> bool {
    cfg!(millstream_bug = "child_before_parent")
        || shard.parents().all(|parent| ended.contains(&parent) || !shards.contains(&parent))
}
