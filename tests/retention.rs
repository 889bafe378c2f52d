//! How long records are kept: by age, bytes and number, and what becomes of the numbers, the files
//! and those who read beside it.

mod common;

use std::time::Duration;

use common::files::{killed, scratch, segments};
use common::{Fixture, S0, S1, START_MS, TestClock, put, read, read_all};
use millstream::{
    Error, HashKey, Limit, PutRecord, Retention, SequenceNumber, ShardId, StartingPosition, Stream,
    verify,
};

const HOUR_MS: u64 = 60 * 60 * 1000;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;

fn hours(hours: u64) -> Duration {
    Duration::from_millis(hours * HOUR_MS)
}

/// A stream that keeps records for so long, and its clock.
fn kept_for(age: Duration) -> (Fixture, TestClock) {
    let clock = TestClock::new();
    let retention = Retention::default().age(age);
    let settings = clock.clone();
    let fixture = Fixture::with(|b| {
        b.clock(settings).retention(retention).max_segment_bytes(64 << 10).shards(1)
    });
    (fixture, clock)
}

fn reopened(fixture: Fixture, clock: &TestClock) -> Fixture {
    let Fixture { directory, stream } = fixture;
    stream.close().unwrap();
    let builder = Stream::builder(directory.path()).clock(clock.clone());
    Fixture { stream: builder.open_existing().unwrap(), directory }
}

fn horizon(stream: &Stream) -> Vec<String> {
    read_all(stream, S0, StartingPosition::TrimHorizon)
}

/// Puts so many records of 1,000 bytes, of which about 60 fill a segment.
fn fill(stream: &Stream, count: usize) -> Vec<SequenceNumber> {
    (0..count).map(|_| stream.put("k", [7; 1000]).unwrap().sequence_number).collect()
}

#[test]
fn reading_begins_at_the_first_record_that_is_not_too_old() {
    let (Fixture { stream, .. }, clock) = &kept_for(hours(24));
    let r1 = put(stream, "r1").sequence_number;
    clock.set(25 * HOUR_MS);
    put(stream, "r2");
    assert_eq!(horizon(stream), ["r2"]);
    let at = stream.shard_iterator(S0, StartingPosition::AtSequenceNumber(r1)).unwrap();
    let page = stream.get_records(&at, Limit::default()).unwrap();
    assert_eq!(page.records.iter().map(|r| r.data()).collect::<Vec<_>>(), [b"r2"]);
    assert_eq!(page.gap.unwrap().records, Some(1));
}

#[test]
fn keeping_records_longer_brings_none_back() {
    for closes in [false, true] {
        let (mut fixture, clock) = kept_for(hours(24));
        put(&fixture.stream, "r1");
        clock.set(25 * HOUR_MS);
        put(&fixture.stream, "r2");
        fixture.stream.set_retention(Retention::default().age(hours(48))).unwrap();
        if closes {
            fixture = reopened(fixture, &clock);
        }
        assert_eq!(horizon(&fixture.stream), ["r2"]);
        fixture.stream.set_retention(Retention::default()).unwrap();
        assert_eq!(horizon(&fixture.stream), ["r2"]);
    }
}

#[test]
fn keeping_records_shorter_takes_them_away_at_once() {
    let (Fixture { stream, .. }, clock) = &kept_for(hours(48));
    put(stream, "r1");
    clock.set(30 * HOUR_MS);
    put(stream, "r2");
    let iterator = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    assert_eq!(horizon(stream), ["r1", "r2"]);
    stream.set_retention(Retention::default().age(hours(24))).unwrap();
    assert_eq!(read(stream, &iterator, 10).0, ["r2"]);
    assert_eq!(horizon(stream), ["r2"]);
}

