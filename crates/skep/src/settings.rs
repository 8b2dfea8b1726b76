//! The settings of a management cluster: flags, and a file that has their names as keys. Names and meaning are kube-apiserver's
//! where it has one (docs/guides/access.md).

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use api::admission::app::inspection::Lists;
use apiserver::{Controller, RequestLimits};
use fleet::{deletion_rules::Rule, sync::Synced};
use serde::Deserialize;
use store::etcd::Address;
use tenancy::Installation;

use crate::chart_folder::ChartFolder;

/// A configuration file that is longer is not read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Settings {
    /// Of the file alone: flags of these names are read with the store's (`place.rs`).
    #[arg(skip)]
    pub store: Option<String>,
    #[arg(skip)]
    pub etcd_ca: Option<PathBuf>,
    #[arg(skip)]
    pub etcd_cert: Option<PathBuf>,
    #[arg(skip)]
    pub etcd_key: Option<PathBuf>,
    #[arg(skip)]
    pub etcd_plaintext: bool,
    /// Where the Management API listens [default: 127.0.0.1:6443]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Further host names or addresses of the Management API, for its certificate
    #[arg(long, value_name = "HOST")]
    pub name: Vec<String>,
    /// Certificate chain of the Management API, read again when it changes [default: one of its own authority]
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", help_heading = "TLS")]
    pub tls_private_key_file: Option<PathBuf>,
    /// VersionTLS12 or VersionTLS13 [default: VersionTLS12]
    #[arg(long, value_name = "VERSION", help_heading = "TLS")]
    pub tls_min_version: Option<String>,
    /// Authorities of client certificates besides the installation's own, read again when they change
    #[arg(long, value_name = "FILE", help_heading = "Who you are")]
    pub client_ca_file: Option<PathBuf>,
    /// AuthenticationConfiguration (JWT issuers, anonymous), read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Who you are")]
    pub authentication_config: Option<PathBuf>,
    /// Whether requests without credentials go on as system:anonymous [default: for health endpoints alone]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Who you are")]
    pub anonymous_auth: Option<bool>,
    /// AuthorizationConfiguration: who decides besides roles, read again when it changes [default: roles alone]
    #[arg(long, value_name = "FILE", help_heading = "What you may")]
    pub authorization_config: Option<PathBuf>,
    /// Issuer of service account tokens; given again: issuers whose tokens are still taken
    #[arg(long, value_name = "URL", help_heading = "Who you are")]
    pub service_account_issuer: Vec<String>,
    /// Key that signs service account tokens [default: sa.key in the state folder]
    #[arg(long, value_name = "FILE", help_heading = "Who you are")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Further keys whose service account tokens are taken
    #[arg(long, value_name = "FILE", help_heading = "Who you are")]
    pub service_account_key_file: Vec<PathBuf>,
    /// Longest life of a service account token (1h30m, 2160h)
    #[arg(long, value_name = "DURATION", help_heading = "Who you are")]
    pub service_account_max_token_expiration: Option<String>,
    /// Where others are told to read the public keys of service account tokens
    #[arg(long, value_name = "URL", help_heading = "Who you are")]
    pub service_account_jwks_uri: Option<String>,
    /// Audiences of the Management API [default: the issuer]
    #[arg(long, value_name = "AUDIENCE", value_delimiter = ',', help_heading = "Who you are")]
    pub api_audiences: Vec<String>,
    /// Audit policy (audit.k8s.io/v1), read again when it changes
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are written, a line of JSON each; -: standard output
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_log_path: Option<PathBuf>,
    /// MiB of an audit log before it is put aside [default: 100]
    #[arg(long, value_name = "MIB", help_heading = "Audit")]
    pub audit_log_maxsize: Option<u64>,
    /// Audit logs that are kept when put aside; 0: all [default: 10]
    #[arg(long, value_name = "NUMBER", help_heading = "Audit")]
    pub audit_log_maxbackup: Option<usize>,
    /// Days that audit logs are kept for; 0: no limit [default: 0]
    #[arg(long, value_name = "DAYS", help_heading = "Audit")]
    pub audit_log_maxage: Option<u64>,
    /// Kubeconfig of a server that takes audit events, in batches
    #[arg(long, value_name = "FILE", help_heading = "Audit")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Audit events that may wait for that server [default: 10000]
    #[arg(long, value_name = "NUMBER", help_heading = "Audit")]
    pub audit_webhook_batch_buffer_size: Option<usize>,
    /// Audit events of a batch [default: 400]
    #[arg(long, value_name = "NUMBER", help_heading = "Audit")]
    pub audit_webhook_batch_max_size: Option<usize>,
    /// Longest wait until a batch is sent [default: 30s]
    #[arg(long, value_name = "DURATION", help_heading = "Audit")]
    pub audit_webhook_batch_max_wait: Option<String>,
    /// Wait before a batch is sent again [default: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Audit")]
    pub audit_webhook_initial_backoff: Option<String>,
    /// EncryptionConfiguration, read again when it changes; env:NAME: in that variable
    #[arg(long, value_name = "FILE", help_heading = "Storage")]
    pub encryption_provider_config: Option<String>,
    /// Reads that are served at once; more wait their turn [default: 400]
    #[arg(long, value_name = "NUMBER", help_heading = "Operation")]
    pub max_requests_inflight: Option<usize>,
    /// Writes that are served at once [default: 200]
    #[arg(long, value_name = "NUMBER", help_heading = "Operation")]
    pub max_mutating_requests_inflight: Option<usize>,
    /// Controllers of the API server that something else runs in place of it, by kube-controller-manager's names for
    /// them: garbage-collector-controller, namespace-controller, serviceaccount-controller, serviceaccount-token-controller, clusterrole-aggregation-controller
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Operation")]
    pub disable_controllers: Vec<String>,
    /// Folder of charts on this machine, for Catalogs with the address http://catalog.skep.local/NAME/ (docs/guides/catalogs.md)
    #[arg(long, value_name = "NAME=FOLDER", help_heading = "Operation")]
    pub chart_folder: Vec<ChartFolder>,
    /// TracingConfiguration (apiserver.config.k8s.io/v1): where traces go, over OTLP
    #[arg(long, value_name = "FILE", help_heading = "Operation")]
    pub tracing_config_file: Option<PathBuf>,
    /// How long /readyz says no before connections are drained [default: 0s]
    #[arg(long, value_name = "DURATION", help_heading = "Operation")]
    pub shutdown_delay_duration: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT", help_heading = "Operation")]
    pub logging_format: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// What holds wherever the controllers run, in this process or beside another Kubernetes.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Common {
    /// What must not be deleted yet: a list of rules, read at the start (docs/guides/deletion-rules.md); `skep install` and
    /// `skep controllers` are given the same
    #[arg(long, value_name = "FILE", help_heading = "Operation")]
    pub deletion_rules: Option<PathBuf>,
    /// Who may make which apps of the management cluster, read at the start (docs/guides/apps.md)
    #[arg(long, value_name = "FILE", help_heading = "What you may")]
    pub app_security: Option<PathBuf>,
    /// Domain that clusters have their names below: <cluster>.<domain>, as their apps are told [default: internal]
    #[arg(long, value_name = "DOMAIN", help_heading = "Clusters")]
    pub base_domain: Option<String>,
    /// Registry that images of a cluster's apps come from, as they are told [default: docker.io]
    #[arg(long, value_name = "HOST", help_heading = "Clusters")]
    pub registry_domain: Option<String>,
    /// Labels of Machines that their nodes get too: regular expressions of their keys, beside the usual ones
    #[arg(long, value_name = "REGEX", value_delimiter = ',', help_heading = "Clusters")]
    pub additional_sync_machine_labels: Vec<String>,
    /// Annotations of Machines that their nodes get too, in the same way
    #[arg(long, value_name = "REGEX", value_delimiter = ',', help_heading = "Clusters")]
    pub additional_sync_machine_annotations: Vec<String>,
    /// Only objects with the label cluster.x-k8s.io/watch-filter: VALUE are acted upon by the fleet's controllers [default: all]
    #[arg(long, value_name = "VALUE", help_heading = "Clusters")]
    pub watch_filter: Option<String>,
}

