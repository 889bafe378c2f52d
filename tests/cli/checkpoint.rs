//! Applications listed, their checkpoints shown and moved.

use crate::harness::{Place, Ran, run};

/// A place with an application that has printed what there was, and what it printed.
fn place() -> Place {
    let place = Place::with_shards(2);
    place.put("a 1\nb 2\nc 3\n").succeeded();
    assert_eq!(work(&place).lines().len(), 3);
    place
}

fn work(place: &Place) -> Ran {
    run(&["work", &place.stream, "--app", "print", "--until-idle"]).succeeded()
}

fn seek(place: &Place, args: &[&str]) -> Ran {
    let verb = ["checkpoint", "seek", &place.stream, "--app", "print", "--reason", "a test"];
    run(&[&verb, args].concat())
}

#[test]
fn apps_and_their_checkpoints_are_shown() {
    let place = place();
    place.put("a 4\n").succeeded();
    let apps = run(&["apps", &place.stream]).succeeded();
    assert_eq!(apps.text(), "print: 0 pools, 1 record behind, 0 dead letters\n");
    let app = run(&["apps", &place.stream, "--json"]).succeeded().json();
    assert_eq!((&app["app"], &app["lag_records"]), (&"print".into(), &1.into()));
    let show = ["checkpoint", "show", &place.stream, "--app", "print"];
    assert_eq!(run(&show).succeeded().lines().len(), 2);
    let json = run(&[&show[..], &["--json"]].concat()).succeeded();
    let lag = |line: &&str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["lag_records"].as_u64().unwrap()
    };
    assert_eq!(json.lines().iter().map(lag).sum::<u64>(), 1);
    let first: serde_json::Value = serde_json::from_str(json.lines()[0]).unwrap();
    let none: &[&str] = &[];
    assert_eq!((&first["parents"], &first["children"]), (&none.into(), &none.into()));
    assert_eq!((&first["owners"], &first["starting_hash_key"]), (&1.into(), &"0".into()));
}

#[test]
fn an_application_goes_on_where_it_was_sought_to() {
    let place = place();
    seek(&place, &["horizon"]).succeeded();
    assert_eq!(work(&place).lines().len(), 3);
    place.put("a 4\n").succeeded();
    seek(&place, &["latest"]).succeeded();
    assert_eq!(work(&place).lines().len(), 0);
    seek(&place, &["@0", "--shard", "1"]).succeeded();
    let again = work(&place).lines().len();
    seek(&place, &["@0", "--shard", "shardId-000000000000"]).succeeded();
    assert_eq!(again + work(&place).lines().len(), 4);
}

#[test]
fn a_seek_that_cannot_be_is_an_error() {
    let place = place();
    seek(&place, &["4096"]).failed(2, &["--shard"]);
    seek(&place, &["horizon", "--shard", "7"]).failed(1, &["no shard shardId-000000000007"]);
    assert_eq!(seek(&place, &["somewhere"]).code, Some(2));
    let show = run(&["checkpoint", "show", &place.stream, "--app", "typo"]);
    show.failed(1, &["no application typo", "millstream apps"]);
    assert_eq!(work(&place).lines().len(), 0);
}

#[test]
fn a_shard_is_processed_behind_the_record_that_the_checkpoint_is_set_to() {
    let place = Place::with_shards(1);
    place.put("a 1\na 2\na 3\n").succeeded();
    assert_eq!(work(&place).lines().len(), 3);
    let records = run(&["tail", &place.stream, "--json"]).succeeded();
    let first: serde_json::Value = serde_json::from_str(records.lines()[0]).unwrap();
    let number = first["sequence_number"].as_str().unwrap();
    let set = ["checkpoint", "set", &place.stream, number, "--app", "print", "--reason", "a test"];
    let json = run(&[&set[..], &["--shard", "0", "--json"]].concat()).succeeded().json();
    assert_eq!(json["lag_records"], 2);
    assert_eq!(work(&place).lines(), ["2", "3"]);
    assert_eq!(run(&set).code, Some(2), "a number is of one shard");
    let typo = [&set[..3], &["last", "--app", "print", "--shard", "0", "--reason", "x"]].concat();
    assert_eq!(run(&typo).code, Some(2));
}

#[test]
fn a_reset_has_everything_processed_again_or_one_shard() {
    let place = place();
    let reset = ["checkpoint", "reset", &place.stream, "--app", "print", "--reason", "a test"];
    let shown = run(&reset).succeeded();
    assert!(shown.lines().iter().all(|line| line.contains("TRIM_HORIZON")), "{shown:?}");
    assert_eq!(work(&place).lines().len(), 3);
    let by_shard = ["0", "1"].map(|shard| {
        run(&[&reset[..], &["--shard", shard, "--json"]].concat()).succeeded();
        work(&place).lines().len()
    });
    assert_eq!(by_shard.iter().sum::<usize>(), 3);
    run(&[&reset[..2], &[&place.stream, "--app", "typo", "--reason", "x"]].concat())
        .failed(1, &["no application typo"]);
}
