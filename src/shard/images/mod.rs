//! Recovery, case by case: each test makes the files that a crash could have left, and opens them.

mod power_cut;
mod subsets;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::format::frame::{HEADER_LEN, State, Word};
use crate::format::segment_header::{MAX_RECOVERED, SEAL_AT, SEAL_LEN, SegmentHeader};
use crate::position::ShardId;
use crate::record::{Key, Limit};
use crate::shard::cursor::Place;
use crate::shard::horizon::Horizon;
use crate::shard::index::Index;
use crate::shard::segment::file_name;
use crate::shard::{Log, Shard, recovery};

const PAGE: usize = 4096;
/// A segment of ten pages, of which nine have frames.
const SEGMENT: u64 = 10 * PAGE as u64;
const STREAM: u64 = 0x5712;

/// The files of a shard.
struct Image(TempDir);

/// A record: its number, and the checksum of what is in it.
type Known = (u64, u32);

impl Image {
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let directory =
            if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Self(directory.unwrap())
    }

    fn log(&self) -> Log {
        Log {
            shard: ShardId::new(3),
            stream: STREAM,
            directory: self.0.path().to_owned(),
            start: 0,
            max_segment_bytes: SEGMENT,
            room: Arc::default(),
            horizon: Horizon::default(),
            index: Index::default(),
        }
    }

    fn open(&self) -> Result<Shard> {
        Shard::open(self.log())
    }

    /// As it is at this moment: what the next process would find after a kill.
    fn copy(&self) -> Self {
        let copy = Self::new();
        for name in self.names() {
            fs::copy(self.path(&name), copy.path(&name)).unwrap();
        }
        copy
    }

    fn names(&self) -> Vec<String> {
        crate::os::fs::list(self.0.path()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The file of the segment with this base.
    fn segment(&self, base: u64) -> PathBuf {
        self.path(&file_name(base))
    }

    /// Changes the file of a segment.
    fn change(&self, base: u64, change: impl FnOnce(&mut [u8])) {
        let mut bytes = fs::read(self.segment(base)).unwrap();
        change(&mut bytes);
        fs::write(self.segment(base), bytes).unwrap();
    }
}

/// Appends a record of so many bytes that are like no other's.
fn append(shard: &Shard, len: usize) -> Known {
    // An own pattern for each call, so that a ghost would be recognised.
    let unique = crate::os::random().to_le_bytes();
    let data: Vec<u8> = unique.iter().copied().cycle().take(len).collect();
    let appended = shard.append(Key::new("key"), &data, 1).unwrap();
    (appended.address, crc32fast::hash(&data))
}

/// Everything that a shard has.
fn read(shard: &Shard) -> Result<Vec<Known>> {
    let mut place = Place { address: 0, segment: None };
    let mut known = Vec::new();
    loop {
        let reading = shard.read(&place, Limit::default())?;
        if reading.records.is_empty() {
            return Ok(known);
        }
        known.extend(reading.records.iter().map(|record| {
            (record.sequence_number().address().unwrap(), crc32fast::hash(record.data()))
        }));
        place = reading.next;
    }
}

/// Opens an image again and again: each time the same records are there; they are some of those
/// that were put, with all of the `kept` ones; and what is appended goes on above all numbers.
#[track_caller]
fn recovers(image: &Image, put: &[Known], kept: &[Known]) -> Vec<Known> {
    let first = read(&image.open().unwrap()).unwrap();
    let is_put = |record: &Known| put.contains(record);
    assert!(first.iter().all(is_put), "a ghost");
    assert!(first.is_sorted_by(|a, b| a.0 < b.0), "out of order");
    let is_lost = |record: &&Known| !first.contains(record);
    assert_eq!(kept.iter().filter(is_lost).map(|record| record.0).collect::<Vec<_>>(), [0; 0]);
    // Cut off in the middle of recovery, or just behind it.
    let again = image.copy();
    assert_eq!(read(&again.open().unwrap()).unwrap(), first);

    let shard = image.open().unwrap();
    let new = append(&shard, 100);
    let highest = put.iter().map(|record| record.0).max().unwrap_or(0);
    assert!(put.is_empty() || new.0 > highest, "{} is used again", new.0);
    let expected: Vec<_> = first.iter().cloned().chain([new]).collect();
    assert_eq!(read(&shard).unwrap(), expected);
    // A reader in another process sees the same; so does the next one after a kill and a close.
    assert_eq!(read(&Shard::open_read_only(image.log()).unwrap()).unwrap(), expected);
    let killed = image.copy();
    assert_eq!(read(&killed.open().unwrap()).unwrap(), expected);
    shard.close().unwrap();
    assert_eq!(read(&image.open().unwrap()).unwrap(), expected);
    first
}

/// A shard that was killed with these records in its first segment.
fn killed(lens: &[usize]) -> (Image, Vec<Known>) {
    let image = Image::new();
    let shard = image.open().unwrap();
    let put = lens.iter().map(|len| append(&shard, *len)).collect();
    (image.copy(), put)
}

fn frame(put: &[Known], which: usize) -> Range<usize> {
    put[which].0 as usize..put[which + 1].0 as usize
}

#[test]
fn a_producer_that_outruns_the_disk_leaves_no_more_than_a_header_can_tell_of() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let put: Vec<_> = (0..2 * MAX_RECOVERED).map(|_| append(&shard, 5 * PAGE)).collect();
    let killed = image.copy();
    let left = recovery::survey(&killed.log()).unwrap();
    assert_eq!(left.len(), put.len());
    assert_eq!(left.iter().filter(|found| found.seal.is_none()).count(), MAX_RECOVERED);
    assert_eq!(read(&killed.open().unwrap()).unwrap(), put);
}

