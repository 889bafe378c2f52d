//! From segment to segment, around the ring of slots.

use super::*;

/// Two producers put a record each in segments of this many bytes, beside a reader.
fn cross_a_roll(what: &str, bytes: u64) {
    let files = Files::new();
    explore(what, move || {
        let shard = files.shard(bytes);
        let producers = [producer(&shard, [1]), producer(&shard, [2])];
        let mut seen = Vec::new();
        read_on(&shard, start(), &mut seen);
        let placed = producers.map(|producer| producer.join().unwrap());
        check(&shard, &placed, &seen);
    });
}

#[test]
fn two_producers_cross_a_roll() {
    cross_a_roll("two producers over a roll, and a reader", 2 * FRAME);
}

#[test]
fn a_roll_pads_what_is_left_of_a_segment() {
    cross_a_roll("two producers over a roll with a pad", 2 * FRAME + 32);
}

#[test]
fn two_producers_cross_rolls() {
    let files = Files::new();
    explore("two producers over two rolls", move || {
        let shard = files.shard(2 * FRAME + 32);
        let producers = [producer(&shard, [1, 2]), producer(&shard, [3, 4])];
        let placed = producers.map(|producer| producer.join().unwrap());
        check(&shard, &placed, &[]);
    });
}

#[test]
fn slots_are_used_again_while_a_producer_looks_at_an_old_one() {
    let files = Files::new();
    explore("a slow producer while the ring comes around", move || {
        let shard = files.shard(FRAME);
        let slow = producer(&shard, [1]);
        let mut placed = Vec::new();
        for record in [2, 3] {
            placed.push((put(&shard, record).unwrap().address, record));
        }
        check(&shard, &[slow.join().unwrap(), placed], &[]);
    });
}

fn retire(files: &Files) {
    let shard = files.shard(FRAME);
    let producer = producer(&shard, [1, 2]);
    shard.settle().unwrap();
    check(&shard, &[producer.join().unwrap()], &[]);
    shard.settle().unwrap();
    assert!(segment(&shard, 0).end.get().is_some(), "the first segment is sealed");
}

#[test]
fn segments_retire_while_producers_go_on() {
    let files = Files::new();
    explore_some("maintenance beside a producer over two rolls", move || retire(&files));
}

#[test]
#[ignore = "it takes minutes"]
fn segments_retire_while_producers_go_on_in_every_interleaving() {
    let files = Files::new();
    explore("maintenance beside a producer over two rolls", move || retire(&files));
}
