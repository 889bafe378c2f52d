//! Emitters: records go elsewhere by the bundle, and are checkpointed when they are there.
//!
//! - `mod.rs`: what the user writes, and when a bundle is complete
//! - `emitting.rs`: the processor that keeps the bundle
//! - `json_lines.rs`: an emitter to files

mod emitting;
mod json_lines;

use std::time::Duration;

use crate::error::Result;
use crate::lineage::ShardInfo;
use crate::record::Record;
use crate::stream::Stream;
use crate::worker::builder::WorkerPoolBuilder;
use crate::worker::pool::WorkerPool;
use crate::worker::processor::{Initialization, ProcessorError};

pub(in crate::worker) use emitting::Emitting;
pub use json_lines::{JsonLine, JsonLines};

/// Sends the records of one shard elsewhere, a bundle at a time: into objects, tables, files.
///
/// Records are transformed, or left out, one by one. What they become is kept in a buffer until it
/// is large or old enough ([`EmitBuffer`]), and then emitted. Nothing is checkpointed before it has
/// been emitted; what was not comes again, to this emitter or to the next one. So each item is
/// emitted at least once: make sure that a second time does no harm.
///
/// [`WorkerPoolBuilder::start_emitting`] starts a pool with an emitter for each shard.
///
/// A load into S3 puts a bundle into an object named after its first record, one into Redshift has
/// it copied from there. A service that takes records one by one, as DynamoDB does with
/// BatchWriteItem, may refuse some of them:
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
/// use std::time::Duration;
///
/// use millstream::{EmitBuffer, Emitter, ProcessorError, Record, WorkerPool};
///
/// /// Stands for the client of a service that takes 25 items at once, and not always all of them.
/// #[derive(Clone, Default)]
/// struct Client(Arc<Mutex<BTreeMap<String, String>>>);
///
/// impl Client {
///     /// Returns the items that were not processed.
///     fn batch_write(&self, items: &[(String, String)]) -> Vec<(String, String)> {
///         let (taken, refused) = items.split_at(items.len().div_ceil(2));
///         self.0.lock().unwrap().extend(taken.iter().cloned());
///         refused.to_vec()
///     }
/// }
///
/// struct Load(Client);
///
/// impl Emitter for Load {
///     type Item = (String, String);
///
///     fn transform(&mut self, record: &Record<'_>) -> Result<Option<Self::Item>, ProcessorError> {
///         let text = std::str::from_utf8(record.data())?;
///         // What is empty is left out.
///         let key = record.sequence_number().to_string();
///         Ok((!text.is_empty()).then(|| (key, text.to_owned())))
///     }
///
///     fn size(&self, (key, text): &Self::Item) -> u64 {
///         (key.len() + text.len()) as u64
///     }
///
///     fn emit(&mut self, items: Vec<Self::Item>) -> Result<Vec<Self::Item>, ProcessorError> {
///         Ok(items.chunks(25).flat_map(|some| self.0.batch_write(some)).collect())
///     }
/// }
///
/// for data in ["one", "", "two", "three"] {
///     stream.put("customer-7", data)?;
/// }
/// let client = Client::default();
/// let buffer = EmitBuffer::default().items(500).retry_delay(Duration::from_millis(1));
/// let pool = WorkerPool::builder("load", &stream).start_emitting(buffer, {
///     let client = client.clone();
///     move |_shard| Load(client.clone())
/// })?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// // What is left in the buffer is emitted now, if it was not because it was old enough.
/// pool.shutdown(Duration::from_secs(10));
/// assert_eq!(client.0.lock().unwrap().len(), 3);
/// # Ok::<(), millstream::Error>(())
/// ```
pub trait Emitter: Send {
    /// What a record becomes.
    type Item: Send;

    /// Called once, before everything else. What is behind the checkpoint comes again, though it
    /// may have been emitted.
    ///
    /// # Errors
    /// Any error ends this emitter, and another one is made after a while.
    fn initialize(&mut self, initialization: &Initialization) -> Result<(), ProcessorError> {
        let _ = initialization;
        Ok(())
    }

