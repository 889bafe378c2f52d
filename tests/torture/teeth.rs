//! Seeded bugs: lines in the library's own code that are there only under `cfg(millstream_bugs)`.
//! Each one has to be caught, or the methods have no teeth.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use crate::{Run, say};

/// A way to catch a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Tests of the library whose names begin so.
    Unit(&'static str),
    /// The same with every interleaving of a few threads.
    Loom(&'static str),
    /// The same with some interleavings of many threads.
    Shuttle(&'static str),
    /// A test file.
    Test(&'static str),
    /// This program.
    Torture(&'static [&'static str]),
}
use Method::{Loom, Shuttle, Test, Torture, Unit};

const KILL: Method = Torture(&["kill", "--cycles", "300"]);
const POOLS: Method = Torture(&["pools", "--cycles", "100"]);
const POWER_CUT: Method = Torture(&["powercut", "--cycles", "300"]);
const BLOCKS: Method = Torture(&["blocks", "--images", "600"]);
const FAULTS: Method = Torture(&["faults", "--cycles", "400"]);
const MSYNC: Method = Torture(&["syscalls", "--call", "msync"]);
const OPENAT: Method = Torture(&["syscalls", "--call", "openat"]);
const SUBSETS: Method = Unit("shard::images::");

/// The bugs, what they are, and by what each is to be caught; the quickest is the first.
const BUGS: [(&str, &str, &[Method]); 20] = [
    ("ack_before_sync", "a put is acknowledged before it is synced", &[POWER_CUT, BLOCKS]),
    (
        "ack_own_bytes",
        "a sync does not wait for what others write before",
        &[Loom("group_commit"), Shuttle("shard::interleavings")],
    ),
    ("relaxed_publish", "a frame is published without an order", &[Loom("one_segment")]),
    (
        "claim_in_two_steps",
        "a claim is a load and a store",
        &[Loom("interleavings::end"), Shuttle("shard::interleavings"), KILL],
    ),
    (
        "pad_not_synced",
        "where a segment ends is not synced",
        &[Loom("group_commit"), Shuttle("group_commit"), POWER_CUT, BLOCKS],
    ),
    ("stops_at_hole", "recovery stops at the first hole", &[SUBSETS, KILL]),
    ("end_not_told", "where a torn segment ended is not told", &[SUBSETS]),
    ("salt_left_out", "checksums do not begin from the salt", &[SUBSETS]),
    (
        "sync_tried_again",
        "a failed sync is tried again",
        &[Loom("group_commit"), Shuttle("group_commit"), MSYNC],
    ),
    ("missing_on_eio", "a file that cannot be opened counts as missing", &[OPENAT]),
    ("sparse_segment", "segments are not allocated", &[Test("full_disk"), FAULTS]),
    (
        "spare_without_name",
        "the spare is used though its file is gone",
        &[Test("full_disk"), FAULTS],
    ),
    ("cut_under_a_reader", "retention empties what is being read", &[Test("retention")]),
    ("rename_not_synced", "a new manifest is not synced to its name", &[POWER_CUT, BLOCKS]),
    ("checkpoint_before_processing", "a checkpoint precedes its records", &[KILL]),
    ("slot_not_alternated", "checkpoints go to one slot", &[Unit("format::control_row")]),
    ("child_before_parent", "a child does not wait for its parents", &[KILL]),
    ("living_taken_for_gone", "a pool that is there is taken for gone", &[POOLS]),
    (
        "epoch_not_checked",
        "a checkpoint of an old owner is taken",
        &[Unit("the_old_owner"), Shuttle("a_lease")],
    ),
    ("highest_lane", "the checkpoint is that of the first lane", &[Unit("worker::tests::lanes")]),
];

pub(crate) fn run(run: &Run) -> bool {
    let only = run.option("bug", "");
    let all = run.number("all", 0) == 1;
    let with_loom = run.number("loom", 1) == 1;
    let is_chosen = |bug: &str, method| {
        (only.is_empty() || only == bug) && (with_loom || !matches!(method, Loom(_)))
    };
    let mut bugs: Vec<_> = BUGS.iter().filter(|(bug, _, how)| is_chosen(bug, how[0])).collect();
    let (some, mut random) = (run.number("some", 0) as usize, run.random());
    while some > 0 && bugs.len() > some {
        bugs.swap_remove(random.below(bugs.len() as u64) as usize);
    }
    let (mut caught, mut missed, mut skipped) = (0, 0, 0);
    for (bug, what, methods) in bugs {
        let mut outcomes = Vec::new();
        for method in *methods {
            let started = Instant::now();
            let outcome = attack(bug, *method, run.seed);
            let seconds = started.elapsed().as_secs();
            say(&format!("{bug} | {what} | {} | {outcome} | {seconds} s", name(*method)));
            outcomes.push(outcome);
            if outcomes.iter().any(Outcome::is_caught) && !all {
                break;
            }
        }
        if outcomes.iter().any(Outcome::is_caught) {
            caught += 1;
        } else if outcomes.contains(&Outcome::Skipped) {
            skipped += 1;
        } else {
            missed += 1;
        }
    }
    let figures = format!("{caught} of {} caught, {skipped} skipped", caught + missed + skipped);
    run.figure("seeded bugs", &figures);
    missed == 0
}

/// What came of a method.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Caught(String),
    Missed,
    /// This machine cannot do it.
    Skipped,
}

impl Outcome {
    fn is_caught(&self) -> bool {
        matches!(self, Self::Caught(_))
    }

    /// What a process says that has failed if there is something to be found.
    fn of(output: &Output, found: Option<&str>) -> Self {
        let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        match output.status.success() {
            false => Self::Caught(found.unwrap_or("it ends early").to_owned()),
            true if said.iter().any(|text| text.contains("SKIP ")) => Self::Skipped,
            true => Self::Missed,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caught(how) => how,
            Self::Missed => "not caught",
            Self::Skipped => "skipped",
        })
    }
}

