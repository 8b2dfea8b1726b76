//! The authorizer of admission policies: expressions build a question and ask it
//! (`k8s.io/apiserver/pkg/cel/library/authz.go`). Who answers is a trait, for this crate keeps no roles.

use std::{fmt, sync::Arc};

use super::{
    eval::Fault,
    functions::{Function, Result},
    value::{Opaque, Text, Value},
};
use crate::rbac::{Attributes, Decision};

pub(super) const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub(super) const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub(super) const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub(super) const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub(super) const DECISION: &str = "kubernetes.authorization.Decision";

/// Answers what expressions ask of `authorizer`.
pub trait Authorize: fmt::Debug + Send + Sync {
    /// On behalf of whoever makes the request, or of a service account (namespace, name).
    fn check(&self, account: Option<(&str, &str)>, wanted: &Attributes<'_>) -> Decision;
}

/// A question as far as it is put, or its answer.
#[derive(Clone, Debug)]
pub struct Question {
    by: Arc<dyn Authorize>,
    account: Option<Arc<(String, String)>>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Authorizer,
    Path(Arc<str>),
    Group(Arc<str>),
    Resource(Arc<Resource>),
    Decided(Arc<Decision>),
}

#[derive(Clone, Debug, Default)]
struct Resource {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

impl Question {
    fn with(&self, stage: Stage) -> Value<'static> {
        Value::Opaque(Opaque::Question(Arc::new(Self {
            by: Arc::clone(&self.by),
            account: self.account.clone(),
            stage,
        })))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.stage {
            Stage::Authorizer => AUTHORIZER,
            Stage::Path(_) => PATH_CHECK,
            Stage::Group(_) => GROUP_CHECK,
            Stage::Resource(_) => RESOURCE_CHECK,
            Stage::Decided(_) => DECISION,
        }
    }

    fn ask(&self, verb: &str) -> Result<Decision> {
        let account = self.account.as_ref().map(|account| (account.0.as_str(), account.1.as_str()));
        let wanted = match &self.stage {
            Stage::Path(path) => Attributes::Path { verb, path },
            Stage::Resource(of) => Attributes::Resource {
                verb,
                group: &of.group,
                resource: &of.resource,
                subresource: &of.subresource,
                namespace: &of.namespace,
                name: &of.name,
            },
            _ => return Err(Fault::overload()),
        };
        Ok(self.by.check(account, &wanted))
    }
}

/// The variable `authorizer`.
pub fn authorizer(by: &Arc<dyn Authorize>) -> Value<'static> {
    let question = Question { by: Arc::clone(by), account: None, stage: Stage::Authorizer };
    Value::Opaque(Opaque::Question(Arc::new(question)))
}

/// The variable `authorizer.requestResource`: a question that lacks its verb only.
pub fn resource_check(by: &Arc<dyn Authorize>, attributes: &Attributes<'_>) -> Value<'static> {
    let own = str::to_owned;
    let resource = match *attributes {
        Attributes::Resource { group, resource, subresource, namespace, name, .. } => Resource {
            group: own(group),
            resource: own(resource),
            subresource: own(subresource),
            namespace: own(namespace),
            name: own(name),
        },
        Attributes::Path { .. } => Resource::default(),
    };
    let question = Question { by: Arc::clone(by), account: None, stage: Stage::Resource(Arc::new(resource)) };
    Value::Opaque(Opaque::Question(Arc::new(question)))
}

fn asked<'a, 'v>(args: &'a [Value<'v>]) -> Result<(&'a Question, Vec<&'a str>)> {
    let [Value::Opaque(Opaque::Question(question)), rest @ ..] = args else { return Err(Fault::overload()) };
    let texts = rest.iter().map(|arg| match arg {
        Value::String(text) => Ok(text.as_str()),
        _ => Err(Fault::overload()),
    });
    Ok((question, texts.collect::<Result<_>>()?))
}

