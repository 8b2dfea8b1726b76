//! User data in Ignition's format, as Flatcar reads it: Ignition 2.3 JSON.
//!
//! What a user adds is a Container Linux Config (YAML); it is turned into Ignition and appended. Sections that are short
//! forms of other things (etcd, flannel, docker, update, locksmith) are refused by name. Source: Ignition
//! configuration specification 2.3.0; Container Linux Config specification; kubernetes-sigs/cluster-api
//! bootstrap/kubeadm/pkg/ignition (paths, units, order of the script).

mod clc;

use api::kubeadm::{DiskSetup, FileEncoding, KubeadmConfigSpec, User};
use serde_json::{Map, Value, json};

use super::cloud_config::FileEntry;

/// Where the machine finds kubeadm's configuration.
pub const KUBEADM_CONFIG: &str = "/etc/kubeadm.yml";
const SCRIPT: &str = "/etc/kubeadm.sh";
const UNIT: &str = "[Unit]
Description=kubeadm
# Once it has run, this file lies elsewhere.
ConditionPathExists=/etc/kubeadm.yml
After=network.target

[Service]
Type=oneshot
ExecStart=/bin/bash /etc/kubeadm.sh

[Install]
WantedBy=multi-user.target
";

/// What is rendered, and what of the user's own configuration was left out.
#[derive(Debug)]
pub struct Rendered {
    pub text: String,
    pub warnings: Vec<String>,
}

/// The whole document. `kubeadm` is the command, `configuration` what it reads. `Err` says what cannot be used.
pub fn render(
    spec: &KubeadmConfigSpec,
    files: &[FileEntry],
    users: &[User],
    kubeadm: &str,
    configuration: &str,
) -> Result<Rendered, String> {
    let mut document = json!({
        "ignition": {"version": "2.3.0", "config": {}, "security": {"tls": {}}, "timeouts": {}},
        "networkd": {}, "passwd": {}, "storage": {}, "systemd": {},
    });
    if !users.is_empty() {
        document["passwd"]["users"] = users.iter().map(user).collect();
    }
    let mut all = Vec::new();
    all.extend(users.iter().filter_map(|user| {
        let text = format!("{} {}\n", user.name, user.sudo.as_deref()?);
        Some(plain(&format!("/etc/sudoers.d/{}", user.name), 0o600, text.as_bytes()))
    }));
    all.extend(password_logins(users));
    for entry in files {
        all.push(file(entry)?);
    }
    all.push(plain(SCRIPT, 0o700, script(spec, kubeadm).as_bytes()));
    all.push(plain(KUBEADM_CONFIG, 0o600, configuration.as_bytes()));
    let ntp = spec.ntp.as_ref().filter(|ntp| ntp.enabled.unwrap_or(true));
    if let Some(ntp) = ntp.filter(|ntp| !ntp.servers.is_empty()) {
        let servers: String = ntp.servers.iter().map(|server| format!("server {server}\n")).collect();
        let rules = "restrict default nomodify nopeer noquery notrap limited kod\nrestrict 127.0.0.1\nrestrict [::1]\n";
        all.push(plain("/etc/ntp.conf", 0o644, format!("{servers}{rules}").as_bytes()));
    }
    document["storage"]["files"] = all.into();
    let mut units = vec![json!({"name": "kubeadm.service", "enabled": true, "contents": UNIT})];
    if ntp.is_some() {
        units.push(json!({"name": "ntpd.service", "enabled": true}));
    }
    for mount in &spec.mounts {
        units.push(mounted(mount, spec.disk_setup.as_ref())?);
    }
    document["systemd"]["units"] = units.into();
    if let Some(setup) = &spec.disk_setup {
        disks(setup, &mut document["storage"]);
    }
    let mut warnings = Vec::new();
    let own = spec.ignition.as_ref().and_then(|ignition| ignition.container_linux_config.as_ref());
    if let Some((own, text)) = own.and_then(|own| Some((own, own.additional_config.as_deref()?))) {
        let refused = |why: String| format!("ignition.containerLinuxConfig.additionalConfig: {why}");
        let (added, unknown) = clc::to_ignition(text).map_err(refused)?;
        if let (Some(true), Some(first)) = (own.strict, unknown.first()) {
            return Err(refused(format!("{first} is not known (strict)")));
        }
        append(&mut document, added);
        warnings = unknown;
    }
    Ok(Rendered { text: document.to_string(), warnings })
}

