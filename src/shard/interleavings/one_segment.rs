//! Claim, write and publish, without a roll.

use super::*;

#[test]
fn two_producers_and_a_reader_agree_on_one_segment() {
    let files = Files::new();
    explore("two producers of two records, and a reader", move || {
        let shard = files.shard(5 * FRAME);
        let producers = [producer(&shard, [1, 2]), producer(&shard, [3, 4])];
        let mut seen = Vec::new();
        let reading = read_on(&shard, start(), &mut seen);
        read_on(&shard, reading.next, &mut seen);
        let placed = producers.map(|producer| producer.join().unwrap());
        check(&shard, &placed, &seen);
    });
}

#[test]
fn batches_stay_together() {
    let files = Files::new();
    explore("a batch beside a producer, and a reader", move || {
        let shard = files.shard(5 * FRAME);
        let other = producer(&shard, [3, 4]);
        let batch = {
            let shard = Arc::clone(&shard);
            spawn(move || {
                let mut placed = Vec::new();
                let records: [(Key<'_>, &[u8]); 2] = [(Key::new("k"), &[1, !1]); 2];
                shard
                    .append_batch(records.into_iter(), 1, |at| placed.push((at.address, 1)))
                    .unwrap();
                placed
            })
        };
        let mut seen = Vec::new();
        read_on(&shard, start(), &mut seen);
        let placed = [batch.join().unwrap(), other.join().unwrap()];
        assert_eq!(placed[0][0].0 + FRAME, placed[0][1].0);
        check(&shard, &placed, &seen);
    });
}
