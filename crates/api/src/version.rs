//! Versions of Kubernetes, as users and controllers write them: with a `v` before them or without.

use semver::Version;

/// The semantic version that the text is (semver.org 2.0.0); what it leaves out of its three numbers at the end is 0. `None`
/// if it is none.
pub fn parse(text: &str) -> Option<Version> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let (core, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let left_out = match core.split('.').count() {
        1 => ".0.0",
        2 => ".0",
        _ => "",
    };
    Version::parse(&format!("{core}{left_out}{rest}")).ok()
}

/// Major, minor and patch of a version that tells all three, none of them too great to count on from.
pub fn numbers(text: &str) -> Option<[u64; 3]> {
    let version = Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()?;
    let numbers = [version.major, version.minor, version.patch];
    numbers.iter().all(|number| u32::try_from(*number).is_ok()).then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_with_and_without_a_v_and_all_their_numbers() {
        let read = |text: &str| parse(text).map(|version| version.to_string());
        for (text, version) in [
            ("v1.34.2", "1.34.2"),
            ("1.34.2-rc.1+b.2", "1.34.2-rc.1+b.2"),
            ("v1.34", "1.34.0"),
            ("1", "1.0.0"),
            ("v1.34-alpha.0", "1.34.0-alpha.0"),
        ] {
            assert_eq!(read(text).as_deref(), Some(version), "{text}");
        }
        for text in ["", "v", "vv1.2.3", "1.x", "v1.2.3.4", "1.02.3", "1.2.3-", "1.2.3-01", "1.2.99999999999999999999"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_three_that_can_be_counted_on_from() {
        assert_eq!(numbers("v1.34.2-rc.1+x"), Some([1, 34, 2]));
        assert_eq!(numbers("1.34.4294967295"), Some([1, 34, 4_294_967_295]));
        for text in ["v1.34", "v1.34.4294967296", "v1.34.2.1", "v1.34.2-", ""] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }
}
