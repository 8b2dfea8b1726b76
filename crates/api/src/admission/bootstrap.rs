//! A KubeadmConfigSpec, wherever it stands.
//!
//! Source: kubernetes-sigs/cluster-api bootstrap/kubeadm/webhooks/admission/kubeadmconfig.go.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Problem;

const NOT_WITH_IGNITION: &str = "not supported when spec.format is set to: \"ignition\"";

/// `control_plane`: what init and join say has to agree, for machines of one control plane do either.
pub fn check(spec: &Value, control_plane: bool, path: &str, problems: &mut Vec<Problem>) {
    files(&spec["files"], path, problems);
    users(&spec["users"], path, problems);
    ignition(spec, path, problems);
    for (index, partition) in list(&spec["diskSetup"]["partitions"]) {
        let percent: i64 = list(&partition["diskLayout"]).filter_map(|(_, part)| part["percentage"].as_i64()).sum();
        if percent > 100 {
            let detail = "the sum of all partition percentages must not be greater than 100";
            let at = format!("{path}.diskSetup.partitions[{index}].diskLayout");
            problems.push(Problem::invalid(&at, &json!(percent), detail));
        }
    }
    let user = &spec["joinConfiguration"]["discovery"]["file"]["kubeConfig"]["user"];
    if !user["authProvider"].is_null() && !user["exec"].is_null() {
        let at = format!("{path}.joinConfiguration.discovery.file.kubeconfig.user");
        problems.push(Problem::invalid(&at, user, "only one of authProvider or exec must be defined"));
    }
    if control_plane {
        timeouts(spec, path, problems);
    }
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// A secret that is named needs a name and a key.
fn source(source: &Value, path: &str, problems: &mut Vec<Problem>) {
    for field in ["name", "key"] {
        if source["secret"][field].as_str().is_none_or(str::is_empty) {
            let detail = format!("secret file source must specify non-empty secret {field}");
            problems.push(Problem::required(&format!("{path}.secret.{field}"), detail));
        }
    }
}

fn files(files: &Value, path: &str, problems: &mut Vec<Problem>) {
    let mut paths = BTreeSet::new();
    for (index, file) in list(files) {
        let at = format!("{path}.files[{index}]");
        if file["content"].as_str().is_some_and(|content| !content.is_empty()) && !file["contentFrom"].is_null() {
            let detail = "only one of content or contentFrom may be specified for a single file";
            problems.push(Problem::invalid(&at, file, detail));
        }
        if !file["contentFrom"].is_null() {
            source(&file["contentFrom"], &format!("{at}.contentFrom"), problems);
        }
        if file["path"].as_str().is_some_and(|own| !paths.insert(own)) {
            let detail = "path property must be unique among all files";
            problems.push(Problem::invalid(&format!("{at}.path"), file, detail));
        }
    }
}

fn users(users: &Value, path: &str, problems: &mut Vec<Problem>) {
    for (index, user) in list(users) {
        let at = format!("{path}.users[{index}]");
        if user["passwdFrom"].is_null() {
            continue;
        }
        if user["passwd"].as_str().is_some_and(|password| !password.is_empty()) {
            let detail = "only one of passwd or passwdFrom may be specified for a single user";
            problems.push(Problem::invalid(&at, &user["name"], detail));
        }
        source(&user["passwdFrom"], &format!("{at}.passwdFrom"), problems);
    }
}

fn ignition(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    if spec["format"] != "ignition" {
        if !spec["ignition"].is_null() {
            let detail = "must be set to \"ignition\" if spec.ignition is set";
            problems.push(Problem::invalid(&format!("{path}.format"), &spec["format"], detail));
        }
        return;
    }
    let mut refuse = |at: String| problems.push(Problem::forbidden(&format!("{path}.{at}"), NOT_WITH_IGNITION));
    for (index, user) in list(&spec["users"]) {
        if user["inactive"] == true {
            refuse(format!("users[{index}].inactive"));
        }
    }
    for (index, file) in list(&spec["files"]) {
        if file["encoding"] == "gzip" || file["encoding"] == "gzip+base64" {
            refuse(format!("files[{index}].encoding"));
        }
    }
    if !spec["bootCommands"].is_null() {
        refuse("bootCommands".to_owned());
    }
    for (index, filesystem) in list(&spec["diskSetup"]["filesystems"]) {
        for field in ["replaceFS", "partition"] {
            if filesystem[field].as_str().is_some_and(|text| !text.is_empty()) {
                refuse(format!("diskSetup.filesystems[{index}].{field}"));
            }
        }
    }
    for (index, partition) in list(&spec["diskSetup"]["partitions"]) {
        let table = &partition["tableType"];
        if table.as_str().is_some_and(|table| table != "gpt") {
            let detail = "only partition type \"gpt\" is supported when spec.format is set to \"ignition\"";
            let at = format!("{path}.diskSetup.partitions[{index}].tableType");
            problems.push(Problem::invalid(&at, table, detail));
        }
    }
}

fn timeouts(spec: &Value, path: &str, problems: &mut Vec<Problem>) {
    const FIELD: &str = "controlPlaneComponentHealthCheckSeconds";
    let of = |which: &str| spec[which]["timeouts"][FIELD].as_i64().map_or("unset".to_owned(), |s| s.to_string());
    let (init, join) = (of("initConfiguration"), of("joinConfiguration"));
    if init == join {
        return;
    }
    let detail = format!(
        "{FIELD} must be set to the same value both in initConfiguration.timeouts ({init}) and in \
         joinConfiguration.timeouts ({join})"
    );
    for (which, value) in [("initConfiguration", init), ("joinConfiguration", join)] {
        let at = format!("{path}.{which}.timeouts.{FIELD}");
        problems.push(Problem::invalid(&at, &json!(value), detail.clone()));
    }
}
