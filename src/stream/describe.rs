//! What there is: of streams in a directory, in a stream, in a shard.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::hash_key::HashAlgorithm;
use crate::lineage::ShardInfo;
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId};
use crate::record::{Durability, Limit};
use crate::retention::Retention;
use crate::shard::cursor::Place;
use crate::stream::Stream;
use crate::stream::builder::is_stream;

/// What a stream is, and what there is in it; see [`Stream::describe`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// let description = stream.describe()?;
/// println!("{} records in {} bytes", description.records, description.bytes);
/// for shard in &description.shards {
///     println!("{}: {} records", shard.info.id, shard.records);
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct StreamDescription {
    /// The directory of the stream.
    pub path: PathBuf,
    /// When it was created, in milliseconds since 1970; 0 if that is not known.
    pub created_ms: u64,
    /// How partition keys are hashed.
    pub hash_algorithm: HashAlgorithm,
    /// The most bytes of key and data in a record.
    pub max_record_bytes: usize,
    /// The largest segment, in bytes.
    pub max_segment_bytes: u64,
    /// The most shards that may be open.
    pub max_open_shards: u32,
    /// When puts through this handle are acknowledged, unless one says otherwise.
    pub durability: Durability,
    /// How long records are kept.
    pub retention: Retention,
    /// The stream's tags.
    pub tags: BTreeMap<String, String>,
    /// All shards, closed ones too, by rising id.
    pub shards: Vec<ShardDescription>,
    /// How many of them are open.
    pub open_shards: usize,
    /// How many records they have.
    pub records: u64,
    /// What these take in the log, in bytes, with their headers.
    pub bytes: u64,
}

/// What there is in a shard; see [`Stream::describe_shard`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::ShardId;
///
/// let receipt = stream.put("customer-7", "clicked")?;
/// let shard = stream.describe_shard(ShardId::new(0))?;
/// assert_eq!((shard.records, shard.trimmed_records), (1, 0));
/// assert_eq!(shard.last_sequence_number, Some(receipt.sequence_number));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ShardDescription {
    /// Range, parents, end.
    pub info: ShardInfo,
    /// How many records the shard has.
    pub records: u64,
    /// What they take in the log, in bytes, with their headers.
    pub bytes: u64,
    /// The number of the oldest record, if there is one.
    pub first_sequence_number: Option<SequenceNumber>,
    /// When that arrived, in milliseconds since 1970.
    pub first_arrival_ms: Option<u64>,
    /// The number of the newest record, if there is one.
    pub last_sequence_number: Option<SequenceNumber>,
    /// When that arrived, in milliseconds since 1970.
    pub last_arrival_ms: Option<u64>,
    /// How many records the shard had before those, which retention has removed.
    pub trimmed_records: u64,
    /// Nothing below this number is left.
    pub horizon: SequenceNumber,
    /// Whether the shard is closed and retention has removed all that was in it. It stays in the
    /// lineage; whoever reads it is at its end at once, with its children.
    pub is_expired: bool,
}

impl Stream {
    /// The streams in a directory, by name: the directories right in it that are streams, but for
    /// hidden ones.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the directory cannot be listed, because it is missing for
    /// example.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let data = dir.path();
    /// use millstream::Stream;
    ///
    /// for name in ["orders", "clicks"] {
    ///     Stream::builder(data.join(name)).create()?;
    /// }
    /// assert_eq!(Stream::list(data)?, [data.join("clicks"), data.join("orders")]);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn list(directory: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
        let directory = directory.as_ref();
        fs::must_be_directory(directory)?;
        // Those with a dot are on their way out: they are being deleted.
        let names = fs::list(directory)?.into_iter().filter(|name| !name.starts_with('.'));
        let names = names.map(|name| directory.join(name));
        // What cannot be looked at is none, as far as can be seen.
        Ok(names.filter(|path| is_stream(path).unwrap_or(false)).collect())
    }

    /// What the stream is, and what there is in it at this moment. It takes as long as reading two
    /// records of each shard.
    ///
    /// # Errors
    /// What reading says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).shards(2).open()?;
    /// stream.put("customer-7", "clicked")?;
    /// let description = stream.describe()?;
    /// assert_eq!((description.open_shards, description.records), (2, 1));
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn describe(&self) -> Result<StreamDescription> {
        let shards = self.shards().into_iter().map(|info| self.describe_shard(info.id));
        let shards: Vec<ShardDescription> = shards.collect::<Result<_>>()?;
        let manifest = self.inner.shape.read().manifest.clone();
        Ok(StreamDescription {
            path: self.inner.path.clone(),
            created_ms: manifest.shards.iter().map(|shard| shard.opened_ms).min().unwrap_or(0),
            hash_algorithm: self.inner.hash,
            max_record_bytes: manifest.max_record_bytes,
            max_segment_bytes: manifest.max_segment_bytes,
            max_open_shards: manifest.max_open_shards(),
            durability: self.inner.durability,
            retention: manifest.retention,
            tags: manifest.tags,
            open_shards: shards.iter().filter(|shard| shard.info.is_open()).count(),
            records: shards.iter().map(|shard| shard.records).sum(),
            bytes: shards.iter().map(|shard| shard.bytes).sum(),
            shards,
        })
    }

    /// What there is in a shard at this moment.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`](crate::Error::ShardNotFound); what reading says.
    pub fn describe_shard(&self, shard: ShardId) -> Result<ShardDescription> {
        let (info, at) = self.shard(shard)?;
        self.expire(&at)?;
        self.unless_trimmed(&at, || {
            let tip = at.tip()?;
            let (horizon, trimmed) = at.log.horizon_place()?;
            let start = Place { address: horizon, segment: None };
            let first = at.read(&start, Limit::records(1))?.records;
            let first = first.get(0).map(|record| (record.sequence_number(), record.arrival_ms()));
            let last = at.last(1)?.map(|last| (last.address.into(), last.arrival_ms));
            Ok(ShardDescription {
                info: info.clone(),
                records: first.map_or(0, |_| tip.frames.saturating_sub(trimmed)),
                bytes: at.log.index.bytes_between(horizon, tip.place.address),
                first_sequence_number: first.map(|(number, _)| number),
                first_arrival_ms: first.map(|(_, ms)| ms),
                last_sequence_number: last.map(|(number, _)| number),
                last_arrival_ms: last.map(|(_, ms)| ms),
                trimmed_records: trimmed,
                horizon: horizon.into(),
                is_expired: self.inner.shape.read().manifest.is_expired(&info),
            })
        })
    }
}
