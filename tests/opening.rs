//! Opening and creating: what is found, and what is said when it is not a stream.

mod common;

use std::fs;
use std::path::Path;

use common::{Fixture, S0, put, read_all};
use millstream::{Error, Result, StartingPosition, Stream};

/// All ways to a stream.
const OPENINGS: [fn(&Path) -> Result<Stream>; 4] = [
    |path| Stream::open_read_only(path),
    |path| Stream::builder(path).open_existing(),
    |path| Stream::builder(path).open(),
    |path| Stream::builder(path).create(),
];

fn entries(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_missing_directory_is_no_stream_and_is_not_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("missing");
    for opened in [Stream::open_read_only(&path), Stream::builder(&path).open_existing()] {
        assert!(matches!(opened, Err(Error::StreamNotFound { path: at }) if at == path));
    }
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn a_file_is_no_stream_and_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "text").unwrap();
    for open in OPENINGS {
        assert!(matches!(open(&path), Err(Error::NotAStream { .. })));
    }
    assert_eq!(fs::read(&path).unwrap(), b"text");
}

#[test]
fn a_directory_with_other_files_is_no_stream_and_does_not_become_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("notes.txt"), "text").unwrap();
    let path = directory.path();
    for open in OPENINGS {
        assert!(matches!(open(path), Err(Error::NotAStream { .. })));
    }
    assert_eq!(entries(path), ["notes.txt"]);
}

#[test]
fn an_empty_directory_becomes_a_stream_only_when_that_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let existing = Stream::builder(directory.path()).open_existing();
    assert!(matches!(existing, Err(Error::NotAStream { .. })));
    Stream::builder(directory.path()).create().unwrap();
}

#[test]
fn a_stream_is_created_once() {
    let fixture = Fixture::new(2);
    put(&fixture.stream, "x");
    let Fixture { directory, stream } = fixture.reopened();
    drop(stream);
    let again = Stream::builder(directory.path()).create();
    assert!(matches!(again, Err(Error::StreamExists { .. })));
    assert_eq!(Stream::builder(directory.path()).shards(7).open().unwrap().shards().len(), 2);
}

#[test]
fn a_second_writer_is_told_who_the_first_one_is() {
    let Fixture { directory, stream } = Fixture::new(1);
    match Stream::builder(directory.path()).open() {
        Err(Error::Locked { owner, .. }) => {
            assert!(owner.contains(&std::process::id().to_string()), "{owner}");
        }
        other => panic!("{other:?}"),
    }
    drop(stream);
    Stream::builder(directory.path()).open_existing().unwrap();
}

#[test]
fn a_stream_that_was_closed_is_free_at_once_though_programs_are_being_started() {
    let Fixture { directory, stream } = Fixture::new(1);
    drop(stream);
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            for _ in 0..300 {
                Stream::builder(directory.path()).open_existing().unwrap().close().unwrap();
            }
        });
        while !opening.is_finished() {
            std::process::Command::new("true").status().unwrap();
        }
    });
}

#[test]
fn settings_out_of_bounds_are_refused_before_anything_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("stream");
    let builder = || Stream::builder(&path);
    for builder in [
        builder().shards(0),
        builder().max_record_bytes(0),
        builder().max_record_bytes(11 << 20),
        builder().max_segment_bytes(1 << 10),
        builder().max_segment_bytes(1 << 31),
    ] {
        assert!(matches!(builder.create(), Err(Error::InvalidArgument(_))));
    }
    assert_eq!(entries(directory.path()), [""; 0]);
}

