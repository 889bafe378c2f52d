//! What is done behind the producers' backs, by four threads for all shards of a stream: one
//! prepares pages and segments, one makes finished segments durable, one flushes at intervals, one
//! trims. None waits for another, since a sync takes long.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};

use crate::error::{Error, Result};
use crate::shard::Shard;
use crate::stream::trimmer::{Occasion, Trimmer};

/// A shard and when to flush it.
type Due = (Instant, Arc<Shard>);

/// The threads; they end when it is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    to_maintain: Option<Sender<Arc<Shard>>>,
    to_flush: Option<Sender<Due>>,
    to_retain: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    pub(super) fn start(trimmer: &Arc<Trimmer>) -> Result<Self> {
        let (to_maintain, unprepared) = unbounded::<Arc<Shard>>();
        let (prepared, to_settle) = unbounded::<Arc<Shard>>();
        let (to_flush, due) = unbounded();
        // One request stands for all that come before it is heard.
        let (to_retain, asked) = bounded(1);
        let settled = to_retain.clone();
        let prepare = move || {
            for shard in unprepared {
                shard.awaits_maintenance.store(false, Ordering::Release);
                // What could not be prepared is made, or refused, when a producer needs it.
                let _ = shard.prepare();
                let _ = prepared.send(shard);
            }
        };
        let settle = move || {
            for shard in to_settle {
                // A failed sync has poisoned the shard, which says so to its producers.
                let _ = shard.settle();
                let _ = settled.try_send(());
            }
        };
        let trimmer = Arc::clone(trimmer);
        let threads = vec![
            spawn("millstream-prepare", prepare)?,
            spawn("millstream-settle", settle)?,
            spawn("millstream-flush", move || flush_when_due(&due))?,
            spawn("millstream-retain", move || retain(&trimmer, &asked))?,
        ];
        let (to_maintain, to_flush) = (Some(to_maintain), Some(to_flush));
        Ok(Self { to_maintain, to_flush, to_retain: Some(to_retain), threads })
    }

    /// Has the retention looked at, which may be another one now.
    pub(super) fn retain(&self) {
        if let Some(trimmer) = &self.to_retain {
            let _ = trimmer.try_send(());
        }
    }

    /// Asks for maintenance of a shard.
    #[cold]
    pub(super) fn maintain(&self, shard: &Arc<Shard>) {
        if let Some(shards) = &self.to_maintain
            && !shard.awaits_maintenance.swap(true, Ordering::AcqRel)
        {
            let _ = shards.send(Arc::clone(shard));
        }
    }

    /// Has a shard flushed when this time is over; what is put until then is flushed with it.
    #[cold]
    pub(super) fn flush_within(&self, shard: &Arc<Shard>, interval: Duration) {
        if let Some(shards) = &self.to_flush
            && let Some(due) = Instant::now().checked_add(interval)
            && !shard.awaits_flush.swap(true, Ordering::AcqRel)
        {
            let _ = shards.send((due, Arc::clone(shard)));
        }
    }
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::io("start a thread for", name.as_ref(), e))
}

/// Trims when segments were finished and when it is time, until nobody can ask any more.
fn retain(trimmer: &Trimmer, asked: &Receiver<()>) {
    let mut taken = 0;
    loop {
        let interval = trimmer.interval();
        let occasion = match interval.map_or_else(
            || asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
            |interval| asked.recv_timeout(interval),
        ) {
            Ok(()) => Occasion::Roll,
            Err(RecvTimeoutError::Timeout) => Occasion::Time,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let taken_now = trimmer.room.taken();
        if occasion == Occasion::Roll && taken_now == taken {
            continue;
        }
        taken = taken_now;
        // What could not be trimmed is when there is a next time, or refused to producers.
        let _ = trimmer.trim(occasion);
    }
}

/// Flushes shards when they are due, until nobody can ask any more.
fn flush_when_due(asked: &Receiver<Due>) {
    let mut waiting: Vec<Due> = Vec::new();
    loop {
        let next = waiting.iter().map(|(due, _)| *due).min();
        let received = match next {
            Some(due) => asked.recv_deadline(due),
            None => asked.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(shard) => waiting.push(shard),
            Err(RecvTimeoutError::Timeout) => {}
            // The stream is being closed, which flushes everything.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        for (_, shard) in waiting.extract_if(.., |(due, _)| *due <= now) {
            // Whoever puts from now on asks again.
            shard.awaits_flush.store(false, Ordering::Release);
            // A failed sync has poisoned the shard, which says so to its producers.
            let _ = shard.flush();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        (self.to_maintain, self.to_flush, self.to_retain) = (None, None, None);
        for thread in self.threads.drain(..) {
            // A panic in there was reported by the panic hook.
            let _ = thread.join();
        }
    }
}
