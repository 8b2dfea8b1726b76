//! Security groups: the rules that a cluster needs, as data, and the difference to what is there.

use api::openstack_cluster::{
    EtherType, ManagedGroup, ManagedSecurityGroups, NamedResource, OpenStackClusterSpec, OpenStackClusterStatus,
    RuleDirection, SecurityGroupRule as WantedRule,
};
use http::Method;
use ipnet::IpNet;
use openstack::{
    Query, Resource, Service,
    network::{Port, SecurityGroup, SecurityGroupDraft, SecurityGroupRule, SecurityGroupRuleDraft},
};
use serde_json::json;

use super::{
    endpoint, names,
    scope::Scope,
    stop::{Result, blocked},
};

/// Ids of a cluster's groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    pub control_plane: String,
    pub worker: String,
    /// Empty if there is no bastion.
    pub bastion: String,
}

/// One rule, in the form in which two rules that do the same are equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub ingress: bool,
    pub six: bool,
    pub protocol: Option<String>,
    /// First and last; of ICMP, type and code.
    pub ports: (Option<u16>, Option<u16>),
    pub remote_group: Option<String>,
    pub remote_prefix: Option<String>,
    /// Not part of what the rule does.
    pub description: String,
}

impl Rule {
    fn same(&self, other: &Self) -> bool {
        let plain = |r: &Self| Self { description: String::new(), ..r.clone() };
        plain(self) == plain(other)
    }

    fn of(rule: &SecurityGroupRule) -> Self {
        Self {
            ingress: rule.direction == "ingress",
            six: rule.ethertype.eq_ignore_ascii_case("ipv6"),
            protocol: rule.protocol.as_deref().map(protocol),
            ports: (rule.port_range_min, rule.port_range_max),
            remote_group: rule.remote_group_id.clone().filter(|g| !g.is_empty()),
            remote_prefix: rule.remote_ip_prefix.as_deref().and_then(prefix),
            description: rule.description.clone(),
        }
    }
}

/// Neutron shows some protocols by name that were given by number, and the other way round.
fn protocol(text: &str) -> String {
    let name = match text {
        "1" => "icmp",
        "4" => "ipip",
        "6" => "tcp",
        "17" => "udp",
        "47" => "gre",
        "50" => "esp",
        "51" => "ah",
        "58" | "icmpv6" => "ipv6-icmp",
        "112" => "vrrp",
        "132" => "sctp",
        other => other,
    };
    name.to_ascii_lowercase()
}

/// "Anywhere" as a prefix is the same as none.
fn prefix(text: &str) -> Option<String> {
    match text.parse::<IpNet>() {
        Ok(net) if net.prefix_len() == 0 => None,
        Ok(net) => Some(net.trunc().to_string()),
        Err(_) => Some(text.to_owned()),
    }
}

/// What the rules depend on.
pub struct Needs<'a> {
    pub managed: &'a ManagedSecurityGroups,
    pub groups: &'a Groups,
    /// The API's port and the load balancer's further ones.
    pub api_ports: Vec<u16>,
    pub subnets: Vec<IpNet>,
}

