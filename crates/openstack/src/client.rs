//! The client proper: a token that is renewed, endpoints that are found once, and one way to make a call.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::{
    clouds::Cloud,
    endpoint::{self, Microversion, Service},
    error::{Class, Error, Result},
    pass::{self, Pass},
    query::{Query, encode},
    resource::{Reads, Resource, Writes},
    token::{self, Access},
};
use transport::{Https, Proxies, Tls, Transport, TransportError};

/// The longest time that a service is left alone because it asks for it.
pub const HOLD_LIMIT: Duration = Duration::from_secs(120);
/// Pages that one list may have.
pub const PAGES_LIMIT: usize = 1000;

/// Glance takes changes in its own form only.
const IMAGE_PATCH: HeaderValue = HeaderValue::from_static("application/openstack-images-v2.1-json-patch");

/// Limits and habits of a [`Client`].
#[derive(Clone, Debug)]
pub struct Options {
    /// For one request and its answer.
    pub timeout: Duration,
    /// The largest body of one answer, in bytes.
    pub body_limit_bytes: usize,
    /// The largest number of objects that a list may yield; more is an error, not a cut.
    pub items_limit: usize,
    pub user_agent: String,
    /// Follow a cloud's `verify: false`. If not set, such a cloud is refused.
    pub allow_unverified: bool,
    /// On the way to the cloud.
    pub proxies: Proxies,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(30),
            body_limit_bytes: 16 * 1024 * 1024,
            items_limit: 100_000,
            user_agent: "skep".to_owned(),
            allow_unverified: false,
            proxies: Proxies::default(),
        }
    }
}

/// A cloud that can be called. Cheap to clone; clones share the token and what was discovered.
#[derive(Clone)]
pub struct Client(Arc<Inner>, Option<Pass>);

struct Inner {
    cloud: Cloud,
    transport: Arc<dyn Transport>,
    options: Options,
    // Held while a token is fetched, so that many callers cause one request.
    access: tokio::sync::Mutex<Option<Arc<Access>>>,
    endpoints: Mutex<HashMap<Service, Arc<Resolved>>>,
    /// Services that have asked to be left alone: until when, and their words.
    held: Mutex<HashMap<Service, (Instant, String)>>,
}

struct Resolved {
    url: String,
    /// The highest microversion that both sides know.
    microversion: Microversion,
    /// The service has said so. If it only refused to tell, it is asked again.
    told: bool,
}

/// One request, before it has a token.
struct Call<'a> {
    service: Service,
    method: Method,
    /// Below the versioned endpoint, without a leading slash.
    path: &'a str,
    query: &'a str,
    body: Option<&'a Value>,
    microversion: Microversion,
}

impl Call<'_> {
    fn name(&self) -> (Service, &Method, &str) {
        (self.service, &self.method, self.path)
    }
}

impl Client {
    /// A client over any transport. No request is made yet.
    pub fn new(cloud: Cloud, transport: Arc<dyn Transport>, options: Options) -> Self {
        let inner = Inner {
            cloud,
            transport,
            options,
            access: tokio::sync::Mutex::default(),
            endpoints: Mutex::default(),
            held: Mutex::default(),
        };
        Self(Arc::new(inner), None)
    }

    /// The same client, whose calls belong to a pass.
    #[must_use]
    pub fn during(&self, pass: &Pass) -> Self {
        Self(self.0.clone(), Some(pass.clone()))
    }

    /// A client with other credentials, over the same transport and with the same habits. No request is made yet.
    #[must_use]
    pub fn beside(&self, cloud: Cloud) -> Self {
        Self::new(cloud, Arc::clone(&self.0.transport), self.0.options.clone())
    }

    /// A client over TCP and TLS. No request is made yet.
    pub fn connect(cloud: Cloud, options: Options) -> Result<Self> {
        if !cloud.verify && !options.allow_unverified {
            let message = format!(
                "cloud {:?} says `verify: false`: give its CA (`cacert`), or allow unverified connections explicitly",
                cloud.name
            );
            return Err(Error::configuration(Service::Identity, message));
        }
        let tls = Tls { ca_pem: cloud.ca_pem.clone(), accept_any_certificate: !cloud.verify };
        let https = Https::new(&tls, options.proxies.clone())
            .map_err(|e| Error::configuration(Service::Identity, e.to_string()).with_source(e))?;
        Ok(Self::new(cloud, Arc::new(https), options))
    }

