//! What a consumer holds in its hands.

use std::fmt;
use std::mem;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::position::{SequenceNumber, ShardId};
use crate::queue::feed::Next;
use crate::queue::settle::Held;
use crate::queue::{Inner, Queue};

/// A record that was received from a [`Queue`]. Nobody else gets it until its visibility timeout is
/// over. Its data stays where it is, in mapped files.
///
/// [Acknowledge](Self::ack) it when it is done. A message that is dropped without is given back,
/// and is available to others at once, also if the consumer panics.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// # use std::time::Duration;
/// use millstream::Message;
///
/// fn draw(message: &Message) -> Result<(), String> {
///     println!("{}: {} bytes", message.partition_key(), message.data().len());
///     Ok(())
/// }
///
/// stream.put("picture-7", "draw me")?;
/// for message in queue.receive(10, Duration::from_secs(1))? {
///     match draw(&message) {
///         Ok(()) => message.ack()?,
///         Err(cause) => message.fail(&cause, Duration::from_secs(60))?,
///     }
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[must_use = "a message that is dropped is given to another consumer"]
pub struct Message {
    queue: Arc<Inner>,
    record: Next,
    held: Held,
    /// Whether something was said of it.
    is_settled: bool,
}

/// Names a message and its receipt, for settling it elsewhere or later: a plain value that can be
/// stored as text.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// # use std::time::Duration;
/// use millstream::{Error, ReceiptHandle};
///
/// stream.put("picture-7", "draw me")?;
/// let message = queue.receive(1, Duration::ZERO)?.remove(0);
/// let handle = message.keep().to_string();
///
/// let handle: ReceiptHandle = handle.parse()?;
/// assert_eq!(handle.receive_count, 1);
/// queue.ack(handle)?;
/// assert!(matches!(queue.ack(handle), Err(Error::ReceiptExpired { .. })));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReceiptHandle {
    /// The shard that the message is in.
    pub shard: ShardId,
    /// Its number in the shard.
    pub sequence_number: SequenceNumber,
    /// How often it had been received with this receipt.
    pub receive_count: u16,
}

impl Message {
    pub(super) fn new(queue: Arc<Inner>, record: Next, held: Held) -> Self {
        Self { queue, record, held, is_settled: false }
    }

    /// The key that the record was put with; empty if it was put without one.
    pub fn partition_key(&self) -> &str {
        self.record.record().partition_key()
    }

    /// What was put.
    pub fn data(&self) -> &[u8] {
        self.record.record().data()
    }

    /// When the record arrived, in milliseconds since 1970.
    pub fn arrival_ms(&self) -> u64 {
        self.record.record().arrival_ms()
    }

    /// The shard that the record is in. With its [number](Self::sequence_number) there it has a
    /// name that stays the same however often the message is received.
    pub fn shard(&self) -> ShardId {
        self.held.ticket.shard
    }

    /// The record's number in its shard.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.held.address.into()
    }

    /// How often the message was received, this time included. It may be one more for each crash
    /// in the moment in which it was given out.
    pub fn receive_count(&self) -> u16 {
        self.held.receives
    }

    /// What names this message and this receipt of it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// # use std::time::Duration;
    /// let receipt = stream.put("picture-7", "draw me")?;
    /// let message = queue.receive(1, Duration::ZERO)?.remove(0);
    /// let handle = message.handle();
    /// assert_eq!(handle.shard, message.shard());
    /// assert_eq!(handle.sequence_number, message.sequence_number());
    /// assert_eq!(message.arrival_ms(), receipt.arrival_ms);
    /// assert_eq!((message.partition_key(), message.receive_count()), ("picture-7", 1));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn handle(&self) -> ReceiptHandle {
        ReceiptHandle {
            shard: self.shard(),
            sequence_number: self.sequence_number(),
            receive_count: self.held.receives,
        }
    }

    /// Does not give the message back: it is in flight until its visibility timeout is over, and is
    /// to be settled by the handle.
    pub fn keep(mut self) -> ReceiptHandle {
        self.is_settled = true;
        self.handle()
    }

    /// Acknowledges the message: it is done, and never comes again.
    ///
    /// That holds also when its visibility timeout is over, as long as nobody else has received it
    /// since. Then it is too late: he has it now.
    ///
    /// # Errors
    /// [`Error::ReceiptExpired`] if the message was received again, or is done; [`Error::DiskFull`]
    /// or [`Error::Poisoned`] if it cannot be noted: then it comes again.
    pub fn ack(self) -> Result<()> {
        let (queue, held) = self.settle();
        queue.ack(&mut [held])
    }

    /// Gives the message back: it is there for others when `delay` is over, at most a year.
    ///
    /// # Errors
    /// As [`ack`](Self::ack); [`Error::InvalidArgument`] if the delay is too long.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// # use std::time::Duration;
    /// stream.put("picture-7", "draw me")?;
    /// let message = queue.receive(1, Duration::ZERO)?.remove(0);
    /// message.nack(Duration::ZERO)?;
    /// let message = queue.receive(1, Duration::ZERO)?.remove(0);
    /// assert_eq!(message.receive_count(), 2);
    /// message.nack(Duration::from_secs(60))?;
    /// assert_eq!(queue.depth()?.delayed, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn nack(self, delay: Duration) -> Result<()> {
        let (queue, held) = self.settle();
        queue.nack(&mut [held], delay, None)
    }

    /// As [`nack`](Self::nack), and says why. If the message was received as often as it may be, it
    /// is put aside with this as its cause.
    ///
    /// # Errors
    /// As [`nack`](Self::nack).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::{DeadLetters, Queue};
    ///
    /// let queue = Queue::builder("thumbnails", &stream).max_receives(1).open()?;
    /// stream.put("picture-7", "draw me")?;
    /// queue.receive(1, Duration::ZERO)?.remove(0).fail("no such picture", Duration::ZERO)?;
    /// assert!(queue.receive(1, Duration::ZERO)?.is_empty());
    /// let letters = DeadLetters::of("thumbnails", &stream)?.list()?;
    /// assert_eq!(letters[0].cause, "no such picture");
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn fail(self, cause: &str, delay: Duration) -> Result<()> {
        let (queue, held) = self.settle();
        queue.nack(&mut [held], delay, Some(cause))
    }

    /// Has the visibility timeout be over so long from now, at most 12 hours.
    ///
    /// # Errors
    /// As [`ack`](Self::ack); [`Error::InvalidArgument`] if the time is too long.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use std::time::Duration;
    /// use millstream::Queue;
    ///
    /// let queue = Queue::builder("thumbnails", &stream)
    ///     .visibility_timeout(Duration::ZERO)
    ///     .open()?;
    /// stream.put("picture-7", "draw me")?;
    /// let message = queue.receive(1, Duration::ZERO)?.remove(0);
    /// message.extend(Duration::from_secs(60))?;
    /// assert!(queue.receive(1, Duration::ZERO)?.is_empty());
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn extend(&self, time: Duration) -> Result<()> {
        self.queue.extend(self.held, time)
    }

    /// What is needed to say something of it; dropping says nothing any more.
    fn settle(mut self) -> (Arc<Inner>, Held) {
        self.is_settled = true;
        (Arc::clone(&self.queue), self.held)
    }
}

