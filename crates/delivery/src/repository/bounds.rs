//! What repositories may do to us: lists of all sizes, hosts that hang, charts that are bombs.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http::Response;
use serde_json::json;

use super::{tests::*, *};

/// An index with so many versions of so many charts, as repositories write them.
fn index_text(charts: usize, versions: usize) -> String {
    let mut text = "apiVersion: v1\nentries:\n".to_owned();
    for chart in 0..charts {
        text += &format!("  chart-{chart}:\n");
        for version in 0..versions {
            text += &format!(
                "  - annotations:\n      category: Infrastructure\n    apiVersion: v2\n    appVersion: 1.{version}.0\n    created: \"2026-01-01T00:00:00Z\"\n    \
                 description: What chart {chart} brings to a cluster, in a sentence that is as long as such are.\n    digest: {version:064x}\n    \
                 home: https://charts.test/chart-{chart}\n    keywords:\n    - database\n    - sql\n    name: chart-{chart}\n    urls:\n    - charts/chart-{chart}-1.{version}.0.tgz\n    version: 1.{version}.0\n"
            );
        }
    }
    text
}

#[tokio::test]
async fn an_index_of_fifty_thousand_versions_is_read_and_weighs_what_is_told() {
    let (site, all) = (site(), Repositories::default());
    site.put("https://charts.test/large/index.yaml", index_text(500, 100));
    let index = all.index(&site.access(), "https://charts.test/large").await.unwrap();
    assert_eq!(index.len(), 50_000);
    assert!(index.find("chart-499", "1.99.0").is_ok());
    assert!((30 << 20..INDEXES_BYTES_MAX).contains(&index.weight()), "{}", index.weight());
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_still_the_same_is_not_read_again() {
    let (site, all) = (site(), Repositories::default());
    let (access, url) = (site.access(), "https://charts.test/stable");
    let tag = |tag: &'static str| {
        let mut pages = site.pages.lock();
        let page = pages.get_mut("https://charts.test/stable/index.yaml").unwrap();
        page.headers_mut().insert(header::ETAG, HeaderValue::from_static(tag));
    };
    tag("\"1\"");
    let first = all.index(&access, url).await.unwrap();
    let of_others = Access { credentials: Some(Credentials::Bearer("t".into())), ..access.clone() };
    all.index(&of_others, url).await.unwrap();
    all.index(&Access { ca_pem: Some("pem".into()), ..access.clone() }, url).await.unwrap();
    tokio::time::advance(INDEX_LIFE).await;
    let second = all.index(&access, url).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second), "304 is the index that there was");
    tokio::time::advance(INDEX_LIFE).await;
    tag("\"2\"");
    let third = all.index(&access, url).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &third) && third == first);
    assert_eq!(site.asked(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_holds_up_nobody_but_those_who_ask_it() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let waiting = futures::future::join_all((0..100).map(|number| {
        let (access, all) = (&access, &all);
        async move { all.archive(access, &format!("https://slow.test/hangs/{number}.tgz"), None).await.unwrap_err() }
    }));
    let begun = tokio::time::Instant::now();
    let of_one_index = futures::future::join_all((0..100).map(|_| all.index(&access, "https://mute.test/hangs")));
    let others = async {
        tokio::task::yield_now().await;
        all.archive(&access, "https://charts.test/stable/hello-1.0.0.tgz", None).await.unwrap();
        assert!(begun.elapsed() < TIMEOUT);
    };
    let (errors, indexes, ()) = tokio::join!(waiting, of_one_index, others);
    assert!(indexes.iter().all(Result::is_err));
    assert!(errors.iter().all(|error| error.class == Class::Unreachable));
    assert_eq!(errors[99].to_string(), "https://slow.test/hangs/99.tgz: there was no whole answer within 30 s");
    assert!(begun.elapsed() < TIMEOUT * 2, "those that wait for others of the host give up with them");
}

#[tokio::test(start_paused = true)]
async fn credentials_are_for_their_repository_whatever_its_index_names() {
    let (site, all) = (site(), Repositories::default());
    let credentials = Some(Credentials::Bearer("t".into()));
    let home = Some("https://charts.test/stable".to_owned());
    let access = Access { credentials, home, ..site.access() };
    site.put("https://other.test/hello.tgz", "an archive");
    site.put("https://charts.test/stable/meta/main.yaml", "a: b");
    site.put("https://other.test/main.yaml", "a: b");
    all.archive(&access, "https://other.test/hello.tgz", None).await.unwrap();
    all.archive(&access, "https://charts.test/stable/hello-1.0.0.tgz", None).await.unwrap();
    let home = access.home.clone().unwrap();
    assert!(all.note(&access, &home, "meta/main.yaml").await.is_ok());
    assert!(all.note(&access, &home, "https://other.test/main.yaml").await.is_ok());
    let told: Vec<String> = site.seen.lock().drain(..).map(|(_, told)| told).collect();
    assert_eq!(told, ["", "Bearer t", "Bearer t", ""]);
    for (bytes, is_taken) in [(NOTE_BYTES_MAX, true), (NOTE_BYTES_MAX + 1, false)] {
        site.put(&format!("https://charts.test/{bytes}.yaml"), vec![b' '; bytes]);
        assert_eq!(all.note(&access, &home, &format!("/{bytes}.yaml")).await.is_ok(), is_taken);
    }
    let error = all.note(&access, &home, "http://other.test/main.yaml").await.unwrap_err();
    assert!(error.what.contains("without TLS"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn credentials_of_a_registry_leave_by_tls_only() {
    let (site, all) = (site(), Repositories::default());
    *site.token.lock() = Some("letmein");
    *site.realm.lock() = "http://auth.test/token";
    let credentials = Some(Credentials::Basic { user: "u".into(), password: "p".into() });
    let access = Access { credentials, ..site.access() };
    let error = all.archive(&access, "oci://r.test/hello:1.0.0", None).await.unwrap_err();
    assert!(error.class == Class::Unusable && error.what.contains("without TLS"), "{error}");
    assert_eq!(site.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registry_is_an_index_of_what_it_tells() {
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let error = all.index(&access, "oci://r.test/charts").await.unwrap_err();
    assert!(error.class == Class::Missing && error.what.contains("does not list what it has"), "{error}");

    let list = |url: &str, next: Option<&str>, body: serde_json::Value| {
        let mut page = Response::new(Bytes::from(body.to_string()));
        let link = next.map(|next| HeaderValue::try_from(format!("<{next}>; rel=\"next\"")).unwrap());
        link.into_iter().for_each(|link| drop(page.headers_mut().insert(header::LINK, link)));
        site.pages.lock().insert(url.to_owned(), page);
    };
    let more = "/v2/_catalog?last=b&n=2";
    list("https://r.test/v2/_catalog?n=1000", Some(more), json!({"repositories": ["charts/hello", "images/app"]}));
    list(
        &format!("https://r.test{more}"),
        None,
        json!({"repositories": ["charts/image", "charts/deep/er", "charts/empty"]}),
    );
    list(
        "https://r.test/v2/charts/hello/tags/list?n=1000",
        None,
        json!({"tags": ["1.9.0", "1.10.0_b.1", "latest", "sha256-1.sig"]}),
    );
    list("https://r.test/v2/charts/image/tags/list?n=1000", None, json!({"tags": ["1.0.0"]}));
    list("https://r.test/v2/charts/empty/tags/list?n=1000", None, json!({"tags": null}));
    for (tag, version) in [("1.9.0", "1.9.0"), ("1.10.0_b.1", "1.10.0+b.1")] {
        let config = json!({"name": "hello", "version": version, "appVersion": "7", "annotations": {"a": "b"}});
        let created = json!({"org.opencontainers.image.created": "2026-01-02T03:04:05Z"});
        site.push_chart("charts/hello", tag, &config, &created);
    }
    site.push("charts/image", "1.0.0", ("application/vnd.oci.image.layer.v1.tar", b"x"), &json!({}));
    let index = all.index(&access, "oci://r.test/charts/").await.unwrap();
    assert_eq!(index.len(), 2);
    let entry = index.find("hello", "1.10.0+b.1").unwrap();
    assert_eq!(entry.urls, ["oci://r.test/charts/hello:1.10.0_b.1"]);
    assert_eq!((entry.app_version.as_str(), entry.created.as_str()), ("7", "2026-01-02T03:04:05Z"));
    assert!(all.archive(&access, &entry.urls[0], Some(&entry.digest)).await.is_ok());
    assert_eq!(all.versions(&access, "oci://r.test/charts", "hello").await.unwrap(), ["1.10.0+b.1", "1.9.0"]);

    for (link, why) in [(more, "more than 100 pages"), ("https://other.test/v2/_catalog", "which is another host")] {
        list(&format!("https://r.test{more}"), Some(link), json!({"repositories": []}));
        tokio::time::advance(INDEX_LIFE).await;
        let error = all.index(&access, "oci://r.test/charts").await.unwrap_err();
        assert!(error.what.contains(why), "{error}");
    }
    let many = |count: usize| (0..count).map(|number| format!("charts/c{number}")).collect::<Vec<_>>();
    list(&format!("https://r.test{more}"), None, json!({"repositories": many(CHARTS_MAX)}));
    tokio::time::advance(INDEX_LIFE).await;
    let error = all.index(&access, "oci://r.test/charts").await.unwrap_err();
    assert!(error.what.contains("more than 2000 charts"), "{error}");
}

/// An archive of these entries: the kind, the path, where a link leads to, and what a file holds.
fn archive(entries: &[(tar::EntryType, &str, &str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, path, link, data) in entries {
        let mut header = tar::Header::new_gnu();
        // By hand: the writer would not make what readers have to refuse.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_cksum();
        tar.append(&header, *data).unwrap();
    }
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    zip.write_all(&tar.into_inner().unwrap()).unwrap();
    zip.finish().unwrap()
}

#[tokio::test]
async fn charts_that_are_bombs_or_lead_out_of_themselves_are_fetched_and_refused() {
    use tar::EntryType::{Link, Regular, Symlink};
    let (site, all) = (site(), Repositories::default());
    let access = site.access();
    let chart = (Regular, "c/Chart.yaml", "", &b"{apiVersion: v2, name: c, version: 1.0.0}"[..]);
    // Three gigabytes of nothing, in members that are a few kilobytes each.
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    zip.write_all(&vec![0; 64 << 20]).unwrap();
    let bomb = zip.finish().unwrap().repeat(48);
    assert!(bomb.len() < ARCHIVE_BYTES_MAX);
    let cases = [
        ("bomb", bomb, "more than 67108864 bytes"),
        ("out", archive(&[chart, (Regular, "c/../../etc/passwd", "", b"x")]), "leads out of the chart"),
        ("root", archive(&[chart, (Regular, "/c/x", "", b"x")]), "leads out of the chart"),
        ("symlink", archive(&[chart, (Symlink, "c/values.yaml", "/etc/passwd", b"")]), "is no file"),
        ("link", archive(&[chart, (Link, "c/values.yaml", "c/Chart.yaml", b"")]), "is no file"),
        ("page", b"<html>".to_vec(), "cannot unpack the chart"),
    ];
    for (name, bytes, why) in cases {
        let url = format!("https://charts.test/{name}.tgz");
        site.put(&url, bytes);
        let fetched = all.archive(&access, &url, None).await.unwrap();
        let error = helm::chart::archive::unpack(&fetched.archive).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
    site.put("https://charts.test/good.tgz", archive(&[chart]));
    let fetched = all.archive(&access, "https://charts.test/good.tgz", None).await.unwrap();
    assert!(helm::chart::archive::unpack(&fetched.archive).is_ok());
}
