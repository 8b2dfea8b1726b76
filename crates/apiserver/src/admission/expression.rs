//! Expressions of webhooks and policies: what they may speak of, and how they are evaluated
//! (`apiserver/pkg/admission/plugin/cel`).

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::{Arc, LazyLock},
};

use parking_lot::Mutex;
use policy::{
    User,
    cel::{
        Authorize, Budget, CALL_COST_MAX, CALL_WORK_MAX, Decl, DeclKind, Fault, Merge, Program, Type, Value as Cel,
        Variables,
    },
    rbac::{Attributes, Decision},
};
use serde_json::{Value, json};

use super::{Request, matching::Subject};
use crate::{authz, kinds::Kind, server::Server};

/// What the conditions of a webhook or a policy may cost together (`RuntimeCELCostBudgetMatchConditions`).
const CONDITIONS_COST_MAX: u64 = 2_500_000;
/// What the expressions of a policy may cost together for one request (`RuntimeCELCostBudget`).
pub(crate) const POLICY_COST_MAX: u64 = 10_000_000;

pub(crate) const OVER_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// Something that an expression may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Object,
    OldObject,
    Namespace,
    Request,
    Params,
    Authorizer,
    ResourceAuthorizer,
    /// An expression with a name.
    Variable(usize),
    /// The container of those; there is nothing else in it.
    Variables,
}

/// What the expressions of one place may speak of.
#[derive(Debug)]
pub(crate) struct Scope {
    names: Vec<Name>,
    declared: Vec<(String, Type)>,
    /// Whether they make patches.
    patches: bool,
}

fn fields(list: &[(&str, Decl)]) -> Decl {
    Decl::object(list.iter().map(|(name, decl)| (Box::from(*name), Arc::new(decl.clone()))), 2)
}

fn text() -> Decl {
    Decl::string(None)
}

fn list(of: Decl) -> Decl {
    Decl::list(Arc::new(of), None, Merge::Atomic)
}

static ANYTHING: LazyLock<Decl> = LazyLock::new(Decl::any);

static REQUEST: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let kind = fields(&[("group", text()), ("version", text()), ("kind", text())]);
    let resource = fields(&[("group", text()), ("version", text()), ("resource", text())]);
    let user = fields(&[
        ("username", text()),
        ("uid", text()),
        ("groups", list(text())),
        ("extra", Decl::map(Arc::new(list(text())), None)),
    ]);
    Arc::new(fields(&[
        ("kind", kind.clone()),
        ("resource", resource.clone()),
        ("subResource", text()),
        ("requestKind", kind),
        ("requestResource", resource),
        ("requestSubResource", text()),
        ("name", text()),
        ("namespace", text()),
        ("operation", text()),
        ("userInfo", user),
        ("dryRun", Decl::bool()),
        ("options", Decl::any()),
    ]))
});

static NAMESPACE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
    let time = || Decl::new(DeclKind::DateTime, 32, 21);
    let texts = || Decl::map(Arc::new(text()), None);
    let condition = fields(&[
        ("status", text()),
        ("type", text()),
        ("lastTransitionTime", time()),
        ("message", text()),
        ("reason", text()),
    ]);
    let metadata = fields(&[
        ("name", text()),
        ("generateName", text()),
        ("namespace", text()),
        ("labels", texts()),
        ("annotations", texts()),
        ("UID", text()),
        ("creationTimestamp", time()),
        ("deletionGracePeriodSeconds", Decl::int()),
        ("deletionTimestamp", time()),
        ("generation", Decl::int()),
        ("resourceVersion", text()),
        ("finalizers", list(text())),
    ]);
    Arc::new(fields(&[
        ("metadata", metadata),
        ("spec", fields(&[("finalizers", list(text()))])),
        ("status", fields(&[("conditions", list(condition)), ("phase", text())])),
    ]))
});

impl Scope {
    pub fn new(params: bool, authorizer: bool, patches: bool) -> Self {
        let mut scope = Self { names: Vec::new(), declared: Vec::new(), patches };
        scope.add(Name::Object, "object", Type::Dyn);
        scope.add(Name::OldObject, "oldObject", Type::Dyn);
        scope.add(Name::Namespace, "namespaceObject", Type::of(&NAMESPACE));
        scope.add(Name::Request, "request", Type::of(&REQUEST));
        if params {
            scope.add(Name::Params, "params", Type::Dyn);
        }
        if authorizer {
            scope.add(Name::Authorizer, "authorizer", Type::AUTHORIZER);
            scope.add(Name::ResourceAuthorizer, "authorizer.requestResource", Type::RESOURCE_CHECK);
        }
        scope
    }

    fn add(&mut self, name: Name, shown: &str, type_: Type) {
        self.names.push(name);
        self.declared.push((shown.to_owned(), type_));
    }

