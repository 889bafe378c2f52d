//! What pools count and measure, as text for Prometheus and as the `metrics` crate hears it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millstream::{Batch, Checkpointer, Snapshot, Stream, WorkerPool};

/// Longer than any test takes that passes.
const LONG: Duration = Duration::from_secs(30);

/// A sample: the name of the metric, labels, value.
type Sample = (String, BTreeMap<String, String>, f64);

/// Reads the text format of Prometheus, and takes nothing that the format does not allow.
fn parse(text: &str) -> Result<Vec<Sample>, String> {
    let mut samples = Vec::new();
    let (mut helped, mut typed, mut seen) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    let mut current = String::new();
    let body = text.strip_suffix('\n').ok_or("the last line has no end")?;
    for line in body.split('\n') {
        let wrong = |what: &str| format!("{what}: {line:?}");
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').ok_or(wrong("no help"))?;
            let is_name = is_name(name) && !help.is_empty();
            if !is_name || !helped.insert(name.to_owned()) {
                return Err(wrong("bad help"));
            }
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').ok_or(wrong("no type"))?;
            let is_counter = kind == "counter" && name.ends_with("_total");
            let is_gauge = kind == "gauge" && !name.ends_with("_total");
            let is_new = typed.insert(name.to_owned(), kind.to_owned()).is_none();
            if name != current || !is_new || !(is_counter || is_gauge) {
                return Err(wrong("bad type"));
            }
        } else {
            let (name, labels, value) = parse_sample(line).ok_or(wrong("bad sample"))?;
            if name != current || !typed.contains_key(&name) {
                return Err(wrong("a sample outside of its metric"));
            }
            if !seen.insert((name.clone(), labels.clone())) {
                return Err(wrong("there twice"));
            }
            samples.push((name, labels, value));
        }
    }
    Ok(samples)
}

fn is_name(name: &str) -> bool {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    name.starts_with(is_first) && name.chars().all(|c| is_first(c) || c.is_ascii_digit())
}

fn parse_sample(line: &str) -> Option<Sample> {
    let (name, rest) = line.split_once('{')?;
    let mut labels = BTreeMap::new();
    let mut rest = rest;
    loop {
        let (label, after) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(after)?;
        if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
            return None;
        }
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                let number = after.strip_prefix("} ")?;
                let is_number = number.bytes().all(|b| b.is_ascii_digit());
                let value = number.parse().ok().filter(|_| is_number && is_name(name))?;
                return Some((name.to_owned(), labels, value));
            }
        }
    }
}

/// A text up to its closing quote, and what is behind it.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// A pool that has processed three records of 7 bytes in a stream in this directory.
fn pool_after_three_records(stream: &Stream, application: &str) -> WorkerPool {
    for _ in 0..3 {
        stream.put("customer-7", "clicked").unwrap();
    }
    let pool = WorkerPool::builder(application, stream)
        .look_interval(Duration::from_millis(5))
        .start(|_| |_: &Batch, _: &mut Checkpointer<'_>| Ok(()))
        .unwrap();
    assert!(pool.wait_until_idle(LONG));
    pool
}

fn value(samples: &[Sample], metric: &str, shard: &str) -> f64 {
    let is_it = |(name, labels, _): &&Sample| name == metric && labels["shard"].ends_with(shard);
    samples.iter().find(is_it).unwrap_or_else(|| panic!("{metric} of {shard} is there")).2
}

#[test]
fn the_text_for_prometheus_is_read_by_a_strict_parser() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a \"b\" \\n ä\n{c}, d=");
    let stream = Stream::builder(&path).shards(2).open().unwrap();
    let mut metrics = pool_after_three_records(&stream, "billing").metrics();
    // Pools of several streams or applications make one text.
    metrics.shards.extend(pool_after_three_records(&stream, "audit").metrics().shards);
    let samples = parse(&metrics.to_string()).unwrap();
    let metric_count = samples.iter().map(|(name, ..)| name).collect::<BTreeSet<_>>().len();
    assert_eq!(metric_count, 17);
    assert_eq!(samples.len(), 2 * 2 * metric_count);
    for (_, labels, _) in &samples {
        assert_eq!(labels["stream"], path.to_str().unwrap());
        assert!(["billing", "audit"].contains(&labels["application"].as_str()));
        assert!(labels["shard"].starts_with("shardId-00000000000"));
    }
}

