//! Charts and values as a person names them: a folder or an archive, files of values, `--set` and its kin.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use helm::{
    chart::{BYTES_MAX, Chart, FILES_MAX, Files, archive, ignore},
    setting::{self, Kind},
    values::{self, Table},
};

/// Folders may lie so deep in one another.
const DEEP_MAX: usize = 64;

/// Reads a chart from its folder or its archive (`.tgz`). What it depends on has to be in it.
pub fn read(path: &Path) -> Result<Chart> {
    whole(load(path)?)
}

/// A chart, if all that it depends on is in it.
pub fn whole(chart: Chart) -> Result<Chart> {
    let has = |name: &str| chart.dependencies.iter().any(|inner| inner.name() == name);
    let named = chart.metadata.dependencies.iter().map(|dependency| dependency.name.as_str());
    let missing: Vec<&str> = named.filter(|name| !has(name)).collect();
    if !missing.is_empty() {
        bail!(
            "chart {}: found in Chart.yaml, but missing in charts/ directory: {} (helm dependency build fetches them)",
            chart.name(),
            missing.join(", ")
        );
    }
    Ok(chart)
}

fn load(path: &Path) -> Result<Chart> {
    let what = || format!("read the chart {}", path.display());
    let about = std::fs::metadata(path).with_context(what)?;
    if !about.is_dir() {
        if about.len() > BYTES_MAX as u64 {
            bail!("{} is larger than {BYTES_MAX} bytes, which no chart may be", path.display());
        }
        let archive = std::fs::read(path).with_context(what)?;
        let files = archive::unpack(&archive).with_context(what)?;
        return Chart::load(&files).with_context(what);
    }
    if !path.join("Chart.yaml").is_file() {
        bail!("{} is no chart: it has no Chart.yaml", path.display());
    }
    let mut found = Found::default();
    collect(path, "", 0, &mut found)?;
    let files = ignore::kept(&found.files).with_context(what)?;
    Chart::load(&files).with_context(what)
}

#[derive(Default)]
struct Found {
    files: Files,
    bytes: usize,
}

/// All files below a folder, links followed as Helm does.
fn collect(folder: &Path, prefix: &str, depth: usize, found: &mut Found) -> Result<()> {
    if depth > DEEP_MAX {
        bail!("{} lies more than {DEEP_MAX} folders deep: is a link in it to a folder above?", folder.display());
    }
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry.with_context(|| format!("read {}", folder.display()))?.path();
        let about = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        if about.is_dir() {
            collect(&path, &format!("{name}/"), depth + 1, found)?;
            continue;
        }
        found.bytes = found.bytes.saturating_add(usize::try_from(about.len()).unwrap_or(usize::MAX));
        if found.bytes > BYTES_MAX || found.files.len() >= FILES_MAX {
            bail!("{} is more than a chart may be ({FILES_MAX} files, {BYTES_MAX} bytes)", folder.display());
        }
        let data = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        found.files.insert(name, data.into());
    }
    Ok(())
}

/// What is set over a chart's values. Files come first, then each kind of setting in the order of the fields, as with Helm.
#[derive(Args)]
pub struct Values {
    /// A file of values (YAML); later ones go over earlier ones
    #[arg(short = 'f', long = "values", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Set a value in JSON: a.b={"c":[1,2]}
    #[arg(long, value_name = "SETTING")]
    set_json: Vec<String>,
    /// Set a value: a.b=1,c={x,y}
    #[arg(long, value_name = "SETTING")]
    set: Vec<String>,
    /// Set a value that is text, whatever it looks like: a.b=1
    #[arg(long, value_name = "SETTING")]
    set_string: Vec<String>,
    /// Set a value to what a file holds: a.b=FILE
    #[arg(long, value_name = "SETTING")]
    set_file: Vec<String>,
    /// Set a value to all that stands behind the =
    #[arg(long, value_name = "SETTING")]
    set_literal: Vec<String>,
}

impl Values {
    /// Whether none are set.
    pub fn is_empty(&self) -> bool {
        let settings = [&self.set_json, &self.set, &self.set_string, &self.set_file, &self.set_literal];
        self.files.is_empty() && settings.into_iter().all(Vec::is_empty)
    }

    pub fn read(&self) -> Result<Table> {
        let mut all = Table::new();
        for path in &self.files {
            let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let read = values::read(&text).with_context(|| format!("read the values of {}", path.display()))?;
            values::overlay(&mut all, read);
        }
        let file = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("read {path}: {error}"));
        let settings = [
            ("--set-json", &self.set_json, Kind::Json),
            ("--set", &self.set, Kind::Typed),
            ("--set-string", &self.set_string, Kind::Text),
            ("--set-file", &self.set_file, Kind::File(&file)),
            ("--set-literal", &self.set_literal, Kind::Literal),
        ];
        for (flag, given, kind) in settings {
            for one in given {
                setting::set(&mut all, one, &kind).with_context(|| format!("{flag} {one}"))?;
            }
        }
        Ok(all)
    }
}
