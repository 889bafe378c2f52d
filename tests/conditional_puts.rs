//! Puts on a condition, and puts without a key.

mod common;

use std::collections::BTreeMap;

use common::{Fixture, S0, S1, put, read_all};
use millstream::{
    Durability, Error, HashKey, Limit, PutRecord, SequenceNumber, ShardFilter, ShardId,
    StartingPosition, Stream,
};

fn latest(stream: &Stream, shard: ShardId) -> SequenceNumber {
    stream.shard_iterator(shard, StartingPosition::Latest).unwrap().sequence_number()
}

#[test]
fn a_put_after_another_gets_a_higher_number_from_parent_to_child_too() {
    let mut fixture = Fixture::new(1);
    let mut last = put(&fixture.stream, "first").sequence_number;
    for round in 0..4 {
        let record = PutRecord::new("k", "next").durability(Durability::Sync);
        let next = fixture.stream.put_after(record, last).unwrap();
        assert!(next.sequence_number > last);
        last = next.sequence_number;
        match round {
            0 => drop(fixture.stream.split_mid(S0).unwrap()),
            1 => drop(fixture.stream.reshard_to(3).unwrap()),
            _ => fixture = fixture.reopened(),
        }
    }
}

#[test]
fn a_put_after_a_number_that_is_not_below_is_stale_and_writes_nothing() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let in_second = PutRecord::new("k", "x").explicit_hash_key(HashKey::MAX);
    let mut far = SequenceNumber::from(0);
    for _ in 0..10 {
        far = stream.put_record(in_second).unwrap().sequence_number;
    }
    let in_first = PutRecord::new("k", "y").explicit_hash_key(HashKey::MIN);
    let aws = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
    for previous in [far, aws] {
        match stream.put_after(in_first, previous) {
            Err(Error::Stale { shard: S0, sequence_number, next }) => {
                assert_eq!(sequence_number, previous);
                assert!(next <= previous);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(read_all(stream, S0, StartingPosition::TrimHorizon).is_empty());
    stream.put_after(in_second, far).unwrap();
}

#[test]
fn a_conditional_put_succeeds_only_if_nothing_was_put_since() {
    let mut fixture = Fixture::with(|builder| builder.max_segment_bytes(64 << 10));
    let mut puts = 0;
    // Over the ends of segments, and openings of the stream.
    for round in 0..3 {
        for n in 0..500 {
            let stream = &fixture.stream;
            let expected = latest(stream, S0);
            let data = "x".repeat(n * 7 % 900);
            stream.put_if(("k", data.as_str()), expected).unwrap();
            match stream.put_if(("k", "again"), expected) {
                Err(Error::Stale { shard: S0, sequence_number, next }) => {
                    assert!(sequence_number == expected && next > expected);
                }
                other => panic!("{round} {n}: {other:?}"),
            }
            puts += 1;
        }
        fixture = fixture.reopened();
    }
    assert_eq!(read_all(&fixture.stream, S0, StartingPosition::TrimHorizon).len(), puts);
}

#[test]
fn a_conditional_put_goes_on_where_a_reader_stopped_though_the_segment_ended_there() {
    let Fixture { stream, .. } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let mut at = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    for n in 0..300 {
        // Some need a segment of their own.
        let len = if n % 50 == 49 { 100_000 } else { n * 37 % 2000 };
        stream.put_if(("k", vec![7; len].as_slice()), at.sequence_number()).unwrap();
        let page = stream.get_records(&at, Limit::default()).unwrap();
        assert_eq!((page.records.len(), page.records.get(0).unwrap().data().len()), (1, len));
        at = page.next_shard_iterator.unwrap();
    }
}

#[test]
fn of_writers_that_have_read_the_same_one_succeeds() {
    let Fixture { stream, .. } = &Fixture::with(|b| b.max_segment_bytes(64 << 10));
    let won: Vec<usize> = std::thread::scope(|scope| {
        let write = |writer: usize| {
            let mut won = 0;
            let mut at = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
            let mut seen = 0;
            while seen < 2000 {
                let page = stream.get_records(&at, Limit::default()).unwrap();
                seen += page.records.len();
                at = page.next_shard_iterator.unwrap();
                if !page.records.is_empty() || seen >= 2000 {
                    continue;
                }
                // The number that this record has to be.
                let data = format!("{seen}/{writer}");
                match stream.put_if(("k", &data), at.sequence_number()) {
                    Ok(_) => won += 1,
                    Err(Error::Stale { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            won
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(won.iter().sum::<usize>(), 2000);
    for (n, data) in read_all(stream, S0, StartingPosition::TrimHorizon).iter().enumerate() {
        assert_eq!(data.split_once('/').unwrap().0, n.to_string());
    }
}

#[test]
fn a_conditional_put_is_stale_once_after_a_reshard() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "x");
    let expected = latest(stream, S0);
    stream.split_mid(S0).unwrap();
    let record = PutRecord::new("k", "y").explicit_hash_key(HashKey::MIN);
    let Err(Error::Stale { shard: S1, next, .. }) = stream.put_if(record, expected) else {
        panic!("it was put");
    };
    stream.put_if(record, next).unwrap();
    for wrong in [SequenceNumber::from(0), SequenceNumber::from(1 << 40)] {
        assert!(matches!(stream.put_if(record, wrong), Err(Error::Stale { shard: S1, .. })));
    }
}

#[test]
fn conditional_puts_check_key_and_size_first() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let at = latest(stream, S0);
    assert!(matches!(stream.put_if(("", "x"), at), Err(Error::InvalidPartitionKey { .. })));
    let large = "x".repeat(2 << 20);
    assert!(matches!(stream.put_after(("k", &large), at), Err(Error::RecordTooLarge { .. })));
    let reader = Stream::open_read_only(stream.path()).unwrap();
    assert!(matches!(reader.put_if(("k", "x"), at), Err(Error::ReadOnly)));
}

#[test]
fn records_without_a_key_go_to_all_shards_in_turn() {
    let Fixture { stream, .. } = &Fixture::new(4);
    let mut counts = BTreeMap::new();
    let other = stream.clone();
    for n in 0..400 {
        let handle = if n % 2 == 0 { stream } else { &other };
        *counts.entry(handle.put_any(format!("{n:03}")).unwrap().shard).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [100; 4]);
    for shard in 0..4 {
        let at = stream.shard_iterator(ShardId::new(shard), StartingPosition::TrimHorizon).unwrap();
        let records = stream.get_records(&at, Limit::default()).unwrap().records;
        assert!(records.iter().all(|record| record.partition_key().is_empty()));
        for handle in [0, 1] {
            let of_handle = records.iter().map(|record| record.data().to_vec());
            let of_handle: Vec<_> = of_handle.filter(|data| data[2] % 2 == handle).collect();
            assert!(of_handle.is_sorted());
        }
    }
}

#[test]
fn no_keyless_or_ordered_put_fails_while_the_stream_is_resharded() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let done = std::sync::atomic::AtomicBool::new(false);
    let is_done = || done.load(std::sync::atomic::Ordering::Relaxed);
    let put = std::thread::scope(|scope| {
        let keyless = scope.spawn(|| {
            let mut count = 0;
            while !is_done() {
                stream.put_any("x").unwrap();
                count += 1;
            }
            count
        });
        let ordered = scope.spawn(|| {
            let (mut count, mut last) = (0, SequenceNumber::from(0));
            while !is_done() {
                last = stream.put_after(("k", "x"), last).unwrap().sequence_number;
                count += 1;
            }
            count
        });
        for count in [3, 1, 4, 2, 5] {
            stream.reshard_to(count).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        keyless.join().unwrap() + ordered.join().unwrap()
    });
    let shards = stream.shards_with(ShardFilter::FromTrimHorizon);
    let read = shards.iter().map(|s| read_all(stream, s.id, StartingPosition::TrimHorizon).len());
    assert_eq!(read.sum::<usize>(), put);
}
