//! What is on the disk when a shard is opened, and where the truth ends.
//!
//! Recovery changes nothing in an old segment, so it can be repeated after a crash in the middle of
//! it. What it found out about segments that nobody finished goes into the header of the next one.
//!
//! | case | what is found | where the segment ends |
//! |---|---|---|
//! | finished | a seal: full | where the seal says |
//! | clean end | a seal: paused | where the seal says; the next writer goes on there |
//! | known | `recovered` of a later segment | where that says |
//! | killed before a claim's word | zeros, whole frames behind them | behind the last whole one |
//! | killed after a claim's word | a reserved frame, whole ones behind it | the same |
//! | torn frame, lost pages | a frame that does not hold | the same: gaps are skipped |
//! | never used | a header and no whole frame | where it begins |

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::manifest::Trimmed;
use crate::format::segment_header::{
    End, SEAL_AT, SEGMENT_HEADER_LEN, Seal, SealKind, SegmentHeader,
};
use crate::os::fs;
use crate::position::ShardId;
use crate::seeded::bug;
use crate::shard::Log;
use crate::shard::segment::{Access, Fate, Segment, Step, base_of, file_name};

/// A segment file and what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    pub(crate) seal: Option<Seal>,
    pub(crate) fate: Fate,
    pub(crate) first_ordinal: u64,
    /// None: it is being written, or may be written on.
    pub(crate) end: Option<End>,
}

/// All segments of a shard by rising addresses, as their headers, seals and later segments tell of
/// them. No frame is looked at.
///
/// # Errors
/// [`Error::Corrupt`] if a header is damaged, or a file is another segment than its name says.
pub(crate) fn survey(log: &Log) -> Result<Vec<Found>> {
    let mut segments = Vec::new();
    for name in fs::list(&log.directory)? {
        // What is below was trimmed, whatever it is.
        if let Some(base) = base_of(&name).filter(|base| *base >= log.horizon.trimmed().base) {
            let path = log.directory.join(name);
            // Retention may have removed it since it was listed.
            if let Some(found) = examine(path, log.stream, log.shard, base)? {
                segments.push(found);
            }
        }
    }
    let told: Vec<_> = segments.iter().flat_map(|found| found.header.recovered.clone()).collect();
    for (base, end) in told {
        if let Ok(at) = segments.binary_search_by_key(&base, |found| found.header.base) {
            let header = &segments[at].header;
            if !end.lies_in(header.base, header.capacity) {
                return Err(Error::corrupt(&segments[at].path, 0, "it is said to end elsewhere"));
            }
            segments[at].end = Some(end);
            segments[at].fate = Fate::CutOff { durable: end.durable };
        }
    }
    if let Some((_, earlier)) = segments.split_last_mut() {
        // Nobody goes on in a segment that has another one behind it.
        for found in earlier.iter_mut().filter(|found| found.is_paused()) {
            found.end = found.seal.map(|seal| seal.end);
        }
    }
    for pair in segments.windows(2) {
        if pair[0].header.base + pair[0].header.capacity > pair[1].header.base {
            return Err(Error::corrupt(&pair[1].path, 32, "it overlaps the segment before it"));
        }
    }
    Ok(segments)
}

/// Removes the segments that were trimmed, but could not be removed, or came back in a power cut.
pub(crate) fn remove_trimmed(log: &Log) -> Result<()> {
    let trimmed = log.horizon.trimmed();
    if trimmed == Trimmed::default() {
        return Ok(());
    }
    let names = fs::list(&log.directory)?;
    let is_trimmed = |name: &&String| base_of(name).is_some_and(|base| base < trimmed.base);
    names.iter().filter(is_trimmed).try_for_each(|name| fs::remove(&log.directory.join(name)))
}

/// Reads the first page of a segment file; none if the file is gone.
fn examine(path: PathBuf, stream: u64, shard: ShardId, base: u64) -> Result<Option<Found>> {
    let Some(file) = fs::open_if_any(&path)? else { return Ok(None) };
    let (header, page) = read_first_page(&file, &path, base)?;
    if (header.stream, header.shard) != (stream, shard.index()) {
        return Err(Error::corrupt(&path, 0, "it is a segment of another shard"));
    }
    let seal = Seal::decode(header.salt, &page);
    if seal.is_some_and(|seal| !seal.end.lies_in(base, header.capacity)) {
        return Err(Error::corrupt(&path, u64::from(SEAL_AT), "it ends where it cannot"));
    }
    let end = seal.filter(|seal| seal.kind == SealKind::Full).map(|seal| seal.end);
    let first_ordinal = seal.map_or(0, |seal| seal.end.first_ordinal);
    let fate = Fate::Intact;
    Ok(Some(Found { path, header, seal, fate, first_ordinal, end }))
}

