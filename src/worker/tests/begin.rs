//! Where an application begins, and how it goes on.

use std::sync::atomic::Ordering;

use super::*;
use crate::position::StartingPosition;

const S0: ShardId = ShardId::new(0);

#[test]
fn each_shard_is_begun_once_and_read_in_order() {
    let mut fixture = Fixture::new(3);
    fixture.options.threads = 1;
    let shards = [0, 1, 2].map(ShardId::new);
    let put = shards.map(|shard| fixture.source.put_many(shard, 5));
    fixture.run(fixture.recorder());
    for (shard, put) in shards.into_iter().zip(put) {
        assert_eq!(fixture.log.records(shard), put);
        let begun = Call::Initialize(shard, Checkpoint::TrimHorizon, 1);
        assert_eq!(fixture.log.count(&begun), 1);
    }
}

#[test]
fn a_busy_shard_takes_turns_with_the_others_on_one_thread() {
    let mut fixture = Fixture::new(2);
    fixture.options.threads = 1;
    let s1 = ShardId::new(1);
    fixture.source.put(S0);
    fixture.source.put_many(s1, 10);
    // Shard 0 has something to read until shard 1 is finished.
    let (source, log) = (Arc::clone(&fixture.source), fixture.log.clone());
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        if batch.shard() == S0 && log.records(s1).len() < 10 {
            source.put(S0);
        }
        Ok(())
    }));
    let calls = fixture.log.calls();
    let is_of_s1 = |call: &Call| matches!(call, Call::Record(shard, _) if *shard == s1);
    let first = calls.iter().position(is_of_s1).unwrap();
    let turns = calls[first..].iter().step_by(2).take(10);
    assert!(turns.into_iter().all(is_of_s1), "{calls:?}");
}

#[test]
fn records_put_to_an_idle_pool_are_processed() {
    let fixture = Fixture::new(2);
    let pool = fixture.start(fixture.recorder());
    for shard in [0, 1, 0, 1].map(ShardId::new) {
        assert!(pool.wait_until_idle(LONG));
        let number = fixture.source.put(shard);
        assert!(pool.wait_until_idle(LONG));
        assert_eq!(fixture.log.records(shard).last(), Some(&number));
    }
}

#[test]
fn a_source_that_cannot_tell_of_news_is_polled() {
    let fixture = Fixture::new(1);
    fixture.source.is_mute.store(true, Ordering::SeqCst);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let number = fixture.source.put(S0);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), [number]);
}

#[test]
fn a_stopped_application_goes_on_behind_its_checkpoint() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 3);
    fixture.run(fixture.recorder());
    fixture.log.clear();
    let next = fixture.source.put(S0);
    fixture.run(fixture.recorder());
    let calls = fixture.log.calls();
    assert_eq!(calls[..2], [Call::Initialize(S0, after(put[2]), 1), Call::Record(S0, next)]);
}

#[test]
fn without_a_checkpoint_everything_comes_again() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    fixture.run(fixture.recorder());
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), [&put[..], &put[..]].concat());
}

#[test]
fn latest_is_the_tip_at_the_first_start_and_stays_there() {
    let mut fixture = Fixture::new(1).manual();
    fixture.options.starting_position = StartingPosition::Latest;
    fixture.source.put_many(S0, 3);
    let pool = fixture.start(fixture.recorder());
    let put = fixture.source.put_many(S0, 2);
    assert!(pool.wait_until_idle(LONG));
    drop(pool);
    assert_eq!(fixture.log.records(S0), put);
    fixture.log.clear();
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), put);
}

#[test]
fn a_timestamp_holds_for_all_shards_of_a_new_application() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 4);
    let child = fixture.source.close(&[S0]);
    let of_child = fixture.source.put_many(child, 2);
    fixture.options.starting_position = StartingPosition::AtTimestampMs(put[2]);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), put[2..]);
    assert_eq!(fixture.log.records(child), of_child);
}

#[test]
fn a_closed_shard_before_the_starting_position_is_ended_from_the_beginning() {
    let mut fixture = Fixture::new(1);
    fixture.options.starting_position = StartingPosition::Latest;
    fixture.source.put_many(S0, 4);
    let child = fixture.source.close(&[S0]);
    let pool = fixture.start(fixture.recorder());
    let put = fixture.source.put(child);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(status(&pool, S0).state, ShardState::Ended);
    assert_eq!(fixture.log.records(child), [put]);
    assert!(fixture.log.records(S0).is_empty());
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 0);
}

#[test]
fn two_applications_have_checkpoints_of_their_own() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 3);
    fixture.run(fixture.recorder());
    let log = Log::default();
    let recorder = Recorder::new(&log);
    let factory =
        Box::new(move |_: &ShardInfo| -> Box<dyn RecordProcessor> { Box::new(recorder.clone()) });
    let pool = fixture.start_as("audit", factory).unwrap();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(log.records(S0), put);
}

#[test]
fn a_damaged_row_is_an_error_at_the_start() {
    let fixture = Fixture::new(1);
    fixture.run(fixture.recorder());
    std::fs::write(fixture.row_path(S0), [7; 1024]).unwrap();
    let recorder = fixture.recorder();
    let error = fixture.try_start(move |_| recorder.clone()).unwrap_err();
    assert!(matches!(error, crate::Error::Corrupt { .. }), "{error}");
}
