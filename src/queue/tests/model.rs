//! Random histories of a queue, with crashes, against a plain model of it: nothing comes that is
//! acknowledged, everything else does, in order where that is asked for, and the counts are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::{Watch, builder};
use crate::os::clock::Clock;
use crate::os::steps::{copy_all, scratch};
use crate::position::{SequenceNumber, ShardId};
use crate::queue::{Message, Queue};
use crate::record::{Durability, Receipt};
use crate::stream::Stream;
use crate::worker::DeadLetters;

/// The visibility timeout.
const VISIBILITY_MS: u64 = 30_000;

/// What is done with the queue. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, count: u8 },
    PutDelayed { key: u8, ms: u16 },
    PutAny,
    Receive(u8),
    Ack(Vec<u8>),
    AckAll,
    Nack { which: u8, ms: u16 },
    Extend { which: u8, ms: u16 },
    Drop(u8),
    Pass(u16),
    Split(u8),
    Merge(u8),
    Purge,
    Reopen,
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    let which = any::<u8>;
    prop_oneof![
        8 => (0..6u8, 1..40u8).prop_map(|(key, count)| Step::Put { key, count }),
        2 => (0..6u8, any::<u16>()).prop_map(|(key, ms)| Step::PutDelayed { key, ms }),
        1 => Just(Step::PutAny),
        12 => (1..30u8).prop_map(Step::Receive),
        6 => prop::collection::vec(which(), 1..5).prop_map(Step::Ack),
        4 => Just(Step::AckAll),
        3 => (which(), prop_oneof![Just(0), any::<u16>()])
            .prop_map(|(which, ms)| Step::Nack { which, ms }),
        2 => (which(), any::<u16>()).prop_map(|(which, ms)| Step::Extend { which, ms }),
        2 => which().prop_map(Step::Drop),
        4 => any::<u16>().prop_map(Step::Pass),
        1 => which().prop_map(Step::Split),
        1 => which().prop_map(Step::Merge),
        1 => Just(Step::Purge),
        2 => Just(Step::Reopen),
        2 => Just(Step::Kill),
    ]
}

/// How a queue is set.
#[derive(Clone, Copy, Debug)]
struct Settings {
    is_ordered: bool,
    keeps_in_flight: bool,
    max_receives: u16,
    durability: Durability,
}

fn settings() -> impl Strategy<Value = Settings> {
    let durability = prop_oneof![3 => Just(Durability::Os), 1 => Just(Durability::Sync)];
    let max = prop_oneof![Just(u16::MAX), 1..5u16];
    (any::<bool>(), any::<bool>(), max, durability).prop_map(
        |(is_ordered, keeps_in_flight, max_receives, durability)| Settings {
            is_ordered,
            keeps_in_flight,
            max_receives,
            durability,
        },
    )
}

/// Names a record.
type Id = (ShardId, SequenceNumber);

/// What is known of a message that is not done.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Which of all that were put it is, and its key; none has no order.
    nth: usize,
    key: Option<u8>,
    receives: u16,
    until_ms: u64,
    is_in_flight: bool,
}

struct World {
    settings: Settings,
    watch: Watch,
    directory: TempDir,
    stream: Stream,
    queue: Queue,
    messages: Vec<Message>,
    put: usize,
    open: BTreeMap<Id, Known>,
    dead: BTreeSet<Id>,
}

fn open(path: &Path, watch: &Watch, settings: Settings) -> (Stream, Queue) {
    let stream = builder(path, watch).shards(2).open().unwrap();
    let mut queue = Queue::builder("q", &stream)
        .max_receives(settings.max_receives)
        .durability(settings.durability);
    if settings.is_ordered {
        queue = queue.ordered_by_key();
    }
    if settings.keeps_in_flight {
        queue = queue.keep_in_flight();
    }
    let queue = queue.open().unwrap();
    (stream, queue)
}

fn id(message: &Message) -> Id {
    (message.shard(), message.sequence_number())
}

impl World {
    fn new(settings: Settings) -> Self {
        let (watch, directory) = (Watch::new(), scratch());
        let (stream, queue) = open(directory.path(), &watch, settings);
        let (messages, open, dead) = (Vec::new(), BTreeMap::new(), BTreeSet::new());
        Self { settings, watch, directory, stream, queue, messages, put: 0, open, dead }
    }

    fn now_ms(&self) -> u64 {
        self.watch.now_ms()
    }

    fn add(&mut self, receipt: Receipt, key: Option<u8>, until_ms: u64) {
        let id = (receipt.shard, receipt.sequence_number);
        let nth = self.put;
        self.put += 1;
        let known = Known { nth, key, receives: 0, until_ms, is_in_flight: false };
        assert!(self.open.insert(id, known).is_none());
    }

