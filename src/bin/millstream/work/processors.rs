//! What is done with the records: they are printed, or fed to a command.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use millstream::{
    Batch, Checkpointer, Initialization, ProcessorError, Record, RecordProcessor, SequenceNumber,
    ShardId,
};
use parking_lot::Mutex;

use super::progress::{Place, Progress};
use crate::child::{Children, Feed};
use crate::record_format::RecordFormat;

fn format_records<'a>(
    format: &RecordFormat,
    shard: ShardId,
    records: impl Iterator<Item = Record<'a>>,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        format.write(&mut bytes, shard, &record)?;
    }
    Ok(bytes)
}

/// Prints the records; the workers take turns.
pub(super) struct Printing {
    pub(super) place: Place,
    pub(super) stdout: Arc<Mutex<File>>,
    pub(super) format: RecordFormat,
    pub(super) progress: Arc<Progress>,
}

impl RecordProcessor for Printing {
    fn process_records(
        &mut self,
        batch: &Batch,
        _: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        let bytes = format_records(&self.format, batch.shard(), batch.iter())?;
        if let Err(error) = self.stdout.lock().write_all(&bytes) {
            self.progress.fail_output(error.kind());
            return Err(error.into());
        }
        self.progress.processed(&self.place, batch);
        Ok(())
    }
}

/// Gives each batch to a child process of its own, whose success says that it is processed.
pub(super) struct EachBatch {
    pub(super) place: Place,
    pub(super) format: RecordFormat,
    pub(super) children: Children,
    pub(super) progress: Arc<Progress>,
}

impl RecordProcessor for EachBatch {
    fn initialize(&mut self, initialization: &Initialization) {
        self.progress.begin(&self.place, initialization.attempt);
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        _: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        let bytes = format_records(&self.format, batch.shard(), batch.iter())?;
        let done = self.children.start(batch.shard()).and_then(|feed| feed.give_all(&bytes));
        done.inspect_err(|error| self.progress.command_failed(&self.place, error))?;
        self.progress.processed(&self.place, batch);
        Ok(())
    }
}

/// Feeds the records of a shard to a child process, which it starts with the first of them.
///
/// That the child has read a batch does not say that it has used it: it may be about to end. So a
/// batch is checkpointed only when the child has taken the next one too, or has ended well after
/// its input did.
pub(super) struct Feeding {
    place: Place,
    format: RecordFormat,
    children: Children,
    progress: Arc<Progress>,
    feed: Option<Feed>,
    /// The last record that was taken by a child: by the one that is being fed, or, if there is
    /// none, by one that ended well.
    taken: Option<SequenceNumber>,
}

impl Feeding {
    pub(super) fn new(
        place: Place,
        format: RecordFormat,
        children: Children,
        progress: Arc<Progress>,
    ) -> Self {
        Self { place, format, children, progress, feed: None, taken: None }
    }

    fn try_process(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        let last = batch.last_sequence_number();
        let taken = self.taken.min(last);
        if let (Some(taken), None) = (taken, &self.feed) {
            checkpointer.checkpoint_at(taken)?;
        }
        let records = batch.iter().filter(|record| Some(record.sequence_number()) > taken);
        let bytes = format_records(&self.format, self.place.shard, records)?;
        if !bytes.is_empty() || self.feed.is_some() {
            self.give(&bytes)?;
        }
        if let Some(taken) = taken {
            checkpointer.checkpoint_at(taken)?;
        }
        self.taken = self.taken.max(last);
        Ok(())
    }

    fn give(&mut self, bytes: &[u8]) -> Result<(), String> {
        let feed = match &mut self.feed {
            Some(feed) => feed,
            None => self.feed.insert(self.children.start(self.place.shard)?),
        };
        // Gone with what it had taken: another one gets all of it.
        feed.give(bytes).inspect_err(|_| self.feed = None)
    }

    /// Ends the child's input, if there is a child, and waits for the child.
    fn end(&mut self) -> Result<(), String> {
        self.feed.take().map_or(Ok(()), Feed::end)
    }

    fn failed(&self, error: &str) {
        self.progress.command_failed(&self.place, error);
    }
}

impl RecordProcessor for Feeding {
    fn initialize(&mut self, initialization: &Initialization) {
        self.taken = self.progress.begin(&self.place, initialization.attempt);
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        if let Some((_, error)) = self.progress.gave_up().filter(|(of, _)| *of == self.place) {
            // It is over; the pool is about to be told.
            return Err(error.into());
        }
        self.try_process(batch, checkpointer).inspect_err(|error| {
            self.failed(&error.to_string());
        })?;
        self.progress.processed(&self.place, batch);
        Ok(())
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.end().inspect_err(|error| self.failed(error)).map_err(Into::into)
    }

    fn lease_lost(&mut self) {
        let _ = self.end();
    }

    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        let ended = self.end().map_err(Into::into);
        let ended = ended.and_then(|()| checkpointer.checkpoint().map_err(ProcessorError::from));
        if let Err(error) = ended {
            self.progress.failed_at_end(&self.place, error.to_string());
        }
    }
}

impl Drop for Feeding {
    /// A child that is still there is not to blame: the records could not be read on, or the
    /// checkpoint not be written. What it makes of its input needs not come again.
    fn drop(&mut self) {
        let Some(feed) = self.feed.take() else { return };
        if let (Ok(()), Some(taken)) = (feed.end_soon(), self.taken) {
            self.progress.set_taken(&self.place, taken);
        }
    }
}
