//! Where reading starts, and how it goes on.

mod common;

use std::time::{Duration, Instant};

use common::{Fixture, S0, S1, START_MS, TestClock, put, read, read_all};
use millstream::{
    Error, HashKey, Limit, PutRecord, Receipt, SequenceNumber, ShardIterator, StartingPosition,
    Stream, WaitStrategy,
};

/// A shard with r1 to r5, which arrived 100 ms after each other.
fn five_records() -> (Fixture, Vec<Receipt>, TestClock) {
    let clock = TestClock::new();
    let fixture = Fixture::with(|builder| builder.clock(clock.clone()));
    let receipts = (1..=5).map(|n| {
        clock.set(100 * (n - 1));
        put(&fixture.stream, &format!("r{n}"))
    });
    let receipts = receipts.collect();
    (fixture, receipts, clock)
}

fn iterator(stream: &Stream, from: StartingPosition) -> ShardIterator {
    stream.shard_iterator(S0, from).unwrap()
}

#[test]
fn trim_horizon_of_an_empty_shard_reads_what_is_put_later() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    put(stream, "x");
    assert_eq!(read(stream, &horizon, 10).0, ["x"]);
}

#[test]
fn latest_of_an_empty_shard_reads_what_is_put_later() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let latest = iterator(stream, StartingPosition::Latest);
    for key in ["a", "b", "c"] {
        put(stream, key);
    }
    assert_eq!(read(stream, &latest, 10).0, ["a", "b", "c"]);
}

#[test]
fn latest_reads_only_what_is_put_later() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let latest = iterator(stream, StartingPosition::Latest);
    put(stream, "r6");
    assert_eq!(read(stream, &latest, 10).0, ["r6"]);
}

#[test]
fn latest_stays_where_it_was_taken_however_often_it_is_read() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let latest = iterator(stream, StartingPosition::Latest);
    let (none, next) = read(stream, &latest, 10);
    assert!(none.is_empty());
    put(stream, "r6");
    assert_eq!(read(stream, &latest, 10).0, ["r6"]);
    assert_eq!(read(stream, &next.unwrap(), 10).0, ["r6"]);
}

#[test]
fn at_a_number_reads_that_record_first() {
    let (Fixture { stream, .. }, receipts, _) = &five_records();
    let at = StartingPosition::AtSequenceNumber(receipts[1].sequence_number);
    assert_eq!(read_all(stream, S0, at), ["r2", "r3", "r4", "r5"]);
}

#[test]
fn after_a_number_reads_the_record_behind_it_first() {
    let (Fixture { stream, .. }, receipts, _) = &five_records();
    let after = StartingPosition::AfterSequenceNumber(receipts[1].sequence_number);
    assert_eq!(read_all(stream, S0, after), ["r3", "r4", "r5"]);
}

#[test]
fn after_the_newest_record_reads_what_is_put_later() {
    let (Fixture { stream, .. }, receipts, _) = &five_records();
    let after = StartingPosition::AfterSequenceNumber(receipts[4].sequence_number);
    let (none, next) = read(stream, &iterator(stream, after), 10);
    assert!(none.is_empty());
    put(stream, "r6");
    assert_eq!(read(stream, &next.unwrap(), 10).0, ["r6"]);
}

#[test]
fn a_number_that_no_record_has_stands_for_the_next_record_above_it() {
    let (Fixture { stream, .. }, receipts, _) = &five_records();
    let between: u64 = receipts[1].sequence_number.to_string().parse().unwrap();
    for number in between + 1..=between + 33 {
        let at = StartingPosition::AtSequenceNumber(SequenceNumber::from(number));
        let first = read_all(stream, S0, at).remove(0);
        let third: u64 = receipts[2].sequence_number.to_string().parse().unwrap();
        assert_eq!(first, if number <= third { "r3" } else { "r4" }, "{number}");
    }
    let zero = StartingPosition::AtSequenceNumber(SequenceNumber::from(0));
    assert_eq!(read_all(stream, S0, zero).len(), 5);
}

