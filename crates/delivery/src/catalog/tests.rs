use std::sync::atomic::{AtomicI64, Ordering};

use api::app::{CatalogSpec, Repository, Restrictions};
use apiserver::{Options as ServerOptions, Server, User};
use control::{Clock, Life, Runner, Step};
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client,
    api::ListParams,
    runtime::{wait::await_condition, watcher},
};
use serde_json::{Value as Json, json};
use store::{Embedded as Store, Limits};

use super::*;
use crate::repository::tests::{Site, site};

const URL: &str = "https://charts.test/stable";

struct World {
    client: Client,
    site: Arc<Site>,
    controller: Catalogs,
    caches: Caches,
    clock: Clock,
    seconds: Arc<AtomicI64>,
}

fn controller(caches: &Caches, writer: &Writer, site: &Arc<Site>) -> Catalogs {
    Catalogs {
        writer: writer.clone(),
        catalogs: caches.catalogs.clone(),
        entries: caches.entries.clone(),
        secrets: caches.credentials.clone(),
        repositories: Arc::default(),
        transport: site.access().transport,
        provider: "openstack".into(),
        past: Mutex::default(),
    }
}

impl World {
    async fn new() -> Self {
        let all = api::crd::all();
        let ours = all.iter().filter(|crd| crd.spec.group == "application.giantswarm.io");
        let crds = ours.map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let options = ServerOptions { crds, ..ServerOptions::default() };
        let server = Server::start(Arc::new(Store::memory(Limits::default())), options).await.unwrap();
        let client = Client::new(server.service_as(User::master("test")), "default");
        let seconds = Arc::new(AtomicI64::new(1_800_000_000));
        let now = seconds.clone();
        let clock = Clock::from_fn(move || Timestamp::from_second(now.load(Ordering::Relaxed)).unwrap());
        let site = site();
        let writer = Writer::new(client.clone(), "test", clock.clone());
        let all = watcher::Config::default;
        let caches = Caches {
            apps: Cache::start(client.clone(), all(), &writer),
            catalogs: Cache::start(client.clone(), all(), &writer),
            entries: Cache::start(client.clone(), all(), &writer),
            credentials: Cache::start(client.clone(), all().labels(CATALOG_LABEL), &writer),
        };
        caches.catalogs.synced().await;
        caches.entries.synced().await;
        caches.credentials.synced().await;
        let controller = controller(&caches, &writer, &site);
        Self { client, site, controller, caches, clock, seconds }
    }

    /// Writes as others do; the controller's caches have read it afterwards.
    async fn write(&self, change: impl FnOnce(&mut Plan) -> &mut Plan) {
        let mut plan = Plan::nothing();
        change(&mut plan);
        self.writer().execute(plan).await.unwrap();
    }

    fn writer(&self) -> &Writer {
        &self.controller.writer
    }

    async fn catalog(&self, labels: Json, spec: Json) {
        let mut all = json!({"title": "t", "description": "d", "logoURL": "", "storage": {"type": "helm", "URL": URL},
            "repositories": [{"type": "helm", "URL": URL}]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let catalog: Catalog =
            serde_json::from_value(json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "Catalog",
            "metadata": {"name": "stable", "namespace": "default", "labels": labels}, "spec": all}))
            .unwrap();
        self.write(|plan| plan.create(&catalog)).await;
    }

    fn index(&self, text: &str) {
        self.site.put(&format!("{URL}/index.yaml"), format!("apiVersion: v1\nentries:\n{text}"));
    }

    /// One reconcile, as it is said to have been: what was written, and how it ended. Indexes are asked for anew.
    async fn reconcile(&self) -> String {
        tokio::time::advance(Duration::from_secs(61)).await;
        self.seconds.fetch_add(61, Ordering::Relaxed);
        let key = Key::new("default", "stable");
        let seen = self.controller.observe(&key).await.unwrap().unwrap();
        let work = self.controller.plan(&seen, self.clock.now());
        let told = work.plan.to_string();
        self.controller.act(&key, &seen, work).await.unwrap();
        told
    }

