//! Verifying one segment: a pure function over the bytes of its file.
//!
//! Every byte of a segment means something or is zero, so there is none that can change unnoticed.
//! What a finding is depends on how the segment was left:
//!
//! | segment | a frame that is not whole | behind the end |
//! |---|---|---|
//! | sealed (full or paused) | corrupt | zeros, or it is damage |
//! | told of by a later one | below the durable mark corrupt, else a hole or lost | remains |
//! | neither: being written or cut off | the same, with the marks that its frames carry | remains |

use std::borrow::Cow;
use std::ops::Range;

use crate::format::frame::{HEADER_LEN, State, UNIT, Word};
use crate::format::manifest::MAX_SEGMENT_BYTES;
use crate::format::search::{Frame, Image, Search};
use crate::format::segment_header::{
    End, SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SealKind, SegmentHeader,
};
use crate::format::u32_at;
use crate::verify::finding::FindingKind;

/// So many flaws of a segment are listed; the others are counted.
const MAX_LISTED: usize = 1000;

/// Which segment a file has to be, as its place says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// None if the manifest does not say.
    pub(crate) stream: Option<u64>,
    pub(crate) shard: u32,
    pub(crate) base: u64,
}

/// What is known of a segment from later ones.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    /// Where it ends, if it was left unfinished.
    pub(super) end: Option<End>,
    /// Everything below this address was durable.
    pub(super) durable: u64,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) kind: FindingKind,
    /// The bytes of the file that it concerns.
    pub(super) at: Range<u64>,
    /// The first frame that it concerns, and how many.
    pub(super) ordinal: u32,
    pub(super) frames: Option<u32>,
    pub(super) what: &'static str,
}

/// What there is in a segment.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) flaws: Vec<Flaw>,
    /// How many flaws are not listed.
    pub(super) unlisted: u64,
    pub(super) header: Option<SegmentHeader>,
    pub(super) records: u64,
    /// Its frames and those of later segments say that everything below this was durable.
    pub(super) durable: u64,
    /// The ordinal of its first frame, if it says so.
    pub(super) first_ordinal: Option<u64>,
    /// How many frames it has, if that is settled.
    pub(super) frames: Option<u32>,
}

impl Contents {
    fn flaw(&mut self, kind: FindingKind, at: Range<u32>, what: &'static str) {
        let at = u64::from(at.start)..u64::from(at.end);
        self.push(Flaw { kind, at, ordinal: 0, frames: None, what });
    }

    fn push(&mut self, flaw: Flaw) {
        if self.flaws.len() < MAX_LISTED {
            self.flaws.push(flaw);
        } else {
            self.unlisted += 1;
        }
    }
}

/// Whether the first page of a segment says that it is this one.
pub(crate) fn identify(
    page: &[u8],
    identity: Identity,
) -> Result<SegmentHeader, (FindingKind, &'static str)> {
    let header = SegmentHeader::decode(page).map_err(|what| (FindingKind::SegmentHeader, what))?;
    let foreign = |what| Err((FindingKind::ForeignSegment, what));
    if identity.stream.is_some_and(|stream| header.stream != stream) {
        return foreign("it is a segment of another stream");
    }
    if header.shard != identity.shard {
        return foreign("it is a segment of another shard");
    }
    if header.base != identity.base {
        return foreign("it is another segment than its name says");
    }
    if !header.is_possible() || header.capacity > MAX_SEGMENT_BYTES {
        let what = "no segment has such a length or place";
        return Err((FindingKind::SegmentHeader, what));
    }
    Ok(header)
}

