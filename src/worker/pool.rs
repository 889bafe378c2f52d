//! The pool as its owner sees it: started, watched, shut down.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::lineage::ShardInfo;
use crate::metrics::Snapshot;
use crate::os::clock::Ticker;
use crate::position::{ShardId, StartingPosition};
use crate::record::Lag;
use crate::stream::Stream;
use crate::worker::builder::{Options, WorkerPoolBuilder};
use crate::worker::dead_letter::DeadLetters;
use crate::worker::lease_table::LeaseTable;
use crate::worker::outcome::Outcome;
use crate::worker::processor::Factory;
use crate::worker::source::Source;
use crate::worker::status::{Board, Entry, ShardState, ShardStatus, Stage};
use crate::worker::supervisor::Supervisor;

/// Consumes a stream for an application: a worker for every shard, on a bounded number of threads.
///
/// An application is a name, under which the stream keeps how far each shard is processed; another
/// application consumes the same records on its own. Any number of pools of one application, in one
/// process or several, share its shards: their numbers differ by at most one, and when a pool goes,
/// however it goes, the others take over what it had.
///
/// - Each shard is processed in order, by one processor at a time. A shard that is to go to another
///   pool is handed over between two batches; if that takes too long
///   ([`hand_over`](crate::WorkerPoolBuilder::hand_over)), it is taken, and the checkpoints of the
///   one that had it are refused from then on.
/// - The children of a shard that
///   was split or merged begin when all their parents are processed to the end.
/// - A processor that fails or panics is made anew by its factory, and the records behind the
///   checkpoint come again, after a growing delay, until they are processed. None is skipped, and
///   other shards are not touched. A record that fails always is found by halving its batch; what
///   becomes of it says [`OnPoison`](crate::OnPoison): it is tried for ever, unless you want it to
///   be put aside.
/// - What is processed is checkpointed; a pool that is started again goes on there. After a crash
///   the records since the last checkpoint come again: each is processed at least once.
///
/// Nothing is read ahead: a shard's next batch is read when its turn has come, by the thread that
/// processes it. So a pool has as many batches in hand as [threads](WorkerPoolBuilder::threads),
/// each within its [limit](WorkerPoolBuilder::limit): 32 bytes a record, and the mapped pages that
/// the records lie in, which the system may take back at any time. What a slow shard has to do
/// waits in the log.
///
/// The library logs nothing, unless it has the feature `tracing`: then it emits an event when a
/// lease is taken, lost or handed over, and when a worker starts, fails, stalls or ends. The last
/// failure of each shard is in [`status`](Self::status) as
/// [`last_error`](ShardStatus::last_error), and in what
/// [`shutdown`](Self::shutdown) returns if the shard was not over it.
///
/// Dropping a pool stops it as [`shutdown`](Self::shutdown) does, however long the callbacks that
/// are running take. A pool keeps its stream open.
///
/// A pool need not run in the process that puts: give it a stream from
/// [`Stream::open_read_only`]. All it writes is in the directory `applications/NAME` of the stream.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::{Batch, Checkpointer, Stream, WorkerPool};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let stream = Stream::builder(dir.path()).shards(4).open()?;
/// let pool = WorkerPool::builder("billing", &stream).start(|_shard| {
///     |batch: &Batch, _: &mut Checkpointer<'_>| {
///         for record in batch {
///             println!("{}: {:?}", record.partition_key(), record.data());
///         }
///         Ok(())
///     }
/// })?;
/// stream.put("customer-7", "clicked")?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// pool.shutdown(Duration::from_secs(10));
/// # Ok::<(), millstream::Error>(())
/// ```
pub struct WorkerPool {
    pub(super) board: Arc<Board>,
    source: Arc<dyn Tips>,
    ticker: Ticker,
    stall_limit: Duration,
    /// Empty when nobody waits for them any more.
    threads: Vec<JoinHandle<()>>,
}

impl WorkerPool {
    /// A pool that consumes `stream` under the name `application`: 1 to 128 letters, digits and
    /// `_ . -` of ASCII, without a dot in front.
    pub fn builder(application: &str, stream: &Stream) -> WorkerPoolBuilder {
        WorkerPoolBuilder::new(application, stream)
    }

