//! Which shard, which place in it, and where to start reading.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A shard's identity, never used again in its stream; prints as `shardId-000000000007`.
///
/// ```
/// use millstream::ShardId;
///
/// assert_eq!(ShardId::new(7).to_string(), "shardId-000000000007");
/// assert_eq!("shardId-000000000007".parse::<ShardId>()?, "7".parse()?);
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// The shard with this index.
    pub const fn new(index: u32) -> Self {
        Self(index)
    }

    /// The shard's index: 0 for the first shard of the stream.
    pub const fn index(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shardId-{:012}", self.0)
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ShardId {
    type Err = Error;

    /// Parses `shardId-000000000007`, and for short `7`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the text is neither.
    fn from_str(text: &str) -> Result<Self> {
        let digits = match text.strip_prefix("shardId-") {
            Some(digits) if digits.len() == 12 => digits,
            Some(_) => "",
            None => text,
        };
        match digits.parse() {
            Ok(index) if digits.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(index)),
            _ => Err(Error::InvalidArgument(format!(
                "{text:?} is no shard id; one looks like {}",
                Self(7)
            ))),
        }
    }
}

/// No local number is as high as this, so that what is added to one does not overflow.
pub(crate) const MAX_NUMBER: u64 = 1 << 62;

/// A record's number: rises strictly within a shard and from parent to child, and is given once.
///
/// Opaque and ordered; prints and parses as decimal. Here it is the address of the record in its
/// shard's log; it is 192 bits wide so that the numbers of AWS Kinesis (56 digits) fit as well.
///
/// ```
/// use millstream::SequenceNumber;
///
/// let text = "49590338271490256608559692538361571095921575989136588898";
/// let number: SequenceNumber = text.parse()?;
/// assert_eq!(number.to_string(), text);
/// assert!(number > SequenceNumber::from(7));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber {
    // The derived order compares the fields from the first to the last.
    high: u64,
    middle: u64,
    low: u64,
}

/// The parts of a sequence number of AWS Kinesis; see [`SequenceNumber::aws_parts`].
///
/// ```
/// use millstream::{AwsSequenceNumber, SequenceNumber};
///
/// let text = "49590338271490256608559692538361571095921575989136588898";
/// let parts: Option<AwsSequenceNumber> = text.parse::<SequenceNumber>()?.aws_parts();
/// assert_eq!(parts.map(|parts| parts.shard.to_string()).as_deref(), Some("shardId-000000000006"));
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AwsSequenceNumber {
    /// The version of the layout, 2.
    pub version: u8,
    /// The shard that gave the number out.
    pub shard: ShardId,
    /// When the record was put, in seconds since 1970.
    pub put_second: u64,
    /// When the shard was created, in seconds since 1970.
    pub shard_created_second: u64,
    /// What makes the number differ from others; rises in a shard.
    pub index: u64,
}

impl SequenceNumber {
    /// The number as a local address, if it is one.
    pub(crate) fn address(self) -> Option<u64> {
        (self.high == 0 && self.middle == 0).then_some(self.low)
    }

    /// What a number that AWS Kinesis has given out is made of; none for other numbers, such as
    /// those given out here.
    ///
    /// ```
    /// use millstream::{SequenceNumber, ShardId};
    ///
    /// let text = "49590338271490256608559692538361571095921575989136588898";
    /// let parts = text.parse::<SequenceNumber>()?.aws_parts().expect("it is from AWS");
    /// assert_eq!((parts.version, parts.shard), (2, ShardId::new(6)));
    /// assert_eq!(parts.put_second, 1545084650);
    /// assert_eq!(parts.shard_created_second, 1542776258);
    /// assert_eq!(parts.index, 1734642199);
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn aws_parts(self) -> Option<AwsSequenceNumber> {
        // From the highest bit on: 1 and 0, 36 bits of a time, 4 bits, 64 of the index, 8 bits, 36
        // of a time, 32 of the shard, 4 of the version.
        let upper = u128::from(self.high) << 64 | u128::from(self.middle);
        let lower = u128::from(self.middle) << 64 | u128::from(self.low);
        let version = (self.low & 0xf) as u8;
        if self.high >> 56 != 2 || version != 2 {
            return None;
        }
        Some(AwsSequenceNumber {
            version,
            shard: ShardId::new((lower >> 4) as u32),
            put_second: (lower >> 36) as u64 & ((1 << 36) - 1),
            shard_created_second: (upper >> 84) as u64 & ((1 << 36) - 1),
            index: (upper >> 16) as u64,
        })
    }

