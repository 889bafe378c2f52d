//! How far a shard is processed, and how a processor says so.

use std::fmt;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::control_row::{MAX_STATE_BYTES, PendingRow};
use crate::position::{SequenceNumber, StartingPosition};
use crate::record::Record;
use crate::worker::lane::Lane;

/// How far an application has processed a shard. Whatever happens, the next record is delivered
/// next.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{Application, Checkpoint, WorkerPool};
///
/// let receipt = stream.put("customer-7", "clicked")?;
/// let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// pool.shutdown(Duration::from_secs(10));
/// let shards = Application::of("billing", &stream)?.shards()?;
/// assert_eq!(shards[0].checkpoint, Checkpoint::AfterSequenceNumber(receipt.sequence_number));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Checkpoint {
    /// TRIM_HORIZON: nothing is processed, the oldest record that the shard has comes next.
    TrimHorizon,
    /// Nothing is processed, the record with this number or the first one above it comes next:
    /// the place that [`StartingPosition::Latest`] or [`StartingPosition::AtTimestampMs`] was when
    /// the application saw the shard first.
    AtSequenceNumber(SequenceNumber),
    /// Every record up to and with this number is processed.
    AfterSequenceNumber(SequenceNumber),
    /// SHARD_END: every record of a closed shard is processed, and its children may begin.
    ShardEnd,
}

impl Checkpoint {
    /// Where to read on: none at the shard's end.
    pub(crate) fn position(self) -> Option<StartingPosition> {
        match self {
            Self::TrimHorizon => Some(StartingPosition::TrimHorizon),
            Self::AtSequenceNumber(number) => Some(StartingPosition::AtSequenceNumber(number)),
            Self::AfterSequenceNumber(number) => {
                Some(StartingPosition::AfterSequenceNumber(number))
            }
            Self::ShardEnd => None,
        }
    }

    /// The number of the last record that is processed, as far as it is known.
    pub(crate) fn number(self) -> Option<SequenceNumber> {
        match self {
            Self::AfterSequenceNumber(number) => Some(number),
            Self::TrimHorizon | Self::AtSequenceNumber(_) | Self::ShardEnd => None,
        }
    }

    /// What comes later in the shard is greater.
    pub(super) fn place(self) -> impl Ord {
        match self {
            Self::TrimHorizon => (0, None, false),
            Self::AtSequenceNumber(number) => (1, Some(number), false),
            Self::AfterSequenceNumber(number) => (1, Some(number), true),
            Self::ShardEnd => (2, None, false),
        }
    }

    /// The checkpoint of one who is to read on here.
    pub(crate) fn at(position: Option<StartingPosition>) -> Self {
        match position {
            Some(StartingPosition::TrimHorizon) => Self::TrimHorizon,
            Some(StartingPosition::AtSequenceNumber(number)) => Self::AtSequenceNumber(number),
            Some(StartingPosition::AfterSequenceNumber(number)) => {
                Self::AfterSequenceNumber(number)
            }
            None => Self::ShardEnd,
            Some(StartingPosition::Latest | StartingPosition::AtTimestampMs(_)) => {
                panic!("a checkpoint is a place, not a way to find one: {position:?}")
            }
        }
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("TRIM_HORIZON"),
            Self::AtSequenceNumber(number) => write!(f, "at {number}"),
            Self::AfterSequenceNumber(number) => write!(f, "after {number}"),
            Self::ShardEnd => f.write_str("SHARD_END"),
        }
    }
}

/// Who moves the checkpoint of a shard.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::{CheckpointPolicy, WorkerPool};
///
/// // After a crash at most 10,000 records, or those of a second, come again.
/// let rarely = CheckpointPolicy::Every { records: 10_000, interval: Duration::from_secs(1) };
/// let builder = WorkerPool::builder("billing", &stream).checkpoints(rarely);
/// let pool = builder.for_each_batch(|_| Ok(()))?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// The pool does, to the end of each batch that was processed successfully.
    #[default]
    AfterBatch,
    /// The pool does, when this many records have been processed since the last checkpoint, or this
    /// much time has passed since the first of them was; and when the pool lets go of the shard.
    ///
    /// After a crash, what was processed since the last checkpoint comes again.
    Every {
        /// The most records that are processed and not checkpointed, up to whole batches; 0 counts
        /// as 1.
        records: u64,
        /// The longest time that a record is processed and not checkpointed.
        interval: Duration,
    },
    /// The processor does, with its [`Checkpointer`]; the pool only notes the end of a shard.
    ///
    /// What was delivered after the last checkpoint comes again: after a failure, to the next pool
    /// after a crash, and after a shutdown unless the processor checkpoints in
    /// [`shutdown_requested`](crate::RecordProcessor::shutdown_requested). Records that come again
    /// begin right behind the checkpoint, whatever the batches were before.
    Manual,
}

