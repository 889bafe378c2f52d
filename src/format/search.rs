//! Looking for whole frames where nothing can be believed: behind a hole, a torn frame, damage.
//!
//! The only proof that a frame begins somewhere is that it names its own place and its checksum
//! holds. Content that imitates the first could make us checksum the same bytes again and again,
//! for each place that claims to begin a long frame. So what was looked at in vain is counted, and
//! once it is as much as the segment has, a table takes over from which the checksum of any
//! stretch follows in a few steps. The work stays proportional to the segment, whatever is in it,
//! and no whole frame is missed.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_128;

use super::frame::{self, CHECKSUM_AT, HEADER_LEN, Header, State, UNIT, Word};
use super::u32_at;

/// No partition key has more bytes; one that claims to is not even looked at.
const MAX_KEY_LEN: u32 = 4 * crate::record::MAX_PARTITION_KEY_CHARS as u32;

/// The bytes of a segment file, or the first of them, and what its header says of them.
#[derive(Clone, Copy)]
pub(crate) struct Image<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) base: u64,
    pub(crate) salt: u32,
}

/// A frame that is whole and final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) state: State,
    pub(crate) header: Header,
    /// The bytes behind the header.
    pub(crate) len: u32,
    /// Where the next frame begins.
    pub(crate) next: u32,
}

/// A search in one segment; keeps count of its effort.
#[derive(Debug, Default)]
pub(crate) struct Search {
    in_vain: u64,
    sums: Option<Sums>,
}

impl Search {
    /// The frame at `offset`, if one that is whole and final begins there.
    pub(crate) fn frame_at(&mut self, image: Image<'_>, offset: u32) -> Option<Frame> {
        let rest = image.bytes.get(offset as usize..)?;
        if rest.len() < HEADER_LEN as usize {
            return None;
        }
        let word = Word(u32_at(rest, 0));
        let state = word.state().filter(|state| *state != State::Reserved)?;
        let frame = rest.get(..word.frame_len() as usize)?;
        let header = Header::decode(frame);
        let plausible = header.address == image.base + u64::from(offset)
            && u32::from(header.key_len) <= word.len().min(MAX_KEY_LEN);
        if !plausible {
            return None;
        }
        let next = offset + word.frame_len();
        let key_at = offset + HEADER_LEN;
        let data_at = key_at + u32::from(header.key_len);
        let key = &image.bytes[key_at as usize..data_at as usize];
        let data_sum = self.data_sum(image, data_at..key_at + word.len());
        let fields = frame::stored_fields(frame);
        let checksum = frame::checksum(image.salt, word, fields, xxh3_128(key), data_sum);
        if checksum != u32_at(frame, CHECKSUM_AT as usize) {
            self.in_vain += frame.len() as u64;
            return None;
        }
        Some(Frame { state, header, len: word.len(), next })
    }

    /// The first whole frame between `offset` and `end`, and where it is.
    pub(crate) fn next_whole(
        &mut self,
        image: Image<'_>,
        offset: u32,
        end: u32,
    ) -> Option<(u32, Frame)> {
        let mut places = (offset..end).step_by(UNIT as usize);
        places.find_map(|at| Some((at, self.frame_at(image, at)?)))
    }

    /// The sum of data in the image.
    fn data_sum(&mut self, image: Image<'_>, range: Range<u32>) -> u32 {
        let bytes = |range: Range<u32>| &image.bytes[range.start as usize..range.end as usize];
        // What the table has: whole units.
        let (start, end) = (range.start.next_multiple_of(UNIT), range.end / UNIT * UNIT);
        if self.in_vain <= image.bytes.len() as u64 || range.len() <= frame::MAX_SHORT {
            return frame::data_sum(bytes(range));
        }
        let sums = self.sums.get_or_insert_with(|| Sums::new(image.bytes));
        let before = crc32fast::hash(bytes(range.start..start));
        let mut crc = crc32fast::Hasher::new_with_initial(sums.extend(before, start..end));
        crc.update(bytes(end..range.end));
        crc.finalize()
    }
}

