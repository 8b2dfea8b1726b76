use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_lc_rs::{rand::SystemRandom, signature::EcdsaKeyPair};
use axum::{Router, body::Body, extract::State, response::IntoResponse};
use base64::{Engine, engine::general_purpose::STANDARD};
use helm::chart::Files;
use http::{HeaderMap, Method, StatusCode, Uri, header};
use parking_lot::Mutex;
use serde_json::json;
use transport::Local;

use super::*;
use crate::repository::{Class, Index, tests::key};

const URL: &str = "https://charts.test/stable";
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A repository and a registry: what is at which address, and who is let in.
#[derive(Default)]
struct Hosts {
    pages: Mutex<HashMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
    /// Writes to the registry that are answered.
    writes: AtomicUsize,
    writes_max: AtomicUsize,
}

/// A registry as small as one can be: uploads in one piece, manifests by tag, and none without what it names.
async fn answer(
    State(hosts): State<Arc<Hosts>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> axum::response::Response {
    let at = format!("https://{}{}", headers[header::HOST].to_str().unwrap(), uri.path());
    hosts.asked.lock().push(format!("{method} {at}"));
    let is_registry = at.starts_with("https://r.test/");
    if is_registry && headers.get(header::AUTHORIZATION).is_none_or(|told| told != "Basic dTpw") {
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"r\"")]).into_response();
    }
    if matches!(method, Method::GET | Method::HEAD) {
        return match hosts.pages.lock().get(&at) {
            Some(page) => page.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        };
    }
    if hosts.writes.fetch_add(1, Ordering::SeqCst) >= hosts.writes_max.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    if method == Method::POST {
        return (StatusCode::ACCEPTED, [(header::LOCATION, format!("{}1?_state=x", uri.path()))]).into_response();
    }
    let mut pages = hosts.pages.lock();
    let path = match at.split_once("/blobs/uploads/") {
        Some((start, _)) => {
            assert_eq!(
                uri.query(),
                Some(format!("_state=x&digest={}", digest::of(&body).replace(':', "%3A")).as_str())
            );
            format!("{start}/blobs/{}", digest::of(&body))
        }
        None => {
            let manifest: Json = serde_json::from_slice(&body).unwrap();
            let start = at.split_once("/manifests/").unwrap().0;
            let parts = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
            for part in parts {
                assert!(pages.contains_key(&format!("{start}/blobs/{}", part["digest"].as_str().unwrap())));
            }
            at
        }
    };
    pages.insert(path, body);
    StatusCode::CREATED.into_response()
}

impl Hosts {
    fn new() -> Arc<Self> {
        let hosts = Arc::new(Self::default());
        hosts.writes_max.store(usize::MAX, Ordering::SeqCst);
        let entries: Vec<Json> =
            ["1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"].map(|version| hosts.publish("hello", version)).into();
        let other = hosts.publish("other", "0.1.0");
        hosts.put("index.yaml", index(entries.into_iter().chain([other]), "").unwrap().into());
        hosts
    }

    fn put(&self, file: &str, bytes: Bytes) {
        self.pages.lock().insert(format!("{URL}/{file}"), bytes);
    }

    fn publish(&self, name: &str, version: &str) -> Json {
        let text = format!("{{apiVersion: v2, name: {name}, version: {version}, maintainers: [{{name: m}}]}}");
        let package = Package::pack(&Files::from([("Chart.yaml".to_owned(), Arc::from(text.as_bytes()))])).unwrap();
        let file = package.file();
        self.put(&file, package.archive.clone());
        package.entry("2026-01-02T03:04:05Z", &file)
    }

    fn access(self: &Arc<Self>) -> Access {
        Access::new(Local::shared::<Body, Body>(Router::new().fallback(answer).with_state(self.clone())))
    }

    fn own(self: &Arc<Self>) -> Access {
        let credentials = repository::Credentials::Basic { user: "u".into(), password: "p".into() };
        Access { credentials: Some(credentials), home: Some("oci://r.test/charts".into()), ..self.access() }
    }

    async fn copy(self: &Arc<Self>, wanted: &[Wanted], target: &Target<'_>) -> Result<Report> {
        mirror(&Repositories::default(), (&self.access(), URL), wanted, target, NOW).await
    }

    fn fetched(&self) -> usize {
        self.asked.lock().drain(..).filter(|asked| asked.ends_with(".tgz")).count()
    }
}

fn want(name: &str, versions: &str, count: usize) -> Wanted {
    Wanted { name: name.into(), versions: versions.into(), count }
}

