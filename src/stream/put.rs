//! Putting: from a key and data to a place in a shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::hash_key::HashKey;
use crate::position::{SequenceNumber, ShardId};
use crate::record::{Durability, Key, MAX_PARTITION_KEY_CHARS, PutRecord, Receipt};
use crate::shard::{Appended, Shard};
use crate::stream::Stream;

/// A record of a batch that is to be put.
#[derive(Clone, Copy)]
struct Pending<'a> {
    key: Key<'a>,
    data: &'a [u8],
    hash_key: HashKey,
    durability: Durability,
    /// Which of the batch it is.
    index: usize,
    /// Which of the open shards it goes to.
    owner: usize,
}

/// What has become of the records of a batch.
struct Outcome<'b> {
    /// Where each is that was put.
    places: &'b mut [(ShardId, u64)],
    /// Which could not be put, or not be made durable.
    failed: &'b mut Vec<(usize, Error)>,
}

impl Stream {
    /// Puts a record into the shard that owns the hash of its partition key, and acknowledges it
    /// according to the stream's [`Durability`].
    ///
    /// # Errors
    /// [`Error::InvalidPartitionKey`] unless the key has 1 to 256 characters;
    /// [`Error::RecordTooLarge`]; [`Error::StreamFull`]; [`Error::DiskFull`]; [`Error::Poisoned`];
    /// [`Error::ReadOnly`]. With the first three nothing was written, with [`Error::Poisoned`] it
    /// may have been.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// let first = stream.put("customer-7", "clicked")?;
    /// let second = stream.put("customer-7", b"left")?;
    /// assert!(first.sequence_number < second.sequence_number);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    #[inline]
    pub fn put(&self, partition_key: &str, data: impl AsRef<[u8]>) -> Result<Receipt> {
        self.put_record(PutRecord::new(partition_key, data.as_ref()))
    }

