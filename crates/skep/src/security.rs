//! What settings come to: keys, issuers, audit, encryption, certificates; and what is read again when its file changes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use apiserver::{
    Anonymous, Audit, AuditLog, AuditWebhook, Authentication, Authorization, Batching, Encryption, Rotation,
    ServiceAccountKeys, Tracing,
};
use rustls::ServerConfig;
use tokio::sync::watch;

use crate::{
    settings::{Settings, duration},
    state::{Credential, State},
};

/// Stands before the name of a variable that holds what else a file does.
pub const ENVIRONMENT: &str = "env:";
/// How often files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// A file that is longer is not read.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
const ISSUER: &str = "https://kubernetes.default.svc";

const MIB: u64 = 1024 * 1024;
const AUDIT_LOG_MIB: u64 = 100;
const AUDIT_LOGS_KEPT: usize = 10;

type Apply = Box<dyn Fn(&[String]) -> Result<()> + Send>;

/// Files that are read again when one of them changes.
struct Followed {
    what: &'static str,
    paths: Vec<PathBuf>,
    texts: Vec<String>,
    apply: Apply,
}

pub struct Security {
    pub accounts: ServiceAccountKeys,
    pub authentication: Option<Arc<Authentication>>,
    pub authorization: Option<Arc<Authorization>>,
    pub anonymous: Anonymous,
    pub audit: Option<Arc<Audit>>,
    pub encryption: Option<Arc<Encryption>>,
    pub tracing: Option<Arc<Tracing>>,
    /// The installation's own authority.
    authority: String,
    client_ca_file: Option<PathBuf>,
    certificate_files: Option<(PathBuf, PathBuf)>,
    only_tls13: bool,
    followed: Vec<Followed>,
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if size > FILE_BYTES_MAX {
        bail!("read {}: {size} bytes are more than {FILE_BYTES_MAX}", path.display());
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The same for files that a file names.
fn read_named(path: &Path) -> Result<String, String> {
    read(path).map_err(|error| format!("{error:#}"))
}

impl Security {
    /// `authority`: the installation's own, in PEM.
    pub fn open(settings: &Settings, state: &State, authority: &str) -> Result<Self> {
        let accounts = accounts(settings, state)?;
        let mut followed = Vec::new();
        let authentication = settings.authentication_config.as_deref();
        let authentication =
            authentication.map(|path| authentication_of(path, &accounts, &mut followed)).transpose()?;
        let authorization = settings.authorization_config.as_deref();
        let authorization = authorization.map(|path| authorization_of(path, &mut followed)).transpose()?;
        if settings.anonymous_auth.is_some() && authentication.as_ref().is_some_and(|a| a.decides_anonymous()) {
            bail!("anonymous-auth: the file of authentication-config says that, too; say it in one place");
        }
        let anonymous = match settings.anonymous_auth {
            None => Anonymous::health(),
            Some(true) => Anonymous::Everywhere,
            Some(false) => Anonymous::Refused,
        };
        let encryption = settings.encryption_provider_config.as_deref();
        let encryption = encryption.map(|named| encryption_of(named, &mut followed)).transpose()?;
        let audit = audit(settings, &mut followed)?;
        let certificate_files = match (&settings.tls_cert_file, &settings.tls_private_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => bail!("tls-cert-file and tls-private-key-file go together: only one of them is there"),
        };
        Ok(Self {
            accounts,
            authentication,
            authorization,
            anonymous,
            audit,
            encryption,
            tracing: settings.tracing_config_file.as_deref().map(tracing_of).transpose()?,
            authority: authority.to_owned(),
            client_ca_file: settings.client_ca_file.clone(),
            certificate_files,
            only_tls13: settings.only_tls13()?,
            followed,
        })
    }

    /// The authorities whose client certificates are believed.
    pub fn client_authorities(&self) -> Result<String> {
        let further = self.client_ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
        Ok(format!("{}\n{further}", self.authority.trim_end()))
    }

    /// TLS with the certificate of the settings, or `own`; it changes with its files.
    pub fn serve_with(&mut self, own: Credential) -> Result<watch::Receiver<Arc<ServerConfig>>> {
        let mut paths: Vec<PathBuf> = Vec::new();
        let files = self.certificate_files.is_some();
        paths.extend(self.certificate_files.iter().flat_map(|(certificate, key)| [certificate.clone(), key.clone()]));
        paths.extend(self.client_ca_file.clone());
        let (authority, only_tls13) = (self.authority.clone(), self.only_tls13);
        let make = move |texts: &[String]| -> Result<Arc<ServerConfig>> {
            let (certificate, key) = match (files, texts) {
                (true, [certificate, key, ..]) => (certificate.as_str(), key.as_str()),
                _ => (own.certificate.as_str(), own.key.as_str()),
            };
            let further = texts.get(if files { 2 } else { 0 }).map_or("", String::as_str);
            let clients = format!("{}\n{further}", authority.trim_end());
            let make = if only_tls13 { apiserver::server_tls13 } else { apiserver::server_tls };
            make(certificate, key, Some(&clients)).context("take the certificates of the settings")
        };
        let texts = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
        let (sender, receiver) = watch::channel(make(&texts)?);
        if !paths.is_empty() {
            let apply = move |texts: &[String]| {
                sender.send_replace(make(texts)?);
                Ok(())
            };
            self.followed.push(Followed { what: "certificates", paths, texts, apply: Box::new(apply) });
        }
        Ok(receiver)
    }

    /// Looks at the files from time to time, as long as it is polled. What is wrong leaves things as they are.
    pub fn follow(&mut self) -> impl Future<Output = ()> + Send + use<> {
        let mut followed = std::mem::take(&mut self.followed);
        async move {
            let mut ticks = tokio::time::interval(LOOK_INTERVAL);
            loop {
                ticks.tick().await;
                for followed in &mut followed {
                    followed.look();
                }
            }
        }
    }
}

impl Followed {
    fn look(&mut self) {
        let what = self.what;
        let texts = match self.paths.iter().map(|path| read(path)).collect::<Result<Vec<_>>>() {
            Ok(texts) if texts == self.texts => return,
            Ok(texts) => texts,
            Err(error) => return tracing::warn!("{what} cannot be read again and stay as they are: {error:#}"),
        };
        match (self.apply)(&texts) {
            Ok(()) => tracing::info!(what, "read again"),
            Err(error) => tracing::error!("{what} stay as they were, since the new ones are wrong: {error:#}"),
        }
        // What is wrong is said once.
        self.texts = texts;
    }
}

fn accounts(settings: &Settings, state: &State) -> Result<ServiceAccountKeys> {
    let mut issuers = settings.service_account_issuer.iter().cloned();
    let lifetime = settings.service_account_max_token_expiration.as_deref();
    let lifetime = lifetime.map(|text| duration("service-account-max-token-expiration", text)).transpose()?;
    Ok(ServiceAccountKeys {
        signing_key_pem: match &settings.service_account_signing_key_file {
            Some(path) => read(path)?,
            None => state.service_account_key()?,
        },
        verifying_keys_pem: settings.service_account_key_file.iter().map(|path| read(path)).collect::<Result<_>>()?,
        issuer: issuers.next().unwrap_or_else(|| ISSUER.to_owned()),
        further_issuers: issuers.collect(),
        audiences: settings.api_audiences.clone(),
        token_lifetime_s_max: lifetime.map(|time| i64::try_from(time.as_secs())).transpose()?,
        key_set_url: settings.service_account_jwks_uri.clone(),
    })
}

fn authentication_of(
    path: &Path,
    accounts: &ServiceAccountKeys,
    followed: &mut Vec<Followed>,
) -> Result<Arc<Authentication>> {
    let reserved: Vec<String> = [vec![accounts.issuer.clone()], accounts.further_issuers.clone()].concat();
    let text = read(path)?;
    let wrong = || format!("authentication-config {}", path.display());
    let authentication = Authentication::new(&text, &reserved).with_context(wrong)?;
    let shared = Arc::clone(&authentication);
    let apply = move |texts: &[String]| Ok(shared.replace(texts.first().map_or("", String::as_str))?);
    let paths = vec![path.to_owned()];
    followed.push(Followed { what: "issuers", paths, texts: vec![text], apply: Box::new(apply) });
    Ok(authentication)
}

fn authorization_of(path: &Path, followed: &mut Vec<Followed>) -> Result<Arc<Authorization>> {
    let text = read(path)?;
    let wrong = || format!("authorization-config {}", path.display());
    let authorization = Authorization::new(&text, &read_named).with_context(wrong)?;
    let shared = Arc::clone(&authorization);
    let apply = move |texts: &[String]| Ok(shared.replace(texts.first().map_or("", String::as_str), &read_named)?);
    let paths = vec![path.to_owned()];
    followed.push(Followed { what: "authorizers", paths, texts: vec![text], apply: Box::new(apply) });
    Ok(authorization)
}

fn encryption_of(named: &str, followed: &mut Vec<Followed>) -> Result<Arc<Encryption>> {
    let wrong = || format!("encryption-provider-config {named}");
    if let Some(variable) = named.strip_prefix(ENVIRONMENT) {
        let text = std::env::var(variable).with_context(wrong)?;
        return Encryption::new(&text).with_context(wrong);
    }
    let path = PathBuf::from(named);
    let text = read(&path)?;
    let encryption = Encryption::new(&text).with_context(wrong)?;
    let shared = Arc::clone(&encryption);
    let apply = move |texts: &[String]| Ok(shared.replace(texts.first().map_or("", String::as_str))?);
    followed.push(Followed { what: "encryption keys", paths: vec![path], texts: vec![text], apply: Box::new(apply) });
    Ok(encryption)
}

fn tracing_of(path: &Path) -> Result<Arc<Tracing>> {
    Tracing::new(&read(path)?).with_context(|| format!("tracing-config-file {}", path.display()))
}

fn audit(settings: &Settings, followed: &mut Vec<Followed>) -> Result<Option<Arc<Audit>>> {
    let places = (&settings.audit_log_path, &settings.audit_webhook_config_file);
    let policy = match (&settings.audit_policy_file, places) {
        (None, (None, None)) => return Ok(None),
        (Some(_), (None, None)) => bail!("audit-policy-file and audit-log-path go together: only one of them is there"),
        (None, (Some(_), _)) => bail!("audit-policy-file and audit-log-path go together: only one of them is there"),
        (None, (None, Some(_))) => bail!("audit-webhook-config-file wants an audit-policy-file"),
        (Some(policy), _) => policy,
    };
    let rotation = Rotation {
        size_bytes: settings.audit_log_maxsize.unwrap_or(AUDIT_LOG_MIB).saturating_mul(MIB),
        backups: settings.audit_log_maxbackup.unwrap_or(AUDIT_LOGS_KEPT),
        age_days: settings.audit_log_maxage.unwrap_or(0),
    };
    let text = read(policy)?;
    let log = match &settings.audit_log_path {
        Some(log) if log.as_os_str() == "-" => Some(AuditLog::stdout()),
        Some(log) => Some(AuditLog::file(log, rotation)?),
        None => None,
    };
    let webhook = settings.audit_webhook_config_file.as_deref();
    let webhook = webhook.map(|path| audit_webhook(path, settings)).transpose()?;
    let audit = Audit::with(&text, log, webhook).with_context(|| format!("audit-policy-file {}", policy.display()))?;
    let shared = Arc::clone(&audit);
    let apply = move |texts: &[String]| Ok(shared.replace(texts.first().map_or("", String::as_str))?);
    let paths = vec![policy.clone()];
    followed.push(Followed { what: "the audit policy", paths, texts: vec![text], apply: Box::new(apply) });
    Ok(Some(audit))
}

fn audit_webhook(path: &Path, settings: &Settings) -> Result<AuditWebhook> {
    let usual = Batching::default();
    let time =
        |name: &str, text: &Option<String>, usual| text.as_deref().map_or(Ok(usual), |text| duration(name, text));
    let batching = Batching {
        buffer_events: settings.audit_webhook_batch_buffer_size.unwrap_or(usual.buffer_events),
        batch_events: settings.audit_webhook_batch_max_size.unwrap_or(usual.batch_events),
        wait: time("audit-webhook-batch-max-wait", &settings.audit_webhook_batch_max_wait, usual.wait)?,
        backoff: time("audit-webhook-initial-backoff", &settings.audit_webhook_initial_backoff, usual.backoff)?,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    AuditWebhook::new(&read(path)?, folder, &read_named, batching)
        .with_context(|| format!("audit-webhook-config-file {}", path.display()))
}
