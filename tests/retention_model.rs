//! Retention against a model: a plain list of records, from whose front some are taken.

mod common;

use std::time::Duration;

use common::files::{killed, scratch};
use common::{S0, START_MS, TestClock};
use millstream::{Limit, Retention, SequenceNumber, StartingPosition, Stream, verify};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Puts so many records of so many bytes.
    Put(usize, usize),
    /// Sets the clock to so many milliseconds after the start.
    Clock(u64),
    /// Keeps records for so many milliseconds, or so many bytes, or for ever.
    Retain(Option<u64>, Option<u64>),
    Apply,
    /// Trims up to a record: one of a thousand parts of those that there were.
    Trim(usize),
    Reopen,
    Kill,
    /// Reads a page with the reader that is behind.
    Read(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..80usize, 0..3000usize).prop_map(|(count, len)| Step::Put(count, len)),
        3 => (0..10_000u64).prop_map(Step::Clock),
        1 => (proptest::option::of(0..5000u64), proptest::option::of(1u64..1 << 20))
            .prop_map(|(age, bytes)| Step::Retain(age, bytes)),
        2 => Just(Step::Apply),
        1 => (0..1000usize).prop_map(Step::Trim),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        3 => (1..100usize).prop_map(Step::Read),
    ]
}

/// Everything that was ever put: number, arrival, and the data, which is the count of those before.
struct Model {
    put: Vec<(SequenceNumber, u64)>,
    /// So many are gone at least.
    gone: usize,
    /// The clock has stepped back: a record may get too old earlier than one that was seen before.
    /// Readers notice later, whoever applies the retention at once.
    stepped_back: bool,
}

/// What must hold at every moment: what is there are the last of those that were put.
fn check(stream: &Stream, model: &mut Model, now_ms: u64, retention: &Retention) {
    if model.stepped_back && retention.age.is_some() {
        stream.apply_retention().unwrap();
    }
    let described = stream.describe_shard(S0).unwrap();
    let gone = described.trimmed_records as usize;
    assert_eq!(described.records as usize, model.put.len() - gone);
    assert!(gone >= model.gone, "what is gone stays gone");
    // By age, exactly: the first that is left is not too old, nor is anything behind it alone.
    if let Some(age) = retention.age {
        let oldest_ms = now_ms.saturating_sub(age.as_millis() as u64);
        let is_old = |arrival: u64| arrival < oldest_ms;
        if let Some((_, first)) = model.put.get(gone) {
            assert!(!is_old(*first), "{first} is older than {oldest_ms}");
        }
        if retention.bytes.is_none() {
            // Nothing went that is not too old, or stood before something that is, but for what
            // came while the clock was ahead.
            for (_, arrival) in &model.put[model.gone..gone] {
                assert!(is_old(*arrival) || *arrival > now_ms, "{arrival} at {now_ms}");
            }
        }
    }
    model.gone = gone;
    let mut next = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    // Segments may go at any time if there is a limit of bytes, also since the shard was described.
    let first = stream.get_records(&next, Limit::records(1)).unwrap();
    let index_of = |number| model.put.binary_search_by_key(&number, |(n, _)| *n).unwrap();
    let mut read = first.records.last_sequence_number().map_or(model.put.len(), index_of);
    assert!(read == gone || (read > gone && retention.bytes.is_some()), "{read} {gone}");
    read += first.records.len();
    next = first.next_shard_iterator.unwrap();
    loop {
        let page = stream.get_records(&next, Limit::default()).unwrap();
        if let Some(gap) = page.gap {
            assert!(retention.bytes.is_some(), "{gap:?}");
            read += gap.records.unwrap() as usize;
        }
        if page.records.is_empty() {
            break;
        }
        for record in &page.records {
            assert_eq!((record.sequence_number(), record.arrival_ms()), model.put[read]);
            read += 1;
        }
        next = page.next_shard_iterator.unwrap();
    }
    assert_eq!(read, model.put.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_newest_are_there_and_nothing_comes_back(
        steps in proptest::collection::vec(step(), 1..40)
    ) {
        let clock = TestClock::new();
        let open = |directory: &tempfile::TempDir| {
            Stream::builder(directory.path()).max_segment_bytes(64 << 10).clock(clock.clone()).open()
        };
        let mut directory = scratch();
        let mut stream = open(&directory).unwrap();
        let mut model = Model { put: Vec::new(), gone: 0, stepped_back: false };
        let (mut now_ms, mut retention) = (START_MS, Retention::default());
        let mut slow = stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        let mut slow_at = 0;
        for step in steps {
            match step {
                Step::Put(count, len) => {
                    for _ in 0..count {
                        let receipt = stream.put("k", vec![7; len]).unwrap();
                        assert!(model.put.last().is_none_or(|(n, _)| *n < receipt.sequence_number));
                        model.put.push((receipt.sequence_number, now_ms));
                    }
                }
                Step::Clock(ms) => {
                    clock.set(ms);
                    model.stepped_back |= START_MS + ms < now_ms;
                    now_ms = START_MS + ms;
                }
                Step::Retain(age, bytes) => {
                    retention = Retention::default();
                    retention.age = age.map(Duration::from_millis);
                    retention.bytes = bytes;
                    stream.set_retention(retention.clone()).unwrap();
                }
                Step::Apply => stream.apply_retention().unwrap(),
                Step::Trim(part) => {
                    if let Some((number, _)) = model.put.get(model.put.len() * part / 1000) {
                        stream.trim(S0, *number).unwrap();
                        model.gone = model.gone.max(model.put.len() * part / 1000 + 1);
                        // What went by age at the same time is not told apart.
                        model.gone = stream.describe_shard(S0).unwrap().trimmed_records as usize;
                    }
                }
                Step::Reopen => {
                    stream.close().unwrap();
                    stream = open(&directory).unwrap();
                }
                Step::Kill => {
                    directory = killed(directory.path());
                    stream = open(&directory).unwrap();
                    // What had got too old may be back if the clock went back, and nobody had
                    // written it down.
                    let there = stream.describe_shard(S0).unwrap().trimmed_records as usize;
                    model.gone = model.gone.min(there);
                }
                Step::Read(limit) => {
                    let page = stream.get_records(&slow, Limit::records(limit)).unwrap();
                    if let Some(gap) = page.gap {
                        slow_at += gap.records.unwrap_or(0) as usize;
                    }
                    for record in &page.records {
                        assert_eq!(record.sequence_number(), model.put[slow_at].0);
                        slow_at += 1;
                    }
                    slow = page.next_shard_iterator.unwrap();
                }
            }
            check(&stream, &mut model, now_ms, &retention);
        }
        assert_eq!(verify(directory.path()).unwrap().damage().count(), 0);
    }
}
