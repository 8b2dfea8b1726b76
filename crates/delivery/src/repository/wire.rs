//! Requests to repositories: where they lead, how long they may take, how many there are at once.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use transport::TransportError;

use super::{
    Access,
    error::{Class, Error, Result},
};

/// A repository that has not answered after this time is not waited for.
pub const TIMEOUT: Duration = Duration::from_secs(30);
const REDIRECTS_MAX: usize = 10;
/// Requests at once, to all repositories.
const REQUESTS_MAX: usize = 64;
/// Requests at once to one host: those that hang there leave room for others.
const HOST_REQUESTS_MAX: usize = 4;
const AGENT: &str = "skep";

/// What is asked for.
pub struct Ask<'a> {
    pub method: Method,
    pub url: &'a str,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// The largest answer that is read.
    pub bytes_max: usize,
}

impl<'a> Ask<'a> {
    pub fn get(url: &'a str, accept: &'static str, bytes_max: usize) -> Self {
        let headers = vec![(header::ACCEPT, HeaderValue::from_static(accept))];
        Self { method: Method::GET, url, headers, body: Bytes::new(), bytes_max }
    }
}

pub struct Wire {
    turns: Semaphore,
    /// By scheme and authority; those that nobody uses are dropped.
    hosts: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Default for Wire {
    fn default() -> Self {
        Self { turns: Semaphore::new(REQUESTS_MAX), hosts: Mutex::default() }
    }
}

impl Wire {
    fn host(&self, uri: &Uri) -> Arc<Semaphore> {
        let name = origin(uri);
        let mut hosts = self.hosts.lock();
        hosts.retain(|_, turns| Arc::strong_count(turns) > 1);
        Arc::clone(hosts.entry(name).or_insert_with(|| Arc::new(Semaphore::new(HOST_REQUESTS_MAX))))
    }

    /// The answer, wherever the address leads to. Other hosts do not get the credentials.
    pub async fn send(
        &self,
        access: &Access,
        ask: &Ask<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Bytes>> {
        let url = ask.url;
        let first = address(url)?;
        let host = self.host(&first);
        let walk = async {
            let closed = || Error::new(Class::Unreachable, url, "nothing is fetched any more");
            // That of the host first: whoever waits for it keeps no room from others.
            let _of_host = host.acquire().await.map_err(|_| closed())?;
            let _of_all = self.turns.acquire().await.map_err(|_| closed())?;
            let mut at = first.clone();
            for _ in 0..=REDIRECTS_MAX {
                let request = request(ask, &at, authorization.filter(|_| is_same_place(&at, &first)))?;
                let response =
                    access.transport.send(request, ask.bytes_max).await.map_err(|error| failed(url, &error))?;
                let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                match location.filter(|_| response.status().is_redirection() && ask.method == Method::GET) {
                    Some(location) => at = next(url, &at, location)?,
                    None => return Ok(response),
                }
            }
            Err(Error::new(Class::Unusable, url, format!("it leads on more than {REDIRECTS_MAX} times")))
        };
        let late = || format!("there was no whole answer within {} s", TIMEOUT.as_secs());
        tokio::time::timeout(TIMEOUT, walk).await.unwrap_or_else(|_| Err(Error::new(Class::Unreachable, url, late())))
    }
}

fn request(ask: &Ask<'_>, at: &Uri, authorization: Option<&HeaderValue>) -> Result<Request<Bytes>> {
    let mut request = Request::builder().method(ask.method.clone()).uri(at.clone()).header(header::USER_AGENT, AGENT);
    if let Some(host) = at.authority() {
        request = request.header(header::HOST, host.as_str());
    }
    for (name, value) in &ask.headers {
        request = request.header(name, value);
    }
    if let Some(value) = authorization {
        request = request.header(header::AUTHORIZATION, value);
    }
    request.body(ask.body.clone()).map_err(|error| Error::new(Class::Address, ask.url, error.to_string()))
}

pub fn address(url: &str) -> Result<Uri> {
    let uri: Uri = url.parse().map_err(|_| Error::new(Class::Address, url, "this is no address"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(Error::new(Class::Address, url, "expected http://, https:// or oci://")),
    }
}

/// What an address leads to. A way that began with TLS does not go on without.
pub fn next(url: &str, at: &Uri, location: &str) -> Result<Uri> {
    let wrong = |what: &str| Error::new(Class::Unusable, url, format!("it leads to {location:?}: {what}"));
    let target = match location.contains("://") {
        true => location.to_owned(),
        false => match location.strip_prefix('/') {
            Some(path) => format!("{}/{path}", origin(at)),
            None => {
                format!("{}{}/{location}", origin(at), at.path().rsplit_once('/').map_or("", |(folder, _)| folder))
            }
        },
    };
    let target = address(&target).map_err(|_| wrong("this is no address"))?;
    if at.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
        return Err(wrong("without TLS"));
    }
    Ok(target)
}

fn origin(uri: &Uri) -> String {
    format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority().map_or("", |authority| authority.as_str()))
}

pub fn is_same_place(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

fn failed(url: &str, error: &TransportError) -> Error {
    let class = match error {
        TransportError::TooLarge { .. } => Class::Unusable,
        _ => Class::Unreachable,
    };
    let mut what = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        what = format!("{what}: {inner}");
        source = inner.source();
    }
    Error::new(class, url, what)
}

/// The answer, if it is what was asked for.
pub fn taken(url: &str, response: Response<Bytes>) -> Result<Response<Bytes>> {
    let status = response.status();
    let class = match status.as_u16() {
        200..300 => return Ok(response),
        401 | 403 => Class::Denied,
        404 | 410 => Class::Missing,
        408 | 429 | 500.. => Class::Unreachable,
        _ => Class::Unusable,
    };
    Err(Error::new(class, url, format!("it answers {status}")))
}
