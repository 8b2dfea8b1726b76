//! Tokens of a foreign issuer: one that stands on a TLS socket, signs, and changes its keys.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};

use apiserver::{Anonymous, Authentication, Options, Server};
use aws_lc_rs::{
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA384},
};
use axum::body::Body;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Request;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tower::ServiceExt;

use crate::support::{post, server_with};

const NOW: i64 = 1_800_000_000;

enum Signer {
    Ec(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

struct Issuer {
    url: String,
    ca: String,
    keys: Mutex<Vec<(String, Signer)>>,
    /// Padding of the key set, in bytes.
    padding: AtomicUsize,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start() -> Arc<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let serving = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let tls = apiserver::server_tls(&serving.pem(), &key.serialize_pem(), None).unwrap();
        let mut tls = (*tls).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = Arc::new(Self {
            url: format!("https://{}", listener.local_addr().unwrap()),
            ca: ca.pem(),
            keys: Mutex::default(),
            padding: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
        });
        let serving = issuer.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, issuer) = (acceptor.clone(), serving.clone());
                tokio::spawn(async move { issuer.answer(acceptor.accept(stream).await?).await });
            }
        });
        issuer
    }

    async fn answer(&self, mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
        let body = match path.as_str() {
            "/keys" => {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let keys: Vec<Value> = self.keys.lock().iter().map(|(id, signer)| signer.public(id)).collect();
                json!({"keys": keys, "padding": "p".repeat(self.padding.load(Ordering::SeqCst))})
            }
            _ => json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)}),
        };
        let body = body.to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.shutdown().await
    }

    /// Signs with this key alone from now on.
    fn rotate(&self, id: &str, signer: Signer) {
        *self.keys.lock() = vec![(id.to_owned(), signer)];
    }

    fn token(&self, change: impl Fn(&mut Value)) -> String {
        let mut claims = json!({
            "iss": self.url, "aud": "skep", "sub": "anna", "exp": NOW + 600, "jti": "j1",
            "groups": ["dev"], "org": "acme", "email": "anna@acme.io",
        });
        change(&mut claims);
        let keys = self.keys.lock();
        let (id, signer) = keys.last().unwrap();
        let header = json!({"alg": signer.algorithm(), "kid": id});
        let input = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string())).join(".");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signer.sign(input.as_bytes())))
    }
}

impl Signer {
    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn algorithm(&self) -> &'static str {
        match self {
            Self::Ec(_) => "ES256",
            Self::Rsa(_) => "PS384",
        }
    }

    fn sign(&self, input: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ec(pair) => pair.sign(&random, input).unwrap().as_ref().to_vec(),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PSS_SHA384, &random, input, &mut signature).unwrap();
                signature
            }
        }
    }

    fn public(&self, id: &str) -> Value {
        match self {
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
                json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": "sig", "alg": "ES256"})
            }
            Self::Rsa(pair) => {
                let der = pair.public_key().as_ref();
                let (_, key) =
                    <x509_parser::public_key::RSAPublicKey<'_> as x509_parser::prelude::FromDer<_>>::from_der(der)
                        .unwrap();
                let start = key.modulus.iter().position(|byte| *byte != 0).unwrap();
                let (n, e) = (URL_SAFE_NO_PAD.encode(&key.modulus[start..]), URL_SAFE_NO_PAD.encode(key.exponent));
                json!({"kty": "RSA", "n": n, "e": e, "kid": id, "use": "sig"})
            }
        }
    }
}

fn config(issuer: &Issuer, change: impl Fn(&mut Value)) -> String {
    let mut config = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.url, "audiences": ["skep", "other"], "audienceMatchPolicy": "MatchAny", "certificateAuthority": issuer.ca},
            "claimMappings": {"username": {"claim": "sub", "prefix": "oidc:"}, "groups": {"claim": "groups", "prefix": "oidc:"}},
        }],
    });
    change(&mut config["jwt"][0]);
    config.to_string()
}

struct World {
    issuer: Arc<Issuer>,
    server: Server,
    authentication: Arc<Authentication>,
    clock: Arc<AtomicI64>,
}

