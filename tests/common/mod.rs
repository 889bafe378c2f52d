//! What the tests share: streams in temporary directories, a clock, and short ways to read.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod event;
pub mod files;
pub mod history;
pub mod own_process;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millstream::{Clock, Limit, ShardId, ShardIterator, StartingPosition, Stream, StreamBuilder};

/// The first shard of a stream.
pub const S0: ShardId = ShardId::new(0);
/// The second.
pub const S1: ShardId = ShardId::new(1);
/// The third.
pub const S2: ShardId = ShardId::new(2);

/// The time at which tests begin, in milliseconds since 1970.
pub const START_MS: u64 = 1_000_000_000_000;

/// A clock that stands still until it is set.
#[derive(Clone)]
pub struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START_MS)))
    }

    /// Sets the clock to so many milliseconds after the start.
    pub fn set(&self, ms: u64) {
        self.0.store(START_MS + ms, Ordering::Relaxed);
    }

    /// Lets so many milliseconds pass.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A directory that is removed in the end, and a stream in it.
pub struct Fixture {
    pub directory: tempfile::TempDir,
    pub stream: Stream,
}

impl Fixture {
    /// A stream with so many shards.
    pub fn new(shards: u32) -> Self {
        Self::with(|builder| builder.shards(shards))
    }

    /// A stream that is created as `settings` says.
    pub fn with(settings: impl FnOnce(StreamBuilder) -> StreamBuilder) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stream = settings(Stream::builder(directory.path())).create().unwrap();
        Self { directory, stream }
    }

    /// The stream, closed and opened again.
    pub fn reopened(self) -> Self {
        let Self { directory, stream } = self;
        stream.close().unwrap();
        let stream = Stream::builder(directory.path()).open_existing().unwrap();
        Self { directory, stream }
    }
}

/// Puts a record whose data is its key.
pub fn put(stream: &Stream, key: &str) -> millstream::Receipt {
    stream.put(key, key).unwrap()
}

/// What is read at an iterator: the data of the records as text, and the next iterator.
pub fn read(
    stream: &Stream,
    iterator: &ShardIterator,
    limit: usize,
) -> (Vec<String>, Option<ShardIterator>) {
    let page = stream.get_records(iterator, Limit::records(limit)).unwrap();
    let data = page.records.iter().map(|r| String::from_utf8(r.data().to_vec()).unwrap());
    (data.collect(), page.next_shard_iterator)
}

/// Everything from a position to the tip or end of a shard.
pub fn read_all(stream: &Stream, shard: ShardId, from: StartingPosition) -> Vec<String> {
    let mut iterator = stream.shard_iterator(shard, from).unwrap();
    let mut all = Vec::new();
    loop {
        let (data, next) = read(stream, &iterator, usize::MAX);
        let done = data.is_empty();
        all.extend(data);
        match next {
            Some(next) if !done => iterator = next,
            _ => return all,
        }
    }
}
