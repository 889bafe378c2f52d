//! A stream that is kept busy: producers, workers, reshards, restarts. What it takes of the machine
//! must not grow with time.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream::{
    Batch, Checkpointer, HashKey, ProcessorError, Stream, StreamBuilder, WorkerPool, verify,
};

use crate::Run;
use crate::common::files::scratch;
use crate::say;

/// What a process takes of the machine.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    memory_kib: u64,
    descriptors: u64,
    maps: u64,
    threads: u64,
}

impl Taken {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            // Without the pages of files, which the system takes back when it needs them.
            memory_kib: field("RssAnon:"),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() as u64,
            maps: fs::read_to_string("/proc/self/maps").unwrap().lines().count() as u64,
            threads: field("Threads:"),
        }
    }

    /// Whether this is not much more than it was.
    fn is_flat(self, before: Self) -> bool {
        self.memory_kib <= before.memory_kib + (16 << 10)
            && self.descriptors <= before.descriptors + 4
            && self.maps <= before.maps + 64
            && self.threads <= before.threads
    }
}

fn settings(path: &std::path::Path) -> StreamBuilder {
    Stream::builder(path).shards(4).max_segment_bytes(1 << 20)
}

/// One stream from its creation to its end: how many records it had, or what was wrong.
fn one_life(seconds: f64) -> Result<u64, String> {
    let directory = scratch();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (put, seen) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut first = true;
    while Instant::now() < end || first {
        first = false;
        let stream = settings(directory.path()).open().map_err(|e| e.to_string())?;
        let pool = consume(&stream, &seen)?;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for producer in 0..2 {
                let (stream, put, is_over) = (&stream, &put, &is_over);
                scope.spawn(move || {
                    let mut n = 0u64;
                    while !is_over.load(Ordering::Relaxed) {
                        let key = format!("{producer}/{}", n % 97);
                        let batch = (0..50).map(|_| (key.as_str(), &[7u8; 100][..]));
                        let results = stream.put_batch(batch);
                        let done = results.iter().filter(|result| result.is_ok()).count();
                        put.fetch_add(done as u64, Ordering::Relaxed);
                        n += 1;
                    }
                });
            }
            reshape(&stream, Instant::now() + Duration::from_millis(500));
            is_over.store(true, Ordering::Relaxed);
        });
        if !pool.wait_until_idle(Duration::from_secs(60)) {
            return Err(format!("the workers do not get through: {:?}", pool.status()));
        }
        pool.shutdown(Duration::from_secs(60));
        stream.close().map_err(|e| e.to_string())?;
    }
    let (put, seen) = (put.load(Ordering::Relaxed), seen.load(Ordering::Relaxed));
    if put != seen {
        return Err(format!("{put} records were put and {seen} processed"));
    }
    let found = verify(directory.path()).map_err(|e| e.to_string())?;
    if !found.is_intact() || found.records != put {
        return Err(format!("{put} records were put; found: {found:?}"));
    }
    Ok(put)
}

fn consume(stream: &Stream, seen: &Arc<AtomicU64>) -> Result<WorkerPool, String> {
    let seen = Arc::clone(seen);
    let pool = WorkerPool::builder("soak", stream).start(move |_| {
        let seen = Arc::clone(&seen);
        move |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
            seen.fetch_add(batch.len() as u64, Ordering::Relaxed);
            Ok(())
        }
    });
    pool.map_err(|e| e.to_string())
}

/// Splits the first shard and merges its halves, again and again.
fn reshape(stream: &Stream, end: Instant) {
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        let mut open: Vec<_> = stream.shards().into_iter().filter(|it| it.is_open()).collect();
        open.sort_by_key(|shard| shard.hash_key_range.start);
        let middle = HashKey::new(open[0].hash_key_range.end.get() / 2);
        let [low, high] = stream.split_shard(open[0].id, middle).unwrap();
        stream.merge_shards(low, high).unwrap();
    }
}

pub(crate) fn run(run: &Run) -> bool {
    let seconds = run.number("seconds", 5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut records, mut lives, mut before) = (0, 0, None);
    while Instant::now() < end || lives < 2 {
        match one_life(2.0) {
            Ok(put) => records += put,
            Err(what) => {
                say(&what);
                return false;
            }
        }
        lives += 1;
        let now = Taken::now();
        // The first life fills caches that stay.
        let before = *before.get_or_insert(now);
        if !now.is_flat(before) {
            say(&format!("it grows: {before:?} after the first stream, {now:?} after {lives}"));
            return false;
        }
    }
    let now = Taken::now();
    run.figure("soak", &format!("{records} records in {lives} streams, {now:?}"));
    true
}
