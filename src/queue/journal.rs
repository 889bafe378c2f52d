//! The journal of a queue: a stream of its own in the directory `queue` of the application, with
//! one shard. So its entries are checksummed, recovered, sealed where they are torn and made
//! durable in groups as all records are.
//!
//! From time to time it begins anew with a snapshot: how things stand, and then what has happened
//! since. What is older is trimmed when the snapshot is durable; killed in between, the queue has
//! both, and the snapshot says the same. A snapshot that was cut off counts for nothing: what it
//! was made of is still there.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::queue_entry::{self, Change, ENTRY_LEN, Entry, Known, Span};
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::queue::spans::Spans;
use crate::record::{Durability, Limit};
use crate::stream::Stream;

/// The partition key of all records.
const KEY: &str = "-";
const SHARD: ShardId = ShardId::new(0);
/// The most entries of a record.
const MAX_ENTRIES: usize = 8192;
/// What one entry takes more if it is a record of its own.
const RECORD_BYTES: u64 = 32 + KEY.len() as u64;
/// A snapshot is due when so many bytes were written since the last one, and four times as many as
/// that one has; in tests it is due often.
const MIN_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 16 << 20 };

/// What is known of the records of each shard.
pub(super) type All = BTreeMap<ShardId, Spans>;

#[derive(Debug)]
pub(super) struct Journal {
    stream: Stream,
    /// Bytes written since the last snapshot, and what that one had.
    written: u64,
    snapshot: u64,
}

/// A snapshot that was written.
#[must_use = "what is older goes when it is settled"]
pub(super) struct Snapshot(SequenceNumber);

impl Journal {
    /// Opens the journal in this directory, or begins one, and reads what it says.
    pub(super) fn open(path: &Path, durability: Durability) -> Result<(Self, All)> {
        // Whoever waits for a sync does so when he has let others write.
        let durability = if durability == Durability::Sync { Durability::Os } else { durability };
        let builder = Stream::builder(path).max_segment_bytes(4 << 20).durability(durability);
        let stream = builder.open()?;
        let (all, written) = replay(&stream)?;
        Ok((Self { stream, written, snapshot: 0 }, all))
    }

    /// The stream, to be synced without the lock that this journal is behind.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Writes what has happened.
    pub(super) fn append(&mut self, changes: &[(Span, Change)]) -> Result<()> {
        for changes in changes.chunks(MAX_ENTRIES) {
            let entries = changes.iter().map(|(span, change)| Entry::Changed(*span, *change));
            self.write(changes.len(), entries)?;
        }
        Ok(())
    }

    fn write(
        &mut self,
        count: usize,
        entries: impl Iterator<Item = Entry>,
    ) -> Result<SequenceNumber> {
        let len = count * ENTRY_LEN;
        let receipt = self.stream.put_with(KEY, len, |place| {
            for (place, entry) in place.as_chunks_mut::<ENTRY_LEN>().0.iter_mut().zip(entries) {
                *place = queue_entry::encode(entry);
            }
        })?;
        self.written += RECORD_BYTES + len as u64;
        Ok(receipt.sequence_number)
    }

    /// Whether it should begin anew.
    pub(super) fn is_long(&self) -> bool {
        self.written > MIN_BYTES.max(4 * self.snapshot)
    }

    /// Says how everything stands. Nothing happens meanwhile.
    pub(super) fn write_snapshot(&mut self, parts: &[(Span, Known)]) -> Result<Snapshot> {
        let before = std::mem::take(&mut self.written);
        let first = self.write(1, [Entry::SnapshotBegins].into_iter());
        let written = first.and_then(|first| {
            for parts in parts.chunks(MAX_ENTRIES) {
                self.write(
                    parts.len(),
                    parts.iter().map(|(span, known)| Entry::Is(*span, *known)),
                )?;
            }
            let parts = parts.len() as u64;
            self.write(1, [Entry::SnapshotEnds { parts }].into_iter())?;
            Ok(Snapshot(first))
        });
        match &written {
            Ok(_) => self.snapshot = std::mem::take(&mut self.written),
            Err(_) => self.written += before,
        }
        written
    }
}

impl Snapshot {
    /// Lets what is older go, when the snapshot is durable.
    pub(super) fn settle(self, journal: &Stream) -> Result<()> {
        journal.flush()?;
        let before = self.0.address().and_then(|first| first.checked_sub(1));
        match before {
            Some(before) => journal.trim(SHARD, before.into()),
            None => Ok(()),
        }
    }
}

