//! The state folder: keys, addresses and databases of one installation.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    net::Ipv4Addr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};

/// Validity of the installation's authority, and of the certificates that it signs at each start, in days.
const CA_DAYS: i64 = 3650;
const CERTIFICATE_DAYS: i64 = 365;
const BACKDATED_S: i64 = 300;

/// An open state folder. Nobody else opens it while this lives.
pub struct State {
    folder: PathBuf,
    _lock: File,
}

/// What a sandbox cloud must keep over a restart, because clients have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSettings {
    pub port: u16,
    /// The /20 in 127.0.0.0/8 that floating IPs come from.
    pub floating_pool: String,
    pub tenant_password: String,
    pub admin_password: String,
}

/// A key with its certificate, in PEM.
pub struct Credential {
    pub certificate: String,
    pub key: String,
}

impl State {
    /// Opens the folder, made if need be, readable by its owner only. `name` says whose lock it is.
    pub fn open(folder: &Path, name: &str) -> Result<Self> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(folder).with_context(|| format!("make the state folder {}", folder.display()))?;
        let path = folder.join(format!("{name}.lock"));
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = lock.with_context(|| format!("open {}", path.display()))?;
        if lock.try_lock().is_err() {
            bail!(
                "another skep process uses the state folder {}: stop it, or name another one with --state",
                folder.display()
            );
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of a database, which holds secrets: made for the owner only before the engine opens it.
    pub fn database(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        let opened = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        opened.with_context(|| format!("open {}", path.display()))?;
        Ok(path)
    }

    /// Reads a file, or makes it once: written whole or not at all.
    pub fn text(&self, name: &str, make: impl FnOnce() -> Result<String>) -> Result<String> {
        let path = self.path(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = make()?;
                self.write(name, &text)?;
                Ok(text)
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Writes a file, readable by the owner only, in one step.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        let fresh = self.path(&format!("{name}.new"));
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&fresh, &path)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// The installation's own certificate authority.
    pub fn authority(&self) -> Result<Credential> {
        let key = self.text("ca.key", || Ok(KeyPair::generate()?.serialize_pem()))?;
        let certificate = self.text("ca.crt", || authority("skep-ca", &key))?;
        Ok(Credential { certificate, key })
    }

    pub fn service_account_key(&self) -> Result<String> {
        self.text("sa.key", || Ok(KeyPair::generate()?.serialize_pem()))
    }

    pub fn sandbox(&self, port: u16) -> Result<SandboxSettings> {
        let text = self.text("sandbox.json", || {
            let settings = SandboxSettings {
                port,
                floating_pool: random_pool(),
                tenant_password: random_password(),
                admin_password: random_password(),
            };
            Ok(serde_json::to_string_pretty(&settings)?)
        })?;
        serde_json::from_str(&text).with_context(|| format!("read {}", self.path("sandbox.json").display()))
    }
}

/// A pool that two sandboxes on one machine are unlikely to share: one of 1,536 in 127.32.0.0 to 127.127.255.255.
fn random_pool() -> String {
    let (second, third) = (rand::random_range(32..128_u8), rand::random_range(0..16_u8) * 16);
    format!("{}/20", Ipv4Addr::new(127, second, third, 0))
}

fn random_password() -> String {
    let bytes: [u8; 16] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn params(name: &str, group: Option<&str>, days: i64) -> Result<CertificateParams> {
    let now = jiff::Timestamp::now().as_second();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.not_before = time::OffsetDateTime::from_unix_timestamp(now - BACKDATED_S)?;
    params.not_after = time::OffsetDateTime::from_unix_timestamp(now + days * 86_400)?;
    Ok(params)
}

/// The certificate of an authority with this key.
fn authority(name: &str, key: &str) -> Result<String> {
    let mut params = params(name, None, CA_DAYS)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    Ok(params.self_signed(&KeyPair::from_pem(key)?)?.pem())
}

impl Credential {
    /// A new authority.
    pub fn authority(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?.serialize_pem();
        Ok(Self { certificate: authority(name, &key)?, key })
    }

    /// A serving certificate for these names and addresses.
    pub fn server(&self, names: &[String]) -> Result<Self> {
        let mut params = params("skep-apiserver", None, CERTIFICATE_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in names {
            params.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => {
                    SanType::DnsName(name.as_str().try_into().with_context(|| format!("{name:?} is no host name"))?)
                }
            });
        }
        self.sign(params)
    }

    /// A client certificate of a user in a group.
    pub fn client(&self, name: &str, group: &str) -> Result<Self> {
        let mut params = params(name, Some(group), CERTIFICATE_DAYS)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, mut params: CertificateParams) -> Result<Self> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }
}

/// A kubeconfig with one cluster and one user.
pub fn kubeconfig(name: &str, url: &str, ca: &str, user: &Credential) -> Result<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let document = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": url, "certificate-authority-data": STANDARD.encode(ca)}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": STANDARD.encode(&user.certificate),
            "client-key-data": STANDARD.encode(&user.key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "admin"}}],
        "current-context": name,
        "preferences": {},
    });
    Ok(serde_saphyr::to_string(&document)?)
}

/// `~/.skep`, unless `SKEP_STATE` says otherwise.
pub fn default_folder() -> PathBuf {
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    home.join(".skep")
}
