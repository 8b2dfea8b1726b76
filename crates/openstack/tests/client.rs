//! The client against small services in the same process, for what a well-behaved cloud does not do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use openstack::{
    Class, Client, Cloud, Local, Microversion, Options, Pass, Query, Service, compute::Server, network::Port,
};
use serde_json::{Value, json};

const YAML: &str = "
clouds: {c: {region_name: R, auth: {auth_url: 'http://c/identity', username: u, password: p, project_name: p}}}
";

fn endpoint(kind: &str, url: &str) -> Value {
    json!({"type": kind, "endpoints": [{"interface": "public", "region_id": "R", "url": url}]})
}

/// Hands out tokens `t1`, `t2`, ...
fn identity(issued: Arc<AtomicUsize>) -> Router {
    let tokens = move || async move {
        let n = issued.fetch_add(1, SeqCst) + 1;
        let catalog = [endpoint("network", "http://c/network"), endpoint("compute", "http://c/compute/v2.1")];
        let body =
            json!({"token": {"expires_at": "2999-01-01T00:00:00.000000Z", "catalog": catalog, "user": {"id": "u"}}});
        (StatusCode::CREATED, [("x-subject-token", format!("t{n}"))], Json(body))
    };
    Router::new().route("/identity/v3/auth/tokens", post(tokens))
}

fn client(router: Router, options: Options) -> Client {
    let cloud = Cloud::from_yaml(YAML.as_bytes(), None, None).unwrap();
    Client::new(cloud, Local::shared::<Body, Body>(router), options)
}

