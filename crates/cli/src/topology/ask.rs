//! Asks the extensions that have a say in a topology, from where the user is. Nobody is told that anything happens: hooks of
//! the life of a cluster are named and not called.
//!
//! A server that is not reached from here may well be from the management cluster, so there is no plan then, whatever its
//! failure policy says. Left out: proxies, as the controllers have it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use api::{
    extension::{
        ExtensionConfig, ExtensionHandler,
        call::{RESPONSE_BYTES_MAX, envelope, handlers, hook, own_name, path, place, readable, request, timeout_s},
    },
    topology::{
        TopologyError,
        desired::{self, Desired, desired},
        hooks::{Question, Runtime},
    },
};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::{
    Api, Client, Config,
    api::ListParams,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

/// Questions of one topology: a class has so many patches, each with two, and a plan of upgrades.
const QUESTIONS_MAX: usize = 2_500;
/// Of a response that is an error, so much is told.
const SHOWN_CHARS_MAX: usize = 512;

/// The extensions that the management cluster knows.
pub struct Extensions {
    client: Client,
    configs: Vec<ExtensionConfig>,
    namespaces: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

/// What was found out, and which hooks of a cluster's life would be called on the way.
pub struct Told {
    pub desired: Result<Desired, TopologyError>,
    pub hooks: Vec<&'static str>,
}

impl Extensions {
    pub async fn read(client: &Client) -> Result<Self> {
        let found = Api::<ExtensionConfig>::all(client.clone()).list(&ListParams::default()).await;
        let mut configs = match found {
            Ok(found) => found.items,
            // A management cluster without extensions.
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(error) => return Err(error).context("list ExtensionConfigs"),
        };
        configs.retain(|config| config.metadata.deletion_timestamp.is_none());
        configs.sort_by(|one, other| one.metadata.name.cmp(&other.metadata.name));
        Ok(Self { client: client.clone(), configs, namespaces: BTreeMap::new() })
    }

    /// What is known of them for the clusters of a namespace, without answers.
    pub async fn runtime(&mut self, namespace: &str) -> Result<Runtime> {
        if !self.configs.is_empty() && !self.namespaces.contains_key(namespace) {
            let found = Api::<Namespace>::all(self.client.clone()).get_metadata_opt(namespace).await;
            let found = found.with_context(|| format!("read Namespace {namespace}"))?;
            self.namespaces.insert(namespace.to_owned(), found.and_then(|found| found.metadata.labels));
        }
        let mut runtime = Runtime::default();
        for config in &self.configs {
            let mut hooks = handlers(config).filter_map(hook).peekable();
            runtime.any |= hooks.peek().is_some();
            if self.selects(config, namespace) {
                runtime.handled.extend(hooks);
            }
        }
        Ok(runtime)
    }

    fn selects(&self, config: &ExtensionConfig, namespace: &str) -> bool {
        let selector = config.spec.namespace_selector.as_ref().filter(|selector| !selector.is_empty());
        let labels = self.namespaces.get(namespace).and_then(Option::as_ref);
        selector.is_none_or(|selector| selector.selects(labels))
    }

    /// Computes what a topology makes, and asks what has to be known for that.
    pub async fn desired(&self, seen: &mut desired::Seen) -> Told {
        let namespace = seen.cluster["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let mut hooks = Vec::new();
        for _ in 0..QUESTIONS_MAX {
            let question = match desired(seen) {
                Err(TopologyError::Ask(question)) => question,
                desired => return Told { desired, hooks },
            };
            let answer = match &question.handler {
                Some(handler) => self.ask(handler, &question, &namespace).await,
                None => {
                    hooks.push(question.hook.name());
                    Ok(json!({"status": "Success"}))
                }
            };
            seen.runtime.answers.insert(question.key(), answer);
        }
        let why = format!("extensions have been asked {QUESTIONS_MAX} questions, and there are more");
        Told { desired: Err(TopologyError::Extension(why)), hooks }
    }

    /// The answer of one handler.
    pub async fn ask(&self, name: &str, question: &Question, namespace: &str) -> Result<Value, String> {
        let found = self.configs.iter().find_map(|config| {
            let handler = handlers(config).find(|handler| handler.name == name)?;
            Some((config, handler))
        });
        let Some((config, handler)) = found else {
            return Err(format!("extension handler {name:?} is not registered: no ExtensionConfig has discovered it"));
        };
        if hook(handler) != Some(question.hook) {
            return Err(format!("extension handler {name:?} is not one of hook {}", question.hook.name()));
        }
        if !self.selects(config, namespace) {
            return Err(format!("extension handler {name:?} is not for namespace {namespace}"));
        }
        let timeout_s = timeout_s(handler);
        let exchanged = self.exchange(config, handler, question, timeout_s);
        let exchanged = tokio::time::timeout(Duration::from_secs(timeout_s), exchanged).await;
        let exchanged = exchanged.unwrap_or_else(|_| Err(format!("no response within {timeout_s} s")));
        let extension = config.metadata.name.as_deref().unwrap_or_default();
        let response = exchanged.and_then(readable).map_err(|why| {
            format!(
                "extension {extension} could not be asked from here ({}, handler {name}): {why}",
                question.hook.name()
            )
        })?;
        if response["status"] == "Success" {
            return Ok(response);
        }
        let message = response["message"].as_str().unwrap_or_default();
        Err(format!("extension handler {name:?} got failure response with message: {message}"))
    }

    async fn exchange(
        &self,
        config: &ExtensionConfig,
        handler: &ExtensionHandler,
        question: &Question,
        timeout_s: u64,
    ) -> Result<Value, String> {
        let (client, prefix, authority) = self.connection(config).await?;
        let target = path(&prefix, question.hook.name(), own_name(config, handler), timeout_s);
        let url = format!("https://{authority}{target}");
        let body = envelope(question.hook.name(), request(config, question)).to_string();
        let post = http::Request::post(target)
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json")
            .body(Body::from(body.into_bytes()))
            .map_err(|error| error.to_string())?;
        let failed = |why: String| format!("Post {url:?}: {why}");
        let response = client.send(post).await.map_err(|error| failed(chain(&error)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), RESPONSE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| failed(error.to_string()))?.to_bytes();
        if status != http::StatusCode::OK {
            let said: String = String::from_utf8_lossy(&body).chars().take(SHOWN_CHARS_MAX).collect();
            return Err(failed(format!("got response with status code {} != 200: {said:?}", status.as_u16())));
        }
        let response: Value =
            serde_json::from_slice(&body).map_err(|error| failed(format!("failed to decode response: {error}")))?;
        if response.is_object() {
            Ok(response)
        } else {
            Err(failed("failed to decode response: it is no object".into()))
        }
    }

    /// A client of the extension's server, the path that goes before those of hooks, and its address.
    async fn connection(&self, config: &ExtensionConfig) -> Result<(Client, String, String), String> {
        let place = place(&config.spec.client_config)?;
        let mut server = format!("https://{}", place.authority);
        let mut expected = None;
        if let Some((namespace, name)) = &place.service {
            let found = Api::<Service>::namespaced(self.client.clone(), namespace).get_opt(name).await;
            let found = found.map_err(|error| format!("get Service {namespace}/{name}: {error}"))?;
            let spec = found.ok_or_else(|| format!("Service {namespace}/{name} does not exist"))?.spec;
            let spec = spec.unwrap_or_default();
            if let Some(external) = spec.external_name.filter(|_| spec.type_.as_deref() == Some("ExternalName")) {
                server = format!("https://{external}:{}", place.port);
                expected = Some(place.name.clone());
            }
        }
        let mut cluster = json!({ "server": server });
        if let Some(bundle) = config.spec.client_config.ca_bundle.as_ref().filter(|bundle| !bundle.is_empty()) {
            cluster["certificate-authority-data"] = bundle.clone().into();
        }
        if let Some(name) = expected {
            cluster["tls-server-name"] = name.into();
        }
        let kubeconfig = json!({
            "clusters": [{"name": "it", "cluster": cluster}], "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "nobody"}}], "current-context": "it",
        });
        let kubeconfig: Kubeconfig = serde_json::from_value(kubeconfig).map_err(|error| error.to_string())?;
        let made = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let mut made = made.map_err(|error| chain(&error))?;
        made.proxy_url = None;
        let client = Client::try_from(made).map_err(|error| chain(&error))?;
        Ok((client, place.path, place.authority))
    }
}

/// An error with what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let why = error.to_string();
        if !text.contains(&why) {
            text = format!("{text}: {why}");
        }
        source = error.source();
    }
    text
}

/// The variables that the patches of a class bring along: asked, as the class is not in the management cluster yet.
pub async fn discover(extensions: &mut Extensions, class: &mut Value) -> Result<Result<(), String>> {
    let namespace = class["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    extensions.runtime(&namespace).await?;
    let mut found = Vec::new();
    for (patch, question) in api::topology::discovery::questions(class) {
        let handler = question.handler.clone().unwrap_or_default();
        let response = extensions.ask(&handler, &question, &namespace).await;
        let variables = response.and_then(|response| api::topology::discovery::discovered(&response));
        match variables {
            Ok(variables) => found.push((patch, Ok(variables))),
            Err(why) => return Ok(Err(format!("patch {patch}: {why}"))),
        }
    }
    if !found.is_empty() {
        class["status"]["variables"] = api::topology::discovery::all(class, &found).into();
    }
    Ok(Ok(()))
}

#[cfg(test)]
mod tests;
