//! Putting, with and without waiting for the disk.

use std::time::Instant;

use millstream::{Durability, Error, PutRecord};

use super::contest::{Contest, Ours, Times, contestant, ns_per, size};
use super::limits::{Limits, Synced, buffered};
use crate::failure::Result;

/// As long as keys are.
pub(super) const KEY: &str = "key-0001";
const BATCH: usize = 100;
const SYNCED_BYTES: usize = 1 << 10;

/// How many records of so many bytes take so many bytes in a log.
fn records_in(bytes: usize, record_bytes: usize) -> usize {
    (bytes / (40 + record_bytes).next_multiple_of(32)).max(1)
}

/// One producer, beside the limit and a `BufWriter`.
pub(super) fn put(contest: &mut Contest<'_>, record_bytes: usize) -> Result<()> {
    let work = format!("put {}", size(record_bytes));
    if !contest.wants(&work) {
        return Ok(());
    }
    let effort = contest.effort;
    let (data, bytes) = (vec![7; record_bytes], effort.bytes);
    let (directory, files) = (contest.directory(), contest.place()?);
    let failed = |error| crate::failure::Failure::file("work in", &directory, &error);
    let mut ready = Limits::new(&directory).map_err(failed)?;
    let mut cold = Limits::new(&directory).map_err(failed)?;
    let ours = Ours::grown(contest)?;
    let contestants = vec![
        contestant("limit: ready map, crc", |_| {
            ready.fill(&data, bytes, true).map(Some).map_err(failed)
        }),
        contestant("limit: cold map, crc", |_| {
            cold.fill(&data, bytes, false).map(Some).map_err(failed)
        }),
        contestant("BufWriter", |_| {
            buffered(&files.path().join("buffered"), &data, bytes).map(Some).map_err(failed)
        }),
        contestant("put", |times| {
            let turn = ns_per(records_in(bytes, record_bytes), || ours.put(&data))?;
            times.of(effort.timed.min(records_in(bytes / 2, record_bytes)), || ours.put(&data))?;
            Ok(turn)
        }),
    ];
    contest.row(&work, record_bytes, contestants)
}

/// Several producers on one shard.
pub(super) fn producers(contest: &mut Contest<'_>) -> Result<()> {
    const RECORD_BYTES: usize = 100;
    let work = format!("put {}, producers", size(RECORD_BYTES));
    if !contest.wants(&work) {
        return Ok(());
    }
    let count = records_in(contest.effort.bytes, RECORD_BYTES);
    let ours = Ours::grown(contest)?;
    let ours = &ours;
    let turn = move |producers: usize| {
        move |_: &mut Times| {
            let start = Instant::now();
            beside_each_other(producers, |_| {
                (0..count / producers).try_for_each(|_| ours.put(&[7; RECORD_BYTES]))
            })?;
            Ok(Some(start.elapsed().as_nanos() as f64 / count as f64))
        }
    };
    let contestants = [1, 2, 4].map(|producers| {
        let ending = if producers == 1 { "" } else { "s" };
        contestant(format!("{producers} producer{ending}"), turn(producers))
    });
    contest.row(&work, RECORD_BYTES, contestants.into())
}

/// Batches, beside single puts; what is timed is the whole call.
pub(super) fn batch(contest: &mut Contest<'_>) -> Result<()> {
    const RECORD_BYTES: usize = 100;
    let work = format!("batch of {BATCH} x {}", size(RECORD_BYTES));
    if !contest.wants(&work) {
        return Ok(());
    }
    let effort = contest.effort;
    let count = records_in(effort.bytes, RECORD_BYTES);
    let data = [7; RECORD_BYTES];
    let records = [PutRecord::new(KEY, &data); BATCH];
    let (single, batched) = (Ours::grown(contest)?, Ours::grown(contest)?);
    let put_batch = || -> Result<()> {
        let results = batched.stream.put_batch(records);
        results.into_iter().collect::<Result<Vec<_>, Error>>()?;
        Ok(())
    };
    let contestants = vec![
        contestant("put", |_| ns_per(count, || single.put(&data))),
        contestant("put_batch", |times| {
            let turn = ns_per(count / BATCH, put_batch)?;
            times.of(effort.timed / BATCH, put_batch)?;
            Ok(turn.map(|ns| ns / BATCH as f64))
        }),
    ];
    contest.row(&work, RECORD_BYTES, contestants)
}

/// Acknowledged when it is on the disk.
pub(super) fn durable(contest: &mut Contest<'_>) -> Result<()> {
    let work = format!("durable put {}", size(SYNCED_BYTES));
    if !contest.wants(&work) {
        return Ok(());
    }
    let calls = contest.effort.slow;
    let data = [7; SYNCED_BYTES];
    let directory = contest.directory();
    let failed = |error| crate::failure::Failure::file("work in", &directory, &error);
    let mut bare = Synced::new(&directory).map_err(failed)?;
    let (ours, data) = (&Ours::with_shards(contest, 1)?, &data);
    let turn = move |producers: usize, calls: usize| {
        move |times: &mut Times| {
            let record = PutRecord::new(KEY, data).durability(Durability::Sync);
            let start = Instant::now();
            let all = beside_each_other(producers, |_| {
                let mut taken = Vec::with_capacity(calls / producers);
                for _ in 0..calls / producers {
                    let start = Instant::now();
                    ours.stream.put_record(record)?;
                    taken.push(start.elapsed());
                }
                Ok(taken)
            })?;
            let elapsed = start.elapsed();
            all.into_iter().flatten().for_each(|time| times.note(time));
            Ok(Some(elapsed.as_nanos() as f64 / calls as f64))
        }
    };
    let contestants = vec![
        contestant("write and fdatasync", |times| {
            let start = Instant::now();
            times.of(calls, || bare.put(data).map_err(failed))?;
            Ok(Some(start.elapsed().as_nanos() as f64 / calls as f64))
        }),
        contestant("put, 1 producer", turn(1, calls)),
        contestant("put, 32 producers", turn(32, (calls * 8).next_multiple_of(32))),
    ];
    contest.row(&work, SYNCED_BYTES, contestants)
}

/// Does it on so many threads: what each has given.
pub(super) fn beside_each_other<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let handles: Vec<_> = (0..threads).map(|n| scope.spawn(move || work(n))).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| {
            handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect()
    })
}
