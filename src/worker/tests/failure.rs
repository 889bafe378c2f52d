//! What fails comes again, and nothing else is touched.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const S0: ShardId = ShardId::new(0);
const S1: ShardId = ShardId::new(1);

/// True the first `times` times.
fn first(times: u32) -> impl Fn() -> bool + Send + Sync + 'static {
    let count = AtomicU32::new(0);
    move || count.fetch_add(1, Ordering::SeqCst) < times
}

#[test]
fn a_batch_that_failed_comes_again_to_a_new_processor() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 3);
    let (second, fails) = (put[1], first(2));
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        match numbers(batch).any(|number| number == second) && fails() {
            true => Err("not now".into()),
            false => Ok(()),
        }
    }));
    let begin = |attempt| Call::Initialize(S0, after(put[0]), attempt);
    let expected = [
        Call::Initialize(S0, Checkpoint::TrimHorizon, 1),
        Call::Record(S0, put[0]),
        begin(2),
        begin(3),
        Call::Record(S0, put[1]),
        Call::Record(S0, put[2]),
        Call::ShutdownRequested(S0),
    ];
    assert_eq!(fixture.log.calls(), expected);
}

#[test]
fn a_panic_is_a_failure_and_other_shards_go_on() {
    let fixture = Fixture::new(2);
    let (put, other) = (fixture.source.put_many(S0, 3), fixture.source.put_many(S1, 3));
    let fails = first(3);
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        assert!(batch.shard() != S0 || !fails(), "as the test wants it");
        Ok(())
    }));
    assert_eq!(fixture.log.records(S0), put);
    assert_eq!(fixture.log.records(S1), other);
    assert_eq!(fixture.log.count(&Call::Initialize(S1, Checkpoint::TrimHorizon, 1)), 1);
    assert_eq!(fixture.log.count(&Call::Initialize(S0, Checkpoint::TrimHorizon, 4)), 1);
}

#[test]
fn what_was_checkpointed_before_the_failure_does_not_come_again() {
    let mut fixture = Fixture::new(1);
    fixture.options.limit = Limit::default();
    let put = fixture.source.put_many(S0, 3);
    let fails = first(1);
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        if fails() {
            checkpointer.checkpoint_at(&batch.get(0).unwrap())?;
            panic!("after the checkpoint");
        }
        Ok(())
    }));
    assert_eq!(fixture.log.records(S0), put[1..]);
}

#[test]
fn attempts_are_counted_until_the_worker_gets_beyond_the_failure() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 2);
    let (second, fails) = (put[1], first(2));
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        match numbers(batch).any(|number| number == second) && fails() {
            true => Err("not now".into()),
            false => Ok(()),
        }
    }));
    assert!(pool.wait_until_idle(LONG));
    // The first record was processed in between each time, which is no progress.
    assert_eq!(fixture.log.count(&Call::Initialize(S0, Checkpoint::TrimHorizon, 3)), 1);
    let status = status(&pool, S0);
    assert_eq!((status.failed_attempts, status.records_processed), (0, 4));
    assert_eq!(status.last_error.as_deref(), Some("not now"));
}

#[test]
fn a_pending_failure_is_seen_and_is_not_idle() {
    let mut fixture = Fixture::new(2);
    fixture.options.retry_delay = NEVER;
    fixture.source.put_many(S0, 2);
    fixture.source.put(S1);
    let pool = fixture.start(fixture.recorder().on_batch(|batch, _| {
        assert_ne!(batch.shard(), S0, "as the test wants it");
        Ok(())
    }));
    wait_for_state(&pool, S0, ShardState::Retrying);
    assert!(!pool.wait_until_idle(Duration::ZERO));
    let status = status(&pool, S0);
    assert_eq!((status.failed_attempts, status.lag.records), (1, 2));
    assert!(status.last_error.unwrap().contains("as the test wants it"));
}

