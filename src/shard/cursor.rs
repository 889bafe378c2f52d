//! Reading a shard: from a place, the records there are, and the place behind them.

use std::sync::Arc;

use crate::batch::{Batch, Entry};
use crate::error::Result;
use crate::format::frame::{HEADER_LEN, Header};
use crate::format::segment_header::{SEGMENT_HEADER_LEN, SealKind};
use crate::record::Limit;
use crate::shard::recovery::Found;
use crate::shard::segment::{Segment, Step};
use crate::shard::{Log, Tip};

/// When so many records were found, cache lines are fetched ahead. At the tip, where there are
/// fewer, that would take them away from the producer who is about to write to them.
const FEW: usize = 16;

/// A place in a shard: the next record read has this address or a higher one.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) address: u64,
    /// The segment it was found in, so that the next read has it at hand. A place without one is
    /// looked up, and need not be the beginning of a frame.
    pub(crate) segment: Option<Arc<Segment>>,
}

/// What was read.
pub(crate) struct Reading {
    pub(crate) records: Batch,
    pub(crate) next: Place,
    /// The frames claimed in the shard before `next`, if there are records.
    pub(crate) ordinal: u64,
    /// When the record at `next` arrived, if there is one.
    pub(crate) next_arrival_ms: Option<u64>,
    /// Nothing comes any more from `next` up to here: beyond `next` itself only if its segment has
    /// ended there.
    pub(crate) complete_to: u64,
}

/// A place that is the beginning of a frame, or of one to come.
#[derive(Clone)]
struct Cursor {
    segment: Arc<Segment>,
    offset: u32,
}

impl Log {
    /// Reads from a place on, as much as the limit allows; at least one record if there is one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the first thing at the place is damaged.
    pub(crate) fn read(&self, place: &Place, limit: Limit) -> Result<Reading> {
        let mut records = Batch::new(self.shard);
        let Some(mut cursor) = self.find(place)? else {
            let (next, ordinal) = (place.clone(), self.frames_finished());
            let (next_arrival_ms, complete_to) = (None, place.address);
            return Ok(Reading { records, next, ordinal, next_arrival_ms, complete_to });
        };
        let mut bytes = 0;
        let (mut in_pages, mut has_ended, mut next_arrival_ms) = (false, false, None);
        let mut ordinal = cursor.segment.first_ordinal;
        loop {
            let step = match cursor.segment.record(cursor.offset, records.len() >= FEW) {
                Some((header, len, next)) => Step::Record { header, len, next },
                None => match cursor.segment.step_over_gaps(cursor.offset) {
                    Err(error) if records.is_empty() => return Err(error),
                    // The records before the damage come first.
                    Err(_) => break,
                    Ok((offset, step)) => {
                        cursor.offset = offset;
                        step
                    }
                },
            };
            match step {
                Step::Record { header, len, next } => {
                    ordinal = cursor.segment.first_ordinal + u64::from(header.ordinal);
                    bytes += len as usize;
                    if !records.is_empty()
                        && (records.len() >= limit.max_records || bytes > limit.max_bytes)
                    {
                        next_arrival_ms = Some(header.arrival_ms);
                        break;
                    }
                    if !in_pages {
                        records.push_pages(Arc::clone(&cursor.segment) as _);
                        in_pages = true;
                    }
                    records.push(self.entry(&cursor, header, len)?);
                    ordinal += 1;
                    cursor.offset = next;
                }
                Step::Void { next, .. } => cursor.offset = next,
                Step::End { .. } => match self.index.at_or_above(cursor.segment.limit())? {
                    Some(next) => {
                        ordinal = next.first_ordinal;
                        cursor = Cursor { segment: next, offset: SEGMENT_HEADER_LEN };
                        in_pages = false;
                    }
                    None => {
                        has_ended = true;
                        break;
                    }
                },
                Step::NotYet { .. } | Step::Damaged(_) => break,
            }
        }
        let address = cursor.segment.address(cursor.offset);
        let complete_to = if has_ended { cursor.segment.limit() } else { address };
        let next = Place { address, segment: Some(cursor.segment) };
        Ok(Reading { records, next, ordinal, next_arrival_ms, complete_to })
    }

    #[inline]
    fn entry(&self, cursor: &Cursor, header: Header, len: u32) -> Result<Entry> {
        let start = cursor.offset + HEADER_LEN;
        let key_len = header.key_len;
        let key = cursor.segment.map.bytes(start as usize, usize::from(key_len));
        if !key.is_ascii() && std::str::from_utf8(key).is_err() {
            return Err(cursor.segment.corrupt(cursor.offset, "a partition key is not UTF-8"));
        }
        let data_len = len - u32::from(key_len);
        let (address, arrival_ms) = (header.address, header.arrival_ms);
        Ok(Entry { address, arrival_ms, start, data_len, key_len, pages: 0 })
    }

