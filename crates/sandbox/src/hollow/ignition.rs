//! User data read as Flatcar would: Ignition writes files and units, and units that are enabled run.
//!
//! Of what runs, only what decides how kubeadm is called is done: variables, `envsubst` and `mv`. Files from the network are
//! not fetched; they are there, and empty. Source: Ignition configuration specification 2.3.0; systemd.exec
//! (EnvironmentFile); Flatcar's coreos-metadata (afterburn), attributes of OpenStack.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::user_data::{CloudConfig, Error, Instance, gunzip};

/// What coreos-metadata.service writes.
const METADATA: [&str; 2] = ["/run/metadata/flatcar", "/run/metadata/coreos"];
const METADATA_UNIT: &str = "coreos-metadata.service";

fn failed(what: impl Into<String>) -> Error {
    Error::Ignition(what.into())
}

/// The machine after Ignition and its units have run, up to the command that calls kubeadm.
pub fn read(text: &str, instance: &Instance) -> Result<CloudConfig, Error> {
    // Not what the parser quotes: there are keys in it.
    let document: Value =
        serde_json::from_str(text).map_err(|error| failed(format!("not JSON at line {}", error.line())))?;
    let version = document["ignition"]["version"].as_str().unwrap_or_default();
    if !version.starts_with("2.") {
        return Err(failed(format!("version {version:?} is not one of 2.x, which is read here")));
    }
    let mut config = CloudConfig::default();
    for file in list(&document, "/storage/files") {
        let path = file["path"].as_str().ok_or_else(|| failed("a file has no path"))?.to_owned();
        let bytes = contents(&file["contents"]).map_err(|why| failed(format!("file {path}: {why}")))?;
        if file["append"] == true {
            config.files.entry(path).or_default().extend(bytes);
        } else {
            config.files.insert(path, bytes);
        }
    }
    for unit in units(&document).into_values().filter(|unit| unit.enabled && !unit.masked) {
        unit.run(&mut config, instance)?;
    }
    Ok(config)
}

fn list<'a>(document: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    document.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn contents(contents: &Value) -> Result<Vec<u8>, String> {
    let source = contents["source"].as_str().unwrap_or_default();
    let bytes = match source.split_once(':') {
        None => Vec::new(),
        Some(("data", data)) => data_url(data).ok_or("its data URL cannot be read")?,
        Some(("http" | "https" | "s3" | "tftp", _)) => return Ok(Vec::new()),
        Some((scheme, _)) => return Err(format!("the scheme {scheme} is not known")),
    };
    match contents["compression"].as_str().unwrap_or_default() {
        "" => Ok(bytes),
        "gzip" => gunzip(&bytes).map_err(|error| error.to_string()),
        other => Err(format!("the compression {other} is not known")),
    }
}

/// What follows `data:` (RFC 2397).
fn data_url(data: &str) -> Option<Vec<u8>> {
    let (kind, data) = data.split_once(',')?;
    let mut bytes = Vec::with_capacity(data.len());
    let mut rest = data.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    if kind.ends_with(";base64") { STANDARD.decode(bytes).ok() } else { Some(bytes) }
}

/// A unit with all that was said of it.
#[derive(Default)]
struct Unit {
    enabled: bool,
    masked: bool,
    /// The unit's lines, then those of its drop-ins.
    lines: Vec<String>,
}

fn units(document: &Value) -> BTreeMap<String, Unit> {
    let mut units = BTreeMap::<String, Unit>::new();
    for said in list(document, "/systemd/units") {
        let unit = units.entry(said["name"].as_str().unwrap_or_default().to_owned()).or_default();
        unit.enabled |= said["enabled"] == true || said["enable"] == true;
        unit.masked |= said["mask"] == true;
        let dropins = list(said, "/dropins").map(|dropin| &dropin["contents"]);
        for text in std::iter::once(&said["contents"]).chain(dropins).filter_map(Value::as_str) {
            unit.lines.extend(text.lines().map(|line| line.trim().to_owned()));
        }
    }
    units
}

