//! Streams listed, shards split, merged and resharded, and the ring as text.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use crate::harness::{Place, by_key, millstream, run, start, text};

#[test]
fn split_merge_and_reshard_say_what_they_did_and_keep_every_record() {
    let place = Place::with_shards(2);
    let text = text(2000);
    place.put(&text).succeeded();
    let split = run(&["split", &place.stream, "0"]).succeeded();
    assert!(split.text().contains(": closed 0, opened 2 and 3\n"), "{}", split.text());
    let merged = run(&["merge", &place.stream, "1", "shardId-000000000003", "--json"]).succeeded();
    assert_eq!(merged.json()["closed"].as_array().unwrap().len(), 2);
    assert_eq!(merged.json()["opened"][0]["id"], "shardId-000000000004");
    assert_eq!(merged.json()["open_shards"], 2);
    let resharded = run(&["reshard", &place.stream, "5"]).succeeded();
    assert!(resharded.text().contains("closed 2 and 4, opened 5, 6, 7, 8 and 9\n"));
    assert!(resharded.text().lines().all(|line| line.len() <= 80 || line.contains(": closed")));
    let again = run(&["reshard", &place.stream, "5"]).succeeded();
    assert!(again.text().ends_with(": nothing to change\n"), "{}", again.text());
    assert_eq!(by_key(place.tail().lines()), by_key(text.lines()));
}

#[test]
fn a_shard_is_split_at_a_key_or_by_what_its_records_tell() {
    let place = Place::with_shards(1);
    let at = (1u128 << 126).to_string();
    run(&["split", &place.stream, "0", "--at", &at]).succeeded();
    assert_eq!(place.info()["shards"][2]["starting_hash_key"], at);
    place.put(text(1000)).succeeded();
    run(&["split", &place.stream, "2", "--fraction", "0.1"]).succeeded();
    place.put(text(1000)).succeeded();
    let records = |shard: usize| place.info()["shards"][shard]["records"].as_u64().unwrap();
    assert!(records(3) < records(4) / 4, "{} and {}", records(3), records(4));
    let wrong = run(&["split", &place.stream, "4", "--at", "1", "--fraction", "0.5"]);
    assert_eq!(wrong.code, Some(2));
}

#[test]
fn what_cannot_be_split_or_merged_is_refused_with_the_reason() {
    let place = Place::with_shards(3);
    run(&["split", &place.stream, "0", "--at", "1"]).failed(1, &["can be split at 2"]);
    run(&["split", &place.stream, "9"]).failed(1, &["shardId-000000000009"]);
    run(&["split", &place.stream, "0", "--fraction", "2"]).failed(1, &["between 0 and 1"]);
    run(&["merge", &place.stream, "0", "2"]).failed(1, &["not adjacent"]);
    run(&["reshard", &place.stream, "0"]).failed(1, &["at least one"]);
    run(&["reshard", &place.stream, "20000"]).failed(1, &["20000", "10000"]);
    run(&["split", &place.stream, "0"]).succeeded();
    run(&["split", &place.stream, "0"]).failed(1, &["is closed"]);
    assert_eq!(place.info()["shards"].as_array().unwrap().len(), 5);
}

#[test]
fn verbs_that_reshape_need_the_stream_for_themselves_and_say_who_has_it() {
    let place = Place::with_shards(2);
    let mut writer = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = writer.stdin.take().unwrap();
    stdin.write_all(b"k 1\n").unwrap();
    BufReader::new(writer.stdout.take().unwrap()).lines().next().unwrap().unwrap();
    let owner = writer.id().to_string();
    for verb in [&["split", &place.stream, "0"][..], &["merge", &place.stream, "0", "1"]] {
        run(verb).failed(3, &[&owner]);
    }
    run(&["reshard", &place.stream, "4"]).failed(3, &[&owner]);
    drop(stdin);
    assert!(writer.wait().unwrap().success());
}

#[test]
fn info_draws_the_ring_of_hundreds_of_shards_in_80_columns() {
    let place = Place::with_shards(1);
    for count in ["3", "300", "2", "7", "1", "5", "1", "4", "1", "3", "1", "2", "1", "9"] {
        run(&["reshard", &place.stream, count]).succeeded();
    }
    let info = run(&["info", &place.stream]).succeeded();
    let ring: Vec<&str> = info.text().lines().rev().take_while(|line| !line.is_empty()).collect();
    assert_eq!(ring.len(), 13, "the latest dozen, and a word on the others");
    assert!(ring[12].contains("... ") && ring[12].contains("and 3 earlier"), "{}", ring[12]);
    assert_eq!(ring[0].matches('|').count(), 10);
    assert!(ring.iter().all(|line| line.len() <= 80));
}

#[test]
fn ls_lists_the_streams_of_a_directory_and_names_those_it_cannot_read() {
    let place = Place::with_shards(2);
    place.put(text(100)).succeeded();
    let other = place.path("other").to_str().unwrap().to_owned();
    run(&["create", &other]).succeeded();
    let dir = place.root().to_str().unwrap();
    let listed = run(&["ls", dir]).succeeded();
    assert_eq!(listed.lines().len(), 3);
    assert!(listed.lines()[1].starts_with("other        1"), "{}", listed.text());
    assert!(listed.lines()[2].starts_with("stream       2            100"), "{}", listed.text());
    fs::write(format!("{other}/MANIFEST"), "no").unwrap();
    let listed = run(&["ls", dir, "--json"]).failed(4, &["other", "MANIFEST"]);
    assert_eq!(listed.json()["streams"][0]["records"], 100);
    assert_eq!(listed.json()["streams"].as_array().unwrap().len(), 1);
    run(&["ls", place.path("missing").to_str().unwrap()]).failed(1, &["missing"]);
}

#[test]
fn tail_of_a_key_gives_its_records_alone_along_its_lineage() {
    let place = Place::with_shards(3);
    let text = text(3000);
    let (first, second) = text.split_at(text.find("key-9 line 1500").unwrap());
    place.put(first).succeeded();
    run(&["reshard", &place.stream, "2"]).succeeded();
    place.put(second).succeeded();
    let all = place.tail();
    let expected = &by_key(all.lines())["key-9"];
    let found = run(&["tail", &place.stream, "-K ", "--key", "key-9"]).succeeded();
    assert!(found.lines().len() > 5 && found.lines() == *expected, "{}", found.text());
    let two = run(&["tail", &place.stream, "-K ", "--key", "key-9", "-n", "2"]).succeeded();
    assert_eq!(two.lines(), expected[..2]);
    assert!(run(&["tail", &place.stream, "--key", "nobody"]).succeeded().stdout.is_empty());
}
