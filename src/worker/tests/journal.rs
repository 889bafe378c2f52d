//! What happens is counted, and told to those who listen: on one thread, step by step.

use std::collections::BTreeSet;
use std::sync::Weak;

use super::remote_table::{Database, RemoteTable};
use super::*;
use crate::metrics::{ShardCounts, ShardMetrics, Snapshot};
use crate::os::clock::Ticker;
use crate::record::Lag;
use crate::worker::OnPoison;
use crate::worker::crew::Queue;
use crate::worker::life::Stage;
use crate::worker::status::Board;
use crate::worker::supervisor::Supervisor;

const S0: ShardId = ShardId::new(0);
const LIMIT: Duration = Duration::from_secs(60);

/// A pool whose threads are this one.
pub(super) struct Stepped {
    pub(super) board: Arc<Board>,
    supervisor: Mutex<Option<Supervisor<Arc<Script>>>>,
    thread: Mutex<Option<Queue<Arc<Script>>>>,
    pub(super) ticker: Ticker,
}

impl Stepped {
    /// A pool of the fixture's application; its processors can make it take steps, too.
    fn start(
        fixture: &mut Fixture,
        on_batch: impl Fn(&Self, &Batch) -> Result<(), ProcessorError> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let recorder = fixture.recorder();
        Self::with_factory(fixture, |stepped| {
            let on_batch = Arc::new(on_batch);
            let recorder = recorder.on_batch(move |batch, _| {
                let stepped: Arc<Self> = stepped.upgrade().unwrap();
                on_batch(&stepped, batch)
            });
            Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
                Box::new(Recorder { shard: shard.id, ..recorder.clone() })
            })
        })
    }

    /// A pool with these processors.
    pub(super) fn with_factory(
        fixture: &mut Fixture,
        factory: impl FnOnce(Weak<Self>) -> Factory,
    ) -> Arc<Self> {
        let table = fixture.table();
        Self::with_table(fixture, table, factory)
    }

    /// A pool whose leases are in this table.
    pub(super) fn with_table(
        fixture: &mut Fixture,
        table: Arc<dyn LeaseTable>,
        factory: impl FnOnce(Weak<Self>) -> Factory,
    ) -> Arc<Self> {
        if matches!(fixture.options.ticker, Ticker::System) {
            fixture.options.ticker = Ticker::given();
        }
        fixture.options.stall_limit = LIMIT;
        let path = fixture.directory.path().join("billing");
        Arc::new_cyclic(|stepped| {
            let factory = factory(stepped.clone());
            let (source, options) = (Arc::clone(&fixture.source), fixture.options.clone());
            let common = Common::new();
            let shared = Shared::new(source, table, &path, options, factory, &common);
            let (board, ticker) = (Arc::clone(&shared.board), shared.options.ticker.clone());
            let supervisor = Supervisor::new(Arc::new(shared), &common.queue).unwrap();
            let thread = Mutex::new(Some(common.queue));
            Self { board, supervisor: Mutex::new(Some(supervisor)), thread, ticker }
        })
    }

    fn step_supervisor(&self) {
        let mut supervisor = self.supervisor.lock();
        if supervisor.as_mut().is_some_and(|supervisor| supervisor.step().is_none()) {
            *supervisor = None;
        }
    }

    /// As many steps as there is something to do for.
    pub(super) fn run(&self) {
        for _ in 0..50 {
            self.step_supervisor();
            if let Some(thread) = &*self.thread.lock() {
                thread.run_once();
            }
        }
    }

    fn metrics(&self) -> ShardMetrics {
        self.snapshot().shards.remove(0)
    }

    fn snapshot(&self) -> Snapshot {
        let lag = |_, _| Ok(Lag::default());
        self.board.metrics(self.ticker.now(), LIMIT, lag)
    }

    /// The shards that it has.
    fn leases(&self) -> BTreeSet<ShardId> {
        let shards = self.snapshot().shards.into_iter();
        shards.filter(|shard| shard.is_leased).map(|shard| shard.shard).collect()
    }

    fn counts(&self) -> ShardCounts {
        self.metrics().counts
    }
}

#[test]
fn a_stall_is_told_once_while_the_callback_runs() {
    let mut fixture = Fixture::new(1);
    fixture.source.put_many(S0, 2);
    let pool = Stepped::start(&mut fixture, |pool, _| {
        let before = pool.counts().stalls;
        pool.step_supervisor();
        pool.ticker.advance(LIMIT - Duration::from_millis(1));
        pool.step_supervisor();
        assert_eq!(pool.counts().stalls, before);
        assert!(!pool.metrics().is_stalled);
        for _ in 0..3 {
            pool.ticker.advance(Duration::from_millis(1));
            pool.step_supervisor();
            assert_eq!(pool.counts().stalls, before + 1);
            assert!(pool.metrics().is_stalled);
        }
        Ok(())
    });
    pool.run();
    assert_eq!(pool.counts().stalls, 2, "each of two callbacks");
    assert_eq!(pool.counts().process_records_time, 2 * (LIMIT + Duration::from_millis(2)));
    assert!(!pool.metrics().is_stalled);
    assert_eq!(pool.metrics().callback_running_for, None);
}

