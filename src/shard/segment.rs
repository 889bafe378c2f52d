//! A segment: one mapped file of a shard's log, and the steps by which it is read.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::batch::Pages;
use crate::error::{Error, Result};
use crate::format::frame::{self, Header, State, Word};
use crate::format::search::{Frame, Image, Search};
use crate::format::segment_header::{
    End, SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SealKind, SegmentHeader,
};
use crate::os::fs;
use crate::os::mmap::Map;
use crate::shard::recovery::{self, Found};

/// How far ahead of a record the cache lines are fetched for the ones to come.
const FETCHED_AHEAD: usize = 2048;
/// How many bytes are synced at once: no more than the disk takes in a millisecond or two, because
/// whoever makes the next segment waits behind them.
const SYNCED_AT_ONCE: usize = 2 << 20;

/// How segment files are called: the address of their first byte, so that names sort as addresses.
pub(crate) fn file_name(base: u64) -> String {
    format!("{base:020}.seg")
}

/// The base of the segment with this file name; none for other files.
pub(crate) fn base_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".seg").filter(|digits| digits.len() == 20)?;
    digits.parse().ok().filter(|_| digits.bytes().all(|b| b.is_ascii_digit()))
}

/// How a segment relates to those who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is being written, or was left in good order: nothing in it may be missing.
    Intact,
    /// Its writer was killed, or the power failed: there may be holes, and above `durable`
    /// (an address) whatever a power cut leaves.
    CutOff { durable: u64 },
}

/// How the bytes of finished segments are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Access {
    /// Where they are, in the page cache.
    #[default]
    Map,
    /// In a copy of the file, which takes memory, but no harm if the file is truncated or the disk
    /// fails.
    Copy,
}

/// A mapped segment.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    pub(crate) path: PathBuf,
    pub(crate) map: Map,
    pub(crate) fate: Fate,
    /// How many frames were claimed in the shard before this segment.
    pub(crate) first_ordinal: u64,
    /// Where it ends, once that is known otherwise than by its frames.
    pub(crate) end: OnceLock<End>,
    /// Everything below this address was there when the stream was closed last.
    pub(crate) left_at: u64,
    /// How far a walk has found it published without a gap, and the newest arrival up to there.
    /// Raised by whoever walks on, the arrival first: who acquires the place sees what there is up
    /// to it.
    published_to: AtomicU32,
    newest_arrival_ms: AtomicU64,
    /// What was spent on looking for whole frames.
    search: Mutex<Search>,
}

/// What stands at a place of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A record; the next frame is at `next`.
    Record { header: Header, len: u32, next: u32 },
    /// Claimed frames that were given up.
    Void { header: Header, next: u32 },
    /// The end of the segment; it has so many frames if the last one says so.
    End { frames: Option<u32> },
    /// Nothing is published here yet; perhaps a frame of `reserved` bytes is on its way.
    NotYet { reserved: u32 },
    /// Something else than was written.
    Damaged(&'static str),
}

impl From<Frame> for Step {
    fn from(frame: Frame) -> Self {
        let Frame { state, header, len, next } = frame;
        match state {
            State::Published => Self::Record { header, len, next },
            State::Void => Self::Void { header, next },
            State::Pad => Self::End { frames: Some(header.ordinal) },
            State::Reserved => unreachable!("a frame that is on its way is not final"),
        }
    }
}

impl Segment {
    /// Maps a segment for reading, or copies it; its header was read before.
    pub(crate) fn read(found: &Found, fate: Fate, access: Access) -> Result<Self> {
        let Found { path, header, seal, first_ordinal, end, .. } = found.clone();
        let file = fs::open_read(&path)?;
        if recovery::read_first_page(&file, &path, header.base)?.0 != header {
            return Err(Error::corrupt(&path, 0, "it is not the segment that was here before"));
        }
        let len = header.capacity as usize;
        let map = match access {
            Access::Map => Map::read_only(&file, len).map_err(|e| Error::io("map", &path, e))?,
            Access::Copy => Map::copied(&file, len).map_err(|e| Error::io("read", &path, e))?,
        };
        let end = end.map(OnceLock::from).unwrap_or_default();
        let left_at = seal.map_or(0, |seal| seal.end.address);
        // Up to there, all was published.
        let published_to =
            left_at.saturating_sub(header.base).max(SEGMENT_HEADER_LEN.into()) as u32;
        let segment = Self::new(path, map, header, first_ordinal, None);
        Ok(Self { fate, end, left_at, published_to: published_to.into(), ..segment })
    }

