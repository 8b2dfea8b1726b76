use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::{Router, body::Body, extract::State, response::IntoResponse};
use http::{HeaderMap, Response, Uri};
use serde_json::{Value, json};
use transport::Local;

use super::*;

pub const HELLO: &[u8] = b"an archive";

/// What is at which address, and who asked for it.
#[derive(Default)]
pub struct Site {
    pub pages: parking_lot::Mutex<HashMap<String, Response<Bytes>>>,
    asked: AtomicUsize,
    /// The address, and the credentials, of each request.
    pub seen: parking_lot::Mutex<Vec<(String, String)>>,
    /// What registries want to hear, and where it is had.
    pub token: parking_lot::Mutex<Option<&'static str>>,
    pub realm: parking_lot::Mutex<&'static str>,
}

impl Site {
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn put(&self, url: &str, body: impl Into<Bytes>) {
        self.pages.lock().insert(url.to_owned(), Response::new(body.into()));
    }

    pub fn lead(&self, url: &str, location: &str) {
        let answer = Response::builder().status(302).header(header::LOCATION, location);
        self.pages.lock().insert(url.to_owned(), answer.body(Bytes::new()).unwrap());
    }

    /// Puts an artefact of one layer into a registry; the manifest's digest.
    pub fn push(&self, path: &str, tag: &str, layer: (&str, &[u8]), annotations: &Value) -> String {
        let named = digest::of(layer.1);
        self.put(&format!("https://r.test/v2/{path}/blobs/{named}"), layer.1.to_vec());
        let layer = json!({"mediaType": layer.0, "digest": named, "size": layer.1.len(), "annotations": annotations});
        self.push_manifest(path, tag, &json!({"schemaVersion": 2, "layers": [layer]}))
    }

