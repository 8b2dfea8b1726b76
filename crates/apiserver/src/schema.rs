//! Structural schemas (apiextensions.k8s.io/v1): what fields an object has, what they default to, and what they may hold.
//! Built-in kinds and those of CRDs have the same form.

mod builtin;
mod complete;
mod format;
mod lists;
mod parse;
mod pattern;
mod print;
mod prune;
mod rules;
mod shared;
mod validate;

use std::sync::{Arc, OnceLock};

pub(crate) use self::{
    format::unknown as unknown_formats,
    pattern::Pattern,
    print::{Dialect, Printer},
};
use serde_json::Value;

use crate::field::{FieldError, FieldErrorKind};

/// Schemas nested deeper than this are refused.
pub(crate) const DEPTH_LIMIT: usize = 64;

/// A parsed schema of a kind: immutable, cheap to clone. Built-in kinds share the nodes that they have in common.
#[derive(Clone, Debug)]
pub struct Schema {
    whole: Arc<Whole>,
}

#[derive(Debug)]
struct Whole {
    root: Arc<Node>,
    /// The root with the metadata that every object has, made when first needed.
    with_metadata: OnceLock<Arc<Node>>,
    /// The rules, compiled when first needed: most kinds of most servers are never written.
    rules: OnceLock<Option<rules::Validator>>,
}

impl Schema {
    /// Parses the `openAPIV3Schema` of a CRD's version. Errors carry paths relative to it, texts as apiextensions has them.
    /// All servers of a process share what is the same.
    pub fn parse(open_api_v3_schema: &Value) -> Result<Self, Vec<FieldError>> {
        shared::schema(open_api_v3_schema, || parse::root(open_api_v3_schema).map(|root| Self::of(Arc::new(root))))
    }

    /// Removes the fields that the schema does not know, and returns their paths (`spec.foo`, `spec.list[0].bar`), sorted.
    /// `apiVersion`, `kind` and the known fields of `metadata` stay.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        prune::prune(&self.whole.root, object)
    }

    /// Drops nulls that mean "absent", then fills in the defaults.
    pub fn default(&self, object: &mut Value) {
        prune::drop_nulls(&self.whole.root, object);
        prune::default(&self.whole.root, object);
    }

    /// Drops nulls that mean "absent" alone.
    pub(crate) fn drop_nulls(&self, object: &mut Value) {
        prune::drop_nulls(&self.whole.root, object);
    }

    /// Everything that is wrong with an object. Call [`Schema::prune`] and [`Schema::default`] first.
    pub fn validate(&self, object: &Value) -> Vec<FieldError> {
        self.with_rules(validate::object(&self.whole.root, object, None), object, None, &mut Vec::new())
    }

    /// What is wrong with an object that replaces `old`, but for what `old` already had as it is (KEP-4008): so an object
    /// can be changed after its schema became stricter. `warnings`: rules that do not hold, as they did not before.
    pub fn validate_update(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Vec<FieldError> {
        self.with_rules(validate::object(&self.whole.root, object, Some(old)), object, Some(old), warnings)
    }

    /// The same for a write of the subresource `status`, which changes nothing else.
    pub fn validate_status(&self, object: &Value, old: &Value, warnings: &mut Vec<String>) -> Vec<FieldError> {
        self.with_rules(validate::status(&self.whole.root, object, old), object, Some(old), warnings)
    }

    /// Defaults with fields that the schema does not know, which would be lost at once.
    pub fn check_defaults(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        complete::check_defaults(&self.whole.root, true, "", &mut errors);
        errors
    }

    /// Adds what the rules say. They speak of objects that fit the schema, so they are not asked about others.
    fn with_rules(
        &self,
        mut errors: Vec<FieldError>,
        object: &Value,
        old: Option<&Value>,
        warnings: &mut Vec<String>,
    ) -> Vec<FieldError> {
        let Some(validator) = self.whole.rules.get_or_init(|| rules::Validator::of(&self.whole.root, true)) else {
            return errors;
        };
        let blocks = |error: &FieldError| {
            use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
            matches!(error.kind, NotSupported(_) | Required | TooLong(_) | TooMany(_) | TypeInvalid)
        };
        if errors.iter().any(blocks) {
            let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                          errors to complete validation";
            errors.push(FieldError::invalid(validate::NOWHERE, Value::Null, detail));
            return errors;
        }
        let findings = validator.run("", object, old);
        warnings.extend(findings.ratcheted.iter().map(ToString::to_string));
        errors.extend(findings.errors);
        errors
    }

    /// Everything that is wrong with the rules themselves, for when a schema is taken in. `costs`: whether a single rule may
    /// be too expensive. `place`: where the schema stands, for texts that name places in it.
    pub fn check_rules(&self, costs: bool, place: &str) -> Vec<FieldError> {
        rules::check(&self.whole.root, costs, place)
    }

    pub(crate) fn root(&self) -> &Arc<Node> {
        &self.whole.root
    }

    /// The root with `metadata` as it is for every kind: CRDs leave it out, or say only that it is an object.
    pub(crate) fn with_metadata(&self) -> &Arc<Node> {
        const METADATA: &str = "metadata";
        let root = &self.whole.root;
        if root.property(METADATA).is_some_and(|metadata| metadata.name.is_some()) {
            return root;
        }
        self.whole.with_metadata.get_or_init(|| {
            let others = root.properties.iter().filter(|(name, _)| **name != *METADATA).cloned();
            let mut properties: Vec<_> = others.chain([(METADATA.into(), object_meta())]).collect();
            properties.sort_by(|(a, _), (b, _)| a.cmp(b));
            Arc::new(Node { properties: properties.into(), ..Node::clone(root) })
        })
    }

    pub(crate) fn of(root: Arc<Node>) -> Self {
        Self { whole: Arc::new(Whole { root, with_metadata: OnceLock::new(), rules: OnceLock::new() }) }
    }
}

