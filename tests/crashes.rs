//! A killed process: what is in the page cache is all there is. A copy of the files while the
//! stream is open is what the next process would find.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::files::killed;
use common::{Fixture, S0, START_MS, TestClock, put, read_all};
use millstream::{Durability, Limit, PutRecord, SequenceNumber, StartingPosition, Stream};

fn everything(stream: &Stream) -> Vec<String> {
    read_all(stream, S0, StartingPosition::TrimHorizon)
}

#[test]
fn everything_acknowledged_is_there_after_a_kill() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let expected: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    for data in &expected {
        put(stream, data);
    }
    let copy = killed(directory.path());
    let reopened = Stream::builder(copy.path()).open_existing().unwrap();
    assert_eq!(everything(&reopened), expected);
}

#[test]
fn a_stream_that_is_killed_again_and_again_keeps_everything_and_repeats_no_number() {
    let mut directory = tempfile::tempdir().unwrap();
    Stream::builder(directory.path()).max_segment_bytes(64 << 10).create().unwrap();
    let mut expected = Vec::new();
    let mut last: Option<SequenceNumber> = None;
    for life in 0..20 {
        let stream = Stream::builder(directory.path()).open_existing().unwrap();
        assert_eq!(everything(&stream), expected, "life {life}");
        for n in 0..life * 40 {
            let data = format!("{life}/{n}");
            let number = put(&stream, &data).sequence_number;
            assert!(last < Some(number));
            last = Some(number);
            expected.push(data);
        }
        // Every third one ends in good order.
        directory = if life % 3 == 0 {
            stream.close().unwrap();
            killed(directory.path())
        } else {
            killed(directory.path())
        };
    }
}

#[test]
fn recovery_that_is_killed_itself_changes_nothing() {
    let Fixture { directory, stream } = &Fixture::new(1);
    for n in 0..100 {
        put(stream, &n.to_string());
    }
    let mut copy = killed(directory.path());
    for _ in 0..5 {
        let reopened = Stream::builder(copy.path()).open_existing().unwrap();
        assert_eq!(everything(&reopened).len(), 100);
        copy = killed(copy.path());
    }
}

#[test]
fn numbers_are_not_used_again_though_their_records_were_lost() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..100).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    let copy = killed(directory.path());
    // A power cut took the second half of the segment.
    let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let lost = numbers[50].to_string().parse().unwrap();
    bytes[lost..].fill(0);
    fs::write(&path, bytes).unwrap();
    for _ in 0..3 {
        // Opening alone uses no numbers up, and forgets none.
        drop(Stream::builder(copy.path()).open_existing().unwrap());
    }
    let reopened = Stream::builder(copy.path()).open_existing().unwrap();
    assert_eq!(everything(&reopened).len(), 50);
    let number = put(&reopened, "new").sequence_number;
    assert!(number > numbers[99]);
    // A consumer that had seen the lost records gets the new one.
    let after = StartingPosition::AfterSequenceNumber(numbers[99]);
    assert_eq!(read_all(&reopened, S0, after), ["new"]);
}

#[test]
fn records_behind_a_torn_one_are_kept() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    let copy = killed(directory.path());
    let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let torn: usize = numbers[4].to_string().parse().unwrap();
    bytes[torn + 8..torn + 64].fill(0);
    fs::write(&path, bytes).unwrap();
    let reopened = Stream::builder(copy.path()).open_existing().unwrap();
    let expected = ["0", "1", "2", "3", "5", "6", "7", "8", "9"];
    assert_eq!(everything(&reopened), expected);
}

