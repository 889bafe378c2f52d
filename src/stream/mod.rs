//! A stream: keys, ranges, lineage; what users hold in their hands.

#[cfg(feature = "async")]
mod asynchronous;
mod builder;
mod delete;
mod describe;
mod iterator;
mod keeper;
#[cfg(test)]
mod kills;
mod lineage;
mod plan;
mod processed;
mod put;
mod reshard;
mod retention;
mod router;
mod scan;
mod scanned;
mod settings;
mod trimmer;
mod wait;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

#[cfg(feature = "async")]
pub use asynchronous::AsyncScan;
pub use builder::StreamBuilder;
pub(crate) use builder::{must_be_stream, read_manifest};
pub use describe::{ShardDescription, StreamDescription};
pub use iterator::{Page, ShardIterator};
pub use retention::Storage;
pub use scan::Scan;
pub use scanned::ScannedRecord;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::names::{MANIFEST, SHARDS};
use crate::hash_key::HashAlgorithm;
use crate::lineage::ShardInfo;
use crate::os::clock::Time;
use crate::os::fs::{self, DirectoryLock};
use crate::position::{MAX_NUMBER, ShardId};
use crate::record::Durability;
use crate::shard::horizon::Horizon;
use crate::shard::index::Index;
use crate::shard::room::Room;
use crate::shard::segment::Access;
use crate::shard::{Log, Shard};
use crate::stream::keeper::Keeper;
use crate::stream::router::{Router, Turns};
use crate::stream::trimmer::Trimmer;

/// A sharded, ordered, replayable stream of records in a directory.
///
/// A cheap handle: clones share the stream, and all methods can be called from any number of
/// threads at the same time. Dropping the last handle closes the stream and makes everything
/// durable; [`close`](Self::close) does the same and reports whether it succeeded.
///
/// One process at a time can have a stream open for putting; any number of others can read it
/// meanwhile, with [`open_read_only`](Self::open_read_only).
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("clicks");
/// use millstream::{Limit, StartingPosition, Stream};
///
/// let stream = Stream::builder(&path).shards(2).open()?;
/// let receipt = stream.put("customer-7", "clicked")?;
///
/// let iterator = stream.shard_iterator(receipt.shard, StartingPosition::TrimHorizon)?;
/// let page = stream.get_records(&iterator, Limit::default())?;
/// let record = page.records.get(0).expect("it was just put");
/// assert_eq!((record.partition_key(), record.data()), ("customer-7", &b"clicked"[..]));
/// assert_eq!(record.sequence_number(), receipt.sequence_number);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stream {
    inner: Arc<Inner>,
    turns: Turns,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    hash: HashAlgorithm,
    max_record_bytes: usize,
    durability: Durability,
    time: Time,
    access: Access,
    router: Router,
    shape: Arc<RwLock<Shape>>,
    /// Held by the one who changes the manifest; puts that find their shard closed wait for it.
    reshaping: Arc<Mutex<()>>,
    trimmer: Arc<Trimmer>,
    /// None: opened read-only.
    keeper: Option<Keeper>,
    _lock: Option<DirectoryLock>,
}

/// The shards there are. Those of which nothing is left are in the manifest alone.
#[derive(Debug)]
struct Shape {
    manifest: Manifest,
    /// The file that the manifest was read from, if another process may replace it.
    seen: Option<File>,
    shards: BTreeMap<ShardId, Arc<Shard>>,
}

impl Stream {
    /// A builder that opens or creates the stream in the directory `path`.
    pub fn builder(path: impl AsRef<Path>) -> StreamBuilder {
        StreamBuilder::new(path.as_ref())
    }

    /// Opens a stream for reading only, beside the process that puts to it (if there is one), and
    /// follows what that process does. It changes nothing, and its lock hinders nobody except those
    /// who want to [delete](Self::delete) the stream. The file system may be read-only.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`]; [`Error::NotAStream`]; [`Error::Unsupported`];
    /// [`Error::Corrupt`].
    pub fn open_read_only(path: impl AsRef<Path>) -> Result<Self> {
        Self::builder(path).open_read_only()
    }

