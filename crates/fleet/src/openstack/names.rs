//! Names of what a cluster has in the cloud, as the published provider gives them, and the mark that says it is ours.
//!
//! Source: kubernetes-sigs/cluster-api-provider-openstack pkg/cloud/services, pkg/utils/names.

/// `<namespace>-<cluster>`: the part that all names of a cluster share.
pub fn resource(namespace: &str, cluster: &str) -> String {
    format!("{namespace}-{cluster}")
}

/// Written at creation, in one step with it, so that also an object whose creation was never heard of is known as ours.
pub fn description(resource: &str) -> String {
    format!("Created by cluster-api-provider-openstack cluster {resource}")
}

/// Floating IPs have no name: the description says what each is for.
pub fn floating_description(resource: &str, role: &str) -> String {
    format!("{}: {role}", description(resource))
}

/// Metadata key of servers and volumes, which take no description everywhere.
pub const OWNER_KEY: &str = "k8s-clusterapi-cluster";

/// Metadata key of a bastion: what it was made from, so that another spec makes another bastion.
pub const BASTION_KEY: &str = "k8s-clusterapi-bastion-spec";

/// Of the network, its subnet and its router.
pub fn network(resource: &str) -> String {
    format!("k8s-clusterapi-cluster-{resource}")
}

pub fn security_group(resource: &str, role: &str) -> String {
    format!("k8s-cluster-{resource}-secgroup-{role}")
}

pub fn load_balancer(resource: &str) -> String {
    format!("k8s-clusterapi-cluster-{resource}-kubeapi")
}

/// Of a listener, its pool and its monitor.
pub fn listener(resource: &str, port: u16) -> String {
    format!("{}-{port}", load_balancer(resource))
}

pub fn member(resource: &str, port: u16, machine: &str) -> String {
    format!("{}-{machine}", listener(resource, port))
}

/// No object's name has a slash: no cluster's groups begin as another's do. Groups bear no other mark.
pub fn server_group(resource: &str, role: &str) -> String {
    format!("{}/{role}", network(resource))
}

pub fn bastion(resource: &str) -> String {
    format!("{resource}-bastion")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_published_provider() {
        let r = resource("default", "demo");
        assert_eq!(network(&r), "k8s-clusterapi-cluster-default-demo");
        assert_eq!(security_group(&r, "controlplane"), "k8s-cluster-default-demo-secgroup-controlplane");
        assert_eq!(listener(&r, 6443), "k8s-clusterapi-cluster-default-demo-kubeapi-6443");
        assert_eq!(member(&r, 6443, "m"), "k8s-clusterapi-cluster-default-demo-kubeapi-6443-m");
        assert_eq!(bastion(&r), "default-demo-bastion");
    }
}
