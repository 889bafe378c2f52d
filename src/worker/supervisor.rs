//! Who works when: the supervisor keeps the workers that have nothing to do, and hands those that
//! have to the threads; a thread gives a worker a turn.
//!
//! A worker that has more to do goes back to the end of the queue of the ready ones by itself; so
//! the shards take turns, and a busy pool does not need its supervisor. Everything else goes
//! through the supervisor: it wakes the idle, waits before it retries the failed, finds new
//! shards, begins the children of ended ones, and ends the threads when no worker is left.

use std::any::Any;
use std::collections::BTreeSet;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::Result;
use crate::position::ShardId;
use crate::worker::checkpoint::Checkpoint;
use crate::worker::lease::{self, Lease};
use crate::worker::shard_worker::{ShardWorker, Shared, Turn};
use crate::worker::source::Source;
use crate::worker::status::{Entry, ShardState, Stage};

/// How often a source that cannot tell of news is asked for some.
const SHORTEST_POLL: Duration = Duration::from_millis(1);
const LONGEST_POLL: Duration = Duration::from_millis(50);
/// How long "until something happens" is.
const FOREVER: Duration = Duration::MAX;

/// A worker that is ready; none ends the thread that takes it.
type Ready<S> = Option<ShardWorker<S>>;
/// A worker that is not ready, and why.
type Returned<S> = (ShardWorker<S>, Turn);

/// Gives workers their turns.
pub(super) struct WorkerThread<S: Source> {
    pool: Arc<Shared<S>>,
    ready: (Sender<Ready<S>>, Receiver<Ready<S>>),
    returned: Sender<Returned<S>>,
}

impl<S: Source> WorkerThread<S> {
    pub(super) fn run(self) {
        // The supervisor has the other ends as long as there is a worker, so no send fails.
        while let Ok(Some(mut worker)) = self.ready.1.recv() {
            let stops = self.pool.board.stage() != Stage::Consuming;
            let turn = if stops { worker.stop(&self.pool) } else { worker.turn(&self.pool) };
            if turn == Turn::Again {
                let _ = self.ready.0.send(Some(worker));
            } else {
                let _ = self.returned.send((worker, turn));
                self.pool.board.supervisor.notify();
            }
        }
    }
}

/// Keeps the workers that are not ready.
pub(super) struct Supervisor<S: Source> {
    pool: Arc<Shared<S>>,
    ready: (Sender<Ready<S>>, Receiver<Ready<S>>),
    returned: (Sender<Returned<S>>, Receiver<Returned<S>>),
    /// Shards that were given a worker, or needed none.
    adopted: BTreeSet<ShardId>,
    /// Shards at SHARD_END.
    ended: BTreeSet<ShardId>,
    /// All shards, as they were listed last.
    shards: BTreeSet<ShardId>,
    waiting: Vec<ShardWorker<S>>,
    idle: Vec<ShardWorker<S>>,
    retrying: Vec<(Instant, ShardWorker<S>)>,
    parked: Vec<ShardWorker<S>>,
    /// How many workers there are, wherever they are.
    workers: usize,
    /// When to look for new shards, and how often that has failed in a row.
    adopt_at: Option<Instant>,
    adopt_failures: u32,
    /// After which time to look for news that nobody tells.
    poll: Duration,
}

impl<S: Source> Supervisor<S> {
    /// Makes a worker for each shard; no thread runs yet.
    pub(super) fn new(pool: Arc<Shared<S>>) -> Result<Self> {
        let mut supervisor = Self {
            pool,
            ready: unbounded(),
            returned: unbounded(),
            adopted: BTreeSet::new(),
            ended: BTreeSet::new(),
            shards: BTreeSet::new(),
            waiting: Vec::new(),
            idle: Vec::new(),
            retrying: Vec::new(),
            parked: Vec::new(),
            workers: 0,
            adopt_at: None,
            adopt_failures: 0,
            poll: SHORTEST_POLL,
        };
        supervisor.adopt()?;
        Ok(supervisor)
    }

    /// What a thread runs beside the supervisor's.
    pub(super) fn worker_thread(&self) -> WorkerThread<S> {
        WorkerThread {
            pool: Arc::clone(&self.pool),
            ready: self.ready.clone(),
            returned: self.returned.0.clone(),
        }
    }

    /// Runs until the pool stops and the last worker is gone.
    pub(super) fn run(mut self) {
        loop {
            while let Ok((worker, turn)) = self.returned.1.try_recv() {
                self.take_back(worker, turn);
            }
            if self.pool.board.stage() == Stage::Consuming {
                self.adopt_if_due();
                self.begin_children();
                self.retry_failed();
                let sleep_until = self.wake_idle();
                self.sleep(sleep_until);
            } else {
                self.stop_all();
                if self.workers == 0 {
                    break;
                }
                self.pool.board.supervisor.wait_for(FOREVER);
            }
        }
    }

