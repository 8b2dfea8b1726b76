//! Durations and points in time as Go and the protobuf library read and write them.

use std::fmt::Write;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// In nanoseconds.
pub(super) const SECOND: i64 = 1_000_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const FIRST_SECOND: i64 = -62_135_596_800;
const LAST_SECOND: i64 = 253_402_300_799;

pub(super) fn in_range(stamp: Timestamp) -> bool {
    (FIRST_SECOND..=LAST_SECOND).contains(&stamp.as_second())
}

/// RFC 3339, with fractions of a second or without.
pub(super) fn timestamp(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    // The parser takes more than RFC 3339 does.
    let shaped = bytes.len() >= 20
        && bytes[..10]
            .iter()
            .enumerate()
            .all(|(at, b)| if at == 4 || at == 7 { *b == b'-' } else { b.is_ascii_digit() })
        && matches!(bytes[10], b'T' | b't')
        && bytes[11..19]
            .iter()
            .enumerate()
            .all(|(at, b)| if at == 2 || at == 5 { *b == b':' } else { b.is_ascii_digit() })
        && !text.contains('[');
    let zoned =
        matches!(bytes.last(), Some(b'Z' | b'z')) || bytes.iter().rev().nth(5).is_some_and(|b| b"+-".contains(b));
    if !shaped || !zoned {
        return None;
    }
    text.parse::<Timestamp>().ok().filter(|stamp| in_range(*stamp))
}

/// `2006-01-02`, at midnight in UTC.
pub(super) fn date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 {
        return None;
    }
    let date: Date = text.parse().ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

pub(super) fn timestamp_text(stamp: Timestamp) -> String {
    // Nanoseconds without the zeros at their end.
    stamp.to_string()
}

pub(super) fn shift(stamp: Timestamp, nanos: i64) -> Option<Timestamp> {
    stamp.checked_add(SignedDuration::from_nanos(nanos)).ok().filter(|stamp| in_range(*stamp))
}

/// Go's `time.ParseDuration`: `1h2m3.5s`.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || digits.len() > 40 {
            return None;
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(nanos)?)?;
        if !fraction.is_empty() {
            let kept = &fraction[..fraction.len().min(18)];
            let scale = 10_i128.pow(u32::try_from(kept.len()).ok()?);
            total = total.checked_add(kept.parse::<i128>().ok()?.checked_mul(nanos)? / scale)?;
        }
        rest = next;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// What the schema format `duration` takes: Go's form, or words as `3 days`.
pub(super) fn schema_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = duration(text) {
        return Some(nanos);
    }
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (count, unit) = text.split_at(end);
    let nanos: i64 = match unit.trim() {
        "ns" | "nano" => 1,
        "us" | "µs" | "micro" => 1_000,
        "ms" | "milli" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => SECOND,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hour" | "hours" => 3600 * SECOND,
        "d" | "day" | "days" => 24 * 3600 * SECOND,
        "w" | "wk" | "week" | "weeks" => 7 * 24 * 3600 * SECOND,
        _ => return None,
    };
    count.parse::<i64>().ok()?.checked_mul(nanos)
}

/// Seconds, as `3600s` and `0.5s`.
pub(super) fn duration_text(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (seconds, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    let mut text = format!("{sign}{seconds}");
    if rest > 0 {
        let _ = write!(text, ".{rest:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('s');
    text
}

/// A fixed offset (`+02:00`, `-8:30`) or UTC. Named zones need a database, which this crate does not read.
pub(super) fn zone(text: &str) -> Option<TimeZone> {
    if matches!(text, "UTC" | "Z" | "") {
        return Some(TimeZone::UTC);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    if !(0..24).contains(&hours) || !(0..60).contains(&minutes) {
        return None;
    }
    jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().map(TimeZone::fixed)
}
