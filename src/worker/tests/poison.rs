//! A record that fails always: it is found, nothing else is touched, and the policy decides.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::worker::{DeadLetters, OnPoison, Outcome};

const S0: ShardId = ShardId::new(0);
const S1: ShardId = ShardId::new(1);

impl Fixture {
    /// Batches of any size, and this policy.
    fn on_poison(mut self, policy: OnPoison) -> Self {
        self.options.limit = Limit::default();
        self.options.on_poison = policy;
        self
    }

    fn dead_letters(&self) -> Vec<crate::DeadLetter> {
        DeadLetters::in_directory(&self.directory.path().join("billing")).list().unwrap()
    }
}

/// Notes the batches, and fails whenever one of these records is in them.
fn fails_at(recorder: Recorder, poison: &[u64], batches: &Arc<Mutex<Vec<Vec<u64>>>>) -> Recorder {
    let (poison, batches) = (poison.to_vec(), Arc::clone(batches));
    recorder.on_batch(move |batch, _| {
        batches.lock().push(numbers(batch).collect());
        match numbers(batch).find(|number| poison.contains(number)) {
            Some(number) => Err(format!("{number} is poison").into()),
            None => Ok(()),
        }
    })
}

#[test]
fn the_batch_is_halved_down_to_the_record_and_the_rest_is_processed_once_in_order() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter);
    fixture.options.attempts = 2;
    let put = fixture.source.put_many(S0, 8);
    let batches = Arc::default();
    let recorder = fails_at(fixture.recorder(), &[put[5]], &batches);
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG), "{pool:?}");
    let good: Vec<u64> = put.iter().copied().filter(|number| *number != put[5]).collect();
    assert_eq!(fixture.log.records(S0), good);
    let all = &put[..];
    let expected = [all, all, &put[..4], &put[4..6], &put[4..5], &put[5..6], &put[5..6], &put[6..]];
    assert_eq!(*batches.lock(), expected.map(<[u64]>::to_vec));
    let status = status(&pool, S0);
    assert_eq!((status.dead_letters, status.failed_attempts, status.poison), (1, 0, None));
    let letters = fixture.dead_letters();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.shard, letter.sequence_number), (S0, put[5].into()));
    assert_eq!((letter.arrival_ms, letter.attempts), (put[5], 2));
    assert_eq!((letter.partition_key(), letter.data()), ("key", &b""[..]));
    assert_eq!(letter.cause, format!("{} is poison", put[5]));
    pool.shutdown(LONG);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[7]));
}

#[test]
fn a_failure_that_passes_makes_no_dead_letter() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter);
    fixture.options.attempts = 3;
    let put = fixture.source.put_many(S0, 4);
    // As long as it lasts, every batch fails: 3 times as it is, twice in halves, twice alone.
    let failures = AtomicU32::new(0);
    fixture.run(fixture.recorder().on_batch(move |_, _| {
        match failures.fetch_add(1, Ordering::SeqCst) < 6 {
            true => Err("the database is away".into()),
            false => Ok(()),
        }
    }));
    assert_eq!(fixture.log.records(S0), put);
    assert_eq!(fixture.dead_letters().len(), 0);
}

#[test]
fn the_same_batch_comes_again_though_there_are_more_records_by_now() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::Retry);
    fixture.options.attempts = 3;
    let put = fixture.source.put_many(S0, 2);
    let (batches, source) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&fixture.source));
    let seen = Arc::clone(&batches);
    fixture.run(fixture.recorder().on_batch(move |batch, _| {
        let mut batches = seen.lock();
        batches.push(numbers(batch).collect::<Vec<_>>());
        if batches.len() == 1 {
            source.put(S0);
            return Err("not now".into());
        }
        Ok(())
    }));
    assert_eq!(batches.lock()[..2], [put.clone(), put]);
    assert_eq!(fixture.log.records(S0).len(), 3);
}

#[test]
fn by_default_nothing_is_skipped_however_often_it_fails() {
    let fixture = Fixture::new(2).on_poison(OnPoison::default());
    let put = fixture.source.put_many(S0, 4);
    let other = fixture.source.put_many(S1, 4);
    let (third, tries) = (put[2], Arc::new(AtomicU32::new(0)));
    let (tried, is_tried) = crossbeam_channel::unbounded();
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).eq([third]) && tries.fetch_add(1, Ordering::SeqCst) == 100 {
            tried.send(())?;
        }
        match numbers(batch).any(|number| number == third) {
            true => Err("never".into()),
            false => Ok(()),
        }
    }));
    is_tried.recv_timeout(LONG).unwrap();
    assert_eq!(fixture.log.records(S0), put[..2], "what is before it is processed");
    assert_eq!(status(&pool, S0).poison, Some(third.into()));
    pool.shutdown(LONG);
    assert_eq!(fixture.log.records(S1), other);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
    assert_eq!(fixture.dead_letters().len(), 0);
}

