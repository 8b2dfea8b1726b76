//! Installing, upgrading, rolling back, removing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use delivery::release::{Namespace, Options, Outcome, storage::SECRET_BYTES_MAX};
use serde_json::{Value as Json, json};

use crate::support::{DEPLOYMENT, MAP, NS, Wish, World, chart, chart_with, done};

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn unzipped(secret: &Json) -> Json {
    let data = STANDARD.decode(secret["data"]["release"].as_str().unwrap()).unwrap();
    let zipped = STANDARD.decode(data).unwrap();
    serde_json::from_reader(flate2::read::GzDecoder::new(&zipped[..])).unwrap()
}

#[tokio::test]
async fn a_release_is_kept_as_helm_keeps_it() {
    let world = World::new().await;
    let wish =
        Wish::new(chart_with(&[("map", MAP)], &[("templates/NOTES.txt", "hello"), ("README.md", "read")]), "blue");
    let release = done(wish.install(&world).await);
    assert_eq!((release.version, release.info.notes.as_str()), (1, "hello"));
    let secret = world.get(&format!("{SECRETS}/sh.helm.release.v1.shop.v1")).await.unwrap();
    assert_eq!(secret["type"], "helm.sh/release.v1");
    let labels = &secret["metadata"]["labels"];
    for (key, value) in [("name", "shop"), ("owner", "helm"), ("status", "deployed"), ("version", "1")] {
        assert_eq!(labels[key], value, "{key}");
    }
    assert_eq!(labels["createdAt"], "1800000000");
    let kept = unzipped(&secret);
    assert_eq!(kept["info"]["status"], "deployed");
    assert_eq!(kept["info"]["description"], "Install complete");
    assert_eq!(
        (&kept["info"]["deleted"], &kept["info"]["first_deployed"]),
        (&json!(""), &json!("2027-01-15T08:00:00Z"))
    );
    assert_eq!(kept["config"], json!({"color": "blue"}));
    assert_eq!(
        kept["chart"]["metadata"],
        json!({"apiVersion": "v2", "name": "shop", "version": "1.2.3", "appVersion": "7"})
    );
    assert_eq!(kept["chart"]["files"], json!([{"name": "README.md", "data": STANDARD.encode("read")}]));
    assert!(kept["manifest"].as_str().unwrap().starts_with("---\n# Source: shop/templates/map.yaml\napiVersion: v1\n"));
    let map = world.config_map("shop").await.unwrap();
    assert_eq!(map["data"], json!({"color": "blue", "revision": "1"}));
    assert_eq!(map["metadata"]["labels"]["app.kubernetes.io/managed-by"], "Helm");
    assert_eq!(map["metadata"]["annotations"]["meta.helm.sh/release-name"], "shop");
    assert_eq!(map["metadata"]["managedFields"][0]["manager"], "helm");
}

#[tokio::test]
async fn an_upgrade_changes_what_the_chart_changed_and_deletes_what_it_dropped() {
    let world = World::new().await;
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}\n";
    done(Wish::new(chart(&[("map", MAP), ("more", more)]), "blue").install(&world).await);
    world.patch("/api/v1/namespaces/default/configmaps/shop", &json!({"data": {"others": "x"}})).await;
    let release = done(Wish::new(chart(&[("map", MAP)]), "red").upgrade(&world).await);
    assert_eq!((release.version, release.info.description.as_str()), (2, "Upgrade complete"));
    let data = world.config_map("shop").await.unwrap()["data"].clone();
    assert_eq!(data, json!({"color": "red", "revision": "2", "others": "x"}));
    assert!(world.config_map("more").await.is_none());
    assert!(world.config_map("kept").await.is_some());
    assert_eq!(world.history("shop").await, ["1 superseded", "2 deployed"]);
}

#[tokio::test]
async fn the_same_request_is_carried_out_once_and_another_token_makes_it_another() {
    let world = World::new().await;
    let mut wish = Wish::new(chart(&[("map", MAP)]), "blue").with(|options| options.install = true);
    done(wish.upgrade(&world).await);
    world.writes.take();
    assert_eq!(done(wish.upgrade(&world).await).version, 1);
    assert_eq!(world.writes.take(), Vec::<String>::new());
    wish.token = "again".to_owned();
    assert_eq!(done(wish.upgrade(&world).await).version, 2);
}

