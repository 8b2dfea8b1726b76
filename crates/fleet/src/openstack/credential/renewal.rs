//! A new application credential in the place of one that ends, in the cloud and in the Secret.
//!
//! The Secret is the only memory of a credential's secret, so two things could go wrong: a credential could be made and never
//! written, and one could be written that is gone. Names tell which are ours: they begin with the Secret's UID. Whoever is about to
//! make one writes its name into an annotation first, and removes what was made for this Secret and is not in it. That write and the
//! one of the new credential both ask for the version that was read. So of two that are at it (a process that has lost its lease,
//! clusters in two regions) the first to write makes the other one's write fail, and nobody removes what is in the Secret or still
//! may get into it.

use jiff::{SignedDuration, Timestamp, Unit};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use openstack::{
    Class, Cloud, Query,
    clouds::successor::{Successor, mentions},
    identity::{ApplicationCredential, ApplicationCredentialDraft, Reference},
};
use serde_json::{Value, json};

use super::super::{scope::Scope, stop::Stop};

/// On a Secret with a clouds.yaml: how long each new application credential lives, as Go writes durations.
pub const ANNOTATION: &str = "openstack.skep.dev/renew-application-credential";
/// The name of the credential that is about to be made.
const CLAIM: &str = "openstack.skep.dev/renewing-application-credential";
/// A credential that lives shorter would be renewed all the time.
const LIFE_MIN: SignedDuration = SignedDuration::from_hours(48);
/// A credential is renewed no later than this before its end: a cloud or a process may be away for a while.
const WINDOW_MIN: SignedDuration = SignedDuration::from_hours(24);
/// Keystone's limit.
const NAME_LIMIT: usize = 255;
pub const RESTRICTED: &str = "it is restricted, and Keystone lets only an unrestricted one make others: write one into the Secret that was made by `openstack application credential create --unrestricted`";
const UNPLACED: &str = "its id and secret cannot be replaced in the text of clouds.yaml without changing what else it says: write them as plain or quoted values of their keys";

/// How long each new credential lives.
pub fn life(text: &str) -> Result<SignedDuration, String> {
    let life = api::conversion::duration_s(text.trim()).map(SignedDuration::from_secs);
    life.filter(|life| *life >= LIFE_MIN).ok_or_else(|| {
        format!("the annotation {ANNOTATION} has to be a duration of 48h or more, such as 2160h, and is {text:?}")
    })
}

/// So long before its end a credential is renewed: a third of its life, and a day at least.
pub fn window(life: SignedDuration) -> SignedDuration {
    (life / 3).max(WINDOW_MIN)
}

/// Why there is no new credential.
pub enum Failure {
    /// The cloud cannot be asked now.
    Stop(Stop),
    /// Somebody else has written the Secret meanwhile: the next reconcile looks at what it holds.
    Overtaken,
    /// Nothing will come of it until a person changes something.
    Refused(String),
    /// It may pass.
    Later(String),
}

impl From<openstack::Error> for Failure {
    fn from(error: openstack::Error) -> Self {
        let words = error.message();
        match error.class() {
            _ if error.is_put_off() => Self::Stop(error.into()),
            Class::Forbidden => Self::Refused(format!("Keystone refuses ({words}). If that is since {RESTRICTED}")),
            class if class.is_transient() => Self::Later(format!("Keystone fails ({words}), and is tried again")),
            _ => Self::Refused(format!("Keystone refuses ({words})")),
        }
    }
}

/// The Secret, as it is now.
struct Held {
    api: Api<Secret>,
    name: String,
    uid: String,
    version: String,
    yaml: Vec<u8>,
}

impl Held {
    /// `None` if it does not hold the scope's credentials any more: the next reconcile takes up those that it has.
    async fn read(scope: &Scope, client: &Client) -> Result<Option<Self>, Failure> {
        let Some((namespace, name)) = scope.secret.split_once('/') else { return Ok(None) };
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        let found = api.get_opt(name).await.map_err(|error| unwritten(&error))?;
        let Some(Secret { metadata, data: Some(mut data), immutable, .. }) = found else { return Ok(None) };
        let (Some(uid), Some(version), Some(yaml)) =
            (metadata.uid, metadata.resource_version, data.remove("clouds.yaml"))
        else {
            return Ok(None);
        };
        let used = scope.cloud.cloud();
        let same = Cloud::from_yaml(&yaml.0, Some(&used.name), None).is_ok_and(|now| now.has_credentials_of(used));
        if !same {
            return Ok(None);
        }
        if immutable == Some(true) {
            return Err(Failure::Refused("the Secret is immutable".to_owned()));
        }
        Ok(Some(Self { api, name: name.to_owned(), uid, version, yaml: yaml.0 }))
    }