/// The header of a segment file, and the page that it is in.
///
/// # Errors
/// [`Error::Corrupt`] if the file is not all of the segment that its name says.
pub(crate) fn read_first_page(
    file: &File,
    path: &Path,
    base: u64,
) -> Result<(SegmentHeader, Vec<u8>)> {
    let mut page = vec![0; SEGMENT_HEADER_LEN as usize];
    let read = fs::read_at(file, path, &mut page, 0)?;
    let header = SegmentHeader::decode(&page[..read]).map_err(|e| Error::corrupt(path, 0, e))?;
    let len = file.metadata().map_err(|e| Error::io("examine", path, e))?.len();
    let what = if header.base != base {
        "it is another segment than its name says"
    } else if header.capacity != len {
        "it is not as long as its header says"
    } else if !header.is_possible() {
        "no segment has such a length or place"
    } else {
        return Ok((header, page));
    };
    Err(Error::corrupt(path, 0, what))
}

/// Whether the last segment that was found is still the same.
pub(crate) fn is_still(directory: &Path, last: Option<&SegmentHeader>) -> Result<bool> {
    let Some(last) = last else { return Ok(true) };
    let path = directory.join(file_name(last.base));
    let found = examine(path, last.stream, ShardId::new(last.shard), last.base)?;
    Ok(found.is_some_and(|found| found.header == *last))
}

/// Counts the ordinals through the segments, the first of which has this first ordinal, and how
/// many of them have been begun. What is in those that nobody finished, `frames_of` finds out: how
/// many frames, and whether it has ended; if not, nobody has begun with the one behind it.
pub(crate) fn number(
    segments: &mut [Found],
    mut ordinal: u64,
    mut frames_of: impl FnMut(&mut Found) -> Result<(u32, bool)>,
) -> Result<usize> {
    for (at, found) in segments.iter_mut().enumerate() {
        found.first_ordinal = match (found.end, found.seal) {
            (Some(end), _) => end.first_ordinal,
            (None, Some(seal)) => seal.end.first_ordinal,
            (None, None) => ordinal,
        };
        let (frames, has_ended) = match found.end {
            Some(end) => (end.frames, true),
            None => frames_of(found)?,
        };
        if !has_ended {
            return Ok(at + 1);
        }
        ordinal = found.first_ordinal + u64::from(frames);
    }
    Ok(segments.len())
}

/// Finds out where the segments end that nobody finished, and makes what is in them durable: after
/// a kill it is in the page cache only. What the next segment has to tell of is given back.
///
/// The caller has the stream to itself; `ordinal` is the first one of the first segment.
pub(crate) fn recover(segments: &mut [Found], ordinal: u64) -> Result<Vec<(u64, End)>> {
    let mut unfinished = BTreeMap::new();
    number(segments, ordinal, |found| {
        if let Some(seal) = found.seal.filter(|seal| seal.kind == SealKind::Paused) {
            return Ok((seal.end.frames, true));
        }
        let fate = Fate::CutOff { durable: u64::MAX };
        let segment = found.open(fate)?;
        let limit = segment.header.capacity as u32;
        let next_whole = |offset| segment.next_whole(offset, limit);
        let (end, whole_to) = truth(found.header.base, found.first_ordinal, found.seal, next_whole);
        make_durable(found, end)?;
        found.end = Some(end);
        unfinished.insert(found.header.base, whole_to);
        Ok((end.frames, true))
    })?;
    // A later frame may tell that all of an earlier segment was durable.
    let mut durable = 0;
    let mut to_tell = BTreeMap::new();
    for found in segments.iter_mut().rev() {
        if let (Some(whole_to), Some(end)) = (unfinished.get(&found.header.base), &mut found.end) {
            durable = durable.max(end.durable);
            // All that is whole is durable by now; what is not later was damaged since.
            end.durable = durable.max(*whole_to);
            found.fate = Fate::CutOff { durable: end.durable };
            to_tell.insert(found.header.base, *end);
        }
        if !found.header.recovered.is_empty() {
            // A later life begins here. It has made durable what there was of the earlier ones,
            // which does not mean that nothing was missing.
            durable = 0;
        }
    }
    for unused in segments.iter().filter(|found| found.is_unused()) {
        // It is removed, and what it has told of is forgotten with it.
        for (base, end) in &unused.header.recovered {
            to_tell.entry(*base).or_insert(*end);
        }
    }
    Ok(to_tell.into_iter().collect())
}