/// The rules of the three groups: control plane, worker, bastion.
pub fn wanted(needs: &Needs<'_>) -> [Vec<Rule>; 3] {
    let six = needs.subnets.iter().any(|n| matches!(n, IpNet::V6(_)));
    let four = needs.subnets.iter().any(|n| matches!(n, IpNet::V4(_))) || !six;
    let families: Vec<bool> =
        [(four, false), (six, true)].into_iter().filter(|(has, _)| *has).map(|(_, six)| six).collect();
    let groups = needs.groups;
    let tcp = |ports: (u16, u16), group: Option<&str>, text: &str| {
        families.iter().map(|six| ingress(*six, Some("tcp"), Some(ports), group, text)).collect::<Vec<_>>()
    };
    let (cp, worker) = (Some(groups.control_plane.as_str()), Some(groups.worker.as_str()));
    let mut control = egress();
    let mut workers = egress();
    for port in &needs.api_ports {
        control.extend(tcp((*port, *port), None, "Kubernetes API"));
    }
    control.extend(tcp((2379, 2380), cp, "etcd"));
    for (from, text) in [(cp, "kubelet API"), (worker, "kubelet API")] {
        control.extend(tcp((10250, 10250), from, text));
        workers.extend(tcp((10250, 10250), from, text));
    }
    for net in &needs.subnets {
        for proto in ["tcp", "udp"] {
            let mut rule = ingress(matches!(net, IpNet::V6(_)), Some(proto), Some((30000, 32767)), None, "node ports");
            rule.remote_prefix = Some(net.trunc().to_string());
            workers.push(rule);
        }
    }
    for six in &families {
        for proto in ["tcp", "udp"] {
            workers
                .extend([cp, worker].map(|from| ingress(*six, Some(proto), Some((30000, 32767)), from, "node ports")));
        }
    }
    if needs.managed.allow_all_in_cluster_traffic == Some(true) {
        for list in [&mut control, &mut workers] {
            for six in &families {
                list.extend([cp, worker].map(|from| ingress(*six, None, None, from, "all traffic in the cluster")));
            }
        }
    }
    let mut bastion = Vec::new();
    if !groups.bastion.is_empty() {
        let from = Some(groups.bastion.as_str());
        control.extend(tcp((22, 22), from, "SSH from the bastion"));
        workers.extend(tcp((22, 22), from, "SSH from the bastion"));
        bastion = egress();
        bastion.extend(tcp((22, 22), None, "SSH"));
    }
    let managed = needs.managed;
    for rule in &managed.cluster_nodes_security_group_rules {
        control.extend(expand(rule, groups));
        workers.extend(expand(rule, groups));
    }
    control.extend(managed.control_plane_nodes_security_group_rules.iter().flat_map(|r| expand(r, groups)));
    workers.extend(managed.worker_nodes_security_group_rules.iter().flat_map(|r| expand(r, groups)));
    [control, workers, bastion].map(unique)
}

fn unique(rules: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::with_capacity(rules.len());
    for rule in rules {
        if !out.iter().any(|r| r.same(&rule)) {
            out.push(rule);
        }
    }
    out
}

/// Everything may go out; Neutron gives each new group these two.
fn egress() -> Vec<Rule> {
    [false, true].map(|six| Rule { ingress: false, ..ingress(six, None, None, None, "") }).into()
}

fn ingress(six: bool, proto: Option<&str>, ports: Option<(u16, u16)>, group: Option<&str>, text: &str) -> Rule {
    Rule {
        ingress: true,
        six,
        protocol: proto.map(protocol),
        ports: (ports.map(|p| p.0), ports.map(|p| p.1)),
        remote_group: group.map(str::to_owned),
        remote_prefix: None,
        description: text.to_owned(),
    }
}

/// A rule of the spec: one for each managed group that it names.
fn expand(rule: &WantedRule, groups: &Groups) -> Vec<Rule> {
    let port = |p: Option<i32>| p.and_then(|p| u16::try_from(p).ok());
    let base = Rule {
        ingress: rule.direction == RuleDirection::Ingress,
        six: rule.ether_type == Some(EtherType::IPv6),
        protocol: rule.protocol.as_deref().map(protocol),
        ports: (port(rule.port_range_min), port(rule.port_range_max)),
        remote_group: rule.remote_group_id.clone(),
        remote_prefix: rule.remote_ip_prefix.as_deref().and_then(prefix),
        description: rule.description.clone().unwrap_or_default(),
    };
    if rule.remote_managed_groups.is_empty() {
        return vec![base];
    }
    let id = |group: &ManagedGroup| match group {
        ManagedGroup::Controlplane => groups.control_plane.clone(),
        ManagedGroup::Worker => groups.worker.clone(),
        ManagedGroup::Bastion => groups.bastion.clone(),
    };
    let ids = rule.remote_managed_groups.iter().map(id).filter(|id| !id.is_empty());
    ids.map(|id| Rule { remote_group: Some(id), ..base.clone() }).collect()
}

