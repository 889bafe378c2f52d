//! Giving records to consumers: what is there, or what comes while they wait; and putting those
//! aside that were received too often.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::Result;
use crate::format::queue_entry::Change;
use crate::os::signal::Event;
use crate::queue::find::{Found, Taken};
use crate::queue::message::Message;
use crate::queue::settle::Held;
use crate::queue::state::State;
use crate::queue::window::State as SlotState;
use crate::queue::{Inner, Queue};
use crate::stream::ShardIterator;
use crate::worker::Aside;

/// How soon one looks again who may not be told of what comes.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Queue {
    /// Receives up to `max` messages, which nobody else gets until their visibility timeout is
    /// over. If there is none, waits for one, but not longer than `wait`.
    ///
    /// Messages that come again, because they were given back or not acknowledged in time, come
    /// before those that nobody has received yet. Messages that were received too often are put
    /// aside.
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the next record is not as it was written; other
    /// errors of reading; errors of writing if the receives cannot be noted, or a message cannot be
    /// put aside.
    pub fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Message>> {
        self.receive_unless(max, wait, || false)
    }

    /// Receives until somebody rings the bell when this is so.
    pub(super) fn receive_unless(
        &self,
        max: usize,
        wait: Duration,
        is_over: impl Fn() -> bool,
    ) -> Result<Vec<Message>> {
        let mut deadline = None;
        loop {
            let messages = self.inner.try_receive(max)?;
            if !messages.is_empty() || wait.is_zero() || max == 0 {
                return Ok(messages);
            }
            let now = Instant::now();
            let deadline = *deadline.get_or_insert_with(|| now.checked_add(wait));
            let left = deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(now));
            if left.is_zero() || is_over() {
                return Ok(messages);
            }
            self.inner.sleep(left, &is_over)?;
        }
    }
}

impl Inner {
    /// What is there.
    fn try_receive(self: &Arc<Self>, max: usize) -> Result<Vec<Message>> {
        loop {
            let now_ms = self.stream.now_ms();
            let mut state = self.state.lock();
            let Found { taken, leaving } = state.find(max, now_ms)?;
            let given = self.give(&mut state, taken, now_ms);
            if given.is_err() {
                give_back(&mut state, &leaving);
            }
            self.let_go(state)?;
            let messages = given?;
            if leaving.is_empty() {
                return Ok(messages);
            }
            let buried = self.bury(leaving);
            // What could not be put aside comes first the next time, and is told then.
            if !messages.is_empty() {
                return Ok(messages);
            }
            buried?;
        }
    }

    /// Notes that consumers receive these.
    fn give(
        self: &Arc<Self>,
        state: &mut State,
        taken: Vec<Taken>,
        now_ms: u64,
    ) -> Result<Vec<Message>> {
        let until_ms = now_ms + self.visibility_ms;
        let change = Change::Received { until_ms };
        let records = taken.iter().map(|taken| (taken.ticket, taken.record.address, change));
        let changes = state.ranges(records);
        if let Err(error) = state.journal.append(&changes) {
            give_back(state, &taken);
            return Err(error);
        }
        state.receive(&taken, until_ms);
        let messages = taken.into_iter().map(|Taken { ticket, receives, record }| {
            let receives = receives.saturating_add(1);
            let held = Held { ticket, address: record.address, receives };
            Message::new(Arc::clone(self), record, held)
        });
        Ok(messages.collect())
    }

    /// Puts records aside as dead letters: when they are there durably, they are done here.
    pub(super) fn bury(&self, leaving: Vec<Taken>) -> Result<()> {
        let causes: Vec<_> = {
            let state = self.state.lock();
            let cause = |taken: &Taken| {
                state.causes.get(&taken.ticket).cloned().unwrap_or_else(|| {
                    format!("received {} times and never acknowledged", taken.receives)
                })
            };
            leaving.iter().map(cause).collect()
        };
        let asides = leaving.iter().zip(&causes).map(|(taken, cause)| Aside {
            shard: taken.ticket.shard,
            record: taken.record.record(),
            attempts: taken.receives.into(),
            cause,
        });
        let put_aside = self.dead_letters.put_aside(&asides.collect::<Vec<_>>());
        let mut state = self.state.lock();
        // What a purge has taken meanwhile is done.
        let is_there = |taken: &&Taken| state.slot(taken.ticket).is_some();
        let leaving: Vec<_> = leaving.iter().filter(is_there).collect();
        let records =
            leaving.iter().map(|taken| (taken.ticket, taken.record.address, Change::Done));
        let changes = state.ranges(records);
        let done = put_aside.and_then(|()| state.journal.append(&changes));
        for taken in &leaving {
            match done {
                Ok(()) => state.finish(taken.ticket),
                Err(_) => state.put(taken.ticket, SlotState::Ready, 0),
            }
        }
        let stored = state.store(leaving.iter().map(|taken| taken.ticket.shard), false);
        self.let_go(state)?;
        done.and(stored)
    }

    /// Sleeps until there may be something, or for so long.
    fn sleep(&self, left: Duration, is_over: &impl Fn() -> bool) -> Result<()> {
        let event = Arc::new(Event::default());
        self.bell.listen(&event, || ());
        let (tips, due_ms) = {
            let mut state = self.state.lock();
            (state.tips(), state.next_due_ms())
        };
        let woken = self.sleep_at(&tips, due_ms, left, &event, is_over);
        self.bell.forget(&event);
        let forgotten = tips.iter().map(|tip| self.stream.forget(tip.shard(), &event));
        forgotten.fold(woken, Result::and)
    }

    fn sleep_at(
        &self,
        tips: &[ShardIterator],
        due_ms: Option<u64>,
        left: Duration,
        event: &Arc<Event>,
        is_over: &impl Fn() -> bool,
    ) -> Result<()> {
        let mut longest = left;
        for tip in tips {
            if !self.stream.notify(tip, event)? {
                longest = longest.min(LOOK_AGAIN);
            }
        }
        if let Some(due_ms) = due_ms {
            let until_due = due_ms.saturating_sub(self.stream.now_ms());
            longest = longest.min(Duration::from_millis(until_due));
        }
        // Whoever has made something ready since it was looked for has rung, or does so now.
        if !is_over() && !self.state.lock().has_ready() {
            event.wait_for(longest);
        }
        Ok(())
    }
}

/// Has records be ready that were found and are not given out.
fn give_back(state: &mut State, records: &[Taken]) {
    for taken in records {
        state.put(taken.ticket, SlotState::Ready, 0);
    }
}
