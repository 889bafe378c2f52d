//! Emitters: what is buffered, emitted, tried again and checkpointed, step by step.

use std::collections::BTreeSet;

use super::journal::Stepped;
use super::*;
use crate::os::clock::Ticker;
use crate::record::Record;
use crate::stream::Stream;
use crate::worker::emit::{EmitBuffer, Emitter, Emitting};
use crate::worker::life::Stage;
use crate::worker::{DeadLetters, OnPoison};

const S0: ShardId = ShardId::new(0);
const SECOND: Duration = Duration::from_secs(1);

type OnEmit = dyn Fn(Vec<u64>) -> Result<Vec<u64>, ProcessorError> + Send + Sync;

/// Emits the numbers of records into a list, unless the test says otherwise.
#[derive(Clone)]
struct List {
    emitted: Arc<Mutex<Vec<Vec<u64>>>>,
    left_out: Arc<Mutex<Vec<u64>>>,
    on_emit: Arc<OnEmit>,
    gives_up: bool,
    /// It cannot be transformed.
    poison: Option<u64>,
}

impl List {
    fn new() -> Self {
        let on_emit = Arc::new(|_| Ok(Vec::new()));
        let (emitted, left_out) = (Arc::default(), Arc::default());
        Self { emitted, left_out, on_emit, gives_up: false, poison: None }
    }

    fn on_emit(
        on_emit: impl Fn(Vec<u64>) -> Result<Vec<u64>, ProcessorError> + Send + Sync + 'static,
    ) -> Self {
        Self { on_emit: Arc::new(on_emit), ..Self::new() }
    }

    fn emitted(&self) -> Vec<Vec<u64>> {
        self.emitted.lock().clone()
    }
}

impl Emitter for List {
    type Item = u64;

    fn transform(&mut self, record: &Record<'_>) -> Result<Option<u64>, ProcessorError> {
        let number = record.sequence_number().address().unwrap();
        if self.poison == Some(number) {
            return Err("poison".into());
        }
        Ok((!self.left_out.lock().contains(&number)).then_some(number))
    }

    fn size(&self, _: &u64) -> u64 {
        10
    }

    fn emit(&mut self, items: Vec<u64>) -> Result<Vec<u64>, ProcessorError> {
        self.emitted.lock().push(items.clone());
        (self.on_emit)(items)
    }

    fn give_up(&mut self, failed: Vec<u64>) -> Result<(), ProcessorError> {
        if self.gives_up { Ok(()) } else { Err(format!("{failed:?}").into()) }
    }
}

/// A pool that emits to this list; a batch has at most three records.
fn start(fixture: &mut Fixture, buffer: EmitBuffer, list: &List) -> Arc<Stepped> {
    fixture.options.checkpoints = CheckpointPolicy::Manual;
    fixture.options.limit = Limit::records(3);
    fixture.options.ticker = Ticker::given();
    let (list, ticker) = (list.clone(), fixture.options.ticker.clone());
    Stepped::with_factory(fixture, |_| {
        Box::new(move |_: &ShardInfo| -> Box<dyn RecordProcessor> {
            Box::new(Emitting::new(list.clone(), buffer, ticker.clone()))
        })
    })
}

#[test]
fn a_bundle_is_emitted_when_it_has_enough_items_and_checkpointed_then() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 9);
    let list = List::new();
    let pool = start(&mut fixture, EmitBuffer::default().items(4), &list);
    pool.run();
    assert_eq!(list.emitted(), [&put[..4], &put[4..8]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[7]), "the ninth is only buffered");
}

#[test]
fn a_bundle_is_emitted_when_it_has_enough_bytes() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 5);
    let list = List::new();
    start(&mut fixture, EmitBuffer::default().bytes(15), &list).run();
    assert_eq!(list.emitted(), [&put[..2], &put[2..4]]);
}

#[test]
fn a_bundle_is_emitted_when_it_is_old_enough_though_nothing_comes() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put(S0);
    let list = List::new();
    let pool = start(&mut fixture, EmitBuffer::default().age(SECOND), &list);
    pool.run();
    pool.ticker.advance(SECOND - Duration::from_millis(1));
    pool.run();
    assert_eq!(list.emitted().len(), 0);
    pool.ticker.advance(Duration::from_millis(1));
    pool.run();
    assert_eq!(list.emitted(), [[put]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put));
}

