//! Lanes: the keys of a shard, dealt out to several workers.
//!
//! A lane is worked on like a shard: its worker reads the whole shard at its own pace, and passes
//! over the records whose keys are not its own. So a lane that is slow or fails holds up no other
//! one, and nothing is kept in memory for it; the price is that a shard is read by every lane.
//!
//! What the lanes of a shard have in common is the lease. The shard's checkpoint is that of the
//! lane that is furthest behind; how far each of the others is stands beside it in the row, so that
//! a pool with as many lanes goes on exactly there. For any other pool the checkpoint alone counts.

use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Batch;
use crate::error::Result;
use crate::format::control_row::PendingRow;
use crate::position::{SequenceNumber, ShardId};
use crate::record::{Limit, Record};
use crate::seeded::bug;
use crate::worker::checkpoint::Checkpoint;
use crate::worker::lease::Lease;
use crate::worker::source::Source;
use crate::worker::status::WorkerKey;

/// One lane's part in the lease of a shard: all of it, if the shard has one lane.
#[derive(Debug)]
pub(super) struct Lane {
    key: WorkerKey,
    count: usize,
    lanes: Arc<Mutex<Lanes>>,
    has_failed: bool,
}

/// What the lanes of a shard share.
#[derive(Debug)]
struct Lanes {
    lease: Lease,
    progress: Vec<Progress>,
}

/// How one lane is going.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Never [`Checkpoint::ShardEnd`], so that it tells where the lane goes on.
    checkpoint: Checkpoint,
    has_ended: bool,
    /// Whether its worker is done, for whatever reason.
    is_left: bool,
}

impl Lane {
    /// The lanes of a shard whose lease was taken.
    pub(super) fn of(lease: Lease, count: usize) -> Vec<Self> {
        let (shard, behind) = (lease.shard(), lease.checkpoint());
        let ahead = lease.lanes().to_vec();
        let progress = |index| {
            let number = ahead.get(index).copied().flatten().filter(|_| ahead.len() == count);
            // One that had ended is not ahead.
            let ahead = number.map(Checkpoint::AfterSequenceNumber);
            let ahead = ahead.filter(|ahead| ahead.place() > behind.place());
            Progress { checkpoint: ahead.unwrap_or(behind), has_ended: false, is_left: false }
        };
        let progress = (0..count).map(progress).collect();
        let lanes = Arc::new(Mutex::new(Lanes { lease, progress }));
        let lane = |index| Self {
            key: (shard, index),
            count,
            lanes: Arc::clone(&lanes),
            has_failed: false,
        };
        (0..count).map(lane).collect()
    }

    pub(super) fn key(&self) -> WorkerKey {
        self.key
    }

    pub(super) fn shard(&self) -> ShardId {
        self.key.0
    }

    /// Which of the shard's lanes it is.
    fn index(&self) -> usize {
        self.key.1
    }

    /// Whether it is the only one.
    pub(super) fn is_alone(&self) -> bool {
        self.count == 1
    }

