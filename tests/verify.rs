//! Verifying a stream: every byte counts, nothing is found in a good one, and it reads only.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::files::{
    copy_all, files, killed, make_small_stream, scratch, segments, small_segments,
};
use common::{S0, put};
use millstream::{Durability, Error, FindingKind, PutRecord, Stream, Verification, repair, verify};

/// A small stream in which every kind of file occurs.
fn small_stream() -> tempfile::TempDir {
    let directory = scratch();
    make_small_stream(directory.path());
    directory
}

fn kinds(path: &Path) -> Vec<FindingKind> {
    verify(path).unwrap().findings.iter().map(|finding| finding.kind).collect()
}

/// The numbers of a xorshift generator.
fn random(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    }
}

#[test]
fn a_stream_that_was_closed_is_intact_and_nothing_is_found() {
    let directory = small_stream();
    let found = verify(directory.path()).unwrap();
    assert_eq!(found.findings, []);
    assert_eq!((found.shards, found.records), (3, 37));
    assert_eq!(found.files, files(directory.path()).len() as u64);
}

#[test]
fn a_stream_that_is_being_written_is_intact() {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for n in 0..20_000 {
                stream.put(&n.to_string(), vec![7; n % 3000]).unwrap();
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds == 0 {
            let found = verify(directory.path()).unwrap();
            let damage: Vec<_> = found.damage().collect();
            assert!(damage.is_empty(), "{damage:?}");
            rounds += 1;
        }
    });
}

#[test]
fn verifying_changes_nothing_and_takes_no_lock() {
    let directory = small_stream();
    let content = |path: &Path| -> BTreeMap<_, _> {
        files(path).into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
    };
    let before = content(directory.path());
    verify(directory.path()).unwrap();
    assert!(content(directory.path()) == before);
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    verify(directory.path()).unwrap();
    put(&stream, "go on");
}

#[test]
fn every_flipped_byte_of_every_file_is_found() {
    // The long run flips a million.
    let flips = std::env::var("MILLSTREAM_FLIPS").map_or(4000, |flips| flips.parse().unwrap());
    let directory = small_stream();
    let sound = verify(directory.path()).unwrap();
    let files: Vec<_> = files(directory.path())
        .into_iter()
        .map(|path| {
            let file = File::options().write(true).open(&path).unwrap();
            let bytes = fs::read(&path).unwrap();
            (path, file, bytes)
        })
        .collect();
    // The first page of a segment and the small files are hit as often as all the rest.
    let mut random = random(0x9e37_79b9_7f4a_7c15);
    for flip in 0..flips {
        let (path, file, bytes) = &files[random() as usize % files.len()];
        let range = if flip % 2 == 0 { bytes.len() } else { bytes.len().min(8192) };
        let at = random() as usize % range;
        let mask = 1 + (random() % 255) as u8;
        file.write_all_at(&[bytes[at] ^ mask], at as u64).unwrap();
        let found = verify(directory.path()).unwrap();
        assert_ne!(found.findings, sound.findings, "{path:?}, byte {at} ^ {mask}");
        let named = found.findings.iter().any(|finding| finding.path == *path);
        assert!(named, "{path:?}, byte {at} ^ {mask}: {:?}", found.findings);
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
    }
    assert_eq!(verify(directory.path()).unwrap(), sound);
}

#[test]
fn a_page_that_is_zeroed_or_another_one_is_found() {
    const PAGE: usize = 4096;
    let (directory, other) = (small_stream(), small_stream());
    let sound = verify(directory.path()).unwrap();
    let foreign = fs::read(&segments(other.path(), S0)[0]).unwrap();
    let mut changes = 0;
    for path in files(directory.path()) {
        let bytes = fs::read(&path).unwrap();
        let pages: Vec<_> = bytes.chunks(PAGE).collect();
        for at in 0..pages.len() {
            // The pages beside it, the first one, one of another stream, none.
            let next = pages[(at + 1) % pages.len()];
            let before = pages[at.saturating_sub(1)];
            let alien = &foreign[at * PAGE % foreign.len()..][..PAGE];
            for page in [next, before, pages[0], alien, &[0; PAGE]] {
                let (range, mut changed) = (at * PAGE..at * PAGE + pages[at].len(), bytes.clone());
                let len = range.len().min(page.len());
                changed[range.start..range.start + len].copy_from_slice(&page[..len]);
                changes += expect_found(&path, &bytes, &changed, &sound);
            }
            // Two in each other's place.
            let (one, two) = (at * PAGE, (at + 1) * PAGE);
            if two + PAGE <= bytes.len() {
                let mut changed = bytes.clone();
                changed[one..two].copy_from_slice(next);
                changed[two..two + PAGE].copy_from_slice(pages[at]);
                changes += expect_found(&path, &bytes, &changed, &sound);
            }
        }
    }
    assert!(changes > 200, "{changes} changes were made");
    assert_eq!(verify(directory.path()).unwrap(), sound);
}

