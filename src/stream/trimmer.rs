//! Who trims: decides what goes, says so in the manifest, and removes it.
//!
//! One pass looks at all shards and commits once. It runs in the thread of whoever applies the
//! retention, or finds no room; and in one of the keeper's, when segments are finished and on time.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};

use crate::error::{Error, Result};
use crate::format::manifest::Trimmed;
use crate::format::names::MANIFEST;
use crate::lineage::ShardInfo;
use crate::os::clock::Time;
use crate::os::fs;
use crate::position::ShardId;
use crate::retention::{Retention, WhenFull};
use crate::shard::Shard;
use crate::shard::recovery::Found;
use crate::shard::room::Room;
use crate::stream::Shape;
use crate::stream::processed::Processed;

/// How often those who wait for room look what applications have processed meanwhile.
const POLL: Duration = Duration::from_millis(10);
/// How long a put waits for segments that other producers are still writing to, before it says that
/// there is no room though the oldest may go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a limit of age is applied: sixteen times within it, but neither more often nor more
/// seldom than this. (Whoever reads in the process that writes sees it applied always.)
const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What it takes to trim a stream.
#[derive(Debug)]
pub(super) struct Trimmer {
    pub(super) path: PathBuf,
    pub(super) time: Time,
    pub(super) room: Arc<Room>,
    pub(super) shape: Arc<RwLock<Shape>>,
    /// See [`Inner`](super::Inner).
    pub(super) reshaping: Arc<Mutex<()>>,
    /// Counts; nothing depends on it, so relaxed order suffices.
    dropped_unprocessed: AtomicU64,
    /// Who waits for room, and is notified when some was made.
    waiting: (Mutex<()>, Condvar),
}

/// Why there is a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A segment was finished: only what frees room is worth a commit.
    Roll,
    /// It is time, or somebody asks for it.
    Time,
    /// So many bytes are needed.
    Full(u64),
}

/// What is to become of a shard.
struct Plan {
    info: ShardInfo,
    shard: Arc<Shard>,
    /// What its applications have processed.
    processed: Processed,
    /// What is gone afterwards, and how many frames that is.
    trimmed: Trimmed,
    frames: u64,
    /// How many bytes that frees.
    freed: u64,
}

impl Trimmer {
    pub(super) fn new(
        path: PathBuf,
        time: Time,
        room: Arc<Room>,
        shape: Arc<RwLock<Shape>>,
        reshaping: Arc<Mutex<()>>,
    ) -> Self {
        room.set_limit(shape.read().manifest.retention.bytes);
        let (dropped_unprocessed, waiting) = (AtomicU64::new(0), Default::default());
        Self { path, time, room, shape, reshaping, dropped_unprocessed, waiting }
    }

    pub(super) fn dropped_unprocessed(&self) -> u64 {
        self.dropped_unprocessed.load(Ordering::Relaxed)
    }

    /// After which time the retention is to be applied again, though no segment was finished.
    pub(super) fn interval(&self) -> Option<Duration> {
        let age = self.shape.read().manifest.retention.age?;
        Some((age / 16).clamp(INTERVALS.0, INTERVALS.1))
    }

    /// Trims what the retention lets go. Whether that frees room.
    pub(super) fn trim(&self, occasion: Occasion) -> Result<bool> {
        let _one_at_a_time = self.reshaping.lock();
        let retention = self.shape.read().manifest.retention.clone();
        if retention.is_unlimited() {
            return Ok(false);
        }
        if occasion != Occasion::Roll {
            let shards: Vec<_> = self.shape.read().shards.values().cloned().collect();
            for shard in shards {
                // What cannot be finished, because a sync failed, cannot go.
                let _ = shard.finish();
            }
        }
        let plans = self.plans(&retention, occasion)?;
        self.commit(plans, None, occasion)
    }

    /// Trims a shard through a number.
    pub(super) fn trim_through(&self, shard: ShardId, number: u64) -> Result<()> {
        let _one_at_a_time = self.reshaping.lock();
        let mut plan = self.plan(shard, &Retention::default())?;
        plan.shard.finish()?;
        // What is put from now on is not meant.
        let tip = plan.shard.tip()?.place.address;
        plan.go_through(number.min(tip.saturating_sub(1)))?;
        self.commit(vec![plan], None, Occasion::Time).map(drop)
    }

    /// Has this retention from now on.
    pub(super) fn set(&self, retention: Retention) -> Result<()> {
        let _one_at_a_time = self.reshaping.lock();
        // What is too old by the limit that was stays gone by the one that comes.
        let old = self.shape.read().manifest.retention.clone();
        let old = Retention { age: old.age, hold_for: old.hold_for, ..Retention::default() };
        for plan in self.plans(&old, Occasion::Time)? {
            let Trimmed { through, .. } = plan.trimmed;
            plan.shard.log.horizon.raise(Trimmed { through, ..Trimmed::default() });
            plan.shard.log.horizon.unsettle();
        }
        let plans = self.plans(&retention, Occasion::Time)?;
        let bytes = retention.bytes;
        self.commit(plans, Some(retention), Occasion::Time)?;
        self.room.set_limit(bytes);
        Ok(())
    }

