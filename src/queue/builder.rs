//! How a queue is set up.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::format::names::{APPLICATIONS, QUEUE, ROW};
use crate::os::fs;
use crate::os::signal::Bell;
use crate::position::StartingPosition;
use crate::queue::journal::Journal;
use crate::queue::state::State;
use crate::queue::{Inner, MAX_VISIBILITY, Queue, millis};
use crate::record::Durability;
use crate::stream::Stream;
use crate::worker::{DeadLetters, Progress, check_name};

/// Opens a [`Queue`]; made by [`Queue::builder`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::time::Duration;
/// use millstream::{Durability, Queue};
///
/// let queue = Queue::builder("thumbnails", &stream)
///     .visibility_timeout(Duration::from_secs(5 * 60))
///     .max_receives(5)
///     .ordered_by_key()
///     .durability(Durability::Sync)
///     .open()?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens until it is opened"]
pub struct QueueBuilder {
    application: String,
    stream: Stream,
    visibility: Duration,
    max_receives: u16,
    is_ordered: bool,
    keeps_in_flight: bool,
    durability: Durability,
    starting_position: StartingPosition,
}

impl QueueBuilder {
    pub(super) fn new(application: &str, stream: &Stream) -> Self {
        Self {
            application: application.into(),
            stream: stream.clone(),
            visibility: Duration::from_secs(30),
            max_receives: u16::MAX,
            is_ordered: false,
            keeps_in_flight: false,
            durability: stream.durability(),
            starting_position: StartingPosition::TrimHorizon,
        }
    }

    /// How long a consumer has a message before another one gets it, unless it is acknowledged,
    /// given back or [extended](crate::Message::extend): 30 seconds by default, at most 12 hours.
    /// With zero it is available again at once.
    pub fn visibility_timeout(mut self, time: Duration) -> Self {
        self.visibility = time;
        self
    }

    /// How often a message is received before the next receive puts it aside, as a
    /// [dead letter](DeadLetters) of the application; 0 counts as 1. There is no limit by default.
    ///
    /// A receive counts when the message is given out, whatever becomes of it. So a message that
    /// kills the process every time is put aside in the end, too.
    pub fn max_receives(mut self, count: u16) -> Self {
        self.max_receives = count.max(1);
        self
    }

    /// Gives a message to a consumer only when all earlier ones of its partition key are done or
    /// put aside. Messages of other keys do not wait for it, nor do those that were put [without a
    /// key](Stream::put_any). The order holds across splits and merges, too: the children of a
    /// shard begin when everything in the shard is done.
    pub fn ordered_by_key(mut self) -> Self {
        self.is_ordered = true;
        self
    }

    /// Keeps messages in flight that a process before this one received, until their visibility
    /// timeout is over. By default they come again at once, since that process is gone.
    ///
    /// This is for those who receive in one process and acknowledge in the next, by the
    /// [receipt handle](crate::Message::handle).
    pub fn keep_in_flight(mut self) -> Self {
        self.keeps_in_flight = true;
        self
    }

    /// What an acknowledgement survives, in the words of a put; by default as the stream's puts.
    /// What is noted besides, such as how often a message was received, goes to the disk with the
    /// next acknowledgement.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Where the queue begins if it is new: [`StartingPosition::TrimHorizon`] unless said
    /// otherwise; as in [`WorkerPoolBuilder::starting_position`].
    ///
    /// [`WorkerPoolBuilder::starting_position`]: crate::WorkerPoolBuilder::starting_position
    pub fn starting_position(mut self, position: StartingPosition) -> Self {
        self.starting_position = position;
        self
    }

    /// Opens the queue, or begins a new one.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] if the stream is; [`Error::Locked`] if the queue is open already;
    /// [`Error::InvalidArgument`] if the name cannot be that of an application or is one of worker
    /// pools, or a setting is out of bounds; [`Error::Corrupt`]; what reading and writing says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Error, Queue, StartingPosition};
    ///
    /// stream.put("picture-6", "was drawn before")?;
    /// let builder = Queue::builder("thumbnails", &stream).keep_in_flight();
    /// let queue = builder.clone().starting_position(StartingPosition::Latest).open()?;
    /// assert_eq!(queue.depth()?.ready, 0);
    /// assert!(matches!(builder.open(), Err(Error::Locked { .. })));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn open(self) -> Result<Queue> {
        use StartingPosition::{AfterSequenceNumber, AtSequenceNumber};
        let stream = self.stream;
        check_name(&self.application)?;
        let visibility_ms = millis(self.visibility, MAX_VISIBILITY)?;
        if let AtSequenceNumber(_) | AfterSequenceNumber(_) = self.starting_position {
            let what = "a queue cannot begin at a sequence number: it belongs to one shard";
            return Err(Error::InvalidArgument(what.into()));
        }
        if !stream.is_written_here() {
            return Err(Error::ReadOnly);
        }
        let path = stream.path().join(APPLICATIONS).join(&self.application);
        let names = fs::list(&path)?;
        if !names.iter().any(|name| name == QUEUE) && names.iter().any(|name| name.ends_with(ROW)) {
            let what = format!(
                "{:?} is an application of worker pools, whose checkpoints a queue would not keep",
                self.application
            );
            return Err(Error::InvalidArgument(what));
        }
        fs::must_not_be_link(&path)?;
        let journal = Journal::open(&path.join(QUEUE), self.durability)?;
        let journal_stream = journal.0.stream().clone();
        let progress = Progress::join(&self.application, &stream, self.starting_position)?;
        let mut state = State::new(&stream, progress, journal, self.is_ordered, self.max_receives);
        state.add_new(self.keeps_in_flight, stream.now_ms())?;
        // The rest is of shards that are done.
        state.unread.clear();
        let inner = Inner {
            dead_letters: DeadLetters::of(&self.application, &stream)?,
            stream,
            journal: journal_stream,
            syncs: self.durability == Durability::Sync,
            visibility_ms,
            max_receives: self.max_receives,
            keeps_in_flight: self.keeps_in_flight,
            state: Mutex::new(state),
            bell: Bell::default(),
            emptied: Bell::default(),
        };
        Ok(Queue { inner: Arc::new(inner) })
    }
}