    /// The same with expressions that have a name.
    pub fn with_variables(mut self, variables: &[Variable]) -> Self {
        for (at, variable) in variables.iter().enumerate() {
            // Of two with the same name the last one counts.
            if variables.iter().skip(at + 1).any(|later| later.name == variable.name) {
                continue;
            }
            let type_ = variable.expression.program.as_ref().map_or(Type::Dyn, |program| program.output().clone());
            let type_ = match type_ {
                Type::Object(_) | Type::Opaque(_) | Type::Optional(_) | Type::Message(_) | Type::Type(_) => Type::Dyn,
                other => other,
            };
            self.add(Name::Variable(at), &format!("variables.{}", variable.name), type_);
        }
        self.add(Name::Variables, "variables", Type::of(&Arc::new(fields(&[]))));
        self
    }
}

/// An expression, compiled, or why it is not.
#[derive(Debug)]
pub(crate) struct Expression {
    pub source: String,
    pub program: Result<Program, String>,
    names: Vec<Name>,
}

impl Expression {
    /// `outputs`: the types that it may come to; any if there are none.
    pub fn compile(source: &str, scope: &Scope, outputs: &[&str]) -> Self {
        let declared: Vec<(&str, Type)> =
            scope.declared.iter().map(|(name, type_)| (name.as_str(), type_.clone())).collect();
        let compiled = match scope.patches {
            true => Program::compile_patch(source, &declared),
            false => Program::compile(source, &declared),
        };
        let compiled = compiled.map_err(|error| format!("compilation failed: {error}"));
        let program = compiled.and_then(|program| {
            let found = program.output().to_string();
            match outputs {
                [] => Ok(program),
                outputs if outputs.contains(&found.as_str()) => Ok(program),
                [wanted] => Err(format!("must evaluate to {} but got {}", shown_type(wanted), shown_type(&found))),
                several => {
                    let several: Vec<&str> = several.iter().map(|wanted| shown_type(wanted)).collect();
                    Err(format!("must evaluate to one of [{}] but got {}", several.join(" "), shown_type(&found)))
                }
            }
        });
        Self { source: source.to_owned(), program, names: scope.names.clone() }
    }
}

/// As cel-go prints types.
fn shown_type(name: &str) -> &str {
    match name {
        "null" => "null_type",
        other => other,
    }
}

/// An expression with a name.
#[derive(Debug)]
pub(crate) struct Variable {
    pub name: String,
    pub expression: Expression,
}

/// What the expressions of one request speak of.
pub(crate) struct Facts {
    pub object: Value,
    pub old: Value,
    pub namespace: Value,
    pub request: Value,
    pub params: Value,
    pub authorizer: Authorizer,
}

/// Questions of one evaluation that others than the cluster's own roles are asked; to further ones the answer is no.
const QUESTIONS_MAX: usize = 64;

impl Facts {
    /// What an evaluation comes to once all that it asks of `authorizer` is answered: it is made again until it asks nothing new.
    pub async fn settled<T>(&self, evaluate: impl Fn(&Self) -> T) -> T {
        loop {
            let found = evaluate(self);
            if !self.authorizer.by.answer().await {
                return found;
            }
        }
    }
}

/// Those that decide on requests, asked by an expression.
#[derive(Clone)]
pub(crate) struct Authorizer {
    by: Arc<Deciders>,
    request: Request,
}

/// Roles answer at once; where others have a say a question waits until they are asked, and counts as refused until then.
struct Deciders {
    server: Server,
    user: User,
    answers: Mutex<HashMap<Asked, Option<Decision>>>,
}

/// A question, kept: the account that it is about, if that is not whoever makes the request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    account: Option<(String, String)>,
    wanted: Wanted,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// Verb, group, resource, subresource, namespace, name.
    Resource([String; 6]),
    Path {
        verb: String,
        path: String,
    },
}

impl Wanted {
    fn of(wanted: &Attributes<'_>) -> Self {
        match *wanted {
            Attributes::Resource { verb, group, resource, subresource, namespace, name } => {
                Self::Resource([verb, group, resource, subresource, namespace, name].map(str::to_owned))
            }
            Attributes::Path { verb, path } => Self::Path { verb: verb.to_owned(), path: path.to_owned() },
        }
    }

    fn attributes(&self) -> Attributes<'_> {
        match self {
            Self::Resource([verb, group, resource, subresource, namespace, name]) => {
                Attributes::Resource { verb, group, resource, subresource, namespace, name }
            }
            Self::Path { verb, path } => Attributes::Path { verb, path },
        }
    }
}

impl std::fmt::Debug for Deciders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.user.name.fmt(f)
    }
}

