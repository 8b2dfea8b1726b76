//! What mutating policies make of an object (`apiserver/pkg/admission/plugin/policy/mutating`).

use policy::cel::Value as Cel;
use serde_json::Value;

use super::{
    chain::{Reinvocation, reshape},
    expression::{Activation, Facts, POLICY_COST_MAX},
    matching::Subject,
    policies::{self, Invocation, Mutation},
    registry::Registry,
};
use crate::{
    apply,
    object::{self, set_at},
    patch::{self, PatchError},
    status::{Cause, Result},
};

/// Lets the mutating policies change an object, one after another.
pub(crate) async fn mutate(
    registry: &Registry,
    subject: &Subject<'_>,
    object: &mut Value,
    reinvocation: &mut Reinvocation,
) -> Result<()> {
    if registry.mutations.is_empty() || registry.mutation_bindings.is_empty() {
        return Ok(());
    }
    let (invocations, broken) =
        policies::relevant(&registry.mutations, &registry.mutation_bindings, subject, Some(object)).await;
    let mut wrong: Vec<(String, bool)> = Vec::new();
    for broken in broken.into_iter().filter(|broken| !broken.policy.ignores_failures) {
        wrong
            .push((told(&broken.policy.name, broken.binding.map(|binding| binding.name.as_str()), &broken.why), false));
    }
    for invocation in &invocations {
        let mut complain = |why: String| {
            if !invocation.policy.ignores_failures {
                wrong.push((told(&invocation.policy.name, Some(&invocation.binding.name), &why), true));
            }
        };
        let facts = policies::facts(invocation, subject, Some(object)).await?;
        match facts.settled(|facts| invocation.policy.conditions.hold(facts)).await {
            Ok(true) => {}
            Ok(false) => continue,
            Err(why) => {
                complain(why);
                continue;
            }
        }
        let param = (object::namespace(&invocation.params), object::name(&invocation.params));
        let id = format!("{}/{}/{}/{}", invocation.policy.name, invocation.binding.name, param.0, param.1);
        if !reinvocation.wants(&id) {
            continue;
        }
        let before = facts.object.clone();
        let mut facts = facts;
        for mutation in &invocation.policy.mutations {
            match facts.settled(|facts| run(invocation, mutation, facts)).await {
                Ok(mut made) => {
                    reshape(&invocation.kind, &subject.request.subresource, &mut made)?;
                    facts.object = made;
                }
                Err(why) => complain(why),
            }
        }
        if facts.object != before {
            reinvocation.changed();
            *object = subject.back_from(&invocation.kind, facts.object).await?;
        }
        if invocation.policy.reinvocable {
            reinvocation.invoked(&id);
        }
    }
    let Some((message, by_expression)) = wrong.first().cloned() else { return Ok(()) };
    let causes = wrong.into_iter().map(|(message, _)| Cause { message, ..Cause::default() }).collect();
    let reason = if by_expression { "Invalid" } else { "Forbidden" };
    Err(subject.forbidden(Some(object), "").retold(reason, message).with_causes(causes))
}

fn told(policy: &str, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("policy {policy:?} denied request: {why}"),
    }
}

fn run(invocation: &Invocation<'_>, mutation: &Mutation, facts: &Facts) -> Result<Value, String> {
    let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
    if let Err(why) = &expression.program {
        return Err(why.clone());
    }
    let activation = Activation::new(facts, &invocation.policy.variables, POLICY_COST_MAX);
    let found = activation.evaluate(expression)??;
    match mutation {
        Mutation::Apply(_) => lay_over(invocation, &found, &facts.object),
        Mutation::Patch(_) => patched(&found, &facts.object),
    }
}

fn lay_over(invocation: &Invocation<'_>, found: &Cel<'_>, object: &Value) -> Result<Value, String> {
    let Cel::Message(made) = found else {
        return Err("unsupported return type from ApplyConfiguration expression".to_owned());
    };
    let misnamed = made.misnamed();
    if !misnamed.is_empty() {
        return Err(format!("type mismatch: {}", misnamed.join("\n")));
    }
    let mut config = found.to_json().map_err(|fault| fault.to_string())?;
    let kind = &invocation.kind;
    set_at(&mut config, &["apiVersion"], kind.api_version().into());
    set_at(&mut config, &["kind"], kind.kind.as_ref().into());
    let schema = kind.schema().ok_or_else(|| format!("Resource kind {kind:?} not found."))?;
    apply::lay_over(&schema, object, &config).map_err(|why| format!("error applying patch: {why}"))
}

fn patched(found: &Cel<'_>, object: &Value) -> Result<Value, String> {
    let Cel::List(operations) = found else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".to_owned());
    };
    let mut list = Vec::new();
    for operation in operations.iter() {
        let operation = operation.map_err(|fault| fault.to_string())?;
        if let Cel::Message(message) = &operation
            && let Some(Cel::Message(value)) = message.fields.get("value")
        {
            let misnamed = value.misnamed();
            if !misnamed.is_empty() {
                return Err(format!("type mismatch: {}", misnamed.join("\n")));
            }
        }
        let unfit =
            |fault| format!("JSONPath valueExpression evaluated to a type that could not marshal to JSON: {fault}");
        list.push(operation.to_json().map_err(unfit)?);
    }
    let mut made = object.clone();
    match patch::json_patch(&mut made, &list.into()) {
        Ok(()) => Ok(made),
        // A test that fails lets the object be.
        Err(PatchError::TestFailed(_)) => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}
