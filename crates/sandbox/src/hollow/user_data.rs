//! User data read as cloud-init would: decoded, rendered, and taken apart into files and commands. What is Ignition is read
//! as Flatcar would (`ignition.rs`).
//!
//! Source: cloud-init reference, "User-data formats", "Instance metadata" (jinja), modules write_files and runcmd.

use std::{collections::BTreeMap, io::Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Value, json};

/// Largest user data that is read, decoded (Nova's own limit is 64 KiB in base64).
pub const USER_DATA_MAX_BYTES: usize = 1024 * 1024;
/// Steps that a template may take: more than any real one, and a bound on one that loops.
const TEMPLATE_FUEL: u64 = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("user data is not base64")]
    Base64(#[source] base64::DecodeError),
    #[error("user data is larger than {USER_DATA_MAX_BYTES} bytes")]
    TooLarge,
    #[error("user data is compressed but cannot be unpacked: {0}")]
    Gzip(String),
    #[error("user data is not UTF-8")]
    Utf8,
    #[error("ignition: {0}")]
    Ignition(String),
    #[error("user data begins with {0:?}: only #cloud-config and Ignition are read here")]
    Format(String),
    #[error("jinja template of the user data")]
    Template(#[source] minijinja::Error),
    #[error("user data is not a cloud-config document: {0}")]
    Yaml(String),
    #[error("write_files: {path}: {what}")]
    File { path: String, what: String },
}

/// What cloud-init knows about the machine it runs on.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    pub id: String,
    pub hostname: String,
    pub zone: String,
    pub region: String,
    pub local_ipv4: String,
}

/// What is left to do on the machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudConfig {
    pub files: BTreeMap<String, Vec<u8>>,
    /// bootcmd and runcmd, or what units run, in order, as shell lines.
    pub commands: Vec<String>,
}

impl CloudConfig {
    pub fn read(user_data_base64: &str, instance: &Instance) -> Result<Self, Error> {
        if user_data_base64.len() > USER_DATA_MAX_BYTES * 4 / 3 + 4 {
            return Err(Error::TooLarge);
        }
        let mut bytes = STANDARD.decode(user_data_base64.trim()).map_err(Error::Base64)?;
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes = gunzip(&bytes)?;
        }
        let text = String::from_utf8(bytes).map_err(|_| Error::Utf8)?;
        if text.trim_start().starts_with('{') {
            return super::ignition::read(&text, instance);
        }
        let text = match text.strip_prefix("## template: jinja\n") {
            Some(template) => render(template, instance)?,
            None => text,
        };
        let first = text.lines().next().unwrap_or_default().trim_end();
        if first != "#cloud-config" {
            return Err(Error::Format(first.chars().take(80).collect()));
        }
        let document: Value = serde_saphyr::from_str(&text).map_err(|error| Error::Yaml(first_line(&error)))?;
        Self::from_document(&document)
    }

    fn from_document(document: &Value) -> Result<Self, Error> {
        let mut config = Self::default();
        for entry in document["write_files"].as_array().into_iter().flatten() {
            let path = entry["path"].as_str().unwrap_or_default().to_owned();
            let failed = |what: &str| Error::File { path: path.clone(), what: what.to_owned() };
            let content = entry["content"].as_str().unwrap_or_default();
            let encoding = entry["encoding"].as_str().unwrap_or("text/plain");
            let content = match encoding {
                "text/plain" => content.as_bytes().to_vec(),
                "b64" | "base64" => decode(content).ok_or_else(|| failed("content is not base64"))?,
                "gz+base64" | "gzip+base64" | "gz+b64" | "gzip+b64" => {
                    let packed = decode(content).ok_or_else(|| failed("content is not base64"))?;
                    gunzip(&packed).map_err(|error| failed(&error.to_string()))?
                }
                other => return Err(failed(&format!("encoding {other:?} is not known"))),
            };
            let file = config.files.entry(path.clone()).or_default();
            if entry["append"].as_bool() != Some(true) {
                file.clear();
            }
            file.extend(content);
        }
        for section in ["bootcmd", "runcmd"] {
            for command in document[section].as_array().into_iter().flatten() {
                config.commands.push(match command {
                    Value::Array(words) => {
                        let words =
                            words.iter().map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned));
                        words.collect::<Vec<_>>().join(" ")
                    }
                    Value::String(line) => line.clone(),
                    other => return Err(Error::Yaml(format!("{section}: {other} is neither a line nor a list"))),
                });
            }
        }
        Ok(config)
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        std::str::from_utf8(self.files.get(path)?).ok()
    }
}