#[test]
fn only_what_failed_is_tried_again_after_pauses_that_grow() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 3);
    let list = List::on_emit(|mut items| {
        items.remove(0);
        Ok(items)
    });
    let pool = start(&mut fixture, EmitBuffer::default().items(3).retry_delay(SECOND), &list);
    let began = pool.ticker.now();
    pool.run();
    assert_eq!(list.emitted(), [&put[..], &put[1..], &put[2..]]);
    assert_eq!(pool.ticker.now().duration_since(began), 3 * SECOND, "one, and two");
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
}

#[test]
fn what_fails_too_often_is_not_checkpointed_and_comes_again() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 2);
    let list = List::on_emit(Ok);
    let pool = start(&mut fixture, EmitBuffer::default().items(2).attempts(2), &list);
    pool.run();
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    let emitted = list.emitted();
    assert!(emitted.len() > 2 && emitted.iter().all(|items| *items == put), "{emitted:?}");
}

#[test]
fn an_emitter_that_gives_items_up_goes_on() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 2);
    let list = List { gives_up: true, ..List::on_emit(Ok) };
    start(&mut fixture, EmitBuffer::default().items(2).attempts(2), &list).run();
    assert_eq!(list.emitted().len(), 2);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
}

#[test]
fn records_that_are_left_out_are_checkpointed_unless_something_is_buffered_before_them() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 3);
    let list = List::new();
    list.left_out.lock().extend(&put);
    let pool = start(&mut fixture, EmitBuffer::default().items(2), &list);
    pool.run();
    assert_eq!(list.emitted().len(), 0);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
    let kept = fixture.source.put(S0);
    let left_out = fixture.source.put(S0);
    list.left_out.lock().push(left_out);
    pool.run();
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
    let last = fixture.source.put(S0);
    pool.run();
    assert_eq!(list.emitted(), [[kept, last]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(last));
}

#[test]
fn what_is_buffered_is_emitted_when_the_pool_stops() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 2);
    let list = List::new();
    let pool = start(&mut fixture, EmitBuffer::default(), &list);
    pool.run();
    assert_eq!(list.emitted().len(), 0);
    pool.board.enter(Stage::Stopping);
    pool.run();
    assert_eq!(list.emitted(), [&put[..]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
}

#[test]
fn what_cannot_be_emitted_when_the_pool_stops_comes_again() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 2);
    let buffer = EmitBuffer::default().attempts(1);
    let pool = start(&mut fixture, buffer, &List::on_emit(|_| Err("no".into())));
    pool.run();
    pool.board.enter(Stage::Stopping);
    pool.run();
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    let list = List::new();
    start(&mut fixture, buffer.items(2), &list).run();
    assert_eq!(list.emitted(), [&put[..]]);
}

#[test]
fn what_is_being_emitted_when_the_pool_stops_is_tried_again_and_checkpointed() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 5);
    let stopped: Arc<Mutex<Option<Arc<Stepped>>>> = Arc::default();
    let pool = Arc::clone(&stopped);
    let list = List::on_emit(move |mut items| {
        pool.lock().as_ref().unwrap().board.enter(Stage::Stopping);
        items.remove(0);
        Ok(items)
    });
    let pool = start(&mut fixture, EmitBuffer::default().items(2), &list);
    *stopped.lock() = Some(Arc::clone(&pool));
    pool.run();
    // The batch that was at it is finished, and what it has left in the buffer.
    assert_eq!(list.emitted(), [&put[..2], &put[1..2], &put[2..3]]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
    assert_eq!(pool.board.stage(), Stage::Finished);
    stopped.lock().take();
}

#[test]
fn items_that_fail_for_ever_hold_up_their_shard_alone_and_no_shutdown() {
    let mut fixture = Fixture::new(2);
    fixture.options.retry_delay = RetryDelay::exactly(SECOND, SECOND);
    let bad = fixture.source.put_many(S0, 3);
    let good = fixture.source.put_many(ShardId::new(1), 3);
    let list = List::on_emit({
        let bad = bad.clone();
        move |items| Ok(items.into_iter().filter(|item| bad[1..].contains(item)).collect())
    });
    let pool = start(&mut fixture, EmitBuffer::default().items(3).attempts(2), &list);
    for _ in 0..20 {
        pool.run();
        pool.ticker.advance(SECOND);
    }
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    assert_eq!(fixture.stored_checkpoint(ShardId::new(1)), after(good[2]));
    let emitted = list.emitted();
    assert_eq!(emitted.iter().filter(|items| **items == good).count(), 1);
    assert!(emitted.iter().filter(|items| **items == bad).count() > 10, "all of them come again");
    assert!(emitted.iter().filter(|items| **items == bad[1..]).count() > 10, "those that failed");
    pool.board.enter(Stage::Stopping);
    pool.run();
    assert_eq!(pool.board.stage(), Stage::Finished);
    let mut outcomes = pool.board.snapshot().into_values().map(|entry| entry.outcome());
    assert!(matches!(outcomes.next(), Some(Outcome::Failed { .. })));
    assert_eq!(outcomes.next(), Some(Outcome::Stopped));
}

