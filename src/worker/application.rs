//! An application as it is seen from outside of its pools: how far it is, and setting it back or
//! forward.
//!
//! A seek is written like a take-over: a new epoch, no owner, another checkpoint. So it does not
//! matter whether pools run: one that has the shard finds that it has lost it, takes it again, and
//! goes on at the new place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::format::control_row::{ControlRow, Lineage};
use crate::format::names::{APPLICATIONS, SEEKS};
use crate::hash_key::HashKeyRange;
use crate::lineage::ShardInfo;
use crate::os::fs;
use crate::position::{ShardId, StartingPosition};
use crate::record::Lag;
use crate::stream::Stream;
use crate::worker::checkpoint::{Checkpoint, PendingCheckpoint};
use crate::worker::control_table::{ControlTable, check_name, must_not_be_queue};
use crate::worker::lease;
use crate::worker::lease_table::LeaseTable;
use crate::worker::member;
use crate::worker::source::Source;

/// An application of a stream, looked at, and set back or forward, while its pools run or not.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use std::time::Duration;
/// use millstream::{Application, Batch, Checkpoint, Checkpointer, StartingPosition, WorkerPool};
///
/// stream.put("customer-7", "clicked")?;
/// let pool = WorkerPool::builder("billing", &stream)
///     .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// pool.shutdown(Duration::from_secs(10));
///
/// let billing = Application::of("billing", &stream)?;
/// assert_eq!(billing.shards()?[0].lag.records, 0);
/// billing.seek(StartingPosition::TrimHorizon, "invoices were wrong")?;
/// assert_eq!(billing.shards()?[0].checkpoint, Checkpoint::TrimHorizon);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Application {
    stream: Stream,
    name: String,
    path: PathBuf,
}

/// How an application is going in a shard; see [`Application::shards`].
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// # use millstream::WorkerPool;
/// # let pool = WorkerPool::builder("billing", &stream).for_each_batch(|_| Ok(()))?;
/// use millstream::Application;
///
/// for shard in Application::of("billing", &stream)?.shards()? {
///     println!("{}: {}, {} behind", shard.shard, shard.checkpoint, shard.lag.records);
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ApplicationShard {
    /// The shard.
    pub shard: ShardId,
    /// The shards that it came from: none, one or two.
    pub parents: Vec<ShardId>,
    /// The shards that came from it, as soon as the application has seen them: when the last of
    /// their parents has been processed to the end, they begin.
    pub children: Vec<ShardId>,
    /// The hash keys that it has.
    pub hash_key_range: HashKeyRange,
    /// How far the application has processed it.
    pub checkpoint: Checkpoint,
    /// The checkpoint that is prepared and not committed.
    pub pending: Option<PendingCheckpoint>,
    /// What the shard has behind the checkpoint; zero if that cannot be found out.
    pub lag: Lag,
    /// Whether a pool that is there has the shard.
    pub is_owned: bool,
    /// How many owners the shard has had; a seek counts as one. A number that rises all the time
    /// says that pools take the shard from each other.
    pub owners: u64,
}

impl Application {
    /// The application with this name, which may not be there.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no application can have that name.
    pub fn of(name: &str, stream: &Stream) -> Result<Self> {
        check_name(name)?;
        let path = stream.path().join(APPLICATIONS).join(name);
        Ok(Self { stream: stream.clone(), name: name.into(), path })
    }

    /// The names of all applications that a stream has had, sorted.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be listed.
    pub fn list(stream: &Stream) -> Result<Vec<String>> {
        let mut names = fs::list(&stream.path().join(APPLICATIONS))?;
        names.retain(|name| check_name(name).is_ok());
        Ok(names)
    }

    /// How many pools there are at this moment.
    ///
    /// # Errors
    /// [`Error::Io`] if they cannot be listed.
    pub fn pools(&self) -> Result<usize> {
        Ok(member::all(&self.path, None)?.len())
    }

