//! Repair: what is damaged is set aside, and what stands in its place says so in a valid way, so
//! that readers and workers go on with the rest.
//!
//! Nothing is ever deleted: first the damaged bytes are durable in the directory `quarantine`, then
//! their place is written. Each step leaves either the damage or its repair, so a repair that was
//! killed is repeated.
//!
//! | damage | what is done |
//! |---|---|
//! | frames | a void frame over them, which stands for as many records as are lost |
//! | the frame that ends a segment | written anew |
//! | a seal | zeros: the segment counts as unfinished, and opening finds its end |
//! | bytes where zeros must be | zeros |
//! | a file's length | cut or filled up; what is missing then are frames |
//! | a segment's header, a foreign segment | a segment of void frames in its place |
//! | a missing segment | the same |
//!
//! Manifests and the rows of applications are not repaired: nobody knows what they said.

mod quarantine;
mod void;

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::frame::UNIT;
use crate::format::manifest::{MAX_SEGMENT_BYTES, Manifest};
use crate::format::segment_header::{SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SegmentHeader};
use crate::os::fs::{self, DirectoryLock};
use crate::position::SequenceNumber;
use crate::repair::quarantine::Quarantine;
use crate::repair::void::{Lost, VoidSegment};
use crate::shard::segment::{base_of, file_name};
use crate::stream::{must_be_stream, read_manifest};
use crate::verify::{Finding, FindingKind, Part, examine};

/// Segments begin and end at multiples of this.
const PAGE: u64 = SEGMENT_HEADER_LEN as u64;

/// What was done about a finding.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// use millstream::Remedy;
///
/// let repair = millstream::repair(dir.path())?;
/// let lost = repair.repaired.iter().filter(|done| done.remedy == Remedy::VoidSegment).count();
/// println!("{lost} whole segments are lost");
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// A void frame stands for the damaged ones; readers pass over it.
    VoidFrame,
    /// The frame that ends the segment was written anew.
    EndFrame,
    /// The seal was removed: the segment counts as unfinished, and opening finds out its end.
    SealRemoved,
    /// Zeros were written where zeros must be.
    Zeros,
    /// The file has the length again that it was made with.
    Length,
    /// A segment of void frames stands in the place of the whole one.
    VoidSegment,
    /// The file was moved away; it was in the place of others.
    MovedAway,
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VoidFrame => "a void frame stands there",
            Self::EndFrame => "the end of the segment is marked anew",
            Self::SealRemoved => "the seal is removed, opening finds the end",
            Self::Zeros => "zeros stand there",
            Self::Length => "the file has its length again",
            Self::VoidSegment => "a void segment stands there",
            Self::MovedAway => "the file is moved away",
        })
    }
}

/// One thing that was repaired.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// for repaired in millstream::repair(dir.path())?.repaired {
///     println!("{}: {}", repaired.finding.path.display(), repaired.remedy);
///     if let Some(quarantined) = repaired.quarantined {
///         println!("what stood there is in {}", quarantined.display());
///     }
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repaired {
    /// What was damaged. Its records and numbers are what is lost.
    pub finding: Finding,
    /// What was done about it.
    pub remedy: Remedy,
    /// Where the damaged bytes are now, if there were any.
    pub quarantined: Option<PathBuf>,
}

/// The outcome of a repair.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// let repair = millstream::plan_repair(dir.path())?;
/// let lost: u64 = repair.repaired.iter().filter_map(|done| done.finding.records).sum();
/// println!("{lost} records would be lost; {} findings would be left", repair.left.len());
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Repair {
    /// What was repaired (or would be), in the order in which it was done.
    pub repaired: Vec<Repaired>,
    /// The damage that is left: nobody but you can say what stood there.
    pub left: Vec<Finding>,
}