/// The schema of a built-in kind; made when first asked for, and kept for the process.
pub fn builtin(group: &str, version: &str, kind: &str) -> Option<Arc<Schema>> {
    builtin::find(group, version, kind)
}

/// The definition of that name, if a schema that was made uses it.
pub(crate) fn definition(name: &str) -> Option<Arc<Node>> {
    builtin::definition(name)
}

/// The schema of `metadata`, which every kind has.
/// What every kind says of its `apiVersion`, `kind` and `metadata`.
pub(crate) fn own_text(field: &str) -> Option<&'static str> {
    builtin::own_text(field)
}

pub(crate) fn object_meta() -> Arc<Node> {
    builtin::object_meta()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

impl Type {
    pub const ALL: [Self; 6] = [Self::Array, Self::Boolean, Self::Integer, Self::Number, Self::Object, Self::String];

    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// How a list is merged (`x-kubernetes-list-type`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum List {
    /// As one value, which is also what an unmarked list is.
    #[default]
    Atomic,
    Set,
    /// By the values of these fields.
    Map(Box<[Box<str>]>),
}

/// Fields that `properties` does not name.
#[derive(Clone, Debug, Default)]
pub(crate) enum Additional {
    #[default]
    None,
    /// `additionalProperties: true`.
    Any,
    Of(Arc<Node>),
}

/// One place of a schema.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// The definition of a built-in kind that this is (`io.k8s.api.core.v1.PodSpec`); documents refer to it.
    pub name: Option<Arc<str>>,
    pub type_: Option<Type>,
    pub nullable: bool,
    pub preserve_unknown: bool,
    pub int_or_string: bool,
    pub embedded: bool,
    /// A resource.Quantity: a number is taken as well, and kept as text.
    pub quantity: bool,
    /// `x-kubernetes-map-type: atomic`.
    pub atomic_map: bool,
    /// Whether `x-kubernetes-list-type` was written out.
    pub list_said: bool,
    pub list: List,
    /// Sorted by name.
    pub properties: Arc<[(Box<str>, Arc<Node>)]>,
    pub additional: Additional,
    pub items: Option<Arc<Node>>,
    pub default: Option<Value>,
    pub checks: Option<Arc<Checks>>,
    pub texts: Option<Arc<Texts>>,
    pub rules: Arc<[rules::Rule]>,
    pub patch: Option<Box<Patch>>,
}

impl Node {
    pub fn property(&self, name: &str) -> Option<&Arc<Self>> {
        let at = self.properties.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
        self.properties.get(at).map(|(_, node)| node)
    }

    /// The schema of a field, named or not.
    pub fn field(&self, name: &str) -> Option<&Arc<Self>> {
        self.property(name).or(match &self.additional {
            Additional::Of(node) => Some(node),
            Additional::None | Additional::Any => None,
        })
    }
}

/// What is published of a node, but not checked.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub description: Option<Box<str>>,
    /// Every other keyword that is carried along: title, example, externalDocs, `x-kubernetes-validations`.
    pub others: Vec<(Box<str>, Value)>,
}

/// How `application/strategic-merge-patch+json` merges a list of a built-in kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Patch {
    pub merge: bool,
    pub retain_keys: bool,
    pub replace: bool,
    pub key: Option<Box<str>>,
}

/// The restrictions of a value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checks {
    pub format: Option<Box<str>>,
    pub pattern: Option<Pattern>,
    pub minimum: Option<f64>,
    pub maximum: Option<f64>,
    pub exclusive_minimum: bool,
    pub exclusive_maximum: bool,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique_items: bool,
    pub min_properties: Option<u64>,
    pub max_properties: Option<u64>,
    pub one_of_values: Option<Box<[Value]>>,
    pub required: Box<[Box<str>]>,
    pub all_of: Box<[Node]>,
    pub any_of: Box<[Node]>,
    pub one_of: Box<[Node]>,
    pub not: Option<Box<Node>>,
}

impl Checks {
    pub(super) fn is_empty(&self) -> bool {
        self.format.is_none()
            && self.pattern.is_none()
            && [self.minimum, self.maximum, self.multiple_of].iter().all(Option::is_none)
            && [self.min_length, self.max_length, self.min_items, self.max_items].iter().all(Option::is_none)
            && [self.min_properties, self.max_properties].iter().all(Option::is_none)
            && !(self.unique_items || self.exclusive_maximum || self.exclusive_minimum)
            && self.one_of_values.is_none()
            && self.required.is_empty()
            && self.all_of.is_empty()
            && self.any_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
    }
}
