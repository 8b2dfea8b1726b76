use std::{collections::BTreeMap, sync::Arc};

use http::Request;
use tempfile::TempDir;
use transport::{Transport, TransportError};

use super::*;
use crate::{
    embedded::{Beside, Embedded, folder_url},
    repository::{Access, Class, Repositories, joined},
};

/// There is no network.
struct Nobody;

#[async_trait::async_trait]
impl Transport for Nobody {
    async fn send(&self, request: Request<Bytes>, _: usize) -> Result<http::Response<Bytes>, TransportError> {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        Err(TransportError::Connect { authority, source: "there is no network".into() })
    }
}

fn write(folder: &TempDir, name: &str, data: impl AsRef<[u8]>) {
    let path = folder.path().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, data).unwrap();
}

fn about(name: &str, version: &str) -> String {
    format!("{{apiVersion: v2, name: {name}, version: {version}}}")
}

fn packed(name: &str, version: &str) -> Bytes {
    let files = [("Chart.yaml".to_owned(), Arc::from(about(name, version).as_bytes()))];
    Package::pack(&files.into()).unwrap().archive
}

/// What a Catalog finds at the folder's address, each archive fetched.
async fn offered(folder: Folder) -> Vec<String> {
    let nothing = Embedded::new(&BTreeMap::new(), Timestamp::UNIX_EPOCH).unwrap();
    let folders = BTreeMap::from([("own".to_owned(), folder)]);
    let access = Access::new(Beside::new(nothing, folders, Arc::new(Nobody)));
    let (all, url) = (Repositories::default(), folder_url("own"));
    let index = all.index(&access, &url).await.unwrap();
    let mut found = Vec::new();
    for entry in index.entries.values().flatten() {
        let fetched = all.archive(&access, &joined(&url, &entry.urls[0]), Some(&entry.digest)).await.unwrap();
        let package = Package::read(fetched.archive.clone()).unwrap();
        assert_eq!((&package.name, &package.version), (&entry.name, &entry.version));
        found.push(format!("{} {}", entry.name, entry.version));
    }
    found
}

#[tokio::test]
async fn a_folder_of_archives_and_chart_folders_is_a_repository_at_an_address_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder, "hello-1.0.0.tgz", packed("hello", "1.0.0"));
    write(&folder, "named-otherwise.tgz", packed("hello", "1.1.0+b"));
    write(&folder, "web/Chart.yaml", about("web", "0.1.0"));
    write(&folder, "notes.txt", "not for the world");
    write(&folder, "empty/notes.txt", "no chart");
    let found = offered(Folder::open(folder.path()).unwrap()).await;
    assert_eq!(found, ["hello 1.1.0+b", "hello 1.0.0", "web 0.1.0"]);
}

#[tokio::test]
async fn a_folder_with_an_index_offers_what_that_names() {
    let folder = tempfile::tempdir().unwrap();
    let package = Package::read(packed("hello", "1.0.0")).unwrap();
    let text = index([package.entry("2026-01-02T03:04:05Z", "hello-1.0.0.tgz")], "2026-01-02T03:04:05Z").unwrap();
    write(&folder, "hello-1.0.0.tgz", &package.archive);
    write(&folder, "index.yaml", text);
    write(&folder, "web/Chart.yaml", about("web", "0.1.0"));
    assert_eq!(offered(Folder::open(folder.path()).unwrap()).await, ["hello 1.0.0"]);
}

#[tokio::test]
async fn what_is_copied_into_a_folder_is_offered_and_what_has_not_changed_is_not_read_again() {
    let place = tempfile::tempdir().unwrap();
    let folder = Folder::open(place.path()).unwrap();
    assert_eq!(folder.index().await.unwrap().1, 0);
    write(&place, "hello-1.0.0.tgz", packed("hello", "1.0.0"));
    write(&place, "web/Chart.yaml", about("web", "0.1.0"));
    let (first, count) = folder.index().await.unwrap();
    assert_eq!((count, &folder.index().await.unwrap().0), (2, &first));
    // Of the same length, and the same time: nobody looks.
    let path = place.path().join("hello-1.0.0.tgz");
    let (length, at) = (path.metadata().unwrap().len(), path.metadata().unwrap().modified().unwrap());
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(length).unwrap();
    file.set_modified(at).unwrap();
    assert_eq!(folder.index().await.unwrap().0, first);
    write(&place, "hello-1.0.0.tgz", packed("hello", "1.0.1"));
    write(&place, "web/values.yaml", "a: b");
    let (second, count) = folder.index().await.unwrap();
    assert!(count == 2 && second.contains("1.0.1"), "{second}");
    let digest = |text: &str| text.matches("digest: ").count();
    assert!(second != first && digest(&second) == 2);
    assert_ne!(folder.packed("web-0.1.0.tgz").await.unwrap(), None);
    std::fs::remove_file(path).unwrap();
    assert_eq!(folder.index().await.unwrap().1, 1);
}

