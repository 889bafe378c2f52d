//! More threads, and more of what a shard does at once, than can be tried in every interleaving.

use super::*;
use crate::os::signal::Event;
use crate::os::sync::yield_now;

/// A producer that has each of its records synced.
fn syncing_producer<const N: usize>(
    shard: &Arc<Shard>,
    records: [Record; N],
) -> JoinHandle<Vec<(u64, Record)>> {
    let shard = Arc::clone(shard);
    spawn(move || {
        let put_synced = |record| {
            let appended = put(&shard, record).unwrap();
            shard.sync_to(appended.end).unwrap();
            assert!(is_durable_to(&shard, appended.end), "all before it is durable");
            (appended.address, record)
        };
        records.map(put_synced).to_vec()
    })
}

/// Whether every frame below is on the disk.
fn is_durable_to(shard: &Shard, end: u64) -> bool {
    let mut at = 0;
    while at < end {
        let segment = segment(shard, at);
        let last = end.min(segment.limit()) - segment.header.base;
        if !segment.map.is_synced_to(last as usize) {
            return false;
        }
        at = segment.limit();
    }
    true
}

/// Reads until it has seen so many records or more; sleeps when there is nothing.
fn sleeping_reader(shard: &Arc<Shard>, count: usize) -> JoinHandle<Vec<(u64, Record)>> {
    let shard = Arc::clone(shard);
    spawn(move || {
        let (event, mut place, mut seen) = (Arc::new(Event::default()), start(), Vec::new());
        loop {
            shard.listen(&event);
            place = read_on(&shard, place, &mut seen).next;
            if seen.len() >= count {
                return seen;
            }
            if shard.is_claimed_behind(&place) {
                yield_now();
            } else {
                event.wait_for(std::time::Duration::MAX);
            }
        }
    })
}

/// What is done behind the producers' backs, so many times.
fn maintenance(shard: &Arc<Shard>, times: u32) -> JoinHandle<()> {
    let shard = Arc::clone(shard);
    spawn(move || {
        for _ in 0..times {
            let writer = shard.writer().unwrap();
            writer.prepare(&shard.log).unwrap();
            shard.settle().unwrap();
        }
    })
}

#[test]
fn producers_who_sync_roll_while_readers_sleep_and_segments_are_sealed() {
    let files = Files::new();
    explore("four producers, two of whom sync, two readers, maintenance", move || {
        let shard = files.shard(2 * FRAME + 32);
        let readers = [sleeping_reader(&shard, 10), sleeping_reader(&shard, 4)];
        let maintenance = maintenance(&shard, 3);
        let producers = [
            syncing_producer(&shard, [1, 2]),
            syncing_producer(&shard, [3, 4]),
            producer(&shard, [5, 6, 7]),
            producer(&shard, [8, 9]),
        ];
        let placed = producers.map(|producer| producer.join().unwrap());
        maintenance.join().unwrap();
        for reader in readers {
            check(&shard, &placed, &reader.join().unwrap());
        }
    });
}

#[test]
fn a_shard_ends_among_many() {
    let files = Files::new();
    explore("the end of a shard beside four producers and maintenance", move || {
        let shard = files.shard(2 * FRAME);
        let producers = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]];
        let producers = producers.map(|records| producer(&shard, records));
        let maintenance = maintenance(&shard, 2);
        let end = shard.end().unwrap();
        let seen = all(&shard);
        let placed = producers.map(|producer| producer.join().unwrap());
        assert!(placed.iter().flatten().all(|(address, _)| address + FRAME <= end));
        maintenance.join().unwrap();
        check(&shard, &placed, &seen);
        assert_eq!(seen, all(&shard), "everything was published");
    });
}
