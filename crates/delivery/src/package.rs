//! Charts as archives, and what an index says of them.
//!
//! Source: helm.sh/helm/v3 pkg/chartutil/save.go, pkg/repo/index.go.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use helm::{
    chart::{Chart, Files, Metadata, archive, ignore, metadata},
    data,
    version::Version,
};
use serde_json::{Map, Value as Json, json};

use crate::repository::{ARCHIVE_BYTES_MAX, digest};

/// What of a `Chart.yaml` an index repeats.
const FIELDS: [&str; 17] = [
    "annotations",
    "apiVersion",
    "appVersion",
    "condition",
    "dependencies",
    "deprecated",
    "description",
    "home",
    "icon",
    "keywords",
    "kubeVersion",
    "maintainers",
    "name",
    "sources",
    "tags",
    "type",
    "version",
];
pub(crate) const CHART: &str = "Chart.yaml";

/// A chart in its archive.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub archive: Bytes,
    /// Of the archive: `sha256:` and hexadecimal digits.
    pub digest: String,
    /// What its `Chart.yaml` says, as JSON.
    pub metadata: Map<String, Json>,
}

impl Package {
    /// Packs a chart's folder, without what `.helmignore` names. The same files are the same bytes each time: no clock, no owners.
    ///
    /// # Errors
    /// That the folder is no chart, or that it is beyond a limit.
    pub fn pack(folder: &Files) -> Result<Self, String> {
        let files = ignore::kept(folder).map_err(|error| error.to_string())?;
        let (name, ..) = told(&files)?;
        let archive = zip(&name, &files).map_err(|error| format!("cannot pack the chart: {error}"))?;
        if archive.len() > ARCHIVE_BYTES_MAX {
            return Err(format!(
                "the chart is packed in {} bytes, and at most {ARCHIVE_BYTES_MAX} are taken",
                archive.len()
            ));
        }
        Self::read(archive.into())
    }

    /// Reads an archive, all of it: what is passed on can be installed.
    ///
    /// # Errors
    /// That it is no chart.
    pub fn read(archive: Bytes) -> Result<Self, String> {
        let files = archive::unpack(&archive).map_err(|error| error.to_string())?;
        let (name, version, metadata) = told(&files)?;
        Chart::load(&files).map_err(|error| error.to_string())?;
        Ok(Self { name, version, digest: digest::of(&archive), archive, metadata })
    }

    /// The name of its file.
    pub fn file(&self) -> String {
        format!("{}-{}.tgz", self.name, self.version)
    }

    /// What an index says of it. `created` is in RFC 3339.
    pub fn entry(&self, created: &str, url: &str) -> Json {
        let mut entry = self.metadata.clone();
        entry.insert("created".into(), created.into());
        entry.insert("digest".into(), self.digest.trim_start_matches("sha256:").into());
        entry.insert("urls".into(), json!([url]));
        Json::Object(entry)
    }
}

/// The text of an index of these entries: of each chart the highest version first.
///
/// # Errors
/// That an entry cannot be written as YAML.
pub fn index(entries: impl IntoIterator<Item = Json>, generated: &str) -> Result<String, String> {
    let mut charts: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for entry in entries {
        charts.entry(entry["name"].as_str().unwrap_or_default().to_owned()).or_default().push(entry);
    }
    let version = |entry: &Json| Version::parse(entry["version"].as_str().unwrap_or_default());
    for versions in charts.values_mut() {
        versions.sort_by(|one, other| match (version(one), version(other)) {
            (Ok(one), Ok(other)) => other.compare(&one),
            (one, other) => one.is_err().cmp(&other.is_err()),
        });
    }
    let index = json!({"apiVersion": "v1", "entries": charts, "generated": generated});
    serde_saphyr::to_string(&index).map_err(|error| format!("cannot write the index: {error}"))
}

/// Name, version and metadata of a chart. Name and version become names of files and parts of addresses.
fn told(files: &Files) -> Result<(String, String, Map<String, Json>), String> {
    let text = files.get(CHART).ok_or_else(|| format!("{CHART} file is missing"))?;
    let read = data::yaml::read_map(&String::from_utf8_lossy(text)).map_err(|error| format!("{CHART}: {error}"))?;
    let mut read = data::json_map(&read);
    read.retain(|field, _| FIELDS.contains(&field.as_str()));
    // Numbers where text is wanted: versions are often written so.
    let known = Metadata::of(&read);
    for field in ["apiVersion", "appVersion", "description", "name", "version"] {
        if let Some(value) = read.get_mut(field) {
            *value = metadata::text(Some(value)).into();
        }
    }
    if !known.annotations.is_empty() {
        read.insert("annotations".into(), Json::Object(known.annotations));
    }
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte));
    if known.name.is_empty() || known.name.starts_with('.') || !is_plain(&known.name) || !is_plain(&known.version) {
        return Err(format!("{:?} in version {:?} is no name of a chart's archive", known.name, known.version));
    }
    Ok((known.name, known.version, read))
}

