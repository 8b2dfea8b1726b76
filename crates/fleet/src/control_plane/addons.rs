//! kube-proxy and CoreDNS of the workload cluster: kubeadm installs them with the first machine, and they follow the control
//! plane once all its machines are as declared.
//!
//! CoreDNS's Corefile stays as it is: nothing that kubeadm ever wrote into it was taken away since 1.8, and what is older
//! is refused. Source: kubernetes-sigs/cluster-api controlplane/kubeadm/pkg/workload_cluster{,_coredns}.go.

use api::{cluster_configuration::ClusterConfiguration, control_plane::KubeadmControlPlane, names};
use control::{Error, Key, Result, bounded};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment},
    core::v1::PodTemplateSpec,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{cluster_configuration, kubeadm_config};
use crate::{owner, workload::Workloads};

const NAMESPACE: &str = "kube-system";
const KUBE_PROXY: &str = "kube-proxy";
const COREDNS: &str = "coredns";
const KUBERNETES_REGISTRIES: [&str; 2] = ["registry.k8s.io", "k8s.gcr.io"];
/// The first version in a folder of its own in those registries, and the first whose Corefile is still good.
const COREDNS_OLDEST: [u64; 3] = [1, 8, 0];

/// Brings both to what is declared; nothing if they are there, or are not kubeadm's.
pub async fn upgrade(workloads: &Workloads, cluster: &Key, control_plane: &KubeadmControlPlane) -> Result<()> {
    let client = workloads.try_client(cluster).await?;
    let skips = |annotation| owner::annotation_of(&control_plane.metadata, annotation).is_some();
    let configuration = cluster_configuration(control_plane);
    let failed = |verb, name: &str| {
        let object = format!("{name} of {cluster}");
        move |source| Error::api(verb, object, source)
    };
    if !skips(names::SKIP_KUBE_PROXY_ANNOTATION) {
        let api = Api::<DaemonSet>::namespaced(client.clone(), NAMESPACE);
        let found = bounded(cluster, api.get_opt(KUBE_PROXY)).await?.map_err(failed("get", KUBE_PROXY))?;
        let image = found.and_then(|set| image_of(&set.spec?.template, KUBE_PROXY));
        let repository = configuration.and_then(|found| found.image_repository.as_deref());
        let wanted = image.as_deref().and_then(|image| kube_proxy(image, &control_plane.spec.version, repository));
        if let Some(wanted) = wanted {
            let patch = image_patch(KUBE_PROXY, &wanted);
            let patched = bounded(cluster, api.patch(KUBE_PROXY, &PatchParams::default(), &patch)).await?;
            patched.map_err(failed("patch", KUBE_PROXY))?;
        }
    }
    let Some(configuration) = configuration.filter(|_| !skips(names::SKIP_COREDNS_ANNOTATION)) else { return Ok(()) };
    let api = Api::<Deployment>::namespaced(client, NAMESPACE);
    let found = bounded(cluster, api.get_opt(COREDNS)).await?.map_err(failed("get", COREDNS))?;
    let Some(image) = found.and_then(|deployment| image_of(&deployment.spec?.template, COREDNS)) else { return Ok(()) };
    let wanted = coredns(&image, configuration);
    if let Some(wanted) = wanted.map_err(|why| Error::blocked("CoreDNSNotUpgraded", format!("{cluster}: {why}")))? {
        kubeadm_config::publish_dns(workloads, cluster, configuration.dns.as_ref()).await?;
        let patch = image_patch(COREDNS, &wanted);
        let patched = bounded(cluster, api.patch(COREDNS, &PatchParams::default(), &patch)).await?;
        patched.map_err(failed("patch", COREDNS))?;
    }
    Ok(())
}

fn image_of(template: &PodTemplateSpec, container: &str) -> Option<String> {
    template.spec.as_ref()?.containers.iter().find(|found| found.name == container)?.image.clone()
}

fn image_patch(container: &str, image: &str) -> Patch<Value> {
    Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [{"name": container, "image": image}]}}}}))
}

/// An image's repository, name and tag; a digest is left out.
fn parts(image: &str) -> (&str, &str, &str) {
    let image = image.split('@').next().unwrap_or(image);
    let (repository, name) = image.rsplit_once('/').unwrap_or(("", image));
    let (name, tag) = name.split_once(':').unwrap_or((name, ""));
    (repository, name, tag)
}

fn joined(repository: &str, name: &str, tag: &str) -> String {
    let repository = repository.trim_end_matches('/');
    if repository.is_empty() { format!("{name}:{tag}") } else { format!("{repository}/{name}:{tag}") }
}

