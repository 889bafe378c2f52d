//! Repairing a stream: what is whole stays readable, what is damaged is kept, nothing is deleted.

mod common;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::files::{
    copy_all, files, killed, make_small_stream, process_all, scratch, segments, small_segments,
};
use common::{S0, put, read_all};
use millstream::{
    Error, FindingKind, Remedy, ShardId, StartingPosition, Stream, plan_repair, repair, verify,
};
use tempfile::TempDir;

/// A closed stream of one shard with these records: frames of 3040 bytes, 20 in each segment.
fn numbered(records: usize) -> TempDir {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    for n in 0..records {
        stream.put("key", format!("{n:0>2997}")).unwrap();
    }
    stream.close().unwrap();
    directory
}

fn records(path: &Path) -> Vec<usize> {
    let stream = Stream::open_read_only(path).unwrap();
    let records = read_all(&stream, S0, StartingPosition::TrimHorizon);
    records.iter().map(|record| record.parse().unwrap()).collect()
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], at).unwrap();
}

#[track_caller]
fn is_repaired(path: &Path) {
    let found = verify(path).unwrap();
    assert_eq!(found.damage().collect::<Vec<_>>(), Vec::<&millstream::Finding>::new());
    // And there is nothing left to do.
    assert_eq!(repair(path).unwrap(), millstream::Repair::default());
}

