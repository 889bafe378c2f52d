//! Changing the shape of a stream: each change is one commit of the manifest.
//!
//! Parents end first, so that all their numbers are given out; then the manifest is replaced; then
//! puts are routed to the children. Puts that come in between wait.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hash_key::{HashKey, HashKeyRange};
use crate::lineage::ShardInfo;
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId};
use crate::shard::Shard;
use crate::stream::{MANIFEST, Stream};

impl Stream {
    /// Splits an open shard in two: one child gets the hash keys below `new_starting_hash_key`,
    /// the other the rest. Puts go on meanwhile.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the key is above the second hash key of the shard and
    /// below its last, as in Kinesis; [`Error::ShardClosed`]; [`Error::ShardNotFound`];
    /// [`Error::ReadOnly`]; what writing says. The shape is unchanged then.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{HashKey, ShardId};
    ///
    /// let [low, high] = stream.split_shard(ShardId::new(0), HashKey::new(1 << 127))?;
    /// assert_eq!((low, high), (ShardId::new(1), ShardId::new(2)));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn split_shard(
        &self,
        shard: ShardId,
        new_starting_hash_key: HashKey,
    ) -> Result<[ShardId; 2]> {
        let _one_at_a_time = self.inner.reshaping.lock();
        let parent = self.open_shard(shard)?;
        let HashKeyRange { start, end } = parent.hash_key_range;
        let key = new_starting_hash_key;
        if key.get() <= start.get().saturating_add(1) || key >= end {
            return Err(Error::InvalidArgument(format!(
                "{shard} has the hash keys {}; it can be split at {} to {}, not at {key}",
                parent.hash_key_range,
                u128::saturating_add(start.get(), 2),
                end.get().saturating_sub(1),
            )));
        }
        let below = HashKeyRange { start, end: HashKey::new(key.get() - 1) };
        let above = HashKeyRange { start: key, end };
        let children = self.replace_shards(&[shard], &[below, above])?;
        Ok([children[0], children[1]])
    }

    /// Merges two open shards with adjacent ranges, given in either order, into one. Puts go on
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if their ranges are not adjacent; [`Error::ShardClosed`];
    /// [`Error::ShardNotFound`]; [`Error::ReadOnly`]; what writing says. The shape is unchanged
    /// then.
    pub fn merge_shards(&self, shard: ShardId, adjacent: ShardId) -> Result<ShardId> {
        let _one_at_a_time = self.inner.reshaping.lock();
        let (one, other) = (self.open_shard(shard)?, self.open_shard(adjacent)?);
        let (low, high) =
            if one.hash_key_range < other.hash_key_range { (one, other) } else { (other, one) };
        let (below, above) = (low.hash_key_range, high.hash_key_range);
        if below.end.get().checked_add(1) != Some(above.start.get()) {
            return Err(Error::InvalidArgument(format!(
                "{shard} and {adjacent} are not adjacent: they have the hash keys {below} and \
                 {above}"
            )));
        }
        let range = HashKeyRange { start: below.start, end: above.end };
        Ok(self.replace_shards(&[low.id, high.id], &[range])?[0])
    }

    fn open_shard(&self, shard: ShardId) -> Result<ShardInfo> {
        if self.inner.keeper.is_none() {
            return Err(Error::ReadOnly);
        }
        let (info, _) = self.shard(shard)?;
        if info.is_open() { Ok(info) } else { Err(Error::ShardClosed { shard }) }
    }

    /// Ends the parents and starts a child for each range. The caller has the lock.
    fn replace_shards(&self, parents: &[ShardId], ranges: &[HashKeyRange]) -> Result<Vec<ShardId>> {
        let parents: Vec<(ShardId, Arc<Shard>)> =
            parents.iter().map(|id| Ok((*id, self.shard(*id)?.1))).collect::<Result<_>>()?;
        let mut replaced = false;
        self.commit(&parents, ranges, &mut replaced).inspect_err(|error| {
            for (_, parent) in &parents {
                // With a new manifest there, perhaps not durably, the parents may have ended.
                let cause = replaced.then(|| error.to_string());
                let _ = cause.map_or_else(|| parent.reopen(), |cause| parent.poison(cause));
            }
        })
    }

    fn commit(
        &self,
        parents: &[(ShardId, Arc<Shard>)],
        ranges: &[HashKeyRange],
        replaced: &mut bool,
    ) -> Result<Vec<ShardId>> {
        let mut manifest = self.inner.shape.read().manifest.clone();
        let mut highest = 0;
        for (id, parent) in parents {
            let end = parent.end()?;
            highest = highest.max(end);
            let at = manifest.shards.binary_search_by_key(id, |info| info.id);
            let info = &mut manifest.shards[at.expect("it is there")];
            info.ending_sequence_number = Some(SequenceNumber::from(end));
        }
        let ids: Vec<_> =
            ranges.iter().zip(manifest.next_shard..).map(|(_, id)| ShardId::new(id)).collect();
        for (id, range) in ids.iter().zip(ranges) {
            manifest.shards.push(ShardInfo {
                id: *id,
                hash_key_range: *range,
                parent: parents.first().map(|(id, _)| *id),
                adjacent_parent: parents.get(1).map(|(id, _)| *id),
                // The next page: above every number of the parents.
                starting_sequence_number: (highest + 1).next_multiple_of(4096).into(),
                ending_sequence_number: None,
            });
        }
        manifest.next_shard += ranges.len() as u32;
        // All that may fail comes first: a manifest that is there holds.
        let children = self.inner.open_new_shards(&manifest)?;
        let path = self.inner.path.join(MANIFEST);
        let before = fs::open_read(&path)?;
        let written = fs::replace(&path, manifest.encode().as_bytes());
        *replaced = !fs::is_at(&before, &path).unwrap_or(false);
        written?;
        self.inner.show(manifest, children, None);
        for (_, parent) in parents {
            // Whoever reads there finds the end now.
            parent.bell.ring();
        }
        Ok(ids)
    }
}
