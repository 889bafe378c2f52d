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
//! The checksum is the CRC-32 of the data, begun not with zero but with a mixture of the segment's
//! salt, the word, the other fields of the header, and the XXH3 of the key. So it covers position,
//! state and length as well as content, and neither a frame of another segment nor a record's
//! content can pass for a frame. The mixture instead of a longer CRC is for speed: what was just
//! written in small pieces is read back in large ones only after a stall.

use super::{put, u32_at, u64_at};

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

/// The checksum of a frame in the making.
pub(crate) struct Checksum(crc32fast::Hasher);

impl Checksum {
    /// The checksum before any data.
    #[inline]
    pub(crate) fn new(salt: u32, word: Word, fields: [u64; 3], key: &[u8]) -> Self {
        let key = xxhash_rust::xxh3::xxh3_128(key);
        let key = key as u64 ^ (key >> 64) as u64;
        let salt = if cfg!(millstream_bug = "salt_left_out") { 0 } else { salt };
        let first = (u64::from(word.0) << 32) | u64::from(salt);
        let parts = [first, fields[0], fields[1], fields[2], key];
        let sum = parts
            .iter()
            .zip(FACTORS)
            .fold(0u64, |sum, (part, factor)| sum.wrapping_add(part.wrapping_mul(factor)));
        Self(crc32fast::Hasher::new_with_initial((sum >> 32) as u32))
    }

    /// Covers the next bytes of the data.
    #[inline]
    pub(crate) fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// Covers bytes of the data by a function that tells from the checksum before them the one
    /// behind them.
    pub(crate) fn carry(&mut self, over: impl FnOnce(u32) -> u32) {
        self.0 = crc32fast::Hasher::new_with_initial(over(self.0.clone().finalize()));
    }

    /// The checksum of all of them.
    #[inline]
    pub(crate) fn finalize(self) -> u32 {
        self.0.finalize()
    }
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
    let mut checksum = Checksum::new(salt, word, fields, key);
    checksum.update(data);
    (u32_at(frame, CRC_AT) == checksum.finalize()).then_some(header)
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
        let mut checksum = Checksum::new(SALT, word, header.fields(), key);
        checksum.update(data);
        let mut bytes = header_bytes(word, checksum.finalize(), header.fields()).to_vec();
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
            (CRC_AT, 4, "crc"),
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
    fn a_frame_holds_only_at_its_own_address_and_in_its_own_segment() {
        let (word, bytes) = frame(State::Published, HEADER, b"keydata");
        assert_eq!(verify(SALT, word, 4160, &bytes), None);
        assert_eq!(verify(SALT + 1, word, 4128, &bytes), None);
    }
}
