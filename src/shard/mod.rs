//! A shard: an append-only log of records in memory-mapped segments.
//!
//! It knows segments and sequence numbers; which keys come here, and who reads, is not its
//! business. A number is the address of a record's frame in the shard's unbounded log, so one
//! `fetch_add` grants number and place together ([`tail`]), and seeking needs no index on disk.

pub(crate) mod append;
mod backward;
mod conditional;
pub(crate) mod cursor;
pub(crate) mod flush;
pub(crate) mod horizon;
pub(crate) mod index;
#[cfg(all(test, any(loom, shuttle)))]
mod interleavings;
mod maintenance;
mod next;
pub(crate) mod recovery;
pub(crate) mod ring;
pub(crate) mod room;
pub(crate) mod segment;
pub(crate) mod tail;
pub(crate) mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::frame::{Header, frame_len};
use crate::format::manifest::Trimmed;
use crate::format::segment_header::SEGMENT_HEADER_LEN;
use crate::os::fs;
use crate::os::signal::Event;
use crate::position::ShardId;
use crate::record::{Key, Lag, Limit};
use crate::seeded::bug;
use crate::shard::append::{Copied, Fill, InPlace};
use crate::shard::cursor::{Place, Reading};
use crate::shard::horizon::Horizon;
use crate::shard::index::Index;
use crate::shard::room::Room;
use crate::shard::segment::Segment;
use crate::shard::writer::Writer;

/// A batch claims at most this many bytes at once (or one record), so that little is wasted where
/// a claim crosses the end of a segment.
const MAX_BATCH_CLAIM: u32 = 64 << 10;

/// The log of a shard as everybody sees it who reads or writes it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(crate) shard: ShardId,
    /// The stream's identity.
    pub(crate) stream: u64,
    pub(crate) directory: PathBuf,
    /// All numbers are at least this one.
    pub(crate) start: u64,
    pub(crate) max_segment_bytes: u64,
    /// What the segments of all shards may take.
    pub(crate) room: Arc<Room>,
    pub(crate) horizon: Horizon,
    pub(crate) index: Index,
}

/// Behind all that was claimed in a shard: where, and how many frames.
#[derive(Clone, Debug)]
pub(crate) struct Tip {
    pub(crate) place: Place,
    pub(crate) frames: u64,
}

/// A shard of an open stream.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) log: Log,
    /// Set while the shard waits for maintenance.
    pub(crate) awaits_maintenance: AtomicBool,
    /// Set while the shard waits to be flushed.
    pub(crate) awaits_flush: AtomicBool,
    side: Side,
}

#[derive(Debug)]
enum Side {
    Writer(Box<Writer>),
    /// Another process writes.
    Reader(Seen),
}

/// What a reader has seen of what another process writes.
#[derive(Debug, Default)]
struct Seen {
    /// The tip that was seen last.
    tip: Mutex<Option<Tip>>,
    /// Segments were trimmed since the directory was looked at last. Set by whoever learns of it,
    /// cleared by the one who looks; the lock of the index orders the look, not this.
    is_outdated: AtomicBool,
}

/// The bytes that a record of this key and data takes in the log.
fn record_len(key: Key<'_>, data_len: usize) -> u32 {
    frame_len((key.text.len() + data_len) as u32)
}

/// An acknowledged place: the record's number, and the address that durability has to pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) address: u64,
    pub(crate) end: u64,
    /// Somebody should see to the pages and segments that come next.
    pub(crate) maintain: bool,
}

impl Shard {
    /// Opens a shard for writing. Nobody else does.
    pub(crate) fn open(log: Log) -> Result<Self> {
        recovery::remove_trimmed(&log)?;
        let mut segments = recovery::survey(&log)?;
        let writer = Writer::open(&log, &mut segments)?;
        log.index.update(segments);
        Ok(Self::new(log, Side::Writer(Box::new(writer))))
    }

    /// Opens a shard for reading, beside the process that writes it.
    pub(crate) fn open_read_only(log: Log) -> Result<Self> {
        let shard = Self::new(log, Side::Reader(Seen::default()));
        shard.refresh()?;
        Ok(shard)
    }

    fn new(log: Log, side: Side) -> Self {
        let (awaits_maintenance, awaits_flush) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { log, awaits_maintenance, awaits_flush, side }
    }

    fn writer(&self) -> Result<&Writer> {
        match &self.side {
            Side::Writer(writer) => Ok(writer),
            Side::Reader(_) => Err(Error::ReadOnly),
        }
    }

    /// Whether news are made in this process; otherwise another one makes them.
    pub(crate) fn is_written_here(&self) -> bool {
        matches!(self.side, Side::Writer(_))
    }

    /// Notifies `event` when something is published from now on, or the shard has ended; never if
    /// another process writes. The caller looks for news afterwards, before it sleeps, and sleeps
    /// for long only if nobody [is about to publish](Self::is_claimed_behind).
    pub(crate) fn listen(&self, event: &Arc<Event>) {
        if let Side::Writer(writer) = &self.side {
            writer.listen(event);
        }
    }

