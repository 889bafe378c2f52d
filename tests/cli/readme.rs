//! The command line as the README and `millstream cheat` show it: every line is run, by a shell.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Place, Ran, eventually, run, signal, start, text};

/// They have tests of their own, and take long.
const ELSEWHERE: [&str; 2] = ["millstream demo", "millstream bench"];
/// They go on until they are told to stop.
const ENDLESS: [&str; 3] = [" -f", " --watch", " --exec"];

/// A shell that finds the command, with this line to run.
fn shell(line: &str, root: &Path) -> Command {
    let command = Path::new(env!("CARGO_BIN_EXE_millstream")).parent().unwrap().to_owned();
    let path = env::split_paths(&env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let path = env::join_paths([command].into_iter().chain(path)).unwrap();
    let mut shell = Command::new("sh");
    // The shell becomes the command, so that a signal reaches it.
    shell.args(["-c", &format!("exec {line}")]).env("PATH", path).current_dir(root);
    shell
}

#[track_caller]
fn run_to_its_end(line: &str, root: &Path) {
    // What a pipe is made of ends by itself.
    let line = if line.contains(" | ") { format!("sh -c '{line}'") } else { line.into() };
    let ran = Ran::from(shell(&line, root).stdin(Stdio::null()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{line}: {ran:?}");
}

/// Runs it until it has said something, while others put, and interrupts it then.
#[track_caller]
fn run_for_a_line(line: &str, root: &Path, put: impl Fn()) {
    let mut child = start(&mut shell(line, root));
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let said = std::thread::spawn(move || {
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        (first, stdout)
    });
    eventually(line, || {
        put();
        said.is_finished()
    });
    let (first, stdout) = said.join().unwrap();
    assert!(!first.trim().is_empty(), "{line}");
    signal(&child, "-INT");
    // Those that only read are ended by the signal itself.
    let ended = child.wait().unwrap();
    drop(stdout);
    assert!(ended.success() || ended.signal() == Some(2), "{line}: {ended}");
}

/// Runs lines one after the other; `put` puts to the stream that they are about.
fn run_all(lines: &[String], root: &Path, put: impl Fn()) {
    for line in lines {
        if ELSEWHERE.iter().any(|verb| line.starts_with(verb)) {
            continue;
        }
        if ENDLESS.iter().any(|option| line.contains(option)) {
            run_for_a_line(line, root, &put);
        } else {
            run_to_its_end(line, root);
        }
    }
}

/// The lines of the README, and the others that their comments name: `also VERB DIR; VERB DIR`.
fn lines_of_the_readme() -> Vec<String> {
    let block = include_str!("../../README.md").split("```sh\n").find(|block| {
        let first = block.lines().next().unwrap_or_default();
        first.starts_with("millstream create DIR")
    });
    let block = block.unwrap().split("```").next().unwrap();
    let mut lines = Vec::new();
    for line in block.lines() {
        let (line, comment) = line.split_once('#').unwrap_or((line, ""));
        lines.push(line.trim_end().to_owned());
        let others = comment.trim().strip_prefix("also ").unwrap_or_default().split("; ");
        let others = others.filter(|other| other.contains(" DIR"));
        lines.extend(others.map(|other| format!("millstream {other}")));
    }
    assert!(lines.len() > 20, "{lines:?}");
    lines
}

#[test]
fn every_line_of_the_readme_does_what_it_says() {
    let place = Place::without_stream();
    fs::write(place.path("lines.txt"), text(100)).unwrap();
    let copy = place.path("copy");
    let words = [
        ("DIR", place.stream.as_str()),
        ("DATA", place.root().to_str().unwrap()),
        ("COPY", copy.to_str().unwrap()),
        ("NAME", "billing"),
        ("CMD", "cat"),
        ("TEXT", "again"),
    ];
    let fill_in = |line: String| {
        let word = |word: &str| {
            let known = words.iter().find(|(name, _)| *name == word);
            known.map_or(word, |(_, value)| value).to_owned()
        };
        line.split(' ').map(word).collect::<Vec<_>>().join(" ")
    };
    let lines: Vec<_> = lines_of_the_readme().into_iter().map(fill_in).collect();
    run_all(&lines, place.root(), || drop(place.put("k new\n")));
    // Four, one split, two merged, and six in the end.
    assert_eq!(place.info()["open_shards"], 6);
    assert!(place.records() > 100);
    assert!(!copy.try_exists().unwrap());
}

#[test]
fn every_command_that_cheat_shows_does_what_it_says() {
    let place = Place::without_stream();
    fs::write(place.path("lines.txt"), text(100)).unwrap();
    // What the application is does not matter.
    let json = run(&["cheat", "--json"]).succeeded().json();
    let commands = json["commands"].as_array().unwrap();
    let lines: Vec<_> = commands
        .iter()
        .map(|card| card["command"].as_str().unwrap().replace("./load", "cat"))
        .collect();
    assert_eq!(lines.len(), 11);
    let stream = place.path("data/orders");
    let stream = stream.to_str().unwrap();
    run_all(&lines, place.root(), || {
        crate::harness::run_with(&["put", stream, "-K "], "k new\n");
    });
    let info = run(&["info", stream, "--json"]).succeeded().json();
    assert!(info["records"].as_u64().unwrap() >= 100);
    assert_eq!(info["retention"]["bytes"], 10u64 << 30);
}
