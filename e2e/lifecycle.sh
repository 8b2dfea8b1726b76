#!/usr/bin/env bash
# A user's day with stock kubectl against `skep up`: scale, roll, upgrade, bad input, delete. What is expected of each is Cluster API's
# and Kubernetes' own behaviour; the last line counts.
# With BESIDE=1 against whatever KUBECONFIG names, where a cluster demo of 3+3 machines is, with the cloud of OS_CLIENT_CONFIG_FILE.
set -euo pipefail
cd "$(dirname "$0")/.."
. e2e/lib
needs "a day with kubectl" kubectl
[ -n "${BESIDE:-}" ] || export KUBECONFIG=$work/state/kubeconfig OS_CLIENT_CONFIG_FILE=$work/state/clouds.yaml
told() {
  [ -n "${BESIDE:-}" ] || tail -n 20 "$work/up.log"
  [ ! -s "$KUBECONFIG" ] || kubectl get machines,machinesets,machinedeployments,kcp -o wide
}

if [ -z "${BESIDE:-}" ]; then
  "$skep" up --state "$work/state" --port 0 >"$work/up.log" 2>&1 &
  for _ in $(seq 600); do grep -q "Cluster demo is Available" "$work/up.log" && break; sleep 0.1; done
  grep -q "Cluster demo is Available" "$work/up.log" || fail "the demo cluster is not Available"
fi

until_is() { kubectl wait "$1" --for=jsonpath="{.$2}"="$3" --timeout=120s >/dev/null || fail "$1: $2 is not $3"; }
machines() { kubectl get machines --selector "$1" --no-headers --output custom-columns=N:.metadata.name | sort; }
gone() { for one in "$@"; do kubectl wait machine "$one" --for=delete --timeout=120s >/dev/null || fail "machine $one stays"; done; }

# Workers: 3 -> 6 -> 2.
md=machinedeployment/demo-md-0 pool=cluster.x-k8s.io/deployment-name=demo-md-0
kubectl scale $md --replicas 3 >/dev/null && until_is $md status.readyReplicas 3
before=$(machines $pool)
kubectl scale $md --replicas 6 >/dev/null && until_is $md status.readyReplicas 6
[ "$(comm -23 <(echo "$before") <(machines $pool) | wc -l)" = 0 ] || fail "scaling up replaced a machine"
kubectl scale $md --replicas 2 >/dev/null && until_is $md status.replicas 2
for _ in $(seq 600); do [ "$(machines $pool | wc -l)" = 2 ] && break; sleep 0.1; done
[ "$(machines $pool | wc -l)" = 2 ] || fail "not 2 machines after scaling down"
ok "a MachineDeployment scales from 3 to 6 to 2"

# Another template: a new machine is Ready before an old one goes.
before=$(machines $pool)
spec=$(kubectl get openstackmachinetemplate demo-md-0 -o jsonpath='{.spec}' | sed 's/m1.small/m1.large/')
printf '{"apiVersion":"infrastructure.cluster.x-k8s.io/v1beta2","kind":"OpenStackMachineTemplate","metadata":{"name":"demo-md-0-large"},"spec":%s}' "$spec" |
  kubectl create -f - >/dev/null
kubectl patch $md --type merge -p '{"spec":{"template":{"spec":{"infrastructureRef":{"name":"demo-md-0-large"}}}}}' >/dev/null
fewest=2
for _ in $(seq 1200); do
  ready=$(kubectl get $md -o jsonpath='{.status.readyReplicas}')
  [ "${ready:-0}" -ge "$fewest" ] || fewest=${ready:-0}
  left=$(comm -12 <(echo "$before") <(machines $pool) | wc -l)
  [ "$left" = 0 ] && [ "$ready" = 2 ] && break
  sleep 0.1
done
[ "$left" = 0 ] || fail "$left machines of the old template stay"
[ "$fewest" = 2 ] || fail "only $fewest of 2 were ready while it rolled"
flavors=$(kubectl get openstackmachines --selector $pool -o jsonpath='{.items[*].spec.flavor.filter.name}')
[ "$flavors" = "m1.large m1.large" ] || fail "the new machines are $flavors"
ok "a new template rolls, and never fewer than 2 workers are ready"

