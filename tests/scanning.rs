//! Several shards read as one: by arrival, along the lineage, by key.

mod common;

use std::time::Duration;

use common::{Fixture, S0, START_MS, TestClock, put};
use millstream::{Error, HashKey, PutRecord, Scan, ShardFilter, ShardId, StartingPosition, Stream};

/// What a scan gives until it has nothing more, as text.
fn texts(scan: &mut Scan) -> Vec<String> {
    scan.map(|scanned| String::from_utf8(scanned.unwrap().record().data().to_vec()).unwrap())
        .collect()
}

fn all(stream: &Stream) -> Vec<String> {
    texts(&mut stream.scan(..).unwrap())
}

/// Puts `n` at the time `n`, to one of the shards.
fn put_at(stream: &Stream, clock: &TestClock, n: u64) {
    clock.set(n);
    let key = HashKey::new(u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
    let data = n.to_string();
    stream.put_record(PutRecord::new("k", &data).explicit_hash_key(key)).unwrap();
}

#[test]
fn shards_are_merged_by_arrival_whatever_their_number_and_the_reader() {
    let clock = TestClock::new();
    let Fixture { stream, directory } =
        &Fixture::with(|b| b.shards(5).max_segment_bytes(64 << 10).clock(clock.clone()));
    for n in 0..6000 {
        put_at(stream, &clock, n);
        if n == 3000 {
            stream.reshard_to(3).unwrap();
        }
    }
    let expected: Vec<_> = (0..6000).map(|n: u64| n.to_string()).collect();
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for stream in [stream, &reader] {
        assert_eq!(all(stream), expected);
        for (from, to) in [(0, 1), (100, 100), (17, 4711), (2999, 3002), (5999, 9000)] {
            let range = START_MS + from..START_MS + to;
            let found = texts(&mut stream.scan(range).unwrap());
            assert_eq!(found, expected[from as usize..(to as usize).min(6000)]);
        }
        let inclusive = stream.scan(START_MS + 5..=START_MS + 7).unwrap();
        assert_eq!(inclusive.filter(Result::is_ok).count(), 3);
        assert!(texts(&mut stream.scan(..START_MS).unwrap()).is_empty());
    }
}

#[test]
fn records_that_arrived_at_the_same_time_come_by_shard_and_number() {
    let clock = TestClock::new();
    let Fixture { stream, .. } = &Fixture::with(|b| b.shards(3).clock(clock.clone()));
    for round in 0..3 {
        for shard in [2, 0, 1] {
            let key = stream.shards()[shard].hash_key_range.start;
            let data = format!("{shard}{round}");
            stream.put_record(PutRecord::new("k", &data).explicit_hash_key(key)).unwrap();
        }
    }
    assert_eq!(all(stream), ["00", "01", "02", "10", "11", "12", "20", "21", "22"]);
}

#[test]
fn a_clock_that_steps_back_puts_no_child_before_its_parent() {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let clock = TestClock::new();
    let Fixture { stream, .. } = &Fixture::with(|b| b.shards(2).clock(clock.clone()));
    let mut expected = Vec::new();
    for (round, ms) in [YEAR, 0, 2 * YEAR, 1].into_iter().enumerate() {
        clock.set(ms);
        for n in 0..10 {
            let data = format!("{round}/{n}");
            stream.put("key", &data).unwrap();
            expected.push(data);
        }
        stream.reshard_to(round as u32 + 1).unwrap();
    }
    assert_eq!(all(stream), expected);
    assert_eq!(texts(&mut stream.scan_key("key", ..).unwrap()), expected);
    // In a range are those that arrived in it, wherever they are.
    let found = texts(&mut stream.scan(START_MS..START_MS + 10).unwrap());
    assert_eq!(found, [&expected[10..20], &expected[30..]].concat());
    assert!(texts(&mut stream.scan(START_MS + 3 * YEAR..).unwrap()).is_empty());
}

#[test]
fn one_key_is_read_along_its_lineage_and_no_other_shard_is_touched() {
    let Fixture { stream, directory } = &Fixture::new(4);
    let mut expected = Vec::new();
    for round in 0..5 {
        for n in 0..100 {
            put(stream, &format!("other-{n}"));
            let data = format!("{round}/{n}");
            stream.put("customer-7", &data).unwrap();
            expected.push(data);
        }
        stream.reshard_to([3, 8, 1, 6, 2][round]).unwrap();
    }
    assert_eq!(texts(&mut stream.scan_key("customer-7", ..).unwrap()), expected);
    assert!(texts(&mut stream.scan_key("nobody", ..).unwrap()).is_empty());
    // Damage in a shard that the key never went to is not met.
    let hash_key = stream.hash_algorithm().hash("customer-7");
    let shards = stream.shards();
    let elsewhere = shards.iter().find(|s| !s.hash_key_range.contains(hash_key)).unwrap();
    let segment = &common::files::segments(directory.path(), elsewhere.id)[0];
    let mut bytes = std::fs::read(segment).unwrap();
    bytes[4096 + 33] ^= 1;
    std::fs::write(segment, bytes).unwrap();
    let reader = Stream::open_read_only(directory.path()).unwrap();
    assert_eq!(texts(&mut reader.scan_key("customer-7", ..).unwrap()), expected);
    // A scan of all meets it, and ends with it.
    let mut scan = reader.scan(..).unwrap();
    let damaged = scan.find_map(Result::err).unwrap();
    assert!(matches!(damaged, Error::Corrupt { .. }));
    assert!(scan.next().is_none() && scan.is_finished());
}

#[test]
fn a_scan_ends_where_the_newest_records_were_when_it_was_made() {
    let Fixture { stream, .. } = &Fixture::new(2);
    for key in ["a", "b", "c"] {
        stream.put("k", key).unwrap();
    }
    let mut scan = stream.scan(..).unwrap();
    for n in 0..100 {
        put(stream, &n.to_string());
    }
    stream.reshard_to(5).unwrap();
    put(stream, "later");
    assert_eq!(texts(&mut scan), ["a", "b", "c"]);
    assert!(scan.is_finished());
}

#[test]
fn one_who_follows_is_woken_by_records_and_goes_on_in_the_children() {
    let Fixture { stream, directory } = &Fixture::new(2);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for stream_of_scan in [stream, &reader] {
        let open = stream.shards_with(ShardFilter::AtLatest);
        let latest = open.iter().map(|shard| {
            stream_of_scan.shard_iterator(shard.id, StartingPosition::Latest).unwrap()
        });
        let mut scan = stream_of_scan.scan_from(latest).unwrap().follow_lineage();
        assert!(scan.next().is_none() && !scan.is_finished());
        assert!(!scan.wait(Duration::from_millis(2)).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..200 {
                    put(stream, &round.to_string());
                    if round % 50 == 49 {
                        stream.reshard_to(round % 4 + 1).unwrap();
                    }
                }
            });
            let mut got = Vec::new();
            while got.len() < 200 {
                assert!(scan.wait(Duration::from_secs(60)).unwrap());
                got.extend(texts(&mut scan));
            }
            got.sort_by_key(|data| data.parse::<u32>().unwrap());
            assert_eq!(got, (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
        });
    }
}

