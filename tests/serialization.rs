//! Descriptions and figures as JSON: the shape that others may build on.

mod common;

use std::time::Duration;

use common::{Fixture, TestClock, put};
use millstream::{
    Application, Batch, Checkpointer, Durability, Retention, ShardId, StartingPosition, WhenFull,
    WorkerPool,
};
use serde_json::{json, to_value};

const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_description_has_large_numbers_as_text_and_times_in_milliseconds() {
    let fixture = Fixture::with(|builder| {
        let retention = Retention::default().age(Duration::from_secs(60)).bytes(1 << 30);
        let retention = retention.hold_for(["billing"]).when_full(WhenFull::Block(PATIENCE));
        builder.clock(TestClock::new()).retention(retention).durability(Durability::Sync)
    });
    let receipt = put(&fixture.stream, "a");
    let mut value = to_value(fixture.stream.describe().unwrap()).unwrap();
    let shard = value["shards"].as_array_mut().unwrap().remove(0);
    let number = receipt.sequence_number.to_string();
    let info = json!({
        "id": "shardId-000000000000",
        "hash_key_range": { "start": "0", "end": u128::MAX.to_string() },
        "parent": null,
        "adjacent_parent": null,
        "starting_sequence_number": shard["info"]["starting_sequence_number"],
        "ending_sequence_number": null,
        "opened_ms": common::START_MS,
        "closed_ms": null,
    });
    let expected = json!({
        "info": info,
        "records": 1,
        "bytes": 64,
        "first_sequence_number": number,
        "first_arrival_ms": common::START_MS,
        "last_sequence_number": number,
        "last_arrival_ms": common::START_MS,
        "trimmed_records": 0,
        "horizon": shard["horizon"],
        "is_expired": false,
    });
    assert_eq!(shard, expected);
    let expected = json!({
        "path": fixture.directory.path(),
        "created_ms": common::START_MS,
        "hash_algorithm": "Xxh3_128",
        "max_record_bytes": 1 << 20,
        "max_segment_bytes": value["max_segment_bytes"],
        "max_open_shards": 10_000,
        "durability": "sync",
        "retention": {
            "age_ms": 60_000,
            "bytes": 1 << 30,
            "records": null,
            "hold_for": ["billing"],
            "when_full": { "block_ms": 30_000 },
        },
        "tags": {},
        "shards": [],
        "open_shards": 1,
        "records": 1,
        "bytes": 64,
    });
    assert_eq!(value, expected);
}

#[test]
fn storage_and_lag_are_plain_numbers() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let storage = to_value(stream.storage().unwrap()).unwrap();
    assert_eq!(storage["unlinked_bytes"], json!(0));
    assert_eq!(storage["dropped_unprocessed"], json!(0));
    let iterator = stream.shard_iterator(ShardId::new(0), StartingPosition::TrimHorizon).unwrap();
    put(stream, "a");
    let lag = to_value(stream.lag(&iterator).unwrap()).unwrap();
    assert_eq!((&lag["records"], &lag["bytes"]), (&json!(1), &json!(64)));
}

#[test]
fn a_pool_and_its_application_tell_how_far_they_are() {
    let Fixture { stream, .. } = &Fixture::new(1);
    let number = put(stream, "a").sequence_number.to_string();
    let pool = WorkerPool::builder("billing", stream)
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))
        .unwrap();
    assert!(pool.wait_until_idle(PATIENCE));
    let status = to_value(pool.status()).unwrap();
    let path = stream.path().to_str().unwrap();
    assert_eq!(status[0]["stream"], json!(path));
    assert_eq!(status[0]["shard"], json!("shardId-000000000000"));
    assert_eq!(status[0]["state"], json!("idle"));
    assert_eq!(status[0]["checkpoint"], json!({ "after_sequence_number": number }));
    assert_eq!(status[0]["callback_running_ms"], json!(null));
    let outcomes = to_value(pool.shutdown(PATIENCE)).unwrap();
    let expected = json!({ "stream": path, "shard": "shardId-000000000000", "outcome": "stopped" });
    assert_eq!(outcomes, json!([expected]));
    let billing = Application::of("billing", stream).unwrap();
    let shards = to_value(billing.shards().unwrap()).unwrap();
    assert_eq!(shards[0]["lag"]["records"], json!(0));
    assert_eq!(shards[0]["is_owned"], json!(false));
}