fn token(headers: &HeaderMap) -> &str {
    headers.get("x-auth-token").and_then(|v| v.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_many_callers_share_it() {
    let issued = Arc::new(AtomicUsize::new(0));
    let ports = |headers: HeaderMap| async move {
        if token(&headers) == "t1" {
            StatusCode::UNAUTHORIZED.into_response()
        } else {
            Json(json!({"ports": []})).into_response()
        }
    };
    let client = client(identity(issued.clone()).route("/network/v2.0/ports", get(ports)), Options::default());
    let query = Query::new();
    let calls = (0..20).map(|_| client.list::<Port>(&query));
    for done in futures::future::join_all(calls).await {
        done.unwrap();
    }
    assert_eq!(issued.load(SeqCst), 2);
}

#[tokio::test]
async fn a_client_beside_another_has_its_own_credentials_and_token_over_the_same_transport() {
    let issued = Arc::new(AtomicUsize::new(0));
    let ports = |headers: HeaderMap| async move { Json(json!({"ports": [{"id": token(&headers)}]})) };
    let first = client(identity(issued.clone()).route("/network/v2.0/ports", get(ports)), Options::default());
    let other = Cloud::from_yaml(YAML.replace("username: u", "username: other").as_bytes(), None, None).unwrap();
    let second = first.beside(other);
    assert_ne!(first.cloud(), second.cloud());
    for (client, want) in [(&first, "t1"), (&second, "t2"), (&first, "t1")] {
        assert_eq!(client.list::<Port>(&Query::new()).await.unwrap()[0].id, want);
    }
}

#[tokio::test]
async fn a_second_401_is_an_error() {
    let issued = Arc::new(AtomicUsize::new(0));
    let router = identity(issued.clone()).route("/network/v2.0/ports", get(|| async { StatusCode::UNAUTHORIZED }));
    let error = client(router, Options::default()).list::<Port>(&Query::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Forbidden);
    assert_eq!(issued.load(SeqCst), 2);
}

async fn paged(request: Request) -> Response {
    let marker: usize = request.uri().query().and_then(|q| q.strip_prefix("marker=")).map_or(0, |m| m.parse().unwrap());
    let ports: Vec<Value> = (marker..marker + 2).map(|i| json!({"id": i.to_string(), "name": null})).collect();
    let mut body = json!({ "ports": ports });
    if marker < 8 {
        let href = format!("http://backend:9696/v2.0/ports?marker={}", marker + 2);
        body["ports_links"] = json!([{"rel": "next", "href": href}]);
    }
    Json(body).into_response()
}

#[tokio::test]
async fn pages_are_followed_up_to_the_limit() {
    let router = identity(Arc::default()).route("/network/v2.0/ports", get(paged));
    let all =
        client(router.clone(), Options { items_limit: 10, ..Options::default() }).list::<Port>(&Query::new()).await;
    assert_eq!(all.unwrap().len(), 10);
    let error = client(router, Options { items_limit: 9, ..Options::default() }).list::<Port>(&Query::new()).await;
    assert_eq!(error.unwrap_err().class(), Class::Unreadable);
}

#[tokio::test]
async fn a_body_one_byte_over_the_limit_is_refused() {
    let body = r#"{"ports": []}"#;
    let router = identity(Arc::default())
        .route("/network/v2.0/ports", get(move || async move { format!("{body}{}", " ".repeat(500)) }));
    let list = |limit| {
        let client = client(router.clone(), Options { body_limit_bytes: limit, ..Options::default() });
        async move { client.list::<Port>(&Query::new()).await }
    };
    assert!(list(body.len() + 500).await.is_ok());
    assert_eq!(list(body.len() + 499).await.unwrap_err().class(), Class::Unreadable);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_times_out() {
    let router = identity(Arc::default()).route("/network/v2.0/ports", get(std::future::pending::<String>));
    let error = client(router, Options::default()).list::<Port>(&Query::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::Timeout);
}

#[tokio::test]
async fn the_compute_microversion_is_the_highest_that_both_sides_know() {
    let versions = |max: &'static str| {
        let server = |headers: HeaderMap| async move {
            let version = headers.get("openstack-api-version").map_or("none", |v| v.to_str().unwrap()).to_owned();
            Json(json!({"server": {"id": "i", "name": version}}))
        };
        let document =
            move || async move { Json(json!({"version": {"id": "v2.1", "version": max, "min_version": "2.1"}})) };
        identity(Arc::default()).route("/compute/v2.1/servers/i", get(server)).route("/compute/v2.1/", get(document))
    };
    for (cloud, want) in [("2.53", "compute 2.53"), ("2.200", "compute 2.90"), ("", "none")] {
        let client = client(versions(cloud), Options::default());
        assert_eq!(client.get::<Server>("i").await.unwrap().name, want);
    }
    let old = client(versions("2.30"), Options::default());
    let draft = openstack::compute::ServerDraft { tags: vec!["a".into()], ..Default::default() };
    assert!(old.create::<Server>(&draft).await.unwrap_err().to_string().contains("needs microversion 2.52"));
    assert_eq!(old.microversion(Service::Compute).await.unwrap(), Microversion(2, 30));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_tell_its_versions_now_is_asked_again() {
    for (status, left_alone) in [(StatusCode::PAYLOAD_TOO_LARGE, true), (StatusCode::UNAUTHORIZED, false)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let document = move || async move {
            if calls.fetch_add(1, SeqCst) == 0 {
                (status, [("retry-after", "7")]).into_response()
            } else {
                Json(json!({"version": {"id": "v2.1", "version": "2.90", "min_version": "2.1"}})).into_response()
            }
        };
        let client = client(identity(Arc::default()).route("/compute/v2.1/", get(document)), Options::default());
        match client.microversion(Service::Compute).await {
            Err(error) => assert!(left_alone && error.class() == Class::RateLimited, "{error}"),
            Ok(known) => assert_eq!((known, left_alone), (Microversion::NONE, false)),
        }
        tokio::time::advance(Duration::from_secs(8)).await;
        assert_eq!(client.microversion(Service::Compute).await.unwrap(), Microversion(2, 90), "{status}");
    }
}

#[tokio::test]
async fn a_service_that_the_catalog_lacks_is_named_with_the_regions() {
    let client = client(identity(Arc::default()), Options::default());
    assert!(!client.has(Service::LoadBalancer).await.unwrap());
    let error = client.endpoint(Service::LoadBalancer).await.unwrap_err().to_string();
    assert!(error.contains("load-balancer") && error.contains("regions: R"), "{error}");
}

#[tokio::test]
async fn an_unverified_cloud_is_refused_unless_allowed() {
    let yaml = YAML.replace("region_name: R", "region_name: R, verify: false");
    let cloud = Cloud::from_yaml(yaml.as_bytes(), None, None).unwrap();
    let error = Client::connect(cloud.clone(), Options::default()).err().unwrap();
    assert!(error.to_string().contains("verify: false"), "{error}");
    assert!(Client::connect(cloud, Options { allow_unverified: true, ..Options::default() }).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_asks_to_be_left_alone_is_left_alone_by_all_who_share_the_client() {
    let (issued, calls) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    let ports = move || async move {
        if counted.fetch_add(1, SeqCst) == 0 {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")]).into_response()
        } else {
            Json(json!({"ports": []})).into_response()
        }
    };
    let client = client(identity(issued).route("/network/v2.0/ports", get(ports)), Options::default());
    for left_s in [7, 5, 1] {
        let error = client.clone().list::<Port>(&Query::new()).await.unwrap_err();
        assert_eq!(error.class(), Class::RateLimited);
        assert_eq!(error.retry_after().unwrap().as_secs_f64().ceil() as u64, left_s);
        tokio::time::advance(std::time::Duration::from_millis(if left_s == 7 { 2000 } else { 4000 })).await;
    }
    assert_eq!(calls.load(SeqCst), 1, "the others were not made");
    client.list::<Port>(&Query::new()).await.unwrap();
}

/// A cloud that takes its time for each call.
fn slow(each: Duration, calls: Arc<AtomicUsize>) -> Client {
    let ports = move |request: Request| async move {
        tokio::time::sleep(each).await;
        calls.fetch_add(1, SeqCst);
        let id = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        Json(json!({"port": {"id": id}}))
    };
    client(identity(Arc::default()).route("/network/v2.0/ports/{id}", get(ports)), Options::default())
}

#[tokio::test(start_paused = true)]
async fn a_pass_ends_after_the_call_that_was_slow_and_the_next_one_goes_on() {
    let calls = Arc::new(AtomicUsize::new(0));
    let client = slow(Duration::from_secs(20), calls.clone());
    let (mut pass, mut passes) = (Pass::default(), 0);
    loop {
        passes += 1;
        let (started, cloud) = (tokio::time::Instant::now(), client.during(&pass));
        let work = async {
            for id in 0..5 {
                cloud.look::<Port>(&id.to_string()).await?;
            }
            Ok(())
        };
        let done: openstack::Result<()> = work.await;
        assert!(started.elapsed() <= Options::default().timeout);
        match done {
            Ok(()) => break,
            Err(error) => assert!(error.is_put_off(), "{error}"),
        }
        pass = pass.again();
    }
    // The version documents of the network service are asked for as well.
    assert_eq!((calls.load(SeqCst), passes), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn no_pass_takes_longer_than_one_call_may() {
    let calls = Arc::new(AtomicUsize::new(0));
    let client = slow(Duration::from_secs(29), calls);
    let pass = Pass::default();
    tokio::time::advance(Duration::from_millis(1500)).await;
    let started = tokio::time::Instant::now();
    let error = client.during(&pass).look::<Port>("1").await.unwrap_err();
    assert_eq!((error.class(), error.is_put_off(), error.may_yet_create()), (Class::Timeout, false, false));
    assert_eq!(started.elapsed(), Duration::from_millis(28_500));
}

#[tokio::test(start_paused = true)]
async fn a_pass_waits_for_a_token_of_anothers_no_longer_than_it_has() {
    let never = Router::new().route("/identity/v3/auth/tokens", post(std::future::pending::<String>));
    let client = client(never, Options::default());
    let other = client.clone();
    tokio::spawn(async move { other.access().await.map(drop) });
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (started, pass) = (tokio::time::Instant::now(), Pass::default());
    client.during(&pass).look::<Port>("1").await.unwrap_err();
    assert!(started.elapsed() <= Options::default().timeout);
}

/// A proxy that opens the way to one place, whatever host it is asked for, to who says the password; and what it was asked.
async fn proxy(to: std::net::SocketAddr) -> (std::net::SocketAddr, Arc<std::sync::Mutex<Vec<String>>>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<std::sync::Mutex<Vec<String>>>::default());
    let heard = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            heard.lock().unwrap().push(head.lines().next().unwrap().to_owned());
            if !head.to_ascii_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz") {
                client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
                continue;
            }
            let mut there = tokio::net::TcpStream::connect(to).await.unwrap();
            if head.starts_with("CONNECT ") {
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            } else {
                there.write_all(head.as_bytes()).await.unwrap();
            }
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut there).await });
        }
    });
    (address, asked)
}

