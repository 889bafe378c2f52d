//! What consumers say of the messages that they have.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::queue_entry::Change;
use crate::queue::state::{State, Ticket};
use crate::queue::window::State as SlotState;
use crate::queue::{Inner, MAX_DELAY, MAX_VISIBILITY, ReceiptHandle, millis};
use crate::worker::shortened;

/// A receipt: a record, and how often it had been received.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) address: u64,
    pub(super) receives: u16,
}

impl Held {
    fn expired(&self) -> Error {
        let (shard, sequence_number) = (self.ticket.shard, self.address.into());
        Error::ReceiptExpired { shard, sequence_number }
    }
}

impl Inner {
    /// The receipt that a handle names.
    pub(super) fn held(&self, handle: ReceiptHandle) -> Result<Held> {
        let ReceiptHandle { shard, sequence_number, receive_count } = handle;
        let mut state = self.state.lock();
        let feed = state.feeds.get_mut(&shard);
        let found = feed.and_then(|feed| {
            let address = sequence_number.address()?;
            Some((feed.window.find(address)?, address))
        });
        let (index, address) = found.ok_or(Error::ReceiptExpired { shard, sequence_number })?;
        Ok(Held { ticket: Ticket { shard, index }, address, receives: receive_count })
    }

    /// These are done.
    pub(super) fn ack(&self, held: &mut [Held]) -> Result<()> {
        self.ack_those(held)?.1
    }

    /// Those of these are done whose receipts hold: how many, and the error for another one.
    pub(super) fn ack_those(&self, held: &mut [Held]) -> Result<(usize, Result<()>)> {
        let mut state = self.state.lock();
        let (valid, expired) = note(&mut state, held, |_| Change::Done)?;
        for held in valid {
            state.finish(held.ticket);
        }
        let count = valid.len();
        let stored = state.store(valid.iter().map(|held| held.ticket.shard), false);
        self.let_go(state)?;
        stored?;
        self.sync()?;
        Ok((count, expired))
    }

    /// These are there again when the delay is over; at once, if they are to be put aside.
    pub(super) fn nack(
        &self,
        held: &mut [Held],
        delay: Duration,
        cause: Option<&str>,
    ) -> Result<()> {
        let now_ms = self.stream.now_ms();
        let until_ms = now_ms + millis(delay, MAX_DELAY)?;
        let mut state = self.state.lock();
        let is_last = |held: &Held| held.receives >= self.max_receives;
        let until_ms = |held: &Held| if is_last(held) { now_ms } else { until_ms };
        let change = |held: &Held| Change::Delayed { until_ms: until_ms(held) };
        let (valid, expired) = note(&mut state, held, change)?;
        for held in valid {
            if let Some(cause) = cause.filter(|_| is_last(held)) {
                state.causes.insert(held.ticket, shortened(cause).to_owned());
            }
            match until_ms(held) {
                ms if ms > now_ms => state.put(held.ticket, SlotState::Delayed, ms),
                _ => state.put(held.ticket, SlotState::Ready, 0),
            }
        }
        self.let_go(state)?;
        expired
    }

    /// The consumer has it so long from now.
    pub(super) fn extend(&self, held: Held, time: Duration) -> Result<()> {
        let until_ms = self.stream.now_ms() + millis(time, MAX_VISIBILITY)?;
        let mut state = self.state.lock();
        let mut held = [held];
        let (valid, expired) = note(&mut state, &mut held, |_| Change::Extended { until_ms })?;
        for held in valid {
            state.put(held.ticket, SlotState::InFlight, until_ms);
        }
        self.let_go(state)?;
        expired
    }
}

/// Writes to the journal what happens to those whose receipts hold: which ones, and the error for
/// one whose does not.
fn note<'h>(
    state: &mut State,
    held: &'h mut [Held],
    change: impl Fn(&Held) -> Change,
) -> Result<(&'h [Held], Result<()>)> {
    // In the order of numbers they make few ranges.
    held.sort_unstable_by_key(|held| held.ticket);
    let (mut valid, mut expired) = (0, Ok(()));
    for at in 0..held.len() {
        let Held { ticket, address, receives } = held[at];
        let holds = state.slot(ticket).is_some_and(|slot| {
            (slot.address, slot.receives) == (address, receives) && slot.state != SlotState::Found
        });
        // Whoever names one twice has said it once.
        let is_same = valid > 0 && held[valid - 1].ticket == ticket;
        if !holds {
            expired = expired.and(Err(held[at].expired()));
        } else if !is_same {
            held[valid] = held[at];
            valid += 1;
        }
    }
    let valid = &held[..valid];
    let changes = valid.iter().map(|held| (held.ticket, held.address, change(held)));
    let changes = state.ranges(changes);
    state.journal.append(&changes)?;
    Ok((valid, expired))
}
