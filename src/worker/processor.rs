//! What the user writes: a record processor, in the lifecycle of the KCL.

use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::lineage::ShardInfo;
use crate::position::SequenceNumber;
use crate::worker::checkpoint::{Checkpoint, Checkpointer, PendingCheckpoint};

/// Whatever made a processor fail.
///
/// ```
/// use millstream::{Batch, ProcessorError};
///
/// fn sum(batch: &Batch) -> Result<u64, ProcessorError> {
///     let mut sum = 0;
///     for record in batch {
///         // Any error will do.
///         sum += std::str::from_utf8(record.data())?.parse::<u64>()?;
///     }
///     Ok(sum)
/// }
/// ```
pub type ProcessorError = Box<dyn std::error::Error + Send + Sync>;

/// How a processor begins; see [`RecordProcessor::initialize`].
///
/// ```
/// use millstream::{Batch, Checkpointer, Initialization, ProcessorError, RecordProcessor};
///
/// struct Load;
///
/// impl RecordProcessor for Load {
///     fn initialize(&mut self, initialization: &Initialization) {
///         let Initialization { shard, checkpoint, attempt, .. } = initialization;
///         println!("{}: {checkpoint}, attempt {attempt}", shard.id);
///     }
/// #
/// #     fn process_records(
/// #         &mut self,
/// #         _: &Batch,
/// #         _: &mut Checkpointer<'_>,
/// #     ) -> Result<(), ProcessorError> {
/// #         Ok(())
/// #     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Initialization {
    /// The directory of the shard's stream.
    pub stream: Arc<str>,
    /// The shard.
    pub shard: ShardInfo,
    /// Which of the shard's [lanes](crate::WorkerPoolBuilder::lanes) it is for; 0 if it has none.
    pub lane: usize,
    /// How far the application has processed it: what comes next is delivered next.
    pub checkpoint: Checkpoint,
    /// A checkpoint that was prepared but not committed: the processor that prepared it stopped or
    /// failed in between, and only the place where the records went knows whether they got there.
    /// If they did, let [`resume_after`](RecordProcessor::resume_after) return its number.
    pub pending: Option<PendingCheckpoint>,
    /// Which attempt this is at the records that come next: 1, and one more after each failure in
    /// a row.
    pub attempt: u32,
}

