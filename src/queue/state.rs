//! What a queue knows of its records, and what follows from what happens to them. Everything here
//! is behind one lock, for moments: nothing waits for a disk in it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::mem;

use crate::error::Result;
use crate::format::queue_entry::{Change, Known, Span, Until};
use crate::position::ShardId;
use crate::queue::dues::Dues;
use crate::queue::feed::{Feed, Next, Stuck};
use crate::queue::find::Taken;
use crate::queue::journal::{All, Journal, Snapshot};
use crate::queue::spans::Spans;
use crate::queue::window::{Index, Slot, State as SlotState};
use crate::record::Key;
use crate::stream::Stream;
use crate::worker::Progress;

/// Names a record that is in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ticket {
    pub(super) shard: ShardId,
    pub(super) index: Index,
}

/// How many records of the windows are in each state.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Also those that wait for another one of their key.
    pub(super) ready: u64,
    /// Also those that are being put aside.
    pub(super) in_flight: u64,
    pub(super) delayed: u64,
}

pub(super) struct State {
    pub(super) stream: Stream,
    progress: Progress,
    pub(super) journal: Journal,
    /// What the journal says of shards that are not there yet.
    pub(super) unread: All,
    pub(super) feeds: BTreeMap<ShardId, Feed>,
    pub(super) counts: Counts,
    /// Those that are ready and in a window, in the order in which they became so; and others,
    /// which are not ready any more.
    pub(super) ready: VecDeque<Ticket>,
    dues: Dues<Ticket>,
    /// Of each key of which a record is not done, those that wait for it; if that matters.
    keys: HashMap<u64, VecDeque<Ticket>>,
    pub(super) is_ordered: bool,
    pub(super) max_receives: u16,
    /// What the last failure of those said that are ready to be put aside.
    pub(super) causes: HashMap<Ticket, String>,
    /// The shard that was read last.
    pub(super) turn: ShardId,
    /// Whether somebody who sleeps may find something.
    pub(super) has_news: bool,
    /// Records to be told of, since they hold the disk.
    pub(super) stuck: Vec<Stuck>,
}

impl State {
    pub(super) fn new(
        stream: &Stream,
        progress: Progress,
        (journal, unread): (Journal, All),
        is_ordered: bool,
        max_receives: u16,
    ) -> Self {
        Self {
            stream: stream.clone(),
            progress,
            journal,
            unread,
            feeds: BTreeMap::new(),
            counts: Counts::default(),
            ready: VecDeque::new(),
            dues: Dues::new(),
            keys: HashMap::new(),
            is_ordered,
            max_receives,
            causes: HashMap::new(),
            turn: ShardId::new(0),
            has_news: false,
            stuck: Vec::new(),
        }
    }

    /// Adds the shards that are new, and reads what somebody has received of them before. Consumers
    /// have what they had then only if `keeps_in_flight`.
    pub(super) fn add_new(&mut self, keeps_in_flight: bool, now_ms: u64) -> Result<()> {
        let new = self.progress.take(|shard| self.feeds.contains_key(&shard))?;
        for (info, lease) in new {
            let ahead = self.unread.remove(&info.id).unwrap_or_default();
            let feed = Feed::new(&self.stream, &info, lease, ahead)?;
            self.feeds.insert(info.id, feed);
            self.has_news = true;
            self.read_received(info.id, keeps_in_flight, now_ms)?;
        }
        Ok(())
    }

    fn read_received(&mut self, shard: ShardId, keeps: bool, now_ms: u64) -> Result<()> {
        let received_to = self.feed(shard).ahead.received_to();
        let stream = self.stream.clone();
        loop {
            let feed = self.feed(shard);
            if !feed.has_next(&stream)? || feed.next_address() >= Some(received_to) {
                return Ok(());
            }
            let (next, mut known) = feed.take_next();
            if let Some(Known::Held { until: until @ Until::InFlight(_), .. }) = &mut known
                && !keeps
            {
                *until = Until::Delayed(0);
            }
            if let Some((ticket, _)) = self.admit(shard, &next, known, now_ms) {
                self.ready.push_back(ticket);
            }
        }
    }

    pub(super) fn feed(&mut self, shard: ShardId) -> &mut Feed {
        self.feeds.get_mut(&shard).expect("the shard is there")
    }

    /// What the journal says of the records of a shard that were not read yet.
    pub(super) fn ahead(&mut self, shard: ShardId) -> &mut Spans {
        match self.feeds.get_mut(&shard) {
            Some(feed) => &mut feed.ahead,
            None => self.unread.entry(shard).or_default(),
        }
    }

