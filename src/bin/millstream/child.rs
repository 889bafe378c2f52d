//! A child process that takes records from its standard input: the other side of `work --exec`.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millstream::ShardId;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::output;

/// The longest pause between two looks at a child.
const MAX_PAUSE: Duration = Duration::from_millis(5);
/// How long a child that has failed may take to end by itself.
const FAILED_PATIENCE: Duration = Duration::from_secs(1);
/// How long a child that has read everything is looked at before its input is ended: one that
/// ends now did not wait for that end, and whether it has used what it read nobody knows.
const SETTLING: Duration = Duration::from_millis(50);

/// What the children are started with, and which of them are running.
#[derive(Clone)]
pub(crate) struct Children {
    command: Arc<str>,
    app: Arc<str>,
    stream: Arc<Path>,
    running: Arc<Mutex<HashMap<u32, Arc<Mutex<Child>>>>>,
}

impl Children {
    pub(crate) fn new(command: &str, app: &str) -> Self {
        let stream = Path::new("").into();
        Self { command: command.into(), app: app.into(), stream, running: Arc::default() }
    }

    /// Those for the shards of this stream.
    pub(crate) fn of(&self, stream: &Path) -> Self {
        Self { stream: stream.into(), ..self.clone() }
    }

    /// Starts a child for the shard.
    ///
    /// It gets a process group of its own: Ctrl-C is for us, the child shall finish what it was
    /// given and sees the end of its input then.
    pub(crate) fn start(&self, shard: ShardId) -> Result<Feed, String> {
        let mut child = Command::new("sh")
            .args(["-c", &self.command])
            .env("MILLSTREAM_SHARD", shard.to_string())
            .env("MILLSTREAM_APP", &*self.app)
            .env("MILLSTREAM_STREAM", &*self.stream)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|e| format!("cannot start `sh`: {e}"))?;
        let stdin = child.stdin.take();
        let id = child.id();
        let child = Arc::new(Mutex::new(child));
        self.running.lock().insert(id, Arc::clone(&child));
        Ok(Feed { child, id, stdin, children: self.clone() })
    }

    /// Kills every child that still runs, and its children; how many there were.
    pub(crate) fn kill_all(&self) -> usize {
        let running = self.running.lock();
        running.values().filter(|child| kill_group(&mut child.lock())).count()
    }
}

/// A child that is being fed.
pub(crate) struct Feed {
    child: Arc<Mutex<Child>>,
    id: u32,
    stdin: Option<ChildStdin>,
    children: Children,
}

impl Feed {
    /// Gives the child these bytes, and waits until it has read them all and is still there.
    ///
    /// Without this wait up to 64 KiB in the pipe would count as taken, and be lost with a child
    /// that dies before it reads them. What the child has read is its own responsibility.
    pub(crate) fn give(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(stdin) = &mut self.stdin else { return Err(self.ended_early()) };
        if stdin.write_all(bytes).is_err() {
            return Err(self.ended_early());
        }
        let mut pause = Duration::from_micros(20);
        while rustix::io::ioctl_fionread(&*stdin).map_err(|e| e.to_string())? > 0 {
            // Wakes at once if nobody is left to read it.
            if output::wait_for_closed_pipe(&*stdin, pause) {
                return Err(self.ended_early());
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
        if self.is_gone(Duration::ZERO) { Err(self.ended_early()) } else { Ok(()) }
    }

    /// Gives the child these bytes and nothing more, and waits for its end; a success says that it
    /// has used them, whether or not it read them all.
    pub(crate) fn give_all(mut self, bytes: &[u8]) -> Result<(), String> {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(bytes);
        }
        match self.wait(Duration::MAX)? {
            status if status.success() => Ok(()),
            status => Err(format!("the command failed ({})", how_it_ended(status))),
        }
    }

    /// Ends the child's input and waits for its end, which must come after that and be a success.
    pub(crate) fn end(self) -> Result<(), String> {
        self.end_within(Duration::MAX)
    }

    /// As `end`, for one who cannot wait long.
    pub(crate) fn end_soon(self) -> Result<(), String> {
        self.end_within(FAILED_PATIENCE)
    }

    fn end_within(mut self, patience: Duration) -> Result<(), String> {
        if self.is_gone(SETTLING) {
            return Err(self.ended_early());
        }
        match self.wait(patience)? {
            status if status.success() => Ok(()),
            status => {
                let how = how_it_ended(status);
                Err(format!("the command failed at the end of its input ({how})"))
            }
        }
    }

    /// Whether the child ends, or closes its input, by itself within this time.
    fn is_gone(&self, patience: Duration) -> bool {
        self.stdin.as_ref().is_none_or(|stdin| output::wait_for_closed_pipe(stdin, patience))
            || !matches!(self.child.lock().try_wait(), Ok(None))
    }

    /// Waits for a child that is gone, and says so.
    fn ended_early(&mut self) -> String {
        match self.wait(FAILED_PATIENCE) {
            Ok(status) => {
                let how = how_it_ended(status);
                format!("the command ended ({how}) before it had read its input")
            }
            Err(error) => error,
        }
    }

    /// Ends the child's input and waits for its end; after so long, kills it.
    fn wait(&mut self, patience: Duration) -> Result<ExitStatus, String> {
        self.stdin = None;
        let started = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            // Looks, rather than sleeps in the wait, so that another thread can still kill it.
            let ended = self.child.lock().try_wait();
            match ended {
                Ok(Some(status)) => {
                    self.children.running.lock().remove(&self.id);
                    return Ok(status);
                }
                Ok(None) => thread::sleep(pause),
                Err(error) => return Err(format!("cannot wait for the command: {error}")),
            }
            pause = (pause * 2).min(MAX_PAUSE);
            if started.elapsed() > patience {
                kill_group(&mut self.child.lock());
            }
        }
    }
}

impl Drop for Feed {
    /// No child is left behind.
    fn drop(&mut self) {
        let _ = self.wait(FAILED_PATIENCE);
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Kills the child and its own children, unless it has ended; whether it was killed.
fn kill_group(child: &mut Child) -> bool {
    // A child that was not reaped keeps its id, so this hits no other.
    let is_running = matches!(child.try_wait(), Ok(None));
    let group = Pid::from_raw(child.id().cast_signed()).filter(|_| is_running);
    group.is_some_and(|group| kill_process_group(group, Signal::KILL).is_ok())
}
