//! How a stream is opened or created.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::manifest::{MAX_SEGMENT_BYTES, Manifest};
use crate::format::names::MANIFEST;
use crate::hash_key::{HashAlgorithm, HashKeyRange};
use crate::lineage::ShardInfo;
use crate::os::clock::{Clock, Time};
use crate::os::fs::{self, DirectoryLock};
use crate::position::ShardId;
use crate::record::{DEFAULT_MAX_RECORD_BYTES, Durability, MAX_OPEN_SHARDS, MAX_RECORD_BYTES};
use crate::retention::Retention;
use crate::shard::segment::Access;
use crate::stream::Stream;
use crate::stream::settings::check_max_open_shards;

/// The largest segment unless it is set otherwise: 64 MiB.
const DEFAULT_MAX_SEGMENT_BYTES: u64 = 64 << 20;
/// What can be set.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=MAX_SEGMENT_BYTES;

/// Opens or creates a [`Stream`]; made by [`Stream::builder`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("orders");
/// use millstream::{Durability, Stream};
///
/// let stream = Stream::builder(&path).shards(4).durability(Durability::Sync).open()?;
/// assert_eq!(stream.shards().len(), 4);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing happens until the stream is opened or created"]
pub struct StreamBuilder {
    path: PathBuf,
    shards: u32,
    hash: HashAlgorithm,
    max_record_bytes: usize,
    max_segment_bytes: u64,
    max_open_shards: Option<u32>,
    retention: Retention,
    pub(super) durability: Durability,
    pub(super) time: Time,
    pub(super) access: Access,
}

impl StreamBuilder {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            shards: 1,
            hash: HashAlgorithm::default(),
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            max_segment_bytes: DEFAULT_MAX_SEGMENT_BYTES,
            max_open_shards: None,
            retention: Retention::default(),
            durability: Durability::default(),
            time: Time::default(),
            access: Access::default(),
        }
    }

    /// How many shards a new stream gets; 1 by default. A stream that exists keeps those it has.
    pub fn shards(mut self, count: u32) -> Self {
        self.shards = count;
        self
    }

    /// How partition keys are hashed; fixed when the stream is created.
    pub fn hash_algorithm(mut self, algorithm: HashAlgorithm) -> Self {
        self.hash = algorithm;
        self
    }

    /// The most bytes of key and data in a record, at most [`MAX_RECORD_BYTES`]; fixed when the
    /// stream is created.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// The largest size of a segment file in bytes, 64 KiB to 1 GiB; fixed when the stream is
    /// created. A shard's first segments are smaller; a record that needs more gets a segment of
    /// its own.
    pub fn max_segment_bytes(mut self, bytes: u64) -> Self {
        self.max_segment_bytes = bytes;
        self
    }

    /// The most shards that may be open at the same time: [`MAX_OPEN_SHARDS`] by default, and at
    /// most. [`Stream::set_max_open_shards`] changes it for a stream that exists.
    pub fn max_open_shards(mut self, count: u32) -> Self {
        self.max_open_shards = Some(count);
        self
    }

    /// How long a new stream keeps its records: for ever by default. [`Stream::set_retention`]
    /// changes it for a stream that exists.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// When puts through this handle are acknowledged: [`Durability::Os`] by default. A put can
    /// choose another durability.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The clock that arrival times come from, instead of the system's.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.time = Time::Given(Arc::new(clock));
        self
    }

    /// Reads finished segments through copies instead of maps, for files that cannot be trusted: if
    /// another program truncated one, or the disk cannot read it, reading fails with an error,
    /// where a map would end the process with SIGBUS. The segment that is being written is still
    /// mapped.
    ///
    /// A segment is copied as a whole when any of it is read. The copy, of up to
    /// [`max_segment_bytes`](Self::max_segment_bytes), is kept as long as any of it is in use.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// use millstream::Stream;
    ///
    /// stream.put("customer-7", "clicked")?;
    /// let reader = Stream::builder(dir.path()).copied().open_read_only()?;
    /// assert_eq!(reader.scan(..)?.count(), 1);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn copied(mut self) -> Self {
        self.access = Access::Copy;
        self
    }

    /// Opens the stream; creates it if the directory is missing or empty.
    ///
    /// # Errors
    /// As [`open_existing`](Self::open_existing) and [`create`](Self::create).
    pub fn open(self) -> Result<Stream> {
        if !is_stream(&self.path)? {
            match self.clone().create() {
                // Somebody else was faster.
                Err(Error::StreamExists { .. }) => {}
                created => return created,
            }
        }
        self.open_existing()
    }

    /// Creates the stream. When this returns, it is durable.
    ///
    /// # Errors
    /// [`Error::StreamExists`]; [`Error::NotAStream`] if there is something else at the path;
    /// [`Error::InvalidArgument`] if a setting is out of bounds; [`Error::TooManyShards`];
    /// [`Error::Locked`]; [`Error::DiskFull`].
    pub fn create(mut self) -> Result<Stream> {
        self.path = fs::absolute(&self.path)?;
        let manifest = self.manifest()?;
        if is_stream(&self.path)? {
            return Err(Error::StreamExists { path: self.path });
        }
        fs::create_directory(&self.path)?;
        if is_occupied(&self.path)? {
            let found = "a directory with other files in it";
            return Err(Error::NotAStream { path: self.path, found });
        }
        let lock = DirectoryLock::take(&self.path)?;
        // Somebody may have created one before the lock was ours.
        if is_stream(&self.path)? {
            return Err(Error::StreamExists { path: self.path });
        }
        fs::replace(&self.path.join(MANIFEST), manifest.encode().as_bytes())?;
        Stream::assemble(self.path.clone(), (manifest, None), Some(lock), self)
    }

    /// Opens the stream, which must exist, for putting and reading.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`]; [`Error::NotAStream`]; [`Error::Locked`] if another process has
    /// it open for putting; [`Error::Unsupported`] if it needs what this build does not have;
    /// [`Error::Corrupt`].
    pub fn open_existing(mut self) -> Result<Stream> {
        self.path = fs::absolute(&self.path)?;
        must_be_stream(&self.path)?;
        let lock = DirectoryLock::take(&self.path)?;
        let (manifest, _) = read_manifest(&self.path)?;
        Stream::assemble(self.path.clone(), (manifest, None), Some(lock), self)
    }

    /// Opens the stream for reading only: see [`Stream::open_read_only`].
    ///
    /// # Errors
    /// [`Error::StreamNotFound`]; [`Error::NotAStream`]; [`Error::Unsupported`];
    /// [`Error::Corrupt`].
    pub fn open_read_only(mut self) -> Result<Stream> {
        self.path = fs::absolute(&self.path)?;
        must_be_stream(&self.path)?;
        let (manifest, seen) = read_manifest(&self.path)?;
        fs::show_use(&seen);
        Stream::assemble(self.path.clone(), (manifest, Some(seen)), None, self)
    }

    fn manifest(&self) -> Result<Manifest> {
        let out_of_bounds = |what: &str| Err(Error::InvalidArgument(what.to_owned()));
        if self.shards == 0 {
            return out_of_bounds("a stream has at least one shard");
        }
        if !(1..=MAX_RECORD_BYTES).contains(&self.max_record_bytes) {
            return out_of_bounds("a record has at most 10 MiB of data beside its key");
        }
        if !SEGMENT_BYTES.contains(&self.max_segment_bytes) {
            return out_of_bounds("a segment has 64 KiB to 1 GiB");
        }
        if let Some(max) = self.max_open_shards {
            check_max_open_shards(max)?;
        }
        let max = self.max_open_shards.unwrap_or(MAX_OPEN_SHARDS);
        if self.shards > max {
            return Err(Error::TooManyShards { open: self.shards, max });
        }
        super::retention::check(&self.retention)?;
        let opened_ms = self.time.now_ms();
        let shards = HashKeyRange::even(self.shards).into_iter().zip(0..);
        Ok(Manifest {
            stream: crate::os::random(),
            hash: self.hash.name().to_owned(),
            max_record_bytes: self.max_record_bytes,
            max_segment_bytes: self.max_segment_bytes.next_multiple_of(4096),
            next_shard: self.shards,
            max_open_shards: self.max_open_shards,
            tags: BTreeMap::new(),
            retention: self.retention.clone(),
            trimmed: Default::default(),
            shards: shards
                .map(|(hash_key_range, id)| ShardInfo {
                    id: ShardId::new(id),
                    hash_key_range,
                    parent: None,
                    adjacent_parent: None,
                    starting_sequence_number: 0.into(),
                    ending_sequence_number: None,
                    opened_ms,
                    closed_ms: None,
                })
                .collect(),
        })
    }
}