fn of_resource<'v>(args: &[Value<'v>], set: fn(&mut Resource, &str)) -> Result<Value<'v>> {
    let (question, texts) = asked(args)?;
    let (Stage::Resource(resource), [text]) = (&question.stage, &texts[..]) else { return Err(Fault::overload()) };
    let mut resource = Resource::clone(resource);
    set(&mut resource, text);
    Ok(question.with(Stage::Resource(Arc::new(resource))))
}

fn decided<'v>(args: &[Value<'v>], of: fn(&Decision) -> Value<'static>) -> Result<Value<'v>> {
    match asked(args)? {
        (Question { stage: Stage::Decided(decision), .. }, _) => Ok(of(decision)),
        _ => Err(Fault::overload()),
    }
}

pub(super) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "path" => |_, args| match asked(args)? {
            (question @ Question { stage: Stage::Authorizer, .. }, texts) => match &texts[..] {
                [path] if path.trim().is_empty() => Err(Fault::failed("path must not be empty")),
                [path] => Ok(question.with(Stage::Path((*path).into()))),
                _ => Err(Fault::overload()),
            },
            _ => Err(Fault::overload()),
        },
        "group" => |_, args| match asked(args)? {
            (question @ Question { stage: Stage::Authorizer, .. }, texts) => match &texts[..] {
                [group] => Ok(question.with(Stage::Group((*group).into()))),
                _ => Err(Fault::overload()),
            },
            _ => Err(Fault::overload()),
        },
        "serviceAccount" => |_, args| {
            let (question, texts) = asked(args)?;
            let (Stage::Authorizer, [namespace, name]) = (&question.stage, &texts[..]) else {
                return Err(Fault::overload());
            };
            for (text, what) in [(name, "name"), (namespace, "namespace")] {
                if text.is_empty() {
                    return Err(Fault::failed(format!("Invalid service account {what}")));
                }
            }
            let account = Some(Arc::new(((*namespace).to_owned(), (*name).to_owned())));
            let question = Question { account, ..question.clone() };
            Ok(Value::Opaque(Opaque::Question(Arc::new(question))))
        },
        "resource" => |_, args| {
            let (question, texts) = asked(args)?;
            let (Stage::Group(group), [resource]) = (&question.stage, &texts[..]) else {
                return Err(Fault::overload());
            };
            if resource.trim().is_empty() {
                return Err(Fault::failed("resource must not be empty"));
            }
            let resource =
                Resource { group: group.to_string(), resource: (*resource).to_owned(), ..Resource::default() };
            Ok(question.with(Stage::Resource(Arc::new(resource))))
        },
        "subresource" => |_, args| of_resource(args, |resource, text| text.clone_into(&mut resource.subresource)),
        "namespace" => |_, args| of_resource(args, |resource, text| text.clone_into(&mut resource.namespace)),
        "name" => |_, args| of_resource(args, |resource, text| text.clone_into(&mut resource.name)),
        // Roles say nothing of selectors.
        "fieldSelector" | "labelSelector" => |_, args| of_resource(args, |_, _| {}),
        "check" => |meter, args| {
            meter.work(1000)?;
            let (question, texts) = asked(args)?;
            let [verb] = &texts[..] else { return Err(Fault::overload()) };
            let decision = question.ask(verb)?;
            Ok(question.with(Stage::Decided(Arc::new(decision))))
        },
        "allowed" => |_, args| decided(args, |decision| Value::Bool(decision.is_allowed())),
        "reason" => |_, args| {
            decided(args, |decision| match decision {
                Decision::Allowed(why) => Value::text(Text::from(why.clone())),
                Decision::NoOpinion => Value::text(""),
            })
        },
        // A decision from roles that are at hand cannot fail.
        "errored" => |_, args| decided(args, |_| Value::Bool(false)),
        "error" => |_, args| decided(args, |_| Value::text("")),
        _ => return None,
    })
}