    fn map_writable(
        path: &Path,
        file: &File,
        header: SegmentHeader,
        first_ordinal: u64,
        resumed: Option<Seal>,
    ) -> Result<Self> {
        let len = header.capacity as usize;
        let map = Map::writable(file, len).map_err(|e| Error::io("map", path, e))?;
        Ok(Self::new(path.to_owned(), map, header, first_ordinal, resumed))
    }

    fn new(
        path: PathBuf,
        map: Map,
        header: SegmentHeader,
        first_ordinal: u64,
        resumed: Option<Seal>,
    ) -> Self {
        let base = header.base;
        let published_to =
            resumed.map_or(SEGMENT_HEADER_LEN, |seal| (seal.end.address - base) as u32);
        Self {
            header,
            path,
            map,
            fate: Fate::Intact,
            first_ordinal,
            end: OnceLock::new(),
            left_at: resumed.map_or(0, |seal| seal.end.address),
            published_to: AtomicU32::new(published_to),
            newest_arrival_ms: AtomicU64::new(resumed.map_or(0, |seal| seal.newest_arrival_ms)),
            search: Mutex::default(),
        }
    }

    /// The address of the first frame.
    pub(crate) fn start(&self) -> u64 {
        self.header.base + u64::from(SEGMENT_HEADER_LEN)
    }

    /// The address behind the file.
    pub(crate) fn limit(&self) -> u64 {
        self.header.base + self.header.capacity
    }

    /// Where in the file an address between `start` and `limit` is.
    pub(crate) fn offset(&self, address: u64) -> u32 {
        debug_assert!(self.start() <= address && address <= self.limit());
        (address - self.header.base) as u32
    }

    /// The address of a place in the file.
    pub(crate) fn address(&self, offset: u32) -> u64 {
        self.header.base + u64::from(offset)
    }

    /// Whether nothing is published at `offset` yet.
    #[inline]
    pub(crate) fn is_unpublished(&self, offset: u32) -> bool {
        u64::from(offset) < self.header.capacity && {
            let word = Word(self.map.word(offset as usize).load(Ordering::Acquire));
            matches!(word.state(), None | Some(State::Reserved)) && self.end.get().is_none()
        }
    }

    /// The record at `offset`, if what stands there is a published one that holds: its header, the
    /// length of key and data, and where the next frame is. What `step` says most of the time, in
    /// less time; and cache lines of the ones to come are fetched, if that is asked for.
    #[inline]
    pub(crate) fn record(&self, offset: u32, fetch: bool) -> Option<(Header, u32, u32)> {
        let capacity = self.header.capacity as u32;
        if offset >= capacity {
            return None;
        }
        let word = Word(self.map.word(offset as usize).load(Ordering::Acquire));
        if word.state() != Some(State::Published) || word.frame_len() > capacity - offset {
            return None;
        }
        let len = word.frame_len() as usize;
        if fetch {
            let ahead = offset as usize + FETCHED_AHEAD;
            self.map.prefetch(ahead, ahead + len.min(FETCHED_AHEAD));
        }
        let bytes = self.map.bytes(offset as usize, len);
        let header = frame::verify(self.header.salt, word, self.address(offset), bytes)?;
        Some((header, word.len(), offset + word.frame_len()))
    }

