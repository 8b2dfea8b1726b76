//! Failures as Kubernetes tells them: the `Status` object (meta/v1) with its code, reason, message and causes.
//!
//! The texts are wire-visible: clients and people match on them (`apimachinery/pkg/api/errors`).

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use crate::field::FieldError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A request that failed; becomes a `Status` object.
#[derive(Clone, Debug)]
pub struct Error(Box<Failure>);

#[derive(Clone, Debug, Default)]
struct Failure {
    code: u16,
    reason: Cow<'static, str>,
    message: String,
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Cause>,
    retry_after_s: u32,
    /// Upstream gives it details, though there is nothing to say in them.
    bare_details: bool,
    /// No `Status` but a text.
    plain: bool,
    /// Texts for Warning headers: what was wrong is said even if something else was worse.
    warnings: Vec<String>,
    /// What admission told the audit log before it refused.
    annotations: BTreeMap<String, String>,
    /// A `continue` token that goes on in spite of an expired one.
    resume: String,
}

/// One entry of `details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

impl From<&FieldError> for Cause {
    fn from(error: &FieldError) -> Self {
        Self { reason: error.reason().to_owned(), message: error.body(), field: error.path.clone() }
    }
}

/// `resource` or `resource.group`, as error texts name it.
pub(crate) fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