    fn entries(&self) -> Api<AppCatalogEntry> {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn names(&self) -> Vec<String> {
        let all = self.entries().list(&ListParams::default()).await.unwrap();
        all.items.into_iter().filter_map(|entry| entry.metadata.name).collect()
    }

    async fn events(&self) -> Vec<(String, i32)> {
        let all = Api::<Event>::namespaced(self.client.clone(), "default").list(&ListParams::default()).await.unwrap();
        let mut all: Vec<_> =
            all.items.into_iter().map(|event| (event.reason.unwrap_or_default(), event.count.unwrap_or(1))).collect();
        all.sort();
        all
    }
}

const SETTLED: &str = "waits 300 s: the catalog's index";
const TWO: &str = "  hello:
  - {name: hello, version: 1.0.0, appVersion: 0.7.0, created: '2026-03-01T10:00:00.5Z', description: d, home: 'https://h.test', icon: i, keywords: [k], apiVersion: v2,
     annotations: {application.giantswarm.io/team: t, application.giantswarm.io/restrictions/fixed-namespace: shop}}
  - {name: hello, version: 1.1.0, created: '2026-03-02T10:00:00Z'}
";

#[tokio::test(start_paused = true)]
async fn versions_of_an_index_become_entries_as_published_and_nothing_is_written_twice() {
    let world = World::new().await;
    world.catalog(json!({"application.giantswarm.io/catalog-type": "stable"}), json!({})).await;
    world.index(TWO);
    let told = world.reconcile().await;
    assert!(told.ends_with(SETTLED), "{told}");
    assert_eq!(world.names().await, ["stable-hello-1.0.0", "stable-hello-1.1.0"]);
    let mut entry = serde_json::to_value(world.entries().get("stable-hello-1.0.0").await.unwrap()).unwrap();
    let owner = entry["metadata"]["ownerReferences"][0].take();
    assert_eq!(
        (&owner["kind"], &owner["name"], &owner["blockOwnerDeletion"]),
        (&json!("Catalog"), &json!("stable"), &json!(true))
    );
    assert_eq!(
        entry["metadata"]["labels"],
        json!({"app.kubernetes.io/name": "hello", "app.kubernetes.io/version": "1.0.0", "application.giantswarm.io/catalog": "stable",
            "application.giantswarm.io/catalog-type": "stable", "latest": "false", "giantswarm.io/managed-by": "app-operator-unique"})
    );
    assert_eq!(entry["metadata"]["annotations"], json!({"application.giantswarm.io/team": "t"}), "keys have one slash");
    assert_eq!(
        entry["spec"],
        json!({"appName": "hello", "appVersion": "0.7.0", "version": "1.0.0", "catalog": {"name": "stable", "namespace": "default"},
            "chart": {"apiVersion": "v2", "description": "d", "home": "https://h.test", "icon": "i", "keywords": ["k"]},
            "dateCreated": "2026-03-01T10:00:01Z", "dateUpdated": "2026-03-01T10:00:01Z",
            "restrictions": {"clusterSingleton": false, "fixedNamespace": "shop", "gpuInstances": false, "namespaceSingleton": false}})
    );
    assert_eq!(world.reconcile().await, SETTLED);
    assert_eq!(world.events().await, []);
}

#[tokio::test(start_paused = true)]
async fn what_an_index_no_longer_has_goes_and_what_others_changed_is_put_back() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    world.index(TWO);
    world.reconcile().await;
    world.index("  hello: [{name: hello, version: 1.1.0, created: '2026-03-02T10:00:00Z'}]\n  other: [{name: other, version: 0.1.0}]\n");
    let told = world.reconcile().await;
    assert_eq!(
        told,
        format!(
            "create AppCatalogEntry default/stable-other-0.1.0\ndelete AppCatalogEntry default/stable-hello-1.0.0\n{SETTLED}"
        )
    );
    // When it was made is not known; when it was first seen stays.
    let first = world.entries().get("stable-other-0.1.0").await.unwrap().spec.date_created.unwrap();
    assert_eq!(first.0.as_second(), 1_800_000_000 + 2 * 61);
    let before = world.entries().get("stable-hello-1.1.0").await.unwrap();
    let mut after = before.clone();
    after.metadata.labels.as_mut().unwrap().insert("latest".into(), "false".into());
    after.spec.app_version = "9".into();
    world.write(|plan| plan.update(&before, &after)).await;
    let told = world.reconcile().await;
    assert!(told.starts_with("update AppCatalogEntry default/stable-hello-1.1.0"), "{told}");
    assert_eq!(world.reconcile().await, SETTLED);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_cannot_be_followed_takes_nothing_away_and_is_told_and_tried_ever_later() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    world.index(TWO);
    world.reconcile().await;
    let (names, address) = (world.names().await, format!("{URL}/index.yaml"));
    let mut waits = Vec::new();
    for (page, reason) in [
        (Some("<html>"), "IndexUnavailable"),
        (Some("apiVersion: v1\nentries: {}"), "IndexEmpty"),
        (Some("apiVersion: v1\nentries: {hello: []}"), "IndexEmpty"),
        (None, "IndexUnavailable"),
        (None, "IndexUnavailable"),
        (None, "IndexUnavailable"),
        (None, "IndexUnavailable"),
    ] {
        world.site.pages.lock().remove(&address);
        page.into_iter().for_each(|page| world.site.put(&address, page));
        let told = world.reconcile().await;
        assert!(told.starts_with(&format!("event Warning {reason}: ")) && told.lines().count() == 2, "{told}");
        waits.push(told.rsplit_once("waits ").unwrap().1.split(' ').next().unwrap().to_owned());
        assert_eq!(world.names().await, names);
    }
    assert_eq!(waits, ["10", "20", "40", "80", "160", "300", "300"]);
    let gone = ("IndexUnavailable".to_owned(), 4);
    assert!(world.events().await.contains(&gone), "what is told again is one event: {:?}", world.events().await);
    world.index(TWO);
    let told = world.reconcile().await;
    assert_eq!(told, format!("event Normal IndexFollowed: all that the index offers is offered\n{SETTLED}"));
    assert_eq!(world.reconcile().await, SETTLED);
}

