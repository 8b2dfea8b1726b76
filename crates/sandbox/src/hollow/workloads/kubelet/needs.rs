//! ConfigMaps and Secrets that a pod cannot start without.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

/// One of them, in the pod's namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Need {
    /// `configmap` or `secret`, as the kubelet calls them.
    pub kind: &'static str,
    pub name: String,
}

impl Need {
    /// Where the API server keeps it.
    pub fn key(&self, namespace: &str) -> String {
        format!("core/{}s/{namespace}/{}", self.kind, self.name)
    }

    fn of(kind: &'static str, name: &str, optional: Option<bool>) -> Option<Self> {
        (optional != Some(true)).then(|| Self { kind, name: name.to_owned() })
    }
}

/// What a container has in its environment.
pub fn variables(container: &Container) -> Vec<Need> {
    let single =
        container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()).filter_map(|from| {
            match (&from.config_map_key_ref, &from.secret_key_ref) {
                (Some(key), _) => Need::of("configmap", &key.name, key.optional),
                (_, Some(key)) => Need::of("secret", &key.name, key.optional),
                _ => None,
            }
        });
    let whole = container.env_from.iter().flatten().filter_map(|from| match (&from.config_map_ref, &from.secret_ref) {
        (Some(map), _) => Need::of("configmap", &map.name, map.optional),
        (_, Some(secret)) => Need::of("secret", &secret.name, secret.optional),
        _ => None,
    });
    single.chain(whole).collect()
}

/// What a pod mounts, with the names of the volumes.
pub fn mounts(spec: &PodSpec) -> Vec<(String, Need)> {
    let of = |volume: &Volume| {
        let map = volume.config_map.as_ref().and_then(|map| Need::of("configmap", &map.name, map.optional));
        let secret = volume
            .secret
            .as_ref()
            .and_then(|secret| Need::of("secret", secret.secret_name.as_deref().unwrap_or_default(), secret.optional));
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        let projected = sources.filter_map(|source| match (&source.config_map, &source.secret) {
            (Some(map), _) => Need::of("configmap", &map.name, map.optional),
            (_, Some(secret)) => Need::of("secret", &secret.name, secret.optional),
            _ => None,
        });
        let needs: Vec<Need> = map.into_iter().chain(secret).chain(projected).collect();
        needs.into_iter().map(|need| (volume.name.clone(), need)).collect::<Vec<_>>()
    };
    spec.volumes.iter().flatten().flat_map(of).collect()
}

/// All of a pod.
pub fn all(spec: &PodSpec) -> Vec<Need> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.flat_map(variables).chain(mounts(spec).into_iter().map(|(_, need)| need)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_optional_is_not_needed() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{
                "name": "a",
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "k"}}},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "two", "key": "k", "optional": true}}},
                    {"name": "C", "value": "plain"},
                ],
                "envFrom": [{"secretRef": {"name": "three"}}, {"configMapRef": {"name": "four", "optional": true}}],
            }],
            "volumes": [
                {"name": "v", "configMap": {"name": "five"}},
                {"name": "w", "secret": {"secretName": "six"}},
                {"name": "x", "projected": {"sources": [{"secret": {"name": "seven"}}, {"configMap": {"name": "eight", "optional": true}}]}},
                {"name": "y", "emptyDir": {}},
            ],
        }))
        .unwrap();
        let keys: Vec<_> = all(&spec).iter().map(|need| need.key("ns")).collect();
        let want =
            ["configmaps/ns/one", "secrets/ns/three", "configmaps/ns/five", "secrets/ns/six", "secrets/ns/seven"];
        assert_eq!(keys, want.map(|key| format!("core/{key}")));
    }
}
