//! Several shards read as one: each in order, parents before children, otherwise by arrival.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use millstream::{
    Batch, Limit, Record, Result, SequenceNumber, ShardId, ShardInfo, ShardIterator,
    StartingPosition, Stream,
};

use crate::offset::Offset;

/// How often a thread that waits for records of a shard comes up for air.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// What there is next.
pub(crate) enum Next<'a> {
    Record(ShardId, Record<'a>),
    /// Nothing at the moment: all that there was has been read.
    Tip,
    /// Nothing any more.
    End,
}

/// A shard that is being read.
struct Reader {
    /// Where to read on; none when the shard is read to its end.
    iterator: Option<ShardIterator>,
    /// Records with this number or a higher one came after the reading began; they are left.
    tip: Option<SequenceNumber>,
    page: Option<Batch>,
    /// The record of the page that is next.
    index: usize,
}

impl Reader {
    fn next(&self) -> Option<Record<'_>> {
        self.page.as_ref()?.get(self.index)
    }
}

/// A shard whose turn comes when its parents have been read.
struct Waiting {
    info: ShardInfo,
    from: StartingPosition,
    tip: Option<SequenceNumber>,
}

/// Reads shards.
pub(crate) struct ShardMerge {
    stream: Stream,
    follow: bool,
    /// Whether the children of the shards are read as well.
    with_children: bool,
    /// The shards that are waiting, being read, or have been read.
    known: HashSet<ShardId>,
    waiting: Vec<Waiting>,
    readers: HashMap<ShardId, Reader>,
    /// The shards that have a record in hand, by the arrival of that record.
    in_hand: BinaryHeap<Reverse<(u64, ShardId)>>,
    /// The shard whose record was handed out last.
    handed_out: Option<ShardId>,
    /// The shards that may have more: another page is to be read.
    to_read: VecDeque<ShardId>,
    /// Which shards have news, from the threads that wait for it.
    news: Receiver<ShardId>,
    news_sender: Sender<ShardId>,
}

impl ShardMerge {
    /// Reads from `from` up to what there is now or, if it follows, for ever: one shard, or all
    /// and their children to come.
    pub(crate) fn new(
        stream: Stream,
        shard: Option<ShardId>,
        from: Offset,
        follow: bool,
    ) -> Result<Self> {
        let (news_sender, news) = channel();
        let mut merge = Self {
            stream,
            follow,
            with_children: follow && shard.is_none(),
            known: HashSet::new(),
            waiting: Vec::new(),
            readers: HashMap::new(),
            in_hand: BinaryHeap::new(),
            handed_out: None,
            to_read: VecDeque::new(),
            news,
            news_sender,
        };
        for info in merge.first_shards(shard, from)? {
            let from = merge.position(info.id, from)?;
            let latest = || merge.stream.shard_iterator(info.id, StartingPosition::Latest);
            let tip = match follow {
                true => None,
                false => Some(latest()?.sequence_number()),
            };
            merge.known.insert(info.id);
            merge.waiting.push(Waiting { info, from, tip });
        }
        merge.start_ready()?;
        Ok(merge)
    }

    /// The shards to begin with. Near the end of the stream, closed shards have nothing to say.
    fn first_shards(&self, shard: Option<ShardId>, from: Offset) -> Result<Vec<ShardInfo>> {
        if let Some(shard) = shard {
            return Ok(vec![self.stream.describe_shard(shard)?.info]);
        }
        let mut shards = self.stream.shards();
        if matches!(from, Offset::Latest | Offset::FromEnd(_)) {
            shards.retain(ShardInfo::is_open);
        }
        Ok(shards)
    }

    fn position(&self, shard: ShardId, from: Offset) -> Result<StartingPosition> {
        Ok(match from {
            Offset::Horizon => StartingPosition::TrimHorizon,
            Offset::Latest => StartingPosition::Latest,
            Offset::Number(number) => StartingPosition::AtSequenceNumber(number),
            Offset::TimestampMs(ms) => StartingPosition::AtTimestampMs(ms),
            Offset::FromEnd(count) => self.position_from_end(shard, count)?,
        })
    }

