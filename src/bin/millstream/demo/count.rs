//! Counting per client: by the workers, from the stream, and once more from the text alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millstream::{Batch, Checkpointer, ProcessorError, RecordProcessor};
use parking_lot::Mutex;

use super::access_log::{client_of, number_of};
use super::show::Screen;

/// What was seen of a client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Requests {
    pub(super) count: u64,
    /// The number of its last line.
    last: u64,
    /// Over its lines, in the order they were seen.
    digest: u64,
}

impl Requests {
    /// Counts a line that comes after all lines seen. One that came before is not counted twice:
    /// false.
    fn see(&mut self, number: u64, line: &str) -> bool {
        let is_new = number > self.last;
        if is_new {
            self.count += 1;
            self.last = number;
            self.digest = line.bytes().fold(self.digest, |digest, byte| {
                (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        }
        is_new
    }
}

pub(super) type ByClient = HashMap<String, Requests>;

/// The truth: counted from the text alone.
pub(super) fn count_text(text: &str) -> ByClient {
    let mut clients = ByClient::new();
    for (index, line) in text.lines().enumerate() {
        clients.entry(client_of(line).to_owned()).or_default().see(index as u64 + 1, line);
    }
    clients
}

/// What the workers have counted, in one place that outlives them.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) clients: ByClient,
    /// Records that are in the counts.
    pub(super) records: u64,
    /// Records that came again, and were not counted again.
    pub(super) came_again: u64,
}

/// A worker's processor: counts the lines of a shard.
#[derive(Clone)]
pub(super) struct Counter {
    pub(super) counted: Arc<Mutex<Counted>>,
    /// Whether the next worker with a batch of some size is to panic.
    pub(super) panic_next: Arc<AtomicBool>,
    pub(super) screen: Screen,
}

impl RecordProcessor for Counter {
    fn process_records(
        &mut self,
        batch: &Batch,
        _: &mut Checkpointer<'_>,
    ) -> Result<(), ProcessorError> {
        let panics = batch.len() >= 10 && self.panic_next.swap(false, Ordering::Relaxed);
        let mut counted = self.counted.lock();
        for (index, record) in batch.iter().enumerate() {
            if panics && index == batch.len() / 2 {
                drop(counted);
                self.panic_in_the_middle(batch);
            }
            let line = std::str::from_utf8(record.data())?;
            let number = number_of(line).ok_or("a line without its number")?;
            let requests = match counted.clients.get_mut(record.partition_key()) {
                Some(requests) => requests,
                None => counted.clients.entry(record.partition_key().to_owned()).or_default(),
            };
            match requests.see(number, line) {
                true => counted.records += 1,
                false => counted.came_again += 1,
            }
        }
        Ok(())
    }
}

impl Counter {
    fn panic_in_the_middle(&self, batch: &Batch) -> ! {
        let (shard, done, all) = (batch.shard(), batch.len() / 2, batch.len());
        let text = format!("   {shard}: its worker panics with {done} of {all} records counted\n");
        // If nobody reads it, the next stage finds out.
        let _ = self.screen.say(&text);
        std::panic::panic_any(PLANNED_PANIC);
    }
}

/// What the worker says that is made to panic; no other panic is expected.
pub(super) const PLANNED_PANIC: &str = "a panic as planned";

/// Keeps the planned panic from printing its message and place as if it were a mistake.
pub(super) fn announce_only_other_panics() {
    let announce = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().downcast_ref() != Some(&PLANNED_PANIC) {
            announce(panic);
        }
    }));
}