#[test]
fn stored_bytes_stay_within_the_limit_and_one_segment() {
    const CAP: u64 = 10 << 20;
    let retention = Retention::default().bytes(CAP);
    let directory = scratch();
    let builder = Stream::builder(directory.path()).max_segment_bytes(64 << 10);
    let stream = builder.retention(retention).create().unwrap();
    let (mut last_horizon, mut pages) = (SequenceNumber::from(0), Vec::new());
    for round in 0..100 {
        for _ in 0..105 {
            stream.put("k", vec![round as u8; 10_000]).unwrap();
        }
        // Segments that are finished, and one that is being written.
        let bytes = stream.storage().unwrap().bytes;
        assert!(bytes <= CAP + (64 << 10), "{bytes} in round {round}");
        let described = stream.describe_shard(S0).unwrap();
        assert!(described.horizon >= last_horizon, "the horizon never goes back");
        last_horizon = described.horizon;
        let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        let page = stream.get_records(&horizon, Limit::records(1)).unwrap();
        pages.push(page.records);
    }
    assert!(last_horizon > SequenceNumber::from(80 << 20), "most of it is gone: {last_horizon}");
    // Beside what is stored there is an empty segment that is ready; others may go just now.
    let len = |path: &std::path::PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    let on_disk: u64 = segments(directory.path(), S0).iter().map(len).sum();
    assert!(on_disk <= CAP + (128 << 10), "{on_disk}");
    for page in &pages {
        let record = page.get(0).unwrap();
        assert!(record.data().iter().all(|byte| *byte == record.data()[0]), "pages stay as read");
    }
    assert!(stream.storage().unwrap().unlinked_bytes > 0, "what they pin is counted");
    drop(pages);
    assert_eq!(stream.storage().unwrap().unlinked_bytes, 0);
}

#[test]
fn the_oldest_segments_of_all_shards_go_first() {
    let retention = Retention::default().bytes(1 << 20);
    let clock = TestClock::new();
    let Fixture { stream, .. } =
        &Fixture::with(|b| b.retention(retention).clock(clock.clone()).shards(2));
    let to = |key: HashKey| PutRecord::new("k", &[7; 1000]).explicit_hash_key(key);
    for n in 0..200 {
        clock.set(n);
        stream.put_record(to(HashKey::MIN)).unwrap();
    }
    for n in 200..5000 {
        clock.set(n);
        stream.put_record(to(HashKey::MAX)).unwrap();
    }
    stream.apply_retention().unwrap();
    let [low, high] = [S0, S1].map(|shard| stream.describe_shard(shard).unwrap());
    assert!(low.trimmed_records > 100 && low.records < 100, "{low:?}");
    assert!(high.trimmed_records > 3000 && high.records > 500, "{high:?}");
}

#[test]
fn by_number_the_newest_are_kept_and_whole_segments_go() {
    let retention = Retention::default().records(500);
    let Fixture { stream, .. } =
        &Fixture::with(|b| b.retention(retention).max_segment_bytes(64 << 10));
    for round in 1..20 {
        fill(stream, 100);
        stream.apply_retention().unwrap();
        let kept = stream.describe_shard(S0).unwrap().records;
        assert!(kept >= (round * 100).min(500), "{kept} in round {round}");
        assert!(kept <= 500 + 64, "{kept} in round {round}");
    }
}

#[test]
fn whichever_limit_triggers_first_decides() {
    let clock = TestClock::new();
    let retention = Retention::default().age(hours(24)).records(3).bytes(100 << 20);
    let Fixture { stream, .. } = &Fixture::with(|b| b.retention(retention).clock(clock.clone()));
    put(stream, "old");
    clock.set(25 * HOUR_MS);
    for n in 0..10 {
        put(stream, &n.to_string());
    }
    stream.apply_retention().unwrap();
    // By number nothing goes yet: it is all in the segment that is being written.
    assert_eq!(horizon(stream).len(), 10);
}

#[test]
fn a_clock_that_steps_back_a_year_and_forth_again_takes_nothing_away_too_early() {
    let (Fixture { stream, .. }, clock) = &kept_for(hours(24));
    clock.set(YEAR_MS);
    put(stream, "before");
    clock.set(0);
    stream.apply_retention().unwrap();
    put(stream, "while it was behind");
    clock.set(10 * HOUR_MS);
    stream.apply_retention().unwrap();
    assert_eq!(horizon(stream), ["before", "while it was behind"]);
    clock.set(YEAR_MS + HOUR_MS);
    put(stream, "after");
    stream.apply_retention().unwrap();
    // Its own time says that it is a year old; what stands before it says otherwise.
    assert_eq!(horizon(stream), ["before", "while it was behind", "after"]);
    clock.set(YEAR_MS + 25 * HOUR_MS - 1);
    assert_eq!(horizon(stream), ["after"]);
}

