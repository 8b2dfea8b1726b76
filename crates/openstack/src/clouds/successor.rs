//! One application credential in place of another in the text of a clouds.yaml, which otherwise stays as its owner wrote it.
//!
//! Written anew from what was read, the file would lose its comments and its order. So the values alone are replaced in the text,
//! wherever a key of theirs has the old one. That knows little of YAML, and does not need to: what comes out is read as any
//! clouds.yaml is, and taken only if it says what the old file said, with the new credential in the place of the old one.

use std::{borrow::Cow, ops::Range};

use serde_json::Value;

use super::{Auth, Cloud, parse, pick};

const SECRET: &str = "application_credential_secret";
const ID: &str = "application_credential_id";
const NAME: &str = "application_credential_name";

/// The application credential that takes another's place.
#[derive(Clone, Copy)]
pub struct Successor<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub secret: &'a str,
}

impl Successor<'_> {
    /// The clouds.yaml with this credential wherever it has the one that the cloud of that name uses: by its id, by its name, or
    /// both. `None` if the text cannot be changed without changing what else it says.
    pub fn written_into(&self, yaml: &[u8], cloud: &str) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(yaml).ok()?;
        let mut wanted = parse(yaml, "").ok()?;
        let old = Old::of(wanted.get("clouds")?.get(cloud)?.get("auth")?)?;
        let written = self.replaced(text, &old);
        self.replace(&mut wanted, &old);
        let after = parse(written.as_bytes(), "").ok()?;
        let used = pick(&after, Some(cloud), "").ok()?;
        let is_used = match &used.auth {
            Auth::ApplicationCredential { id, name, secret, .. } => {
                let named = id.as_deref().map_or(name.as_deref() == Some(self.name), |id| id == self.id);
                named && secret.0 == self.secret
            }
            _ => false,
        };
        (after == wanted && is_used).then(|| written.into_bytes())
    }

    fn of_key(&self, key: &str) -> Option<&str> {
        match key {
            SECRET => Some(self.secret),
            ID => Some(self.id),
            NAME => Some(self.name),
            _ => None,
        }
    }

    /// In what was read: every mapping that has the old credential, since several clouds may share one, and anchors repeat it.
    fn replace(&self, value: &mut Value, old: &Old) {
        if Old::of(value).as_ref() == Some(old) {
            for key in [SECRET, ID, NAME] {
                if let (Some(held), Some(new)) = (value.get_mut(key), self.of_key(key)) {
                    *held = new.into();
                }
            }
        }
        match value {
            Value::Object(fields) => fields.values_mut().for_each(|value| self.replace(value, old)),
            Value::Array(items) => items.iter_mut().for_each(|value| self.replace(value, old)),
            _ => {}
        }
    }

    /// In the text.
    fn replaced(&self, text: &str, old: &Old) -> String {
        let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
        for (at, _) in text.match_indices("application_credential_") {
            let is_key = |c: char| c.is_ascii_lowercase() || c == '_';
            let key_end = text[at..].find(|c| !is_key(c)).map_or(text.len(), |length| at + length);
            let key = &text[at..key_end];
            let (Some(new), Some(old)) = (self.of_key(key), old.of_key(key)) else { continue };
            if at < copied || is_comment(text, at) {
                continue;
            }
            if let Some(value) = value_after(text, key_end, old) {
                out.push_str(&text[copied..value.start]);
                // A JSON string is one of YAML too, and never a number.
                out.push_str(&Value::from(new).to_string());
                copied = value.end;
            }
        }
        out.push_str(&text[copied..]);
        out
    }
}

/// The credential that is replaced.
#[derive(PartialEq)]
struct Old {
    id: Option<String>,
    name: Option<String>,
    secret: String,
}

impl Old {
    fn of(auth: &Value) -> Option<Self> {
        let text = |key: &str| match auth.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let (id, name) = (text(ID), text(NAME));
        (id.is_some() || name.is_some()).then_some(())?;
        Some(Self { id, name, secret: text(SECRET)? })
    }

    fn of_key(&self, key: &str) -> Option<&str> {
        match key {
            SECRET => Some(&self.secret),
            ID => self.id.as_deref(),
            NAME => self.name.as_deref(),
            _ => None,
        }
    }
}

fn is_comment(text: &str, at: usize) -> bool {
    let line = text[..at].rsplit('\n').next().unwrap_or_default();
    line.starts_with('#') || line.contains(" #") || line.contains("\t#")
}

/// Where the value of a key stands that ends there, with its quotes, if it is `old`.
fn value_after(text: &str, key_end: usize, old: &str) -> Option<Range<usize>> {
    let rest = &text[key_end..];
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest).trim_start().strip_prefix(':')?.trim_start();
    let start = text.len() - rest.len();
    let quoted = |length: usize| rest.get(1..length - 1);
    let (length, value) = if rest.starts_with('"') {
        let length = double_quoted(rest)?;
        (length, Cow::Owned(serde_json::from_str::<String>(&rest[..length]).ok()?))
    } else if rest.starts_with('\'') {
        let length = single_quoted(rest)?;
        (length, Cow::Owned(quoted(length)?.replace("''", "'")))
    } else {
        let line = rest.lines().next().unwrap_or_default();
        let line = line.split(" #").next().unwrap_or_default().trim_end();
        // In a flow mapping it ends sooner than the line does.
        let short = line.split([',', '}']).next().unwrap_or_default().trim_end();
        let value = if line == old { line } else { short };
        (value.len(), Cow::Borrowed(value))
    };
    (value == old).then_some(start..start + length)
}

