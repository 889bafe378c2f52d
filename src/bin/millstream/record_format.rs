//! How a record is written as text: as its data, in a format in the manner of kcat, or as JSON.

use std::io::{self, Write};
use std::str::FromStr;

use millstream::{Record, ShardId};

/// The options that decide it, for every verb that writes records.
#[derive(clap::Args, Debug)]
pub(crate) struct FormatArgs {
    /// Write the partition key and DELIM before the data. DELIM may have \n, \r, \t, \0, \\ and
    /// \xHH in it.
    #[arg(short = 'K', value_name = "DELIM", conflicts_with_all = ["format", "json"])]
    key_delimiter: Option<Delimiter>,
    /// Write each record as FMT says, with no line end of its own: %s data, %k key, %o number,
    /// %p shard, %T arrival in ms since 1970, %S length of the data, %K of the key, %% percent;
    /// \n, \r, \t, \0, \\, \xHH.
    #[arg(long, value_name = "FMT", conflicts_with = "json")]
    format: Option<Template>,
    /// Write each record as a JSON object in a line of its own: shard, sequence_number,
    /// partition_key, arrival_ms, and data, or data_base64 if it is not UTF-8.
    #[arg(long)]
    pub(crate) json: bool,
}

impl FormatArgs {
    /// What the options say together.
    pub(crate) fn format(&self) -> RecordFormat {
        match (&self.format, &self.key_delimiter) {
            _ if self.json => RecordFormat::Json,
            (Some(template), _) => RecordFormat::Template(template.clone()),
            (None, Some(Delimiter(delimiter))) => {
                let delimiter = Piece::Text(delimiter.clone());
                let pieces = [Piece::Key, delimiter, Piece::Data, Piece::text("\n")];
                RecordFormat::Template(Template(pieces.into()))
            }
            (None, None) => {
                RecordFormat::Template(Template([Piece::Data, Piece::text("\n")].into()))
            }
        }
    }
}

/// What stands between key and data, with escapes as in a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) Vec<u8>);

impl FromStr for Delimiter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = text.bytes();
        let mut delimiter = Vec::new();
        while let Some(byte) = bytes.next() {
            delimiter.push(if byte == b'\\' { escaped(&mut bytes)? } else { byte });
        }
        Ok(Self(delimiter))
    }
}

/// How a record is written.
#[derive(Clone, Debug)]
pub(crate) enum RecordFormat {
    Template(Template),
    Json,
}

impl RecordFormat {
    pub(crate) fn write(
        &self,
        out: &mut impl Write,
        shard: ShardId,
        record: &Record<'_>,
    ) -> io::Result<()> {
        match self {
            Self::Template(Template(pieces)) => {
                pieces.iter().try_for_each(|piece| piece.write(out, shard, record))
            }
            Self::Json => write_json(out, shard, record),
        }
    }
}

/// A format as it was given with `--format`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Data,
    DataLen,
    Key,
    KeyLen,
    Number,
    Shard,
    ArrivalMs,
}

impl Piece {
    fn text(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }

    fn write(&self, out: &mut impl Write, shard: ShardId, record: &Record<'_>) -> io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text),
            Self::Data => out.write_all(record.data()),
            Self::DataLen => write!(out, "{}", record.data().len()),
            Self::Key => out.write_all(record.partition_key().as_bytes()),
            Self::KeyLen => write!(out, "{}", record.partition_key().len()),
            Self::Number => write!(out, "{}", record.sequence_number()),
            Self::Shard => write!(out, "{shard}"),
            Self::ArrivalMs => write!(out, "{}", record.arrival_ms()),
        }
    }
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'%' => match token(bytes.next())? {
                    Some(piece) => {
                        if !literal.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut literal)));
                        }
                        pieces.push(piece);
                    }
                    None => literal.push(b'%'),
                },
                b'\\' => literal.push(escaped(&mut bytes)?),
                _ => literal.push(byte),
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }
}

