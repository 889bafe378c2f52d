//! Two threads that put the log into the stream, each the lines of its own clients.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millstream::{Error, Stream};

use super::access_log::{AccessLog, client_of};

pub(super) const PRODUCERS: usize = 2;
const BATCH: usize = 100;

/// How far the producers are.
#[derive(Clone, Copy, Default)]
pub(super) struct Positions {
    /// Where in the log each of them is.
    lines: [usize; PRODUCERS],
    /// How many lines were put and acknowledged.
    put: u64,
}

/// The producers at work.
pub(super) struct Producers {
    threads: Vec<JoinHandle<Result<usize, Error>>>,
    stop: Arc<AtomicBool>,
    put: Arc<AtomicU64>,
}

impl Producers {
    /// Starts them where they were, at `rate` lines a second together; 0 is as fast as they can.
    pub(super) fn start(
        stream: &Stream,
        log: &Arc<AccessLog>,
        positions: Positions,
        rate: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let put = Arc::new(AtomicU64::new(positions.put));
        let threads = positions.lines.iter().enumerate().map(|(index, position)| {
            let producer = Producer {
                stream: stream.clone(),
                log: Arc::clone(log),
                index,
                seconds_per_line: if rate == 0 { 0.0 } else { PRODUCERS as f64 / rate as f64 },
                stop: Arc::clone(&stop),
                put: Arc::clone(&put),
            };
            let position = *position;
            thread::spawn(move || producer.run(position))
        });
        Self { threads: threads.collect(), stop, put }
    }

    /// How many lines were put and acknowledged.
    pub(super) fn put(&self) -> u64 {
        self.put.load(Ordering::Relaxed)
    }

    /// Whether all of them are done, or failed.
    pub(super) fn are_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Has them stop after the batch at hand; where each of them is.
    pub(super) fn stop(self) -> Result<Positions, Error> {
        self.stop.store(true, Ordering::Relaxed);
        let mut lines = [0; PRODUCERS];
        for (line, thread) in lines.iter_mut().zip(self.threads) {
            *line = thread.join().expect("a producer does not panic")?;
        }
        Ok(Positions { lines, put: self.put.load(Ordering::Relaxed) })
    }
}

struct Producer {
    stream: Stream,
    log: Arc<AccessLog>,
    index: usize,
    seconds_per_line: f64,
    stop: Arc<AtomicBool>,
    put: Arc<AtomicU64>,
}

impl Producer {
    /// A client's lines all come from one producer: else their order would be anyone's guess.
    fn owns(&self, client: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        hasher.finish() as usize % PRODUCERS == self.index
    }

    /// Puts its lines from this index on; how far it came.
    fn run(self, mut position: usize) -> Result<usize, Error> {
        let started = Instant::now();
        let mut lines_put = 0;
        while position < self.log.len() && !self.stop.load(Ordering::Relaxed) {
            let mut batch = Vec::with_capacity(BATCH);
            while position < self.log.len() && batch.len() < BATCH {
                let line = self.log.line(position);
                if self.owns(client_of(line)) {
                    batch.push((client_of(line), line));
                }
                position += 1;
            }
            let records = batch.iter().map(|(client, line)| (*client, *line));
            for result in self.stream.put_batch(records) {
                result?;
            }
            lines_put += batch.len();
            self.put.fetch_add(batch.len() as u64, Ordering::Relaxed);
            let due = Duration::from_secs_f64(lines_put as f64 * self.seconds_per_line);
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
        Ok(position)
    }
}
