//! Any number of shards from any other, splits without arithmetic, and how many may be open.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use common::files::small_segments;
use common::{Fixture, S0, S1, S2, put, read_all};
use millstream::{
    Error, HashKey, HashKeyRange, Limit, PutRecord, ShardFilter, ShardId, ShardInfo,
    StartingPosition, Stream,
};
use proptest::prelude::*;

/// The ranges of the open shards, in order.
fn open_ranges(stream: &Stream) -> Vec<HashKeyRange> {
    let open = stream.shards_with(ShardFilter::AtLatest);
    let mut ranges: Vec<_> = open.iter().map(|shard| shard.hash_key_range).collect();
    ranges.sort_unstable();
    ranges
}

/// Checks what holds of every lineage: a shard has no keys that its parents did not have, each key
/// of a closed shard goes to exactly one child, and numbers rise from parent to child.
fn check_lineage(shards: &[ShardInfo]) {
    let common = |one: HashKeyRange, other: HashKeyRange| {
        let (start, end) = (one.start.max(other.start), one.end.min(other.end));
        (start <= end).then_some(HashKeyRange { start, end })
    };
    for shard in shards {
        let parents: Vec<_> = shard.parents().map(|id| &shards[id.index() as usize]).collect();
        if let [low, high] = parents[..] {
            assert!(low.hash_key_range < high.hash_key_range);
        }
        for parent in parents {
            assert!(common(parent.hash_key_range, shard.hash_key_range).is_some());
            assert!(parent.ending_sequence_number.unwrap() < shard.starting_sequence_number);
        }
        let children = shards.iter().filter(|other| other.parents().any(|id| id == shard.id));
        let mut parts: Vec<_> =
            children.map(|c| common(c.hash_key_range, shard.hash_key_range).unwrap()).collect();
        parts.sort_unstable();
        if shard.is_open() {
            assert_eq!(parts, []);
            continue;
        }
        assert!(shard.ending_sequence_number.unwrap() >= shard.starting_sequence_number);
        assert_eq!(parts[0].start, shard.hash_key_range.start);
        assert!(parts.windows(2).all(|pair| pair[0].end.get() + 1 == pair[1].start.get()));
        assert_eq!(parts[parts.len() - 1].end, shard.hash_key_range.end);
    }
}

#[test]
fn any_number_of_shards_becomes_any_other_with_even_ranges() {
    let mut fixture = Fixture::new(3);
    for count in [4, 1, 7, 7, 2, 100, 99, 3] {
        let open = fixture.stream.reshard_to(count).unwrap();
        assert_eq!(open_ranges(&fixture.stream), HashKeyRange::even(count));
        let shards = fixture.stream.shards();
        let range = |id: &ShardId| shards[id.index() as usize].hash_key_range;
        assert!(open.iter().map(range).eq(HashKeyRange::even(count)));
        check_lineage(&shards);
        fixture = fixture.reopened();
        assert_eq!(fixture.stream.shards(), shards);
    }
}

#[test]
fn shards_whose_range_fits_stay_and_a_number_that_is_there_changes_nothing() {
    let Fixture { stream, .. } = &Fixture::new(4);
    stream.merge_shards(S0, S1).unwrap();
    let before = stream.shards();
    let open = stream.reshard_to(4).unwrap();
    assert_eq!(open[2..], [S2, ShardId::new(3)]);
    assert_eq!(stream.shards().len(), before.len() + 2);
    let before = stream.shards();
    assert_eq!(stream.reshard_to(4).unwrap(), open);
    assert_eq!(stream.shards(), before);
}

#[test]
fn children_descend_from_the_shards_that_they_overlap_with() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let open = stream.reshard_to(3).unwrap();
    let parents = |id: ShardId| -> Vec<ShardId> {
        stream.parents(id).unwrap().iter().map(|shard| shard.id).collect()
    };
    assert_eq!(
        open.iter().map(|id| parents(*id)).collect::<Vec<_>>(),
        [vec![S0], vec![S0, S1], vec![S1]]
    );
}

#[test]
fn many_shards_are_merged_through_shards_that_never_have_a_record() {
    let Fixture { stream, .. } = &Fixture::new(5);
    for n in 0..100 {
        put(stream, &n.to_string());
    }
    assert_eq!(stream.reshard_to(1).unwrap(), [ShardId::new(8)]);
    put(stream, "new");
    let shards = stream.shards();
    assert_eq!(shards.len(), 9);
    // Whoever follows the lineage from the oldest shards comes to the newest one, through all.
    let mut left: Vec<_> = stream.shards_with(ShardFilter::AtTrimHorizon);
    let (mut passed, mut records) = (Vec::new(), 0);
    while let Some(shard) = left.pop() {
        if passed.contains(&shard.id) {
            continue;
        }
        passed.push(shard.id);
        let at = stream.shard_iterator(shard.id, StartingPosition::TrimHorizon).unwrap();
        let page = stream.get_records(&at, Limit::default()).unwrap();
        assert_eq!(page.records.is_empty(), (5..8).contains(&shard.id.index()));
        assert_eq!(page.next_shard_iterator.is_some(), shard.is_open());
        records += page.records.len();
        left.extend(page.child_shards);
    }
    passed.sort_unstable();
    assert_eq!(passed, (0..9).map(ShardId::new).collect::<Vec<_>>());
    assert_eq!(records, 101);
}

