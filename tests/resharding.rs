//! Split and merge: which shards there are afterwards, and how reading goes on.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Fixture, S0, S1, S2, put, read, read_all};
use millstream::{Error, HashKey, HashKeyRange, PutRecord, ShardId, StartingPosition, Stream};

const S3: ShardId = ShardId::new(3);

fn range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange { start: HashKey::new(start), end: HashKey::new(end) }
}

fn split(stream: &Stream, shard: ShardId, key: u128) -> Result<[ShardId; 2], Error> {
    stream.split_shard(shard, HashKey::new(key))
}

#[test]
fn a_closed_shard_is_read_to_its_end_and_then_names_its_children() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for key in ["x", "y", "z"] {
        put(stream, key);
    }
    split(stream, S0, 1 << 127).unwrap();
    let mut next = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    for expected in ["x", "y"] {
        let (data, after) = read(stream, &next, 1);
        assert_eq!(data, [expected]);
        next = after.unwrap();
    }
    let page = stream.get_records(&next, millstream::Limit::records(1)).unwrap();
    assert_eq!(page.records.get(0).unwrap().data(), b"z");
    assert!(page.next_shard_iterator.is_none(), "the end comes with the last record");
    let children: Vec<_> = page.child_shards.iter().map(|shard| shard.id).collect();
    assert_eq!(children, [S1, S2]);
}

#[test]
fn an_open_shard_has_no_children() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "x");
    let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let page = stream.get_records(&horizon, millstream::Limit::default()).unwrap();
    assert!(page.child_shards.is_empty() && page.next_shard_iterator.is_some());
}

#[test]
fn an_empty_shard_that_was_split_ends_at_once() {
    let fixture = Fixture::new(1);
    split(&fixture.stream, S0, 2).unwrap();
    let Fixture { stream, .. } = &fixture.reopened();
    let horizon = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    assert_eq!(read(stream, &horizon, 1).1.map(|next| next.shard()), None);
}

#[test]
fn a_split_divides_the_range_between_two_children() {
    let Fixture { stream, .. } = &Fixture::new(1);
    assert_eq!(split(stream, S0, 2).unwrap(), [S1, S2]);
    let shards = stream.shards();
    assert!(!shards[0].is_open());
    assert_eq!((shards[1].hash_key_range, shards[1].parent), (range(0, 1), Some(S0)));
    assert_eq!((shards[2].hash_key_range, shards[2].parent), (range(2, u128::MAX), Some(S0)));
    for (key, shard) in [(1, S1), (2, S2), (u128::MAX, S2)] {
        let record = PutRecord::new("k", "").explicit_hash_key(HashKey::new(key));
        assert_eq!(stream.put_record(record).unwrap().shard, shard);
    }
}

#[test]
fn a_split_at_the_edges_of_a_range_is_refused_as_in_kinesis() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let before = stream.shards();
    for key in [0, 1, u128::MAX] {
        assert!(matches!(split(stream, S0, key), Err(Error::InvalidArgument(_))), "{key}");
    }
    assert_eq!(stream.shards(), before);
    assert_eq!(split(stream, S0, u128::MAX - 1).unwrap(), [S1, S2]);
}

#[test]
fn a_split_outside_of_the_range_is_refused() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let HashKeyRange { start, end } = stream.shards()[1].hash_key_range;
    for key in [start.get(), start.get() + 1, end.get(), 5, u128::MAX] {
        assert!(matches!(split(stream, S1, key), Err(Error::InvalidArgument(_))), "{key}");
    }
}

#[test]
fn a_closed_shard_is_not_split_again() {
    let Fixture { stream, .. } = &Fixture::new(1);
    split(stream, S0, 2).unwrap();
    let before = stream.shards();
    assert!(matches!(split(stream, S0, 7), Err(Error::ShardClosed { shard: S0 })));
    assert!(matches!(split(stream, ShardId::new(9), 7), Err(Error::ShardNotFound { .. })));
    assert_eq!(stream.shards(), before);
}

#[test]
fn a_merge_joins_adjacent_ranges_in_either_order() {
    for (one, other) in [(S0, S1), (S1, S0)] {
        let Fixture { stream, .. } = &Fixture::new(3);
        assert_eq!(stream.merge_shards(one, other).unwrap(), S3);
        let merged = &stream.shards()[3];
        assert_eq!(merged.hash_key_range, range(0, 226854911280625642308916404954512140969));
        assert_eq!((merged.parent, merged.adjacent_parent), (Some(S0), Some(S1)));
        assert!(stream.shards()[2].is_open());
    }
}

#[test]
fn shards_that_are_not_adjacent_are_not_merged() {
    let Fixture { stream, .. } = &Fixture::new(3);
    assert!(matches!(stream.merge_shards(S0, S2), Err(Error::InvalidArgument(_))));
    assert!(matches!(stream.merge_shards(S0, S0), Err(Error::InvalidArgument(_))));
    assert_eq!(stream.shards().len(), 3);
}

