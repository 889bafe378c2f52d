//! Workers: everything is processed, nothing is skipped, whoever dies.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use crate::harness::{Place, Ran, by_key, eventually, millstream, run, signal, start, text};

/// The lines of all files in the place whose name begins with `out.`.
fn outputs(place: &Place) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(place.root()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap().starts_with("out.") {
            all += &fs::read_to_string(path).unwrap();
        }
    }
    all
}

/// Arguments for a worker that feeds `exec`, which runs in the place.
fn args<'a>(place: &'a Place, exec: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["work", &place.stream, "--app", "audit", "-K ", "--exec", exec], more].concat()
}

fn work(place: &Place, exec: &str, more: &[&str]) -> Ran {
    millstream(&args(place, exec, more)).current_dir(place.root()).output().unwrap().into()
}

fn start_work(place: &Place, exec: &str, more: &[&str]) -> Child {
    start(millstream(&args(place, exec, more)).current_dir(place.root()))
}

const APPEND: &str = "cat >> out.$MILLSTREAM_SHARD";

#[test]
fn commands_get_every_record_in_the_order_of_its_key() {
    let place = Place::with_shards(4);
    let text = text(50_000);
    place.put(&text).succeeded();
    work(&place, APPEND, &["--until-idle"]).succeeded();
    let out = outputs(&place);
    assert_eq!(out.lines().count(), 50_000);
    assert_eq!(by_key(out.lines()), by_key(text.lines()));
}

#[test]
fn the_next_run_goes_on_behind_the_last_one() {
    let place = Place::with_shards(2);
    place.put("a 1\nb 2\n").succeeded();
    work(&place, APPEND, &["--until-idle"]).succeeded();
    place.put("a 3\n").succeeded();
    work(&place, APPEND, &["--until-idle"]).succeeded();
    work(&place, APPEND, &["--until-idle"]).succeeded();
    let out = outputs(&place);
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a 1", "a 3", "b 2"]);
}

#[test]
fn records_are_printed_without_a_command() {
    let place = Place::with_shards(2);
    let text = text(5000);
    place.put(&text).succeeded();
    let print = ["work", &place.stream, "--app", "print", "-K ", "--until-idle"];
    let printed = run(&print).succeeded();
    assert_eq!(by_key(printed.lines()), by_key(text.lines()));
    assert!(run(&print).succeeded().stdout.is_empty());
}

#[test]
fn commands_know_where_they_are() {
    let place = Place::with_shards(1);
    place.put("k v\n").succeeded();
    let exec = "cat > /dev/null; echo $MILLSTREAM_APP $MILLSTREAM_SHARD $MILLSTREAM_STREAM";
    let ran = work(&place, exec, &["--until-idle"]).succeeded();
    let stream = fs::canonicalize(&place.stream).unwrap();
    let expected = format!("audit shardId-000000000000 {}\n", stream.display());
    assert_eq!(ran.text(), expected);
}

#[test]
fn a_command_that_dies_gets_its_batch_again() {
    let place = Place::with_shards(2);
    let text = text(20_000);
    place.put(&text).succeeded();
    // Each shard's first command takes some lines and dies; the next ones take all they get.
    let exec = "if mkdir died.$MILLSTREAM_SHARD 2>/dev/null; then head -n 300 > /dev/null; exit 3;
        else exec cat >> out.$MILLSTREAM_SHARD; fi";
    let ran = work(&place, exec, &["--until-idle"]).succeeded();
    assert!(ran.stderr.contains("is tried again"), "{}", ran.stderr);
    assert_eq!(by_key(outputs(&place).lines()), by_key(text.lines()));
}

#[test]
fn a_command_that_never_reads_is_given_up_and_nothing_is_checkpointed() {
    let place = Place::with_shards(1);
    place.put(text(10)).succeeded();
    let ran = work(&place, "exit 7", &["--until-idle", "--max-attempts", "2"]);
    ran.failed(5, &["shardId-000000000000", "(exit status 7)", "after 2 attempts"]);
    work(&place, APPEND, &["--until-idle"]).succeeded();
    assert_eq!(outputs(&place).lines().count(), 10);
}

#[test]
fn a_command_that_fails_at_the_end_of_its_input_is_reported() {
    let place = Place::with_shards(1);
    place.put("k v\n").succeeded();
    let ran = work(&place, "cat > /dev/null; exit 9", &["--until-idle"]);
    ran.failed(5, &["at the end of its input", "(exit status 9)"]);
}

