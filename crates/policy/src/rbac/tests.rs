use super::*;

fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
    let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect();
    Rule { verbs: owned(verbs), api_groups: owned(groups), resources: owned(resources), ..Rule::default() }
}

fn get<'a>(namespace: &'a str, resource: &'a str, subresource: &'a str, name: &'a str) -> Attributes<'a> {
    Attributes::Resource { verb: "get", group: "", resource, subresource, namespace, name }
}

fn reader_in_a() -> Rbac {
    let mut rbac = Rbac::default();
    rbac.put_role("", "reader", vec![rule(&["get"], &[""], &["pods"])]);
    let role = RoleRef { cluster: true, name: "reader".into() };
    rbac.put_binding("a", "readers", vec![Subject::Group("dev".into())], role);
    rbac
}

#[test]
fn a_role_binding_holds_in_its_namespace_alone() {
    let rbac = reader_in_a();
    let user = User::new("jane", ["dev"]);
    assert_eq!(
        rbac.authorize(&user, &get("a", "pods", "", "p")),
        Decision::Allowed(
            "RBAC: allowed by RoleBinding \"readers/a\" of ClusterRole \"reader\" to Group \"dev\"".into()
        )
    );
    assert_eq!(rbac.authorize(&user, &get("b", "pods", "", "p")), Decision::NoOpinion);
    assert_eq!(rbac.authorize(&user, &get("", "pods", "", "")), Decision::NoOpinion);
    assert_eq!(rbac.authorize(&user, &get("a", "pods", "log", "p")), Decision::NoOpinion);
    assert_eq!(rbac.authorize(&User::new("joe", ["ops"]), &get("a", "pods", "", "p")), Decision::NoOpinion);
}

#[test]
fn removing_the_binding_or_the_role_takes_the_right_away() {
    let user = User::new("jane", ["dev"]);
    let mut rbac = reader_in_a();
    rbac.remove_binding("a", "readers");
    assert!(!rbac.authorize(&user, &get("a", "pods", "", "p")).is_allowed());
    assert!(rbac.by_subject.is_empty());
    let mut rbac = reader_in_a();
    rbac.remove_role("", "reader");
    assert!(!rbac.authorize(&user, &get("a", "pods", "", "p")).is_allowed());
}

#[test]
fn subresources_names_and_wildcards_match_as_kubernetes_matches_them() {
    let scale = rule(&["get"], &["*"], &["*/scale"]);
    assert!(scale.allows(&get("", "deployments", "scale", "")));
    assert!(!scale.allows(&get("", "deployments", "", "")));
    let mut named = rule(&["*"], &[""], &["secrets"]);
    named.resource_names = vec!["one".into()];
    assert!(named.allows(&get("", "secrets", "", "one")));
    assert!(!named.allows(&get("", "secrets", "", "two")));
    assert!(!named.allows(&get("", "secrets", "", "")));
    let urls = Rule {
        verbs: vec!["get".into()],
        non_resource_urls: vec!["/healthz".into(), "/apis/*".into()],
        ..Rule::default()
    };
    assert!(urls.allows(&Attributes::Path { verb: "get", path: "/healthz" }));
    assert!(urls.allows(&Attributes::Path { verb: "get", path: "/apis/apps" }));
    assert!(!urls.allows(&Attributes::Path { verb: "get", path: "/healthz/x" }));
}

#[test]
fn masters_may_do_everything() {
    assert!(Rbac::default().authorize(&User::master("root"), &get("a", "pods", "", "p")).is_allowed());
    assert_eq!(
        uncovered(&Rbac::default().rules_for(&User::master("root"), ""), &[rule(&["*"], &["*"], &["*"])]),
        Ok(vec![])
    );
}

#[test]
fn the_escalation_check_names_exactly_what_is_not_held() {
    let held = [rule(&["get", "list"], &[""], &["pods", "secrets"]), rule(&["watch"], &["apps"], &["*"])];
    assert_eq!(uncovered(&held, &[rule(&["get"], &[""], &["pods"])]), Ok(vec![]));
    assert_eq!(uncovered(&held, &[rule(&["watch"], &["apps"], &["deployments/status"])]), Ok(vec![]));
    let missing = uncovered(&held, &[rule(&["get", "delete"], &[""], &["pods"])]).unwrap();
    assert_eq!(missing, vec![rule(&["delete"], &[""], &["pods"])]);
    let missing = uncovered(&held, &[rule(&["*"], &[""], &["pods"])]).unwrap();
    assert_eq!(missing, vec![rule(&["*"], &[""], &["pods"])]);
}

#[test]
fn held_names_do_not_cover_all_names() {
    let mut held = rule(&["get"], &[""], &["secrets"]);
    held.resource_names = vec!["one".into()];
    assert_eq!(uncovered(&[held.clone()], &[rule(&["get"], &[""], &["secrets"])]).unwrap().len(), 1);
    assert_eq!(uncovered(&[held.clone()], &[held]).unwrap(), vec![]);
}

#[test]
fn a_role_of_too_many_parts_is_refused_unexpanded() {
    let many: Vec<String> = (0..=cover::PARTS_MAX).map(|n| n.to_string()).collect();
    let wanted = Rule { verbs: vec!["get".into()], api_groups: vec!["".into()], resources: many, ..Rule::default() };
    assert_eq!(uncovered(&[], &[wanted]), Err(cover::PARTS_MAX + 1));
}

#[test]
fn roles_that_are_not_there_are_told() {
    let user = User::new("jane", ["dev"]);
    let mut rbac = reader_in_a();
    assert_eq!(rbac.missing_roles(&user, "a"), "");
    let lost = |cluster| RoleRef { cluster, name: "lost".into() };
    rbac.put_binding("a", "one", vec![Subject::User("jane".into())], lost(false));
    let one = "role.rbac.authorization.k8s.io \"lost\" not found";
    assert_eq!(rbac.missing_roles(&user, "a"), format!("RBAC: {one}"));
    assert_eq!(rbac.missing_roles(&user, "b"), "");
    rbac.put_binding("", "two", vec![Subject::Group("dev".into())], lost(true));
    assert_eq!(rbac.missing_roles(&user, "a"), format!("RBAC: [cluster{one}, {one}]"));
    assert_eq!(rbac.missing_roles(&User::new("joe", ["ops"]), "a"), "");
}
