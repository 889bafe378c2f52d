//! Retention as users see it: set, applied, looked at. Who trims is the [`Trimmer`].

use std::time::Instant;

use crate::error::{Error, Result};
use crate::format::names::is_application_name;
use crate::position::{SequenceNumber, ShardId};
use crate::retention::{Retention, WhenFull};
use crate::stream::Stream;
use crate::stream::trimmer::Occasion;

/// What a stream takes on the disk; see [`Stream::storage`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// let storage = stream.storage()?;
/// println!("{} bytes, and {} that readers keep", storage.bytes, storage.unlinked_bytes);
/// assert_eq!(storage.dropped_unprocessed, 0);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Storage {
    /// The bytes of all segment files that records are in.
    pub bytes: u64,
    /// The bytes of segments that were trimmed, but are in memory as long as somebody in this
    /// process reads them: pages and iterators keep them.
    pub unlinked_bytes: u64,
    /// How many records were dropped for want of room though an application that they were
    /// [held for](Retention::hold_for) had not processed them, since the stream was opened.
    pub dropped_unprocessed: u64,
}

impl Stream {
    /// How long records are kept.
    pub fn retention(&self) -> Retention {
        // What another process has changed is seen at the next look, if not now.
        let _ = self.refresh();
        self.inner.shape.read().manifest.retention.clone()
    }

    /// Sets how long records are kept, and applies it at once. What is gone stays gone, also when
    /// records are to be kept longer from now on. When this returns, it is durable.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the settings contradict each other or name what cannot be an
    /// application; [`Error::ReadOnly`]; what reading and writing says.
    pub fn set_retention(&self, retention: Retention) -> Result<()> {
        let keeper = self.inner.keeper.as_ref().ok_or(Error::ReadOnly)?;
        check(&retention)?;
        self.inner.trimmer.set(retention)?;
        keeper.retain();
        Ok(())
    }

    /// Trims what the retention lets go at this moment. This happens by itself when segments are
    /// full and, if there is a limit of age, from time to time; whoever must not wait for that
    /// calls this.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; what reading and writing says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use millstream::{Retention, Stream};
    ///
    /// let retention = Retention::default().bytes(100 << 20);
    /// let stream = Stream::builder(dir.path()).retention(retention).open()?;
    /// stream.put("customer-7", "clicked")?;
    /// stream.apply_retention()?;
    /// assert_eq!(stream.storage()?.dropped_unprocessed, 0);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn apply_retention(&self) -> Result<()> {
        self.must_write()?;
        self.inner.trimmer.trim(Occasion::Time).map(drop)
    }

    /// Trims the records of a shard up to and with this number, whatever its retention says; also
    /// those that an application has not processed. A number above the newest record trims all
    /// there are. When this returns, it is durable.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`]; [`Error::WrongShard`] if the number cannot belong to the shard;
    /// [`Error::ReadOnly`]; what reading and writing says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::{Limit, StartingPosition};
    ///
    /// let first = stream.put("customer-7", "clicked")?;
    /// stream.put("customer-7", "left")?;
    /// stream.trim(first.shard, first.sequence_number)?;
    ///
    /// let at = StartingPosition::AtSequenceNumber(first.sequence_number);
    /// let iterator = stream.shard_iterator(first.shard, at)?;
    /// let page = stream.get_records(&iterator, Limit::default())?;
    /// assert_eq!(page.records.get(0).unwrap().data(), b"left");
    /// assert_eq!(page.gap.unwrap().records, Some(1));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn trim(&self, shard: ShardId, up_to: SequenceNumber) -> Result<()> {
        self.must_write()?;
        let (info, _) = self.shard(shard)?;
        let number = up_to.address().filter(|_| info.may_have(up_to));
        let number = number.ok_or_else(|| {
            let lies_in = self.relative_with(&info, up_to);
            Error::WrongShard { shard, sequence_number: up_to, lies_in }
        })?;
        self.inner.trimmer.trim_through(shard, number)
    }

    /// What the stream takes on the disk.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`] if another process has removed the stream; what reading says.
    pub fn storage(&self) -> Result<Storage> {
        self.refresh()?;
        let shards: Vec<_> = self.inner.shape.read().shards.values().cloned().collect();
        let dropped_unprocessed = self.inner.trimmer.dropped_unprocessed();
        let mut storage = Storage { dropped_unprocessed, ..Storage::default() };
        for shard in shards {
            shard.refresh()?;
            storage.bytes += shard.log.index.file_bytes();
            storage.unlinked_bytes += shard.log.horizon.unlinked_bytes();
        }
        Ok(storage)
    }

    /// Sees to it that there is room for what a shard could not finish, for want of room.
    ///
    /// # Errors
    /// The same error if there is none, or what keeps it from being made.
    #[cold]
    pub(super) fn make_room(&self, full: Error, since: &mut Option<Instant>) -> Result<()> {
        let Error::StreamFull { needed, .. } = full else { return Err(full) };
        let since = *since.get_or_insert_with(Instant::now);
        if self.inner.trimmer.make_room(needed, since)? { Ok(()) } else { Err(full) }
    }

    fn must_write(&self) -> Result<()> {
        if self.inner.keeper.is_some() { Ok(()) } else { Err(Error::ReadOnly) }
    }
}

/// Whether there can be such a retention.
pub(super) fn check(retention: &Retention) -> Result<()> {
    let wrong = |what: String| Err(Error::InvalidArgument(what));
    if retention.bytes == Some(0) {
        return wrong("a stream cannot live on 0 bytes".into());
    }
    if let Some(name) = retention.hold_for.iter().find(|name| !is_application_name(name)) {
        return wrong(format!("{name:?} cannot be the name of an application"));
    }
    if retention.bytes.is_none() && !retention.hold_for.is_empty() {
        return wrong(
            "records that are held for applications need a limit of bytes: an application that is \
             gone for good would fill the disk"
                .into(),
        );
    }
    if retention.bytes.is_none() && retention.when_full != WhenFull::DropOldest {
        return wrong("a stream without a limit of bytes is never full".into());
    }
    Ok(())
}