#[test]
fn finished_ends_where_the_seal_says() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let put: Vec<_> = (0..100).map(|_| append(&shard, 1000)).collect();
    shard.settle().unwrap();
    assert!(image.names().len() > 2);
    recovers(&image.copy(), &put, &put);
}

#[test]
fn clean_end_goes_on_in_the_same_segment() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let put: Vec<_> = (0..10).map(|_| append(&shard, 100)).collect();
    shard.close().unwrap();
    drop(shard);
    let image = image.copy();
    recovers(&image, &put, &put);
    assert_eq!(image.names(), [file_name(0)]);
}

#[test]
fn clean_end_with_the_next_segment_still_there_hides_nothing() {
    // The spare is removed before the seal is durable; a power cut may bring it back.
    let image = Image::new();
    let shard = image.open().unwrap();
    let put: Vec<_> = (0..25).map(|_| append(&shard, 1000)).collect();
    shard.prepare().unwrap();
    let spare = fs::read(image.segment(SEGMENT)).unwrap();
    shard.close().unwrap();
    let image = image.copy();
    fs::write(image.segment(SEGMENT), spare).unwrap();
    recovers(&image, &put, &put);
}

#[test]
fn known_ends_where_a_later_segment_says() {
    let (image, put) = killed(&[100; 10]);
    image.change(0, |bytes| bytes[frame(&put, 5)].fill(0));
    let shard = image.open().unwrap();
    let new = append(&shard, 100);
    let all: Vec<_> = put.iter().cloned().chain([new]).collect();
    let kept: Vec<_> = all.iter().filter(|record| record.0 != put[5].0).cloned().collect();
    recovers(&image.copy(), &all, &kept);
}

#[test]
fn killed_before_a_claims_word_leaves_a_hole_of_zeros() {
    for hole in [0..1, 3..4, 3..6, 8..9] {
        let (image, put) = killed(&[100, 5000, 40, 100, 1, 2000, 100, 300, 9, 10]);
        image
            .change(0, |bytes| bytes[put[hole.start].0 as usize..put[hole.end].0 as usize].fill(0));
        let kept: Vec<_> = (0..10).filter(|n| !hole.contains(n)).map(|n| put[n]).collect();
        assert_eq!(recovers(&image, &put, &kept), kept, "{hole:?}");
    }
}

#[test]
fn killed_after_a_claims_word_leaves_a_hole_of_known_length() {
    for (hole, written) in [(0, 0), (3, 50), (3, 132), (8, 20)] {
        let (image, put) = killed(&[100, 5000, 40, 100, 1, 2000, 100, 300, 9, 10]);
        image.change(0, |bytes| {
            let hole = &mut bytes[frame(&put, hole)];
            let word = Word::new(State::Reserved, hole.len() as u32 - HEADER_LEN);
            let written = written.min(hole.len());
            hole[written..].fill(0);
            hole[..4].copy_from_slice(&word.0.to_le_bytes());
        });
        let kept: Vec<_> = (0..10).filter(|n| *n != hole).map(|n| put[n]).collect();
        assert_eq!(recovers(&image, &put, &kept), kept, "{hole}");
    }
}

#[test]
fn a_torn_frame_is_skipped_wherever_it_is_torn() {
    let (sound, put) = killed(&[100, 10, 200, 50]);
    // No record depends on the zeros behind key and data.
    let covered = |n: usize, len| frame(&put, n).take(HEADER_LEN as usize + 3 + len);
    for at in covered(1, 10).chain(covered(2, 200)) {
        let image = sound.copy();
        image.change(0, |bytes| bytes[at] ^= 0x81);
        let torn = if frame(&put, 1).contains(&at) { 1 } else { 2 };
        let kept: Vec<_> = (0..4).filter(|n| *n != torn).map(|n| put[n]).collect();
        assert_eq!(recovers(&image, &put, &kept), kept, "byte {at}");
    }
}

