//! Where a management cluster keeps its objects: a file, or an etcd.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use store::{
    Embedded, Etcd, Limits, SharedStore,
    etcd::{Address, Invalid, Options, Tls},
};

use crate::settings::Settings;

/// The file in a state folder.
pub const FILE: &str = "management.db";

/// A file's path, or `etcd://HOST:PORT[,HOST:PORT...][/PREFIX]`.
#[derive(Clone, Debug)]
pub enum Place {
    File(PathBuf),
    Etcd(Address),
}

impl FromStr for Place {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if Address::is_etcd(text) { text.parse().map(Self::Etcd) } else { Ok(Self::File(text.into())) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Etcd(address) => write!(f, "etcd://{}{}", address.endpoints.join(","), address.prefix),
        }
    }
}

/// How an etcd is spoken to.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EtcdArguments {
    /// Certificate authority of etcd's members, a file in PEM
    #[arg(long, value_name = "FILE", env = "SKEP_ETCD_CA")]
    etcd_ca: Option<PathBuf>,
    /// Certificate that this program shows to etcd
    #[arg(long, value_name = "FILE", env = "SKEP_ETCD_CERT", requires = "etcd_key", requires = "etcd_ca")]
    etcd_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", env = "SKEP_ETCD_KEY", requires = "etcd_cert")]
    etcd_key: Option<PathBuf>,
    /// Speak to an etcd on other machines without encryption
    #[arg(long)]
    etcd_plaintext: bool,
}

impl EtcdArguments {
    /// With what the configuration file says where no flag does.
    pub fn over(self, file: &Settings) -> Self {
        Self {
            etcd_ca: self.etcd_ca.or(file.etcd_ca.clone()),
            etcd_cert: self.etcd_cert.or(file.etcd_cert.clone()),
            etcd_key: self.etcd_key.or(file.etcd_key.clone()),
            etcd_plaintext: self.etcd_plaintext || file.etcd_plaintext,
        }
    }

    pub fn options(&self, address: &Address) -> Result<Options> {
        let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
        let client = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let tls = match &self.etcd_ca {
            Some(ca) => Some(Tls { ca_pem: read(ca)?, client }),
            None if address.is_local() || self.etcd_plaintext => None,
            None => bail!(
                "etcd at {} would be spoken to without encryption: name its authority with --etcd-ca, or allow it with --etcd-plaintext",
                address.endpoints.join(",")
            ),
        };
        Ok(Options::new(address.clone(), tls))
    }
}

impl Place {
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Etcd(_))
    }

    /// Opens the store, made if it is not there.
    pub async fn open(&self, etcd: &EtcdArguments) -> Result<SharedStore> {
        let store: SharedStore = match self {
            Self::File(path) => {
                // It holds secrets: made for the owner only before the engine opens it.
                let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
                drop(made.with_context(|| format!("open {}", path.display()))?);
                let opened = Embedded::open(path, Limits::default());
                Arc::new(opened.with_context(|| format!("open {}", path.display()))?)
            }
            Self::Etcd(address) => {
                let opened = Etcd::open(etcd.options(address)?).await;
                Arc::new(opened.with_context(|| format!("open {self}"))?)
            }
        };
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_where_the_store_is_and_a_flag_wins() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skep.yaml");
        std::fs::write(&path, "store: etcd://10.0.0.1:2379/x\netcd-ca: ca.crt\n").unwrap();
        let settings = Settings::default().over(&path).unwrap();
        let place: Place = settings.store.as_deref().unwrap().parse().unwrap();
        assert_eq!((place.is_shared(), place.to_string()), (true, "etcd://10.0.0.1:2379/x".to_owned()));
        let flags = EtcdArguments { etcd_plaintext: true, ..EtcdArguments::default() };
        let etcd = flags.over(&settings);
        assert_eq!((etcd.etcd_ca, etcd.etcd_plaintext), (Some(folder.path().join("ca.crt")), true));
        std::fs::write(&path, "store: objects.db\n").unwrap();
        let settings = Settings::default().over(&path).unwrap();
        assert_eq!(settings.store, Some(folder.path().join("objects.db").display().to_string()));
    }

    #[test]
    fn an_etcd_elsewhere_is_not_spoken_to_without_encryption_unasked() {
        let local: Address = "etcd://127.0.0.1:1".parse().unwrap();
        let other: Address = "etcd://10.0.0.1:1".parse().unwrap();
        let plain = EtcdArguments::default();
        assert!(plain.options(&local).is_ok());
        assert!(plain.options(&other).err().unwrap().to_string().contains("--etcd-ca"));
        assert!(EtcdArguments { etcd_plaintext: true, ..plain }.options(&other).is_ok());
    }
}
