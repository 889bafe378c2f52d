//! How much room the segments of a stream may take.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// A limit has room for so many segments at least, so that little goes at once.
const SEGMENTS_AT_LEAST: u64 = 16;
/// No segment gets smaller than this for want of room.
const SMALLEST_SEGMENT_BYTES: u64 = 64 << 10;
/// When there is no limit.
const UNLIMITED: u64 = u64::MAX;

/// The room of a stream, which all its shards share. What is counted are finished segments: each
/// shard may have one that it is writing, and an empty one ready, whatever the others have.
///
/// Both numbers say nothing about other memory, so relaxed order suffices.
#[derive(Debug)]
pub(crate) struct Room {
    /// Written when the retention is set; read by whoever makes a segment.
    limit: AtomicU64,
    /// What is counted: raised by whoever finishes a segment, lowered by whoever removes one.
    taken: AtomicU64,
}

impl Default for Room {
    fn default() -> Self {
        Self { limit: AtomicU64::new(UNLIMITED), taken: AtomicU64::new(0) }
    }
}

impl Room {
    /// From now on there is so much; what is taken already stays.
    pub(crate) fn set_limit(&self, bytes: Option<u64>) {
        self.limit.store(bytes.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// What is taken.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The largest that a segment should get.
    pub(crate) fn largest_segment(&self) -> u64 {
        let share = self.limit.load(Ordering::Relaxed) / SEGMENTS_AT_LEAST;
        (share & !4095).max(SMALLEST_SEGMENT_BYTES)
    }

    /// Takes so many bytes, if they are there. When nothing is taken, they are; when more is taken
    /// than there is, not even none are.
    ///
    /// # Errors
    /// [`Error::StreamFull`] if not.
    pub(crate) fn take(&self, bytes: u64) -> Result<()> {
        let add = |taken: u64| self.fits(taken, bytes).then(|| taken.saturating_add(bytes));
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(taken) => {
                let limit = self.limit.load(Ordering::Relaxed);
                Err(Error::StreamFull { taken, needed: bytes, limit })
            }
        }
    }

    /// Whether so many bytes are there to be taken.
    pub(crate) fn has(&self, bytes: u64) -> bool {
        self.fits(self.taken(), bytes)
    }

    fn fits(&self, taken: u64, bytes: u64) -> bool {
        taken == 0 || taken.saturating_add(bytes) <= self.limit.load(Ordering::Relaxed)
    }

    /// Takes so many bytes, which are on the disk whether there is room or not.
    pub(crate) fn take_anyway(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives so many bytes back.
    pub(crate) fn give_back(&self, bytes: u64) {
        let before = self.taken.fetch_sub(bytes, Ordering::Relaxed);
        assert!(before >= bytes, "nobody gives back what was not taken");
    }
}
