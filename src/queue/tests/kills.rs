//! Killed at every step of what a queue does to the disk: what was acknowledged does not come
//! again, everything else does, or is a dead letter, once.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::{Watch, builder};
use crate::os::steps::{killed_in, scratch};
use crate::queue::{Message, Queue};
use crate::record::Durability;
use crate::stream::Stream;
use crate::worker::DeadLetters;

fn open(path: &Path, watch: &Watch) -> (Stream, Queue) {
    let stream = builder(path, watch).open().unwrap();
    let queue = Queue::builder("q", &stream).max_receives(3).durability(Durability::Sync);
    let queue = queue.open().unwrap();
    (stream, queue)
}

fn receive(queue: &Queue) -> Vec<Message> {
    queue.receive(10_000, Duration::ZERO).unwrap()
}

fn names(messages: &[Message]) -> BTreeSet<String> {
    messages.iter().map(|message| message.partition_key().to_owned()).collect()
}

/// Does something with a queue of messages, of which every third is acknowledged, and checks each
/// image that is left if it is killed at a step: `may_be_done` says of which messages that is not
/// known then.
fn holds_at_every_step(
    run: impl FnOnce(&Stream, &Queue, Vec<Message>),
    may_be_done: impl Fn(usize) -> bool,
) {
    let (directory, watch) = (scratch(), Watch::new());
    let (stream, queue) = open(directory.path(), &watch);
    let count = 300;
    for n in 0..count {
        stream.put(&n.to_string(), "").unwrap();
    }
    let (done, held): (Vec<_>, Vec<_>) =
        receive(&queue).into_iter().enumerate().partition(|(n, _)| n % 3 == 0);
    let [done, held] = [done, held].map(|all| all.into_iter().map(|(_, message)| message));
    queue.ack_all(done).unwrap();
    let held: Vec<_> = held.collect();
    let (images, ()) = killed_in(directory.path(), || run(&stream, &queue, held));
    assert!(images.len() > 5, "{} steps", images.len());
    for (step, image) in images.iter().enumerate() {
        let (stream, queue) = open(image.path(), &watch);
        let total = queue.depth().unwrap();
        // Delays are over, and what was received too often is put aside.
        watch.advance(3_600_000);
        let messages = receive(&queue);
        let letters = DeadLetters::of("q", &stream).unwrap().list().unwrap();
        let dead: BTreeSet<_> =
            letters.iter().map(|letter| letter.partition_key().to_owned()).collect();
        assert_eq!(dead.len(), letters.len(), "step {step}: none is put aside twice");
        let alive = names(&messages);
        assert_eq!(alive.len(), messages.len(), "step {step}");
        assert!(alive.is_disjoint(&dead), "step {step}");
        for n in 0..count {
            let comes = alive.contains(&n.to_string()) || dead.contains(&n.to_string());
            let expected = n % 3 != 0;
            assert!(comes == expected || (expected && may_be_done(n)), "step {step}: {n}");
        }
        // A step may lie between a letter and what says that it is done.
        let total = total.ready + total.delayed + total.dead;
        assert!(total >= (alive.len() + dead.len()) as u64, "step {step}");
        queue.ack_all(messages).unwrap();
        let left = queue.depth().unwrap();
        assert_eq!((left.ready, left.in_flight, left.delayed), (0, 0, 0), "step {step}");
        queue.close().unwrap();
        stream.close().unwrap();
    }
}

#[test]
fn killed_while_messages_are_put_aside() {
    let bury = |_: &Stream, queue: &Queue, held: Vec<Message>| {
        drop(held);
        drop(receive(queue));
        drop(receive(queue));
        assert!(receive(queue).is_empty(), "each was received three times");
        assert_eq!(queue.depth().unwrap().dead, 200);
    };
    holds_at_every_step(bury, |_| false);
}

#[test]
fn killed_while_the_journal_begins_anew() {
    let begin_anew = |_: &Stream, _: &Queue, mut held: Vec<Message>| {
        // Of those that stay, each changes by itself; every one is a part of the snapshots.
        for (n, message) in held.drain(..100).enumerate() {
            message.nack(Duration::from_secs(n as u64)).unwrap();
        }
        // Of those that go, one after the other.
        for message in held {
            message.ack().unwrap();
        }
    };
    holds_at_every_step(begin_anew, |n| n >= 150);
}

#[test]
fn killed_while_the_queue_is_closed_and_opened() {
    let reopen = |stream: &Stream, queue: &Queue, held: Vec<Message>| {
        held.into_iter().for_each(|message| _ = message.keep());
        let purged = Queue::open("other", stream).unwrap();
        assert_eq!(purged.purge().unwrap(), 300);
        purged.close().unwrap();
        stream.split_mid(crate::position::ShardId::new(0)).unwrap();
        // Its shards are taken and released.
        assert_eq!(queue.depth().unwrap().in_flight, 200);
    };
    holds_at_every_step(reopen, |_| false);
}
