//! Frames without records, in the place of lost ones.

use std::ops::Range;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

use crate::error::Result;
use crate::format::frame::{self, DataSum, HEADER_LEN, Header, MAX_LEN, State, UNIT, Word};
use crate::format::put;
use crate::format::segment_header::{
    End, SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SealKind, SegmentHeader,
};
use crate::os::fs;
use crate::position::ShardId;

/// The header of a frame, which is all that is written of it.
type FrameHeader = [u8; HEADER_LEN as usize];
/// The longest void frame, so that the next one begins where frames begin.
const LONGEST: u64 = (MAX_LEN / UNIT * UNIT + HEADER_LEN) as u64;

/// A place in which no frame is whole.
pub(super) struct Lost {
    pub(super) salt: u32,
    pub(super) address: u64,
    /// A multiple of 32 bytes.
    pub(super) len: u64,
    pub(super) ordinal: u32,
    /// How many frames were claimed there.
    pub(super) frames: u64,
}

impl Lost {
    /// Void frames that cover all of the place: their headers, and where. `body` adds the bytes in
    /// this range of the place to a sum.
    pub(super) fn void_frames(
        &self,
        mut body: impl FnMut(&mut DataSum, Range<u64>) -> Result<()>,
    ) -> Result<Vec<(u64, FrameHeader)>> {
        let mut headers = Vec::new();
        let (mut at, mut ordinal, mut frames) = (0, self.ordinal, self.frames);
        while at < self.len {
            let len = (self.len - at).min(LONGEST);
            let word = Word::new(State::Void, (len - u64::from(HEADER_LEN)) as u32);
            let address = self.address + at;
            let header = Header { address, arrival_ms: frames, key_len: 0, ordinal, durable: 0 };
            let covered = at + u64::from(HEADER_LEN)..at + len;
            headers.push((at, finish(self.salt, word, header, |sum| body(sum, covered))?));
            // The first one stands for all of them.
            ordinal = header.frames_behind();
            (at, frames) = (at + len, 0);
        }
        // From the last to the first: until the first is written, all of it counts as damaged.
        headers.reverse();
        Ok(headers)
    }
}

/// The frame that ends a segment of so many frames.
pub(super) fn end_frame(salt: u32, address: u64, frames: u32) -> FrameHeader {
    let header = Header { address, arrival_ms: 0, key_len: 0, ordinal: frames, durable: 0 };
    let finished = finish(salt, Word::new(State::Pad, 0), header, |_| Ok(()));
    finished.expect("it has no body that could not be read")
}

fn finish(
    salt: u32,
    word: Word,
    header: Header,
    body: impl FnOnce(&mut DataSum) -> Result<()>,
) -> Result<FrameHeader> {
    let mut sum = DataSum::new(word.len());
    body(&mut sum)?;
    let checksum = frame::checksum(salt, word, header.fields(), xxh3_128(&[]), sum.finish());
    Ok(frame::header_bytes(word, checksum, header.fields()))
}

/// A segment of which nothing is left; its numbers stay given out.
pub(super) struct VoidSegment {
    pub(super) stream: u64,
    pub(super) shard: ShardId,
    pub(super) base: u64,
    pub(super) capacity: u64,
    pub(super) first_ordinal: u64,
    /// How many frames it had.
    pub(super) frames: u32,
}

impl VoidSegment {
    /// Makes a file of it. It takes no room on the disk, since nobody will write to it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let salt = crate::os::random() as u32;
        let (base, capacity) = (self.base, self.capacity);
        let (stream, shard, recovered) = (self.stream, self.shard.index(), Vec::new());
        let header = SegmentHeader { stream, shard, salt, base, capacity, recovered };
        let mut page = header.encode();
        let (address, first_ordinal, frames) = (base + capacity, self.first_ordinal, self.frames);
        let end = End { address, first_ordinal, frames, durable: address };
        let seal = Seal { kind: SealKind::Full, end, newest_arrival_ms: 0 };
        put(&mut page, SEAL_AT as usize..(SEAL_AT + SEAL_LEN) as usize, &seal.encode(salt));

        let start = u64::from(SEGMENT_HEADER_LEN);
        let (address, len) = (base + start, capacity - start);
        let lost = Lost { salt, address, len, ordinal: 0, frames: u64::from(frames) };
        let headers = lost.void_frames(|sum, body| {
            let zeros = vec![0; 1 << 20];
            let mut left = body.end - body.start;
            while left > 0 {
                let piece = left.min(zeros.len() as u64);
                sum.add(&zeros[..piece as usize]);
                left -= piece;
            }
            Ok(())
        })?;
        fs::remove(path)?;
        let file = fs::create_new(path)?;
        fs::set_len(&file, path, capacity)?;
        fs::write_at(&file, path, &page, 0)?;
        for (at, header) in headers {
            fs::write_at(&file, path, &header, start + at)?;
        }
        fs::sync(&file, path)
    }
}
