//! Which crate may use which. The table is the architecture; ARCHITECTURE.md says why.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A crate, and the crates of ours that it may depend on (tests may use more: see `TESTS`).
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &["policy"]),
    ("store", &[]),
    ("policy", &[]),
    ("openstack", &["transport"]),
    ("transport", &[]),
    ("helm", &[]),
    ("apiserver", &["store", "policy"]),
    ("control", &["api"]),
    ("delivery", &["api", "control", "helm", "transport"]),
    ("fleet", &["api", "control", "openstack"]),
    ("tenancy", &["api", "control"]),
    ("sandbox", &["api", "apiserver", "store", "openstack"]),
    ("cli", &["api", "control", "delivery", "helm", "openstack", "transport"]),
    (
        "skep",
        &[
            "api",
            "apiserver",
            "cli",
            "control",
            "delivery",
            "fleet",
            "openstack",
            "policy",
            "sandbox",
            "store",
            "tenancy",
            "transport",
        ],
    ),
    ("conformance", &["apiserver", "store"]),
    ("conformance-helm", &["helm"]),
    ("fuzz", &["apiserver", "policy", "store"]),
    ("testkit", &["api", "apiserver", "control", "fleet", "openstack", "sandbox", "store"]),
    ("xtask", &["api", "cli"]),
];

/// Crates that may stand together in tests of any crate.
const TESTS: &[&str] = &["api", "apiserver", "cli", "control", "fleet", "openstack", "policy", "sandbox", "store"];

/// Crates that do no IO: no runtime, no HTTP, no clock of their own.
const PURE: &[&str] = &["api", "helm", "policy"];
const IO: &[&str] = &["tokio", "hyper", "axum", "rustls", "rusqlite", "kube-client"];

pub fn check() -> Result<()> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--no-deps", "--format-version", "1"]).output();
    let output = output.context("run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let wrong = wrong(&metadata);
    for line in &wrong {
        eprintln!("arrows: {line}");
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{} arrows are not allowed", wrong.len()) }
}

/// What breaks the table, a line each.
fn wrong(metadata: &Value) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("crate {name} has no row in the table of crates/xtask/src/arrows.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let test = dependency["kind"] == "dev";
            let ours = allowed.contains_key(to);
            if ours && !may.contains(&to) && !(test && TESTS.contains(&to)) {
                wrong.push(format!("{name} may not use {to}"));
            }
            if PURE.contains(&name) && IO.contains(&to) && !test {
                wrong.push(format!("{name} does no IO and may not use {to}"));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, dependency: &str, kind: Value) -> Value {
        json!({"packages": [{"name": name, "dependencies": [{"name": dependency, "kind": kind}]}]})
    }

    #[test]
    fn an_arrow_that_is_not_in_the_table_is_found() {
        assert_eq!(wrong(&package("fleet", "store", Value::Null)), ["fleet may not use store"]);
        assert_eq!(wrong(&package("fleet", "store", json!("dev"))), Vec::<String>::new());
        assert_eq!(wrong(&package("api", "tokio", Value::Null)), ["api does no IO and may not use tokio"]);
        assert_eq!(wrong(&package("unheard-of", "serde", Value::Null)).len(), 1);
    }
}
