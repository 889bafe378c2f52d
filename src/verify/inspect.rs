//! What is in a segment file, part by part, for people who want to see for themselves.

use std::ops::Range;
use std::path::Path;

use crate::error::Result;
use crate::format::frame::{State, UNIT, Word};
use crate::format::manifest::MAX_SEGMENT_BYTES;
use crate::format::search::{Frame, Image, Search};
use crate::format::segment_header::{SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SegmentHeader};
use crate::format::u32_at;
use crate::os::fs;
use crate::position::ShardId;

/// What a part of a segment file is.
///
/// ```
/// use millstream::SegmentPartKind;
///
/// assert_eq!(SegmentPartKind::NotWhole.name(), "not-whole");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SegmentPartKind {
    /// The header: which segment it is.
    Header,
    /// The seal: how its writer has left it.
    Seal,
    /// A record, with the header of its frame.
    Record,
    /// Claimed frames that were given up.
    Void,
    /// The frame that ends the segment.
    End,
    /// A frame that was claimed and is not written, or was not.
    Reserved,
    /// Zeros: nothing was written here.
    Unused,
    /// Nothing that holds.
    NotWhole,
}

impl SegmentPartKind {
    /// Its name, as the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Seal => "seal",
            Self::Record => "record",
            Self::Void => "void",
            Self::End => "end",
            Self::Reserved => "reserved",
            Self::Unused => "unused",
            Self::NotWhole => "not-whole",
        }
    }
}

/// A part of a segment file.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # stream.put("customer-7", "clicked")?;
/// # let segment = dir.path().join("shards/shardId-000000000000/00000000000000000000.seg");
/// millstream::inspect_segment(&segment, |part| {
///     println!("{:08x} {}: {}", part.offset, part.kind.name(), part.says);
/// })?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SegmentPart<'a> {
    /// What it is.
    pub kind: SegmentPartKind,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// What stands there.
    pub bytes: &'a [u8],
    /// What it says, for people.
    pub says: String,
}

/// Calls `each` for the parts of a segment file, in order. Nothing is left out, whatever is in it,
/// and whatever does not hold is told as such; whether it should, [`verify`](crate::verify())
/// knows.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io); [`Error::Corrupt`](crate::Error::Corrupt) if the file is longer
/// than any segment.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{SegmentPartKind, inspect_segment};
///
/// stream.put("customer-7", "clicked")?;
/// let segment = dir.path().join("shards/shardId-000000000000/00000000000000000000.seg");
/// let mut kinds = Vec::new();
/// inspect_segment(&segment, |part| kinds.push(part.kind))?;
/// use SegmentPartKind::{Header, Record, Seal, Unused};
/// assert_eq!(kinds, [Header, Seal, Unused, Record, Unused]);
/// # Ok::<(), millstream::Error>(())
/// ```
pub fn inspect_segment(
    path: impl AsRef<Path>,
    mut each: impl FnMut(SegmentPart<'_>),
) -> Result<()> {
    let path = path.as_ref();
    let bytes = fs::read(&fs::open_read(path)?, path, MAX_SEGMENT_BYTES)?;
    let mut parts = Parts { bytes: &bytes, each: &mut each };
    let first = (SEAL_AT as usize).min(bytes.len());
    let header = match SegmentHeader::decode(&bytes) {
        Err(what) => {
            parts.part(SegmentPartKind::NotWhole, 0..first, what.to_owned());
            parts.rest(first..bytes.len());
            return Ok(());
        }
        Ok(header) => header,
    };
    parts.part(SegmentPartKind::Header, 0..first, say_header(&header));
    let seal_end = (SEAL_AT + SEAL_LEN) as usize;
    let (kind, says) = match Seal::decode(header.salt, &bytes) {
        Some(seal) => (SegmentPartKind::Seal, say_seal(&seal)),
        None if is_zero(&bytes[first..seal_end]) => (SegmentPartKind::Seal, "none".to_owned()),
        None => (SegmentPartKind::NotWhole, "the checksum of the seal does not hold".to_owned()),
    };
    parts.part(kind, first..seal_end, says);
    parts.rest(seal_end..SEGMENT_HEADER_LEN as usize);
    let image = Image { bytes: &bytes, base: header.base, salt: header.salt };
    let (mut search, mut at) = (Search::default(), SEGMENT_HEADER_LEN);
    while let Some((found, frame)) = search.next_whole(image, at, bytes.len() as u32) {
        parts.rest(at as usize..found as usize);
        let kind = match frame.state {
            State::Published => SegmentPartKind::Record,
            State::Void => SegmentPartKind::Void,
            State::Pad | State::Reserved => SegmentPartKind::End,
        };
        parts.part(kind, found as usize..frame.next as usize, say_frame(kind, &frame));
        at = frame.next;
    }
    parts.rest(at as usize..bytes.len());
    Ok(())
}

struct Parts<'a> {
    bytes: &'a [u8],
    each: &'a mut dyn FnMut(SegmentPart<'_>),
}

impl Parts<'_> {
    fn part(&mut self, kind: SegmentPartKind, at: Range<usize>, says: String) {
        let (offset, bytes) = (at.start as u64, &self.bytes[at]);
        (self.each)(SegmentPart { kind, offset, bytes, says });
    }

    /// A stretch in which nothing is whole.
    fn rest(&mut self, at: Range<usize>) {
        if at.is_empty() {
            return;
        }
        let bytes = &self.bytes[at.clone()];
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let used = at.start + used.next_multiple_of(UNIT as usize).min(at.len());
        if used > at.start {
            let word = bytes.get(..4).map(|word| Word(u32_at(word, 0)));
            match word.filter(|word| word.state() == Some(State::Reserved)) {
                Some(word) => {
                    let says = format!("{} bytes are claimed", word.frame_len());
                    self.part(SegmentPartKind::Reserved, at.start..used, says);
                }
                None => {
                    let says = "nothing here has a checksum that holds".to_owned();
                    self.part(SegmentPartKind::NotWhole, at.start..used, says);
                }
            }
        }
        if used < at.end {
            let says = format!("{} zeros", at.end - used);
            self.part(SegmentPartKind::Unused, used..at.end, says);
        }
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn say_header(header: &SegmentHeader) -> String {
    let mut says = format!(
        "stream {:016x}, {}, base {}, capacity {}, salt {:08x}",
        header.stream,
        ShardId::new(header.shard),
        header.base,
        header.capacity,
        header.salt
    );
    for (base, end) in &header.recovered {
        says += &format!(
            "; tells that segment {base} ends at {} with {} frames, durable below {}",
            end.address, end.frames, end.durable
        );
    }
    says
}

fn say_seal(seal: &Seal) -> String {
    let end = seal.end;
    format!(
        "{}: ends at {} with {} frames, {} before it, newest arrival {}",
        format!("{:?}", seal.kind).to_lowercase(),
        end.address,
        end.frames,
        end.first_ordinal,
        seal.newest_arrival_ms
    )
}

fn say_frame(kind: SegmentPartKind, frame: &Frame) -> String {
    let header = frame.header;
    match kind {
        SegmentPartKind::Record => format!(
            "number {}, ordinal {}, arrival {}, key of {} bytes, data of {}, durable below {}",
            header.address,
            header.ordinal,
            header.arrival_ms,
            header.key_len,
            frame.len.saturating_sub(header.key_len.into()),
            header.durable
        ),
        SegmentPartKind::Void => {
            format!("stands for {} frames from ordinal {} on", header.arrival_ms, header.ordinal)
        }
        _ => format!("{} frames", header.ordinal),
    }
}
