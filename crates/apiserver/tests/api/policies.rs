//! Validating and mutating admission policies.

use apiserver::{Server, User};
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, delete, get, merge, post, send_as, server, workload_server};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn constraints(resource: &str, group: &str) -> Value {
    json!({"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": ["v1"], "resources": [resource]}]})
}

async fn policy(server: &Server, plural: &str, name: &str, mut spec: Value) -> Answer {
    if spec.get("matchConstraints").is_none() {
        spec["matchConstraints"] = constraints("configmaps", "");
    }
    post(server, &format!("{GROUP}/{plural}"), &json!({"metadata": {"name": name}, "spec": spec})).await
}

async fn bind(server: &Server, plural: &str, name: &str, spec: Value) {
    let made = post(server, &format!("{GROUP}/{plural}"), &json!({"metadata": {"name": name}, "spec": spec})).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
}

async fn validating(server: &Server, spec: Value, binding: Value) {
    let made = policy(server, "validatingadmissionpolicies", "p", spec).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    let mut all = json!({"policyName": "p", "validationActions": ["Deny"]});
    for (key, value) in binding.as_object().unwrap() {
        all[key] = value.clone();
    }
    bind(server, "validatingadmissionpolicybindings", "b", all).await;
}

async fn make(server: &Server, name: &str, data: Value) -> Answer {
    post(server, MAPS, &json!({"metadata": {"name": name}, "data": data})).await
}

#[tokio::test]
async fn a_policy_denies_warns_and_tells_why() {
    let server = server().await;
    let spec = json!({
        "variables": [{"name": "size", "expression": "has(object.data) ? object.data.size() : 0"}, {"name": "twice", "expression": "variables.size * 2"}],
        "validations": [
            {"expression": "variables.size < 3", "messageExpression": "'twice is ' + string(variables.twice)", "reason": "Forbidden"},
            {"expression": "!object.metadata.name.startsWith('x')", "message": "no x"},
            {"expression": "request.operation == 'CREATE' || oldObject.data == object.data"},
        ],
    });
    validating(&server, spec, json!({})).await;
    assert_eq!(make(&server, "a", json!({"k": "v"})).await.code, 201);
    let by = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request";
    let refused = make(&server, "b", json!({"k": "v", "l": "v", "m": "v"})).await;
    assert_eq!(refused.status(), (403, "Forbidden".into(), format!("configmaps \"b\" is forbidden: {by}: twice is 6")));
    assert_eq!(refused.json()["details"]["causes"], json!([{"message": format!("{by}: twice is 6")}]));
    assert_eq!(
        make(&server, "x", json!({})).await.status(),
        (422, "Invalid".into(), format!("configmaps \"x\" is forbidden: {by}: no x"))
    );
    let changed = merge(&server, &format!("{MAPS}/a"), &json!({"data": {"k": "w"}})).await;
    let text = format!(
        "configmaps \"a\" is forbidden: {by}: failed expression: request.operation == 'CREATE' || oldObject.data == object.data"
    );
    assert_eq!(changed.status().2, text);
    let path = format!("{GROUP}/validatingadmissionpolicybindings/b");
    assert_eq!(merge(&server, &path, &json!({"spec": {"validationActions": ["Warn", "Audit"]}})).await.code, 200);
    let warned = make(&server, "x", json!({})).await;
    let text = "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': no x\"";
    assert_eq!((warned.code, warned.warnings()), (201, vec![text]));
    assert_eq!(delete(&server, &path).await.code, 200);
    assert!(make(&server, "y", json!({})).await.warnings().is_empty(), "without a binding it is not in force");
}