impl Queue {
    /// Acknowledges messages together, as [`Message::ack`] does one; all of this queue.
    ///
    /// # Errors
    /// [`Error::ReceiptExpired`] for the first one for which it is too late, when all others are
    /// acknowledged; otherwise as [`Message::ack`], of all of them.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// # use std::time::Duration;
    /// stream.put_batch([("picture-7", "draw me"), ("picture-8", "draw me")]);
    /// let messages = queue.receive(10, Duration::ZERO)?;
    /// queue.nack_all(messages, Duration::ZERO)?;
    /// let messages = queue.receive(10, Duration::ZERO)?;
    /// assert_eq!(messages.len(), 2);
    /// queue.ack_all(messages)?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn ack_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<()> {
        self.inner.ack(&mut self.settle(messages))
    }

    /// Gives messages back together, as [`Message::nack`] does one; all of this queue.
    ///
    /// # Errors
    /// As [`ack_all`](Self::ack_all) and [`Message::nack`].
    pub fn nack_all(
        &self,
        messages: impl IntoIterator<Item = Message>,
        delay: Duration,
    ) -> Result<()> {
        self.inner.nack(&mut self.settle(messages), delay, None)
    }

    /// Acknowledges the message that a handle names, as [`Message::ack`] does.
    ///
    /// # Errors
    /// As [`Message::ack`].
    pub fn ack(&self, handle: ReceiptHandle) -> Result<()> {
        self.inner.ack(&mut [self.inner.held(handle)?])
    }

    /// Gives the message back that a handle names, as [`Message::nack`] does.
    ///
    /// # Errors
    /// As [`Message::nack`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// # use std::time::Duration;
    /// stream.put("picture-7", "draw me")?;
    /// let handle = queue.receive(1, Duration::ZERO)?.remove(0).keep();
    /// queue.extend(handle, Duration::from_secs(60))?;
    /// queue.nack(handle, Duration::ZERO)?;
    /// assert_eq!(queue.depth()?.ready, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn nack(&self, handle: ReceiptHandle, delay: Duration) -> Result<()> {
        self.inner.nack(&mut [self.inner.held(handle)?], delay, None)
    }

    /// Has the visibility timeout of the message that a handle names be over so long from now, as
    /// [`Message::extend`] does.
    ///
    /// # Errors
    /// As [`Message::extend`].
    pub fn extend(&self, handle: ReceiptHandle, time: Duration) -> Result<()> {
        self.inner.extend(self.inner.held(handle)?, time)
    }

    pub(super) fn settle(&self, messages: impl IntoIterator<Item = Message>) -> Vec<Held> {
        let of_this_queue = |message: &Message| {
            assert!(Arc::ptr_eq(&message.queue, &self.inner), "the message is of another queue");
        };
        messages.into_iter().inspect(of_this_queue).map(|message| message.settle().1).collect()
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        if !mem::replace(&mut self.is_settled, true) {
            // If that cannot be noted, it comes again when its visibility timeout is over.
            let _ = self.queue.nack(&mut [self.held], Duration::ZERO, None);
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("shard", &self.shard())
            .field("record", &self.record.record())
            .field("receive_count", &self.held.receives)
            .finish()
    }
}

impl fmt::Display for ReceiptHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.shard, self.sequence_number, self.receive_count)
    }
}

impl FromStr for ReceiptHandle {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidArgument`] if the text is not what a handle prints as.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, ':');
        let mut parse = || {
            Some(Self {
                shard: parts.next()?.parse().ok()?,
                sequence_number: parts.next()?.parse().ok()?,
                receive_count: parts.next()?.parse().ok()?,
            })
        };
        parse().ok_or_else(|| {
            let what =
                format!("{text:?} is no receipt handle; one looks like {}:4096:1", ShardId::new(7));
            Error::InvalidArgument(what)
        })
    }
}