#[tokio::test]
async fn one_that_is_no_chart_or_a_second_one_keeps_no_other_from_being_offered() {
    let place = tempfile::tempdir().unwrap();
    write(&place, "half.tgz", &packed("hello", "1.0.0")[..40]);
    write(&place, "a b.tgz", packed("spaced", "1.0.0"));
    write(&place, "broken/Chart.yaml", "[");
    write(&place, "hello-1.0.0.tgz", packed("hello", "1.0.0"));
    write(&place, "hello/Chart.yaml", about("hello", "1.0.0"));
    let folder = Folder::open(place.path()).unwrap();
    let (text, count) = folder.index().await.unwrap();
    assert!(count == 1 && text.contains("hello-1.0.0.tgz"), "{text}");
    // What was second is first when the other one is gone.
    std::fs::remove_file(place.path().join("hello-1.0.0.tgz")).unwrap();
    assert_eq!(folder.index().await.unwrap().1, 1);
    assert_ne!(folder.packed("hello-1.0.0.tgz").await.unwrap(), None);
}

#[tokio::test]
async fn nothing_outside_of_a_folder_is_read_by_its_address_or_by_links_in_it() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside, "secret-1.0.0.tgz", packed("secret", "1.0.0"));
    write(&outside, "secret/Chart.yaml", about("secret", "1.0.0"));
    write(&outside, "secret/templates/key.pem", "secret");
    let place = outside.path().join("charts");
    std::fs::create_dir_all(place.join("linked")).unwrap();
    std::fs::write(place.join("linked/Chart.yaml"), about("linked", "1.0.0")).unwrap();
    for (to, link) in [
        ("secret-1.0.0.tgz", "secret-1.0.0.tgz"),
        ("secret", "secret"),
        ("secret/templates/key.pem", "linked/values.yaml"),
    ] {
        std::os::unix::fs::symlink(outside.path().join(to), place.join(link)).unwrap();
    }
    let folder = Folder::open(&place).unwrap();
    assert_eq!(folder.index().await.unwrap().1, 0, "links are no charts, and a chart with links is none");
    let nothing = Embedded::new(&BTreeMap::new(), Timestamp::UNIX_EPOCH).unwrap();
    let folders = BTreeMap::from([("own".to_owned(), folder)]);
    let access = Access::new(Beside::new(nothing, folders, Arc::new(Nobody)));
    let all = Repositories::default();
    for path in [
        "own/secret-1.0.0.tgz",
        "own/../secret-1.0.0.tgz",
        "own/..%2Fsecret-1.0.0.tgz",
        "own//secret-1.0.0.tgz",
        "own/secret/Chart.yaml",
        "own/linked-1.0.0.tgz",
        "../own/secret-1.0.0.tgz",
    ] {
        let error = all.archive(&access, &format!("http://catalog.skep.local/{path}"), None).await.unwrap_err();
        assert_eq!(error.class, Class::Missing, "{path}: {error}");
    }
    let error = all.archive(&access, "http://catalog.skep.local/other/secret-1.0.0.tgz", None).await.unwrap_err();
    assert_eq!(error.class, Class::Unreachable, "{error}");
    // What somebody writes into a Catalog is an address of the network or nothing.
    for url in [format!("file://{}", outside.path().display()), outside.path().display().to_string()] {
        assert_eq!(all.index(&access, &url).await.unwrap_err().class, Class::Address, "{url}");
        let error = all.archive(&access, &format!("{url}/secret-1.0.0.tgz"), None).await.unwrap_err();
        assert_eq!(error.class, Class::Address, "{url}");
    }
}

#[tokio::test]
async fn one_chart_more_than_the_limit_is_told_and_so_is_what_is_no_folder() {
    let place = tempfile::tempdir().unwrap();
    for number in 0..CHARTS_MAX {
        write(&place, &format!("c{number}/Chart.yaml"), about(&format!("c{number}"), "1.0.0"));
    }
    let folder = Folder::open(place.path()).unwrap();
    assert_eq!(folder.index().await.unwrap().1, CHARTS_MAX);
    write(&place, "more/Chart.yaml", about("more", "1.0.0"));
    let error = folder.index().await.unwrap_err().to_string();
    assert!(error.ends_with("has more than 1000 folders of charts: pack some of them"), "{error}");
    assert!(Folder::open(&place.path().join("more/Chart.yaml")).is_err());
    assert!(Folder::open(&place.path().join("nowhere")).is_err());
    write(&place, "huge.tgz", "");
    let huge = std::fs::File::create(place.path().join("huge.tgz")).unwrap();
    huge.set_len(ARCHIVE_BYTES_MAX as u64 + 1).unwrap();
    let error = archive(&place.path().join("huge.tgz"), "huge.tgz").unwrap_err().to_string();
    assert!(error.contains("at most 20971520 are taken"), "{error}");
}
