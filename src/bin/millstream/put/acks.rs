//! What `--acks` writes: which records are acknowledged, while it happens.

use std::fs::File;
use std::io::Write;

use millstream::Receipt;
use serde_json::json;

use crate::failure::{Failure, Result};
use crate::output;

/// What a pipe takes at once or not at all (PIPE_BUF): whoever reads it sees whole lines only,
/// even if this process is killed at any moment.
const PIPE_ATOMIC_BYTES: usize = 4096;

/// Writes a line for each acknowledged record.
pub(super) struct Acks {
    stdout: File,
    /// Whole lines that are not written yet.
    lines: Vec<u8>,
    /// The line in the making.
    line: Vec<u8>,
    json: bool,
}

impl Acks {
    pub(super) fn new(json: bool) -> Result<Self> {
        let lines = Vec::with_capacity(PIPE_ATOMIC_BYTES);
        Ok(Self { stdout: output::stdout()?, lines, line: Vec::new(), json })
    }

    /// The record with this key was acknowledged.
    pub(super) fn add(&mut self, receipt: &Receipt, key: &str) -> Result<()> {
        let (shard, number) = (receipt.shard, receipt.sequence_number);
        self.line.clear();
        let written = if self.json {
            let ack = json!({
                "shard": shard.to_string(),
                "sequence_number": number.to_string(),
                "partition_key": key,
            });
            writeln!(self.line, "{ack}")
        } else {
            writeln!(self.line, "{shard}\t{number}\t{key}")
        };
        written.map_err(|e| Failure::stdout(&e))?;
        if self.lines.len() + self.line.len() > PIPE_ATOMIC_BYTES {
            self.flush()?;
        }
        self.lines.extend_from_slice(&self.line);
        Ok(())
    }

    /// Writes what there is.
    pub(super) fn flush(&mut self) -> Result<()> {
        let written = self.stdout.write_all(&self.lines);
        self.lines.clear();
        written.map_err(|e| {
            Failure::stdout(&e).so("everything in the summary was put, acknowledged there or not")
        })
    }
}
