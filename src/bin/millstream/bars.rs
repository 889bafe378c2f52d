//! A bar for each shard on standard error: how far its worker is, how far behind, how fast.

use std::collections::BTreeMap;
use std::sync::Arc;

use indicatif::{HumanCount, MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use millstream::{ShardId, ShardState, ShardStatus};

/// Fits on 80 columns.
const TEMPLATE: &str = "{prefix} [{wide_bar}] {human_pos:>10} done  lag {msg:>8}  {rate:>9}";

/// The bars; nothing is drawn unless standard error is a terminal.
#[derive(Default)]
pub(crate) struct ShardBars {
    multi: MultiProgress,
    bars: BTreeMap<(Arc<str>, ShardId), ProgressBar>,
}

impl ShardBars {
    /// Bars that are never drawn.
    pub(crate) fn hidden() -> Self {
        let multi = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden());
        Self { multi, bars: BTreeMap::new() }
    }

    /// Whether nobody sees them.
    pub(crate) fn is_hidden(&self) -> bool {
        self.multi.is_hidden()
    }

    /// What writes between the bars without tearing them; see [`MultiProgress::suspend`].
    pub(crate) fn screen(&self) -> MultiProgress {
        self.multi.clone()
    }

    /// Draws how it is now.
    pub(crate) fn update(&mut self, shards: &[ShardStatus]) {
        if self.is_hidden() {
            return;
        }
        let is_one_stream = shards.iter().all(|status| status.stream == shards[0].stream);
        for status in shards {
            let key = (Arc::clone(&status.stream), status.shard);
            let bar = self.bars.entry(key).or_insert_with(|| {
                let bar = ProgressBar::new(0).with_style(style());
                let name = match is_one_stream {
                    true => status.shard.to_string(),
                    false => format!("{} {}", status.stream, status.shard),
                };
                self.multi.add(bar.with_prefix(name))
            });
            bar.set_length((status.records_processed + status.lag.records).max(1));
            bar.set_position(status.records_processed);
            bar.set_message(match status.state {
                ShardState::Ended => "(ended)".to_owned(),
                ShardState::Retrying => "(retry)".to_owned(),
                ShardState::WaitingForParents => "(waits)".to_owned(),
                _ => HumanCount(status.lag.records).to_string(),
            });
        }
    }

    /// Takes the bars away.
    pub(crate) fn clear(&mut self) {
        for bar in std::mem::take(&mut self.bars).into_values() {
            bar.finish_and_clear();
            self.multi.remove(&bar);
        }
    }
}

fn style() -> ProgressStyle {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        // Nothing can be done about a line that cannot be drawn.
        let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
    };
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or(ProgressStyle::default_bar());
    style.with_key("rate", rate)
}
