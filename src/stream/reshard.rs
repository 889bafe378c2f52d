//! Changing the shape of a stream: each change is one commit of the manifest.
//!
//! Parents end first, so that all their numbers are given out; then the manifest is replaced; then
//! puts are routed to the children. Puts that come in between wait.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::manifest::{MAX_SHARDS, Manifest};
use crate::format::names::MANIFEST;
use crate::hash_key::{HashKey, HashKeyRange};
use crate::lineage::{ShardFilter, ShardInfo};
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId};
use crate::record::{Limit, MAX_OPEN_SHARDS};
use crate::shard::Shard;
use crate::stream::Stream;
use crate::stream::plan::{NewShard, plan};

/// How many records tell how keys are distributed.
const OBSERVED: usize = 10_000;

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
        let children = self.replace_shards(&[parent], &[below, above])?;
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
        Ok(self.replace_shards(&[low, high], &[range])?[0])
    }

    /// Splits an open shard in two halves of the same width (of an odd number of hash keys, the
    /// lower one gets one more). Puts go on meanwhile.
    ///
    /// # Errors
    /// As [`split_shard`](Self::split_shard).
    pub fn split_mid(&self, shard: ShardId) -> Result<[ShardId; 2]> {
        let HashKeyRange { start, end } = self.shard(shard)?.0.hash_key_range;
        let key = start.get() + (end.get() - start.get()) / 2;
        self.split_shard(shard, HashKey::new(key.saturating_add(1)))
    }

    /// Splits an open shard in two, so that the lower child gets about this fraction of the
    /// records, if keys come as they did: it is split by what the newest 10,000 records tell, those
    /// with an explicit hash key aside. If the shard has none, the lower child gets this fraction
    /// of the hash keys. Records of one key stay together. Puts go on meanwhile.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the fraction lies between 0 and 1; as
    /// [`split_shard`](Self::split_shard); what reading says.
    pub fn split_at_fraction(&self, shard: ShardId, fraction: f64) -> Result<[ShardId; 2]> {
        if !(0.0..1.0).contains(&fraction) || fraction == 0.0 {
            let what = format!("a shard is split at a fraction between 0 and 1, not at {fraction}");
            return Err(Error::InvalidArgument(what));
        }
        let HashKeyRange { start, end } = self.shard(shard)?.0.hash_key_range;
        let observed = self.observed_keys(shard)?;
        let of = |whole: f64| whole * fraction;
        let key = match observed.len() {
            0 => start.get().saturating_add(of((end.get() - start.get()) as f64) as u128),
            count => observed[(of(count as f64).round() as usize).clamp(1, count) - 1].get() + 1,
        };
        // As near as a split can be.
        let lowest = start.get().saturating_add(2);
        let highest = end.get().saturating_sub(1).max(lowest);
        self.split_shard(shard, HashKey::new(key.clamp(lowest, highest)))
    }

    /// The hash keys of a shard's newest records, rising.
    fn observed_keys(&self, shard: ShardId) -> Result<Vec<HashKey>> {
        let (info, _) = self.shard(shard)?;
        let mut keys = Vec::new();
        let page = self.get_records(&self.tail(shard, OBSERVED)?, Limit::records(OBSERVED))?;
        for record in &page.records {
            keys.push(self.inner.hash.hash(record.partition_key()));
        }
        keys.retain(|key| info.hash_key_range.contains(*key));
        keys.sort_unstable();
        Ok(keys)
    }

    /// Divides the ring evenly among `count` shards: the open shards have exactly the ranges of
    /// [`HashKeyRange::even`] then. Shards whose range fits already stay; every other one is closed
    /// and goes on in the shards that it overlaps with. Puts go on meanwhile, and everything
    /// becomes visible at once: the open shards then, in the order of their ranges.
    ///
    /// Where a new range overlaps with more than two shards, others lead to it, each with two
    /// parents and one child, that are closed and never have a record.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `count` is 0; [`Error::TooManyShards`]; [`Error::ReadOnly`];
    /// what writing says. The shape is unchanged then.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).shards(2).open()?;
    /// use millstream::ShardId;
    ///
    /// let open = stream.reshard_to(3)?;
    /// assert_eq!(open.len(), 3);
    /// // The shard in the middle has keys of both.
    /// assert_eq!(stream.parents(open[1])?.len(), 2);
    /// assert_eq!(stream.children(ShardId::new(0))?.len(), 2);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn reshard_to(&self, count: u32) -> Result<Vec<ShardId>> {
        if count == 0 {
            return Err(Error::InvalidArgument("a stream has at least one open shard".into()));
        }
        let _one_at_a_time = self.inner.reshaping.lock();
        let open = || ShardFilter::AtLatest.select(self.inner.shape.read().manifest.shards.clone());
        if count > MAX_OPEN_SHARDS {
            return Err(Error::TooManyShards { open: count, max: MAX_OPEN_SHARDS });
        }
        self.replace_shards(&open(), &HashKeyRange::even(count))?;
        let mut open = open();
        open.sort_unstable_by_key(|shard| shard.hash_key_range);
        Ok(open.into_iter().map(|shard| shard.id).collect())
    }
    fn open_shard(&self, shard: ShardId) -> Result<ShardInfo> {
        if self.inner.keeper.is_none() {
            return Err(Error::ReadOnly);
        }
        let (info, _) = self.shard(shard)?;
        if info.is_open() { Ok(info) } else { Err(Error::ShardClosed { shard }) }
    }

    /// Replaces open shards by shards with these ranges, which together are theirs; those that have
    /// one of the ranges stay. The new open ones. The caller has the lock.
    fn replace_shards(&self, old: &[ShardInfo], ranges: &[HashKeyRange]) -> Result<Vec<ShardId>> {
        if self.inner.keeper.is_none() {
            return Err(Error::ReadOnly);
        }
        let manifest = self.inner.shape.read().manifest.clone();
        let open = manifest.shards.iter().filter(|shard| shard.is_open()).count();
        let (open, max) = ((open - old.len() + ranges.len()) as u32, manifest.max_open_shards());
        if ranges.len() > old.len() && open > max {
            return Err(Error::TooManyShards { open, max });
        }
        let new = plan(old, ranges, manifest.next_shard);
        if new.is_empty() {
            return Ok(Vec::new());
        }
        if manifest.next_shard as usize + new.len() > MAX_SHARDS as usize {
            let what = "a stream makes at most 2^31 shards, and this one has made them";
            return Err(Error::InvalidArgument(what.to_owned()));
        }
        let ends = old.iter().filter(|shard| !ranges.contains(&shard.hash_key_range));
        let parents = ends.map(|info| Ok((info.id, self.shard(info.id)?.1)));
        let parents: Vec<(ShardId, Arc<Shard>)> = parents.collect::<Result<_>>()?;
        for (_, parent) in &parents {
            // So that little is left to sync while puts wait.
            parent.flush()?;
        }
        let mut replaced = false;
        self.commit(manifest, &parents, &new, &mut replaced).inspect_err(|error| {
            for (_, parent) in &parents {
                // With a new manifest there, perhaps not durably, the parents may have ended.
                let cause = replaced.then(|| error.to_string());
                let _ = cause.map_or_else(|| parent.reopen(), |cause| parent.poison(cause));
            }
        })?;
        Ok(new.iter().filter(|shard| shard.is_open).map(|shard| shard.id).collect())
    }

    fn commit(
        &self,
        mut manifest: Manifest,
        parents: &[(ShardId, Arc<Shard>)],
        new: &[NewShard],
        replaced: &mut bool,
    ) -> Result<()> {
        // Never before an older shard, though clocks step back: at each time the ring is whole.
        let newest_ms = manifest.shards.iter().map(|shard| shard.opened_ms).max();
        let now_ms = self.now_ms().max(newest_ms.unwrap_or(0));
        for (id, parent) in parents {
            let end = parent.end()?;
            let info = manifest.shard_mut(*id).expect("it is there");
            info.ending_sequence_number = Some(end.into());
            info.closed_ms = Some(now_ms);
        }
        for shard in new {
            manifest.add_shard(shard, now_ms);
        }
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
            parent.wake();
        }
        Ok(())
    }
}