    /// The first frame at or behind a place; none if there is no segment there yet.
    fn find(&self, place: &Place) -> Result<Option<Cursor>> {
        if let Some(segment) = &place.segment {
            let offset = segment.offset(place.address);
            return Ok(Some(Cursor { segment: Arc::clone(segment), offset }));
        }
        let Some(segment) = self.index.at_or_above(place.address)? else { return Ok(None) };
        let start = segment.start();
        if place.address <= start {
            return Ok(Some(Cursor { segment, offset: SEGMENT_HEADER_LEN }));
        }
        let offset = segment.offset(place.address.next_multiple_of(32).min(segment.limit()));
        if matches!(segment.step(offset), Step::Record { .. }) || segment.published().0 == offset {
            return Ok(Some(Cursor { segment, offset }));
        }
        // No record begins there: look for the first one behind it.
        let mut at = SEGMENT_HEADER_LEN;
        while segment.address(at) < place.address {
            match segment.step_over_gaps(at)? {
                (at_or_behind, _) if segment.address(at_or_behind) >= place.address => {
                    at = at_or_behind;
                }
                (_, Step::Record { next, .. } | Step::Void { next, .. }) => at = next,
                // The place is beyond the tip, or behind the last record of the segment.
                (_, Step::End { .. }) => at = segment.header.capacity as u32,
                (_, Step::NotYet { .. } | Step::Damaged(_)) => return Ok(None),
            }
        }
        Ok(Some(Cursor { segment, offset: at }))
    }

    /// The first record, in the order of numbers, that arrived at `time_ms` or later; the place
    /// behind the last one if there is none.
    pub(crate) fn find_time(&self, time_ms: u64) -> Result<Place> {
        let (start, _) = self.horizon_place()?;
        let mut place = Place { address: start, segment: None };
        for found in self.index.from(start) {
            let finished = found.end.is_some();
            // A seal of another kind knows nothing of what came behind it.
            let full = found.seal.filter(|seal| seal.kind == SealKind::Full);
            if finished && full.is_some_and(|seal| seal.newest_arrival_ms < time_ms) {
                continue;
            }
            place = Place { address: start.max(found.header.base), segment: None };
            break;
        }
        loop {
            let reading = self.read(&place, Limit::default())?;
            let late = reading.records.iter().find(|record| record.arrival_ms() >= time_ms);
            if let Some(record) = late {
                let address = record.sequence_number().address().expect("a local number");
                return Ok(Place { address, segment: None });
            }
            if reading.records.is_empty() {
                return Ok(reading.next);
            }
            place = reading.next;
        }
    }

    /// The frames claimed in all segments but those that are still written.
    pub(super) fn frames_finished(&self) -> u64 {
        let segments = self.index.from(u64::MAX);
        let Some(last) = segments.last() else { return self.horizon.trimmed().frames };
        let end = last.end.or(last.seal.map(|seal| seal.end));
        end.map_or(0, |end| end.first_ordinal + u64::from(end.frames))
    }

    /// The tip as far as it is known without a look at frames.
    pub(crate) fn last_known_tip(&self) -> Result<Tip> {
        let segments = self.index.from(0);
        let finished = segments.iter().rev().find(|found| found.end.is_some());
        let start = self.start.max(self.horizon.trimmed().base);
        let address = finished.map_or(start, Found::limit);
        Ok(Tip { place: Place { address, segment: None }, frames: self.frames_finished() })
    }

    /// Moves a tip on over what was published behind it.
    pub(crate) fn advance(&self, tip: &mut Tip) -> Result<()> {
        loop {
            let Some(segment) = self.index.at_or_above(tip.place.address)? else {
                return Ok(());
            };
            let offset = segment.offset(tip.place.address.max(segment.start()));
            let mut frames = tip.frames;
            let (behind, ended) = segment.walk(offset, |_, header| {
                frames = segment.first_ordinal + u64::from(header.ordinal) + 1;
            });
            let ended = ended || segment.end.get().is_some();
            let address = segment.address(behind);
            *tip = Tip { place: Place { address, segment: Some(Arc::clone(&segment)) }, frames };
            let next = self.index.at_or_above(segment.limit())?;
            if ended {
                self.index.ended(segment.header.base, address);
            }
            match next.filter(|_| ended) {
                Some(next) => tip.place = Place { address: next.start(), segment: Some(next) },
                None => return Ok(()),
            }
        }
    }
}
