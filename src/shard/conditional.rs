//! Appending on a condition: that nobody else has appended since, or that the place was noted.
//!
//! A claim alone cannot have a condition: it is a `fetch_add`, and grants a place before anybody
//! knows which. So here the tail is moved by an exchange, which succeeds only if it still is where
//! the place was expected.

use crate::error::Result;
use crate::record::Key;
use crate::shard::append::{Claim, Copied};
use crate::shard::ring::ClaimAt;
use crate::shard::writer::Writer;
use crate::shard::{Appended, Log, Shard, record_len};

impl Shard {
    /// Appends a record if no frame was claimed at `expected` or above; otherwise says where the
    /// next one goes.
    pub(crate) fn append_if(
        &self,
        expected: u64,
        key: Key<'_>,
        data: &[u8],
        arrival_ms: u64,
    ) -> Result<Result<Appended, u64>> {
        let writer = self.writer()?;
        let (data_len, copied) = (data.len(), Copied::new(data));
        let claim = writer.claim_if(&self.log, expected, record_len(key, data_len))?;
        Ok(claim.map(|claim| writer.publish(claim, key, data_len, arrival_ms, copied)))
    }

    /// Appends a record unless `note` fails, which is told its address before it is published.
    pub(crate) fn append_noting(
        &self,
        key: Key<'_>,
        data: &[u8],
        arrival_ms: u64,
        note: impl FnOnce(u64) -> Result<()>,
    ) -> Result<Appended> {
        let writer = self.writer()?;
        let claim = writer.claim(&self.log, record_len(key, data.len()), 1)?;
        if let Err(error) = note(claim.address()) {
            let _wake = writer.wake_after(&claim);
            // In this order: a claim that is given up is published as void.
            drop(claim);
            return Err(error);
        }
        Ok(writer.publish(claim, key, data.len(), arrival_ms, Copied::new(data)))
    }
}

impl Writer {
    /// Claims `len` bytes for a frame if none was claimed at `expected` or above; otherwise says
    /// where the tip is.
    fn claim_if(&self, log: &Log, expected: u64, len: u32) -> Result<Result<Claim, u64>> {
        loop {
            let tip = self.tip().place.address;
            // The end of a segment and the header of the next may lie between, but no frame.
            let is_next = (log.start..=tip).contains(&expected)
                && log.index.bytes_between(expected, tip) == 0;
            if !is_next {
                return Ok(Err(tip));
            }
            match self.ring.claim_at(tip, len) {
                ClaimAt::Granted(claim) => return Ok(Ok(claim)),
                // Somebody was faster; the next look at the tip tells.
                ClaimAt::Moved => {}
                ClaimAt::NoRoom => {
                    self.ring.end_active();
                    self.roll(log, u64::from(len))?;
                }
            }
        }
    }
}
