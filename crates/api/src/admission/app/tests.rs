use serde_json::{Value, json};

use super::{
    inspection::{Lists, inspect},
    *,
};

/// An app of an organization, merged with `change`.
fn app(change: Value) -> App {
    let mut object = json!({
        "apiVersion": "application.giantswarm.io/v1alpha1", "kind": "App",
        "metadata": {"name": "demo-hello", "namespace": "org-acme", "labels": {"giantswarm.io/cluster": "demo"}},
        "spec": {
            "catalog": "giantswarm", "name": "hello", "namespace": "hello", "version": "1.2.0",
            "kubeConfig": {"inCluster": false, "secret": {"name": "demo-kubeconfig", "namespace": "org-acme"}},
        },
    });
    json_patch::merge(&mut object, &change);
    serde_json::from_value(object).unwrap()
}

/// The same in the management cluster itself.
fn in_cluster(change: Value) -> App {
    let mut base = json!({
        "metadata": {"labels": {"app-operator.giantswarm.io/version": "0.0.0"}},
        "spec": {"namespace": "org-acme", "kubeConfig": {"inCluster": true, "secret": null}},
    });
    json_patch::merge(&mut base, &change);
    app(base)
}

fn beside() -> Beside {
    Beside { catalog: true, provider: "openstack".into(), ..Beside::default() }
}

fn with_entry(restrictions: Value, neighbours: Vec<App>) -> Beside {
    let mut entry = AppCatalogEntry::default();
    entry.spec.restrictions = Some(serde_json::from_value(restrictions).unwrap());
    Beside { entry: Some(entry), neighbours, ..beside() }
}

fn refusal(app: &App, beside: &Beside) -> String {
    validate(app, None, beside).map_or_else(|refusal| refusal.to_string(), |()| String::new())
}

#[test]
fn apps_that_are_right_are_taken() {
    for app in [app(json!({})), in_cluster(json!({}))] {
        assert_eq!(refusal(&app, &beside()), "");
        assert!(applies(&app, false));
    }
}

#[test]
fn what_is_wrong_with_an_app_is_told_in_the_published_words() {
    let outside = |labels: Value| app(json!({"metadata": {"namespace": "demo", "labels": labels}}));
    let none = json!({"giantswarm.io/cluster": null});
    let version = "app-operator.giantswarm.io/version";
    let long = "a".repeat(NAME_MAX + 1);
    let cases = [
        (
            app(json!({"metadata": {"annotations": {"chart-operator.giantswarm.io/app-namespace": "giantswarm"}}})),
            "wrong `giantswarm` namespace for the `chart-operator.giantswarm.io/app-namespace` annotation",
        ),
        (app(json!({"metadata": {"labels": none}})), "label `giantswarm.io/cluster` not found"),
        (outside(none.clone()), "label `app-operator.giantswarm.io/version` not found"),
        (outside(json!({version: "1.0.0"})), "label `app-operator.giantswarm.io/version` has invalid value `1.0.0`"),
        (
            in_cluster(json!({"metadata": {"labels": {version: "3.1.0"}}})),
            "label `app-operator.giantswarm.io/version` must be set to `0.0.0` for in-cluster app",
        ),
        (
            app(json!({"spec": {"config": {"configMap": {"name": "v", "namespace": ""}}}})),
            "namespace is not specified for configmap `v`",
        ),
        (
            app(json!({"spec": {"config": {"secret": {"name": "v", "namespace": ""}}}})),
            "namespace is not specified for secret `v`",
        ),
        (app(json!({"spec": {"kubeConfig": {"secret": null}}})), "namespace is not specified for kubeconfig secret ``"),
        (
            app(json!({"spec": {"kubeConfig": {"secret": {"name": "", "namespace": "n"}}}})),
            "name is not specified for kubeconfig secret",
        ),
        (
            app(json!({"metadata": {"name": long}})),
            &format!("name `{long}` is 54 chars and exceeds max length of 53 chars"),
        ),
        (
            in_cluster(json!({"spec": {"namespace": "kube-system"}})),
            "target namespace kube-system is not allowed for in-cluster apps",
        ),
        (
            app(json!({"spec": {"catalog": "default", "userConfig": {"configMap": {"name": "v", "namespace": "n"}}}})),
            "user configmap must be named `demo-hello-user-values` for app in default catalog",
        ),
        (
            app(json!({"spec": {"catalog": "default", "userConfig": {"secret": {"name": "v", "namespace": "n"}}}})),
            "user secret must be named `demo-hello-user-secrets` for app in default catalog",
        ),
    ];
    for (app, expected) in cases {
        assert_eq!(refusal(&app, &beside()), format!("validation error: {expected}"));
    }
    let unknown = Beside { catalog: false, ..beside() };
    assert_eq!(refusal(&app(json!({})), &unknown), "validation error: catalog `giantswarm` not found");
    let fits = app(json!({"metadata": {"name": "a".repeat(NAME_MAX)}}));
    assert_eq!(refusal(&fits, &beside()), "");
}

