//! The threads of a pool: some give turns to whichever workers are ready, of all its streams; one
//! looks after the supervisors.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::os::clock::Ticker;
use crate::worker::life::{Life, Stage};
use crate::worker::shard_worker::{ShardWorker, Turn};
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::supervisor::{Returned, Supervisor};

/// How long "until something happens" is.
const FOREVER: Duration = Duration::MAX;

/// A worker that is ready, with what belongs to its stream.
pub(super) struct Ready<S: Source> {
    pub(super) pool: Arc<Shared<S>>,
    /// Where it goes when it is not ready any more.
    pub(super) returned: Sender<Returned<S>>,
    pub(super) worker: ShardWorker<S>,
}

/// The workers that are ready: they take turns, whichever stream they are of. None ends the thread
/// that takes it.
pub(super) struct Queue<S: Source>(Sender<Option<Ready<S>>>, Receiver<Option<Ready<S>>>);

impl<S: Source> Queue<S> {
    pub(super) fn new() -> Self {
        let (sender, receiver) = unbounded();
        Self(sender, receiver)
    }

    pub(super) fn push(&self, ready: Ready<S>) {
        // This is the other end, too.
        let _ = self.0.send(Some(ready));
    }

    /// What a thread does that works.
    pub(super) fn run(self) {
        while let Ok(Some(ready)) = self.1.recv() {
            self.give_turn(ready);
        }
    }

    /// Gives a turn to the worker that is ready for the longest, if there is one.
    #[cfg(test)]
    pub(super) fn run_once(&self) {
        if let Ok(Some(ready)) = self.1.try_recv() {
            self.give_turn(ready);
        }
    }

    fn give_turn(&self, Ready { pool, returned, mut worker }: Ready<S>) {
        let stops = pool.board.stage() != Stage::Consuming;
        let turn = if stops { worker.stop(&pool) } else { worker.turn(&pool) };
        if turn == Turn::Again {
            self.push(Ready { pool, returned, worker });
        } else {
            // The supervisor has the other end as long as there is a worker.
            let _ = returned.send((worker, turn));
            pool.board.life.supervisors.notify();
        }
    }
}

impl<S: Source> Clone for Queue<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1.clone())
    }
}

/// The supervisors of a pool, one for each stream.
pub(super) struct Supervisors<S: Source> {
    pub(super) all: Vec<Supervisor<S>>,
    /// Those of streams that were added.
    pub(super) added: Receiver<Supervisor<S>>,
    pub(super) queue: Queue<S>,
    /// How many threads work.
    pub(super) threads: usize,
    pub(super) life: Arc<Life>,
    pub(super) ticker: Ticker,
}

impl<S: Source> Supervisors<S> {
    /// Runs until the pool stops and the last worker of the last stream is gone.
    pub(super) fn run(mut self) {
        loop {
            self.all.extend(self.added.try_iter());
            let mut until = None;
            self.all.retain_mut(|supervisor| {
                let step = supervisor.step();
                until = step.flatten().into_iter().chain(until).min();
                step.is_some()
            });
            if self.all.is_empty() && self.life.stage() != Stage::Consuming {
                return;
            }
            let now = self.ticker.now();
            let timeout = until.map_or(FOREVER, |until| until.saturating_duration_since(now));
            if self.life.supervisors.wait_for(timeout) {
                self.all.iter_mut().for_each(Supervisor::list);
            }
        }
    }
}

impl<S: Source> Drop for Supervisors<S> {
    /// Ends the threads, and lets the owner know.
    fn drop(&mut self) {
        for _ in 0..self.threads {
            let _ = self.queue.0.send(None);
        }
        self.life.enter(Stage::Finished);
    }
}
