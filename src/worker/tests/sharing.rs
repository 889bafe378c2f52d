//! Pools of one application share its shards, whoever comes, leaves and dies.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{bounded, unbounded};

use super::*;
use crate::worker::Outcome;

const S0: ShardId = ShardId::new(0);

/// How many shards the pool has.
fn count(pool: &WorkerPool) -> usize {
    use ShardState::{Idle, Retrying, Running};
    let has = |status: &ShardStatus| matches!(status.state, Running | Idle | Retrying);
    pool.status().iter().filter(|status| has(status)).count()
}

/// Waits until the pools have so many shards.
#[track_caller]
fn wait_for_counts(pools: &[&WorkerPool], expected: &[usize]) {
    let deadline = Instant::now() + LONG;
    loop {
        let counts: Vec<_> = pools.iter().map(|pool| count(pool)).collect();
        if counts == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{counts:?} instead of {expected:?}: {pools:?}");
        std::thread::yield_now();
    }
}

impl Fixture {
    /// Pools that look after each other all the time.
    fn shared(mut self) -> Self {
        self.options.look_interval = Duration::from_millis(2);
        self.options.hand_over = LONG;
        self
    }
}

#[test]
fn a_shard_that_was_lost_is_begun_again_when_the_callback_has_returned() {
    // As a seek does.
    lose_in_callback(|applications| {
        take_lease(applications, S0).release().unwrap();
        None
    });
    // And another pool, which leaves at once.
    lose_in_callback(|applications| {
        let table = Arc::new(ControlTable::join(applications, "billing", None).unwrap());
        let seen = table.read(S0).unwrap();
        let lease =
            Lease::take(Arc::clone(&table) as Arc<dyn LeaseTable>, &info(S0), &seen).unwrap();
        table.leave().unwrap();
        lease
    });
}

/// Loses the shard so, and looks at the leases, while a callback runs.
fn lose_in_callback(lose: impl Fn(&Path) -> Option<Lease> + Send + Sync + 'static) {
    let mut fixture = Fixture::new(1);
    (fixture.options.look_interval, fixture.options.hand_over) = (Duration::ZERO, Duration::ZERO);
    let put = fixture.source.put_many(ShardId::new(0), 2);
    let driven: Arc<Mutex<Option<Driven>>> = Arc::default();
    let (of_callback, applications) = (Arc::clone(&driven), fixture.directory.path().to_owned());
    let (log, is_first) = (fixture.log.clone(), AtomicBool::new(true));
    let begun_meanwhile = Arc::new(Mutex::new(None));
    let begun = Arc::clone(&begun_meanwhile);
    let recorder = fixture.recorder().on_batch(move |_, _| {
        if is_first.swap(false, Ordering::SeqCst) {
            let _lease = lose(&applications);
            let mut driven = of_callback.lock();
            let driven = driven.as_mut().unwrap();
            for _ in 0..10 {
                driven.supervisor.step();
                driven.thread.run_once();
            }
            let is_begun = |call: &&Call| matches!(call, Call::Initialize(..));
            *begun.lock() = Some(log.calls().iter().filter(is_begun).count());
        }
        Ok(())
    });
    *driven.lock() = Some(fixture.drive(recorder));
    let thread = driven.lock().as_ref().unwrap().thread.clone();
    for _ in 0..20 {
        driven.lock().as_mut().unwrap().supervisor.step();
        thread.run_once();
    }
    assert_eq!(*begun_meanwhile.lock(), Some(1));
    assert_eq!(fixture.log.records(ShardId::new(0)), [put[0], put[0], put[1]]);
}

#[test]
fn pools_that_join_and_leave_keep_even_shares() {
    let fixture = Fixture::new(5).shared();
    let one = fixture.start(fixture.recorder());
    wait_for_counts(&[&one], &[5]);
    let two = fixture.start(fixture.recorder());
    wait_for_counts(&[&one, &two], &[3, 2]);
    let three = fixture.start(fixture.recorder());
    wait_for_counts(&[&one, &two, &three], &[2, 2, 1]);
    one.shutdown(LONG);
    let counts = || (count(&two), count(&three));
    while !matches!(counts(), (3, 2) | (2, 3)) {
        std::thread::yield_now();
    }
    drop(three);
    wait_for_counts(&[&two], &[5]);
}

