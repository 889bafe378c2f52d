//! How a pool ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::*;
use crate::error::Error;
use crate::os::clock::Ticker;
use crate::worker::Outcome;

const S0: ShardId = ShardId::new(0);
const S1: ShardId = ShardId::new(1);

/// A processor of shard 0 that says when it has a batch, and waits until it may go on.
fn gate(recorder: Recorder) -> (Recorder, Receiver<()>, Sender<()>) {
    let (entered, has_entered) = unbounded();
    let (release, released) = bounded(0);
    let recorder = recorder.on_batch(move |batch, _| {
        if batch.shard() == S0 {
            entered.send(())?;
            released.recv()?;
        }
        Ok(())
    });
    (recorder, has_entered, release)
}

#[test]
fn every_processor_is_told_of_the_shutdown() {
    let fixture = Fixture::new(3);
    fixture.source.put_many(S0, 2);
    let pool = fixture.start(fixture.recorder());
    assert!(pool.wait_until_idle(LONG));
    let outcomes = shut_down(pool, LONG);
    for shard in [0, 1, 2].map(ShardId::new) {
        assert_eq!(fixture.log.count(&Call::ShutdownRequested(shard)), 1);
        assert!(outcomes.contains(&(shard, Outcome::Stopped)));
    }
}

#[test]
fn a_batch_in_progress_is_finished_and_checkpointed_and_no_other_is_begun() {
    let fixture = Fixture::new(2);
    let put = fixture.source.put_many(S0, 3);
    let (recorder, has_entered, release) = gate(fixture.recorder());
    let pool = fixture.start(release_at_shutdown(recorder, release));
    has_entered.recv().unwrap();
    wait_for_state(&pool, S1, ShardState::Idle);
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Stopped), (S1, Outcome::Stopped)]);
    assert_eq!(fixture.log.records(S0), put[..1]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[0]));
}

#[test]
fn a_callback_that_hangs_is_reported_at_the_deadline() {
    let fixture = Fixture::new(2);
    let put = fixture.source.put_many(S0, 2);
    let (recorder, has_entered, release) = gate(fixture.recorder());
    let pool = fixture.start(recorder.clone());
    has_entered.recv().unwrap();
    assert!(status(&pool, S0).callback_running_for.is_some());
    wait_for_state(&pool, S1, ShardState::Idle);
    let outcomes = shut_down(pool, Duration::from_millis(20));
    assert_eq!(outcomes, [(S0, Outcome::NotFinished), (S1, Outcome::Stopped)]);
    // It still has the shard.
    let table = fixture.table();
    assert_eq!(table.attend().unwrap().len(), 2);
    release.send(()).unwrap();
    wait_until_alone(&table);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[0]));
    assert_eq!(fixture.log.count(&Call::ShutdownRequested(S0)), 0, "nobody waits for it");
}

#[test]
fn a_callback_that_hangs_is_seen_as_stalled() {
    let mut fixture = Fixture::new(2);
    fixture.options.ticker = Ticker::given();
    fixture.source.put(S0);
    let (recorder, has_entered, release) = gate(fixture.recorder());
    let pool = fixture.start(release_at_shutdown(recorder, release));
    has_entered.recv().unwrap();
    wait_for_state(&pool, S1, ShardState::Idle);
    let minute = Duration::from_secs(60);
    fixture.options.ticker.advance(minute - Duration::from_millis(1));
    let of_s0 = status(&pool, S0);
    assert_eq!(of_s0.callback_running_for, Some(minute - Duration::from_millis(1)));
    assert!(!of_s0.is_stalled);
    fixture.options.ticker.advance(Duration::from_millis(1));
    assert!(status(&pool, S0).is_stalled);
    assert!(!status(&pool, S1).is_stalled);
    pool.shutdown(LONG);
}

#[test]
fn dropping_a_pool_waits_for_the_callback_and_keeps_its_checkpoint() {
    let fixture = Fixture::new(2);
    let put = fixture.source.put_many(S0, 3);
    let (recorder, has_entered, release) = gate(fixture.recorder());
    let pool = fixture.start(release_at_shutdown(recorder, release));
    has_entered.recv().unwrap();
    wait_for_state(&pool, S1, ShardState::Idle);
    drop(pool);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[0]));
}