/// What a journal says, and how many bytes it says it in.
pub(super) fn replay(journal: &Stream) -> Result<(All, u64)> {
    let (mut replay, mut bytes) = (Replay::default(), 0);
    let mut iterator = Some(journal.shard_iterator(SHARD, StartingPosition::TrimHorizon)?);
    while let Some(at) = iterator.take() {
        let page = journal.get_records(&at, Limit::default())?;
        for record in &page.records {
            let entries = queue_entry::decode_all(record.data()).map_err(|(offset, what)| {
                let number = record.sequence_number();
                let what = format!("record {number} of {SHARD}, the queue's journal: {what}");
                Error::corrupt(journal.path(), offset as u64, what)
            })?;
            entries.into_iter().for_each(|entry| replay.take(entry));
            bytes += RECORD_BYTES + record.data().len() as u64;
        }
        iterator = page.next_shard_iterator.filter(|_| !page.records.is_empty());
    }
    Ok((replay.known, bytes))
}

/// What the entries so far say.
#[derive(Debug, Default)]
struct Replay {
    known: All,
    /// A snapshot that is not complete yet, and how many parts it has.
    snapshot: Option<(All, u64)>,
}

impl Replay {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Changed(Span { shard, from, to }, change) => {
                self.known.entry(shard).or_default().apply(from, to, change);
            }
            Entry::SnapshotBegins => self.snapshot = Some(Default::default()),
            Entry::Is(Span { shard, from, to }, known) => {
                if let Some((all, parts)) = &mut self.snapshot {
                    all.entry(shard).or_default().set(from, to, known);
                    *parts += 1;
                }
            }
            Entry::SnapshotEnds { parts } => {
                let complete = self.snapshot.take().filter(|(_, there)| *there == parts);
                if let Some((all, _)) = complete {
                    self.known = all;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::queue_entry::Until;

    fn span(from: u64, to: u64) -> Span {
        Span { shard: ShardId::new(1), from, to }
    }

    fn known(all: &All) -> Vec<(u64, u64, Known)> {
        all.values().flat_map(Spans::iter).collect()
    }

    #[test]
    fn a_snapshot_stands_for_what_was_before_it_when_all_of_it_is_there() {
        let once = Known::Held { receives: 1, until: Until::InFlight(9) };
        let parts = [Entry::Is(span(0, 96), Known::Done), Entry::Is(span(96, 128), once)];
        for count in 0..=parts.len() {
            let mut replay = Replay::default();
            replay.take(Entry::Changed(span(32, 64), Change::Done));
            replay.take(Entry::SnapshotBegins);
            parts[..count].iter().for_each(|part| replay.take(*part));
            replay.take(Entry::SnapshotEnds { parts: 2 });
            let old = vec![(32, 64, Known::Done)];
            let new = vec![(0, 96, Known::Done), (96, 128, once)];
            assert_eq!(known(&replay.known), if count == 2 { new } else { old }, "{count}");
        }
    }

    #[test]
    fn what_happens_behind_a_snapshot_that_was_cut_off_counts() {
        let mut replay = Replay::default();
        replay.take(Entry::Changed(span(32, 64), Change::Done));
        replay.take(Entry::SnapshotBegins);
        replay.take(Entry::Is(span(0, 32), Known::Done));
        replay.take(Entry::Changed(span(64, 96), Change::Done));
        assert_eq!(known(&replay.known), [(32, 96, Known::Done)]);
    }

    #[test]
    fn a_journal_begins_anew_with_a_snapshot_and_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, all) = Journal::open(dir.path(), Durability::Sync).unwrap();
        assert!(all.is_empty());
        for record in 0..40_000 {
            journal.append(&[(span(64 * record, 64 * record + 32), Change::Done)]).unwrap();
        }
        let before = replay(journal.stream()).unwrap().0;
        let parts: Vec<_> = known(&before);
        let parts: Vec<_> = parts.into_iter().map(|(from, to, is)| (span(from, to), is)).collect();
        assert_eq!(parts.len(), 40_000, "more than a record takes");
        journal.write_snapshot(&parts).unwrap().settle(journal.stream()).unwrap();
        journal.append(&[(span(32, 64), Change::Done)]).unwrap();
        drop(journal);

        let (journal, all) = Journal::open(dir.path(), Durability::Os).unwrap();
        assert_eq!(known(&all)[..2], [(0, 96, Known::Done), (128, 160, Known::Done)]);
        assert_eq!(known(&all).len(), 40_000 - 1);
        let first = journal.stream().scan(..).unwrap().next().unwrap().unwrap();
        let entries = queue_entry::decode_all(first.record().data()).unwrap();
        assert_eq!(entries, [Entry::SnapshotBegins], "what is older is gone");
    }

    #[test]
    fn a_journal_that_holds_something_else_is_an_error_that_names_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = Journal::open(dir.path(), Durability::Os).unwrap();
        journal.stream().put(KEY, [77; ENTRY_LEN]).unwrap();
        drop(journal);
        let error = Journal::open(dir.path(), Durability::Os).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { path, .. } if path == dir.path()));
        assert!(error.to_string().contains("77 is no kind of entry"), "{error}");
    }
}
