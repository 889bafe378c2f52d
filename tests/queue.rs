//! A queue on a stream: who gets a message, when it comes again, when it does not.

mod common;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use millstream::{
    Application, Batch, Checkpointer, DeadLetters, Depth, Durability, Error, Message, Queue,
    QueueBuilder, ShardId, StartingPosition, Stream, StreamBuilder, WorkerPool,
};
use tempfile::TempDir;

use common::TestClock;

const NOW: Duration = Duration::ZERO;
/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);
const SECOND: u64 = 1000;

/// A place for a stream, and its clock.
struct Fixture {
    dir: TempDir,
    watch: TestClock,
}

impl Fixture {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), watch: TestClock::new() }
    }

    /// With a stream and a queue of the usual settings.
    fn with_queue() -> (Self, Stream, Queue) {
        let fixture = Self::new();
        let stream = fixture.stream();
        let queue = Queue::open("q", &stream).unwrap();
        (fixture, stream, queue)
    }

    fn builder(&self) -> StreamBuilder {
        Stream::builder(self.dir.path()).clock(self.watch.clone())
    }

    fn stream(&self) -> Stream {
        self.builder().open().unwrap()
    }
}

fn put(stream: &Stream, messages: &[&str]) {
    for message in messages {
        stream.put(message, message).unwrap();
    }
}

/// Receives what is there.
fn receive(queue: &Queue) -> Vec<Message> {
    queue.receive(1000, NOW).unwrap()
}

fn data(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| std::str::from_utf8(message.data()).unwrap()).collect()
}

/// Ready, in flight, delayed, dead.
fn depth(queue: &Queue) -> [u64; 4] {
    let Depth { ready, in_flight, delayed, dead, .. } = queue.depth().unwrap();
    [ready, in_flight, delayed, dead]
}

/// Kills a process that has a queue, as far as that can be done within one: what consumers have is
/// neither given back nor acknowledged.
fn abandon(messages: Vec<Message>) {
    messages.into_iter().for_each(|message| {
        message.keep();
    });
}

