//! The processor that buffers for an emitter. What it holds is not checkpointed: lost with it, it
//! comes again.

use std::mem;
use std::time::{Duration, Instant};

use super::{EmitBuffer, Emitter};
use crate::batch::Batch;
use crate::os::clock::Ticker;
use crate::position::SequenceNumber;
use crate::worker::checkpoint::Checkpointer;
use crate::worker::processor::{Initialization, ProcessorError, RecordProcessor};

pub(in crate::worker) struct Emitting<E: Emitter> {
    emitter: E,
    limits: EmitBuffer,
    ticker: Ticker,
    initialization: Option<Initialization>,
    items: Vec<E::Item>,
    bytes: u64,
    /// Since when there is something in the buffer.
    since: Option<Instant>,
    /// The last record that is in the buffer or was left out.
    last: Option<SequenceNumber>,
}

impl<E: Emitter> Emitting<E> {
    pub(in crate::worker) fn new(emitter: E, limits: EmitBuffer, ticker: Ticker) -> Self {
        let items = Vec::new();
        let (initialization, since, last) = (None, None, None);
        Self { emitter, limits, ticker, initialization, items, bytes: 0, since, last }
    }

    fn is_complete(&self) -> bool {
        self.items.len() >= self.limits.items.max(1)
            || !self.items.is_empty() && self.bytes >= self.limits.bytes
            || self.time_left() == Some(Duration::ZERO)
    }

    /// How long what is in the buffer may stay there.
    fn time_left(&self) -> Option<Duration> {
        let age = self.ticker.now().duration_since(self.since?);
        Some(self.limits.age.saturating_sub(age))
    }

    /// Emits what is in the buffer.
    fn emit(&mut self) -> Result<(), ProcessorError> {
        let mut items = mem::take(&mut self.items);
        (self.bytes, self.since) = (0, None);
        let mut delay = self.limits.retry_delay;
        for attempt in 1..=self.limits.attempts.max(1) {
            if items.is_empty() {
                return Ok(());
            }
            if attempt > 1 {
                self.ticker.sleep(delay);
                delay = delay.saturating_mul(2);
            }
            items = self.emitter.emit(items)?;
        }
        if items.is_empty() { Ok(()) } else { self.emitter.give_up(items) }
    }

    /// Emits what is in the buffer, and checkpoints it.
    fn flush(&mut self, checkpointer: &mut Checkpointer<'_>) -> Result<(), ProcessorError> {
        self.emit()?;
        if let Some(last) = self.last.take() {
            checkpointer.checkpoint_at(last)?;
            self.emitter.checkpointed()?;
        }
        Ok(())
    }
}

impl<E: Emitter> RecordProcessor for Emitting<E> {
    fn initialize(&mut self, initialization: &Initialization) {
        self.initialization = Some(initialization.clone());
    }

    fn resume_after(&mut self) -> Result<Option<SequenceNumber>, ProcessorError> {
        let initialization = self.initialization.take().expect("it is initialized before");
        self.emitter.initialize(&initialization)?;
        Ok(None)
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        for record in batch {
            if let Some(item) = self.emitter.transform(&record)? {
                self.bytes = self.bytes.saturating_add(self.emitter.size(&item));
                self.items.push(item);
                self.since = self.since.or_else(|| Some(self.ticker.now()));
            }
            self.last = Some(record.sequence_number());
            if self.is_complete() {
                self.flush(checkpointer)?;
            }
        }
        // Those that were left out are processed.
        if self.items.is_empty() { self.flush(checkpointer) } else { Ok(()) }
    }

    fn idle(
        &mut self,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<Option<Duration>, ProcessorError> {
        if self.is_complete() {
            self.flush(checkpointer)?;
        }
        match self.time_left() {
            None => self.emitter.idle(),
            left => Ok(left),
        }
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.emit()?;
        self.emitter.finish()
    }

    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        // What could not be emitted comes again, to the next one that has the shard.
        let _ = self.flush(checkpointer).and_then(|()| self.emitter.finish());
    }
}
