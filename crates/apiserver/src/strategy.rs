//! Where a built-in kind differs from all others, as data and plain functions: what happens to an object before it is
//! validated, and what must hold of it beyond its schema. Everything else is the registry's.

use jiff::Timestamp;
use policy::{User, rbac::Attributes};
use serde_json::{Value, json};

use crate::{
    authz,
    field::FieldError,
    kinds::Kind,
    names::{self, NameRule},
    object::{self, at, default_at, set_at, text_at},
    server::Server,
    status::Result,
};

pub(crate) mod access;
mod admission;
mod aggregation;
mod crd;
mod event;
mod workload;

pub(crate) use self::{
    access::{BINDING, ROLE},
    admission::{
        MUTATING_BINDING, MUTATING_POLICY, MUTATING_WEBHOOKS, VALIDATING_BINDING, VALIDATING_POLICY,
        VALIDATING_WEBHOOKS,
    },
    aggregation::API_SERVICE,
    crd::{CRD, conditions as crd_conditions},
    event::{EVENT, EVENT_V1, from_core as event_from_core, to_core as event_to_core},
    workload::{CSR, NODE, POD, SERVICE, WORKLOAD},
};

/// A write in progress, as far as a strategy may see it.
pub(crate) struct Cx<'a> {
    pub server: &'a Server,
    pub user: &'a User,
    pub kind: &'a Kind,
    pub subresource: &'a str,
    pub now: Timestamp,
    /// Those of the strategy's `asks` that the user has.
    pub rights: Vec<Right>,
}

/// A right that is asked for beyond the one to the request itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: String,
    pub namespace: String,
    pub name: String,
}

impl Cx<'_> {
    pub fn has(&self, right: &Right) -> bool {
        self.rights.contains(right)
    }

    /// Asks all that decide for what the strategy wants to know of the (new) object; the old one, if there is one.
    pub async fn ask(&mut self, object: &Value, old: Option<&Value>) {
        self.rights.clear();
        for right in (self.kind.strategy.asks)(self.kind, self.subresource, object, old) {
            let Right { verb, group, resource, namespace, name } = &right;
            let wanted = Attributes::Resource { verb, group, resource, subresource: "", namespace, name };
            if authz::is_allowed(self.server, self.user, wanted).await {
                self.rights.push(right);
            }
        }
    }
}

/// A subresource beyond `status` and `scale`, for discovery.
pub(crate) struct Subresource {
    pub name: &'static str,
    /// Group, version and kind of what it takes; the parent's if none.
    pub kind: Option<(&'static str, &'static str, &'static str)>,
    pub verbs: &'static [&'static str],
}