#[test]
fn a_callback_that_hangs_while_the_pool_stops_is_told_as_a_stall() {
    let mut fixture = Fixture::new(1);
    fixture.source.put(S0);
    let pool = Stepped::start(&mut fixture, |pool, _| {
        pool.board.enter(Stage::Stopping);
        pool.step_supervisor();
        pool.ticker.advance(LIMIT);
        pool.step_supervisor();
        assert_eq!(pool.counts().stalls, 1);
        Ok(())
    });
    pool.run();
    assert_eq!(pool.board.stage(), Stage::Finished);
}

#[test]
fn what_was_processed_and_what_failed_is_counted() {
    let mut fixture = Fixture::new(1);
    fixture.options.attempts = 1;
    fixture.options.on_poison = OnPoison::DeadLetter;
    let put = fixture.source.put_many(S0, 3);
    let poison = put[1];
    let pool = Stepped::start(&mut fixture, move |_, batch| {
        if numbers(batch).any(|number| number == poison) { Err("twelve".into()) } else { Ok(()) }
    });
    pool.run();
    let counts = pool.counts();
    assert_eq!((counts.failures, counts.dead_letters, counts.leases_taken), (1, 1, 1));
    assert_eq!((counts.records_processed, counts.batches_processed), (3, 3));
    assert!(pool.metrics().is_leased);
}

#[test]
fn a_lease_that_is_lost_or_handed_over_is_counted() {
    let mut fixture = Fixture::new(1);
    let pool = Stepped::start(&mut fixture, |_, _| Ok(()));
    pool.run();
    let thief = fixture.take_lease(S0);
    pool.ticker.advance(Duration::from_secs(1));
    pool.run();
    assert_eq!((pool.counts().leases_lost, pool.counts().leases_handed_over), (1, 0));
    assert!(!pool.metrics().is_leased);
    assert_eq!(pool.metrics().lag, None, "the one that has the shard tells");
    drop(thief);
    pool.ticker.advance(Duration::from_secs(1));
    pool.run();
    assert_eq!(pool.counts().leases_taken, 2);
    let table = fixture.table();
    let mut row = table.read(S0).unwrap();
    row.generation += 1;
    row.wanted_by = Some(table.me());
    assert!(table.replace(S0, &row).unwrap());
    pool.ticker.advance(Duration::from_secs(1));
    pool.run();
    assert_eq!((pool.counts().leases_lost, pool.counts().leases_handed_over), (1, 1));
}

#[test]
fn shares_are_even_when_a_pool_joins_and_what_a_dead_one_had_is_owned_again_in_time() {
    const EXPIRY: Duration = Duration::from_secs(10);
    let mut fixture = Fixture::new(4);
    fixture.options.ticker = Ticker::given();
    let ticker = fixture.options.ticker.clone();
    let database = Arc::<Database>::default();
    let mut join = || {
        let table = Arc::new(RemoteTable::connect(&database, &ticker, EXPIRY));
        let recorder = fixture.recorder();
        Stepped::with_table(&mut fixture, table, |_| {
            Box::new(move |shard: &ShardInfo| -> Box<dyn RecordProcessor> {
                Box::new(Recorder { shard: shard.id, ..recorder.clone() })
            })
        })
    };
    let run = |pools: &[&Stepped], time: Duration| {
        let until = ticker.now() + time;
        while ticker.now() < until {
            pools.iter().for_each(|pool| pool.run());
            ticker.advance(Duration::from_millis(500));
        }
    };
    let counts = |pools: &[&Stepped]| -> Vec<usize> {
        pools.iter().map(|pool| pool.leases().len()).collect()
    };
    let one = join();
    run(&[&one], EXPIRY / 5);
    let two = join();
    run(&[&one, &two], EXPIRY / 5);
    assert_eq!(counts(&[&one, &two]), [2, 2]);
    let three = join();
    run(&[&one, &two, &three], EXPIRY / 5);
    let mut spread = counts(&[&one, &two, &three]);
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
    let switches = || database.rows().values().map(|row| row.epoch).sum::<u64>();
    let (before, orphans) = (switches(), one.leases());
    // Nothing is heard of the first one any more.
    run(&[&two, &three], EXPIRY + EXPIRY / 5);
    let all: BTreeSet<_> = two.leases().union(&three.leases()).copied().collect();
    assert_eq!((all.len(), counts(&[&two, &three])), (4, vec![2, 2]));
    assert_eq!(switches(), before + orphans.len() as u64);
}

#[cfg(feature = "tracing")]
mod events {
    use std::cell::RefCell;
    use std::fmt::{Debug, Write};
    use std::sync::Once;

