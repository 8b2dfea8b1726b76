//! Proxies between here and a server, as Go programs find them: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, or in small letters.
//!
//! Source: golang.org/x/net/http/httpproxy. What goes to this machine itself never takes a proxy. A proxy is spoken to over plain
//! HTTP or over TLS, with the trust that the server's own certificate authority adds; one that wants SOCKS is refused by name.

use std::{
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::BoxFuture;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::Service;

use super::Source;

/// Entries that `NO_PROXY` may have.
const EXCEPTIONS_LIMIT: usize = 1024;
/// For a connection to a proxy, and its answer to CONNECT.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("{variable} is not the URL of a proxy that can be used (http://host:port or https://host:port)")]
    Url { variable: String },
    #[error("{variable} has more than {EXCEPTIONS_LIMIT} entries")]
    TooMany { variable: String },
}

/// Which proxy is taken to which host. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<Rules>);

#[derive(Debug, Default)]
struct Rules {
    http: Option<Proxy>,
    https: Option<Proxy>,
    none: bool,
    exceptions: Vec<Exception>,
}

#[derive(Clone)]
pub struct Proxy {
    uri: Uri,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("uri", &self.uri).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Exception {
    what: What,
    port: Option<u16>,
}

#[derive(Debug)]
enum What {
    Network(ipnet::IpNet),
    /// The domain, and whether it counts itself and not only what is below it.
    Domain(String, bool),
}

impl Proxies {
    /// Reads the variables; only the composition root passes those of the environment.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let find = |name: &str| {
            let names = [name.to_owned(), name.to_ascii_lowercase()];
            names.into_iter().find_map(|name| Some((get(&name).filter(|value| !value.trim().is_empty())?, name)))
        };
        let proxy = |name| find(name).map(|(value, name)| Proxy::read(&value, name)).transpose();
        let mut rules = Rules { http: proxy("HTTP_PROXY")?, https: proxy("HTTPS_PROXY")?, ..Rules::default() };
        if let Some((list, variable)) = find("NO_PROXY") {
            if list.split(',').count() > EXCEPTIONS_LIMIT {
                return Err(ProxyError::TooMany { variable });
            }
            for entry in
                list.split(',').map(|entry| entry.trim().to_ascii_lowercase()).filter(|entry| !entry.is_empty())
            {
                rules.none |= entry == "*";
                rules.exceptions.push(Exception::read(&entry));
            }
        }
        Ok(Self(Arc::new(rules)))
    }

    fn to(&self, target: &Uri) -> Option<&Proxy> {
        let https = target.scheme_str() == Some("https");
        let proxy = if https { self.0.https.as_ref() } else { self.0.http.as_ref() }?;
        let host = target.host()?.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let port = target.port_u16().unwrap_or(if https { 443 } else { 80 });
        let address = host.parse::<IpAddr>().ok();
        let here = host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let spared = |exception: &Exception| exception.covers(&host, address, port);
        (!here && !self.0.none && !self.0.exceptions.iter().any(spared)).then_some(proxy)
    }

    /// What a request that is sent to the proxy itself has to carry: those over TLS have said it when the way was opened.
    pub(super) fn authorization(&self, target: &Uri) -> Option<&HeaderValue> {
        let proxy = self.to(target).filter(|_| target.scheme_str() == Some("http"))?;
        proxy.authorization.as_ref()
    }
}

impl Proxy {
    fn read(value: &str, variable: String) -> Result<Self, ProxyError> {
        let value = value.trim();
        let text = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let Ok(uri) = text.parse::<Uri>() else { return Err(ProxyError::Url { variable }) };
        let (Some(scheme @ ("http" | "https")), Some(authority), Some(host)) =
            (uri.scheme_str(), uri.authority(), uri.host())
        else {
            return Err(ProxyError::Url { variable });
        };
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let authorization = user.and_then(|user| {
            let user = user.split_once(':').unwrap_or((user, ""));
            let plain = |text: &str| percent_encoding::percent_decode_str(text).collect::<Vec<u8>>();
            let told = [plain(user.0), b":".to_vec(), plain(user.1)].concat();
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(told))).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        let place = format!("{scheme}://{host}:{port}");
        match place.parse() {
            Ok(uri) => Ok(Self { uri, authorization }),
            Err(_) => Err(ProxyError::Url { variable }),
        }
    }
}

impl Exception {
    fn read(entry: &str) -> Self {
        let network = |text: &str| {
            let address = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().map(ipnet::IpNet::from);
            text.parse::<ipnet::IpNet>().or(address).ok()
        };
        if let Some(network) = network(entry) {
            return Self { what: What::Network(network), port: None };
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => (host, port.parse().ok()),
            _ => (entry, None),
        };
        let what = match (network(host), host.strip_prefix('*').unwrap_or(host).strip_prefix('.')) {
            (Some(network), _) => What::Network(network),
            (None, Some(below)) => What::Domain(below.to_owned(), false),
            (None, None) => What::Domain(host.to_owned(), true),
        };
        Self { what, port }
    }