impl Authorize for Deciders {
    fn check(&self, account: Option<(&str, &str)>, wanted: &Attributes<'_>) -> Decision {
        let account_user = account.map(|(namespace, name)| User::service_account(namespace, name, ""));
        if !authz::asks_others(&self.server) {
            let access = self.server.state().access.read();
            return access.rbac.authorize(account_user.as_ref().unwrap_or(&self.user), wanted);
        }
        let account = account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let asked = Asked { account, wanted: Wanted::of(wanted) };
        let mut answers = self.answers.lock();
        match answers.get(&asked) {
            Some(Some(answer)) => return answer.clone(),
            Some(None) => {}
            None if answers.len() < QUESTIONS_MAX => drop(answers.insert(asked, None)),
            None => tracing::warn!("an expression asks the authorizer more than {QUESTIONS_MAX} questions"),
        }
        Decision::NoOpinion
    }
}

impl Deciders {
    /// Asks what is not answered yet; whether there was anything.
    async fn answer(&self) -> bool {
        let open: Vec<Asked> = {
            let answers = self.answers.lock();
            answers.iter().filter(|(_, answer)| answer.is_none()).map(|(asked, _)| asked.clone()).collect()
        };
        for asked in &open {
            let account = asked.account.as_ref().map(|(namespace, name)| User::service_account(namespace, name, ""));
            let user = account.as_ref().unwrap_or(&self.user);
            let question = authz::Question { user, wanted: asked.wanted.attributes(), version: "", field_selector: "" };
            let decision = match authz::decide(&self.server, &question).await {
                authz::Verdict::Allow(why) => Decision::Allowed(why),
                authz::Verdict::Deny(_) | authz::Verdict::NoOpinion(_) => Decision::NoOpinion,
            };
            self.answers.lock().insert(asked.clone(), Some(decision));
        }
        !open.is_empty()
    }
}

impl Authorizer {
    pub fn new(server: &Server, request: &Request) -> Self {
        let (server, user) = (server.clone(), request.user.clone());
        Self { by: Arc::new(Deciders { server, user, answers: Mutex::default() }), request: request.clone() }
    }

    fn asked(&self) -> Arc<dyn Authorize> {
        Arc::<Deciders>::clone(&self.by)
    }

    fn resource(&self) -> Cel<'static> {
        let request = &self.request;
        let wanted = Attributes::Resource {
            verb: "",
            group: &request.group,
            resource: &request.resource,
            subresource: &request.subresource,
            namespace: &request.namespace,
            name: &request.name,
        };
        policy::cel::resource_check(&self.asked(), &wanted)
    }
}

/// The request as expressions and webhooks see it. `matched`: the kind in the version that they want.
pub(crate) fn request_value(subject: &Subject<'_>, matched: &Kind) -> Value {
    let request = subject.request;
    let kind = |kind: &Kind| {
        let (group, version, kind) = body_kind(kind, &request.subresource);
        json!({"group": group, "version": version, "kind": kind})
    };
    let resource = |kind: &Kind| json!({"group": kind.group, "version": kind.version, "resource": kind.plural});
    let user = serde_json::to_value(&request.user).unwrap_or_default();
    let mut value = json!({
        "kind": kind(matched), "resource": resource(matched), "requestKind": kind(subject.kind),
        "requestResource": resource(subject.kind), "operation": request.operation.as_str(), "userInfo": user,
        "dryRun": request.dry_run,
    });
    let texts = [
        ("subResource", request.subresource.as_str()),
        ("requestSubResource", &request.subresource),
        ("name", &request.name),
        ("namespace", subject.namespace_name()),
    ];
    for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        value[key] = text.into();
    }
    if !request.options.is_null() {
        value["options"] = request.options.clone();
    }
    value
}

/// Group, version and kind of what a request carries.
pub(crate) fn body_kind<'k>(kind: &'k Kind, subresource: &str) -> (&'k str, &'k str, &'k str) {
    if subresource == "scale" {
        return ("autoscaling", "v1", "Scale");
    }
    let known = kind.strategy.subresources.iter().find(|known| known.name == subresource);
    known.and_then(|known| known.kind).unwrap_or((&kind.group, &kind.version, &kind.kind))
}

/// The values of one evaluation: the variables that have been looked up, and what that cost.
pub(crate) struct Activation<'v> {
    facts: &'v Facts,
    variables: &'v [Variable],
    known: RefCell<Vec<Option<Result<Cel<'v>, Fault>>>>,
    spent: Cell<u64>,
    left: Cell<Option<u64>>,
}

struct Lookup<'a, 'v> {
    activation: &'a Activation<'v>,
    names: &'a [Name],
}