#[test]
fn every_record_is_processed_once_and_in_order_while_pools_come_and_go() {
    let fixture = Fixture::new(4).shared();
    let shards: Vec<_> = (0..4).map(ShardId::new).collect();
    let mut put: BTreeMap<ShardId, Vec<u64>> = BTreeMap::new();
    let mut pools = vec![fixture.start(fixture.recorder())];
    for round in 0..12 {
        for shard in &shards {
            put.entry(*shard).or_default().extend(fixture.source.put_many(*shard, 50));
        }
        if round % 3 == 2 {
            pools.remove(0).shutdown(LONG);
        } else {
            pools.push(fixture.start(fixture.recorder()));
        }
    }
    for (shard, put) in put {
        while fixture.log.records(shard).len() < put.len() {
            std::thread::yield_now();
        }
        assert_eq!(fixture.log.records(shard), put, "nothing twice: all was handed over");
    }
}

#[test]
fn a_shard_is_handed_over_between_two_batches_with_its_checkpoint() {
    let fixture = Fixture::new(2).shared();
    let put = fixture.source.put_many(S0, 2);
    let (entered, has_entered) = unbounded();
    let (release, released) = bounded(0);
    let one = fixture.start(fixture.recorder().on_batch(move |_, _| {
        entered.send(())?;
        Ok(released.recv()?)
    }));
    has_entered.recv().unwrap();
    // The one that is idle would do, but there is more to do in the one that is busy.
    let log = Log::default();
    let two = fixture.start(Recorder { log: log.clone(), ..fixture.recorder() });
    let is_wanted = || {
        let table = fixture.table();
        [0, 1].map(|shard| table.read(ShardId::new(shard)).unwrap().wanted_by.is_some())
    };
    while is_wanted() == [false, false] && count(&two) == 0 {
        std::thread::yield_now();
    }
    drop(release);
    wait_for_counts(&[&one, &two], &[1, 1]);
    assert!(one.wait_until_idle(LONG) && two.wait_until_idle(LONG));
    let all = [fixture.log.records(S0), log.records(S0)].concat();
    assert_eq!(all, put, "each once, and in order");
}

#[test]
fn what_is_not_handed_over_in_time_is_taken_and_its_checkpoint_is_refused() {
    let mut fixture = Fixture::new(1).shared();
    fixture.options.hand_over = Duration::from_millis(20);
    let put = fixture.source.put_many(S0, 2);
    let (entered, has_entered) = unbounded();
    let (release, released) = bounded::<()>(0);
    let hangs = Arc::new(AtomicBool::new(true));
    let recorder = fixture.recorder().on_batch(move |_, _| {
        if hangs.swap(false, Ordering::SeqCst) {
            entered.send(())?;
            let _ = released.recv();
        }
        Ok(())
    });
    let one = fixture.start(recorder.clone());
    has_entered.recv().unwrap();
    assert_eq!(shut_down(one, Duration::ZERO), [(S0, Outcome::NotFinished)]);
    let two = fixture.start(recorder);
    wait_for_state(&two, S0, ShardState::Idle);
    assert_eq!(fixture.log.records(S0), put);
    let taken = fixture.table().read(S0).unwrap();
    drop(release);
    while !fixture.log.calls().contains(&Call::LeaseLost(S0)) {
        std::thread::yield_now();
    }
    let now = fixture.table().read(S0).unwrap();
    assert_eq!((now.epoch, now.checkpoint), (taken.epoch, after(put[1]).position()));
}

#[test]
fn an_idle_worker_that_lost_its_lease_is_told_without_a_new_record() {
    let fixture = Fixture::new(1).shared();
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let lease = fixture.take_lease(S0);
    wait_for_state(&pool, S0, ShardState::Elsewhere);
    assert_eq!(fixture.log.calls().last(), Some(&Call::LeaseLost(S0)));
    // Its owner is gone without a word.
    drop(lease);
    let put = fixture.source.put(S0);
    wait_for_state(&pool, S0, ShardState::Idle);
    while fixture.log.records(S0) != [put] {
        std::thread::yield_now();
    }
}

#[test]
fn children_begin_in_whichever_pool_when_the_parent_has_ended_in_another() {
    let fixture = Fixture::new(2).shared();
    let one = fixture.start(fixture.recorder());
    let two = fixture.start(fixture.recorder());
    wait_for_counts(&[&one, &two], &[1, 1]);
    let s1 = ShardId::new(1);
    fixture.source.put_many(S0, 20);
    fixture.source.put_many(s1, 20);
    let merged = fixture.source.close(&[S0, s1]);
    let put = fixture.source.put_many(merged, 20);
    while fixture.log.records(merged) != put {
        std::thread::yield_now();
    }
    let calls = fixture.log.calls();
    let place = |call: &Call| calls.iter().position(|other| other == call).unwrap();
    let begun = place(&Call::Initialize(merged, Checkpoint::TrimHorizon, 1));
    assert!(place(&Call::ShardEnded(S0)) < begun && place(&Call::ShardEnded(s1)) < begun);
    while count(&one) + count(&two) != 1 {
        std::thread::yield_now();
    }
}
