//! One HTTP request, from who sent it to the answer: authentication, authorization, limits, and then the registry.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use hyper::upgrade::OnUpgrade;
use policy::User;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{failure, in_media, respond, tell, to_vec, warn},
    authn, authz,
    body::{self, Media},
    convert, decode,
    fairness::Seat,
    forward, health,
    kinds::Kind,
    listen::Draining,
    logs,
    negotiate::{self, Answer, Form, PatchType},
    object,
    options::{self, Write},
    path::{self, Query, Resource, Target, Verb},
    protobuf,
    read::{self, Subject},
    request::Seen,
    rest::{self, DeleteOptions, Deleted, Edit, scale_view},
    reviews,
    server::Server,
    status::{self, Error, Result},
    subresource, trace, watch,
    write::{self, Draft, FieldValidation, Raw, Scope, Stored},
};

mod other;

/// Names and values of all headers together.
pub const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// A request that is allowed.
pub(crate) struct Call {
    pub server: Server,
    pub user: Arc<User>,
    pub kind: Arc<Kind>,
    pub verb: Verb,
    pub target: Resource,
    pub query: Query,
    pub headers: HeaderMap,
}

/// `caller`: who calls, if that is settled already.
pub(crate) async fn handle(server: Server, request: Request, caller: Option<Arc<User>>) -> Response {
    let head = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let media = negotiate::failure_media(&parts.headers);
    let line = tracing::enabled!(tracing::Level::DEBUG).then(|| format!("{} {}", parts.method, parts.uri));
    let start = Instant::now();
    let mut seen = Seen::begin(&server, &parts.method, parts.uri.path());
    // A bug that one request finds must not take the caller's task, or the connection, with it.
    let served = AssertUnwindSafe(serve(&server, parts, body, caller, &mut seen)).catch_unwind().await;
    let response = match served {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => failure(&error, media),
        Err(_) => {
            seen.panicked().await;
            failure(&Error::internal("the request met a bug of the server; its log has the place"), media)
        }
    };
    let response = seen.done(response).await;
    if let Some(line) = line {
        tracing::debug!(code = response.status().as_u16(), took = ?start.elapsed(), "{line}");
    }
    if head { response.map(|_| Body::empty()) } else { response }
}

async fn serve(
    server: &Server,
    parts: Parts,
    body: Body,
    caller: Option<Arc<User>>,
    seen: &mut Seen,
) -> Result<Response> {
    let size: usize = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > HEADERS_BYTES_MAX {
        return Err(Error::headers_too_large());
    }
    let target = path::parse(parts.uri.path())?;
    let query = Query::parse(parts.uri.query())?;
    let resource = match &target {
        Target::Resource(resource) => Some(resource),
        Target::Other(_) => None,
    };
    let verb = resource.and_then(|resource| {
        let wants_watch = resource.watch || (query.flag("watch") && resource.name.is_empty());
        Verb::of(&parts.method, resource, wants_watch)
    });
    let in_process = caller.is_some();
    let user = identify(server, caller, verb, resource, &parts, seen).await?;
    let asked = Asked { target, query, verb, in_process };
    trace::within(seen.context(), || answer(server, parts, body, user, asked, seen)).await
}

/// What a request wants, by its first line.
struct Asked {
    target: Target,
    query: Query,
    verb: Option<Verb>,
    in_process: bool,
}

