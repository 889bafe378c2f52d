//! A stream as a queue: put with a delay, receive, acknowledge, count, purge.

use std::path::Path;

use serde_json::Value;

use crate::harness::{Place, Ran, millstream, run, run_with, start};

fn queue(place: &Place, verb: &str, more: &[&str]) -> Ran {
    run(&[&["queue", verb, &place.stream, "--app", "draw"], more].concat())
}

fn depth(place: &Place) -> [u64; 4] {
    let depth = queue(place, "depth", &["--json"]).succeeded().json();
    ["ready", "in_flight", "delayed", "dead"].map(|name| depth[name].as_u64().unwrap())
}

#[test]
fn messages_are_received_in_one_process_and_acknowledged_in_another() {
    let place = Place::with_shards(1);
    place.put("a one\nb two\nc three\n").succeeded();
    let received = queue(&place, "receive", &["--max", "2"]).succeeded();
    let fields: Vec<Vec<_>> =
        received.lines().iter().map(|line| line.split('\t').collect()).collect();
    assert_eq!((fields[0][1], fields[0][2]), ("a", "one"));
    assert_eq!((fields[1][1], fields[1][2]), ("b", "two"));
    assert_eq!(depth(&place), [1, 2, 0, 0], "what is in flight stays so");
    let next = queue(&place, "receive", &["--ack"]).succeeded();
    assert!(next.text().ends_with("\tc\tthree\n"), "{next:?}");
    let acknowledged = queue(&place, "ack", &[fields[0][0]]).succeeded();
    assert_eq!(acknowledged.text(), format!("{} is done\n", fields[0][0]));
    queue(&place, "ack", &[fields[0][0]]).failed(1, &["expired"]);
    assert_eq!(depth(&place), [0, 1, 0, 0]);
    let none = queue(&place, "receive", &[]).succeeded();
    assert_eq!(none.text(), "");
    let text = queue(&place, "depth", &[]).succeeded();
    assert_eq!(text.text(), "0 messages ready, 1 in flight, 0 delayed, 0 dead letters\n");
}

#[test]
fn messages_that_are_put_with_a_delay_are_not_received_before() {
    let place = Place::with_shards(1);
    let args = ["queue", "put", &place.stream, "--app", "draw", "-K ", "--delay", "1h"];
    let put = run_with(&args, "a later\n").succeeded();
    assert_eq!(put.stderr, "1 message put\n");
    place.put("b now\n").succeeded();
    assert_eq!(depth(&place), [1, 0, 1, 0]);
    let received = queue(&place, "receive", &["--max", "9", "--json", "--ack"]).succeeded();
    assert_eq!(received.lines().len(), 1);
    let message: Value = serde_json::from_str(received.text()).unwrap();
    assert_eq!((&message["data"], &message["receive_count"]), (&"now".into(), &1.into()));
    let purged = queue(&place, "purge", &[]).succeeded();
    assert_eq!(purged.text(), "1 message purged\n");
    assert_eq!(depth(&place), [0, 0, 0, 0]);
    run_with(&args, "nokey\n").failed(1, &["line 1", "no \" \" in it"]);
}

#[test]
fn what_is_received_too_often_is_a_dead_letter() {
    let place = Place::with_shards(1);
    place.put("a one\n").succeeded();
    let receive = ["--visibility", "0s", "--max-receives", "2", "--ordered"];
    for _ in 0..2 {
        assert_eq!(queue(&place, "receive", &receive).succeeded().lines().len(), 1);
    }
    assert!(queue(&place, "receive", &receive).succeeded().lines().is_empty());
    assert_eq!(depth(&place), [0, 0, 0, 1]);
    let letters = run(&["dead-letters", "list", &place.stream, "--app", "draw"]).succeeded();
    assert!(letters.text().contains("received 2 times and never acknowledged"), "{letters:?}");
}

#[test]
fn a_queue_waits_for_messages_and_counts_beside_who_has_it() {
    let place = Place::with_shards(1);
    queue(&place, "receive", &[]).succeeded();
    let args = ["queue", "receive", &place.stream, "--app", "draw", "--wait", "1h"];
    let mut waiting = start(&mut millstream(&args));
    let owner = Path::new(&place.stream).join("OWNER");
    crate::harness::eventually("it has the stream", || owner.try_exists().unwrap());
    run(&["put", &place.stream]).failed(3, &["in use"]);
    assert_eq!(depth(&place), [0, 0, 0, 0]);
    queue(&place, "purge", &[]).failed(3, &["in use"]);
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!(queue(&place, "ack", &["nonsense"]).code, Some(2));
    run(&["queue", "depth", &place.stream, "--app", "other"]).failed(1, &["no queue \"other\""]);
}