    /// What a record becomes; none if it is left out.
    ///
    /// # Errors
    /// Any error is the record's, and is dealt with as [`OnPoison`](crate::OnPoison) says.
    fn transform(&mut self, record: &Record<'_>) -> Result<Option<Self::Item>, ProcessorError>;

    /// How many bytes an item counts for.
    fn size(&self, item: &Self::Item) -> u64;

    /// Puts items where they belong, durably. Returns those that failed and are worth another
    /// attempt; the others are not emitted again.
    ///
    /// # Errors
    /// Any error ends this emitter, and all items come again to another one after a while. It
    /// counts as a failure of the batch that has completed the bundle: under another policy than
    /// [`OnPoison::Retry`](crate::OnPoison::Retry), return the items instead.
    fn emit(&mut self, items: Vec<Self::Item>) -> Result<Vec<Self::Item>, ProcessorError>;

    /// Called with items that have failed as often as [`EmitBuffer::attempts`] says. If this
    /// returns `Ok`, they are done with, and what was emitted is checkpointed.
    ///
    /// # Errors
    /// An error, unless you write something else here: as [`emit`](Self::emit).
    fn give_up(&mut self, failed: Vec<Self::Item>) -> Result<(), ProcessorError> {
        Err(format!("{} items could not be emitted", failed.len()).into())
    }

    /// Called when everything that was emitted is checkpointed, so that it does not come again.
    ///
    /// # Errors
    /// As [`initialize`](Self::initialize).
    fn checkpointed(&mut self) -> Result<(), ProcessorError> {
        Ok(())
    }

    /// Called when the buffer is empty and there is nothing to read for now. Returns after which
    /// time it is to be called again, if there is nothing then either.
    ///
    /// # Errors
    /// As [`initialize`](Self::initialize).
    fn idle(&mut self) -> Result<Option<Duration>, ProcessorError> {
        Ok(None)
    }

    /// Nothing comes any more: the shard is at its end, or goes elsewhere, or the pool stops.
    /// Everything was emitted, if it could be.
    ///
    /// # Errors
    /// As [`initialize`](Self::initialize), at the end of a shard; else nobody takes notice.
    fn finish(&mut self) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// When a bundle is complete, and how often it is tried: by default at 1,000 items, 1 MiB or 60
/// seconds, and 5 times.
///
/// ```
/// use std::time::Duration;
/// use millstream::EmitBuffer;
///
/// let buffer = EmitBuffer::default().items(500).bytes(4 << 20).age(Duration::from_secs(5));
/// assert_eq!((buffer.items, buffer.attempts), (500, 5));
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EmitBuffer {
    /// The number of items that completes a bundle.
    pub items: usize,
    /// The bytes that complete a bundle, as [`Emitter::size`] counts them.
    pub bytes: u64,
    /// Nothing is kept for longer. While a callback runs, also of other shards if they keep all
    /// threads busy, this is not looked at.
    pub age: Duration,
    /// How often items are tried that fail.
    pub attempts: u32,
    /// How long the thread pauses before the second attempt; twice as long before each further one.
    pub retry_delay: Duration,
}

impl Default for EmitBuffer {
    fn default() -> Self {
        let (age, retry_delay) = (Duration::from_secs(60), Duration::from_millis(100));
        Self { items: 1000, bytes: 1 << 20, age, attempts: 5, retry_delay }
    }
}

impl EmitBuffer {
    /// The number of items that completes a bundle; 0 counts as 1.
    #[must_use]
    pub fn items(mut self, count: usize) -> Self {
        self.items = count;
        self
    }

    /// The bytes that complete a bundle.
    #[must_use]
    pub fn bytes(mut self, count: u64) -> Self {
        self.bytes = count;
        self
    }

    /// Nothing is kept for longer.
    #[must_use]
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// How often items are tried that fail; 0 counts as 1.
    #[must_use]
    pub fn attempts(mut self, count: u32) -> Self {
        self.attempts = count;
        self
    }

    /// How long to pause before the second attempt.
    #[must_use]
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }
}

impl WorkerPoolBuilder {
    /// As [`start`](Self::start), with an [`Emitter`] for each shard. Checkpoints are moved to what
    /// was emitted, a shard has one lane, and no batch is waited for, since the buffer waits,
    /// whatever [`checkpoints`](Self::checkpoints), [`lanes`](Self::lanes) and
    /// [`linger`](Self::linger) say.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_emitting<F, E>(self, buffer: EmitBuffer, factory: F) -> Result<WorkerPool>
    where
        F: Fn(&ShardInfo) -> E + Send + Sync + 'static,
        E: Emitter + 'static,
    {
        self.start_emitting_by_stream(buffer, move |_, shard| factory(shard))
    }

    /// As [`start_emitting`](Self::start_emitting), with a factory that is told which
    /// [`stream`](Self::stream) the shard is of.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = millstream::Stream::builder(dir.path().join("orders")).open()?;
    /// # let returns = millstream::Stream::builder(dir.path().join("returns")).open()?;
    /// # let archive = dir.path().join("archive");
    /// use millstream::{EmitBuffer, JsonLines, WorkerPool};
    ///
    /// let builder = WorkerPool::builder("archive", &orders).stream(&returns);
    /// let buffer = EmitBuffer::default();
    /// let pool = builder.start_emitting_by_stream(buffer, move |stream, _shard| {
    ///     // Shards of different streams have the same names.
    ///     JsonLines::new(archive.join(stream.path().file_name().unwrap_or_default()))
    /// })?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_emitting_by_stream<F, E>(
        self,
        buffer: EmitBuffer,
        factory: F,
    ) -> Result<WorkerPool>
    where
        F: Fn(&Stream, &ShardInfo) -> E + Send + Sync + 'static,
        E: Emitter + 'static,
    {
        let ticker = self.ticker();
        self.buffered().start_by_stream(move |stream, shard| {
            Emitting::new(factory(stream, shard), buffer, ticker.clone())
        })
    }
}