impl World {
    async fn start(change: impl Fn(&mut Value)) -> Self {
        let issuer = Issuer::start().await;
        issuer.rotate("k1", Signer::ec());
        let authentication = Authentication::new(&config(&issuer, change), &[]).unwrap();
        let clock = Arc::new(AtomicI64::new(NOW));
        let read = clock.clone();
        let now = move || jiff::Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap();
        let options = Options {
            clock: Arc::new(now),
            authentication: Some(authentication.clone()),
            anonymous: Anonymous::health(),
            ..Options::default()
        };
        Self { issuer, server: server_with(options).await, authentication, clock }
    }

    /// Who the server takes the bearer for; none: nobody.
    async fn who(&self, token: &str) -> Option<Value> {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
        let request = Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(review))
            .unwrap();
        let (parts, body) = self.server.router().oneshot(request).await.unwrap().into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        (parts.status == 201).then(|| body["status"]["userInfo"].clone())
    }
}

#[tokio::test]
async fn claims_make_a_user_while_the_token_is_good() {
    let world = World::start(|_| {}).await;
    let token = world.issuer.token(|_| {});
    let anna = world.who(&token).await.unwrap();
    let wanted = json!({
        "username": "oidc:anna", "groups": ["oidc:dev", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": ["JTI=j1"]},
    });
    assert_eq!(anna, wanted);
    let review = json!({"spec": {"token": token}});
    let review = post(&world.server, "/apis/authentication.k8s.io/v1/tokenreviews", &review).await.json();
    assert_eq!(review["status"]["user"]["username"], "oidc:anna");
    for (what, value) in [
        ("aud", json!("somebody-else")),
        ("aud", json!([])),
        ("iss", json!("https://127.0.0.1:1")),
        ("exp", json!(NOW - 1)),
        ("exp", Value::Null),
        ("nbf", json!(NOW + 301)),
        ("sub", Value::Null),
        ("groups", json!({"a": 1})),
    ] {
        let bad = world.issuer.token(|claims| claims[what] = value.clone());
        assert_eq!(world.who(&bad).await, None, "{what} {value}");
    }
    assert!(world.who(&world.issuer.token(|claims| claims["aud"] = json!(["x", "other"]))).await.is_some());
    assert!(world.who(&world.issuer.token(|claims| claims["nbf"] = json!(NOW + 299))).await.is_some());
    // A token whose claims were changed, and one that says that it is not signed.
    let parts: Vec<&str> = token.split('.').collect();
    let root = world.issuer.token(|claims| claims["sub"] = "root".into());
    let forged = format!("{}.{}.{}", parts[0], root.split('.').nth(1).unwrap(), parts[2]);
    assert_eq!(world.who(&forged).await, None);
    for header in [json!({"alg": "none"}), json!({"alg": "HS256", "kid": "k1"}), json!({"alg": "RS256", "kid": "k1"})] {
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        assert_eq!(world.who(&format!("{header}.{}.{}", parts[1], parts[2])).await, None);
    }
    world.clock.fetch_add(601, Ordering::Relaxed);
    assert_eq!(world.who(&token).await, None);
}

#[tokio::test]
async fn a_new_key_is_fetched_once_and_not_for_every_token() {
    let world = World::start(|_| {}).await;
    let asked = || world.issuer.asked.load(Ordering::SeqCst);
    let old = world.issuer.token(|_| {});
    assert!(world.who(&old).await.is_some());
    assert!(world.who(&old).await.is_some());
    assert_eq!(asked(), 1);
    world.issuer.rotate("k2", Signer::Rsa(rsa::KeyPair::generate(rsa::KeySize::Rsa2048).unwrap()));
    let new = world.issuer.token(|_| {});
    // Within the pause nothing is fetched, whatever comes.
    for _ in 0..3 {
        assert_eq!(world.who(&new).await, None);
    }
    assert_eq!(asked(), 1);
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    tokio::time::resume();
    assert!(world.who(&new).await.is_some());
    assert_eq!(asked(), 2);
    assert_eq!(world.who(&old).await, None, "the issuer has taken the old key back");
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_key_set_that_is_too_long_is_not_read() {
    const LIMIT: usize = 1024 * 1024;
    let world = World::start(|_| {}).await;
    let keys: Vec<Value> = world.issuer.keys.lock().iter().map(|(id, signer)| signer.public(id)).collect();
    let bare = json!({"keys": keys, "padding": ""}).to_string().len();
    world.issuer.padding.store(LIMIT - bare + 1, Ordering::SeqCst);
    let token = world.issuer.token(|_| {});
    assert_eq!(world.who(&token).await, None);
    let other = World::start(|_| {}).await;
    let keys: Vec<Value> = other.issuer.keys.lock().iter().map(|(id, signer)| signer.public(id)).collect();
    let bare = json!({"keys": keys, "padding": ""}).to_string().len();
    other.issuer.padding.store(LIMIT - bare, Ordering::SeqCst);
    assert!(other.who(&other.issuer.token(|_| {})).await.is_some());
}

#[tokio::test]
async fn expressions_name_the_user_and_refuse_some() {
    let world = World::start(|jwt| {
        jwt["claimMappings"] = json!({
            "username": {"expression": "claims.org + ':' + claims.sub"},
            "groups": {"expression": "claims.groups.map(g, claims.org + ':' + g)"},
            "uid": {"expression": "claims.jti"},
            "extra": [{"key": "acme.io/org", "valueExpression": "claims.org"}, {"key": "acme.io/none", "valueExpression": "''"}],
        });
        jwt["claimValidationRules"] = json!([
            {"claim": "org", "requiredValue": "acme"},
            {"expression": "claims.exp - int(claims.?iat.orValue(0)) > 0", "message": "it has an end"},
        ]);
        jwt["userValidationRules"] = json!([
            {"expression": "!user.username.startsWith('system:')", "message": "reserved"},
            {"expression": "user.groups.all(g, g.startsWith('acme:'))"},
            {"expression": "user.extra['acme.io/org'] == ['acme']"},
        ]);
    })
    .await;
    let anna = world.who(&world.issuer.token(|_| {})).await.unwrap();
    assert_eq!((&anna["username"], &anna["uid"]), (&json!("acme:anna"), &json!("j1")));
    assert_eq!(anna["groups"], json!(["acme:dev", "system:authenticated"]));
    assert_eq!(anna["extra"]["acme.io/org"], json!(["acme"]));
    assert_eq!(anna["extra"].get("acme.io/none"), None);
    for (what, value) in [("org", json!("umbrella")), ("org", Value::Null), ("groups", json!("dev")), ("sub", json!(7))]
    {
        let bad = world.issuer.token(|claims| claims[what] = value.clone());
        assert_eq!(world.who(&bad).await, None, "{what} {value}");
    }
}

#[tokio::test]
async fn a_configuration_is_replaced_while_the_server_runs_unless_it_is_wrong() {
    let world = World::start(|_| {}).await;
    let token = world.issuer.token(|_| {});
    assert!(world.who(&token).await.is_some());
    assert!(world.authentication.replace("kind: Nonsense").is_err());
    assert!(world.who(&token).await.is_some());
    let other = config(&world.issuer, |jwt| jwt["claimMappings"]["username"]["prefix"] = "new:".into());
    world.authentication.replace(&other).unwrap();
    assert_eq!(world.who(&token).await.unwrap()["username"], "new:anna");
    let none = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "anonymous": {"enabled": true, "conditions": [{"path": "/version"}]}});
    world.authentication.replace(&none.to_string()).unwrap();
    assert_eq!(world.who(&token).await, None);
    let ask = async |path: &str| {
        world.server.router().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
    };
    assert_eq!((ask("/version").await, ask("/livez").await), (200, 401));
    world.authentication.replace(&other).unwrap();
    assert_eq!((ask("/version").await, ask("/livez").await), (401, 200));
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_or_that_is_another_is_not_believed() {
    let world = World::start(|_| {}).await;
    let stranger = Issuer::start().await;
    let token = world.issuer.token(|_| {});
    let with = |ca: &str| config(&world.issuer, |jwt| jwt["issuer"]["certificateAuthority"] = ca.into());
    world.authentication.replace(&with(&stranger.ca)).unwrap();
    assert_eq!(world.who(&token).await, None);
    world.authentication.replace(&with(&world.issuer.ca)).unwrap();
    assert!(world.who(&token).await.is_some());
    // A document elsewhere is read there, and must still be the issuer's.
    let elsewhere = |url: &str, ca: &str| {
        config(&world.issuer, |jwt| {
            jwt["issuer"]["discoveryURL"] = format!("{url}/discovery").into();
            jwt["issuer"]["certificateAuthority"] = ca.into();
        })
    };
    world.authentication.replace(&elsewhere(&world.issuer.url, &world.issuer.ca)).unwrap();
    assert!(world.who(&token).await.is_some());
    world.authentication.replace(&elsewhere(&stranger.url, &stranger.ca)).unwrap();
    assert_eq!(world.who(&token).await, None);
}