#[tokio::test]
async fn a_library_is_refused_in_helms_words_and_leaves_no_release() {
    let world = World::new().await;
    let library = "apiVersion: v2\nname: shop\nversion: 1.2.3\ntype: library\n";
    let wish = Wish::new(chart_with(&[("map", MAP)], &[("Chart.yaml", library)]), "blue");
    let refused = wish.install(&world).await.unwrap_err();
    assert_eq!(refused.to_string(), "library charts are not installable");
    assert_eq!(world.history("shop").await, [""; 0]);
    // Nor does one take the place of an application.
    done(Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await);
    assert_eq!(wish.upgrade(&world).await.unwrap_err().to_string(), "library charts are not installable");
    assert_eq!(world.history("shop").await, ["1 deployed"]);
    assert!(world.config_map("shop").await.is_some());
}

#[tokio::test]
async fn names_are_used_once_and_what_is_not_there_is_not_upgraded() {
    let world = World::new().await;
    let told = Wish::new(chart(&[("map", MAP)]), "blue").upgrade(&world).await.unwrap_err().to_string();
    assert_eq!(told, "release: not found: \"shop\" has no deployed releases");
    done(Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await);
    let told = Wish::new(chart(&[("map", MAP)]), "red").install(&world).await.unwrap_err().to_string();
    assert_eq!(told, "release shop: cannot re-use a name that is still in use");
    let wish = Wish::new(chart(&[("map", MAP)]), "red");
    for name in ["Shop", "", "-a", "a..b", &"a".repeat(54)] {
        let mut request = wish.request();
        request.name = name;
        let told = world.engine().install(&request).await.unwrap_err().to_string();
        assert!(told.contains("invalid release name"), "{name}: {told}");
    }
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_of_an_old_one() {
    let world = World::new().await;
    let options = Options::default();
    for color in ["blue", "red", "green"] {
        done(Wish::new(chart(&[("map", MAP)]), color).with(|options| options.install = true).upgrade(&world).await);
    }
    let back = done(world.engine().rollback("shop", NS, Some(1), &options, "").await);
    assert_eq!((back.version, back.info.description.as_str()), (4, "Rollback to 1"));
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
    assert_eq!(
        done(world.engine().rollback("shop", NS, Some(1), &options, "").await).version,
        4,
        "it is the same request"
    );
    let last = done(world.engine().rollback("shop", NS, None, &options, "other").await);
    assert_eq!((last.version, last.config["color"].as_str()), (5, Some("green")));
    let told = world.engine().rollback("shop", NS, Some(77), &options, "").await.unwrap_err().to_string();
    assert_eq!(told, "release: not found: release shop has no 77 version");
    assert_eq!(
        world.history("shop").await,
        ["1 superseded", "2 superseded", "3 superseded", "4 superseded", "5 deployed"]
    );
}

#[tokio::test]
async fn what_is_uninstalled_goes_but_for_what_is_to_be_kept_or_is_anothers() {
    let world = World::new().await;
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: moved}\n";
    done(Wish::new(chart(&[("map", MAP), ("more", more), ("web", DEPLOYMENT)]), "blue").install(&world).await);
    let other = json!({"metadata": {"annotations": {"meta.helm.sh/release-name": "other"}}});
    world.patch("/api/v1/namespaces/default/configmaps/moved", &other).await;
    world.writes.take();
    let outcome = world.engine().uninstall("shop", NS, &Options::default()).await.unwrap();
    assert!(matches!(outcome, Outcome::Gone), "{outcome:?}");
    let deletions: Vec<String> = world.writes.take().into_iter().filter(|write| write.starts_with("DELETE")).collect();
    assert_eq!(
        deletions,
        [
            "DELETE /apis/apps/v1/namespaces/default/deployments/web",
            "DELETE /api/v1/namespaces/default/configmaps/shop",
            "DELETE /api/v1/namespaces/default/secrets/sh.helm.release.v1.shop.v1"
        ]
    );
    assert!(world.config_map("kept").await.is_some() && world.config_map("moved").await.is_some());
    let again = world.engine().uninstall("shop", NS, &Options::default()).await.unwrap();
    assert!(matches!(again, Outcome::Gone));
}

