//! What one sees of the demo: a story on one side, live bars on the other.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, MultiProgress};
use millstream::WorkerPool;
use parking_lot::Mutex;

use super::count::Counted;
use super::producers::Producers;
use crate::bars::ShardBars;
use crate::failure::{Exit, Failure, Result};
use crate::signals::Interrupt;

const TICK: Duration = Duration::from_millis(50);
/// How often there is a line about the progress where there are no bars.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the story is told; the bars step aside for it.
#[derive(Clone)]
pub(super) struct Screen {
    bars: MultiProgress,
    /// Standard output is kept for the result.
    to_stderr: bool,
}

impl Screen {
    pub(super) fn say(&self, text: &str) -> Result<()> {
        let told = self.bars.suspend(|| match self.to_stderr {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        });
        told.map_err(|e| Failure::stdout(&e))
    }
}

/// The story, the bars, and the one who may interrupt them.
pub(super) struct Show {
    pub(super) screen: Screen,
    bars: ShardBars,
    interrupt: Interrupt,
    counted: Arc<Mutex<Counted>>,
    started: Instant,
    last_line: Instant,
}

impl Show {
    pub(super) fn new(to_stderr: bool, counted: &Arc<Mutex<Counted>>) -> Result<Self> {
        let bars = ShardBars::default();
        let screen = Screen { bars: bars.screen(), to_stderr };
        let interrupt = Interrupt::listen(|| ())?;
        let (counted, now) = (Arc::clone(counted), Instant::now());
        Ok(Self { screen, bars, interrupt, counted, started: now, last_line: now })
    }

    pub(super) fn say(&self, text: &str) -> Result<()> {
        self.screen.say(text)
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows how it goes until `is_reached`.
    pub(super) fn watch(
        &mut self,
        pool: &WorkerPool,
        producers: &Producers,
        is_reached: impl Fn() -> bool,
    ) -> Result<()> {
        while !is_reached() {
            let status = pool.status();
            self.bars.update(&status);
            if self.bars.is_hidden() && self.last_line.elapsed() >= LINE_INTERVAL {
                self.last_line = Instant::now();
                let put = HumanCount(producers.put()).to_string();
                let counted = HumanCount(self.counted.lock().records).to_string();
                let lag = HumanCount(status.iter().map(|shard| shard.lag.records).sum());
                let lag = lag.to_string();
                let seconds = self.elapsed().as_secs_f64();
                self.say(&format!(
                    "   {seconds:4.1} s  {put:>10} put  {counted:>10} counted  lag {lag:>7}\n"
                ))?;
            }
            self.pause(TICK)?;
        }
        Ok(())
    }

    /// Takes the bars away: their workers are gone.
    pub(super) fn clear(&mut self) {
        self.bars.clear();
    }

    /// Waits, unless it is interrupted.
    pub(super) fn pause(&self, time: Duration) -> Result<()> {
        match self.interrupt.wait(time) {
            true => Err(Failure::new(Exit::Interrupted, "the demo was interrupted")),
            false => Ok(()),
        }
    }
}
