//! Where a record belongs on the ring of hash keys, and how a partition key gets there.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::record::Key;

/// A point on the ring of `0..=2^128-1`: the hash of a partition key, or one given outright.
///
/// Prints and parses as decimal, without sign or leading zeros, as AWS writes an
/// *explicit hash key*.
///
/// ```
/// use millstream::HashKey;
///
/// let key: HashKey = "170141183460469231731687303715884105728".parse()?;
/// assert_eq!(key, HashKey::new(1 << 127));
/// assert!("01".parse::<HashKey>().is_err());
/// # Ok::<(), millstream::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(u128);

impl HashKey {
    /// The first point of the ring, 0.
    pub const MIN: Self = Self(0);
    /// The last point of the ring, 2^128 - 1.
    pub const MAX: Self = Self(u128::MAX);

    /// The point with this number; every `u128` is one.
    pub const fn new(key: u128) -> Self {
        Self(key)
    }

    /// The number of this point.
    pub const fn get(self) -> u128 {
        self.0
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for HashKey {
    type Err = Error;

    /// # Errors
    /// [`Error::InvalidArgument`] unless the text is a decimal number from 0 to 2^128 - 1 without
    /// sign or leading zeros.
    fn from_str(text: &str) -> Result<Self> {
        let canonical = text == "0" || !text.starts_with('0');
        match text.parse() {
            Ok(key) if canonical && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self(key)),
            _ => Err(Error::InvalidArgument(format!(
                "explicit hash key {text:?} is not a decimal number from 0 to 2^128 - 1 \
                 without leading zeros"
            ))),
        }
    }
}

/// The hash keys that a shard owns: `start` to `end`, both included.
///
/// ```
/// use millstream::{HashKey, HashKeyRange};
///
/// let lower_half = HashKeyRange::even(2)[0];
/// assert!(lower_half.contains(HashKey::MIN) && !lower_half.contains(HashKey::MAX));
/// assert_eq!(HashKeyRange::even(1), [HashKeyRange::FULL]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct HashKeyRange {
    /// The first hash key of the range.
    pub start: HashKey,
    /// The last hash key of the range.
    pub end: HashKey,
}

impl HashKeyRange {
    /// The whole ring.
    pub const FULL: Self = Self { start: HashKey::MIN, end: HashKey::MAX };

    /// Whether `key` lies in the range.
    pub fn contains(&self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }

    /// The keys that both ranges have, if there are any.
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start <= end).then_some(Self { start, end })
    }

    /// The ring in `count` ranges as AWS divides it: each `floor(2^128 / count)` wide, the last
    /// takes the rest.
    ///
    /// # Panics
    /// If `count` is 0.
    ///
    /// ```
    /// use millstream::{HashKey, HashKeyRange};
    ///
    /// let ranges = HashKeyRange::even(3);
    /// assert_eq!(ranges[1].start.to_string(), "113427455640312821154458202477256070485");
    /// assert_eq!(ranges[2].end, HashKey::MAX);
    /// ```
    pub fn even(count: u32) -> Vec<Self> {
        assert!(count > 0, "a ring is divided in at least one range");
        let count = u128::from(count);
        // floor(2^128 / count), by way of 2^128 - 1, which a u128 can hold; of one range the width
        // itself would not fit, and is not used.
        let exact = u128::MAX % count == count - 1;
        let width = (u128::MAX / count).wrapping_add(u128::from(exact));
        (0..count)
            .map(|i| Self {
                start: HashKey(i * width),
                end: HashKey(if i + 1 == count { u128::MAX } else { (i + 1) * width - 1 }),
            })
            .collect()
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

/// How a stream hashes partition keys; chosen when the stream is created, for good.
///
/// ```
/// use millstream::{HashAlgorithm, HashKeyRange};
///
/// let hash_key = HashAlgorithm::default().hash("customer-7");
/// // Which of the four shards of a new stream gets the records of this customer.
/// let shard = HashKeyRange::even(4).iter().position(|range| range.contains(hash_key));
/// assert_eq!(shard, Some(0));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashAlgorithm {
    /// XXH3, 128 bits: the default, about 3 ns for a short key.
    #[default]
    Xxh3_128,
    /// MD5 read as a big-endian number, as AWS Kinesis does: the same placement as there.
    #[cfg(feature = "md5")]
    Md5,
}

impl HashAlgorithm {
    /// The hash key of a partition key.
    pub fn hash(self, partition_key: &str) -> HashKey {
        self.hash_key(Key::new(partition_key))
    }

    /// As `hash`, of a key whose XXH3 is known.
    #[inline]
    pub(crate) fn hash_key(self, key: Key<'_>) -> HashKey {
        match self {
            Self::Xxh3_128 => HashKey(key.xxh3),
            #[cfg(feature = "md5")]
            Self::Md5 => {
                use md5::Digest;
                HashKey(u128::from_be_bytes(md5::Md5::digest(key.text).into()))
            }
        }
    }

    /// The name that stands in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xxh3_128 => "Xxh3_128",
            #[cfg(feature = "md5")]
            Self::Md5 => "Md5",
        }
    }

    /// The algorithm of that name, if this build has it.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "Xxh3_128" => Some(Self::Xxh3_128),
            #[cfg(feature = "md5")]
            "Md5" => Some(Self::Md5),
            _ => None,
        }
    }
}
