//! What the workers cannot read. Their processors are not told of it, so the status is watched.

use std::collections::BTreeMap;

use millstream::{
    Checkpoint, Error, Limit, ShardId, ShardState, ShardStatus, StartingPosition, Stream,
};

use super::progress::Progress;

/// How many batches behind the checkpoint a worker may have failed: one that is not checkpointed
/// yet, and the next.
const BATCHES_BEHIND_CHECKPOINT: usize = 2;

/// Notices failures to read, and what they were.
pub(super) struct ReadFailures {
    stream: Stream,
    /// As the workers have it.
    limit: Limit,
    /// The failures in a row that were seen, by shard.
    seen: BTreeMap<ShardId, u32>,
    last: BTreeMap<ShardId, Error>,
}

impl ReadFailures {
    pub(super) fn new(stream: &Stream, limit: Limit) -> Self {
        Self { stream: stream.clone(), limit, seen: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// The last failure to read the shard, if there was one.
    pub(super) fn last(&self, shard: ShardId) -> Option<&Error> {
        self.last.get(&shard)
    }

    /// Tells of failures that are not the commands' own.
    pub(super) fn look(&mut self, shards: &[ShardStatus], progress: &Progress) {
        for status in shards {
            let attempts = status.failed_attempts;
            let seen = self.seen.insert(status.shard, attempts).unwrap_or(0);
            let Some(error) = &status.last_error else { continue };
            let is_of_command = progress.command_failure(status.shard).as_ref() == Some(error);
            if attempts == 0 || attempts == seen || is_of_command {
                continue;
            }
            if let Some(error) = self.read_error(status) {
                self.last.insert(status.shard, error);
            }
            let new = if attempts > seen { attempts - seen } else { attempts };
            progress.failed(status.shard, new, attempts, error);
        }
    }

    /// What the worker has run into, as it can be told apart: read once more.
    fn read_error(&self, status: &ShardStatus) -> Option<Error> {
        if status.state == ShardState::Ended {
            return None;
        }
        let position = match status.checkpoint {
            Checkpoint::AtSequenceNumber(number) => StartingPosition::AtSequenceNumber(number),
            Checkpoint::AfterSequenceNumber(number) => {
                StartingPosition::AfterSequenceNumber(number)
            }
            _ => StartingPosition::TrimHorizon,
        };
        let mut iterator = match self.stream.shard_iterator(status.shard, position) {
            Ok(iterator) => iterator,
            Err(error) => return Some(error),
        };
        for _ in 0..=BATCHES_BEHIND_CHECKPOINT {
            match self.stream.get_records(&iterator, self.limit) {
                Ok(page) => iterator = page.next_shard_iterator?,
                Err(error) => return Some(error),
            }
        }
        None
    }
}
