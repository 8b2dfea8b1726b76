//! Quantities (`k8s.io/apimachinery/pkg/api/resource`): decimal numbers with a suffix, in steps of a billionth.

/// In billionths. Larger amounts than an i64 of ones are held at that, as upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

const BILLION: i128 = 1_000_000_000;
const MOST: i128 = i64::MAX as i128 * BILLION;
/// Digits that a quantity may be written with.
const DIGITS_MAX: usize = 64;

impl Quantity {
    pub(super) fn of(value: i64) -> Self {
        Self(i128::from(value) * BILLION)
    }

    /// Fails with the text that Kubernetes has for it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str =
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
        const SUFFIX: &str = "unable to parse quantity's suffix";
        if text.is_empty() {
            return Err(WRONG);
        }
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, suffix) = rest.split_at(end);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || digits.len() > DIGITS_MAX {
            return Err(WRONG);
        }
        let (base, exponent): (i128, i32) = match suffix {
            "" => (10, 0),
            "n" => (10, -9),
            "u" => (10, -6),
            "m" => (10, -3),
            "k" => (10, 3),
            "M" => (10, 6),
            "G" => (10, 9),
            "T" => (10, 12),
            "P" => (10, 15),
            "E" => (10, 18),
            "Ki" => (2, 10),
            "Mi" => (2, 20),
            "Gi" => (2, 30),
            "Ti" => (2, 40),
            "Pi" => (2, 50),
            "Ei" => (2, 60),
            other => match other.strip_prefix(['e', 'E']).map(str::parse::<i32>) {
                Some(Ok(exponent)) => (10, exponent),
                _ => return Err(SUFFIX),
            },
        };
        let amount = scale(whole, fraction, base, exponent).min(MOST);
        Ok(Self(if negative { -amount } else { amount }))
    }

    /// The amount in billionths.
    pub fn billionths(self) -> i128 {
        self.0
    }

    pub(super) fn sign(&self) -> i64 {
        i64::try_from(self.0.signum()).unwrap_or(0)
    }

    /// None: not a whole number.
    pub(super) fn whole(&self) -> Option<i64> {
        (self.0 % BILLION == 0).then(|| i64::try_from(self.0 / BILLION).ok()).flatten()
    }

    #[expect(clippy::cast_precision_loss, reason = "asked for an approximation")]
    pub(super) fn approximate(&self) -> f64 {
        self.0 as f64 / 1e9
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// `whole.fraction × base^exponent` in billionths, rounded up.
fn scale(whole: &str, fraction: &str, base: i128, exponent: i32) -> i128 {
    let digits: Vec<i128> = whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')).collect();
    let mut amount: i128 = 0;
    let mut shift = 9 - i32::try_from(fraction.len()).unwrap_or(0);
    let mut rest = false;
    for digit in digits {
        match amount
            .checked_mul(10)
            .and_then(|amount| amount.checked_add(digit))
            .filter(|amount| *amount < i128::MAX / 4)
        {
            Some(next) => amount = next,
            None => {
                // Too long to hold: what follows only counts as more.
                shift += 1;
                rest |= digit != 0;
            }
        }
    }
    if base == 2 {
        for _ in 0..exponent {
            match amount.checked_mul(2) {
                Some(next) => amount = next,
                None => return MOST,
            }
        }
    } else {
        shift = shift.saturating_add(exponent);
    }
    while shift > 0 && amount != 0 {
        match amount.checked_mul(10) {
            Some(next) => amount = next,
            None => return MOST,
        }
        shift -= 1;
    }
    while shift < 0 && amount != 0 {
        rest |= amount % 10 != 0;
        amount /= 10;
        shift += 1;
        if amount == 0 {
            rest = true;
        }
    }
    amount + i128::from(rest)
}
