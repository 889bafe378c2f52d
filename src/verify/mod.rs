//! Verifying a stream: every byte of every file is looked at, and everything that is not as it
//! was written is found and said.
//!
//! It only reads, takes no lock, and can be run beside the process that writes: what is on its way
//! at the first look has arrived at the second. It needs as much memory as the largest segment
//! (64 MiB unless the stream is set otherwise), and work in proportion to the files, whatever is in
//! them.

mod finding;
pub(crate) mod image;
mod inspect;
mod shard;

use std::path::Path;

use crate::error::{Error, Result};
use crate::format::control_row::{self, ROW_LEN, RowDamage, RowKey, SLOT_LEN};
use crate::format::manifest::{Manifest, Trimmed};
use crate::format::names::{
    APPLICATIONS, DEAD_LETTERS, MANIFEST, MEMBERS, OWNER, QUARANTINE, QUEUE, ROW, SEEKS, SHARDS,
};
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId};
use crate::stream::{must_be_stream, read_manifest};
use crate::verify::shard::Place;

pub(crate) use shard::Part;

pub use finding::{Finding, FindingKind, Verification, VerifyProgress};
pub use inspect::{SegmentPart, SegmentPartKind, inspect_segment};

/// The longest manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// Verifies all files of the stream in the directory `path`: the manifest, every segment with its
/// header, its seal, each frame, the count of the records and the zeros behind them, and the
/// checkpoints of all applications.
///
/// Nothing is changed, and no lock is taken: it may be called beside the process that writes.
/// Damage is no error of this function; it is what the outcome tells.
///
/// # Errors
/// [`Error::StreamNotFound`]; [`Error::NotAStream`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("clicks");
/// let stream = millstream::Stream::builder(&path).open()?;
/// stream.put("customer-7", "clicked")?;
///
/// let verification = millstream::verify(&path)?;
/// assert!(verification.is_intact(), "{:?}", verification.findings);
/// assert_eq!(verification.records, 1);
/// # Ok::<(), millstream::Error>(())
/// ```
pub fn verify(path: impl AsRef<Path>) -> Result<Verification> {
    verify_with_progress(path, |_| {})
}

/// As [`verify`], and says how far it is, file by file.
///
/// # Errors
/// As [`verify`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// let mut last = None;
/// millstream::verify_with_progress(dir.path(), |progress| last = Some(progress))?;
/// assert!(last.is_some_and(|progress| progress.bytes == progress.total_bytes));
/// # Ok::<(), millstream::Error>(())
/// ```
pub fn verify_with_progress(
    path: impl AsRef<Path>,
    mut progress: impl FnMut(VerifyProgress),
) -> Result<Verification> {
    Ok(examine(path.as_ref(), &mut progress)?.0)
}

