//! The figures side by side: ours, the limit, and what people use instead, in turns and in one run,
//! because machines are noisy. Prints one table; medians over the rounds.
//!
//! `cargo bench --bench figures [-- ROW]` runs the rows whose name contains ROW.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]
#![allow(unreachable_pub, missing_docs, reason = "nobody links a benchmark")]

mod append;
mod durable;
mod handover;
mod instructions;
mod large;
mod limits;
mod pool;
mod replay;

use std::path::PathBuf;
use std::time::Instant;

use millstream::Stream;

/// Where the files go; on the disk that is to be measured.
fn directory() -> PathBuf {
    std::env::var_os("MILLSTREAM_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A contestant of a row: does one round of the work and says how long it took, in ns per record.
struct Contestant<'a> {
    name: &'static str,
    round: Box<dyn FnMut() -> f64 + 'a>,
}

fn contestant<'a>(name: &'static str, round: impl FnMut() -> f64 + 'a) -> Contestant<'a> {
    Contestant { name, round: Box::new(round) }
}

/// Whether a row was asked for: all are, if none is named.
fn is_wanted(name: &str) -> bool {
    let filter: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()))
}

/// Runs the contestants in turns and prints the median of each, and its ratio to the first one.
fn row(name: &str, rounds: usize, mut contestants: Vec<Contestant<'_>>) {
    if !is_wanted(name) {
        return;
    }
    let mut times = vec![Vec::new(); contestants.len()];
    for _ in 0..rounds {
        for (contestant, times) in contestants.iter_mut().zip(&mut times) {
            times.push((contestant.round)());
        }
    }
    println!("\n{name} ({rounds} rounds in turns)");
    let mut first = None;
    for (contestant, times) in contestants.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let first = *first.get_or_insert(median);
        println!(
            "  {:<34} {median:>10.1} ns  {:>5.2} x the first's speed   ({:.1} to {:.1})",
            contestant.name,
            first / median,
            times[0],
            times[times.len() - 1],
        );
    }
}

/// Prints the tail, and gives the median.
fn percentiles(mut times: Vec<u64>) -> f64 {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("    p50 {} ns, p99 {} ns, p99.9 {} ns", at(0.5), at(0.99), at(0.999));
    at(0.5) as f64
}

/// Times `count` calls, in ns per call.
fn per_record(count: usize, mut each: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        each();
    }
    start.elapsed().as_nanos() as f64 / count as f64
}

/// Lets the threads behind a stream get ahead of the next round.
fn catch_up() {
    std::thread::sleep(std::time::Duration::from_millis(30));
}

/// A stream in a directory of its own.
struct Ours {
    stream: Stream,
    _directory: tempfile::TempDir,
}

impl Ours {
    fn new() -> Self {
        let directory = tempfile::tempdir_in(directory()).unwrap();
        let stream = Stream::builder(directory.path()).open().unwrap();
        Self { stream, _directory: directory }
    }

    /// A stream whose segments have grown to their full size.
    fn grown() -> Self {
        let ours = Self::new();
        let data = vec![7; 1 << 19];
        for _ in 0..160 {
            ours.stream.put("key-0001", &data).unwrap();
        }
        ours
    }

    fn put(&self, data: &[u8], bytes: usize) -> f64 {
        let count = bytes / (32 + data.len()).next_multiple_of(32);
        per_record(count, || {
            self.stream.put("key-0001", data).unwrap();
        })
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [large::FILL, directory, bytes] => large::fill(directory, bytes),
        [instructions::PUT, size, count] => return instructions::put(size, count),
        _ => {}
    }
    for size in [100, 1 << 10, 64 << 10] {
        append::sustained(size);
    }
    for size in [100, 1 << 10, 64 << 10] {
        append::prepared(size);
    }
    append::producers();
    append::batches();
    for size in [100, 1 << 10] {
        replay::replay(size);
    }
    durable::durable();
    handover::throughput();
    handover::latency();
    handover::put_latency();
    pool::throughput();
    pool::checkpoint();
    pool::latency();
    large::opening();
    large::memory();
    instructions::instructions();
}