    fn covers(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        let meant = match &self.what {
            What::Network(network) => address.is_some_and(|address| network.contains(&address)),
            What::Domain(domain, itself) => {
                (*itself && host == domain)
                    || host.strip_suffix(domain.as_str()).is_some_and(|above| above.ends_with('.') && above.len() > 1)
            }
        };
        meant && self.port.is_none_or(|own| own == port)
    }
}

/// Connects to hosts, or to the proxies before them.
#[derive(Clone)]
pub struct Through {
    pub http: HttpConnector,
    /// To proxies that want TLS.
    pub https: HttpsConnector<HttpConnector>,
    pub proxies: Proxies,
}

impl Service<Uri> for Through {
    type Response = Way;
    type Error = Source;
    type Future = BoxFuture<'static, Result<Way, Source>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Source>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let Some(proxy) = self.proxies.to(&target).cloned() else {
            let direct = self.http.call(target);
            return Box::pin(
                async move { Ok(Way { stream: MaybeHttpsStream::Http(direct.await?), asks_proxy: false }) },
            );
        };
        let mut https = self.https.clone();
        Box::pin(async move {
            let failed = |source: Source| -> Source { format!("the proxy {}: {}", proxy.uri, chain(&*source)).into() };
            if target.scheme_str() != Some("https") {
                let stream = https.call(proxy.uri.clone()).await.map_err(failed)?;
                return Ok(Way { stream, asks_proxy: true });
            }
            let mut tunnel = Tunnel::new(proxy.uri.clone(), https);
            if let Some(authorization) = &proxy.authorization {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            let opened = tokio::time::timeout(ANSWER_TIMEOUT, tunnel.call(target)).await;
            let stream =
                opened.map_err(|_| failed("it does not answer".into()))?.map_err(|error| failed(error.into()))?;
            Ok(Way { stream, asks_proxy: false })
        })
    }
}

/// What an error says, and what is behind it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let parts = std::iter::successors(Some(error), |error| error.source());
    parts.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A connection to a host, or to the proxy that is asked for what is the host's.
pub struct Way {
    stream: MaybeHttpsStream<TokioIo<TcpStream>>,
    asks_proxy: bool,
}

impl Connection for Way {
    fn connected(&self) -> Connected {
        self.stream.connected().proxy(self.asks_proxy)
    }
}

impl Read for Way {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, into)
    }
}

impl Write for Way {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        let get = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Proxies::from_variables(&get)
    }

    #[test]
    fn a_proxy_is_taken_by_scheme_and_never_to_this_machine_or_where_it_is_not_to_be() {
        let none = "10.0.0.0/8, 192.0.2.7,inner.test,.below.test,*.star.test,port.test:8774";
        let found = proxies(&[
            ("HTTPS_PROXY", "http://us%40er:pass@proxy.test:3128"),
            ("http_proxy", "plain.test"),
            ("NO_PROXY", none),
        ]);
        let found = found.unwrap();
        let via = |url: &str| found.to(&url.parse().unwrap()).map(|proxy| proxy.uri.to_string());
        let secure = Some("http://proxy.test:3128/".to_owned());
        assert_eq!(via("https://cloud.test:5000/v3"), secure);
        assert_eq!(via("http://cloud.test:5000/v3"), Some("http://plain.test:80/".to_owned()));
        assert_eq!(found.0.https.as_ref().unwrap().authorization.as_ref().unwrap(), "Basic dXNAZXI6cGFzcw==");
        for direct in [
            "https://localhost:5000",
            "https://127.0.0.9",
            "https://[::1]:5000",
            "https://10.1.2.3",
            "https://192.0.2.7:5000",
            "https://inner.test",
            "https://nova.INNER.test",
            "https://nova.below.test",
            "https://nova.star.test",
            "https://port.test:8774",
        ] {
            assert_eq!(via(direct), None, "{direct}");
        }
        for through in ["https://notinner.test", "https://below.test", "https://port.test", "https://192.0.2.70"] {
            assert_eq!(via(through), secure, "{through}");
        }
        assert!(
            proxies(&[("HTTPS_PROXY", "http://p.test"), ("NO_PROXY", "*")])
                .unwrap()
                .to(&"https://c.test".parse().unwrap())
                .is_none()
        );
    }

    #[test]
    fn what_is_no_proxy_and_lists_without_end_are_refused() {
        let told = |variables: &[(&str, &str)]| proxies(variables).unwrap_err().to_string();
        let wrong = "HTTPS_PROXY is not the URL of a proxy that can be used (http://host:port or https://host:port)";
        for url in ["socks5://p.test:1080", "http://", "::"] {
            assert_eq!(told(&[("HTTPS_PROXY", url)]), wrong, "{url}");
        }
        let list = |count: usize| vec!["a.test"; count].join(",");
        assert!(proxies(&[("NO_PROXY", &list(EXCEPTIONS_LIMIT))]).is_ok());
        assert!(told(&[("NO_PROXY", &list(EXCEPTIONS_LIMIT + 1))]).contains("more than 1024 entries"));
    }
}
