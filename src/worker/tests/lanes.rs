//! Several workers in one shard.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::error::Error;
use crate::os::clock::Ticker;
use crate::worker::lane::lane_of;
use crate::worker::linger::Linger;
use crate::worker::{DeadLetters, OnPoison};

const S0: ShardId = ShardId::new(0);
const LANES: usize = 3;

/// One shard with lanes, and records of several keys.
fn lanes() -> Fixture {
    let mut fixture = Fixture::new(1);
    fixture.options.lanes = LANES;
    fixture.options.threads = LANES;
    fixture.source.has_keys.store(true, Ordering::SeqCst);
    fixture
}

impl Fixture {
    /// The lane of the record with this number.
    fn lane(&self, number: u64) -> usize {
        lane_of(self.source.key(number), number.into(), self.options.lanes)
    }

    /// Those of the records that are in this lane, or in the others.
    fn divided(&self, numbers: &[u64], lane: usize) -> (Vec<u64>, Vec<u64>) {
        numbers.iter().partition(|number| self.lane(**number) == lane)
    }
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::yield_now();
    }
}

#[test]
fn a_lane_that_hangs_holds_up_no_other_one_and_each_is_in_order() {
    let fixture = lanes();
    let put = fixture.source.put_many(S0, 100);
    let (slow, others) = fixture.divided(&put, 1);
    let (first, (go_on, wait)) = (slow[0], mpsc::channel::<()>());
    let wait = Mutex::new(wait);
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).eq([first]) {
            let _ = wait.lock().recv_timeout(LONG);
        }
        Ok(())
    }));
    wait_until(|| fixture.log.records(S0).len() == others.len());
    assert_eq!(sorted(fixture.log.records(S0)), others);
    assert_eq!(status(&pool, S0).state, ShardState::Running);
    drop(go_on);
    assert!(pool.wait_until_idle(LONG));
    let processed = fixture.log.records(S0);
    for lane in 0..LANES {
        let (of_lane, _) = fixture.divided(&processed, lane);
        assert_eq!(of_lane, fixture.divided(&put, lane).0, "lane {lane}");
    }
    assert_eq!(fixture.stored_checkpoint(S0), after(put[99]));
    assert_eq!(status(&pool, S0).records_processed, 100);
}

#[test]
fn a_lane_that_panics_spoils_nothing_that_another_one_has_in_hand() {
    let fixture = lanes();
    let put = fixture.source.put_many(S0, 60);
    let (panicking, others) = fixture.divided(&put, 1);
    let (slow, _) = fixture.divided(&others, 2);
    let (first_slow, bad) = (slow[0], panicking[3]);
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&panics);
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).eq([first_slow]) {
            // One batch is in hand while the other lane panics, time after time.
            wait_until(|| counted.load(Ordering::SeqCst) >= 3);
        }
        if numbers(batch).eq([bad]) && counted.fetch_add(1, Ordering::SeqCst) < 3 {
            std::panic::resume_unwind(Box::new("of this lane"));
        }
        Ok(())
    }));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(sorted(fixture.log.records(S0)), put, "each once");
    assert_eq!(fixture.stored_checkpoint(S0), after(put[59]));
    let metrics = pool.metrics();
    assert_eq!(metrics.shards[0].counts.failures, 3);
    assert_eq!(metrics.shards[0].counts.leases_taken, 1);
}

