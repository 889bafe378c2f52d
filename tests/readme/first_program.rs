use std::time::Duration;

use millstream::{Stream, WorkerPool};

fn main() -> millstream::Result<()> {
    // A directory, created if it is missing. An existing stream keeps the shards it has.
    let stream = Stream::builder("data/clicks").shards(4).open()?;

    // Records with the same partition key stay in order.
    for n in 0..1000 {
        stream.put(&format!("customer-{}", n % 10), format!("click {n}"))?;
    }

    // "billing" names an application: its checkpoints are stored in the stream's directory.
    let pool = WorkerPool::builder("billing", &stream).for_each_batch(|batch| {
        for record in batch {
            let text = std::str::from_utf8(record.data())?;
            println!("{} {} {text}", batch.shard(), record.partition_key());
        }
        Ok(()) // Checkpointed. After an error or a panic the same records come again.
    })?;

    if !pool.wait_until_idle(Duration::from_secs(10)) {
        eprintln!("not everything has been processed: {:?}", pool.status());
    }
    for shard in pool.shutdown(Duration::from_secs(10)) {
        println!("{}: {:?}", shard.shard, shard.outcome);
    }
    stream.close()
}
