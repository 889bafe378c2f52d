use std::time::Duration;

use millstream::{DeadLetters, OnPoison, ShardId, Stream, WorkerPool};

fn main() -> millstream::Result<()> {
    let stream = Stream::builder("data/clicks").open()?;
    stream.split_mid(ShardId::new(0))?; // Producers and workers go on meanwhile.
    stream.put("customer-7", b"\xff is not UTF-8")?;

    let pool = WorkerPool::builder("billing", &stream)
        .attempts(3)
        .on_poison(OnPoison::DeadLetter)
        .for_each_batch(|batch| {
            for record in batch {
                println!("{}", std::str::from_utf8(record.data())?);
            }
            Ok(())
        })?;
    assert!(pool.wait_until_idle(Duration::from_secs(10)));
    pool.shutdown(Duration::from_secs(10));

    for letter in DeadLetters::of("billing", &stream)?.list()? {
        println!("set aside after {} attempts: {}", letter.attempts, letter.cause);
    }
    stream.close()
}
