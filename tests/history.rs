//! The checker of histories finds each anomaly, and nothing in a sound history.

mod common;

use common::event::{Event, data, partition_key};
use common::history::{Anomaly, History};
use common::{S0, S1, S2};
use millstream::{HashAlgorithm, HashKey, HashKeyRange, ShardId, ShardInfo, Stream};

/// The shards of a stream that was split once, the second half made smaller if told to.
fn shards() -> Vec<ShardInfo> {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).create().unwrap();
    stream.split_shard(S0, HashKey::new(1 << 127)).unwrap();
    stream.shards()
}

/// A record as it is found.
type Found = (ShardId, u64, u32, u64);

/// A story: what happened, and what is found in the end.
#[derive(Clone, Default)]
struct Story {
    events: Vec<Event>,
    found: Vec<Found>,
}

/// The n-th record of key 7 in the first shard.
fn first(n: u64) -> Found {
    (S0, 4096 + n * 64, 7, n)
}

fn acknowledged((shard, number, key, n): Found, is_durable: bool) -> Event {
    Event::Acknowledged { key, n, shard, number, is_durable }
}

impl Story {
    /// Three records are put and acknowledged; the first two are processed and checkpointed.
    fn new() -> Self {
        let mut story = Self { events: vec![Event::Opened], found: (0..3).map(first).collect() };
        for n in 0..3 {
            story.events.extend([Event::Put { key: 7, n }, acknowledged(first(n), n == 0)]);
        }
        let numbers = vec![first(0).1, first(1).1];
        story.then(&[
            Event::Started { shard: S0, after: None },
            Event::Got { shard: S0, numbers },
            Event::Processed { shard: S0 },
            Event::Checkpointed { shard: S0, number: first(1).1 },
        ])
    }

    fn then(mut self, events: &[Event]) -> Self {
        self.events.extend_from_slice(events);
        self
    }

    fn killed(self) -> Self {
        self.then(&[Event::Cut { power: false }])
    }

    fn find(mut self, found: &[Found]) -> Self {
        self.found = found.to_vec();
        self
    }

    fn tell(&self, history: &mut History) {
        for event in &self.events {
            // As the torture hears of it.
            history.add(&event.line().parse().unwrap());
        }
        let shards = shards();
        history.begin_scan(shards.clone());
        for (id, number, key, n) in &self.found {
            let shard = shards.iter().find(|shard| shard.id == *id).unwrap();
            history.record(shard, *number, &partition_key(*key), &data(*key, *n));
        }
        history.end_scan();
    }

    /// The anomalies in it.
    fn anomalies(&self) -> Vec<Anomaly> {
        let mut history = History::new(HashAlgorithm::default());
        self.tell(&mut history);
        history.anomalies.iter().map(|(anomaly, _)| *anomaly).collect()
    }
}

#[track_caller]
fn finds(anomaly: Anomaly, story: &Story) {
    assert!(story.anomalies().contains(&anomaly), "{anomaly:?}: {:?}", story.anomalies());
}

#[test]
fn a_sound_history_has_no_anomalies() {
    assert_eq!(Story::new().killed().anomalies(), []);
    // What was not acknowledged may be there or not.
    let story = Story::new().then(&[Event::Put { key: 7, n: 3 }]).killed();
    assert_eq!(story.anomalies(), []);
    let found: Vec<_> = (0..4).map(first).collect();
    assert_eq!(story.find(&found).anomalies(), []);
    // A power cut may take what was not durable, and its deliveries and checkpoints with it.
    let cut = Story::new().then(&[Event::Cut { power: true }]).find(&[first(0)]);
    assert_eq!(cut.anomalies(), []);
    let again = cut.then(&[Event::Started { shard: S0, after: None }]);
    assert_eq!(again.anomalies(), []);
}

#[test]
fn a_lost_write_is_found() {
    finds(Anomaly::LostWrite, &Story::new().killed().find(&[first(0), first(2)]));
    // Also after a power cut, if it was durable; and what is before a durable one is durable.
    let story = Story::new().then(&[Event::Cut { power: true }]);
    finds(Anomaly::LostWrite, &story.find(&[first(1), first(2)]));
    let later = acknowledged(first(2), true);
    let story = Story::new().then(&[later, Event::Cut { power: true }]);
    finds(Anomaly::LostWrite, &story.find(&[first(0), first(2)]));
}

