//! The right to consume a shard: how an application comes by it, when it may be used, how it is
//! lost.
//!
//! **Where an application begins.** Its starting position holds for the shards that it finds when
//! it is new, whether they are open or closed; of those that are closed, the ones without a record
//! at or behind the position are noted as ended. A shard that descends from one the application
//! knew is read from its first record, always: records went to the child because they did not go
//! to the parent any more. So no reshard, at whatever moment, makes an application skip a record.
//!
//! A shard that has expired, so that nothing is left in it, gets no row.
//!
//! **When a child begins.** When each of its parents is at SHARD_END or is not there any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::control_row::{ControlRow, PendingRow};
use crate::lineage::ShardInfo;
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::seeded::bug;
use crate::worker::checkpoint::Checkpoint;
use crate::worker::lease_table::LeaseTable;
use crate::worker::source::Source;

/// The right to process a shard and to move its checkpoint, until another one takes it.
pub(crate) struct Lease {
    table: Arc<dyn LeaseTable>,
    shard: ShardId,
    /// As it was seen last.
    row: ControlRow,
    is_lost: bool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease({}, epoch {})", self.shard, self.row.epoch)
    }
}

impl Lease {
    /// Takes the lease from whoever had it, as `seen` says. None if that is not so any more; there
    /// is none of a shard at SHARD_END.
    pub(super) fn take(
        table: Arc<dyn LeaseTable>,
        info: &ShardInfo,
        seen: &ControlRow,
    ) -> Result<Option<Self>> {
        let shard = info.id;
        let row = ControlRow {
            lineage: Some(info.into()),
            generation: seen.generation + 1,
            epoch: seen.epoch + 1,
            owner: Some(table.me()),
            wanted_by: None,
            ..seen.clone()
        };
        let is_taken = seen.checkpoint.is_some() && table.replace(shard, &row)?;
        let lease = Self { table, shard, row, is_lost: false };
        Ok(is_taken.then_some(lease))
    }

    pub(super) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Counts the owners of the shard, this one included.
    pub(super) fn epoch(&self) -> u64 {
        self.row.epoch
    }

    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint::at(self.row.checkpoint)
    }

    /// The checkpoint that is prepared.
    pub(super) fn pending(&self) -> Option<&PendingRow> {
        self.row.pending.as_ref()
    }

    /// The last record that each lane has processed, if the shard has lanes.
    pub(super) fn lanes(&self) -> &[Option<SequenceNumber>] {
        &self.row.lanes
    }

    /// Whether another one was found to have the lease.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Makes sure that nobody has taken the lease.
    pub(super) fn check(&mut self) -> Result<()> {
        let Some(row) = if_there(self.table.read(self.shard))? else {
            // Another one had it, processed it to its end, and dropped the row.
            self.is_lost = true;
            return Err(Error::LeaseLost { shard: self.shard });
        };
        if row.generation < self.row.generation && !self.is_lost {
            // It was read while others wrote; what this one has written was there before.
            return Ok(());
        }
        let is_taken = row.epoch != self.row.epoch && !bug("epoch_not_checked");
        if self.is_lost || is_taken {
            self.is_lost = true;
            return Err(Error::LeaseLost { shard: self.shard });
        }
        self.row = row;
        Ok(())
    }

    /// Stores a checkpoint, and how far each lane is, if there are some; what was prepared is gone
    /// with it. After an error all is as before.
    pub(crate) fn store(
        &mut self,
        checkpoint: Checkpoint,
        lanes: Vec<Option<SequenceNumber>>,
    ) -> Result<()> {
        let is_there = checkpoint == self.checkpoint() && lanes == self.row.lanes;
        if is_there && self.row.pending.is_none() {
            return Ok(());
        }
        self.update(|row| {
            row.checkpoint = checkpoint.position();
            row.pending = None;
            row.lanes.clone_from(&lanes);
        })
    }

    /// Stores a checkpoint that may be committed later.
    pub(super) fn prepare(&mut self, pending: PendingRow) -> Result<()> {
        self.update(|row| {
            row.pending = Some(pending.clone());
            row.lanes.clear();
        })
    }

    /// Gives the shard back; whoever wants it may take it.
    pub(crate) fn release(&mut self) -> Result<()> {
        self.update(|row| row.owner = None)?;
        self.is_lost = true;
        Ok(())
    }

    fn update(&mut self, change: impl Fn(&mut ControlRow)) -> Result<()> {
        loop {
            let mut row = ControlRow { generation: self.row.generation + 1, ..self.row.clone() };
            change(&mut row);
            if !self.is_lost && if_there(self.table.replace(self.shard, &row))?.unwrap_or(false) {
                self.row = row;
                return Ok(());
            }
            // Somebody has asked for the shard, or taken it.
            self.check()?;
        }
    }
}

/// What a table says of a row; none if the row is not there.
pub(super) fn if_there<T>(said: Result<T>) -> Result<Option<T>> {
    match said {
        Err(Error::ShardNotFound { .. }) => Ok(None),
        said => said.map(Some),
    }
}

/// Makes a row for each of these shards that has none and needs one. Returns the shards that have
/// one then.
pub(super) fn make_rows<S: Source>(
    table: &dyn LeaseTable,
    source: &S,
    shards: &[ShardInfo],
    start: StartingPosition,
) -> Result<BTreeSet<ShardId>> {
    let with_row = Mutex::new(BTreeSet::new());
    table.make_rows(&|known| {
        let mut rows = BTreeMap::new();
        let mut descendants = known.clone();
        // Ids rise from parent to child.
        let by_id: BTreeMap<_, _> = shards.iter().map(|shard| (shard.id, shard)).collect();
        for (&id, shard) in by_id.iter().filter(|(id, _)| !known.contains(id)) {
            let is_descendant = shard.parents().any(|parent| descendants.contains(&parent));
            if is_descendant {
                descendants.insert(id);
            }
            if source.is_expired(shard) {
                continue;
            }
            let checkpoint = if is_descendant {
                Checkpoint::TrimHorizon
            } else {
                first_checkpoint(source, shard, start)?
            };
            rows.insert(id, ControlRow::new(checkpoint.position(), Some((*shard).into())));
        }
        // Children first: if this is cut short, what is missing does not descend from what is
        // there, and the application is still new to it.
        *with_row.lock() = known.iter().chain(rows.keys()).copied().collect();
        Ok(rows.into_iter().rev().collect())
    })?;
    Ok(with_row.into_inner())
}

/// Where an application that is new to a shard begins.
pub(super) fn first_checkpoint<S: Source>(
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
