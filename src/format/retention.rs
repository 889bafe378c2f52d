//! The line of a manifest that says how long records are kept.

use std::time::Duration;

use crate::format::line::Fields;
use crate::retention::{Retention, WhenFull};

/// The line.
pub(super) fn encode(retention: &Retention) -> String {
    let or_dash = |limit: Option<u64>| limit.map_or("-".into(), |limit| limit.to_string());
    let when_full = match retention.when_full {
        WhenFull::DropOldest => "drop-oldest".into(),
        WhenFull::Reject => "reject".into(),
        WhenFull::Block(time) => format!("block-{}", time.as_millis()),
    };
    let hold_for = retention.hold_for.join("+");
    format!(
        "retention age-ms {} bytes {} records {} when-full {when_full} hold-for {}",
        or_dash(retention.age_ms()),
        or_dash(retention.bytes),
        or_dash(retention.records),
        if hold_for.is_empty() { "-" } else { &hold_for },
    )
}

/// What the line says.
///
/// # Errors
/// What is wrong, and at which byte.
pub(super) fn decode(mut line: Fields<'_>) -> Result<Retention, (u64, String)> {
    line.name("retention")?;
    let age = line.named_optional("age-ms")?.map(Duration::from_millis);
    let bytes = line.named_optional("bytes")?;
    let records = line.named_optional("records")?;
    line.name("when-full")?;
    let when_full = match line.field()? {
        "drop-oldest" => WhenFull::DropOldest,
        "reject" => WhenFull::Reject,
        other => other
            .strip_prefix("block-")
            .and_then(|ms| ms.parse().ok())
            .map(|ms| WhenFull::Block(Duration::from_millis(ms)))
            .ok_or_else(|| line.wrong(format!("{other:?} is nothing to do when full")))?,
    };
    let hold_for: Option<String> = line.named_optional("hold-for")?;
    let hold_for = hold_for.iter().flat_map(|names| names.split('+')).map(Into::into).collect();
    Ok(Retention { age, bytes, records, hold_for, when_full })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_retention_comes_back_as_it_was_written() {
        let limits = Retention::default().bytes(7).records(u64::MAX);
        let block = WhenFull::Block(Duration::from_millis(1500));
        let held = limits.clone().when_full(WhenFull::Reject).hold_for(["a", "b-c"]);
        for retention in [Retention::default(), limits.clone(), limits.when_full(block), held] {
            assert_eq!(decode(Fields::of(&encode(&retention), 0)), Ok(retention));
        }
    }

    #[test]
    fn what_is_no_retention_is_refused() {
        let line = encode(&Retention::default());
        for (from, to) in [("drop-oldest", "drop"), ("drop-oldest", "block-x"), ("age-ms -", "")] {
            assert!(decode(Fields::of(&line.replace(from, to), 0)).is_err(), "{to}");
        }
    }
}