    /// What the names of all credentials begin with that are made for this Secret.
    fn prefix(&self) -> String {
        format!("skep:{}:", self.uid)
    }

    fn name_of(&self, secret: &str, end: Timestamp) -> String {
        let (prefix, end) = (self.prefix(), format!(":{end}"));
        // Namespaces and names are ASCII. They are for people: it is the prefix that tells.
        let room = NAME_LIMIT.saturating_sub(prefix.len() + end.len());
        format!("{prefix}{}{end}", secret.get(..room).unwrap_or(secret))
    }

    /// Writes, if nobody else has written since.
    async fn write(&mut self, name: Option<&str>, data: Value) -> Result<(), kube::Error> {
        let metadata = json!({"resourceVersion": self.version, "annotations": {CLAIM: name}});
        let mut change = json!({ "metadata": metadata });
        if !data.is_null() {
            change["data"] = data;
        }
        let written = self.api.patch_metadata(&self.name, &PatchParams::default(), &Patch::Merge(&change)).await?;
        self.version = written.metadata.resource_version.unwrap_or_default();
        Ok(())
    }
}

/// Makes a successor of the credential in use and writes it into the Secret. Says when that one ends, or nothing if the Secret
/// holds other credentials by now.
pub async fn renew(
    scope: &Scope,
    client: &Client,
    old: &ApplicationCredential,
    life: SignedDuration,
    now: Timestamp,
) -> Result<Option<Timestamp>, Failure> {
    let Some(mut held) = Held::read(scope, client).await? else { return Ok(None) };
    let cloud = scope.cloud.cloud().name.as_str();
    let end = now.checked_add(life).and_then(|end| end.round(Unit::Second));
    let end = end.map_err(|_| Failure::Refused("its end would be too far away".to_owned()))?;
    let name = held.name_of(&scope.secret, end);
    let sample = Successor { id: "0", name: &name, secret: "0" };
    if sample.written_into(&held.yaml, cloud).is_none() {
        return Err(Failure::Refused(UNPLACED.to_owned()));
    }
    let user = scope.cloud.access().await?.user_id.clone();
    let all = scope.cloud.list_in::<ApplicationCredential>(&user, &Query::new()).await?;
    held.write(Some(&name), Value::Null).await.map_err(|error| unwritten(&error))?;
    for one in all.iter().filter(|one| is_stray(one, old, &held.prefix(), &held.yaml, now)) {
        remove(scope, &user, &one.id).await?;
    }

    let draft = draft(old, name, end);
    let made: ApplicationCredential = scope.cloud.create_in(&user, &draft).await?;
    let placed = match made.ends_at() {
        Some(end) if end.duration_since(now) <= window(life) => {
            Err(Failure::Refused(format!("the cloud lets a new one live until {end} only")))
        }
        _ => {
            let successor = Successor { id: &made.id, name: &made.name, secret: &made.secret };
            successor.written_into(&held.yaml, cloud).ok_or_else(|| Failure::Refused(UNPLACED.to_owned()))
        }
    };
    let written = match placed {
        Ok(yaml) => {
            let data = json!({ "clouds.yaml": ByteString(yaml) });
            held.write(None, data).await.map_err(|error| (is_answer(&error), unwritten(&error)))
        }
        Err(failure) => Err((true, failure)),
    };
    match written {
        Ok(()) => Ok(Some(made.ends_at().unwrap_or(end))),
        Err((is_sure, failure)) => {
            // Where no answer came, the Secret may hold it. Whoever makes the next one looks.
            if is_sure && remove(scope, &user, &made.id).await.is_err() {
                tracing::info!(
                    id = made.id,
                    secret = scope.secret,
                    "an application credential that is not used stays for now"
                );
            }
            Err(failure)
        }
    }
}

/// The same as the old one but for its name and its end.
fn draft(old: &ApplicationCredential, name: String, end: Timestamp) -> ApplicationCredentialDraft {
    let short = |all: &[Reference]| all.iter().cloned().map(Reference::short).collect();
    ApplicationCredentialDraft {
        name,
        description: old.description.clone(),
        // Keystone takes UTC, and no zone in some releases.
        expires_at: Some(end.strftime("%Y-%m-%dT%H:%M:%S").to_string()),
        unrestricted: Some(true),
        roles: short(&old.roles),
        access_rules: short(&old.access_rules),
    }
}

/// Whether it was made for this Secret and is of no use: it never got into the Secret, or has ended. One that ends before the one in
/// use was in the Secret once, and copies of the Secret may have it still.
fn is_stray(
    one: &ApplicationCredential,
    old: &ApplicationCredential,
    prefix: &str,
    yaml: &[u8],
    now: Timestamp,
) -> bool {
    let spared = one.id == old.id || !one.name.starts_with(prefix) || mentions(yaml, &one.id, &one.name);
    !spared && one.ends_at().is_none_or(|end| end <= now || old.ends_at().is_some_and(|in_use| end >= in_use))
}

