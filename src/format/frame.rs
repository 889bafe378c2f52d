//! A frame: one record in a segment, or what stands in the place of one.
//!
//! | offset | size | field | meaning |
//! |---|---|---|---|
//! | 0 | 4 | word | state (3 high bits) and length of what follows the header (29 bits) |
//! | 4 | 4 | crc | see below |
//! | 8 | 8 | address | the frame's own place in the shard's log: its sequence number |
//! | 16 | 8 | arrival | milliseconds since 1970 (48 low bits), bytes of the key (16 high bits) |
//! | 24 | 4 | ordinal | how many frames were claimed before this one in the segment |
//! | 28 | 4 | durable | how far below `address` all is durable, in units; all ones: unknown |
//! | 32 | | key, data | and zeros up to a multiple of 32 bytes |
//!
//! The word is written twice: *reserved* when the place is claimed and, last of all, its final
//! state. Nothing else in a frame may be believed before the word is final **and** the checksum
//! holds.
//!
//! The checksum is a sum of the data, XORed with a mixture of the segment's salt, the word, the
//! other fields of the header, and the XXH3 of the key. So it covers position, state and length as
//! well as content, and neither a frame of another segment nor a record's content can pass for a
//! frame.
//!
//! All of that is for speed. The sum is what is faster for data of a length: XXH3 for short data,
//! CRC-32 for long. It can be taken before the frame has its place. And the mixture needs no second
//! look at what was just written, which in larger pieces than it was written in would be a stall.

use std::sync::LazyLock;

use xxhash_rust::xxh3::xxh3_128;

use super::{put, u32_at, u64_at};
use crate::seeded::bug;

/// Frames begin at multiples of this many bytes.
pub(crate) const UNIT: u32 = 32;
/// The header's length: the fields up to and with `durable`.
pub(crate) const HEADER_LEN: u32 = 32;

const CRC_AT: usize = 4;
const ADDRESS_AT: usize = CRC_AT + 4;
const ARRIVAL_AT: usize = ADDRESS_AT + 8;
const ORDINAL_AT: usize = ARRIVAL_AT + 8;
const DURABLE_AT: usize = ORDINAL_AT + 4;
const _: () = assert!(DURABLE_AT + 4 == HEADER_LEN as usize);

const LEN_BITS: u32 = 29;
/// The most that can follow a header.
pub(crate) const MAX_LEN: u32 = (1 << LEN_BITS) - 1;
const ARRIVAL_BITS: u32 = 48;

/// What a frame's word says of it. Zeros are no state: nothing was claimed here, or not yet said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Claimed, being written.
    Reserved,
    /// A record.
    Published,
    /// Claimed and given up; its `arrival` counts the claimed frames that it stands for.
    Void,
    /// The segment ends here; its `ordinal` is the number of frames in the segment.
    Pad,
}

/// The first word of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u32);

impl Word {
    /// The word for a frame in this state with `len` bytes behind its header.
    pub(crate) fn new(state: State, len: u32) -> Self {
        debug_assert!(len <= MAX_LEN);
        let state = match state {
            State::Reserved => 1,
            State::Published => 2,
            State::Void => 3,
            State::Pad => 4,
        };
        Self(state << LEN_BITS | len)
    }

    /// The state; none for zeros and for what no version has written.
    pub(crate) fn state(self) -> Option<State> {
        match self.0 >> LEN_BITS {
            1 => Some(State::Reserved),
            2 => Some(State::Published),
            3 => Some(State::Void),
            4 => Some(State::Pad),
            _ => None,
        }
    }

    /// The bytes behind the header, without the zeros that fill up the frame.
    pub(crate) fn len(self) -> u32 {
        self.0 & MAX_LEN
    }

    /// The bytes of the whole frame.
    pub(crate) fn frame_len(self) -> u32 {
        frame_len(self.len())
    }
}

/// The bytes of a frame with `len` bytes behind its header.
pub(crate) fn frame_len(len: u32) -> u32 {
    HEADER_LEN + len.next_multiple_of(UNIT)
}

/// A frame's header, without its word and checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) address: u64,
    pub(crate) arrival_ms: u64,
    pub(crate) key_len: u16,
    pub(crate) ordinal: u32,
    /// Everything below this address was durable when the frame was written.
    pub(crate) durable: u64,
}

impl Header {
    /// The fields behind the checksum, each 8 bytes.
    #[inline]
    pub(crate) fn fields(&self) -> [u64; 3] {
        let arrival = self.arrival_ms & ((1 << ARRIVAL_BITS) - 1);
        let durable = (self.address - self.durable).div_ceil(u64::from(UNIT));
        let durable = u32::try_from(durable).unwrap_or(u32::MAX);
        [
            self.address,
            (u64::from(self.key_len) << ARRIVAL_BITS) | arrival,
            (u64::from(durable) << 32) | u64::from(self.ordinal),
        ]
    }