    /// Gives the next record of a shard its slot: which one, if it is ready.
    pub(super) fn admit(
        &mut self,
        shard: ShardId,
        next: &Next,
        known: Option<Known>,
        now_ms: u64,
    ) -> Option<(Ticket, Slot)> {
        let (mut state, receives, until_ms) = match known {
            None => (SlotState::Ready, 0, 0),
            Some(Known::Done) => (SlotState::Done, 0, 0),
            Some(Known::Held { receives, until }) => match until {
                Until::InFlight(ms) if ms > now_ms => (SlotState::InFlight, receives, ms),
                Until::Delayed(ms) if ms > now_ms => (SlotState::Delayed, receives, ms),
                _ => (SlotState::Ready, receives, 0),
            },
        };
        let is_keyed = self.is_ordered && state != SlotState::Done;
        let key = if is_keyed { key_of(next) } else { 0 };
        let is_first = key == 0 || !self.keys.contains_key(&key);
        if !is_first {
            state = SlotState::Waiting;
        }
        let slot = Slot { address: next.address, until_ms, key, receives, state };
        let ticket = Ticket { shard, index: self.feed(shard).window.push(slot) };
        if key != 0 {
            let waiting = self.keys.entry(key).or_default();
            waiting.extend((!is_first).then_some(ticket));
        }
        if let Some(count) = self.counts.of(state) {
            *count += 1;
        }
        if matches!(state, SlotState::InFlight | SlotState::Delayed) {
            self.note_due(until_ms, ticket);
        }
        (state == SlotState::Ready).then_some((ticket, slot))
    }

    fn note_due(&mut self, ms: u64, ticket: Ticket) {
        let (feeds, count) = (&mut self.feeds, self.counts.in_flight + self.counts.delayed);
        self.dues.push(ms, ticket, count, |ms, ticket| is_due(feeds, ms, ticket));
    }

    /// Makes those ready again whose time has come.
    pub(super) fn wake_due(&mut self, now_ms: u64) {
        while let Some((ms, ticket)) = self.dues.pop(now_ms) {
            if is_due(&mut self.feeds, ms, ticket) {
                self.put(ticket, SlotState::Ready, 0);
            }
        }
    }

    /// When the next ones are ready again.
    pub(super) fn next_due_ms(&mut self) -> Option<u64> {
        let feeds = &mut self.feeds;
        self.dues.next_ms(|ms, ticket| is_due(feeds, ms, ticket))
    }

    /// A record that is not done.
    pub(super) fn slot(&mut self, ticket: Ticket) -> Option<&mut Slot> {
        self.feeds.get_mut(&ticket.shard)?.window.get(ticket.index)
    }

    /// Has a record that is not done in this state from now on.
    pub(super) fn put(&mut self, ticket: Ticket, state: SlotState, until_ms: u64) {
        let slot = self.slot(ticket).expect("it is not done");
        let before = mem::replace(&mut slot.state, state);
        slot.until_ms = until_ms;
        self.counts.move_one(before, state);
        match state {
            SlotState::Ready if before != SlotState::Ready => {
                self.ready.push_back(ticket);
                self.has_news = true;
            }
            SlotState::InFlight | SlotState::Delayed => {
                self.note_due(until_ms, ticket);
                // Who sleeps may have to wake earlier.
                self.has_news |= state == SlotState::Delayed;
            }
            _ => {}
        }
    }

    /// A consumer has received these, until then.
    pub(super) fn receive(&mut self, taken: &[Taken], until_ms: u64) {
        for taken in taken {
            let slot = self.slot(taken.ticket).expect("it was just found");
            slot.receives = taken.receives.saturating_add(1);
            self.put(taken.ticket, SlotState::InFlight, until_ms);
        }
    }

