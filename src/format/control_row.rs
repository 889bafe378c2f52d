//! The row of one shard in an application's control table: who has the shard, how far it is.
//!
//! A row is a file of two slots, each of which says everything. A new row goes to the slot with the
//! older one, so the newer one stays whole whatever happens to the write: the row is that of the
//! slot with the higher generation, among the slots that can be believed. A slot is a sector of
//! its own, so tearing one does not touch the other.
//!
//! | offset | size | field | meaning |
//! |-------:|-----:|-------|---------|
//! | 0 | 8 | magic | `millrow` and a zero |
//! | 8 | 4 | version | 1 |
//! | 12 | 4 | shard | the shard's index |
//! | 16 | 8 | application | XXH3 of the application's name |
//! | 24 | 8 | generation | one more with each write; its lowest bit is the slot |
//! | 32 | 8 | epoch | one more with each owner; a checkpoint from an older one is refused |
//! | 40 | 8 | number | the sequence number of kind 2 and 3, else 0 |
//! | 48 | 4 | kind | of the checkpoint: 1 TRIM_HORIZON, 2 at, 3 after `number`, 4 SHARD_END |
//! | 52 | 4 | pending kind | prepared checkpoint: 3 after `pending number`, 0 none; 5 lanes |
//! | 56 | 8 | pending number | its sequence number |
//! | 64 | 8 | owner | the member that has the shard, 0 nobody |
//! | 72 | 8 | wanted by | the member that asks for the shard, 0 nobody |
//! | 80 | 4 | state length | bytes of `state` |
//! | 84 | 384 | state | what the processor has noted with the prepared checkpoint; or the lanes |
//! | 468 | 40 | | zeros |
//! | 508 | 4 | crc | CRC-32 of all before it; believe nothing unless it fits |
//!
//! With lanes, the state has 8 bytes for each: the number of the last record processed in it, or 0.
//! All numbers are little-endian. Shard and application are there so that a row that was copied
//! from elsewhere is noticed: its numbers would make this application skip records.

use std::num::NonZeroU64;
use std::ops::Range;

use super::{put, u32_at, u64_at};
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::seeded::bug;

/// One slot: a sector.
pub(crate) const SLOT_LEN: usize = 512;
/// The most bytes that can be noted with a prepared checkpoint.
pub(crate) const MAX_STATE_BYTES: usize = 384;
/// The most lanes whose progress there is room for.
pub(crate) const MAX_LANES: usize = MAX_STATE_BYTES / 8;
/// Both slots: the length of the file.
pub(crate) const ROW_LEN: usize = 2 * SLOT_LEN;

const MAGIC: &[u8; 8] = b"millrow\0";
const VERSION: u32 = 1;

const VERSION_AT: usize = 8;
const SHARD_AT: usize = VERSION_AT + 4;
const APPLICATION_AT: usize = SHARD_AT + 4;
const GENERATION_AT: usize = APPLICATION_AT + 8;
const EPOCH_AT: usize = GENERATION_AT + 8;
const NUMBER_AT: usize = EPOCH_AT + 8;
const KIND_AT: usize = NUMBER_AT + 8;
const PENDING_KIND_AT: usize = KIND_AT + 4;
const PENDING_NUMBER_AT: usize = PENDING_KIND_AT + 4;
const OWNER_AT: usize = PENDING_NUMBER_AT + 8;
const WANTED_BY_AT: usize = OWNER_AT + 8;
const STATE_LEN_AT: usize = WANTED_BY_AT + 8;
const STATE_AT: usize = STATE_LEN_AT + 4;
const ZEROS_AT: usize = STATE_AT + MAX_STATE_BYTES;
const CRC_AT: usize = SLOT_LEN - 4;

const TRIM_HORIZON: u32 = 1;
const AT_SEQUENCE_NUMBER: u32 = 2;
const AFTER_SEQUENCE_NUMBER: u32 = 3;
const SHARD_END: u32 = 4;
const LANES: u32 = 5;

/// Whose row it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowKey {
    application: u64,
    shard: ShardId,
}

impl RowKey {
    /// The row of `shard` in the control table of `application`.
    pub(crate) fn new(application: &str, shard: ShardId) -> Self {
        Self { application: xxhash_rust::xxh3::xxh3_64(application.as_bytes()), shard }
    }
}