#[test]
fn records_that_came_while_the_clock_was_ahead_go_with_those_behind_them() {
    let (Fixture { stream, .. }, clock) = &kept_for(hours(24));
    clock.set(YEAR_MS);
    put(stream, "ahead");
    clock.set(0);
    put(stream, "next");
    clock.set(HOUR_MS);
    put(stream, "last");
    assert_eq!(horizon(stream), ["ahead", "next", "last"]);
    clock.set(24 * HOUR_MS + 1);
    assert_eq!(horizon(stream), ["last"]);
    clock.set(0);
    assert_eq!(horizon(stream), ["last"], "what is gone stays gone");
}

#[test]
fn an_idle_stream_gives_its_room_back() {
    for reopens in [false, true] {
        let (mut fixture, clock) = kept_for(hours(24));
        let last = *fill(&fixture.stream, 1000).last().unwrap();
        if reopens {
            fixture = reopened(fixture, &clock);
        }
        let Fixture { directory, stream } = &fixture;
        let waiting = stream.shard_iterator(S0, StartingPosition::Latest).unwrap();
        clock.set(25 * HOUR_MS);
        stream.apply_retention().unwrap();
        assert!(segments(directory.path(), S0).is_empty());
        let described = stream.describe_shard(S0).unwrap();
        assert_eq!((described.records, described.trimmed_records), (0, 1000));
        assert_eq!(stream.storage().unwrap().bytes, 0);
        assert_eq!(stream.lag(&waiting).unwrap().records, 0);
        let next = put(stream, "next").sequence_number;
        assert!(next > last);
        let page = stream.get_records(&waiting, Limit::default()).unwrap();
        assert_eq!((page.records.len(), page.gap), (1, None));
        assert_eq!(stream.lag(&waiting).unwrap().records, 1);
        assert_eq!(verify(directory.path()).unwrap().findings, []);
    }
}

#[test]
fn no_number_is_given_again_when_everything_was_trimmed() {
    let Fixture { mut directory, mut stream } = Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let (mut highest, mut count) = (SequenceNumber::from(0), 0);
    for life in 0..12 {
        for number in fill(&stream, 130) {
            assert!(number > highest, "life {life}");
            highest = number;
            count += 1;
        }
        let after = stream.shard_iterator(S0, StartingPosition::Latest).unwrap();
        stream.trim(S0, highest).unwrap();
        let described = stream.describe_shard(S0).unwrap();
        assert_eq!((described.records, described.trimmed_records), (0, count), "life {life}");
        match life % 3 {
            0 => stream.close().unwrap(),
            1 => drop(after),
            _ => directory = killed(directory.path()),
        }
        stream = loop {
            match Stream::builder(directory.path()).open_existing() {
                Err(Error::Locked { .. }) => directory = killed(directory.path()),
                opened => break opened.unwrap(),
            }
        };
        let described = stream.describe_shard(S0).unwrap();
        assert_eq!((described.records, described.trimmed_records), (0, count), "life {life}");
        assert_eq!(verify(directory.path()).unwrap().damage().count(), 0);
    }
}

#[test]
fn a_horizon_within_a_segment_survives_a_kill() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let numbers: Vec<_> = (0..10).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    stream.trim(S0, numbers[3]).unwrap();
    let copy = killed(directory.path());
    for _ in 0..2 {
        let stream = Stream::builder(copy.path()).open_existing().unwrap();
        assert_eq!(horizon(&stream), ["4", "5", "6", "7", "8", "9"]);
        let described = stream.describe_shard(S0).unwrap();
        assert_eq!((described.records, described.trimmed_records), (6, 4));
        assert_eq!(described.first_sequence_number, Some(numbers[4]));
    }
}

