//! Worker pools: what they cost beside bare iterators, and how soon they see a record.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use millstream::{
    Application, Batch, CheckpointPolicy, Checkpointer, Limit, StartingPosition, Stream, WorkerPool,
};

use crate::{contestant, directory, percentiles, row};

const SHARDS: u32 = 4;
const THREADS: usize = 2;
const COUNT: usize = 2_000_000;
/// As much as a batch has by default in records, and less than a cache.
const LIMIT: Limit = Limit { max_records: 10_000, max_bytes: 1 << 20 };

fn look_at(batch: &Batch) {
    for record in batch {
        black_box(record.data());
    }
}

/// A no-op processor over 4 shards of records of 100 bytes, against iterators on as many threads.
pub fn throughput() {
    let directory = tempfile::tempdir_in(directory()).unwrap();
    let stream = Stream::builder(directory.path()).shards(SHARDS).open().unwrap();
    for n in 0..COUNT {
        stream.put(&format!("key-{:03}", n % 997), [7; 93]).unwrap();
    }
    row(
        "pool, no-op, 4 shards of 100 B, 2 threads",
        7,
        vec![
            contestant("get_records", || {
                let start = Instant::now();
                let next = AtomicUsize::new(0);
                let shards = stream.shards();
                std::thread::scope(|scope| {
                    for _ in 0..THREADS {
                        scope.spawn(|| {
                            while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed))
                            {
                                let from = StartingPosition::TrimHorizon;
                                let mut at = stream.shard_iterator(shard.id, from).unwrap();
                                loop {
                                    let page = stream.get_records(&at, LIMIT).unwrap();
                                    if page.records.is_empty() {
                                        break;
                                    }
                                    look_at(&page.records);
                                    at = page.next_shard_iterator.unwrap();
                                }
                            }
                        });
                    }
                });
                start.elapsed().as_nanos() as f64 / COUNT as f64
            }),
            contestant("pool, a checkpoint a batch", || {
                static ROUND: AtomicU64 = AtomicU64::new(0);
                let app = format!("bench-{}", ROUND.fetch_add(1, Ordering::Relaxed));
                let done = Arc::new(AtomicUsize::new(0));
                let (sender, finished) = mpsc::channel();
                let start = Instant::now();
                let pool = WorkerPool::builder(&app, &stream)
                    .threads(THREADS)
                    .limit(LIMIT)
                    .start(move |_| {
                        let (done, sender) = (Arc::clone(&done), sender.clone());
                        move |batch: &Batch, _: &mut Checkpointer<'_>| {
                            look_at(batch);
                            if done.fetch_add(batch.len(), Ordering::Relaxed) + batch.len() == COUNT
                            {
                                sender.send(start.elapsed())?;
                            }
                            Ok(())
                        }
                    })
                    .unwrap();
                let elapsed = finished.recv().unwrap();
                pool.shutdown(Duration::MAX);
                elapsed.as_nanos() as f64 / COUNT as f64
            }),
        ],
    );
}

/// What a checkpoint costs: batches of one record, with a checkpoint each and without.
pub fn checkpoint() {
    const BATCHES: usize = 100_000;
    let directory = tempfile::tempdir_in(directory()).unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    for _ in 0..BATCHES {
        stream.put("key-0001", [7; 100]).unwrap();
    }
    let run = |policy| {
        let start = Instant::now();
        let pool = WorkerPool::builder("bench", &stream)
            .threads(1)
            .limit(Limit::records(1))
            .checkpoints(policy)
            .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))
            .unwrap();
        assert!(pool.wait_until_idle(Duration::MAX));
        let elapsed = start.elapsed();
        pool.shutdown(Duration::MAX);
        let application = Application::of("bench", &stream).unwrap();
        application.seek(StartingPosition::TrimHorizon, "next round").unwrap();
        elapsed.as_nanos() as f64 / BATCHES as f64
    };
    row(
        "batch of one record in a pool",
        5,
        vec![
            contestant("without a checkpoint", || run(CheckpointPolicy::Manual)),
            contestant("with a checkpoint", || run(CheckpointPolicy::AfterBatch)),
        ],
    );
}

/// From put to `process_records` in a pool that sleeps.
pub fn latency() {
    const PUTS: usize = 2000;
    row(
        "put to process_records, parked pool (median of the medians)",
        3,
        vec![contestant("one put, then the next", || {
            let directory = tempfile::tempdir_in(directory()).unwrap();
            let stream = Stream::builder(directory.path()).open().unwrap();
            let (sender, seen) = mpsc::channel();
            let pool = WorkerPool::builder("bench", &stream)
                .start(move |_| {
                    let sender = sender.clone();
                    move |_: &Batch, _: &mut Checkpointer<'_>| Ok(sender.send(Instant::now())?)
                })
                .unwrap();
            let mut times = Vec::with_capacity(PUTS);
            for _ in 0..PUTS {
                assert!(pool.wait_until_idle(Duration::MAX));
                // So that everybody sleeps.
                std::thread::sleep(Duration::from_micros(200));
                let put = Instant::now();
                stream.put("key-0001", [7; 100]).unwrap();
                times.push(seen.recv().unwrap().duration_since(put).as_nanos() as u64);
            }
            percentiles(times)
        })],
    );
}
