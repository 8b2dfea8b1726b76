//! A catalog of charts that needs no network: folders packed once, served in this process and, as [`crate::served`], to others.
//!
//! [`Embedded`] is a tower service, [`Beside`] a transport that finds it at [`URL`], folders of this machine below that by their names,
//! and everything else where it is. Whoever starts controllers gives them the latter, and makes a `Catalog` with that address:
//! `Beside::new(Embedded::read(folder, created)?, BTreeMap::new(), Arc::new(Https::new(..)?))`.
//!
//! Which folders there are is for whoever starts the process to say: an address in a Catalog finds one of them or nothing, so a tenant
//! reads no other file of this machine.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Ready, ready},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use bytes::Bytes;
use helm::chart::{BYTES_MAX, FILES_MAX, Files};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tower::Service;
use transport::{Local, Transport, TransportError};

use crate::{
    folder::Folder,
    package::{Package, index},
    repository::digest,
    served::{self, INDEX, Served},
};

/// Where the embedded catalog is, for those in this process.
pub const URL: &str = "http://catalog.skep.local/";
const HOST: &str = "catalog.skep.local";
/// Folders of a chart may lie so deep in one another.
pub(crate) const DEEP_MAX: usize = 64;
/// Charts in one folder.
pub const CHARTS_MAX: usize = 1_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} has neither index.yaml, as a mirror has, nor charts: archives (.tgz) or folders with a Chart.yaml", .folder.display())]
    NoCharts { folder: PathBuf },
    #[error("chart {folder}: {what}")]
    Chart { folder: String, what: String },
    #[error("{0}")]
    Limit(String),
}

pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What is served, by path. Cheap to clone.
#[derive(Clone)]
pub struct Embedded {
    pages: Arc<BTreeMap<String, Page>>,
}

pub(crate) struct Page {
    body: Bytes,
    kind: &'static str,
    tag: HeaderValue,
}

impl Page {
    pub(crate) fn new(body: Bytes, kind: &'static str) -> Self {
        let digest = digest::of(&body);
        // Hexadecimal digits and a colon are what a header may be.
        let tag = HeaderValue::try_from(format!("\"{digest}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""));
        Self { body, kind, tag }
    }

    pub(crate) fn answer(&self, method: &Method, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut answer = Response::new(Full::default());
        if served::is_known(headers, &self.tag) {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            served::describe(answer.headers_mut(), self.kind, self.body.len() as u64);
            if *method == Method::GET {
                *answer.body_mut() = Full::new(self.body.clone());
            }
        }
        answer.headers_mut().insert(header::ETAG, self.tag.clone());
        answer
    }
}

impl Embedded {
    /// Packs these charts, each under the name of its folder. `created` is when they are said to have been made: that of the
    /// release that brings them, so that the same charts are the same bytes wherever they are packed.
    ///
    /// # Errors
    /// Which of them is no chart, or stands twice.
    pub fn new(folders: &BTreeMap<String, Files>, created: Timestamp) -> Result<Self> {
        if folders.len() > CHARTS_MAX {
            return Err(Error::Limit(format!(
                "there are {} charts, and at most {CHARTS_MAX} are taken",
                folders.len()
            )));
        }
        let (created, mut entries, mut pages) = (created.to_string(), Vec::new(), BTreeMap::new());
        for (folder, files) in folders {
            let wrong = |what: String| Error::Chart { folder: folder.clone(), what };
            let package = Package::pack(files).map_err(wrong)?;
            let file = package.file();
            entries.push(package.entry(&created, &file));
            if pages.insert(file.clone(), Page::new(package.archive, "application/gzip")).is_some() {
                return Err(wrong(format!("another folder is {file} already")));
            }
        }
        let text = index(entries, &created).map_err(|what| Error::Chart { folder: "index".into(), what })?;
        pages.insert(INDEX.to_owned(), Page::new(text.into(), "application/yaml"));
        Ok(Self { pages: Arc::new(pages) })
    }

    /// Packs the charts in the folders of a folder; those without a `Chart.yaml` are none.
    ///
    /// # Errors
    /// What cannot be read, or is no chart.
    pub fn read(folder: &Path, created: Timestamp) -> Result<Self> {
        let mut folders = BTreeMap::new();
        for path in listed(folder)? {
            if path.join("Chart.yaml").is_file() {
                folders.insert(name_of(&path), files(&path)?);
            }
        }
        Self::new(&folders, created)
    }

    /// The names of its files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.pages.keys().map(String::as_str)
    }

    /// How many versions of charts it has.
    pub fn charts(&self) -> usize {
        self.files().filter(|name| *name != INDEX).count()
    }

    pub(crate) fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if let Some(refusal) = served::refusal(method) {
            return refusal;
        }
        let path = percent_decode_str(uri.path().trim_start_matches('/')).decode_utf8_lossy();
        self.pages
            .get(path.as_ref())
            .map_or_else(|| served::status(StatusCode::NOT_FOUND), |page| page.answer(method, headers))
    }
}