/// What the fleet's controllers are told.
#[derive(Clone, Debug)]
pub struct Fleet {
    pub deletion_rules: Vec<Rule>,
    pub synced: Synced,
    pub watch_filter: Option<String>,
}

impl Common {
    fn over(self, file: Self, folder: &Path) -> Self {
        Self {
            deletion_rules: self.deletion_rules.or(near(folder, file.deletion_rules)),
            app_security: self.app_security.or(near(folder, file.app_security)),
            base_domain: self.base_domain.or(file.base_domain),
            registry_domain: self.registry_domain.or(file.registry_domain),
            additional_sync_machine_labels: texts(
                self.additional_sync_machine_labels,
                file.additional_sync_machine_labels,
            ),
            additional_sync_machine_annotations: texts(
                self.additional_sync_machine_annotations,
                file.additional_sync_machine_annotations,
            ),
            watch_filter: self.watch_filter.or(file.watch_filter),
        }
    }

    pub fn fleet(&self) -> Result<Fleet> {
        let synced = Synced::read(&self.additional_sync_machine_labels, &self.additional_sync_machine_annotations)?;
        // An empty one is none, as it is with the flag of Cluster API.
        let watch_filter = self.watch_filter.clone().filter(|value| !value.is_empty());
        if let Some(value) = watch_filter.as_ref().filter(|value| !is_label_value(value)) {
            bail!("--watch-filter: {value:?} is no value that a label may have: no object would be acted upon");
        }
        Ok(Fleet { deletion_rules: self.deletion_rules()?, synced, watch_filter })
    }

