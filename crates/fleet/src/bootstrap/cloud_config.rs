//! User data in cloud-init's format.
//!
//! Source: kubernetes-sigs/cluster-api bootstrap/kubeadm/pkg/cloudinit (layout of the document); cloud-init's
//! reference of the modules write_files, runcmd, bootcmd, ntp, users, disk_setup, fs_setup, mounts.

use std::fmt::Write as _;

use api::kubeadm::{DiskSetup, FileEncoding, KubeadmConfigSpec, Ntp, User};
use serde_json::{Value, json};

/// A file that the machine gets.
#[derive(Clone, Debug, Default)]
pub struct FileEntry {
    pub path: String,
    pub owner: String,
    pub permissions: String,
    pub encoding: Option<FileEncoding>,
    pub append: bool,
    pub content: String,
}

impl FileEntry {
    pub fn root(path: &str, permissions: &str, content: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            owner: "root:root".to_owned(),
            permissions: permissions.to_owned(),
            content: content.into(),
            ..Self::default()
        }
    }
}

/// The whole document; `kubeadm` is the command between the user's own commands.
pub fn render(spec: &KubeadmConfigSpec, files: &[FileEntry], users: &[User], kubeadm: &str) -> String {
    let mut text = String::from("## template: jinja\n#cloud-config\n\nwrite_files:\n");
    for file in files {
        write_file(&mut text, file);
    }
    commands(&mut text, "bootcmd", spec.boot_commands.iter().map(|command| quoted(command)));
    let before = spec.pre_kubeadm_commands.iter().map(|command| quoted(command));
    let after = spec.post_kubeadm_commands.iter().map(|command| quoted(command));
    commands(&mut text, "runcmd", before.chain([format!("'{}'", kubeadm.replace('\'', "''"))]).chain(after));
    if let Some(ntp) = &spec.ntp {
        section(&mut text, "ntp", &ntp_section(ntp));
    }
    if !users.is_empty() {
        section(&mut text, "users", &Value::Array(users.iter().map(user).collect()));
    }
    if let Some(setup) = &spec.disk_setup {
        disks(&mut text, setup);
    }
    if !spec.mounts.is_empty() {
        section(&mut text, "mounts", &json!(spec.mounts));
    }
    text
}

fn write_file(text: &mut String, file: &FileEntry) {
    let _ = writeln!(text, "-   path: {}", file.path);
    if let Some(encoding) = file.encoding {
        let name = serde_json::to_value(encoding).unwrap_or_default();
        let _ = writeln!(text, "    encoding: {name}");
    }
    if !file.owner.is_empty() {
        let _ = writeln!(text, "    owner: {}", file.owner);
    }
    if !file.permissions.is_empty() {
        let _ = writeln!(text, "    permissions: '{}'", file.permissions);
    }
    if file.append {
        text.push_str("    append: true\n");
    }
    // A first line that is indented needs the indentation said, or it would be taken for it.
    let indicator = if file.content.trim_start_matches('\n').starts_with(' ') { "2" } else { "" };
    let _ = writeln!(text, "    content: |{indicator}");
    for line in file.content.lines() {
        if line.is_empty() {
            text.push('\n');
        } else {
            let _ = writeln!(text, "      {line}");
        }
    }
}

fn commands(text: &mut String, name: &str, commands: impl Iterator<Item = String>) {
    let mut commands = commands.peekable();
    if commands.peek().is_some() {
        let _ = writeln!(text, "{name}:");
    }
    for command in commands {
        let _ = writeln!(text, "  - {command}");
    }
}

/// A double-quoted scalar: JSON's is YAML's.
fn quoted(command: &str) -> String {
    Value::from(command).to_string()
}

/// JSON is YAML, and it needs no care for indentation.
fn section(text: &mut String, name: &str, value: &Value) {
    let _ = writeln!(text, "{name}: {value}");
}

fn ntp_section(ntp: &Ntp) -> Value {
    let mut section = json!({ "enabled": ntp.enabled.unwrap_or(true) });
    if !ntp.servers.is_empty() {
        section["servers"] = json!(ntp.servers);
    }
    section
}

