//! Who sends a request: a client certificate, a bearer token, or nobody in particular.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header, request::Parts};
use policy::{User, rbac::Attributes};
use rustls_pki_types::CertificateDer;
use serde_json::Value;

use crate::{
    authz,
    jose::Token,
    object::{self, decode_kv, text_at},
    server::Server,
    status::{Error, Result},
    write::get,
};

mod accounts;

/// The certificates of a TLS client, verified by the listener: an extension of each request of the connection.
#[derive(Clone, Debug)]
pub struct PeerCertificates(pub Vec<CertificateDer<'static>>);

/// Longer bearer tokens are refused unread.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

pub(crate) async fn authenticate(server: &Server, parts: &Parts) -> Result<User> {
    if let Some(user) = parts.extensions.get::<PeerCertificates>().and_then(|peer| peer.0.first()).and_then(certificate)
    {
        return Ok(user);
    }
    // What is no bearer token is no credential at all.
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token.filter(|(_, token)| !token.trim().is_empty()) else {
        let options = &server.state().options;
        let configured = options.authentication.as_ref().and_then(|authentication| authentication.anonymous());
        let anonymous = configured.as_ref().unwrap_or(&options.anonymous);
        return if anonymous.allows(parts.uri.path()) { Ok(User::anonymous()) } else { Err(Error::unauthorized()) };
    };
    let found = bearer(server, token.trim(), &[]).await?;
    server.state().metrics.authenticated(if found.is_some() { "success" } else { "failure" });
    found.map(|(user, _)| user).ok_or_else(Error::unauthorized)
}

/// Who a request is to be made as (`Impersonate-*` headers), if the caller may do that; none: as the caller.
pub(crate) async fn impersonate(server: &Server, user: &User, headers: &HeaderMap) -> Result<Option<User>> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| Error::bad_request("impersonation headers must be text"))
    };
    let name = headers.get("impersonate-user").map(text).transpose()?.unwrap_or_default();
    let groups = headers.get_all("impersonate-group").iter().map(text).collect::<Result<Vec<_>>>()?;
    let asks = headers.keys().any(|key| key.as_str().starts_with("impersonate-"));
    if !asks {
        return Ok(None);
    }
    let uid = headers.get("impersonate-uid").map(text).transpose()?.unwrap_or_default();
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(text(value)?);
        }
    }
    let mut target = User { name, groups, uid, extra };
    if target.name.is_empty() {
        let text = format!("requested {} without impersonating a user name", go_user(&target));
        return Err(Error::bad_request(text));
    }
    let account = target.as_service_account().map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    match &account {
        Some((namespace, name)) => may_impersonate(server, user, "serviceaccounts", namespace, name).await?,
        None => may_impersonate(server, user, "users", "", &target.name).await?,
    }
    for group in &target.groups {
        may_impersonate(server, user, "groups", "", group).await?;
    }
    if !target.uid.is_empty() {
        may_impersonate_as(server, user, "uids", "", &target.uid).await?;
    }
    for (key, values) in &target.extra {
        for value in values {
            may_impersonate_as(server, user, "userextras", key, value).await?;
        }
    }
    if let (Some((namespace, name)), true) = (&account, target.groups.is_empty()) {
        target = User::service_account(namespace, name, "");
    }
    let group =
        if target.name == "system:anonymous" { policy::user::UNAUTHENTICATED } else { policy::user::AUTHENTICATED };
    if !target.is_in(group) {
        target.groups.push(group.to_owned());
    }
    Ok(Some(target))
}

const EXTRA_PREFIX: &str = "impersonate-extra-";

/// As upstream prints whom it was asked to be.
fn go_user(user: &User) -> String {
    let texts = |list: &[String]| {
        let list: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
        format!("{{{}}}", list.join(", "))
    };
    let groups = if user.groups.is_empty() { "(nil)".to_owned() } else { texts(&user.groups) };
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key:?}:[]string{}", texts(values))).collect();
    let extra = if extra.is_empty() { "(nil)".to_owned() } else { format!("{{{}}}", extra.join(", ")) };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:[]string{groups}, Extra:map[string][]string{extra}}}",
        user.name, user.uid
    )
}

/// For what is in the group of authentication: uids, and extra information by its key.
async fn may_impersonate_as(server: &Server, user: &User, resource: &str, subresource: &str, name: &str) -> Result<()> {
    const GROUP: &str = "authentication.k8s.io";
    let verb = "impersonate";
    let wanted = Attributes::Resource { verb, group: GROUP, resource, subresource, namespace: "", name };
    if authz::is_allowed(server, user, wanted).await {
        return Ok(());
    }
    let full = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
    let who = &user.name;
    let why =
        format!("User \"{who}\" cannot impersonate resource \"{full}\" in API group \"{GROUP}\" at the cluster scope");
    Err(Error::forbidden(GROUP, resource, name, why))
}

