//! What `kubeadm init` puts into a new cluster besides its control plane: kube-proxy and CoreDNS, as objects whose
//! images others upgrade.
//!
//! Source: kubernetes/kubernetes cmd/kubeadm/app/phases/addons.

use ipnet::IpNet;
use serde_json::{Value, json};

use super::kubeadm::{ClusterConfiguration, InitConfiguration};

const IMAGE_REPOSITORY: &str = "registry.k8s.io";
/// The address of the cluster's DNS in its service network.
const DNS_HOST: usize = 10;

/// The objects, without those of phases that are skipped or disabled.
pub fn objects(cluster: &ClusterConfiguration, init: &InitConfiguration) -> Vec<Value> {
    let skips = |phase: &str| init.skip_phases.iter().any(|skipped| skipped == phase || skipped == "addon");
    let mut objects = Vec::new();
    if !skips("addon/kube-proxy") && !cluster.proxy.disabled {
        objects.extend(kube_proxy(cluster));
    }
    if !skips("addon/coredns") && !cluster.dns.disabled {
        objects.extend(coredns(cluster));
    }
    objects
}

fn repository(configured: &str) -> &str {
    if configured.is_empty() { IMAGE_REPOSITORY } else { configured.trim_end_matches('/') }
}

fn metadata(name: &str, labels: Value) -> Value {
    json!({"name": name, "namespace": "kube-system", "labels": labels})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(name, json!({})), "data": data})
}

fn service_account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name, json!({}))})
}

fn kube_proxy(cluster: &ClusterConfiguration) -> Vec<Value> {
    let labels = json!({"k8s-app": "kube-proxy"});
    let image = format!("{}/kube-proxy:{}", repository(&cluster.image_repository), tag(&cluster.kubernetes_version));
    let configuration = json!({"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
                               "clusterCIDR": cluster.networking.pod_subnet});
    let pod = json!({
        "serviceAccountName": "kube-proxy", "priorityClassName": "system-node-critical", "hostNetwork": true,
        "nodeSelector": {"kubernetes.io/os": "linux"}, "tolerations": [{"operator": "Exists"}],
        "containers": [{
            "name": "kube-proxy", "image": image, "securityContext": {"privileged": true},
            "command": ["/usr/local/bin/kube-proxy", "--config=/var/lib/kube-proxy/config.conf"],
            "volumeMounts": [{"name": "kube-proxy", "mountPath": "/var/lib/kube-proxy"}],
        }],
        "volumes": [{"name": "kube-proxy", "configMap": {"name": "kube-proxy"}}],
    });
    vec![
        service_account("kube-proxy"),
        config_map("kube-proxy", json!({"config.conf": configuration.to_string()})),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata("kube-proxy", labels.clone()), "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod},
        }}),
    ]
}

fn coredns(cluster: &ClusterConfiguration) -> Vec<Value> {
    let domain =
        if cluster.networking.dns_domain.is_empty() { "cluster.local" } else { &cluster.networking.dns_domain };
    let corefile = format!(
        ".:53 {{\n    errors\n    health {{\n       lameduck 5s\n    }}\n    ready\n    \
         kubernetes {domain} in-addr.arpa ip6.arpa {{\n       pods insecure\n       fallthrough in-addr.arpa ip6.arpa\n       \
         ttl 30\n    }}\n    prometheus :9153\n    forward . /etc/resolv.conf {{\n       max_concurrent 1000\n    }}\n    \
         cache 30\n    loop\n    reload\n    loadbalance\n}}\n"
    );
    let own =
        if cluster.dns.image_repository.is_empty() { &cluster.image_repository } else { &cluster.dns.image_repository };
    // Only the registry of Kubernetes itself has the image one folder down.
    let name = if repository(own) == IMAGE_REPOSITORY { "coredns/coredns" } else { "coredns" };
    let version = match cluster.dns.image_tag.as_str() {
        "" => coredns_version(&cluster.kubernetes_version),
        tag => tag,
    };
    let labels = json!({"k8s-app": "kube-dns"});
    let pod = json!({
        "serviceAccountName": "coredns", "priorityClassName": "system-cluster-critical", "dnsPolicy": "Default",
        "tolerations": [
            {"key": "CriticalAddonsOnly", "operator": "Exists"},
            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
        ],
        "containers": [{
            "name": "coredns", "image": format!("{}/{name}:{version}", repository(own)),
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}, {"name": "dns-tcp", "containerPort": 53}],
            "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
        }],
        "volumes": [{"name": "config-volume", "configMap": {
            "name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}],
        }}],
    });
    let mut service = json!({
        "selector": labels,
        "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}],
    });
    let hosts = cluster.service_subnet().parse::<IpNet>().ok().map(|subnet| subnet.hosts());
    if let Some(address) = hosts.and_then(|mut hosts| hosts.nth(DNS_HOST - 1)) {
        service["clusterIP"] = json!(address.to_string());
    }
    vec![
        service_account("coredns"),
        config_map("coredns", json!({"Corefile": corefile})),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata("coredns", labels.clone()), "spec": {
            "replicas": 2, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata("kube-dns", labels.clone()), "spec": service}),
    ]
}

/// A version as the tag of an image, which has no `+`.
fn tag(version: &str) -> String {
    version.replace('+', "_")
}

/// The version that kubeadm of a Kubernetes version brings.
/// Source: kubernetes/kubernetes cmd/kubeadm/app/constants.
fn coredns_version(kubernetes_version: &str) -> &'static str {
    let minor = kubernetes_version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
    match minor {
        36_u32.. => "v1.14.2",
        35 => "v1.13.1",
        34 => "v1.12.1",
        33 => "v1.12.0",
        _ => "v1.11.3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects_of(configuration: Value, skipped: &[&str]) -> Vec<Value> {
        let cluster = serde_json::from_value(configuration).unwrap();
        let skip_phases = skipped.iter().map(|phase| (*phase).to_owned()).collect();
        objects(&cluster, &InitConfiguration { skip_phases, ..InitConfiguration::default() })
    }

    fn images(objects: &[Value]) -> Vec<&str> {
        let images = objects.iter().filter_map(|object| object.pointer("/spec/template/spec/containers/0/image"));
        images.filter_map(Value::as_str).collect()
    }

    #[test]
    fn images_follow_version_and_repositories() {
        let plain = objects_of(json!({"kubernetesVersion": "v1.34.2+x"}), &[]);
        assert_eq!(images(&plain), ["registry.k8s.io/kube-proxy:v1.34.2_x", "registry.k8s.io/coredns/coredns:v1.12.1"]);
        let own = objects_of(
            json!({"kubernetesVersion": "v1.36.0", "imageRepository": "a.example/k8s/", "dns": {"imageTag": "v9"}}),
            &[],
        );
        assert_eq!(images(&own), ["a.example/k8s/kube-proxy:v1.36.0", "a.example/k8s/coredns:v9"]);
    }

    #[test]
    fn the_dns_has_the_tenth_address_of_the_services() {
        let objects =
            objects_of(json!({"networking": {"serviceSubnet": "10.128.0.0/12,fd00::/108"}}), &["addon/kube-proxy"]);
        assert_eq!(objects.last().unwrap()["spec"]["clusterIP"], "10.128.0.10");
    }

    #[test]
    fn what_is_skipped_or_disabled_is_not_there() {
        assert!(objects_of(json!({}), &["addon"]).is_empty());
        assert!(objects_of(json!({"proxy": {"disabled": true}, "dns": {"disabled": true}}), &[]).is_empty());
        assert_eq!(images(&objects_of(json!({}), &["addon/coredns"])).len(), 1);
    }
}