    /// Puts a stream together from what its manifest says; with the lock, for writing.
    fn assemble(
        path: PathBuf,
        (manifest, seen): (Manifest, Option<File>),
        lock: Option<DirectoryLock>,
        settings: StreamBuilder,
    ) -> Result<Self> {
        let hash = HashAlgorithm::from_name(&manifest.hash).ok_or_else(|| Error::Unsupported {
            path: path.join(MANIFEST),
            what: format!("the hash algorithm {:?}", manifest.hash),
        })?;
        let room = Arc::new(Room::default());
        let mut shards = BTreeMap::new();
        for info in &manifest.shards {
            let (access, write) = (settings.access, lock.is_some());
            let shard = open_shard(&path, &manifest, info, &room, access, write)?;
            shards.insert(info.id, Arc::new(shard));
        }
        let max_record_bytes = manifest.max_record_bytes;
        let shape = Shape { manifest, seen, shards };
        let router = Router::new(shape.open_shards());
        let (shape, reshaping) = (Arc::new(RwLock::new(shape)), Arc::default());
        let trimmer = Trimmer::new(
            path.clone(),
            settings.time.clone(),
            room,
            Arc::clone(&shape),
            Arc::clone(&reshaping),
        );
        let trimmer = Arc::new(trimmer);
        let inner = Inner {
            path,
            hash,
            max_record_bytes,
            durability: settings.durability,
            time: settings.time,
            access: settings.access,
            router,
            shape,
            reshaping,
            keeper: lock.is_some().then(|| Keeper::start(&trimmer)).transpose()?,
            trimmer,
            _lock: lock,
        };
        let stream = Self { inner: Arc::new(inner), turns: Turns::new() };
        // What was trimmed while it was opened is known now.
        stream.refresh()?;
        Ok(stream)
    }

    /// The directory of the stream.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// How partition keys are hashed.
    pub fn hash_algorithm(&self) -> HashAlgorithm {
        self.inner.hash
    }

    /// Makes everything durable that has been put so far.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync fails or has failed; [`Error::ReadOnly`].
    pub fn flush(&self) -> Result<()> {
        let shards: Vec<_> = self.inner.shape.read().shards.values().cloned().collect();
        shards.iter().try_for_each(|shard| shard.flush())
    }

    /// Drops this handle. If it was the last one, this closes the stream and reports whether
    /// everything is durable.
    ///
    /// # Errors
    /// [`Error::Poisoned`] if a sync fails or has failed; what writing says.
    pub fn close(self) -> Result<()> {
        match Arc::into_inner(self.inner) {
            Some(mut inner) => inner.close(),
            None => Ok(()),
        }
    }

    /// When puts through this handle are acknowledged, unless one says otherwise.
    pub(crate) fn durability(&self) -> Durability {
        self.inner.durability
    }

    /// Whether this process may put to the stream.
    pub(crate) fn is_written_here(&self) -> bool {
        self.inner.keeper.is_some()
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.inner.time.now_ms()
    }

    /// A shard by its id.
    fn shard(&self, shard: ShardId) -> Result<(ShardInfo, Arc<Shard>)> {
        self.look_up(shard, |info, at| (info.clone(), Arc::clone(at)))
    }

    /// What `look` sees of a shard; the shape stays as it is meanwhile.
    fn look_up<T>(&self, shard: ShardId, look: impl Fn(&ShardInfo, &Arc<Shard>) -> T) -> Result<T> {
        let found = || {
            let shape = self.inner.shape.read();
            let (info, at) = shape.info(shard).zip(shape.shards.get(&shard))?;
            Some(look(info, at))
        };
        if let Some(found) = found() {
            return Ok(found);
        }
        // Another process may just have made it.
        self.refresh()?;
        found().ok_or(Error::ShardNotFound { shard })
    }

    /// Looks whether another process has changed the shape.
    ///
    /// # Errors
    /// [`Error::StreamNotFound`] if the stream was removed, and perhaps replaced by another one.
    fn refresh(&self) -> Result<()> {
        let inner = &self.inner;
        let gone = || Error::StreamNotFound { path: inner.path.clone() };
        let or_gone = |error: Error| if error.is_not_found() { gone() } else { error };
        let is_current = match &inner.shape.read().seen {
            Some(seen) => fs::is_at(seen, &inner.path.join(MANIFEST)).map_err(or_gone)?,
            None => true,
        };
        if is_current {
            return Ok(());
        }
        let (manifest, seen) = read_manifest(&inner.path).map_err(or_gone)?;
        fs::show_use(&seen);
        if manifest.stream != inner.shape.read().manifest.stream {
            return Err(gone());
        }
        let new = inner.open_new_shards(&manifest)?;
        inner.show(manifest, new, Some(seen));
        let shape = inner.shape.read();
        for (id, trimmed) in &shape.manifest.trimmed {
            if let Some(shard) = shape.shards.get(id) {
                shard.learn_trimmed(*trimmed);
            }
        }
        Ok(())
    }

