//! Segments that somebody made on purpose: every checksum holds, and nothing makes sense.

use super::image::{Contents, Identity, Told, verify};
use super::{FindingKind, image};
use xxhash_rust::xxh3::xxh3_128;

use crate::format::frame::{HEADER_LEN, Header, State, Word, checksum, data_sum, header_bytes};
use crate::format::manifest::MAX_SEGMENT_BYTES;
use crate::format::put;
use crate::format::segment_header::{
    End, SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, Seal, SealKind, SegmentHeader,
};

const SALT: u32 = 0xbad;
const IDENTITY: Identity = Identity { stream: Some(1), shard: 2, base: 4096 };
const CAPACITY: usize = 64 << 10;
const START: usize = SEGMENT_HEADER_LEN as usize;

fn header() -> SegmentHeader {
    let (base, capacity) = (IDENTITY.base, CAPACITY as u64);
    SegmentHeader { stream: 1, shard: 2, salt: SALT, base, capacity, recovered: Vec::new() }
}

fn segment(header: &SegmentHeader, seal: Option<End>) -> Vec<u8> {
    let mut bytes = vec![0; CAPACITY];
    put(&mut bytes, 0..START, &header.encode());
    if let Some(end) = seal {
        let seal = Seal { kind: SealKind::Full, end, newest_arrival_ms: u64::MAX };
        put(&mut bytes, SEAL_AT as usize..(SEAL_AT + SEAL_LEN) as usize, &seal.encode(SALT));
    }
    bytes
}

/// Writes a frame that is whole, with all that is behind it as its body.
fn frame(bytes: &mut [u8], at: usize, word: Word, header: Header) {
    let header = Header { address: IDENTITY.base + at as u64, ..header };
    let body = at + HEADER_LEN as usize..(at + (HEADER_LEN + word.len()) as usize).min(bytes.len());
    let (key, data) = bytes[body].split_at(usize::from(header.key_len));
    let checksum = checksum(SALT, word, header.fields(), xxh3_128(key), data_sum(data));
    let header = header_bytes(word, checksum, header.fields());
    put(bytes, at..at + HEADER_LEN as usize, &header);
}

const FRAME: Header = Header { address: 0, arrival_ms: 1, key_len: 0, ordinal: 0, durable: 0 };

fn kinds(contents: &Contents) -> Vec<FindingKind> {
    contents.flaws.iter().map(|flaw| flaw.kind).collect()
}

#[test]
fn headers_that_hold_and_cannot_be_are_refused() {
    for capacity in [0, 1, 31, 4095, 4097, MAX_SEGMENT_BYTES + 4096, 1 << 40, u64::MAX] {
        let bytes = segment(&SegmentHeader { capacity, ..header() }, None);
        let contents = verify(&bytes, IDENTITY, Told::default());
        assert_eq!(kinds(&contents), [FindingKind::SegmentHeader], "{capacity}");
    }
}

#[test]
fn ends_that_hold_and_cannot_be_are_not_believed() {
    let base = IDENTITY.base;
    let limit = base + CAPACITY as u64;
    for address in [0, base, base + 4095, base + 4100, limit - 1, limit + 32, u64::MAX] {
        let end = End { address, first_ordinal: 0, frames: 0, durable: 0 };
        let contents = verify(&segment(&header(), Some(end)), IDENTITY, Told::default());
        assert_eq!(kinds(&contents), [FindingKind::Seal], "{address}");
    }
    let end = End { address: limit, first_ordinal: u64::MAX, frames: 1, durable: u64::MAX };
    let contents = verify(&segment(&header(), Some(end)), IDENTITY, Told::default());
    assert_eq!(kinds(&contents), [FindingKind::Seal]);
}

#[test]
fn frames_of_absurd_length_or_count_are_findings() {
    for (len, ordinal) in [(u32::MAX >> 3, 0), (CAPACITY as u32, 0), (0, 7), (0, u32::MAX)] {
        let mut bytes = segment(&header(), None);
        let word = Word::new(State::Published, len);
        frame(&mut bytes, START, word, Header { ordinal, ..FRAME });
        frame(&mut bytes, CAPACITY - 32, Word::new(State::Void, 0), Header { ordinal, ..FRAME });
        let contents = verify(&bytes, IDENTITY, Told::default());
        assert!(!contents.flaws.is_empty(), "{len} {ordinal}");
    }
}