    /// What stands at `offset`, which is a multiple of 32 behind the header. Everything that is
    /// told of a frame is verified.
    pub(crate) fn step(&self, offset: u32) -> Step {
        let capacity = self.header.capacity as u32;
        if offset >= capacity {
            return Step::End { frames: None };
        }
        let word = Word(self.map.word(offset as usize).load(Ordering::Acquire));
        let Some(state) = word.state() else {
            return match word.0 {
                0 => Step::NotYet { reserved: 0 },
                _ => Step::Damaged("there is no such state of a frame"),
            };
        };
        if word.frame_len() > capacity - offset {
            return Step::Damaged("a frame reaches beyond the segment");
        }
        if state == State::Reserved {
            return Step::NotYet { reserved: word.frame_len() };
        }
        let bytes = self.map.bytes(offset as usize, word.frame_len() as usize);
        let Some(header) = frame::verify(self.header.salt, word, self.address(offset), bytes)
        else {
            return Step::Damaged("the checksum of a frame does not hold");
        };
        let next = offset + word.frame_len();
        Frame { state, header, len: word.len(), next }.into()
    }

    /// What stands at `offset` or, if the segment was cut off and something is missing there, at
    /// the next place where something holds; the place is given back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if something is not as it was written that must be.
    pub(crate) fn step_over_gaps(&self, offset: u32) -> Result<(u32, Step)> {
        let end = self.end.get().map(|end| self.offset(end.address));
        if end.is_some_and(|end| offset >= end) {
            return Ok((offset, Step::End { frames: None }));
        }
        let step = self.step(offset);
        let what = match step {
            Step::Damaged(what) => what,
            Step::NotYet { .. } if end.is_some() || self.address(offset) < self.left_at => {
                "a frame is missing"
            }
            _ => return Ok((offset, step)),
        };
        match self.fate {
            Fate::CutOff { durable } if self.address(offset) >= durable => {
                let end = end.unwrap_or(self.header.capacity as u32);
                Ok(self.next_whole(offset, end))
            }
            _ => Err(self.corrupt(offset, what)),
        }
    }

    /// The next place from `offset` on where a frame holds, or `end`. Nobody writes to the segment.
    pub(crate) fn next_whole(&self, offset: u32, end: u32) -> (u32, Step) {
        let bytes = self.map.bytes(0, self.map.len());
        let image = Image { bytes, base: self.header.base, salt: self.header.salt };
        match self.search.lock().next_whole(image, offset, end) {
            Some((at, frame)) => (at, frame.into()),
            None => (end, Step::End { frames: None }),
        }
    }

    /// How far this process has published it without a gap, and whether that is all of it.
    pub(crate) fn published(&self) -> (u32, bool) {
        let mut newest = 0;
        let from = self.published_to.load(Ordering::Acquire);
        let (to, ended) = self.walk(from, |state, header| {
            if state == State::Published {
                newest = newest.max(header.arrival_ms);
            }
        });
        self.newest_arrival_ms.fetch_max(newest, Ordering::Relaxed);
        self.published_to.fetch_max(to, Ordering::AcqRel);
        (to, ended)
    }

    /// What its seal says when it is left like this.
    pub(crate) fn seal_at(&self, kind: SealKind, end: End) -> Seal {
        self.published();
        let newest_arrival_ms = self.newest_arrival_ms.load(Ordering::Relaxed);
        Seal { kind, end, newest_arrival_ms }
    }

    /// Walks the frames that are published without a gap from `offset` on, by their words alone:
    /// the place behind them, and whether the segment ends there.
    pub(crate) fn walk(&self, mut offset: u32, mut each: impl FnMut(State, Header)) -> (u32, bool) {
        let capacity = self.header.capacity as u32;
        while offset < capacity {
            let word = Word(self.map.word(offset as usize).load(Ordering::Acquire));
            let len = word.frame_len();
            match word.state() {
                Some(state @ (State::Published | State::Void)) if len <= capacity - offset => {
                    let header = self.map.bytes(offset as usize, frame::HEADER_LEN as usize);
                    each(state, Header::decode(header));
                }
                Some(State::Pad) => return (offset, true),
                _ => return (offset, false),
            }
            offset += len;
        }
        (offset, true)
    }

    /// Damage at a place of this segment.
    pub(crate) fn corrupt(&self, offset: u32, what: &str) -> Error {
        let what = format!(
            "{what} (number {} of {})",
            self.address(offset),
            crate::position::ShardId::new(self.header.shard)
        );
        Error::corrupt(&self.path, u64::from(offset), what)
    }