    fn deletion_rules(&self) -> Result<Vec<Rule>> {
        let Some(path) = &self.deletion_rules else { return Ok(Vec::new()) };
        let rules = fleet::deletion_rules::read(&text(path)?);
        rules.with_context(|| format!("read the deletion rules in {}", path.display()))
    }

    pub fn app_security(&self) -> Result<Lists> {
        let Some(path) = &self.app_security else { return Ok(Lists::default()) };
        serde_saphyr::from_str(&text(path)?).with_context(|| format!("read the lists in {}", path.display()))
    }

    pub fn installation(&self) -> Installation {
        let or = |value: &Option<String>, default: &str| value.clone().unwrap_or_else(|| default.to_owned());
        Installation {
            base_domain: or(&self.base_domain, "internal"),
            registry_domain: or(&self.registry_domain, "docker.io"),
        }
    }
}

/// At most 63 letters, digits, `-`, `_` and `.`, between a letter or digit and another.
fn is_label_value(value: &str) -> bool {
    let ends = [value.chars().next(), value.chars().next_back()];
    value.len() <= 63
        && value.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        && ends.into_iter().flatten().all(|c| c.is_ascii_alphanumeric())
}

/// The text of a configuration file.
pub fn text(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    if size > FILE_BYTES_MAX {
        bail!("read {}: {size} bytes are more than {FILE_BYTES_MAX}", path.display());
    }
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// A file that another names, as seen from the folder of that one; `-` is none.
fn near(folder: &Path, path: Option<PathBuf>) -> Option<PathBuf> {
    path.map(|path| if path.as_os_str() == "-" { path } else { folder.join(path) })
}

fn texts(own: Vec<String>, file: Vec<String>) -> Vec<String> {
    if own.is_empty() { file } else { own }
}

impl Settings {
    /// These where they say something, else what the file says.
    pub fn over(self, path: &Path) -> Result<Self> {
        let text = text(path)?;
        let file: Self = match text.trim() {
            "" => Self::default(),
            _ => serde_saphyr::from_str(&text).with_context(|| format!("read the settings in {}", path.display()))?,
        };
        // Files are named as seen from the folder of the one that names them.
        let folder = path.parent().unwrap_or(Path::new("."));
        let near = |path| near(folder, path);
        let all = |own: Vec<PathBuf>, file: Vec<PathBuf>| -> Vec<PathBuf> {
            if own.is_empty() { file.iter().map(|path| folder.join(path)).collect() } else { own }
        };
        let encryption =
            file.encryption_provider_config.map(|named| match named.starts_with(super::security::ENVIRONMENT) {
                true => named,
                false => folder.join(named).display().to_string(),
            });
        let store = file.store.map(|store| match Address::is_etcd(&store) {
            true => store,
            false => folder.join(store).display().to_string(),
        });
        Ok(Self {
            store,
            etcd_ca: near(file.etcd_ca),
            etcd_cert: near(file.etcd_cert),
            etcd_key: near(file.etcd_key),
            etcd_plaintext: file.etcd_plaintext,
            listen: self.listen.or(file.listen),
            name: texts(self.name, file.name),
            tls_cert_file: self.tls_cert_file.or(near(file.tls_cert_file)),
            tls_private_key_file: self.tls_private_key_file.or(near(file.tls_private_key_file)),
            tls_min_version: self.tls_min_version.or(file.tls_min_version),
            client_ca_file: self.client_ca_file.or(near(file.client_ca_file)),
            authentication_config: self.authentication_config.or(near(file.authentication_config)),
            anonymous_auth: self.anonymous_auth.or(file.anonymous_auth),
            authorization_config: self.authorization_config.or(near(file.authorization_config)),
            service_account_issuer: texts(self.service_account_issuer, file.service_account_issuer),
            service_account_signing_key_file: self
                .service_account_signing_key_file
                .or(near(file.service_account_signing_key_file)),
            service_account_key_file: all(self.service_account_key_file, file.service_account_key_file),
            service_account_max_token_expiration: self
                .service_account_max_token_expiration
                .or(file.service_account_max_token_expiration),
            service_account_jwks_uri: self.service_account_jwks_uri.or(file.service_account_jwks_uri),
            api_audiences: texts(self.api_audiences, file.api_audiences),
            audit_policy_file: self.audit_policy_file.or(near(file.audit_policy_file)),
            audit_log_path: self.audit_log_path.or(near(file.audit_log_path)),
            audit_log_maxsize: self.audit_log_maxsize.or(file.audit_log_maxsize),
            audit_log_maxbackup: self.audit_log_maxbackup.or(file.audit_log_maxbackup),
            audit_log_maxage: self.audit_log_maxage.or(file.audit_log_maxage),
            audit_webhook_config_file: self.audit_webhook_config_file.or(near(file.audit_webhook_config_file)),
            audit_webhook_batch_buffer_size: self
                .audit_webhook_batch_buffer_size
                .or(file.audit_webhook_batch_buffer_size),
            audit_webhook_batch_max_size: self.audit_webhook_batch_max_size.or(file.audit_webhook_batch_max_size),
            audit_webhook_batch_max_wait: self.audit_webhook_batch_max_wait.or(file.audit_webhook_batch_max_wait),
            audit_webhook_initial_backoff: self.audit_webhook_initial_backoff.or(file.audit_webhook_initial_backoff),
            encryption_provider_config: self.encryption_provider_config.or(encryption),
            max_requests_inflight: self.max_requests_inflight.or(file.max_requests_inflight),
            max_mutating_requests_inflight: self.max_mutating_requests_inflight.or(file.max_mutating_requests_inflight),
            disable_controllers: texts(self.disable_controllers, file.disable_controllers),
            chart_folder: match self.chart_folder.is_empty() {
                true => file.chart_folder.into_iter().map(|one| one.near(folder)).collect(),
                false => self.chart_folder,
            },
            tracing_config_file: self.tracing_config_file.or(near(file.tracing_config_file)),
            shutdown_delay_duration: self.shutdown_delay_duration.or(file.shutdown_delay_duration),
            logging_format: self.logging_format.or(file.logging_format),
            common: self.common.over(file.common, folder),
        })
    }

    pub fn listen(&self) -> Result<SocketAddr> {
        let text = self.listen.as_deref().unwrap_or("127.0.0.1:6443");
        text.parse().with_context(|| format!("listen: {text:?} is no address with a port, as in 0.0.0.0:6443"))
    }

    pub fn limits(&self) -> RequestLimits {
        let usual = RequestLimits::default();
        RequestLimits {
            reads: self.max_requests_inflight.unwrap_or(usual.reads),
            writes: self.max_mutating_requests_inflight.unwrap_or(usual.writes),
        }
    }

    pub fn disabled_controllers(&self) -> Result<Vec<Controller>> {
        let parse = |name: &String| name.parse().context("disable-controllers");
        self.disable_controllers.iter().map(parse).collect()
    }

    pub fn shutdown_delay(&self) -> Result<Duration> {
        let text = self.shutdown_delay_duration.as_deref();
        text.map_or(Ok(Duration::ZERO), |text| duration("shutdown-delay-duration", text))
    }

    pub fn logs_json(&self) -> Result<bool> {
        match self.logging_format.as_deref() {
            None | Some("text") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => bail!("logging-format: {other:?} is neither text nor json"),
        }
    }

    /// Whether TLS 1.2 is refused.
    pub fn only_tls13(&self) -> Result<bool> {
        match self.tls_min_version.as_deref() {
            None | Some("VersionTLS12") => Ok(false),
            Some("VersionTLS13") => Ok(true),
            Some(other) => bail!("tls-min-version: {other:?} is neither VersionTLS12 nor VersionTLS13"),
        }
    }
}

/// A duration as Go writes it, in whole seconds or more: `30s`, `1h30m`.
pub fn duration(name: &str, text: &str) -> Result<Duration> {
    let read = || -> Option<u64> {
        if text == "0" {
            return Some(0);
        }
        let (mut seconds, mut number, mut units) = (0_u64, String::new(), 0);
        for c in text.chars() {
            if c.is_ascii_digit() {
                number.push(c);
                continue;
            }
            let unit = match c {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                _ => return None,
            };
            seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
            number.clear();
            units += 1;
        }
        (number.is_empty() && units > 0).then_some(seconds)
    };
    read().map(Duration::from_secs).with_context(|| format!("{name}: {text:?} is no duration, as in 30s or 1h30m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_whose_paths_begin_at_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skep.yaml");
        let text = "listen: 0.0.0.0:1\nmax-requests-inflight: 7\naudit-log-path: \"-\"\naudit-policy-file: audit.yaml\n\
                    service-account-key-file: [old.pem]\nencryption-provider-config: env:KEYS\nanonymous-auth: false\n\
                    disable-controllers: [namespace-controller]\nchart-folder: [own=charts]\n\
                    deletion-rules: rules.yaml\nbase-domain: file.test\nregistry-domain: file.test\n";
        std::fs::write(&path, text).unwrap();
        let common = Common { base_domain: Some("flag.test".into()), ..Common::default() };
        let flags = Settings { listen: Some("127.0.0.1:2".into()), common, ..Settings::default() };
        let settings = flags.over(&path).unwrap();
        assert_eq!(settings.listen().unwrap().port(), 2);
        assert_eq!(settings.limits(), RequestLimits { reads: 7, writes: 200 });
        assert_eq!(settings.audit_policy_file, Some(folder.path().join("audit.yaml")));
        assert_eq!(settings.audit_log_path, Some("-".into()));
        assert_eq!(settings.service_account_key_file, [folder.path().join("old.pem")]);
        assert_eq!(settings.encryption_provider_config.as_deref(), Some("env:KEYS"));
        assert_eq!(settings.anonymous_auth, Some(false));
        assert_eq!(settings.disabled_controllers().unwrap(), [Controller::Namespace]);
        let near = ChartFolder { name: "own".into(), path: folder.path().join("charts") };
        assert_eq!(settings.chart_folder, [near]);
        assert_eq!(settings.common.deletion_rules, Some(folder.path().join("rules.yaml")));
        let installation = settings.common.installation();
        assert_eq!((&*installation.base_domain, &*installation.registry_domain), ("flag.test", "file.test"));
        let unknown = Settings { disable_controllers: vec!["fleet".to_owned()], ..Settings::default() };
        assert!(unknown.disabled_controllers().is_err());
    }

    #[test]
    fn what_is_wrong_in_the_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("skep.yaml");
        for (text, wanted) in
            [("lisen: a", "lisen"), ("max-requests-inflight: many", "max-requests-inflight"), ("- a", "")]
        {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Settings::default().over(&path).unwrap_err());
            assert!(error.contains("skep.yaml") && error.contains(wanted), "{error}");
        }
        std::fs::write(&path, format!("#{}", "x".repeat(FILE_BYTES_MAX as usize))).unwrap();
        assert!(Settings::default().over(&path).is_err());
        std::fs::write(&path, format!("#{}", "x".repeat(FILE_BYTES_MAX as usize - 1))).unwrap();
        assert!(Settings::default().over(&path).is_ok());
    }

    #[test]
    fn an_expression_that_is_none_is_refused_with_its_flag() {
        let common = |labels: &str, annotations: &str| Common {
            additional_sync_machine_labels: vec!["^team$".to_owned(), labels.to_owned()],
            additional_sync_machine_annotations: vec![annotations.to_owned()],
            ..Common::default()
        };
        assert!(common("example.com/.*", "^note").fleet().is_ok());
        for (labels, annotations, flag) in [("a(", "^note", "-labels"), ("x", "*", "-annotations")] {
            let error = format!("{:#}", common(labels, annotations).fleet().unwrap_err());
            assert!(error.contains("--additional-sync-machine") && error.contains(flag), "{error}");
        }
    }

    #[test]
    fn a_filter_that_no_label_can_match_is_refused() {
        let of = |value: &str| Common { watch_filter: Some(value.to_owned()), ..Common::default() }.fleet();
        assert_eq!(of("team-a_1.x").unwrap().watch_filter.as_deref(), Some("team-a_1.x"));
        assert_eq!(of("").unwrap().watch_filter, None);
        for bad in ["-a", "a/b", "a b", &"x".repeat(64)] {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(of(&"x".repeat(63)).is_ok());
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [("0", 0), ("30s", 30), ("1h30m", 5400), ("90m0s", 5400)] {
            assert_eq!(duration("d", text).unwrap().as_secs(), seconds, "{text}");
        }
        for bad in ["", "1", "s", "1d", "-1s", "1h30", "99999999999999999999h"] {
            assert!(duration("d", bad).is_err(), "{bad}");
        }
    }
}