#[tokio::test]
async fn a_history_that_is_kept_says_that_it_is_uninstalled_and_can_be_installed_upon() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("map", MAP)]), "blue");
    done(wish.install(&world).await);
    let keep = Options { keep_history: true, ..Options::default() };
    let gone = done(world.engine().uninstall("shop", NS, &keep).await);
    assert_eq!(gone.info.description, "Uninstallation complete");
    assert_eq!(world.history("shop").await, ["1 uninstalled"]);
    assert!(world.config_map("shop").await.is_none());
    assert_eq!(done(wish.install(&world).await).version, 2);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["revision"], "2");
}

#[tokio::test]
async fn objects_of_others_are_refused_unless_they_are_to_be_taken() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    world.create(maps, &json!({"metadata": {"name": "shop"}, "data": {"others": "x"}})).await;
    let told = Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await.unwrap_err().to_string();
    assert_eq!(
        told,
        "Unable to continue with install: ConfigMap \"shop\" in namespace \"default\" exists and cannot be imported into the current release: \
         invalid ownership metadata; label validation error: missing key \"app.kubernetes.io/managed-by\": must be set to \"Helm\"; \
         annotation validation error: missing key \"meta.helm.sh/release-name\": must be set to \"shop\"; \
         annotation validation error: missing key \"meta.helm.sh/release-namespace\": must be set to \"default\""
    );
    assert_eq!(world.history("shop").await, Vec::<String>::new());
    done(Wish::new(chart(&[("map", MAP)]), "blue").with(|options| options.take_ownership = true).install(&world).await);
    let taken = world.config_map("shop").await.unwrap();
    assert_eq!(taken["data"], json!({"color": "blue", "revision": "1", "others": "x"}));
    assert_eq!(taken["metadata"]["annotations"]["meta.helm.sh/release-namespace"], "default");
}

#[tokio::test]
async fn objects_that_are_marked_as_the_releases_are_adopted() {
    let world = World::new().await;
    let marks = json!({"name": "shop", "labels": {"app.kubernetes.io/managed-by": "Helm"},
                       "annotations": {"meta.helm.sh/release-name": "shop", "meta.helm.sh/release-namespace": "default"}});
    world.create("/api/v1/namespaces/default/configmaps", &json!({"metadata": marks})).await;
    done(Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await);
    assert_eq!(world.config_map("shop").await.unwrap()["data"]["color"], "blue");
}

#[tokio::test]
async fn definitions_come_first_and_are_never_changed_nor_removed() {
    let world = World::new().await;
    let definition = |column: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "things.example.dev"},
            "spec": {"group": "example.dev", "scope": "Namespaced", "names": {"kind": "Thing", "plural": "things"},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "additionalPrinterColumns": [{"name": column, "type": "string", "jsonPath": ".spec.x"}],
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
        .to_string()
    };
    let thing = "{{ if .Capabilities.APIVersions.Has \"example.dev/v1/Thing\" }}apiVersion: example.dev/v1\nkind: Thing\nmetadata: {name: one}\nspec: {x: '{{ .Values.color }}', list: [1, 2]}\n{{ end }}";
    let of = |column: &str, color: &str| {
        Wish::new(chart_with(&[("thing", thing)], &[("crds/things.yaml", &definition(column))]), color)
    };
    let wish = of("First", "blue");
    // It is established a moment after it was made.
    let mut outcome = wish.install(&world).await;
    while matches!(outcome, Ok(Outcome::Waiting { .. })) {
        tokio::task::yield_now().await;
        outcome = wish.install(&world).await;
    }
    done(outcome);
    let thing = "/apis/example.dev/v1/namespaces/default/things/one";
    assert_eq!(world.get(thing).await.unwrap()["spec"], json!({"x": "blue", "list": [1, 2]}));
    world.patch(thing, &json!({"spec": {"filled": true, "list": [1, 2, 3]}})).await;
    done(of("Second", "red").upgrade(&world).await);
    assert_eq!(world.get(thing).await.unwrap()["spec"], json!({"x": "red", "filled": true, "list": [1, 2, 3]}));
    assert!(matches!(world.engine().uninstall("shop", NS, &Options::default()).await, Ok(Outcome::Gone)));
    assert!(world.get(thing).await.is_none());
    let left = world.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.example.dev").await.unwrap();
    assert_eq!(left["spec"]["versions"][0]["additionalPrinterColumns"][0]["name"], "First");
}

