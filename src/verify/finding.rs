//! What a verification says: findings, and how much was looked at.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::position::{SequenceNumber, ShardId};

/// What kind of thing was found.
///
/// ```
/// use millstream::FindingKind;
///
/// assert!(FindingKind::CorruptRecords.is_damage());
/// // What a killed process leaves behind is none.
/// assert!(!FindingKind::Hole.is_damage());
/// assert_eq!(FindingKind::Hole.to_string(), "hole");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// The manifest does not hold what was written to it.
    Manifest,
    /// The header of a segment does not hold what was written to it: nothing in the segment can be
    /// read.
    SegmentHeader,
    /// A segment of another stream or shard, of another name, or in the place of another one.
    ForeignSegment,
    /// A segment file is shorter or longer than it was made.
    SegmentLength,
    /// A segment that must be there is not.
    MissingSegment,
    /// The seal of a segment does not hold, or says what cannot be.
    Seal,
    /// Frames that were finished or durable are not as they were written.
    CorruptRecords,
    /// The count of the records says that some are missing though no place is left for them.
    MissingRecords,
    /// Something stands where there were only zeros.
    NotZeros,
    /// The row of an application holds in neither of its slots: its checkpoint is unknown.
    ControlRow,
    /// A file could not be read.
    Unreadable,
    /// A place was claimed and never filled in: its producer is at work, or was killed. Nothing
    /// that was acknowledged is missing.
    Hole,
    /// What was not durable yet and is not whole: a power cut takes such records, as it may.
    Lost,
    /// One of the two slots of a row is not whole: the other one counts. A crash while a
    /// checkpoint is stored leaves that.
    TornSlot,
    /// A file that was being made when its maker was killed, or that is being made.
    UnfinishedFile,
    /// A file that is none of the stream's.
    UnknownFile,
    /// A segment that was trimmed and could not be removed, or came back in a power cut.
    TrimmedFile,
}

impl FindingKind {
    /// Whether it is damage; everything else is what kills and power cuts leave behind and readers
    /// know to pass over.
    pub fn is_damage(self) -> bool {
        match self {
            Self::Manifest
            | Self::SegmentHeader
            | Self::ForeignSegment
            | Self::SegmentLength
            | Self::MissingSegment
            | Self::Seal
            | Self::CorruptRecords
            | Self::MissingRecords
            | Self::NotZeros
            | Self::ControlRow
            | Self::Unreadable => true,
            Self::Hole
            | Self::Lost
            | Self::TornSlot
            | Self::UnfinishedFile
            | Self::UnknownFile
            | Self::TrimmedFile => false,
        }
    }

    /// Its name, as the command line writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::SegmentHeader => "segment-header",
            Self::ForeignSegment => "foreign-segment",
            Self::SegmentLength => "segment-length",
            Self::MissingSegment => "missing-segment",
            Self::Seal => "seal",
            Self::CorruptRecords => "corrupt-records",
            Self::MissingRecords => "missing-records",
            Self::NotZeros => "not-zeros",
            Self::ControlRow => "control-row",
            Self::Unreadable => "unreadable",
            Self::Hole => "hole",
            Self::Lost => "lost",
            Self::TornSlot => "torn-slot",
            Self::UnfinishedFile => "unfinished-file",
            Self::UnknownFile => "unknown-file",
            Self::TrimmedFile => "trimmed-file",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that [`verify`](crate::verify) found.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// for finding in millstream::verify(dir.path())?.findings {
///     println!("{} in {} at {}", finding.kind, finding.path.display(), finding.offset);
///     // The same and more, as a line.
///     println!("{finding}");
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// In which file.
    pub path: PathBuf,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// How many bytes it concerns; 0 if something is missing, or the whole file is meant.
    pub len: u64,
    /// In which shard.
    pub shard: Option<ShardId>,
    /// The numbers it concerns: from the first one to below the second.
    pub sequence_numbers: Option<Range<SequenceNumber>>,
    /// How many records it concerns, if that is known.
    pub records: Option<u64>,
    /// What is wrong, for people.
    pub what: String,
    /// The ordinal of the first frame it concerns.
    pub(crate) ordinal: u32,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.kind.is_damage() { "damage" } else { "note" };
        write!(f, "{severity}: {}: {}", self.kind, self.path.display())?;
        if self.len > 0 {
            write!(f, ", bytes {}..{}", self.offset, self.offset + self.len)?;
        }
        if let (Some(shard), Some(numbers)) = (self.shard, &self.sequence_numbers) {
            write!(f, " (numbers {}..{} of {shard}", numbers.start, numbers.end)?;
            match self.records {
                Some(1) => f.write_str(", 1 record)")?,
                Some(records) => write!(f, ", {records} records)")?,
                None => f.write_str(")")?,
            }
        }
        write!(f, ": {}", self.what)
    }
}

/// The outcome of a verification.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// let verification = millstream::verify(dir.path())?;
/// if !verification.is_intact() {
///     eprintln!("{} findings are damage", verification.damage().count());
/// }
/// println!("{} records in {} segments", verification.records, verification.segments);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// Everything that was found, by file and offset.
    pub findings: Vec<Finding>,
    /// How many findings are not listed, because their file has too many.
    pub unlisted: u64,
    /// The files that were looked at.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The shards that have files.
    pub shards: u64,
    /// The segments among the files.
    pub segments: u64,
    /// The records in them that are whole.
    pub records: u64,
}

impl Verification {
    /// The findings that are damage.
    pub fn damage(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.kind.is_damage())
    }

    /// Whether nothing is damaged. There may be findings all the same: what a killed process or a
    /// power cut leaves behind.
    pub fn is_intact(&self) -> bool {
        self.damage().next().is_none()
    }
}

/// How far a verification is; see [`verify_with_progress`](crate::verify_with_progress).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # millstream::Stream::builder(dir.path()).open()?;
/// use millstream::VerifyProgress;
///
/// millstream::verify_with_progress(dir.path(), |VerifyProgress { bytes, total_bytes, .. }| {
///     println!("{bytes} of {total_bytes} bytes");
/// })?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// The bytes that were looked at.
    pub bytes: u64,
    /// The bytes that there are.
    pub total_bytes: u64,
}
