//! How a worker pool is set up.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::control_row::MAX_LANES;
use crate::lineage::ShardInfo;
use crate::os::clock::Ticker;
use crate::position::StartingPosition;
use crate::record::Limit;
use crate::stream::Stream;
use crate::worker::checkpoint::{CheckpointPolicy, Checkpointer};
use crate::worker::linger::Linger;
use crate::worker::opening::{self, Opening};
use crate::worker::poison::OnPoison;
use crate::worker::pool::WorkerPool;
use crate::worker::processor::{ProcessorError, RecordProcessor};
use crate::worker::retry_delay::{LONGEST_DELAY, RetryDelay};

/// Starts a [`WorkerPool`]; made by [`WorkerPool::builder`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::{CheckpointPolicy, StartingPosition, WorkerPool};
///
/// let pool = WorkerPool::builder("alarms", &stream)
///     .threads(2)
///     .starting_position(StartingPosition::Latest)
///     .checkpoints(CheckpointPolicy::Every { records: 1000, interval: Duration::from_secs(1) })
///     .for_each_batch(|batch| {
///         println!("{} records", batch.len());
///         Ok(())
///     })?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is consumed until it is started"]
pub struct WorkerPoolBuilder {
    application: String,
    streams: Vec<Stream>,
    options: Options,
}

/// What can be set.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) threads: usize,
    pub(super) starting_position: StartingPosition,
    pub(super) limit: Limit,
    pub(super) linger: Option<Linger>,
    /// How many workers a shard has.
    pub(super) lanes: usize,
    pub(super) checkpoints: CheckpointPolicy,
    pub(super) retry_delay: RetryDelay,
    /// How often a batch may fail before it is halved, and a record alone.
    pub(super) attempts: u32,
    pub(super) on_poison: OnPoison,
    /// How often to look who else is there.
    pub(super) look_interval: Duration,
    /// How long one who is asked for a shard has to hand it over.
    pub(super) hand_over: Duration,
    /// How long a callback may run before it counts as stalled.
    pub(super) stall_limit: Duration,
    pub(super) ticker: Ticker,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: thread::available_parallelism().map_or(1, usize::from),
            starting_position: StartingPosition::TrimHorizon,
            limit: Limit::default(),
            linger: None,
            lanes: 1,
            checkpoints: CheckpointPolicy::default(),
            retry_delay: RetryDelay::varied(Duration::from_millis(100), Duration::from_secs(10)),
            attempts: 5,
            on_poison: OnPoison::default(),
            look_interval: Duration::from_secs(1),
            hand_over: Duration::from_secs(30),
            stall_limit: Duration::from_secs(60),
            ticker: Ticker::default(),
        }
    }
}

impl WorkerPoolBuilder {
    pub(super) fn new(application: &str, stream: &Stream) -> Self {
        Self {
            application: application.into(),
            streams: vec![stream.clone()],
            options: Options::default(),
        }
    }

    /// Consumes this stream as well. The settings apply to every stream. Each stream has its own
    /// checkpoints, leases and dead letters, in its own directory, so another pool may consume some
    /// of the streams, or others besides.
    ///
    /// The pools of an application that consume a stream share its shards evenly, and then those of
    /// all streams.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = millstream::Stream::builder(dir.path().join("orders")).open()?;
    /// # let returns = millstream::Stream::builder(dir.path().join("returns")).open()?;
    /// # use std::time::Duration;
    /// use millstream::{Batch, Checkpointer, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("billing", &orders)
    ///     .stream(&returns)
    ///     .threads(2)
    ///     .start_by_stream(|stream, _shard| {
    ///         let is_return = stream.path().ends_with("returns");
    ///         move |batch: &Batch, _: &mut Checkpointer<'_>| {
    ///             println!("{} {}", batch.len(), if is_return { "returns" } else { "orders" });
    ///             Ok(())
    ///         }
    ///     })?;
    /// orders.put("customer-7", "a bell")?;
    /// returns.put("customer-7", "a whistle")?;
    /// assert!(pool.wait_until_idle(Duration::from_secs(10)));
    /// for status in pool.status() {
    ///     println!("{} {}: {}", status.stream, status.shard, status.checkpoint);
    /// }
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn stream(mut self, stream: &Stream) -> Self {
        self.streams.push(stream.clone());
        self
    }

    /// How many threads process records; 0 counts as 1. The default is the number of processors.
    /// Shards take turns on the threads, batch by batch.
    pub fn threads(mut self, count: usize) -> Self {
        self.options.threads = count.max(1);
        self
    }

    /// Where a new application begins in the shards that it finds:
    /// [`StartingPosition::TrimHorizon`] by default.
    ///
    /// [`StartingPosition::Latest`] and [`StartingPosition::AtTimestampMs`] are resolved once, when
    /// the application is started for the first time, and hold from then on. Shards that come from
    /// a later split or merge are always read from their first record.
    pub fn starting_position(mut self, position: StartingPosition) -> Self {
        self.options.starting_position = position;
        self
    }