#[test]
fn a_number_of_shards_that_cannot_be_is_refused_and_changes_nothing() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let before = stream.shards();
    assert!(matches!(stream.reshard_to(0), Err(Error::InvalidArgument(_))));
    for count in [10_001, u32::MAX] {
        match stream.reshard_to(count) {
            Err(Error::TooManyShards { open, max: 10_000 }) => assert_eq!(open, count),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stream.shards(), before);
    let reader = Stream::open_read_only(stream.path()).unwrap();
    assert!(matches!(reader.reshard_to(3), Err(Error::ReadOnly)));
}

#[test]
fn a_stream_opens_no_more_shards_than_it_is_set_to() {
    let fixture = Fixture::with(|builder| builder.shards(2).max_open_shards(3));
    let Fixture { stream, directory: _kept } = &fixture.reopened();
    stream.split_mid(S0).unwrap();
    let before = stream.shards();
    for refused in [stream.split_mid(S1).err(), stream.reshard_to(4).err()] {
        assert!(matches!(refused, Some(Error::TooManyShards { open: 4, max: 3 })), "{refused:?}");
    }
    assert_eq!(stream.shards(), before);
    stream.set_max_open_shards(1).unwrap();
    assert_eq!(stream.reshard_to(2).unwrap().len(), 2, "fewer are always fine");
    stream.set_max_open_shards(4).unwrap();
    stream.reshard_to(4).unwrap();
    assert!(matches!(stream.set_max_open_shards(0), Err(Error::InvalidArgument(_))));
}

#[test]
fn more_shards_than_there_may_be_are_not_created_either() {
    let directory = tempfile::tempdir().unwrap();
    let builder = || Stream::builder(directory.path());
    let refused = builder().shards(4).max_open_shards(3).create().err();
    assert!(matches!(refused, Some(Error::TooManyShards { open: 4, max: 3 })), "{refused:?}");
    let refused = builder().shards(u32::MAX).create().err();
    assert!(matches!(refused, Some(Error::TooManyShards { .. })), "{refused:?}");
    assert!(matches!(builder().max_open_shards(0).create(), Err(Error::InvalidArgument(_))));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_thousand_shards_become_one_and_a_thousand_again() {
    let Fixture { stream, .. } = &Fixture::new(1000);
    for count in [1, 1000] {
        stream.reshard_to(count).unwrap();
        assert_eq!(open_ranges(stream), HashKeyRange::even(count));
    }
    put(stream, "x");
    check_lineage(&stream.shards());
}

#[test]
fn a_shard_is_split_in_the_middle() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.split_mid(S0).unwrap();
    assert_eq!(open_ranges(stream), HashKeyRange::even(2));
    stream.split_mid(S1).unwrap();
    stream.split_mid(S2).unwrap();
    assert_eq!(open_ranges(stream), HashKeyRange::even(4));
    assert!(matches!(stream.split_mid(S0), Err(Error::ShardClosed { shard: S0 })));
}

#[test]
fn a_shard_that_is_too_narrow_is_not_split_in_the_middle() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.split_shard(S0, HashKey::new(4)).unwrap();
    stream.split_mid(S1).unwrap();
    let narrow = ShardId::new(3);
    assert_eq!(stream.shards()[3].hash_key_range.end, HashKey::new(1));
    assert!(matches!(stream.split_mid(narrow), Err(Error::InvalidArgument(_))));
    assert!(matches!(stream.split_at_fraction(narrow, 0.5), Err(Error::InvalidArgument(_))));
}

#[test]
fn a_shard_is_split_where_its_records_tell() {
    for (fraction, percent) in [(0.5, 50), (0.9, 90), (0.01, 1)] {
        let Fixture { stream, .. } = &Fixture::new(1);
        let keys: Vec<_> = (0..1000).map(|n| format!("customer-{n}")).collect();
        for key in &keys {
            put(stream, key);
        }
        // Those that say nothing of the keys to come.
        for _ in 0..500 {
            stream.put_record(PutRecord::new("x", "").explicit_hash_key(HashKey::MAX)).unwrap();
        }
        let [low, _] = stream.split_at_fraction(S0, fraction).unwrap();
        let to_low = keys.iter().filter(|key| put(stream, key).shard == low).count();
        let expected = percent * 10;
        assert!(to_low.abs_diff(expected) <= expected / 2 + 10, "{to_low} of {expected}");
    }
}