#[test]
fn a_number_beyond_the_newest_record_waits_for_the_records_above_it() {
    let (Fixture { stream, .. }, receipts, _) = &five_records();
    let last: u64 = receipts[4].sequence_number.to_string().parse().unwrap();
    let beyond = StartingPosition::AtSequenceNumber(SequenceNumber::from(last + 128));
    let mut beyond = iterator(stream, beyond);
    let mut above = Vec::new();
    for n in 6..=12 {
        let receipt = put(stream, &format!("r{n}"));
        if receipt.sequence_number >= SequenceNumber::from(last + 128) {
            above.push(format!("r{n}"));
        }
    }
    let mut got = Vec::new();
    for _ in 0..10 {
        let (data, next) = read(stream, &beyond, 2);
        got.extend(data);
        beyond = next.unwrap();
    }
    assert_eq!(got, above);
}

#[test]
fn a_number_that_is_no_local_one_is_refused_with_the_shard() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let aws: SequenceNumber =
        "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
    match stream.shard_iterator(S0, StartingPosition::AtSequenceNumber(aws)) {
        Err(Error::WrongShard { shard: S0, sequence_number, lies_in: None }) => {
            assert_eq!(sequence_number, aws);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn at_a_time_reads_the_first_record_that_arrived_then_or_later() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let at = |ms| read_all(stream, S0, StartingPosition::AtTimestampMs(START_MS + ms));
    assert_eq!(at(200), ["r3", "r4", "r5"]);
    assert_eq!(at(250), ["r4", "r5"]);
    assert_eq!(at(0).len(), 5);
    assert!(at(401).is_empty());
    assert_eq!(read_all(stream, S0, StartingPosition::AtTimestampMs(0)).len(), 5);
}

#[test]
fn a_clock_that_steps_back_changes_neither_order_nor_start() {
    let (Fixture { stream, .. }, _, clock) = &five_records();
    clock.set(0);
    put(stream, "r6");
    let at = StartingPosition::AtTimestampMs(START_MS + 400);
    assert_eq!(read_all(stream, S0, at), ["r5", "r6"]);
}

#[test]
fn a_clock_that_steps_back_ten_seconds_leaves_every_time_where_it_was() {
    let clock = TestClock::new();
    clock.set(10_000);
    let Fixture { stream, .. } = &Fixture::with(|builder| builder.clock(clock.clone()));
    for (n, ms) in [10_000, 10_100, 10_200, 10_300, 10_400, 400].into_iter().enumerate() {
        clock.set(ms);
        put(stream, &format!("r{}", n + 1));
    }
    let at = |ms| read_all(stream, S0, StartingPosition::AtTimestampMs(START_MS + ms));
    assert_eq!(at(10_400), ["r5", "r6"]);
    assert_eq!(at(10_300), ["r4", "r5", "r6"]);
    assert_eq!(at(400).len(), 6, "r6 is not the first that arrived then or later");
    assert!(at(10_401).is_empty());
}

#[test]
fn times_are_found_and_nobody_hangs_though_the_clock_steps_back_and_forth_by_a_year() {
    const YEAR: u64 = 365 * 24 * 3600 * 1000;
    let clock = TestClock::new();
    let mut fixture =
        Fixture::with(|builder| builder.clock(clock.clone()).max_segment_bytes(64 << 10));
    let mut arrivals = Vec::new();
    // Several segments, some of them finished, and openings in between.
    for round in 0..6 {
        for n in 0..400 {
            let ms = YEAR * [1, 0, 2, 1, 0, 1][round] + n;
            clock.set(ms);
            fixture.stream.put("k", format!("{}{}", arrivals.len(), " ".repeat(100))).unwrap();
            arrivals.push(ms);
        }
        let Fixture { stream, directory } = &fixture;
        let reader = Stream::open_read_only(directory.path()).unwrap();
        for ms in arrivals.iter().step_by(97).flat_map(|ms| [*ms, *ms + 1]).chain([0, 3 * YEAR]) {
            let first = arrivals.iter().position(|arrival| *arrival >= ms);
            for stream in [stream, &reader] {
                let at = StartingPosition::AtTimestampMs(START_MS + ms);
                let found = read(stream, &iterator(stream, at), 1).0;
                let found = found.first().map(|data| data.trim_end().parse().unwrap());
                assert_eq!(found, first, "{ms}");
            }
        }
        let horizon = iterator(stream, StartingPosition::TrimHorizon);
        assert_eq!(stream.lag(&horizon).unwrap().records, arrivals.len() as u64);
        assert!(stream.wait(&horizon, Duration::MAX).unwrap());
        fixture.stream.flush().unwrap();
        let Fixture { directory, stream } = fixture;
        stream.close().unwrap();
        let builder = Stream::builder(directory.path()).clock(clock.clone());
        fixture = Fixture { stream: builder.open_existing().unwrap(), directory };
    }
}

#[test]
fn a_limit_divides_the_records_into_pages() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let mut next = iterator(stream, StartingPosition::TrimHorizon);
    for expected in [&["r1", "r2"][..], &["r3", "r4"], &["r5"], &[], &[]] {
        let (data, after) = read(stream, &next, 2);
        assert_eq!(data, expected);
        next = after.unwrap();
    }
}

