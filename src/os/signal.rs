//! Sleep until something happens: a [`Bell`] for each thing, an [`Event`] for each sleeper.
//!
//! The one who makes news changes the state first and rings then; the one who wants to sleep
//! listens first and looks at the state then. Both take the lock of the bell in between, so one of
//! them sees the other, and no wake-up is lost.

use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::os::sync::{Condvar, Mutex};

/// What one sleeper sleeps on: a thread, or a task that is woken instead.
#[derive(Debug, Default)]
pub(crate) struct Event {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    happened: bool,
    /// The task that sleeps.
    task: Option<Waker>,
}

impl Event {
    /// Ends the wait that is on, or the next one at once.
    pub(crate) fn notify(&self) {
        if let Some(task) = self.happen() {
            task.wake();
        }
    }

    /// As `notify`, but the caller wakes the task, if one sleeps.
    fn happen(&self) -> Option<Waker> {
        let mut state = self.state.lock();
        state.happened = true;
        self.changed.notify_one();
        state.task.take()
    }

    /// Whether there was a notification, which it consumes; if not, the next one wakes the task.
    #[cfg(feature = "async")]
    pub(crate) fn has_happened_or_wakes(&self, task: &Waker) -> bool {
        let mut state = self.state.lock();
        if !state.happened {
            state.task = Some(task.clone());
        }
        std::mem::take(&mut state.happened)
    }

    /// Sleeps until a notification, which it consumes; false if there was none by `deadline`.
    pub(crate) fn wait_until(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.happened {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        std::mem::take(&mut state.happened)
    }

    /// As `wait_until`, with a time from now on.
    pub(crate) fn wait_for(&self, timeout: Duration) -> bool {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(deadline),
            None => {
                let mut state = self.state.lock();
                self.changed.wait_while(&mut state, |state| !state.happened);
                std::mem::take(&mut state.happened)
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
        let tasks: Vec<Waker> = listeners.drain(..).filter_map(|event| event.happen()).collect();
        drop(listeners);
        // Whoever runs the tasks may run them right here, and they may listen again.
        tasks.into_iter().for_each(Waker::wake);
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
