//! Who is to have which shard: each pool decides by itself what it takes and asks for, from what
//! all of them can see.
//!
//! Shards that nobody has are taken up to an even share. Who has two shards less than another pool
//! asks that one for a shard: so the numbers differ by at most one in the end, and a move always
//! makes them more even. Which shard it is, is decided by what there is to do in it.
//!
//! That holds for each stream. Of several, one who has a shard less in this one, and two less in
//! all, asks for it: so it is not always the same pool that has one more. It takes into account
//! only the streams that it consumes; others may have more besides, so that what it asks for makes
//! the whole more even in any case.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::control_row::MemberId;
use crate::position::ShardId;
use crate::worker::lease_table::Members;

/// A shard that can be worked on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) shard: ShardId,
    /// Who has it, and is there.
    pub(super) owner: Option<MemberId>,
    /// Who has asked for it, and is there and takes shards.
    pub(super) wanted_by: Option<MemberId>,
    /// Whether nobody has taken it, or its owner has not handed it over, for too long.
    pub(super) is_overdue: bool,
}

/// What one pool is to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moves {
    /// To be taken: nobody has them, or not any more.
    pub(super) take: Vec<ShardId>,
    /// To be asked for.
    pub(super) ask: Vec<ShardId>,
    /// How many shards each has when that is done.
    pub(super) counts: Counts,
}

/// How many shards each pool has.
pub(super) type Counts = BTreeMap<MemberId, usize>;

/// How many shards each pool has, by the streams that this one consumes.
#[derive(Debug, Default)]
pub(super) struct Totals(Mutex<BTreeMap<Arc<str>, Counts>>);

impl Totals {
    /// What they have in the other streams.
    pub(super) fn without(&self, stream: &str) -> Counts {
        let mut sum = Counts::new();
        for counts in self.0.lock().iter().filter(|(of, _)| ***of != *stream).map(|(_, it)| it) {
            counts.iter().for_each(|(member, count)| *sum.entry(*member).or_default() += count);
        }
        sum
    }

    pub(super) fn set(&self, stream: &Arc<str>, counts: Counts) {
        self.0.lock().insert(Arc::clone(stream), counts);
    }

    /// The stream is not consumed any more.
    pub(super) fn forget(&self, stream: &str) {
        self.0.lock().remove(stream);
    }
}