#[test]
fn the_numbers_of_children_lie_above_those_of_their_parents() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let parents: Vec<_> = (0..100).map(|n| put(stream, &n.to_string()).sequence_number).collect();
    stream.merge_shards(S0, S1).unwrap();
    let child = put(stream, "child").sequence_number;
    assert!(parents.iter().all(|parent| *parent < child));
    for shard in &stream.shards()[..2] {
        assert!(shard.ending_sequence_number >= Some(shard.starting_sequence_number));
        assert!(shard.ending_sequence_number < Some(child));
    }
}

#[test]
fn shard_ids_are_never_used_again() {
    let mut fixture = Fixture::new(1);
    let [low, high] = split(&fixture.stream, S0, 1 << 127).unwrap();
    fixture = fixture.reopened();
    let merged = fixture.stream.merge_shards(high, low).unwrap();
    fixture = fixture.reopened();
    let children = split(&fixture.stream, merged, 1 << 127).unwrap();
    assert_eq!([low, high, merged, children[0], children[1]], [1, 2, 3, 4, 5].map(ShardId::new));
}

#[test]
fn no_put_fails_while_shards_are_split_and_merged() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let done = AtomicBool::new(false);
    let put = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..2)
            .map(|producer| {
                let done = &done;
                scope.spawn(move || {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        let key = format!("{producer}/{}", count % 50);
                        stream.put(&key, format!("{count}")).unwrap();
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let mut shard = S0;
        for _ in 0..20 {
            let [low, high] = split(stream, shard, 1 << 127).unwrap();
            shard = stream.merge_shards(low, high).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        producers.into_iter().map(|producer| producer.join().unwrap()).sum::<usize>()
    });
    let shards = stream.shards();
    let all = shards.iter().map(|s| read_all(stream, s.id, StartingPosition::TrimHorizon));
    assert_eq!(all.map(|records| records.len()).sum::<usize>(), put);
}

#[test]
fn waiting_at_the_tip_of_a_shard_ends_when_the_shard_does() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let latest = stream.shard_iterator(S0, StartingPosition::Latest).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| stream.wait(&latest, Duration::MAX).unwrap());
        split(stream, S0, 2).unwrap();
        assert!(waiter.join().unwrap());
    });
    assert!(read(stream, &latest, 1).1.is_none());
}

#[test]
fn a_split_that_cannot_open_its_children_changes_nothing_on_disk_either() {
    let Fixture { directory, stream } = Fixture::new(1);
    put(&stream, "before");
    let in_the_way = directory.path().join("shards/shardId-000000000001");
    std::fs::write(&in_the_way, "not a directory").unwrap();
    assert!(stream.split_shard(S0, HashKey::new(1 << 127)).is_err());
    put(&stream, "after");
    std::fs::remove_file(&in_the_way).unwrap();
    let Fixture { directory: _kept, stream } = Fixture { directory, stream }.reopened();
    assert_eq!(stream.shards().len(), 1);
    assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon), ["before", "after"]);
}

#[test]
fn a_batch_keeps_the_order_of_its_keys_though_its_shards_are_split_while_it_is_put() {
    let Fixture { stream, .. } = &Fixture::new(32);
    let keys: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    let split_all = || {
        for info in stream.shards() {
            stream.split_mid(info.id).unwrap();
        }
        None
    };
    let first = keys.iter().map(|key| (key, "first"));
    let second = keys.iter().map(|key| (key, "second"));
    let between = std::iter::once_with(split_all).flatten();
    let receipts = stream.put_batch(first.chain(between).chain(second));
    let receipts: Vec<_> = receipts.into_iter().map(Result::unwrap).collect();
    let (first, second) = receipts.split_at(keys.len());
    for (first, second) in first.iter().zip(second) {
        assert!(first.sequence_number < second.sequence_number, "{first:?} {second:?}");
    }
}

#[test]
fn a_batch_keeps_its_order_while_shards_are_split_and_merged() {
    let Fixture { directory: _directory, stream } = Fixture::new(1);
    let keys: Vec<_> = (0..8).map(|key| key.to_string()).collect();
    let (batches, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                batches.fetch_add(1, Ordering::Relaxed);
                let batch = (0..2000).map(|n| (keys[n % 8].as_str(), "data"));
                let receipts: Vec<_> =
                    stream.put_batch(batch).into_iter().map(Result::unwrap).collect();
                for key in 0..8 {
                    // Numbers rise from parent to child.
                    let of_key = receipts.iter().skip(key).step_by(8);
                    assert!(of_key.is_sorted_by(|a, b| a.sequence_number < b.sequence_number));
                }
                let mut last = BTreeMap::new();
                for receipt in receipts {
                    let before = last.insert(receipt.shard, receipt.sequence_number);
                    assert!(before < Some(receipt.sequence_number), "{}", receipt.shard);
                }
            }
        });
        let in_the_next_batch = || {
            let now = batches.load(Ordering::Relaxed);
            while batches.load(Ordering::Relaxed) == now && !producer.is_finished() {
                std::thread::yield_now();
            }
        };
        let reshaped = (0..20).try_fold(S0, |whole, _| {
            in_the_next_batch();
            let [low, high] = stream.split_shard(whole, HashKey::new(1 << 127))?;
            in_the_next_batch();
            stream.merge_shards(low, high)
        });
        is_over.store(true, Ordering::Relaxed);
        reshaped.unwrap();
        producer.join().unwrap();
    });
}
