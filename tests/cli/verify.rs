//! `verify` and `repair`: what they say, and with which exit code.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::harness::{Place, run, start, text};

/// A stream of one shard, and its only segment.
pub(crate) fn one_segment() -> (Place, PathBuf) {
    let place = Place::with_shards(1);
    place.put(text(1000)).succeeded();
    let segment = "stream/shards/shardId-000000000000/00000000000000000000.seg";
    let segment = place.path(segment);
    (place, segment)
}

/// Changes a byte of a file.
pub(crate) fn flip(path: &PathBuf, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_good_stream_is_intact() {
    let (place, _) = one_segment();
    let verified = run(&["verify", &place.stream]).succeeded();
    assert_eq!(verified.lines().len(), 1);
    assert!(verified.text().contains("1,000 records in 1 segments of 1 shards"));
    let json = run(&["verify", &place.stream, "--json"]).succeeded().json();
    assert_eq!(json["intact"], true);
    assert_eq!((&json["records"], &json["files"]), (&1000.into(), &2.into()));
}

#[test]
fn damage_is_a_line_for_each_place_and_exit_code_4() {
    let (place, segment) = one_segment();
    for at in [5000, 9000] {
        flip(&segment, at);
    }
    let ran = run(&["verify", &place.stream]);
    let lines = ran.lines().len();
    assert_eq!(lines, 3, "{ran:?}");
    for line in &ran.lines()[..2] {
        assert!(line.starts_with("damage: corrupt-records: "), "{line}");
        assert!(line.contains(segment.to_str().unwrap()) && line.contains("1 record"), "{line}");
    }
    ran.failed(4, &["damaged in 2 places", "millstream repair"]);
    let ran = run(&["verify", &place.stream, "--json"]);
    let json = ran.json();
    assert_eq!((&json["intact"], &json["records"]), (&false.into(), &998.into()));
    let finding = &json["findings"][0];
    assert_eq!(finding["kind"], "corrupt-records");
    assert_eq!(finding["first_sequence_number"], finding["offset"].to_string());
    ran.failed(4, &[]);
}

#[test]
fn what_is_no_damage_is_a_note_and_no_failure() {
    let (place, segment) = one_segment();
    fs::write(segment.with_extension("new"), "").unwrap();
    let ran = run(&["verify", &place.stream]).succeeded();
    assert!(ran.lines()[0].starts_with("note: unfinished-file: "), "{ran:?}");
}

#[test]
fn it_runs_beside_a_writer() {
    let (place, _) = one_segment();
    let mut writer = start(&mut crate::harness::millstream(&["put", &place.stream, "-K "]));
    run(&["verify", &place.stream]).succeeded();
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
}

#[test]
fn repair_says_what_is_lost_and_where_the_bytes_are_now() {
    let (place, segment) = one_segment();
    flip(&segment, 5000);
    let plan = run(&["repair", &place.stream, "--dry-run"]).succeeded();
    assert!(plan.text().contains("1 to repair; 1 records"), "{plan:?}");
    run(&["verify", &place.stream]).failed(4, &[]);
    let repair = run(&["repair", &place.stream]).succeeded();
    assert!(repair.text().contains("quarantine/shardId-000000000000-"), "{repair:?}");
    run(&["verify", &place.stream]).succeeded();
    assert_eq!(place.tail().lines().len(), 999);
    let again = run(&["repair", &place.stream, "--json"]).succeeded().json();
    assert_eq!((&again["repaired"], &again["left"]), (&json!([]), &json!([])));
}

#[test]
fn damage_that_cannot_be_repaired_is_exit_code_4() {
    let (place, _) = one_segment();
    run(&["work", &place.stream, "--app", "a", "--until-idle"]).succeeded();
    fs::write(place.path("stream/applications/a/shardId-000000000000.row"), "row").unwrap();
    run(&["repair", &place.stream]).failed(4, &["stays damaged", "backup"]);
    flip(&place.path("stream/MANIFEST"), 20);
    run(&["repair", &place.stream]).failed(4, &["MANIFEST", "checksum"]);
}

#[test]
fn repair_needs_the_stream_for_itself() {
    let (place, _) = one_segment();
    let mut writer =
        start(&mut crate::harness::millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"k 1\n").unwrap();
    let mut acks = BufReader::new(writer.stdout.take().unwrap()).lines();
    acks.next().unwrap().unwrap();
    run(&["repair", &place.stream]).failed(3, &[&writer.id().to_string()]);
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}