/// Verifies the bytes of a segment file.
pub(super) fn verify(bytes: &[u8], identity: Identity, told: Told) -> Contents {
    let mut contents = Contents { durable: told.durable, ..Contents::default() };
    let header = match identify(bytes, identity) {
        Ok(header) => header,
        Err((kind, what)) => {
            let (at, ordinal, frames) = (0..bytes.len() as u64, 0, None);
            contents.push(Flaw { kind, at, ordinal, frames, what });
            return contents;
        }
    };
    let (len, capacity) = (bytes.len(), header.capacity as usize);
    let mut bytes = Cow::Borrowed(&bytes[..len.min(capacity)]);
    if len != capacity {
        let at = len.min(capacity) as u64..len.max(capacity) as u64;
        let what = "the file is not as long as its header says";
        let (kind, ordinal, frames) = (FindingKind::SegmentLength, 0, None);
        contents.push(Flaw { kind, at, ordinal, frames, what });
        if len < capacity {
            bytes.to_mut().resize(capacity, 0);
        }
    }
    let image = Image { bytes: &bytes, base: header.base, salt: header.salt };
    let seal = first_page(image, &header, &mut contents);
    contents.first_ordinal = told.end.or(seal.map(|seal| seal.end)).map(|end| end.first_ordinal);
    let sealed = seal.filter(|seal| seal.kind != SealKind::Resumed && told.end.is_none());
    if let Some(Seal { kind: SealKind::Resumed, end, .. }) = seal {
        contents.durable = contents.durable.max(end.address);
    }
    let end = told.end.or(sealed.map(|seal| seal.end));
    contents.frames = end.map(|end| end.frames);
    let mut walk = Walk {
        image,
        search: Search::default(),
        contents: &mut contents,
        ordinal: 0,
        is_exact: true,
        newest_arrival_ms: 0,
        gaps: Vec::new(),
    };
    match end {
        Some(end) => walk.finished(end, sealed),
        None => walk.unfinished(),
    }
    let gaps = walk.gaps;
    // Later lives of the log know that it was durable only as far as it was whole by then.
    let durable = told.end.map_or(contents.durable, |end| end.durable);
    for gap in gaps {
        classify(image, sealed.is_some(), durable, gap, &mut contents);
    }
    contents.flaws.sort_by_key(|flaw| flaw.at.start);
    contents.header = Some(header);
    contents
}

/// Looks at what is in the first page beside the header: the seal, if there is one.
fn first_page(image: Image<'_>, header: &SegmentHeader, contents: &mut Contents) -> Option<Seal> {
    let seal_end = SEAL_AT + SEAL_LEN;
    if !are_zeros(image, seal_end..SEGMENT_HEADER_LEN) {
        let what = "there are only zeros between the seal and the first frame";
        contents.flaw(FindingKind::NotZeros, seal_end..SEGMENT_HEADER_LEN, what);
    }
    if are_zeros(image, SEAL_AT..seal_end) {
        return None;
    }
    let seal = Seal::decode(image.salt, image.bytes);
    let possible = seal.filter(|seal| seal.end.lies_in(header.base, header.capacity));
    if possible.is_none() {
        let what = if seal.is_some() {
            "its seal says what cannot be"
        } else {
            "the checksum of its seal does not hold"
        };
        contents.flaw(FindingKind::Seal, SEAL_AT..seal_end, what);
    }
    possible
}

/// A place where no frame is whole.
struct Gap {
    at: Range<u32>,
    /// The frame that should begin there.
    ordinal: u32,
    /// How many frames are missing, if a later one tells.
    frames: Option<u32>,
    /// No whole frame comes behind it: what was not finished need not be explained.
    is_tail: bool,
}

/// The way from frame to frame.
struct Walk<'a> {
    image: Image<'a>,
    search: Search,
    contents: &'a mut Contents,
    /// The ordinal of the next frame.
    ordinal: u32,
    /// Whether the next frame must have exactly this ordinal: none is missing before it.
    is_exact: bool,
    newest_arrival_ms: u64,
    gaps: Vec<Gap>,
}

