//! Where producers claim: the ring of segments that are being written.
//!
//! The segments that are being written stand in a ring of [`SLOTS`] slots. Producers claim at the
//! tail of the active slot; whoever finds it used up rolls to the next one, under a lock, while
//! late claims still arrive at the old one and find nothing. A slot is taken over only when
//! everything in its segment is published, so the holder of an unpublished claim may use the
//! slot's window, and nobody else does.

use std::sync::Arc;

use crate::format::frame::{HEADER_LEN, State, UNIT};
use crate::os::mmap::WindowCell;
use crate::os::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use crate::shard::append::{Claim, Claimed};
use crate::shard::segment::Segment;
use crate::shard::tail::{Grant, Mark, Tail};

/// How many segments of a shard may be written at the same time: the active one, and those in
/// which a slow producer has not published yet. Rolling on waits for the slowest.
/// (Models have fewer, so that they come around.)
pub(crate) const SLOTS: usize = if cfg!(any(loom, shuttle)) { 2 } else { 4 };
/// A producer that crosses a multiple of so many bytes asks for maintenance: sixteen times in a
/// segment, so that what is asked for is done long before it is needed; in a small one less often,
/// but at least once before it is three quarters full.
pub(crate) fn maintenance_distance(capacity: u64) -> u32 {
    let half = 1 << (capacity.ilog2() - 1);
    (capacity as u32 / 16).next_power_of_two().max(64 << 10).min(half)
}

/// The place of a segment that is being written.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) tail: Tail,
    /// These five are stored by the roll before it opens the tail, and loaded by holders of
    /// claims; the tail orders them (see there), so relaxed order suffices.
    window: WindowCell,
    base: AtomicU64,
    capacity: AtomicU64,
    salt: AtomicU32,
    maintain_every: AtomicU32,
    /// Where the segment ends, as a mark plus one; 0 until that is known. Stored with release by
    /// the one claim that crosses the end; loaded with acquire by the roll and by maintenance.
    end: AtomicU64,
}

impl Slot {
    fn new() -> Self {
        Self {
            tail: Tail::shut(),
            window: WindowCell::default(),
            base: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            salt: AtomicU32::new(0),
            maintain_every: AtomicU32::new(0),
            end: AtomicU64::new(0),
        }
    }

    /// Where the segment ends, once a claim has crossed its end.
    pub(crate) fn end(&self) -> Option<Mark> {
        match self.end.load(Ordering::Acquire) {
            0 => None,
            mark => Some(Mark::from_raw(mark - 1)),
        }
    }

    fn set_end(&self, mark: Mark) {
        self.end.store(mark.raw() + 1, Ordering::Release);
    }

    /// Shows a segment to producers, who write to it from `offset` on.
    fn bind(&self, segment: &Segment, offset: u32, frames: u32) {
        self.window.set(segment.map.window());
        self.base.store(segment.header.base, Ordering::Relaxed);
        self.capacity.store(segment.header.capacity, Ordering::Relaxed);
        self.salt.store(segment.header.salt, Ordering::Relaxed);
        let maintain_every = maintenance_distance(segment.header.capacity);
        self.maintain_every.store(maintain_every, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
        self.tail.open(Mark::new(segment.header.capacity, u64::from(offset), frames));
    }

    /// What a claim in this slot got.
    #[inline]
    fn claim(&self, mark: Mark, len: u64) -> Claim {
        let capacity = self.capacity.load(Ordering::Relaxed);
        let remaining = mark.remaining().expect("a claim lies in its segment");
        let offset = (capacity - remaining) as u32;
        let end = offset + len as u32;
        let maintain_every = self.maintain_every.load(Ordering::Relaxed);
        Claim(Claimed {
            window: self.window.get(),
            base: self.base.load(Ordering::Relaxed),
            salt: self.salt.load(Ordering::Relaxed),
            offset,
            end,
            ordinal: mark.frames(),
            maintain: ((offset - 1) ^ (end - 1)) >= maintain_every,
            is_awaited: mark.is_awaited(),
        })
    }
}

/// What a claim of a certain place got.
#[derive(Debug)]
pub(crate) enum ClaimAt {
    /// The place.
    Granted(Claim),
    /// Nothing: the tail is somewhere else.
    Moved,
    /// Nothing: the segment has ended, or has too little left.
    NoRoom,
}

/// The ring of slots.
#[derive(Debug)]
pub(crate) struct Ring {
    slots: [Slot; SLOTS],
    /// Counts the segments; the active one is in the slot with this number modulo [`SLOTS`].
    /// Stored by the roll, with release, after the slot is open; loaded by producers.
    active: AtomicUsize,
}

/// Which segments are in the ring. Whoever has it under its lock is the one who may move the ring
/// on.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// The segment of each slot, until all of it is published.
    segments: [Option<Arc<Segment>>; SLOTS],
    /// The count of the oldest segment that is still in the ring.
    oldest: usize,
}