#[test]
fn the_values_of_a_bundle_may_lack_the_name_of_its_cluster() {
    let bundle = |name: &str| {
        app(json!({
            "metadata": {"namespace": "demo", "labels": {"app-operator.giantswarm.io/version": "6.0.0"}},
            "spec": {"catalog": "default", "userConfig": {"configMap": {"name": name, "namespace": "demo"}}},
        }))
    };
    assert_eq!(refusal(&bundle("hello-user-values"), &beside()), "");
    assert_eq!(refusal(&bundle("demo-hello-user-values"), &beside()), "");
    let wrong = "validation error: user configmap must be named `hello-user-values` for app in default catalog";
    assert_eq!(refusal(&bundle("other"), &beside()), wrong);
}

#[test]
fn the_catalog_says_where_an_app_may_be() {
    let other = app(json!({"metadata": {"name": "other"}}));
    let elsewhere = app(json!({"metadata": {"name": "other"}, "spec": {"namespace": "b"}}));
    let of_another_cluster = app(json!({"metadata": {"name": "other", "labels": {"giantswarm.io/cluster": "second"}}}));
    let cases = [
        (json!({"compatibleProviders": ["openstack"]}), vec![], ""),
        (
            json!({"compatibleProviders": ["aws", "azure"]}),
            vec![],
            "app `hello` can only be installed for providers [`aws` `azure`] not `openstack`",
        ),
        (json!({"fixedNamespace": "hello"}), vec![], ""),
        (
            json!({"fixedNamespace": "kube-system"}),
            vec![],
            "app `hello` can only be installed in namespace `kube-system` only, not `hello`",
        ),
        (json!({"clusterSingleton": true}), vec![of_another_cluster.clone(), app(json!({}))], ""),
        (
            json!({"clusterSingleton": true}),
            vec![elsewhere.clone()],
            "app `hello` can only be installed once in cluster `demo`",
        ),
        (json!({"namespaceSingleton": true}), vec![elsewhere, of_another_cluster], ""),
        (
            json!({"namespaceSingleton": true}),
            vec![other],
            "app `hello` can only be installed only once in namespace `hello`",
        ),
    ];
    for (restrictions, neighbours, expected) in cases {
        let found = refusal(&app(json!({})), &with_entry(restrictions.clone(), neighbours));
        assert_eq!(found.trim_start_matches("validation error: "), expected, "{restrictions}");
    }
}

#[test]
fn a_namespace_is_not_wanted_in_two_ways() {
    let wants = |name: &str, what: &str, value: &str| {
        app(json!({"metadata": {"name": name}, "spec": {"namespaceConfig": {what: {"team": value}}}}))
    };
    for (what, kind) in [("labels", "label"), ("annotations", "annotation")] {
        let beside = Beside { neighbours: vec![wants("other", what, "a")], ..beside() };
        assert_eq!(refusal(&wants("demo-hello", what, "a"), &beside), "");
        let text = format!(
            "validation error: app `hello` {kind} `team` for target namespace `hello` collides with value `a` for app `other`"
        );
        assert_eq!(refusal(&wants("demo-hello", what, "b"), &beside), text);
    }
}

#[test]
fn names_of_in_cluster_apps_are_taken_once() {
    let elsewhere = |namespace: &str, app: App| {
        let mut app = app;
        app.metadata.namespace = Some(namespace.into());
        app
    };
    let own = in_cluster(json!({}));
    let at = |namesakes: Vec<App>| Beside { namesakes, ..beside() };
    assert_eq!(refusal(&own, &at(vec![own.clone(), elsewhere("org-b", app(json!({})))])), "");
    assert_eq!(
        refusal(&own, &at(vec![elsewhere("org-b", own.clone())])),
        "validation error: in-cluster apps must be given a unique name, found an app named `demo-hello` as well in the \
         `org-b` namespace"
    );
    assert_eq!(
        refusal(&own, &at(vec![elsewhere("giantswarm", app(json!({})))])),
        "validation error: found another app named `demo-hello` installed into the `giantswarm` namespace"
    );
    let ours = elsewhere("giantswarm", own.clone());
    assert_eq!(
        refusal(&ours, &at(vec![own])),
        "validation error: there is in-cluster app named `demo-hello` already installed in the `org-acme` namespace that \
         would cause name collision with the currently submitted app named `demo-hello` in the `giantswarm` namespace"
    );
}

