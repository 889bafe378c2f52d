//! The command line as its users meet it: arguments, pipes, signals, exit codes.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a finding")]

mod bench;
mod checkpoint;
mod dead_letters;
mod errors;
mod files;
mod harness;
mod json;
mod lag;
mod overview;
mod put;
mod queue;
mod readme;
mod reshard;
mod retention;
mod shape;
mod tail;
mod top;
mod verify;
mod work;
mod work_policies;