/// Lists are joined, other values of the second take the place of those of the first.
fn append(first: &mut Value, second: Value) {
    match (first, second) {
        (Value::Object(first), Value::Object(second)) => {
            for (key, value) in second {
                append(first.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(first), Value::Array(second)) => first.extend(second),
        (first, second) => *first = second,
    }
}

fn script(spec: &KubeadmConfigSpec, kubeadm: &str) -> String {
    let mut text = String::from("#!/bin/bash\nset -e\n");
    let lines = |commands: &[String]| -> String { commands.iter().map(|command| format!("{command}\n")).collect() };
    text.push_str(&lines(&spec.boot_commands));
    text.push_str(&lines(&spec.pre_kubeadm_commands));
    text.push_str(&format!("\n{kubeadm}\n"));
    text.push_str("mkdir -p /run/cluster-api && echo success > /run/cluster-api/bootstrap-success.complete\n");
    text.push_str(&format!("mv {KUBEADM_CONFIG} /tmp/\n"));
    text.push_str(&lines(&spec.post_kubeadm_commands));
    text
}

/// A data URL (RFC 2397) of the bytes.
pub fn data_url(bytes: &[u8]) -> String {
    let mut url = String::from("data:,");
    for byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

fn plain(path: &str, mode: u32, bytes: &[u8]) -> Value {
    json!({"filesystem": "root", "path": path, "mode": mode, "contents": {"source": data_url(bytes), "verification": {}}})
}

fn file(entry: &FileEntry) -> Result<Value, String> {
    let mode = match entry.permissions.as_str() {
        "" => 0o644,
        text => u32::from_str_radix(text, 8)
            .map_err(|_| format!("file {}: permissions {text:?} are no mode", entry.path))?,
    };
    let mut value = plain(&entry.path, mode, entry.content.as_bytes());
    let packed: String = entry.content.split_whitespace().collect();
    match entry.encoding {
        None => {}
        Some(FileEncoding::Base64) => value["contents"]["source"] = format!("data:;base64,{packed}").into(),
        Some(FileEncoding::GzipBase64) => {
            value["contents"]["source"] = format!("data:;base64,{packed}").into();
            value["contents"]["compression"] = "gzip".into();
        }
        Some(FileEncoding::Gzip) => {
            return Err(format!("file {}: encoding gzip is no text: use gzip+base64 with Ignition", entry.path));
        }
    }
    let (user, group) = entry.owner.split_once(':').unwrap_or((&entry.owner, ""));
    for (key, name) in [("user", user.trim()), ("group", group.trim())] {
        if !name.is_empty() {
            value[key] = json!({ "name": name });
        }
    }
    if entry.append {
        value["append"] = true.into();
    }
    Ok(value)
}

fn user(user: &User) -> Value {
    let mut entry = json!({ "name": user.name });
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            entry[key] = value;
        }
    };
    put("passwordHash", user.passwd.clone().map(Value::from));
    put("gecos", user.gecos.clone().map(Value::from));
    put("homeDir", user.home_dir.clone().map(Value::from));
    put("shell", user.shell.clone().map(Value::from));
    put("primaryGroup", user.primary_group.clone().map(Value::from));
    put("groups", user.groups.as_ref().map(|groups| groups.split(',').map(str::trim).collect::<Vec<_>>().into()));
    put("sshAuthorizedKeys", (!user.ssh_authorized_keys.is_empty()).then(|| json!(user.ssh_authorized_keys)));
    entry
}

/// sshd takes passwords of users whose passwords are not locked, and of nobody else.
fn password_logins(users: &[User]) -> Option<Value> {
    let open: Vec<_> = users.iter().filter(|user| user.lock_password == Some(false)).map(|user| &*user.name).collect();
    let text = format!(
        "Subsystem sftp internal-sftp\nClientAliveInterval 180\nUseDNS no\nUsePAM yes\nPrintLastLog no\nPrintMotd no\n\n\
         Match User {}\n  PasswordAuthentication yes\n",
        open.join(",")
    );
    (!open.is_empty()).then(|| plain("/etc/ssh/sshd_config", 0o600, text.as_bytes()))
}

/// A line of fstab as a unit; what is mounted is named by its label.
fn mounted(line: &[String], setup: Option<&DiskSetup>) -> Result<Value, String> {
    let [label, place, options @ ..] = line else {
        return Err(format!("mounts: {line:?} does not say what is mounted where"));
    };
    let mut filesystems = setup.iter().flat_map(|setup| &setup.filesystems);
    let by_label = |found: &&api::kubeadm::Filesystem| {
        found.label.as_deref() == Some(label.strip_prefix("LABEL=").unwrap_or(label))
    };
    let device = filesystems.find(by_label).map_or(label.as_str(), |found| found.device.as_str());
    let name = place.trim_matches('/').replace('/', "-");
    let contents = format!(
        "[Unit]\nDescription=Mount {label}\n\n[Mount]\nWhat={device}\nWhere={place}\nOptions={}\n\n[Install]\n\
         WantedBy=multi-user.target\n",
        options.join(",")
    );
    Ok(json!({"name": format!("{name}.mount"), "enabled": true, "contents": contents}))
}

fn disks(setup: &DiskSetup, storage: &mut Value) {
    let disks: Vec<Value> = setup
        .partitions
        .iter()
        .map(|partition| {
            let mut disk = json!({ "device": partition.device });
            if partition.overwrite == Some(true) {
                disk["wipeTable"] = true.into();
            }
            if partition.layout == Some(true) {
                disk["partitions"] = json!([{}]);
            }
            disk
        })
        .collect();
    if !disks.is_empty() {
        storage["disks"] = disks.into();
    }
    let filesystems: Vec<Value> = setup
        .filesystems
        .iter()
        .map(|filesystem| {
            let mut mount = Map::new();
            mount.insert("device".into(), filesystem.device.as_str().into());
            mount.insert("format".into(), json!(filesystem.filesystem));
            mount.insert("wipeFilesystem".into(), filesystem.overwrite.unwrap_or(false).into());
            if let Some(label) = &filesystem.label {
                mount.insert("label".into(), label.as_str().into());
            }
            if !filesystem.extra_opts.is_empty() {
                mount.insert("options".into(), json!(filesystem.extra_opts));
            }
            json!({"name": filesystem.label, "mount": mount})
        })
        .collect();
    if !filesystems.is_empty() {
        storage["filesystems"] = filesystems.into();
    }
}

#[cfg(test)]
mod tests {
    use api::kubeadm::{ContainerLinuxConfig, Filesystem, Ignition, Ntp};

    use super::*;

    fn with(additional: &str, strict: bool) -> Result<Rendered, String> {
        let own = ContainerLinuxConfig { additional_config: Some(additional.into()), strict: Some(strict) };
        let spec = KubeadmConfigSpec {
            ignition: Some(Ignition { container_linux_config: Some(own) }),
            pre_kubeadm_commands: vec!["export A=1".into()],
            post_kubeadm_commands: vec!["true".into()],
            ntp: Some(Ntp { enabled: Some(true), servers: vec!["ntp.example".into()] }),
            mounts: vec![vec!["etcd_disk".into(), "/var/lib/etcd".into(), "noatime".into()]],
            disk_setup: Some(DiskSetup {
                filesystems: vec![Filesystem {
                    device: "/dev/vdb".into(),
                    filesystem: "ext4".into(),
                    label: Some("etcd_disk".into()),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut packed = FileEntry::root("/etc/b", "0600", "aGV5");
        packed.encoding = Some(FileEncoding::Base64);
        let files = [FileEntry::root("/etc/a b", "0640", "one two\n"), packed];
        let users = [User {
            name: "core".into(),
            sudo: Some("ALL=(ALL) NOPASSWD:ALL".into()),
            groups: Some("a, b".into()),
            lock_password: Some(false),
            ..Default::default()
        }];
        render(&spec, &files, &users, "kubeadm init --config /etc/kubeadm.yml", "---\nkind: x\n")
    }

    #[test]
    fn the_document_is_ignition_and_says_what_was_asked_for() {
        let rendered = with("systemd: {}", true).unwrap();
        let read: Value = serde_json::from_str(&rendered.text).unwrap();
        assert_eq!(read["ignition"]["version"], "2.3.0");
        let file = |path: &str| {
            let files = read["storage"]["files"].as_array().unwrap();
            files.iter().find(|file| file["path"] == path).unwrap_or_else(|| panic!("{path}")).clone()
        };
        assert_eq!(file("/etc/a b")["contents"]["source"], "data:,one%20two%0A");
        assert_eq!((&file("/etc/a b")["mode"], &file("/etc/a b")["user"]["name"]), (&json!(0o640), &json!("root")));
        assert_eq!(file("/etc/b")["contents"]["source"], "data:;base64,aGV5");
        assert_eq!(file("/etc/sudoers.d/core")["contents"]["source"], data_url(b"core ALL=(ALL) NOPASSWD:ALL\n"));
        assert!(file("/etc/ssh/sshd_config")["contents"]["source"].as_str().unwrap().contains("Match%20User%20core"));
        let script = "#!/bin/bash\nset -e\nexport A=1\n\nkubeadm init --config /etc/kubeadm.yml\nmkdir -p /run/cluster-api && \
                      echo success > /run/cluster-api/bootstrap-success.complete\nmv /etc/kubeadm.yml /tmp/\ntrue\n";
        assert_eq!(file("/etc/kubeadm.sh")["contents"]["source"], data_url(script.as_bytes()));
        assert_eq!(read["passwd"]["users"][0]["groups"], json!(["a", "b"]));
        let units: Vec<_> = read["systemd"]["units"].as_array().unwrap().iter().map(|unit| &unit["name"]).collect();
        assert_eq!(units, ["kubeadm.service", "ntpd.service", "var-lib-etcd.mount"]);
        assert!(
            read["systemd"]["units"][2]["contents"]
                .as_str()
                .unwrap()
                .contains("What=/dev/vdb\nWhere=/var/lib/etcd\nOptions=noatime")
        );
        assert_eq!(read["storage"]["filesystems"][0]["mount"]["format"], "ext4");
    }

    #[test]
    fn a_users_own_configuration_is_appended_and_what_is_not_known_is_told_or_refused() {
        let own =
            "systemd:\n  units:\n  - name: kubeadm.service\n    dropins:\n    - name: 10.conf\n      contents: x\n";
        let read: Value = serde_json::from_str(&with(own, true).unwrap().text).unwrap();
        let last = read["systemd"]["units"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last, json!({"name": "kubeadm.service", "dropins": [{"name": "10.conf", "contents": "x"}]}));
        let odd = format!("{own}oddity: 1\n");
        assert_eq!(with(&odd, false).unwrap().warnings, ["oddity"]);
        assert!(with(&odd, true).unwrap_err().ends_with("oddity is not known (strict)"));
        assert!(with("a: [", false).is_err());
    }
}
