//! Threads that work a queue off.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::os::signal::Event;
use crate::queue::{Message, Queue};
use crate::worker::{ProcessorError, RetryDelay, caught};

/// Longer than anybody waits for a message: until he is woken.
const FOR_EVER: Duration = Duration::MAX;

type Work = dyn Fn(&Message) -> Result<(), ProcessorError> + Send + Sync;

/// Starts [`QueueWorkers`]; made by [`Queue::workers`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// use std::time::Duration;
///
/// let workers = queue
///     .workers()
///     .threads(8)
///     .batch(1) // Each takes long.
///     .retry_delay(Duration::from_secs(1), Duration::from_secs(600))
///     .start(|_message| Ok(()))?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is worked off until it is started"]
pub struct QueueWorkersBuilder {
    queue: Queue,
    threads: usize,
    batch: usize,
    retry_delay: RetryDelay,
}

/// Threads that receive the messages of a [`Queue`], process them, and acknowledge those that
/// succeed. A message that fails, by an error or a panic, is given back with a growing delay, and
/// is put aside as a dead letter when it has been received
/// [`max_receives`](crate::QueueBuilder::max_receives) times.
///
/// When this is dropped, the threads finish their current messages and end.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::{DeadLetters, Queue};
///
/// let queue = Queue::builder("sums", &stream).max_receives(2).open()?;
/// let workers = queue
///     .workers()
///     .retry_delay(Duration::from_millis(1), Duration::from_secs(1))
///     .start(|message| {
///         let number: u32 = std::str::from_utf8(message.data())?.parse()?;
///         println!("{number}");
///         Ok(())
///     })?;
/// stream.put("a", "12")?;
/// stream.put("b", "twelve")?;
/// assert!(queue.wait_until_empty(Duration::from_secs(10))?);
/// let status = workers.status();
/// assert_eq!((status.done, status.failures), (1, 2));
/// assert!(workers.shutdown(Duration::from_secs(10)));
/// assert_eq!(DeadLetters::of("sums", &stream)?.list()?[0].data(), b"twelve");
/// # Ok::<(), millstream::Error>(())
/// ```
#[must_use = "the threads end when it is dropped"]
pub struct QueueWorkers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// Nothing comes: the other ends go when the threads do.
    alive: Receiver<()>,
}

/// How the workers of a queue are; see [`QueueWorkers::status`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// use millstream::QueueWorkersStatus;
///
/// let workers = queue.workers().start(|_message| Ok(()))?;
/// let QueueWorkersStatus { done, last_failure, .. } = workers.status();
/// assert_eq!((done, last_failure), (0, None));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct QueueWorkersStatus {
    /// Messages that were processed successfully and acknowledged.
    pub done: u64,
    /// Attempts that have failed.
    pub failures: u64,
    /// Messages that were received again elsewhere before they were done here, because processing
    /// took longer than the visibility timeout.
    pub expired: u64,
    /// Threads that are processing a message now.
    pub busy: usize,
    /// What the last failure said: of a message, or of the queue itself.
    pub last_failure: Option<String>,
}

/// What the threads share.
struct Shared {
    queue: Queue,
    batch: usize,
    retry_delay: RetryDelay,
    work: Box<Work>,
    is_over: AtomicBool,
    status: Mutex<QueueWorkersStatus>,
    /// Each thread's, on which it waits after a failure of the queue.
    pauses: Vec<Event>,
}

impl Queue {
    /// A builder for threads that process the messages of the queue.
    pub fn workers(&self) -> QueueWorkersBuilder {
        QueueWorkersBuilder {
            queue: self.clone(),
            threads: thread::available_parallelism().map_or(1, usize::from),
            batch: 10,
            retry_delay: RetryDelay::varied(Duration::from_millis(100), Duration::from_secs(10)),
        }
    }
}

impl QueueWorkersBuilder {
    /// How many threads there are; 0 counts as 1. The default is the number of processors.
    pub fn threads(mut self, count: usize) -> Self {
        self.threads = count.max(1);
        self
    }

    /// How many messages a thread receives at once and acknowledges together: up to 10 by default;
    /// 0 counts as 1. A message whose turn comes late has its visibility timeout extended first.
    pub fn batch(mut self, count: usize) -> Self {
        self.batch = count.max(1);
        self
    }

    /// How long a message that failed waits before it comes again: `first`, then twice as long each
    /// time, up to `max`. A random part of up to a half is taken off. 100 ms and 10 s by default.
    pub fn retry_delay(mut self, first: Duration, max: Duration) -> Self {
        self.retry_delay = RetryDelay::varied(first, max);
        self
    }