    /// A record is done. What waits for it is ready.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        let feed = self.feeds.get_mut(&ticket.shard).expect("it is not done");
        let slot = feed.window.get(ticket.index).expect("it is not done");
        let (before, key) = (slot.state, slot.key);
        let was_full = feed.window.is_full();
        feed.window.finish(ticket.index);
        self.has_news |= was_full && !feed.window.is_full();
        self.counts.move_one(before, SlotState::Done);
        if !self.causes.is_empty() {
            self.causes.remove(&ticket);
        }
        if key != 0 {
            self.go_on_with(key);
        }
    }

    /// The next record of a key is ready, or delayed still, if there is one.
    fn go_on_with(&mut self, key: u64) {
        let Entry::Occupied(mut waiting) = self.keys.entry(key) else { return };
        let Some(next) = waiting.get_mut().pop_front() else {
            waiting.remove();
            return;
        };
        let until_ms = self.slot(next).expect("what waits is not done").until_ms;
        // Who was to get it later waits as long as was said; if that is over, no time is lost.
        let state = if until_ms > 0 { SlotState::Delayed } else { SlotState::Ready };
        self.put(next, state, until_ms);
        self.has_news = true;
    }

    /// The records that these name, with the ranges they make.
    pub(super) fn ranges(
        &mut self,
        records: impl Iterator<Item = (Ticket, u64, Change)>,
    ) -> Vec<(Span, Change)> {
        let mut ranges: Vec<(Span, Change)> = Vec::new();
        let mut last: Option<Ticket> = None;
        for (ticket, address, change) in records {
            let window = &self.feeds[&ticket.shard].window;
            let to = window.behind(ticket.index, address);
            let is_next = last
                .is_some_and(|last| last.shard == ticket.shard && last.index + 1 == ticket.index);
            match ranges.last_mut().filter(|(_, last)| is_next && *last == change) {
                Some((span, _)) => span.to = to,
                None => ranges.push((Span { shard: ticket.shard, from: address, to }, change)),
            }
            last = Some(ticket);
        }
        ranges
    }

    /// Takes all there is for done.
    pub(super) fn purge(&mut self) -> Result<()> {
        let stream = self.stream.clone();
        for shard in self.shards() {
            let feed = self.feed(shard);
            let to = feed.skip_to_tip(&stream)?;
            let open: Vec<_> = feed.window.open().map(|(index, _)| index).collect();
            let span = Span { shard, from: 0, to };
            self.journal.append(&[(span, Change::Done)])?;
            open.into_iter().for_each(|index| self.finish(Ticket { shard, index }));
            self.feed(shard).has_next(&stream)?;
        }
        self.store(self.shards(), true)
    }

    /// Stores how far these shards are done, if that has got on enough or `now` is meant, and lets
    /// go of those that are done to their ends.
    pub(super) fn store(
        &mut self,
        shards: impl IntoIterator<Item = ShardId>,
        now: bool,
    ) -> Result<()> {
        let mut last = None;
        for shard in shards.into_iter().filter(|shard| last.replace(*shard) != Some(*shard)) {
            // A child has nothing to say while it waits, though it may be empty.
            if !self.feeds.get(&shard).is_some_and(|feed| self.may_read(feed)) {
                continue;
            }
            let feed = self.feed(shard);
            feed.store(now)?;
            let stuck = feed.stuck_now();
            let is_done = feed.is_done();
            self.stuck.extend(stuck);
            if is_done {
                let feed = self.feed(shard);
                feed.release()?;
                self.feeds.remove(&shard);
                // Its children may begin.
                self.has_news = true;
            }
        }
        Ok(())
    }

    /// The shards that are not done.
    pub(super) fn shards(&self) -> Vec<ShardId> {
        self.feeds.keys().copied().collect()
    }

    /// Has the journal begin anew if it is long.
    pub(super) fn snapshot(&mut self) -> Option<Snapshot> {
        if !self.journal.is_long() {
            return None;
        }
        let mut parts = Vec::new();
        self.feeds.values().for_each(|feed| feed.known(&mut parts));
        for (&shard, spans) in &self.unread {
            parts.extend(spans.iter().map(|(from, to, known)| (Span { shard, from, to }, known)));
        }
        // What could not be written is tried again with the next change.
        self.journal.write_snapshot(&parts).ok()
    }
}

impl Counts {
    pub(super) fn all(&self) -> u64 {
        self.ready + self.in_flight + self.delayed
    }

    fn of(&mut self, state: SlotState) -> Option<&mut u64> {
        match state {
            SlotState::Ready | SlotState::Waiting => Some(&mut self.ready),
            SlotState::InFlight | SlotState::Found => Some(&mut self.in_flight),
            SlotState::Delayed => Some(&mut self.delayed),
            SlotState::Done => None,
        }
    }

    fn move_one(&mut self, from: SlotState, to: SlotState) {
        if let Some(count) = self.of(from) {
            *count -= 1;
        }
        if let Some(count) = self.of(to) {
            *count += 1;
        }
    }
}

/// Whether a record is due then, and not at another time by now.
fn is_due(feeds: &mut BTreeMap<ShardId, Feed>, ms: u64, ticket: Ticket) -> bool {
    let slot = feeds.get_mut(&ticket.shard).and_then(|feed| feed.window.get(ticket.index));
    slot.is_some_and(|slot| {
        matches!(slot.state, SlotState::InFlight | SlotState::Delayed) && slot.until_ms == ms
    })
}

/// What the key of a record is known by; 0 if it has none. Keys that are told apart nowhere wait
/// for each other, and lose nothing by it.
fn key_of(next: &Next) -> u64 {
    match next.record().partition_key() {
        "" => 0,
        key => Key::new(key).xxh3 as u64 | 1,
    }
}
