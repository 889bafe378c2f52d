//! Worker pools over a stream: what is delivered, once, again, and after a restart.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Fixture, S0};
use millstream::{
    Batch, Checkpoint, CheckpointPolicy, Checkpointer, HashKey, Limit, Outcome, ProcessorError,
    RecordProcessor, SequenceNumber, ShardId, ShardState, Stream, WorkerPool, WorkerPoolBuilder,
};

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);

/// What was processed: shard, number, key.
#[derive(Clone, Default)]
struct Processed(Arc<Mutex<Vec<(ShardId, SequenceNumber, String)>>>);

impl Processed {
    fn add(&self, batch: &Batch) {
        let mut processed = self.0.lock().unwrap();
        for record in batch {
            let key = record.partition_key().to_owned();
            processed.push((batch.shard(), record.sequence_number(), key));
        }
    }

    fn numbers(&self) -> BTreeMap<ShardId, Vec<SequenceNumber>> {
        let mut numbers = BTreeMap::<_, Vec<_>>::new();
        for (shard, number, _) in self.0.lock().unwrap().iter() {
            numbers.entry(*shard).or_default().push(*number);
        }
        numbers
    }

    fn keys(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(_, _, key)| key.clone()).collect()
    }
}

/// Puts so many records, each with a key of its own; returns the numbers by shard.
fn put(stream: &Stream, count: usize) -> BTreeMap<ShardId, Vec<SequenceNumber>> {
    let mut numbers = BTreeMap::<_, Vec<_>>::new();
    for index in 0..count {
        let receipt = stream.put(&format!("key-{index}"), "data").unwrap();
        numbers.entry(receipt.shard).or_default().push(receipt.sequence_number);
    }
    numbers
}

/// A pool that logs, after it has done with each batch what the test says.
fn start(
    builder: WorkerPoolBuilder,
    processed: &Processed,
    on_batch: impl Fn(&Batch, &mut Checkpointer<'_>) -> Result<(), ProcessorError>
    + Clone
    + Send
    + Sync
    + 'static,
) -> WorkerPool {
    let processed = processed.clone();
    let pool = builder.retry_delay(Duration::ZERO, Duration::from_millis(1)).start(move |_| {
        let (processed, on_batch) = (processed.clone(), on_batch.clone());
        move |batch: &Batch, checkpointer: &mut Checkpointer<'_>| {
            on_batch(batch, checkpointer)?;
            processed.add(batch);
            Ok(())
        }
    });
    pool.unwrap()
}

#[test]
fn a_new_application_gets_every_record_once_and_in_order() {
    let Fixture { stream, directory: _directory } = Fixture::new(3);
    let put = put(&stream, 1000);
    let processed = Processed::default();
    let builder = WorkerPool::builder("billing", &stream).threads(1).limit(Limit::records(7));
    let pool = start(builder, &processed, |_, _| Ok(()));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(processed.numbers(), put);
    let total: u64 = pool.status().iter().map(|status| status.records_processed).sum();
    assert_eq!(total, 1000);
}

#[test]
fn records_put_while_the_pool_runs_are_processed() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    let processed = Processed::default();
    let pool = start(WorkerPool::builder("billing", &stream), &processed, |_, _| Ok(()));
    for _ in 0..20 {
        stream.put("key", "data").unwrap();
        assert!(pool.wait_until_idle(LONG));
    }
    assert_eq!(processed.keys().len(), 20);
}

#[test]
fn a_stream_opened_again_is_consumed_behind_the_checkpoint() {
    let fixture = Fixture::new(1);
    let put = put(&fixture.stream, 5);
    let third = put[&S0][2];
    let builder = WorkerPool::builder("billing", &fixture.stream);
    let builder = builder.checkpoints(CheckpointPolicy::Manual);
    let pool = start(builder, &Processed::default(), move |_, checkpointer| {
        Ok(checkpointer.checkpoint_at(third)?)
    });
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(pool.status()[0].checkpoint, Checkpoint::AfterSequenceNumber(third));
    let outcomes = pool.shutdown(LONG);
    assert_eq!((outcomes[0].shard, &outcomes[0].outcome), (S0, &Outcome::Stopped));

    let fixture = fixture.reopened();
    let processed = Processed::default();
    let pool = start(WorkerPool::builder("billing", &fixture.stream), &processed, |_, _| Ok(()));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(processed.keys(), ["key-3", "key-4"]);
}

#[test]
fn without_a_checkpoint_everything_comes_again() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    let put = put(&stream, 10);
    for _ in 0..2 {
        let processed = Processed::default();
        let builder = WorkerPool::builder("billing", &stream);
        let builder = builder.checkpoints(CheckpointPolicy::Manual);
        let pool = start(builder, &processed, |_, _| Ok(()));
        assert!(pool.wait_until_idle(LONG));
        assert_eq!(processed.numbers(), put);
    }
}

/// Keeps all records back until the shutdown.
struct Hoarder(Processed, Vec<Batch>);

