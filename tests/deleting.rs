//! Deleting streams: all or nothing, and not while somebody uses it.

mod common;

use std::fs;
use std::path::Path;
use std::time::Duration;

use common::files::{copy_all, make_small_stream, small_segments};
use common::{S0, put};
use millstream::{
    Batch, Checkpointer, Error, Limit, ProcessorError, StartingPosition, Stream, WorkerPool,
};

/// A directory with a small stream of all kinds of files in it.
fn small_stream() -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    fs::create_dir(&path).unwrap();
    make_small_stream(&path);
    (directory, path)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

#[test]
fn nothing_is_left_of_a_stream_that_was_deleted() {
    let (directory, path) = small_stream();
    Stream::delete(&path).unwrap();
    assert!(is_empty(directory.path()));
    assert!(matches!(Stream::delete(&path), Err(Error::StreamNotFound { path: at }) if at == path));
    Stream::builder(&path).create().unwrap();
}

#[test]
fn a_stream_that_is_open_for_putting_is_not_deleted() {
    let (_directory, path) = small_stream();
    let stream = Stream::builder(&path).open_existing().unwrap();
    let clone = stream.clone();
    stream.close().unwrap();
    assert!(matches!(Stream::delete(&path), Err(Error::Locked { path: at, .. }) if at == path));
    put(&clone, "still there");
    drop(clone);
    Stream::delete(&path).unwrap();
}

#[test]
fn a_stream_that_is_being_read_is_not_deleted() {
    let (_directory, path) = small_stream();
    let reader = Stream::open_read_only(&path).unwrap();
    assert!(matches!(Stream::delete(&path), Err(Error::Locked { .. })));
    // It follows what a writer does, and is noticed as before.
    Stream::builder(&path).open_existing().unwrap().set_tag("team", "billing").unwrap();
    assert_eq!(reader.tags()["team"], "billing");
    assert!(matches!(Stream::delete(&path), Err(Error::Locked { .. })));
    drop(reader);
    Stream::delete(&path).unwrap();
}

#[test]
fn a_stream_that_a_pool_works_on_is_not_deleted() {
    let (_directory, path) = small_stream();
    let reader = Stream::open_read_only(&path).unwrap();
    let pool = WorkerPool::builder("audit", &reader)
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) })
        .unwrap();
    drop(reader);
    assert!(matches!(Stream::delete(&path), Err(Error::Locked { .. })));
    assert!(pool.wait_until_idle(Duration::from_secs(60)));
    pool.shutdown(Duration::from_secs(60));
    Stream::delete(&path).unwrap();
}

#[test]
fn a_directory_with_other_files_in_it_is_left_as_it_is() {
    let (directory, path) = small_stream();
    fs::write(path.join("notes.txt"), "text").unwrap();
    assert!(matches!(Stream::delete(&path), Err(Error::NotAStream { .. })));
    Stream::builder(&path).open_existing().unwrap();
    Stream::force_delete(&path).unwrap();
    assert!(is_empty(directory.path()));
}

#[test]
fn what_is_no_stream_is_not_deleted_by_force_either() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "text").unwrap();
    fs::create_dir(directory.path().join("empty")).unwrap();
    std::os::unix::fs::symlink("empty", directory.path().join("link")).unwrap();
    for name in ["file", "empty", "missing", "link"] {
        let path = directory.path().join(name);
        for deleted in [Stream::delete(&path), Stream::force_delete(&path)] {
            let expected = matches!(
                deleted,
                Err(Error::NotAStream { .. } | Error::StreamNotFound { .. } | Error::Io { .. })
            );
            assert!(expected, "{name}: {deleted:?}");
        }
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn those_who_use_a_stream_that_is_deleted_by_force_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let stream = small_segments(&path).create().unwrap();
    put(&stream, "x");
    let reader = Stream::open_read_only(&path).unwrap();
    let at = reader.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
    let page = reader.get_records(&at, Limit::default()).unwrap();
    Stream::force_delete(&path).unwrap();
    assert!(is_empty(directory.path()));
    assert_eq!(page.records.get(0).unwrap().data(), b"x");
    let next = page.next_shard_iterator.unwrap();
    let read = reader.get_records(&next, Limit::default());
    assert!(matches!(read, Err(Error::StreamNotFound { .. })), "{read:?}");
    let refused = (0..1000).find_map(|_| stream.put("k", [7; 1000]).err());
    assert!(matches!(refused, Some(Error::Io { .. })), "{refused:?}");
    assert!(is_empty(directory.path()), "nobody begins it anew");
}

#[test]
fn a_deletion_that_was_cut_off_at_any_file_leaves_nothing_under_the_name_and_is_completed() {
    let (directory, path) = small_stream();
    let files = common::files::files(&path);
    for removed in 0..files.len() {
        let place = tempfile::tempdir().unwrap();
        // The renaming is the first step: then files go, in whatever order.
        let away = place.path().join(".stream.deleted-0123456789abcdef");
        copy_all(&path, &away);
        for file in files.iter().cycle().skip(removed).take(removed) {
            fs::remove_file(away.join(file.strip_prefix(&path).unwrap())).unwrap();
        }
        let path = place.path().join("stream");
        assert!(matches!(Stream::open_read_only(&path), Err(Error::StreamNotFound { .. })));
        assert!(Stream::list(place.path()).unwrap().is_empty());
        if removed % 2 == 0 {
            drop(Stream::builder(&path).create().unwrap());
        }
        Stream::delete(&path).unwrap();
        assert!(is_empty(place.path()), "after {removed} files");
    }
    drop(directory);
}
