//! The first page of a segment file: who it is, and, when it is finished, where it ends.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `millstrm` |
//! | 8 | 4 | version | 1 |
//! | 12 | 4 | crc | CRC-32 of bytes 16 to 2048 |
//! | 16 | 8 | stream | the stream's random identity, as in its manifest |
//! | 24 | 4 | shard | the shard's index |
//! | 28 | 4 | salt | random; every checksum in the segment starts from it |
//! | 32 | 8 | base | the address of the file's first byte; the file's name |
//! | 40 | 8 | capacity | the file's length |
//! | 48 | 8 | count | how many `recovered` follow |
//! | 56 | 40 each | recovered | segments that an earlier life left unfinished: where they end |
//! | 2048 | 64 | seal | see [`Seal`] |
//!
//! All but the seal is written once, and durable before any number of the segment is given out.
//! The seal is in a sector of its own. It may be believed if its checksum holds; a segment without
//! one was being written when its writer ended, and where it ends is found by looking, or in the
//! `recovered` of a later segment.

use super::frame::UNIT;
use super::{put, u32_at, u64_at};
use crate::position::MAX_NUMBER;

/// The header's length; the first frame follows.
pub(crate) const SEGMENT_HEADER_LEN: u32 = 4096;
/// How many unfinished segments a header can tell of.
pub(crate) const MAX_RECOVERED: usize = 16;

const MAGIC: &[u8; 8] = b"millstrm";
const VERSION: u32 = 1;
const VERSION_AT: usize = 8;
const CRC_AT: usize = VERSION_AT + 4;
const STREAM_AT: usize = CRC_AT + 4;
const SHARD_AT: usize = STREAM_AT + 8;
const SALT_AT: usize = SHARD_AT + 4;
const BASE_AT: usize = SALT_AT + 4;
const CAPACITY_AT: usize = BASE_AT + 8;
const COUNT_AT: usize = CAPACITY_AT + 8;
const RECOVERED_AT: usize = COUNT_AT + 8;
const RECOVERED_LEN: usize = 40;

/// Where the seal stands.
pub(crate) const SEAL_AT: u32 = 2048;
/// How long it is.
pub(crate) const SEAL_LEN: u32 = 64;
const _: () = assert!(RECOVERED_AT + MAX_RECOVERED * RECOVERED_LEN <= SEAL_AT as usize);

/// Where a segment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// The address behind the last frame.
    pub(crate) address: u64,
    /// How many frames were claimed in the segments before this one.
    pub(crate) first_ordinal: u64,
    /// How many frames were claimed in this one.
    pub(crate) frames: u32,
    /// Damage below this address is corruption; above, it may be what a power cut took away.
    pub(crate) durable: u64,
}

impl End {
    /// Whether a segment at `base` can end here. What cannot be is not believed, checksum or not.
    pub(crate) fn lies_in(&self, base: u64, capacity: u64) -> bool {
        let Some(offset) = self.address.checked_sub(base) else { return false };
        (u64::from(SEGMENT_HEADER_LEN)..=capacity).contains(&offset)
            && offset.is_multiple_of(u64::from(UNIT))
            && u64::from(self.frames) <= capacity / u64::from(UNIT)
            && self.first_ordinal < MAX_NUMBER
    }

    fn encode(&self, bytes: &mut [u8]) {
        put(bytes, 0..8, &self.address.to_le_bytes());
        put(bytes, 8..16, &self.first_ordinal.to_le_bytes());
        put(bytes, 16..20, &self.frames.to_le_bytes());
        put(bytes, 24..32, &self.durable.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self {
            address: u64_at(bytes, 0),
            first_ordinal: u64_at(bytes, 8),
            frames: u32_at(bytes, 16),
            durable: u64_at(bytes, 24),
        }
    }
}

/// Who a segment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) stream: u64,
    pub(crate) shard: u32,
    pub(crate) salt: u32,
    pub(crate) base: u64,
    pub(crate) capacity: u64,
    /// The base of a segment that an earlier life left unfinished, and its end.
    pub(crate) recovered: Vec<(u64, End)>,
}

