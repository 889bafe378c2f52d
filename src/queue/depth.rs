//! How much there is in a queue.

use crate::error::Result;
use crate::queue::Queue;
use crate::queue::state::State;
use crate::stream::Stream;

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
        let inner = &self.inner;
        let now_ms = inner.stream.now_ms();
        let depth = {
            let mut state = inner.state.lock();
            state.add_new(inner.keeps_in_flight, now_ms)?;
            look(&mut state, &inner.stream, now_ms)?
        };
        Ok(Depth { dead: inner.dead_letters.count()?, ..depth })
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