    /// Starts the threads. Each message is given to `work`; if that returns an error or panics, the
    /// message comes again. Work that takes longer than the visibility timeout
    /// [extends](Message::extend) it.
    ///
    /// # Errors
    /// [`Error::Io`] if a thread cannot be started.
    pub fn start<F>(self, work: F) -> Result<QueueWorkers>
    where
        F: Fn(&Message) -> Result<(), ProcessorError> + Send + Sync + 'static,
    {
        let shared = Arc::new(Shared {
            queue: self.queue,
            batch: self.batch,
            retry_delay: self.retry_delay,
            work: Box::new(work),
            is_over: AtomicBool::new(false),
            status: Mutex::default(),
            pauses: (0..self.threads).map(|_| Event::default()).collect(),
        });
        let (here, alive) = bounded::<()>(0);
        // Those that were started end when this is dropped.
        let mut workers = QueueWorkers { shared: Arc::clone(&shared), threads: Vec::new(), alive };
        for index in 0..self.threads {
            let (shared, here) = (Arc::clone(&shared), here.clone());
            let thread = thread::Builder::new().name("millstream-queue".into());
            let thread = thread.spawn(move || {
                let _here = here;
                shared.run(index);
            });
            let error = |e| Error::io("start a thread for", "millstream-queue".as_ref(), e);
            workers.threads.push(thread.map_err(error)?);
        }
        Ok(workers)
    }
}

impl QueueWorkers {
    /// How it is going.
    pub fn status(&self) -> QueueWorkersStatus {
        self.shared.status.lock().clone()
    }

    /// Has the threads finish the messages that they are at, and end; what they have received
    /// beyond is given back. Whether all have ended within this time: those that have not do so
    /// when their work is finished.
    pub fn shutdown(mut self, deadline: Duration) -> bool {
        self.end();
        let threads = mem::take(&mut self.threads);
        let is_over = self.alive.recv_timeout(deadline) == Err(RecvTimeoutError::Disconnected);
        if is_over {
            join(threads);
        }
        is_over
    }

    fn end(&self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.queue.inner.bell.ring(|| ());
        self.shared.pauses.iter().for_each(Event::notify);
    }
}

impl Drop for QueueWorkers {
    fn drop(&mut self) {
        self.end();
        join(mem::take(&mut self.threads));
    }
}

impl fmt::Debug for QueueWorkers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueWorkers")
            .field("queue", &self.shared.queue)
            .field("threads", &self.threads.len())
            .field("status", &self.status())
            .finish()
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// A thread's life.
    fn run(&self, index: usize) {
        let mut failures = 0;
        while !self.is_over() {
            let received = self.queue.receive_unless(self.batch, FOR_EVER, || self.is_over());
            match received.and_then(|messages| self.work_on(messages)) {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.status.lock().last_failure = Some(error.to_string());
                    self.pauses[index].wait_for(self.retry_delay.after(failures));
                }
            }
        }
    }

    /// Works on messages that were received together.
    fn work_on(&self, messages: Vec<Message>) -> Result<()> {
        let visibility_ms = self.queue.inner.visibility_ms;
        let (received_ms, mut done) = (self.now_ms(), Vec::new());
        for message in messages {
            // What is dropped is given back.
            if self.is_over() {
                break;
            }
            let passed_ms = self.now_ms().saturating_sub(received_ms);
            if passed_ms > visibility_ms / 2 && visibility_ms > 0 {
                // It is late for all of them: from now on, each is seen to by itself.
                self.acknowledge(mem::take(&mut done))?;
                if !self.if_not_expired(message.extend(Duration::from_millis(visibility_ms)))? {
                    continue;
                }
            }
            match self.attempt(&message) {
                Ok(()) => done.push(message),
                Err(cause) => {
                    let delay = self.retry_delay.after(message.receive_count().into());
                    self.if_not_expired(message.fail(&cause, delay))?;
                    let mut status = self.status.lock();
                    status.failures += 1;
                    status.last_failure = Some(cause);
                }
            }
        }
        self.acknowledge(done)
    }

    fn now_ms(&self) -> u64 {
        self.queue.stream().now_ms()
    }

    /// Works on a message; the error says why that failed.
    fn attempt(&self, message: &Message) -> Result<(), String> {
        self.status.lock().busy += 1;
        let worked = caught(|| (self.work)(message));
        self.status.lock().busy -= 1;
        worked?.map_err(|error| error.to_string())
    }

    fn acknowledge(&self, done: Vec<Message>) -> Result<()> {
        let count = done.len();
        let (valid, _) = self.queue.inner.ack_those(&mut self.queue.settle(done))?;
        let mut status = self.status.lock();
        status.done += valid as u64;
        status.expired += (count - valid) as u64;
        Ok(())
    }

    /// Whether what was said of a message counts; if not, somebody else has it by now.
    fn if_not_expired(&self, said: Result<()>) -> Result<bool> {
        let is_expired = matches!(said, Err(Error::ReceiptExpired { .. }));
        if is_expired {
            self.status.lock().expired += 1;
            return Ok(false);
        }
        said.map(|()| true)
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // What panics in there is caught.
        let _ = thread.join();
    }
}
