//! `millstream bench`: how fast it is here, beside what is possible at all.

mod append;
mod contest;
#[path = "../../../../benches/figures/limits.rs"]
mod limits;
mod plot;
mod read;
mod table;

use std::io;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output;
use contest::Contest;

/// Measures throughput and latency on this machine and disk.
///
/// Beside each of ours stand the limits, which are the same bytes copied to a mapped file and
/// checksummed, without a log (ready: all pages are in memory; cold: none is); and what a program
/// does that has no log: a BufWriter, or a write and a sync for each record. They take turns, and
/// what is shown is the median of the turns. SPEED is how many times as fast as the first line it
/// is. P50 and so on are percentiles of the time that one call takes, the clock included; of `put
/// to seen` and `put to pool`, from the beginning of a put to the moment at which a reader has the
/// record.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream bench --quick
  millstream bench /mnt/data --plot bench.svg
  millstream bench --only put --json | jq '.figures[] | [.work, .by, .records_per_s]'

It takes half a minute and up to 2 GiB on the disk, with --quick some seconds and 1 GiB; it leaves
nothing behind. What else the machine does is in the figures: compare within one run only.")]
pub(crate) struct Args {
    /// Where to work, on the disk that is to be measured; the directory for temporary files unless
    /// given.
    dir: Option<PathBuf>,
    /// Fewer and shorter turns: enough to see that it works.
    #[arg(long)]
    quick: bool,
    /// Only what has this in its name, as in `put`, `put 1 KiB`, `replay`.
    #[arg(long, value_name = "WORK")]
    only: Option<String>,
    /// Draw the figures, too, as an SVG picture.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Write the figures as a JSON object.
    #[arg(long)]
    json: bool,
}

/// How much is done.
#[derive(Clone, Copy)]
struct Effort {
    /// The turns that everyone has.
    rounds: usize,
    /// The bytes that are put in a turn.
    bytes: usize,
    /// The calls in a turn whose times are taken.
    timed: usize,
    /// The calls in a turn that wait for the disk or for sleeping threads.
    slow: usize,
    /// What it all takes on the disk.
    room: u64,
}

const FULL: Effort =
    Effort { rounds: 5, bytes: 64 << 20, timed: 100_000, slow: 400, room: 2 << 30 };
const QUICK: Effort = Effort { rounds: 2, bytes: 8 << 20, timed: 20_000, slow: 50, room: 1 << 30 };

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let effort = if args.quick { QUICK } else { FULL };
    must_have_room(&dir, effort.room)?;
    let plot = args.plot.as_deref().map(create).transpose()?;
    let directory = tempfile::tempdir_in(&dir).map_err(|e| Failure::file("write to", &dir, &e))?;
    let mut contest = Contest::new(effort, directory.path(), args.only.as_deref())?;
    for record_bytes in [100, 1 << 10, 64 << 10] {
        append::put(&mut contest, record_bytes)?;
    }
    append::producers(&mut contest)?;
    append::batch(&mut contest)?;
    append::durable(&mut contest)?;
    for record_bytes in [100, 1 << 10] {
        read::replay(&mut contest, record_bytes)?;
    }
    read::seen(&mut contest)?;
    read::pool(&mut contest)?;
    read::pool_latency(&mut contest)?;
    let figures = contest.finish();
    if figures.is_empty() {
        let only = args.only.as_deref().unwrap_or_default();
        return Err(Failure::error(format!("there is nothing with {only:?} in its name")));
    }
    if let Some((path, mut file)) = plot {
        let written = io::Write::write_all(&mut file, plot::svg(&figures).as_bytes());
        written.map_err(|e| Failure::file("write", path, &e))?;
    }
    if args.json {
        let figures: Vec<_> = figures.iter().map(table::as_json).collect();
        return output::print_json(&json!({
            "version": env!("CARGO_PKG_VERSION"), "directory": dir.display().to_string(),
            "cores": std::thread::available_parallelism().map_or(0, usize::from),
            "quick": args.quick, "figures": figures,
        }));
    }
    output::print(&table::text(&figures))
}

/// Makes the file before the work begins, not to find behind it that it cannot be made.
fn create(path: &Path) -> Result<(&Path, std::fs::File)> {
    let file = std::fs::File::create(path).map_err(|e| Failure::file("create", path, &e))?;
    Ok((path, file))
}

/// Not to fill the disk of others.
fn must_have_room(dir: &Path, needed: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| Failure::file("work in", dir, &e.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free >= needed {
        return Ok(());
    }
    let advice = "make room, or give another directory: millstream bench DIR";
    let what = format!(
        "{} has {} free, and {} are needed",
        dir.display(),
        HumanBytes(free),
        HumanBytes(needed)
    );
    Err(Failure::error(what).so(advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_refused_with_what_to_do() {
        let dir = std::env::temp_dir();
        must_have_room(&dir, 1).unwrap();
        let refused = must_have_room(&dir, u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("are needed") && refused.contains("bench DIR"), "{refused}");
    }
}
