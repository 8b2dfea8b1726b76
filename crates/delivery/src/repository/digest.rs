//! SHA-256 of what is fetched.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// `sha256:` and hexadecimal digits.
pub fn of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The digits of a digest, with `sha256:` before them or not; none if it is no such digest.
pub fn parse(text: &str) -> Option<String> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| digits.to_ascii_lowercase())
}

/// Whether the bytes have this digest. What is no digest is nobody's.
pub fn matches(bytes: &[u8], expected: &str) -> bool {
    parse(expected).is_some_and(|digits| of(bytes) == format!("sha256:{digits}"))
}
