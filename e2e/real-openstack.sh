#!/usr/bin/env bash
# The provider against a real OpenStack (Nova with its fake driver), with hollow machines standing in for the servers: a cluster
# becomes Available, its nodes are there, and after its deletion nothing of it is left in the cloud.
# Needs root and Debian's packages (e2e/openstack/README.md): says loudly that it is skipped where it cannot have them.
set -euo pipefail
cd "$(dirname "$0")/.."
skep=${SKEP:-$PWD/target/release/skep}
# A short path that every service's user can reach: sockets lie in it.
export OPENSTACK_STATE=${OPENSTACK_STATE:-/tmp/skep-openstack-$$} OPENSTACK_SERVICES="octavia cinder"

skipped() {
  printf '\n!!!! SKIPPED: real OpenStack: %s\n!!!! The provider was not tried against a real cloud in this run.\n\n' "$1" >&2
  exit 0
}
[ "$(id -u)" = 0 ] || skipped "needs root to install and start it"
command -v apt-get >/dev/null || skipped "its packages are Debian's and there is no apt-get"
[ -n "$(command -v kubectl)" ] || skipped "there is no kubectl"
apt-get update -q >/dev/null 2>&1 && apt-cache show nova-compute >/dev/null 2>&1 || skipped "this distribution has no OpenStack packages"

work=$(mktemp -d)
pids=()
cleanup() {
  local code=$?
  [ "$code" = 0 ] || tail -n 30 "$work"/*.log >&2 2>/dev/null || true
  [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  [ -n "${KEEP_OPENSTACK:-}" ] || { e2e/openstack/stop >/dev/null 2>&1 || true; rm -rf "$OPENSTACK_STATE"; }
  rm -rf "$work"
  exit "$code"
}
trap cleanup EXIT

e2e/openstack/install
e2e/openstack/start
export OS_CLIENT_CONFIG_FILE=$OPENSTACK_STATE/clouds.yaml OS_CLOUD=fleet
os() { /usr/bin/openstack "$@"; }

# What this project has in the cloud, a line each.
inventory() {
  local kind
  for kind in server port network subnet router "security group" loadbalancer "floating ip"; do
    # The first column is the id, whatever its name. Two words are two arguments.
    # shellcheck disable=SC2086
    os $kind list -f value | awk -v kind="$kind" 'NF { print kind, $1 }'
  done | sort
}
inventory >"$work/before"

"$skep" doctor --cloud fleet
"$skep" serve --state "$work/management" --listen 127.0.0.1:16443 >"$work/serve.log" 2>&1 & pids+=($!)
"$skep" machines --state "$work/machines" --cloud admin >"$work/machines.log" 2>&1 & pids+=($!)
export KUBECONFIG=$work/management/kubeconfig
for _ in $(seq 100); do kubectl version >/dev/null 2>&1 && break; sleep 0.2; done

image=$(os image list -f value -c Name | head -n 1)
"$skep" create cluster real --cloud fleet --image "$image" --control-plane-flavor m1.small --worker-flavor m1.tiny \
  --control-plane-machines 3 --worker-machines 3 --zones nova,zone-2,zone-3 --dry-run >"$work/real.yaml"
kubectl apply -f "$work/real.yaml"
kubectl wait cluster real --for=condition=Available --timeout=600s
kubectl wait kubeadmcontrolplane real-control-plane --for=jsonpath='{.status.readyReplicas}'=3 --timeout=300s
"$skep" describe cluster real
"$skep" get kubeconfig real >"$work/real.kubeconfig"
nodes=$(kubectl --kubeconfig "$work/real.kubeconfig" get nodes --no-headers | grep -c ' Ready ')
[ "$nodes" = 6 ] || { echo "real OpenStack: $nodes nodes are Ready, not 6" >&2; exit 1; }
servers=$(os server list -f value -c ID | wc -l)
[ "$servers" = 6 ] || { echo "real OpenStack: $servers servers, not 6" >&2; exit 1; }

kubectl scale machinedeployment real-md-0 --replicas 2
kubectl wait machinedeployment real-md-0 --for=jsonpath='{.status.readyReplicas}'=2 --timeout=300s

# A control plane that shrinks takes its etcd members along: without, the second one to go would take the API with it.
kubectl scale kubeadmcontrolplane real-control-plane --replicas 1
kubectl wait kubeadmcontrolplane real-control-plane --for=jsonpath='{.status.replicas}'=1 --timeout=300s
kubectl --kubeconfig "$work/real.kubeconfig" get nodes

"$skep" delete cluster real
inventory >"$work/after"
diff "$work/before" "$work/after" || { echo "real OpenStack: the lines with > were left behind" >&2; exit 1; }
echo "real OpenStack: 5 passed, 0 failed"
