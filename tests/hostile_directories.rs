//! Directories in which something else stands in a file's place, or that change under a live map.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use common::files::{copy_all, files, make_small_stream, process_all, scratch, small_segments};
use common::own_process::{on_disk, outcome, succeeds};
use common::{S0, put, read_all};
use millstream::{
    Batch, Checkpointer, Error, Limit, ProcessorError, StartingPosition, Stream, WorkerPool, verify,
};

/// What SIGBUS is on Linux.
const SIGBUS: i32 = 7;

/// Reads every shard of a stream to its tip.
fn read_everything(stream: &Stream) -> Result<usize, Error> {
    let mut records = 0;
    for shard in stream.shards() {
        let mut at = Some(stream.shard_iterator(shard.id, StartingPosition::TrimHorizon)?);
        while let Some(iterator) = at {
            let page = stream.get_records(&iterator, Limit::default())?;
            records += page.records.len();
            at = page.next_shard_iterator.filter(|_| !page.records.is_empty());
        }
    }
    Ok(records)
}

fn start_pool(stream: &Stream) -> Result<WorkerPool, Error> {
    WorkerPool::builder("billing", stream)
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) })
}

/// Everything that can be done with a stream, and what came of it.
fn do_everything(path: &Path) -> Vec<Result<(), Error>> {
    let read_only = || {
        let stream = Stream::open_read_only(path)?;
        read_everything(&stream).map(drop)
    };
    let write = || {
        let stream = Stream::builder(path).open_existing()?;
        stream.put("a", "one")?;
        stream.put("b", "two")?;
        read_everything(&stream)?;
        stream.close()
    };
    let work = || start_pool(&Stream::open_read_only(path)?).map(drop);
    let look = || verify(path).map(drop);
    vec![read_only(), work(), write(), look()]
}

/// As `do_everything`, which must not take long, whatever is there.
fn soon(path: &Path) -> Vec<Result<(), Error>> {
    let (done, outcome) = mpsc::channel();
    let owned = path.to_owned();
    std::thread::spawn(move || done.send(do_everything(&owned)));
    let outcome = outcome.recv_timeout(Duration::from_secs(60));
    outcome.unwrap_or_else(|_| panic!("stuck at {path:?}"))
}

fn small_stream() -> tempfile::TempDir {
    let directory = scratch();
    make_small_stream(directory.path());
    // What names the owner is there only while somebody is.
    fs::write(directory.path().join("OWNER"), "process 1 (test)\n").unwrap();
    directory
}

/// Puts something in the place of a file or directory, which is moved to `aside`.
type Imposture = fn(at: &Path, aside: &Path);
const IMPOSTURES: [(&str, Imposture); 6] = [
    ("FIFO", |at, _| assert!(Command::new("mkfifo").arg(at).status().unwrap().success())),
    ("link to the real one", |at, aside| symlink(aside, at).unwrap()),
    ("link to nothing", |at, _| symlink("/no/such/file", at).unwrap()),
    ("link to a device", |at, _| symlink("/dev/zero", at).unwrap()),
    ("directory", |at, _| fs::create_dir(at).unwrap()),
    ("socket", |at, _| drop(UnixListener::bind(at).unwrap())),
];

#[test]
fn what_is_no_regular_file_is_neither_followed_nor_waited_for_and_is_named() {
    let sound = small_stream();
    let names: Vec<_> = files(sound.path())
        .iter()
        .map(|path| path.strip_prefix(sound.path()).unwrap().to_owned())
        .collect();
    for name in &names {
        for (what, imposture) in IMPOSTURES {
            let (directory, aside) = (scratch(), scratch());
            copy_all(sound.path(), directory.path());
            let (at, aside) = (directory.path().join(name), aside.path().join("aside"));
            let content = fs::read(&at).unwrap();
            fs::rename(&at, &aside).unwrap();
            imposture(&at, &aside);
            let outcome = soon(directory.path());
            let text = format!("{outcome:?}");
            // Who has the stream is a comment: whatever is there makes room, if it can.
            let is_harmless = name.ends_with("OWNER") && what != "directory";
            let named = text.contains(name.file_name().unwrap().to_str().unwrap());
            assert!(named || is_harmless, "a {what} for {name:?}: {text}");
            assert_eq!(fs::read(&aside).unwrap(), content, "a {what} for {name:?}");
        }
    }
}