#[test]
fn a_pool_counts_records_bytes_and_leases_under_the_names_of_the_kcl() {
    let directory = tempfile::tempdir().unwrap();
    let stream = Stream::builder(directory.path()).open().unwrap();
    let pool = pool_after_three_records(&stream, "billing");
    let samples = parse(&pool.metrics().to_string()).unwrap();
    let expected = [
        ("millstream_records_processed_total", 3.0),
        ("millstream_data_bytes_processed_total", 21.0),
        ("millstream_leases_taken_total", 1.0),
        ("millstream_leases_lost_total", 0.0),
        ("millstream_current_leases", 1.0),
        ("millstream_millis_behind_latest", 0.0),
        ("millstream_records_behind_latest", 0.0),
    ];
    for (metric, expected) in expected {
        assert_eq!(value(&samples, metric, "0"), expected, "{metric}");
    }
}

#[test]
fn a_snapshot_of_nothing_is_no_error() {
    let samples = parse(&Snapshot::default().to_string()).unwrap();
    assert!(samples.is_empty());
}

#[test]
fn the_strict_parser_takes_nothing_else() {
    let good = "# HELP a_total b\n# TYPE a_total counter\na_total{x=\"1\",y=\"\\\\\"} 7\n";
    assert_eq!(parse(good).unwrap()[0].2, 7.0);
    for (from, to) in [
        ("7\n", "7"),
        ("} 7", "} seven"),
        ("} 7", "}  7"),
        ("counter", "gauge"),
        ("y=", "x="),
        ("\\\\", "\\"),
        ("\\\\", "\\x"),
        ("y=\"", "y=\"\n"),
        ("# HELP a_total b\n", ""),
        ("# TYPE a_total counter\n", ""),
        ("a_total{", "b_total{"),
        ("} 7\n", "} 7\na_total{y=\"\\\\\",x=\"1\"} 8\n"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        assert!(parse(&bad).is_err(), "{bad}");
    }
}

#[cfg(feature = "metrics")]
mod facade {
    use std::sync::{Arc, Mutex};
    use std::time::Instant;

    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use metrics::{CounterFn, GaugeFn};

    use super::*;

    /// What was told last, by name and labels.
    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<BTreeMap<String, f64>>>);

    struct Told {
        key: String,
        heard: Heard,
    }

    impl CounterFn for Told {
        fn increment(&self, _: u64) {
            panic!("the pool counts");
        }

        fn absolute(&self, value: u64) {
            self.heard.0.lock().unwrap().insert(self.key.clone(), value as f64);
        }
    }

    impl GaugeFn for Told {
        fn increment(&self, _: f64) {
            panic!("the pool measures");
        }

        fn decrement(&self, _: f64) {
            panic!("the pool measures");
        }

        fn set(&self, value: f64) {
            self.heard.0.lock().unwrap().insert(self.key.clone(), value);
        }
    }

    impl Heard {
        fn told(&self, key: &Key) -> Arc<Told> {
            let labels: Vec<_> = key
                .labels()
                .map(|label| (label.key().to_owned(), label.value().to_owned()))
                .collect();
            Arc::new(Told { key: format!("{} {labels:?}", key.name()), heard: self.clone() })
        }
    }

    impl Recorder for Heard {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.told(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.told(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("there is none");
        }
    }

    #[test]
    fn the_metrics_facade_hears_what_the_text_says() {
        let directory = tempfile::tempdir().unwrap();
        let stream = Stream::builder(directory.path()).shards(2).open().unwrap();
        let snapshot = pool_after_three_records(&stream, "billing").metrics();
        let heard = Heard::default();
        metrics::with_local_recorder(&heard, || snapshot.publish());
        let heard = heard.0.lock().unwrap();
        let samples = parse(&snapshot.to_string()).unwrap();
        assert_eq!(heard.len(), samples.len());
        for (name, labels, value) in samples {
            let labels = ["application", "stream", "shard"].map(|key| (key, &labels[key]));
            let key = format!("{name} {labels:?}");
            assert_eq!(heard.get(&key), Some(&value), "{key}");
        }
    }

    #[test]
    fn a_pool_tells_the_recorder_of_the_process_by_itself() {
        let heard = Heard::default();
        assert!(metrics::set_global_recorder(heard.clone()).is_ok());
        let directory = tempfile::tempdir().unwrap();
        let stream = Stream::builder(directory.path()).open().unwrap();
        let pool = pool_after_three_records(&stream, "by-itself");
        let is_told = || {
            let is_it = |(key, value): (&String, &f64)| {
                key.contains("records_processed") && key.contains("by-itself") && *value == 3.0
            };
            heard.0.lock().unwrap().iter().any(is_it)
        };
        let deadline = Instant::now() + LONG;
        while !is_told() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        drop(pool);
    }
}