/// The image that kube-proxy should have, if it has another.
fn kube_proxy(image: &str, version: &str, repository: Option<&str>) -> Option<String> {
    let (present, name, _) = parts(image);
    // A tag has no `+`.
    let wanted = joined(repository.unwrap_or(present), name, &version.replace('+', "_"));
    (wanted != image).then_some(wanted)
}

/// The image that CoreDNS should have, if it has another; `Err` says why it cannot have it. Without a tag that is
/// declared its version stays.
fn coredns(image: &str, configuration: &ClusterConfiguration) -> Result<Option<String>, String> {
    let (present, present_name, present_tag) = parts(image);
    let dns = configuration.dns.as_ref();
    let declared = dns.and_then(|dns| dns.image_repository.as_deref()).or(configuration.image_repository.as_deref());
    let repository = declared.unwrap_or(present).trim_end_matches('/');
    let tag = dns.and_then(|dns| dns.image_tag.as_deref()).unwrap_or(present_tag);
    let version = |tag: &str| {
        version(tag).ok_or_else(|| format!("the tag {tag:?} of CoreDNS's image does not begin with a version"))
    };
    let (from, to) = (version(present_tag)?, version(tag)?);
    let moved = KUBERNETES_REGISTRIES.contains(&repository) && to >= COREDNS_OLDEST;
    let name = if moved && present_name == COREDNS { "coredns/coredns" } else { present_name };
    let wanted = joined(repository, name, tag);
    if wanted == image {
        return Ok(None);
    }
    if to < from {
        return Err(format!("CoreDNS cannot go from {present_tag} back to {tag}"));
    }
    if from < COREDNS_OLDEST {
        return Err(format!("the Corefile of CoreDNS {present_tag} is too old to be kept: upgrade CoreDNS by hand"));
    }
    Ok(Some(wanted))
}

/// Major, minor and patch of `v1.12.1` or `1.12.1-build.2`.
fn version(tag: &str) -> Option<[u64; 3]> {
    let mut numbers = tag.trim_start_matches('v').split(['-', '_', '+']).next()?.split('.').map(str::parse);
    let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
    Some([next()?, next()?, next()?])
}

#[cfg(test)]
mod tests {
    use api::cluster_configuration::Dns;

    use super::*;

    fn configuration(repository: Option<&str>, tag: Option<&str>) -> ClusterConfiguration {
        let dns = Dns { image_repository: repository.map(str::to_owned), image_tag: tag.map(str::to_owned) };
        ClusterConfiguration { dns: Some(dns), ..ClusterConfiguration::default() }
    }

    #[test]
    fn kube_proxy_takes_the_version_and_keeps_its_registry_unless_another_is_declared() {
        let image = "registry.k8s.io/kube-proxy:v1.33.0";
        assert_eq!(kube_proxy(image, "v1.33.0", None), None);
        assert_eq!(kube_proxy(image, "v1.34.0+a", None).as_deref(), Some("registry.k8s.io/kube-proxy:v1.34.0_a"));
        let own = kube_proxy("localhost:5000/kube-proxy@sha256:00", "v1.34.0", Some("own.example/k8s/"));
        assert_eq!(own.as_deref(), Some("own.example/k8s/kube-proxy:v1.34.0"));
    }

    #[test]
    fn coredns_takes_the_declared_tag_and_repository() {
        let image = "registry.k8s.io/coredns/coredns:v1.11.3";
        assert_eq!(coredns(image, &ClusterConfiguration::default()), Ok(None));
        let newer = coredns(image, &configuration(None, Some("v1.12.1"))).unwrap();
        assert_eq!(newer.as_deref(), Some("registry.k8s.io/coredns/coredns:v1.12.1"));
        let own = coredns(image, &configuration(Some("own.example/dns"), None)).unwrap();
        assert_eq!(own.as_deref(), Some("own.example/dns/coredns:v1.11.3"));
        let back = coredns("own.example/dns/coredns:v1.11.3", &configuration(Some("registry.k8s.io"), None)).unwrap();
        assert_eq!(back.as_deref(), Some(image));
    }

    #[test]
    fn coredns_goes_neither_back_nor_on_from_what_is_too_old() {
        let image = "registry.k8s.io/coredns/coredns:v1.11.3";
        assert!(coredns(image, &configuration(None, Some("v1.11.2"))).unwrap_err().contains("back to v1.11.2"));
        let old = "registry.k8s.io/coredns:1.7.0";
        assert!(coredns(old, &configuration(None, Some("v1.12.1"))).unwrap_err().contains("too old"));
        assert!(coredns(image, &configuration(None, Some("latest"))).unwrap_err().contains("latest"));
    }
}