#[test]
fn a_callback_may_drop_its_own_pool() {
    let fixture = Fixture::new(1);
    let put = fixture.source.put(S0);
    let slot = Arc::new(Mutex::new(None::<WorkerPool>));
    let (filled, is_filled) = bounded(1);
    let own = Arc::clone(&slot);
    let pool = fixture.start(fixture.recorder().on_batch(move |_, _| {
        is_filled.recv()?;
        drop(own.lock().take());
        Ok(())
    }));
    *slot.lock() = Some(pool);
    filled.send(()).unwrap();
    wait_until_alone(&fixture.table());
    assert_eq!(fixture.stored_checkpoint(S0), after(put));
}

#[test]
fn a_shard_that_was_to_be_retried_is_reported_as_failed() {
    let mut fixture = Fixture::new(1);
    fixture.options.retry_delay = NEVER;
    fixture.source.put(S0);
    let pool = fixture.start(fixture.recorder().on_batch(|_, _| Err("no".into())));
    wait_for_state(&pool, S0, ShardState::Retrying);
    let failed = Outcome::Failed { attempts: 1, error: "no".into() };
    assert_eq!(shut_down(pool, LONG), [(S0, failed)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_failure_is_reported_though_the_next_attempt_had_just_begun() {
    let mut fixture = Fixture::new(2);
    fixture.options.retry_delay = RetryDelay::exactly(Duration::ZERO, Duration::ZERO);
    fixture.source.put(S0);
    let (entered, has_entered) = unbounded();
    let (release, released) = bounded::<()>(0);
    let begun = AtomicUsize::new(0);
    let mut recorder = fixture.recorder().on_batch(|_, _| Err("no".into()));
    recorder.on_initialize = Arc::new(move |shard| {
        if shard == S0 && begun.fetch_add(1, Ordering::Relaxed) == 1 {
            entered.send(())?;
            released.recv()?;
        }
        Ok(())
    });
    let pool = fixture.start(release_at_shutdown(recorder, release));
    has_entered.recv().unwrap();
    wait_for_state(&pool, S1, ShardState::Idle);
    let failed = Outcome::Failed { attempts: 1, error: "no".into() };
    assert_eq!(shut_down(pool, LONG), [(S0, failed), (S1, Outcome::Stopped)]);
}

#[test]
fn a_panic_at_the_shutdown_is_reported() {
    let fixture = Fixture::new(1);
    let mut recorder = fixture.recorder();
    recorder.on_shutdown = Arc::new(|_, _| panic!("as the test wants it"));
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    let outcomes = shut_down(pool, LONG);
    assert!(matches!(&outcomes[..], [(S0, Outcome::Failed { attempts: 1, .. })]), "{outcomes:?}");
}

#[test]
fn a_manual_processor_can_checkpoint_what_was_delivered_at_the_shutdown() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    let recorder =
        on_shutdown(fixture.recorder(), |_, checkpointer| Ok(checkpointer.checkpoint()?));
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(status(&pool, S0).checkpoint, Checkpoint::TrimHorizon);
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Stopped)]);
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
}

#[test]
fn a_checkpoint_at_the_shutdown_beyond_what_was_delivered_is_an_error() {
    let fixture = Fixture::new(1).manual();
    let last = fixture.source.put_many(S0, 3)[2];
    let recorder = on_shutdown(fixture.recorder(), move |_, checkpointer| {
        let beyond = checkpointer.checkpoint_at(last + 1);
        assert!(matches!(beyond, Err(Error::InvalidCheckpoint { .. })));
        Ok(())
    });
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Stopped)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_checkpoint_at_the_shutdown_changes_nothing_if_nothing_was_delivered() {
    let fixture = Fixture::new(1).manual();
    let recorder = on_shutdown(fixture.recorder(), |_, checkpointer| {
        assert!(checkpointer.checkpoint_at(0).is_err());
        Ok(checkpointer.checkpoint()?)
    });
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Stopped)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

/// Does this as well when it is told of the shutdown.
fn on_shutdown<F>(recorder: Recorder, run: F) -> Recorder
where
    F: Fn(ShardId, &mut Checkpointer<'_>) -> Result<(), ProcessorError> + Send + Sync + 'static,
{
    Recorder { on_shutdown: Arc::new(run), ..recorder }
}

/// Lets the callback of shard 0 go on when shard 1, which is idle, is told of the shutdown.
fn release_at_shutdown(recorder: Recorder, release: Sender<()>) -> Recorder {
    on_shutdown(recorder, move |shard, _| if shard == S1 { Ok(release.send(())?) } else { Ok(()) })
}

/// Waits until every pool of the application has ended.
fn wait_until_alone(table: &ControlTable) {
    while table.attend().unwrap().len() > 1 {
        std::thread::yield_now();
    }
}