/// Answers a request of which it is known who sent it.
async fn answer(
    server: &Server,
    mut parts: Parts,
    body: Body,
    user: Arc<User>,
    asked: Asked,
    seen: &mut Seen,
) -> Result<Response> {
    let Asked { target, query, verb, in_process } = asked;
    let resource = match target {
        Target::Resource(resource) => resource,
        Target::Other(segments) => {
            let verb = parts.method.as_str().to_ascii_lowercase();
            let decision = authz::path(server, &user, &verb, parts.uri.path()).await;
            seen.decided(&decision);
            decision?;
            if parts.uri.path().starts_with("//") {
                return Err(Error::nothing_here());
            }
            if matches!(segments.first().map(String::as_str), Some("healthz" | "livez" | "readyz")) {
                return health::serve(server, &segments, &query).await;
            }
            let group_alone = segments.len() == 2 && segments[0] == "apis";
            if !matches!(parts.method, Method::GET | Method::HEAD) && !group_alone {
                return Err(Error::method_not_allowed_on_path());
            }
            if segments == ["metrics"] {
                let text = crate::metrics::render(server).await?;
                return Ok(respond(StatusCode::OK, crate::metrics::MEDIA, text.into()));
            }
            let _seat = seat(server, in_process, &user, None, None).await?;
            return other::serve(server, &segments, &parts.headers);
        }
    };
    let verb = verb.ok_or_else(Error::method_not_allowed_on_path)?;
    let catalog = server.catalog();
    let kind = catalog.find(&resource.group, &resource.version, &resource.resource);
    if let Some(kind) = &kind {
        seen.kind(kind, verb, &resource, &query, &parts.headers);
    }
    let stream = verb == Verb::Watch || resource.subresource == "portforward";
    let _seat = match stream {
        true => None,
        false => seat(server, in_process, &user, Some(verb), Some(&resource)).await?,
    };
    let decision = authz::resource(server, &user, verb, &resource, &query).await;
    seen.decided(&decision);
    decision?;
    if let Some(registered) = catalog.registered(&resource.group, &resource.version) {
        return registered.serve(server, verb, &resource, &query).await;
    }
    let kind = kind.ok_or_else(|| {
        let known = resource.group.is_empty() || catalog.has_builtin_group(&resource.group);
        if known { Error::no_such_path() } else { Error::nothing_here() }
    })?;
    check_place(&kind, &resource, verb)?;
    if !kind.has_subresource(&resource.subresource) {
        return Err(Error::no_such_path());
    }
    if stream {
        seen.goes_on();
    }
    let body = if stream { body } else { seen.body(body, &parts).await? };
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let call = Call { server: server.clone(), user, kind, verb, target: resource, query, headers: parts.headers };
    if verb == Verb::Get && call.target.subresource == "portforward" {
        return forward::serve(call, upgrade).await;
    }
    if verb == Verb::Watch {
        let draining = parts.extensions.get::<Draining>().map(|d| d.0.clone()).unwrap_or_default();
        return call.watch(draining).await;
    }
    call.run(body).await
}

/// Who asks, or as whom; and the beginning of the request's trail.
async fn identify(
    server: &Server,
    caller: Option<Arc<User>>,
    verb: Option<Verb>,
    resource: Option<&Resource>,
    parts: &Parts,
    seen: &mut Seen,
) -> Result<Arc<User>> {
    if let Some(user) = caller {
        seen.trace(server, &user, resource, parts);
        seen.told(server, (&user, None), verb, resource, parts).await;
        return Ok(user);
    }
    let user = match authn::authenticate(server, parts).await {
        Ok(user) => user,
        Err(error) => {
            if error.code() == 401 {
                Seen::refused(server, verb, resource, parts).await;
            }
            return Err(error);
        }
    };
    seen.trace(server, &user, resource, parts);
    let target = authn::impersonate(server, &user, &parts.headers).await;
    let impersonated = target.as_ref().ok().and_then(Option::as_ref);
    seen.told(server, (&user, impersonated), verb, resource, parts).await;
    Ok(Arc::new(target?.unwrap_or(user)))
}

/// A place among the requests that are served; callers in the process need none.
async fn seat(
    server: &Server,
    in_process: bool,
    user: &User,
    verb: Option<Verb>,
    target: Option<&Resource>,
) -> Result<Option<Seat>> {
    if in_process {
        return Ok(None);
    }
    server.state().fairness.seat(user, verb, target).await.map(Some)
}

