//! The repository attacks itself: a stream is killed, cut off from power, refused by the system and
//! kept busy, and every history of it goes through one checker.
//!
//! ```text
//! cargo test --release --features torture --test torture -- kill --cycles 1000
//! ```
//!
//! Every run says its seed; the same seed makes the same choices again (how far a process got
//! before it was killed is the machine's choice). It uses the public API alone.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a finding")]

#[path = "../common/mod.rs"]
mod common;

mod blocks;
mod disk;
mod faults;
mod figures;
mod kill;
mod life;
mod pools;
mod random;
mod recorder;
mod soak;
mod syscalls;
mod teeth;
mod victim;

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use random::Random;

const USAGE: &str = "\
usage: torture METHOD [--seed N] [--NAME VALUE]...
  kill      [--cycles 20] [--durability os|sync]    kill processes that put, work and reshard
  pools     [--cycles 30]                           kill processes that share a stream
  powercut  [--cycles 20] [--disk ext4|xfs] [--options MOUNT_OPTIONS]
                                                    the same, and cut their disk off from power
  blocks    [--images 24] [--disk ext4|xfs]         cut it off with any of its last writes done
  syscalls  [--rounds 1] [--call NAME]              have each call to the system fail once
  faults    [--cycles 40]                           have too little room, descriptors, memory
  soak      [--seconds 5]                           producers, workers, reshards, restarts
  teeth     [--bug NAME] [--some N] [--all 1] [--loom 0]
                                                    which seeded bug is caught by what
  figures   [--long 1] [--some N] [--loom 0]        all of it, and the two tables of it";

/// What a method is told, and what it says.
pub(crate) struct Run {
    options: BTreeMap<String, String>,
    pub(crate) seed: u64,
    started: Instant,
}

impl Run {
    /// An option, or what it is if nothing is said.
    fn option<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.options.get(name).map_or(default, String::as_str)
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        let number = |text: &String| text.parse().unwrap_or_else(|_| panic!("--{name} {text}"));
        self.options.get(name).map_or(default, number)
    }

    fn random(&self) -> Random {
        Random::new(self.seed)
    }

    /// Says a line of the table of figures.
    fn figure(&self, what: &str, figures: &str) {
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!("{what} | {figures} | seed {} | {seconds:.1} s", self.seed));
    }
}

/// Says something to whoever has started this.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let method = arguments.next().unwrap_or_default();
    if method == "victim" {
        return victim::run(arguments);
    }
    let mut options = BTreeMap::new();
    while let Some(name) = arguments.next() {
        if let (Some(name), Some(value)) = (name.strip_prefix("--"), arguments.next()) {
            options.insert(name.to_owned(), value);
        }
    }
    let seed = options.get("seed").map_or_else(random::seed, |seed| seed.parse().unwrap());
    let run = Run { options, seed, started: Instant::now() };
    let is_sound = match method.as_str() {
        "kill" => kill::kill(&run),
        "pools" => pools::run(&run),
        "powercut" => kill::power_cut(&run),
        "blocks" => blocks::run(&run),
        "syscalls" => syscalls::run(&run),
        "faults" => faults::run(&run),
        "soak" => soak::run(&run),
        "teeth" => teeth::run(&run),
        "figures" => figures::run(&run),
        // So that a plain `cargo test` with all features tries it, whatever it filters.
        "" => kill::kill(&run),
        _ => {
            say(USAGE);
            true
        }
    };
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
