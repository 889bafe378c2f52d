//! Durability: how far the log is on the disk, and waiting for it.
//!
//! One thread syncs at a time, without a lock; those who come meanwhile sleep, and the next sync
//! serves all of them (group commit). When a sync is done, one of those whom it did not serve is
//! woken first, and syncs for all of them while those whom it served are woken: the disk does not
//! wait for that. Only what is published without a gap is synced and counted: a record is not
//! durable as long as recovery could end before it.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::os::signal::Event;
use crate::os::sync::atomic::{AtomicU64, Ordering};
use crate::os::sync::{Mutex, MutexGuard};
use crate::position::ShardId;
use crate::seeded::bug;

/// How far a shard is durable.
#[derive(Debug)]
pub(crate) struct Watermark {
    shard: ShardId,
    /// Everything below is on the disk. Written by the thread that syncs, after its sync; read by
    /// producers, who note it in their frames, and by waiters. It only rises, and says nothing
    /// about other memory: relaxed order suffices for the notes, and waiters take the lock.
    durable: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    syncing: bool,
    /// What the sync said that failed: from then on nothing is certain any more.
    failed: Option<String>,
    /// Who sleeps until everything below an address is durable. As long as there is anybody, some
    /// thread syncs, or is woken to.
    waiting: Vec<(u64, Arc<Event>)>,
}

impl Watermark {
    /// A shard of which everything below `durable` is on the disk.
    pub(crate) fn new(shard: ShardId, durable: u64) -> Self {
        Self { shard, durable: AtomicU64::new(durable), state: Mutex::default() }
    }

    /// Everything below is on the disk.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.durable.load(Ordering::Relaxed)
    }

    /// Returns when everything below `address` is durable. `sync` is called by one thread at a
    /// time: it makes durable what it can, at least up to `address`, and says how far it came.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync has failed, now or before.
    pub(crate) fn raise_to(
        &self,
        address: u64,
        sync: impl FnOnce(u64) -> Result<u64>,
    ) -> Result<()> {
        let mut event: Option<Arc<Event>> = None;
        let mut state = self.state.lock();
        loop {
            if let Some(cause) = &state.failed {
                return Err(self.poisoned(cause.clone()));
            }
            if self.get() >= address {
                return Ok(());
            }
            if !state.syncing {
                break;
            }
            let event = event.get_or_insert_default();
            state.waiting.push((address, Arc::clone(event)));
            drop(state);
            event.wait_for(Duration::MAX);
            state = self.state.lock();
        }
        state.syncing = true;
        drop(state);
        let result = sync(self.get());
        let mut state = self.state.lock();
        state.syncing = false;
        let outcome = match result {
            Ok(durable) => {
                self.durable.store(durable, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => {
                let cause = error.to_string();
                if !bug("sync_tried_again") {
                    state.failed = Some(cause.clone());
                }
                Err(self.poisoned(cause))
            }
        };
        self.wake(state);
        outcome
    }

    /// Wakes those who have nothing to wait for any more, and first of all one of the others, who
    /// is to sync for the rest.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let (failed, durable) = (state.failed.is_some(), self.get());
        let (done, mut others): (Vec<_>, Vec<_>) =
            state.waiting.drain(..).partition(|(address, _)| failed || *address <= durable);
        let next = others.pop();
        state.waiting = others;
        drop(state);
        next.into_iter().chain(done).for_each(|(_, event)| event.notify());
    }

    /// From now on nothing is certain any more.
    pub(crate) fn poison(&self, cause: String) {
        let mut state = self.state.lock();
        state.failed.get_or_insert(cause);
        self.wake(state);
    }

    /// Whether a sync has failed.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if so.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.state.lock().failed {
            Some(cause) => Err(self.poisoned(cause.clone())),
            None => Ok(()),
        }
    }

    fn poisoned(&self, cause: String) -> Error {
        Error::Poisoned { shard: self.shard, durable: self.get().into(), cause }
    }
}