    pub fn cloud(&self) -> &Cloud {
        &self.0.cloud
    }

    /// The current token's user, project, roles and catalog; fetches a token if there is none.
    pub async fn access(&self) -> Result<Arc<Access>> {
        self.bounded((Service::Identity, &Method::POST, "auth/tokens"), self.token()).await
    }

    /// Ends with the pass, also what waits for another's token.
    async fn bounded<T>(&self, name: (Service, &Method, &str), call: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(pass) = &self.1 else { return call.await };
        let limit = self.0.options.timeout;
        let late = |_| Error::new(Class::Timeout, name, format!("no answer in {} s", limit.as_secs_f32()));
        tokio::time::timeout_at(pass.begun() + limit, call).await.map_err(late)?
    }

    async fn token(&self) -> Result<Arc<Access>> {
        let mut held = self.0.access.lock().await;
        if let Some(access) = held.as_ref().filter(|a| crate::now() < a.renew_at) {
            return Ok(access.clone());
        }
        let access = Arc::new(self.authenticate().await?);
        *held = Some(access.clone());
        Ok(access)
    }

    /// Forgets the token, if it is still the one that was refused.
    async fn refuse(&self, refused: &Arc<Access>) {
        let mut held = self.0.access.lock().await;
        if held.as_ref().is_some_and(|a| Arc::ptr_eq(a, refused)) {
            *held = None;
        }
    }

    async fn authenticate(&self) -> Result<Access> {
        let name = (Service::Identity, &Method::POST, "auth/tokens");
        let uri = format!("{}/auth/tokens", self.identity_url());
        let body = token::request(&self.0.cloud.auth).to_string();
        let request = self.request(Method::POST, &uri, Some(body.into()), name)?;
        let response = self.send(request, name).await?;
        if response.status() != StatusCode::CREATED {
            return Err(Error::from_response(name, response.status(), response.headers(), response.body()));
        }
        let unreadable = |what: &str| Error::new(Class::Unreadable, name, what);
        let token = response.headers().get("x-subject-token").ok_or_else(|| unreadable("the answer has no token"))?;
        token::answer(token, response.body(), crate::now())
            .map_err(|e| unreadable("the answer is not a version 3 token").with_source(e))
    }

    fn identity_url(&self) -> String {
        let (base, _) = endpoint::split_version(&self.0.cloud.auth_url);
        format!("{base}/{}", Service::Identity.usual_version())
    }

