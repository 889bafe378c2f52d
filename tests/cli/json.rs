//! What `--json` writes, beside what the manual says of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use crate::harness::{Place, Ran, run, run_with};

/// The keys that the manual's tables say, by command, or by the place of an object in that of a
/// command.
fn documented() -> BTreeMap<String, BTreeSet<String>> {
    let manual = include_str!("../../src/manual/command_line.md");
    let quoted = |cell: &str| -> BTreeSet<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let rows = manual.lines().filter_map(|line| {
        let row = line.strip_prefix("| `").map(|_| line.trim_matches('|'))?;
        let (first, last) = (row.split('|').next()?, row.split('|').next_back()?);
        let names = quoted(first.split(';').next()?);
        // What follows a word is about the keys, and names none.
        let keys = quoted(last.split(';').next()?);
        Some(names.into_iter().map(move |name| (name, keys.clone())))
    });
    rows.flatten().collect()
}

/// Compares an object, and those in it, with what is documented of the object with this name; notes
/// which were there.
fn compare(
    name: &str,
    object: &Value,
    documented: &BTreeMap<String, BTreeSet<String>>,
    seen: &mut BTreeSet<String>,
) {
    let object = object.as_object().unwrap_or_else(|| panic!("{name}: {object}"));
    let keys = documented.get(name).unwrap_or_else(|| panic!("{name} is not in the manual"));
    seen.insert(name.to_owned());
    let is_there = |key: &&String| object.contains_key(*key) || *key == "data_base64";
    let missing: Vec<_> = keys.iter().filter(|key| !is_there(key)).collect();
    assert!(missing.is_empty(), "{name}: {missing:?} are not in {object:?}");
    for (key, value) in object {
        assert!(keys.contains(key), "{name}: {key} is not in the manual");
        // Its keys are those of the user.
        if key == "tags" {
            continue;
        }
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for value in values.iter().filter(|value| value.is_object()) {
            compare(&format!("{name}.{key}"), value, documented, seen);
        }
    }
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("Commands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    // What is indented further goes on about the line before.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !["", "help"].contains(name)).map(str::to_owned).collect()
}

/// Every command that has `--json`, by its words.
fn commands_with_json() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = commands(run(&["--help"]).succeeded().text());
    while let Some(command) = open.pop() {
        let words: Vec<&str> = command.split(' ').collect();
        let help = run(&[&words[..], &["--help"]].concat()).succeeded();
        let below = commands(help.text());
        if below.is_empty() && help.text().contains("--json") {
            found.insert(command);
        } else {
            open.extend(below.iter().map(|verb| format!("{command} {verb}")));
        }
    }
    assert!(found.len() > 25, "{found:?}");
    found
}

/// Flips a byte of the first record of shard 0.
fn damage(place: &Place) {
    let segment = "stream/shards/shardId-000000000000/00000000000000000000.seg";
    let file = OpenOptions::new().read(true).write(true).open(place.path(segment)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4128).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 4128).unwrap();
}

fn put(place: &Place, options: &[&str]) -> Ran {
    let args = [&["put", &place.stream, "-K ", "--json"], options].concat();
    run_with(&args, "a good\nb bad\nc bad\n").succeeded()
}