    /// Reads a header. Any bytes make one; whether it holds, the checksum tells.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let arrival = u64_at(bytes, ARRIVAL_AT);
        let address = u64_at(bytes, ADDRESS_AT);
        let durable = match u32_at(bytes, DURABLE_AT) {
            u32::MAX => 0,
            units => address.saturating_sub(u64::from(units) * u64::from(UNIT)),
        };
        Self {
            address,
            arrival_ms: arrival & ((1 << ARRIVAL_BITS) - 1),
            key_len: (arrival >> ARRIVAL_BITS) as u16,
            ordinal: u32_at(bytes, ORDINAL_AT),
            durable,
        }
    }

    /// How many frames were claimed in the segment up to a void frame and with those that it
    /// stands for.
    pub(crate) fn frames_behind(&self) -> u32 {
        self.ordinal.saturating_add(u32::try_from(self.arrival_ms).unwrap_or(u32::MAX))
    }
}

/// What the parts of a header are mixed with. Odd, so that no change of a part is lost; otherwise
/// arbitrary (from the digits of the golden ratio, e, pi and the square roots of 2 and 3).
const FACTORS: [u64; 5] = [
    0x9e37_79b9_7f4a_7c15,
    0xb7e1_5162_8aed_2a6b,
    0x243f_6a88_85a3_08d3,
    0x6a09_e667_f3bc_c909,
    0xbb67_ae85_84ca_a73b,
];

/// Data of at most so many bytes are summed by XXH3, which has a way of its own up to this length
/// and takes less than half of the time that CRC-32 takes for 100 bytes; longer ones by CRC-32,
/// which takes half the time of XXH3 for 4 KiB and more.
pub(crate) const MAX_SHORT: usize = 240;

/// The sum of a record's data.
#[inline]
pub(crate) fn data_sum(data: &[u8]) -> u32 {
    // Asking what the processor can do takes as long as some of the sum.
    static FRESH: LazyLock<crc32fast::Hasher> = LazyLock::new(crc32fast::Hasher::new);
    if data.len() <= MAX_SHORT {
        return xxhash_rust::xxh3::xxh3_64(data) as u32;
    }
    let mut crc = FRESH.clone();
    crc.update(data);
    crc.finalize()
}

/// The sum of data that come piece by piece.
pub(crate) enum DataSum {
    Short(Vec<u8>),
    Long(crc32fast::Hasher),
}

impl DataSum {
    /// Nothing yet of `len` bytes.
    pub(crate) fn new(len: u32) -> Self {
        match len as usize {
            ..=MAX_SHORT => Self::Short(Vec::new()),
            _ => Self::Long(crc32fast::Hasher::new()),
        }
    }

    /// Adds the next piece.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        match self {
            Self::Short(data) => data.extend_from_slice(piece),
            Self::Long(crc) => crc.update(piece),
        }
    }

    /// The sum, when all bytes were added.
    pub(crate) fn finish(self) -> u32 {
        match self {
            Self::Short(data) => data_sum(&data),
            Self::Long(crc) => crc.finalize(),
        }
    }
}

/// The checksum of a frame in a segment with this salt. Of the key's XXH3 (128 bits) the lower half
/// counts.
#[inline]
pub(crate) fn checksum(
    salt: u32,
    word: Word,
    fields: [u64; 3],
    key_xxh3: u128,
    data_sum: u32,
) -> u32 {
    let salt = if bug("salt_left_out") { 0 } else { salt };
    let first = (u64::from(word.0) << 32) | u64::from(salt);
    let parts = [first, fields[0], fields[1], fields[2], key_xxh3 as u64];
    let sum = parts
        .iter()
        .zip(FACTORS)
        .fold(0u64, |sum, (part, factor)| sum.wrapping_add(part.wrapping_mul(factor)));
    data_sum ^ (sum >> 32) as u32
}

/// Where in a frame the checksum stands; the fields follow it.
pub(crate) const CHECKSUM_AT: u32 = CRC_AT as u32;

/// The header of a whole, final frame that stands at `address`; none if anything about it is not
/// as it was written.
#[inline]
pub(crate) fn verify(salt: u32, word: Word, address: u64, frame: &[u8]) -> Option<Header> {
    let header = Header::decode(frame);
    if header.address != address || u32::from(header.key_len) > word.len() {
        return None;
    }
    let fields = stored_fields(frame);
    let body = &frame[HEADER_LEN as usize..(HEADER_LEN + word.len()) as usize];
    let (key, data) = body.split_at(usize::from(header.key_len));
    let checksum = checksum(salt, word, fields, xxh3_128(key), data_sum(data));
    (u32_at(frame, CRC_AT) == checksum).then_some(header)
}

