//! One look at streams and applications, and what has changed since the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millstream::{Application, Lag, Stream};
use serde_json::{Value, json};

use crate::failure::Result;

/// The streams that are watched, opened once.
pub(super) struct Watched {
    dir: PathBuf,
    open: BTreeMap<PathBuf, Stream>,
    last: Vec<StreamLook>,
    looked_at: Option<Instant>,
}

/// What a stream is like at a look.
#[derive(Default)]
pub(super) struct StreamLook {
    pub(super) path: PathBuf,
    /// Why there is nothing else to tell.
    pub(super) error: Option<String>,
    pub(super) open_shards: usize,
    pub(super) shards: usize,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Records that were ever put, also if they were trimmed since.
    pub(super) ever_put: u64,
    pub(super) newest_ms: u64,
    pub(super) records_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) apps: Vec<AppLook>,
}

/// What an application is like at a look.
#[derive(Default)]
pub(super) struct AppLook {
    pub(super) app: String,
    pub(super) pools: usize,
    pub(super) lag: Lag,
    pub(super) records_per_s: f64,
}

impl Watched {
    /// Watches a stream or those in a directory.
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let mut watched =
            Self { dir: dir.to_owned(), open: BTreeMap::new(), last: Vec::new(), looked_at: None };
        // What cannot be watched at all is an error at once.
        watched.paths()?;
        Ok(watched)
    }

    fn paths(&mut self) -> Result<Vec<PathBuf>> {
        let listed = Stream::list(&self.dir)?;
        if !listed.is_empty() {
            return Ok(listed);
        }
        // It is a stream itself, or an empty directory, in which streams may appear.
        match Stream::open_read_only(&self.dir) {
            Ok(stream) => {
                self.open.entry(self.dir.clone()).or_insert(stream);
                Ok(vec![self.dir.clone()])
            }
            Err(
                millstream::Error::StreamNotFound { .. } | millstream::Error::NotAStream { .. },
            ) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Looks, and compares with the last look.
    pub(super) fn look(&mut self) -> Result<&[StreamLook]> {
        let paths = self.paths()?;
        self.open.retain(|path, _| paths.contains(path));
        let now = Instant::now();
        let since = self.looked_at.replace(now).map(|last| now - last);
        let mut looks = Vec::new();
        for path in paths {
            let mut look = self.look_at(&path).unwrap_or_else(|error| {
                // It may have been deleted, and made anew.
                self.open.remove(&path);
                StreamLook { error: Some(error.to_string()), ..StreamLook::default() }
            });
            let last = self.last.iter().find(|last| last.path == path);
            if let Some((since, last)) = since.zip(last) {
                look.compare(last, since);
            }
            look.path = path;
            looks.push(look);
        }
        self.last = looks;
        Ok(&self.last)
    }

    fn look_at(&mut self, path: &Path) -> millstream::Result<StreamLook> {
        let stream = match self.open.get(path) {
            Some(stream) => stream,
            None => self.open.entry(path.to_owned()).or_insert(Stream::open_read_only(path)?),
        };
        let description = stream.describe()?;
        let trimmed: u64 = description.shards.iter().map(|shard| shard.trimmed_records).sum();
        let newest_ms = description.shards.iter().filter_map(|shard| shard.last_arrival_ms).max();
        let mut look = StreamLook {
            open_shards: description.open_shards,
            shards: description.shards.len(),
            records: description.records,
            bytes: description.bytes,
            ever_put: description.records + trimmed,
            newest_ms: newest_ms.unwrap_or(0),
            ..StreamLook::default()
        };
        for app in Application::list(stream)? {
            let application = Application::of(&app, stream)?;
            let mut lag = Lag::default();
            for shard in application.shards()? {
                lag.records += shard.lag.records;
                lag.bytes += shard.lag.bytes;
                lag.millis = lag.millis.max(shard.lag.millis);
            }
            look.apps.push(AppLook { app, pools: application.pools()?, lag, records_per_s: 0.0 });
        }
        Ok(look)
    }
}

impl StreamLook {
    /// What was put and processed since another look.
    fn compare(&mut self, last: &Self, since: Duration) {
        let per_s = |more: u64| more as f64 / since.as_secs_f64();
        let put = self.ever_put.saturating_sub(last.ever_put);
        self.records_per_s = per_s(put);
        // What records take on the average; those that were trimmed are not counted in bytes.
        let record_bytes = self.bytes as f64 / self.records.max(1) as f64;
        self.bytes_per_s = self.records_per_s * record_bytes;
        for app in &mut self.apps {
            if let Some(before) = last.apps.iter().find(|before| before.app == app.app) {
                let processed = (put + before.lag.records).saturating_sub(app.lag.records);
                app.records_per_s = per_s(processed);
            }
        }
    }

    pub(super) fn as_json(&self) -> Value {
        let path = self.path.display().to_string();
        if let Some(error) = &self.error {
            return json!({ "path": path, "error": error });
        }
        let apps: Vec<_> = self.apps.iter().map(AppLook::as_json).collect();
        json!({
            "path": path, "open_shards": self.open_shards, "shards": self.shards,
            "records": self.records, "bytes": self.bytes, "newest_arrival_ms": self.newest_ms,
            "records_per_s": self.records_per_s, "bytes_per_s": self.bytes_per_s, "apps": apps,
        })
    }
}

impl AppLook {
    fn as_json(&self) -> Value {
        json!({
            "app": self.app, "pools": self.pools, "records_per_s": self.records_per_s,
            "lag_records": self.lag.records, "lag_bytes": self.lag.bytes,
            "lag_ms": self.lag.millis,
        })
    }
}

/// Now, in milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as u64
}
