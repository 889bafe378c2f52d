//! What can go wrong, as decisions for the caller.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::position::{SequenceNumber, ShardId};

/// The result of everything that can fail here.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
///
/// fn put_order(stream: &millstream::Stream) -> millstream::Result<()> {
///     stream.put("customer-7", "an order")?;
///     stream.flush()
/// }
/// put_order(&stream)?;
/// # Ok::<(), millstream::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed: a variant for each decision that a caller may take, with the evidence.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("clicks");
/// use millstream::{Error, Stream};
///
/// let stream = match Stream::builder(&path).open_existing() {
///     Err(Error::StreamNotFound { path }) => Stream::builder(path).shards(4).create()?,
///     opened => opened?,
/// };
/// match stream.put("customer-7", vec![0; 2 << 20]) {
///     Err(Error::RecordTooLarge { len, max }) => assert!(len > max),
///     Err(Error::DiskFull { path }) => eprintln!("make room for {}", path.display()),
///     other => drop(other?),
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
// The tag is as wide as what stands beside it: with a narrower one, compilers copy results together
// with the bytes between, which takes 6 ns in place of 1. Which number a variant has, nobody
// promises.
#[repr(u64)]
pub enum Error {
    /// The call asks for something impossible; the text says what. Nothing was changed.
    InvalidArgument(String),
    /// A partition key must have 1 to 256 Unicode characters. Nothing was written.
    InvalidPartitionKey {
        /// How many characters the key has.
        characters: usize,
    },
    /// Key and data together are longer than the stream takes. Nothing was written.
    RecordTooLarge {
        /// Bytes of key and data.
        len: usize,
        /// The most bytes of key and data that the stream takes.
        max: usize,
    },
    /// There is no stream at this path, or no longer the one that was opened there.
    StreamNotFound {
        /// The directory that was to be opened, or was open.
        path: PathBuf,
    },
    /// There is a stream at this path already.
    StreamExists {
        /// The directory in which a stream was to be created.
        path: PathBuf,
    },
    /// What is at this path is not a stream.
    NotAStream {
        /// What was to be opened.
        path: PathBuf,
        /// What was found instead.
        found: &'static str,
    },
    /// The stream needs something that this build does not know. Nothing was changed.
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What it asks for.
        what: String,
    },
    /// Somebody has the directory already, perhaps this process: a stream is opened for putting
    /// once, and its handle is cloned.
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as that is known.
        owner: String,
    },
    /// The stream was opened read-only.
    ReadOnly,
    /// The stream has no such shard.
    ShardNotFound {
        /// The shard that was asked for.
        shard: ShardId,
    },
    /// The shard was split or merged before: its children have its hash keys now.
    ShardClosed {
        /// The closed shard.
        shard: ShardId,
    },
    /// More shards would be open than the stream allows. Nothing was changed.
    TooManyShards {
        /// How many would be.
        open: u32,
        /// How many may be, as the stream is set.
        max: u32,
    },
    /// The number cannot belong to this shard.
    WrongShard {
        /// The shard that was asked.
        shard: ShardId,
        /// The number, which lies outside of the shard.
        sequence_number: SequenceNumber,
        /// The ancestor or descendant of the shard that the number lies in, if there is only one.
        lies_in: Option<ShardId>,
    },
    /// The condition of a conditional put does not hold. Nothing was written.
    Stale {
        /// The shard that it would have gone to.
        shard: ShardId,
        /// The number that the condition named.
        sequence_number: SequenceNumber,
        /// Where the next record of the shard goes.
        next: SequenceNumber,
    },
    /// A file does not hold what was written to it.
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// Where in the file the damage begins, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A sync failed, so it is unknown what of the shard is on the disk. The shard takes no more
    /// records. Open the stream anew: that finds out what is there, and goes on from it.
    Poisoned {
        /// The shard.
        shard: ShardId,
        /// Every record below this number is durable.
        durable: SequenceNumber,
        /// What the sync said.
        cause: String,
    },
    /// The disk (or a quota) is full. What was acknowledged is kept; when there is room again, try
    /// again.
    DiskFull {
        /// The file that there was no room for.
        path: PathBuf,
    },
    /// The stream has reached its limit of bytes, and its retention lets nothing go. Nothing was
    /// written. Try again when applications have processed more, or something was trimmed.
    StreamFull {
        /// The bytes that its finished segments take.
        taken: u64,
        /// The bytes that must be free for it to go on.
        needed: u64,
        /// The most bytes that they may take.
        limit: u64,
    },
    /// A checkpoint must lie within the batch it is taken from, and not below the last one.
    InvalidCheckpoint {
        /// The shard.
        shard: ShardId,
        /// The number that was to be the checkpoint.
        sequence_number: SequenceNumber,
        /// Which of the rules it breaks.
        why: &'static str,
    },
    /// The shard belongs to another worker now; the stored checkpoint is unchanged.
    LeaseLost {
        /// The shard.
        shard: ShardId,
    },
    /// The message was done, or given to another consumer, since it was received; nothing was
    /// changed.
    ReceiptExpired {
        /// The shard that the message is in.
        shard: ShardId,
        /// Its number in the shard.
        sequence_number: SequenceNumber,
    },
    /// The operating system refused.
    Io {
        /// What was being done, as in "cannot *sync* this".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
}

