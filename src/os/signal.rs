//! Sleep until something happens: a [`Bell`] for each thing, an [`Event`] for each sleeper.
//!
//! The one who makes news changes the state first and rings then; the one who wants to sleep
//! listens first and looks at the state then. With a full fence between the two steps on both
//! sides, one of them sees the other: no wake-up is lost, and a ring without sleepers is one load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::os::sync::atomic::{AtomicUsize, Ordering, fence};
use crate::os::sync::{Condvar, Mutex};

/// What one sleeper sleeps on.
#[derive(Debug, Default)]
pub(crate) struct Event {
    happened: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    /// Ends the wait that is on, or the next one at once.
    pub(crate) fn notify(&self) {
        *self.happened.lock() = true;
        self.changed.notify_one();
    }

    /// Sleeps until a notification, which it consumes; false if there was none by `deadline`.
    pub(crate) fn wait_until(&self, deadline: Instant) -> bool {
        let mut happened = self.happened.lock();
        while !*happened {
            if self.changed.wait_until(&mut happened, deadline).timed_out() {
                break;
            }
        }
        std::mem::take(&mut *happened)
    }

    /// As `wait_until`, with a time from now on.
    pub(crate) fn wait_for(&self, timeout: Duration) -> bool {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(deadline),
            None => {
                let mut happened = self.happened.lock();
                self.changed.wait_while(&mut happened, |happened| !*happened);
                std::mem::take(&mut *happened)
            }
        }
    }
}

/// Rings when it is dropped, in a panic too.
#[derive(Debug)]
pub(crate) struct RingAtLast<'a>(&'a Bell);

impl Drop for RingAtLast<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.ring_fenced();
    }
}

/// What sleepers listen to.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// The length of `listeners`. Written under its lock; read by every ring without it: the
    /// fences in `ring` and `listen` order it against the news.
    sleepers: AtomicUsize,
    listeners: Mutex<Vec<Arc<Event>>>,
}

impl Bell {
    /// Notifies and forgets every listener. The caller has published the news before.
    pub(crate) fn ring(&self) {
        fence(Ordering::SeqCst);
        self.ring_fenced();
    }

    /// As `ring`, for a caller whose news was published by a sequentially consistent
    /// read-modify-write. That is no fence, but this load comes behind it in the one order of all
    /// sequentially consistent operations, in which `listen` has its fence.
    #[inline]
    pub(crate) fn ring_fenced(&self) {
        // Models take such operations for less than they are.
        #[cfg(loom)]
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.notify_all();
        }
    }

    /// Does `ring_fenced` when it is dropped.
    #[inline]
    pub(crate) fn ring_at_last(&self) -> RingAtLast<'_> {
        RingAtLast(self)
    }

    #[cold]
    fn notify_all(&self) {
        let mut listeners = self.listeners.lock();
        self.sleepers.store(0, Ordering::Relaxed);
        for event in listeners.drain(..) {
            event.notify();
        }
    }

    /// Notifies `event` at the next ring. The caller looks for news afterwards, before it sleeps.
    pub(crate) fn listen(&self, event: &Arc<Event>) {
        let mut listeners = self.listeners.lock();
        if !listeners.iter().any(|other| Arc::ptr_eq(other, event)) {
            listeners.push(Arc::clone(event));
            self.sleepers.store(listeners.len(), Ordering::Relaxed);
        }
        drop(listeners);
        fence(Ordering::SeqCst);
    }

    /// Does not notify `event` any more.
    pub(crate) fn forget(&self, event: &Arc<Event>) {
        let mut listeners = self.listeners.lock();
        listeners.retain(|other| !Arc::ptr_eq(other, event));
        self.sleepers.store(listeners.len(), Ordering::Relaxed);
    }
}
