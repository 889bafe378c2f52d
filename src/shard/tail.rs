//! The tail of a segment: one word that grants place and ordinal together.
//!
//! The word holds `frames << 32 | units`. `units` counts 32-byte units up to [`END`], which is the
//! same for every segment: a segment of n units begins at `END - n`. Whether a claim was granted
//! therefore shows in the claim alone, before anything about the segment is looked at; so a tail
//! can be taken over by the next segment while late claims still arrive at it. What they get is
//! either beyond the end, or a grant in the next segment, which is as good as any.
//!
//! The highest bit says that somebody sleeps until something is published here. A claim learns it
//! with its place, so publishing needs no look at sleepers, and no fence before that look: who goes
//! to sleep raises the flag first and looks then how far places were claimed. Either that is no
//! further than what it has seen, and then every later claim finds the flag and wakes it; or a
//! place is claimed that is not published yet, whose holder may not have seen the flag, and then it
//! does not sleep for long.

use crossbeam_utils::CachePadded;

use crate::format::frame::UNIT;
use crate::os::sync::atomic::{AtomicU64, Ordering};
use crate::seeded::bug;

/// Where the units of every segment end. Claims beyond it add up to 2^31 units more before they
/// could be mistaken; each thread adds at most one record's before it waits for the next segment.
const END: u64 = 1 << 31;
const UNITS: u64 = (1 << 32) - 1;
const AWAITED: u64 = 1 << 63;

/// A state of the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Mark {
    /// The mark of a segment of `capacity` bytes in which the next frame begins at `offset` and
    /// gets this ordinal.
    pub(crate) fn new(capacity: u64, offset: u64, frames: u32) -> Self {
        Self(u64::from(frames) << 32 | (END - (capacity - offset) / u64::from(UNIT)))
    }

    /// The mark as a number, to be stored.
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    /// The mark that was stored.
    pub(crate) fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The mark of a tail that grants nothing.
    const SHUT: Self = Self(END + 1);

    /// How many frames were claimed in the segment up to here.
    pub(crate) fn frames(self) -> u32 {
        ((self.0 & !AWAITED) >> 32) as u32
    }

    /// Whether somebody sleeps until something is published.
    #[inline]
    pub(crate) fn is_awaited(self) -> bool {
        self.0 & AWAITED != 0
    }

    /// The bytes from here to the segment's end; none beyond it.
    pub(crate) fn remaining(self) -> Option<u64> {
        Some(END.checked_sub(self.0 & UNITS)? * u64::from(UNIT))
    }
}

/// What a claim got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// The place from this mark on.
    Place(Mark),
    /// Too little: the segment ends at this mark, and this claim alone is told so.
    LastPlace(Mark),
    /// Nothing: the segment has ended before.
    Beyond,
}

/// Where producers claim places in a segment.
///
/// Written by every producer, with a read-modify-write; by the one who rolls, with a swap while it
/// is beyond the end; by the one who shuts, with a swap; and by those who raise and lower the flag,
/// with a read-modify-write, so that it has a place among the claims. Claims acquire what the roll
/// has released: the window, base and salt of the segment. It has a cache line of its own, because
/// every claim takes the line away from all other cores.
#[derive(Debug)]
pub(crate) struct Tail(CachePadded<AtomicU64>);

impl Tail {
    /// A tail that grants nothing yet.
    pub(crate) fn shut() -> Self {
        Self(CachePadded::new(AtomicU64::new(Mark::SHUT.0)))
    }

    /// Claims `units` for `frames`, wait-free.
    #[inline]
    pub(crate) fn claim(&self, units: u32, frames: u32) -> Grant {
        let claim = u64::from(frames) << 32 | u64::from(units);
        let mark = if bug("claim_in_two_steps") {
            let mark = self.mark();
            self.0.store(mark.0 + claim, Ordering::Release);
            mark
        } else {
            Mark(self.0.fetch_add(claim, Ordering::AcqRel))
        };
        let start = mark.0 & UNITS;
        if start + u64::from(units) <= END {
            Grant::Place(mark)
        } else if start <= END {
            Grant::LastPlace(mark)
        } else {
            Grant::Beyond
        }
    }

