//! Sleep until something happens: a [`Bell`] for each thing, an [`Event`] for each sleeper.
//!
//! The one who makes news changes the state first and rings then; the one who wants to sleep
//! listens first and looks at the state then. Both take the lock of the bell in between, so one of
//! them sees the other, and no wake-up is lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// What sleepers listen to.
///
/// Whoever makes news that are seldom just rings. One who makes them all the time is told by a flag
/// of its own whether anybody listens: the flag is raised and lowered under the lock of the bell.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    listeners: Mutex<Vec<Arc<Event>>>,
}

impl Bell {
    /// Notifies and forgets every listener, and lowers the flag, if there is one. The caller has
    /// published the news before.
    #[cold]
    pub(crate) fn ring(&self, lower: impl FnOnce()) {
        let mut listeners = self.listeners.lock();
        lower();
        for event in listeners.drain(..) {
            event.notify();
        }
    }

    /// Notifies `event` at the next ring, and raises the flag, if there is one. The caller looks
    /// for news afterwards, before it sleeps.
    pub(crate) fn listen(&self, event: &Arc<Event>, raise: impl FnOnce()) {
        let mut listeners = self.listeners.lock();
        if !listeners.iter().any(|other| Arc::ptr_eq(other, event)) {
            listeners.push(Arc::clone(event));
        }
        raise();
    }

    /// Does not notify `event` any more.
    pub(crate) fn forget(&self, event: &Arc<Event>) {
        self.listeners.lock().retain(|other| !Arc::ptr_eq(other, event));
    }
}