fn zip(name: &str, files: &Files) -> std::io::Result<Vec<u8>> {
    let zip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(zip);
    // As Helm does it, so that whoever wants only that reads no further.
    let first = files.get_key_value(CHART);
    let rest = files.iter().filter(|(path, _)| *path != CHART);
    for (path, data) in first.into_iter().chain(rest) {
        append(&mut tar, &format!("{name}/{path}"), data)?;
    }
    tar.into_inner()?.finish()
}

fn append(tar: &mut tar::Builder<impl Write>, path: &str, data: &Arc<[u8]>) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(data.len() as u64);
    header.set_mtime(0);
    tar.append_data(&mut header, path, &data[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Index;

    fn files(texts: &[(&str, &str)]) -> Files {
        texts.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect()
    }

    #[test]
    fn a_chart_is_packed_to_the_same_bytes_and_is_what_it_was() {
        let deep = format!("templates/{}/a.yaml", "d".repeat(120));
        let chart = files(&[
            (
                "Chart.yaml",
                "{apiVersion: v2, name: a, version: 1.0.0+b, appVersion: 7, annotations: {x: true}, maintainers: [{name: m}]}",
            ),
            (".helmignore", "ci/\n"),
            ("ci/values.yaml", "a: b"),
            ("values.yaml", "a: 1"),
            (&deep, "x"),
        ]);
        let one = Package::pack(&chart).unwrap();
        assert_eq!(one.archive, Package::pack(&chart).unwrap().archive);
        assert_eq!((one.file(), one.metadata["appVersion"].as_str()), ("a-1.0.0+b.tgz".into(), Some("7")));
        let back = archive::unpack(&one.archive).unwrap();
        assert_eq!(back.keys().collect::<Vec<_>>(), [".helmignore", "Chart.yaml", deep.as_str(), "values.yaml"]);
        assert_eq!(Package::read(one.archive.clone()).unwrap().digest, one.digest);
    }

    #[test]
    fn an_index_says_what_charts_say_and_is_read_back() {
        let chart = |version: &str| {
            let text =
                format!("{{apiVersion: v2, name: a, version: '{version}', description: 'yes: 12:30', secret: x}}");
            Package::pack(&files(&[("Chart.yaml", &text)])).unwrap()
        };
        let all = ["1.9.0", "1.10.0", "2.0.0-rc.1"].map(chart);
        let text = index(all.iter().map(|one| one.entry("2026-01-01T00:00:00Z", &one.file())), "2026-01-01T00:00:00Z");
        let text = text.unwrap();
        assert!(!text.contains("secret"), "{text}");
        let read = Index::parse(text.as_bytes()).unwrap();
        let versions: Vec<&str> = read.entries["a"].iter().map(|entry| entry.version.as_str()).collect();
        assert_eq!(versions, ["2.0.0-rc.1", "1.10.0", "1.9.0"]);
        let entry = read.find("a", "1.9.0").unwrap();
        assert_eq!(
            (entry.description.as_str(), entry.urls.as_slice()),
            ("yes: 12:30", &["a-1.9.0.tgz".to_owned()][..])
        );
        assert!(digest::matches(&all[0].archive, &entry.digest));
    }

    #[test]
    fn names_that_lead_elsewhere_and_folders_that_are_no_charts_are_refused() {
        for (text, why) in [
            ("{apiVersion: v2, name: ../a, version: 1.0.0}", "is no name"),
            ("{apiVersion: v2, name: .a, version: 1.0.0}", "is no name"),
            ("{apiVersion: v2, name: a/b, version: 1.0.0}", "is no name"),
            ("{apiVersion: v2, version: 1.0.0}", "is no name"),
            ("{apiVersion: v2, name: a, version: ../1}", "is no name"),
            ("{apiVersion: v2, name: a, version: one}", "version"),
            ("[", "Chart.yaml"),
        ] {
            let error = Package::pack(&files(&[("Chart.yaml", text)])).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert_eq!(Package::pack(&files(&[("a", "")])).unwrap_err(), "Chart.yaml file is missing");
    }
}
