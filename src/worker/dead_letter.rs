//! Dead letters: records that an application could not process, put aside so that their shards go
//! on.
//!
//! They are a stream of their own in the directory `dead-letters` of the application, with two
//! shards: the *copies* are the records as they were, the *ledger* has an entry for each copy,
//! which says where the record came from and why it was put aside, and one for each that was
//! removed again. A copy is written before its entry: one without an entry counts for nothing.
//!
//! It is opened for the moment in which something is written; so every process may put letters
//! aside, remove them and read them, beside a pool that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::format::names::{APPLICATIONS, DEAD_LETTERS};
use crate::hash_key::HashKey;
use crate::os::fs;
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::record::{Durability, Limit, MAX_RECORD_BYTES, PutRecord, Receipt, Record};
use crate::stream::Stream;
use crate::worker::control_table::check_name;

/// What the two shards of the stream have.
const COPIES: ShardId = ShardId::new(0);
const LEDGER: ShardId = ShardId::new(1);
/// The partition keys of the ledger's entries.
const PUT_ASIDE: &str = "put-aside";
const REMOVED: &str = "removed";

/// Longer than anybody has the stream open who only writes an entry.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often one looks whether the stream is free.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The most bytes that are kept of what a failure says.
const MAX_CAUSE_BYTES: usize = 4096;

/// The records that an application could not process, under
/// [`OnPoison::DeadLetter`](crate::OnPoison::DeadLetter).
///
/// They can be read and removed while the application's pools run, in whatever process. A letter
/// stays until it is removed.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::DeadLetters;
///
/// let dead_letters = DeadLetters::of("billing", &stream)?;
/// for letter in dead_letters.list()? {
///     println!("{}: {}", letter.partition_key(), letter.cause);
///     dead_letters.redrive(&letter, &stream)?;
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: PathBuf,
}

/// A record that was put aside, and what is known of it.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::DeadLetters;
///
/// for letter in DeadLetters::of("billing", &stream)?.list()? {
///     println!("{} of {}: {}", letter.sequence_number, letter.shard, letter.cause);
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Names the letter among those of its application.
    pub id: SequenceNumber,
    /// The shard that the record came from.
    pub shard: ShardId,
    /// The record's number in that shard.
    pub sequence_number: SequenceNumber,
    /// When the record arrived, in milliseconds since 1970.
    pub arrival_ms: u64,
    /// When it was put aside, in milliseconds since 1970.
    pub put_aside_ms: u64,
    /// How many attempts at this record alone had failed.
    pub attempts: u32,
    /// What the last failure said, at most 4 KiB of it.
    pub cause: String,
    /// The copy.
    batch: Batch,
}

/// A record that is to be put aside, and why.
pub(crate) struct Aside<'a> {
    pub(crate) shard: ShardId,
    pub(crate) record: Record<'a>,
    pub(crate) attempts: u32,
    pub(crate) cause: &'a str,
}

impl Aside<'_> {
    fn origin(&self) -> (ShardId, SequenceNumber) {
        (self.shard, self.record.sequence_number())
    }
}

impl DeadLetter {
    /// The key that the record was put with.
    pub fn partition_key(&self) -> &str {
        self.copy().partition_key()
    }

    /// The record's data.
    pub fn data(&self) -> &[u8] {
        self.copy().data()
    }

    fn copy(&self) -> Record<'_> {
        self.batch.get(0).expect("it is read with its copy")
    }
}

impl DeadLetters {
    /// Those of the application with this name, which may not be there yet.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if no application can have that name.
    pub fn of(application: &str, stream: &Stream) -> Result<Self> {
        check_name(application)?;
        Ok(Self::in_directory(&stream.path().join(APPLICATIONS).join(application)))
    }

    pub(super) fn in_directory(application: &Path) -> Self {
        Self { path: application.join(DEAD_LETTERS) }
    }