    /// Reads what there is for this lane.
    pub(super) fn read<S: Source>(
        &self,
        source: &S,
        cursor: &S::Cursor,
        limit: Limit,
    ) -> Result<Found<S::Cursor>> {
        let (mut batch, next) = source.read(cursor, limit)?;
        let last = batch.last_sequence_number();
        if !self.is_alone() {
            let lane = |record: Record<'_>| {
                lane_of(record.partition_key(), record.sequence_number(), self.count)
            };
            batch.retain(|record| lane(record) == self.index());
        }
        Ok(Found { batch, last, next })
    }

    /// How far this lane is.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.lanes.lock().progress[self.index()].checkpoint
    }

    /// The checkpoint that is prepared; only one that is alone prepares any.
    pub(super) fn pending(&self) -> Option<PendingRow> {
        self.lanes.lock().lease.pending().filter(|_| self.is_alone()).cloned()
    }

    /// Whether another one was found to have the lease.
    pub(super) fn is_lost(&self) -> bool {
        self.lanes.lock().lease.is_lost()
    }

    /// Whether a checkpoint could not be stored since this was asked last.
    pub(super) fn take_failure(&mut self) -> bool {
        mem::take(&mut self.has_failed)
    }

    /// Makes sure that nobody has taken the lease.
    pub(super) fn check(&self) -> Result<()> {
        self.lanes.lock().lease.check()
    }

    /// Stores the lane's checkpoint; what was prepared is gone with it. After an error all is as
    /// before.
    pub(super) fn store(&mut self, checkpoint: Checkpoint) -> Result<()> {
        self.change(true, |progress| match checkpoint {
            Checkpoint::ShardEnd => (progress.has_ended, progress.is_left) = (true, true),
            _ => progress.checkpoint = checkpoint,
        })
    }

    /// Notes that there was nothing for this lane up to here. That is only stored if it is the
    /// shard's checkpoint: who goes on behind it, reads it once more.
    pub(super) fn pass(&mut self, number: SequenceNumber) -> Result<()> {
        let checkpoint = Checkpoint::AfterSequenceNumber(number);
        self.change(false, |progress| progress.checkpoint = checkpoint)
    }

    /// Stores a checkpoint that may be committed later.
    pub(super) fn prepare(&mut self, pending: PendingRow) -> Result<()> {
        assert!(self.is_alone(), "a row has room for one");
        let prepared = self.lanes.lock().lease.prepare(pending);
        prepared.inspect_err(|_| self.has_failed = true)
    }

    /// This lane is left as it is; the last one gives the shard back, and whoever wants it may take
    /// it.
    pub(super) fn release(&mut self) -> Result<()> {
        let mut lanes = self.lanes.lock();
        lanes.progress[self.index()].is_left = true;
        lanes.release_if_left()
    }

    fn change(&mut self, stores: bool, change: impl FnOnce(&mut Progress)) -> Result<()> {
        let (index, mut lanes) = (self.index(), self.lanes.lock());
        let before = lanes.progress[index];
        change(&mut lanes.progress[index]);
        let stored = lanes.store(stores).and_then(|()| lanes.release_if_left());
        stored.inspect_err(|_| {
            lanes.progress[index] = before;
            self.has_failed = true;
        })
    }
}

impl Lanes {
    /// Stores how far the lanes are; if only the shard's checkpoint matters, when it has moved.
    fn store(&mut self, always: bool) -> Result<()> {
        let open = self.progress.iter().filter(|lane| !lane.has_ended).map(|lane| lane.checkpoint);
        let place = |checkpoint: &Checkpoint| checkpoint.place();
        let last = match bug("highest_lane") {
            true => open.max_by_key(place),
            false => open.min_by_key(place),
        };
        let checkpoint = last.unwrap_or(Checkpoint::ShardEnd);
        if !always && checkpoint == self.lease.checkpoint() {
            return Ok(());
        }
        let lanes = match self.progress.len() {
            1 => Vec::new(),
            _ => self.progress.iter().map(|lane| lane.checkpoint.number()).collect(),
        };
        self.lease.store(checkpoint, lanes)
    }

    fn release_if_left(&mut self) -> Result<()> {
        let is_over = self.progress.iter().all(|lane| lane.has_ended);
        match self.progress.iter().all(|lane| lane.is_left) {
            true if !is_over => self.lease.release(),
            _ => Ok(()),
        }
    }
}

/// What was read at a cursor.
pub(super) struct Found<C> {
    /// The records of the lane.
    pub(super) batch: Batch,
    /// The number of the last record, whichever lane it is of.
    pub(super) last: Option<SequenceNumber>,
    pub(super) next: Option<C>,
}

/// The lane of a record: that of its key; without a key it is of any lane.
///
/// Rows say how far each lane is, so this never changes.
pub(super) fn lane_of(key: &str, number: SequenceNumber, count: usize) -> usize {
    let hash = match key {
        "" => xxh3_64(number.to_string().as_bytes()),
        key => xxh3_64(key.as_bytes()),
    };
    (hash % count as u64) as usize
}