    /// The largest batch: 10,000 records or 10 MiB by default.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.options.limit = limit;
        self
    }

    /// Waits for fuller batches: a batch that has fewer records and fewer bytes than `enough` is
    /// delivered only when its first record arrived `max_wait` ago. By default a batch has what is
    /// there.
    ///
    /// A batch that reaches the [`limit`](Self::limit), one that failed before and the last one of
    /// a closed shard do not wait. Records that wait stay in the stream and take neither memory nor
    /// a thread; at a shutdown they are left to the next pool.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::{Batch, Checkpointer, Limit, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("load", &stream)
    ///     .limit(Limit::records(500))
    ///     .linger(Limit::records(100), Duration::from_secs(2))
    ///     .start(|_| {
    ///         |batch: &Batch, _: &mut Checkpointer<'_>| {
    ///             println!("{} rows in one transaction", batch.len());
    ///             Ok(())
    ///         }
    ///     })?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn linger(mut self, enough: Limit, max_wait: Duration) -> Self {
        self.options.linger = Some(Linger { enough, max_wait: max_wait.min(LONGEST_DELAY) });
        self
    }

    /// How many workers process each shard in parallel: the records of one partition key go to one
    /// of them, in order, and do not wait for those of other keys. 1 by default, at most 48; 0
    /// counts as 1. Set at least as many [threads](Self::threads).
    ///
    /// Each lane has its own processor, made by the factory, which fails, is retried, parks and
    /// ends independently; it is told of the shard's end at the end of its lane. The checkpoint of
    /// the shard is that of the lane that is furthest behind. The positions of the others are
    /// stored beside it, so that a pool with the same number of lanes resumes exactly; with another
    /// number, the records after the checkpoint come again. Checkpoints cannot be
    /// [prepared](crate::Checkpointer::prepare).
    ///
    /// Every lane reads the whole shard and passes over the records of the others, which takes
    /// about 30 ns per record: lanes are for processing that takes longer.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Batch, Checkpointer, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("thumbnails", &stream).threads(8).lanes(8).start(|_| {
    ///     |batch: &Batch, _: &mut Checkpointer<'_>| {
    ///         for record in batch {
    ///             println!("drawing for {}, in order", record.partition_key());
    ///         }
    ///         Ok(())
    ///     }
    /// })?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn lanes(mut self, count: usize) -> Self {
        self.options.lanes = count.clamp(1, MAX_LANES);
        self
    }

    /// Who moves the checkpoints, and when: [`CheckpointPolicy::AfterBatch`] by default.
    pub fn checkpoints(mut self, policy: CheckpointPolicy) -> Self {
        self.options.checkpoints = policy;
        self
    }

    /// How long a worker that failed waits before the next attempt: `first`, then twice as long
    /// after each further failure in a row, up to `max`. A random part of up to a half is taken
    /// off, so that workers that failed together do not retry together. 100 ms and 10 s by default.
    pub fn retry_delay(mut self, first: Duration, max: Duration) -> Self {
        self.options.retry_delay = RetryDelay::varied(first, max);
        self
    }

    /// How often a batch may fail before its halves are tried, and how often a single record may
    /// then fail before it counts as poison: 5 by default; 0 counts as 1.
    ///
    /// Until then the same batch comes again. A half that succeeds is done; one that fails is
    /// halved again, until a single record is left.
    pub fn attempts(mut self, count: u32) -> Self {
        self.options.attempts = count.max(1);
        self
    }

    /// What becomes of a record that has failed alone as often as [`attempts`](Self::attempts)
    /// allows: [`OnPoison::Retry`], for ever, by default.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::{Batch, Checkpointer, DeadLetters, OnPoison, WorkerPool};
    ///
    /// stream.put("customer-7", "12")?;
    /// stream.put("customer-7", "twelve")?;
    /// stream.put("customer-7", "13")?;
    /// let pool = WorkerPool::builder("billing", &stream)
    ///     .attempts(3)
    ///     .retry_delay(Duration::from_millis(1), Duration::from_secs(1))
    ///     .on_poison(OnPoison::DeadLetter)
    ///     .start(|_| {
    ///         |batch: &Batch, _: &mut Checkpointer<'_>| {
    ///             for record in batch {
    ///                 std::str::from_utf8(record.data())?.parse::<u32>()?;
    ///             }
    ///             Ok(())
    ///         }
    ///     })?;
    /// assert!(pool.wait_until_idle(Duration::from_secs(10)));
    /// let letters = DeadLetters::of("billing", &stream)?.list()?;
    /// assert_eq!(letters[0].data(), b"twelve");
    /// assert_eq!(letters[0].cause, "invalid digit found in string");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn on_poison(mut self, policy: OnPoison) -> Self {
        self.options.on_poison = policy;
        self
    }

    /// How often the pool looks for other pools of the application, to share the shards with them:
    /// every second by default. The shards of a pool that is gone, even killed, are taken over
    /// within this time.
    pub fn look_interval(mut self, interval: Duration) -> Self {
        self.options.look_interval = interval;
        self
    }

    /// How long this pool waits for another one to finish its batch and hand a shard over, before
    /// it takes the shard: 30 seconds by default.
    pub fn hand_over(mut self, deadline: Duration) -> Self {
        self.options.hand_over = deadline;
        self
    }

    /// How long a callback may run before its shard is reported as
    /// [stalled](crate::ShardStatus::is_stalled): 60 seconds by default. A stall is counted and,
    /// with the feature `tracing`, reported as an event, once. Nothing else is done about it: only
    /// you know whether the callback may be interrupted.
    pub fn stall_limit(mut self, limit: Duration) -> Self {
        self.options.stall_limit = limit;
        self
    }

    /// For processors that keep records back and say when they are done with them.
    pub(super) fn buffered(mut self) -> Self {
        (self.options.lanes, self.options.linger) = (1, None);
        self.checkpoints(CheckpointPolicy::Manual)
    }

    /// The clock of the pool.
    pub(super) fn ticker(&self) -> Ticker {
        self.options.ticker.clone()
    }

    /// Starts the threads, which give each batch of every shard to `process`: for processing that
    /// needs no state of its own for a shard, and no checkpointer. Otherwise, see
    /// [`start`](Self::start).
    ///
    /// A batch for which it returns `Ok` is checkpointed as the
    /// [policy](Self::checkpoints) says; after an error or a panic the same records come again.
    /// Batches of several shards are processed at the same time.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::WorkerPool;
    ///
    /// stream.put("customer-7", "12")?;
    /// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|batch| {
    ///     for record in batch {
    ///         let amount: u32 = std::str::from_utf8(record.data())?.parse()?;
    ///         println!("{} {}: {amount}", batch.shard(), record.partition_key());
    ///     }
    ///     Ok(())
    /// })?;
    /// assert!(pool.wait_until_idle(Duration::from_secs(10)));
    /// assert_eq!(pool.status()[0].records_processed, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn for_each_batch<F>(self, process: F) -> Result<WorkerPool>
    where
        F: Fn(&Batch) -> Result<(), ProcessorError> + Send + Sync + 'static,
    {
        let process = Arc::new(process);
        self.start(move |_| {
            let process = Arc::clone(&process);
            move |batch: &Batch, _: &mut Checkpointer<'_>| process(batch)
        })
    }

    /// Starts the threads, which consume every shard with a processor that `factory` makes for it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Batch, Checkpointer, Limit, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("billing", &stream)
    ///     .threads(2)
    ///     .limit(Limit::records(100))
    ///     .start(|shard| {
    ///         let shard = shard.id;
    ///         move |batch: &Batch, _: &mut Checkpointer<'_>| {
    ///             assert_eq!(batch.shard(), shard);
    ///             Ok(())
    ///         }
    ///     })?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the name is not 1 to 128 of `a-z A-Z 0-9 _ . -` without a dot
    /// in front, or is that of a queue, or the starting position is a sequence number, which
    /// belongs to one shard, or a stream is there twice; [`Error::Corrupt`] if a row of the
    /// control table is damaged; [`Error::Io`] or [`Error::DiskFull`] if it cannot be written or a
    /// thread not be started.
    pub fn start<F, P>(self, factory: F) -> Result<WorkerPool>
    where
        F: Fn(&ShardInfo) -> P + Send + Sync + 'static,
        P: RecordProcessor + 'static,
    {
        self.start_by_stream(move |_, shard| factory(shard))
    }

    /// As [`start`](Self::start), with a factory that is told which [`stream`](Self::stream) the
    /// shard is of.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_by_stream<F, P>(self, factory: F) -> Result<WorkerPool>
    where
        F: Fn(&Stream, &ShardInfo) -> P + Send + Sync + 'static,
        P: RecordProcessor + 'static,
    {
        use StartingPosition::{AfterSequenceNumber, AtSequenceNumber};
        if let AtSequenceNumber(_) | AfterSequenceNumber(_) = self.options.starting_position {
            return Err(Error::InvalidArgument(
                "an application cannot begin at a sequence number: it belongs to one shard".into(),
            ));
        }
        let factory =
            Arc::new(move |stream: &Stream, shard: &ShardInfo| -> Box<dyn RecordProcessor> {
                Box::new(factory(stream, shard))
            });
        opening::start(&self.streams, Opening::new(self.application, self.options, factory))
    }
}
