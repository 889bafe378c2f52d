//! One shard's worker: reads a batch, runs the callback, checkpoints, and begins anew at the
//! checkpoint after each failure.

mod failure;
mod last_turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::error::Result;
use crate::lineage::ShardInfo;
use crate::os::signal::Event;
use crate::position::{SequenceNumber, StartingPosition};
use crate::record::{Gap, Limit};
use crate::seeded::bug;
use crate::worker::builder::Options;
use crate::worker::callback::PROCESS_RECORDS;
use crate::worker::checkpoint::{Checkpoint, CheckpointPolicy, Checkpointer, PendingCheckpoint};
use crate::worker::coordinator::{Recall, RecallFlag};
use crate::worker::journal::Change;
use crate::worker::lane::{Found, Lane};
use crate::worker::linger::Lingering;
use crate::worker::poison::PoisonSearch;
use crate::worker::processor::{Initialization, ProcessorError, RecordProcessor};
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::status::{ShardState, WorkerKey};
use crate::worker::supervisor::caught;

/// What becomes of a worker after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It has more to do.
    Again,
    /// There is nothing to read for now, or not enough; at this time, if there is one, something is
    /// to be done all the same.
    Idle(Option<Instant>),
    /// It failed, and is to be tried again after this delay.
    Retry(Duration),
    /// It is not to be tried again.
    Park,
    /// The shard is processed to its end.
    Ended,
    /// It is done for another reason.
    Gone,
}

/// The worker of one shard, or of one lane of it.
pub(super) struct ShardWorker<S: Source> {
    shard: ShardInfo,
    lane: Lane,
    recall: RecallFlag,
    /// None before the first turn and after a failure.
    running: Option<Running<S>>,
    /// The last record ever processed: the worker gets on when it gets beyond.
    furthest: Option<SequenceNumber>,
    /// Failures since the worker last got on.
    failures: u32,
    search: PoisonSearch,
    /// What is missing before the next record, where other lanes had some.
    gap: Option<Gap>,
}

/// A processor, and what it gets next.
struct Running<S: Source> {
    processor: Box<dyn RecordProcessor>,
    /// None behind the last record of a closed shard.
    cursor: Option<S::Cursor>,
    /// What is at the cursor, if it waits for more.
    lingering: Option<Lingering<S::Cursor>>,
    /// The last record that it has taken or passed over, or that was checkpointed before its time.
    delivered: Option<SequenceNumber>,
    /// The last record that it has taken.
    taken: Option<SequenceNumber>,
    /// How many records it has taken that are not checkpointed, and since when, if the pool is to
    /// checkpoint them later.
    unsaved: Option<(u64, Instant)>,
}

impl<S: Source> ShardWorker<S> {
    pub(super) fn new(shard: ShardInfo, lane: Lane, recall: RecallFlag, options: &Options) -> Self {
        let search = PoisonSearch::new(options.attempts);
        let (running, furthest, failures, gap) = (None, None, 0, None);
        Self { shard, lane, recall, running, furthest, failures, search, gap }
    }

    pub(super) fn key(&self) -> WorkerKey {
        self.lane.key()
    }

    pub(super) fn shard(&self) -> &ShardInfo {
        &self.shard
    }

    /// Whether an idle worker has something to do again.
    pub(super) fn has_news(&mut self, source: &S) -> bool {
        let Some(running) = &mut self.running else { return true };
        let news = match (&mut running.lingering, &running.cursor) {
            (Some(lingering), _) => lingering.look(|end, limit| {
                let found = self.lane.read(source, end, limit)?;
                Ok((found.batch, found.next))
            }),
            (None, Some(cursor)) => source
                .read(cursor, Limit::records(1))
                .map(|(batch, next)| !batch.is_empty() || next.is_none()),
            (None, None) => Ok(true),
        };
        // The next turn runs into an error as well, and reports it.
        news.unwrap_or(true)
    }

    /// Has `event` notified when an idle worker has something to do; false if that cannot be had.
    pub(super) fn listen(&self, source: &S, event: &Arc<Event>) -> bool {
        let cursor = self.running.as_ref().and_then(|running| match &running.lingering {
            Some(lingering) => lingering.end(),
            None => running.cursor.as_ref(),
        });
        cursor.is_some_and(|cursor| source.notify(cursor, event).unwrap_or(false))
    }

    /// Begins, processes a batch, or ends. Whatever fails or panics, a turn is all that leaves.
    pub(super) fn turn(&mut self, pool: &Shared<S>) -> Turn {
        // An error of the user's may panic when it is asked what it is.
        let result = caught(|| self.try_turn(pool).map_err(|error| error.to_string()));
        result.flatten().unwrap_or_else(|error| self.fail(pool, error))
    }

