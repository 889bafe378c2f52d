//! What a command fails for is put aside, listed, put again, dropped.

use crate::harness::{Place, Ran, run, start};

const LINES: usize = 60;

fn place() -> Place {
    let place = Place::with_shards(2);
    let lines: Vec<_> = (0..LINES).map(|n| format!("key-{} {n}\n", n % 7)).collect();
    place.put(lines.concat()).succeeded();
    place
}

/// The command takes no batch with a line that ends in 13 or 44.
fn work(place: &Place) -> Ran {
    let seen = place.path("seen");
    let exec = format!(
        "cat > $$; if grep -qE '(13|44)$' $$; then rm $$; exit 9; fi; cat $$ >> {}; rm $$",
        seen.display()
    );
    let args = ["work", &place.stream, "--app", "load", "-K ", "--until-idle", "--batch", "16"];
    let more = ["--exec", &exec, "--each-batch", "--on-poison", "dead-letter", "--attempts", "1"];
    let mut command = crate::harness::millstream(&[&args[..], &more].concat());
    command.current_dir(place.root()).output().unwrap().into()
}

fn list(place: &Place) -> Ran {
    run(&["dead-letters", "list", &place.stream, "--app", "load"]).succeeded()
}

#[test]
fn what_a_command_fails_for_is_put_aside_and_the_rest_is_processed() {
    let place = place();
    let ran = work(&place).succeeded();
    assert!(ran.stderr.contains("2 records put aside"), "{}", ran.stderr);
    let seen = std::fs::read_to_string(place.path("seen")).unwrap();
    assert_eq!(seen.lines().count(), LINES - 2);
    let listed = list(&place);
    assert_eq!(listed.lines().len(), 2);
    assert!(listed.lines().iter().all(|line| line.ends_with("the command failed (exit status 9)")));
    let json = run(&["dead-letters", "list", &place.stream, "--app", "load", "--json"]);
    let mut data: Vec<_> = json
        .succeeded()
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"].clone())
        .collect();
    data.sort_by_key(ToString::to_string);
    assert_eq!(data, ["13", "44"]);
    let ran = work(&place).succeeded();
    assert!(ran.stderr.ends_with("nothing new\n"), "{}", ran.stderr);
}

#[test]
fn redriven_records_are_in_the_stream_again_and_no_letters_any_more() {
    let place = place();
    work(&place).succeeded();
    let redrive = ["dead-letters", "redrive", &place.stream, "--app", "load", "--all"];
    let mut writer = start(&mut crate::harness::millstream(&["put", &place.stream]));
    crate::harness::eventually("a writer", || place.path("stream/OWNER").try_exists().unwrap());
    run(&redrive).failed(3, &["is in use by"]);
    assert_eq!(list(&place).lines().len(), 2);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    assert_eq!(run(&redrive).succeeded().lines().len(), 2);
    assert_eq!(list(&place).lines().len(), 0);
    assert_eq!(place.records(), LINES as u64 + 2);
}

#[test]
fn dropped_letters_are_gone_and_unknown_ones_are_an_error() {
    let place = place();
    work(&place).succeeded();
    let id = list(&place).lines()[0].split(' ').next().unwrap().to_owned();
    let drop = |ids: &[&str]| {
        run(&[&["dead-letters", "drop", &place.stream, "--app", "load"], ids].concat())
    };
    drop(&[&id, "7"]).failed(1, &["has no dead letter 7", "nothing was changed"]);
    assert_eq!(list(&place).lines().len(), 2);
    drop(&[&id]).succeeded();
    assert_eq!(list(&place).lines().len(), 1);
    assert_eq!(drop(&[]).code, Some(2), "which ones has to be said");
}
