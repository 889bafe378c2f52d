//! Where a shard begins by now: what retention has taken away, and what the clock takes away.
//!
//! **By age.** A record may go when all before it may, and it arrived longer ago than the limit. So
//! a record that stands behind a newer one waits for it, whatever its own time says: a clock that
//! stepped back made it look older than it is. A record that arrived later than the clock says now
//! tells nothing of its age; it goes with the next one behind it that does. So a clock that was
//! ahead for a while does not hold up the records of that while for ever.
//!
//! **In this order** something goes: the manifest says so, durably; the horizon in memory is
//! raised; the index forgets the segments; their files are removed, the oldest first. Whoever finds
//! a segment missing therefore finds the horizon raised when it looks behind.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::Result;
use crate::format::manifest::Trimmed;
use crate::format::segment_header::{SEGMENT_HEADER_LEN, SealKind};
use crate::os::fs;
use crate::shard::Log;
use crate::shard::recovery::Found;
use crate::shard::segment::{Segment, Step};

/// The oldest end of a shard; it only rises.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    trimmed: Mutex<Trimmed>,
    /// The number in `trimmed`, for those who only ask whether they are above. Stored under the
    /// lock, with release; loaded with acquire by readers behind their reading.
    through: AtomicU64,
    /// Before this time no further record gets too old, unless the clock steps back meanwhile: then
    /// it is noticed later. Stored by whoever has looked; nothing depends on it but when somebody
    /// looks again, so relaxed order suffices.
    settled_until_ms: AtomicU64,
    /// Segments that were removed while somebody had them mapped.
    unlinked: Mutex<Vec<Weak<Segment>>>,
}

/// What a look at the ages of the records has found.
struct Aged {
    /// Records up to and with this number are too old.
    through: u64,
    /// Before this time no further one gets too old.
    settled_until_ms: u64,
}

impl Horizon {
    /// What is gone.
    pub(crate) fn trimmed(&self) -> Trimmed {
        *self.trimmed.lock()
    }

    /// Records up to and with this number are gone.
    #[inline]
    pub(crate) fn through(&self) -> u64 {
        self.through.load(Ordering::Acquire)
    }

    /// All of this is gone, and what was before. Whether segments are among it that were not.
    pub(crate) fn raise(&self, to: Trimmed) -> bool {
        let mut trimmed = self.trimmed.lock();
        if to.through > trimmed.through {
            trimmed.through = to.through;
            self.through.store(trimmed.through, Ordering::Release);
            // What is the oldest now may be too old, though what was before it was not.
            self.unsettle();
        }
        let is_higher = to.base > trimmed.base;
        if is_higher {
            (trimmed.base, trimmed.frames) = (to.base, to.frames);
        }
        is_higher
    }

    /// Notes what a look has found that began when records up to and with `before` were gone.
    fn settle(&self, aged: &Aged, before: u64) {
        let mut trimmed = self.trimmed.lock();
        let is_news = trimmed.through != before;
        trimmed.through = trimmed.through.max(aged.through);
        self.through.store(trimmed.through, Ordering::Release);
        // If more is gone since, the next one looks again.
        if !is_news {
            self.settled_until_ms.store(aged.settled_until_ms, Ordering::Relaxed);
        }
    }

    /// Has the ages of the records looked at again.
    pub(crate) fn unsettle(&self) {
        self.settled_until_ms.store(0, Ordering::Relaxed);
    }

    /// How many bytes of removed segments are still mapped by somebody who reads them.
    pub(crate) fn unlinked_bytes(&self) -> u64 {
        let mut unlinked = self.unlinked.lock();
        unlinked.retain(|segment| segment.strong_count() > 0);
        unlinked.iter().filter_map(Weak::upgrade).map(|segment| segment.header.capacity).sum()
    }
}

impl Log {
    /// The oldest place that is left, and how many frames were claimed before it.
    pub(crate) fn horizon_place(&self) -> Result<(u64, u64)> {
        let Trimmed { through, base, frames } = self.horizon.trimmed();
        let start = base.max(self.start);
        // No record has the number where a segment begins.
        if through <= start { Ok((start, frames)) } else { self.place_behind(through) }
    }