fn told(report: &Report) -> Vec<String> {
    let copied = report.copied.iter();
    let mut told: Vec<String> =
        copied.map(|one| format!("{} {}{}", one.name, one.version, if one.fresh { " fresh" } else { "" })).collect();
    told.extend(report.failed.iter().map(ToString::to_string));
    told
}

#[tokio::test]
async fn what_is_wanted_is_copied_with_its_digest_and_not_copied_again() {
    let (hosts, folder) = (Hosts::new(), tempfile::tempdir().unwrap());
    let target = Target::Folder(&folder.path().join("charts"));
    let wanted = [want("hello", "<2", 5), want("other", "", 1)];
    let report = hosts.copy(&wanted, &target).await.unwrap();
    assert_eq!(told(&report), ["hello 1.1.0 fresh", "hello 1.0.0 fresh", "other 0.1.0 fresh"]);
    let read = || {
        let files = std::fs::read_dir(folder.path().join("charts")).unwrap().map(|file| file.unwrap().path());
        files
            .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(&path).unwrap()))
            .collect::<BTreeMap<_, _>>()
    };
    let files = read();
    assert_eq!(files.len(), 4, "{:?}", files.keys());
    let text = String::from_utf8(files[std::ffi::OsStr::new("index.yaml")].clone()).unwrap();
    let index = Index::parse(text.as_bytes()).unwrap();
    let entry = index.find("hello", "1.1.0").unwrap();
    assert_eq!((entry.urls[0].as_str(), entry.created.as_str()), ("hello-1.1.0.tgz", "2026-01-02T03:04:05Z"));
    assert!(digest::matches(&files[std::ffi::OsStr::new("hello-1.1.0.tgz")], &entry.digest));
    assert!(text.contains("maintainers"), "what an index says of a chart is all there: {text}");

    assert_eq!(hosts.fetched(), 3);
    let later = "2030-01-01T00:00:00Z".parse().unwrap();
    let again = mirror(&Repositories::default(), (&hosts.access(), URL), &wanted, &target, later).await.unwrap();
    assert_eq!(told(&again), ["hello 1.1.0", "hello 1.0.0", "other 0.1.0"]);
    assert_eq!((hosts.fetched(), read()), (0, files));
    // More of it later: what was there stays, and what somebody took away is no longer listed.
    std::fs::remove_file(folder.path().join("charts/other-0.1.0.tgz")).unwrap();
    let report = hosts.copy(&[want("hello", "", 1)], &target).await.unwrap();
    assert_eq!(told(&report), ["hello 2.0.0 fresh"]);
    let index = Index::parse(&read()[std::ffi::OsStr::new("index.yaml")]).unwrap();
    assert_eq!((index.len(), index.entries.contains_key("other")), (3, false));
}

#[tokio::test]
async fn what_is_not_what_it_should_be_is_told_and_nothing_of_it_kept() {
    let (hosts, folder) = (Hosts::new(), tempfile::tempdir().unwrap());
    let target = Target::Folder(folder.path());
    hosts.put("hello-1.0.0.tgz", Bytes::from_static(b"something else"));
    let wanted = [
        want("hello", "1.0.0", 1),
        want("hello", "1.2.0-rc.1", 1),
        want("hello", ">9", 1),
        want("gone", "", 1),
        want("other", "]", 1),
    ];
    let report = hosts.copy(&wanted, &target).await.unwrap();
    let told = told(&report);
    assert_eq!(told[0], "hello 1.2.0-rc.1 fresh");
    assert!(told[1..4].contains(&"hello >9: no version of it fits".to_owned()), "{told:?}");
    assert!(told[1..4].contains(&format!("gone: {URL} has no such chart")), "{told:?}");
    assert!(told.iter().any(|one| one.starts_with("other ]: improper constraint")), "{told:?}");
    assert!(told[4].starts_with(&format!("{URL}/hello-1.0.0.tgz: the archive has the digest ")), "{told:?}");
    let mut names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["hello-1.2.0-rc.1.tgz", "index.yaml"]);

    // A chart that calls itself otherwise than the index does.
    let mut entry = hosts.publish("other", "0.1.0");
    entry["name"] = "hello".into();
    hosts.put("index.yaml", index([entry], "").unwrap().into());
    let report = hosts.copy(&[want("hello", "", 1)], &target).await.unwrap();
    assert_eq!(self::told(&report), [format!("hello 0.1.0: the archive at {URL}/other-0.1.0.tgz is of other 0.1.0")]);
}

