//! Times and sizes, as they are written on the command line.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
const BYTE_UNITS: [(&str, u64); 5] =
    [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40), ("", 1)];

/// A limit, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit<T>(pub(crate) Option<T>);

impl<T> Limit<T> {
    /// What is written is `none`, or understood by `parse`, which understands what is `expected`.
    pub(crate) fn parse(
        text: &str,
        parse: impl Fn(&str) -> Option<T>,
        expected: &str,
    ) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            _ => match parse(text) {
                Some(value) => Ok(Self(Some(value))),
                None => Err(format!("{expected}, or none, is expected")),
            },
        }
    }
}

/// The time that is written as 250ms, 90s, 30m, 12h or 7d.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    quantity(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// So many bytes, written as 1048576, 64KiB, 512MiB, 10GiB or 1TiB.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    quantity(text, &BYTE_UNITS)
}

/// A time as it would be written here, in the largest unit that is exact.
pub(crate) fn as_duration(time: Duration) -> String {
    let ms = time.as_millis();
    let fits = |(_, unit): &&(&str, u64)| ms.is_multiple_of(u128::from(*unit));
    let (name, unit) = DURATION_UNITS.iter().rev().find(fits).unwrap_or(&DURATION_UNITS[0]);
    format!("{}{name}", ms / u128::from(*unit))
}

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, name) = text.split_at(digits);
    let (_, unit) = units.iter().find(|(unit, _)| *unit == name)?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

/// How long one who looks again and again waits in between.
pub(crate) fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text).filter(|time| *time >= Duration::from_millis(10));
    interval.ok_or_else(|| "a time of at least 10ms is expected, as in 250ms or 2s".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_in_their_units() {
        for text in ["0d", "250ms", "90s", "30m", "12h", "7d"] {
            assert_eq!(duration(text).map(as_duration).as_deref(), Some(text));
        }
        assert_eq!(duration("120s").map(as_duration).as_deref(), Some("2m"));
        for wrong in ["", "7", "d", "7 d", "-7d", "1.5h", "7w", "99999999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn sizes_are_plain_or_have_a_binary_unit() {
        let sizes = [("17", 17), ("64KiB", 65536), ("10GiB", 10 << 30), ("1TiB", 1 << 40)];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Some(size));
        }
        for wrong in ["", "KiB", "1KB", "1 KiB", "-1", "99999999999TiB"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