#[test]
fn a_command_that_ends_before_its_input_has_failed_and_nothing_is_checkpointed() {
    let place = Place::with_shards(1);
    place.put(text(10)).succeeded();
    // It reads everything at once, uses one line, and succeeds.
    let ran = work(&place, "head -n 1", &["--until-idle", "--max-attempts", "2"]);
    ran.failed(5, &["the command ended (exit status 0) before it had read its input"]);
    work(&place, APPEND, &["--until-idle"]).succeeded();
    assert_eq!(outputs(&place).lines().count(), 10);
}

#[test]
fn a_command_is_run_as_often_as_there_are_attempts() {
    for attempts in ["1", "3"] {
        let place = Place::with_shards(1);
        place.put(text(10)).succeeded();
        let exec = "echo run >> out.runs; exit 7";
        let ran = work(&place, exec, &["--max-attempts", attempts]).failed(5, &["given up"]);
        let attempts: usize = attempts.parse().unwrap();
        assert_eq!(outputs(&place).lines().count(), attempts);
        assert_eq!(ran.stderr.matches("is tried again").count(), attempts - 1, "{}", ran.stderr);
        let ending = if attempts == 1 { "" } else { "s" };
        let summary = format!("processed nothing; {attempts} attempt{ending} failed\n");
        assert!(ran.stderr.contains(&summary), "{}", ran.stderr);
    }
}

