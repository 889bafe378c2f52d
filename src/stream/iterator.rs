//! Reading: a shard iterator says where, a page is what was there.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::frame::Header;
use crate::format::segment_header::SEGMENT_HEADER_LEN;
use crate::lineage::ShardInfo;
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::record::{Gap, Lag, Limit};
use crate::shard::Shard;
use crate::shard::cursor::{Place, Reading};
use crate::stream::Stream;

/// A place in a shard to read from: a plain value that never expires. Reading does not change it;
/// the page that was read has the next one.
///
/// It can be stored as text, and parsed in any process that reads the stream. As long as it is in
/// memory it keeps the segment mapped that it was read from, so that the next page is at hand.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{ShardId, ShardIterator, StartingPosition};
///
/// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
/// let stored = iterator.to_string();
/// assert!(stored.starts_with("shardId-000000000000:"));
/// let iterator: ShardIterator = stored.parse()?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone)]
pub struct ShardIterator {
    shard: ShardId,
    pub(super) place: Place,
    /// How many frames there are before the place, if that is known.
    ordinal: Option<u64>,
}

impl ShardIterator {
    /// The shard it reads.
    pub fn shard(&self) -> ShardId {
        self.shard
    }

    /// The next record it reads has this number or a higher one.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.place.address.into()
    }
}

impl fmt::Debug for ShardIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ShardIterator({} at {})", self.shard, self.place.address)
    }
}

impl fmt::Display for ShardIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.shard, self.place.address)
    }
}

