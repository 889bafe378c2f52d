//! Streams larger than what is kept of them in memory: opening one, and putting with retention.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use millstream::{Retention, Stream};

use crate::{directory, is_wanted};

/// What the program is called with by itself, to be killed: a directory and a number of bytes.
pub const FILL: &str = "--fill";
const LARGE: u64 = 10 << 30;
const RECORD: usize = 16 << 10;

/// Puts so many bytes in a process of its own, says so and waits to be killed.
pub fn fill(directory: &str, bytes: &str) -> ! {
    let stream = Stream::builder(directory).open().unwrap();
    put(&stream, bytes.parse().unwrap());
    println!("filled");
    loop {
        std::thread::park();
    }
}

fn put(stream: &Stream, bytes: u64) {
    let data = vec![7; RECORD];
    for _ in 0..bytes / RECORD as u64 {
        stream.put("key-0001", &data).unwrap();
    }
}

fn start_filling(directory: &Path, bytes: u64) -> Child {
    let mut filler = Command::new(std::env::current_exe().unwrap());
    filler.arg(FILL).arg(directory).arg(bytes.to_string()).stdout(Stdio::piped());
    filler.spawn().unwrap()
}

fn wait_until_filled(filler: &mut Child) {
    use std::io::{BufRead, BufReader};
    let said = BufReader::new(filler.stdout.as_mut().unwrap()).lines().next();
    assert_eq!(said.unwrap().unwrap(), "filled");
}

/// How long it takes to open a stream that was closed, and one whose writer was killed.
pub fn opening() {
    let name = "open a stream of 10 GiB";
    if !is_wanted(name) {
        return;
    }
    let place = tempfile::tempdir_in(directory()).unwrap();
    let mut filler = start_filling(place.path(), LARGE);
    wait_until_filled(&mut filler);
    filler.kill().unwrap();
    filler.wait().unwrap();
    let open = |when: &str| {
        let start = Instant::now();
        let stream = Stream::builder(place.path()).open().unwrap();
        println!("  {when:<34} {:>10.1} ms", start.elapsed().as_secs_f64() * 1e3);
        stream
    };
    println!("\n{name}");
    open("after a kill").close().unwrap();
    let stream = open("after a clean close");
    stream.put("key-0001", "still").unwrap();
}

/// How much memory the process has for itself while it puts ten times what is retained.
pub fn memory() {
    let name = "memory while 10 GiB are put, 1 GiB retained";
    if !is_wanted(name) {
        return;
    }
    let place = tempfile::tempdir_in(directory()).unwrap();
    let retention = Retention::default().bytes(LARGE / 10);
    let stream = Stream::builder(place.path()).retention(retention).open().unwrap();
    println!("\n{name}");
    for at in 1..=10 {
        put(&stream, LARGE / 10);
        let (anonymous, mapped) = resident();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
        println!(
            "  {at:>2} GiB: {anonymous:>5} MiB of its own, {mapped:>5} MiB of files, {maps} maps"
        );
    }
}

/// What is resident of the process's own memory, and of mapped files, in MiB.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    (of("RssAnon:"), of("RssFile:"))
}