    /// All letters that were not removed, in the order in which they were put aside. Their data
    /// stays where it is, in mapped files.
    ///
    /// # Errors
    /// What opening and reading a stream says.
    pub fn list(&self) -> Result<Vec<DeadLetter>> {
        let Some(stream) = self.open_if_any()? else { return Ok(Vec::new()) };
        ledger(&stream)?.into_iter().map(|(id, entry)| letter(&stream, id, entry)).collect()
    }

    /// Puts the record to `stream` once more, with its partition key, and removes the letter: it
    /// comes after everything that the stream has, and to every application of the stream.
    /// Killed in between, this leaves the record in the stream and the letter where it was.
    ///
    /// # Errors
    /// What putting says, and as [`remove`](Self::remove). The letter is there still.
    pub fn redrive(&self, letter: &DeadLetter, stream: &Stream) -> Result<Receipt> {
        let record = PutRecord::new(letter.partition_key(), letter.data());
        let receipt = match record.partition_key {
            "" => stream.put_any(record.data).and_then(|put| stream.flush().map(|()| put)),
            _ => stream.put_record(record.durability(Durability::Sync)),
        }?;
        self.remove(letter.id)?;
        Ok(receipt)
    }

    /// Removes a letter, for good. One that is not there any more is no error.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process writes letters for seconds on end; what opening a
    /// stream and putting to it says.
    pub fn remove(&self, id: SequenceNumber) -> Result<()> {
        let is_there = |stream| Ok(ledger(&stream)?.contains_key(&id));
        if !self.open_if_any()?.map_or(Ok(false), is_there)? {
            return Ok(());
        }
        let stream = self.open()?;
        put(&stream, LEDGER, REMOVED, id.to_string().as_bytes())?;
        stream.flush()?;
        stream.close()
    }

    /// Puts records aside, durably. What is there already is not put aside twice.
    pub(crate) fn put_aside(&self, records: &[Aside<'_>]) -> Result<()> {
        let stream = self.open()?;
        let entries = ledger(&stream)?;
        let known: BTreeSet<_> = entries.values().map(Entry::origin).collect();
        let is_new = |aside: &&Aside<'_>| !known.contains(&aside.origin());
        let mut entries = Vec::new();
        for Aside { shard, record, attempts, cause } in records.iter().filter(is_new) {
            let copy = put(&stream, COPIES, record.partition_key(), record.data())?;
            entries.push(Entry {
                copy: copy.sequence_number,
                shard: *shard,
                sequence_number: record.sequence_number(),
                arrival_ms: record.arrival_ms(),
                put_aside_ms: copy.arrival_ms,
                attempts: *attempts,
                cause: shortened(cause).to_owned(),
            });
        }
        stream.flush()?;
        for entry in entries {
            put(&stream, LEDGER, PUT_ASIDE, entry.encode().as_bytes())?;
        }
        stream.flush()?;
        stream.close()
    }

    /// How many letters there are.
    pub(crate) fn count(&self) -> Result<u64> {
        let Some(stream) = self.open_if_any()? else { return Ok(0) };
        Ok(ledger(&stream)?.len() as u64)
    }

    /// The stream, for reading; none if nothing was ever put aside.
    fn open_if_any(&self) -> Result<Option<Stream>> {
        match Stream::open_read_only(&self.path) {
            // It may be just in the making.
            Err(Error::StreamNotFound { .. } | Error::NotAStream { .. }) => Ok(None),
            stream => stream.map(Some),
        }
    }

    /// The stream, for writing, as soon as nobody else has it.
    fn open(&self) -> Result<Stream> {
        let deadline = Instant::now() + PATIENCE;
        fs::must_not_be_link(&self.path)?;
        loop {
            let builder = Stream::builder(&self.path)
                .shards(2)
                .max_record_bytes(MAX_RECORD_BYTES)
                .max_segment_bytes(1 << 20);
            match builder.open() {
                Err(Error::Locked { .. }) if Instant::now() < deadline => thread::sleep(LOOK_AGAIN),
                stream => return stream,
            }
        }
    }
}

/// As much of a text as is kept of a cause.
pub(crate) fn shortened(cause: &str) -> &str {
    let mut end = cause.len().min(MAX_CAUSE_BYTES);
    while !cause.is_char_boundary(end) {
        end -= 1;
    }
    &cause[..end]
}

fn put(stream: &Stream, shard: ShardId, key: &str, data: &[u8]) -> Result<Receipt> {
    let place = if shard == COPIES { HashKey::MIN } else { HashKey::MAX };
    // A record that was put without a key is put aside without one.
    stream.put_checked(PutRecord::new(key, data).explicit_hash_key(place))
}

/// An entry of the ledger that says why a record was put aside.
struct Entry {
    copy: SequenceNumber,
    shard: ShardId,
    sequence_number: SequenceNumber,
    arrival_ms: u64,
    put_aside_ms: u64,
    attempts: u32,
    cause: String,
}

impl Entry {
    /// Where the record came from.
    fn origin(&self) -> (ShardId, SequenceNumber) {
        (self.shard, self.sequence_number)
    }

