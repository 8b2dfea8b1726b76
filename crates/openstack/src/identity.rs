//! Keystone v3, as far as it is needed: who one is comes with the token ([`Access`](crate::Access)).

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
    }
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
    }
}

impl Writes<ApplicationCredential> for ApplicationCredentialDraft {}
