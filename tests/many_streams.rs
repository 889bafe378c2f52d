//! One pool that consumes several streams: what they share, and what each keeps to itself.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millstream::{
    Application, Batch, Checkpointer, DeadLetters, EmitBuffer, Error, JsonLines, Limit, OnPoison,
    Outcome, ProcessorError, ShardState, ShardStatus, Stream, WorkerPool, WorkerPoolBuilder,
};
use tempfile::TempDir;

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(60);

/// Streams side by side, and what was processed of them: the stream's name and the record's data.
struct Fixture {
    directory: TempDir,
    streams: Vec<Stream>,
    processed: Arc<Mutex<Vec<String>>>,
}

impl Fixture {
    /// A stream for each of these names, with so many shards.
    fn new(streams: &[(&str, u32)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = |(name, shards): &(&str, u32)| {
            Stream::builder(directory.path().join(name)).shards(*shards).open().unwrap()
        };
        let streams = streams.iter().map(open).collect();
        Self { directory, streams, processed: Arc::default() }
    }

    /// Puts so many records to each stream: `name number`.
    fn put(&self, count: usize) {
        for stream in &self.streams {
            for number in 0..count {
                stream.put(&format!("key-{number}"), format!("{number}")).unwrap();
            }
        }
    }

    fn builder(&self) -> WorkerPoolBuilder {
        let builder = WorkerPool::builder("billing", &self.streams[0])
            .retry_delay(Duration::from_millis(1), Duration::from_millis(1))
            .look_interval(Duration::from_millis(5));
        self.streams[1..].iter().fold(builder, WorkerPoolBuilder::stream)
    }

    /// Notes what it processes, after this was done with it.
    fn start_with<F>(&self, builder: WorkerPoolBuilder, on_batch: F) -> WorkerPool
    where
        F: Fn(&str, &Batch) -> Result<(), ProcessorError> + Send + Sync + 'static,
    {
        let (processed, on_batch) = (Arc::clone(&self.processed), Arc::new(on_batch));
        let factory = move |stream: &Stream, _: &_| {
            let (name, on_batch) = (name(stream.path()), Arc::clone(&on_batch));
            let processed = Arc::clone(&processed);
            move |batch: &Batch, _: &mut Checkpointer<'_>| {
                on_batch(&name, batch)?;
                let text = |data: &[u8]| String::from_utf8_lossy(data).into_owned();
                let records = batch.iter().map(|record| format!("{name} {}", text(record.data())));
                processed.lock().unwrap().extend(records);
                Ok(())
            }
        };
        builder.start_by_stream(factory).unwrap()
    }

    fn start(&self) -> WorkerPool {
        self.start_with(self.builder(), |_, _| Ok(()))
    }

    /// How many records were processed, by stream.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for record in &*self.processed.lock().unwrap() {
            *counts.entry(record.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        counts
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn of<'a>(status: &'a [ShardStatus], stream: &str) -> Vec<&'a ShardStatus> {
    status.iter().filter(|it| name(Path::new(&*it.stream)) == stream).collect()
}

/// Waits until it is so of the status.
#[track_caller]
fn wait_for(pool: &WorkerPool, mut is_so: impl FnMut(&[ShardStatus]) -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so(&pool.status()) {
        assert!(Instant::now() < deadline, "{:?}", pool.status());
        std::thread::yield_now();
    }
}

