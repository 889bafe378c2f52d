//! The writing side of a shard: claiming and rolling on, making durable, ending and closing.
//!
//! A segment's way: made as a spare, with all its blocks and durable, before anybody needs it;
//! bound to the ring, where producers fill it; retired when all of it is published; made durable,
//! sealed, and left to the readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::frame::HEADER_LEN;
use crate::format::segment_header::{End, MAX_RECOVERED, SEGMENT_HEADER_LEN, Seal, SealKind};
use crate::os::fs;
use crate::os::signal::{Bell, Event};
use crate::os::sync::{Condvar, Mutex, MutexGuard, yield_now};
use crate::record::Key;
use crate::seeded::bug;
use crate::shard::append::{Claim, Fill};
use crate::shard::cursor::Place;
use crate::shard::flush::Watermark;
use crate::shard::next::{GROWTH, Next};
use crate::shard::recovery::{self, Found};
use crate::shard::ring::{Ring, SLOTS, Slot};
use crate::shard::segment::{self, Segment};
use crate::shard::tail::Mark;
use crate::shard::{Appended, Log, Tip};

/// How many finished segments may wait to be durable. Whoever needs another segment waits then: the
/// next life has no more to recover than the header of a segment can tell of, with the one that is
/// finished then and those in the ring.
const MAX_UNSETTLED: usize = MAX_RECOVERED - SLOTS - 1;

/// The writing side of a shard.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(super) ring: Ring,
    pub(crate) watermark: Watermark,
    /// Rings when a record is published that somebody sleeps for, when the flag of those who sleep
    /// is left behind with a finished segment, and when the shard has ended.
    bell: Bell,
    pub(super) next: Mutex<Next>,
    /// Signalled when a spare is there, or could not be made.
    pub(super) made: Condvar,
    /// Held by the one who seals a segment.
    pub(super) settling: Mutex<()>,
    /// Somebody waits for the spare. Set and cleared under the lock; looked at without it by the
    /// one who makes the spare: seen late, it only takes a little longer.
    pub(super) hurry: AtomicBool,
}

impl Writer {
    /// The writer of a shard with these segments, of which nothing else is at work.
    pub(crate) fn open(log: &Log, segments: &mut [Found]) -> Result<Self> {
        let next = Next::open(log, segments)?;
        // All of it was made durable, by a seal or the recovery.
        let watermark = Watermark::new(log.shard, next.resting_place());
        let (next, made, hurry) = (Mutex::new(next), Condvar::new(), AtomicBool::new(false));
        let settling = Mutex::new(());
        let (ring, bell) = (Ring::new(), Bell::default());
        Ok(Self { ring, watermark, bell, next, made, settling, hurry })
    }

    /// Notifies `event` when something is published from now on.
    pub(crate) fn listen(&self, event: &Arc<Event>) {
        self.bell.listen(event, || self.ring.active_slot().tail.raise());
    }

    /// Does not notify `event` any more.
    pub(crate) fn forget(&self, event: &Arc<Event>) {
        self.bell.forget(event);
    }

    /// Wakes all who listen.
    #[cold]
    pub(crate) fn wake(&self) {
        self.bell.ring(|| self.ring.active_slot().tail.lower());
    }

