//! Putting lines: keys, any bytes, acknowledgements, slow pipes and sudden ends.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use crate::harness::{Place, Ran, by_key, millstream, run, run_with, signal, start, text};

#[test]
fn the_lines_of_each_key_come_back_in_their_order() {
    let place = Place::with_shards(4);
    let text = text(20_000);
    place.put(&text).succeeded();
    let tail = place.tail();
    assert_eq!(tail.lines().len(), 20_000);
    assert_eq!(by_key(tail.lines()), by_key(text.lines()));
}

#[test]
fn data_may_be_any_bytes() {
    let place = Place::with_shards(1);
    let lines = b"\0\n\xff\xfe\n\ncarriage\r\nlast without end";
    run_with(&["put", &place.stream, "--key", "all"], lines).succeeded();
    let tail = run(&["tail", &place.stream]).succeeded();
    assert_eq!(tail.stdout, b"\0\n\xff\xfe\n\ncarriage\r\nlast without end\n");
}

#[test]
fn the_delimiter_is_in_neither_key_nor_data() {
    let place = Place::with_shards(1);
    run_with(&["put", &place.stream, "-K", "::"], "a::b::c\nd::\n").succeeded();
    let tail = run(&["tail", &place.stream, "--format", r"%k|%s\n"]).succeeded();
    assert_eq!(tail.text(), "a|b::c\nd|\n");
}

#[test]
fn the_delimiter_may_be_escaped() {
    let place = Place::with_shards(1);
    for (delimiter, line) in [(r"\t", "a\tb\n"), (r"\0", "a\0b\n"), (r"\\", "a\\b\n")] {
        run_with(&["put", &place.stream, "-K", delimiter], line).succeeded();
    }
    let tail = run(&["tail", &place.stream, "--format", r"%k|%s\n"]).succeeded();
    assert_eq!(tail.lines(), ["a|b"; 3]);
    assert_eq!(run_with(&["put", &place.stream, "-K", r"\q"], "a\\qb\n").code, Some(2));
}

#[test]
fn a_signal_ends_the_put_with_its_summary_and_no_half_line() {
    for name in ["-INT", "-TERM"] {
        let place = Place::with_shards(1);
        let mut put = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
        let mut stdin = put.stdin.take().unwrap();
        let mut acks = BufReader::new(put.stdout.take().unwrap()).lines();
        stdin.write_all(b"k 1\nk half").unwrap();
        acks.next().unwrap().unwrap();
        signal(&put, name);
        // The input stays open.
        let ended = Ran::from(put.wait_with_output().unwrap());
        assert!(ended.stderr.starts_with("put 1 record, 2 B, in "), "{}", ended.stderr);
        ended.failed(130, &["interrupted"]);
        assert_eq!(place.tail().text(), "k 1\n");
        drop(stdin);
    }
}

#[test]
fn lines_without_key_are_spread_by_their_place_in_the_input() {
    let place = Place::with_shards(4);
    run_with(&["put", &place.stream], "x\n".repeat(400)).succeeded();
    let info = place.info();
    let shards = info["shards"].as_array().unwrap();
    assert!(shards.iter().all(|shard| shard["records"].as_u64().unwrap() > 50), "{info}");
    let keys = run(&["tail", &place.stream, "--format", r"%k\n"]).succeeded();
    let mut keys: Vec<u32> = keys.lines().iter().map(|key| key.parse().unwrap()).collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq(1..=400));
}