/// Whether there is a manifest at the path.
pub(super) fn is_stream(path: &Path) -> Result<bool> {
    match path.join(MANIFEST).try_exists() {
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => not_a_directory(path),
        found => found.map_err(|e| Error::io("examine", path, e)),
    }
}

fn not_a_directory<T>(path: &Path) -> Result<T> {
    Err(Error::NotAStream { path: path.to_owned(), found: "it is not a directory" })
}

/// Whether the directory has anything in it that is not left from a creation that was cut off.
fn is_occupied(path: &Path) -> Result<bool> {
    Ok(fs::list(path)?.iter().any(|name| name != "OWNER" && name != "MANIFEST.new"))
}

/// Checks that there is a stream, and says what there is otherwise.
pub(crate) fn must_be_stream(path: &Path) -> Result<()> {
    if is_stream(path)? {
        return Ok(());
    }
    let path_buf = path.to_owned();
    match path.try_exists() {
        Err(e) => Err(Error::io("examine", path, e)),
        Ok(false) => Err(Error::StreamNotFound { path: path_buf }),
        Ok(true) if is_occupied(path)? => {
            Err(Error::NotAStream { path: path_buf, found: "a directory without a MANIFEST" })
        }
        Ok(true) => Err(Error::NotAStream { path: path_buf, found: "an empty directory" }),
    }
}

/// Reads the manifest of a stream, and the file that it was in.
pub(crate) fn read_manifest(path: &Path) -> Result<(Manifest, File)> {
    let path = path.join(MANIFEST);
    let file = fs::open_read(&path)?;
    let bytes = fs::read(&file, &path, 1 << 30)?;
    let manifest = Manifest::decode(&bytes);
    let manifest = manifest.map_err(|(offset, what)| Error::corrupt(&path, offset, what))?;
    Ok((manifest, file))
}
