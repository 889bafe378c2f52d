//! Wakes tasks a moment later: those that have to look again because nobody rings for them.
//!
//! A thread does it that is there as long as tasks want it. What it holds of a task that was given
//! up meanwhile is gone with the next tick.

use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

/// How long a task sleeps before it looks again.
const TICK: Duration = Duration::from_millis(1);

struct Sleepers {
    tasks: Vec<Waker>,
    has_thread: bool,
}

static SLEEPERS: Mutex<Sleepers> = Mutex::new(Sleepers { tasks: Vec::new(), has_thread: false });

/// Wakes the task soon.
pub(crate) fn wake_soon(task: &Waker) {
    let mut sleepers = SLEEPERS.lock();
    if !sleepers.tasks.iter().any(|other| other.will_wake(task)) {
        sleepers.tasks.push(task.clone());
    }
    if !sleepers.has_thread {
        let thread = std::thread::Builder::new().name("millstream-alarm".into());
        sleepers.has_thread = thread.spawn(tick).is_ok();
    }
    if !sleepers.has_thread {
        // Without a thread, it looks again at once.
        drop(sleepers);
        task.wake_by_ref();
    }
}

fn tick() {
    loop {
        std::thread::sleep(TICK);
        let mut sleepers = SLEEPERS.lock();
        let tasks = std::mem::take(&mut sleepers.tasks);
        sleepers.has_thread = !tasks.is_empty();
        drop(sleepers);
        if tasks.is_empty() {
            return;
        }
        tasks.into_iter().for_each(Waker::wake);
    }
}
