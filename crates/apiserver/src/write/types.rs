//! Whether a body is of the kind that the path names, and of the types of that kind.

use serde_json::Value;

use crate::{
    body, decode,
    field::FieldError,
    kinds::Kind,
    negotiate, object,
    status::{Error, Result},
};

/// A custom object must say what it is, and may not be of another kind of its version.
pub(super) fn check_custom_type(kind: &Kind, object: &Value, body: &[u8]) -> Result<()> {
    if !object.is_object() {
        return Ok(());
    }
    for (key, title) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
        if object::text_at(object, &[key]).is_empty() && object.get(key).is_none_or(|v| v.is_null() || v == "") {
            let shown = beginning(body);
            let why = format!("Object '{title}' is missing in '{}' ({shown})", String::from_utf8_lossy(body));
            return Err(body::unrecognized(&kind.kind, &why));
        }
    }
    let said = object::text_at(object, &["kind"]);
    if said == kind.kind || object::text_at(object, &["apiVersion"]) != kind.api_version() {
        return Ok(());
    }
    let error = FieldError::invalid("kind", said, format!("must be {}", kind.kind));
    Err(Error::invalid(&kind.group, said, object::name(object), &[error]))
}

/// As much of a body as upstream shows: JSON as it is, anything else in hexadecimal.
pub(super) fn beginning(body: &[u8]) -> String {
    const BYTES_SHOWN: usize = 30;
    let (shown, more) = (&body[..body.len().min(BYTES_SHOWN)], if body.len() > BYTES_SHOWN { " ..." } else { "" });
    match body.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => format!("{}{more}", shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
    }
}

/// Where upstream's message says that its types are listed; clients see it.
const SCHEME: &str = "scheme \"pkg/runtime/scheme.go:111\"";

/// Why a body is not of the kind that the path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mistyped {
    NoObject(String),
    ApiVersion { found: String, kind: String },
    Kind { found: String, api_version: String },
}

impl Mistyped {
    /// Alone, as the reason of another error.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::NoObject(why) => why.clone(),
            Self::ApiVersion { found, kind } => {
                format!("no kind {kind:?} is registered for version {found:?} in {SCHEME}")
            }
            Self::Kind { found, api_version } => {
                format!("no kind {found:?} is registered for version {api_version:?} in {SCHEME}")
            }
        }
    }

    /// Of a body that should be a Scale.
    pub(crate) fn into_scale_error(self) -> Error {
        Error::bad_request(match self {
            Self::NoObject(why) => why,
            Self::ApiVersion { found, kind } => {
                let version = crate::kinds::split_api_version(&found).1;
                format!(
                    "{kind} in version {version:?} cannot be handled as a Scale: converting ({version}.{kind}) to \
                     (autoscaling.Scale): unknown conversion"
                )
            }
            Self::Kind { found, api_version } => {
                let version = crate::kinds::split_api_version(&api_version).1;
                format!(
                    "{found} in version {version:?} cannot be handled as a Scale: converting ({version}.{found}) to \
                     (autoscaling.Scale): unknown conversion"
                )
            }
        })
    }

    pub(crate) fn into_error(self, kind: &Kind) -> Error {
        let version = |api_version: &str| crate::kinds::split_api_version(api_version).1.to_owned();
        if kind.is_custom() {
            return Error::bad_request(match self {
                Self::NoObject(why) => why,
                Self::ApiVersion { found, .. } => format!(
                    "the API version in the data ({found}) does not match the expected API version ({})",
                    kind.api_version()
                ),
                Self::Kind { found, .. } => {
                    format!("the kind in the data ({found}) does not match the expected kind ({})", kind.kind)
                }
            });
        }
        match self {
            Self::NoObject(why) => body::unrecognized(&kind.kind, &format!("couldn't get version/kind; {why}")),
            Self::ApiVersion { found, .. } if found.matches('/').count() > 1 => {
                body::unrecognized(&kind.kind, &format!("unexpected GroupVersion string: {found}"))
            }
            Self::ApiVersion { found, kind: said } => Error::bad_request(format!(
                "{said} in version {:?} cannot be handled as a {}: no kind {said:?} is registered for version {found:?} in {SCHEME}",
                version(&found),
                kind.kind
            )),
            Self::Kind { found, api_version } if is_known(kind, &found) => Error::bad_request(format!(
                "{found} in version {:?} cannot be handled as a {}: converting ({}.{found}) to ({}.{}): unknown conversion",
                version(&api_version),
                kind.kind,
                version(&api_version),
                negotiate::internal_package(kind),
                kind.kind
            )),
            Self::Kind { found, api_version } => Error::bad_request(format!(
                "{found} in version {:?} cannot be handled as a {}: no kind {found:?} is registered for version {api_version:?} in {SCHEME}",
                version(&api_version),
                kind.kind
            )),
        }
    }
}

/// Whether a built-in kind of that name is in the group and version of another.
fn is_known(kind: &Kind, name: &str) -> bool {
    let all = crate::kinds::builtin::kinds(crate::kinds::builtin::Profile::Workload);
    all.iter().any(|other| other.kind == name && other.group == kind.group && other.version == kind.version)
}

/// Checks, and where they are left out sets, apiVersion and kind of a body.
pub(crate) fn check_type(object: &mut Value, api_version: &str, kind: &str) -> Result<(), Mistyped> {
    let found = match object {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
        Value::Object(_) => "",
    };
    let Some(fields) = object.as_object_mut() else {
        let into = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
        return Err(Mistyped::NoObject(format!("json: cannot unmarshal {found} into Go value of type {into}")));
    };
    for key in ["apiVersion", "kind"] {
        let found = match fields.get(key) {
            None | Some(Value::String(_) | Value::Null) => continue,
            Some(Value::Object(_)) => "object",
            Some(Value::Array(_)) => "array",
            Some(Value::Number(_)) => "number",
            Some(Value::Bool(_)) => "bool",
        };
        let text = format!("json: cannot unmarshal {found} into Go struct field .{key} of type string");
        return Err(Mistyped::NoObject(text));
    }
    let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (said_version, said_kind) = (text("apiVersion"), text("kind"));
    if !said_version.is_empty() && said_version != api_version {
        let kind = if said_kind.is_empty() { kind.to_owned() } else { said_kind };
        return Err(Mistyped::ApiVersion { found: said_version, kind });
    }
    if !said_kind.is_empty() && said_kind != kind {
        return Err(Mistyped::Kind { found: said_kind, api_version: api_version.to_owned() });
    }
    fields.insert("apiVersion".into(), api_version.into());
    fields.insert("kind".into(), kind.into());
    Ok(())
}

/// Whether an object fits the types of its built-in kind.
pub(crate) fn fit(kind: &Kind, object: &Value) -> Result<(), String> {
    let found = match kind.is_custom() {
        true => decode::metadata_misfit(object),
        false => kind.schema().and_then(|schema| decode::misfit(schema.root(), object)),
    };
    match found {
        None => Ok(()),
        Some(why) => Err(why),
    }
}
