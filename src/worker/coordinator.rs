//! Which shards this pool works on: it looks at the rows of all shards from time to time, begins
//! the children of shards that have ended, takes what is its share, asks for what is missing, and
//! recalls the workers of what it has lost or is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::control_row::{ControlRow, MemberId};
use crate::lineage::ShardInfo;
use crate::position::ShardId;
use crate::worker::balance::{self, Share};
use crate::worker::checkpoint::Checkpoint;
use crate::worker::cleanup::Rows;
use crate::worker::journal::Change;
use crate::worker::lane::Lane;
use crate::worker::lease::{self, Lease};
use crate::worker::lease_table::Members;
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::status::{Entry, ShardState};

/// Why a worker is to let go of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// Another pool asks for the shard.
    HandOver = 1,
    /// Another pool has it.
    Lost = 2,
}

/// What a worker looks at before each turn. Written by the coordinator, read by the worker, which
/// may be with any thread; a worker that sees it a turn later does no harm.
#[derive(Clone, Debug, Default)]
pub(super) struct RecallFlag(Arc<AtomicU8>);

impl RecallFlag {
    pub(super) fn get(&self) -> Option<Recall> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Recall::HandOver),
            2 => Some(Recall::Lost),
            _ => None,
        }
    }

    fn set(&self, recall: Recall) {
        self.0.store(recall as u8, Ordering::Relaxed);
    }
}

/// A shard that was taken.
pub(super) struct Taken {
    pub(super) shard: ShardInfo,
    pub(super) lanes: Vec<Lane>,
    pub(super) recall: RecallFlag,
}

/// A shard that was taken, as long as one of its workers is there.
#[derive(Debug)]
struct Held {
    /// Of the lease.
    epoch: u64,
    recall: RecallFlag,
    workers: usize,
}

#[derive(Debug, Default)]
pub(super) struct Coordinator {
    /// All shards, as they were listed last.
    shards: BTreeMap<ShardId, ShardInfo>,
    /// Those of them that are closed and have no record left.
    expired: BTreeSet<ShardId>,
    /// Those that have a row.
    known: BTreeSet<ShardId>,
    held: BTreeMap<ShardId, Held>,
    /// Since when nobody has had a shard, or has not answered a request for it.
    stuck: BTreeMap<ShardId, Instant>,
}

impl Coordinator {
    /// Lists the shards; whether there are some without a row.
    pub(super) fn list<S: Source>(&mut self, pool: &Shared<S>) -> Result<bool> {
        let shards = pool.source.shards()?;
        let expired = shards.iter().filter(|shard| pool.source.is_expired(shard));
        self.expired = expired.map(|shard| shard.id).collect();
        self.shards = shards.into_iter().map(|shard| (shard.id, shard)).collect();
        Ok(self.without_row().next().is_some())
    }

    /// The shards that no row could be made for yet.
    pub(super) fn without_row(&self) -> impl Iterator<Item = ShardId> {
        let has_none = |shard: &ShardId| !self.known.contains(shard);
        self.shards.keys().copied().filter(has_none).filter(|shard| !self.expired.contains(shard))
    }

    /// Makes the rows that are missing.
    pub(super) fn make_rows<S: Source>(&mut self, pool: &Shared<S>) -> Result<()> {
        let shards: Vec<_> = self.shards.values().cloned().collect();
        let start = pool.options.starting_position;
        self.known = lease::make_rows(&*pool.table, &*pool.source, &shards, start)?;
        Ok(())
    }

    /// A worker of the shard is gone; whether it was the last one.
    pub(super) fn forget(&mut self, shard: ShardId) -> bool {
        let held = self.held.get_mut(&shard).expect("its worker was there");
        held.workers -= 1;
        let is_last = held.workers == 0;
        if is_last {
            self.held.remove(&shard);
        }
        is_last
    }

    /// Looks at everything, and does what is to be done. The leases that were taken are added to
    /// `taken`, also before an error.
    pub(super) fn look<S: Source>(
        &mut self,
        pool: &Shared<S>,
        now: Instant,
        taken: &mut Vec<Taken>,
    ) -> Result<()> {
        let mut rows = BTreeMap::new();
        let mut failed = Ok(());
        let mut dropped = Vec::new();
        for &shard in &self.known {
            match pool.table.read(shard) {
                Ok(row) => drop(rows.insert(shard, row)),
                // Another pool has dropped it.
                Err(Error::ShardNotFound { .. }) if self.expired.contains(&shard) => {
                    dropped.push(shard);
                }
                Err(error) => {
                    // A worker that is there notices it by itself.
                    if !self.held.contains_key(&shard) {
                        pool.board.update_shard(shard, |entry| {
                            entry.fail(entry.failed_attempts.saturating_add(1), error.to_string());
                        });
                    }
                    failed = Err(error);
                }
            }
        }
        dropped.into_iter().for_each(|shard| self.forget_row(pool, shard));
        // After the rows: whoever has put itself into one was there before, so that who is missing
        // is gone.
        let members = pool.table.attend().inspect_err(|error| {
            // Those that are worked on go on, and nobody would hear of it.
            pool.board.update_all(|_, entry| entry.last_error = Some(error.to_string()));
        })?;
        self.recall(pool.table.me(), &members, &rows);
        let moves = {
            let shares = self.shares(pool, &members, &rows, now);
            let elsewhere = pool.totals.without(&pool.board.stream);
            let backlog = |shard| backlog(pool, &rows, shard);
            balance::moves(pool.table.me(), &members, &shares, &elsewhere, backlog)
        };
        pool.totals.set(&pool.board.stream, moves.counts);
        // A worker that has lost a shard is gone before another one begins.
        let takes = moves.take.into_iter().filter(|shard| !self.held.contains_key(shard));
        for shard in takes.collect::<Vec<_>>() {
            let table = Arc::clone(&pool.table);
            let Some(lease) = Lease::take(table, &self.shards[&shard], &rows[&shard])? else {
                continue;
            };
            let recall = RecallFlag::default();
            self.stuck.remove(&shard);
            let (epoch, workers) = (lease.epoch(), pool.options.lanes);
            self.held.insert(shard, Held { epoch, recall: recall.clone(), workers });
            let lanes = Lane::of(lease, workers);
            for lane in &lanes {
                let entry = Entry::new(ShardState::Running, lane.checkpoint());
                pool.board.update(lane.key(), |old| old.go_on_as(entry));
            }
            pool.board.tell(lanes[0].key(), Change::LeaseTaken { epoch });
            taken.push(Taken { shard: self.shards[&shard].clone(), lanes, recall });
        }
        for shard in moves.ask {
            let seen = &rows[&shard];
            let wanted_by = Some(pool.table.me());
            let row = ControlRow { generation: seen.generation + 1, wanted_by, ..seen.clone() };
            if pool.table.replace(shard, &row)? {
                self.stuck.insert(shard, now);
            }
        }
        failed = failed.and_then(|()| self.clean_up(pool, &rows));
        if failed.is_err() {
            // If a row is gone, another one is made.
            self.known.retain(|shard| rows.contains_key(shard));
        }
        failed
    }

