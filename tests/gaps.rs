//! What retention took away from under a reader is told to it, with both ends, exactly and once.

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::files::process_all;
use common::{Fixture, S0, put, read_all};
use millstream::{
    Batch, Checkpointer, Gap, HashKey, Limit, ProcessorError, SequenceNumber, ShardIterator,
    ShardState, StartingPosition, Stream, WorkerPool,
};

/// Puts so many records, about 60 of which fill a segment.
fn fill(stream: &Stream, count: usize) -> Vec<SequenceNumber> {
    (0..count).map(|_| stream.put("k", [7; 1000]).unwrap().sequence_number).collect()
}

fn small() -> Fixture {
    Fixture::with(|b| b.max_segment_bytes(64 << 10))
}

fn at(stream: &Stream, from: StartingPosition) -> ShardIterator {
    stream.shard_iterator(S0, from).unwrap()
}

fn gap(stream: &Stream, iterator: &ShardIterator) -> Option<Gap> {
    let page = stream.get_records(iterator, Limit::records(1)).unwrap();
    assert_eq!(page.records.gap(), page.gap);
    page.gap
}

#[test]
fn a_slow_reader_is_told_what_it_missed_and_told_once() {
    let Fixture { stream, .. } = &small();
    let numbers = fill(stream, 300);
    let start = at(stream, StartingPosition::TrimHorizon);
    let first = stream.get_records(&start, Limit::records(50)).unwrap();
    let next = first.next_shard_iterator.unwrap();
    stream.trim(S0, numbers[249]).unwrap();
    let page = stream.get_records(&next, Limit::records(10)).unwrap();
    let told = page.gap.unwrap();
    assert_eq!((told.from, told.to), (next.sequence_number(), numbers[250]));
    assert_eq!(told.records, Some(200));
    assert_eq!(page.records.get(0).unwrap().sequence_number(), numbers[250]);
    let page = stream.get_records(&page.next_shard_iterator.unwrap(), Limit::default()).unwrap();
    assert_eq!((page.gap, page.records.len()), (None, 40));
    // One that had not begun missed all of it.
    assert_eq!(gap(stream, &start).unwrap().records, Some(250));
    // What was read before stays readable.
    assert!(first.records.iter().all(|record| record.data() == [7; 1000]));
}

#[test]
fn numbers_below_the_horizon_lead_to_it_and_say_how_much_is_gone_if_that_is_known() {
    let Fixture { stream, .. } = &small();
    let numbers = fill(stream, 300);
    // Within the first segment that is left, and far below it.
    stream.trim(S0, numbers[249]).unwrap();
    for (from, missing) in [(248, Some(2)), (249, Some(1)), (0, Some(250)), (100, None)] {
        let told = gap(stream, &at(stream, StartingPosition::AtSequenceNumber(numbers[from])));
        let told = told.unwrap();
        assert_eq!((told.from, told.to), (numbers[from], numbers[250]));
        assert_eq!(told.records, missing, "from {from}");
    }
    for (from, expected) in [(249, None), (250, None), (248, Some(Some(1)))] {
        let after = at(stream, StartingPosition::AfterSequenceNumber(numbers[from]));
        assert_eq!(gap(stream, &after).map(|gap| gap.records), expected, "after {from}");
    }
    assert_eq!(gap(stream, &at(stream, StartingPosition::TrimHorizon)), None);
    assert_eq!(gap(stream, &at(stream, StartingPosition::Latest)), None);
}

#[test]
fn who_had_read_everything_misses_nothing_though_all_of_it_was_trimmed() {
    let Fixture { stream, .. } = &small();
    let last = *fill(stream, 300).last().unwrap();
    let latest = at(stream, StartingPosition::Latest);
    let after = at(stream, StartingPosition::AfterSequenceNumber(last));
    stream.trim(S0, last).unwrap();
    for iterator in [&latest, &after] {
        let page = stream.get_records(iterator, Limit::default()).unwrap();
        assert!(page.records.is_empty() && page.gap.is_none());
    }
    put(stream, "next");
    for iterator in [latest, after, at(stream, StartingPosition::AfterSequenceNumber(last))] {
        let page = stream.get_records(&iterator, Limit::default()).unwrap();
        assert_eq!((page.records.len(), page.gap), (1, None));
    }
}

