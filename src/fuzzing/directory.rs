//! Whole files and directories, with anything in them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use super::{Scratch, options, repair_frame, repair_row};
use crate::batch::Batch;
use crate::error::Result;
use crate::format::put;
use crate::format::segment_header::{SEAL_AT, SEAL_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::hash_key::HashKey;
use crate::position::{ShardId, StartingPosition};
use crate::record::{Durability, Key, Limit, PutRecord};
use crate::repair::{plan_repair, repair};
use crate::shard::cursor::Place;
use crate::shard::index::Index;
use crate::shard::{Log, Shard};
use crate::stream::Stream;
use crate::verify::verify;
use crate::worker::{Checkpointer, ProcessorError, WorkerPool};

const PAGE: usize = SEGMENT_HEADER_LEN as usize;
/// So many bytes of a segment are enough.
const MAX_SEGMENT: usize = 64 << 10;

/// A shard of one segment: read by others, recovered, gone on with.
pub fn segment(input: &[u8]) {
    let (repair, rest) = options(input);
    let mut bytes = rest[..rest.len().min(MAX_SEGMENT)].to_vec();
    bytes.resize(bytes.len().next_multiple_of(PAGE).max(2 * PAGE), 0);
    if repair {
        let salt = 7;
        let (stream, shard, base, capacity) = (1, 2, 0, bytes.len() as u64);
        let recovered = Vec::new();
        let header = SegmentHeader { stream, shard, salt, base, capacity, recovered };
        put(&mut bytes, 0..SEAL_AT as usize, &header.encode()[..SEAL_AT as usize]);
        let crc = {
            let seal = &bytes[SEAL_AT as usize..(SEAL_AT + SEAL_LEN) as usize];
            let kind = crate::format::u32_at(seal, 0);
            let mut hasher = crc32fast::Hasher::new_with_initial(salt ^ kind);
            hasher.update(&seal[8..]);
            hasher.finalize()
        };
        let crc_at = SEAL_AT as usize + 4;
        put(&mut bytes, crc_at..crc_at + 4, &crc.to_le_bytes());
        repair_frame(&mut bytes[PAGE..], u64::from(SEGMENT_HEADER_LEN), salt);
    }
    let scratch = Scratch::new();
    let name = crate::shard::segment::file_name(0);
    fs::write(scratch.0.join(name), &bytes).expect("there is room");
    let log = || Log {
        shard: ShardId::new(2),
        stream: 1,
        directory: scratch.0.clone(),
        start: 0,
        max_segment_bytes: MAX_SEGMENT as u64,
        room: Default::default(),
        horizon: Default::default(),
        index: Index::default(),
    };
    let _ = Shard::open_read_only(log()).and_then(|shard| look(&shard));
    let _ = Shard::open(log()).and_then(|shard| {
        let before = look(&shard);
        let appended = shard.append(Key::new("key"), b"data", 1)?;
        let at = Place { address: appended.address, segment: None };
        assert_eq!(shard.read(&at, Limit::records(1))?.records.len(), 1, "what is put is there");
        if let Ok(before) = before {
            assert_eq!(look(&shard)?, before + 1, "and what was there before");
        }
        shard.close()
    });
    let _ = Shard::open_read_only(log()).and_then(|shard| look(&shard));
}

/// Reads everything in a shard, in every way: how many records there are.
fn look(shard: &Shard) -> Result<usize> {
    let mut place = Place { address: 0, segment: None };
    let mut records = 0;
    loop {
        let reading = shard.read(&place, Limit::records(10))?;
        if reading.records.is_empty() {
            break;
        }
        records += reading.records.len();
        let _ = shard.lag(&reading, u64::MAX);
        assert!(reading.next.address > place.address, "reading gets on");
        place = reading.next;
    }
    shard.tip()?;
    shard.log.find_time(1)?;
    Ok(records)
}

/// The files of a stream in which every kind of file occurs.
fn sound_files() -> &'static [(PathBuf, Vec<u8>)] {
    static FILES: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
    FILES.get_or_init(|| {
        let scratch = Scratch::new();
        let made = make_stream(&scratch.0);
        made.expect("a stream can be made");
        let mut files = Vec::new();
        collect(&scratch.0, &scratch.0, &mut files);
        files.sort();
        files
    })
}

