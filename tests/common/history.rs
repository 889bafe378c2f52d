//! What happened to a stream, event by event, and what of it must never happen: one checker for
//! every test, torture and soak.
//!
//! Everything that is put says what it is: the n-th record of its key, whose content follows from
//! that. So what is read needs no list of what was written to be recognised.

use std::collections::{BTreeMap, HashMap};

use millstream::{HashAlgorithm, Limit, Result, ShardId, ShardInfo, StartingPosition, Stream};

use super::event::{Event, identify, number};

/// What must never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anomaly {
    /// What was acknowledged is not there, though nothing has happened that may take it.
    LostWrite,
    /// A record is there that nobody put, or that had been gone already.
    Phantom,
    /// A record is there twice.
    Duplicate,
    /// A record of a key stands behind a later one of the same key.
    Reordered,
    /// A record has another number, or shard, than its acknowledgement says.
    InconsistentNumber,
    /// A number was given out again.
    NumberReused,
    /// The numbers of a shard, or from parent to child, do not rise.
    NonMonotonic,
    /// A record is in a shard that does not have its hash key.
    WrongShard,
    /// A record's content is not what was put.
    Altered,
    /// A record was acknowledged by a shard that had reported a failed sync.
    AcknowledgedAfterFailure,
    /// A shard is gone that a reshard had made.
    LostReshard,
    /// A record was never delivered.
    Unseen,
    /// A record was passed over.
    Skipped,
    /// A checkpoint is beyond what was processed.
    CheckpointAhead,
    /// A processor began before a checkpoint that was there.
    ResumedBeforeCheckpoint,
    /// A shard was processed twice at the same time.
    TwoOwners,
    /// A shard was begun before its parents were finished.
    ChildBeforeParent,
}

/// A record that was put.
#[derive(Clone, Default)]
struct Put {
    acknowledged: Option<(ShardId, u64)>,
    /// A power cut may have taken it.
    may_be_lost: bool,
    /// It was not there once, so it must not come back.
    is_gone: bool,
    /// The last scan that has found it.
    scan: u64,
}

/// A batch that was delivered, and behind what.
#[derive(Clone)]
struct Delivery {
    shard: ShardId,
    after: Option<u64>,
    numbers: Vec<u64>,
}

#[derive(Clone, Default)]
struct Consumer {
    after: Option<u64>,
    delivered: Option<u64>,
    processed: Option<u64>,
    checkpoint: Option<u64>,
    /// The process that has a batch of it.
    busy: Option<u32>,
    /// Those that had it when another one began: they must be dead.
    superseded: Vec<u32>,
    /// When it was begun first, and finished: counts of events.
    started: Option<u64>,
    ended: Option<u64>,
}

/// A history, and what is wrong with it.
#[derive(Clone)]
pub struct History {
    hash: HashAlgorithm,
    events: u64,
    puts: HashMap<u32, Vec<Put>>,
    numbers: HashMap<(ShardId, u64), (u32, u64)>,
    /// In each shard: no number up to here is given out again.
    given: BTreeMap<ShardId, u64>,
    highest: BTreeMap<ShardId, u64>,
    durable: BTreeMap<ShardId, u64>,
    poisoned: Vec<(u32, ShardId)>,
    children: Vec<ShardId>,
    consumers: BTreeMap<ShardId, Consumer>,
    deliveries: Vec<Delivery>,
    had_power_cut: bool,
    scans: u64,
    scanned: Scanned,
    pub acknowledged: u64,
    pub records_scanned: u64,
    pub delivered: u64,
    pub anomalies: Vec<(Anomaly, String)>,
}

/// What the last scan has found.
#[derive(Clone, Default)]
struct Scanned {
    shards: Vec<ShardInfo>,
    numbers: BTreeMap<ShardId, Vec<u64>>,
    /// The last record of each key.
    last: HashMap<u32, u64>,
}

