//! What is wrong with which field: the errors of apimachinery's `util/validation/field`, word for word on the wire.

use std::fmt;

use serde_json::Value;

/// One thing that is wrong with one field of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldError {
    pub kind: FieldErrorKind,
    /// As in `spec.list[0].name` and `metadata.labels[a/b]`; empty for the object as a whole.
    pub path: String,
    /// The offending value, printed by the kinds that print one.
    pub value: Option<Value>,
    pub detail: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldErrorKind {
    Required,
    Invalid,
    /// With the value as it is printed, where that is not its JSON.
    InvalidAs(String),
    TypeInvalid,
    /// With the values that are supported.
    NotSupported(Vec<String>),
    /// With the limit in bytes.
    TooLong(usize),
    /// With the limit in items; the value is how many there are.
    TooMany(usize),
    Duplicate,
    Forbidden,
    NotFound,
    InternalError,
}

impl FieldError {
    pub fn new(kind: FieldErrorKind, path: impl Into<String>, value: Option<Value>, detail: impl Into<String>) -> Self {
        Self { kind, path: path.into(), value, detail: detail.into() }
    }

    pub fn required(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, path, None, detail)
    }

    pub fn invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, path, Some(value.into()), detail)
    }

    pub fn type_invalid(path: impl Into<String>, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::TypeInvalid, path, Some(value.into()), detail)
    }

    pub fn not_supported(path: impl Into<String>, value: impl Into<Value>, supported: &[&str]) -> Self {
        let supported = supported.iter().map(ToString::to_string).collect();
        Self::new(FieldErrorKind::NotSupported(supported), path, Some(value.into()), "")
    }

    pub fn too_long(path: impl Into<String>, max_bytes: usize) -> Self {
        Self::new(FieldErrorKind::TooLong(max_bytes), path, None, "")
    }

    pub fn too_many(path: impl Into<String>, count: usize, max: usize) -> Self {
        Self::new(FieldErrorKind::TooMany(max), path, Some(count.into()), "")
    }

    pub fn duplicate(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::Duplicate, path, Some(value.into()), "")
    }

    pub fn forbidden(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, path, None, detail)
    }

    pub fn not_found(path: impl Into<String>, value: impl Into<Value>) -> Self {
        Self::new(FieldErrorKind::NotFound, path, Some(value.into()), "")
    }

    /// The machine-readable reason of a Status cause (meta/v1 `CauseType`).
    pub fn reason(&self) -> &'static str {
        match self.kind {
            FieldErrorKind::Required => "FieldValueRequired",
            FieldErrorKind::Invalid | FieldErrorKind::InvalidAs(_) => "FieldValueInvalid",
            FieldErrorKind::TypeInvalid => "FieldValueTypeInvalid",
            FieldErrorKind::NotSupported(_) => "FieldValueNotSupported",
            FieldErrorKind::TooLong(_) => "FieldValueTooLong",
            FieldErrorKind::TooMany(_) => "FieldValueTooMany",
            FieldErrorKind::Duplicate => "FieldValueDuplicate",
            FieldErrorKind::Forbidden => "FieldValueForbidden",
            FieldErrorKind::NotFound => "FieldValueNotFound",
            FieldErrorKind::InternalError => "InternalError",
        }
    }

    /// The text without the path, as a Status cause carries it.
    pub fn body(&self) -> String {
        let title = match self.kind {
            FieldErrorKind::Required => "Required value",
            FieldErrorKind::Invalid | FieldErrorKind::InvalidAs(_) | FieldErrorKind::TypeInvalid => "Invalid value",
            FieldErrorKind::NotSupported(_) => "Unsupported value",
            FieldErrorKind::TooLong(_) => "Too long",
            FieldErrorKind::TooMany(_) => "Too many",
            FieldErrorKind::Duplicate => "Duplicate value",
            FieldErrorKind::Forbidden => "Forbidden",
            FieldErrorKind::NotFound => "Not found",
            FieldErrorKind::InternalError => "Internal error",
        };
        let mut text = title.to_owned();
        let prints_value = !matches!(
            self.kind,
            FieldErrorKind::Required
                | FieldErrorKind::Forbidden
                | FieldErrorKind::TooLong(_)
                | FieldErrorKind::InternalError
        );
        if let FieldErrorKind::InvalidAs(shown) = &self.kind {
            text.push_str(": ");
            text.push_str(shown);
        } else if let (true, Some(value)) = (prints_value, &self.value) {
            text.push_str(": ");
            text.push_str(&value.to_string());
        }
        let detail = self.detail_text();
        if !detail.is_empty() {
            text.push_str(": ");
            text.push_str(&detail);
        }
        text
    }

    fn detail_text(&self) -> String {
        if !self.detail.is_empty() {
            return self.detail.clone();
        }
        match &self.kind {
            FieldErrorKind::NotSupported(values) if !values.is_empty() => {
                let quoted: Vec<_> = values.iter().map(|v| format!("\"{v}\"")).collect();
                format!("supported values: {}", quoted.join(", "))
            }
            FieldErrorKind::TooLong(max) => format!("may not be more than {}", counted(*max, "byte")),
            FieldErrorKind::TooMany(max) => format!("must have at most {}", counted(*max, "item")),
            _ => String::new(),
        }
    }
}

fn counted(count: usize, unit: &str) -> String {
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.body())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_read_as_kubernetes_prints_them() {
        let cases = [
            (FieldError::required("spec.a", ""), "spec.a: Required value"),
            (FieldError::required("spec.a", "must be set"), "spec.a: Required value: must be set"),
            (FieldError::invalid("spec.a", "x", "bad"), "spec.a: Invalid value: \"x\": bad"),
            (FieldError::invalid("spec.a", 3, ""), "spec.a: Invalid value: 3"),
            (
                FieldError::not_supported("type", "x", &["a", "b"]),
                "type: Unsupported value: \"x\": supported values: \"a\", \"b\"",
            ),
            (FieldError::too_long("a", 63), "a: Too long: may not be more than 63 bytes"),
            (FieldError::too_many("a", 5, 4), "a: Too many: 5: must have at most 4 items"),
            (FieldError::too_many("a", 2, 1), "a: Too many: 2: must have at most 1 item"),
            (FieldError::duplicate("a[1]", json!({"k": 1})), "a[1]: Duplicate value: {\"k\":1}"),
            (FieldError::forbidden("", "no"), "Forbidden: no"),
        ];
        for (error, text) in cases {
            assert_eq!(error.to_string(), text);
        }
    }
}
