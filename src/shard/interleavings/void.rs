//! Claims that are given up.

use super::*;
use crate::os::signal::Event;
use crate::os::sync::yield_now;
use crate::shard::append::Copied;

/// Claims places for two records, puts one, and gives up the other as a panic does.
fn put_and_give_up(shard: &Arc<Shard>, record: Record) -> JoinHandle<Vec<(u64, Record)>> {
    let shard = Arc::clone(shard);
    spawn(move || {
        let writer = shard.writer().unwrap();
        let claim = writer.claim(&shard.log, 2 * FRAME as u32, 2).unwrap();
        let _wake = writer.wake_after(&claim);
        let mut claim = claim;
        let data = [record, !record];
        let place = claim.publish(Key::new("k"), 2, u64::from(record), 0, Copied::new(&data));
        vec![(place, record)]
    })
}

#[test]
fn a_record_that_cannot_be_made_is_not_seen_and_in_nobodys_way() {
    let files = Files::new();
    explore("a void beside a producer, and a reader", move || {
        let shard = files.shard(5 * FRAME);
        let producers = [put_and_give_up(&shard, 1), producer(&shard, [2])];
        let mut seen = Vec::new();
        read_on(&shard, start(), &mut seen);
        check(&shard, &producers.map(|producer| producer.join().unwrap()), &seen);
    });
}

fn sleep_behind_a_void(files: &Files) {
    let shard = files.shard(5 * FRAME);
    let producers = [put_and_give_up(&shard, 1), producer(&shard, [2])];
    let (event, mut place, mut seen) = (Arc::new(Event::default()), start(), Vec::new());
    loop {
        shard.listen(&event);
        place = read_on(&shard, place, &mut seen).next;
        if seen.len() == 3 {
            break;
        }
        if shard.is_claimed_behind(&place) {
            yield_now();
        } else {
            event.wait_for(std::time::Duration::MAX);
        }
    }
    check(&shard, &producers.map(|producer| producer.join().unwrap()), &seen);
}

#[test]
fn a_void_wakes_who_waits_for_what_is_behind_it() {
    let files = Files::new();
    explore_some("a void beside a producer, and a sleeper", move || sleep_behind_a_void(&files));
}

#[test]
#[ignore = "it takes hours"]
fn a_void_wakes_who_waits_for_what_is_behind_it_in_every_interleaving() {
    let files = Files::new();
    explore("a void beside a producer, and a sleeper", move || sleep_behind_a_void(&files));
}
