//! Whose a service account's token is, as long as everything that it is bound to stands (`pkg/serviceaccount`).

use jiff::Timestamp;
use policy::User;
use serde_json::Value;

use super::{CREDENTIAL, same};
use crate::{
    jose::Token,
    kinds::ROOT,
    object::{self, decode_kv, text_at},
    rest,
    server::Server,
    status::Result,
    token::{Claims, Issued, Legacy},
    write::{Scope, get},
};

/// How far the clocks of servers may be apart, in seconds.
pub(crate) const LEEWAY_S: i64 = 60;
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Who, and for which of the audiences (empty: the server's own) the token is good.
pub(super) async fn service_account(
    server: &Server,
    token: &str,
    audiences: &[String],
) -> Result<Option<(User, Vec<String>)>> {
    let Some(keys) = &server.state().keys else { return Ok(None) };
    let Some(parsed) = Token::parse(token) else { return Ok(None) };
    let Some(issued) = keys.verify(&parsed) else { return Ok(None) };
    let wanted = if audiences.is_empty() { &keys.audiences } else { audiences };
    let meant: &[String] = match &issued {
        Issued::Bound(claims) => &claims.aud,
        // Such a token names none: it is for this server.
        Issued::Legacy(_) => &keys.audiences,
    };
    let good: Vec<String> = wanted.iter().filter(|audience| meant.contains(audience)).cloned().collect();
    if good.is_empty() {
        return Ok(None);
    }
    let user = match issued {
        Issued::Bound(claims) => bound(server, &claims).await?,
        Issued::Legacy(claims) => legacy(server, &claims, token).await?,
    };
    Ok(user.map(|user| (user, good)))
}

async fn read(server: &Server, plural: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
    let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
    get(server, format!("{ROOT}core/{plural}/{place}{name}")).await?.as_ref().map(decode_kv).transpose()
}

/// Whether the very object that a token is bound to is still there; one that is going has the leeway left.
async fn stands(server: &Server, plural: &str, namespace: &str, name: &str, uid: &str) -> Result<bool> {
    let Some(object) = read(server, plural, namespace, name).await? else { return Ok(false) };
    let deleted = text_at(&object, &["metadata", "deletionTimestamp"]).parse::<Timestamp>().ok();
    let gone = deleted.is_some_and(|time| time.as_second() < server.now().as_second() - LEEWAY_S);
    Ok(object::uid(&object) == uid && !gone)
}

async fn bound(server: &Server, claims: &Claims) -> Result<Option<User>> {
    let now = server.now().as_second();
    if claims.exp + LEEWAY_S <= now || claims.nbf.is_some_and(|nbf| nbf > now + LEEWAY_S) || claims.iat > now + LEEWAY_S
    {
        return Ok(None);
    }
    let bound = &claims.kubernetes;
    let (namespace, name, uid) = (&bound.namespace, &bound.serviceaccount.name, &bound.serviceaccount.uid);
    if claims.sub != format!("system:serviceaccount:{namespace}:{name}") {
        return Ok(None);
    }
    if !stands(server, "serviceaccounts", namespace, name, uid).await? {
        return Ok(None);
    }
    let mut user = User::service_account(namespace, name, uid);
    let mut say = |key: &str, value: &str| {
        if !value.is_empty() {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    for (resource, reference) in [("pods", &bound.pod), ("secrets", &bound.secret)] {
        let Some(reference) = reference else { continue };
        if !stands(server, resource, namespace, &reference.name, &reference.uid).await? {
            return Ok(None);
        }
    }
    if let Some(pod) = &bound.pod {
        say("pod-name", &pod.name);
        say("pod-uid", &pod.uid);
    }
    if let Some(node) = &bound.node {
        // Of a pod's token it is only said where the pod runs.
        if bound.pod.is_none() && !stands(server, "nodes", "", &node.name, &node.uid).await? {
            return Ok(None);
        }
        say("node-name", &node.name);
        say("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        user.extra.insert(CREDENTIAL.to_owned(), vec![format!("JTI={}", claims.jti)]);
    }
    Ok(Some(user))
}

/// A token that lies in a secret: good while it is what the secret holds, and not marked as invalid.
async fn legacy(server: &Server, claims: &Legacy, token: &str) -> Result<Option<User>> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let (namespace, account) = (&claims.namespace, &claims.account);
    if claims.sub != format!("system:serviceaccount:{namespace}:{account}") {
        return Ok(None);
    }
    let Some(secret) = read(server, "secrets", namespace, &claims.secret).await? else { return Ok(None) };
    let kept = STANDARD.decode(text_at(&secret, &["data", "token"])).unwrap_or_default();
    if object::is_deleting(&secret) || !same(&kept, token.as_bytes()) {
        return Ok(None);
    }
    let Some(found) = read(server, "serviceaccounts", namespace, account).await? else { return Ok(None) };
    if object::is_deleting(&found) || object::uid(&found) != claims.uid {
        return Ok(None);
    }
    note_use(server, namespace, &secret).await;
    if !text_at(&secret, &["metadata", "labels", INVALID_SINCE]).is_empty() {
        tracing::warn!(namespace, secret = claims.secret, "a token was used that is marked as invalid");
        return Ok(None);
    }
    Ok(Some(User::service_account(namespace, account, &claims.uid)))
}

/// Writes the day of its last use into a token's secret; once a day.
async fn note_use(server: &Server, namespace: &str, secret: &Value) {
    let today = server.now().strftime("%Y-%m-%d").to_string();
    if text_at(secret, &["metadata", "labels", LAST_USED]) == today {
        return;
    }
    let Some(kind) = server.catalog().find("", "v1", "secrets") else { return };
    let user = std::sync::Arc::new(User::master("system:apiserver"));
    let scope = Scope::internal(server, &user, kind, namespace, object::name(secret));
    let noted = rest::modify_internal(&scope, |secret| {
        object::set_at(secret, &["metadata", "labels", LAST_USED], today.as_str().into());
        true
    });
    if let Err(error) = noted.await {
        tracing::warn!(%error, namespace, secret = object::name(secret), "the use of a token could not be noted");
    }
}
