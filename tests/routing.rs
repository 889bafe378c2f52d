//! Hash keys: how a stream is divided, and where records go.

mod common;

use common::Fixture;
use millstream::{HashKey, HashKeyRange, PutRecord, ShardId};

fn key(text: &str) -> HashKey {
    text.parse().unwrap()
}

#[test]
fn three_shards_divide_the_ring_as_kinesis_does() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let ranges: Vec<_> = stream.shards().iter().map(|shard| shard.hash_key_range).collect();
    let expected = [
        ("0", "113427455640312821154458202477256070484"),
        ("113427455640312821154458202477256070485", "226854911280625642308916404954512140969"),
        ("226854911280625642308916404954512140970", "340282366920938463463374607431768211455"),
    ];
    let expected = expected.map(|(start, end)| HashKeyRange { start: key(start), end: key(end) });
    assert_eq!(ranges, expected);
}

#[test]
fn other_numbers_of_shards_divide_the_ring_as_kinesis_does() {
    let cases = [
        (2, "170141183460469231731687303715884105727", "170141183460469231731687303715884105728"),
        (5, "68056473384187692692674921486353642290", "272225893536750770770699685945414569164"),
        (7, "48611766702991209066196372490252601635", "291670600217947254397178234941515609816"),
    ];
    assert_eq!(HashKeyRange::even(1), [HashKeyRange::FULL]);
    for (count, first_end, last_start) in cases {
        let ranges = HashKeyRange::even(count);
        assert_eq!(ranges[0].end, key(first_end));
        assert_eq!(ranges[count as usize - 1].start, key(last_start));
        assert_eq!(ranges[count as usize - 1].end, HashKey::MAX);
    }
}

#[cfg(feature = "md5")]
#[test]
fn md5_places_keys_where_kinesis_does() {
    let cases = [
        ("a", "16955237001963240173058271559858726497"),
        ("b", "195289424170611159128911017612795795343"),
        ("e", "299611584147932843547128611849858313266"),
        ("f", "190917122200326810055233066464581373159"),
        ("é", "136732923097551493579404309126273812335"),
        ("日本", "103341369634063465466164320543046703539"),
    ];
    for (text, hash) in cases {
        assert_eq!(millstream::HashAlgorithm::Md5.hash(text), key(hash), "{text}");
    }
}

#[cfg(feature = "md5")]
#[test]
fn a_stream_that_was_created_with_md5_hashes_with_md5_ever_after() {
    use common::{S0, S1, S2};
    use millstream::HashAlgorithm;
    let fixture = Fixture::with(|builder| builder.shards(3).hash_algorithm(HashAlgorithm::Md5));
    let Fixture { stream, .. } = &fixture.reopened();
    assert_eq!(stream.hash_algorithm(), HashAlgorithm::Md5);
    assert_eq!(stream.put("a", "").unwrap().shard, S0);
    assert_eq!(stream.put("b", "").unwrap().shard, S1);
    assert_eq!(stream.put("e", "").unwrap().shard, S2);
}

#[test]
fn texts_that_are_no_hash_keys_are_refused() {
    let too_large = "340282366920938463463374607431768211456";
    let long = "1".repeat(40);
    for text in ["01", "-1", "+1", "", " 0", "0x1", too_large, &long] {
        assert!(text.parse::<HashKey>().is_err(), "{text:?}");
    }
    assert_eq!(key("0"), HashKey::MIN);
    assert_eq!(key("340282366920938463463374607431768211455"), HashKey::MAX);
}

#[test]
fn an_explicit_hash_key_decides_upon_the_shard() {
    let Fixture { stream, .. } = &Fixture::new(3);
    for info in stream.shards() {
        let HashKeyRange { start, end } = info.hash_key_range;
        for hash_key in [start, end] {
            let record = PutRecord::new("same key", "").explicit_hash_key(hash_key);
            assert_eq!(stream.put_record(record).unwrap().shard, info.id);
        }
    }
}

#[test]
fn a_partition_key_always_goes_to_the_same_shard() {
    let fixture = Fixture::new(8);
    let shards = |fixture: &Fixture| -> Vec<ShardId> {
        (0..500).map(|n| fixture.stream.put(&format!("k{n}"), "").unwrap().shard).collect()
    };
    let before = shards(&fixture);
    assert_eq!(shards(&fixture), before);
    assert_eq!(shards(&fixture.reopened()), before);
}