#[test]
fn a_segment_that_was_cut_at_any_byte_keeps_what_is_before() {
    let (sound, put) = killed(&[100, 10, 200, 50, 0]);
    let end = put[4].0 as usize + 64;
    for cut in PAGE..=end {
        let image = sound.copy();
        image.change(0, |bytes| bytes[cut..].fill(0));
        let is_kept = |n: &usize| put.get(n + 1).map_or(end, |next| next.0 as usize) <= cut;
        let kept: Vec<_> = (0..5).filter(is_kept).map(|n| put[n]).collect();
        let there = recovers(&image, &put, &kept);
        // What ends in zeros is whole without them.
        assert!(there.len() <= kept.len() + 1, "cut at {cut}");
    }
}

#[test]
fn never_used_segments_keep_their_numbers() {
    let (image, put) = killed(&[100]);
    image.change(0, |bytes| bytes[PAGE..].fill(0));
    assert_eq!(recovers(&image, &put, &[]), []);
}

#[test]
fn a_second_crash_before_the_first_new_record_forgets_nothing() {
    let (image, put) = killed(&[100; 10]);
    image.change(0, |bytes| bytes[frame(&put, 5)].fill(0));
    let kept: Vec<_> = put.iter().filter(|record| record.0 != put[5].0).cloned().collect();
    for _ in 0..3 {
        // The segment that tells of the first one is made, and nothing gets into it.
        let shard = image.open().unwrap();
        let base = append(&shard, 100).0 / SEGMENT * SEGMENT;
        drop(shard);
        image.change(base, |bytes| bytes[PAGE..].fill(0));
        let all: Vec<_> = put.iter().cloned().chain([(base, 0)]).collect();
        recovers(&image.copy(), &all, &kept);
    }
}

#[test]
fn a_resumed_segment_keeps_what_was_there_before() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let mut put: Vec<_> = (0..5).map(|_| append(&shard, 500)).collect();
    shard.close().unwrap();
    let kept = put.clone();
    let shard = image.open().unwrap();
    put.extend((0..5).map(|_| append(&shard, 500)));
    recovers(&image.copy(), &put, &put);
    for lost in put[5].0 as usize..put[9].0 as usize {
        if lost % 97 == 0 {
            let image = image.copy();
            image.change(0, |bytes| bytes[lost..].fill(0));
            recovers(&image, &put, &kept);
        }
    }
}

#[test]
fn what_was_whole_after_a_kill_is_damaged_when_it_changes_later() {
    let (image, put) = killed(&[100; 10]);
    let shard = image.open().unwrap();
    append(&shard, 100);
    shard.close().unwrap();
    image.change(0, |bytes| bytes[put[4].0 as usize + 40] ^= 1);
    let read = read(&image.open().unwrap());
    assert!(matches!(read, Err(Error::Corrupt { offset, .. }) if offset == put[4].0));
}

#[test]
fn a_segment_of_another_shard_stream_or_place_is_refused() {
    let (sound, _) = killed(&[100; 10]);
    let change = |change: fn(&mut SegmentHeader)| {
        let image = sound.copy();
        image.change(0, |bytes| {
            let mut header = SegmentHeader::decode(bytes).unwrap();
            change(&mut header);
            bytes[..SEAL_AT as usize].copy_from_slice(&header.encode()[..SEAL_AT as usize]);
        });
        image.open()
    };
    let changes: [fn(&mut SegmentHeader); 6] = [
        |header| header.stream += 1,
        |header| header.shard += 1,
        |header| header.base += SEGMENT,
        |header| header.capacity += 4096,
        |header| header.capacity = 33,
        |header| header.base = u64::MAX - 4095,
    ];
    for a_change in changes {
        assert!(matches!(change(a_change), Err(Error::Corrupt { .. })));
    }
    let image = sound.copy();
    fs::copy(image.segment(0), image.segment(SEGMENT)).unwrap();
    assert!(matches!(image.open(), Err(Error::Corrupt { .. })));
}

#[test]
fn frames_of_an_older_life_of_the_file_do_not_come_back() {
    let (image, put) = killed(&[100; 10]);
    image.change(0, |bytes| {
        let mut header = SegmentHeader::decode(bytes).unwrap();
        header.salt ^= 1;
        bytes[..SEAL_AT as usize].copy_from_slice(&header.encode()[..SEAL_AT as usize]);
    });
    assert_eq!(recovers(&image, &put, &[]), []);
}

#[test]
fn a_seal_that_was_half_written_is_none() {
    let image = Image::new();
    let shard = image.open().unwrap();
    let put: Vec<_> = (0..10).map(|_| append(&shard, 100)).collect();
    let before = fs::read(image.segment(0)).unwrap();
    shard.close().unwrap();
    let sealed = fs::read(image.segment(0)).unwrap();
    for cut in 1..SEAL_LEN {
        let torn = image.copy();
        let seal = SEAL_AT as usize..(SEAL_AT + cut) as usize;
        torn.change(0, |bytes| {
            bytes.copy_from_slice(&before);
            bytes[seal.clone()].copy_from_slice(&sealed[seal]);
        });
        recovers(&torn, &put, &put);
    }
}