#[test]
fn a_message_is_given_to_one_consumer_and_when_acknowledged_to_nobody_any_more() {
    let (fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a", "b", "c"]);
    assert_eq!(depth(&queue), [3, 0, 0, 0]);
    let first = queue.receive(2, NOW).unwrap();
    assert_eq!(data(&first), ["a", "b"]);
    let rest = receive(&queue);
    assert_eq!(data(&rest), ["c"]);
    assert_eq!(depth(&queue), [0, 3, 0, 0]);
    queue.ack_all(first).unwrap();
    rest.into_iter().for_each(|message| message.ack().unwrap());
    fixture.watch.advance(24 * 3600 * SECOND);
    assert!(receive(&queue).is_empty());
    assert_eq!(depth(&queue), [0, 0, 0, 0]);
    drop(queue);
    let queue = Queue::open("q", &stream).unwrap();
    assert!(receive(&queue).is_empty());
    assert_eq!(depth(&queue), [0, 0, 0, 0]);
}

#[test]
fn a_message_that_is_dropped_is_there_for_others_at_once() {
    let (_fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a", "b"]);
    drop(receive(&queue));
    let again = receive(&queue);
    assert_eq!(data(&again), ["a", "b"]);
    assert!(again.iter().all(|message| message.receive_count() == 2));
    let consumer = thread::spawn(move || {
        let _held = again;
        panic!("a consumer panics, as this test says");
    });
    consumer.join().unwrap_err();
    assert_eq!(depth(&queue), [2, 0, 0, 0]);
}

#[test]
fn a_message_that_is_not_acknowledged_in_time_is_given_to_another_one() {
    let (fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a"]);
    let slow = receive(&queue).remove(0);
    fixture.watch.advance(30 * SECOND - 1);
    assert!(receive(&queue).is_empty());
    fixture.watch.advance(1);
    assert_eq!(depth(&queue), [1, 0, 0, 0]);
    let fast = receive(&queue).remove(0);
    assert_eq!(fast.receive_count(), 2);
    let too_late = slow.ack().unwrap_err();
    assert!(matches!(too_late, Error::ReceiptExpired { .. }), "{too_late}");
    assert_eq!(depth(&queue), [0, 1, 0, 0], "the other one has it still");
    fast.ack().unwrap();
    assert_eq!(depth(&queue), [0, 0, 0, 0]);
}

#[test]
fn an_acknowledgement_after_the_timeout_counts_if_nobody_has_received_the_message_since() {
    let (fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a"]);
    let slow = receive(&queue).remove(0);
    fixture.watch.advance(31 * SECOND);
    assert_eq!(depth(&queue), [1, 0, 0, 0]);
    slow.ack().unwrap();
    assert!(receive(&queue).is_empty());
    assert_eq!(depth(&queue), [0, 0, 0, 0]);
}

#[test]
fn a_visibility_timeout_is_extended_and_cut_short() {
    let (fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a"]);
    let message = receive(&queue).remove(0);
    fixture.watch.advance(29 * SECOND);
    message.extend(Duration::from_secs(60)).unwrap();
    fixture.watch.advance(59 * SECOND);
    assert!(receive(&queue).is_empty());
    message.extend(NOW).unwrap();
    assert_eq!(data(&receive(&queue)), ["a"]);
    assert!(matches!(message.extend(NOW), Err(Error::ReceiptExpired { .. })));
}

#[test]
fn what_is_given_back_with_a_delay_comes_when_that_is_over() {
    let (fixture, stream, queue) = Fixture::with_queue();
    put(&stream, &["a", "b"]);
    let mut messages = receive(&queue);
    messages.remove(0).nack(Duration::from_secs(5)).unwrap();
    messages.remove(0).nack(NOW).unwrap();
    assert_eq!(depth(&queue), [1, 0, 1, 0]);
    let b = receive(&queue);
    assert_eq!(data(&b), ["b"]);
    abandon(b);
    drop(queue);
    let queue = Queue::open("q", &stream).unwrap();
    assert_eq!(depth(&queue), [1, 0, 1, 0], "the delay is kept, what was in flight is not");
    fixture.watch.advance(5 * SECOND);
    assert_eq!(data(&receive(&queue)), ["b", "a"]);
}

#[test]
fn a_message_that_is_put_with_a_delay_comes_when_that_is_over() {
    let (fixture, stream, queue) = Fixture::with_queue();
    queue.put_delayed(("a", "a"), Duration::from_secs(10)).unwrap();
    put(&stream, &["b"]);
    queue.put_delayed(("c", "c"), Duration::from_secs(5)).unwrap();
    assert_eq!(depth(&queue), [1, 0, 2, 0]);
    let received = receive(&queue);
    assert_eq!(data(&received), ["b"]);
    queue.ack_all(received).unwrap();
    assert_eq!(depth(&queue), [0, 0, 2, 0]);
    drop(queue);
    let queue = Queue::open("q", &stream).unwrap();
    assert_eq!(depth(&queue), [0, 0, 2, 0]);
    fixture.watch.advance(5 * SECOND);
    assert_eq!(depth(&queue), [1, 0, 1, 0]);
    assert_eq!(data(&receive(&queue)), ["c"]);
    fixture.watch.advance(5 * SECOND);
    assert_eq!(data(&receive(&queue)), ["c", "a"], "c was given back before");
}

#[test]
fn a_record_that_is_received_too_often_becomes_a_dead_letter_with_its_cause() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    let open = || Queue::builder("q", &stream).max_receives(2).open().unwrap();
    let queue = open();
    put(&stream, &["fails", "kills", "works"]);
    stream.put_any("has no key").unwrap();
    for (count, cause) in [(1, "at first"), (2, "at last")] {
        let mut messages = receive(&queue);
        assert_eq!(messages[0].receive_count(), count);
        messages.remove(0).fail(cause, NOW).unwrap();
        for message in messages {
            match message.data() {
                b"works" => message.ack().unwrap(),
                _ => drop(message),
            }
        }
    }
    assert_eq!(depth(&queue), [3, 0, 0, 0], "until somebody receives again");
    put(&stream, &["next"]);
    assert_eq!(data(&receive(&queue)), ["next"]);
    assert_eq!(depth(&queue)[1..], [0, 0, 3]);
    let dead_letters = DeadLetters::of("q", &stream).unwrap();
    let letters = dead_letters.list().unwrap();
    let causes: Vec<_> = letters.iter().map(|letter| &letter.cause[..]).collect();
    let never = "received 2 times and never acknowledged";
    assert_eq!(causes, ["at last", never, never]);
    assert!(letters.iter().all(|letter| letter.attempts == 2));
    receive(&queue).remove(0).ack().unwrap();
    for letter in &letters {
        dead_letters.redrive(letter, &stream).unwrap();
    }
    assert_eq!(data(&receive(&queue)), ["fails", "kills", "has no key"]);
    drop(queue);
    assert_eq!(depth(&open()), [3, 0, 0, 0]);
}

#[test]
fn a_record_that_kills_its_process_each_time_becomes_a_dead_letter() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    put(&stream, &["kills", "works"]);
    for _ in 0..3 {
        let queue = Queue::builder("q", &stream).max_receives(3).open().unwrap();
        abandon(queue.receive(1, NOW).unwrap());
    }
    let queue = Queue::builder("q", &stream).max_receives(3).open().unwrap();
    assert_eq!(data(&receive(&queue)), ["works"]);
    assert_eq!(depth(&queue), [1, 0, 0, 1]);
}

#[test]
fn messages_of_one_key_are_given_one_after_the_other_and_others_do_not_wait() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    let open = || Queue::builder("q", &stream).ordered_by_key().max_receives(2).open().unwrap();
    let mut queue = open();
    for (key, data) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("a", "a3"), ("b", "b2")] {
        stream.put(key, data).unwrap();
    }
    let mut messages = receive(&queue);
    assert_eq!(data(&messages), ["a1", "b1"]);
    assert_eq!(depth(&queue), [3, 2, 0, 0]);
    messages.remove(1).ack().unwrap();
    assert_eq!(data(&receive(&queue)), ["b2"]);
    messages.remove(0).nack(Duration::from_secs(1)).unwrap();
    assert_eq!(data(&receive(&queue)), ["b2"], "those of its key wait for it");
    for reopened in [false, true] {
        if reopened {
            drop(queue);
            queue = open();
        }
        fixture.watch.advance(SECOND);
        let again = queue.receive(1, NOW).unwrap();
        abandon(again);
    }
    fixture.watch.advance(60 * SECOND);
    let messages = receive(&queue);
    assert_eq!(data(&messages), ["a2"], "the first of the key and b2 were put aside");
    assert_eq!(depth(&queue)[3], 2);
}

#[test]
fn in_order_the_messages_of_a_child_wait_for_those_of_its_parents() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    let ordered = Queue::builder("ordered", &stream).ordered_by_key().open().unwrap();
    let free = Queue::open("free", &stream).unwrap();
    stream.put("a", "a1").unwrap();
    let [low, high] = stream.split_mid(ShardId::new(0)).unwrap();
    stream.put("a", "a2").unwrap();
    stream.merge_shards(low, high).unwrap();
    stream.put("a", "a3").unwrap();
    assert_eq!(data(&receive(&free)).len(), 3, "without an order nobody waits");
    for expected in ["a1", "a2", "a3"] {
        assert_eq!(ordered.depth().unwrap().ready, 3 - (expected.as_bytes()[1] - b'1') as u64);
        let messages = receive(&ordered);
        assert_eq!(data(&messages), [expected]);
        assert!(receive(&ordered).is_empty());
        ordered.ack_all(messages).unwrap();
    }
    assert_eq!(depth(&ordered), [0, 0, 0, 0]);
    let shards = Application::of("ordered", &stream).unwrap().shards().unwrap();
    assert_eq!(shards.iter().filter(|shard| shard.is_owned).count(), 1, "one is not at its end");
}