/// Brings groups and rules in line with the spec.
pub async fn ensure(scope: &Scope, spec: &OpenStackClusterSpec, status: &mut OpenStackClusterStatus) -> Result<()> {
    let Some(managed) = &spec.managed_security_groups else { return Ok(()) };
    let with_bastion = spec.bastion.as_ref().is_some_and(|b| b.enabled != Some(false));
    let control_plane = group(scope, "controlplane").await?;
    status.control_plane_security_group = Some(named(&control_plane));
    let worker = group(scope, "worker").await?;
    status.worker_security_group = Some(named(&worker));
    let bastion = if with_bastion { Some(group(scope, "bastion").await?) } else { None };
    status.bastion_security_group = bastion.as_ref().map(named).or(status.bastion_security_group.take());
    let groups = Groups {
        control_plane: control_plane.id.clone(),
        worker: worker.id.clone(),
        bastion: bastion.as_ref().map(|b| b.id.clone()).unwrap_or_default(),
    };
    let subnets = status.network.iter().flat_map(|n| &n.subnets).filter_map(|s| s.cidr.parse().ok()).collect();
    let needs = Needs { managed, groups: &groups, api_ports: endpoint::ports(spec), subnets };
    let [control_rules, worker_rules, bastion_rules] = wanted(&needs);
    align(scope, &control_plane, control_rules).await?;
    align(scope, &worker, worker_rules).await?;
    if let Some(bastion) = &bastion {
        align(scope, bastion, bastion_rules).await?;
    }
    Ok(())
}

fn named(group: &SecurityGroup) -> NamedResource {
    NamedResource { id: group.id.clone(), name: group.name.clone() }
}

async fn group(scope: &Scope, role: &str) -> Result<SecurityGroup> {
    let name = names::security_group(&scope.resource, role);
    let found = scope.own::<SecurityGroup>(&name, Query::new()).await?;
    let group = match found {
        Some(group) => group,
        None => scope.cloud.create(&SecurityGroupDraft { name, description: scope.description() }).await?,
    };
    scope.tag::<SecurityGroup>(&group.id, &group.tags, &[]).await?;
    Ok(group)
}

/// Rules to add, and ids of rules to take away.
pub fn difference(have: &[SecurityGroupRule], want: &[Rule]) -> (Vec<Rule>, Vec<String>) {
    let known: Vec<(Rule, &str)> = have.iter().map(|r| (Rule::of(r), r.id.as_str())).collect();
    let add = want.iter().filter(|w| !known.iter().any(|(h, _)| h.same(w))).cloned().collect();
    let surplus = known.iter().filter(|(h, _)| !want.iter().any(|w| w.same(h)));
    (add, surplus.map(|(_, id)| (*id).to_owned()).collect())
}