#[test]
fn a_phantom_is_found() {
    let mut found: Vec<_> = (0..3).map(first).collect();
    found.push(first(3));
    let story = Story::new().killed().find(&found);
    finds(Anomaly::Phantom, &story);
    // What was gone must not come back.
    let mut history = History::new(HashAlgorithm::default());
    Story::new().then(&[Event::Put { key: 7, n: 3 }]).killed().tell(&mut history);
    assert!(history.anomalies.is_empty());
    Story { events: Vec::new(), found }.tell(&mut history);
    assert!(history.anomalies.iter().any(|(anomaly, _)| *anomaly == Anomaly::Phantom));
}

#[test]
fn a_duplicate_is_found() {
    let mut found: Vec<_> = (0..3).map(first).collect();
    found.push((S0, 8192, 7, 2));
    finds(Anomaly::Duplicate, &Story::new().killed().find(&found));
}

#[test]
fn reordered_records_are_found() {
    let put = |n| Event::Put { key: 9, n };
    let found: Vec<_> = (0..3).map(first).chain([(S0, 8192, 9, 1), (S0, 8256, 9, 0)]).collect();
    finds(Anomaly::Reordered, &Story::new().then(&[put(0), put(1)]).killed().find(&found));
}

#[test]
fn a_number_other_than_the_acknowledged_one_is_found() {
    let found = [first(0), first(1), (S0, 8192, 7, 2)];
    finds(Anomaly::InconsistentNumber, &Story::new().killed().find(&found));
}

#[test]
fn a_number_that_was_given_out_again_is_found() {
    let cut = Story::new().then(&[Event::Cut { power: true }, Event::Put { key: 7, n: 3 }]);
    let (shard, number, ..) = first(2);
    finds(Anomaly::NumberReused, &cut.clone().then(&[acknowledged((shard, number, 7, 3), true)]));
    // Nor one that is below: it lies in a place that had been given out.
    finds(Anomaly::NumberReused, &cut.then(&[acknowledged((shard, number - 32, 7, 3), true)]));
}

#[test]
fn numbers_that_do_not_rise_are_found() {
    let found = [first(1), first(0), first(2)];
    finds(Anomaly::NonMonotonic, &Story::new().killed().find(&found));
    // From parent to child neither.
    let story = Story::new().then(&[Event::Put { key: 7, n: 3 }]);
    let found: Vec<_> = (0..3).map(first).chain([(S1, 4096, 7, 3), (S2, 4096, 7, 3)]).collect();
    finds(Anomaly::NonMonotonic, &story.find(&found));
}

#[test]
fn a_record_in_the_wrong_shard_is_found() {
    let key = HashAlgorithm::default().hash(&partition_key(7));
    let below = HashKeyRange { start: HashKey::MIN, end: HashKey::new((1 << 127) - 1) };
    let wrong = if below.contains(key) { S2 } else { S1 };
    let story = Story::new().then(&[Event::Put { key: 7, n: 3 }]);
    let found: Vec<_> = (0..3).map(first).chain([(wrong, 1 << 20, 7, 3)]).collect();
    finds(Anomaly::WrongShard, &story.find(&found));
}

#[test]
fn an_altered_record_is_found() {
    let mut history = History::new(HashAlgorithm::default());
    Story::new().killed().tell(&mut history);
    let shards = shards();
    let mut content = data(7, 0);
    *content.last_mut().unwrap() ^= 1;
    history.begin_scan(shards.clone());
    history.record(&shards[0], first(0).1, &partition_key(7), &content);
    assert!(history.anomalies.iter().any(|(anomaly, _)| *anomaly == Anomaly::Altered));
}

#[test]
fn an_acknowledgement_after_a_failed_sync_is_found() {
    let story = Story::new().then(&[
        Event::Poisoned { key: 7, shard: S0 },
        Event::Put { key: 7, n: 3 },
        acknowledged(first(3), true),
    ]);
    finds(Anomaly::AcknowledgedAfterFailure, &story);
}

