//! Policies and their bindings.

use super::*;

const ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// What is wrong with a policy. Conditions that have not changed are let be.
pub(crate) fn check_policy(new: &Value, old: Option<&Value>, mutating: bool) -> Vec<FieldError> {
    let nothing = json!({});
    let spec = given(new, "spec").unwrap_or(&nothing);
    let mut errors = Vec::new();
    let params = given(spec, "paramKind");
    if let Some(found) =
        given(spec, "failurePolicy").filter(|f| !FAILURE_POLICIES.contains(&f.as_str().unwrap_or_default()))
    {
        errors.push(FieldError::not_supported("spec.failurePolicy", found.clone(), &FAILURE_POLICIES));
    }
    if let Some(kind) = params {
        check_param_kind(kind, &mut errors);
    }
    match given(spec, "matchConstraints") {
        None => errors.push(FieldError::required("spec.matchConstraints", "")),
        Some(resources) => {
            check_match(resources, "spec.matchConstraints", &mut errors);
            if list(resources, "resourceRules").is_empty() {
                errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
            }
            if mutating {
                check_mutating(resources, "spec.matchConstraints", &mut errors);
            }
        }
    }
    let same = |key: &str| old.is_some_and(|old| at(old, &["spec", key]) == spec.get(key));
    if !(same("paramKind") && same("matchConditions")) {
        check_conditions(spec, "spec", params.is_some(), &mut errors);
    }
    let variables = check_variables(spec, params.is_some(), &mut errors);
    match mutating {
        true => check_mutations(spec, &variables, params.is_some(), &mut errors),
        false => check_validations(new, spec, &variables, params.is_some(), &mut errors),
    }
    errors
}

fn check_param_kind(kind: &Value, errors: &mut Vec<FieldError>) {
    const VERSION: &str = "spec.paramKind.apiVersion";
    let api_version = text_at(kind, &["apiVersion"]);
    let (group, version) = crate::kinds::split_api_version(api_version);
    if api_version.is_empty() {
        errors.push(FieldError::required(VERSION, ""));
    } else if api_version.matches('/').count() > 1 {
        errors.push(FieldError::invalid(
            VERSION,
            api_version,
            format!("unexpected GroupVersion string: {api_version}"),
        ));
    } else {
        let wrong = names::subdomain(group);
        if !group.is_empty() && !wrong.is_empty() {
            errors.push(FieldError::invalid(VERSION, group, wrong.join(",")));
        }
        let wrong = names::rfc1035(version);
        if version.is_empty() {
            errors.push(FieldError::invalid(VERSION, api_version, "version must be specified"));
        } else if !wrong.is_empty() {
            errors.push(FieldError::invalid(VERSION, version, wrong.join(",")));
        }
    }
    let name = text_at(kind, &["kind"]);
    let wrong = names::rfc1035(&name.to_lowercase());
    if name.is_empty() {
        errors.push(FieldError::required("spec.paramKind.kind", ""));
    } else if !wrong.is_empty() {
        let text = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
        errors.push(FieldError::invalid("spec.paramKind.kind", name, text));
    }
}

fn check_match(resources: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(found) =
        given(resources, "matchPolicy").filter(|f| !MATCH_POLICIES.contains(&f.as_str().unwrap_or_default()))
    {
        errors.push(FieldError::not_supported(format!("{path}.matchPolicy"), found.clone(), &MATCH_POLICIES));
    }
    for key in ["namespaceSelector", "objectSelector"] {
        if let Some(selector) = given(resources, key) {
            check_selector(selector, &format!("{path}.{key}"), errors);
        }
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(resources, key).iter().enumerate() {
            let path = format!("{path}.{key}[{i}]");
            let mut seen = BTreeSet::new();
            for (i, name) in texts(rule.get("resourceNames")).into_iter().enumerate() {
                let path = format!("{path}.resourceNames[{i}]");
                for wrong in names::NameRule::PathSegment.check(&name) {
                    errors.push(FieldError::invalid(path.as_str(), name.as_str(), wrong));
                }
                if !seen.insert(name.clone()) {
                    errors.push(FieldError::duplicate(path, name));
                }
            }
            errors.extend(check_rule(rule, &path));
        }
    }
}

/// Nothing is left to change of what is deleted.
fn check_mutating(resources: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for rule in list(resources, "resourceRules") {
        for operation in texts(rule.get("operations")) {
            if !MUTATING_OPERATIONS.contains(&operation.as_str()) {
                let path = format!("{path}.resourceRules.operations");
                errors.push(FieldError::not_supported(path, operation, &MUTATING_OPERATIONS));
            }
        }
    }
}

