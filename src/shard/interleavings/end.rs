//! Where a segment ends, and where a shard does.

use super::*;
use crate::shard::tail::{Grant, Mark, Tail};

#[test]
fn one_claim_is_told_where_a_segment_ends() {
    explore("claims at the end of a tail", || {
        let tail = Arc::new(Tail::shut());
        tail.open(Mark::new(128, 0, 0));
        let claimer = |units: u32| {
            let tail = Arc::clone(&tail);
            spawn(move || [tail.claim(units, 1), tail.claim(units, 1)])
        };
        let claimers = [(1, claimer(1)), (2, claimer(2))];
        let rest = tail.claim_rest();
        let mut ends = rest.is_some() as u32;
        let mut places = Vec::new();
        for (units, claimer) in claimers {
            for grant in claimer.join().unwrap() {
                match grant {
                    Grant::Place(mark) => places.push((mark, units)),
                    Grant::LastPlace(_) => ends += 1,
                    Grant::Beyond => {}
                }
            }
        }
        assert_eq!(ends, 1, "one is told");
        places.sort_by_key(|(mark, _)| mark.frames());
        let mut next = Mark::new(128, 0, 0);
        for (frames, (mark, units)) in places.into_iter().enumerate() {
            assert_eq!(mark, next, "places follow each other");
            let offset = 128 - mark.remaining().unwrap() + 32 * units;
            next = Mark::new(128, offset, frames as u32 + 1);
        }
        assert!(rest.is_none_or(|rest| rest == next), "the rest is behind them");
        assert_eq!(tail.claim(1, 1), Grant::Beyond);
    });
}

fn end_beside_producers(files: &Files) {
    let shard = files.shard(4 * FRAME);
    let producers = [producer(&shard, [1]), producer(&shard, [2])];
    let end = shard.end().unwrap();
    assert!(matches!(put(&shard, 5), Err(Error::ShardClosed { .. })));
    let seen = all(&shard);
    let placed = producers.map(|producer| producer.join().unwrap());
    check(&shard, &placed, &seen);
    assert_eq!(seen, all(&shard), "everything was published");
    assert_eq!(seen.last().unwrap().0 + FRAME, end, "the end is where the last record ends");
}

#[test]
fn nothing_is_granted_after_the_end_of_a_shard() {
    let files = Files::new();
    explore_some("the end of a shard beside two producers", move || end_beside_producers(&files));
}

#[test]
#[ignore = "it takes minutes"]
fn nothing_is_granted_after_the_end_of_a_shard_in_every_interleaving() {
    let files = Files::new();
    explore("the end of a shard beside two producers", move || end_beside_producers(&files));
}

#[test]
fn a_shard_ends_while_a_producer_rolls() {
    let files = Files::new();
    explore("the end of a shard beside a roll", move || {
        let shard = files.shard(FRAME);
        let producer = producer(&shard, [1, 2]);
        let end = shard.end().unwrap();
        let seen = all(&shard);
        let placed = producer.join().unwrap();
        assert!(placed.iter().all(|(address, _)| address + FRAME <= end));
        check(&shard, &[placed], &seen);
        assert_eq!(seen, all(&shard), "everything was published");
        shard.reopen().unwrap();
        assert!(put(&shard, 3).unwrap().address >= end);
    });
}