#[test]
fn directories_are_not_followed_to_elsewhere() {
    let sound = small_stream();
    let directories =
        ["shards", "shards/shardId-000000000001", "applications", "applications/billing"];
    for name in directories {
        let (directory, elsewhere) = (scratch(), scratch());
        copy_all(sound.path(), directory.path());
        let (at, aside) = (directory.path().join(name), elsewhere.path().join("aside"));
        copy_all(&at, &aside);
        fs::remove_dir_all(&at).unwrap();
        symlink(&aside, &at).unwrap();
        let content = || files(&aside).iter().map(|it| fs::read(it).unwrap()).collect::<Vec<_>>();
        let before = content();
        let outcome = soon(directory.path());
        let refused = |error: &&Error| matches!(error, Error::Io { path, .. } if path == &at);
        let errors = outcome.iter().filter_map(|result| result.as_ref().err());
        assert!(errors.filter(refused).count() > 0, "{name}: {outcome:?}");
        assert!(content() == before, "{name} is changed elsewhere");
    }
    // The stream itself may be reached by a link.
    let elsewhere = scratch();
    let link = elsewhere.path().join("stream");
    symlink(sound.path(), &link).unwrap();
    assert!(soon(&link).iter().all(Result::is_ok));
}

#[test]
fn a_read_only_file_system_is_read_verified_and_not_written() {
    on_disk("tmpfs", 16, |disk| {
        let path = disk.join("stream");
        make_small_stream(&path);
        let remount = |how: &str| {
            let done = Command::new("mount").args(["-o", how]).arg(disk).status().unwrap();
            assert!(done.success());
        };
        remount("remount,ro");
        let stream = Stream::open_read_only(&path).unwrap();
        assert_eq!(read_everything(&stream).unwrap(), 37);
        assert!(verify(&path).unwrap().is_intact());
        for refused in [
            Stream::builder(&path).open_existing().map(drop),
            start_pool(&stream).map(drop),
            Stream::builder(disk.join("new")).create().map(drop),
        ] {
            match refused {
                Err(Error::Io { source, .. }) => {
                    assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
                }
                other => panic!("{other:?}"),
            }
        }
        drop(stream);
        remount("remount,rw");
        put(&Stream::builder(&path).open_existing().unwrap(), "written again");
    });
}

/// A stream with a record, and the file that it is in.
fn with_a_record(directory: &Path) -> (Stream, PathBuf) {
    let stream = small_segments(directory).create().unwrap();
    put(&stream, "record");
    let segment = directory.join("shards/shardId-000000000000/00000000000000000000.seg");
    (stream, segment)
}

/// The README says so: no program can guard a map against that.
#[test]
fn a_reader_of_a_map_whose_file_somebody_cuts_dies_of_sigbus() {
    let outcome = outcome(&[], "true", |directory| {
        let (stream, segment) = with_a_record(directory);
        File::options().write(true).open(segment).unwrap().set_len(0).unwrap();
        let _ = read_everything(&stream);
    });
    assert_eq!(outcome.unwrap().status.signal(), Some(SIGBUS));
}

#[test]
fn a_writer_to_a_map_whose_file_somebody_cuts_dies_of_sigbus() {
    let outcome = outcome(&[], "true", |directory| {
        let (stream, segment) = with_a_record(directory);
        File::options().write(true).open(segment).unwrap().set_len(4096).unwrap();
        put(&stream, "beyond the end");
    });
    assert_eq!(outcome.unwrap().status.signal(), Some(SIGBUS));
}

#[test]
fn a_segment_that_somebody_removes_is_read_as_long_as_it_is_mapped_and_kills_nobody() {
    succeeds(&[], "true", |directory| {
        let (stream, segment) = with_a_record(directory);
        fs::remove_file(segment).unwrap();
        put(&stream, "into what nobody will find");
        let expected = ["record", "into what nobody will find"];
        assert_eq!(read_all(&stream, S0, StartingPosition::TrimHorizon), expected);
    });
}

#[test]
fn a_directory_that_somebody_removes_ends_with_an_error_at_the_next_segment() {
    succeeds(&[], "true", |directory| {
        let path = directory.join("stream");
        let (stream, _) = with_a_record(&path);
        fs::remove_dir_all(&path).unwrap();
        let error = (0..1000).find_map(|n| stream.put("k", vec![1; n]).err()).unwrap();
        assert!(
            matches!(&error, Error::Io { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound),
            "{error}"
        );
        assert!(!path.try_exists().unwrap(), "nothing is made in its place");
    });
}

#[test]
fn a_control_row_that_was_cut_at_any_byte_skips_nothing() {
    let directory = scratch();
    let stream = small_segments(directory.path()).create().unwrap();
    put(&stream, "one");
    assert_eq!(process_all(&stream, "billing"), 1);
    put(&stream, "two");
    let row = directory.path().join("applications/billing/shardId-000000000000.row");
    let whole = fs::read(&row).unwrap();
    for len in 0..=whole.len() {
        fs::write(&row, &whole[..len]).unwrap();
        // Either it is refused, or an older checkpoint counts: the second record is never skipped.
        match start_pool(&stream) {
            Err(Error::Corrupt { path, .. }) => assert_eq!(path, row),
            Err(error) => panic!("{error}"),
            Ok(pool) => drop(pool),
        }
    }
    fs::write(&row, &whole).unwrap();
    assert_eq!(process_all(&stream, "billing"), 1);
}
