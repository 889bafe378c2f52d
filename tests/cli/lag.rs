//! How far applications are behind, shard by shard.

use std::io::{BufRead, BufReader};

use crate::harness::{Place, millstream, run, start, text};

#[test]
fn each_shard_of_each_application_has_a_bar_and_what_is_behind() {
    let place = Place::with_shards(2);
    let none = run(&["lag", &place.stream]).succeeded();
    assert!(none.text().contains("no application has been at work here"));
    place.put(text(100)).succeeded();
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    place.put(text(100)).succeeded();
    run(&["work", &place.stream, "--app", "audit", "--until-idle"]).succeeded();
    let lag = run(&["lag", &place.stream]).succeeded();
    let lines = lag.lines();
    assert!(lines[0].ends_with("100 records behind"), "{lines:?}");
    assert_eq!(lines[2], "audit: 0 records behind");
    assert!(lines[3].starts_with("shardId-000000000000 [####################] --"), "{lines:?}");
    assert_eq!(lines[5], "load: 100 records behind");
    assert!(lines[6].contains("#.") && lines[7].contains("#."), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
    assert!(!lag.text().contains('\x1b'));
}

#[test]
fn the_lag_of_one_application_is_told_as_json() {
    let place = Place::with_shards(1);
    place.put("a 1\na 2\n").succeeded();
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    place.put("a 3\n").succeeded();
    let json = run(&["lag", &place.stream, "--app", "load", "--json"]).succeeded().json();
    assert_eq!(json["app"], "load");
    assert_eq!((&json["records"], &json["lag_records"]), (&3.into(), &1.into()));
    assert_eq!((&json["is_owned"], &json["is_ended"]), (&false.into(), &false.into()));
    run(&["lag", &place.stream, "--app", "typo"]).failed(1, &["no application typo"]);
}

#[test]
fn a_watch_tells_what_others_process_look_by_look() {
    let place = Place::with_shards(1);
    place.put("a 1\n").succeeded();
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    let args = ["lag", &place.stream, "--watch", "--interval", "10ms", "--json"];
    let mut watch = start(&mut millstream(&args));
    let mut looks = BufReader::new(watch.stdout.take().unwrap())
        .lines()
        .map(|look| serde_json::from_str::<serde_json::Value>(&look.unwrap()).unwrap());
    let first = looks.next().unwrap();
    assert_eq!((&first["lag_records"], &first["records_per_s"]), (&0.into(), &().into()));
    place.put("a 2\n").succeeded();
    assert!(looks.by_ref().any(|look| look["lag_records"] == 1));
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    assert!(looks.by_ref().any(|look| look["lag_records"] == 0));
    drop(looks);
    // Nobody reads its looks any more.
    assert_eq!(watch.wait().unwrap().code(), Some(141));
}

#[test]
fn a_watch_ends_after_as_many_looks_as_are_wanted() {
    let place = Place::with_shards(1);
    place.put("a 1\n").succeeded();
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    let watch = ["lag", &place.stream, "--watch", "-n", "3", "--interval", "10ms"];
    let looks = run(&[&watch[..], &["--json"]].concat()).succeeded();
    assert_eq!(looks.lines().len(), 3);
    let plain = run(&watch).succeeded();
    assert_eq!(plain.text().matches("PROCESSED").count(), 3);
}