impl Error {
    /// What the system said about `path`, as an error of ours.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source: Arc::new(source) },
        }
    }

    /// Whether the system said that there is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Damage in `path`, `offset` bytes from its start.
    pub(crate) fn corrupt(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), offset, what: what.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidArgument(what) => f.write_str(what),
            Self::InvalidPartitionKey { characters } => {
                write!(f, "a partition key has 1 to 256 characters; this one has {characters}")
            }
            Self::RecordTooLarge { len, max } => write!(
                f,
                "key and data are {len} bytes; this stream takes at most {max} \
                 (a setting when it is created)"
            ),
            Self::StreamNotFound { path } => write!(f, "there is no stream at {}", path.display()),
            Self::StreamExists { path } => {
                write!(f, "there is a stream at {} already", path.display())
            }
            Self::NotAStream { path, found } => {
                write!(f, "{} is not a stream: {found}", path.display())
            }
            Self::Unsupported { path, what } => {
                write!(f, "{} needs {what}, which this build does not know", path.display())
            }
            Self::Locked { path, owner } => {
                write!(f, "{} is in use by {owner}", path.display())
            }
            Self::ReadOnly => {
                f.write_str("the stream was opened read-only; open it for putting instead")
            }
            Self::ShardNotFound { shard } => write!(f, "the stream has no shard {shard}"),
            Self::ShardClosed { shard } => {
                write!(f, "{shard} is closed: it was split or merged, use its children")
            }
            Self::TooManyShards { open, max } => {
                write!(f, "{open} shards would be open; the stream is set to at most {max}")
            }
            Self::WrongShard { shard, sequence_number, lies_in } => {
                write!(f, "the number {sequence_number} cannot belong to {shard}")?;
                lies_in.map_or(Ok(()), |other| write!(f, ", it lies in {other}"))
            }
            Self::Stale { shard, sequence_number, next } => write!(
                f,
                "the condition of the put, on {sequence_number}, does not hold: the next record of \
                 {shard} goes to {next}; read on to there, and decide anew"
            ),
            Self::Corrupt { path, offset, what } => {
                write!(f, "{} is damaged at byte {offset}: {what}", path.display())
            }
            Self::Poisoned { shard, durable, cause } => write!(
                f,
                "{shard} takes no more records, because a sync failed ({cause}); everything \
                 below {durable} is durable; open the stream anew to go on"
            ),
            Self::DiskFull { path } => write!(
                f,
                "no room for {}; make room and try again, nothing acknowledged is lost",
                path.display()
            ),
            Self::StreamFull { taken, needed, limit } => write!(
                f,
                "the stream is full: its segments take {taken} of {limit} bytes, {needed} more are \
                 needed, and its retention lets nothing go; trim it, or try again when what is in \
                 it was processed"
            ),
            Self::InvalidCheckpoint { shard, sequence_number, why } => {
                write!(f, "{sequence_number} cannot be the checkpoint of {shard}: {why}")
            }
            Self::LeaseLost { shard } => {
                write!(f, "the lease of {shard} was lost: another worker has the shard")
            }
            Self::ReceiptExpired { shard, sequence_number } => write!(
                f,
                "the receipt for {sequence_number} of {shard} has expired: the message is done, or \
                 was received again when its visibility timeout was over"
            ),
            Self::Io { action, path, source } => {
                write!(f, "cannot {action} {}: {source}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(&**source),
            _ => None,
        }
    }
}