#[test]
fn an_organizations_app_uses_nothing_of_another_and_secrets_of_its_own_only() {
    let refs = |kind: &str, namespace: &str| json!({"spec": {"config": {kind: {"name": "v", "namespace": namespace}}}});
    let extra = |kind: &str| json!({"spec": {"extraConfigs": [{"kind": kind, "name": "v", "namespace": "org-other"}]}});
    let told = |what: &str, there: &str| {
        format!("validation error: {what} is in namespace `{there}`, and an app in `org-acme` may not use it")
    };
    for (change, expected) in [
        (refs("secret", "org-acme"), String::new()),
        (refs("secret", "default"), told("secret `v`", "default")),
        (refs("secret", "org-other"), told("secret `v`", "org-other")),
        (refs("configMap", "default"), String::new()),
        (refs("configMap", "org-other"), told("configmap `v`", "org-other")),
        (extra("secret"), told("secret `v`", "org-other")),
        (extra("configMap"), told("configmap `v`", "org-other")),
        (
            json!({"spec": {"kubeConfig": {"secret": {"name": "w-kubeconfig", "namespace": "org-other"}}}}),
            told("secret `w-kubeconfig`", "org-other"),
        ),
    ] {
        assert_eq!(refusal(&app(change.clone()), &beside()), expected, "{change}");
    }
    let elsewhere = json!({"metadata": {"namespace": "w1", "labels": {"app-operator.giantswarm.io/version": "6.0.0"}}});
    assert_eq!(refusal(&app(elsewhere), &beside()), "", "a platform's own namespace may");
}

#[test]
fn a_target_namespace_stays() {
    let (old, new) = (app(json!({})), app(json!({"spec": {"namespace": "other"}})));
    let refused = validate(&new, Some(&old), &beside()).unwrap_err().to_string();
    let text = "validation error: target namespace for app `demo-hello` cannot be changed from `hello` to `other`";
    assert_eq!(refused, text);
    assert_eq!(validate(&old, Some(&old), &beside()), Ok(()));
}

#[test]
fn apps_of_older_platforms_and_those_that_go_away_are_left_alone() {
    let of = |version: Option<&str>| {
        app(json!({"metadata": {"namespace": "demo", "labels": {"app-operator.giantswarm.io/version": version}}}))
    };
    for (version, judged) in
        [(None, false), (Some("master"), false), (Some("2.9.9"), false), (Some("3.0.0"), true), (Some("v6.4"), true)]
    {
        assert_eq!(applies(&of(version), false), judged, "{version:?}");
    }
    assert!(applies(&in_cluster(json!({})), true));
    let mut leaving = app(json!({}));
    leaving.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert!(!applies(&leaving, true));
}

fn defaulted(app: &App, defaults: &Defaults) -> Value {
    let mut object = serde_json::to_value(app).unwrap();
    default(app, &mut object, defaults);
    object
}

#[test]
fn an_organizations_app_gets_its_clusters_values_and_kubeconfig() {
    let bare = app(json!({"spec": {"kubeConfig": {"secret": null}}}));
    let found = Defaults { kubeconfig_namespace: Some("org-acme".into()), ..Defaults::default() };
    let object = defaulted(&bare, &found);
    assert_eq!(object["metadata"]["labels"]["app.kubernetes.io/name"], "hello");
    assert_eq!(object["metadata"]["annotations"], json!({}));
    let values = json!({"kind": "configMap", "name": "demo-cluster-values", "namespace": "org-acme", "priority": 1});
    assert_eq!(object["spec"]["extraConfigs"], json!([values]));
    let kube_config = json!({
        "context": {"name": "demo"}, "inCluster": false,
        "secret": {"name": "demo-kubeconfig", "namespace": "org-acme"},
    });
    assert_eq!(object["spec"]["kubeConfig"], kube_config);
    let again: App = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(defaulted(&again, &found), object, "what is filled in is filled in once");
    assert_eq!(defaulted(&bare, &Defaults::default())["spec"]["kubeConfig"], json!({"inCluster": false}));
}