/// A checkpoint that was prepared and not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingRow {
    /// Everything up to and with this number is processed, if it is committed.
    pub(crate) number: SequenceNumber,
    /// What the processor has noted with it, at most [`MAX_STATE_BYTES`].
    pub(crate) state: Vec<u8>,
}

/// Names a pool among those of its application.
pub(crate) type MemberId = NonZeroU64;

/// What a row says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControlRow {
    /// Of two rows the one with the higher generation counts.
    pub(crate) generation: u64,
    /// Counts the owners that the shard has had.
    pub(crate) epoch: u64,
    /// Where the shard is to be read on: TRIM_HORIZON, at a number or after one. None is
    /// SHARD_END: every record is processed, and the children may begin.
    pub(crate) checkpoint: Option<StartingPosition>,
    /// The checkpoint that is prepared.
    pub(crate) pending: Option<PendingRow>,
    /// The last record that each lane has processed, if the shard has lanes; then no checkpoint is
    /// prepared. At most [`MAX_LANES`].
    pub(crate) lanes: Vec<Option<SequenceNumber>>,
    /// Who has the shard.
    pub(crate) owner: Option<MemberId>,
    /// Who asks the owner for it.
    pub(crate) wanted_by: Option<MemberId>,
}

impl ControlRow {
    /// The first row of a shard.
    pub(crate) fn new(checkpoint: Option<StartingPosition>) -> Self {
        let (pending, lanes, owner, wanted_by) = (None, Vec::new(), None, None);
        Self { generation: 0, epoch: 0, checkpoint, pending, lanes, owner, wanted_by }
    }

    /// Where in the file the row goes.
    pub(crate) fn offset(&self) -> usize {
        let slots = if bug("slot_not_alternated") { 1 } else { 2 };
        (self.generation % slots) as usize * SLOT_LEN
    }
}

/// Why a slot cannot be believed; of two, the greater one says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RowDamage {
    /// It is not what was written, or was never written.
    Torn,
    /// It was written for another shard or application.
    Foreign,
    /// It was written by a later version of this library.
    Version(u32),
}

/// The slot that says `row`.
pub(crate) fn encode(key: RowKey, row: &ControlRow) -> [u8; SLOT_LEN] {
    let (kind, number) = match row.checkpoint {
        Some(StartingPosition::TrimHorizon) => (TRIM_HORIZON, None),
        Some(StartingPosition::AtSequenceNumber(number)) => (AT_SEQUENCE_NUMBER, Some(number)),
        Some(StartingPosition::AfterSequenceNumber(number)) => {
            (AFTER_SEQUENCE_NUMBER, Some(number))
        }
        None => (SHARD_END, None),
        Some(StartingPosition::Latest | StartingPosition::AtTimestampMs(_)) => {
            panic!("a checkpoint is a place, not a way to find one: {:?}", row.checkpoint)
        }
    };
    let address = |n: SequenceNumber| n.address().expect("numbers of a stream are addresses");
    let number = number.map_or(0, address);
    let mut slot = [0; SLOT_LEN];
    put(&mut slot, 0..VERSION_AT, MAGIC);
    put(&mut slot, VERSION_AT..SHARD_AT, &VERSION.to_le_bytes());
    put(&mut slot, SHARD_AT..APPLICATION_AT, &key.shard.index().to_le_bytes());
    put(&mut slot, APPLICATION_AT..GENERATION_AT, &key.application.to_le_bytes());
    put(&mut slot, GENERATION_AT..EPOCH_AT, &row.generation.to_le_bytes());
    put(&mut slot, EPOCH_AT..NUMBER_AT, &row.epoch.to_le_bytes());
    put(&mut slot, NUMBER_AT..KIND_AT, &number.to_le_bytes());
    put(&mut slot, KIND_AT..PENDING_KIND_AT, &kind.to_le_bytes());
    if let Some(PendingRow { number, state }) = &row.pending {
        put(&mut slot, PENDING_KIND_AT..PENDING_NUMBER_AT, &AFTER_SEQUENCE_NUMBER.to_le_bytes());
        put(&mut slot, PENDING_NUMBER_AT..OWNER_AT, &address(*number).to_le_bytes());
        put(&mut slot, STATE_LEN_AT..STATE_AT, &(state.len() as u32).to_le_bytes());
        put(&mut slot, STATE_AT..STATE_AT + state.len(), state);
    }
    if !row.lanes.is_empty() {
        assert!(row.pending.is_none(), "there is room for one of the two");
        let len = 8 * row.lanes.len();
        put(&mut slot, PENDING_KIND_AT..PENDING_NUMBER_AT, &LANES.to_le_bytes());
        put(&mut slot, STATE_LEN_AT..STATE_AT, &(len as u32).to_le_bytes());
        let lanes = slot[STATE_AT..STATE_AT + len].as_chunks_mut().0;
        for (lane, number) in lanes.iter_mut().zip(&row.lanes) {
            *lane = number.map_or(0, address).to_le_bytes();
        }
    }
    let id = |member: Option<MemberId>| member.map_or(0, MemberId::get).to_le_bytes();
    put(&mut slot, OWNER_AT..WANTED_BY_AT, &id(row.owner));
    put(&mut slot, WANTED_BY_AT..STATE_LEN_AT, &id(row.wanted_by));
    seal(&mut slot);
    slot
}

