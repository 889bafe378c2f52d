//! Help, create, info and the demo.

use std::fs;

use crate::harness::{Place, run, start, text};

#[test]
fn every_verb_has_help_with_an_example() {
    for verb in [
        "create",
        "ls",
        "info",
        "put",
        "tail",
        "split",
        "merge",
        "reshard",
        "work",
        "retention",
        "trim",
        "delete",
        "verify",
        "repair",
        "dump",
        "export",
        "import",
        "demo",
        "top",
        "bench",
        "cheat",
        "completions",
        "man",
    ] {
        let help = run(&[verb, "--help"]).succeeded();
        assert!(help.text().contains(&format!("  millstream {verb}")), "{verb}");
        assert!(help.text().contains("Example"), "{verb}");
    }
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = run(&["--help"]).succeeded();
    for line in ["  0  done", "  1  an error", "  2  wrong usage", "141  "] {
        assert!(help.text().contains(line), "{line}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(run(&["put"]).code, Some(2));
    assert_eq!(run(&["weave", "."]).code, Some(2));
    assert_eq!(run(&["tail", ".", "-o", "yesterday"]).code, Some(2));
    assert_eq!(run(&["create", ".", "--shards", "0"]).code, Some(2));
}

#[test]
fn create_makes_a_stream_that_divides_the_ring() {
    let place = Place::without_stream();
    let created = run(&["create", &place.stream, "--shards", "3", "--json"]).succeeded();
    assert_eq!(created.json()["shards"].as_array().unwrap().len(), 3);
    let info = place.info();
    assert_eq!(info["shards"][0]["starting_hash_key"], "0");
    assert_eq!(info["shards"][0]["ending_hash_key"], "113427455640312821154458202477256070484");
    assert_eq!(info["shards"][2]["ending_hash_key"], u128::MAX.to_string());
    assert_eq!(info["records"], 0);
}

#[test]
fn create_leaves_an_existing_stream_alone() {
    let place = Place::with_shards(2);
    place.put("a 1\nb 2\n").succeeded();
    run(&["create", &place.stream]).failed(1, &["is a stream", "nothing was changed"]);
    assert_eq!(place.tail().lines().len(), 2);
    assert_eq!(place.info()["shards"].as_array().unwrap().len(), 2);
}

#[test]
fn create_leaves_a_directory_of_other_things_alone() {
    let place = Place::without_stream();
    fs::create_dir(&place.stream).unwrap();
    fs::write(format!("{}/letter", place.stream), "Dear").unwrap();
    assert_eq!(run(&["create", &place.stream]).code, Some(1));
    assert_eq!(fs::read_dir(&place.stream).unwrap().count(), 1);
}

#[test]
fn info_counts_what_was_put() {
    let place = Place::with_shards(4);
    let text = text(5000);
    place.put(&text).succeeded();
    let info = place.info();
    assert_eq!(info["records"], 5000);
    let shards = info["shards"].as_array().unwrap();
    let records: u64 = shards.iter().map(|shard| shard["records"].as_u64().unwrap()).sum();
    assert_eq!(records, 5000);
    let data: usize = text.lines().map(|line| line.len() - 1).sum();
    assert!(info["bytes"].as_u64().unwrap() > data as u64);
    for shard in shards {
        let number = |field: &str| -> u64 { shard[field].as_str().unwrap().parse().unwrap() };
        assert!(number("first_sequence_number") < number("last_sequence_number"));
    }
}

#[test]
fn info_counts_what_several_puts_have_put() {
    let place = Place::with_shards(2);
    for lines in [10, 20_000, 30, 40_000] {
        place.put(text(lines)).succeeded();
    }
    assert_eq!(place.records(), 60_040);
    assert_eq!(place.tail().lines().len(), 60_040);
}

#[test]
fn info_is_a_table_that_fits_on_a_screen() {
    let place = Place::with_shards(4);
    place.put(text(5000)).succeeded();
    let info = run(&["info", &place.stream]).succeeded();
    let table: Vec<&str> = info.lines()[2..].to_vec();
    assert!(table[0].starts_with("SHARD"));
    assert!(table[1].contains("shardId-000000000000  open   0000..3fff  25.0%  -"));
    assert_eq!(table[5], "");
    assert!(table[6].ends_with("  |------0-------|------1-------|------2-------|------3-------|"));
    assert!(table.iter().all(|line| line.len() <= 80), "{}", info.text());
}

#[test]
fn reading_needs_no_lock_and_sees_what_is_put_at_the_same_time() {
    let place = Place::with_shards(2);
    place.put("a 1\n").succeeded();
    let mut writer = start(&mut crate::harness::millstream(&["put", &place.stream, "-K "]));
    assert_eq!(place.records(), 1);
    assert_eq!(place.tail().text(), "a 1\n");
    run(&["work", &place.stream, "--app", "audit", "--until-idle"]).succeeded();
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
}

#[test]
fn the_demo_proves_itself_and_leaves_nothing_behind() {
    let place = Place::without_stream();
    let demo = crate::harness::millstream(&["demo", "--rate", "0", "--lines", "20000"])
        .env("TMPDIR", place.root())
        .output()
        .unwrap();
    let demo = crate::harness::Ran::from(demo).succeeded();
    assert!(demo.text().contains("The proof holds."), "{}", demo.text());
    assert_eq!(fs::read_dir(place.root()).unwrap().count(), 0);
}

#[test]
fn the_demo_keeps_a_directory_that_it_was_given() {
    let place = Place::without_stream();
    let args = ["demo", &place.stream, "--rate", "0", "--lines", "20000", "--json"];
    let demo = run(&args).succeeded();
    assert_eq!(demo.json()["proof_holds"], true);
    assert_eq!(demo.json()["records_counted"], 20_000);
    let info = place.info();
    assert_eq!(info["records"], 20_000);
    assert_eq!(info["shards"].as_array().unwrap().len(), 6, "four, and two by the split");
    let again = run(&args).failed(1, &["is a stream"]);
    assert_eq!(again.stderr.lines().count(), 1, "it is refused first: {}", again.stderr);
}
