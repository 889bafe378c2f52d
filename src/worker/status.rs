//! What is going on in a pool: a board with an entry for each shard, written by the threads of the
//! pool and read by its owner.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::batch::Batch;
use crate::error::Result;
use crate::metrics::{ShardCounts, ShardMetrics, Snapshot};
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::record::Lag;
#[cfg(feature = "serde")]
use crate::serialization::option_as_ms;
use crate::worker::callback::Callback;
use crate::worker::checkpoint::Checkpoint;
use crate::worker::life::{Life, Stage};
use crate::worker::outcome::Outcome;

/// How one shard is going; see [`WorkerPool::status`](crate::WorkerPool::status).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::WorkerPool;
///
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// for status in pool.status() {
///     if let Some(error) = &status.last_error {
///         eprintln!("{}: {} failures in a row: {error}", status.shard, status.failed_attempts);
///     }
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ShardStatus {
    /// The directory of its stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: ShardId,
    /// What its worker is about.
    pub state: ShardState,
    /// Records that this pool has processed, counting those that came again.
    pub records_processed: u64,
    /// How far the application has processed the shard.
    pub checkpoint: Checkpoint,
    /// What the shard has behind the last record that was processed; zero if that cannot be found
    /// out.
    pub lag: Lag,
    /// How many attempts have failed since the worker last got on; 0 if all is well.
    pub failed_attempts: u32,
    /// The last failure, if there was one, also after the worker got over it.
    pub last_error: Option<String>,
    /// The record that the worker does not get over, as soon as it is known; see
    /// [`OnPoison`](crate::OnPoison).
    pub poison: Option<SequenceNumber>,
    /// Records that this pool has put aside as dead letters.
    pub dead_letters: u64,
    /// How long the callback that is running has been running.
    #[cfg_attr(
        feature = "serde",
        serde(rename = "callback_running_ms", serialize_with = "option_as_ms")
    )]
    pub callback_running_for: Option<Duration>,
    /// Whether that is too long: longer than
    /// [`stall_limit`](crate::WorkerPoolBuilder::stall_limit) says.
    pub is_stalled: bool,
}

/// What a shard's worker is about.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{ShardState, WorkerPool};
///
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// assert_eq!(pool.status()[0].state, ShardState::Idle);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum ShardState {
    /// The shard's parents are not processed to their ends yet.
    WaitingForParents,
    /// Records are being processed, or are about to be.
    Running,
    /// Everything up to the tip of the shard is processed.
    Idle,
    /// An attempt has failed, and the next one comes after a delay.
    Retrying,
    /// A record cannot be processed, and the shard is left alone: [`OnPoison::Park`] says so.
    ///
    /// [`OnPoison::Park`]: crate::OnPoison::Park
    Parked,
    /// The shard is closed, and processed to its end.
    Ended,
    /// Another pool of the application has the shard.
    Elsewhere,
    /// No pool has the shard yet, or not any more; one that is there is about to take it.
    Unowned,
}

impl ShardState {
    /// Of the states of several lanes, the one with the highest is the shard's.
    fn concern(self) -> u8 {
        match self {
            Self::Ended => 0,
            Self::Elsewhere => 1,
            Self::Unowned => 2,
            Self::WaitingForParents => 3,
            Self::Idle => 4,
            Self::Running => 5,
            Self::Retrying => 6,
            Self::Parked => 7,
        }
    }

    /// Whether the pool has the shard.
    fn is_leased(self) -> bool {
        match self {
            Self::Running | Self::Idle | Self::Retrying | Self::Parked => true,
            Self::WaitingForParents | Self::Ended | Self::Elsewhere | Self::Unowned => false,
        }
    }
}

/// What is known of a shard.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: ShardState,
    pub(super) counts: ShardCounts,
    pub(super) checkpoint: Checkpoint,
    /// Behind the last record that was processed: none behind the shard's end.
    pub(super) position: Option<StartingPosition>,
    pub(super) failed_attempts: u32,
    pub(super) last_error: Option<String>,
    pub(super) poison: Option<SequenceNumber>,
    pub(super) callback: Option<Callback>,
    /// How it ended, as soon as it has.
    pub(super) outcome: Option<Outcome>,
}

impl Entry {
    /// A shard of which nothing else is known.
    pub(super) fn new(state: ShardState, checkpoint: Checkpoint) -> Self {
        Self {
            state,
            counts: ShardCounts::default(),
            checkpoint,
            position: checkpoint.position(),
            failed_attempts: 0,
            last_error: None,
            poison: None,
            callback: None,
            outcome: None,
        }
    }

