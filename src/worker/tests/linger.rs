//! Batches that wait to be fuller.

use std::sync::atomic::Ordering;

use super::*;
use crate::os::clock::Ticker;
use crate::worker::life::Stage;
use crate::worker::linger::Linger;

const S0: ShardId = ShardId::new(0);
const WAIT: Duration = Duration::from_secs(60);
const MOMENT: Duration = Duration::from_millis(1);

/// One shard, whose batches wait for this much.
fn lingering(enough: Limit) -> Fixture {
    let mut fixture = Fixture::new(1);
    fixture.options.limit = Limit::default();
    fixture.options.ticker = Ticker::given();
    fixture.options.linger = Some(Linger { enough, max_wait: WAIT });
    fixture
}

impl Fixture {
    /// The records that a pool is given which is at rest at this time.
    fn given(&self, pool: &mut Driven) -> Vec<u64> {
        pool.settle();
        self.log.records(S0)
    }
}

#[test]
fn a_batch_is_given_when_it_has_enough_records() {
    let fixture = lingering(Limit::records(3));
    let mut pool = fixture.drive(fixture.recorder());
    let mut put = fixture.source.put_many(S0, 1);
    assert_eq!(fixture.given(&mut pool), []);
    put.push(fixture.source.put(S0));
    assert_eq!(fixture.given(&mut pool), []);
    put.extend(fixture.source.put_many(S0, 2));
    assert_eq!(fixture.given(&mut pool), put);
    fixture.source.put(S0);
    assert_eq!(fixture.given(&mut pool), put, "the next one waits again");
}

#[test]
fn a_batch_is_given_when_it_has_enough_bytes() {
    // Keys have three bytes.
    let fixture = lingering(Limit::bytes(7));
    let mut pool = fixture.drive(fixture.recorder());
    let mut put = fixture.source.put_many(S0, 2);
    assert_eq!(fixture.given(&mut pool), []);
    put.push(fixture.source.put(S0));
    assert_eq!(fixture.given(&mut pool), put);
}

#[test]
fn a_batch_is_given_when_its_first_record_has_waited_for_long_enough() {
    let fixture = lingering(Limit::records(100));
    let mut pool = fixture.drive(fixture.recorder());
    let mut put = fixture.source.put_many(S0, 1);
    assert_eq!(fixture.given(&mut pool), []);
    fixture.options.ticker.advance(WAIT - MOMENT);
    put.push(fixture.source.put(S0));
    assert_eq!(fixture.given(&mut pool), []);
    fixture.options.ticker.advance(MOMENT);
    assert_eq!(fixture.given(&mut pool), put);
}

#[test]
fn records_that_came_before_the_pool_have_waited_already() {
    let fixture = lingering(Limit::records(100));
    let put = fixture.source.put_many(S0, 1);
    fixture.source.waited_ms.store(WAIT.as_millis() as u64 - 1, Ordering::SeqCst);
    let mut pool = fixture.drive(fixture.recorder());
    assert_eq!(fixture.given(&mut pool), []);
    fixture.options.ticker.advance(MOMENT);
    assert_eq!(fixture.given(&mut pool), put);
}

#[test]
fn a_batch_that_is_full_is_given_though_it_has_not_enough() {
    let mut fixture = lingering(Limit::records(100));
    fixture.options.limit = Limit::records(2);
    let put = fixture.source.put_many(S0, 5);
    let mut pool = fixture.drive(fixture.recorder());
    assert_eq!(fixture.given(&mut pool), put[..4]);
}

#[test]
fn what_a_closed_shard_ends_with_does_not_wait() {
    let fixture = lingering(Limit::records(100));
    let mut pool = fixture.drive(fixture.recorder());
    let put = fixture.source.put_many(S0, 2);
    assert_eq!(fixture.given(&mut pool), []);
    fixture.source.close(&[S0]);
    assert_eq!(fixture.given(&mut pool), put);
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 1);
}

#[test]
fn what_has_failed_does_not_wait_again() {
    let fixture = lingering(Limit::records(3));
    // Its halves are smaller than enough.
    let mut pool = fixture.drive(fixture.recorder().on_batch(|batch, _| match batch.len() {
        1 => Ok(()),
        _ => Err("too many".into()),
    }));
    let put = fixture.source.put_many(S0, 3);
    for _ in 0..40 {
        pool.settle();
        fixture.options.ticker.advance(MOMENT);
    }
    assert_eq!(fixture.log.records(S0), put);
}

#[test]
fn what_waits_at_a_shutdown_is_for_the_next_pool() {
    let mut fixture = lingering(Limit::records(100));
    let mut pool = fixture.drive(fixture.recorder());
    let put = fixture.source.put_many(S0, 2);
    assert_eq!(fixture.given(&mut pool), []);
    pool.board.enter(Stage::Stopping);
    assert_eq!(fixture.given(&mut pool), []);
    assert_eq!(fixture.log.count(&Call::ShutdownRequested(S0)), 1);
    drop(pool);
    fixture.options.linger = None;
    assert_eq!(fixture.given(&mut fixture.drive(fixture.recorder())), put);
}

#[test]
fn a_pool_is_not_idle_while_records_wait() {
    let mut fixture = lingering(Limit::records(100));
    fixture.options.ticker = Ticker::default();
    fixture.options.linger = Some(Linger { enough: Limit::records(100), max_wait: MOMENT * 50 });
    let put = fixture.source.put_many(S0, 2);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), put);
}
