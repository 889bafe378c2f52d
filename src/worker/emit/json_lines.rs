//! Records as JSON lines in files, one file after the other.
//!
//! A file is written under a name of its owner's that ends in `.part`, and gets its own name when
//! it is complete. That is decided only when everything in it is checkpointed: a file that has its
//! name has whole lines, and nothing in it comes again. What an owner has left that was killed, or
//! has lost the shard, is brought to its end by the next one: up to the checkpoint, where its own
//! records begin.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Emitter;
use crate::error::Error;
use crate::os::clock::Ticker;
use crate::os::{fs, random};
use crate::position::{SequenceNumber, ShardId};
use crate::record::Record;
use crate::worker::checkpoint::Checkpoint;
use crate::worker::processor::{Initialization, ProcessorError};

const PART: &str = ".part";
const NEW: &str = ".new";

/// An [`Emitter`] that writes records as JSON lines into files of a directory, as
/// `millstream export` does: `shard`, `sequence_number`, `arrival_ms`, `partition_key` if there is
/// one, and `data`, or `data_base64` if it is not UTF-8.
///
/// A file is named after its shard and its first record, as in
/// `shardId-000000000000-4096.jsonl`. It gets this name, which ends in `.part` until then, when it
/// is complete: [large](Self::max_bytes) or [old](Self::max_age) enough, or at the end; and only
/// when it is checkpointed. So the lines of a file with its name are whole, and a killed process
/// leaves none of them out and brings none twice; but for a kill at the very end of a shard, and a
/// power cut that takes checkpoints back. Lines are synced before they are checkpointed. A rewind
/// writes what comes again into files of its own.
///
/// Give each application, and each stream, a directory of its own.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path().join("clicks")).open()?;
/// # let archive = dir.path().join("archive");
/// use std::time::Duration;
/// use millstream::{EmitBuffer, JsonLines, WorkerPool};
///
/// stream.put("customer-7", "clicked")?;
/// let pool = WorkerPool::builder("archive", &stream)
///     .start_emitting(EmitBuffer::default(), {
///         let archive = archive.clone();
///         move |_| JsonLines::new(&archive).max_bytes(64 << 20).max_age(Duration::from_secs(3600))
///     })?;
/// assert!(pool.wait_until_idle(Duration::from_secs(10)));
/// pool.shutdown(Duration::from_secs(10));
/// let file = std::fs::read_dir(&archive).unwrap().next().unwrap().unwrap();
/// let line = std::fs::read_to_string(file.path()).unwrap();
/// assert!(line.ends_with(",\"partition_key\":\"customer-7\",\"data\":\"clicked\"}\n"));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Debug)]
pub struct JsonLines {
    directory: PathBuf,
    max_bytes: u64,
    max_age: Duration,
    ticker: Ticker,
    shard: Option<ShardId>,
    open: Option<Open>,
}

/// The file that is being written.
#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    len: u64,
    since: Instant,
}

/// A record as a line, for [`JsonLines`].
///
/// ```
/// use millstream::{Emitter, JsonLine, JsonLines, ProcessorError, Record};
/// # use std::time::Duration;
/// # use millstream::Initialization;
///
/// /// An archive that leaves out what is empty; its other methods are those of [`JsonLines`], too.
/// struct Archive(JsonLines);
///
/// impl Emitter for Archive {
///     type Item = JsonLine;
///
///     fn transform(&mut self, record: &Record<'_>) -> Result<Option<JsonLine>, ProcessorError> {
///         if record.data().is_empty() { Ok(None) } else { self.0.transform(record) }
///     }
///
///     fn size(&self, line: &JsonLine) -> u64 {
///         self.0.size(line)
///     }
///
///     fn emit(&mut self, lines: Vec<JsonLine>) -> Result<Vec<JsonLine>, ProcessorError> {
///         self.0.emit(lines)
///     }
/// #     fn initialize(&mut self, initialization: &Initialization) -> Result<(), ProcessorError> {
/// #         self.0.initialize(initialization)
/// #     }
/// #     fn checkpointed(&mut self) -> Result<(), ProcessorError> {
/// #         self.0.checkpointed()
/// #     }
/// #     fn idle(&mut self) -> Result<Option<Duration>, ProcessorError> {
/// #         self.0.idle()
/// #     }
/// #     fn finish(&mut self) -> Result<(), ProcessorError> {
/// #         self.0.finish()
/// #     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct JsonLine {
    number: SequenceNumber,
    text: String,
}

impl JsonLines {
    /// Files in this directory, which is created if it is missing: of 64 MiB or an hour by default.
    pub fn new(directory: impl AsRef<Path>) -> Self {
        Self {
            directory: directory.as_ref().to_owned(),
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(3600),
            ticker: Ticker::System,
            shard: None,
            open: None,
        }
    }

    /// The bytes at which a file is complete; it may be larger by up to one bundle.
    #[must_use]
    pub fn max_bytes(mut self, count: u64) -> Self {
        self.max_bytes = count;
        self
    }