    /// How the shard was left, when the pool stops waiting for it.
    pub(super) fn outcome(self) -> Outcome {
        self.outcome.unwrap_or(match self.state {
            ShardState::Ended => Outcome::Ended,
            ShardState::Elsewhere => Outcome::Elsewhere,
            ShardState::WaitingForParents | ShardState::Unowned => Outcome::Stopped,
            _ => Outcome::NotFinished,
        })
    }

    /// A shard whose workers have a lane each is as far as the one that is furthest behind, and as
    /// well as the one that is worst.
    fn with(self, other: Self) -> Self {
        let first = |one: Checkpoint, other: Checkpoint| {
            if one.place() <= other.place() { one } else { other }
        };
        let outcomes = [self.clone().outcome(), other.clone().outcome()];
        let position = first(Checkpoint::at(self.position), Checkpoint::at(other.position));
        let callbacks = self.callback.into_iter().chain(other.callback);
        let (worse, better) = match self.failed_attempts >= other.failed_attempts {
            true => (self.last_error, other.last_error),
            false => (other.last_error, self.last_error),
        };
        Self {
            state: [self.state, other.state]
                .into_iter()
                .max_by_key(|it| it.concern())
                .expect("two"),
            counts: self.counts.with(other.counts),
            checkpoint: first(self.checkpoint, other.checkpoint),
            position: position.position(),
            failed_attempts: self.failed_attempts.max(other.failed_attempts),
            last_error: worse.or(better),
            poison: self.poison.or(other.poison),
            callback: callbacks.min_by_key(Callback::since),
            outcome: outcomes.into_iter().max_by_key(Outcome::concern),
        }
    }

    /// What this pool has done stays, the rest is as in `other`.
    pub(super) fn go_on_as(&mut self, other: Self) {
        *self = Self { counts: self.counts, last_error: self.last_error.take(), ..other };
    }

    /// Notes that an attempt has failed: its records come again from the checkpoint on.
    pub(super) fn fail(&mut self, failed_attempts: u32, error: String) {
        self.state = ShardState::Retrying;
        self.position = self.checkpoint.position();
        self.failed_attempts = failed_attempts;
        self.last_error = Some(error);
    }

    /// Notes that a batch was processed.
    pub(super) fn count(&mut self, batch: &Batch) {
        self.counts.batches_processed += u64::from(!batch.is_empty());
        self.counts.records_processed += batch.len() as u64;
        self.counts.data_bytes_processed += batch.total_data_bytes();
    }

    /// As the pool's owner sees it.
    pub(super) fn status(
        self,
        stream: &Arc<str>,
        shard: ShardId,
        lag: Lag,
        now: Instant,
        stall_limit: Duration,
    ) -> ShardStatus {
        let (callback_running_for, is_stalled) = self.running_for(now, stall_limit);
        ShardStatus {
            stream: Arc::clone(stream),
            shard,
            state: self.state,
            records_processed: self.counts.records_processed,
            checkpoint: self.checkpoint,
            lag,
            failed_attempts: self.failed_attempts,
            last_error: self.last_error,
            poison: self.poison,
            dead_letters: self.counts.dead_letters,
            callback_running_for,
            is_stalled,
        }
    }

    /// Whether there is nothing to do, or not for this pool.
    pub(super) fn is_at_rest(&self) -> bool {
        match self.state {
            ShardState::Idle | ShardState::Ended | ShardState::Elsewhere => true,
            ShardState::WaitingForParents
            | ShardState::Unowned
            | ShardState::Running
            | ShardState::Retrying
            | ShardState::Parked => false,
        }
    }

    /// How long the callback that is running has been running, and whether that is too long.
    pub(super) fn running_for(&self, now: Instant, limit: Duration) -> (Option<Duration>, bool) {
        let running_for = self.callback.map(|callback| callback.running_for(now));
        (running_for, running_for.is_some_and(|running_for| running_for >= limit))
    }
}

/// A worker: its shard, and which of the shard's lanes it has.
pub(super) type WorkerKey = (ShardId, usize);

/// Where the threads of a pool and its owner meet.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) application: Arc<str>,
    /// The directory of the stream.
    pub(super) stream: Arc<str>,
    /// That of the pool, which ends its work on all streams.
    pub(super) life: Arc<Life>,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// Of the work on this stream.
    stage: Stage,
    workers: BTreeMap<WorkerKey, Entry>,
}