    /// Puts a record with an explicit hash key or a durability of its own.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    pub fn put_record(&self, record: PutRecord<'_>) -> Result<Receipt> {
        self.check(record.partition_key, record.data.len())?;
        self.put_checked(record)
    }

    /// Puts a record that is known to be good.
    #[inline]
    pub(crate) fn put_checked(&self, record: PutRecord<'_>) -> Result<Receipt> {
        let PutRecord { partition_key, data, durability, .. } = record;
        let key = Key::new(partition_key);
        self.put_at(self.hash_key(&record, key), durability, |shard, arrival_ms| {
            shard.append(key, data, arrival_ms)
        })
    }

    /// Puts a record of which `note` is told, where it will be, before anybody can read it. If that
    /// fails, nothing is put.
    ///
    /// Readers and syncs wait meanwhile, as in [`put_with`](Self::put_with).
    pub(crate) fn put_noting(
        &self,
        record: PutRecord<'_>,
        note: impl Fn(ShardId, u64) -> Result<()>,
    ) -> Result<Receipt> {
        let PutRecord { partition_key, data, durability, .. } = record;
        self.check(partition_key, data.len())?;
        let key = Key::new(partition_key);
        self.put_at(self.hash_key(&record, key), durability, |shard, arrival_ms| {
            shard.append_noting(key, data, arrival_ms, |at| note(shard.log.shard, at))
        })
    }

    /// Puts a record of `len` bytes that `fill` writes in place; they are zeros before. If `fill`
    /// panics, nothing is put.
    ///
    /// Readers and syncs wait for `fill` before they pass the record, so it should be quick, and
    /// must not wait for the stream itself, to flush or split it for example.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Panics
    /// If `fill` does.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// stream.put_with("sensor-3", 8, |place| place.copy_from_slice(&42u64.to_le_bytes()))?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_with(
        &self,
        partition_key: &str,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Receipt> {
        self.check(partition_key, len)?;
        let key = Key::new(partition_key);
        let mut fill = Some(fill);
        self.put_at(self.inner.hash.hash_key(key), None, |shard, arrival_ms| {
            shard.append_with(key, len, arrival_ms, |place| {
                // A shard that is closed refuses before it asks for the data.
                let fill = fill.take().expect("a record is filled once");
                fill(place);
            })
        })
    }

    /// Puts a record without a partition key, to the open shards in turn. Each handle of the stream
    /// takes turns of its own (a clone is another handle). Only the records of one handle in one
    /// shard keep their order.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).shards(2).open()?;
    /// let (first, second) = (stream.put_any("a")?, stream.put_any("b")?);
    /// assert_ne!(first.shard, second.shard);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_any(&self, data: impl AsRef<[u8]>) -> Result<Receipt> {
        let data = data.as_ref();
        self.check_len(data.len())?;
        let turn = self.turns.next();
        self.put_routed(
            || self.inner.router.in_turn(turn),
            None,
            |shard, arrival_ms| shard.append(Key::new(""), data, arrival_ms),
        )
    }

    /// Puts a record that gets a number above `previous`, one that was put before: for writers that
    /// would rather fail than put records in another order than they mean to. Within a shard and
    /// from parent to child that holds of every put; so it fails only if `previous` is of another
    /// shard, or of a later record.
    ///
    /// # Errors
    /// [`Error::Stale`] if the number might not be above `previous`; as [`put`](Self::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// let first = stream.put("customer-7", "clicked")?;
    /// let second = stream.put_after(("customer-7", "left"), first.sequence_number)?;
    /// assert!(second.sequence_number > first.sequence_number);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_after<'a>(
        &self,
        record: impl Into<PutRecord<'a>>,
        previous: SequenceNumber,
    ) -> Result<Receipt> {
        self.put_on_condition(record.into(), |shard, key, data, arrival_ms| {
            let next = SequenceNumber::from(shard.tip()?.place.address);
            if next <= previous {
                let shard = shard.log.shard;
                return Err(Error::Stale { shard, sequence_number: previous, next });
            }
            shard.append(key, data, arrival_ms)
        })
    }

    /// Puts a record if nothing was put to its shard since somebody read up to `expected`: the
    /// [`sequence_number`](crate::ShardIterator::sequence_number) of an iterator behind the newest
    /// record. Of any number of writers that have read the same, one succeeds; the others read on,
    /// and decide anew.
    ///
    /// # Errors
    /// [`Error::Stale`] if there is a record at `expected` or above, or one is being put; also if
    /// the shard was split or merged since. As [`put`](Self::put).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Error, ShardId, StartingPosition};
    ///
    /// let read = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
    /// stream.put_if(("seat-12", "sold"), read.sequence_number())?;
    /// let refused = stream.put_if(("seat-12", "sold again"), read.sequence_number());
    /// assert!(matches!(refused, Err(Error::Stale { .. })));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_if<'a>(
        &self,
        record: impl Into<PutRecord<'a>>,
        expected: SequenceNumber,
    ) -> Result<Receipt> {
        self.put_on_condition(record.into(), |shard, key, data, arrival_ms| {
            let appended = match expected.address() {
                Some(at) => shard.append_if(at, key, data, arrival_ms)?,
                None => Err(shard.tip()?.place.address),
            };
            appended.map_err(|next| Error::Stale {
                shard: shard.log.shard,
                sequence_number: expected,
                next: next.into(),
            })
        })
    }

    fn put_on_condition(
        &self,
        record: PutRecord<'_>,
        append: impl Fn(&Shard, Key<'_>, &[u8], u64) -> Result<Appended>,
    ) -> Result<Receipt> {
        self.check(record.partition_key, record.data.len())?;
        let key = Key::new(record.partition_key);
        let hash_key = self.hash_key(&record, key);
        self.put_at(hash_key, record.durability, |shard, arrival_ms| {
            append(shard, key, record.data, arrival_ms).map_err(|refused| {
                // A shard that is about to be closed has no say.
                drop(self.inner.reshaping.lock());
                let is_owner = std::ptr::eq(shard, &**self.inner.router.route(hash_key));
                if is_owner { refused } else { Error::ShardClosed { shard: shard.log.shard } }
            })
        })
    }

    /// Puts any number of records: a result for each, in the same order. Records of one shard keep
    /// their order. Some may be put while others are not; if one of a shard cannot be put, those
    /// behind it of the same shard are not put either, so that their order is kept when the caller
    /// puts them again. (A key or size that is refused concerns that record alone.)
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// let results = stream.put_batch([("customer-7", "clicked"), ("customer-8", "left")]);
    /// assert!(results.iter().all(|result| result.is_ok()));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_batch<'a, R: Into<PutRecord<'a>>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Vec<Result<Receipt>> {
        let arrival_ms = self.now_ms();
        let mut failed = Vec::new();
        let pending = records.into_iter().map(Into::into).enumerate().map(|(index, record)| {
            if let Err(error) = self.check(record.partition_key, record.data.len()) {
                failed.push((index, error));
            }
            let key = Key::new(record.partition_key);
            let hash_key = self.hash_key(&record, key);
            let durability = record.durability.unwrap_or(self.inner.durability);
            Pending { key, data: record.data, hash_key, durability, index, owner: 0 }
        });
        // Collected, not pushed: each is made where it stays.
        let mut pending: Vec<_> = pending.collect();
        let mut places = vec![(ShardId::new(0), 0); pending.len()];
        if !failed.is_empty() {
            let is_refused = |index| failed.binary_search_by_key(&index, |(at, _)| *at).is_ok();
            pending.retain(|pending| !is_refused(pending.index));
        }
        let mut full_since = None;
        while !pending.is_empty() {
            let outcome = Outcome { places: &mut places, failed: &mut failed };
            pending = self.put_pending(pending, arrival_ms, outcome, &mut full_since);
        }
        let receipt = |(shard, address): (ShardId, u64)| Receipt {
            shard,
            sequence_number: address.into(),
            arrival_ms,
        };
        let mut results: Vec<_> = places.into_iter().map(|place| Ok(receipt(place))).collect();
        for (index, error) in failed {
            results[index] = Err(error);
        }
        results
    }

    /// Puts the pending records, shard by shard: those that are pending still, because their shard
    /// was closed, or there was no room at first.
    fn put_pending<'a>(
        &self,
        mut pending: Vec<Pending<'a>>,
        arrival_ms: u64,
        outcome: Outcome<'_>,
        full_since: &mut Option<Instant>,
    ) -> Vec<Pending<'a>> {
        let Outcome { places, failed } = outcome;
        // All by one picture: if a reshard came in between, a record could be put to a child
        // before one of the same key, routed to the parent earlier, followed it there.
        let picture = self.inner.router.picture();
        for pending in &mut pending {
            pending.owner = picture.owner(pending.hash_key);
        }
        // A stable sort: records of one shard keep their order.
        pending.sort_by_key(|pending| pending.owner);
        let mut left: Vec<Pending<'a>> = Vec::new();
        for routed in pending.chunk_by(|one, other| one.owner == other.owner) {
            let shard = picture.shard(routed[0].owner);
            let batch = routed.iter().map(|pending| (pending.key, pending.data));
            let mut done = routed.iter();
            let mut sync = Vec::new();
            let appended = shard.append_batch(batch, arrival_ms, |appended| {
                let &Pending { durability, index, .. } = done.next().expect("one for each record");
                match durability {
                    Durability::Os => {}
                    Durability::Interval(interval) => self.flush_within(shard, interval),
                    Durability::Sync => sync.push((index, appended.end)),
                }
                places[index] = (shard.log.shard, appended.address);
                self.maintain(shard, appended);
            });
            match appended {
                Ok(()) => {}
                Err(Error::ShardClosed { .. }) => {
                    // Its children are about to take over.
                    drop(self.inner.reshaping.lock());
                    left.extend(done);
                }
                Err(error) => match self.make_room(error, full_since) {
                    Ok(()) => left.extend(done),
                    // A later record must not be put where an earlier one could not.
                    Err(error) => failed.extend(done.map(|other| (other.index, error.clone()))),
                },
            }
            for (index, end) in sync {
                if let Err(error) = shard.sync_to(end) {
                    failed.push((index, error));
                }
            }
        }
        // Those of two parents go to one child, in the order of the batch.
        left.sort_unstable_by_key(|pending| pending.index);
        left
    }

    /// Appends to the shard that owns a hash key, and waits until it is as durable as it has to be.
    #[inline]
    fn put_at(
        &self,
        hash_key: HashKey,
        durability: Option<Durability>,
        append: impl FnMut(&Shard, u64) -> Result<Appended>,
    ) -> Result<Receipt> {
        self.put_routed(|| self.inner.router.route(hash_key), durability, append)
    }

    /// Appends to the shard that `route` says, and to the one it says then if that is closed.
    #[inline]
    fn put_routed<'s>(
        &'s self,
        route: impl Fn() -> &'s Arc<Shard>,
        durability: Option<Durability>,
        mut append: impl FnMut(&Shard, u64) -> Result<Appended>,
    ) -> Result<Receipt> {
        let arrival_ms = self.now_ms();
        let mut full_since = None;
        loop {
            let shard = route();
            let appended = match append(shard, arrival_ms) {
                Ok(appended) => appended,
                Err(Error::ShardClosed { .. }) => {
                    // Its children are about to take over.
                    drop(self.inner.reshaping.lock());
                    continue;
                }
                Err(error) => {
                    self.make_room(error, &mut full_since)?;
                    continue;
                }
            };
            self.maintain(shard, appended);
            match durability.unwrap_or(self.inner.durability) {
                Durability::Os => {}
                Durability::Interval(interval) => self.flush_within(shard, interval),
                Durability::Sync => shard.sync_to(appended.end)?,
            }
            let sequence_number = appended.address.into();
            return Ok(Receipt { shard: shard.log.shard, sequence_number, arrival_ms });
        }
    }

    /// Has the shard maintained, if it is time to.
    #[inline]
    fn maintain(&self, shard: &Arc<Shard>, appended: Appended) {
        if appended.maintain
            && let Some(keeper) = &self.inner.keeper
        {
            keeper.maintain(shard);
        }
    }

    /// Has the shard flushed when this time is over, unless somebody else has.
    #[inline]
    fn flush_within(&self, shard: &Arc<Shard>, interval: Duration) {
        if let Some(keeper) = &self.inner.keeper
            && !shard.awaits_flush.load(Ordering::Relaxed)
        {
            keeper.flush_within(shard, interval);
        }
    }

    #[inline]
    fn hash_key(&self, record: &PutRecord<'_>, key: Key<'_>) -> HashKey {
        record.explicit_hash_key.unwrap_or_else(|| self.inner.hash.hash_key(key))
    }

    #[inline]
    fn check(&self, partition_key: &str, data_len: usize) -> Result<()> {
        // So many bytes are no more characters.
        if partition_key.is_empty() || partition_key.len() > MAX_PARTITION_KEY_CHARS {
            let characters = partition_key.chars().count();
            if !(1..=MAX_PARTITION_KEY_CHARS).contains(&characters) {
                return Err(Error::InvalidPartitionKey { characters });
            }
        }
        self.check_len(partition_key.len().saturating_add(data_len))
    }

    #[inline]
    fn check_len(&self, len: usize) -> Result<()> {
        let max = self.inner.max_record_bytes;
        if len > max { Err(Error::RecordTooLarge { len, max }) } else { Ok(()) }
    }
}