    /// How it is going in each shard that it has seen, by id; but for those that are processed to
    /// the end and of which retention has left nothing.
    ///
    /// # Errors
    /// [`Error::Corrupt`] or [`Error::Io`] if that cannot be read.
    pub fn shards(&self) -> Result<Vec<ApplicationShard>> {
        let members = member::all(&self.path, None)?;
        let table = ControlTable::view(&self.path, &self.name);
        let (with_row, mut rows) = (table.shards()?, BTreeMap::new());
        for info in self.stream.shards().iter().filter(|info| with_row.contains(&info.id)) {
            let Some(row) = lease::if_there(table.read(info.id))? else { continue };
            // One that nobody has taken for long does not say it.
            let lineage = row.lineage.clone().unwrap_or_else(|| info.into());
            rows.insert(info.id, (lineage, row));
        }
        let children = |parent: ShardId| {
            let is_child = |lineage: &Lineage| lineage.parents().any(|id| id == parent);
            rows.iter().filter(|(_, (lineage, _))| is_child(lineage)).map(|(id, _)| *id).collect()
        };
        let lag = |shard, at| Stream::lag(&self.stream, &self.stream.cursor(shard, at)?);
        let shards = rows.iter().map(|(&shard, (lineage, row))| ApplicationShard {
            shard,
            parents: lineage.parents().collect(),
            children: children(shard),
            hash_key_range: lineage.hash_key_range,
            checkpoint: Checkpoint::at(row.checkpoint),
            pending: row.pending.clone().map(PendingCheckpoint::from),
            lag: row.checkpoint.and_then(|at| lag(shard, at).ok()).unwrap_or_default(),
            owners: row.epoch,
            is_owned: row.owner.is_some_and(|owner| members.contains_key(&owner)),
        });
        Ok(shards.collect())
    }

    /// Has all shards processed from this position on: rewinds them, or skips what is before it.
    /// Pools that run go on there, when the batches that they are at are finished; those are not
    /// checkpointed. What is at the position comes again or not at all, so say why: the reason is
    /// kept in the file `SEEKS` of the application, with the time and the old checkpoints.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the stream has no such application, or it is a queue, or the
    /// position is a sequence number, which belongs to one shard; what reading the shards and
    /// writing the checkpoints says: then some may have been moved, and some not.
    pub fn seek(&self, position: StartingPosition, reason: &str) -> Result<()> {
        use StartingPosition::{AfterSequenceNumber, AtSequenceNumber};
        if let AtSequenceNumber(_) | AfterSequenceNumber(_) = position {
            let what = "a sequence number belongs to one shard: seek in that one".into();
            return Err(Error::InvalidArgument(what));
        }
        let table = self.table()?;
        let shards = self.stream.shards();
        // What it has not seen yet begins there, too. Ids rise from parent to child: no child
        // begins before its parent is set back.
        let with_row = lease::make_rows(&table, &self.stream, &shards, position)?;
        for shard in shards.iter().filter(|shard| with_row.contains(&shard.id)) {
            let checkpoint = lease::first_checkpoint(&self.stream, shard, position)?;
            self.move_to(&table, shard.id, Some(checkpoint), reason)?;
        }
        Ok(())
    }

