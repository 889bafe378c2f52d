//! A shard as a queue consumes it: what was read of it, and what comes next.

use std::mem;
use std::sync::Arc;

use crate::batch::Batch;
use crate::error::Result;
use crate::format::queue_entry::{Known, Span};
use crate::lineage::ShardInfo;
use crate::position::{ShardId, StartingPosition};
use crate::queue::spans::Spans;
use crate::queue::window::Window;
use crate::record::{Lag, Limit, Record};
use crate::stream::{ShardIterator, Stream};
use crate::worker::{Checkpoint, Lease};

/// How many records are read of a shard at once; those that nobody has asked for yet wait.
const PAGE: usize = 512;
/// A record is told of when so many bytes of the log were read behind it.
const TOLD_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 64 << 20 };
/// How far the row of a shard may be behind, in bytes of its log. Retention goes by the row.
const MAX_ROW_LAG: u64 = 64 << 10;

/// A shard that is not done.
pub(super) struct Feed {
    pub(super) shard: ShardId,
    pub(super) parents: Vec<ShardId>,
    pub(super) window: Window,
    /// What the journal says of records that were not read yet.
    pub(super) ahead: Spans,
    /// How many records retention has removed before they were done.
    pub(super) lost: u64,
    lease: Lease,
    /// Where to read on; none at the end of a closed shard.
    cursor: Option<ShardIterator>,
    /// What was read and is not in the window yet, from a place on.
    page: Arc<Batch>,
    next: usize,
    has_told_end: bool,
    /// The number of the last record that was told of to hold the disk.
    told: u64,
    /// The number that the row has.
    stored: u64,
    /// The last number that a purge has taken.
    skipped: Option<u64>,
}

/// A record that is not done, and holds those behind it.
#[cfg_attr(not(feature = "tracing"), expect(dead_code, reason = "it is told as an event"))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Stuck {
    pub(super) shard: ShardId,
    pub(super) address: u64,
    pub(super) bytes: u64,
}

/// A record as it was read.
pub(super) struct Next {
    pub(super) address: u64,
    pub(super) batch: Arc<Batch>,
    /// Where in the batch it is.
    pub(super) at: usize,
}

impl Next {
    pub(super) fn record(&self) -> Record<'_> {
        self.batch.get(self.at).expect("it is in its batch")
    }
}

impl Feed {
    /// A shard from where its row says, with what the journal says of it.
    pub(super) fn new(
        stream: &Stream,
        info: &ShardInfo,
        lease: Lease,
        mut ahead: Spans,
    ) -> Result<Self> {
        let checkpoint = lease.checkpoint();
        let from = checkpoint.position().unwrap_or(StartingPosition::TrimHorizon);
        let cursor = stream.shard_iterator(info.id, from)?;
        let first = cursor.sequence_number().address().unwrap_or(0);
        ahead.forget_below(first);
        let stored = checkpoint.number().and_then(|number| number.address()).unwrap_or(first);
        Ok(Self {
            shard: info.id,
            parents: info.parents().collect(),
            window: Window::default(),
            ahead,
            lost: 0,
            lease,
            cursor: Some(cursor),
            page: Arc::new(Batch::new(info.id)),
            next: 0,
            has_told_end: false,
            told: 0,
            stored,
            skipped: None,
        })
    }