#[test]
fn json_of_every_command_has_the_keys_that_the_manual_says() {
    let documented = documented();
    let mut seen = BTreeSet::new();
    let place = Place::without_stream();
    let (stream, root) = (place.stream.as_str(), place.root().to_str().unwrap());
    let mut check = |name: &str, text: &str| {
        let last = text.lines().last().unwrap_or_else(|| panic!("{name} says nothing"));
        compare(name, &serde_json::from_str(last).unwrap(), &documented, &mut seen);
    };
    let mut check_run = |name: &str, more: &[&str]| {
        let verb: Vec<_> = name.split(' ').filter(|word| !word.starts_with("--")).collect();
        let ran = run(&[&verb[..], more, &["--json"]].concat());
        assert!([Some(0), Some(4)].contains(&ran.code), "{name}: {ran:?}");
        check(name, ran.text());
        ran
    };
    let app = ["--app", "load"];
    check_run("create", &[stream]);
    let acks = put(&place, &["--acks"]);
    check_run("ls", &[root]);
    check_run("info", &[stream]);
    check_run("tail", &[stream]);
    check_run("retention", &[stream]);
    check_run("work", &[stream, "--app", "audit", "--until-idle"]);
    // Two of three records are put aside.
    let exec = [
        "--exec",
        "! grep -q bad",
        "--each-batch",
        "--on-poison",
        "dead-letter",
        "--attempts",
        "1",
    ];
    let work = ["work", stream, "--json", "--until-idle"];
    let worked = run(&[&work, &app[..], &exec].concat()).succeeded();
    check_run("top", &[root, "-n", "1"]);
    check_run("apps", &[stream]);
    check_run("lag", &[stream]);
    let why = ["--reason", "why"];
    check_run("checkpoint show", &[&[stream], &app[..]].concat());
    check_run("checkpoint seek", &[&[stream, "horizon"], &app[..], &why].concat());
    check_run("checkpoint set", &[&[stream, "4096", "--shard", "0"], &app[..], &why].concat());
    check_run("checkpoint reset", &[&[stream], &app[..], &why].concat());
    check_run("checkpoint retry", &[&[stream, "--shard", "0"], &app[..]].concat());
    let queue = ["--app", "queue"];
    let put = ["queue", "put", stream, "--json"];
    let delayed = run_with(&[&put, &queue[..]].concat(), "late\n");
    let received = check_run("queue receive", &[&[stream], &queue[..]].concat());
    let message: Value = serde_json::from_str(received.text()).unwrap();
    let handle = message["receipt_handle"].as_str().unwrap();
    check_run("queue ack", &[&[stream, handle], &queue[..]].concat());
    check_run("queue depth", &[&[stream], &queue[..]].concat());
    check_run("queue purge", &[&[stream], &queue[..]].concat());
    check_run("dead-letters list", &[&[stream], &app[..]].concat());
    let letters = run(&[&["dead-letters", "list", stream, "--json"], &app[..]].concat());
    let letter: Value = serde_json::from_str(letters.lines()[0]).unwrap();
    let id = letter["id"].as_str().unwrap();
    check_run("dead-letters drop", &[&[stream, id], &app[..]].concat());
    check_run("dead-letters redrive", &[&[stream, "--all"], &app[..]].concat());
    check_run("split", &[stream, "0"]);
    check_run("reshard", &[stream, "4"]);
    check_run("merge", &[stream, "3", "4"]);
    check_run("export", &[stream]);
    damage(&place);
    check_run("verify", &[stream]);
    check_run("repair", &[stream, "--dry-run"]);
    check_run("dump", &[stream]);
    run(&["repair", stream]).succeeded();
    check_run("trim", &[stream, "--up-to", "4096", "--shard", "0"]);
    check_run("delete", &[stream]);
    check_run("cheat", &[]);
    check_run("demo", &["--rate", "0", "--lines", "10000"]);
    check_run("bench", &[root, "--quick", "--only", "put 64 KiB"]);
    check("queue put", delayed.text());
    check("put --acks", acks.text());
    check("put", &acks.stderr);
    check("work --exec", &worked.stderr);
    let other = Place::with_shards(1);
    let imported = run_with(&["import", &other.stream, "--json"], r#"{"data":"x"}"#);
    check("import", &imported.stderr);

    let unseen: Vec<_> = documented.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(unseen.is_empty(), "no command told {unseen:?}");
    let untold: Vec<_> = commands_with_json().into_iter().filter(|it| !seen.contains(it)).collect();
    assert!(untold.is_empty(), "what {untold:?} tell is not documented");
}
