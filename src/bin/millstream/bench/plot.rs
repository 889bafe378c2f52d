//! The figures as an SVG picture: three panels, readable on light and dark pages.

use std::fmt::Write;

use super::contest::Figure;
use super::table::{short, time};

const WIDTH: f64 = 800.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 90.0;
const BAR: f64 = 16.0;
const GAP: f64 = 10.0;
/// Colours of ours, and of what it is compared with.
const STYLE: &str = "\
<style>
  svg { font: 12px system-ui, sans-serif; background: #fff }
  text { fill: #24292f } .title { font-weight: 600; font-size: 14px }
  .other { fill: #afb8c1 } .ours { fill: #0969da } .axis { stroke: #d0d7de }
  .line { fill: none; stroke-width: 2 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117 } text { fill: #e6edf3 }
    .other { fill: #484f58 } .ours { fill: #58a6ff } .axis { stroke: #30363d }
  }
</style>
";
/// Of the lines; told apart on either page, and in most kinds of colour blindness.
const LINES: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9"];
const QUANTILES: [(f64, &str); 6] =
    [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99"), (1.0, "max")];

/// The whole picture.
pub(super) fn svg(figures: &[Figure]) -> String {
    let mut body = String::new();
    let mut y = 8.0;
    let is_put = |figure: &&Figure| figure.work.starts_with("put ");
    let by_producers = |figure: &&Figure| figure.work.ends_with("producers");
    let has_rate = || figures.iter().filter(|figure| figure.ns_per_record.is_some());
    let sizes: Vec<_> = has_rate().filter(|f| is_put(f) && !by_producers(f)).collect();
    let mib = |figure: &Figure, per_s: f64| figure.record_bytes as f64 * per_s / 1048576.0;
    y = bars(&mut body, y, "Throughput by record size, MiB/s", &sizes, mib);
    let producers: Vec<_> = has_rate().filter(by_producers).collect();
    y = bars(&mut body, y, "Throughput by producers, records/s", &producers, |_, per_s| per_s);
    let timed: Vec<_> = figures.iter().filter(|figure| !figure.times.is_empty()).collect();
    y = lines(&mut body, y, "Time of one call by percentile", &timed);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" \
         height=\"{y}\">\n{STYLE}{body}</svg>\n"
    )
}

/// A bar for each figure; where the panel ends.
fn bars(
    out: &mut String,
    top: f64,
    title: &str,
    figures: &[&Figure],
    value: impl Fn(&Figure, f64) -> f64,
) -> f64 {
    let per_s = |figure: &Figure| 1e9 / figure.ns_per_record.unwrap_or(f64::INFINITY);
    let value = |figure: &Figure| value(figure, per_s(figure));
    let most = figures.iter().map(|figure| value(figure)).fold(0.0, f64::max);
    if most == 0.0 {
        return top;
    }
    let mut y = title_at(out, top, title);
    let mut work = "";
    for figure in figures {
        if figure.work != work {
            work = &figure.work;
            text(out, (8.0, y + BAR - 4.0), "start", work);
            y += BAR;
        }
        let length = (WIDTH - LEFT - RIGHT) * value(figure) / most;
        let class = if figure.by.contains("put") || figure.by.contains("producer") {
            "ours"
        } else {
            "other"
        };
        text(out, (LEFT - 8.0, y + BAR - 4.0), "end", &figure.by);
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\"/>",
            BAR - 2.0
        );
        text(out, (LEFT + length + 6.0, y + BAR - 4.0), "start", &short(value(figure)));
        y += BAR;
    }
    y + 2.0 * GAP
}

/// A line for each figure over the percentiles, on a scale of powers of ten; where the panel ends.
fn lines(out: &mut String, top: f64, title: &str, figures: &[&Figure]) -> f64 {
    const HEIGHT: f64 = 240.0;
    let values = |figure: &Figure| QUANTILES.map(|(at, _)| figure.times.value_at_quantile(at));
    let all = || figures.iter().flat_map(|figure| values(figure));
    let Some((least, most)) = all().min().zip(all().max()) else { return top };
    let top = title_at(out, top, title) + GAP;
    let power = |ns: u64| (ns.max(1) as f64).log10();
    let (low, high) = (power(least).floor(), power(most).ceil().max(power(least).floor() + 1.0));
    let x = |step: usize| 60.0 + step as f64 * (WIDTH - 380.0) / (QUANTILES.len() - 1) as f64;
    let y = |power: f64| top + HEIGHT * (high - power) / (high - low);
    for step in low as u32..=high as u32 {
        let at = y(f64::from(step));
        let end = x(QUANTILES.len() - 1);
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"60\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
        );
        text(out, (54.0, at + 4.0), "end", &time(10u64.pow(step)));
    }
    for (step, (_, name)) in QUANTILES.iter().enumerate() {
        text(out, (x(step), top + HEIGHT + 18.0), "middle", name);
    }
    for (n, figure) in figures.iter().enumerate() {
        let points = values(figure).into_iter().enumerate();
        let points = points.map(|(step, ns)| format!("{:.1},{:.1}", x(step), y(power(ns))));
        let points = points.collect::<Vec<_>>().join(" ");
        let colour = LINES[n % LINES.len()];
        let dashes = if n < LINES.len() { "" } else { " stroke-dasharray=\"5 3\"" };
        let _ = writeln!(
            out,
            "<polyline class=\"line\" stroke=\"{colour}\"{dashes} points=\"{points}\"/>"
        );
        let (at, name) = (top + 18.0 * n as f64, format!("{}: {}", figure.work, figure.by));
        let left = WIDTH - 290.0;
        let _ = writeln!(
            out,
            "<line stroke=\"{colour}\"{dashes} stroke-width=\"3\" x1=\"{left}\" x2=\"{}\" \
             y1=\"{at}\" y2=\"{at}\"/>",
            left + 20.0
        );
        text(out, (left + 26.0, at + 4.0), "start", &name);
    }
    top + HEIGHT.max(18.0 * figures.len() as f64) + 36.0
}

fn title_at(out: &mut String, top: f64, title: &str) -> f64 {
    let _ = writeln!(out, "<text class=\"title\" x=\"8\" y=\"{}\">{title}</text>", top + 14.0);
    top + 26.0
}

/// A text that needs no escapes: names of ours and numbers.
fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}