pub(crate) struct Strategy {
    pub names: NameRule,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub generation: bool,
    /// Whether a new object may come with a status, as nodes do.
    pub status_on_create: bool,
    /// Whether a replacement makes what is not there.
    pub create_on_update: bool,
    /// Whether a replacement may leave out the version that it replaces.
    pub unconditional_update: bool,
    /// A deletion answers with the object, not with a Status.
    pub returns_deleted: bool,
    /// Fields that may be selected by.
    pub fields: &'static [&'static str],
    pub subresources: &'static [Subresource],
    /// Rights that decide on what is done with the (new) object; the subresource, the old object.
    pub asks: fn(&Kind, &str, &Value, Option<&Value>) -> Vec<Right>,
    /// Before validation.
    pub create: fn(&Cx<'_>, &mut Value) -> Result<()>,
    /// What the server adds of its own to a new object: whoever makes it does not come to own that.
    pub prepare: fn(&Cx<'_>, &mut Value),
    /// Before validation: the new object, the old one.
    pub update: fn(&Cx<'_>, &mut Value, &Value) -> Result<()>,
    /// What is wrong with the (new) object; the old one, if there is one.
    pub check: fn(&Cx<'_>, &Value, Option<&Value>) -> Vec<FieldError>,
    /// What whoever writes the (new) object in place of the old one should know, though it is taken.
    pub warn: fn(&Value, Option<&Value>) -> Vec<String>,
}

const fn plain() -> Strategy {
    Strategy {
        names: NameRule::Subdomain,
        generation: false,
        status_on_create: false,
        create_on_update: false,
        unconditional_update: true,
        returns_deleted: false,
        fields: &[],
        subresources: &[],
        asks: |_, _, _, _| Vec::new(),
        create: |_, _| Ok(()),
        prepare: |_, _| {},
        update: |_, _, _| Ok(()),
        check: |_, _, _| Vec::new(),
        warn: |_, _| Vec::new(),
    }
}

/// The status that nobody has written yet.
pub(crate) fn zero_status(cx: &Cx<'_>, object: &mut Value) {
    if !cx.kind.status {
        return;
    }
    let status = match cx.kind.kind.as_ref() {
        "ReplicaSet" | "ReplicationController" => json!({"replicas": 0}),
        "StatefulSet" => json!({"availableReplicas": 0, "replicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
        }),
        "HorizontalPodAutoscaler" => json!({"currentMetrics": null, "desiredReplicas": 0}),
        "PodDisruptionBudget" => {
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
        }
        "Ingress" | "Service" => json!({"loadBalancer": {}}),
        "PersistentVolumeClaim" => json!({"phase": "Pending"}),
        "PersistentVolume" => {
            json!({"phase": "Pending", "lastPhaseTransitionTime": crate::write::rfc3339(cx.now)})
        }
        "VolumeAttachment" => json!({"attached": false}),
        _ => json!({}),
    };
    set_at(object, &["status"], status);
}

pub(crate) static PLAIN: Strategy = Strategy { prepare: zero_status, ..plain() };
/// For kinds whose deletion answers with the object.
pub(crate) static RETURNED: Strategy = Strategy { returns_deleted: true, prepare: zero_status, ..plain() };
pub(crate) static GENERATION: Strategy = Strategy { generation: true, prepare: zero_status, ..plain() };
/// For every kind that a CRD makes.
pub(crate) static CUSTOM: Strategy = Strategy { generation: true, unconditional_update: false, ..plain() };
/// For kinds that a replacement must name the version of.
pub(crate) static CONDITIONAL: Strategy = Strategy { unconditional_update: false, create_on_update: true, ..plain() };

/// The finalizer in a namespace's spec that stands for its content.
pub(crate) const NAMESPACE_FINALIZER: &str = "kubernetes";
/// The label that every namespace carries its own name in.
pub(crate) const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

pub(crate) static NAMESPACE: Strategy = Strategy {
    returns_deleted: true,
    names: NameRule::Label,
    fields: &["status.phase"],
    subresources: &[Subresource { name: "finalize", kind: None, verbs: &["update"] }],
    create: |_, namespace| {
        label_with_name(namespace);
        Ok(())
    },
    prepare: |_, namespace| {
        set_at(namespace, &["status"], json!({"phase": "Active"}));
        let mut list: Vec<Value> =
            at(namespace, &["spec", "finalizers"]).and_then(Value::as_array).cloned().unwrap_or_default();
        if !list.iter().any(|f| f == NAMESPACE_FINALIZER) {
            list.push(NAMESPACE_FINALIZER.into());
        }
        set_at(namespace, &["spec", "finalizers"], list.into());
    },
    update: |cx, namespace, old| {
        if cx.subresource != "finalize" {
            match old.get("spec") {
                Some(spec) => set_at(namespace, &["spec"], spec.clone()),
                None => drop(namespace.as_object_mut().and_then(|o| o.remove("spec"))),
            }
        }
        label_with_name(namespace);
        Ok(())
    },
    ..plain()
};

fn label_with_name(namespace: &mut Value) {
    let name = object::name(namespace).to_owned();
    if !name.is_empty() {
        set_at(namespace, &["metadata", "labels", NAMESPACE_LABEL], name.into());
    }
}

pub(crate) static CONFIG_MAP: Strategy = Strategy {
    check: |_, new, old| {
        let mut errors = Vec::new();
        check_data_keys(new, &["data", "binaryData"], &mut errors);
        for key in new.get("data").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            if new.get("binaryData").is_some_and(|b| b.get(key).is_some()) {
                errors.push(FieldError::invalid(
                    format!("data[{key}]"),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                ));
            }
        }
        check_immutable(new, old, &["data", "binaryData"], &mut errors);
        let texts = new.get("data").and_then(Value::as_object).into_iter().flatten();
        let bytes: usize = texts.map(|(_, text)| text.as_str().map_or(0, str::len)).sum();
        let binaries = new.get("binaryData").and_then(Value::as_object).into_iter().flatten();
        let binary: usize = binaries.map(|(_, text)| text.as_str().map_or(0, |text| text.len() / 4 * 3)).sum();
        if bytes + binary > DATA_BYTES_MAX {
            // The place has no name upstream.
            errors.push(FieldError::too_long("[]", DATA_BYTES_MAX));
        }
        errors
    },
    ..plain()
};

pub(crate) static SECRET: Strategy = Strategy {
    fields: &["type"],
    create: |_, secret| {
        take_string_data(secret);
        default_at(secret, &["type"], "Opaque".into());
        Ok(())
    },
    update: |_, secret, old| {
        take_string_data(secret);
        if text_at(secret, &["type"]).is_empty() {
            set_at(secret, &["type"], old.get("type").cloned().unwrap_or_else(|| "Opaque".into()));
        }
        Ok(())
    },
    check: check_secret,
    ..plain()
};

/// Secrets and config maps hold no more than this (`MaxSecretSize`).
pub(crate) const DATA_BYTES_MAX: usize = 1024 * 1024;

fn take_string_data(secret: &mut Value) {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let Some(Value::Object(texts)) = secret.as_object_mut().and_then(|o| o.remove("stringData")) else { return };
    for (key, text) in texts {
        let encoded = STANDARD.encode(text.as_str().unwrap_or_default());
        set_at(secret, &["data", &key], encoded.into());
    }
}

fn check_secret(_: &Cx<'_>, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut errors = Vec::new();
    check_data_keys(new, &["data"], &mut errors);
    let mut bytes = 0;
    for (key, value) in new.get("data").and_then(Value::as_object).into_iter().flatten() {
        match value.as_str().map(|text| STANDARD.decode(text)) {
            Some(Ok(decoded)) => bytes += decoded.len(),
            _ if value.is_null() => {}
            _ => errors.push(FieldError::invalid(
                format!("data[{key}]"),
                "<secret contents redacted>",
                "illegal base64 data",
            )),
        }
    }
    if bytes > DATA_BYTES_MAX {
        errors.push(FieldError::too_long("data", DATA_BYTES_MAX));
    }
    let required: &[&str] = match text_at(new, &["type"]) {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        _ => &[],
    };
    for key in required {
        if at(new, &["data", key]).is_none() {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    }
    if let Some(old) = old
        && old.get("type") != new.get("type")
    {
        errors.push(FieldError::invalid("type", new.get("type").cloned().unwrap_or_default(), "field is immutable"));
    }
    check_immutable(new, old, &["data"], &mut errors);
    errors
}

/// Keys of data become file names.
fn check_data_keys(new: &Value, fields: &[&str], errors: &mut Vec<FieldError>) {
    for field in fields {
        for key in new.get(field).and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key) {
            let path = format!("{field}[{key}]");
            if key.len() > names::SUBDOMAIN_BYTES_MAX {
                errors.push(FieldError::invalid(path.as_str(), key.as_str(), "must be no more than 253 characters"));
            }
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            if matches!(key.as_str(), "." | "..") || key.starts_with("..") {
                let text = match key.as_str() {
                    "." | ".." => format!("must not be '{key}'"),
                    _ => "must not start with '..'".to_owned(),
                };
                errors.push(FieldError::invalid(path, key.as_str(), text));
            } else if key.is_empty() || !key.bytes().all(fits) {
                let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  \
                            or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                errors.push(FieldError::invalid(path, key.as_str(), text));
            }
        }
    }
}

fn check_immutable(new: &Value, old: Option<&Value>, fields: &[&str], errors: &mut Vec<FieldError>) {
    let Some(old) = old.filter(|old| old.get("immutable") == Some(&Value::Bool(true))) else { return };
    if new.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(FieldError::forbidden("immutable", "field is immutable when `immutable` is set"));
    }
    for field in fields {
        if new.get(field) != old.get(field) {
            errors.push(FieldError::forbidden(*field, "field is immutable when `immutable` is set"));
        }
    }
}

pub(crate) static SERVICE_ACCOUNT: Strategy = Strategy {
    returns_deleted: true,
    subresources: &[Subresource {
        name: "token",
        kind: Some(("authentication.k8s.io", "v1", "TokenRequest")),
        verbs: &["create"],
    }],
    ..plain()
};

pub(crate) static LIMIT_RANGE: Strategy = Strategy {
    create: |_, range| {
        crate::admission::limits::default_range(range);
        Ok(())
    },
    update: |_, range, _| {
        crate::admission::limits::default_range(range);
        Ok(())
    },
    ..plain()
};
