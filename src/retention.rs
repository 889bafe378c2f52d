//! How long a stream keeps its records, and what happens when there is no room for more.

use std::time::Duration;

#[cfg(feature = "serde")]
use crate::serialization::{as_ms, option_as_ms};

/// How long a stream keeps its records; for ever unless something is set.
///
/// A record may go as soon as it exceeds *any* of the limits. The oldest records go first, and a
/// reader that had not got to them is told of the [`Gap`](crate::Gap).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("clicks");
/// use std::time::Duration;
/// use millstream::{Retention, Stream, WhenFull};
///
/// let a_day = Duration::from_secs(24 * 60 * 60);
/// let stream = Stream::builder(&path)
///     .retention(Retention::default().age(a_day).bytes(10 << 30))
///     .open()?;
/// // From now on only what "billing" has processed may go; if that is not enough, puts fail.
/// let queue = stream.retention().hold_for(["billing"]).when_full(WhenFull::Reject);
/// stream.set_retention(queue)?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Retention {
    /// Records that arrived longer ago may go.
    #[cfg_attr(feature = "serde", serde(rename = "age_ms", serialize_with = "option_as_ms"))]
    pub age: Option<Duration>,
    /// The most bytes that the finished segments of the stream take.
    pub bytes: Option<u64>,
    /// Records may go if this many newer ones stay.
    pub records: Option<u64>,
    /// Records may go only when all of these applications have processed them.
    pub hold_for: Vec<String>,
    /// What happens when there is no room for more.
    pub when_full: WhenFull,
}

/// What happens when the stream has reached its limit of bytes, and no record may go.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use millstream::{Retention, Stream, WhenFull};
///
/// // A queue: nothing goes before "billing" has processed it, and producers wait for that, for a
/// // second at most.
/// let queue = Retention::default()
///     .bytes(1 << 30)
///     .hold_for(["billing"])
///     .when_full(WhenFull::Block(Duration::from_secs(1)));
/// let stream = Stream::builder(dir.path()).retention(queue).open()?;
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
pub enum WhenFull {
    /// The oldest records go. If an application that they are held for has not processed them, they
    /// are counted in [`Storage::dropped_unprocessed`](crate::Storage::dropped_unprocessed).
    #[default]
    DropOldest,
    /// The put fails with [`Error::StreamFull`](crate::Error::StreamFull).
    Reject,
    /// The put waits for up to this time, and then fails in the same way.
    #[cfg_attr(feature = "serde", serde(rename = "block_ms", serialize_with = "as_ms"))]
    Block(Duration),
}

impl Retention {
    /// Records go as soon as all of these applications have processed them, and no sooner: when the
    /// finished segments take so many `bytes`, and nothing may go, puts fail. This is what a
    /// [queue](crate::Queue) wants of its stream.
    ///
    /// It is short for an [age](Self::age) of zero, the limit of [bytes](Self::bytes),
    /// [`hold_for`](Self::hold_for) and [`WhenFull::Reject`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use millstream::{Queue, Retention, Stream};
    ///
    /// let retention = Retention::until_processed(["thumbnails"], 10 << 30);
    /// let stream = Stream::builder(dir.path()).retention(retention).open()?;
    /// let queue = Queue::open("thumbnails", &stream)?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn until_processed<A: Into<String>>(
        applications: impl IntoIterator<Item = A>,
        bytes: u64,
    ) -> Self {
        let held = Self::default().hold_for(applications).when_full(WhenFull::Reject);
        held.age(Duration::ZERO).bytes(bytes)
    }

    /// Records that arrived longer ago than this may go.
    ///
    /// Time is the stream's clock, which may step. A record goes by age when all before it do, and
    /// it arrived longer ago than this by what the clock says now. One that arrived later than the
    /// clock says now tells nothing of its age; it goes with those behind it.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = Some(age);
        self
    }

    /// The most bytes that the finished segments of the stream may take. Each shard has one more
    /// that it is writing, and perhaps an empty one ready.
    ///
    /// Segments get no larger than a sixteenth of the limit (but for one of a larger record, and
    /// not smaller than 64 KiB), and about as much is kept free ahead of the producers.
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.bytes = Some(bytes);
        self
    }

    /// Records may go if the stream keeps this many newer ones. They go by whole segments.
    pub fn records(mut self, records: u64) -> Self {
        self.records = Some(records);
        self
    }

    /// Records may go, by whichever limit, only when all of these applications have processed them;
    /// one that has never run has processed nothing. Needs a limit of [`bytes`](Self::bytes), since
    /// an application that is gone for good would fill the disk.
    pub fn hold_for<A: Into<String>>(mut self, applications: impl IntoIterator<Item = A>) -> Self {
        self.hold_for = applications.into_iter().map(Into::into).collect();
        self
    }

    /// What happens when the limit of [`bytes`](Self::bytes) is reached and nothing may go. Unless
    /// it is [`WhenFull::DropOldest`], this limit is no reason to drop a record that was not
    /// processed by the applications that records are [held for](Self::hold_for).
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.when_full = when_full;
        self
    }

    /// Whether everything is kept for ever.
    pub fn is_unlimited(&self) -> bool {
        (self.age, self.bytes, self.records) == (None, None, None)
    }

    /// The limit of age in milliseconds.
    pub(crate) fn age_ms(&self) -> Option<u64> {
        self.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }
}