async fn may_impersonate(server: &Server, user: &User, resource: &str, namespace: &str, name: &str) -> Result<()> {
    let wanted = Attributes::Resource { verb: "impersonate", group: "", resource, subresource: "", namespace, name };
    if authz::is_allowed(server, user, wanted).await {
        return Ok(());
    }
    let place = if namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {namespace:?}")
    };
    let why = format!("User \"{}\" cannot impersonate resource \"{resource}\" in API group \"\" {place}", user.name);
    Err(Error::forbidden("", resource, name, why))
}

/// The subject of a client certificate: its common name is the user, its organizations are the groups.
fn certificate(der: &CertificateDer<'_>) -> Option<User> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    (!name.is_empty()).then(|| {
        let mut user = User::new(name, groups);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        user.extra.insert(CREDENTIAL.to_owned(), vec![format!("X509SHA256={digest}")]);
        user
    })
}

/// Which certificate or token somebody came with (KEP-4193).
pub(crate) const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// Who a token is, and for which of the audiences (empty: the server's own) it is good; `None` if it is good for nothing.
pub(crate) async fn bearer(server: &Server, token: &str, audiences: &[String]) -> Result<Option<(User, Vec<String>)>> {
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Ok(None);
    }
    if let Some((id, secret)) = bootstrap_token(token) {
        let user =
            if server.state().options.bootstrap_tokens { bootstrap_user(server, id, secret).await? } else { None };
        return Ok(user.map(|user| (user, Vec::new())));
    }
    if let Some(found) = accounts::service_account(server, token, audiences).await? {
        return Ok(Some(found));
    }
    foreign(server, token, audiences).await
}

/// A token of a foreign issuer: good for the server's own audiences, whatever it says itself.
async fn foreign(server: &Server, token: &str, audiences: &[String]) -> Result<Option<(User, Vec<String>)>> {
    let Some(authentication) = &server.state().options.authentication else { return Ok(None) };
    let own = server.state().keys.as_ref().map(|keys| keys.audiences.clone()).unwrap_or_default();
    let good: Vec<String> = match audiences.is_empty() {
        true => own,
        false => audiences.iter().filter(|audience| own.contains(audience)).cloned().collect(),
    };
    if good.is_empty() && !audiences.is_empty() {
        return Ok(None);
    }
    match authentication.user(token, server.now()).await {
        Ok(user) => Ok(user.map(|user| (user, good))),
        Err(why) => {
            tracing::info!(why, "a token was not believed");
            Ok(None)
        }
    }
}

/// Whom a token says that it is for; nothing of it is checked.
pub(crate) fn audiences(token: &str) -> Vec<String> {
    let claims = Token::parse(token).map(|token| token.claims).unwrap_or_default();
    match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// `<6 characters>.<16 characters>` of lower case letters and digits.
fn bootstrap_token(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let fits =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (fits(id, 6) && fits(secret, 16)).then_some((id, secret))
}

/// Groups that a bootstrap token may give.
const BOOTSTRAP_GROUP_PREFIX: &str = "system:bootstrappers:";

async fn bootstrap_user(server: &Server, id: &str, secret: &str) -> Result<Option<User>> {
    let key = format!("{}core/secrets/kube-system/bootstrap-token-{id}", crate::kinds::ROOT);
    let Some(kv) = get(server, key).await? else { return Ok(None) };
    let object = decode_kv(&kv)?;
    let data = |key: &str| {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let bytes = STANDARD.decode(text_at(&object, &["data", key])).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let fits = text_at(&object, &["type"]) == "bootstrap.kubernetes.io/token"
        && !object::is_deleting(&object)
        && data("token-id") == id
        && same(data("token-secret").as_bytes(), secret.as_bytes())
        && data("usage-bootstrap-authentication") == "true";
    if !fits {
        return Ok(None);
    }
    let expiration = data("expiration");
    if !expiration.is_empty() {
        match expiration.parse::<jiff::Timestamp>() {
            Ok(end) if server.now() < end => {}
            _ => return Ok(None),
        }
    }
    let mut groups = vec!["system:bootstrappers".to_owned()];
    let extra = data("auth-extra-groups");
    groups.extend(extra.split(',').map(str::trim).filter(|g| g.starts_with(BOOTSTRAP_GROUP_PREFIX)).map(str::to_owned));
    Ok(Some(User::new(format!("system:bootstrap:{id}"), groups)))
}

/// Compares without telling by its time where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}
