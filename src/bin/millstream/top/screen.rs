//! A screen that is drawn over and over, or plain text where there is none.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::look::{AppLook, StreamLook, now_ms};
use crate::failure::Result;
use crate::output;
use crate::quantity;
use crate::style::{BOLD, DIM, RED, Style};

/// The other screen of the terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HEAD: &str = "STREAM                SHARDS     RECORDS       BYTES      RATE       BYTES/S";

/// Where looks are shown; what was on the terminal before is there again in the end.
pub(super) struct Screen {
    is_terminal: bool,
    style: Style,
}

/// Gives the terminal back.
pub(super) fn leave() {
    if io::stdout().is_terminal() {
        // There is nobody to tell if this cannot be written.
        let _ = io::stdout().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
    }
}

impl Screen {
    /// Takes the terminal, if there is one and it is wanted.
    pub(super) fn enter(is_wanted: bool) -> Result<Self> {
        let is_terminal = is_wanted && io::stdout().is_terminal();
        if is_terminal {
            output::print(ENTER)?;
        }
        Ok(Self { is_terminal, style: Style::of_stdout() })
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Shows a look, cut to what the screen has room for.
    pub(super) fn show(&self, dir: &Path, interval: Duration, looks: &[StreamLook]) -> Result<()> {
        let mut lines = self.lines(looks);
        let title = format!(
            "{} - {} UTC, every {}",
            dir.display(),
            output::time(now_ms()),
            quantity::as_duration(interval)
        );
        let mut head = vec![self.style.paint(BOLD, &title), self.style.paint(DIM, HEAD)];
        if !self.is_terminal {
            head.extend(lines);
            return output::print(&(head.join("\n") + "\n"));
        }
        let rows = rustix::termios::tcgetwinsize(io::stdout()).map_or(24, |size| size.ws_row);
        let room = usize::from(rows.max(6)) - head.len() - 1;
        if lines.len() > room {
            let hidden = lines.len() - (room - 1);
            lines.truncate(room - 1);
            lines.push(self.style.paint(DIM, &format!("and {hidden} more lines")));
        }
        head.extend(lines);
        // From the top, each line cleared behind its end, and all below the last one.
        output::print(&("\x1b[H".to_owned() + &head.join("\x1b[K\n") + "\x1b[K\n\x1b[J"))
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

/// Records a second.
fn rate(per_s: f64) -> String {
    format!("{}/s", short(per_s))
}

/// A number in four digits or so.
fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{:.1}M", number / 1e6),
        1e4.. => format!("{:.0}k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// A time in its largest unit.
fn age(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", ms / 1000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        3_600_000..86_400_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// A text in exactly so many columns.
fn cut(text: &str, columns: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.chars().count() {
        count if count <= columns => format!("{text:<columns$}"),
        _ => text.chars().take(columns - 1).chain(['~']).collect(),
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            leave();
        }
    }
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
        let screen = Screen { is_terminal: false, style: Style::of_stdout() };
        for line in screen.lines(&[full, broken]).iter().map(String::as_str).chain([HEAD]) {
            assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
        }
    }
}
