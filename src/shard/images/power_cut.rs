//! What a power cut leaves: any pages that were not synced are missing, in any combination.

use super::*;

/// All subsets of the pages that have frames, lost. What was acknowledged by a sync at `synced`
/// records is in pages that were durable.
fn lost_pages(synced: usize) {
    let image = Image::new();
    let shard = image.open().unwrap();
    let lens = [1000, 100, 5000, 3000, 40, 9000, 2000, 500, 4000, 300, 1200];
    let mut put: Vec<_> = lens[..synced].iter().map(|len| append(&shard, *len)).collect();
    shard.flush().unwrap();
    let durable = shard.tip().unwrap().place.address.max(PAGE as u64) as usize;
    put.extend(lens[synced..].iter().map(|len| append(&shard, *len)));
    let kept = put[..synced].to_vec();
    let sound = image.copy();
    assert_eq!(sound.names(), [file_name(0)], "it all fits in one segment");
    for lost in 0u32..1 << 9 {
        let image = sound.copy();
        image.change(0, |bytes| {
            for page in (1..10).filter(|page| lost & 1 << (page - 1) != 0) {
                // Of a page that was durable in part, what came later is lost.
                let from = (page * PAGE).max(durable).min((page + 1) * PAGE);
                bytes[from..(page + 1) * PAGE].fill(0);
            }
        });
        recovers(&image, &put, &kept);
    }
}

#[test]
fn any_pages_that_a_power_cut_takes_leave_a_shard_that_goes_on() {
    lost_pages(0);
}

#[test]
fn no_pages_that_a_power_cut_takes_have_what_was_synced() {
    for synced in [1, 4, 8, 11] {
        lost_pages(synced);
    }
}

#[test]
fn lost_pages_over_several_segments_lose_nothing_that_was_synced() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let mut put: Vec<_> = (0..30).map(|_| append(&shard, 3000)).collect();
    shard.flush().unwrap();
    let kept = put.clone();
    put.extend((0..30).map(|_| append(&shard, 3000)));
    let sound = image.copy();
    let bases: Vec<u64> = (0..).map(|n| n * SEGMENT).take(sound.names().len()).collect();
    let durable = put[30].0;
    for lost in 0..200u64 {
        let image = sound.copy();
        for base in &bases {
            image.change(*base, |bytes| {
                for page in 1..10u64 {
                    let start = base + page * PAGE as u64;
                    // Any pattern will do; each image has another one.
                    let is_lost = (start * 0x9e37_79b9 + lost * 0x85eb_ca6b) >> 13 & 1 == 1;
                    if is_lost && start >= durable {
                        bytes[page as usize * PAGE..][..PAGE].fill(0);
                    }
                }
            });
        }
        recovers(&image, &put, &kept);
    }
}

#[test]
fn a_header_that_was_half_written_has_no_name_yet() {
    let (sound, put) = killed(&[3000; 12]);
    let last = sound.names().pop().unwrap();
    let whole = fs::read(sound.path(&last)).unwrap();
    for len in [0, 1, 100, 2048, PAGE - 1, PAGE, PAGE + 1, whole.len()] {
        let image = sound.copy();
        fs::write(image.path("00000000000000999424.new"), &whole[..len]).unwrap();
        // And one that is in the way of the segment that comes next.
        fs::write(image.path(&file_name(2 * SEGMENT).replace("seg", "new")), &whole[..len])
            .unwrap();
        recovers(&image, &put, &put);
    }
}

#[test]
fn a_crash_during_a_roll_with_or_without_the_next_segment_loses_nothing() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let mut put: Vec<_> = (0..7).map(|_| append(&shard, 3000)).collect();
    shard.prepare().unwrap();
    // The spare is there and empty.
    recovers(&image.copy(), &put, &put);
    // The claim that crosses the end has padded, and nothing is in the spare.
    put.extend((0..5).map(|_| append(&shard, 3000)));
    let first: Vec<_> = put.iter().filter(|record| record.0 < SEGMENT).cloned().collect();
    let empty = image.copy();
    empty.change(SEGMENT, |bytes| bytes[PAGE..].fill(0));
    recovers(&empty, &put, &first);
    // The spare was lost with its name: its numbers were not given out then.
    let absent = image.copy();
    fs::remove_file(absent.segment(SEGMENT)).unwrap();
    recovers(&absent, &first, &first);
}