fn check_variables(spec: &Value, params: bool, errors: &mut Vec<FieldError>) -> Vec<Variable> {
    for (i, variable) in list(spec, "variables").iter().enumerate() {
        let path = format!("spec.variables[{i}]");
        let name = text_at(variable, &["name"]);
        if name.trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), "name is not specified"));
        } else if !is_identifier(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), name, "must be a valid CEL identifier"));
        }
        if text_at(variable, &["expression"]).trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), "expression is not specified"));
        }
    }
    let variables = policies::variables(spec, params);
    for (i, variable) in variables.iter().enumerate().filter(|(_, v)| !v.expression.source.trim().is_empty()) {
        if let Err(why) = &variable.expression.program {
            let path = format!("spec.variables[{i}].expression");
            errors.push(FieldError::invalid(path, variable.expression.source.as_str(), why.as_str()));
        }
    }
    variables
}

fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit()) && !RESERVED.contains(&name)
}

fn check_validations(new: &Value, spec: &Value, variables: &[Variable], params: bool, errors: &mut Vec<FieldError>) {
    let (validations, annotations) = (list(spec, "validations"), list(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let text = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", text));
        errors.push(FieldError::required("spec.auditAnnotations", text));
        return;
    }
    let scope = policies::scope(params, true, variables);
    let messages = policies::scope(params, false, variables);
    for (i, validation) in validations.iter().enumerate() {
        let path = format!("spec.validations[{i}]");
        let text = |key: &str| text_at(validation, &[key]);
        let source = text("expression");
        if source.trim().is_empty() {
            errors.push(FieldError::required(format!("{path}.expression"), "expression is not specified"));
        } else {
            check_expression(source, &scope, &["bool"], &format!("{path}.expression"), errors);
        }
        let source = text("messageExpression");
        let at = format!("{path}.messageExpression");
        if !source.is_empty() && source.trim().is_empty() {
            errors.push(FieldError::invalid(at, source, "must be non-empty if specified"));
        } else if !source.is_empty() {
            check_expression(source, &messages, &["string"], &at, errors);
        }
        let message = text("message");
        let at = format!("{path}.message");
        if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(at, message, "must be non-empty if specified"));
        } else if message.trim().contains(['\n', '\r']) {
            errors.push(FieldError::invalid(at, message, "must not contain line breaks"));
        }
        if let Some(reason) = given(validation, "reason").filter(|r| !REASONS.contains(&r.as_str().unwrap_or_default()))
        {
            errors.push(FieldError::not_supported(format!("{path}.reason"), reason.clone(), &REASONS));
        }
    }
    if annotations.len() > ANNOTATIONS_MAX {
        let text = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        errors.push(FieldError::invalid("spec.auditAnnotations", annotations.to_vec(), text));
    }
    check_annotations(new, annotations, &scope, errors);
}

fn check_annotations(new: &Value, annotations: &[Value], scope: &Scope, errors: &mut Vec<FieldError>) {
    let name = crate::object::name(new);
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let path = format!("spec.auditAnnotations[{i}]");
        let key = text_at(annotation, &["key"]);
        if name.is_empty() {
            errors.push(FieldError::invalid(format!("{path}.key"), key, "requires metadata.name be non-empty"));
        } else {
            let whole = format!("{name}/{key}");
            for wrong in names::qualified_name(&whole) {
                errors.push(FieldError::invalid(format!("{path}.key"), whole.as_str(), wrong));
            }
        }
        let source = text_at(annotation, &["valueExpression"]).trim();
        let at = format!("{path}.valueExpression");
        if source.is_empty() {
            errors.push(FieldError::required(at, "valueExpression is not specified"));
        } else if source.len() > ANNOTATION_BYTES_MAX {
            errors.push(FieldError::required(at, format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length")));
        } else {
            check_expression(source, scope, &["string", "null"], &at, errors);
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(format!("{path}.key"), key));
        }
    }
}