#[test]
fn damage_below_what_was_durable_is_reported_with_file_and_offset() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    stream.put_record(PutRecord::new("k", "sync").durability(Durability::Sync)).unwrap();
    put(stream, "told so");
    let copy = killed(directory.path());
    let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let damaged: usize = numbers[4].to_string().parse().unwrap();
    bytes[damaged + 33] ^= 1;
    fs::write(&path, bytes).unwrap();
    let reopened = Stream::builder(copy.path()).open_existing().unwrap();
    let horizon = reopened.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let before = reopened.get_records(&horizon, Limit::default()).unwrap();
    assert_eq!(before.records.len(), 4, "what precedes the damage is read");
    match reopened.get_records(&before.next_shard_iterator.unwrap(), Limit::default()) {
        Err(millstream::Error::Corrupt { path: file, offset, .. }) => {
            assert_eq!((file, offset), (path, damaged as u64));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_shard_that_is_split_right_after_a_kill_is_read_to_its_end_by_other_processes() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    for with_hole in [false, true] {
        let copy = killed(directory.path());
        if with_hole {
            let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
            let mut bytes = fs::read(&path).unwrap();
            let [from, to] = [4, 5].map(|n: usize| numbers[n].to_string().parse().unwrap());
            bytes[from..to].fill(0);
            fs::write(&path, bytes).unwrap();
        }
        let reopened = Stream::builder(copy.path()).open_existing().unwrap();
        let children = reopened.split_shard(S0, millstream::HashKey::new(1 << 127)).unwrap();
        let reader = Stream::open_read_only(copy.path()).unwrap();
        assert_eq!(everything(&reader).len(), if with_hole { 9 } else { 10 });
        let last = StartingPosition::AtSequenceNumber(numbers[9]);
        let at = reader.shard_iterator(S0, last).unwrap();
        let mut page = reader.get_records(&at, Limit::default()).unwrap();
        while let Some(next) = page.next_shard_iterator.filter(|_| !page.records.is_empty()) {
            page = reader.get_records(&next, Limit::default()).unwrap();
        }
        let found: Vec<_> = page.child_shards.iter().map(|shard| shard.id).collect();
        assert_eq!(found, children);
    }
}

#[test]
fn records_behind_a_hole_are_seen_by_other_processes_once_the_stream_was_open_again() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    let copy = killed(directory.path());
    let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let [from, to] = [4, 5].map(|n: usize| numbers[n].to_string().parse().unwrap());
    bytes[from..to].fill(0);
    fs::write(&path, bytes).unwrap();
    Stream::builder(copy.path()).open_existing().unwrap().close().unwrap();
    assert_eq!(everything(&Stream::open_read_only(copy.path()).unwrap()).len(), 9);
}

#[test]
fn a_reshard_that_was_committed_is_there_after_a_kill() {
    let Fixture { directory, stream } = &Fixture::new(1);
    put(stream, "parent");
    stream.split_shard(S0, millstream::HashKey::new(1 << 127)).unwrap();
    put(stream, "child");
    let copy = killed(directory.path());
    let reopened = Stream::builder(copy.path()).open_existing().unwrap();
    let shards = reopened.shards();
    assert_eq!(shards.len(), 3);
    let records: Vec<_> = shards
        .iter()
        .flat_map(|shard| read_all(&reopened, shard.id, StartingPosition::TrimHorizon))
        .collect();
    assert_eq!(records, ["parent", "child"]);
}

/// Has a power cut take everything that was written to a segment.
fn lose_frames(directory: &Path, segment: &str) {
    let path = directory.join("shards/shardId-000000000000").join(segment);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096..].fill(0);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_segment_that_holds_nothing_is_gone_when_the_next_one_is_there_and_reading_goes_on() {
    let Fixture { directory, stream } = &Fixture::new(1);
    put(stream, "first life");
    let copy = killed(directory.path());
    let second = Stream::builder(copy.path()).open_existing().unwrap();
    put(&second, "lost");
    let copy = killed(copy.path());
    lose_frames(copy.path(), "00000000000000262144.seg");
    let third = Stream::builder(copy.path()).open_existing().unwrap();
    put(&third, "third life");
    assert_eq!(everything(&third), ["first life", "third life"]);
}

/// Has a producer be killed between claim and publish, in place of a record with one byte of data.
fn leave_hole(directory: &Path, number: SequenceNumber) {
    let path = directory.join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let at: usize = number.to_string().parse().unwrap();
    bytes[at..at + 64].fill(0);
    bytes[at..at + 4].copy_from_slice(&(1u32 << 29 | 32).to_le_bytes());
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_behind_a_hole_stays_though_the_segment_that_told_of_it_was_never_used() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..3).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    let copy = killed(directory.path());
    leave_hole(copy.path(), numbers[1]);
    let second = Stream::builder(copy.path()).open_existing().unwrap();
    put(&second, "lost");
    let copy = killed(copy.path());
    lose_frames(copy.path(), "00000000000000262144.seg");
    let third = Stream::builder(copy.path()).open_existing().unwrap();
    put(&third, "3");
    let copy = killed(copy.path());
    let fourth = Stream::builder(copy.path()).open_existing().unwrap();
    assert_eq!(everything(&fourth), ["0", "2", "3"]);
}