    /// Whether a record is at hand that is not in the window yet; reads on if none is.
    pub(super) fn has_next(&mut self, stream: &Stream) -> Result<bool> {
        while self.next == self.page.len() {
            let Some(cursor) = &self.cursor else { return Ok(false) };
            let page = stream.get_records(cursor, Limit::records(PAGE))?;
            self.lost += page.gap.and_then(|gap| gap.records).unwrap_or(0);
            let is_empty = page.records.is_empty();
            self.cursor = page.next_shard_iterator;
            (self.page, self.next) = (Arc::new(page.records), 0);
            if is_empty && self.cursor.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The number of the record at hand.
    pub(super) fn next_address(&self) -> Option<u64> {
        self.page.get(self.next)?.sequence_number().address()
    }

    /// Takes the record at hand, and what the journal says of it.
    pub(super) fn take_next(&mut self) -> (Next, Option<Known>) {
        let address = self.next_address().expect("a record is at hand");
        let known = if self.ahead.len() == 0 { None } else { self.ahead.get(address) };
        if known.is_some() {
            self.ahead.forget_below(address + 1);
        }
        self.next += 1;
        (Next { address, batch: Arc::clone(&self.page), at: self.next - 1 }, known)
    }

    /// Reads a record of the window again; none if retention has removed it.
    pub(super) fn read_again(&self, stream: &Stream, address: u64) -> Result<Option<Next>> {
        let at = StartingPosition::AtSequenceNumber(address.into());
        let iterator = stream.shard_iterator(self.shard, at)?;
        let batch = stream.get_records(&iterator, Limit::records(1))?.records;
        let is_there = batch.last_sequence_number() == Some(address.into());
        Ok(is_there.then(|| Next { address, batch: Arc::new(batch), at: 0 }))
    }

    /// Everything below this number was read, but what is at hand.
    pub(super) fn read_to(&self) -> u64 {
        let at_cursor = || self.cursor.as_ref().and_then(|at| at.sequence_number().address());
        self.next_address()
            .or_else(at_cursor)
            .or(self.window.ends().map(|(_, last)| last))
            .unwrap_or(0)
    }

    /// Where to wait for more: none if there is more at hand, or will be nothing.
    pub(super) fn tip(&self) -> Option<&ShardIterator> {
        self.cursor.as_ref().filter(|_| self.next == self.page.len() && !self.window.is_full())
    }

    /// What of the shard is not in the window yet.
    pub(super) fn lag(&self, stream: &Stream) -> Result<Lag> {
        let mut lag = self.cursor.as_ref().map_or(Ok(Lag::default()), |at| stream.lag(at))?;
        lag.records += (self.page.len() - self.next) as u64;
        Ok(lag)
    }

    /// Whether the end of a closed shard was read, and nobody was told so before.
    pub(super) fn ends_now(&mut self) -> bool {
        self.has_ended() && !mem::replace(&mut self.has_told_end, true)
    }

    fn has_ended(&self) -> bool {
        self.cursor.is_none() && self.next == self.page.len()
    }

    /// The first record that is not done, if so much was read behind it that it is to be told of,
    /// and it was not before.
    pub(super) fn stuck_now(&mut self) -> Option<Stuck> {
        let (first, last) = self.window.ends()?;
        let is_news = last - first > TOLD_BYTES && mem::replace(&mut self.told, first) != first;
        is_news.then(|| Stuck { shard: self.shard, address: first, bytes: last - first })
    }

    /// Whether everything of a closed shard is done.
    pub(super) fn is_done(&self) -> bool {
        self.has_ended() && self.window.is_done()
    }

    /// Reads on behind all that was put up to now: behind which number.
    pub(super) fn skip_to_tip(&mut self, stream: &Stream) -> Result<u64> {
        let latest = stream.shard_iterator(self.shard, StartingPosition::Latest)?;
        let to = latest.sequence_number().address().unwrap_or(0).max(1);
        self.ahead.forget_below(to);
        self.cursor = Some(latest);
        (self.page, self.next) = (Arc::new(Batch::new(self.shard)), 0);
        self.skipped = Some(to - 1);
        Ok(to)
    }

    /// Everything up to and with this number is done.
    fn through(&self) -> Option<u64> {
        self.window.through().max(self.skipped)
    }

    /// Stores how far the shard is done, if that has got on enough or `now` is meant.
    pub(super) fn store(&mut self, now: bool) -> Result<()> {
        let checkpoint = match self.through() {
            _ if self.is_done() => Checkpoint::ShardEnd,
            Some(through)
                if through > self.stored && (now || through - self.stored > MAX_ROW_LAG) =>
            {
                self.stored = through;
                Checkpoint::AfterSequenceNumber(through.into())
            }
            _ => return Ok(()),
        };
        self.lease.store(checkpoint, Vec::new())
    }

    /// Gives the shard back.
    pub(super) fn release(&mut self) -> Result<()> {
        self.lease.release()
    }

    /// How it stands, for a snapshot of the journal.
    pub(super) fn known(&self, parts: &mut Vec<(Span, Known)>) {
        let mut say = |from, to, known| {
            parts.push((Span { shard: self.shard, from, to }, known));
        };
        if let Some(through) = self.through() {
            say(0, through + 1, Known::Done);
        }
        self.window.known(&mut say);
        self.ahead.iter().for_each(|(from, to, known)| say(from, to, known));
    }
}
