//! millstream beside its peers: the same work, in the same run, in turns.
//!
//! `cargo run --release [-- --quick] [--json]` in this directory; files go to a directory of their
//! own under `MILLSTREAM_BENCH_DIR` (or the one for temporary files), and are removed. Everyone has
//! its settings as they come, but for what the work asks: whether an append is synced.

#![allow(clippy::print_stdout, reason = "the table is what it is for")]

mod databases;
mod handover;
mod logs;

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// One who keeps records in a directory; any number of threads append.
pub trait Peer: Sync {
    /// Appends records in one go, and syncs them if told to. False if it cannot do that at all.
    fn append(&self, records: &[&[u8]], sync: bool) -> Result<bool>;
    /// Reads all records in order: how many there are. None if it cannot while it is open.
    fn replay(&self) -> Result<Option<usize>>;
}

type Open = fn(&Path) -> Result<Box<dyn Peer>>;

const PEERS: [(&str, Open); 9] = [
    ("millstream", logs::millstream),
    ("commitlog 0.2", logs::commitlog),
    ("yaque 0.6", logs::yaque),
    ("okaywal 0.3", logs::okaywal),
    ("walrus-rust 0.2", logs::walrus),
    ("raft-engine 0.4", logs::raft_engine),
    ("fjall 3", databases::fjall),
    ("redb 4", databases::redb),
    ("SQLite (rusqlite)", databases::sqlite),
];
/// The most bytes that are appended in a turn.
const TURN_BYTES: usize = 32 << 20;
const REPLAYED: usize = 100_000;

/// How long a turn takes at the most, and how many there are.
#[derive(Clone, Copy)]
struct Effort {
    turn: Duration,
    rounds: usize,
}

/// What is done to a peer.
enum Work {
    Append { bytes: usize, batch: usize },
    Synced { producers: usize },
    Replay,
}

const WORKS: [(&str, Work); 7] = [
    ("100 B", Work::Append { bytes: 100, batch: 1 }),
    ("1 KiB", Work::Append { bytes: 1 << 10, batch: 1 }),
    ("64 KiB", Work::Append { bytes: 64 << 10, batch: 1 }),
    ("100 x 100 B", Work::Append { bytes: 100, batch: 100 }),
    ("replay", Work::Replay),
    ("synced", Work::Synced { producers: 1 }),
    ("synced, 32", Work::Synced { producers: 32 }),
];

fn main() -> Result<()> {
    let has = |flag: &str| std::env::args().any(|arg| arg == flag);
    let effort = match has("--quick") {
        true => Effort { turn: Duration::from_millis(50), rounds: 1 },
        false => Effort { turn: Duration::from_millis(400), rounds: 5 },
    };
    let base = std::env::var_os("MILLSTREAM_BENCH_DIR")
        .map_or_else(std::env::temp_dir, std::path::PathBuf::from);
    let dir = tempfile::tempdir_in(base.canonicalize()?)?;
    // Where walrus-rust has its files, unless its environment says otherwise.
    std::env::set_current_dir(dir.path())?;
    let mut rates = Vec::new();
    for (name, work) in &WORKS {
        eprintln!("{name}");
        rates.push((*name, PEERS.map(|(peer, _)| peer), row(dir.path(), work, effort)?));
    }
    eprintln!("hand-over");
    let (names, handover) = handover::row(dir.path(), effort.rounds)?;
    if has("--json") {
        let figures = rates.iter().flat_map(|(work, names, rates)| cells(work, names, rates));
        let figures: Vec<_> = figures.chain(cells("hand-over", &names, &handover)).collect();
        println!("{}", json!({ "records_per_s": figures }));
        return Ok(());
    }
    let heads: Vec<_> = WORKS.iter().map(|(name, _)| *name).chain(["hand-over"]).collect();
    println!("| records/s | {} |\n|---|{}", heads.join(" | "), "---:|".repeat(heads.len()));
    let mut all: Vec<&str> = PEERS.iter().map(|(name, _)| *name).collect();
    all.extend(names.iter().filter(|name| !PEERS.iter().any(|(peer, _)| peer == *name)));
    for peer in all {
        let at = |names: &[&str], rates: &[Option<f64>]| {
            let rate = names.iter().position(|name| *name == peer).and_then(|at| rates[at]);
            rate.map_or("-".to_owned(), short)
        };
        let mut line: Vec<_> = rates.iter().map(|(_, names, rates)| at(names, rates)).collect();
        line.push(at(&names, &handover));
        println!("| {peer} | {} |", line.join(" | "));
    }
    Ok(())
}

