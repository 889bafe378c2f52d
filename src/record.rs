//! What travels: a record on its way in, its receipt, and a record on its way out.

use std::fmt;
use std::time::Duration;

use crate::hash_key::HashKey;
use crate::position::{SequenceNumber, ShardId};
#[cfg(feature = "serde")]
use crate::serialization::as_ms;

/// The most characters a partition key has, as in Kinesis.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Error, MAX_PARTITION_KEY_CHARS};
///
/// stream.put(&"ä".repeat(MAX_PARTITION_KEY_CHARS), "fits")?;
/// let put = stream.put(&"ä".repeat(MAX_PARTITION_KEY_CHARS + 1), "does not fit");
/// assert!(matches!(put, Err(Error::InvalidPartitionKey { characters: 257 })));
/// # Ok::<(), millstream::Error>(())
/// ```
pub const MAX_PARTITION_KEY_CHARS: usize = 256;
/// The most bytes of key and data together that a stream takes by default: 1 MiB.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{DEFAULT_MAX_RECORD_BYTES, Error};
///
/// let put = stream.put("customer-7", vec![0; DEFAULT_MAX_RECORD_BYTES]);
/// // The key counts, too.
/// assert!(matches!(put, Err(Error::RecordTooLarge { max: DEFAULT_MAX_RECORD_BYTES, .. })));
/// # Ok::<(), millstream::Error>(())
/// ```
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;
/// The highest limit that can be set: 10 MiB of data and the longest key.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use millstream::{MAX_RECORD_BYTES, Stream};
///
/// let stream = Stream::builder(dir.path()).max_record_bytes(MAX_RECORD_BYTES).create()?;
/// stream.put("customer-7", vec![0; 10 << 20])?;
/// # Ok::<(), millstream::Error>(())
/// ```
pub const MAX_RECORD_BYTES: usize = (10 << 20) + 4 * MAX_PARTITION_KEY_CHARS;

/// The most shards that can be open at the same time in a stream; a lower limit can be set.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Error, MAX_OPEN_SHARDS};
///
/// let reshard = stream.reshard_to(MAX_OPEN_SHARDS + 1);
/// assert!(matches!(reshard, Err(Error::TooManyShards { max: MAX_OPEN_SHARDS, .. })));
/// # Ok::<(), millstream::Error>(())
/// ```
pub const MAX_OPEN_SHARDS: u32 = 10_000;

/// When a put is acknowledged.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use millstream::{Durability, PutRecord, Stream};
///
/// let every_50_ms = Durability::Interval(Duration::from_millis(50));
/// let stream = Stream::builder(dir.path()).durability(every_50_ms).open()?;
/// stream.put("customer-7", "clicked")?;
/// // A power cut must not take this one.
/// stream.put_record(PutRecord::new("customer-7", "paid").durability(Durability::Sync))?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Durability {
    /// When the record is in the page cache: it survives the death of the process, but not a power
    /// cut.
    #[default]
    Os,
    /// As `Os`, and synced in the background within this time, so that a power cut takes no more
    /// than the puts of this time. No put waits for it.
    #[cfg_attr(feature = "serde", serde(rename = "interval_ms", serialize_with = "as_ms"))]
    Interval(Duration),
    /// When the record and everything before it in the shard is on the disk: it survives a power
    /// cut. Puts that wait at the same time share one sync.
    Sync,
}

/// A record to be put; made from a `(key, data)` pair.
///
/// ```
/// use millstream::{Durability, HashKey, PutRecord};
///
/// let plain = PutRecord::from(("customer-7", "clicked"));
/// let placed = PutRecord::new("customer-7", b"clicked")
///     .explicit_hash_key(HashKey::MAX)
///     .durability(Durability::Sync);
/// # let _ = (plain, placed);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PutRecord<'a> {
    pub(crate) partition_key: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) explicit_hash_key: Option<HashKey>,
    pub(crate) durability: Option<Durability>,
}

impl<'a> PutRecord<'a> {
    /// A record with this partition key, which selects the shard, and these data.
    pub fn new(partition_key: &'a str, data: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        let data = data.as_ref();
        Self { partition_key, data, explicit_hash_key: None, durability: None }
    }

    /// Puts the record to the shard that owns `key`, instead of hashing the partition key.
    pub fn explicit_hash_key(mut self, key: HashKey) -> Self {
        self.explicit_hash_key = Some(key);
        self
    }

    /// Acknowledges this record at `durability`, whatever the stream's is.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }
}

impl<'a, K, D> From<(&'a K, &'a D)> for PutRecord<'a>
where
    K: AsRef<str> + ?Sized,
    D: AsRef<[u8]> + ?Sized,
{
    fn from((partition_key, data): (&'a K, &'a D)) -> Self {
        Self::new(partition_key.as_ref(), data)
    }
}

/// A partition key, and the XXH3 of its text: taken once, it routes the record, and the checksum of
/// its frame covers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key<'a> {
    pub(crate) text: &'a str,
    pub(crate) xxh3: u128,
}