# Control plane: 1 -> 3, then another version.
cp=kubeadmcontrolplane/small-control-plane
"$skep" create cluster small --cloud skep-sandbox --image ubuntu-2404-kube --control-plane-machines 1 --worker-machines 1 --kubernetes-version v1.34.2 >/dev/null
kubectl wait cluster small --for=condition=Available --timeout=120s >/dev/null
kubectl scale $cp --replicas 3 >/dev/null && until_is $cp status.readyReplicas 3
"$skep" get kubeconfig small >"$work/small.kubeconfig"
nodes() { kubectl --kubeconfig "$work/small.kubeconfig" get nodes --selector node-role.kubernetes.io/control-plane "$@"; }
[ "$(nodes --no-headers | grep -c ' Ready ')" = 3 ] || fail "not 3 control plane nodes"
ok "a control plane scales from 1 to 3"
before=$(machines cluster.x-k8s.io/cluster-name=small,cluster.x-k8s.io/control-plane)
kubectl patch $cp --type merge -p '{"spec":{"version":"v1.35.0"}}' >/dev/null
# shellcheck disable=SC2086
gone $before
until_is $cp status.upToDateReplicas 3
until_is $cp status.readyReplicas 3
versions=$(nodes -o jsonpath='{.items[*].status.nodeInfo.kubeletVersion}')
[ "$versions" = "v1.35.0 v1.35.0 v1.35.0" ] || fail "the nodes are of $versions"
proxy=
for _ in $(seq 300); do
  proxy=$(kubectl --kubeconfig "$work/small.kubeconfig" --namespace kube-system get daemonset kube-proxy -o jsonpath='{.spec.template.spec.containers[0].image}')
  [ "$proxy" = registry.k8s.io/kube-proxy:v1.35.0 ] && break
  sleep 0.1
done
[ "$proxy" = registry.k8s.io/kube-proxy:v1.35.0 ] || fail "kube-proxy is $proxy"
ok "a control plane rolls to another version, and kube-proxy with it"

# Bad input: what kubectl or the raw API is given, and what Kubernetes says of it.
refused() {
  local name=$1 wanted=$2 said=$3
  grep -qE -- "$wanted" <<<"$said" || fail "$name: wanted \"$wanted\", got: ${said:0:600}"
  ok "bad input: $name"
}
cluster() { printf '{"apiVersion":"cluster.x-k8s.io/v1beta2","kind":"Cluster","metadata":{"name":"%s"},"spec":%s}' "$1" "$2"; }
apply() { kubectl apply -f - 2>&1 || true; }
create() { kubectl create --validate=false -f - 2>&1 || true; }
infra='"infrastructureRef":{"apiGroup":"infrastructure.cluster.x-k8s.io","kind":"OpenStackCluster","name":"x"}'
refused "a wrong type" 'spec.paused: Invalid value: "string"' "$(cluster bad "{$infra,\"paused\":\"yes\"}" | create)"
refused "an unknown field" 'unknown field "spec.colour"' "$(cluster bad "{$infra,\"colour\":\"red\"}" | apply)"
refused "a missing field" 'spec.infrastructureRef.apiGroup: Required value' "$(cluster bad '{"infrastructureRef":{"kind":"OpenStackCluster","name":"x"}}' | create)"
refused "a name of 260 characters" 'metadata.name: Invalid value' "$(cluster "$(printf 'a%.0s' $(seq 260))" "{$infra}" | create)"
refused "an unknown kind" 'no matches for kind "Klaster"' "$(printf '{"apiVersion":"cluster.x-k8s.io/v1beta2","kind":"Klaster","metadata":{"name":"x"}}' | apply)"
path=/apis/cluster.x-k8s.io/v1beta2/namespaces/default/clusters
raw() { kubectl create --raw "$1" -f - 2>&1 || true; }
refused "2 MB of data" 'may not be more than 1048576 bytes|request is too large' "$({ printf '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"a":"'; head -c 2000000 /dev/zero | tr '\0' a; printf '"}}'; } | raw /api/v1/namespaces/default/configmaps)"
refused "4 MB of body" 'Request entity too large' "$(head -c 4000000 /dev/zero | tr '\0' ' ' | raw $path)"
refused "invalid UTF-8" 'BadRequest|is invalid' "$(printf '{"apiVersion":"cluster.x-k8s.io/v1beta2","kind":"Cluster","metadata":{"name":"\xff\xfe"}}' | raw $path)"
refused "half a body" 'BadRequest' "$(printf '{"apiVersion":' | raw $path)"
kubectl get clusters >/dev/null || fail "the server does not answer any more"

# Everything goes, while a client watches.
kubectl get machines --watch --no-headers >"$work/watch" &
kubectl delete cluster demo small --timeout=180s >/dev/null
[ -z "$(kubectl get machines,openstackmachines,openstackclusters,kubeadmconfigs,machinesets --no-headers 2>/dev/null)" ] || fail "objects are left"
grep -q "Deleting" "$work/watch" || fail "the watch saw no machine Deleting"
client=target/tools/openstackclient/bin/openstack
if [ -x "$client" ]; then
  export OS_CLOUD=skep-sandbox
  for kind in server port "router" loadbalancer "floating ip"; do
    # Two words are two arguments.
    # shellcheck disable=SC2086
    left=$("$client" $kind list -f value)
    [ -z "$left" ] || fail "left in the cloud: $kind $left"
  done
fi
ok "clusters are deleted, and nothing of them is left"
echo "a day with kubectl: $passed passed, 0 failed"