fn cells(work: &str, names: &[&str], rates: &[Option<f64>]) -> Vec<Value> {
    let cell = |(name, rate)| json!({ "work": work, "by": name, "rate": rate });
    names.iter().zip(rates).map(cell).collect()
}

/// A number in three digits or so.
fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{:.1} M", number / 1e6),
        1e4.. => format!("{:.0} k", number / 1e3),
        1e3.. => format!("{:.1} k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// All peers at one work in turns: the medians, in records a second. They are opened once, and a
/// first turn is not counted, so that files that grow have grown; only who reads begins anew.
fn row(dir: &Path, work: &Work, effort: Effort) -> Result<[Option<f64>; PEERS.len()]> {
    let place = tempfile::tempdir_in(dir)?;
    let mut opened = 0;
    let mut open = |(name, open): &(&str, Open)| -> Result<Box<dyn Peer>> {
        opened += 1;
        let directory = place.path().join(opened.to_string());
        std::fs::create_dir(&directory)?;
        open(&directory).map_err(|e| format!("{name}: {e}").into())
    };
    let mut peers = PEERS.iter().map(&mut open).collect::<Result<Vec<_>>>()?;
    let mut rates: [Vec<f64>; PEERS.len()] = std::array::from_fn(|_| Vec::new());
    for round in 0..=effort.rounds {
        for ((entry, peer), rates) in PEERS.iter().zip(&mut peers).zip(&mut rates) {
            let rate = turn(&**peer, work, effort.turn).map_err(|e| format!("{}: {e}", entry.0))?;
            rates.extend(rate.filter(|_| round > 0));
            if let Work::Replay = work {
                *peer = open(entry)?;
            }
        }
    }
    Ok(rates.map(median))
}

pub fn median(mut rates: Vec<f64>) -> Option<f64> {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied()
}

fn turn(peer: &dyn Peer, work: &Work, time: Duration) -> Result<Option<f64>> {
    match *work {
        Work::Append { bytes, batch } => append(peer, bytes, batch, false, 1, time),
        Work::Synced { producers } => append(peer, 1 << 10, 1, true, producers, time),
        Work::Replay => {
            let data = [7; 100];
            let records = [&data[..]; 100];
            for _ in 0..REPLAYED / 100 {
                if !peer.append(&records, false)? {
                    return Ok(None);
                }
            }
            let start = Instant::now();
            let Some(read) = peer.replay()? else { return Ok(None) };
            let elapsed = start.elapsed();
            assert_eq!(read, REPLAYED, "all records come again");
            Ok(Some(read as f64 / elapsed.as_secs_f64()))
        }
    }
}

fn append(
    peer: &dyn Peer,
    bytes: usize,
    batch: usize,
    sync: bool,
    producers: usize,
    time: Duration,
) -> Result<Option<f64>> {
    let data = vec![7; bytes];
    let records = vec![&data[..]; batch];
    if !peer.append(&records, sync)? {
        return Ok(None);
    }
    let most = TURN_BYTES / bytes / batch / producers;
    let start = Instant::now();
    let done: usize = std::thread::scope(|scope| {
        let produce = || -> Result<usize> {
            for done in 0..most {
                // The clock is looked at seldom, for those who take less time than it.
                if (done % 64 == 0 || sync) && start.elapsed() > time {
                    return Ok(done);
                }
                peer.append(&records, sync)?;
            }
            Ok(most)
        };
        let threads: Vec<_> = (0..producers).map(|_| scope.spawn(produce)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().expect("it ends");
        threads.into_iter().map(join).sum::<Result<usize>>()
    })?;
    Ok(Some((done * batch) as f64 / start.elapsed().as_secs_f64()))
}
