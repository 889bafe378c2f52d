//! Where a worker pool takes its records from.

use std::sync::Arc;

use crate::batch::Batch;
use crate::error::Result;
use crate::lineage::ShardInfo;
use crate::os::signal::Event;
use crate::position::{ShardId, StartingPosition};
use crate::record::{Lag, Limit};
use crate::stream::{ShardIterator, Stream};

/// What a pool consumes: shards with lineage, cursors that read them, and word of news.
pub(crate) trait Source: Send + Sync + 'static {
    /// A place in a shard.
    type Cursor: Clone + Send + 'static;

    /// All shards, closed ones too.
    fn shards(&self) -> Result<Vec<ShardInfo>>;
    /// Whether the shard is closed and has no record left, and never will.
    fn is_expired(&self, shard: &ShardInfo) -> bool;
    /// A cursor at this place.
    fn cursor(&self, shard: ShardId, from: StartingPosition) -> Result<Self::Cursor>;
    /// The place as it can be stored: `cursor(shard, position(c))` is `c` again.
    fn position(&self, cursor: &Self::Cursor) -> StartingPosition;
    /// What is at the cursor, and the cursor behind it: none behind the end of a closed shard.
    fn read(&self, cursor: &Self::Cursor, limit: Limit) -> Result<(Batch, Option<Self::Cursor>)>;
    /// What the shard has at and behind the cursor.
    fn lag(&self, cursor: &Self::Cursor) -> Result<Lag>;
    /// Notifies `event` once when there is something to read at the cursor, or the set of shards
    /// changed; at once if there is something already. Sources that cannot tell return false:
    /// they are to be polled.
    fn notify(&self, cursor: &Self::Cursor, event: &Arc<Event>) -> Result<bool>;
}

impl Source for Stream {
    type Cursor = ShardIterator;

    fn shards(&self) -> Result<Vec<ShardInfo>> {
        Ok(self.shards())
    }

    fn is_expired(&self, shard: &ShardInfo) -> bool {
        self.is_expired(shard)
    }

    fn cursor(&self, shard: ShardId, from: StartingPosition) -> Result<ShardIterator> {
        self.shard_iterator(shard, from)
    }

    fn position(&self, cursor: &ShardIterator) -> StartingPosition {
        StartingPosition::AtSequenceNumber(cursor.sequence_number())
    }

    fn read(&self, cursor: &ShardIterator, limit: Limit) -> Result<(Batch, Option<ShardIterator>)> {
        let page = self.get_records(cursor, limit)?;
        let next = page.next_shard_iterator;
        // What is missing is told with the first records behind it.
        let waits = page.records.is_empty() && page.gap.is_some() && next.is_some();
        Ok((page.records, if waits { Some(cursor.clone()) } else { next }))
    }

    fn lag(&self, cursor: &ShardIterator) -> Result<Lag> {
        self.lag(cursor)
    }

    fn notify(&self, cursor: &ShardIterator, event: &Arc<Event>) -> Result<bool> {
        self.notify(cursor, event)
    }
}
