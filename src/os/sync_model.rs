//! Locks for models: those of loom or shuttle, with the interface of those that are used otherwise.
//! Nothing times out here, so a wake-up that is lost is found as a deadlock.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

#[cfg(loom)]
pub(crate) use loom as engine;
#[cfg(shuttle)]
pub(crate) use shuttle as engine;

const UNPOISONED: &str = "nobody panics with a lock in a model";

/// A lock without poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(engine::sync::Mutex<T>);

/// A lock that is held, except while its holder waits.
pub(crate) struct MutexGuard<'a, T>(Option<engine::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(engine::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().expect(UNPOISONED)))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is held")
    }
}

/// What threads wait on with a lock.
#[derive(Debug, Default)]
pub(crate) struct Condvar(engine::sync::Condvar);

/// Whether a wait timed out: never.
pub(crate) struct WaitTimeoutResult;

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        false
    }
}

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("it is held");
        guard.0 = Some(self.0.wait(held).expect(UNPOISONED));
    }

    pub(crate) fn wait_while<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) {
        while condition(guard) {
            self.wait(guard);
        }
    }

    pub(crate) fn wait_until<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        _deadline: Instant,
    ) -> WaitTimeoutResult {
        self.wait(guard);
        WaitTimeoutResult
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
