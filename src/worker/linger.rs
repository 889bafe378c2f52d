//! Waiting for a fuller batch: the records stay where they are, in the log, and are counted.
//!
//! The worker that waits is idle, so no thread waits with it. The supervisor counts what comes
//! behind the records that are counted already, and hands the worker out when there is enough, or
//! the time is over.

use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::error::Result;
use crate::record::{Lag, Limit};

/// When a batch is given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// At once, if it has so many records or bytes.
    pub(super) enough: Limit,
    /// Else when its first record has waited so long.
    pub(super) max_wait: Duration,
}

impl Linger {
    /// What is enough: more than a batch may have is not waited for.
    pub(super) fn enough(self, limit: Limit) -> Limit {
        Limit {
            max_records: self.enough.max_records.min(limit.max_records),
            max_bytes: self.enough.max_bytes.min(limit.max_bytes),
        }
    }

    /// When records that are so old now have waited for long enough.
    pub(super) fn due(self, now: Instant, age: Lag) -> Instant {
        now + self.max_wait.saturating_sub(Duration::from_millis(age.millis))
    }
}

/// Records that wait for more.
pub(super) struct Lingering<C> {
    /// What there is not yet: enough when there is none of one of the two.
    missing: Limit,
    /// Behind the last record; none at the end of a closed shard, where no more will come.
    end: Option<C>,
    due: Instant,
}

impl<C: Clone> Lingering<C> {
    /// The records of a batch, with the cursor behind it, wait until `due` for more.
    pub(super) fn new(enough: Limit, batch: &Batch, end: Option<&C>, due: Instant) -> Self {
        let mut lingering = Self { missing: enough, end: None, due };
        lingering.count(batch, end.cloned());
        lingering
    }

    /// Until when the records wait, if they still do.
    pub(super) fn waits_until(&self, now: Instant) -> Option<Instant> {
        (!self.has_enough() && self.due > now).then_some(self.due)
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Where more records come.
    pub(super) fn end(&self) -> Option<&C> {
        self.end.as_ref()
    }

    /// Whether there is enough, with what has come since this was asked last.
    pub(super) fn look(
        &mut self,
        read: impl FnOnce(&C, Limit) -> Result<(Batch, Option<C>)>,
    ) -> Result<bool> {
        if let Some(end) = self.end.as_ref().filter(|_| !self.has_enough()) {
            let (batch, end) = read(end, self.missing)?;
            self.count(&batch, end);
        }
        Ok(self.has_enough())
    }

    fn has_enough(&self) -> bool {
        self.end.is_none() || self.missing.max_records == 0 || self.missing.max_bytes == 0
    }

    fn count(&mut self, batch: &Batch, end: Option<C>) {
        let Limit { max_records, max_bytes } = &mut self.missing;
        *max_records = max_records.saturating_sub(batch.len());
        for record in batch {
            let bytes = record.partition_key().len() + record.data().len();
            *max_bytes = max_bytes.saturating_sub(bytes);
        }
        self.end = end;
    }
}
