//! What `top` shows: streams, and below each its applications.

use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::look::{AppLook, StreamLook, now_ms};
use crate::failure::Result;
use crate::output;
use crate::quantity;
use crate::screen::{Screen, age, cut, rate, short};
use crate::style::{BOLD, DIM, RED};

const HEAD: &str = "STREAM                SHARDS     RECORDS       BYTES      RATE       BYTES/S";

impl Screen {
    /// Shows a look, cut to what the screen has room for.
    pub(super) fn show(&self, dir: &Path, interval: Duration, looks: &[StreamLook]) -> Result<()> {
        let title = format!(
            "{} - {} UTC, every {}",
            dir.display(),
            output::time(now_ms()),
            quantity::as_duration(interval)
        );
        let head = vec![self.style.paint(BOLD, &title), self.style.paint(DIM, HEAD)];
        self.draw(head, self.lines(looks))
    }

    fn lines(&self, looks: &[StreamLook]) -> Vec<String> {
        if looks.is_empty() {
            return vec!["no streams here; make one with `millstream create`".to_owned()];
        }
        let mut lines = Vec::new();
        for look in looks {
            let name = look.path.file_name().unwrap_or(look.path.as_os_str()).to_string_lossy();
            let name = cut(&name, 20);
            match &look.error {
                Some(error) => {
                    lines.push(format!("{name}  {}", self.style.paint(RED, &cut(error, 57))));
                }
                None => lines.push(stream_line(&name, look)),
            }
            lines.extend(look.apps.iter().map(app_line));
        }
        lines
    }
}

fn stream_line(name: &str, look: &StreamLook) -> String {
    format!(
        "{name} {:>7} {:>11} {:>11} {:>9} {:>10}/s",
        format!("{}/{}", look.open_shards, look.shards),
        HumanCount(look.records).to_string(),
        HumanBytes(look.bytes).to_string(),
        rate(look.records_per_s),
        HumanBytes(look.bytes_per_s as u64).to_string(),
    )
}

fn app_line(app: &AppLook) -> String {
    let pools = output::count(app.pools as u64, "pool");
    let behind = match app.lag.records {
        0 => "nothing behind".to_owned(),
        records => format!("behind {}, {}", short(records as f64), age(app.lag.millis)),
    };
    format!("  {} {pools:>31} {:>9} {behind:>17}", cut(&app.app, 18), rate(app.records_per_s))
}

#[cfg(test)]
mod tests {
    use millstream::Lag;

    use super::*;

    #[test]
    fn every_line_fits_a_terminal_whatever_is_in_it() {
        let lag = Lag { records: 999_999, bytes: 1 << 50, millis: 59_999 };
        let records_per_s = 99_999_999.0;
        let app = AppLook { app: "a".repeat(128), pools: 99, lag, records_per_s };
        let full = StreamLook {
            path: "x".repeat(200).into(),
            open_shards: 999,
            shards: 999,
            records: 999_999_999,
            bytes: 999 << 30,
            records_per_s,
            bytes_per_s: 1023e6,
            apps: vec![app],
            ..StreamLook::default()
        };
        let broken = StreamLook { error: Some("e".repeat(300)), ..StreamLook::default() };
        let screen = Screen::plain();
        for line in screen.lines(&[full, broken]).iter().map(String::as_str).chain([HEAD]) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }
}