async fn remove(scope: &Scope, user: &str, id: &str) -> openstack::Result<()> {
    match scope.cloud.delete_in::<ApplicationCredential>(user, id).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The Management API has said no: nothing was written.
fn is_answer(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code))
}

/// The words of the answer are left out: who refuses may quote what it refuses.
fn unwritten(error: &kube::Error) -> Failure {
    let code = match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    };
    match code {
        404 | 409 => Failure::Overtaken,
        _ if is_answer(error) && code != 429 => {
            Failure::Refused(format!("the Management API refuses to read or change the Secret ({code})"))
        }
        _ => Failure::Later("the Management API does not read or change the Secret now, and is tried again".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_a_duration_of_two_days_or_more() {
        assert_eq!(life("2160h"), Ok(SignedDuration::from_hours(2160)));
        assert_eq!(life(" 48h0m0s "), Ok(LIFE_MIN));
        for text in ["", "90d", "2160", "47h59m59s", "-2160h", "99999999999h", "NaNh", "ever"] {
            let told = life(text).unwrap_err();
            assert!(told.contains("48h or more") && told.contains(&format!("{text:?}")), "{told}");
        }
    }

    #[test]
    fn a_credential_is_renewed_in_the_last_third_of_its_life_and_a_day_before_its_end_at_least() {
        let hours = |hours| SignedDuration::from_hours(hours);
        assert_eq!([2160, 90, 72, 48].map(|life| window(hours(life))), [hours(720), hours(30), hours(24), hours(24)]);
    }

    fn one(id: &str, name: &str, end: &str) -> ApplicationCredential {
        let expires_at = (!end.is_empty()).then(|| end.to_owned());
        ApplicationCredential { id: id.into(), name: name.into(), expires_at, ..Default::default() }
    }

    #[test]
    fn what_was_made_and_never_used_goes_and_what_was_used_stays_to_its_end() {
        let old = one("in-use", "skep:u:a/b:2", "2026-06-01T00:00:00");
        let now = "2026-05-01T00:00:00Z".parse().unwrap();
        let stray = |one: &ApplicationCredential| is_stray(one, &old, "skep:u:", b"in-use, other-cloud", now);
        assert!(stray(&one("lost", "skep:u:a/b:3", "2026-08-01T00:00:00")));
        assert!(stray(&one("ended", "skep:u:a/b:0", "2026-04-01T00:00:00")));
        assert!(!stray(&one("before", "skep:u:a/b:1", "2026-05-20T00:00:00")));
        assert!(!stray(&one("other-cloud", "skep:u:a/b:4", "2026-08-01T00:00:00")));
        assert!(!stray(&one("another-secret", "skep:v:a/b:3", "2026-08-01T00:00:00")));
        assert!(!stray(&one("of-a-person", "laptop", "2026-08-01T00:00:00")));
        assert!(!stray(&old));
    }

    #[test]
    fn who_is_overtaken_says_nothing_and_what_is_refused_is_told_without_the_words_of_the_answer() {
        let answer = |code| {
            let status = kube::core::Status { code, message: "s3cret".into(), ..Default::default() };
            unwritten(&kube::Error::Api(Box::new(status)))
        };
        assert!(matches!(answer(409), Failure::Overtaken) && matches!(answer(404), Failure::Overtaken));
        for (code, is_refused) in [(403, true), (422, true), (429, false), (500, false)] {
            let (told, refused) = match answer(code) {
                Failure::Refused(told) => (told, true),
                Failure::Later(told) => (told, false),
                _ => panic!("{code} is told"),
            };
            assert!(refused == is_refused && !told.contains("s3cret"), "{code} {told}");
        }
    }

    #[test]
    fn a_successor_may_do_what_the_old_one_may_and_no_more() {
        let reference = |id: &str, name: &str| Reference { id: id.into(), name: name.into() };
        let old = ApplicationCredential {
            description: "of the robot".into(),
            roles: vec![reference("1", "member"), reference("", "reader")],
            access_rules: vec![reference("7", "")],
            ..Default::default()
        };
        let draft = draft(&old, "n".into(), "2026-05-01T00:00:00Z".parse().unwrap());
        let wanted = json!({
            "name": "n", "description": "of the robot", "expires_at": "2026-05-01T00:00:00", "unrestricted": true,
            "roles": [{"id": "1"}, {"name": "reader"}], "access_rules": [{"id": "7"}],
        });
        assert_eq!(serde_json::to_value(&draft).unwrap(), wanted);
    }
}