impl SegmentHeader {
    /// Whether there can be a segment of this place and length.
    pub(crate) fn is_possible(&self) -> bool {
        (self.capacity | self.base).is_multiple_of(u64::from(UNIT))
            && (u64::from(SEGMENT_HEADER_LEN)..1 << 32).contains(&self.capacity)
            && self.base < MAX_NUMBER
    }

    /// The header's bytes, without a seal.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; SEGMENT_HEADER_LEN as usize];
        put(&mut bytes, 0..VERSION_AT, MAGIC);
        put(&mut bytes, VERSION_AT..CRC_AT, &VERSION.to_le_bytes());
        put(&mut bytes, STREAM_AT..SHARD_AT, &self.stream.to_le_bytes());
        put(&mut bytes, SHARD_AT..SALT_AT, &self.shard.to_le_bytes());
        put(&mut bytes, SALT_AT..BASE_AT, &self.salt.to_le_bytes());
        put(&mut bytes, BASE_AT..CAPACITY_AT, &self.base.to_le_bytes());
        put(&mut bytes, CAPACITY_AT..COUNT_AT, &self.capacity.to_le_bytes());
        let count = self.recovered.len() as u64;
        put(&mut bytes, COUNT_AT..RECOVERED_AT, &count.to_le_bytes());
        let places = bytes[RECOVERED_AT..SEAL_AT as usize].chunks_exact_mut(RECOVERED_LEN);
        for ((base, end), place) in self.recovered.iter().zip(places) {
            put(place, 0..8, &base.to_le_bytes());
            end.encode(&mut place[8..]);
        }
        let crc = crc32fast::hash(&bytes[STREAM_AT..SEAL_AT as usize]);
        put(&mut bytes, CRC_AT..STREAM_AT, &crc.to_le_bytes());
        bytes
    }

    /// Reads a header and checks it in itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.len() < SEGMENT_HEADER_LEN as usize {
            return Err("it is too short for a segment");
        }
        if &bytes[..VERSION_AT] != MAGIC {
            return Err("it does not begin as a segment does");
        }
        if u32_at(bytes, VERSION_AT) != VERSION {
            return Err("its format version is not 1");
        }
        if u32_at(bytes, CRC_AT) != crc32fast::hash(&bytes[STREAM_AT..SEAL_AT as usize]) {
            return Err("the checksum of its header does not hold");
        }
        let count = u64_at(bytes, COUNT_AT) as usize;
        if count > MAX_RECOVERED {
            return Err("its header tells of too many segments");
        }
        let places = bytes[RECOVERED_AT..SEAL_AT as usize].chunks_exact(RECOVERED_LEN);
        Ok(Self {
            stream: u64_at(bytes, STREAM_AT),
            shard: u32_at(bytes, SHARD_AT),
            salt: u32_at(bytes, SALT_AT),
            base: u64_at(bytes, BASE_AT),
            capacity: u64_at(bytes, CAPACITY_AT),
            recovered: places
                .take(count)
                .map(|place| (u64_at(place, 0), End::decode(&place[8..])))
                .collect(),
        })
    }
}

/// How a segment was left by its writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SealKind {
    /// Finished: nothing will be added.
    Full,
    /// The stream was closed: the next writer may go on here.
    Paused,
    /// A next writer went on; `end` is where it began.
    Resumed,
}

/// What a writer says of a segment when it leaves it, after everything in it is durable.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 4 | kind: 1 full, 2 paused, 3 resumed |
/// | 4 | 4 | CRC-32 of bytes 8 to 64, starting from the segment's salt and the kind |
/// | 8 | 32 | end: address, first ordinal, frames, durable |
/// | 40 | 8 | the latest arrival in the segment, milliseconds since 1970 |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) kind: SealKind,
    pub(crate) end: End,
    pub(crate) newest_arrival_ms: u64,
}

impl Seal {
    /// The seal's bytes.
    pub(crate) fn encode(&self, salt: u32) -> [u8; SEAL_LEN as usize] {
        let kind: u32 = match self.kind {
            SealKind::Full => 1,
            SealKind::Paused => 2,
            SealKind::Resumed => 3,
        };
        let mut bytes = [0; SEAL_LEN as usize];
        put(&mut bytes, 0..4, &kind.to_le_bytes());
        self.end.encode(&mut bytes[8..]);
        put(&mut bytes, 40..48, &self.newest_arrival_ms.to_le_bytes());
        let crc = seal_checksum(salt, &bytes);
        put(&mut bytes, 4..8, &crc.to_le_bytes());
        bytes
    }

