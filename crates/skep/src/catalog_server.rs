//! `skep catalog serve`: charts as a repository of Helm over HTTP, for the stock `helm`, Flux and other installations.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use cli::CatalogServe;
use delivery::served::Served;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Connections at once: more wait until one of them has ended.
const CONNECTIONS_MAX: usize = 256;
/// A TLS handshake, and a request's headers, must be through in this time.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
const HEADERS_LIMIT: Duration = Duration::from_secs(30);
/// After so long a connection takes no further request, and after as long again it ends.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
const STREAMS_MAX: u32 = 16;

pub async fn run(arguments: &CatalogServe) -> Result<u8> {
    let (served, what) = match &arguments.folder {
        Some(folder) => (Served::of(folder).await?, folder.display().to_string()),
        None => (Served::Packed(crate::catalogs::embedded()?), "this program".to_owned()),
    };
    let tls = match (&arguments.tls_cert, &arguments.tls_key) {
        (Some(certificate), Some(key)) => Some(tls(certificate, key)?),
        _ => None,
    };
    let listen = arguments.listen;
    if tls.is_none() && !listen.ip().is_loopback() {
        bail!(
            "others reach {listen}, and charts go to others over TLS only: pass --tls-cert and --tls-key, or listen on 127.0.0.1"
        );
    }
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listen at {listen}"))?;
    let at = url(listener.local_addr().context("read the listener's address")?, tls.is_some());
    say(&at);
    eprintln!("The charts of {what} are there as a repository of Helm:");
    eprintln!("  helm repo add skep {at}");
    let stop = CancellationToken::new();
    let serving = serve(listener, tls, served, stop.clone());
    tokio::select! {
        asked = crate::serve::until_signal() => asked?,
        () = serving => {}
    }
    stop.cancel();
    Ok(0)
}

#[expect(clippy::print_stdout, reason = "where it is is the command's output")]
fn say(text: &str) {
    println!("{text}");
}

fn url(address: SocketAddr, is_secured: bool) -> String {
    format!("{}://{address}", if is_secured { "https" } else { "http" })
}

fn tls(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    let tls = apiserver::server_tls(&read(certificate)?, &read(key)?, None);
    tls.with_context(|| format!("serve with {} and {}", certificate.display(), key.display()))
}

/// Serves until `stop`.
async fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, served: Served, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // The peer went away again, or there are no file handles: neither is the listener's end.
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, served) = (tls.clone(), served.clone());
        let work = async move {
            take(stream, tls, served).await;
            drop(slot);
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(work));
    }
}

async fn take(stream: TcpStream, tls: Option<Arc<ServerConfig>>, served: Served) {
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return connection(stream, served).await };
    match tokio::time::timeout(HANDSHAKE_LIMIT, TlsAcceptor::from(tls).accept(stream)).await {
        Ok(Ok(stream)) => connection(stream, served).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn connection<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: I, served: Served) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_LIMIT)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(HEADERS_LIMIT));
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(served));
    tokio::pin!(connection);
    let ended = match tokio::time::timeout(CONNECTION_LIMIT, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(CONNECTION_LIMIT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use delivery::repository::{Access, Repositories, joined};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use transport::{Https, Proxies, Tls};

    use super::*;

    fn arguments(listen: &str) -> CatalogServe {
        CatalogServe { folder: None, listen: listen.parse().unwrap(), tls_cert: None, tls_key: None }
    }

    async fn started(tls: Option<Arc<ServerConfig>>) -> (String, CancellationToken) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = url(listener.local_addr().unwrap(), tls.is_some());
        let stop = CancellationToken::new();
        let charts = Served::Packed(crate::catalogs::embedded().unwrap());
        tokio::spawn(serve(listener, tls, charts, stop.clone()));
        (at, stop)
    }

    async fn first(at: &str, access: &Access) -> delivery::repository::Result<()> {
        let all = Repositories::default();
        let index = all.index(access, at).await?;
        let hello = &index.entries["hello-world"][0];
        all.archive(access, &joined(at, &hello.urls[0]), Some(&hello.digest)).await.map(drop)
    }

    #[tokio::test]
    async fn the_charts_of_this_program_are_a_repository_over_http_and_over_tls() {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let secured = apiserver::server_tls(&made.cert.pem(), &made.signing_key.serialize_pem(), None).unwrap();
        let trust = Tls { ca_pem: Some(made.cert.pem().into_bytes()), ..Tls::default() };
        for (tls, trust) in [(None, Tls::default()), (Some(secured), trust)] {
            let (at, stop) = started(tls).await;
            let access = Access::new(Arc::new(Https::new(&trust, Proxies::default()).unwrap()));
            first(&at, &access).await.unwrap();
            stop.cancel();
        }
    }

    #[tokio::test]
    async fn nothing_but_a_request_that_reads_is_answered_with_charts() {
        let (at, _stop) = started(None).await;
        let mut stream = TcpStream::connect(at.trim_start_matches("http://")).await.unwrap();
        let request = "PUT /index.yaml HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 405 ") && text.contains("allow: GET, HEAD"), "{text}");
    }

    #[tokio::test]
    async fn without_tls_nobody_else_is_served_and_what_is_wrong_is_said() {
        let error = run(&arguments("0.0.0.0:0")).await.unwrap_err().to_string();
        assert!(error.starts_with("others reach 0.0.0.0:0, and charts go to others over TLS only"), "{error}");
        let nowhere = CatalogServe { folder: Some("/nowhere".into()), ..arguments("127.0.0.1:0") };
        assert_eq!(run(&nowhere).await.unwrap_err().to_string(), "cannot read /nowhere");
        let missing = Some("/nowhere/tls.crt".into());
        let wrong = CatalogServe { tls_cert: missing.clone(), tls_key: missing, ..arguments("127.0.0.1:0") };
        assert_eq!(run(&wrong).await.unwrap_err().to_string(), "read /nowhere/tls.crt");
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        assert_eq!(run(&arguments(&address)).await.unwrap_err().to_string(), format!("listen at {address}"));
    }
}
