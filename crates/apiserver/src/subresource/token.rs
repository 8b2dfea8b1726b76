//! Tokens of service accounts (authentication.k8s.io/v1 TokenRequest; `pkg/registry/core/serviceaccount/storage/token.go`).

use serde_json::{Value, json};

use super::track;
use crate::{
    authz::restriction,
    field::FieldError,
    kinds::{ROOT, split_api_version},
    object::{self, decode_kv, text_at},
    status::{Error, Result},
    token::{Bound, Claims, LIFETIME_S_MAX, Reference},
    write::{Scope, check_type, get, rfc3339},
};

const GROUP: &str = "authentication.k8s.io";
/// Tokens that are asked for without a lifetime live this long; none lives shorter than [`LIFETIME_S_MIN`].
const LIFETIME_S: i64 = 3600;
const LIFETIME_S_MIN: i64 = 600;
/// What kubelets ask for on behalf of pods that may not know that tokens expire: such a token lives a year, and says when it
/// should have been replaced.
const WARN_LIFETIME_S: i64 = 3607;
const EXTENDED_LIFETIME_S: i64 = 365 * 24 * 3600;

fn invalid(name: &str, error: FieldError) -> Error {
    Error::invalid(GROUP, "TokenRequest", name, &[error])
}

pub(super) async fn create(scope: &mut Scope, mut request: Value) -> Result<Value> {
    check_type(&mut request, "authentication.k8s.io/v1", "TokenRequest")
        .map_err(|wrong| wrong.into_error(&scope.kind))?;
    let said = object::namespace(&request);
    if !said.is_empty() && said != scope.namespace {
        let text = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Error::bad_request(text));
    }
    let said = object::name(&request);
    if !said.is_empty() && said != scope.name {
        let text = "must match the service account name if specified";
        return Err(invalid(&scope.name, FieldError::invalid("metadata.name", said, text)));
    }
    let account = decode_kv(&scope.current().await?.ok_or_else(|| scope.not_found())?)?;
    let uid = object::uid(&account);
    let said = object::uid(&request);
    if !said.is_empty() && said != uid {
        let why =
            format!("the UID in the token request ({said}) does not match the UID of the service account ({uid})");
        return Err(Error::conflict(GROUP, "TokenRequest", &scope.name, why));
    }
    let server = scope.server.clone();
    let Some(keys) = &server.state().keys else {
        return Err(Error::internal("this server has no key to sign service account tokens with"));
    };
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let mut audiences: Vec<String> = audiences.filter_map(Value::as_str).map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.clone_from(&keys.audiences);
    }
    let mut lifetime_s = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(LIFETIME_S);
    let limit = match lifetime_s {
        short if short < LIFETIME_S_MIN => Some("may not specify a duration less than 10 minutes"),
        long if long > LIFETIME_S_MAX => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(text) = limit {
        return Err(invalid("", FieldError::invalid("spec.expirationSeconds", lifetime_s, text)));
    }
    restriction::token(&server, &scope.user, &scope.namespace, &scope.name, &request).await?;
    let now = server.now();
    let mut bound = Bound {
        namespace: scope.namespace.clone(),
        node: None,
        pod: None,
        secret: None,
        serviceaccount: Reference { name: scope.name.clone(), uid: uid.to_owned() },
        warnafter: None,
    };
    bind(scope, &request, &mut bound).await?;
    if lifetime_s > keys.lifetime_s_max {
        let max = keys.lifetime_s_max;
        scope.warnings.push(format!("requested expiration of {lifetime_s} seconds shortened to {max} seconds"));
        lifetime_s = max;
    }
    let mut lives_s = lifetime_s;
    let own = audiences.iter().all(|audience| keys.audiences.contains(audience));
    if lifetime_s == WARN_LIFETIME_S && bound.pod.is_some() && own {
        bound.warnafter = Some(now.as_second() + lifetime_s);
        lives_s = EXTENDED_LIFETIME_S.min(keys.lifetime_s_max);
    }
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + lives_s,
        iat: now.as_second(),
        iss: keys.issuer().to_owned(),
        jti: server.new_uid(),
        kubernetes: bound,
        nbf: Some(now.as_second()),
        sub: format!("system:serviceaccount:{}:{}", scope.namespace, scope.name),
    };
    let token = keys.sign(&claims).map_err(Error::internal)?;
    let end = now.checked_add(jiff::SignedDuration::from_secs(lifetime_s)).map_err(Error::internal)?;
    if request["spec"].get("expirationSeconds").is_none() {
        request["spec"]["expirationSeconds"] = LIFETIME_S.into();
    }
    track(scope, &mut request, GROUP, "TokenRequest");
    let mut managed = request.pointer("/metadata/managedFields").cloned().unwrap_or_default();
    // An empty request has the reference already, as null: it was not added as a whole.
    if let Some(fields) = managed.pointer_mut("/0/fieldsV1/f:spec/f:boundObjectRef").and_then(Value::as_object_mut) {
        fields.remove(".");
    }
    request["metadata"] = json!({
        "name": scope.name, "namespace": scope.namespace, "creationTimestamp": rfc3339(now),
        "uid": uid, "managedFields": managed,
    });
    if request["spec"].get("boundObjectRef").is_none() {
        request["spec"]["boundObjectRef"] = Value::Null;
    }
    request["spec"]["audiences"] = audiences.into();
    request["spec"]["expirationSeconds"] = lifetime_s.into();
    request["status"] = json!({"token": token, "expirationTimestamp": rfc3339(end)});
    Ok(request)
}

/// Binds the token to the pod, the node or the secret that the request names.
async fn bind(scope: &Scope, request: &Value, bound: &mut Bound) -> Result<()> {
    let Some(reference) = request.pointer("/spec/boundObjectRef").filter(|r| !r.is_null()) else { return Ok(()) };
    let (kind, name) = (text_at(reference, &["kind"]), text_at(reference, &["name"]));
    let (group, version) = split_api_version(text_at(reference, &["apiVersion"]));
    let plural = match (group, kind) {
        ("", "Pod") => "pods",
        ("", "Secret") => "secrets",
        ("", "Node") => "nodes",
        _ => {
            let text = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Error::bad_request(text));
        }
    };
    let read = async |plural: &str, name: &str| {
        let place = if plural == "nodes" { String::new() } else { format!("{}/", scope.namespace) };
        let kv = get(&scope.server, format!("{ROOT}core/{plural}/{place}{name}")).await?;
        kv.as_ref().map(decode_kv).transpose()
    };
    let Some(found) = read(plural, name).await? else { return Err(Error::not_found("", plural, name)) };
    if plural == "pods" && text_at(&found, &["spec", "serviceAccountName"]) != scope.name {
        return Err(Error::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            scope.name
        )));
    }
    let asked = text_at(reference, &["uid"]);
    if !asked.is_empty() && asked != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({asked}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(Error::conflict("", kind, name, why));
    }
    let reference = Reference { name: name.to_owned(), uid: object::uid(&found).to_owned() };
    match plural {
        "pods" => {
            let node = text_at(&found, &["spec", "nodeName"]);
            if !node.is_empty() {
                let uid = read("nodes", node).await?.map(|node| object::uid(&node).to_owned()).unwrap_or_default();
                bound.node = Some(Reference { name: node.to_owned(), uid });
            }
            bound.pod = Some(reference);
        }
        "nodes" => bound.node = Some(reference),
        _ => bound.secret = Some(reference),
    }
    Ok(())
}
