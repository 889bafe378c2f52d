//! Append: what the holder of a claim does, write and publish.

use crate::format::frame::{self, CHECKSUM_AT, DataSum, HEADER_LEN, Header, State, Word};
use crate::os::mmap::Window;
use crate::os::sync::atomic::Ordering;
use crate::record::Key;
use crate::seeded::bug;

/// A record longer than this is copied in pieces of this size, each one checksummed while it is in
/// the cache: a copy of 2 KiB and more is many times slower for some distances between source and
/// destination, a whole one would be read from memory twice.
const PIECE: usize = 2048 - 64;
/// How far ahead of a frame the cache lines are fetched for the frames to come. A claim waits until
/// all earlier stores of its core are done, so a line that is not there yet stops the producer.
const FETCHED_AHEAD: usize = 2048;
/// Of a longer frame not more is fetched: copying it fetches the rest as fast.
const MAX_FETCHED: usize = 4096;

/// Where a record's data comes from.
pub(crate) trait Fill {
    /// Puts the data in its place, which holds zeros, and says its sum.
    fn fill(self, place: &mut [u8]) -> u32;
}

/// Data that is copied.
pub(crate) struct Copied<'a> {
    data: &'a [u8],
    /// The sum of data that are not copied in pieces. It is taken before there is a claim: what is
    /// behind a claim waits for it.
    sum: Option<u32>,
}

impl<'a> Copied<'a> {
    #[inline]
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, sum: (data.len() <= PIECE).then(|| frame::data_sum(data)) }
    }
}

impl Fill for Copied<'_> {
    #[inline]
    fn fill(self, place: &mut [u8]) -> u32 {
        if let Some(sum) = self.sum {
            place.copy_from_slice(self.data);
            return sum;
        }
        let mut sum = DataSum::new(self.data.len() as u32);
        for (piece, place) in self.data.chunks(PIECE).zip(place.chunks_mut(PIECE)) {
            place.copy_from_slice(piece);
            sum.add(piece);
        }
        sum.finish()
    }
}

/// Data that is made in place.
pub(crate) struct InPlace<F>(pub(crate) F);

impl<F: FnOnce(&mut [u8])> Fill for InPlace<F> {
    fn fill(self, place: &mut [u8]) -> u32 {
        self.0(place);
        frame::data_sum(place)
    }
}

/// What is left in the place of data that nobody made.
struct Leftovers;

impl Fill for Leftovers {
    fn fill(self, place: &mut [u8]) -> u32 {
        frame::data_sum(place)
    }
}

/// A place for frames that is the holder's alone. What is not published when it is dropped is
/// published as void, so that nobody waits for it.
#[derive(Debug)]
pub(crate) struct Claim(pub(super) Claimed);

/// What a claim got, and what is left of it.
#[derive(Clone, Debug)]
pub(super) struct Claimed {
    pub(super) window: Window,
    pub(super) base: u64,
    pub(super) salt: u32,
    /// Where the next frame goes.
    pub(super) offset: u32,
    /// Where the claimed place ends.
    pub(super) end: u32,
    pub(super) ordinal: u32,
    /// The claim has reached the place where somebody should see to the pages that come next.
    pub(super) maintain: bool,
    /// Somebody sleeps until it is published.
    pub(super) is_awaited: bool,
}

impl Claim {
    /// The address of the next frame.
    #[inline]
    pub(crate) fn address(&self) -> u64 {
        self.0.address()
    }

    /// The address behind the claimed place.
    #[inline]
    pub(crate) fn end_address(&self) -> u64 {
        self.0.base + u64::from(self.0.end)
    }

    /// Whether this claim is the one that asks for maintenance.
    #[inline]
    pub(crate) fn asks_for_maintenance(&self) -> bool {
        self.0.maintain
    }

