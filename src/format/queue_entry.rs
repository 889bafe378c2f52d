//! Entries of a queue's journal: what has happened to the records of a shard from one number up to
//! another. A record of the journal is any number of entries; their checksum is the record's.
//!
//! What a journal begins with is repeated from time to time as it stands by then, between
//! [`Entry::SnapshotBegins`] and [`Entry::SnapshotEnds`], so that what is older can go. It counts
//! when all of its entries are there; until then what was before it does.

use std::ops::Range;

use crate::format::{put, u32_at, u64_at};
use crate::position::{MAX_NUMBER, ShardId};

/// The size of an entry, in bytes.
pub(crate) const ENTRY_LEN: usize = 32;

const KIND: Range<usize> = 0..1;
const ZERO: Range<usize> = KIND.end..KIND.end + 1;
const RECEIVES: Range<usize> = ZERO.end..ZERO.end + 2;
const SHARD: Range<usize> = RECEIVES.end..RECEIVES.end + 4;
const FROM: Range<usize> = SHARD.end..SHARD.end + 8;
const TO: Range<usize> = FROM.end..FROM.end + 8;
const UNTIL: Range<usize> = TO.end..TO.end + 8;
const _: () = assert!(UNTIL.end == ENTRY_LEN);

const RECEIVED: u8 = 1;
const EXTENDED: u8 = 2;
const DELAYED: u8 = 3;
const DONE: u8 = 4;
const IS_IN_FLIGHT: u8 = 5;
const IS_DELAYED: u8 = 6;
const IS_DONE: u8 = 7;
const SNAPSHOT_BEGINS: u8 = 8;
const SNAPSHOT_ENDS: u8 = 9;

/// Records of a shard: those whose numbers are in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) shard: ShardId,
    pub(crate) from: u64,
    /// Behind the last one.
    pub(crate) to: u64,
}

/// What happens to records; those that are done stay so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// They were given to a consumer once more, who has them until this time, in milliseconds since
    /// 1970.
    Received { until_ms: u64 },
    /// He has them until this time.
    Extended { until_ms: u64 },
    /// Nobody gets them before this time.
    Delayed { until_ms: u64 },
    /// Nobody gets them any more.
    Done,
}

/// How it stands with records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// They were received so often, and are not done.
    Held {
        receives: u16,
        until: Until,
    },
    Done,
}

/// Until when nobody gets a record, in milliseconds since 1970, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// A consumer has it.
    InFlight(u64),
    Delayed(u64),
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Changed(Span, Change),
    SnapshotBegins,
    /// Part of a snapshot.
    Is(Span, Known),
    /// The snapshot is complete, if it had so many parts.
    SnapshotEnds {
        parts: u64,
    },
}

/// The bytes of an entry.
pub(crate) fn encode(entry: Entry) -> [u8; ENTRY_LEN] {
    let (kind, receives, span, until) = match entry {
        Entry::Changed(span, change) => {
            let (kind, until_ms) = match change {
                Change::Received { until_ms } => (RECEIVED, until_ms),
                Change::Extended { until_ms } => (EXTENDED, until_ms),
                Change::Delayed { until_ms } => (DELAYED, until_ms),
                Change::Done => (DONE, 0),
            };
            (kind, 0, Some(span), until_ms)
        }
        Entry::Is(span, Known::Held { receives, until: Until::InFlight(ms) }) => {
            (IS_IN_FLIGHT, receives, Some(span), ms)
        }
        Entry::Is(span, Known::Held { receives, until: Until::Delayed(ms) }) => {
            (IS_DELAYED, receives, Some(span), ms)
        }
        Entry::Is(span, Known::Done) => (IS_DONE, 0, Some(span), 0),
        Entry::SnapshotBegins => (SNAPSHOT_BEGINS, 0, None, 0),
        Entry::SnapshotEnds { parts } => (SNAPSHOT_ENDS, 0, None, parts),
    };
    let mut bytes = [0; ENTRY_LEN];
    put(&mut bytes, KIND, &[kind]);
    put(&mut bytes, RECEIVES, &receives.to_le_bytes());
    if let Some(Span { shard, from, to }) = span {
        put(&mut bytes, SHARD, &shard.index().to_le_bytes());
        put(&mut bytes, FROM, &from.to_le_bytes());
        put(&mut bytes, TO, &to.to_le_bytes());
    }
    put(&mut bytes, UNTIL, &until.to_le_bytes());
    bytes
}

