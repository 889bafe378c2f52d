//! The two tables: what was tried how often, and which seeded bug is caught by what.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{Run, say};

/// How often something is done: for each change, and in a run of hours.
type Times = [u64; 2];

/// What this program does, and which of its options says how often.
const METHODS: [(&[&str], &str, Times); 16] = [
    (&["kill", "--durability", "sync"], "--cycles", [300, 100_000]),
    (&["kill", "--durability", "os"], "--cycles", [200, 100_000]),
    (&["pools"], "--cycles", [30, 300]),
    (&["powercut", "--disk", "ext4"], "--cycles", [100, 5000]),
    (&["powercut", "--disk", "ext4", "--options", "data=writeback"], "--cycles", [0, 5000]),
    (&["powercut", "--disk", "ext4", "--options", "data=journal"], "--cycles", [0, 5000]),
    (&["powercut", "--disk", "ext4", "--options", "commit=1"], "--cycles", [0, 5000]),
    (&["powercut", "--disk", "xfs"], "--cycles", [100, 5000]),
    (&["powercut", "--disk", "xfs", "--options", "logbsize=256k"], "--cycles", [0, 5000]),
    (&["powercut", "--disk", "xfs", "--options", "wsync"], "--cycles", [0, 5000]),
    (&["powercut", "--disk", "xfs", "--options", "allocsize=1m"], "--cycles", [0, 5000]),
    (&["blocks", "--disk", "ext4"], "--images", [100, 20_000]),
    (&["blocks", "--disk", "xfs"], "--images", [50, 2000]),
    (&["syscalls"], "--rounds", [1, 5]),
    (&["faults"], "--cycles", [100, 20_000]),
    (&["soak"], "--seconds", [10, 7200]),
];

/// Tests of the library that are told by the environment how often: what that counts, which
/// configuration they need, and their names.
const TESTS: [(&str, &str, &str, &str, Times); 4] = [
    ("images of lost pages", "", "every_subset", "MILLSTREAM_IMAGES", [20_000_000, 1_000_000_000]),
    ("masks for every byte", "", "every_flipped_byte_of_a", "MILLSTREAM_ALL_MASKS", [255, 255]),
    ("hours of pools", "", "worker::tests::simulation", "MILLSTREAM_SIMULATIONS", [50, 1000]),
    (
        "chosen interleavings of each model",
        "shuttle",
        "interleavings::",
        "MILLSTREAM_SCHEDULES",
        [0, 500_000],
    ),
];

pub(crate) fn run(run: &Run) -> bool {
    let which = usize::from(run.number("long", 0) == 1);
    let seed = run.seed.to_string();
    let (mut figures, mut is_sound) = (Vec::new(), true);
    let mut note = |(lines, succeeded): (Vec<String>, bool), what: &str| {
        is_sound &= succeeded;
        let skipped = lines.iter().find(|line| line.starts_with("SKIP "));
        let failed = format!("{what} | FAILED | |");
        let last = lines.iter().rfind(|line| line.contains(" | ")).filter(|_| succeeded);
        figures.push(last.or(skipped).cloned().unwrap_or(failed));
    };
    for (words, option, times) in METHODS.iter().filter(|method| method.2[which] > 0) {
        let times = times[which].to_string();
        let words = [words, &[*option, &times, "--seed", &seed][..]].concat();
        note(said(myself().args(&words)), &words.join(" "));
    }
    for (what, configuration, tests, variable, times) in TESTS {
        let started = Instant::now();
        let times = times[which];
        if times == 0 {
            continue;
        }
        let (mut lines, succeeded) =
            said(test(configuration, tests).env(variable, times.to_string()));
        let seconds = started.elapsed().as_secs_f64();
        lines.push(format!("{tests} | {times} {what} | | {seconds:.1} s"));
        note((lines, succeeded), tests);
    }
    let (loom, all) = (run.option("loom", "1"), which.to_string());
    let some = run.option("some", "0");
    let words = ["teeth", "--loom", loom, "--some", some, "--all", &all, "--seed", &seed];
    let (bugs, all_caught) = said(myself().args(words));
    say(&format!("\n{}\n", machine()));
    table(["figure", "run", "", ""], &figures);
    table(["bug", "what it is", "by", "caught", ""], &bugs);
    is_sound && all_caught
}

fn myself() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Cargo, for some tests of the library in this configuration.
fn test(configuration: &str, tests: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("cargo");
    command.args(["test", "--locked", "--release", "--lib", tests]).current_dir(root);
    if !configuration.is_empty() {
        command.env("RUSTFLAGS", format!("--cfg {configuration}"));
        command.env("CARGO_TARGET_DIR", root.join("target").join(configuration));
    }
    command
}

/// The lines that a command says, which are said on, and whether it succeeds.
fn said(command: &mut Command) -> (Vec<String>, bool) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        say(&line);
        lines.push(line);
    }
    (lines, child.wait().unwrap().success())
}

/// When, of what, and where.
fn machine() -> String {
    let output = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).output();
        output
            .map_or_else(|_| "?".into(), |it| String::from_utf8_lossy(&it.stdout).trim().to_owned())
    };
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    format!(
        "{}, commit {}, {} cores of {}, Linux {}",
        output("date", &["-u", "+%Y-%m-%d %H:%M"]),
        output("git", &["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"]),
        std::thread::available_parallelism().map_or(0, usize::from),
        model.unwrap_or("?").trim_start_matches([' ', '\t', ':']),
        output("uname", &["-r"]),
    )
}

/// A table of these lines, but for those that have no columns.
fn table<const COLUMNS: usize>(head: [&str; COLUMNS], lines: &[String]) {
    say(&format!("| {} |", head.join(" | ")));
    say(&format!("|{}", "---|".repeat(COLUMNS)));
    for line in lines.iter().filter(|line| line.contains(" | ") || line.starts_with("SKIP")) {
        say(&format!("| {line} |"));
    }
    say("");
}