/// Repairs the stream in the directory `path`, which nobody may have open for putting: what is
/// damaged is copied or moved to the directory `quarantine`, and readers pass over its place from
/// then on. Nothing is deleted. A repair that was killed is simply repeated.
///
/// # Errors
/// [`Error::StreamNotFound`]; [`Error::NotAStream`]; [`Error::Locked`] if the stream is open for
/// putting; [`Error::Corrupt`] if the manifest is damaged, which cannot be repaired;
/// [`Error::DiskFull`]; [`Error::Io`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("clicks");
/// # millstream::Stream::builder(&path).open()?;
/// let repair = millstream::repair(&path)?;
/// for repaired in &repair.repaired {
///     println!("{}: {}", repaired.finding, repaired.remedy);
/// }
/// assert!(repair.left.is_empty());
/// # Ok::<(), millstream::Error>(())
/// ```
pub fn repair(path: impl AsRef<Path>) -> Result<Repair> {
    let path = path.as_ref();
    must_be_stream(path)?;
    let _lock = DirectoryLock::take(path)?;
    let site = Site::new(path)?;
    let mut outcome = Repair::default();
    loop {
        let (damage, parts) = site.damage()?;
        // What comes back though it was repaired is not repaired for ever.
        let is_new = |finding: &&Finding| {
            !outcome.repaired.iter().any(|done| is_same(&done.finding, finding))
        };
        let todo: Vec<Finding> = damage.iter().filter(is_new).cloned().collect();
        let before = outcome.repaired.len();
        for finding in todo {
            if let Some(remedy) = site.remedy(&finding, &parts) {
                outcome.repaired.push(site.mend(finding, remedy, &parts)?);
            }
        }
        if outcome.repaired.len() == before {
            outcome.left = damage;
            return Ok(outcome);
        }
    }
}

/// What [`repair`] would do, without doing it; takes no lock. There may be more to do once that
/// is done.
///
/// # Errors
/// As [`repair`], but for [`Error::Locked`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// assert!(millstream::plan_repair(dir.path())?.repaired.is_empty());
/// # Ok::<(), millstream::Error>(())
/// ```
pub fn plan_repair(path: impl AsRef<Path>) -> Result<Repair> {
    let path = path.as_ref();
    must_be_stream(path)?;
    let mut outcome = Repair::default();
    let site = Site::new(path)?;
    let (damage, parts) = site.damage()?;
    for finding in damage {
        match site.remedy(&finding, &parts) {
            Some(remedy) => {
                outcome.repaired.push(Repaired { finding, remedy, quarantined: None });
            }
            None => outcome.left.push(finding),
        }
    }
    Ok(outcome)
}

fn is_same(one: &Finding, other: &Finding) -> bool {
    (one.kind, &one.path, one.offset, one.len) == (other.kind, &other.path, other.offset, other.len)
}

/// Where a segment stands by its name.
fn place_of(finding: &Finding) -> Option<u64> {
    let base = base_of(finding.path.file_name()?.to_str()?)?;
    base.is_multiple_of(PAGE).then_some(base)
}

/// A stream that is repaired.
struct Site<'a> {
    path: &'a Path,
    manifest: Manifest,
    quarantine: Quarantine,
}

impl<'a> Site<'a> {
    fn new(path: &'a Path) -> Result<Self> {
        let (manifest, _) = read_manifest(path)?;
        let quarantine = Quarantine::of(path);
        Ok(Self { path, manifest, quarantine })
    }

    /// All damage there is, what concerns whole files first.
    fn damage(&self) -> Result<(Vec<Finding>, Vec<Part>)> {
        let (found, parts) = examine(self.path, &mut |_| {})?;
        let mut damage: Vec<_> =
            found.findings.into_iter().filter(|finding| finding.kind.is_damage()).collect();
        damage.sort_by_key(|finding| finding.kind);
        Ok((damage, parts))
    }