impl Unit {
    fn settings<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('=')).map(str::trim)
    }

    fn run(&self, config: &mut CloudConfig, instance: &Instance) -> Result<(), Error> {
        if self.settings("ConditionPathExists").any(|path| !config.files.contains_key(path)) {
            return Ok(());
        }
        let mut variables = Variables::default();
        for path in self.settings("EnvironmentFile") {
            let (path, may_lack) = path.strip_prefix('-').map_or((path, false), |path| (path, true));
            let started = ["Requires", "Wants", "BindsTo"]
                .iter()
                .any(|way| self.settings(way).any(|names| names.split_whitespace().any(|name| name == METADATA_UNIT)));
            if METADATA.contains(&path) && started {
                variables.of_machine(instance);
            } else if !may_lack {
                return Err(failed(format!("Failed to load environment files: {path}: No such file or directory")));
            }
        }
        for line in self.settings("ExecStart") {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["/bin/bash" | "/bin/sh" | "/usr/bin/bash" | "/usr/bin/sh", path] => {
                    let script = config.text(path).map(str::to_owned);
                    let script = script.ok_or_else(|| failed(format!("{path}: No such file or directory")))?;
                    script.lines().for_each(|line| variables.run(line.trim(), config));
                }
                _ => config.commands.push(line.to_owned()),
            }
        }
        Ok(())
    }
}

/// What a shell knows.
#[derive(Default)]
struct Variables {
    values: BTreeMap<String, String>,
    exported: BTreeSet<String>,
    /// kubeadm has been called: what comes after it changes nothing here.
    called: bool,
}

impl Variables {
    fn of_machine(&mut self, instance: &Instance) {
        for (name, value) in [
            ("COREOS_OPENSTACK_HOSTNAME", &instance.hostname),
            ("COREOS_OPENSTACK_INSTANCE_UUID", &instance.id),
            ("COREOS_OPENSTACK_IPV4_LOCAL", &instance.local_ipv4),
        ] {
            // The environment of a unit is that of its processes.
            self.values.insert(name.to_owned(), value.clone());
            self.exported.insert(name.to_owned());
        }
    }

    fn run(&mut self, line: &str, config: &mut CloudConfig) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [] | ["set", ..] => {}
            [first, ..] if first.starts_with('#') => {}
            ["envsubst", "<", from, ">", to] if !self.called => {
                let text = config.text(from).unwrap_or_default();
                let text = expand(
                    text,
                    &|name, _| {
                        let value = self.values.get(name).filter(|_| self.exported.contains(name));
                        Some(value.cloned().unwrap_or_default())
                    },
                    false,
                );
                config.files.insert((*to).to_owned(), text.into_bytes());
            }
            ["mv", from, to] if !self.called => {
                if let Some(bytes) = config.files.remove(*from) {
                    config.files.insert((*to).to_owned(), bytes);
                }
            }
            [..] if !self.called && self.assign(line) => {}
            _ => {
                let called = |word: &&str| *word == "kubeadm" || word.ends_with("/kubeadm");
                self.called |= words.iter().any(called);
                config.commands.push(self.expanded(line));
            }
        }
    }

    /// `export NAME=value` or `NAME=value`.
    fn assign(&mut self, line: &str) -> bool {
        let (exports, rest) = line.strip_prefix("export ").map_or((false, line), |rest| (true, rest.trim()));
        let Some((name, value)) = rest.split_once('=') else { return false };
        let is_name =
            |name: &str| !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
        let quoted =
            value.len() > 1 && ['"', '\''].iter().any(|quote| value.starts_with(*quote) && value.ends_with(*quote));
        if !is_name(name) || (!quoted && value.contains(char::is_whitespace)) {
            return false;
        }
        let plain = if quoted { &value[1..value.len() - 1] } else { value };
        let value = if value.starts_with('\'') { plain.to_owned() } else { self.expanded(plain) };
        self.values.insert(name.to_owned(), value);
        if exports {
            self.exported.insert(name.to_owned());
        }
        true
    }

    fn expanded(&self, text: &str) -> String {
        expand(
            text,
            &|name, cut| {
                let value = self.values.get(name).cloned().unwrap_or_default();
                Some(cut.map_or(value.clone(), |pattern| without_suffix(&value, pattern)))
            },
            true,
        )
    }
}

/// `${x%pattern}`: the shortest end that fits goes. Only a pattern that ends with a star is read, as `.*`.
fn without_suffix(value: &str, pattern: &str) -> String {
    let end = match pattern.strip_suffix('*') {
        Some("") => Some(value.len()),
        Some(start) => value.rfind(start),
        None => value.strip_suffix(pattern).map(str::len),
    };
    value[..end.unwrap_or(value.len())].to_owned()
}