    /// The age at which a file is complete.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = age;
        self
    }

    /// With time that a test decides.
    #[cfg(test)]
    pub(in crate::worker) fn ticker(mut self, ticker: &Ticker) -> Self {
        self.ticker = ticker.clone();
        self
    }

    /// Brings to its end what other owners of the shard have left.
    fn complete(&self, shard: ShardId, checkpoint: Checkpoint) -> Result<(), Error> {
        let is_kept = |number: SequenceNumber| match checkpoint {
            Checkpoint::TrimHorizon => false,
            Checkpoint::AtSequenceNumber(next) => number < next,
            Checkpoint::AfterSequenceNumber(last) => number <= last,
            Checkpoint::ShardEnd => true,
        };
        for name in fs::list(&self.directory)? {
            let path = self.directory.join(&name);
            if !name.starts_with(&format!("{shard}-")) {
                continue;
            }
            if name.ends_with(NEW) {
                fs::remove(&path)?;
            } else if name.ends_with(PART) {
                let bytes = fs::read(&fs::open_read(&path)?, &path, u64::MAX - 1)?;
                let lines = bytes.split_inclusive(|byte| *byte == b'\n');
                let whole = lines.take_while(|line| number_of(line).is_some_and(is_kept));
                match whole.map(<[u8]>::len).sum() {
                    0 => fs::remove(&path)?,
                    len => {
                        // The one who has left it may write to it still, if it was just slow: it
                        // has another file then.
                        fs::replace(&path, &bytes[..len])?;
                        name_finally(&path)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// How long the file that is being written has, if there is one.
    fn time_left(&self) -> Option<Duration> {
        let age = self.ticker.now().duration_since(self.open.as_ref()?.since);
        Some(self.max_age.saturating_sub(age))
    }
}

impl Emitter for JsonLines {
    type Item = JsonLine;

    fn initialize(&mut self, initialization: &Initialization) -> Result<(), ProcessorError> {
        self.shard = Some(initialization.shard.id);
        fs::create_directory(&self.directory)?;
        Ok(self.complete(initialization.shard.id, initialization.checkpoint)?)
    }

    fn transform(&mut self, record: &Record<'_>) -> Result<Option<JsonLine>, ProcessorError> {
        let shard = self.shard.expect("it is initialized before");
        Ok(Some(JsonLine { number: record.sequence_number(), text: line(shard, record) }))
    }

    fn size(&self, item: &JsonLine) -> u64 {
        item.text.len() as u64
    }

    fn emit(&mut self, items: Vec<JsonLine>) -> Result<Vec<JsonLine>, ProcessorError> {
        let (Some(first), Some(shard)) = (items.first(), self.shard) else { return Ok(items) };
        if self.open.is_none() {
            let name = format!("{shard}-{}.{:016x}{PART}", first.number, random());
            let path = self.directory.join(name);
            let file = fs::create_new(&path)?;
            fs::sync_directory(&self.directory)?;
            self.open = Some(Open { path, file, len: 0, since: self.ticker.now() });
        }
        let open = self.open.as_mut().expect("it was opened");
        let text: String = items.into_iter().map(|item| item.text).collect();
        // After an error, what was written is cut off by the next owner.
        (&open.file).write_all(text.as_bytes()).map_err(|e| Error::io("write", &open.path, e))?;
        fs::sync(&open.file, &open.path)?;
        open.len += text.len() as u64;
        Ok(Vec::new())
    }

    fn checkpointed(&mut self) -> Result<(), ProcessorError> {
        let is_large = self.open.as_ref().is_some_and(|open| open.len >= self.max_bytes);
        if is_large || self.time_left() == Some(Duration::ZERO) { self.finish() } else { Ok(()) }
    }

    fn idle(&mut self) -> Result<Option<Duration>, ProcessorError> {
        self.checkpointed()?;
        Ok(self.time_left())
    }

    fn finish(&mut self) -> Result<(), ProcessorError> {
        Ok(self.open.take().map_or(Ok(()), |open| name_finally(&open.path))?)
    }
}

/// Gives a complete file its name, or, if there is one of that name from before a rewind, another.
fn name_finally(part: &Path) -> Result<(), Error> {
    let name = part.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.expect("a part has a name");
    let stem = name.split('.').next().unwrap_or_default();
    let names = std::iter::once(format!("{stem}.jsonl"))
        .chain((2u64..).map(|again| format!("{stem}-{again}.jsonl")));
    for name in names {
        let path = part.with_file_name(name);
        if fs::open_if_any(&path)?.is_none() {
            fs::rename(part, &path)?;
            break;
        }
    }
    fs::sync_directory(part.parent().unwrap_or(Path::new(".")))
}

/// The number of a whole line.
fn number_of(line: &[u8]) -> Option<SequenceNumber> {
    let line = std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?;
    let (_, rest) = line.split_once(r#","sequence_number":""#)?;
    rest.split_once('"')?.0.parse().ok()
}

/// A record as a JSON object, with the end of the line.
fn line(shard: ShardId, record: &Record<'_>) -> String {
    let (number, ms) = (record.sequence_number(), record.arrival_ms());
    let mut line = format!(r#"{{"shard":"{shard}","sequence_number":"{number}","arrival_ms":{ms}"#);
    if !record.partition_key().is_empty() {
        line += r#","partition_key":"#;
        push_text(&mut line, record.partition_key());
    }
    match std::str::from_utf8(record.data()) {
        Ok(text) => {
            line += r#","data":"#;
            push_text(&mut line, text);
        }
        Err(_) => {
            line += r#","data_base64":""#;
            push_base64(&mut line, record.data());
            line.push('"');
        }
    }
    line += "}\n";
    line
}

fn push_text(line: &mut String, text: &str) {
    line.push('"');
    for c in text.chars() {
        match c {
            '"' => line.push_str(r#"\""#),
            '\\' => line.push_str(r"\\"),
            '\n' => line.push_str(r"\n"),
            '\r' => line.push_str(r"\r"),
            '\t' => line.push_str(r"\t"),
            c if c.is_ascii_control() => {
                // Writing to a text does not fail.
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// RFC 4648, with padding.
fn push_base64(line: &mut String, bytes: &[u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for three in bytes.chunks(3) {
        let byte = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            line.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
}
