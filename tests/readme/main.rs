//! The programs of the README, run one after the other as a reader would.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a finding")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the programs print")]

use std::env;

use millstream::{Application, DeadLetters, ShardFilter, Stream};

mod first_program {
    include!("first_program.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

mod dead_letters {
    include!("dead_letters.rs");

    pub(super) fn run() {
        main().unwrap();
    }
}

const PROGRAMS: [&str; 2] = [include_str!("first_program.rs"), include_str!("dead_letters.rs")];

#[test]
fn the_programs_of_the_readme_are_those_that_are_run() {
    let blocks = include_str!("../../README.md").split("```rust,no_run\n").skip(1);
    let programs: Vec<_> = blocks.map(|block| block.split("```").next().unwrap()).collect();
    assert_eq!(programs, PROGRAMS);
}

/// The only test here that runs something: the directory belongs to the process.
#[test]
fn the_programs_of_the_readme_do_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    env::set_current_dir(dir.path()).unwrap();
    for runs in 1..=2 {
        first_program::run();
        let stream = Stream::open_read_only("data/clicks").unwrap();
        assert_eq!(stream.describe().unwrap().records, runs * 1000);
        let shards = Application::of("billing", &stream).unwrap().shards().unwrap();
        assert_eq!(shards.len(), 4);
        assert!(shards.iter().all(|shard| shard.lag.records == 0), "the rest would come again");
    }
    dead_letters::run();
    let stream = Stream::open_read_only("data/clicks").unwrap();
    let open = stream.shards_with(ShardFilter::AtLatest).len();
    assert_eq!(open, 5, "one of four was split");
    let letters = DeadLetters::of("billing", &stream).unwrap().list().unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].attempts, letters[0].data()), (3, &b"\xff is not UTF-8"[..]));
    env::set_current_dir("/").unwrap();
}
