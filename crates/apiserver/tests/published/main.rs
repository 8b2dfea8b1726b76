//! CRDs as others publish them: each must be taken in as it is. The files are not part of this repository: `SKEP_CRDS`
//! names a folder with them (`conformance/crds` fetches them and runs this).

#[allow(dead_code)]
#[path = "../api/support.rs"]
mod support;

use std::{fs, path::PathBuf, time::Instant};

use http::Method;

use crate::support::{get, send, server};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldValidation=Strict";

#[tokio::test]
async fn our_own_crds_are_taken_in_and_their_rules_hold() {
    let server = server().await;
    for crd in api::crd::all() {
        let answer = send(&server, Method::POST, CRDS, "application/json", serde_json::to_vec(&crd).unwrap()).await;
        assert_eq!((answer.code, answer.warnings()), (201, vec![]), "{:?}", answer.status());
    }
    let cluster = |bastion: &str| {
        format!(
            r#"{{"apiVersion": "infrastructure.cluster.x-k8s.io/v1beta2", "kind": "OpenStackCluster", "metadata": {{"name": "a"}},
                "spec": {{"identityRef": {{"name": "cloud", "cloudName": "c"}}, "bastion": {bastion}}}}}"#
        )
    };
    let path = "/apis/infrastructure.cluster.x-k8s.io/v1beta2/namespaces/default/openstackclusters";
    let answer = send(&server, Method::POST, path, "application/json", cluster(r#"{"enabled": true}"#)).await;
    assert_eq!(answer.code, 422);
    assert!(
        answer.status().2.ends_with("spec.bastion: Invalid value: spec is required if bastion is enabled"),
        "{:?}",
        answer.status()
    );
    let answer = send(&server, Method::POST, path, "application/json", cluster(r#"{"enabled": false}"#)).await;
    assert_eq!(answer.code, 201, "{:?}", answer.status());
}

#[tokio::test]
async fn published_crds_are_taken_in_as_they_are() {
    let Some(folder) = std::env::var_os("SKEP_CRDS").map(PathBuf::from) else {
        eprintln!("SKIPPED: SKEP_CRDS does not name a folder with CRDs; run conformance/crds");
        return;
    };
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut taken, mut rules, mut wrong) = (0, 0, Vec::new());
    let started = Instant::now();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml")) {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(file).unwrap();
        // One server for each file, as some publish the same CRD in several forms.
        let server = server().await;
        for document in text.split("\n---").filter(|text| text.contains("kind: CustomResourceDefinition")) {
            let document = document.trim_start_matches("---");
            let answer = send(&server, Method::POST, CRDS, "application/yaml", document.to_owned()).await;
            let name_of = answer.json()["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let stored =
                get(&server, &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name_of}")).await;
            let established = stored.json()["status"]["conditions"]
                .as_array()
                .is_some_and(|list| list.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
            match answer.code {
                201 if established => {
                    taken += 1;
                    rules += document.matches("rule:").count();
                }
                code => wrong.push(format!("{name}: {code}: {}", answer.status().2)),
            }
            wrong.extend(answer.warnings().iter().map(|warning| format!("{name}: warning: {warning}")));
        }
    }
    eprintln!("{taken} CRDs with about {rules} rules taken in, in {:?}", started.elapsed());
    assert!(wrong.is_empty(), "{} were not:\n{}", wrong.len(), wrong.join("\n"));
    assert!(taken > 0, "no CRD in {}", folder.display());
}
