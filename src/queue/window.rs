//! The records of a shard that were read and are not all done: a slot for each, from the first one
//! that is not done to the last one read.
//!
//! Slots come by pages. A page of which all is done has none any more: it takes a few bytes,
//! however long a record before it stays.

use std::collections::VecDeque;

use crate::format::queue_entry::{Known, Until};

/// How many slots a page has.
const PAGE: u64 = 256;
/// How many pages that are not all done a window has at most: a million records.
const MAX_OPEN_PAGES: usize = 4096;

/// Names a slot: one more for each record that was read.
pub(super) type Index = u64;

/// A record that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) address: u64,
    /// Until when nobody gets it, in milliseconds since 1970, if it is in flight or delayed.
    pub(super) until_ms: u64,
    /// What its key is known by, if that matters.
    pub(super) key: u64,
    /// How often it was received.
    pub(super) receives: u16,
    pub(super) state: State,
}

/// How it is with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Whoever asks next gets it.
    Ready,
    /// Another record of its key comes first.
    Waiting,
    InFlight,
    Delayed,
    /// It is about to be given to a consumer, or put aside as a dead letter.
    Found,
    Done,
}

#[derive(Debug, Default)]
struct Page {
    /// The numbers of the first and the last record.
    first: u64,
    last: u64,
    /// How many are not done.
    open: u32,
    /// None: there are as many as a page has, and all are done.
    slots: Vec<Slot>,
}

/// The slots of a shard.
#[derive(Debug, Default)]
pub(super) struct Window {
    pages: VecDeque<Page>,
    /// The index of the first slot of the first page.
    base: Index,
    /// The index of the first slot that is not done; of the next one, if all are.
    front: Index,
    /// The index of the next slot.
    next: Index,
    open_pages: usize,
    /// The number of the last record before the front, if one was read.
    through: Option<u64>,
}

impl Window {
    /// The number of the last record before all that are not done.
    pub(super) fn through(&self) -> Option<u64> {
        self.through
    }

    /// Whether all that was read is done.
    pub(super) fn is_done(&self) -> bool {
        self.front == self.next
    }

    /// Whether nothing more is to be read before something is done.
    pub(super) fn is_full(&self) -> bool {
        self.open_pages >= MAX_OPEN_PAGES
    }

    /// The numbers of the first record that is not done, and of the last one that was read.
    pub(super) fn ends(&self) -> Option<(u64, u64)> {
        let at = self.front - self.base;
        let first = self.pages.get((at / PAGE) as usize)?.slots.get((at % PAGE) as usize)?;
        Some((first.address, self.pages.back()?.last))
    }

    /// Adds the next record.
    pub(super) fn push(&mut self, slot: Slot) -> Index {
        let index = self.next;
        if (index - self.base).is_multiple_of(PAGE) {
            self.pages.push_back(Page { first: slot.address, ..Page::default() });
            self.open_pages += 1;
        }
        let page = self.pages.back_mut().expect("there is one for the slot");
        page.last = slot.address;
        if page.slots.capacity() == 0 {
            page.slots.reserve_exact(PAGE as usize);
        }
        page.slots.push(slot);
        page.open += 1;
        self.next += 1;
        if slot.state == State::Done {
            self.settle(index);
        }
        index
    }

    /// A record that is not done.
    pub(super) fn get(&mut self, index: Index) -> Option<&mut Slot> {
        let at = index.checked_sub(self.base)?;
        let page = self.pages.get_mut((at / PAGE) as usize)?;
        let slot = page.slots.get_mut((at % PAGE) as usize)?;
        (slot.state != State::Done).then_some(slot)
    }

    /// The record with this number, if it is not done.
    pub(super) fn find(&mut self, address: u64) -> Option<Index> {
        let behind = self.pages.partition_point(|page| page.first <= address);
        let page = behind.checked_sub(1)?;
        let slots = &self.pages[page].slots;
        let slot = slots.binary_search_by_key(&address, |slot| slot.address).ok()?;
        let index = self.base + page as u64 * PAGE + slot as u64;
        self.get(index).is_some().then_some(index)
    }

    /// Where the record behind this one begins, as far as that is known.
    pub(super) fn behind(&self, index: Index, address: u64) -> u64 {
        let next = index + 1 - self.base;
        let page = self.pages.get((next / PAGE) as usize);
        let slot = page.and_then(|page| match (next % PAGE) as usize {
            0 => Some(page.first),
            at => page.slots.get(at).map(|slot| slot.address),
        });
        slot.unwrap_or(address + 1)
    }

    /// Notes that a record is done.
    pub(super) fn finish(&mut self, index: Index) {
        self.get(index).expect("it is not done").state = State::Done;
        self.settle(index);
    }

    /// Lets go of what a record that is done leaves behind.
    fn settle(&mut self, index: Index) {
        let at = ((index - self.base) / PAGE) as usize;
        let page = &mut self.pages[at];
        page.open -= 1;
        if page.open == 0 && page.slots.len() == PAGE as usize {
            page.slots = Vec::new();
            self.open_pages -= 1;
        }
        if index == self.front {
            self.advance();
        }
    }

    /// Goes on to the first record that is not done.
    fn advance(&mut self) {
        while self.front < self.next {
            let at = self.front - self.base;
            let page = &self.pages[(at / PAGE) as usize];
            if page.slots.is_empty() {
                self.through = Some(page.last);
                self.front += PAGE - at % PAGE;
                continue;
            }
            let rest = &page.slots[(at % PAGE) as usize..];
            let done = rest.iter().take_while(|slot| slot.state == State::Done).count();
            if done == 0 {
                break;
            }
            self.through = Some(rest[done - 1].address);
            self.front += done as u64;
        }
        while self.front - self.base >= PAGE {
            self.pages.pop_front();
            self.base += PAGE;
        }
    }

