//! `application.giantswarm.io/v1alpha1`: catalogs of charts, what they offer, apps that users want in a cluster, and the
//! charts that become of them there. Schemas are data (`published`).
//!
//! Source: giantswarm/apiextensions-application api/v1alpha1.

use std::{collections::BTreeMap, fmt};

use kube::{CustomResource, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use crate::meta::Time;

/// Which operator's version an app is for: [`UNIQUE_VERSION`] for apps of the management cluster.
pub const VERSION_LABEL: &str = "app-operator.giantswarm.io/version";
pub const UNIQUE_VERSION: &str = "0.0.0";
/// What [`VERSION_LABEL`] was in the days of Helm 2: means the same as none.
pub const LEGACY_VERSION: &str = "1.0.0";
pub const CLUSTER_LABEL: &str = "giantswarm.io/cluster";
pub const ORGANIZATION_LABEL: &str = "giantswarm.io/organization";
pub const MANAGED_BY_LABEL: &str = "giantswarm.io/managed-by";
/// On clusters that tell their apps what they are.
pub const WATCHING_LABEL: &str = "cluster-apps-operator.giantswarm.io/watching";
/// Namespaces of organizations.
pub const ORGANIZATION_PREFIX: &str = "org-";
/// The platform's own namespace, also in workload clusters.
pub const PLATFORM_NAMESPACE: &str = "giantswarm";
/// Where catalogs are looked for when an app does not say.
pub const CATALOG_NAMESPACES: [&str; 2] = ["default", PLATFORM_NAMESPACE];

/// What annotations of Apps begin with that are not published; their Charts get them too.
pub const OWN_PREFIX: &str = "delivery.skep.dev/";
/// What becomes of objects of a release that others have changed.
pub const DRIFT_ANNOTATION: &str = "delivery.skep.dev/drift";
/// `true`: a release is deployed when its objects are ready, jobs too, and failed if they are not within its timeout.
pub const WAIT_ANNOTATION: &str = "delivery.skep.dev/wait";
/// `true`: objects that are there already become the release's, whosever they were.
pub const TAKE_OWNERSHIP_ANNOTATION: &str = "delivery.skep.dev/take-ownership";
/// `true`: as [`WAIT_ANNOTATION`], and what fails is undone: an upgrade is rolled back, an installation removed.
pub const ATOMIC_ANNOTATION: &str = "delivery.skep.dev/atomic";
/// The annotations that are `true` or `false`.
pub const FLAGS: [&str; 3] = [WAIT_ANNOTATION, TAKE_OWNERSHIP_ANNOTATION, ATOMIC_ANNOTATION];

/// Whether a flag is up; one that is absent or empty is not.
///
/// # Errors
/// The value that is neither `true` nor `false`.
pub fn flag<'a>(annotations: &'a BTreeMap<String, String>, name: &str) -> Result<bool, &'a str> {
    match annotations.get(name).map_or("", String::as_str) {
        "true" => Ok(true),
        "false" | "" => Ok(false),
        other => Err(other),
    }
}

/// The values of [`DRIFT_ANNOTATION`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drift {
    /// What is declared is put back.
    #[default]
    Correct,
    /// It is told, and stays as it is.
    Warn,
    /// Nobody looks.
    Ignore,
}

impl Drift {
    pub const NAMES: [(&str, Self); 3] = [("correct", Self::Correct), ("warn", Self::Warn), ("ignore", Self::Ignore)];

    /// As an object's annotations say; the default where they say nothing.
    ///
    /// # Errors
    /// The value that is none.
    pub fn of(annotations: &BTreeMap<String, String>) -> Result<Self, &str> {
        let Some(told) = annotations.get(DRIFT_ANNOTATION).filter(|told| !told.is_empty()) else {
            return Ok(Self::default());
        };
        let found = Self::NAMES.iter().find(|(name, _)| name == told);
        found.map(|(_, drift)| *drift).ok_or(told)
    }
}

/// As Go prints text with `%#q`, in messages: in backquotes if it can stand in them.
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = !self.0.chars().any(|c| c == '`' || c == '\u{feff}' || (c.is_control() && c != '\t'));
        if plain { write!(f, "`{}`", self.0) } else { write!(f, "{:?}", self.0) }
    }
}