#[test]
fn a_parked_shard_is_left_alone_until_the_next_start() {
    let mut fixture = Fixture::new(2).on_poison(OnPoison::Park);
    fixture.options.attempts = 1;
    let put = fixture.source.put_many(S0, 3);
    let batches = Arc::default();
    let pool = fixture.start(fails_at(fixture.recorder(), &[put[1]], &batches));
    wait_for_state(&pool, S0, ShardState::Parked);
    let parked = status(&pool, S0);
    assert_eq!((parked.poison, parked.lag.records), (Some(put[1].into()), 2));
    let other = fixture.source.put(S1);
    while fixture.log.records(S1) != [other] {
        std::thread::yield_now();
    }
    assert!(!pool.wait_until_idle(Duration::ZERO));
    let outcomes = shut_down(pool, LONG);
    assert!(matches!(outcomes[0].1, Outcome::Failed { .. }), "{outcomes:?}");
    assert_eq!(fixture.stored_checkpoint(S0), after(put[0]));
    fixture.run(fixture.recorder());
    assert_eq!(fixture.log.records(S0), put);
}

#[test]
fn a_parked_shard_that_is_resumed_goes_on_when_its_record_can_be_processed() {
    let mut fixture = Fixture::new(2).on_poison(OnPoison::Park);
    fixture.options.attempts = 2;
    let put = fixture.source.put_many(S0, 3);
    let (poison, is_repaired) = (put[1], Arc::new(AtomicBool::new(false)));
    let (repaired, attempts) = (Arc::clone(&is_repaired), Arc::new(AtomicU32::new(0)));
    let counter = Arc::clone(&attempts);
    let pool = fixture.start(fixture.recorder().on_batch(move |batch, _| {
        if numbers(batch).any(|number| number == poison) {
            counter.fetch_add(1, Ordering::SeqCst);
            return if repaired.load(Ordering::SeqCst) { Ok(()) } else { Err("broken".into()) };
        }
        Ok(())
    }));
    wait_for_state(&pool, S0, ShardState::Parked);
    let before = attempts.load(Ordering::SeqCst);
    assert!(!resume(&pool, S1), "it is not parked");
    assert!(resume(&pool, S0));
    wait_for_state(&pool, S0, ShardState::Parked);
    assert_eq!(attempts.load(Ordering::SeqCst), before + 1, "tried once more");
    assert_eq!(fixture.log.records(S0), put[..1]);
    is_repaired.store(true, Ordering::SeqCst);
    assert!(resume(&pool, S0));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.log.records(S0), put);
    assert!(!resume(&pool, S0));
}

#[test]
fn the_pool_stops_by_itself_if_it_is_told_so() {
    let mut fixture = Fixture::new(2).on_poison(OnPoison::Stop);
    fixture.options.attempts = 1;
    let put = fixture.source.put_many(S0, 3);
    let batches = Arc::default();
    let pool = fixture.start(fails_at(fixture.recorder(), &[put[1]], &batches));
    assert!(!pool.wait_until_idle(LONG), "it has stopped");
    let outcomes = shut_down(pool, LONG);
    let error = format!("{} is poison", put[1]);
    assert_eq!(outcomes[0], (S0, Outcome::Failed { attempts: 1, error }));
    assert_eq!(outcomes[1], (S1, Outcome::Stopped));
    assert_eq!(fixture.stored_checkpoint(S0), after(put[0]));
}

#[test]
fn a_record_that_cannot_be_put_aside_is_not_skipped() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter);
    fixture.options.attempts = 1;
    let put = fixture.source.put_many(S0, 2);
    // Something is in the way.
    let in_the_way = fixture.directory.path().join("billing/dead-letters");
    std::fs::create_dir(fixture.directory.path().join("billing")).unwrap();
    std::fs::write(&in_the_way, "no stream").unwrap();
    let batches = Arc::default();
    let pool = fixture.start(fails_at(fixture.recorder(), &put[..1], &batches));
    let says_so = |status: &ShardStatus| {
        status.last_error.as_ref().is_some_and(|error| error.contains("aside"))
    };
    while !says_so(&status(&pool, S0)) {
        std::thread::yield_now();
    }
    assert_eq!(status(&pool, S0).checkpoint, Checkpoint::TrimHorizon);
    assert!(fixture.log.records(S0).is_empty());
    std::fs::remove_file(&in_the_way).unwrap();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.dead_letters().len(), 1);
    assert_eq!(fixture.log.records(S0), put[1..]);
}