    /// A chart as `helm push` makes it: its metadata beside it.
    pub fn push_chart(&self, path: &str, tag: &str, config: &Value, annotations: &Value) -> String {
        let config = config.to_string();
        for blob in [config.as_bytes(), HELLO] {
            self.put(&format!("https://r.test/v2/{path}/blobs/{}", digest::of(blob)), blob.to_vec());
        }
        let told =
            json!({"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest::of(config.as_bytes())});
        let layer = json!({"mediaType": CHART, "digest": digest::of(HELLO), "size": HELLO.len()});
        let manifest = json!({"schemaVersion": 2, "config": told, "layers": [layer], "annotations": annotations});
        self.push_manifest(path, tag, &manifest)
    }

    fn push_manifest(&self, path: &str, tag: &str, manifest: &Value) -> String {
        let manifest = manifest.to_string();
        let named = digest::of(manifest.as_bytes());
        for version in [tag, &named] {
            self.put(&format!("https://r.test/v2/{path}/manifests/{version}"), manifest.clone());
        }
        named
    }

    pub fn access(self: &Arc<Self>) -> Access {
        let router = Router::new().fallback(answer).with_state(self.clone());
        Access::new(Local::shared::<Body, Body>(router))
    }
}

async fn answer(State(site): State<Arc<Site>>, uri: Uri, headers: HeaderMap) -> axum::response::Response {
    site.asked.fetch_add(1, Ordering::Relaxed);
    let told = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    site.seen.lock().push((uri.to_string(), told.to_owned()));
    if uri.path().starts_with("/hangs") {
        std::future::pending::<()>().await;
    }
    if uri.path().starts_with("/v2/")
        && let Some(token) = *site.token.lock()
        && told != format!("Bearer {token}")
    {
        let realm = *site.realm.lock();
        let challenge = format!(r#"Bearer realm="{realm}",service="r.test",scope="repository:hello:pull""#);
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let page = site.pages.lock().get(&uri.to_string()).cloned();
    match page {
        Some(page)
            if page.headers().get(header::ETAG).is_some_and(|tag| headers.get(header::IF_NONE_MATCH) == Some(tag)) =>
        {
            StatusCode::NOT_MODIFIED.into_response()
        }
        Some(page) => page.map(Body::from),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

pub fn site() -> Arc<Site> {
    let site = Arc::new(Site::default());
    *site.realm.lock() = "https://auth.test/token";
    site.put(
        "https://charts.test/stable/index.yaml",
        format!(
            "apiVersion: v1\nentries: {{hello: [{{version: 1.0.0, urls: [hello-1.0.0.tgz], digest: {}}}]}}",
            digest::of(HELLO)
        ),
    );
    site.put("https://charts.test/stable/hello-1.0.0.tgz", HELLO);
    site
}

#[tokio::test(start_paused = true)]
async fn a_chart_of_an_index_is_fetched_once_and_is_what_the_index_says() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    for _ in 0..3 {
        let index = all.index(&access, "https://charts.test/stable/").await.unwrap();
        let entry = index.find("hello", "v1.0.0").unwrap();
        let url = joined("https://charts.test/stable/", &entry.urls[0]);
        let fetched = all.archive(&access, &url, Some(&entry.digest)).await.unwrap();
        assert_eq!((fetched.archive.as_ref(), &fetched.digest), (HELLO, &digest::of(HELLO)));
    }
    assert_eq!(site.asked.load(Ordering::Relaxed), 2);
    let other = digest::of(b"other");
    let url = "https://charts.test/stable/hello-1.0.0.tgz";
    let error = all.archive(&access, url, Some(&other)).await.unwrap_err();
    assert_eq!(error.class, Class::Untrusted);
    assert_eq!(error.to_string(), format!("{url}: the archive has the digest {} and not {other}", digest::of(HELLO)));
    assert_eq!(all.archive(&access, url, Some("nonsense")).await.unwrap_err().class, Class::Untrusted);
    assert!(all.archive(&access, url, Some("")).await.is_ok(), "an index need not name digests");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_no_index_is_told_with_its_address() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let error = all.index(&access, "https://charts.test/gone").await.unwrap_err();
    assert_eq!(
        (error.class, error.to_string()),
        (Class::Missing, "https://charts.test/gone/index.yaml: it answers 404 Not Found".into())
    );
    site.put("https://charts.test/page/index.yaml", "<html>");
    assert_eq!(all.index(&access, "https://charts.test/page").await.unwrap_err().class, Class::Unusable);
    for url in ["file:///etc/passwd", "ftp://charts.test/x", "charts.test/x", "/etc/passwd", "oci://r.test/hello"] {
        assert_eq!(all.archive(&access, url, None).await.unwrap_err().class, Class::Address, "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn repositories_that_hang_or_pour_are_left() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let error = all.archive(&access, "https://charts.test/hangs", None).await.unwrap_err();
    assert_eq!((error.class, error.what), (Class::Unreachable, "there was no whole answer within 30 s".to_owned()));
    site.put("https://charts.test/full.tgz", vec![0; ARCHIVE_BYTES_MAX]);
    site.put("https://charts.test/over.tgz", vec![0; ARCHIVE_BYTES_MAX + 1]);
    assert!(all.archive(&access, "https://charts.test/full.tgz", None).await.is_ok());
    let error = all.archive(&access, "https://charts.test/over.tgz", None).await.unwrap_err();
    assert!(error.class == Class::Unusable && error.what.contains("larger than 20971520 bytes"), "{error}");
    site.put("https://charts.test/over/index.yaml", vec![b' '; INDEX_BYTES_MAX + 1]);
    assert_eq!(all.index(&access, "https://charts.test/over").await.unwrap_err().class, Class::Unusable);
}

#[tokio::test(start_paused = true)]
async fn addresses_lead_on_but_not_out_of_tls_and_not_for_ever() {
    let (site, all) = (site(), Repositories::default());
    let mut access = site.access();
    access.credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    site.put("https://cdn.test/a/hello.tgz", HELLO);
    site.lead("https://charts.test/a/one.tgz", "two.tgz");
    site.lead("https://charts.test/a/two.tgz", "/b/three.tgz");
    site.lead("https://charts.test/b/three.tgz", "https://cdn.test/a/hello.tgz");
    assert!(all.archive(&access, "https://charts.test/a/one.tgz", None).await.is_ok());
    let told: Vec<String> = site.seen.lock().drain(..).map(|(_, told)| told).collect();
    assert_eq!(told, ["Basic dTpw", "Basic dTpw", "Basic dTpw", ""], "another host gets no credentials");
    site.lead("https://charts.test/plain.tgz", "http://charts.test/a/one.tgz");
    site.lead("https://charts.test/local.tgz", "file:///etc/passwd");
    site.lead("https://charts.test/round.tgz", "/round.tgz");
    for (name, why) in [("plain", "without TLS"), ("local", "no address"), ("round", "more than 10 times")] {
        let error = all.archive(&access, &format!("https://charts.test/{name}.tgz"), None).await.unwrap_err();
        assert!(error.class == Class::Unusable && error.what.contains(why), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_for_those_with_the_same_credentials() {
    let (site, all) = (site(), Repositories::default());
    let url = "https://charts.test/stable/hello-1.0.0.tgz";
    let of = |user: &str| {
        let credentials = Credentials::Basic { user: user.into(), password: "p".into() };
        Access { credentials: Some(credentials), ..site.access() }
    };
    all.archive(&of("a"), url, None).await.unwrap();
    site.pages.lock().clear();
    assert!(all.archive(&of("a"), url, None).await.is_ok());
    assert_eq!(all.archive(&of("b"), url, None).await.unwrap_err().class, Class::Missing);
    assert_eq!(all.archive(&site.access(), url, None).await.unwrap_err().class, Class::Missing);
    assert_eq!(format!("{:?}", of("a").credentials), "Some(Credentials)");
}

#[tokio::test(start_paused = true)]
async fn a_registry_is_asked_with_the_token_that_it_wants() {
    let (site, all) = (site(), Repositories::default());
    let named = site.push("charts/hello", "1.0.0", (CHART, HELLO), &json!({}));
    *site.token.lock() = Some("letmein");
    site.put("https://auth.test/token?service=r.test&scope=repository%3Ahello%3Apull", r#"{"token":"letmein"}"#);
    let fetched = all.archive(&site.access(), "oci://r.test/charts/hello:1.0.0", None).await.unwrap();
    assert_eq!(fetched.archive.as_ref(), HELLO);
    assert_eq!(site.asked.load(Ordering::Relaxed), 4, "the token is asked for once");
    assert!(all.archive(&site.access(), &format!("oci://r.test/charts/hello@{named}"), None).await.is_ok());
    *site.token.lock() = Some("other");
    let error = all.archive(&site.access(), "oci://r.test/charts/hello:2.0.0", None).await.unwrap_err();
    assert_eq!(error.class, Class::Denied, "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_registry_gives_is_what_its_digests_say() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let named = site.push("hello", "1.0.0", (CHART, HELLO), &json!({}));
    site.put(&format!("https://r.test/v2/hello/blobs/{}", digest::of(HELLO)), "something else");
    let error = all.archive(&access, "oci://r.test/hello:1.0.0", None).await.unwrap_err();
    assert_eq!(error.class, Class::Untrusted, "{error}");
    site.put(&format!("https://r.test/v2/hello/manifests/{named}"), r#"{"layers":[]}"#);
    let error = all.archive(&access, &format!("oci://r.test/hello@{named}"), None).await.unwrap_err();
    assert!(error.class == Class::Untrusted && error.what.contains("the manifest has the digest"), "{error}");
    let large = json!({"layers": [{"mediaType": CHART, "digest": digest::of(HELLO), "size": ARCHIVE_BYTES_MAX + 1}]});
    site.put("https://r.test/v2/hello/manifests/2.0.0", large.to_string());
    let error = all.archive(&access, "oci://r.test/hello:2.0.0", None).await.unwrap_err();
    assert!(error.what.contains("at most 20971520 are taken"), "{error}");
    site.put("https://r.test/v2/hello/manifests/3.0.0", r#"{"layers":[{"mediaType":"application/x","digest":"d"}]}"#);
    let error = all.archive(&access, "oci://r.test/hello:3.0.0", None).await.unwrap_err();
    assert!(error.what.contains("no layer of type"), "{error}");
}

/// A key pair: the public key in PEM, and what signs.
pub fn key() -> (String, EcdsaKeyPair) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    // SubjectPublicKeyInfo of id-ecPublicKey on prime256v1, before the point.
    let mut der =
        b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
            .to_vec();
    der.extend_from_slice(pair.public_key().as_ref());
    (format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der)), pair)
}

#[tokio::test(start_paused = true)]
async fn where_keys_are_given_only_what_one_of_them_signed_is_taken() {
    let (site, all) = (site(), Repositories::default());
    let ((public, pair), (other, _)) = (key(), key());
    let of = |keys: &[&String]| Access { keys: keys.iter().map(|&key| key.clone()).collect(), ..site.access() };
    let named = site.push("hello", "1.0.0", (CHART, HELLO), &json!({}));
    let url = "oci://r.test/hello:1.0.0";
    let error = all.archive(&of(&[&public]), url, None).await.unwrap_err();
    assert_eq!((error.class, error.what.as_str()), (Class::Untrusted, "it is not signed"));

    let payload = |digest: &str| {
        let image = json!({"docker-manifest-digest": digest});
        json!({"critical": {"identity": {}, "image": image, "type": "cosign container image signature"}}).to_string()
    };
    let sign = |digest: &str| {
        let payload = payload(digest);
        let signature = pair.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
        let annotations = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        let layer = ("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
        site.push("hello", &signature::tag(&named), layer, &annotations);
    };
    sign(&digest::of(b"another artefact"));
    let error = all.archive(&of(&[&public]), url, None).await.unwrap_err();
    assert!(error.class == Class::Untrusted && error.what.contains("no signature"), "{error}");
    sign(&named);
    assert!(all.archive(&of(&[&other, &public]), url, None).await.is_ok());
    let error = all.archive(&of(&[&other]), url, None).await.unwrap_err();
    assert!(error.class == Class::Untrusted && error.what.contains("no signature"), "{error}");
    let plain = "https://charts.test/stable/hello-1.0.0.tgz";
    assert_eq!(all.archive(&of(&[&public]), plain, None).await.unwrap_err().class, Class::Untrusted);
    assert!(signature::is_key(&public) && !signature::is_key("-----BEGIN PUBLIC KEY-----\n"));
}