#[test]
fn a_consumer_that_waits_is_woken_by_a_put_and_by_what_is_given_back_and_when_a_time_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::builder(dir.path()).open().unwrap();
    let short = Duration::from_millis(30);
    let queue = Queue::builder("q", &stream).visibility_timeout(short).open().unwrap();
    let wait = || {
        let queue = queue.clone();
        thread::spawn(move || queue.receive(1, LONG).unwrap().remove(0))
    };
    let consumer = wait();
    put(&stream, &["a"]);
    let message = consumer.join().unwrap();
    let consumer = wait();
    drop(message);
    abandon(vec![consumer.join().unwrap()]);
    let message = queue.receive(1, LONG).unwrap().remove(0);
    assert_eq!(message.receive_count(), 3, "it came when its time was over");
    message.nack(short).unwrap();
    queue.receive(1, LONG).unwrap().remove(0).ack().unwrap();
    assert!(queue.receive(1, short).unwrap().is_empty());
}

#[test]
fn in_order_a_consumer_that_waits_is_woken_when_the_message_before_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let stream = Stream::builder(dir.path()).open().unwrap();
    let queue = Queue::builder("q", &stream).ordered_by_key().open().unwrap();
    stream.put("a", "a1").unwrap();
    let first = receive(&queue).remove(0);
    stream.split_mid(ShardId::new(0)).unwrap();
    stream.put("a", "a2").unwrap();
    let consumer = {
        let queue = queue.clone();
        thread::spawn(move || queue.receive(1, LONG).unwrap().remove(0))
    };
    first.ack().unwrap();
    assert_eq!(consumer.join().unwrap().data(), b"a2");
}