#[test]
fn a_gap_up_to_the_tip_is_told_on_a_page_without_records() {
    let Fixture { stream, .. } = &small();
    let start = at(stream, StartingPosition::TrimHorizon);
    let last = *fill(stream, 100).last().unwrap();
    stream.trim(S0, last).unwrap();
    assert_eq!(stream.lag(&start).unwrap().records, 0);
    let page = stream.get_records(&start, Limit::default()).unwrap();
    assert_eq!((page.records.len(), page.gap.unwrap().records), (0, Some(100)));
    assert!(!stream.wait(&start, Duration::ZERO).unwrap());
    put(stream, "next");
    let page = stream.get_records(&page.next_shard_iterator.unwrap(), Limit::default()).unwrap();
    assert_eq!((page.records.len(), page.gap), (1, None));
}

#[test]
fn lag_counts_what_is_left() {
    let Fixture { stream, .. } = &small();
    let start = at(stream, StartingPosition::TrimHorizon);
    let numbers = fill(stream, 300);
    let whole = stream.lag(&start).unwrap();
    stream.trim(S0, numbers[199]).unwrap();
    let left = stream.lag(&start).unwrap();
    assert_eq!((whole.records, left.records), (300, 100));
    assert_eq!(left.bytes, whole.bytes / 3);
    assert_eq!(stream.describe_shard(S0).unwrap().bytes, left.bytes);
}

#[test]
fn a_reader_in_another_process_counts_exactly_when_it_was_at_the_tip_meanwhile() {
    let Fixture { directory, stream } = &small();
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let all = fill(stream, 150);
    let mut next = at(&reader, StartingPosition::TrimHorizon);
    while let page = reader.get_records(&next, Limit::default()).unwrap()
        && !page.records.is_empty()
    {
        next = page.next_shard_iterator.unwrap();
    }
    // All but the segment that is being written is gone before the reader looks again.
    stream.trim(S0, all[140]).unwrap();
    let page = reader.get_records(&next, Limit::default()).unwrap();
    assert_eq!((page.records.len(), page.gap), (0, None));
    let last = *fill(stream, 200).last().unwrap();
    stream.trim(S0, last).unwrap();
    assert_eq!(gap(&reader, &page.next_shard_iterator.unwrap()).unwrap().records, Some(200));
}

#[test]
fn a_pool_whose_checkpoint_was_trimmed_goes_on_at_the_horizon_and_is_told() {
    let Fixture { stream, .. } = &small();
    fill(stream, 100);
    assert_eq!(process_all(stream, "billing"), 100);
    let numbers = fill(stream, 300);
    let last = *numbers.last().unwrap();
    stream.trim(S0, last).unwrap();
    let gaps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&gaps);
    let pool = WorkerPool::builder("billing", stream).start(move |_| {
        let seen = Arc::clone(&seen);
        move |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
            seen.lock().unwrap().push((batch.len(), batch.gap()));
            Ok(())
        }
    });
    let pool = pool.unwrap();
    // Nothing is left; the gap is told with the first record that comes.
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    put(stream, "next");
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    put(stream, "and on");
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    pool.shutdown(Duration::from_secs(60));
    let gaps = gaps.lock().unwrap();
    assert_eq!(gaps.len(), 2, "{gaps:?}");
    let (records, told) = gaps[0];
    assert_eq!((records, told.map(|gap| gap.from < numbers[0])), (1, Some(true)));
    assert_eq!(gaps[1], (1, None));
}

#[test]
fn a_pool_goes_on_to_the_children_of_a_shard_that_expired_under_it() {
    for knows_the_parent in [false, true] {
        let Fixture { stream, .. } = &small();
        let mut numbers = fill(stream, 10);
        if knows_the_parent {
            assert_eq!(process_all(stream, "billing"), 10);
            numbers = fill(stream, 100);
        }
        stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
        put(stream, "child");
        stream.trim(S0, *numbers.last().unwrap()).unwrap();
        assert!(stream.describe_shard(S0).unwrap().is_expired);
        let pool = WorkerPool::builder("billing", stream).start(|_| {
            |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
                assert_eq!((batch.len(), batch.shard() != S0), (1, true));
                Ok(())
            }
        });
        let pool = pool.unwrap();
        assert!(pool.wait_until_idle(Duration::from_secs(60)));
        let mut states: BTreeMap<_, _> =
            pool.status().iter().map(|status| (status.shard, status.state)).collect();
        // Nothing is left of the parent, so that its row may be gone by now.
        assert!(states.remove(&S0).is_none_or(|state| state == ShardState::Ended));
        assert_eq!(states.into_values().collect::<Vec<_>>(), [ShardState::Idle; 2]);
        pool.shutdown(Duration::from_secs(60));
        assert_eq!(process_all(stream, "billing"), 0);
        assert_eq!(read_all(stream, S0, StartingPosition::TrimHorizon), [""; 0]);
    }
}