fn user(user: &User) -> Value {
    let mut entry = json!({ "name": user.name });
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            entry[key] = value;
        }
    };
    put("passwd", user.passwd.clone().map(Value::from));
    put("gecos", user.gecos.clone().map(Value::from));
    put("groups", user.groups.clone().map(Value::from));
    put("homedir", user.home_dir.clone().map(Value::from));
    put("inactive", user.inactive.map(Value::from));
    put("lock_passwd", user.lock_password.map(Value::from));
    put("shell", user.shell.clone().map(Value::from));
    put("primary_group", user.primary_group.clone().map(Value::from));
    put("sudo", user.sudo.clone().map(Value::from));
    put("ssh_authorized_keys", (!user.ssh_authorized_keys.is_empty()).then(|| json!(user.ssh_authorized_keys)));
    entry
}

fn disks(text: &mut String, setup: &DiskSetup) {
    if !setup.partitions.is_empty() {
        let mut disks = serde_json::Map::new();
        for partition in &setup.partitions {
            let layout = if partition.disk_layout.is_empty() {
                json!(partition.layout.unwrap_or(false))
            } else {
                Value::Array(partition.disk_layout.iter().map(share).collect())
            };
            let mut disk = json!({ "layout": layout });
            if let Some(table) = partition.table_type {
                disk["table_type"] = json!(table);
            }
            if let Some(overwrite) = partition.overwrite {
                disk["overwrite"] = json!(overwrite);
            }
            disks.insert(partition.device.clone(), disk);
        }
        section(text, "disk_setup", &disks.into());
    }
    if !setup.filesystems.is_empty() {
        let filesystems = setup.filesystems.iter().map(|filesystem| {
            let mut entry = json!({ "device": filesystem.device, "filesystem": filesystem.filesystem });
            let mut put = |key: &str, value: Option<Value>| {
                if let Some(value) = value {
                    entry[key] = value;
                }
            };
            put("label", filesystem.label.clone().map(Value::from));
            put("partition", filesystem.partition.clone().map(Value::from));
            put("overwrite", filesystem.overwrite.map(Value::from));
            put("replace_fs", filesystem.replace_fs.clone().map(Value::from));
            put("extra_opts", (!filesystem.extra_opts.is_empty()).then(|| json!(filesystem.extra_opts)));
            entry
        });
        section(text, "fs_setup", &Value::Array(filesystems.collect()));
    }
}

/// One partition: its share of the disk in percent, and its type where one is given.
fn share(partition: &api::kubeadm::PartitionSpec) -> Value {
    match &partition.partition_type {
        Some(type_) => json!([partition.percentage, type_]),
        None => json!(partition.percentage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_yaml_and_says_what_was_asked_for() {
        let spec = KubeadmConfigSpec {
            pre_kubeadm_commands: vec!["echo \"one: 'two'\" > /tmp/x".into()],
            ntp: Some(Ntp { enabled: Some(true), servers: vec!["ntp.example".into()] }),
            mounts: vec![vec!["LABEL=etcd".into(), "/var/lib/etcd".into()]],
            ..Default::default()
        };
        let files = [FileEntry::root("/etc/a", "0640", "  indented\n\nlast\n"), FileEntry::root("/etc/b", "0600", "x")];
        let users = [User { name: "core".into(), sudo: Some("ALL=(ALL) NOPASSWD:ALL".into()), ..Default::default() }];
        let text = render(&spec, &files, &users, "kubeadm init && echo it's");
        assert!(text.starts_with(
            "## template: jinja\n#cloud-config\n\nwrite_files:\n-   path: /etc/a\n    owner: root:root\n"
        ));
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read["write_files"][0]["content"], "  indented\n\nlast\n");
        assert_eq!(read["write_files"][1]["permissions"], "0600");
        assert_eq!(read["runcmd"], json!(["echo \"one: 'two'\" > /tmp/x", "kubeadm init && echo it's"]));
        assert_eq!(read["users"][0]["sudo"], "ALL=(ALL) NOPASSWD:ALL");
        assert_eq!(read["ntp"]["servers"], json!(["ntp.example"]));
        assert_eq!(read["mounts"][0][0], "LABEL=etcd");
    }
}
