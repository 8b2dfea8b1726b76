//! What is the same in every sandbox: the domain, the roles, the region, services and endpoints.

use serde_json::{Value, json};

use super::{DOMAIN, ROLES, list_reply};
use crate::cloud::{
    fault::{Fault, Result},
    http::{Caller, Reply, Service},
    state::State,
};

pub fn fixed(state: &State, caller: &Caller, rest: &[&str]) -> Result<Reply> {
    let domain = json!({"id": DOMAIN, "name": "Default", "enabled": true, "description": "The default domain", "options": {}, "tags": [], "links": {}});
    let region = json!({"id": state.options.region, "description": "", "parent_region_id": null, "links": {}});
    let role = |(id, name): &(&str, &str)| json!({"id": id, "name": name, "domain_id": null, "description": null, "options": {}, "links": {}});
    let service = |s: &Service| json!({"id": service_id(*s), "type": service_type(*s), "name": service_name(*s), "enabled": true, "description": "", "links": {}});
    match rest {
        ["domains"] => Ok(list_reply("domains", &[domain])),
        ["domains", DOMAIN] => Ok(Reply::ok(json!({ "domain": domain }))),
        ["regions"] => Ok(list_reply("regions", &[region])),
        ["regions", id] if *id == state.options.region => Ok(Reply::ok(json!({ "region": region }))),
        ["roles"] => Ok(list_reply("roles", &ROLES.iter().map(role).collect::<Vec<_>>())),
        ["roles", id] => match ROLES.iter().find(|(i, _)| i == id) {
            Some(found) => Ok(Reply::ok(json!({"role": role(found)}))),
            None => Err(Fault::not_found("", format!("Could not find role: {id}."))),
        },
        ["services" | "endpoints", ..] if !caller.admin => {
            Err(Fault::forbidden("You are not authorized to perform the requested action: identity:list_services."))
        }
        ["services"] => Ok(list_reply("services", &Service::ALL.iter().map(service).collect::<Vec<_>>())),
        ["services", id] => match Service::ALL.iter().find(|s| service_id(**s) == *id) {
            Some(found) => Ok(Reply::ok(json!({"service": service(found)}))),
            None => Err(Fault::not_found("", format!("Could not find service: {id}."))),
        },
        ["endpoints"] => {
            let endpoints: Vec<Value> = Service::ALL
                .iter()
                .flat_map(|s| {
                    let mut list = endpoints(state, *s);
                    list.iter_mut().for_each(|e| e["service_id"] = json!(service_id(*s)));
                    list
                })
                .collect();
            Ok(list_reply("endpoints", &endpoints))
        }
        _ => Err(Fault::no_route()),
    }
}

pub fn stable_id(text: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, text.as_bytes()).simple().to_string()
}

fn service_id(service: Service) -> String {
    stable_id(service.prefix())
}

fn service_type(service: Service) -> &'static str {
    match service {
        Service::BlockStorage => "volumev3",
        other => other.prefix(),
    }
}

fn service_name(service: Service) -> &'static str {
    match service {
        Service::Identity => "keystone",
        Service::Image => "glance",
        Service::Compute => "nova",
        Service::Network => "neutron",
        Service::LoadBalancer => "octavia",
        Service::BlockStorage => "cinderv3",
    }
}

fn endpoints(state: &State, service: Service) -> Vec<Value> {
    // As real clouds publish them: some with a version, some without.
    let suffix = match service {
        Service::Identity | Service::Image | Service::Network | Service::LoadBalancer => "",
        Service::Compute => "/v2.1",
        Service::BlockStorage => "/v3",
    };
    let url = format!("{}/{}{suffix}", state.options.public_url, service.prefix());
    let region = &state.options.region;
    ["public", "internal", "admin"]
        .iter()
        .map(|interface| {
            let id = stable_id(&format!("{}/{interface}", service.prefix()));
            json!({"id": id, "interface": interface, "region": region, "region_id": region, "url": url, "enabled": true, "links": {}})
        })
        .collect()
}

pub fn catalog(state: &State) -> Value {
    let entry = |s: &Service| json!({"id": service_id(*s), "type": service_type(*s), "name": service_name(*s), "endpoints": endpoints(state, *s)});
    Service::ALL.iter().map(entry).collect()
}
