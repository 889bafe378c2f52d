//! What goes wrong: a line that says so, an exit code, and nothing lost or created.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::harness::{Place, Ran, millstream, run, run_with, start, text};

/// The verbs that need a stream, applied to this path.
fn verbs_on(path: &str) -> Vec<Ran> {
    vec![
        run(&["info", path]),
        run(&["tail", path]),
        run(&["verify", path]),
        run(&["repair", path]),
        run(&["export", path]),
        run_with(&["import", path], "{\"data\":\"x\"}\n"),
        run(&["split", path, "0"]),
        run(&["merge", path, "0", "1"]),
        run(&["reshard", path, "3"]),
        run(&["work", path, "--app", "a", "--until-idle"]),
        run_with(&["put", path], "line\n"),
    ]
}

#[test]
fn a_missing_directory_is_named_and_not_created() {
    let place = Place::without_stream();
    for ran in verbs_on(&place.stream) {
        ran.failed(1, &["no stream at", &place.stream, "millstream create"]);
    }
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn a_file_in_the_place_of_a_stream_is_left_alone() {
    let place = Place::without_stream();
    fs::write(&place.stream, "a letter").unwrap();
    let mut all = verbs_on(&place.stream);
    all.push(run(&["create", &place.stream]));
    for ran in all {
        ran.failed(1, &[&place.stream]);
    }
    assert_eq!(fs::read(&place.stream).unwrap(), b"a letter");
}

#[test]
fn what_is_no_stream_is_told_apart_and_what_to_do_is_said() {
    let place = Place::with_shards(1);
    let root = place.root().to_str().unwrap();
    run(&["info", root]).failed(1, &["is not a stream", &format!("millstream ls {root}")]);
    let empty = place.path("empty");
    fs::create_dir(&empty).unwrap();
    let empty = empty.to_str().unwrap();
    run(&["info", empty]).failed(1, &["empty", &format!("millstream create {empty}")]);
    run(&["info", &format!("{}/MANIFEST", place.stream)]).failed(1, &["the directory of a stream"]);
    run(&["ls", &format!("{root}/none")]).failed(1, &["that the streams are in"]);
    run(&["dead-letters", "list", &place.stream, "--app", "typo"])
        .failed(1, &["no application typo", "millstream apps"]);
}

#[test]
fn a_directory_that_is_no_stream_is_left_alone() {
    let place = Place::without_stream();
    fs::create_dir(&place.stream).unwrap();
    fs::write(format!("{}/letter", place.stream), "Dear").unwrap();
    for ran in verbs_on(&place.stream) {
        ran.failed(1, &[&place.stream]);
    }
    assert_eq!(fs::read_dir(&place.stream).unwrap().count(), 1);
}

/// Puts `good`, `bad` and `good` again, of which the first one only is kept.
#[track_caller]
fn refuses(bad: &[u8], words: &[&str]) {
    let place = Place::with_shards(1);
    let text = [b"k good\n", bad, b"\nk never\n"].concat();
    place.put(text).failed(1, &[&["line 2 of standard input"], words].concat());
    assert_eq!(place.tail().text(), "k good\n");
}

#[test]
fn a_line_with_an_impossible_key_ends_the_put_there() {
    refuses(b" no key", &["the key is empty"]);
    refuses(format!("{} x", "ä".repeat(257)).as_bytes(), &["more than 256 characters"]);
    refuses(b"\xff x", &["not UTF-8"]);
}

#[test]
fn a_line_without_the_delimiter_ends_the_put_there() {
    refuses(b"word", &["no \" \" in it"]);
    refuses(b"", &["no \" \" in it"]);
}

#[test]
fn a_record_that_is_too_large_ends_the_put_there() {
    let long = [b"k ", "x".repeat(1 << 20).as_bytes()].concat();
    refuses(&long, &["1048577 bytes", "at most 1048576"]);
    let endless = [b"k ", "x".repeat(15 << 20).as_bytes()].concat();
    refuses(&endless, &["longer than any record"]);
}

#[test]
fn keys_of_256_characters_and_records_at_the_limit_are_fine() {
    let place = Place::with_shards(1);
    place.put(format!("{} x\n", "ä".repeat(256))).succeeded();
    place.put(format!("k {}\n", "x".repeat((1 << 20) - 1))).succeeded();
    assert_eq!(place.records(), 2);
}

#[test]
fn an_impossible_key_for_all_lines_is_wrong_usage() {
    let place = Place::with_shards(1);
    for key in [String::new(), "k".repeat(257)] {
        let ran = run_with(&["put", &place.stream, "--key", &key], "line\n");
        assert_eq!(ran.code, Some(2));
        assert!(ran.stderr.contains("256 characters"), "{}", ran.stderr);
    }
    assert_eq!(place.records(), 0);
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let place = Place::with_shards(1);
    let mut first = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = first.stdin.take().unwrap();
    let mut acks = BufReader::new(first.stdout.take().unwrap()).lines();
    stdin.write_all(b"k 1\n").unwrap();
    acks.next().unwrap().unwrap();
    place.put("k 2\n").failed(3, &[&place.stream, &first.id().to_string()]);
    stdin.write_all(b"k 3\n").unwrap();
    drop(stdin);
    assert!(first.wait().unwrap().success());
    assert_eq!(place.tail().text(), "k 1\nk 3\n");
}

#[test]
fn a_closed_pipe_behind_put_ends_it_and_loses_nothing() {
    let place = Place::with_shards(2);
    let mut put = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = put.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(stdin.write_all(text(100_000).as_bytes())));
    let mut first = [0; 20];
    put.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = Ran::from(put.wait_with_output().unwrap());
    writer.join().unwrap();
    assert!(ended.code == Some(141) && !ended.stderr.contains("millstream:"), "{ended:?}");
    let summary = ended.stderr.lines().next().unwrap().replace(',', "");
    let put: u64 = summary.split(' ').nth(1).unwrap().parse().unwrap();
    assert_eq!(place.records(), put, "the summary counts what was put: {}", ended.stderr);
}

#[test]
fn a_closed_pipe_behind_a_reader_is_silent_and_has_a_code() {
    let place = Place::with_shards(2);
    place.put(text(100_000)).succeeded();
    for args in [&["tail", &place.stream][..], &["work", &place.stream, "--app", "a"]] {
        let mut reader = start(&mut millstream(args));
        let mut first = [0; 20];
        reader.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let ended = Ran::from(reader.wait_with_output().unwrap());
        assert!(ended.code == Some(141) && !ended.stderr.contains("millstream:"), "{ended:?}");
    }
    // Had the checkpoint passed what was not written, records would be missing here.
    let rest = run(&["work", &place.stream, "--app", "a", "--until-idle"]).succeeded();
    assert!(rest.lines().len() > 90_000);
    assert_eq!(rest.lines().len() as u64 % 1000, 0, "whole batches came again");
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let place = Place::with_shards(1);
    place.put("k 1\n").succeeded();
    for args in [
        &["tail", &place.stream][..],
        &["info", &place.stream],
        &["work", &place.stream, "--app", "a", "--until-idle"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = millstream(args);
        let ran = command.stdout(full).stderr(Stdio::piped()).output().unwrap();
        Ran::from(ran).failed(1, &["cannot write to standard output"]);
    }
}