impl Ring {
    /// A ring without segments: the first claim rolls.
    pub(crate) fn new() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::new()), active: AtomicUsize::new(0) }
    }

    /// Claims `len` bytes, a multiple of 32, for so many frames; none if the active segment has
    /// ended: then somebody has to roll.
    #[inline]
    pub(crate) fn claim(&self, len: u32, frames: u32) -> Option<Claim> {
        let slot = &self.slots[self.active.load(Ordering::Acquire) % SLOTS];
        match slot.tail.claim(len / UNIT, frames) {
            Grant::Place(mark) => Some(slot.claim(mark, u64::from(len))),
            Grant::LastPlace(mark) => {
                self.finish(slot, mark);
                None
            }
            Grant::Beyond => None,
        }
    }

    /// Claims `len` bytes, a multiple of 32, for one frame at `address`, if that is where the tail
    /// of the active segment is.
    pub(crate) fn claim_at(&self, address: u64, len: u32) -> ClaimAt {
        let slot = self.active_slot();
        let mark = slot.tail.mark();
        let Some(remaining) = mark.remaining().filter(|remaining| u64::from(len) <= *remaining)
        else {
            return ClaimAt::NoRoom;
        };
        let limit = slot.base.load(Ordering::Relaxed) + slot.capacity.load(Ordering::Relaxed);
        if limit - remaining != address || !slot.tail.claim_at(mark, len / UNIT) {
            return ClaimAt::Moved;
        }
        let claim = slot.claim(mark, u64::from(len));
        // If the slot has gone to another segment since, with the tail at the same mark, this place
        // is granted there. It is given up.
        if claim.0.address() == address { ClaimAt::Granted(claim) } else { ClaimAt::Moved }
    }

    /// Ends the segment of a slot where the caller's claim says.
    #[cold]
    fn finish(&self, slot: &Slot, mark: Mark) {
        // While there is something to pad, the pad is an unpublished claim, and the slot stays.
        let pad = (mark.remaining() != Some(0)).then(|| slot.claim(mark, u64::from(HEADER_LEN)));
        slot.set_end(mark);
        if let Some(mut pad) = pad {
            pad.0.fill_rest(State::Pad, 0, 0);
        }
    }

    /// The slot that producers claim in.
    pub(crate) fn active_slot(&self) -> &Slot {
        &self.slots[self.active.load(Ordering::Acquire) % SLOTS]
    }

    /// The segment that producers write to, and its slot.
    pub(crate) fn active<'a>(&'a self, bound: &'a Bound) -> Option<(&'a Arc<Segment>, &'a Slot)> {
        let at = self.active.load(Ordering::Relaxed) % SLOTS;
        Some((bound.segments[at].as_ref()?, &self.slots[at]))
    }

    /// The oldest segment that is not finished yet, with its slot.
    pub(crate) fn oldest<'a>(&'a self, bound: &'a Bound) -> Option<(&'a Arc<Segment>, &'a Slot)> {
        let at = bound.oldest % SLOTS;
        Some((bound.segments[at].as_ref()?, &self.slots[at]))
    }

    /// All segments in the ring, oldest first.
    pub(crate) fn segments(&self, bound: &Bound) -> Vec<Arc<Segment>> {
        let active = self.active.load(Ordering::Relaxed);
        (bound.oldest..=active).filter_map(|i| bound.segments[i % SLOTS].clone()).collect()
    }

    /// Takes the oldest segment, all of which is published, out of the ring.
    pub(crate) fn retire(&self, bound: &mut Bound) -> Option<Arc<Segment>> {
        let at = bound.oldest % SLOTS;
        let segment = bound.segments[at].take()?;
        bound.oldest += 1;
        Some(segment)
    }

    /// Whether the next roll needs a slot that is not free.
    pub(crate) fn is_full(&self, bound: &Bound) -> bool {
        bound.segments[(self.active.load(Ordering::Relaxed) + 1) % SLOTS].is_some()
    }

    /// Makes this the active segment, from `offset` on. The one before has ended, and the next
    /// slot is free.
    pub(crate) fn bind(&self, bound: &mut Bound, segment: Arc<Segment>, offset: u32, frames: u32) {
        let next = self.active.load(Ordering::Relaxed) + 1;
        if bound.segments.iter().all(Option::is_none) {
            bound.oldest = next;
        }
        self.slots[next % SLOTS].bind(&segment, offset, frames);
        assert!(bound.segments[next % SLOTS].replace(segment).is_none(), "the slot is free");
        self.active.store(next, Ordering::Release);
    }

    /// Ends the active segment here, so that nothing more is granted until the next `bind`. It has
    /// ended already if a claim has crossed its end; then that claim says where.
    pub(crate) fn end_active(&self) {
        let slot = self.active_slot();
        if let Some(mark) = slot.tail.claim_rest() {
            self.finish(slot, mark);
        }
    }

    /// Claims all the rest of the active segment without ending it: the stream may go on there
    /// when it is opened again. No producer is at work. None if it has ended.
    pub(crate) fn pause_active(&self) -> Option<Mark> {
        self.active_slot().tail.claim_rest()
    }

    /// Forgets the claims that came after the end. They add up in the tail while rolling fails.
    pub(crate) fn forget_late_claims(&self, _bound: &Bound) {
        let slot = self.active_slot();
        if slot.tail.mark().remaining().is_none() {
            slot.tail.claim_rest();
        }
    }
}