    /// Does not notify `event` any more.
    pub(crate) fn forget(&self, event: &Arc<Event>) {
        if let Side::Writer(writer) = &self.side {
            writer.forget(event);
        }
    }

    /// Wakes all who listen.
    pub(crate) fn wake(&self) {
        if let Side::Writer(writer) = &self.side {
            writer.wake();
        }
    }

    /// Whether more is claimed than what is published up to a place where nothing was found; always
    /// if another process writes, of which nobody knows.
    pub(crate) fn is_claimed_behind(&self, place: &Place) -> bool {
        match &self.side {
            Side::Writer(writer) => writer.tip().place.address > place.address,
            Side::Reader(_) => true,
        }
    }

    /// Appends a record whose data is there.
    #[inline]
    pub(crate) fn append(&self, key: Key<'_>, data: &[u8], arrival_ms: u64) -> Result<Appended> {
        self.append_fill(key, data.len(), arrival_ms, Copied::new(data))
    }

    /// Appends a record whose data are made in place. If that panics, there is no record.
    pub(crate) fn append_with(
        &self,
        key: Key<'_>,
        data_len: usize,
        arrival_ms: u64,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Appended> {
        self.append_fill(key, data_len, arrival_ms, InPlace(fill))
    }

    #[inline]
    fn append_fill(
        &self,
        key: Key<'_>,
        data_len: usize,
        arrival_ms: u64,
        data: impl Fill,
    ) -> Result<Appended> {
        let writer = self.writer()?;
        let claim = writer.claim(&self.log, record_len(key, data_len), 1)?;
        Ok(writer.publish(claim, key, data_len, arrival_ms, data))
    }

    /// Appends records (keys and data) in order; `done` is told of each. What could not be claimed
    /// is not appended, nor is anything after it.
    pub(crate) fn append_batch<'r>(
        &self,
        mut records: impl Iterator<Item = (Key<'r>, &'r [u8])> + Clone,
        arrival_ms: u64,
        mut done: impl FnMut(Appended),
    ) -> Result<()> {
        let writer = self.writer()?;
        loop {
            let (mut len, mut count) = (0, 0);
            for (key, data) in records.clone() {
                let more = record_len(key, data.len());
                if count > 0 && len + more > MAX_BATCH_CLAIM {
                    break;
                }
                len += more;
                count += 1;
            }
            if count == 0 {
                return Ok(());
            }
            let claim = writer.claim(&self.log, len, count)?;
            let _wake = writer.wake_after(&claim);
            let mut claim = claim;
            let (mut maintain, end) = (claim.asks_for_maintenance(), claim.end_address());
            let durable = writer.watermark.get();
            for (key, data) in records.by_ref().take(count as usize) {
                let (data_len, data) = (data.len(), Copied::new(data));
                let address = claim.publish(key, data_len, arrival_ms, durable, data);
                done(Appended { address, end, maintain });
                maintain = false;
            }
        }
    }

    /// Returns when everything below `address`, which was claimed, is durable.
    pub(crate) fn sync_to(&self, address: u64) -> Result<()> {
        if bug("ack_before_sync") {
            return Ok(());
        }
        self.writer()?.sync_to(address)
    }

    /// Makes everything durable that was published before.
    pub(crate) fn flush(&self) -> Result<()> {
        let writer = self.writer()?;
        writer.sync_to(writer.tip().place.address)
    }

    /// Prepares what comes next for the producers.
    pub(crate) fn prepare(&self) -> Result<()> {
        self.writer()?.prepare(&self.log)
    }

    /// Settles what the producers left behind.
    pub(crate) fn settle(&self) -> Result<()> {
        self.writer()?.settle(&self.log)
    }

    /// Settles all that is published of them.
    pub(crate) fn finish(&self) -> Result<()> {
        let writer = self.writer()?;
        writer.retire_finished(&self.log);
        writer.settle(&self.log)
    }

    /// Ends the shard: nothing is granted any more. The number that no record is above.
    pub(crate) fn end(&self) -> Result<u64> {
        self.writer()?.end(&self.log)
    }

    /// Takes records again, after `end`.
    pub(crate) fn reopen(&self) -> Result<()> {
        self.writer()?.reopen();
        Ok(())
    }

    /// Takes no records any more: it is unknown whether it has ended on the disk.
    pub(crate) fn poison(&self, cause: String) -> Result<()> {
        self.writer()?.watermark.poison(cause);
        Ok(())
    }

    /// Leaves the shard in good order.
    pub(crate) fn close(&self) -> Result<()> {
        match &self.side {
            Side::Writer(writer) => writer.close(&self.log),
            Side::Reader(_) => Ok(()),
        }
    }

    /// Looks what another process has done; nothing to do for the one that writes.
    pub(crate) fn refresh(&self) -> Result<()> {
        let Side::Reader(seen) = &self.side else { return Ok(()) };
        loop {
            match self.look(seen.is_outdated.swap(false, Ordering::Relaxed)) {
                // It was trimmed between two looks; it is not listed any more.
                Err(error) if error.is_not_found() => {}
                looked => return looked,
            }
        }
    }

