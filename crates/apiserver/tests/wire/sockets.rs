//! The listener itself, without kubectl.

use std::sync::Arc;

use apiserver::Profile;
use axum::body::Bytes;
use http::{Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{Cluster, listening};

pub async fn connect(
    cluster: &Cluster,
    client: Option<(&str, &str)>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.ca_pem().as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![certificate], key).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let tcp = tokio::net::TcpStream::connect(cluster.url.trim_start_matches("https://")).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("127.0.0.1").unwrap(), tcp).await
}

async fn whoami(cluster: &Cluster, client: Option<(&str, &str)>, protocol: &[u8]) -> (StatusCode, Version, String) {
    let io = TokioIo::new(connect(cluster, client, protocol).await.unwrap());
    let request = Request::get("https://127.0.0.1/api/v1/namespaces").body(Empty::<Bytes>::new()).unwrap();
    let response = if protocol == b"h2" {
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        send.send_request(request).await.unwrap()
    };
    let (status, version) = (response.status(), response.version());
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    (status, version, value["message"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_subject_of_a_client_certificate_is_who_calls_over_both_versions_of_http() {
    let cluster = listening(Profile::Management).await;
    let jane = cluster.certificate("jane", &["dev"]);
    let root = cluster.certificate("root", &["system:masters"]);
    for (protocol, version) in [(&b"h2"[..], Version::HTTP_2), (b"http/1.1", Version::HTTP_11)] {
        let (status, found, message) = whoami(&cluster, Some((&jane.0, &jane.1)), protocol).await;
        assert_eq!((status.as_u16(), found), (403, version));
        assert!(message.contains("User \"jane\" cannot list resource \"namespaces\""), "{message}");
        assert_eq!(whoami(&cluster, Some((&root.0, &root.1)), protocol).await.0, 200);
        let (status, _, message) = whoami(&cluster, None, protocol).await;
        assert!(status == 403 && message.contains("system:anonymous"), "{message}");
    }
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_a_strange_authority_is_not_let_in() {
    let cluster = listening(Profile::Management).await;
    let stranger = listening(Profile::Management).await;
    let forged = stranger.certificate("root", &["system:masters"]);
    let connected = connect(&cluster, Some((&forged.0, &forged.1)), b"http/1.1").await;
    let refused = match connected {
        Err(_) => true,
        Ok(stream) => {
            let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let request = Request::get("https://127.0.0.1/api").body(Empty::<Bytes>::new()).unwrap();
            send.send_request(request).await.is_err()
        }
    };
    assert!(refused);
    cluster.end().await;
    stranger.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_listener_ends_its_watches_at_once() {
    let cluster = listening(Profile::Management).await;
    let root = cluster.certificate("root", &["system:masters"]);
    let io = TokioIo::new(connect(&cluster, Some((&root.0, &root.1)), b"h2").await.unwrap());
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://127.0.0.1/api/v1/namespaces?watch=true").body(Empty::<Bytes>::new()).unwrap();
    let mut body = send.send_request(request).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    let start = tokio::time::Instant::now();
    let served = cluster.stop_listening().await;
    assert!(served && start.elapsed().as_secs() < 3, "{:?}", start.elapsed());
    while let Some(frame) = body.frame().await {
        assert!(frame.unwrap().is_data());
    }
    cluster.server.shutdown().await;
}

/// The first line of the answer to a request that is written whole before anything is read.
async fn written_whole(cluster: &Cluster, headers: &str, body: &[u8]) -> std::io::Result<String> {
    let root = cluster.certificate("root", &["system:masters"]);
    let client = (!headers.contains("anonymous")).then_some((root.0.as_str(), root.1.as_str()));
    let mut stream = connect(cluster, client, b"http/1.1").await?;
    let head = format!("POST /api/v1/namespaces HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await?;
    let mut answer = vec![0; 64];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_read_no_answer_before_their_body_is_written_learn_why_it_was_not_taken() {
    let cluster = listening(Profile::Management).await;
    let large = vec![b'x'; 8 << 20];
    let declared = format!("Content-Type: application/json\r\nContent-Length: {}", large.len());
    let answer = written_whole(&cluster, &declared, &large).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 413 Payload Too Large");
    let answer = written_whole(&cluster, &format!("User-Agent: anonymous\r\n{declared}"), &large).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 403 Forbidden");
    let chunked = [format!("{:x}\r\n", large.len()).as_bytes(), &large, b"\r\n0\r\n\r\n"].concat();
    let answer =
        written_whole(&cluster, "Content-Type: application/json\r\nTransfer-Encoding: chunked", &chunked).await;
    assert_eq!(answer.unwrap(), "HTTP/1.1 413 Payload Too Large");
    cluster.end().await;
}
