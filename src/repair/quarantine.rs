//! Where damaged bytes are kept: copies of places in segments, and whole files.
//!
//! Nothing that is there is ever written again: what is named as something else already gets the
//! next name. A copy that is there already, from a repair that was killed, is not made again.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::format::names::{NEW, QUARANTINE};
use crate::os::fs;
use crate::verify::Finding;

/// So many bytes are copied at once.
const PIECE: usize = 1 << 20;

/// The directory.
pub(super) struct Quarantine(PathBuf);

impl Quarantine {
    /// The one of the stream in this directory; made when something is put there.
    pub(super) fn of(stream: &Path) -> Self {
        Self(stream.join(QUARANTINE))
    }

    /// Copies a part of a damaged file: the copy, which is durable.
    pub(super) fn copy(&self, finding: &Finding, range: Range<u64>) -> Result<PathBuf> {
        let path = &finding.path;
        let file = fs::open_read(path)?;
        let name = name(finding, range.start);
        let copy = match self.place(&name, |there| is_copy(there, &file, path, &range))? {
            Place::Taken(copy) => return Ok(copy),
            Place::Free(copy) => copy,
        };
        let fresh = self.0.join(format!("{name}{NEW}"));
        fs::remove(&fresh)?;
        let target = fs::create_new(&fresh)?;
        for_each_piece(&file, path, range.clone(), |at, piece| {
            fs::write_at(&target, &fresh, piece, at - range.start)
        })?;
        fs::sync(&target, &fresh)?;
        fs::rename(&fresh, &copy)?;
        fs::sync_directory(&self.0)?;
        Ok(copy)
    }

    /// Gives a damaged file a second name here, durably, under which it stays.
    pub(super) fn link(&self, finding: &Finding) -> Result<PathBuf> {
        let path = &finding.path;
        let place =
            self.place(&name(finding, 0), |there| fs::is_at(&fs::open_read(there)?, path))?;
        let (Place::Taken(kept) | Place::Free(kept)) = &place;
        if let Place::Free(kept) = &place {
            fs::link(path, kept)?;
        }
        fs::sync_directory(&self.0)?;
        Ok(kept.clone())
    }

    /// The first name that is free, or that has what is to be put there.
    fn place(&self, name: &str, is_it: impl Fn(&Path) -> Result<bool>) -> Result<Place> {
        fs::create_directory(&self.0)?;
        for number in 0u64.. {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            let path = self.0.join(name);
            if fs::open_if_any(&path)?.is_none() {
                return Ok(Place::Free(path));
            }
            if is_it(&path)? {
                return Ok(Place::Taken(path));
            }
        }
        unreachable!("there are more names than files")
    }
}

enum Place {
    Free(PathBuf),
    Taken(PathBuf),
}

/// Shard, segment, offset: as in `shardId-000000000007-00000000000000065536-8224`.
fn name(finding: &Finding, offset: u64) -> String {
    let segment = finding.path.file_stem().unwrap_or_default().to_string_lossy();
    match finding.shard {
        Some(shard) => format!("{shard}-{segment}-{offset}"),
        None => format!("{segment}-{offset}"),
    }
}

/// Whether a file is a copy of a part of another one.
fn is_copy(copy: &Path, file: &File, path: &Path, range: &Range<u64>) -> Result<bool> {
    let there = fs::open_read(copy)?;
    let (mut is_same, mut bytes) = (true, vec![0; PIECE]);
    for_each_piece(file, path, range.clone(), |at, piece| {
        // One more, to see that the last piece is the last.
        bytes.resize(piece.len() + 1, 0);
        let read = fs::read_at(&there, copy, &mut bytes, at - range.start)?;
        let is_last = at + piece.len() as u64 == range.end;
        is_same &= bytes[..read.min(piece.len())] == *piece && !(is_last && read > piece.len());
        Ok(())
    })?;
    Ok(is_same)
}

/// Reads a part of a file, piece by piece.
pub(super) fn for_each_piece(
    file: &File,
    path: &Path,
    range: Range<u64>,
    mut each: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(PIECE as u64) as usize;
        let read = fs::read_at(file, path, &mut buffer[..len], at)?;
        if read == 0 {
            break;
        }
        each(at, &buffer[..read])?;
        at += read as u64;
    }
    Ok(())
}
