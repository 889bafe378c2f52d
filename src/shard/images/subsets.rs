//! Every subset of the pages that a power cut takes. Pages are small here and in memory, so that
//! there are many images in little time: recovery looks at each, and has to find every frame that
//! is whole, and no other.

use crate::format::frame::{HEADER_LEN, Header, State, Word, checksum, data_sum, header_bytes};
use crate::format::search::{Image as Bytes, Search};
use crate::format::segment_header::SEGMENT_HEADER_LEN;
use crate::shard::recovery::truth;
use crate::shard::segment::Step;

const PAGE: usize = 64;
const PAGES: u32 = 14;
const FIRST: usize = SEGMENT_HEADER_LEN as usize;
const BASE: u64 = 1 << 20;
const SALT: u32 = 0x5a17;

/// A frame of a segment.
struct Written {
    at: usize,
    next: usize,
    ordinal: u32,
    durable: u64,
    /// The pages that it is in, as bits; those where it has only zeros need not be there.
    pages: u32,
}

/// A segment before the power fails.
struct Segment {
    bytes: Vec<u8>,
    frames: Vec<Written>,
    /// So many pages are on the disk for certain.
    synced: u32,
}

/// The numbers of a xorshift generator.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

impl Segment {
    /// A segment with records of all lengths, some of which imitate a frame.
    fn new(random: &mut Random) -> Self {
        let len = FIRST + PAGES as usize * PAGE;
        let mut segment = Self { bytes: vec![0; len], frames: Vec::new(), synced: 0 };
        let mut at = FIRST;
        let mut durable = BASE + FIRST as u64;
        loop {
            let body = match random.below(8) {
                // What an earlier frame is, header and all.
                0 if at > FIRST => segment.bytes[FIRST..at.min(FIRST + 96)].to_vec(),
                _ => {
                    let len = 3 + random.below(150);
                    (0..len).map(|_| 1 + random.below(255) as u8).collect()
                }
            };
            if random.below(6) == 0 {
                segment.synced = (at - FIRST).div_ceil(PAGE) as u32;
                durable = BASE + at as u64;
            }
            let Some(next) = segment.append(at, &body, durable) else { return segment };
            at = next;
        }
    }

    fn append(&mut self, at: usize, body: &[u8], durable: u64) -> Option<usize> {
        let word = Word::new(State::Published, body.len() as u32);
        let next = at + word.frame_len() as usize;
        let (address, ordinal) = (BASE + at as u64, self.frames.len() as u32);
        let header = Header { address, arrival_ms: 1, key_len: 3, ordinal, durable };
        let (key, data) = (xxhash_rust::xxh3::xxh3_128(&body[..3]), data_sum(&body[3..]));
        let checksum = checksum(SALT, word, header.fields(), key, data);
        let header = header_bytes(word, checksum, header.fields());
        let header_end = at + HEADER_LEN as usize;
        self.bytes.get_mut(at..next)?[..HEADER_LEN as usize].copy_from_slice(&header);
        self.bytes[header_end..header_end + body.len()].copy_from_slice(body);
        let is_in = |page: &u32| {
            let start = FIRST + *page as usize * PAGE;
            let range = start.max(at)..(start + PAGE).min(next);
            !range.is_empty() && self.bytes[range].iter().any(|byte| *byte != 0)
        };
        let pages = (0..PAGES).filter(is_in).map(|page| 1 << page).sum();
        self.frames.push(Written { at, next, ordinal, durable, pages });
        Some(next)
    }

    /// Recovers what is left without some pages.
    fn recover(&self, image: &[u8], lost: u32) {
        let bytes = Bytes { bytes: image, base: BASE, salt: SALT };
        let mut search = Search::default();
        let mut there = self.frames.iter().filter(|frame| frame.pages & lost == 0);
        let mut last: Option<&Written> = None;
        let mut durable = 0;
        let (end, whole_to) = truth(BASE, 0, None, |offset| {
            let expected = there.next();
            match search.next_whole(bytes, offset, image.len() as u32) {
                Some((at, found)) => {
                    let expected = expected.expect("a ghost");
                    assert_eq!(
                        (at as usize, found.header.ordinal),
                        (expected.at, expected.ordinal)
                    );
                    last = Some(expected);
                    durable = durable.max(expected.durable);
                    (at, Step::from(found))
                }
                None => {
                    assert!(expected.is_none(), "a record is lost that is whole");
                    (image.len() as u32, Step::End { frames: None })
                }
            }
        });
        let behind = last.map_or(FIRST, |last| last.next);
        assert_eq!(end.address, BASE + behind as u64);
        assert_eq!(end.frames, last.map_or(0, |last| last.ordinal + 1));
        assert_eq!(end.durable, durable);
        let gap = self.frames.iter().find(|frame| frame.pages & lost != 0);
        let whole = gap.map_or(behind, |gap| gap.at.min(behind));
        assert_eq!(whole_to, BASE + whole as u64, "the first gap");
        let synced =
            self.frames.iter().filter(|frame| frame.next <= FIRST + self.synced as usize * PAGE);
        assert!(synced.clone().all(|frame| frame.pages & lost == 0), "what is synced is there");
    }
}

#[test]
fn every_subset_of_pages_leaves_the_frames_that_are_whole_and_no_others() {
    // The long run has a thousand million.
    let wanted = std::env::var("MILLSTREAM_IMAGES").map_or(50_000, |it| it.parse().unwrap());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut images = 0u64;
    while images < wanted {
        let segment = Segment::new(&mut random);
        let mut image = segment.bytes.clone();
        let mut lost = 0u32;
        for count in 1u32..=1 << (PAGES - segment.synced) {
            segment.recover(&image, lost);
            images += 1;
            // The next subset differs by one page, as in a Gray code.
            let page = segment.synced + count.trailing_zeros();
            if page < PAGES {
                lost ^= 1 << page;
                let range = FIRST + page as usize * PAGE..FIRST + (page as usize + 1) * PAGE;
                let is_lost = lost & 1 << page != 0;
                image[range.clone()].copy_from_slice(&segment.bytes[range.clone()]);
                if is_lost {
                    image[range].fill(0);
                }
            }
        }
    }
}