#[test]
fn segments_that_come_back_after_they_were_trimmed_are_removed_again() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let numbers = fill(stream, 500);
    // As a crash between the commit and the removal leaves it, and one in the middle.
    let before = killed(directory.path());
    stream.trim(S0, numbers[400]).unwrap();
    let there: Vec<_> = segments(directory.path(), S0);
    let all = segments(before.path(), S0);
    // The one in the making has no name yet.
    let is_segment = |path: &&std::path::PathBuf| path.extension().is_some_and(|it| it == "seg");
    let trimmed = all
        .iter()
        .filter(is_segment)
        .filter(|path| !there.iter().any(|t| t.ends_with(path.file_name().unwrap())));
    let trimmed: Vec<_> = trimmed.collect();
    assert!(trimmed.len() > 3);
    for removed in 0..=trimmed.len() {
        let copy = killed(directory.path());
        for path in &trimmed[removed..] {
            let to = copy.path().join(path.strip_prefix(before.path()).unwrap());
            std::fs::copy(path, to).unwrap();
        }
        assert_eq!(verify(copy.path()).unwrap().damage().count(), 0);
        let reader = Stream::open_read_only(copy.path()).unwrap();
        assert_eq!(reader.describe_shard(S0).unwrap().records, 99);
        let stream = Stream::builder(copy.path()).open_existing().unwrap();
        assert_eq!(stream.describe_shard(S0).unwrap().records, 99);
        let is_there = |path: &&&std::path::PathBuf| {
            copy.path().join(path.strip_prefix(before.path()).unwrap()).try_exists().unwrap()
        };
        assert_eq!(trimmed.iter().filter(is_there).count(), 0);
    }
}

#[test]
fn a_reader_in_another_process_follows_what_is_trimmed() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let numbers = fill(stream, 300);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let start = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let first = reader.get_records(&start, Limit::records(10)).unwrap();
    let next = first.next_shard_iterator.unwrap();
    stream.trim(S0, numbers[199]).unwrap();
    let page = reader.get_records(&next, Limit::default()).unwrap();
    let gap = page.gap.unwrap();
    assert_eq!((gap.to, gap.records), (numbers[200], Some(190)));
    assert_eq!(page.records.get(0).unwrap().sequence_number(), numbers[200]);
    assert_eq!(first.records.get(9).unwrap().data(), [7; 1000], "what it had read stays");
    assert_eq!(reader.describe_shard(S0).unwrap(), stream.describe_shard(S0).unwrap());
    let late = Stream::open_read_only(directory.path()).unwrap();
    assert_eq!(late.describe_shard(S0).unwrap(), stream.describe_shard(S0).unwrap());
    let horizon = late.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    assert_eq!(late.lag(&horizon).unwrap().records, 100);
    assert_eq!(late.retention(), stream.retention());
    assert!(matches!(late.trim(S0, numbers[250]), Err(Error::ReadOnly)));
    assert!(matches!(late.apply_retention(), Err(Error::ReadOnly)));
    assert!(matches!(late.set_retention(Retention::default()), Err(Error::ReadOnly)));
}

