//! Numbers: strictly rising in a shard, given once, in the order of reading.

mod common;

use std::collections::BTreeMap;

use common::{Fixture, S0, put, read_all};
use millstream::{HashKey, Limit, PutRecord, Receipt, SequenceNumber, ShardId, StartingPosition};
use proptest::prelude::*;

#[test]
fn a_thousand_puts_get_rising_numbers_and_are_read_in_the_order_they_were_put() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let keys: Vec<_> = (0..1000).map(|i| format!("key-{i}")).collect();
    let numbers: Vec<_> = keys.iter().map(|key| put(stream, key).sequence_number).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(read_all(stream, S0, StartingPosition::TrimHorizon), keys);
}

#[test]
fn a_hundred_threads_on_two_shards_get_unique_numbers_that_rise_as_they_are_read() {
    producers_get_each_record_once(100, 2, 200);
}

#[test]
fn four_producers_on_one_shard_lose_and_repeat_nothing() {
    producers_get_each_record_once(4, 1, 50_000);
}

#[test]
fn four_producers_on_eight_shards_lose_and_repeat_nothing() {
    producers_get_each_record_once(4, 8, 50_000);
}

/// Every receipt's number is unique and rises in its shard, and reading gives each record once.
fn producers_get_each_record_once(threads: usize, shards: u32, puts: usize) {
    let Fixture { stream, .. } = &Fixture::with(|b| b.shards(shards).max_segment_bytes(1 << 20));
    let receipts: Vec<(String, Receipt)> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut receipts = Vec::new();
                    for n in 0..puts {
                        let key = format!("{thread}/{n}");
                        let receipt = put(stream, &key);
                        receipts.push((key, receipt));
                    }
                    let mut last = BTreeMap::new();
                    for (_, receipt) in &receipts {
                        let before = last.insert(receipt.shard, receipt.sequence_number);
                        assert!(before < Some(receipt.sequence_number));
                    }
                    receipts
                })
            })
            .collect();
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect()
    });
    let mut put = BTreeMap::new();
    for (key, receipt) in receipts {
        assert_eq!(put.insert((receipt.shard, receipt.sequence_number), key), None);
    }
    let mut got = BTreeMap::new();
    for shard in 0..shards {
        let shard = ShardId::new(shard);
        let mut last = None;
        let mut iterator = stream.shard_iterator(shard, StartingPosition::TrimHorizon).unwrap();
        loop {
            let page = stream.get_records(&iterator, Limit::default()).unwrap();
            for record in &page.records {
                assert!(last < Some(record.sequence_number()));
                last = Some(record.sequence_number());
                got.insert((shard, record.sequence_number()), record.partition_key().to_owned());
            }
            if page.records.is_empty() {
                break;
            }
            iterator = page.next_shard_iterator.unwrap();
        }
    }
    assert_eq!(got.len(), put.len());
    assert!(got == put, "what was read is what was acknowledged");
}

#[test]
fn a_batch_keeps_its_order_inside_each_shard() {
    let Fixture { stream, .. } = &Fixture::new(3);
    let keys = [HashKey::MIN, HashKey::MAX, HashKey::new(1 << 127)];
    let data: Vec<_> = (0..999).map(|n| n.to_string()).collect();
    let batch = data.iter().zip(keys.iter().cycle());
    let results = stream
        .put_batch(batch.map(|(data, key)| PutRecord::new("k", data).explicit_hash_key(*key)));
    for (n, result) in results.iter().enumerate() {
        assert_eq!(result.as_ref().unwrap().shard, ShardId::new([0, 2, 1][n % 3]));
    }
    for (shard, first) in [(0, 0), (2, 1), (1, 2)] {
        let expected: Vec<_> = data.iter().skip(first).step_by(3).cloned().collect();
        assert_eq!(read_all(stream, ShardId::new(shard), StartingPosition::TrimHorizon), expected);
    }
}

#[test]
fn numbers_go_on_rising_when_the_stream_is_opened_again() {
    let mut fixture = Fixture::new(1);
    let mut last = None;
    for round in 0..5 {
        let number = put(&fixture.stream, &round.to_string()).sequence_number;
        assert!(last < Some(number));
        last = Some(number);
        fixture = fixture.reopened();
    }
    assert_eq!(read_all(&fixture.stream, S0, StartingPosition::TrimHorizon).len(), 5);
}

proptest! {
    #[test]
    fn the_text_of_a_number_parses_to_the_same_number_and_sorts_as_it(
        a in "0|[1-9][0-9]{0,56}",
        b in "0|[1-9][0-9]{0,56}",
    ) {
        let (x, y): (SequenceNumber, SequenceNumber) = (a.parse().unwrap(), b.parse().unwrap());
        prop_assert_eq!(x.to_string(), a.clone());
        prop_assert_eq!(format!("{a:0>60}").cmp(&format!("{b:0>60}")), x.cmp(&y));
        prop_assert_eq!(format!("{x:060}"), format!("{a:0>60}"));
    }
}

#[test]
fn texts_that_are_no_numbers_are_refused() {
    // 2^192 is the first number that is too large.
    let too_large = "6277101735386680763835789423207666416102355444464034512896";
    let largest = "6277101735386680763835789423207666416102355444464034512895";
    for text in ["", "-1", "+1", "01", " 1", "1 ", "1e3", "٣", too_large] {
        assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
    }
    assert_eq!(largest.parse::<SequenceNumber>().unwrap().to_string(), largest);
}

#[test]
fn a_number_of_aws_kinesis_tells_what_it_is_made_of_and_others_do_not() {
    let text = "49590338271490256608559692538361571095921575989136588898";
    let parts = text.parse::<SequenceNumber>().unwrap().aws_parts().unwrap();
    assert_eq!((parts.version, parts.shard), (2, ShardId::new(6)));
    assert_eq!((parts.put_second, parts.shard_created_second), (1545084650, 1542776258));
    assert_eq!(parts.index, 1734642199);
    let other_version = "49590338271490256608559692538361571095921575989136588897";
    let largest = "6277101735386680763835789423207666416102355444464034512895";
    for text in ["0", "4096", other_version, largest] {
        assert_eq!(text.parse::<SequenceNumber>().unwrap().aws_parts(), None, "{text}");
    }
}