impl<B> Service<Request<B>> for Embedded {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri(), request.headers())))
    }
}

/// Requests to [`URL`] are answered here, all others go where they are meant to.
pub struct Beside {
    own: Arc<dyn Transport>,
    /// Below [`URL`], by the first step of the path.
    folders: BTreeMap<String, Arc<dyn Transport>>,
    others: Arc<dyn Transport>,
}

impl Beside {
    pub fn new(catalog: Embedded, folders: BTreeMap<String, Folder>, others: Arc<dyn Transport>) -> Arc<Self> {
        let local = |folder| Local::shared::<Full<Bytes>, _>(Served::Folder(Arc::new(folder)));
        let folders = folders.into_iter().map(|(name, folder)| (name, local(folder))).collect();
        Arc::new(Self { own: Local::shared::<Full<Bytes>, _>(catalog), folders, others })
    }
}

/// Where a folder is, for those in this process.
pub fn folder_url(name: &str) -> String {
    format!("{URL}{name}/")
}

/// The first step of a path, and the address without it.
fn below(uri: &Uri) -> Option<(&str, Uri)> {
    let (first, rest) = uri.path().strip_prefix('/')?.split_once('/')?;
    Some((first, format!("{URL}{rest}").parse().ok()?))
}

/// Lower case letters, digits and `-`, as names of folders are made of.
fn may_be_called(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn unknown(name: &str) -> String {
    format!(
        "no folder of charts is called {name:?} in this process: controllers are given it with `--chart-folder {name}=FOLDER`, \
         commands see none (`skep catalog serve FOLDER` makes a repository of it that they do see)"
    )
}

#[async_trait]
impl Transport for Beside {
    async fn send(
        &self,
        mut request: Request<Bytes>,
        limit_bytes: usize,
    ) -> std::result::Result<Response<Bytes>, TransportError> {
        if !request.uri().host().is_some_and(|host| host.eq_ignore_ascii_case(HOST)) {
            return self.others.send(request, limit_bytes).await;
        }
        let Some((name, rest)) = below(request.uri()).filter(|(name, _)| may_be_called(name)) else {
            return self.own.send(request, limit_bytes).await;
        };
        let Some(folder) = self.folders.get(name).cloned() else {
            let authority = HOST.to_owned();
            return Err(TransportError::Connect { authority, source: unknown(name).into() });
        };
        *request.uri_mut() = rest;
        folder.send(request, limit_bytes).await
    }

    fn trusting(&self, ca_pem: &[u8]) -> std::result::Result<Arc<dyn Transport>, TransportError> {
        let others = self.others.trusting(ca_pem)?;
        Ok(Arc::new(Self { own: self.own.clone(), folders: self.folders.clone(), others }))
    }
}

/// All files below a chart's folder.
pub(crate) fn files(folder: &Path) -> Result<Files> {
    let mut found = Found::default();
    found.collect(folder, "", 0)?;
    Ok(found.files)
}

#[derive(Default)]
struct Found {
    files: Files,
    bytes: usize,
}

impl Found {
    /// All files below a folder. Links lead nowhere: what is packed is what lies there.
    fn collect(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<()> {
        if depth > DEEP_MAX {
            return Err(Error::Limit(format!("{} lies more than {DEEP_MAX} folders deep", folder.display())));
        }
        for path in listed(folder)? {
            let failed = |source| Error::File { path: path.clone(), source };
            let about = std::fs::symlink_metadata(&path).map_err(failed)?;
            let name = format!("{prefix}{}", name_of(&path));
            if about.is_dir() {
                self.collect(&path, &format!("{name}/"), depth + 1)?;
                continue;
            }
            if !about.is_file() {
                return Err(Error::Chart { folder: folder.display().to_string(), what: format!("{name} is no file") });
            }
            self.bytes = self.bytes.saturating_add(usize::try_from(about.len()).unwrap_or(usize::MAX));
            if self.bytes > BYTES_MAX || self.files.len() >= FILES_MAX {
                let what = format!("is more than a chart may be ({FILES_MAX} files, {BYTES_MAX} bytes)");
                return Err(Error::Limit(format!("{} {what}", folder.display())));
            }
            self.files.insert(name, std::fs::read(&path).map_err(failed)?.into());
        }
        Ok(())
    }
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::{Access, Class, Repositories, joined};

    fn folders(names: &[(&str, &str)]) -> BTreeMap<String, Files> {
        let chart = |name: &str| {
            let text = format!("{{apiVersion: v2, name: {name}, version: 1.0.0+b}}");
            Files::from([("Chart.yaml".to_owned(), Arc::from(text.as_bytes()))])
        };
        names.iter().map(|(folder, name)| ((*folder).to_owned(), chart(name))).collect()
    }

    /// There is no network.
    struct Nobody;

    #[async_trait]
    impl Transport for Nobody {
        async fn send(
            &self,
            request: Request<Bytes>,
            _: usize,
        ) -> std::result::Result<Response<Bytes>, TransportError> {
            let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
            Err(TransportError::Connect { authority, source: "there is no network".into() })
        }
    }

    #[tokio::test]
    async fn the_embedded_catalog_is_a_repository_without_a_network() {
        let catalog = Embedded::new(&folders(&[("a", "a"), ("b", "b")]), Timestamp::UNIX_EPOCH).unwrap();
        let access = Access::new(Beside::new(catalog, BTreeMap::new(), Arc::new(Nobody)));
        let all = Repositories::default();
        let index = all.index(&access, URL).await.unwrap();
        assert_eq!(index.entries.keys().collect::<Vec<_>>(), ["a", "b"]);
        for entry in index.entries.values().flatten() {
            let fetched = all.archive(&access, &joined(URL, &entry.urls[0]), Some(&entry.digest)).await.unwrap();
            assert_eq!(Package::read(fetched.archive.clone()).unwrap().name, entry.name);
        }
        let error = all.index(&access, "https://charts.test").await.unwrap_err();
        assert_eq!(error.class, Class::Unreachable);
        let error = all.index(&access, &format!("{URL}other")).await.unwrap_err();
        assert_eq!(error.class, Class::Unreachable);
        assert!(error.to_string().contains("no folder of charts is called \"other\""), "{error}");
    }

    #[test]
    fn the_same_charts_are_the_same_bytes() {
        let one = || Embedded::new(&folders(&[("a", "a"), ("b", "b")]), Timestamp::UNIX_EPOCH).unwrap();
        let bytes = |catalog: &Embedded| catalog.pages.values().map(|page| page.body.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&one()), bytes(&one()));
        assert_eq!(one().files().collect::<Vec<_>>(), ["a-1.0.0+b.tgz", "b-1.0.0+b.tgz", "index.yaml"]);
    }

    #[test]
    fn what_is_known_is_not_sent_and_nothing_but_reading_is_done() {
        let catalog = Embedded::new(&folders(&[("a", "a")]), Timestamp::UNIX_EPOCH).unwrap();
        let ask = |method: Method, path: &'static str, tag: Option<&HeaderValue>| {
            let headers = tag.map(|tag| (header::IF_NONE_MATCH, tag.clone())).into_iter().collect();
            catalog.answer(&method, &Uri::from_static(path), &headers)
        };
        let page = ask(Method::GET, "/index.yaml", None);
        let tag = page.headers()[header::ETAG].clone();
        assert_eq!(ask(Method::GET, "/index.yaml", Some(&tag)).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(ask(Method::GET, "/a-1.0.0%2Bb.tgz", Some(&tag)).status(), StatusCode::OK);
        assert_eq!(ask(Method::HEAD, "/a-1.0.0+b.tgz", None).status(), StatusCode::OK);
        assert_eq!(ask(Method::PUT, "/index.yaml", None).status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(Method::GET, "/../index.yaml", None).status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn two_folders_with_one_chart_and_too_many_are_refused() {
        let error = Embedded::new(&folders(&[("a", "a"), ("b", "a")]), Timestamp::UNIX_EPOCH).err().unwrap();
        assert_eq!(error.to_string(), "chart b: another folder is a-1.0.0+b.tgz already");
        let names: Vec<String> = (0..=CHARTS_MAX).map(|number| format!("c{number}")).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        assert!(Embedded::new(&folders(&many[..CHARTS_MAX]), Timestamp::UNIX_EPOCH).is_ok());
        assert!(matches!(Embedded::new(&folders(&many), Timestamp::UNIX_EPOCH), Err(Error::Limit(_))));
    }

    #[test]
    fn the_charts_of_this_project_are_a_catalog() {
        let charts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts");
        let catalog = Embedded::read(&charts, Timestamp::UNIX_EPOCH).unwrap();
        let folders = listed(&charts).unwrap().iter().filter(|path| path.join("Chart.yaml").is_file()).count();
        assert!(folders > 0);
        assert_eq!(catalog.files().count(), folders + 1);
    }
}
