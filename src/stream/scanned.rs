//! A record that a scan has read, and a shard that it reads.

use std::fmt;
use std::sync::Arc;

use crate::batch::Batch;
use crate::position::{SequenceNumber, ShardId};
use crate::record::{Gap, Record};
use crate::stream::ShardIterator;

/// A record that a [`Scan`](crate::Scan) has read; keeps the memory alive that it lies in.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// stream.put("customer-7", "clicked")?;
/// for scanned in stream.scan_key("customer-7", ..)? {
///     let scanned = scanned?;
///     println!("{} {}", scanned.shard(), scanned.record().sequence_number());
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone)]
pub struct ScannedRecord {
    batch: Arc<Batch>,
    index: usize,
    gap: Option<Gap>,
}

impl ScannedRecord {
    /// The shard that has the record.
    pub fn shard(&self) -> ShardId {
        self.batch.shard()
    }

    /// What retention has removed of the shard right before this record, if the scan was about to
    /// read it.
    pub fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// The record.
    #[expect(clippy::missing_panics_doc, reason = "the batch has the record, by construction")]
    pub fn record(&self) -> Record<'_> {
        self.batch.get(self.index).expect("the batch has it")
    }

    /// Its data, which can be kept or sent elsewhere as [`Batch::data_bytes`] says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// stream.put("customer-7", "clicked")?;
    /// let clicked = stream.scan(..)?.next().expect("it was just put")?.data_bytes();
    /// assert_eq!(clicked, "clicked");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    #[cfg(feature = "bytes")]
    pub fn data_bytes(&self) -> bytes::Bytes {
        self.batch.data_bytes(&self.record())
    }
}

impl fmt::Debug for ScannedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", format_args!("{:?}", self.record()), self.shard())
    }
}

/// A shard that is being read, or will be.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) iterator: Option<ShardIterator>,
    /// Records with this number or a higher one are left.
    pub(super) tip: SequenceNumber,
    pub(super) batch: Arc<Batch>,
    /// The record of the batch that is next.
    pub(super) index: usize,
    /// What was removed before it, and is not told yet.
    gap: Option<Gap>,
}

impl Reader {
    pub(super) fn new(iterator: ShardIterator, tip: SequenceNumber) -> Self {
        let batch = Arc::new(Batch::new(iterator.shard()));
        Self { iterator: Some(iterator), tip, batch, index: 0, gap: None }
    }

    /// Goes on with the next page, which begins behind a gap if there is one.
    pub(super) fn turn_page(&mut self, batch: Batch, gap: Option<Gap>) {
        (self.batch, self.index) = (Arc::new(batch), 0);
        if let (Some(before), Some(gap)) = (self.gap, gap) {
            // Nothing was read in between.
            let records = before.records.zip(gap.records).map(|(one, other)| one + other);
            self.gap = Some(Gap { from: before.from, records, ..gap });
        } else {
            self.gap = self.gap.or(gap);
        }
    }

    /// The record that is next, which there is.
    pub(super) fn take_next(&mut self) -> ScannedRecord {
        let (batch, gap) = (Arc::clone(&self.batch), self.gap.take());
        self.index += 1;
        ScannedRecord { batch, index: self.index - 1, gap }
    }
}