    /// If the claim is awaited, wakes all who listen when what it gives back is dropped: behind the
    /// claim, whatever becomes of that, since somebody may wait for what is behind it.
    #[inline]
    pub(crate) fn wake_after(&self, claim: &Claim) -> WakeAtLast<'_> {
        WakeAtLast { writer: self, is_awaited: claim.is_awaited() }
    }

    /// Publishes the one record that was claimed for.
    #[inline]
    pub(crate) fn publish(
        &self,
        claim: Claim,
        key: Key<'_>,
        data_len: usize,
        arrival_ms: u64,
        data: impl Fill,
    ) -> Appended {
        let _wake = self.wake_after(&claim);
        let mut claim = claim;
        let (maintain, end) = (claim.asks_for_maintenance(), claim.end_address());
        let address = claim.publish(key, data_len, arrival_ms, self.watermark.get(), data);
        Appended { address, end, maintain }
    }

    /// Claims `len` bytes for so many frames, in the next segment if need be.
    #[inline]
    pub(crate) fn claim(&self, log: &Log, len: u32, frames: u32) -> Result<Claim> {
        loop {
            if let Some(claim) = self.ring.claim(len, frames) {
                return Ok(claim);
            }
            self.roll(log, u64::from(len))?;
        }
    }

    /// Sees to it that the active segment has room, unless somebody else did.
    #[cold]
    pub(super) fn roll(&self, log: &Log, needed: u64) -> Result<()> {
        // If it fails the shard is poisoned, and says so below.
        let _ = self.settle_to(log, MAX_UNSETTLED);
        let mut next = self.lock_made();
        if self.ring.active_slot().tail.mark().remaining().is_some() {
            return Ok(());
        }
        let rolled = match self.watermark.check() {
            Ok(()) if next.closed => Err(Error::ShardClosed { shard: log.shard }),
            Ok(()) => self.bind_next(log, &mut next, needed),
            Err(poisoned) => Err(poisoned),
        };
        if rolled.is_err() {
            self.ring.forget_late_claims(&next.bound);
        }
        drop(next);
        // Those who sleep have raised the flag of the segment before.
        self.wake();
        rolled
    }

    /// The lock, when nobody makes a spare.
    pub(super) fn lock_made(&self) -> MutexGuard<'_, Next> {
        let mut next = self.next.lock();
        while next.making {
            self.hurry.store(true, Ordering::Relaxed);
            self.made.wait(&mut next);
        }
        self.hurry.store(false, Ordering::Relaxed);
        next
    }

    fn bind_next(&self, log: &Log, next: &mut Next, needed: u64) -> Result<()> {
        while self.ring.is_full(&next.bound) && !self.retire_oldest(log, next) {
            yield_now();
        }
        if let Some((segment, slot)) = self.ring.active(&next.bound) {
            let end = end_at(segment, end_of(slot));
            log.index.ended(segment.header.base, end.address);
            next.pass(segment.limit(), end);
        } else if let Some(found) = &next.paused {
            let (segment, end) = resume(found, &self.watermark)?;
            let offset = segment.offset(end.address);
            (next.populated, next.bound_at) = (offset, Instant::now());
            log.index.add(found.clone(), &segment);
            self.ring.bind(&mut next.bound, segment, offset, end.frames);
            next.paused = None;
            return Ok(());
        } else {
            segment::create_directory(&log.directory)?;
        }
        // What was being written counts from now on, and the next one does not.
        next.room.take(next.exempt)?;
        next.exempt = 0;
        let capacity = next.capacity(log, needed);
        let (mut segment, populated) = match next.spare.take() {
            Some(spare) if spare.0.header.capacity >= capacity => spare,
            too_small => {
                let created = segment::create(&log.directory, next.header(log, capacity));
                let created = created.inspect_err(|_| {
                    // If there was no room for a larger one, this one is still good for others;
                    // unless the larger one had taken its name already.
                    next.spare = too_small.filter(|(spare, _)| {
                        bug("spare_without_name")
                            || recovery::is_still(&log.directory, Some(&spare.header))
                                .unwrap_or(false)
                    });
                })?;
                (created, 0)
            }
        };
        next.exempt = segment.header.capacity;
        segment.first_ordinal = next.ordinal;
        next.size = next.size.saturating_mul(GROWTH);
        next.recovered.clear();
        (next.populated, next.bound_at) = (populated, Instant::now());
        for (base, unused) in next.unused.drain(..) {
            // Its numbers are behind us now; a file that stays does no harm.
            next.room.give_back(log.index.forget(base));
            let _ = fs::remove(&unused);
        }
        let segment = Arc::new(segment);
        log.index.add(Found::new(&segment), &segment);
        self.ring.bind(&mut next.bound, segment, SEGMENT_HEADER_LEN, 0);
        Ok(())
    }

    /// Takes the oldest segment out of the ring if all of it is published.
    pub(super) fn retire_oldest(&self, log: &Log, next: &mut Next) -> bool {
        let Some((segment, slot)) = self.ring.oldest(&next.bound) else { return false };
        let Some(mark) = slot.end() else { return false };
        let end = end_at(segment, mark);
        if !segment.published().1 {
            return false;
        }
        let segment = self.ring.retire(&mut next.bound).expect("it was there");
        log.index.ended(segment.header.base, end.address);
        next.pass(segment.limit(), end);
        next.retired.push((segment, end));
        if self.ring.active(&next.bound).is_none() {
            next.finish_exempt();
        }
        true
    }

    /// Returns when everything below `address`, which was claimed, is durable.
    pub(crate) fn sync_to(&self, address: u64) -> Result<()> {
        let raised = self.watermark.raise_to(address, |from| self.sync_published(from, address));
        if raised.is_err() {
            // Nothing more is acknowledged, whatever its durability.
            let _next = self.next.lock();
            self.ring.end_active();
        }
        raised
    }

    /// Makes durable what is published without a gap, at least up to `address`: how far that is.
    fn sync_published(&self, from: u64, address: u64) -> Result<u64> {
        let segments = {
            let next = self.next.lock();
            let retired = next.retired.iter().map(|(segment, _)| Arc::clone(segment));
            retired.chain(self.ring.segments(&next.bound)).collect::<Vec<_>>()
        };
        let mut durable = from;
        for segment in segments {
            if segment.limit() <= durable {
                continue;
            }
            let start = segment.offset(durable.max(segment.start()));
            let (mut offset, mut ended) = segment.published();
            if bug("ack_own_bytes") {
                offset = offset.max(segment.offset(address.min(segment.limit())));
            }
            while !ended && segment.address(offset) < address {
                // Somebody is writing before us.
                yield_now();
                (offset, ended) = segment.published();
            }
            // With the frame that says where the segment ends, if it is there.
            let pad = match ended && !bug("pad_not_synced") {
                true => HEADER_LEN,
                false => 0,
            };
            segment.sync(start..(offset + pad).min(segment.header.capacity as u32))?;
            durable = if ended { segment.limit() } else { segment.address(offset) };
            if durable >= address {
                break;
            }
        }
        Ok(durable)
    }

    /// Behind all that was claimed.
    pub(crate) fn tip(&self) -> Tip {
        let next = self.next.lock();
        let Some((segment, slot)) = self.ring.active(&next.bound) else {
            let address = next.resting_place();
            return Tip { place: Place { address, segment: None }, frames: next.ordinal };
        };
        let mark = slot.end().unwrap_or_else(|| slot.tail.mark());
        let address = segment.limit() - mark.remaining().unwrap_or(0);
        let frames = segment.first_ordinal + u64::from(mark.frames());
        Tip { place: Place { address, segment: Some(Arc::clone(segment)) }, frames }
    }

    /// Ends the shard: no claim is granted any more, all that were are durable. The address where
    /// it ends.
    pub(crate) fn end(&self, log: &Log) -> Result<u64> {
        let mut next = self.lock_made();
        self.tell_recovered(log, &mut next)?;
        next.closed = true;
        let end = match self.ring.active(&next.bound) {
            Some((segment, slot)) => {
                self.ring.end_active();
                end_at(segment, end_of(slot)).address
            }
            None => next.resting_place(),
        };
        let active = self.ring.active(&next.bound).is_some();
        next.finish_exempt();
        // Nobody needs it any more; one that stays does no harm.
        let _ = next.remove_spare();
        drop(next);
        if active {
            self.sync_to(end)?;
            self.retire_finished(log);
            self.settle(log)?;
        }
        Ok(end)
    }

    /// Sees to it that other processes learn where the segments end that an earlier life left
    /// unfinished, though nothing was put since: the header of a segment tells.
    fn tell_recovered(&self, log: &Log, next: &mut Next) -> Result<()> {
        if next.recovered.is_empty() || self.ring.active(&next.bound).is_some() {
            return Ok(());
        }
        self.bind_next(log, next, 0)
    }

    /// Takes records again after `end`.
    pub(crate) fn reopen(&self) {
        self.next.lock().closed = false;
    }

    /// Leaves the shard in good order: all of it durable, and the next writer can go on. No
    /// producer is at work.
    pub(crate) fn close(&self, log: &Log) -> Result<()> {
        let mut next = self.lock_made();
        next.closed = true;
        next.remove_spare()?;
        // If there is no room for it, the next life finds out once more.
        let _ = self.tell_recovered(log, &mut next);
        let active = self.ring.active(&next.bound).map(|(segment, _)| Arc::clone(segment));
        let Some(segment) = active else {
            drop(next);
            self.settle(log)?;
            return self.watermark.check();
        };
        let Some(mark) = self.ring.pause_active() else {
            drop(next);
            self.retire_finished(log);
            return self.settle(log);
        };
        drop(next);
        self.retire_finished(log);
        self.settle(log)?;
        let end = end_at(&segment, mark);
        self.sync_to(end.address)?;
        let end = End { durable: end.address, ..end };
        segment.seal(&segment.seal_at(SealKind::Paused, end))?;
        let file = fs::open_write(&segment.path)?;
        segment::release_behind(&file, &segment.header, end.address);
        Ok(())
    }
}

