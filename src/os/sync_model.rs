//! Locks for models: loom's, with the interface of those that are used otherwise. Nothing times
//! out here, so a wake-up that is lost is found as a deadlock.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// Runs a model in every interleaving, and says how many there are.
#[cfg(test)]
pub(crate) fn explore(what: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_to(None, what, model);
}

/// As `explore`, but only where at most three threads are interrupted in what they do: for models
/// that have more interleavings than a short run has time for.
#[cfg(test)]
pub(crate) fn explore_some(what: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_to(Some(3), what, model);
}

#[cfg(test)]
fn explore_to(interruptions: Option<usize>, what: &str, model: impl Fn() + Send + Sync + 'static) {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let executions = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    // The environment may set a bound for all models: LOOM_MAX_PREEMPTIONS.
    let bounds = [interruptions, builder.preemption_bound];
    builder.preemption_bound = bounds.into_iter().flatten().min();
    let bound = builder.preemption_bound;
    let started = Instant::now();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        crate::os::mmap_model::forget_files();
        model();
    });
    let (executions, ms) = (executions.load(Ordering::Relaxed), started.elapsed().as_millis());
    let kind = if bound.is_some() { "some" } else { "all" };
    let _ = writeln!(std::io::stdout(), "{what}: {executions} executions ({kind}), {ms} ms");
}

const UNPOISONED: &str = "nobody panics with a lock in a model";

/// A lock without poison.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

/// A lock that is held, except while its holder waits.
pub(crate) struct MutexGuard<'a, T>(Option<loom::sync::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
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
pub(crate) struct Condvar(loom::sync::Condvar);

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
