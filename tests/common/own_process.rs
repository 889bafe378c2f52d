//! Tests that need a process of their own: with a small disk, with limits, or because it dies.

use std::any::type_name;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

/// Tells the process of its own which directory is for it.
const DIRECTORY: &str = "MILLSTREAM_TEST_DIRECTORY";
/// How a setup says that it cannot be done here.
const IMPOSSIBLE: i32 = 77;

/// Runs the test that calls this, which is named as its closure is, in a process of its own, with
/// a directory: `setup` is what a shell does there before. The outcome of the process; none if the
/// setup is impossible on this machine, which is said.
pub fn outcome<F: FnOnce(&Path)>(wrap: &[&str], setup: &str, test: F) -> Option<Output> {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        test(Path::new(&directory));
        // The harness would go on to say that the test was fine.
        std::process::exit(0);
    }
    let directory = tempfile::tempdir().unwrap();
    let name = type_name::<F>().split("::").nth(1).expect("the closure is in a test");
    let script = format!("{{ {setup}; }} >&2 || exit {IMPOSSIBLE}; exec \"$0\" \"$@\"");
    let mut command = Command::new(wrap.first().unwrap_or(&"sh"));
    if let Some((_, arguments)) = wrap.split_first() {
        command.args(arguments).arg("sh");
    }
    let output = command
        .arg("-c")
        .arg(script)
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIRECTORY, directory.path())
        .current_dir(directory.path())
        .output();
    let why = match output {
        Ok(output) if output.status.code() != Some(IMPOSSIBLE) => {
            // Otherwise there is no such test.
            let ran = !String::from_utf8_lossy(&output.stdout).contains("running 0 tests");
            assert!(ran, "{name} is not the name of the test");
            return Some(output);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "),
        Err(error) => format!("{}: {error}", wrap.first().unwrap_or(&"sh")),
    };
    // Not by a macro: the harness would hide it.
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {why}");
    None
}

/// As [`outcome`]; the test has to succeed.
#[track_caller]
pub fn succeeds<F: FnOnce(&Path)>(wrap: &[&str], setup: &str, test: F) {
    if let Some(output) = outcome(wrap, setup, test) {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}\n{text}", output.status);
    }
}

/// As [`succeeds`], with a disk of its own for a directory: a file system of this kind, so large.
#[track_caller]
pub fn on_disk<F: FnOnce(&Path)>(kind: &str, mib: u32, test: F) {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let wrap: &[&str] = if is_root { &["unshare", "-m"] } else { &["unshare", "-Urm"] };
    let image = |make: &str| {
        format!("truncate -s {mib}M image && {make} -q image && mount -o loop image disk")
    };
    let mount = match kind {
        // Without the blocks that are kept for root alone.
        "ext4" => image("mkfs.ext4 -m 0"),
        "xfs" => image("mkfs.xfs"),
        _ => format!("mount -t {kind} -o size={mib}m none disk"),
    };
    succeeds(wrap, &format!("mkdir disk && {mount} && {DIRECTORY}=$PWD/disk"), test);
}
