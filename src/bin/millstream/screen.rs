//! A screen that is drawn over and over, or plain text where there is none.

use std::io::{self, IsTerminal, Write};

use crate::failure::Result;
use crate::output;
use crate::style::{DIM, Style};

/// The other screen of the terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Where looks are shown; what was on the terminal before is there again in the end.
pub(crate) struct Screen {
    is_terminal: bool,
    pub(crate) style: Style,
}

/// Gives the terminal back.
pub(crate) fn leave() {
    if io::stdout().is_terminal() {
        // There is nobody to tell if this cannot be written.
        let _ = io::stdout().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
    }
}

impl Screen {
    /// Takes the terminal, if there is one and it is wanted.
    pub(crate) fn enter(is_wanted: bool) -> Result<Self> {
        let is_terminal = is_wanted && io::stdout().is_terminal();
        if is_terminal {
            output::print(ENTER)?;
        }
        Ok(Self { is_terminal, style: Style::of_stdout() })
    }

    /// One that is no terminal.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { is_terminal: false, style: Style::of_stdout() }
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Draws the head, and of the other lines what the screen has room for.
    pub(crate) fn draw(&self, mut head: Vec<String>, mut lines: Vec<String>) -> Result<()> {
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
}

/// Records a second.
pub(crate) fn rate(per_s: f64) -> String {
    format!("{}/s", short(per_s))
}

/// A number in four digits or so.
pub(crate) fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{:.1}M", number / 1e6),
        1e4.. => format!("{:.0}k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// A time in its largest unit.
pub(crate) fn age(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", ms / 1000),
        60_000..3_600_000 => format!("{}m", ms / 60_000),
        3_600_000..86_400_000 => format!("{}h", ms / 3_600_000),
        _ => format!("{}d", ms / 86_400_000),
    }
}

/// A text in exactly so many columns.
pub(crate) fn cut(text: &str, columns: usize) -> String {
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
