//! How a worker lets go of its shard: handed over, or stopped.

use super::{ShardWorker, Turn, callback};
use crate::worker::checkpoint::Checkpointer;
use crate::worker::journal::Change;
use crate::worker::life::Stage;
use crate::worker::outcome::Outcome;
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::status::ShardState;
use crate::worker::supervisor::caught;

impl<S: Source> ShardWorker<S> {
    /// The last turn: another pool asks for the shard.
    pub(super) fn hand_over(&mut self, pool: &Shared<S>) -> Turn {
        let told = self.let_go(pool, true, Change::LeaseHandedOver);
        pool.board.update(self.lane.key(), |entry| {
            entry.checkpoint = self.lane.checkpoint();
            if let Err(error) = told {
                entry.fail(self.failures.saturating_add(1), error);
            }
            entry.state = ShardState::Elsewhere;
        });
        Turn::Gone
    }

    /// The last turn: the pool shuts down.
    pub(in crate::worker) fn stop(&mut self, pool: &Shared<S>) -> Turn {
        let may_tell = pool.board.stage() == Stage::Stopping;
        let told = self.let_go(pool, may_tell, Change::Stopped);
        pool.board.update(self.lane.key(), |entry| {
            entry.checkpoint = self.lane.checkpoint();
            if let Err(error) = told {
                entry.fail(self.failures.saturating_add(1), error);
            }
            entry.outcome = Some(match (entry.failed_attempts, &entry.last_error) {
                _ if entry.state == ShardState::Elsewhere => return,
                // Also if the next attempt had begun, and had not got anywhere.
                (attempts @ 1.., Some(error)) => Outcome::Failed { attempts, error: error.clone() },
                _ => Outcome::Stopped,
            });
        });
        Turn::Gone
    }

    /// Tells the processor, if it may be, that nothing comes any more, and gives the lease back. An
    /// error is what the processor failed with.
    fn let_go(
        &mut self,
        pool: &Shared<S>,
        may_tell: bool,
        change: Change<'_>,
    ) -> Result<(), String> {
        let told = match &mut self.running {
            Some(running) if may_tell => {
                let key = self.lane.key();
                let mut checkpointer = Checkpointer::new(&mut self.lane, running.delivered);
                let shutdown_requested = || running.processor.shutdown_requested(&mut checkpointer);
                caught(|| callback(pool, key, "shutdown_requested", shutdown_requested))
            }
            _ => Ok(()),
        };
        let saved = self.save().map_err(|error| error.to_string());
        self.drop_processor();
        if self.lane.is_lost() || self.lane.release().is_err() && self.lane.is_lost() {
            pool.board.update(self.lane.key(), |entry| entry.state = ShardState::Elsewhere);
            pool.board.tell(self.lane.key(), Change::LeaseLost);
        } else {
            pool.board.tell(self.lane.key(), change);
        }
        told.and(saved)
    }
}