/// What is to be done by `me`, if the members have so many shards `elsewhere`; `backlog` tells how
/// much there is to do in a shard.
pub(super) fn moves(
    me: MemberId,
    members: &Members,
    shares: &[Share],
    elsewhere: &Counts,
    mut backlog: impl FnMut(ShardId) -> u64,
) -> Moves {
    let takes = |member: MemberId| members.get(&member).copied().unwrap_or(false);
    if !takes(me) {
        return Moves::default();
    }
    let most = shares.len().div_ceil(members.values().filter(|takes| **takes).count());
    // Whose each will be when what was asked for is done.
    let mut future: BTreeMap<MemberId, Vec<ShardId>> = BTreeMap::new();
    for share in shares {
        if let Some(member) = share.wanted_by.or(share.owner) {
            future.entry(member).or_default().push(share.shard);
        }
    }
    let mut mine = future.remove(&me).unwrap_or_default();
    let mut moves = Moves::default();
    for share in shares {
        let is_promised = share.wanted_by == Some(me);
        let is_to_be_had = match share.owner {
            None if share.wanted_by.is_none() => mine.len() < most || share.is_overdue,
            None => is_promised || share.is_overdue,
            Some(_) => is_promised && share.is_overdue,
        };
        if is_to_be_had {
            moves.take.push(share.shard);
            if !is_promised {
                mine.push(share.shard);
            }
        }
    }
    let askable: BTreeSet<ShardId> = shares
        .iter()
        .filter(|share| share.owner.is_some_and(|owner| owner != me) && share.wanted_by.is_none())
        .map(|share| share.shard)
        .collect();
    let in_all = |member, here: usize| here + elsewhere.get(&member).copied().unwrap_or(0);
    loop {
        // A pool that leaves gives away all it has; of the others, the one that has most.
        let has_more = |(member, theirs): &(&MemberId, &mut Vec<ShardId>)| {
            let is_askable = theirs.iter().any(|shard| askable.contains(shard));
            let (few, many) = (mine.len(), theirs.len());
            is_askable
                && match takes(**member) {
                    true if many == few + 1 => in_all(**member, many) >= in_all(me, few) + 2,
                    true => many > few,
                    false => few < most,
                }
        };
        let richest = future.iter_mut().filter(has_more).max_by_key(|(member, theirs)| {
            (!takes(**member), theirs.len(), in_all(**member, theirs.len()))
        });
        let Some((_, theirs)) = richest else {
            future.insert(me, mine);
            moves.counts = future.iter().map(|(member, theirs)| (*member, theirs.len())).collect();
            return moves;
        };
        let my_backlog: u64 = mine.iter().map(|shard| backlog(*shard)).sum();
        let their_backlog: u64 = theirs.iter().map(|shard| backlog(*shard)).sum();
        let unevenness = |shard: ShardId, moved: u64| {
            ((my_backlog + moved).abs_diff(their_backlog.saturating_sub(moved)), shard)
        };
        let shard = theirs
            .iter()
            .filter(|shard| askable.contains(shard))
            .map(|shard| unevenness(*shard, backlog(*shard)))
            .min()
            .map(|(_, shard)| shard)
            .expect("some can be asked for");
        theirs.retain(|other| *other != shard);
        mine.push(shard);
        moves.ask.push(shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> MemberId {
        MemberId::new(id).unwrap()
    }

    fn members(count: u64) -> Members {
        (1..=count).map(|id| (member(id), true)).collect()
    }

    /// A shard for each of these owners; 0 is nobody.
    fn shares(owners: &[u64]) -> Vec<Share> {
        let share = |(index, owner): (u32, &u64)| Share {
            shard: ShardId::new(index),
            owner: MemberId::new(*owner),
            wanted_by: None,
            is_overdue: false,
        };
        (0..).zip(owners).map(share).collect()
    }

    fn shards(indices: &[u32]) -> Vec<ShardId> {
        indices.iter().copied().map(ShardId::new).collect()
    }

    #[test]
    fn a_pool_alone_takes_everything() {
        let moves = moves(member(1), &members(1), &shares(&[0, 0, 0]), &Counts::new(), |_| 0);
        assert_eq!(moves.take, shards(&[0, 1, 2]));
        assert_eq!(moves.ask, []);
    }

    #[test]
    fn a_pool_takes_its_share_of_what_is_free() {
        let moves = moves(member(1), &members(2), &shares(&[0, 0, 0, 0, 0]), &Counts::new(), |_| 0);
        assert_eq!(moves.take, shards(&[0, 1, 2]), "rounded up, so that nothing is left");
    }

    #[test]
    fn what_is_free_for_too_long_is_taken_beyond_the_share() {
        let mut shares = shares(&[1, 1, 0, 0]);
        shares[3].is_overdue = true;
        assert_eq!(
            moves(member(1), &members(2), &shares, &Counts::new(), |_| 0).take,
            shards(&[3])
        );
    }

    #[test]
    fn what_was_asked_for_is_taken_when_it_is_free_or_overdue_and_by_nobody_else() {
        let mut shares = shares(&[0, 1, 1, 1]);
        shares[0].wanted_by = Some(member(2));
        shares[1].wanted_by = Some(member(2));
        let mine = |shares: &[Share], me| {
            moves(member(me), &members(2), shares, &Counts::new(), |_| 0).take
        };
        assert_eq!(mine(&shares, 2), shards(&[0]));
        assert_eq!(mine(&shares, 1), []);
        shares[1].is_overdue = true;
        assert_eq!(mine(&shares, 2), shards(&[0, 1]));
    }

    #[test]
    fn a_new_pool_asks_until_the_numbers_differ_by_one_at_most() {
        for (count, asked) in [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (7, 3), (100, 50)] {
            let moves =
                moves(member(2), &members(2), &shares(&vec![1; count]), &Counts::new(), |_| 0);
            assert_eq!(moves.ask.len(), asked, "of {count}");
        }
    }

    #[test]
    fn the_shard_that_evens_out_the_backlog_moves() {
        let backlog = |shard: ShardId| [100, 40, 10, 50][shard.index() as usize];
        let moves = moves(member(2), &members(2), &shares(&[1, 1, 1, 1]), &Counts::new(), backlog);
        // 100 to 100, and then 110 to 90.
        assert_eq!(moves.ask, shards(&[0, 2]));
    }

    #[test]
    fn all_is_asked_of_a_pool_that_leaves() {
        let mut members = members(2);
        members.insert(member(1), false);
        let moves = moves(member(2), &members, &shares(&[1, 1, 2]), &Counts::new(), |_| 0);
        assert_eq!(moves.ask, shards(&[0, 1]));
    }

    #[test]
    fn who_has_less_in_all_streams_asks_for_the_one_more_of_this_one() {
        let asked = |mine, theirs| {
            let elsewhere = Counts::from([(member(1), theirs), (member(2), mine)]);
            moves(member(2), &members(2), &shares(&[1, 2, 1]), &elsewhere, |_| 0).ask
        };
        assert_eq!(asked(5, 6), shards(&[0]), "two more in all");
        assert_eq!(asked(5, 5), [], "one more, here");
        assert_eq!(asked(9, 0), [], "less in all");
    }

    #[test]
    fn pools_come_to_even_shares_of_many_streams_whichever_they_consume() {
        // A bit for each pool that consumes a stream, and the stream's shards.
        for streams in [vec![(3, 1); 7], vec![(7, 4); 5], vec![(7, 1), (6, 5), (3, 2), (4, 3)]] {
            let mut owners: Vec<Vec<u64>> = streams
                .iter()
                .map(|(pools, count): &(u32, usize)| {
                    vec![u64::from(pools.trailing_zeros()) + 1; *count]
                })
                .collect();
            let totals: Vec<Totals> = (0..3).map(|_| Totals::default()).collect();
            let mut last = 0;
            for round in 0..50 {
                for (me, totals) in (1..).zip(&totals) {
                    for (index, (pools, _)) in streams.iter().enumerate() {
                        let members: Members = members(3)
                            .into_iter()
                            .filter(|(member, _)| pools >> (member.get() - 1) & 1 == 1)
                            .collect();
                        let (name, shares) = (Arc::from(index.to_string()), shares(&owners[index]));
                        let elsewhere = totals.without(&name);
                        let moves = moves(member(me), &members, &shares, &elsewhere, |_| 0);
                        for shard in &moves.ask {
                            owners[index][shard.index() as usize] = me;
                            last = round;
                        }
                        if members.contains_key(&member(me)) {
                            totals.set(&name, moves.counts);
                        }
                    }
                }
            }
            assert!(last < 10, "{streams:?}: no end of moves");
            let count = |owners: &Vec<u64>, pool| owners.iter().filter(|it| **it == pool).count();
            for ((pools, _), owners) in streams.iter().zip(&owners) {
                let counts = (1..=3).filter(|pool| pools >> (pool - 1) & 1 == 1);
                let counts: Vec<_> = counts.map(|pool| count(owners, pool)).collect();
                assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
            }
            if streams.iter().all(|(pools, _)| *pools == streams[0].0) {
                let pools = (1..=3).filter(|pool| streams[0].0 >> (pool - 1) & 1 == 1);
                let sums = pools.map(|pool| owners.iter().map(|it| count(it, pool)).sum::<usize>());
                let (least, most) = (sums.clone().min().unwrap(), sums.max().unwrap());
                assert!(most - least <= 1, "{owners:?}");
            }
        }
    }

    #[test]
    fn a_pool_that_is_not_there_does_nothing() {
        assert_eq!(
            moves(member(3), &members(2), &shares(&[0]), &Counts::new(), |_| 0),
            Moves::default()
        );
    }

    #[test]
    fn pools_that_decide_one_after_the_other_come_to_even_shares() {
        for (pools, count) in [(2, 4), (3, 4), (3, 8), (5, 23), (7, 7), (4, 2)] {
            let mut owners = vec![1; count];
            for round in 0..20 {
                for me in 1..=pools {
                    let moves =
                        moves(member(me), &members(pools), &shares(&owners), &Counts::new(), |_| 0);
                    for shard in moves.take.iter().chain(&moves.ask) {
                        owners[shard.index() as usize] = me;
                    }
                }
                let counts = (1..=pools).map(|p| owners.iter().filter(|o| **o == p).count());
                let (low, high) = (counts.clone().min().unwrap(), counts.max().unwrap());
                assert!(round < 3 || high - low <= 1, "{pools} pools, {count} shards: {owners:?}");
            }
        }
    }
}