#[test]
fn a_stream_without_damage_is_left_as_it_is() {
    let directory = scratch();
    make_small_stream(directory.path());
    let before: Vec<_> = files(directory.path()).iter().map(|f| fs::read(f).unwrap()).collect();
    is_repaired(directory.path());
    let after: Vec<_> = files(directory.path()).iter().map(|f| fs::read(f).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn readers_pass_over_damaged_records_and_the_bytes_are_kept() {
    let directory = numbered(100);
    let path = segments(directory.path(), S0)[1].clone();
    let (offset, len) = (4096 + 3 * 3040, 3 * 3040);
    for at in [offset, offset + 40, offset + 3040 + 100, offset + 2 * 3040 + 3000] {
        flip(&path, at);
    }
    let damaged = fs::read(&path).unwrap()[offset as usize..(offset + len) as usize].to_vec();
    assert_eq!(plan_repair(directory.path()).unwrap().repaired.len(), 1);
    let done = repair(directory.path()).unwrap();
    let [repaired] = &done.repaired[..] else { panic!("{done:?}") };
    assert_eq!((repaired.remedy, repaired.finding.records), (Remedy::VoidFrame, Some(3)));
    assert_eq!(fs::read(repaired.quarantined.as_ref().unwrap()).unwrap(), damaged);
    let name = format!("shardId-000000000000-{:020}-{offset}", 65536);
    assert_eq!(repaired.quarantined, Some(directory.path().join("quarantine").join(name)));
    assert!(done.left.is_empty());
    is_repaired(directory.path());
    let lost = 23..26;
    let expected: Vec<_> = (0..100).filter(|n| !lost.contains(n)).collect();
    assert_eq!(records(directory.path()), expected);
    let stream = Stream::open_read_only(directory.path()).unwrap();
    let described = stream.describe_shard(S0).unwrap();
    assert_eq!(described.records, 100, "records are counted as they were given numbers");
}

#[test]
fn workers_go_on_behind_what_was_lost() {
    let directory = numbered(60);
    flip(&segments(directory.path(), S0)[0], 4096 + 3040 * 7 + 50);
    repair(directory.path()).unwrap();
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    assert_eq!(process_all(&stream, "a"), 59);
}

#[test]
fn a_flip_of_any_byte_of_a_finished_segment_costs_at_most_one_record() {
    let directory = numbered(60);
    let sound = scratch();
    copy_all(directory.path(), sound.path());
    let path = segments(directory.path(), S0)[0].clone();
    for at in (4096..65536).step_by(509) {
        flip(&path, at);
        let done = repair(directory.path()).unwrap();
        assert_eq!((done.repaired.len(), done.left.len()), (1, 0), "{at}");
        assert!(verify(directory.path()).unwrap().is_intact(), "{at}");
        assert!(records(directory.path()).len() >= 59, "{at}");
        fs::remove_dir_all(directory.path()).unwrap();
        copy_all(sound.path(), directory.path());
    }
}

#[test]
fn a_segment_with_a_damaged_header_is_set_aside_whole_and_its_numbers_are_not_given_again() {
    for which in 0..4 {
        let directory = numbered(70);
        let all = segments(directory.path(), S0);
        let path = &all[which];
        flip(path, 40);
        let damaged = fs::read(path).unwrap();
        let done = repair(directory.path()).unwrap();
        let [repaired] = &done.repaired[..] else { panic!("{done:?}") };
        assert_eq!(repaired.finding.kind, FindingKind::SegmentHeader);
        assert_eq!(repaired.remedy, Remedy::VoidSegment);
        assert!(fs::read(repaired.quarantined.as_ref().unwrap()).unwrap() == damaged);
        is_repaired(directory.path());
        let lost = which * 20..which * 20 + 20;
        let expected: Vec<_> = (0..70).filter(|n| !lost.contains(n)).collect();
        assert_eq!(records(directory.path()), expected, "{which}");
        let stream = Stream::builder(directory.path()).open_existing().unwrap();
        let number = put(&stream, "70").sequence_number;
        assert!(number >= (4096u64 + 3 * 65536).into());
    }
}

#[test]
fn the_numbers_of_a_last_segment_that_was_cut_to_nothing_are_not_given_again() {
    let directory = numbered(70);
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    let last = put(&stream, "70").sequence_number;
    stream.close().unwrap();
    let path = &segments(directory.path(), S0)[3];
    File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    repair(directory.path()).unwrap();
    is_repaired(directory.path());
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    assert!(put(&stream, "new").sequence_number > last);
}

#[test]
fn a_damaged_seal_is_set_aside_and_opening_finds_the_end() {
    for which in 0..4 {
        let directory = numbered(70);
        flip(&segments(directory.path(), S0)[which], 2060);
        let done = repair(directory.path()).unwrap();
        assert_eq!(done.repaired[0].remedy, Remedy::SealRemoved);
        is_repaired(directory.path());
        let stream = Stream::builder(directory.path()).open_existing().unwrap();
        put(&stream, "70");
        let read = read_all(&stream, S0, StartingPosition::TrimHorizon);
        assert_eq!(read.len(), 71, "segment {which}");
    }
}

#[test]
fn files_that_are_in_the_way_are_moved_away() {
    let (directory, other) = (numbered(70), numbered(10));
    let all = segments(directory.path(), S0);
    // One that reaches into the next, and one of another stream in the place of one of ours.
    let overlapping = all[0].with_file_name(format!("{:020}.seg", 4096));
    fs::copy(&all[0], &overlapping).unwrap();
    fs::copy(&segments(other.path(), S0)[0], &all[2]).unwrap();
    assert!(Stream::open_read_only(directory.path()).is_err());
    let done = repair(directory.path()).unwrap();
    let remedies: BTreeSet<_> = done.repaired.iter().map(|r| format!("{:?}", r.remedy)).collect();
    assert_eq!(remedies, ["MovedAway".into(), "VoidSegment".into()].into());
    is_repaired(directory.path());
    let expected: Vec<_> = (0..40).chain(60..70).collect();
    assert_eq!(records(directory.path()), expected);
    assert!(!overlapping.try_exists().unwrap());
}

#[test]
fn a_segment_that_was_cut_or_grew_gets_its_length_again() {
    for len in [30_000, 65_504, 65_536 + 100] {
        let directory = numbered(70);
        let path = &segments(directory.path(), S0)[1];
        File::options().write(true).open(path).unwrap().set_len(len).unwrap();
        repair(directory.path()).unwrap();
        is_repaired(directory.path());
        let lost = if len < 60_000 { 12 } else { 0 };
        assert_eq!(records(directory.path()).len(), 70 - lost, "{len}");
    }
}

#[test]
fn a_segment_that_is_missing_is_replaced_by_a_void_one() {
    let directory = numbered(70);
    fs::remove_file(&segments(directory.path(), S0)[1]).unwrap();
    let done = repair(directory.path()).unwrap();
    assert_eq!(done.repaired[0].finding.records, Some(20));
    is_repaired(directory.path());
    assert_eq!(records(directory.path()), (0..20).chain(40..70).collect::<Vec<_>>());
}

/// The files of a stream with several kinds of damage.
fn damaged() -> TempDir {
    let directory = numbered(100);
    let all = segments(directory.path(), S0);
    flip(&all[0], 5000);
    flip(&all[1], 30);
    flip(&all[2], 2050);
    flip(&all[3], 65_000);
    directory
}

fn remedies(path: &Path) -> usize {
    repair(path).unwrap().repaired.len()
}

#[test]
fn a_repair_that_was_killed_after_it_kept_the_bytes_is_repeated() {
    let (directory, done) = (damaged(), damaged());
    // The salts are random: the second one is a copy.
    fs::remove_dir_all(done.path()).unwrap();
    copy_all(directory.path(), done.path());
    let expected = remedies(done.path());
    let kept = files(&done.path().join("quarantine"));
    for some in 0..=kept.len() {
        let image = killed(directory.path());
        let quarantine = image.path().join("quarantine");
        fs::create_dir(&quarantine).unwrap();
        for copy in &kept[..some] {
            fs::copy(copy, quarantine.join(copy.file_name().unwrap())).unwrap();
        }
        // And one copy that is not whole yet.
        if let Some(next) = kept.get(some) {
            let name = format!("{}.new", next.file_name().unwrap().to_str().unwrap());
            fs::write(quarantine.join(name), "half").unwrap();
        }
        assert_eq!(remedies(image.path()), expected);
        is_repaired(image.path());
    }
}

#[test]
fn a_repair_that_was_killed_between_any_two_files_is_repeated() {
    let directory = damaged();
    let done = killed(directory.path());
    remedies(done.path());
    let all = segments(directory.path(), S0);
    for repaired in 0..1 << 4 {
        let image = killed(directory.path());
        for (which, path) in all.iter().enumerate() {
            let name = path.strip_prefix(directory.path()).unwrap();
            if repaired & 1 << which != 0 {
                fs::copy(done.path().join(name), image.path().join(name)).unwrap();
            }
        }
        remedies(image.path());
        is_repaired(image.path());
    }
}

#[test]
fn a_void_frame_of_which_a_part_was_written_is_written_again() {
    let directory = numbered(30);
    let path = segments(directory.path(), S0)[0].clone();
    flip(&path, 5000);
    let damaged = fs::read(&path).unwrap();
    repair(directory.path()).unwrap();
    let repaired = fs::read(&path).unwrap();
    let range = 4096..4096 + 32;
    for cut in range.clone() {
        let mut torn = damaged.clone();
        torn[range.start..cut].copy_from_slice(&repaired[range.start..cut]);
        fs::write(&path, torn).unwrap();
        repair(directory.path()).unwrap();
        assert!(verify(directory.path()).unwrap().is_intact(), "{cut}");
        assert_eq!(records(directory.path()).len(), 29, "{cut}");
    }
}

#[test]
fn what_was_kept_is_never_overwritten() {
    let directory = numbered(30);
    let path = segments(directory.path(), S0)[0].clone();
    for at in [5000, 5001, 5002] {
        // The void frame of the last repair is damaged in its turn.
        flip(&path, at);
        repair(directory.path()).unwrap();
    }
    assert_eq!(files(&directory.path().join("quarantine")).len(), 3);
    is_repaired(directory.path());
}

#[test]
fn a_stream_that_is_open_is_not_repaired() {
    let directory = damaged();
    fs::remove_file(&segments(directory.path(), S0)[1]).unwrap();
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    assert!(matches!(repair(directory.path()), Err(Error::Locked { .. })));
    // What would be done can be asked all the same.
    assert!(!plan_repair(directory.path()).unwrap().repaired.is_empty());
    drop(stream);
}

#[test]
fn a_damaged_manifest_or_row_is_not_repaired_but_said() {
    let directory = scratch();
    make_small_stream(directory.path());
    let row = directory.path().join("applications/billing/shardId-000000000000.row");
    fs::write(&row, [0; 1024]).unwrap();
    let done = repair(directory.path()).unwrap();
    assert!(done.repaired.is_empty());
    assert!(done.left.iter().all(|finding| finding.kind == FindingKind::ControlRow));
    assert_eq!(done.left[0].shard, Some(ShardId::new(0)));
    fs::write(directory.path().join("MANIFEST"), "?").unwrap();
    assert!(matches!(repair(directory.path()), Err(Error::Corrupt { .. })));
}
