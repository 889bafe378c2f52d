//! Where the key of a line comes from.

use millstream::{MAX_PARTITION_KEY_CHARS, MAX_RECORD_BYTES};

/// Where a line's key comes from.
pub(crate) enum Keys {
    Before(Vec<u8>),
    Always(String),
    Count,
}

impl Keys {
    /// The line as key and data, or why it cannot be a record. `count` is its key if there is no
    /// other.
    pub(crate) fn split<'a>(
        &'a self,
        line: &'a [u8],
        count: Option<&'a String>,
    ) -> Result<(&'a str, &'a [u8]), String> {
        let (key, data) = match self {
            Self::Always(key) => (key.as_str(), line),
            Self::Count => (count.map_or("", String::as_str), line),
            Self::Before(delimiter) => {
                let at = find(line, delimiter).ok_or_else(|| {
                    format!("no {:?} in it, so it has no key", String::from_utf8_lossy(delimiter))
                })?;
                let key = std::str::from_utf8(&line[..at])
                    .map_err(|_| "the key is not UTF-8".to_owned())?;
                check_key(key)?;
                (key, &line[at + delimiter.len()..])
            }
        };
        if key.len() + data.len() > MAX_RECORD_BYTES {
            return Err(format!("it is longer than any record, {MAX_RECORD_BYTES} bytes"));
        }
        Ok((key, data))
    }
}

pub(crate) fn without_line_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// Where in the line the delimiter first stands.
fn find(line: &[u8], delimiter: &[u8]) -> Option<usize> {
    match delimiter {
        [byte] => line.iter().position(|other| other == byte),
        _ => line.windows(delimiter.len()).position(|window| window == delimiter),
    }
}

pub(crate) fn check_key(key: &str) -> Result<(), String> {
    match key.chars().take(MAX_PARTITION_KEY_CHARS + 1).count() {
        0 => Err("the key is empty; it has 1 to 256 characters".to_owned()),
        1..=MAX_PARTITION_KEY_CHARS => Ok(()),
        _ => Err("the key has more than 256 characters".to_owned()),
    }
}
