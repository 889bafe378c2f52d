//! What is done for a shard behind its producers' backs: pages and segments before they are
//! needed, seals after.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Result;
use crate::format::segment_header::{End, SEGMENT_HEADER_LEN, SealKind, SegmentHeader};
use crate::shard::Log;
use crate::shard::ring::maintenance_distance;
use crate::shard::segment::{self, Segment};
use crate::shard::writer::Writer;

/// A producer that would fill a segment in less than this is about to need all of the next: its
/// pages are made ready ahead. Those of a slow one would be written back, and protected again,
/// before it gets there.
const FAST: Duration = Duration::from_secs(4);
/// How many bytes are made ready before the next look whether somebody waits for the segment. Less
/// at a time takes more time in all: the page cache has smaller folios then.
const FILLED_AT_ONCE: usize = 2 << 20;

impl Writer {
    /// Touches the pages that come next, and makes the next segment before it is needed.
    pub(crate) fn prepare(&self, log: &Log) -> Result<()> {
        let mut next = self.next.lock();
        let Some((segment, slot)) = self.ring.active(&next.bound) else { return Ok(()) };
        let segment = Arc::clone(segment);
        let capacity = segment.header.capacity as u32;
        let tail = capacity - slot.tail.mark().remaining().unwrap_or(0) as u32;
        let ahead = tail + 2 * maintenance_distance(segment.header.capacity);
        let missing = next.populated.max(tail)..ahead.min(capacity);
        next.populated = next.populated.max(missing.end);
        let share = f64::from(tail) / f64::from(capacity);
        // Where puts are synced one by one, each sync would write all of a large folio.
        let is_synced = self.watermark.get() > segment.start();
        let is_fast = !is_synced && next.bound_at.elapsed() < FAST.mul_f64(share);
        let wanted =
            next.spare.is_none() && !next.closed && !next.making && (is_fast || share > 0.25);
        next.making |= wanted;
        let header =
            SegmentHeader { base: segment.limit(), ..next.header(log, next.capacity(log, 0)) };
        drop(next);
        segment.map.populate(missing.start as usize..missing.end as usize);
        self.retire_finished(log);
        if !wanted {
            return Ok(());
        }
        let spare = self.make_spare(log, header, is_fast);
        let mut next = self.next.lock();
        next.making = false;
        self.made.notify_all();
        next.spare = Some(spare?);
        Ok(())
    }

    /// A new segment and, if there is time, pages for all of it.
    fn make_spare(
        &self,
        log: &Log,
        header: SegmentHeader,
        is_fast: bool,
    ) -> Result<(Segment, u32)> {
        let spare = segment::create(&log.directory, header)?;
        let mut populated = SEGMENT_HEADER_LEN;
        let zeros = if is_fast { vec![0; FILLED_AT_ONCE] } else { Vec::new() };
        while is_fast
            && u64::from(populated) < spare.header.capacity
            && !self.hurry.load(Ordering::Relaxed)
        {
            match spare.fill(populated, &zeros) {
                Ok(to) => populated = to,
                // The pages are made when they are needed.
                Err(_) => break,
            }
        }
        Ok((spare, populated))
    }

    /// Takes out of the ring what is published, so that nobody who rolls has to.
    pub(super) fn retire_finished(&self, log: &Log) {
        loop {
            let next = self.next.lock();
            let finished = self.ring.oldest(&next.bound).filter(|(_, slot)| slot.end().is_some());
            let Some(segment) = finished.map(|(segment, _)| Arc::clone(segment)) else { return };
            drop(next);
            // The walk over all its frames takes long, and the lock is not needed for it.
            if !segment.published().1 {
                return;
            }
            self.retire_oldest(log, &mut self.next.lock());
        }
    }

    /// Ends the segment that is being written, of which nothing is left, unless something was put
    /// since it went on at `address`. The next record begins a new one.
    pub(crate) fn end_idle(&self, log: &Log, address: u64) -> Result<()> {
        let mut next = self.lock_made();
        let active = self.ring.active(&next.bound).map(|(segment, slot)| {
            let remaining = slot.tail.mark().remaining();
            (
                segment.header.capacity,
                remaining.is_some_and(|left| segment.limit() - left == address),
            )
        });
        match (active, next.paused.take()) {
            (Some((capacity, true)), _) => {
                self.ring.end_active();
                // It was not for want of room.
                next.size = capacity;
            }
            (None, Some(found)) => {
                let seal = found.seal.expect("a paused segment has a seal");
                log.index.finish(found.header.base, seal.end);
            }
            (_, paused) => {
                next.paused = paused;
                return Ok(());
            }
        }
        next.finish_exempt();
        next.remove_spare()?;
        drop(next);
        self.sync_to(address)?;
        self.retire_finished(log);
        self.settle(log)
    }

    /// Makes finished segments durable and seals them.
    pub(crate) fn settle(&self, log: &Log) -> Result<()> {
        self.settle_to(log, 0)
    }

    /// Makes finished segments durable and seals them, until so many are left.
    pub(super) fn settle_to(&self, log: &Log, left: usize) -> Result<()> {
        let oldest = || {
            let next = self.next.lock();
            next.retired.first().filter(|_| next.retired.len() > left).cloned()
        };
        while oldest().is_some() {
            // One at a time; whoever waits for it takes turns with the thread whose work it is.
            let _turn = self.settling.lock();
            let Some((segment, end)) = oldest() else { continue };
            segment.map.forget_pages();
            self.sync_to(segment.limit())?;
            let end = End { durable: segment.limit(), ..end };
            let seal = segment.seal_at(SealKind::Full, end);
            segment.seal(&seal)?;
            let _ = segment.end.set(end);
            log.index.release(segment.header.base, |found| {
                found.end = Some(end);
                found.seal = Some(seal);
            });
            self.next.lock().retired.retain(|(other, _)| !Arc::ptr_eq(other, &segment));
        }
        Ok(())
    }
}
