//! Running a model in its interleavings: in all of them, or in some that chance chooses.

use std::io::Write;
#[cfg(loom)]
use std::sync::Arc;
#[cfg(loom)]
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::os::mmap_model::forget_files;

/// Runs a model in every interleaving, and says how many there are.
#[cfg(loom)]
pub(crate) fn explore(what: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_to(None, what, model);
}

/// As `explore`, but only where at most three threads are interrupted in what they do: for models
/// that have more interleavings than a short run has time for.
#[cfg(loom)]
pub(crate) fn explore_some(what: &str, model: impl Fn() + Send + Sync + 'static) {
    explore_to(Some(3), what, model);
}

#[cfg(loom)]
fn explore_to(interruptions: Option<usize>, what: &str, model: impl Fn() + Send + Sync + 'static) {
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
        forget_files();
        model();
    });
    let executions = executions.load(Ordering::Relaxed);
    let kind = if bound.is_some() { "some" } else { "all" };
    say(what, &format!("{executions} executions ({kind})"), started);
}

/// Runs a model in interleavings that chance chooses: `MILLSTREAM_SCHEDULES` says how many,
/// `MILLSTREAM_SEED` makes the same ones again. One half is chosen step by step, the other one by
/// priorities that change seldom, which finds what needs a few interruptions at the right places.
#[cfg(shuttle)]
pub(crate) fn explore(what: &str, model: impl Fn() + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};

    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect(name));
    let schedules = number("MILLSTREAM_SCHEDULES").unwrap_or(1000);
    let seed = number("MILLSTREAM_SEED").unwrap_or_else(|| crate::os::random() % 1_000_000);
    let model = move || {
        forget_files();
        model();
    };
    let model = std::sync::Arc::new(model);
    let mut config = shuttle::Config::new();
    // It takes every order for the strongest one: the others are for loom.
    config.silence_warnings = true;
    config.stack_size = 1 << 18;
    let half = schedules as usize / 2;
    let started = Instant::now();
    // Before it fails, if it does.
    say(what, &format!("{} schedules, MILLSTREAM_SEED={seed}", 2 * half), started);
    let run = std::sync::Arc::clone(&model);
    let by_step = RandomScheduler::new_from_seed(seed, half);
    shuttle::Runner::new(by_step, config.clone()).run(move || run());
    let by_priority = PctScheduler::new_from_seed(seed, 3, half);
    shuttle::Runner::new(by_priority, config).run(move || model());
    say(what, "done", started);
}

/// The same: no model is too large for chance.
#[cfg(shuttle)]
pub(crate) fn explore_some(what: &str, model: impl Fn() + Send + Sync + 'static) {
    explore(what, model);
}

fn say(what: &str, found: &str, started: Instant) {
    let ms = started.elapsed().as_millis();
    let _ = writeln!(std::io::stdout(), "{what}: {found}, {ms} ms");
}