#[test]
fn an_iterator_reads_the_same_page_as_often_as_it_is_read() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    assert_eq!(read(stream, &horizon, 3).0, read(stream, &horizon, 3).0);
}

#[test]
fn an_iterator_is_stored_as_text_and_parsed_in_any_process() {
    let (Fixture { stream, directory }, receipts, _) = &five_records();
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    let next = read(stream, &horizon, 3).1.unwrap();
    let text = next.to_string();
    assert_eq!(text, format!("shardId-000000000000:{}", receipts[3].sequence_number));
    let parsed: ShardIterator = text.parse().unwrap();
    assert_eq!(parsed.to_string(), text);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    for stream in [stream, &reader] {
        assert_eq!(read(stream, &parsed, 10).0, ["r4", "r5"]);
    }
    // At the tip, the end and before the first record too.
    let latest = iterator(stream, StartingPosition::Latest).to_string().parse().unwrap();
    let before: ShardIterator = horizon.to_string().parse().unwrap();
    assert!(read(stream, &latest, 10).0.is_empty());
    put(stream, "r6");
    assert_eq!(read(stream, &latest, 10).0, ["r6"]);
    assert_eq!(read(stream, &before, 10).0.len(), 6);
}

#[test]
fn texts_that_are_no_iterators_are_refused() {
    for text in ["", "shardId-000000000000", "7", "x:7", "7:", "7:-1", "7:x", "7:07", "7:7:7"] {
        assert!(text.parse::<ShardIterator>().is_err(), "{text:?}");
    }
    let aws = "49590338271490256608559692538361571095921575989136588898";
    assert!(format!("0:{aws}").parse::<ShardIterator>().is_err(), "no local number");
}

#[test]
fn an_iterator_of_another_stream_is_refused_where_it_can_be_known() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "x");
    let [low, _] = stream.split_mid(S0).unwrap();
    let shards = stream.shards();
    let last = shards[0].ending_sequence_number.unwrap();
    let refused = |text: String| stream.get_records(&text.parse().unwrap(), Limit::default()).err();
    assert!(matches!(refused("9:0".into()), Some(Error::ShardNotFound { .. })));
    let too_low = refused(format!("{low}:{last}"));
    assert!(matches!(too_low, Some(Error::WrongShard { lies_in: Some(S0), .. })), "{too_low:?}");
    assert!(matches!(refused("0:1000000".into()), Some(Error::WrongShard { .. })));
}

#[test]
fn a_number_of_a_relative_is_refused_with_both_shards() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let [_, parent] = [HashKey::MIN, HashKey::MAX]
        .map(|key| stream.put_record(PutRecord::new("k", "x").explicit_hash_key(key)).unwrap());
    let merged = stream.merge_shards(S0, S1).unwrap();
    let child = put(stream, "y").sequence_number;
    let at = |shard, number| {
        stream.shard_iterator(shard, StartingPosition::AtSequenceNumber(number)).unwrap_err()
    };
    let error = at(parent.shard, child);
    assert!(
        matches!(error, Error::WrongShard { shard, sequence_number, lies_in: Some(other) }
            if (shard, sequence_number, other) == (parent.shard, child, merged)),
        "{error:?}"
    );
    assert!(error.to_string().contains(&merged.to_string()), "{error}");
    // Both parents may have a number like this.
    let error = at(merged, 4096.into());
    assert!(matches!(error, Error::WrongShard { lies_in: None, .. }), "{error:?}");
    // A grandparent, when the shard in between has begun above it.
    let [low, _] = stream.split_mid(merged).unwrap();
    let error = at(low, child);
    assert!(matches!(error, Error::WrongShard { lies_in: Some(other), .. } if other == merged));
}

