//! Records on their way out: batches of them, in the mapped segments that they were read from.

use std::fmt;
use std::sync::Arc;

use crate::position::{SequenceNumber, ShardId};
use crate::record::{Gap, Lag, Record};

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

/// Records of one shard, in order, that were read together. They stay where they are, in mapped
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

    /// What retention removed before the first record, and would have been read otherwise.
    pub fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// What the shard had after the last record when the batch was read.
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
        Record::new(partition_key, data, self.address.into(), self.arrival_ms)
    }
}

/// The records of a [`Batch`], in order.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Limit, ShardId, StartingPosition};
///
/// stream.put("customer-7", "clicked")?;
/// stream.put("customer-7", "left")?;
/// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
/// let batch = stream.get_records(&iterator, Limit::default())?.records;
/// let newest_first: Vec<_> = batch.iter().rev().map(|record| record.data()).collect();
/// assert_eq!(newest_first, [&b"left"[..], b"clicked"]);
/// # Ok::<(), millstream::Error>(())
/// ```
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