fn make_stream(path: &Path) -> Result<()> {
    let open = || Stream::builder(path).max_segment_bytes(MAX_SEGMENT as u64).open();
    let stream = open()?;
    for n in 0..40u8 {
        stream.put(&n.to_string(), vec![n; 2000])?;
    }
    stream.split_shard(ShardId::new(0), HashKey::new(1 << 127))?;
    stream.put_record(PutRecord::new("key", b"synced").durability(Durability::Sync))?;
    work(&stream)?;
    stream.close()
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let name = path.strip_prefix(root).expect("it is below").to_owned();
            files.push((name, fs::read(path).expect("it can be read")));
        }
    }
}

fn work(stream: &Stream) -> Result<()> {
    let pool = WorkerPool::builder("fuzz", stream).threads(1).start(|_| {
        |_: &Batch, _: &mut Checkpointer<'_>| -> Result<(), ProcessorError> { Ok(()) }
    })?;
    let _ = pool.wait_until_idle(Duration::from_millis(100));
    pool.shutdown(Duration::from_secs(1));
    Ok(())
}

/// A stream whose files were changed: opened in every way, worked on, verified, repaired.
pub fn directory(input: &[u8]) {
    let (repair_sums, mut rest) = options(input);
    let mut files = sound_files().to_vec();
    // An edit: which file, what is done, where, how much.
    while let Some(([which, what, at, at_high, len, value], behind)) = rest.split_first_chunk() {
        rest = behind;
        let which = usize::from(*which) % files.len();
        let (name, bytes) = &mut files[which];
        let at = usize::from(u16::from_le_bytes([*at, *at_high])).min(bytes.len());
        let end = (at + usize::from(*len)).min(bytes.len());
        match what % 6 {
            0 => bytes[at..end].fill(*value),
            1 => bytes.truncate(at),
            2 => bytes.resize(at.max(bytes.len()) + usize::from(*len), *value),
            3 => {
                let new = rest.len().min(end - at);
                bytes[at..at + new].copy_from_slice(&rest[..new]);
                rest = &rest[new..];
            }
            4 => *name = name.with_extension("new"),
            _ => bytes[at..end].reverse(),
        }
        if repair_sums {
            repair_file(name, bytes);
        }
    }
    let scratch = Scratch::new();
    for (name, bytes) in &files {
        let path = scratch.0.join(name);
        fs::create_dir_all(path.parent().expect("it is below")).expect("there is room");
        fs::write(path, bytes).expect("there is room");
    }
    do_everything(&scratch.0);
    if plan_repair(&scratch.0).and_then(|_| repair(&scratch.0)).is_ok() {
        do_everything(&scratch.0);
    }
}

/// Makes the checksum of a changed file hold, as far as one is in its first bytes.
fn repair_file(name: &Path, bytes: &mut Vec<u8>) {
    match name.extension().and_then(|extension| extension.to_str()) {
        Some("seg") if bytes.len() >= PAGE => {
            let crc = crc32fast::hash(&bytes[16..SEAL_AT as usize]);
            put(bytes, 12..16, &crc.to_le_bytes());
        }
        Some("row") => repair_row(bytes),
        None => {
            let body = bytes.len().saturating_sub("crc32 00000000\n".len());
            bytes.truncate(body);
            bytes.extend(format!("crc32 {:08x}\n", crc32fast::hash(bytes)).bytes());
        }
        _ => {}
    }
}

fn do_everything(path: &Path) {
    let _ = verify(path);
    let _ = Stream::open_read_only(path).and_then(|stream| read(&stream));
    let _ = Stream::builder(path).open_existing().and_then(|stream| {
        let _ = read(&stream);
        for key in ["a", "b", "c"] {
            let _ = stream.put(key, b"data");
        }
        let _ = read(&stream);
        let _ = work(&stream);
        stream.close()
    });
}

/// Reads all shards; damage in one does not keep from the others.
fn read(stream: &Stream) -> Result<()> {
    for shard in stream.shards() {
        let _ = stream.describe_shard(shard.id);
        let _ = stream.shard_iterator(shard.id, StartingPosition::AtTimestampMs(1));
        let start = stream.shard_iterator(shard.id, StartingPosition::TrimHorizon)?;
        let mut next = Some(start);
        while let Some(iterator) = next {
            let Ok(page) = stream.get_records(&iterator, Limit::default()) else { break };
            next = page.next_shard_iterator.filter(|_| !page.records.is_empty());
        }
    }
    Ok(())
}
