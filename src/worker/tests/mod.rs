//! Pools over a source that does what the test says.

mod begin;
mod checkpoint;
mod cleanup;
mod emit;
mod failure;
#[cfg(shuttle)]
mod interleavings;
mod journal;
mod json_lines;
mod lanes;
mod lineage;
mod linger;
mod many;
mod poison;
mod prepared;
mod remote_table;
mod script;
mod sharing;
mod shutdown;
mod simulation;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::never;
use parking_lot::Mutex;
use tempfile::TempDir;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::hash_key::HashKeyRange;
use crate::lineage::ShardInfo;
use crate::position::{SequenceNumber, ShardId};
use crate::record::Limit;
use crate::stream::Stream;
use crate::worker::builder::Options;
use crate::worker::control_table::ControlTable;
use crate::worker::crew::Queue;
use crate::worker::lease::Lease;
use crate::worker::lease_table::LeaseTable;
use crate::worker::pool::{self, WorkerPool};
use crate::worker::processor::Factory;
use crate::worker::retry_delay::RetryDelay;
use crate::worker::shared::{Common, Shared};
use crate::worker::status::Board;
use crate::worker::supervisor::Supervisor;
use crate::worker::{
    Checkpoint, CheckpointPolicy, Checkpointer, Initialization, Outcome, PendingCheckpoint,
    ProcessorError, RecordProcessor, ShardOutcome, ShardState, ShardStatus,
};
use script::Script;

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);

/// Retries that do not keep a test waiting, and retries that it does not live to see.
const SHORT: RetryDelay = RetryDelay::exactly(Duration::ZERO, Duration::from_millis(1));
const NEVER: RetryDelay = RetryDelay::exactly(LONG.saturating_mul(100), Duration::MAX);

/// What a processor was told.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Call {
    Initialize(ShardId, Checkpoint, u32),
    Record(ShardId, u64),
    ShardEnded(ShardId),
    LeaseLost(ShardId),
    ShutdownRequested(ShardId),
}

/// Everything that the processors of a test were told, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Call>>>);

impl Log {
    fn add(&self, call: Call) {
        self.0.lock().push(call);
    }

    fn calls(&self) -> Vec<Call> {
        self.0.lock().clone()
    }

    fn clear(&self) {
        self.0.lock().clear();
    }

    fn count(&self, call: &Call) -> usize {
        self.0.lock().iter().filter(|other| *other == call).count()
    }

    fn records(&self, shard: ShardId) -> Vec<u64> {
        let record = |call: &Call| match call {
            Call::Record(of, number) if *of == shard => Some(*number),
            _ => None,
        };
        self.0.lock().iter().filter_map(record).collect()
    }
}

