//! Go's layouts: what a date of 2006 stands for, and times written as they show it.

use super::time::Time;

pub const MONTHS: [&str; 12] = [
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
pub const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

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
pub fn next_part(layout: &str) -> Option<(&str, &str, &str)> {
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
            if matches!(*part, "Jan" | "Mon") && rest[3..].starts_with(|c: char| c.is_ascii_lowercase()) {
                continue;
            }
            return Some((&layout[..at], part, &rest[part.len()..]));
        }
    }
    None
}

/// A time as a layout shows it.
pub fn formatted(time: &Time, layout: &str) -> String {
    let clock = time.clock();
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
            "MST" if time.zone.is_empty() => offset(time.offset_s, "-0700"),
            "MST" => time.zone.to_string(),
            _ if part.starts_with('Z') && time.offset_s == 0 => "Z".to_owned(),
            _ if part.starts_with(['-', 'Z']) => offset(time.offset_s, part),
            _ => fraction(part, clock.subsec_nanosecond()),
        });
    }
    out.push_str(rest);
    out
}

/// How far a zone is ahead, with as many parts and points between them as the layout's part has.
fn offset(offset_s: i32, part: &str) -> String {
    let size = offset_s.unsigned_abs();
    let mut out = format!("{}{:02}", if offset_s < 0 { '-' } else { '+' }, size / 3600);
    let between = if part.contains(':') { ":" } else { "" };
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    for number in [size / 60 % 60, size % 60].into_iter().take((digits / 2).saturating_sub(1)) {
        out.push_str(&format!("{between}{number:02}"));
    }
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
