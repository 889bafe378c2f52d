//! Reading lines: where to begin, where to end, in which form.

use std::io::{BufRead, BufReader, Write};

use crate::harness::{Place, Ran, millstream, run, run_with, start};

/// One shard with the records `1` to `5` of key `k`.
fn five() -> Place {
    let place = Place::with_shards(1);
    place.put("k 1\nk 2\nk 3\nk 4\nk 5\n").succeeded();
    place
}

fn tail(place: &Place, args: &[&str]) -> Vec<String> {
    let ran = run(&[&["tail", place.stream.as_str()], args].concat()).succeeded();
    ran.lines().into_iter().map(str::to_owned).collect()
}

#[test]
fn it_begins_where_it_is_told() {
    let place = five();
    assert_eq!(tail(&place, &[]), ["1", "2", "3", "4", "5"]);
    assert_eq!(tail(&place, &["-o", "horizon"]), ["1", "2", "3", "4", "5"]);
    assert!(tail(&place, &["-o", "latest"]).is_empty());
    assert_eq!(tail(&place, &["-o", "-2"]), ["4", "5"]);
    assert_eq!(tail(&place, &["-o-9"]).len(), 5);
    assert!(tail(&place, &["-o", "-0"]).is_empty());
    let numbers = tail(&place, &["--format", r"%o\n"]);
    assert_eq!(tail(&place, &["-o", &numbers[2]]), ["3", "4", "5"]);
    assert_eq!(tail(&place, &["-o", "@0"]).len(), 5);
    assert!(tail(&place, &["-o", "@2100-01-01T00:00:00Z"]).is_empty());
}

#[test]
fn it_ends_after_a_count() {
    let place = five();
    assert_eq!(tail(&place, &["-n", "2"]), ["1", "2"]);
    assert_eq!(tail(&place, &["-f", "-n", "5"]).len(), 5);
    assert!(tail(&place, &["-n", "0"]).is_empty());
}

#[test]
fn a_number_is_a_place_in_one_shard() {
    let place = Place::with_shards(2);
    run(&["tail", &place.stream, "-o", "0"]).failed(2, &["--shard"]);
    assert!(tail(&place, &["-o", "0", "--shard", "1"]).is_empty());
}

#[test]
fn one_shard_can_be_read_alone() {
    let place = Place::with_shards(2);
    let text: String = (0..100).map(|i| format!("{i} x\n")).collect();
    place.put(text).succeeded();
    let first = tail(&place, &["--shard", "0"]);
    let second = tail(&place, &["--shard", "shardId-000000000001"]);
    assert_eq!(first.len() + second.len(), 100);
    run(&["tail", &place.stream, "--shard", "9"]).failed(1, &["no shard shardId-000000000009"]);
}

#[test]
fn several_shards_are_mixed_by_arrival() {
    let place = Place::with_shards(4);
    for i in 0..10 {
        place.put(format!("key-{i} {i}\n")).succeeded();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(tail(&place, &[]).into_iter().eq((0..10).map(|i| i.to_string())));
}

#[test]
fn the_last_records_are_those_of_each_shard() {
    let place = Place::with_shards(2);
    let text: String = (0..100).map(|i| format!("{i} x\n")).collect();
    place.put(text).succeeded();
    let mut shards = tail(&place, &["-o", "-3", "--format", r"%p\n"]);
    shards.sort_unstable();
    assert_eq!(shards.len(), 6);
    assert!(shards[2].ends_with('0') && shards[3].ends_with('1'), "{shards:?}");
}

#[test]
fn a_format_has_every_part_of_a_record() {
    let place = five();
    let line = &tail(&place, &["-n1", "--format", r"%p %o %k %K %T %s %S %%\t\x41\n"])[0];
    let parts: Vec<&str> = line.split(' ').collect();
    assert_eq!(parts[0], "shardId-000000000000");
    assert_eq!(parts[2..4], ["k", "1"]);
    assert!(parts[4].parse::<u64>().unwrap() > 1_700_000_000_000);
    assert_eq!(parts[5..], ["1", "1", "%\tA"]);
}

#[test]
fn json_keeps_bytes_that_are_no_text() {
    let place = Place::with_shards(1);
    run_with(&["put", &place.stream, "--key", "ké"], b"t\xc3\xa9xt\t\"\n\xff\n").succeeded();
    let lines = tail(&place, &["--json"]);
    let records: Vec<serde_json::Value> =
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(records[0]["data"], "téxt\t\"");
    assert_eq!(records[0]["partition_key"], "ké");
    assert_eq!(records[1]["data_base64"], "/w==");
    assert!(records[0]["sequence_number"].is_string());
}

#[test]
fn following_prints_each_record_as_it_arrives() {
    let place = Place::with_shards(3);
    let mut put = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut tail = start(&mut millstream(&["tail", &place.stream, "-f", "-n", "20", "-K "]));
    let mut stdin = put.stdin.take().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    for i in 0..20 {
        writeln!(stdin, "key-{i} {i}").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("key-{i} {i}"));
    }
    assert!(tail.wait().unwrap().success());
    drop(stdin);
    put.wait().unwrap();
}

#[test]
fn one_who_follows_notices_that_the_stream_is_gone() {
    let place = five();
    let mut tail = start(&mut millstream(&["tail", &place.stream, "-f"]));
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    std::fs::remove_dir_all(&place.stream).unwrap();
    let ended = Ran::from(tail.wait_with_output().unwrap());
    ended.failed(1, &["there is no stream at", &place.stream]);
}

#[test]
fn the_delimiter_of_keys_may_be_escaped() {
    let place = five();
    assert_eq!(tail(&place, &["-n1", "-K", r"\t\\"]), ["k\t\\1"]);
}

#[test]
fn one_who_follows_notices_that_nobody_reads_any_more() {
    let place = five();
    let mut tail = start(&mut millstream(&["tail", &place.stream, "-f"]));
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "1");
    drop(lines);
    assert_eq!(tail.wait().unwrap().code(), Some(141));
}
