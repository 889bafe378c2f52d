//! Which shards there are, and how they descend from each other.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::lineage::{ShardFilter, ShardInfo};
use crate::position::{SequenceNumber, ShardId};
use crate::stream::Stream;

impl Stream {
    /// All shards, closed ones too, by rising id.
    pub fn shards(&self) -> Vec<ShardInfo> {
        // What another process has changed is seen at the next look, if not now.
        let _ = self.refresh();
        self.inner.shape.read().manifest.shards.clone()
    }

    /// The shards that a filter lets through, by rising id.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{ShardFilter, ShardId};
    ///
    /// let children = stream.split_mid(ShardId::new(0))?;
    /// let open = stream.shards_with(ShardFilter::AtLatest);
    /// assert!(open.iter().map(|shard| shard.id).eq(children));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn shards_with(&self, filter: ShardFilter) -> Vec<ShardInfo> {
        let mut shards = self.shards();
        if matches!(filter, ShardFilter::AtTrimHorizon | ShardFilter::FromTrimHorizon) {
            let shape = self.inner.shape.read();
            shards.retain(|shard| !shape.manifest.is_expired(shard));
        }
        filter.select(shards)
    }

    /// Whether the shard is closed, and retention has removed all that was in it.
    pub(crate) fn is_expired(&self, shard: &ShardInfo) -> bool {
        self.inner.shape.read().manifest.is_expired(shard)
    }

    /// The shards that a shard came from, the one with the lower range first: none, one or two.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`].
    pub fn parents(&self, shard: ShardId) -> Result<Vec<ShardInfo>> {
        let shards = self.shards();
        let info = shards.iter().find(|info| info.id == shard);
        let info = info.ok_or(Error::ShardNotFound { shard })?;
        let parents = info.parents();
        Ok(parents.filter_map(|id| shards.iter().find(|info| info.id == id).cloned()).collect())
    }

    /// The one among all that a shard came from and all that came from it that may have a number;
    /// none if there are several, or none.
    pub(super) fn relative_with(&self, of: &ShardInfo, number: SequenceNumber) -> Option<ShardId> {
        let shape = self.inner.shape.read();
        let shards = &shape.manifest.shards;
        let mut relatives = BTreeSet::from([of.id]);
        if number < of.starting_sequence_number {
            // Children before parents.
            for shard in shards.iter().rev().filter(|shard| shard.id <= of.id) {
                if relatives.contains(&shard.id) {
                    relatives.extend(shard.parents());
                }
            }
        } else {
            for shard in shards.iter().filter(|shard| shard.id > of.id) {
                if shard.parents().any(|parent| relatives.contains(&parent)) {
                    relatives.insert(shard.id);
                }
            }
        }
        number.address()?;
        let mut those =
            shards.iter().filter(|shard| relatives.contains(&shard.id) && shard.may_have(number));
        let one = those.next()?.id;
        those.next().is_none().then_some(one)
    }

    /// The shards that the hash keys of a shard went to, by rising id; none if it is open.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::ShardId;
    ///
    /// let [low, high] = stream.split_mid(ShardId::new(0))?;
    /// let children = stream.children(ShardId::new(0))?;
    /// assert!(children.iter().map(|shard| shard.id).eq([low, high]));
    /// assert_eq!(stream.parents(high)?[0].id, ShardId::new(0));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn children(&self, shard: ShardId) -> Result<Vec<ShardInfo>> {
        let shards = self.shards();
        if !shards.iter().any(|info| info.id == shard) {
            return Err(Error::ShardNotFound { shard });
        }
        Ok(shards.into_iter().filter(|info| info.parents().any(|id| id == shard)).collect())
    }
}
