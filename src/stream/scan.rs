//! Several shards read as one: each in order, parents before children, otherwise by arrival.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::lineage::ShardInfo;
use crate::os::signal::Event;
use crate::position::{ShardId, StartingPosition};
use crate::record::{Limit, Record};
use crate::stream::scanned::{Reader, ScannedRecord};
use crate::stream::wait::POLL;
use crate::stream::{ShardIterator, Stream};

/// How much is read of a shard at once: many may be read beside each other.
const PAGE: usize = 1000;

/// Reads several shards as one; made by [`Stream::scan`], [`Stream::scan_key`] and
/// [`Stream::scan_from`].
///
/// Records of one shard come in the order of their numbers, those of a shard that was split or
/// merged before those of its children, and shards beside each other are merged by arrival (at the
/// same time, by shard). So records of one key are in order, whatever the clock did.
///
/// It is an iterator of results, and ends where the newest records were when it was made. After an
/// error nothing more comes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
///
/// stream.put("customer-7", "clicked")?;
/// // `follow` goes on behind the newest record; without it, the scan ends there.
/// let mut scan = stream.scan(..)?.follow();
/// while let Some(scanned) = scan.next() {
///     println!("{:?}", scanned?.record());
/// }
/// stream.put("customer-7", "left")?;
/// assert!(scan.wait(Duration::from_secs(10))?);
/// assert_eq!(scan.next().expect("it was waited for")?.record().data(), b"left");
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Debug)]
pub struct Scan {
    stream: Stream,
    wanted: Wanted,
    follow: Follow,
    /// Shards whose turn comes when their parents have been read.
    waiting: BTreeMap<ShardId, (ShardInfo, Reader)>,
    readers: BTreeMap<ShardId, Reader>,
    /// The shards that have been read.
    finished: HashSet<ShardId>,
    /// The shards that have a record in hand, by the arrival of that record.
    in_hand: BinaryHeap<Reverse<(u64, ShardId)>>,
    /// The shards of which another page is to be read.
    to_read: Vec<ShardId>,
    /// The shards that had nothing more at the last look, if that is not the end.
    at_tip: Vec<ShardId>,
}

/// Which records are wanted.
#[derive(Debug)]
struct Wanted {
    arrival_ms: (Bound<u64>, Bound<u64>),
    partition_key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    No,
    Shards,
    Lineage,
}

impl Stream {
    /// All records that arrived in a range of time, in milliseconds since 1970, and are there now.
    ///
    /// Arrival may step back with the clock; so each shard is read from the first record on that
    /// arrived in the range or later.
    ///
    /// # Errors
    /// What reading says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).shards(4).open()?;
    /// for key in ["a", "b", "c", "d"] {
    ///     stream.put(key, "clicked")?;
    /// }
    /// for scanned in stream.scan(..)? {
    ///     let scanned = scanned?;
    ///     println!("{} {:?}", scanned.shard(), scanned.record());
    /// }
    /// assert_eq!(stream.scan(1_700_000_000_000..)?.count(), 4);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn scan(&self, arrival_ms: impl RangeBounds<u64>) -> Result<Scan> {
        self.scan_shards(self.shards(), &arrival_ms, None)
    }

    /// The records of one partition key that arrived in a range of time, in milliseconds since
    /// 1970, and are there now: in the order in which they were put. Only those shards are read
    /// that the key went to, so records that were put with an explicit hash key are not found.
    ///
    /// # Errors
    /// What reading says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::ShardId;
    ///
    /// stream.put("customer-7", "clicked")?;
    /// stream.split_mid(ShardId::new(0))?;
    /// stream.put("customer-7", "left")?;
    /// let clicks = stream.scan_key("customer-7", ..)?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(clicks[1].record().data(), b"left");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn scan_key(&self, partition_key: &str, arrival_ms: impl RangeBounds<u64>) -> Result<Scan> {
        let hash_key = self.hash_algorithm().hash(partition_key);
        let mut shards = self.shards();
        shards.retain(|shard| shard.hash_key_range.contains(hash_key));
        self.scan_shards(shards, &arrival_ms, Some(partition_key))
    }

    /// What is there now at these iterators and behind them, one of each shard to be read.
    ///
    /// # Errors
    /// What reading says.
    pub fn scan_from(&self, iterators: impl IntoIterator<Item = ShardIterator>) -> Result<Scan> {
        let mut scan = Scan::new(self, (Bound::Unbounded, Bound::Unbounded), None);
        for iterator in iterators {
            scan.add(self.shard(iterator.shard())?.0, iterator)?;
        }
        scan.start_ready();
        Ok(scan)
    }

    fn scan_shards(
        &self,
        shards: Vec<ShardInfo>,
        arrival_ms: &impl RangeBounds<u64>,
        partition_key: Option<&str>,
    ) -> Result<Scan> {
        let bounds = (arrival_ms.start_bound().cloned(), arrival_ms.end_bound().cloned());
        let from = match bounds.0 {
            Bound::Included(ms) => StartingPosition::AtTimestampMs(ms),
            Bound::Excluded(ms) => StartingPosition::AtTimestampMs(ms.saturating_add(1)),
            Bound::Unbounded => StartingPosition::TrimHorizon,
        };
        let mut scan = Scan::new(self, bounds, partition_key);
        for info in shards {
            let iterator = self.shard_iterator(info.id, from)?;
            scan.add(info, iterator)?;
        }
        scan.start_ready();
        Ok(scan)
    }
}