#[test]
fn children_wait_for_the_slowest_lane_of_their_parent() {
    let fixture = lanes();
    let put = fixture.source.put_many(S0, 30);
    let (slow, others) = fixture.divided(&put, 1);
    let (last, (go_on, wait)) = (*slow.last().unwrap(), mpsc::channel::<()>());
    let wait = Mutex::new(wait);
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).eq([last]) {
            let _ = wait.lock().recv_timeout(LONG);
        }
        Ok(())
    }));
    let child = fixture.source.close(&[S0]);
    let of_child = fixture.source.put_many(child, 10);
    wait_until(|| fixture.log.count(&Call::ShardEnded(S0)) == LANES - 1);
    wait_for_state(&pool, child, ShardState::WaitingForParents);
    let stored = fixture.stored_checkpoint(S0).number().unwrap();
    assert!(stored < last.into(), "{stored}: the others do not count");
    assert!(others.iter().all(|number| fixture.log.records(S0).contains(number)));
    assert_eq!(fixture.log.records(child), []);
    drop(go_on);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::ShardEnd);
    assert_eq!(sorted(fixture.log.records(child)), of_child);
}

/// Pools with so many lanes, of which one fails: what is checkpointed, and what the next pool gets.
fn fail_one_lane_and_go_on_with(next_lanes: usize) -> (Fixture, Vec<u64>, Vec<u64>) {
    let mut fixture = lanes();
    fixture.options.retry_delay = NEVER;
    let put = fixture.source.put_many(S0, 50);
    let (failing, others) = fixture.divided(&put, 1);
    let (before, of_failing) = (put[9], failing.clone());
    let mut pool = fixture.drive(fixture.recorder().on_batch(move |batch, _| {
        match numbers(batch).any(|number| number > before && of_failing.contains(&number)) {
            true => Err("of this lane".into()),
            false => Ok(()),
        }
    }));
    pool.settle();
    pool.settle();
    let mut processed = fixture.log.records(S0);
    // As a killed one does.
    drop(pool);
    let first_failed = failing.iter().find(|number| **number > before).unwrap();
    let stored = fixture.stored_checkpoint(S0);
    assert_eq!(stored, after(first_failed - 1), "it is that of the lane that is behind");
    assert!(others.iter().all(|number| processed.contains(number)));
    fixture.log.clear();
    fixture.options.lanes = next_lanes;
    fixture.run(fixture.recorder());
    let again = fixture.log.records(S0);
    processed.extend(&again);
    assert_eq!(processed.iter().collect::<BTreeSet<_>>(), put.iter().collect());
    let from = put.iter().position(|number| number == first_failed).unwrap();
    (fixture, sorted(again), put[from..].to_vec())
}

#[test]
fn a_pool_with_as_many_lanes_goes_on_where_each_of_them_was() {
    let (mut fixture, again, behind) = fail_one_lane_and_go_on_with(LANES);
    fixture.options.lanes = LANES;
    assert_eq!(again, fixture.divided(&behind, 1).0);
}

#[test]
fn for_a_pool_with_other_lanes_the_checkpoint_counts() {
    for lanes in [1, LANES + 1] {
        let (_, again, behind) = fail_one_lane_and_go_on_with(lanes);
        assert_eq!(again, behind, "{lanes} lanes");
    }
}

#[test]
fn a_shard_has_ended_when_all_its_lanes_have() {
    let fixture = lanes();
    let put = fixture.source.put_many(S0, 20);
    let child = fixture.source.close(&[S0]);
    let of_child = fixture.source.put(child);
    fixture.run(fixture.recorder());
    let calls = fixture.log.calls();
    let begun =
        calls.iter().position(|call| matches!(call, Call::Initialize(of, ..) if *of == child));
    let before = &calls[..begun.unwrap()];
    assert_eq!(before.iter().filter(|call| **call == Call::ShardEnded(S0)).count(), LANES);
    assert_eq!(sorted(fixture.log.records(S0)), put);
    assert_eq!(fixture.log.records(child), [of_child]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::ShardEnd);
}

#[test]
fn a_shard_is_given_back_when_the_last_lane_has_let_go() {
    let fixture = lanes();
    fixture.source.put_many(S0, 20);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let owner = || fixture.table().read(S0).unwrap().owner;
    assert!(owner().is_some());
    pool.shutdown(LONG);
    assert_eq!(fixture.log.count(&Call::ShutdownRequested(S0)), LANES);
    assert_eq!(owner(), None);
}

