//! Compares the tables of the manual with what is written.

/// Offset, size and name of each field in the first table below this heading.
fn table(heading: &str) -> Vec<(usize, usize, String)> {
    let manual = include_str!("../manual/format.md");
    let mut lines =
        manual.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading);
    assert!(lines.next().is_some(), "there is no heading {heading}");
    let rows = lines.skip_while(|line| !line.starts_with('|')).take_while(|l| l.starts_with('|'));
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows: Vec<_> = rows.skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "there is no table below {heading}");
    let number = |cell: &str| cell.parse().unwrap();
    rows.iter().map(|row| (number(&row[0]), number(&row[1]), row[2].clone())).collect()
}

/// Fails unless the table below this heading says exactly this.
#[track_caller]
pub(super) fn says(heading: &str, fields: &[(usize, usize, &str)]) {
    let table = table(heading);
    let table: Vec<_> = table.iter().map(|(at, size, name)| (*at, *size, &name[..])).collect();
    assert_eq!(table, fields, "{heading}");
    let overlap = table.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0);
    assert_eq!(overlap, None, "{heading}");
}
