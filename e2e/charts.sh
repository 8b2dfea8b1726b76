#!/usr/bin/env bash
# The charts of charts/. Each is linted by the stock helm and rendered by it and by ours, byte for byte the same, with its default values
# and with those of ci/*-values.yaml, for a cluster with and without the APIs of others; what stands in ci/refused/ is refused by
# both, and each says what the first line of the file names. A chart that needs values has ci/refused/defaults.yaml.
# Then, unless charts were picked: cluster-openstack makes a cluster in the sandbox, is upgraded and removed; default-apps-openstack is
# taken by the Management API; the other charts are installed in the cluster, and on kube-apiserver, and the policies judge pods there.
#   SKEP=... e2e/charts.sh [CHART...]
# Exit: 3 there is no Go to build helm with.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
helm=$(conformance/helm/build helm)
export HELM_CACHE_HOME=$work HELM_CONFIG_HOME=$work HELM_DATA_HOME=$work

charts=("$@")
[ $# -gt 0 ] || mapfile -t charts < <(cd charts && printf '%s\n' */Chart.yaml | xargs -n 1 dirname)
others=()
for api in kyverno.io/v1 kyverno.io/v2 cilium.io/v2 monitoring.coreos.com/v1; do others+=(--api-versions "$api"); done

# render WHO CHART ARGUMENTS...: hooks that hold what chance gives cannot be compared.
render() {
  local who=$1 chart=$2
  shift 2
  "$who" template demo "charts/$chart" --namespace kube-system --kube-version v1.34.2 --no-hooks "$@"
}
for chart in "${charts[@]}"; do
  folder=charts/$chart
  [ "$(sed -n 's/^name: //p' "$folder/Chart.yaml")" = "$chart" ] || fail "$chart: Chart.yaml has another name"
  for file in _labels.tpl servicemonitor.yaml; do
    [ ! -e "$folder/templates/$file" ] || cmp -s "$folder/templates/$file" "charts/node-exporter/templates/$file" || fail "$chart: $file is not that of the others"
  done
  for file in README.md values.yaml values.schema.json .helmignore; do [ -e "$folder/$file" ] || fail "$chart: no $file"; done
  sets=("$folder"/ci/*-values.yaml)
  [ -e "${sets[0]}" ] || fail "$chart: no ci/*-values.yaml"
  [ -e "$folder/ci/refused/defaults.yaml" ] || sets+=("$folder/values.yaml")
  for values in "${sets[@]}"; do
    "$helm" lint --strict "$folder" -f "$values" >"$work/lint" 2>&1 || { cat "$work/lint" >&2; fail "$chart: helm lint with $values"; }
    for apis in none all; do
      with=(); [ "$apis" = none ] || with=("${others[@]}")
      render "$helm" "$chart" -f "$values" "${with[@]}" >"$work/theirs" 2>"$work/error" || { cat "$work/error" >&2; fail "$chart: helm template with $values"; }
      ! grep -q warning: "$work/error" || { cat "$work/error" >&2; fail "$chart: helm warns of $values"; }
      render "$skep" "$chart" -f "$values" "${with[@]}" >"$work/ours" 2>"$work/error" || { cat "$work/error" >&2; fail "$chart: skep template with $values"; }
      cmp "$work/theirs" "$work/ours" || { diff "$work/theirs" "$work/ours" | head -n 20 >&2 || true; fail "$chart: what becomes of $values differs"; }
      grep -q '^kind: ' "$work/ours" || [ "$apis" = none ] || fail "$chart: nothing comes of $values"
    done
    render "$helm" "$chart" -f "$values" --post-renderer sed --post-renderer-args -e --post-renderer-args 's/demo/other/' >"$work/theirs"
    render "$skep" "$chart" -f "$values" --post-renderer sed --post-renderer-args -e --post-renderer-args 's/demo/other/' >"$work/ours"
    cmp "$work/theirs" "$work/ours" || fail "$chart: what a post-renderer makes of $values differs"
  done
  ok "$chart: the same by helm and by ours with ${#sets[@]} sets of values"
  refused=("$folder"/ci/refused/*.yaml)
  [ -e "${refused[0]}" ] || fail "$chart: no ci/refused/*.yaml"
  for values in "${refused[@]}"; do
    said=$(sed -n '1s/^# //p' "$values")
    [ -n "$said" ] || fail "$values: no first line that says what is told"
    for who in "$helm" "$skep"; do
      if render "$who" "$chart" -f "$values" >/dev/null 2>"$work/error"; then fail "$values: $(basename "$who") takes it"; fi
      grep -qF -- "$said" "$work/error" || { cat "$work/error" >&2; fail "$values: $(basename "$who") does not say '$said'"; }
    done
  done
  ok "$chart: ${#refused[@]} sets of bad values are refused"
done
if [ -z "$(command -v kubectl)" ]; then
  printf '\n!!!! SKIPPED: the charts in clusters: there is no kubectl\n\n' >&2
  set -- rendered
fi
[ $# -eq 0 ] || { printf 'charts: %s passed\n' "$passed"; exit; }

# What helm says goes where it can be looked at.
helm() { "$helm" "$@" >"$work/helm.log" 2>&1 || { cat "$work/helm.log" >&2; fail "helm $*"; }; }
# known CHART NAMESPACE: what it becomes with any of its values has no field that the API server in $KUBECONFIG does not know.
known() {
  local values
  for values in "charts/$1/values.yaml" charts/"$1"/ci/*-values.yaml; do
    [ "$values" != "charts/$1/values.yaml" ] || [ ! -e "charts/$1/ci/refused/defaults.yaml" ] || continue
    "$skep" template demo "charts/$1" -f "$values" --namespace "$2" >"$work/objects"
    # Where no API of others is, there may be nothing to make.
    grep -q '^kind: ' "$work/objects" || continue
    kubectl create --dry-run=server --validate=strict -f "$work/objects" >/dev/null 2>"$work/error" || { cat "$work/error" >&2; fail "$1 with $values"; }
    count=$((count + 1))
  done
}
# Charts whose objects the cluster in $KUBECONFIG can have.
fitting() {
  local chart
  for chart in "${charts[@]}"; do
    case $chart in
      cluster-openstack | default-apps-openstack) ;;
      metrics-server)
        if kubectl get --raw /apis/apiregistration.k8s.io/v1 >/dev/null 2>&1; then echo "$chart"; else
          printf '\n!!!! SKIPPED: metrics-server in %s: it has no apiregistration.k8s.io\n\n' "$where" >&2
        fi ;;
      *) echo "$chart" ;;
    esac
  done
}

# JSON patches of a pod that breaks no rule, each with the rules that are broken then; with none, none is.
pod='{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","namespace":"default"},"spec":{"containers":[{"name":"a","image":"a",
  "securityContext":{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}}],
  "securityContext":{"runAsNonRoot":true,"runAsUser":1000,"runAsGroup":1000,"seccompProfile":{"type":"RuntimeDefault"}}}}'
breaches() { cat <<'TABLE'
adding-capabilities adding-capabilities-strict|add /spec/containers/0/securityContext/capabilities/add ["SYS_ADMIN"]
adding-capabilities-strict|add /spec/containers/0/securityContext/capabilities/add ["CHOWN"]
|add /spec/containers/0/securityContext/capabilities/add ["NET_BIND_SERVICE"]
host-namespaces|add /spec/hostNetwork true
host-namespaces|add /spec/hostPID true
host-namespaces|add /spec/hostIPC true
host-path restricted-volumes|add /spec/volumes [{"name":"a","hostPath":{"path":"/"}}]
restricted-volumes|add /spec/volumes [{"name":"a","nfs":{"server":"a","path":"/"}}]
|add /spec/volumes [{"name":"a","emptyDir":{}},{"name":"b","configMap":{"name":"b"}}]
host-ports-none|add /spec/containers/0/ports [{"containerPort":80,"hostPort":80}]
|add /spec/containers/0/ports [{"containerPort":80}]
privilege-escalation privileged-containers|replace /spec/containers/0/securityContext {"privileged":true,"capabilities":{"drop":["ALL"]}}
host-namespaces host-process-containers|add /spec/hostNetwork true; add /spec/securityContext/windowsOptions {"hostProcess":true}
check-proc-mount|add /spec/hostUsers false; add /spec/containers/0/securityContext/procMount "Unmasked"
selinux-type|add /spec/securityContext/seLinuxOptions {"type":"spc_t"}
selinux-user-role|add /spec/containers/0/securityContext/seLinuxOptions {"user":"system_u"}
selinux-user-role|add /spec/securityContext/seLinuxOptions {"role":"sysadm_r"}
|add /spec/securityContext/seLinuxOptions {"type":"container_t","level":"s0"}
app-armor|add /spec/securityContext/appArmorProfile {"type":"Unconfined"}
|add /spec/securityContext/appArmorProfile {"type":"Localhost","localhostProfile":"a"}
check-seccomp check-seccomp-strict|replace /spec/securityContext/seccompProfile {"type":"Unconfined"}
check-seccomp check-seccomp-strict|add /spec/containers/0/securityContext/seccompProfile {"type":"Unconfined"}
check-seccomp-strict|remove /spec/securityContext/seccompProfile
check-sysctls|add /spec/securityContext/sysctls [{"name":"net.core.somaxconn","value":"1"}]
|add /spec/securityContext/sysctls [{"name":"net.ipv4.tcp_syncookies","value":"1"}]
require-drop-all|replace /spec/containers/0/securityContext/capabilities {"drop":["CHOWN"]}
privilege-escalation require-drop-all|remove /spec/containers/0/securityContext
privilege-escalation|remove /spec/containers/0/securityContext/allowPrivilegeEscalation
privilege-escalation require-drop-all|add /spec/initContainers [{"name":"b","image":"b"}]
run-as-non-root|remove /spec/securityContext/runAsNonRoot
run-as-non-root|add /spec/containers/0/securityContext/runAsNonRoot false
|remove /spec/securityContext/runAsNonRoot; add /spec/containers/0/securityContext/runAsNonRoot true
run-as-non-root-user|add /spec/containers/0/securityContext/runAsUser 0
check-runasgroup|remove /spec/securityContext/runAsGroup
check-supplementalgroups|add /spec/securityContext/supplementalGroups [1,0]
check-fsgroup|add /spec/securityContext/fsGroup 0
TABLE
}
# rules PATCH: the rules that the pod breaks with it, as the API server warns of them.
rules() {
  local patch='' what path value
  while read -r what path value; do
    [ -z "$what" ] || patch+="${patch:+,}{\"op\":\"$what\",\"path\":\"$path\"${value:+,\"value\":$value}}"
  done < <(tr ';' '\n' <<<"$1")
  kubectl patch --local -f - --type json -p "[$patch]" -o json <<<"$pod" >"$work/pod"
  kubectl create --dry-run=server -f "$work/pod" >"$work/said" 2>&1 || { cat "$work/said" >&2; fail "a pod that is only warned of: $1"; }
  sed -nE "s/^Warning: Validation failed for ValidatingAdmissionPolicy '[^']*' with binding '[^']*': ([a-z-]+): .*/\1/p" "$work/said" | sort | paste -sd' '
}

# day [runs]: on whatever cluster $KUBECONFIG names, which runs pods or not; what is told begins with its name.
day() {
  local chart workload count=0 wanted patch broken
  mapfile -t fit < <(fitting)
  for chart in "${fit[@]}"; do known "$chart" kube-system; done
  ok "every field of ${#fit[@]} charts with $count sets of values is known"
  for chart in "${fit[@]}"; do helm install "$chart" "charts/$chart" --namespace kube-system; done
  same "helm list" "$("$helm" list --namespace kube-system --deployed --short | paste -sd' ')" "${fit[*]}"
  if [ "${1:-}" = runs ]; then
    for workload in $(kubectl --namespace kube-system get daemonsets,deployments -l app.kubernetes.io/managed-by=Helm -o name); do
      kubectl --namespace kube-system rollout status "$workload" --timeout 120s >"$work/rollout.log" || fail "$workload"
    done
    kubectl wait apiservice v1beta1.metrics.k8s.io --for condition=Available --timeout 60s >/dev/null || fail "the metrics API"
    same "kubectl top nodes" "$(kubectl top nodes --no-headers | wc -l)" "$(kubectl get nodes --no-headers | wc -l)"
  fi
  ok "they are installed${1:+, and all their pods are ready}"

  helm upgrade policy-baseline charts/policy-baseline --namespace kube-system --set engine=kubernetes,nonRootGroups=true
  count=0
  # A policy is followed a moment after it is made; those that break none come when every policy is.
  while IFS='|' read -r wanted patch; do
    for _ in $(seq 100); do
      broken=$(rules "$patch")
      [ "$broken" != "$wanted" ] && [ -n "$wanted" ] || break
      sleep 0.1
    done
    same "$patch" "$broken" "$wanted"
    count=$((count + 1))
  done < <(breaches | grep -v '^|'; breaches | grep '^|')
  same "rules that are broken" "$(breaches | cut -d'|' -f1 | tr ' ' '\n' | sort -u | grep -c .)" "$(grep -c '^  rule: ' charts/policy-baseline/files/policies.yaml)"
  ok "each rule of policy-baseline is broken by the pods that break it, $count in all"
  helm upgrade policy-baseline charts/policy-baseline --namespace kube-system --set engine=kubernetes,failureAction=Enforce
  for _ in $(seq 300); do kubectl patch --local -f - --type json -p '[{"op":"add","path":"/spec/hostPID","value":true}]' -o json <<<"$pod" | kubectl create --dry-run=server -f - >"$work/said" 2>&1 || break; sleep 0.1; done
  grep -q 'host-namespaces: hostNetwork, hostPID and hostIPC have to be off' "$work/said" || { cat "$work/said" >&2; fail "hostPID is not refused"; }
  kubectl create --dry-run=server -f - <<<"$pod" >/dev/null || fail "a good pod is refused"
  ok "with Enforce they refuse"
  for chart in "${fit[@]}"; do helm uninstall "$chart" --namespace kube-system; done
  same "what is left" "$(kubectl get all,roles,rolebindings,networkpolicies,validatingadmissionpolicies,configmaps -A -l app.kubernetes.io/managed-by=Helm -o name; kubectl get clusterroles,clusterrolebindings,storageclasses,priorityclasses -l app.kubernetes.io/managed-by=Helm -o name)" ""
  ok "and removed, with nothing left"
}

# The script that a machine runs before kubeadm, with its folders in $work; kubeadm applies the patch as kubectl does.
mkdir -p "$work/etc/kubernetes" "$work/run/kubeadm"
cp charts/cluster-openstack/files/kube-proxy.yaml "$work/etc/kubernetes/"
printf 'kind: ClusterConfiguration\n' >"$work/run/kubeadm/kubeadm.yaml"
printf 'kind: JoinConfiguration\n' >"$work/etc/kubeadm.yml"
sed -E "s~([ >\"])/(etc|run)/~\1$work/\2/~g" charts/cluster-openstack/files/prepare.sh >"$work/prepare.sh"
for _ in once twice; do sh "$work/prepare.sh" 4; done
same "prepare.sh: configurations of kube-proxy" "$(grep -c '^kind: KubeProxyConfiguration' "$work/run/kubeadm/kubeadm.yaml" "$work/etc/kubeadm.yml" | sed 's/.*://' | paste -sd' ')" "1 0"
patched=$(kubectl patch --local -f - --type json --patch-file "$work/etc/kubernetes/patches/kube-apiserver0+json.json" -o jsonpath='{.spec.containers[0].command[1]} {.spec.containers[0].resources.requests.cpu}' \
  <<<'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","command":["kube-apiserver"],"resources":{"requests":{"cpu":"250m"}}}]}}')
cpus=$(nproc)
same "prepare.sh: the API server" "$patched" "--max-requests-inflight=$((cpus * 400)) $((cpus * 250))m"
ok "cluster-openstack: what a machine runs before kubeadm fits to what kubeadm reads"

"$skep" up --no-cluster --port 0 --state "$work/state" >"$work/up.log" 2>&1 &
export KUBECONFIG=$work/state/kubeconfig OS_CLOUD=skep-sandbox OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml
for _ in $(seq 300); do [ -s "$OS_CLIENT_CONFIG_FILE" ] && [ -s "$KUBECONFIG" ] && kubectl get --raw /readyz >/dev/null 2>&1 && break; sleep 0.1; done
"$skep" doctor >"$work/doctor" || { cat "$work/doctor"; fail "the cloud"; }
external=$(sed -nE 's/^ok +external network .*\((.*)\)/\1/p' "$work/doctor")
org=(--namespace org-acme)
available() { kubectl "${org[@]}" wait cluster demo --for condition=Available --timeout 240s >/dev/null || { kubectl "${org[@]}" get clusters,machines -o wide >&2; fail "$1"; }; }
# All machines are as the objects say: three of the control plane, two of the pool.
rolled() {
  local what
  seen "${org[@]}" kubeadmcontrolplane demo
  seen "${org[@]}" machinedeployment demo-default
  for what in upToDateReplicas readyReplicas replicas; do
    kubectl "${org[@]}" wait kubeadmcontrolplane demo --for "jsonpath={.status.$what}=3" --timeout 240s >/dev/null || fail "the control plane's $what"
    kubectl "${org[@]}" wait machinedeployment demo-default --for "jsonpath={.status.$what}=2" --timeout 240s >/dev/null || fail "the pool's $what"
  done
}
key() { kubectl "${org[@]}" get secret demo-encryption-provider-config -o jsonpath='{.data.encryption}' | base64 -d; }
kubectl create namespace org-acme >/dev/null
kubectl "${org[@]}" create secret generic cloud-config --from-file clouds.yaml="$OS_CLIENT_CONFIG_FILE" >/dev/null
helm install demo-cluster charts/cluster-openstack "${org[@]}" -f charts/cluster-openstack/ci/list-values.yaml --set "cloudName=$OS_CLOUD,externalNetworkID=$external"
available "the cluster of lists does not become Available"
kubectl "${org[@]}" get secret demo-kubeconfig -o jsonpath='{.data.value}' | base64 -d >"$work/workload"
same "nodes of the pool" "$(kubectl --kubeconfig "$work/workload" get nodes -l giantswarm.io/node-pool=default -o name | wc -l)" 3
ok "cluster-openstack: what kubectl gs prints becomes Available"

created=$(key)
[ "$(sed -nE 's/^ +secret: (.*)/\1/p' <<<"$created" | base64 -d | wc -c)" = 32 ] || fail "the key has not 32 bytes"
cat >"$work/maps.yaml" <<YAML
clusterName: demo
organization: acme
kubernetesVersion: 1.34.2
cloudConfig: cloud-config
cloudName: $OS_CLOUD
externalNetworkID: $external
nodeCIDR: 10.6.0.0/24
bastion: {enabled: true, flavor: m1.small, image: ubuntu-2404-kube}
controlPlane: {replicas: 3, availabilityZones: [az1, az2, az3], flavor: m1.large, image: ubuntu-2404-kube}
nodeClasses: {default: {flavor: m1.medium, image: ubuntu-2404-kube, bootFromVolume: true, diskSize: 30}}
nodePools: {default: {class: default, failureDomain: az2, replicas: 2}}
YAML
templates() { kubectl "${org[@]}" get openstackmachinetemplates -o name | sort; }
before=$(templates)
helm upgrade demo-cluster charts/cluster-openstack "${org[@]}" -f "$work/maps.yaml"
same "templates that stay" "$(comm -12 <(echo "$before") <(templates))" ""
rolled
available "the cluster of maps is not Available any more"
kubectl "${org[@]}" wait openstackcluster demo --for 'jsonpath={.status.bastion.floatingIP}' --timeout 60s >/dev/null || fail "the bastion"
same "pools" "$(kubectl "${org[@]}" get machinedeployments -o name)" machinedeployment.cluster.x-k8s.io/demo-default
same "the key" "$(key)" "$created"
ok "cluster-openstack: other machines by an upgrade, of maps, and the same key"

mapfile -t before < <(kubectl "${org[@]}" get machines -o name)
helm upgrade demo-cluster charts/cluster-openstack "${org[@]}" -f "$work/maps.yaml" --set ignition.enable=true --set-string 'sshTrustedUserCAKeys[0]=ssh-ed25519 AAAA ca'
kubectl "${org[@]}" wait "${before[@]}" --for delete --timeout 240s >/dev/null || fail "machines stay that are no Flatcar"
rolled
available "the cluster of Flatcar is not Available any more"
ok "cluster-openstack: machines of Flatcar in the place of those"

for catalog in acme; do
  kubectl apply -f - >/dev/null 2>&1 <<YAML || fail "the catalog $catalog"
apiVersion: application.giantswarm.io/v1alpha1
kind: Catalog
metadata: {name: $catalog, namespace: default}
spec: {title: $catalog, description: charts, logoURL: "", storage: {type: helm, URL: "https://charts.example.com/"}, repositories: [{type: helm, URL: "https://charts.example.com/"}]}
YAML
done
where="the Management API" count=0
kubectl create namespace org-other >/dev/null
known cluster-openstack org-other
known default-apps-openstack org-other
ok "every field of the clusters and apps of $count sets of values is known"
helm install demo-default-apps charts/default-apps-openstack "${org[@]}" -f charts/default-apps-openstack/ci/gs-values.yaml
same "apps" "$(kubectl "${org[@]}" get apps -o name | wc -l)" "$(($(grep -c '^    appName: ' charts/default-apps-openstack/values.yaml) - $(grep -c '^    enabled: false$' charts/default-apps-openstack/values.yaml)))"
for app in $(kubectl "${org[@]}" get apps -l giantswarm.io/cluster=demo -o jsonpath='{range .items[?(@.spec.catalog=="default")]}{.spec.name}@{.spec.version}{"\n"}{end}'); do
  same "the version of ${app%@*}" "${app#*@}" "$(sed -n 's/^version: //p' "charts/${app%@*}/Chart.yaml")"
done
for app in $(kubectl "${org[@]}" get apps -l giantswarm.io/cluster=demo -o jsonpath='{range .items[?(@.spec.catalog=="upstream")]}{.spec.name}@{.spec.version}{"\n"}{end}'); do
  same "the version of ${app%@*}" "${app#*@}" "$(grep -A 1 "^  chart: ${app%@*}\$" charts/upstream/catalog.yaml | sed -n 's/^  version: //p')"
done
helm uninstall demo-default-apps "${org[@]}"
for _ in $(seq 600); do [ -z "$(kubectl "${org[@]}" get apps -o name)" ] && break; sleep 0.1; done
same "apps that are left" "$(kubectl "${org[@]}" get apps -o name)" ""
ok "default-apps-openstack: the Management API takes all its apps, and the catalogs have each in that version"

where="a cluster in the sandbox"
KUBECONFIG=$work/workload day runs
where=""
removed() {
  helm uninstall demo-cluster "${org[@]}"
  kubectl "${org[@]}" wait cluster demo --for delete --timeout 240s >/dev/null || fail "the cluster does not go"
}
removed
orphans=$("$skep" cloud orphans 2>&1) || fail "skep cloud orphans: $orphans"
same "the key" "$(key)" "$created"
ok "cluster-openstack: removed, nothing is left in the cloud, and the key is kept"
helm install demo-cluster charts/cluster-openstack "${org[@]}" -f "$work/maps.yaml"
same "the key" "$(key)" "$created"
removed
ok "cluster-openstack: installed again, with the key that is there"

if kube_apiserver; then
  where="kube-apiserver"
  # Nothing makes it here.
  kubectl create serviceaccount default >/dev/null
  day
else
  printf '\n!!!! SKIPPED: the charts on kube-apiserver: it is not built (conformance/run builds it)\n\n' >&2
fi
printf 'charts: %s passed\n' "$passed"