#[test]
fn every_stream_is_processed_and_keeps_its_own_checkpoints() {
    let fixture = Fixture::new(&[("orders", 3), ("returns", 2)]);
    fixture.put(50);
    let pool = fixture.start();
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.counts(), BTreeMap::from([("orders".into(), 50), ("returns".into(), 50)]));
    let places = |status: &[ShardStatus]| -> Vec<(String, u32)> {
        let place = |it: &ShardStatus| (name(Path::new(&*it.stream)), it.shard.index());
        status.iter().map(place).collect()
    };
    let all = [("orders", 0), ("orders", 1), ("orders", 2), ("returns", 0), ("returns", 1)];
    let all = all.map(|(stream, shard)| (stream.to_owned(), shard));
    assert_eq!(places(&pool.status()), all);
    let metrics = pool.metrics();
    let processed = metrics.shards.iter().map(|shard| shard.counts.records_processed).sum::<u64>();
    assert_eq!((metrics.shards.len(), processed), (5, 100));
    let outcomes = pool.shutdown(LONG);
    assert_eq!(outcomes.len(), 5);
    assert!(outcomes.iter().all(|shard| shard.outcome == Outcome::Stopped), "{outcomes:?}");
    for stream in &fixture.streams {
        let shards = Application::of("billing", stream).unwrap().shards().unwrap();
        assert_eq!(shards.iter().map(|shard| shard.lag.records).sum::<u64>(), 0);
        // A pool of one of them goes on behind that.
        let alone = WorkerPool::builder("billing", stream)
            .start(|_| |batch: &Batch, _: &mut Checkpointer<'_>| panic!("again: {batch:?}"))
            .unwrap();
        assert!(alone.wait_until_idle(LONG));
    }
}

#[test]
fn streams_take_turns_on_one_thread() {
    let fixture = Fixture::new(&[("large", 1), ("small", 1)]);
    fixture.put(10);
    for number in 10..500 {
        fixture.streams[0].put("key", format!("{number}")).unwrap();
    }
    let builder = fixture.builder().threads(1).limit(Limit::records(1));
    let pool = fixture.start_with(builder, |_, _| Ok(()));
    assert!(pool.wait_until_idle(LONG));
    let processed = fixture.processed.lock().unwrap();
    let last = processed.iter().rposition(|record| record.starts_with("small")).unwrap();
    assert!(last < 25, "the last of ten is the {last}th");
}

#[test]
fn a_stream_whose_directory_is_gone_does_not_stop_the_others() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    fixture.put(1);
    let pool = fixture.start();
    assert!(pool.wait_until_idle(LONG));
    fs::remove_dir_all(fixture.directory.path().join("orders")).unwrap();
    wait_for(&pool, |status| of(status, "orders")[0].last_error.is_some());
    fixture.streams[1].put("key", "after").unwrap();
    wait_for(&pool, |status| of(status, "returns")[0].records_processed == 2);
    assert_eq!(of(&pool.status(), "returns")[0].last_error, None);
    let outcomes = pool.shutdown(LONG);
    assert_eq!(outcomes.len(), 2);
    assert_eq!(outcomes[1].outcome, Outcome::Stopped, "{outcomes:?}");
}

#[test]
fn a_stream_with_a_damaged_row_does_not_stop_the_others() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    let pool = fixture.start();
    assert!(pool.wait_until_idle(LONG));
    let row = "orders/applications/billing/shardId-000000000000.row";
    let row = fs::File::options().write(true).open(fixture.directory.path().join(row)).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&row, &[0; 1024], 0).unwrap();
    fixture.put(1);
    wait_for(&pool, |status| of(status, "orders")[0].state == ShardState::Retrying);
    wait_for(&pool, |status| of(status, "returns")[0].records_processed == 1);
    assert_eq!(fixture.counts(), BTreeMap::from([("returns".into(), 1)]));
}

#[test]
fn poison_in_a_stream_is_dealt_with_there() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    fixture.put(3);
    let builder = fixture.builder().attempts(1).on_poison(OnPoison::DeadLetter);
    let pool = fixture.start_with(builder, |stream, batch| {
        let is_poison = stream == "returns" && batch.iter().any(|record| record.data() == b"1");
        if is_poison { Err("poison".into()) } else { Ok(()) }
    });
    assert!(pool.wait_until_idle(LONG));
    let letters = |stream| DeadLetters::of("billing", stream).unwrap().list().unwrap().len();
    assert_eq!(fixture.streams.iter().map(letters).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(fixture.counts(), BTreeMap::from([("orders".into(), 3), ("returns".into(), 2)]));
}

