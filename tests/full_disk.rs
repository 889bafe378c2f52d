//! Full means full: on a disk without room, and under limits that look like one, an error comes
//! back, what was acknowledged stays, and with room again it goes on, without a restart.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use common::files::{files, killed, process_all};
use common::own_process::{on_disk, succeeds};
use common::{S0, read_all};
use millstream::{
    Batch, Checkpointer, Durability, Error, HashKey, ProcessorError, PutRecord, ShardId,
    StartingPosition, Stream, StreamBuilder, WorkerPool,
};
use rustix::fs::FallocateFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The file systems, and how large they are at least.
const DISKS: [(&str, u32); 3] = [("tmpfs", 16), ("ext4", 32), ("xfs", 300)];

fn settings(disk: &Path) -> StreamBuilder {
    Stream::builder(disk.join("stream")).shards(2).max_segment_bytes(256 << 10)
}

/// How many bytes are free.
fn room(disk: &Path) -> u64 {
    let it = rustix::fs::statvfs(disk).unwrap();
    it.f_bavail * it.f_frsize
}

/// Takes all the room but so much.
fn fill(disk: &Path, left: u64) {
    fs::create_dir(disk.join("filler")).unwrap();
    // What was given back is there only after a sync, on some.
    while {
        rustix::fs::syncfs(File::open(disk).unwrap()).unwrap();
        take_pieces(disk, left) > 0
    } {}
}

/// Takes room in pieces, since file systems do not give all of it to one file: how many it got.
fn take_pieces(disk: &Path, left: u64) -> usize {
    let filler = disk.join("filler");
    let mut pieces = 0;
    for piece in (16..28).rev().map(|bits| 1u64 << bits) {
        while room(disk) >= left + piece {
            let number = fs::read_dir(&filler).unwrap().count();
            let path = filler.join(number.to_string());
            let file = File::create(&path).unwrap();
            if rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, piece).is_err() {
                fs::remove_file(path).unwrap();
                break;
            }
            pieces += 1;
        }
    }
    pieces
}

