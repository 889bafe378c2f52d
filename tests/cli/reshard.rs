//! Shards that are split and merged under the eyes of readers.

use std::fs;
use std::io::{BufRead, BufReader};

use millstream::{HashKey, ShardId, Stream};

use crate::harness::{Place, by_key, eventually, millstream, run, signal, start};

const HALF: HashKey = HashKey::new(1 << 127);

/// Puts lines `from..to`, of fifty keys.
fn put(stream: &Stream, from: usize, to: usize) -> String {
    let mut text = String::new();
    for i in from..to {
        stream.put(&format!("key-{}", i % 50), i.to_string()).unwrap();
        text += &format!("key-{} {i}\n", i % 50);
    }
    text
}

/// Puts lines, of which the shard is split and its children merged in between.
fn put_resharded(stream: &Stream) -> String {
    let mut text = put(stream, 0, 500);
    let [low, high] = stream.split_shard(ShardId::new(0), HALF).unwrap();
    text += &put(stream, 500, 1000);
    stream.merge_shards(low, high).unwrap();
    text + &put(stream, 1000, 1500)
}

#[test]
fn parents_are_read_before_children() {
    let place = Place::with_shards(1);
    let stream = Stream::builder(&place.stream).open_existing().unwrap();
    let text = put_resharded(&stream);
    let tail = place.tail();
    assert_eq!(tail.lines().len(), 1500);
    assert_eq!(by_key(tail.lines()), by_key(text.lines()));
}

#[test]
fn one_who_follows_goes_on_in_the_children() {
    for offset in ["horizon", "latest"] {
        let place = Place::with_shards(1);
        let stream = Stream::builder(&place.stream).open_existing().unwrap();
        let args = ["tail", &place.stream, "-f", "-o", offset, "-K "];
        let mut tail = start(&mut millstream(&args));
        let lines = BufReader::new(tail.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap);
        // Latest is wherever it happens to begin: put until it has begun.
        let first = std::thread::scope(|scope| {
            let first = scope.spawn(|| lines.next().unwrap());
            while !first.is_finished() {
                stream.put("first", "").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            first.join().unwrap()
        });
        assert_eq!(first, "first ");
        let text = put_resharded(&stream);
        let read: Vec<String> = lines.by_ref().filter(|line| line != "first ").take(1500).collect();
        tail.kill().unwrap();
        tail.wait().unwrap();
        let text = by_key(text.lines());
        for (key, lines) in by_key(read.iter().map(String::as_str)) {
            assert!(text[key].starts_with(&lines), "{key} in order");
        }
    }
}

#[test]
fn the_last_records_are_those_of_open_shards() {
    let place = Place::with_shards(1);
    let stream = Stream::builder(&place.stream).open_existing().unwrap();
    put_resharded(&stream);
    let tail = run(&["tail", &place.stream, "-o", "-2"]).succeeded();
    assert_eq!(tail.lines(), ["1498", "1499"]);
}

#[test]
fn a_closed_shard_that_is_followed_alone_ends() {
    let place = Place::with_shards(1);
    let stream = Stream::builder(&place.stream).open_existing().unwrap();
    put_resharded(&stream);
    let tail = run(&["tail", &place.stream, "-f", "--shard", "0"]).succeeded();
    assert_eq!(tail.lines().len(), 500);
}

#[test]
fn info_shows_where_shards_come_from() {
    let place = Place::with_shards(1);
    let stream = Stream::builder(&place.stream).open_existing().unwrap();
    put_resharded(&stream);
    let shards = place.info()["shards"].clone();
    assert_eq!(shards[0]["state"], "closed");
    assert_eq!(shards[1]["parent"], "shardId-000000000000");
    assert_eq!(shards[3]["parent"], "shardId-000000000001");
    assert_eq!(shards[3]["adjacent_parent"], "shardId-000000000002");
    assert_eq!(shards[3]["state"], "open");
    let records: u64 = (0..4).map(|i| shards[i]["records"].as_u64().unwrap()).sum();
    assert_eq!(records, 1500);
    let table = run(&["info", &place.stream]).succeeded();
    assert!(table.text().contains("  1+2  "), "{}", table.text());
}

#[test]
fn a_running_worker_ends_the_command_of_a_shard_before_its_children_begin() {
    let place = Place::with_shards(1);
    let stream = Stream::builder(&place.stream).open_existing().unwrap();
    let exec = "cat >> out; echo end $MILLSTREAM_SHARD >> out";
    let args = ["work", &place.stream, "--app", "a", "-K ", "--exec", exec];
    let worker = start(millstream(&args).current_dir(place.root()));
    let text = put_resharded(&stream);
    let out = || fs::read_to_string(place.path("out")).unwrap_or_default();
    eventually("everything is processed", || out().lines().count() >= 1503);
    signal(&worker, "-TERM");
    assert!(worker.wait_with_output().unwrap().status.success());
    let out = out();
    let ends: Vec<&str> = out.lines().filter(|line| line.starts_with("end")).collect();
    assert_eq!(ends.len(), 4);
    assert_eq!((ends[0], ends[3]), ("end shardId-000000000000", "end shardId-000000000003"));
    let records = out.lines().filter(|line| !line.starts_with("end"));
    assert_eq!(by_key(records), by_key(text.lines()));
}
