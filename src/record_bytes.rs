//! Data of records that outlive their batch, without a copy.

use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{Batch, Pages};
use crate::record::Record;

/// Bytes of a segment, which they keep mapped.
struct Kept {
    pages: Arc<dyn Pages>,
    start: u32,
    len: u32,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        self.pages.bytes(self.start, self.len)
    }
}

impl Batch {
    /// The data of a record of this batch, to be kept or sent elsewhere. Nothing is copied: as long
    /// as the bytes or a clone of them are there, their whole segment stays mapped, also when
    /// retention has removed its file.
    ///
    /// # Panics
    /// If the record is not one of this batch.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Limit, StartingPosition};
    ///
    /// let receipt = stream.put("customer-7", "clicked")?;
    /// let iterator = stream.shard_iterator(receipt.shard, StartingPosition::TrimHorizon)?;
    /// let batch = stream.get_records(&iterator, Limit::default())?.records;
    /// let data: Vec<_> = batch.iter().map(|record| batch.data_bytes(&record)).collect();
    /// drop(batch);
    /// assert_eq!(data, ["clicked"]);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn data_bytes(&self, record: &Record<'_>) -> Bytes {
        let data = record.data();
        let (pages, start) = self.memory_of(data).expect("the record is one of this batch");
        if data.is_empty() {
            return Bytes::new();
        }
        Bytes::from_owner(Kept { pages, start, len: data.len() as u32 })
    }
}
