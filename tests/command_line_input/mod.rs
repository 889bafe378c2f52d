//! What the command line reads, as a function of any bytes. Fuzzed by `fuzz/`.

#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../../src/bin/millstream/lines.rs"]
mod lines;
#[allow(dead_code, reason = "the command uses the rest")]
#[path = "../../src/bin/millstream/offset.rs"]
mod offset;

/// Reads any bytes as the command does: as text where to start, and as lines of records.
pub(crate) fn read(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = text.parse::<offset::Offset>();
    }
    let mut reader = lines::LineReader::new(input);
    let mut seen = 0;
    while let Some(lines) = reader.next_lines().unwrap() {
        assert!(!lines.is_empty() && input[seen..].starts_with(lines));
        seen += lines.len();
    }
    assert_eq!(seen, input.len());
}
