//! The life of a pool: whether it goes on, and how those learn of a change who wait for one. All
//! streams of the pool share it.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::os::signal::Event;

/// The life of a pool, or of its work on one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    #[default]
    Consuming,
    /// Each worker stops when its callback returns.
    Stopping,
    /// As before, but the owner waits no more, so that no other callback is called.
    Abandoned,
    /// All workers are gone.
    Finished,
}

#[derive(Debug, Default)]
pub(super) struct Life {
    now: Mutex<Now>,
    /// Rung with each new version.
    changed: Condvar,
    /// What the thread of the supervisors sleeps on.
    pub(super) supervisors: Arc<Event>,
}

#[derive(Debug, Default)]
struct Now {
    /// Counts the changes of states and stages.
    version: u64,
    stage: Stage,
}

impl Life {
    pub(super) fn stage(&self) -> Stage {
        self.now.lock().stage
    }

    /// Goes on to a later stage.
    pub(super) fn enter(&self, stage: Stage) {
        let mut now = self.now.lock();
        now.stage = now.stage.max(stage);
        drop(now);
        self.change();
        self.supervisors.notify();
    }

    /// Tells those who wait that something has changed.
    pub(super) fn change(&self) {
        self.now.lock().version += 1;
        self.changed.notify_all();
    }

    /// To be asked for before that is looked at which may change.
    pub(super) fn version(&self) -> u64 {
        self.now.lock().version
    }

    /// Waits for a version after this one; false if there was none by the deadline, which is never
    /// if there is none.
    pub(super) fn wait_for_change(&self, version: u64, deadline: Option<Instant>) -> bool {
        let mut now = self.now.lock();
        while now.version == version {
            match deadline {
                None => self.changed.wait(&mut now),
                Some(deadline) => {
                    if self.changed.wait_until(&mut now, deadline).timed_out() {
                        return now.version != version;
                    }
                }
            }
        }
        true
    }

    /// Waits until it is so; false if it is not by the deadline.
    pub(super) fn wait_until(&self, is_so: impl Fn() -> bool, deadline: Option<Instant>) -> bool {
        loop {
            let version = self.version();
            if is_so() {
                return true;
            }
            if !self.wait_for_change(version, deadline) {
                return is_so();
            }
        }
    }
}