#[test]
fn durable_marks_beyond_the_segment_are_taken_for_what_they_say() {
    let mut bytes = segment(&header(), None);
    frame(&mut bytes, START, Word::new(State::Published, 0), FRAME);
    for durable in [u64::MAX, IDENTITY.base + (CAPACITY as u64) * 2] {
        let contents = verify(&bytes, IDENTITY, Told { end: None, durable });
        assert_eq!(kinds(&contents), [FindingKind::CorruptRecords]);
    }
}

#[test]
fn a_key_that_is_no_text_is_a_finding() {
    let mut bytes = segment(&header(), None);
    bytes[START + 32..START + 64].fill(0xff);
    frame(&mut bytes, START, Word::new(State::Published, 32), Header { key_len: 32, ..FRAME });
    let contents = verify(&bytes, IDENTITY, Told::default());
    assert_eq!(kinds(&contents), [FindingKind::CorruptRecords]);
}

#[test]
fn findings_without_number_are_counted_and_not_all_kept() {
    let base = IDENTITY.base;
    let capacity = 1 << 20;
    let end = End { address: base + capacity, first_ordinal: 0, frames: 0, durable: 0 };
    let mut bytes = segment(&SegmentHeader { capacity, ..header() }, Some(end));
    bytes.resize(capacity as usize, 0);
    for at in (START..bytes.len()).step_by(64) {
        frame(&mut bytes, at, Word::new(State::Void, 0), FRAME);
    }
    let contents = image::verify(&bytes, IDENTITY, Told::default());
    assert_eq!(contents.flaws.len(), 1000);
    assert!(contents.unlisted > 10_000);
}

/// Asserts that `is_sound` fails for every byte of `bytes` that is flipped with one mask or, if
/// the environment says so, with each of the 255, and wherever they are cut; how many flips that
/// were.
fn flip_and_cut(what: &str, bytes: &[u8], is_sound: impl Fn(&[u8]) -> bool) -> usize {
    // It takes a fast build: the gate does it.
    let all = std::env::var_os("MILLSTREAM_ALL_MASKS").is_some();
    let mut flipped = bytes.to_vec();
    assert!(is_sound(&flipped), "{what}");
    for at in 0..bytes.len() {
        let one = at as u8 | 1;
        for mask in if all { 1..=255 } else { one..=one } {
            flipped[at] ^= mask;
            assert!(!is_sound(&flipped), "{what}, byte {at} ^ {mask}");
            flipped[at] ^= mask;
        }
    }
    for len in 0..bytes.len() {
        assert!(!is_sound(&bytes[..len]), "{what}, cut to {len} bytes");
    }
    bytes.len() * if all { 255 } else { 1 }
}

#[test]
fn every_flipped_byte_of_a_segment_a_manifest_and_a_row_is_seen_and_every_cut() {
    use crate::format::control_row::{self, RowKey};
    use crate::format::manifest::Manifest;
    use crate::position::ShardId;

    const LEN: usize = 8192;
    let (base, capacity) = (IDENTITY.base, LEN as u64);
    let end = End { address: base + capacity, first_ordinal: 0, frames: 4, durable: 0 };
    let mut bytes = segment(&SegmentHeader { capacity, ..header() }, Some(end));
    bytes.truncate(LEN);
    // Full to its end: records of a few bytes, of half a segment, of none.
    let lens = [100, 2000, 0, LEN - START - 32 * 4 - 128 - 2016];
    let mut at = START;
    for (ordinal, len) in lens.into_iter().enumerate() {
        let header = Header { key_len: len.min(5) as u16, ordinal: ordinal as u32, ..FRAME };
        bytes[at + 32..at + 32 + len].fill(b'a' + ordinal as u8);
        frame(&mut bytes, at, Word::new(State::Published, len as u32), header);
        at += 32 + len.next_multiple_of(32);
    }
    assert_eq!(at, LEN);
    let mut flips = flip_and_cut("a segment", &bytes, |bytes| {
        verify(bytes, IDENTITY, Told::default()).flaws.is_empty()
    });
    let manifest = include_bytes!("../../tests/fixtures/format-1/stream/MANIFEST");
    flips += flip_and_cut("a manifest", manifest, |bytes| Manifest::decode(bytes).is_ok());
    let row: &[u8] = include_bytes!(
        "../../tests/fixtures/format-1/stream/applications/billing/shardId-000000000000.row"
    );
    let key = RowKey::new("billing", ShardId::new(0));
    flips += flip_and_cut("a row", row, |bytes| control_row::check(key, bytes).is_empty());
    assert!(flips >= LEN + row.len() + manifest.len());
}
