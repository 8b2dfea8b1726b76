//! Go's `time.Duration`: nanoseconds, as text and back.

/// `-1h2.5m3ms` in nanoseconds.
pub fn read(text: &str) -> Option<i128> {
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
pub fn text(nanoseconds: i128) -> String {
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

/// The largest unit that it is more than one of, counted.
pub fn rounded(nanoseconds: i128) -> String {
    const SECOND: u128 = 1_000_000_000;
    let size = nanoseconds.unsigned_abs();
    let units = [(31_536_000, "y"), (2_592_000, "mo"), (86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let unit = units.iter().find(|(seconds, _)| size > seconds * SECOND);
    unit.map_or_else(|| "0s".to_owned(), |(seconds, name)| format!("{}{name}", size / (seconds * SECOND)))
}
