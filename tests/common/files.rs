//! The files of streams: copies of them, and a small stream in which every kind of file occurs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use millstream::{
    Batch, Checkpointer, Durability, HashKey, ProcessorError, PutRecord, Stream, StreamBuilder,
    WorkerPool,
};
use tempfile::TempDir;

use super::{S0, S1, TestClock};

/// A directory for files that are written again and again: in memory if the system has one.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// The files of a stream as a process would find them that opens it after this one was killed.
pub fn killed(directory: &Path) -> TempDir {
    let copy = scratch();
    copy_all(directory, copy.path());
    copy
}

/// Copies a directory with all that is below it.
pub fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), to) {
                // A segment in the making got its name meanwhile; nothing is in it yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

/// All files below a directory, sorted, but for those that pools hold to show that they live: as
/// `OWNER`, they say nothing of what the stream holds.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("members") {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Segments of a shard, in order.
pub fn segments(directory: &Path, shard: millstream::ShardId) -> Vec<PathBuf> {
    files(&directory.join("shards").join(shard.to_string()))
}

/// As small as segments get.
pub fn small_segments(directory: &Path) -> StreamBuilder {
    Stream::builder(directory).max_segment_bytes(64 << 10).clock(TestClock::new())
}

/// Makes a stream of a few small files, in which there are: a full segment, one that was cut off by
/// a kill, one that was left in good order and gone on with, one that was left in good order; a
/// split; a void frame; and the rows of an application.
pub fn make_small_stream(directory: &Path) {
    let first = scratch();
    let stream = small_segments(first.path()).create().unwrap();
    for n in 0..30u8 {
        stream.put(&format!("key-{n}"), vec![n; 1700]).unwrap();
    }
    let given_up = || stream.put_with("void", 99, |_| std::panic::resume_unwind(Box::new(())));
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(given_up)).is_err());
    stream.put_record(PutRecord::new("synced", "data").durability(Durability::Sync)).unwrap();
    stream.put("last", "before the kill").unwrap();
    copy_all(first.path(), directory);

    let stream = small_segments(directory).open_existing().unwrap();
    stream.put("recovered", "in the next segment").unwrap();
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    stream.put("after", "the split").unwrap();
    for explicit in [HashKey::MIN, HashKey::MAX] {
        let record = PutRecord::new("child", "data").explicit_hash_key(explicit);
        stream.put_record(record).unwrap();
    }
    stream.close().unwrap();

    let stream = small_segments(directory).open_existing().unwrap();
    let record = PutRecord::new("child", "gone on with").explicit_hash_key(HashKey::MIN);
    assert_eq!(stream.put_record(record).unwrap().shard, S1);
    let pool = WorkerPool::builder("billing", &stream)
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) });
    let pool = pool.unwrap();
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    pool.shutdown(Duration::from_secs(60));
    stream.close().unwrap();
}

/// How many records an application is given until it has nothing left to do.
pub fn process_all(stream: &Stream, application: &str) -> usize {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let pool = WorkerPool::builder(application, stream).start(move |_| {
        let count = Arc::clone(&count);
        move |batch: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> {
            count.fetch_add(batch.len(), Ordering::Relaxed);
            Ok(())
        }
    });
    let pool = pool.unwrap();
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    pool.shutdown(Duration::from_secs(60));
    seen.load(Ordering::Relaxed)
}
