//! What a stream says of itself, and where streams are.

mod common;

use common::files::segments;
use common::{Fixture, S0, S1, START_MS, TestClock, put};
use millstream::{
    DEFAULT_MAX_RECORD_BYTES, Durability, Error, HashAlgorithm, MAX_OPEN_SHARDS, Stream,
};

#[test]
fn a_description_has_settings_totals_and_the_ends_of_each_shard() {
    let clock = TestClock::new();
    let fixture = Fixture::with(|builder| builder.clock(clock.clone()));
    let receipts: Vec<_> = (0..10)
        .map(|n| {
            clock.set(n * 1000);
            put(&fixture.stream, "x")
        })
        .collect();
    fixture.stream.split_mid(S0).unwrap();
    fixture.stream.set_tag("team", "billing").unwrap();
    let reader = Stream::open_read_only(fixture.directory.path()).unwrap();
    for stream in [&fixture.stream, &reader] {
        let description = stream.describe().unwrap();
        assert_eq!(description.path, fixture.directory.path());
        assert_eq!(description.created_ms, START_MS);
        assert_eq!(description.hash_algorithm, HashAlgorithm::Xxh3_128);
        assert_eq!(description.max_record_bytes, DEFAULT_MAX_RECORD_BYTES);
        assert_eq!(description.max_segment_bytes, 64 << 20);
        assert_eq!(description.max_open_shards, MAX_OPEN_SHARDS);
        assert_eq!(description.durability, Durability::Os);
        assert_eq!(description.tags["team"], "billing");
        assert_eq!((description.shards.len(), description.open_shards), (3, 2));
        assert_eq!((description.records, description.bytes), (10, 10 * 64));
        let first = &description.shards[0];
        assert_eq!(first.info, stream.shards()[0]);
        assert_eq!((first.records, first.bytes), (10, 10 * 64));
        assert_eq!(first.first_sequence_number, Some(receipts[0].sequence_number));
        assert_eq!(first.first_arrival_ms, Some(START_MS));
        assert_eq!(first.last_sequence_number, Some(receipts[9].sequence_number));
        assert_eq!(first.last_arrival_ms, Some(START_MS + 9000));
        let second = &description.shards[1];
        assert_eq!(
            (second.records, second.first_arrival_ms, second.last_arrival_ms),
            (0, None, None)
        );
    }
}

#[test]
fn bytes_are_exact_across_the_ends_of_segments() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for n in 1..=300 {
        // 1000 bytes and a key: 1056 with the header.
        stream.put("k", [7; 1000]).unwrap();
        for stream in [stream, &reader] {
            assert_eq!(stream.describe().unwrap().bytes, n * 1056, "{n}");
        }
    }
    assert!(segments(directory.path(), S0).len() > 4);
}

#[test]
fn streams_are_listed_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["orders", "clicks"] {
        Stream::builder(directory.path().join(name)).create().unwrap();
    }
    std::fs::create_dir(directory.path().join("other")).unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let expected = ["clicks", "orders"].map(|name| directory.path().join(name));
    assert_eq!(Stream::list(directory.path()).unwrap(), expected);
    assert!(Stream::list(directory.path().join("other")).unwrap().is_empty());
    for wrong in ["missing", "file"] {
        assert!(matches!(Stream::list(directory.path().join(wrong)), Err(Error::Io { .. })));
    }
}

#[test]
fn a_shard_that_is_not_there_is_not_described() {
    let Fixture { stream, .. } = &Fixture::new(1);
    assert!(matches!(stream.describe_shard(S1), Err(Error::ShardNotFound { shard: S1 })));
}