#[tokio::test]
async fn a_copy_that_was_cut_off_is_gone_on_with_and_half_a_file_is_none() {
    let (hosts, folder) = (Hosts::new(), tempfile::tempdir().unwrap());
    let target = Target::Folder(folder.path());
    let wanted = [want("hello", "<2", 5)];
    let archive = hosts.pages.lock()[&format!("{URL}/hello-1.0.0.tgz")].clone();
    std::fs::write(folder.path().join("hello-1.0.0.tgz"), &archive).unwrap();
    std::fs::write(folder.path().join("hello-1.1.0.tgz"), &archive[..10]).unwrap();
    std::fs::write(folder.path().join("hello-1.1.0.tgz.part"), &archive[..10]).unwrap();
    let report = hosts.copy(&wanted, &target).await.unwrap();
    assert_eq!(told(&report), ["hello 1.1.0 fresh", "hello 1.0.0"]);
    assert!(!folder.path().join("hello-1.1.0.tgz.part").exists());
    let index = Index::parse(&std::fs::read(folder.path().join("index.yaml")).unwrap()).unwrap();
    assert_eq!(index.len(), 2);
    // Somebody else's file is not written over.
    std::fs::write(folder.path().join("index.yaml"), "a page").unwrap();
    let error = hosts.copy(&wanted, &target).await.unwrap_err();
    assert!(error.to_string().contains("it is no index"), "{error}");
}