/// Puts values in place of `$NAME` and `${NAME}`, and of `${NAME%pattern}` if `cuts`; what is none stays.
fn expand(text: &str, value: &dyn Fn(&str, Option<&str>) -> Option<String>, cuts: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let (inner, after) = match rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((inner, after)) => (inner, after),
            None => rest.split_at(rest.find(|letter| !is_part(letter)).unwrap_or(rest.len())),
        };
        let (name, cut) = inner.split_once('%').map_or((inner, None), |(name, cut)| (name, Some(cut)));
        let readable =
            name.chars().all(is_part) && name.starts_with(|c: char| !c.is_ascii_digit()) && (cuts || cut.is_none());
        match value(name, cut).filter(|_| readable) {
            Some(found) => {
                out.push_str(&found);
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn instance() -> Instance {
        Instance { id: "6a0e".into(), hostname: "demo-1.novalocal".into(), ..Instance::default() }
    }

    fn document(dropin: &str) -> String {
        let script = "#!/bin/bash\nset -e\nexport COREOS_OPENSTACK_HOSTNAME=${COREOS_OPENSTACK_HOSTNAME%.*}\n\
                      envsubst < /etc/kubeadm.yml > /etc/kubeadm.yml.tmp\nmv /etc/kubeadm.yml.tmp /etc/kubeadm.yml\n\n\
                      kubeadm init --config /etc/kubeadm.yml\nmv /etc/kubeadm.yml /tmp/\n";
        let file = |path: &str, text: &str| json!({"path": path, "contents": {"source": format!("data:;base64,{}", STANDARD.encode(text))}});
        let unit = "[Unit]\nConditionPathExists=/etc/kubeadm.yml\n[Service]\nExecStart=/bin/bash /etc/kubeadm.sh\n";
        json!({
            "ignition": {"version": "2.3.0"},
            "storage": {"files": [
                file("/etc/kubeadm.sh", script),
                file("/etc/kubeadm.yml", "name: ${COREOS_OPENSTACK_HOSTNAME}\nid: $COREOS_OPENSTACK_INSTANCE_UUID ${x%y} $1\n"),
                {"path": "/opt/x.raw", "contents": {"source": "https://a.example/x.raw"}},
                {"path": "/etc/a", "contents": {"source": "data:,one%20two"}},
            ]},
            "systemd": {"units": [
                {"name": "kubeadm.service", "enabled": true, "contents": unit},
                {"name": "kubeadm.service", "dropins": [{"name": "10.conf", "contents": dropin}]},
                {"name": "other.service", "mask": true, "enabled": true, "contents": "ExecStart=/bin/false"},
            ]},
        })
        .to_string()
    }

    #[test]
    fn files_are_written_and_the_units_script_prepares_what_kubeadm_reads() {
        let dropin = "[Unit]\nRequires=containerd.service coreos-metadata.service\n[Service]\nEnvironmentFile=/run/metadata/flatcar";
        let config = read(&document(dropin), &instance()).unwrap();
        assert_eq!(config.text("/etc/kubeadm.yml"), Some("name: demo-1\nid: 6a0e ${x%y} $1\n"));
        assert_eq!((config.text("/etc/a"), config.text("/opt/x.raw")), (Some("one two"), Some("")));
        assert_eq!(config.commands, ["kubeadm init --config /etc/kubeadm.yml", "mv /etc/kubeadm.yml /tmp/"]);
    }

    #[test]
    fn what_would_fail_in_life_fails_here() {
        let why = |text: &str| read(text, &instance()).unwrap_err().to_string();
        let unasked = document("[Service]\nEnvironmentFile=/run/metadata/flatcar");
        assert!(why(&unasked).contains("Failed to load environment files"), "nobody started what writes it");
        assert!(why(r#"{"ignition": {"version": "3.4.0"}}"#).contains("3.4.0"));
        assert!(why("{").contains("line 1"));
        let odd = r#"{"ignition": {"version": "2.3.0"}, "storage": {"files": [{"path": "/a", "contents": {"source": "data:,%zz"}}]}}"#;
        assert!(why(odd).contains("/a"));
    }
}