    fn encode(&self) -> String {
        let Self { copy, shard, sequence_number, arrival_ms, attempts, cause, .. } = self;
        let shard = shard.index();
        let origin = format!("shard {shard}\nsequence-number {sequence_number}\n");
        format!("copy {copy}\n{origin}arrival-ms {arrival_ms}\nattempts {attempts}\ncause {cause}")
    }

    /// None if it is not as it was written.
    fn decode(text: &str, put_aside_ms: u64) -> Option<Self> {
        let mut rest = text;
        let mut field = |name: &str| -> Option<&str> {
            let value = rest.strip_prefix(name)?.strip_prefix(' ')?;
            let (value, after) = value.split_once('\n')?;
            rest = after;
            Some(value)
        };
        Some(Self {
            copy: field("copy")?.parse().ok()?,
            shard: ShardId::new(field("shard")?.parse().ok()?),
            sequence_number: field("sequence-number")?.parse().ok()?,
            arrival_ms: field("arrival-ms")?.parse().ok()?,
            put_aside_ms,
            attempts: field("attempts")?.parse().ok()?,
            // It may have more than one line.
            cause: rest.strip_prefix("cause ")?.to_owned(),
        })
    }
}

/// The entries of letters that were not removed, by their ids.
fn ledger(stream: &Stream) -> Result<BTreeMap<SequenceNumber, Entry>> {
    let mut entries = BTreeMap::new();
    let mut iterator = Some(stream.shard_iterator(LEDGER, StartingPosition::TrimHorizon)?);
    while let Some(at) = iterator.take() {
        let page = stream.get_records(&at, Limit::default())?;
        for record in &page.records {
            let number = record.sequence_number();
            let text = std::str::from_utf8(record.data()).ok();
            let known = match record.partition_key() {
                REMOVED => text.and_then(|text| text.parse().ok()).map(|removed| {
                    entries.remove(&removed);
                }),
                _ => text.and_then(|text| Entry::decode(text, record.arrival_ms())).map(|entry| {
                    entries.insert(number, entry);
                }),
            };
            let what = || format!("entry {number} of {LEDGER}, the ledger, cannot be read");
            known.ok_or_else(|| Error::corrupt(stream.path(), 0, what()))?;
        }
        iterator = page.next_shard_iterator.filter(|_| !page.records.is_empty());
    }
    Ok(entries)
}

/// The letter of an entry, with its copy.
fn letter(stream: &Stream, id: SequenceNumber, entry: Entry) -> Result<DeadLetter> {
    let at = stream.shard_iterator(COPIES, StartingPosition::AtSequenceNumber(entry.copy))?;
    let batch = stream.get_records(&at, Limit::records(1))?.records;
    if batch.get(0).map(|copy| copy.sequence_number()) != Some(entry.copy) {
        let what = format!("the copy {} of entry {id} is not there", entry.copy);
        return Err(Error::corrupt(stream.path(), 0, what));
    }
    let Entry { shard, sequence_number, arrival_ms, put_aside_ms, attempts, cause, .. } = entry;
    Ok(DeadLetter { id, shard, sequence_number, arrival_ms, put_aside_ms, attempts, cause, batch })
}
