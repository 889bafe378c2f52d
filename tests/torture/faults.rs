//! Processes that run out of what they need: room on the disk, descriptors, sizes of files, memory,
//! or the right to write. They may be refused, and they may end; nothing that was acknowledged may
//! be lost by it, and whoever comes later with enough of it goes on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::Run;
use crate::common::files::scratch;
use crate::disk::{self, run as call};
use crate::life::{Doom, Life};
use crate::random::Random;

/// So many processes share a stream, one after the other; then a new one begins.
const CYCLES_OF_A_LIFE: u64 = 8;
/// Longer than any process here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What there is too little of.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Of room on the disk: so many KiB.
    Room(u64),
    Descriptors(u64),
    /// Files have no more bytes than this.
    FileSize(u64),
    /// Of room for maps and all else in memory: so many bytes.
    Memory(u64),
    /// Nothing may be written.
    ReadOnly,
}

impl Fault {
    fn new(random: &mut Random, has_disk: bool) -> Self {
        match random.below(if has_disk { 5 } else { 3 }) {
            0 => Self::Descriptors(3 + random.below(40)),
            1 => Self::FileSize(random.below(96) << 10),
            2 => Self::Memory((16 + random.below(120)) << 20),
            3 => Self::Room(300 + random.below(3000)),
            _ => Self::ReadOnly,
        }
    }

    /// This program, with too little of it.
    fn command(self) -> Command {
        let limit = match self {
            Self::Descriptors(count) => format!("--nofile={count}"),
            Self::FileSize(bytes) => format!("--fsize={bytes}"),
            Self::Memory(bytes) => format!("--as={bytes}"),
            Self::Room(_) | Self::ReadOnly => "--core=0".into(),
        };
        let mut command = Command::new("prlimit");
        command.arg(limit).arg(std::env::current_exe().unwrap());
        command
    }
}

/// A file system in memory, whose size can be changed.
struct Memory {
    directory: TempDir,
    is_mounted: bool,
}

impl Memory {
    /// Only a directory if nothing can be mounted.
    fn new() -> Self {
        let directory = scratch();
        let path = directory.path().to_str().unwrap().to_owned();
        let is_mounted = disk::in_own_mounts_now()
            && call("mount", &["-t", "tmpfs", "-o", "size=1g", "none", &path]).is_ok();
        Self { directory, is_mounted }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn remount(&self, options: &str) {
        if self.is_mounted {
            let options = format!("remount,{options}");
            call("mount", &["-o", &options, self.path().to_str().unwrap()]).unwrap();
        }
    }

    /// Leaves so much room beside what is there.
    fn leave(&self, kib: u64) {
        let stat = rustix::fs::statvfs(self.path()).unwrap();
        let used_kib = (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024;
        self.remount(&format!("rw,size={}k", used_kib + kib));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.is_mounted {
            call("umount", &[self.path().to_str().unwrap()]).unwrap();
        }
    }
}

/// What was seen in all lives.
#[derive(Default)]
struct Sum {
    cycles: u64,
    refused: u64,
    acknowledged: u64,
    broken: u64,
}

pub(crate) fn run(run: &Run) -> bool {
    if disk::mounts_are_possible().is_ok()
        && let Some(outcome) = disk::in_own_mounts("faults")
    {
        return outcome;
    }
    if let Err(why) = call("prlimit", &["--version"]) {
        return disk::skip("faults", &why);
    }
    let (mut random, mut sum) = (run.random(), Sum::default());
    let cycles = run.number("cycles", 40);
    while sum.cycles < cycles && sum.broken == 0 {
        one_life(cycles, &mut random, &mut sum);
    }
    let Sum { cycles, refused, acknowledged, broken } = sum;
    run.figure(
        "too little of something",
        &format!(
            "{cycles} processes, {refused} refused something, {acknowledged} acknowledged, \
             {broken} streams with anomalies"
        ),
    );
    broken == 0
}

/// A stream through many processes that have too little of something, and one that has enough.
fn one_life(cycles: u64, random: &mut Random, sum: &mut Sum) {
    let memory = Memory::new();
    let stream: PathBuf = memory.path().join("stream");
    let mut life = Life::new(&stream);
    let mut what = String::new();
    for _ in 0..CYCLES_OF_A_LIFE.min(cycles - sum.cycles) {
        let fault = Fault::new(random, memory.is_mounted);
        what = format!("cycle {}, {fault:?}", sum.cycles);
        match fault {
            Fault::Room(kib) => memory.leave(kib),
            Fault::ReadOnly => memory.remount("ro"),
            _ => {}
        }
        let mut orders = life.orders(random, 10);
        let ends_by_itself = random.percent(30);
        let doom = if ends_by_itself {
            orders.puts = 300;
            Doom::Never(PATIENCE)
        } else {
            Doom::After(Duration::from_millis(5 + random.below(60)))
        };
        let ended = life.live_under(fault.command(), &orders, &doom, |_| ());
        memory.remount("rw,size=1g");
        if ended.hung {
            life.wrong("it hangs");
        }
        if ended.error.contains("panicked at src/") {
            life.wrong(&ended.error);
        }
        sum.refused += u64::from(!ended.error.is_empty());
        sum.cycles += 1;
        if !life.check(false) {
            break;
        }
    }
    life.finish();
    sum.acknowledged += life.history.acknowledged;
    sum.broken += u64::from(!life.is_sound(&what));
}
