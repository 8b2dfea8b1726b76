//! Texts read with a layout, as Go's `time.Parse` does.

use jiff::civil;

use super::{
    layout::{DAYS, MONTHS, next_part},
    time::Time,
};

/// As package `time` quotes: whatever is not ASCII byte by byte.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' | 0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

/// The time that a text tells. What the layout does not name is the start of the year 0.
///
/// # Errors
/// Where it does not fit, in Go's words.
pub fn parsed(layout: &str, text: &str) -> Result<Time, String> {
    let failed = |wrong: Wrong<'_>| {
        let told = |what: String| format!("parsing time {}{what}", quoted(text));
        match wrong {
            Wrong::Shape { rest, part } => {
                told(format!(" as {}: cannot parse {} as {}", quoted(layout), quoted(rest), quoted(part)))
            }
            Wrong::Range(what) => told(format!(": {what} out of range")),
            Wrong::More(rest) => told(format!(": extra text: {}", quoted(rest))),
        }
    };
    let mut reader = Reader::new(text);
    reader.read(layout).and_then(|()| reader.time()).map_err(failed)
}

enum Wrong<'t> {
    Shape { rest: &'t str, part: &'t str },
    Range(&'static str),
    More(&'t str),
}

struct Reader<'t> {
    rest: &'t str,
    year: i16,
    month: Option<i8>,
    day: Option<i8>,
    day_of_year: Option<i16>,
    hour: i8,
    minute: i8,
    second: i8,
    nanoseconds: i32,
    afternoon: Option<bool>,
    offset_s: Option<i32>,
    zone: &'t str,
    /// What the zone's name says of how far it is ahead: the time is told so, and read as if it were not, as Go does.
    shown_s: i32,
}

/// Why a part of the text is none.
enum Odd {
    Shape,
    Range(&'static str),
}

type Part<T> = Result<T, Odd>;

impl<'t> Reader<'t> {
    fn new(rest: &'t str) -> Self {
        Self {
            rest,
            year: 0,
            month: None,
            day: None,
            day_of_year: None,
            hour: 0,
            minute: 0,
            second: 0,
            nanoseconds: 0,
            afternoon: None,
            offset_s: None,
            zone: "",
            shown_s: 0,
        }
    }

    fn read<'l: 't>(&mut self, mut layout: &'l str) -> Result<(), Wrong<'t>> {
        while let Some((before, part, after)) = next_part(layout) {
            self.skip(before)?;
            layout = after;
            let rest = self.rest;
            self.part(part, after).map_err(|odd| match odd {
                Odd::Shape => Wrong::Shape { rest, part },
                Odd::Range(what) => Wrong::Range(what),
            })?;
        }
        self.skip(layout)?;
        if self.rest.is_empty() { Ok(()) } else { Err(Wrong::More(self.rest)) }
    }

    /// What stands between parts: as many spaces as there are go for any number of them.
    fn skip(&mut self, mut between: &'t str) -> Result<(), Wrong<'t>> {
        while let Some(c) = between.chars().next() {
            let wrong = Wrong::Shape { rest: self.rest, part: between };
            if c == ' ' {
                if !self.rest.is_empty() && !self.rest.starts_with(' ') {
                    return Err(wrong);
                }
                (between, self.rest) = (between.trim_start_matches(' '), self.rest.trim_start_matches(' '));
                continue;
            }
            match (between.strip_prefix(c), self.rest.strip_prefix(c)) {
                (Some(left), Some(rest)) => (between, self.rest) = (left, rest),
                _ => return Err(wrong),
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: usize) -> Part<&'t str> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(Odd::Shape)?;
        self.rest = rest;
        Ok(taken)
    }

    /// So many digits.
    fn digits<N: std::str::FromStr>(&mut self, count: usize) -> Part<N> {
        let taken = self.take(count)?;
        if !taken.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Odd::Shape);
        }
        taken.parse().map_err(|_| Odd::Shape)
    }

    /// One digit or two; two where the layout has two.
    fn number(&mut self, part: &str) -> Part<i8> {
        let second = self.rest.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
        self.digits(if second || part.len() == 2 { 2 } else { 1 })
    }

    fn part(&mut self, part: &str, after: &str) -> Part<()> {
        match part {
            "2006" => self.year = self.digits(4)?,
            "06" => {
                let short: i16 = self.digits(2)?;
                self.year = if short >= 69 { 1900 + short } else { 2000 + short };
            }
            "01" | "1" => {
                self.month = Some(within(self.number(part)?, 1..=12, "month")?);
            }
            "_2" => {
                self.rest = self.rest.strip_prefix(' ').unwrap_or(self.rest);
                self.day = Some(self.number("2")?);
            }
            "02" | "2" => self.day = Some(self.number(part)?),
            "002" => self.day_of_year = Some(self.digits(3)?),
            "__2" => {
                let spaces = self.rest.bytes().take(2).take_while(|b| *b == b' ').count();
                self.take(spaces)?;
                self.day_of_year = Some(self.digits(3 - spaces)?);
            }
            "15" => self.hour = within(self.number("3")?, 0..=23, "hour")?,
            "03" | "3" => self.hour = within(self.number(part)?, 0..=12, "hour")?,
            "04" | "4" => self.minute = within(self.number(part)?, 0..=59, "minute")?,
            "05" | "5" => {
                self.second = within(self.number(part)?, 0..=59, "second")?;
                // A fraction may follow that the layout does not name.
                if !next_part(after).is_some_and(|(_, part, _)| part.starts_with(['.', ','])) {
                    self.fraction(None)?;
                }
            }
            "PM" | "pm" => {
                let told = self.take(2)?;
                let upper = part == "PM";
                self.afternoon = Some(match told {
                    "PM" if upper => true,
                    "AM" if upper => false,
                    "pm" if !upper => true,
                    "am" if !upper => false,
                    _ => return Err(Odd::Shape),
                });
            }
            "January" | "Jan" => self.month = i8::try_from(self.name(&MONTHS, part == "Jan")? + 1).ok(),
            "Monday" | "Mon" => drop(self.name(&DAYS, part == "Mon")?),
            "MST" => self.zone()?,
            _ if part.starts_with('Z') && self.rest.starts_with('Z') => {
                self.take(1)?;
                self.offset_s = Some(0);
                self.zone = "UTC";
            }
            _ if part.starts_with(['-', 'Z']) => self.offset(part)?,
            _ => self.fraction(Some(part))?,
        }
        Ok(())
    }

    fn name(&mut self, names: &[&str], short: bool) -> Part<usize> {
        for (index, name) in names.iter().enumerate() {
            let name = if short { &name[..3] } else { name };
            if self.rest.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)) {
                self.take(name.len())?;
                return Ok(index);
            }
        }
        Err(Odd::Shape)
    }