    /// How each shard is going, by id; closed shards that are processed to the end are there, too,
    /// until retention has removed all that was in them and their children have got on.
    pub fn status(&self) -> Vec<ShardStatus> {
        let now = self.ticker.now();
        let (shards, _) = self.board.snapshot();
        let status = |(shard, entry): (ShardId, Entry)| {
            let (callback_running_for, is_stalled) = entry.running_for(now, self.stall_limit);
            ShardStatus {
                shard,
                state: entry.state,
                records_processed: entry.counts.records_processed,
                checkpoint: entry.checkpoint,
                lag: self.lag(shard, &entry).unwrap_or_default(),
                failed_attempts: entry.failed_attempts,
                last_error: entry.last_error,
                poison: entry.poison,
                dead_letters: entry.counts.dead_letters,
                callback_running_for,
                is_stalled,
            }
        };
        shards.into_iter().map(status).collect()
    }

    /// What the pool has done, and how each shard is going, as numbers for those who collect such
    /// things.
    pub fn metrics(&self) -> Snapshot {
        let lag = |shard, position| self.source.lag_at(shard, position);
        self.board.metrics(self.ticker.now(), self.stall_limit, lag)
    }

    /// Waits until every record that was put before this call is processed, in the shards that
    /// other pools of the application do not have, and no failure is
    /// pending: true. False if that is not so after `timeout`, or the pool has stopped by itself
    /// ([`OnPoison::Stop`](crate::OnPoison::Stop)).
    ///
    /// Processed is not checkpointed: under
    /// [`CheckpointPolicy::Manual`](crate::CheckpointPolicy::Manual) that is up to the processors.
    #[must_use = "false says that not everything is processed yet"]
    pub fn wait_until_idle(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let (shards, version) = self.board.snapshot();
            let at_rest = |entry: &Entry| match entry.state {
                ShardState::Idle | ShardState::Ended | ShardState::Elsewhere => true,
                ShardState::WaitingForParents
                | ShardState::Unowned
                | ShardState::Running
                | ShardState::Retrying
                | ShardState::Parked => false,
            };
            // The source is asked after everybody was seen at rest: what callbacks have put is
            // there by now.
            if shards.values().all(at_rest)
                && self.source.shards().is_ok_and(|listed| {
                    listed.iter().all(|shard| self.is_at_tip(shard, shards.get(&shard.id)))
                })
            {
                return true;
            }
            let has_stopped = self.board.stage() == Stage::Finished;
            if has_stopped || !self.board.wait_for_change(version, deadline) {
                return false;
            }
        }
    }

    /// Has a shard tried again that is [parked](ShardState::Parked), and says whether it was: once
    /// more with the record that it was parked for, and if that is processed, all goes on; if not,
    /// it is parked again. To leave the record out instead, seek behind it, with
    /// [`Application::seek_shard`](crate::Application::seek_shard).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use millstream::{Batch, Checkpointer, OnPoison, ShardState, WorkerPool};
    /// let pool = WorkerPool::builder("billing", &stream)
    ///     .on_poison(OnPoison::Park)
    ///     .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))?;
    /// for status in pool.status() {
    ///     if status.state == ShardState::Parked {
    ///         println!("{}: {:?}", status.shard, status.last_error);
    ///         pool.resume(status.shard);
    ///     }
    /// }
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn resume(&self, shard: ShardId) -> bool {
        self.board.resume(shard)
    }

    /// Stops: callbacks that are running finish, what they processed is checkpointed, and every
    /// processor is told. Returns how that went, shard by shard, at the latest after `deadline`.
    ///
    /// Callbacks that are still running then are left to themselves: if they return, their
    /// batches are checkpointed if they were processed successfully. Until then their shards are
    /// theirs; other pools of the application ask for them, and take them after the time that
    /// [`hand_over`](crate::WorkerPoolBuilder::hand_over) sets.
    pub fn shutdown(mut self, deadline: Duration) -> Vec<(ShardId, Outcome)> {
        self.stop(Instant::now().checked_add(deadline));
        let (shards, _) = self.board.snapshot();
        shards.into_iter().map(|(shard, entry)| (shard, entry.outcome())).collect()
    }

    /// What is behind the last record that was processed.
    fn lag(&self, shard: ShardId, entry: &Entry) -> Result<Lag> {
        entry.position.map_or(Ok(Lag::default()), |position| self.source.lag_at(shard, position))
    }

    fn is_at_tip(&self, shard: &ShardInfo, entry: Option<&Entry>) -> bool {
        match entry {
            Some(entry) if entry.state == ShardState::Idle => {
                shard.is_open() && self.lag(shard.id, entry).is_ok_and(|lag| lag.records == 0)
            }
            Some(_) => true,
            None => self.source.is_expired(shard),
        }
    }

    /// Ends the threads; those that still run a callback at the deadline are left behind.
    fn stop(&mut self, deadline: Option<Instant>) {
        self.board.enter(Stage::Stopping);
        let threads = std::mem::take(&mut self.threads);
        if self.board.wait_until_finished(deadline) {
            for thread in threads {
                thread.join().expect("threads of a pool do not panic");
            }
        } else {
            self.board.enter(Stage::Abandoned);
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        // A callback that drops its own pool would wait for itself.
        let current = thread::current().id();
        let is_inside = self.threads.iter().any(|thread| thread.thread().id() == current);
        self.stop(is_inside.then(Instant::now));
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shards, _) = self.board.snapshot();
        let states = shards.iter().map(|(shard, entry)| (shard, entry.state));
        f.debug_map().entries(states).finish()
    }
}

