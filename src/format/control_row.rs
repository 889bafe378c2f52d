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
//! | 8 | 4 | version | 2; 1 if it does not say where the shard comes from |
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
//! | 468 | 4 | parent | the index of the shard that it came from, and 1; 0 none |
//! | 472 | 4 | adjacent parent | that of the other one, if it came from a merge |
//! | 476 | 16 | range start | the first hash key of the shard |
//! | 492 | 16 | range end | the last one |
//! | 508 | 4 | crc | CRC-32 of all before it; believe nothing unless it fits |
//!
//! With lanes, the state has 8 bytes for each: the number of the last record processed in it, or 0.
//! All numbers are little-endian. Shard and application are there so that a row that was copied
//! from elsewhere is noticed: its numbers would make this application skip records.
//!
//! Rows of version 1 have zeros from 468 on. Who takes the shard writes version 2. Children are not
//! in a row: there may be any number of them, and each names its parents in its own.

use std::num::NonZeroU64;
use std::ops::Range;

use super::{put, u32_at, u64_at, u128_at};
use crate::hash_key::{HashKey, HashKeyRange};
use crate::lineage::ShardInfo;
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
const VERSION: u32 = 2;
/// That of a row without a lineage.
const OLD_VERSION: u32 = 1;

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
const PARENT_AT: usize = STATE_AT + MAX_STATE_BYTES;
const ADJACENT_PARENT_AT: usize = PARENT_AT + 4;
const RANGE_START_AT: usize = ADJACENT_PARENT_AT + 4;
const RANGE_END_AT: usize = RANGE_START_AT + 16;
const CRC_AT: usize = RANGE_END_AT + 16;

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

/// Where a shard comes from, and what it owns: what a table tells that knows no stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    pub(crate) parent: Option<ShardId>,
    pub(crate) adjacent_parent: Option<ShardId>,
    pub(crate) hash_key_range: HashKeyRange,
}

impl Lineage {
    /// The shards that it came from.
    pub(crate) fn parents(&self) -> impl Iterator<Item = ShardId> {
        [self.parent, self.adjacent_parent].into_iter().flatten()
    }
}

impl From<&ShardInfo> for Lineage {
    fn from(shard: &ShardInfo) -> Self {
        let ShardInfo { parent, adjacent_parent, hash_key_range, .. } = *shard;
        Self { parent, adjacent_parent, hash_key_range }
    }
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
    /// None if it was written before rows had one.
    pub(crate) lineage: Option<Lineage>,
}

impl ControlRow {
    /// The first row of a shard.
    pub(crate) fn new(checkpoint: Option<StartingPosition>, lineage: Option<Lineage>) -> Self {
        let (pending, lanes, owner, wanted_by) = (None, Vec::new(), None, None);
        Self { generation: 0, epoch: 0, checkpoint, pending, lanes, owner, wanted_by, lineage }
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
    let version = if row.lineage.is_some() { VERSION } else { OLD_VERSION };
    put(&mut slot, VERSION_AT..SHARD_AT, &version.to_le_bytes());
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
    if let Some(Lineage { parent, adjacent_parent, hash_key_range: range }) = &row.lineage {
        let index = |id: &Option<ShardId>| id.map_or(0, |id| id.index() + 1).to_le_bytes();
        put(&mut slot, PARENT_AT..ADJACENT_PARENT_AT, &index(parent));
        put(&mut slot, ADJACENT_PARENT_AT..RANGE_START_AT, &index(adjacent_parent));
        put(&mut slot, RANGE_START_AT..RANGE_END_AT, &range.start.get().to_le_bytes());
        put(&mut slot, RANGE_END_AT..CRC_AT, &range.end.get().to_le_bytes());
    }
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
    let lineage = match u32_at(slot, VERSION_AT) {
        OLD_VERSION => None,
        VERSION => Some(lineage(slot)),
        version => return Err(RowDamage::Version(version)),
    };
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
    let state = slot[STATE_AT..PARENT_AT].get(..state_len).ok_or(RowDamage::Torn)?;
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
    Ok(ControlRow { generation, epoch, checkpoint, pending, lanes, owner, wanted_by, lineage })
}

fn lineage(slot: &[u8; SLOT_LEN]) -> Lineage {
    let id = |at| u32_at(slot, at).checked_sub(1).map(ShardId::new);
    let key = |at| HashKey::new(u128_at(slot, at));
    let hash_key_range = HashKeyRange { start: key(RANGE_START_AT), end: key(RANGE_END_AT) };
    Lineage { parent: id(PARENT_AT), adjacent_parent: id(ADJACENT_PARENT_AT), hash_key_range }
}

#[cfg(test)]
mod tests;