async fn align(scope: &Scope, group: &SecurityGroup, want: Vec<Rule>) -> Result<()> {
    let (add, surplus) = difference(&group.security_group_rules, &want);
    let drafts: Vec<SecurityGroupRuleDraft> = add.into_iter().map(|rule| draft(&group.id, rule)).collect();
    if !drafts.is_empty() {
        // All in one request; one by one only where the cloud knows one of them already by another name.
        let body = json!({ "security_group_rules": drafts });
        let path = SecurityGroupRule::PATH;
        match scope.cloud.raw(Service::Network, Method::POST, path, &Query::new(), Some(&body)).await {
            Err(error) if is_twin(&error) => one_by_one(scope, &drafts).await?,
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
    }
    for id in surplus {
        scope.cloud.remove::<SecurityGroupRule>(&id).await?;
    }
    Ok(())
}

fn draft(group: &str, rule: Rule) -> SecurityGroupRuleDraft {
    SecurityGroupRuleDraft {
        security_group_id: group.to_owned(),
        description: rule.description,
        direction: if rule.ingress { "ingress" } else { "egress" }.to_owned(),
        ethertype: if rule.six { "IPv6" } else { "IPv4" }.to_owned(),
        protocol: rule.protocol,
        port_range_min: rule.ports.0,
        port_range_max: rule.ports.1,
        remote_group_id: rule.remote_group,
        remote_ip_prefix: rule.remote_prefix,
    }
}

fn is_twin(error: &openstack::Error) -> bool {
    error.is_conflict() && error.message().contains("already exists")
}

async fn one_by_one(scope: &Scope, drafts: &[SecurityGroupRuleDraft]) -> Result<()> {
    for draft in drafts {
        match scope.cloud.create::<SecurityGroupRule>(draft).await {
            Err(error) if !is_twin(&error) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

pub async fn delete(scope: &Scope) -> Result<()> {
    for role in ["bastion", "worker", "controlplane"] {
        remove(scope, role).await?;
    }
    Ok(())
}

/// Takes one group away that no rule of another names any more, if it is there.
pub async fn remove(scope: &Scope, role: &str) -> Result<()> {
    let name = names::security_group(&scope.resource, role);
    let Some(group) = scope.own::<SecurityGroup>(&name, Query::new()).await? else { return Ok(()) };
    match scope.cloud.remove::<SecurityGroup>(&group.id).await {
        Err(error) if error.is_conflict() => {
            let ports = scope.cloud.list::<Port>(&Query::new().with("security_groups", &group.id)).await?;
            let ids: Vec<&str> = ports.iter().take(5).map(|p| p.id.as_str()).collect();
            blocked("DependencyFailed", format!("security group {name} is in use by the ports {}", ids.join(", ")))
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs<'a>(managed: &'a ManagedSecurityGroups, groups: &'a Groups, subnets: &[&str]) -> Needs<'a> {
        Needs { managed, groups, api_ports: vec![8443], subnets: subnets.iter().map(|s| s.parse().unwrap()).collect() }
    }

    fn groups() -> Groups {
        Groups { control_plane: "cp".into(), worker: "w".into(), bastion: String::new() }
    }

    #[test]
    fn the_api_is_open_at_its_own_port_and_in_the_families_of_the_subnets() {
        let (managed, groups) = (ManagedSecurityGroups::default(), groups());
        let [control, workers, bastion] = wanted(&needs(&managed, &groups, &["10.6.0.0/24", "fd00::/64"]));
        let api: Vec<bool> = control.iter().filter(|r| r.ports == (Some(8443), Some(8443))).map(|r| r.six).collect();
        assert_eq!(api, [false, true]);
        assert!(!control.iter().any(|r| r.ports == (Some(6443), Some(6443))));
        let ports = workers.iter().filter(|r| r.remote_prefix.as_deref() == Some("fd00::/64") && r.six);
        assert_eq!(ports.count(), 2);
        assert!(bastion.is_empty());
        let [four, ..] = wanted(&needs(&managed, &groups, &["10.6.0.0/24"]));
        assert!(!four.iter().any(|r| r.six && r.ingress));
    }

    #[test]
    fn a_rule_of_the_spec_becomes_one_for_each_group_it_names() {
        let rule = WantedRule {
            name: "IP-in-IP".into(),
            protocol: Some("4".into()),
            remote_managed_groups: vec![ManagedGroup::Controlplane, ManagedGroup::Worker, ManagedGroup::Bastion],
            ..Default::default()
        };
        let managed = ManagedSecurityGroups { cluster_nodes_security_group_rules: vec![rule], ..Default::default() };
        let groups = groups();
        let [_, workers, _] = wanted(&needs(&managed, &groups, &["10.6.0.0/24"]));
        let remotes: Vec<_> = workers
            .iter()
            .filter(|r| r.protocol.as_deref() == Some("ipip"))
            .map(|r| r.remote_group.clone().unwrap())
            .collect();
        assert_eq!(remotes, ["cp", "w"], "there is no bastion");
    }

    #[test]
    fn one_end_of_a_range_is_carried_as_it_is() {
        let echo = WantedRule { protocol: Some("icmp".into()), port_range_min: Some(8), ..Default::default() };
        let [rule] = expand(&echo, &groups()).try_into().unwrap();
        let sent = draft("g", rule);
        assert_eq!((sent.port_range_min, sent.port_range_max), (Some(8), None));
    }

    #[test]
    fn what_is_there_already_is_neither_added_nor_removed() {
        let (managed, groups) = (ManagedSecurityGroups::default(), groups());
        let [control, ..] = wanted(&needs(&managed, &groups, &["10.6.0.0/24"]));
        let there = |r: &Rule| SecurityGroupRule {
            id: "x".into(),
            direction: if r.ingress { "ingress" } else { "egress" }.into(),
            ethertype: if r.six { "IPv6" } else { "IPv4" }.into(),
            protocol: r.protocol.as_deref().map(|p| if p == "tcp" { "6" } else { p }.to_owned()),
            port_range_min: r.ports.0,
            port_range_max: r.ports.1,
            remote_group_id: r.remote_group.clone(),
            remote_ip_prefix: r
                .remote_prefix
                .clone()
                .or((r.ports == (Some(8443), Some(8443))).then(|| "0.0.0.0/0".into())),
            ..Default::default()
        };
        let mut have: Vec<SecurityGroupRule> = control.iter().map(there).collect();
        assert_eq!(difference(&have, &control), (vec![], vec![]));
        let missing = have.remove(2);
        have.push(SecurityGroupRule {
            id: "stray".into(),
            port_range_min: Some(23),
            port_range_max: Some(23),
            ..missing
        });
        let (add, surplus) = difference(&have, &control);
        assert_eq!((add.len(), surplus), (1, vec!["stray".to_owned()]));
    }
}
