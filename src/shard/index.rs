//! Which segments a shard has. Segments that nobody reads are known, but not mapped.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use crate::error::Result;
use crate::format::segment_header::{End, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::os::sync::Mutex;
use crate::shard::recovery::Found;
use crate::shard::segment::{Access, Segment};

/// A segment that is mapped when somebody reads it.
#[derive(Debug)]
struct Entry {
    found: Found,
    mapped: Weak<Segment>,
    /// Kept mapped as long as it is written to.
    kept: Option<Arc<Segment>>,
    /// Where it ends, if it does and is not finished yet.
    ended_at: Option<u64>,
    /// What all segments before this one store, in bytes, those that are not known any more too.
    stored_before: u64,
}

/// The segments of a shard by their base.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: Mutex<BTreeMap<u64, Entry>>,
    access: Access,
}

impl Index {
    /// An index of no segments, whose finished ones will be read like this.
    pub(crate) fn new(access: Access) -> Self {
        Self { segments: Mutex::default(), access }
    }

    /// Knows these segments from now on, and no others.
    pub(crate) fn update(&self, segments: Vec<Found>) {
        let mut index = self.segments.lock();
        let mut old = std::mem::take(&mut *index);
        for found in segments {
            let base = found.header.base;
            let entry = match old.remove(&base) {
                Some(entry)
                    if entry.found.end == found.end
                        && entry.found.first_ordinal == found.first_ordinal
                        && entry.found.header == found.header =>
                {
                    entry
                }
                // A map that knows less is not handed out again.
                _ => Entry::new(found, Weak::new(), None),
            };
            index.insert(base, entry);
        }
        count_stored(&mut index, 0);
    }

    /// Adds a segment that is being written.
    pub(crate) fn add(&self, found: Found, segment: &Arc<Segment>) {
        let (base, kept) = (segment.header.base, Some(Arc::clone(segment)));
        let mut index = self.segments.lock();
        index.insert(base, Entry::new(found, Arc::downgrade(segment), kept));
        count_stored(&mut index, base);
    }

    /// Does not know a segment any more, in which nothing is: how long it was.
    pub(crate) fn forget(&self, base: u64) -> u64 {
        let mut index = self.segments.lock();
        let forgotten = index.remove(&base);
        count_stored(&mut index, base);
        forgotten.map_or(0, |entry| entry.found.header.capacity)
    }

    /// Knows where a segment ends that is not finished yet.
    pub(crate) fn ended(&self, base: u64, address: u64) {
        self.change(base, |entry| entry.ended_at = Some(address));
    }

    /// Does not keep a segment mapped any more; it is finished, as `found` says.
    pub(crate) fn release(&self, base: u64, update: impl FnOnce(&mut Found)) {
        self.change(base, |entry| {
            update(&mut entry.found);
            entry.kept = None;
        });
    }

    /// Changes what is known of a segment.
    fn change(&self, base: u64, change: impl FnOnce(&mut Entry)) {
        let mut index = self.segments.lock();
        let Some(entry) = index.get_mut(&base) else { return };
        let before = entry.stored_below(u64::MAX);
        change(entry);
        if entry.stored_below(u64::MAX) != before {
            count_stored(&mut index, base);
        }
    }

    /// The segment that has `address`, or the first one above it.
    pub(crate) fn at_or_above(&self, address: u64) -> Result<Option<Arc<Segment>>> {
        let mut index = self.segments.lock();
        loop {
            let below = index.range(..=address).next_back().map(|(base, entry)| (*base, entry));
            let base = match below {
                Some((base, entry)) if address < base + entry.found.header.capacity => base,
                _ => match index.range(address..).next() {
                    Some((base, _)) => *base,
                    None => return Ok(None),
                },
            };
            let entry = index.get_mut(&base).expect("it was just found");
            match entry.segment(self.access) {
                // It was never used, and the writer has removed it.
                Err(error) if entry.found.may_be_gone() && error.is_not_found() => {
                    index.remove(&base);
                    count_stored(&mut index, base);
                }
                segment => return segment.map(Some),
            }
        }
    }

