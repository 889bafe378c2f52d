//! The manifest: what a stream is, in lines of text that a person can read.
//!
//! ```text
//! millstream 1
//! stream 9f86d081884c7d65
//! hash Xxh3_128
//! max-record-bytes 1048576
//! max-segment-bytes 67108864
//! next-shard 3
//! max-open-shards 64
//! tag team=billing
//! retention age-ms 86400000 bytes - records - when-full drop-oldest hold-for -
//! shard 0 keys 0..=3402...1455 start 0 end 8224 parents - opened 1735689 closed 1735693
//! shard 1 keys 0..=1 start 12288 end - parents 0 opened 1735693 closed -
//! shard 2 keys 2..=3402...1455 start 12288 end - parents 0 opened 1735693 closed -
//! trimmed 0 through 4096 base 0 frames 0
//! crc32 1c291ca3
//! ```
//!
//! The last line is the CRC-32 of all lines above it. The file is only ever replaced whole. Lines
//! that have nothing to say are left out.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::format::line::{Fields, escape, unescape};
use crate::format::retention;
use crate::hash_key::{HashKey, HashKeyRange};
use crate::lineage::ShardInfo;
use crate::position::{MAX_NUMBER, SequenceNumber, ShardId};
use crate::record::{MAX_OPEN_SHARDS, MAX_RECORD_BYTES};
use crate::retention::Retention;

/// The largest that a segment can be set to: 1 GiB.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 1 << 30;

/// No stream has made more shards than so many.
pub(crate) const MAX_SHARDS: u32 = u32::MAX / 2;

const FIRST_LINE: &str = "millstream 1";

/// What a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// The stream's random identity.
    pub(crate) stream: u64,
    /// The name of the hash algorithm, which this build may not have.
    pub(crate) hash: String,
    pub(crate) max_record_bytes: usize,
    pub(crate) max_segment_bytes: u64,
    /// The index of the next shard that is made; larger than any there ever was.
    pub(crate) next_shard: u32,
    /// The most open shards, if that is set.
    pub(crate) max_open_shards: Option<u32>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) retention: Retention,
    /// By rising id.
    pub(crate) shards: Vec<ShardInfo>,
    /// What is gone of the shards of which something is.
    pub(crate) trimmed: BTreeMap<ShardId, Trimmed>,
}

/// What is gone of a shard; it only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trimmed {
    /// Records up to and with this number are not there any more. (No record has the number 0.)
    pub(crate) through: u64,
    /// The address behind the last segment that was removed: no number below it is given out again.
    pub(crate) base: u64,
    /// How many frames were claimed below `base`.
    pub(crate) frames: u64,
}

impl Manifest {
    /// How many shards may be open at the same time.
    pub(crate) fn max_open_shards(&self) -> u32 {
        self.max_open_shards.unwrap_or(MAX_OPEN_SHARDS)
    }

    /// Whether a shard is closed and nothing is left of it.
    pub(crate) fn is_expired(&self, shard: &ShardInfo) -> bool {
        let base = self.trimmed.get(&shard.id).map(|trimmed| trimmed.base.into());
        shard.ending_sequence_number.is_some_and(|end| base.is_some_and(|base| end <= base))
    }

