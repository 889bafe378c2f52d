//! Workers of several streams, and of records that a command fails for.

use std::fs;
use std::process::Child;

use crate::harness::{Place, Ran, eventually, millstream, run, run_with, signal, start};

/// The command fails for a batch with `bad` in it, unless there is a file `mended`; what it takes
/// goes into a file for each stream.
const EXEC: &str = "f=$(mktemp); cat > $f; \
    if grep -q bad $f && ! test -e mended; then rm $f; exit 9; fi; \
    cat $f >> out.$(basename $MILLSTREAM_STREAM); rm $f";

/// Puts to a stream beside that of the place, which is made if there is none.
fn put_beside(place: &Place, name: &str, text: &str) -> String {
    let dir = place.path(name).to_str().unwrap().to_owned();
    if !place.path(name).try_exists().unwrap() {
        run(&["create", &dir, "--shards", "2"]).succeeded();
    }
    run_with(&["put", &dir, "-K "], text).succeeded();
    dir
}

fn args<'a>(dirs: &[&'a str], policy: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let options = ["--app", "load", "-K ", "--exec", EXEC, "--each-batch", "--attempts", "1"];
    [&["work"], dirs, &options, &["--on-poison", policy], more].concat()
}

fn work(place: &Place, dirs: &[&str], policy: &str, more: &[&str]) -> Ran {
    let args = args(dirs, policy, more);
    millstream(&args).current_dir(place.root()).output().unwrap().into()
}

fn start_work(place: &Place, dirs: &[&str], policy: &str) -> Child {
    start(millstream(&args(dirs, policy, &[])).current_dir(place.root()))
}

/// The lines of a stream that the command has taken, sorted, each once.
fn taken(place: &Place, stream: &str) -> Vec<String> {
    let text = fs::read_to_string(place.path(&format!("out.{stream}"))).unwrap_or_default();
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines.dedup();
    lines
}

fn lag(dir: &str, shard: &str) -> u64 {
    let ran = run(&["lag", dir, "--app", "load", "--json"]).succeeded();
    let lines = ran.lines().into_iter().map(|line| serde_json::from_str(line).unwrap());
    let of: Vec<serde_json::Value> =
        lines.filter(|it: &serde_json::Value| it["shard"] == shard).collect();
    of[0]["lag_records"].as_u64().unwrap()
}

#[test]
fn one_command_works_on_several_streams() {
    let place = Place::with_shards(2);
    place.put("a 1\nb 2\n").succeeded();
    let other = put_beside(&place, "other", "c 3\nd 4\ne 5\n");
    let dirs = [place.stream.as_str(), &other];
    work(&place, &dirs, "stop", &["--until-idle"]).succeeded();
    assert_eq!(taken(&place, "stream"), ["a 1", "b 2"]);
    assert_eq!(taken(&place, "other"), ["c 3", "d 4", "e 5"]);
    // Each keeps its own checkpoints.
    put_beside(&place, "other", "f 6\n");
    work(&place, &[&other], "stop", &["--until-idle"]).succeeded();
    assert_eq!(taken(&place, "other").len(), 4);
    work(&place, &dirs, "stop", &["--until-idle"]).succeeded();
    assert_eq!((taken(&place, "stream").len(), taken(&place, "other").len()), (2, 4));
    let twice = [place.stream.as_str(), &place.stream];
    work(&place, &twice, "stop", &["--until-idle"]).failed(1, &["is there twice"]);
}

#[test]
fn the_summary_of_several_streams_tells_them_apart() {
    let place = Place::with_shards(2);
    place.put("a 1\nb 2\n").succeeded();
    let other = put_beside(&place, "other", "c 3\nd 4\ne 5\n");
    let args = ["work", &place.stream, &other, "--app", "load", "--until-idle", "--json"];
    let ran = run(&args).succeeded();
    assert_eq!(ran.lines().len(), 5);
    let summary: serde_json::Value = serde_json::from_str(ran.stderr.trim()).unwrap();
    assert_eq!(summary["records"], 5);
    let shards = summary["shards"].as_array().unwrap();
    let records = |dir| -> u64 {
        let is_of = |it: &&serde_json::Value| it["stream"].as_str().unwrap().ends_with(dir);
        shards.iter().filter(is_of).map(|it| it["records"].as_u64().unwrap()).sum()
    };
    assert_eq!((records("/stream"), records("/other")), (2, 3));
}

#[test]
fn a_record_that_a_command_fails_for_stops_the_work_if_that_is_the_policy() {
    let place = Place::with_shards(1);
    place.put("a 1\na bad\na 3\n").succeeded();
    let dirs = [place.stream.as_str()];
    work(&place, &dirs, "stop", &[]).failed(5, &["shardId-000000000000", "fails at record"]);
    assert_eq!(taken(&place, "stream"), ["a 1"]);
    fs::write(place.path("mended"), "").unwrap();
    work(&place, &dirs, "stop", &["--until-idle"]).succeeded();
    assert_eq!(taken(&place, "stream"), ["a 1", "a 3", "a bad"]);
}

#[test]
fn a_parked_shard_waits_while_the_others_go_on() {
    let place = Place::with_shards(1);
    place.put("a 1\na bad\na 3\n").succeeded();
    let other = put_beside(&place, "other", "b 1\nc 2\nd 3\n");
    let dirs = [place.stream.as_str(), &other];
    let ran = work(&place, &dirs, "park", &["--until-idle"]);
    ran.failed(5, &["/stream shardId-000000000000", "fails at record"]);
    assert_eq!(taken(&place, "stream"), ["a 1"]);
    assert_eq!(taken(&place, "other").len(), 3);
    assert_eq!(lag(&place.stream, "shardId-000000000000"), 2);
}

#[test]
fn a_parked_shard_is_tried_again_while_the_work_goes_on() {
    let place = Place::with_shards(1);
    place.put("a 1\na bad\na 3\n").succeeded();
    let mut worker = start_work(&place, &[&place.stream], "park");
    eventually("the record before it", || taken(&place, "stream") == ["a 1"]);
    fs::write(place.path("mended"), "").unwrap();
    let retry = ["checkpoint", "retry", &place.stream, "--app", "load", "--shard", "0", "--json"];
    // If it was not parked yet, it is once more.
    let mut looks = 0;
    eventually("the rest", || {
        if looks % 500 == 0 {
            let shown = run(&retry).succeeded();
            assert_eq!(shown.json()["shard"], "shardId-000000000000");
        }
        looks += 1;
        taken(&place, "stream") == ["a 1", "a 3", "a bad"]
    });
    signal(&worker, "-TERM");
    assert!(worker.wait().unwrap().success());
    let other = [&retry[..6], &["7"]].concat();
    run(&other).failed(1, &["shardId-000000000007"]);
}

#[test]
fn a_policy_needs_a_command_that_is_run_for_each_batch() {
    let place = Place::with_shards(1);
    let args = ["work", &place.stream, "--app", "load", "--exec", "cat", "--on-poison", "park"];
    assert_eq!(run(&args).code, Some(2));
    let policy = ["work", &place.stream, "--app", "a", "--exec", "cat", "--each-batch"];
    assert_eq!(run(&[&policy[..], &["--on-poison", "ignore"]].concat()).code, Some(2));
}
