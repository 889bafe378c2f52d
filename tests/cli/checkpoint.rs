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
