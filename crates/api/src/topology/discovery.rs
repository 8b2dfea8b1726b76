//! Variables that extensions bring along for their patches.
//!
//! Source: kubernetes-sigs/cluster-api core/reconcilers/clusterclass.

use serde_json::{Value, json};

use super::{
    hooks::{Hook, Question},
    variables::INLINE,
};
use crate::admission;

/// Variables that one extension may bring along.
const VARIABLES_MAX: usize = 1000;

/// What is to be asked about a class, by patch.
pub fn questions(class: &Value) -> Vec<(String, Question)> {
    let patches = class.pointer("/spec/patches").and_then(Value::as_array).into_iter().flatten();
    let of = |patch: &Value| {
        let external = &patch["external"];
        let handler = external["discoverVariablesExtension"].as_str().filter(|name| !name.is_empty())?;
        let question = Question {
            hook: Hook::DiscoverVariables,
            handler: Some(handler.to_owned()),
            request: json!({}),
            settings: external["settings"].clone(),
        };
        Some((patch["name"].as_str().unwrap_or_default().to_owned(), question))
    };
    patches.filter_map(of).collect()
}

/// The variables of a response, if they are such as a class may have.
///
/// # Errors
/// They are not.
pub fn discovered(response: &Value) -> Result<Vec<Value>, String> {
    let variables = response["variables"].as_array().cloned().unwrap_or_default();
    if variables.len() > VARIABLES_MAX {
        return Err(format!("the extension has more than {VARIABLES_MAX} variables"));
    }
    let wrong = admission::class::variables(&json!({"spec": {"variables": variables}}));
    match wrong.first() {
        Some(problem) => {
            Err(format!("the extension has a variable that cannot be: {}: {}", problem.path, problem.detail))
        }
        None => Ok(variables),
    }
}

/// Every variable with its definitions: the class' own, then those of the patches.
pub fn all(class: &Value, found: &[(String, Result<Vec<Value>, String>)]) -> Vec<Value> {
    let own = class.pointer("/spec/variables").and_then(Value::as_array).into_iter().flatten();
    let own = own.map(|variable| (INLINE, variable));
    let of_patches = found
        .iter()
        .flat_map(|(patch, variables)| variables.iter().flatten().map(move |variable| (patch.as_str(), variable)));
    let mut all: Vec<Value> = Vec::new();
    for (from, variable) in own.chain(of_patches) {
        let definition = json!({"from": from, "required": variable["required"] == true, "schema": variable["schema"]});
        let known = all.iter_mut().find(|known| known["name"] == variable["name"]);
        let Some(known) = known else {
            let name = &variable["name"];
            all.push(json!({"name": name, "definitionsConflict": false, "definitions": [definition]}));
            continue;
        };
        let says = |definition: &Value| (definition["required"].clone(), definition["schema"].clone());
        let differs = says(&known["definitions"][0]) != says(&definition);
        known["definitionsConflict"] = (known["definitionsConflict"] == true || differs).into();
        if let Some(definitions) = known["definitions"].as_array_mut() {
            definitions.push(definition);
        }
    }
    all
}
