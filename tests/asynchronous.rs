//! Waiting and scanning in asynchronous code, by an executor of a few lines.

mod common;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use common::{Fixture, S0, put};
use futures_core::Stream as _;
use millstream::{AsyncScan, Error, Scan, ShardIterator, StartingPosition, Stream};

/// Runs one task on the thread that made it, and counts how often it is woken.
struct Runner {
    thread: Thread,
    woken: AtomicUsize,
}

impl Wake for Runner {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::Release);
        self.thread.unpark();
    }
}

impl Runner {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: thread::current(), woken: AtomicUsize::new(0) })
    }

    fn woken(&self) -> usize {
        self.woken.load(Ordering::Acquire)
    }

    /// Polls when woken, and only then.
    fn block_on<T>(self: &Arc<Self>, future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::clone(self));
        let mut future = pin!(future);
        loop {
            let woken = self.woken();
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(done) => return done,
                Poll::Pending => {
                    while self.woken() == woken {
                        thread::park();
                    }
                }
            }
        }
    }

    fn poll<T>(self: &Arc<Self>, future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }

    fn poll_next(self: &Arc<Self>, scan: &mut AsyncScan) -> Poll<Option<String>> {
        let waker = Waker::from(Arc::clone(self));
        let next = Pin::new(scan).poll_next(&mut Context::from_waker(&waker));
        next.map(|next| next.map(|scanned| scanned.unwrap().record().partition_key().to_owned()))
    }

    fn next(self: &Arc<Self>, scan: &mut AsyncScan) -> Option<String> {
        self.block_on(poll_fn(|cx| Pin::new(&mut *scan).poll_next(cx)))
            .map(|scanned| scanned.unwrap().record().partition_key().to_owned())
    }
}

fn latest(stream: &Stream) -> ShardIterator {
    stream.shard_iterator(S0, StartingPosition::Latest).unwrap()
}

fn follow(stream: &Stream) -> AsyncScan {
    stream.scan(..).map(Scan::follow_lineage).unwrap().into_async()
}

#[test]
fn what_is_there_is_ready_at_once() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let iterator = latest(stream);
    put(stream, "a");
    let runner = Runner::new();
    assert!(matches!(runner.poll(pin!(stream.wait_async(&iterator))), Poll::Ready(Ok(()))));
    assert_eq!(runner.woken(), 0);
}

#[test]
fn a_put_wakes_every_task_that_waits_and_each_once() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let iterator = latest(stream);
    let runners: Vec<_> = (0..1000).map(|_| Runner::new()).collect();
    let mut waits: Vec<_> = runners.iter().map(|_| stream.wait_async(&iterator)).collect();
    for (runner, wait) in runners.iter().zip(&mut waits) {
        assert!(runner.poll(Pin::new(wait)).is_pending());
    }
    put(stream, "a");
    for (runner, wait) in runners.iter().zip(&mut waits) {
        assert_eq!(runner.woken(), 1);
        assert!(runner.poll(Pin::new(wait)).is_ready());
    }
}

#[test]
fn a_put_of_another_thread_wakes_the_task() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let iterator = latest(stream);
    let (runner, mut wait) = (Runner::new(), stream.wait_async(&iterator));
    assert!(runner.poll(Pin::new(&mut wait)).is_pending());
    thread::scope(|scope| {
        scope.spawn(|| put(stream, "a"));
        runner.block_on(wait).unwrap();
    });
    assert_eq!(common::read(stream, &iterator, 10).0, ["a"]);
}

#[test]
fn a_record_of_another_process_is_seen() {
    let Fixture { stream, directory } = &Fixture::new(1);
    // As far as a read-only handle knows, another process writes.
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let (runner, mut wait) = (Runner::new(), reader.wait_async(&latest(&reader)));
    assert!(runner.poll(Pin::new(&mut wait)).is_pending());
    put(stream, "a");
    runner.block_on(wait).unwrap();
}

#[test]
fn the_end_of_a_shard_wakes_the_task() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let (runner, mut wait) = (Runner::new(), stream.wait_async(&latest(stream)));
    assert!(runner.poll(Pin::new(&mut wait)).is_pending());
    stream.split_mid(S0).unwrap();
    runner.block_on(wait).unwrap();
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_of_its_task_behind() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let runner = Runner::new();
    let (mut wait, mut scan) = (stream.wait_async(&latest(stream)), follow(stream));
    assert!(runner.poll(Pin::new(&mut wait)).is_pending());
    assert!(runner.poll_next(&mut scan).is_pending());
    assert!(Arc::strong_count(&runner) > 1);
    drop((wait, scan));
    assert_eq!(Arc::strong_count(&runner), 1);
    put(stream, "a");
    assert_eq!(runner.woken(), 0);
}

#[test]
fn the_task_that_polled_last_is_the_one_that_is_woken() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let (first, last) = (Runner::new(), Runner::new());
    let mut wait = stream.wait_async(&latest(stream));
    assert!(first.poll(Pin::new(&mut wait)).is_pending());
    assert!(last.poll(Pin::new(&mut wait)).is_pending());
    put(stream, "a");
    assert_eq!((first.woken(), last.woken()), (0, 1));
}

#[test]
fn a_scan_gives_what_comes_and_goes_on_in_the_children() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let (runner, mut scan) = (Runner::new(), follow(stream));
    put(stream, "a");
    assert_eq!(runner.next(&mut scan).as_deref(), Some("a"));
    assert!(runner.poll_next(&mut scan).is_pending());
    stream.split_mid(S0).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| ["b", "c", "d"].map(|key| put(stream, key)));
        let mut keys: Vec<_> = (0..3).map(|_| runner.next(&mut scan).unwrap()).collect();
        keys.sort();
        assert_eq!(keys, ["b", "c", "d"]);
    });
}

#[test]
fn a_scan_that_does_not_follow_ends() {
    let Fixture { stream, .. } = &Fixture::new(1);
    put(stream, "a");
    let (runner, mut scan) = (Runner::new(), stream.scan(..).unwrap().into_async());
    assert_eq!(runner.next(&mut scan).as_deref(), Some("a"));
    assert_eq!(runner.next(&mut scan), None);
    assert_eq!(runner.next(&mut scan), None);
}

#[test]
fn who_stops_waiting_for_the_next_record_loses_none() {
    let Fixture { stream, .. } = &Fixture::new(2);
    let (runner, mut scan) = (Runner::new(), follow(stream));
    for n in 0..100 {
        let key = format!("k{n}");
        {
            let mut next = pin!(poll_fn(|cx| Pin::new(&mut scan).poll_next(cx)));
            assert!(runner.poll(next.as_mut()).is_pending());
        }
        put(stream, &key);
        assert_eq!(runner.next(&mut scan), Some(key));
    }
}

#[test]
fn an_error_comes_once_and_ends_the_scan() {
    let Fixture { stream, directory } = Fixture::new(1);
    let reader = Stream::open_read_only(directory.path()).unwrap();
    let (runner, mut scan) = (Runner::new(), follow(&reader));
    assert!(runner.poll_next(&mut scan).is_pending());
    drop(stream);
    directory.close().unwrap();
    let next = runner.block_on(poll_fn(|cx| Pin::new(&mut scan).poll_next(cx)));
    assert!(matches!(next, Some(Err(Error::StreamNotFound { .. }))), "{next:?}");
    assert_eq!(runner.next(&mut scan), None);
}
