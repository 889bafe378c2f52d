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

/// A time, given in milliseconds since 1970, as `2025-01-01 12:00` in UTC.
pub(crate) fn time(ms: u64) -> String {
    let minutes = ms / 60_000;
    // Days since 1 March of the year 0, so that a leap day is the last day of its year; 146,097
    // make 400 years.
    let days = minutes / 1440 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60 % 24, minutes % 60)
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

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_written_as_people_write_them() {
        let cases = [
            (0, "1970-01-01 00:00"),
            (951_868_799_999, "2000-02-29 23:59"),
            (951_868_800_000, "2000-03-01 00:00"),
            (1_709_208_000_000, "2024-02-29 12:00"),
            (1_735_689_599_999, "2024-12-31 23:59"),
            (1_735_689_600_000, "2025-01-01 00:00"),
            (4_107_542_400_000, "2100-03-01 00:00"),
        ];
        for (ms, text) in cases {
            assert_eq!(super::time(ms), text);
        }
        // As long as records can tell it.
        assert_eq!(super::time((1 << 48) - 1), "10889-08-02 05:31");
    }
}
