//! Which shards there were at which time, and how they descend from each other.

mod common;

use common::{Fixture, S0, S1, S2, START_MS, TestClock};
use millstream::{Error, HashKey, ShardFilter, ShardId, Stream};

fn ids(stream: &Stream, filter: ShardFilter) -> Vec<ShardId> {
    stream.shards_with(filter).iter().map(|shard| shard.id).collect()
}

/// A stream that was split at 2, so many milliseconds after it was created.
fn split_after(clock: &TestClock, ms: u64) -> Fixture {
    let fixture = Fixture::with(|builder| builder.clock(clock.clone()));
    clock.set(ms);
    fixture.stream.split_shard(S0, HashKey::new(2)).unwrap();
    fixture
}

#[test]
fn the_six_filters_of_kinesis_let_through_what_they_do_there() {
    let clock = TestClock::new();
    let fixture = split_after(&clock, 5000).reopened();
    let reader = Stream::open_read_only(fixture.directory.path()).unwrap();
    for stream in [&fixture.stream, &reader] {
        let (created, later) = (START_MS, START_MS + 6000);
        let cases = [
            (ShardFilter::AtLatest, vec![S1, S2]),
            (ShardFilter::AtTrimHorizon, vec![S0]),
            (ShardFilter::FromTrimHorizon, vec![S0, S1, S2]),
            (ShardFilter::AtTimestampMs(created), vec![S0]),
            (ShardFilter::AtTimestampMs(START_MS + 4999), vec![S0]),
            (ShardFilter::AtTimestampMs(START_MS + 5000), vec![S1, S2]),
            (ShardFilter::AtTimestampMs(later), vec![S1, S2]),
            (ShardFilter::AtTimestampMs(0), vec![S0]),
            (ShardFilter::FromTimestampMs(created), vec![S0, S1, S2]),
            (ShardFilter::FromTimestampMs(later), vec![S1, S2]),
            (ShardFilter::AfterShardId(S0), vec![S1, S2]),
            (ShardFilter::AfterShardId(S2), vec![]),
        ];
        for (filter, expected) in cases {
            assert_eq!(ids(stream, filter), expected, "{filter:?}");
        }
    }
}

#[test]
fn at_every_time_the_shards_that_were_open_are_the_whole_ring_though_the_clock_steps_back() {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let clock = TestClock::new();
    clock.set(YEAR);
    let Fixture { stream, .. } = &Fixture::with(|builder| builder.clock(clock.clone()).shards(2));
    let times = [YEAR + 50, 0, 2 * YEAR, YEAR, 20];
    for (count, ms) in [5, 2, 3, 4, 1].into_iter().zip(times) {
        clock.set(ms);
        stream.reshard_to(count).unwrap();
    }
    let shards = stream.shards();
    assert!(shards.is_sorted_by_key(|shard| shard.opened_ms));
    for ms in times.into_iter().flat_map(|ms| [ms, ms + 1, ms.saturating_sub(1)]) {
        let mut open = stream.shards_with(ShardFilter::AtTimestampMs(START_MS + ms));
        open.sort_unstable_by_key(|shard| shard.hash_key_range);
        assert_eq!(open[0].hash_key_range.start, HashKey::MIN);
        assert_eq!(open[open.len() - 1].hash_key_range.end, HashKey::MAX);
        let ranges: Vec<_> = open.iter().map(|shard| shard.hash_key_range).collect();
        assert!(ranges.windows(2).all(|pair| pair[0].end.get() + 1 == pair[1].start.get()));
    }
}

#[test]
fn parents_and_children_name_each_other() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.split_mid(S0).unwrap();
    let merged = stream.merge_shards(S2, S1).unwrap();
    let of = |shards: Result<Vec<millstream::ShardInfo>, Error>| -> Vec<ShardId> {
        shards.unwrap().iter().map(|shard| shard.id).collect()
    };
    assert_eq!(of(stream.children(S0)), [S1, S2]);
    assert_eq!(of(stream.children(S1)), [merged]);
    assert_eq!(of(stream.parents(merged)), [S1, S2]);
    assert_eq!(of(stream.parents(S0)), []);
    assert_eq!(of(stream.children(merged)), []);
    let nobody = ShardId::new(9);
    for none in [stream.parents(nobody), stream.children(nobody)] {
        assert!(matches!(none, Err(Error::ShardNotFound { shard }) if shard == nobody));
    }
}