    /// The number times ten plus a digit, unless that takes more than 192 bits.
    fn push_digit(self, digit: u8) -> Option<Self> {
        let low = u128::from(self.low) * 10 + u128::from(digit);
        let middle = u128::from(self.middle) * 10 + (low >> 64);
        let high = u128::from(self.high) * 10 + (middle >> 64);
        Some(Self { high: high.try_into().ok()?, middle: middle as u64, low: low as u64 })
    }

    /// The number divided by 10^19, and the remainder.
    fn split_19_digits(self) -> (Self, u64) {
        const TEN_TO_19: u128 = 10_000_000_000_000_000_000;
        let high = u128::from(self.high);
        let middle = ((high % TEN_TO_19) << 64) | u128::from(self.middle);
        let low = ((middle % TEN_TO_19) << 64) | u128::from(self.low);
        // Each remainder is below 10^19, so each quotient is below 2^64.
        let quotient = [high, middle, low].map(|part| (part / TEN_TO_19) as u64);
        let [high, middle, low_quotient] = quotient;
        (Self { high, middle, low: low_quotient }, (low % TEN_TO_19) as u64)
    }
}

impl From<u64> for SequenceNumber {
    #[inline]
    fn from(address: u64) -> Self {
        Self { high: 0, middle: 0, low: address }
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 192 bits are at most 58 digits.
        let mut groups = [0; 4];
        let mut rest = *self;
        for group in groups.iter_mut().rev() {
            (rest, *group) = rest.split_19_digits();
        }
        let [a, b, c, d] = groups;
        let digits = format!("{a:019}{b:019}{c:019}{d:019}");
        let digits = digits.trim_start_matches('0');
        f.pad_integral(true, "", if digits.is_empty() { "0" } else { digits })
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SequenceNumber {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidArgument`] unless the text is a decimal number below 2^192 without sign or
    /// leading zeros.
    fn from_str(text: &str) -> Result<Self> {
        let canonical = text == "0" || !(text.is_empty() || text.starts_with('0'));
        text.bytes()
            .filter(|_| canonical)
            .try_fold(Self::from(0), |number, byte| {
                number.push_digit(byte.is_ascii_digit().then(|| byte - b'0')?)
            })
            .filter(|_| canonical)
            .ok_or_else(|| {
                Error::InvalidArgument(format!(
                    "{text:?} is no sequence number: a decimal number below 2^192 \
                     without leading zeros"
                ))
            })
    }
}

/// Where in a shard to start reading; the five starting positions of Kinesis.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let stream = millstream::Stream::builder(dir.path()).open()?;
/// use millstream::{Limit, StartingPosition};
///
/// let first = stream.put("customer-7", "clicked")?;
/// let second = stream.put("customer-7", "left")?;
/// for (position, records) in [
///     (StartingPosition::TrimHorizon, 2),
///     (StartingPosition::AtSequenceNumber(second.sequence_number), 1),
///     (StartingPosition::AfterSequenceNumber(second.sequence_number), 0),
///     (StartingPosition::AtTimestampMs(first.arrival_ms), 2),
///     (StartingPosition::Latest, 0),
/// ] {
///     let iterator = stream.shard_iterator(first.shard, position)?;
///     assert_eq!(stream.get_records(&iterator, Limit::default())?.records.len(), records);
/// }
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartingPosition {
    /// TRIM_HORIZON: at the oldest record that the shard still has.
    TrimHorizon,
    /// LATEST: behind the newest record there is when the iterator is made.
    Latest,
    /// AT_SEQUENCE_NUMBER: at this record; if no record has the number, at the next one above it.
    AtSequenceNumber(SequenceNumber),
    /// AFTER_SEQUENCE_NUMBER: at the next record above this number.
    AfterSequenceNumber(SequenceNumber),
    /// AT_TIMESTAMP: at the first record, in sequence order, that arrived at this time or later;
    /// in milliseconds since 1970. If there is none, behind the newest record.
    AtTimestampMs(u64),
}