    /// Remembers what got too old while the stream was open, when it is closed.
    pub(super) fn remember(&self) -> Result<()> {
        let _one_at_a_time = self.reshaping.lock();
        let shards: Vec<_> = self.shape.read().shards.keys().copied().collect();
        let plans = shards.into_iter().map(|shard| self.plan(shard, &Retention::default()));
        self.commit(plans.collect::<Result<_>>()?, None, Occasion::Time).map(drop)
    }

    /// Makes room, as somebody needs so many bytes since then. False if there will be none.
    pub(super) fn make_room(&self, needed: u64, since: Instant) -> Result<bool> {
        let patience = match self.shape.read().manifest.retention.when_full {
            WhenFull::DropOldest => PATIENCE,
            WhenFull::Reject => Duration::ZERO,
            WhenFull::Block(time) => time,
        };
        let deadline = since.checked_add(patience);
        loop {
            let trimmed = self.trim(Occasion::Full(needed));
            // Somebody else may be faster, and take it.
            if self.room.has(needed) || trimmed? {
                return Ok(true);
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Ok(false);
            }
            let until = deadline.map_or(now + POLL, |deadline| deadline.min(now + POLL));
            self.waiting.1.wait_until(&mut self.waiting.0.lock(), until);
        }
    }

    /// What is gone of a shard, as a plan that changes nothing.
    fn plan(&self, shard: ShardId, retention: &Retention) -> Result<Plan> {
        let shape = self.shape.read();
        let found = shape.info(shard).zip(shape.shards.get(&shard));
        let (info, at) = found.ok_or(Error::ShardNotFound { shard })?;
        let (info, shard) = (info.clone(), Arc::clone(at));
        drop(shape);
        let processed = Processed::look(&self.path, &retention.hold_for, info.id)?;
        let trimmed = shard.log.horizon.trimmed();
        let (_, frames) = shard.log.horizon_place()?;
        Ok(Plan { info, shard, processed, trimmed, frames, freed: 0 })
    }

    /// What is to go.
    fn plans(&self, retention: &Retention, occasion: Occasion) -> Result<Vec<Plan>> {
        let shards: Vec<_> = self.shape.read().shards.keys().copied().collect();
        let plans = shards.into_iter().map(|shard| self.plan(shard, retention));
        let mut plans = plans.collect::<Result<Vec<_>>>()?;
        if let Some(age_ms) = retention.age_ms() {
            let now_ms = self.time.now_ms();
            for plan in &mut plans {
                plan.let_go_by_age(now_ms, age_ms)?;
            }
        }
        if let Some(records) = retention.records {
            let mut kept = 0;
            for plan in &plans {
                kept += plan.shard.tip()?.frames.saturating_sub(plan.frames);
            }
            while let Some((at, found)) = oldest(&plans, |plan| plan.processed.through())? {
                let frames = plans[at].frames;
                let behind = plans[at].frames_behind(&found);
                if kept.saturating_sub(behind - frames) < records {
                    break;
                }
                kept -= behind - frames;
                plans[at].go_with(&found)?;
            }
        }
        if let Some(limit) = retention.bytes {
            self.free(&mut plans, retention, limit, occasion)?;
        }
        Ok(plans)
    }

    /// Lets go what is beyond the limit of bytes: first what may go, then, if there is no other way
    /// and the owner wants it so, what else is the oldest.
    fn free(
        &self,
        plans: &mut [Plan],
        retention: &Retention,
        limit: u64,
        occasion: Occasion,
    ) -> Result<()> {
        let drops = retention.when_full == WhenFull::DropOldest;
        let taken = |plans: &[Plan]| {
            let freed = plans.iter().map(|plan| plan.freed).sum();
            self.room.taken().saturating_sub(freed)
        };
        let needed = if let Occasion::Full(needed) = occasion { needed } else { 0 };
        let is_crowded = needed > 0 || taken(plans) > limit - limit / 16;
        let goal = (limit - limit / 8).min(limit.saturating_sub(needed));
        while is_crowded && taken(plans) > goal && (drops || !retention.hold_for.is_empty()) {
            let Some((at, found)) = oldest(plans, |plan| plan.processed.through())? else { break };
            plans[at].go_with(&found)?;
        }
        while drops && taken(plans) > limit.saturating_sub(needed) {
            let Some((at, found)) = oldest(plans, |_| u64::MAX)? else { break };
            let plan = &mut plans[at];
            let processed = plan.processed.through();
            let (_, processed) = plan.shard.log.place_behind(processed.min(found.limit() - 1))?;
            let lost = plan.frames_behind(&found).saturating_sub(processed.max(plan.frames));
            self.dropped_unprocessed.fetch_add(lost, Ordering::Relaxed);
            plan.go_with(&found)?;
        }
        Ok(())
    }

