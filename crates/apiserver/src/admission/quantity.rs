//! Amounts of resources, added up and printed as Kubernetes prints them (`apimachinery/pkg/api/resource`).

use std::fmt;

use policy::cel::Quantity;
use serde_json::Value;

const BILLION: i128 = 1_000_000_000;
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// An amount, and whether it is written in powers of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    billionths: i128,
    binary: bool,
}

impl Amount {
    pub fn count(count: usize) -> Self {
        Self { billionths: i128::try_from(count).unwrap_or(i128::MAX / BILLION) * BILLION, binary: false }
    }

    /// None: it is no quantity.
    pub fn read(value: &Value) -> Option<Self> {
        let number = value.is_number().then(|| value.to_string());
        let text = number.as_deref().or(value.as_str())?;
        let quantity = Quantity::parse(text).ok()?;
        Some(Self { billionths: quantity.billionths(), binary: text.ends_with('i') })
    }

    /// In the form of the first of the two, unless that is nothing.
    pub fn plus(self, other: Self) -> Self {
        let binary = if self.billionths == 0 { other.binary } else { self.binary };
        Self { billionths: self.billionths.saturating_add(other.billionths), binary }
    }

    /// Nothing less than nothing.
    pub fn minus(self, other: Self) -> Self {
        Self { billionths: self.billionths.saturating_sub(other.billionths).max(0), ..self }
    }

    pub fn max(self, other: Self) -> Self {
        if other.billionths > self.billionths { other } else { self }
    }

    pub fn is_zero(self) -> bool {
        self.billionths == 0
    }

    pub fn exceeds(self, other: Self) -> bool {
        self.billionths > other.billionths
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio that is printed")]
    pub fn ratio(self, other: Self) -> f64 {
        self.billionths as f64 / other.billionths as f64
    }

    /// Times a ratio that is itself an amount: whether this is more than that many of the other.
    pub fn exceeds_ratio(self, ratio: Self, of: Self) -> bool {
        match ratio.billionths.checked_mul(of.billionths) {
            Some(most) => self.billionths.saturating_mul(BILLION) > most,
            None => false,
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.billionths == 0 {
            return f.write_str("0");
        }
        if self.binary && self.billionths.abs() >= 1024 * BILLION {
            let mut whole = self.billionths / BILLION + i128::from(self.billionths % BILLION > 0);
            let mut power = 0;
            while whole % 1024 == 0 && power + 1 < BINARY.len() {
                whole /= 1024;
                power += 1;
            }
            return write!(f, "{whole}{}", BINARY.get(power).copied().unwrap_or_default());
        }
        let mut amount = self.billionths;
        let mut power = 0;
        while amount % 1000 == 0 && power + 1 < DECIMAL.len() {
            amount /= 1000;
            power += 1;
        }
        write!(f, "{amount}{}", DECIMAL.get(power).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_printed_as_kubernetes_prints_them() {
        let cases = [
            ("10", "10"),
            ("1000", "1k"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("2Gi", "2Gi"),
            ("2048Mi", "2Gi"),
            ("1500Mi", "1500Mi"),
            ("512Ki", "512Ki"),
            ("0", "0"),
            ("1e3", "1k"),
        ];
        for (text, expected) in cases {
            assert_eq!(Amount::read(&text.into()).unwrap().to_string(), expected, "{text}");
        }
        let sum = Amount::read(&"1Gi".into()).unwrap().plus(Amount::read(&"512Mi".into()).unwrap());
        assert_eq!(sum.to_string(), "1536Mi");
        assert!(Amount::read(&"x".into()).is_none());
    }
}