#[test]
fn a_stream_with_an_unknown_hash_algorithm_is_not_opened() {
    let Fixture { directory, stream } = Fixture::new(1);
    drop(stream);
    rewrite_manifest(directory.path(), |text| text.replace("Xxh3_128", "Sha1"));
    for opened in [
        Stream::open_read_only(directory.path()),
        Stream::builder(directory.path()).open_existing(),
        Stream::builder(directory.path()).open(),
    ] {
        match opened {
            Err(Error::Unsupported { what, .. }) => assert!(what.contains("Sha1"), "{what}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_damaged_manifest_is_reported_and_not_replaced() {
    let Fixture { directory, stream } = Fixture::new(1);
    drop(stream);
    let manifest = directory.path().join("MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[20] ^= 1;
    fs::write(&manifest, &bytes).unwrap();
    let opened = Stream::builder(directory.path()).open();
    assert!(matches!(opened, Err(Error::Corrupt { path, .. }) if path == manifest));
    assert_eq!(fs::read(&manifest).unwrap(), bytes);
}

#[test]
fn a_shard_that_is_opened_a_hundred_times_stays_in_one_segment() {
    let mut fixture = Fixture::new(1);
    for n in 0..100 {
        if n % 2 == 0 {
            put(&fixture.stream, &n.to_string());
        }
        fixture = fixture.reopened();
    }
    let segments = entries(&fixture.directory.path().join("shards/shardId-000000000000"));
    assert_eq!(segments, ["00000000000000000000.seg"]);
    assert_eq!(read_all(&fixture.stream, S0, StartingPosition::TrimHorizon).len(), 50);
}

#[test]
fn a_thousand_shards_are_small_on_disk_as_long_as_they_are_empty() {
    let Fixture { directory, stream } = Fixture::new(1000);
    assert_eq!(stream.shards().len(), 1000);
    assert_eq!(entries(directory.path()), ["MANIFEST", "OWNER"]);
}

/// Changes the lines of a manifest, and its checksum with them.
fn rewrite_manifest(path: &Path, change: impl FnOnce(&str) -> String) {
    let path = path.join("MANIFEST");
    let text = fs::read_to_string(&path).unwrap();
    let body = change(&text[..text.rfind("crc32").unwrap()]);
    fs::write(&path, format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()))).unwrap();
}

#[test]
fn a_manifest_with_absurd_numbers_is_reported() {
    let Fixture { directory, stream } = Fixture::new(1);
    put(&stream, "x");
    drop(stream);
    let whole = fs::read(directory.path().join("MANIFEST")).unwrap();
    for (from, to) in [
        ("next-shard 1", "next-shard 4294967295"),
        ("start 0", "start 33"),
        ("start 0", "start 18446744073709547520"),
        ("max-segment-bytes 67108864", "max-segment-bytes 18446744073709551615"),
    ] {
        rewrite_manifest(directory.path(), |text| text.replace(from, to));
        let opened = Stream::builder(directory.path()).open_existing();
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{to}: {opened:?}");
        fs::write(directory.path().join("MANIFEST"), &whole).unwrap();
    }
}

#[test]
fn a_seal_with_an_absurd_end_is_reported() {
    let Fixture { directory, stream } = Fixture::new(1);
    put(&stream, "x");
    drop(stream);
    let path = directory.path().join("shards/shardId-000000000000/00000000000000000000.seg");
    let whole = fs::read(&path).unwrap();
    for (at, value) in [(8, 0), (8, 4097), (8, u64::MAX), (16, u64::MAX), (24, u64::MAX)] {
        let mut bytes = whole.clone();
        let seal = &mut bytes[2048..2112];
        seal[at..at + 8].copy_from_slice(&value.to_le_bytes());
        let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let mut crc = crc32fast::Hasher::new_with_initial(word(&whole[28..]) ^ word(seal));
        crc.update(&seal[8..]);
        seal[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
        fs::write(&path, bytes).unwrap();
        let opened = Stream::builder(directory.path()).open_existing();
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{value} at {at}: {opened:?}");
        let opened = Stream::open_read_only(directory.path());
        assert!(matches!(opened, Err(Error::Corrupt { .. })), "{value} at {at}: {opened:?}");
    }
}

#[test]
fn a_stream_whose_directory_was_moved_away_is_not_begun_anew_in_its_old_place() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = (directory.path().join("old"), directory.path().join("new"));
    let stream = Stream::builder(&old).create().unwrap();
    fs::rename(&old, &new).unwrap();
    assert!(matches!(stream.put("k", "nobody would find it"), Err(Error::Io { .. })));
    assert_eq!(entries(directory.path()), ["new"]);
}

#[test]
fn an_empty_stream_that_is_opened_a_thousand_times_stays_as_it_was() {
    let mut fixture = Fixture::new(1);
    let created = entries(fixture.directory.path());
    for _ in 0..1000 {
        fixture = fixture.reopened();
    }
    assert_eq!(entries(fixture.directory.path()), created);
    let first = put(&fixture.stream, "first");
    for _ in 0..100 {
        fixture = fixture.reopened();
    }
    let second = put(&fixture.stream, "second");
    assert!(first.sequence_number < second.sequence_number);
    assert_eq!(read_all(&fixture.stream, S0, StartingPosition::TrimHorizon), ["first", "second"]);
    let shard = fixture.directory.path().join("shards").join(S0.to_string());
    assert_eq!(entries(&shard).len(), 1);
}