    /// Whether the cloud has the service in the configured region.
    pub async fn has(&self, service: Service) -> Result<bool> {
        match self.resolve(service).await {
            Ok(_) => Ok(true),
            Err(e) if e.class() == Class::Configuration => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The service's versioned endpoint.
    pub async fn endpoint(&self, service: Service) -> Result<String> {
        Ok(self.resolve(service).await?.url.clone())
    }

    /// The highest microversion that both sides know; [`Microversion::NONE`] for a service without them.
    pub async fn microversion(&self, service: Service) -> Result<Microversion> {
        Ok(self.resolve(service).await?.microversion)
    }

    async fn resolve(&self, service: Service) -> Result<Arc<Resolved>> {
        if let Some(found) = self.0.endpoints.lock().get(&service) {
            return Ok(found.clone());
        }
        let resolved = Arc::new(self.discover(service).await?);
        if resolved.told {
            self.0.endpoints.lock().insert(service, resolved.clone());
        }
        Ok(resolved)
    }

    async fn discover(&self, service: Service) -> Result<Resolved> {
        if service == Service::Identity {
            return Ok(Resolved { url: self.identity_url(), microversion: Microversion::NONE, told: true });
        }
        let cloud = &self.0.cloud;
        let access = self.access().await?;
        let overridden = cloud.overrides.get(&service).map(String::as_str);
        let Some(base) = overridden.or_else(|| access.endpoint(service, cloud.interface, cloud.region.as_deref()))
        else {
            let region = cloud.region.as_deref().map(|r| format!(" in region {r:?}")).unwrap_or_default();
            let interface = cloud.interface.as_str();
            let regions = access.regions().join(", ");
            let message =
                format!("the cloud's catalog has no {interface} endpoint for it{region} (regions: {regions})");
            return Err(Error::configuration(service, message));
        };
        let mut told = true;
        let url = match endpoint::split_version(base) {
            (_, Some(_)) => base.trim_end_matches('/').to_owned(),
            (base, None) => {
                let found = self.version_document(service, &format!("{base}/"), &access).await?;
                told &= found.is_some();
                endpoint::choose(service, base, &found.unwrap_or_default())
            }
        };
        let mut microversion = Microversion::NONE;
        if service.microversion_type().is_some() {
            // The document of one version tells its microversions; it needs the URL without a project.
            let (base, version) = endpoint::split_version(&url);
            let version = version.and_then(|v| v.split('/').next()).unwrap_or(service.usual_version());
            let found = self.version_document(service, &format!("{base}/{version}/"), &access).await?;
            told &= found.is_some();
            let max = found.iter().flatten().map(|v| v.max).max().unwrap_or_default();
            microversion = max.min(service.written_for());
        }
        Ok(Resolved { url, microversion, told })
    }

    /// An endpoint that has no version document (404, not JSON) is used by convention; `None` where it is only not told now (401,
    /// 403: the token may have ended).
    async fn version_document(
        &self,
        service: Service,
        url: &str,
        access: &Access,
    ) -> Result<Option<Vec<endpoint::Version>>> {
        let name = (service, &Method::GET, "(version document)");
        let mut request = self.request(Method::GET, url, None, name)?;
        request.headers_mut().insert("x-auth-token", access.token.clone());
        let response = self.send(request, name).await?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Ok(None);
        }
        if !status.is_success() {
            let error = Error::from_response(name, status, response.headers(), response.body());
            if error.class().is_transient() {
                return Err(error);
            }
        }
        Ok(Some(serde_json::from_slice(response.body()).map(|v| endpoint::versions(&v)).unwrap_or_default()))
    }

    fn request(
        &self,
        method: Method,
        uri: &str,
        body: Option<Bytes>,
        name: (Service, &Method, &str),
    ) -> Result<Request<Bytes>> {
        let invalid = |e: http::Error| {
            Error::new(Class::Configuration, name, "the endpoint's URL or a header is not valid").with_source(e)
        };
        let uri: Uri = uri.parse().map_err(|e: http::uri::InvalidUri| invalid(e.into()))?;
        let mut builder = Request::builder().method(method).uri(uri);
        builder =
            builder.header(header::ACCEPT, "application/json").header(header::USER_AGENT, &self.0.options.user_agent);
        if body.is_some() {
            builder = builder.header(header::CONTENT_TYPE, "application/json");
        }
        builder.body(body.unwrap_or_default()).map_err(invalid)
    }

    /// Sends a request, unless the service has asked to be left alone: then nobody who shares this client calls it.
    async fn send(&self, request: Request<Bytes>, name: (Service, &Method, &str)) -> Result<Response<Bytes>> {
        if let Some((until, message)) = self.0.held.lock().get(&name.0).cloned() {
            let left = until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(Error::held_back(name, &message, left));
            }
        }
        if self.1.as_ref().is_some_and(Pass::is_over) {
            return Err(Error::put_off(name));
        }
        let response = self.send_now(request, name).await?;
        let mut held = self.0.held.lock();
        if response.status().is_success() {
            held.remove(&name.0);
        } else {
            let error = Error::from_response(name, response.status(), response.headers(), response.body());
            if let (Class::RateLimited, Some(after)) = (error.class(), error.retry_after()) {
                let until = Instant::now() + after.min(HOLD_LIMIT);
                held.insert(name.0, (until, error.message().to_owned()));
            }
        }
        drop(held);
        Ok(response)
    }