    /// The place behind a number, and how many frames were claimed before it.
    pub(crate) fn place_behind(&self, number: u64) -> Result<(u64, u64)> {
        let Some(segment) = self.index.at_or_above(number)? else {
            return Ok((number + 1, self.frames_finished()));
        };
        let first = segment.first_ordinal;
        if number < segment.start() {
            return Ok((segment.header.base, first));
        }
        if number.is_multiple_of(32)
            && let Step::Record { header, next, .. } = segment.step(segment.offset(number))
        {
            return Ok((segment.address(next), first + u64::from(header.ordinal) + 1));
        }
        let (mut at, mut frames) = (SEGMENT_HEADER_LEN, 0);
        loop {
            let (found, step) = segment.step_over_gaps(at)?;
            let (header, next) = match step {
                Step::Record { header, next, .. } | Step::Void { header, next } => (header, next),
                Step::End { .. } => {
                    let frames = segment.end.get().map_or(frames, |end| end.frames);
                    return Ok((segment.limit(), first + u64::from(frames)));
                }
                Step::NotYet { .. } | Step::Damaged(_) => {
                    return Ok((segment.address(at), first + u64::from(frames)));
                }
            };
            if segment.address(found) > number {
                return Ok((segment.address(found), first + u64::from(header.ordinal)));
            }
            frames = match step {
                Step::Void { .. } => header.frames_behind(),
                _ => header.ordinal + 1,
            };
            at = next;
        }
    }

    /// Lets go of the records that are too old by now, as far as this process knows.
    pub(crate) fn expire(&self, now_ms: u64, age_ms: u64) -> Result<()> {
        if now_ms > self.horizon.settled_until_ms.load(Ordering::Relaxed) {
            let before = self.horizon.through();
            let aged = self.look_at_ages(now_ms, age_ms)?;
            self.horizon.settle(&aged, before);
        }
        Ok(())
    }

    /// Records up to and with this number are too old.
    pub(crate) fn aged_through(&self, now_ms: u64, age_ms: u64) -> Result<u64> {
        Ok(self.look_at_ages(now_ms, age_ms)?.through)
    }

    fn look_at_ages(&self, now_ms: u64, age_ms: u64) -> Result<Aged> {
        let oldest_ms = now_ms.saturating_sub(age_ms);
        let (mut address, _) = self.horizon_place()?;
        let settled_until_ms = now_ms.saturating_add(age_ms);
        let mut aged = Aged { through: self.horizon.through(), settled_until_ms };
        while let Some(found) = self.index.known_at_or_above(address) {
            let is_old = |found: &Found| {
                let seal = found.seal.filter(|seal| seal.kind == SealKind::Full);
                seal.is_some_and(|seal| seal.newest_arrival_ms < oldest_ms)
            };
            if is_old(&found) {
                // No need to look at its records.
                aged.through = self.last_record(&found)?.unwrap_or(aged.through);
                address = found.limit();
                continue;
            }
            let Some(segment) = self.index.at_or_above(address)? else { break };
            match segment.age(address, &mut aged, now_ms, oldest_ms) {
                Some(next) => address = next,
                None => break,
            }
        }
        Ok(aged)
    }

    /// What would be gone if records up to and with this number were.
    pub(crate) fn trimmed_through(&self, number: u64) -> Result<Trimmed> {
        let mut trimmed = self.horizon.trimmed();
        trimmed.through = trimmed.through.max(number);
        loop {
            let next = self.index.known_at_or_above(trimmed.base.max(self.start));
            let Some((found, end)) = next.and_then(|found| Some((found.clone(), found.end?)))
            else {
                return Ok(trimmed);
            };
            let start = found.header.base + u64::from(SEGMENT_HEADER_LEN);
            if trimmed.through < start {
                return Ok(trimmed);
            }
            if trimmed.through < end.address {
                let (next, _) = self.place_behind(trimmed.through)?;
                let behind = self.record_at_or_behind(&found, next)?;
                if behind.is_some() {
                    return Ok(trimmed);
                }
            }
            trimmed = Trimmed { through: trimmed.through, ..found.gone(trimmed) };
        }
    }

    /// What would be gone if this segment were, which is finished, and the first that is left.
    pub(crate) fn trimmed_with(&self, trimmed: Trimmed, found: &Found) -> Result<Trimmed> {
        let last = self.last_record(found)?.unwrap_or(0);
        Ok(Trimmed { through: trimmed.through.max(last), ..found.gone(trimmed) })
    }

    /// When the records of a finished segment arrived: the latest one or, if nobody has said which
    /// that is, the first.
    pub(crate) fn arrival_ms(&self, found: &Found) -> Result<u64> {
        if let Some(seal) = found.seal.filter(|seal| seal.kind == SealKind::Full) {
            return Ok(seal.newest_arrival_ms);
        }
        let Some(segment) = self.index.at_or_above(found.header.base)? else { return Ok(0) };
        match segment.step_over_gaps(SEGMENT_HEADER_LEN)?.1 {
            Step::Record { header, .. } => Ok(header.arrival_ms),
            _ => Ok(0),
        }
    }

