//! Query strings.

use std::fmt::{Display, Write as _};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const KEEP: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A list's filters, as the services name them (`name`, `network_id`, `tags`, `changes-since`, ...).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(String);

impl Query {
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: impl Display) -> Self {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        let _ = write!(self.0, "{}={}", encode(name), encode(&value.to_string()));
        self
    }

    /// Adds nothing for `None`.
    #[must_use]
    pub fn with_some(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub fn by_name(name: &str) -> Self {
        Self::new().with("name", name)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Percent-encodes one path segment or query value.
pub(crate) fn encode(text: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(text, KEEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_encoded() {
        let query = Query::by_name("a b/ü&c").with("fixed_ips", "ip_address=10.0.0.1").with_some("x", None::<u8>);
        assert_eq!(query.as_str(), "name=a%20b%2F%C3%BC%26c&fixed_ips=ip_address%3D10.0.0.1");
    }
}