#[test]
fn a_panic_anywhere_in_a_processor_is_a_failure() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put(S0);
    let child = fixture.source.close(&[S0]);
    let (in_factory, in_initialize, in_end, in_drop) = (first(1), first(1), first(1), first(2));
    let mut recorder = fixture.recorder();
    let or_panic = |fails: bool| if fails { panic!("as the test wants it") } else { Ok(()) };
    recorder.on_initialize = Arc::new(move |_| or_panic(in_initialize()));
    recorder.on_shard_end = Arc::new(move |_| or_panic(in_end()));
    let in_drop: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(in_drop);
    let pool = fixture.try_start(move |shard| {
        assert!(!in_factory(), "as the test wants it");
        Fragile(Recorder { shard: shard.id, ..recorder.clone() }, Arc::clone(&in_drop))
    });
    let pool = pool.unwrap();
    assert!(pool.wait_until_idle(LONG), "{:?}", pool.status());
    assert_eq!(fixture.log.records(S0), [put]);
    assert_eq!(fixture.log.count(&Call::ShardEnded(S0)), 2);
    assert_eq!(status(&pool, child).state, ShardState::Idle);
}

/// A recorder that panics when it is dropped, if it is told so.
struct Fragile(Recorder, Arc<dyn Fn() -> bool + Send + Sync>);

impl RecordProcessor for Fragile {
    fn initialize(&mut self, initialization: &Initialization) {
        self.0.initialize(initialization);
    }

    fn process_records(
        &mut self,
        batch: &Batch,
        checkpointer: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        self.0.process_records(batch, checkpointer)
    }

    fn shard_ended(&mut self) -> Result<(), ProcessorError> {
        self.0.shard_ended()
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!(self.1)(), "as the test wants it");
    }
}

#[test]
fn an_error_of_the_source_is_a_failure() {
    let mut fixture = Fixture::new(1);
    fixture.options.retry_delay = SHORT;
    fixture.source.is_broken.store(true, Ordering::SeqCst);
    let put = fixture.source.put(S0);
    let pool = fixture.start(fixture.recorder());
    wait_for_state(&pool, S0, ShardState::Retrying);
    assert_eq!(
        status(&pool, S0).last_error.as_deref(),
        Some("the stream was opened read-only; open it for putting instead")
    );
    fixture.source.is_broken.store(false, Ordering::SeqCst);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), [put]);
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_a_failure() {
    let mut fixture = Fixture::new(1);
    fixture.options.retry_delay = SHORT;
    let put = fixture.source.put(S0);
    let row = fixture.row_path(S0);
    let (damages, whole) = (first(1), Arc::new(Mutex::new(Vec::new())));
    let (path, before) = (row.clone(), Arc::clone(&whole));
    let pool = fixture.start(fixture.recorder().on_batch(move |_, _| {
        if damages() {
            *before.lock() = std::fs::read(&path)?;
            overwrite(&path, &[0; 1024]);
        }
        Ok(())
    }));
    wait_for_state(&pool, S0, ShardState::Retrying);
    overwrite(&row, &whole.lock());
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), [put, put]);
    assert!(status(&pool, S0).last_error.unwrap().contains("neither of its slots"));
}

#[test]
fn a_new_shard_whose_row_cannot_be_made_is_seen_and_tried_again() {
    let mut fixture = Fixture::new(1);
    fixture.options.retry_delay = SHORT;
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let in_the_way = fixture.row_path(S1);
    std::fs::create_dir(&in_the_way).unwrap();
    assert_eq!(fixture.source.close(&[S0]), S1);
    let put = fixture.source.put(S1);
    wait_for_state(&pool, S1, ShardState::Retrying);
    assert!(status(&pool, S1).last_error.is_some());
    std::fs::remove_dir(&in_the_way).unwrap();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S1), [put]);
}

#[test]
fn every_shard_is_finished_though_all_fail_at_random() {
    let mut fixture = Fixture::new(4);
    fixture.options.threads = 4;
    let shards: Vec<ShardId> = (0..4).map(ShardId::new).collect();
    let put: Vec<_> = shards.iter().map(|shard| fixture.source.put_many(*shard, 200)).collect();
    let count = AtomicU32::new(0);
    fixture.run(fixture.recorder().on_batch(move |_, _| {
        match count.fetch_add(1, Ordering::SeqCst) % 7 {
            3 => Err("third".into()),
            5 => panic!("fifth"),
            _ => Ok(()),
        }
    }));
    for (shard, put) in shards.into_iter().zip(put) {
        let records = fixture.log.records(shard);
        assert_eq!(records, put, "in order, and once: a failed batch is not logged");
        assert_eq!(records.iter().collect::<BTreeSet<_>>().len(), 200);
    }
}