/// Whether the path has a namespace where the kind wants one.
fn check_place(kind: &Kind, target: &Resource, verb: Verb) -> Result<()> {
    if !kind.namespaced {
        let fits = target.namespace.is_empty() || (kind.is_namespace() && target.namespace == target.name);
        return if fits { Ok(()) } else { Err(Error::no_such_path()) };
    }
    if !target.namespace.is_empty() {
        return Ok(());
    }
    match verb {
        Verb::List | Verb::Watch if target.name.is_empty() => Ok(()),
        Verb::Create | Verb::DeleteCollection => Err(Error::method_not_allowed_on_path()),
        _ => Err(Error::no_such_path()),
    }
}

impl Call {
    async fn run(self, body: Body) -> Result<Response> {
        if self.kind.review {
            if self.verb != Verb::Create {
                return Err(match self.target.name.as_str() {
                    "" => Error::method_not_allowed_on_path(),
                    _ => Error::no_such_path(),
                });
            }
            let body = body::read(body, &self.headers).await?;
            return self.review(body).await;
        }
        match (self.verb, self.target.subresource.as_str()) {
            (Verb::Get, "" | "status" | "scale" | "approval") => self.get().await,
            (Verb::Get, "log") => logs::serve(&self).await,
            (Verb::List, "") => self.list().await,
            (Verb::Create, "") if self.target.name.is_empty() => {
                let body = body::read(body, &self.headers).await?;
                self.create(body).await
            }
            (Verb::Create, "binding" | "eviction" | "token") => {
                let body = body::read(body, &self.headers).await?;
                self.create_subresource(body).await
            }
            (Verb::Update, "" | "status" | "scale" | "approval" | "finalize") if !self.target.name.is_empty() => {
                let body = body::read(body, &self.headers).await?;
                self.update(body).await
            }
            (Verb::Patch, "" | "status" | "scale" | "approval") if !self.target.name.is_empty() => {
                let body = body::read(body, &self.headers).await?;
                self.patch(body).await
            }
            (Verb::Delete, "") => {
                let body = body::read(body, &self.headers).await?;
                self.delete(body).await
            }
            (Verb::DeleteCollection, "") if !self.kind.is_namespace() => {
                let body = body::read(body, &self.headers).await?;
                self.delete_collection(body).await
            }
            (verb, "status" | "scale") if self.kind.is_custom() => {
                Err(Error::method_not_allowed(&self.kind.group, &self.kind.plural, verb.as_str()))
            }
            _ => Err(Error::method_not_allowed_on_path()),
        }
    }

