//! Times, with Go's layouts. The local zone is UTC: nothing here knows another.

use std::rc::Rc;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::State;
use crate::template::{
    Scope,
    error::{Error, Result},
    function::{Args, Function},
    value::{Field, Struct, Type, Value},
};

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "ago",
        takes: "a",
        run: |scope, args| {
            let now = State::of(scope.run)?.world.now;
            let of = instant(scope, args.at(0))?;
            let seconds = (now.as_duration() - of.as_duration()).as_nanos().div_euclid(1_000_000_000);
            Ok(duration_text(seconds.saturating_mul(1_000_000_000)).into())
        },
    },
    Function { name: "date", takes: "sa", run: date },
    Function { name: "dateInZone", takes: "sas", run: date },
    Function { name: "dateModify", takes: "st", run: |_, args| modified(&args, false) },
    Function { name: "date_in_zone", takes: "sas", run: date },
    Function { name: "date_modify", takes: "st", run: |_, args| modified(&args, false) },
    Function {
        name: "duration",
        takes: "a",
        run: |_, args| {
            let seconds = match args.at(0) {
                Value::Str(text) => text.parse().unwrap_or(0),
                Value::Int64(seconds) => *seconds,
                _ => 0,
            };
            Ok(duration_text(i128::from(seconds.wrapping_mul(1_000_000_000))).into())
        },
    },
    Function { name: "durationRound", takes: "a", run: duration_round },
    Function {
        name: "htmlDate",
        takes: "a",
        run: |scope, args| {
            let of = instant(scope, args.at(0))?;
            Ok(formatted(of, "2006-01-02").into())
        },
    },
    Function {
        name: "htmlDateInZone",
        takes: "as",
        run: |scope, args| {
            let of = instant(scope, args.at(0))?;
            Ok(formatted(of, "2006-01-02").into())
        },
    },
    Function { name: "mustDateModify", takes: "st", run: |_, args| modified(&args, true) },
    Function {
        name: "mustToDate",
        takes: "ss",
        run: |_, args| match parsed(args.text(0), args.text(1)) {
            Some(time) => Ok(object(time)),
            None => {
                let quoted = crate::template::text::quoted;
                let (layout, text) = (quoted(args.text(0)), quoted(args.text(1)));
                Error::call(format!("parsing time {text} as {layout}: cannot parse {text} as {layout}"))
            }
        },
    },
    Function { name: "must_date_modify", takes: "st", run: |_, args| modified(&args, true) },
    Function { name: "now", takes: "", run: |scope, _| Ok(object(State::of(scope.run)?.world.now)) },
    Function {
        name: "toDate",
        takes: "ss",
        run: |_, args| Ok(object(parsed(args.text(0), args.text(1)).unwrap_or(zero()))),
    },
    Function { name: "unixEpoch", takes: "t", run: |_, args| Ok(time(args.at(0)).as_second().to_string().into()) },
];

static TIME: Type = Type {
    methods: METHODS,
    text: Some(|of| formatted(read(of), "2006-01-02 15:04:05.999999999 -0700 MST")),
    json: Some(|of| formatted(read(of), "2006-01-02T15:04:05.999999999Z07:00").into()),
    ..Type::plain("time.Time")
};

const METHODS: &[Function] = &[
    Function {
        name: "AddDate",
        takes: "iii",
        run: |_, args| {
            let span = jiff::Span::new();
            let added = |number| i32::try_from(args.int(number)).ok();
            let span = (|| span.try_years(added(1)?).ok()?.try_months(added(2)?).ok()?.try_days(added(3)?).ok())();
            let sum = span.and_then(|span| time(args.at(0)).to_zoned(TimeZone::UTC).checked_add(span).ok());
            sum.map_or_else(|| Error::call("the date is out of range"), |sum| Ok(object(sum.timestamp())))
        },
    },
    Function { name: "Day", takes: "", run: |_, args| Ok(Value::Int(clock(&args).day().into())) },
    Function { name: "Format", takes: "s", run: |_, args| Ok(formatted(time(args.at(0)), args.text(1)).into()) },
    Function { name: "Hour", takes: "", run: |_, args| Ok(Value::Int(clock(&args).hour().into())) },
    Function { name: "Minute", takes: "", run: |_, args| Ok(Value::Int(clock(&args).minute().into())) },
    Function { name: "Second", takes: "", run: |_, args| Ok(Value::Int(clock(&args).second().into())) },
    Function {
        name: "String",
        takes: "",
        run: |_, args| Ok(formatted(time(args.at(0)), "2006-01-02 15:04:05.999999999 -0700 MST").into()),
    },
    Function { name: "UTC", takes: "", run: |_, mut args| Ok(args.take(0)) },
    Function { name: "Unix", takes: "", run: |_, args| Ok(Value::Int64(time(args.at(0)).as_second())) },
    Function {
        name: "UnixNano",
        takes: "",
        run: |_, args| Ok(Value::Int64(i64::try_from(time(args.at(0)).as_nanosecond()).unwrap_or(i64::MAX))),
    },
    Function { name: "Year", takes: "", run: |_, args| Ok(Value::Int(clock(&args).year().into())) },
    Function { name: "YearDay", takes: "", run: |_, args| Ok(Value::Int(clock(&args).day_of_year().into())) },
];