/// An object in some namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectRef {
    pub name: String,
    pub namespace: String,
}

/// Where values are: in a ConfigMap, in a Secret, or in both.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRefs {
    pub config_map: Option<ObjectRef>,
    pub secret: Option<ObjectRef>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ConfigKind {
    #[default]
    ConfigMap,
    Secret,
}

/// Values between the layers: merged after the catalog's (priority up to 50), the app's (up to 100) or the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraConfig {
    #[serde(default)]
    pub kind: ConfigKind,
    pub name: String,
    pub namespace: String,
    /// 1 to 150.
    #[serde(default = "default_priority")]
    pub priority: i32,
}

const fn default_priority() -> i32 {
    25
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InstallOptions {
    #[serde(rename = "skipCRDs")]
    pub skip_crds: Option<bool>,
    /// As in `5m`, `1m30s`.
    pub timeout: Option<String>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepOptions {
    /// As in `5m`, `1m30s`.
    pub timeout: Option<String>,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeConfig {
    /// Nobody reads it any more.
    pub context: Option<KubeConfigContext>,
    #[serde(default)]
    pub in_cluster: bool,
    pub secret: Option<ObjectRef>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KubeConfigContext {
    pub name: String,
}

/// What the target namespace is to have.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NamespaceConfig {
    pub annotations: Option<BTreeMap<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
}

/// A chart of a catalog that is to be in a cluster.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "application.giantswarm.io",
    version = "v1alpha1",
    kind = "App",
    plural = "apps",
    namespaced,
    status = "AppStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct AppSpec {
    pub catalog: String,
    /// If absent, [`CATALOG_NAMESPACES`] in turn.
    pub catalog_namespace: Option<String>,
    pub config: Option<ConfigRefs>,
    pub extra_configs: Option<Vec<ExtraConfig>>,
    pub install: Option<InstallOptions>,
    pub kube_config: KubeConfig,
    /// Of the chart.
    pub name: String,
    /// In the target cluster; fixed.
    pub namespace: String,
    pub namespace_config: Option<NamespaceConfig>,
    pub rollback: Option<StepOptions>,
    pub uninstall: Option<StepOptions>,
    pub upgrade: Option<StepOptions>,
    pub user_config: Option<ConfigRefs>,
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// Of what the chart installs.
    #[serde(default)]
    pub app_version: String,
    #[serde(default)]
    pub release: AppRelease,
    /// Of the chart.
    #[serde(default)]
    pub version: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppRelease {
    pub last_deployed: Option<Time>,
    pub reason: Option<String>,
    /// Helm's, or why there is no release.
    #[serde(default)]
    pub status: String,
}

impl App {
    fn label(&self, name: &str) -> &str {
        self.labels().get(name).map(String::as_str).unwrap_or_default()
    }

    fn own_namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// The value of [`VERSION_LABEL`].
    pub fn version_label(&self) -> &str {
        self.label(VERSION_LABEL)
    }

    /// The workload cluster's name by label; empty if there is none.
    pub fn cluster(&self) -> &str {
        self.label(CLUSTER_LABEL)
    }

    /// Whether it lives in an organization's namespace.
    pub fn is_in_organization(&self) -> bool {
        self.own_namespace().starts_with(ORGANIZATION_PREFIX)
    }

    /// An organization's app for a workload cluster.
    pub fn is_of_organization(&self) -> bool {
        !self.spec.kube_config.in_cluster && self.is_in_organization()
    }

    /// What the names of the cluster's values and kubeconfig begin with.
    fn cluster_or_namespace(&self) -> &str {
        if self.is_in_organization() { self.cluster() } else { self.own_namespace() }
    }

    /// The ConfigMap with what all apps of the cluster are told.
    pub fn cluster_values(&self) -> String {
        format!("{}-cluster-values", self.cluster_or_namespace())
    }

    /// The Secret with the cluster's kubeconfig.
    pub fn cluster_kubeconfig(&self) -> String {
        format!("{}-kubeconfig", self.cluster_or_namespace())
    }

    /// The chart's version: images of Flux begin with `v`.
    pub fn chart_version(&self) -> &str {
        self.spec.version.strip_prefix('v').unwrap_or(&self.spec.version)
    }

    /// Name of the AppCatalogEntry that offers it.
    pub fn entry(&self) -> String {
        format!("{}-{}-{}", self.spec.catalog, self.spec.name, self.chart_version())
    }

    pub fn extra_configs(&self) -> &[ExtraConfig] {
        self.spec.extra_configs.as_deref().unwrap_or_default()
    }
}

/// Values in the target cluster, and which version of them was written last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartConfigRef {
    pub name: String,
    pub namespace: String,
    pub resource_version: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartConfig {
    pub config_map: Option<ChartConfigRef>,
    pub secret: Option<ChartConfigRef>,
}

/// A release that is to be in the cluster it lives in.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "application.giantswarm.io",
    version = "v1alpha1",
    kind = "Chart",
    plural = "charts",
    namespaced,
    status = "ChartStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct ChartSpec {
    pub config: Option<ChartConfig>,
    pub install: Option<InstallOptions>,
    /// Of the release.
    pub name: String,
    pub namespace: String,
    pub namespace_config: Option<NamespaceConfig>,
    pub rollback: Option<StepOptions>,
    /// `https://` of an archive, or `oci://` with a tag.
    #[serde(rename = "tarballURL")]
    pub tarball_url: String,
    pub uninstall: Option<StepOptions>,
    pub upgrade: Option<StepOptions>,
    pub version: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartStatus {
    #[serde(default)]
    pub app_version: String,
    pub reason: Option<String>,
    #[serde(default)]
    pub release: ChartRelease,
    #[serde(default)]
    pub version: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartRelease {
    pub last_deployed: Option<Time>,
    pub revision: Option<i64>,
    #[serde(default)]
    pub status: String,
}

/// A place with charts, and its type (`helm`, `oci`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Repository {
    #[serde(rename = "URL")]
    pub url: String,
    #[serde(rename = "type")]
    pub type_: String,
}

/// Charts that users may pick from.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "application.giantswarm.io",
    version = "v1alpha1",
    kind = "Catalog",
    plural = "catalogs",
    namespaced,
    status = "CatalogStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct CatalogSpec {
    /// Below all other values of the catalog's apps.
    pub config: Option<ConfigRefs>,
    pub description: String,
    #[serde(rename = "logoURL")]
    pub logo_url: String,
    /// Mirrors of each other. If there is none, `storage`.
    #[serde(default)]
    pub repositories: Vec<Repository>,
    pub storage: Repository,
    pub title: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogStatus {
    pub helm_repository_list: Option<HelmRepositoryList>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HelmRepositoryList {
    pub entries: Vec<ObjectRef>,
}

/// One version of one chart of a catalog.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource)]
#[kube(
    group = "application.giantswarm.io",
    version = "v1alpha1",
    kind = "AppCatalogEntry",
    plural = "appcatalogentries",
    namespaced,
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct AppCatalogEntrySpec {
    pub app_name: String,
    pub app_version: String,
    pub catalog: CatalogRef,
    pub chart: Option<EntryChart>,
    pub date_created: Option<Time>,
    pub date_updated: Option<Time>,
    pub restrictions: Option<Restrictions>,
    pub version: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CatalogRef {
    pub name: String,
    #[serde(default)]
    pub namespace: String,
}

#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntryChart {
    pub api_version: String,
    pub description: Option<String>,
    pub home: Option<String>,
    pub icon: Option<String>,
    pub keywords: Option<Vec<String>>,
    pub upstream_chart_version: Option<String>,
}

/// Where an app may be.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Restrictions {
    /// Once in a cluster.
    pub cluster_singleton: bool,
    pub compatible_providers: Option<Vec<String>>,
    /// In this namespace alone.
    pub fixed_namespace: String,
    pub gpu_instances: bool,
    /// Once in a namespace.
    pub namespace_singleton: bool,
}