/// The fields behind the checksum, as they stand in a frame.
#[inline]
pub(crate) fn stored_fields(frame: &[u8]) -> [u64; 3] {
    [ADDRESS_AT, ARRIVAL_AT, ORDINAL_AT].map(|at| u64_at(frame, at))
}

/// The bytes of a frame's header.
pub(crate) fn header_bytes(word: Word, checksum: u32, fields: [u64; 3]) -> [u8; 32] {
    let mut bytes = [0; HEADER_LEN as usize];
    put(&mut bytes, 0..CRC_AT, &word.0.to_le_bytes());
    put(&mut bytes, CRC_AT..ADDRESS_AT, &checksum.to_le_bytes());
    for (field, at) in fields.iter().zip((ADDRESS_AT..).step_by(8)) {
        put(&mut bytes, at..at + 8, &field.to_le_bytes());
    }
    bytes
}

/// Whether the bytes that fill a frame up are zeros, as they were written. No record depends on
/// them.
#[cfg(test)]
fn is_filled_up_with_zeros(word: Word, frame: &[u8]) -> bool {
    frame[(HEADER_LEN + word.len()) as usize..].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u32 = 0x5eed;

    fn frame(state: State, header: Header, body: &[u8]) -> (Word, Vec<u8>) {
        let word = Word::new(state, body.len() as u32);
        let (key, data) = body.split_at(usize::from(header.key_len));
        let checksum = checksum(SALT, word, header.fields(), xxh3_128(key), data_sum(data));
        let mut bytes = header_bytes(word, checksum, header.fields()).to_vec();
        bytes.extend_from_slice(body);
        bytes.resize(word.frame_len() as usize, 0);
        (word, bytes)
    }

    const HEADER: Header =
        Header { address: 4128, arrival_ms: 1 << 40, key_len: 3, ordinal: 9, durable: 4096 };

    #[test]
    fn the_manual_says_where_the_fields_are() {
        let header = HEADER_LEN as usize;
        let fields = [
            (0, 4, "word"),
            (CRC_AT, 4, "checksum"),
            (ADDRESS_AT, 8, "address"),
            (ARRIVAL_AT, 8, "arrival"),
            (ORDINAL_AT, 4, "ordinal"),
            (DURABLE_AT, header - DURABLE_AT, "durable"),
            (header, 0, "body"),
        ];
        crate::format::manual::says("Frame", &fields);
        let states = [State::Reserved, State::Published, State::Void, State::Pad];
        let numbers = states.map(|state| Word::new(state, 7).0 >> LEN_BITS);
        assert_eq!((numbers, Word::new(State::Pad, 7).len()), ([1, 2, 3, 4], 7));
        let manual = include_str!("../manual/format.md").replace('_', "");
        for factor in FACTORS {
            assert!(manual.contains(&format!("`{factor:#x}`")), "{factor:#x}");
        }
        assert!(manual.contains(&format!("up to {MAX_SHORT} bytes")));
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        assert_eq!(Header::decode(&frame(State::Published, HEADER, b"key").1), HEADER);
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let (word, mut bytes) = frame(State::Published, HEADER, b"keydata");
        assert_eq!(verify(SALT, word, 4128, &bytes), Some(HEADER));
        for bit in CRC_AT * 8..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            let holds = verify(SALT, word, 4128, &bytes).is_some();
            assert!(!holds || !is_filled_up_with_zeros(word, &bytes), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for bit in 0..32 {
            let flipped = Word(word.0 ^ 1 << bit);
            if flipped.frame_len() as usize == bytes.len() {
                assert_eq!(verify(SALT, flipped, 4128, &bytes), None, "bit {bit} of the word");
            }
        }
    }

    #[test]
    fn data_in_pieces_have_the_sum_of_the_whole() {
        let data: Vec<u8> = (0..1000u16).map(|n| (n * 7) as u8).collect();
        for len in [0, 1, 100, MAX_SHORT, MAX_SHORT + 1, 1000] {
            let mut sum = DataSum::new(len as u32);
            data[..len].chunks(64).for_each(|piece| sum.add(piece));
            assert_eq!(sum.finish(), data_sum(&data[..len]), "{len}");
        }
    }

    #[test]
    fn a_frame_holds_only_at_its_own_address_and_in_its_own_segment() {
        let (word, bytes) = frame(State::Published, HEADER, b"keydata");
        assert_eq!(verify(SALT, word, 4160, &bytes), None);
        assert_eq!(verify(SALT + 1, word, 4128, &bytes), None);
    }
}