/// Puts records until there is no room; the data of those that were acknowledged.
fn put_until_full(stream: &Stream, life: &str) -> Vec<String> {
    let mut acknowledged = Vec::new();
    loop {
        let data = format!("{life}/{}/{}", acknowledged.len(), "x".repeat(2000));
        match stream.put(&acknowledged.len().to_string(), &data) {
            Ok(_) => acknowledged.push(data),
            Err(Error::DiskFull { path }) => {
                assert!(path.starts_with(stream.path()), "{path:?}");
                return acknowledged;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Everything that is in a stream, sorted.
fn everything(stream: &Stream) -> Vec<String> {
    let shards = stream.shards().into_iter();
    let mut all: Vec<_> =
        shards.flat_map(|it| read_all(stream, it.id, StartingPosition::TrimHorizon)).collect();
    all.sort();
    all
}

#[track_caller]
fn holds(stream: &Stream, acknowledged: &mut [String]) {
    acknowledged.sort();
    assert!(everything(stream) == acknowledged, "{} acknowledged", acknowledged.len());
}

fn unfinished_files(stream: &Stream) -> Vec<PathBuf> {
    let is_unfinished = |path: &PathBuf| path.extension() == Some("new".as_ref());
    files(stream.path()).into_iter().filter(is_unfinished).collect()
}

/// Sets a limit of this process.
fn limit(resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    setrlimit(resource, Rlimit { current, maximum }).unwrap();
}

#[test]
fn a_full_disk_refuses_puts_loses_nothing_and_needs_no_restart() {
    for (kind, mib) in DISKS {
        on_disk(kind, mib, |disk| {
            let stream = settings(disk).create().unwrap();
            fill(disk, 3 << 20);
            let mut acknowledged = put_until_full(&stream, "first");
            assert!(acknowledged.len() > 100);
            holds(&stream, &mut acknowledged);
            stream.flush().unwrap();

            for _ in 0..20 {
                // The other shard may have found room until now.
                acknowledged.extend(put_until_full(&stream, "other"));
            }
            let left = room(disk);
            for _ in 0..20 {
                acknowledged.extend(put_until_full(&stream, "still"));
            }
            assert_eq!(unfinished_files(&stream), Vec::<PathBuf>::new());
            assert!(room(disk) <= left && left - room(disk) < 64 << 10, "what failed left nothing");
            holds(&stream, &mut acknowledged);

            make_room(disk);
            let receipt = stream.put("k", "room again").unwrap();
            assert!(receipt.sequence_number > 0.into());
            acknowledged.push("room again".into());
            holds(&stream, &mut acknowledged);

            // And once more, with a restart while it is full.
            fill(disk, 1 << 20);
            acknowledged.extend(put_until_full(&stream, "second"));
            stream.close().unwrap();
            fill_up(disk);
            let stream = settings(disk).open_existing().unwrap();
            holds(&stream, &mut acknowledged);
            acknowledged.extend(put_until_full(&stream, "third"));
            make_room(disk);
            stream.put("k", "after the restart").unwrap();
            acknowledged.push("after the restart".into());
            holds(&stream, &mut acknowledged);
            assert!(millstream::verify(stream.path()).unwrap().is_intact());
        });
    }
}

/// Takes the last bytes, by files in a directory `rest`.
fn fill_up(disk: &Path) {
    let rest = disk.join("rest");
    if fs::create_dir_all(&rest).is_err() {
        return;
    }
    let mut number = fs::read_dir(&rest).unwrap().count()..;
    let mut file = || rest.join(number.next().unwrap().to_string());
    for size in [1 << 20, 64 << 10, 4096, 1] {
        // What is not on the disk yet has to find its room, too.
        let write = |path| {
            let mut file = File::create(path)?;
            file.write_all(&vec![1; size])?;
            file.sync_all()
        };
        while write(file()).is_ok() {}
    }
}

/// Gives back what was taken.
fn make_room(disk: &Path) {
    for taken in ["filler", "rest"] {
        let _ = fs::remove_dir_all(disk.join(taken));
    }
}

#[test]
fn many_producers_on_a_full_disk_are_all_refused_and_all_go_on() {
    on_disk("tmpfs", 16, |disk| {
        let stream = settings(disk).create().unwrap();
        fill(disk, 2 << 20);
        let acknowledged = Mutex::new(Vec::new());
        let rounds = |stream: &Stream, thread: usize| {
            for round in 0..50 {
                let durability = [Durability::Os, Durability::Sync][round % 2];
                let data = format!("{thread}/{round}/{}", "x".repeat(20_000));
                let record = PutRecord::new(&data, &data[..20_000]).durability(durability);
                // Longer than a key may be.
                assert!(stream.put_record(record).is_err());
                let record = PutRecord::new("k", &data).durability(durability);
                match stream.put_record(record) {
                    Ok(_) => acknowledged.lock().unwrap().push(data),
                    Err(Error::DiskFull { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        let all_at_once = || {
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    scope.spawn({
                        let stream = &stream;
                        move || rounds(stream, thread)
                    });
                }
            });
        };
        all_at_once();
        let before = acknowledged.lock().unwrap().len();
        assert!(before < 200, "the disk was full");
        make_room(disk);
        all_at_once();
        assert_eq!(acknowledged.lock().unwrap().len() - before, 200, "there is room again");
        holds(&stream, &mut acknowledged.lock().unwrap());
    });
}

#[test]
fn a_batch_on_a_full_disk_keeps_the_records_before_the_one_that_found_no_room() {
    on_disk("tmpfs", 16, |disk| {
        let stream = Stream::builder(disk.join("stream")).max_segment_bytes(256 << 10);
        let stream = stream.create().unwrap();
        fill(disk, 1 << 20);
        let records: Vec<_> = (0..2000).map(|n| format!("{n:04}{}", "x".repeat(1000))).collect();
        let results = stream.put_batch(records.iter().map(|data| ("k", data.as_str())));
        let put = results.iter().take_while(|result| result.is_ok()).count();
        assert!(put > 100);
        for result in &results[put..] {
            assert!(matches!(result, Err(Error::DiskFull { .. })));
        }
        assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon), records[..put]);
    });
}

#[test]
fn a_segment_that_was_left_in_good_order_and_finds_no_room_leaves_the_room_there_is() {
    for (kind, mib) in DISKS {
        on_disk(kind, mib, |disk| {
            let settings = Stream::builder(disk.join("stream")).max_segment_bytes(8 << 20);
            let stream = settings.clone().create().unwrap();
            // Until the segments are large.
            for n in 0..7000 {
                stream.put("k", format!("{n}{}", "x".repeat(1000))).unwrap();
            }
            stream.close().unwrap();
            // Less than the last segment gave back.
            fill(disk, 1 << 20);
            let left = room(disk);
            let stream = settings.open_existing().unwrap();
            for _ in 0..3 {
                let put = stream.put("k", "x");
                assert!(matches!(put, Err(Error::DiskFull { .. })), "{put:?}");
            }
            assert!(left - room(disk) < 64 << 10, "{left} bytes were free, {} are", room(disk));
            assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon).len(), 7000);
            make_room(disk);
            stream.put("k", "x").unwrap();
            assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon).len(), 7001);
        });
    }
}