#[test]
fn a_dead_letter_moves_no_manual_checkpoint_and_does_not_come_again() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter).manual();
    fixture.options.attempts = 2;
    fixture.options.limit = Limit::records(2);
    let put = fixture.source.put_many(S0, 6);
    let batches = Arc::default();
    let recorder = fails_at(fixture.recorder(), &put[2..3], &batches);
    let fails = AtomicU32::new(0);
    let inner = Arc::clone(&recorder.on_batch);
    // The last record fails once, so that everything comes again.
    let last = put[5];
    let recorder = recorder.on_batch(move |batch, checkpointer| {
        if numbers(batch).any(|n| n == last) && fails.fetch_add(1, Ordering::SeqCst) == 0 {
            return Err("once".into());
        }
        inner(batch, checkpointer)
    });
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG), "{:?}", pool.status());
    assert_eq!(status(&pool, S0).checkpoint, Checkpoint::TrimHorizon);
    assert_eq!(fixture.dead_letters().len(), 1);
    let alone = |batch: &&Vec<u64>| **batch == put[2..3];
    assert_eq!(batches.lock().iter().filter(alone).count(), 2, "{batches:?}");
    // Whoever starts from the same checkpoint finds it again, and does not put it aside twice.
    pool.shutdown(LONG);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
    fixture.run(fails_at(fixture.recorder(), &put[2..3], &batches));
    assert_eq!(fixture.dead_letters().len(), 1);
}

#[test]
fn a_checkpoint_that_cannot_be_stored_makes_no_dead_letter() {
    let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter).manual();
    fixture.options.attempts = 1;
    let put = fixture.source.put_many(S0, 2);
    let (row, whole) = (fixture.row_path(S0), Arc::new(Mutex::new(Vec::new())));
    let (path, before) = (row.clone(), Arc::clone(&whole));
    let failures = AtomicU32::new(0);
    let pool = fixture.start(fixture.recorder().on_batch(move |_, checkpointer| {
        if failures.fetch_add(1, Ordering::SeqCst) == 0 {
            *before.lock() = std::fs::read(&path)?;
            overwrite(&path, &[0; 1024]);
        }
        Ok(checkpointer.checkpoint()?)
    }));
    wait_for_state(&pool, S0, ShardState::Retrying);
    overwrite(&row, &whole.lock());
    assert!(pool.wait_until_idle(LONG), "{:?}", pool.status());
    assert_eq!(fixture.dead_letters().len(), 0);
    assert_eq!(fixture.log.records(S0), put);
}

#[test]
fn every_record_is_processed_or_a_dead_letter_wherever_the_poison_is() {
    for seed in 0..12u64 {
        let mut fixture = Fixture::new(1).on_poison(OnPoison::DeadLetter);
        fixture.options.attempts = 1 + (seed % 3) as u32;
        fixture.options.limit = Limit::records(1 + (seed % 11) as usize);
        if seed % 2 == 1 {
            fixture = fixture.manual();
        }
        let put = fixture.source.put_many(S0, 30);
        let is_poison = |number: &u64| (number.wrapping_mul(seed + 7) % 10) < 3;
        let (poison, good): (Vec<u64>, Vec<u64>) = put.into_iter().partition(is_poison);
        let batches = Arc::default();
        let recorder = fails_at(fixture.recorder(), &poison, &batches);
        let inner = Arc::clone(&recorder.on_batch);
        fixture.run(recorder.on_batch(move |batch, checkpointer| {
            inner(batch, checkpointer)?;
            Ok(checkpointer.checkpoint()?)
        }));
        assert_eq!(fixture.log.records(S0), good, "seed {seed}");
        let dead: Vec<_> = fixture.dead_letters().iter().map(|l| l.sequence_number).collect();
        let poison: Vec<SequenceNumber> = poison.into_iter().map(SequenceNumber::from).collect();
        assert_eq!(dead, poison, "seed {seed}");
    }
}