/// A YAML error without the lines that it quotes: there are keys in user data, and consoles are shown to many.
pub fn first_line(error: &serde_saphyr::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let packed: String = text.split_whitespace().collect();
    STANDARD.decode(packed).ok()
}

pub fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    let read = flate2::read::GzDecoder::new(bytes).take(USER_DATA_MAX_BYTES as u64 + 1).read_to_end(&mut out);
    read.map_err(|error| Error::Gzip(error.to_string()))?;
    if out.len() > USER_DATA_MAX_BYTES { Err(Error::TooLarge) } else { Ok(out) }
}

/// Renders with the variables of cloud-init's instance data; one that does not exist is an error.
fn render(template: &str, instance: &Instance) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_keep_trailing_newline(true);
    environment.set_fuel(Some(TEMPLATE_FUEL));
    let v1 = json!({
        "availability_zone": instance.zone, "cloud_name": "openstack", "cloud_id": "openstack", "platform": "openstack",
        "instance_id": instance.id, "local_hostname": instance.hostname, "region": instance.region,
        "distro": "ubuntu", "distro_version": "24.04", "distro_release": "noble", "machine": "x86_64",
    });
    let meta_data = json!({
        "instance_id": instance.id, "instance-id": instance.id, "local_hostname": instance.hostname,
        "local-hostname": instance.hostname, "hostname": instance.hostname, "name": instance.hostname,
        "uuid": instance.id, "availability_zone": instance.zone, "local_ipv4": instance.local_ipv4,
        "local-ipv4": instance.local_ipv4,
    });
    let mut context = v1.clone();
    context["v1"] = v1;
    context["ds"] = json!({ "meta_data": meta_data });
    environment.render_str(template, context).map_err(Error::Template)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        Instance { id: "6a0e".into(), hostname: "demo-1".into(), zone: "az1".into(), ..Instance::default() }
    }

    fn read(text: &str) -> Result<CloudConfig, Error> {
        CloudConfig::read(&STANDARD.encode(text), &instance())
    }

    #[test]
    fn variables_are_rendered_and_files_decoded() {
        let config = read(
            "## template: jinja\n#cloud-config\nwrite_files:\n- path: /a\n  content: |\n    {{ ds.meta_data.instance_id }} {{ local_hostname }}\n\
             - path: /b\n  encoding: b64\n  content: aGV5\n- path: /b\n  append: true\n  content: '!'\n\
             runcmd:\n- echo 1\n- [sh, -c, 'a b']\n",
        )
        .unwrap();
        assert_eq!(config.text("/a"), Some("6a0e demo-1\n"));
        assert_eq!(config.text("/b"), Some("hey!"));
        assert_eq!(config.commands, ["echo 1", "sh -c a b"]);
    }

    #[test]
    fn what_cloud_init_would_not_take_is_refused() {
        assert!(matches!(read("#!/bin/sh\n"), Err(Error::Format(_))));
        assert!(matches!(read("## template: jinja\n#cloud-config\na: {{ nothing }}\n"), Err(Error::Template(_))));
        assert!(matches!(read("#cloud-config\n\t: :"), Err(Error::Yaml(_))));
        let quoted = read("#cloud-config\nsecret: [ key\n").unwrap_err().to_string();
        assert!(quoted.contains("line ") && !quoted.contains("key"), "{quoted}");
        assert!(matches!(CloudConfig::read("%%%", &instance()), Err(Error::Base64(_))));
    }

    #[test]
    fn user_data_over_the_limit_is_refused() {
        let text = format!("#cloud-config\n# {}", "x".repeat(USER_DATA_MAX_BYTES + 1));
        assert!(matches!(read(&text), Err(Error::TooLarge)));
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let text = "## template: jinja\n#cloud-config\n{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(matches!(read(text), Err(Error::Template(_))));
    }
}