impl History {
    pub fn new(hash: HashAlgorithm) -> Self {
        Self {
            hash,
            events: 0,
            puts: HashMap::new(),
            numbers: HashMap::new(),
            given: BTreeMap::new(),
            highest: BTreeMap::new(),
            durable: BTreeMap::new(),
            poisoned: Vec::new(),
            children: Vec::new(),
            consumers: BTreeMap::new(),
            deliveries: Vec::new(),
            had_power_cut: false,
            scans: 0,
            scanned: Scanned::default(),
            acknowledged: 0,
            records_scanned: 0,
            delivered: 0,
            anomalies: Vec::new(),
        }
    }

    /// How many records of a key were put, or may have been.
    pub fn next(&self, key: u32) -> u64 {
        self.puts.get(&key).map_or(0, |puts| puts.len() as u64)
    }

    fn found(&mut self, anomaly: Anomaly, what: String) {
        // One cause makes many.
        if self.anomalies.len() < 100 {
            self.anomalies.push((anomaly, what));
        }
    }

    /// Notes what happened in the only process that there is.
    pub fn add(&mut self, event: &Event) {
        self.add_from(0, event);
    }

    /// Notes what happened in a process, of several that never have the same number.
    pub fn add_from(&mut self, process: u32, event: &Event) {
        self.events += 1;
        match *event {
            Event::Opened => {
                for (shard, numbers) in &self.scanned.numbers {
                    let durable = self.durable.entry(*shard).or_default();
                    *durable = numbers.last().copied().unwrap_or(0).max(*durable);
                }
            }
            Event::Put { key, n } => {
                let puts = self.puts.entry(key).or_default();
                puts.resize_with(puts.len().max(n as usize + 1), Put::default);
            }
            Event::Acknowledged { key, n, shard, number, is_durable } => {
                self.acknowledge((key, n), shard, number, is_durable);
            }
            Event::Poisoned { key, shard } => self.poisoned.push((key, shard)),
            Event::Reshaped { child } => self.children.push(child),
            Event::Cut { power } => self.cut(power),
            Event::Started { .. }
            | Event::Got { .. }
            | Event::Processed { .. }
            | Event::Failed { .. }
            | Event::Checkpointed { .. }
            | Event::Ended { .. } => self.consume(process, event),
        }
    }

    fn acknowledge(&mut self, (key, n): (u32, u64), shard: ShardId, number: u64, durable: bool) {
        self.acknowledged += 1;
        let place = (shard, number);
        let what = format!("{key}/{n} at {number} of {shard}");
        if self.poisoned.contains(&(key, shard)) {
            self.found(Anomaly::AcknowledgedAfterFailure, what.clone());
        }
        let is_again = self.numbers.insert(place, (key, n)).is_some_and(|it| it != (key, n));
        if is_again || self.given.get(&shard).is_some_and(|given| number <= *given) {
            self.found(Anomaly::NumberReused, what.clone());
        }
        let highest = self.highest.entry(shard).or_default();
        *highest = number.max(*highest);
        if durable {
            let durable = self.durable.entry(shard).or_default();
            *durable = number.max(*durable);
        }
        match self.puts.get_mut(&key).and_then(|puts| puts.get_mut(n as usize)) {
            Some(put) => put.acknowledged = Some(place),
            None => self.found(Anomaly::Phantom, what),
        }
    }

    fn cut(&mut self, power: bool) {
        self.poisoned.clear();
        self.given.clone_from(&self.highest);
        self.had_power_cut |= power;
        for consumer in self.consumers.values_mut() {
            // One of several may be there still.
            consumer.busy = consumer.busy.filter(|process| *process != 0 && !power);
            // Checkpoints are not synced.
            consumer.checkpoint = consumer.checkpoint.filter(|_| !power);
        }
        for put in self.puts.values_mut().flatten().filter(|_| power) {
            if let Some((shard, number)) = put.acknowledged {
                put.may_be_lost |= self.durable.get(&shard).is_none_or(|durable| number > *durable);
            }
        }
    }

