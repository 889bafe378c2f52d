//! Seeded bugs: lines in the library's own code that are there only under `cfg(millstream_bug)`.
//! Each one has to be caught, or the methods have no teeth.

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
    /// A test file.
    Test(&'static str),
    /// This program.
    Torture(&'static [&'static str]),
}
use Method::{Loom, Test, Torture, Unit};

const KILL: Method = Torture(&["kill", "--cycles", "300"]);
const POWER_CUT: Method = Torture(&["powercut", "--cycles", "300"]);
const SYSCALLS: Method = Torture(&["syscalls"]);
const LOOM: Method = Loom("loom_tests::");
const SUBSETS: Method = Unit("shard::images::");

/// The bugs, what they are, and by what each is to be caught.
const BUGS: [(&str, &str, &[Method]); 17] = [
    ("ack_before_sync", "a put is acknowledged before it is synced", &[POWER_CUT]),
    ("ack_own_bytes", "a sync does not wait for what others write before", &[LOOM]),
    ("relaxed_publish", "a frame is published without an order", &[LOOM]),
    ("claim_in_two_steps", "a claim is a load and a store", &[LOOM, KILL]),
    ("pad_not_synced", "where a segment ends is not synced", &[LOOM, POWER_CUT]),
    ("stops_at_hole", "recovery stops at the first hole", &[SUBSETS, KILL]),
    ("end_not_told", "where a torn segment ended is not told", &[SUBSETS]),
    ("salt_left_out", "checksums do not begin from the salt", &[SUBSETS]),
    ("sync_tried_again", "a failed sync is tried again", &[LOOM, SYSCALLS]),
    ("missing_on_eio", "a file that cannot be opened counts as missing", &[SYSCALLS]),
    ("sparse_segment", "segments are not allocated", &[Test("full_disk")]),
    ("spare_without_name", "the spare is used though its file is gone", &[Test("full_disk")]),
    ("rename_not_synced", "a new manifest is not synced to its name", &[POWER_CUT]),
    ("checkpoint_before_processing", "a checkpoint precedes its records", &[KILL]),
    ("slot_not_alternated", "checkpoints go to one slot", &[Unit("format::control_row")]),
    ("child_before_parent", "a child does not wait for its parents", &[KILL]),
    ("epoch_not_checked", "a checkpoint of an old owner is taken", &[Unit("worker::")]),
];

pub(crate) fn run(run: &Run) -> bool {
    let only = run.option("bug", "");
    let all = run.number("all", 0) == 1;
    let with_loom = run.number("loom", 1) == 1;
    let is_chosen = |bug: &str, method| {
        (only.is_empty() || only == bug) && (with_loom || !matches!(method, Loom(_)))
    };
    let (mut caught, mut tried) = (0, 0);
    for (bug, what, methods) in BUGS.iter().filter(|(bug, _, how)| is_chosen(bug, how[0])) {
        tried += 1;
        let mut is_caught = false;
        for method in *methods {
            let started = Instant::now();
            let how = attack(bug, *method, run.seed);
            let seconds = started.elapsed().as_secs();
            let how_it_went = how.as_deref().unwrap_or("not caught");
            say(&format!("{bug} | {what} | {} | {how_it_went} | {seconds} s", name(*method)));
            is_caught |= how.is_some();
            if is_caught && !all {
                break;
            }
        }
        caught += u64::from(is_caught);
    }
    run.figure("seeded bugs", &format!("{caught} of {tried} caught"));
    caught == tried
}

fn name(method: Method) -> String {
    match method {
        Unit(tests) | Loom(tests) => {
            let kind = if method == LOOM { "loom" } else { "tests" };
            format!("{kind} {tests}")
        }
        Test(file) => format!("tests/{file}.rs"),
        Torture(arguments) => arguments[0].to_owned(),
    }
}

/// How a bug is caught; none if it is not.
fn attack(bug: &str, method: Method, seed: u64) -> Option<String> {
    let build = |arguments: &[&str]| {
        let built = cargo(bug, method, &[arguments, &["--no-run"]].concat());
        let text = String::from_utf8_lossy(&built.stderr).into_owned();
        assert!(built.status.success(), "{bug} cannot be built:\n{text}");
    };
    match method {
        Unit(tests) | Loom(tests) => {
            let arguments = ["test", "--locked", "--lib"];
            build(&arguments);
            failed_test(&cargo(bug, method, &[&arguments[..], &[tests]].concat()))
        }
        Test(file) => {
            let arguments = ["test", "--locked", "--test", file];
            build(&arguments);
            failed_test(&cargo(bug, method, &arguments))
        }
        Torture(words) => {
            let target = ["test", "--locked", "--features", "torture", "--test", "torture"];
            build(&target);
            let seed = seed.to_string();
            let mut arguments = [&target[..], &["--"], words].concat();
            arguments.extend(["--seed", &seed]);
            let ran = cargo(bug, method, &arguments);
            let text = String::from_utf8_lossy(&ran.stdout);
            let found = text.lines().find(|line| line.contains(": "));
            (!ran.status.success()).then(|| found.unwrap_or("it does not run").to_owned())
        }
    }
}

/// The first test that failed.
fn failed_test(output: &Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let failed = text.lines().find_map(|line| line.strip_suffix(" ... FAILED"));
    let failed = failed.map(|line| line.trim_start_matches("test ").to_owned());
    (!output.status.success()).then(|| failed.unwrap_or("the tests end early".into()))
}

/// Runs cargo with a bug in the library. The other crates are built once for all bugs: only this
/// package is compiled through a wrapper, which adds the configuration.
fn cargo(bug: &str, method: Method, arguments: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("timeout");
    // A bug may make it hang: that is seen, too.
    command.arg("300").arg("cargo").args(arguments).current_dir(root);
    command.env("RUSTC_WORKSPACE_WRAPPER", wrapper(root, bug)).env("RUST_BACKTRACE", "0");
    if let Loom(_) = method {
        command.args(["--release"]).env("RUSTFLAGS", "--cfg loom");
        command.env("CARGO_TARGET_DIR", root.join("target/loom"));
        command.env("LOOM_MAX_PREEMPTIONS", "2");
    }
    command.output().unwrap()
}

/// A program that calls the compiler with a bug.
fn wrapper(root: &Path, bug: &str) -> PathBuf {
    let directory = root.join("target/teeth");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(bug);
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'millstream_bug=\"{bug}\"'\n");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}