/// What a pool's owner asks a source, whatever its cursors are.
trait Tips: Send + Sync {
    fn shards(&self) -> Result<Vec<ShardInfo>>;
    fn is_expired(&self, shard: &ShardInfo) -> bool;
    fn lag_at(&self, shard: ShardId, position: StartingPosition) -> Result<Lag>;
}

impl<S: Source> Tips for S {
    fn shards(&self) -> Result<Vec<ShardInfo>> {
        Source::shards(self)
    }

    fn is_expired(&self, shard: &ShardInfo) -> bool {
        Source::is_expired(self, shard)
    }

    fn lag_at(&self, shard: ShardId, position: StartingPosition) -> Result<Lag> {
        self.lag(&self.cursor(shard, position)?)
    }
}

/// What all threads of a pool share.
pub(super) struct Shared<S> {
    pub(super) source: Arc<S>,
    pub(super) table: Arc<dyn LeaseTable>,
    pub(super) dead_letters: DeadLetters,
    pub(super) factory: Factory,
    pub(super) options: Options,
    pub(super) board: Arc<Board>,
}

/// What the parts of a pool share; `path` is where the application's files are.
pub(super) fn assemble<S: Source>(
    source: S,
    table: Arc<dyn LeaseTable>,
    path: &Path,
    options: Options,
    factory: Factory,
) -> Shared<S> {
    Shared {
        source: Arc::new(source),
        table,
        dead_letters: DeadLetters::in_directory(path),
        factory,
        options,
        board: Arc::new(Board::new(path)),
    }
}

/// Starts a pool whose leases are in this table.
pub(super) fn start<S: Source>(shared: Shared<S>, path: &Path) -> Result<WorkerPool> {
    let Options { threads, ticker, stall_limit, .. } = shared.options.clone();
    let (source, board) = (Arc::clone(&shared.source), Arc::clone(&shared.board));
    let supervisor = Supervisor::new(Arc::new(shared))?;
    let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name).spawn(run);
        thread.map_err(|e| Error::io("start a thread for", path, e))
    };
    let mut handles = Vec::new();
    for index in 0..threads {
        let worker_thread = supervisor.worker_thread();
        let name = format!("millstream-worker-{index}");
        handles.push(spawn(name, Box::new(move || worker_thread.run()))?);
    }
    handles.push(spawn("millstream-supervisor".into(), Box::new(|| supervisor.run()))?);
    Ok(WorkerPool { board, source, ticker, stall_limit, threads: handles })
}