    /// Lets go of what is too old by now, if the limit of age alone decides. In other processes
    /// nothing goes before the one that writes has said so.
    fn expire(&self, shard: &Shard) -> Result<()> {
        let age_ms = {
            let shape = self.inner.shape.read();
            let retention = &shape.manifest.retention;
            if retention.hold_for.is_empty() { retention.age_ms() } else { None }
        };
        match age_ms {
            Some(age_ms) if self.inner.keeper.is_some() => shard.log.expire(self.now_ms(), age_ms),
            _ => Ok(()),
        }
    }

    /// Reads from a shard, and once more if segments were trimmed meanwhile: they may have been
    /// missing.
    fn unless_trimmed<T>(&self, shard: &Shard, read: impl Fn() -> Result<T>) -> Result<T> {
        loop {
            let before = shard.log.horizon.trimmed();
            let done = read();
            // Whoever misses a file finds the manifest that says so, or the stream gone.
            let refreshed = self.refresh();
            if done.is_err() {
                refreshed?;
            }
            let now = shard.log.horizon.trimmed();
            // What gets too old meanwhile is still there; but other processes say it seldom.
            if now == before || (shard.is_written_here() && now.base == before.base) {
                return done;
            }
        }
    }
}

impl Inner {
    /// The shards of a manifest that are not shown yet, opened.
    fn open_new_shards(&self, manifest: &Manifest) -> Result<Vec<(ShardId, Arc<Shard>)>> {
        let shape = self.shape.read();
        let new = manifest.shards.iter().filter(|info| !shape.shards.contains_key(&info.id));
        new.map(|info| {
            let room = &self.trimmer.room;
            let write = self.keeper.is_some();
            let shard = open_shard(&self.path, manifest, info, room, self.access, write)?;
            Ok((info.id, Arc::new(shard)))
        })
        .collect()
    }

    /// Has the shape that a manifest says, which is on the disk.
    fn show(&self, manifest: Manifest, new: Vec<(ShardId, Arc<Shard>)>, seen: Option<File>) {
        let mut shape = self.shape.write();
        for (id, shard) in new {
            shape.shards.entry(id).or_insert(shard);
        }
        shape.manifest = manifest;
        shape.seen = seen;
        self.router.show(shape.open_shards());
    }

    fn close(&mut self) -> Result<()> {
        let Some(keeper) = self.keeper.take() else { return Ok(()) };
        drop(keeper);
        // What cannot be remembered gets too old once more.
        let _ = self.trimmer.remember();
        let shards = std::mem::take(&mut self.shape.write().shards);
        // All are closed, also behind one that cannot be.
        shards.values().map(|shard| shard.close()).fold(Ok(()), Result::and)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Who wants to know calls `close`; the next opening recovers what this leaves.
        let _ = self.close();
    }
}

impl Shape {
    fn info(&self, shard: ShardId) -> Option<&ShardInfo> {
        let shards = &self.manifest.shards;
        shards.binary_search_by_key(&shard, |info| info.id).ok().map(|at| &shards[at])
    }

    fn open_shards(&self) -> Vec<(crate::HashKeyRange, Arc<Shard>)> {
        let open = self.manifest.shards.iter().filter(|info| info.is_open());
        open.map(|info| (info.hash_key_range, Arc::clone(&self.shards[&info.id]))).collect()
    }
}

fn open_shard(
    path: &Path,
    manifest: &Manifest,
    info: &ShardInfo,
    room: &Arc<Room>,
    access: Access,
    write: bool,
) -> Result<Shard> {
    let manifest_path = path.join(MANIFEST);
    let start = info.starting_sequence_number.address();
    // Segments begin at pages.
    let start = start.filter(|start| start.is_multiple_of(4096) && *start < MAX_NUMBER);
    let start = start.ok_or_else(|| {
        Error::corrupt(&manifest_path, 0, format!("{} starts at no local number", info.id))
    })?;
    let shards = path.join(SHARDS);
    let directory = shards.join(info.id.to_string());
    fs::must_not_be_link(&shards)?;
    fs::must_not_be_link(&directory)?;
    let log = Log {
        shard: info.id,
        stream: manifest.stream,
        directory,
        start,
        max_segment_bytes: manifest.max_segment_bytes,
        room: Arc::clone(room),
        horizon: Horizon::default(),
        index: Index::new(access),
    };
    log.horizon.raise(manifest.trimmed.get(&info.id).copied().unwrap_or_default());
    if write { Shard::open(log) } else { Shard::open_read_only(log) }
}
