//! Finding what may be given to consumers: first what comes again, then what was never read.

use crate::error::Result;
use crate::position::ShardId;
use crate::queue::feed::{Feed, Next};
use crate::queue::state::{State, Ticket};
use crate::queue::window::{Slot, State as SlotState};
use crate::stream::ShardIterator;

/// The most records that are put aside at once.
const MAX_LEAVING: usize = 256;

/// A record that is to be given to a consumer, or put aside.
pub(super) struct Taken {
    pub(super) ticket: Ticket,
    /// How often it was received before.
    pub(super) receives: u16,
    pub(super) record: Next,
}

/// The records that a receive has found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) taken: Vec<Taken>,
    /// Those that were received too often.
    pub(super) leaving: Vec<Taken>,
}

impl Found {
    fn has_room(&self, max: usize) -> bool {
        self.taken.len() < max && self.leaving.len() < MAX_LEAVING
    }
}

impl State {
    /// What may be given to consumers now, at most so much.
    pub(super) fn find(&mut self, max: usize, now_ms: u64) -> Result<Found> {
        let mut found = Found::default();
        self.wake_due(now_ms);
        let searched = self.find_ready(max, &mut found);
        let searched = searched.and_then(|()| self.read_on(max, now_ms, &mut found));
        match searched {
            // It is told when nothing else is found.
            Err(_) if !found.taken.is_empty() || !found.leaving.is_empty() => Ok(found),
            searched => searched.map(|()| found),
        }
    }

    fn find_ready(&mut self, max: usize, found: &mut Found) -> Result<()> {
        while found.has_room(max)
            && let Some(&ticket) = self.ready.front()
        {
            let stream = self.stream.clone();
            let feed = self.feeds.get_mut(&ticket.shard);
            let ready = feed.and_then(|feed| {
                let slot = *feed.window.get(ticket.index)?;
                (slot.state == SlotState::Ready).then_some((feed, slot))
            });
            if let Some((feed, slot)) = ready {
                match feed.read_again(&stream, slot.address)? {
                    Some(record) => self.choose(ticket, slot, record, found),
                    None => {
                        feed.lost += 1;
                        self.finish(ticket);
                    }
                }
            }
            self.ready.pop_front();
        }
        Ok(())
    }

    /// Decides what becomes of a record that is ready.
    fn choose(&mut self, ticket: Ticket, slot: Slot, record: Next, found: &mut Found) {
        let receives = slot.receives;
        let taken = Taken { ticket, receives, record };
        // From now on it is not found again.
        self.put(ticket, SlotState::Found, 0);
        match receives < self.max_receives {
            true => found.taken.push(taken),
            false => found.leaving.push(taken),
        }
    }

    /// Reads on in the shards, by turns.
    fn read_on(&mut self, max: usize, now_ms: u64, found: &mut Found) -> Result<()> {
        loop {
            let (before, behind): (Vec<_>, Vec<_>) =
                self.feeds.keys().copied().partition(|shard| *shard <= self.turn);
            let mut has_ended = false;
            for shard in behind.into_iter().chain(before) {
                if !found.has_room(max) {
                    break;
                }
                self.turn = shard;
                self.read_shard(shard, max, now_ms, found)?;
                has_ended |= self.may_read(&self.feeds[&shard]) && self.feed(shard).ends_now();
            }
            if !has_ended {
                return Ok(());
            }
            // Its children may begin, and have something, too.
            self.add_new(false, now_ms)?;
            self.store(self.shards(), false)?;
        }
    }

    fn read_shard(
        &mut self,
        shard: ShardId,
        max: usize,
        now_ms: u64,
        found: &mut Found,
    ) -> Result<()> {
        if !self.may_read(&self.feeds[&shard]) {
            return Ok(());
        }
        let stream = self.stream.clone();
        while found.has_room(max) {
            let feed = self.feed(shard);
            if feed.window.is_full() || !feed.has_next(&stream)? {
                break;
            }
            let (next, known) = feed.take_next();
            if let Some((ticket, slot)) = self.admit(shard, &next, known, now_ms) {
                self.choose(ticket, slot, next, found);
            }
        }
        Ok(())
    }

    /// Whether something is ready that was read before.
    pub(super) fn has_ready(&mut self) -> bool {
        while let Some(&ticket) = self.ready.front() {
            if self.slot(ticket).is_some_and(|slot| slot.state == SlotState::Ready) {
                return true;
            }
            self.ready.pop_front();
        }
        false
    }

    /// Where to wait for more to be read.
    pub(super) fn tips(&self) -> Vec<ShardIterator> {
        let is_read = |feed: &&Feed| self.may_read(feed);
        self.feeds.values().filter(is_read).filter_map(|feed| feed.tip().cloned()).collect()
    }

    /// Whether a shard has begun: in order, children wait for their parents.
    pub(super) fn may_read(&self, feed: &Feed) -> bool {
        !self.is_ordered || !feed.parents.iter().any(|parent| self.feeds.contains_key(parent))
    }
}