impl<'a> Key<'a> {
    #[inline]
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, xxh3: xxhash_rust::xxh3::xxh3_128(text.as_bytes()) }
    }
}

/// The acknowledgement of a put: where the record is.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::Receipt;
///
/// let Receipt { shard, sequence_number, arrival_ms, .. } = stream.put("customer-7", "clicked")?;
/// println!("{shard} has it at {sequence_number} since {arrival_ms} ms");
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Receipt {
    /// The shard that has the record.
    pub shard: ShardId,
    /// The record's number in the shard.
    pub sequence_number: SequenceNumber,
    /// When the record arrived, in milliseconds since 1970.
    pub arrival_ms: u64,
}

/// A record that was read; borrows from its [`Batch`](crate::Batch), which lies in the mapped
/// segment.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// stream.put("customer-7", "clicked")?;
/// let scanned = stream.scan(..)?.next().expect("it was just put")?;
/// let record = scanned.record();
/// assert_eq!((record.partition_key(), record.data()), ("customer-7", &b"clicked"[..]));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// UTF-8: that was checked when the batch was read, as cheaply as whoever wants text checks it
    /// again.
    partition_key: &'a [u8],
    data: &'a [u8],
    sequence_number: SequenceNumber,
    arrival_ms: u64,
}

impl<'a> Record<'a> {
    /// One with a key that is UTF-8.
    #[inline]
    pub(crate) fn new(
        partition_key: &'a [u8],
        data: &'a [u8],
        sequence_number: SequenceNumber,
        arrival_ms: u64,
    ) -> Self {
        Self { partition_key, data, sequence_number, arrival_ms }
    }

    /// The key it was put with; empty if it was put without one.
    pub fn partition_key(&self) -> &'a str {
        std::str::from_utf8(self.partition_key).unwrap_or_default()
    }

    /// What was put; may be empty.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Its number in the shard.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.sequence_number
    }

    /// When it arrived, in milliseconds since 1970 by the stream's clock, which may step back.
    pub fn arrival_ms(&self) -> u64 {
        self.arrival_ms
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", &self.sequence_number)
            .field("partition_key", &self.partition_key())
            .field("data", &format_args!("{}", self.data.escape_ascii()))
            .field("arrival_ms", &self.arrival_ms)
            .finish()
    }
}

/// How much to read at once. At least one record is read if there is one, however large.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Limit, ShardId, StartingPosition};
///
/// for _ in 0..3 {
///     stream.put("customer-7", "clicked")?;
/// }
/// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
/// let two_at_most = Limit { max_records: 2, ..Limit::default() };
/// assert_eq!(stream.get_records(&iterator, two_at_most)?.records.len(), 2);
/// // However small the limit, one record is read.
/// assert_eq!(stream.get_records(&iterator, Limit::bytes(1))?.records.len(), 1);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// The most records; 0 counts as 1.
    pub max_records: usize,
    /// The most bytes of keys and data.
    pub max_bytes: usize,
}

impl Limit {
    /// At most this many records.
    pub fn records(max_records: usize) -> Self {
        Self { max_records, ..Self::default() }
    }

    /// At most this many bytes of keys and data.
    pub fn bytes(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::default() }
    }
}

impl Default for Limit {
    /// 10,000 records or 10 MiB, as in Kinesis.
    fn default() -> Self {
        Self { max_records: 10_000, max_bytes: 10 << 20 }
    }
}

/// How far something is behind the newest record of a shard.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Lag, ShardId, StartingPosition};
///
/// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
/// assert_eq!(stream.lag(&iterator)?, Lag::default());
/// stream.put("customer-7", "clicked")?;
/// assert_eq!(stream.lag(&iterator)?.records, 1);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Lag {
    /// Records not read yet.
    pub records: u64,
    /// What they take in the log, in bytes.
    pub bytes: u64,
    /// How long ago the oldest of them arrived; 0 if there is none.
    pub millis: u64,
}

/// Records that retention removed before a reader got to them.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Gap, Limit, ShardId, StartingPosition};
///
/// let slow = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
/// let first = stream.put("customer-7", "clicked")?;
/// let second = stream.put("customer-7", "left")?;
/// stream.trim(first.shard, first.sequence_number)?;
/// let page = stream.get_records(&slow, Limit::default())?;
/// if let Some(Gap { from, to, records }) = page.gap {
///     assert_eq!((from, to, records), (slow.sequence_number(), second.sequence_number, Some(1)));
/// }
/// # assert!(page.gap.is_some());
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Gap {
    /// Where the reader was: it had read everything below this number.
    pub from: SequenceNumber,
    /// Where reading goes on: nothing below this number is left.
    pub to: SequenceNumber,
    /// How many records there were in between; none if that is no longer known, because the reader
    /// came with a number whose place is gone.
    pub records: Option<u64>,
}
