//! Any sequence of operations, beside a model of what a stream is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::Scratch;
use crate::hash_key::HashKey;
use crate::position::{SequenceNumber, ShardId, StartingPosition};
use crate::record::{Durability, Limit, PutRecord, Receipt};
use crate::stream::Stream;
use crate::verify::verify;

/// Longer stories say no more, and take longer.
const MAX_STEPS: usize = 60;

/// What a stream has: each shard's records by their numbers.
type Model = BTreeMap<ShardId, Vec<(SequenceNumber, Vec<u8>)>>;

/// Puts, batches, reshards, restarts and kills; what is read is always what the model has.
pub fn operations(input: &[u8]) {
    let mut scratch = Scratch::new();
    let mut stream = open(&scratch.0);
    let mut model = Model::new();
    for step in input.chunks_exact(3).take(MAX_STEPS) {
        let (operation, key, len) = (step[0] % 10, step[1], usize::from(step[2]) * 37);
        match operation {
            0..=3 => {
                let durability = [Durability::Os, Durability::Sync][usize::from(operation / 3)];
                let data = vec![key; len];
                let text = key.to_string();
                let record = PutRecord::new(&text, &data).durability(durability);
                let receipt = stream.put_record(record).expect("it can be put");
                note(&mut model, receipt, data);
            }
            4 => {
                let records: Vec<_> = (0..key % 8).map(|n| (n.to_string(), vec![n; len])).collect();
                let results = stream.put_batch(records.iter().map(|(key, data)| (key, data)));
                for ((_, data), result) in records.iter().zip(results) {
                    let receipt = result.expect("it can be put");
                    note(&mut model, receipt, data.clone());
                }
            }
            5 => reshape(&stream, key, step[2]),
            6 => {
                stream.close().expect("it can be closed");
                stream = open(&scratch.0);
            }
            7 => {
                let copy = Scratch::new();
                copy_all(&scratch.0, &copy.0);
                drop(stream);
                stream = open(&copy.0);
                scratch = copy;
            }
            8 => stream.flush().expect("it can be flushed"),
            _ => check(&stream, &model),
        }
    }
    check(&stream, &model);
    let reader = Stream::open_read_only(&scratch.0).expect("it can be opened");
    check(&reader, &model);
    stream.close().expect("it can be closed");
    assert!(verify(&scratch.0).expect("it can be verified").is_intact());
}

fn open(path: &Path) -> Stream {
    let stream = Stream::builder(path).shards(2).max_segment_bytes(64 << 10).open();
    stream.expect("it can be opened")
}

fn note(model: &mut Model, receipt: Receipt, data: Vec<u8>) {
    let records = model.entry(receipt.shard).or_default();
    let last = records.last().map(|(number, _)| *number);
    assert!(last < Some(receipt.sequence_number), "numbers rise");
    records.push((receipt.sequence_number, data));
}

/// Splits a shard or merges two, if that is possible.
fn reshape(stream: &Stream, which: u8, at: u8) {
    let mut open: Vec<_> = stream.shards().into_iter().filter(|shard| shard.is_open()).collect();
    open.sort_by_key(|shard| shard.hash_key_range.start);
    let shard = usize::from(which) % open.len();
    if at < 128 && open.len() < 8 {
        let range = open[shard].hash_key_range;
        let part = (range.end.get() - range.start.get()) / 256;
        let key = HashKey::new(range.start.get() + part * (64 + u128::from(at)));
        let _ = stream.split_shard(open[shard].id, key);
    } else if shard + 1 < open.len() {
        stream.merge_shards(open[shard].id, open[shard + 1].id).expect("they are adjacent");
    }
}

fn check(stream: &Stream, model: &Model) {
    for shard in stream.shards() {
        let expected = model.get(&shard.id).map_or(&[][..], Vec::as_slice);
        let start = stream.shard_iterator(shard.id, StartingPosition::TrimHorizon);
        let mut next = Some(start.expect("it is there"));
        let mut found = Vec::new();
        while let Some(iterator) = next {
            let page = stream.get_records(&iterator, Limit::records(7)).expect("it can be read");
            found.extend(page.records.iter().map(|it| (it.sequence_number(), it.data().to_vec())));
            next = page.next_shard_iterator.filter(|_| !page.records.is_empty());
        }
        assert!(found == expected, "{} records of {} expected", found.len(), expected.len());
    }
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("there is room");
    for entry in fs::read_dir(from).expect("it is there").flatten() {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            // A segment in the making may have got its name meanwhile.
            let _ = fs::copy(entry.path(), to);
        }
    }
}