    async fn send_now(&self, request: Request<Bytes>, name: (Service, &Method, &str)) -> Result<Response<Bytes>> {
        let Options { timeout, body_limit_bytes, .. } = self.0.options;
        let sent = tokio::time::timeout(timeout, self.0.transport.send(request, body_limit_bytes)).await;
        let error = |class, message: String| Error::new(class, name, message);
        match sent {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(e @ TransportError::TooLarge { .. })) => Err(error(Class::Unreadable, e.to_string())),
            Ok(Err(e)) => Err(error(Class::Transport, chain(&e)).with_source(e)),
            Err(_) => Err(error(Class::Timeout, format!("no answer in {} s", timeout.as_secs_f32()))),
        }
    }

    /// Makes a call, with a new token and once more if the cloud answers 401.
    async fn call(&self, call: &Call<'_>) -> Result<(StatusCode, HeaderMap, Value)> {
        self.bounded(call.name(), self.call_now(call)).await
    }

    async fn call_now(&self, call: &Call<'_>) -> Result<(StatusCode, HeaderMap, Value)> {
        let resolved = self.resolve(call.service).await?;
        match self.call_at(call, &resolved).await {
            // The service has other versions than it had: it is asked again which, once.
            Err(error) if error.status() == Some(StatusCode::NOT_ACCEPTABLE) => {
                self.0.endpoints.lock().remove(&call.service);
                let again = self.resolve(call.service).await?;
                if again.microversion == resolved.microversion && again.url == resolved.url {
                    return Err(error);
                }
                self.call_at(call, &again).await
            }
            done => done,
        }
    }

    async fn call_at(&self, call: &Call<'_>, resolved: &Resolved) -> Result<(StatusCode, HeaderMap, Value)> {
        let microversion = self.version_for(call, resolved)?;
        let mut uri = format!("{}/{}", resolved.url, call.path);
        if !call.query.is_empty() {
            uri.push('?');
            uri.push_str(call.query);
        }
        let body: Option<Bytes> = call.body.map(|b| b.to_string().into());
        let mut second = false;
        loop {
            let access = self.access().await?;
            let mut request = self.request(call.method.clone(), &uri, body.clone(), call.name())?;
            request.headers_mut().insert("x-auth-token", access.token.clone());
            if call.service == Service::Image && call.method == Method::PATCH {
                request.headers_mut().insert(header::CONTENT_TYPE, IMAGE_PATCH);
            }
            if let Some((kind, version)) = &microversion {
                let value = |v: String| {
                    v.parse().map_err(|_| Error::new(Class::Configuration, call.name(), "bad microversion"))
                };
                request.headers_mut().insert("openstack-api-version", value(format!("{kind} {version}"))?);
                if call.service == Service::Compute {
                    request.headers_mut().insert("x-openstack-nova-api-version", value(version.to_string())?);
                }
            }
            if let Some(known) = self.1.as_ref().and_then(|pass| pass.recall(&request)) {
                return read(call, known);
            }
            let asked = self.1.as_ref().map(|_| pass::asked(&request));
            let response = self.send(request, call.name()).await?;
            if let (Some(pass), Some(asked)) = (&self.1, asked) {
                pass.keep(asked, &response);
            }
            if response.status() == StatusCode::UNAUTHORIZED && !second {
                second = true;
                self.refuse(&access).await;
                continue;
            }
            return read(call, response);
        }
    }

    fn version_for(&self, call: &Call<'_>, resolved: &Resolved) -> Result<Option<(&'static str, Microversion)>> {
        let Some(kind) = call.service.microversion_type() else { return Ok(None) };
        if call.microversion > resolved.microversion {
            let message = format!(
                "the call needs microversion {}, the cloud has {} at most",
                call.microversion, resolved.microversion
            );
            return Err(Error::new(Class::Configuration, call.name(), message));
        }
        Ok((resolved.microversion > Microversion::NONE).then_some((kind, resolved.microversion)))
    }

    /// Any call that has no method of its own. `path` is below the versioned endpoint.
    pub async fn raw(
        &self,
        service: Service,
        method: Method,
        path: &str,
        query: &Query,
        body: Option<&Value>,
    ) -> Result<Value> {
        let call = Call { service, method, path, query: query.as_str(), body, microversion: Microversion::NONE };
        Ok(self.call(&call).await?.2)
    }

    /// Every object that passes the filters, all pages of them.
    pub async fn list<R: Resource>(&self, query: &Query) -> Result<Vec<R>> {
        self.list_at(R::LIST_PATH, query).await
    }

    /// [`Client::list`] for what lives inside another object (a pool's members).
    pub async fn list_in<R: Resource>(&self, parent: &str, query: &Query) -> Result<Vec<R>> {
        self.list_at(&within(R::LIST_PATH, parent), query).await
    }

    async fn list_at<R: Resource>(&self, path: &str, query: &Query) -> Result<Vec<R>> {
        let mut found = Vec::new();
        let mut query = query.as_str().to_owned();
        for _ in 0..PAGES_LIMIT {
            let call = Call {
                service: R::SERVICE,
                method: Method::GET,
                path,
                query: &query,
                body: None,
                microversion: Microversion::NONE,
            };
            let (_, _, mut body) = self.call(&call).await?;
            let next = next_page(&body, R::MANY);
            let Some(Value::Array(items)) = body.get_mut(R::MANY).map(Value::take) else {
                return Err(Error::new(
                    Class::Unreadable,
                    call.name(),
                    format!("the answer has no list {:?}", R::MANY),
                ));
            };
            let was_empty = items.is_empty();
            if found.len() + items.len() > self.0.options.items_limit {
                let message = format!("the list is longer than {} objects: narrow it", self.0.options.items_limit);
                return Err(Error::new(Class::Unreadable, call.name(), message));
            }
            for item in items {
                found.push(object::<R>(&call, item, R::ITEM)?);
            }
            match next {
                Some(next) if !was_empty && next != query => query = next,
                _ => return Ok(found),
            }
        }
        let call = (R::SERVICE, &Method::GET, path);
        Err(Error::new(Class::Unreadable, call, format!("the list has more than {PAGES_LIMIT} pages")))
    }

    /// The one object of that name that passes `more`; `None` if there is none; an error if there are several.
    pub async fn find<R: Reads>(&self, name: &str, more: Query) -> Result<Option<R>> {
        let found = self.list::<R>(&more.with("name", name)).await?;
        // Nova matches names as regular expressions, so the filter is applied once more.
        let mut same = found.into_iter().filter(|r| r.name() == name);
        match (same.next(), same.next()) {
            (Some(_), Some(_)) => {
                let call = (R::SERVICE, &Method::GET, R::PATH);
                Err(Error::new(Class::Conflict, call, format!("several objects are named {name:?}: use an id")))
            }
            (one, _) => Ok(one),
        }
    }

    pub async fn get<R: Resource>(&self, id: &str) -> Result<R> {
        self.one(Method::GET, &format!("{}/{}", R::PATH, encode(id)), None, Microversion::NONE).await
    }

    /// [`Client::get`] for what lives inside another object (a user's application credentials).
    pub async fn get_in<R: Resource>(&self, parent: &str, id: &str) -> Result<R> {
        let path = format!("{}/{}", within(R::PATH, parent), encode(id));
        self.one(Method::GET, &path, None, Microversion::NONE).await
    }

    /// [`Client::get`], with 404 as `None`.
    pub async fn look<R: Resource>(&self, id: &str) -> Result<Option<R>> {
        match self.get(id).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub async fn create<R: Resource>(&self, draft: &impl Writes<R>) -> Result<R> {
        self.create_at(R::PATH, draft).await
    }

    /// [`Client::create`] for what lives inside another object (a pool's members).
    pub async fn create_in<R: Resource>(&self, parent: &str, draft: &impl Writes<R>) -> Result<R> {
        self.create_at(&within(R::PATH, parent), draft).await
    }

    async fn create_at<R: Resource>(&self, path: &str, draft: &impl Writes<R>) -> Result<R> {
        let body = wrapped::<R>((R::SERVICE, &Method::POST, path), draft, draft.beside())?;
        self.one(Method::POST, path, Some(&body), draft.needs()).await
    }

    /// Changes the given fields.
    pub async fn update<R: Resource>(&self, id: &str, fields: &(impl Serialize + Sync)) -> Result<R> {
        let path = format!("{}/{}", R::PATH, encode(id));
        let body = wrapped::<R>((R::SERVICE, &Method::PUT, &path), fields, Map::new())?;
        self.one(Method::PUT, &path, Some(&body), Microversion::NONE).await
    }

    /// Deletes; 404 is [`Class::NotFound`], which most callers take for done (see [`Client::remove`]).
    pub async fn delete<R: Resource>(&self, id: &str) -> Result<()> {
        self.delete_at::<R>(&format!("{}/{}", R::PATH, encode(id)), &Query::new()).await
    }

    /// Deletes with a query, such as Octavia's `cascade`.
    pub async fn delete_with<R: Resource>(&self, id: &str, query: &Query) -> Result<()> {
        self.delete_at::<R>(&format!("{}/{}", R::PATH, encode(id)), query).await
    }

    pub async fn delete_in<R: Resource>(&self, parent: &str, id: &str) -> Result<()> {
        self.delete_at::<R>(&format!("{}/{}", within(R::PATH, parent), encode(id)), &Query::new()).await
    }

    /// Deletes; whether there was something to delete.
    pub async fn remove<R: Resource>(&self, id: &str) -> Result<bool> {
        match self.delete::<R>(id).await {
            Ok(()) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn delete_at<R: Resource>(&self, path: &str, query: &Query) -> Result<()> {
        let (service, query) = (R::SERVICE, query.as_str());
        let call = Call { service, method: Method::DELETE, path, query, body: None, microversion: Microversion::NONE };
        self.call(&call).await.map(drop)
    }

    /// Replaces the object's tags (Neutron).
    pub async fn set_tags<R: Resource>(&self, id: &str, tags: &[String]) -> Result<()> {
        let path = format!("{}/{}/tags", R::PATH, encode(id));
        self.raw(R::SERVICE, Method::PUT, &path, &Query::new(), Some(&json!({ "tags": tags }))).await.map(drop)
    }

    async fn one<R: Resource>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        microversion: Microversion,
    ) -> Result<R> {
        let call = Call { service: R::SERVICE, method, path, query: "", body, microversion };
        let (_, _, body) = self.call(&call).await?;
        object::<R>(&call, body, R::ONE)
    }
}

fn within(path: &str, parent: &str) -> String {
    path.replace("{}", &encode(parent).to_string())
}

fn wrapped<R: Resource>(
    name: (Service, &Method, &str),
    draft: &impl Serialize,
    mut beside: Map<String, Value>,
) -> Result<Value> {
    let value = serde_json::to_value(draft)
        .map_err(|e| Error::new(Class::Invalid, name, "the request's body cannot be written as JSON").with_source(e))?;
    if R::ONE.is_empty() {
        return Ok(value);
    }
    beside.insert(R::ONE.to_owned(), value);
    Ok(Value::Object(beside))
}

fn object<R: Resource>(call: &Call<'_>, mut body: Value, key: &str) -> Result<R> {
    let unreadable = |what: String| Error::new(Class::Unreadable, call.name(), what);
    let value = if key.is_empty() {
        body
    } else {
        body.get_mut(key).map(Value::take).ok_or_else(|| unreadable(format!("the answer has no {key:?}")))?
    };
    serde_json::from_value(value).map_err(|e| unreadable(format!("the answer cannot be read: {e}")).with_source(e))
}

fn read(call: &Call<'_>, response: Response<Bytes>) -> Result<(StatusCode, HeaderMap, Value)> {
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Err(Error::from_response(call.name(), parts.status, &parts.headers, &body));
    }
    let value = if body.is_empty() {
        Value::Null
    } else {
        match serde_json::from_slice(&body) {
            Ok(value) => value,
            // Nova answers some actions with text; only those who look inside mind.
            Err(_) if call.method != Method::GET => Value::Null,
            Err(e) => return Err(Error::new(Class::Unreadable, call.name(), "the answer is not JSON").with_source(e)),
        }
    };
    Ok((parts.status, parts.headers, value))
}

/// The next page's query: `{many}_links`, Glance's `next`, Keystone's `links.next`. Only the query is taken, so that a
/// link with a backend's host cannot lead astray.
fn next_page(body: &Value, many: &str) -> Option<String> {
    let links = body.get(format!("{many}_links")).and_then(Value::as_array);
    let from_links = links
        .and_then(|l| l.iter().find(|l| l.get("rel").and_then(Value::as_str) == Some("next")))
        .and_then(|l| l.get("href"));
    let href = from_links.or_else(|| body.get("next")).or_else(|| body.get("links")?.get("next"))?.as_str()?;
    href.split_once('?').map(|(_, query)| query.to_owned()).filter(|q| !q.is_empty())
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
