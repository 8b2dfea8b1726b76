//! What the containers of hooks have written, told where the caller wants it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams},
};

use super::{cluster::Cluster, error::Result, record::Hook};

/// As much is told of one container.
const LOG_BYTES_MAX: usize = 1024 * 1024;
/// Pods of one job whose logs are told.
const PODS_MAX: u32 = 50;

/// What one container of a hook has written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub hook: String,
    pub pod: String,
    pub container: String,
    /// Nothing, if it cannot be had: then why.
    pub text: Result<String, String>,
}

/// Where logs go, and whose.
#[derive(Clone, Default)]
pub struct Output {
    /// None: nowhere, and they are not read. What a tenant's hooks write may be secret, so it is not for the log of a process.
    to: Option<Arc<dyn Fn(Log) + Send + Sync>>,
    /// Those of every hook, not only of those whose annotation asks for it (`helm.sh/hook-output-log-policy`).
    pub all: bool,
}

impl Output {
    pub fn new(all: bool, to: impl Fn(Log) + Send + Sync + 'static) -> Self {
        Self { to: Some(Arc::new(to)), all }
    }

    pub(super) async fn tell(&self, cluster: &Cluster, hook: &Hook, namespace: &str) {
        let Some(to) = &self.to else { return };
        let pods = Api::<Pod>::namespaced(cluster.client().clone(), namespace);
        let selected = match hook.kind.as_str() {
            "Pod" => ListParams::default().fields(&format!("metadata.name={}", hook.name)),
            "Job" => ListParams::default().labels(&format!("job-name={}", hook.name)),
            _ => return,
        };
        let told = |pod: &str, container: &str, text| {
            let (hook, pod, container) = (hook.name.clone(), pod.to_owned(), container.to_owned());
            to(Log { hook, pod, container, text });
        };
        let found =
            cluster.call("list", format!("the pods of hook {}", hook.name), pods.list(&selected.limit(PODS_MAX))).await;
        let found = match found {
            Ok(found) => found,
            Err(error) => return told("", "", Err(error.to_string())),
        };
        for pod in found.items {
            let name = pod.name_any();
            for container in pod.spec.iter().flat_map(|spec| &spec.containers) {
                let limit = i64::try_from(LOG_BYTES_MAX).ok();
                let params =
                    LogParams { container: Some(container.name.clone()), limit_bytes: limit, ..LogParams::default() };
                let text = cluster.call("read the log of", format!("pod {name}"), pods.logs(&name, &params)).await;
                told(&name, &container.name, text.map(shortened).map_err(|error| error.to_string()));
            }
        }
    }
}

/// A server need not heed the limit.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LOG_BYTES_MAX));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_has_an_end() {
        assert_eq!(shortened("x".repeat(LOG_BYTES_MAX)).len(), LOG_BYTES_MAX);
        assert_eq!(shortened("x".repeat(LOG_BYTES_MAX + 1)).len(), LOG_BYTES_MAX);
    }
}