    /// Writes the seal. Only the writer's maintenance does, one at a time.
    pub(crate) fn seal(&self, seal: &Seal) -> Result<()> {
        fs::step();
        self.map.store(SEAL_AT as usize, &seal.encode(self.header.salt));
        self.sync(SEAL_AT..SEAL_AT + SEAL_LEN)
    }

    /// Makes a part of the file durable.
    pub(crate) fn sync(&self, range: Range<u32>) -> Result<()> {
        let Range { start, end } = range;
        for start in (start..end).step_by(SYNCED_AT_ONCE) {
            fs::step();
            let piece = start as usize..end.min(start + SYNCED_AT_ONCE as u32) as usize;
            self.map.sync(piece).map_err(|e| Error::io("sync", &self.path, e))?;
        }
        Ok(())
    }
}

impl Pages for Segment {
    fn bytes(&self, start: u32, len: u32) -> &[u8] {
        self.map.bytes(start as usize, len as usize)
    }
}

/// Makes the directory of a shard, durably, if it is not there yet.
pub(crate) fn create_directory(directory: &Path) -> Result<()> {
    // Not those above: if the stream is gone from there, nobody would find what is put.
    directory.parent().map_or(Ok(()), fs::create_subdirectory)?;
    fs::create_subdirectory(directory)
}

/// Makes the file of a new segment, durable and with all its blocks, and maps it.
///
/// The file gets its name last: a file with a segment's name is a whole segment.
pub(crate) fn create(directory: &Path, header: SegmentHeader) -> Result<Segment> {
    let path = directory.join(file_name(header.base));
    let fresh = path.with_extension("new");
    fs::remove(&fresh)?;
    create_at(&fresh, &path, directory, header).inspect_err(|_| {
        // A failed allocation keeps the blocks it got, which others may be waiting for.
        let _ = fs::remove(&fresh);
    })
}

fn create_at(
    fresh: &Path,
    path: &Path,
    directory: &Path,
    header: SegmentHeader,
) -> Result<Segment> {
    let file = fs::create_new(fresh)?;
    fs::allocate(&file, fresh, header.capacity)?;
    fs::write_at(&file, fresh, &header.encode(), 0)?;
    fs::sync(&file, fresh)?;
    fs::rename(fresh, path)?;
    // XFS may report the directory durable after it has shut down; the file itself tells.
    fs::sync_directory(directory)
        .and_then(|()| fs::sync(&file, path))
        .and_then(|()| Segment::map_writable(path, &file, header, 0, None))
        .inspect_err(|_| {
            // Nobody knows of it, so nobody would remove it.
            let _ = fs::remove(path);
        })
}

impl Segment {
    /// Writes zeros to the next pages of a segment that nobody else writes to yet: where the pages
    /// end that are in memory and mapped then.
    ///
    /// Written, the page cache gets them in large folios, which takes half the time of touching
    /// them one by one in the map.
    pub(crate) fn fill(&self, from: u32, zeros: &[u8]) -> Result<u32> {
        let to = (from + zeros.len() as u32).min(self.header.capacity as u32);
        let file = fs::open_write(&self.path)?;
        fs::write_at(&file, &self.path, &zeros[..(to - from) as usize], u64::from(from))?;
        self.map.populate(from as usize..to as usize);
        Ok(to)
    }
}

/// Gives back the room behind the end of a segment that nobody writes to.
pub(crate) fn release_behind(file: &File, header: &SegmentHeader, end: u64) {
    // The page behind the end stays: readers look there for more.
    let start = end.next_multiple_of(4096) + 4096 - header.base;
    if start < header.capacity {
        fs::release(file, start, header.capacity - start);
    }
}

/// Opens a segment that was left in good order, to go on writing behind its end.
pub(crate) fn resume(found: &Found, end: u64) -> Result<Segment> {
    let file = fs::open_write(&found.path)?;
    let header = found.header.clone();
    // What was behind the end was given back when the stream was closed.
    fs::allocate(&file, &found.path, header.capacity).inspect_err(|_| {
        // A failed allocation keeps the blocks it got, which others may be waiting for.
        release_behind(&file, &header, end);
    })?;
    Segment::map_writable(&found.path, &file, header, found.first_ordinal, found.seal)
}