impl RecordProcessor for Hoarder {
    fn process_records(
        &mut self,
        batch: &Batch,
        _: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        self.1.push(batch.clone());
        Ok(())
    }

    fn shutdown_requested(&mut self, checkpointer: &mut Checkpointer<'_>) {
        self.1.iter().for_each(|batch| self.0.add(batch));
        checkpointer.checkpoint().unwrap();
    }
}

#[test]
fn what_a_manual_processor_finishes_at_the_shutdown_does_not_come_again() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    let mut expected = BTreeMap::<_, Vec<_>>::new();
    let processed = Processed::default();
    for _ in 0..2 {
        for (shard, mut numbers) in put(&stream, 20) {
            expected.entry(shard).or_default().append(&mut numbers);
        }
        let log = processed.clone();
        let builder = WorkerPool::builder("billing", &stream).limit(Limit::records(3));
        let pool = builder
            .checkpoints(CheckpointPolicy::Manual)
            .start(move |_| Hoarder(log.clone(), Vec::new()))
            .unwrap();
        assert!(pool.wait_until_idle(LONG));
        pool.shutdown(LONG);
    }
    assert_eq!(processed.numbers(), expected);
}

#[test]
fn after_a_panic_the_same_records_come_again_and_other_shards_go_on() {
    let Fixture { stream, directory: _directory } = Fixture::new(4);
    let put = put(&stream, 200);
    let processed = Processed::default();
    let panicked = Arc::new(AtomicBool::new(false));
    let builder = WorkerPool::builder("billing", &stream).limit(Limit::records(10));
    let pool = start(builder, &processed, move |batch, _| {
        let first = !panicked.swap(true, Ordering::SeqCst);
        assert!(!first, "the first batch of {} panics", batch.shard());
        Ok(())
    });
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(processed.numbers(), put);
    assert_eq!(pool.status().iter().filter(|status| status.last_error.is_some()).count(), 1);
}

#[test]
fn the_children_of_a_split_shard_come_after_it() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let processed = Processed::default();
    let pool = start(WorkerPool::builder("billing", &stream), &processed, |_, _| Ok(()));
    let mut expected = put(&stream, 50);
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    expected.append(&mut put(&stream, 50));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(processed.numbers(), expected);
    let order = processed.0.lock().unwrap().clone();
    assert!(order.is_sorted_by_key(|(shard, _, _)| *shard != S0), "the parent is first");
    assert_eq!(pool.status()[0].state, ShardState::Ended);
}

#[test]
fn pools_of_one_application_share_the_records_and_another_one_has_its_own() {
    let Fixture { stream, directory: _directory } = Fixture::new(4);
    let put = put(&stream, 400);
    let (of_billing, of_audit) = (Processed::default(), Processed::default());
    let pool = |application, processed| {
        let builder = WorkerPool::builder(application, &stream);
        let builder = builder.limit(Limit::records(3)).look_interval(Duration::from_millis(1));
        start(builder, processed, |_, _| Ok(()))
    };
    let pools = [pool("billing", &of_billing), pool("billing", &of_billing)];
    let audit = pool("audit", &of_audit);
    while of_billing.keys().len() < 400 {
        std::thread::yield_now();
    }
    assert!(pools.iter().all(|pool| pool.wait_until_idle(LONG)) && audit.wait_until_idle(LONG));
    assert_eq!(of_billing.numbers(), put);
    assert_eq!(of_audit.numbers(), put);
}

#[test]
fn each_key_stays_in_order_while_a_shard_is_split_and_callbacks_fail() {
    const KEYS: usize = 16;
    const RECORDS: usize = 500;
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let taken = Arc::new(Mutex::new(BTreeMap::<String, Vec<usize>>::new()));
    let (log, batches) = (Arc::clone(&taken), Arc::new(AtomicUsize::new(0)));
    let builder = WorkerPool::builder("billing", &stream).limit(Limit::records(50));
    let pool = start(builder, &Processed::default(), move |batch, _| {
        assert!(batches.fetch_add(1, Ordering::SeqCst) % 10 != 3, "every tenth batch panics");
        let mut log = log.lock().unwrap();
        for record in batch {
            let index = std::str::from_utf8(record.data())?.parse()?;
            log.entry(record.partition_key().into()).or_default().push(index);
        }
        Ok(())
    });
    std::thread::scope(|scope| {
        for producer in 0..2 {
            let stream = &stream;
            scope.spawn(move || {
                for index in 0..RECORDS * KEYS / 2 {
                    let key = format!("key-{}", producer + index % (KEYS / 2) * 2);
                    stream.put(&key, (index / (KEYS / 2)).to_string()).unwrap();
                }
            });
        }
        stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    });
    assert!(pool.wait_until_idle(LONG), "{:?}", pool.status());
    let taken = taken.lock().unwrap();
    assert_eq!(taken.len(), KEYS);
    assert!(taken.values().all(|indices| indices.iter().copied().eq(0..RECORDS)));
}