    fn consume(&mut self, process: u32, event: &Event) {
        let (events, mut wrong) = (self.events, Vec::new());
        let mut consumer = |shard: &ShardId| {
            let consumer = self.consumers.remove(shard).unwrap_or_default();
            (consumer, *shard)
        };
        let (mut it, shard) = match event {
            Event::Started { shard, .. }
            | Event::Got { shard, .. }
            | Event::Processed { shard }
            | Event::Failed { shard }
            | Event::Checkpointed { shard, .. }
            | Event::Ended { shard } => consumer(shard),
            _ => unreachable!("it is no event of a consumer"),
        };
        if let Event::Started { .. } = event {
            it.superseded.retain(|other| *other != process);
        } else if it.superseded.contains(&process) {
            wrong.push(Anomaly::TwoOwners);
        }
        match event {
            Event::Started { after, .. } => {
                match it.busy.take() {
                    Some(other) if other != process => it.superseded.push(other),
                    Some(_) => wrong.push(Anomaly::TwoOwners),
                    None => {}
                }
                if *after > it.processed {
                    wrong.push(Anomaly::CheckpointAhead);
                }
                if *after < it.checkpoint {
                    wrong.push(Anomaly::ResumedBeforeCheckpoint);
                }
                it.after = *after;
                it.started.get_or_insert(events);
            }
            Event::Got { numbers, .. } => {
                if it.busy.replace(process).is_some() {
                    wrong.push(Anomaly::TwoOwners);
                }
                self.delivered += numbers.len() as u64;
                it.delivered = numbers.last().copied();
                self.deliveries.push(Delivery { shard, after: it.after, numbers: numbers.clone() });
            }
            Event::Processed { .. } => {
                it.busy = None;
                it.after = it.delivered;
                it.processed = it.processed.max(it.delivered);
            }
            Event::Failed { .. } => it.busy = None,
            Event::Checkpointed { number, .. } => it.checkpoint = it.checkpoint.max(Some(*number)),
            // Again after a power cut has taken the checkpoint back.
            _ => it.ended = it.ended.or(Some(events)),
        }
        self.consumers.insert(shard, it);
        for anomaly in wrong {
            self.found(anomaly, format!("{event:?}"));
        }
    }

    /// Reads everything in a stream, to which nobody puts, and checks it.
    pub fn scan(&mut self, stream: &Stream) -> Result<()> {
        let shards = stream.shards();
        self.begin_scan(shards.clone());
        for shard in shards {
            let start = stream.shard_iterator(shard.id, StartingPosition::TrimHorizon)?;
            let mut next = Some(start);
            while let Some(iterator) = next {
                let page = stream.get_records(&iterator, Limit::default())?;
                for record in &page.records {
                    let number = number(record.sequence_number());
                    self.record(&shard, number, record.partition_key(), record.data());
                }
                next = page.next_shard_iterator.filter(|_| !page.records.is_empty());
            }
        }
        self.end_scan();
        Ok(())
    }

    /// Begins to look at what there is.
    pub fn begin_scan(&mut self, shards: Vec<ShardInfo>) {
        self.scans += 1;
        self.scanned = Scanned { shards, ..Scanned::default() };
    }