    /// Whether the message may be given to somebody now.
    fn may_come(&self, (shard, _): Id, known: &Known) -> bool {
        let is_before = |((other_shard, _), other): (&Id, &Known)| {
            let is_of_key = known.key.is_some() && other.key == known.key;
            self.is_ancestor(*other_shard, shard) || (is_of_key && other.nth < known.nth)
        };
        let is_its_turn = !self.settings.is_ordered || !self.open.iter().any(is_before);
        is_its_turn && known.until_ms <= self.now_ms()
    }

    fn is_ancestor(&self, of: ShardId, shard: ShardId) -> bool {
        let parents = self.stream.parents(shard).unwrap();
        parents.iter().any(|parent| parent.id == of || self.is_ancestor(of, parent.id))
    }

    /// One of the messages that consumers have.
    fn take(&mut self, which: u8) -> Option<Message> {
        let count = self.messages.len();
        (count > 0).then(|| self.messages.swap_remove(usize::from(which) % count))
    }

    /// Whether what a consumer says of a message counts.
    fn holds(&self, message: &Message) -> bool {
        self.open.get(&id(message)).is_some_and(|known| known.receives == message.receive_count())
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Put { key, count } => {
                for _ in 0..*count {
                    let receipt = self.stream.put(&key.to_string(), [*key; 300]).unwrap();
                    self.add(receipt, Some(*key), 0);
                }
            }
            Step::PutDelayed { key, ms } => {
                let delay = Duration::from_millis((*ms).into());
                let receipt = self.queue.put_delayed((&key.to_string(), "late"), delay).unwrap();
                self.add(receipt, Some(*key), self.now_ms() + u64::from(*ms));
            }
            Step::PutAny => {
                let receipt = self.stream.put_any("any").unwrap();
                self.add(receipt, None, 0);
            }
            Step::Receive(max) => self.receive((*max).into()),
            Step::Ack(which) => {
                for which in which {
                    let Some(message) = self.take(*which) else { return };
                    let (holds, id) = (self.holds(&message), id(&message));
                    assert_eq!(message.ack().is_ok(), holds);
                    if holds {
                        self.open.remove(&id);
                    }
                }
            }
            Step::AckAll => {
                let messages = std::mem::take(&mut self.messages);
                let held = messages.iter().filter(|message| self.holds(message));
                let held: Vec<_> = held.map(id).collect();
                let all_hold = held.len() == messages.len();
                assert_eq!(self.queue.ack_all(messages).is_ok(), all_hold);
                held.iter().for_each(|id| _ = self.open.remove(id));
            }
            Step::Nack { which, ms } => {
                let Some(message) = self.take(*which) else { return };
                let (holds, id) = (self.holds(&message), id(&message));
                let given_back = message.nack(Duration::from_millis((*ms).into()));
                assert_eq!(given_back.is_ok(), holds);
                if holds {
                    self.give_back(id, (*ms).into());
                }
            }
            Step::Extend { which, ms } => {
                let Some(message) = self.take(*which) else { return };
                let until_ms = self.now_ms() + u64::from(*ms);
                let extended = message.extend(Duration::from_millis((*ms).into()));
                assert_eq!(extended.is_ok(), self.holds(&message));
                if extended.is_ok() {
                    let known = self.open.get_mut(&id(&message)).unwrap();
                    (known.until_ms, known.is_in_flight) = (until_ms, true);
                }
                self.messages.push(message);
            }
            Step::Drop(which) => {
                let Some(message) = self.take(*which) else { return };
                if self.holds(&message) {
                    self.give_back(id(&message), 0);
                }
            }
            Step::Pass(ms) => self.watch.advance((*ms).into()),
            Step::Split(which) => {
                let mut open = self.stream.shards();
                open.retain(|shard| shard.is_open());
                if open.len() < 6 {
                    // A range of one hash key cannot be split.
                    let _ = self.stream.split_mid(open[usize::from(*which) % open.len()].id);
                }
            }
            Step::Merge(which) => {
                let mut open = self.stream.shards();
                open.retain(|shard| shard.is_open());
                open.sort_by_key(|shard| shard.hash_key_range.start);
                if open.len() > 1 {
                    let at = usize::from(*which) % (open.len() - 1);
                    self.stream.merge_shards(open[at].id, open[at + 1].id).unwrap();
                }
            }
            Step::Purge => {
                assert_eq!(self.queue.purge().unwrap(), self.open.len() as u64);
                self.open.clear();
            }
            Step::Reopen | Step::Kill => self.reopen(matches!(step, Step::Kill)),
        }
    }

    /// A message that was given back is there for others when that time is over; at once if it is
    /// to be put aside.
    fn give_back(&mut self, id: Id, ms: u64) {
        let is_last = |known: &Known| known.receives >= self.settings.max_receives;
        let now_ms = self.now_ms();
        let known = self.open.get_mut(&id).unwrap();
        // The delay of one that is to be put aside holds for nobody who is there still.
        known.until_ms = if is_last(known) { 0 } else { now_ms + ms };
        known.is_in_flight = false;
    }

    fn receive(&mut self, max: usize) {
        let may_be_given = |(id, known): &(&Id, &Known)| {
            known.receives < self.settings.max_receives && self.may_come(**id, known)
        };
        let at_least = self.open.iter().filter(may_be_given).count().min(max);
        let received = self.queue.receive(max, Duration::ZERO).unwrap();
        assert!(received.len() <= max && received.len() >= at_least, "{at_least} can be given");
        // What was put aside went before it.
        let letters = DeadLetters::of("q", &self.stream).unwrap().list().unwrap();
        for letter in &letters[self.dead.len()..] {
            let id = (letter.shard, letter.sequence_number);
            let known = self.open[&id];
            assert!(self.may_come(id, &known), "{known:?} is put aside before its time");
            assert!(known.receives >= self.settings.max_receives);
            assert_eq!(letter.attempts, known.receives.into());
            self.open.remove(&id);
            assert!(self.dead.insert(id), "it is put aside once");
        }
        for message in &received {
            let id = id(message);
            let known = self.open.get(&id).copied().expect("what is done does not come again");
            assert!(self.may_come(id, &known), "{known:?} comes before its time");
            let receives = known.receives + 1;
            assert_eq!(message.receive_count(), receives);
            assert!(receives <= self.settings.max_receives);
            let until_ms = self.now_ms() + VISIBILITY_MS;
            self.open.insert(id, Known { receives, until_ms, is_in_flight: true, ..known });
        }
        self.messages.extend(received);
    }

    /// Opens the queue anew, in the directory as it is now or, if its process was killed, as it was
    /// at that moment.
    fn reopen(&mut self, is_killed: bool) {
        let messages = std::mem::take(&mut self.messages);
        let directory = scratch();
        copy_all(self.directory.path(), directory.path());
        if !is_killed {
            for message in &messages {
                if self.holds(message) {
                    self.give_back(id(message), 0);
                }
            }
        }
        drop(messages);
        let other = open(scratch().path(), &self.watch, self.settings);
        let (stream, queue) = (
            std::mem::replace(&mut self.stream, other.0),
            std::mem::replace(&mut self.queue, other.1),
        );
        queue.close().unwrap();
        stream.close().unwrap();
        if is_killed {
            self.directory = directory;
        }
        (self.stream, self.queue) = open(self.directory.path(), &self.watch, self.settings);
        if !self.settings.keeps_in_flight {
            for known in self.open.values_mut().filter(|known| known.is_in_flight) {
                (known.until_ms, known.is_in_flight) = (0, false);
            }
        }
    }

    /// Checks that the queue counts what there is.
    fn check(&self) {
        let depth = self.queue.depth().unwrap();
        let now_ms = self.now_ms();
        let later = |known: &&Known| known.until_ms > now_ms;
        let in_flight = self.open.values().filter(later).filter(|known| known.is_in_flight);
        let delayed = self.open.values().filter(later).filter(|known| !known.is_in_flight);
        let [in_flight, delayed] = [in_flight.count(), delayed.count()].map(|n| n as u64);
        let all = self.open.len() as u64;
        assert_eq!(depth.ready + depth.in_flight + depth.delayed, all, "{depth:?}");
        assert_eq!(depth.in_flight, in_flight, "{depth:?}");
        assert_eq!(depth.dead, self.dead.len() as u64);
        // In order, one that is late and waits for another one counts as what it is found as first.
        assert!(depth.delayed == delayed || self.settings.is_ordered, "{depth:?}, not {delayed}");
    }

    /// Receives all there is.
    fn finish(mut self) {
        while !self.open.is_empty() {
            self.watch.advance(VISIBILITY_MS + u64::from(u16::MAX));
            self.receive(1000);
            self.run(&Step::AckAll);
        }
        self.check();
        self.reopen(true);
        self.check();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_message_comes_until_it_is_acknowledged_and_not_again(
        settings in settings(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(settings);
        for step in &steps {
            world.run(step);
            world.check();
        }
        world.finish();
    }
}
