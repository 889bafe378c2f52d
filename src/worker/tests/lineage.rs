//! Parents before children, from the first record of each.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::position::StartingPosition;
use crate::worker::source::Source;
use crate::worker::{Outcome, lease};

const S0: ShardId = ShardId::new(0);
const S1: ShardId = ShardId::new(1);

/// Where in the log the call is.
fn place(fixture: &Fixture, call: &Call) -> usize {
    fixture.log.calls().iter().position(|other| other == call).expect("the call is in the log")
}

#[test]
fn children_begin_after_their_parent_has_ended() {
    let fixture = Fixture::new(1);
    fixture.source.put_many(S0, 20);
    let left = fixture.source.close(&[S0]);
    let right = fixture.source.add_shard(&[S0]);
    fixture.source.put_many(left, 20);
    fixture.source.put_many(right, 20);
    fixture.run(fixture.recorder());
    let ended = place(&fixture, &Call::ShardEnded(S0));
    for child in [left, right] {
        assert!(place(&fixture, &Call::Initialize(child, Checkpoint::TrimHorizon, 1)) > ended);
        assert_eq!(fixture.log.records(child).len(), 20);
    }
}

#[test]
fn a_merged_child_waits_for_both_parents() {
    let fixture = Fixture::new(2);
    fixture.source.put_many(S0, 2);
    fixture.source.put_many(S1, 2);
    let child = fixture.source.close(&[S0, S1]);
    let put = fixture.source.put(child);
    // The one parent ends when the other was seen waiting.
    let (release, released) = crossbeam_channel::bounded(0);
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if batch.shard() == S1 {
            released.recv().unwrap();
        }
        Ok(())
    }));
    release.send(()).unwrap();
    wait_for_state(&pool, S0, ShardState::Ended);
    assert_eq!(status(&pool, child).state, ShardState::WaitingForParents);
    assert_eq!(status(&pool, child).lag.records, 1);
    assert!(!pool.wait_until_idle(Duration::ZERO));
    release.send(()).unwrap();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(child), [put]);
}

#[test]
fn the_end_of_a_shard_is_stored_when_the_processor_has_seen_it() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 2);
    fixture.source.close(&[S0]);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::ShardEnd);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), put);
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 1);
}

#[test]
fn children_wait_while_the_end_of_their_parent_fails() {
    let fixture = Fixture::new(1);
    fixture.source.put_many(S0, 2);
    let child = fixture.source.close(&[S0]);
    fixture.source.put(child);
    let ends = AtomicU32::new(0);
    let mut recorder = fixture.recorder();
    recorder.on_shard_end = Arc::new(move |_| match ends.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => Err("not yet".into()),
        _ => Ok(()),
    });
    fixture.run(recorder);
    assert_eq!(fixture.log.records(S0).len(), 2, "the records were checkpointed before");
    let calls = fixture.log.calls();
    let last_end = calls.iter().rposition(|call| *call == Call::ShardEnded(S0)).unwrap();
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 3);
    assert!(place(&fixture, &Call::Initialize(child, Checkpoint::TrimHorizon, 1)) > last_end);
}

#[test]
fn shards_that_appear_get_a_worker_from_their_first_record_on() {
    let mut fixture = Fixture::new(1);
    fixture.options.starting_position = StartingPosition::Latest;
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let last = fixture.source.put(S0);
    let child = fixture.source.close(&[S0]);
    let of_child = fixture.source.put_many(child, 3);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), [last]);
    assert_eq!(fixture.log.records(child), of_child);
    let outcomes = [(S0, Outcome::Ended), (child, Outcome::Stopped)];
    assert_eq!(shut_down(pool, LONG), outcomes);
}

#[test]
fn shards_that_appeared_while_no_pool_ran_are_read_from_their_first_record_on() {
    let mut fixture = Fixture::new(1);
    fixture.options.starting_position = StartingPosition::Latest;
    fixture.run(fixture.recorder());
    let child = fixture.source.close(&[S0]);
    let of_child = fixture.source.put_many(child, 3);
    let grandchild = fixture.source.close(&[child]);
    let of_grandchild = fixture.source.put_many(grandchild, 3);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(child), of_child);
    assert_eq!(fixture.log.records(grandchild), of_grandchild);
}

#[test]
fn an_application_whose_first_start_was_cut_short_is_still_new() {
    let fixture = Fixture::new(1);
    fixture.source.put_many(S0, 3);
    let child = fixture.source.close(&[S0]);
    fixture.source.put_many(child, 3);
    let table = fixture.table();
    let shards = fixture.source.shards().unwrap();
    let make_rows =
        || lease::make_rows(&*table, &fixture.source, &shards, StartingPosition::Latest);
    // Something is in the way of the row that is made last.
    let in_the_way = fixture.row_path(S0).with_extension("new");
    std::fs::create_dir(&in_the_way).unwrap();
    make_rows().unwrap_err();
    assert!(table.read(S0).is_err());
    table.read(child).unwrap();
    std::fs::remove_dir(&in_the_way).unwrap();
    make_rows().unwrap();
    assert_eq!(table.read(S0).unwrap().checkpoint, None, "it is closed");
    let of_child = table.read(child).unwrap().checkpoint;
    assert!(matches!(of_child, Some(StartingPosition::AtSequenceNumber(_))));
}
