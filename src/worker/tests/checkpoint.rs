//! What a checkpoint may be, and whose.

use std::path::Path;

use super::*;
use crate::error::Error;
use crate::worker::Outcome;
use crate::worker::lease::Lease;

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
    let directory = tempfile::tempdir().unwrap();
    let table = ControlTable::open(directory.path(), "billing").unwrap();
    table.create(S0, Checkpoint::TrimHorizon).unwrap();
    let mut old = Lease::take(table.row(S0).unwrap()).unwrap().unwrap();
    old.store(after(1)).unwrap();
    let mut new = Lease::take(table.row(S0).unwrap()).unwrap().unwrap();
    assert!(matches!(old.store(after(2)), Err(Error::LeaseLost { shard: S0 })));
    assert!(old.is_lost());
    assert_eq!(table.row(S0).unwrap().read().unwrap().checkpoint, after(1).position());
    new.store(after(3)).unwrap();
}

/// Makes another owner of the row, of whom the lock of the directory knows nothing.
fn take_lease(row: &Path) -> Result<(), ProcessorError> {
    let elsewhere = tempfile::tempdir()?;
    let table = ControlTable::open(elsewhere.path(), "billing")?;
    std::fs::hard_link(row, table.path().join(row.file_name().unwrap()))?;
    Lease::take(table.row(S0)?)?;
    Ok(())
}

#[test]
fn a_lease_that_is_found_lost_at_the_shutdown_is_reported() {
    let fixture = Fixture::new(1).manual();
    fixture.source.put_many(S0, 2);
    let path = fixture.row_path(S0);
    let mut recorder = fixture.recorder();
    recorder.on_shutdown = Arc::new(move |_, checkpointer| {
        take_lease(&path)?;
        assert!(matches!(checkpointer.checkpoint(), Err(Error::LeaseLost { shard: S0 })));
        Ok(())
    });
    let pool = fixture.start(recorder);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(pool.shutdown(LONG), [(S0, Outcome::LeaseLost)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}

#[test]
fn a_processor_is_told_that_its_lease_is_lost() {
    let fixture = Fixture::new(1);
    fixture.source.put_many(S0, 2);
    let path = fixture.row_path(S0);
    let pool = fixture.start(fixture.recorder().on_batch(move |_, _| take_lease(&path)));
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(status(&pool, S0).state, ShardState::LeaseLost);
    assert_eq!(fixture.log.calls().last(), Some(&Call::LeaseLost(S0)));
    assert_eq!(pool.shutdown(LONG), [(S0, Outcome::LeaseLost)]);
    assert_eq!(fixture.stored_checkpoint(S0), Checkpoint::TrimHorizon);
}