    /// The manifest's text.
    pub(crate) fn encode(&self) -> String {
        let mut text = format!(
            "{FIRST_LINE}\nstream {:016x}\nhash {}\nmax-record-bytes {}\nmax-segment-bytes {}\n\
             next-shard {}\n",
            self.stream, self.hash, self.max_record_bytes, self.max_segment_bytes, self.next_shard
        );
        if let Some(max) = self.max_open_shards {
            let _ = writeln!(text, "max-open-shards {max}");
        }
        for (key, value) in &self.tags {
            let _ = writeln!(text, "tag {}={}", escape(key), escape(value));
        }
        if self.retention != Retention::default() {
            let _ = writeln!(text, "{}", retention::encode(&self.retention));
        }
        for shard in &self.shards {
            let parents: Vec<_> = shard.parents().map(|id| id.index().to_string()).collect();
            let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
            let _ = writeln!(
                text,
                "shard {} keys {} start {} end {} parents {} opened {} closed {}",
                shard.id.index(),
                shard.hash_key_range,
                shard.starting_sequence_number,
                or_none(shard.ending_sequence_number.map(|end| end.to_string())),
                or_none((!parents.is_empty()).then(|| parents.join("+"))),
                shard.opened_ms,
                or_none(shard.closed_ms.map(|ms| ms.to_string())),
            );
        }
        for (shard, Trimmed { through, base, frames }) in &self.trimmed {
            let shard = shard.index();
            let _ = writeln!(text, "trimmed {shard} through {through} base {base} frames {frames}");
        }
        let _ = writeln!(text, "crc32 {:08x}", crc32fast::hash(text.as_bytes()));
        text
    }

    /// Reads a manifest and checks it in itself.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, (u64, String)> {
        let body = checked_body(bytes).map_err(|what| (0, what.to_owned()))?;
        let mut offset = 0;
        let mut lines = body.lines();
        let mut next = |name: &str| -> Result<Fields<'_>, (u64, String)> {
            let line =
                lines.next().ok_or_else(|| (offset, format!("the line {name} is missing")))?;
            let fields = Fields::of(line, offset);
            offset += line.len() as u64 + 1;
            Ok(fields)
        };
        let mut first = next("millstream")?;
        first.name("millstream")?;
        if first.value::<u32>()? != 1 {
            return Err((0, "its format version is not 1".into()));
        }
        let mut manifest = Self {
            stream: u64::from_str_radix(next("stream")?.named("stream")?, 16)
                .map_err(|e| (0, format!("the stream's identity: {e}")))?,
            hash: next("hash")?.named("hash")?.to_owned(),
            max_record_bytes: next("max-record-bytes")?.named_value("max-record-bytes")?,
            max_segment_bytes: next("max-segment-bytes")?.named_value("max-segment-bytes")?,
            next_shard: next("next-shard")?.named_value("next-shard")?,
            max_open_shards: None,
            tags: BTreeMap::new(),
            retention: Retention::default(),
            shards: Vec::new(),
            trimmed: BTreeMap::new(),
        };
        while let Ok(line) = next("shard") {
            manifest.add(line)?;
        }
        if manifest.max_record_bytes > MAX_RECORD_BYTES
            || manifest.max_segment_bytes > MAX_SEGMENT_BYTES
            || manifest.next_shard > MAX_SHARDS
        {
            return Err((0, "it sets more than there can be".into()));
        }
        manifest.check_lineage().map_err(|what| (0, what))?;
        Ok(manifest)
    }

    /// Takes in one of the lines that there may be none or any number of.
    fn add(&mut self, mut line: Fields<'_>) -> Result<(), (u64, String)> {
        match line.first() {
            Some("max-open-shards") => {
                self.max_open_shards = Some(line.named_value("max-open-shards")?);
            }
            Some("tag") => {
                line.name("tag")?;
                let (key, value) = line.tag()?;
                self.tags.insert(key, value);
            }
            Some("retention") => self.retention = retention::decode(line)?,
            Some("trimmed") => {
                let (shard, trimmed) = line.trimmed()?;
                self.trimmed.insert(shard, trimmed);
            }
            _ => self.shards.push(line.shard()?),
        }
        Ok(())
    }

    /// Whether ids rise, parents come before their children, and every hash key has exactly one
    /// open shard.
    fn check_lineage(&self) -> Result<(), String> {
        let ids = self.shards.iter().map(|shard| shard.id.index());
        if !ids.clone().chain([self.next_shard]).is_sorted_by(|a, b| a < b) {
            return Err("the shard ids do not rise".into());
        }
        for shard in &self.shards {
            if shard.parents().any(|parent| parent >= shard.id) {
                return Err(format!("{} is older than its parent", shard.id));
            }
            if shard.ending_sequence_number.is_some_and(|end| end < shard.starting_sequence_number)
            {
                return Err(format!("{} ends before it begins", shard.id));
            }
        }
        for (shard, trimmed) in &self.trimmed {
            let is_known = self.shards.iter().any(|info| info.id == *shard);
            let highest = trimmed.through.max(trimmed.base).max(trimmed.frames);
            if !is_known || !trimmed.base.is_multiple_of(4096) || highest >= MAX_NUMBER {
                return Err(format!("nobody can have trimmed that of {shard}"));
            }
        }
        let mut open: Vec<_> =
            self.shards.iter().filter(|shard| shard.is_open()).map(|s| s.hash_key_range).collect();
        open.sort_unstable();
        let mut expected = Some(HashKey::MIN);
        for range in open {
            if expected != Some(range.start) || range.end < range.start {
                return Err(format!("the open shards overlap, or leave a gap, before {range}"));
            }
            expected = range.end.get().checked_add(1).map(HashKey::new);
        }
        match expected {
            None => Ok(()),
            Some(key) => Err(format!("no open shard has the hash key {key}")),
        }
    }
}

