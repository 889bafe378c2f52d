//! How much there is in a queue.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::names::{APPLICATIONS, QUEUE};
use crate::format::queue_entry::{Known, Until};
use crate::os::signal::Event;
use crate::position::{SequenceNumber, StartingPosition};
use crate::queue::spans::Spans;
use crate::queue::state::State;
use crate::queue::{Inner, Queue, journal};
use crate::record::Limit;
use crate::stream::{ShardIterator, Stream};
use crate::worker::{Application, Checkpoint, DeadLetters};

/// How many messages a queue has, by what becomes of them next; see [`Queue::depth`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # let queue = millstream::Queue::open("thumbnails", &stream)?;
/// use millstream::Depth;
///
/// assert_eq!(queue.depth()?, Depth::default());
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Depth {
    /// Those that nobody has; in a queue that is ordered by key, also those that wait for another
    /// one of their key.
    pub ready: u64,
    /// Those that a consumer has.
    pub in_flight: u64,
    /// Those that nobody gets before a time.
    pub delayed: u64,
    /// Those that were put aside as dead letters, and are there still.
    pub dead: u64,
}

impl Queue {
    /// How many messages there are at this moment. Nothing is read for that but the ledger of dead
    /// letters; what a producer has left behind in a crash counts as ready until it is passed over.
    ///
    /// # Errors
    /// What looking at the stream and its dead letters says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use std::time::Duration;
    /// let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// for picture in ["picture-7", "picture-8"] {
    ///     stream.put(picture, "draw me")?;
    /// }
    /// let _seven = queue.receive(1, Duration::ZERO)?;
    /// let depth = queue.depth()?;
    /// assert_eq!((depth.ready, depth.in_flight, depth.delayed, depth.dead), (1, 1, 0, 0));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn depth(&self) -> Result<Depth> {
        Ok(Depth { dead: self.inner.dead_letters.count()?, ..self.inner.look()? })
    }
}

impl Queue {
    /// How many messages a queue has, as anybody sees it who reads its stream, beside the process
    /// that has the queue open. What consumers have in flight counts as such until its visibility
    /// timeout is over, whether their process lives or not.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the stream has no such queue; what looking says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Queue, Stream};
    ///
    /// let queue = Queue::open("thumbnails", &stream)?;
    /// stream.put("picture-7", "draw me")?;
    /// let reader = Stream::open_read_only(dir.path())?;
    /// assert_eq!(Queue::depth_of("thumbnails", &reader)?.ready, 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn depth_of(application: &str, stream: &Stream) -> Result<Depth> {
        let path = stream.path().join(APPLICATIONS).join(application).join(QUEUE);
        let journal = match Stream::open_read_only(path) {
            Err(Error::StreamNotFound { .. }) => {
                let what = format!("the stream has no queue {application:?}");
                return Err(Error::InvalidArgument(what));
            }
            journal => journal?,
        };
        let rows = Application::of(application, stream)?.shards()?;
        let (mut all, _) = journal::replay(&journal)?;
        let mut depth = Depth::default();
        for info in stream.shards().into_iter().filter(|info| !stream.is_expired(info)) {
            let row = rows.iter().find(|row| row.shard == info.id);
            let checkpoint = row.map_or(Checkpoint::TrimHorizon, |row| row.checkpoint);
            if let Some(from) = checkpoint.position() {
                let spans = all.remove(&info.id).unwrap_or_default();
                depth.add(stream, stream.shard_iterator(info.id, from)?, spans)?;
            }
        }
        depth.dead = DeadLetters::of(application, stream)?.count()?;
        Ok(depth)
    }
}

impl Depth {
    /// Adds what a shard has from a place on.
    fn add(&mut self, stream: &Stream, from: ShardIterator, mut spans: Spans) -> Result<()> {
        let now_ms = stream.now_ms();
        let received_to = SequenceNumber::from(spans.received_to());
        let mut at = Some(from);
        while let Some(from) = at.take_if(|at| at.sequence_number() < received_to) {
            let page = stream.get_records(&from, Limit::default())?;
            let numbers = page.records.iter().map(|record| record.sequence_number());
            for number in numbers.take_while(|number| *number < received_to) {
                match number.address().and_then(|address| spans.get(address)) {
                    Some(Known::Done) => {}
                    Some(Known::Held { until: Until::InFlight(ms), .. }) if ms > now_ms => {
                        self.in_flight += 1;
                    }
                    Some(Known::Held { until: Until::Delayed(ms), .. }) if ms > now_ms => {
                        self.delayed += 1;
                    }
                    _ => self.ready += 1,
                }
            }
            at = page.next_shard_iterator.filter(|_| !page.records.is_empty());
            let last = page.records.last_sequence_number();
            if last.is_some_and(|last| last >= received_to) {
                let behind = StartingPosition::AtSequenceNumber(received_to);
                at = Some(stream.shard_iterator(from.shard(), behind)?);
                break;
            }
        }
        spans.forget_below(spans.received_to());
        let delayed = spans.put_with_delay().filter(|ms| *ms > now_ms).count() as u64;
        let unread = at.map_or(Ok(0), |at| stream.lag(&at).map(|lag| lag.records))?;
        self.ready += unread.saturating_sub(delayed);
        self.delayed += delayed;
        Ok(())
    }
}

impl Inner {
    /// All but the dead letters.
    fn look(&self) -> Result<Depth> {
        let now_ms = self.stream.now_ms();
        let mut state = self.state.lock();
        state.add_new(self.keeps_in_flight, now_ms)?;
        look(&mut state, &self.stream, now_ms)
    }
}

impl Queue {
    /// Waits until there is no message that is not done or put aside: whoever works the queue off
    /// has got through. False if that is not so within `timeout`.
    ///
    /// # Errors
    /// What looking at the stream says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use std::time::Duration;
    /// let queue = millstream::Queue::open("thumbnails", &stream)?;
    /// stream.put("picture-7", "draw me")?;
    /// assert!(!queue.wait_until_empty(Duration::from_millis(1))?);
    /// queue.receive(1, Duration::ZERO)?.remove(0).ack()?;
    /// assert!(queue.wait_until_empty(Duration::from_secs(1))?);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn wait_until_empty(&self, timeout: Duration) -> Result<bool> {
        let inner = &self.inner;
        let (started, event) = (Instant::now(), Arc::new(Event::default()));
        loop {
            inner.emptied.listen(&event, || ());
            let depth = inner.look();
            let left = timeout.saturating_sub(started.elapsed());
            let is_empty = depth.as_ref().is_ok_and(|depth| depth.left() == 0);
            if depth.is_err() || is_empty || left.is_zero() {
                inner.emptied.forget(&event);
                return depth.map(|_| is_empty);
            }
            event.wait_for(left);
        }
    }
}

impl Depth {
    /// How many are not done and not put aside.
    pub(super) fn left(&self) -> u64 {
        self.ready + self.in_flight + self.delayed
    }
}

/// All but the dead letters.
pub(super) fn look(state: &mut State, stream: &Stream, now_ms: u64) -> Result<Depth> {
    state.wake_due(now_ms);
    let mut depth = Depth {
        ready: state.counts.ready,
        in_flight: state.counts.in_flight,
        delayed: state.counts.delayed,
        dead: 0,
    };
    for feed in state.feeds.values() {
        let delayed = feed.ahead.put_with_delay().filter(|ms| *ms > now_ms).count() as u64;
        depth.ready += feed.lag(stream)?.records.saturating_sub(delayed);
        depth.delayed += delayed;
    }
    Ok(depth)
}
