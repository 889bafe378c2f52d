//! What the command line says when it fails, and the exit code it says it with.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use millstream::{Error, Stream};

/// The exit codes, as `millstream --help` has them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
    0  done
    1  an error; standard error says which
    2  wrong usage
    3  another process has the stream or the application: wait for it or stop it
    4  what was read is not what was written: a damaged file, a proof that does not hold
    5  a command of `work --exec` failed
  130  interrupted before the work was done
  141  standard output was closed by its reader (as a shell reports SIGPIPE)

Errors are one line on standard error that begins with `millstream:`, but for the last one, which
is silent. Bars and colours are for terminals only; NO_COLOR=1 takes the colours away there, too.
`millstream cheat` shows the eleven commands that people need.";

/// Why the process ends with another code than 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Error = 1,
    Usage = 2,
    InUse = 3,
    Damaged = 4,
    CommandFailed = 5,
    Interrupted = 130,
    OutputClosed = 141,
}

/// What ends a verb: a line for the user and an exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// An error that no other code fits.
    pub(crate) fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    /// What the system said about `path`.
    pub(crate) fn file(action: &str, path: &Path, source: &io::Error) -> Self {
        Self::error(format!("cannot {action} {}: {source}", path.display()))
    }

    /// Standard output does not take more.
    pub(crate) fn stdout(source: &io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::BrokenPipe => {
                Self::new(Exit::OutputClosed, "standard output was closed by its reader")
            }
            _ => Self::error(format!("cannot write to standard output: {source}")),
        }
    }

    /// Says where or how far, before what it said so far.
    pub(crate) fn at(mut self, place: impl fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    /// Says what follows from it, behind what it said so far.
    pub(crate) fn so(mut self, consequence: impl fmt::Display) -> Self {
        self.message = format!("{}; {consequence}", self.message);
        self
    }

    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.exit as u8)
    }
}

/// One line, whatever it was made of.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message.replace(['\n', '\r'], " "))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Locked { .. } | Error::LeaseLost { .. } => Exit::InUse,
            Error::Corrupt { .. } => Exit::Damaged,
            _ => Exit::Error,
        };
        let advice = match &error {
            Error::StreamNotFound { path } => {
                Some(format!("make one with `millstream create {}`", path.display()))
            }
            Error::NotAStream { path, .. } if is_empty(path) => {
                Some(format!("make one there with `millstream create {}`", path.display()))
            }
            Error::NotAStream { path, .. } if Stream::list(path).is_ok_and(|it| !it.is_empty()) => {
                Some(format!("`millstream ls {}` shows the streams in it", path.display()))
            }
            Error::NotAStream { .. } => Some("give the directory of a stream".to_owned()),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run it as the user that the files belong to".to_owned())
            }
            Error::Io { action: "list", .. } => {
                Some("give the directory that the streams are in".to_owned())
            }
            Error::StreamExists { .. } => Some("nothing was changed".to_owned()),
            Error::Locked { .. } => Some("wait for it or stop it".to_owned()),
            Error::ShardNotFound { .. } | Error::ShardClosed { .. } => {
                Some("`millstream info` shows the shards".to_owned())
            }
            Error::Corrupt { .. } => {
                Some("`millstream verify` finds all damage, `repair` sets it aside".to_owned())
            }
            Error::Unsupported { .. } => Some("use a newer millstream".to_owned()),
            _ => None,
        };
        let failure = Self::new(exit, error.to_string());
        match advice {
            Some(advice) => failure.so(advice),
            None => failure,
        }
    }
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut names| names.next().is_none())
}