#[test]
fn one_who_follows_certain_shards_ends_with_them() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let first = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let mut scan = stream.scan_from([first]).unwrap().follow();
    assert!(scan.next().is_none() && !scan.is_finished());
    let record = PutRecord::new("k", "x").explicit_hash_key(HashKey::MIN);
    stream.put_record(record).unwrap();
    stream.split_mid(S0).unwrap();
    stream.put_record(record).unwrap();
    assert!(scan.wait(Duration::from_secs(60)).unwrap());
    assert_eq!(texts(&mut scan), ["x"]);
    assert!(scan.is_finished());
}

#[test]
fn a_busy_shard_does_not_keep_the_others_waiting() {
    let clock = TestClock::new();
    let Fixture { stream, .. } = &Fixture::with(|b| b.shards(2).clock(clock.clone()));
    let busy = PutRecord::new("k", "busy").explicit_hash_key(HashKey::MIN);
    let mut scan = stream.scan(..).unwrap().follow();
    assert!(scan.next().is_none());
    let mut seen = 0;
    for n in 0..5000 {
        clock.set(n);
        stream.put_record(busy).unwrap();
        if n == 2000 {
            stream.put_record(PutRecord::new("k", "rare").explicit_hash_key(HashKey::MAX)).unwrap();
        }
        scan.wait(Duration::ZERO).unwrap();
        // One is read for each that is put: the busy shard never runs dry.
        if n % 2 == 0 && scan.next().unwrap().unwrap().record().data() == b"rare" {
            seen = n;
        }
    }
    assert!((2000..4500).contains(&seen), "{seen}");
}

#[test]
fn hundreds_of_shards_are_merged() {
    let Fixture { stream, .. } = &Fixture::new(300);
    for n in 0..1000 {
        stream.put_any(n.to_string()).unwrap();
    }
    stream.reshard_to(1).unwrap();
    put(stream, "last");
    let all = all(stream);
    assert_eq!((all.len(), all[1000].as_str()), (1001, "last"));
    assert!(matches!(
        stream.scan_from(["5000:0".parse().unwrap()]),
        Err(Error::ShardNotFound { shard }) if shard == ShardId::new(5000)
    ));
}

#[test]
fn what_retention_removes_under_a_scan_is_told_with_the_record_behind_it() {
    let Fixture { stream, .. } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let receipts: Vec<_> = (0..3000).map(|n| put(stream, &n.to_string())).collect();
    let mut scan = stream.scan(..).unwrap();
    let first = scan.next().unwrap().unwrap();
    assert_eq!((first.record().data(), first.gap()), (&b"0"[..], None));
    stream.trim(S0, receipts[2499].sequence_number).unwrap();
    let (mut last, mut gaps) = (0, Vec::new());
    for scanned in scan {
        let scanned = scanned.unwrap();
        let n: u64 = std::str::from_utf8(scanned.record().data()).unwrap().parse().unwrap();
        let skipped = scanned.gap().map(|gap| gap.records.unwrap());
        assert_eq!(n, last + 1 + skipped.unwrap_or(0));
        gaps.extend(scanned.gap());
        last = n;
    }
    assert_eq!(last, 2999);
    assert_eq!(gaps.len(), 1);
    assert_eq!(gaps[0].to, receipts[2500].sequence_number);
}