/// The entries of a record.
///
/// # Errors
/// What is wrong, and at which byte.
pub(crate) fn decode_all(bytes: &[u8]) -> Result<Vec<Entry>, (usize, String)> {
    let (entries, rest) = bytes.as_chunks::<ENTRY_LEN>();
    if !rest.is_empty() {
        return Err((bytes.len() - rest.len(), format!("an entry has {ENTRY_LEN} bytes")));
    }
    let each = entries.iter().enumerate();
    each.map(|(at, entry)| decode(entry).map_err(|what| (at * ENTRY_LEN, what))).collect()
}

fn decode(bytes: &[u8; ENTRY_LEN]) -> Result<Entry, String> {
    let receives = u16::from_le_bytes([bytes[RECEIVES.start], bytes[RECEIVES.start + 1]]);
    let shard = ShardId::new(u32_at(bytes, SHARD.start));
    let (from, to) = (u64_at(bytes, FROM.start), u64_at(bytes, TO.start));
    let until_ms = u64_at(bytes, UNTIL.start);
    let span = Span { shard, from, to };
    let entry = match bytes[KIND.start] {
        RECEIVED => Entry::Changed(span, Change::Received { until_ms }),
        EXTENDED => Entry::Changed(span, Change::Extended { until_ms }),
        DELAYED => Entry::Changed(span, Change::Delayed { until_ms }),
        DONE => Entry::Changed(span, Change::Done),
        IS_IN_FLIGHT => Entry::Is(span, Known::Held { receives, until: Until::InFlight(until_ms) }),
        IS_DELAYED => Entry::Is(span, Known::Held { receives, until: Until::Delayed(until_ms) }),
        IS_DONE => Entry::Is(span, Known::Done),
        SNAPSHOT_BEGINS => Entry::SnapshotBegins,
        SNAPSHOT_ENDS => Entry::SnapshotEnds { parts: until_ms },
        kind => return Err(format!("{kind} is no kind of entry")),
    };
    if matches!(entry, Entry::Changed(..) | Entry::Is(..)) && !(from < to && to <= MAX_NUMBER) {
        return Err(format!("there are no records from {from} to {to}"));
    }
    // What is written has zeros where it says nothing.
    if encode(entry) == *bytes { Ok(entry) } else { Err("an entry has other fields too".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span { shard: ShardId::new(7), from: 96, to: 1 << 40 };

    fn all() -> Vec<Entry> {
        let changes = [
            Change::Received { until_ms: 1_700_000_000_000 },
            Change::Extended { until_ms: 5 },
            Change::Delayed { until_ms: 6 },
            Change::Done,
        ];
        let known = [
            Known::Held { receives: 3, until: Until::InFlight(7) },
            Known::Held { receives: u16::MAX, until: Until::Delayed(8) },
            Known::Done,
        ];
        let changes = changes.map(|change| Entry::Changed(SPAN, change));
        let known = known.map(|known| Entry::Is(SPAN, known));
        let ends = [Entry::SnapshotBegins, Entry::SnapshotEnds { parts: 9 }];
        changes.into_iter().chain(known).chain(ends).collect()
    }

    #[test]
    fn the_manual_has_the_same_table() {
        let field = |range: &Range<usize>, name| (range.start, range.len(), name);
        let fields = [
            field(&KIND, "kind"),
            field(&ZERO, ""),
            field(&RECEIVES, "receives"),
            field(&SHARD, "shard"),
            field(&FROM, "from"),
            field(&TO, "to"),
            field(&UNTIL, "until"),
        ];
        crate::format::manual::says("Queue journal", &fields);
    }

    #[test]
    fn every_entry_comes_back_as_it_was_written() {
        let bytes: Vec<u8> = all().into_iter().flat_map(encode).collect();
        assert_eq!(decode_all(&bytes), Ok(all()));
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_place() {
        let good = encode(Entry::Changed(SPAN, Change::Done));
        for (at, byte) in [(0, 0), (0, 10), (1, 1), (2, 1), (14, 9), (23, 0xff), (24, 1)] {
            let mut bad = good;
            bad[at] = byte;
            let bytes = [good, bad].concat();
            assert_eq!(decode_all(&bytes).unwrap_err().0, ENTRY_LEN, "{at}");
        }
        assert_eq!(decode_all(&good[1..]).unwrap_err().0, 0);
    }
}
