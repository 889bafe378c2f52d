//! What is typed: where to start reading, and lines.
#![no_main]

#[path = "../../tests/command_line_input/mod.rs"]
mod command_line_input;

libfuzzer_sys::fuzz_target!(|input: &[u8]| command_line_input::read(input));