    /// What can be done about a finding.
    fn remedy(&self, finding: &Finding, parts: &[Part]) -> Option<Remedy> {
        match finding.kind {
            FindingKind::CorruptRecords => Some(Remedy::VoidFrame),
            FindingKind::Seal => Some(Remedy::SealRemoved),
            FindingKind::NotZeros => Some(Remedy::Zeros),
            FindingKind::SegmentLength => Some(Remedy::Length),
            FindingKind::MissingSegment => Some(Remedy::VoidSegment),
            FindingKind::SegmentHeader | FindingKind::ForeignSegment => {
                Some(match self.extent(finding, parts) {
                    Some(_) => Remedy::VoidSegment,
                    None => Remedy::MovedAway,
                })
            }
            _ => None,
        }
    }

    /// Which numbers a segment has that cannot be read, if it is one of the shard's.
    fn extent(&self, finding: &Finding, parts: &[Part]) -> Option<Range<u64>> {
        let base = place_of(finding)?;
        let of_shard = || parts.iter().filter(|part| Some(part.shard) == finding.shard);
        let mut others = of_shard().filter(|part| part.base != base);
        if others.any(|part| (part.base..part.limit()).contains(&base)) {
            return None;
        }
        let before = of_shard().rfind(|part| part.limit() <= base).map(Part::limit);
        let is_ours = finding.kind == FindingKind::SegmentHeader;
        if !is_ours && before.is_some_and(|limit| limit != base) {
            return None;
        }
        let len = file_len(&finding.path).next_multiple_of(PAGE);
        let limit = match of_shard().find(|part| part.base > base) {
            Some(next) => next.base,
            // It may have been cut. No segment is longer than the longest, or than one record.
            None => {
                let record = self.manifest.max_record_bytes as u64 + 2 * PAGE;
                let most = len.max(self.manifest.max_segment_bytes).max(record);
                base.checked_add(most.next_multiple_of(PAGE))?
            }
        };
        (2 * PAGE..=MAX_SEGMENT_BYTES).contains(&(limit - base)).then_some(base..limit)
    }

    fn mend(&self, finding: Finding, remedy: Remedy, parts: &[Part]) -> Result<Repaired> {
        let range = finding.offset..finding.offset + finding.len;
        let (remedy, quarantined) = match remedy {
            Remedy::VoidFrame | Remedy::EndFrame => {
                let copy = self.quarantine.copy(&finding, range)?;
                (void_frames(&finding)?, Some(copy))
            }
            Remedy::SealRemoved => {
                let seal = u64::from(SEAL_AT)..u64::from(SEAL_AT + SEAL_LEN);
                (remedy, Some(self.zeros(&finding, seal)?))
            }
            Remedy::Zeros => (remedy, Some(self.zeros(&finding, range)?)),
            Remedy::Length => (remedy, self.length(&finding)?),
            Remedy::VoidSegment => (remedy, self.void_segment(&finding, parts)?),
            Remedy::MovedAway => {
                let moved = self.quarantine.link(&finding)?;
                fs::remove(&finding.path)?;
                fs::sync_directory(parent(&finding.path))?;
                (remedy, Some(moved))
            }
        };
        Ok(Repaired { finding, remedy, quarantined })
    }

    fn zeros(&self, finding: &Finding, range: Range<u64>) -> Result<PathBuf> {
        let path = &finding.path;
        let copy = self.quarantine.copy(finding, range.clone())?;
        let file = fs::open_write(path)?;
        fs::write_at(&file, path, &vec![0; (range.end - range.start) as usize], range.start)?;
        fs::sync(&file, path)?;
        Ok(copy)
    }

    /// Gives a file the length that its header says.
    fn length(&self, finding: &Finding) -> Result<Option<PathBuf>> {
        let path = &finding.path;
        let file = fs::open_write(path)?;
        let capacity = read_header(&file, path)?.0.capacity;
        let len = file.metadata().map_err(|e| Error::io("examine", path, e))?.len();
        let copy =
            if len > capacity { Some(self.quarantine.copy(finding, capacity..len)?) } else { None };
        fs::set_len(&file, path, capacity)?;
        fs::allocate(&file, path, capacity)?;
        fs::sync(&file, path)?;
        Ok(copy)
    }

