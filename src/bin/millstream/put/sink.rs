//! Where the lines go: into the stream, the acknowledgements and the summary.

use millstream::{Durability, PutRecord, Stream};

use super::acks::Acks;
use super::tally::Tally;
use crate::failure::Failure;
use crate::output;

/// A batch is not shared with lines longer than this, so that one that the stream refuses for its
/// length ends the put where it stands.
const LONG_LINE_BYTES: usize = 32 << 10;

/// A line on its way to become a record.
pub(super) struct Line<'a> {
    /// Its place in all the inputs together.
    pub(super) number: u64,
    pub(super) key: &'a str,
    pub(super) data: &'a [u8],
}

impl Line<'_> {
    fn len(&self) -> usize {
        self.key.len() + self.data.len()
    }

    fn is_long(&self) -> bool {
        self.len() > LONG_LINE_BYTES
    }
}

/// Why no more lines are put.
pub(super) enum Stop {
    /// The line with this number cannot be put.
    AtLine(u64, Failure),
    /// Nobody reads the acknowledgements any more.
    Output(Failure),
}

/// Puts lines, counts and acknowledges them.
pub(super) struct Sink {
    stream: Stream,
    durability: Durability,
    acks: Option<Acks>,
    tally: Tally,
}

impl Sink {
    pub(super) fn new(stream: Stream, durability: Durability, acks: Option<Acks>) -> Self {
        Self { stream, durability, acks, tally: Tally::default() }
    }

    /// How many records were put.
    pub(super) fn records(&self) -> u64 {
        self.tally.records()
    }

    pub(super) fn summary(&self, as_json: bool) -> String {
        if as_json { self.tally.json() } else { self.tally.summary() }
    }

    /// Puts the lines, up to the first that cannot be put.
    pub(super) fn put(&mut self, lines: &[Line<'_>]) -> Result<(), Stop> {
        lines
            .chunk_by(|one, next| !one.is_long() && !next.is_long())
            .try_for_each(|batch| self.put_batch(batch))
    }

    fn put_batch(&mut self, batch: &[Line<'_>]) -> Result<(), Stop> {
        let records = batch
            .iter()
            .map(|line| PutRecord::new(line.key, line.data).durability(self.durability));
        let results = self.stream.put_batch(records);
        let mut receipts = Vec::with_capacity(batch.len());
        let mut stop = None;
        for (result, line) in results.into_iter().zip(batch) {
            match result {
                Ok(receipt) => receipts.push((receipt, line)),
                Err(error) if stop.is_none() => stop = Some((line.number, error.into())),
                Err(_) => {}
            }
        }
        for (receipt, line) in &receipts {
            self.tally.add(receipt.shard, line.len());
        }
        if let Some(acks) = &mut self.acks {
            for (receipt, line) in &receipts {
                acks.add(receipt, line.key).map_err(Stop::Output)?;
            }
            acks.flush().map_err(Stop::Output)?;
        }
        let Some((number, failure)) = stop else { return Ok(()) };
        // A batch is not atomic, in Kinesis neither.
        let behind = receipts.iter().filter(|(_, line)| line.number > number).count();
        let not_put = batch.len() - receipts.len();
        let failure: Failure = failure;
        Err(Stop::AtLine(
            number,
            match behind {
                0 => failure,
                _ => failure.so(format!(
                    "not put: {}; put although behind it: {behind}",
                    output::count(not_put as u64, "line")
                )),
            },
        ))
    }
}