fn seal(slot: &mut [u8; SLOT_LEN]) {
    let crc = crc32fast::hash(&slot[..CRC_AT]);
    put(slot, CRC_AT..SLOT_LEN, &crc.to_le_bytes());
}

/// The row that a file with these bytes holds.
pub(crate) fn decode(key: RowKey, file: &[u8]) -> Result<ControlRow, RowDamage> {
    let (slots, _) = file.as_chunks::<SLOT_LEN>();
    let mut best: Result<ControlRow, _> = Err(RowDamage::Torn);
    for slot in slots.iter().take(2) {
        best = match (best, decode_slot(key, slot)) {
            (Ok(best), Ok(row)) if row.generation > best.generation => Ok(row),
            (Err(_), Ok(row)) => Ok(row),
            (Err(best), Err(damage)) => Err(best.max(damage)),
            (best, _) => best,
        };
    }
    best
}

/// The slots of a file that cannot be believed: where they are, and why.
pub(crate) fn check(key: RowKey, file: &[u8]) -> Vec<(u64, RowDamage)> {
    let slots = (0..2).map(|slot| slot * SLOT_LEN..(slot + 1) * SLOT_LEN);
    let damage = |at: Range<usize>| match file.get(at).and_then(|slot| slot.try_into().ok()) {
        Some(slot) => decode_slot(key, slot).err(),
        None => Some(RowDamage::Torn),
    };
    slots.filter_map(|at| Some((at.start as u64, damage(at)?))).collect()
}