    fn look(&self, is_outdated: bool) -> Result<()> {
        let log = &self.log;
        let (known, last) = log.index.bases();
        let names = fs::list(&log.directory)?;
        let bases: Vec<_> = names.iter().filter_map(|name| segment::base_of(name)).collect();
        // Those that are made, but not begun, are not known yet.
        let is_complete = known.len() == bases.len() || !self.last_has_ended(&known)?;
        if bases.starts_with(&known)
            && bases.len() <= known.len() + 1
            && is_complete
            && !is_outdated
            && recovery::is_still(&log.directory, last.as_ref())?
        {
            return Ok(());
        }
        let mut segments = recovery::survey(log)?;
        let begun = recovery::number(&mut segments, log.horizon.trimmed().frames, |found| {
            let segment = found.open(found.fate)?;
            let mut frames = 0;
            let each = |_, header: Header| frames = header.ordinal.saturating_add(1);
            let (_, has_ended) = segment.walk(SEGMENT_HEADER_LEN, each);
            Ok((frames, has_ended))
        })?;
        segments.truncate(begun);
        log.index.update(segments);
        Ok(())
    }

    /// Learns what was trimmed.
    pub(crate) fn learn_trimmed(&self, trimmed: Trimmed) {
        if self.log.horizon.raise(trimmed)
            && let Side::Reader(seen) = &self.side
        {
            self.log.forget_below(trimmed.base);
            seen.is_outdated.store(true, Ordering::Relaxed);
            *seen.tip.lock() = None;
        }
    }

    /// Ends the segment that is being written, if nothing is left of it behind what is trimmed.
    pub(crate) fn end_idle(&self, address: u64) -> Result<()> {
        self.writer()?.end_idle(&self.log, address)
    }

    /// Whether the last of the known segments has ended, as far as its frames tell.
    fn last_has_ended(&self, known: &[u64]) -> Result<bool> {
        let Some(last) = known.last() else { return Ok(true) };
        Ok(self.log.index.at_or_above(*last)?.is_none_or(|segment| segment.published().1))
    }

    /// Reads from a place on.
    pub(crate) fn read(&self, place: &Place, limit: Limit) -> Result<Reading> {
        if let Side::Reader(seen) = &self.side
            && seen.is_outdated.load(Ordering::Relaxed)
        {
            // What is known may have been counted from a wrong beginning.
            self.refresh()?;
        }
        let reading = self.log.read(place, limit);
        if self.is_written_here()
            || reading.as_ref().is_ok_and(|reading| !reading.records.is_empty())
        {
            return reading;
        }
        self.refresh()?;
        // What is known of the segment may be more now: where it was cut off, or that another one
        // has taken the place of one that was never used.
        let Place { address, segment } = reading.map_or_else(|_| place.clone(), |it| it.next);
        let segment = match segment {
            Some(_) => self.log.index.at_or_above(address)?.filter(|now| now.has(address)),
            None => None,
        };
        self.log.read(&Place { address, segment }, limit)
    }

    /// Whether something has changed at a place since it was read, as far as one look at one word
    /// tells; if not, nothing can be read there.
    #[inline]
    pub(crate) fn may_have_news(&self, place: &Place) -> bool {
        let Some(segment) = &place.segment else { return true };
        !self.is_written_here() || !segment.is_unpublished(segment.offset(place.address))
    }

    /// Behind all that was claimed (or, read-only, published).
    pub(crate) fn tip(&self) -> Result<Tip> {
        let last_seen = match &self.side {
            Side::Writer(writer) => return Ok(writer.tip()),
            Side::Reader(seen) => &seen.tip,
        };
        self.refresh()?;
        let mut last_seen = last_seen.lock();
        let mut tip = match last_seen.take() {
            Some(tip) => tip,
            None => self.log.last_known_tip()?,
        };
        self.log.advance(&mut tip)?;
        *last_seen = Some(tip.clone());
        Ok(tip)
    }

    /// The record that has `count - 1` others behind it, or the oldest one if there are fewer; none
    /// if there is no record. What is told of it was verified.
    pub(crate) fn last(&self, count: usize) -> Result<Option<Header>> {
        self.refresh()?;
        self.log.last(count)
    }

    /// What the shard has from a reading's end on.
    pub(crate) fn lag(&self, reading: &Reading, now_ms: u64) -> Result<Lag> {
        let Some(arrival_ms) = reading.next_arrival_ms else { return Ok(Lag::default()) };
        let tip = self.tip()?;
        Ok(Lag {
            records: tip.frames.saturating_sub(reading.ordinal),
            bytes: self.log.index.bytes_between(reading.next.address, tip.place.address),
            millis: now_ms.saturating_sub(arrival_ms),
        })
    }
}

impl Segment {
    /// Whether an address lies in it.
    fn has(&self, address: u64) -> bool {
        (self.start()..=self.limit()).contains(&address)
    }
}

#[cfg(test)]
mod images;
