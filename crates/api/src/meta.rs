//! What every kind shares: conditions, references, template metadata, patterns.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Cluster: `spec.availabilityGates.polarity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatePolarity {
    #[default]
    Positive,
    Negative,
}

/// A condition that counts into Ready or Available.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gate {
    #[schemars(length(min = 1, max = 316), regex(pattern = QUALIFIED_NAME))]
    pub condition_type: String,
    pub polarity: Option<GatePolarity>,
}

/// A reference to an object in the same namespace; its version follows from the contract.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContractRef {
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub api_group: String,
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND))]
    pub kind: String,
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_SUBDOMAIN))]
    pub name: String,
}

/// One aspect of an object's state (KEP-1623).
#[skip_serializing_none]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    pub last_transition_time: Time,
    #[schemars(length(max = 32768))]
    pub message: String,
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    #[schemars(length(min = 1, max = 1024), regex(pattern = CONDITION_REASON))]
    pub reason: String,
    pub status: ConditionStatus,
    #[schemars(length(max = 316), regex(pattern = QUALIFIED_NAME))]
    pub type_: String,
}

/// Cluster: `spec.topology.controlPlane.healthCheck.checks.unhealthyMachineConditions.status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    #[default]
    True,
    False,
    Unknown,
}

/// Labels and annotations for what is made from a template.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("minProperties" = 1))]
pub struct TemplateMeta {
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// MachineSet: `spec.selector.matchExpressions`.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabelRequirement {
    pub key: String,
    pub operator: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

/// Selects objects by their labels.
#[skip_serializing_none]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct LabelSelector {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub match_expressions: Vec<LabelRequirement>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

impl LabelSelector {
    /// It asks for nothing, and so selects everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether it selects an object with these labels. An operator that does not exist selects nothing.
    pub fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let label = |key: &str| labels.and_then(|labels| labels.get(key));
        self.match_labels.iter().all(|(key, value)| label(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| {
                let found = label(&requirement.key);
                match requirement.operator.as_str() {
                    "In" => found.is_some_and(|value| requirement.values.contains(value)),
                    "NotIn" => found.is_none_or(|value| !requirement.values.contains(value)),
                    "Exists" => found.is_some(),
                    "DoesNotExist" => found.is_none(),
                    _ => false,
                }
            })
    }
}

/// Seconds as Go's `time.Duration` writes them, which v1beta1 has in fields and conditions tell of limits: `1h0m5s`.
pub fn go_duration(seconds: i64) -> String {
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

pub const QUALIFIED_NAME: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";
pub const DNS_SUBDOMAIN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
pub const KIND: &str = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$";
pub const DNS_LABEL: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
pub const GROUP_VERSION: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/[a-z]([-a-z0-9]*[a-z0-9])?$";
pub const UNHEALTHY_RANGE: &str = r"^\[[0-9]+-[0-9]+\]$";
pub const TAINT_KEY: &str =
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
pub const LABEL_VALUE: &str = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
pub const CONDITION_REASON: &str = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
pub const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
pub const NO_SPACE: &str = r"^[^ ]+$";
pub const NO_COMMA: &str = r"^[^,]+$";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned()), ("tier".to_owned(), String::new())]);
        let selects = |operator: &str, key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let one = LabelRequirement { key: key.to_owned(), operator: operator.to_owned(), values };
            LabelSelector { match_expressions: vec![one], ..LabelSelector::default() }.selects(Some(&labels))
        };
        assert!(selects("In", "app", &["db", "web"]) && !selects("In", "app", &["db"]) && !selects("In", "x", &[""]));
        assert!(selects("NotIn", "app", &["db"]) && selects("NotIn", "x", &["db"]) && !selects("NotIn", "tier", &[""]));
        assert!(selects("Exists", "tier", &[]) && !selects("Exists", "x", &[]));
        assert!(selects("DoesNotExist", "x", &[]) && !selects("DoesNotExist", "app", &[]));
        assert!(!selects("Near", "app", &["web"]));
        assert!(LabelSelector::default().selects(None));
    }

    #[test]
    fn durations_are_told_as_go_tells_them() {
        let told = [0, 30, 60, 605, 3600, 7325].map(go_duration);
        assert_eq!(told, ["0s", "30s", "1m0s", "10m5s", "1h0m0s", "2h2m5s"]);
    }
}
