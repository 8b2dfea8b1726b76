//! Which requests webhooks and policies are about: rules, selectors, and the other versions of the same objects
//! (`apiserver/pkg/admission/plugin/webhook/predicates`, `plugin/policy/matching`).

use std::{borrow::Cow, sync::Arc};

use serde_json::Value;
use tokio::sync::OnceCell;

use super::{Operation, Request};
use crate::{
    convert,
    kinds::{Kind, ROOT},
    object::{self, at, text_at},
    rest::scale_view,
    selector::Labels,
    server::Server,
    status::{Error, Result},
    write,
};

/// A request that goes through admission.
pub(crate) struct Subject<'a> {
    pub server: &'a Server,
    pub kind: &'a Arc<Kind>,
    pub request: &'a Request,
    /// What stands, as admission sees it.
    pub old: Option<Cow<'a, Value>>,
    /// The namespace that the request is in, read when first asked for.
    namespace: OnceCell<Value>,
}

impl<'a> Subject<'a> {
    pub fn new(server: &'a Server, kind: &'a Arc<Kind>, request: &'a Request) -> Self {
        let old = request.old.as_deref().map(|old| match (&kind.scale, request.subresource.as_str()) {
            (Some(paths), "scale") => Cow::Owned(scale_view(paths, old)),
            _ => Cow::Borrowed(old),
        });
        Self { server, kind, request, old, namespace: OnceCell::new() }
    }

    /// Of a namespace, it is in itself.
    pub fn namespace_name(&self) -> &str {
        if self.kind.is_namespace() { &self.request.name } else { &self.request.namespace }
    }

    /// The namespace of the request, which must have one.
    pub async fn namespace(&self) -> Result<&Value> {
        self.namespace.get_or_try_init(|| self.read_namespace()).await
    }

    async fn read_namespace(&self) -> Result<Value> {
        let name = self.namespace_name();
        let found = write::get(self.server, format!("{ROOT}core/namespaces/{name}")).await?;
        object::decode_kv(&found.ok_or_else(|| Error::not_found("", "namespaces", name))?)
    }

    /// A refusal of the request.
    pub fn forbidden(&self, object: Option<&Value>, why: impl std::fmt::Display) -> Error {
        let made = |key: &str| object.map(|object| object::meta_str(object, key)).unwrap_or_default();
        let name = [self.request.name.as_str(), made("name"), made("generateName"), "Unknown"];
        let name = name.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        Error::forbidden(&self.request.group, &self.request.resource, name, why)
    }

    /// An object of the request in another version of its kind.
    pub async fn in_version(&self, to: &Arc<Kind>, object: &Value) -> Result<Value> {
        convert::between(self.kind, to, object.clone()).await
    }

    /// The same of one that may not be there.
    pub async fn any_in_version(&self, to: &Arc<Kind>, object: Option<&Value>) -> Result<Option<Value>> {
        match object {
            Some(object) => self.in_version(to, object).await.map(Some),
            None => Ok(None),
        }
    }

    /// And back.
    pub async fn back_from(&self, of: &Arc<Kind>, object: Value) -> Result<Value> {
        convert::between(of, self.kind, object).await
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Cluster,
    Namespaced,
    All,
}

/// Operations on resources.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With the subresource, or without one.
    resources: Vec<(String, String)>,
    scope: Scope,
    /// If any, only objects of these names.
    names: Vec<String>,
}

pub(crate) fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let split = |resource: String| match resource.split_once('/') {
            Some((resource, sub)) => (resource.to_owned(), sub.to_owned()),
            None => (resource, String::new()),
        };
        Self {
            operations: texts(rule.get("operations")),
            groups: texts(rule.get("apiGroups")),
            versions: texts(rule.get("apiVersions")),
            resources: texts(rule.get("resources")).into_iter().map(split).collect(),
            scope: match text_at(rule, &["scope"]) {
                "Cluster" => Scope::Cluster,
                "Namespaced" => Scope::Namespaced,
                _ => Scope::All,
            },
            names: texts(rule.get("resourceNames")),
        }
    }

    fn covers(&self, request: &Request, kind: &Kind) -> bool {
        let any = |list: &[String], wanted: &str| list.iter().any(|own| own == "*" || own == wanted);
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => !request.namespace.is_empty(),
            Scope::Cluster => request.namespace.is_empty(),
        };
        let part = |own: &str, wanted: &str| own == "*" || own == wanted;
        scope
            && any(&self.operations, request.operation.as_str())
            && any(&self.groups, &kind.group)
            && any(&self.versions, &kind.version)
            && self.resources.iter().any(|(own, sub)| part(own, &kind.plural) && part(sub, &request.subresource))
            && (self.names.is_empty() || self.names.contains(&request.name))
    }
}

