//! How far a shard is processed, and how a processor says so.

use std::fmt;

use crate::error::{Error, Result};
use crate::position::{SequenceNumber, StartingPosition};
use crate::record::Record;
use crate::worker::lease::Lease;

/// How far an application has processed a shard; what comes next is delivered next, whatever
/// happens in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CheckpointPolicy {
    /// The pool does, to the end of each batch that was processed successfully.
    #[default]
    AfterBatch,
    /// The processor does, with its [`Checkpointer`]; the pool only notes the end of a shard.
    ///
    /// What was delivered behind the last checkpoint comes again: after a failure, and to the next
    /// pool after a crash, and after a shutdown unless the processor checkpoints in
    /// [`shutdown_requested`](crate::RecordProcessor::shutdown_requested). Records that come again
    /// begin right behind the checkpoint, whatever the batches were before.
    Manual,
}

/// Moves the checkpoint of a shard, up to what was delivered; lent to the processor with each batch
/// and at the shutdown.
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
#[derive(Debug)]
pub struct Checkpointer<'lent> {
    lease: &'lent mut Lease,
    /// Nothing beyond it was delivered; none if nothing was.
    delivered: Option<SequenceNumber>,
}

impl<'lent> Checkpointer<'lent> {
    pub(super) fn new(lease: &'lent mut Lease, delivered: Option<SequenceNumber>) -> Self {
        Self { lease, delivered }
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
    /// once more is fine, and changes nothing.
    ///
    /// # Errors
    /// [`Error::InvalidCheckpoint`] if the number is beyond what was delivered or below the last
    /// checkpoint; else as [`checkpoint`](Self::checkpoint).
    pub fn checkpoint_at(&mut self, number: impl Into<SequenceNumber>) -> Result<()> {
        let sequence_number = number.into();
        let why = if Some(sequence_number) > self.delivered {
            "it is beyond the records delivered so far"
        } else if self.is_below_last(sequence_number) {
            "it is below the last checkpoint"
        } else {
            return self.lease.store(Checkpoint::AfterSequenceNumber(sequence_number));
        };
        Err(Error::InvalidCheckpoint { shard: self.lease.shard(), sequence_number, why })
    }

    fn is_below_last(&self, number: SequenceNumber) -> bool {
        match self.lease.checkpoint() {
            Checkpoint::TrimHorizon => false,
            Checkpoint::AtSequenceNumber(last) | Checkpoint::AfterSequenceNumber(last) => {
                number < last
            }
            Checkpoint::ShardEnd => true,
        }
    }
}

impl From<&Record<'_>> for SequenceNumber {
    fn from(record: &Record<'_>) -> Self {
        record.sequence_number()
    }
}
