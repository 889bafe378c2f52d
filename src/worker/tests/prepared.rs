//! Checkpoints now and then, in two phases, and in the processor's own store.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::error::Error;
use crate::os::clock::Ticker;

const S0: ShardId = ShardId::new(0);
const HOUR: Duration = Duration::from_secs(3600);

impl Fixture {
    fn every(mut self, records: u64, interval: Duration) -> Self {
        self.options.checkpoints = CheckpointPolicy::Every { records, interval };
        self.options.ticker = Ticker::given();
        self
    }
}

#[test]
fn a_checkpoint_comes_after_so_many_records_and_when_the_pool_lets_go() {
    let fixture = Fixture::new(1).every(3, HOUR);
    let put = fixture.source.put_many(S0, 8);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.stored_checkpoint(S0), after(put[5]));
    pool.shutdown(LONG);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[7]));
    fixture.log.clear();
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), []);
}

#[test]
fn a_checkpoint_comes_after_so_much_time_though_nothing_is_read() {
    let fixture = Fixture::new(1).every(100, HOUR);
    let put = fixture.source.put_many(S0, 2);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    fixture.options.ticker.advance(HOUR - Duration::from_secs(1));
    pool.life.supervisors.notify();
    assert_eq!(status(&pool, S0).checkpoint, Checkpoint::TrimHorizon);
    fixture.options.ticker.advance(Duration::from_secs(1));
    pool.life.supervisors.notify();
    while fixture.stored_checkpoint(S0) != after(put[1]) {
        std::thread::yield_now();
    }
}

#[test]
fn what_is_not_checkpointed_comes_again_after_a_failure() {
    let fixture = Fixture::new(1).every(2, HOUR);
    let put = fixture.source.put_many(S0, 4);
    let (last, fails) = (put[3], AtomicU32::new(0));
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        match numbers(batch).eq([last]) && fails.fetch_add(1, Ordering::SeqCst) == 0 {
            true => Err("once".into()),
            false => Ok(()),
        }
    }));
    assert_eq!(fixture.log.records(S0), [put[0], put[1], put[2], put[2], put[3]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[3]));
}

#[test]
fn a_prepared_checkpoint_is_one_when_it_is_committed() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 2);
    let table = fixture.table();
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        let before = table.read(S0)?.checkpoint;
        let prepared = checkpointer.prepare_at(&batch.get(0).unwrap(), b"noted")?;
        let row = table.read(S0)?;
        assert_eq!(row.checkpoint, before);
        assert_eq!(row.pending.unwrap().state, b"noted");
        prepared.commit()?;
        assert_eq!(table.read(S0)?.pending, None);
        Ok(())
    }));
    assert_eq!(fixture.log.records(S0), put);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
}

#[test]
fn one_that_is_dropped_stays_prepared_and_is_given_to_whoever_comes_next() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 2);
    fixture.run(fixture.recorder().on_batch(move |_, checkpointer| {
        let _ = checkpointer.prepare(b"half done")?;
        Ok(())
    }));
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    let given = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&given);
    let mut recorder = fixture.recorder();
    recorder.on_begin = Arc::new(move |pending| {
        *seen.lock() = pending.cloned();
        Ok(None)
    });
    fixture.run(recorder.clone());
    let pending = given.lock().clone().unwrap();
    assert_eq!((pending.sequence_number, &pending.state[..]), (put[1].into(), &b"half done"[..]));
    assert_eq!(fixture.log.records(S0), [&put[..], &put[..]].concat());
    // A checkpoint ends it.
    fixture.run(recorder.clone().on_batch(|_, checkpointer| Ok(checkpointer.checkpoint()?)));
    fixture.run(recorder);
    assert_eq!(*given.lock(), None);
}

#[test]
fn one_who_finds_the_prepared_work_done_goes_on_behind_it() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    let second = put[1];
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        if numbers(batch).eq([second]) {
            let _ = checkpointer.prepare(b"")?;
        }
        Ok(())
    }));
    fixture.log.clear();
    let mut recorder = fixture.recorder();
    recorder.on_begin = Arc::new(|pending| Ok(pending.map(|pending| pending.sequence_number)));
    fixture.run(recorder);
    assert_eq!(fixture.log.records(S0), put[2..]);
    assert_eq!(fixture.stored_checkpoint(S0), after(second));
    assert_eq!(fixture.table().read(S0).unwrap().pending, None);
}

#[test]
fn a_checkpoint_is_prepared_under_the_rules_of_every_checkpoint() {
    let mut fixture = Fixture::new(1).manual();
    fixture.options.limit = Limit::default();
    let put = fixture.source.put_many(S0, 3);
    let path = fixture.directory.path().to_owned();
    let (last, runs) = (put[2], AtomicU32::new(0));
    let passed = Arc::new(AtomicU32::new(0));
    let has_passed = Arc::clone(&passed);
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        if runs.fetch_add(1, Ordering::SeqCst) > 0 {
            return Ok(());
        }
        let beyond = checkpointer.prepare_at(last + 1, b"");
        assert!(matches!(beyond, Err(Error::InvalidCheckpoint { .. })));
        let too_long = checkpointer.prepare(&[0; 385]);
        assert!(matches!(too_long, Err(Error::InvalidArgument(_))));
        checkpointer.checkpoint_at(&batch.get(1).unwrap())?;
        let below = checkpointer.prepare_at(&batch.get(0).unwrap(), b"");
        assert!(matches!(below, Err(Error::InvalidCheckpoint { .. })));
        let prepared = checkpointer.prepare(&[7; 384])?.unwrap();
        take_lease(&path, S0);
        assert!(matches!(prepared.commit(), Err(Error::LeaseLost { shard: S0 })));
        has_passed.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }));
    assert_eq!(passed.load(Ordering::SeqCst), 1);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
}

/// Counts records, and where the shards are, in one transaction.
type Sink = Arc<Mutex<(Vec<u64>, BTreeMap<ShardId, SequenceNumber>)>>;

/// Writes each batch to the sink, and fails in every third place: before, in between, after.
fn into_sink(fixture: &Fixture, sink: &Sink) -> Recorder {
    let mut recorder = fixture.recorder();
    let store = Arc::clone(sink);
    recorder.on_begin = Arc::new(move |_| Ok(store.lock().1.get(&S0).copied()));
    let (store, count) = (Arc::clone(sink), AtomicU32::new(0));
    recorder.on_batch(move |batch, _| {
        let turn = count.fetch_add(1, Ordering::SeqCst);
        if turn % 4 == 1 {
            return Err("before".into());
        }
        let mut sink = store.lock();
        sink.0.extend(numbers(batch));
        sink.1.extend(batch.last_sequence_number().map(|last| (S0, last)));
        drop(sink);
        match turn % 4 {
            2 => Err("after".into()),
            3 => std::panic::resume_unwind(Box::new("after")),
            _ => Ok(()),
        }
    })
}

#[test]
fn a_position_in_the_sinks_own_transaction_makes_each_record_count_once() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 50);
    let sink = Sink::default();
    fixture.run(into_sink(&fixture, &sink));
    assert_eq!(sink.lock().0, put);
}

#[test]
fn a_sink_that_was_set_back_is_believed() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 10);
    let sink = Sink::default();
    fixture.run(into_sink(&fixture, &sink));
    assert_eq!(fixture.stored_checkpoint(S0), after(put[9]));
    *sink.lock() = (put[..4].to_vec(), BTreeMap::from([(S0, put[3].into())]));
    fixture.run(into_sink(&fixture, &sink));
    assert_eq!(sink.lock().0, put);
}
