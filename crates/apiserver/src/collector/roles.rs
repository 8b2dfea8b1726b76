//! Cluster roles whose rules are the sum of others' (`pkg/controller/clusterroleaggregation`).

use serde_json::{Value, json};

use super::collector_user;
use crate::{
    object,
    rest::modify_internal,
    server::Server,
    status::{Error, Result},
    write::Scope,
};

pub(super) async fn aggregate(server: &Server) -> Result<()> {
    let changed = server.state().access.read().unaggregated();
    let kind = server.catalog().find(crate::access::GROUP, "v1", "clusterroles").ok_or_else(Error::no_such_path)?;
    for (name, rules) in changed {
        let scope = Scope::internal(server, &collector_user(), std::sync::Arc::clone(&kind), "", &name);
        let rules = json!(rules);
        let change = |role: &mut Value| {
            let differs = role.get("rules") != Some(&rules);
            object::set_at(role, &["rules"], rules.clone());
            differs
        };
        match modify_internal(&scope, change).await {
            Err(error) if error.is_not_found() => {}
            other => drop(other?),
        }
    }
    Ok(())
}
