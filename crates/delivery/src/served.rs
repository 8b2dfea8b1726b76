//! What a repository of Helm answers over HTTP: charts that were packed, or those of a folder. It is a tower service: whoever has a
//! listener gives it the requests.

use std::{
    convert::Infallible,
    io::ErrorKind,
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
    time::UNIX_EPOCH,
};

use bytes::Bytes;
use futures::{TryStreamExt, future::BoxFuture};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use percent_encoding::percent_decode_str;
use tokio::{fs::File, io::AsyncReadExt};
use tokio_util::io::ReaderStream;
use tower::Service;

use crate::{
    embedded::{Embedded, Error, Page, Result},
    folder::Folder,
    repository::{ARCHIVE_BYTES_MAX, INDEX_BYTES_MAX},
};

pub const INDEX: &str = "index.yaml";
/// Of a file that is being sent, so much is in memory.
const PIECE_BYTES: usize = 64 << 10;

/// Of a file, and of what was packed.
pub type Body = UnsyncBoxBody<Bytes, std::io::Error>;

#[derive(Clone)]
pub enum Served {
    Packed(Embedded),
    /// Its charts as they are when they are asked for: more may be copied into it meanwhile.
    Folder(Arc<Folder>),
}

impl Served {
    /// A folder with an index, or with charts.
    ///
    /// # Errors
    /// It is neither.
    pub async fn of(folder: &Path) -> Result<Self> {
        let folder = Folder::open(folder)?;
        if !folder.has_index() && folder.index().await?.1 == 0 {
            return Err(Error::NoCharts { folder: folder.path().to_owned() });
        }
        Ok(Self::Folder(Arc::new(folder)))
    }

    async fn answer(&self, request: &Parts) -> Response<Body> {
        match self {
            Self::Packed(charts) => boxed(charts.answer(&request.method, &request.uri, &request.headers)),
            Self::Folder(folder) => from(folder, request).await,
        }
    }
}

/// What is asked for otherwise than by reading.
pub(crate) fn refusal<B: Default>(method: &Method) -> Option<Response<B>> {
    (!matches!(*method, Method::GET | Method::HEAD)).then(|| {
        let mut answer = status(StatusCode::METHOD_NOT_ALLOWED);
        answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        answer
    })
}

pub(crate) fn status<B: Default>(status: StatusCode) -> Response<B> {
    let mut answer = Response::new(B::default());
    *answer.status_mut() = status;
    answer
}

/// Whether whoever asks has it already.
pub(crate) fn is_known(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let tag = tag.to_str().unwrap_or_default();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known.flat_map(|tags| tags.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag)
}

pub(crate) fn describe(headers: &mut HeaderMap, kind: &'static str, bytes: u64) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, bytes.into());
}

/// What a file of a repository is, and how large at most. Others are not for the world: a folder may have more in it.
fn kind(name: &str) -> Option<(&'static str, usize)> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        return None;
    }
    match name {
        INDEX => Some(("application/yaml", INDEX_BYTES_MAX)),
        _ if name.ends_with(".tgz") => Some(("application/gzip", ARCHIVE_BYTES_MAX)),
        _ if name.ends_with(".tgz.prov") => Some(("text/plain", ARCHIVE_BYTES_MAX)),
        _ => None,
    }
}

fn boxed(answer: Response<Full<Bytes>>) -> Response<Body> {
    answer.map(|body| body.map_err(|never: Infallible| match never {}).boxed_unsync())
}

async fn from(folder: &Folder, request: &Parts) -> Response<Body> {
    if let Some(refusal) = refusal(&request.method) {
        return refusal;
    }
    let name = percent_decode_str(request.uri.path().trim_start_matches('/')).decode_utf8_lossy();
    let Some((kind, limit)) = kind(&name) else { return status(StatusCode::NOT_FOUND) };
    let path = folder.path().join(name.as_ref());
    match sent(&path, kind, limit, request).await {
        Ok(answer) if answer.status() != StatusCode::NOT_FOUND => answer,
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(%error, path = %path.display(), "a file of the catalog cannot be sent");
            status(StatusCode::INTERNAL_SERVER_ERROR)
        }
        _ => made(folder, &name, kind, request).await,
    }
}

