//! Streams as bytes and as JSON lines: dump, export, import.

use std::fs;

use crate::harness::{Place, by_key, run, run_with, start, text};

/// The only segment of the first shard.
fn segment(place: &Place) -> String {
    format!("{}/shards/shardId-000000000000/00000000000000000000.seg", place.stream)
}

#[test]
fn dump_shows_header_seal_and_frames_in_words_and_hex() {
    let place = Place::with_shards(1);
    place.put("customer-7 clicked\n").succeeded();
    let dump = run(&["dump", &place.stream]).succeeded();
    let text = dump.text();
    assert!(text.starts_with(&segment(&place)), "{text}");
    for part in [
        "00000000  header     stream ",
        "00000000    6d 69 6c 6c 73 74 72 6d 01 00 00 00 ",
        "|millstrm....",
        "00000800  seal       paused: ends at 4160 with 1 frames, 0 before it",
        "00001000  record     number 4096, ordinal 0, arrival ",
        "key of 10 bytes, data of 7, durable below ",
        "00001020    63 75 73 74 6f 6d 65 72 2d 37 63 6c 69 63 6b 65  |customer-7clicke|",
        "00001040  unused     ",
    ] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
    assert!(text.lines().skip(1).all(|line| line.len() <= 120), "{text}");
    // Of one segment, as JSON, without what is unused.
    let args = ["dump", &segment(&place), "--json", "--used", "--bytes", "8"];
    let parts = run(&args).succeeded();
    let kinds: Vec<String> = parts
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|part| format!("{}@{}", part["kind"].as_str().unwrap(), part["offset"]))
        .collect();
    assert_eq!(kinds, ["header@0", "seal@2048", "record@4096"]);
    assert!(parts.text().contains(r#""hex":"6d696c6c7374726d""#), "{}", parts.text());
}

#[test]
fn dump_shows_what_is_damaged_and_leaves_nothing_out() {
    let place = Place::with_shards(1);
    place.put("k 1\nk 2\nk 3\n").succeeded();
    let path = segment(&place);
    let mut bytes = fs::read(&path).unwrap();
    bytes[4096 + 64 + 33] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let parts = run(&["dump", &path, "--json"]).succeeded();
    let mut at = 0;
    let mut kinds = Vec::new();
    for line in parts.lines() {
        let part: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(part["offset"], at);
        at += part["len"].as_u64().unwrap();
        kinds.push(part["kind"].as_str().unwrap().to_owned());
    }
    assert_eq!(at, bytes.len() as u64);
    let expected = ["header", "seal", "unused", "record", "not-whole", "record", "unused"];
    assert_eq!(kinds, expected);
    bytes[8] ^= 1;
    fs::write(&path, &bytes[..100]).unwrap();
    assert!(run(&["dump", &path]).succeeded().text().contains("not-whole"));
    fs::write(&path, "").unwrap();
    run(&["dump", &path]).succeeded();
    run(&["dump", place.path("missing").to_str().unwrap()]).failed(1, &["no stream at"]);
}

#[test]
fn what_was_exported_is_imported_with_keys_places_times_and_order() {
    let place = Place::with_shards(3);
    let text = text(1000);
    place.put(&text).succeeded();
    {
        use millstream::{HashKey, PutRecord, Stream};
        let stream = Stream::builder(&place.stream).open_existing().unwrap();
        let binary = [0xff, 0, 0xfe];
        stream.put("binary", binary).unwrap();
        stream.put_record(PutRecord::new("placed", "x").explicit_hash_key(HashKey::MAX)).unwrap();
        stream.put_any("keyless").unwrap();
        stream.reshard_to(2).unwrap();
        stream.put("after", "the reshard").unwrap();
    }
    let exported = run(&["export", &place.stream]).succeeded();
    assert_eq!(exported.lines().len(), 1004);
    let copy = place.path("copy").to_str().unwrap().to_owned();
    run(&["create", &copy, "--shards", "2"]).succeeded();
    let imported = run_with(&["import", &copy, "--json"], &exported.stdout).succeeded();
    assert_eq!(imported.stderr, "{\"records\":1004}\n");
    let tail = |stream: &str| run(&["tail", stream, "--format", "%k %T %S %s\\n"]).succeeded();
    let (before, after) = (tail(&place.stream), tail(&copy));
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&before.stdout), sorted(&after.stdout));
    let keyed = run(&["tail", &copy, "-K "]).succeeded();
    let text_of = |stdout: &[u8]| String::from_utf8_lossy(stdout).into_owned();
    let (keyed, all) = (text_of(&keyed.stdout), by_key(text.lines()));
    for (key, lines) in by_key(keyed.lines()).iter().filter(|(key, _)| key.starts_with("key-")) {
        assert_eq!(lines, &all[key]);
    }
    // It was placed where its key alone does not lead to.
    let placed = exported.text().lines().find(|line| line.contains("\"placed\"")).unwrap();
    let hash = millstream::HashAlgorithm::default().hash("placed");
    let last_third = millstream::HashKeyRange::even(3)[2];
    assert_eq!(placed.contains("explicit_hash_key"), !last_third.contains(hash), "{placed}");
}

#[test]
fn a_line_that_is_no_record_ends_the_import_there_and_those_before_it_are_kept() {
    for (line, words) in [
        ("nonsense", "no JSON object"),
        ("[1]", "no JSON object"),
        (r#"{"partition_key":"k"}"#, "data and data_base64"),
        (r#"{"data":"x","data_base64":"eA=="}"#, "data and data_base64"),
        (r#"{"data_base64":"?"}"#, "no base64"),
        (r#"{"data":"x","partition_key":""}"#, "1 to 256"),
        (r#"{"data":"x","partition_key":7}"#, "partition_key is no string"),
        (r#"{"data":"x","partition_key":"k","explicit_hash_key":"-1"}"#, "explicit hash key"),
        (r#"{"data":"x","arrival_ms":-5}"#, "arrival_ms"),
    ] {
        let place = Place::with_shards(1);
        let input = format!("{{\"data\":\"good\"}}\n{line}\n{{\"data\":\"never\"}}\n");
        let ran = run_with(&["import", &place.stream], input);
        ran.failed(1, &["line 2 of standard input", words]);
        assert_eq!(place.tail().text(), " good\n", "{line}");
    }
}

#[test]
fn import_reads_files_and_needs_the_stream_for_itself() {
    let place = Place::with_shards(1);
    let file = place.path("records.jsonl").to_str().unwrap().to_owned();
    fs::write(&file, "{\"data\":\"x\",\"partition_key\":\"k\",\"arrival_ms\":1000}").unwrap();
    let imported = run(&["import", &place.stream, &file]).succeeded();
    assert_eq!(imported.stderr, "imported 1 record\n");
    let tail = run(&["tail", &place.stream, "--format", "%k %s %T\\n"]).succeeded();
    assert_eq!(tail.text(), "k x 1000\n");
    run(&["import", &place.stream, "/no/such/file"]).failed(1, &["/no/such/file"]);
    let mut writer = start(&mut crate::harness::millstream(&["import", &place.stream]));
    crate::harness::eventually("it has the stream", || {
        fs::exists(format!("{}/OWNER", place.stream)).unwrap()
    });
    run(&["import", &place.stream, &file]).failed(3, &[&writer.id().to_string()]);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
}