/// Moves the checkpoint of a shard, up to what was delivered. It is lent to the processor with each
/// batch and at the shutdown.
///
/// A checkpoint is written when the call returns: it survives the death of the process. It is
/// not synced, so a power cut may take the last ones back, and their records come again.
///
/// ```
/// use millstream::{Batch, Checkpointer, ProcessorError};
///
/// fn process(batch: &Batch, checkpointer: &mut Checkpointer<'_>) -> Result<(), ProcessorError> {
///     for record in batch {
///         std::str::from_utf8(record.data())?;
///         checkpointer.checkpoint_at(&record)?;
///     }
///     Ok(())
/// }
/// ```
///
/// Keeping one beyond its batch, or using it for another shard, does not compile:
///
/// ```compile_fail
/// use millstream::{Batch, Checkpointer, ProcessorError, RecordProcessor};
///
/// struct Keeper {
///     kept: Option<&'static mut Checkpointer<'static>>,
/// }
///
/// impl RecordProcessor for Keeper {
///     fn process_records(
///         &mut self,
///         _: &Batch,
///         checkpointer: &mut Checkpointer<'_>,
///     ) -> Result<(), ProcessorError> {
///         self.kept = Some(checkpointer);
///         Ok(())
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Checkpointer<'lent> {
    lane: &'lent mut Lane,
    /// Nothing beyond it was delivered; none if nothing was.
    delivered: Option<SequenceNumber>,
}

impl<'lent> Checkpointer<'lent> {
    pub(super) fn new(lane: &'lent mut Lane, delivered: Option<SequenceNumber>) -> Self {
        Self { lane, delivered }
    }

    /// Everything that was delivered is processed: the whole batch, and what was before it. If
    /// nothing was, this changes nothing.
    ///
    /// # Errors
    /// [`Error::LeaseLost`] if another worker has the shard, [`Error::Io`],
    /// [`Error::DiskFull`] or [`Error::Corrupt`] if the checkpoint could not be written. It is
    /// unchanged then.
    pub fn checkpoint(&mut self) -> Result<()> {
        self.delivered.map_or(Ok(()), |delivered| self.checkpoint_at(delivered))
    }

    /// The record with this number is processed, and everything before it. The last checkpoint
    /// once more is fine, and changes nothing. What was prepared is forgotten.
    ///
    /// # Errors
    /// [`Error::InvalidCheckpoint`] if the number is beyond what was delivered or below the last
    /// checkpoint; else as [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_at(&mut self, number: impl Into<SequenceNumber>) -> Result<()> {
        let number = self.checked(number.into())?;
        self.lane.store(Checkpoint::AfterSequenceNumber(number))
    }

    /// Prepares a checkpoint behind everything that was delivered, as
    /// [`prepare_at`](Self::prepare_at) does. None if nothing was delivered.
    ///
    /// # Errors
    /// As [`prepare_at`](Self::prepare_at).
    pub fn prepare(&mut self, state: &[u8]) -> Result<Option<Prepared<'_>>> {
        self.delivered.map(|delivered| self.prepare_at(delivered, state)).transpose()
    }

    /// The first of two phases: notes that the record with this number, and everything before it,
    /// is about to be processed, together with some bytes, at most 384, which the next processor
    /// is given if this one does not come to the second phase. The checkpoint itself is where it
    /// was.
    ///
    /// One that was prepared before is forgotten; so is this one at the next checkpoint. That is
    /// why it is for [`CheckpointPolicy::Manual`]: under the other policies the pool checkpoints.
    ///
    /// ```
    /// use millstream::{Batch, Checkpointer, Initialization, ProcessorError, RecordProcessor};
    /// use millstream::SequenceNumber;
    ///
    /// # fn upload(_: &str, _: &Batch) -> Result<(), ProcessorError> { Ok(()) }
    /// # fn is_there(_: &str) -> Result<bool, ProcessorError> { Ok(true) }
    /// /// Puts each batch into an object with a name of its own.
    /// #[derive(Default)]
    /// struct Uploader {
    ///     /// An object that may be there already, and the record that it goes up to.
    ///     pending: Option<(String, SequenceNumber)>,
    /// }
    ///
    /// impl RecordProcessor for Uploader {
    ///     fn initialize(&mut self, initialization: &Initialization) {
    ///         self.pending = initialization.pending.as_ref().map(|pending| {
    ///             let name = String::from_utf8_lossy(&pending.state).into_owned();
    ///             (name, pending.sequence_number)
    ///         });
    ///     }
    ///
    ///     fn resume_after(&mut self) -> Result<Option<SequenceNumber>, ProcessorError> {
    ///         match &self.pending {
    ///             Some((name, number)) if is_there(name)? => Ok(Some(*number)),
    ///             _ => Ok(None),
    ///         }
    ///     }
    ///
    ///     fn process_records(
    ///         &mut self,
    ///         batch: &Batch,
    ///         checkpointer: &mut Checkpointer<'_>,
    ///     ) -> Result<(), ProcessorError> {
    ///         let Some(last) = batch.last_sequence_number() else { return Ok(()) };
    ///         let name = format!("{}-{last}", batch.shard());
    ///         let prepared = checkpointer.prepare_at(last, name.as_bytes())?;
    ///         upload(&name, batch)?;
    ///         Ok(prepared.commit()?)
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the state is longer than 384 bytes, or the shard has
    /// [lanes](crate::WorkerPoolBuilder::lanes); else as [`checkpoint_at`](Self::checkpoint_at).
    pub fn prepare_at(
        &mut self,
        number: impl Into<SequenceNumber>,
        state: &[u8],
    ) -> Result<Prepared<'_>> {
        let number = self.checked(number.into())?;
        if state.len() > MAX_STATE_BYTES {
            return Err(Error::InvalidArgument(format!(
                "{} bytes cannot be noted with a checkpoint: {MAX_STATE_BYTES} at most",
                state.len()
            )));
        }
        if !self.lane.is_alone() {
            let what = "a checkpoint cannot be prepared in a shard with lanes".into();
            return Err(Error::InvalidArgument(what));
        }
        self.lane.prepare(PendingRow { number, state: state.to_vec() })?;
        Ok(Prepared { lane: self.lane, number })
    }

    /// The number, if it may be a checkpoint.
    fn checked(&self, sequence_number: SequenceNumber) -> Result<SequenceNumber> {
        let why = if Some(sequence_number) > self.delivered {
            "it is beyond the records delivered so far"
        } else if self.is_below_last(sequence_number) {
            "it is below the last checkpoint"
        } else {
            return Ok(sequence_number);
        };
        Err(Error::InvalidCheckpoint { shard: self.lane.shard(), sequence_number, why })
    }

    fn is_below_last(&self, number: SequenceNumber) -> bool {
        match self.lane.checkpoint() {
            Checkpoint::TrimHorizon => false,
            Checkpoint::AtSequenceNumber(last) | Checkpoint::AfterSequenceNumber(last) => {
                number < last
            }
            Checkpoint::ShardEnd => true,
        }
    }
}

