//! Reading what was put before, and what is just being put; by iterators and by pools.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use millstream::{
    Batch, Checkpointer, Limit, ShardId, ShardIterator, StartingPosition, Stream, WaitStrategy,
    WorkerPool,
};

use super::append::{KEY, beside_each_other};
use super::contest::{Contest, Ours, Times, contestant, size};
use super::limits::Image;
use crate::failure::{Failure, Result};

const SHARDS: u32 = 4;
const THREADS: usize = 2;
/// As much as a batch has by default in records, and less than a cache.
const LIMIT: Limit = Limit { max_records: 10_000, max_bytes: 1 << 20 };
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Everything from the oldest record on, verified, beside the limit.
pub(super) fn replay(contest: &mut Contest<'_>, record_bytes: usize) -> Result<()> {
    let work = format!("replay {}", size(record_bytes));
    if !contest.wants(&work) {
        return Ok(());
    }
    let bytes = contest.effort.bytes;
    let ours = Ours::with_shards(contest, 1)?;
    let data = vec![7; record_bytes];
    for _ in 0..bytes / (40 + record_bytes).next_multiple_of(32) {
        ours.put(&data)?;
    }
    let directory = contest.directory();
    let failed = |error| crate::failure::Failure::file("work in", &directory, &error);
    let Ours { stream, directory: files } = ours;
    drop(stream);
    let image = Image::of(files.path()).map_err(failed)?;
    let contestants = vec![
        contestant("limit: crc, mapped anew", |_| {
            image.sum(record_bytes, false).map(Some).map_err(failed)
        }),
        contestant("limit: crc, ready map", |_| {
            image.sum(record_bytes, true).map(Some).map_err(failed)
        }),
        contestant("get_records", |_| {
            let stream = Stream::builder(files.path()).open_existing()?;
            let start = Instant::now();
            let records = read_shard(&stream, ShardId::new(0))?;
            Ok(Some(start.elapsed().as_nanos() as f64 / records as f64))
        }),
    ];
    contest.row(&work, record_bytes, contestants)
}

/// Reads a shard to its tip: how many records.
fn read_shard(stream: &Stream, shard: ShardId) -> Result<usize> {
    let mut iterator = Some(stream.shard_iterator(shard, StartingPosition::TrimHorizon)?);
    let mut records = 0;
    while let Some(at) = iterator {
        let page = stream.get_records(&at, LIMIT)?;
        look_at(&page.records);
        records += page.records.len();
        iterator = page.next_shard_iterator.filter(|_| !page.records.is_empty());
    }
    Ok(records)
}

fn look_at(batch: &Batch) {
    for record in batch {
        black_box(record.data());
    }
}

/// From a put to a reader that waits: one record every 10 microseconds.
pub(super) fn seen(contest: &mut Contest<'_>) -> Result<()> {
    const RECORD_BYTES: usize = 8;
    let work = "put to seen";
    if !contest.wants(work) {
        return Ok(());
    }
    let count = contest.effort.timed / 5;
    let ours = &Ours::grown(contest)?;
    let turn = |strategy| {
        move |times: &mut Times| {
            let latest = StartingPosition::Latest;
            let iterator = ours.stream.shard_iterator(ShardId::new(0), latest)?;
            let start = Instant::now();
            std::thread::scope(|scope| {
                let producer = scope.spawn(move || put_paced(ours, start, count));
                read_as_they_come(ours, iterator, count, strategy, |data| {
                    let put_at = data.try_into().map(u64::from_le_bytes).unwrap_or_default();
                    times.note(start.elapsed().saturating_sub(Duration::from_nanos(put_at)));
                })?;
                producer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })?;
            Ok(None)
        }
    };
    let contestants = vec![
        contestant("reader parks", turn(WaitStrategy::Park)),
        contestant("reader spins", turn(WaitStrategy::Spin)),
    ];
    contest.row(work, RECORD_BYTES, contestants)
}

/// Puts the time, every 10 microseconds.
fn put_paced(ours: &Ours, start: Instant, count: usize) -> Result<()> {
    let now = || start.elapsed().as_nanos() as u64;
    let mut next = now();
    for _ in 0..count {
        while now() < next {
            std::hint::spin_loop();
        }
        ours.put(&now().to_le_bytes())?;
        next += 10_000;
    }
    Ok(())
}

