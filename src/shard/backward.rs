//! Reading backwards: where the newest records of a shard are.
//!
//! A frame says how long it is, not how long the one before it is. But each names its own place and
//! has a checksum that no content can have by chance, so the frame before a place is found in
//! steps of 32 bytes: the way is as long as the records that are looked for, wherever in the log
//! they are.

use crate::error::Result;
use crate::format::frame::{Header, State};
use crate::format::search::{Image, Search};
use crate::format::segment_header::SEGMENT_HEADER_LEN;
use crate::shard::Log;
use crate::shard::segment::Segment;

impl Log {
    /// The record that has `count - 1` others behind it, or the oldest one if there are fewer; none
    /// if there is no record.
    pub(super) fn last(&self, count: usize) -> Result<Option<Header>> {
        let (mut first, mut left) = (None, count);
        for found in self.index.from(self.start).iter().rev() {
            let Some(segment) = self.index.at_or_above(found.header.base)? else { continue };
            if segment.header.base != found.header.base {
                // It was never used, and is gone.
                continue;
            }
            for header in segment.records_backward() {
                if header.address <= self.horizon.through() {
                    return Ok(first);
                }
                first = Some(header);
                left -= 1;
                if left == 0 {
                    return Ok(first);
                }
            }
        }
        Ok(first)
    }
}

impl Segment {
    /// The records that are published without a gap before them, from the newest one on, as far as
    /// they are whole.
    pub(super) fn records_backward(&self) -> impl Iterator<Item = Header> {
        let end = self.end.get().map(|end| self.offset(end.address));
        let mut end = end.unwrap_or_else(|| self.published().0);
        // What is below does not change any more.
        let bytes = self.map.bytes(0, end as usize);
        let (base, salt) = (self.header.base, self.header.salt);
        let mut search = Search::default();
        let frames = std::iter::from_fn(move || {
            let places = (SEGMENT_HEADER_LEN..end).step_by(32).rev();
            let image = Image { bytes: &bytes[..end as usize], base, salt };
            let (at, frame) =
                places.into_iter().find_map(|at| Some((at, search.frame_at(image, at)?)))?;
            end = at;
            Some(frame)
        });
        frames.filter(|frame| frame.state == State::Published).map(|frame| frame.header)
    }
}
