//! From the open shards to other ranges: which shards are made, and whom they descend from.
//!
//! A shard descends from those that it overlaps with, so a key's records go from parent to child
//! wherever its range moves. As in Kinesis it has two parents at most: where a range overlaps with
//! more, shards in between merge them, two at a time, each with the part of the range that its
//! parents have. They are closed as soon as they are made and never have a record; whoever follows
//! the lineage passes through them. So any ranges are reached from any others in one commit, with
//! no more shards than ranges wherever each of them overlaps with two at most: in every split,
//! every merge of two, and every growth to a larger number of even ranges.

use crate::hash_key::HashKeyRange;
use crate::lineage::ShardInfo;
use crate::position::ShardId;

/// A shard that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NewShard {
    pub(super) id: ShardId,
    pub(super) range: HashKeyRange,
    pub(super) parent: ShardId,
    pub(super) adjacent_parent: Option<ShardId>,
    /// False: it only leads from its parents to its child.
    pub(super) is_open: bool,
}

/// The shards to be made, by rising id, so that there is an open one for each of `ranges`. `open`
/// are the open shards of these ranges; those that have one of the ranges already stay.
pub(super) fn plan(open: &[ShardInfo], ranges: &[HashKeyRange], next_shard: u32) -> Vec<NewShard> {
    let mut new: Vec<NewShard> = Vec::new();
    for range in ranges {
        let overlaps = open.iter().filter_map(|shard| {
            let part = shard.hash_key_range.intersection(*range)?;
            Some((shard.id, part))
        });
        let mut parents: Vec<(ShardId, HashKeyRange)> = overlaps.collect();
        parents.sort_unstable_by_key(|(_, part)| part.start);
        let stays = |shard: &ShardInfo| shard.hash_key_range == *range;
        if open.iter().any(stays) {
            continue;
        }
        let mut make = |pair: &[(ShardId, HashKeyRange)], is_open| {
            let (parent, first) = pair[0];
            let range = HashKeyRange { start: first.start, end: pair[pair.len() - 1].1.end };
            let adjacent_parent = pair.get(1).map(|(id, _)| *id);
            let id = ShardId::new(next_shard + new.len() as u32);
            new.push(NewShard { id, range, parent, adjacent_parent, is_open });
            (id, range)
        };
        while parents.len() > 2 {
            let pairs = parents.chunks(2);
            parents =
                pairs.map(|one| if one.len() == 1 { one[0] } else { make(one, false) }).collect();
        }
        make(&parents, true);
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash_key::HashKey;
    use proptest::prelude::*;

    /// Open shards with these ranges.
    fn shards(ranges: &[HashKeyRange]) -> Vec<ShardInfo> {
        let shard = |(hash_key_range, id): (&HashKeyRange, u32)| ShardInfo {
            id: ShardId::new(id),
            hash_key_range: *hash_key_range,
            parent: None,
            adjacent_parent: None,
            starting_sequence_number: 0.into(),
            ending_sequence_number: None,
            opened_ms: 0,
            closed_ms: None,
        };
        ranges.iter().zip(0..).map(shard).collect()
    }

    /// The ring divided before each of these keys.
    fn divided(mut keys: Vec<u128>) -> Vec<HashKeyRange> {
        keys.sort_unstable();
        keys.dedup();
        let starts = keys.iter().copied().filter(|key| *key > 0);
        let starts: Vec<u128> = [0].into_iter().chain(starts).collect();
        let ends = starts[1..].iter().map(|start| start - 1).chain([u128::MAX]);
        let range = |(start, end): (&u128, u128)| HashKeyRange {
            start: HashKey::new(*start),
            end: HashKey::new(end),
        };
        starts.iter().zip(ends).map(range).collect()
    }

    /// Checks that the new shards lead from the open ones to the ranges: each has what its parents
    /// have of its range, and every hash key of a shard that is closed goes to one child.
    fn check(from: &[HashKeyRange], to: &[HashKeyRange]) -> usize {
        let open = shards(from);
        let new = plan(&open, to, 1000);
        let mut ranges: Vec<(ShardId, HashKeyRange, bool)> =
            open.iter().map(|shard| (shard.id, shard.hash_key_range, true)).collect();
        for (shard, id) in new.iter().zip(1000..) {
            assert_eq!(shard.id, ShardId::new(id));
            let parents = [Some(shard.parent), shard.adjacent_parent].into_iter().flatten();
            let of = |id| ranges.iter().find(|(other, ..)| *other == id).unwrap().1;
            let parts: Vec<_> =
                parents.clone().map(|id| of(id).intersection(shard.range).unwrap()).collect();
            assert_eq!(parts[0].start, shard.range.start);
            assert_eq!(parts[parts.len() - 1].end, shard.range.end);
            if let [low, high] = parts[..] {
                assert_eq!(low.end.get() + 1, high.start.get());
            }
            for parent in parents {
                ranges.iter_mut().find(|(id, ..)| *id == parent).unwrap().2 = false;
            }
            ranges.push((shard.id, shard.range, true));
        }
        let mut left: Vec<_> =
            ranges.iter().filter(|(.., open)| *open).map(|(_, range, _)| *range).collect();
        left.sort_unstable();
        assert_eq!(left, to);
        assert!(new.iter().all(|shard| shard.is_open == to.contains(&shard.range)));
        new.len()
    }

    #[test]
    fn growing_makes_no_shards_in_between_and_keeps_those_that_fit() {
        for (from, to, made) in [(1, 7, 7), (2, 3, 3), (3, 4, 4), (2, 4, 4), (5, 5, 0), (8, 7, 7)] {
            assert_eq!(check(&HashKeyRange::even(from), &HashKeyRange::even(to)), made);
        }
    }

    #[test]
    fn shrinking_merges_two_at_a_time() {
        for (from, to, made) in [(4, 2, 2), (4, 1, 3), (8, 1, 7), (3, 1, 2), (1000, 1, 999)] {
            assert_eq!(check(&HashKeyRange::even(from), &HashKeyRange::even(to)), made);
        }
    }

    #[test]
    fn shards_with_a_range_that_is_wanted_stay() {
        let from = divided(vec![10, 20, 30]);
        assert_eq!(check(&from, &divided(vec![10, 20, 25, 30])), 2);
        assert_eq!(check(&from, &divided(vec![10, 30])), 1);
    }

    proptest! {
        #[test]
        fn any_ranges_are_reached_from_any_others(
            from in proptest::collection::vec(any::<u128>(), 0..40),
            to in proptest::collection::vec(any::<u128>(), 0..40),
            kept in 0usize..40,
        ) {
            let to = to.into_iter().chain(from.iter().copied().take(kept)).collect();
            check(&divided(from), &divided(to));
        }
    }
}
