//! Who works when: the supervisor of a stream keeps the workers that have nothing to do, and hands
//! those that have to the threads of the pool; a thread gives a worker a turn.
//!
//! A worker that has more to do goes back to the end of the queue of the ready ones by itself; so
//! the shards take turns, and a busy pool does not need its supervisors. Everything else goes
//! through the supervisor: it wakes the idle, waits before it retries the failed, has the leases
//! looked at, and comes to its end when no worker is left. It reads no clock but the pool's, and
//! never sleeps, so that one thread can look after many streams, and a test can take it step by
//! step.

use std::any::Any;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::Result;
use crate::worker::coordinator::{Coordinator, Taken};
use crate::worker::crew::{Queue, Ready};
use crate::worker::life::Stage;
use crate::worker::shard_worker::{ShardWorker, Turn};
use crate::worker::shared::Shared;
use crate::worker::source::Source;
use crate::worker::status::ShardState;

/// How often a source that cannot tell of news is asked for some.
const SHORTEST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(50);

/// A worker that is not ready, and why.
pub(super) type Returned<S> = (ShardWorker<S>, Turn);

/// Keeps the workers that are not ready.
pub(super) struct Supervisor<S: Source> {
    pool: Arc<Shared<S>>,
    ready: Queue<S>,
    returned: (Sender<Returned<S>>, Receiver<Returned<S>>),
    coordinator: Coordinator,
    /// Those that have nothing to read, or not enough, and when they have something to do all the
    /// same.
    idle: Vec<(Option<Instant>, ShardWorker<S>)>,
    retrying: Vec<(Instant, ShardWorker<S>)>,
    parked: Vec<ShardWorker<S>>,
    /// How many workers there are, wherever they are.
    workers: usize,
    /// Whether the set of shards may have changed.
    lists: bool,
    /// When to look at the leases, and how often that has failed in a row.
    look_at: Instant,
    look_failures: u32,
    /// After which time to look for news that nobody tells.
    poll: Duration,
    /// When a callback may next have run too long.
    stall_at: Option<Instant>,
    has_left: bool,
}

impl<S: Source> Supervisor<S> {
    /// Takes what is this pool's share at once; those who work wait in the queue.
    pub(super) fn new(pool: Arc<Shared<S>>, ready: &Queue<S>) -> Result<Self> {
        let now = pool.options.ticker.now();
        let mut supervisor = Self {
            pool,
            ready: ready.clone(),
            returned: unbounded(),
            coordinator: Coordinator::default(),
            idle: Vec::new(),
            retrying: Vec::new(),
            parked: Vec::new(),
            workers: 0,
            lists: true,
            look_at: now,
            look_failures: 0,
            poll: SHORTEST_POLL,
            stall_at: Some(now),
            has_left: false,
        };
        supervisor.look(now)?;
        supervisor.look_at = now + supervisor.pool.options.look_interval;
        Ok(supervisor)
    }

    /// The set of shards may have changed.
    pub(super) fn list(&mut self) {
        self.lists = true;
    }

    /// Does what is to be done now, and says until when there is nothing more unless something
    /// happens. None: everything has come to its end.
    pub(super) fn step(&mut self) -> Option<Option<Instant>> {
        while let Ok((worker, turn)) = self.returned.1.try_recv() {
            self.take_back(worker, turn);
        }
        self.tell_stalls_if_due();
        if self.pool.board.stage() != Stage::Consuming {
            self.stop_all();
            return (self.workers > 0).then_some(self.stall_at);
        }
        self.look_if_due();
        self.retry_failed();
        self.wake_resumed();
        let look_again_at = self.wake_idle();
        let due = self.retrying.iter().map(|(due, _)| *due);
        let idle_due = self.idle.iter().filter_map(|(due, _)| *due);
        let due = due.chain(idle_due).chain(look_again_at).chain(self.stall_at);
        Some(due.chain([self.look_at]).min())
    }

    fn now(&self) -> Instant {
        self.pool.options.ticker.now()
    }

    fn tell_stalls_if_due(&mut self) {
        let now = self.now();
        if self.stall_at.is_some_and(|at| at <= now) {
            self.stall_at = self.pool.board.tell_stalls(now, self.pool.options.stall_limit);
        }
    }

    fn take_back(&mut self, worker: ShardWorker<S>, turn: Turn) {
        let shard = worker.shard().id;
        match turn {
            Turn::Again => self.hand_out(worker),
            Turn::Idle(due) => self.idle.push((due, worker)),
            Turn::Retry(delay) => self.retrying.push((self.now() + delay, worker)),
            Turn::Park => self.parked.push(worker),
            Turn::Ended | Turn::Gone => {
                self.workers -= 1;
                if self.coordinator.forget(shard) {
                    // Children may begin; a shard that was lost may be had again.
                    self.look_at = self.now();
                }
            }
        }
    }

    /// Puts a worker into the queue of the ready ones.
    fn hand_out(&self, worker: ShardWorker<S>) {
        let (pool, returned) = (Arc::clone(&self.pool), self.returned.0.clone());
        self.ready.push(Ready { pool, returned, worker });
    }

    /// Hands out a worker that had nothing to do until now.
    fn wake(&mut self, worker: ShardWorker<S>) {
        self.poll = SHORTEST_POLL;
        self.pool.board.update(worker.key(), |entry| entry.state = ShardState::Running);
        self.hand_out(worker);
    }

