//! What follows from a failure: the worker begins anew at the checkpoint after a while, and a
//! record that fails always is dealt with as the policy says.

use std::time::Duration;

use super::{ShardWorker, Turn, callback};
use crate::error::Result;
use crate::position::{SequenceNumber, StartingPosition};
use crate::record::Limit;
use crate::worker::dead_letter::Aside;
use crate::worker::journal::Change;
use crate::worker::life::Stage;
use crate::worker::poison::OnPoison;
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::status::ShardState;
use crate::worker::supervisor::caught;

impl<S: Source> ShardWorker<S> {
    pub(super) fn fail(&mut self, pool: &Shared<S>, error: String) -> Turn {
        let (is_lost, key) = (self.lane.is_lost(), self.lane.key());
        if let (true, Some(running)) = (is_lost, &mut self.running) {
            let lease_lost = || running.processor.lease_lost();
            let _ = caught(|| callback(pool, key, "lease_lost", lease_lost));
        }
        self.drop_processor();
        self.failures = self.failures.saturating_add(1);
        let is_of_records = !self.lane.take_failure();
        let checkpoint = self.lane.checkpoint().number();
        let failures = self.search.fail(is_of_records, checkpoint).unwrap_or(self.failures);
        pool.board.update(self.lane.key(), |entry| {
            entry.checkpoint = self.lane.checkpoint();
            entry.poison = self.search.poison();
            entry.fail(self.failures, error.clone());
            if is_lost {
                entry.state = ShardState::Elsewhere;
            }
        });
        self.tell_failure(pool, &error, failures);
        let retry = Turn::Retry(pool.options.retry_delay.after(failures));
        match self.search.poison() {
            _ if is_lost => Turn::Gone,
            Some(poison) => match pool.options.on_poison {
                OnPoison::Retry => retry,
                OnPoison::DeadLetter => match self.put_aside(pool, poison, &error) {
                    Ok(()) => Turn::Retry(Duration::ZERO),
                    Err(why) => {
                        let error = format!("cannot put {poison} aside: {why}; it failed: {error}");
                        pool.board.update(self.lane.key(), |entry| entry.last_error = Some(error));
                        retry
                    }
                },
                OnPoison::Park => {
                    pool.board.update(self.lane.key(), |entry| entry.state = ShardState::Parked);
                    pool.board.tell(self.lane.key(), Change::Parked);
                    Turn::Park
                }
                OnPoison::Stop => {
                    pool.board.life.enter(Stage::Stopping);
                    retry
                }
            },
            None => retry,
        }
    }

    /// Tells how often exactly these records, or else the worker, have failed.
    fn tell_failure(&self, pool: &Shared<S>, error: &str, failures: u32) {
        if self.lane.is_lost() {
            pool.board.tell(self.lane.key(), Change::LeaseLost);
            return;
        }
        pool.board.tell(self.lane.key(), Change::Failed { attempts: self.failures, error });
        if let Some(number) = self.search.poison().filter(|_| failures == pool.options.attempts) {
            pool.board.tell(self.lane.key(), Change::Poison { number });
        }
    }

    /// Makes a dead letter of the record.
    fn put_aside(&mut self, pool: &Shared<S>, poison: SequenceNumber, cause: &str) -> Result<()> {
        let at = StartingPosition::AtSequenceNumber(poison);
        let cursor = pool.source.cursor(self.shard.id, at)?;
        let (batch, _) = pool.source.read(&cursor, Limit::records(1))?;
        assert_eq!(batch.last_sequence_number(), Some(poison), "it was read there before");
        let record = batch.get(0).expect("it was just read");
        let (shard, attempts) = (batch.shard(), pool.options.attempts);
        pool.dead_letters.put_aside(&[Aside { shard, record, attempts, cause }])?;
        self.search.bury(poison, self.lane.checkpoint().number());
        self.failures = 0;
        pool.board.update(self.lane.key(), |entry| entry.poison = None);
        pool.board.tell(self.lane.key(), Change::DeadLettered { number: poison });
        Ok(())
    }
}
