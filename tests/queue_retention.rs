//! What a queue is through with goes from the disk, and nothing else does.

mod common;

use std::time::Duration;

use common::TestClock;
use millstream::{Application, DeadLetters, Error, Queue, Retention, Stream};
use tempfile::TempDir;

const NOW: Duration = Duration::ZERO;
/// The size of all segments.
const SEGMENT: u64 = 64 << 10;

struct Fixture {
    clock: TestClock,
    stream: Stream,
    _directory: TempDir,
}

impl Fixture {
    /// A stream that keeps what these have not processed, and at most so many bytes.
    fn new(shards: u32, applications: &[&str], bytes: u64) -> Self {
        let (clock, directory) = (TestClock::new(), tempfile::tempdir().unwrap());
        let stream = Stream::builder(directory.path())
            .shards(shards)
            .max_segment_bytes(SEGMENT)
            .retention(Retention::until_processed(applications.iter().copied(), bytes))
            .clock(clock.clone())
            .open()
            .unwrap();
        Self { clock, stream, _directory: directory }
    }

    fn put(&self, count: usize) {
        for n in 0..count {
            self.stream.put(&n.to_string(), [7; 500]).unwrap();
        }
    }

    /// What is on the disk when all went that may.
    fn bytes(&self) -> u64 {
        self.clock.advance(1);
        self.stream.apply_retention().unwrap();
        self.stream.storage().unwrap().bytes
    }
}

fn consume(queue: &Queue, count: usize) {
    let messages = queue.receive(count, NOW).unwrap();
    assert_eq!(messages.len(), count);
    queue.ack_all(messages).unwrap();
}

#[test]
fn what_all_queues_are_through_with_goes_and_nothing_else() {
    let fixture = Fixture::new(2, &["one", "two"], 1 << 30);
    let one = Queue::open("one", &fixture.stream).unwrap();
    let two = Queue::open("two", &fixture.stream).unwrap();
    fixture.put(2000);
    let full = fixture.bytes();
    assert!(full > 1_000_000);
    consume(&one, 2000);
    assert_eq!(fixture.bytes(), full, "the other one has not received anything");
    consume(&two, 1000);
    let half = fixture.bytes();
    assert!(half < full - 500_000 + 4 * SEGMENT, "{half} of {full}");
    consume(&two, 1000);
    assert!(fixture.bytes() < 2 * 2 * SEGMENT, "under two segments a shard");
    assert_eq!(two.depth().unwrap(), one.depth().unwrap());
    drop((one, two));
    let one = Queue::open("one", &fixture.stream).unwrap();
    assert_eq!(one.depth().unwrap().ready, 0);
}

#[test]
fn a_message_that_is_stuck_holds_the_disk_is_told_and_can_be_put_aside() {
    let fixture = Fixture::new(1, &["q"], 1 << 30);
    let queue = Queue::open("q", &fixture.stream).unwrap();
    fixture.put(1);
    fixture.clock.advance(5);
    fixture.put(1000);
    let stuck = queue.receive(1, NOW).unwrap().remove(0);
    consume(&queue, 999);
    let last = queue.receive(1, NOW).unwrap().remove(0);
    assert!(fixture.bytes() > 500_000);
    let oldest = queue.oldest().unwrap();
    assert_eq!(oldest.len(), 1);
    assert_eq!(oldest[0].sequence_number, stuck.sequence_number());
    assert_eq!((oldest[0].receive_count, oldest[0].arrival_ms), (1, Some(common::START_MS)));
    assert!((500_000..700_000).contains(&oldest[0].held_bytes), "{oldest:?}");

    queue.put_aside(oldest[0].shard, oldest[0].sequence_number, "it takes for ever").unwrap();
    assert!(fixture.bytes() < 2 * SEGMENT);
    let letters = DeadLetters::of("q", &fixture.stream).unwrap().list().unwrap();
    assert_eq!((letters.len(), &letters[0].cause[..]), (1, "it takes for ever"));
    assert!(matches!(stuck.ack(), Err(Error::ReceiptExpired { .. })));
    assert_eq!(queue.oldest().unwrap()[0].sequence_number, last.sequence_number());
    let unread = fixture.stream.put("unread", "").unwrap();
    let refused = queue.put_aside(unread.shard, unread.sequence_number, "").unwrap_err();
    assert!(matches!(refused, Error::ReceiptExpired { .. }));
}

#[test]
fn a_stream_that_is_full_of_messages_refuses_more_until_some_are_done() {
    let fixture = Fixture::new(1, &["q"], 1 << 20);
    let queue = Queue::open("q", &fixture.stream).unwrap();
    let mut put = 0;
    let refused = loop {
        match fixture.stream.put("a", [7; 500]) {
            Ok(_) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::StreamFull { .. }), "{refused}");
    assert_eq!(queue.depth().unwrap().ready, put);
    consume(&queue, put as usize);
    fixture.clock.advance(1);
    fixture.put(100);
    assert_eq!(queue.depth().unwrap().ready, 100);
}

#[test]
fn how_far_a_queue_is_can_be_seen_from_outside() {
    let fixture = Fixture::new(1, &["q"], 1 << 30);
    let queue = Queue::open("q", &fixture.stream).unwrap();
    fixture.put(1000);
    consume(&queue, 900);
    queue.close().unwrap();
    let shards = Application::of("q", &fixture.stream).unwrap().shards().unwrap();
    assert_eq!((shards[0].lag.records, shards[0].is_owned), (100, false));
}