/// A checkpoint that is prepared. Dropped, it stays so, and is given to the next processor of the
/// shard; see [`Initialization::pending`](crate::Initialization::pending).
///
/// ```
/// use millstream::{Batch, Checkpointer, ProcessorError};
///
/// fn process(batch: &Batch, checkpointer: &mut Checkpointer<'_>) -> Result<(), ProcessorError> {
///     if let Some(prepared) = checkpointer.prepare(b"bundle 7")? {
///         println!("sending {} records", batch.len());
///         prepared.commit()?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "it is no checkpoint before it is committed"]
pub struct Prepared<'lent> {
    lane: &'lent mut Lane,
    number: SequenceNumber,
}

impl Prepared<'_> {
    /// The second phase: makes it the checkpoint.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint`]; it stays prepared.
    pub fn commit(self) -> Result<()> {
        self.lane.store(Checkpoint::AfterSequenceNumber(self.number))
    }
}

/// A checkpoint that was prepared, and not committed.
///
/// ```
/// use millstream::{Batch, Checkpointer, Initialization, ProcessorError, RecordProcessor};
///
/// struct Mailer;
///
/// impl RecordProcessor for Mailer {
///     fn initialize(&mut self, initialization: &Initialization) {
///         if let Some(pending) = &initialization.pending {
///             println!("was mail up to {} sent? {:?}", pending.sequence_number, pending.state);
///         }
///     }
///
///     fn process_records(
///         &mut self,
///         _batch: &Batch,
///         checkpointer: &mut Checkpointer<'_>,
///     ) -> Result<(), ProcessorError> {
///         let prepared = checkpointer.prepare(b"mail 7")?;
///         // Here the mail is sent.
///         prepared.map_or(Ok(()), |prepared| prepared.commit())?;
///         Ok(())
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PendingCheckpoint {
    /// It is behind this record.
    pub sequence_number: SequenceNumber,
    /// What was noted with it.
    pub state: Vec<u8>,
}

impl From<PendingRow> for PendingCheckpoint {
    fn from(row: PendingRow) -> Self {
        Self { sequence_number: row.number, state: row.state }
    }
}

impl From<&Record<'_>> for SequenceNumber {
    fn from(record: &Record<'_>) -> Self {
        record.sequence_number()
    }
}