#[test]
fn a_record_that_cannot_be_transformed_is_put_aside_and_all_others_are_emitted() {
    let mut fixture = Fixture::new(1);
    fixture.options.on_poison = OnPoison::DeadLetter;
    fixture.options.attempts = 2;
    let put = fixture.source.put_many(S0, 9);
    let list = List { poison: Some(put[4]), ..List::new() };
    let pool = start(&mut fixture, EmitBuffer::default().items(2), &list);
    for _ in 0..20 {
        pool.run();
        pool.ticker.advance(SECOND);
    }
    pool.board.enter(Stage::Stopping);
    pool.run();
    let emitted = list.emitted().concat().into_iter().collect::<BTreeSet<u64>>();
    let rest = put.iter().copied().filter(|number| *number != put[4]);
    assert_eq!(emitted, rest.collect());
    assert_eq!(fixture.stored_checkpoint(S0), after(put[8]));
    let letters = DeadLetters::in_directory(&fixture.directory.path().join("billing"));
    let letters = letters.list().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].sequence_number, put[4].into());
}

#[test]
fn what_is_buffered_is_emitted_before_the_shard_is_handed_over() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put(S0);
    let list = List::new();
    let pool = start(&mut fixture, EmitBuffer::default(), &list);
    pool.run();
    let table = fixture.table();
    let mut row = table.read(S0).unwrap();
    row.generation += 1;
    row.wanted_by = Some(table.me());
    assert!(table.replace(S0, &row).unwrap());
    pool.ticker.advance(SECOND);
    pool.run();
    assert_eq!(list.emitted(), [[put]]);
    let row = table.read(S0).unwrap();
    assert_eq!((row.owner, row.checkpoint), (None, after(put).position()));
}

#[test]
fn one_that_has_lost_its_lease_emits_nothing_of_what_it_has() {
    let mut fixture = Fixture::new(1);
    fixture.source.put(S0);
    let list = List::new();
    let pool = start(&mut fixture, EmitBuffer::default(), &list);
    pool.run();
    let _thief = fixture.take_lease(S0);
    pool.ticker.advance(SECOND);
    pool.run();
    assert_eq!(list.emitted().len(), 0);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_shard_ends_when_all_of_it_was_emitted() {
    let mut fixture = Fixture::new(1);
    let put = fixture.source.put_many(S0, 2);
    fixture.source.close(&[S0]);
    let is_down = Arc::new(Mutex::new(true));
    let list = List::on_emit({
        let is_down = Arc::clone(&is_down);
        move |_| if *is_down.lock() { Err("down".into()) } else { Ok(Vec::new()) }
    });
    let pool = start(&mut fixture, EmitBuffer::default(), &list);
    pool.run();
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    *is_down.lock() = false;
    pool.ticker.advance(SECOND);
    pool.run();
    assert_eq!(list.emitted().last(), Some(&put));
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::ShardEnd);
}

#[test]
fn a_shard_has_one_emitter_whose_checkpoints_count_whatever_else_is_set() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    for index in 0..20 {
        stream.put(&format!("key-{index}"), "data").unwrap();
    }
    let (list, made) = (List::new(), Arc::new(Mutex::new(0)));
    let pool = WorkerPool::builder("billing", &stream)
        .lanes(4)
        .linger(Limit::records(1000), Duration::from_secs(3600))
        .checkpoints(CheckpointPolicy::AfterBatch)
        .start_emitting(EmitBuffer::default(), {
            let (list, made) = (list.clone(), Arc::clone(&made));
            move |_| {
                *made.lock() += 1;
                list.clone()
            }
        })
        .unwrap();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(pool.status()[0].checkpoint, Checkpoint::TrimHorizon, "it is in the buffer");
    pool.shutdown(LONG);
    let emitted = list.emitted();
    assert_eq!((emitted.len(), emitted[0].len(), *made.lock()), (1, 20, 1));
}