#[test]
fn readers_in_other_processes_never_skip_silently_while_the_writer_trims_all_the_time() {
    let directory = scratch();
    let builder = Stream::builder(directory.path()).max_segment_bytes(64 << 10);
    let stream = &builder.retention(Retention::default().bytes(1 << 20)).create().unwrap();
    let directory = &directory;
    let count = 15_000u64;
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|slow| {
                scope.spawn(move || {
                    let reader = Stream::open_read_only(directory.path()).unwrap();
                    let mut next = reader
                        .shard_iterator(S0, StartingPosition::AtSequenceNumber(0.into()))
                        .unwrap();
                    let mut expected = 0;
                    while expected < count {
                        let page = reader.get_records(&next, Limit::records(100 + slow)).unwrap();
                        expected += page.gap.map_or(0, |gap| gap.records.unwrap());
                        for record in &page.records {
                            let n = u64::from_le_bytes(record.data()[..8].try_into().unwrap());
                            assert_eq!(n, expected);
                            expected += 1;
                        }
                        next = page.next_shard_iterator.unwrap();
                        if slow == 1 {
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        for n in 0..count {
            stream
                .put_with("k", 500, |place| place[..8].copy_from_slice(&n.to_le_bytes()))
                .unwrap();
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(stream.describe_shard(S0).unwrap().trimmed_records > 10_000);
}

#[test]
fn trim_takes_what_is_there_and_nothing_that_comes() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "a");
    stream.trim(S0, SequenceNumber::from(1 << 50)).unwrap();
    put(stream, "b");
    assert_eq!(horizon(stream), ["b"]);
    let wide = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
    assert!(matches!(stream.trim(S0, wide), Err(Error::WrongShard { .. })));
    assert!(matches!(stream.trim(ShardId::new(9), 0.into()), Err(Error::ShardNotFound { .. })));
    stream.trim(S0, 0.into()).unwrap();
    assert_eq!(horizon(stream), ["b"], "backwards is nothing");
}

#[test]
fn a_closed_shard_expires_and_stays_in_the_lineage() {
    let (fixture, clock) = kept_for(hours(24));
    let Fixture { directory, stream } = &fixture;
    put(stream, "parent");
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    assert!(!stream.describe_shard(S0).unwrap().is_expired);
    let before = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    clock.set(25 * HOUR_MS);
    stream.apply_retention().unwrap();
    assert!(!directory.path().join("shards").join(S0.to_string()).try_exists().unwrap());
    let described = stream.describe_shard(S0).unwrap();
    assert!(described.is_expired);
    assert_eq!((described.records, described.trimmed_records), (0, 1));
    assert_eq!(stream.shards().len(), 3);
    for iterator in [before, stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap()] {
        let page = stream.get_records(&iterator, Limit::default()).unwrap();
        assert!(page.records.is_empty() && page.next_shard_iterator.is_none());
        let children: Vec<_> = page.child_shards.iter().map(|child| child.id.index()).collect();
        assert_eq!(children, [1, 2]);
        assert!(stream.wait(&iterator, Duration::ZERO).unwrap(), "the end is something to read");
    }
    let Fixture { directory, stream } = reopened(fixture, &clock);
    assert!(stream.describe_shard(S0).unwrap().is_expired);
    let [low, high] = stream.split_shard(S1, HashKey::new(1 << 100)).unwrap();
    assert_eq!((low.index(), high.index()), (3, 4));
    assert_eq!(verify(directory.path()).unwrap().findings, []);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let all = Retention::default();
    for wrong in [
        all.clone().bytes(0),
        all.clone().hold_for(["billing"]),
        all.clone().bytes(1 << 30).hold_for(["../billing"]),
        all.clone().when_full(millstream::WhenFull::Reject),
    ] {
        let refused = stream.set_retention(wrong.clone());
        assert!(matches!(refused, Err(Error::InvalidArgument(_))), "{wrong:?}");
        let directory = tempfile::tempdir().unwrap();
        let created = Stream::builder(directory.path().join("s")).retention(wrong).create();
        assert!(matches!(created, Err(Error::InvalidArgument(_))));
    }
    assert_eq!(stream.retention(), all);
}

#[test]
fn retention_is_kept_with_the_stream() {
    let retention = Retention::default().age(hours(1)).bytes(1 << 30).records(7);
    let fixture = Fixture::with(|b| b.retention(retention.clone()));
    assert_eq!(fixture.stream.retention(), retention);
    let Fixture { directory, stream } = fixture.reopened();
    assert_eq!(stream.retention(), retention);
    drop(stream);
    // Who opens it with other settings does not change it.
    let stream = Stream::builder(directory.path()).retention(Retention::default()).open().unwrap();
    assert_eq!(stream.retention(), retention);
}

#[test]
fn a_time_is_looked_for_behind_the_horizon() {
    let clock = TestClock::new();
    let Fixture { stream, .. } = &Fixture::with(|b| b.clock(clock.clone()));
    let mut numbers = Vec::new();
    for n in 0..5 {
        clock.set(n * 100);
        numbers.push(put(stream, &n.to_string()).sequence_number);
    }
    stream.trim(S0, numbers[2]).unwrap();
    for (ms, from) in [(0, "3"), (250, "3"), (400, "4")] {
        let time = StartingPosition::AtTimestampMs(START_MS + ms);
        assert_eq!(read_all(stream, S0, time)[0], from);
    }
}