impl Walk<'_> {
    /// Walks a segment whose end is known.
    fn finished(&mut self, end: End, sealed: Option<Seal>) {
        let stop = (end.address - self.image.base) as u32;
        let whole = self.image;
        self.image.bytes = &whole.bytes[..stop as usize];
        let at = self.frames(stop);
        if at < stop {
            let frames = end.frames.checked_sub(self.ordinal);
            self.gap(at..stop, frames, false);
        } else if (self.is_exact && self.ordinal != end.frames) || self.ordinal > end.frames {
            let frames = end.frames.checked_sub(self.ordinal);
            self.missing(stop, frames, "it has more or fewer frames than its end says");
        }
        self.image = whole;
        let full = sealed.is_some_and(|seal| seal.kind == SealKind::Full);
        let behind = self.pad(stop, full, end.frames);
        self.rest(behind, sealed.is_some() || behind > stop);
        let newest = self.newest_arrival_ms;
        if sealed.is_some_and(|seal| seal.newest_arrival_ms < newest) {
            let what = "a record arrived later than its seal says";
            self.contents.flaw(FindingKind::Seal, SEAL_AT..SEAL_AT + SEAL_LEN, what);
        }
    }

    /// Walks a segment that nobody has finished.
    fn unfinished(&mut self) {
        let capacity = self.image.bytes.len() as u32;
        let at = self.frames(capacity);
        let behind = self.pad(at, false, self.ordinal);
        let durable = self.contents.durable.saturating_sub(self.image.base);
        let durable = u32::try_from(durable).unwrap_or(u32::MAX).min(capacity);
        if behind == at && at < durable {
            self.gap(at..durable.next_multiple_of(UNIT), None, false);
            self.rest(durable.next_multiple_of(UNIT), false);
        } else {
            self.rest(behind, behind > at);
        }
    }

    /// Steps from frame to frame until nothing is whole any more: how far it came.
    fn frames(&mut self, stop: u32) -> u32 {
        let mut at = SEGMENT_HEADER_LEN;
        while let Some((found, frame)) = self.search.next_whole(self.image, at, stop) {
            if found > at {
                let frames = frame.header.ordinal.checked_sub(self.ordinal);
                self.gap(at..found, frames, false);
            }
            if frame.state == State::Pad {
                return found;
            }
            self.frame(found, frame, (found - at) / UNIT);
            at = frame.next;
        }
        at
    }

    /// Takes a frame into account that stands behind so many units in which nothing is whole.
    fn frame(&mut self, at: u32, frame: Frame, units_before: u32) {
        let header = frame.header;
        let skipped = header.ordinal.checked_sub(self.ordinal);
        if (self.is_exact && skipped != Some(0)) || skipped.is_none_or(|n| n > units_before) {
            self.missing(at, skipped, "the frames before this one are not as many as it counts");
        }
        self.contents.durable = self.contents.durable.max(header.durable);
        self.is_exact = true;
        let filled_from = at + HEADER_LEN + frame.len;
        if !are_zeros(self.image, filled_from..frame.next) {
            let what = "there are only zeros between a record and the next frame";
            self.contents.flaw(FindingKind::NotZeros, filled_from..frame.next, what);
        }
        if frame.state == State::Void {
            self.ordinal = header.frames_behind();
            return;
        }
        self.ordinal = header.ordinal.saturating_add(1);
        self.newest_arrival_ms = self.newest_arrival_ms.max(header.arrival_ms);
        let key = (at + HEADER_LEN) as usize;
        let key = &self.image.bytes[key..key + usize::from(header.key_len)];
        if std::str::from_utf8(key).is_ok() {
            self.contents.records += 1;
        } else {
            let (kind, frames) = (FindingKind::CorruptRecords, Some(1));
            let (at, ordinal) = (u64::from(at)..u64::from(frame.next), header.ordinal);
            let what = "a partition key is not UTF-8";
            self.contents.push(Flaw { kind, at, ordinal, frames, what });
        }
    }

    fn gap(&mut self, at: Range<u32>, frames: Option<u32>, is_tail: bool) {
        self.is_exact = false;
        // As many as can be listed, and one more, so that what is unlisted shows.
        if self.gaps.len() <= MAX_LISTED {
            self.gaps.push(Gap { at, ordinal: self.ordinal, frames, is_tail });
        } else {
            self.contents.unlisted += 1;
        }
    }

    fn missing(&mut self, at: u32, frames: Option<u32>, what: &'static str) {
        let (kind, ordinal) = (FindingKind::MissingRecords, self.ordinal);
        let at = u64::from(at)..u64::from(at);
        self.contents.push(Flaw { kind, at, ordinal, frames, what });
    }

    /// Steps over the frame that ends a segment. One must be there if it is full.
    fn pad(&mut self, at: u32, must_be: bool, frames: u32) -> u32 {
        let capacity = self.image.bytes.len() as u32;
        let frame = Search::default().frame_at(self.image, at);
        match frame.filter(|frame| frame.state == State::Pad) {
            Some(pad) => {
                if pad.header.ordinal != frames && (self.is_exact || must_be) {
                    let missing = pad.header.ordinal.checked_sub(frames);
                    self.missing(at, missing, "it has more or fewer frames than its end says");
                }
                pad.next
            }
            None if must_be && at < capacity => {
                self.gap(at..at + HEADER_LEN, Some(0), false);
                at + HEADER_LEN
            }
            None => at,
        }
    }

    /// Looks at what lies behind the last frame.
    fn rest(&mut self, at: u32, must_be_zeros: bool) {
        let end = self.image.bytes.len() as u32;
        let Some(range) = not_zeros(self.image, at..end) else { return };
        if must_be_zeros {
            let what = "there are only zeros behind the end of a segment";
            self.contents.flaw(FindingKind::NotZeros, range, what);
        } else {
            self.gap(at..range.end, None, true);
        }
    }
}

