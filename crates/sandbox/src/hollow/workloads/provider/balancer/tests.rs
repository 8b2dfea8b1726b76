use openstack::load_balancer::Id;
use serde_json::json;

use super::*;

fn port(number: i32, node_port: i32) -> ServicePort {
    ServicePort { port: number, node_port: Some(node_port), ..ServicePort::default() }
}

fn wanted(ports: Vec<ServicePort>, nodes: &[&str]) -> Wanted {
    Wanted {
        name: "kube_service_demo_default_web".into(),
        service: "default/web".into(),
        cluster: "demo".into(),
        internal: false,
        allowed: vec!["10.0.0.0/8".into()],
        ports,
        nodes: nodes.iter().map(|address| (format!("node-{address}"), (*address).to_owned())).collect(),
    }
}

/// What is found after a step that took place at once.
fn apply(found: &mut Found, step: &Step) {
    let ids = |id: &str| vec![Id { id: id.to_owned() }];
    match step {
        Step::MakeBalancer => {
            found.balancer = Some(LoadBalancer {
                id: "lb".into(),
                provisioning_status: "ACTIVE".into(),
                vip_port_id: "port".into(),
                vip_address: "10.6.0.5".into(),
                ..LoadBalancer::default()
            });
        }
        Step::MakeListener(draft) => found.listeners.push(Listener {
            id: draft.name.clone(),
            protocol: draft.protocol.clone(),
            protocol_port: draft.protocol_port.unwrap(),
            ..Listener::default()
        }),
        Step::MakePool(draft) => {
            let listener = draft.listener_id.clone().unwrap();
            let of = found.listeners.iter_mut().find(|one| one.id == listener).unwrap();
            of.default_pool_id = draft.name.clone();
            found.pools.push(Pool { id: draft.name.clone(), listeners: ids(&listener), ..Pool::default() });
        }
        Step::MakeMember(pool, draft) => found.members.entry(pool.clone()).or_default().push(Member {
            id: draft.name.clone(),
            address: draft.address.clone(),
            protocol_port: draft.protocol_port.unwrap(),
            ..Member::default()
        }),
        Step::DeleteMember(pool, id) => found.members.get_mut(pool).unwrap().retain(|member| member.id != *id),
        Step::DeletePool(id) => {
            found.pools.retain(|pool| pool.id != *id);
            found
                .listeners
                .iter_mut()
                .filter(|one| one.default_pool_id == *id)
                .for_each(|one| one.default_pool_id.clear());
        }
        Step::DeleteListener(id) => found.listeners.retain(|listener| listener.id != *id),
        Step::DeleteBroken(_) => *found = Found::default(),
        Step::MakeAddress(_) => {
            found.address = Some(FloatingIp { floating_ip_address: "127.61.0.7".into(), ..FloatingIp::default() });
        }
        Step::Wait | Step::Done(_) => {}
    }
}

/// The steps until nothing is left to do, in short.
fn steps(wanted: &Wanted, found: &mut Found) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let step = next(wanted, found);
        apply(found, &step);
        all.push(match &step {
            Step::MakeListener(draft) => format!("listener {} {}", draft.name, draft.protocol_port.unwrap()),
            Step::MakePool(draft) => format!("pool {}", draft.name),
            Step::MakeMember(_, draft) => format!("member {} {}", draft.address, draft.protocol_port.unwrap()),
            other => format!("{other:?}"),
        });
        if matches!(step, Step::Done(_) | Step::Wait) {
            return all;
        }
    }
}

#[test]
fn all_is_made_in_order_and_follows_ports_and_nodes() {
    let mut found = Found::default();
    let first = steps(&wanted(vec![port(80, 30080)], &["10.6.0.1", "10.6.0.2"]), &mut found);
    assert_eq!(
        first,
        [
            "MakeBalancer",
            "listener listener_0_kube_service_demo_default_web 80",
            "pool pool_0_kube_service_demo_default_web",
            "member 10.6.0.1 30080",
            "member 10.6.0.2 30080",
            "MakeAddress(\"port\")",
            "Done(\"127.61.0.7\")",
        ]
    );
    let again = steps(&wanted(vec![port(80, 30080)], &["10.6.0.1", "10.6.0.2"]), &mut found);
    assert_eq!(again, ["Done(\"127.61.0.7\")"]);
    let moved = steps(&wanted(vec![port(80, 30080)], &["10.6.0.2", "10.6.0.3"]), &mut found);
    assert_eq!(moved[0], "member 10.6.0.3 30080");
    assert!(moved[1].starts_with("DeleteMember") && moved.len() == 3, "{moved:?}");
    let other = steps(&wanted(vec![port(443, 30443)], &["10.6.0.2"]), &mut found);
    assert!(other[0].starts_with("DeletePool") && other[1].starts_with("DeleteListener"), "{other:?}");
    assert_eq!(
        other[2..5],
        [
            "listener listener_0_kube_service_demo_default_web 443",
            "pool pool_0_kube_service_demo_default_web",
            "member 10.6.0.2 30443"
        ]
    );
}

#[test]
fn nothing_is_done_while_the_cloud_is_at_it_and_what_is_broken_is_made_anew() {
    let mut found = Found::default();
    apply(&mut found, &Step::MakeBalancer);
    let state = |found: &mut Found, status: &str| found.balancer.as_mut().unwrap().provisioning_status = status.into();
    for status in ["PENDING_CREATE", "PENDING_UPDATE", "PENDING_DELETE"] {
        state(&mut found, status);
        assert_eq!(next(&wanted(vec![port(80, 30080)], &[]), &found), Step::Wait);
    }
    state(&mut found, "ERROR");
    assert_eq!(next(&wanted(vec![port(80, 30080)], &[]), &found), Step::DeleteBroken("lb".into()));
}

#[test]
fn an_internal_one_has_the_address_inside() {
    let mut inside = wanted(Vec::new(), &[]);
    inside.internal = true;
    assert_eq!(steps(&inside, &mut Found::default()), ["MakeBalancer", "Done(\"10.6.0.5\")"]);
}

#[test]
fn names_are_cut_where_octavia_ends_them() {
    let service = |name: String| -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}})).unwrap()
    };
    assert_eq!(name("demo", &service("web".into())), "kube_service_demo_default_web");
    let prefix = "kube_service_demo_default_".len();
    assert_eq!(name("demo", &service("a".repeat(NAME_BYTES_MAX - prefix))).len(), NAME_BYTES_MAX);
    assert_eq!(name("demo", &service("a".repeat(NAME_BYTES_MAX - prefix + 1))).len(), NAME_BYTES_MAX);
}
