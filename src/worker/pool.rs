//! The pool as its owner sees it: started, watched, shut down.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::lineage::ShardInfo;
use crate::metrics::Snapshot;
use crate::os::clock::Ticker;
use crate::position::{ShardId, StartingPosition};
use crate::record::Lag;
use crate::stream::Stream;
use crate::worker::builder::{Options, WorkerPoolBuilder};
use crate::worker::crew::Supervisors;
use crate::worker::life::{Life, Stage};
use crate::worker::outcome::ShardOutcome;
use crate::worker::shared::{Common, Shared};
use crate::worker::source::Source;
use crate::worker::status::{Board, Entry, ShardState, ShardStatus};
use crate::worker::supervisor::Supervisor;

/// Consumes streams for an application: a worker for every shard, on a bounded number of threads.
///
/// An application is a name, under which the stream stores how far each shard has been processed;
/// other applications consume the same records independently. Any number of pools of one
/// application, in one process or several, share its shards evenly; when one of them goes, even by
/// a crash, the others take over its shards.
///
/// - Each shard is processed in order, by one processor at a time. A shard goes to another pool
///   between two batches. If the pool that has it takes too long to hand it over
///   ([`hand_over`](crate::WorkerPoolBuilder::hand_over)), the shard is taken from it, and its
///   checkpoints are refused from then on.
/// - The children of a shard that was split or merged begin when all their parents have been
///   processed to the end.
/// - When a processor fails or panics, its factory makes another one, and the records after the
///   checkpoint come again, after a growing delay, until they are processed. None is skipped, and
///   other shards are not affected. A record that fails every time is found by halving its batch;
///   [`OnPoison`](crate::OnPoison) decides what becomes of it. It is retried for ever unless you
///   choose otherwise.
/// - What has been processed is checkpointed, and the next pool resumes there. After a crash the
///   records since the last checkpoint come again: each is processed at least once.
///
/// Nothing is read ahead: the thread that processes a batch reads it when it is its turn. So a pool
/// holds as many batches as it has [threads](WorkerPoolBuilder::threads), each within its
/// [limit](WorkerPoolBuilder::limit): 32 bytes per record, and the mapped pages that the records
/// lie in, which the system may take back at any time. The records of a slow shard wait in the log.
///
/// The library logs nothing. With the feature `tracing` it emits an event when a lease is taken,
/// lost or handed over, and when a worker starts, fails, stalls or ends. The last failure of each
/// shard is in [`status`](Self::status), as [`last_error`](ShardStatus::last_error), and in what
/// [`shutdown`](Self::shutdown) returns if the shard had not recovered.
///
/// Dropping a pool stops it as [`shutdown`](Self::shutdown) does, and waits for the running
/// callbacks however long they take. A pool keeps its stream open.
///
/// A pool may consume several streams: add them with [`stream`](WorkerPoolBuilder::stream) before
/// it is started, or with [`add_stream`](Self::add_stream) while it runs. Their shards take turns
/// on the same threads; checkpoints, leases and dead letters belong to each stream. A stream that
/// fails, even because its directory is gone, does not stop the others.
///
/// A pool need not run in the process that puts: give it a stream from
/// [`Stream::open_read_only`]. It writes only to the directory `applications/NAME` of the stream.
///
/// ```
/// use std::time::Duration;
///
/// use millstream::{Stream, WorkerPool};
///
/// # let dir = tempfile::tempdir().unwrap();
/// let stream = Stream::builder(dir.path()).shards(4).open()?;
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|batch| {
///     for record in batch {
///         println!("{}: {:?}", record.partition_key(), record.data());
///     }
///     Ok(())
/// })?;
/// stream.put("customer-7", "clicked")?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// pool.shutdown(Duration::from_secs(10));
/// # Ok::<(), millstream::Error>(())
/// ```
pub struct WorkerPool {
    pub(super) life: Arc<Life>,
    pub(super) streams: Mutex<Vec<Consumed>>,
    add: Box<Add>,
    ticker: Ticker,
    stall_limit: Duration,
    /// Empty when nobody waits for them any more.
    threads: Vec<JoinHandle<()>>,
}

/// Begins to consume another stream.
type Add = dyn Fn(&Stream) -> Result<Consumed> + Send + Sync;

impl WorkerPool {
    /// A pool that consumes `stream` under the name `application`: 1 to 128 letters, digits and
    /// `_ . -` of ASCII, without a dot in front.
    pub fn builder(application: &str, stream: &Stream) -> WorkerPoolBuilder {
        WorkerPoolBuilder::new(application, stream)
    }

    /// Consumes another stream, too, as if it had been there from the beginning; a processor gets
    /// to know it from the factory, if that was given to
    /// [`start_by_stream`](WorkerPoolBuilder::start_by_stream), or by its
    /// [`Initialization`](crate::Initialization).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = millstream::Stream::builder(dir.path().join("orders")).open()?;
    /// # let returns = millstream::Stream::builder(dir.path().join("returns")).open()?;
    /// # use std::time::Duration;
    /// use millstream::{Batch, Checkpointer, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("billing", &orders)
    ///     .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))?;
    /// pool.add_stream(&returns)?;
    /// assert_eq!(pool.status().len(), 2);
    /// pool.remove_stream(orders.path(), Duration::from_secs(10));
    /// assert_eq!(pool.status().len(), 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the pool has that stream already, or has stopped; else as
    /// [`start`](WorkerPoolBuilder::start).
    pub fn add_stream(&self, stream: &Stream) -> Result<()> {
        let mut streams = self.streams.lock();
        if streams.iter().any(|other| other.is_at(stream.path())) {
            let what = format!("{} is consumed already", stream.path().display());
            return Err(Error::InvalidArgument(what));
        }
        if self.life.stage() != Stage::Consuming {
            return Err(Error::InvalidArgument("the pool has stopped".into()));
        }
        streams.push((self.add)(stream)?);
        Ok(())
    }

    /// Stops consuming the stream in this directory, as [`shutdown`](Self::shutdown) does it with
    /// all of them, and returns the outcomes of its shards; none if the pool has no such stream.
    /// The others go on. A callback of that stream would wait for itself until the deadline.
    pub fn remove_stream(
        &self,
        directory: impl AsRef<Path>,
        deadline: Duration,
    ) -> Vec<ShardOutcome> {
        let deadline = Instant::now().checked_add(deadline);
        let stream = {
            let mut streams = self.streams.lock();
            let place = streams.iter().position(|stream| stream.is_at(directory.as_ref()));
            let Some(place) = place else { return Vec::new() };
            streams.remove(place)
        };
        stream.board.enter(Stage::Stopping);
        let is_over = || stream.board.stage() == Stage::Finished;
        if !self.life.wait_until(is_over, deadline) {
            stream.board.enter(Stage::Abandoned);
        }
        stream.outcomes()
    }

    /// How each shard is going, stream by stream in the order in which they were added, by id;
    /// closed shards that are processed to the end are there, too, until retention has removed all
    /// that was in them and their children have got on.
    pub fn status(&self) -> Vec<ShardStatus> {
        let (now, mut status) = (self.ticker.now(), Vec::new());
        for stream in self.streams() {
            let shards = stream.board.snapshot().into_iter();
            status.extend(shards.map(|(shard, entry)| {
                let lag = stream.lag(shard, &entry).unwrap_or_default();
                entry.status(&stream.board.stream, shard, lag, now, self.stall_limit)
            }));
        }
        status
    }

    /// What the pool has done, and how each shard is going, as numbers for those who collect such
    /// things.
    pub fn metrics(&self) -> Snapshot {
        let (now, mut metrics) = (self.ticker.now(), Snapshot::default());
        for Consumed { board, source } in self.streams() {
            let lag = |shard, position| source.lag_at(shard, position);
            metrics.shards.extend(board.metrics(now, self.stall_limit, lag).shards);
        }
        metrics
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
            let version = self.life.version();
            let streams = self.streams();
            let seen: Vec<_> =
                streams.iter().map(|stream| (stream, stream.board.snapshot())).collect();
            // The sources are asked after everybody was seen at rest: what callbacks have put is
            // there by now.
            if seen.iter().all(|(_, shards)| shards.values().all(Entry::is_at_rest))
                && seen.iter().all(|(stream, shards)| stream.is_at_tips(shards))
            {
                return true;
            }
            let has_stopped = self.life.stage() == Stage::Finished;
            if has_stopped || !self.life.wait_for_change(version, deadline) {
                return false;
            }
        }
    }

    /// Has a shard of the stream in this directory tried again that is
    /// [parked](ShardState::Parked), and says whether it was: once more with the record that it was
    /// parked for, and if that is processed, all goes on; if not, it is parked again. To leave the
    /// record out instead, seek behind it, with
    /// [`Application::seek_shard`](crate::Application::seek_shard). Another process does the same
    /// with [`Application::retry_shard`](crate::Application::retry_shard).
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
    ///         pool.resume(&*status.stream, status.shard);
    ///     }
    /// }
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn resume(&self, directory: impl AsRef<Path>, shard: ShardId) -> bool {
        let streams = self.streams();
        let stream = streams.iter().find(|stream| stream.is_at(directory.as_ref()));
        stream.is_some_and(|stream| stream.board.resume(shard))
    }

    /// Stops: callbacks that are running finish, what they processed is checkpointed, and every
    /// processor is told. Returns how that went, shard by shard, at the latest after `deadline`.
    ///
    /// Callbacks that are still running then are left to themselves: if they return, their
    /// batches are checkpointed if they were processed successfully. Until then their shards are
    /// theirs; other pools of the application ask for them, and take them after the time that
    /// [`hand_over`](crate::WorkerPoolBuilder::hand_over) sets.
    pub fn shutdown(mut self, deadline: Duration) -> Vec<ShardOutcome> {
        self.stop(Instant::now().checked_add(deadline));
        self.streams().iter().flat_map(Consumed::outcomes).collect()
    }

    fn streams(&self) -> Vec<Consumed> {
        self.streams.lock().clone()
    }

    /// Ends the threads; those that still run a callback at the deadline are left behind.
    fn stop(&mut self, deadline: Option<Instant>) {
        self.life.enter(Stage::Stopping);
        let threads = std::mem::take(&mut self.threads);
        let is_over = || self.life.stage() == Stage::Finished;
        if self.life.wait_until(is_over, deadline) {
            for thread in threads {
                thread.join().expect("threads of a pool do not panic");
            }
        } else {
            self.life.enter(Stage::Abandoned);
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
        let states = |stream: Consumed| {
            let shards = stream.board.snapshot().into_iter();
            let states: BTreeMap<_, _> =
                shards.map(|(shard, entry)| (shard, entry.state)).collect();
            (stream.board.stream.clone(), states)
        };
        f.debug_map().entries(self.streams().into_iter().map(states)).finish()
    }
}

/// A stream of a pool, as the pool's owner sees it.
#[derive(Clone)]
pub(super) struct Consumed {
    pub(super) board: Arc<Board>,
    source: Arc<dyn Tips>,
}

impl Consumed {
    fn is_at(&self, directory: &Path) -> bool {
        *self.board.stream == *directory.to_string_lossy()
    }

    fn outcomes(&self) -> Vec<ShardOutcome> {
        let stream = &self.board.stream;
        let outcome = |(shard, entry): (_, Entry)| {
            let (stream, outcome) = (Arc::clone(stream), entry.outcome());
            ShardOutcome { stream, shard, outcome }
        };
        self.board.snapshot().into_iter().map(outcome).collect()
    }

    /// What is behind the last record that was processed.
    fn lag(&self, shard: ShardId, entry: &Entry) -> Result<Lag> {
        entry.position.map_or(Ok(Lag::default()), |position| self.source.lag_at(shard, position))
    }

    /// Whether nothing has come behind what was seen.
    fn is_at_tips(&self, seen: &BTreeMap<ShardId, Entry>) -> bool {
        let is_at_tip = |shard: &ShardInfo| match seen.get(&shard.id) {
            Some(entry) if entry.state == ShardState::Idle => {
                shard.is_open() && self.lag(shard.id, entry).is_ok_and(|lag| lag.records == 0)
            }
            Some(_) => true,
            None => self.source.is_expired(shard),
        };
        self.source.shards().is_ok_and(|listed| listed.iter().all(is_at_tip))
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

impl<S: Source> Shared<S> {
    /// As the pool's owner sees it.
    pub(super) fn consumed(&self) -> Consumed {
        let source: Arc<dyn Tips> = Arc::clone(&self.source) as _;
        Consumed { board: Arc::clone(&self.board), source }
    }
}

/// Starts the threads of a pool that consumes these streams, and those that `add` adds.
pub(super) fn start<S: Source>(
    common: &Common<S>,
    options: &Options,
    (streams, all): (Vec<Consumed>, Vec<Supervisor<S>>),
    added: Receiver<Supervisor<S>>,
    add: Box<Add>,
) -> Result<WorkerPool> {
    let Options { threads, ticker, stall_limit, .. } = options.clone();
    let (life, queue) = (Arc::clone(&common.life), common.queue.clone());
    let supervisors =
        Supervisors { all, added, queue, threads, life: Arc::clone(&life), ticker: ticker.clone() };
    let path = streams.first().map_or_else(PathBuf::new, |it| PathBuf::from(&*it.board.stream));
    let spawn = |name: String, run: Box<dyn FnOnce() + Send>| {
        let thread = thread::Builder::new().name(name).spawn(run);
        thread.map_err(|e| Error::io("start a thread for", &path, e))
    };
    let mut handles = Vec::new();
    for index in 0..threads {
        let queue = common.queue.clone();
        let name = format!("millstream-worker-{index}");
        handles.push(spawn(name, Box::new(move || queue.run()))?);
    }
    handles.push(spawn("millstream-supervisor".into(), Box::new(|| supervisors.run()))?);
    let streams = Mutex::new(streams);
    Ok(WorkerPool { life, streams, add, ticker, stall_limit, threads: handles })
}