    fn take_back(&mut self, worker: ShardWorker<S>, turn: Turn) {
        match turn {
            Turn::Again => self.hand_out(worker),
            Turn::Idle => self.idle.push(worker),
            Turn::Retry(delay) => self.retrying.push((Instant::now() + delay, worker)),
            Turn::Park => self.parked.push(worker),
            Turn::Ended => {
                self.ended.insert(worker.shard().id);
                self.workers -= 1;
            }
            Turn::Gone => self.workers -= 1,
        }
    }

    /// Puts a worker into the queue of the ready ones.
    fn hand_out(&self, worker: ShardWorker<S>) {
        let _ = self.ready.0.send(Some(worker));
    }

    /// Hands out a worker that had nothing to do until now.
    fn wake(&mut self, worker: ShardWorker<S>) {
        self.poll = SHORTEST_POLL;
        self.pool.board.update(worker.shard().id, |entry| entry.state = ShardState::Running);
        self.hand_out(worker);
    }

    /// Makes a worker for each shard that has none and is not ended.
    fn adopt(&mut self) -> Result<()> {
        let pool = &self.pool;
        let mut shards = pool.source.shards()?;
        self.shards = shards.iter().map(|shard| shard.id).collect();
        if self.shards.is_subset(&self.adopted) {
            return Ok(());
        }
        lease::make_rows(&pool.table, &*pool.source, &shards, pool.options.starting_position)?;
        shards.retain(|shard| !self.adopted.contains(&shard.id));
        for shard in shards {
            let id = shard.id;
            let mut entry = Entry::new(Checkpoint::ShardEnd);
            if let Some(lease) = Lease::take(pool.table.row(id)?)? {
                entry = Entry::new(lease.checkpoint());
                self.waiting.push(ShardWorker::new(shard, lease, &pool.options));
                self.workers += 1;
            } else {
                self.ended.insert(id);
            }
            self.adopted.insert(id);
            pool.board.update(id, |old| *old = entry);
        }
        Ok(())
    }

    /// Looks for new shards, if something has happened.
    fn adopt_if_due(&mut self) {
        if self.adopt_at.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.adopt_at = None;
        let Err(error) = self.adopt() else {
            self.adopt_failures = 0;
            return;
        };
        for &shard in self.shards.difference(&self.adopted) {
            self.pool.board.update(shard, |entry| {
                entry.fail(entry.failed_attempts.saturating_add(1), error.to_string());
            });
        }
        self.adopt_failures = self.adopt_failures.saturating_add(1);
        let delay = self.pool.options.retry_delay.after(self.adopt_failures);
        self.adopt_at = Some(Instant::now() + delay);
    }

    fn begin_children(&mut self) {
        for worker in mem::take(&mut self.waiting) {
            if lease::may_begin(worker.shard(), &self.shards, &self.ended) {
                self.wake(worker);
            } else {
                self.waiting.push(worker);
            }
        }
    }

    fn retry_failed(&mut self) {
        let now = Instant::now();
        for (due, worker) in mem::take(&mut self.retrying) {
            if due <= now {
                self.wake(worker);
            } else {
                self.retrying.push((due, worker));
            }
        }
    }

    /// Hands out the idle workers that have something to do again. If news of the others may not
    /// be told, returns when to look again.
    fn wake_idle(&mut self) -> Option<Instant> {
        let mut look_again = false;
        for worker in mem::take(&mut self.idle) {
            if worker.has_news(&self.pool.source) {
                self.wake(worker);
            } else {
                look_again |= !worker.listen(&self.pool.source, &self.pool.board.supervisor);
                self.idle.push(worker);
            }
        }
        look_again.then(|| {
            let poll = self.poll;
            self.poll = (poll * 2).min(LONGEST_POLL);
            Instant::now() + poll
        })
    }

    /// Sleeps until something happens or is due.
    fn sleep(&mut self, look_again_at: Option<Instant>) {
        let due = self.retrying.iter().map(|(due, _)| *due);
        let until = due.chain(self.adopt_at).chain(look_again_at).min();
        let timeout =
            until.map_or(FOREVER, |until| until.saturating_duration_since(Instant::now()));
        if self.pool.board.supervisor.wait_for(timeout) && self.adopt_failures == 0 {
            self.adopt_at = Some(Instant::now());
        }
    }

    /// Hands out every worker that is here, for its last turn.
    fn stop_all(&mut self) {
        let mut workers = mem::take(&mut self.idle);
        workers.append(&mut self.waiting);
        workers.append(&mut self.parked);
        workers.extend(self.retrying.drain(..).map(|(_, worker)| worker));
        workers.into_iter().for_each(|worker| self.hand_out(worker));
    }
}

impl<S: Source> Drop for Supervisor<S> {
    /// No worker is left: ends the threads, and lets the owner know.
    fn drop(&mut self) {
        for _ in 0..self.pool.options.threads {
            let _ = self.ready.0.send(None);
        }
        self.pool.board.enter(Stage::Finished);
    }
}

/// Runs code that may panic; what it has changed is still good, or the caller throws it away. The
/// error is the panic's text.
pub(super) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
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