    /// The place that has `count` records behind it now; only reading finds it.
    fn position_from_end(&self, shard: ShardId, count: usize) -> Result<StartingPosition> {
        let mut latest = VecDeque::new();
        let mut behind_all = StartingPosition::Latest;
        let mut next = Some(self.stream.shard_iterator(shard, StartingPosition::TrimHorizon)?);
        while let Some(iterator) = next {
            behind_all = StartingPosition::AtSequenceNumber(iterator.sequence_number());
            let page = self.stream.get_records(&iterator, Limit::default())?;
            if page.records.is_empty() {
                break;
            }
            for record in &page.records {
                behind_all = StartingPosition::AfterSequenceNumber(record.sequence_number());
                latest.push_back(record.sequence_number());
                if latest.len() > count {
                    latest.pop_front();
                }
            }
            next = page.next_shard_iterator;
        }
        Ok(latest.front().map_or(behind_all, |n| StartingPosition::AtSequenceNumber(*n)))
    }

    /// The next record of any shard.
    pub(crate) fn next(&mut self) -> Result<Next<'_>> {
        if let Some(shard) = self.handed_out.take() {
            self.reader(shard).index += 1;
            self.take_in_hand(shard)?;
        }
        self.to_read.extend(self.news.try_iter());
        while let Some(shard) = self.to_read.pop_front() {
            self.read_page(shard)?;
        }
        let Some(Reverse((_, shard))) = self.in_hand.pop() else {
            return Ok(if self.readers.is_empty() { Next::End } else { Next::Tip });
        };
        self.handed_out = Some(shard);
        let record = self.reader(shard).next().expect("a shard in hand has a record");
        Ok(Next::Record(shard, record))
    }

    /// Sleeps until there may be more, or for so long.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        self.to_read.extend(self.news.recv_timeout(timeout));
    }

    fn reader(&mut self, shard: ShardId) -> &mut Reader {
        self.readers.get_mut(&shard).expect("the shard is being read")
    }

    fn read_page(&mut self, shard: ShardId) -> Result<()> {
        let Some(iterator) = self.reader(shard).iterator.take() else { return self.finish(shard) };
        let page = self.stream.get_records(&iterator, Limit::default())?;
        self.add_children(page.child_shards);
        let is_at_tip = page.records.is_empty() && page.next_shard_iterator.is_some();
        let reader = self.reader(shard);
        reader.page = Some(page.records);
        reader.index = 0;
        reader.iterator = page.next_shard_iterator;
        match &self.readers[&shard].iterator {
            Some(iterator) if is_at_tip && self.follow => self.watch(iterator.clone()),
            _ if is_at_tip => self.finish(shard)?,
            _ => self.take_in_hand(shard)?,
        }
        Ok(())
    }

    /// Takes the next record of the page in hand. If there is none, or none that is wanted, reads
    /// on or is done.
    fn take_in_hand(&mut self, shard: ShardId) -> Result<()> {
        let reader = &self.readers[&shard];
        match reader.next() {
            Some(next) if reader.tip.is_some_and(|tip| next.sequence_number() >= tip) => {
                self.finish(shard)?;
            }
            Some(next) => self.in_hand.push(Reverse((next.arrival_ms(), shard))),
            None => self.to_read.push_back(shard),
        }
        Ok(())
    }

    /// Has a thread wait for news of the shard.
    fn watch(&self, iterator: ShardIterator) {
        let (stream, news) = (self.stream.clone(), self.news_sender.clone());
        thread::spawn(move || {
            // An error is news as well: whoever reads the shard gets it.
            while let Ok(false) = stream.wait(&iterator, WATCH_INTERVAL) {}
            let _ = news.send(iterator.shard());
        });
    }

    fn finish(&mut self, shard: ShardId) -> Result<()> {
        self.readers.remove(&shard);
        self.start_ready()
    }

    fn add_children(&mut self, children: Vec<ShardInfo>) {
        for info in children {
            // The child of a merge comes twice, and some were there from the beginning.
            if self.with_children && self.known.insert(info.id) {
                let from = StartingPosition::TrimHorizon;
                self.waiting.push(Waiting { info, from, tip: None });
            }
        }
    }

    /// Starts the shards whose parents have been read or are not to be read.
    fn start_ready(&mut self) -> Result<()> {
        loop {
            let is_ahead = |shard: ShardId| {
                self.readers.contains_key(&shard)
                    || self.waiting.iter().any(|waiting| waiting.info.id == shard)
            };
            let is_ready = |waiting: &Waiting| !waiting.info.parents().any(is_ahead);
            let Some(ready) = self.waiting.iter().position(is_ready) else { return Ok(()) };
            let Waiting { info, from, tip } = self.waiting.remove(ready);
            let iterator = Some(self.stream.shard_iterator(info.id, from)?);
            self.readers.insert(info.id, Reader { iterator, tip, page: None, index: 0 });
            self.to_read.push_back(info.id);
        }
    }
}