    fn try_turn(&mut self, pool: &Shared<S>) -> Result<Turn, ProcessorError> {
        // Nobody is given records of a shard that another one may have by now.
        self.lane.check()?;
        if self.recall.get() == Some(Recall::HandOver) {
            return Ok(self.hand_over(pool));
        }
        let Some(running) = &self.running else {
            return self.begin(pool);
        };
        let Some(cursor) = &running.cursor else {
            return self.end(pool);
        };
        let Found { mut batch, last, next } = self.read(pool, cursor)?;
        if let Some(due) = self.linger(pool, &batch, next.as_ref())? {
            let save_due = self.save_if_due(pool)?;
            pool.board.update(self.lane.key(), |entry| entry.checkpoint = self.lane.checkpoint());
            return Ok(Turn::Idle(save_due.into_iter().chain([due]).min()));
        }
        batch.set_gap(batch.gap().or(self.gap));
        if let Some(last) = last {
            self.process(pool, &batch, last)?;
        }
        let idle = last.is_none() && next.is_some();
        let idle_due = if idle { self.idle(pool)? } else { None };
        let due = self.save_if_due(pool)?.into_iter().chain(idle_due).min();
        let checkpoint = self.lane.checkpoint();
        pool.board.update(self.lane.key(), |entry| {
            entry.state = if idle { ShardState::Idle } else { ShardState::Running };
            entry.count(&batch);
            entry.checkpoint = checkpoint;
            entry.position = next.as_ref().map(|cursor| pool.source.position(cursor));
            entry.failed_attempts = self.failures;
            entry.poison = self.search.poison();
        });
        self.running.as_mut().expect("nothing has failed").cursor = next;
        Ok(if idle { Turn::Idle(due) } else { Turn::Again })
    }

    /// A new processor, at the checkpoint.
    fn begin(&mut self, pool: &Shared<S>) -> Result<Turn, ProcessorError> {
        let checkpoint = self.lane.checkpoint();
        let position = checkpoint.position().expect("an ended shard has no worker");
        let cursor = Some(pool.source.cursor(self.shard.id, position)?);
        let key = self.lane.key();
        let processor = callback(pool, key, "factory", || (pool.factory)(&self.shard));
        let delivered = checkpoint.number();
        let (lingering, taken, unsaved) = (None, None, None);
        let running = Running { processor, cursor, lingering, delivered, taken, unsaved };
        let running = self.running.insert(running);
        let initialization = Initialization {
            stream: Arc::clone(&pool.board.stream),
            shard: self.shard.clone(),
            checkpoint,
            lane: key.1,
            pending: self.lane.pending().map(PendingCheckpoint::from),
            attempt: self.failures.saturating_add(1),
        };
        let initialize = || running.processor.initialize(&initialization);
        callback(pool, key, "initialize", initialize);
        let resume_after = || running.processor.resume_after();
        let after = callback(pool, key, "resume_after", resume_after)?;
        if let Some(number) = after {
            // Before anything else: the number may be of another shard.
            let position = StartingPosition::AfterSequenceNumber(number);
            running.cursor = Some(pool.source.cursor(self.shard.id, position)?);
            running.delivered = Some(number);
            self.lane.store(Checkpoint::AfterSequenceNumber(number))?;
        }
        pool.board.tell(self.lane.key(), Change::Started { attempt: initialization.attempt });
        Ok(Turn::Again)
    }

    /// The next batch, which ends early where a record that makes it fail is looked for.
    fn read(&self, pool: &Shared<S>, cursor: &S::Cursor) -> Result<Found<S::Cursor>> {
        let limit = pool.options.limit;
        let found = self.lane.read(&*pool.source, cursor, limit)?;
        let wanted = self.search.cut(&found.batch);
        if wanted == found.batch.len() {
            return Ok(found);
        }
        let last = found.batch.get(wanted - 1).expect("one is wanted").sequence_number();
        let (all, _) = pool.source.read(cursor, limit)?;
        let max_records = all.iter().take_while(|record| record.sequence_number() <= last).count();
        self.lane.read(&*pool.source, cursor, Limit { max_records, ..limit })
    }

    /// Until when the batch waits for more records, if it does. One that has failed has waited.
    fn linger(
        &mut self,
        pool: &Shared<S>,
        batch: &Batch,
        next: Option<&S::Cursor>,
    ) -> Result<Option<Instant>> {
        let running = self.running.as_mut().expect("a processor waits for the batch");
        let (Some(linger), Some(cursor)) = (pool.options.linger, &running.cursor) else {
            return Ok(None);
        };
        let now = pool.options.ticker.now();
        let due = match running.lingering.take() {
            Some(before) if before.waits_until(now).is_none() => return Ok(None),
            _ if batch.is_empty() || self.search.is_on() => return Ok(None),
            Some(before) => before.due(),
            None => linger.due(now, pool.source.lag(cursor)?),
        };
        let lingering = Lingering::new(linger.enough(pool.options.limit), batch, next, due);
        let due = lingering.waits_until(now);
        running.lingering = due.map(|_| lingering);
        Ok(due)
    }