#[tokio::test(start_paused = true)]
async fn mirrors_are_asked_when_the_storage_does_not_answer_and_a_hang_is_told() {
    let world = World::new().await;
    let mirror = json!({"type": "helm", "URL": "https://mirror.test"});
    world
        .catalog(
            json!({}),
            json!({"storage": {"type": "helm", "URL": "https://slow.test/hangs"}, "repositories": [mirror]}),
        )
        .await;
    let told = world.reconcile().await;
    let late = "https://slow.test/hangs/index.yaml: there was no whole answer within 30 s";
    assert!(told.contains(late) && told.contains("https://mirror.test/index.yaml: it answers 404"), "{told}");
    let repositories =
        (0..PLACES_MAX + 2).map(|number| Repository { url: number.to_string(), ..Repository::default() });
    let spec = CatalogSpec { repositories: repositories.collect(), ..CatalogSpec::default() };
    assert_eq!(places(&Catalog::new("c", spec)).len(), PLACES_MAX);
    world.site.put("https://mirror.test/index.yaml", format!("apiVersion: v1\nentries:\n{TWO}"));
    world.reconcile().await;
    assert_eq!(world.names().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_lists_is_a_catalog_and_one_that_does_not_is_told() {
    let world = World::new().await;
    world
        .catalog(
            json!({}),
            json!({"storage": {"type": "oci", "URL": "oci://r.test/charts"}, "repositories": [
        {"type": "oci", "URL": "oci://r.test/charts"}]}),
        )
        .await;
    let told = world.reconcile().await;
    assert!(
        told.starts_with("event Warning IndexUnavailable: oci://r.test/charts: the registry does not list"),
        "{told}"
    );
    let config = json!({"name": "hello", "version": "1.0.0", "appVersion": "7", "apiVersion": "v2"});
    let annotations = json!({"org.opencontainers.image.created": "2026-01-02T03:04:05Z"});
    world.site.push_chart("charts/hello", "1.0.0", &config, &annotations);
    world.site.put("https://r.test/v2/charts/hello/tags/list?n=1000", r#"{"tags": ["1.0.0"]}"#);
    world.site.put("https://r.test/v2/_catalog?n=1000", r#"{"repositories": ["charts/hello"]}"#);
    world.reconcile().await;
    let entry = world.entries().get("stable-hello-1.0.0").await.unwrap();
    assert_eq!((entry.spec.app_version.as_str(), entry.spec.chart.unwrap().api_version.as_str()), ("7", "v2"));
    assert_eq!(entry.spec.date_created.unwrap().0.to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(world.reconcile().await, SETTLED);
}

#[tokio::test(start_paused = true)]
async fn what_no_object_can_be_made_of_is_told_once_and_the_rest_is_offered() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    world.index("  a: [{name: a, version: 1.0.0+b}, {name: a, version: 0.9.0}]\n  B: [{name: B, version: 1.0.0}]\n");
    let told = world.reconcile().await;
    assert!(
        told.starts_with("event Warning VersionsRefused: not offered as the index has it: B 1.0.0: the name"),
        "{told}"
    );
    assert!(told.contains("a 1.0.0+b: the version as a label"), "{told}");
    assert_eq!(world.names().await, ["stable-a-0.9.0"]);
    assert_eq!(world.entries().get("stable-a-0.9.0").await.unwrap().metadata.labels.unwrap()["latest"], "true");
    assert_eq!(world.reconcile().await, SETTLED);
}

#[tokio::test(start_paused = true)]
async fn entries_of_others_are_left_alone() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    let spec = json!({"appName": "hello", "appVersion": "9", "version": "1.1.0", "catalog": {"name": "stable"},
        "dateCreated": "2026-01-01T00:00:00Z", "dateUpdated": "2026-01-01T00:00:00Z"});
    // Of nobody, and of a catalog whose name and an app's make the same together.
    let other = json!({"application.giantswarm.io/catalog": "stable-hello", "giantswarm.io/managed-by": MANAGER});
    let own = json!({"application.giantswarm.io/catalog": "stable"});
    for (name, labels) in [("stable-hello-1.1.0", other), ("stable-own-1", own)] {
        let entry: AppCatalogEntry = serde_json::from_value(
            json!({"apiVersion": "application.giantswarm.io/v1alpha1", "kind": "AppCatalogEntry",
            "metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": spec}),
        )
        .unwrap();
        world.write(|plan| plan.create(&entry)).await;
    }
    world.index(TWO);
    let told = world.reconcile().await;
    assert!(told.contains("stable-hello-1.1.0 is there already and is not the catalog's"), "{told}");
    assert_eq!(world.names().await, ["stable-hello-1.0.0", "stable-hello-1.1.0", "stable-own-1"]);
    assert_eq!(world.entries().get("stable-hello-1.1.0").await.unwrap().spec.app_version, "9");
}

#[tokio::test(start_paused = true)]
async fn community_catalogs_are_not_asked_and_what_others_offer_of_them_stays() {
    let world = World::new().await;
    world.catalog(json!({"application.giantswarm.io/catalog-type": "community"}), json!({})).await;
    world.index(TWO);
    assert_eq!(world.reconcile().await, "settled");
    assert_eq!((world.names().await.len(), world.site.asked()), (0, 0));
    let catalog = Api::<Catalog>::namespaced(world.client.clone(), "default").get("stable").await.unwrap();
    let version = Entry { name: "hello".into(), version: "0.9.0".into(), ..Entry::default() };
    world.write(|plan| plan.create(&only(&catalog, &version, Timestamp::UNIX_EPOCH))).await;
    assert_eq!(world.reconcile().await, "settled");
    assert_eq!((world.names().await, world.site.asked()), (vec!["stable-hello-0.9.0".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn apps_whose_highest_version_is_for_other_providers_are_not_offered() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    let version = |version: &str, providers: &str| {
        format!(
            "{{name: a, version: {version}, annotations: {{application.giantswarm.io/restrictions/compatible-providers: '{providers}'}}}}"
        )
    };
    world.index(&format!("  a: [{}, {}]\n", version("1.0.0", ""), version("1.1.0", "aws,openstack")));
    world.reconcile().await;
    assert_eq!(world.names().await, ["stable-a-1.0.0", "stable-a-1.1.0"]);
    world.index(&format!(
        "  a: [{}, {}]\n  b: [{{name: b, version: 1.0.0}}]\n",
        version("1.0.0", ""),
        version("1.2.0", "aws")
    ));
    world.reconcile().await;
    assert_eq!(world.names().await, ["stable-b-1.0.0"]);
}

#[tokio::test(start_paused = true)]
async fn metadata_is_fetched_once_and_what_an_entry_has_of_it_stays_while_it_cannot_be_had() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    let version = |version: &str| {
        format!(
            "{{name: a, version: {version}, annotations: {{application.giantswarm.io/metadata: 'a-{version}.tgz-meta/main.yaml'}}}}"
        )
    };
    world.index(&format!("  a: [{}, {}]\n", version("1.0.0"), version("1.1.0")));
    let at = |version: &str| format!("{URL}/a-{version}.tgz-meta/main.yaml");
    let file = "annotations: {x: y}\nchartApiVersion: v1\nrestrictions: {clusterSingleton: true}\nupstreamChartVersion: '3'\ndateCreated: '2026-01-02T03:04:05Z'\n";
    world.site.put(&at("1.0.0"), file);
    world.reconcile().await;
    let entry = world.entries().get("stable-a-1.0.0").await.unwrap();
    assert_eq!(entry.spec.restrictions, Some(Restrictions { cluster_singleton: true, ..Restrictions::default() }));
    assert_eq!(entry.spec.chart.as_ref().unwrap().upstream_chart_version.as_deref(), Some("3"));
    assert_eq!(entry.spec.date_created.as_ref().unwrap().0.to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(entry.metadata.annotations.as_ref().unwrap()["x"], "y");
    assert_eq!(world.names().await.len(), 2, "who has none is offered all the same");
    let asked = world.site.asked();
    assert_eq!(world.reconcile().await, SETTLED);
    assert_eq!(world.site.asked(), asked + 2, "the index, and the file that was not there");

    // Another process, to which the repository answers something else.
    let other = controller(&world.caches, world.writer(), &world.site);
    world.site.put(&at("1.0.0"), "[");
    let seen = other.observe(&Key::new("default", "stable")).await.unwrap().unwrap();
    let told = other.plan(&seen, world.clock.now()).plan.to_string();
    assert!(told.starts_with("event Warning VersionsRefused: ") && told.contains("metadata of a 1.0.0: "), "{told}");
    assert!(told.ends_with("\nwaits 30 s: metadata of apps") && told.lines().count() == 2, "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_repository_is_asked_with_the_credentials_in_the_secret_of_its_catalog() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    world.index(TWO);
    let secret = |data: Json| -> Secret {
        serde_json::from_value(
            json!({"apiVersion": "v1", "kind": "Secret", "stringData": data, "metadata": {"name": "stable-credentials",
            "namespace": "default", "labels": {"application.giantswarm.io/catalog": "stable"}}}),
        )
        .unwrap()
    };
    world.write(|plan| plan.create(&secret(json!({"token": "t"})))).await;
    world.reconcile().await;
    let told: Vec<String> = world.site.seen.lock().drain(..).map(|(_, told)| told).collect();
    assert_eq!(told, ["Bearer t"]);
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), "default");
    let before = secrets.get("stable-credentials").await.unwrap();
    let mut after = before.clone();
    after.string_data = Some([("tls.crt".to_owned(), "x".to_owned())].into());
    world.write(|plan| plan.update(&before, &after)).await;
    let told = world.reconcile().await;
    assert!(
        told.starts_with("event Warning CredentialsInvalid: secret stable-credentials: tls.crt is not acted upon"),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_list_is_written_in_pieces_and_one_that_is_too_long_not_at_all() {
    let world = World::new().await;
    world.catalog(json!({}), json!({})).await;
    let charts = |count: usize| {
        (0..count).map(|number| format!("  c{number}: [{{name: c{number}, version: 1.0.0}}]\n")).collect::<String>()
    };
    world.index(&charts(WRITES_MAX + 1));
    let told = world.reconcile().await;
    assert_eq!(told.lines().count(), WRITES_MAX + 2);
    assert_eq!(world.names().await.len(), WRITES_MAX);
    assert_eq!(world.reconcile().await.lines().count(), 2);
    assert_eq!(world.reconcile().await, SETTLED);

    let of = |count: usize| {
        let text = format!("apiVersion: v1\nentries:\n{}", charts(count));
        let catalog = Arc::new(Catalog::new("stable", CatalogSpec::default()));
        let index = Some(Ok(Arc::new(Index::parse(text.as_bytes()).unwrap())));
        let (entries, notes, provider) = (Vec::new(), HashMap::new(), String::new());
        plan::plan(
            &Seen { catalog, entries, index, notes, provider, failures: 0, told: None, mistyped: None },
            Timestamp::UNIX_EPOCH,
        )
    };
    let creates = |work: &Work| work.plan.steps.iter().filter(|step| matches!(step, Step::Create { .. })).count();
    assert_eq!(creates(&of(ENTRIES_MAX)), ENTRIES_MAX);
    let over = of(ENTRIES_MAX + 1);
    assert!(over.failed && over.told.as_ref().unwrap().contains("more than 10000 entries") && creates(&over) == 0);
}

#[tokio::test]
async fn the_controller_follows_catalogs_until_it_is_shut_down() {
    let world = World::new().await;
    world.index(TWO);
    let (runner, life) = (Runner::new(4, world.writer()), Life::default());
    feed(&world.caches, &runner.queue());
    life.spawn(runner, controller(&world.caches, world.writer(), &world.site));
    world.catalog(json!({}), json!({})).await;
    let made = |entry: Option<&AppCatalogEntry>| entry.is_some();
    await_condition(world.entries(), "stable-hello-1.1.0", made).await.unwrap();
    // Its own entries wake it: what is taken away is made again.
    let entry = world.entries().get("stable-hello-1.1.0").await.unwrap();
    world.write(|plan| plan.delete(&entry)).await;
    let again = move |now: Option<&AppCatalogEntry>| now.is_some_and(|now| now.metadata.uid != entry.metadata.uid);
    await_condition(world.entries(), "stable-hello-1.1.0", again).await.unwrap();
    life.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_repository_whose_type_contradicts_its_address_is_told_once_and_asked_by_its_address() {
    let world = World::new().await;
    let repositories = json!([{"type": "oci", "URL": URL}, {"type": "oci", "URL": "oci://r.test/charts"}, {"type": "helm", "URL": "oci://r.test/x"}]);
    world.catalog(json!({}), json!({ "repositories": repositories })).await;
    world.index(TWO);
    let told = world.reconcile().await;
    let wrong = format!("{URL} has the type \"oci\", oci://r.test/x has the type \"helm\": ");
    assert!(told.contains("RepositoryTypeWrong") && told.contains(&wrong), "{told}");
    assert_eq!(world.names().await, ["stable-hello-1.0.0", "stable-hello-1.1.0"]);
    assert_eq!(world.reconcile().await, SETTLED);
    assert_eq!(world.events().await, [("RepositoryTypeWrong".to_owned(), 1)]);
}

#[test]
fn of_many_repositories_with_a_wrong_type_some_are_named() {
    let wrong = |number: usize| Repository { type_: "x".into(), url: format!("https://{number}.test") };
    let mut catalog = Catalog::default();
    catalog.spec.repositories = (0..5).map(wrong).collect();
    assert!(!plan::mistyped(&catalog).unwrap().contains("more"));
    catalog.spec.repositories = (0..6).map(wrong).collect();
    assert!(plan::mistyped(&catalog).unwrap().contains("https://4.test has the type \"x\", and 1 more: "));
    assert_eq!(plan::mistyped(&Catalog::default()), None);
}