impl Scan {
    fn new(stream: &Stream, arrival_ms: (Bound<u64>, Bound<u64>), key: Option<&str>) -> Self {
        Self {
            stream: stream.clone(),
            wanted: Wanted { arrival_ms, partition_key: key.map(str::to_owned) },
            follow: Follow::No,
            waiting: BTreeMap::new(),
            readers: BTreeMap::new(),
            finished: HashSet::new(),
            in_hand: BinaryHeap::new(),
            to_read: Vec::new(),
            at_tip: Vec::new(),
        }
    }

    /// Reads a shard as well, up to what there is now.
    fn add(&mut self, info: ShardInfo, iterator: ShardIterator) -> Result<()> {
        let latest = self.stream.shard_iterator(info.id, StartingPosition::Latest)?;
        let reader = Reader::new(iterator, latest.sequence_number());
        self.waiting.insert(info.id, (info, reader));
        Ok(())
    }

    /// Goes on behind what there is now: at the tips [`next`](Iterator::next) gives nothing, but
    /// may be called again, best after [`wait`](Self::wait). It ends when all of its shards do.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    ///
    /// let mut scan = stream.scan(..)?.follow();
    /// assert!(scan.next().is_none() && !scan.is_finished());
    /// stream.put("customer-7", "clicked")?;
    /// assert!(scan.wait(Duration::from_secs(1))?);
    /// assert_eq!(scan.next().expect("it was just put")?.record().data(), b"clicked");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn follow(mut self) -> Self {
        self.follow = Follow::Shards;
        self
    }

    /// As [`follow`](Self::follow), and goes on in the children of shards that are split or merged:
    /// it never ends.
    pub fn follow_lineage(mut self) -> Self {
        self.follow = Follow::Lineage;
        self
    }

    /// Whether no more records will come.
    pub fn is_finished(&self) -> bool {
        self.readers.is_empty() && self.waiting.is_empty()
    }

    /// Waits until there may be more: true; or for so long: false. If it does not follow, or is
    /// finished, there is nothing to wait for.
    ///
    /// # Errors
    /// What reading says.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool> {
        if self.at_tip.is_empty() || !self.in_hand.is_empty() || !self.to_read.is_empty() {
            return Ok(true);
        }
        let event = Arc::new(Event::default());
        let has_news = self.wait_at_tips(&event, timeout);
        self.forget(&event)?;
        if let Ok(true) = has_news {
            self.look_at_tips();
        }
        has_news
    }

    /// Notifies `event` when there is more at the tips. False if that is not certain: then the
    /// caller looks again soon.
    pub(super) fn notify_at_tips(&self, event: &Arc<Event>) -> Result<bool> {
        let mut rings = true;
        for shard in &self.at_tip {
            if let Some(iterator) = &self.readers[shard].iterator {
                rings &= self.stream.notify(iterator, event)?;
            }
        }
        Ok(rings)
    }

    /// Does not notify `event` any more.
    pub(super) fn forget(&self, event: &Arc<Event>) -> Result<()> {
        self.at_tip.iter().try_for_each(|shard| self.stream.forget(*shard, event))
    }

    /// Reads on at the tips.
    pub(super) fn look_at_tips(&mut self) {
        self.to_read.append(&mut self.at_tip);
    }

    /// No more records come.
    pub(super) fn end(&mut self) {
        self.readers.clear();
        self.waiting.clear();
        self.in_hand.clear();
        self.to_read.clear();
        self.at_tip.clear();
    }

    fn wait_at_tips(&self, event: &Arc<Event>, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let rings = self.notify_at_tips(event)?;
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            // Another process does not ring.
            if event.wait_for(if rings { left } else { left.min(POLL) }) {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
        }
    }

    fn reader(&mut self, shard: ShardId) -> &mut Reader {
        self.readers.get_mut(&shard).expect("the shard is being read")
    }

    /// Reads the pages that are to be read; and those at the tips too, so that they are not behind
    /// while others have much to say.
    fn read_pages(&mut self) -> Result<()> {
        if !self.to_read.is_empty() {
            self.look_at_tips();
        }
        while let Some(shard) = self.to_read.pop() {
            let Some(iterator) = self.reader(shard).iterator.clone() else {
                self.finish(shard);
                continue;
            };
            let page = self.stream.get_records(&iterator, Limit::records(PAGE))?;
            let is_at_tip = page.records.is_empty() && page.next_shard_iterator.is_some();
            let reader = self.reader(shard);
            reader.turn_page(page.records, page.gap);
            reader.iterator = page.next_shard_iterator;
            self.add_children(page.child_shards)?;
            match self.follow {
                Follow::No if is_at_tip => self.finish(shard),
                _ if is_at_tip => self.at_tip.push(shard),
                _ => self.take_in_hand(shard),
            }
        }
        Ok(())
    }

    /// Takes the next wanted record of a shard in hand. If its page has none, another is to be
    /// read.
    fn take_in_hand(&mut self, shard: ShardId) {
        let (wanted, follow) = (&self.wanted, self.follow);
        let reader = self.readers.get_mut(&shard).expect("the shard is being read");
        while let Some(next) = reader.batch.get(reader.index) {
            if follow == Follow::No && next.sequence_number() >= reader.tip {
                return self.finish(shard);
            }
            if wanted.has(&next) {
                self.in_hand.push(Reverse((next.arrival_ms(), shard)));
                return;
            }
            reader.index += 1;
        }
        self.to_read.push(shard);
    }

    fn add_children(&mut self, children: Vec<ShardInfo>) -> Result<()> {
        for info in children {
            // The child of a merge comes twice, and some were there from the beginning.
            let is_new = !self.is_ahead(info.id) && !self.finished.contains(&info.id);
            if self.follow == Follow::Lineage && is_new && self.wants(&info) {
                let from = StartingPosition::TrimHorizon;
                let iterator = self.stream.shard_iterator(info.id, from)?;
                self.add(info, iterator)?;
            }
        }
        Ok(())
    }

    /// Whether a shard can have what is wanted.
    fn wants(&self, shard: &ShardInfo) -> bool {
        let key = self.wanted.partition_key.as_deref();
        let hash = self.stream.hash_algorithm();
        key.is_none_or(|key| shard.hash_key_range.contains(hash.hash(key)))
    }

    /// Is done with a shard; its children may begin.
    fn finish(&mut self, shard: ShardId) {
        self.readers.remove(&shard);
        self.finished.insert(shard);
        self.start_ready();
    }

    /// Starts the shards whose parents have been read or are not to be read.
    fn start_ready(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let shards = if self.follow == Follow::Lineage { self.stream.shards() } else { Vec::new() };
        let is_ready = |(info, _): &&(ShardInfo, Reader)| {
            !info.parents().any(|parent| self.is_to_be_read(parent, &shards))
        };
        let ready = self.waiting.values().filter(is_ready).map(|(info, _)| info.id);
        for shard in ready.collect::<Vec<_>>() {
            if let Some((_, reader)) = self.waiting.remove(&shard) {
                self.readers.insert(shard, reader);
                self.to_read.push(shard);
            }
        }
    }

    /// Whether a shard is being read or waits for it.
    fn is_ahead(&self, shard: ShardId) -> bool {
        self.readers.contains_key(&shard) || self.waiting.contains_key(&shard)
    }

    /// Whether a shard is ahead, or will be when those that it came from are finished: of two
    /// parents, one may have been read before the other is even known.
    fn is_to_be_read(&self, shard: ShardId, shards: &[ShardInfo]) -> bool {
        let (mut left, mut seen) = (vec![shard], HashSet::new());
        while let Some(shard) = left.pop() {
            if self.is_ahead(shard) {
                return true;
            }
            let info = shards.binary_search_by_key(&shard, |info| info.id).map(|at| &shards[at]);
            if let Ok(info) = info
                && !self.finished.contains(&shard)
                && seen.insert(shard)
                && self.wants(info)
            {
                left.extend(info.parents());
            }
        }
        false
    }
}

impl Iterator for Scan {
    type Item = Result<ScannedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.read_pages() {
            self.end();
            return Some(Err(error));
        }
        let Reverse((_, shard)) = self.in_hand.pop()?;
        let reader = self.reader(shard);
        let scanned = reader.take_next();
        self.take_in_hand(shard);
        Some(Ok(scanned))
    }
}

impl Wanted {
    fn has(&self, record: &Record<'_>) -> bool {
        self.arrival_ms.contains(&record.arrival_ms())
            && self.partition_key.as_deref().is_none_or(|key| record.partition_key() == key)
    }
}