/// Puts records, and damages the one behind the first 2500.
fn damage(place: &Place) {
    place.put("k before\n".repeat(2500)).succeeded();
    place.put("k after\n".repeat(2500)).succeeded();
    let shard = fs::read_dir(format!("{}/shards", place.stream)).unwrap().next().unwrap().unwrap();
    let segments = fs::read_dir(shard.path()).unwrap().map(|entry| entry.unwrap().path());
    for path in segments {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(5).position(|window| window == b"after") {
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
}

#[test]
fn damage_is_told_as_it_is_met_and_what_is_before_it_comes_once() {
    for exec in [None, Some(APPEND)] {
        let place = Place::with_shards(1);
        damage(&place);
        let exec = exec.map_or(vec![], |exec| vec!["--exec", exec]);
        let args = [&["work", &place.stream, "--app", "audit", "--until-idle"], &exec[..]].concat();
        let ran: Ran = millstream(&args).current_dir(place.root()).output().unwrap().into();
        let ran = ran.failed(4, &["is damaged", "nothing behind it"]);
        assert!(ran.stderr.matches("is damaged").count() > 1, "{}", ran.stderr);
        assert_eq!(ran.lines().len() + outputs(&place).lines().count(), 2500);
    }
}

#[test]
fn damage_is_the_exit_code_of_work_that_was_interrupted_too() {
    let place = Place::with_shards(1);
    damage(&place);
    let mut worker = start_work(&place, APPEND, &[]);
    let mut stderr = BufReader::new(worker.stderr.take().unwrap()).lines();
    assert!(stderr.next().unwrap().unwrap().contains("is damaged"));
    signal(&worker, "-TERM");
    assert_eq!(worker.wait().unwrap().code(), Some(4));
}

#[test]
fn an_offset_is_for_an_application_without_checkpoints() {
    let place = Place::with_shards(1);
    place.put("k 1\n").succeeded();
    let warned = |ran: &Ran| ran.stderr.contains("audit goes on at its checkpoints");
    assert!(!warned(&work(&place, APPEND, &["--until-idle", "-o", "latest"]).succeeded()));
    assert!(!warned(&work(&place, APPEND, &["--until-idle"]).succeeded()));
    let ran = work(&place, APPEND, &["--until-idle", "-o", "horizon"]).succeeded();
    assert!(warned(&ran) && ran.stderr.ends_with("nothing new\n"), "{}", ran.stderr);
    assert!(outputs(&place).is_empty());
}

#[test]
fn an_impossible_name_of_an_application_is_wrong_usage() {
    let place = Place::with_shards(1);
    for app in ["", ".hidden", "a/b", "\u{e4}"] {
        let ran = run(&["work", &place.stream, "--until-idle", &format!("--app={app}")]);
        assert_eq!(ran.code, Some(2), "{app}: {}", ran.stderr);
    }
}

#[test]
fn the_summary_of_one_record_says_one() {
    let place = Place::with_shards(1);
    place.put("k 1\n").succeeded();
    let ran = work(&place, APPEND, &["--until-idle"]).succeeded();
    assert!(ran.stderr.starts_with("processed 1 record of 1 shard in "), "{}", ran.stderr);
}

#[test]
fn a_killed_run_skips_nothing() {
    let place = Place::with_shards(4);
    let text = text(200_000);
    place.put(&text).succeeded();
    for _ in 0..3 {
        let before = outputs(&place).len();
        let mut killed = start_work(&place, APPEND, &["--batch", "100"]);
        eventually("some output", || outputs(&place).len() > before + 100_000);
        killed.kill().unwrap();
        killed.wait().unwrap();
    }
    work(&place, APPEND, &["--until-idle"]).succeeded();
    let out = outputs(&place);
    let there: HashSet<&str> = out.lines().collect();
    assert!(text.lines().all(|line| there.contains(line)), "no record is missing");
    // A batch in hand, and what was in the pipe, for each shard and kill.
    let repeated = out.lines().count() - there.len();
    assert!(repeated <= 3 * 4 * 2 * 100, "{repeated} came again");
}

#[test]
fn a_signal_ends_the_work_gracefully() {
    for name in ["-INT", "-TERM"] {
        let place = Place::with_shards(2);
        place.put(text(1000)).succeeded();
        let exec = "cat >> out.$MILLSTREAM_SHARD; echo end >> ends";
        let mut worker = start_work(&place, exec, &[]);
        eventually("all output", || outputs(&place).lines().count() == 1000);
        signal(&worker, name);
        assert!(worker.wait().unwrap().success());
        let ends = fs::read_to_string(place.path("ends")).unwrap();
        assert_eq!(ends, "end\nend\n", "the commands saw the end of their input");
        work(&place, APPEND, &["--until-idle"]).succeeded();
        assert_eq!(outputs(&place).lines().count(), 1000, "nothing came again");
    }
}

#[test]
fn a_command_that_does_not_end_is_killed_after_the_grace() {
    let place = Place::with_shards(1);
    place.put("k v\n").succeeded();
    let exec = "cat > /dev/null; echo $$ > out.pid; sleep 1000";
    let ran = work(&place, exec, &["--until-idle", "--grace", "1"]);
    ran.failed(1, &["did not finish within 1 s"]);
    let pid = outputs(&place);
    eventually("the command is gone", || !fs::exists(format!("/proc/{}", pid.trim())).unwrap());
}

#[test]
fn two_processes_of_one_application_share_the_shards_and_a_killed_one_is_replaced() {
    let place = Place::with_shards(4);
    let exec = "echo $PPID >> pids.$MILLSTREAM_SHARD; cat >> out.$MILLSTREAM_SHARD";
    let mut first = start_work(&place, exec, &[]);
    let mut second = start_work(&place, exec, &[]);
    // How many shards have been worked on by the process.
    let shards_of = |worker: &Child| {
        let pid = worker.id().to_string();
        let names = fs::read_dir(place.root()).unwrap().map(|entry| entry.unwrap().path());
        let is_of = |text: String| text.lines().any(|line| line == pid);
        let pids =
            names.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pids"));
        pids.filter(|path| is_of(fs::read_to_string(path).unwrap())).count()
    };
    let mut put = 0;
    let mut put_to_all = || {
        let lines: String = (0..40).map(|n| format!("key-{n} {}\n", put + n)).collect();
        put += 40;
        place.put(&lines).succeeded();
        put
    };
    put_to_all();
    eventually("both work", || {
        put_to_all();
        shards_of(&first) >= 2 && shards_of(&second) >= 2
    });
    first.kill().unwrap();
    first.wait().unwrap();
    let all = put_to_all();
    eventually("the other one has all", || shards_of(&second) == 4);
    eventually("all output", || {
        let out = outputs(&place);
        out.lines().collect::<HashSet<_>>().len() == all
    });
    signal(&second, "-TERM");
    assert!(second.wait().unwrap().success());
}

#[test]
fn workers_write_only_where_their_application_is() {
    let place = Place::with_shards(1);
    place.put("k v\n").succeeded();
    let names = || {
        let entries = fs::read_dir(&place.stream).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<HashSet<_>>()
    };
    let mut expected = names();
    work(&place, APPEND, &["--until-idle"]).succeeded();
    expected.insert("applications".into());
    assert_eq!(names(), expected);
}
