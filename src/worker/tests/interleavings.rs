//! Owners of one lease who take it from each other, in interleavings that chance chooses: between
//! any two looks at its row and changes of it, the others may do anything.

use super::remote_table::{Database, RemoteTable};
use super::*;
use crate::format::control_row::ControlRow;
use crate::os::clock::Ticker;
use crate::os::explore::explore;
use crate::os::sync_model::engine::thread::spawn;
use crate::position::StartingPosition;

const SHARD: ShardId = ShardId::new(0);

/// What has happened, in order.
#[derive(Default)]
struct Ledger {
    processed: u64,
    /// Each checkpoint that was stored: the epoch of the owner, and how far it says.
    stored: Vec<(u64, u64)>,
}

fn how_far(checkpoint: Checkpoint) -> u64 {
    match checkpoint {
        Checkpoint::TrimHorizon => 0,
        Checkpoint::AfterSequenceNumber(number) => number.address().unwrap(),
        other => panic!("nobody stores {other:?}"),
    }
}

/// Takes the lease whoever has it, so many times, and processes two records each time, unless the
/// lease is taken away before.
fn own(table: &Arc<dyn LeaseTable>, ledger: &Mutex<Ledger>, times: u32) {
    for turn in 0..times {
        let row = table.read(SHARD).unwrap();
        let Some(mut lease) = Lease::take(Arc::clone(table), &info(SHARD), &row).unwrap() else {
            continue;
        };
        let epoch = lease.epoch();
        for _ in 0..2 {
            if lease.check().is_err() {
                break;
            }
            let next = how_far(lease.checkpoint()) + 1;
            {
                let mut ledger = ledger.lock();
                ledger.processed = ledger.processed.max(next);
            }
            let checkpoint = Checkpoint::AfterSequenceNumber(next.into());
            match lease.store(checkpoint, Vec::new()) {
                Ok(()) => ledger.lock().stored.push((epoch, next)),
                Err(error) => {
                    assert!(matches!(error, crate::Error::LeaseLost { .. }), "{error}");
                    break;
                }
            }
        }
        if turn.is_multiple_of(2) {
            let _ = lease.release();
        }
    }
}

#[test]
fn a_lease_that_many_take_from_each_other_moves_its_checkpoint_only_forward() {
    explore("three owners of one lease, and one who asks for it", || {
        let (database, ticker) = (Arc::new(Database::default()), Ticker::given());
        let connect =
            || -> Arc<dyn LeaseTable> { Arc::new(RemoteTable::connect(&database, &ticker, LONG)) };
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let first = connect();
        first
            .make_rows(&|_| {
                Ok(vec![(SHARD, ControlRow::new(Some(StartingPosition::TrimHorizon), None))])
            })
            .unwrap();
        let owners = [2, 2, 3].map(|times| {
            let (table, ledger) = (connect(), Arc::clone(&ledger));
            spawn(move || own(&table, &ledger, times))
        });
        // A request changes the row under its owner, who goes on all the same.
        for _ in 0..2 {
            let seen = first.read(SHARD).unwrap();
            let (generation, wanted_by) = (seen.generation + 1, Some(first.me()));
            first.replace(SHARD, &ControlRow { generation, wanted_by, ..seen }).unwrap();
        }
        for owner in owners {
            owner.join().unwrap();
        }
        let ledger = ledger.lock();
        let epochs_rise = ledger.stored.is_sorted_by_key(|(epoch, _)| *epoch);
        assert!(epochs_rise, "only the last owner stores: {:?}", ledger.stored);
        let steps: Vec<_> = ledger.stored.iter().map(|(_, far)| *far).collect();
        let expected: Vec<_> = (1..=steps.len() as u64).collect();
        assert_eq!(steps, expected, "each goes on where the one before it was");
        let row = first.read(SHARD).unwrap();
        assert_eq!(how_far(Checkpoint::at(row.checkpoint)), steps.len() as u64);
        assert!(ledger.processed >= steps.len() as u64, "no checkpoint is ahead");
    });
}