    pub(crate) fn scope(&self) -> Result<Scope> {
        let validation = match self.query.text("fieldValidation") {
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            _ => FieldValidation::Warn,
        };
        let manager = match self.query.text("fieldManager") {
            Some(manager) => manager.to_owned(),
            None => default_manager(&self.headers),
        };
        let namespace = if self.kind.namespaced { self.target.namespace.clone() } else { String::new() };
        let mut warnings = Vec::new();
        if let Some(text) = self.kind.custom.as_ref().and_then(|c| c.deprecation.clone()) {
            warnings.push(text);
        }
        if self.kind.group.is_empty() && self.kind.plural == "endpoints" {
            warnings.push("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned());
        }
        Ok(Scope {
            server: self.server.clone(),
            user: Arc::clone(&self.user),
            kind: Arc::clone(&self.kind),
            namespace,
            name: self.target.name.clone(),
            subresource: self.target.subresource.clone(),
            dry_run: self.query.dry_run(),
            manager,
            validation,
            create_denied: None,
            duplicates: Vec::new(),
            is_patch: false,
            patched: None,
            warnings,
            options: options::shown(self.verb, &self.query),
            annotations: std::collections::BTreeMap::new(),
            admitted: false,
        })
    }

    fn answer(&self) -> Result<Answer> {
        let protobuf = !self.kind.is_custom() && protobuf::write::knows(&self.kind.api_version(), &self.kind.kind);
        let answer = negotiate::answer(&self.headers, true, protobuf).map_err(|error| match self.verb {
            Verb::List | Verb::Watch if !self.kind.is_custom() => error.with_streams(),
            _ => error,
        })?;
        let list = self.target.name.is_empty() && matches!(self.verb, Verb::List | Verb::DeleteCollection);
        if !self.kind.is_custom() && negotiate::wants_any_application(&self.headers) {
            let error = Error::no_representation(&negotiate::REPRESENTATIONS);
            return Err(if list { error.with_streams() } else { error });
        }
        let package = negotiate::internal_package(&self.kind);
        // One object has no metadata of a list, nor the other way round.
        match answer.list_form {
            Some(false) if list => Err(Error::bad_form(&format!(
                "you requested PartialObjectMetadata, but the requested object is a list (*{package}.{})",
                self.kind.list_kind
            ))),
            Some(true) if !list && self.verb != Verb::Watch => Err(Error::bad_form(&format!(
                "you requested PartialObjectMetadataList, but the requested object is not a list (*{package}.{})",
                self.kind.kind
            ))),
            _ => Ok(answer),
        }
    }

    async fn get(&self) -> Result<Response> {
        let answer = self.answer()?;
        let scope = self.scope()?;
        let kv = scope.current().await?.ok_or_else(|| scope.not_found())?;
        let kv = convert::served_one(&scope.kind, kv).await?;
        self.render(&scope, &Stored::of(&kv), StatusCode::OK, answer)
    }

    async fn list(&self) -> Result<Response> {
        let answer = self.answer()?;
        let namespace = if self.kind.namespaced { self.target.namespace.as_str() } else { "" };
        let subject = Subject::new(&self.server, &self.kind, namespace, &self.query)?;
        self.query.number("limit")?;
        self.query.number("timeoutSeconds")?;
        options::list(&self.query)?;
        let listed = read::list(&subject, &self.query).await?;
        let bytes = listed.render(&subject, answer.form, read::include_object(&self.query)?)?;
        let bytes = negotiate::dated(bytes, answer);
        let mut response = in_media(StatusCode::OK, bytes, answer.media)?;
        warn(&mut response, &self.scope()?.warnings);
        Ok(response)
    }

    async fn watch(&self, draining: CancellationToken) -> Result<Response> {
        let answer = self.answer()?;
        if self.kind.review || !self.target.subresource.is_empty() {
            return Err(Error::method_not_allowed_on_path());
        }
        if answer.media == Media::Yaml {
            return Err(Error::not_acceptable(&[
                "application/json;stream=watch",
                "application/vnd.kubernetes.protobuf;stream=watch",
            ]));
        }
        let mut query = self.query.clone();
        if !self.target.name.is_empty() {
            query.restrict_to_name(&self.target.name);
        }
        options::watch(&query)?;
        let namespace = if self.kind.namespaced { self.target.namespace.as_str() } else { "" };
        let watcher = watch::open(&self.server, &self.kind, namespace, &query, answer).await?;
        let content_type = watcher.content_type();
        let body = Body::from_stream(watcher.into_stream(draining));
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(response)
    }

    async fn create(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        options::write(&self.query, Write::Create)?;
        let mut scope = self.scope()?;
        let raw = Raw { bytes: body, media: negotiate::body_media(&self.headers)? };
        let draft = raw.decode(&mut scope)?;
        self.check_not_terminating()?;
        let stored = rest::create(&mut scope, draft).await?;
        self.render(&scope, &stored, StatusCode::CREATED, answer)
    }

    /// A CRD that is being deleted takes no new objects.
    fn check_not_terminating(&self) -> Result<()> {
        let Some(custom) = &self.kind.custom else { return Ok(()) };
        if self.server.catalog().custom(&custom.crd).is_some_and(|c| c.terminating) {
            return Err(Error::method_not_allowed(&self.kind.group, &self.kind.plural, "create"));
        }
        Ok(())
    }

    async fn create_subresource(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        options::write(&self.query, Write::Create)?;
        let mut scope = self.scope()?;
        let media = negotiate::body_media(&self.headers)?;
        let parsed = body::parse(&body, media).map_err(|why| body::unrecognized(&self.kind.kind, &why))?;
        let value = subresource::create(&mut scope, parsed.value).await?;
        let mut response = in_media(StatusCode::CREATED, to_vec(&value)?, answer.media)?;
        tell(&mut response, &scope);
        Ok(response)
    }

    async fn review(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        let mut scope = self.scope()?;
        let raw = Raw { bytes: body, media: negotiate::body_media(&self.headers)? };
        let Draft { object } = raw.decode(&mut scope)?;
        let mut value = reviews::answer(&self.server, &self.user, &self.kind, &self.target.namespace, object).await?;
        let status = value.as_object_mut().and_then(|fields| fields.remove("status"));
        subresource::track(&scope, &mut value, &self.kind.group, &self.kind.kind);
        value["status"] = status.unwrap_or_default();
        in_media(StatusCode::CREATED, to_vec(&value)?, answer.media)
    }

    async fn update(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        options::write(&self.query, Write::Update)?;
        let mut scope = self.scope()?;
        let raw = Raw { bytes: body, media: negotiate::body_media(&self.headers)? };
        let edit = if scope.subresource == "scale" {
            let parsed = body::parse(&raw.bytes, raw.media).map_err(|why| body::unrecognized("Scale", &why))?;
            let mut scale = parsed.value;
            write::check_type(&mut scale, "autoscaling/v1", "Scale").map_err(write::Mistyped::into_scale_error)?;
            Edit::Replace(scale)
        } else {
            Edit::Replace(raw.decode(&mut scope)?.object)
        };
        scope.create_denied =
            authz::resource(&self.server, &self.user, Verb::Create, &self.target, &self.query).await.err();
        let (stored, made) = rest::modify(&mut scope, &edit).await?;
        self.render(&scope, &stored, if made { StatusCode::CREATED } else { StatusCode::OK }, answer)
    }

    async fn patch(&self, bytes: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        let mut scope = self.scope()?;
        let patch_type = negotiate::patch_type(&self.headers, !self.kind.is_custom())?;
        options::write(&self.query, Write::Patch { apply: patch_type == PatchType::Apply })?;
        let media = if patch_type == PatchType::Apply { Media::Yaml } else { Media::Json };
        // JSON is YAML, but reading it as what it is costs less.
        let media = if bytes.first() == Some(&b'{') { Media::Json } else { media };
        let patch = match body::parse(&bytes, media).or_else(|e| match patch_type {
            PatchType::Apply if media == Media::Json => body::parse(&bytes, Media::Yaml),
            _ => Err(e),
        }) {
            Ok(parsed) => parsed.value,
            Err(why) if patch_type == PatchType::Apply => {
                return Err(Error::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}")));
            }
            Err(_) => {
                return Err(Error::bad_request(format!("error decoding patch: {}", decode::json_fault(&bytes))));
            }
        };
        let edit = match patch_type {
            PatchType::Json => Edit::JsonPatch(patch),
            PatchType::Merge => Edit::MergePatch(patch),
            PatchType::Strategic => Edit::StrategicMergePatch(patch),
            PatchType::Apply => {
                scope.create_denied =
                    authz::resource(&self.server, &self.user, Verb::Create, &self.target, &self.query).await.err();
                Edit::Apply { config: patch, force: self.query.flag("force") }
            }
        };
        check_form(&edit)?;
        let (stored, made) = rest::modify(&mut scope, &edit).await?;
        self.render(&scope, &stored, if made { StatusCode::CREATED } else { StatusCode::OK }, answer)
    }

    fn delete_options(&self, body: &Bytes) -> Result<DeleteOptions> {
        let value = if body.is_empty() {
            Value::Null
        } else {
            let media = negotiate::body_media(&self.headers)?;
            let parsed = body::parse(body, media).map_err(|why| {
                let why = if media == Media::Json { decode::json_fault(body) } else { why };
                Error::bad_request(format!("couldn't get version/kind; json parse error: {why}"))
            })?;
            DeleteOptions::check_type(&parsed.value, &self.kind.api_version())?;
            parsed.value
        };
        options::delete(&value, &self.query)?;
        DeleteOptions::read(&value, &self.query)
    }

    async fn delete(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        let mut scope = self.scope()?;
        let options = self.delete_options(&body)?;
        match rest::delete(&mut scope, &options).await? {
            Deleted::Going(stored) => {
                let stored = convert::shown(&scope.kind, stored).await?;
                self.render(&scope, &stored, StatusCode::OK, answer)
            }
            Deleted::Gone(stored) if self.kind.strategy.returns_deleted => {
                self.render(&scope, &stored, StatusCode::OK, answer)
            }
            Deleted::Gone(stored) => {
                let object = stored.value(&self.kind)?;
                let value = status::success(&self.kind.group, &self.kind.plural, &scope.name, object::uid(&object));
                let mut response = in_media(StatusCode::OK, to_vec(&value)?, answer.media)?;
                tell(&mut response, &scope);
                Ok(response)
            }
        }
    }

    async fn delete_collection(&self, body: Bytes) -> Result<Response> {
        let answer = self.answer()?;
        let options = self.delete_options(&body)?;
        let namespace = if self.kind.namespaced { self.target.namespace.as_str() } else { "" };
        let subject = Subject::new(&self.server, &self.kind, namespace, &self.query)?;
        let listed = read::list(&subject, &self.query).await?;
        let mut scope = self.scope()?;
        for kv in &listed.items {
            let Some((_, _, namespace, name)) = crate::kinds::split_key(&kv.key) else { continue };
            namespace.clone_into(&mut scope.namespace);
            name.clone_into(&mut scope.name);
            match rest::delete(&mut scope, &options).await {
                Err(error) if error.is_not_found() => {}
                other => drop(other?),
            }
        }
        let bytes = listed.render(&subject, Form::Object, read::include_object(&self.query)?)?;
        in_media(StatusCode::OK, bytes, answer.media)
    }

    /// One object in the form that is wanted.
    fn render(&self, scope: &Scope, stored: &Stored, code: StatusCode, answer: Answer) -> Result<Response> {
        let bytes = match (scope.subresource.as_str(), answer.form, &self.kind.scale) {
            ("scale", _, Some(paths)) => to_vec(&scale_view(paths, &stored.value(&self.kind)?))?,
            (_, Form::Object, _) => match stored.revision {
                Some(revision) => {
                    let mut out = Vec::new();
                    read::served_bytes(&self.kind, &stored.bytes, revision, &mut out)?;
                    out
                }
                None => to_vec(&stored.value(&self.kind)?)?,
            },
            (_, Form::Metadata, _) => to_vec(&read::partial_metadata(&mut stored.value(&self.kind)?))?,
            (_, Form::Table, _) => {
                let object = stored.value(&self.kind)?;
                let metadata = serde_json::json!({"resourceVersion": object::resource_version(&object)});
                let include = read::include_object(&self.query)?;
                to_vec(&crate::table::table(&self.kind.columns(), &[&object], include, self.server.now(), metadata))?
            }
        };
        let mut response = in_media(code, negotiate::dated(bytes, answer), answer.media)?;
        tell(&mut response, scope);
        Ok(response)
    }
}

/// Whether a patch is the object, or the list, that it must be.
fn check_form(edit: &Edit) -> Result<()> {
    let (patch, wanted) = match edit {
        Edit::MergePatch(Value::Null) => return Err(Error::bad_request("Invalid JSON Patch")),
        Edit::StrategicMergePatch(Value::Null) => return Ok(()),
        Edit::MergePatch(patch) | Edit::StrategicMergePatch(patch) => (patch, "map[string]interface {}"),
        Edit::JsonPatch(patch) => (patch, "[]handlers.jsonPatchOp"),
        _ => return Ok(()),
    };
    let found = match patch {
        Value::Array(_) if wanted.starts_with("[]") => return Ok(()),
        Value::Object(_) if wanted.starts_with("map") => return Ok(()),
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => return Ok(()),
    };
    Err(Error::bad_request(format!(
        "error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
    )))
}

/// The manager that a request without one is booked to: the program's name in User-Agent.
fn default_manager(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let program = agent.split('/').next().unwrap_or_default();
    let program: String = program.chars().filter(|c| !c.is_control()).take(options::MANAGER_CHARS_MAX).collect();
    if program.is_empty() { "unknown".to_owned() } else { program }
}
