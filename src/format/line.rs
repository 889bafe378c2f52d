//! A line of text as fields between blanks.

use std::fmt::Write;
use std::str::{FromStr, SplitWhitespace};

/// The fields of a line, and where it stands.
pub(super) struct Fields<'a> {
    offset: u64,
    fields: SplitWhitespace<'a>,
}

impl<'a> Fields<'a> {
    /// The fields of this line, which begins at this byte.
    pub(super) fn of(line: &'a str, offset: u64) -> Self {
        Self { offset, fields: line.split_whitespace() }
    }

    /// The word that the line begins with.
    pub(super) fn first(&self) -> Option<&'a str> {
        self.fields.clone().next()
    }

    pub(super) fn wrong(&self, what: impl std::fmt::Display) -> (u64, String) {
        (self.offset, what.to_string())
    }

    /// The next field, which is there.
    pub(super) fn field(&mut self) -> Result<&'a str, (u64, String)> {
        self.fields.next().ok_or_else(|| self.wrong("the line is too short"))
    }

    /// The next field, which is this word.
    pub(super) fn name(&mut self, name: &str) -> Result<(), (u64, String)> {
        match self.field()? {
            found if found == name => Ok(()),
            found => Err(self.wrong(format!("{found:?} stands where {name:?} should"))),
        }
    }

    pub(super) fn named(mut self, name: &str) -> Result<&'a str, (u64, String)> {
        self.name(name)?;
        self.field()
    }

    pub(super) fn value<T: FromStr<Err: std::fmt::Display>>(&mut self) -> Result<T, (u64, String)> {
        let field = self.field()?;
        field.parse().map_err(|e| self.wrong(format!("{field:?}: {e}")))
    }

    pub(super) fn named_value<T: FromStr<Err: std::fmt::Display>>(
        mut self,
        name: &str,
    ) -> Result<T, (u64, String)> {
        self.name(name)?;
        self.value()
    }

    /// A value, or `-` for none.
    pub(super) fn optional<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
    ) -> Result<Option<T>, (u64, String)> {
        match self.first() {
            Some("-") => self.field().map(|_| None),
            _ => self.value().map(Some),
        }
    }

    pub(super) fn named_optional<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, (u64, String)> {
        self.name(name)?;
        self.optional()
    }

    /// A value behind its name, at the end of the line; none if the line has ended before.
    pub(super) fn appended<T: FromStr<Err: std::fmt::Display>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, (u64, String)> {
        if self.first().is_none() {
            return Ok(None);
        }
        self.name(name)?;
        self.optional()
    }
}

/// A text without blanks and line ends, and without `=`.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'/' => {
                escaped.push(byte.into());
            }
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

/// The text that was escaped.
pub(super) fn unescape(escaped: &str) -> Option<String> {
    let mut parts = escaped.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