/// The length of a string in double quotes, with them.
fn double_quoted(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The length of a string in single quotes, with them: two of them within are one.
fn single_quoted(text: &str) -> Option<usize> {
    let mut at = 1;
    loop {
        at += text[at..].find('\'')? + 1;
        if !text[at..].starts_with('\'') {
            return Some(at);
        }
        at += 1;
    }
}

/// Whether the text of a clouds.yaml speaks of an application credential. A comment that does counts too: who asks wants to spare it.
pub fn mentions(yaml: &[u8], id: &str, name: &str) -> bool {
    let text = String::from_utf8_lossy(yaml);
    text.contains(id) || text.contains(name)
}

impl Cloud {
    /// Whether both use the same credentials.
    pub fn has_credentials_of(&self, other: &Self) -> bool {
        self.auth == other.auth && self.auth_url == other.auth_url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Successor<'_> = Successor { id: "12e5", name: "skep:new", secret: "-it's \"new\"" };

    fn written(yaml: &str) -> Option<String> {
        NEW.written_into(yaml.as_bytes(), "a").map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn comments_order_and_what_else_is_said_stay() {
        let yaml = "# ours: abc\r\nclouds:\n  a:   # the first\n    auth:\n      auth_url: http://c # application_credential_id: abc\n      application_credential_id: abc   # of the robot\n#     application_credential_secret: s3cret\n      application_credential_secret: s3cret\n    region_name: abc\n  b: {auth: {auth_url: http://c, username: abc, password: s3cret}}\n";
        let wanted = yaml.replace("_id: abc   #", "_id: \"12e5\"   #").replace(
            "\n      application_credential_secret: s3cret",
            "\n      application_credential_secret: \"-it's \\\"new\\\"\"",
        );
        assert_eq!(written(yaml).as_deref(), Some(wanted.as_str()));
    }

    #[test]
    fn values_are_found_in_each_form_that_yaml_and_json_have() {
        let secret = r#""-it's \"new\"""#;
        let cases = [
            (
                "clouds: {a: {auth: {auth_url: 'http://c', application_credential_id: abc, application_credential_secret: 'it''s'}}}",
                format!(
                    "clouds: {{a: {{auth: {{auth_url: 'http://c', application_credential_id: \"12e5\", application_credential_secret: {secret}}}}}}}"
                ),
            ),
            (
                r#"{"clouds":{"a":{"auth":{"auth_url":"http://c","application_credential_id":"abc","application_credential_secret":"a\"b"}}}}"#,
                format!(
                    r#"{{"clouds":{{"a":{{"auth":{{"auth_url":"http://c","application_credential_id":"12e5","application_credential_secret":{secret}}}}}}}}}"#
                ),
            ),
            (
                "clouds:\n  a:\n    auth:\n      auth_url: http://c\n      user_id: u\n      application_credential_name: old one\n      application_credential_secret: a,}b",
                format!(
                    "clouds:\n  a:\n    auth:\n      auth_url: http://c\n      user_id: u\n      application_credential_name: \"skep:new\"\n      application_credential_secret: {secret}"
                ),
            ),
            (
                "clouds:\n  a:\n    auth:\n      auth_url: http://c\n      application_credential_id: 123\n      application_credential_secret:\n        456\n",
                format!(
                    "clouds:\n  a:\n    auth:\n      auth_url: http://c\n      application_credential_id: \"12e5\"\n      application_credential_secret:\n        {secret}\n"
                ),
            ),
        ];
        for (yaml, wanted) in cases {
            assert_eq!(written(yaml), Some(wanted), "{yaml}");
        }
    }

    #[test]
    fn clouds_that_share_a_credential_get_the_same_and_others_keep_theirs() {
        let one = |name: &str, id: &str| {
            format!(
                "  {name}:\n    auth:\n      auth_url: http://c\n      application_credential_id: {id}\n      application_credential_secret: s-{id}\n"
            )
        };
        let yaml = format!("clouds:\n{}{}{}", one("a", "abc"), one("b", "abc"), one("other", "abcd"));
        let after = written(&yaml).unwrap();
        assert_eq!(after.matches("12e5").count(), 2);
        assert!(after.ends_with(&one("other", "abcd")));
    }

    #[test]
    fn a_text_that_cannot_be_changed_safely_is_left_alone() {
        let auth = |id: &str, secret: &str| {
            format!(
                "clouds:\n  a:\n    auth:\n      auth_url: http://c\n      application_credential_id: {id}\n      application_credential_secret: {secret}\n"
            )
        };
        assert!(written(&auth("abc", "s")).is_some());
        // A block scalar, a tag, an escape that JSON does not have, and a second cloud with half of the credential.
        for (id, secret) in [("abc", "|-\n        s"), ("!!str abc", "s"), (r#""\x61bc""#, "s")] {
            assert_eq!(written(&auth(id, secret)), None, "{id} {secret}");
        }
        let half =
            "  b: {auth: {auth_url: http://c, application_credential_id: abc, application_credential_secret: other}}\n";
        assert_eq!(written(&format!("{}{half}", auth("abc", "s"))), None);
        assert_eq!(written("clouds: {a: {auth: {auth_url: http://c, username: u, password: p}}}"), None);
        assert_eq!(written("clouds: ["), None);
    }
}