#[tokio::test]
async fn a_chart_without_those_it_depends_on_is_refused() {
    let world = World::new().await;
    let head = "apiVersion: v2\nname: shop\nversion: 1.2.3\ndependencies:\n- {name: inner, version: 1.x.x, repository: '', condition: inner.enabled}\n";
    let inner = ("charts/inner/Chart.yaml", "apiVersion: v2\nname: inner\nversion: 1.0.0\n");
    let told =
        Wish::new(chart_with(&[("map", MAP)], &[("Chart.yaml", head)]), "blue").install(&world).await.unwrap_err();
    assert!(
        told.to_string().starts_with("chart shop: found in Chart.yaml, but missing in charts/ directory: inner: "),
        "{told}"
    );
    done(Wish::new(chart_with(&[("map", MAP)], &[("Chart.yaml", head), inner]), "blue").install(&world).await);
}

#[tokio::test]
async fn a_namespace_is_made_with_what_it_is_to_say() {
    let world = World::new().await;
    let one = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    let wish = Wish::new(chart(&[("map", MAP)]), "blue").with(|options| {
        options.namespace = Some(Namespace { labels: one("team", "a"), annotations: one("note", "b") });
    });
    let mut request = wish.request();
    request.namespace = "apps";
    done(world.engine().install(&request).await);
    let made = world.get("/api/v1/namespaces/apps").await.unwrap();
    assert_eq!(
        (&made["metadata"]["labels"]["name"], &made["metadata"]["labels"]["team"]),
        (&json!("apps"), &json!("a"))
    );
    assert_eq!(made["metadata"]["annotations"]["note"], "b");
}

#[tokio::test]
async fn a_chart_sees_what_it_looks_up_and_not_without_end() {
    let world = World::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    world.create(maps, &json!({"metadata": {"name": "first"}, "data": {"next": "second"}})).await;
    world.create(maps, &json!({"metadata": {"name": "second"}, "data": {"word": "found"}})).await;
    let map = "{{ $one := lookup \"v1\" \"ConfigMap\" \"default\" \"first\" }}{{ $two := lookup \"v1\" \"ConfigMap\" \"default\" $one.data.next }}\
               apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shop}\ndata: {word: '{{ $two.data.word }}', none: '{{ lookup \"v1\" \"ConfigMap\" \"default\" \"x\" | len }}'}\n";
    done(Wish::new(chart(&[("map", map)]), "").install(&world).await);
    assert_eq!(world.config_map("shop").await.unwrap()["data"], json!({"word": "found", "none": "0"}));
    let of = |count: usize| {
        let text = format!(
            "{{{{ range until {count} }}}}{{{{ $x := lookup \"v1\" \"ConfigMap\" \"default\" (print \"m\" .) }}}}{{{{ end }}}}"
        );
        Wish::new(chart(&[("many", &text)]), "")
    };
    done(of(64).upgrade(&world).await);
    let told = of(65).upgrade(&world).await.unwrap_err().to_string();
    assert_eq!(told, "chart shop looks up more than 64 objects");
}

