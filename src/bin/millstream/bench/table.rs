//! The figures as a table of 80 columns, and as JSON.

use serde_json::{Value, json};

use super::contest::Figure;

/// One table; the first line of each work is what the others are compared to.
pub(super) fn text(figures: &[Figure]) -> String {
    let mut text = format!(
        "{:<24}{:>10}{:>9}{:>7}{:>7}{:>7}{:>7}{:>8}\n",
        "", "RECORDS/S", "MIB/S", "SPEED", "P50", "P99", "P99.9", "MAX"
    );
    let mut first: Option<&Figure> = None;
    for figure in figures {
        if first.is_none_or(|first| first.work != figure.work) {
            first = Some(figure);
            text += &format!("{}\n", figure.work);
        }
        text += &format!("  {:<22}", figure.by);
        let cells = figure.ns_per_record.map(|ns| {
            let speed = first.and_then(|first| first.ns_per_record).map_or(1.0, |first| first / ns);
            [short(1e9 / ns), format!("{:.1}", mib_per_s(figure, ns)), format!("{speed:.2}")]
        });
        let [records, mib, speed] = cells.unwrap_or_else(|| std::array::from_fn(|_| "-".into()));
        text += &format!("{records:>10}{mib:>9}{speed:>7}");
        if figure.times.is_empty() {
            text.push('\n');
            continue;
        }
        let at = |share| time(figure.times.value_at_quantile(share));
        let max = time(figure.times.max());
        text += &format!("{:>7}{:>7}{:>7}{max:>8}\n", at(0.5), at(0.99), at(0.999));
    }
    text
}

fn mib_per_s(figure: &Figure, ns_per_record: f64) -> f64 {
    figure.record_bytes as f64 * 1e9 / ns_per_record / f64::from(1 << 20)
}

/// A number in three digits or so: `12.3M`.
pub(super) fn short(number: f64) -> String {
    match number {
        1e6.. => format!("{:.1}M", number / 1e6),
        1e3.. => format!("{:.1}k", number / 1e3),
        _ => format!("{number:.0}"),
    }
}

/// A time in ns, in three digits or so: `1.2us`.
pub(super) fn time(ns: u64) -> String {
    let (number, unit) = match ns as f64 {
        ns @ 1e9.. => (ns / 1e9, "s"),
        ns @ 1e6.. => (ns / 1e6, "ms"),
        ns @ 1e3.. => (ns / 1e3, "us"),
        ns => return format!("{ns}ns"),
    };
    let digits = if number < 99.95 { 1 } else { 0 };
    format!("{number:.digits$}{unit}")
}

pub(super) fn as_json(figure: &Figure) -> Value {
    let times = &figure.times;
    let at = |share| times.value_at_quantile(share);
    let latency = (!times.is_empty()).then(|| {
        json!({
            "count": times.len(), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99),
            "p99_9": at(0.999), "p99_99": at(0.9999), "max": times.max(),
        })
    });
    json!({
        "work": figure.work, "by": figure.by, "record_bytes": figure.record_bytes,
        "ns_per_record": figure.ns_per_record,
        "records_per_s": figure.ns_per_record.map(|ns| 1e9 / ns),
        "mib_per_s": figure.ns_per_record.map(|ns| mib_per_s(figure, ns)),
        "latency_ns": latency,
    })
}

#[cfg(test)]
mod tests {
    use hdrhistogram::Histogram;

    use super::*;

    fn figure(work: &str, by: &str, ns_per_record: Option<f64>, times: &[u64]) -> Figure {
        let mut histogram = Histogram::new(3).unwrap();
        times.iter().for_each(|time| histogram.record(*time).unwrap());
        let (work, by) = (work.to_owned(), by.to_owned());
        Figure { work, by, record_bytes: 1 << 10, ns_per_record, times: histogram }
    }

    #[test]
    fn the_table_fits_a_terminal_and_compares_with_the_first_of_the_same_work() {
        let figures = [
            figure("put 1 KiB", "limit: ready map, crc", Some(100.0), &[]),
            figure("put 1 KiB", "put", Some(200.0), &[90, 1500, 999_900, 3_100_000_000]),
            figure("put to seen", "reader parks", None, &[12_345]),
        ];
        let text = text(&figures);
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.contains("put                         5.0M   4882.8   0.50"), "{text}");
        assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 2, "{text}");
        assert!(text.ends_with("12.4us 12.4us 12.4us  12.4us\n"), "{text}");
        let json = as_json(&figures[1]);
        assert_eq!(
            (&json["records_per_s"], &json["latency_ns"]["count"]),
            (&json!(5e6), &json!(4))
        );
        assert_eq!(as_json(&figures[2])["ns_per_record"], Value::Null);
    }
}