impl Manifest {
    /// The shard with this id.
    fn shard_mut(&mut self, id: ShardId) -> Option<&mut ShardInfo> {
        let at = self.shards.binary_search_by_key(&id, |info| info.id).ok()?;
        Some(&mut self.shards[at])
    }

    /// Adds a shard that begins now, above all numbers of its parents, which have ended.
    fn add_shard(&mut self, new: &NewShard, now_ms: u64) {
        let parents = [Some(new.parent), new.adjacent_parent].into_iter().flatten();
        let ends = parents.filter_map(|id| self.shard_mut(id)?.ending_sequence_number?.address());
        let ends: Vec<u64> = ends.collect();
        let highest = ends.into_iter().max().expect("a new shard has parents that have ended");
        // The next page: above every number of the parents.
        let start = SequenceNumber::from((highest + 1).next_multiple_of(4096));
        self.shards.push(ShardInfo {
            id: new.id,
            hash_key_range: new.range,
            parent: Some(new.parent),
            adjacent_parent: new.adjacent_parent,
            starting_sequence_number: start,
            ending_sequence_number: (!new.is_open).then_some(start),
            opened_ms: now_ms,
            closed_ms: (!new.is_open).then_some(now_ms),
        });
        self.next_shard = new.id.index() + 1;
    }
}
