//! What the controllers may do: no more than they use.

use delivery::{PLATFORM_ACCOUNT, TENANT_ACCOUNT};
use fleet::deletion_rules::Rule;
use k8s_openapi::api::{
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::ObjectMeta,
};

/// The group that the controllers belong to, its role, and the binding of the two.
pub const CONTROLLERS: &str = "skep:controllers";
/// Binds the service account that the platform's own apps are installed as.
const PLATFORM_APPS: &str = "skep:platform-apps";
/// What the releases of an organization's apps may do in its namespace; tenancy binds it there, and nowhere else.
pub const ORGANIZATION_APPS: &str = "skep:organization-automation";
/// Who writes what Skep installs.
pub const MANAGER: &str = "skep";

const ALL: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];

/// Applies the controllers' role and its binding, to their group and to a service account if there is one.
/// `deletion_rules`: of the kinds that they name objects are read, and finalizers of those that they manage written.
pub async fn grant(
    client: &Client,
    account: Option<&ServiceAccount>,
    deletion_rules: &[Rule],
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    let roles = Api::<ClusterRole>::all(client.clone());
    // Before those who bind it.
    roles.patch(ORGANIZATION_APPS, &params, &Patch::Apply(organization_apps())).await?;
    roles.patch(CONTROLLERS, &params, &Patch::Apply(role(deletion_rules))).await?;
    let binding = binding(account);
    let bindings = Api::<ClusterRoleBinding>::all(client.clone());
    bindings.patch(CONTROLLERS, &params, &Patch::Apply(binding)).await?;
    bindings.patch(PLATFORM_APPS, &params, &Patch::Apply(platform_apps())).await?;
    Ok(())
}

/// The platform's own apps in this cluster may do all.
fn platform_apps() -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: ObjectMeta { name: Some(PLATFORM_APPS.to_owned()), ..ObjectMeta::default() },
        role_ref: role_ref("cluster-admin"),
        subjects: Some(vec![Subject {
            api_group: Some(String::new()),
            kind: "ServiceAccount".to_owned(),
            name: PLATFORM_ACCOUNT.to_owned(),
            namespace: Some(api::app::PLATFORM_NAMESPACE.to_owned()),
        }]),
    }
}

