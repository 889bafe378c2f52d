//! Where to start reading, as it is written on the command line: `-o`.

use std::str::FromStr;

use millstream::SequenceNumber;

/// Where to start reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offset {
    /// `horizon`: at the oldest record there is.
    Horizon,
    /// `latest`: behind the newest record there is.
    Latest,
    /// `123`: at the record with this number, or the next one above it.
    Number(SequenceNumber),
    /// `-10`: at the tenth record from the end of each shard.
    FromEnd(usize),
    /// `@1735689600000`, `@2025-01-01T00:00:00Z`: at the first record that arrived then or later.
    TimestampMs(u64),
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(time) = text.strip_prefix('@') {
            let wrong = || {
                format!("{time:?} is no time: 1735689600000 (ms) or 2025-01-01T00:00:00.000+00:00")
            };
            return parse_time_ms(time).map(Self::TimestampMs).ok_or_else(wrong);
        }
        if let Some(count) = text.strip_prefix('-') {
            return count.parse().map(Self::FromEnd).map_err(|_| format!("{text:?} is no count"));
        }
        match text {
            "horizon" => Ok(Self::Horizon),
            "latest" => Ok(Self::Latest),
            _ => text.parse().map(Self::Number).map_err(|_| {
                "one of horizon, latest, NUMBER, -COUNT and @TIME is expected".to_owned()
            }),
        }
    }
}

/// Milliseconds since 1970: given as such, or as `YYYY-MM-DD[THH:MM[:SS[.fff]]][Z|+HH:MM|-HH:MM]`,
/// in UTC unless it says otherwise.
fn parse_time_ms(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (date, time) = text.split_once(['T', ' ']).unwrap_or((text, "00:00"));
    let (time, offset_minutes) = split_zone(time)?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let days = days_since_1970(digits(year)?, digits(month)?, digits(day)?)?;
    let (minutes, ms) = parse_time_of_day(time)?;
    let total_minutes = days * 1440 + minutes - offset_minutes;
    u64::try_from(total_minutes * 60_000 + ms).ok()
}

/// The time without its zone, and how many minutes the zone is ahead of UTC.
fn split_zone(time: &str) -> Option<(&str, i64)> {
    if let Some(time) = time.strip_suffix('Z') {
        return Some((time, 0));
    }
    let Some(at) = time.find(['+', '-']) else { return Some((time, 0)) };
    let (time, zone) = time.split_at(at);
    let (hours, minutes) = zone[1..].split_once(':')?;
    let minutes = digits(hours).filter(|h| *h < 24)? * 60 + digits(minutes).filter(|m| *m < 60)?;
    Some((time, if zone.starts_with('-') { -minutes } else { minutes }))
}

/// `HH:MM[:SS[.fff]]` as minutes and milliseconds.
fn parse_time_of_day(time: &str) -> Option<(i64, i64)> {
    let mut parts = time.splitn(3, ':');
    let hours = digits(parts.next()?).filter(|h| *h < 24)?;
    let minutes = digits(parts.next()?).filter(|m| *m < 60)?;
    let (seconds, fraction) = match parts.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "0")),
        None => ("0", "0"),
    };
    let seconds = digits(seconds).filter(|s| *s < 60)?;
    digits(fraction)?;
    let ms = digits(&format!("{fraction:0<3}")[..3])?;
    Some((hours * 60 + minutes, seconds * 1000 + ms))
}

/// Days from 1970-01-01 to this date.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month_index = usize::try_from(month).ok()?.checked_sub(1)?;
    let length = *lengths.get(month_index)?;
    if !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    let years = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    Some(years + lengths[..month_index].iter().sum::<i64>() + day - 1)
}

/// A short number without a sign.
fn digits(text: &str) -> Option<i64> {
    let plain = !text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_offset_is_understood() {
        assert_eq!("horizon".parse(), Ok(Offset::Horizon));
        assert_eq!("latest".parse(), Ok(Offset::Latest));
        assert_eq!("17".parse(), Ok(Offset::Number(17.into())));
        assert_eq!("-3".parse(), Ok(Offset::FromEnd(3)));
        assert_eq!("@17".parse(), Ok(Offset::TimestampMs(17)));
        for wrong in ["", "-", "-x", "--1", "@", "@x", "end", "+1", "01", "1.5"] {
            assert!(wrong.parse::<Offset>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_as_utc_unless_they_say_otherwise() {
        let cases = [
            ("1970-01-01", 0),
            ("1970-01-02", 86_400_000),
            ("2000-03-01", 951_868_800_000),
            ("2025-01-01T00:00:00Z", 1_735_689_600_000),
            ("2025-01-01T00:00:00.5Z", 1_735_689_600_500),
            ("2025-01-01 00:00", 1_735_689_600_000),
            ("2025-01-01T01:00:00.123456+01:00", 1_735_689_600_123),
            ("2024-12-31T19:30-04:30", 1_735_689_600_000),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_time_ms(text), Some(ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "2025-",
            "2025-13-01",
            "2025-02-29",
            "2025-01-00",
            "2025-01-01T24:00",
            "1969-12-31",
            "2025-01-01T00:60",
            "2025-01-01T00:00:60",
            "2025-01-01T00",
            "2025-01-01T00:00+1",
            "2025-01-01T00:00:00.",
            "2025-01-01T00:00:00.ä",
            "2025-1-1-1",
            "T",
            "2025-01-01T",
            "2025-01-01T00:00+99:00",
        ] {
            assert_eq!(parse_time_ms(text), None, "{text}");
        }
    }
}
