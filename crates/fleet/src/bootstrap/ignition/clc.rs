//! Container Linux Config into Ignition 2.3: mostly the same fields, written otherwise.

use serde_json::{Map, Value, json};

use super::data_url;

/// Larger ones do not fit into a server's user data (Nova: 64 KiB).
const CONFIG_BYTES_MAX: usize = 64 * 1024;
/// Sections that stand for files and units which are not written here.
const SHORT_FORMS: [&str; 5] = ["etcd", "flannel", "docker", "update", "locksmith"];

/// Fields by section: those of lists end with `[]`.
const FIELDS: &[(&str, &[&str])] = &[
    ("", &["ignition", "passwd", "storage", "systemd", "networkd"]),
    ("/passwd", &["users", "groups"]),
    (
        "/passwd/users",
        &[
            "name",
            "password_hash",
            "ssh_authorized_keys",
            "uid",
            "gecos",
            "home_dir",
            "no_create_home",
            "primary_group",
            "groups",
            "no_user_group",
            "no_log_init",
            "shell",
            "system",
        ],
    ),
    ("/passwd/groups", &["name", "gid", "password_hash", "system"]),
    ("/storage", &["disks", "raid", "filesystems", "files", "directories", "links"]),
    ("/storage/disks", &["device", "wipe_table", "partitions"]),
    (
        "/storage/disks/partitions",
        &["label", "number", "size", "start", "type_guid", "guid", "wipe_partition_entry", "should_exist"],
    ),
    ("/storage/raid", &["name", "level", "devices", "spares", "options"]),
    ("/storage/filesystems", &["name", "mount", "path"]),
    ("/storage/filesystems/mount", &["device", "format", "wipe_filesystem", "label", "uuid", "options"]),
    ("/storage/files", &["filesystem", "path", "overwrite", "append", "contents", "mode", "user", "group"]),
    ("/storage/files/contents", &["inline", "remote"]),
    ("/storage/files/contents/remote", &["url", "compression", "verification"]),
    ("/storage/directories", &["filesystem", "path", "overwrite", "mode", "user", "group"]),
    ("/storage/links", &["filesystem", "path", "overwrite", "hard", "target", "user", "group"]),
    ("/systemd", &["units"]),
    ("/systemd/units", &["name", "enable", "enabled", "mask", "contents", "dropins"]),
    ("/systemd/units/dropins", &["name", "contents"]),
    ("/networkd", &["units"]),
    ("/networkd/units", &["name", "contents", "dropins"]),
    ("/networkd/units/dropins", &["name", "contents"]),
];

/// The Ignition document, and the fields that are not known.
pub fn to_ignition(text: &str) -> Result<(Value, Vec<String>), String> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(format!("it is longer than {CONFIG_BYTES_MAX} bytes"));
    }
    // Modes are written as in YAML 1.1: 0644.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let document: Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_owned())?;
    let Value::Object(mut document) = document else { return Err("it is no mapping".to_owned()) };
    if let Some(found) = SHORT_FORMS.iter().find(|section| document.contains_key(**section)) {
        return Err(format!("the section {found} is not acted upon: write its files and units"));
    }
    // Said once, by who appends it.
    document.remove("ignition");
    let mut unknown = Vec::new();
    let mut value = Value::Object(document);
    checked(&mut value, "", &mut unknown);
    let mut each = |pointer: &str, change: fn(&mut Value) -> Result<(), String>| match value.pointer_mut(pointer) {
        Some(Value::Array(list)) => list.iter_mut().try_for_each(change),
        _ => Ok(()),
    };
    each("/storage/files", contents)?;
    for list in ["/storage/files", "/storage/directories", "/storage/links"] {
        each(list, placed)?;
    }
    renamed(&mut value);
    Ok((value, unknown))
}

/// Takes away what is not known, and says so.
fn checked(value: &mut Value, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| checked(value, path, unknown)),
        Value::Object(fields) => {
            let Some((_, known)) = FIELDS.iter().find(|(section, _)| *section == path) else { return };
            fields.retain(|name, value| {
                let within = format!("{path}/{name}");
                if !known.contains(&name.as_str()) {
                    unknown.push(within.trim_start_matches('/').replace('/', "."));
                    return false;
                }
                checked(value, &within, unknown);
                !value.is_null()
            });
        }
        _ => {}
    }
}