#[test]
fn the_poison_of_a_lane_is_found_and_put_aside_and_all_else_is_processed_once() {
    let mut fixture = lanes();
    fixture.options.limit = Limit::default();
    fixture.options.on_poison = OnPoison::DeadLetter;
    let put = fixture.source.put_many(S0, 40);
    let poison = put[17];
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        match numbers(batch).any(|number| number == poison) {
            true => Err("poison".into()),
            false => Ok(()),
        }
    }));
    let good: Vec<_> = put.iter().copied().filter(|number| *number != poison).collect();
    assert_eq!(sorted(fixture.log.records(S0)), good);
    let path = fixture.directory.path().join("billing");
    let letters = DeadLetters::in_directory(&path).list().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].sequence_number, poison.into());
    assert_eq!(letters[0].partition_key(), fixture.source.key(poison));
    assert_eq!(fixture.stored_checkpoint(S0), after(put[39]));
}

#[test]
fn a_lane_that_is_parked_is_seen_and_the_others_go_on() {
    let mut fixture = lanes();
    (fixture.options.on_poison, fixture.options.attempts) = (OnPoison::Park, 1);
    let put = fixture.source.put_many(S0, 30);
    let (parked, others) = fixture.divided(&put, 2);
    let poison = parked[1];
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).eq([poison]) { Err("poison".into()) } else { Ok(()) }
    }));
    wait_for_state(&pool, S0, ShardState::Parked);
    wait_until(|| fixture.log.records(S0).len() == others.len() + 1);
    assert_eq!(fixture.divided(&fixture.log.records(S0), 2).0, parked[..1]);
    let behind = after(poison - 1);
    wait_until(|| {
        status(&pool, S0).checkpoint == behind && fixture.stored_checkpoint(S0) == behind
    });
    let status = status(&pool, S0);
    assert_eq!((status.state, status.poison), (ShardState::Parked, Some(poison.into())));
    assert_eq!(status.last_error.as_deref(), Some("poison"));
}

#[test]
fn a_manual_checkpoint_of_a_lane_is_not_passed_by_records_of_others() {
    let fixture = lanes().manual();
    let put = fixture.source.put_many(S0, 30);
    let (own, _) = fixture.divided(&put, 0);
    let checkpointed = own[1];
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        let is_behind = batch.last_sequence_number() > Some(checkpointed.into());
        if is_behind && numbers(batch).all(|number| own.contains(&number)) {
            return Ok(());
        }
        Ok(checkpointer.checkpoint()?)
    }));
    let (own, _) = fixture.divided(&put, 0);
    assert_eq!(fixture.stored_checkpoint(S0), after(own[2] - 1), "none is passed that is not done");
}

#[test]
fn a_checkpoint_cannot_be_prepared_in_a_lane() {
    let fixture = lanes().manual();
    fixture.source.put(S0);
    fixture.run(fixture.recorder().on_batch(|_, checkpointer| {
        let error = checkpointer.prepare(b"state").unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
        Ok(())
    }));
    assert_eq!(fixture.log.records(S0).len(), 1);
}

#[test]
fn a_lane_waits_until_it_has_enough_of_its_own() {
    let mut fixture = lanes();
    fixture.options.limit = Limit::default();
    fixture.options.ticker = Ticker::given();
    fixture.options.linger = Some(Linger { enough: Limit::records(4), max_wait: LONG });
    let mut pool = fixture.drive(fixture.recorder());
    let mut put = Vec::new();
    let own = |put: &[u64]| fixture.divided(put, 0).0;
    while own(&put).len() < 4 {
        assert_eq!(fixture.divided(&fixture.log.records(S0), 0).0, []);
        put.push(fixture.source.put(S0));
        pool.settle();
    }
    assert_eq!(fixture.divided(&fixture.log.records(S0), 0).0, own(&put));
}
