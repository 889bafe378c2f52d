//! Rows that come back, and rows that are not to be believed.

use super::*;

fn key() -> RowKey {
    RowKey::new("billing", ShardId::new(7))
}

fn row(generation: u64, checkpoint: Option<StartingPosition>) -> ControlRow {
    ControlRow { generation, epoch: 3, ..ControlRow::new(checkpoint, Some(lineage())) }
}

fn lineage() -> Lineage {
    let hash_key_range = HashKeyRange { start: HashKey::new(7), end: HashKey::new(u128::MAX - 9) };
    Lineage { parent: Some(ShardId::new(0)), adjacent_parent: None, hash_key_range }
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
    for other in [RowKey::new("billing", ShardId::new(8)), RowKey::new("audit", ShardId::new(7))] {
        assert_eq!(decode(other, &file), Err(RowDamage::Foreign));
    }
}

#[test]
fn a_row_of_a_later_version_is_named() {
    let mut slot = encode(key(), &row(1, after(10)));
    put(&mut slot, VERSION_AT..SHARD_AT, &3u32.to_le_bytes());
    seal(&mut slot);
    assert_eq!(decode(key(), &slot), Err(RowDamage::Version(3)));
}

#[test]
fn the_fields_lie_where_the_table_says() {
    let pending = PendingRow { number: 30.into(), state: b"noted".to_vec() };
    let (owner, wanted_by) = (MemberId::new(8), MemberId::new(9));
    let row = ControlRow { pending: Some(pending), owner, wanted_by, ..row(5, after(20)) };
    let slot = encode(key(), &row);
    assert_eq!(&slot[..12], b"millrow\0\x02\0\0\0");
    let numbers = [(12, 7), (24, 5), (32, 3), (40, 20), (48, 3), (52, 3), (56, 30), (64, 8)];
    for (offset, number) in numbers {
        assert_eq!(u32_at(&slot, offset), number, "at {offset}");
    }
    assert_eq!(u64_at(&slot, 16), key().application);
    assert_eq!((u32_at(&slot, 72), u32_at(&slot, 80), &slot[84..89]), (9, 5, &b"noted"[..]));
    assert!(slot[89..468].iter().all(|&byte| byte == 0));
    assert_eq!((u32_at(&slot, 468), u32_at(&slot, 472)), (1, 0), "the parent is shard 0");
    assert_eq!((u128_at(&slot, 476), u128_at(&slot, 492)), (7, u128::MAX - 9));
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
        (PARENT_AT, 4, "parent"),
        (ADJACENT_PARENT_AT, 4, "adjacent parent"),
        (RANGE_START_AT, 16, "range start"),
        (RANGE_END_AT, 16, "range end"),
        (CRC_AT, 4, "crc"),
    ];
    crate::format::manual::says("Control row", &fields);
}

#[test]
fn where_a_shard_comes_from_comes_back_as_it_was_written() {
    let ids = [None, Some(ShardId::new(0)), Some(ShardId::new(u32::MAX - 1))];
    for (parent, adjacent_parent) in ids.iter().flat_map(|one| ids.map(|other| (*one, other))) {
        for hash_key_range in [HashKeyRange::FULL, lineage().hash_key_range] {
            let lineage = Some(Lineage { parent, adjacent_parent, hash_key_range });
            let row = ControlRow { lineage, ..row(1, after(20)) };
            assert_eq!(decode(key(), &file(std::slice::from_ref(&row))), Ok(row));
        }
    }
}

#[test]
fn a_row_of_version_1_says_all_else() {
    let old = ControlRow { lineage: None, ..row(4, after(20)) };
    let mut slot = encode(key(), &old);
    assert_eq!(u32_at(&slot, 8), 1);
    assert_eq!(decode(key(), &slot).as_ref(), Ok(&old));
    // Whatever is where a later version has something.
    slot[468..508].fill(0xff);
    seal(&mut slot);
    assert_eq!(decode(key(), &slot), Ok(old));
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