/// See [`Writer::wake_after`].
#[derive(Debug)]
pub(crate) struct WakeAtLast<'a> {
    writer: &'a Writer,
    is_awaited: bool,
}

impl Drop for WakeAtLast<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.is_awaited {
            self.writer.wake();
        }
    }
}

/// Goes on in a segment that was left in good order: the segment, and where. From now on it is not
/// in good order any more, durably so before anything is added to it.
fn resume(found: &Found, watermark: &Watermark) -> Result<(Arc<Segment>, End)> {
    let seal = found.seal.expect("a paused segment has a seal");
    let segment = segment::resume(found, seal.end.address)?;
    // If a second attempt succeeded, the old seal could still be on the disk: the next life would
    // go on where this one did, over its records.
    segment
        .seal(&Seal { kind: SealKind::Resumed, ..seal })
        .inspect_err(|error| watermark.poison(error.to_string()))?;
    Ok((Arc::new(segment), seal.end))
}

/// Where the segment of a used-up slot ends; the claim that crossed the end is about to say so.
fn end_of(slot: &Slot) -> Mark {
    loop {
        match slot.end() {
            Some(mark) => return mark,
            None => yield_now(),
        }
    }
}

fn end_at(segment: &Segment, mark: Mark) -> End {
    End {
        address: segment.limit() - mark.remaining().expect("an end lies in its segment"),
        first_ordinal: segment.first_ordinal,
        frames: mark.frames(),
        durable: 0,
    }
}
