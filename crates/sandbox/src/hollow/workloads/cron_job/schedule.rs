//! When a CronJob is due.
//!
//! Source: crontab(5), and what robfig/cron's standard parser takes, which Kubernetes uses (docs/decisions/cron.md).

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// A day that is looked for further ahead never comes (the 30th of February).
const DAYS_MAX: i32 = 5 * 366;
const TEXT_BYTES_MAX: usize = 256;

#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{0:?} is no schedule: {1}")]
pub struct Error(String, &'static str);

/// Bits of numbers that are meant.
type Set = u64;

#[derive(Debug, PartialEq)]
pub enum Schedule {
    /// After so long each, counted from the last time.
    Every(SignedDuration),
    At(Box<Fields>),
}

#[derive(Debug, PartialEq)]
pub struct Fields {
    minutes: Set,
    hours: Set,
    days: Set,
    months: Set,
    weekdays: Set,
    /// Either of them is said without a star: then one of the two is enough.
    any_day: bool,
    zone: TimeZone,
}

const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

impl Schedule {
    /// `zone`: a name of the IANA database; none: UTC.
    pub fn read(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let wrong = |why| Error(text.chars().take(TEXT_BYTES_MAX).collect(), why);
        if text.len() > TEXT_BYTES_MAX {
            return Err(wrong("it is too long"));
        }
        if let Some(rest) = text.trim().strip_prefix("@every ") {
            let every = every(rest).ok_or_else(|| wrong("it names no time"))?;
            return Ok(Self::Every(every));
        }
        let named = NAMED.iter().find(|(name, _)| *name == text.trim());
        let fields: Vec<&str> = named.map_or(text, |(_, fields)| fields).split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(wrong("it has not five fields"));
        };
        let zone = match zone {
            Some(name) => TimeZone::get(name).map_err(|_| wrong("its time zone is not known"))?,
            None => TimeZone::UTC,
        };
        let read = |text: &str, range: (u8, u8), names: &[&str], why| set(text, range, names).ok_or_else(|| wrong(why));
        let star = |text: &str| text.starts_with(['*', '?']);
        Ok(Self::At(Box::new(Fields {
            minutes: read(minutes, (0, 59), &[], "its minutes are not 0 to 59")?,
            hours: read(hours, (0, 23), &[], "its hours are not 0 to 23")?,
            days: read(days, (1, 31), &[], "its days are not 1 to 31")?,
            months: read(months, (1, 12), &MONTHS, "its months are not 1 to 12")?,
            weekdays: read(weekdays, (0, 6), &WEEKDAYS, "its weekdays are not 0 to 6")?,
            any_day: !star(days) && !star(weekdays),
            zone,
        })))
    }

    /// The first time after one; none if there is none for years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Every(every) => after.checked_add(*every).ok(),
            Self::At(fields) => fields.next(after),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let mut day = after.to_zoned(self.zone.clone()).date();
        for _ in 0..DAYS_MAX {
            if self.is_due_on(day) {
                let times = bits(self.hours).flat_map(|hour| bits(self.minutes).map(move |minute| (hour, minute)));
                let at = |(hour, minute)| {
                    let zoned = day.at(hour, minute, 0, 0).to_zoned(self.zone.clone());
                    zoned.ok().map(|zoned| zoned.timestamp())
                };
                if let Some(found) = times.filter_map(at).find(|at| *at > after) {
                    return Some(found);
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    fn is_due_on(&self, day: Date) -> bool {
        let has = |set: Set, number: i8| set & (1 << number) != 0;
        let by_date = has(self.days, day.day());
        let by_weekday = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        let meant = if self.any_day { by_date || by_weekday } else { by_date && by_weekday };
        has(self.months, day.month()) && meant
    }
}

fn bits(set: Set) -> impl Iterator<Item = i8> {
    (0..60).filter(move |number| set & (1 << number) != 0)
}

/// `*/15`, `1-5`, `mon,wed`, `0-30/10`.
fn set(text: &str, (low, high): (u8, u8), names: &[&str]) -> Option<Set> {
    let number = |text: &str| -> Option<u8> {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(at) => u8::try_from(at).ok()? + low,
            None => text.parse().ok()?,
        };
        (low..=high).contains(&number).then_some(number)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = step.map_or(Some(1), |step| step.parse::<u8>().ok())?;
        let (from, to) = match range {
            "*" | "?" => (low, high),
            range => match range.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                // A number with a step goes on to the end.
                None if part.contains('/') => (number(range)?, high),
                None => (number(range)?, number(range)?),
            },
        };
        if step == 0 || from > to {
            return None;
        }
        for number in (from..=to).step_by(usize::from(step)) {
            set |= 1 << number;
        }
    }
    Some(set)
}

/// As Go writes durations, in whole seconds: `1h30m`.
fn every(text: &str) -> Option<SignedDuration> {
    let mut rest = text.trim();
    let mut total_s = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|letter: char| letter.is_ascii_digit()).unwrap_or(rest.len());
        total_s += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[end..];
    }
    let seconds = SignedDuration::try_from_secs_f64(total_s.floor().max(1.0)).ok()?;
    (!text.trim().is_empty()).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, zone: Option<&str>, after: &str) -> String {
        let schedule = Schedule::read(text, zone).unwrap();
        schedule.next(after.parse().unwrap()).map(|at| at.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_next_time_follows_from_the_fields() {
        // A Thursday.
        let after = "2026-01-01T00:00:00Z";
        for (text, want) in [
            ("* * * * *", "2026-01-01T00:01:00Z"),
            ("*/15 * * * *", "2026-01-01T00:15:00Z"),
            ("5/20 3 * * *", "2026-01-01T03:05:00Z"),
            ("0 0 * * *", "2026-01-02T00:00:00Z"),
            ("30 6-8/2 * * 1-5", "2026-01-01T06:30:00Z"),
            ("0 0 1 feb,Mar *", "2026-02-01T00:00:00Z"),
            ("0 0 * * sun", "2026-01-04T00:00:00Z"),
            // Either the day of the month or that of the week.
            ("0 0 13 * FRI", "2026-01-02T00:00:00Z"),
            ("0 0 ? * 3", "2026-01-07T00:00:00Z"),
            ("0 0 29 2 *", "2028-02-29T00:00:00Z"),
            ("0 0 30 2 *", ""),
            ("@hourly", "2026-01-01T01:00:00Z"),
            ("@weekly", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(next(text, None, after), want, "{text}");
        }
        assert_eq!(next("0 8 * * *", Some("Europe/Berlin"), after), "2026-01-01T07:00:00Z");
        assert_eq!(next("0 8 * * *", Some("Europe/Berlin"), "2026-07-01T12:00:00Z"), "2026-07-02T06:00:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 7",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "@often",
            "@every",
            "@every x",
            "* * * * * *",
        ] {
            assert!(Schedule::read(text, None).is_err(), "{text}");
        }
        assert!(Schedule::read("* * * * *", Some("Nowhere/Else")).is_err());
        let long = |bytes: usize| format!("{}* * * * *", " ".repeat(bytes - 9));
        assert!(Schedule::read(&long(TEXT_BYTES_MAX), None).is_ok());
        assert!(Schedule::read(&long(TEXT_BYTES_MAX + 1), None).is_err());
    }
}