fn name(method: Method) -> String {
    match method {
        Unit(tests) => format!("tests {tests}"),
        Loom(tests) => format!("loom {tests}"),
        Shuttle(tests) => format!("shuttle {tests}"),
        Test(file) => format!("tests/{file}.rs"),
        Torture(arguments) => arguments[0].to_owned(),
    }
}

/// Has a method look for a bug.
fn attack(bug: &str, method: Method, seed: u64) -> Outcome {
    let seed = seed.to_string();
    let (target, arguments) = match method {
        Unit(tests) | Loom(tests) | Shuttle(tests) => (&["--lib"][..], vec![tests]),
        Test(file) => (&["--test", file][..], vec![]),
        Torture(words) => {
            (&["--test", "torture"][..], [&["--"], words, &["--seed", &seed]].concat())
        }
    };
    let built = cargo("", method, &[target, &["--no-run"]].concat());
    let text = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "cannot be built:\n{text}");
    let output = cargo(bug, method, &[target, &arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    // A test that failed, or an anomaly.
    let found = text.lines().find_map(|line| match method {
        Torture(_) => line.contains(": ").then_some(line),
        _ => line.strip_suffix(" ... FAILED").map(|line| line.trim_start_matches("test ")),
    });
    Outcome::of(&output, found)
}

/// Runs cargo with a bug in the library, which is built once for all bugs: see `src/seeded.rs`.
/// The other crates are those of any build, since only this package is compiled through a wrapper,
/// which adds the configuration. Models have all bugs in any case.
fn cargo(bug: &str, method: Method, arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("timeout");
    // A bug may make it hang: that is seen, too.
    command.args(["300", "cargo", "test", "--locked"]).current_dir(root);
    command.env("MILLSTREAM_BUG", bug).env("RUST_BACKTRACE", "0");
    let model = match method {
        Loom(_) => "loom",
        Shuttle(_) => "shuttle",
        _ => {
            command.env("RUSTC_WORKSPACE_WRAPPER", wrapper(root)).arg("--all-features");
            return command.args(arguments).output().unwrap();
        }
    };
    command.arg("--release").args(arguments).env("RUSTFLAGS", format!("--cfg {model}"));
    command.env("CARGO_TARGET_DIR", root.join("target").join(model));
    command.env("LOOM_MAX_PREEMPTIONS", "2");
    command.output().unwrap()
}

/// A program that calls the compiler so that bugs can be seeded.
fn wrapper(root: &Path) -> PathBuf {
    let directory = root.join("target/teeth");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("rustc");
    // Another run may be using it.
    if !path.try_exists().unwrap() {
        fs::write(&path, "#!/bin/sh\nexec \"$@\" --cfg millstream_bugs\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    path
}