    /// Processes a batch, up to this record of whichever lane.
    fn process(
        &mut self,
        pool: &Shared<S>,
        batch: &Batch,
        through: SequenceNumber,
    ) -> Result<(), ProcessorError> {
        let running = self.running.as_mut().expect("a processor takes the batch");
        if let Some(last) = batch.last_sequence_number() {
            let key = self.lane.key();
            let mut checkpointer = Checkpointer::new(&mut self.lane, Some(through));
            if bug("checkpoint_before_processing") {
                checkpointer.checkpoint()?;
            }
            // A dead letter is passed over: it comes alone.
            if !self.search.is_dead(last) {
                self.search.try_batch(batch, running.delivered);
                callback(pool, key, PROCESS_RECORDS, || {
                    running.processor.process_records(batch, &mut checkpointer)
                })?;
                self.search.succeed();
            }
            match pool.options.checkpoints {
                CheckpointPolicy::AfterBatch => checkpointer.checkpoint()?,
                CheckpointPolicy::Every { .. } => {
                    let (count, since) = running.unsaved.unwrap_or((0, pool.options.ticker.now()));
                    running.unsaved = Some((count + batch.len() as u64, since));
                }
                CheckpointPolicy::Manual => {}
            }
            running.taken = Some(last);
            // Records that come again, because they were not checkpointed, are no progress.
            if self.furthest < Some(last) {
                self.furthest = Some(last);
                self.failures = 0;
            }
        }
        self.gap = batch.gap().filter(|_| batch.is_empty());
        running.delivered = Some(through);
        // What is left behind the last record of this lane, is of others.
        if running.taken <= self.lane.checkpoint().number() {
            self.lane.pass(through)?;
        }
        Ok(())
    }

    /// There is nothing to process for now. Returns when to say so again.
    fn idle(&mut self, pool: &Shared<S>) -> Result<Option<Instant>, ProcessorError> {
        let running = self.running.as_mut().expect("a processor is idle");
        let key = self.lane.key();
        let mut checkpointer = Checkpointer::new(&mut self.lane, running.delivered);
        let idle = || running.processor.idle(&mut checkpointer);
        let after = callback(pool, key, "idle", idle)?;
        Ok(after.and_then(|after| pool.options.ticker.now().checked_add(after)))
    }

    /// Checkpoints, if it is time to; else returns when it will be.
    fn save_if_due(&mut self, pool: &Shared<S>) -> Result<Option<Instant>> {
        let unsaved = self.running.as_ref().and_then(|running| running.unsaved);
        let CheckpointPolicy::Every { records, interval } = pool.options.checkpoints else {
            return Ok(None);
        };
        let Some((count, since)) = unsaved else { return Ok(None) };
        let due = since.checked_add(interval);
        if count < records.max(1) && due.is_none_or(|due| due > pool.options.ticker.now()) {
            return Ok(due);
        }
        self.save()?;
        Ok(None)
    }

    /// Checkpoints what was processed, if that was left for later.
    fn save(&mut self) -> Result<()> {
        let Some(running) = &mut self.running else { return Ok(()) };
        if let (Some(delivered), Some(_)) = (running.delivered, running.unsaved) {
            self.lane.store(Checkpoint::AfterSequenceNumber(delivered))?;
            running.unsaved = None;
        }
        Ok(())
    }

    fn end(&mut self, pool: &Shared<S>) -> Result<Turn, ProcessorError> {
        let running = self.running.as_mut().expect("a processor sees the end");
        let key = self.lane.key();
        callback(pool, key, "shard_ended", || running.processor.shard_ended())?;
        self.lane.store(Checkpoint::ShardEnd)?;
        self.drop_processor();
        pool.board.update(self.lane.key(), |entry| {
            entry.state = ShardState::Ended;
            entry.checkpoint = Checkpoint::ShardEnd;
            entry.position = None;
            entry.failed_attempts = 0;
        });
        pool.board.tell(self.lane.key(), Change::ShardEnded);
        Ok(Turn::Ended)
    }

    /// Whatever it says to that: nobody needs it any more.
    fn drop_processor(&mut self) {
        let running = self.running.take();
        let _ = caught(|| drop(running));
    }
}

/// Runs code of the user's.
fn callback<S, T>(
    pool: &Shared<S>,
    key: WorkerKey,
    name: &'static str,
    run: impl FnOnce() -> T,
) -> T {
    pool.board.call(&pool.options.ticker, key, name, run)
}