impl FromStr for ShardIterator {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidArgument`] if the text is not what an iterator prints as.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once(':').and_then(|(shard, number)| {
            let number: SequenceNumber = number.parse().ok()?;
            Some((shard.parse().ok()?, number.address()?))
        });
        let (shard, address) = parts.ok_or_else(|| {
            let what =
                format!("{text:?} is no shard iterator; one looks like {}:7", ShardId::new(7));
            Error::InvalidArgument(what)
        })?;
        Ok(Self { shard, place: Place { address, segment: None }, ordinal: None })
    }
}

/// Where a page begins.
struct Start {
    place: Place,
    /// How many frames there are before it, if that is known.
    ordinal: Option<u64>,
    /// What would have come before, and is gone.
    gap: Option<Gap>,
}

/// What [`get_records`](Stream::get_records) found.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Limit, ShardId, StartingPosition};
///
/// stream.put("customer-7", "clicked")?;
/// let children = stream.split_mid(ShardId::new(0))?;
/// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
/// let page = stream.get_records(&iterator, Limit::default())?;
/// assert_eq!(page.records.len(), 1);
/// // The shard is closed, and this is all that it has.
/// assert!(page.next_shard_iterator.is_none());
/// assert_eq!(page.child_shards[0].id, children[0]);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// The records; empty only if the iterator is behind the newest one.
    pub records: Batch,
    /// Where to read on; none behind the last record of a closed shard.
    pub next_shard_iterator: Option<ShardIterator>,
    /// If the closed shard ends here: the shards that its hash keys went to.
    pub child_shards: Vec<ShardInfo>,
    /// If retention has removed records that the iterator would have read: which ones. The page
    /// begins behind them.
    pub gap: Option<Gap>,
}

impl Stream {
    /// An iterator that reads a shard from this position on.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`]; [`Error::WrongShard`] if a number lies below the shard's
    /// `starting_sequence_number` or, if the shard is closed, above its `ending_sequence_number`;
    /// what reading says if the position is looked for by time.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Limit, ShardId, StartingPosition};
    ///
    /// let mut iterator =
    ///     stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon)?;
    /// stream.put("customer-7", "clicked")?;
    /// let page = stream.get_records(&iterator, Limit::default())?;
    /// assert_eq!(page.records.len(), 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn shard_iterator(&self, shard: ShardId, from: StartingPosition) -> Result<ShardIterator> {
        let (info, at) = self.shard(shard)?;
        at.refresh()?;
        self.expire(&at)?;
        let number = |number: SequenceNumber| {
            let address = number.address().filter(|_| info.may_have(number));
            address.ok_or_else(|| {
                let lies_in = self.relative_with(&info, number);
                Error::WrongShard { shard, sequence_number: number, lies_in }
            })
        };
        let at_address = |address| Place { address, segment: None };
        let (place, ordinal) = self.unless_trimmed(&at, || {
            Ok(match from {
                StartingPosition::TrimHorizon => {
                    let (horizon, trimmed) = at.log.horizon_place()?;
                    let end = info.ending_sequence_number.and_then(SequenceNumber::address);
                    (at_address(end.map_or(horizon, |end| horizon.min(end))), Some(trimmed))
                }
                StartingPosition::Latest => match info.ending_sequence_number {
                    // Nothing comes behind it.
                    Some(end) => (at_address(number(end)?), Some(at.tip()?.frames)),
                    None => {
                        let tip = at.tip()?;
                        (tip.place, Some(tip.frames))
                    }
                },
                StartingPosition::AtSequenceNumber(at) => (at_address(number(at)?), None),
                StartingPosition::AfterSequenceNumber(after) => {
                    (at_address(number(after)?.saturating_add(1)), None)
                }
                StartingPosition::AtTimestampMs(time_ms) => (at.log.find_time(time_ms)?, None),
            })
        })?;
        Ok(ShardIterator { shard, place, ordinal })
    }

    /// An iterator that reads the newest `count` records of a shard (all, if there are fewer), and
    /// then what is put later. Finding it takes as long as reading these records, however many
    /// others there are.
    ///
    /// # Errors
    /// As [`shard_iterator`](Self::shard_iterator).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Limit, ShardId};
    ///
    /// for n in 1..=100 {
    ///     stream.put("customer-7", format!("{n}"))?;
    /// }
    /// let iterator = stream.tail(ShardId::new(0), 3)?;
    /// let records = stream.get_records(&iterator, Limit::default())?.records;
    /// let data: Vec<_> = records.iter().map(|record| record.data()).collect();
    /// assert_eq!(data, [b"98", b"99", &b"100"[..]]);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn tail(&self, shard: ShardId, count: usize) -> Result<ShardIterator> {
        let (_, at) = self.shard(shard)?;
        self.expire(&at)?;
        let first = if count == 0 { None } else { at.last(count)? };
        match first {
            Some(Header { address, .. }) => {
                Ok(ShardIterator { shard, place: Place { address, segment: None }, ordinal: None })
            }
            None => self.shard_iterator(shard, StartingPosition::Latest),
        }
    }

    /// Reads the records at an iterator, as many as the limit allows; at least one if there is one.
    /// A page without records has a next iterator too: it is as good as the old one.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the next record is not as it was written; [`Error::StreamNotFound`] if
    /// another process has removed the stream; [`Error::ShardNotFound`] and [`Error::WrongShard`]
    /// if the iterator was parsed and is none of this stream.
    pub fn get_records(&self, iterator: &ShardIterator, limit: Limit) -> Result<Page> {
        let shard = iterator.shard;
        let at = self.at(iterator)?;
        let (mut reading, start) = self.read(&at, iterator, limit, |reading| {
            reading.records.set_lag(at.lag(reading, self.now_ms())?);
            Ok(())
        })?;
        reading.records.set_gap(start.gap);
        let at_the_end = reading.next_arrival_ms.is_none();
        let closed = at_the_end && {
            self.refresh()?;
            let end = self.look_up(shard, |info, _| info.ending_sequence_number)?;
            // What was read may be older than the end: there may be segments in between.
            end.and_then(SequenceNumber::address).is_some_and(|end| reading.complete_to >= end)
        };
        let child_shards = if closed { self.children(shard)? } else { Vec::new() };
        let ordinal =
            if reading.records.is_empty() { start.ordinal } else { Some(reading.ordinal) };
        let next = ShardIterator { shard, place: reading.next, ordinal };
        Ok(Page {
            records: reading.records,
            next_shard_iterator: (!closed).then_some(next),
            child_shards,
            gap: start.gap,
        })
    }

    /// Reads at an iterator or, if retention has removed what was there, at the horizon: what was
    /// read, and where that begins. `complete` adds what else has to be of the same moment.
    fn read(
        &self,
        shard: &Shard,
        iterator: &ShardIterator,
        limit: Limit,
        complete: impl Fn(&mut Reading) -> Result<()>,
    ) -> Result<(Reading, Start)> {
        self.expire(shard)?;
        self.unless_trimmed(shard, || {
            let is_trimmed = iterator.place.address <= shard.log.horizon.through();
            let start = match is_trimmed {
                true => self.beyond_gap(shard, iterator)?,
                false => {
                    let ShardIterator { place, ordinal, .. } = iterator.clone();
                    Start { place, ordinal, gap: None }
                }
            };
            let mut reading = shard.read(&start.place, limit)?;
            complete(&mut reading)?;
            Ok((reading, start))
        })
    }

    /// Where to read on instead of at an iterator whose records were trimmed.
    fn beyond_gap(&self, shard: &Shard, iterator: &ShardIterator) -> Result<Start> {
        let log = &shard.log;
        let from = iterator.place.address;
        let (to, trimmed) = log.horizon_place()?;
        let ordinal = match iterator.ordinal {
            None if from <= log.start + u64::from(SEGMENT_HEADER_LEN) => Some(0),
            // Its place is still there.
            None if from > log.horizon.trimmed().base => Some(log.place_behind(from - 1)?.1),
            known => known,
        };
        let records = ordinal.map(|ordinal| trimmed.saturating_sub(ordinal));
        let gap = Gap { from: from.into(), to: to.into(), records };
        let place = Place { address: to, segment: None };
        let gap = Some(gap).filter(|gap| gap.records != Some(0));
        Ok(Start { place, ordinal: Some(trimmed), gap })
    }

    /// How far an iterator is behind the newest record of its shard.
    ///
    /// # Errors
    /// As [`get_records`](Self::get_records).
    pub fn lag(&self, iterator: &ShardIterator) -> Result<Lag> {
        let at = self.at(iterator)?;
        let (reading, start) = self.read(&at, iterator, Limit::records(1), |_| Ok(()))?;
        let behind = at.lag(&reading, self.now_ms())?;
        let Some(first) = reading.records.iter().next() else { return Ok(behind) };
        let tip = at.tip()?;
        Ok(Lag {
            records: tip.frames.saturating_sub(reading.ordinal.saturating_sub(1)),
            bytes: at.log.index.bytes_between(start.place.address, tip.place.address),
            millis: self.now_ms().saturating_sub(first.arrival_ms()),
        })
    }

    /// The shard that an iterator reads. One that was parsed may be of another.
    fn at(&self, iterator: &ShardIterator) -> Result<Arc<Shard>> {
        let shard = iterator.shard;
        let Place { address, segment } = &iterator.place;
        let (at, is_of_it) = self.look_up(shard, |info, at| {
            // Behind the last number it stands at the end.
            let last = address.saturating_sub(1).max(at.log.start);
            let is_of_it = *address >= at.log.start && info.may_have(last.into());
            (Arc::clone(at), segment.is_some() || is_of_it)
        })?;
        if !is_of_it {
            let (info, _) = self.shard(shard)?;
            let sequence_number = iterator.sequence_number();
            let lies_in = self.relative_with(&info, sequence_number);
            return Err(Error::WrongShard { shard, sequence_number, lies_in });
        }
        Ok(at)
    }
}