/// The CRC-32 of everything before each multiple of 32 bytes.
#[derive(Debug)]
struct Sums(Vec<u32>);

impl Sums {
    fn new(bytes: &[u8]) -> Self {
        let mut sum = crc32fast::Hasher::new();
        let mut sums = vec![0];
        for unit in bytes.chunks_exact(UNIT as usize) {
            sum.update(unit);
            sums.push(sum.clone().finalize());
        }
        Self(sums)
    }

    /// The CRC-32 of what `crc` is of and these bytes behind it.
    fn extend(&self, crc: u32, range: Range<u32>) -> u32 {
        // A CRC is linear: that of a stretch is the difference between those that end and begin
        // with it, the latter carried over the stretch.
        let before = crc ^ self.0[(range.start / UNIT) as usize];
        let mut carried = crc32fast::Hasher::new_with_initial_len(before, 0);
        let stretch = u64::from(range.end - range.start);
        carried.combine(&crc32fast::Hasher::new_with_initial_len(0, stretch));
        carried.finalize() ^ self.0[(range.end / UNIT) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::header_bytes;

    const SALT: u32 = 0x5eed;
    const BASE: u64 = 8192;

    /// Writes a frame, with this body, that is whole.
    fn write(image: &mut [u8], offset: u32, body: &[u8]) {
        let word = Word::new(State::Published, body.len() as u32);
        let address = BASE + u64::from(offset);
        let header = Header { address, arrival_ms: 1, key_len: 3, ordinal: 0, durable: 0 };
        let (key, data) = body.split_at(3);
        let (key, sum) = (xxh3_128(key), frame::data_sum(data));
        let checksum = frame::checksum(SALT, word, header.fields(), key, sum);
        let header = header_bytes(word, checksum, header.fields());
        let frame = &mut image[offset as usize..][..word.frame_len() as usize];
        frame[..HEADER_LEN as usize].copy_from_slice(&header);
        frame[HEADER_LEN as usize..][..body.len()].copy_from_slice(body);
    }

    /// Every place names itself and claims to begin a frame that reaches to the end.
    fn hostile(units: u32) -> Vec<u8> {
        let mut image = vec![0; (units * UNIT) as usize];
        for unit in 0..units {
            let at = (unit * UNIT) as usize;
            let word = Word::new(State::Published, (units - unit - 1) * UNIT);
            image[at..at + 4].copy_from_slice(&word.0.to_le_bytes());
            let address = BASE + u64::from(unit * UNIT);
            image[at + 8..at + 16].copy_from_slice(&address.to_le_bytes());
        }
        image
    }

    #[test]
    fn a_frame_is_found_behind_anything() {
        let mut image = vec![0xa5; 4096];
        write(&mut image, 2048, b"here");
        let image = Image { bytes: &image, base: BASE, salt: SALT };
        let (at, frame) = Search::default().next_whole(image, 0, 4096).unwrap();
        assert_eq!((at, frame.len, frame.next), (2048, 4, 2112));
    }

    #[test]
    fn the_table_says_the_same_as_the_bytes() {
        let mut image = hostile(64);
        write(&mut image, 1024, &[7; 500]);
        let image = Image { bytes: &image, base: BASE, salt: SALT };
        let mut tired = Search { in_vain: u64::MAX / 2, sums: None };
        for at in (0..2048).step_by(32) {
            assert_eq!(tired.frame_at(image, at), Search::default().frame_at(image, at), "{at}");
        }
        assert!(tired.sums.is_some());
        assert_eq!(tired.frame_at(image, 1024).unwrap().len, 500);
    }

    #[test]
    fn a_search_through_content_that_imitates_frames_ends_soon_and_misses_nothing() {
        // 4 MiB: 131,072 places, each of which would be a checksum of 2 MiB in the mean.
        let mut image = hostile(1 << 17);
        let last = image.len() as u32 - 64;
        write(&mut image, last, b"still found");
        let image = Image { bytes: &image, base: BASE, salt: SALT };
        let mut search = Search::default();
        let (at, _) = search.next_whole(image, 0, last + 64).unwrap();
        assert_eq!(at, last);
    }
}