#[test]
fn a_lost_reshard_is_found() {
    finds(Anomaly::LostReshard, &Story::new().then(&[Event::Reshaped { child: ShardId::new(3) }]));
    assert_eq!(Story::new().then(&[Event::Reshaped { child: S2 }]).anomalies(), []);
}

#[test]
fn an_unseen_record_is_found() {
    let mut history = History::new(HashAlgorithm::default());
    Story::new().killed().tell(&mut history);
    history.finish();
    let [(anomaly, _)] = &history.anomalies[..] else { panic!("{:?}", history.anomalies) };
    assert_eq!(*anomaly, Anomaly::Unseen);
}

#[test]
fn a_skipped_record_is_found() {
    let story = |after, numbers| {
        Story::new().then(&[Event::Started { shard: S0, after }, Event::Got { shard: S0, numbers }])
    };
    finds(Anomaly::Skipped, &story(None, vec![first(0).1, first(2).1]));
    finds(Anomaly::Skipped, &story(Some(first(0).1), vec![first(2).1]));
    finds(Anomaly::Skipped, &story(Some(first(1).1), vec![first(2).1, first(1).1]));
    assert_eq!(story(Some(first(1).1), vec![first(2).1]).anomalies(), []);
}

#[test]
fn a_checkpoint_that_is_ahead_is_found() {
    let story = Story::new().killed();
    finds(
        Anomaly::CheckpointAhead,
        &story.then(&[Event::Started { shard: S0, after: Some(first(2).1) }]),
    );
}

#[test]
fn a_checkpoint_that_went_back_is_found() {
    let story = Story::new().killed();
    finds(
        Anomaly::ResumedBeforeCheckpoint,
        &story.then(&[Event::Started { shard: S0, after: Some(first(0).1) }]),
    );
}

#[test]
fn two_owners_are_found() {
    let got = Event::Got { shard: S0, numbers: vec![first(2).1] };
    finds(Anomaly::TwoOwners, &Story::new().then(&[got.clone(), got.clone()]));
    let started = Event::Started { shard: S0, after: Some(first(1).1) };
    finds(Anomaly::TwoOwners, &Story::new().then(&[got.clone(), started]));
    let failed = Event::Failed { shard: S0 };
    let again = Event::Started { shard: S0, after: Some(first(1).1) };
    assert_eq!(Story::new().then(&[got.clone(), failed, again, got]).anomalies(), []);
}

#[test]
fn two_owners_in_two_processes_are_found_and_one_that_takes_over_from_a_dead_one_is_none() {
    let got = Event::Got { shard: S0, numbers: vec![first(2).1] };
    let started = Event::Started { shard: S0, after: Some(first(1).1) };
    let (processed, failed) = (Event::Processed { shard: S0 }, Event::Failed { shard: S0 });
    let checkpointed = Event::Checkpointed { shard: S0, number: first(2).1 };
    let anomalies = |last: &[(u32, &Event)]| {
        let mut history = History::new(HashAlgorithm::default());
        Story::new().events.iter().for_each(|event| history.add_from(1, event));
        last.iter().for_each(|(process, event)| history.add_from(*process, event));
        history.anomalies.iter().map(|(anomaly, _)| *anomaly).collect::<Vec<_>>()
    };
    let taken_over = [(1, &got), (2, &started), (2, &got), (2, &processed)];
    assert_eq!(anomalies(&taken_over), []);
    for late in [&processed, &failed, &checkpointed, &got] {
        let story = [&taken_over[..], &[(1, late)]].concat();
        assert!(anomalies(&story).contains(&Anomaly::TwoOwners), "{late:?}");
    }
    assert!(anomalies(&[(1, &got), (2, &got)]).contains(&Anomaly::TwoOwners));
    let back_again = [&taken_over[..], &[(1, &started), (1, &got)]].concat();
    assert_eq!(anomalies(&back_again), []);
}

#[test]
fn a_child_before_its_parent_is_found() {
    let started = Event::Started { shard: S1, after: None };
    let ended = Event::Ended { shard: S0 };
    finds(Anomaly::ChildBeforeParent, &Story::new().then(std::slice::from_ref(&started)));
    finds(Anomaly::ChildBeforeParent, &Story::new().then(&[started.clone(), ended.clone()]));
    assert_eq!(Story::new().then(&[ended, started]).anomalies(), []);
}