/// The text above the line with the checksum, if the checksum holds.
fn checked_body(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let last = text.rfind("crc32 ").ok_or("it has no checksum")?;
    let (body, checksum) = text.split_at(last);
    if checksum == format!("crc32 {:08x}\n", crc32fast::hash(body.as_bytes())) {
        Ok(body)
    } else {
        Err("its checksum does not hold")
    }
}

impl Fields<'_> {
    /// The line that says what is gone of a shard.
    fn trimmed(mut self) -> Result<(ShardId, Trimmed), (u64, String)> {
        self.name("trimmed")?;
        let shard = ShardId::new(self.value()?);
        let mut number = |name| {
            self.name(name)?;
            self.value()
        };
        let (through, base, frames) = (number("through")?, number("base")?, number("frames")?);
        Ok((shard, Trimmed { through, base, frames }))
    }

    /// A key and its value.
    fn tag(&mut self) -> Result<(String, String), (u64, String)> {
        let field = self.field()?;
        let tag = field.split_once('=');
        let tag = tag.and_then(|(key, value)| Some((unescape(key)?, unescape(value)?)));
        tag.ok_or_else(|| self.wrong(format!("{field:?} is no tag")))
    }

    /// The line of a shard.
    fn shard(mut self) -> Result<ShardInfo, (u64, String)> {
        self.name("shard")?;
        let id = ShardId::new(self.value()?);
        self.name("keys")?;
        let keys = self.field()?;
        let hash_key_range = keys
            .split_once("..=")
            .and_then(|(start, end)| Some((start.parse().ok()?, end.parse().ok()?)))
            .map(|(start, end)| HashKeyRange { start, end })
            .ok_or_else(|| self.wrong(format!("{keys:?} is no range of hash keys")))?;
        self.name("start")?;
        let starting_sequence_number: SequenceNumber = self.value()?;
        self.name("end")?;
        let ending_sequence_number: Option<SequenceNumber> = self.optional()?;
        self.name("parents")?;
        let parents = self.optional::<String>()?.unwrap_or_default();
        let mut parents = parents.split('+').filter(|parent| !parent.is_empty()).map(|parent| {
            parent.parse().map(ShardId::new).map_err(|e| self.wrong(format!("{parent:?}: {e}")))
        });
        let (parent, adjacent_parent) = (parents.next().transpose()?, parents.next().transpose()?);
        drop(parents);
        // Earlier versions did not say when; then it was long ago.
        let opened_ms = self.appended("opened")?.unwrap_or(0);
        let long_ago = ending_sequence_number.map(|_| 0);
        let closed_ms = self.appended("closed")?.or(long_ago);
        Ok(ShardInfo {
            id,
            hash_key_range,
            parent,
            adjacent_parent,
            starting_sequence_number,
            ending_sequence_number,
            opened_ms,
            closed_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shard(id: u32, start: u128, end: u128, parent: Option<u32>, closed: bool) -> ShardInfo {
        ShardInfo {
            id: ShardId::new(id),
            hash_key_range: HashKeyRange { start: HashKey::new(start), end: HashKey::new(end) },
            parent: parent.map(ShardId::new),
            adjacent_parent: None,
            starting_sequence_number: 0.into(),
            ending_sequence_number: closed.then(|| 96.into()),
            opened_ms: 5,
            closed_ms: closed.then_some(7),
        }
    }

    fn manifest() -> Manifest {
        Manifest {
            stream: 0x1234,
            hash: "Xxh3_128".into(),
            max_record_bytes: 1,
            max_segment_bytes: 2,
            next_shard: 3,
            max_open_shards: Some(4),
            tags: [("a key = \u{e9}%\n", ""), ("team", "billing")]
                .map(|(key, value)| (key.into(), value.into()))
                .into(),
            retention: Retention::default().age(Duration::from_secs(1)).hold_for(["a", "b"]),
            shards: vec![
                shard(0, 0, u128::MAX, None, true),
                shard(1, 0, 1, Some(0), false),
                shard(2, 2, u128::MAX, Some(0), false),
            ],
            trimmed: [(ShardId::new(0), Trimmed { through: 64, base: 4096, frames: 1 })].into(),
        }
    }

    #[test]
    fn the_manual_names_every_line() {
        let manual = include_str!("../manual/format.md");
        for line in manifest().encode().lines() {
            let name = line.split(' ').next().unwrap();
            assert!(manual.contains(&format!("| `{name}` |")), "{name}");
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        assert_eq!(Manifest::decode(manifest().encode().as_bytes()), Ok(manifest()));
    }

    #[test]
    fn lines_that_earlier_versions_did_not_write_may_be_missing() {
        let text = manifest().encode().replace(" opened 5", "").replace(" closed 7", "");
        let text = text.replace(" closed -", "");
        let lines = text.lines().filter(|line| {
            !["max-open-shards", "tag", "retention", "trimmed", "crc32"]
                .contains(&line.split(' ').next().unwrap())
        });
        let body: String = lines.map(|line| format!("{line}\n")).collect();
        let text = format!("{body}crc32 {:08x}\n", crc32fast::hash(body.as_bytes()));
        let mut expected = manifest();
        (expected.max_open_shards, expected.tags) = (None, BTreeMap::new());
        (expected.retention, expected.trimmed) = (Retention::default(), BTreeMap::new());
        for shard in &mut expected.shards {
            (shard.opened_ms, shard.closed_ms) = (0, shard.closed_ms.map(|_| 0));
        }
        assert_eq!(Manifest::decode(text.as_bytes()), Ok(expected));
    }

    #[test]
    fn what_nobody_can_have_trimmed_is_refused() {
        for (shard, through, base) in [(9, 0, 0), (0, MAX_NUMBER, 0), (0, 0, 33), (0, 0, 1 << 62)] {
            let trimmed = Trimmed { through, base, frames: 0 };
            let trimmed = [(ShardId::new(shard), trimmed)].into();
            let text = Manifest { trimmed, ..manifest() }.encode();
            assert!(Manifest::decode(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_manifest_is_noticed() {
        let mut bytes = manifest().encode().into_bytes();
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut to {len} bytes");
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&bytes).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn open_shards_that_do_not_cover_the_ring_exactly_once_are_refused() {
        for (start, end) in [(3, u128::MAX), (1, u128::MAX), (2, 7)] {
            let mut manifest = manifest();
            manifest.shards[2] = shard(2, start, end, Some(0), false);
            assert!(Manifest::decode(manifest.encode().as_bytes()).is_err(), "{start}..={end}");
        }
    }
}