/// Processes the records of one shard, one batch after the other.
///
/// A processor is made by the factory given to
/// [`start`](crate::WorkerPoolBuilder::start) when the pool begins with a shard, and made anew
/// after each failure; the one that failed is dropped. It is called by one thread at a time, but
/// not always by the same one. A shard with [lanes](crate::WorkerPoolBuilder::lanes) has one for
/// each of them.
///
/// A closure that takes a batch and a checkpointer is a processor, too. Write out the types of its
/// arguments, as in `|batch: &Batch, _: &mut Checkpointer<'_>| Ok(())`; without them the compiler
/// does not find their lifetimes. A closure that needs no checkpointer is easier given to
/// [`for_each_batch`](crate::WorkerPoolBuilder::for_each_batch).
///
/// ```
/// use std::collections::HashMap;
///
/// use millstream::{Batch, Checkpointer, Initialization, ProcessorError, RecordProcessor};
///
/// #[derive(Default)]
/// struct Count {
///     records: HashMap<String, u64>,
/// }
///
/// impl RecordProcessor for Count {
///     fn initialize(&mut self, initialization: &Initialization) {
///         assert!(initialization.attempt >= 1);
///     }
///
///     fn process_records(
///         &mut self,
///         batch: &Batch,
///         _checkpointer: &mut Checkpointer<'_>,
///     ) -> Result<(), ProcessorError> {
///         for record in batch {
///             *self.records.entry(record.partition_key().into()).or_default() += 1;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait RecordProcessor: Send {
    /// Called once, before everything else.
    fn initialize(&mut self, initialization: &Initialization) {
        let _ = initialization;
    }

    /// Called once, after [`initialize`](Self::initialize): the number of the last record that was
    /// processed, if the processor knows it better than the checkpoint, because it stores the
    /// number in the same transaction as the effect of the records. The records after it come next,
    /// and it becomes the checkpoint, even if it is below the last one. So each record takes effect
    /// exactly once, whatever fails in between, and even when a backup is restored.
    ///
    /// Of a shard with [lanes](crate::WorkerPoolBuilder::lanes), each lane has a number of its own,
    /// and goes by it: keep them apart by [`Initialization::lane`], and let their count be.
    ///
    /// ```
    /// # use std::collections::HashMap;
    /// # use std::sync::{Arc, Mutex};
    /// use millstream::{
    ///     Batch, Checkpointer, ProcessorError, RecordProcessor, SequenceNumber, ShardId,
    /// };
    ///
    /// /// Stands for a database.
    /// #[derive(Default)]
    /// struct Database {
    ///     clicks: u64,
    ///     positions: HashMap<ShardId, SequenceNumber>,
    /// }
    ///
    /// struct Counter {
    ///     shard: ShardId,
    ///     database: Arc<Mutex<Database>>,
    /// }
    ///
    /// impl RecordProcessor for Counter {
    ///     fn resume_after(&mut self) -> Result<Option<SequenceNumber>, ProcessorError> {
    ///         Ok(self.database.lock().unwrap().positions.get(&self.shard).copied())
    ///     }
    ///
    ///     fn process_records(
    ///         &mut self,
    ///         batch: &Batch,
    ///         _: &mut Checkpointer<'_>,
    ///     ) -> Result<(), ProcessorError> {
    ///         // One transaction.
    ///         let mut database = self.database.lock().unwrap();
    ///         database.clicks += batch.len() as u64;
    ///         let last = batch.last_sequence_number();
    ///         database.positions.extend(last.map(|last| (self.shard, last)));
    ///         Ok(())
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`process_records`](Self::process_records).
    fn resume_after(&mut self) -> Result<Option<SequenceNumber>, ProcessorError> {
        Ok(None)
    }

    /// Processes a batch, which has at least one record.
    ///
    /// Under [`CheckpointPolicy::AfterBatch`](crate::CheckpointPolicy::AfterBatch) the batch is
    /// checkpointed when this returns `Ok`.
    ///
    /// # Errors
    /// An error or a panic ends this processor. After a delay the factory makes another one, and
    /// the records after the checkpoint come again: none is skipped.
    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError>;

    /// Called when every record that there is was processed, for processors that keep something
    /// back. Returns the time after which to call it again if nothing has come by then; if none, it
    /// is called again only after more records were processed.
    ///
    /// # Errors
    /// As [`process_records`](Self::process_records), but no record is held responsible.
    fn idle(
        &mut self,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<Option<Duration>, ProcessorError> {
        let _ = checkpointer;
        Ok(None)
    }

    /// Called when every record of a closed shard was processed; nothing comes after it. When this
    /// returns `Ok`, the checkpoint is SHARD_END, under every policy, and the shard's children may
    /// begin.
    ///
    /// # Errors
    /// As [`process_records`](Self::process_records); the children wait.
    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called when another worker has taken the shard; nothing is called after it.
    fn lease_lost(&mut self) {}

    /// Called when the pool shuts down, or hands the shard over to another pool; nothing comes
    /// after it. A processor that keeps something back finishes it here.
    ///
    /// The checkpointer takes everything that was delivered, so that under
    /// [`CheckpointPolicy::Manual`](crate::CheckpointPolicy::Manual) nothing need come again. It is
    /// not called after a failure whose next attempt has not begun yet, nor if the shutdown's
    /// deadline has passed before its turn.
    ///
    /// ```
    /// use millstream::{Batch, Checkpointer, ProcessorError, RecordProcessor};
    ///
    /// /// Sends records by the hundred, and at the end those that are left.
    /// struct Bundler {
    ///     bundle: Vec<Vec<u8>>,
    /// }
    ///
    /// impl Bundler {
    ///     fn send(&mut self) {
    ///         self.bundle.clear();
    ///     }
    /// }
    ///
    /// impl RecordProcessor for Bundler {
    ///     fn process_records(
    ///         &mut self,
    ///         batch: &Batch,
    ///         checkpointer: &mut Checkpointer<'_>,
    ///     ) -> Result<(), ProcessorError> {
    ///         for record in batch {
    ///             self.bundle.push(record.data().to_vec());
    ///             if self.bundle.len() == 100 {
    ///                 self.send();
    ///                 checkpointer.checkpoint_at(&record)?;
    ///             }
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
    ///         self.send();
    ///         // If it cannot be written, the last bundle comes again.
    ///         let _ = checkpointer.checkpoint();
    ///     }
    /// }
    /// ```
    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        let _ = checkpointer;
    }
}

impl<F> RecordProcessor for F
where
    F: FnMut(&Batch, &mut Checkpointer<'_>) -> Result<(), ProcessorError> + Send,
{
    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        self(batch, checkpointer)
    }
}

/// Makes a processor for a shard.
pub(super) type Factory = Box<dyn Fn(&ShardInfo) -> Box<dyn RecordProcessor> + Send + Sync>;
