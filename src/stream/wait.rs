//! Waiting until there is something to read, as threads and tasks do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::os::signal::Event;
use crate::position::ShardId;
use crate::record::Limit;
use crate::shard::Shard;
use crate::stream::{ShardIterator, Stream};
use crate::wait_strategy::WaitStrategy;

/// How long a reader sleeps before it looks again what another process has written.
pub(super) const POLL: Duration = Duration::from_millis(1);
/// How long it takes about to put a thread to sleep and to wake it.
const WAKE_UP: Duration = Duration::from_micros(20);

impl Stream {
    /// Waits until there is something to read at the iterator: a record, or the end of its shard.
    /// False if there was nothing within `timeout`.
    ///
    /// # Errors
    /// As [`get_records`](Self::get_records).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use std::time::Duration;
    /// use millstream::{ShardId, StartingPosition};
    ///
    /// let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
    /// assert!(!stream.wait(&iterator, Duration::from_millis(1))?);
    /// stream.put("customer-7", "clicked")?;
    /// assert!(stream.wait(&iterator, Duration::from_secs(1))?);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn wait(&self, iterator: &ShardIterator, timeout: Duration) -> Result<bool> {
        self.wait_with(iterator, timeout, WaitStrategy::Park)
    }

    /// Waits as [`wait`](Self::wait) does, in the manner of the strategy.
    ///
    /// # Errors
    /// As [`get_records`](Self::get_records).
    pub fn wait_with(
        &self,
        iterator: &ShardIterator,
        timeout: Duration,
        strategy: WaitStrategy,
    ) -> Result<bool> {
        let shard = self.look_up(iterator.shard(), |_, at| Arc::clone(at))?;
        let deadline = Instant::now().checked_add(timeout);
        let left = || match deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        };
        let mut at = iterator.clone();
        loop {
            match self.look(&at)? {
                None => return Ok(true),
                Some(_) if left().is_zero() => return Ok(false),
                Some(next) => at = next,
            }
            match strategy {
                WaitStrategy::Park if shard.is_written_here() && comes_soon(&shard, &at) => {}
                WaitStrategy::Park => self.sleep(&shard, &at, left())?,
                WaitStrategy::Yield => watch(&shard, &at, std::thread::yield_now),
                WaitStrategy::Spin => watch(&shard, &at, std::hint::spin_loop),
            }
        }
    }

    /// Sleeps until there are news at a place where none were found, or for so long.
    fn sleep(&self, shard: &Shard, at: &ShardIterator, timeout: Duration) -> Result<()> {
        let event = Arc::new(Event::default());
        let certain = self.notify_at(shard, at, &event)?;
        event.wait_for(if certain { timeout } else { timeout.min(POLL) });
        shard.forget(&event);
        Ok(())
    }

    /// Notifies `event` when there is something to read at the iterator, at once if there is
    /// already. False if that is not certain, because another process writes the stream, or a
    /// record is just being written: then the caller looks again soon.
    pub(crate) fn notify(&self, iterator: &ShardIterator, event: &Arc<Event>) -> Result<bool> {
        let shard = self.look_up(iterator.shard(), |_, at| Arc::clone(at))?;
        self.notify_at(&shard, iterator, event)
    }

    /// Does not notify `event` any more of what happens in a shard.
    pub(crate) fn forget(&self, shard: ShardId, event: &Arc<Event>) -> Result<()> {
        self.look_up(shard, |_, at| at.forget(event))
    }

    fn notify_at(&self, shard: &Shard, at: &ShardIterator, event: &Arc<Event>) -> Result<bool> {
        shard.listen(event);
        match self.look(at).inspect_err(|_| shard.forget(event))? {
            Some(next) => Ok(!shard.is_claimed_behind(&next.place)),
            None => {
                shard.forget(event);
                event.notify();
                Ok(true)
            }
        }
    }

    /// Looks for news, a record or the end of the shard: none if there are some; otherwise the
    /// place up to which there are not.
    pub(super) fn look(&self, iterator: &ShardIterator) -> Result<Option<ShardIterator>> {
        let page = self.get_records(iterator, Limit::records(1))?;
        Ok(page.next_shard_iterator.filter(|_| page.records.is_empty()))
    }
}

/// Whether news come about as soon as a sleeper would be awake: sleeping would only make it later.
fn comes_soon(shard: &Shard, iterator: &ShardIterator) -> bool {
    let start = Instant::now();
    while start.elapsed() < WAKE_UP {
        if shard.may_have_news(&iterator.place) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

/// Looks for news for some microseconds; the end of a shard and the time are looked at in between.
fn watch(shard: &Shard, iterator: &ShardIterator, pause: impl Fn()) {
    for _ in 0..1000 {
        if shard.may_have_news(&iterator.place) {
            return;
        }
        pause();
    }
}