/// Says what a gap is.
fn classify(image: Image<'_>, sealed: bool, durable: u64, gap: Gap, contents: &mut Contents) {
    let Gap { at, ordinal, frames, is_tail } = gap;
    let durable = image.base + u64::from(at.start) < durable && !is_tail;
    let is_hole = is_hole(image, &at, is_tail);
    let (kind, what) = match (sealed || durable, is_hole) {
        (true, true) => (FindingKind::CorruptRecords, "a frame is missing"),
        (true, false) => (FindingKind::CorruptRecords, "the checksum of a frame does not hold"),
        (false, true) => (FindingKind::Hole, "claimed and not published"),
        (false, false) => (FindingKind::Lost, "not whole, and not durable before"),
    };
    let at = u64::from(at.start)..u64::from(at.end);
    contents.push(Flaw { kind, at, ordinal, frames, what });
}

/// Whether there is nothing in a gap but claims that nobody has filled in.
fn is_hole(image: Image<'_>, gap: &Range<u32>, is_tail: bool) -> bool {
    let mut at = gap.start;
    while at < gap.end {
        let word = Word(u32_at(image.bytes, at as usize));
        if word.state() == Some(State::Reserved) {
            at = at.saturating_add(word.frame_len());
        } else if are_zeros(image, at..at + UNIT) {
            at += UNIT;
        } else {
            return false;
        }
    }
    at == gap.end || is_tail
}

fn are_zeros(image: Image<'_>, range: Range<u32>) -> bool {
    not_zeros(image, range).is_none()
}

/// The first 32 bytes (or more) to the last in a range that are not all zeros.
fn not_zeros(image: Image<'_>, range: Range<u32>) -> Option<Range<u32>> {
    const ZEROS: [u8; 4096] = [0; 4096];
    const STEP: usize = ZEROS.len();
    // Compared by blocks, for speed.
    let bytes = &image.bytes[range.start as usize..range.end as usize];
    let is_zero = |block: &[u8]| block == &ZEROS[..block.len()];
    let first = bytes.chunks(STEP).position(|block| !is_zero(block))? * STEP;
    let blocks = bytes.len().div_ceil(STEP);
    let last = bytes.chunks(STEP).rposition(|block| !is_zero(block)).unwrap_or(blocks);
    let end = ((last + 1) * STEP).min(bytes.len());
    let unit = UNIT as usize;
    let narrow = |from: usize| bytes[from..end].chunks(unit);
    let start = first + narrow(first).position(|block| !is_zero(block))? * unit;
    let end = start + (narrow(start).rposition(|block| !is_zero(block))? + 1) * unit;
    Some(range.start + start as u32..range.start + end.min(bytes.len()) as u32)
}
