//! A queue on a stream: consumers compete for its records, and acknowledge each.
//!
//! - `builder.rs`: how a queue is opened
//! - `receive.rs`: giving records to consumers, waiting for some, putting those aside that fail
//! - `message.rs`: what a consumer holds in its hands; `settle.rs`: what it says of it
//! - `oldest.rs`: what holds the disk, and getting it out of the way
//! - `depth.rs`: how much there is, and waiting until nothing is
//! - `workers.rs`: threads that work a queue off
//! - `state.rs`: what is known of all records, and what follows from what happens
//! - `find.rs`: what may be given to consumers now
//! - `feed.rs`: one shard as it is consumed; `window.rs`: its records that were read and are not
//!   done; `dues.rs`: when records come again
//! - `journal.rs`: what has happened, in a stream of its own; `spans.rs`: what it says of a shard
//!
//! How far everything of a shard is done is a checkpoint in the control table, as that of a pool.

mod builder;
mod depth;
mod dues;
mod feed;
mod find;
mod journal;
mod message;
mod oldest;
mod receive;
mod settle;
mod spans;
mod state;
#[cfg(test)]
mod tests;
mod window;
mod workers;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

pub use builder::QueueBuilder;
pub use depth::Depth;
pub use message::{Message, ReceiptHandle};
pub use oldest::OldestMessage;
pub use workers::{QueueWorkers, QueueWorkersBuilder, QueueWorkersStatus};

use crate::error::{Error, Result};
use crate::format::queue_entry::{Change, Span};
use crate::os::signal::Bell;
use crate::queue::state::State;
use crate::record::{PutRecord, Receipt};
use crate::stream::Stream;
use crate::worker::DeadLetters;

/// The longest visibility timeout: 12 hours.
const MAX_VISIBILITY: Duration = Duration::from_secs(12 * 60 * 60);
/// The longest delay: a year.
const MAX_DELAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A stream as a queue: its records are messages that any number of consumers compete for. Each
/// message is given to one consumer, who acknowledges it when it is done. If that does not happen
/// in time, or the consumer gives it back, another one gets it.
///
/// A queue is an [application](crate::Application) of its stream, with a name: each of several
/// queues on one stream gets all records, and so do worker pools beside them. Records are put to
/// the stream as usual. Queues belong to the process that has the stream open for putting. A handle
/// is cheap, and clones share the queue.
///
/// A message that was acknowledged never comes again, as far as the durability of the queue
/// promises; one that was not acknowledged comes again, also after a crash.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::Queue;
///
/// let queue = Queue::open("thumbnails", &stream)?;
/// stream.put("picture-7", "draw me")?;
/// for message in queue.receive(10, Duration::from_secs(1))? {
///     assert_eq!(message.data(), b"draw me");
///     message.ack()?; // One that is dropped instead is given to another consumer.
/// }
/// assert_eq!(queue.depth()?.ready, 0);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    stream: Stream,
    /// The stream that the journal is in.
    journal: Stream,
    /// Whether an acknowledgement waits until it is on the disk.
    syncs: bool,
    visibility_ms: u64,
    max_receives: u16,
    keeps_in_flight: bool,
    dead_letters: DeadLetters,
    state: Mutex<State>,
    /// Rings when a message may be there for one who sleeps.
    bell: Bell,
    /// Rings when no message that was read is left.
    emptied: Bell,
}

impl Queue {
    /// Opens the queue of this name on a stream, with the default settings of the
    /// [builder](Self::builder). A new queue begins with the oldest record that the stream has.
    ///
    /// # Errors
    /// As [`QueueBuilder::open`].
    pub fn open(application: &str, stream: &Stream) -> Result<Self> {
        Self::builder(application, stream).open()
    }

    /// A builder for the queue of this name on a stream.
    pub fn builder(application: &str, stream: &Stream) -> QueueBuilder {
        QueueBuilder::new(application, stream)
    }

    /// The stream that the messages are in.
    pub fn stream(&self) -> &Stream {
        &self.inner.stream
    }