#[test]
fn a_parked_shard_is_resumed_in_its_stream() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    fixture.put(1);
    let fails = Arc::new(Mutex::new(true));
    let is_down = Arc::clone(&fails);
    let builder = fixture.builder().attempts(1).on_poison(OnPoison::Park);
    let pool = fixture.start_with(builder, move |_, _| match *is_down.lock().unwrap() {
        true => Err("down".into()),
        false => Ok(()),
    });
    wait_for(&pool, |status| status.iter().all(|it| it.state == ShardState::Parked));
    *fails.lock().unwrap() = false;
    let [orders, returns] = &fixture.streams[..] else { panic!() };
    let shard = returns.shards()[0].id;
    assert!(pool.resume(returns.path(), shard));
    wait_for(&pool, |status| of(status, "returns")[0].state == ShardState::Idle);
    assert_eq!(of(&pool.status(), "orders")[0].state, ShardState::Parked);
    assert!(!pool.resume(fixture.directory.path(), shard), "that is no stream of the pool");
    assert!(pool.resume(orders.path(), shard));
    assert!(pool.wait_until_idle(LONG));
}

#[test]
fn poison_stops_the_whole_pool_if_that_is_the_policy() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 2)]);
    fixture.streams[0].put("key", "data").unwrap();
    let builder = fixture.builder().attempts(1).on_poison(OnPoison::Stop);
    let pool = fixture.start_with(builder, |_, _| Err("poison".into()));
    assert!(!pool.wait_until_idle(LONG));
    assert!(matches!(pool.add_stream(&fixture.streams[0]), Err(Error::InvalidArgument(_))));
    let outcomes = pool.shutdown(LONG);
    assert!(matches!(outcomes[0].outcome, Outcome::Failed { .. }), "{outcomes:?}");
    assert_eq!((&outcomes[1].outcome, outcomes.len()), (&Outcome::Stopped, 3));
}

#[test]
fn a_callback_that_hangs_in_one_stream_is_reported_and_the_others_stop() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    fixture.put(1);
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let pool = fixture.start_with(fixture.builder().threads(2), move |stream, _| {
        if stream == "orders" {
            // Until nobody is there who would wake it.
            let _ = wait.lock().unwrap().recv();
        }
        Ok(())
    });
    wait_for(&pool, |status| {
        of(status, "orders")[0].callback_running_for.is_some()
            && of(status, "returns")[0].state == ShardState::Idle
    });
    let outcomes = pool.shutdown(Duration::from_millis(20));
    let outcomes: Vec<_> = outcomes.into_iter().map(|shard| shard.outcome).collect();
    assert_eq!(outcomes, [Outcome::NotFinished, Outcome::Stopped]);
    drop(go_on);
}

#[test]
fn streams_come_and_go_while_the_pool_runs() {
    let fixture = Fixture::new(&[("orders", 2), ("returns", 2)]);
    let [orders, returns] = &fixture.streams[..] else { panic!() };
    let pool = fixture.start_with(WorkerPool::builder("billing", orders), |_, _| Ok(()));
    fixture.put(10);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.counts(), BTreeMap::from([("orders".into(), 10)]));
    pool.add_stream(returns).unwrap();
    let error = pool.add_stream(returns).unwrap_err();
    assert!(error.to_string().contains("consumed already"), "{error}");
    assert!(pool.wait_until_idle(LONG));
    fixture.put(10);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.counts(), BTreeMap::from([("orders".into(), 20), ("returns".into(), 20)]));

    assert_eq!(pool.remove_stream(fixture.directory.path(), LONG), []);
    let outcomes = pool.remove_stream(orders.path(), LONG);
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|shard| shard.outcome == Outcome::Stopped), "{outcomes:?}");
    assert!(of(&pool.status(), "orders").is_empty());
    // Another pool has it at once, and the first one goes on with the rest.
    let other = fixture.start_with(WorkerPool::builder("billing", orders), |_, _| Ok(()));
    fixture.put(10);
    assert!(pool.wait_until_idle(LONG) && other.wait_until_idle(LONG));
    assert_eq!(fixture.counts(), BTreeMap::from([("orders".into(), 30), ("returns".into(), 30)]));
    pool.remove_stream(returns.path(), LONG);
    assert!(pool.status().is_empty() && pool.wait_until_idle(LONG));
    other.shutdown(LONG);
    pool.add_stream(orders).unwrap();
    fixture.put(1);
    assert!(pool.wait_until_idle(LONG));
    assert_eq!(fixture.counts()["orders"], 31);
}

