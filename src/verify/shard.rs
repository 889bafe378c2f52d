//! Verifying the directory of a shard: which files there are, and how its segments fit together.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::manifest::{MAX_SEGMENT_BYTES, Trimmed};
use crate::format::names::NEW;
use crate::format::segment_header::{End, SEGMENT_HEADER_LEN};
use crate::os::fs;
use crate::position::ShardId;
use crate::shard::segment::{base_of, file_name};
use crate::verify::Verifier;
use crate::verify::finding::{Finding, FindingKind};
use crate::verify::image::{self, Contents, Flaw, Identity, Told};

/// A segment, as far as the ones beside it need to know.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) shard: ShardId,
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    pub(crate) first_ordinal: Option<u64>,
    pub(crate) frames: Option<u32>,
    /// What its header tells of older segments.
    recovered: Vec<(u64, End)>,
}

impl Part {
    /// The address behind it.
    pub(crate) fn limit(&self) -> u64 {
        self.base + self.capacity
    }

    /// How many frames the shard has up to its end, if that is known.
    pub(crate) fn frames_behind(&self) -> Option<u64> {
        Some(self.first_ordinal?.saturating_add(u64::from(self.frames?)))
    }
}

/// A shard, and where it is.
pub(super) struct Place<'a> {
    pub(super) stream: Option<u64>,
    pub(super) shard: ShardId,
    /// The number that none in the shard is above, if it is closed.
    pub(super) end: Option<u64>,
    /// What the manifest said was gone, before the directory was listed.
    pub(super) trimmed: Option<Trimmed>,
    pub(super) directory: &'a Path,
}

impl Verifier<'_> {
    /// Verifies all that is in the directory of a shard. Somebody may trim it meanwhile:
    /// `trimmed_by_now` says what is gone.
    pub(super) fn shard(
        &mut self,
        place: &Place<'_>,
        trimmed_by_now: &dyn Fn() -> Option<Trimmed>,
    ) {
        let mut bases = Vec::new();
        for name in self.list(place.directory) {
            let path = place.directory.join(&name);
            match base_of(&name) {
                Some(base) if place.trimmed.is_some_and(|trimmed| base < trimmed.base) => {
                    let what = "it was trimmed; the next opening removes it";
                    self.whole_file(FindingKind::TrimmedFile, &path, Some(place.shard), what);
                }
                Some(base) => bases.push(base),
                None => self.stray(&path, Some(place.shard)),
            }
        }
        let (told, wrong) = told(place, &bases);
        for base in wrong {
            let what = "its header tells of an older segment what cannot be";
            let path = place.directory.join(file_name(base));
            self.whole_file(FindingKind::SegmentHeader, &path, Some(place.shard), what);
        }
        let (mut parts, mut unknown) = (Vec::new(), Vec::new());
        let mut durable = 0;
        // From the last one on, since later frames tell how far earlier ones were durable.
        for base in bases.into_iter().rev() {
            let told = Told { end: told.get(&base).copied(), durable };
            let path = place.directory.join(file_name(base));
            let Some(contents) = self.segment(place, &path, base, told) else { continue };
            durable = durable.max(contents.durable);
            self.outcome.records += contents.records;
            let (first_ordinal, frames) = (contents.first_ordinal, contents.frames);
            if contents.header.is_none() {
                unknown.push(base);
            }
            if let Some(header) = contents.header {
                let (shard, capacity, recovered) = (place.shard, header.capacity, header.recovered);
                parts.push(Part { shard, base, capacity, first_ordinal, frames, recovered });
            }
        }
        parts.reverse();
        parts.splice(0..0, first_part(place, &parts, trimmed_by_now));
        for pair in parts.windows(2) {
            // What lies between is there, though its header does not say how long it is.
            let between = pair[0].base..pair[1].base;
            if !unknown.iter().any(|base| between.contains(base)) {
                self.neighbours(place, &pair[0], &pair[1]);
            }
        }
        if let (Some(end), Some(last)) = (place.end, parts.last())
            && last.limit() < end
            && !unknown.iter().any(|base| *base > last.base)
        {
            let what = "the last segments of the closed shard are not there";
            let missing = last.limit()..end;
            self.between(place, FindingKind::MissingSegment, last.base, missing, None, what);
        }
        self.parts.append(&mut parts);
    }

    /// Verifies a segment; none if it is not there any more.
    fn segment(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        base: u64,
        told: Told,
    ) -> Option<Contents> {
        let first = self.look(place, path, base, told);
        let mut contents = first.inspect_err(|error| self.unreadable(path, error)).ok()??;
        self.looked_at(self.buffer.len() as u64);
        if !contents.flaws.is_empty() {
            // Somebody may have been writing. What a second look does not find was not there.
            let second = self.look(place, path, base, told).ok()??;
            let seen = std::mem::replace(&mut contents, second).flaws;
            contents.flaws.retain(|flaw| seen.iter().any(|other| overlap(flaw, other)));
        }
        self.outcome.segments += 1;
        self.outcome.unlisted += contents.unlisted;
        for flaw in std::mem::take(&mut contents.flaws) {
            self.found(finding_of(flaw, path.to_owned(), place.shard, base));
        }
        Some(contents)
    }

    fn look(
        &mut self,
        place: &Place<'_>,
        path: &Path,
        base: u64,
        told: Told,
    ) -> Result<Option<Contents>> {
        let Some(file) = fs::open_if_any(path)? else { return Ok(None) };
        let len = file.metadata().map_err(|e| Error::io("examine", path, e))?.len();
        // A longer one is none, which its header is enough to say.
        let len = len.min(MAX_SEGMENT_BYTES) as usize;
        self.buffer.resize(len, 0);
        let read = fs::read_at(&file, path, &mut self.buffer, 0)?;
        Ok(Some(image::verify(&self.buffer[..read], place.identity(base), told)))
    }

    /// Whether a segment goes on where the one before it ended.
    fn neighbours(&mut self, place: &Place<'_>, before: &Part, part: &Part) {
        let limit = before.limit();
        if limit > part.base {
            let what = "it overlaps the segment before it";
            let kind = FindingKind::ForeignSegment;
            return self.between(place, kind, part.base, part.base..limit, None, what);
        }
        let missing = before
            .frames_behind()
            .zip(part.first_ordinal)
            .map(|(end, first)| first.checked_sub(end));
        let is_gap = limit < part.base;
        // Segments that were never used are removed; the next one tells of them.
        let mut told = part.recovered.iter().filter(|(base, _)| (limit..part.base).contains(base));
        let is_told = told.any(|(_, end)| end.frames == 0);
        if missing == Some(Some(0)) || (missing.is_none() && (!is_gap || is_told)) {
            return;
        }
        let records = missing.flatten();
        let (kind, what) = if is_gap {
            (FindingKind::MissingSegment, "the segments before it are not there")
        } else {
            (FindingKind::MissingRecords, "it counts the records before it otherwise than they do")
        };
        self.between(place, kind, part.base, limit..part.base, records, what);
    }

    /// Something is wrong with numbers that lie at the beginning or behind the end of a segment.
    fn between(
        &mut self,
        place: &Place<'_>,
        kind: FindingKind,
        base: u64,
        numbers: Range<u64>,
        records: Option<u64>,
        what: &str,
    ) {
        let path = place.directory.join(file_name(base));
        self.whole_file(kind, &path, Some(place.shard), what);
        if let Some(finding) = self.outcome.findings.last_mut() {
            finding.sequence_numbers = Some(numbers.start.into()..numbers.end.into());
            finding.records = records;
        }
    }

    /// A file that is not one of those that a stream has for good.
    pub(super) fn stray(&mut self, path: &Path, shard: Option<ShardId>) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let (kind, what) = if name.ends_with(NEW) {
            (FindingKind::UnfinishedFile, "it is being made, or its maker was killed")
        } else {
            (FindingKind::UnknownFile, "no file of a stream is called so")
        };
        self.whole_file(kind, path, shard, what);
    }
}

