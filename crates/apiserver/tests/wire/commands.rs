use apiserver::Profile;

use crate::support::cluster;

const WIDGETS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets, shortNames: [wd], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Color, type: string, jsonPath: .spec.color, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 0, description: How large it is.}
              color: {type: string, default: red}
          status: {type: object, properties: {size: {type: integer}}}
";

const WIDGET: &str = "{apiVersion: example.com/v1, kind: Widget, metadata: {name: w}, spec: {size: 2}}";

const MAP: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {k: before}}";

#[tokio::test(flavor = "multi_thread")]
async fn built_in_kinds_are_made_changed_and_deleted() {
    let Some(cluster) = cluster(Profile::Workload).await else { return };
    assert_eq!(cluster.ok("create namespace demo").await, "namespace/demo created");
    assert!(cluster.fails("create namespace demo").await.contains("(AlreadyExists)"));
    assert_eq!(cluster.apply(MAP, "").await.out, "configmap/m created");
    assert_eq!(cluster.apply(MAP, "").await.out, "configmap/m unchanged");
    assert_eq!(cluster.apply(&MAP.replace("k:", "l: x, k:"), "").await.out, "configmap/m configured");
    assert_eq!(cluster.ok("edit configmap m").await, "configmap/m edited");
    assert_eq!(cluster.ok("get cm m -o jsonpath={.data}").await, r#"{"k":"after","l":"x"}"#);
    assert_eq!(cluster.ok(r#"patch cm m -p {"data":{"l":null}}"#).await, "configmap/m patched");
    assert_eq!(cluster.ok("label cm m a=b").await, "configmap/m labeled");
    assert_eq!(cluster.ok("annotate cm m a=b").await, "configmap/m annotated");
    assert_eq!(cluster.ok("get cm -l a=b -o name").await, "configmap/m");
    assert!(cluster.ok("describe cm m").await.contains("after"));
    assert_eq!(cluster.ok("create deployment web --image=nginx --replicas=2").await, "deployment.apps/web created");
    assert_eq!(cluster.ok("scale deployment web --replicas=3").await, "deployment.apps/web scaled");
    assert_eq!(cluster.ok("set image deployment/web nginx=nginx:2").await, "deployment.apps/web image updated");
    let table = cluster.ok("get deployments -o wide").await;
    assert!(table.starts_with("NAME") && table.contains("0/3") && table.contains("nginx:2"), "{table}");
    assert_eq!(cluster.ok("run p --image=nginx").await, "pod/p created");
    assert!(cluster.ok("get pods").await.contains("Pending"));
    assert!(cluster.ok("get all").await.contains("deployment.apps/web"));
    assert_eq!(cluster.ok("delete pod p").await, "pod \"p\" deleted");
    assert_eq!(cluster.ok("delete cm m --cascade=foreground").await, "configmap \"m\" deleted");
    assert_eq!(cluster.ok("delete namespace demo").await, "namespace \"demo\" deleted");
    assert!(cluster.fails("delete namespace default").await.contains("this namespace may not be deleted"));
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_of_crds_are_like_any_other() {
    let Some(cluster) = cluster(Profile::Management).await else { return };
    assert_eq!(
        cluster.apply(WIDGETS, "").await.out,
        "customresourcedefinition.apiextensions.k8s.io/widgets.example.com created"
    );
    cluster.ok("wait --for=condition=Established --timeout=10s crd/widgets.example.com").await;
    assert!(
        cluster
            .ok("api-resources --api-group=example.com")
            .await
            .contains("widgets   wd           example.com/v1   true         Widget")
    );
    assert!(cluster.ok("api-versions").await.contains("example.com/v1"));
    let explained = cluster.ok("explain widget.spec.size").await;
    assert!(explained.contains("How large it is.") && explained.contains("FIELD: size <integer>"), "{explained}");
    assert_eq!(cluster.apply(WIDGET, "").await.out, "widget.example.com/w created");
    assert_eq!(cluster.apply(WIDGET, "").await.out, "widget.example.com/w unchanged");
    let table = cluster.ok("get wd -o wide").await;
    let words: Vec<&str> = table.split_whitespace().collect();
    assert_eq!(words, ["NAME", "SIZE", "COLOR", "w", "2", "red"]);
    let unknown = cluster.apply(&WIDGET.replace("size: 2", "size: 2, bogus: 1"), "").await;
    assert!(unknown.err.contains("strict decoding error: unknown field \"spec.bogus\""), "{}", unknown.err);
    let wrong = cluster.apply(&WIDGET.replace("size: 2", "size: two"), "").await;
    assert!(
        wrong
            .err
            .contains("spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""),
        "{}",
        wrong.err
    );
    let low = cluster.apply(&WIDGET.replace("size: 2", "size: -1"), "").await;
    assert!(low.err.contains("spec.size in body should be greater than or equal to 0"), "{}", low.err);
    assert_eq!(cluster.ok("scale wd w --replicas=4").await, "widget.example.com/w scaled");
    let patch = r#"patch wd w --type=json -p [{"op":"replace","path":"/spec/color","value":"blue"}]"#;
    assert_eq!(cluster.ok(patch).await, "widget.example.com/w patched");
    assert_eq!(cluster.ok("get wd w -o jsonpath={.spec}").await, r#"{"color":"blue","size":4}"#);
    cluster.ok(r#"patch wd w --subresource=status --type=merge -p {"status":{"size":4}}"#).await;
    cluster.ok("wait --for=jsonpath={.status.size}=4 --timeout=10s wd/w").await;
    assert!(cluster.ok("describe wd w").await.contains("Size:   4"));
    assert_eq!(cluster.ok("delete wd --all").await, "widget.example.com \"w\" deleted");
    cluster.ok("delete crd widgets.example.com").await;
    cluster.fails("get wd").await;
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_side_apply_tells_of_conflicts_and_takes_over_by_force() {
    let Some(cluster) = cluster(Profile::Management).await else { return };
    let one = cluster.apply(MAP, "--server-side --field-manager=one").await;
    assert_eq!(one.out, "configmap/m serverside-applied");
    let other = MAP.replace("before", "other");
    let two = cluster.apply(&other, "--server-side --field-manager=two").await;
    assert!(two.err.contains("Apply failed with 1 conflict: conflict with \"one\": .data.k"), "{}", two.err);
    let forced = cluster.apply(&other, "--server-side --field-manager=two --force-conflicts").await;
    assert_eq!(forced.out, "configmap/m serverside-applied");
    let managers = cluster.ok("get cm m --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}").await;
    assert_eq!(managers, "two");
    let dry = cluster.apply(MAP, "--server-side --force-conflicts --dry-run=server").await;
    assert_eq!(dry.out, "configmap/m serverside-applied (server dry run)");
    assert_eq!(cluster.ok("get cm m -o jsonpath={.data.k}").await, "other");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_one_is_and_what_one_may_do() {
    let Some(cluster) = cluster(Profile::Management).await else { return };
    assert!(cluster.ok("auth whoami").await.contains("system:masters"));
    assert_eq!(cluster.ok("auth can-i delete namespaces").await, "yes");
    cluster.user("jane", &["dev"]);
    let jane = async |command: &str| cluster.run("jane", &command.split_whitespace().collect::<Vec<_>>(), "").await;
    let refused = jane("get configmaps").await.err;
    assert_eq!(
        refused,
        "Error from server (Forbidden): configmaps is forbidden: User \"jane\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"default\""
    );
    assert_eq!(jane("auth can-i list configmaps").await.out, "no");
    cluster.ok("create rolebinding dev --clusterrole=edit --group=dev").await;
    assert_eq!(jane("create configmap m --from-literal=a=b").await.out, "configmap/m created");
    assert!(!jane("get configmaps -A").await.ok);
    assert!(jane("auth can-i --list").await.out.contains("configmaps"));
    assert_eq!(cluster.ok("auth can-i list secrets --as jane --as-group dev").await, "yes");
    assert!(jane("get configmaps --as admin").await.err.contains("cannot impersonate resource \"users\""));
    cluster.ok("create serviceaccount bot").await;
    cluster.token("bot", &cluster.ok("create token bot").await);
    let bot = cluster.run("bot", &["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"], "").await;
    assert_eq!(bot.out, "system:serviceaccount:default:bot", "{}", bot.err);
    cluster.token("nobody", "nonsense");
    let nobody = cluster.run("nobody", &["get", "ns"], "").await;
    assert_eq!(nobody.err, "error: You must be logged in to the server (Unauthorized)");
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_prints_each_change() {
    let Some(cluster) = cluster(Profile::Management).await else { return };
    let config = cluster.folder().join("admin");
    let mut child = tokio::process::Command::new("kubectl")
        .args(["get", "configmaps", "-w", "--no-headers", "--output-watch-events"])
        .env("KUBECONFIG", config)
        .env("HOME", cluster.folder())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(child.stdout.take().unwrap()));
    cluster.apply(MAP, "").await;
    let mut next = async || {
        let line = tokio::time::timeout(std::time::Duration::from_secs(30), lines.next_line())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["ADDED", "m"]);
    cluster.ok("label cm m a=b").await;
    assert_eq!(next().await, ["MODIFIED", "m"]);
    cluster.ok("delete cm m").await;
    assert_eq!(next().await, ["DELETED", "m"]);
    cluster.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_manifests_are_told_as_kubernetes_tells_them() {
    let Some(cluster) = cluster(Profile::Workload).await else { return };
    let bad = cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: BAD_}}", "").await.err;
    assert!(bad.starts_with("The ConfigMap \"BAD_\" is invalid: metadata.name: Invalid value: \"BAD_\""), "{bad}");
    let unknown = cluster.apply("{apiVersion: v9, kind: Nope, metadata: {name: x}}", "").await.err;
    assert!(unknown.contains("no matches for kind \"Nope\" in version \"v9\""), "{unknown}");
    let large = format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: x}}, data: {{k: {}}}}}",
        "v".repeat(2 << 20)
    );
    let output = cluster.run("admin", &["create", "-f", "-"], &large).await.err;
    assert!(output.contains("Too long: may not be more than 1048576 bytes"), "{output}");
    let huge = format!(
        "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: x}}, data: {{k: {}}}}}",
        "v".repeat(4 << 20)
    );
    let output = cluster.run("admin", &["create", "-f", "-"], &huge).await.err;
    assert!(output.contains("Request entity too large: limit is 3145728"), "{output}");
    assert!(cluster.fails("get nonsense").await.contains("the server doesn't have a resource type \"nonsense\""));
    assert_eq!(cluster.fails("get cm x").await, "Error from server (NotFound): configmaps \"x\" not found");
    cluster.end().await;
}
