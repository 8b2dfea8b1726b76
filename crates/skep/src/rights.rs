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
/// Who writes what Skep installs.
pub const MANAGER: &str = "skep";

/// Applies the controllers' role and its binding, to their group and to a service account if there is one.
/// `deletion_rules`: of the kinds that they name objects are read, and finalizers of those that they manage written.
pub async fn grant(
    client: &Client,
    account: Option<&ServiceAccount>,
    deletion_rules: &[Rule],
) -> Result<(), kube::Error> {
    let params = PatchParams::apply(MANAGER).force();
    Api::<ClusterRole>::all(client.clone()).patch(CONTROLLERS, &params, &Patch::Apply(role(deletion_rules))).await?;
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

fn role(deletion_rules: &[Rule]) -> ClusterRole {
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        PolicyRule {
            api_groups: Some(owned(groups)),
            resources: Some(owned(resources)),
            verbs: owned(verbs),
            ..PolicyRule::default()
        }
    };
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
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
        rule(&groups, &["*"], &all),
        rule(&[""], &["secrets", "configmaps"], &all),
        rule(&[""], &["events"], &["create", "get", "patch"]),
        rule(&[""], &["namespaces"], &["get", "list", "watch", "create"]),
        rule(&["application.giantswarm.io"], &["*"], &all),
        // Whose rights releases in this cluster have.
        PolicyRule {
            resource_names: Some(vec![PLATFORM_ACCOUNT.to_owned(), TENANT_ACCOUNT.to_owned()]),
            ..rule(&[""], &["serviceaccounts"], &["impersonate"])
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
