//! Queues whose journals begin anew all the time, killed wherever it may hurt.

mod kills;
mod model;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::os::clock::Clock;
use crate::stream::{Stream, StreamBuilder};

/// Time that goes on when a test says so.
#[derive(Clone, Debug)]
struct Watch(Arc<AtomicU64>);

impl Clock for Watch {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Watch {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_000_000_000_000)))
    }

    fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

fn builder(path: &Path, watch: &Watch) -> StreamBuilder {
    Stream::builder(path).max_segment_bytes(64 << 10).clock(watch.clone())
}
