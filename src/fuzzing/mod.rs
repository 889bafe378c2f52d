//! What is fuzzed: functions that take any bytes, and must neither panic nor go on for ever. The
//! package in `fuzz/` calls them; the tests below replay them over its corpora.
//!
//! A bit of the first byte has checksums made to hold, or a fuzzer would never get past them.

mod directory;
mod operations;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use xxhash_rust::xxh3::xxh3_128;

pub use directory::{directory, segment};
pub use operations::operations;

use crate::format::control_row::{self, ROW_LEN, RowKey, SLOT_LEN};
use crate::format::frame::{self, HEADER_LEN, Header, UNIT, Word};
use crate::format::manifest::Manifest;
use crate::format::queue_entry;
use crate::format::search::{Image, Search};
use crate::format::{put, u32_at};
use crate::position::ShardId;

/// Takes any bytes.
pub type Body = fn(&[u8]);

/// All of them by their names, which are those of their corpora.
pub const TARGETS: [(&str, Body); 7] = [
    ("frame", frame),
    ("manifest", manifest),
    ("control_row", control_row),
    ("queue_entry", queue_entry),
    ("segment", segment),
    ("directory", directory),
    ("operations", operations),
];

/// Whether checksums are to be made to hold, and the rest.
fn options(input: &[u8]) -> (bool, &[u8]) {
    input.split_first().map_or((false, input), |(first, rest)| (first & 1 == 1, rest))
}

/// Frames: what a search finds holds, and no other place does.
pub fn frame(input: &[u8]) {
    const BASE: u64 = 4096;
    let (repair, rest) = options(input);
    let mut bytes = rest.to_vec();
    bytes.resize(rest.len().next_multiple_of(UNIT as usize), 0);
    if repair {
        repair_frame(&mut bytes, BASE, BASE as u32);
    }
    let image = Image { bytes: &bytes, base: BASE, salt: BASE as u32 };
    let (mut search, mut offset) = (Search::default(), 0);
    while let Some((at, found)) = search.next_whole(image, offset, bytes.len() as u32) {
        assert!(at >= offset && found.next > at && found.next as usize <= bytes.len());
        let frame = &bytes[at as usize..found.next as usize];
        let held = frame::verify(image.salt, Word(u32_at(frame, 0)), BASE + u64::from(at), frame);
        assert_eq!(held, Some(found.header));
        offset = found.next;
    }
}

/// Has the first frame of these bytes name its place, fit, and have the right checksum.
fn repair_frame(bytes: &mut [u8], address: u64, salt: u32) {
    let room = bytes.len() as u32;
    if room < HEADER_LEN {
        return;
    }
    let word = Word(u32_at(bytes, 0));
    let len = word.len().min(room - HEADER_LEN);
    let word = Word(word.0 - word.len() + len);
    put(bytes, 0..4, &word.0.to_le_bytes());
    put(bytes, 8..16, &address.to_le_bytes());
    let body = HEADER_LEN as usize..(HEADER_LEN + len) as usize;
    let key_len = usize::from(Header::decode(bytes).key_len).min(body.len());
    let (key, data) = bytes[body].split_at(key_len);
    let (fields, key, sum) = (frame::stored_fields(bytes), xxh3_128(key), frame::data_sum(data));
    let checksum = frame::checksum(salt, word, fields, key, sum);
    put(bytes, 4..8, &checksum.to_le_bytes());
}

/// Manifests: one that is read comes back as it is written.
pub fn manifest(input: &[u8]) {
    let (repair, rest) = options(input);
    let mut bytes = rest.to_vec();
    if repair {
        bytes.extend(format!("crc32 {:08x}\n", crc32fast::hash(&bytes)).bytes());
    }
    if let Ok(manifest) = Manifest::decode(&bytes) {
        assert_eq!(Manifest::decode(manifest.encode().as_bytes()), Ok(manifest));
    }
}

/// Control rows: one that is read comes back as it is written.
pub fn control_row(input: &[u8]) {
    let (repair, rest) = options(input);
    let mut bytes = rest.to_vec();
    bytes.truncate(2 * ROW_LEN);
    if repair {
        repair_row(&mut bytes);
    }
    let key = RowKey::new("fuzz", ShardId::new(7));
    let damage = control_row::check(key, &bytes);
    match control_row::decode(key, &bytes) {
        Ok(row) => {
            assert!(damage.len() < 2);
            let mut again = vec![0; ROW_LEN];
            let at = row.offset();
            put(&mut again, at..at + SLOT_LEN, &control_row::encode(key, &row));
            assert_eq!(control_row::decode(key, &again), Ok(row));
        }
        Err(_) => assert_eq!(damage.len(), 2),
    }
}

/// Entries of a queue's journal: what is read comes back as it is written.
pub fn queue_entry(input: &[u8]) {
    if let Ok(entries) = queue_entry::decode_all(input) {
        let again: Vec<u8> = entries.into_iter().flat_map(queue_entry::encode).collect();
        assert_eq!(again, input);
    }
}

/// Has the slots of a row the right checksums.
fn repair_row(bytes: &mut [u8]) {
    for slot in bytes.as_chunks_mut::<SLOT_LEN>().0 {
        let crc = crc32fast::hash(&slot[..SLOT_LEN - 4]);
        put(slot, SLOT_LEN - 4..SLOT_LEN, &crc.to_le_bytes());
    }
}

/// A directory in memory that is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let path = parent.join(format!("millstream-fuzz-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("a directory can be made");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_the_corpora_is_too_much() {
        for (name, target) in TARGETS {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut inputs = 0;
            for entry in std::fs::read_dir(&corpus).unwrap() {
                target(&std::fs::read(entry.unwrap().path()).unwrap());
                inputs += 1;
            }
            assert!(inputs > 0, "{corpus:?} is empty");
            target(&[]);
        }
    }
}
