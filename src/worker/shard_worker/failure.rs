//! What follows from a failure: the worker begins anew at the checkpoint after a while, and a
//! record that fails always is dealt with as the policy says.

use std::time::Duration;

use super::{ShardWorker, Shared, Turn, callback};
use crate::error::Result;
use crate::position::SequenceNumber;
use crate::record::Limit;
use crate::worker::journal::Change;
use crate::worker::poison::OnPoison;
use crate::worker::source::Source;
use crate::worker::status::{ShardState, Stage};
use crate::worker::supervisor::caught;

impl<S: Source> ShardWorker<S> {
    pub(super) fn fail(&mut self, pool: &Shared<S>, error: String) -> Turn {
        let cursor = self.running.as_ref().and_then(|running| running.cursor.clone());
        let is_lost = self.lease.is_lost();
        if let (true, Some(running)) = (is_lost, &mut self.running) {
            let lease_lost = || running.processor.lease_lost();
            let _ = caught(|| callback(pool, self.shard.id, "lease_lost", lease_lost));
        }
        self.drop_processor();
        self.failures = self.failures.saturating_add(1);
        let is_of_records = !self.lease.take_failure();
        let checkpoint = self.lease.checkpoint().number();
        let failures = self.search.fail(is_of_records, checkpoint).unwrap_or(self.failures);
        pool.board.update(self.shard.id, |entry| {
            entry.checkpoint = self.lease.checkpoint();
            entry.poison = self.search.poison();
            entry.fail(self.failures, error.clone());
            if is_lost {
                entry.state = ShardState::Elsewhere;
            }
        });
        self.tell_failure(pool, &error, failures);
        let retry = Turn::Retry(pool.options.retry_delay.after(failures));
        match (self.search.poison(), cursor) {
            _ if is_lost => Turn::Gone,
            (Some(poison), Some(cursor)) => match pool.options.on_poison {
                OnPoison::Retry => retry,
                OnPoison::DeadLetter => match self.put_aside(pool, &cursor, poison, &error) {
                    Ok(()) => Turn::Retry(Duration::ZERO),
                    Err(why) => {
                        let error = format!("cannot put {poison} aside: {why}; it failed: {error}");
                        pool.board.update(self.shard.id, |entry| entry.last_error = Some(error));
                        retry
                    }
                },
                OnPoison::Park => {
                    pool.board.update(self.shard.id, |entry| entry.state = ShardState::Parked);
                    pool.board.tell(self.shard.id, Change::Parked);
                    Turn::Park
                }
                OnPoison::Stop => {
                    pool.board.enter(Stage::Stopping);
                    retry
                }
            },
            _ => retry,
        }
    }

    /// Tells how often exactly these records, or else the worker, have failed.
    fn tell_failure(&self, pool: &Shared<S>, error: &str, failures: u32) {
        if self.lease.is_lost() {
            pool.board.tell(self.shard.id, Change::LeaseLost);
            return;
        }
        pool.board.tell(self.shard.id, Change::Failed { attempts: self.failures, error });
        if let Some(number) = self.search.poison().filter(|_| failures == pool.options.attempts) {
            pool.board.tell(self.shard.id, Change::Poison { number });
        }
    }

    /// Makes a dead letter of the record at the cursor.
    fn put_aside(
        &mut self,
        pool: &Shared<S>,
        cursor: &S::Cursor,
        poison: SequenceNumber,
        cause: &str,
    ) -> Result<()> {
        let (batch, _) =
            pool.source.read(cursor, Limit { max_records: 1, ..pool.options.limit })?;
        assert_eq!(batch.last_sequence_number(), Some(poison), "it was read there before");
        pool.dead_letters.put_aside(&batch, pool.options.attempts, cause)?;
        self.search.bury(poison, self.lease.checkpoint().number());
        self.failures = 0;
        pool.board.update(self.shard.id, |entry| entry.poison = None);
        pool.board.tell(self.shard.id, Change::DeadLettered { number: poison });
        Ok(())
    }
}
