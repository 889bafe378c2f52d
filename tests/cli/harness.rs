//! Running the command, and text to run it on.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// The command with these arguments, its standard input closed.
pub(crate) fn millstream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(args).stdin(Stdio::null());
    command
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text().lines().collect()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Failed with this code, and a line about it in which all of `words` stand.
    #[track_caller]
    pub(crate) fn failed(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        let line = self.stderr.lines().last().unwrap_or_default();
        assert!(line.starts_with("millstream: "), "{self:?}");
        for word in words {
            assert!(line.contains(word), "{word:?} is missing: {self:?}");
        }
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Ran {
    millstream(args).output().unwrap().into()
}

/// Runs it with this on its standard input.
pub(crate) fn run_with(args: &[&str], input: impl AsRef<[u8]>) -> Ran {
    let mut child = start(&mut millstream(args));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.as_ref().to_vec();
    // It may end without having read everything.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.into()
}

/// Starts it with pipes everywhere.
pub(crate) fn start(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal to a process, as `kill` does.
pub(crate) fn signal(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// Waits for something to become true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A directory for one test, with a stream in it.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) stream: String,
}

impl Place {
    /// With no stream yet.
    pub(crate) fn without_stream() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let stream = dir.path().join("stream").to_str().unwrap().to_owned();
        Self { dir, stream }
    }

    pub(crate) fn with_shards(shards: u32) -> Self {
        let place = Self::without_stream();
        run(&["create", &place.stream, "--shards", &shards.to_string()]).succeeded();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a text, keys before the first blank.
    pub(crate) fn put(&self, text: impl AsRef<[u8]>) -> Ran {
        run_with(&["put", &self.stream, "-K "], text)
    }

    /// The stream as lines, keys before the first blank.
    pub(crate) fn tail(&self) -> Ran {
        run(&["tail", &self.stream, "-K "]).succeeded()
    }

    pub(crate) fn info(&self) -> serde_json::Value {
        run(&["info", &self.stream, "--json"]).succeeded().json()
    }

    pub(crate) fn records(&self) -> u64 {
        self.info()["records"].as_u64().unwrap()
    }
}

/// So many lines of a few hundred keys, each line another one.
pub(crate) fn text(lines: usize) -> String {
    let line = |i: usize| format!("key-{} line {i} {}\n", i * i % 499, "x".repeat(i % 97));
    (0..lines).map(line).collect()
}

/// The lines by what stands before the first blank.
pub(crate) fn by_key<'a>(
    lines: impl IntoIterator<Item = &'a str>,
) -> HashMap<&'a str, Vec<&'a str>> {
    let mut keys: HashMap<&str, Vec<&str>> = HashMap::new();
    for line in lines {
        keys.entry(line.split(' ').next().unwrap()).or_default().push(line);
    }
    keys
}