#[test]
fn files_are_put_one_after_the_other() {
    let place = Place::with_shards(1);
    let [first, second] = ["first", "second"].map(|name| {
        let path = place.path(name);
        fs::write(&path, format!("k {name} 1\nk {name} 2")).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let args = ["put", &place.stream, "-K ", &first, "-", &second];
    run_with(&args, "k stdin\n").succeeded();
    let tail = run(&["tail", &place.stream]).succeeded();
    assert_eq!(tail.lines(), ["first 1", "first 2", "stdin", "second 1", "second 2"]);
}

#[test]
fn a_file_that_cannot_be_read_is_noticed_before_anything_is_put() {
    let place = Place::with_shards(1);
    let file = place.path("file");
    fs::write(&file, "k v\n").unwrap();
    let missing = place.path("missing");
    let names = [file.to_str().unwrap(), missing.to_str().unwrap(), place.root().to_str().unwrap()];
    run(&["put", &place.stream, "-K ", names[0], names[1]]).failed(1, &["cannot read", names[1]]);
    run(&["put", &place.stream, "-K ", names[0], names[2]]).failed(1, &["a directory"]);
    assert_eq!(place.records(), 0);
}

#[test]
fn the_summary_counts_records_and_bytes_by_shard() {
    let place = Place::with_shards(2);
    let put = place.put("a 12\nb 34\n").succeeded();
    assert!(put.stdout.is_empty());
    assert!(put.stderr.starts_with("put 2 records, 6 B"), "{}", put.stderr);
    let put = run_with(&["put", &place.stream, "-K ", "--json"], "a 12\nb 34\n").succeeded();
    let summary: serde_json::Value = serde_json::from_str(&put.stderr).unwrap();
    assert_eq!(summary["records"], 2);
    assert_eq!(summary["bytes"], 6);
}

#[test]
fn acks_name_shard_number_and_key_of_each_record() {
    let place = Place::with_shards(4);
    let text = text(1000);
    let acks = run_with(&["put", &place.stream, "-K ", "--acks"], &text).succeeded();
    let records = run(&["tail", &place.stream, "--format", r"%p\t%o\t%k\n"]).succeeded();
    let (mut acks, mut records) = (acks.lines(), records.lines());
    acks.sort_unstable();
    records.sort_unstable();
    assert_eq!(acks, records);
}

#[test]
fn lines_are_put_as_they_come_even_synced() {
    for durability in [&[][..], &["--sync"]] {
        let place = Place::with_shards(2);
        let args = [&["put", &place.stream, "-K ", "--acks"], durability].concat();
        let mut put = start(&mut millstream(&args));
        let mut acks = BufReader::new(put.stdout.take().unwrap()).lines();
        let mut stdin = put.stdin.take().unwrap();
        for line in ["a 1", "b 2", "a 3"] {
            writeln!(stdin, "{line}").unwrap();
            // Comes while the input is open, else this waits for ever.
            assert!(acks.next().unwrap().unwrap().ends_with(&line[..1]));
        }
        drop(stdin);
        assert!(put.wait().unwrap().success());
        assert_eq!(place.records(), 3);
    }
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let place = Place::with_shards(4);
    let mut put = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = put.stdin.take().unwrap();
    let input = text(200_000);
    let writer = std::thread::spawn({
        let input = input.clone();
        move || drop(stdin.write_all(input.as_bytes()))
    });
    let mut stdout = BufReader::new(put.stdout.take().unwrap());
    let mut acks = Vec::new();
    for _ in 0..30_000 {
        let mut ack = String::new();
        stdout.read_line(&mut ack).unwrap();
        acks.push(ack);
    }
    put.kill().unwrap();
    acks.extend(stdout.lines().map(|line| line.unwrap() + "\n"));
    put.wait().unwrap();
    writer.join().unwrap();

    let records = run(&["tail", &place.stream, "--format", r"%p\t%o\t%k\n"]).succeeded();
    let there: std::collections::HashSet<&str> = records.text().split_inclusive('\n').collect();
    assert!(acks.iter().all(|ack| there.contains(ack.as_str())), "every acknowledged record");
    place.put("afterwards 1\n").succeeded();
    let tail = place.tail();
    let input = by_key(input.lines());
    for (key, lines) in by_key(tail.lines()) {
        let expected = if key == "afterwards" { &vec!["afterwards 1"] } else { &input[key] };
        assert!(expected.starts_with(&lines), "the first lines of {key}, in their order");
    }
}