    /// The next record of a shard; the shards come by rising ids.
    pub fn record(&mut self, shard: &ShardInfo, number: u64, text: &str, content: &[u8]) {
        self.records_scanned += 1;
        let what = format!("{text}, {} bytes at {number} of {}", content.len(), shard.id);
        let parents = shard.parents().chain([shard.id]);
        let before = parents.filter_map(|id| self.scanned.numbers.get(&id)?.last()).max();
        if before.is_some_and(|before| *before >= number) {
            self.found(Anomaly::NonMonotonic, what.clone());
        }
        self.scanned.numbers.entry(shard.id).or_default().push(number);
        if !shard.hash_key_range.contains(self.hash.hash(text)) {
            self.found(Anomaly::WrongShard, what.clone());
        }
        let Some((key, n)) = identify(text, content) else {
            return self.found(Anomaly::Altered, what);
        };
        if self.numbers.get(&(shard.id, number)).is_some_and(|it| *it != (key, n)) {
            self.found(Anomaly::NumberReused, what.clone());
        }
        let last = self.scanned.last.insert(key, n);
        let put = self.puts.get_mut(&key).and_then(|puts| puts.get_mut(n as usize));
        let Some(put) = put.filter(|put| !put.is_gone) else {
            return self.found(Anomaly::Phantom, what);
        };
        let is_again = std::mem::replace(&mut put.scan, self.scans) == self.scans;
        let elsewhere = put.acknowledged.is_some_and(|at| at != (shard.id, number));
        if is_again {
            self.found(Anomaly::Duplicate, what);
        } else if elsewhere {
            self.found(Anomaly::InconsistentNumber, what);
        } else if last.is_some_and(|last| last > n) {
            self.found(Anomaly::Reordered, what);
        }
    }

    /// Ends the look: what should have been there?
    pub fn end_scan(&mut self) {
        let mut lost = Vec::new();
        for (key, puts) in &mut self.puts {
            for (n, put) in puts.iter_mut().enumerate().filter(|(_, put)| put.scan != self.scans) {
                put.is_gone = true;
                if let Some((shard, number)) = put.acknowledged.filter(|_| !put.may_be_lost) {
                    lost.push(format!("{key}/{n} at {number} of {shard}"));
                    // Once is enough.
                    put.may_be_lost = true;
                }
            }
        }
        lost.into_iter().for_each(|what| self.found(Anomaly::LostWrite, what));
        let is_there = |id: &ShardId| self.scanned.shards.iter().any(|shard| shard.id == *id);
        let gone: Vec<_> = self.children.iter().filter(|id| !is_there(id)).copied().collect();
        gone.iter().for_each(|child| self.found(Anomaly::LostReshard, child.to_string()));
        for delivery in std::mem::take(&mut self.deliveries) {
            self.check_delivery(&delivery);
        }
        self.check_lineage();
    }

    fn check_delivery(&mut self, delivery: &Delivery) {
        let Delivery { shard, after, numbers } = delivery;
        let there = self.scanned.numbers.remove(shard).unwrap_or_default();
        let mut at = there.partition_point(|number| Some(*number) <= *after);
        for number in numbers {
            match there.binary_search(number) {
                Ok(found) => {
                    if found != at {
                        let what = format!("before {number} of {shard}, behind {after:?}");
                        self.found(Anomaly::Skipped, what);
                    }
                    at = found + 1;
                }
                // It was delivered before the power cut that took it.
                Err(_) if self.had_power_cut => {}
                Err(_) => self.found(Anomaly::Phantom, format!("{number} of {shard} delivered")),
            }
        }
        self.scanned.numbers.insert(*shard, there);
    }

    fn check_lineage(&mut self) {
        let mut early = Vec::new();
        for shard in &self.scanned.shards {
            let started = self.consumers.get(&shard.id).and_then(|it| it.started);
            for (parent, started) in shard.parents().filter_map(|id| Some((id, started?))) {
                let ended = self.consumers.get(&parent).and_then(|it| it.ended);
                if ended.is_none_or(|ended| ended > started) {
                    early.push(format!("{} before {parent}", shard.id));
                }
            }
        }
        early.into_iter().for_each(|what| self.found(Anomaly::ChildBeforeParent, what));
    }

    /// All was scanned, and all should have been delivered by now.
    pub fn finish(&mut self) {
        let mut unseen = Vec::new();
        for (shard, numbers) in &self.scanned.numbers {
            let processed = self.consumers.get(shard).and_then(|it| it.processed);
            let left = numbers.iter().filter(|number| Some(**number) > processed);
            unseen.extend(left.map(|number| format!("{number} of {shard}")));
        }
        unseen.into_iter().for_each(|what| self.found(Anomaly::Unseen, what));
    }
}