/// Makes durable what was found in a segment, by writing it once more as it is: after a sync that
/// failed in an earlier life the page cache may hold what is not on the disk, and say that it is.
fn make_durable(found: &Found, end: End) -> Result<()> {
    let Found { path, header, .. } = found;
    let file = fs::open_write(path)?;
    let mut piece = vec![0; 1 << 20];
    let mut at = end.durable.clamp(header.base, end.address) - header.base;
    let end = end.address - header.base;
    while at < end {
        let len = (end - at).min(piece.len() as u64) as usize;
        fs::read_at(&file, path, &mut piece[..len], at)?;
        fs::write_at(&file, path, &piece[..len], at)?;
        at += len as u64;
    }
    fs::sync(&file, path)
}

/// Where the last whole frame of a segment ends, and how far the frames tell that all is durable;
/// and where the first gap is.
/// `next_whole` says what is whole at an offset, or at the next place behind it.
pub(super) fn truth(
    base: u64,
    first_ordinal: u64,
    seal: Option<Seal>,
    mut next_whole: impl FnMut(u32) -> (u32, Step),
) -> (End, u64) {
    let mut end = End {
        address: base + u64::from(SEGMENT_HEADER_LEN),
        first_ordinal,
        frames: 0,
        // If it was resumed, what was in it before had been made durable.
        durable: seal.map_or(0, |seal| seal.end.address),
    };
    let mut offset = SEGMENT_HEADER_LEN;
    let (mut whole_to, mut is_whole) = (end.address, true);
    loop {
        let (at, step) = next_whole(offset);
        is_whole &= at == offset;
        if bug("stops_at_hole") && !is_whole {
            return (end, whole_to);
        }
        offset = match step {
            Step::Record { header, next, .. } => {
                end.durable = end.durable.max(header.durable);
                end.frames = header.ordinal.saturating_add(1);
                next
            }
            Step::Void { header, next } => {
                end.frames = header.frames_behind();
                next
            }
            Step::End { frames } => {
                if let Some(frames) = frames {
                    end.frames = frames;
                    end.address = base + u64::from(at);
                }
                return (end, whole_to);
            }
            Step::NotYet { .. } | Step::Damaged(_) => return (end, whole_to),
        };
        end.address = base + u64::from(offset);
        if is_whole {
            whole_to = end.address;
        }
    }
}

impl Found {
    /// What is known of a segment that was just made.
    pub(crate) fn new(segment: &Segment) -> Self {
        Self {
            path: segment.path.clone(),
            header: segment.header.clone(),
            seal: None,
            fate: segment.fate,
            first_ordinal: segment.first_ordinal,
            end: None,
        }
    }

    /// Maps the segment for reading.
    pub(crate) fn open(&self, fate: Fate) -> Result<Segment> {
        Segment::read(self, fate, Access::Map)
    }

    /// Whether it was never used, as far as is known: the writer removes such a segment when its
    /// numbers are behind it.
    pub(crate) fn may_be_gone(&self) -> bool {
        let start = self.header.base + u64::from(SEGMENT_HEADER_LEN);
        self.seal.is_none() && self.end.is_none_or(|end| end.address == start)
    }

    /// Whether nothing is in it that was ever acknowledged, or nothing any more.
    pub(crate) fn is_unused(&self) -> bool {
        let start = self.header.base + u64::from(SEGMENT_HEADER_LEN);
        self.fate != Fate::Intact && self.end.is_some_and(|end| end.address == start)
    }

    /// Whether the next writer may go on in it.
    pub(crate) fn is_paused(&self) -> bool {
        self.end.is_none() && self.seal.is_some_and(|seal| seal.kind == SealKind::Paused)
    }
}