    /// The number of the last record in a finished segment, if there is one.
    pub(crate) fn last_record(&self, found: &Found) -> Result<Option<u64>> {
        let segment = self.index.at_or_above(found.header.base)?;
        let segment = segment.filter(|segment| segment.header.base == found.header.base);
        Ok(segment.and_then(|segment| Some(segment.records_backward().next()?.address)))
    }

    /// The first record of a segment from this address on, and the address behind it.
    fn record_at_or_behind(&self, found: &Found, address: u64) -> Result<Option<(u64, u64)>> {
        let segment = self.index.at_or_above(address)?;
        let segment = segment.filter(|segment| segment.header.base == found.header.base);
        let Some(segment) = segment else { return Ok(None) };
        let mut offset = segment.offset(address.max(segment.start()).next_multiple_of(32));
        loop {
            offset = match segment.step_over_gaps(offset)?.1 {
                Step::Record { header, next, .. } => {
                    return Ok(Some((header.address, segment.address(next))));
                }
                Step::Void { next, .. } => next,
                Step::End { .. } | Step::NotYet { .. } | Step::Damaged(_) => return Ok(None),
            };
        }
    }

    /// If there is no record behind this number, and the segment that has it is not finished: the
    /// address where that goes on.
    pub(crate) fn idle_behind(&self, number: u64) -> Result<Option<u64>> {
        let (address, _) = self.place_behind(number)?;
        let Some(segment) = self.index.at_or_above(address)? else { return Ok(None) };
        let mut offset = segment.offset(address.max(segment.start()));
        loop {
            offset = match segment.step_over_gaps(offset)?.1 {
                Step::Void { next, .. } => next,
                Step::NotYet { .. } if offset > SEGMENT_HEADER_LEN => {
                    return Ok(Some(segment.address(offset)));
                }
                _ => return Ok(None),
            };
        }
    }

    /// Does not know the segments below an address any more: which ones those were.
    pub(crate) fn forget_below(&self, base: u64) -> Vec<Found> {
        let mut unlinked = self.horizon.unlinked.lock();
        let forgotten = self.index.forget_below(base).into_iter().map(|(found, mapped)| {
            unlinked.extend(mapped);
            found
        });
        forgotten.collect()
    }

    /// Removes the segments below an address, which the manifest says are gone.
    ///
    /// # Errors
    /// What the system says; the files that are left are removed when the stream is opened.
    pub(crate) fn remove_below(&self, base: u64) -> Result<()> {
        let forgotten = self.forget_below(base);
        self.room.give_back(forgotten.iter().map(|found| found.header.capacity).sum());
        forgotten.iter().try_for_each(|found| fs::remove(&found.path))
    }
}

impl Segment {
    /// Looks at the ages of the records from an address on. The address behind the segment if that
    /// was all of it and there may be more.
    fn age(&self, from: u64, aged: &mut Aged, now_ms: u64, oldest_ms: u64) -> Option<u64> {
        let mut offset = self.offset(from.max(self.start()).next_multiple_of(32));
        loop {
            offset = match self.step_over_gaps(offset) {
                Ok((_, Step::Record { header, next, .. })) => {
                    let arrival_ms = header.arrival_ms;
                    if arrival_ms < oldest_ms {
                        aged.through = header.address;
                    } else if arrival_ms <= now_ms {
                        aged.settled_until_ms = arrival_ms.saturating_add(now_ms - oldest_ms);
                        return None;
                    }
                    next
                }
                Ok((_, Step::Void { next, .. })) => next,
                Ok((_, Step::End { .. })) => return Some(self.limit()),
                Ok((_, Step::NotYet { .. } | Step::Damaged(_))) => return None,
                // What is damaged stays until all of its segment is too old.
                Err(_) => {
                    aged.settled_until_ms = now_ms;
                    return None;
                }
            };
        }
    }
}

impl Found {
    /// The address behind the segment.
    pub(crate) fn limit(&self) -> u64 {
        self.header.base + self.header.capacity
    }

    /// What is gone without this segment, which is finished.
    fn gone(&self, before: Trimmed) -> Trimmed {
        let end = self.end.expect("it is finished");
        let frames = end.first_ordinal + u64::from(end.frames);
        Trimmed { through: before.through, base: self.limit(), frames }
    }
}
