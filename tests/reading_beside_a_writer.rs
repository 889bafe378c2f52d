//! Read-only: beside the process that writes, without a lock, following what it does.

mod common;

use std::time::Duration;

use common::{Fixture, S0, S1, S2, put, read, read_all};
use millstream::{Error, HashKey, Limit, StartingPosition, Stream};

#[test]
fn a_reader_sees_what_was_put_and_follows_over_segments() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let mut iterator = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let mut got = Vec::new();
    for n in 0..5000 {
        put(stream, &n.to_string());
        if n % 500 == 7 {
            let (data, next) = read(&reader, &iterator, usize::MAX);
            got.extend(data);
            iterator = next.unwrap();
        }
    }
    loop {
        let (data, next) = read(&reader, &iterator, usize::MAX);
        if data.is_empty() {
            break;
        }
        got.extend(data);
        iterator = next.unwrap();
    }
    assert_eq!(got, (0..5000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_reader_waits_for_the_writer() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let latest = reader.shard_iterator(S0, StartingPosition::Latest).unwrap();
    assert!(!reader.wait(&latest, Duration::from_millis(5)).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| reader.wait(&latest, Duration::MAX).unwrap());
        put(stream, "x");
        assert!(waiter.join().unwrap());
    });
    assert_eq!(read(&reader, &latest, 1).0, ["x"]);
}

#[test]
fn a_reader_follows_a_split() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    put(stream, "parent");
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    let horizon = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let page = reader.get_records(&horizon, millstream::Limit::default()).unwrap();
    assert!(page.next_shard_iterator.is_none());
    let children: Vec<_> = page.child_shards.iter().map(|child| child.id).collect();
    assert_eq!(children, [S1, S2]);
    let child = put(stream, "child").shard;
    assert_eq!(read_all(&reader, child, StartingPosition::TrimHorizon), ["child"]);
}

#[test]
fn a_reader_follows_a_stream_that_is_closed_and_opened_again() {
    let mut fixture = Fixture::new(1);
    let reader = Stream::open_read_only(fixture.directory.path()).unwrap();
    let mut iterator = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    for n in 0..10 {
        put(&fixture.stream, &n.to_string());
        let (data, next) = read(&reader, &iterator, 10);
        assert_eq!(data, [n.to_string()]);
        iterator = next.unwrap();
        fixture = fixture.reopened();
    }
}

#[test]
fn latest_and_lag_of_a_reader_are_those_of_the_writer() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let horizon = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    for count in [1, 10, 5000] {
        for _ in 0..count {
            put(stream, "some record");
        }
        let ours = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        let (lag, expected) = (reader.lag(&horizon).unwrap(), stream.lag(&ours).unwrap());
        assert_eq!((lag.records, lag.bytes), (expected.records, expected.bytes));
        let latest = reader.shard_iterator(S0, StartingPosition::Latest).unwrap();
        put(stream, "new");
        assert_eq!(read(&reader, &latest, 10).0, ["new"]);
    }
    let (described, expected) = (reader.describe_shard(S0), stream.describe_shard(S0));
    assert_eq!(described.unwrap(), expected.unwrap());
}

#[test]
fn a_reader_cannot_put_or_reshard() {
    let Fixture { directory, .. } = &Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    assert!(matches!(reader.put("k", "x"), Err(Error::ReadOnly)));
    assert!(matches!(reader.put_batch([("k", "x")])[0], Err(Error::ReadOnly)));
    assert!(matches!(reader.split_shard(S0, HashKey::new(7)), Err(Error::ReadOnly)));
    assert!(matches!(reader.flush(), Err(Error::ReadOnly)));
}

#[test]
fn a_reader_that_was_behind_by_segments_when_the_shard_was_split_skips_none() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    put(stream, "0");
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let mut iterator = reader.shard_iterator(S0, StartingPosition::TrimHorizon).ok();
    let expected: Vec<_> = (0..5000).map(|n| n.to_string()).collect();
    for data in &expected[1..] {
        put(stream, data);
    }
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    let mut got = Vec::new();
    while let Some(at) = iterator {
        let (data, next) = read(&reader, &at, usize::MAX);
        got.extend(data);
        iterator = next;
    }
    assert_eq!(got, expected);
}

#[test]
fn a_reader_that_knows_an_unused_segment_reads_the_one_that_takes_its_place() {
    let Fixture { directory, stream } = Fixture::new(1);
    let put_a_third = |stream: &Stream| {
        for _ in 0..80 {
            stream.put("k", [7; 1000]).unwrap();
        }
    };
    put_a_third(&stream);
    // The next segment is made meanwhile.
    let unused = directory.path().join("shards/shardId-000000000000/00000000000000262144.seg");
    while !unused.try_exists().unwrap() {
        std::thread::yield_now();
    }
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let mut iterator = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    stream.close().unwrap();
    let stream = Stream::builder(directory.path()).open_existing().unwrap();
    (0..5).for_each(|_| put_a_third(&stream));
    let mut count = 0;
    while count < 6 * 80 {
        let page = reader.get_records(&iterator, Limit::default()).unwrap();
        assert!(!page.records.is_empty(), "after {count} records");
        count += page.records.len();
        iterator = page.next_shard_iterator.unwrap();
    }
}

#[test]
fn a_reader_that_looks_seldom_sees_the_latest_shape() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for shift in [127, 125, 123, 121] {
        // Two changes between two looks: the second manifest may get the inode of the first.
        let first = stream.shards().iter().rfind(|s| s.hash_key_range.start.get() == 0).unwrap().id;
        let [low, _] = stream.split_shard(first, HashKey::new(1 << shift)).unwrap();
        stream.split_shard(low, HashKey::new(1 << (shift - 1))).unwrap();
        assert_eq!(reader.shards(), stream.shards());
    }
}

#[test]
fn the_lag_of_a_reader_is_exact_though_it_saw_the_next_segment_before_it_was_used() {
    let Fixture { directory, stream } = &Fixture::new(1);
    let put_records = |count| {
        for _ in 0..count {
            stream.put("k", [7; 1000]).unwrap();
        }
    };
    put_records(80);
    let unused = directory.path().join("shards/shardId-000000000000/00000000000000262144.seg");
    while !unused.try_exists().unwrap() {
        std::thread::yield_now();
    }
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let horizon = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    put_records(220);
    assert_eq!(reader.lag(&horizon).unwrap().records, 300);
}

#[test]
fn a_reader_is_told_that_its_stream_is_gone_and_does_not_take_another_one_for_it() {
    let Fixture { directory, stream } = Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let iterator = reader.shard_iterator(S0, StartingPosition::Latest).unwrap();
    let is_gone = || {
        let read = reader.get_records(&iterator, Limit::default());
        matches!(read, Err(Error::StreamNotFound { path }) if path == directory.path())
    };
    drop(stream);
    std::fs::remove_dir_all(directory.path()).unwrap();
    assert!(is_gone());
    let another = Stream::builder(directory.path()).create().unwrap();
    assert!(is_gone());
    another.put("k", "of the other one").unwrap();
    assert!(is_gone());
}