#[test]
fn a_shard_without_records_is_split_at_a_fraction_of_its_range() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.split_at_fraction(S0, 0.25).unwrap();
    assert_eq!(open_ranges(stream)[0].end.get(), (1 << 126) - 1);
    for wrong in [0.0, 1.0, -0.5, f64::NAN, f64::INFINITY] {
        assert!(matches!(stream.split_at_fraction(S1, wrong), Err(Error::InvalidArgument(_))));
    }
}

#[test]
fn a_key_that_has_all_the_records_is_not_torn() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for _ in 0..100 {
        put(stream, "hot");
    }
    stream.split_at_fraction(S0, 0.5).unwrap();
    let shard = put(stream, "hot").shard;
    assert!((0..10).all(|_| put(stream, "hot").shard == shard));
}

#[test]
fn no_put_fails_while_the_stream_is_resharded() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let done = AtomicBool::new(false);
    let produce = |producer: usize| {
        let mut count = 0;
        while !done.load(Ordering::Relaxed) {
            let key = format!("{producer}/{}", count % 30);
            let data = format!("{count:06}");
            match producer {
                0 => assert!(stream.put(&key, &data).is_ok()),
                1 => {
                    let fill = |place: &mut [u8]| place.copy_from_slice(data.as_bytes());
                    assert!(stream.put_with(&key, 6, fill).is_ok());
                }
                _ => {
                    let data: Vec<_> = (count..count + 90).map(|n| format!("{n:06}")).collect();
                    let key = |n: usize| format!("{producer}/{}", n % 30);
                    let keys: Vec<_> = (count..count + 90).map(key).collect();
                    assert!(stream.put_batch(keys.iter().zip(&data)).iter().all(Result::is_ok));
                    count += 89;
                }
            }
            count += 1;
        }
        (producer, count)
    };
    let produced: BTreeMap<usize, usize> = std::thread::scope(|scope| {
        let produce = &produce;
        let producers: Vec<_> = (0..3).map(|p| scope.spawn(move || produce(p))).collect();
        for count in [7, 2, 5, 1, 8, 3] {
            stream.reshard_to(count).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        producers.into_iter().map(|producer| producer.join().unwrap()).collect()
    });
    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    // Parents have lower ids than their children.
    for shard in stream.shards() {
        let mut next = stream.shard_iterator(shard.id, StartingPosition::TrimHorizon).ok();
        while let Some(iterator) = next {
            let page = stream.get_records(&iterator, Limit::default()).unwrap();
            for record in &page.records {
                let data = String::from_utf8(record.data().to_vec()).unwrap();
                read.entry(record.partition_key().to_owned()).or_default().push(data);
            }
            next = page.next_shard_iterator.filter(|_| !page.records.is_empty());
        }
    }
    for (producer, count) in produced {
        for key in 0..30.min(count) {
            let expected: Vec<_> = (key..count).step_by(30).map(|n| format!("{n:06}")).collect();
            assert_eq!(read[&format!("{producer}/{key}")], expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]
    #[test]
    fn open_shards_own_every_key_once_through_any_splits_and_merges(
        shards in 1u32..64,
        changes in proptest::collection::vec((any::<u16>(), any::<u128>(), 0..10u8), 200),
    ) {
        let directory = common::files::scratch();
        let stream = &small_segments(directory.path()).shards(shards).create().unwrap();
        for (at, key, change) in changes {
            let mut open = stream.shards_with(ShardFilter::AtLatest);
            open.sort_unstable_by_key(|shard| shard.hash_key_range);
            let at = usize::from(at) % open.len();
            let HashKeyRange { start, end } = open[at].hash_key_range;
            match change {
                0 => drop(stream.reshard_to((key % 64) as u32 + 1).unwrap()),
                1..5 => if let (Some(next), true) = (open.get(at + 1), open.len() > 1) {
                    stream.merge_shards(next.id, open[at].id).unwrap();
                },
                _ => {
                    let key = start.get() + key % (end.get() - start.get()).max(1);
                    let legal = key > start.get() + 1 && key < end.get();
                    prop_assert_eq!(stream.split_shard(open[at].id, HashKey::new(key)).is_ok(), legal);
                }
            }
            let ranges = open_ranges(stream);
            prop_assert_eq!(ranges[0].start, HashKey::MIN);
            prop_assert_eq!(ranges[ranges.len() - 1].end, HashKey::MAX);
            let touch = |pair: &[HashKeyRange]| pair[0].end.get() + 1 == pair[1].start.get();
            prop_assert!(ranges.windows(2).all(touch));
            let owner = |range: &&HashKeyRange| range.contains(HashKey::new(key));
            let range = *ranges.iter().find(owner).unwrap();
            let record = PutRecord::new("k", "").explicit_hash_key(HashKey::new(key));
            let shard = stream.put_record(record).unwrap().shard;
            prop_assert_eq!(stream.put_record(record).unwrap().shard, shard);
            let info = stream.describe_shard(shard).unwrap().info;
            prop_assert_eq!(info.hash_key_range, range);
        }
        check_lineage(&stream.shards());
        prop_assert!(read_all(stream, S0, StartingPosition::TrimHorizon).len() <= 400);
    }
}
