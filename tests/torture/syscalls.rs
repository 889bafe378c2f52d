//! Every call to the system that millstream depends on fails once, with every error that it may
//! have: what follows is the work as ever, or an error; never a lie, a panic or a hang.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Run;
use crate::common::files::scratch;
use crate::disk::{self, Disk};
use crate::life::{Doom, Life};
use crate::say;
use crate::victim::{KEYS, Orders};

/// Calls and the errors that they are made to have.
const CALLS: [(&str, &[&str]); 16] = [
    ("msync", &["EIO", "ENOMEM"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fallocate", &["ENOSPC", "EIO", "EINTR"]),
    ("openat", &["EMFILE", "EIO", "EACCES"]),
    ("mkdir", &["ENOSPC", "EIO"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("unlink", &["EIO"]),
    ("flock", &["EIO"]),
    ("mmap", &["ENOMEM"]),
    ("munmap", &["EINVAL"]),
    ("madvise", &["EINVAL"]),
    ("pwrite64", &["ENOSPC", "EIO"]),
    ("pread64", &["EIO"]),
    ("read", &["EIO"]),
    ("statx", &["EIO"]),
    ("getdents64", &["EIO"]),
];
/// Longer than any process here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of all failures.
#[derive(Default)]
struct Sum {
    failures: u64,
    went_on: u64,
    refused: u64,
    acknowledged: u64,
}

pub(crate) fn run(run: &Run) -> bool {
    // Without a disk to be cut off from power, what a failed sync has left is still there.
    if disk::mounts_are_possible().is_ok()
        && let Some(outcome) = disk::in_own_mounts("syscalls")
    {
        return outcome;
    }
    if Command::new("strace").arg("-V").output().is_err() {
        return disk::skip("syscalls", "there is no strace");
    }
    let (mut random, mut sum) = (run.random(), Sum::default());
    let only = run.option("call", "");
    let calls = CALLS.into_iter().filter(|(call, _)| only.is_empty() || *call == only);
    for _ in 0..run.number("rounds", 1) {
        let seed = random.next();
        for (call, errors) in calls.clone() {
            for error in errors {
                for when in 1.. {
                    match fail_once(seed, call, error, when, &mut sum) {
                        Some(true) => {}
                        Some(false) => return false,
                        // It is not called so often.
                        None => break,
                    }
                }
            }
        }
    }
    let Sum { failures, went_on, refused, acknowledged } = sum;
    run.figure(
        "n-th system call fails",
        &format!(
            "{failures} failures of {} calls, {went_on} without consequence, {refused} refused, \
             {acknowledged} acknowledged, 0 anomalies",
            calls.count()
        ),
    );
    true
}

/// The same work each time, except for what threads make of it.
fn orders(seed: u64, life: &Life) -> Orders {
    Orders {
        process: 0,
        seed,
        producers: 1,
        shards: 2,
        sync: 30,
        works: true,
        reshards: false,
        puts: 60,
        next: (0..KEYS).map(|key| life.history.next(key)).collect(),
    }
}

/// Has one call fail, and the power as well; none if the call was not made so often.
fn fail_once(seed: u64, call: &str, error: &str, when: u32, sum: &mut Sum) -> Option<bool> {
    let what = format!("{call} {error} #{when}");
    // What was not synced, because a sync failed, has to be gone: then a lie shows.
    let disk = Disk::new("ext4", "").ok();
    let memory = scratch();
    let base = disk.as_ref().map_or(memory.path().to_owned(), Disk::path);
    let mut life = Life::new(&base.join("stream"));
    // There is something to be opened, recovered, gone on with.
    life.live(&orders(seed, &life), &Doom::At("ack", 30));
    life.check(false);
    let log = memory.path().join("strace");
    let ended = life.live_under(
        strace(call, error, when, &log),
        &orders(seed, &life),
        &Doom::Never(PATIENCE),
        |_| (),
    );
    let traced = std::fs::read_to_string(&log).unwrap_or_default();
    if !traced.contains("INJECTED") {
        return None;
    }
    sum.failures += 1;
    if ended.hung {
        life.wrong("it hangs");
    }
    // Without memory the standard library gives up, and so does the victim without its threads.
    if ended.error.contains("panicked at src/") {
        life.wrong(&ended.error);
    }
    *(if ended.error.is_empty() { &mut sum.went_on } else { &mut sum.refused }) += 1;
    if let Some(disk) = &disk {
        disk.cut_power();
    }
    life.check(disk.is_some());
    life.finish();
    sum.acknowledged += life.history.acknowledged;
    if !life.is_sound(&what) {
        say(&format!("{what}: said {:?}", ended.error));
        return Some(false);
    }
    Some(true)
}

/// This program under strace, with one call of it failing.
fn strace(call: &str, error: &str, when: u32, log: &Path) -> Command {
    let mut command = Command::new("strace");
    command
        .args(["-f", "-qq", "--seccomp-bpf", "-o"])
        .arg(log)
        .arg("-e")
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:error={error}:when={when}"))
        .arg(std::env::current_exe().unwrap());
    command
}
