//! Folders of charts on this machine that Catalogs may name. Whoever starts the process says which there are: what is written into a
//! Catalog is a name, never a path.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};
use delivery::folder::Folder;
use serde::Deserialize;

/// Folders of one process.
const FOLDERS_MAX: usize = 32;
/// As of a label of a host name (RFC 1123).
const NAME_BYTES_MAX: usize = 63;

/// `NAME=FOLDER`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ChartFolder {
    /// A step of an address.
    pub name: String,
    pub path: PathBuf,
}

impl FromStr for ChartFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told = text.split_once('=').filter(|(_, path)| !path.is_empty());
        let (name, path) = told.ok_or_else(|| format!("{text:?} is not NAME=FOLDER"))?;
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(is_plain);
        if !is_name || name.starts_with('-') || name.ends_with('-') {
            return Err(format!(
                "{name:?} is no name of a folder: up to {NAME_BYTES_MAX} lower case letters, digits and '-', not at its ends"
            ));
        }
        Ok(Self { name: name.to_owned(), path: path.into() })
    }
}

impl TryFrom<String> for ChartFolder {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl ChartFolder {
    /// As seen from a folder.
    pub fn near(self, folder: &Path) -> Self {
        Self { path: folder.join(&self.path), ..self }
    }
}

/// # Errors
/// Which of them is none, or that two have one name.
pub fn opened(folders: &[ChartFolder]) -> Result<BTreeMap<String, Folder>> {
    if folders.len() > FOLDERS_MAX {
        bail!("chart-folder: there are {} folders, and at most {FOLDERS_MAX} are taken", folders.len());
    }
    let mut all = BTreeMap::new();
    for one in folders {
        let folder = Folder::open(&one.path).with_context(|| format!("chart-folder {}", one.name))?;
        if all.insert(one.name.clone(), folder).is_some() {
            bail!("chart-folder {}: another folder has this name", one.name);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_folder_has_a_name_that_is_a_step_of_an_address() {
        let read = |text: &str| text.parse::<ChartFolder>();
        assert_eq!(read("own=./a=b"), Ok(ChartFolder { name: "own".into(), path: "./a=b".into() }));
        for bad in ["own", "own=", "=charts", "Own=charts", "a/b=charts", "a.tgz=charts", "..=charts", "-a=charts"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        let long = |length: usize| read(&format!("{}=charts", "a".repeat(length)));
        assert!(long(NAME_BYTES_MAX).is_ok() && long(NAME_BYTES_MAX + 1).is_err());
    }

    #[test]
    fn folders_that_are_not_there_or_share_a_name_are_told_at_the_start() {
        let place = tempfile::tempdir().unwrap();
        let of = |name: &str, path: &str| ChartFolder { name: name.into(), path: place.path().join(path) };
        let error = format!("{:#}", opened(&[of("own", "nowhere")]).err().unwrap());
        assert!(error.starts_with("chart-folder own: cannot read ") && error.contains("nowhere"), "{error}");
        assert!(opened(&[of("own", ""), of("own", "")]).is_err());
        let many: Vec<ChartFolder> = (0..=FOLDERS_MAX).map(|number| of(&format!("c{number}"), "")).collect();
        assert_eq!(opened(&many[1..]).unwrap().len(), FOLDERS_MAX);
        assert!(opened(&many).is_err());
    }
}
