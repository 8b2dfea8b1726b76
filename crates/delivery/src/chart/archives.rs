//! Charts that were fetched and read: once for all clusters that they go to.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use api::app::{Chart, Quoted};
use helm::{Prepared, chart};
use kube::ResourceExt;
use parking_lot::Mutex;

use crate::{
    app::{
        chart::ARCHIVE,
        source::{self, Source, Way},
    },
    controllers::Context,
    repository,
    target::Place,
};

/// Charts that are kept for those who ask next, by about what they take.
const KEPT_BYTES_MAX: usize = 64 << 20;
/// What is kept of a template takes about so many times its bytes: 5 to 14 were measured.
const READ_COST: usize = 10;

/// By the digests of their archives.
#[derive(Default)]
pub struct Archives(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_digest: HashMap<String, One>,
    /// What was asked for last is at the end.
    order: VecDeque<String>,
}

struct One {
    chart: Arc<Prepared>,
    /// Of its files, unpacked.
    bytes: usize,
}

impl One {
    /// Grows while templates are read.
    fn weight(&self) -> usize {
        self.bytes.saturating_add(self.chart.read_bytes().saturating_mul(READ_COST))
    }
}

/// A helm chart, as it was fetched.
pub struct Found {
    pub chart: Arc<Prepared>,
    /// What the Chart is to bear as [`ARCHIVE`].
    pub note: Option<String>,
}

/// What an archive of a registry is kept for: a version of a chart of a catalog. None where the address names its digest, or an index does.
fn kept_for(catalog: &str, url: &str) -> Option<String> {
    let (_, reference) = url.strip_prefix("oci://")?.rsplit_once('/')?;
    (!reference.contains('@')).then(|| format!("{catalog}/{reference}"))
}

/// What a Chart is to note of an archive, given what it notes of one. A tag may come to name another archive, and whoever moves it need not
/// be who pushed the first: what an app was given for a version, it keeps.
fn noted(note: Option<&str>, kept_for: &str, digest: &str) -> Result<String, String> {
    let known = note.and_then(|note| note.split_once(' ')).filter(|(known_for, _)| *known_for == kept_for);
    match known {
        Some((_, known)) if known != digest => Err(format!(
            "the tag has moved: the archive was {known} when it was fetched for this version first, and is {digest} now. Ask for another version; \
             if the new archive is meant, remove the annotation {ARCHIVE} of the Chart"
        )),
        _ => Ok(format!("{kept_for} {digest}")),
    }
}

impl Archives {
    /// The helm chart of a Chart; why not, for the status.
    pub async fn get(&self, context: &Context, place: &Place, chart: &Chart) -> Result<Found, String> {
        let url = chart.spec.tarball_url.as_str();
        let app = context.app_of(place, chart);
        let catalog = app.as_ref().and_then(|app| context.catalog(app));
        let failed = |why: &str| format!("pulling chart {} failed: {why}", Quoted(url));
        let access = context.access(catalog.as_deref(), url).map_err(|why| failed(&why))?;
        let expected = match (&app, &catalog) {
            (Some(app), Some(catalog)) => {
                let access = |url: &str| context.access(Some(catalog), url);
                let way = Way { repositories: &context.repositories, access: &access };
                let source = Source { url: url.to_owned(), version: chart.spec.version.clone() };
                source::digest(way, app, catalog, &source).await.map_err(|why| failed(&why))?
            }
            _ => None,
        };
        let fetched = context.repositories.archive(&access, url, expected.as_deref()).await;
        let fetched = fetched.map_err(|error| match error.class {
            repository::Class::Missing => format!("chart {} not found: {}", Quoted(url), error.what),
            _ => failed(&error.what),
        })?;
        let of = app.as_ref().map_or("", |app| app.spec.catalog.as_str());
        let known = chart.annotations().get(ARCHIVE).map(String::as_str);
        let note = kept_for(of, url).map(|kept_for| noted(known, &kept_for, &fetched.digest)).transpose();
        let note = note.map_err(|why| failed(&why))?;
        if let Some(chart) = self.0.lock().find(&fetched.digest) {
            return Ok(Found { chart, note });
        }
        let (digest, archive) = (fetched.digest.clone(), fetched.archive.clone());
        let read = tokio::task::spawn_blocking(move || {
            let files = chart::archive::unpack(&archive)?;
            let bytes = files.values().map(|data| data.len()).sum::<usize>();
            chart::Chart::load(&files).map(|chart| (Arc::new(Prepared::new(chart)), bytes))
        });
        let read = read.await.map_err(|ended| failed(&ended.to_string()))?;
        let (chart, bytes) = read.map_err(|error| failed(&error.to_string()))?;
        Ok(Found { chart: self.0.lock().keep(digest, chart, bytes), note })
    }
}

impl Kept {
    fn find(&mut self, digest: &str) -> Option<Arc<Prepared>> {
        let chart = self.by_digest.get(digest)?.chart.clone();
        if let Some(at) = self.order.iter().position(|kept| kept == digest) {
            let found = self.order.remove(at);
            self.order.extend(found);
        }
        self.trim(KEPT_BYTES_MAX);
        Some(chart)
    }