    /// What is behind a point: all digits where no part of a layout says how many.
    fn fraction(&mut self, part: Option<&str>) -> Part<()> {
        let bytes = self.rest.as_bytes();
        let pointed = matches!(bytes.first(), Some(b'.' | b','));
        let digits = bytes.iter().skip(1).take_while(|b| b.is_ascii_digit()).count();
        let wanted = match part {
            Some(part) if part[1..].starts_with('0') => part.len() - 1,
            _ if !pointed || digits == 0 => return Ok(()),
            _ => digits,
        };
        if !pointed || digits < wanted {
            return Err(Odd::Shape);
        }
        let taken = self.take(1 + wanted)?;
        let shown = taken.get(1..=wanted.min(9)).unwrap_or_default();
        self.nanoseconds = format!("{shown:0<9}").parse().map_err(|_| Odd::Shape)?;
        Ok(())
    }

    /// `-07:00` and its like.
    fn offset(&mut self, part: &str) -> Part<()> {
        let negative = match self.take(1)? {
            "+" => false,
            "-" => true,
            _ => return Err(Odd::Shape),
        };
        let count = part.bytes().filter(u8::is_ascii_digit).count() / 2;
        let limits = [
            (24, 3600, "time zone offset hour"),
            (60, 60, "time zone offset minute"),
            (60, 1, "time zone offset second"),
        ];
        let mut offset_s = 0;
        for (index, (most, unit, what)) in limits.into_iter().take(count).enumerate() {
            if index > 0 && part.contains(':') && self.take(1)? != ":" {
                return Err(Odd::Shape);
            }
            offset_s += unit * i32::from(within(self.digits(2)?, 0..=most, what)?);
        }
        self.offset_s = Some(if negative { -offset_s } else { offset_s });
        Ok(())
    }

    /// A short name: three letters, or four or five of which the last is a T. `GMT` may have hours behind it.
    fn zone(&mut self) -> Part<()> {
        let letters = self.rest.bytes().take_while(u8::is_ascii_uppercase).count();
        let taken = match (letters, self.rest.get(..4)) {
            (_, Some("ChST" | "MeST")) => 4,
            (3, _) => {
                let hours = self.rest.strip_prefix("GMT").filter(|rest| rest.starts_with(['+', '-']));
                let digits = hours.map_or(0, |hours| hours.bytes().skip(1).take_while(u8::is_ascii_digit).count());
                let told = hours.and_then(|hours| hours.get(..=digits)?.parse::<i32>().ok());
                match told.filter(|hours| digits > 0 && (-23..=23).contains(hours)) {
                    Some(hours) => {
                        self.zone = self.take(4 + digits)?;
                        self.shown_s = hours * 3600;
                        return Ok(());
                    }
                    None => 3,
                }
            }
            (4, Some(name)) if name.ends_with('T') || name == "WITA" => 4,
            (5, _) if self.rest.as_bytes().get(4) == Some(&b'T') => 5,
            _ => return Err(Odd::Shape),
        };
        self.zone = self.take(taken)?;
        if self.zone == "UTC" {
            self.offset_s = self.offset_s.or(Some(0));
        }
        Ok(())
    }

    fn time(self) -> Result<Time, Wrong<'t>> {
        let hour = match self.afternoon {
            Some(afternoon) if self.hour <= 12 => self.hour % 12 + if afternoon { 12 } else { 0 },
            _ => self.hour,
        };
        let date = match (self.day_of_year, self.month, self.day) {
            (Some(day), None, None) => {
                let first = civil::Date::new(self.year, 1, 1);
                let date = first.and_then(|first| first.with().day_of_year(day).build());
                date.map_err(|_| Wrong::Range("day-of-year"))?
            }
            (_, month, day) => {
                civil::Date::new(self.year, month.unwrap_or(1), day.unwrap_or(1)).map_err(|_| Wrong::Range("day"))?
            }
        };
        let time = civil::Time::new(hour, self.minute, self.second, self.nanoseconds);
        let clock = date.to_datetime(time.map_err(|_| Wrong::Range("hour"))?);
        let offset_s = self.offset_s.unwrap_or(0);
        // A zone without a name that is where we are is ours.
        let ours = offset_s == 0 && (self.zone.is_empty() || self.zone == "UTC");
        let time = Time::told(clock, offset_s, if ours { "UTC" } else { self.zone }.into());
        let shown_s = if self.offset_s.is_none() { self.shown_s } else { offset_s };
        time.map(|time| Time { offset_s: shown_s, ..time }).ok_or(Wrong::Range("year"))
    }
}

fn within(number: i8, range: std::ops::RangeInclusive<i8>, what: &'static str) -> Part<i8> {
    if range.contains(&number) { Ok(number) } else { Err(Odd::Range(what)) }
}
