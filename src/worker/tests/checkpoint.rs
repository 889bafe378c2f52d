//! What a checkpoint may be, and whose.

use super::*;
use crate::error::Error;
use crate::worker::Outcome;

const S0: ShardId = ShardId::new(0);

/// Runs `check` in place of processing the records of one batch.
fn check_in_batch(
    fixture: &mut Fixture,
    check: impl Fn(&Batch, &mut Checkpointer<'_>) + Send + Sync + 'static,
) {
    fixture.options.limit = Limit::default();
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        check(batch, checkpointer);
        Ok(())
    }));
    assert!(!fixture.log.records(S0).is_empty(), "the checks have passed");
}

fn is_invalid(result: Result<()>) -> bool {
    matches!(result, Err(Error::InvalidCheckpoint { .. }))
}

#[test]
fn a_checkpoint_beyond_the_batch_is_an_error() {
    let mut fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    let last = put[2];
    check_in_batch(&mut fixture, move |_, checkpointer| {
        assert!(is_invalid(checkpointer.checkpoint_at(last + 1)));
    });
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_checkpoint_below_the_last_one_is_an_error() {
    let mut fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    check_in_batch(&mut fixture, |batch, checkpointer| {
        checkpointer.checkpoint_at(&batch.get(1).unwrap()).unwrap();
        assert!(is_invalid(checkpointer.checkpoint_at(&batch.get(0).unwrap())));
    });
    assert_eq!(fixture.stored_checkpoint(S0), after(put[1]));
}

#[test]
fn the_last_checkpoint_once_more_changes_nothing() {
    let mut fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    let path = fixture.row_path(S0);
    check_in_batch(&mut fixture, move |_, checkpointer| {
        checkpointer.checkpoint().unwrap();
        let stored = std::fs::read(&path).unwrap();
        checkpointer.checkpoint().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), stored);
    });
    assert_eq!(fixture.stored_checkpoint(S0), after(put[2]));
}

#[test]
fn a_manual_checkpoint_may_lie_in_an_earlier_batch() {
    let fixture = Fixture::new(1).manual();
    let put = fixture.source.put_many(S0, 3);
    let (second, third) = (put[1], put[2]);
    fixture.run(fixture.recorder().on_batch(move |batch, checkpointer| {
        if batch.last_sequence_number() == Some(third.into()) {
            checkpointer.checkpoint_at(second)?;
        }
        Ok(())
    }));
    assert_eq!(fixture.stored_checkpoint(S0), after(second));
}

#[test]
fn the_old_owner_of_a_lease_moves_nothing() {
    let fixture = Fixture::new(1);
    let pool = fixture.start(fixture.recorder());
    pool.shutdown(LONG);
    let mut old = fixture.take_lease(S0);
    old.store(after(1), Vec::new()).unwrap();
    let mut new = fixture.take_lease(S0);
    assert!(matches!(old.store(after(2), Vec::new()), Err(Error::LeaseLost { shard: S0 })));
    assert!(old.is_lost());
    assert_eq!(fixture.stored_checkpoint(S0), after(1));
    new.store(after(3), Vec::new()).unwrap();
    assert!(old.release().is_err());
    new.store(after(4), Vec::new()).unwrap();
}

#[test]
fn a_lease_that_is_found_lost_at_the_shutdown_is_reported() {
    let fixture = Fixture::new(1).manual();
    fixture.source.put_many(S0, 2);
    let path = fixture.directory.path().to_owned();
    let mut recorder = fixture.recorder();
    recorder.on_shutdown = Arc::new(move |_, checkpointer| {
        take_lease(&path, S0);
        assert!(matches!(checkpointer.checkpoint(), Err(Error::LeaseLost { shard: S0 })));
        Ok(())
    });
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Elsewhere)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_processor_is_told_that_its_lease_is_lost() {
    let fixture = Fixture::new(1);
    fixture.source.put_many(S0, 2);
    let (path, taken) = (fixture.directory.path().to_owned(), Arc::new(Mutex::new(None)));
    let slot = Arc::clone(&taken);
    let pool = fixture.start(fixture.recorder().on_batch(move |_, _| {
        slot.lock().get_or_insert_with(|| take_lease(&path, S0));
        Ok(())
    }));
    wait_for_state(&pool, S0, ShardState::Elsewhere);
    assert_eq!(fixture.log.calls().last(), Some(&Call::LeaseLost(S0)));
    assert_eq!(shut_down(pool, LONG), [(S0, Outcome::Elsewhere)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}
