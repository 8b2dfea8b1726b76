//! A case: a chart, what is set over its values, and the release. Those of this folder are many to a file; a folder that is a chart
//! is a case too.

use std::{borrow::Cow, collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use helm::{
    Prepared,
    chart::{Chart, File, Files, ignore},
    manifests::{self, Hook, Manifest},
    release::{Capabilities, Release},
    setting::{self, Kind},
    values,
    world::{KeyKind, World},
};
use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const KUBE_VERSION: &str = "v1.36.0";
const API_VERSIONS: &[&str] = &["v1", "apps/v1", "apps/v1/Deployment", "batch/v1", "networking.k8s.io/v1", "policy/v1"];

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    /// What stands in `templates/case`.
    #[serde(default)]
    template: Option<String>,
    /// Files of the chart by their paths; a `Chart.yaml` is made up where none is given.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// What is set over the chart's values, as texts in YAML.
    #[serde(default)]
    values: Vec<String>,
    /// Flags: which and what.
    #[serde(default)]
    set: Vec<(String, String)>,
    #[serde(default)]
    kube_version: Option<String>,
    #[serde(default)]
    upgrade: bool,
    /// What is compared.
    #[serde(default)]
    shows: Shows,
    /// The files are a folder: some may be ignored.
    #[serde(default)]
    folder: bool,
}

/// What is compared: the text of each file, or objects in their order and hooks, or objects in the order of removal, or `crds/`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Shows {
    #[default]
    Files,
    Objects,
    Removal,
    Crds,
}

pub struct Case {
    pub name: String,
    files: Files,
    values: Vec<String>,
    set: Vec<(String, String)>,
    kube_version: String,
    upgrade: bool,
    shows: Shows,
    folder: bool,
}

pub fn read(path: &Path) -> Result<Vec<Case>> {
    if path.is_dir() {
        let mut files = Files::new();
        collect(path, "", &mut files)?;
        let name = path.display().to_string();
        let kube_version = KUBE_VERSION.to_owned();
        return Ok(vec![Case {
            name,
            files,
            values: Vec::new(),
            set: Vec::new(),
            kube_version,
            upgrade: false,
            shows: Shows::Files,
            folder: true,
        }]);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let written: Vec<Written> = serde_saphyr::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    Ok(written.into_iter().map(Case::of).collect())
}

fn collect(folder: &Path, prefix: &str, files: &mut Files) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), files)?;
        } else {
            let path = entry.path();
            let data = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            files.insert(name, data.into());
        }
    }
    Ok(())
}

impl Case {
    fn of(written: Written) -> Self {
        let mut files: Files = written.files.into_iter().map(|(path, text)| (path, text.into_bytes().into())).collect();
        if let Some(template) = written.template {
            files.insert("templates/case".to_owned(), template.into_bytes().into());
        }
        let chart = || b"apiVersion: v2\nname: c\nversion: 1.2.3\nappVersion: 4.5\n".as_slice().into();
        files.entry("Chart.yaml".to_owned()).or_insert_with(chart);
        Self {
            name: written.name,
            files,
            values: written.values,
            set: written.set,
            kube_version: written.kube_version.unwrap_or_else(|| KUBE_VERSION.to_owned()),
            upgrade: written.upgrade,
            shows: written.shows,
            folder: written.folder,
        }
    }

    /// What the judge is asked.
    pub fn request(&self) -> Value {
        let files: BTreeMap<&String, String> =
            self.files.iter().map(|(path, data)| (path, STANDARD.encode(data))).collect();
        let set: Vec<_> = self.set.iter().map(|(kind, text)| json!({"kind": kind, "text": text})).collect();
        json!({
            "files": files,
            "values": self.values,
            "set": set,
            "release": {"name": "r", "namespace": "ns", "revision": 1, "upgrade": self.upgrade},
            "kubeVersion": self.kube_version,
            "apiVersions": API_VERSIONS,
            "shows": self.shows,
            "folder": self.folder,
        })
    }

    /// The files that the chart consists of.
    pub fn kept(&self) -> helm::Result<Cow<'_, Files>> {
        Ok(if self.folder { Cow::Owned(ignore::kept(&self.files)?) } else { Cow::Borrowed(&self.files) })
    }

    /// What ours makes of it.
    pub fn render(&self) -> helm::Result<BTreeMap<String, String>> {
        self.render_prepared(&Prepared::new(Chart::load(self.kept()?.as_ref())?))
    }

    pub fn render_prepared(&self, chart: &Prepared) -> helm::Result<BTreeMap<String, String>> {
        let mut set = values::Table::new();
        for text in &self.values {
            values::overlay(&mut set, values::read(text)?);
        }
        let file = |name: &str| match self.files.get(name) {
            Some(data) => Ok(String::from_utf8_lossy(data).into_owned()),
            None => Err(format!("no file {name}")),
        };
        for (kind, text) in &self.set {
            let kind = match kind.as_str() {
                "string" => Kind::Text,
                "json" => Kind::Json,
                "literal" => Kind::Literal,
                "file" => Kind::File(&file),
                _ => Kind::Typed,
            };
            setting::set(&mut set, text, &kind)?;
        }
        let object = |(place, object): (usize, Manifest)| (format!("{place:03} {}", object.path), object.content);
        if self.shows == Shows::Crds {
            let text = |file: File| (file.name, String::from_utf8_lossy(&file.data).into_owned());
            let told = |(place, (path, text))| (format!("{place:03} {path}"), text);
            return Ok(helm::crds(chart.chart(), &set)?.into_iter().map(text).enumerate().map(told).collect());
        }
        let release =
            Release { name: "r".to_owned(), namespace: "ns".to_owned(), revision: 1, is_upgrade: self.upgrade };
        let capabilities = Capabilities::of(&self.kube_version, API_VERSIONS.iter().map(ToString::to_string).collect());
        let rendered = chart.render(&set, &release, &capabilities, world())?;
        if self.shows == Shows::Files {
            return Ok(rendered);
        }
        let mut sorted = manifests::sorted(&rendered)?;
        if self.shows == Shows::Removal {
            manifests::sort_for_removal(&mut sorted.objects);
            return Ok(sorted.objects.into_iter().enumerate().map(object).collect());
        }
        let hook = |(place, hook): (usize, Hook)| {
            let Hook { manifest, name, events, weight, delete_policies, output_log_policies: logs } = hook;
            let told = format!("{name} {events:?} {weight} {delete_policies:?} {logs:?}\n{}", manifest.content);
            (format!("hook {place:03} {}", manifest.path), told)
        };
        let objects = sorted.objects.into_iter().enumerate().map(object);
        Ok(objects.chain(sorted.hooks.into_iter().enumerate().map(hook)).collect())
    }
}

/// The same chance as the judge's; keys are what differs.
fn world() -> World {
    let mut next = 0_u8;
    let random = move |bytes: &mut [u8]| {
        for byte in bytes {
            next = next.wrapping_mul(167).wrapping_add(13);
            *byte = next;
        }
    };
    let key = |kind| {
        let made = match kind {
            KeyKind::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048),
            KeyKind::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_4096),
            KeyKind::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyKind::Ed25519 => KeyPair::generate_for(&rcgen::PKCS_ED25519),
        };
        made.map(|key| key.serialize_der()).map_err(|error| error.to_string())
    };
    World::without_cluster(Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000), random, key)
}