#[test]
fn a_stored_number_makes_the_same_iterator_again() {
    let (Fixture { stream, .. }, ..) = &five_records();
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    let next = read(stream, &horizon, 3).1.unwrap();
    let stored = next.sequence_number().to_string();
    let again = StartingPosition::AtSequenceNumber(stored.parse().unwrap());
    assert_eq!(read_all(stream, S0, again), ["r4", "r5"]);
}

#[test]
fn a_record_over_the_byte_limit_is_read_all_the_same() {
    let Fixture { stream, .. } = &Fixture::new(1);
    stream.put("large", vec![7; 900 << 10]).unwrap();
    put(stream, "small");
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    let page = stream.get_records(&horizon, Limit::bytes(1 << 10)).unwrap();
    assert_eq!(page.records.len(), 1);
    assert_eq!(page.records.get(0).unwrap().data(), vec![7; 900 << 10]);
}

#[test]
fn lag_counts_the_records_their_stored_bytes_and_the_age_of_the_next() {
    let (Fixture { stream, .. }, _, clock) = &five_records();
    clock.set(1000);
    let horizon = iterator(stream, StartingPosition::TrimHorizon);
    let page = stream.get_records(&horizon, Limit::records(2)).unwrap();
    let lag = page.records.lag();
    // Each takes a header of 32 bytes and, for key and data, 32 bytes more.
    assert_eq!((lag.records, lag.bytes, lag.millis), (3, 3 * 64, 800));
    assert_eq!(stream.lag(&page.next_shard_iterator.unwrap()).unwrap(), lag);
    let latest = iterator(stream, StartingPosition::Latest);
    assert_eq!(stream.lag(&latest).unwrap(), millstream::Lag::default());
}

#[test]
fn all_ways_of_waiting_see_a_record_when_it_is_put() {
    let Fixture { stream, .. } = &Fixture::new(1);
    for strategy in [WaitStrategy::Park, WaitStrategy::Yield, WaitStrategy::Spin] {
        let latest = iterator(stream, StartingPosition::Latest);
        assert!(!stream.wait_with(&latest, Duration::from_millis(1), strategy).unwrap());
        std::thread::scope(|scope| {
            let waiter =
                scope.spawn(|| stream.wait_with(&latest, Duration::MAX, strategy).unwrap());
            put(stream, "x");
            assert!(waiter.join().unwrap(), "{strategy:?}");
        });
    }
}

#[test]
fn waiting_ends_when_a_record_is_put_or_the_time_is_over() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let latest = iterator(stream, StartingPosition::Latest);
    assert!(!stream.wait(&latest, Duration::from_millis(1)).unwrap());
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| stream.wait(&latest, Duration::MAX).unwrap());
        put(stream, "x");
        assert!(waiter.join().unwrap());
    });
    assert!(stream.wait(&latest, Duration::ZERO).unwrap());
}

#[test]
fn records_are_counted_exactly_across_segments_and_openings() {
    let mut fixture = Fixture::with(|builder| builder.max_segment_bytes(64 << 10));
    let mut put_so_far = 0;
    for round in 0..5 {
        for _ in 0..round * 700 {
            put(&fixture.stream, "some record");
            put_so_far += 1;
        }
        let horizon = iterator(&fixture.stream, StartingPosition::TrimHorizon);
        assert_eq!(fixture.stream.lag(&horizon).unwrap().records, put_so_far);
        assert_eq!(fixture.stream.describe_shard(S0).unwrap().records, put_so_far);
        fixture = fixture.reopened();
    }
}

#[test]
fn waiting_ends_when_the_record_before_is_given_up() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let latest = stream.shard_iterator(S0, StartingPosition::Latest).unwrap();
    let (claimed, is_claimed) = std::sync::mpsc::channel();
    let (give_up, given_up) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let first = scope.spawn(move || {
            stream.put_with("k", 1, |_| {
                claimed.send(()).unwrap();
                given_up.recv().unwrap();
                panic!("the data cannot be made");
            })
        });
        is_claimed.recv().unwrap();
        put(stream, "behind");
        let waiter = scope.spawn(|| {
            let start = Instant::now();
            (stream.wait(&latest, Duration::from_secs(5)).unwrap(), start.elapsed())
        });
        std::thread::sleep(Duration::from_millis(20));
        give_up.send(()).unwrap();
        assert!(first.join().is_err());
        let (is_there, after) = waiter.join().unwrap();
        assert!(is_there && after < Duration::from_secs(4), "{after:?}");
    });
}