    /// As [`seek`](Self::seek), for one shard. If it is closed, the shards that came from it pause
    /// where they are until it is processed to its end again.
    ///
    /// # Errors
    /// [`Error::ShardNotFound`]; [`Error::InvalidArgument`] if retention has removed all that was
    /// in the shard; [`Error::WrongShard`] if a number cannot belong to it; else as
    /// [`seek`](Self::seek).
    pub fn seek_shard(
        &self,
        shard: ShardId,
        position: StartingPosition,
        reason: &str,
    ) -> Result<()> {
        let table = self.table()?;
        let shards = self.stream.shards();
        let info = shards.iter().find(|info| info.id == shard);
        let info = info.ok_or(Error::ShardNotFound { shard })?;
        let checkpoint = lease::first_checkpoint(&self.stream, info, position)?;
        let start = StartingPosition::TrimHorizon;
        let with_row = lease::make_rows(&table, &self.stream, &shards, start)?;
        if !with_row.contains(&shard) {
            let what = format!("{shard} has expired: there is nothing left to process in it");
            return Err(Error::InvalidArgument(what));
        }
        self.move_to(&table, shard, Some(checkpoint), reason)?;
        if checkpoint != Checkpoint::ShardEnd {
            let mut descendants = descendants(shard, &shards);
            descendants.retain(|descendant| with_row.contains(descendant));
            for descendant in descendants {
                self.move_to(&table, descendant, None, reason)?;
            }
        }
        Ok(())
    }

    /// Has the shard begun anew at its checkpoint: the pool that has it lets go of it, and takes it
    /// again, or another one does. So a shard that is [parked](crate::ShardState::Parked) is tried
    /// again, from whatever process; see also [`WorkerPool::resume`](crate::WorkerPool::resume).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// # use std::time::Duration;
    /// use millstream::{Application, Batch, Checkpointer, ShardId, WorkerPool};
    ///
    /// let pool = WorkerPool::builder("billing", &stream)
    ///     .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))?;
    /// let billing = Application::of("billing", &stream)?;
    /// billing.retry_shard(ShardId::new(0))?;
    /// assert_eq!(billing.shards()?[0].lag.records, 0);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::ShardNotFound`] if the application has not seen the shard, or is done with it and
    /// retention has removed what was in it; else as [`seek`](Self::seek).
    pub fn retry_shard(&self, shard: ShardId) -> Result<()> {
        let table = self.table()?;
        table.read(shard)?;
        self.move_to(&table, shard, None, "")
    }

    fn table(&self) -> Result<ControlTable> {
        must_not_be_queue(&self.stream.path().join(APPLICATIONS), &self.name)?;
        let table = ControlTable::view(&self.path, &self.name);
        if table.shards()?.is_empty() {
            let what = format!("the stream has no application {:?}", self.name);
            return Err(Error::InvalidArgument(what));
        }
        Ok(table)
    }

    /// Takes the shard from whoever has it, and leaves it with this checkpoint, or with its own.
    fn move_to(
        &self,
        table: &ControlTable,
        shard: ShardId,
        checkpoint: Option<Checkpoint>,
        reason: &str,
    ) -> Result<()> {
        loop {
            // A pool may just have dropped it: nothing is left in the shard.
            let Some(seen) = lease::if_there(table.read(shard))? else { return Ok(()) };
            let mut row = ControlRow {
                generation: seen.generation + 1,
                epoch: seen.epoch + 1,
                owner: None,
                ..seen.clone()
            };
            if let Some(checkpoint) = checkpoint {
                row.checkpoint = checkpoint.position();
                row.pending = None;
                row.lanes.clear();
            }
            if table.replace(shard, &row)? {
                let [before, after] = [seen, row].map(|row| Checkpoint::at(row.checkpoint));
                return match checkpoint {
                    Some(_) => note(&self.path, shard, before, after, reason),
                    None => Ok(()),
                };
            }
        }
    }
}

/// The shards that came from this one, parents first.
fn descendants(shard: ShardId, shards: &[ShardInfo]) -> Vec<ShardId> {
    let mut found = vec![shard];
    for info in shards {
        if info.parents().any(|parent| found.contains(&parent)) {
            found.push(info.id);
        }
    }
    found.split_off(1)
}

/// Adds a line to the file of all seeks.
fn note(
    path: &Path,
    shard: ShardId,
    before: Checkpoint,
    after: Checkpoint,
    reason: &str,
) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let reason = reason.replace(['\n', '\r'], " ");
    let line = format!("{now} {shard}: {before} -> {after}: {reason}\n");
    fs::append(&path.join(SEEKS), line.as_bytes())
}
