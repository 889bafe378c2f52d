//! Code of the user's, which may take any time: how long it has been running is on the board, and
//! one that runs too long is told of, once.

use std::time::{Duration, Instant};

use crate::os::clock::Ticker;
use crate::worker::journal::Change;
use crate::worker::status::{Board, WorkerKey};

/// The callback whose time is counted.
pub(super) const PROCESS_RECORDS: &str = "process_records";

/// A callback that is running.
#[derive(Clone, Copy, Debug)]
pub(super) struct Callback {
    name: &'static str,
    since: Instant,
    /// Whether it was told that it runs too long.
    is_stalled: bool,
}

impl Callback {
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn running_for(&self, now: Instant) -> Duration {
        now.duration_since(self.since)
    }
}

impl Board {
    /// Runs a callback, which has this name.
    pub(super) fn call<T>(
        &self,
        ticker: &Ticker,
        worker: WorkerKey,
        name: &'static str,
        run: impl FnOnce() -> T,
    ) -> T {
        let callback = Callback { name, since: ticker.now(), is_stalled: false };
        self.update(worker, |entry| entry.callback = Some(callback));
        let _call = Call { board: self, ticker, worker };
        run()
    }

    /// Tells of the callbacks that run too long and were not told of before. Returns when to look
    /// again, if ever: there is none before that passes the limit.
    pub(super) fn tell_stalls(&self, now: Instant, limit: Duration) -> Option<Instant> {
        let mut stalled = Vec::new();
        let mut next = now.checked_add(limit.max(SHORTEST_LIMIT));
        self.update_all(|worker, entry| {
            let Some(callback) = entry.callback.as_mut().filter(|it| !it.is_stalled) else {
                return;
            };
            if callback.running_for(now) >= limit {
                callback.is_stalled = true;
                stalled.push((worker, *callback));
            } else {
                next = next.into_iter().chain(callback.since.checked_add(limit)).min();
            }
        });
        for (worker, callback) in stalled {
            let running_for = callback.running_for(now);
            self.tell(worker, Change::Stalled { callback: callback.name, running_for });
        }
        next
    }
}

/// So that a limit of nothing does not keep the supervisor busy.
const SHORTEST_LIMIT: Duration = Duration::from_millis(1);

/// A callback that ends when this is dropped, also by a panic.
struct Call<'a> {
    board: &'a Board,
    ticker: &'a Ticker,
    worker: WorkerKey,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let now = self.ticker.now();
        let mut ended = None;
        self.board.update(self.worker, |entry| {
            ended = entry.callback.take();
            if let Some(callback) = ended.filter(|callback| callback.name == PROCESS_RECORDS) {
                entry.counts.process_records_time += callback.running_for(now);
            }
        });
        if let Some(callback) = ended.filter(|callback| callback.is_stalled) {
            let ran_for = callback.running_for(now);
            self.board.tell(self.worker, Change::StallOver { callback: callback.name, ran_for });
        }
    }
}
