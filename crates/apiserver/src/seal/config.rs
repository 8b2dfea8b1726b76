//! EncryptionConfiguration: read and checked (`apiserver/pkg/apis/apiserver/validation/validation_encryption.go`).

use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{KEYS_MAX, Key, Provider, Resource, Rule};
use crate::field::FieldError;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    #[error("it is no apiserver.config.k8s.io/v1 EncryptionConfiguration: {0}")]
    Form(String),
    #[error("{0}")]
    Invalid(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<FileRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<FileProvider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileProvider {
    aesgcm: Option<FileKeys>,
    identity: Option<Value>,
    aescbc: Option<Value>,
    secretbox: Option<Value>,
    kms: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKeys {
    #[serde(default)]
    keys: Vec<FileKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

pub(super) fn parse(text: &str) -> Result<Vec<Rule>, EncryptionError> {
    // What a parser shows of a document could be a key.
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let text = error.to_string();
        EncryptionError::Form(text.lines().next().unwrap_or_default().to_owned())
    })?;
    let said = (file.api_version.as_str(), file.kind.as_str());
    if said != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration") {
        return Err(EncryptionError::Form(format!("it says apiVersion {:?}, kind {:?}", said.0, said.1)));
    }
    let mut errors = Vec::new();
    if file.resources.is_empty() {
        errors.push(FieldError::required("resources", "at least one resources is required"));
    }
    let mut rules = Vec::new();
    let mut keys = 0;
    for (at, rule) in file.resources.into_iter().enumerate() {
        let path = format!("resources[{at}]");
        let resources = resources(&rule.resources, &format!("{path}.resources"), &mut errors);
        let path = format!("{path}.providers");
        if rule.providers.is_empty() {
            errors.push(FieldError::required(path.as_str(), format!("at least one {path} is required")));
        }
        let mut providers = Vec::new();
        for (at, provider) in rule.providers.into_iter().enumerate() {
            providers.extend(self::provider(provider, &format!("{path}[{at}]"), &mut errors));
        }
        keys += providers.iter().map(|p| if let Provider::AesGcm(keys) = p { keys.len() } else { 0 }).sum::<usize>();
        rules.push(Rule { resources, providers });
    }
    if keys > KEYS_MAX {
        errors.push(FieldError::too_many("resources", keys, KEYS_MAX));
    }
    if errors.is_empty() {
        return Ok(rules);
    }
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    Err(EncryptionError::Invalid(texts.join("; ")))
}

fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

fn resources(names: &[String], path: &str, errors: &mut Vec<FieldError>) -> Vec<Resource> {
    if names.is_empty() {
        errors.push(FieldError::required(path, format!("at least one {path} is required")));
    }
    let mut repeated = false;
    let mut masked = false;
    for (at, name) in names.iter().enumerate() {
        let (plural, group) = split(name);
        for other in &names[..at] {
            let (other_plural, other_group) = split(other);
            repeated |= (plural, group) == (other_plural, other_group);
            masked |= name == "*.*" || other == "*.*";
            masked |= group == other_group && (plural == "*") != (other_plural == "*");
        }
    }
    if repeated {
        let text = "the same resource cannot be specified multiple times";
        errors.push(FieldError::invalid(path, json!(names), text));
    }
    if masked {
        let text = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they \
                    will be masked";
        errors.push(FieldError::invalid(path, json!(names), text));
    }
    let mut found = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let (plural, group) = split(name);
        let wrong = match (plural, group) {
            _ if name.chars().any(char::is_uppercase) => "resource name should not contain capital letters",
            _ if name == "*" => {
                "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
            }
            ("apiserveripinfo" | "serviceipallocations" | "servicenodeportallocations", _) => {
                "resources which do not have REST API/s cannot be encrypted"
            }
            (_, "events.k8s.io") => {
                "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the \
                 config file"
            }
            (_, "extensions") => "'extensions' group has been removed and cannot be used for encryption",
            (plural, "*") if plural != "*" => "encrypting the same resource across groups is not supported",
            _ => {
                found.push(Resource { group: group.to_owned(), plural: plural.to_owned() });
                continue;
            }
        };
        errors.push(FieldError::invalid(format!("{path}[{at}]"), name.as_str(), wrong));
    }
    found
}

fn provider(provider: FileProvider, path: &str, errors: &mut Vec<FieldError>) -> Option<Provider> {
    let others = [
        ("aescbc", &provider.aescbc, "its values are not authenticated"),
        ("secretbox", &provider.secretbox, "it is not there"),
        ("kms", &provider.kms, "it is not there"),
    ];
    let given = usize::from(provider.aesgcm.is_some())
        + usize::from(provider.identity.is_some())
        + others.iter().filter(|(_, value, _)| value.is_some()).count();
    if given == 0 {
        let text = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity";
        errors.push(FieldError::invalid(path, "", text));
        return None;
    }
    if given > 1 {
        let text = "more than one provider specified in a single element, should split into different list elements";
        errors.push(FieldError::invalid(path, "", text));
        return None;
    }
    for (name, value, why) in others {
        if value.is_some() {
            let text = format!("this server encrypts with aesgcm alone: {why}");
            errors.push(FieldError::forbidden(format!("{path}.{name}"), text));
            return None;
        }
    }
    let Some(keys) = provider.aesgcm else { return Some(Provider::Identity) };
    let path = format!("{path}.aesgcm.keys");
    if keys.keys.is_empty() {
        errors.push(FieldError::required(path.as_str(), "at least one keys is required"));
    }
    let mut found: Vec<Key> = Vec::new();
    for (at, key) in keys.keys.iter().enumerate() {
        match self::key(key, &format!("{path}[{at}]")) {
            Ok(key) if found.iter().any(|known| known.name == key.name) => {
                errors.push(FieldError::duplicate(format!("{path}[{at}].name"), key.name));
            }
            Ok(key) => found.push(key),
            Err(wrong) => errors.extend(wrong),
        }
    }
    Some(Provider::AesGcm(found))
}

/// Never shows the secret.
fn key(key: &FileKey, path: &str) -> Result<Key, Vec<FieldError>> {
    let mut errors = Vec::new();
    if key.name.is_empty() {
        errors.push(FieldError::required(format!("{path}.name"), "name is a mandatory field for a key"));
    }
    if key.name.contains(':') {
        errors.push(FieldError::invalid(format!("{path}.name"), key.name.as_str(), "must not contain ':'"));
    }
    let path = format!("{path}.secret");
    if key.secret.is_empty() {
        errors.push(FieldError::required(path, "secret is a mandatory field for a key"));
        return Err(errors);
    }
    let Ok(secret) = STANDARD.decode(&key.secret) else {
        errors.push(FieldError::invalid(path, "REDACTED", "secrets must be base64 encoded"));
        return Err(errors);
    };
    let algorithm = match secret.len() {
        16 => &AES_128_GCM,
        24 => &AES_192_GCM,
        32 => &AES_256_GCM,
        length => {
            let text = format!("secret is not of the expected length, got {length}, expected one of [16 24 32]");
            errors.push(FieldError::invalid(path, "REDACTED", text));
            return Err(errors);
        }
    };
    let Ok(bound) = UnboundKey::new(algorithm, &secret) else {
        errors.push(FieldError::invalid(path, "REDACTED", "the key cannot be used"));
        return Err(errors);
    };
    if errors.is_empty() { Ok(Key { name: key.name.clone(), key: LessSafeKey::new(bound) }) } else { Err(errors) }
}