type OnBatch = dyn Fn(&Batch, &mut Checkpointer<'_>) -> Result<(), ProcessorError> + Send + Sync;
type OnBegin = dyn Fn(Option<&PendingCheckpoint>) -> Result<Option<SequenceNumber>, ProcessorError>
    + Send
    + Sync;
type OnShard = dyn Fn(ShardId) -> Result<(), ProcessorError> + Send + Sync;
type OnShutdown =
    dyn Fn(ShardId, &mut Checkpointer<'_>) -> Result<(), ProcessorError> + Send + Sync;

/// Logs what it is told, and does what the test says.
#[derive(Clone)]
struct Recorder {
    shard: ShardId,
    log: Log,
    on_initialize: Arc<OnShard>,
    on_begin: Arc<OnBegin>,
    on_batch: Arc<OnBatch>,
    on_shard_end: Arc<OnShard>,
    on_shutdown: Arc<OnShutdown>,
    /// What it was given when it was initialized.
    pending: Option<PendingCheckpoint>,
}

impl Recorder {
    fn new(log: &Log) -> Self {
        Self {
            shard: ShardId::new(0),
            log: log.clone(),
            on_initialize: Arc::new(|_| Ok(())),
            on_begin: Arc::new(|_| Ok(None)),
            pending: None,
            on_batch: Arc::new(|_, _| Ok(())),
            on_shard_end: Arc::new(|_| Ok(())),
            on_shutdown: Arc::new(|_, _| Ok(())),
        }
    }

    /// Also does this with each batch, before it is logged.
    fn on_batch<F>(mut self, run: F) -> Self
    where
        F: Fn(&Batch, &mut Checkpointer<'_>) -> Result<(), ProcessorError> + Send + Sync + 'static,
    {
        self.on_batch = Arc::new(run);
        self
    }
}

impl RecordProcessor for Recorder {
    fn initialize(&mut self, initialization: &Initialization) {
        let Initialization { shard, checkpoint, attempt, .. } = initialization;
        self.log.add(Call::Initialize(shard.id, *checkpoint, *attempt));
        self.pending = initialization.pending.clone();
        (self.on_initialize)(self.shard).unwrap();
    }

    fn resume_after(&mut self) -> Result<Option<SequenceNumber>, ProcessorError> {
        (self.on_begin)(self.pending.as_ref())
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        assert!(!batch.is_empty());
        assert_eq!(batch.shard(), self.shard);
        (self.on_batch)(batch, checkpointer)?;
        numbers(batch).for_each(|number| self.log.add(Call::Record(self.shard, number)));
        Ok(())
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.log.add(Call::ShardEnded(self.shard));
        (self.on_shard_end)(self.shard)
    }

    fn lease_lost(&mut self) {
        self.log.add(Call::LeaseLost(self.shard));
    }

    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        self.log.add(Call::ShutdownRequested(self.shard));
        (self.on_shutdown)(self.shard, checkpointer).unwrap();
    }
}

/// A pool that does something when the test says so.
struct Driven {
    board: Arc<Board>,
    thread: Queue<Arc<Script>>,
    supervisor: Supervisor<Arc<Script>>,
}

impl Driven {
    /// Does what there is to do at this time, in more turns than any test needs.
    fn settle(&mut self) {
        for _ in 0..100 {
            self.supervisor.step();
            self.thread.run_once();
        }
    }
}

fn numbers(batch: &Batch) -> impl Iterator<Item = u64> {
    batch.iter().map(|record| record.sequence_number().address().unwrap())
}

/// A source, a directory for control tables, and the settings of the next pool.
struct Fixture {
    source: Arc<Script>,
    directory: TempDir,
    options: Options,
    log: Log,
}

impl Fixture {
    /// A stream of this many open shards without parents; two threads, no delays, a batch is a
    /// record.
    fn new(shards: u32) -> Self {
        let source = Arc::new(Script::default());
        for _ in 0..shards {
            source.add_shard(&[]);
        }
        let options = Options {
            threads: 2,
            limit: Limit::records(1),
            retry_delay: SHORT,
            ..Options::default()
        };
        let directory = tempfile::tempdir().unwrap();
        Self { source, directory, options, log: Log::default() }
    }

    fn manual(mut self) -> Self {
        self.options.checkpoints = CheckpointPolicy::Manual;
        self
    }

    fn recorder(&self) -> Recorder {
        Recorder::new(&self.log)
    }

    fn try_start<P: RecordProcessor + 'static>(
        &self,
        factory: impl Fn(&ShardInfo) -> P + Send + Sync + 'static,
    ) -> Result<WorkerPool> {
        let factory = Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
            Box::new(factory(shard))
        });
        self.start_as("billing", factory)
    }

    /// A pool of the application with this name.
    fn start_as(&self, application: &str, factory: Factory) -> Result<WorkerPool> {
        let common = Common::new();
        start(self.assemble(application, factory, &common)?, &common)
    }

    fn assemble(
        &self,
        application: &str,
        factory: Factory,
        common: &Common<Arc<Script>>,
    ) -> Result<Shared<Arc<Script>>> {
        let table = ControlTable::join(self.directory.path(), application, None)?;
        let path = table.path().to_owned();
        let (source, options) = (Arc::clone(&self.source), self.options.clone());
        Ok(Shared::new(source, Arc::new(table), &path, options, factory, common))
    }

    /// A pool without threads, whose processors are all like this one.
    fn drive(&self, recorder: Recorder) -> Driven {
        let factory = Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
            Box::new(Recorder { shard: shard.id, ..recorder.clone() })
        });
        let common = Common::new();
        let shared = self.assemble("billing", factory, &common).unwrap();
        let board = Arc::clone(&shared.board);
        let supervisor = Supervisor::new(Arc::new(shared), &common.queue).unwrap();
        Driven { board, thread: common.queue, supervisor }
    }

    /// A pool whose processors are all like this one.
    fn start(&self, recorder: Recorder) -> WorkerPool {
        self.try_start(move |shard| Recorder { shard: shard.id, ..recorder.clone() }).unwrap()
    }

    /// Runs a pool until there is nothing to do.
    fn run(&self, recorder: Recorder) {
        let pool = self.start(recorder);
        assert!(pool.wait_until_idle(LONG), "{pool:?}");
    }

    fn row_path(&self, shard: ShardId) -> PathBuf {
        self.directory.path().join(format!("billing/{shard}.row"))
    }

    /// Another one who looks at the application's leases.
    fn table(&self) -> Arc<ControlTable> {
        Arc::new(ControlTable::join(self.directory.path(), "billing", None).unwrap())
    }

    fn stored_checkpoint(&self, shard: ShardId) -> Checkpoint {
        Checkpoint::at(self.table().read(shard).unwrap().checkpoint)
    }

    /// Takes the lease, from whoever has it.
    fn take_lease(&self, shard: ShardId) -> Lease {
        take_lease(self.directory.path(), shard)
    }
}