#[tokio::test]
async fn a_release_that_no_secret_holds_is_refused_and_says_so() {
    let world = World::new().await;
    // What can't be packed: each byte another.
    let mut seed = 1_u32;
    let mut noise = |count: usize| -> String {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'0' + u8::try_from(seed >> 24).unwrap() % 64)
        };
        (0..count).map(|_| next()).collect()
    };
    let wish = Wish::new(chart_with(&[("map", MAP)], &[("large.txt", &noise(1_100_000))]), "blue");
    let told = wish.install(&world).await.unwrap_err().to_string();
    assert!(
        told.contains("of chart shop takes") && told.contains(&format!("a Secret holds {SECRET_BYTES_MAX}")),
        "{told}"
    );
    assert!(world.config_map("shop").await.is_none(), "nothing was begun");
}

#[tokio::test]
async fn the_history_is_as_long_as_is_wished_and_keeps_what_is_deployed() {
    let world = World::new().await;
    for color in ["a", "b", "c", "d"] {
        let wish = Wish::new(chart(&[("map", MAP)]), color);
        done(wish.with(|options| (options.install, options.history_max) = (true, 2)).upgrade(&world).await);
    }
    assert_eq!(world.history("shop").await, ["3 superseded", "4 deployed"]);
}

#[tokio::test]
async fn an_upgrade_that_fails_leaves_the_last_deployed_and_the_next_goes_from_it() {
    let world = World::new().await;
    done(Wish::new(chart(&[("map", MAP)]), "blue").install(&world).await);
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: wrong}\ndata: {number: 1}\n";
    let outcome = Wish::new(chart(&[("map", MAP), ("wrong", wrong)]), "red").upgrade(&world).await;
    let why = crate::support::failed(outcome);
    assert!(why.starts_with("cannot create ConfigMap \"wrong\" in namespace \"default\": "), "{why}");
    assert_eq!(world.history("shop").await, ["1 deployed", "2 failed"]);
    done(Wish::new(chart(&[("map", MAP)]), "green").upgrade(&world).await);
    assert_eq!(world.history("shop").await, ["1 superseded", "2 failed", "3 deployed"]);
}

#[tokio::test]
async fn what_a_failed_revision_brought_goes_with_the_next() {
    let world = World::new().await;
    let field = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: field}\ndata: {a: '1'{{ if eq .Values.color \"red\" }}, b: '2'{{ end }}}\n";
    done(Wish::new(chart(&[("map", MAP), ("field", field)]), "blue").install(&world).await);
    let more = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n";
    // It comes behind what it brings.
    let wrong = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: wrong}\nspec: {}\n";
    let wish = Wish::new(chart(&[("map", MAP), ("field", field), ("more", more), ("wrong", wrong)]), "red");
    crate::support::failed(wish.upgrade(&world).await);
    assert_eq!(world.config_map("field").await.unwrap()["data"], json!({"a": "1", "b": "2"}));
    assert!(world.config_map("more").await.is_some());
    done(Wish::new(chart(&[("map", MAP), ("field", field)]), "green").upgrade(&world).await);
    assert_eq!(world.config_map("field").await.unwrap()["data"], json!({"a": "1"}));
    assert!(world.config_map("more").await.is_none());
}

#[tokio::test]
async fn a_refusal_of_a_secret_does_not_show_it() {
    let world = World::new().await;
    let secret = |data: &str| {
        let text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\nstringData: {{password: {data}}}\n");
        Wish::new(chart(&[("secret", &text)]), "")
    };
    done(secret("hidden-one").install(&world).await);
    let why = crate::support::failed(secret("[hidden-two]").upgrade(&world).await);
    assert!(why.contains("Secret \"s\"") && !why.contains("hidden-"), "{why}");
}

#[tokio::test]
async fn labels_of_the_release_are_the_users_and_stay() {
    let world = World::new().await;
    let wish = Wish::new(chart(&[("map", MAP)]), "blue");
    done(wish.with(|options| drop(options.labels.insert("team".to_owned(), "a".to_owned()))).install(&world).await);
    done(Wish::new(chart(&[("map", MAP)]), "red").upgrade(&world).await);
    let secret = world.get(&format!("{SECRETS}/sh.helm.release.v1.shop.v2")).await.unwrap();
    assert_eq!(secret["metadata"]["labels"]["team"], "a");
}