    /// Puts a record to the stream that this queue gives to nobody until `delay` is over, at most a
    /// year. Everybody else who reads the stream sees it at once. Until it is done, a delayed
    /// message takes about 100 bytes of memory.
    ///
    /// In a queue that is [ordered by key](QueueBuilder::ordered_by_key) the later messages of its
    /// key wait for it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the delay is too long; as [`Stream::put`], also of what is
    /// noted about the delay.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::Queue;
    ///
    /// let queue = Queue::open("reminders", &stream)?;
    /// queue.put_delayed(("customer-7", "your trial ends"), Duration::from_secs(3600))?;
    /// assert!(queue.receive(1, Duration::ZERO)?.is_empty());
    /// assert_eq!(queue.depth()?.delayed, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn put_delayed<'a>(
        &self,
        record: impl Into<PutRecord<'a>>,
        delay: Duration,
    ) -> Result<Receipt> {
        let inner = &self.inner;
        let until_ms = inner.stream.now_ms() + millis(delay, MAX_DELAY)?;
        let receipt = inner.stream.put_noting(record.into(), |shard, address| {
            let mut state = inner.state.lock();
            let (from, to) = (address, address + 1);
            let change = Change::Delayed { until_ms };
            state.journal.append(&[(Span { shard, from, to }, change)])?;
            state.ahead(shard).apply(from, to, change);
            Ok(())
        })?;
        inner.sync()?;
        Ok(receipt)
    }

    /// Takes everything for done that the stream has now, also what consumers have in flight: none
    /// of it comes again. How many messages that were.
    ///
    /// # Errors
    /// What reading and writing says; then some may be gone, and some not.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// stream.put("picture-7", "draw me")?;
    /// assert_eq!(queue.purge()?, 1);
    /// assert_eq!(queue.depth()?.ready, 0);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn purge(&self) -> Result<u64> {
        let inner = &self.inner;
        let purged = {
            let mut state = inner.state.lock();
            let now_ms = inner.stream.now_ms();
            state.add_new(inner.keeps_in_flight, now_ms)?;
            let depth = depth::look(&mut state, &inner.stream, now_ms)?;
            state.purge()?;
            inner.let_go(state)?;
            depth.left()
        };
        inner.sync()?;
        Ok(purged)
    }

    /// Drops this handle; if it was the last one, and no message is left, closes the queue as
    /// dropping does, and says whether that succeeded.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync of the journal fails or has failed; what writing says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// queue.close()?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn close(self) -> Result<()> {
        Arc::into_inner(self.inner).map_or(Ok(()), |inner| inner.close())
    }
}

impl Inner {
    /// Waits until what was written to the journal is as durable as it has to be.
    fn sync(&self) -> Result<()> {
        if self.syncs { self.journal.flush() } else { Ok(()) }
    }

    /// Has those look who sleep, if there is something for them, and the journal begin anew if it
    /// is long.
    fn let_go(&self, mut state: parking_lot::MutexGuard<'_, State>) -> Result<()> {
        let has_news = std::mem::take(&mut state.has_news);
        let is_empty = state.counts.all() == 0;
        let snapshot = state.snapshot();
        let stuck = std::mem::take(&mut state.stuck);
        drop(state);
        stuck.into_iter().for_each(|stuck| self.tell(stuck));
        if has_news {
            self.bell.ring(|| ());
        }
        if is_empty {
            self.emptied.ring(|| ());
        }
        snapshot.map_or(Ok(()), |snapshot| snapshot.settle(&self.journal))
    }

    /// Tells those who listen, who may ask the queue how it is.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, reason = "nobody listens"))]
    fn tell(&self, stuck: feed::Stuck) {
        #[cfg(feature = "tracing")]
        tracing::event!(
            tracing::Level::WARN,
            queue = %self.journal.path().display(),
            shard = %stuck.shard,
            sequence_number = stuck.address,
            held_bytes = stuck.bytes,
            "a message that is not done holds the disk"
        );
    }

    /// Leaves everything in good order.
    fn close(&self) -> Result<()> {
        let mut state = self.state.lock();
        let shards = state.shards();
        let stored = state.store(shards, true);
        let mut feeds = std::mem::take(&mut state.feeds);
        // All are released, also behind one that cannot be.
        let released = feeds.values_mut().map(feed::Feed::release).fold(stored, Result::and);
        released.and_then(|()| self.journal.flush())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who wants to know calls `close`; the next opening goes by the journal.
        let _ = self.close();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("journal", &self.inner.journal.path()).finish_non_exhaustive()
    }
}

/// A time in milliseconds that is not longer than it may be.
fn millis(time: Duration, max: Duration) -> Result<u64> {
    if time > max {
        let what = format!("{time:?} is too long: at most {max:?} can be set");
        return Err(Error::InvalidArgument(what));
    }
    Ok(time.as_millis() as u64)
}