/// TLS before a place that speaks none, and the certificate.
async fn with_tls(place: std::net::SocketAddr) -> (std::net::SocketAddr, String) {
    let names = ["cloud.test".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            let mut there = tokio::net::TcpStream::connect(place).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut there).await });
        }
    });
    (address, made.cert.pem())
}

fn through(proxy: &str, scheme: &str, ca_pem: Option<&str>) -> Client {
    let get = |name: &str| (name == format!("{}_PROXY", scheme.to_uppercase())).then(|| proxy.to_owned());
    let proxies = openstack::Proxies::from_variables(&get).unwrap();
    let yaml = YAML.replace("http://c/", &format!("{scheme}://cloud.test:5000/"));
    let yaml = yaml.replace("{region_name", "{verify: false, region_name");
    let cloud = Cloud::from_yaml(yaml.as_bytes(), None, ca_pem.map(str::as_bytes));
    let options = Options { proxies, allow_unverified: true, ..Options::default() };
    Client::connect(cloud.unwrap(), options).unwrap()
}

/// All that an error says.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let parts = std::iter::successors(Some(error), |error| error.source());
    parts.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test]
async fn a_cloud_is_reached_through_a_proxy_that_wants_a_password_or_tls() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let serving = axum::serve(listener, identity(Arc::default()));
    tokio::spawn(async move { serving.await });
    let (address, asked) = proxy(place).await;
    // Names that only the proxy knows.
    let plain = through(&format!("http://user:pass@{address}"), "http", None);
    assert_eq!(plain.access().await.unwrap().user_id, "u");
    let refused = through(&format!("http://{address}"), "https", None).access().await.unwrap_err();
    let why = told(&refused);
    assert!(why.contains("tunnel error: proxy authorization required"), "{why}");
    assert_eq!(
        *asked.lock().unwrap(),
        ["POST http://cloud.test:5000/identity/v3/auth/tokens HTTP/1.1", "CONNECT cloud.test:5000 HTTP/1.1"]
    );

    let (address, asked) = proxy(with_tls(place).await.0).await;
    let secure = through(&format!("http://user:pass@{address}"), "https", None);
    assert_eq!(secure.access().await.unwrap().user_id, "u");
    assert_eq!(*asked.lock().unwrap(), ["CONNECT cloud.test:5000 HTTP/1.1"]);

    let (address, certificate) = with_tls(address).await;
    let strange = through(&format!("https://user:pass@{address}"), "https", None).access().await.unwrap_err();
    let why = told(&strange);
    assert!(why.contains("invalid peer certificate: UnknownIssuer"), "{why}");
    let secure = through(&format!("https://user:pass@{address}"), "https", Some(&certificate));
    assert_eq!(secure.access().await.unwrap().user_id, "u");
}
