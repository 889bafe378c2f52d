//! What comes next in a shard that is written: the next segment, and what is left to do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::error::Result;
use crate::format::segment_header::{End, MAX_RECOVERED, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::os::fs;
use crate::seeded::bug;
use crate::shard::Log;
use crate::shard::recovery::{self, Found};
use crate::shard::ring::Bound;
use crate::shard::room::Room;
use crate::shard::segment::Segment;

/// The size of a shard's first segment, so that a small stream is small on disk.
const FIRST_SEGMENT_BYTES: u64 = 256 << 10;
/// How much larger each one is than the one before, up to the stream's maximum: with each, a
/// producer may have to wait for the disk.
pub(super) const GROWTH: u64 = 4;

/// What comes next, and what is left to do.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) bound: Bound,
    /// Nothing is put any more: the shard was split or merged, or the stream is being closed.
    pub(super) closed: bool,
    /// The segment in which the last writer stopped in good order, to be gone on with.
    pub(super) paused: Option<Found>,
    /// The next segment, and how much of it is in memory.
    pub(super) spare: Option<(Segment, u32)>,
    /// Somebody is making the spare, without the lock.
    pub(super) making: bool,
    pub(super) room: Arc<Room>,
    /// The length of the segment that is being written, or is to be gone on with, which is not
    /// counted there yet.
    pub(super) exempt: u64,
    /// Where the next segment begins.
    pub(super) base: u64,
    /// How many frames were claimed before it.
    pub(super) ordinal: u64,
    /// How large it gets.
    pub(super) size: u64,
    /// What the next segment's header tells of older ones.
    pub(super) recovered: Vec<(u64, End)>,
    /// Files that have never held anything; they keep their numbers from being used again until
    /// the next segment does.
    pub(super) unused: Vec<(u64, PathBuf)>,
    /// All published, not sealed yet; oldest first.
    pub(super) retired: Vec<(Arc<Segment>, End)>,
    /// How much of the active segment was touched ahead of the producers.
    pub(super) populated: u32,
    /// Since when it is the active one.
    pub(super) bound_at: Instant,
}

impl Next {
    /// What comes next in a shard with these segments, of which nothing else is at work.
    pub(super) fn open(log: &Log, segments: &mut [Found]) -> Result<Self> {
        let trimmed = log.horizon.trimmed();
        let recovered = recovery::recover(segments, trimmed.frames)?;
        let last = segments.last();
        let limit = last.map_or(log.start, Found::limit).max(trimmed.base);
        let end = last.and_then(|last| last.end.or(last.seal.map(|seal| seal.end)));
        let paused = last.filter(|last| last.is_paused()).cloned();
        let exempt = paused.as_ref().map_or(0, |paused| paused.header.capacity);
        let all: u64 = segments.iter().map(|found| found.header.capacity).sum();
        log.room.take_anyway(all - exempt);
        let skip = recovered.len().saturating_sub(MAX_RECOVERED);
        Ok(Self {
            bound: Bound::default(),
            closed: false,
            paused,
            spare: None,
            making: false,
            room: Arc::clone(&log.room),
            exempt,
            base: limit.max(log.start),
            ordinal: end.map_or(trimmed.frames, |end| end.first_ordinal + u64::from(end.frames)),
            size: last.map_or(FIRST_SEGMENT_BYTES, |last| last.header.capacity * GROWTH),
            recovered: if bug("end_not_told") { Vec::new() } else { recovered[skip..].to_vec() },
            unused: segments
                .iter()
                .filter(|found| found.is_unused())
                .map(|found| (found.header.base, found.path.clone()))
                .collect(),
            retired: Vec::new(),
            populated: 0,
            bound_at: Instant::now(),
        })
    }

    /// The size of the next segment, which has to hold a claim of `needed` bytes.
    pub(super) fn capacity(&self, log: &Log, needed: u64) -> u64 {
        let max = log.max_segment_bytes.min(log.room.largest_segment());
        let size = self.size.clamp(FIRST_SEGMENT_BYTES.min(max), max);
        if needed <= size / 4 {
            size
        } else {
            // A segment of its own, or as large as usual if that is enough.
            (needed + u64::from(SEGMENT_HEADER_LEN)).next_multiple_of(4096).max(size)
        }
    }

    /// Where the next record goes if no segment is bound.
    pub(super) fn resting_place(&self) -> u64 {
        let seal = self.paused.as_ref().and_then(|found| found.seal);
        seal.map_or(self.base, |seal| seal.end.address)
    }

    /// The next segment comes behind this one.
    pub(super) fn pass(&mut self, limit: u64, end: End) {
        if limit >= self.base {
            self.base = limit;
            self.ordinal = end.first_ordinal + u64::from(end.frames);
        }
    }

    /// The segment that was being written is not any more, and counts.
    pub(super) fn finish_exempt(&mut self) {
        self.room.take_anyway(std::mem::take(&mut self.exempt));
    }

    /// Removes the segment that was made ahead.
    pub(super) fn remove_spare(&mut self) -> Result<()> {
        self.spare.take().map_or(Ok(()), |(spare, _)| fs::remove(&spare.path))
    }

    pub(super) fn header(&self, log: &Log, capacity: u64) -> SegmentHeader {
        SegmentHeader {
            stream: log.stream,
            shard: log.shard.index(),
            salt: crate::os::random() as u32,
            base: self.base,
            capacity,
            recovered: self.recovered.clone(),
        }
    }
}
