//! Rows of expired shards go, and nothing is processed again or waited for because they are gone.

use super::*;
use crate::position::StartingPosition;

const S0: ShardId = ShardId::new(0);

impl Fixture {
    /// The shards that have a row.
    fn rows(&self) -> Vec<u32> {
        self.table().shards().unwrap().into_iter().map(ShardId::index).collect()
    }
}

/// A shard that is processed to its end and its child, which has got on; the first has expired.
fn expired_parent() -> (Fixture, ShardId) {
    let mut fixture = Fixture::new(1);
    fixture.options.look_interval = Duration::from_millis(2);
    fixture.source.put_many(S0, 2);
    let child = fixture.source.close(&[S0]);
    fixture.source.put(child);
    fixture.run(fixture.recorder());
    fixture.source.expire(S0);
    fixture.log.clear();
    (fixture, child)
}

#[test]
fn the_row_of_an_expired_shard_goes_while_the_pool_runs_and_its_status_with_it() {
    let (fixture, child) = expired_parent();
    assert_eq!(fixture.rows(), [0, 1]);
    let pool = fixture.start(fixture.recorder());
    let put = fixture.source.put(child);
    while fixture.rows() != [1] || pool.status().len() != 1 {
        std::thread::yield_now();
    }
    assert!(pool.wait_until_idle(LONG), "a shard without a row is not waited for");
    assert_eq!(fixture.log.records(child), [put]);
}

#[test]
fn a_pool_that_is_started_again_does_not_make_the_row_anew_nor_process_the_end_again() {
    let (fixture, child) = expired_parent();
    for _ in 0..2 {
        let put = fixture.source.put(child);
        fixture.run(fixture.recorder());
        assert_eq!(fixture.rows(), [1]);
        assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 0);
        assert_eq!(fixture.log.records(child).last(), Some(&put));
    }
    assert_eq!(fixture.log.records(S0), []);
}

#[test]
fn children_of_a_shard_without_a_row_are_read_from_their_first_record_on() {
    let (mut fixture, child) = expired_parent();
    fixture.options.starting_position = StartingPosition::Latest;
    fixture.run(fixture.recorder());
    assert_eq!(fixture.rows(), [1]);
    let grandchild = fixture.source.close(&[child]);
    let put = fixture.source.put_many(grandchild, 3);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(grandchild), put);
}

#[test]
fn a_shard_that_expires_before_its_end_was_processed_ends_first() {
    let fixture = Fixture::new(1);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    pool.shutdown(LONG);
    let child = fixture.source.close(&[S0]);
    fixture.source.expire(S0);
    let put = fixture.source.put(child);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 1);
    assert_eq!(fixture.log.records(child), [put]);
    fixture.run(fixture.recorder());
    assert_eq!(fixture.rows(), [1], "then its row goes");
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 1);
}

#[test]
fn a_new_application_makes_no_rows_for_expired_shards() {
    let (fixture, child) = expired_parent();
    std::fs::remove_dir_all(fixture.directory.path().join("billing")).unwrap();
    fixture.run(fixture.recorder());
    assert_eq!(fixture.rows(), [1]);
    assert_eq!(fixture.log.records(child).len(), 1);
}

#[test]
fn grandchildren_wait_for_the_grandparent_when_the_shard_in_between_expired_unseen() {
    let fixture = Fixture::new(1);
    fixture.run(fixture.recorder());
    let put = fixture.source.put_many(S0, 3);
    let child = fixture.source.close(&[S0]);
    let grandchild = fixture.source.close(&[child]);
    let last = fixture.source.put(grandchild);
    fixture.source.expire(child);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.rows(), [0, 2]);
    let calls = fixture.log.calls();
    let place = |call: &Call| calls.iter().position(|other| other == call).unwrap();
    assert!(place(&Call::ShardEnded(S0)) < place(&Call::Record(grandchild, last)));
    assert_eq!(fixture.log.records(S0), put);
}