impl Place<'_> {
    pub(super) fn identity(&self, base: u64) -> Identity {
        Identity { stream: self.stream, shard: self.shard.index(), base }
    }
}

/// What stands in the place of the segments that were trimmed, before those that are left.
fn first_part(
    place: &Place<'_>,
    parts: &[Part],
    trimmed_by_now: &dyn Fn() -> Option<Trimmed>,
) -> Option<Part> {
    let first = parts.first()?.base;
    let is_there = |trimmed: &Trimmed| first <= trimmed.base;
    let trimmed = place.trimmed.filter(is_there).or_else(trimmed_by_now)?;
    let shard = place.shard;
    let (base, first_ordinal, frames) = (trimmed.base, Some(trimmed.frames), Some(0));
    // If it was trimmed since, nothing is to be said.
    let part = Part { shard, base, capacity: 0, first_ordinal, frames, recovered: Vec::new() };
    Some(part).filter(|part| part.base <= first)
}

/// What the headers of the segments tell of unfinished ones; and the bases of those whose headers
/// tell what cannot be.
fn told(place: &Place<'_>, bases: &[u64]) -> (BTreeMap<u64, End>, Vec<u64>) {
    let mut headers = BTreeMap::new();
    let mut page = vec![0; SEGMENT_HEADER_LEN as usize];
    for base in bases {
        let path = place.directory.join(file_name(*base));
        // What cannot be read is reported when the segment is looked at.
        let Ok(Some(file)) = fs::open_if_any(&path) else { continue };
        let read = fs::read_at(&file, &path, &mut page, 0).unwrap_or(0);
        if let Ok(header) = image::identify(&page[..read], place.identity(*base)) {
            headers.insert(*base, (header.capacity, header.recovered));
        }
    }
    let (mut told, mut wrong) = (BTreeMap::new(), Vec::new());
    for (teller, (_, recovered)) in &headers {
        for (base, end) in recovered {
            // One that is not there any more was never used, or was trimmed.
            let Some((capacity, _)) = headers.get(base) else { continue };
            if end.lies_in(*base, *capacity) {
                told.insert(*base, *end);
            } else {
                wrong.push(*teller);
            }
        }
    }
    wrong.dedup();
    (told, wrong)
}

/// Whether two flaws, of which one was seen later, may be the same.
fn overlap(one: &Flaw, other: &Flaw) -> bool {
    one.at == other.at || (one.at.start < other.at.end && other.at.start < one.at.end)
}

fn finding_of(flaw: Flaw, path: PathBuf, shard: ShardId, base: u64) -> Finding {
    let Flaw { kind, at, ordinal, frames, what } = flaw;
    let number = |offset: u64| base.saturating_add(offset).into();
    let has_numbers = !matches!(kind, FindingKind::Seal | FindingKind::NotZeros);
    Finding {
        kind,
        path,
        offset: at.start,
        len: at.end - at.start,
        shard: Some(shard),
        sequence_numbers: has_numbers.then(|| number(at.start)..number(at.end)),
        records: frames.map(u64::from),
        what: what.into(),
        ordinal,
    }
}