impl Error {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Failure { code, reason: Cow::Borrowed(reason), message: message.into(), ..Failure::default() }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        group.clone_into(&mut self.0.group);
        kind.clone_into(&mut self.0.kind);
        name.clone_into(&mut self.0.name);
        self
    }

    #[must_use]
    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.0.causes = causes;
        self
    }

    /// From a Status that somebody else made, with a message of one's own. It is a failure, whatever its code says.
    pub(crate) fn from_status(status: &Value, message: String) -> Self {
        let text = |path: &[&str]| crate::object::text_at(status, path).to_owned();
        let code = status.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        let causes = status.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
        let cause = |cause: &Value| {
            let text = |key: &str| crate::object::text_at(cause, &[key]).to_owned();
            Cause { reason: text("reason"), message: text("message"), field: text("field") }
        };
        Self(Box::new(Failure {
            code: code.filter(|code| (400..600).contains(code)).unwrap_or(400),
            reason: text(&["reason"]).into(),
            message,
            name: text(&["details", "name"]),
            group: text(&["details", "group"]),
            kind: text(&["details", "kind"]),
            uid: text(&["details", "uid"]),
            causes: causes.map(cause).collect(),
            bare_details: status.get("details").is_some_and(Value::is_object),
            ..Failure::default()
        }))
    }

    /// Of a webhook that said no more than why.
    pub(crate) fn of_webhook(name: &str, why: &str) -> Self {
        Self::new(400, "", format!("admission webhook {name:?} denied the request: {why}"))
    }

    /// The same failure under another code and reason, with a further cause.
    #[must_use]
    pub(crate) fn recast(mut self, code: u16, reason: &'static str, cause: Cause) -> Self {
        self.0.code = code;
        self.0.reason = Cow::Borrowed(reason);
        self.0.causes.push(cause);
        self
    }

    /// The same failure in other words and for another reason.
    #[must_use]
    pub(crate) fn retold(mut self, reason: &'static str, message: String) -> Self {
        self.0.reason = Cow::Borrowed(reason);
        self.0.message = message;
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// `name` may be empty: the request was for no object in particular.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let what = match (resource, name) {
            ("", _) => "forbidden".to_owned(),
            (_, "") => format!("{} is forbidden", qualified(resource, group)),
            _ => format!("{} \"{name}\" is forbidden", qualified(resource, group)),
        };
        let error = Self::new(403, "Forbidden", format!("{what}: {why}")).about(group, resource, name);
        if resource.is_empty() { error.with_bare_details() } else { error }
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", qualified(resource, group)))
            .about(group, resource, name)
    }

    /// No such path.
    pub fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource").with_bare_details()
    }

    /// Neither is there a word about it.
    pub fn silence() -> Self {
        let mut error = Self::new(404, "NotFound", "");
        error.0.plain = true;
        error
    }

    /// A path of which not even the beginning is known.
    pub fn nothing_here() -> Self {
        let mut error = Self::new(404, "NotFound", "404 page not found\n");
        error.0.plain = true;
        error
    }

    #[must_use]
    pub fn with_warnings(mut self, warnings: &[String]) -> Self {
        self.0.warnings = warnings.to_vec();
        self
    }

    #[must_use]
    pub fn with_annotations(mut self, annotations: &BTreeMap<String, String>) -> Self {
        self.0.annotations.clone_from(annotations);
        self
    }

    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.0.annotations
    }

    pub fn warnings(&self) -> &[String] {
        &self.0.warnings
    }

    fn with_bare_details(mut self) -> Self {
        self.0.bare_details = true;
        self
    }

    /// The answer is this text, and no `Status`.
    pub fn plain_text(&self) -> Option<&str> {
        self.0.plain.then_some(self.0.message.as_str())
    }

    pub fn method_not_allowed(group: &str, resource: &str, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{}\"", qualified(resource, group));
        Self::new(405, "MethodNotAllowed", message).about(group, resource, "")
    }

    pub fn method_not_allowed_on_path() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
            .with_bare_details()
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        Self::new(406, "NotAcceptable", message)
    }

    /// None of the media types of the Accept header is known.
    pub fn no_representation(available: &[&str]) -> Self {
        let list = available.join(", ");
        let message = format!("406: Not Acceptable\n\nAvailable representations: {list}");
        Self::new(406, "NotAcceptable", message).with_bare_details()
    }

    /// The form that was asked for does not fit what is there.
    pub fn bad_form(why: &str) -> Self {
        Self::new(406, "NotAcceptable", why)
    }

    /// Lists can be had as streams, too, and an answer that says what there is says so.
    #[must_use]
    pub fn with_streams(mut self) -> Self {
        if self.0.message.starts_with("406: ") {
            self.0
                .message
                .push_str(", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch");
        }
        self
    }

    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", qualified(resource, group)))
            .about(group, resource, name)
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(resource, group));
        Self::new(409, "Conflict", message).about(group, resource, name)
    }

    /// Server-side apply met fields that others own.
    pub fn apply_conflict(message: impl Into<String>, causes: Vec<Cause>) -> Self {
        Self::new(409, "Conflict", message).with_causes(causes)
    }

    /// The resource version asked for is no longer kept (410).
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// As [`Self::expired`], with a token that reads the rest of the list in its present state.
    pub fn expired_page(resume: String) -> Self {
        let mut error = Self::new(
            410,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the \
             list.",
        );
        error.0.resume = resume;
        error
    }

    pub fn body_too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// The object is larger than the store takes.
    pub fn object_too_large() -> Self {
        Self::internal_plain("etcdserver: request is too large")
    }

    /// A patch in a form that there is none of.
    pub fn unsupported_patch() -> Self {
        Self::new(415, "UnsupportedMediaType", "415: Unsupported Media Type").with_bare_details()
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {list}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// A patch with too many operations.
    pub fn patch_too_large(why: impl fmt::Display) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    /// A patch that does not fit the object; upstream keeps the reason to itself.
    pub fn unprocessable() -> Self {
        Self::new(422, "Invalid", "the server rejected our request due to an error in our request").with_bare_details()
    }

    /// What a patch leaves is no object of the kind.
    pub fn bad_patch(patched: &str, why: &str) -> Self {
        Self::invalid("", "", "", &[FieldError::invalid("patch", patched, why)])
    }

    /// `kind` is the object's kind, not its resource.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(errors.len());
        for error in errors {
            let text = error.to_string();
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let list = if texts.len() == 1 { texts.swap_remove(0) } else { format!("[{}]", texts.join(", ")) };
        Self::new(422, "Invalid", format!("{} \"{name}\" is invalid: {list}", qualified(kind, group)))
            .about(group, kind, name)
            .with_causes(errors.iter().map(Cause::from).collect())
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_s: u32) -> Self {
        let mut error = Self::new(429, "TooManyRequests", message);
        error.0.retry_after_s = retry_after_s;
        error
    }

    pub fn internal(why: impl fmt::Display) -> Self {
        let cause = Cause { message: why.to_string(), ..Cause::default() };
        Self::new(500, "InternalError", format!("Internal error occurred: {why}")).with_causes(vec![cause])
    }

    /// A failure that upstream passes on as it is, without a reason.
    pub fn internal_plain(why: impl fmt::Display) -> Self {
        Self::new(500, "", why.to_string())
    }

    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", why)
    }

    /// Whoever is to answer cannot be reached.
    pub fn unreachable(why: &str) -> Self {
        let mut error = Self::unavailable(why);
        error.0.plain = true;
        error
    }

    /// Nobody knows what became of it.
    pub fn timeout(why: impl Into<String>) -> Self {
        Self::new(504, "Timeout", why)
    }

    /// The same will do in so many seconds.
    pub fn retried(mut self, after_s: u32) -> Self {
        self.0.retry_after_s = after_s;
        self
    }

    pub fn future_version(asked: u64, current: u64) -> Self {
        let cause = Cause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            field: String::new(),
        };
        let mut error =
            Self::new(504, "Timeout", format!("Timeout: Too large resource version: {asked}, current: {current}"))
                .with_causes(vec![cause]);
        error.0.retry_after_s = 1;
        error
    }

    /// A request header section that is too long.
    pub fn headers_too_large() -> Self {
        Self::new(431, "BadRequest", "the headers of the request are too large")
    }

    pub fn code(&self) -> u16 {
        self.0.code
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    pub fn retry_after_s(&self) -> Option<u32> {
        (self.0.retry_after_s > 0).then_some(self.0.retry_after_s)
    }

    pub fn is_conflict(&self) -> bool {
        self.0.reason == "Conflict"
    }

    pub fn is_not_found(&self) -> bool {
        self.0.reason == "NotFound"
    }

    /// The `Status` object.
    pub fn to_value(&self) -> Value {
        let failure = &*self.0;
        let mut metadata = Map::new();
        if !failure.resume.is_empty() {
            metadata.insert("continue".into(), failure.resume.as_str().into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": failure.message, "code": failure.code,
        });
        if !failure.reason.is_empty() {
            status["reason"] = failure.reason.as_ref().into();
        }
        let mut details = Map::new();
        let texts =
            [("name", &failure.name), ("group", &failure.group), ("kind", &failure.kind), ("uid", &failure.uid)];
        for (key, text) in texts {
            if !text.is_empty() {
                details.insert(key.into(), text.as_str().into());
            }
        }
        if !failure.causes.is_empty() {
            details.insert("causes".into(), failure.causes.iter().map(Cause::to_value).collect());
        }
        if failure.retry_after_s > 0 {
            details.insert("retryAfterSeconds".into(), failure.retry_after_s.into());
        }
        if !details.is_empty() || failure.bare_details {
            status["details"] = Value::Object(details);
        }
        status
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut cause = Map::new();
        for (key, text) in [("reason", &self.reason), ("message", &self.message), ("field", &self.field)] {
            if !text.is_empty() {
                cause.insert(key.into(), text.as_str().into());
            }
        }
        Value::Object(cause)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Error {}

/// The `Status` of success that a deletion answers with.
pub(crate) fn success(group: &str, resource: &str, name: &str, uid: &str) -> Value {
    let mut details = Map::new();
    for (key, text) in [("name", name), ("group", group), ("kind", resource), ("uid", uid)] {
        if !text.is_empty() {
            details.insert(key.into(), text.into());
        }
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}