/// Verifies a stream: what is found, and which segments there are.
pub(crate) fn examine(
    path: &Path,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<(Verification, Vec<Part>)> {
    must_be_stream(path)?;
    let total_bytes = fs::size_of_tree(path);
    let mut verifier = Verifier {
        outcome: Verification::default(),
        parts: Vec::new(),
        buffer: Vec::new(),
        total_bytes,
        progress,
    };
    verifier.stream(path);
    let Verifier { mut outcome, parts, .. } = verifier;
    outcome.findings.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
    progress(VerifyProgress { bytes: total_bytes, total_bytes });
    Ok((outcome, parts))
}

/// A verification on its way.
struct Verifier<'a> {
    outcome: Verification,
    parts: Vec<Part>,
    /// The segment that is looked at.
    buffer: Vec<u8>,
    total_bytes: u64,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

impl Verifier<'_> {
    fn stream(&mut self, path: &Path) {
        // Before the manifest is read: it then tells of every shard that was listed.
        let shards = path.join(SHARDS);
        let listed = self.list(&shards);
        let manifest = self.manifest(&path.join(MANIFEST));
        for name in self.list(path) {
            if ![MANIFEST, OWNER, SHARDS, APPLICATIONS, QUARANTINE].contains(&name.as_str()) {
                self.stray(&path.join(name), None);
            }
        }
        for name in listed {
            let directory = shards.join(&name);
            let id = name.parse::<ShardId>().ok().filter(|shard| shard.to_string() == name);
            let known = |shard: &ShardId| {
                let shards = manifest.as_ref().map(|manifest| &manifest.shards);
                shards.is_none_or(|shards| shards.iter().any(|info| info.id == *shard))
            };
            let Some(shard) = id.filter(known) else {
                self.stray(&directory, None);
                continue;
            };
            self.outcome.shards += 1;
            let stream = manifest.as_ref().map(|manifest| manifest.stream);
            let info = manifest.iter().flat_map(|manifest| &manifest.shards);
            let end = info.filter(|info| info.id == shard).find_map(|i| i.ending_sequence_number);
            let end = end.and_then(SequenceNumber::address);
            let trimmed = manifest.as_ref().and_then(|manifest| trimmed(manifest, shard));
            let trimmed_by_now = || self::trimmed(&read_manifest(path).ok()?.0, shard);
            let place = Place { stream, shard, end, trimmed, directory: &directory };
            self.shard(&place, &trimmed_by_now);
        }
        self.applications(&path.join(APPLICATIONS));
    }

    /// Verifies the manifest; it is replaced whole, so one look is enough.
    fn manifest(&mut self, path: &Path) -> Option<Manifest> {
        let bytes = fs::open_read(path).and_then(|f| fs::read(&f, path, MAX_MANIFEST_BYTES));
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                self.unreadable(path, &error);
                return None;
            }
        };
        self.looked_at(bytes.len() as u64);
        match Manifest::decode(&bytes) {
            Ok(manifest) => Some(manifest),
            Err((offset, what)) => {
                let finding = whole(FindingKind::Manifest, path, None, &what);
                self.found(Finding { offset, ..finding });
                None
            }
        }
    }

    /// Verifies the rows of all applications.
    fn applications(&mut self, path: &Path) {
        for application in self.list(path) {
            let directory = path.join(&application);
            for name in self.list(&directory) {
                let path = directory.join(&name);
                let shard = name.strip_suffix(ROW).and_then(|name| name.parse::<ShardId>().ok());
                match shard.filter(|shard| format!("{shard}{ROW}") == name) {
                    Some(shard) => self.row(&path, &application, shard),
                    // Dead letters are a stream of their own, with a path of its own; who runs is
                    // nobody's record.
                    None if [OWNER, DEAD_LETTERS, QUEUE, MEMBERS, SEEKS]
                        .contains(&name.as_str()) => {}
                    None => self.stray(&path, None),
                }
            }
        }
    }

    /// Verifies a row. It is written in place, so what is wrong is looked at twice.
    fn row(&mut self, path: &Path, application: &str, shard: ShardId) {
        let mut faults = Vec::new();
        for _ in 0..2 {
            let bytes = match fs::open_read(path).and_then(|f| fs::read(&f, path, ROW_LEN as u64)) {
                Err(error) if error.is_not_found() => return,
                Err(error) => return self.unreadable(path, &error),
                Ok(bytes) => bytes,
            };
            faults = control_row::check(RowKey::new(application, shard), &bytes);
            if faults.is_empty() {
                break;
            }
        }
        self.looked_at(ROW_LEN as u64);
        let is_lost = faults.len() > 1;
        for (offset, damage) in faults {
            let (kind, what) = match damage {
                RowDamage::Torn if is_lost => (FindingKind::ControlRow, "neither slot holds"),
                RowDamage::Torn => {
                    (FindingKind::TornSlot, "one slot does not hold, the other does")
                }
                RowDamage::Foreign => {
                    (FindingKind::ControlRow, "it was copied from another shard or application")
                }
                RowDamage::Version(_) => {
                    (FindingKind::ControlRow, "its format version is not known")
                }
            };
            let finding = whole(kind, path, Some(shard), what);
            self.found(Finding { offset, len: SLOT_LEN as u64, ..finding });
        }
    }

    /// The names in a directory; if it cannot be read, that is a finding.
    fn list(&mut self, path: &Path) -> Vec<String> {
        fs::list(path).unwrap_or_else(|error| {
            self.unreadable(path, &error);
            Vec::new()
        })
    }

    fn found(&mut self, finding: Finding) {
        self.outcome.findings.push(finding);
    }

    fn whole_file(&mut self, kind: FindingKind, path: &Path, shard: Option<ShardId>, what: &str) {
        self.found(whole(kind, path, shard, what));
    }

    fn unreadable(&mut self, path: &Path, error: &Error) {
        self.whole_file(FindingKind::Unreadable, path, None, &error.to_string());
    }

    fn looked_at(&mut self, bytes: u64) {
        self.outcome.files += 1;
        self.outcome.bytes += bytes;
        let total_bytes = self.total_bytes;
        (self.progress)(VerifyProgress { bytes: self.outcome.bytes.min(total_bytes), total_bytes });
    }
}

/// What is gone of a shard: all below where it starts, if nothing was trimmed.
fn trimmed(manifest: &Manifest, shard: ShardId) -> Option<Trimmed> {
    let info = manifest.shards.iter().find(|info| info.id == shard)?;
    let start = info.starting_sequence_number.address()?;
    let trimmed = manifest.trimmed.get(&shard).copied().unwrap_or_default();
    Some(Trimmed { base: trimmed.base.max(start), ..trimmed })
}

fn whole(kind: FindingKind, path: &Path, shard: Option<ShardId>, what: &str) -> Finding {
    Finding {
        kind,
        path: path.to_owned(),
        offset: 0,
        len: 0,
        shard,
        sequence_numbers: None,
        records: None,
        what: what.into(),
        ordinal: 0,
    }
}

#[cfg(test)]
mod tests;