#[test]
fn reading_goes_on_behind_a_paused_segment_though_an_unused_one_was_left_behind_it() {
    let Fixture { directory, stream } = Fixture::new(1);
    for _ in 0..80 {
        stream.put("k", [7; 1000]).unwrap();
    }
    // The next segment is made meanwhile.
    let unused = directory.path().join("shards/shardId-000000000000/00000000000000262144.seg");
    while !unused.try_exists().unwrap() {
        std::thread::yield_now();
    }
    let bytes = fs::read(&unused).unwrap();
    stream.close().unwrap();
    // A power cut took its removal back.
    fs::write(&unused, bytes).unwrap();
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    put(&stream, "behind both");
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for stream in [&stream, &reader] {
        let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        let page = stream.get_records(&horizon, Limit::default()).unwrap();
        assert_eq!(page.records.len(), 81);
    }
}

#[test]
fn a_reader_gets_over_a_hole_though_nothing_was_put_since() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..3).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    for is_split in [false, true] {
        let copy = killed(directory.path());
        leave_hole(copy.path(), numbers[1]);
        let stream = Stream::builder(copy.path()).open_existing().unwrap();
        if is_split {
            stream.split_shard(S0, millstream::HashKey::new(1 << 127)).unwrap();
        }
        stream.close().unwrap();
        let reader = Stream::open_read_only(copy.path()).unwrap();
        assert_eq!(everything(&reader), ["0", "2"]);
    }
}

#[test]
fn a_time_is_found_in_a_segment_that_was_gone_on_with_and_then_cut_off() {
    let clock = TestClock::new();
    let Fixture { directory, stream } = Fixture::with(|b| b.clock(clock.clone()));
    put(&stream, "before");
    stream.close().unwrap();
    let stream = Stream::builder(directory.path()).clock(clock.clone()).open_existing().unwrap();
    clock.set(1000);
    put(&stream, "then");
    let copy = killed(directory.path());
    let reopened = Stream::builder(copy.path()).clock(clock.clone()).open_existing().unwrap();
    put(&reopened, "later");
    let then = StartingPosition::AtTimestampMs(START_MS + 1000);
    assert_eq!(read_all(&reopened, S0, then), ["then", "later"]);
}

#[test]
fn an_interval_makes_records_durable_without_anybody_asking() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let interval = Durability::Interval(Duration::from_millis(1));
    let first = stream.put_record(PutRecord::new("k", "first").durability(interval)).unwrap();
    // A later record tells how far the segment was durable when it was written.
    let damaged: usize = first.sequence_number.to_string().parse().unwrap();
    let is_reported = || {
        put(stream, "later");
        let copy = killed(directory.path());
        let path = copy.path().join("shards/shardId-000000000000/00000000000000000000.seg");
        let mut bytes = fs::read(&path).unwrap();
        bytes[damaged + 33] ^= 1;
        fs::write(&path, bytes).unwrap();
        let reopened = Stream::builder(copy.path()).open_existing().unwrap();
        let horizon = reopened.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        reopened.get_records(&horizon, Limit::default()).is_err()
    };
    while !is_reported() {
        std::thread::yield_now();
    }
}

#[test]
fn a_frame_that_is_missing_from_a_closed_stream_is_reported() {
    let Fixture { directory, stream } = Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(&stream, &n.to_string()).sequence_number).collect();
    stream.close().unwrap();
    let path = directory.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let mut bytes = fs::read(&path).unwrap();
    let missing: usize = numbers[4].to_string().parse().unwrap();
    bytes[missing..missing + 64].fill(0);
    fs::write(&path, bytes).unwrap();
    for stream in [
        Stream::open_read_only(directory.path()).unwrap(),
        Stream::builder(directory.path()).open_existing().unwrap(),
    ] {
        let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        let before = stream.get_records(&horizon, Limit::default()).unwrap();
        assert_eq!(before.records.len(), 4);
        let missing = stream.get_records(&before.next_shard_iterator.unwrap(), Limit::default());
        assert!(matches!(missing, Err(millstream::Error::Corrupt { .. })));
    }
}
