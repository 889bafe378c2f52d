//! What holds the disk: of each shard the first message that is not done.

use crate::error::{Error, Result};
use crate::position::{SequenceNumber, ShardId};
use crate::queue::Queue;
use crate::queue::find::Taken;
use crate::queue::state::Ticket;
use crate::queue::window::State as SlotState;

/// The first message of a shard that is not done; see [`Queue::oldest`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// use millstream::OldestMessage;
///
/// for OldestMessage { shard, sequence_number, held_bytes, .. } in queue.oldest()? {
///     println!("{sequence_number} of {shard} holds {held_bytes} bytes");
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct OldestMessage {
    /// The shard.
    pub shard: ShardId,
    /// The message's number in the shard.
    pub sequence_number: SequenceNumber,
    /// How often it was received.
    pub receive_count: u16,
    /// When it arrived, in milliseconds since 1970; none if retention has removed it.
    pub arrival_ms: Option<u64>,
    /// What could go from the disk if it were done: the bytes of the log up to the next message
    /// that is not.
    pub held_bytes: u64,
}

impl Queue {
    /// Of each shard the first message that was received, or is delayed, and is not done. Retention
    /// that [waits until the queue is through](crate::Retention::until_processed) keeps everything
    /// behind it. With the feature `tracing`, one behind which 64 MiB were read is told as an
    /// event.
    ///
    /// # Errors
    /// What reading says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use std::time::Duration;
    /// let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// for picture in ["picture-7", "picture-8", "picture-9"] {
    ///     stream.put(picture, "draw me")?;
    /// }
    /// let mut messages = queue.receive(2, Duration::ZERO)?;
    /// messages.remove(1).ack()?;
    /// let oldest = queue.oldest()?[0];
    /// assert_eq!(oldest.sequence_number, messages[0].sequence_number());
    ///
    /// queue.put_aside(oldest.shard, oldest.sequence_number, "too difficult")?;
    /// assert_eq!(queue.depth()?.dead, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn oldest(&self) -> Result<Vec<OldestMessage>> {
        let inner = &self.inner;
        let state = inner.state.lock();
        let oldest = |feed: &crate::queue::feed::Feed| {
            let mut open = feed.window.open().map(|(_, slot)| slot);
            let Some(first) = open.next() else { return Ok(None) };
            let to = match open.next() {
                Some(second) => second.address,
                None => feed.read_to(),
            };
            let record = feed.read_again(&inner.stream, first.address)?;
            Ok(Some(OldestMessage {
                shard: feed.shard,
                sequence_number: first.address.into(),
                receive_count: first.receives,
                arrival_ms: record.map(|next| next.record().arrival_ms()),
                held_bytes: to.saturating_sub(first.address),
            }))
        };
        state.feeds.values().filter_map(|feed| oldest(feed).transpose()).collect()
    }

    /// Puts a message aside as a dead letter, whoever has it, so that it does not hold the disk. It
    /// has to be one that was received, or [is the oldest](Self::oldest).
    ///
    /// # Errors
    /// [`Error::ReceiptExpired`] if it is done, or nobody has received it yet; what reading says,
    /// and what putting it aside says.
    pub fn put_aside(
        &self,
        shard: ShardId,
        sequence_number: SequenceNumber,
        cause: &str,
    ) -> Result<()> {
        let inner = &self.inner;
        let taken = {
            let mut state = inner.state.lock();
            let expired = Error::ReceiptExpired { shard, sequence_number };
            let found = sequence_number.address().and_then(|address| {
                let index = state.feeds.get_mut(&shard)?.window.find(address)?;
                let ticket = Ticket { shard, index };
                let slot = *state.slot(ticket)?;
                (slot.state != SlotState::Found).then_some((ticket, slot))
            });
            let Some((ticket, slot)) = found else { return Err(expired) };
            let record = state.feeds[&shard].read_again(&inner.stream, slot.address)?;
            let record = record.ok_or(expired)?;
            state.put(ticket, SlotState::Found, 0);
            state.causes.insert(ticket, cause.to_owned());
            Taken { ticket, receives: slot.receives, record }
        };
        inner.bury(vec![taken])?;
        inner.sync()
    }
}
