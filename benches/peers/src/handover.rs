//! From one thread to another: records of 100 bytes, flat out.

use std::path::Path;
use std::time::{Duration, Instant};

use millstream::{Limit, ShardId, StartingPosition, Stream, WaitStrategy};

use crate::{Result, median};

const COUNT: usize = 200_000;
const DATA: [u8; 100] = [7; 100];

type Turn = fn(&Path) -> Result<f64>;

const CONTESTANTS: [(&str, Turn); 4] = [
    ("millstream", millstream),
    ("yaque 0.6", yaque),
    ("walrus-rust 0.2", walrus),
    ("crossbeam-channel 0.5", crossbeam),
];

/// The medians, in records a second.
pub fn row(dir: &Path, rounds: usize) -> Result<(Vec<&'static str>, Vec<Option<f64>>)> {
    let mut rates = vec![Vec::new(); CONTESTANTS.len()];
    for _ in 0..rounds {
        for ((_, turn), rates) in CONTESTANTS.iter().zip(&mut rates) {
            let place = tempfile::tempdir_in(dir)?;
            rates.push(turn(place.path())?);
        }
    }
    Ok((CONTESTANTS.map(|(name, _)| name).to_vec(), rates.into_iter().map(median).collect()))
}

/// One who produces beside one who consumes.
fn both(
    produce: impl FnOnce() -> Result<()> + Send,
    consume: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    std::thread::scope(|scope| {
        let producer = scope.spawn(produce);
        consume()?;
        producer.join().expect("it ends")
    })?;
    Ok(COUNT as f64 / start.elapsed().as_secs_f64())
}

fn millstream(dir: &Path) -> Result<f64> {
    let stream = Stream::builder(dir).open()?;
    let mut iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::Latest)?;
    both(
        || {
            for _ in 0..COUNT {
                stream.put("key-0001", DATA)?;
            }
            Ok(())
        },
        || {
            let mut read = 0;
            while read < COUNT {
                let page = stream.get_records(&iterator, Limit::default())?;
                read += page.records.iter().filter(|record| record.data().len() == 100).count();
                iterator = page.next_shard_iterator.ok_or("the shard ended")?;
                if page.records.is_empty() {
                    stream.wait_with(&iterator, Duration::MAX, WaitStrategy::Yield)?;
                }
            }
            Ok(())
        },
    )
}

fn crossbeam(_: &Path) -> Result<f64> {
    let (sender, receiver) = crossbeam_channel::bounded::<Box<[u8]>>(1024);
    both(
        move || (0..COUNT).try_for_each(|_| Ok(sender.send(Box::from(&DATA[..]))?)),
        || {
            assert_eq!(receiver.iter().filter(|data| data.len() == 100).count(), COUNT);
            Ok(())
        },
    )
}

fn yaque(dir: &Path) -> Result<f64> {
    let (mut sender, mut receiver) = yaque::channel(dir.join("queue"))?;
    both(
        move || (0..COUNT).try_for_each(|_| Ok(sender.try_send(DATA).map_err(|_| "it is full")?)),
        || {
            let mut read = 0;
            while read < COUNT {
                match receiver.try_recv_batch_up_to(1000) {
                    Ok(batch) => {
                        read += batch.len();
                        batch.commit()?;
                    }
                    Err(_) => std::thread::yield_now(),
                }
            }
            Ok(())
        },
    )
}

fn walrus(_: &Path) -> Result<f64> {
    use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};
    let key = format!("handover-{:?}", Instant::now());
    let consistency = ReadConsistency::AtLeastOnce { persist_every: 1000 };
    let log =
        Walrus::with_consistency_and_schedule_for_key(&key, consistency, FsyncSchedule::NoFsync)?;
    both(
        || (0..COUNT).try_for_each(|_| Ok(log.append_for_topic("topic", &DATA)?)),
        || {
            let mut read = 0;
            while read < COUNT {
                read += log.batch_read_for_topic("topic", 1 << 20, true)?.len();
            }
            Ok(())
        },
    )
}
