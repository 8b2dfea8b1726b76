//! A server in memory to try things against: `cargo run -p apiserver --example serve -- /tmp/kubeconfig`, then
//! `KUBECONFIG=/tmp/kubeconfig kubectl get namespaces`.

use std::{path::PathBuf, sync::Arc};

use apiserver::{Options, Profile, Server, ServiceAccountKeys, server_tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use store::{Embedded, Limits};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "a TLS provider is set already")?;
    let path = PathBuf::from(std::env::args().nth(1).ok_or("say where the kubeconfig is to be written")?);
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let serving_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let serving = params.signed_by(&serving_key, &ca)?;
    let client_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let client = params.signed_by(&client_key, &ca)?;
    let keys = ServiceAccountKeys {
        signing_key_pem: KeyPair::generate()?.serialize_pem(),
        verifying_keys_pem: Vec::new(),
        issuer: "https://kubernetes.default.svc".to_owned(),
        ..ServiceAccountKeys::default()
    };
    let options = Options {
        profile: Profile::Workload,
        client_ca_pem: Some(ca.pem()),
        service_account: Some(keys),
        bootstrap_tokens: true,
        ..Options::default()
    };
    let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await?;
    let tls = server_tls(&serving.pem(), &serving_key.serialize_pem(), Some(&ca.pem()))?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let base64 = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: try\n\
         clusters: [{{name: try, cluster: {{server: 'https://{address}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: admin, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n\
         contexts: [{{name: try, context: {{cluster: try, user: admin}}}}]\n",
        base64(ca.pem()),
        base64(client.pem()),
        base64(client_key.serialize_pem()),
    );
    std::fs::write(&path, config)?;
    let shutdown = CancellationToken::new();
    let end = shutdown.clone();
    let signal = async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            end.cancel();
        }
    };
    let (served, ()) = tokio::join!(server.serve(listener, tls, shutdown), signal);
    server.shutdown().await;
    Ok(served?)
}