    /// Who reads the same at the same time gets the one that was first.
    fn keep(&mut self, digest: String, chart: Arc<Prepared>, bytes: usize) -> Arc<Prepared> {
        if let Some(first) = self.find(&digest) {
            return first;
        }
        self.by_digest.insert(digest.clone(), One { chart: chart.clone(), bytes });
        self.order.push_back(digest);
        self.trim(KEPT_BYTES_MAX);
        chart
    }

    fn trim(&mut self, max: usize) {
        let mut all: usize = self.by_digest.values().map(One::weight).sum();
        while all > max
            && let Some(oldest) = self.order.pop_front()
        {
            all -= self.by_digest.remove(&oldest).map_or(0, |gone| gone.weight());
        }
    }
}

#[cfg(test)]
mod tests {
    use helm::{
        release::{Capabilities, Release},
        values::Table,
        world::World,
    };
    use jiff::Timestamp;

    use super::*;

    fn prepared() -> Arc<Prepared> {
        let files = [
            ("Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n"),
            ("templates/map.yaml", "kind: ConfigMap # {{ 1 }}"),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), Arc::from(text.as_bytes())));
        Arc::new(Prepared::new(chart::Chart::load(&files.into()).unwrap()))
    }

    #[test]
    fn a_version_keeps_the_archive_that_it_was_fetched_with_until_another_is_asked_for() {
        let of = |url: &str| kept_for("stable", url);
        let first = of("oci://r.test/charts/hello:1.0.0").unwrap();
        assert_eq!(first, "stable/hello:1.0.0");
        assert_eq!(of("oci://mirror.test:5000/hello:1.0.0").as_ref(), Some(&first), "a mirror has the same");
        assert_eq!(of(&format!("oci://r.test/hello:1.0.0@sha256:{}", "0".repeat(64))), None);
        assert_eq!(of("https://charts.test/hello-1.0.0.tgz"), None, "its index has the digest");
        let note = noted(None, &first, "sha256:a").unwrap();
        assert_eq!(note, "stable/hello:1.0.0 sha256:a");
        assert_eq!(noted(Some(&note), &first, "sha256:a").as_ref(), Ok(&note));
        let moved = noted(Some(&note), &first, "sha256:b").unwrap_err();
        assert!(moved.contains("was sha256:a") && moved.contains("is sha256:b now"), "{moved}");
        let next = noted(Some(&note), "stable/hello:1.1.0", "sha256:b");
        assert_eq!(next, Ok("stable/hello:1.1.0 sha256:b".to_owned()));
        assert!(noted(Some(&note), "fork/hello:1.0.0", "sha256:b").is_ok(), "of another catalog");
        assert!(noted(Some("nonsense"), &first, "sha256:b").is_ok());
    }

    #[test]
    fn one_byte_more_than_the_limit_lets_the_chart_go_that_nobody_asked_for_longest() {
        let mut kept = Kept::default();
        for (digest, bytes) in [("a", KEPT_BYTES_MAX / 2), ("b", KEPT_BYTES_MAX - KEPT_BYTES_MAX / 2)] {
            kept.keep(digest.to_owned(), prepared(), bytes);
        }
        assert!(kept.find("b").is_some() && kept.find("a").is_some());
        kept.keep("c".to_owned(), prepared(), 1);
        assert!(kept.find("b").is_none() && kept.find("a").is_some() && kept.find("c").is_some());
        kept.keep("d".to_owned(), prepared(), KEPT_BYTES_MAX + 1);
        assert_eq!((kept.order.len(), kept.by_digest.len()), (0, 0), "what is larger is not kept");
    }

    #[test]
    fn what_was_read_of_templates_counts() {
        let mut kept = Kept::default();
        let chart = kept.keep("a".to_owned(), prepared(), 7);
        kept.trim(7);
        assert_eq!(kept.order.len(), 1);
        let release = Release { name: "r".to_owned(), namespace: "n".to_owned(), revision: 1, is_upgrade: false };
        let world = World::without_cluster(Timestamp::UNIX_EPOCH, |_| (), |_| Err("no keys".to_owned()));
        let capabilities = Capabilities::of("v1.36.0", Vec::new());
        chart.render(&Table::new(), &release, &capabilities, world).unwrap();
        let bytes = "kind: ConfigMap # {{ 1 }}".len() * READ_COST + 7;
        kept.trim(bytes);
        assert_eq!(kept.order.len(), 1);
        kept.trim(bytes - 1);
        assert_eq!(kept.order.len(), 0);
    }

    #[test]
    fn a_chart_that_two_read_at_once_is_kept_once() {
        let mut kept = Kept::default();
        let first = kept.keep("a".to_owned(), prepared(), 7);
        let second = kept.keep("a".to_owned(), prepared(), 7);
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!((kept.by_digest.len(), kept.order.len()), (1, 1));
    }
}