    /// Drops the rows that are not needed any more.
    fn clean_up<S: Source>(
        &mut self,
        pool: &Shared<S>,
        rows: &BTreeMap<ShardId, ControlRow>,
    ) -> Result<()> {
        for shard in self.rows(rows).droppable() {
            pool.table.remove(shard)?;
            self.forget_row(pool, shard);
        }
        Ok(())
    }

    fn forget_row<S: Source>(&mut self, pool: &Shared<S>, shard: ShardId) {
        self.known.remove(&shard);
        match self.held.get(&shard) {
            Some(held) => held.recall.set(Recall::Lost),
            None => pool.board.forget(shard),
        }
    }

    fn rows<'a>(&'a self, rows: &'a BTreeMap<ShardId, ControlRow>) -> Rows<'a> {
        Rows { shards: &self.shards, expired: &self.expired, known: &self.known, rows }
    }

    /// Recalls the workers of what is asked for, or lost.
    fn recall(&self, me: MemberId, members: &Members, rows: &BTreeMap<ShardId, ControlRow>) {
        for (shard, Held { epoch, recall, .. }) in &self.held {
            let Some(row) = rows.get(shard) else { continue };
            if row.epoch != *epoch {
                recall.set(Recall::Lost);
            } else if row.wanted_by.is_some_and(|by| by != me && members.get(&by) == Some(&true)) {
                recall.set(Recall::HandOver);
            }
        }
    }

    /// Whether the workers of the shard are recalled.
    pub(super) fn is_recalled(&self, shard: ShardId) -> bool {
        self.held.get(&shard).is_some_and(|held| held.recall.get().is_some())
    }

    /// The shards that can be worked on, and whose they are. Tells the board of the others.
    fn shares<S: Source>(
        &mut self,
        pool: &Shared<S>,
        members: &Members,
        rows: &BTreeMap<ShardId, ControlRow>,
        now: Instant,
    ) -> Vec<Share> {
        let me = pool.table.me();
        let has_ended = |row: &ControlRow| row.checkpoint.is_none();
        let finished = self.rows(rows).finished();
        let mut shares = Vec::new();
        for (&shard, row) in rows {
            let Some(info) = self.shards.get(&shard) else { continue };
            let may_begin = self.rows(rows).may_begin(info, &finished);
            let mut owner = row.owner.filter(|owner| members.contains_key(owner));
            // It is as it is here: a worker that is gone may not have been able to say so; and one
            // that has lost the shard, to nobody, is to be gone first.
            if owner.is_none_or(|owner| owner == me) {
                owner = self.held.contains_key(&shard).then_some(me);
            }
            let wanted_by = row.wanted_by.filter(|by| members.get(by) == Some(&true));
            if !self.held.contains_key(&shard) {
                let state = match owner {
                    _ if has_ended(row) => ShardState::Ended,
                    Some(_) => ShardState::Elsewhere,
                    None if !may_begin => ShardState::WaitingForParents,
                    None => ShardState::Unowned,
                };
                let entry = Entry::new(state, Checkpoint::at(row.checkpoint));
                pool.board.update_shard(shard, |old| old.go_on_as(entry.clone()));
            }
            if has_ended(row) || !may_begin && owner.is_none() {
                self.stuck.remove(&shard);
                continue;
            }
            let is_stuck = owner.is_none() || (wanted_by == Some(me) && owner != Some(me));
            let since = match is_stuck {
                true => *self.stuck.entry(shard).or_insert(now),
                false => {
                    self.stuck.remove(&shard);
                    now
                }
            };
            let is_overdue = is_stuck && now.duration_since(since) >= pool.options.hand_over;
            shares.push(Share { shard, owner, wanted_by, is_overdue });
        }
        shares
    }
}

/// How many bytes there are behind the checkpoint of a shard.
fn backlog<S: Source>(
    pool: &Shared<S>,
    rows: &BTreeMap<ShardId, ControlRow>,
    shard: ShardId,
) -> u64 {
    let lag = |position| pool.source.lag(&pool.source.cursor(shard, position)?);
    let position = rows.get(&shard).and_then(|row| row.checkpoint);
    position.and_then(|position| lag(position).ok()).map_or(0, |lag| lag.bytes)
}