fn read_as_they_come(
    ours: &Ours,
    mut iterator: ShardIterator,
    count: usize,
    strategy: WaitStrategy,
    mut seen: impl FnMut(&[u8]),
) -> Result<()> {
    let mut read = 0;
    while read < count {
        let page = ours.stream.get_records(&iterator, Limit::default())?;
        page.records.iter().for_each(|record| seen(record.data()));
        read += page.records.len();
        iterator = page.next_shard_iterator.expect("nobody reshards here");
        if page.records.is_empty() && !ours.stream.wait_with(&iterator, PATIENCE, strategy)? {
            return Err(Failure::error("nothing more is put; is the machine asleep?"));
        }
    }
    Ok(())
}

/// A pool that only looks at the records, beside iterators on as many threads.
pub(super) fn pool(contest: &mut Contest<'_>) -> Result<()> {
    const RECORD_BYTES: usize = 100;
    let work = format!("consume {}, {SHARDS} shards", size(RECORD_BYTES));
    if !contest.wants(&work) {
        return Ok(());
    }
    let count = contest.effort.bytes / 160;
    let ours = &Ours::with_shards(contest, SHARDS)?;
    for n in 0..count {
        ours.stream.put(&format!("key-{:03}", n % 997), [7; RECORD_BYTES])?;
    }
    let per_record = move |start: Instant| start.elapsed().as_nanos() as f64 / count as f64;
    let contestants = vec![
        contestant("get_records, 2 threads", |_| {
            let (start, next) = (Instant::now(), AtomicUsize::new(0));
            let shards = ours.stream.shards();
            beside_each_other(THREADS, |_| {
                while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                    read_shard(&ours.stream, shard.id)?;
                }
                Ok(())
            })?;
            Ok(Some(per_record(start)))
        }),
        contestant("pool, 2 threads", |_| {
            static TURN: AtomicU64 = AtomicU64::new(0);
            let app = format!("bench-{}", TURN.fetch_add(1, Ordering::Relaxed));
            let start = Instant::now();
            let pool = WorkerPool::builder(&app, &ours.stream).threads(THREADS).limit(LIMIT);
            let pool = pool.start(|_| {
                |batch: &Batch, _: &mut Checkpointer<'_>| {
                    look_at(batch);
                    Ok(())
                }
            })?;
            if !pool.wait_until_idle(PATIENCE) {
                return Err(Failure::error("the pool did not get done"));
            }
            let turn = per_record(start);
            pool.shutdown(PATIENCE);
            Ok(Some(turn))
        }),
    ];
    contest.row(&work, RECORD_BYTES, contestants)
}

/// From a put to a pool in which everybody sleeps.
pub(super) fn pool_latency(contest: &mut Contest<'_>) -> Result<()> {
    const RECORD_BYTES: usize = 100;
    let work = "put to pool";
    if !contest.wants(work) {
        return Ok(());
    }
    let calls = contest.effort.slow;
    let ours = &Ours::with_shards(contest, 1)?;
    let turn = |times: &mut Times| {
        let (sender, seen) = mpsc::channel();
        let pool = WorkerPool::builder("bench", &ours.stream).start(move |_| {
            let sender = sender.clone();
            move |_: &Batch, _: &mut Checkpointer<'_>| Ok(sender.send(Instant::now())?)
        })?;
        for _ in 0..calls {
            if !pool.wait_until_idle(PATIENCE) {
                return Err(Failure::error("the pool did not get done"));
            }
            // So that everybody sleeps.
            std::thread::sleep(Duration::from_micros(200));
            let put = Instant::now();
            ours.stream.put(KEY, [7; RECORD_BYTES])?;
            let seen = seen.recv_timeout(PATIENCE);
            let seen = seen.map_err(|_| Failure::error("the pool did not see a record"))?;
            times.note(seen.saturating_duration_since(put));
        }
        pool.shutdown(PATIENCE);
        Ok(None)
    };
    contest.row(work, RECORD_BYTES, vec![contestant("sleeping pool", turn)])
}