/// Starts a pool that consumes one stream.
fn start(shared: Shared<Arc<Script>>, common: &Common<Arc<Script>>) -> Result<WorkerPool> {
    let (options, consumed) = (shared.options.clone(), shared.consumed());
    let supervisor = Supervisor::new(Arc::new(shared), &common.queue)?;
    let opened = (vec![consumed], vec![supervisor]);
    let add = |_: &Stream| Err(Error::InvalidArgument("the source is a script".into()));
    pool::start(common, &options, opened, never(), Box::new(add))
}

/// Has a shard of the only stream tried again that is parked.
fn resume(pool: &WorkerPool, shard: ShardId) -> bool {
    pool.resume(&*pool.status()[0].stream, shard)
}

/// The outcomes of the shards of a pool that is shut down.
fn shut_down(pool: WorkerPool, deadline: Duration) -> Vec<(ShardId, Outcome)> {
    let outcomes = pool.shutdown(deadline).into_iter();
    outcomes.map(|ShardOutcome { shard, outcome, .. }| (shard, outcome)).collect()
}

/// A shard of which nothing else matters.
fn info(id: ShardId) -> ShardInfo {
    ShardInfo {
        id,
        hash_key_range: HashKeyRange::FULL,
        parent: None,
        adjacent_parent: None,
        starting_sequence_number: 0.into(),
        ending_sequence_number: None,
        opened_ms: 0,
        closed_ms: None,
    }
}

/// Takes a lease of `billing`, from whoever has it.
fn take_lease(applications: &Path, shard: ShardId) -> Lease {
    let table: Arc<dyn LeaseTable> =
        Arc::new(ControlTable::join(applications, "billing", None).unwrap());
    loop {
        let seen = table.read(shard).unwrap();
        if let Some(lease) = Lease::take(Arc::clone(&table), &info(shard), &seen).unwrap() {
            return lease;
        }
    }
}

/// Writes into a file that may be mapped: one that is emptied on the way may not be.
fn overwrite(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn after(number: u64) -> Checkpoint {
    Checkpoint::AfterSequenceNumber(number.into())
}

fn status(pool: &WorkerPool, shard: ShardId) -> ShardStatus {
    pool.status().into_iter().find(|status| status.shard == shard).unwrap()
}

/// Waits until the shard is in this state.
fn wait_for_state(pool: &WorkerPool, shard: ShardId, state: ShardState) {
    let deadline = Instant::now() + LONG;
    loop {
        let version = pool.life.version();
        let entries = pool.streams.lock()[0].board.snapshot();
        if entries.get(&shard).is_some_and(|entry| entry.state == state) {
            return;
        }
        assert!(pool.life.wait_for_change(version, Some(deadline)), "{shard} is never {state:?}");
    }
}