/// What stands behind a percent sign; none is the sign itself.
fn token(byte: Option<u8>) -> Result<Option<Piece>, String> {
    Ok(Some(match byte {
        Some(b's') => Piece::Data,
        Some(b'S') => Piece::DataLen,
        Some(b'k') => Piece::Key,
        Some(b'K') => Piece::KeyLen,
        Some(b'o') => Piece::Number,
        Some(b'p') => Piece::Shard,
        Some(b'T') => Piece::ArrivalMs,
        Some(b'%') => return Ok(None),
        _ => return Err("% is followed by one of s S k K o p T %".to_owned()),
    }))
}

/// What stands behind a backslash.
fn escaped(bytes: &mut std::str::Bytes<'_>) -> Result<u8, String> {
    match bytes.next() {
        Some(b'n') => Some(b'\n'),
        Some(b'r') => Some(b'\r'),
        Some(b't') => Some(b'\t'),
        Some(b'0') => Some(b'\0'),
        Some(b'\\') => Some(b'\\'),
        Some(b'x') => hex_digit(bytes).and_then(|high| Some(high << 4 | hex_digit(bytes)?)),
        _ => None,
    }
    .ok_or_else(|| r"\ is followed by one of n r t 0 \ xHH".to_owned())
}

fn hex_digit(bytes: &mut std::str::Bytes<'_>) -> Option<u8> {
    char::from(bytes.next()?).to_digit(16).map(|digit| digit as u8)
}

fn write_json(out: &mut impl Write, shard: ShardId, record: &Record<'_>) -> io::Result<()> {
    let number = record.sequence_number();
    write!(out, r#"{{"shard":"{shard}","sequence_number":"{number}","partition_key":"#)?;
    serde_json::to_writer(&mut *out, record.partition_key())?;
    write!(out, r#","arrival_ms":{},"#, record.arrival_ms())?;
    let (name, data) = data_as_json(record.data());
    write!(out, r#""{name}":"#)?;
    serde_json::to_writer(&mut *out, &data)?;
    out.write_all(b"}\n")
}

/// The name and the value of a record's data as a member of a JSON object.
pub(crate) fn data_as_json(data: &[u8]) -> (&'static str, String) {
    match std::str::from_utf8(data) {
        Ok(text) => ("data", text.to_owned()),
        Err(_) => ("data_base64", base64(data)),
    }
}

/// The letters of RFC 4648.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes that `data_as_json` has written as base64; none if it is no such text.
pub(crate) fn data_from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (letters, padding) = match text.find('=') {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    if !text.len().is_multiple_of(4) || !["", "=", "=="].contains(&padding) {
        return None;
    }
    for four in letters.as_bytes().chunks(4) {
        let value = |letter: &u8| ALPHABET.iter().position(|other| other == letter);
        let bits = four.iter().try_fold(0, |bits, letter| Some(bits << 6 | value(letter)?))?;
        let bits = (bits << (6 * (4 - four.len()))) as u32;
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_as_in_the_examples_of_its_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(data_from_base64(encoded).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn texts_that_are_no_base64_are_refused() {
        for wrong in ["Z", "Zg", "Zg=", "Zg===", "Z===", "Zm9v!", "Zm9=Zm9v", "Zm9v Zm9"] {
            assert_eq!(data_from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_template_is_made_of_tokens_and_text() {
        let template: Template = r"%k:\x41\t%s%%\n".parse().unwrap();
        let text = |text: &str| Piece::text(text);
        assert_eq!(template.0, [Piece::Key, text(":A\t"), Piece::Data, text("%\n")]);
    }

    #[test]
    fn a_delimiter_has_the_escapes_of_a_template() {
        let parse = |text: &str| text.parse::<Delimiter>().map(|delimiter| delimiter.0);
        assert_eq!(parse(r"::\t\n\0\\\x41"), Ok(b"::\t\n\0\\A".to_vec()));
        assert_eq!(parse("%s"), Ok(b"%s".to_vec()));
        assert!(parse("\\").is_err() && parse(r"\q").is_err());
    }

    #[test]
    fn what_a_template_does_not_know_is_refused() {
        for wrong in ["%", "%q", "\\", "\\q", "\\x", "\\x1", "\\xzz"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }
}
