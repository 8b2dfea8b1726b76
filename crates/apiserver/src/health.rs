//! Health endpoints (`apiserver/pkg/server/healthz`): `/livez`, `/readyz` and `/healthz`, whole or one check at a time, with
//! `?verbose` and `?exclude=`.

use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::respond,
    path::Query,
    server::Server,
    status::{Error, Result},
    write,
};

const MEDIA: &str = "text/plain; charset=utf-8";

/// Once a server is told to end it is not ready for new work; it stays alive until it has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending(pub CancellationToken);

/// The checks of an endpoint, in the order in which they are told. The store is called etcd, as everywhere in the field.
fn checks(endpoint: &str) -> &'static [&'static str] {
    match endpoint {
        "readyz" => &[
            "ping",
            "log",
            "etcd",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/crd-informer-synced",
            "shutdown",
        ],
        _ => &["ping", "log", "etcd", "poststarthook/rbac/bootstrap-roles"],
    }
}

async fn check(server: &Server, name: &str) -> Result<(), String> {
    match name {
        "etcd" => {
            let key = format!("{}core/namespaces/default", crate::kinds::ROOT);
            write::get(server, key).await.map(drop).map_err(|error| error.to_string())
        }
        "shutdown" if server.state().ending.0.is_cancelled() => Err("process is shutting down".to_owned()),
        // Who answers is alive, can write its log, and has begun with the roles and the definitions.
        _ => Ok(()),
    }
}

fn answer(code: StatusCode, text: String) -> Response {
    let mut response = respond(code, MEDIA, Bytes::from(text));
    response.headers_mut().insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

pub(crate) async fn serve(server: &Server, segments: &[String], query: &Query) -> Result<Response> {
    let Some((endpoint, rest)) = segments.split_first() else { return Err(Error::nothing_here()) };
    if !rest.is_empty() {
        let name = rest.join("/");
        if !checks(endpoint).contains(&name.as_str()) {
            return Err(Error::nothing_here());
        }
        return Ok(match check(server, &name).await {
            Ok(()) => answer(StatusCode::OK, "ok".to_owned()),
            Err(why) => answer(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
        });
    }
    let mut excluded: Vec<&str> = query.all("exclude").filter(|name| !name.is_empty()).collect();
    let (mut text, mut failed) = (String::new(), Vec::new());
    for name in checks(endpoint) {
        if excluded.contains(name) {
            excluded.retain(|other| other != name);
            text.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(server, name).await {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                text.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(format!("[-]{name} failed: {why}"));
            }
        }
    }
    if !excluded.is_empty() {
        let names = excluded.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(",");
        text.push_str(&format!("warn: some health checks cannot be excluded: no matches for {names}\n"));
    }
    if !failed.is_empty() {
        tracing::info!(endpoint, failed = failed.join(", "), "a health check failed");
        return Ok(answer(StatusCode::INTERNAL_SERVER_ERROR, format!("{text}{endpoint} check failed\n")));
    }
    if query.all("verbose").next().is_some() {
        return Ok(answer(StatusCode::OK, format!("{text}{endpoint} check passed\n")));
    }
    Ok(answer(StatusCode::OK, "ok".to_owned()))
}
