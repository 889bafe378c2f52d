//! The life of a stream from its creation on, through many processes that end before their time.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use millstream::{Error, HashAlgorithm, Stream, verify};
use rustix::process::Signal;

use crate::common::event::Event;
use crate::common::files::{copy_all, scratch};
use crate::common::history::History;
use crate::random::Random;
use crate::say;
use crate::victim::{KEYS, Orders};

/// When a process is killed.
pub(crate) enum Doom {
    /// After this time.
    After(Duration),
    /// As soon as something of this kind has happened so many times.
    At(&'static str, u64),
    /// Not at all; it has this long to end by itself.
    Never(Duration),
}

/// How a process ended.
pub(crate) struct Ended {
    /// It did not end in time.
    pub(crate) hung: bool,
    pub(crate) error: String,
}

/// A stream and its history.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) directory: PathBuf,
    pub(crate) history: History,
    pub(crate) was_opened: bool,
    /// All that was said.
    lines: Vec<String>,
}

impl Life {
    pub(crate) fn new(directory: &Path) -> Self {
        let history = History::new(HashAlgorithm::default());
        Self { directory: directory.to_owned(), history, was_opened: false, lines: Vec::new() }
    }

    /// Orders for the next process.
    pub(crate) fn orders(&self, random: &mut Random, sync: u64) -> Orders {
        let producers = 2;
        Orders {
            seed: random.next(),
            producers,
            shards: 2,
            sync,
            works: random.percent(60),
            reshards: random.percent(40),
            puts: u64::MAX,
            process: 0,
            next: (0..producers * KEYS).map(|key| self.history.next(key)).collect(),
        }
    }

    /// Has a process live here until its doom, and notes what it says.
    pub(crate) fn live(&mut self, orders: &Orders, doom: &Doom) -> Ended {
        self.live_from(orders, doom, |_| ())
    }

    /// The same; `started` is told which process it is.
    pub(crate) fn live_from(
        &mut self,
        orders: &Orders,
        doom: &Doom,
        started: impl FnOnce(u32),
    ) -> Ended {
        let command = Command::new(std::env::current_exe().unwrap());
        self.live_under(command, orders, doom, started)
    }

    /// The same, where `command` runs this program.
    pub(crate) fn live_under(
        &mut self,
        mut command: Command,
        orders: &Orders,
        doom: &Doom,
        started: impl FnOnce(u32),
    ) -> Ended {
        let mut child = command
            .arg("victim")
            .arg(&self.directory)
            .args(orders.arguments())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        started(child.id());
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let (lines, received) = crossbeam_channel::unbounded();
        let (kind, mut left) = match doom {
            Doom::At(kind, count) => (*kind, *count),
            _ => ("", 0),
        };
        let (hung, error, signal) = std::thread::scope(|scope| {
            scope.spawn(move || {
                for line in output.lines() {
                    let _ = lines.send(line.unwrap());
                }
            });
            let error = scope.spawn(move || {
                let mut text = Vec::new();
                errors.read_to_end(&mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            });
            let patience = match doom {
                Doom::After(time) | Doom::Never(time) => *time,
                Doom::At(..) => Duration::from_millis(100),
            };
            let deadline = Instant::now() + patience;
            let mut hung = false;
            loop {
                match received.recv_deadline(deadline) {
                    Ok(line) => {
                        let is_doom = !kind.is_empty() && line.starts_with(kind);
                        self.note(&line);
                        left -= u64::from(is_doom && left > 0);
                        // What has come already does not make it live longer.
                        if (is_doom && left == 0) || Instant::now() > deadline {
                            break;
                        }
                    }
                    Err(crossbeam_channel::RecvTimeoutError::Timeout) => {
                        hung = matches!(doom, Doom::Never(_));
                        break;
                    }
                    Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
                }
            }
            let signal = end(&mut child, hung || !matches!(doom, Doom::Never(_)));
            for line in received {
                self.note(&line);
            }
            (hung, error.join().unwrap(), signal)
        });
        if signal == Some(Signal::BUS.as_raw()) {
            self.wrong("it has touched a page that the disk does not have");
        }
        Ended { hung, error }
    }

    /// Notes a line, which may say in front, behind an `@`, which process has said it.
    pub(crate) fn note(&mut self, line: &str) {
        let said = line.strip_prefix('@').and_then(|rest| rest.split_once(' '));
        let (process, event) = said.unwrap_or(("0", line));
        let event: Event = event.parse().unwrap();
        self.was_opened |= event == Event::Opened;
        self.history.add_from(process.parse().unwrap(), &event);
        self.lines.push(line.to_owned());
    }

    /// Looks what is there, in a copy: the next process finds it as the last one left it. Whether
    /// nothing was wrong so far.
    pub(crate) fn check(&mut self, power: bool) -> bool {
        self.note(&Event::Cut { power }.line());
        let copy = scratch();
        if self.directory.try_exists().unwrap() {
            copy_all(&self.directory, copy.path());
        }
        let scanned = Stream::builder(copy.path())
            .open_existing()
            .and_then(|stream| self.history.scan(&stream));
        match scanned {
            // It was killed before it was there.
            Err(Error::StreamNotFound { .. } | Error::NotAStream { .. }) if !self.was_opened => {}
            Err(error) => self.wrong(&format!("it cannot be opened: {error}")),
            Ok(()) => {}
        }
        self.history.anomalies.is_empty()
    }

    /// Processes all that is left, and looks at everything once more; nothing, if something was
    /// wrong already.
    pub(crate) fn finish(&mut self) {
        if !self.history.anomalies.is_empty() {
            return;
        }
        let mut random = Random::new(1);
        let orders =
            Orders { works: true, reshards: false, puts: 0, ..self.orders(&mut random, 0) };
        for _ in 0..3 {
            let ended = self.live(&orders, &Doom::Never(Duration::from_secs(60)));
            if ended.hung || !ended.error.is_empty() {
                self.wrong(&format!("it does not end well: {}", ended.error));
            }
        }
        self.check(false);
        self.history.finish();
        match verify(&self.directory) {
            Ok(found) if found.is_intact() => {}
            Ok(found) => self.wrong(&format!("{:?}", found.damage().collect::<Vec<_>>())),
            Err(error) => self.wrong(&error.to_string()),
        }
    }

    /// Notes something that no history tells of.
    pub(crate) fn wrong(&mut self, what: &str) {
        use crate::common::history::Anomaly;
        self.history.anomalies.push((Anomaly::LostWrite, what.to_owned()));
    }

    /// Whether nothing was wrong; says what was, and where all that happened is written down.
    pub(crate) fn is_sound(&self, what: &str) -> bool {
        for (anomaly, text) in self.history.anomalies.iter().take(10) {
            say(&format!("{what}: {anomaly:?}: {text}"));
        }
        let is_sound = self.history.anomalies.is_empty();
        if !is_sound {
            let path = std::env::temp_dir().join(format!("torture-{}.log", std::process::id()));
            std::fs::write(&path, self.lines.join("\n")).unwrap();
            say(&format!("{what}: its history is in {}", path.display()));
        }
        is_sound
    }
}

/// Ends a process and waits for it: which signal it has died of.
fn end(child: &mut Child, by_force: bool) -> Option<i32> {
    if by_force {
        let _ = child.kill();
    }
    child.wait().unwrap().signal()
}
