//! What all the workers have done together, and what went wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use millstream::{Batch, SequenceNumber, ShardId};
use parking_lot::Mutex;
use serde_json::json;

use crate::output;

/// A shard of one of the streams.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The directory of the stream; none if there is just one.
    pub(super) stream: Option<Arc<str>>,
    pub(super) shard: ShardId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.stream {
            Some(stream) => write!(f, "{stream} {}", self.shard),
            None => self.shard.fmt(f),
        }
    }
}

/// Where the processors and the one who watches them meet.
pub(super) struct Progress {
    screen: MultiProgress,
    /// The work ends when this many attempts at the same records have failed.
    most_attempts: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shards: BTreeMap<Place, Shard>,
    failed_attempts: u64,
    /// Whether nothing that failed is tried again any more.
    is_ending: bool,
    output_failure: Option<io::ErrorKind>,
    /// The first shard whose attempts are used up, and its last failure.
    gave_up: Option<(Place, String)>,
    failure_at_end: Option<(Place, String)>,
}

#[derive(Default)]
struct Shard {
    records: u64,
    /// The last record ever processed.
    furthest: Option<SequenceNumber>,
    /// Failures since the shard got beyond that, as the pool counts them.
    failed_in_row: u32,
    /// The last failure of its command.
    command_failure: Option<String>,
    /// Up to where a command that ended well has taken what is not checkpointed.
    taken: Option<SequenceNumber>,
}

impl Progress {
    pub(super) fn new(screen: MultiProgress, most_attempts: u32) -> Self {
        Self { screen, most_attempts, state: Mutex::default() }
    }

    /// The first failure to write to standard output: it will not get better.
    pub(super) fn output_failure(&self) -> Option<io::ErrorKind> {
        self.state.lock().output_failure
    }

    pub(super) fn fail_output(&self, kind: io::ErrorKind) {
        self.state.lock().output_failure.get_or_insert(kind);
    }

    /// The last failure of a command at the end of the work: nobody gives it its batch again.
    pub(super) fn failure_at_end(&self) -> Option<(Place, String)> {
        self.state.lock().failure_at_end.clone()
    }

    /// The shard and the failure that the work ends for.
    pub(super) fn gave_up(&self) -> Option<(Place, String)> {
        self.state.lock().gave_up.clone()
    }

    /// How many attempts there are.
    pub(super) fn most_attempts(&self) -> u32 {
        self.most_attempts
    }

    /// From now on nothing is tried again.
    pub(super) fn end(&self) {
        self.state.lock().is_ending = true;
    }

    /// The last failure of the shard's command.
    pub(super) fn command_failure(&self, shard: &Place) -> Option<String> {
        self.state.lock().shards.get(shard)?.command_failure.clone()
    }

    /// An attempt at the shard begins; returns up to where a command that ended well has taken
    /// what is not checkpointed.
    pub(super) fn begin(&self, shard: &Place, attempt: u32) -> Option<SequenceNumber> {
        let mut state = self.state.lock();
        let shard = state.shards.entry(shard.clone()).or_default();
        shard.failed_in_row = attempt - 1;
        shard.taken.take()
    }

    pub(super) fn processed(&self, shard: &Place, batch: &Batch) {
        let mut state = self.state.lock();
        let shard = state.shards.entry(shard.clone()).or_default();
        shard.records += batch.len() as u64;
        if shard.furthest < batch.last_sequence_number() {
            shard.furthest = batch.last_sequence_number();
            shard.failed_in_row = 0;
        }
    }

    /// A command that ended well has taken the records of the shard up to this one, and nobody can
    /// checkpoint them now.
    pub(super) fn set_taken(&self, shard: &Place, number: SequenceNumber) {
        self.state.lock().shards.entry(shard.clone()).or_default().taken = Some(number);
    }

    /// The command of a shard failed.
    pub(super) fn command_failed(&self, shard: &Place, error: &str) {
        let in_row = {
            let mut state = self.state.lock();
            let shard = state.shards.entry(shard.clone()).or_default();
            shard.command_failure = Some(error.to_owned());
            shard.failed_in_row += 1;
            shard.failed_in_row
        };
        self.failed(shard, 1, in_row, error);
    }

    /// So many attempts at the shard failed, `in_row` of them since it last got on.
    pub(super) fn failed(&self, shard: &Place, attempts: u32, in_row: u32, error: &str) {
        let mut state = self.state.lock();
        state.failed_attempts += u64::from(attempts);
        let is_first = state.gave_up.is_none();
        let gives_up = in_row >= self.most_attempts;
        if gives_up {
            state.gave_up.get_or_insert_with(|| (shard.clone(), error.to_owned()));
        }
        let is_tried_again = state.gave_up.is_none() && !state.is_ending;
        drop(state);
        // What the work ends for is said when it ends.
        if !(gives_up && is_first) {
            let so = if is_tried_again { "; its batch is tried again" } else { "" };
            self.tell(&format!("{shard}: {error}{so}"));
        }
    }

    pub(super) fn failed_at_end(&self, shard: &Place, error: String) {
        let mut state = self.state.lock();
        state.failed_attempts += 1;
        let earlier = state.failure_at_end.replace((shard.clone(), error));
        drop(state);
        if let Some((shard, error)) = earlier {
            self.tell(&format!("{shard}: {error}"));
        }
    }

    fn tell(&self, text: &str) {
        let line = format!("millstream: {}\n", text.replace(['\n', '\r'], " "));
        self.screen.suspend(|| output::note(&line));
    }

    pub(super) fn summary(&self, elapsed: Duration, as_json: bool) -> String {
        let state = self.state.lock();
        let shards = || state.shards.iter().filter(|(_, shard)| shard.records > 0);
        let records: u64 = shards().map(|(_, shard)| shard.records).sum();
        let failures = state.failed_attempts;
        let seconds = elapsed.as_secs_f64();
        if as_json {
            let shards: Vec<_> = shards()
                .map(|(Place { stream, shard: id }, shard)| match stream {
                    Some(stream) => json!({
                        "stream": **stream, "shard": id.to_string(), "records": shard.records,
                    }),
                    None => json!({ "shard": id.to_string(), "records": shard.records }),
                })
                .collect();
            let summary = json!({
                "records": records, "failures": failures, "seconds": seconds, "shards": shards,
            });
            return format!("{summary}\n");
        }
        let mut text = match (records, failures) {
            (0, 0) => "nothing new".to_owned(),
            (0, _) => "processed nothing".to_owned(),
            _ => {
                let shards = output::count(shards().count() as u64, "shard");
                let records = output::count(records, "record");
                format!("processed {records} of {shards} in {seconds:.2} s")
            }
        };
        if failures > 0 {
            text += &format!("; {} failed", output::count(failures, "attempt"));
        }
        text + "\n"
    }
}