fn role_ref(name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

fn metadata() -> ObjectMeta {
    ObjectMeta { name: Some(CONTROLLERS.to_owned()), ..ObjectMeta::default() }
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// What the charts `cluster-openstack` and `default-apps-openstack` make, and the Secrets that releases are kept in. Nothing
/// here is of the whole cluster, and nothing gives rights.
fn organization_apps() -> ClusterRole {
    let rules = vec![
        rule(&["cluster.x-k8s.io"], &["clusters", "machinedeployments", "machinehealthchecks"], &ALL),
        rule(&["controlplane.cluster.x-k8s.io"], &["kubeadmcontrolplanes"], &ALL),
        rule(&["bootstrap.cluster.x-k8s.io"], &["kubeadmconfigtemplates"], &ALL),
        rule(&["infrastructure.cluster.x-k8s.io"], &["openstackclusters", "openstackmachinetemplates"], &ALL),
        rule(&["application.giantswarm.io"], &["apps"], &ALL),
        rule(&[""], &["secrets", "configmaps"], &ALL),
        // To find that it is there. Its labels say what it may be given, so they are not for the tenant to write.
        rule(&[""], &["namespaces"], &["get"]),
    ];
    let metadata = ObjectMeta { name: Some(ORGANIZATION_APPS.to_owned()), ..ObjectMeta::default() };
    ClusterRole { metadata, rules: Some(rules), ..ClusterRole::default() }
}

fn role(deletion_rules: &[Rule]) -> ClusterRole {
    let groups = [
        "cluster.x-k8s.io",
        "addons.cluster.x-k8s.io",
        "bootstrap.cluster.x-k8s.io",
        "controlplane.cluster.x-k8s.io",
        "infrastructure.cluster.x-k8s.io",
        "ipam.cluster.x-k8s.io",
        "runtime.cluster.x-k8s.io",
    ];
    let mut rules = vec![
        rule(&groups, &["*"], &ALL),
        rule(&[""], &["secrets", "configmaps"], &ALL),
        rule(&[""], &["events"], &["create", "get", "patch"]),
        rule(&[""], &["namespaces"], &["get", "list", "watch", "create"]),
        rule(&["application.giantswarm.io"], &["*"], &ALL),
        rule(&["release.giantswarm.io"], &["releases"], &["get"]),
        // Whose rights releases in this cluster have.
        PolicyRule {
            resource_names: Some(vec![PLATFORM_ACCOUNT.to_owned(), TENANT_ACCOUNT.to_owned()]),
            ..rule(&[""], &["serviceaccounts"], &["impersonate"])
        },
        // The accounts of organizations, and the one role that they are bound to.
        rule(&[""], &["serviceaccounts"], &["get", "list", "watch", "create"]),
        rule(&["rbac.authorization.k8s.io"], &["rolebindings"], &["get", "list", "watch", "create"]),
        PolicyRule {
            resource_names: Some(vec![ORGANIZATION_APPS.to_owned()]),
            ..rule(&["rbac.authorization.k8s.io"], &["clusterroles"], &["bind"])
        },
        // Who asks for metrics, and whether they may.
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        rule(&["authorization.k8s.io"], &["subjectaccessreviews"], &["create"]),
        // Whom apps may wait for.
        rule(&["helm.toolkit.fluxcd.io"], &["helmreleases"], &["list"]),
        // Where extensions are.
        rule(&[""], &["services"], &["get"]),
        rule(&["openstack.k-orc.cloud"], &["images", "images/status"], &["get", "list", "watch", "update", "patch"]),
        // Whose controller it is that keeps images.
        PolicyRule {
            resource_names: Some(vec![fleet::openstack::IMAGES_CRD.to_owned()]),
            ..rule(&["apiextensions.k8s.io"], &["customresourcedefinitions"], &["get"])
        },
    ];
    for named in deletion_rules {
        let reads = ["get", "list", "watch"];
        rules.push(rule(&[&named.dependent.group], &[&named.dependent.resource], &reads));
        rules.push(rule(&[&named.managed.group], &[&named.managed.resource], &["get", "list", "watch", "patch"]));
        let finalizers = format!("{}/finalizers", named.managed.resource);
        rules.push(rule(&[&named.managed.group], &[&finalizers], &["update"]));
    }
    ClusterRole { metadata: metadata(), rules: Some(rules), ..ClusterRole::default() }
}

fn binding(account: Option<&ServiceAccount>) -> ClusterRoleBinding {
    let group = Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "Group".to_owned(),
        name: CONTROLLERS.to_owned(),
        namespace: None,
    };
    let account = account.map(|account| Subject {
        api_group: Some(String::new()),
        kind: "ServiceAccount".to_owned(),
        name: account.metadata.name.clone().unwrap_or_default(),
        namespace: account.metadata.namespace.clone(),
    });
    ClusterRoleBinding {
        metadata: metadata(),
        role_ref: role_ref(CONTROLLERS),
        subjects: Some(std::iter::once(group).chain(account).collect()),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use apiserver::{Options as ServerOptions, Server, User};
    use k8s_openapi::api::{core::v1::Namespace, rbac::v1::RoleBinding};
    use kube::api::{DynamicObject, PostParams};
    use serde_json::{Value, json};
    use store::{Embedded, Limits};
    use tenancy::{Automation, Installation};

    use super::*;

    async fn bound(client: &Client, namespace: &str) {
        let bindings = Api::<RoleBinding>::namespaced(client.clone(), namespace);
        let accounts = Api::<ServiceAccount>::namespaced(client.clone(), namespace);
        for _ in 0..600 {
            if bindings.get_opt(ORGANIZATION_APPS).await.unwrap().is_some() {
                assert!(accounts.get_opt(TENANT_ACCOUNT).await.unwrap().is_some());
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        panic!("never: the account of {namespace} has its rights");
    }

    async fn namespace(client: &Client, name: &str) {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    }

    /// The code of the answer to a request to make it; it is not kept.
    async fn made(client: &Client, namespace: &str, plural: &str, object: Value) -> u16 {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let version = object.types.as_ref().unwrap().api_version.clone();
        let root = if version.contains('/') { "apis" } else { "api" };
        let path = format!("/{root}/{version}/namespaces/{namespace}/{plural}");
        let params = PostParams { dry_run: true, ..PostParams::default() };
        let request = kube::core::Request::new(path).create(&params, serde_json::to_vec(&object).unwrap()).unwrap();
        match client.request::<Value>(request).await {
            Ok(_) => 201,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_organizations_releases_have_rights_in_its_namespace_and_in_no_other() {
        let crds = api::crd::all().into_iter().map(|crd| serde_json::to_value(crd).unwrap()).collect();
        let options = ServerOptions { crds, ..ServerOptions::default() };
        let server = Server::start(Arc::new(Embedded::memory(Limits::default())), options).await.unwrap();
        let admin = Client::new(server.service_as(User::master("test")), "default");
        grant(&admin, None, &[]).await.unwrap();
        let tenancy = tenancy::start(tenancy::Options {
            client: Client::new(server.service_as(User::new("system:skep:controllers", [CONTROLLERS])), "default"),
            clock: control::Clock::system(),
            installation: Installation { base_domain: "test".to_owned(), registry_domain: "test".to_owned() },
            automation: Automation { account: TENANT_ACCOUNT.to_owned(), role: ORGANIZATION_APPS.to_owned() },
            figures: control::Figures::default(),
            concurrency: 2,
            longest: Default::default(),
        });
        for name in ["org-acme", "plain", "org-other"] {
            namespace(&admin, name).await;
        }
        bound(&admin, "org-acme").await;
        bound(&admin, "org-other").await;
        let plain = Api::<RoleBinding>::namespaced(admin.clone(), "plain").get_opt(ORGANIZATION_APPS).await.unwrap();
        assert!(plain.is_none(), "it is no organization's");
        let user = format!("system:serviceaccount:org-acme:{TENANT_ACCOUNT}");
        let groups = ["system:serviceaccounts", "system:serviceaccounts:org-acme", "system:authenticated"];
        let automation = Client::new(server.service_as(User::new(&*user, groups)), "org-acme");
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}});
        let cluster = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "w1"},
            "spec": {"controlPlaneEndpoint": {"host": "192.0.2.1", "port": 6443}},
        });
        let role_ref =
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ORGANIZATION_APPS});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "b"}, "roleRef": role_ref,
        });
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": []}});
        for (namespace, plural, object, code) in [
            ("org-acme", "configmaps", &map, 201),
            ("org-acme", "clusters", &cluster, 201),
            ("org-other", "configmaps", &map, 403),
            ("org-other", "clusters", &cluster, 403),
            ("plain", "configmaps", &map, 403),
            ("org-acme", "rolebindings", &binding, 403),
            ("org-acme", "pods", &pod, 403),
        ] {
            assert_eq!(made(&automation, namespace, plural, object.clone()).await, code, "{plural} in {namespace}");
        }
        let namespaces = Api::<Namespace>::all(automation);
        assert!(namespaces.get("org-acme").await.is_ok());
        assert!(namespaces.get("org-other").await.is_err() && namespaces.list(&Default::default()).await.is_err());
        let labels = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
        assert!(namespaces.patch("org-acme", &PatchParams::default(), &labels).await.is_err(), "labels give rights");
        tenancy.shutdown().await;
    }
}
