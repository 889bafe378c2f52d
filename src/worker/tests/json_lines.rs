//! Files of JSON lines: what is in them, when they are complete, and what a kill leaves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use super::*;
use crate::os::clock::Ticker;
use crate::position::StartingPosition;
use crate::stream::Stream;
use crate::worker::emit::{Emitter, JsonLine, JsonLines};

const S0: ShardId = ShardId::new(0);
const SECOND: Duration = Duration::from_secs(1);

/// A stream, and a directory for files.
struct Files {
    directory: TempDir,
    stream: Stream,
    ticker: Ticker,
}

impl Files {
    /// With records of one key that have these data.
    fn of(data: &[&[u8]]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let stream = Stream::builder(directory.path().join("stream")).open().unwrap();
        for data in data {
            stream.put("k", data).unwrap();
        }
        Self { directory, stream, ticker: Ticker::given() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    fn records(&self) -> Batch {
        let from = self.stream.shard_iterator(S0, StartingPosition::TrimHorizon).unwrap();
        self.stream.get_records(&from, Limit::default()).unwrap().records
    }

    /// The number of the record at this place, as a checkpoint behind it.
    fn behind(&self, place: Option<usize>) -> Checkpoint {
        let number = |place| self.records().get(place).unwrap().sequence_number();
        place.map_or(Checkpoint::TrimHorizon, |it| Checkpoint::AfterSequenceNumber(number(it)))
    }

    /// One that begins behind this checkpoint.
    fn begin(&self, checkpoint: Checkpoint) -> JsonLines {
        let mut files = JsonLines::new(self.path()).ticker(&self.ticker);
        let shard = self.stream.shards().remove(0);
        let (stream, lane, pending, attempt) = ("data/orders".into(), 0, None, 1);
        let initialization = Initialization { stream, shard, lane, checkpoint, pending, attempt };
        files.initialize(&initialization).unwrap();
        files
    }

    /// The records at these places as items.
    fn items(&self, to: &mut JsonLines, places: std::ops::Range<usize>) -> Vec<JsonLine> {
        let records = self.records();
        let item = |place| to.transform(&records.get(place).unwrap()).unwrap().unwrap();
        places.map(item).collect()
    }

    fn emit(&self, to: &mut JsonLines, places: std::ops::Range<usize>) {
        let items = self.items(to, places);
        assert!(to.emit(items).unwrap().is_empty());
    }

    /// What is there: names and contents.
    fn there(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        entries.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
    }

    /// The data of all complete lines, and how many files there are.
    fn complete(&self) -> (Vec<String>, usize) {
        let mut files = self.there();
        files.retain(|name, _| name.ends_with(".jsonl"));
        let data = |line: &str| line.rsplit('"').nth(1).unwrap().to_owned();
        let lines = files.values().flat_map(|text| text.lines());
        let mut data: Vec<_> = lines.map(data).collect();
        data.sort();
        (data, files.len())
    }
}

#[test]
fn a_line_says_where_the_record_is_from_and_its_data_as_text_or_base64() {
    let text = "a \"b\" \\ \n\r\t \u{1} ä \u{1f600}";
    let files = Files::of(&[text.as_bytes(), b"\xff\0", b"\xff\xfe\xfd\xfc", b""]);
    let mut to = files.begin(Checkpoint::TrimHorizon);
    files.emit(&mut to, 0..4);
    to.finish().unwrap();
    let there = files.there();
    let (name, lines) = there.first_key_value().unwrap();
    let first = files.records().get(0).unwrap().sequence_number();
    assert_eq!(*name, format!("{S0}-{first}.jsonl"));
    let tails = [
        r#""data":"a \"b\" \\ \n\r\t \u0001 ä 😀"}"#,
        r#""data_base64":"/wA="}"#,
        r#""data_base64":"//79/A=="}"#,
        r#""data":""}"#,
    ];
    for ((record, line), tail) in files.records().iter().zip(lines.lines()).zip(tails) {
        let (number, ms) = (record.sequence_number(), record.arrival_ms());
        let head = format!(r#"{{"shard":"{S0}","sequence_number":"{number}","arrival_ms":{ms},"#);
        assert_eq!(line, format!(r#"{head}"partition_key":"k",{tail}"#));
    }
    assert!(lines.ends_with("}\n"));
}

#[test]
fn a_file_is_complete_when_it_is_large_enough_and_checkpointed() {
    let files = Files::of(&[b"0", b"1", b"2"]);
    let mut to = files.begin(Checkpoint::TrimHorizon).max_bytes(1);
    files.emit(&mut to, 0..2);
    assert_eq!(files.complete().1, 0, "it may come again");
    to.checkpointed().unwrap();
    assert_eq!(files.complete(), (vec!["0".into(), "1".into()], 1));
    files.emit(&mut to, 2..3);
    to.checkpointed().unwrap();
    assert_eq!(files.complete().1, 2);
}

#[test]
fn a_file_is_complete_when_it_is_old_enough_though_nothing_comes() {
    let files = Files::of(&[b"0"]);
    let mut to = files.begin(Checkpoint::TrimHorizon).max_age(SECOND);
    assert_eq!(to.idle().unwrap(), None);
    files.emit(&mut to, 0..1);
    to.checkpointed().unwrap();
    assert_eq!(to.idle().unwrap(), Some(SECOND));
    files.ticker.advance(SECOND);
    assert_eq!(to.idle().unwrap(), None);
    assert_eq!(files.complete().1, 1);
}

#[test]
fn killed_at_any_byte_each_record_is_in_a_complete_file_once() {
    let data: [&[u8]; 3] = [b"0", b"1", b"2"];
    let files = Files::of(&data);
    let mut to = files.begin(Checkpoint::TrimHorizon);
    files.emit(&mut to, 0..3);
    let path = files.path().join(files.there().first_key_value().unwrap().0);
    let whole = fs::read_to_string(&path).unwrap();
    for cut in 0..=whole.len() {
        let written = whole[..cut].matches('\n').count();
        // What is written may be checkpointed or not.
        for checkpointed in 0..=written {
            fs::remove_dir_all(files.path()).unwrap();
            fs::create_dir(files.path()).unwrap();
            fs::write(&path, &whole[..cut]).unwrap();
            fs::write(path.with_extension("new"), "half").unwrap();
            let mut next = files.begin(files.behind(checkpointed.checked_sub(1)));
            files.emit(&mut next, checkpointed..3);
            next.finish().unwrap();
            assert_eq!(files.complete().0, ["0", "1", "2"], "cut at {cut}, {checkpointed}");
            assert_eq!(files.there().len(), files.complete().1, "nothing else is left");
        }
    }
}

#[test]
fn one_that_has_lost_the_shard_and_does_not_know_spoils_nothing() {
    let files = Files::of(&[b"0", b"1", b"2"]);
    let mut old = files.begin(Checkpoint::TrimHorizon);
    files.emit(&mut old, 0..1);
    let mut new = files.begin(files.behind(Some(0)));
    files.emit(&mut new, 1..2);
    files.emit(&mut old, 1..3);
    old.finish().unwrap_err();
    files.emit(&mut new, 2..3);
    new.finish().unwrap();
    assert_eq!(files.complete().0, ["0", "1", "2"]);
}

#[test]
fn a_rewind_writes_what_comes_again_into_files_of_its_own() {
    let files = Files::of(&[b"0"]);
    for _ in 0..3 {
        let mut to = files.begin(Checkpoint::TrimHorizon);
        files.emit(&mut to, 0..1);
        to.finish().unwrap();
    }
    assert_eq!(files.complete(), (vec!["0".into(), "0".into(), "0".into()], 3));
    assert!(files.there().keys().any(|name| name.ends_with("-2.jsonl")));
}

#[test]
fn files_of_other_shards_and_of_others_are_left_alone() {
    let files = Files::of(&[b"0"]);
    fs::create_dir(files.path()).unwrap();
    for name in ["shardId-000000000001-7.00.part", "notes.part", "notes.txt"] {
        fs::File::create(files.path().join(name)).unwrap().write_all(b"kept").unwrap();
    }
    files.begin(Checkpoint::TrimHorizon);
    assert_eq!(files.there().len(), 3);
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_and_emits_nothing() {
    let files = Files::of(&[b"0"]);
    let mut to = files.begin(Checkpoint::TrimHorizon);
    fs::remove_dir(files.path()).unwrap();
    let items = files.items(&mut to, 0..1);
    to.emit(items).unwrap_err();
}
