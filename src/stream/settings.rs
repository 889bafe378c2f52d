//! What can be set of a stream that exists: each change is one commit of the manifest.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::names::MANIFEST;
use crate::os::fs;
use crate::record::MAX_OPEN_SHARDS;
use crate::stream::Stream;

/// As in Kinesis.
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY_CHARS: usize = 128;
const MAX_TAG_VALUE_CHARS: usize = 256;

impl Stream {
    /// The stream's tags: texts of yours, by key.
    pub fn tags(&self) -> BTreeMap<String, String> {
        // What another process has changed is seen at the next look, if not now.
        let _ = self.refresh();
        self.inner.shape.read().manifest.tags.clone()
    }

    /// Sets a tag, durably; one that is there is replaced.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless the key has 1 to 128 characters and the value at most 256,
    /// and if the stream has 50 others; [`Error::ReadOnly`]; what writing says.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let stream = millstream::Stream::builder(dir.path()).open()?;
    /// stream.set_tag("team", "billing")?;
    /// assert_eq!(stream.tags()["team"], "billing");
    /// stream.remove_tag("team")?;
    /// # Ok::<(), millstream::Error>(())
    /// ```
    pub fn set_tag(&self, key: &str, value: &str) -> Result<()> {
        let characters = [key.chars().count(), value.chars().count()];
        if !(1..=MAX_TAG_KEY_CHARS).contains(&characters[0]) || characters[1] > MAX_TAG_VALUE_CHARS
        {
            return Err(Error::InvalidArgument(format!(
                "the key of a tag has 1 to {MAX_TAG_KEY_CHARS} characters and its value at most \
                 {MAX_TAG_VALUE_CHARS}, not {} and {}",
                characters[0], characters[1]
            )));
        }
        self.set(|manifest| {
            manifest.tags.insert(key.to_owned(), value.to_owned());
            if manifest.tags.len() > MAX_TAGS {
                return Err(Error::InvalidArgument(format!(
                    "a stream has at most {MAX_TAGS} tags"
                )));
            }
            Ok(())
        })
    }

    /// Removes a tag, durably. False if there is none with this key.
    ///
    /// # Errors
    /// [`Error::ReadOnly`]; what writing says.
    pub fn remove_tag(&self, key: &str) -> Result<bool> {
        let mut removed = false;
        self.set(|manifest| {
            removed = manifest.tags.remove(key).is_some();
            Ok(())
        })?;
        Ok(removed)
    }

    /// Sets how many shards may be open at the same time. Those that are open stay, however many
    /// there are; only no more are opened.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless it is 1 to [`MAX_OPEN_SHARDS`]; [`Error::ReadOnly`]; what
    /// writing says.
    pub fn set_max_open_shards(&self, count: u32) -> Result<()> {
        check_max_open_shards(count)?;
        self.set(|manifest| {
            manifest.max_open_shards = Some(count);
            Ok(())
        })
    }

    /// Changes the manifest, and leaves it as it is if there is nothing to change.
    fn set(&self, change: impl FnOnce(&mut Manifest) -> Result<()>) -> Result<()> {
        if self.inner.keeper.is_none() {
            return Err(Error::ReadOnly);
        }
        let _one_at_a_time = self.inner.reshaping.lock();
        let before = self.inner.shape.read().manifest.clone();
        let mut manifest = before.clone();
        change(&mut manifest)?;
        if manifest == before {
            return Ok(());
        }
        fs::replace(&self.inner.path.join(MANIFEST), manifest.encode().as_bytes())?;
        self.inner.shape.write().manifest = manifest;
        Ok(())
    }
}

pub(super) fn check_max_open_shards(count: u32) -> Result<()> {
    if (1..=MAX_OPEN_SHARDS).contains(&count) {
        return Ok(());
    }
    let what = format!("the most open shards can be set from 1 to {MAX_OPEN_SHARDS}, not {count}");
    Err(Error::InvalidArgument(what))
}
