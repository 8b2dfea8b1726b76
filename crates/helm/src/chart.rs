//! Charts: files that have been read, with the charts that they depend on.

pub mod archive;
pub mod ignore;
pub mod metadata;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value as Json};

pub use self::metadata::{Dependency, Metadata};
use crate::{
    data,
    error::{Error, Result},
};

/// A chart may consist of so many files, its dependencies included.
pub const FILES_MAX: usize = 10_000;
/// So large may all files be together, in bytes.
pub const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Charts may lie so deep in one another.
pub const DEEP_MAX: usize = 20;

/// What Windows' editors put before a text, and YAML does not want.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The files of a chart by their paths in it, with slashes.
pub type Files = BTreeMap<String, Arc<[u8]>>;

#[derive(Clone, Debug)]
pub struct File {
    pub name: String,
    pub data: Arc<[u8]>,
}

impl File {
    /// What is no UTF-8 in it is replaced.
    pub fn text(&self) -> Cow<'_, str> {
        // Most files are, and this says so several times faster.
        str::from_utf8(&self.data).map_or_else(|_| String::from_utf8_lossy(&self.data), Cow::Borrowed)
    }
}

#[derive(Clone, Debug)]
pub struct Chart {
    pub metadata: Metadata,
    /// What `values.yaml` holds.
    pub values: Map<String, Json>,
    /// `values.schema.json`.
    pub schema: Option<Arc<[u8]>>,
    pub templates: Vec<File>,
    /// What is nothing else: what templates see as `.Files`.
    pub files: Vec<File>,
    pub dependencies: Vec<Chart>,
}

impl Chart {
    /// Reads a chart from its files.
    ///
    /// # Errors
    /// What is wrong with it, as Helm says it.
    pub fn load(files: &Files) -> Result<Self> {
        if files.len() > FILES_MAX {
            return Err(Error::Limit(format!("the chart has more than {FILES_MAX} files")));
        }
        if files.values().map(|data| data.len()).sum::<usize>() > BYTES_MAX {
            return Err(Error::Limit(format!("the chart has more than {BYTES_MAX} bytes")));
        }
        let bytes = files.values().map(|data| data.len()).sum::<usize>();
        Self::read(files, 0, &mut Left { files: FILES_MAX - files.len(), bytes: BYTES_MAX - bytes })
    }

    fn read(files: &Files, depth: usize, left: &mut Left) -> Result<Self> {
        if depth > DEEP_MAX {
            return Err(Error::Limit(format!("charts lie more than {DEEP_MAX} deep in one another")));
        }
        let text = |name: &str| files.get(name).map(|data| String::from_utf8_lossy(data));
        let table = |name: &str| match text(name) {
            Some(text) => data::yaml::read_map(&text)
                .map(|entries| data::json_map(&entries))
                .map_err(|error| Error::Chart(format!("cannot load {name}: {error}"))),
            None => Ok(Map::new()),
        };
        if !files.contains_key("Chart.yaml") {
            return Err(Error::Chart("Chart.yaml file is missing".to_owned()));
        }
        let mut metadata = Metadata::of(&table("Chart.yaml")?);
        if files.contains_key("requirements.yaml") {
            metadata.require(&table("requirements.yaml")?);
        }
        let mut chart = Self {
            values: table("values.yaml")?,
            schema: files.get("values.schema.json").cloned(),
            templates: Vec::new(),
            files: Vec::new(),
            dependencies: Vec::new(),
            metadata,
        };
        let mut charts: BTreeMap<&str, Files> = BTreeMap::new();
        for (name, data) in files {
            let file = || File { name: name.clone(), data: data.clone() };
            match name.as_str() {
                "Chart.yaml" | "Chart.lock" | "values.yaml" | "values.schema.json" => {}
                "requirements.yaml" | "requirements.lock" => {
                    if chart.metadata.api_version == "v1" {
                        chart.files.push(file());
                    }
                }
                _ if name.starts_with("templates/") => chart.templates.push(file()),
                _ => match name.strip_prefix("charts/") {
                    Some(inner) if !inner.ends_with(".prov") => {
                        let (chart, path) = inner.split_once('/').unwrap_or((inner, ""));
                        charts.entry(chart).or_default().insert(path.to_owned(), data.clone());
                    }
                    _ => chart.files.push(file()),
                },
            }
        }
        chart.metadata.validate()?;
        for (name, mut files) in charts {
            if name.starts_with(['_', '.']) {
                continue;
            }
            let packed = files.remove("");
            if let (Some(archive), true) = (packed, name.ends_with(".tgz")) {
                files = archive::unpack(&archive).map_err(|error| within(error, name, &chart.metadata.name))?;
                left.take(&files)?;
            }
            let inner =
                Self::read(&files, depth + 1, left).map_err(|error| within(error, name, &chart.metadata.name))?;
            chart.dependencies.push(inner);
        }
        Ok(chart)
    }

    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// What `crds/` holds here and in the charts that it depends on, under paths that say of which chart: what is installed before
    /// all else, as it is. Folders come where their names do, as in an archive that `helm package` makes.
    pub fn crds(&self) -> Vec<File> {
        let mut found = Vec::new();
        self.collect_crds(self.name(), &mut found);
        found
    }

    fn collect_crds(&self, path: &str, into: &mut Vec<File>) {
        let is_manifest = |name: &str| {
            let extension = name.rsplit('/').next().and_then(|base| base.rsplit_once('.')).map_or("", |(_, ext)| ext);
            ["yaml", "yml", "json"].iter().any(|known| extension.eq_ignore_ascii_case(known))
        };
        let is_crd = |file: &&File| file.name.starts_with("crds/") && is_manifest(&file.name);
        let mut own: Vec<&File> = self.files.iter().filter(is_crd).collect();
        own.sort_by(|left, right| left.name.split('/').cmp(right.name.split('/')));
        let full = |file: &File| File { name: format!("{path}/{}", file.name), data: file.data.clone() };
        into.extend(own.into_iter().map(full));
        for inner in &self.dependencies {
            inner.collect_crds(&format!("{path}/charts/{}", inner.name()), into);
        }
    }

    pub fn is_library(&self) -> bool {
        self.metadata.kind.eq_ignore_ascii_case("library")
    }
}

/// What archives in a chart may still unpack to: all of them together are as large as one chart may be.
struct Left {
    files: usize,
    bytes: usize,
}

impl Left {
    fn take(&mut self, files: &Files) -> Result<()> {
        let bytes = files.values().map(|data| data.len()).sum::<usize>();
        match (self.files.checked_sub(files.len()), self.bytes.checked_sub(bytes)) {
            (Some(files), Some(bytes)) => {
                *self = Self { files, bytes };
                Ok(())
            }
            _ => Err(Error::Limit(format!(
                "the chart has more than {FILES_MAX} files or {BYTES_MAX} bytes, with the archives in it unpacked"
            ))),
        }
    }
}

fn within(error: Error, name: &str, parent: &str) -> Error {
    match error {
        Error::Chart(what) => Error::Chart(format!("error unpacking subchart {name} in {parent}: {what}")),
        other => other,
    }
}