impl Board {
    /// Of the application whose files are in this directory of a stream.
    pub(super) fn new(path: &Path, life: &Arc<Life>) -> Self {
        let name = |part: Option<&Path>| part.unwrap_or(path).to_string_lossy().into();
        Self {
            application: name(path.file_name().map(Path::new)),
            stream: name(path.ancestors().nth(2)),
            life: Arc::clone(life),
            entries: Mutex::default(),
        }
    }

    /// Changes the entry of a worker, which gets a new one if it has none.
    pub(super) fn update(&self, worker: WorkerKey, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock();
        let new = || Entry::new(ShardState::Unowned, Checkpoint::TrimHorizon);
        let entry = entries.workers.entry(worker).or_insert_with(new);
        let before = entry.state;
        change(entry);
        let has_changed = entry.state != before;
        drop(entries);
        if has_changed {
            self.life.change();
        }
    }

    /// Changes the entries of all workers of a shard, of one at least.
    pub(super) fn update_shard(&self, shard: ShardId, change: impl Fn(&mut Entry)) {
        let lanes = {
            let entries = self.entries.lock();
            entries.workers.range((shard, 0)..=(shard, usize::MAX)).count().max(1)
        };
        (0..lanes).for_each(|lane| self.update((shard, lane), &change));
    }

    /// Has the parked workers of a shard tried again; whether there are any.
    pub(super) fn resume(&self, shard: ShardId) -> bool {
        let mut entries = self.entries.lock();
        let mut is_parked = false;
        for (_, entry) in entries.workers.range_mut((shard, 0)..=(shard, usize::MAX)) {
            if entry.state == ShardState::Parked {
                entry.state = ShardState::Retrying;
                is_parked = true;
            }
        }
        drop(entries);
        if is_parked {
            self.life.change();
            self.life.supervisors.notify();
        }
        is_parked
    }

    /// Whether a worker is still parked.
    pub(super) fn is_parked(&self, worker: WorkerKey) -> bool {
        let entries = self.entries.lock();
        entries.workers.get(&worker).is_some_and(|entry| entry.state == ShardState::Parked)
    }

    /// All shards as they are at one moment.
    pub(super) fn snapshot(&self) -> BTreeMap<ShardId, Entry> {
        let entries = self.entries.lock();
        let mut shards: BTreeMap<ShardId, Entry> = BTreeMap::new();
        for ((shard, _), entry) in &entries.workers {
            let entry = match shards.remove(shard) {
                Some(others) => others.with(entry.clone()),
                None => entry.clone(),
            };
            shards.insert(*shard, entry);
        }
        shards
    }

    /// There is nothing to say of the shard any more.
    pub(super) fn forget(&self, shard: ShardId) {
        let mut entries = self.entries.lock();
        entries.workers.retain(|(of, _), _| *of != shard);
        drop(entries);
        self.life.change();
    }

    /// Changes all entries, but none of their states.
    pub(super) fn update_all(&self, mut change: impl FnMut(WorkerKey, &mut Entry)) {
        let mut entries = self.entries.lock();
        entries.workers.iter_mut().for_each(|(worker, entry)| change(*worker, entry));
    }

    /// What there is to count and measure; `lag` tells what is at and behind a place.
    pub(super) fn metrics(
        &self,
        now: Instant,
        stall_limit: Duration,
        lag: impl Fn(ShardId, StartingPosition) -> Result<Lag>,
    ) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (shard, entry) in self.snapshot() {
            let (callback_running_for, is_stalled) = entry.running_for(now, stall_limit);
            snapshot.shards.push(ShardMetrics {
                application: Arc::clone(&self.application),
                stream: Arc::clone(&self.stream),
                shard,
                counts: entry.counts,
                is_leased: entry.state.is_leased(),
                lag: match entry.position {
                    _ if entry.state == ShardState::Elsewhere => None,
                    Some(position) => lag(shard, position).ok(),
                    None => Some(Lag::default()),
                },
                failed_attempts: entry.failed_attempts,
                callback_running_for,
                is_stalled,
            });
        }
        snapshot
    }

    pub(super) fn stage(&self) -> Stage {
        self.entries.lock().stage.max(self.life.stage())
    }

    /// Has the work on this stream go on to a later stage.
    pub(super) fn enter(&self, stage: Stage) {
        let mut entries = self.entries.lock();
        entries.stage = entries.stage.max(stage);
        drop(entries);
        self.life.change();
        self.life.supervisors.notify();
    }
}
