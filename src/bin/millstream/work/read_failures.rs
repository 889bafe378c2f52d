//! What the workers cannot read. Their processors are not told of it, so the status is watched.

use std::collections::BTreeMap;
use std::sync::Arc;

use millstream::{
    Checkpoint, Error, Limit, ShardId, ShardState, ShardStatus, StartingPosition, Stream,
};

use super::progress::{Place, Progress};

/// How many batches behind the checkpoint a worker may have failed: one that is not checkpointed
/// yet, and the next.
const BATCHES_BEHIND_CHECKPOINT: usize = 2;

/// Notices failures to read, and what they were.
pub(super) struct ReadFailures {
    streams: Vec<Stream>,
    /// As the workers have it.
    limit: Limit,
    /// The failures in a row that were seen, by shard.
    seen: BTreeMap<Place, u32>,
    last: BTreeMap<Place, Error>,
}

impl ReadFailures {
    pub(super) fn new(streams: &[Stream], limit: Limit) -> Self {
        Self { streams: streams.to_vec(), limit, seen: BTreeMap::new(), last: BTreeMap::new() }
    }

    /// A shard, as it is told.
    pub(super) fn place(&self, stream: &Arc<str>, shard: ShardId) -> Place {
        let stream = (self.streams.len() > 1).then(|| Arc::clone(stream));
        Place { stream, shard }
    }

    /// The last failure to read the shard, if there was one.
    pub(super) fn last(&self, shard: &Place) -> Option<&Error> {
        self.last.get(shard)
    }

    /// Tells of failures that are not the commands' own.
    pub(super) fn look(&mut self, shards: &[ShardStatus], progress: &Progress) {
        for status in shards {
            let (attempts, place) =
                (status.failed_attempts, self.place(&status.stream, status.shard));
            let seen = self.seen.insert(place.clone(), attempts).unwrap_or(0);
            let Some(error) = &status.last_error else { continue };
            let is_of_command = progress.command_failure(&place).as_ref() == Some(error);
            if attempts == 0 || attempts == seen || is_of_command {
                continue;
            }
            if let Some(error) = self.read_error(status) {
                self.last.insert(place.clone(), error);
            }
            let new = if attempts > seen { attempts - seen } else { attempts };
            progress.failed(&place, new, attempts, error);
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
        let is_of = |stream: &&Stream| *stream.path().to_string_lossy() == *status.stream;
        let stream = self.streams.iter().find(is_of)?;
        let mut iterator = match stream.shard_iterator(status.shard, position) {
            Ok(iterator) => iterator,
            Err(error) => return Some(error),
        };
        for _ in 0..=BATCHES_BEHIND_CHECKPOINT {
            match stream.get_records(&iterator, self.limit) {
                Ok(page) => iterator = page.next_shard_iterator?,
                Err(error) => return Some(error),
            }
        }
        None
    }
}
