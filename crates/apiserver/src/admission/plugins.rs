//! The server's own plugins, of those that kube-apiserver has on by default: LimitRanger, Priority, DefaultStorageClass,
//! CertificateSubjectRestriction. Of the others, NamespaceLifecycle is in [`crate::write`], since it is checked in the commit;
//! CertificateApproval, CertificateSigning, DefaultTolerationSeconds and the account that pods run as are in the strategies of
//! their kinds; ResourceQuota is [`super::quota`].
//!
//! Left out: PodSecurity, RuntimeClass, StorageObjectInUseProtection and taints of new nodes, which need the controllers of a
//! cluster that runs pods; OwnerReferencesPermissionEnforcement, which is off by default.

use serde_json::Value;

use super::{Operation, limits, matching::Subject};
use crate::{
    kinds::ROOT,
    object::{self, at, set_at, text_at},
    rest,
    status::Result,
    write,
};

/// The classes that every cluster has.
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Completes an object. True: there was something to add.
pub(crate) async fn mutate(subject: &Subject<'_>, object: &mut Value) -> Result<bool> {
    let request = subject.request;
    let known = matches!(request.resource.as_str(), "pods" | "persistentvolumeclaims") && request.group.is_empty();
    if !(known && request.subresource.is_empty() && request.operation == Operation::Create) {
        return Ok(false);
    }
    let before = object.clone();
    if request.resource == "pods" {
        limits::mutate(subject, object);
        prioritize(subject, object).await?;
    } else {
        default_class(subject, object).await?;
    }
    Ok(before != *object)
}

/// What may not be.
pub(crate) fn validate(subject: &Subject<'_>, object: Option<&Value>) -> Result<()> {
    limits::validate(subject, object)?;
    let request = subject.request;
    let created = request.operation == Operation::Create && request.subresource.is_empty();
    if let Some(object) = object.filter(|_| created && request.resource == "certificatesigningrequests") {
        restrict_subject(subject, object)?;
    }
    Ok(())
}

/// Nobody gets a certificate of the group that may do everything by asking for it.
fn restrict_subject(subject: &Subject<'_>, csr: &Value) -> Result<()> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
    const MASTERS: &str = "system:masters";
    if text_at(csr, &["spec", "signerName"]) != SIGNER {
        return Ok(());
    }
    let pem = STANDARD.decode(text_at(csr, &["spec", "request"])).unwrap_or_default();
    let Ok((_, pem)) = x509_parser::pem::parse_x509_pem(&pem) else { return Ok(()) };
    let Ok((_, parsed)) = X509CertificationRequest::from_der(&pem.contents) else { return Ok(()) };
    let mut groups = parsed.certification_request_info.subject.iter_organization();
    if groups.any(|group| group.as_str() == Ok(MASTERS)) {
        let why = format!("use of {SIGNER} signer with {MASTERS} group is not allowed");
        return Err(subject.forbidden(Some(csr), why));
    }
    Ok(())
}

/// Puts the number of a pod's priority class into it.
async fn prioritize(subject: &Subject<'_>, pod: &mut Value) -> Result<()> {
    let name = text_at(pod, &["spec", "priorityClassName"]).to_owned();
    let (class, value) = match name.as_str() {
        "" => {
            let Some(class) = default_priority(subject).await? else { return Ok(()) };
            set_at(pod, &["spec", "priorityClassName"], object::name(&class).into());
            let value = class.get("value").and_then(Value::as_i64).unwrap_or(0);
            (class, value)
        }
        name => {
            let key = format!("{ROOT}scheduling.k8s.io/priorityclasses/{name}");
            let stored = write::get(subject.server, key).await?;
            match (stored, SYSTEM_CLASSES.iter().find(|(own, _)| *own == name)) {
                (Some(kv), _) => {
                    let class = object::decode_kv(&kv)?;
                    let value = class.get("value").and_then(Value::as_i64).unwrap_or(0);
                    (class, value)
                }
                (None, Some((_, value))) => (Value::Null, *value),
                (None, None) => {
                    let why = format!("no PriorityClass with name {name} was found");
                    return Err(subject.forbidden(Some(pod), why));
                }
            }
        }
    };
    if let Some(said) = at(pod, &["spec", "priority"]).and_then(Value::as_i64).filter(|said| *said != value) {
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed \
             {value} from the given PriorityClass name"
        );
        return Err(subject.forbidden(Some(pod), why));
    }
    set_at(pod, &["spec", "priority"], value.into());
    if let Some(policy) = class.get("preemptionPolicy").filter(|policy| policy.is_string()) {
        set_at(pod, &["spec", "preemptionPolicy"], policy.clone());
    }
    Ok(())
}

/// The class of pods that name none: of several the lowest.
async fn default_priority(subject: &Subject<'_>) -> Result<Option<Value>> {
    let Some(kind) = subject.server.catalog().find("scheduling.k8s.io", "v1", "priorityclasses") else {
        return Ok(None);
    };
    let mut found: Vec<Value> = Vec::new();
    rest::for_each(subject.server, &kind, "", |kv| {
        let class = object::decode_kv(&kv)?;
        if class.get("globalDefault") == Some(&Value::Bool(true)) {
            found.push(class);
        }
        Ok(())
    })
    .await?;
    Ok(found.into_iter().min_by_key(|class| class.get("value").and_then(Value::as_i64).unwrap_or(0)))
}

/// Gives a claim that names no storage class the one that is marked as the default: of several the newest.
async fn default_class(subject: &Subject<'_>, claim: &mut Value) -> Result<()> {
    const MARK: &str = "storageclass.kubernetes.io/is-default-class";
    const OLD: &str = "volume.beta.kubernetes.io/storage-class";
    let named = at(claim, &["spec", "storageClassName"]).is_some_and(|name| !name.is_null());
    if named || at(claim, &["metadata", "annotations", OLD]).is_some() {
        return Ok(());
    }
    let Some(kind) = subject.server.catalog().find("storage.k8s.io", "v1", "storageclasses") else { return Ok(()) };
    let mut found: Vec<(String, String)> = Vec::new();
    rest::for_each(subject.server, &kind, "", |kv| {
        let class = object::decode_kv(&kv)?;
        if text_at(&class, &["metadata", "annotations", MARK]) == "true" {
            let age = object::meta_str(&class, "creationTimestamp").to_owned();
            found.push((age, object::name(&class).to_owned()));
        }
        Ok(())
    })
    .await?;
    found.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    if let Some((_, name)) = found.into_iter().next() {
        set_at(claim, &["spec", "storageClassName"], name.into());
    }
    Ok(())
}
