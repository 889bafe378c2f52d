//! Standard output without a buffer of its own, and what else is written in more than one verb.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use indicatif::HumanCount;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::Value;

use crate::failure::{Failure, Result};

/// Standard output as a plain file: every write is one write, and nothing is kept back.
pub(crate) fn stdout() -> Result<File> {
    let fd = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::stdout(&e))?;
    Ok(File::from(fd))
}

/// Writes a text to standard output.
pub(crate) fn print(text: &str) -> Result<()> {
    stdout()?.write_all(text.as_bytes()).map_err(|e| Failure::stdout(&e))
}

/// Writes one JSON object to standard output, in a line of its own.
pub(crate) fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// Writes a text to standard error. That nobody reads it is no reason to fail.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// So many of these things, the number as people write it.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", HumanCount(number))
}

/// Whether the reader of a pipe is gone, as seen from the end that writes.
pub(crate) fn is_pipe_closed(pipe: impl AsFd) -> bool {
    wait_for_closed_pipe(pipe, Duration::ZERO)
}

/// Waits until the reader of a pipe is gone: true; or for that long: false.
pub(crate) fn wait_for_closed_pipe(pipe: impl AsFd, timeout: Duration) -> bool {
    wait_for(pipe, PollFlags::empty(), timeout).intersects(PollFlags::ERR)
}

/// Waits until a read would not wait: true; or for that long: false.
pub(crate) fn wait_for_input(input: impl AsFd, timeout: Duration) -> bool {
    !wait_for(input, PollFlags::IN, timeout).is_empty()
}

fn wait_for(file: impl AsFd, flags: PollFlags, timeout: Duration) -> PollFlags {
    let mut fds = [PollFd::new(&file, flags)];
    let Ok(timeout) = Timespec::try_from(timeout) else { return PollFlags::empty() };
    match poll(&mut fds, Some(&timeout)) {
        Ok(1..) => fds[0].revents(),
        _ => PollFlags::empty(),
    }
}
