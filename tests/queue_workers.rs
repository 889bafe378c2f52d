//! Threads that work a queue off: retries, dead letters, leaving.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Fixture, TestClock};
use millstream::{DeadLetters, Message, Queue, QueueWorkersBuilder, Stream};

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);

/// Workers that do not keep a test waiting after a failure.
fn workers(queue: &Queue) -> QueueWorkersBuilder {
    queue.workers().threads(3).retry_delay(Duration::ZERO, Duration::from_millis(1))
}

fn text(message: &Message) -> String {
    String::from_utf8(message.data().to_vec()).unwrap()
}

#[test]
fn what_fails_by_an_error_or_a_panic_comes_again_and_is_put_aside_in_the_end() {
    let Fixture { stream, directory: _directory } = Fixture::new(2);
    let queue = Queue::builder("q", &stream).max_receives(3).open().unwrap();
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let pool = workers(&queue)
        .start(move |message| {
            counted.fetch_add(1, Ordering::Relaxed);
            match (message.data(), message.receive_count()) {
                (b"fails twice", 1) => Err("not yet".into()),
                (b"fails twice", 2) => panic!("not yet, as this test says"),
                (b"fails always", _) => Err(format!("attempt {}", message.receive_count()).into()),
                _ => Ok(()),
            }
        })
        .unwrap();
    for n in 0..1000 {
        let data = match n {
            300 => "fails twice",
            700 => "fails always",
            _ => "works",
        };
        stream.put(&n.to_string(), data).unwrap();
    }
    assert!(queue.wait_until_empty(LONG).unwrap());
    let status = pool.status();
    assert!(pool.shutdown(LONG));
    assert_eq!((status.done, status.failures, status.expired, status.busy), (999, 5, 0, 0));
    assert_eq!(attempts.load(Ordering::Relaxed), 999 + 5);
    let letters = DeadLetters::of("q", &stream).unwrap().list().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].cause[..], letters[0].attempts), ("attempt 3", 3));
    queue.close().unwrap();
}

#[test]
fn workers_that_end_finish_what_they_are_at_and_give_back_the_rest() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let queue = Queue::open("q", &stream).unwrap();
    for name in ["a", "b", "c"] {
        stream.put(name, name).unwrap();
    }
    let (begun, begins) = channel();
    let (go_on, goes_on) = channel();
    let waits = Mutex::new(goes_on);
    let pool = workers(&queue)
        .threads(1)
        .start(move |message| {
            begun.send(text(message))?;
            waits.lock().unwrap().recv()?;
            Ok(())
        })
        .unwrap();
    assert_eq!(begins.recv_timeout(LONG).unwrap(), "a");
    assert_eq!((pool.status().busy, queue.depth().unwrap().in_flight), (1, 3));
    assert!(!pool.shutdown(Duration::from_millis(1)), "it is at a message");
    go_on.send(()).unwrap();
    // The others are given back when it is done.
    let b = queue.receive(1, LONG).unwrap().remove(0);
    assert_eq!((text(&b), b.receive_count()), ("b".into(), 2));
    let c = queue.receive(1, LONG).unwrap().remove(0);
    assert_eq!((text(&c), c.receive_count()), ("c".into(), 2));
    assert!(begins.recv_timeout(LONG).is_err(), "the thread has ended");
}

#[test]
fn workers_end_at_once_when_they_wait_for_messages() {
    let Fixture { stream, directory: _directory } = Fixture::new(1);
    let queue = Queue::open("q", &stream).unwrap();
    let pool = workers(&queue).start(|_| Ok(())).unwrap();
    stream.put("a", "a").unwrap();
    assert!(queue.wait_until_empty(LONG).unwrap());
    assert!(pool.shutdown(LONG));
    drop(workers(&queue).start(|_| Ok(())).unwrap());
    assert!(queue.depth().unwrap().ready == 0 && queue.close().is_ok());
}

#[test]
fn a_message_whose_turn_comes_late_is_extended_and_skipped_if_another_one_has_it() {
    let clock = TestClock::new();
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).clock(clock.clone()).open().unwrap();
    let queue = Queue::open("q", &stream).unwrap();
    for name in ["a", "b", "c", "d"] {
        stream.put(name, name).unwrap();
    }
    let (done, ends) = channel();
    let other = queue.clone();
    let pool = workers(&queue)
        .threads(1)
        .start(move |message| {
            match message.data() {
                // The visibility timeout is 30 seconds.
                b"a" => clock.advance(20_000),
                b"b" => {
                    clock.advance(20_000);
                    let given = other.receive(10, Duration::ZERO)?;
                    let given: Vec<_> = given.into_iter().map(|message| message.keep()).collect();
                    assert_eq!(given.len(), 2, "c and d, of which the time is over; not b");
                    other.ack(given[0])?;
                }
                b"e" => {}
                _ => panic!("another one has it"),
            }
            done.send(text(message))?;
            Ok(())
        })
        .unwrap();
    assert_eq!(ends.recv_timeout(LONG).unwrap(), "a");
    assert_eq!(ends.recv_timeout(LONG).unwrap(), "b");
    stream.put("e", "e").unwrap();
    assert_eq!(ends.recv_timeout(LONG).unwrap(), "e");
    assert_eq!(pool.status().expired, 2);
    assert!(pool.shutdown(LONG));
    let depth = queue.depth().unwrap();
    assert_eq!((depth.ready, depth.in_flight), (0, 1), "d is with the other one");
}
