//! What travels: a record on its way in, its receipt, and batches of records on their way out.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::hash_key::HashKey;
use crate::position::{SequenceNumber, ShardId};
#[cfg(feature = "serde")]
use crate::serialization::as_ms;

/// The most characters a partition key has, as in Kinesis.
pub const MAX_PARTITION_KEY_CHARS: usize = 256;
/// The most bytes of key and data together that a stream takes unless it is set otherwise: 1 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: usize = 1 << 20;
/// The most that can be set: data of 10 MiB beside the longest key.
pub const MAX_RECORD_BYTES: usize = (10 << 20) + 4 * MAX_PARTITION_KEY_CHARS;

/// The most shards that can be open at the same time in a stream; it may be set to fewer.
pub const MAX_OPEN_SHARDS: u32 = 10_000;

/// When a put is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum Durability {
    /// When the record is in the page cache: it survives the death of the process, not a power
    /// cut.
    #[default]
    Os,
    /// As `Os`; and after this time at the latest it is put on the disk, so that a power cut takes
    /// no more than the puts of this time. Nobody waits for that.
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
    /// A record of these; the partition key decides upon the shard.
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

/// A record that was read; borrows from its [`Batch`], which lies in the mapped segment.
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

/// Records that a reader was about to read, and that retention has removed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Gap {
    /// Where the reader was: it had read everything below this number.
    pub from: SequenceNumber,
    /// Where reading goes on: nothing below this number is left.
    pub to: SequenceNumber,
    /// How many records there were in between; none if that is not known any more, because the
    /// reader came with a number whose place is gone.
    pub records: Option<u64>,
}

/// Memory that published records lie in: a mapped segment. A batch keeps it alive.
pub(crate) trait Pages: Send + Sync {
    /// The bytes from `start` on; they are those of published records and what lies between.
    fn bytes(&self, start: u32, len: u32) -> &[u8];
}

/// One record of a batch: where its key and data lie.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) address: u64,
    pub(crate) arrival_ms: u64,
    /// Where in the pages the key begins; the data follows it.
    pub(crate) start: u32,
    pub(crate) data_len: u32,
    pub(crate) key_len: u16,
    /// Which of the batch's pages.
    pub(crate) pages: u16,
}

/// Records of one shard, in order, as they were read at once; they stay where they are, in mapped
/// segments, which the batch keeps alive.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Limit, StartingPosition};
///
/// let receipt = stream.put("customer-7", "clicked")?;
/// let iterator = stream.shard_iterator(receipt.shard, StartingPosition::TrimHorizon)?;
/// let batch = stream.get_records(&iterator, Limit::default())?.records;
/// assert_eq!(batch.len(), 1);
/// for record in &batch {
///     assert_eq!(record.data(), b"clicked");
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    shard: ShardId,
    entries: Vec<Entry>,
    pages: Vec<Lent>,
    lag: Lag,
    gap: Option<Gap>,
}

/// The part of some pages that the records of a batch lie in.
#[derive(Clone)]
struct Lent {
    pages: Arc<dyn Pages>,
    start: u32,
    end: u32,
}

impl Batch {
    /// No records yet of this shard.
    pub(crate) fn new(shard: ShardId) -> Self {
        Self { shard, entries: Vec::new(), pages: Vec::new(), lag: Lag::default(), gap: None }
    }

    /// Adds memory; the entries pushed from now on lie in it.
    pub(crate) fn push_pages(&mut self, pages: Arc<dyn Pages>) {
        self.pages.push(Lent { pages, start: u32::MAX, end: 0 });
    }

    /// Adds a record that lies in the pages added last, with a key that is UTF-8.
    pub(crate) fn push(&mut self, entry: Entry) {
        let index = self.pages.len() - 1;
        let lent = &mut self.pages[index];
        lent.start = lent.start.min(entry.start);
        lent.end = lent.end.max(entry.start + entry.len());
        self.entries.push(Entry { pages: index as u16, ..entry });
    }

    /// Leaves out the records that are not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(Record<'_>) -> bool) {
        let kept = self.entries.iter().zip(&*self).filter(|(_, record)| keep(*record));
        self.entries = kept.map(|(entry, _)| *entry).collect();
    }

    /// Says how much is behind the last record.
    pub(crate) fn set_lag(&mut self, lag: Lag) {
        self.lag = lag;
    }

    /// Says what is missing before the first record.
    pub(crate) fn set_gap(&mut self, gap: Option<Gap>) {
        self.gap = gap;
    }

    /// The shard that all the records are of.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The data of all records together, in bytes.
    pub(crate) fn total_data_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| u64::from(entry.data_len)).sum()
    }

    /// The record at this place of the batch.
    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        let entry = self.entries.get(index)?;
        let lent = &self.pages[usize::from(entry.pages)];
        Some(entry.record(lent.pages.bytes(entry.start, entry.len())))
    }

    /// The records, in the order of their sequence numbers.
    pub fn iter(&self) -> Iter<'_> {
        Iter { batch: self, indices: 0..self.len(), pages: None, start: 0, bytes: &[] }
    }

    /// The memory that bytes of this batch lie in, and where in it they begin.
    #[cfg(feature = "bytes")]
    pub(crate) fn memory_of(&self, bytes: &[u8]) -> Option<(Arc<dyn Pages>, u32)> {
        let at = bytes.as_ptr().addr();
        self.pages.iter().find_map(|lent| {
            let all = lent.pages.bytes(lent.start, lent.end - lent.start);
            let offset = at.checked_sub(all.as_ptr().addr())?;
            let is_in = offset + bytes.len() <= all.len();
            is_in.then(|| (Arc::clone(&lent.pages), lent.start + offset as u32))
        })
    }

    /// The number of the last record, if there is one.
    pub fn last_sequence_number(&self) -> Option<SequenceNumber> {
        self.entries.last().map(|entry| entry.address.into())
    }

    /// What retention has removed before the first record, that would have been read otherwise.
    pub fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// What the shard had behind the last record when the batch was read.
    pub fn lag(&self) -> Lag {
        self.lag
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self).finish()
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = Record<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Entry {
    /// The bytes of key and data.
    #[inline]
    fn len(&self) -> u32 {
        u32::from(self.key_len) + self.data_len
    }

    /// The record with this key and data.
    #[inline]
    fn record<'a>(&self, bytes: &'a [u8]) -> Record<'a> {
        let (partition_key, data) = bytes.split_at(usize::from(self.key_len));
        let (sequence_number, arrival_ms) = (self.address.into(), self.arrival_ms);
        Record { partition_key, data, sequence_number, arrival_ms }
    }
}

/// The records of a [`Batch`], in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    batch: &'a Batch,
    indices: std::ops::Range<usize>,
    /// The pages that the last record was in; where in them the bytes begin that lie at hand.
    pages: Option<u16>,
    start: u32,
    bytes: &'a [u8],
}

impl<'a> Iter<'a> {
    #[inline]
    fn record(&mut self, index: usize) -> Option<Record<'a>> {
        let entry = self.batch.entries.get(index)?;
        if self.pages != Some(entry.pages) {
            let lent = &self.batch.pages[usize::from(entry.pages)];
            (self.pages, self.start) = (Some(entry.pages), lent.start);
            self.bytes = lent.pages.bytes(lent.start, lent.end - lent.start);
        }
        let at = (entry.start - self.start) as usize;
        Some(entry.record(&self.bytes[at..at + entry.len() as usize]))
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        let index = self.indices.next()?;
        self.record(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.indices.size_hint()
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        let index = self.indices.next_back()?;
        self.record(index)
    }
}