    /// The records that are not done, in order.
    pub(super) fn open(&self) -> impl Iterator<Item = (Index, &Slot)> {
        let pages = self.pages.iter().zip((self.base..).step_by(PAGE as usize));
        let slots = pages.flat_map(|(page, first)| (first..).zip(&page.slots));
        slots.filter(|(_, slot)| slot.state != State::Done)
    }

    /// How it stands, as ranges: of what is known, everything from the front on.
    pub(super) fn known(&self, mut each: impl FnMut(u64, u64, Known)) {
        let mut run: Option<(u64, u64, Known)> = None;
        let mut say = |from: u64, to: u64, known: Option<Known>| {
            let is_one_record = matches!(known, Some(Known::Held { receives: 0, .. }));
            match &mut run {
                Some((_, end, last)) if Some(*last) == known && !is_one_record => *end = to,
                _ => {
                    if let Some((from, to, known)) = run.take() {
                        each(from, to, known);
                    }
                    run = known.map(|known| (from, to, known));
                }
            }
        };
        let pages = self.pages.iter().zip((self.base..).step_by(PAGE as usize));
        for (page, first) in pages {
            if page.slots.is_empty() {
                let to = self.behind(first + PAGE - 1, page.last);
                say(page.first, to, Some(Known::Done));
            }
            for (index, slot) in (first..).zip(&page.slots) {
                say(slot.address, self.behind(index, slot.address), slot.known());
            }
        }
        say(0, 0, None);
    }
}

impl Slot {
    /// What a journal says of it; nothing of one that nobody has received yet.
    fn known(&self) -> Option<Known> {
        let until = match self.state {
            State::Done => return Some(Known::Done),
            State::InFlight => Until::InFlight(self.until_ms),
            State::Delayed => Until::Delayed(self.until_ms),
            // Nothing was said of it.
            _ if self.receives == 0 && self.until_ms == 0 => return None,
            State::Ready | State::Waiting | State::Found => Until::Delayed(self.until_ms),
        };
        Some(Known::Held { receives: self.receives, until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(address: u64) -> Slot {
        Slot { address, until_ms: 0, key: 0, receives: 1, state: State::Ready }
    }

    /// So many records, 32 bytes each.
    fn window(records: u64) -> Window {
        let mut window = Window::default();
        for record in 0..records {
            assert_eq!(window.push(slot(32 * record)), record);
        }
        window
    }

    fn open(window: &Window) -> Vec<Index> {
        window.open().map(|(index, _)| index).collect()
    }

    #[test]
    fn what_is_done_at_the_front_goes_in_whatever_order_it_is_done() {
        for reversed in [false, true] {
            let mut window = window(3 * PAGE + 7);
            let mut order: Vec<_> = (0..2 * PAGE + 5).collect();
            if reversed {
                order.reverse();
            }
            for index in order {
                window.finish(index);
            }
            assert_eq!(window.through(), Some(32 * (2 * PAGE + 4)));
            assert_eq!(open(&window), (2 * PAGE + 5..3 * PAGE + 7).collect::<Vec<_>>());
            assert_eq!((window.pages.len(), window.open_pages), (2, 2));
        }
    }

    #[test]
    fn pages_that_are_all_done_take_no_room_behind_a_record_that_is_not() {
        let mut window = window(4 * PAGE);
        (1..4 * PAGE).for_each(|index| window.finish(index));
        assert_eq!(window.open_pages, 1);
        assert_eq!(window.pages.iter().map(|page| page.slots.len()).sum::<usize>(), PAGE as usize);
        assert_eq!((open(&window), window.through()), (vec![0], None));
        assert_eq!((window.find(0), window.find(32), window.find(32 * 700)), (Some(0), None, None));
        window.finish(0);
        assert!(window.is_done() && window.pages.is_empty());
        assert_eq!(window.through(), Some(32 * (4 * PAGE - 1)));
    }

    #[test]
    fn records_are_found_by_their_numbers() {
        let mut window = window(2 * PAGE);
        assert_eq!(window.find(32 * 300), Some(300));
        assert_eq!((window.find(33), window.find(32 * 2 * PAGE)), (None, None));
        assert_eq!(window.behind(300, 32 * 300), 32 * 301);
        assert_eq!(window.behind(2 * PAGE - 1, 32 * (2 * PAGE - 1)), 32 * (2 * PAGE - 1) + 1);
    }

    #[test]
    fn what_is_known_is_told_by_ranges() {
        let mut window = window(3 * PAGE);
        (PAGE..2 * PAGE).for_each(|index| window.finish(index));
        window.finish(0);
        *window.get(3).unwrap() = Slot { state: State::Delayed, until_ms: 9, ..slot(96) };
        let mut known = Vec::new();
        window.known(|from, to, state| known.push((from, to, state)));
        let held = |until| Known::Held { receives: 1, until };
        let ready = held(Until::Delayed(0));
        assert_eq!(
            known,
            [
                (0, 32, Known::Done),
                (32, 96, ready),
                (96, 128, held(Until::Delayed(9))),
                (128, 32 * PAGE, ready),
                (32 * PAGE, 64 * PAGE, Known::Done),
                (64 * PAGE, 32 * (3 * PAGE - 1) + 1, ready),
            ]
        );
    }
}