    /// What is known of the segment that has `address`, or of the first one above it.
    pub(crate) fn known_at_or_above(&self, address: u64) -> Option<Found> {
        let index = self.segments.lock();
        let has = |entry: &&Entry| address < entry.found.limit();
        let below = index.range(..=address).next_back().map(|(_, entry)| entry).filter(has);
        let found = below.or_else(|| index.range(address..).next().map(|(_, entry)| entry));
        found.map(|entry| entry.found.clone())
    }

    /// Does not know the segments below an address any more: what was known of them, oldest first,
    /// and where they are mapped.
    pub(crate) fn forget_below(&self, address: u64) -> Vec<(Found, Option<Weak<Segment>>)> {
        let mut index = self.segments.lock();
        let above = index.split_off(&address);
        let below = std::mem::replace(&mut *index, above);
        let is_mapped = |mapped: &Weak<Segment>| mapped.strong_count() > 0;
        let below = below.into_values();
        below.map(|entry| (entry.found, Some(entry.mapped).filter(is_mapped))).collect()
    }

    /// Whoever has this segment mapped learns that it ends here.
    pub(crate) fn finish(&self, base: u64, end: End) {
        self.change(base, |entry| {
            entry.found.end = Some(end);
            if let Some(segment) = entry.mapped.upgrade() {
                let _ = segment.end.set(end);
            }
        });
    }

    /// The bases of all segments, and the header of the last one.
    pub(crate) fn bases(&self) -> (Vec<u64>, Option<SegmentHeader>) {
        let index = self.segments.lock();
        let last = index.values().next_back().map(|entry| entry.found.header.clone());
        (index.keys().copied().collect(), last)
    }

    /// What the shard stores from one address up to another, in bytes. It takes no longer for many
    /// segments in between than for none.
    pub(crate) fn bytes_between(&self, address: u64, tip: u64) -> u64 {
        let index = self.segments.lock();
        let before = |address: u64| match index.range(..=address).next_back() {
            Some((_, entry)) => entry.stored_before + entry.stored_below(address),
            None => index.values().next().map_or(0, |entry| entry.stored_before),
        };
        before(tip).saturating_sub(before(address))
    }

    /// How many bytes the files of the segments have.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.bytes_below(u64::MAX)
    }

    /// How many bytes the files of the segments below an address have.
    pub(crate) fn bytes_below(&self, address: u64) -> u64 {
        let index = self.segments.lock();
        index.range(..address).map(|(_, entry)| entry.found.header.capacity).sum()
    }

    /// What is known of each segment from the one that has `address` on.
    pub(crate) fn from(&self, address: u64) -> Vec<Found> {
        let index = self.segments.lock();
        let first = index.range(..=address).next_back().map_or(0, |(base, _)| *base);
        index.range(first..).map(|(_, entry)| entry.found.clone()).collect()
    }
}

/// Counts anew what is stored before each segment from the one at `base` on.
fn count_stored(index: &mut BTreeMap<u64, Entry>, base: u64) {
    let before = index.range(..base).next_back();
    // Of the first one it stays what it was: those before it may have been forgotten.
    let first = index.range(base..).next().map_or(0, |(_, entry)| entry.stored_before);
    let mut stored =
        before.map_or(first, |(_, entry)| entry.stored_before + entry.stored_below(u64::MAX));
    for (_, entry) in index.range_mut(base..) {
        entry.stored_before = stored;
        stored += entry.stored_below(u64::MAX);
    }
}

impl Entry {
    fn new(found: Found, mapped: Weak<Segment>, kept: Option<Arc<Segment>>) -> Self {
        Self { found, mapped, kept, ended_at: None, stored_before: 0 }
    }

    /// What the segment stores below an address, in bytes.
    fn stored_below(&self, address: u64) -> u64 {
        let start = self.found.header.base + u64::from(SEGMENT_HEADER_LEN);
        let end = self.found.end.map(|end| end.address).or(self.ended_at);
        let end = end.unwrap_or(self.found.header.base + self.found.header.capacity);
        end.min(address).saturating_sub(start)
    }

    fn segment(&mut self, access: Access) -> Result<Arc<Segment>> {
        if let Some(segment) = self.mapped.upgrade() {
            return Ok(segment);
        }
        // Of one that is being written, a copy would not follow.
        let access = if self.found.end.is_some() { access } else { Access::Map };
        let segment = Arc::new(Segment::read(&self.found, self.found.fate, access)?);
        self.mapped = Arc::downgrade(&segment);
        Ok(segment)
    }
}