    use tracing::field::{Field, Visit};
    use tracing::{Metadata, Subscriber, span};

    use super::*;

    thread_local! {
        /// What this thread has heard: level, message, and the fields that are not the same in all.
        static HEARD: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
    }

    /// One for the whole process: what is registered by other threads is not heard by one that is
    /// a thread's own.
    struct Listener;

    #[derive(Default)]
    struct Text {
        message: String,
        fields: String,
    }

    impl Visit for Text {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            match field.name() {
                "message" => self.message = format!("{value:?}"),
                "application" => assert_eq!(format!("{value:?}"), r#""billing""#),
                "stream" => assert!(!format!("{value:?}").is_empty()),
                name => write!(self.fields, " {name}={value:?}").unwrap(),
            }
        }
    }

    impl Subscriber for Listener {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("millstream")
        }

        fn event(&self, event: &tracing::Event<'_>) {
            HEARD.with_borrow_mut(|heard| {
                let Some(heard) = heard else { return };
                let mut text = Text::default();
                event.record(&mut text);
                let level = event.metadata().level();
                heard.push(format!("{level} {}:{}", text.message, text.fields));
            });
        }

        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            panic!("there are only events");
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    /// What is heard while this runs.
    fn heard(run: impl FnOnce()) -> Vec<String> {
        static LISTENING: Once = Once::new();
        LISTENING.call_once(|| tracing::subscriber::set_global_default(Listener).unwrap());
        tracing::callsite::rebuild_interest_cache();
        HEARD.set(Some(Vec::new()));
        run();
        let heard = HEARD.take().unwrap();
        heard.iter().map(|event| event.replace("shard=shardId-000000000000", "S0")).collect()
    }

    #[test]
    fn the_life_of_a_worker_is_told_as_events() {
        let mut fixture = Fixture::new(1);
        fixture.options.attempts = 2;
        fixture.options.on_poison = OnPoison::DeadLetter;
        let put = fixture.source.put_many(S0, 2);
        let poison = put[0];
        let events = heard(|| {
            let pool = Stepped::start(&mut fixture, move |pool, batch| {
                if numbers(batch).any(|number| number == poison) {
                    return Err("no number".into());
                }
                pool.ticker.advance(LIMIT);
                pool.step_supervisor();
                Ok(())
            });
            for _ in 0..3 {
                pool.run();
                pool.ticker.advance(Duration::from_secs(1));
            }
            fixture.source.close(&[S0]);
            pool.run();
            pool.board.enter(Stage::Stopping);
            pool.run();
        });
        let of_s0: Vec<_> = events.iter().filter(|event| !event.contains("shardId-")).collect();
        assert_eq!(
            of_s0,
            [
                "INFO lease taken: S0 epoch=1",
                "INFO worker started: S0 attempt=1",
                r#"WARN worker failed: S0 attempts=1 error="no number""#,
                "INFO worker started: S0 attempt=2",
                r#"WARN worker failed: S0 attempts=2 error="no number""#,
                "WARN poison: S0 sequence_number=1",
                "WARN dead-lettered: S0 sequence_number=1",
                "INFO worker started: S0 attempt=1",
                r#"WARN stalled: S0 callback="process_records" running_ms=60000"#,
                r#"INFO stall over: S0 callback="process_records" ran_ms=60000"#,
                "INFO shard ended: S0",
                "INFO shutting down:",
            ]
        );
        assert!(
            events.last().unwrap().starts_with("INFO worker stopped: shard=shardId-00000000000")
        );
    }

    #[test]
    fn what_becomes_of_leases_is_told_as_events() {
        let mut fixture = Fixture::new(1);
        fixture.options.attempts = 1;
        fixture.options.on_poison = OnPoison::Park;
        let events = heard(|| {
            let pool = Stepped::start(&mut fixture, |_, _| Err("never".into()));
            pool.run();
            let thief = fixture.take_lease(S0);
            pool.ticker.advance(Duration::from_secs(1));
            pool.run();
            drop(thief);
            fixture.source.put(S0);
            pool.ticker.advance(Duration::from_secs(1));
            pool.run();
            let table = fixture.table();
            let mut row = table.read(S0).unwrap();
            row.generation += 1;
            row.wanted_by = Some(table.me());
            table.replace(S0, &row).unwrap();
            pool.ticker.advance(Duration::from_secs(1));
            pool.run();
        });
        assert_eq!(
            events,
            [
                "INFO lease taken: S0 epoch=1",
                "INFO worker started: S0 attempt=1",
                "WARN lease lost: S0",
                "INFO lease taken: S0 epoch=3",
                "INFO worker started: S0 attempt=1",
                r#"WARN worker failed: S0 attempts=1 error="never""#,
                "WARN poison: S0 sequence_number=1",
                "ERROR parked: S0",
                "INFO lease handed over: S0",
            ]
        );
    }
}