#[tokio::test]
async fn parameters_are_read_where_the_binding_says() {
    let server = server().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-params", "expression": "!object.metadata.name.startsWith('param')"}],
        "validations": [{"expression": "object.data.n == params.data.n", "messageExpression": "'not ' + params.data.n"}],
    });
    validating(&server, spec, json!({"paramRef": {"name": "param", "parameterNotFoundAction": "Deny"}})).await;
    let missing = make(&server, "a", json!({"n": "1"})).await.status();
    assert!(
        missing.2.contains(
            "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
        ),
        "{missing:?}"
    );
    let path = format!("{GROUP}/validatingadmissionpolicybindings/b");
    merge(&server, &path, &json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}})).await;
    assert_eq!(make(&server, "a", json!({"n": "1"})).await.code, 201);
    merge(&server, &path, &json!({"spec": {"matchResources": {"resourceRules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["configmaps"], "resourceNames": ["b", "c"]}]}}})).await;
    assert_eq!(make(&server, "param", json!({"n": "2"})).await.code, 201);
    let refused = make(&server, "b", json!({"n": "1"})).await.status();
    assert!(refused.2.ends_with("denied request: not 2"), "{refused:?}");
    assert_eq!(make(&server, "b", json!({"n": "2"})).await.code, 201);
    assert_eq!(make(&server, "d", json!({"n": "1"})).await.code, 201, "the binding is about other names");
    let selected = json!({"spec": {"paramRef": {"name": null, "selector": {"matchLabels": {"role": "param"}}, "parameterNotFoundAction": "Deny"}}});
    assert_eq!(merge(&server, &path, &selected).await.code, 200);
    assert!(make(&server, "c", json!({"n": "2"})).await.status().2.contains("no params found"));
    merge(&server, &format!("{MAPS}/param"), &json!({"metadata": {"labels": {"role": "param"}}})).await;
    assert_eq!(make(&server, "c", json!({"n": "2"})).await.code, 201);
}

#[tokio::test]
async fn what_cannot_be_evaluated_follows_the_failure_policy() {
    let server = server().await;
    let spec = json!({"failurePolicy": "Fail", "validations": [{"expression": "object.nothing.x == 1"}]});
    validating(&server, spec, json!({})).await;
    let text = "configmaps \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: expression \
                'object.nothing.x == 1' resulted in error: no such key: nothing";
    assert_eq!(make(&server, "a", json!({})).await.status(), (422, "Invalid".into(), text.into()));
    let path = format!("{GROUP}/validatingadmissionpolicies/p");
    assert_eq!(merge(&server, &path, &json!({"spec": {"failurePolicy": "Ignore"}})).await.code, 200);
    assert_eq!(make(&server, "a", json!({})).await.code, 201);
    let dear = "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, a+b+c+d+e > 0)))))";
    assert_eq!(
        merge(&server, &path, &json!({"spec": {"failurePolicy": "Fail", "validations": [{"expression": dear}]}}))
            .await
            .code,
        200
    );
    let refused = make(&server, "b", json!({})).await.status().2;
    assert!(refused.contains("operation cancelled: actual cost limit exceeded"), "{refused}");
}

#[tokio::test]
async fn namespaces_and_rights_can_be_asked_about() {
    let server = server().await;
    let spec = json!({"validations": [
        {"expression": "namespaceObject.metadata.name == 'default' && namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == 'default'"},
        {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()", "message": "may not read secrets"},
    ]});
    validating(&server, spec, json!({})).await;
    assert_eq!(make(&server, "a", json!({})).await.code, 201);
    let role = json!({"metadata": {"name": "maps"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]}]});
    assert_eq!(post(&server, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &role).await.code, 201);
    let binding = json!({"metadata": {"name": "maps"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "maps"}, "subjects": [{"kind": "User", "name": "eve"}]});
    assert_eq!(
        post(&server, "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await.code,
        201
    );
    let eve = User::new("eve", ["people"]);
    let body = json!({"metadata": {"name": "b"}}).to_string();
    let refused = send_as(&server, &eve, Method::POST, MAPS, "application/json", body).await;
    assert!(refused.status().2.ends_with("may not read secrets"), "{:?}", refused.status());
}

#[tokio::test]
async fn policies_are_checked_before_they_are_taken() {
    let server = server().await;
    let one = |expression: &str| json!({"validations": [{"expression": expression}]});
    let cases = [
        (json!({}), "spec.validations: Required value: validations or auditAnnotations must contain at least one item"),
        (one("1 + 1"), "spec.validations[0].expression: Invalid value: \"1 + 1\": must evaluate to bool but got int"),
        (one("params.x"), "undeclared reference to 'params'"),
        (one("variables.x"), "undefined field 'x'"),
        (
            json!({"variables": [{"name": "1x", "expression": "1"}], "validations": [{"expression": "true"}]}),
            "spec.variables[0].name: Invalid value: \"1x\": must be a valid CEL identifier",
        ),
        (
            json!({"validations": [{"expression": "true", "reason": "Gone"}]}),
            "spec.validations[0].reason: Unsupported value: \"Gone\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
        ),
        (
            json!({"paramKind": {"apiVersion": "a/b/c", "kind": "X"}, "validations": [{"expression": "true"}]}),
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
        ),
    ];
    for (spec, text) in cases {
        let refused = policy(&server, "validatingadmissionpolicies", "p", spec).await;
        assert_eq!(refused.code, 422);
        assert!(refused.status().2.contains(text), "{text}: {:?}", refused.status());
    }
    let both = json!({"policyName": "p", "validationActions": ["Deny", "Warn"]});
    let path = format!("{GROUP}/validatingadmissionpolicybindings");
    let refused = post(&server, &path, &json!({"metadata": {"name": "b"}, "spec": both})).await;
    assert!(refused.status().2.contains("must not contain both Deny and Warn"), "{:?}", refused.status());
}

#[tokio::test]
async fn mutating_policies_lay_fields_over_and_patch() {
    let server = workload_server().await;
    let spec = json!({
        "reinvocationPolicy": "Never",
        "matchConstraints": constraints("pods", ""),
        "variables": [{"name": "name", "expression": "object.metadata.name"}],
        "mutations": [
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
                "Object{metadata: Object.metadata{labels: {'of': variables.name}}, spec: Object.spec{containers: [Object.spec.containers{name: 'main', imagePullPolicy: 'Never'}]}}"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'test', path: '/spec/hostname', value: 'a'}, JSONPatch{op: 'remove', path: '/spec/hostname'}]"}},
            {"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'x/' + jsonpatch.escapeKey('a'): 'y'}}]"}},
        ],
    });
    let made = policy(&server, "mutatingadmissionpolicies", "m", spec).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    bind(&server, "mutatingadmissionpolicybindings", "m", json!({"policyName": "m"})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"hostname": "b", "containers": [{"name": "main", "image": "i:1"}, {"name": "side", "image": "i:1"}]}});
    let made = post(&server, "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    let made = made.json();
    assert_eq!(made["metadata"]["labels"], json!({"of": "p"}));
    assert_eq!(made["metadata"]["annotations"], json!({"x/a": "y"}));
    assert_eq!(made["spec"]["hostname"], "b", "a test that fails changes nothing");
    let policies: Vec<_> =
        made["spec"]["containers"].as_array().unwrap().iter().map(|c| c["imagePullPolicy"].clone()).collect();
    assert_eq!(policies, ["Never", "IfNotPresent"]);
}

#[tokio::test]
async fn a_mutation_that_cannot_be_is_refused() {
    let server = server().await;
    let one = |expression: &str| json!({"reinvocationPolicy": "Never", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    let refused = policy(&server, "mutatingadmissionpolicies", "m", one("1")).await;
    assert!(refused.status().2.contains("must evaluate to Object but got int"), "{:?}", refused.status());
    let made = policy(&server, "mutatingadmissionpolicies", "m", one("Object{metadata: Object.wrong{}}")).await;
    assert_eq!(made.code, 201, "{:?}", made.status());
    bind(&server, "mutatingadmissionpolicybindings", "m", json!({"policyName": "m"})).await;
    let (code, reason, message) = make(&server, "a", json!({})).await.status();
    let text = "policy 'm' with binding 'm' denied request: type mismatch: unexpected type name \"Object.wrong\", expected \
                \"Object.metadata\", which matches field name path from root Object type";
    assert_eq!((code, reason.as_str(), message.as_str()), (403, "Invalid", text));
    assert_eq!(get(&server, &format!("{MAPS}/a")).await.code, 404);
}