/// Go's time that is none: the first of January of the year 1.
fn zero() -> Timestamp {
    civil::date(1, 1, 1).to_zoned(TimeZone::UTC).map_or(Timestamp::UNIX_EPOCH, |zoned| zoned.timestamp())
}

fn object(time: Timestamp) -> Value {
    let field = |name, value| Field { name, json: ("", false), value: Value::Int64(value) };
    let fields = vec![field("sec", time.as_second()), field("nsec", time.subsec_nanosecond().into())];
    Value::Struct(Rc::new(Struct { ty: &TIME, pointer: false, fields }))
}

fn read(of: &Struct) -> Timestamp {
    let number = |name| if let Some(Value::Int64(number)) = of.field(name) { *number } else { 0 };
    Timestamp::new(number("sec"), i32::try_from(number("nsec")).unwrap_or(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn time(value: &Value) -> Timestamp {
    if let Value::Struct(of) = value { read(of) } else { Timestamp::UNIX_EPOCH }
}

fn clock(args: &Args) -> civil::DateTime {
    TimeZone::UTC.to_datetime(time(args.at(0)))
}

/// A time, or seconds since 1970; now for all else.
fn instant(scope: &mut Scope<'_>, value: &Value) -> Result<Timestamp> {
    Ok(match value {
        Value::Struct(of) if of.ty.name == TIME.name => read(of),
        Value::Int(seconds) | Value::Int64(seconds) => {
            Timestamp::from_second(*seconds).unwrap_or(Timestamp::UNIX_EPOCH)
        }
        _ => State::of(scope.run)?.world.now,
    })
}

fn date(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    let of = instant(scope, args.at(1))?;
    Ok(formatted(of, args.text(0)).into())
}

fn modified(args: &Args, must: bool) -> Result<Value> {
    let moved = duration(args.text(0)).and_then(|nanoseconds| {
        let by = SignedDuration::from_nanos(i64::try_from(nanoseconds).ok()?);
        time(args.at(1)).checked_add(by).ok()
    });
    match moved {
        Some(moved) => Ok(object(moved)),
        None if must => {
            let quoted = crate::template::text::quoted(args.text(0));
            Error::call(format!("time: invalid duration {quoted}"))
        }
        None => Ok(args.at(1).clone()),
    }
}

fn duration_round(scope: &mut Scope<'_>, args: Args) -> Result<Value> {
    const SECOND: u128 = 1_000_000_000;
    let nanoseconds = match args.at(0) {
        Value::Str(text) => duration(text).unwrap_or(0),
        Value::Int64(nanoseconds) => i128::from(*nanoseconds),
        Value::Struct(of) if of.ty.name == TIME.name => {
            State::of(scope.run)?.world.now.as_nanosecond() - read(of).as_nanosecond()
        }
        _ => 0,
    };
    let size = nanoseconds.unsigned_abs();
    let units = [(31_536_000, "y"), (2_592_000, "mo"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let unit = units.iter().find(|(seconds, _)| size > seconds * SECOND);
    Ok(unit.map_or_else(|| "0s".to_owned(), |(seconds, name)| format!("{}{name}", size / (seconds * SECOND))).into())
}

/// `-1h2.5m3ms` in nanoseconds.
fn duration(text: &str) -> Option<i128> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut sum = 0_i128;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, left) = rest.split_at(digits);
        let letters = left.len() - left.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.').len();
        let (unit, left) = left.split_at(letters);
        let unit = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000_i128,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 18 || whole.len() > 18 {
            return None;
        }
        sum += whole.parse::<i128>().unwrap_or(0) * unit;
        if !fraction.is_empty() {
            sum += fraction.parse::<i128>().ok()? * unit / 10_i128.pow(u32::try_from(fraction.len()).ok()?);
        }
        rest = left;
    }
    i64::try_from(sum).ok()?;
    Some(if negative { -sum } else { sum })
}

/// As Go's `Duration.String`.
fn duration_text(nanoseconds: i128) -> String {
    let size = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let decimals = |number: u128, scale: u128| {
        let fraction = format!("{:0width$}", number % scale, width = scale.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}", number / scale)
    };
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimals(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimals(size, 1_000_000)),
        _ => {
            let (minutes, rest) = (size / 60_000_000_000, size % 60_000_000_000);
            let seconds = decimals(rest, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The parts of Go's layouts; longer ones stand before those that they start with.
const PARTS: &[&str] = &[
    "January",
    "Jan",
    "Monday",
    "Mon",
    "MST",
    "2006",
    "-07:00:00",
    "-07:00",
    "-070000",
    "-0700",
    "-07",
    "Z07:00:00",
    "Z07:00",
    "Z070000",
    "Z0700",
    "Z07",
    "002",
    "__2",
    "01",
    "02",
    "03",
    "04",
    "05",
    "06",
    "15",
    "PM",
    "pm",
    "_2",
    "1",
    "2",
    "3",
    "4",
    "5",
];

/// The text before the next part of a layout, the part, and the rest. A fraction is a part too.
fn next_part(layout: &str) -> Option<(&str, &str, &str)> {
    for (at, c) in layout.char_indices() {
        let rest = &layout[at..];
        if (c == '.' || c == ',') && rest[1..].starts_with(['0', '9']) {
            let digit = rest.as_bytes()[1];
            let digits = rest[1..].bytes().take_while(|b| *b == digit).count();
            if !rest[1 + digits..].starts_with(|c: char| c.is_ascii_digit()) {
                return Some((&layout[..at], &rest[..=digits], &rest[1 + digits..]));
            }
        }
        // `Jan` in `Janet` is a month for Go, but `_2006` is a `_` and a year.
        let part = PARTS.iter().find(|part| rest.starts_with(**part) && !(**part == "_2" && rest.starts_with("_2006")));
        if let Some(part) = part {
            if *part == "Jan" && rest[3..].starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            return Some((&layout[..at], part, &rest[part.len()..]));
        }
    }
    None
}

fn formatted(time: Timestamp, layout: &str) -> String {
    let clock = TimeZone::UTC.to_datetime(time);
    let hour12 = (clock.hour() + 11) % 12 + 1;
    let month = MONTHS[usize::from(clock.month().unsigned_abs() - 1) % 12];
    let day = DAYS[usize::from(clock.weekday().to_sunday_zero_offset().unsigned_abs()) % 7];
    let mut out = String::new();
    let mut rest = layout;
    while let Some((before, part, after)) = next_part(rest) {
        out.push_str(before);
        rest = after;
        out.push_str(&match part {
            "2006" => format!("{:04}", clock.year()),
            "06" => format!("{:02}", clock.year().rem_euclid(100)),
            "January" => month.to_owned(),
            "Jan" => month[..3].to_owned(),
            "01" => format!("{:02}", clock.month()),
            "1" => clock.month().to_string(),
            "Monday" => day.to_owned(),
            "Mon" => day[..3].to_owned(),
            "02" => format!("{:02}", clock.day()),
            "_2" => format!("{:2}", clock.day()),
            "2" => clock.day().to_string(),
            "002" => format!("{:03}", clock.day_of_year()),
            "__2" => format!("{:3}", clock.day_of_year()),
            "15" => format!("{:02}", clock.hour()),
            "03" => format!("{hour12:02}"),
            "3" => hour12.to_string(),
            "04" => format!("{:02}", clock.minute()),
            "4" => clock.minute().to_string(),
            "05" => format!("{:02}", clock.second()),
            "5" => clock.second().to_string(),
            "PM" => if clock.hour() < 12 { "AM" } else { "PM" }.to_owned(),
            "pm" => if clock.hour() < 12 { "am" } else { "pm" }.to_owned(),
            "MST" => "UTC".to_owned(),
            "-07:00:00" => "+00:00:00".to_owned(),
            "-07:00" => "+00:00".to_owned(),
            "-070000" => "+000000".to_owned(),
            "-0700" => "+0000".to_owned(),
            "-07" => "+00".to_owned(),
            _ if part.starts_with('Z') => "Z".to_owned(),
            _ => fraction(part, clock.subsec_nanosecond()),
        });
    }
    out.push_str(rest);
    out
}

/// `.000` writes all digits, `.999` none at the end that are 0.
fn fraction(part: &str, nanoseconds: i32) -> String {
    let (mark, wanted) = part.split_at(1);
    let digits = format!("{nanoseconds:09}");
    let digits = &digits[..wanted.len().min(9)];
    if wanted.starts_with('0') {
        return format!("{mark}{digits}");
    }
    let digits = digits.trim_end_matches('0');
    if digits.is_empty() { String::new() } else { format!("{mark}{digits}") }
}

/// A text read with a layout: what the layout does not name is the start of the year 0. Nothing if it does not fit.
fn parsed(layout: &str, text: &str) -> Option<Timestamp> {
    let (mut year, mut month, mut day) = (0_i64, 1, 1);
    let (mut hour, mut minute, mut second, mut nanoseconds, mut offset_s) = (0, 0, 0, 0, 0);
    let mut afternoon = None;
    let mut rest = text;
    let mut layout = layout;
    while let Some((before, part, after)) = next_part(layout) {
        rest = rest.strip_prefix(before)?;
        layout = after;
        let mut number = |least: usize, most: usize| -> Option<i64> {
            let digits = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
            let number = rest[..digits].parse().ok().filter(|_| digits >= least)?;
            rest = &rest[digits..];
            Some(number)
        };
        match part {
            "2006" => year = number(4, 4)?,
            "06" => {
                let short = number(2, 2)?;
                year = if short >= 69 { 1900 + short } else { 2000 + short };
            }
            "01" => month = number(2, 2)?,
            "1" => month = number(1, 2)?,
            "02" => day = number(2, 2)?,
            "2" => day = number(1, 2)?,
            "_2" => {
                rest = rest.strip_prefix(' ').unwrap_or(rest);
                let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
                day = rest[..digits].parse().ok()?;
                rest = &rest[digits..];
            }
            "15" | "03" => hour = number(2, 2)?,
            "3" => hour = number(1, 2)?,
            "04" => minute = number(2, 2)?,
            "4" => minute = number(1, 2)?,
            "05" | "5" => {
                second = number(if part == "05" { 2 } else { 1 }, 2)?;
                // A fraction may follow that the layout does not name.
                if rest.starts_with('.')
                    && next_part(layout).is_none_or(|(before, part, _)| !(before.is_empty() && part.starts_with('.')))
                {
                    (nanoseconds, rest) = read_fraction(rest)?;
                }
            }
            "PM" | "pm" => {
                afternoon = Some(rest.get(..2)?.eq_ignore_ascii_case("pm"));
                rest = &rest[2..];
            }
            "January" | "Jan" => {
                let length = |name: &str| if part == "Jan" { 3 } else { name.len() };
                let found = MONTHS.iter().position(|name| rest.starts_with(&name[..length(name)]))?;
                rest = &rest[length(MONTHS[found])..];
                month = i64::try_from(found).ok()? + 1;
            }
            "Monday" | "Mon" => {
                let length = |name: &str| if part == "Mon" { 3 } else { name.len() };
                let found = DAYS.iter().find(|name| rest.starts_with(&name[..length(name)]))?;
                rest = &rest[length(found)..];
            }
            "MST" => {
                rest = rest.strip_prefix("UTC").or_else(|| rest.strip_prefix("GMT"))?;
            }
            _ if part.starts_with('Z') && rest.starts_with('Z') => rest = &rest[1..],
            _ if part.starts_with(['-', 'Z']) => {
                let sign = match rest.bytes().next()? {
                    b'+' => 1,
                    b'-' => -1,
                    _ => return None,
                };
                let digits: String = rest[1..].chars().take_while(|c| c.is_ascii_digit() || *c == ':').collect();
                rest = &rest[1 + digits.len()..];
                let digits = digits.replace(':', "");
                let read = |from: usize| digits.get(from..from + 2).map_or(Some(0), |part| part.parse::<i64>().ok());
                offset_s = sign * (read(0)? * 3600 + read(2)? * 60 + read(4)?);
            }
            _ => (nanoseconds, rest) = read_fraction(rest)?,
        }
    }
    if rest != layout {
        return None;
    }
    let hour = match afternoon {
        Some(afternoon) if hour <= 12 => hour % 12 + if afternoon { 12 } else { 0 },
        _ => hour,
    };
    let small = |number: i64| i8::try_from(number).ok();
    let date = civil::Date::new(i16::try_from(year).ok()?, small(month)?, small(day)?).ok()?;
    let clock = civil::Time::new(small(hour)?, small(minute)?, small(second)?, nanoseconds).ok()?;
    let time = date.to_datetime(clock).to_zoned(TimeZone::UTC).ok()?.timestamp();
    time.checked_sub(SignedDuration::from_secs(offset_s)).ok()
}

fn read_fraction(text: &str) -> Option<(i32, &str)> {
    let digits = text[1..].bytes().take_while(u8::is_ascii_digit).count();
    let taken = text[1..=digits].get(..9.min(digits))?;
    let nanoseconds = format!("{taken:0<9}").parse().ok()?;
    Some((nanoseconds, &text[1 + digits..]))
}