/// Asserts that a file that was changed is found, and puts it back; how many changes that were.
fn expect_found(path: &Path, bytes: &[u8], changed: &[u8], sound: &Verification) -> u32 {
    if changed == bytes {
        return 0;
    }
    fs::write(path, changed).unwrap();
    let root = path.ancestors().find(|above| above.join("MANIFEST").is_file()).unwrap();
    let found = verify(root).unwrap();
    assert_ne!(found.findings, sound.findings, "{path:?}");
    fs::write(path, bytes).unwrap();
    1
}

#[test]
fn a_flipped_byte_of_a_finished_segment_is_damage_at_its_frame() {
    let directory = small_stream();
    let path = &segments(directory.path(), S0)[1];
    let bytes = fs::read(path).unwrap();
    for at in (4096..bytes.len()).step_by(997) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 4;
        fs::write(path, flipped).unwrap();
        let found = verify(directory.path()).unwrap();
        let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
        assert!(finding.kind.is_damage());
        let range = finding.offset..finding.offset + finding.len;
        assert!(range.contains(&(at as u64)), "{at}: {finding:?}");
    }
}

#[test]
fn what_a_kill_left_is_no_damage() {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    let numbers: Vec<usize> = (0..10)
        .map(|n| put(&stream, &n.to_string()).sequence_number.to_string().parse().unwrap())
        .collect();
    let copy = killed(directory.path());
    let path = &segments(copy.path(), S0)[0];
    let mut bytes = fs::read(path).unwrap();
    // One was killed before it said what it claimed, one after it.
    bytes[numbers[3]..numbers[4]].fill(0);
    bytes[numbers[6]..numbers[7]].fill(0);
    bytes[numbers[6]..numbers[6] + 4].copy_from_slice(&(1u32 << 29 | 32).to_le_bytes());
    // And this is what a power cut leaves.
    bytes[numbers[8] + 33] ^= 1;
    fs::write(path, bytes).unwrap();
    let lives: [fn(&Path); 3] = [
        |_| {},
        // Opened again, gone on with, and closed.
        |path| {
            let stream = Stream::builder(path).open_existing().unwrap();
            put(&stream, "next life");
            stream.close().unwrap();
        },
        |path| {
            let stream = Stream::builder(path).open_existing().unwrap();
            stream.put_record(PutRecord::new("k", "d").durability(Durability::Sync)).unwrap();
            put(&stream, "tells how far it is durable");
        },
    ];
    for life in lives {
        life(copy.path());
        let found = verify(copy.path()).unwrap();
        assert!(found.is_intact(), "{:?}", found.findings);
        let kinds: Vec<_> = found.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::Hole, FindingKind::Hole, FindingKind::Lost]);
        assert_eq!(found.findings[2].records, Some(1));
        assert_eq!(found.findings[2].offset as usize, numbers[8]);
    }
}

#[test]
fn a_segment_that_is_missing_is_noticed() {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    for n in 0..200u8 {
        stream.put("key", vec![n; 1700]).unwrap();
    }
    stream.close().unwrap();
    let all = segments(directory.path(), S0);
    fs::remove_file(&all[2]).unwrap();
    let found = verify(directory.path()).unwrap();
    let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
    assert_eq!(finding.kind, FindingKind::MissingSegment);
    assert_eq!(finding.records, Some(34));
    assert_eq!(finding.path, all[3]);
}

#[test]
fn files_that_are_of_elsewhere_are_named() {
    let directory = small_stream();
    let shard = directory.path().join("shards/shardId-000000000000");
    let segments = segments(directory.path(), S0);
    fs::copy(&segments[0], shard.join("00000000000000999424.seg")).unwrap();
    fs::write(shard.join("notes.txt"), "what is this?").unwrap();
    fs::write(shard.join("00000000000000131072.new"), "half a segment").unwrap();
    fs::create_dir(directory.path().join("shards/shardId-000000000099")).unwrap();
    assert_eq!(
        kinds(directory.path()),
        [
            FindingKind::UnfinishedFile,
            FindingKind::ForeignSegment,
            FindingKind::UnknownFile,
            FindingKind::UnknownFile,
        ]
    );
}

