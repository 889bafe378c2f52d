//! Records: what can be put, what comes back, what is refused.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};

use common::{Fixture, S0, S1, S2, put, read_all};
use millstream::{Error, Limit, MAX_RECORD_BYTES, PutRecord, StartingPosition, Stream};

/// Puts a record and reads it back.
fn round_trip(stream: &Stream, key: &str, data: &[u8]) {
    let latest = stream.shard_iterator(S0, StartingPosition::Latest).unwrap();
    let receipt = stream.put(key, data).unwrap();
    let page = stream.get_records(&latest, Limit::default()).unwrap();
    let record = page.records.get(0).unwrap();
    assert_eq!(page.records.len(), 1);
    assert_eq!((record.partition_key(), record.data()), (key, data));
    assert_eq!(record.sequence_number(), receipt.sequence_number);
    assert_eq!(record.arrival_ms(), receipt.arrival_ms);
}

#[test]
fn records_of_all_sizes_come_back_as_they_were_put() {
    let Fixture { stream, .. } = &Fixture::with(|b| b.max_record_bytes(MAX_RECORD_BYTES));
    let sizes = (0..200).chain([1983, 1984, 1985, 4096, 65_500, 65_536, 300_000, 10 << 20]);
    for size in sizes {
        let data: Vec<u8> = (0..size).map(|i| (i * 31 + size) as u8).collect();
        round_trip(stream, "key", &data);
    }
}

#[test]
fn the_shortest_and_the_longest_partition_key_are_taken() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for key in ["k".to_owned(), "k".repeat(256), "日".repeat(256), "🦀".repeat(256)] {
        round_trip(stream, &key, b"");
    }
}

#[test]
fn partition_keys_without_or_with_too_many_characters_are_refused() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for (key, count) in [(String::new(), 0), ("k".repeat(257), 257), ("日".repeat(257), 257)] {
        let refused = stream.put(&key, "x");
        assert!(
            matches!(refused, Err(Error::InvalidPartitionKey { characters }) if characters == count)
        );
    }
    assert!(read_all(stream, S0, StartingPosition::TrimHorizon).is_empty());
}

#[test]
fn a_record_may_have_just_as_many_bytes_as_the_limit() {
    let Fixture { stream, .. } = &Fixture::with(|builder| builder.max_record_bytes(1000));
    round_trip(stream, "key", &[7; 997]);
    match stream.put("key", [7; 998]) {
        Err(Error::RecordTooLarge { len: 1001, max: 1000 }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(read_all(stream, S0, StartingPosition::TrimHorizon).len(), 1);
}

#[test]
fn the_limit_is_one_mebibyte_unless_it_is_set() {
    let Fixture { stream, .. } = &Fixture::new(1);
    round_trip(stream, "key", &vec![7; (1 << 20) - 3]);
    assert!(matches!(stream.put("key", vec![7; 1 << 20]), Err(Error::RecordTooLarge { .. })));
}

#[test]
fn a_length_that_no_memory_has_is_too_large_as_well() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let refused = stream.put_with("key", usize::MAX, |_| ());
    assert!(matches!(refused, Err(Error::RecordTooLarge { .. })));
}

#[test]
fn a_batch_has_a_result_for_each_record_and_puts_those_that_are_good() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let large = "x".repeat(2 << 20);
    let batch = [("a", "1"), ("", "2"), ("b", "3"), ("c", large.as_str()), ("d", "5")];
    let results = stream.put_batch(batch);
    assert!(results[0].is_ok() && results[2].is_ok() && results[4].is_ok());
    assert!(matches!(results[1], Err(Error::InvalidPartitionKey { characters: 0 })));
    assert!(matches!(results[3], Err(Error::RecordTooLarge { .. })));
    assert!(stream.put_batch([("a", "1"); 0]).is_empty());
}

#[test]
fn a_batch_of_seven_over_three_shards_has_seven_results_in_order_and_keeps_it_in_each_shard() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let ranges: Vec<_> = stream.shards().iter().map(|shard| shard.hash_key_range).collect();
    // Items 1 to 7, and the shard that each belongs to.
    let owners = [1, 2, 1, 2, 1, 2, 0];
    let data: Vec<_> = (1..=7).map(|n| n.to_string()).collect();
    let records = data
        .iter()
        .zip(owners)
        .map(|(data, owner)| PutRecord::new("k", data).explicit_hash_key(ranges[owner].start));
    let results = stream.put_batch(records);
    let shards = results.iter().map(|result| result.as_ref().unwrap().shard.index() as usize);
    assert!(shards.eq(owners));
    for (shard, expected) in [(S2, &["2", "4", "6"][..]), (S1, &["1", "3", "5"]), (S0, &["7"])] {
        assert_eq!(read_all(stream, shard, StartingPosition::TrimHorizon), expected);
    }
}

#[test]
fn a_record_can_be_made_in_place() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let fill = |place: &mut [u8]| {
        assert_eq!(place, [0; 5]);
        place.copy_from_slice(b"hello");
    };
    stream.put_with("key", 5, fill).unwrap();
    assert_eq!(read_all(stream, S0, StartingPosition::TrimHorizon), ["hello"]);
}

#[test]
fn a_panic_while_a_record_is_made_puts_nothing_and_holds_up_nobody() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "before");
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        stream.put_with("key", 500, |place| {
            place.fill(1);
            panic!("on purpose");
        })
    }));
    assert!(panicked.is_err());
    put(stream, "after");
    assert_eq!(read_all(stream, S0, StartingPosition::TrimHorizon), ["before", "after"]);
    stream.flush().unwrap();
}

#[test]
fn a_page_stays_as_it_was_read_whatever_happens_to_the_stream() {
    let fixture = Fixture::with(|builder| builder.max_segment_bytes(64 << 10));
    put(&fixture.stream, "first");
    let horizon = fixture.stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let page = fixture.stream.get_records(&horizon, Limit::default()).unwrap();
    for n in 0..10_000 {
        put(&fixture.stream, &format!("record {n}"));
    }
    drop(fixture);
    assert_eq!(page.records.get(0).unwrap().data(), b"first");
}

#[test]
fn records_can_be_iterated_from_both_ends() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for key in ["a", "b", "c"] {
        put(stream, key);
    }
    let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let records = stream.get_records(&horizon, Limit::default()).unwrap().records;
    let keys: Vec<_> = records.iter().rev().map(|record| record.partition_key()).collect();
    assert_eq!(keys, ["c", "b", "a"]);
    assert_eq!(records.iter().len(), 3);
    assert_eq!(records.shard(), S0);
}

#[test]
fn finished_segments_do_not_stay_mapped_however_small_they_are() {
    let Fixture { directory, stream } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    for _ in 0..5000 {
        put(stream, "x");
    }
    let path = directory.path().to_str().unwrap();
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains(path)).count()
    };
    let start = std::time::Instant::now();
    while mapped() > 3 {
        assert!(start.elapsed().as_secs() < 10, "{} are mapped", mapped());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