impl<'v> Variables<'v> for Lookup<'_, 'v> {
    fn value(&self, at: usize) -> Result<Cel<'v>, Fault> {
        let facts = self.activation.facts;
        let any = |value: &'v Value| Cel::of(value, &ANYTHING);
        match self.names.get(at) {
            Some(Name::Object) => any(&facts.object),
            Some(Name::OldObject) => any(&facts.old),
            Some(Name::Params) => any(&facts.params),
            Some(Name::Request) => Cel::of(&facts.request, &REQUEST),
            Some(Name::Namespace) if facts.namespace.is_null() => Ok(Cel::Null),
            Some(Name::Namespace) => Cel::of(&facts.namespace, &NAMESPACE),
            Some(Name::Authorizer) => Ok(policy::cel::authorizer(&facts.authorizer.asked())),
            Some(Name::ResourceAuthorizer) => Ok(facts.authorizer.resource()),
            Some(Name::Variable(at)) => self.activation.variable(*at),
            Some(Name::Variables) | None => Ok(Cel::Null),
        }
    }
}

impl<'v> Activation<'v> {
    pub fn new(facts: &'v Facts, variables: &'v [Variable], budget: u64) -> Self {
        let known = RefCell::new(vec![None; variables.len()]);
        Self { facts, variables, known, spent: Cell::new(0), left: Cell::new(Some(budget)) }
    }

    fn variable(&self, at: usize) -> Result<Cel<'v>, Fault> {
        if let Some(Some(known)) = self.known.borrow().get(at) {
            return known.clone();
        }
        let found = self.evaluate_variable(at);
        if let Some(place) = self.known.borrow_mut().get_mut(at) {
            *place = Some(found.clone());
        }
        found
    }

    fn evaluate_variable(&self, at: usize) -> Result<Cel<'v>, Fault> {
        let Some(Variable { name, expression }) = self.variables.get(at) else { return Ok(Cel::Null) };
        let failed = |text: String| Fault::Failed(text.into());
        let program = expression
            .program
            .as_ref()
            .map_err(|why| failed(format!("composited variable {name:?} fails to compile: {why}")))?;
        let lookup = Lookup { activation: self, names: &expression.names };
        let outcome = program.evaluate_over(&lookup, Budget { cost: CALL_COST_MAX, work: CALL_WORK_MAX });
        self.spent.set(self.spent.get().saturating_add(outcome.used.cost));
        outcome.result.map_err(|fault| failed(format!("composited variable {name:?} fails to evaluate: {fault}")))
    }

    /// What an expression comes to, or why it comes to nothing. The outer error ends everything: there is no more budget.
    pub fn evaluate(&self, expression: &Expression) -> Result<Result<Cel<'v>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(why) => return Ok(Err(format!("compilation error: {why}"))),
        };
        let left = self.left.get().ok_or_else(|| OVER_BUDGET.to_owned())?;
        let lookup = Lookup { activation: self, names: &expression.names };
        let outcome = program.evaluate_over(&lookup, Budget { cost: CALL_COST_MAX, work: CALL_WORK_MAX });
        let used = outcome.used.cost.saturating_add(self.spent.replace(0));
        self.left.set(left.checked_sub(used));
        if self.left.get().is_none() {
            return Err(OVER_BUDGET.to_owned());
        }
        Ok(outcome.result.map_err(|fault| format!("expression '{}' resulted in error: {fault}", expression.source)))
    }

    pub fn left(&self) -> u64 {
        self.left.get().unwrap_or(0)
    }
}

/// The `matchConditions` of a webhook or a policy.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Vec<Expression>);

impl Conditions {
    pub fn read(holder: &Value, params: bool) -> Self {
        let list = holder.get("matchConditions").and_then(Value::as_array).into_iter().flatten();
        let scope = Scope::new(params, true, false);
        Self(
            list.map(|one| Expression::compile(crate::object::text_at(one, &["expression"]).trim(), &scope, &["bool"]))
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold. One that does not hold outweighs others that fail; what to do about a failure is the caller's policy.
    pub fn hold(&self, facts: &Facts) -> Result<bool, String> {
        if self.0.is_empty() {
            return Ok(true);
        }
        let activation = Activation::new(facts, &[], CONDITIONS_COST_MAX);
        let mut failed = Vec::new();
        // All are evaluated before any is looked at, as the budget is for all of them.
        let found: Vec<_> = self.0.iter().map(|one| activation.evaluate(one)).collect::<Result<_, _>>()?;
        for one in found {
            match one {
                Ok(Cel::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => failed.push(why),
            }
        }
        match &mut failed[..] {
            [] => Ok(true),
            [one] => Err(std::mem::take(one)),
            several => Err(format!("[{}]", several.join(", "))),
        }
    }
}