fn decode_slot(key: RowKey, slot: &[u8; SLOT_LEN]) -> Result<ControlRow, RowDamage> {
    let whole = crc32fast::hash(&slot[..CRC_AT]) == u32_at(slot, CRC_AT);
    if !whole || &slot[..VERSION_AT] != MAGIC {
        return Err(RowDamage::Torn);
    }
    if u32_at(slot, VERSION_AT) != VERSION {
        return Err(RowDamage::Version(u32_at(slot, VERSION_AT)));
    }
    let shard = ShardId::new(u32_at(slot, SHARD_AT));
    if key != (RowKey { shard, application: u64_at(slot, APPLICATION_AT) }) {
        return Err(RowDamage::Foreign);
    }
    let number = u64_at(slot, NUMBER_AT).into();
    let checkpoint = match u32_at(slot, KIND_AT) {
        TRIM_HORIZON => Some(StartingPosition::TrimHorizon),
        AT_SEQUENCE_NUMBER => Some(StartingPosition::AtSequenceNumber(number)),
        AFTER_SEQUENCE_NUMBER => Some(StartingPosition::AfterSequenceNumber(number)),
        SHARD_END => None,
        _ => return Err(RowDamage::Torn),
    };
    let state_len = u32_at(slot, STATE_LEN_AT) as usize;
    let state = slot[STATE_AT..ZEROS_AT].get(..state_len).ok_or(RowDamage::Torn)?;
    let (pending, lanes) = match u32_at(slot, PENDING_KIND_AT) {
        0 => (None, Vec::new()),
        AFTER_SEQUENCE_NUMBER => {
            let number = u64_at(slot, PENDING_NUMBER_AT).into();
            (Some(PendingRow { number, state: state.to_vec() }), Vec::new())
        }
        LANES => {
            let number = |lane: &[u8; 8]| u64::from_le_bytes(*lane);
            let lanes = state.as_chunks().0.iter().map(number);
            (None, lanes.map(|number| (number > 0).then(|| number.into())).collect())
        }
        _ => return Err(RowDamage::Torn),
    };
    let member = |at| MemberId::new(u64_at(slot, at));
    let (generation, epoch) = (u64_at(slot, GENERATION_AT), u64_at(slot, EPOCH_AT));
    // Nobody counts that far: one more must always be possible.
    if generation == u64::MAX || epoch == u64::MAX {
        return Err(RowDamage::Torn);
    }
    let (owner, wanted_by) = (member(OWNER_AT), member(WANTED_BY_AT));
    Ok(ControlRow { generation, epoch, checkpoint, pending, lanes, owner, wanted_by })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> RowKey {
        RowKey::new("billing", ShardId::new(7))
    }

    fn row(generation: u64, checkpoint: Option<StartingPosition>) -> ControlRow {
        ControlRow { generation, epoch: 3, ..ControlRow::new(checkpoint) }
    }

    fn after(number: u64) -> Option<StartingPosition> {
        Some(StartingPosition::AfterSequenceNumber(number.into()))
    }

    /// The file after these rows were written to it, one after the other.
    fn file(rows: &[ControlRow]) -> Vec<u8> {
        let mut file = vec![0; ROW_LEN];
        for row in rows {
            let at = row.offset();
            file[at..at + SLOT_LEN].copy_from_slice(&encode(key(), row));
        }
        file
    }

    #[test]
    fn every_checkpoint_comes_back_as_it_was_written() {
        let checkpoints = [
            Some(StartingPosition::TrimHorizon),
            Some(StartingPosition::AtSequenceNumber(u64::MAX.into())),
            after(0),
            None,
        ];
        for checkpoint in checkpoints {
            let row = row(1, checkpoint);
            assert_eq!(decode(key(), &file(std::slice::from_ref(&row))), Ok(row));
        }
    }

    #[test]
    fn the_higher_generation_counts_in_whichever_slot() {
        for generation in [4, 5] {
            let rows = [row(generation, after(10)), row(generation + 1, after(20))];
            assert_eq!(decode(key(), &file(&rows)).as_ref(), Ok(&rows[1]));
        }
    }

    #[test]
    fn a_write_torn_at_any_byte_leaves_the_old_row_or_the_new_one() {
        let rows = [row(4, after(10)), row(5, after(20)), row(6, after(30))];
        let (old, new) = (file(&rows[..2]), file(&rows));
        for torn_at in 0..=SLOT_LEN {
            let mut torn = old.clone();
            torn[..torn_at].copy_from_slice(&new[..torn_at]);
            let expected = if torn[..] == new[..] { &rows[2] } else { &rows[1] };
            assert_eq!(decode(key(), &torn).as_ref(), Ok(expected), "torn at {torn_at}");
        }
    }

    #[test]
    fn every_flipped_byte_is_detected() {
        let rows = [row(4, after(10)), row(5, after(20))];
        for at in 0..ROW_LEN {
            let mut file = file(&rows);
            file[at] ^= 0x10;
            let whole = if at < SLOT_LEN { &rows[1] } else { &rows[0] };
            assert_eq!(decode(key(), &file).as_ref(), Ok(whole), "byte {at} flipped");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_only_good_slot_is_detected() {
        for bit in 0..SLOT_LEN * 8 {
            let mut file = file(&[row(4, after(10))]);
            file[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(key(), &file), Err(RowDamage::Torn), "bit {bit} flipped");
        }
    }

    #[test]
    fn a_file_cut_at_any_byte_has_the_slots_that_are_whole() {
        let rows = [row(4, after(10)), row(5, after(20))];
        let file = file(&rows);
        for len in 0..=ROW_LEN {
            let expected = [Err(&RowDamage::Torn), Ok(&rows[0]), Ok(&rows[1])];
            let found = decode(key(), &file[..len]);
            assert_eq!(found.as_ref(), expected[len / SLOT_LEN], "cut at {len}");
        }
    }

    #[test]
    fn a_row_of_another_shard_or_application_is_not_believed() {
        let file = file(&[row(1, after(10))]);
        for other in
            [RowKey::new("billing", ShardId::new(8)), RowKey::new("audit", ShardId::new(7))]
        {
            assert_eq!(decode(other, &file), Err(RowDamage::Foreign));
        }
    }

    #[test]
    fn a_row_of_a_later_version_is_named() {
        let mut slot = encode(key(), &row(1, after(10)));
        put(&mut slot, VERSION_AT..SHARD_AT, &2u32.to_le_bytes());
        seal(&mut slot);
        assert_eq!(decode(key(), &slot), Err(RowDamage::Version(2)));
    }

    #[test]
    fn the_fields_lie_where_the_table_says() {
        let pending = PendingRow { number: 30.into(), state: b"noted".to_vec() };
        let (owner, wanted_by) = (MemberId::new(8), MemberId::new(9));
        let row = ControlRow { pending: Some(pending), owner, wanted_by, ..row(5, after(20)) };
        let slot = encode(key(), &row);
        assert_eq!(&slot[..12], b"millrow\0\x01\0\0\0");
        let numbers = [(12, 7), (24, 5), (32, 3), (40, 20), (48, 3), (52, 3), (56, 30), (64, 8)];
        for (offset, number) in numbers {
            assert_eq!(u32_at(&slot, offset), number, "at {offset}");
        }
        assert_eq!(u64_at(&slot, 16), key().application);
        assert_eq!((u32_at(&slot, 72), u32_at(&slot, 80), &slot[84..89]), (9, 5, &b"noted"[..]));
        assert!(slot[89..508].iter().all(|&byte| byte == 0));
        assert_eq!(u32_at(&slot, 508), crc32fast::hash(&slot[..508]));
    }

    #[test]
    fn the_manual_says_where_the_fields_are() {
        let fields = [
            (0, MAGIC.len(), "magic"),
            (VERSION_AT, 4, "version"),
            (SHARD_AT, 4, "shard"),
            (APPLICATION_AT, 8, "application"),
            (GENERATION_AT, 8, "generation"),
            (EPOCH_AT, 8, "epoch"),
            (NUMBER_AT, 8, "number"),
            (KIND_AT, 4, "kind"),
            (PENDING_KIND_AT, 4, "pending kind"),
            (PENDING_NUMBER_AT, 8, "pending number"),
            (OWNER_AT, 8, "owner"),
            (WANTED_BY_AT, 8, "wanted by"),
            (STATE_LEN_AT, 4, "state length"),
            (STATE_AT, MAX_STATE_BYTES, "state"),
            (CRC_AT, 4, "crc"),
        ];
        crate::format::manual::says("Control row", &fields);
    }

    #[test]
    fn a_prepared_checkpoint_comes_back_with_its_state() {
        for len in [0, 1, MAX_STATE_BYTES] {
            let pending = PendingRow { number: 30.into(), state: vec![7; len] };
            let row = ControlRow { pending: Some(pending), ..row(1, after(20)) };
            assert_eq!(decode(key(), &file(std::slice::from_ref(&row))), Ok(row));
        }
    }

    #[test]
    fn the_progress_of_lanes_comes_back_as_it_was_written() {
        for count in [1, 2, MAX_LANES] {
            let lanes = (0..count as u64).map(|number| (number != 1).then(|| (20 + number).into()));
            let row = ControlRow { lanes: lanes.collect(), ..row(1, after(20)) };
            assert_eq!(decode(key(), &file(std::slice::from_ref(&row))), Ok(row));
        }
    }

    #[test]
    fn a_state_longer_than_its_place_is_not_believed() {
        let pending = PendingRow { number: 30.into(), state: vec![7; MAX_STATE_BYTES] };
        let mut slot = encode(key(), &ControlRow { pending: Some(pending), ..row(1, after(20)) });
        put(&mut slot, STATE_LEN_AT..STATE_AT, &(MAX_STATE_BYTES as u32 + 1).to_le_bytes());
        seal(&mut slot);
        assert_eq!(decode(key(), &slot), Err(RowDamage::Torn));
    }

    #[test]
    fn a_counter_at_its_end_is_not_believed() {
        for field in [GENERATION_AT..EPOCH_AT, EPOCH_AT..NUMBER_AT] {
            let mut slot = encode(key(), &row(1, None));
            put(&mut slot, field, &u64::MAX.to_le_bytes());
            seal(&mut slot);
            assert_eq!(decode(key(), &slot), Err(RowDamage::Torn));
        }
    }
}