fn check_mutations(spec: &Value, variables: &[Variable], params: bool, errors: &mut Vec<FieldError>) {
    const TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
    let mutations = list(spec, "mutations");
    if mutations.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    let scope = policies::patch_scope(params, variables);
    for (i, mutation) in mutations.iter().enumerate() {
        let path = format!("spec.mutations[{i}]");
        let (wanted, other, output) = match text_at(mutation, &["patchType"]) {
            "" => {
                errors.push(FieldError::required(format!("{path}.patchType"), ""));
                continue;
            }
            "JSONPatch" => ("jsonPatch", "applyConfiguration", policies::PATCHES),
            "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", policies::OBJECT),
            found => {
                errors.push(FieldError::not_supported(format!("{path}.patchType"), found, &TYPES));
                continue;
            }
        };
        let shown = text_at(mutation, &["patchType"]);
        match given(mutation, wanted) {
            None => {
                let text = format!("must be specified when patchType is {shown}");
                errors.push(FieldError::required(format!("{path}.{wanted}"), text));
            }
            Some(patch) => {
                let source = text_at(patch, &["expression"]).trim();
                let at = format!("{path}.{wanted}.expression");
                match source.is_empty() {
                    true => errors.push(FieldError::required(at, "")),
                    false => check_expression(source, &scope, &[output], &at, errors),
                }
            }
        }
        if given(mutation, other).is_some() {
            let text = format!("must not be specified when patchType is {shown}");
            errors.push(FieldError::invalid(format!("{path}.{other}"), format!("{{{other}}}"), text));
        }
    }
    match text_at(spec, &["reinvocationPolicy"]) {
        "" => errors.push(FieldError::required("spec.reinvocationPolicy", "")),
        found if !REINVOCATION_POLICIES.contains(&found) => {
            errors.push(FieldError::not_supported("spec.reinvocationPolicy", found, &REINVOCATION_POLICIES));
        }
        _ => {}
    }
}

/// What is wrong with a binding.
pub(crate) fn check_binding(new: &Value, mutating: bool) -> Vec<FieldError> {
    let nothing = json!({});
    let spec = given(new, "spec").unwrap_or(&nothing);
    let mut errors = Vec::new();
    let policy = text_at(spec, &["policyName"]);
    if policy.is_empty() {
        errors.push(FieldError::required("spec.policyName", ""));
    } else {
        let wrong = names::subdomain(policy);
        errors.extend(wrong.into_iter().map(|wrong| FieldError::invalid("spec.policyName", policy, wrong)));
    }
    if let Some(reference) = given(spec, "paramRef") {
        check_param_ref(reference, &mut errors);
    }
    if let Some(resources) = given(spec, "matchResources") {
        check_match(resources, "spec.matchResources", &mut errors);
        if mutating {
            check_mutating(resources, "spec.matchResources", &mut errors);
        }
    }
    if !mutating {
        check_actions(&texts(spec.get("validationActions")), &mut errors);
    }
    errors
}

fn check_param_ref(reference: &Value, errors: &mut Vec<FieldError>) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text_at(reference, &["name"]);
    let selector = given(reference, "selector");
    if !name.is_empty() {
        let wrong = names::NameRule::PathSegment.check(name);
        errors.extend(wrong.into_iter().map(|wrong| FieldError::invalid("spec.paramRef.name", name, wrong)));
        if selector.is_some() {
            errors.push(FieldError::forbidden("spec.paramRef.name", EXCLUSIVE));
        }
    }
    match selector {
        Some(selector) => {
            check_selector(selector, "spec.paramRef.selector", errors);
            if !name.is_empty() {
                errors.push(FieldError::forbidden("spec.paramRef.selector", EXCLUSIVE));
            }
        }
        None if name.is_empty() => {
            errors.push(FieldError::required("spec.paramRef", "one of name or selector must be specified"));
        }
        None => {}
    }
    const NOT_FOUND: &str = "spec.paramRef.parameterNotFoundAction";
    match text_at(reference, &["parameterNotFoundAction"]) {
        "" => errors.push(FieldError::required(NOT_FOUND, "")),
        "Allow" | "Deny" => {}
        found => errors.push(FieldError::not_supported(NOT_FOUND, found, &["Deny", "Allow"])),
    }
}

fn check_actions(actions: &[String], errors: &mut Vec<FieldError>) {
    const PATH: &str = "spec.validationActions";
    for (i, action) in actions.iter().enumerate() {
        if !ACTIONS.contains(&action.as_str()) {
            errors.push(FieldError::not_supported(format!("{PATH}[{i}]"), action.as_str(), &ACTIONS));
        }
        if actions.iter().take(i).any(|before| before == action) {
            errors.push(FieldError::duplicate(format!("{PATH}[{i}]"), action.as_str()));
        }
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let text = "must not contain both Deny and Warn (repeating the same validation failure information in the API response \
                    and headers serves no purpose)";
        errors.push(FieldError::invalid(PATH, actions.to_vec(), text));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(PATH, "at least one validation action is required"));
    }
}