#[tokio::test]
async fn one_at_a_time_copies_into_a_folder() {
    let (hosts, folder) = (Hosts::new(), tempfile::tempdir().unwrap());
    let held = alone(folder.path()).unwrap();
    let error = hosts.copy(&[want("hello", "", 1)], &Target::Folder(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("charts are being copied here already"), "{error}");
    drop(held);
    assert!(hosts.copy(&[want("hello", "", 1)], &Target::Folder(folder.path())).await.is_ok());
}

#[tokio::test]
async fn charts_are_put_into_a_registry_whole_or_not_at_all_and_pulled_from_there() {
    let hosts = Hosts::new();
    let own = hosts.own();
    let target = Target::Registry { access: &own, url: "oci://r.test/charts" };
    let wanted = [want("hello", "", 1)];
    // A registry that fails at any of the five writes.
    for writes in 0..5 {
        hosts.writes.store(0, Ordering::SeqCst);
        hosts.writes_max.store(writes, Ordering::SeqCst);
        hosts.pages.lock().retain(|at, _| !at.starts_with("https://r.test/"));
        let report = hosts.copy(&wanted, &target).await.unwrap();
        assert!(told(&report)[0].contains("502"), "{writes}: {:?}", told(&report));
        assert!(!hosts.pages.lock().keys().any(|at| at.contains("/manifests/")), "{writes}");
    }
    hosts.writes_max.store(usize::MAX, Ordering::SeqCst);
    let report = hosts.copy(&wanted, &target).await.unwrap();
    assert_eq!(told(&report), ["hello 2.0.0 fresh"]);
    hosts.fetched();
    assert_eq!(told(&hosts.copy(&wanted, &target).await.unwrap()), ["hello 2.0.0"]);
    assert_eq!(hosts.fetched(), 0, "what is there is not fetched again");

    let fetched = Repositories::default().archive(&own, "oci://r.test/charts/hello:2.0.0", None).await.unwrap();
    assert_eq!(fetched.digest, report.copied[0].digest);
    // And back into a folder: names are enough, a registry need not list.
    let folder = tempfile::tempdir().unwrap();
    hosts
        .pages
        .lock()
        .insert("https://r.test/v2/charts/hello/tags/list".into(), Bytes::from_static(br#"{"tags": ["2.0.0"]}"#));
    let from = (&own, "oci://r.test/charts");
    let back = mirror(&Repositories::default(), from, &wanted, &Target::Folder(folder.path()), NOW).await.unwrap();
    assert_eq!(told(&back), ["hello 2.0.0 fresh"]);
    assert_eq!(back.copied[0].digest, report.copied[0].digest);

    // Another chart under the same version is not replaced.
    let text = "{apiVersion: v2, name: hello, version: 2.0.0, description: another}";
    let package = Package::pack(&Files::from([("Chart.yaml".to_owned(), Arc::from(text.as_bytes()))])).unwrap();
    hosts.put("hello-2.0.0.tgz", package.archive.clone());
    hosts.put("index.yaml", index([package.entry("", "hello-2.0.0.tgz")], "").unwrap().into());
    let report = hosts.copy(&wanted, &target).await.unwrap();
    assert!(told(&report)[0].contains("another artefact is there under this version"), "{:?}", told(&report));
}

#[tokio::test]
async fn more_versions_than_one_call_copies_are_refused() {
    let hosts = Hosts::new();
    let many = |count: usize| {
        let entry = |number: usize| format!("  - {{name: hello, version: 0.0.{number}, urls: [hello.tgz]}}\n");
        let text = format!("apiVersion: v1\nentries:\n  hello:\n{}", (0..count).map(entry).collect::<String>());
        hosts.put("index.yaml", text.into());
    };
    many(VERSIONS_MAX + 1);
    let folder = tempfile::tempdir().unwrap();
    let error = hosts.copy(&[want("hello", "", usize::MAX)], &Target::Folder(folder.path())).await.unwrap_err();
    assert!(error.to_string().contains("10001 versions are wanted"), "{error}");
    // One fewer are let through to the first that is not there.
    let (access, all) = (hosts.access(), Repositories::default());
    many(VERSIONS_MAX);
    let found = sources(&all, (&access, URL), &[want("hello", "", usize::MAX)], &mut Vec::new()).await.unwrap();
    assert_eq!(found.len(), VERSIONS_MAX);
    let error = all.archive(&access, &found[0].url, None).await.unwrap_err();
    assert_eq!(error.class, Class::Missing);
}

/// Puts an artefact into a registry by hand; its manifest's digest.
fn place(hosts: &Hosts, at: &str, tag: &str, layers: &[(&str, &[u8], Json)]) -> String {
    let config = b"{}";
    let mut pages = hosts.pages.lock();
    pages.insert(format!("{at}/blobs/{}", digest::of(config)), Bytes::from_static(config));
    let parts = layers.iter().map(|(kind, data, annotations)| {
        pages.insert(format!("{at}/blobs/{}", digest::of(data)), Bytes::copy_from_slice(data));
        json!({"mediaType": kind, "digest": digest::of(data), "size": data.len(), "annotations": annotations})
    });
    // Written as nobody here would write it.
    let manifest = format!(
        "{{\n  \"schemaVersion\": 2,  \"config\": {{\"digest\": {:?}, \"mediaType\": \"x\"}}, \"layers\": {}}}",
        digest::of(config),
        Json::Array(parts.collect()),
    );
    let named = digest::of(manifest.as_bytes());
    for name in [tag, &named] {
        pages.insert(format!("{at}/manifests/{name}"), manifest.clone().into());
    }
    named
}

const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Signs as cosign does.
fn signed(hosts: &Hosts, at: &str, named: &str, keys: &[&EcdsaKeyPair]) {
    let image = json!({"docker-manifest-digest": named});
    let payload = json!({"critical": {"identity": {}, "image": image, "type": "cosign container image signature"}});
    let payload = payload.to_string();
    let layers: Vec<(&str, &[u8], Json)> = keys
        .iter()
        .map(|pair| {
            let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
            let told = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
            (PAYLOAD, payload.as_bytes(), told)
        })
        .collect();
    place(hosts, at, &repository::signature::tag(named), &layers);
}

const SOURCE: &str = "https://s.test/v2/charts/hello";
const TARGET: &str = "https://r.test/v2/charts/hello";

/// A registry with a chart in it, the digest of its manifest, and where it is to go.
fn registry() -> (Arc<Hosts>, String) {
    let hosts = Hosts::new();
    let archive = hosts.pages.lock()[&format!("{URL}/hello-2.0.0.tgz")].clone();
    let named = place(&hosts, SOURCE, "2.0.0", &[(CHART, &archive, json!({})), ("provenance", b"signed", json!({}))]);
    let tags = Bytes::from_static(br#"{"tags": ["2.0.0"]}"#);
    hosts.pages.lock().insert(format!("{SOURCE}/tags/list"), tags);
    (hosts, named)
}

async fn copied(hosts: &Arc<Hosts>) -> Report {
    let (own, from) = (hosts.own(), hosts.access());
    let target = Target::Registry { access: &own, url: "oci://r.test/charts" };
    let from = (&from, "oci://s.test/charts");
    mirror(&Repositories::default(), from, &[want("hello", "", 1)], &target, NOW).await.unwrap()
}

#[tokio::test]
async fn from_registry_to_registry_signatures_go_along_and_are_good_there() {
    let (hosts, named) = registry();
    let (public, pair) = key();
    signed(&hosts, SOURCE, &named, &[&pair]);
    // Cut off at each of the writes: the chart is never there without its signatures.
    let mut writes = 0;
    let report = loop {
        hosts.writes.store(0, Ordering::SeqCst);
        hosts.writes_max.store(writes, Ordering::SeqCst);
        hosts.pages.lock().retain(|at, _| !at.starts_with("https://r.test/"));
        let report = copied(&hosts).await;
        let is_there = |what: &str| hosts.pages.lock().contains_key(&format!("{TARGET}/manifests/{what}"));
        assert!(!is_there("2.0.0") || is_there(&repository::signature::tag(&named)), "{writes}");
        if report.failed.is_empty() {
            break report;
        }
        writes += 1;
        assert!(writes < 40, "{:?}", told(&report));
    };
    assert!(writes > 8, "{writes} writes");
    assert_eq!((told(&report), report.copied[0].signatures), (vec!["hello 2.0.0 fresh".to_owned()], 1));
    let trusting = Access { keys: vec![public], ..hosts.own() };
    let fetched = Repositories::default().archive(&trusting, "oci://r.test/charts/hello:2.0.0", None).await.unwrap();
    assert_eq!(fetched.digest, report.copied[0].digest);
    let page = |at: &str| hosts.pages.lock()[&format!("{at}/manifests/2.0.0")].clone();
    assert_eq!(page(SOURCE), page(TARGET), "to the byte");

    hosts.writes.store(0, Ordering::SeqCst);
    hosts.writes_max.store(usize::MAX, Ordering::SeqCst);
    let again = copied(&hosts).await;
    assert_eq!((told(&again), again.copied[0].signatures), (vec!["hello 2.0.0".to_owned()], 1));
    assert_eq!(hosts.writes.load(Ordering::SeqCst), 0, "what is there is not put again");
}

#[tokio::test]
async fn signatures_that_were_put_there_by_others_stay() {
    let (hosts, named) = registry();
    let ((_, first), (_, second)) = (key(), key());
    signed(&hosts, SOURCE, &named, &[&first]);
    assert_eq!(copied(&hosts).await.copied[0].signatures, 1);
    // One more at the source goes over.
    let tag = repository::signature::tag(&named);
    let at = |host: &str| hosts.pages.lock()[&format!("{host}/manifests/{tag}")].clone();
    let mut more: Json = serde_json::from_slice(&at(SOURCE)).unwrap();
    let mut another = more["layers"][0].clone();
    another["annotations"]["dev.cosignproject.cosign/signature"] = "another".into();
    more["layers"].as_array_mut().unwrap().push(another);
    let both = Bytes::from(more.to_string());
    hosts.pages.lock().insert(format!("{SOURCE}/manifests/{tag}"), both.clone());
    assert_eq!(copied(&hosts).await.copied[0].signatures, 2);
    assert_eq!(at(TARGET), both);
    // One more at the target is left.
    signed(&hosts, SOURCE, &named, &[&first]);
    let own = at(SOURCE);
    signed(&hosts, TARGET, &named, &[&second]);
    let report = copied(&hosts).await;
    assert!(told(&report)[0].contains("other signatures are there"), "{:?}", told(&report));
    let theirs = at(TARGET);
    hosts.pages.lock().insert(format!("{SOURCE}/manifests/{tag}"), theirs);
    hosts.pages.lock().insert(format!("{TARGET}/manifests/{tag}"), own);
    assert!(told(&copied(&hosts).await)[0].contains("other signatures are there"));
}

#[tokio::test]
async fn what_is_not_the_same_artefact_is_not_handed_over() {
    let (hosts, named) = registry();
    let archive = hosts.pages.lock()[&format!("{URL}/hello-2.0.0.tgz")].clone();
    // The same chart, packed anew, takes no signatures; without any it is the same.
    place(&hosts, TARGET, "2.0.0", &[(CHART, &archive, json!({}))]);
    assert_eq!(told(&copied(&hosts).await), ["hello 2.0.0"]);
    signed(&hosts, SOURCE, &named, &[&key().1]);
    assert!(told(&copied(&hosts).await)[0].contains("this chart is there with another manifest"));
    place(&hosts, TARGET, "2.0.0", &[(CHART, b"another", json!({}))]);
    assert!(told(&copied(&hosts).await)[0].contains("another artefact is there under this version"));
    // Of more parts than are copied.
    hosts.pages.lock().retain(|at, _| !at.starts_with("https://r.test/"));
    let of = |parts: usize| {
        let mut layers: Vec<(&str, &[u8], Json)> = vec![(CHART, &archive, json!({}))];
        layers.resize(parts, ("more", b"more", json!({})));
        place(&hosts, SOURCE, "2.0.0", &layers);
    };
    of(9);
    assert!(told(&copied(&hosts).await)[0].contains("it has 9 parts, and at most 8 are copied"));
    of(8);
    assert_eq!(told(&copied(&hosts).await), ["hello 2.0.0 fresh"]);
}
