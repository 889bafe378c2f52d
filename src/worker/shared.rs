//! What the parts of a pool share: those that work on one stream, and those on all.

use std::path::Path;
use std::sync::Arc;

use crate::worker::balance::Totals;
use crate::worker::builder::Options;
use crate::worker::crew::Queue;
use crate::worker::dead_letter::DeadLetters;
use crate::worker::lease_table::LeaseTable;
use crate::worker::life::Life;
use crate::worker::processor::Factory;
use crate::worker::source::Source;
use crate::worker::status::Board;

/// What belongs to the work of a pool on one stream.
pub(super) struct Shared<S> {
    pub(super) source: Arc<S>,
    pub(super) table: Arc<dyn LeaseTable>,
    pub(super) dead_letters: DeadLetters,
    pub(super) factory: Factory,
    pub(super) options: Options,
    pub(super) board: Arc<Board>,
    pub(super) totals: Arc<Totals>,
}

impl<S: Source> Shared<S> {
    /// For the leases in this table; `path` is where the application's files are.
    pub(super) fn new(
        source: S,
        table: Arc<dyn LeaseTable>,
        path: &Path,
        options: Options,
        factory: Factory,
        common: &Common<S>,
    ) -> Self {
        Self {
            source: Arc::new(source),
            table,
            dead_letters: DeadLetters::in_directory(path),
            factory,
            options,
            board: Arc::new(Board::new(path, &common.life)),
            totals: Arc::clone(&common.totals),
        }
    }
}

/// What the streams of a pool have in common.
pub(super) struct Common<S: Source> {
    pub(super) life: Arc<Life>,
    pub(super) totals: Arc<Totals>,
    pub(super) queue: Queue<S>,
}

impl<S: Source> Common<S> {
    pub(super) fn new() -> Self {
        Self { life: Arc::default(), totals: Arc::default(), queue: Queue::new() }
    }
}