/// What must hold of a request.
#[derive(Debug)]
pub(crate) struct Constraints {
    /// Requests for other versions count as well.
    equivalent: bool,
    namespaces: Result<Labels, String>,
    objects: Result<Labels, String>,
    /// None: all there are.
    rules: Option<Vec<Rule>>,
    exclude: Vec<Rule>,
}

impl Constraints {
    /// Of a webhook.
    pub fn of_webhook(hook: &Value) -> Self {
        let rules = hook.get("rules").and_then(Value::as_array).into_iter().flatten();
        Self { rules: Some(rules.map(Rule::read).collect()), ..Self::of_policy(Some(hook)) }
    }

    /// The `matchConstraints` of a policy, or the `matchResources` of a binding.
    pub fn of_policy(resources: Option<&Value>) -> Self {
        let resources = resources.unwrap_or(&Value::Null);
        let labels = |key: &str| {
            let selector = resources.get(key).filter(|selector| !selector.is_null());
            selector.map_or_else(|| Ok(Labels::default()), Labels::from_value).map_err(|error| error.to_string())
        };
        let rules = |key: &str| -> Vec<Rule> {
            resources.get(key).and_then(Value::as_array).into_iter().flatten().map(Rule::read).collect()
        };
        Self {
            equivalent: text_at(resources, &["matchPolicy"]) != "Exact",
            namespaces: labels("namespaceSelector"),
            objects: labels("objectSelector"),
            rules: Some(rules("resourceRules")).filter(|rules| !rules.is_empty()),
            exclude: rules("excludeResourceRules"),
        }
    }

    /// The kind, in the version that is asked for, if the request is one of those.
    pub async fn matches(&self, subject: &Subject<'_>, object: Option<&Value>) -> Result<Option<Arc<Kind>>> {
        // What costs nothing comes first.
        let Some(found) = self.rule(subject) else { return Ok(None) };
        if !self.object(subject, object)? {
            return Ok(None);
        }
        Ok(self.namespace(subject, object).await?.then_some(found))
    }

    fn rule(&self, subject: &Subject<'_>) -> Option<Arc<Kind>> {
        if covering(&self.exclude, subject, self.equivalent).is_some() {
            return None;
        }
        match &self.rules {
            None => Some(Arc::clone(subject.kind)),
            Some(rules) => covering(rules, subject, self.equivalent),
        }
    }

    fn object(&self, subject: &Subject<'_>, object: Option<&Value>) -> Result<bool> {
        let selector = self.objects.as_ref().map_err(Error::internal)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let holds = |object: &Value| matches_labels(selector, object);
        Ok(object.is_some_and(holds) || subject.old.as_deref().is_some_and(holds))
    }

    async fn namespace(&self, subject: &Subject<'_>, object: Option<&Value>) -> Result<bool> {
        let is_namespace = subject.kind.is_namespace();
        if subject.namespace_name().is_empty() && !is_namespace {
            return Ok(true);
        }
        let selector = self.namespaces.as_ref().map_err(Error::internal)?;
        if selector.is_empty() {
            return Ok(true);
        }
        let request = subject.request;
        if is_namespace
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
        {
            return Ok(object.is_some_and(|object| matches_labels(selector, object)));
        }
        Ok(matches_labels(selector, subject.namespace().await?))
    }
}

fn covering(rules: &[Rule], subject: &Subject<'_>, equivalent: bool) -> Option<Arc<Kind>> {
    if rules.iter().any(|rule| rule.covers(subject.request, subject.kind)) {
        return Some(Arc::clone(subject.kind));
    }
    if !equivalent || rules.is_empty() {
        return None;
    }
    let others = subject.server.catalog().equivalents(subject.kind);
    rules.iter().find_map(|rule| others.iter().find(|other| rule.covers(subject.request, other)).map(Arc::clone))
}

pub(crate) fn matches_labels(selector: &Labels, object: &Value) -> bool {
    let labels = at(object, &["metadata", "labels"]);
    selector.matches(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
}
