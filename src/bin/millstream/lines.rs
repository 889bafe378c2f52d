//! Lines of an input as fast as they come: many at once from a file, each at once from a pipe.

use std::io::{self, Read};

use millstream::MAX_RECORD_BYTES;

/// What a read asks for; a pipe gives less, as much as is there.
const READ_BYTES: usize = 1 << 20;
/// A line longer than this can be no record, with whatever delimiter. Bounds the memory.
const MAX_LINE_BYTES: usize = MAX_RECORD_BYTES + READ_BYTES;

/// Reads whole lines.
pub(crate) struct LineReader<R> {
    input: R,
    buffer: Vec<u8>,
    /// Where in the buffer what has not been handed out begins.
    start: usize,
    /// Where in the buffer what was read ends.
    end: usize,
}

impl<R: Read> LineReader<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: vec![0; READ_BYTES], start: 0, end: 0 }
    }

    /// The next lines: all that a read completed, each with its line end, save that the last line
    /// of an input may have none. Nothing at the end of the input.
    ///
    /// A line that is too long for any record comes without its end, and by itself.
    pub(crate) fn next_lines(&mut self) -> io::Result<Option<&[u8]>> {
        loop {
            let seen = self.end - self.start;
            if seen > MAX_LINE_BYTES {
                return Ok(Some(self.take(self.end)));
            }
            self.make_room();
            let read = match self.input.read(&mut self.buffer[self.end..]) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if read == 0 {
                return Ok((seen > 0).then(|| self.take(self.end)));
            }
            self.end += read;
            let new = &self.buffer[self.end - read..self.end];
            if let Some(newline) = new.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.take(self.end - read + newline + 1)));
            }
        }
    }

    /// What was read before `end` and not handed out yet.
    fn take(&mut self, end: usize) -> &[u8] {
        &self.buffer[std::mem::replace(&mut self.start, end)..end]
    }

    /// Moves the line that has begun to the front, and makes sure that something can be read.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() - self.end < READ_BYTES / 2 {
            self.buffer.resize(self.end + READ_BYTES, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives these, one a read.
    struct Reads(Vec<Vec<u8>>);

    impl Read for Reads {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Ok(0);
            }
            let bytes = self.0.remove(0);
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
    }

    fn lines_of(reads: &[&str]) -> Vec<String> {
        let reads = reads.iter().map(|read| read.as_bytes().to_vec()).collect();
        let mut reader = LineReader::new(Reads(reads));
        let mut all = Vec::new();
        while let Some(lines) = reader.next_lines().unwrap() {
            all.push(String::from_utf8(lines.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn complete_lines_come_as_soon_as_they_were_read() {
        assert_eq!(lines_of(&["a\nb\nc", "d\n", "e\n"]), ["a\nb\n", "cd\n", "e\n"]);
    }

    #[test]
    fn the_last_line_needs_no_line_end() {
        assert_eq!(lines_of(&["a\n", "b"]), ["a\n", "b"]);
        assert!(lines_of(&[]).is_empty());
    }

    #[test]
    fn an_endless_line_comes_by_itself_before_it_takes_all_the_memory() {
        let mut reader = LineReader::new(io::repeat(b'x'));
        let line = reader.next_lines().unwrap().unwrap();
        assert!((MAX_LINE_BYTES..MAX_LINE_BYTES + 2 * READ_BYTES).contains(&line.len()));
    }
}