/// `inline` and `remote` become a source.
fn contents(file: &mut Value) -> Result<(), String> {
    let path = file["path"].as_str().unwrap_or_default().to_owned();
    let Some(contents) = file.get_mut("contents") else { return Ok(()) };
    let mut source = match (contents.get("inline"), contents.get("remote")) {
        (Some(Value::String(text)), None) => json!({ "source": data_url(text.as_bytes()) }),
        (None, Some(remote)) => {
            let url =
                remote["url"].as_str().ok_or_else(|| format!("storage.files {path}: contents.remote has no url"))?;
            let mut source = json!({ "source": url });
            if let Some(compression) = remote.get("compression") {
                source["compression"] = compression.clone();
            }
            if let Some(hash) = remote.get("verification").and_then(|verification| verification.get("hash")) {
                let (function, sum) = (hash["function"].as_str(), hash["sum"].as_str());
                let (Some(function), Some(sum)) = (function, sum) else {
                    return Err(format!("storage.files {path}: verification.hash needs function and sum"));
                };
                source["verification"] = json!({ "hash": format!("{function}-{sum}") });
            }
            source
        }
        _ => return Err(format!("storage.files {path}: contents must be either inline text or remote")),
    };
    if source.get("verification").is_none() {
        source["verification"] = json!({});
    }
    *contents = source;
    Ok(())
}

fn placed(node: &mut Value) -> Result<(), String> {
    if node["path"].as_str().is_none_or(|path| !path.starts_with('/')) {
        return Err(format!("storage: path {} is not absolute", node["path"]));
    }
    if let Value::Object(fields) = node {
        fields.entry("filesystem").or_insert("root".into());
    }
    Ok(())
}

/// `home_dir` becomes `homeDir`, everywhere but in texts.
fn renamed(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(renamed),
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            let new = old.into_iter().map(|(name, mut value)| {
                renamed(&mut value);
                (camel(&name), value)
            });
            *fields = new.collect::<Map<_, _>>();
        }
        _ => {}
    }
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let mut letters = word.chars();
        let initial = letters.next().map(|letter| letter.to_ascii_uppercase());
        name + &initial.into_iter().chain(letters).collect::<String>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_renamed_and_texts_become_urls() {
        let text = "
passwd:
  users:
  - name: core
    ssh_authorized_keys: [a]
storage:
  links:
  - path: /etc/extensions/kubernetes.raw
    hard: false
    target: /opt/x.raw
  files:
  - path: /etc/a
    mode: 0644
    contents:
      remote:
        url: https://a.example/x
        verification:
          hash: {function: sha512, sum: ab}
  - path: /etc/b
    contents:
      inline: |
        hey_you
systemd:
  units:
  - name: update-engine.service
    mask: true
";
        let (value, unknown) = to_ignition(text).unwrap();
        assert!(unknown.is_empty(), "{unknown:?}");
        assert_eq!(value["passwd"]["users"][0]["sshAuthorizedKeys"], json!(["a"]));
        assert_eq!(
            value["storage"]["files"],
            json!([
                {"filesystem": "root", "path": "/etc/a", "mode": 420,
                 "contents": {"source": "https://a.example/x", "verification": {"hash": "sha512-ab"}}},
                {"filesystem": "root", "path": "/etc/b", "contents": {"source": "data:,hey_you%0A", "verification": {}}},
            ])
        );
        assert_eq!(value["storage"]["links"][0]["target"], "/opt/x.raw");
        assert_eq!(value["systemd"]["units"][0], json!({"name": "update-engine.service", "mask": true}));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert!(to_ignition("etcd: {version: 3}").unwrap_err().contains("etcd"));
        assert!(to_ignition("storage: {files: [{path: a, contents: {inline: x}}]}").unwrap_err().contains("absolute"));
        assert!(to_ignition("storage: {files: [{path: /a, contents: {}}]}").is_err());
        assert!(to_ignition("- a").is_err());
        let (_, unknown) = to_ignition("systemd: {units: [{name: a, odd: 1}]}").unwrap();
        assert_eq!(unknown, ["systemd.units.odd"]);
        let long = format!("# {}", "x".repeat(CONFIG_BYTES_MAX));
        assert!(to_ignition(&long).unwrap_err().contains("longer"));
    }
}
