//! Secrets of type `kubernetes.io/service-account-token` are filled in, and go with the account that they name
//! (`pkg/controller/serviceaccount/tokens_controller.go`).

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::Value;

use super::{Work, collector_user};
use crate::{
    object::{self, at, decode_kv, set_at, text_at},
    rest::{self, DeleteOptions, for_each},
    server::Server,
    status::{Error, Result},
    token::Legacy,
    write::{Scope, get},
};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Typed<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// Whether a secret's bytes are those of one that holds a token.
pub(super) fn holds_token(secret: &[u8]) -> bool {
    serde_json::from_slice::<Typed<'_>>(secret).is_ok_and(|secret| secret.kind == TYPE)
}

/// What a token's secret leaves behind when it goes: its account still names it.
pub(super) fn left(namespace: &str, name: &str, secret: &[u8]) -> Option<Work> {
    let secret: Value = serde_json::from_slice(secret).ok()?;
    let account = text_at(&secret, &["metadata", "annotations", ACCOUNT]);
    (!account.is_empty()).then(|| Work::Unnamed(namespace.to_owned(), account.to_owned(), name.to_owned()))
}

fn scope(server: &Server, plural: &str, namespace: &str, name: &str) -> Result<Scope> {
    let kind = server.catalog().find("", "v1", plural).ok_or_else(Error::no_such_path)?;
    Ok(Scope::internal(server, &collector_user(), kind, namespace, name))
}

/// The name and uid of the account that a secret says it is for.
fn account_of(secret: &Value) -> (&str, &str) {
    let said = |key: &str| text_at(secret, &["metadata", "annotations", key]);
    (said(ACCOUNT), said(ACCOUNT_UID))
}

/// Fills in what is missing in a secret; one whose account is not there is deleted.
pub(super) async fn fill(server: &Server, namespace: &str, name: &str) -> Result<()> {
    let Some(keys) = &server.state().keys else { return Ok(()) };
    let scope = scope(server, "secrets", namespace, name)?;
    let Some(kv) = scope.current().await? else { return Ok(()) };
    let secret = decode_kv(&kv)?;
    let (account, said) = account_of(&secret);
    if text_at(&secret, &["type"]) != TYPE || object::is_deleting(&secret) || account.is_empty() {
        return Ok(());
    }
    let found = get(server, format!("{}core/serviceaccounts/{namespace}/{account}", crate::kinds::ROOT)).await?;
    let uid = match found.as_ref().map(decode_kv).transpose()? {
        Some(found) if said.is_empty() || said == object::uid(&found) => object::uid(&found).to_owned(),
        _ => return delete(scope, &secret).await,
    };
    let claims = Legacy {
        sub: format!("system:serviceaccount:{namespace}:{account}"),
        namespace: namespace.to_owned(),
        account: account.to_owned(),
        uid: uid.clone(),
        secret: name.to_owned(),
    };
    let token =
        keys.sign_legacy(&claims).map_err(|_| Error::internal("a service account token could not be signed"))?;
    let authority = server.state().options.client_ca_pem.clone().unwrap_or_default();
    let change = |secret: &mut Value| {
        // Somebody may have made another of that name in the meantime.
        if text_at(secret, &["type"]) != TYPE || account_of(secret).0 != account {
            return false;
        }
        let before = secret.clone();
        set_at(secret, &["metadata", "annotations", ACCOUNT_UID], uid.as_str().into());
        for (key, text, fixed) in
            [("ca.crt", &authority, false), ("namespace", &claims.namespace, true), ("token", &token, true)]
        {
            let kept = fixed && !text_at(secret, &["data", key]).is_empty();
            if !kept && !text.is_empty() {
                set_at(secret, &["data", key], STANDARD.encode(text).into());
            }
        }
        *secret != before
    };
    rest::modify_internal(&scope, change).await.map(drop)
}

async fn delete(mut scope: Scope, secret: &Value) -> Result<()> {
    let options = DeleteOptions { uid: Some(object::uid(secret).to_owned()), ..DeleteOptions::default() };
    match rest::delete(&mut scope, &options).await {
        Err(error) if error.is_not_found() || error.reason() == "Conflict" => Ok(()),
        other => other.map(drop),
    }
}

/// Deletes the tokens of an account that has gone.
pub(super) async fn account_gone(server: &Server, namespace: &str, account: &str) -> Result<()> {
    let kind = server.catalog().find("", "v1", "secrets").ok_or_else(Error::no_such_path)?;
    let mut names = Vec::new();
    for_each(server, &kind, namespace, |kv| {
        if holds_token(&kv.value) {
            let secret = decode_kv(&kv)?;
            if account_of(&secret).0 == account {
                names.push(object::name(&secret).to_owned());
            }
        }
        Ok(())
    })
    .await?;
    for name in names {
        // Whether the account is there is looked at once more: it may have been made again.
        fill(server, namespace, &name).await?;
    }
    Ok(())
}

/// Takes a secret that has gone out of those that its account names.
pub(super) async fn unname(server: &Server, namespace: &str, account: &str, secret: &str) -> Result<()> {
    if get(server, format!("{}core/secrets/{namespace}/{secret}", crate::kinds::ROOT)).await?.is_some() {
        return Ok(());
    }
    let scope = scope(server, "serviceaccounts", namespace, account)?;
    let change = |account: &mut Value| {
        let Some(list) = account.get_mut("secrets").and_then(Value::as_array_mut) else { return false };
        let before = list.len();
        list.retain(|entry| text_at(entry, &["name"]) != secret);
        let changed = list.len() < before;
        if list.is_empty() && changed {
            account.as_object_mut().and_then(|fields| fields.remove("secrets"));
        }
        changed
    };
    match scope.current().await? {
        // Most accounts name none: nothing is written then.
        Some(kv) if at(&decode_kv(&kv)?, &["secrets"]).is_some() => {
            rest::modify_internal(&scope, change).await.map(drop)
        }
        _ => Ok(()),
    }
}
