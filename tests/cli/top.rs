//! Looks at streams and their applications, and the small verbs that help at hand.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use crate::harness::{Place, millstream, run, run_with, start, text};

#[test]
fn a_look_tells_streams_and_how_far_their_applications_are() {
    let place = Place::with_shards(2);
    place.put(text(1000)).succeeded();
    run(&["work", &place.stream, "--app", "load", "--until-idle"]).succeeded();
    place.put(text(10)).succeeded();
    let look = run(&["top", place.root().to_str().unwrap(), "--interval", "10ms"]).succeeded();
    let lines = look.lines();
    assert!(lines[2].starts_with("stream ") && lines[2].contains("2/2"), "{lines:?}");
    assert!(lines[2].contains("1,010"), "{lines:?}");
    assert!(lines[3].starts_with("  load ") && lines[3].contains("0 pools"), "{lines:?}");
    assert!(lines[3].contains("behind 10, "), "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{lines:?}");
}

#[test]
fn rates_are_those_of_a_writer_that_is_at_work() {
    let place = Place::with_shards(1);
    let mut put = start(&mut millstream(&["put", &place.stream, "-K ", "--acks"]));
    let mut stdin = put.stdin.take().unwrap();
    let mut acks = BufReader::new(put.stdout.take().unwrap()).lines();
    let mut put_one = || {
        stdin.write_all(b"k line\n").unwrap();
        acks.next().unwrap().unwrap();
    };
    put_one();
    let args = ["top", &place.stream, "--json", "-n", "1000", "--interval", "10ms"];
    let mut top = start(&mut millstream(&args));
    let looks = BufReader::new(top.stdout.take().unwrap()).lines();
    for look in looks {
        let look: serde_json::Value = serde_json::from_str(&look.unwrap()).unwrap();
        let stream = &look["streams"][0];
        assert_eq!(stream["path"], place.stream);
        if stream["records_per_s"].as_f64().unwrap() > 0.0 {
            break;
        }
        put_one();
    }
    // Nobody reads its looks any more.
    assert_eq!(top.wait().unwrap().code(), Some(141));
    drop(stdin);
    assert!(put.wait().unwrap().success());
}

#[test]
fn what_cannot_be_watched_is_said_and_what_can_is_shown_beside_it() {
    let place = Place::with_shards(1);
    run(&["top", &format!("{}/nowhere", place.stream)]).failed(1, &["nowhere"]);
    let broken = place.path("broken");
    run(&["create", broken.to_str().unwrap()]).succeeded();
    fs::write(broken.join("MANIFEST"), "rags").unwrap();
    let root = place.root().to_str().unwrap();
    let json = run(&["top", root, "--interval", "10ms", "--json"]).succeeded().json();
    assert!(json["streams"][0]["error"].as_str().unwrap().contains("MANIFEST"), "{json}");
    assert_eq!(json["streams"][1]["shards"], 1);
}

#[test]
fn the_cheat_sheet_has_eleven_commands_that_are_understood() {
    let cards = run(&["cheat", "--json"]).succeeded().json();
    let cards = cards["commands"].as_array().unwrap();
    assert_eq!(cards.len(), 11);
    for card in cards {
        let command = card["command"].as_str().unwrap();
        let verb = command.split(' ').nth(1).unwrap();
        run(&[verb, "--help"]).succeeded();
        assert!(command.len() < 100, "{command}");
    }
    // Those that only need a stream are run as they stand.
    let place = Place::without_stream();
    let shell = |command: &str| {
        let bin = env!("CARGO_BIN_EXE_millstream");
        let command = command.replace("millstream", bin).replace("./load", "'cat > /dev/null'");
        let command = command.replace(" -f ", " ")
            + if command.contains("--exec") { " --until-idle" } else { "" };
        let shell = std::process::Command::new("sh")
            .args(["-c", &command])
            .current_dir(place.root())
            .output();
        assert!(shell.as_ref().unwrap().status.success(), "{command}: {shell:?}");
    };
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("lines.txt"), text(20)).unwrap();
    cards.iter().for_each(|card| shell(card["command"].as_str().unwrap()));
}

#[test]
fn completions_and_pages_are_there_for_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).succeeded();
        assert!(script.text().contains("dead-letters"), "{shell}");
    }
    assert_eq!(run(&["completions", "abacus"]).code, Some(2));
    assert!(run(&["man"]).succeeded().text().contains(".TH millstream 1"));
    let place = Place::without_stream();
    let pages = place.path("man");
    run(&["man", "--dir", pages.to_str().unwrap()]).succeeded();
    assert!(pages.join("millstream-dead-letters.1").is_file());
}

#[test]
fn nothing_is_coloured_that_no_terminal_reads() {
    let place = Place::without_stream();
    let ran = run_with(&["info", &place.stream], "");
    assert!(!ran.stderr.contains('\x1b'), "{ran:?}");
    assert!(!run(&["cheat"]).text().contains('\x1b'));
    assert!(!run(&["--help"]).text().contains('\x1b'));
}