    /// Puts a segment in which nothing is left in the place of one that is not to be read.
    fn void_segment(&self, finding: &Finding, parts: &[Part]) -> Result<Option<PathBuf>> {
        let shard = finding.shard.expect("a segment is of a shard");
        let (base, limit) = match (&finding.kind, &finding.sequence_numbers) {
            (FindingKind::MissingSegment, Some(numbers)) => {
                let address = |number: SequenceNumber| number.address().unwrap_or_default();
                (address(numbers.start), address(numbers.end).next_multiple_of(PAGE))
            }
            _ => {
                let extent = self.extent(finding, parts).expect("it was looked at before");
                (extent.start, extent.end)
            }
        };
        // One of no length stands for what was trimmed.
        let is_other = |part: &&Part| part.base != base || part.capacity == 0;
        let of_shard = || parts.iter().filter(|part| part.shard == shard).filter(is_other);
        let before = of_shard().rfind(|part| part.limit() <= base);
        let behind = of_shard().find(|part| part.base >= limit);
        let first_ordinal = before.and_then(Part::frames_behind).unwrap_or(0);
        let frames = behind.and_then(|part| part.first_ordinal?.checked_sub(first_ordinal));
        let frames = frames.and_then(|frames| u32::try_from(frames).ok());
        // No more than there was room for.
        let room = (limit - base - PAGE) / u64::from(UNIT);
        let frames = frames.filter(|frames| u64::from(*frames) <= room).unwrap_or(0);
        let segment = VoidSegment {
            stream: self.manifest.stream,
            shard,
            base,
            capacity: limit - base,
            first_ordinal,
            frames,
        };
        let directory = parent(&finding.path);
        let path = directory.join(file_name(base));
        let fresh = path.with_extension("new");
        segment.write(&fresh)?;
        let is_missing = finding.kind == FindingKind::MissingSegment;
        let moved = if is_missing { None } else { Some(self.quarantine.link(finding)?) };
        // At no moment there is no file of this name: its numbers are never given out again.
        fs::rename(&fresh, &path)?;
        fs::sync_directory(directory)?;
        Ok(moved)
    }
}

/// Puts void frames over damaged ones, or marks the end anew if that is what was damaged.
fn void_frames(finding: &Finding) -> Result<Remedy> {
    let path = &finding.path;
    let file = fs::open_write(path)?;
    let (header, seal) = read_header(&file, path)?;
    let address = header.base + finding.offset;
    let (salt, ordinal) = (header.salt, finding.ordinal);
    let end = seal.map(|seal| seal.end).filter(|end| end.address == address);
    let remedy = match end {
        Some(end) => {
            fs::write_at(&file, path, &void::end_frame(salt, address, end.frames), finding.offset)?;
            Remedy::EndFrame
        }
        None => {
            // How many are lost is not known only behind the last whole frame.
            let frames = finding.records.unwrap_or(1);
            let lost = Lost { salt, address, len: finding.len, ordinal, frames };
            // What was there stays, as the body of frames that say that it is nothing.
            let headers = lost.void_frames(|sum, body| {
                let body = finding.offset + body.start..finding.offset + body.end;
                quarantine::for_each_piece(&file, path, body, |_, piece| {
                    sum.add(piece);
                    Ok(())
                })
            })?;
            for (at, header) in headers {
                fs::write_at(&file, path, &header, finding.offset + at)?;
            }
            Remedy::VoidFrame
        }
    };
    fs::sync(&file, path)?;
    Ok(remedy)
}

fn read_header(file: &File, path: &Path) -> Result<(SegmentHeader, Option<Seal>)> {
    let mut page = vec![0; SEGMENT_HEADER_LEN as usize];
    let read = fs::read_at(file, path, &mut page, 0)?;
    let header =
        SegmentHeader::decode(&page[..read]).map_err(|what| Error::corrupt(path, 0, what))?;
    let seal = Seal::decode(header.salt, &page);
    Ok((header, seal))
}

fn file_len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a file is in a directory")
}