    /// Does what is planned: one commit, then the files. Whether that frees room.
    fn commit(
        &self,
        plans: Vec<Plan>,
        retention: Option<Retention>,
        occasion: Occasion,
    ) -> Result<bool> {
        let mut manifest = self.shape.read().manifest.clone();
        let mut frees = false;
        let mut changed = Vec::new();
        for plan in plans {
            let before = manifest.trimmed.get(&plan.info.id).copied().unwrap_or_default();
            if plan.trimmed != before {
                frees |= before.base < plan.trimmed.base;
                manifest.trimmed.insert(plan.info.id, plan.trimmed);
                changed.push(plan);
            }
        }
        let is_set = retention.is_some_and(|new| {
            let old = mem::replace(&mut manifest.retention, new);
            old != manifest.retention
        });
        let is_worth_it = is_set || frees || (!changed.is_empty() && occasion != Occasion::Roll);
        if !is_worth_it {
            return Ok(false);
        }
        changed.iter().try_for_each(|plan| plan.processed.sync())?;
        fs::replace(&self.path.join(MANIFEST), manifest.encode().as_bytes())?;
        self.shape.write().manifest = manifest;
        // All are carried out, also behind one that cannot be.
        let done = changed.iter().map(Plan::carry_out).fold(Ok(()), Result::and);
        self.waiting.1.notify_all();
        done.map(|()| frees)
    }
}

/// The oldest of the segments that may go: finished, and up to this number.
fn oldest(plans: &[Plan], through: impl Fn(&Plan) -> u64) -> Result<Option<(usize, Found)>> {
    let mut oldest: Option<(u64, usize, Found)> = None;
    for (at, plan) in plans.iter().enumerate() {
        let log = &plan.shard.log;
        let Some(found) = plan.first_finished() else { continue };
        let last = log.last_record(&found)?.unwrap_or(0);
        let arrival_ms = log.arrival_ms(&found)?;
        let is_older = oldest.as_ref().is_none_or(|(oldest_ms, ..)| arrival_ms < *oldest_ms);
        if last <= through(plan) && is_older {
            oldest = Some((arrival_ms, at, found));
        }
    }
    Ok(oldest.map(|(_, at, found)| (at, found)))
}

impl Plan {
    /// The first segment that stays, if it is finished.
    fn first_finished(&self) -> Option<Found> {
        let log = &self.shard.log;
        let found = log.index.known_at_or_above(self.trimmed.base.max(log.start));
        found.filter(|found| found.end.is_some())
    }

    /// How many frames there are up to the end of a finished segment.
    fn frames_behind(&self, found: &Found) -> u64 {
        let end = found.end.expect("it is finished");
        self.frames.max(end.first_ordinal + u64::from(end.frames))
    }

    /// Lets everything up to and with this number go.
    fn go_through(&mut self, number: u64) -> Result<()> {
        let log = &self.shard.log;
        if let Some(address) = log.idle_behind(number)? {
            self.shard.end_idle(address)?;
        }
        self.trimmed = log.trimmed_through(number)?;
        (_, self.frames) = log.place_behind(self.trimmed.through)?;
        self.freed = log.index.bytes_below(self.trimmed.base);
        Ok(())
    }

    /// Lets the first segment go.
    fn go_with(&mut self, found: &Found) -> Result<()> {
        self.frames = self.frames_behind(found);
        self.trimmed = self.shard.log.trimmed_with(self.trimmed, found)?;
        self.freed += found.header.capacity;
        Ok(())
    }

    fn let_go_by_age(&mut self, now_ms: u64, age_ms: u64) -> Result<()> {
        let aged = self.shard.log.aged_through(now_ms, age_ms)?.min(self.processed.through());
        let through = aged.max(self.trimmed.through);
        if through > 0 {
            self.go_through(through)?;
        }
        if self.info.closed_ms.is_some_and(|ms| ms < now_ms.saturating_sub(age_ms)) {
            self.expire_if_empty();
        }
        Ok(())
    }

    /// Lets what a closed shard has left go, if there is no record in it.
    fn expire_if_empty(&mut self) {
        let base = self.trimmed.base;
        let mut left = self.shard.log.index.from(base);
        left.retain(|found| found.limit() > base);
        if left.iter().all(|found| found.end.is_some_and(|end| end.frames == 0)) {
            let end = self.info.ending_sequence_number.and_then(|end| end.address());
            let behind = end.map_or(0, |end| (end + 1).next_multiple_of(4096));
            let limit = left.last().map_or(0, Found::limit);
            self.trimmed.base = base.max(behind).max(limit);
            self.freed = self.shard.log.index.bytes_below(self.trimmed.base);
        }
    }

    /// The manifest says what is gone: so be it.
    fn carry_out(&self) -> Result<()> {
        let log = &self.shard.log;
        log.horizon.raise(self.trimmed);
        log.remove_below(self.trimmed.base)?;
        // Whoever waits may have been moved to the end of a closed shard.
        self.shard.wake();
        let end = self.info.ending_sequence_number.and_then(|end| end.address());
        if end.is_some_and(|end| end <= self.trimmed.base) {
            fs::remove_empty_directory(&log.directory);
        }
        Ok(())
    }
}