#[test]
fn what_is_in_flight_when_a_process_ends_comes_at_once_unless_it_is_to_be_kept() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    put(&stream, &["a", "b", "c"]);
    let queue = Queue::open("q", &stream).unwrap();
    let handles: Vec<_> = receive(&queue).into_iter().map(Message::keep).collect();
    drop(queue);
    let queue = Queue::builder("q", &stream).keep_in_flight().open().unwrap();
    assert_eq!(depth(&queue), [0, 3, 0, 0]);
    queue.ack(handles[1].to_string().parse().unwrap()).unwrap();
    queue.extend(handles[2], Duration::from_secs(60)).unwrap();
    fixture.watch.advance(30 * SECOND);
    assert_eq!(data(&receive(&queue)), ["a"]);
    abandon(receive(&queue));
    drop(queue);
    let queue = Queue::open("q", &stream).unwrap();
    assert_eq!(data(&receive(&queue)), ["a", "c"]);
    assert!(matches!(queue.ack(handles[0]), Err(Error::ReceiptExpired { .. })));
}

#[test]
fn a_purge_takes_everything_that_was_put_before_and_nothing_else() {
    let fixture = Fixture::new();
    let stream = fixture.builder().shards(2).open().unwrap();
    let queue = Queue::builder("q", &stream).ordered_by_key().open().unwrap();
    put(&stream, &["a", "b", "c", "d", "e", "a", "b"]);
    stream.split_mid(ShardId::new(0)).unwrap();
    put(&stream, &["a", "b", "c", "d", "e", "f", "g"]);
    queue.put_delayed(("h", "h"), LONG).unwrap();
    let held = queue.receive(2, NOW).unwrap();
    assert_eq!(queue.purge().unwrap(), 15);
    assert_eq!(depth(&queue), [0, 0, 0, 0]);
    for message in held {
        assert!(matches!(message.ack(), Err(Error::ReceiptExpired { .. })));
    }
    put(&stream, &["z"]);
    assert_eq!(data(&receive(&queue)), ["z"]);
    drop(queue);
    fixture.watch.advance(60 * SECOND);
    let queue = Queue::open("q", &stream).unwrap();
    assert_eq!(data(&receive(&queue)), ["z"]);
}

