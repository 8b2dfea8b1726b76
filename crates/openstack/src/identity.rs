//! Keystone v3, as far as it is needed: who one is comes with the token ([`Access`](crate::Access)).

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::resource::Writes;

wire! {
    pub struct Project {
        pub id: String,
        pub name: String,
        pub domain_id: String,
        pub enabled: Option<bool>,
    }

    /// The secret is there in the answer to a create, and never again.
    pub struct ApplicationCredential {
        pub id: String,
        pub name: String,
        pub secret: String,
        pub project_id: String,
        pub description: String,
        pub expires_at: Option<String>,
        /// It may make and delete others.
        pub unrestricted: Option<bool>,
        pub roles: Vec<Reference>,
        /// Which requests alone it allows; none: every one.
        pub access_rules: Vec<Reference>,
    }

    /// Something that has an id, and a name perhaps.
    pub struct Reference {
        #[serde(skip_serializing_if = "String::is_empty")]
        pub id: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        pub name: String,
    }
}

impl ApplicationCredential {
    pub fn ends_at(&self) -> Option<Timestamp> {
        time(self.expires_at.as_deref()?)
    }
}

impl Reference {
    /// As Keystone takes it: by the id, or else by the name.
    #[must_use]
    pub fn short(self) -> Self {
        if self.id.is_empty() { self } else { Self { name: String::new(), ..self } }
    }
}

/// Keystone writes times in UTC, most without saying so.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    let here = || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp());
    text.parse().ok().or_else(here)
}

resource!(Project, Identity, "projects", "project", "projects");
resource!(
    ApplicationCredential,
    Identity,
    "users/{}/application_credentials",
    "application_credential",
    "application_credentials"
);
named!(Project, ApplicationCredential);

draft! {
    /// Lives inside a user: `create_in(user_id, ..)`.
    pub struct ApplicationCredentialDraft {
        pub name: String,
        pub description: String,
        pub expires_at: Option<String>,
        pub unrestricted: Option<bool>,
        /// None: those of the token.
        pub roles: Vec<Reference>,
        pub access_rules: Vec<Reference>,
    }
}

impl Writes<ApplicationCredential> for ApplicationCredentialDraft {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read_with_and_without_their_zone() {
        let wanted: Timestamp = "2026-12-01T10:00:00Z".parse().unwrap();
        for text in ["2026-12-01T10:00:00.000000", "2026-12-01T10:00:00", "2026-12-01T10:00:00Z"] {
            assert_eq!(time(text), Some(wanted), "{text}");
        }
        assert_eq!(time("soon"), None);
    }

    #[test]
    fn roles_are_named_by_one_of_id_and_name() {
        let roles: Vec<Reference> =
            serde_json::from_value(json!([{"id": "1", "name": "member", "domain_id": null}, {"name": "reader"}]))
                .unwrap();
        let roles = roles.into_iter().map(Reference::short).collect();
        let draft = ApplicationCredentialDraft { name: "n".into(), roles, ..Default::default() };
        let wanted = json!({"name": "n", "roles": [{"id": "1"}, {"name": "reader"}]});
        assert_eq!(serde_json::to_value(&draft).unwrap(), wanted);
    }
}
