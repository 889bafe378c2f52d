//! What happens to a stream, as one process tells another, and the records that tell who they are.

use std::str::FromStr;

use millstream::{SequenceNumber, ShardId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The stream is open for putting: what is in it is durable.
    Opened,
    /// The n-th record of a key is about to be put.
    Put { key: u32, n: u64 },
    /// It was acknowledged.
    Acknowledged { key: u32, n: u64, shard: ShardId, number: u64, is_durable: bool },
    /// It was refused because a sync had failed: so is everything behind it.
    Poisoned { key: u32, shard: ShardId },
    /// A reshard has made this shard.
    Reshaped { child: ShardId },
    /// A processor began with a shard: behind this number, or with its first record.
    Started { shard: ShardId, after: Option<u64> },
    /// Records are being processed.
    Got { shard: ShardId, numbers: Vec<u64> },
    /// They were processed.
    Processed { shard: ShardId },
    /// They were not.
    Failed { shard: ShardId },
    /// A checkpoint was stored.
    Checkpointed { shard: ShardId, number: u64 },
    /// The end of a shard was processed.
    Ended { shard: ShardId },
    /// The process was killed, or the power failed as well.
    Cut { power: bool },
}

impl Event {
    /// The event in a line of text, without its end.
    pub fn line(&self) -> String {
        match self {
            Self::Opened => "opened".into(),
            Self::Put { key, n } => format!("put {key} {n}"),
            Self::Acknowledged { key, n, shard, number, is_durable } => {
                format!("ack {key} {n} {} {number} {}", shard.index(), u8::from(*is_durable))
            }
            Self::Poisoned { key, shard } => format!("poisoned {key} {}", shard.index()),
            Self::Reshaped { child } => format!("reshaped {}", child.index()),
            Self::Started { shard, after: None } => format!("started {}", shard.index()),
            Self::Started { shard, after: Some(after) } => {
                format!("started {} {after}", shard.index())
            }
            Self::Got { shard, numbers } => {
                let numbers: String = numbers.iter().map(|number| format!(" {number}")).collect();
                format!("got {}{numbers}", shard.index())
            }
            Self::Processed { shard } => format!("processed {}", shard.index()),
            Self::Failed { shard } => format!("failed {}", shard.index()),
            Self::Checkpointed { shard, number } => {
                format!("checkpointed {} {number}", shard.index())
            }
            Self::Ended { shard } => format!("ended {}", shard.index()),
            Self::Cut { power } => format!("cut {}", u8::from(*power)),
        }
    }
}

/// The next number of a line.
fn next<T: FromStr>(words: &mut std::str::SplitWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        let words = &mut words;
        let event = match kind {
            "opened" => Some(Self::Opened),
            "put" => (|| Some(Self::Put { key: next(words)?, n: next(words)? }))(),
            "ack" => (|| {
                let (key, n) = (next(words)?, next(words)?);
                let (shard, number) = (ShardId::new(next(words)?), next(words)?);
                let is_durable = next::<u8>(words)? == 1;
                Some(Self::Acknowledged { key, n, shard, number, is_durable })
            })(),
            "poisoned" => {
                (|| Some(Self::Poisoned { key: next(words)?, shard: ShardId::new(next(words)?) }))()
            }
            "cut" => next::<u8>(words).map(|power| Self::Cut { power: power == 1 }),
            _ => next(words).and_then(|index| Self::of_shard(kind, ShardId::new(index), words)),
        };
        event.ok_or_else(|| format!("{line:?} is no event"))
    }
}

impl Event {
    fn of_shard(
        kind: &str,
        shard: ShardId,
        words: &mut std::str::SplitWhitespace<'_>,
    ) -> Option<Self> {
        Some(match kind {
            "reshaped" => Self::Reshaped { child: shard },
            "started" => Self::Started { shard, after: next(words) },
            "got" => Self::Got { shard, numbers: words.map_while(|it| it.parse().ok()).collect() },
            "processed" => Self::Processed { shard },
            "failed" => Self::Failed { shard },
            "checkpointed" => Self::Checkpointed { shard, number: next(words)? },
            "ended" => Self::Ended { shard },
            _ => return None,
        })
    }
}

/// The partition key of a key.
pub fn partition_key(key: u32) -> String {
    format!("key-{key}")
}

/// The data of the n-th record of a key: mostly small, one in five is 1 to 12 KiB.
pub fn data(key: u32, n: u64) -> Vec<u8> {
    let mut random = (u64::from(key) << 40 ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    random ^= random >> 29;
    let len = match random % 5 {
        0 => 1024 + random / 5 % (11 << 10),
        _ => random / 5 % 200,
    };
    let mut data = Vec::with_capacity(len as usize + 20);
    data.extend(key.to_le_bytes());
    data.extend(n.to_le_bytes());
    while data.len() < len as usize {
        random = random.wrapping_mul(0xd129_0ddb_53c4_3e49).rotate_left(23) | 1;
        data.extend(random.to_le_bytes());
    }
    data
}

/// The number as an integer.
pub fn number(number: SequenceNumber) -> u64 {
    number.to_string().parse().expect("a local number has 64 bits")
}

/// Which record has this content; none if no record has it.
pub fn identify(text: &str, content: &[u8]) -> Option<(u32, u64)> {
    let (key, rest) = content.split_first_chunk()?;
    let (n, _) = rest.split_first_chunk()?;
    let (key, n) = (u32::from_le_bytes(*key), u64::from_le_bytes(*n));
    (partition_key(key) == text && data(key, n) == content).then_some((key, n))
}