/// What is no file in a folder, but is made of what lies there.
async fn made(folder: &Folder, name: &str, kind: &'static str, request: &Parts) -> Response<Body> {
    let made = match name {
        INDEX => folder.index().await.map(|(text, _)| Some(text.into())),
        // Beside an index of its own, a folder offers what that names.
        _ if folder.has_index() => Ok(None),
        _ => folder.packed(name).await,
    };
    match made {
        Ok(Some(body)) => boxed(Page::new(body, kind).answer(&request.method, &request.headers)),
        Ok(None) => status(StatusCode::NOT_FOUND),
        Err(error) => {
            let source = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, source, path = %folder.path().display(), "the charts of a folder cannot be offered");
            status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

async fn sent(path: &PathBuf, kind: &'static str, limit: usize, request: &Parts) -> std::io::Result<Response<Body>> {
    // Links may lead out of the folder.
    if !tokio::fs::symlink_metadata(path).await?.is_file() {
        return Ok(status(StatusCode::NOT_FOUND));
    }
    let file = File::open(path).await?;
    let about = file.metadata().await?;
    if about.len() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(std::io::Error::other(format!("it is larger than {limit} bytes")));
    }
    // What was mirrored is replaced as a whole, so the time tells one from the other.
    let changed = about.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let tag = HeaderValue::try_from(format!("\"{:x}-{changed:x}\"", about.len())).map_err(std::io::Error::other)?;
    let mut answer = match is_known(&request.headers, &tag) {
        true => status(StatusCode::NOT_MODIFIED),
        false => {
            let mut answer = Response::new(Body::default());
            describe(answer.headers_mut(), kind, about.len());
            if request.method == Method::GET {
                let pieces = ReaderStream::with_capacity(file.take(about.len()), PIECE_BYTES);
                *answer.body_mut() = StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync();
            }
            answer
        }
    };
    answer.headers_mut().insert(header::ETAG, tag);
    Ok(answer)
}

impl<B> Service<Request<B>> for Served {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (served, parts) = (self.clone(), request.into_parts().0);
        Box::pin(async move { Ok(served.answer(&parts).await) })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    async fn ask(served: &Served, method: Method, path: &str, tag: Option<&HeaderValue>) -> (StatusCode, String) {
        let answer = response(served, method, path, tag).await;
        let code = answer.status();
        (code, String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    async fn response(served: &Served, method: Method, path: &str, tag: Option<&HeaderValue>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path).body(Full::<Bytes>::default()).unwrap();
        request.headers_mut().extend(tag.map(|tag| (header::IF_NONE_MATCH, tag.clone())));
        served.clone().call(request).await.unwrap()
    }

    #[tokio::test]
    async fn of_a_folder_the_index_and_archives_are_served_and_nothing_else() {
        let folder = folder(&[
            ("index.yaml", "entries: {}"),
            ("a-1.0.0+b.tgz", "a"),
            (".skep-mirror.tgz", "own"),
            ("key.pem", "secret"),
            ("deep/a.tgz", "deep"),
        ]);
        std::os::unix::fs::symlink(folder.path().join("key.pem"), folder.path().join("link.tgz")).unwrap();
        let served = Served::of(folder.path()).await.unwrap();
        assert_eq!(ask(&served, Method::GET, "/index.yaml", None).await, (StatusCode::OK, "entries: {}".into()));
        assert_eq!(ask(&served, Method::GET, "/a-1.0.0%2Bb.tgz", None).await, (StatusCode::OK, "a".into()));
        assert_eq!(ask(&served, Method::HEAD, "/a-1.0.0+b.tgz", None).await, (StatusCode::OK, String::new()));
        for path in
            ["/", "/key.pem", "/link.tgz", "/deep/a.tgz", "/.skep-mirror.tgz", "/../a.tgz", "/..%2Fa.tgz", "/no.tgz"]
        {
            assert_eq!(ask(&served, Method::GET, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
        }
        assert_eq!(ask(&served, Method::PUT, "/index.yaml", None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn what_is_known_is_not_sent_until_it_changes() {
        let folder = folder(&[("index.yaml", "entries: {}")]);
        let served = Served::of(folder.path()).await.unwrap();
        let tag = response(&served, Method::GET, "/index.yaml", None).await.headers()[header::ETAG].clone();
        assert_eq!(ask(&served, Method::GET, "/index.yaml", Some(&tag)).await.0, StatusCode::NOT_MODIFIED);
        std::fs::write(folder.path().join("index.yaml"), "entries: {a: []}").unwrap();
        assert_eq!(ask(&served, Method::GET, "/index.yaml", Some(&tag)).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn what_is_larger_than_its_readers_take_is_not_sent() {
        let folder = folder(&[("index.yaml", "entries: {}")]);
        let file = std::fs::File::create(folder.path().join("a.tgz")).unwrap();
        let served = Served::of(folder.path()).await.unwrap();
        file.set_len(ARCHIVE_BYTES_MAX as u64).unwrap();
        assert_eq!(ask(&served, Method::HEAD, "/a.tgz", None).await.0, StatusCode::OK);
        file.set_len(ARCHIVE_BYTES_MAX as u64 + 1).unwrap();
        assert_eq!(ask(&served, Method::HEAD, "/a.tgz", None).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn a_folder_of_charts_is_packed_and_one_without_any_is_refused() {
        let charts = folder(&[("hello/Chart.yaml", "{apiVersion: v2, name: hello, version: 1.0.0}")]);
        let served = Served::of(charts.path()).await.unwrap();
        let (code, index) = ask(&served, Method::GET, "/index.yaml", None).await;
        assert!(code == StatusCode::OK && index.contains("hello-1.0.0.tgz"), "{index}");
        let error = Served::of(folder(&[("a.txt", "")]).path()).await.err().unwrap().to_string();
        let told = "has neither index.yaml, as a mirror has, nor charts: archives (.tgz) or folders with a Chart.yaml";
        assert!(error.ends_with(told), "{error}");
        assert!(matches!(Served::of(Path::new("/nowhere")).await, Err(Error::File { .. })));
        assert!(matches!(Served::of(&charts.path().join("hello/Chart.yaml")).await, Err(Error::File { .. })));
    }
}