#[test]
fn pools_share_many_streams_of_one_shard_evenly() {
    let names = ["a", "b", "c", "d", "e"];
    let fixture = Fixture::new(&names.map(|name| (name, 1)));
    let one = fixture.start();
    assert!(one.wait_until_idle(LONG));
    let two = fixture.start();
    let has =
        |pool: &WorkerPool| pool.metrics().shards.iter().filter(|shard| shard.is_leased).count();
    wait_for(&one, |_| matches!((has(&one), has(&two)), (3, 2) | (2, 3)));
    drop(one);
    wait_for(&two, |_| has(&two) == 5);
}

#[test]
fn idle_means_that_nothing_is_on_its_way_from_one_stream_to_another() {
    let fixture = Fixture::new(&[("orders", 1), ("invoices", 1), ("letters", 1)]);
    let [orders, invoices, letters] = &fixture.streams[..] else { panic!() };
    let (to_invoices, to_letters) = (invoices.clone(), letters.clone());
    let pool = fixture.start_with(fixture.builder().threads(3), move |stream, batch| {
        for record in batch {
            match stream {
                "orders" => drop(to_invoices.put(record.partition_key(), record.data())?),
                "invoices" => drop(to_letters.put(record.partition_key(), record.data())?),
                _ => {}
            }
        }
        Ok(())
    });
    for count in 1..=100 {
        orders.put("key", "data").unwrap();
        assert!(pool.wait_until_idle(LONG));
        assert_eq!(fixture.counts()["letters"], count);
    }
}

#[test]
fn a_stream_is_there_once() {
    let fixture = Fixture::new(&[("orders", 1)]);
    let builder = fixture.builder().stream(&fixture.streams[0]);
    let start = builder.start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()));
    assert!(start.unwrap_err().to_string().contains("is there twice"));
}

#[test]
fn each_stream_has_emitters_of_its_own() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    fixture.put(3);
    let archive = fixture.directory.path().join("archive");
    let directory = archive.clone();
    let pool = fixture
        .builder()
        .start_emitting_by_stream(EmitBuffer::default().items(3), move |stream, _| {
            JsonLines::new(directory.join(name(stream.path())))
        })
        .unwrap();
    assert!(pool.wait_until_idle(LONG));
    pool.shutdown(LONG);
    for stream in ["orders", "returns"] {
        let file = fs::read_dir(archive.join(stream)).unwrap().next().unwrap().unwrap();
        assert_eq!(fs::read_to_string(file.path()).unwrap().lines().count(), 3);
    }
}

#[test]
fn a_pool_is_one_member_in_all_streams_and_so_is_the_next_one() {
    let fixture = Fixture::new(&[("orders", 1), ("returns", 1)]);
    let members = |stream| {
        let path = fixture.directory.path().join(stream).join("applications/billing/members");
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let pool = fixture.start();
    let first = members("orders");
    assert_eq!((first.len(), &first), (1, &members("returns")), "one id");
    pool.shutdown(LONG);
    let pool = fixture.start();
    assert_eq!((&members("orders"), &members("returns")), (&first, &first), "the same files");
    pool.shutdown(LONG);
}