#[test]
fn values_of_the_cluster_that_an_app_refers_to_are_not_added() {
    let values = json!({"name": "demo-cluster-values", "namespace": "org-acme"});
    for spec in [
        json!({"config": {"configMap": values}}),
        json!({"userConfig": {"configMap": values}}),
        json!({"extraConfigs": [values]}),
    ] {
        let app = app(json!({ "spec": spec }));
        assert_eq!(defaulted(&app, &Defaults::default())["spec"]["extraConfigs"], json!(app)["spec"]["extraConfigs"]);
    }
    let other = app(json!({"spec": {"extraConfigs": [{"name": "mine", "namespace": "org-acme"}]}}));
    let added = defaulted(&other, &Defaults::default());
    assert_eq!(added.pointer("/spec/extraConfigs/1/name"), Some(&json!("demo-cluster-values")));
    assert_eq!(defaulted(&in_cluster(json!({})), &Defaults::default())["spec"].get("extraConfigs"), None);
}

#[test]
fn a_chart_that_clusters_are_made_of_takes_its_version_from_the_release_that_its_values_name() {
    let named = |catalog: &str, name: &str| app(json!({"spec": {"catalog": catalog, "name": name}}));
    let (chart, defaults) = (named("cluster", "cluster-openstack"), Defaults::default());
    let takes = |app: &App| takes_release(app, &defaults);
    assert!(takes(&chart) && takes(&named("cluster-test", "cluster-aws")));
    assert!(!takes(&named("default", "cluster-openstack")) && !takes(&named("cluster", "default-apps-openstack")));
    let old = json!({"metadata": {"namespace": "demo", "labels": {"app-operator.giantswarm.io/version": "2.0.0"}},
        "spec": {"catalog": "cluster", "name": "cluster-openstack"}});
    assert!(!takes(&app(old)), "those of older platforms are left alone");

    let asked = |values: Value| {
        let name = release(&chart, values.as_object().unwrap());
        name.map_err(|refusal| refusal.to_string())
    };
    for none in [json!({}), json!({"global": 1}), json!({"global": {"metadata": {}}})] {
        assert_eq!(asked(none), Ok(None));
    }
    for version in ["1.2.0", "v1.2.0"] {
        assert_eq!(asked(json!({"global": {"release": {"version": version}}})), Ok(Some("openstack-1.2.0".into())));
    }
    let wrong = |why: &str| Err(format!("validation error: {why}"));
    assert_eq!(asked(json!({"global": {"release": "1.2.0"}})), wrong("release config object is not a map"));
    let no_text = wrong("release version string is not found in release config");
    assert_eq!(asked(json!({"global": {"release": {"version": 1.2}}})), no_text);

    let part = |name: &str| Component { catalog: "mine".into(), name: name.into(), version: "0.9.0".into() };
    let made_of = |parts: &[Component]| {
        let mut release = Release::default();
        release.spec.components = parts.to_vec();
        component(&chart, "openstack-1.2.0", Some(release)).map_err(|refusal| refusal.to_string())
    };
    let found = made_of(&[part("kubernetes"), part("cluster-openstack")]).unwrap();
    let missing = "Cannot find the version of 'cluster-openstack' in the Release 'openstack-1.2.0'";
    assert_eq!(made_of(&[part("kubernetes")]), Err(format!("validation error: {missing}")));
    let made = defaulted(&chart, &Defaults { component: Some(found), ..Defaults::default() });
    assert_eq!((&made["spec"]["catalog"], &made["spec"]["version"]), (&json!("mine"), &json!("0.9.0")));
}

#[test]
fn apps_without_a_version_label_take_that_of_their_namespaces_operator() {
    for label in [None, Some("1.0.0")] {
        let labels = json!({"app-operator.giantswarm.io/version": label, "giantswarm.io/cluster": null});
        let app = app(json!({"metadata": {"namespace": "demo", "labels": labels}}));
        let object = defaulted(&app, &Defaults { version: Some("6.4.0".into()), ..Defaults::default() });
        assert_eq!(object["metadata"]["labels"]["app-operator.giantswarm.io/version"], "6.4.0");
        assert_eq!(object["spec"]["extraConfigs"][0]["name"], "demo-cluster-values");
        let old = defaulted(&app, &Defaults { version: Some("2.0.0".into()), ..Defaults::default() });
        assert_eq!(old["metadata"]["labels"]["app.kubernetes.io/name"], "hello", "labels alone");
        assert_eq!(old["spec"].get("extraConfigs"), None);
        assert_eq!(defaulted(&app, &Defaults::default()), json!(app), "nobody knows the version");
    }
}