#[test]
fn a_header_that_tells_of_an_impossible_end_is_named() {
    let directory = small_stream();
    let path = &segments(directory.path(), S0)[1];
    let mut bytes = fs::read(path).unwrap();
    // The end of the first segment, as the header of the second one has it.
    bytes[64..72].copy_from_slice(&u64::MAX.to_le_bytes());
    let crc = crc32fast::hash(&bytes[16..2048]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    fs::write(path, bytes).unwrap();
    assert!(Stream::open_read_only(directory.path()).is_err());
    let found = verify(directory.path()).unwrap();
    let named = |finding: &&millstream::Finding| finding.kind == FindingKind::SegmentHeader;
    assert_eq!(found.damage().find(named).unwrap().path, *path);
}

#[test]
fn a_segment_of_another_shard_or_stream_is_foreign() {
    for shard in ["0", "1"] {
        let (directory, other) = (small_stream(), small_stream());
        let from = if shard == "1" { directory.path() } else { other.path() };
        let from = from.join(format!("shards/shardId-00000000000{shard}"));
        let from = files(&from)[0].clone();
        let to = segments(directory.path(), S0)[0].clone();
        fs::copy(from, &to).unwrap();
        let found = verify(directory.path()).unwrap();
        let finding = found.findings.iter().find(|finding| finding.path == to).unwrap();
        assert_eq!(finding.kind, FindingKind::ForeignSegment);
    }
}

#[test]
fn a_segment_that_was_cut_or_grew_is_damaged() {
    let directory = small_stream();
    let path = &segments(directory.path(), S0)[0];
    for len in [60_000, 100_000] {
        File::options().write(true).open(path).unwrap().set_len(len).unwrap();
        assert!(kinds(directory.path()).contains(&FindingKind::SegmentLength), "{len}");
    }
    for len in [0, 1, 4095] {
        File::options().write(true).open(path).unwrap().set_len(len).unwrap();
        assert!(kinds(directory.path()).contains(&FindingKind::SegmentHeader), "{len}");
    }
}

#[test]
fn a_damaged_manifest_does_not_keep_the_segments_from_being_verified() {
    let directory = small_stream();
    fs::write(directory.path().join("MANIFEST"), "no manifest").unwrap();
    let path = &segments(directory.path(), S0)[0];
    let mut bytes = fs::read(path).unwrap();
    bytes[5000] ^= 1;
    fs::write(path, bytes).unwrap();
    assert_eq!(kinds(directory.path()), [FindingKind::Manifest, FindingKind::CorruptRecords]);
}

#[test]
fn random_bytes_in_every_file_are_findings_and_nothing_worse() {
    let directory = small_stream();
    let sound = scratch();
    copy_all(directory.path(), sound.path());
    let mut random = random(7);
    for round in 0..200 {
        for path in files(directory.path()) {
            let mut bytes = fs::read(&path).unwrap();
            let (at, len) = (random() as usize % bytes.len(), random() as usize % 5000);
            // The checksum of a header is made to hold now and then by leaving it alone.
            let from = if round % 2 == 0 { at } else { at.max(4096).min(bytes.len()) };
            for byte in bytes[from..].iter_mut().take(len) {
                *byte = random() as u8;
            }
            fs::write(&path, bytes).unwrap();
        }
        let found: Verification = verify(directory.path()).unwrap();
        assert!(round == 0 || !found.findings.is_empty());
        fs::remove_dir_all(directory.path()).unwrap();
        copy_all(sound.path(), directory.path());
    }
}

#[test]
fn what_is_no_stream_is_not_verified() {
    let directory = scratch();
    assert!(matches!(verify(directory.path().join("no")), Err(Error::StreamNotFound { .. })));
    assert!(matches!(verify(directory.path()), Err(Error::NotAStream { .. })));
}

#[test]
fn segments_that_were_trimmed_are_not_missed_but_others_are() {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    let numbers: Vec<_> =
        (0..300).map(|_| stream.put("k", [7; 1000]).unwrap().sequence_number).collect();
    stream.trim(S0, numbers[150]).unwrap();
    stream.close().unwrap();
    assert_eq!(verify(directory.path()).unwrap().findings, []);
    let there = segments(directory.path(), S0);
    for missing in &there[..2] {
        let copy = killed(directory.path());
        fs::remove_file(copy.path().join(missing.strip_prefix(directory.path()).unwrap())).unwrap();
        let found = verify(copy.path()).unwrap();
        let kinds: Vec<_> = found.findings.iter().map(|finding| finding.kind).collect();
        assert_eq!(kinds, [FindingKind::MissingSegment], "{missing:?}");
        // Repaired, it counts the records as before.
        repair(copy.path()).unwrap();
        assert_eq!(verify(copy.path()).unwrap().findings, []);
        let repaired = Stream::open_read_only(copy.path()).unwrap().describe_shard(S0).unwrap();
        assert_eq!(repaired.records + repaired.trimmed_records, 300, "{missing:?}");
    }
}