    /// Whether somebody is to be woken when it is published.
    #[inline]
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.is_awaited
    }

    /// Writes the next frame and publishes it: its address.
    #[inline]
    pub(crate) fn publish(
        &mut self,
        key: Key<'_>,
        data_len: usize,
        arrival_ms: u64,
        durable: u64,
        data: impl Fill,
    ) -> u64 {
        self.0.publish(key, data_len, arrival_ms, durable, data)
    }
}

impl Claimed {
    /// The address of the next frame.
    #[inline]
    pub(super) fn address(&self) -> u64 {
        self.base + u64::from(self.offset)
    }

    #[inline]
    fn publish(
        &mut self,
        key: Key<'_>,
        data_len: usize,
        arrival_ms: u64,
        durable: u64,
        data: impl Fill,
    ) -> u64 {
        let address = self.address();
        self.reserve();
        let ahead = self.offset as usize + FETCHED_AHEAD;
        self.window.prefetch(ahead, ahead + (key.text.len() + data_len + 32).min(MAX_FETCHED));
        let word = Word::new(State::Published, (key.text.len() + data_len) as u32);
        let (key_len, ordinal) = (key.text.len() as u16, self.ordinal);
        let header = Header { address, arrival_ms, key_len, ordinal, durable };
        self.write(word, header, key, data);
        self.release(word, 1);
        address
    }

    /// Writes everything of a frame but its word.
    #[inline]
    fn write(&self, word: Word, header: Header, key: Key<'_>, data: impl Fill) {
        let fields = header.fields();
        let at = (self.offset + CHECKSUM_AT) as usize;
        let len = (HEADER_LEN - CHECKSUM_AT + word.len()) as usize;
        self.window.with_bytes(at, len, |bytes| {
            let (front, body) = bytes.split_at_mut((HEADER_LEN - CHECKSUM_AT) as usize);
            let (crc, places) = front.split_at_mut(4);
            for (place, field) in places.chunks_exact_mut(8).zip(fields) {
                place.copy_from_slice(&field.to_le_bytes());
            }
            let (key_place, data_place) = body.split_at_mut(key.text.len());
            key_place.copy_from_slice(key.text.as_bytes());
            let data_sum = data.fill(data_place);
            let checksum = frame::checksum(self.salt, word, fields, key.xxh3, data_sum);
            crc.copy_from_slice(&checksum.to_le_bytes());
        });
    }

    /// Says how much is claimed from here on: a producer that is killed leaves a hole of known
    /// length.
    #[inline]
    fn reserve(&self) {
        let word = Word::new(State::Reserved, self.end - self.offset - HEADER_LEN);
        self.window.word(self.offset as usize).store(word.0, Ordering::Release);
    }

    /// Publishes the frame at `offset`, which is written, and goes on behind it.
    #[inline]
    fn release(&mut self, word: Word, frames: u32) {
        let is_relaxed = bug("relaxed_publish");
        let order = if is_relaxed { Ordering::Relaxed } else { Ordering::Release };
        self.window.word(self.offset as usize).store(word.0, order);
        self.offset += word.frame_len();
        self.ordinal += frames;
    }

    /// Publishes a frame without a record, for so many claimed frames.
    pub(super) fn fill_rest(&mut self, state: State, len: u32, frames: u32) {
        let word = Word::new(state, len);
        let header = Header {
            address: self.address(),
            arrival_ms: u64::from(frames),
            key_len: 0,
            ordinal: self.ordinal,
            durable: 0,
        };
        self.write(word, header, Key::new(""), Leftovers);
        self.release(word, frames);
    }

    /// Publishes what is left as void: one frame stands for all of it. By value, so that a claim
    /// that nobody gives up can stay in registers.
    #[cold]
    fn give_up(mut self) {
        self.fill_rest(State::Void, self.end - self.offset - HEADER_LEN, 1);
    }
}

impl Drop for Claim {
    #[inline]
    fn drop(&mut self) {
        if self.0.offset < self.0.end {
            // Whoever filled the place in panicked.
            self.0.clone().give_up();
        }
    }
}