#[test]
fn a_reshard_on_a_full_disk_changes_nothing_and_succeeds_later() {
    for (kind, mib) in DISKS {
        on_disk(kind, mib, |disk| {
            let stream = settings(disk).create().unwrap();
            let mut acknowledged = vec!["before".to_owned()];
            stream.put("k", "before").unwrap();
            let before = stream.shards();
            fill_up(disk);
            let split = || stream.split_shard(S0, HashKey::new(1 << 100));
            match split() {
                Err(Error::DiskFull { path }) => {
                    assert!(path.ends_with("MANIFEST.new"), "{path:?}");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(stream.shards(), before);
            assert_eq!(unfinished_files(&stream), Vec::<PathBuf>::new());
            assert_eq!(Stream::open_read_only(stream.path()).unwrap().shards(), before);
            make_room(disk);
            for n in 0..100 {
                let data = n.to_string();
                stream.put(&data, &data).unwrap();
                acknowledged.push(data);
            }
            let children = split().unwrap();
            assert_eq!(children, [ShardId::new(2), ShardId::new(3)]);
            holds(&stream, &mut acknowledged);
        });
    }
}

#[test]
fn checkpoints_go_on_on_a_full_disk_and_new_applications_begin_when_there_is_room() {
    for (kind, mib) in DISKS {
        on_disk(kind, mib, |disk| {
            let stream = settings(disk).create().unwrap();
            assert_eq!(process_all(&stream, "old"), 0);
            fill(disk, 1 << 20);
            let put = put_until_full(&stream, "all").len();
            fill_up(disk);
            assert_eq!(process_all(&stream, "old"), put);
            assert_eq!(process_all(&stream, "old"), 0, "it was checkpointed");
            // Segments that were in the making have given up their room since.
            fill_up(disk);
            let start = || {
                WorkerPool::builder("new", &stream).start(|_| {
                    |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) }
                })
            };
            assert!(matches!(start(), Err(Error::DiskFull { .. })));
            make_room(disk);
            let pool = start().unwrap();
            assert!(pool.wait_until_idle(Duration::from_secs(60)));
        });
    }
}

#[test]
fn a_stream_that_finds_no_room_to_be_created_in_is_created_later() {
    on_disk("tmpfs", 1, |disk| {
        fill_up(disk);
        assert!(matches!(settings(disk).create(), Err(Error::DiskFull { .. })));
        make_room(disk);
        let stream = settings(disk).create().unwrap();
        stream.put("k", "data").unwrap();
    });
}

#[test]
fn a_limit_on_the_size_of_files_is_an_error_and_not_the_end_of_the_process() {
    succeeds(&[], "true", |directory| {
        let stream = settings(directory).create().unwrap();
        limit(Resource::Fsize, Some(100 << 10));
        for _ in 0..3 {
            match stream.put("k", "data") {
                Err(Error::Io { action: "allocate", source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::FileTooLarge);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(unfinished_files(&stream), Vec::<PathBuf>::new());
        limit(Resource::Fsize, None);
        stream.put("k", "data").unwrap();
        assert_eq!(everything(&stream), ["data"]);
    });
}

#[test]
fn without_file_descriptors_everything_is_refused_and_nothing_is_lost() {
    succeeds(&[], "true", |directory| {
        let stream = settings(directory).create().unwrap();
        let mut acknowledged = Vec::new();
        let mut put_until = |until: &mut dyn FnMut(Result<(), Error>) -> bool| loop {
            let data = format!("{}/{}", acknowledged.len(), "x".repeat(2000));
            let result = stream.put(&data[..4], &data).map(drop);
            if result.is_ok() {
                acknowledged.push(data);
            }
            if until(result) {
                return;
            }
        };
        put_until(&mut |result| result.is_ok());
        // What is open stays open: the limit counts from the next one on.
        limit(Resource::Nofile, Some(3));
        put_until(&mut |result| match result {
            Ok(()) => false,
            Err(Error::Io { source, .. }) => {
                assert!(source.to_string().contains("Too many open files"), "{source}");
                true
            }
            Err(error) => panic!("{error}"),
        });
        for open in [Stream::open_read_only(stream.path()), settings(directory).open_existing()] {
            assert!(matches!(open, Err(Error::Io { .. })), "{open:?}");
        }
        assert!(stream.split_shard(S0, HashKey::new(1 << 100)).is_err());
        limit(Resource::Nofile, Some(1000));
        put_until(&mut |result| result.is_ok());
        stream.split_shard(S0, HashKey::new(1 << 100)).unwrap();
        put_until(&mut |result| result.is_ok());
        holds(&stream, &mut acknowledged);
    });
}

#[test]
fn a_segment_that_cannot_be_made_in_the_place_of_the_spare_takes_no_records_with_it() {
    succeeds(&[], "true", |directory| {
        let path = directory.join("stream");
        let stream = Stream::builder(&path).max_segment_bytes(256 << 10).create().unwrap();
        let lowest_free = || File::open(directory).unwrap().as_raw_fd() as u64;
        let next = lowest_free();
        let mut acknowledged = Vec::new();
        let mut put = |data: String| stream.put("k", &data).map(|_| acknowledged.push(data));
        for n in 0..70 {
            put(format!("{n}{}", "x".repeat(2000))).unwrap();
        }
        // The next segment is made meanwhile.
        let spare = path.join("shards/shardId-000000000000/00000000000000262144.seg");
        while !spare.try_exists().unwrap() || lowest_free() > next {
            std::thread::yield_now();
        }
        // A larger one is made and takes its name, but the directory cannot be opened for a sync.
        limit(Resource::Nofile, Some(next + 1));
        put("x".repeat(300_000)).unwrap_err();
        limit(Resource::Nofile, Some(1000));
        put("behind it".into()).unwrap();
        let copy = killed(&path);
        let reopened = Stream::builder(copy.path()).open_existing().unwrap();
        holds(&reopened, &mut acknowledged);
    });
}
