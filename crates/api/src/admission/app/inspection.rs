//! Who may make which apps of the management cluster: those could read what is not their users'.
//!
//! Source: giantswarm/app-admission-controller internal/security/inspector.

use serde::Deserialize;

use super::{Checked, Refusal, namespace};
use crate::app::{App, ObjectRef, Quoted, UNIQUE_VERSION};

/// What is refused, and to whom it is not: `security` of the published chart's values.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lists {
    /// Charts that are refused if they come from one of `catalogs`.
    #[serde(rename = "appBlacklist")]
    pub apps: Vec<String>,
    #[serde(rename = "catalogBlacklist")]
    pub catalogs: Vec<String>,
    /// Members of these may do everything.
    #[serde(rename = "groupWhitelist")]
    pub groups: Vec<String>,
    /// Nothing in these is referred to; one that begins or ends with `-` is the end or the beginning of a name.
    #[serde(rename = "namespaceBlacklist")]
    pub namespaces: Vec<String>,
    /// Users whose names begin so may do everything.
    #[serde(rename = "userWhitelist")]
    pub users: Vec<String>,
}

impl Default for Lists {
    fn default() -> Self {
        let list = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        Self {
            apps: list(&["app-operator"]),
            catalogs: list(&["control-plane-catalog", "control-plane-test-catalog"]),
            groups: list(&["giantswarm:giantswarm:giantswarm-admins", "system:masters"]),
            namespaces: list(&[
                "-prometheus",
                "capi-",
                "draughtsman",
                "flux-giantswarm",
                "giantswarm",
                "kube-system",
                "monitoring",
            ]),
            users: list(&[
                "system:serviceaccount:draughtsman:",
                "system:serviceaccount:flux-giantswarm:",
                "system:serviceaccount:giantswarm:",
                "system:serviceaccount:kube-system:",
            ]),
        }
    }
}

impl Lists {
    fn is_private(&self, namespace: &str) -> bool {
        !namespace.is_empty() && self.namespaces.iter().any(|listed| listed == namespace)
    }

    fn is_forbidden(&self, namespace: &str) -> bool {
        let pattern = |listed: &&String| listed.starts_with('-') || listed.ends_with('-');
        let like = |listed: &String| namespace.ends_with(listed.as_str()) || namespace.starts_with(listed.as_str());
        self.is_private(namespace) || self.namespaces.iter().filter(pattern).any(like)
    }
}

/// Judges what a user wants of the management cluster.
///
/// # Errors
/// The chart, or a namespace that is referred to, is not for this user.
pub fn inspect<'g>(app: &App, user: &str, groups: impl IntoIterator<Item = &'g str>, lists: &Lists) -> Checked {
    let trusted = lists.users.iter().any(|prefix| user.starts_with(prefix.as_str()))
        || groups.into_iter().any(|group| lists.groups.iter().any(|listed| listed == group));
    if app.version_label() != UNIQUE_VERSION || trusted || lists.is_private(namespace(app)) {
        return Ok(());
    }
    let spec = &app.spec;
    if lists.apps.contains(&spec.name) && lists.catalogs.contains(&spec.catalog) {
        let (chart, catalog) = (Quoted(&spec.name), Quoted(&spec.catalog));
        return Err(Refusal::Security(format!("installing {chart} from {catalog} catalog is not allowed")));
    }
    let configs = [&spec.config, &spec.user_config].into_iter().flatten();
    let configs = configs.flat_map(|config| [&config.config_map, &config.secret]).chain([&spec.kube_config.secret]);
    let referred = configs.flatten().map(|found: &ObjectRef| &found.namespace);
    let extra = app.extra_configs().iter().map(|extra| &extra.namespace);
    match referred.chain(extra).find(|namespace| lists.is_forbidden(namespace)) {
        Some(found) => Err(Refusal::Security(format!("references to {} namespace not allowed", Quoted(found)))),
        None => Ok(()),
    }
}