    /// Looks at the leases, if it is time to or there are new shards.
    fn look_if_due(&mut self) {
        let now = self.now();
        let has_new = mem::take(&mut self.lists) && self.look_failures == 0;
        if self.look_at > now && !(has_new && self.coordinator.list(&self.pool).unwrap_or(true)) {
            return;
        }
        let Err(error) = self.look(now) else {
            self.look_failures = 0;
            self.look_at = now + self.pool.options.look_interval;
            return;
        };
        for shard in self.coordinator.without_row() {
            self.pool.board.update_shard(shard, |entry| {
                entry.fail(entry.failed_attempts.saturating_add(1), error.to_string());
            });
        }
        self.look_failures = self.look_failures.saturating_add(1);
        self.look_at = now + self.pool.options.retry_delay.after(self.look_failures);
    }

    fn look(&mut self, now: Instant) -> Result<()> {
        if self.coordinator.list(&self.pool)? {
            self.coordinator.make_rows(&self.pool)?;
        }
        let mut taken = Vec::new();
        let looked = self.coordinator.look(&self.pool, now, &mut taken);
        for Taken { shard, lanes, recall } in taken {
            for lane in lanes {
                self.workers += 1;
                let (shard, recall) = (shard.clone(), recall.clone());
                let worker = ShardWorker::new(shard, lane, recall, &self.pool.options);
                self.wake(worker);
            }
        }
        self.wake_recalled();
        #[cfg(feature = "metrics")]
        self.publish();
        looked
    }

    #[cfg(feature = "metrics")]
    fn publish(&self) {
        let source = &self.pool.source;
        let lag = |shard, position| source.lag(&source.cursor(shard, position)?);
        self.pool.board.metrics(self.now(), self.pool.options.stall_limit, lag).publish();
    }

    /// Hands out those that are here and are to let go.
    fn wake_recalled(&mut self) {
        let coordinator = &self.coordinator;
        let mut recalled = Vec::new();
        let is_recalled = |worker: &mut ShardWorker<S>| coordinator.is_recalled(worker.shard().id);
        let of_idle = self.idle.extract_if(.., |(_, worker)| is_recalled(worker));
        recalled.extend(of_idle.map(|(_, worker)| worker));
        let of_retrying = self.retrying.extract_if(.., |(_, worker)| is_recalled(worker));
        recalled.extend(of_retrying.map(|(_, worker)| worker));
        recalled.extend(self.parked.extract_if(.., is_recalled));
        recalled.into_iter().for_each(|worker| self.hand_out(worker));
    }

    fn retry_failed(&mut self) {
        let now = self.now();
        for (due, worker) in mem::take(&mut self.retrying) {
            if due <= now {
                self.wake(worker);
            } else {
                self.retrying.push((due, worker));
            }
        }
    }

    /// Hands out the parked workers that are to be tried again: the board says so.
    fn wake_resumed(&mut self) {
        let board = &self.pool.board;
        let is_resumed = |worker: &mut ShardWorker<S>| !board.is_parked(worker.key());
        let resumed: Vec<_> = self.parked.extract_if(.., is_resumed).collect();
        resumed.into_iter().for_each(|worker| self.wake(worker));
    }

    /// Hands out the idle workers that have something to do again. If news of the others may not
    /// be told, returns when to look again.
    fn wake_idle(&mut self) -> Option<Instant> {
        let mut look_again = false;
        let now = self.now();
        for (due, mut worker) in mem::take(&mut self.idle) {
            if due.is_some_and(|due| due <= now) || worker.has_news(&self.pool.source) {
                self.wake(worker);
            } else {
                look_again |= !worker.listen(&self.pool.source, &self.pool.board.life.supervisors);
                self.idle.push((due, worker));
            }
        }
        look_again.then(|| {
            let poll = self.poll;
            self.poll = (poll * 2).min(LONGEST_POLL);
            now + poll
        })
    }

    /// Hands out every worker that is here, for its last turn.
    fn stop_all(&mut self) {
        if !mem::replace(&mut self.has_left, true) {
            // If the others are not told, they see it when the pool is gone.
            let _ = self.pool.table.leave();
            self.pool.board.tell_shutdown();
        }
        let mut workers = mem::take(&mut self.parked);
        workers.extend(self.idle.drain(..).map(|(_, worker)| worker));
        workers.extend(self.retrying.drain(..).map(|(_, worker)| worker));
        workers.into_iter().for_each(|worker| self.hand_out(worker));
    }
}

impl<S: Source> Drop for Supervisor<S> {
    /// No worker is left: lets the owner know.
    fn drop(&mut self) {
        #[cfg(feature = "metrics")]
        self.publish();
        self.pool.totals.forget(&self.pool.board.stream);
        self.pool.board.enter(Stage::Finished);
    }
}

/// Runs code that may panic; what it has changed is still good, or the caller throws it away. The
/// error is the panic's text.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(run)).map_err(panic_text)
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<&str>() {
        Ok(text) => return format!("panicked: {text}"),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(text) => format!("panicked: {text}"),
        Err(payload) => {
            // Dropping it may panic, and there is no end to that.
            mem::forget(payload);
            "panicked".into()
        }
    }
}
