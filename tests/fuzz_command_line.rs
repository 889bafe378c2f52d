//! The corpus of what is typed, replayed.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a finding")]

mod command_line_input;

use std::path::Path;

#[test]
fn nothing_that_is_typed_is_too_much() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/command_line");
    let mut inputs = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        command_line_input::read(&std::fs::read(entry.unwrap().path()).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0);
}
