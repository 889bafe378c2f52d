//! The ring of hash keys as text: one line for each shape that a stream has had.

use millstream::ShardInfo;

use crate::output;

/// How wide the ring is drawn, so that a line with its time fits in 80 columns.
const COLUMNS: u128 = 60;
/// So many shapes are drawn, the latest ones.
const MAX_LINES: usize = 12;

/// The ring as it was at each time at which shards were opened.
pub(crate) fn history(shards: &[ShardInfo]) -> String {
    let mut times: Vec<u64> = shards.iter().map(|shard| shard.opened_ms).collect();
    times.sort_unstable();
    times.dedup();
    let mut text = String::from("\n");
    let skipped = times.len().saturating_sub(MAX_LINES);
    if skipped > 0 {
        text += &format!("{:>16}  and {skipped} earlier\n", "...");
    }
    for ms in &times[skipped..] {
        let was_open = |shard: &&ShardInfo| {
            shard.opened_ms <= *ms && shard.closed_ms.is_none_or(|closed| *ms < closed)
        };
        let time = if *ms == 0 { "earlier".to_owned() } else { output::time(*ms) };
        text += &format!("{time:>16}  {}\n", ring(shards.iter().filter(was_open)));
    }
    text
}

/// A ring: a stroke where each shard begins, and behind it the shard's index if there is room.
fn ring<'a>(open: impl Iterator<Item = &'a ShardInfo>) -> String {
    let column = |key: u128| (key / (u128::MAX / COLUMNS)).min(COLUMNS - 1) as usize;
    let mut open: Vec<_> = open
        .map(|shard| (column(shard.hash_key_range.start.get()), shard.id.index().to_string()))
        .collect();
    open.sort_by_key(|(start, _)| *start);
    let mut line = vec![b'-'; COLUMNS as usize];
    for (at, (start, index)) in open.iter().enumerate() {
        line[*start] = b'|';
        let end = open.get(at + 1).map_or(line.len(), |(next, _)| *next);
        let room = end.saturating_sub(start + 1);
        if index.len() <= room {
            // In the middle.
            let from = start + 1 + (room - index.len()) / 2;
            line[from..from + index.len()].copy_from_slice(index.as_bytes());
        }
    }
    String::from_utf8_lossy(&line).into_owned() + "|"
}