#[test]
fn several_queues_and_pools_on_one_stream_each_have_all_records() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    let (one, two) = (Queue::open("one", &stream).unwrap(), Queue::open("two", &stream).unwrap());
    put(&stream, &["a", "b"]);
    one.ack_all(receive(&one)).unwrap();
    assert_eq!((depth(&one)[0], depth(&two)[0]), (0, 2));
    let noop = |_: &_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(());
    let pool = WorkerPool::builder("pool", &stream).start(noop).unwrap();
    assert!(pool.wait_until_idle(LONG));
    pool.shutdown(LONG);

    let refused = WorkerPool::builder("one", &stream).start(noop).unwrap_err();
    assert!(matches!(&refused, Error::InvalidArgument(what) if what.contains("is a queue")));
    let refused = Application::of("one", &stream).unwrap();
    let refused = refused.seek(StartingPosition::TrimHorizon, "a test").unwrap_err();
    assert!(matches!(&refused, Error::InvalidArgument(what) if what.contains("is a queue")));
    let refused = Queue::open("pool", &stream).unwrap_err();
    assert!(matches!(&refused, Error::InvalidArgument(what) if what.contains("worker pools")));
    assert!(matches!(Queue::open("one", &stream), Err(Error::Locked { .. })));
    let reader = Stream::open_read_only(stream.path()).unwrap();
    assert!(matches!(Queue::open("three", &reader), Err(Error::ReadOnly)));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    let refused = |builder: QueueBuilder| {
        let error = builder.open().unwrap_err();
        assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    };
    let hours = |hours: u64| Duration::from_secs(hours * 3600);
    refused(Queue::builder("a/b", &stream));
    refused(Queue::builder("q", &stream).visibility_timeout(hours(13)));
    let at = StartingPosition::AtSequenceNumber(7.into());
    refused(Queue::builder("q", &stream).starting_position(at));
    let queue = Queue::builder("q", &stream).visibility_timeout(hours(12)).open().unwrap();
    put(&stream, &["a"]);
    let message = receive(&queue).remove(0);
    assert!(matches!(message.extend(hours(13)), Err(Error::InvalidArgument(_))));
    assert!(matches!(message.nack(Duration::MAX), Err(Error::InvalidArgument(_))));
    let refused = queue.put_delayed(("a", "a"), hours(366 * 24)).unwrap_err();
    assert!(matches!(refused, Error::InvalidArgument(_)));
}

#[test]
fn many_consumers_share_the_messages_and_each_is_done_once() {
    for durability in [Durability::Os, Durability::Sync] {
        let dir = tempfile::tempdir().unwrap();
        let stream = Stream::builder(dir.path()).shards(2).open().unwrap();
        let queue = Queue::builder("q", &stream).durability(durability).open().unwrap();
        let count = if durability == Durability::Os { 20_000 } else { 500 };
        let done: Vec<u32> = thread::scope(|scope| {
            let consume = || {
                let mut done = Vec::new();
                loop {
                    let mut messages = queue.receive(7, Duration::from_millis(300)).unwrap();
                    if messages.is_empty() {
                        return done;
                    }
                    // One is given back at first.
                    if messages[0].receive_count() == 1 {
                        drop(messages.remove(0));
                    }
                    let number = |message: &Message| {
                        std::str::from_utf8(message.data()).unwrap().parse::<u32>().unwrap()
                    };
                    done.extend(messages.iter().map(number));
                    queue.ack_all(messages).unwrap();
                }
            };
            let consumers: Vec<_> = (0..4).map(|_| scope.spawn(consume)).collect();
            for number in 0..count {
                stream.put(&format!("key-{}", number % 50), number.to_string()).unwrap();
            }
            consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
        });
        assert_eq!(done.len(), count as usize, "none is done twice");
        assert_eq!(BTreeSet::from_iter(done), (0..count).collect());
        assert_eq!(depth(&queue), [0, 0, 0, 0]);
        queue.close().unwrap();
        assert_eq!(depth(&Queue::open("q", &stream).unwrap()), [0, 0, 0, 0]);
    }
}

#[test]
fn a_stream_with_a_queue_is_whole_and_is_deleted_with_it_when_nobody_has_it() {
    let fixture = Fixture::new();
    let stream = fixture.stream();
    put(&stream, &["a"]);
    let queue = Queue::open("q", &stream).unwrap();
    drop(receive(&queue));
    let path = stream.path().to_owned();
    assert!(millstream::verify(&path).unwrap().findings.is_empty());
    queue.close().unwrap();
    stream.close().unwrap();
    Stream::delete(&path).unwrap();
}
