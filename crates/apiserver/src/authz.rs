//! Whether somebody may do something: authorizers asked one after the other, with RBAC as the last of them (upstream:
//! `apiserver/pkg/authorization/union`, `authorizerfactory`).

use async_trait::async_trait;
use policy::{
    User,
    rbac::{Attributes, Decision},
};

use crate::{
    path::{Query, Resource, Verb},
    server::Server,
    status::{Error, Result},
};

pub(crate) mod chain;
pub(crate) mod node;
pub(crate) mod restriction;
mod webhook;

use self::chain::Step;
pub use self::chain::{Authorization, AuthorizationError};

/// What is asked of an authorizer.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub user: &'a User,
    pub wanted: Attributes<'a>,
    /// Of the resource's API; empty: none.
    pub version: &'a str,
    /// Of a list, a watch or a deletion of many; empty: none.
    pub field_selector: &'a str,
}

/// What an authorizer says, with its reason; that of a refusal is shown to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow(String),
    /// Nobody else is asked.
    Deny(String),
    /// The next one decides; if none does, the request is refused with all reasons.
    NoOpinion(String),
}

/// One of those that decide; asked in the order of `Options::authorizers`, before the node authorizer and RBAC.
/// Members of `system:masters` are never asked about.
#[async_trait]
pub trait Authorizer: Send + Sync {
    async fn authorize(&self, question: &Question<'_>) -> Verdict;
}

/// Asks everybody, until one decides.
pub(crate) async fn decide(server: &Server, question: &Question<'_>) -> Verdict {
    if question.user.is_master() {
        return Verdict::Allow(String::new());
    }
    let mut reasons: Vec<String> = Vec::new();
    let options = &server.state().options;
    for authorizer in &options.authorizers {
        match authorizer.authorize(question).await {
            Verdict::NoOpinion(why) => reasons.extend((!why.is_empty()).then_some(why)),
            decided => return decided,
        }
    }
    let usual = if options.node_authorizer { &[Step::Node, Step::Rbac][..] } else { &[Step::Rbac] };
    let configured = options.authorization.as_ref().map(|authorization| authorization.steps());
    for step in configured.as_ref().map_or(usual, |steps| &steps[..]) {
        match ask_one(server, step, question).await {
            Verdict::NoOpinion(why) => reasons.extend((!why.is_empty()).then_some(why)),
            decided => return decided,
        }
    }
    Verdict::NoOpinion(reasons.join(", "))
}

async fn ask_one(server: &Server, step: &Step, question: &Question<'_>) -> Verdict {
    match step {
        Step::AlwaysAllow => Verdict::Allow(String::new()),
        Step::AlwaysDeny => Verdict::NoOpinion("Everything is forbidden.".to_owned()),
        Step::Node if node::is_node(question.user) => node::authorize(server, question).await,
        Step::Node => Verdict::NoOpinion(String::new()),
        Step::Rbac => {
            let access = server.state().access.read();
            match access.rbac.authorize(question.user, &question.wanted) {
                Decision::Allowed(why) => Verdict::Allow(why),
                Decision::NoOpinion => {
                    let namespace = match question.wanted {
                        Attributes::Resource { namespace, .. } => namespace,
                        Attributes::Path { .. } => "",
                    };
                    Verdict::NoOpinion(access.rbac.missing_roles(question.user, namespace))
                }
            }
        }
        Step::Webhook(webhook) => webhook.authorize(question).await,
    }
}

/// Whether there are webhooks, which nobody can ask for all that somebody may do.
pub(crate) fn asks_webhooks(server: &Server) -> bool {
    let configured = server.state().options.authorization.as_ref();
    configured.is_some_and(|a| a.steps().iter().any(|step| matches!(step, Step::Webhook(_))))
}

/// Whether anybody beside the cluster's own roles has a say.
pub(crate) fn asks_others(server: &Server) -> bool {
    let options = &server.state().options;
    let configured = options.authorization.as_ref().map(|authorization| authorization.asks_others());
    !options.authorizers.is_empty() || configured.unwrap_or(options.node_authorizer)
}

/// The same as a yes or a no with its reason.
async fn ask(server: &Server, question: &Question<'_>) -> Result<(), String> {
    match decide(server, question).await {
        Verdict::Allow(_) => Ok(()),
        Verdict::Deny(why) | Verdict::NoOpinion(why) => Err(why),
    }
}

pub(crate) async fn is_allowed(server: &Server, user: &User, wanted: Attributes<'_>) -> bool {
    ask(server, &Question { user, wanted, version: "", field_selector: "" }).await.is_ok()
}

fn with_reason(mut text: String, why: &str) -> String {
    if !why.is_empty() {
        text.push_str(": ");
        text.push_str(why);
    }
    text
}

/// A request for no resource.
pub(crate) async fn path(server: &Server, user: &User, verb: &str, path: &str) -> Result<()> {
    let wanted = Attributes::Path { verb, path };
    ask(server, &Question { user, wanted, version: "", field_selector: "" }).await.map_err(|why| {
        let text = format!("User \"{}\" cannot {verb} path \"{path}\"", user.name);
        Error::forbidden("", "", "", with_reason(text, &why))
    })
}

/// A request for a resource.
pub(crate) async fn resource(server: &Server, user: &User, verb: Verb, target: &Resource, query: &Query) -> Result<()> {
    // A list that asks for one name needs the right to that name alone.
    let mut name = target.name.clone();
    let many = matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
    let field_selector = if many { query.text("fieldSelector").unwrap_or_default() } else { "" };
    if name.is_empty() && many {
        let fields = crate::selector::Fields::parse(field_selector, &[]);
        name = fields.ok().and_then(|f| f.name().map(str::to_owned)).unwrap_or_default();
    }
    let wanted = Attributes::Resource {
        verb: verb.as_str(),
        group: &target.group,
        resource: &target.resource,
        subresource: &target.subresource,
        namespace: &target.namespace,
        name: &name,
    };
    let Err(reason) = ask(server, &Question { user, wanted, version: &target.version, field_selector }).await else {
        return Ok(());
    };
    let mut resource = target.resource.clone();
    if !target.subresource.is_empty() {
        resource = format!("{resource}/{}", target.subresource);
    }
    let mut why = format!(
        "User \"{}\" cannot {} resource \"{resource}\" in API group \"{}\"",
        user.name,
        verb.as_str(),
        target.group
    );
    if target.namespace.is_empty() {
        why.push_str(" at the cluster scope");
    } else {
        why.push_str(&format!(" in the namespace \"{}\"", target.namespace));
    }
    Err(Error::forbidden(&target.group, &target.resource, &name, with_reason(why, &reason)))
}