    /// Claims `units` for one frame at this mark, which lies in the segment with all of them; false
    /// if the tail is not there any more.
    pub(crate) fn claim_at(&self, mark: Mark, units: u32) -> bool {
        debug_assert!((mark.0 & UNITS) + u64::from(units) <= END);
        let claimed = mark.0 + (1 << 32 | u64::from(units));
        self.0.compare_exchange(mark.0, claimed, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Claims all the rest: the mark where the segment ends, unless it has ended before.
    pub(crate) fn claim_rest(&self) -> Option<Mark> {
        let mark = Mark(self.0.swap(Mark::SHUT.0, Ordering::AcqRel));
        mark.remaining().map(|_| mark)
    }

    /// Grants places from this mark on. The tail is beyond the end of its segment, and everything
    /// that a claim will look at is stored before.
    pub(crate) fn open(&self, mark: Mark) {
        debug_assert!(self.mark().remaining().is_none(), "no claim is lost");
        self.0.swap(mark.0, Ordering::AcqRel);
    }

    /// Has every claim from now on know that somebody sleeps.
    pub(crate) fn raise(&self) {
        self.0.fetch_or(AWAITED, Ordering::AcqRel);
    }

    /// Nobody sleeps any more.
    pub(crate) fn lower(&self) {
        self.0.fetch_and(!AWAITED, Ordering::AcqRel);
    }

    /// Where the tail is at this moment.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(capacity: u64) -> Tail {
        let tail = Tail::shut();
        tail.open(Mark::new(capacity, 0, 0));
        tail
    }

    #[test]
    fn places_follow_each_other_and_ordinals_count_the_frames() {
        let tail = tail(1024);
        assert_eq!(tail.claim(4, 1), Grant::Place(Mark::new(1024, 0, 0)));
        assert_eq!(tail.claim(8, 2), Grant::Place(Mark::new(1024, 128, 1)));
        assert_eq!(tail.mark(), Mark::new(1024, 384, 3));
        assert_eq!(tail.mark().remaining(), Some(640));
    }

    #[test]
    fn a_place_is_claimed_only_if_the_tail_is_there() {
        let tail = tail(1024);
        let start = tail.mark();
        assert!(tail.claim_at(start, 4));
        assert_eq!(tail.mark(), Mark::new(1024, 128, 1));
        assert!(!tail.claim_at(start, 4));
        assert_eq!(tail.mark(), Mark::new(1024, 128, 1));
    }

    #[test]
    fn exactly_one_claim_is_told_where_the_segment_ends() {
        let tail = tail(128);
        assert_eq!(tail.claim(3, 1), Grant::Place(Mark::new(128, 0, 0)));
        assert_eq!(tail.claim(2, 1), Grant::LastPlace(Mark::new(128, 96, 1)));
        assert_eq!(tail.claim(1, 1), Grant::Beyond);
        assert_eq!(tail.claim_rest(), None);
    }

    #[test]
    fn a_segment_that_is_exactly_full_ends_with_the_next_claim() {
        let tail = tail(128);
        assert_eq!(tail.claim(4, 1), Grant::Place(Mark::new(128, 0, 0)));
        assert_eq!(tail.mark().remaining(), Some(0));
        assert_eq!(tail.claim(1, 1), Grant::LastPlace(Mark::new(128, 128, 1)));
    }

    #[test]
    fn claims_know_that_they_are_awaited_until_the_flag_is_lowered() {
        let tail = tail(1024);
        let claim = || match tail.claim(4, 1) {
            Grant::Place(mark) => (mark.is_awaited(), mark.frames(), mark.remaining()),
            grant => panic!("{grant:?}"),
        };
        assert_eq!(claim(), (false, 0, Some(1024)));
        tail.raise();
        assert_eq!(claim(), (true, 1, Some(896)));
        assert_eq!(claim(), (true, 2, Some(768)));
        tail.lower();
        assert_eq!(claim(), (false, 3, Some(640)));
    }

    #[test]
    fn a_tail_without_its_rest_grants_nothing() {
        let tail = tail(128);
        assert_eq!(tail.claim_rest(), Some(Mark::new(128, 0, 0)));
        assert_eq!(tail.claim(1, 1), Grant::Beyond);
    }
}
