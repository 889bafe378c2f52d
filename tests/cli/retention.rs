//! `retention`, `trim` and `delete`.

use crate::harness::{Place, eventually, millstream, run, start, text};

#[test]
fn retention_is_shown_and_changed_option_by_option() {
    let place = Place::with_shards(1);
    let shown = run(&["retention", &place.stream]).succeeded();
    assert!(shown.text().contains("kept for ever"), "{shown:?}");
    run(&["retention", &place.stream, "--age", "7d"]).succeeded();
    let held = ["--bytes", "10GiB", "--hold-for", "billing", "--hold-for", "audit"];
    run(&[&["retention", &place.stream], &held[..]].concat()).succeeded();
    let json = run(&["retention", &place.stream, "--when-full", "block:5s", "--json"]);
    let retention = json.succeeded().json()["retention"].clone();
    assert_eq!(retention["age_ms"], 7 * 86_400_000);
    assert_eq!(retention["bytes"], 10u64 << 30);
    assert_eq!(retention["hold_for"], serde_json::json!(["billing", "audit"]));
    assert_eq!((&retention["when_full"], &retention["block_ms"]), (&"block".into(), &5000.into()));
    assert_eq!(place.info()["retention"], retention);
    let shown = run(&["retention", &place.stream]).succeeded();
    for word in ["7d old", "10.00 GiB in all", "billing and audit", "puts wait"] {
        assert!(shown.text().contains(word), "{word}: {shown:?}");
    }
    run(&["retention", &place.stream, "--bytes", "none"]).failed(1, &["limit of bytes"]);
    run(&["retention", &place.stream, "--forever"]).succeeded();
    assert_eq!(place.info()["retention"]["age_ms"], serde_json::Value::Null);
}

#[test]
fn what_is_no_limit_is_wrong_usage() {
    let place = Place::with_shards(1);
    for wrong in [["--age", "7"], ["--bytes", "1KB"], ["--records", "x"], ["--when-full", "panic"]]
    {
        let ran = run(&[&["retention", &place.stream], &wrong[..]].concat());
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
}

#[test]
fn keeping_records_no_longer_takes_them_away_at_once() {
    let place = Place::with_shards(1);
    place.put(text(1000)).succeeded();
    eventually("the clock is a millisecond further", || {
        run(&["retention", &place.stream, "--age", "0s"]).succeeded();
        place.records() == 0
    });
    assert_eq!(place.info()["shards"][0]["trimmed_records"], 1000);
    run(&["retention", &place.stream, "--forever"]).succeeded();
    assert_eq!(place.records(), 0);
    place.put("a 1\n").succeeded();
    assert_eq!(place.tail().text(), "a 1\n");
    run(&["verify", &place.stream]).succeeded();
}

#[test]
fn trim_takes_the_oldest_away() {
    let place = Place::with_shards(1);
    place.put("a 1\na 2\na 3\n").succeeded();
    let numbers = run(&["tail", &place.stream, "--format", "%o\\n"]).succeeded();
    let second = numbers.lines()[1].to_owned();
    let trimmed = run(&["trim", &place.stream, "--up-to", &second, "--json"]).succeeded().json();
    assert_eq!((&trimmed["records"], &trimmed["horizon"]), (&2.into(), &numbers.lines()[2].into()));
    assert_eq!(place.tail().text(), "a 3\n");
    let info = run(&["info", &place.stream]).succeeded();
    assert!(info.text().contains("2 records trimmed"), "{info:?}");
    let all = run(&["trim", &place.stream, "--all"]).succeeded();
    assert!(all.text().starts_with("trimmed 1 record of shardId-000000000000"), "{all:?}");
    assert_eq!(place.records(), 0);
    assert_eq!(run(&["trim", &place.stream]).code, Some(2));
}

#[test]
fn trim_asks_which_shard_is_meant() {
    let place = Place::with_shards(2);
    run(&["trim", &place.stream, "--all"]).failed(2, &["--shard"]);
    run(&["trim", &place.stream, "--all", "--shard", "7"]).failed(1, &["no shard"]);
    run(&["trim", &place.stream, "--all", "--shard", "1"]).succeeded();
}

#[test]
fn delete_removes_a_stream_that_nobody_uses() {
    let place = Place::with_shards(1);
    let mut writer = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut acks = std::io::BufReader::new(writer.stdout.take().unwrap());
    std::io::Write::write_all(writer.stdin.as_mut().unwrap(), b"k 1\n").unwrap();
    std::io::BufRead::read_line(&mut acks, &mut String::new()).unwrap();
    run(&["delete", &place.stream]).failed(3, &[&writer.id().to_string()]);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    let deleted = run(&["delete", &place.stream, "--json"]).succeeded().json();
    assert_eq!(deleted["deleted"], true);
    assert_eq!(std::fs::read_dir(place.root()).unwrap().count(), 0);
    run(&["delete", &place.stream, "--force"]).failed(1, &["no stream"]);
}
