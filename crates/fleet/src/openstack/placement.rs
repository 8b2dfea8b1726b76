//! Server groups that the platform makes: where an OpenStackCluster says so, one for the control plane and one for each
//! MachineDeployment, so that the machines of each are kept apart (or together). They go with the cluster. Each MachinePool has one, which goes with it.
//!
//! The published provider takes groups that exist only (`spec.serverGroup`), and a machine that names one is in that.

use api::{
    machine::Machine,
    names::{DEPLOYMENT_LABEL, POOL_LABEL, SERVER_GROUPS_ANNOTATION, SET_LABEL},
    openstack_cluster::OpenStackCluster,
    openstack_machine::OpenStackMachine,
};
use openstack::{
    Query, Service,
    compute::{ServerGroup, ServerGroupDraft},
};

use super::{
    names,
    scope::Scope,
    stop::{Result, blocked, pace, wait},
};
use crate::owner;

const POLICIES: [&str; 4] = ["soft-anti-affinity", "anti-affinity", "soft-affinity", "affinity"];

/// What the machine is one of many of.
fn role(machine: &Machine) -> Option<String> {
    if crate::cluster::is_control_plane(machine) {
        return Some("controlplane".to_owned());
    }
    let label = |name| owner::label_of(&machine.metadata, name);
    match label(POOL_LABEL) {
        Some(pool) => Some(of_pool(pool)),
        None => label(DEPLOYMENT_LABEL).or_else(|| label(SET_LABEL)).map(str::to_owned),
    }
}

/// No deployment has this name.
fn of_pool(pool: &str) -> String {
    format!("pool/{pool}")
}

/// The id of the machine's group, made if it is missing; none where no groups are asked for.
pub async fn group(
    scope: &Scope,
    cluster: &OpenStackCluster,
    infra: &OpenStackMachine,
    machine: &Machine,
) -> Result<Option<String>> {
    let said = |meta| owner::annotation_of(meta, SERVER_GROUPS_ANNOTATION);
    // That of the machine's pool, before the cluster's.
    let Some(policy) = said(&infra.metadata).or_else(|| said(&cluster.metadata)) else { return Ok(None) };
    if !POLICIES.contains(&policy) {
        let known = POLICIES.join(", ");
        return blocked(
            "InvalidMachineSpec",
            format!("annotation {SERVER_GROUPS_ANNOTATION}: {policy:?} is none of {known}"),
        );
    }
    let Some(role) = role(machine) else { return Ok(None) };
    let name = names::server_group(&scope.resource, &role);
    // One at a time: Nova makes two of a name if it is asked twice.
    let Ok(_alone) = scope.placing.try_lock() else {
        return wait("InstanceNotReady", format!("server group {name}"), pace(std::time::Duration::ZERO));
    };
    let found = scope.cloud.list::<ServerGroup>(&Query::new()).await?;
    let mut found: Vec<ServerGroup> = found.into_iter().filter(|group| group.name == name).collect();
    found.sort_by(|a, b| (a.members.is_empty(), &a.id).cmp(&(b.members.is_empty(), &b.id)));
    if let Some(group) = found.into_iter().next() {
        return Ok(Some(group.id));
    }
    let known = scope.cloud.microversion(Service::Compute).await?;
    let draft = ServerGroupDraft::new(name, policy.to_owned(), known);
    Ok(Some(scope.cloud.create::<ServerGroup>(&draft).await?.id))
}

/// Takes away the group of a pool that has gone.
pub async fn delete_of_pool(scope: &Scope, pool: &str) -> Result<()> {
    let name = names::server_group(&scope.resource, &of_pool(pool));
    for group in scope.cloud.list::<ServerGroup>(&Query::new()).await? {
        if group.name == name {
            scope.cloud.remove::<ServerGroup>(&group.id).await?;
        }
    }
    Ok(())
}

/// Takes away the cluster's groups.
pub async fn delete(scope: &Scope) -> Result<()> {
    let prefix = names::server_group(&scope.resource, "");
    for group in scope.cloud.list::<ServerGroup>(&Query::new()).await? {
        if group.name.starts_with(&prefix) {
            scope.cloud.remove::<ServerGroup>(&group.id).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_of_a_deployment_are_of_one_kind_and_no_group_is_another_clusters() {
        let mut machine = Machine::default();
        assert_eq!(role(&machine), None);
        owner::label(&mut machine.metadata, SET_LABEL, "md-x");
        assert_eq!(role(&machine).as_deref(), Some("md-x"));
        owner::label(&mut machine.metadata, DEPLOYMENT_LABEL, "md");
        assert_eq!(role(&machine).as_deref(), Some("md"));
        owner::label(&mut machine.metadata, POOL_LABEL, "md");
        assert_eq!(role(&machine).as_deref(), Some("pool/md"), "not that of a deployment of that name");
        let other = names::server_group("default-demo-two", "md");
        assert!(!other.starts_with(&names::server_group("default-demo", "")));
    }
}
