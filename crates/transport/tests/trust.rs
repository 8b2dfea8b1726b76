//! Whose certificates are believed.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use transport::{Https, Proxies, Tls, Transport, TransportError};

/// A server with a certificate of its own, and that certificate (PEM).
async fn server() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            let _ = client.read(&mut [0; 4096]).await;
            let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
            let _ = client.shutdown().await;
        }
    });
    (address, made.cert.pem())
}

async fn ask(way: &dyn Transport, address: SocketAddr) -> Result<StatusCode, String> {
    let request = Request::get(format!("https://{address}/")).body(Bytes::new()).unwrap();
    match way.send(request, 1024).await {
        Ok(answer) => Ok(answer.status()),
        Err(error) => Err(format!("{error}: {:?}", std::error::Error::source(&error))),
    }
}

#[tokio::test]
async fn an_authority_is_trusted_where_it_was_given_and_nowhere_else() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ((one, ca_of_one), (two, ca_of_two)) = (server().await, server().await);
    let way = Https::new(&Tls::default(), Proxies::default()).unwrap();
    let trusting_one = way.trusting(ca_of_one.as_bytes()).unwrap();
    let trusting_two = trusting_one.trusting(ca_of_two.trim_end().as_bytes()).unwrap();
    for (way, of_one, of_two) in
        [(&way as &dyn Transport, false, false), (&*trusting_one, true, false), (&*trusting_two, true, true)]
    {
        for (address, is_trusted) in [(one, of_one), (two, of_two)] {
            match ask(way, address).await {
                Ok(status) => assert!(is_trusted && status == StatusCode::NO_CONTENT, "{status}"),
                Err(why) => assert!(!is_trusted && why.contains("InvalidCertificate"), "{why}"),
            }
        }
    }
    assert!(Arc::ptr_eq(&trusting_one, &way.trusting(ca_of_one.as_bytes()).unwrap()), "connections are shared");
}

#[test]
fn what_is_no_authority_is_refused() {
    let way = Https::new(&Tls::default(), Proxies::default()).unwrap();
    for (pem, why) in
        [("", "holds no certificate"), ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not PEM")]
    {
        let error = way.trusting(pem.as_bytes()).err().unwrap();
        assert!(matches!(error, TransportError::Tls { .. }) && error.to_string().contains(why), "{error}");
    }
}
