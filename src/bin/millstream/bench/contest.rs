//! Contestants at the same work, in turns: what one slows down on a busy machine slows down all.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use millstream::Stream;
use tempfile::TempDir;

use super::Effort;
use crate::failure::{Exit, Failure, Result};
use crate::signals::Interrupt;

/// A turn: the work is done, the times of single calls are noted, and the time per record in ns is
/// given if it tells anything.
type Turn<'a> = Box<dyn FnMut(&mut Times) -> Result<Option<f64>> + 'a>;

/// One who does the work.
pub(super) struct Contestant<'a> {
    by: String,
    turn: Turn<'a>,
}

pub(super) fn contestant<'a>(
    by: impl Into<String>,
    turn: impl FnMut(&mut Times) -> Result<Option<f64>> + 'a,
) -> Contestant<'a> {
    Contestant { by: by.into(), turn: Box::new(turn) }
}

/// How long calls took, in ns.
pub(super) struct Times(pub(super) Histogram<u64>);

impl Times {
    fn new() -> Self {
        let a_minute = 60_000_000_000;
        Self(Histogram::new_with_bounds(1, a_minute, 3).expect("the bounds are sound"))
    }

    pub(super) fn note(&mut self, time: Duration) {
        self.0.saturating_record(time.as_nanos() as u64);
    }

    /// Calls so often, and notes each.
    pub(super) fn of(&mut self, calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<()> {
        for _ in 0..calls {
            let start = Instant::now();
            call()?;
            self.note(start.elapsed());
        }
        Ok(())
    }
}

/// How one did.
pub(super) struct Figure {
    pub(super) work: String,
    pub(super) by: String,
    pub(super) record_bytes: usize,
    /// The median of the turns.
    pub(super) ns_per_record: Option<f64>,
    pub(super) times: Histogram<u64>,
}

/// All that is measured in one run.
pub(super) struct Contest<'a> {
    pub(super) effort: Effort,
    directory: &'a Path,
    only: Option<&'a str>,
    figures: Vec<Figure>,
    bar: ProgressBar,
    interrupt: Interrupt,
}

impl<'a> Contest<'a> {
    pub(super) fn new(effort: Effort, directory: &'a Path, only: Option<&'a str>) -> Result<Self> {
        let (bar, interrupt) = (ProgressBar::new_spinner(), Interrupt::listen(|| ())?);
        Ok(Self { effort, directory, only, figures: Vec::new(), bar, interrupt })
    }

    /// Whether this work is wanted.
    pub(super) fn wants(&self, work: &str) -> bool {
        self.only.is_none_or(|only| work.contains(only))
    }

    /// Where a contestant has its files; removed with what is given.
    pub(super) fn place(&self) -> Result<TempDir> {
        tempfile::tempdir_in(self.directory).map_err(|e| self.failed(&e))
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.directory.to_owned()
    }

    /// What the system said while the limits were measured.
    pub(super) fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::file("work in", self.directory, error)
    }

    /// Has all do the work in turns.
    pub(super) fn row(
        &mut self,
        work: &str,
        record_bytes: usize,
        mut contestants: Vec<Contestant<'_>>,
    ) -> Result<()> {
        let mut done: Vec<_> = contestants.iter().map(|_| (Vec::new(), Times::new())).collect();
        for round in 1..=self.effort.rounds {
            self.bar.set_message(format!("{work} ({round} of {})", self.effort.rounds));
            for (contestant, (turns, times)) in contestants.iter_mut().zip(&mut done) {
                self.bar.tick();
                if self.interrupt.wait(Duration::ZERO) {
                    return Err(Failure::new(Exit::Interrupted, "interrupted before all was done"));
                }
                turns.extend((contestant.turn)(times)?);
            }
        }
        for (contestant, (mut turns, times)) in contestants.into_iter().zip(done) {
            turns.sort_by(f64::total_cmp);
            let (work, by) = (work.to_owned(), contestant.by);
            let ns_per_record = turns.get(turns.len() / 2).copied();
            self.figures.push(Figure { work, by, record_bytes, ns_per_record, times: times.0 });
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<Figure> {
        self.bar.finish_and_clear();
        self.figures
    }
}

/// A stream in a directory of its own.
pub(super) struct Ours {
    pub(super) stream: Stream,
    pub(super) directory: TempDir,
}

impl Ours {
    pub(super) fn with_shards(contest: &Contest<'_>, shards: u32) -> Result<Self> {
        let directory = contest.place()?;
        let stream = Stream::builder(directory.path()).shards(shards).open()?;
        Ok(Self { stream, directory })
    }

    /// A stream whose segments have grown to their full size.
    pub(super) fn grown(contest: &Contest<'_>) -> Result<Self> {
        let ours = Self::with_shards(contest, 1)?;
        let data = vec![7; 1 << 19];
        for _ in 0..160 {
            ours.put(&data)?;
        }
        Ok(ours)
    }

    pub(super) fn put(&self, data: &[u8]) -> Result<()> {
        self.stream.put(super::append::KEY, data)?;
        Ok(())
    }
}

/// Does it so often: ns per time.
pub(super) fn ns_per(count: usize, mut each: impl FnMut() -> Result<()>) -> Result<Option<f64>> {
    let start = Instant::now();
    for _ in 0..count {
        each()?;
    }
    Ok(Some(start.elapsed().as_nanos() as f64 / count as f64))
}

/// A length of data as people write it.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => format!("{} KiB", bytes >> 10),
    }
}
