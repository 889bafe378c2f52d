//! Which record it is that a processor cannot process.
//!
//! A batch that fails comes again as it was, and fails again. When it has failed as often as a
//! batch may, halves of it are tried, so that what is good in it is processed, and what is left is
//! smaller each time; in the end it is one record. That one has as many attempts alone as a batch
//! has, so that a failure of something else, say a database that is away for a while, is not taken
//! for the record's. Only what fails while the processor has records counts.

use std::collections::BTreeSet;

use crate::batch::Batch;
use crate::position::SequenceNumber;

/// What becomes of a record that cannot be processed: one that fails alone, time after time. It is
/// found by halving the batch that fails, see [`attempts`](crate::WorkerPoolBuilder::attempts); the
/// records before it are processed.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{OnPoison, WorkerPool};
///
/// let pool = WorkerPool::builder("billing", &stream)
///     .attempts(3)
///     .on_poison(OnPoison::DeadLetter)
///     .for_each_batch(|batch| {
///         println!("{} records", batch.len());
///         Ok(())
///     })?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnPoison {
    /// It is retried for ever, with the longest delay in between; the rest of its shard waits.
    #[default]
    Retry,
    /// It is put aside, durably, with what is known of its failure, and its shard goes on: see
    /// [`DeadLetters`](crate::DeadLetters). If that fails, the record is tried again.
    DeadLetter,
    /// Its shard is left alone, with the state [`Parked`](crate::ShardState::Parked), until it is
    /// [resumed](crate::WorkerPool::resume), or another pool takes it; the other shards go on.
    Park,
    /// The pool stops, as if it were shut down.
    Stop,
}

/// Narrows down which record it is, and remembers those that were put aside.
#[derive(Debug)]
pub(super) struct PoisonSearch {
    /// How often a batch may fail before it is halved, and a record alone.
    attempts: u32,
    /// The records that the processor has.
    trying: Option<Span>,
    suspects: Option<Suspects>,
    /// Put aside; not delivered any more, wherever the checkpoint is.
    dead: BTreeSet<SequenceNumber>,
}

/// The records behind one number, up to and with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    after: Option<SequenceNumber>,
    last: SequenceNumber,
    is_single: bool,
}

/// Records of which one makes the processor fail.
#[derive(Clone, Copy, Debug)]
struct Suspects {
    span: Span,
    /// How often they have failed, exactly these.
    failures: u32,
    /// Whether they are a part of a batch that failed too often.
    is_part: bool,
}

impl PoisonSearch {
    pub(super) fn new(attempts: u32) -> Self {
        Self { attempts, trying: None, suspects: None, dead: BTreeSet::new() }
    }

    /// How many of these records, which come next, are to be delivered together.
    pub(super) fn cut(&self, batch: &Batch) -> usize {
        let until_dead = match batch.iter().position(|record| self.is_dead(&record)) {
            Some(0) => 1,
            Some(before) => before,
            None => batch.len(),
        };
        let Some(Suspects { span, failures, is_part }) = self.suspects else { return until_dead };
        let count = |number: SequenceNumber| {
            batch.iter().take_while(|record| record.sequence_number() <= number).count()
        };
        let before = span.after.map_or(0, count);
        let wanted = match count(span.last) - before {
            _ if before > 0 => before,
            0 => batch.len(),
            within if is_part || failures >= self.attempts => (within / 2).max(1),
            within => within,
        };
        wanted.min(until_dead)
    }

    /// Whether records have failed that come again.
    pub(super) fn is_on(&self) -> bool {
        self.suspects.is_some()
    }

    /// The processor gets these records, after the one with the number `after`.
    pub(super) fn try_batch(&mut self, batch: &Batch, after: Option<SequenceNumber>) {
        let last = batch.last_sequence_number().expect("the batch has a record");
        self.trying = Some(Span { after, last, is_single: batch.len() == 1 });
    }

    /// The processor has processed what it had.
    pub(super) fn succeed(&mut self) {
        let Some(done) = self.trying.take() else { return };
        if let Some(suspects) = &mut self.suspects {
            if done.last >= suspects.span.last {
                self.suspects = None;
            } else if Some(done.last) > suspects.span.after {
                suspects.span.after = Some(done.last);
                suspects.failures = 0;
                suspects.is_part = true;
            }
        }
    }

    /// An attempt has failed. If it may be because of the records that the processor had, and it
    /// has not checkpointed them: how often exactly these have failed now.
    pub(super) fn fail(
        &mut self,
        is_of_records: bool,
        checkpoint: Option<SequenceNumber>,
    ) -> Option<u32> {
        let span = self.trying.take().filter(|_| is_of_records)?;
        if checkpoint >= Some(span.last) {
            self.suspects = None;
            return None;
        }
        let (failures, is_part) = match self.suspects {
            Some(Suspects { span: before, failures, is_part }) if before == span => {
                (failures.saturating_add(1), is_part)
            }
            Some(Suspects { span: whole, failures, is_part })
                if span.last <= whole.last && span.after >= whole.after =>
            {
                (1, is_part || failures >= self.attempts)
            }
            _ => (1, false),
        };
        self.suspects = Some(Suspects { span, failures, is_part });
        Some(failures)
    }

    /// The record that has failed alone as often as it may.
    pub(super) fn poison(&self) -> Option<SequenceNumber> {
        let suspects = self.suspects.filter(|s| s.span.is_single && s.failures >= self.attempts);
        suspects.map(|suspects| suspects.span.last)
    }

    /// The record is put aside. What is before the checkpoint will not come again anyway.
    pub(super) fn bury(&mut self, number: SequenceNumber, checkpoint: Option<SequenceNumber>) {
        if let Some(checkpoint) = checkpoint {
            self.dead = self.dead.split_off(&checkpoint);
        }
        self.dead.insert(number);
        self.suspects = None;
    }

    /// Whether it was put aside.
    pub(super) fn is_dead(&self, number: impl Into<SequenceNumber>) -> bool {
        !self.dead.is_empty() && self.dead.contains(&number.into())
    }
}
