//! Which rows are not needed any more: a shard that retention has emptied has nothing to process,
//! and the stream itself keeps who came from whom.
//!
//! A row is dropped when its shard has expired, the row is at SHARD_END, every child has got on (or
//! has expired, too), and no parent has a row. It is not made again, and a shard without a row that
//! has expired counts as processed if its parents do: so what is left says the same as before, also
//! if a pool is killed between two rows. Whoever seeks in such a shard at that moment loses
//! nothing: no record is left in it.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::control_row::ControlRow;
use crate::lineage::ShardInfo;
use crate::position::{ShardId, StartingPosition};
use crate::seeded::bug;

/// The shards, and what is known of their rows.
pub(super) struct Rows<'a> {
    pub(super) shards: &'a BTreeMap<ShardId, ShardInfo>,
    /// Those that are closed and have no record left.
    pub(super) expired: &'a BTreeSet<ShardId>,
    /// Those that have a row.
    pub(super) known: &'a BTreeSet<ShardId>,
    /// The rows, as far as they could be read.
    pub(super) rows: &'a BTreeMap<ShardId, ControlRow>,
}

impl Rows<'_> {
    /// The shards of which the application needs nothing any more, so that children may begin.
    pub(super) fn finished(&self) -> BTreeSet<ShardId> {
        let mut finished = BTreeSet::new();
        // Ids rise from parent to child.
        for (id, shard) in self.shards {
            let is_finished = match self.rows.get(id) {
                Some(row) => row.checkpoint.is_none(),
                None => self.has_none(*id) && self.may_begin(shard, &finished),
            };
            if is_finished {
                finished.insert(*id);
            }
        }
        finished
    }

    /// Whether the shard may be consumed, given those that are finished.
    pub(super) fn may_begin(&self, shard: &ShardInfo, finished: &BTreeSet<ShardId>) -> bool {
        let is_done = |parent| finished.contains(&parent) || !self.shards.contains_key(&parent);
        bug("child_before_parent") || shard.parents().all(is_done)
    }

    /// The shards whose rows can be dropped, one after the other.
    pub(super) fn droppable(&self) -> Vec<ShardId> {
        let mut left = self.known.clone();
        let mut droppable = Vec::new();
        for (id, row) in self.rows.iter().filter(|(id, _)| self.expired.contains(id)) {
            let is_needed = row.checkpoint.is_some()
                || self.shards[id].parents().any(|parent| left.contains(&parent))
                || self.children(*id).any(|child| !self.has_got_on(child));
            if !is_needed {
                left.remove(id);
                droppable.push(*id);
            }
        }
        droppable
    }

    fn children(&self, id: ShardId) -> impl Iterator<Item = ShardId> {
        let is_child = move |shard: &&ShardInfo| shard.parents().any(|parent| parent == id);
        self.shards.values().filter(is_child).map(|child| child.id)
    }

    fn has_got_on(&self, id: ShardId) -> bool {
        match self.rows.get(&id) {
            Some(row) => row.checkpoint != Some(StartingPosition::TrimHorizon),
            None => self.has_none(id),
        }
    }

    /// Whether the shard needs no row.
    fn has_none(&self, id: ShardId) -> bool {
        self.expired.contains(&id) && !self.known.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key::HashKeyRange;

    /// A lineage: 0 and 1 are merged to 2, which is split into 3 and 4; 3 is split into 5 and 6.
    fn shards() -> BTreeMap<ShardId, ShardInfo> {
        let parents = [vec![], vec![], vec![0, 1], vec![2], vec![2], vec![3], vec![3]];
        let shard = |(id, parents): (u32, Vec<u32>)| {
            let parent = |index: usize| parents.get(index).copied().map(ShardId::new);
            let info = ShardInfo {
                id: ShardId::new(id),
                hash_key_range: HashKeyRange::FULL,
                parent: parent(0),
                adjacent_parent: parent(1),
                starting_sequence_number: 0.into(),
                ending_sequence_number: [0, 1, 2, 3].contains(&id).then(|| 9.into()),
                opened_ms: 0,
                closed_ms: None,
            };
            (info.id, info)
        };
        (0..).zip(parents).map(shard).collect()
    }

    fn ids(ids: &[u32]) -> BTreeSet<ShardId> {
        ids.iter().copied().map(ShardId::new).collect()
    }

    /// What `run` says if these have expired, these are at SHARD_END, these have got on, and these
    /// have just a row.
    fn of<T>(
        expired: &[u32],
        ended: &[u32],
        got_on: &[u32],
        new: &[u32],
        run: impl FnOnce(&Rows<'_>) -> T,
    ) -> T {
        let on = Some(StartingPosition::AfterSequenceNumber(7.into()));
        let kinds = [(ended, None), (got_on, on), (new, Some(StartingPosition::TrimHorizon))];
        let rows: BTreeMap<_, _> = kinds
            .iter()
            .flat_map(|(ids, checkpoint)| ids.iter().map(move |id| (id, checkpoint)))
            .map(|(id, checkpoint)| (ShardId::new(*id), ControlRow::new(*checkpoint, None)))
            .collect();
        let (shards, expired) = (shards(), ids(expired));
        let known = rows.keys().copied().collect();
        run(&Rows { shards: &shards, expired: &expired, known: &known, rows: &rows })
    }

    fn droppable(expired: &[u32], ended: &[u32], got_on: &[u32], new: &[u32]) -> Vec<u32> {
        of(expired, ended, got_on, new, |rows| {
            rows.droppable().into_iter().map(ShardId::index).collect()
        })
    }

    #[test]
    fn rows_of_expired_shards_are_dropped_when_their_children_have_got_on() {
        assert_eq!(droppable(&[0, 1], &[0, 1], &[2], &[]), [0, 1]);
        assert_eq!(droppable(&[0, 1, 2], &[0, 1, 2], &[3, 4], &[]), [0, 1, 2], "a whole lineage");
    }

    #[test]
    fn a_row_stays_while_a_child_has_not_got_on() {
        assert_eq!(droppable(&[0, 1, 2], &[0, 1, 2], &[3], &[4]), [0, 1]);
        assert_eq!(droppable(&[0, 1], &[0, 1], &[], &[2]), []);
    }

    #[test]
    fn a_row_stays_while_a_child_has_no_row_yet() {
        assert_eq!(droppable(&[0, 1, 2], &[0, 1, 2], &[3], &[]), [0, 1]);
    }

    #[test]
    fn a_row_stays_while_a_parent_has_one() {
        assert_eq!(droppable(&[0, 2], &[0, 1, 2], &[3, 4], &[]), [0], "1 has not expired");
        assert_eq!(droppable(&[0, 1, 2], &[0, 2], &[1, 3, 4], &[]), [0], "1 is not at its end");
    }

    #[test]
    fn a_row_stays_until_it_is_at_the_end() {
        assert_eq!(droppable(&[0, 1], &[0], &[1, 2], &[]), [0]);
        assert_eq!(droppable(&[0, 1], &[0], &[2], &[1]), [0]);
    }

    #[test]
    fn a_row_stays_while_its_shard_has_records() {
        assert_eq!(droppable(&[], &[0, 1, 2], &[3, 4], &[]), []);
    }

    #[test]
    fn a_child_that_has_expired_without_ever_having_had_a_row_keeps_none() {
        assert_eq!(droppable(&[0, 1, 2], &[0, 1], &[3, 4], &[]), [0, 1]);
    }

    #[test]
    fn children_begin_when_the_row_of_their_parent_was_dropped() {
        let begin = |id: u32, ended: &[u32], got_on: &[u32]| {
            of(&[0, 1, 2], ended, got_on, &[], |rows| {
                rows.may_begin(&rows.shards[&ShardId::new(id)], &rows.finished())
            })
        };
        assert!(begin(3, &[], &[]), "nothing is left of its ancestors");
        assert!(begin(3, &[0, 1], &[]));
        assert!(!begin(3, &[0], &[1]), "2 never had a row, and its parent 1 is not at its end");
        assert!(!begin(5, &[], &[3]));
        assert!(begin(5, &[3], &[]));
    }

    #[test]
    fn what_is_left_says_the_same_after_each_row_that_is_dropped() {
        let rows = [(0, true), (1, true), (2, true), (3, false), (4, false)];
        for dropped in 0..=3 {
            let left = |ended: bool| -> Vec<u32> {
                rows[dropped..].iter().filter(|(_, is)| *is == ended).map(|(id, _)| *id).collect()
            };
            let (ended, got_on) = (left(true), left(false));
            let finished = of(&[0, 1, 2], &ended, &got_on, &[], |rows| rows.finished());
            assert_eq!(finished, ids(&[0, 1, 2]));
            let rest: Vec<u32> = (dropped as u32..3).collect();
            assert_eq!(droppable(&[0, 1, 2], &ended, &got_on, &[]), rest);
        }
    }
}