    /// The seal in a segment's first page, if there is one that holds.
    pub(crate) fn decode(salt: u32, page: &[u8]) -> Option<Self> {
        let bytes = &page[SEAL_AT as usize..(SEAL_AT + SEAL_LEN) as usize];
        let kind = match u32_at(bytes, 0) {
            1 => SealKind::Full,
            2 => SealKind::Paused,
            3 => SealKind::Resumed,
            _ => return None,
        };
        let holds = u32_at(bytes, 4) == seal_checksum(salt, bytes);
        holds.then(|| Self {
            kind,
            end: End::decode(&bytes[8..]),
            newest_arrival_ms: u64_at(bytes, 40),
        })
    }
}

fn seal_checksum(salt: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt ^ u32_at(bytes, 0));
    hasher.update(&bytes[8..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: End = End { address: 8192, first_ordinal: 7, frames: 3, durable: 4096 };

    fn header() -> SegmentHeader {
        let recovered = vec![(0, END), (65536, END)];
        SegmentHeader { stream: 1, shard: 2, salt: 3, base: 1 << 20, capacity: 65536, recovered }
    }

    #[test]
    fn the_manual_says_where_the_fields_are() {
        let fields = [
            (0, MAGIC.len(), "magic"),
            (VERSION_AT, 4, "version"),
            (CRC_AT, 4, "crc"),
            (STREAM_AT, 8, "stream"),
            (SHARD_AT, 4, "shard"),
            (SALT_AT, 4, "salt"),
            (BASE_AT, 8, "base"),
            (CAPACITY_AT, 8, "capacity"),
            (COUNT_AT, 8, "count"),
            (RECOVERED_AT, MAX_RECOVERED * RECOVERED_LEN, "recovered"),
            (SEAL_AT as usize, SEAL_LEN as usize, "seal"),
            (SEGMENT_HEADER_LEN as usize, 0, "frames"),
        ];
        crate::format::manual::says("Segment header", &fields);
        let bytes = header().encode();
        assert_eq!(u64_at(&bytes, STREAM_AT), 1);
        assert_eq!(u64_at(&bytes, RECOVERED_AT + RECOVERED_LEN), 65536);
    }

    #[test]
    fn the_manual_says_where_the_fields_of_seal_and_end_are() {
        let end = [
            (0, 8, "address"),
            (8, 8, "first ordinal"),
            (16, 4, "frames"),
            (24, RECOVERED_LEN - 8 - 24, "durable"),
        ];
        crate::format::manual::says("End", &end);
        let seal = [(0, 4, "kind"), (4, 4, "crc"), (8, 32, "end"), (40, 8, "newest arrival")];
        crate::format::manual::says("Seal", &seal);
        // These offsets stand in the code as they are: what is written says whether they hold.
        let seal = Seal { kind: SealKind::Resumed, end: END, newest_arrival_ms: 5 }.encode(3);
        let numbers = [(8, END.address), (16, END.first_ordinal), (32, END.durable), (40, 5)];
        assert_eq!(numbers.map(|(at, _)| u64_at(&seal, at)), numbers.map(|(_, number)| number));
        assert_eq!((u32_at(&seal, 0), u32_at(&seal, 24)), (3, END.frames));
        assert_eq!(u32_at(&seal, 4), seal_checksum(3, &seal));
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(SegmentHeader::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut bytes = header().encode();
        for bit in 0..SEAL_AT as usize * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn every_flipped_bit_of_a_seal_makes_it_no_seal() {
        let seal = Seal { kind: SealKind::Paused, end: END, newest_arrival_ms: 5 };
        let mut page = header().encode();
        put(&mut page, SEAL_AT as usize..(SEAL_AT + SEAL_LEN) as usize, &seal.encode(3));
        assert_eq!(Seal::decode(3, &page), Some(seal));
        for bit in SEAL_AT as usize * 8..(SEAL_AT + SEAL_LEN) as usize * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Seal::decode(3, &page), None, "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
