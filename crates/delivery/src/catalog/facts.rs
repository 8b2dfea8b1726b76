//! What else is known of a version: restrictions and where it comes from. Of the index's annotations, and of the file that one of
//! them points at.
//!
//! Source: giantswarm/app-build-suite docs (annotations, metadata generator), giantswarm/k8smetadata pkg/annotation.

use std::collections::BTreeMap;

use api::app::Restrictions;
use jiff::Timestamp;
use serde::Deserialize;

use crate::repository::{Entry, error, index::timestamp};

/// Both forms of an annotation: the older one, and that of registries.
const PREFIXES: [&str; 2] = ["application.giantswarm.io/", "io.giantswarm.application."];
/// Keys, values, lists and maps of such a file.
const NODES_MAX: usize = 10_000;

/// What the file says; what is absent, the index may say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    pub annotations: BTreeMap<String, String>,
    pub chart_api_version: String,
    #[serde(alias = "dataCreated")]
    pub date_created: Option<String>,
    pub restrictions: Option<Restrictions>,
    pub upstream_chart_version: Option<String>,
}

/// An annotation in either form; `name` has slashes, which are dots in the other one.
fn annotation<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    let [older, newer] = PREFIXES;
    let found = entry.annotations.get(&format!("{older}{name}"));
    found.or_else(|| entry.annotations.get(&format!("{newer}{}", name.replace('/', ".")))).map(String::as_str)
}

impl Facts {
    /// Where the file of a version is.
    pub fn url(entry: &Entry) -> Option<&str> {
        annotation(entry, "metadata").filter(|url| !url.is_empty())
    }

    /// # Errors
    /// That the text is no such file, and why.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8".to_owned())?;
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_events: 2 * NODES_MAX, max_nodes: NODES_MAX, max_aliases: 0 },
        };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| error::of_yaml(&error))
    }

    /// What the index says by itself.
    pub fn told(entry: &Entry) -> Self {
        let text = |name: &str| annotation(entry, name).map(str::trim).filter(|text| !text.is_empty());
        let is = |name: &str| text(name) == Some("true");
        let providers = text("restrictions/compatible-providers").map(|all| {
            all.trim_matches(['[', ']']).split(',').map(|one| one.trim().trim_matches('"').to_owned()).collect()
        });
        let restrictions = Restrictions {
            cluster_singleton: is("restrictions/cluster-singleton"),
            compatible_providers: providers,
            fixed_namespace: text("restrictions/fixed-namespace").unwrap_or_default().to_owned(),
            gpu_instances: is("restrictions/gpu-instances"),
            namespace_singleton: is("restrictions/namespace-singleton"),
        };
        Self {
            annotations: BTreeMap::new(),
            chart_api_version: entry.api_version.clone(),
            date_created: None,
            restrictions: (restrictions != Restrictions::default()).then_some(restrictions),
            upstream_chart_version: text("upstream-chart-version").map(str::to_owned),
        }
    }

    /// These over others.
    pub fn over(self, below: Self) -> Self {
        let Self { chart_api_version, restrictions, upstream_chart_version, .. } = below;
        Self {
            chart_api_version: if self.chart_api_version.is_empty() {
                chart_api_version
            } else {
                self.chart_api_version
            },
            restrictions: self.restrictions.or(restrictions),
            upstream_chart_version: self.upstream_chart_version.or(upstream_chart_version),
            ..self
        }
    }

    pub fn created(&self) -> Option<Timestamp> {
        timestamp(self.date_created.as_ref()?)
    }
}

/// Whether a version can be where the management cluster is.
pub fn is_for(restrictions: Option<&Restrictions>, provider: &str) -> bool {
    let providers =
        restrictions.and_then(|restrictions| restrictions.compatible_providers.as_deref()).unwrap_or_default();
    providers.is_empty() || providers.iter().any(|one| one == provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(annotations: &[(&str, &str)]) -> Entry {
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Entry { annotations, api_version: "v2".into(), ..Entry::default() }
    }

    #[test]
    fn restrictions_are_read_in_both_forms_of_annotations() {
        for (prefix, dot) in [("application.giantswarm.io/", "/"), ("io.giantswarm.application.", ".")] {
            let key = |name: &str| format!("{prefix}{}", name.replace('/', dot));
            let all = [
                (key("restrictions/cluster-singleton"), "true"),
                (key("restrictions/compatible-providers"), "aws, openstack"),
                (key("restrictions/fixed-namespace"), "kube-system"),
                (key("upstream-chart-version"), "3.2.1"),
                (key("metadata"), "https://charts.test/main.yaml"),
            ];
            let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), *value)).collect();
            let entry = entry(&all);
            let facts = Facts::told(&entry);
            let restrictions = facts.restrictions.as_ref().unwrap();
            assert!(restrictions.cluster_singleton && !restrictions.namespace_singleton);
            assert_eq!(restrictions.fixed_namespace, "kube-system");
            assert!(is_for(Some(restrictions), "openstack") && !is_for(Some(restrictions), "azure"));
            assert_eq!(facts.upstream_chart_version.as_deref(), Some("3.2.1"));
            assert_eq!(Facts::url(&entry), Some("https://charts.test/main.yaml"));
        }
        assert_eq!(Facts::told(&entry(&[])).restrictions, None);
        assert!(is_for(None, "openstack"));
    }

    #[test]
    fn the_file_goes_over_the_index_where_it_says_something() {
        let text = "annotations: {a: b}\nchartApiVersion: v1\ndateCreated: '2026-01-02T03:04:05Z'\nrestrictions: {namespaceSingleton: true}\nother: 1\n";
        let below = Facts::told(&entry(&[
            ("application.giantswarm.io/restrictions/cluster-singleton", "true"),
            ("application.giantswarm.io/upstream-chart-version", "1"),
        ]));
        let facts = Facts::parse(text.as_bytes()).unwrap().over(below);
        let restrictions = facts.restrictions.as_ref().unwrap();
        assert!(restrictions.namespace_singleton && !restrictions.cluster_singleton);
        assert_eq!((facts.chart_api_version.as_str(), facts.upstream_chart_version.as_deref()), ("v1", Some("1")));
        assert_eq!(facts.created().unwrap().to_string(), "2026-01-02T03:04:05Z");
        for bad in ["[", "restrictions: 1", "a: &a b\nc: *a", "\u{fffe}"] {
            assert!(Facts::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let many = |count: usize| Facts::parse(format!("x: [{}]", vec!["a"; count].join(",")).as_bytes());
        assert!(many(NODES_MAX - 10).is_ok() && many(NODES_MAX + 1).is_err());
    }
}