#[test]
fn lists_of_an_installation_take_the_place_of_those_that_are_built_in_one_by_one() {
    let lists: Lists = serde_saphyr::from_str("userWhitelist: [ci]\nnamespaceBlacklist: [secret]\n").unwrap();
    let app =
        |namespace: &str| in_cluster(json!({"spec": {"config": {"secret": {"name": "v", "namespace": namespace}}}}));
    let judge = |namespace: &str, user: &str| inspect(&app(namespace), user, [], &lists).is_ok();
    assert!(!judge("secret", "jane") && judge("secret", "ci-runner") && judge("giantswarm", "jane"));
    assert_eq!(lists.groups, Lists::default().groups);
    let error = serde_saphyr::from_str::<Lists>("userWhiteList: [ci]").unwrap_err().to_string();
    assert!(error.contains("userWhiteList"), "{error}");
}

#[test]
fn strangers_install_no_operators_and_read_nobody_elses_values() {
    let lists = Lists::default();
    let judge = |app: &App, user: &str, groups: &[&str]| {
        let judged = inspect(app, user, groups.iter().copied(), &lists);
        judged.map_or_else(|refusal| refusal.to_string(), |()| String::new())
    };
    let operator = in_cluster(json!({"spec": {"name": "app-operator", "catalog": "control-plane-catalog"}}));
    let text =
        "security violation error: installing `app-operator` from `control-plane-catalog` catalog is not allowed";
    assert_eq!(judge(&operator, "jane", &["dev"]), text);
    let elsewhere = in_cluster(json!({"spec": {"name": "app-operator"}}));
    assert_eq!(judge(&elsewhere, "jane", &[]), "");
    for namespace in ["giantswarm", "kube-system", "demo-prometheus", "capi-system"] {
        let text = format!("security violation error: references to `{namespace}` namespace not allowed");
        for spec in [
            json!({"config": {"secret": {"name": "v", "namespace": namespace}}}),
            json!({"userConfig": {"configMap": {"name": "v", "namespace": namespace}}}),
            json!({"extraConfigs": [{"name": "v", "namespace": namespace}]}),
            json!({"kubeConfig": {"secret": {"name": "v", "namespace": namespace}}}),
        ] {
            let app = in_cluster(json!({ "spec": spec }));
            assert_eq!(judge(&app, "jane", &["dev"]), text);
            assert_eq!(judge(&app, "system:serviceaccount:giantswarm:default", &[]), "");
            assert_eq!(judge(&app, "root", &["system:masters"]), "");
        }
    }
    let private = in_cluster(json!({
        "metadata": {"namespace": "giantswarm"}, "spec": {"config": {"secret": {"name": "v", "namespace": "giantswarm"}}},
    }));
    assert_eq!(judge(&private, "jane", &[]), "", "whoever may write there may read there");
}

#[test]
fn annotations_that_are_not_published_have_one_of_their_words() {
    let judged = |told: &str| {
        let app = app(json!({"metadata": {"annotations": {"delivery.skep.dev/drift": told}}}));
        own_annotations(&app).map_err(|refusal| refusal.to_string())
    };
    for told in ["", "correct", "warn", "ignore"] {
        assert_eq!(judged(told), Ok(()), "{told}");
    }
    let text = "validation error: annotation `delivery.skep.dev/drift` is `Warn`: it has to be one of `correct`, `warn`, `ignore`";
    assert_eq!(judged("Warn"), Err(text.to_owned()));
    assert_eq!(own_annotations(&app(json!({}))), Ok(()));
    for (told, is_taken) in [("true", true), ("false", true), ("", true), ("yes", false)] {
        for name in ["wait", "take-ownership", "atomic"] {
            let app = app(json!({"metadata": {"annotations": {format!("delivery.skep.dev/{name}"): told}}}));
            assert_eq!(own_annotations(&app).is_ok(), is_taken, "{name}: {told}");
        }
    }
}
