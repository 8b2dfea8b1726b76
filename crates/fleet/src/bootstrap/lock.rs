//! The lock that lets one machine at a time initialize a control plane: a ConfigMap, so that it holds over restarts and
//! between several managers.
//!
//! Source: kubernetes-sigs/cluster-api bootstrap/kubeadm/pkg/locking (name, key and value of the ConfigMap).

use api::{cluster::Cluster, machine::Machine, names};
use control::{Error, Key, Result};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
    core::ObjectMeta,
};
use serde::{Deserialize, Serialize};

use crate::owner;

const INFORMATION: &str = "lock-information";

#[derive(Debug, PartialEq, Eq)]
pub enum Lock {
    Taken,
    /// Another machine initializes.
    HeldBy(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Information {
    machine_name: String,
}

/// The ConfigMap that is the lock of a cluster.
pub fn key(cluster: &Key) -> Key {
    Key::new(cluster.namespace.as_str(), format!("{}-lock", cluster.name))
}

/// Takes the lock for `machine`; one whose holder no longer exists is taken over.
pub async fn take(client: &Client, cluster: &Cluster, machine: &str) -> Result<Lock> {
    let key = Key::of(cluster);
    let Key { name, .. } = self::key(&key);
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &key.namespace);
    let failed = |operation, source| Error::api(operation, format!("configmap {}/{name}", key.namespace), source);
    let information = Information { machine_name: machine.to_owned() };
    let information = serde_json::to_string(&information).expect("a string in a struct is JSON");
    let mut map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(key.namespace.clone()),
            labels: Some([(names::CLUSTER_LABEL.to_owned(), key.name.clone())].into()),
            owner_references: Some(vec![owner::reference(cluster, false)]),
            ..ObjectMeta::default()
        },
        data: Some([(INFORMATION.to_owned(), information)].into()),
        ..ConfigMap::default()
    };
    match maps.create(&PostParams::default(), &map).await {
        Ok(_) => return Ok(Lock::Taken),
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        Err(source) => return Err(failed("create", source)),
    }
    let Some(held) = maps.get_opt(&name).await.map_err(|source| failed("get", source))? else {
        return Err(Error::Retry(format!("configmap {}/{name} has just been deleted", key.namespace)));
    };
    let text = held.data.as_ref().and_then(|data| data.get(INFORMATION)).map_or("", String::as_str);
    let holder: Information = serde_json::from_str(text).map_err(|_| {
        Error::blocked(
            "ControlPlaneInitLocked",
            format!(
                "configmap {}/{name} does not say which machine holds it: delete it if no control plane machine runs",
                key.namespace
            ),
        )
    })?;
    let holder = holder.machine_name;
    if holder == machine {
        return Ok(Lock::Taken);
    }
    // Asked of the API, not of a cache: a holder that a cache has not seen yet may be booting.
    let machines = Api::<Machine>::namespaced(client.clone(), &key.namespace);
    let found = machines.get_opt(&holder).await;
    let found = found.map_err(|source| Error::api("get", format!("machine {}/{holder}", key.namespace), source))?;
    if found.is_some() {
        return Ok(Lock::HeldBy(holder));
    }
    // Against the version that was read: of two machines that take over, one wins.
    map.metadata.resource_version = held.metadata.resource_version;
    match maps.replace(&name, &PostParams::default(), &map).await {
        Ok(_) => Ok(Lock::Taken),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Lock::HeldBy(holder)),
        Err(source) => Err(failed("replace", source)),
    }
}

pub async fn release(client: &Client, cluster: &Key) -> Result<()> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &cluster.namespace);
    let Key { name, .. } = key(cluster);
    match maps.delete(&name, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::api("delete", format!("configmap {}/{name}", cluster.namespace), source)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    async fn management_api() -> Client {
        let store = Arc::new(store::Embedded::memory(store::Limits::default()));
        let crds = api::crd::all().iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let server = apiserver::Server::start(store, apiserver::Options { crds, ..Default::default() }).await.unwrap();
        Client::new(server.service_as(apiserver::User::master("test")), "default")
    }

    async fn machine(client: &Client, name: &str) {
        let machine: Machine = serde_json::from_value(json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Machine", "metadata": {"name": name},
            "spec": {
                "clusterName": "demo", "bootstrap": {"dataSecretName": "x"},
                "infrastructureRef": {"apiGroup": "x.example", "kind": "X", "name": "x"},
            },
        }))
        .unwrap();
        Api::<Machine>::namespaced(client.clone(), "default").create(&PostParams::default(), &machine).await.unwrap();
    }

    /// It must exist: what belongs to nobody is collected.
    async fn cluster(client: &Client) -> Cluster {
        let spec = api::cluster::ClusterSpec {
            infrastructure_ref: Some(api::meta::ContractRef {
                api_group: "x.example".into(),
                kind: "X".into(),
                name: "x".into(),
            }),
            ..Default::default()
        };
        let clusters = Api::<Cluster>::namespaced(client.clone(), "default");
        clusters.create(&PostParams::default(), &Cluster::new("demo", spec)).await.unwrap()
    }

    #[tokio::test]
    async fn one_machine_holds_the_lock_and_another_waits_until_it_is_released() {
        let client = management_api().await;
        let cluster = cluster(&client).await;
        for name in ["cp-1", "cp-2"] {
            machine(&client, name).await;
        }
        assert_eq!(take(&client, &cluster, "cp-1").await.unwrap(), Lock::Taken);
        assert_eq!(take(&client, &cluster, "cp-1").await.unwrap(), Lock::Taken, "its holder may come again");
        assert_eq!(take(&client, &cluster, "cp-2").await.unwrap(), Lock::HeldBy("cp-1".into()));
        release(&client, &Key::new("default", "demo")).await.unwrap();
        release(&client, &Key::new("default", "demo")).await.unwrap();
        assert_eq!(take(&client, &cluster, "cp-2").await.unwrap(), Lock::Taken);
    }

    #[tokio::test]
    async fn a_lock_whose_holder_is_gone_is_taken_over_and_goes_with_its_cluster() {
        let client = management_api().await;
        let cluster = cluster(&client).await;
        machine(&client, "cp-2").await;
        assert_eq!(take(&client, &cluster, "cp-1").await.unwrap(), Lock::Taken);
        assert_eq!(take(&client, &cluster, "cp-2").await.unwrap(), Lock::Taken, "cp-1 is no machine");
        let map = Api::<ConfigMap>::namespaced(client.clone(), "default").get("demo-lock").await.unwrap();
        assert_eq!(map.data.unwrap()[INFORMATION], r#"{"machineName":"cp-2"}"#);
        let owner = &map.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.controller), ("Cluster", Some(false)));
        assert_eq!(Some(&owner.uid), cluster.metadata.uid.as_ref());
    }

    #[tokio::test]
    async fn a_lock_that_cannot_be_read_is_nobodys_to_take() {
        let client = management_api().await;
        let cluster = cluster(&client).await;
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let metadata = ObjectMeta { name: Some("demo-lock".into()), ..Default::default() };
        maps.create(&PostParams::default(), &ConfigMap { metadata, ..Default::default() }).await.unwrap();
        let error = take(&client, &cluster, "cp-1").await.unwrap_err();
        assert_eq!(error.class(), control::Class::Blocked);
    }
}
